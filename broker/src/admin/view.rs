//! How one shard stands, and the way to ask all of them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::future::ready;
use std::rc::Rc;
use std::time::Duration;

use super::report::{
    Bounded, GroupOffset, OFFSETS_SHOWN_MAX, OUT_OF_SERVICE_NAMED_MAX, PARTITIONS_SHOWN_MAX,
    PartitionFacts, Readiness, Report,
};
use crate::cluster::controller::Controller;
use crate::coordinator::hosts::Hosts;
use crate::groups::GroupMachine;
use crate::metadata::image::PartitionId;
use crate::metrics::{Memory, ShardMetrics};
use crate::node::Node;
use crate::partition::client::Partitions;
use crate::partition::replica::Replica;
use crate::runtime::Runtime;
use crate::runtime::jobs::Jobs;

/// What a shard's view is made of.
pub struct Parts<R: Runtime> {
    /// The shard's executor.
    pub runtime: R,
    /// What this shard counts.
    pub metrics: Rc<ShardMetrics>,
    /// The partitions of this node.
    pub partitions: Rc<Partitions<R>>,
    /// The group coordinators of this node.
    pub groups: Rc<Hosts<GroupMachine, R>>,
    /// The controller, where this node has it.
    pub controllers: Rc<Hosts<Controller, R>>,
    /// The image.
    pub node: Rc<Node<R>>,
    /// Looks up what memory this shard holds.
    pub memory: Box<dyn Fn() -> Memory>,
    /// The views of the other shards.
    pub jobs: Rc<Jobs<View<R>>>,
    /// `disk.reserve.bytes`.
    pub disk_reserve_bytes: u64,
}

/// One shard, as the admin port sees it.
pub struct View<R: Runtime> {
    pub(super) parts: Parts<R>,
    is_stopping: Cell<bool>,
}

/// A shard has not answered in time, or has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("shard {0} does not answer")]
pub struct Silent(pub usize);

impl<R: Runtime> View<R> {
    /// The view of a shard.
    pub fn new(parts: Parts<R>) -> Rc<Self> {
        Rc::new(Self { parts, is_stopping: Cell::new(false) })
    }

    /// The broker has been told to stop: it is not ready any more.
    pub fn stop(&self) {
        self.is_stopping.set(true);
    }

    /// Asks every shard, all at once; their answers in the order of the shards.
    pub(super) async fn ask_all<A: Send + 'static>(
        self: &Rc<Self>,
        time: Duration,
        question: impl Fn(&Rc<Self>) -> A + Clone + Send + 'static,
    ) -> Result<Vec<A>, Silent> {
        let jobs = &self.parts.jobs;
        // Which shard is waited for.
        let waiting_for = Cell::new(0);
        let asking = async {
            let mut asked = Vec::with_capacity(jobs.count());
            for shard in 0..jobs.count() {
                waiting_for.set(shard);
                if shard == jobs.own() {
                    asked.push(None);
                    continue;
                }
                let question = question.clone();
                let job = move |view: &Rc<Self>| ready(question(view));
                asked.push(Some(jobs.start(shard, job).await));
            }
            let mut answers = Vec::with_capacity(asked.len());
            for (shard, pending) in asked.into_iter().enumerate() {
                waiting_for.set(shard);
                answers.push(match pending {
                    None => question(self),
                    Some(pending) => pending.await.ok_or(Silent(shard))?,
                });
            }
            Ok(answers)
        };
        let answers = self.parts.runtime.in_time(time, asking).await;
        answers.unwrap_or_else(|| Err(Silent(waiting_for.get())))
    }

    /// How this shard stands. The high watermarks of `offsets` are not known yet: their partitions
    /// may be on other shards.
    pub(super) fn report(&self) -> Report {
        let hosts = self.parts.groups.all_local();
        let groups = hosts.iter().filter_map(|host| host.read(|state| state.group_count()));
        let controller = self.parts.controllers.local(PartitionId::CLUSTER_METADATA);
        Report {
            metrics: self.parts.metrics.snapshot((self.parts.memory)()),
            partitions: self.partitions(),
            damaged_partitions: self.parts.node.damaged_partitions(),
            groups: groups.sum(),
            offsets: self.offsets(),
            is_controller: controller.is_some_and(|host| host.read(|_| ()).is_some()),
            tally: self.parts.node.tally(),
            readiness: self.readiness(),
        }
    }

    fn partitions(&self) -> Bounded<PartitionFacts> {
        let local = self.parts.partitions.all_local();
        let facts = local.iter().map(|(id, replica)| partition_facts(*id, replica));
        Bounded::collect(facts, PARTITIONS_SHOWN_MAX)
    }

    fn offsets(&self) -> Bounded<GroupOffset> {
        let image = self.parts.node.image();
        let mut offsets = Bounded::default();
        for host in self.parts.groups.all_local() {
            let of_host = host.read(|state| {
                let committed = state.committed_offsets();
                let committed = committed.map(|(group, topic, partition, committed)| GroupOffset {
                    group: group.clone(),
                    topic: topic.clone(),
                    partition,
                    id: image.topic(topic).map(|topic| topic.partition_id(partition)),
                    committed: committed.offset,
                    high_watermark: None,
                });
                Bounded::collect(committed, OFFSETS_SHOWN_MAX)
            });
            offsets.add(of_host.unwrap_or_default(), OFFSETS_SHOWN_MAX);
        }
        offsets
    }

    /// Whether this shard serves.
    pub(super) fn readiness(&self) -> Readiness {
        let mut readiness =
            Readiness { is_stopping: self.is_stopping.get(), ..Readiness::default() };
        if !self.parts.node.serving.is_set() {
            readiness.not_serving.push(self.parts.jobs.own());
        }
        let image = self.parts.node.image();
        let broken = self.parts.partitions.broken_local();
        let broken = broken.into_iter().map(|(id, why)| {
            let topic = image.topic_by_id(id.topic_id);
            let topic = topic.map_or_else(|| id.topic_id.to_string(), |t| t.name.to_string());
            format!("{topic}-{}: {why}", id.index)
        });
        let local = self.parts.partitions.all_local();
        let ended = local.iter().filter_map(|(_, replica)| {
            let why = replica.refuses()?;
            Some(format!("{}: {why}", replica.name()))
        });
        let hosts = self.parts.groups.all_local();
        let damaged = hosts.iter().filter_map(|host| {
            let why = host.damage()?;
            Some(format!("{}: its records cannot be replayed: {why}", host.replica().name()))
        });
        for reason in broken.chain(ended).chain(damaged) {
            readiness.out_of_service_count += 1;
            if readiness.out_of_service.len() < OUT_OF_SERVICE_NAMED_MAX {
                readiness.out_of_service.push(reason);
            }
        }
        readiness
    }

    /// Asks the owners of the partitions that offsets are of for their high watermarks.
    pub(super) async fn complete(
        self: &Rc<Self>,
        offsets: &mut [GroupOffset],
        time: Duration,
    ) -> Result<(), Silent> {
        let shards = self.parts.jobs.count();
        let mut wanted: Vec<Vec<PartitionId>> = vec![Vec::new(); shards];
        for id in offsets.iter().filter_map(|offset| offset.id) {
            wanted[self.parts.partitions.shard_of(id)].push(id);
        }
        for ids in &mut wanted {
            ids.sort_unstable();
            ids.dedup();
        }
        let found = self.ask_all(time, move |view| {
            let ids = wanted[view.parts.jobs.own()].iter();
            let found = ids.filter_map(|id| {
                let replica = view.parts.partitions.local(*id).ok()?;
                Some((*id, replica.high_watermark()))
            });
            found.collect::<Vec<_>>()
        });
        let found: BTreeMap<_, _> = found.await?.into_iter().flatten().collect();
        for offset in offsets {
            offset.high_watermark = offset.id.and_then(|id| found.get(&id).copied());
        }
        Ok(())
    }
}

fn partition_facts<R: Runtime>(id: PartitionId, replica: &Replica<R>) -> PartitionFacts {
    let name = replica.name();
    let topic = name.rsplit_once('-').map_or(name, |(topic, _)| topic);
    PartitionFacts {
        topic: topic.to_owned(),
        partition: id.index,
        size_bytes: replica.size_bytes(),
        log_start: replica.log_start(),
        log_end: replica.end(),
        high_watermark: replica.high_watermark(),
    }
}
