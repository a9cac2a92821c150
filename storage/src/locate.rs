//! Which batch holds an offset, by a segment's indexes and the headers of its batches.
//!
//! An index is believed where the batch that it names is the one it tells of; a damaged one is made
//! anew from the headers.

use std::rc::Rc;

use crate::environment::StorageEvent;
use crate::error::{StorageError, StorageResult};
use crate::header_walk::HeaderWalk;
use crate::index::{OffsetEntry, TimeEntry};
use crate::io::Disk;
use crate::segment::{Segment, SegmentCursor};
use crate::state::LogInner;

/// A batch's place in a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) position: u64,
    pub(crate) base_offset: i64,
}

impl<D: Disk> LogInner<D> {
    /// The first batch of the segment that ends at or behind `offset`; `None` where all end before.
    pub(crate) async fn locate(
        &self,
        segment: &Rc<Segment<D>>,
        offset: i64,
        walk: &mut HeaderWalk<'_, D>,
    ) -> StorageResult<Option<Found>> {
        let cursor = segment.flushed.get();
        if offset >= cursor.next_offset {
            return Ok(None);
        }
        if offset <= cursor.base_offset {
            return Ok(Some(Found { position: 0, base_offset: cursor.base_offset }));
        }
        let place = self.state.borrow().place_of(segment.base_offset, offset);
        if let Some(place) = place.filter(|place| place.position < cursor.position) {
            let header = walk.header(place.position).await?;
            if header.base_offset == offset {
                return Ok(Some(Found { position: place.position, base_offset: offset }));
            }
        }
        let relative = cursor.relative(offset);
        let holds = |e: &OffsetEntry| e.relative_offset <= relative;
        let entry = self.offset_entry(segment, holds, walk).await?;
        self.walk_from(&cursor, entry.map_or(0, |e| u64::from(e.position)), offset, walk).await
    }

    /// Where the batch begins that a log which starts at `log_start` begins with. Where that cannot
    /// be read, a place before it at which one does.
    pub(crate) async fn find_first_batch(&self, log_start: i64) -> i64 {
        let segment = {
            let state = self.state.borrow();
            state.segment_of(log_start).filter(|_| log_start < state.flushed_end())
        };
        let Some(segment) = segment else { return log_start };
        let mut walk = HeaderWalk::new(self, &segment);
        match self.locate(&segment, log_start, &mut walk).await {
            Ok(found) => found.map_or(log_start, |found| found.base_offset),
            Err(_) => segment.base_offset,
        }
    }

    async fn walk_from(
        &self,
        cursor: &SegmentCursor,
        mut position: u64,
        offset: i64,
        walk: &mut HeaderWalk<'_, D>,
    ) -> StorageResult<Option<Found>> {
        while position < cursor.position {
            let header = walk.header(position).await?;
            if header.base_offset > offset {
                // Logs have no gaps (nothing is compacted yet): the batch that stands here lost its
                // offset, which is not under its CRC.
                return Err(
                    walk.corrupt(position, "a batch whose offset does not continue the log")
                );
            }
            if header.last_offset() >= offset {
                return Ok(Some(Found { position, base_offset: header.base_offset }));
            }
            position += header.bytes;
        }
        Ok(None)
    }

    /// The last entry of the offset index for which `holds`, checked against the batch it names. A
    /// damaged index is rebuilt.
    pub(crate) async fn offset_entry(
        &self,
        segment: &Rc<Segment<D>>,
        holds: impl Fn(&OffsetEntry) -> bool,
        walk: &mut HeaderWalk<'_, D>,
    ) -> StorageResult<Option<OffsetEntry>> {
        let disk = &self.environment.disk;
        let path = segment.offset_index_path();
        let found = segment.offsets.floor(disk, &path, &holds).await;
        match found {
            Ok(None) if segment.offsets.count() == 0 => return Ok(None),
            Ok(Some(entry)) if holds(&entry) && walk.leads_to(&entry).await? => {
                return Ok(Some(entry));
            }
            Ok(None) if self.first_entry_is_behind(segment, &holds, walk).await? => {
                return Ok(None);
            }
            _ => {}
        }
        if !self.rebuild_indexes(segment).await? {
            return Ok(None);
        }
        let found = segment.offsets.floor(disk, &path, &holds).await;
        found.map_err(StorageError::from_read)
    }

    /// "No entry" is believed where the first entry is sound and does not hold.
    async fn first_entry_is_behind(
        &self,
        segment: &Rc<Segment<D>>,
        holds: &impl Fn(&OffsetEntry) -> bool,
        walk: &mut HeaderWalk<'_, D>,
    ) -> StorageResult<bool> {
        let disk = &self.environment.disk;
        let path = segment.offset_index_path();
        match segment.offsets.first(disk, &path).await {
            Ok(Some(first)) => Ok(!holds(&first) && walk.leads_to(&first).await?),
            _ => Ok(false),
        }
    }

    /// The last entry of the time index below or at `timestamp`; `None` where none is, or where the
    /// index cannot be believed.
    pub(crate) async fn time_entry(
        &self,
        segment: &Rc<Segment<D>>,
        timestamp: i64,
    ) -> StorageResult<Option<TimeEntry>> {
        let disk = &self.environment.disk;
        let path = segment.time_index_path();
        let found = segment.times.floor(disk, &path, |e| e.timestamp < timestamp).await;
        let Ok(Some(entry)) = found else {
            return Ok(None);
        };
        let mut walk = HeaderWalk::new(self, segment);
        let offset = segment.base_offset + i64::from(entry.relative_offset);
        let named = self.locate(segment, offset, &mut walk).await?;
        let Some(named) = named else {
            return Ok(None);
        };
        let header = walk.header(named.position).await?;
        let is_sound = header.last_offset() == offset && header.max_timestamp == entry.timestamp;
        Ok((is_sound && entry.timestamp < timestamp).then_some(entry))
    }

    /// Makes a segment's indexes anew from its headers, and saves them. False where the segment
    /// changed meanwhile: the next look-up tries again.
    async fn rebuild_indexes(&self, segment: &Rc<Segment<D>>) -> StorageResult<bool> {
        let interval = self.state.borrow().options.index_interval_bytes;
        let end = segment.flushed.get();
        let mut walk = HeaderWalk::over_all(self, segment);
        let mut cursor = SegmentCursor::new(segment.base_offset, end.created_ms);
        let (mut offsets, mut times) = (Vec::new(), Vec::new());
        while cursor.position < end.position {
            let header = walk.header(cursor.position).await?;
            if header.base_offset < cursor.next_offset {
                return Err(walk.corrupt(cursor.position, "an offset that goes back"));
            }
            let entries = cursor.advance(&header, interval);
            offsets.extend(entries.offset);
            times.extend(entries.time);
        }
        let path = segment.log_path();
        self.environment.report(&StorageEvent::IndexRebuilt { path });
        let _files = self.files.lock().await;
        if segment.flushed.get() != end {
            return Ok(false);
        }
        if segment.is_closed.get() {
            times.extend(cursor.time_entry());
        }
        segment.offsets.replace(offsets);
        segment.times.replace(times);
        segment.flushed.set(SegmentCursor {
            bytes_since_index: cursor.bytes_since_index,
            offset_entries: cursor.offset_entries,
            time_entries: cursor.time_entries,
            last_time_entry: cursor.last_time_entry,
            ..end
        });
        if segment.is_closed.get() {
            let disk = &self.environment.disk;
            let mut saved = segment.save_indexes(disk, true).await;
            if saved.is_ok() {
                saved = segment.name_indexes(disk).await;
            }
            saved.map_err(|error| self.fail(error))?;
        }
        Ok(true)
    }
}
