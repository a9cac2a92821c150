//! The simulated runtime: clock, disk and network of any number of nodes, from one seed.
//!
//! Everything runs on one thread. A [`Simulation`] holds hosts; a host's disk outlives the
//! processes that run on it, less what they had not flushed; each process has one [`SimRuntime`]
//! for each of its shards, and is gone with all its tasks and sockets when it is killed. The rooms
//! above run on it unchanged.
//!
//! Invariants:
//! 1. A seed gives one run: two runs have one [`Executor::trace_hash`]. Nothing here reads a clock,
//!    the system's randomness, or the order of a hash map.
//! 2. Time passes only when no task is ready.
//! 3. A killed process begins nothing more: its tasks are dropped, its sockets silent; what it had
//!    begun on the disk its kernel ends, unless the power fails.
//!
//! Files: `executor` (tasks and time), `random` (streams), `trace` (what happened, as a hash),
//! `link` (one connection), `fabric` (all of them, and their faults), `network` (sockets), `disk`,
//! `options`, `simulation` (hosts, and who is killed when), `alone` (for tests of one node).

#[cfg(test)]
mod alone;
mod disk;
mod executor;
mod fabric;
mod link;
mod network;
mod options;
mod random;
mod simulation;
#[cfg(test)]
mod tests;
mod trace;

#[cfg(test)]
pub use self::alone::run_alone;
pub use self::disk::{SimDisk, SimFile};
pub use self::executor::{Executor, ExecutorOptions, HARNESS, ProcessId, Sleep, Stuck};
pub use self::network::{SimConnection, SimListener, SimNetwork};
pub use self::options::{DiskOptions, NetworkOptions, SimulationOptions};
pub use self::random::{MILLION, Purpose, Random};
pub use self::simulation::{Crash, HostId, SimRuntime, Simulation};
pub use self::trace::TraceSink;
