//! The network between nodes, and faults on it: network namespaces, where there may be some, else
//! relays on the loopback.

use std::path::Path;

use crate::namespaces::Namespaces;
use crate::nodes::Place;
use crate::relays::Relays;
use crate::support::leave_out;

/// Goes with all that is in it.
pub enum Network {
    /// Whose packets are lost.
    Namespaces(Namespaces),
    /// Which keep what should be lost until it is lost no more.
    Relays(Relays),
}

impl Network {
    /// Between nodes of these numbers. Where there can be no namespaces, that is said.
    pub fn new(nodes: &[i32], what: &str) -> Self {
        match Namespaces::new(nodes) {
            Ok(namespaces) => Self::Namespaces(namespaces),
            Err(reason) => {
                let what = format!("packets that are lost ({what} is tried with relays)");
                leave_out(&what, format_args!("there are no network namespaces: {reason}"));
                Self::Relays(Relays::new(nodes))
            }
        }
    }

    /// Where a node lives that is to run here.
    pub fn place(&self, node: i32, directory: &Path) -> Place {
        match self {
            Self::Namespaces(namespaces) => namespaces.place(node, directory),
            Self::Relays(relays) => relays.place(node, directory),
        }
    }

    /// What one node sends to another is lost. What the other answers to connections it holds
    /// still comes; so does what it sends by itself.
    pub fn lose_one_way(&self, from: i32, to: i32) {
        match self {
            Self::Namespaces(namespaces) => namespaces.lose_one_way(from, to),
            Self::Relays(relays) => relays.lose_one_way(from, to),
        }
    }

    /// Nothing passes between two nodes.
    pub fn cut(&self, one: i32, other: i32) {
        self.lose_one_way(one, other);
        self.lose_one_way(other, one);
    }

    /// Nothing passes between a node and the others.
    pub fn cut_off(&self, node: i32) {
        self.others(node).for_each(|other| self.cut(node, other));
    }

    /// What a node sends to the others is lost: it hears them.
    pub fn mute(&self, node: i32) {
        self.others(node).for_each(|other| self.lose_one_way(node, other));
    }

    /// What the others send to a node is lost: they hear it.
    pub fn deafen(&self, node: i32) {
        self.others(node).for_each(|other| self.lose_one_way(other, node));
    }

    /// Nothing that clients send reaches a node.
    pub fn cut_off_clients(&self, node: i32) {
        match self {
            Self::Namespaces(namespaces) => namespaces.cut_off_clients(node),
            Self::Relays(relays) => relays.cut_off_clients(node),
        }
    }

    /// So many bytes a second at most pass to and from a node.
    pub fn slow_down(&self, node: i32, kilobytes: u32) {
        match self {
            Self::Namespaces(namespaces) => namespaces.slow_down(node, kilobytes),
            Self::Relays(relays) => relays.slow_down(node, kilobytes),
        }
    }

    /// Ends all faults.
    pub fn heal(&self) {
        match self {
            Self::Namespaces(namespaces) => namespaces.heal(),
            Self::Relays(relays) => relays.heal(),
        }
    }

    fn others(&self, node: i32) -> impl Iterator<Item = i32> {
        let nodes = match self {
            Self::Namespaces(namespaces) => namespaces.nodes(),
            Self::Relays(relays) => relays.nodes(),
        };
        nodes.filter(move |it| *it != node)
    }
}
