//! The disk of a simulated node: storage's faulty disk, with time.
//!
//! An operation takes virtual time before and after it takes effect, so that a crash strikes on
//! either side, and tears a write that is under way. Operations belong to the host's kernel: once
//! begun, they go on when their caller stops waiting, and when its process is killed; they end with
//! the power.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use futures_channel::oneshot;
use vltava_storage::io::fault_disk::{FaultDisk, FaultFile};
use vltava_storage::io::{
    AlignedBlocks, AlignedBuffer, DirectoryEntry, Disk, Durability, File, Haste, IoError,
    IoErrorKind, IoResult, OpenMode, Space,
};

use super::executor::{Executor, ProcessId};
use super::options::DiskOptions;
use super::random::Random;

enum Kind {
    Read,
    Write,
    Flush,
}

/// How long the operations of one host's disk take, and how many are under way. A clone is the same
/// one.
#[derive(Clone)]
pub(super) struct Pace {
    executor: Executor,
    options: Rc<RefCell<DiskOptions>>,
    random: Rc<RefCell<Random>>,
    /// How long the operation that begins now waits before it takes effect.
    wait_ns: Rc<Cell<u64>>,
    under_way: Rc<Cell<u64>>,
}

impl Pace {
    pub(super) fn new(executor: Executor, options: DiskOptions, random: Random) -> Self {
        Self {
            executor,
            options: Rc::new(RefCell::new(options)),
            random: Rc::new(RefCell::new(random)),
            wait_ns: Rc::default(),
            under_way: Rc::default(),
        }
    }

    /// Makes the operations of this disk wait when they begin, for what `perform` drew.
    pub(super) fn govern(&self, disk: &FaultDisk) {
        let (executor, wait_ns) = (self.executor.clone(), Rc::clone(&self.wait_ns));
        disk.set_latency(Some(Rc::new(move |_operation| {
            let until_ns = executor.now_ns() + wait_ns.take();
            Box::pin(executor.sleep_until(until_ns))
        })));
    }

    /// For the chances of another disk.
    pub(super) fn seed(&self) -> u64 {
        self.random.borrow_mut().bits()
    }

    pub(super) fn set_options(&self, options: DiskOptions) {
        self.options.replace(options);
    }

    /// The power has failed: nothing is under way any more.
    pub(super) fn forget(&self) {
        self.under_way.set(0);
    }

    pub(super) fn is_idle(&self) -> bool {
        self.under_way.get() == 0
    }

    /// Waits as long as a read takes.
    pub(super) async fn read(&self) {
        let (before_ns, after_ns) = self.draw(Kind::Read);
        let until_ns = self.executor.now_ns() + before_ns + after_ns;
        self.executor.sleep_until(until_ns).await;
    }

    /// Time before and after an operation takes effect.
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

    /// Does it, in time, as part of `kernel`, from now on; goes on without the caller.
    fn perform<T: 'static>(
        &self,
        kernel: ProcessId,
        kind: Kind,
        what: &'static str,
        operation: impl Future<Output = IoResult<T>> + 'static,
    ) -> impl Future<Output = IoResult<T>> + 'static {
        let (before_ns, after_ns) = self.draw(kind);
        let pace = self.clone();
        let (done, result) = oneshot::channel();
        self.under_way.set(self.under_way.get() + 1);
        self.executor.spawn(kernel, async move {
            // Taken up by the disk at the first poll, which follows at once.
            pace.wait_ns.set(before_ns);
            let result = operation.await;
            pace.under_way.set(pace.under_way.get() - 1);
            pace.executor.event(what, &[u64::from(result.is_ok())]);
            let until_ns = pace.executor.now_ns() + after_ns;
            pace.executor.sleep_until(until_ns).await;
            // Nobody may be waiting any more.
            let _ = done.send(result);
        });
        async move {
            result.await.unwrap_or_else(|oneshot::Canceled| {
                // Without power there is no answer; nor will there be anyone to see this one.
                Err(IoError {
                    kind: IoErrorKind::Failed,
                    operation: what,
                    path: String::new(),
                    message: "the power has failed".to_owned(),
                })
            })
        }
    }
}

/// A disk or a file as one life of a node reaches it: in time, and through its host's kernel.
#[derive(Clone)]
struct Paced<T> {
    inner: T,
    kernel: ProcessId,
    pace: Pace,
}

impl<T: Clone> Paced<T> {
    fn perform<A: 'static, F: Future<Output = IoResult<A>> + 'static>(
        &self,
        kind: Kind,
        what: &'static str,
        operation: impl FnOnce(T) -> F,
    ) -> impl Future<Output = IoResult<A>> + 'static {
        let operation = operation(self.inner.clone());
        self.pace.perform(self.kernel, kind, what, operation)
    }
}

/// A node's disk as one life of the node sees it.
#[derive(Clone)]
pub struct SimDisk(Paced<FaultDisk>);

impl SimDisk {
    pub(super) fn new(inner: FaultDisk, kernel: ProcessId, pace: Pace) -> Self {
        Self(Paced { inner, kernel, pace })
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    async fn open(&self, path: &str, mode: OpenMode) -> IoResult<SimFile> {
        let path = path.to_owned();
        let open = |disk: FaultDisk| async move { disk.open(&path, mode).await };
        let inner = self.0.perform(Kind::Read, "open", open).await?;
        let Paced { kernel, pace, .. } = self.0.clone();
        Ok(SimFile(Paced { inner, kernel, pace }))
    }

    async fn list(&self, directory: &str) -> IoResult<Vec<DirectoryEntry>> {
        let path = directory.to_owned();
        let list = |disk: FaultDisk| async move { disk.list(&path).await };
        self.0.perform(Kind::Read, "list", list).await
    }

    async fn create_dir(&self, directory: &str) -> IoResult<()> {
        let path = directory.to_owned();
        let create = |disk: FaultDisk| async move { disk.create_dir(&path).await };
        self.0.perform(Kind::Read, "create_dir", create).await
    }

    async fn rename(&self, from: &str, to: &str) -> IoResult<()> {
        let (from, to) = (from.to_owned(), to.to_owned());
        let rename = |disk: FaultDisk| async move { disk.rename(&from, &to).await };
        self.0.perform(Kind::Read, "rename", rename).await
    }

    async fn remove_file(&self, path: &str) -> IoResult<()> {
        let path = path.to_owned();
        let remove = |disk: FaultDisk| async move { disk.remove_file(&path).await };
        self.0.perform(Kind::Read, "remove_file", remove).await
    }

    async fn remove_dir(&self, directory: &str) -> IoResult<()> {
        let path = directory.to_owned();
        let remove = |disk: FaultDisk| async move { disk.remove_dir(&path).await };
        self.0.perform(Kind::Read, "remove_dir", remove).await
    }

    async fn sync_dir(&self, directory: &str) -> IoResult<()> {
        let path = directory.to_owned();
        let sync = |disk: FaultDisk| async move { disk.sync_dir(&path).await };
        self.0.perform(Kind::Flush, "sync_dir", sync).await
    }

    fn root_syncs_failed(&self) -> u64 {
        self.0.inner.root_syncs_failed()
    }

    fn reads_past_cache(&self) -> bool {
        self.0.inner.reads_past_cache()
    }

    async fn space(&self) -> IoResult<Space> {
        let ask = |disk: FaultDisk| async move { disk.space().await };
        self.0.perform(Kind::Read, "space", ask).await
    }

    async fn beside<T: Send + 'static>(
        &self,
        _haste: Haste,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> IoResult<T> {
        // It takes no time there.
        Ok(work())
    }
}

/// An open file of a [`SimDisk`].
#[derive(Clone)]
pub struct SimFile(Paced<FaultFile>);

impl File for SimFile {
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
        let write =
            |file: FaultFile| async move { file.write_at(blocks, position, durability).await };
        self.0.perform(kind, "write", write).await
    }

    async fn read_at(&self, position: u64, len: usize) -> IoResult<Bytes> {
        let read = move |file: FaultFile| async move { file.read_at(position, len).await };
        self.0.perform(Kind::Read, "read", read).await
    }

    fn begin_read(
        &self,
        position: u64,
        len: usize,
        buffer: AlignedBuffer,
    ) -> impl Future<Output = IoResult<AlignedBuffer>> + 'static {
        let read =
            move |file: FaultFile| async move { file.begin_read(position, len, buffer).await };
        self.0.perform(Kind::Read, "read", read)
    }

    async fn allocate(&self, position: u64, len: u64) -> IoResult<()> {
        let allocate = move |file: FaultFile| async move { file.allocate(position, len).await };
        self.0.perform(Kind::Write, "allocate", allocate).await
    }

    async fn set_len(&self, len: u64) -> IoResult<()> {
        let set = move |file: FaultFile| async move { file.set_len(len).await };
        self.0.perform(Kind::Write, "set_len", set).await
    }

    async fn sync(&self) -> IoResult<()> {
        let sync = |file: FaultFile| async move { file.sync().await };
        self.0.perform(Kind::Flush, "sync", sync).await
    }

    async fn len(&self) -> IoResult<u64> {
        let ask = |file: FaultFile| async move { file.len().await };
        self.0.perform(Kind::Read, "len", ask).await
    }

    async fn next_data(&self, position: u64) -> IoResult<Option<u64>> {
        let ask = move |file: FaultFile| async move { file.next_data(position).await };
        self.0.perform(Kind::Read, "next_data", ask).await
    }

    fn source(&self) -> Arc<dyn Any + Send + Sync> {
        self.0.inner.source()
    }
}
