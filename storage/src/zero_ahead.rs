//! Zeros ahead of a log that grows in small steps.
//!
//! A write into space that is allocated and was never written makes the file system convert an
//! extent, and a data sync of it waits for the file system's journal: two or three times what the
//! same write costs over blocks that were written before. So the space ahead of a trickle of
//! appends is written with zeros once, in larger pieces, beside the appends. Allocated space reads
//! as zeros anyway: what the file holds does not change, whether a piece is there, torn or missing,
//! and nothing else needs to know of it.
//!
//! What must hold: zeros go only where no append was begun, and no append begins in blocks to which
//! zeros are under way; the file is not cut, closed or given up meanwhile.

use std::future::Future;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::append_queue::Write;
use crate::error::{StorageError, StorageResult};
use crate::io::{BLOCK_BYTES, IoError, IoErrorKind, IoResult};

/// A trickle is a log whose writes are at most this part of the largest piece of zeros: for larger
/// ones the disk's bandwidth costs more than the file system does.
const SMALL_WRITE_PART: u64 = 8;
/// The least that is written at once, as such a part.
const PIECE_PART_MIN: u64 = 16;

/// A write of zeros.
pub(crate) type ZeroWrite = Pin<Box<dyn Future<Output = IoResult<()>>>>;

/// What is known of the space ahead of a log's end.
#[derive(Default)]
pub(crate) struct ZeroAhead {
    /// Up to here the active file was written, by appends or with zeros; 0: not known.
    written_end: u64,
    /// The blocks that are being written.
    under_way: Option<(Range<u64>, ZeroWrite)>,
    /// How far appends were begun in the active file, in whole blocks.
    begun_end: u64,
    /// What the log grew by in small writes, since it was idle or wrote large ones.
    trickled: u64,
    /// What a write adds to the log: a moving average, in bytes.
    usual_bytes: u64,
    /// The disk did not take zeros into space that it had given: it gets none any more.
    is_refused: bool,
    /// A write of zeros failed: whether the disk holds what it holds is no longer known.
    failed: Option<Box<IoError>>,
}

impl ZeroAhead {
    /// A write of appends is begun.
    pub(crate) fn begin_write(&mut self, write: &Write, zero_bytes_max: u64) {
        if let Some((blocks, position)) = write.pieces.last() {
            let bytes = write.batches.iter().map(|queued| queued.batch.batch_bytes() as u64);
            self.begin_append(bytes.sum(), position + blocks.len() as u64, zero_bytes_max);
        }
    }

    /// An append is begun: it adds `bytes` to the log, and ends with the block that ends at `end`.
    fn begin_append(&mut self, bytes: u64, end: u64, zero_bytes_max: u64) {
        let space_end = self.space_end();
        assert!(end <= space_end, "an append up to {end}, where zeros go from {space_end} on");
        self.begun_end = end;
        let usual = if self.usual_bytes == 0 { bytes } else { self.usual_bytes };
        self.usual_bytes = (3 * usual + bytes) / 4;
        let is_small = self.usual_bytes <= zero_bytes_max / SMALL_WRITE_PART;
        self.trickled = if is_small { self.trickled.saturating_add(bytes) } else { 0 };
    }

    /// Where zeros go next, if it is time: never more than the log has trickled.
    pub(crate) fn next(&self, allocated: u64, zero_bytes_max: u64) -> Option<Range<u64>> {
        let block = BLOCK_BYTES as u64;
        let piece = self.trickled.min(zero_bytes_max) / block * block;
        let start = self.written_end.max(self.begun_end);
        let is_enough = piece >= block.max(zero_bytes_max / PIECE_PART_MIN);
        let is_due = start - self.begun_end < piece / 2 && start < allocated;
        let may = self.under_way.is_none() && self.failed.is_none() && !self.is_refused;
        (may && is_enough && is_due).then(|| start..(start + piece).min(allocated))
    }

    /// Zeros are written to this range, which [`ZeroAhead::next`] gave.
    pub(crate) fn begin(&mut self, range: Range<u64>, write: ZeroWrite) {
        let begun = self.begun_end;
        assert!(range.start >= begun, "zeros from {} on, appends up to {begun}", range.start);
        self.under_way = Some((range, write));
    }

    /// Appends may be written up to here.
    pub(crate) fn space_end(&self) -> u64 {
        self.under_way.as_ref().map_or(u64::MAX, |(range, _)| range.start)
    }

    /// Whether none are under way.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some((range, write)) = &mut self.under_way else {
            return Poll::Ready(());
        };
        let Poll::Ready(result) = write.as_mut().poll(context) else {
            return Poll::Pending;
        };
        match result {
            Ok(()) => self.written_end = range.end,
            // A part of it may be there: zeros, as before.
            Err(error) if error.kind == IoErrorKind::Full => self.is_refused = true,
            Err(error) => self.failed = Some(Box::new(error)),
        }
        self.under_way = None;
        Poll::Ready(())
    }

    /// # Errors
    /// [`StorageError::Failed`] where zeros were not written.
    pub(crate) fn check(&self) -> StorageResult<()> {
        let failed = self.failed.as_deref().cloned();
        failed.map_or(Ok(()), |error| Err(StorageError::Failed(error)))
    }

    /// The active file is another, or was cut.
    pub(crate) fn begin_file(&mut self) {
        assert!(self.under_way.is_none(), "a file is cut while zeros are written to it");
        (self.written_end, self.begun_end, self.is_refused) = (0, 0, false);
    }

    /// The log is idle: until it has trickled again it gets no zeros.
    pub(crate) fn forget_trickle(&mut self) {
        self.trickled = 0;
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    const MAX: u64 = 256 << 10;

    /// A trickle of appends of `bytes` each: what was zeroed of `[0, end)`, and the end.
    fn trickle(ahead: &mut ZeroAhead, from: u64, bytes: u64, count: u64) -> (u64, u64) {
        let (mut zeroed, mut end) = (0, from);
        for _ in 0..count {
            end += bytes;
            ahead.begin_append(bytes, end.next_multiple_of(BLOCK_BYTES as u64), MAX);
            if let Some(range) = ahead.next(1 << 30, MAX) {
                assert!(range.start >= end && range.start.is_multiple_of(BLOCK_BYTES as u64));
                zeroed += range.end - range.start;
                ahead.begin(range, Box::pin(ready(Ok(()))));
                assert!(ahead.poll(&mut Context::from_waker(std::task::Waker::noop())).is_ready());
            }
        }
        (zeroed, end)
    }

    #[test]
    fn a_log_with_little_in_it_gets_no_zeros_and_a_trickle_never_much_more_than_it_wrote() {
        let mut ahead = ZeroAhead::default();
        assert_eq!(trickle(&mut ahead, 0, 1000, 16).0, 0);
        for count in [1, 20, 100, 1000, 10_000] {
            let mut ahead = ZeroAhead::default();
            let (zeroed, end) = trickle(&mut ahead, 0, 1000, count);
            assert!(zeroed <= end + end.min(MAX) * 3 / 2, "{zeroed} of {end}");
            assert!(end < 100_000 || zeroed >= end, "{zeroed} of {end}");
        }
    }

    #[test]
    fn idle_logs_begin_anew_and_keep_what_they_have() {
        let mut ahead = ZeroAhead::default();
        let (_, end) = trickle(&mut ahead, 0, 1000, 100);
        let left = ahead.written_end - end;
        assert!(left > 20_000);
        ahead.forget_trickle();
        let (zeroed, end) = trickle(&mut ahead, end, 1000, 10);
        assert_eq!(zeroed, 0, "an idle log writes a record now and then");
        let (zeroed, _) = trickle(&mut ahead, end, 1000, left / 1000);
        assert!(zeroed > 0);
    }

    #[test]
    fn large_writes_are_not_paid_twice() {
        let mut ahead = ZeroAhead::default();
        assert_eq!(trickle(&mut ahead, 0, 1 << 20, 100).0, 0);
        // A trickle after it, and single large writes in between.
        let (zeroed, end) = trickle(&mut ahead, 100 << 20, 2000, 200);
        assert!(zeroed > 100_000, "{zeroed}");
        assert_eq!(trickle(&mut ahead, end, 1 << 20, 1).0, 0);
        assert_eq!(ahead.trickled, 0);
    }

    #[test]
    #[should_panic(expected = "zeros go from")]
    fn no_append_begins_where_zeros_are_under_way() {
        let mut ahead = ZeroAhead::default();
        ahead.begin_append(20_000, 20_480, MAX);
        let range = ahead.next(1 << 20, MAX).unwrap();
        ahead.begin(range, Box::pin(pending()));
        assert_eq!(ahead.space_end(), 20_480);
        ahead.begin_append(1, 24_576, MAX);
    }

    #[test]
    fn a_disk_that_takes_no_zeros_gets_none_until_the_next_file() {
        let error = |kind| IoError {
            kind,
            operation: "write",
            path: String::new(),
            message: String::new(),
        };
        let mut context = Context::from_waker(std::task::Waker::noop());
        let mut ahead = ZeroAhead::default();
        ahead.begin_append(20_000, 20_480, MAX);
        ahead.begin(20_480..40_960, Box::pin(ready(Err(error(IoErrorKind::Full)))));
        assert!(ahead.poll(&mut context).is_ready());
        assert_eq!(ahead.next(1 << 20, MAX), None);
        ahead.begin_file();
        ahead.begin_append(100, 4096, MAX);
        assert!(ahead.next(1 << 20, MAX).is_some());
        ahead.begin(8192..12_288, Box::pin(ready(Err(error(IoErrorKind::Failed)))));
        assert!(ahead.poll(&mut context).is_ready());
        assert!(ahead.failed.is_some());
    }
}
