//! The trait `File` over an image, with the faults of its disk.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

use super::disk::{FaultDisk, State, Verdict, crash_if, error};
use super::image::{Image, SECTOR_BYTES};
use super::tree::NodeId;
use crate::io::{
    AlignedBlocks, AlignedBuffer, BLOCK_BYTES, Durability, File, IoError, IoErrorKind, IoResult,
    block_start,
};

/// An open file of a [`FaultDisk`].
#[derive(Clone)]
pub struct FaultFile {
    disk: FaultDisk,
    node: NodeId,
    path: Rc<str>,
    handle: Arc<()>,
}

impl FaultFile {
    pub(super) fn new(disk: FaultDisk, node: NodeId, path: &str, handle: Arc<()>) -> Self {
        Self { disk, node, path: Rc::from(path), handle }
    }

    fn error(&self, kind: IoErrorKind, operation: &'static str) -> IoError {
        error(kind, operation, &self.path)
    }

    /// What the file holds, up to its end.
    fn read_now(&self, position: u64, len: usize) -> IoResult<Bytes> {
        let state = self.disk.read_now("read", &self.path)?;
        let image = state.tree.image(self.node);
        let image = image.ok_or_else(|| self.error(IoErrorKind::Failed, "read"))?;
        let content = image.current();
        let start = to_usize(position).min(content.len());
        let end = start.saturating_add(len).min(content.len());
        Ok(Bytes::copy_from_slice(&content[start..end]))
    }

    /// A change of this file that takes effect at once, or fails without one.
    async fn change_at_once(
        &self,
        name: &'static str,
        change: impl Fn(&mut Image),
        len_after: Option<u64>,
    ) -> IoResult<()> {
        let (mut state, verdict) = self.disk.change(name, &self.path).await?;
        if let Verdict::Fail(kind) = verdict {
            return Err(self.error(kind, name));
        }
        let free = state.free();
        let len = state.tree.image(self.node).map_or(0, |i| i.current().len());
        if len_after.is_some_and(|after| after.saturating_sub(len as u64) > free) {
            return Err(self.error(IoErrorKind::Full, name));
        }
        match state.tree.image_mut(self.node) {
            Some(image) => change(image),
            None => return Err(self.error(IoErrorKind::Failed, name)),
        }
        crash_if(&mut state, &verdict, name, &self.path)
    }
}

/// Somebody waits for the end of a write.
struct Waiting<'a> {
    file: &'a FaultFile,
    number: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(image) = self.file.disk.lock().tree.image_mut(self.file.node) {
            image.abandon_write(self.number);
        }
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

impl File for FaultFile {
    async fn write_at(
        &self,
        blocks: AlignedBlocks,
        position: u64,
        durability: Durability,
    ) -> IoResult<()> {
        assert_eq!(position % BLOCK_BYTES as u64, 0, "write at {position}");
        let bytes = blocks.to_vec();
        let len = bytes.len();
        let (number, verdict) = {
            let mut state = self.disk.lock();
            if state.is_down || state.boot != self.disk.boot {
                return Err(self.error(IoErrorKind::Failed, "write"));
            }
            let verdict = state.begin();
            let mut position = to_usize(position);
            let is_astray = matches!(verdict, Verdict::Misdirect(_));
            match verdict {
                Verdict::Lose => return Ok(()),
                Verdict::Misdirect(by) => {
                    let by = to_usize(by.unsigned_abs()) * BLOCK_BYTES;
                    position = match verdict {
                        Verdict::Misdirect(0..) => position + by,
                        _ => position.saturating_sub(by),
                    };
                }
                _ => {}
            }
            let image = state.tree.image_mut(self.node);
            let image = image.ok_or_else(|| self.error(IoErrorKind::Failed, "write"))?;
            let path = &self.path;
            let is_alone = is_astray || !image.is_written_to(position, len);
            assert!(is_alone, "{path}: two writes at once to {len} bytes at {position}");
            (image.begin_write(position, bytes), verdict)
        };
        let _waiting = Waiting { file: self, number };
        self.disk.wait("write", &self.path, len).await;
        let mut state = self.disk.lock();
        if state.is_down || state.boot != self.disk.boot {
            return Err(self.error(IoErrorKind::Failed, "write"));
        }
        crash_if(&mut state, &verdict, "write", &self.path)?;
        let kind = match verdict {
            Verdict::Fail(kind) => Some(kind),
            _ => (position + len as u64)
                .checked_sub(state.tree.image(self.node).map_or(0, |i| i.current().len() as u64))
                .filter(|growth| *growth > state.free())
                .map(|_| IoErrorKind::Full),
        };
        let State { tree, chance, .. } = &mut *state;
        let image = tree.image_mut(self.node);
        let image = image.ok_or_else(|| self.error(IoErrorKind::Failed, "write"))?;
        let Some(kind) = kind else {
            image.finish_write(number, durability == Durability::Flushed);
            return Ok(());
        };
        let sectors = (len / SECTOR_BYTES) as u64;
        image.fail_write(number, to_usize(chance.below(sectors + 1)) * SECTOR_BYTES, chance);
        Err(self.error(kind, "write"))
    }

    async fn read_at(&self, position: u64, len: usize) -> IoResult<Bytes> {
        self.disk.wait("read", &self.path, len).await;
        self.read_now(position, len)
    }

    fn begin_read(
        &self,
        position: u64,
        len: usize,
        mut buffer: AlignedBuffer,
    ) -> impl Future<Output = IoResult<AlignedBuffer>> + 'static {
        assert_eq!(position % BLOCK_BYTES as u64, 0, "read at {position}");
        assert!(len.next_multiple_of(BLOCK_BYTES) <= buffer.remaining(), "no room for {len}");
        let waiting = self.disk.wait("read", &self.path, len);
        // What the file holds now, whenever it arrives.
        let bytes = self.read_now(position, len);
        let file = self.clone();
        async move {
            waiting.await;
            if file.disk.is_down() {
                return Err(file.error(IoErrorKind::Failed, "read"));
            }
            buffer.append(&bytes?);
            Ok(buffer)
        }
    }

    async fn allocate(&self, position: u64, len: u64) -> IoResult<()> {
        let end = position + len;
        self.change_at_once("allocate", |image| image.grow(to_usize(end)), Some(end)).await
    }

    async fn set_len(&self, len: u64) -> IoResult<()> {
        self.change_at_once("set_len", |image| image.set_len(to_usize(len)), None).await
    }

    async fn sync(&self) -> IoResult<()> {
        let (mut state, verdict) = self.disk.change("sync", &self.path).await?;
        let State { tree, chance, .. } = &mut *state;
        let image = tree.image_mut(self.node);
        let image = image.ok_or_else(|| self.error(IoErrorKind::Failed, "sync"))?;
        match verdict {
            Verdict::Fail(kind) => {
                image.fail_sync(chance);
                return Err(self.error(kind, "sync"));
            }
            Verdict::Crash => {}
            _ => image.sync(),
        }
        crash_if(&mut state, &verdict, "sync", &self.path)
    }

    async fn len(&self) -> IoResult<u64> {
        let state = self.disk.read("len", &self.path, 0).await?;
        let image = state.tree.image(self.node);
        let image = image.ok_or_else(|| self.error(IoErrorKind::Failed, "len"))?;
        Ok(image.current().len() as u64)
    }

    async fn next_data(&self, position: u64) -> IoResult<Option<u64>> {
        let state = self.disk.read("next_data", &self.path, 0).await?;
        let image = state.tree.image(self.node);
        let image = image.ok_or_else(|| self.error(IoErrorKind::Failed, "next_data"))?;
        let behind = image.current().get(to_usize(position)..).unwrap_or_default();
        let next = behind.iter().position(|byte| *byte != 0);
        Ok(next.map(|skip| block_start(position + skip as u64)))
    }

    fn source(&self) -> Arc<dyn Any + Send + Sync> {
        Arc::new(FaultSource {
            state: Arc::clone(&self.disk.state),
            boot: self.disk.boot,
            node: self.node,
            _handle: Arc::clone(&self.handle),
        })
    }
}

/// A file as the source of an answer: what the simulated network reads from.
pub struct FaultSource {
    state: Arc<Mutex<State>>,
    boot: u64,
    node: NodeId,
    _handle: Arc<()>,
}

impl FaultSource {
    /// The bytes of a range; `None` where the file is shorter, or the machine was restarted.
    pub fn read(&self, position: u64, len: usize) -> Option<Bytes> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.is_down || state.boot != self.boot {
            return None;
        }
        let content = state.tree.image(self.node)?.current();
        let start = to_usize(position);
        content.get(start..start.checked_add(len)?).map(Bytes::copy_from_slice)
    }
}

impl fmt::Debug for FaultSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FaultSource({})", self.node)
    }
}
