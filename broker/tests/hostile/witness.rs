//! A client that goes on with its work, and tells whether it noticed anything.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::wire;

/// Writes and reads in a thread of its own.
pub struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Seen>,
}

/// What it saw.
#[derive(Debug)]
pub struct Seen {
    pub records: usize,
    pub slowest: Duration,
}

impl Witness {
    /// Begins to write to a topic of its own; returns once that works.
    pub fn start(address: SocketAddr) -> Self {
        let topic = format!("witness-{}", std::process::id());
        let mut link = wire::connect(address).expect("a connection for the witness");
        let _exists_already = wire::create_topic(&mut link, &topic, 1, &[]).expect("an answer");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut seen = Seen { records: 0, slowest: Duration::ZERO };
            while !stopped.load(Ordering::Acquire) {
                let begin = Instant::now();
                let value = format!("record {}", seen.records);
                let batch = wire::batch(&[value.as_bytes()]);
                let answer = wire::produce(&mut link, &topic, 0, batch).expect("an answer");
                assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
                let offset = answer.base_offset;
                let data = wire::fetch(&mut link, &topic, 0, offset).expect("an answer");
                assert!(data.error_code.is_none(), "{:?}", data.error_code);
                assert!(data.records.is_some_and(|records| !records.is_empty()));
                seen.slowest = seen.slowest.max(begin.elapsed());
                seen.records += 1;
                thread::sleep(Duration::from_millis(5));
            }
            seen
        });
        Self { stop, thread }
    }

    /// Ends, and tells; panics where a write or a read failed.
    pub fn stop(self) -> Seen {
        self.stop.store(true, Ordering::Release);
        let seen = self.thread.join().expect("the witness noticed");
        assert!(seen.records > 0, "the witness saw nothing");
        seen
    }
}
