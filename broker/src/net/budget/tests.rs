use std::cell::Cell;
use std::collections::BTreeSet;

use futures_util::FutureExt;
use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

/// A budget, and who was closed.
struct Fixture {
    budget: Budget,
    closed: Rc<RefCell<Vec<u64>>>,
    now: Cell<u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Came {
    Granted,
    Refused,
    /// Until something is released, or so many seconds have passed since the beginning.
    Waits(Option<u64>),
}

impl Fixture {
    fn new(limit: usize) -> Self {
        Self { budget: Budget::new(limit), closed: Rc::default(), now: Cell::new(0) }
    }

    fn now(&self) -> Monotonic {
        Monotonic(self.now.get() * SECOND)
    }

    /// Asks as `admit` does, until it would wait.
    fn ask(&self, id: u64, bytes: usize, rest: usize) -> Came {
        self.ask_signalled(id, bytes, rest).0
    }

    fn ask_signalled(
        &self,
        id: u64,
        bytes: usize,
        rest: usize,
    ) -> (Came, Option<oneshot::Receiver<()>>) {
        let closed = Rc::clone(&self.closed);
        let close: Rc<dyn Fn()> = Rc::new(move || closed.borrow_mut().push(id));
        let connection = ConnectionId(id);
        self.budget.end_reading(connection, self.now());
        let ask = Ask { connection, bytes, rest, close: &close };
        loop {
            match self.budget.attempt(&ask, self.now()) {
                Attempt::Granted => {
                    self.budget.begin_reading(connection, self.now());
                    return (Came::Granted, None);
                }
                Attempt::Refused => return (Came::Refused, None),
                Attempt::Closed(close) => close(),
                Attempt::Wait(released, stalled) => {
                    let until = stalled.map(|at| at.0 / SECOND);
                    return (Came::Waits(until), Some(released));
                }
            }
        }
    }

    fn closed(&self) -> Vec<u64> {
        self.closed.take()
    }
}

const MIB: usize = 1 << 20;

#[test]
fn overload_makes_clients_wait_and_closes_none() {
    let fixture = Fixture::new(8 * MIB);
    let mut charges = Vec::new();
    for id in 0..4 {
        assert_eq!(fixture.ask(id, 2 * MIB - 2048, 0), Came::Granted);
        charges.push(fixture.budget.complete(ConnectionId(id), 2 * MIB - 2048, 0));
    }
    // All is held by requests that wait for the disk, for as long as that takes.
    for (id, second) in [(5, 0), (6, 1), (5, 60), (6, 60)] {
        fixture.now.set(second);
        assert_eq!(fixture.ask(id, 100_000, 900_000), Came::Waits(None));
    }
    let (_, released) = fixture.ask_signalled(5, 100_000, 900_000);
    charges.pop();
    assert!(released.unwrap().now_or_never().is_some(), "told of the room");
    assert_eq!(fixture.ask(5, 100_000, 900_000), Came::Granted);
    assert_eq!(fixture.closed(), [0; 0]);
}

#[test]
fn requests_that_fit_never_wait_for_each_other() {
    let fixture = Fixture::new(10_000_000);
    // Each has half of what it needs; the next could not complete beside them.
    for id in 0..9 {
        assert_eq!(fixture.ask(id, 1_000_000, 1_000_000), Came::Granted);
    }
    assert_eq!(fixture.ask(9, 1_000_000, 1_000_000), Came::Waits(Some(3)));
    assert_eq!(fixture.ask(10, 2_000, 0), Came::Granted, "small ones pass");
    fixture.budget.complete(ConnectionId(10), 2_000, 0);
    assert_eq!(fixture.ask(0, 1_000_000, 0), Came::Granted, "one completes, and then the others");
    let charge = fixture.budget.complete(ConnectionId(0), 2_000_000, 0);
    assert_eq!(fixture.ask(1, 1_000_000, 0), Came::Waits(Some(3)));
    drop(charge);
    assert_eq!(fixture.ask(1, 1_000_000, 0), Came::Granted);
    assert_eq!(fixture.closed(), [0; 0]);
}

#[test]
fn who_stalls_is_closed_where_another_needs_the_room() {
    let fixture = Fixture::new(10_000_000);
    for id in 0..9 {
        assert_eq!(fixture.ask(id, 1_000_000, 1_000_000), Came::Granted);
    }
    fixture.now.set(2);
    // A byte is no progress, and neither is the time in which it is not read.
    assert_eq!(fixture.ask(4, 1, 999_999), Came::Granted);
    for id in (0..9).filter(|id| *id != 4) {
        fixture.budget.end_reading(ConnectionId(id), fixture.now());
    }
    fixture.now.set(3);
    assert_eq!(fixture.ask(9, 1_000_000, 1_000_000), Came::Granted);
    assert_eq!(fixture.closed(), [4]);
}

#[test]
fn a_request_beyond_half_goes_on_while_nobody_needs_its_room() {
    let fixture = Fixture::new(100);
    assert_eq!(fixture.ask(1, 300, 200), Came::Granted, "alone: of any size");
    assert_eq!(fixture.ask(2, 10, 400), Came::Waits(Some(3)), "another such does not end it");
    assert_eq!(fixture.ask(1, 100, 100), Came::Granted);
    assert_eq!(fixture.ask(3, 10, 0), Came::Granted);
    assert_eq!(fixture.closed(), [1], "a small one does");
    assert_eq!(fixture.budget.used(), 10);
}

#[test]
fn what_waits_for_answers_does_not_stop_a_large_request() {
    let fixture = Fixture::new(100_000);
    assert_eq!(fixture.ask(1, 40, 0), Came::Granted);
    let _parked = fixture.budget.complete(ConnectionId(1), 40, 0);
    assert_eq!(fixture.ask(2, 150_000, 50_000), Came::Granted);
    assert_eq!(fixture.ask(2, 50_000, 0), Came::Granted);
}

#[test]
fn who_is_gone_holds_nothing() {
    let fixture = Fixture::new(100_000);
    assert_eq!(fixture.ask(1, 100_000, 0), Came::Granted);
    let charge = fixture.budget.complete(ConnectionId(1), 60_000, 0);
    let (came, released) = fixture.ask_signalled(2, 50_000, 0);
    assert!(matches!(came, Came::Waits(_)));
    fixture.budget.forget(ConnectionId(2));
    assert!(released.unwrap().now_or_never().is_some_and(|told| told.is_err()));
    fixture.budget.forget(ConnectionId(1));
    assert_eq!(fixture.budget.used(), 60_000 + REQUEST_BYTES, "until it is answered");
    drop(charge);
    assert_eq!(fixture.budget.used(), 0);
}

/// One connection as the property drives it: requests of these sizes, in chunks.
#[derive(Clone, Copy, Debug)]
struct Peer {
    request: usize,
    sent: usize,
    waits: bool,
}

proptest! {
    /// Clients that send what they announce, in whatever chunks and turns: none is closed, what is
    /// held stays within the budget, and all complete.
    #[test]
    fn honest_clients_all_complete(
        requests in prop::collection::vec(1_000usize..4_900_000, 2..24),
        // Smaller ones take more turns than are counted below, and nothing else.
        chunks in prop::collection::vec(20_000usize..900_000, 1..40),
        turns in prop::collection::vec(any::<prop::sample::Index>(), 400),
    ) {
        let fixture = Fixture::new(10_000_000);
        let peer = |request: &usize| Peer { request: *request, sent: 0, waits: false };
        let mut peers: Vec<_> = requests.iter().map(peer).collect();
        let mut charges = VecDeque::new();
        let mut done = BTreeSet::new();
        let mut turns = turns.iter().cycle();
        let mut chunks = chunks.iter().cycle();
        let mut steps = 0;
        while done.len() < peers.len() {
            steps += 1;
            prop_assert!(steps < 20_000, "they wait for each other: {peers:?}");
            let movable: Vec<_> = (0..peers.len())
                .filter(|id| !done.contains(id) && !peers[*id].waits)
                .collect();
            if movable.is_empty() || charges.len() > 3 {
                // Answers leave, and all that waited look again.
                prop_assert!(!charges.is_empty(), "nobody can go on: {peers:?}");
                charges.pop_front();
                peers.iter_mut().for_each(|peer| peer.waits = false);
                continue;
            }
            let id = movable[turns.next().unwrap().index(movable.len())];
            let peer = &mut peers[id];
            let chunk = (*chunks.next().unwrap()).min(peer.request - peer.sent);
            let rest = peer.request - peer.sent - chunk;
            match fixture.ask(id as u64, chunk, rest) {
                Came::Granted => {
                    peer.sent += chunk;
                    if rest == 0 {
                        let connection = ConnectionId(id as u64);
                        charges.push_back(fixture.budget.complete(connection, peer.request, 0));
                        done.insert(id);
                    }
                }
                Came::Waits(_) => peer.waits = true,
                Came::Refused => prop_assert!(false, "{id} was refused"),
            }
            prop_assert!(fixture.closed().is_empty());
            prop_assert!(fixture.budget.used() <= 10_000_000 + charges.len() * REQUEST_BYTES);
        }
        charges.clear();
        prop_assert_eq!(fixture.budget.used(), 0);
    }

    /// Whatever clients do, a small request gets its room once what is complete is answered and
    /// time has passed, and the sums hold.
    #[test]
    fn nobody_is_in_the_way_for_long(
        steps in prop::collection::vec(
            (0u64..12, 1usize..400_000, 0usize..3_000_000, 0u8..10),
            1..200,
        ),
    ) {
        let fixture = Fixture::new(1_000_000);
        let mut charges = Vec::new();
        for (id, bytes, rest, kind) in steps {
            match kind {
                0 => fixture.budget.forget(ConnectionId(id)),
                1 => fixture.now.set(fixture.now.get() + 1),
                2 => charges.clear(),
                3 => charges.push(fixture.budget.complete(ConnectionId(id), bytes, rest)),
                _ => {
                    if fixture.ask(id, bytes, rest) == Came::Refused {
                        fixture.budget.forget(ConnectionId(id));
                    }
                }
            }
            let state = fixture.budget.0.borrow();
            let held: usize = state.incomplete.values().map(|entry| entry.held).sum();
            prop_assert_eq!(state.used_by_incomplete, held);
            let charged: usize = charges.iter().map(|charge| charge.bytes).sum();
            prop_assert_eq!(state.used, held + charged);
        }
        charges.clear();
        // Whoever asks again first is given room, or it waits only for those that are read.
        for second in 0..=4 {
            fixture.now.set(fixture.now.get() + u64::from(second > 0));
            if fixture.ask(99, 1_000, 0) == Came::Granted {
                return Ok(());
            }
        }
        prop_assert!(false, "still no room");
    }
}
