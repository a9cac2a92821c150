//! The traits `Disk` and `File` over images and names, and the faults.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::file::FaultFile;
use super::image::Chance;
use super::tree::{Edit, NodeId, ROOT, Tree};
use crate::io::{DirectoryEntry, Disk, Haste, IoError, IoErrorKind, IoResult, OpenMode, Space};

/// Something that goes wrong at one operation. Changing operations are counted from 0
/// ([`FaultDisk::operations`]), reads (open, list, read, length) apart from them
/// ([`FaultDisk::reads`]).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The machine stops in the middle of this changing operation: it and all later calls fail.
    /// Call [`FaultDisk::restart`].
    Crash {
        /// Which.
        at: u64,
    },
    /// This changing operation fails.
    Fail {
        /// Which.
        at: u64,
        /// How.
        kind: IoErrorKind,
    },
    /// This read fails with [`IoErrorKind::Failed`].
    FailRead {
        /// Which.
        at: u64,
    },
    /// This operation, if it is a write, reports success and does nothing.
    LoseWrite {
        /// Which.
        at: u64,
    },
    /// This operation, if it is a write, reports success and lands elsewhere in the same file.
    MisdirectWrite {
        /// Which.
        at: u64,
        /// Where: so many blocks from where it should.
        blocks: i64,
    },
}

/// What is asked of the disk, for a latency hook or a log of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// "write", "sync" ...
    pub name: &'static str,
    /// Relative to the root.
    pub path: String,
    /// Bytes to write or read; 0 where that means nothing.
    pub bytes: usize,
}

/// Called before an operation takes effect; the operation waits for what it returns. A write that
/// waits can be torn by a crash.
pub type Latency = Rc<dyn Fn(&Operation) -> Pin<Box<dyn Future<Output = ()>>>>;

pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) chance: Chance,
    faults: Vec<Fault>,
    operations: u64,
    reads: u64,
    root_syncs_failed: u64,
    capacity: u64,
    reads_past_cache: bool,
    lacks_descriptors: bool,
    /// Counts restarts: a handle from before one is dead.
    pub(super) boot: u64,
    pub(super) is_down: bool,
    open: BTreeMap<NodeId, Arc<()>>,
}

/// A disk in memory. A clone is the same disk.
#[derive(Clone)]
pub struct FaultDisk {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) boot: u64,
    latency: Rc<RefCell<Option<Latency>>>,
}

/// What may be done now.
pub(super) enum Verdict {
    Proceed,
    Fail(IoErrorKind),
    Crash,
    Lose,
    Misdirect(i64),
}

impl State {
    /// Counts a changing operation, and says what becomes of it.
    pub(super) fn begin(&mut self) -> Verdict {
        let number = self.operations;
        self.operations += 1;
        for fault in &self.faults {
            match *fault {
                Fault::Crash { at } if at == number => return Verdict::Crash,
                Fault::Fail { at, kind } if at == number => return Verdict::Fail(kind),
                Fault::LoseWrite { at } if at == number => return Verdict::Lose,
                Fault::MisdirectWrite { at, blocks } if at == number => {
                    return Verdict::Misdirect(blocks);
                }
                _ => {}
            }
        }
        Verdict::Proceed
    }

    fn begin_read(&mut self) -> bool {
        let number = self.reads;
        self.reads += 1;
        !self.faults.contains(&Fault::FailRead { at: number })
    }

    pub(super) fn free(&self) -> u64 {
        self.capacity.saturating_sub(self.tree.used_bytes())
    }
}

impl FaultDisk {
    /// An empty disk of 1 TiB whose chances come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                tree: Tree::new(),
                chance: Chance::new(seed),
                faults: Vec::new(),
                operations: 0,
                reads: 0,
                root_syncs_failed: 0,
                capacity: 1 << 40,
                reads_past_cache: true,
                lacks_descriptors: false,
                boot: 0,
                is_down: false,
                open: BTreeMap::new(),
            })),
            boot: 0,
            latency: Rc::new(RefCell::new(None)),
        }
    }

    /// Sets how many bytes all files may take.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock().capacity = bytes;
    }

    /// Whether reads go past the page cache; where the file system takes no `O_DIRECT` they do not.
    pub fn set_reads_past_cache(&self, do_they: bool) {
        self.lock().reads_past_cache = do_they;
    }

    /// From now on the process may open nothing, or may again; what is open stays so.
    pub fn set_lacks_descriptors(&self, does_it: bool) {
        self.lock().lacks_descriptors = does_it;
    }

    /// Plans a fault.
    pub fn inject(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    /// Forgets all planned faults.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// Whether the machine has stopped.
    pub fn is_down(&self) -> bool {
        let state = self.lock();
        state.is_down || state.boot != self.boot
    }

    /// Changing operations so far.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Reading operations so far.
    pub fn reads(&self) -> u64 {
        self.lock().reads
    }

    /// Waits, before each operation, for what this returns.
    pub fn set_latency(&self, latency: Option<Latency>) {
        *self.latency.borrow_mut() = latency;
    }

    /// The machine stops now: every call on this disk, and on files opened through it, fails.
    pub fn stop(&self) {
        self.lock().is_down = true;
    }

    /// The disk after a crash and a restart: what was flushed, and of the rest what chance lets
    /// through. Handles from before are dead.
    pub fn restart(&self) -> Self {
        let mut state = self.lock();
        let State { tree, chance, .. } = &mut *state;
        tree.crash(chance);
        tree.forget_unnamed(|_| false);
        state.open.clear();
        state.faults.clear();
        state.is_down = false;
        state.boot += 1;
        let boot = state.boot;
        drop(state);
        Self { state: Arc::clone(&self.state), boot, latency: Rc::clone(&self.latency) }
    }

    /// The paths of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        let state = self.lock();
        let mut files = Vec::new();
        let mut waiting = vec![String::new()];
        while let Some(directory) = waiting.pop() {
            let Some(children) = state.tree.find(&directory).and_then(|d| state.tree.children(d))
            else {
                files.push(directory);
                continue;
            };
            waiting.extend(children.keys().map(|name| join(&directory, name)));
        }
        files.sort();
        files
    }

    /// The files that are written to just now, with the bytes of writes that have not ended.
    pub fn under_way(&self) -> Vec<(String, usize)> {
        let files = self.files();
        let state = self.lock();
        let bytes_of = |path: &String| {
            let image = state.tree.find(path).and_then(|node| state.tree.image(node));
            image.map_or(0, |image| image.bytes_under_way())
        };
        let bytes = files.into_iter().map(|path| (bytes_of(&path), path));
        bytes.filter(|(bytes, _)| *bytes > 0).map(|(bytes, path)| (path, bytes)).collect()
    }

    /// What the process sees in a file; `None` where there is no such file.
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let image = state.tree.find(path).and_then(|n| state.tree.image(n))?;
        Some(image.current().to_vec())
    }

    /// What of a file stands, whatever power takes; `None` where there is no such file.
    pub fn flushed(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        let image = state.tree.find(path).and_then(|n| state.tree.image(n))?;
        Some(image.flushed())
    }

    /// Puts a file there, with its directories, as if it had been there always.
    pub fn put(&self, path: &str, content: &[u8]) {
        let mut state = self.lock();
        let mut directory = ROOT;
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let is_directory = names.peek().is_some();
            let known = state.tree.children(directory).and_then(|c| c.get(name)).copied();
            let node = known.unwrap_or_else(|| state.tree.create(directory, name, is_directory));
            state.tree.sync_dir(directory);
            directory = node;
        }
        if let Some(image) = state.tree.image_mut(directory) {
            image.set_len(content.len());
            image.sync();
            image.damage(|bytes| bytes.copy_from_slice(content));
        }
    }

    /// Damages a file, in the process's view and on the platter: bit rot, a zeroed page, a cut.
    /// False where there is no such file.
    pub fn damage(&self, path: &str, damage: impl Fn(&mut Vec<u8>)) -> bool {
        let mut state = self.lock();
        let node = state.tree.find(path);
        let Some(image) = node.and_then(|n| state.tree.image_mut(n)) else {
            return false;
        };
        image.damage(damage);
        true
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long an operation takes that is begun now.
    pub(super) fn wait(
        &self,
        name: &'static str,
        path: &str,
        bytes: usize,
    ) -> impl Future<Output = ()> + use<> {
        let latency = self.latency.borrow().clone();
        let path = path.to_owned();
        let waiting = latency.map(|latency| latency(&Operation { name, path, bytes }));
        async move {
            if let Some(waiting) = waiting {
                waiting.await;
            }
        }
    }

    /// Waits, counts a read, and gives the state.
    pub(super) async fn read<'a>(
        &'a self,
        name: &'static str,
        path: &str,
        bytes: usize,
    ) -> IoResult<MutexGuard<'a, State>> {
        self.wait(name, path, bytes).await;
        self.read_now(name, path)
    }

    /// Counts a read, and gives the state.
    pub(super) fn read_now(
        &self,
        name: &'static str,
        path: &str,
    ) -> IoResult<MutexGuard<'_, State>> {
        let mut state = self.lock();
        if state.is_down || state.boot != self.boot || !state.begin_read() {
            return Err(error(IoErrorKind::Failed, name, path));
        }
        Ok(state)
    }

    fn take_descriptor(&self, name: &'static str, path: &str) -> IoResult<()> {
        match self.lock().lacks_descriptors {
            true => Err(error(IoErrorKind::NoDescriptor, name, path)),
            false => Ok(()),
        }
    }

    /// Counts a change, waits, and gives the state with what becomes of the change. Where the
    /// machine is down: an error.
    pub(super) async fn change<'a>(
        &'a self,
        name: &'static str,
        path: &str,
    ) -> IoResult<(MutexGuard<'a, State>, Verdict)> {
        self.wait(name, path, 0).await;
        let mut state = self.lock();
        if state.is_down || state.boot != self.boot {
            return Err(error(IoErrorKind::Failed, name, path));
        }
        let verdict = state.begin();
        Ok((state, verdict))
    }

    /// One change of names, for all of create, rename and remove: `make` looks, and says which
    /// edits follow.
    async fn rename_or_remove(
        &self,
        name: &'static str,
        path: &str,
        make: impl Fn(&Tree) -> Result<Vec<Edit>, IoErrorKind>,
    ) -> IoResult<()> {
        let (mut state, verdict) = self.change(name, path).await?;
        if let Verdict::Fail(kind) = verdict {
            return Err(error(kind, name, path));
        }
        let edits = make(&state.tree).map_err(|kind| error(kind, name, path))?;
        state.tree.change(edits);
        let State { tree, open, .. } = &mut *state;
        open.retain(|_, handle| Arc::strong_count(handle) > 1);
        tree.forget_unnamed(|node| open.contains_key(&node));
        crash_if(&mut state, &verdict, name, path)
    }
}

pub(super) fn crash_if(
    state: &mut State,
    verdict: &Verdict,
    name: &'static str,
    path: &str,
) -> IoResult<()> {
    if matches!(verdict, Verdict::Crash) {
        state.is_down = true;
        return Err(error(IoErrorKind::Failed, name, path));
    }
    Ok(())
}

fn join(directory: &str, name: &str) -> String {
    if directory.is_empty() { name.to_owned() } else { format!("{directory}/{name}") }
}

pub(super) fn error(kind: IoErrorKind, operation: &'static str, path: &str) -> IoError {
    IoError {
        kind,
        operation,
        path: path.to_owned(),
        message: format!("{kind:?}, says the faulty disk"),
    }
}

impl Disk for FaultDisk {
    type File = FaultFile;

    async fn open(&self, path: &str, mode: OpenMode) -> IoResult<FaultFile> {
        self.take_descriptor("open", path)?;
        let node = if mode == OpenMode::Create {
            let (mut state, verdict) = self.change("create", path).await?;
            if let Verdict::Fail(kind) = verdict {
                return Err(error(kind, "create", path));
            }
            let not_found = || error(IoErrorKind::NotFound, "create", path);
            let (parent, name) = state.tree.parent(path).ok_or_else(not_found)?;
            if state.tree.find(path).is_some() {
                return Err(error(IoErrorKind::AlreadyExists, "create", path));
            }
            let node = state.tree.create(parent, name, false);
            crash_if(&mut state, &verdict, "create", path)?;
            node
        } else {
            let state = self.read("open", path, 0).await?;
            let node = state.tree.find(path);
            node.filter(|n| state.tree.image(*n).is_some())
                .ok_or_else(|| error(IoErrorKind::NotFound, "open", path))?
        };
        let handle = Arc::clone(self.lock().open.entry(node).or_default());
        Ok(FaultFile::new(self.clone(), node, path, handle))
    }

    async fn list(&self, directory: &str) -> IoResult<Vec<DirectoryEntry>> {
        self.take_descriptor("list", directory)?;
        let state = self.read("list", directory, 0).await?;
        let children = state.tree.find(directory).and_then(|d| state.tree.children(d));
        let children = children.ok_or_else(|| error(IoErrorKind::NotFound, "list", directory))?;
        let entries = children.iter().map(|(name, node)| DirectoryEntry {
            name: name.clone(),
            is_directory: state.tree.image(*node).is_none(),
        });
        Ok(entries.collect())
    }

    async fn create_dir(&self, directory: &str) -> IoResult<()> {
        let (mut state, verdict) = self.change("create_dir", directory).await?;
        if let Verdict::Fail(kind) = verdict {
            return Err(error(kind, "create_dir", directory));
        }
        if state.tree.find(directory).is_none() {
            let not_found = || error(IoErrorKind::NotFound, "create_dir", directory);
            let (parent, name) = state.tree.parent(directory).ok_or_else(not_found)?;
            state.tree.create(parent, name, true);
        }
        crash_if(&mut state, &verdict, "create_dir", directory)
    }

    async fn rename(&self, from: &str, to: &str) -> IoResult<()> {
        self.rename_or_remove("rename", from, |tree| {
            let node = tree.find(from).ok_or(IoErrorKind::NotFound)?;
            let (from_parent, from_name) = tree.parent(from).ok_or(IoErrorKind::NotFound)?;
            let (to_parent, to_name) = tree.parent(to).ok_or(IoErrorKind::NotFound)?;
            let taken = tree.find(to).and_then(|n| tree.children(n));
            if taken.is_some_and(|children| !children.is_empty()) {
                return Err(IoErrorKind::AlreadyExists);
            }
            Ok(vec![
                (from_parent, from_name.to_owned(), None),
                (to_parent, to_name.to_owned(), Some(node)),
            ])
        })
        .await
    }

    async fn remove_file(&self, path: &str) -> IoResult<()> {
        self.rename_or_remove("remove_file", path, |tree| {
            let node = tree.find(path).ok_or(IoErrorKind::NotFound)?;
            tree.image(node).ok_or(IoErrorKind::Failed)?;
            let (parent, name) = tree.parent(path).ok_or(IoErrorKind::NotFound)?;
            Ok(vec![(parent, name.to_owned(), None)])
        })
        .await
    }

    async fn remove_dir(&self, directory: &str) -> IoResult<()> {
        self.rename_or_remove("remove_dir", directory, |tree| {
            let node = tree.find(directory).ok_or(IoErrorKind::NotFound)?;
            if tree.children(node).is_none_or(|c| !c.is_empty()) {
                return Err(IoErrorKind::Failed);
            }
            let (parent, name) = tree.parent(directory).ok_or(IoErrorKind::NotFound)?;
            Ok(vec![(parent, name.to_owned(), None)])
        })
        .await
    }

    async fn sync_dir(&self, directory: &str) -> IoResult<()> {
        let (mut state, verdict) = self.change("sync_dir", directory).await?;
        let not_found = || error(IoErrorKind::NotFound, "sync_dir", directory);
        let node = state.tree.find(directory).ok_or_else(not_found)?;
        match verdict {
            Verdict::Fail(kind) => {
                let State { tree, chance, .. } = &mut *state;
                tree.fail_sync_dir(node, chance);
                state.root_syncs_failed += u64::from(node == ROOT);
                return Err(error(kind, "sync_dir", directory));
            }
            Verdict::Crash => {}
            _ => state.tree.sync_dir(node),
        }
        crash_if(&mut state, &verdict, "sync_dir", directory)
    }

    fn root_syncs_failed(&self) -> u64 {
        self.lock().root_syncs_failed
    }

    fn reads_past_cache(&self) -> bool {
        self.lock().reads_past_cache
    }

    async fn space(&self) -> IoResult<Space> {
        let state = self.read("space", "", 0).await?;
        Ok(Space { free: state.free(), total: state.capacity })
    }

    async fn beside<T: Send + 'static>(
        &self,
        _haste: Haste,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> IoResult<T> {
        Ok(work())
    }
}
