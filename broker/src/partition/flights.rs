//! What leaders have sent and their members' disks have not taken: a member keeps it in memory, so
//! there is a bound to it. Pure.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// Bytes of batches that one replica may have on their way to one member.
const MEMBER_BYTES_MAX: usize = 8 << 20;
/// Bytes that all replicas of a shard may have on their way to one node together. A member to which
/// nothing is on its way is always sent one message, so that no group waits for another.
const NODE_BYTES_MAX: usize = 16 << 20;

/// What is on its way to each node, from all replicas of a shard.
#[derive(Debug, Default)]
pub struct Flights {
    by_node: RefCell<BTreeMap<i32, Rc<Cell<usize>>>>,
}

impl Flights {
    /// A member of a group on this node, to which nothing is on its way.
    pub(super) fn to(&self, node: i32) -> Flight {
        let to_node = Rc::clone(self.by_node.borrow_mut().entry(node).or_default());
        Flight { sent: VecDeque::new(), bytes: 0, to_node }
    }
}

/// What one replica has sent one member, and what of that is not on the member's disk, as far as
/// this one knows.
#[derive(Debug)]
pub(super) struct Flight {
    /// Of each message: the index at which it ended, and its bytes.
    sent: VecDeque<(i64, usize)>,
    bytes: usize,
    to_node: Rc<Cell<usize>>,
}

impl Flight {
    /// The member has the log on its disk below `flushed`, and is sent next what stands at `next`.
    pub(super) fn look(&mut self, flushed: i64, next: i64) {
        let is_sent_again = self.sent.back().is_some_and(|(end, _)| *end > next);
        while self.sent.front().is_some_and(|(end, _)| *end <= flushed || is_sent_again) {
            let bytes = self.sent.pop_front().map_or(0, |(_, bytes)| bytes);
            self.count(self.bytes - bytes);
        }
    }

    /// Nothing of it counts any more: the member has to say first where it stands.
    pub(super) fn clear(&mut self) {
        self.sent = VecDeque::new();
        self.count(0);
    }

    /// A message was sent that ends at this index.
    pub(super) fn add(&mut self, end: i64, bytes: usize) {
        self.sent.push_back((end, bytes));
        self.count(self.bytes + bytes);
    }

    /// Whether nothing more may be sent for now.
    pub(super) fn is_full(&self) -> bool {
        let is_node_full = self.to_node.get() >= NODE_BYTES_MAX;
        !self.sent.is_empty() && (self.bytes >= MEMBER_BYTES_MAX || is_node_full)
    }

    fn count(&mut self, bytes: usize) {
        self.to_node.set(self.to_node.get() + bytes - self.bytes);
        self.bytes = bytes;
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MESSAGE: usize = 1 << 20;

    fn fill(flight: &mut Flight, from: i64) -> i64 {
        let mut end = from;
        while !flight.is_full() {
            end += 10;
            flight.add(end, MESSAGE);
        }
        end
    }

    #[test]
    fn what_is_on_disk_makes_room() {
        let flights = Flights::default();
        let mut flight = flights.to(2);
        let end = fill(&mut flight, 100);
        assert_eq!(end, 180, "eight messages");
        flight.look(109, end);
        assert!(flight.is_full(), "half a message is none");
        flight.look(110, end);
        assert!(!flight.is_full());
        flight.add(190, MESSAGE);
        assert!(flight.is_full());
        // It had less than was thought: all of it goes again.
        flight.look(110, 150);
        assert_eq!(flight.to_node.get(), 0);
    }

    #[test]
    fn a_node_has_a_bound_and_each_member_one_message() {
        let flights = Flights::default();
        let (mut one, mut two) = (flights.to(2), flights.to(2));
        fill(&mut one, 0);
        fill(&mut two, 0);
        assert_eq!(one.to_node.get(), NODE_BYTES_MAX);
        let mut three = flights.to(2);
        assert!(!three.is_full());
        three.add(1, MESSAGE);
        assert!(three.is_full(), "the node's share is taken");
        let mut other = flights.to(3);
        other.add(1, MESSAGE);
        assert!(!other.is_full(), "that of another node is not");
        drop(one);
        assert!(!three.is_full());
        two.clear();
        assert_eq!(three.to_node.get(), MESSAGE);
    }
}
