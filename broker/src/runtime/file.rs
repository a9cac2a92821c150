//! The data directory, on the shard's ring: `storage::io` on a real file system.
//!
//! Data goes to disk past the page cache (`O_DIRECT`), with the data sync in the same request
//! (`RWF_DSYNC`), and larger reads into buffers of ours come past it (`begin_read`); small reads
//! and `sendfile` go through a second descriptor, and the page cache. The second one of either kind
//! is opened when it is first needed, so a file that is only written, or only read, holds one. What
//! the ring cannot do (listing, `statfs`, `SEEK_DATA`) runs on a thread beside the shard's.

use std::any::Any;
use std::ffi::CString;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};
use io_uring::opcode;
use vltava_storage::io::{
    AlignedBlocks, AlignedBuffer, BLOCK_BYTES, DirectoryEntry, Disk, Durability, File, Haste,
    IoError, IoErrorKind, IoResult, OpenMode, Space, block_start,
};

use super::blocking::Blocking;
use super::data_directory::DataDirectory;
use super::request::{Handle, Request, SharedHandle};
use super::ring::Ring;
use super::system;

/// Writes in a row that write less than a block, before that is an error. The second one usually
/// says why (`ENOSPC`).
const FRUITLESS_WRITES_MAX: u32 = 4;

/// An open descriptor of the data directory.
#[derive(Debug)]
pub(super) struct Descriptor {
    file: fs::File,
    path: String,
}

impl Descriptor {
    /// `path` is what errors say, from the data directory's root on.
    pub(super) fn new(file: fs::File, path: &str) -> Self {
        Self { file, path: path.to_owned() }
    }
}

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}

impl Handle for Descriptor {
    fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        // The last descriptor of a removed file gives its space back when it is closed, which takes
        // milliseconds for a large one: not on a shard. Its copy is that last one.
        let removed = self.file.metadata().is_ok_and(|file| file.nlink() == 0);
        if removed && let Ok(copy) = self.file.try_clone() {
            close_elsewhere(copy);
        }
    }
}

/// Closes a file on a thread of its own, which sleeps when there is nothing to close.
fn close_elsewhere(file: fs::File) {
    static CLOSER: OnceLock<Option<mpsc::Sender<fs::File>>> = OnceLock::new();
    let closer = CLOSER.get_or_init(|| {
        let (sender, receiver) = mpsc::channel::<fs::File>();
        let closer = std::thread::Builder::new().name("close".to_owned());
        let started = closer.spawn(move || {
            system::run_anywhere();
            receiver.into_iter().for_each(drop);
        });
        started.ok().map(|_| sender)
    });
    if let Some(closer) = closer {
        drop(closer.send(file)); // Where the thread is gone, it is closed here.
    }
}

/// The data directory, as one shard sees it. A clone is the same.
#[derive(Clone, Debug)]
pub struct MachineDisk(Rc<DiskState>);

#[derive(Debug)]
struct DiskState {
    ring: Ring,
    blocking: Blocking,
    /// For what nobody waits for.
    idle: Blocking,
    directory: Arc<DataDirectory>,
    /// Whether the ring can cut files (Linux 6.9).
    cuts: bool,
}

impl MachineDisk {
    pub(super) fn new(ring: Ring, directory: Arc<DataDirectory>) -> Self {
        let cuts = ring.knows(opcode::Ftruncate::CODE);
        let (blocking, idle) = (Blocking::default(), Blocking::when_idle());
        Self(Rc::new(DiskState { ring, blocking, idle, directory, cuts }))
    }

    /// This shard's thread for calls that block.
    pub(super) fn blocking(&self) -> &Blocking {
        &self.0.blocking
    }

    fn root(&self) -> SharedHandle {
        Arc::clone(&self.0.directory.directory) as SharedHandle
    }

    /// Syncs all of the file system, a directory that cannot be opened with it: the root is open.
    async fn sync_all(&self, directory: &str) -> IoResult<()> {
        let root = Arc::clone(&self.0.directory.directory);
        let synced = self.blocking().run(move || sync_file_system(&root)).await;
        synced.map_err(|error| io_error("sync file system", directory, &error))
    }

    /// Asks for what gives no memory back.
    async fn call(&self, request: Request, operation: &'static str, path: &str) -> IoResult<usize> {
        let (result, _) = self.0.ring.ask(request).await;
        result.map_err(|error| io_error(operation, path, &error))
    }

    async fn open_descriptor(&self, path: &str, flags: i32) -> IoResult<Descriptor> {
        let request =
            Request::Open { directory: self.root(), path: checked(path)?, flags, opened: None };
        let opened = open(&self.0.ring, request).await;
        let opened = opened.map_err(|error| io_error("open", path, &error))?;
        Ok(Descriptor::new(opened.into(), if path.is_empty() { "." } else { path }))
    }
}

/// Runs an [`Request::Open`].
async fn open(ring: &Ring, request: Request) -> io::Result<OwnedFd> {
    let (result, request) = ring.ask(request).await;
    result?;
    match request {
        Request::Open { opened: Some(opened), .. } => Ok(opened),
        _ => unreachable!("an open that succeeded has a descriptor"),
    }
}

impl Disk for MachineDisk {
    type File = MachineFile;

    async fn open(&self, path: &str, mode: OpenMode) -> IoResult<MachineFile> {
        let direct = mode != OpenMode::Read && self.0.directory.direct;
        let access = match mode {
            OpenMode::Read | OpenMode::ReadBlocks => libc::O_RDONLY,
            OpenMode::Write => libc::O_RDWR,
            OpenMode::Create => libc::O_RDWR | libc::O_CREAT | libc::O_EXCL,
        };
        let past_cache = if direct { libc::O_DIRECT } else { 0 };
        let descriptor = self.open_descriptor(path, access | past_cache).await?;
        let descriptor = Arc::new(descriptor);
        let cached = OnceLock::new();
        if !direct {
            drop(cached.set(Arc::clone(&descriptor)));
        }
        Ok(MachineFile { disk: self.clone(), open: Arc::new(OpenFile { descriptor, cached }) })
    }

    async fn list(&self, directory: &str) -> IoResult<Vec<DirectoryEntry>> {
        checked(directory)?;
        let path = self.0.directory.root.join(directory);
        let listed = self.blocking().run(move || list(&path)).await;
        listed.map_err(|error| io_error("list", directory, &error))
    }

    async fn create_dir(&self, directory: &str) -> IoResult<()> {
        let request =
            Request::CreateDirectory { directory: self.root(), path: checked(directory)? };
        match self.call(request, "create directory", directory).await {
            Err(error) if error.kind == IoErrorKind::AlreadyExists => {
                // A file of that name is an error.
                let flags = libc::O_RDONLY | libc::O_DIRECTORY;
                let exists = self.open_descriptor(directory, flags).await;
                exists.map(drop).map_err(|_| error)
            }
            result => result.map(drop),
        }
    }

    async fn rename(&self, from: &str, to: &str) -> IoResult<()> {
        let request =
            Request::Rename { directory: self.root(), from: checked(from)?, to: checked(to)? };
        self.call(request, "rename", from).await.map(drop)
    }

    async fn remove_file(&self, path: &str) -> IoResult<()> {
        let request =
            Request::Remove { directory: self.root(), path: checked(path)?, is_directory: false };
        self.call(request, "remove", path).await.map(drop)
    }

    async fn remove_dir(&self, directory: &str) -> IoResult<()> {
        let request = Request::Remove {
            directory: self.root(),
            path: checked(directory)?,
            is_directory: true,
        };
        self.call(request, "remove directory", directory).await.map(drop)
    }

    async fn sync_dir(&self, directory: &str) -> IoResult<()> {
        // The root is open: a process without descriptors still renames there durably.
        let handle = match directory {
            "" => self.root(),
            _ => {
                let flags = libc::O_RDONLY | libc::O_DIRECTORY;
                match self.open_descriptor(directory, flags).await {
                    // Names were changed already: a log would end for want of a descriptor.
                    Err(error) if error.kind == IoErrorKind::NoDescriptor => {
                        return self.sync_all(directory).await;
                    }
                    opened => Arc::new(opened?),
                }
            }
        };
        let request = Request::Sync { handle };
        let synced = self.call(request, "sync directory", directory).await.map(drop);
        if synced.is_err() && directory.is_empty() {
            self.0.directory.syncs_failed.fetch_add(1, Ordering::SeqCst);
        }
        synced
    }

    fn root_syncs_failed(&self) -> u64 {
        self.0.directory.syncs_failed.load(Ordering::SeqCst)
    }

    fn reads_past_cache(&self) -> bool {
        self.0.directory.direct
    }

    async fn space(&self) -> IoResult<Space> {
        let directory = Arc::clone(&self.0.directory.directory);
        let space = self.0.blocking.run(move || space(&directory)).await;
        space.map_err(|error| io_error("statvfs", ".", &error))
    }

    async fn beside<T: Send + 'static>(
        &self,
        haste: Haste,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> IoResult<T> {
        let thread = match haste {
            Haste::Soon => self.blocking(),
            Haste::WhenIdle => &self.0.idle,
        };
        let done = thread.run(move || Ok(work())).await;
        done.map_err(|error| io_error("run", ".", &error))
    }
}

/// A file that a socket can be sent from: what [`File::source`] gives. Crosses threads.
#[derive(Debug)]
pub(super) struct OpenFile {
    /// How it was opened.
    descriptor: Arc<Descriptor>,
    /// The one that reads through the page cache, once it is open.
    cached: OnceLock<Arc<Descriptor>>,
}

impl OpenFile {
    /// A descriptor that reads through the page cache.
    pub(super) async fn cached(&self, ring: &Ring) -> io::Result<Arc<Descriptor>> {
        if let Some(cached) = self.cached.get() {
            return Ok(Arc::clone(cached));
        }
        // By its descriptor: its name may be another by now, or gone.
        let number = self.descriptor.as_raw_fd();
        let path = CString::new(format!("/proc/self/fd/{number}"))?;
        let request = Request::Open {
            directory: Arc::clone(&self.descriptor) as SharedHandle,
            path,
            flags: libc::O_RDONLY,
            opened: None,
        };
        let opened = open(ring, request).await?.into();
        let opened = Descriptor::new(opened, &self.descriptor.path);
        // Another task, or another shard, may have been quicker.
        Ok(Arc::clone(self.cached.get_or_init(|| Arc::new(opened))))
    }
}

/// A file of the data directory. A clone is the same open file.
#[derive(Clone, Debug)]
pub struct MachineFile {
    disk: MachineDisk,
    open: Arc<OpenFile>,
}

impl MachineFile {
    fn handle(&self) -> SharedHandle {
        Arc::clone(&self.open.descriptor) as SharedHandle
    }

    fn error(&self, operation: &'static str, error: &io::Error) -> IoError {
        io_error(operation, &self.open.descriptor.path, error)
    }

    async fn call(&self, request: Request, operation: &'static str) -> IoResult<usize> {
        let path = &self.open.descriptor.path;
        self.disk.call(request, operation, path).await
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.open.descriptor.file.metadata()?.len())
    }
}

impl File for MachineFile {
    async fn write_at(
        &self,
        blocks: AlignedBlocks,
        position: u64,
        durability: Durability,
    ) -> IoResult<()> {
        assert!(
            position.is_multiple_of(BLOCK_BYTES as u64),
            "a write at {position}, which is no multiple of a block"
        );
        let mut request = Request::Write {
            handle: self.handle(),
            blocks,
            done: 0,
            position,
            data_sync: durability == Durability::Flushed,
            vectors: Vec::new(),
        };
        let mut fruitless = 0;
        loop {
            let (result, mut returned) = self.disk.0.ring.ask(request).await;
            let written = result.map_err(|error| self.error("write", &error))?;
            let Request::Write { blocks, done, .. } = &mut returned else {
                unreachable!("the ring gives back what it was asked");
            };
            match advance(done, written, blocks.len(), &mut fruitless) {
                Advance::Done => return Ok(()),
                Advance::Continue => request = returned,
                Advance::GiveUp => {
                    let error = io::Error::from(io::ErrorKind::WriteZero);
                    return Err(self.error("write", &error));
                }
            }
        }
    }

    async fn read_at(&self, position: u64, len: usize) -> IoResult<Bytes> {
        let cached = self.open.cached(&self.disk.0.ring).await;
        let cached = cached.map_err(|error| self.error("open", &error))?;
        let mut buffer = BytesMut::with_capacity(len);
        while buffer.len() < len {
            let request = Request::Read {
                handle: Arc::clone(&cached) as SharedHandle,
                len: len - buffer.len(),
                position: position + buffer.len() as u64,
                buffer,
            };
            let (result, returned) = self.disk.0.ring.ask(request).await;
            let read = result.map_err(|error| self.error("read", &error))?;
            let Request::Read { buffer: filled, .. } = returned else {
                unreachable!("the ring gives back what it was asked");
            };
            buffer = filled;
            if read == 0 {
                break;
            }
        }
        Ok(buffer.freeze())
    }

    fn begin_read(
        &self,
        position: u64,
        len: usize,
        buffer: AlignedBuffer,
    ) -> impl Future<Output = IoResult<AlignedBuffer>> + 'static {
        let blocks = len.next_multiple_of(BLOCK_BYTES);
        let is_aligned = position.is_multiple_of(BLOCK_BYTES as u64);
        assert!(is_aligned && blocks <= buffer.remaining(), "a read of {len} bytes at {position}");
        let handle = self.handle();
        let request = Request::ReadBlocks { handle, buffer, len: blocks, position };
        // Asked for now, not when it is awaited.
        let mut pending = self.disk.0.ring.ask(request);
        let file = self.clone();
        async move {
            let mut left = blocks;
            loop {
                let (result, request) = pending.await;
                let read = result.map_err(|error| file.error("read", &error))?;
                let Request::ReadBlocks { handle, buffer, position, .. } = request else {
                    unreachable!("the ring gives back what it was asked");
                };
                left = left.saturating_sub(read);
                // The file ends where a read ends that is not of whole blocks.
                if read == 0 || left == 0 || !read.is_multiple_of(BLOCK_BYTES) {
                    return Ok(buffer);
                }
                let position = position + read as u64;
                let request = Request::ReadBlocks { handle, buffer, len: left, position };
                pending = file.disk.0.ring.ask(request);
            }
        }
    }

    async fn allocate(&self, position: u64, len: u64) -> IoResult<()> {
        let before = self.length().map_err(|error| self.error("stat", &error))?;
        let request = Request::Allocate { handle: self.handle(), position, len };
        let Err(error) = self.call(request, "allocate").await else {
            return Ok(());
        };
        if error.kind == IoErrorKind::Full {
            // The file system may have taken what there was: that goes back.
            self.set_len(before).await?;
        }
        Err(error)
    }

    async fn set_len(&self, len: u64) -> IoResult<()> {
        if self.disk.0.cuts {
            let handle = self.handle();
            let request = Request::SetLength { handle, len };
            return self.call(request, "truncate").await.map(drop);
        }
        let descriptor = Arc::clone(&self.open.descriptor);
        let blocking = &self.disk.0.blocking;
        let cut = blocking.run(move || descriptor.file.set_len(len)).await;
        cut.map_err(|error| self.error("truncate", &error))
    }

    async fn sync(&self) -> IoResult<()> {
        let handle = self.handle();
        self.call(Request::Sync { handle }, "sync").await.map(drop)
    }

    async fn len(&self) -> IoResult<u64> {
        // The inode of an open file is in memory: this does not wait.
        self.length().map_err(|error| self.error("stat", &error))
    }

    async fn next_data(&self, position: u64) -> IoResult<Option<u64>> {
        let descriptor = Arc::clone(&self.open.descriptor);
        let found = self.disk.0.blocking.run(move || next_data(&descriptor.file, position)).await;
        found.map_err(|error| self.error("seek", &error))
    }

    fn source(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.open) as Arc<dyn Any + Send + Sync>
    }
}

/// The block at or behind `position` in which the file system says that something was written.
fn next_data(file: &std::fs::File, position: u64) -> io::Result<Option<u64>> {
    let offset = libc::off_t::try_from(position)
        .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: takes no memory of ours. Nothing reads or writes at the descriptor's own position,
    // which this moves.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, libc::SEEK_DATA) };
    match (u64::try_from(found), io::Error::last_os_error().raw_os_error()) {
        // Its own blocks may be smaller.
        (Ok(found), _) => Ok(Some(block_start(found))),
        (Err(_), Some(libc::ENXIO)) => Ok(None),
        // A file system that does not know.
        (Err(_), Some(libc::EINVAL | libc::EOPNOTSUPP)) => Ok(Some(block_start(position))),
        (Err(_), _) => Err(io::Error::last_os_error()),
    }
}

/// What comes after a write that may have been short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Advance {
    Done,
    Continue,
    GiveUp,
}

/// So many bytes behind the first `done` of `len` were written: where the next write begins. A
/// block that is written in part is written again, whole: positions stay aligned.
fn advance(done: &mut usize, written: usize, len: usize, fruitless: &mut u32) -> Advance {
    assert!(written <= len - *done, "{written} bytes written of {}", len - *done);
    if *done + written == len {
        return Advance::Done;
    }
    let whole = written / BLOCK_BYTES * BLOCK_BYTES;
    *done += whole;
    *fruitless = if whole == 0 { *fruitless + 1 } else { 0 };
    if *fruitless > FRUITLESS_WRITES_MAX { Advance::GiveUp } else { Advance::Continue }
}

/// A path below the root, for the kernel. Empty is the root itself.
fn checked(path: &str) -> IoResult<CString> {
    let inside = Path::new(path)
        .components()
        .all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let path_or_root = if path.is_empty() { "." } else { path };
    match CString::new(path_or_root) {
        Ok(path) if inside => Ok(path),
        _ => Err(IoError {
            kind: IoErrorKind::Failed,
            operation: "name",
            path: path.to_owned(),
            message: "not a path within the data directory".to_owned(),
        }),
    }
}

/// Makes durable what the file system holds that a descriptor is of.
fn sync_file_system(of: &Descriptor) -> io::Result<()> {
    // SAFETY: the descriptor is open.
    match unsafe { libc::syncfs(of.as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn list(path: &Path) -> io::Result<Vec<DirectoryEntry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        entries.push(DirectoryEntry {
            name: entry.file_name().to_string_lossy().into_owned(),
            is_directory: entry.file_type()?.is_dir(),
        });
    }
    entries.sort();
    Ok(entries)
}

fn space(directory: &Descriptor) -> io::Result<Space> {
    let mut facts = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the descriptor is open, and the kernel fills the structure.
    if unsafe { libc::fstatvfs(directory.as_raw_fd(), facts.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled, since the call succeeded.
    let facts = unsafe { facts.assume_init() };
    Ok(Space {
        free: facts.f_bavail.saturating_mul(facts.f_frsize),
        total: facts.f_blocks.saturating_mul(facts.f_frsize),
    })
}

fn io_error(operation: &'static str, path: &str, error: &io::Error) -> IoError {
    let kind = match error.raw_os_error() {
        Some(libc::ENOENT) => IoErrorKind::NotFound,
        Some(libc::EEXIST) => IoErrorKind::AlreadyExists,
        Some(libc::ENOSPC | libc::EDQUOT) => IoErrorKind::Full,
        Some(libc::EMFILE | libc::ENFILE) => IoErrorKind::NoDescriptor,
        Some(libc::EROFS | libc::EACCES | libc::EPERM) => IoErrorKind::ReadOnly,
        _ => IoErrorKind::Failed,
    };
    IoError { kind, operation, path: path.to_owned(), message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_write_is_continued_until_every_block_was_written_whole() {
        const BLOCKS: usize = 5;
        for piece in [1, 511, 4095, 4096, 4097, 9000, 20_480] {
            let (mut done, mut fruitless, mut whole) = (0, 0, [false; BLOCKS]);
            let last = loop {
                let left = BLOCKS * BLOCK_BYTES - done;
                let written = left.min(piece);
                let begin = done;
                let next = advance(&mut done, written, BLOCKS * BLOCK_BYTES, &mut fruitless);
                let blocks = begin / BLOCK_BYTES..(begin + written) / BLOCK_BYTES;
                whole[blocks].fill(true);
                assert!(done.is_multiple_of(BLOCK_BYTES));
                if next != Advance::Continue {
                    break next;
                }
            };
            // Less than a block at a time, again and again, is an error and no success.
            let expected = if piece < BLOCK_BYTES { Advance::GiveUp } else { Advance::Done };
            assert_eq!(last, expected, "{piece}");
            assert_eq!(whole, [piece >= BLOCK_BYTES; BLOCKS], "{piece}");
        }
    }
}
