//! The two sparse indexes of a segment: offset to position, timestamp to offset.
//!
//! The files are Kafka's: fixed entries, big-endian, rising. What is in a file is proved by nothing
//! but its use: whoever follows an entry checks that the batch it leads to is the one it names, and
//! rebuilds the index where it is not.

use std::cell::{Cell, RefCell};

use bytes::Bytes;

use crate::io::{
    AlignedBuffer, BLOCK_BYTES, Disk, Durability, File, IoError, IoErrorKind, IoResult, OpenMode,
};

/// Bytes read at once by a look-up; a multiple of both entries and of the block.
const CHUNK_BYTES: usize = 3 * BLOCK_BYTES;
/// Chunks kept for the next look-up: sequential readers stay within one.
const CHUNKS_KEPT: usize = 2;

/// An entry of fixed length.
pub(crate) trait Entry: Copy {
    const BYTES: usize;
    fn encode(&self, out: &mut Vec<u8>);
    fn decode(bytes: &[u8]) -> Option<Self>;
}

/// The batch whose last offset is `relative_offset` (to the segment's base) starts at `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) relative_offset: u32,
    pub(crate) position: u32,
}

/// The largest timestamp up to here is `timestamp`, in the batch whose last offset is
/// `relative_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    pub(crate) relative_offset: u32,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
        out.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self { relative_offset: u32_at(bytes, 0)?, position: u32_at(bytes, 4)? })
    }
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        out.extend_from_slice(&self.relative_offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            timestamp: i64::from_be_bytes(bytes.get(..8)?.try_into().ok()?),
            relative_offset: u32_at(bytes, 8)?,
        })
    }
}

/// One index of one segment: its first entries in a file, the rest in memory.
pub(crate) struct SparseIndex<E> {
    /// Entries that are durable in the file.
    saved: Cell<u32>,
    /// The name of that file is durable.
    is_named: Cell<bool>,
    /// Entries behind those.
    tail: RefCell<Vec<E>>,
    chunks: RefCell<Vec<(u32, Bytes)>>,
}

impl<E: Entry> SparseIndex<E> {
    /// An index of which so many entries are in its file. A checkpoint says so: none is written
    /// before the file has its name.
    pub(crate) fn new(saved: u32) -> Self {
        Self {
            saved: Cell::new(saved),
            is_named: Cell::new(saved > 0),
            tail: RefCell::new(Vec::new()),
            chunks: RefCell::new(Vec::new()),
        }
    }

    /// All entries: saved and not.
    pub(crate) fn count(&self) -> u32 {
        let tail = u32::try_from(self.tail.borrow().len()).unwrap_or(u32::MAX);
        self.saved.get().saturating_add(tail)
    }

    pub(crate) fn push(&self, entry: E) {
        self.tail.borrow_mut().push(entry);
    }

    /// Everything anew: nothing is in the file any more.
    pub(crate) fn replace(&self, entries: Vec<E>) {
        self.saved.set(0);
        *self.tail.borrow_mut() = entries;
        self.chunks.borrow_mut().clear();
    }

    /// Whether the file's name is durable, where there is a file.
    pub(crate) fn is_named(&self) -> bool {
        self.is_named.get()
    }

    /// The directory was synced.
    pub(crate) fn set_named(&self) {
        self.is_named.set(true);
    }

    /// Forgets what can be read from the file again.
    pub(crate) fn release(&self) {
        *self.chunks.borrow_mut() = Vec::new();
    }

    /// Writes what is not saved behind what is, durably. `exact`: the file then ends with its last
    /// entry. The name of a file made here is durable once the caller has synced the directory: see
    /// [`SparseIndex::is_named`].
    pub(crate) async fn save<D: Disk>(&self, disk: &D, path: &str, exact: bool) -> IoResult<()> {
        let entries = self.tail.borrow().clone();
        if entries.is_empty() && !exact {
            return Ok(());
        }
        let file = match disk.open(path, OpenMode::Write).await {
            Err(error) if error.kind == IoErrorKind::NotFound => {
                self.is_named.set(false);
                disk.open(path, OpenMode::Create).await?
            }
            opened => opened?,
        };
        let saved_bytes = self.saved.get() as usize * E::BYTES;
        if !entries.is_empty() {
            let start = saved_bytes / BLOCK_BYTES * BLOCK_BYTES;
            let prefix = file.read_at(start as u64, saved_bytes - start).await?;
            let mut bytes = prefix.to_vec();
            // A file that lost its end: the entries read as zeros, which no look-up believes.
            bytes.resize(saved_bytes - start, 0);
            entries.iter().for_each(|entry| entry.encode(&mut bytes));
            let mut buffer = AlignedBuffer::new(bytes.len());
            buffer.append(&bytes);
            let blocks = buffer.blocks(0..bytes.len());
            file.write_at(blocks, start as u64, Durability::Flushed).await?;
        }
        if exact {
            file.set_len((saved_bytes + entries.len() * E::BYTES) as u64).await?;
            file.sync().await.map_err(IoError::of_sync)?;
        }
        self.chunks.borrow_mut().clear();
        self.tail.borrow_mut().drain(..entries.len());
        let count = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        self.saved.set(self.saved.get().saturating_add(count));
        Ok(())
    }

    /// The last entry for which `holds`, which must hold for a first part of the entries and for
    /// none behind it. What a damaged file gives is anything: check it.
    pub(crate) async fn floor<D: Disk>(
        &self,
        disk: &D,
        path: &str,
        holds: impl Fn(&E) -> bool,
    ) -> IoResult<Option<E>> {
        let in_tail = {
            let tail = self.tail.borrow();
            let behind = tail.partition_point(&holds);
            behind.checked_sub(1).map(|at| tail[at])
        };
        let saved = self.saved.get();
        if in_tail.is_some() || saved == 0 {
            return Ok(in_tail);
        }
        let mut file = None;
        // Entries [0, low) hold; those from high on do not.
        let (mut low, mut high) = (0, saved);
        let mut found = None;
        if let Some(bytes) = self.kept_chunk_around(&holds) {
            let behind = partition(&bytes, &holds);
            return Ok(entry_before(&bytes, behind));
        }
        while low < high {
            let middle = low + (high - low) / 2;
            let chunk = middle / Self::per_chunk();
            let bytes = self.chunk(disk, path, &mut file, chunk).await?;
            let first = chunk * Self::per_chunk();
            let behind = partition(&bytes, &holds);
            if let Some(entry) = entry_before(&bytes, behind) {
                found = Some(entry);
            }
            let count = u32::try_from(bytes.len() / E::BYTES).unwrap_or(u32::MAX);
            if behind == 0 {
                high = first;
            } else if behind == count {
                low = first.saturating_add(Self::per_chunk());
            } else {
                break;
            }
        }
        Ok(found)
    }

    /// The first entry of all.
    pub(crate) async fn first<D: Disk>(&self, disk: &D, path: &str) -> IoResult<Option<E>> {
        if self.saved.get() == 0 {
            return Ok(self.tail.borrow().first().copied());
        }
        let bytes = self.chunk(disk, path, &mut None, 0).await?;
        Ok(E::decode(&bytes))
    }

    fn per_chunk() -> u32 {
        u32::try_from(CHUNK_BYTES / E::BYTES).unwrap_or(u32::MAX)
    }

    /// A kept chunk in which the border certainly lies.
    fn kept_chunk_around(&self, holds: &impl Fn(&E) -> bool) -> Option<Bytes> {
        let chunks = self.chunks.borrow();
        let around = |bytes: &Bytes| {
            let behind = partition::<E>(bytes, holds);
            behind > 0 && (behind as usize) < bytes.len() / E::BYTES
        };
        let found = chunks.iter().find(|(_, bytes)| around(bytes))?;
        Some(found.1.clone())
    }

    async fn chunk<D: Disk>(
        &self,
        disk: &D,
        path: &str,
        file: &mut Option<D::File>,
        chunk: u32,
    ) -> IoResult<Bytes> {
        if let Some((_, bytes)) = self.chunks.borrow().iter().find(|(kept, _)| *kept == chunk) {
            return Ok(bytes.clone());
        }
        let open = match file.take() {
            Some(open) => open,
            None => disk.open(path, OpenMode::Read).await?,
        };
        let entries =
            Self::per_chunk().min(self.saved.get().saturating_sub(chunk * Self::per_chunk()));
        let position = u64::from(chunk) * CHUNK_BYTES as u64;
        let bytes = open.read_at(position, entries as usize * E::BYTES).await?;
        *file = Some(open);
        let mut chunks = self.chunks.borrow_mut();
        if chunks.len() == CHUNKS_KEPT {
            chunks.remove(0);
        }
        chunks.push((chunk, bytes.clone()));
        Ok(bytes)
    }
}

/// How many of the entries hold, at their start.
fn partition<E: Entry>(bytes: &[u8], holds: &impl Fn(&E) -> bool) -> u32 {
    let (mut low, mut high) = (0, bytes.len() / E::BYTES);
    while low < high {
        let middle = low + (high - low) / 2;
        let entry = E::decode(&bytes[middle * E::BYTES..]);
        if entry.is_some_and(|entry| holds(&entry)) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    u32::try_from(low).unwrap_or(u32::MAX)
}

fn entry_before<E: Entry>(bytes: &[u8], behind: u32) -> Option<E> {
    let at = behind.checked_sub(1)? as usize;
    E::decode(bytes.get(at * E::BYTES..)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fault_disk::FaultDisk;
    use crate::testing::run;

    fn entry(n: u32) -> OffsetEntry {
        OffsetEntry { relative_offset: n * 10 + 5, position: n * 100 }
    }

    #[test]
    fn every_border_is_found_in_file_and_memory() {
        run(async {
            for (saved, tail) in [(0, 0), (0, 3), (3, 0), (4000, 7), (1536, 0), (1537, 1)] {
                let disk = FaultDisk::new(1);
                let index = SparseIndex::new(0);
                (0..saved).for_each(|n| index.push(entry(n)));
                index.save(&disk, "index", false).await.unwrap();
                (saved..saved + tail).for_each(|n| index.push(entry(n)));
                assert_eq!(index.count(), saved + tail);
                let mut wanted = 0;
                while wanted < (saved + tail) * 10 + 20 {
                    let found = index.floor(&disk, "index", |e| e.relative_offset <= wanted).await;
                    let expected = (wanted + 5).checked_sub(10).map(|n| entry(n / 10));
                    let expected = expected.filter(|_| saved + tail > 0).map(|e| {
                        let last = entry(saved + tail - 1);
                        if e.relative_offset > last.relative_offset { last } else { e }
                    });
                    assert_eq!(found.unwrap(), expected, "{wanted} of {saved}+{tail}");
                    wanted += 1 + saved / 300;
                }
            }
        });
    }

    #[test]
    fn saving_in_pieces_gives_one_exact_file() {
        run(async {
            let disk = FaultDisk::new(1);
            let index = SparseIndex::new(0);
            let mut expected = Vec::new();
            for n in 0..2000 {
                let entry = TimeEntry { timestamp: i64::from(n) * 3, relative_offset: n };
                entry.encode(&mut expected);
                index.push(entry);
                if n % 97 == 0 {
                    index.save(&disk, "time", false).await.unwrap();
                    assert_eq!(index.tail.borrow().len(), 0);
                }
            }
            index.save(&disk, "time", true).await.unwrap();
            assert_eq!(disk.content("time").unwrap(), expected);
        });
    }

    #[test]
    fn a_lost_file_is_an_error_and_damage_never_panics() {
        run(async {
            let disk = FaultDisk::new(1);
            let index = SparseIndex::new(0);
            (0..100).for_each(|n| index.push(entry(n)));
            index.save(&disk, "index", true).await.unwrap();
            disk.damage("index", |content| content.truncate(13));
            index.release();
            let found = index.floor(&disk, "index", |e| e.relative_offset <= 900).await;
            assert_eq!(found.unwrap(), Some(entry(0)));
            disk.remove_file("index").await.unwrap();
            index.release();
            assert!(index.floor(&disk, "index", |_| true).await.is_err());
        });
    }
}
