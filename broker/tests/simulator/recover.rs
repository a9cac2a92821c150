//! The story of a majority that is gone for good: nodes are lost with their disks, those that are
//! left are made to go on by the requests of `vltava cluster recover`, and only what the others
//! alone had is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use vltava::metadata::image::PartitionId;
use vltava::partition::replica::Replica;
use vltava::runtime::sim::{MILLION, Purpose, Random, SimRuntime, TraceSink};
use vltava_protocol::batch;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use vltava_protocol::types::Str;

use crate::agreement;
use crate::checkers::{Partition, RecordId};
use crate::client::{CallError, Client};
use crate::cluster::Cluster;
use crate::run::{Outcome, run_story};
use crate::swarm::Swarm;
use crate::workload::{RETRY, Role, Workload, ask, unpack};

/// In ElectLeaders.
const UNCLEAN: i8 = 1;
/// How long elections may take.
const ELECTION_MS: i32 = 10_000;

/// What is left of a partition: the records of the log that has most, by their offsets.
type Kept = BTreeMap<RecordId, i64>;

/// Tells it: two of three nodes are lost, or three of five.
pub fn recover(seed: u64, sink: Option<TraceSink>) -> Outcome {
    let mut random = Random::new(seed, Purpose::Faults, 3);
    let nodes: i16 = if random.chance(MILLION / 2) { 3 } else { 5 };
    let mut swarm = Swarm::quiet(seed, nodes.unsigned_abs().into());
    swarm.shape.replication.fill(nodes);
    swarm.think_max = Duration::from_millis(5);
    swarm.producer_timeout = Duration::from_secs(1);
    // No readers: what they saw may be gone, as they learn by its epoch.
    swarm.clients = vec![Role::ProducerAll, Role::ProducerAll, Role::ProducerAll];
    swarm.clients.push(Role::ProducerPlain);
    run_story(seed, Rc::new(swarm), sink, |cluster, workload| async move {
        let (_, client) = workload.client("operator");
        Story { cluster, workload, client, random }.tell().await;
    })
}

struct Story {
    cluster: Cluster,
    workload: Workload,
    client: Client,
    random: Random,
}

impl Story {
    async fn tell(&mut self) {
        self.sleep_up_to(1_000, 3_000).await;
        let (left, gone) = self.lose_a_majority().await;
        self.tell_checkers(&left, &gone).await;
        self.cluster.simulation.unblock_all();
        let named: Vec<String> = gone.iter().map(|node| Cluster::id(*node).to_string()).collect();
        let path = format!("/recover/{}", named.join(","));
        while !self.recover_metadata(&left, &path).await {
            self.client.pause(RETRY).await;
        }
        while !self.elect().await.unwrap_or(false) {
            self.client.pause(RETRY).await;
        }
        self.note("the cluster is recovered");
        self.sleep_up_to(0, 3_000).await;
        for node in gone {
            self.cluster.start(node, &mut self.random).await;
        }
    }

    async fn sleep_up_to(&mut self, least_ms: u64, most_ms: u64) {
        let executor = self.cluster.simulation.executor();
        let ms = self.random.between(least_ms..=most_ms);
        executor.sleep_until(executor.now_ns() + ms * 1_000_000).await;
    }

    fn note(&self, what: &str) {
        self.cluster.simulation.executor().note(what);
    }

    /// Those that will be left hear no more of the others, one after the other, as a rule; then the
    /// others are gone, with their disks. Gives both.
    async fn lose_a_majority(&mut self) -> (Vec<usize>, Vec<usize>) {
        let simulation = self.cluster.simulation.clone();
        let mut gone = self.cluster.places(true);
        let mut left = Vec::new();
        while left.len() + 1 < gone.len() {
            left.push(gone.swap_remove(self.random.index(gone.len())));
        }
        for &one in &left {
            if self.random.chance(MILLION * 3 / 4) {
                for other in self.cluster.nodes().filter(|other| *other != one) {
                    simulation.block(self.cluster.host(one), self.cluster.host(other));
                    simulation.block(self.cluster.host(other), self.cluster.host(one));
                }
            }
            self.sleep_up_to(0, 1_000).await;
        }
        for &node in &gone {
            self.cluster.cut_power(node);
            simulation.replace_disk(self.cluster.host(node));
        }
        (left, gone)
    }

    /// What nobody has any more was lost with those that are gone: that alone may be.
    async fn tell_checkers(&self, left: &[usize], gone: &[usize]) {
        let checkers = &self.workload.checkers;
        let ids: Vec<i32> = gone.iter().map(|node| Cluster::id(*node)).collect();
        ids.iter().for_each(|id| checkers.replicas.borrow_mut().has_left(*id));
        let fullest = self.fullest(left);
        let mut lost = 0;
        for topic in self.workload.topics.iter() {
            for partition in topic.all() {
                let id = PartitionId { topic_id: topic.id.get(), index: partition.1 };
                let kept = match fullest.get(&id) {
                    Some(replica) => kept(&partition, replica).await,
                    None => Kept::new(),
                };
                lost += checkers.acks.borrow_mut().lose_all_but(&partition, &kept);
            }
        }
        self.note(&format!("nodes {ids:?} are gone for good, with {lost} acknowledged records"));
    }

    /// The replica of each partition that has most, of those on these nodes.
    fn fullest(&self, nodes: &[usize]) -> BTreeMap<PartitionId, Rc<Replica<SimRuntime>>> {
        let mut fullest = BTreeMap::new();
        let shards = nodes.iter().flat_map(|node| self.cluster.shards(*node));
        for (id, replica) in shards.flat_map(|shard| shard.services.partitions.all_local()) {
            let Some(end) = replica.left().map(|left| left.log_end) else { continue };
            let known = fullest.entry(id).or_insert_with(|| (end, Rc::clone(&replica)));
            if end > known.0 {
                *known = (end, replica);
            }
        }
        fullest.into_iter().map(|(id, (_, replica))| (id, replica)).collect()
    }

    /// Whether a node that is left leads the cluster's metadata from now on. One that has less than
    /// another refuses, and one that has not noticed yet who is gone.
    async fn recover_metadata(&self, left: &[usize], path: &str) -> bool {
        for &node in left {
            let asked = ask(&self.client, self.cluster.address(node), "POST", path).await;
            if let Ok(Some((head, body))) = asked {
                self.note(&format!("node {}: {head}: {body}", Cluster::id(node)));
                if head.split(' ').nth(1) == Some("200") {
                    return true;
                }
            }
        }
        false
    }

    /// Whether all partitions have leaders now.
    async fn elect(&mut self) -> Result<bool, CallError> {
        let asked = self.workload.topics.iter().map(|topic| TopicPartitions {
            topic: Str::from(&*topic.name),
            partitions: (0..topic.partitions).collect(),
        });
        let request = ElectLeadersRequest {
            election_type: UNCLEAN,
            topic_partitions: Some(asked.collect()),
            timeout_ms: ELECTION_MS,
        };
        let answer = self.client.call(1, |_| request).await?;
        let results = answer.replica_election_results.iter();
        let errors: BTreeSet<i16> = results
            .flat_map(|topic| &topic.partition_result)
            .map(|result| result.error_code.0)
            .collect();
        self.note(&format!("elections: {errors:?}"));
        let is_led =
            |error: &i16| [ErrorCode::NONE.0, ErrorCode::ELECTION_NOT_NEEDED.0].contains(error);
        Ok(answer.error_code.is_none() && !errors.is_empty() && errors.iter().all(is_led))
    }
}

/// The records that a replica has on its disk.
async fn kept(partition: &Partition, replica: &Replica<SimRuntime>) -> Kept {
    let end = replica.left().map_or(0, |left| left.log_end.offset);
    let mut kept = Kept::new();
    for bytes in agreement::read(replica, replica.log_start(), end).await.into_values() {
        for batch in batch::walk(&bytes).map_while(Result::ok) {
            let records = unpack(partition, &batch).into_iter();
            kept.extend(records.map(|(offset, id)| (id, offset)));
        }
    }
    kept
}
