//! Looks for bit rot where nothing else reads: in segments that are proved.

use std::ops::Range;
use std::rc::Rc;

use crate::error::{Corruption, StorageError, StorageResult};
use crate::header::BatchHeader;
use crate::header_walk::HeaderWalk;
use crate::index::OffsetEntry;
use crate::io::Disk;
use crate::scan::FileScan;
use crate::segment::Segment;
use crate::state::LogInner;

/// Checked between two pauses.
const PAUSE_BYTES: u64 = 1 << 20;

impl<D: Disk> LogInner<D> {
    /// Checks the batches of the segment that holds `offset`, from the log's first one on: nobody
    /// reads what lies before, and no other replica may have it. Where the next segment begins.
    pub(crate) async fn verify(
        &self,
        offset: i64,
        pause: impl AsyncFn(u64),
    ) -> StorageResult<Option<i64>> {
        let segment = self.state.borrow().segment_of(offset);
        let Some(segment) = segment else {
            return Ok(None);
        };
        let end = segment.flushed.get().position;
        let checked = match self.first_position(&segment).await {
            Ok(from) => self.verify_batches(&segment, from..end, pause).await,
            Err(error) => Err(error),
        };
        let state = self.state.borrow();
        let current = state.segments.get(&segment.base_offset);
        // What was cut or deleted meanwhile may look as it likes.
        if current.is_some_and(|current| Rc::ptr_eq(current, &segment)) {
            checked?;
        }
        let next = state.segments.range(segment.base_offset + 1..).next();
        Ok(next.map(|(base, _)| *base))
    }

    /// Where in a segment the first batch stands that is the log's.
    async fn first_position(&self, segment: &Rc<Segment<D>>) -> StorageResult<u64> {
        let first_batch = self.state.borrow().first_batch;
        if first_batch <= segment.base_offset {
            return Ok(0);
        }
        let mut walk = HeaderWalk::new(self, segment);
        let found = self.locate(segment, first_batch, &mut walk).await?;
        Ok(found.map_or(segment.flushed.get().position, |found| found.position))
    }

    /// The leader epoch is not under the CRC; the log knows which one an offset has.
    fn is_epoch(&self, header: &BatchHeader) -> bool {
        let state = self.state.borrow();
        let known = state.epochs.epoch_at(header.base_offset);
        known.is_none_or(|known| known == header.leader_epoch)
    }

    /// Checks the last batches of a segment: all that reach behind this place of its file.
    pub(crate) async fn verify_end(
        &self,
        segment: &Rc<Segment<D>>,
        place: u64,
    ) -> StorageResult<()> {
        let mut walk = HeaderWalk::new(self, segment);
        let is_before = |entry: &OffsetEntry| u64::from(entry.position) <= place;
        let entry = self.offset_entry(segment, is_before, &mut walk).await?;
        let from = entry.map_or(0, |entry| u64::from(entry.position));
        let end = segment.flushed.get().position;
        self.verify_batches(segment, from..end, async |_| {}).await
    }

    /// Checks what of a segment is walked over again once it ends at this place.
    pub(crate) async fn verify_below(
        &self,
        segment: &Rc<Segment<D>>,
        place: u64,
    ) -> StorageResult<()> {
        let proved = self.state.borrow().proved;
        let is_proved = proved.base_offset == segment.base_offset && proved.position <= place;
        let from = if is_proved { proved.position } else { 0 };
        self.verify_batches(segment, from..place, async |_| {}).await
    }

    /// Checks the batches in a part of a segment, which begins and ends between batches.
    async fn verify_batches(
        &self,
        segment: &Segment<D>,
        part: Range<u64>,
        pause: impl AsyncFn(u64),
    ) -> StorageResult<()> {
        let path = segment.log_path();
        let mut scan = FileScan::open_past_cache(&self.environment.disk, &path).await?;
        let base = segment.base_offset;
        let (mut position, mut paused_at) = (part.start, part.start);
        let mut offset = match part.start {
            0 => base,
            from => scan.header(from).await?.map_or(base, |first| first.base_offset),
        };
        while position < part.end {
            if position - paused_at >= PAUSE_BYTES {
                pause(position - paused_at).await;
                paused_at = position;
            }
            let what = match scan.header(position).await? {
                Err(what) => what,
                Ok(header) if header.base_offset != offset => "an offset that does not continue",
                Ok(header) if !self.is_epoch(&header) => {
                    "an epoch that is not the one of its offset"
                }
                Ok(header) if scan.check_crc(position, &header).await? => {
                    position += header.bytes;
                    offset = header.next_offset();
                    continue;
                }
                Ok(_) => "a CRC that does not match",
            };
            return Err(StorageError::Corrupt(Corruption {
                path,
                position,
                offset,
                what: what.to_owned(),
            }));
        }
        pause(position - paused_at).await;
        Ok(())
    }
}
