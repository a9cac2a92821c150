//! Reads of partitions of one shard, and the wait for more.

use std::rc::Rc;
use std::time::Duration;

use futures_channel::oneshot;
use futures_util::future::select;

use super::client::Partitions;
use super::error::PartitionError;
use super::replica::{Replica, Watch};
use super::request::{Found, PartitionId, ReadFrom, ReadResult};
use crate::runtime::Runtime;

/// Reads what each asks for. At most `bytes_max` in all (but for a first batch that is larger), as
/// the caller can send no more.
pub async fn read_all<R: Runtime>(
    partitions: Rc<Partitions<R>>,
    reads: Vec<ReadFrom>,
    bytes_max: usize,
) -> Vec<ReadResult> {
    let mut results = Vec::with_capacity(reads.len());
    let mut found = 0;
    for read in reads {
        let left = bytes_max.saturating_sub(found);
        let result = read_one(&partitions, &read, left, found == 0).await;
        found += result.as_ref().map_or(0, |found| found.bytes);
        results.push(result);
        // What is in memory is read without waiting, and there may be very many partitions.
        partitions.runtime().yield_if_needed().await;
    }
    results
}

async fn read_one<R: Runtime>(
    partitions: &Rc<Partitions<R>>,
    read: &ReadFrom,
    bytes_left: usize,
    at_least_one: bool,
) -> ReadResult {
    let replica = partitions.when_here(read.partition, Ok).await?;
    // First: it may lead no more when that is over.
    replica.settle_doubt().await?;
    replica.high_watermark_known().await;
    replica.check_serves(read.current_leader_epoch, read.may_follow)?;
    let nearer = read.nearer.as_deref().and_then(|nodes| replica.nearest(nodes, read.offset));
    if nearer.is_some() {
        return Ok(Found { preferred: nearer, ..nothing(&replica, None) });
    }
    let (start, end) = (replica.log_start(), replica.end());
    let is_within = (start..=end).contains(&read.offset);
    if read.offset > end && replica.check_leads().is_err() {
        // A follower that is behind, or has just come: the leader may have it.
        return Err(PartitionError::NotAvailable);
    }
    let out_of_range = Err(PartitionError::OutOfRange { start, end });
    if read.last_fetched_epoch >= 0 {
        let (epoch, end) = replica.end_of_epoch(read.last_fetched_epoch);
        if epoch < 0 || read.offset < start {
            replica.confirm_leads().await?;
            return out_of_range;
        }
        // Where the caller's log and this one part: the last epoch both can have (KIP-595).
        if epoch < read.last_fetched_epoch || end < read.offset {
            replica.check_leads()?;
            replica.confirm_leads().await?;
            return Ok(nothing(&replica, Some((epoch, end))));
        }
    }
    if read.offset > end {
        replica.confirm_leads().await?;
    }
    if !is_within {
        return out_of_range;
    }
    // A new leader may not know yet how much of its log is committed, and where that is said to
    // begin. Whoever has read it is not told that it is not there: it waits.
    let high_watermark = replica.high_watermark();
    let is_there = (replica.served_from()..high_watermark).contains(&read.offset);
    if !is_there || (bytes_left == 0 && !at_least_one) {
        return Ok(nothing(&replica, None));
    }
    let bytes_max = read.bytes_max.min(bytes_left);
    let is_behind = replica.is_high_watermark_behind();
    let (from, end) = (read.offset, high_watermark.min(replica.served_until(read.offset)?));
    let read = replica.log_to_read().read(from, end, bytes_max, at_least_one).await;
    let read = read.inspect_err(|error| replica.note_unread(from, error))?;
    replica.count_work(read.bytes as u64);
    Ok(Found {
        bytes: read.bytes,
        parts: read.parts,
        high_watermark,
        is_behind,
        log_start: replica.told_log_start(),
        diverging: None,
        preferred: None,
    })
}

fn nothing<R: Runtime>(replica: &Replica<R>, diverging: Option<(i32, i64)>) -> Found {
    Found {
        parts: Vec::new(),
        bytes: 0,
        high_watermark: replica.high_watermark(),
        is_behind: replica.is_high_watermark_behind(),
        log_start: replica.told_log_start(),
        diverging,
        preferred: None,
    }
}

/// Waits until `missing_bytes` more have been committed in these partitions together, one of them
/// has more than the caller saw (its high watermark at the time), the time is over, or the caller
/// has dropped the other end of `wanted`: it may be on another shard, where nothing else tells
/// that it no longer waits.
pub async fn wait_for_more<R: Runtime>(
    partitions: Rc<Partitions<R>>,
    seen: Vec<(PartitionId, i64)>,
    missing_bytes: u64,
    time: Duration,
    wanted: oneshot::Receiver<()>,
) {
    let runtime = partitions.runtime();
    let deadline = runtime.now().after(time);
    let (watch, satisfied) = Watch::new(missing_bytes);
    let mut watching = Vec::with_capacity(seen.len());
    for (partition, high_watermark) in seen {
        // A partition that is gone, or has moved on since, is news.
        let Ok(replica) = partitions.local(partition) else {
            return;
        };
        if replica.high_watermark() != high_watermark {
            return;
        }
        watching.push(replica.watch(&watch));
        runtime.yield_if_needed().await;
    }
    // Whichever comes is an answer; the watches end with `watching`.
    runtime.before(deadline, select(satisfied, wanted)).await;
}
