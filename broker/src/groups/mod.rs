//! Groups: who reads what, and how far it has read. A pure room.
//!
//! One [`GroupMachine`] lives over each partition of `__consumer_offsets`, on the shard
//! that owns the partition, in the view of its leader: `coordinator::host` runs it. Its
//! [`State`] is what the records say (generations that were stable, or empty; committed
//! offsets), in Kafka's own format; its [`Session`] is what no record holds: members that
//! join, sessions, parked requests.
//!
//! | file | subject |
//! |---|---|
//! | `machine` | what goes in and out; which file answers |
//! | `group`, `member` | a live group and its members: what can be read off them |
//! | `classic` | the phases of a rebalance, and what moves a group between them |
//! | `join`, `sync`, `heartbeat`, `leave` | the classic protocol's requests, one file each |
//! | `offsets` | OffsetCommit, OffsetFetch, OffsetDelete |
//! | `describe`, `deletion`, `expiry` | what administrators and time do |
//! | `state`, `records`, `snapshot` | what the log holds: replay, bytes, rewriting |
//! | `session`, `work`, `options`, `memory`, `subscription` | what the others share |
//!
//! What must hold:
//! 1. `State` is written by replay alone, and a replay of the log, or of a snapshot, gives the same
//!    state.
//! 2. A group that is Stable is in the log exactly as it is in the session: members, assignments,
//!    generation, leader. So a new leader goes on where the last one stopped.
//! 3. An answer that depends on a record leaves with the outcome that appends it, or later.
//! 4. Every request is answered once: at once, when the others have come, or when it is given up.
//! 5. A group is live (in the session) while it has members or has given out ids; all other groups
//!    are empty, and cost their entry in the state.
//! 6. No input takes longer than its own size or the size of its group asks for; what takes longer
//!    goes in steps.
//!
//! The machine relies on its host for one thing beyond the trait: the records of an outcome are
//! replayed before the next call.

mod classic;
mod deletion;
mod describe;
mod expiry;
mod group;
mod heartbeat;
mod join;
mod leave;
mod machine;
mod member;
mod memory;
mod offsets;
mod options;
mod records;
mod session;
mod snapshot;
mod state;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;
mod work;

pub use self::describe::{GroupListing, ListGroups};
pub use self::join::Join;
pub use self::machine::{Client, GroupMachine, Input, Reply, Timer};
pub use self::memory::Memory;
pub use self::options::Options;
pub use self::session::Session;
pub use self::state::{CommittedOffset, State};
