//! How a simulated world behaves: what may be drawn, and how often things go wrong.

use std::ops::RangeInclusive;

use super::executor::ExecutorOptions;
use super::random::MILLION;

/// How a simulation behaves.
pub struct SimulationOptions {
    /// Seed and scheduling.
    pub executor: ExecutorOptions,
    /// Sockets.
    pub network: NetworkOptions,
    /// Disks, of all hosts; `Simulation::set_disk_options` changes one.
    pub disk: DiskOptions,
    /// Whether reads go past the page cache: the file systems take `O_DIRECT`.
    pub reads_past_cache: bool,
    /// Processor time that a shard says it spends on each poll of a task, in microseconds.
    pub poll_us: u64,
    /// Wall-clock time at the begin of the run, in milliseconds since 1970.
    pub wall_clock_ms: i64,
    /// So many of a million offers to yield are taken.
    pub yield_per_million: u32,
}

impl SimulationOptions {
    /// What a test starts from: nothing fails.
    pub fn new(seed: u64) -> Self {
        Self {
            executor: ExecutorOptions::new(seed),
            network: NetworkOptions::default(),
            disk: DiskOptions::default(),
            reads_past_cache: true,
            poll_us: 0,
            wall_clock_ms: 1_790_000_000_000,
            yield_per_million: MILLION / 2,
        }
    }
}

/// How the network behaves; times in nanoseconds of virtual time.
#[derive(Clone, Debug)]
pub struct NetworkOptions {
    /// One way; mostly near the start.
    pub latency_ns: RangeInclusive<u64>,
    /// So many of a million segments take up to `spike_ns_max` more.
    pub spike_per_million: u32,
    /// See `spike_per_million`.
    pub spike_ns_max: u64,
    /// Bytes that one direction of a connection holds; drawn for each.
    pub window_bytes: RangeInclusive<u64>,
    /// The most that travels in one piece.
    pub piece_bytes_max: u64,
    /// So many of a million pieces are one byte, and as many receives give only a part.
    pub partial_per_million: u32,
    /// So many of a million sends meet a connection that breaks just then.
    pub reset_per_million: u32,
    /// So many of a million accepts fail in passing.
    pub accept_error_per_million: u32,
    /// How long a connect waits for a node that does not answer.
    pub connect_timeout_ns: u64,
    /// How long, at most, before a sender learns that its peer's process is gone.
    pub gone_ns_max: u64,
}

impl Default for NetworkOptions {
    /// A calm network, inside one room.
    fn default() -> Self {
        Self {
            latency_ns: 20_000..=200_000,
            spike_per_million: 0,
            spike_ns_max: 50_000_000,
            window_bytes: 65_536..=1_048_576,
            piece_bytes_max: 65_536,
            partial_per_million: 0,
            reset_per_million: 0,
            accept_error_per_million: 0,
            connect_timeout_ns: 3_000_000_000,
            gone_ns_max: 5_000_000_000,
        }
    }
}

/// How long operations take, in nanoseconds of virtual time; mostly near the start.
#[derive(Clone, Debug)]
pub struct DiskOptions {
    /// Reads, and what only names files.
    pub read_ns: RangeInclusive<u64>,
    /// Writes that need not be durable.
    pub write_ns: RangeInclusive<u64>,
    /// Durable writes and syncs.
    pub flush_ns: RangeInclusive<u64>,
    /// So many of a million operations take up to `stall_ns_max` more.
    pub stall_per_million: u32,
    /// See `stall_per_million`.
    pub stall_ns_max: u64,
}

impl Default for DiskOptions {
    /// A good disk.
    fn default() -> Self {
        Self {
            read_ns: 1_000..=100_000,
            write_ns: 5_000..=100_000,
            flush_ns: 50_000..=1_000_000,
            stall_per_million: 0,
            stall_ns_max: 1_000_000_000,
        }
    }
}
