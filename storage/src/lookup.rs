//! Timestamps to offsets (Kafka's ListOffsets).

use std::rc::Rc;

use bytes::Bytes;
use vltava_protocol::batch::{Batch, TimestampType};
use vltava_protocol::compression::decompress;
use vltava_protocol::record::records;

use crate::error::StorageResult;
use crate::header_walk::HeaderWalk;
use crate::io::Disk;
use crate::segment::{NO_TIMESTAMP, Segment};
use crate::state::LogInner;

/// Records of a batch are looked into only where they take no more memory than this.
const RECORDS_BYTES_MAX: usize = 64 << 20;

/// A record found by its timestamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimestampOffset {
    /// The record's timestamp, in milliseconds since 1970.
    pub timestamp: i64,
    /// Its offset.
    pub offset: i64,
    /// The epoch of the leader that took it.
    pub leader_epoch: i32,
}

impl<D: Disk> LogInner<D> {
    /// The first record, by offset, whose timestamp is at least `timestamp`.
    pub(crate) async fn offset_for_timestamp(
        &self,
        timestamp: i64,
    ) -> StorageResult<Option<TimestampOffset>> {
        let (log_start, segments) = {
            let state = self.state.borrow();
            let segments: Vec<Rc<Segment<D>>> = state.segments.values().cloned().collect();
            (state.log_start, segments)
        };
        for segment in segments {
            let cursor = segment.flushed.get();
            if cursor.max_timestamp < timestamp || cursor.next_offset <= log_start {
                continue;
            }
            let entry = self.time_entry(&segment, timestamp).await?;
            let from = entry.map_or(segment.base_offset, |entry| {
                segment.base_offset + i64::from(entry.relative_offset) + 1
            });
            let mut walk = HeaderWalk::new(self, &segment);
            let found = self.locate(&segment, from.max(log_start), &mut walk).await?;
            let mut position = found.map_or(cursor.position, |found| found.position);
            while position < cursor.position {
                let header = walk.header(position).await?;
                if header.max_timestamp >= timestamp {
                    let bytes = usize::try_from(header.bytes).unwrap_or(usize::MAX);
                    let batch = walk.bytes(position, bytes).await?;
                    let wanted = |at: i64, offset| at >= timestamp && offset >= log_start;
                    if let Some(found) = first_record(&batch, wanted) {
                        return Ok(Some(found));
                    }
                }
                position += header.bytes;
            }
        }
        Ok(None)
    }

    /// The first record that has the largest timestamp of the log; `None` where no record has one.
    pub(crate) async fn largest_timestamp(&self) -> StorageResult<Option<TimestampOffset>> {
        let newest = {
            let state = self.state.borrow();
            let by_time = |s: &&Rc<Segment<D>>| s.flushed.get().max_timestamp;
            let largest = state.segments.values().map(|s| by_time(&s)).max();
            let mut segments = state.segments.values();
            segments.find(|s| Some(by_time(s)) == largest).cloned()
        };
        let Some(segment) = newest else {
            return Ok(None);
        };
        let cursor = segment.flushed.get();
        if cursor.max_timestamp == NO_TIMESTAMP {
            return Ok(None);
        }
        let mut walk = HeaderWalk::new(self, &segment);
        let found = self.locate(&segment, cursor.max_timestamp_offset, &mut walk).await?;
        let Some(found) = found else {
            return Ok(None);
        };
        let header = walk.header(found.position).await?;
        let bytes = usize::try_from(header.bytes).unwrap_or(usize::MAX);
        let batch = walk.bytes(found.position, bytes).await?;
        Ok(first_record(&batch, |at, _| at == cursor.max_timestamp))
    }
}

/// The first record of a batch for which `wanted(timestamp, offset)`. A batch whose records cannot
/// be read answers by its header.
fn first_record(batch: &Bytes, wanted: impl Fn(i64, i64) -> bool) -> Option<TimestampOffset> {
    let (batch, _) = Batch::parse(batch).ok()?;
    let found = |timestamp, offset| TimestampOffset {
        timestamp,
        offset,
        leader_epoch: batch.leader_epoch(),
    };
    if batch.timestamp_type() == TimestampType::LogAppendTime {
        let timestamp = batch.max_timestamp();
        let mut offsets = batch.base_offset()..=batch.last_offset();
        let offset = offsets.find(|offset| wanted(timestamp, *offset))?;
        return Some(found(timestamp, offset));
    }
    let payload = batch
        .codec()
        .ok()
        .and_then(|codec| decompress(codec, batch.payload(), RECORDS_BYTES_MAX).ok());
    let Some(payload) = payload else {
        let (timestamp, offset) = (batch.max_timestamp(), batch.last_offset());
        return wanted(timestamp, offset).then(|| found(timestamp, offset));
    };
    for record in records(&payload, batch.record_count()) {
        let record = record.ok()?;
        let timestamp = batch.base_timestamp().saturating_add(record.timestamp_delta);
        let offset = batch.base_offset().saturating_add(i64::from(record.offset_delta));
        if wanted(timestamp, offset) {
            return Some(found(timestamp, offset));
        }
    }
    None
}
