//! What the clients of a worker share: its poll, its counts, its buffers.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use vltava_client::error::ClientError;
use vltava_protocol::compression::Decompressor;

use crate::engine::buffers::Buffers;
use crate::engine::clock::Clock;
use crate::engine::leaders::Leaders;
use crate::engine::link::{Link, Received};
use crate::engine::map::Map;
use crate::engine::poll::{Poll, Token};
use crate::engine::stats::Stats;

/// One for each worker.
pub struct Context {
    /// The run's clock.
    pub clock: Clock,
    /// Its time, as of this turn or later.
    pub now_ns: u64,
    /// The run's partitions.
    pub map: Arc<Map>,
    /// Who leads them, as far as this worker knows.
    pub leaders: Leaders,
    /// How long its clients try again what failed and may pass, in nanoseconds.
    pub retry_ns: u64,
    /// Where its connections are waited for.
    pub poll: Poll,
    /// What it counts.
    pub stats: Stats,
    /// Its buffers.
    pub buffers: Buffers,
    /// For batches that it receives.
    pub decompressor: Decompressor,
    /// Answers that have come on the connection at hand.
    pub received: VecDeque<Received>,
}

impl Context {
    /// That of a worker that begins.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(clock: Clock, map: Arc<Map>, retry_ns: u64) -> io::Result<Self> {
        Ok(Self {
            clock,
            now_ns: clock.now_ns(),
            map,
            leaders: Leaders::default(),
            retry_ns,
            poll: Poll::new()?,
            stats: Stats::new(),
            buffers: Buffers::default(),
            decompressor: Decompressor::new(),
            received: VecDeque::new(),
        })
    }

    /// Looks at the clock.
    pub fn tick(&mut self) -> u64 {
        self.now_ns = self.clock.now_ns();
        self.now_ns
    }

    /// Waits for bytes on a connection from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, link: &Link, token: Token) -> Result<(), ClientError> {
        self.poll.add(link, token).map_err(in_poll)
    }

    /// Sends what the connection's socket takes, and waits for room for the rest.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn flush(&mut self, link: &mut Link, token: Token) -> Result<(), ClientError> {
        let before = link.sent_bytes;
        link.flush(&mut self.buffers)?;
        self.stats.on_network(self.now_ns, link.sent_bytes - before, 0);
        let wants_room = !link.is_flushed();
        if wants_room != link.wants_room {
            link.wants_room = wants_room;
            self.poll.want_room(&*link, token, wants_room).map_err(in_poll)?;
        }
        Ok(())
    }

    /// Reads what has come on the connection; [`Self::received`] has it then.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn receive(&mut self, link: &mut Link) -> Result<(), ClientError> {
        let before = link.received_bytes;
        let read = link.receive(&mut self.buffers, &mut self.received);
        self.stats.on_network(self.now_ns, 0, link.received_bytes - before);
        read
    }
}

fn in_poll(source: io::Error) -> ClientError {
    ClientError::Io { address: String::from("waiting for sockets"), source }
}
