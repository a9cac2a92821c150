//! What is drawn for a run.
//!
//! The rates themselves are random ("swarm"): a run without any crash, or with nothing but crashes,
//! finds what an average one does not.

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use vltava::runtime::sim::{
    DiskOptions, MILLION, NetworkOptions, Purpose, Random, Simulation, SimulationOptions, TraceSink,
};

use crate::faults::{TROUBLES, TROUBLES_OF_MANY, Trouble};
use crate::shape::Shape;
use crate::workload::Role;

/// What was drawn for a run.
pub struct Swarm {
    /// Nodes and replicas.
    pub shape: Shape,
    /// How long faults go on, in virtual time.
    pub storm: Duration,
    /// Shards of a node: drawn anew at each start.
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
    /// Whether the file systems take `O_DIRECT`.
    reads_past_cache: bool,
    /// What a poll costs, in microseconds; much of it makes cores hot.
    pub poll_us: u64,
    oldest_first_per_million: u32,
    timer_late_ns_max: u64,
    yield_per_million: u32,
}

impl fmt::Display for Swarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:?}", self.shape)?;
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
        writeln!(
            f,
            "  {:?}, past the page cache: {}, a poll {} us",
            self.disk, self.reads_past_cache, self.poll_us
        )?;
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

/// Whether partitions move between shards meanwhile: likewise.
fn draw_moves(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 8);
    if random.chance(MILLION / 2) {
        swarm.clients.push(Role::ShardMover);
    }
}

/// What several nodes need, and what they may have.
fn draw_cluster(seed: u64, swarm: &mut Swarm) {
    if swarm.shape.is_alone() {
        return;
    }
    let random = &mut Random::new(seed, Purpose::Faults, 7);
    swarm.storm = Duration::from_millis(random.between(3_000..=30_000));
    let shards_min = random.mostly_small(1..=2);
    swarm.shards = shards_min..=random.between(shards_min..=3);
    for trouble in TROUBLES_OF_MANY {
        for _ in 0..random.mostly_small(0..=4) {
            swarm.troubles.push(trouble);
        }
    }
    swarm.set_offsets_replication();
    if !Random::new(seed, Purpose::Faults, 10).chance(MILLION * 2 / 3) {
        swarm.delete_nothing();
    }
    for _ in 0..random.mostly_small(0..=2) {
        swarm.clients.push(Role::Mover);
    }
    if random.chance(MILLION / 3) {
        let least = random.between(1..=swarm.shape.nodes as u64);
        swarm.topic_configs.push(("min.insync.replicas", least.to_string()));
    }
}

/// Whether disks are lost: drawn from a stream of its own.
fn draw_losses(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 9);
    if swarm.shape.is_alone() || !random.chance(MILLION / 3) {
        return;
    }
    swarm.shape.lose_disks();
    for _ in 0..random.between(1..=3) {
        swarm.troubles.push(Trouble::Wipe);
    }
}

/// Whether nodes come and go: likewise.
fn draw_comers(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 12);
    if swarm.shape.is_alone() || !random.chance(MILLION / 4) {
        return;
    }
    swarm.shape.come_and_go(random.index(3) + 1);
    swarm.clients.push(Role::Operator);
}

/// Whether replicas that move are throttled: likewise.
fn draw_throttles(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 13);
    let moves = |role: &Role| matches!(role, Role::Mover | Role::Operator);
    if swarm.clients.iter().any(moves) && random.chance(MILLION / 3) {
        swarm.clients.push(Role::Throttler);
    }
}

/// Whether cores are hot, so that nodes move partitions by themselves: likewise.
fn draw_heat(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 16);
    if random.chance(MILLION / 3) {
        swarm.heat(random.mostly_small(100..=5_000), random.mostly_small(50..=2_000));
    }
}

/// Whether nodes come to have no descriptors: likewise. Segments are short then, and files opened
/// often.
fn draw_descriptors(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 17);
    if random.chance(MILLION / 4) {
        for _ in 0..random.between(1..=4) {
            swarm.troubles.push(Trouble::NoDescriptors);
        }
        if !swarm.topic_configs.iter().any(|(name, _)| *name == "segment.ms") {
            let segment_ms = random.mostly_small(100..=5_000).to_string();
            swarm.topic_configs.push(("segment.ms", segment_ms));
        }
    }
}

/// Where it is set, disks of all clusters rot, not only of a quarter of them.
const ROT: &str = "VLTAVA_SIMULATOR_ROT";

/// How disks rot: likewise. Segments are short then, and soon looked through again.
fn draw_rot(seed: u64, swarm: &mut Swarm) {
    let random = &mut Random::new(seed, Purpose::Faults, 11);
    let rots = Random::new(seed, Purpose::Faults, 14).chance(MILLION / 4);
    if swarm.shape.is_alone() || !(rots || std::env::var_os(ROT).is_some()) {
        return;
    }
    swarm.shape.lose_disks();
    for trouble in [Trouble::Rot, Trouble::Misdirected] {
        for _ in 0..random.between(1..=4) {
            swarm.troubles.push(trouble);
        }
    }
    let segment_ms = random.mostly_small(100..=5_000).to_string();
    swarm.topic_configs.push(("segment.ms", segment_ms));
    let verify_ms = random.mostly_small(1_000..=20_000).to_string();
    swarm.node_settings.push(("log.verify.interval.ms", verify_ms));
}

impl Swarm {
    /// The least versions of Produce and Fetch that know all codecs of the run.
    pub fn least_versions(&self) -> (i16, i16) {
        if self.zstd { (7, 10) } else { (3, 4) }
    }

    /// What the seed says; `nodes` instead of what it says of them, where that is given.
    pub fn new(seed: u64, nodes: Option<usize>) -> Self {
        let random = &mut Random::new(seed, Purpose::Faults, 0);
        let mut troubles = Vec::new();
        for trouble in TROUBLES {
            for _ in 0..random.mostly_small(0..=4) {
                troubles.push(trouble);
            }
        }
        let storm = Duration::from_millis(random.between(5_000..=60_000));
        let topics = random.between(1..=3);
        let shape = Shape::new(seed, usize::try_from(topics).unwrap_or(1), nodes);
        let shards_min = random.mostly_small(1..=4);
        let mut swarm = Self {
            shape,
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
            poll_us: 0,
            reads_past_cache: Random::new(seed, Purpose::Faults, 15).chance(MILLION * 7 / 8),
            oldest_first_per_million: rate(random, u64::from(MILLION)),
            timer_late_ns_max: u64::from(rate(random, 50_000_000)),
            yield_per_million: rate(random, u64::from(MILLION)),
            retention_deletes: false,
            whole_blocks: false,
        };
        draw_losses(seed, &mut swarm);
        draw_rot(seed, &mut swarm);
        draw_comers(seed, &mut swarm);
        draw_later(seed, &mut swarm);
        draw_torn(seed, &mut swarm);
        draw_cluster(seed, &mut swarm);
        draw_moves(seed, &mut swarm);
        draw_throttles(seed, &mut swarm);
        draw_heat(seed, &mut swarm);
        draw_descriptors(seed, &mut swarm);
        swarm
    }

    /// One in which nothing goes wrong by itself, and of each kind of client there is one.
    pub fn quiet(seed: u64, nodes: usize) -> Self {
        let mut swarm = Self::new(seed, Some(nodes));
        swarm.storm = Duration::from_secs(5);
        swarm.troubles = Vec::new();
        swarm.think_max = Duration::from_millis(50);
        swarm.network = NetworkOptions::default();
        swarm.disk = DiskOptions::default();
        swarm.shape.comers = 0;
        swarm.clients = vec![
            Role::ProducerAll,
            Role::ProducerOne,
            Role::ProducerPlain,
            Role::Consumer,
            Role::Member,
            Role::Member,
            Role::Admin,
            Role::Recreator,
            Role::Keeper,
            Role::Scraper,
        ];
        swarm.topic_configs.retain(|(name, _)| *name != "min.insync.replicas");
        swarm.delete_nothing();
        if nodes > 1 {
            swarm.shape.lose_disks();
            swarm.set_offsets_replication();
        }
        swarm
    }

    /// As the shape says.
    fn set_offsets_replication(&mut self) {
        const NAME: &str = "offsets.topic.replication.factor";
        self.node_settings.retain(|(name, _)| *name != NAME);
        self.node_settings.push((NAME, self.shape.offsets_replication.to_string()));
    }

    /// A poll costs so many microseconds, and nodes look for hot cores as often.
    pub fn heat(&mut self, poll_us: u64, interval_ms: u64) {
        self.poll_us = poll_us;
        self.node_settings.push(("shard.balance.interval.ms", interval_ms.to_string()));
    }

    /// Nothing goes that nobody asks for, and nobody does.
    fn delete_nothing(&mut self) {
        self.retention_deletes = false;
        self.clients.retain(|role| *role != Role::Tuner);
        self.topic_configs.retain(|(name, _)| !name.starts_with("retention."));
        self.topic_configs.push(("retention.ms", "-1".to_owned()));
    }

    /// The simulation that the seed describes.
    pub fn simulation(&self, seed: u64, sink: Option<TraceSink>) -> Simulation {
        let mut options = SimulationOptions::new(seed);
        options.executor.oldest_first_per_million = self.oldest_first_per_million;
        options.executor.timer_late_ns_max = self.timer_late_ns_max;
        options.executor.sink = sink;
        options.network = self.network.clone();
        options.disk = self.disk.clone();
        options.reads_past_cache = self.reads_past_cache;
        options.poll_us = self.poll_us;
        options.yield_per_million = self.yield_per_million;
        Simulation::new(options)
    }
}
