//! The ground: the only room that names io_uring and libc.
//!
//! A [`Runtime`] is one shard's executor with its clock, its randomness, its disk and its network.
//! Rooms above are generic over `R: Runtime` in their drivers only; pure cores have no such
//! parameter. Two back ends exist: `machine` (threads, each with an executor and a ring) and `sim`
//! (seeded; virtual time, the faulty disk, a simulated network).
//!
//! Everything here belongs to one shard and stays on its thread, unless it says `Send`.
//!
//! - `machine`: shards as threads; `executor`, `tasks`, `timers`: what runs on one, and when.
//! - `ring`: the shard's io_uring, with `setup`, `enter`, `request` and `bulk`; `file` and `socket`
//!   are on it, `blocking` is what it cannot do.
//! - [`mesh`], [`jobs`]: from shard to shard. [`sync`]: waiting within one.
//! - `system`: the machine and its signals; `data_directory`: that it is ours alone.
//! - [`log_limit`]: lines about what peers do; `recorder`: a witness of the ring, for tests.

mod blocking;
mod bulk;
mod data_directory;
mod enter;
mod executor;
mod file;
pub mod jobs;
pub mod log_limit;
mod machine;
pub mod mesh;
mod recorder;
mod request;
mod ring;
mod setup;
#[cfg(feature = "simulator")]
pub mod sim;
mod socket;
pub mod sync;
mod system;
mod tasks;
#[cfg(test)]
mod tests;
mod timers;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use vltava_protocol::encode::ExternalBytes;
use vltava_storage::io::Disk;

pub use self::data_directory::{DataDirectory, DataDirectoryError};
pub use self::file::{MachineDisk, MachineFile};
pub use self::machine::{
    MachineRuntime, Options, ShardError, ShardStart, Shards, StartError, Stop, check_limits,
    run_shards,
};
pub use self::recorder::{Operation, Recorder};
pub use self::socket::{MachineConnection, MachineListener, MachineNetwork};
pub use self::system::{
    MachineFacts, ProcessFacts, ShutdownSignals, is_hung_up, notify_service_manager, probe,
};

/// Monotonic time, in nanoseconds since the process (or the simulation) started. Only compared and
/// subtracted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Monotonic(pub u64);

impl Monotonic {
    /// This much later; saturates at the end of time.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time from `earlier` to this; zero where this is earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Which work goes first: a queue of tasks with its share of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Queue {
    /// Whether other nodes live, and that this one does: some microseconds, behind no other work.
    Sessions,
    /// Network, produce, fetch, the mesh.
    Foreground,
    /// Coordinators, the controller, the admin port.
    Control,
    /// Recovery of logs at start.
    Recovery,
    /// Retention, compaction: never felt at p99.
    Background,
}

/// One shard's executor and its I/O. A clone is the same executor.
pub trait Runtime: Clone + 'static {
    /// The data directory.
    type Disk: Disk;
    /// Sockets.
    type Network: Network;

    /// Time that never goes back.
    fn now(&self) -> Monotonic;

    /// Wall-clock time in milliseconds since 1970. May jump.
    fn wall_clock_ms(&self) -> i64;

    /// Completes once `now()` is at or past the deadline.
    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + 'static;

    /// The same, counted from the call.
    fn sleep(&self, time: Duration) -> impl Future<Output = ()> + 'static {
        self.sleep_until(self.now().after(time))
    }

    /// What a future gives; `None` where it has not by the deadline.
    async fn before<F: Future>(&self, deadline: Monotonic, future: F) -> Option<F::Output> {
        match select(pin!(future), pin!(self.sleep_until(deadline))).await {
            Either::Left((given, _)) => Some(given),
            Either::Right(_) => None,
        }
    }

    /// What a future gives, where that takes no longer than this.
    async fn in_time<F: Future>(&self, time: Duration, future: F) -> Option<F::Output> {
        self.before(self.now().after(time), future).await
    }

    /// Runs a task on this shard, to its end. A panic in it ends the process.
    fn spawn(&self, queue: Queue, task: impl Future<Output = ()> + 'static);

    /// Lets other tasks run where this one has used its slice of time; returns at once otherwise.
    fn yield_if_needed(&self) -> impl Future<Output = ()>;

    /// Processor time of this shard's thread since it began, in microseconds; some hundredths of a
    /// second late.
    fn processor_us(&self) -> u64;

    /// Random bits: from the operating system, or from the seed.
    fn random_u64(&self) -> u64;

    /// The data directory.
    fn disk(&self) -> &Self::Disk;

    /// Sockets.
    fn network(&self) -> &Self::Network;
}

/// TCP, as far as a broker needs it.
pub trait Network: Clone + 'static {
    /// A listening socket of this shard.
    type Listener: Listener<Connection = Self::Connection>;
    /// An established connection of this shard.
    type Connection: Connection;

    /// Listens on an address that all shards of this process share, each accepting what the others
    /// do not; another process cannot. Port 0 takes a free one.
    async fn listen(&self, address: SocketAddr) -> io::Result<Self::Listener>;

    /// Connects; `TCP_NODELAY` is set.
    async fn connect(&self, address: SocketAddr) -> io::Result<Self::Connection>;

    /// Takes over a connection that another shard of this process has given up.
    fn attach(&self, detached: <Self::Connection as Connection>::Detached) -> Self::Connection;
}

/// A listening socket.
pub trait Listener: 'static {
    /// What it accepts.
    type Connection: Connection;

    /// The next connection (`TCP_NODELAY` set). Errors are passing ones (descriptors used up); the
    /// caller waits and tries again.
    async fn accept(&self) -> io::Result<Self::Connection>;

    /// Where it listens.
    fn local_address(&self) -> SocketAddr;
}

/// An established connection. A clone is the same connection; one task may receive while another
/// sends.
pub trait Connection: Clone + 'static {
    /// A connection between two shards: nobody serves it until [`Network::attach`].
    type Detached: Send + 'static;

    /// Appends what has arrived to the spare capacity of `buffer` (which must have some), waiting
    /// until there is something. 0 bytes: the peer sends no more. The buffer comes back in every
    /// case.
    async fn receive(&self, buffer: BytesMut) -> (io::Result<usize>, BytesMut);

    /// Sends all parts, in order, as few packets as it takes.
    async fn send(&self, parts: Vec<Bytes>) -> io::Result<()>;

    /// The kernel takes in no more than about so many bytes that it has not sent yet: what waits,
    /// waits with the sender, where something else may still go before it.
    fn keep_unsent_below(&self, bytes: u32);

    /// Sends a range of a file of this runtime's disk, without copying it where it is in the page
    /// cache, and never blocks the shard on the disk where it is not. An error (also a file shorter
    /// than the range) leaves the stream broken: close it.
    async fn send_file(&self, range: &ExternalBytes) -> io::Result<()>;

    /// Gives the connection up, for another shard. No call may be under way, and none may follow.
    fn detach(self) -> Self::Detached;

    /// Ends it in both directions: calls under way, and later ones, return.
    fn close(&self);

    /// Who is at the other end.
    fn peer_address(&self) -> SocketAddr;

    /// Which address of ours it came to.
    fn local_address(&self) -> SocketAddr;
}
