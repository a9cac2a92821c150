//! Waiting for sockets, to the microsecond.

use std::io;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

/// How many events are taken at a time.
const EVENTS: usize = 256;

/// Whose a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Token {
    /// The client, of those that the worker has.
    pub client: u32,
    /// Its connection.
    pub link: u32,
}

/// Something may be done with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Whose.
    pub token: Token,
    /// It has bytes, or has ended.
    pub readable: bool,
    /// It takes bytes.
    pub writable: bool,
}

/// An epoll instance of one thread.
pub struct Poll {
    epoll: OwnedFd,
    events: Vec<Event>,
}

impl Poll {
    /// Also asks the kernel to end this thread's waits on time, not up to 50 us later.
    ///
    /// # Errors
    /// What the system says.
    pub fn new() -> io::Result<Self> {
        rustix::thread::set_current_timer_slack(NonZeroU64::new(1))?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, events: Vec::with_capacity(EVENTS) })
    }

    /// Waits for bytes to read, from now on.
    ///
    /// # Errors
    /// What the system says.
    pub fn add(&self, source: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, source, data(token), EventFlags::IN)?)
    }

    /// Whether to wait for room to write, too.
    ///
    /// # Errors
    /// What the system says.
    pub fn want_room(&self, source: impl AsFd, token: Token, wanted: bool) -> io::Result<()> {
        let flags = if wanted { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
        Ok(epoll::modify(&self.epoll, source, data(token), flags)?)
    }

    /// Waits at most so many nanoseconds, and shows what came.
    ///
    /// # Errors
    /// What the system says.
    pub fn wait(&mut self, timeout_ns: u64) -> io::Result<impl Iterator<Item = Readiness> + '_> {
        let seconds = i64::try_from(timeout_ns / 1_000_000_000).unwrap_or(i64::MAX);
        let nanoseconds = i64::try_from(timeout_ns % 1_000_000_000).unwrap_or_default();
        let timeout = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
        self.events.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.events);
        match epoll::wait(&self.epoll, buffer, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.events.iter().map(|event| {
            let (flags, data) = (event.flags, event.data.u64());
            Readiness {
                token: Token {
                    client: u32::try_from(data >> 32).unwrap_or_default(),
                    link: u32::try_from(data & u64::from(u32::MAX)).unwrap_or_default(),
                },
                // An error or an end shows when it is read.
                readable: flags != EventFlags::OUT,
                writable: flags.contains(EventFlags::OUT),
            }
        }))
    }
}

fn data(token: Token) -> EventData {
    EventData::new_u64(u64::from(token.client) << 32 | u64::from(token.link))
}
