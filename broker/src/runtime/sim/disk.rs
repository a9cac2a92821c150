//! The disk of a simulated node: storage's faulty disk, with time.
//!
//! An operation takes virtual time before and after it happens, so that a crash strikes on either
//! side. Once begun it goes on when its caller stops waiting, as the kernel's operations do; it
//! ends with its process.

use std::any::Any;
use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;
use vltava_storage::io::{
    AlignedBlocks, DirectoryEntry, Disk, Durability, File, IoError, IoErrorKind, IoResult,
    OpenMode, Space,
};

use super::executor::{Executor, ProcessId};
use super::options::DiskOptions;
use super::random::Random;
use super::sources::Sources;

enum Kind {
    Read,
    Write,
    Flush,
}

/// What all files of one process's disk share.
struct Shared {
    executor: Executor,
    process: ProcessId,
    options: Rc<RefCell<DiskOptions>>,
    random: Rc<RefCell<Random>>,
    sources: Rc<Sources>,
}

impl Shared {
    /// Does it, in time; goes on without the caller.
    async fn perform<T: 'static>(
        &self,
        kind: Kind,
        what: &'static str,
        operation: impl Future<Output = IoResult<T>> + 'static,
    ) -> IoResult<T> {
        let (before_ns, after_ns) = self.draw(kind);
        let executor = self.executor.clone();
        let (done, result) = oneshot::channel();
        self.executor.spawn(self.process, async move {
            executor.sleep_until(executor.now_ns() + before_ns).await;
            let result = operation.await;
            executor.event(what, &[u64::from(result.is_ok())]);
            executor.sleep_until(executor.now_ns() + after_ns).await;
            // Nobody may be waiting any more.
            let _ = done.send(result);
        });
        match result.await {
            Ok(result) => result,
            // The process is gone, and its last tasks are being dropped.
            Err(oneshot::Canceled) => Err(IoError {
                kind: IoErrorKind::Failed,
                operation: what,
                path: String::new(),
                message: "the process has ended".to_owned(),
            }),
        }
    }

    /// Time before and after an operation happens.
    fn draw(&self, kind: Kind) -> (u64, u64) {
        let options = self.options.borrow();
        let mut random = self.random.borrow_mut();
        let range = match kind {
            Kind::Read => &options.read_ns,
            Kind::Write => &options.write_ns,
            Kind::Flush => &options.flush_ns,
        };
        let mut total_ns = random.mostly_small(range.clone());
        if random.chance(options.stall_per_million) {
            total_ns += random.between(0..=options.stall_ns_max);
        }
        let before_ns = random.between(0..=total_ns);
        (before_ns, total_ns - before_ns)
    }
}

/// A node's disk as one life of the node sees it.
pub struct SimDisk<D> {
    inner: D,
    shared: Rc<Shared>,
}

impl<D: Clone> Clone for SimDisk<D> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<D: Disk> SimDisk<D> {
    pub(super) fn new(
        inner: D,
        executor: Executor,
        process: ProcessId,
        options: Rc<RefCell<DiskOptions>>,
        random: Rc<RefCell<Random>>,
    ) -> Self {
        Self {
            inner,
            shared: Rc::new(Shared {
                executor,
                process,
                options,
                random,
                sources: Rc::default(),
            }),
        }
    }

    /// Files of this disk that connections may send from.
    pub(super) fn sources(&self) -> Rc<Sources> {
        Rc::clone(&self.shared.sources)
    }
}

impl<D: Disk> Disk for SimDisk<D> {
    type File = SimFile<D::File>;

    async fn open(&self, path: &str, mode: OpenMode) -> IoResult<Self::File> {
        let (inner, path) = (self.inner.clone(), path.to_owned());
        let opening = async move { inner.open(&path, mode).await };
        let file = self.shared.perform(Kind::Read, "open", opening).await?;
        Ok(SimFile {
            inner: file,
            shared: Rc::clone(&self.shared),
        })
    }

    async fn list(&self, directory: &str) -> IoResult<Vec<DirectoryEntry>> {
        let (inner, path) = (self.inner.clone(), directory.to_owned());
        let listing = async move { inner.list(&path).await };
        self.shared.perform(Kind::Read, "list", listing).await
    }

    async fn create_dir(&self, directory: &str) -> IoResult<()> {
        let (inner, path) = (self.inner.clone(), directory.to_owned());
        let creating = async move { inner.create_dir(&path).await };
        self.shared
            .perform(Kind::Read, "create_dir", creating)
            .await
    }

    async fn rename(&self, from: &str, to: &str) -> IoResult<()> {
        let (inner, from, to) = (self.inner.clone(), from.to_owned(), to.to_owned());
        let renaming = async move { inner.rename(&from, &to).await };
        self.shared.perform(Kind::Read, "rename", renaming).await
    }

    async fn remove_file(&self, path: &str) -> IoResult<()> {
        let (inner, path) = (self.inner.clone(), path.to_owned());
        let removing = async move { inner.remove_file(&path).await };
        self.shared
            .perform(Kind::Read, "remove_file", removing)
            .await
    }

    async fn remove_dir(&self, directory: &str) -> IoResult<()> {
        let (inner, path) = (self.inner.clone(), directory.to_owned());
        let removing = async move { inner.remove_dir(&path).await };
        self.shared
            .perform(Kind::Read, "remove_dir", removing)
            .await
    }

    async fn sync_dir(&self, directory: &str) -> IoResult<()> {
        let (inner, path) = (self.inner.clone(), directory.to_owned());
        let syncing = async move { inner.sync_dir(&path).await };
        self.shared.perform(Kind::Flush, "sync_dir", syncing).await
    }

    async fn space(&self) -> IoResult<Space> {
        let inner = self.inner.clone();
        let asking = async move { inner.space().await };
        self.shared.perform(Kind::Read, "space", asking).await
    }
}

/// An open file of a [`SimDisk`].
pub struct SimFile<F> {
    inner: F,
    shared: Rc<Shared>,
}

impl<F: Clone> Clone for SimFile<F> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            shared: Rc::clone(&self.shared),
        }
    }
}

impl<F: File> File for SimFile<F> {
    async fn write_at(
        &self,
        blocks: AlignedBlocks,
        position: u64,
        durability: Durability,
    ) -> IoResult<()> {
        let kind = match durability {
            Durability::Written => Kind::Write,
            Durability::Flushed => Kind::Flush,
        };
        let inner = self.inner.clone();
        let writing = async move { inner.write_at(blocks, position, durability).await };
        self.shared.perform(kind, "write", writing).await
    }

    async fn read_at(&self, position: u64, len: usize) -> IoResult<Bytes> {
        let inner = self.inner.clone();
        let reading = async move { inner.read_at(position, len).await };
        self.shared.perform(Kind::Read, "read", reading).await
    }

    async fn allocate(&self, position: u64, len: u64) -> IoResult<()> {
        let inner = self.inner.clone();
        let allocating = async move { inner.allocate(position, len).await };
        self.shared
            .perform(Kind::Write, "allocate", allocating)
            .await
    }

    async fn set_len(&self, len: u64) -> IoResult<()> {
        let inner = self.inner.clone();
        let setting = async move { inner.set_len(len).await };
        self.shared.perform(Kind::Write, "set_len", setting).await
    }

    async fn sync(&self) -> IoResult<()> {
        let inner = self.inner.clone();
        let syncing = async move { inner.sync().await };
        self.shared.perform(Kind::Flush, "sync", syncing).await
    }

    async fn len(&self) -> IoResult<u64> {
        let inner = self.inner.clone();
        let asking = async move { inner.len().await };
        self.shared.perform(Kind::Read, "len", asking).await
    }

    fn source(&self) -> Arc<dyn Any + Send + Sync> {
        let file = self.clone();
        self.shared.sources.add(Rc::new(move |position, len| {
            let file = file.clone();
            Box::pin(async move { file.read_at(position, len).await })
        }))
    }
}
