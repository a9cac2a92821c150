//! Which offset a timestamp, or one of the special ones, means.

use super::error::PartitionError;
use super::replica::Replica;
use crate::runtime::Runtime;

/// What is looked up (Kafka's special timestamps are -1 and below).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// -1: the high watermark.
    Latest,
    /// -2, and -4 (KIP-405: on local disk, which is all there is): the start of the log.
    Earliest,
    /// -3 (KIP-734): the record with the largest timestamp.
    MaxTimestamp,
    /// -5 and -6 (KIP-1005, KIP-1023): in tiered storage, which has nothing.
    Tiered,
    /// The first record whose timestamp is at or after this one, in milliseconds since 1970.
    Timestamp(i64),
}

impl From<i64> for Lookup {
    fn from(timestamp: i64) -> Self {
        match timestamp {
            -1 => Self::Latest,
            -2 | -4 => Self::Earliest,
            -3 => Self::MaxTimestamp,
            -5 | -6 => Self::Tiered,
            timestamp => Self::Timestamp(timestamp),
        }
    }
}

/// An offset with what is known of it; -1 stands for "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The offset.
    pub offset: i64,
    /// The timestamp of its record, where that was looked up.
    pub timestamp: i64,
    /// The leader epoch in which it was written.
    pub leader_epoch: i32,
}

impl Position {
    const NONE: Self = Self { offset: -1, timestamp: -1, leader_epoch: -1 };
}

impl<R: Runtime> Replica<R> {
    /// Looks up an offset among what is committed.
    pub async fn lookup(
        &self,
        current_leader_epoch: i32,
        lookup: Lookup,
    ) -> Result<Position, PartitionError> {
        self.settle_doubt().await?;
        self.check_epoch(current_leader_epoch)?;
        let (start, end) = (self.log_start(), self.high_watermark());
        let at = |offset, leader_epoch| Position { offset, timestamp: -1, leader_epoch };
        // Until then the offset may be any between the two, and the answer would go back.
        let is_behind = self.is_high_watermark_behind();
        let knows_start = self.knows_log_start();
        let found = match lookup {
            Lookup::Earliest if !knows_start => return Err(PartitionError::NotAvailable),
            Lookup::Latest if is_behind => return Err(PartitionError::NotAvailable),
            Lookup::Latest => return Ok(at(end, self.leader_epoch())),
            Lookup::Earliest => {
                return Ok(at(start, self.log.epoch_at(start).unwrap_or(self.leader_epoch())));
            }
            Lookup::Tiered => return Ok(Position::NONE),
            Lookup::MaxTimestamp => self.log_to_read().largest_timestamp().await?,
            Lookup::Timestamp(timestamp) => {
                self.log_to_read().offset_for_timestamp(timestamp).await?
            }
        };
        let found = found.filter(|found| found.offset < end);
        let is_below = found.is_some_and(|found| found.offset < self.log_start());
        if is_below || !knows_start || found.is_none() && is_behind {
            return Err(PartitionError::NotAvailable);
        }
        Ok(found.map_or(Position::NONE, |found| Position {
            offset: found.offset,
            timestamp: found.timestamp,
            leader_epoch: found.leader_epoch,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::Lookup;

    #[test]
    fn special_timestamps() {
        let lookups = [-1, -2, -3, -4, -5, -6, -7, 0].map(Lookup::from);
        let (latest, earliest) = (Lookup::Latest, Lookup::Earliest);
        let (tiered, time) = (Lookup::Tiered, Lookup::Timestamp);
        assert_eq!(
            lookups,
            [latest, earliest, Lookup::MaxTimestamp, earliest, tiered, tiered, time(-7), time(0)]
        );
    }
}
