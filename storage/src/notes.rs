//! The flushed ends of a shard's logs, noted at least once a second while they move.
//!
//! A note says: this log was flushed up to here. Recovery needs it to tell a torn tail, which may
//! be cut, from damage, which may not. It also says that the log was made: a new log is noted
//! before its topic's creation is answered, so that a directory that is lost is missed. Notes are
//! lower bounds, so losing the newest costs nothing but sharpness. Each shard appends to a file of
//! its own; at start the files of all shards are read, whoever wrote them.
//!
//! The file: frames (see `journal_file`), each with the notes that changed. When it has grown, one
//! with all notes takes its place.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::types::Uuid;

use crate::checkpoint::{FieldReader, FieldWriter, FrameKind, frame, read_file};
use crate::io::{Disk, IoResult};
use crate::journal_file::{Found, FrameScan, JournalFile};
use crate::layout::{FLUSHED_NOTES, PARTITION_METADATA, parse_partition_metadata};

const NOTES: FrameKind = FrameKind { magic: *b"VLTN", version: 1 };

/// One log's flushed end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Note {
    /// Which log of this name: a topic may be deleted and made again.
    pub topic_id: Uuid,
    /// Counts truncations: a note from before one says nothing.
    pub generation: u32,
    /// Everything below was flushed.
    pub flushed_end: i64,
}

impl Note {
    /// Whether this says more than `other`, of the same log.
    fn beats(&self, other: &Self) -> bool {
        (self.generation, self.flushed_end) > (other.generation, other.flushed_end)
    }
}

/// Notes by directory.
pub type Notes = BTreeMap<String, Note>;

/// The best note of each log that ever had a directory: a topic may have been deleted and made
/// again, and which file has the later note is not known.
pub(crate) type NotesByLog = BTreeMap<(String, Uuid), Note>;

/// What was found at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadedNotes {
    /// The best note of each directory.
    pub notes: Notes,
    /// Notes of logs whose directory is not there, or holds another log: of deleted topics, or
    /// lost.
    pub(crate) gone: NotesByLog,
    /// Files in which something in front of the end was damaged: to be reported. Recovery of what
    /// was written just before the stop is less sharp without it.
    pub damaged: Vec<String>,
}

impl From<Notes> for LoadedNotes {
    fn from(notes: Notes) -> Self {
        Self { notes, ..Self::default() }
    }
}

/// Reads the files of all shards. Notes of directories that are gone are kept apart, and those of
/// logs that had a directory before the one that has it now.
///
/// # Errors
/// Where the data directory or a file cannot be read.
pub async fn load_notes<D: Disk>(disk: &D) -> IoResult<LoadedNotes> {
    let entries = disk.list("").await?;
    let (mut loaded, mut found) = (LoadedNotes::default(), NotesByLog::new());
    for entry in &entries {
        let is_temporary = entry.name.ends_with(crate::layout::TEMPORARY);
        if !entry.name.starts_with(FLUSHED_NOTES) || is_temporary {
            continue;
        }
        if !read_frames(disk, &entry.name, &mut found).await? {
            loaded.damaged.push(entry.name.clone());
        }
    }
    let is_there = |directory: &str| {
        entries.binary_search_by(|entry| entry.name.as_str().cmp(directory)).is_ok()
    };
    let (mut found, gone): (NotesByLog, NotesByLog) =
        found.into_iter().partition(|((directory, _), _)| is_there(directory));
    let mut ambiguous = Vec::new();
    for ((directory, _), note) in &found {
        if loaded.notes.insert(directory.clone(), *note).is_some() {
            ambiguous.push(directory.clone());
        }
    }
    for directory in ambiguous {
        let path = format!("{directory}/{PARTITION_METADATA}");
        let text = read_file(disk, &path).await?.unwrap_or_default();
        let topic_id = parse_partition_metadata(&String::from_utf8_lossy(&text));
        let note = topic_id.and_then(|id| found.get(&(directory.clone(), id)));
        match note {
            Some(note) => loaded.notes.insert(directory, *note),
            None => loaded.notes.remove(&directory),
        };
    }
    found.retain(|(directory, _), note| loaded.notes.get(directory) != Some(note));
    loaded.gone = gone.into_iter().chain(found).collect();
    Ok(loaded)
}

/// Adds the notes of all frames; false where one is damaged that is not the last: a stop tears no
/// other.
async fn read_frames<D: Disk>(disk: &D, path: &str, notes: &mut NotesByLog) -> IoResult<bool> {
    let Some(mut scan) = FrameScan::open(disk, NOTES, path).await? else {
        return Ok(true);
    };
    let mut damaged = false;
    let mut sound = true;
    while let Some(found) = scan.next().await? {
        match found {
            Found::Frame(payload) => {
                // A whole frame behind a damaged one: that was no torn end.
                sound &= !damaged;
                read_notes(&payload, notes);
            }
            Found::Version(_) | Found::Damaged { .. } => damaged = true,
        }
    }
    Ok(sound)
}

fn read_notes(payload: &[u8], notes: &mut NotesByLog) {
    let list = FieldReader(payload).list(|fields| {
        let len = usize::try_from(fields.u32()?).ok()?;
        let directory = String::from_utf8(fields.take(len)?.to_vec()).ok()?;
        let note = Note {
            topic_id: Uuid(fields.u128()?),
            generation: fields.u32()?,
            flushed_end: fields.i64()?,
        };
        Some((directory, note))
    });
    for (directory, note) in list.unwrap_or_default() {
        let log = (directory, note.topic_id);
        if notes.get(&log).is_none_or(|known| note.beats(known)) {
            notes.insert(log, note);
        }
    }
}

fn to_frame<'a>(notes: impl Iterator<Item = (&'a String, &'a Note)> + Clone) -> Vec<u8> {
    let mut fields = FieldWriter::default();
    fields.count(notes.clone().count());
    for (directory, note) in notes {
        fields.count(directory.len());
        fields.bytes(directory.as_bytes());
        fields.u128(note.topic_id.0);
        fields.u32(note.generation);
        fields.i64(note.flushed_end);
    }
    frame(NOTES, &fields.0)
}

/// The file of one shard.
pub(crate) struct NoteFile<D: Disk> {
    file: JournalFile<D>,
    /// All notes: those found at start, of every shard, and newer ones of this.
    notes: Notes,
    gone: NotesByLog,
    /// Those of them that nobody misses.
    given_away: BTreeSet<(String, Uuid)>,
}

impl<D: Disk> NoteFile<D> {
    pub(crate) fn new(shard: u32, loaded: LoadedNotes) -> Self {
        let file = JournalFile::new(format!("{FLUSHED_NOTES}{shard}"));
        let LoadedNotes { notes, gone, .. } = loaded;
        Self { file, notes, gone, given_away: BTreeSet::new() }
    }

    pub(crate) fn get(&self, directory: &str) -> Option<Note> {
        self.notes.get(directory).copied()
    }

    /// The note of a log, whether its directory is there or not.
    pub(crate) fn of_log(&self, directory: &str, topic_id: Uuid) -> Option<Note> {
        let there = self.get(directory).filter(|note| note.topic_id == topic_id);
        there.or_else(|| self.gone.get(&(directory.to_owned(), topic_id)).copied())
    }

    /// Keeps, of the notes of logs that are not there, those of topics that there are.
    pub(crate) fn keep_gone(&mut self, is_known: impl Fn(Uuid) -> bool) {
        self.gone.retain(|(_, topic_id), _| is_known(*topic_id));
        self.given_away.retain(|(_, topic_id)| is_known(*topic_id));
    }

    /// One of them was given away, and may be made anew.
    pub(crate) fn give_away(&mut self, directory: &str, topic_id: Uuid) {
        self.given_away.insert((directory.to_owned(), topic_id));
    }

    /// Whether the log was given away, and not made since.
    pub(crate) fn is_given_away(&self, directory: &str, topic_id: Uuid) -> bool {
        self.given_away.contains(&(directory.to_owned(), topic_id))
    }

    /// A log is removed. Its note is kept while its topic is: a log of the same name and topic that
    /// is made later must not be taken for it.
    pub(crate) fn forget(&mut self, directory: &str, newest: Note) {
        self.notes.remove(directory);
        let log = (directory.to_owned(), newest.topic_id);
        self.given_away.insert(log.clone());
        self.gone.insert(log, newest);
    }

    /// Notes ends, durably.
    pub(crate) async fn write(&mut self, disk: &D, changed: Notes) -> IoResult<()> {
        if changed.is_empty() {
            return Ok(());
        }
        for (directory, note) in &changed {
            self.given_away.remove(&(directory.clone(), note.topic_id));
        }
        let appended = to_frame(changed.iter());
        self.notes.extend(changed);
        let name_bytes: usize = self.notes.keys().map(|name| name.len() + 32).sum();
        if self.file.is_open() && !self.file.has_outgrown(name_bytes as u64) {
            return self.file.append(&appended).await;
        }
        let gone = self.gone.iter().map(|((directory, _), note)| (directory, note));
        let whole = to_frame(self.notes.iter().chain(gone));
        self.file.replace(disk, &whole, 0).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::BLOCK_BYTES;
    use crate::io::fault_disk::{Fault, FaultDisk};
    use crate::journal_file::FILE_BYTES_MIN;
    use crate::testing::run;

    fn note(generation: u32, flushed_end: i64) -> Note {
        Note { topic_id: Uuid(9), generation, flushed_end }
    }

    fn one(directory: &str, note: Note) -> Notes {
        Notes::from([(directory.to_owned(), note)])
    }

    async fn disk_with(directories: &[&str]) -> FaultDisk {
        let disk = FaultDisk::new(5);
        for directory in directories {
            disk.create_dir(directory).await.unwrap();
        }
        disk.sync_dir("").await.unwrap();
        disk
    }

    #[test]
    fn the_best_note_of_all_shards_counts() {
        run(async {
            let disk = disk_with(&["a-0", "b-0"]).await;
            let mut first = NoteFile::new(0, LoadedNotes::default());
            let mut second = NoteFile::new(1, LoadedNotes::default());
            first.write(&disk, one("a-0", note(0, 10))).await.unwrap();
            first.write(&disk, one("a-0", note(0, 20))).await.unwrap();
            first.write(&disk, one("gone-0", note(0, 20))).await.unwrap();
            second.write(&disk, one("a-0", note(0, 15))).await.unwrap();
            second.write(&disk, one("b-0", note(2, 1))).await.unwrap();
            second.write(&disk, one("b-0", note(1, 9))).await.unwrap();
            let loaded = load_notes(&disk.restart()).await.unwrap();
            assert_eq!(loaded.damaged, Vec::<String>::new());
            let expected = [("a-0", note(0, 20)), ("b-0", note(2, 1))];
            let expected = expected.map(|(name, note)| (name.to_owned(), note));
            assert_eq!(loaded.notes, Notes::from(expected));
        });
    }

    #[test]
    fn a_crash_at_any_write_keeps_what_was_noted_before() {
        run(async {
            for at in 0..60 {
                let disk = disk_with(&["a-0"]).await;
                disk.inject(Fault::Crash { at });
                let mut file = NoteFile::new(0, LoadedNotes::default());
                let mut noted = None;
                for end in 0..40 {
                    match file.write(&disk, one("a-0", note(0, end))).await {
                        Ok(()) => noted = Some(end),
                        Err(_) => break,
                    }
                }
                let loaded = load_notes(&disk.restart()).await.unwrap();
                let found = loaded.notes.get("a-0").map(|note| note.flushed_end);
                assert!(found >= noted, "{at}: {found:?} {noted:?}");
                assert!(loaded.damaged.is_empty());
            }
        });
    }

    #[test]
    fn a_log_that_is_gone_stays_noted_until_its_topic_is() {
        run(async {
            let mut disk = disk_with(&["a-0"]).await;
            let mut file = NoteFile::new(0, LoadedNotes::default());
            file.write(&disk, one("gone-0", note(0, 20))).await.unwrap();
            for _ in 0..3 {
                disk = disk.restart();
                let loaded = load_notes(&disk).await.unwrap();
                assert!(!loaded.notes.contains_key("gone-0"));
                let mut file = NoteFile::new(0, loaded);
                file.keep_gone(|id| id == Uuid(9));
                assert_eq!(file.of_log("gone-0", Uuid(9)), Some(note(0, 20)));
                assert_eq!(file.of_log("gone-0", Uuid(8)), None);
                // The first write of a run replaces the file.
                file.write(&disk, one("a-0", note(0, 5))).await.unwrap();
            }
            let mut file = NoteFile::new(0, load_notes(&disk).await.unwrap());
            file.keep_gone(|_| false);
            file.write(&disk, one("a-0", note(0, 6))).await.unwrap();
            assert!(load_notes(&disk).await.unwrap().gone.is_empty());
        });
    }

    #[test]
    fn damage_is_reported_and_the_file_stays_small() {
        run(async {
            let disk = disk_with(&["a-0"]).await;
            let mut file = NoteFile::new(0, LoadedNotes::default());
            for end in 0..200 {
                file.write(&disk, one("a-0", note(0, end))).await.unwrap();
                assert!(file.file.end() <= FILE_BYTES_MIN + 2 * BLOCK_BYTES as u64);
            }
            disk.damage("vltava-flushed-0", |content| content[BLOCK_BYTES + 30] ^= 1);
            let loaded = load_notes(&disk).await.unwrap();
            assert_eq!(loaded.damaged, vec!["vltava-flushed-0".to_owned()]);
            assert_eq!(loaded.notes["a-0"].flushed_end, 199);
        });
    }
}
