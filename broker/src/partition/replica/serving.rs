//! What clients may ask a replica, and what it says of its log.

use std::ops::Deref;

use bytes::Bytes;
use vltava_storage::Log;

use super::Replica;
use crate::partition::error::PartitionError;
use crate::raft::node::Role;
use crate::runtime::Runtime;

/// So many bytes are as much work as a request: a guess, and good enough to tell partitions apart.
const WORK_BYTES: u64 = 16 << 10;

impl<R: Runtime> Replica<R> {
    /// Whether clients may ask here: where this replica leads, or nobody else could, and its log
    /// has ended. Of a group, another leads then, and has gone on.
    pub fn check_leads(&self) -> Result<(), PartitionError> {
        if self.agenda.borrow().has_left() {
            return Err(PartitionError::NotLeader);
        }
        match self.raft.borrow().role() {
            Role::Leader => Ok(()),
            Role::Ended if !self.is_shared() => Ok(()),
            Role::Ended | Role::Follower | Role::PreCandidate | Role::Candidate => {
                Err(PartitionError::NotLeader)
            }
        }
    }

    /// Whether the caller's idea of the leader epoch (-1: it has none) fits this replica's
    /// (KIP-320), and clients may ask here. In this order, which is Kafka's: who knows of a newer
    /// leader than this replica is not sent to look for one.
    pub fn check_epoch(&self, current_leader_epoch: i32) -> Result<(), PartitionError> {
        self.check_serves(current_leader_epoch, false)
    }

    /// The same for who may also read here while this replica follows (KIP-392): with a leader that
    /// can be talked to. One that is cut off would be read for long, and have nothing new.
    pub fn check_serves(
        &self,
        current_leader_epoch: i32,
        may_follow: bool,
    ) -> Result<(), PartitionError> {
        let epoch = self.leader_epoch();
        match current_leader_epoch {
            -1 => {}
            older if older < epoch => return Err(PartitionError::FencedEpoch),
            newer if newer > epoch => return Err(PartitionError::UnknownEpoch),
            _ => {}
        }
        match may_follow && self.raft.borrow().follows() {
            true => Ok(()),
            false => self.check_leads(),
        }
    }

    /// Of these nodes, the one that a consumer of this leader can read from instead: its replica is
    /// in sync and has what comes before this offset. Of several, the one that has most.
    pub fn nearest(&self, nodes: &[i32], offset: i64) -> Option<i32> {
        let (raft, in_sync) = (self.raft.borrow(), self.in_sync.borrow());
        raft.leads()?;
        let near = in_sync.in_sync().filter(|heard| nodes.contains(&heard.id.node));
        let ends = near.map(|heard| (raft.end_of(&heard.id), heard.id.node));
        ends.filter(|(end, _)| *end >= offset).max().map(|(_, node)| node)
    }

    /// The end of the log: the offset that the next record gets. What lies between the high
    /// watermark and this is on its way to enough disks. Of a follower, also what it has received
    /// and not begun to write.
    pub fn end(&self) -> i64 {
        self.raft.borrow().history().end().offset
    }

    /// Whether the high watermark is not known again since another leads, or since a start: clients
    /// may have been told a higher one. Of a log that has ended nothing more is heard.
    pub fn is_high_watermark_behind(&self) -> bool {
        let raft = self.raft.borrow();
        raft.role() != Role::Ended && !raft.knows_high_watermark()
    }

    /// Where that is so of a leader: what was committed before may end at any offset up to this,
    /// the beginning of its epoch.
    pub(super) fn high_watermark_unknown_below(&self) -> Option<i64> {
        let raft = self.raft.borrow();
        let is_behind = raft.role() == Role::Leader && !raft.knows_high_watermark();
        is_behind.then(|| raft.epoch_begin())
    }

    /// Whether it is known where the log begins: a new leader may lack that a later start is
    /// committed, and a replica that has ended hears of nothing any more.
    pub fn knows_log_start(&self) -> bool {
        let raft = self.raft.borrow();
        match raft.role() {
            Role::Leader => raft.leads().is_some(),
            Role::Ended => raft.is_alone(),
            Role::Follower | Role::PreCandidate | Role::Candidate => true,
        }
    }

    /// The first offset of the log, as clients are told it: -1 while it is not known.
    pub fn told_log_start(&self) -> i64 {
        if self.knows_log_start() { self.log_start() } else { -1 }
    }

    /// Nothing below is served: the log's start, where it is known. A start that was committed
    /// stands in the log of whoever leads.
    pub fn served_from(&self) -> i64 {
        let written = {
            let raft = self.raft.borrow();
            raft.history().log_start_at(raft.history().end().index())
        };
        let start = self.log_start();
        if self.knows_log_start() { start } else { start.max(written) }
    }

    /// The largest epoch at or below `epoch` that the log has, and the offset at which it ends: the
    /// end of the log for the newest (KIP-101). `(-1, -1)` where the log knows no epoch so new, or
    /// none is named.
    ///
    /// Never less than what was committed of it, whatever this replica knows to be: clients that
    /// find their position behind the end take it for a truncation, and go back.
    pub fn end_of_epoch(&self, epoch: i32) -> (i32, i64) {
        let raft = self.raft.borrow();
        let history = raft.history();
        if epoch < 0 || epoch > history.end().epoch {
            return (-1, -1);
        }
        if let Some(end) = history.end_of_epoch(epoch) {
            // Older than all that is known: as Kafka has it, itself.
            return (if end.epoch < 0 { epoch } else { end.epoch }, end.offset);
        }
        // The marks of that time are forgotten; the log knows where its batches' epochs end.
        let base = history.base().at.offset;
        let found = self.log.end_of_epoch(epoch).map(|end| (end.epoch, end.end_offset.min(base)));
        found.unwrap_or((self.log.latest_epoch().unwrap_or(epoch).min(epoch), base))
    }

    /// Whole batches from the one that holds `offset` on, in memory; about `bytes_max` of them.
    /// Only what is flushed can be read.
    pub async fn read_bytes(&self, offset: i64, bytes_max: usize) -> Result<Bytes, PartitionError> {
        let log = self.log_to_read();
        let read = log.read_in_memory(offset, log.flushed_end(), bytes_max).await;
        Ok(read.inspect_err(|error| self.note_unread(offset, error))?)
    }

    /// How much it was asked to do since it came to this shard: a request counts one, and each 16
    /// KiB as much.
    pub fn work(&self) -> u64 {
        self.work.get()
    }

    /// Counts a request that moved so many bytes.
    pub(in crate::partition) fn count_work(&self, bytes: u64) {
        self.work.set(self.work.get() + 1 + bytes / WORK_BYTES);
    }

    /// The log, for a reader: what it opens is to be closed again.
    pub(in crate::partition) fn log_to_read(&self) -> LogToRead<'_, R> {
        LogToRead(self)
    }
}

/// The log of a replica, while something reads it.
pub(in crate::partition) struct LogToRead<'a, R: Runtime>(&'a Replica<R>);

impl<R: Runtime> Deref for LogToRead<'_, R> {
    type Target = Log<R::Disk>;

    fn deref(&self) -> &Log<R::Disk> {
        &self.0.log
    }
}

impl<R: Runtime> Drop for LogToRead<'_, R> {
    fn drop(&mut self) {
        // Not before: it may have been tidied up while this waited for the disk.
        self.0.is_tidy.set(false);
    }
}
