//! Files that a connection may send from: what `File::source` names.
//!
//! A source may cross threads, a file of the simulated disk may not; so the source is a number, and
//! the file stands here as long as the source lives.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use vltava_protocol::encode::ExternalBytes;
use vltava_storage::io::{IoError, IoErrorKind, IoResult};

type Read = Rc<dyn Fn(u64, usize) -> Pin<Box<dyn Future<Output = IoResult<Bytes>>>>>;

/// Names an entry of [`Sources`].
struct SourceNumber(u64);

/// The open files of one process that answers may refer to.
#[derive(Default)]
pub(super) struct Sources {
    files: RefCell<BTreeMap<u64, (Weak<SourceNumber>, Read)>>,
    made: Cell<u64>,
}

impl Sources {
    /// A source for a file that `read` reads: position and length to bytes.
    pub(super) fn add(&self, read: Read) -> Arc<dyn Any + Send + Sync> {
        let number = self.made.get();
        self.made.set(number + 1);
        let source = Arc::new(SourceNumber(number));
        let mut files = self.files.borrow_mut();
        files.retain(|_, (source, _)| source.strong_count() > 0);
        files.insert(number, (Arc::downgrade(&source), read));
        source
    }

    /// Forgets all files: their process has ended.
    pub(super) fn clear(&self) {
        let files = std::mem::take(&mut *self.files.borrow_mut());
        drop(files);
    }

    /// Reads part of a range. A source that is not of this process is an error.
    pub(super) async fn read(
        &self,
        range: &ExternalBytes,
        position: u64,
        len: usize,
    ) -> IoResult<Bytes> {
        let number = range.source.downcast_ref::<SourceNumber>();
        let read = number.and_then(|number| {
            let files = self.files.borrow();
            files.get(&number.0).map(|(_, read)| Rc::clone(read))
        });
        match read {
            Some(read) => read(position, len).await,
            None => Err(IoError {
                kind: IoErrorKind::NotFound,
                operation: "send",
                path: String::new(),
                message: "not a file of this process".to_owned(),
            }),
        }
    }
}
