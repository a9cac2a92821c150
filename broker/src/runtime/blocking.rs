//! Calls that block, on a thread beside the shard's: what the ring cannot do.

use std::cell::OnceCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use futures_channel::oneshot;

type Work = Box<dyn FnOnce() + Send>;

/// One shard's thread for calls that block; started with the first of them.
#[derive(Debug, Default)]
pub(super) struct Blocking {
    thread: OnceCell<mpsc::Sender<Work>>,
}

impl Blocking {
    /// Runs it on the other thread, after what was asked for before.
    ///
    /// # Errors
    /// Its own, and those of the thread: it cannot start, or the call has panicked.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let (sender, receiver) = oneshot::channel();
        let work = move || {
            // Where nobody waits any more, nobody wants to know.
            let _unheard = sender.send(work());
        };
        let thread = self.thread()?;
        let gone = || io::Error::other("the thread for blocking calls has ended");
        thread.send(Box::new(work)).map_err(|_| gone())?;
        receiver.await.map_err(|_| gone())?
    }

    fn thread(&self) -> io::Result<&mpsc::Sender<Work>> {
        if let Some(thread) = self.thread.get() {
            return Ok(thread);
        }
        let (sender, receiver) = mpsc::channel::<Work>();
        let thread = std::thread::Builder::new().name("blocking".to_owned());
        thread.spawn(move || {
            for work in receiver {
                // Its end of the channel is dropped in any case: who waits learns of it.
                let _panicked = catch_unwind(AssertUnwindSafe(work));
            }
        })?;
        Ok(self.thread.get_or_init(|| sender))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::runtime::tests::block_on;

    #[test]
    fn calls_run_in_order_on_one_other_thread() {
        let blocking = Blocking::default();
        let here = std::thread::current().id();
        let id = || Ok(std::thread::current().id());
        let first = block_on(blocking.run(id)).unwrap();
        assert_ne!(first, here);
        assert_eq!(block_on(blocking.run(id)).unwrap(), first);
        let failed: io::Result<()> = block_on(blocking.run(|| Err(io::ErrorKind::NotFound.into())));
        assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_call_that_panics_is_an_error() {
        let blocking = Blocking::default();
        let failed: io::Result<()> = block_on(blocking.run(|| panic!("on purpose")));
        assert!(failed.is_err());
        block_on(blocking.run(|| Ok(()))).unwrap(); // Those after it go on.
    }
}
