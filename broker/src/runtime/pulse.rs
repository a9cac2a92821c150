//! Wakes the executors now and then, from a thread beside them.
//!
//! glommio 0.9.0 can park over tasks that are ready: where its preemption timer ends between its
//! last look at the I/O and its first look at the task queues (a thread that was not scheduled, a
//! process that was stopped). The ring's driver may be one of those tasks, and then nothing that
//! comes through the ring is heard, its timers included. So the pulse takes the executor's own way
//! for wakes from other threads, which a parked executor does hear; what one of them loses, the
//! next one brings.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::io;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::thread;
use std::time::Duration;

/// The pulse of a process. Its thread ends with it.
#[derive(Debug)]
pub(super) struct Pulse {
    state: Arc<Mutex<State>>,
    _alive: mpsc::Sender<()>,
}

#[derive(Debug, Default)]
struct State {
    beats: u64,
    /// A task of each shard, by the shard's number.
    waiting: BTreeMap<usize, Waker>,
}

impl Pulse {
    /// Starts the thread, which beats as often as that.
    ///
    /// # Errors
    /// The system has no thread to give.
    pub(super) fn start(interval: Duration) -> io::Result<Self> {
        let (alive, ended) = mpsc::channel::<()>();
        let state = Arc::<Mutex<State>>::default();
        let shared = Arc::clone(&state);
        thread::Builder::new().name("pulse".to_owned()).spawn(move || {
            while ended.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                let mut state = locked(&shared);
                state.beats += 1;
                // Under the lock: what `forget` has taken out is woken no more.
                state.waiting.values().for_each(Waker::wake_by_ref);
            }
        })?;
        Ok(Self { state, _alive: alive })
    }

    /// Completes at the next beat. One task of each shard may wait; it is woken at each beat, also
    /// where it has not run since the one before.
    pub(super) async fn beat(&self, shard: usize) {
        let before = locked(&self.state).beats;
        poll_fn(|context| {
            let mut state = locked(&self.state);
            if state.beats != before {
                return Poll::Ready(());
            }
            state.waiting.insert(shard, context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The shard ends: its task is woken no more.
    pub(super) fn forget(&self, shard: usize) {
        let waker = locked(&self.state).waiting.remove(&shard);
        drop(waker);
    }
}

fn locked(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use glommio::LocalExecutorBuilder;

    use super::*;

    const INTERVAL: Duration = Duration::from_millis(5);

    #[test]
    fn an_executor_that_hears_nothing_else_is_woken() {
        let pulse = Arc::new(Pulse::start(INTERVAL).unwrap());
        let shards = (0..3).map(|shard| {
            let pulse = Arc::clone(&pulse);
            let executor = LocalExecutorBuilder::default().spawn(move || async move {
                for _ in 0..10 {
                    pulse.beat(shard).await;
                }
                pulse.forget(shard);
            });
            executor.unwrap()
        });
        for shard in shards.collect::<Vec<_>>() {
            shard.join().unwrap();
        }
        assert!(locked(&pulse.state).waiting.is_empty());
    }

    #[test]
    fn the_thread_ends_with_the_pulse() {
        let pulse = Pulse::start(INTERVAL).unwrap();
        let state = Arc::downgrade(&pulse.state);
        drop(pulse);
        while state.upgrade().is_some() {
            thread::yield_now();
        }
    }
}
