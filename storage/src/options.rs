//! What callers decide: plain structs. Storage knows no configuration names.

use crate::io::BLOCK_BYTES;

/// Options of one log. Kafka's topic settings, in plain units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogOptions {
    /// A segment is closed before it would be larger (`segment.bytes`).
    pub segment_bytes: u64,
    /// A segment is closed when its first batch is this old (`segment.ms`).
    pub segment_ms: i64,
    /// Taken off `segment_ms`, so that many logs do not roll at once: a random number below
    /// `segment.jitter.ms`, drawn by the caller.
    pub segment_jitter_ms: i64,
    /// Bytes of log between two entries of an index (`index.interval.bytes`).
    pub index_interval_bytes: u64,
    /// A segment is closed when one of its indexes would be larger (`segment.index.bytes`).
    pub index_bytes_max: u64,
    /// Segments whose newest batch is older may go (`retention.ms`); `None`: never by age.
    pub retention_ms: Option<i64>,
    /// The oldest segments may go while the rest holds at least this much (`retention.bytes`);
    /// `None`: never by size.
    pub retention_bytes: Option<u64>,
    /// Whether age and size delete at all: false for a topic that is only compacted
    /// (`cleanup.policy`).
    pub deletes: bool,
    /// A producer id that has written nothing for so long is forgotten
    /// (`producer.id.expiration.ms`).
    pub producer_expiration_ms: i64,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3600 * 1000,
            segment_jitter_ms: 0,
            index_interval_bytes: 4096,
            index_bytes_max: 10 << 20,
            retention_ms: Some(7 * 24 * 3600 * 1000),
            retention_bytes: None,
            deletes: true,
            producer_expiration_ms: 24 * 3600 * 1000,
        }
    }
}

/// Options of all logs of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentOptions {
    /// Most bytes of one write (`write.max.bytes`), in whole blocks.
    pub write_bytes_max: usize,
    /// An appender's first buffer.
    pub buffer_bytes_min: usize,
    /// The largest that buffers of a busy log grow to.
    pub buffer_bytes_max: usize,
    /// The largest piece of zeros that is written ahead of a log which grows in small writes; 0:
    /// none are.
    pub zero_bytes_max: usize,
    /// All buffers, those being filled and those kept as the batch cache.
    pub cache_bytes_max: usize,
    /// Older ranges that are read, and read ahead: what is kept of them. As much again may be held
    /// by answers that do not leave. 0: nothing, they are given out as ranges of files.
    pub read_bytes_max: usize,
    /// How much of a file such a read takes, in whole blocks.
    pub read_chunk_bytes: usize,
    /// Client appends are refused when less space than this is free (`disk.reserve.bytes`).
    pub reserve_bytes: u64,
    /// Segment files kept open for readers.
    pub open_files_max: usize,
    /// Producer ids remembered by all logs of the shard; beyond it, the log that learns a new one
    /// forgets its oldest.
    pub producer_ids_max: usize,
}

impl Default for EnvironmentOptions {
    fn default() -> Self {
        Self {
            write_bytes_max: 2 << 20,
            buffer_bytes_min: 16 << 10,
            buffer_bytes_max: 2 << 20,
            zero_bytes_max: 256 << 10,
            cache_bytes_max: 64 << 20,
            read_bytes_max: 16 << 20,
            read_chunk_bytes: 256 << 10,
            reserve_bytes: 0,
            open_files_max: 1024,
            producer_ids_max: 200_000,
        }
    }
}

impl EnvironmentOptions {
    /// The same, with sizes in whole blocks, and none too small to work.
    pub(crate) fn rounded(mut self) -> Self {
        let round = |bytes: usize| bytes.max(BLOCK_BYTES).next_multiple_of(BLOCK_BYTES);
        self.write_bytes_max = round(self.write_bytes_max);
        self.buffer_bytes_min = round(self.buffer_bytes_min);
        self.buffer_bytes_max = round(self.buffer_bytes_max).max(self.buffer_bytes_min);
        self.read_chunk_bytes = round(self.read_chunk_bytes);
        self.zero_bytes_max = self.zero_bytes_max.next_multiple_of(BLOCK_BYTES);
        self.open_files_max = self.open_files_max.max(1);
        self.producer_ids_max = self.producer_ids_max.max(1);
        self
    }
}

/// Who appends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppendClass {
    /// A client: refused when less than the reserve is free.
    Client,
    /// A leader, of what its clients wrote: refused when less than half of the reserve is free.
    /// That others' clients may still write must not stop this replica, and they must not take what
    /// group 0, deletions and votes need here.
    Replica,
    /// The broker itself (group 0, offsets, markers, and their replication): may use the reserve.
    Internal,
}
