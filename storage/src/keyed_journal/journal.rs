//! The open journal of a shard.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;
use futures_util::future::{Either, FutureExt, Shared, join, select};
use futures_util::lock::Mutex;

use super::frame::{Content, Entry, FrameId, Head, VALUE_BYTES_MAX, encode, fitting};
use super::load::{LoadedJournals, Recorded, recorded};
use crate::environment::{LogEnvironment, StorageEvent};
use crate::error::{StorageError, StorageResult};
use crate::group_key::GroupKey;
use crate::io::{BLOCK_BYTES, Disk, IoError, IoErrorKind, IoResult};
use crate::journal_file::{FILE_BYTES_MIN, JournalFile};
use crate::layout::votes_files;

/// Space of a file behind the size at which a new one takes its place: while a disk is full, and
/// there can be no new one, so much more may be set.
const SPARE_BYTES: u64 = 256 << 10;

/// What a group takes with it to another shard.
#[derive(Clone, Debug)]
pub struct Given {
    entry: Option<Entry>,
    /// Of the shard that it leaves, whose files may say that something was removed: what is set
    /// from now on is newer.
    sequence: u64,
}

/// Votes and marks of one shard's groups. See the module's front page for what holds.
pub struct KeyedJournal<D: Disk> {
    environment: Rc<LogEnvironment<D>>,
    loaded: Arc<LoadedJournals>,
    shard: u32,
    shards: u32,
    /// Who holds this writes.
    copies: Mutex<[JournalFile<D>; 2]>,
    state: RefCell<State>,
}

/// What this shard's files hold of a key.
struct Own {
    entry: Entry,
    /// Other files may hold something older: that it was removed must be kept, too.
    is_elsewhere: bool,
}

/// Whom one write answers: all at once, so that a thousand who waited for one do not hold up the
/// next by taking the files one after the other.
struct Answer {
    tell: oneshot::Sender<StorageResult<()>>,
    told: Shared<oneshot::Receiver<StorageResult<()>>>,
}

impl Default for Answer {
    fn default() -> Self {
        let (tell, told) = oneshot::channel();
        Self { tell, told: told.shared() }
    }
}

struct State {
    /// Durable.
    own: BTreeMap<GroupKey, Own>,
    /// What waits for the next write; `None`: to be removed.
    waiting: BTreeMap<GroupKey, Option<Bytes>>,
    /// For those who wait for the next write.
    answer: Answer,
    /// Of the last frame.
    number: u64,
    sequence: u64,
    doubt: u64,
    /// Why nothing is set any more.
    ended: Option<StorageError>,
}

/// What one write takes of what waits. Where that is given up halfway, it waits again.
struct Taken<'a, D: Disk> {
    journal: &'a KeyedJournal<D>,
    values: BTreeMap<GroupKey, Option<Bytes>>,
}

impl<D: Disk> Drop for Taken<'_, D> {
    fn drop(&mut self) {
        let mut state = self.journal.state.borrow_mut();
        for (key, value) in std::mem::take(&mut self.values) {
            state.waiting.entry(key).or_insert(value);
        }
    }
}

impl<D: Disk> KeyedJournal<D> {
    /// Opens the journal of a shard, of so many. What was found damaged is written anew; files of
    /// shards that there are no more are taken over, and removed.
    ///
    /// # Errors
    /// [`StorageError::Failed`]. Without space what can wait is left for the next start.
    pub async fn open(
        environment: &Rc<LogEnvironment<D>>,
        shard: u32,
        shards: u32,
        loaded: Arc<LoadedJournals>,
    ) -> StorageResult<Self> {
        let files = votes_files(shard).map(JournalFile::new);
        let found = loaded.shards.get(&shard).cloned().unwrap_or_default();
        let journal = Self {
            environment: Rc::clone(environment),
            shard,
            shards,
            copies: Mutex::new(files),
            state: RefCell::new(State {
                own: BTreeMap::new(),
                waiting: BTreeMap::new(),
                answer: Answer::default(),
                number: found.number,
                sequence: loaded.sequence,
                doubt: loaded.doubt,
                ended: None,
            }),
            loaded,
        };
        journal.take_over();
        let orphans = journal.loaded.shards.keys().filter(|of| **of != shard && journal.owns(**of));
        let orphans: Vec<u32> = orphans.copied().collect();
        for of in orphans.iter().chain([&shard]) {
            let found = journal.loaded.shards.get(of);
            let events = found.map_or(&[][..], |found| &found.events);
            events.iter().for_each(|event| environment.report(event));
        }
        if found.is_to_be_mended || !orphans.is_empty() {
            match journal.mend(&orphans).await {
                Err(StorageError::Full(_) | StorageError::NoDescriptor(_)) => {}
                mended => mended?,
            }
        }
        Ok(journal)
    }

    /// Whether the files of this shard are this journal's: its own, and some of those of shards
    /// that there are no more.
    fn owns(&self, shard: u32) -> bool {
        shard == self.shard || (shard >= self.shards && shard % self.shards == self.shard)
    }

    /// Takes what is newest in the files that are this journal's.
    fn take_over(&self) {
        let mut state = self.state.borrow_mut();
        for (key, held) in self.loaded.entries.iter().filter(|(_, held)| self.owns(held.shard)) {
            let (entry, is_elsewhere) = (held.entry.clone(), held.is_elsewhere);
            if entry.content != Content::Removed || is_elsewhere {
                state.own.insert(*key, Own { entry, is_elsewhere });
            }
        }
    }

    /// Writes both files anew, and removes those of shards that there are no more.
    async fn mend(&self, orphans: &[u32]) -> StorageResult<()> {
        let mut copies = self.copies.lock().await;
        self.begin_files(&mut copies).await?;
        let disk = &self.environment.disk;
        for path in orphans.iter().flat_map(|of| votes_files(*of)) {
            match disk.remove_file(&path).await {
                Err(error) if error.kind != IoErrorKind::NotFound => {
                    return Err(self.fail(error));
                }
                _ => {}
            }
        }
        if orphans.is_empty() {
            return Ok(());
        }
        disk.sync_dir("").await.map_err(|error| self.fail(error.of_sync()))
    }

    /// What was set last and is durable; of a group that is another shard's, what was at start.
    pub fn get(&self, key: &GroupKey) -> Recorded {
        let state = self.state.borrow();
        recorded(self.entry(&state, key), state.doubt)
    }

    /// All keys for which [`KeyedJournal::get`] gives a value: also those of other shards' groups,
    /// as they were at start.
    pub fn keys(&self) -> Vec<GroupKey> {
        let state = self.state.borrow();
        let others = self.loaded.entries.iter().filter(|(_, held)| !self.owns(held.shard));
        let mut keys: Vec<GroupKey> =
            state.own.keys().chain(others.map(|(key, _)| key)).copied().collect();
        drop(state);
        keys.sort_unstable();
        keys.dedup();
        keys.retain(|key| matches!(self.get(key), Recorded::Value(_)));
        keys
    }

    /// Whether something was lost of which nobody knows whose it was: [`KeyedJournal::get`] gives
    /// [`Recorded::Lost`] for all that was not set since.
    pub fn is_in_doubt(&self) -> bool {
        self.state.borrow().doubt > 0
    }

    /// Why nothing can be set any more; `None` while it can.
    pub fn ended(&self) -> Option<StorageError> {
        self.state.borrow().ended.clone()
    }

    fn entry<'a>(&'a self, state: &'a State, key: &GroupKey) -> Option<&'a Entry> {
        let own = state.own.get(key).map(|own| &own.entry);
        let others = || self.loaded.entries.get(key).filter(|held| !self.owns(held.shard));
        own.or_else(|| others().map(|held| &held.entry))
    }

    /// Sets a value, or removes it: durable, or replaced by a newer one of the same key that is,
    /// when this returns. What is set while a write is under way goes with the next one.
    ///
    /// # Errors
    /// [`StorageError::ValueTooLarge`]. [`StorageError::Full`] and [`StorageError::NoDescriptor`]:
    /// [`KeyedJournal::get`] gives what it gave before; after a restart it may be either.
    /// [`StorageError::Failed`]: the journal has ended, nothing is set until a restart.
    pub async fn set(&self, key: GroupKey, value: Option<Bytes>) -> StorageResult<()> {
        let bytes = value.as_ref().map_or(0, Bytes::len);
        if bytes > VALUE_BYTES_MAX {
            return Err(StorageError::ValueTooLarge { bytes, limit: VALUE_BYTES_MAX });
        }
        let mut told = {
            let mut state = self.state.borrow_mut();
            state.check_open()?;
            state.waiting.insert(key, value);
            state.answer.told.clone()
        };
        let mut copies = loop {
            match select(told, self.copies.lock()).await {
                Either::Left((Ok(written), _)) => return written,
                // Whoever wrote it gave up halfway: it waits again.
                Either::Left((Err(_), _)) => told = self.state.borrow().answer.told.clone(),
                Either::Right((copies, _)) => break copies,
            }
        };
        let (values, current) = {
            let mut state = self.state.borrow_mut();
            (std::mem::take(&mut state.waiting), std::mem::take(&mut state.answer))
        };
        let mut taken = Taken { journal: self, values };
        let written = self.write(&mut copies, &taken.values).await;
        taken.values.clear();
        // All that waited was written: also what somebody gave up waiting for halfway.
        let _nobody = current.tell.send(written.clone());
        written
    }

    /// What is written here of a group that moves to another shard, for that one's
    /// [`KeyedJournal::take`]. All that it set has been answered, and it sets nothing here any
    /// more; what these files hold of it stays.
    ///
    /// # Errors
    /// [`StorageError::Failed`] where the journal has ended: what is durable is not known.
    pub async fn give(&self, key: &GroupKey) -> StorageResult<Given> {
        // What is under way is done then.
        let _copies = self.copies.lock().await;
        let state = self.state.borrow();
        state.check_open()?;
        Ok(Given { entry: self.entry(&state, key).cloned(), sequence: state.sequence })
    }

    /// A group has moved here, with what it had ([`KeyedJournal::give`]): what it sets from now on
    /// is newer than that. Writes nothing: the other shard's files hold it.
    pub fn take(&self, key: GroupKey, given: Given) {
        let mut state = self.state.borrow_mut();
        state.sequence = state.sequence.max(given.sequence);
        let Some(entry) = given.entry else {
            return;
        };
        let known = state.own.get(&key).map_or(0, |own| own.entry.sequence);
        if known <= entry.sequence {
            state.own.insert(key, Own { entry, is_elsewhere: true });
        }
    }

    /// Whoever asked has done what is to be done about losses of which nobody knows whose they were
    /// (set what holds now, for each group that may be meant): from now on what was not set was
    /// never set. To be called on the journals of all shards.
    ///
    /// # Errors
    /// As for [`KeyedJournal::set`].
    pub async fn settle_doubt(&self) -> StorageResult<()> {
        let mut copies = self.copies.lock().await;
        let doubt = {
            let mut state = self.state.borrow_mut();
            state.check_open()?;
            std::mem::take(&mut state.doubt)
        };
        let has_files = self.loaded.shards.contains_key(&self.shard) || copies[0].is_open();
        if doubt == 0 || !has_files {
            return Ok(());
        }
        let written = self.write(&mut copies, &BTreeMap::new()).await;
        if written.is_err() {
            self.state.borrow_mut().doubt = doubt;
        }
        written
    }

    async fn write(
        &self,
        copies: &mut [JournalFile<D>; 2],
        values: &BTreeMap<GroupKey, Option<Bytes>>,
    ) -> StorageResult<()> {
        self.state.borrow().check_open()?;
        self.begin_files(copies).await?;
        self.renew_one(copies).await?;
        let mut entries: Vec<(GroupKey, Entry)> = {
            let mut state = self.state.borrow_mut();
            state.sequence += 1;
            let sequence = state.sequence;
            let contents = values.iter().map(|(key, value)| {
                let content = value.clone().map_or(Content::Removed, Content::Value);
                (*key, Entry { sequence, content })
            });
            contents.collect()
        };
        loop {
            let count = fitting(entries.iter().map(|(_, entry)| entry));
            let rest = entries.split_off(count);
            self.append(copies, entries).await?;
            if rest.is_empty() {
                return Ok(());
            }
            entries = rest;
        }
    }

    /// Replaces the files that cannot be appended to: both at a run's first write.
    async fn begin_files(&self, copies: &mut [JournalFile<D>; 2]) -> StorageResult<()> {
        if copies.iter().all(|copy| !copy.is_open()) {
            // Its own number: parts of this base are never taken for those of another.
            self.state.borrow_mut().number += 1;
        }
        for copy in copies.iter_mut().filter(|copy| !copy.is_open()) {
            let renewed = self.renew(copy).await;
            renewed.map_err(|error| self.fail(error))?;
        }
        Ok(())
    }

    /// Replaces one file that has grown; where there is no space for a new one, it grows on.
    async fn renew_one(&self, copies: &mut [JournalFile<D>; 2]) -> StorageResult<()> {
        let grown = copies.iter_mut().find(|copy| copy.has_outgrown(copy.base_bytes()));
        let Some(copy) = grown else {
            return Ok(());
        };
        match self.renew(copy).await {
            Err(error) => match self.fail(error) {
                StorageError::Full(_) | StorageError::NoDescriptor(_) if copy.is_open() => Ok(()),
                error => Err(error),
            },
            Ok(()) => Ok(()),
        }
    }

    async fn renew(&self, copy: &mut JournalFile<D>) -> IoResult<()> {
        let base = self.base();
        let space = FILE_BYTES_MIN.max(2 * base.len() as u64) + SPARE_BYTES;
        copy.replace(&self.environment.disk, &base, space).await
    }

    /// All that is durable, as the frames of a base.
    fn base(&self) -> Vec<u8> {
        let state = self.state.borrow();
        let entries: Vec<(&GroupKey, &Entry)> =
            state.own.iter().map(|(key, own)| (key, &own.entry)).collect();
        let mut parts: Vec<&[(&GroupKey, &Entry)]> = Vec::new();
        let mut rest = entries.as_slice();
        while parts.is_empty() || !rest.is_empty() {
            let (part, behind) = rest.split_at(fitting(rest.iter().map(|(_, entry)| *entry)));
            parts.push(part);
            rest = behind;
        }
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        let mut frames = Vec::new();
        for (part, entries) in (0..).zip(parts) {
            let id = FrameId { number: state.number, parts: count, part };
            frames.extend(encode(state.head(id), entries.iter().copied()));
            frames.resize(frames.len().next_multiple_of(BLOCK_BYTES), 0);
        }
        frames
    }

    /// Appends one frame to both files, durably.
    async fn append(
        &self,
        copies: &mut [JournalFile<D>; 2],
        entries: Vec<(GroupKey, Entry)>,
    ) -> StorageResult<()> {
        let frame = {
            let mut state = self.state.borrow_mut();
            state.number += 1;
            let head = state.head(FrameId::change(state.number));
            encode(head, entries.iter().map(|(key, entry)| (key, entry)))
        };
        let ends = [copies[0].end(), copies[1].end()];
        let [first, second] = &mut *copies;
        let written = join(first.append(&frame), second.append(&frame)).await;
        let error = match written {
            (Ok(()), Ok(())) => {
                self.apply(entries);
                return Ok(());
            }
            // What is worse counts.
            (Err(first), Err(second)) if second.kind == IoErrorKind::Full => first,
            (_, Err(error)) | (Err(error), Ok(())) => error,
        };
        let error = self.fail(error);
        if matches!(error, StorageError::Full(_)) {
            // The next one takes its place, and its number, in both.
            copies.iter_mut().zip(ends).for_each(|(copy, end)| copy.rewind(end));
            self.state.borrow_mut().number -= 1;
        }
        Err(error)
    }

    fn apply(&self, entries: Vec<(GroupKey, Entry)>) {
        let mut state = self.state.borrow_mut();
        for (key, entry) in entries {
            let others = self.loaded.entries.get(&key).filter(|held| !self.owns(held.shard));
            let known = state.own.get(&key).is_some_and(|own| own.is_elsewhere);
            let is_elsewhere = known || others.is_some();
            if entry.content == Content::Removed && !is_elsewhere {
                state.own.remove(&key);
            } else {
                state.own.insert(key, Own { entry, is_elsewhere });
            }
        }
    }

    /// After an error while something was written: no space is harmless, everything else ends the
    /// journal.
    fn fail(&self, error: IoError) -> StorageError {
        let path = error.path.clone();
        let error = StorageError::from_write(error);
        if let StorageError::Failed(io) = &error {
            let before = self.state.borrow_mut().ended.replace(error.clone());
            if before.is_none() {
                let event = StorageEvent::VotesEnded { path, error: io.clone() };
                self.environment.report(&event);
            }
        }
        error
    }
}

impl State {
    fn check_open(&self) -> StorageResult<()> {
        self.ended.as_ref().map_or(Ok(()), |why| Err(why.clone()))
    }

    fn head(&self, id: FrameId) -> Head {
        Head { id, sequence: self.sequence, doubt: self.doubt }
    }
}
