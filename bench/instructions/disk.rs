//! A disk in memory that costs next to nothing: what is counted is the log above it.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::ready;
use std::rc::Rc;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use vltava_storage::io::{
    AlignedBlocks, AlignedBuffer, BLOCK_BYTES, DirectoryEntry, Disk, Durability, File, Haste,
    IoError, IoErrorKind, IoResult, OpenMode, Space, block_start,
};

/// The disk. A clone is the same one.
#[derive(Clone, Default)]
pub struct MemoryDisk(Rc<RefCell<Tree>>);

#[derive(Default)]
struct Tree {
    directories: BTreeSet<String>,
    files: BTreeMap<String, MemoryFile>,
    /// Bytes read, of all files together.
    read_bytes: Rc<Cell<u64>>,
}

/// An open file. A clone is the same one.
#[derive(Clone)]
pub struct MemoryFile {
    content: Rc<RefCell<Content>>,
    source: Arc<dyn Any + Send + Sync>,
    read_bytes: Rc<Cell<u64>>,
}

/// Blocks that were written, by number; others read as zeros.
#[derive(Default)]
struct Content {
    blocks: Vec<Option<Box<[u8]>>>,
    len: u64,
}

fn refused(kind: IoErrorKind, operation: &'static str, path: &str) -> IoError {
    IoError { kind, operation, path: path.to_owned(), message: format!("{kind:?}") }
}

/// A position as an index; memory ends long before it does not fit.
fn index(position: u64) -> usize {
    usize::try_from(position).unwrap_or(usize::MAX)
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

impl MemoryDisk {
    /// How much was read of it so far, in bytes.
    pub fn read_bytes(&self) -> u64 {
        self.0.borrow().read_bytes.get()
    }
}

impl Disk for MemoryDisk {
    type File = MemoryFile;

    async fn open(&self, path: &str, mode: OpenMode) -> IoResult<MemoryFile> {
        let tree = &mut *self.0.borrow_mut();
        let (files, read_bytes) = (&mut tree.files, &tree.read_bytes);
        match (files.get(path), mode) {
            (Some(_), OpenMode::Create) => Err(refused(IoErrorKind::AlreadyExists, "open", path)),
            (Some(file), _) => Ok(file.clone()),
            (None, OpenMode::Create) => {
                let file = MemoryFile {
                    content: Rc::default(),
                    source: Arc::new(()),
                    read_bytes: Rc::clone(read_bytes),
                };
                files.insert(path.to_owned(), file.clone());
                Ok(file)
            }
            (None, _) => Err(refused(IoErrorKind::NotFound, "open", path)),
        }
    }

    async fn list(&self, directory: &str) -> IoResult<Vec<DirectoryEntry>> {
        let tree = self.0.borrow();
        if !directory.is_empty() && !tree.directories.contains(directory) {
            return Err(refused(IoErrorKind::NotFound, "list", directory));
        }
        let directories = tree.directories.iter().map(|path| (path, true));
        let files = tree.files.keys().map(|path| (path, false));
        let inside = directories.chain(files).filter(|(path, _)| parent(path) == directory);
        let entry = |(path, is_directory): (&String, bool)| DirectoryEntry {
            name: path.rsplit('/').next().unwrap_or(path).to_owned(),
            is_directory,
        };
        let mut entries: Vec<DirectoryEntry> = inside.map(entry).collect();
        entries.sort();
        Ok(entries)
    }

    async fn create_dir(&self, directory: &str) -> IoResult<()> {
        self.0.borrow_mut().directories.insert(directory.to_owned());
        Ok(())
    }

    async fn rename(&self, from: &str, to: &str) -> IoResult<()> {
        let mut tree = self.0.borrow_mut();
        let renamed = |path: &str| match path.strip_prefix(from) {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
            _ => path.to_owned(),
        };
        tree.directories = tree.directories.iter().map(|path| renamed(path)).collect();
        let files = std::mem::take(&mut tree.files);
        // What is renamed comes last: it replaces what had the name.
        let (moved, stays): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(path, _)| renamed(path) != *path);
        tree.files = stays.into_iter().collect();
        tree.files.extend(moved.into_iter().map(|(path, file)| (renamed(&path), file)));
        Ok(())
    }

    async fn remove_file(&self, path: &str) -> IoResult<()> {
        let removed = self.0.borrow_mut().files.remove(path);
        removed.map(drop).ok_or_else(|| refused(IoErrorKind::NotFound, "remove", path))
    }

    async fn remove_dir(&self, directory: &str) -> IoResult<()> {
        self.0.borrow_mut().directories.remove(directory);
        Ok(())
    }

    async fn sync_dir(&self, _directory: &str) -> IoResult<()> {
        Ok(())
    }

    fn root_syncs_failed(&self) -> u64 {
        0
    }

    fn reads_past_cache(&self) -> bool {
        true
    }

    async fn space(&self) -> IoResult<Space> {
        Ok(Space { free: 1 << 40, total: 1 << 40 })
    }

    async fn beside<T: Send + 'static>(
        &self,
        _haste: Haste,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> IoResult<T> {
        Ok(work())
    }
}

impl MemoryFile {
    /// What it holds, up to its end.
    fn read(&self, position: u64, len: usize) -> Bytes {
        let content = self.content.borrow();
        let end = (position + len as u64).min(content.len);
        let mut bytes = BytesMut::with_capacity(len);
        let mut at = position;
        while at < end {
            let skip = index(at) % BLOCK_BYTES;
            let take = (BLOCK_BYTES - skip).min(index(end - at));
            match content.blocks.get(index(at) / BLOCK_BYTES) {
                Some(Some(block)) => bytes.extend_from_slice(&block[skip..skip + take]),
                _ => bytes.resize(bytes.len() + take, 0),
            }
            at += take as u64;
        }
        self.read_bytes.set(self.read_bytes.get() + bytes.len() as u64);
        bytes.freeze()
    }
}

impl File for MemoryFile {
    async fn write_at(
        &self,
        blocks: AlignedBlocks,
        position: u64,
        _durability: Durability,
    ) -> IoResult<()> {
        let mut content = self.content.borrow_mut();
        let bytes = blocks.to_vec();
        let first = index(position) / BLOCK_BYTES;
        let end = first + bytes.len() / BLOCK_BYTES;
        if content.blocks.len() < end {
            content.blocks.resize_with(end, || None);
        }
        for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
            content.blocks[first + number] = Some(block.into());
        }
        content.len = content.len.max(position + bytes.len() as u64);
        Ok(())
    }

    async fn read_at(&self, position: u64, len: usize) -> IoResult<Bytes> {
        Ok(self.read(position, len))
    }

    fn begin_read(
        &self,
        position: u64,
        len: usize,
        mut buffer: AlignedBuffer,
    ) -> impl Future<Output = IoResult<AlignedBuffer>> + 'static {
        buffer.append(&self.read(position, len));
        ready(Ok(buffer))
    }

    async fn allocate(&self, position: u64, len: u64) -> IoResult<()> {
        let mut content = self.content.borrow_mut();
        content.len = content.len.max(position + len);
        Ok(())
    }

    async fn set_len(&self, len: u64) -> IoResult<()> {
        let mut content = self.content.borrow_mut();
        content.len = len;
        content.blocks.truncate(index(len).div_ceil(BLOCK_BYTES));
        if let Some(Some(last)) = content.blocks.get_mut(index(len) / BLOCK_BYTES) {
            last[index(len) % BLOCK_BYTES..].fill(0);
        }
        Ok(())
    }

    async fn sync(&self) -> IoResult<()> {
        Ok(())
    }

    async fn len(&self) -> IoResult<u64> {
        Ok(self.content.borrow().len)
    }

    async fn next_data(&self, position: u64) -> IoResult<Option<u64>> {
        Ok(Some(block_start(position)))
    }

    fn source(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::clone(&self.source)
    }
}
