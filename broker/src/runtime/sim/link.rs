//! One connection of the simulated network: two sides, and a pipe in each direction. Only state;
//! `fabric` moves it, and knows the time.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::task::Waker;

use bytes::{Buf, Bytes};

use super::executor::ProcessId;

/// What travels.
#[derive(Debug)]
pub(super) enum Segment {
    Data(Bytes),
    /// The sender sends no more.
    Finish,
    /// The connection is no more: what has arrived and was not read is lost, too.
    Reset,
}

/// Whether someone still holds this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    Open,
    /// Closed by its holder.
    Closed,
    /// Its process was killed.
    Gone,
}

/// One end of a connection.
pub(super) struct Side {
    pub(super) process: ProcessId,
    pub(super) address: SocketAddr,
    pub(super) presence: Presence,
    /// This side knows that the connection was reset.
    pub(super) reset: bool,
    /// A send is under way.
    pub(super) sending: bool,
    /// A send was dropped halfway: what follows would be garbage to the peer.
    pub(super) torn: bool,
    pub(super) readers: Vec<Waker>,
    pub(super) writers: Vec<Waker>,
}

impl Side {
    pub(super) fn new(process: ProcessId, address: SocketAddr) -> Self {
        Self {
            process,
            address,
            presence: Presence::Open,
            reset: false,
            sending: false,
            torn: false,
            readers: Vec::new(),
            writers: Vec::new(),
        }
    }

    pub(super) fn wake_all(&mut self) {
        wake(&mut self.readers);
        wake(&mut self.writers);
    }
}

/// Wakes who waits; they register again.
pub(super) fn wake(wakers: &mut Vec<Waker>) {
    for waker in wakers.drain(..) {
        waker.wake();
    }
}

/// Registers a waker once.
pub(super) fn register(wakers: &mut Vec<Waker>, waker: &Waker) {
    if !wakers.iter().any(|known| known.will_wake(waker)) {
        wakers.push(waker.clone());
    }
}

/// One direction of a connection.
pub(super) struct Pipe {
    /// On the way, with the time of arrival; in order.
    flight: VecDeque<(u64, Segment)>,
    flight_bytes: usize,
    arrived: VecDeque<Bytes>,
    arrived_bytes: usize,
    /// Bytes that may be on the way or unread.
    window_bytes: usize,
    last_arrival_ns: u64,
    /// `Finish` was sent.
    pub(super) finishing: bool,
    /// `Finish` has arrived.
    pub(super) finished: bool,
}

impl Pipe {
    pub(super) fn new(window_bytes: usize) -> Self {
        Self {
            flight: VecDeque::new(),
            flight_bytes: 0,
            arrived: VecDeque::new(),
            arrived_bytes: 0,
            window_bytes,
            last_arrival_ns: 0,
            finishing: false,
            finished: false,
        }
    }

    /// Bytes that may be sent now.
    pub(super) fn space(&self) -> usize {
        self.window_bytes.saturating_sub(self.flight_bytes + self.arrived_bytes)
    }

    /// Bytes that may be received now.
    pub(super) fn unread(&self) -> usize {
        self.arrived_bytes
    }

    /// Sends; gives the time of arrival, never before what was sent earlier.
    pub(super) fn push(&mut self, arrives_ns: u64, segment: Segment) -> u64 {
        let arrives_ns = arrives_ns.max(self.last_arrival_ns);
        self.last_arrival_ns = arrives_ns;
        if let Segment::Data(bytes) = &segment {
            self.flight_bytes += bytes.len();
        }
        self.flight.push_back((arrives_ns, segment));
        arrives_ns
    }

    /// What has reached the other side by now.
    pub(super) fn pop(&mut self, now_ns: u64) -> Option<Segment> {
        if self.flight.front()?.0 > now_ns {
            return None;
        }
        let (_, segment) = self.flight.pop_front()?;
        if let Segment::Data(bytes) = &segment {
            self.flight_bytes -= bytes.len();
        }
        Some(segment)
    }

    /// Loses all that is on the way but the first so many segments.
    pub(super) fn cut(&mut self, keep: usize) {
        while self.flight.len() > keep {
            if let Some((_, Segment::Data(bytes))) = self.flight.pop_back() {
                self.flight_bytes -= bytes.len();
            }
        }
    }

    pub(super) fn flight_len(&self) -> usize {
        self.flight.len()
    }

    pub(super) fn arrive(&mut self, bytes: Bytes) {
        self.arrived_bytes += bytes.len();
        self.arrived.push_back(bytes);
    }

    pub(super) fn discard_arrived(&mut self) {
        self.arrived.clear();
        self.arrived_bytes = 0;
    }

    /// Takes up to `len` bytes of what has arrived, appending them to `into`.
    pub(super) fn take(&mut self, mut len: usize, mut into: impl FnMut(&[u8])) {
        len = len.min(self.arrived_bytes);
        self.arrived_bytes -= len;
        while let Some(front) = self.arrived.front_mut() {
            let taken = front.len().min(len);
            into(&front[..taken]);
            front.advance(taken);
            len -= taken;
            if !front.is_empty() {
                return;
            }
            self.arrived.pop_front();
        }
    }
}

/// A connection. Side 0 connected, side 1 accepted; pipe `i` carries what side `i` sends.
pub(super) struct Link {
    pub(super) sides: [Side; 2],
    pub(super) pipes: [Pipe; 2],
}

impl Link {
    /// Nobody holds either side any more.
    pub(super) fn is_abandoned(&self) -> bool {
        self.sides.iter().all(|side| side.presence != Presence::Open)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_keeps_its_order_and_its_window() {
        let mut pipe = Pipe::new(10);
        assert_eq!(pipe.push(5, Segment::Data(Bytes::from_static(b"abcdef"))), 5);
        assert_eq!(pipe.push(3, Segment::Data(Bytes::from_static(b"gh"))), 5);
        assert_eq!(pipe.space(), 2);
        assert!(pipe.pop(4).is_none());
        while let Some(Segment::Data(bytes)) = pipe.pop(5) {
            pipe.arrive(bytes);
        }
        assert_eq!((pipe.space(), pipe.unread()), (2, 8));
        let mut read = Vec::new();
        pipe.take(7, |bytes| read.extend_from_slice(bytes));
        assert_eq!(read, b"abcdefg");
        assert_eq!((pipe.space(), pipe.unread()), (9, 1));
        pipe.take(7, |bytes| read.extend_from_slice(bytes));
        assert_eq!(read, b"abcdefgh");
        assert_eq!((pipe.space(), pipe.unread()), (10, 0));
    }

    #[test]
    fn a_cut_loses_the_end_of_what_is_on_the_way() {
        let mut pipe = Pipe::new(10);
        pipe.push(1, Segment::Data(Bytes::from_static(b"abc")));
        pipe.push(2, Segment::Data(Bytes::from_static(b"def")));
        pipe.push(3, Segment::Finish);
        pipe.cut(1);
        assert_eq!((pipe.flight_len(), pipe.space()), (1, 7));
        assert!(matches!(pipe.pop(9), Some(Segment::Data(bytes)) if &bytes[..] == b"abc"));
        assert!(pipe.pop(9).is_none());
        assert_eq!(pipe.flight_len(), 0);
    }
}
