//! Calls that block, on a thread beside the shard's: what the ring cannot do.

use std::cell::OnceCell;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use futures_channel::oneshot;

use super::system;

type Work = Box<dyn FnOnce() + Send>;

/// One shard's thread for calls that block; started with the first of them.
#[derive(Debug, Default)]
pub(super) struct Blocking {
    thread: OnceCell<mpsc::Sender<Work>>,
    /// It gives way to every other thread.
    only_when_idle: bool,
}

impl Blocking {
    /// One for what may take as long as it likes.
    pub(super) fn when_idle() -> Self {
        Self { thread: OnceCell::new(), only_when_idle: true }
    }

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
        let only_when_idle = self.only_when_idle;
        let name = if only_when_idle { "idle" } else { "blocking" };
        let thread = std::thread::Builder::new().name(name.to_owned());
        thread.spawn(move || {
            // It begins on the shard's core, which has other things to do.
            system::run_anywhere();
            if only_when_idle {
                system::run_when_idle();
            }
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
    fn what_nobody_waits_for_runs_where_nothing_else_does() {
        let policy = || {
            let scheduling = std::fs::read_to_string("/proc/thread-self/sched")?;
            let line = scheduling.lines().find(|line| line.starts_with("policy")).unwrap_or("5");
            Ok(line.ends_with('5'))
        };
        assert!(block_on(Blocking::when_idle().run(policy)).unwrap());
    }

    #[test]
    fn a_call_that_panics_is_an_error() {
        let blocking = Blocking::default();
        let failed: io::Result<()> = block_on(blocking.run(|| panic!("on purpose")));
        assert!(failed.is_err());
        block_on(blocking.run(|| Ok(()))).unwrap(); // Those after it go on.
    }
}
