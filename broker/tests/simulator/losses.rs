//! Disks that were lost: what one of a partition's three replicas held is made good by the others,
//! if no other is lost before. So nothing is lost anew before that is done.

use std::collections::{BTreeMap, BTreeSet};

use vltava::metadata::image::{Image, Partition, PartitionId};
use vltava_protocol::types::Uuid;

use crate::checkers::violation;
use crate::cluster::Cluster;
use crate::rot;

/// So many replicas survive the loss of one of them without a pause.
const SAFE: usize = 3;
/// How long it may take where nothing else happens, in nanoseconds of virtual time.
const PATIENCE_NS: u64 = 120_000_000_000;
/// In a node's data directory: who it is.
const IDENTITY: &str = "meta.properties";
/// The line that says which disk it is.
const DISK_ID: &str = "directory.id=";
/// Ends the names of logs that were set aside, until their replicas have it all again.
const SET_ASIDE: &str = "-damaged/";

/// The disk that each node has, by its number; none where a node has not made itself one yet.
fn disks(cluster: &Cluster) -> BTreeMap<i32, Uuid> {
    let disk = |node| {
        let content = cluster.disk(node).content(IDENTITY)?;
        let text = String::from_utf8(content).ok()?;
        let id = text.lines().find_map(|line| line.strip_prefix(DISK_ID)?.parse().ok())?;
        Some((Cluster::id(node), id))
    };
    cluster.nodes().filter_map(disk).collect()
}

/// What is not made good yet; nothing where nothing that is gone counts any more: every node runs,
/// knows of no disk but those that there are, neither as one of the cluster's nor as one of a
/// partition's, and has what its last disk knew to be committed; all of them belong to group 0. An
/// image names each disk that may belong to a partition's group (`docs/invariants.md`), and none
/// forgets one before the group has.
pub fn outstanding(cluster: &Cluster) -> Option<String> {
    if let Some(damage) = rot::outstanding(cluster) {
        return Some(damage);
    }
    let disks = disks(cluster);
    cluster.nodes().find_map(|node| outstanding_of(cluster, node, &disks))
}

/// Waits until everything is made good, while nothing else fails.
pub async fn made_good(cluster: &Cluster) {
    let executor = cluster.simulation.executor();
    let given_up_ns = executor.now_ns() + PATIENCE_NS;
    while let Some(left) = outstanding(cluster) {
        if executor.now_ns() > given_up_ns {
            violation(format!("it is not made good: {left}"));
        }
        executor.sleep_until(executor.now_ns() + 100_000_000).await;
    }
}

fn outstanding_of(cluster: &Cluster, node: usize, disks: &BTreeMap<i32, Uuid>) -> Option<String> {
    let (shards, id) = (cluster.shards(node), Cluster::id(node));
    let replicas = cluster.checkers.replicas.borrow();
    if shards.is_empty() {
        return Some(format!("node {id} does not run"));
    }
    for shard in &shards {
        let image = shard.services.node.image();
        if let Some(unknown) = unknown_disk(&image, disks) {
            return Some(format!("node {id} counts on {unknown}"));
        }
        if replicas.is_owed(|partition, node| is_to_keep(&image, partition, node)) {
            return Some(format!("as node {id} sees it, somebody lacks what a lost disk had"));
        }
        if let Ok(group) = shard.services.partitions.local(PartitionId::CLUSTER_METADATA) {
            if group.high_watermark() < group.end() {
                // As a topic that is made with fewer replicas, and that no image shows yet.
                return Some(format!("node {id} does not know yet what is decided"));
            }
            let members: BTreeMap<i32, Uuid> =
                group.members().ids().map(|id| (id.node, id.disk)).collect();
            if members != *disks {
                return Some(format!("node {id} knows group 0 as {members:?}, not {disks:?}"));
            }
        }
    }
    let files = cluster.disk(node).files();
    let set_aside = files.into_iter().find(|path| path.contains(SET_ASIDE));
    set_aside.map(|path| format!("node {id} keeps {path}"))
}

fn is_to_keep(image: &Image, partition: PartitionId, node: i32) -> bool {
    let topic = image.topic_by_id(partition.topic_id);
    let kept = topic.and_then(|topic| topic.partition(partition.index));
    partition == PartitionId::CLUSTER_METADATA
        || kept.is_some_and(|kept| kept.node_ids().contains(&node))
}

/// Whether a partition has too few replicas, or had before the change that is under way: those
/// decide until it is done.
fn is_few(partition: &Partition) -> bool {
    let Partition { replicas, adding, .. } = partition;
    let before = replicas.iter().filter(|replica| !adding.contains(replica));
    partition.target().count().min(before.count()) < SAFE
}

/// What an image names that there is not.
fn unknown_disk(image: &Image, disks: &BTreeMap<i32, Uuid>) -> Option<String> {
    let known: BTreeMap<i32, BTreeSet<Uuid>> =
        image.nodes().map(|node| (node.id, node.disks.iter().copied().collect())).collect();
    let is_known = |(node, disk): (&i32, &Uuid)| known.get(node) == Some(&BTreeSet::from([*disk]));
    if known.len() != disks.len() || !disks.iter().all(is_known) {
        return Some(format!("{known:?}, and there are {disks:?}"));
    }
    image.topics().find_map(|topic| {
        if topic.partitions.iter().any(|partition| is_few(partition)) {
            // As one that was made while a node was away.
            return Some(format!("fewer than {SAFE} replicas of {}", topic.name));
        }
        let mut places = topic.partitions.iter().flat_map(|partition| &partition.replicas);
        let lost = places.find(|place| disks.get(&place.node_id) != Some(&place.disk_id))?;
        Some(format!("disk {} of node {} for {}", lost.disk_id, lost.node_id, topic.name))
    })
}
