//! What goes wrong in a run.
//!
//! The *atlas* is what may fail together so that the promises still hold (`docs/simulation.md`). A
//! disk may lose what was not flushed, fail a write, fill up and be slow, on any number of nodes at
//! once. What was flushed stays, but for a disk that is lost or rots, and the next one only when
//! that is made good.

use std::ops::RangeInclusive;
use std::time::Duration;

use futures_util::future::join_all;
use vltava::runtime::sim::{
    Crash, DiskOptions, HostId, MILLION, NetworkOptions, Purpose, Random, Simulation,
};
use vltava_storage::io::IoErrorKind;
use vltava_storage::io::fault_disk::Fault;

use crate::cluster::Cluster;
use crate::workload::Workload;

/// What may go wrong, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// A node's process is killed and started again.
    Kill,
    /// The power of its host fails.
    PowerCut,
    /// The disk slows down, and then the power fails: what waits for the disk is lost.
    SlowPowerCut,
    /// It is stopped in the right order and started again.
    Restart,
    /// It stands still for a while.
    Pause,
    /// The way between clients and a node is blocked, both ways or one.
    Partition,
    /// The wall clock jumps.
    ClockJump,
    /// The disk is slow for a while.
    SlowDisk,
    /// The disk is full for a while.
    FullDisk,
    /// No file can be opened for a while.
    NoDescriptors,
    /// One change of the disk fails, or finds no space; then the node is killed.
    DiskError,
    /// The power fails again and again, each time soon after the start: what one life left behind
    /// its log's end stands there while the next one writes up to it.
    ShortLives,
    /// The power of several nodes fails at about the same moment, or of all.
    PowerCuts,
    /// Several processes are killed at about the same moment, or all.
    Kills,
    /// The nodes are split in two; clients too, in half of all cases.
    Split,
    /// One node hears and is heard by no other; clients reach it as before.
    Isolation,
    /// What one node says does not reach another, or any other; it hears them.
    Muteness,
    /// The power of a node fails, and its disk is lost: it comes back with an empty one. Where
    /// another disk was lost and that is not made good yet, the power fails and no more.
    Wipe,
    /// Bits of what was flushed flip on a node's disk; nothing, where another loss or damage is not
    /// made good yet.
    Rot,
    /// A write is found to have been lost, or to have gone elsewhere in its file; likewise.
    Misdirected,
}

/// What every run may have.
pub const TROUBLES: [Trouble; 9] = [
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

/// What a run of several nodes may have beside.
pub const TROUBLES_OF_MANY: [Trouble; 5] =
    [Trouble::PowerCuts, Trouble::Kills, Trouble::Split, Trouble::Isolation, Trouble::Muteness];

/// A short life ends by then, in nanoseconds of virtual time, whether anything was written or not.
const SHORT_LIFE_NS_MAX: u64 = 3_000_000_000;

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
    let (simulation, swarm) = (&cluster.simulation, &cluster.swarm);
    let executor = simulation.executor();
    let ends_ns = executor.now_ns() + nanos(swarm.storm);
    let makers = (0..swarm.shape.troubles_at_once).map(|maker| {
        let salt = if maker == 0 { 1 } else { 100 + maker as u64 };
        let random = Random::new(executor.seed(), Purpose::Faults, salt);
        make_until(ends_ns, cluster, workload, random)
    });
    join_all(makers).await;
    executor.sleep_until(ends_ns).await;
    executor.note("the storm is over");
    simulation.unblock_all();
    simulation.set_network_options(calm_network(&swarm.network));
    for node in cluster.nodes() {
        simulation.set_disk_options(cluster.host(node), DiskOptions::default());
        cluster.disk(node).heal();
    }
}

/// One trouble after the other.
async fn make_until(ends_ns: u64, cluster: &Cluster, workload: &Workload, mut random: Random) {
    let (swarm, executor) = (&cluster.swarm, cluster.simulation.executor());
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
}

/// So many nanoseconds.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

async fn sleep_ms(cluster: &Cluster, random: &mut Random, range: RangeInclusive<u64>) {
    let executor = cluster.simulation.executor();
    let ms = random.mostly_small(range);
    executor.sleep_until(executor.now_ns() + ms * 1_000_000).await;
}

async fn make(trouble: Trouble, cluster: &Cluster, workload: &Workload, random: &mut Random) {
    let executor = cluster.simulation.executor();
    match trouble {
        Trouble::PowerCuts | Trouble::Kills => strike_several(trouble, cluster, random).await,
        Trouble::Split | Trouble::Isolation | Trouble::Muteness => {
            cut_off(trouble, cluster, workload, random).await;
        }
        _ => {
            let Some(node) = cluster.take(random) else {
                return;
            };
            executor.note(&format!("trouble: {trouble:?} of node {}", Cluster::id(node)));
            make_for(trouble, node, cluster, workload, random).await;
            cluster.give_back(node);
        }
    }
}

async fn make_for(
    trouble: Trouble,
    node: usize,
    cluster: &Cluster,
    workload: &Workload,
    random: &mut Random,
) {
    let (simulation, host) = (&cluster.simulation, cluster.host(node));
    match trouble {
        Trouble::Kill => cluster.crash(node, Crash::Process, random).await,
        Trouble::PowerCut => cluster.crash(node, Crash::Power, random).await,
        Trouble::SlowPowerCut => {
            let slow = DiskOptions {
                flush_ns: 100_000_000..=20_000_000_000,
                ..cluster.swarm.disk.clone()
            };
            simulation.set_disk_options(host, slow);
            sleep_ms(cluster, random, 1..=20_000).await;
            cluster.crash_now(node, Crash::Power, random).await;
            simulation.set_disk_options(host, cluster.swarm.disk.clone());
            cluster.start(node, random).await;
        }
        Trouble::Restart => cluster.restart(node, random).await,
        Trouble::Pause => {
            simulation.pause(host);
            sleep_ms(cluster, random, 1..=10_000).await;
            simulation.resume(host);
        }
        Trouble::Partition => {
            let blocked = block_clients(cluster, node, &workload.hosts(), random);
            sleep_ms(cluster, random, 1..=30_000).await;
            match cluster.swarm.shape.is_alone() {
                true => simulation.unblock_all(),
                false => unblock(simulation, blocked),
            }
        }
        Trouble::ClockJump => {
            let by_ms = i64::try_from(random.mostly_small(1..=86_400_000)).unwrap_or(0);
            let back = random.chance(MILLION / 2);
            simulation.jump_wall_clock(host, if back { -by_ms } else { by_ms });
        }
        Trouble::SlowDisk => {
            let slow = DiskOptions {
                write_ns: 1_000_000..=500_000_000,
                flush_ns: 1_000_000..=2_000_000_000,
                ..cluster.swarm.disk.clone()
            };
            simulation.set_disk_options(host, slow);
            sleep_ms(cluster, random, 1..=10_000).await;
            simulation.set_disk_options(host, cluster.swarm.disk.clone());
        }
        Trouble::FullDisk => {
            let disk = cluster.disk(node);
            let files = disk.files().into_iter();
            let used: usize =
                files.filter_map(|path| disk.content(&path)).map(|content| content.len()).sum();
            let bytes_max = used as u64 + random.mostly_small(0..=1_000_000);
            let for_ns = random.mostly_small(100_000_000..=20_000_000_000);
            cluster.fill_disk(node, bytes_max, for_ns, random).await;
        }
        Trouble::NoDescriptors => {
            let for_ns = random.mostly_small(100_000_000..=20_000_000_000);
            cluster.lack_descriptors(node, for_ns, random).await;
        }
        Trouble::DiskError => {
            let disk = cluster.disk(node);
            let at = disk.operations() + random.mostly_small(0..=50);
            let kind = *random.pick(&[IoErrorKind::Failed, IoErrorKind::Full]);
            disk.inject(Fault::Fail { at, kind });
            cluster.disk_failed(node);
            sleep_ms(cluster, random, 1..=5_000).await;
            cluster.disk(node).heal();
            cluster.crash(node, Crash::Process, random).await;
        }
        Trouble::ShortLives => {
            for _ in 0..random.between(2..=8) {
                short_life(cluster, node, random).await;
            }
        }
        Trouble::Wipe => cluster.wipe(node, random).await,
        Trouble::Rot | Trouble::Misdirected => cluster.damage(node, trouble, random).await,
        Trouble::PowerCuts
        | Trouble::Kills
        | Trouble::Split
        | Trouble::Isolation
        | Trouble::Muteness => {}
    }
}

/// Takes the power while a log is written to, in most cases several blocks at once, and starts the
/// node again. Where it is the first write of a life, and nothing is left of it, the next life has
/// the same leader epoch.
pub async fn short_life(cluster: &Cluster, node: usize, random: &mut Random) {
    let executor = cluster.simulation.executor();
    let bytes_min = if random.chance(MILLION / 4) { 1 } else { 2 * 4096 };
    let given_up_ns = executor.now_ns() + SHORT_LIFE_NS_MAX;
    let is_torn = |(path, bytes): &(String, usize)| path.ends_with(".log") && *bytes >= bytes_min;
    let is_any_torn = || cluster.disk(node).under_way().iter().any(is_torn);
    while !is_any_torn() && executor.now_ns() < given_up_ns {
        executor.sleep_until(executor.now_ns() + 2_000_000).await;
    }
    cluster.crash_now(node, Crash::Power, random).await;
    cluster.start(node, random).await;
}

/// Several nodes, or all, at about the same moment.
async fn strike_several(trouble: Trouble, cluster: &Cluster, random: &mut Random) {
    let most = cluster.nodes().len() as u64;
    let wanted = if random.chance(MILLION / 2) { most } else { random.between(2..=most) };
    let nodes: Vec<usize> = (0..wanted).map_while(|_| cluster.take(random)).collect();
    let ids: Vec<i32> = nodes.iter().map(|node| Cluster::id(*node)).collect();
    cluster.simulation.executor().note(&format!("trouble: {trouble:?} of nodes {ids:?}"));
    let how = if trouble == Trouble::Kills { Crash::Process } else { Crash::Power };
    cluster.crash_all(&nodes, how, random).await;
    for node in nodes {
        cluster.give_back(node);
    }
}

/// Routes between nodes, and from clients, are blocked for a while.
async fn cut_off(trouble: Trouble, cluster: &Cluster, workload: &Workload, random: &mut Random) {
    let simulation = &cluster.simulation;
    let hosts: Vec<HostId> = cluster.nodes().map(|node| cluster.host(node)).collect();
    let one = *random.pick(&hosts);
    let others = || hosts.iter().copied().filter(|host| *host != one);
    let mut routes: Vec<(HostId, HostId)> = Vec::new();
    match trouble {
        Trouble::Isolation => {
            routes.extend(others().flat_map(|other| [(one, other), (other, one)]));
        }
        Trouble::Muteness => {
            let all = random.chance(MILLION / 2);
            let chosen: Vec<HostId> = others().collect();
            let chosen = if all { chosen } else { vec![*random.pick(&chosen)] };
            routes.extend(chosen.into_iter().map(|other| (one, other)));
        }
        _ => {
            let with_clients = random.chance(MILLION / 2);
            let clients = if with_clients { workload.hosts() } else { Vec::new() };
            let all: Vec<HostId> = hosts.iter().copied().chain(clients).collect();
            let sides: Vec<bool> = all.iter().map(|_| random.chance(MILLION / 2)).collect();
            for (&from, side) in all.iter().zip(&sides) {
                let across = all.iter().zip(&sides).filter(|(_, other)| *other != side);
                routes.extend(across.map(|(&to, _)| (from, to)));
            }
            // Clients do not talk to each other.
            routes.retain(|(from, to)| hosts.contains(from) || hosts.contains(to));
        }
    }
    simulation.executor().note(&format!("trouble: {trouble:?}"));
    for &(from, to) in &routes {
        simulation.block(from, to);
    }
    sleep_ms(cluster, random, 1..=15_000).await;
    unblock(simulation, routes);
}

fn unblock(simulation: &Simulation, routes: Vec<(HostId, HostId)>) {
    for (from, to) in routes {
        simulation.unblock(from, to);
    }
}

fn block_clients(
    cluster: &Cluster,
    node: usize,
    clients: &[HostId],
    random: &mut Random,
) -> Vec<(HostId, HostId)> {
    let (mut blocked, node) = (Vec::new(), cluster.host(node));
    let everyone = random.chance(MILLION / 4);
    for &client in clients {
        if !everyone && !random.chance(MILLION / 2) {
            continue;
        }
        let ways = random.between(1..=3);
        if ways & 1 != 0 {
            blocked.push((client, node));
        }
        if ways & 2 != 0 {
            blocked.push((node, client));
        }
    }
    for &(from, to) in &blocked {
        cluster.simulation.block(from, to);
    }
    blocked
}
