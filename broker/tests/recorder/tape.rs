//! What the rings of all shards were asked and what they answered, in one order.
//!
//! A submission is noted before the kernel sees it, a completion after the kernel was done. So what
//! stands completed before something else stands submitted was done before that began.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use vltava::runtime::{Operation, Recorder};

/// How long a start may take, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// One thing that happened at a ring.
#[derive(Clone, Debug)]
pub enum Event {
    /// Goes to the kernel. The number is unique within the shard, until the broker starts again.
    Submitted(usize, u64, Operation),
    /// Is done, with this result.
    Completed(usize, u64, i32),
}

/// A recorder that keeps everything.
#[derive(Debug, Default)]
pub struct Tape {
    recorded: Mutex<Recorded>,
    accepts: Condvar,
}

#[derive(Debug, Default)]
struct Recorded {
    events: Vec<Event>,
    /// Shards that wait for connections.
    accepting: BTreeSet<usize>,
}

impl Tape {
    /// A broker is about to start.
    pub fn expect_start(&self) {
        self.recorded.lock().unwrap().accepting.clear();
    }

    /// Returns once so many shards wait for connections; each of those has all its logs open.
    pub fn wait_until_accepting(&self, shards: usize) {
        let recorded = self.recorded.lock().unwrap();
        let waited = self
            .accepts
            .wait_timeout_while(recorded, PATIENCE, |recorded| recorded.accepting.len() < shards);
        assert!(!waited.unwrap().1.timed_out(), "the broker did not come to serve");
    }

    /// All events so far.
    pub fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.recorded.lock().unwrap().events)
    }
}

impl Recorder for Tape {
    fn submitted(&self, shard: usize, id: u64, operation: &Operation) {
        let mut recorded = self.recorded.lock().unwrap();
        if *operation == Operation::Accept && recorded.accepting.insert(shard) {
            self.accepts.notify_all();
        }
        recorded.events.push(Event::Submitted(shard, id, operation.clone()));
    }

    fn completed(&self, shard: usize, id: u64, result: i32) {
        let mut recorded = self.recorded.lock().unwrap();
        recorded.events.push(Event::Completed(shard, id, result));
    }
}
