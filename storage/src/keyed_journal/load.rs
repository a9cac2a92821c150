//! What the files of all shards say together.
//!
//! First the two files of one shard are laid over each other (`merge`, pure), then the shards: of
//! each key the highest sequence number counts, whoever wrote it.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::frame::{Content, Contents, Entry, FRAMES, FrameId, PAYLOAD_BYTES_MAX, decode};
use crate::environment::StorageEvent;
use crate::error::{StorageError, StorageResult};
use crate::group_key::GroupKey;
use crate::io::{BLOCK_BYTES, Disk, IoError, IoResult};
use crate::journal_file::{Found, FrameScan};
use crate::layout::{VOTES, shard_of_votes, votes_files};

/// Numbers that are missing in a row and looked for one by one: the file has grown large before
/// there are so many.
const MISSING_MAX: usize = 10_000;

/// Of the first base.
const FIRST_NUMBER: u64 = 1;

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing was ever set, or it was removed.
    Nothing,
    /// What was set last.
    Value(Bytes),
    /// Something may have been set that is damaged in both files: whose group this is must not vote
    /// as if it never had.
    Lost,
}

/// The newest that was found for a key.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) entry: Entry,
    /// The shard whose files hold it.
    pub(super) shard: u32,
    /// Those of others hold something older.
    pub(super) is_elsewhere: bool,
}

/// What was found in the files of one shard, but for its entries.
#[derive(Clone, Debug, Default)]
pub(super) struct FilesFound {
    /// The highest number.
    pub(super) number: u64,
    /// The two files do not say the same: they are to be written anew.
    pub(super) is_to_be_mended: bool,
    /// To be reported.
    pub(super) events: Vec<StorageEvent>,
}

/// What the files of all shards said at start. One for all shards, which share it by reference.
#[derive(Clone, Debug, Default)]
pub struct LoadedJournals {
    pub(super) entries: BTreeMap<GroupKey, Held>,
    pub(super) shards: BTreeMap<u32, FilesFound>,
    /// The highest sequence number that was seen.
    pub(super) sequence: u64,
    /// What is not newer than this is not known; 0: all is.
    pub(super) doubt: u64,
}

impl LoadedJournals {
    /// What was found for a key.
    pub fn get(&self, key: &GroupKey) -> Recorded {
        recorded(self.entries.get(key).map(|held| &held.entry), self.doubt)
    }
}

/// What an entry says where what is not newer than `doubt` is not known.
pub(super) fn recorded(entry: Option<&Entry>, doubt: u64) -> Recorded {
    match entry {
        None if doubt == 0 => Recorded::Nothing,
        None => Recorded::Lost,
        Some(entry) if entry.sequence <= doubt => Recorded::Lost,
        Some(entry) => match &entry.content {
            Content::Removed => Recorded::Nothing,
            Content::Value(value) => Recorded::Value(value.clone()),
            Content::Lost => Recorded::Lost,
        },
    }
}

/// Reads the files of all shards, whoever wrote them. To be called once, before any shard opens its
/// journal ([`super::KeyedJournal::open`]): what is written meanwhile would be missed, or look like
/// damage.
///
/// # Errors
/// [`StorageError::Format`] for files of another version; [`StorageError::Unreadable`] where what
/// cannot be read stands nowhere else.
pub async fn load_journals<D: Disk>(disk: &D) -> StorageResult<LoadedJournals> {
    let entries = disk.list("").await.map_err(StorageError::from_read)?;
    let shards = entries.iter().filter_map(|entry| shard_of_votes(&entry.name));
    let shards: BTreeSet<u32> = shards.collect();
    let mut loaded = LoadedJournals::default();
    let mut is_in_doubt = false;
    for shard in shards {
        let names = votes_files(shard);
        let copies = [read_copy(disk, &names[0]).await?, read_copy(disk, &names[1]).await?];
        let unreadable = copies.iter().find_map(|copy| copy.unreadable.clone());
        let merged = merge(&copies);
        let has_loss = merged.is_incomplete || !merged.lost.is_empty();
        if let Some(error) = unreadable.filter(|_| has_loss) {
            return Err(StorageError::from_read(error));
        }
        is_in_doubt |= merged.is_incomplete;
        loaded.doubt = loaded.doubt.max(merged.doubt);
        loaded.sequence = loaded.sequence.max(merged.sequence);
        let found = FilesFound {
            number: merged.number,
            is_to_be_mended: merged.is_to_be_mended || has_loss,
            events: merged.events(shard, &names),
        };
        loaded.shards.insert(shard, found);
        merged.entries.into_iter().for_each(|(key, entry)| loaded.add(shard, key, entry));
    }
    if is_in_doubt {
        // Nothing that was written so far is certain.
        loaded.sequence += 1;
        loaded.doubt = loaded.sequence;
    }
    Ok(loaded)
}

impl LoadedJournals {
    fn add(&mut self, shard: u32, key: GroupKey, entry: Entry) {
        match self.entries.get_mut(&key) {
            Some(held) if held.entry.sequence < entry.sequence => {
                *held = Held { entry, shard, is_elsewhere: true };
            }
            Some(held) => held.is_elsewhere = true,
            None => drop(self.entries.insert(key, Held { entry, shard, is_elsewhere: false })),
        }
    }
}

/// One of a shard's two files.
#[derive(Clone, Debug, Default)]
struct Copy {
    is_there: bool,
    sound: BTreeMap<FrameId, Contents>,
    /// What could be read of damaged frames.
    broken: BTreeMap<FrameId, Contents>,
    /// From somewhere on the disk did not give it.
    unreadable: Option<IoError>,
}

async fn read_copy<D: Disk>(disk: &D, path: &str) -> StorageResult<Copy> {
    let mut copy = Copy::default();
    match read_frames(disk, path, &mut copy).await {
        Ok(None) => {}
        Ok(Some(found)) => {
            let (path, known) = (path.to_owned(), FRAMES.version);
            return Err(StorageError::Format { path, found, known });
        }
        Err(error) => copy.unreadable = Some(error),
    }
    Ok(copy)
}

/// Adds all frames; the version of the first that is of another.
async fn read_frames<D: Disk>(disk: &D, path: &str, copy: &mut Copy) -> IoResult<Option<u32>> {
    copy.is_there = true;
    let Some(mut scan) = FrameScan::open(disk, FRAMES, path).await? else {
        copy.is_there = false;
        return Ok(None);
    };
    while let Some(found) = scan.next().await? {
        match found {
            Found::Version(version) => return Ok(Some(version)),
            Found::Frame(payload) => {
                if let Some(contents) = decode(&payload) {
                    copy.sound.insert(contents.head.id, contents);
                }
            }
            Found::Damaged { position } => {
                // Most blocks of a damaged frame do not begin with its head.
                let block = scan.payload_at(position, BLOCK_BYTES).await?;
                let len = if decode(&block).is_some() { PAYLOAD_BYTES_MAX } else { 0 };
                let payload = scan.payload_at(position, len).await?;
                if let Some(contents) = decode(&payload) {
                    copy.broken.insert(contents.head.id, contents);
                }
            }
        }
    }
    Ok(None)
}

impl Copy {
    /// The number of its newest whole base.
    fn base(&self) -> Option<FrameId> {
        whole_base(|id| self.sound.contains_key(&id), self.sound.keys())
    }

    /// The number up to which nothing is missing in it; `None`: it has no whole base.
    fn whole_up_to(&self) -> Option<u64> {
        let base = self.base()?.number;
        let changes = self.sound.keys().filter(|id| !id.is_base() && id.number > base);
        let joined = changes.zip(base + 1..).take_while(|(id, number)| id.number == *number);
        Some(joined.last().map_or(base, |(_, number)| number))
    }
}

/// The first part of the newest base of which all parts are there.
fn whole_base<'a>(
    has: impl Fn(FrameId) -> bool,
    ids: impl DoubleEndedIterator<Item = &'a FrameId>,
) -> Option<FrameId> {
    let mut bases = ids.rev().filter(|id| id.is_base() && id.part == 0);
    let is_whole = |id: &&FrameId| (0..id.parts).all(|part| has(FrameId { part, ..**id }));
    bases.find(is_whole).copied()
}

/// The first part of the newest base that anything was read of.
fn newest_base(copies: &[Copy; 2]) -> Option<FrameId> {
    let ids = copies.iter().flat_map(|copy| copy.sound.keys().chain(copy.broken.keys()));
    ids.filter(|id| id.is_base()).max().map(|id| FrameId { part: 0, ..*id })
}

/// What the two files of a shard say together.
#[derive(Debug, Default)]
struct Merged {
    entries: BTreeMap<GroupKey, Entry>,
    number: u64,
    sequence: u64,
    doubt: u64,
    is_to_be_mended: bool,
    /// Files in which something was missing that had been durable: by their place of the two.
    damaged: Vec<usize>,
    /// Keys whose newest value is damaged in both.
    lost: Vec<GroupKey>,
    /// Something is missing in both, and nobody knows whose.
    is_incomplete: bool,
}

fn merge(copies: &[Copy; 2]) -> Merged {
    let mut merged = Merged::default();
    merged.add_all(copies);
    for (at, copy) in copies.iter().enumerate() {
        let whole_up_to = copy.whole_up_to();
        merged.is_to_be_mended |= whole_up_to != Some(merged.number);
        // The last change alone may be missing: a stop tore it, or came before it.
        let is_damaged = match whole_up_to {
            Some(number) => number + 1 < merged.number,
            // A stop may have come before the second file of the first base was made.
            None => copy.is_there || merged.number > FIRST_NUMBER,
        };
        if is_damaged {
            merged.damaged.push(at);
        }
    }
    merged
}

impl Merged {
    fn add_all(&mut self, copies: &[Copy; 2]) {
        let mut sound: BTreeMap<FrameId, Vec<&Contents>> = BTreeMap::new();
        for (id, contents) in copies.iter().flat_map(|copy| &copy.sound) {
            sound.entry(*id).or_default().push(contents);
        }
        for contents in sound.values().flatten() {
            self.number = contents.head.id.number;
            self.sequence = self.sequence.max(contents.head.sequence);
            // That of the newest stands.
            self.doubt = contents.head.doubt;
        }
        let whole = whole_base(|id| sound.contains_key(&id), sound.keys());
        let Some(base) = whole.or_else(|| newest_base(copies)) else {
            self.is_incomplete = true;
            return;
        };
        self.number = self.number.max(base.number);
        for id in (0..base.parts).map(|part| FrameId { part, ..base }) {
            self.add_or_salvage(&sound, copies, id);
        }
        let mut expected = base.number + 1;
        let is_behind = |id: &FrameId| id.number > base.number;
        for id in sound.keys().filter(|id| is_behind(id)).copied() {
            if !id.is_base() {
                self.salvage_changes(copies, expected, id.number);
                expected = id.number + 1;
            }
            // Of a newer base that is not whole, what there is.
            self.add_or_salvage(&sound, copies, id);
        }
        let entries = &self.entries;
        let is_lost = |key: &GroupKey| entries.get(key).is_some_and(|e| e.content == Content::Lost);
        self.lost.retain(is_lost);
    }

    /// What is in neither file, with another behind it, was durable.
    fn salvage_changes(&mut self, copies: &[Copy; 2], from: u64, to: u64) {
        for number in (from..to).take(MISSING_MAX) {
            self.salvage(copies, FrameId::change(number));
        }
    }

    fn add_or_salvage(
        &mut self,
        sound: &BTreeMap<FrameId, Vec<&Contents>>,
        copies: &[Copy; 2],
        id: FrameId,
    ) {
        match sound.get(&id) {
            Some(found) => {
                let entries = found.iter().flat_map(|contents| &contents.entries);
                entries.for_each(|(key, entry)| self.add(key, entry));
            }
            None => self.salvage(copies, id),
        }
    }

    fn add(&mut self, key: &GroupKey, entry: &Entry) {
        let beats = |known: &Entry| match known.content {
            Content::Lost => known.sequence <= entry.sequence,
            _ => known.sequence < entry.sequence,
        };
        if self.entries.get(key).is_none_or(beats) {
            self.entries.insert(*key, entry.clone());
        }
    }

    /// Takes what can be read of a frame that is whole in neither file: what the one cannot say the
    /// other may.
    fn salvage(&mut self, copies: &[Copy; 2], id: FrameId) {
        let broken = copies.iter().filter_map(|copy| copy.broken.get(&id));
        let mut is_complete = false;
        for contents in broken {
            is_complete |= contents.is_complete;
            self.sequence = self.sequence.max(contents.head.sequence);
            for (key, entry) in &contents.entries {
                self.add(key, entry);
                if entry.content == Content::Lost {
                    self.lost.push(*key);
                }
            }
        }
        self.is_incomplete |= !is_complete;
    }

    fn events(&self, shard: u32, names: &[String; 2]) -> Vec<StorageEvent> {
        let damaged = self.damaged.iter().map(|at| names[*at].clone());
        let damaged = damaged.map(|path| StorageEvent::VotesDamaged { path });
        let lost: BTreeSet<GroupKey> = self.lost.iter().copied().collect();
        let lost = lost.into_iter().map(Some).chain(self.is_incomplete.then_some(None));
        let lost = lost.map(|group| {
            let path = format!("{VOTES}{shard}-*");
            StorageEvent::VotesLost { path, group }
        });
        damaged.chain(lost).collect()
    }
}
