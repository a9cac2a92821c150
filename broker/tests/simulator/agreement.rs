//! Replicas as the simulator sees them from outside: while the run goes on, and at rest, when all
//! must be the same.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use bytes::Bytes;
use vltava::metadata::image::PartitionId;
use vltava::partition::replica::Replica;
use vltava::raft::node::Role;
use vltava::runtime::sim::{HARNESS, SimRuntime};
use vltava_protocol::batch;

use crate::checkers::{Life, Seen};
use crate::cluster::Cluster;
use crate::losses;
use crate::promise;

/// How often replicas are looked at, in nanoseconds of virtual time.
const PERIOD_NS: u64 = 10_000_000;
/// How long replicas may take to be the same once nothing fails and nobody writes, counted from
/// when anything arrived last: a network may be drawn that takes minutes for a log.
const REST_NS_MAX: u64 = 120_000_000_000;
/// The same, whatever arrives.
const AGREEMENT_NS_MAX: u64 = 10 * REST_NS_MAX;
/// Bytes of a log that are read at a time.
const STEP_BYTES: usize = 1 << 20;

/// What did not come to pass in time, as the payload of the panic that ends the run.
#[derive(Debug)]
pub struct Overdue(pub String);

/// A replica of a partition, and the node that has it.
struct Held {
    node: i32,
    replica: Rc<Replica<SimRuntime>>,
}

/// All replicas of all nodes that run, by partition.
fn held(cluster: &Cluster) -> BTreeMap<PartitionId, Vec<Held>> {
    let mut held: BTreeMap<PartitionId, Vec<Held>> = BTreeMap::new();
    for node in cluster.nodes() {
        for shard in cluster.shards(node) {
            for (partition, replica) in shard.services.partitions.all_local() {
                held.entry(partition).or_default().push(Held { node: Cluster::id(node), replica });
            }
        }
    }
    held
}

/// Waits until all nodes know of all nodes: who asks for more replicas than there are nodes is
/// refused.
pub async fn form(cluster: &Cluster) {
    if cluster.swarm.shape.is_alone() {
        return;
    }
    let executor = cluster.simulation.executor();
    let count = cluster.nodes().len();
    let knows_all = |node| {
        let shards = cluster.shards(node);
        let mut images = shards.iter().map(|shard| shard.services.node.image());
        !shards.is_empty() && images.all(|image| image.node_count() == count)
    };
    while !cluster.nodes().all(knows_all) {
        executor.sleep_until(executor.now_ns() + PERIOD_NS).await;
    }
    executor.note(&format!("a cluster of {count}"));
}

/// Looks at all replicas again and again, as long as the run goes on.
pub fn watch(cluster: &Cluster) {
    if cluster.swarm.shape.is_alone() {
        return;
    }
    let executor = cluster.simulation.executor().clone();
    let cluster = cluster.clone();
    executor.clone().spawn(HARNESS, async move {
        loop {
            executor.sleep_until(executor.now_ns() + PERIOD_NS).await;
            look(&cluster);
        }
    });
}

fn look(cluster: &Cluster) {
    let mut replicas = cluster.checkers.replicas.borrow_mut();
    for node in cluster.nodes() {
        let life = match cluster.has_bad_disk(node) {
            // A log that does not close as it changes its shard is recovered, as at a start.
            true => Life::Unknown,
            false => Life::Start(cluster.starts_of(node)),
        };
        for shard in cluster.shards(node) {
            for (partition, replica) in shard.services.partitions.all_local() {
                if replica.is_restoring() {
                    continue;
                }
                let seen = Seen {
                    node: Cluster::id(node),
                    life,
                    role: replica.role(),
                    epoch: replica.leader_epoch(),
                    high_watermark: replica.high_watermark(),
                    end: replica.end(),
                };
                replicas.observe(partition, seen, &replica);
            }
        }
    }
}

/// Waits until every partition has a leader and all its replicas are the same; then compares them,
/// byte by byte.
pub async fn reach(cluster: &Cluster) {
    if cluster.swarm.shape.is_alone() {
        return;
    }
    let executor = cluster.simulation.executor();
    let began_ns = executor.now_ns();
    let (mut most, mut arrived_ns) = (0, began_ns);
    while let Some(missing) = missing(cluster) {
        let (now_ns, records) = (executor.now_ns(), records(cluster));
        if records > most {
            (most, arrived_ns) = (records, now_ns);
        }
        if now_ns > (arrived_ns + REST_NS_MAX).min(began_ns + AGREEMENT_NS_MAX) {
            std::panic::resume_unwind(Box::new(Overdue(missing)));
        }
        executor.sleep_until(executor.now_ns() + 100_000_000).await;
    }
    for (partition, held) in held(cluster) {
        compare(partition, &held).await;
    }
}

/// How many records all replicas have together.
fn records(cluster: &Cluster) -> i64 {
    let held = held(cluster);
    held.values().flatten().map(|it| it.replica.end() - it.replica.log_start()).sum()
}

/// What is not as it should be yet.
pub fn missing(cluster: &Cluster) -> Option<String> {
    let held = held(cluster);
    let images: Vec<_> = cluster
        .nodes()
        .flat_map(|node| cluster.shards(node).into_iter().map(move |shard| (node, shard)))
        .map(|(node, shard)| (Cluster::id(node), shard.services.node.image()))
        .collect();
    let mut wanted: BTreeMap<PartitionId, BTreeSet<i32>> = BTreeMap::new();
    for (_, image) in &images {
        for topic in image.topics() {
            for (index, partition) in topic.indexed_partitions() {
                if !partition.adding.is_empty() || !partition.removing.is_empty() {
                    let (name, adding) = (&topic.name, &partition.adding);
                    let removing = &partition.removing;
                    return Some(format!("{name}-{index} moves: +{adding:?} -{removing:?}"));
                }
                let nodes = partition.node_ids().into_iter().collect();
                wanted.insert(topic.partition_id(index), nodes);
            }
        }
    }
    let all: BTreeSet<i32> = cluster.nodes().map(Cluster::id).collect();
    wanted.insert(PartitionId::CLUSTER_METADATA, all.clone());
    for (node, image) in &images {
        let known: BTreeSet<i32> = image.nodes().map(|node| node.id).collect();
        if known != all {
            let group = PartitionId::CLUSTER_METADATA;
            let states = held.get(&group).and_then(|held| unequal(group, &all, held));
            return Some(format!(
                "node {node} knows nodes {known:?}, and there are {all:?}; {states:?}"
            ));
        }
        let count = image.topics().map(|topic| topic.partition_ids().count()).sum::<usize>();
        if count + 1 != wanted.len() {
            return Some(format!("node {node} knows {count} partitions of {}", wanted.len() - 1));
        }
    }
    let outstanding = losses::outstanding(cluster).filter(|_| cluster.swarm.shape.disks_are_lost);
    if outstanding.is_some() {
        return outstanding;
    }
    let nobody = Vec::new();
    wanted.iter().find_map(|(partition, nodes)| {
        unequal(*partition, nodes, held.get(partition).unwrap_or(&nobody))
    })
}

fn unequal(partition: PartitionId, nodes: &BTreeSet<i32>, held: &[Held]) -> Option<String> {
    let have: BTreeSet<i32> = held.iter().map(|it| it.node).collect();
    if have != *nodes || held.len() != nodes.len() {
        return Some(format!("{partition:?} is on nodes {have:?}, and should be on {nodes:?}"));
    }
    let state = |it: &Held| {
        let Held { node, replica } = it;
        let (role, epoch) = (replica.role(), replica.leader_epoch());
        let (high_watermark, end) = (replica.high_watermark(), replica.end());
        format!("node {node}: {role:?} in {epoch}, {high_watermark} of {end} committed")
    };
    let states = || held.iter().map(state).collect::<Vec<_>>().join("; ");
    let leaders = held.iter().filter(|it| it.replica.leads().is_some()).count();
    if leaders != 1 {
        return Some(format!("{partition:?} has {leaders} leaders: {}", states()));
    }
    let first = held.first()?;
    let is_same = |it: &Held| {
        it.replica.high_watermark() == first.replica.end()
            && it.replica.end() == first.replica.end()
            && it.replica.leader_epoch() == first.replica.leader_epoch()
            && it.replica.role() != Role::Ended
    };
    (!held.iter().all(is_same)).then(|| format!("{partition:?} differs: {}", states()))
}

/// Compares what all of them have: nobody writes, but a coordinator may still shorten its log.
async fn compare(partition: PartitionId, held: &[Held]) {
    let end = held.iter().map(|it| it.replica.high_watermark()).min().unwrap_or(0);
    let mut all: Vec<(i32, BTreeMap<i64, Bytes>)> = Vec::new();
    for Held { node, replica } in held {
        all.push((*node, read(replica, 0, end).await));
    }
    let start = held.iter().map(|it| it.replica.log_start()).max().unwrap_or(0);
    for (_, batches) in &mut all {
        batches.retain(|offset, _| *offset >= start);
    }
    let Some(((of, known), others)) = all.split_first() else { return };
    for (node, batches) in others {
        for (offset, bytes) in batches {
            promise!(
                known.get(offset) == Some(bytes),
                "{partition:?}: the batch at {offset} of node {node} is not that of node {of}"
            );
        }
        promise!(
            known.len() == batches.len(),
            "{partition:?}: node {of} has {} batches, and node {node} {}",
            known.len(),
            batches.len()
        );
    }
}

/// The batches of a replica between two offsets, from its start on.
pub async fn read(replica: &Replica<SimRuntime>, start: i64, end: i64) -> BTreeMap<i64, Bytes> {
    let (mut batches, mut offset) = (BTreeMap::new(), start.max(replica.log_start()));
    while offset < end {
        let name = replica.name();
        let read = replica.read_bytes(offset, STEP_BYTES).await;
        if replica.log_start() > offset {
            offset = replica.log_start();
            continue;
        }
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(error) => crate::checkers::violation(format!("{name}@{offset}: {error}")),
        };
        let before = offset;
        for batch in batch::walk(&bytes) {
            match batch {
                Ok(batch) => {
                    offset = batch.next_offset();
                    batches.insert(batch.base_offset(), Bytes::copy_from_slice(batch.bytes()));
                }
                Err(error) => crate::checkers::violation(format!("{name}@{offset}: {error}")),
            }
        }
        promise!(offset > before, "{name}: nothing can be read at {offset}");
    }
    // What is behind may have come meanwhile.
    batches.retain(|offset, _| *offset < end);
    batches
}
