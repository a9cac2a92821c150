//! What must hold, whatever fails: one file for each promise.
//!
//! Clients tell the checkers what they did and saw; a checker that sees a broken promise ends the
//! run there and then, so that the trace ends where the fault shows.

mod acks;
mod group;
mod kept_offsets;
mod log;
mod offsets;
mod replicas;
mod starts;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

pub use self::acks::{Acks, Promise, RecordId, Written};
pub use self::group::Groups;
pub use self::kept_offsets::KeptOffset;
pub use self::log::ServedLog;
pub use self::offsets::{Offsets, Viewer};
pub use self::replicas::{Life, Replicas, Seen};
pub use self::starts::Starts;
use crate::rot::Rot;

/// A topic's name, which no other topic of the run has had, and the number of one of its
/// partitions.
pub type Partition = (Rc<str>, i32);

/// A broken promise, as the payload of the panic that ends the run.
#[derive(Debug)]
pub struct Violation(pub String);

/// Ends the run: a promise was broken.
pub fn violation(what: String) -> ! {
    std::panic::resume_unwind(Box::new(Violation(what)))
}

/// Ends the run where a condition does not hold.
#[macro_export]
macro_rules! promise {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            $crate::checkers::violation(format!($($what)+));
        }
    };
}

/// All checkers of a run. A clone is the same ones.
#[derive(Clone, Default)]
pub struct Checkers {
    /// Nothing acknowledged is lost, doubled or reordered; no record from nowhere.
    pub acks: Rc<RefCell<Acks>>,
    /// What is served once is served always, byte for byte.
    pub log: Rc<RefCell<ServedLog>>,
    /// High watermarks never go back; offsets have no gaps.
    pub offsets: Rc<RefCell<Offsets>>,
    /// Starts of logs never go back; nothing below them is served.
    pub starts: Rc<RefCell<Starts>>,
    /// Committed offsets never go back; no partition has two owners.
    pub groups: Rc<RefCell<Groups>>,
    /// One leader an epoch; nothing of a replica goes back.
    pub replicas: Rc<RefCell<Replicas>>,
    /// What has rotted on the nodes' disks.
    pub rot: Rc<RefCell<Rot>>,
    /// The node stops in order, and nothing else is wrong: whoever is answered still is not
    /// refused.
    pub stopping: Rc<Cell<bool>>,
}
