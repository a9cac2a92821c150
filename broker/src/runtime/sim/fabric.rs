//! What lies between the nodes: routes, connections under way, and their faults.
//!
//! Each connection keeps its order, as TCP does; connections overtake each other. A blocked route
//! holds what is sent until it opens again. A killed process is announced to its peers (its kernel
//! lives on and resets) or not (the power failed): then they learn of it when they send.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use super::executor::{Executor, ProcessId};
use super::link::{Link, Pipe, Presence, Segment, Side, register, wake};
use super::options::NetworkOptions;
use super::random::{Purpose, Random};

/// Connections waiting to be accepted, at most; more are refused.
const BACKLOG_MAX: usize = 1024;
/// The first port that a connecting side, or a listener on port 0, gets.
const EPHEMERAL_PORT: u16 = 32_768;
/// How long a closed route needs to carry again what was held, at most.
const RETRANSMIT_NS_MAX: u64 = 200_000_000;

/// Names one end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    pub(super) link: u64,
    pub(super) side: usize,
}

struct Listening {
    address: SocketAddr,
    process: ProcessId,
    backlog: VecDeque<u64>,
    waiting: Vec<Waker>,
}

#[derive(Default)]
struct State {
    links: BTreeMap<u64, Link>,
    links_made: u64,
    listeners: BTreeMap<u64, Listening>,
    listeners_made: u64,
    ports_made: u16,
    /// From, to.
    blocked: BTreeSet<(IpAddr, IpAddr)>,
    /// Ends whose sent segments wait for a route to open.
    held: BTreeSet<End>,
    /// Hosts without power: they do not even refuse.
    dark: BTreeSet<IpAddr>,
}

/// The network between all processes of a run. A clone is the same one.
#[derive(Clone)]
pub(super) struct Fabric {
    pub(super) executor: Executor,
    pub(super) options: Rc<RefCell<NetworkOptions>>,
    random: Rc<RefCell<Random>>,
    state: Rc<RefCell<State>>,
}

impl Fabric {
    pub(super) fn new(executor: Executor, options: NetworkOptions) -> Self {
        let random = Random::new(executor.seed(), Purpose::Network, 0);
        Self {
            executor,
            options: Rc::new(RefCell::new(options)),
            random: Rc::new(RefCell::new(random)),
            state: Rc::default(),
        }
    }

    pub(super) fn chance(&self, per_million: u32) -> bool {
        self.random.borrow_mut().chance(per_million)
    }

    /// One way, once.
    pub(super) fn latency_ns(&self) -> u64 {
        let options = self.options.borrow();
        let mut random = self.random.borrow_mut();
        let mut latency_ns = random.mostly_small(options.latency_ns.clone());
        if random.chance(options.spike_per_million) {
            latency_ns += random.between(0..=options.spike_ns_max);
        }
        latency_ns
    }

    /// Closes the route from one host to another; the way back stays as it is.
    pub(super) fn block(&self, from: IpAddr, to: IpAddr) {
        self.state.borrow_mut().blocked.insert((from, to));
    }

    /// Opens all routes; what was held goes on its way again.
    pub(super) fn unblock(&self) {
        let held = {
            let mut state = self.state.borrow_mut();
            state.blocked.clear();
            std::mem::take(&mut state.held)
        };
        for end in held {
            let delay_ns = self.random.borrow_mut().between(0..=RETRANSMIT_NS_MAX);
            self.deliver_at(self.executor.now_ns() + delay_ns, end);
        }
    }

    /// Opens one route; what was held on it goes on its way again.
    pub(super) fn unblock_route(&self, from: IpAddr, to: IpAddr) {
        let opened: Vec<End> = {
            let mut state = self.state.borrow_mut();
            state.blocked.remove(&(from, to));
            let State { links, held, .. } = &mut *state;
            let is_on_route = |end: &End| {
                links.get(&end.link).is_none_or(|link| {
                    let (near, far) = (&link.sides[end.side], &link.sides[1 - end.side]);
                    (near.address.ip(), far.address.ip()) == (from, to)
                })
            };
            held.extract_if(.., |end| is_on_route(end)).collect()
        };
        for end in opened {
            let delay_ns = self.random.borrow_mut().between(0..=RETRANSMIT_NS_MAX);
            self.deliver_at(self.executor.now_ns() + delay_ns, end);
        }
    }

    pub(super) fn is_blocked(&self, from: IpAddr, to: IpAddr) -> bool {
        let state = self.state.borrow();
        state.blocked.contains(&(from, to)) || state.dark.contains(&to)
    }

    /// The host has power (again).
    pub(super) fn light(&self, host: IpAddr) {
        self.state.borrow_mut().dark.remove(&host);
    }

    /// The process is no more. Its peers hear of it at once, or not before they send.
    pub(super) fn process_gone(&self, process: ProcessId, host: IpAddr, announced: bool) {
        let mut ends = Vec::new();
        {
            let mut state = self.state.borrow_mut();
            if !announced {
                state.dark.insert(host);
            }
            state.listeners.retain(|_, listening| listening.process != process);
            for (&id, link) in &mut state.links {
                for (side, state) in link.sides.iter_mut().enumerate() {
                    if state.process == process && state.presence == Presence::Open {
                        state.presence = Presence::Gone;
                        ends.push(End { link: id, side });
                    }
                }
            }
        }
        for end in ends {
            self.lose_flight(end);
            if announced {
                self.transmit(end, Segment::Reset);
            }
            self.forget_abandoned(end.link);
        }
    }

    /// Some of what this end sent, and has not arrived yet, never does.
    fn lose_flight(&self, end: End) {
        let mut state = self.state.borrow_mut();
        let Some(link) = state.links.get_mut(&end.link) else {
            return;
        };
        let pipe = &mut link.pipes[end.side];
        let keep = self.random.borrow_mut().between(0..=pipe.flight_len() as u64);
        pipe.cut(usize::try_from(keep).unwrap_or(usize::MAX));
    }

    fn forget_abandoned(&self, link: u64) {
        let mut state = self.state.borrow_mut();
        if state.links.get(&link).is_some_and(Link::is_abandoned) {
            state.links.remove(&link);
        }
    }

    /// Puts a segment on its way.
    pub(super) fn transmit(&self, end: End, segment: Segment) {
        let earliest_ns = self.executor.now_ns() + self.latency_ns();
        let arrives_ns = {
            let mut state = self.state.borrow_mut();
            let Some(link) = state.links.get_mut(&end.link) else {
                return;
            };
            link.pipes[end.side].push(earliest_ns, segment)
        };
        self.deliver_at(arrives_ns, end);
    }

    fn deliver_at(&self, at_ns: u64, end: End) {
        let fabric = self.clone();
        self.executor.call_at(at_ns, move || fabric.deliver(end));
    }

    /// Takes in what has reached the far side of `from`.
    fn deliver(&self, from: End) {
        let now_ns = self.executor.now_ns();
        let mut refused = None;
        {
            let mut state = self.state.borrow_mut();
            let State { links, blocked, held, .. } = &mut *state;
            let Some(link) = links.get_mut(&from.link) else {
                return;
            };
            let to = 1 - from.side;
            let route = (link.sides[from.side].address.ip(), link.sides[to].address.ip());
            if blocked.contains(&route) {
                held.insert(from);
                return;
            }
            while let Some(segment) = link.pipes[from.side].pop(now_ns) {
                self.executor.event("deliver", &[from.link, from.side as u64]);
                if let Some(presence) = take_in(link, from.side, segment) {
                    refused = Some(presence);
                }
            }
        }
        if let Some(presence) = refused {
            self.refuse(End { link: from.link, side: 1 - from.side }, presence);
        }
    }

    /// Data came for a side that nobody reads: its sender learns that.
    fn refuse(&self, end: End, presence: Presence) {
        let wait_ns = match presence {
            Presence::Gone => {
                let most = self.options.borrow().gone_ns_max;
                self.random.borrow_mut().between(0..=most)
            }
            Presence::Open | Presence::Closed => 0,
        };
        let fabric = self.clone();
        self.executor.call_at(self.executor.now_ns() + wait_ns, move || {
            fabric.transmit(end, Segment::Reset);
        });
    }

    /// Listens. Several listeners of one process may share an address; another process's address is
    /// taken.
    pub(super) fn listen(
        &self,
        process: ProcessId,
        mut address: SocketAddr,
    ) -> io::Result<(u64, SocketAddr)> {
        let mut state = self.state.borrow_mut();
        if address.port() == 0 {
            address.set_port(state.free_port());
        }
        let taken = state
            .listeners
            .values()
            .any(|listening| listening.address == address && listening.process != process);
        if taken {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let id = state.listeners_made;
        state.listeners_made += 1;
        let listening =
            Listening { address, process, backlog: VecDeque::new(), waiting: Vec::new() };
        state.listeners.insert(id, listening);
        Ok((id, address))
    }

    /// Stops listening; who waits to be accepted is turned away.
    pub(super) fn stop_listening(&self, listener: u64) {
        let removed = self.state.borrow_mut().listeners.remove(&listener);
        for link in removed.into_iter().flat_map(|listening| listening.backlog) {
            self.reset(End { link, side: 1 });
            self.close(End { link, side: 1 });
        }
    }

    /// The next connection of a listener.
    pub(super) fn poll_accept(
        &self,
        listener: u64,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<(End, SocketAddr)>> {
        let mut state = self.state.borrow_mut();
        let State { listeners, links, .. } = &mut *state;
        let Some(listening) = listeners.get_mut(&listener) else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        let Some(&link) = listening.backlog.front() else {
            register(&mut listening.waiting, context.waker());
            return Poll::Pending;
        };
        let error_per_million = self.options.borrow().accept_error_per_million;
        if self.chance(error_per_million) {
            return Poll::Ready(Err(io::Error::other("too many open files")));
        }
        listening.backlog.pop_front();
        let Some(peer) = links.get(&link).map(|link| link.sides[0].address) else {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        };
        Poll::Ready(Ok((End { link, side: 1 }, peer)))
    }

    /// A new connection to whoever listens at `to`; gives its near end and near address.
    pub(super) fn establish(
        &self,
        process: ProcessId,
        host: IpAddr,
        to: SocketAddr,
    ) -> io::Result<(End, SocketAddr)> {
        let mut state = self.state.borrow_mut();
        let listeners: Vec<u64> = state
            .listeners
            .iter()
            .filter(|(_, listening)| {
                listening.address == to && listening.backlog.len() < BACKLOG_MAX
            })
            .map(|(&id, _)| id)
            .collect();
        if listeners.is_empty() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let mut random = self.random.borrow_mut();
        let chosen = *random.pick(&listeners);
        let near = SocketAddr::new(host, state.free_port());
        let window = |random: &mut Random| {
            let bytes = random.between(self.options.borrow().window_bytes.clone());
            Pipe::new(usize::try_from(bytes).unwrap_or(usize::MAX))
        };
        let pipes = [window(&mut random), window(&mut random)];
        let id = state.links_made;
        state.links_made += 1;
        let Some(listening) = state.listeners.get_mut(&chosen) else {
            return Err(io::ErrorKind::ConnectionRefused.into());
        };
        listening.backlog.push_back(id);
        wake(&mut listening.waiting);
        let sides = [Side::new(process, near), Side::new(listening.process, to)];
        state.links.insert(id, Link { sides, pipes });
        Ok((End { link: id, side: 0 }, near))
    }

    /// Sends what fits of `parts`, until all is sent.
    pub(super) fn poll_send(
        &self,
        end: End,
        parts: &mut VecDeque<Bytes>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            while parts.front().is_some_and(Bytes::is_empty) {
                parts.pop_front();
            }
            let Some(part) = parts.front_mut() else {
                return Poll::Ready(Ok(()));
            };
            let piece = {
                let mut state = self.state.borrow_mut();
                let Some(link) = state.links.get_mut(&end.link) else {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                };
                let side = &mut link.sides[end.side];
                let pipe = &link.pipes[end.side];
                if side.reset {
                    return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
                }
                if side.presence != Presence::Open || pipe.finishing {
                    return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                }
                let space = pipe.space();
                if space == 0 {
                    register(&mut side.writers, context.waker());
                    return Poll::Pending;
                }
                part.split_to(self.piece_bytes(part.len().min(space)))
            };
            self.executor.event("send", &[end.link, end.side as u64, piece.len() as u64]);
            self.executor.trace_bytes(&piece);
            self.transmit(end, Segment::Data(piece));
        }
    }

    /// How much of `len` bytes travels, or is received, together.
    fn piece_bytes(&self, len: usize) -> usize {
        let options = self.options.borrow();
        let mut random = self.random.borrow_mut();
        if random.chance(options.partial_per_million) {
            return usize::try_from(random.mostly_small(1..=len as u64)).unwrap_or(len);
        }
        len.min(usize::try_from(options.piece_bytes_max).unwrap_or(len)).max(1)
    }

    /// Receives up to `len` bytes; 0 where the peer sends no more, or this end is closed.
    pub(super) fn poll_receive(
        &self,
        end: End,
        len: usize,
        into: impl FnMut(&[u8]),
        context: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut state = self.state.borrow_mut();
        let Some(link) = state.links.get_mut(&end.link) else {
            return Poll::Ready(Ok(0));
        };
        let Link { sides, pipes } = link;
        let pipe = &mut pipes[1 - end.side];
        let side = &mut sides[end.side];
        if side.reset {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        if side.presence != Presence::Open {
            return Poll::Ready(Ok(0));
        }
        if pipe.unread() == 0 {
            if pipe.finished {
                return Poll::Ready(Ok(0));
            }
            register(&mut side.readers, context.waker());
            return Poll::Pending;
        }
        let taken = self.piece_bytes(len.min(pipe.unread()));
        pipe.take(taken, into);
        wake(&mut sides[1 - end.side].writers);
        Poll::Ready(Ok(taken))
    }

    /// Whether a receive would return at once.
    #[cfg(test)]
    pub(super) fn poll_readable(&self, end: End, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.borrow_mut();
        let Some(link) = state.links.get_mut(&end.link) else {
            return Poll::Ready(());
        };
        let side = &mut link.sides[end.side];
        let pipe = &link.pipes[1 - end.side];
        let ended = side.reset || side.presence != Presence::Open || pipe.finished;
        if ended || pipe.unread() > 0 {
            return Poll::Ready(());
        }
        register(&mut side.readers, context.waker());
        Poll::Pending
    }

    /// Marks the begin of a send.
    ///
    /// # Panics
    /// Where another is under way, or one was dropped halfway: bytes would mix.
    pub(super) fn begin_send(&self, end: End) {
        let mut state = self.state.borrow_mut();
        if let Some(link) = state.links.get_mut(&end.link) {
            let side = &mut link.sides[end.side];
            assert!(!side.sending, "two sends at once on one connection");
            assert!(!side.torn, "a send after one that was dropped halfway");
            side.sending = true;
        }
    }

    /// Marks the end of a send; `torn` where it was dropped with bytes on their way.
    pub(super) fn end_send(&self, end: End, torn: bool) {
        let mut state = self.state.borrow_mut();
        if let Some(link) = state.links.get_mut(&end.link) {
            let side = &mut link.sides[end.side];
            side.sending = false;
            side.torn |= torn;
        }
    }

    /// Sends no more, but still receives.
    pub(super) fn finish(&self, end: End) {
        {
            let mut state = self.state.borrow_mut();
            let Some(link) = state.links.get_mut(&end.link) else {
                return;
            };
            let finishing = &mut link.pipes[end.side].finishing;
            if std::mem::replace(finishing, true) {
                return;
            }
        }
        self.transmit(end, Segment::Finish);
    }

    /// Breaks the connection: this end knows at once, the other when it hears.
    pub(super) fn reset(&self, end: End) {
        self.lose_flight(end);
        {
            let mut state = self.state.borrow_mut();
            let Some(link) = state.links.get_mut(&end.link) else {
                return;
            };
            link.pipes[1 - end.side].discard_arrived();
            let side = &mut link.sides[end.side];
            side.reset = true;
            side.wake_all();
        }
        self.executor.event("reset", &[end.link, end.side as u64]);
        self.transmit(end, Segment::Reset);
    }

    /// Ends it in both directions. Unread data makes it a reset, as Linux does; and what still
    /// comes is answered with one.
    pub(super) fn close(&self, end: End) {
        let unread = {
            let mut state = self.state.borrow_mut();
            let Some(link) = state.links.get_mut(&end.link) else {
                return;
            };
            let side = &mut link.sides[end.side];
            if side.presence != Presence::Open {
                return;
            }
            side.presence = Presence::Closed;
            side.wake_all();
            !side.reset && link.pipes[1 - end.side].unread() > 0
        };
        self.executor.event("close", &[end.link, end.side as u64]);
        match unread {
            true => self.transmit(end, Segment::Reset),
            false => self.finish(end),
        }
        self.forget_abandoned(end.link);
    }
}

impl State {
    fn free_port(&mut self) -> u16 {
        let port = EPHEMERAL_PORT + self.ports_made;
        self.ports_made = (self.ports_made + 1) % EPHEMERAL_PORT;
        port
    }
}

/// A segment from side `from` has arrived. Gives the far side's presence where it is not there to
/// take data.
fn take_in(link: &mut Link, from: usize, segment: Segment) -> Option<Presence> {
    let Link { sides, pipes } = link;
    let to = 1 - from;
    match segment {
        Segment::Data(bytes) => {
            let side = &mut sides[to];
            if side.presence == Presence::Open && !side.reset {
                pipes[from].arrive(bytes);
                wake(&mut side.readers);
                return None;
            }
            // Space that nobody will read into: the sender goes on until it hears.
            let refused = side.presence;
            wake(&mut sides[from].writers);
            (refused != Presence::Open).then_some(refused)
        }
        Segment::Finish => {
            pipes[from].finished = true;
            wake(&mut sides[to].readers);
            None
        }
        Segment::Reset => {
            pipes[from].discard_arrived();
            sides[to].reset = true;
            sides[to].wake_all();
            None
        }
    }
}
