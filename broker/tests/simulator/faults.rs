//! What is drawn for a run, and what goes wrong in it.
//!
//! The rates themselves are random ("swarm"): a run without any crash, or with nothing but crashes,
//! finds what an average one does not. The *atlas* is what may fail together so that the promises
//! still hold; with one node it is small: its disk may lose what was not flushed, fail a write,
//! fill up and be slow, but it may not lie or rot, since there is no other copy.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use vltava::runtime::sim::{
    Crash, DiskOptions, HostId, MILLION, NetworkOptions, Purpose, Random, Simulation,
    SimulationOptions, TraceSink,
};
use vltava_storage::io::IoErrorKind;
use vltava_storage::io::fault_disk::Fault;

use crate::cluster::Cluster;
use crate::workload::{Role, Workload};

/// What may go wrong, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The node's process is killed and started again.
    Kill,
    /// The power of its host fails.
    PowerCut,
    /// The disk slows down, and then the power fails: what waits for the disk is lost.
    SlowPowerCut,
    /// It is stopped in the right order and started again.
    Restart,
    /// It stands still for a while.
    Pause,
    /// The way between a client and the node is blocked, both ways or one.
    Partition,
    /// The wall clock jumps.
    ClockJump,
    /// The disk is slow for a while.
    SlowDisk,
    /// The disk is full for a while.
    FullDisk,
    /// One change of the disk fails, or finds no space; then the node is killed.
    DiskError,
    /// The power fails again and again, each time soon after the start: what one life left behind
    /// its log's end stands there while the next one writes up to it.
    ShortLives,
}

const TROUBLES: [Trouble; 9] = [
    Trouble::Kill,
    Trouble::PowerCut,
    Trouble::Restart,
    Trouble::Pause,
    Trouble::Partition,
    Trouble::ClockJump,
    Trouble::SlowDisk,
    Trouble::FullDisk,
    Trouble::DiskError,
];

/// A short life ends by then, in nanoseconds of virtual time, whether anything was written or not.
const SHORT_LIFE_NS_MAX: u64 = 3_000_000_000;

/// What was drawn for a run.
pub struct Swarm {
    /// How long faults go on, in virtual time.
    pub storm: Duration,
    /// Shards of the node: drawn anew at each start.
    pub shards: RangeInclusive<u64>,
    /// What may go wrong; a trouble stands here more than once where it comes more often.
    pub troubles: Vec<Trouble>,
    /// Between two troubles, at most.
    pub calm_max: Duration,
    /// Partitions of each topic.
    pub topics: Vec<i32>,
    /// Whether retention deletes records, or may be told to.
    pub retention_deletes: bool,
    /// Settings of the node.
    pub node_settings: Vec<(&'static str, String)>,
    /// Settings of the topics.
    pub topic_configs: Vec<(&'static str, String)>,
    /// Who takes part.
    pub clients: Vec<Role>,
    /// How many groups members join.
    pub groups: u64,
    /// Batches that a producer has in flight.
    pub in_flight_max: usize,
    /// Records of a batch, at most.
    pub batch_records_max: u64,
    /// Bytes of a record, at most.
    pub record_bytes_max: u64,
    /// Whether batches may be compressed with zstd, which old versions do not know.
    pub zstd: bool,
    /// Whether each batch is one record and fills one block of the disk: then what an earlier life
    /// left in a file stands where the log may come to end, with the offset that it needs.
    pub whole_blocks: bool,
    /// How long clients pause between two requests, at most.
    pub think_max: Duration,
    /// How long they wait for an answer.
    pub client_timeout: Duration,
    /// How long producers do while the storm lasts: an impatient one repeats what is under way.
    pub producer_timeout: Duration,
    /// `session.timeout.ms` of members.
    pub session_timeout_ms: i32,
    /// Delays, pieces, resets.
    pub network: NetworkOptions,
    /// Latencies.
    pub disk: DiskOptions,
    oldest_first_per_million: u32,
    timer_late_ns_max: u64,
    yield_per_million: u32,
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  storm {:?}, shards {:?}, calm up to {:?}, troubles {:?}",
            self.storm, self.shards, self.calm_max, self.troubles
        )?;
        writeln!(f, "  node {:?}", self.node_settings)?;
        writeln!(
            f,
            "  topics {:?} {:?}, retention deletes: {}",
            self.topics, self.topic_configs, self.retention_deletes
        )?;
        writeln!(f, "  clients {:?}, groups {}", self.clients, self.groups)?;
        writeln!(
            f,
            "  in flight {}, records {}, bytes {}, zstd {}, whole blocks {}, think {:?}, \
             timeout {:?} ({:?}), session {} ms",
            self.in_flight_max,
            self.batch_records_max,
            self.record_bytes_max,
            self.zstd,
            self.whole_blocks,
            self.think_max,
            self.client_timeout,
            self.producer_timeout,
            self.session_timeout_ms
        )?;
        writeln!(f, "  {:?}", self.network)?;
        writeln!(f, "  {:?}", self.disk)?;
        write!(
            f,
            "  oldest first {} ppm, timers late {} ns, yields {} ppm",
            self.oldest_first_per_million, self.timer_late_ns_max, self.yield_per_million
        )
    }
}

/// Up to `most`, mostly less; nothing in half of the runs.
fn rate(random: &mut Random, most: u64) -> u32 {
    match random.chance(MILLION / 2) {
        true => 0,
        false => u32::try_from(random.mostly_small(0..=most)).unwrap_or(0),
    }
}

fn millis(random: &mut Random, range: RangeInclusive<u64>) -> Duration {
    Duration::from_millis(random.mostly_small(range))
}

fn draw_network(random: &mut Random) -> NetworkOptions {
    let latency_ns_min = random.mostly_small(1_000..=1_000_000);
    let latency_ns_max = latency_ns_min + random.mostly_small(0..=20_000_000);
    let window_bytes_max = random.mostly_small(64..=1_048_576);
    NetworkOptions {
        latency_ns: latency_ns_min..=latency_ns_max,
        spike_per_million: rate(random, 100_000),
        spike_ns_max: random.mostly_small(1_000_000..=3_000_000_000),
        window_bytes: random.mostly_small(64..=window_bytes_max)..=window_bytes_max,
        piece_bytes_max: random.mostly_small(100..=65_536),
        partial_per_million: rate(random, 200_000),
        reset_per_million: rate(random, 5_000),
        accept_error_per_million: rate(random, 100_000),
        connect_timeout_ns: random.between(100_000_000..=5_000_000_000),
        gone_ns_max: random.between(1_000_000..=10_000_000_000),
    }
}

fn draw_disk(random: &mut Random) -> DiskOptions {
    let mut range = |most| {
        let start = random.mostly_small(1_000..=most);
        start..=start + random.mostly_small(0..=most)
    };
    DiskOptions {
        read_ns: range(1_000_000),
        write_ns: range(1_000_000),
        flush_ns: range(20_000_000),
        stall_per_million: rate(random, 5_000),
        stall_ns_max: random.mostly_small(1_000_000..=2_000_000_000),
    }
}

fn draw_clients(random: &mut Random) -> Vec<Role> {
    let mut clients = Vec::new();
    for (role, least, most) in [
        (Role::ProducerAll, 1, 3),
        (Role::ProducerOne, 0, 2),
        (Role::ProducerPlain, 0, 1),
        (Role::Consumer, 0, 2),
        (Role::Member, 0, 4),
        (Role::Admin, 0, 1),
    ] {
        for _ in 0..random.between(least..=most) {
            clients.push(role);
        }
    }
    clients
}

fn draw_node_settings(random: &mut Random) -> Vec<(&'static str, String)> {
    let write_bytes_max = random.mostly_small(64 * 1024..=1024 * 1024);
    vec![
        ("write.max.bytes", write_bytes_max.to_string()),
        ("offsets.topic.num.partitions", random.between(1..=3).to_string()),
        ("group.initial.rebalance.delay.ms", random.between(0..=3000).to_string()),
        ("disk.reserve.bytes", random.between(0..=100_000).to_string()),
    ]
}

fn draw_topic_configs(random: &mut Random) -> Vec<(&'static str, String)> {
    // The least that Kafka allows: many rolls.
    let segment_bytes = match random.chance(MILLION / 2) {
        true => 1024 * 1024,
        false => 1024 * 1024 * 1024,
    };
    vec![
        ("segment.bytes", segment_bytes.to_string()),
        ("retention.ms", "-1".to_owned()),
        // Wall clocks jump; clients' do not jump with the node's.
        ("message.timestamp.after.max.ms", i64::MAX.to_string()),
    ]
}

/// What was added since: drawn from a stream of its own, so that all else stays as it was.
fn draw_later(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 4);
    for _ in 0..random.mostly_small(0..=4) {
        swarm.troubles.push(Trouble::SlowPowerCut);
    }
    swarm.retention_deletes = random.chance(MILLION / 2);
    for (role, most) in [(Role::Recreator, 2), (Role::Keeper, 1), (Role::Scraper, 1)] {
        for _ in 0..random.between(0..=most) {
            swarm.clients.push(role);
        }
    }
    let check_ms = random.mostly_small(500..=10_000);
    swarm.node_settings.push(("log.retention.check.interval.ms", check_ms.to_string()));
    // Wall clocks jump by days, and producers come back all the same.
    swarm.node_settings.push(("producer.id.expiration.ms", i32::MAX.to_string()));
    if swarm.retention_deletes {
        if random.chance(MILLION * 3 / 4) {
            swarm.clients.push(Role::Tuner);
        }
        if random.chance(MILLION / 4) {
            let retention_ms = random.mostly_small(1_000..=120_000);
            swarm.topic_configs.retain(|(name, _)| *name != "retention.ms");
            swarm.topic_configs.push(("retention.ms", retention_ms.to_string()));
        }
        if random.chance(MILLION / 4) {
            let retention_bytes = random.between(0..=4 << 20);
            swarm.topic_configs.push(("retention.bytes", retention_bytes.to_string()));
        }
    }
}

/// What makes torn writes tell: drawn from a stream of its own, too.
fn draw_torn(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 5);
    swarm.whole_blocks = random.chance(MILLION / 4);
    for _ in 0..random.mostly_small(0..=3) {
        swarm.troubles.push(Trouble::ShortLives);
    }
}

impl Swarm {
    /// The least versions of Produce and Fetch that know all codecs of the run.
    pub fn least_versions(&self) -> (i16, i16) {
        if self.zstd { (7, 10) } else { (3, 4) }
    }

    /// What the seed says.
    pub fn new(seed: u64) -> Self {
        let random = &mut Random::new(seed, Purpose::Faults, 0);
        let mut troubles = Vec::new();
        for trouble in TROUBLES {
            for _ in 0..random.mostly_small(0..=4) {
                troubles.push(trouble);
            }
        }
        let storm = Duration::from_millis(random.between(5_000..=60_000));
        let topics = random.between(1..=3);
        let shards_min = random.mostly_small(1..=4);
        let mut swarm = Self {
            storm,
            shards: shards_min..=random.between(shards_min..=5),
            troubles,
            calm_max: millis(random, 500..=15_000),
            topics: (0..topics)
                .map(|_| i32::try_from(random.mostly_small(1..=6)).unwrap_or(1))
                .collect(),
            node_settings: draw_node_settings(random),
            topic_configs: draw_topic_configs(random),
            clients: draw_clients(random),
            groups: random.between(1..=2),
            in_flight_max: usize::try_from(random.between(1..=5)).unwrap_or(1),
            batch_records_max: random.mostly_small(1..=50),
            record_bytes_max: random.mostly_small(0..=20_000),
            zstd: random.chance(MILLION / 2),
            // Busy, but not so busy that a run takes minutes.
            think_max: millis(random, 1..=500).max(storm / 250),
            client_timeout: millis(random, 12_000..=40_000),
            producer_timeout: millis(random, 100..=20_000),
            session_timeout_ms: i32::try_from(random.between(6_000..=10_000)).unwrap_or(6_000),
            network: draw_network(random),
            disk: draw_disk(random),
            oldest_first_per_million: rate(random, u64::from(MILLION)),
            timer_late_ns_max: u64::from(rate(random, 50_000_000)),
            yield_per_million: rate(random, u64::from(MILLION)),
            retention_deletes: false,
            whole_blocks: false,
        };
        draw_later(seed, &mut swarm);
        draw_torn(seed, &mut swarm);
        swarm
    }

    /// The simulation that the seed describes.
    pub fn simulation(&self, seed: u64, sink: Option<TraceSink>) -> Simulation {
        let mut options = SimulationOptions::new(seed);
        options.executor.oldest_first_per_million = self.oldest_first_per_million;
        options.executor.timer_late_ns_max = self.timer_late_ns_max;
        options.executor.sink = sink;
        options.network = self.network.clone();
        options.disk = self.disk.clone();
        options.yield_per_million = self.yield_per_million;
        Simulation::new(options)
    }
}

/// The network once the storm is over: everything arrives, soon.
fn calm_network(stormy: &NetworkOptions) -> NetworkOptions {
    NetworkOptions {
        spike_per_million: 0,
        reset_per_million: 0,
        accept_error_per_million: 0,
        gone_ns_max: 1_000_000_000,
        ..stormy.clone()
    }
}

/// Makes trouble until the storm is over; then repairs everything, so that all must finish.
pub async fn storm(cluster: &Cluster, workload: &Workload) {
    let simulation = &cluster.simulation;
    let swarm = &cluster.swarm;
    let executor = simulation.executor();
    let mut random = Random::new(executor.seed(), Purpose::Faults, 1);
    let ends_ns = executor.now_ns() + nanos(swarm.storm);
    while !swarm.troubles.is_empty() {
        let calm_ns = random.mostly_small(1..=nanos(swarm.calm_max));
        let next_ns = executor.now_ns() + calm_ns;
        executor.sleep_until(next_ns.min(ends_ns)).await;
        if executor.now_ns() >= ends_ns {
            break;
        }
        let trouble = *random.pick(&swarm.troubles);
        make(trouble, cluster, workload, &mut random).await;
    }
    executor.sleep_until(ends_ns).await;
    executor.note("the storm is over");
    simulation.unblock_all();
    simulation.set_network_options(calm_network(&swarm.network));
    simulation.set_disk_options(cluster.host, DiskOptions::default());
    cluster.disk().heal();
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn make(trouble: Trouble, cluster: &Cluster, workload: &Workload, random: &mut Random) {
    let simulation = &cluster.simulation;
    let executor = simulation.executor();
    executor.note(&format!("trouble: {trouble:?}"));
    let sleep_ms = |random: &mut Random, range: RangeInclusive<u64>| {
        let ms = random.mostly_small(range);
        executor.sleep_until(executor.now_ns() + ms * 1_000_000)
    };
    match trouble {
        Trouble::Kill => cluster.crash(Crash::Process, random).await,
        Trouble::PowerCut => cluster.crash(Crash::Power, random).await,
        Trouble::SlowPowerCut => {
            let slow = DiskOptions {
                flush_ns: 100_000_000..=20_000_000_000,
                ..cluster.swarm.disk.clone()
            };
            simulation.set_disk_options(cluster.host, slow);
            sleep_ms(random, 1..=20_000).await;
            cluster.crash_now(Crash::Power, random).await;
            simulation.set_disk_options(cluster.host, cluster.swarm.disk.clone());
            cluster.start(random).await;
        }
        Trouble::Restart => cluster.restart(random).await,
        Trouble::Pause => {
            simulation.pause(cluster.host);
            sleep_ms(random, 1..=10_000).await;
            simulation.resume(cluster.host);
        }
        Trouble::Partition => {
            block_clients(cluster, &workload.hosts(), random);
            sleep_ms(random, 1..=30_000).await;
            simulation.unblock_all();
        }
        Trouble::ClockJump => {
            let by_ms = i64::try_from(random.mostly_small(1..=86_400_000)).unwrap_or(0);
            let back = random.chance(MILLION / 2);
            simulation.jump_wall_clock(cluster.host, if back { -by_ms } else { by_ms });
        }
        Trouble::SlowDisk => {
            let slow = DiskOptions {
                write_ns: 1_000_000..=500_000_000,
                flush_ns: 1_000_000..=2_000_000_000,
                ..cluster.swarm.disk.clone()
            };
            simulation.set_disk_options(cluster.host, slow);
            sleep_ms(random, 1..=10_000).await;
            simulation.set_disk_options(cluster.host, cluster.swarm.disk.clone());
        }
        Trouble::FullDisk => {
            let disk = cluster.disk();
            let files = disk.files().into_iter();
            let used: usize =
                files.filter_map(|path| disk.content(&path)).map(|content| content.len()).sum();
            let bytes_max = used as u64 + random.mostly_small(0..=1_000_000);
            let for_ns = random.mostly_small(100_000_000..=20_000_000_000);
            cluster.fill_disk(bytes_max, for_ns, random).await;
        }
        Trouble::DiskError => {
            let disk = cluster.disk();
            let at = disk.operations() + random.mostly_small(0..=50);
            let kind = *random.pick(&[IoErrorKind::Failed, IoErrorKind::Full]);
            disk.inject(Fault::Fail { at, kind });
            cluster.disk_failed();
            sleep_ms(random, 1..=5_000).await;
            cluster.disk().heal();
            cluster.crash(Crash::Process, random).await;
        }
        Trouble::ShortLives => {
            for _ in 0..random.between(2..=8) {
                short_life(cluster, random).await;
            }
        }
    }
}

/// Takes the power while a log is written to, in most cases several blocks at once, and starts the
/// node again. Where it is the first write of a life, and nothing is left of it, the next life has
/// the same leader epoch.
pub async fn short_life(cluster: &Cluster, random: &mut Random) {
    let executor = cluster.simulation.executor();
    let bytes_min = if random.chance(MILLION / 4) { 1 } else { 2 * 4096 };
    let given_up_ns = executor.now_ns() + SHORT_LIFE_NS_MAX;
    let is_torn = |(path, bytes): &(String, usize)| path.ends_with(".log") && *bytes >= bytes_min;
    while !cluster.disk().under_way().iter().any(is_torn) && executor.now_ns() < given_up_ns {
        executor.sleep_until(executor.now_ns() + 2_000_000).await;
    }
    cluster.crash_now(Crash::Power, random).await;
    cluster.start(random).await;
}

fn block_clients(cluster: &Cluster, clients: &[HostId], random: &mut Random) {
    let everyone = random.chance(MILLION / 4);
    for &client in clients {
        if !everyone && !random.chance(MILLION / 2) {
            continue;
        }
        let ways = random.between(1..=3);
        if ways & 1 != 0 {
            cluster.simulation.block(client, cluster.host);
        }
        if ways & 2 != 0 {
            cluster.simulation.block(cluster.host, client);
        }
    }
}
