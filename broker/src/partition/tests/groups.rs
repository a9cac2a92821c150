//! Replicas of one partition on three nodes of the simulated network.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::types::Uuid;
use vltava_storage::io::fault_disk::FaultDisk;
use vltava_storage::{
    AppendClass, EnvironmentOptions, KeyedJournal, Log, LogEnvironment, LogOptions, Opened,
    load_journals, load_notes, remove_leftovers,
};

use crate::metadata::shard_table::ShardTable;
use crate::metrics::ShardMetrics;
use crate::partition::client::Partitions;
use crate::partition::elections::Elections;
use crate::partition::error::PartitionError;
use crate::partition::fetch;
use crate::partition::flights::Flights;
use crate::partition::replica::{GroupPlace, Replica};
use crate::partition::request::{Found, PartitionId, ReadFrom};
use crate::partition::standstill::Standstill;
use crate::partition::surroundings::{FromPeers, Surroundings};
use crate::partition::throttle::{ShardThrottles, Throttles};
use crate::peer::greeting::Introduction;
use crate::peer::options::Options;
use crate::peer::peers::Peers;
use crate::raft::membership::{Membership, ReplicaId};
use crate::runtime::jobs::Jobs;
use crate::runtime::mesh::mesh;
use crate::runtime::sim::{Crash, DiskOptions, HostId, SimRuntime, Simulation, SimulationOptions};
use crate::runtime::{Network, Queue, Runtime};

pub(super) const MS: u64 = 1_000_000;
const PORT: u16 = 9192;
pub(super) const PARTITION: PartitionId = PartitionId { topic_id: Uuid(7), index: 0 };
/// Elections of a node that are under way at a time.
pub(super) const ELECTIONS_MAX: usize = 1;
pub(super) const NODES: usize = 3;

struct Node {
    host: HostId,
    starts: u64,
    partitions: Option<Rc<Partitions<SimRuntime>>>,
    replica: Option<Rc<Replica<SimRuntime>>>,
    surroundings: Option<Rc<Surroundings<SimRuntime>>>,
    /// As they were set, also over its starts.
    throttles: Arc<Throttles>,
}

pub(super) struct Cluster {
    pub(super) simulation: Simulation,
    /// Of logs and groups as they are started.
    pub(super) options: LogOptions,
    pub(super) min_insync_replicas: usize,
    nodes: Vec<Node>,
    /// How many of the nodes found the group.
    founders: usize,
    /// Groups on each node: that of the partition, and others beside it.
    pub(super) groups: i32,
}

pub(super) fn id(index: usize) -> ReplicaId {
    let node = i32::try_from(index).unwrap() + 1;
    ReplicaId { node, disk: Uuid(1000 + index as u128) }
}

pub(super) fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.append(1, None, Some(value.as_bytes()), &[]).unwrap();
    Bytes::from(builder.build())
}

impl Cluster {
    fn new(seed: u64, founders: usize) -> Self {
        let simulation = Simulation::new(SimulationOptions::new(seed));
        let node = |_| Node {
            host: simulation.add_host(),
            starts: 0,
            partitions: None,
            replica: None,
            surroundings: None,
            throttles: Arc::default(),
        };
        let nodes = (0..NODES).map(node).collect();
        let options = LogOptions::default();
        Self { simulation, options, min_insync_replicas: 1, nodes, founders, groups: 1 }
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        self.sleep_us(1_000 * ms).await;
    }

    pub(super) async fn sleep_us(&self, us: u64) {
        let executor = self.simulation.executor();
        executor.sleep_until(executor.now_ns() + us * 1_000).await;
    }

    pub(super) async fn start(&mut self, index: usize) {
        let simulation = self.simulation.clone();
        let addresses: Vec<_> =
            self.nodes.iter().map(|node| simulation.address(node.host)).collect();
        let (options, least) = (self.options.clone(), self.min_insync_replicas);
        let (founders, groups) = (self.founders, self.groups);
        let node = &mut self.nodes[index];
        simulation.settled(node.host).await;
        node.starts += 1;
        let runtime = simulation.start(node.host, 1).remove(0);
        remove_leftovers(runtime.disk()).await.unwrap();
        let notes = load_notes(runtime.disk()).await.unwrap();
        let logs =
            LogEnvironment::new(runtime.disk().clone(), EnvironmentOptions::default(), 0, notes);
        let loaded = Arc::new(load_journals(runtime.disk()).await.unwrap());
        let journal = KeyedJournal::open(&logs, 0, 1, loaded).await.unwrap();
        let table = Arc::new(ShardTable::new(NonZeroUsize::MIN, BTreeMap::new()));
        let jobs = Jobs::new(mesh(1, 4).remove(0));
        let metrics = Rc::new(ShardMetrics::default());
        let partitions = Partitions::new(runtime.clone(), jobs, table, metrics);
        let jobs = Jobs::new(mesh(1, 4).remove(0));
        let introduction = Arc::new(Introduction {
            protocol: (1, 1),
            feature_level: 1,
            cluster_id: Some(Uuid(5)),
            node_id: id(index).node,
            disk_id: id(index).disk,
            start: node.starts,
            shards: 1,
            software: "test".into(),
            rack: None,
            endpoints: Vec::new(),
        });
        let throttles = Rc::new(ShardThrottles::new(Arc::clone(&node.throttles)));
        let events = FromPeers::new(&partitions, Rc::clone(&throttles));
        let peers =
            Peers::new(runtime.clone(), Rc::clone(&jobs), events, introduction, Options::default());
        runtime.spawn(Queue::Foreground, jobs.serve(runtime.clone(), Rc::clone(&peers)));
        let any = SocketAddr::from(([0, 0, 0, 0], PORT));
        let listener = runtime.network().listen(any).await.unwrap();
        runtime.spawn(Queue::Foreground, Rc::clone(&peers).accept(listener));
        for (other, address) in addresses.into_iter().enumerate().filter(|(at, _)| *at != index) {
            peers.know(id(other).node, SocketAddr::new(address, PORT));
        }
        let elections = Elections::new(runtime.clone(), ELECTIONS_MAX);
        let standstill = Arc::new(Standstill::new(runtime.now()));
        runtime.spawn(Queue::Sessions, Arc::clone(&standstill).keep(runtime.clone()));
        let own = id(index);
        let surroundings = Rc::new(Surroundings {
            own,
            journal,
            peers,
            throttles,
            elections,
            flights: Flights::default(),
            standstill,
        });
        node.replica = None;
        for number in 0..groups {
            let partition = PartitionId { index: number, ..PARTITION };
            let name = format!("topic-{number}");
            let log = match Log::open(&logs, &name, options.clone()).await {
                Ok(Opened::Ready(log)) => log,
                _ => Log::create(&logs, &name, PARTITION.topic_id, options.clone()).await.unwrap(),
            };
            let place = GroupPlace {
                partition,
                founders: Membership::new((0..founders).map(id), []),
                replicas: Vec::new(),
                rank: u32::try_from(index).unwrap(),
                named: None,
                surroundings: Rc::clone(&surroundings),
            };
            let joined = Replica::join(runtime.clone(), name, log, least, place).await.unwrap();
            partitions.ready(partition, Rc::clone(&joined));
            node.replica.get_or_insert(joined);
        }
        (node.partitions, node.surroundings) = (Some(partitions), Some(surroundings));
    }

    pub(super) fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        (node.partitions, node.replica, node.surroundings) = (None, None, None);
        self.simulation.kill(self.nodes[index].host, Crash::Power);
    }

    /// What a client gets of a node, from this offset on.
    pub(super) async fn read(
        &self,
        index: usize,
        offset: i64,
        may_follow: bool,
    ) -> Result<Found, PartitionError> {
        let read = ReadFrom {
            partition: PARTITION,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            offset,
            bytes_max: 1 << 20,
            may_follow,
            nearer: None,
        };
        fetch::read_all(self.partitions(index).unwrap(), vec![read], 1 << 20).await.remove(0)
    }

    /// Neither hears the other any more; nobody tells them.
    pub(super) fn block(&self, one: usize, other: usize) {
        let (one, other) = (self.nodes[one].host, self.nodes[other].host);
        self.simulation.block(one, other);
        self.simulation.block(other, one);
    }

    /// Stops a node where it stands; its connections stay.
    pub(super) fn pause(&self, index: usize) {
        self.simulation.pause(self.nodes[index].host);
    }

    /// Lets it go on.
    pub(super) fn resume(&self, index: usize) {
        self.simulation.resume(self.nodes[index].host);
    }

    pub(super) fn leader(&self) -> Option<usize> {
        let leads = |node: &Node| node.replica.as_ref()?.leads();
        let epochs =
            self.nodes.iter().enumerate().filter_map(|(at, node)| Some((leads(node)?, at)));
        epochs.max().map(|(_, at)| at)
    }

    /// The throttles of a node, over its starts.
    pub(super) fn throttles(&self, index: usize) -> &Throttles {
        &self.nodes[index].throttles
    }

    /// From now on the disk of a node takes so long.
    pub(super) fn set_disk_options(&self, index: usize, options: DiskOptions) {
        self.simulation.set_disk_options(self.nodes[index].host, options);
    }

    /// The disk of a node.
    pub(super) fn disk(&self, index: usize) -> FaultDisk {
        self.simulation.disk(self.nodes[index].host)
    }

    /// The replicas of a node that runs.
    pub(super) fn partitions(&self, index: usize) -> Option<Rc<Partitions<SimRuntime>>> {
        self.nodes[index].partitions.clone()
    }

    /// What the replicas of a node that runs share.
    pub(super) fn surroundings(&self, index: usize) -> Option<Rc<Surroundings<SimRuntime>>> {
        self.nodes[index].surroundings.clone()
    }

    /// Elections of a node that runs: how many are under way, and how many groups wait.
    pub(super) fn elections(&self, index: usize) -> Option<(usize, usize)> {
        Some(self.nodes[index].surroundings.as_ref()?.elections.load())
    }

    pub(super) fn replica(&self, index: usize) -> Rc<Replica<SimRuntime>> {
        Rc::clone(self.nodes[index].replica.as_ref().unwrap())
    }

    pub(super) async fn until(&self, ms: u64, what: &str, holds: impl Fn(&Self) -> bool) {
        for _ in 0..ms {
            if holds(self) {
                return;
            }
            self.sleep_ms(1).await;
        }
        panic!("not in {ms} ms: {what}");
    }

    /// Writes until it is acknowledged, as a client that asks again does.
    pub(super) async fn write(&self, value: &str) {
        self.write_batch(batch(value)).await;
    }

    /// The same of a batch.
    pub(super) async fn write_batch(&self, batch: Bytes) {
        for _ in 0..1000 {
            if let Some(leader) = self.leader()
                && self.try_write_batch(leader, batch.clone()).await.is_ok()
            {
                return;
            }
            self.sleep_ms(10).await;
        }
        panic!("{batch:?} was never acknowledged");
    }

    pub(super) async fn try_write(&self, index: usize, value: &str) -> Result<i64, PartitionError> {
        self.try_write_batch(index, batch(value)).await
    }

    async fn try_write_batch(&self, index: usize, batch: Bytes) -> Result<i64, PartitionError> {
        let queued = self.replica(index).append(batch, AppendClass::Client)?;
        queued.committed.await.unwrap_or(Err(PartitionError::Ended))?;
        Ok(queued.base_offset)
    }

    /// The log of a replica up to its high watermark.
    pub(super) async fn served(&self, index: usize) -> Bytes {
        let replica = self.replica(index);
        let (mut offset, end) = (0, replica.high_watermark());
        let mut all = Vec::new();
        while offset < end {
            let read = replica.log_to_read().read_in_memory(offset, end, 1 << 20).await.unwrap();
            for batch in vltava_protocol::batch::walk(&read) {
                offset = batch.unwrap().next_offset();
            }
            all.extend_from_slice(&read);
        }
        all.into()
    }
}

pub(super) fn tell<F: Future<Output = ()> + 'static>(seed: u64, story: impl FnOnce(Cluster) -> F) {
    tell_of(seed, NODES, story);
}

/// Of a group that the first so many nodes found.
pub(super) fn tell_of<F: Future<Output = ()> + 'static>(
    seed: u64,
    founders: usize,
    story: impl FnOnce(Cluster) -> F,
) {
    let cluster = Cluster::new(seed, founders);
    let simulation = cluster.simulation.clone();
    simulation.executor().run(600_000 * MS, story(cluster)).expect("ends");
    simulation.close();
}

#[test]
fn what_is_acknowledged_is_on_all_three() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            for index in 0..NODES {
                cluster.start(index).await;
            }
            cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
            for number in 0..50 {
                cluster.write(&format!("value {number}")).await;
            }
            let all = |cluster: &Cluster| {
                (0..NODES).all(|index| cluster.replica(index).high_watermark() == 50)
            };
            cluster.until(2_000, "all have it", all).await;
            let first = cluster.served(0).await;
            assert_eq!(first, cluster.served(1).await);
            assert_eq!(first, cluster.served(2).await);
        });
    }
}

#[test]
fn another_leads_where_the_leader_lost_its_power_and_nothing_is_lost() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            for index in 0..NODES {
                cluster.start(index).await;
            }
            let mut written = 0;
            for round in 0..6 {
                for _ in 0..10 {
                    cluster.write(&format!("value {written}")).await;
                    written += 1;
                }
                let leader = cluster.leader().expect("it has just written");
                cluster.kill(leader);
                cluster.write(&format!("value {written}, round {round}")).await;
                written += 1;
                cluster.start(leader).await;
            }
            let all = |cluster: &Cluster| {
                let end = cluster.leader().map(|leader| cluster.replica(leader).end());
                let has = |index| Some(cluster.replica(index).high_watermark()) == end;
                (0..NODES).all(has)
            };
            cluster.until(5_000, "all have it", all).await;
            let first = cluster.served(0).await;
            assert_eq!(first, cluster.served(1).await);
            assert_eq!(first, cluster.served(2).await);
            let text = String::from_utf8_lossy(&first).into_owned();
            for number in 0..written {
                assert!(text.contains(&format!("value {number}")), "{number} is lost");
            }
        });
    }
}

/// Whoever is caught up takes over at once, whatever was on its way is acknowledged or refused, and
/// nothing that was acknowledged is lost.
#[test]
fn a_leader_hands_over_under_load() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            for index in 0..NODES {
                cluster.start(index).await;
            }
            cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
            let mut acknowledged = Vec::new();
            for round in 0..6 {
                cluster.write(&format!("round {round}")).await;
                let leader = cluster.leader().expect("it has just written");
                let replica = cluster.replica(leader);
                let has_both = |_: &Cluster| replica.successors().len() == 2;
                cluster.until(2_000, "both could lead", has_both).await;
                let under_way: Vec<_> = (0..3)
                    .map(|nth| {
                        replica.append(batch(&format!("{round}/{nth}")), AppendClass::Client)
                    })
                    .collect();
                let to = replica.successors()[round % 2];
                let began = cluster.simulation.executor().now_ns();
                assert!(replica.hand_over(to).await, "round {round}");
                assert_eq!(replica.leads(), None);
                let heir = (0..NODES).find(|index| id(*index).node == to).unwrap();
                cluster.until(1_000, "it leads", |cluster| cluster.leader() == Some(heir)).await;
                let took_ms = (cluster.simulation.executor().now_ns() - began) / MS;
                assert!(took_ms < 100, "{took_ms} ms without a leader");
                for (nth, queued) in under_way.into_iter().enumerate() {
                    let committed = queued.expect("it led").committed.await;
                    if committed.is_ok_and(|committed| committed.is_ok()) {
                        acknowledged.push(format!("{round}/{nth}"));
                    }
                }
                assert!(!replica.hand_over(to).await || replica.leads().is_none());
            }
            cluster.write("the end").await;
            let leader = cluster.leader().expect("it has just written");
            let text = String::from_utf8_lossy(&cluster.served(leader).await).into_owned();
            for value in &acknowledged {
                assert_eq!(text.matches(value.as_str()).count(), 1, "{value}");
            }
            assert!(!acknowledged.is_empty(), "what is on its way is given time");
        });
    }
}

/// The third was away while what it lacks was deleted: it takes the log as it is.
#[test]
fn who_lacks_what_was_deleted_takes_the_log_as_it_is() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            for index in 0..NODES {
                cluster.start(index).await;
            }
            for number in 0..10 {
                cluster.write(&format!("value {number}")).await;
            }
            let away = (0..NODES).find(|index| Some(*index) != cluster.leader()).unwrap();
            cluster.kill(away);
            for number in 10..40 {
                cluster.write(&format!("value {number}")).await;
            }
            let leader = cluster.leader().unwrap();
            assert_eq!(cluster.replica(leader).delete_records(30).await, Ok(30));
            cluster.start(away).await;
            let has_all = |cluster: &Cluster| cluster.replica(away).high_watermark() == 40;
            cluster.until(10_000, "it has all there is", has_all).await;
            assert_eq!(cluster.leader(), Some(leader), "{away}");
            assert_eq!(cluster.replica(away).log_start(), 30);
            for number in 40..50 {
                cluster.write(&format!("value {number}")).await;
            }
            let has_all = |cluster: &Cluster| cluster.replica(away).high_watermark() == 50;
            cluster.until(2_000, "it goes on", has_all).await;
            cluster.kill(away);
            cluster.start(away).await;
            cluster.until(2_000, "it has it after a restart", has_all).await;
        });
    }
}
