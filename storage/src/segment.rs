//! One segment: what is known of it, when it is closed, its file and its indexes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use crate::checkpoint::{FieldReader, FieldWriter, join};
use crate::chunks::ChunkCache;
use crate::error::{StorageError, StorageResult};
use crate::header::BatchHeader;
use crate::index::{Entry, OffsetEntry, SparseIndex, TimeEntry};
use crate::io::{BLOCK_BYTES, Disk, OpenMode};
use crate::layout;
use crate::options::LogOptions;

/// No batch had a timestamp.
pub(crate) const NO_TIMESTAMP: i64 = -1;
/// A position in a segment fits the four bytes that Kafka's index has, as a signed number.
pub(crate) const SEGMENT_BYTES_LIMIT: u64 = i32::MAX as u64;

/// Where a segment stands: everything that follows from its batches up to a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentCursor {
    pub(crate) base_offset: i64,
    pub(crate) next_offset: i64,
    /// Bytes of batches.
    pub(crate) position: u64,
    pub(crate) max_timestamp: i64,
    /// Last offset of the batch that has the largest timestamp.
    pub(crate) max_timestamp_offset: i64,
    /// Largest timestamp of the first batch: age counts from it.
    pub(crate) first_timestamp: i64,
    /// When the segment was begun, by the clock: age counts from it while no batch has a timestamp.
    /// 0: not known.
    pub(crate) created_ms: i64,
    pub(crate) bytes_since_index: u64,
    pub(crate) offset_entries: u32,
    pub(crate) time_entries: u32,
    pub(crate) last_time_entry: i64,
}

/// Entries that a batch adds to the indexes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct IndexEntries {
    pub(crate) offset: Option<OffsetEntry>,
    pub(crate) time: Option<TimeEntry>,
}

impl SegmentCursor {
    /// As it stands in a checkpoint.
    pub(crate) const BYTES: usize = 9 * 8 + 2 * 4;

    /// An empty segment.
    pub(crate) fn new(base_offset: i64, created_ms: i64) -> Self {
        Self {
            base_offset,
            next_offset: base_offset,
            position: 0,
            max_timestamp: NO_TIMESTAMP,
            max_timestamp_offset: -1,
            first_timestamp: NO_TIMESTAMP,
            created_ms,
            bytes_since_index: 0,
            offset_entries: 0,
            time_entries: 0,
            last_time_entry: NO_TIMESTAMP,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.position == 0
    }

    /// An offset as the indexes write it.
    pub(crate) fn relative(&self, offset: i64) -> u32 {
        u32::try_from(offset - self.base_offset).unwrap_or(u32::MAX)
    }

    /// The batch stands behind all others. Kafka's rule for index entries: before a batch, where
    /// more than an interval of bytes has gone by since the last.
    pub(crate) fn advance(&mut self, batch: &BatchHeader, interval_bytes: u64) -> IndexEntries {
        assert!(
            batch.base_offset >= self.next_offset,
            "batch at {} behind {}",
            batch.base_offset,
            self.next_offset
        );
        let last_offset = batch.last_offset();
        if batch.max_timestamp > self.max_timestamp {
            self.max_timestamp = batch.max_timestamp;
            self.max_timestamp_offset = last_offset;
        }
        if self.first_timestamp == NO_TIMESTAMP {
            self.first_timestamp = batch.max_timestamp;
        }
        let mut entries = IndexEntries::default();
        if self.bytes_since_index > interval_bytes {
            entries.offset = Some(OffsetEntry {
                relative_offset: self.relative(last_offset),
                position: u32::try_from(self.position).unwrap_or(u32::MAX),
            });
            self.offset_entries += 1;
            entries.time = self.time_entry();
            self.bytes_since_index = 0;
        }
        self.bytes_since_index += batch.bytes;
        self.position += batch.bytes;
        self.next_offset = batch.next_offset();
        entries
    }

    /// The entry that says what the largest timestamp is by now, where none says so yet.
    pub(crate) fn time_entry(&mut self) -> Option<TimeEntry> {
        if self.max_timestamp <= self.last_time_entry {
            return None;
        }
        self.last_time_entry = self.max_timestamp;
        self.time_entries += 1;
        Some(TimeEntry {
            timestamp: self.max_timestamp,
            relative_offset: self.relative(self.max_timestamp_offset),
        })
    }

    /// Whether the segment is closed before batches of so many bytes up to `last_offset` (Kafka's
    /// `LogSegment.shouldRoll`).
    pub(crate) fn should_roll(
        &self,
        bytes: u64,
        last_offset: i64,
        max_timestamp: i64,
        options: &LogOptions,
        now_ms: i64,
    ) -> bool {
        if self.is_empty() {
            return false;
        }
        let size_max = options.segment_bytes.min(SEGMENT_BYTES_LIMIT);
        let entries_max = |entry_bytes: usize| options.index_bytes_max / entry_bytes as u64;
        self.position + bytes > size_max
            || self.is_expired(max_timestamp, options, now_ms)
            || u64::from(self.offset_entries) >= entries_max(OffsetEntry::BYTES)
            || u64::from(self.time_entries) + 1 >= entries_max(TimeEntry::BYTES)
            || last_offset - self.base_offset > i64::from(i32::MAX)
    }

    fn is_expired(&self, max_timestamp: i64, options: &LogOptions, now_ms: i64) -> bool {
        let age_max = options.segment_ms.saturating_sub(options.segment_jitter_ms);
        let age = if self.first_timestamp >= 0 && max_timestamp >= 0 {
            max_timestamp.saturating_sub(self.first_timestamp)
        } else if self.created_ms > 0 {
            now_ms.saturating_sub(self.created_ms)
        } else {
            0
        };
        age > age_max
    }

    /// As it stands in a checkpoint.
    pub(crate) fn encode(&self, fields: &mut FieldWriter) {
        fields.i64(self.base_offset);
        fields.i64(self.next_offset);
        fields.u64(self.position);
        fields.i64(self.max_timestamp);
        fields.i64(self.max_timestamp_offset);
        fields.i64(self.first_timestamp);
        fields.i64(self.created_ms);
        fields.u64(self.bytes_since_index);
        fields.u32(self.offset_entries);
        fields.u32(self.time_entries);
        fields.i64(self.last_time_entry);
    }

    /// From a checkpoint.
    pub(crate) fn decode(fields: &mut FieldReader<'_>) -> Option<Self> {
        let cursor = Self {
            base_offset: fields.i64()?,
            next_offset: fields.i64()?,
            position: fields.u64()?,
            max_timestamp: fields.i64()?,
            max_timestamp_offset: fields.i64()?,
            first_timestamp: fields.i64()?,
            created_ms: fields.i64()?,
            bytes_since_index: fields.u64()?,
            offset_entries: fields.u32()?,
            time_entries: fields.u32()?,
            last_time_entry: fields.i64()?,
        };
        (cursor.base_offset >= 0 && cursor.next_offset >= cursor.base_offset).then_some(cursor)
    }
}

/// A segment with its file. Files are opened when they are needed and may be closed again; what a
/// reader holds stays open.
pub(crate) struct Segment<D: Disk> {
    /// Without extension: `topic-0/00000000000000000042`.
    directory: Rc<str>,
    pub(crate) base_offset: i64,
    file: RefCell<Option<D::File>>,
    /// Names it among the chunks of older ranges; 0: it has no number yet.
    number: Cell<u64>,
    /// What is flushed of it.
    pub(crate) flushed: Cell<SegmentCursor>,
    /// Of a closed segment nothing changes; its file may be closed by the shard's bound on open
    /// files.
    pub(crate) is_closed: Cell<bool>,
    pub(crate) offsets: SparseIndex<OffsetEntry>,
    pub(crate) times: SparseIndex<TimeEntry>,
}

impl<D: Disk> Segment<D> {
    /// A segment of which `saved` index entries are in their files.
    pub(crate) fn new(
        directory: Rc<str>,
        flushed: SegmentCursor,
        is_closed: bool,
        saved: (u32, u32),
    ) -> Self {
        Self {
            directory,
            base_offset: flushed.base_offset,
            file: RefCell::new(None),
            number: Cell::new(0),
            flushed: Cell::new(flushed),
            is_closed: Cell::new(is_closed),
            offsets: SparseIndex::new(saved.0),
            times: SparseIndex::new(saved.1),
        }
    }

    pub(crate) fn log_path(&self) -> String {
        join(&self.directory, &layout::log_file(self.base_offset))
    }

    pub(crate) fn offset_index_path(&self) -> String {
        join(&self.directory, &layout::offset_index_file(self.base_offset))
    }

    pub(crate) fn time_index_path(&self) -> String {
        join(&self.directory, &layout::time_index_file(self.base_offset))
    }

    /// Its number among the chunks of older ranges.
    pub(crate) fn number(&self, chunks: &ChunkCache) -> u64 {
        if self.number.get() == 0 {
            self.number.set(chunks.number_segment());
        }
        self.number.get()
    }

    /// How much of its file is never written again: of the active one, not the last block.
    pub(crate) fn stable_end(&self) -> u64 {
        let flushed = self.flushed.get().position;
        if self.is_closed.get() { flushed } else { flushed - flushed % BLOCK_BYTES as u64 }
    }

    /// The open file; `None` where it is not open.
    pub(crate) fn open_file(&self) -> Option<D::File> {
        self.file.borrow().clone()
    }

    /// The file, opened where it is not.
    pub(crate) async fn file(&self, disk: &D) -> StorageResult<D::File> {
        if let Some(file) = self.open_file() {
            return Ok(file);
        }
        let mode = if self.is_closed.get() { OpenMode::ReadBlocks } else { OpenMode::Write };
        let opened = disk.open(&self.log_path(), mode).await;
        let file = opened.map_err(StorageError::from_read)?;
        *self.file.borrow_mut() = Some(file.clone());
        Ok(file)
    }

    pub(crate) fn set_file(&self, file: D::File) {
        *self.file.borrow_mut() = Some(file);
    }

    /// Lets go of the files. Readers that hold them are not disturbed.
    pub(crate) fn close_files(&self) {
        *self.file.borrow_mut() = None;
        self.offsets.release();
        self.times.release();
    }

    /// Adds what a flushed batch adds.
    pub(crate) fn advance(&self, batch: &BatchHeader, interval_bytes: u64) {
        let mut cursor = self.flushed.get();
        let entries = cursor.advance(batch, interval_bytes);
        self.flushed.set(cursor);
        entries.offset.into_iter().for_each(|e| self.offsets.push(e));
        entries.time.into_iter().for_each(|e| self.times.push(e));
    }

    /// Adds the last entry that Kafka gives the time index of a segment that is closed.
    pub(crate) fn seal_time_index(&self) {
        let mut cursor = self.flushed.get();
        if let Some(entry) = cursor.time_entry() {
            self.times.push(entry);
            self.flushed.set(cursor);
        }
    }

    /// Writes both indexes. `exact`: the files end with their last entries.
    pub(crate) async fn save_indexes(&self, disk: &D, exact: bool) -> StorageResult<()> {
        let path = self.offset_index_path();
        let saved = self.offsets.save(disk, &path, exact).await;
        saved.map_err(StorageError::from_write)?;
        let path = self.time_index_path();
        let saved = self.times.save(disk, &path, exact).await;
        saved.map_err(StorageError::from_write)
    }

    /// Makes the names of the indexes' files durable, where they are not: before a checkpoint that
    /// counts on what is in them.
    pub(crate) async fn name_indexes(&self, disk: &D) -> StorageResult<()> {
        if self.offsets.is_named() && self.times.is_named() {
            return Ok(());
        }
        let synced = disk.sync_dir(&self.directory).await;
        synced.map_err(StorageError::from_sync)?;
        self.offsets.set_named();
        self.times.set_named();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(base_offset: i64, count: i32, bytes: u64, max_timestamp: i64) -> BatchHeader {
        BatchHeader {
            base_offset,
            bytes,
            leader_epoch: 0,
            crc: 0,
            attributes: 0,
            last_offset_delta: count - 1,
            max_timestamp,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        }
    }

    #[test]
    fn entries_come_when_an_interval_has_gone_by() {
        let mut cursor = SegmentCursor::new(100, 0);
        assert_eq!(cursor.advance(&batch(100, 2, 150, 10), 100), IndexEntries::default());
        let entries = cursor.advance(&batch(102, 3, 60, 9), 100);
        let offset = OffsetEntry { relative_offset: 4, position: 150 };
        let time = TimeEntry { timestamp: 10, relative_offset: 1 };
        assert_eq!((entries.offset, entries.time), (Some(offset), Some(time)));
        assert_eq!(cursor.advance(&batch(105, 1, 60, 11), 100), IndexEntries::default());
        let entries = cursor.advance(&batch(106, 1, 60, 5), 100);
        assert_eq!(entries.time.map(|e| (e.timestamp, e.relative_offset)), Some((11, 5)));
        assert_eq!((cursor.position, cursor.next_offset), (330, 107));
        assert_eq!((cursor.offset_entries, cursor.time_entries), (2, 2));
        assert_eq!(cursor.time_entry(), None);
        let mut fields = FieldWriter::default();
        cursor.encode(&mut fields);
        assert_eq!(SegmentCursor::decode(&mut FieldReader(&fields.0)), Some(cursor));
    }

    #[test]
    fn a_segment_is_closed_by_size_age_indexes_and_offsets() {
        let options = LogOptions {
            segment_bytes: 1000,
            segment_ms: 500,
            segment_jitter_ms: 100,
            index_bytes_max: 36,
            ..LogOptions::default()
        };
        let mut cursor = SegmentCursor::new(0, 0);
        assert!(!cursor.should_roll(5000, 1 << 40, 0, &options, 1 << 40), "empty");
        cursor.advance(&batch(0, 1, 600, 1000), 4096);
        assert!(!cursor.should_roll(400, 1, 1400, &options, 0));
        assert!(cursor.should_roll(401, 1, 1400, &options, 0));
        assert!(cursor.should_roll(1, 1, 1401, &options, 0));
        assert!(cursor.should_roll(1, i64::from(i32::MAX) + 1, 1000, &options, 0));
        assert!(!cursor.should_roll(1, 1, -1, &options, 5000), "created when?");
        cursor.created_ms = 1;
        assert!(cursor.should_roll(1, 1, -1, &options, 402));
        assert!(!cursor.should_roll(1, 1, -1, &options, 401));
        cursor.time_entries = 2;
        assert!(cursor.should_roll(1, 1, 1000, &options, 0));
        cursor.time_entries = 0;
        cursor.offset_entries = 4;
        assert!(cursor.should_roll(1, 1, 1000, &options, 0));
    }
}
