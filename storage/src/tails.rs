//! Where the logs of a shard ended a moment ago, for a start after the process was killed.
//!
//! A checkpoint is written now and then; what was flushed since is read and checked at the next
//! start. After the machine itself was started anew there is no other proof of it. But where only
//! the process ended, the system that took its writes still runs, and what was flushed is as it
//! was: the walk may begin at the end that is noted here.
//!
//! So what is noted counts only within one boot of the system, whose id stands in the file, and
//! needs no flush. Each shard writes two files in turn, over what they held: the one that was not
//! being written when the process died is whole. At start the files of all shards are read.
//!
//! A log that is not noted, or whose note does not fit what is found, is walked from its
//! checkpoint: nothing is lost but time.

use std::collections::BTreeMap;
use std::rc::Rc;

use vltava_protocol::types::Uuid;

use crate::checkpoint::{FieldReader, FieldWriter, FrameKind, frame, read_frame};
use crate::error::{StorageError, StorageResult};
use crate::io::{AlignedBuffer, Disk, Durability, File, IoErrorKind, IoResult, OpenMode};
use crate::layout::TAILS;
use crate::leader_epochs::LeaderEpochs;
use crate::segment::SegmentCursor;

const FRAME: FrameKind = FrameKind { magic: *b"VLTT", version: 1 };
/// The most that a start leaves out: the indexes have no entries for it, and look-ups walk it.
pub(crate) const LEFT_OUT_BYTES_MAX: u64 = 1 << 20;
/// A longer snapshot of producers is not noted.
pub(crate) const SNAPSHOT_BYTES_MAX: usize = 4096;

/// A log as far as it was flushed when this was noted, with all that follows from its batches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tail {
    pub(crate) topic_id: Uuid,
    /// Counts truncations.
    pub(crate) generation: u32,
    /// Of the active segment.
    pub(crate) cursor: SegmentCursor,
    pub(crate) epochs: LeaderEpochs,
    /// The producers; `None`: none is known.
    pub(crate) snapshot: Option<Vec<u8>>,
    /// CRC-32C of what the last, partly filled block holds, where it was at hand.
    pub(crate) last_block_crc: Option<u32>,
}

impl Tail {
    fn encode(&self, fields: &mut FieldWriter) {
        fields.u128(self.topic_id.0);
        fields.u32(self.generation);
        self.cursor.encode(fields);
        fields.count(self.epochs.entries().len());
        for (epoch, start) in self.epochs.entries() {
            fields.i32(*epoch);
            fields.i64(*start);
        }
        fields.count(self.snapshot.as_ref().map_or(0, Vec::len));
        fields.bytes(self.snapshot.as_deref().unwrap_or_default());
        fields.i64(self.last_block_crc.map_or(-1, i64::from));
    }

    fn decode(fields: &mut FieldReader<'_>) -> Option<Self> {
        Some(Self {
            topic_id: Uuid(fields.u128()?),
            generation: fields.u32()?,
            cursor: SegmentCursor::decode(fields)?,
            epochs: LeaderEpochs::from_entries(
                fields.list(|entry| Some((entry.i32()?, entry.i64()?)))?,
            )?,
            snapshot: {
                let len = usize::try_from(fields.u32()?).ok()?;
                Some(fields.take(len)?.to_vec()).filter(|snapshot| !snapshot.is_empty())
            },
            last_block_crc: u32::try_from(fields.i64()?).ok(),
        })
    }

    /// Whether this says more than `other`, of the same log.
    fn beats(&self, other: &Self) -> bool {
        (self.generation, self.cursor.next_offset) > (other.generation, other.cursor.next_offset)
    }
}

/// What was found at start, by directory and topic.
#[derive(Debug, Default)]
pub struct LoadedTails(BTreeMap<(String, Uuid), Tail>);

impl LoadedTails {
    /// Takes what is noted of a log.
    pub(crate) fn take(&mut self, directory: &str, topic_id: Uuid) -> Option<Tail> {
        self.0.remove(&(directory.to_owned(), topic_id))
    }
}

/// Reads the files of all shards, as far as they were written in this boot of the system.
///
/// # Errors
/// Where the data directory cannot be read. A file that cannot be used is none.
pub async fn load_tails<D: Disk>(disk: &D, boot: Uuid) -> StorageResult<LoadedTails> {
    let mut loaded = LoadedTails::default();
    let entries = disk.list("").await.map_err(StorageError::from_read)?;
    for entry in entries.iter().filter(|entry| entry.name.starts_with(TAILS)) {
        match read_frame(disk, &entry.name, FRAME).await {
            Ok(payload) => read_tails(&payload.unwrap_or_default(), boot, &mut loaded),
            // Half written as the process died, or of another version.
            Err(StorageError::Corrupt(_) | StorageError::Format { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(loaded)
}

fn read_tails(payload: &[u8], boot: Uuid, loaded: &mut LoadedTails) {
    let mut fields = FieldReader(payload);
    if fields.u128() != Some(boot.0) {
        return;
    }
    let list = fields.list(|fields| {
        let len = usize::try_from(fields.u32()?).ok()?;
        let directory = String::from_utf8(fields.take(len)?.to_vec()).ok()?;
        Some((directory, Tail::decode(fields)?))
    });
    for (directory, tail) in list.unwrap_or_default() {
        let log = (directory, tail.topic_id);
        if loaded.0.get(&log).is_none_or(|known| tail.beats(known)) {
            loaded.0.insert(log, tail);
        }
    }
}

/// The files of one shard, and what is to stand in them.
pub(crate) struct TailFiles<D: Disk> {
    /// Without this id nothing is noted: nobody could tell later what it is worth.
    boot: Option<Uuid>,
    shard: u32,
    files: [Option<D::File>; 2],
    /// Which of them is written next.
    next: usize,
}

impl<D: Disk> TailFiles<D> {
    pub(crate) fn new(boot: Option<Uuid>, shard: u32) -> Self {
        Self { boot, shard, files: [None, None], next: 0 }
    }

    /// Notes these tails, and no others.
    pub(crate) async fn write(
        &mut self,
        disk: &D,
        tails: &BTreeMap<Rc<str>, Tail>,
    ) -> IoResult<()> {
        let Some(boot) = self.boot else {
            return Ok(());
        };
        let mut fields = FieldWriter::default();
        fields.u128(boot.0);
        fields.count(tails.len());
        for (directory, tail) in tails {
            fields.count(directory.len());
            fields.bytes(directory.as_bytes());
            tail.encode(&mut fields);
        }
        let frame = frame(FRAME, &fields.0);
        let mut buffer = AlignedBuffer::new(frame.len());
        buffer.append(&frame);
        let file = self.file(disk).await?;
        self.next = 1 - self.next;
        file.write_at(buffer.blocks(0..frame.len()), 0, Durability::Written).await
    }

    async fn file(&mut self, disk: &D) -> IoResult<D::File> {
        if let Some(file) = &self.files[self.next] {
            return Ok(file.clone());
        }
        let name = format!("{TAILS}{}-{}", self.shard, self.next);
        let file = match disk.open(&name, OpenMode::Write).await {
            Err(error) if error.kind == IoErrorKind::NotFound => {
                disk.open(&name, OpenMode::Create).await?
            }
            opened => opened?,
        };
        self.files[self.next] = Some(file.clone());
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fault_disk::FaultDisk;
    use crate::testing::run;

    const BOOT: Uuid = Uuid(77);

    fn tail(next_offset: i64) -> Tail {
        let mut epochs = LeaderEpochs::default();
        epochs.assign(3, 5);
        Tail {
            topic_id: Uuid(9),
            generation: 2,
            cursor: SegmentCursor { next_offset, ..SegmentCursor::new(5, 0) },
            epochs,
            snapshot: Some(vec![1, 2, 3]),
            last_block_crc: Some(u32::MAX),
        }
    }

    fn one(directory: &str, tail: Tail) -> BTreeMap<Rc<str>, Tail> {
        BTreeMap::from([(Rc::from(directory), tail)])
    }

    #[test]
    fn the_best_of_all_files_counts_and_only_in_the_same_boot() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut first = TailFiles::new(Some(BOOT), 0);
            let mut second = TailFiles::new(Some(BOOT), 1);
            first.write(&disk, &one("a-0", tail(10))).await.unwrap();
            second.write(&disk, &one("a-0", tail(30))).await.unwrap();
            first.write(&disk, &one("a-0", tail(20))).await.unwrap();
            let mut found = load_tails(&disk, BOOT).await.unwrap();
            assert_eq!(found.take("a-0", Uuid(8)), None);
            assert_eq!(found.take("a-0", Uuid(9)), Some(tail(30)));
            assert!(load_tails(&disk, Uuid(78)).await.unwrap().0.is_empty());
            let nameless = Tail { snapshot: None, last_block_crc: None, ..tail(40) };
            first.write(&disk, &one("a-0", nameless.clone())).await.unwrap();
            let mut found = load_tails(&disk, BOOT).await.unwrap();
            assert_eq!(found.take("a-0", Uuid(9)), Some(nameless));
        });
    }

    #[test]
    fn the_file_that_was_not_being_written_is_whole() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut files = TailFiles::new(Some(BOOT), 0);
            for end in 10..20 {
                files.write(&disk, &one("a-0", tail(end))).await.unwrap();
                let written = format!("{TAILS}0-{}", 1 - files.next);
                let file = disk.open(&written, OpenMode::Write).await.unwrap();
                file.sync().await.unwrap();
                disk.damage(&written, |content| content[40] ^= 1);
                let mut found = load_tails(&disk, BOOT).await.unwrap();
                let expected = (end > 10).then(|| tail(end - 1));
                assert_eq!(found.take("a-0", Uuid(9)), expected);
                disk.damage(&written, |content| content[40] ^= 1);
            }
        });
    }

    #[test]
    fn without_a_boot_id_nothing_is_noted() {
        run(async {
            let disk = FaultDisk::new(1);
            let mut files = TailFiles::new(None, 0);
            files.write(&disk, &one("a-0", tail(10))).await.unwrap();
            assert_eq!(disk.files(), Vec::<String>::new());
        });
    }
}
