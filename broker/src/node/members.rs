//! Changes of a partition's replicas, led by the node that leads the partition.
//!
//! The image says what is wanted; the group says what is. While the two differ, the partition's
//! leader takes one step after the other, and says to the controller when they are the same. It
//! looks at each new image, when it begins to lead, and while it is on the way; a partition that
//! nothing is wanted of costs nothing. Wherever it stops, for whatever reason, the next leader goes
//! on from there.
//!
//! No step is taken by an image that may be behind: the record must hold the leader's own epoch
//! (`cluster/reassign.rs` says what that is good for).

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::view::Node;
use crate::cluster::controller::{Input, Reply};
use crate::cluster::reassign::Report;
use crate::metadata::image::{Partition, PartitionId, Replica as ImageReplica, Topic};
use crate::partition::replica::Replica;
use crate::partition::replica::members::{Approach, Stand};
use crate::raft::membership::ReplicaId;
use crate::runtime::{Queue, Runtime};

/// How often a leader looks how far its group is.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// A change of replicas, as the leader of the partition finds it.
struct Led<R: Runtime> {
    partition: Partition,
    replica: Rc<Replica<R>>,
    epoch: i32,
}

impl<R: Runtime> Node<R> {
    /// Leads the changes of a topic's partitions that are led on this shard.
    pub(super) fn lead_changes(self: &Rc<Self>, topic: &Topic) {
        for (index, partition) in topic.indexed_partitions() {
            if partition.is_changing() {
                self.lead_change(topic.partition_id(index));
            }
        }
    }

    /// Leads the change of a partition's replicas, where one is under way and the partition is led
    /// on this shard.
    pub(super) fn lead_change(self: &Rc<Self>, id: PartitionId) {
        if self.led_change(id).is_some() && self.driving.borrow_mut().insert(id) {
            let node = Rc::clone(self);
            self.parts.runtime.spawn(Queue::Control, async move { node.drive(id).await });
        }
    }

    fn led_change(&self, id: PartitionId) -> Option<Led<R>> {
        let image = self.image();
        let partition = image.topic_by_id(id.topic_id)?.partition(id.index)?;
        if !partition.is_changing() {
            return None;
        }
        let replica = self.parts.partitions.local(id).ok()?;
        let epoch = replica.leads()?;
        Some(Led { partition: partition.clone(), replica, epoch })
    }

    async fn drive(self: Rc<Self>, id: PartitionId) {
        let runtime = &self.parts.runtime;
        let (mut approach, mut of) = (Approach::default(), None);
        while let Some(led) = self.led_change(id) {
            let what = (led.partition.changes, led.epoch);
            if of.replace(what) != Some(what) {
                approach = Approach::default();
            }
            let changed = led.replica.leadership_changes();
            self.step(id, &led, &mut approach).await;
            runtime.in_time(LOOK_PERIOD, changed).await;
        }
        self.driving.borrow_mut().remove(&id);
    }

    /// One step. Where the controller cannot be asked, or knows better, the image will tell.
    async fn step(self: &Rc<Self>, id: PartitionId, led: &Led<R>, approach: &mut Approach) {
        let Led { partition, replica, epoch } = led;
        let (changes, leader_epoch) = (partition.changes, *epoch);
        let report = Report { partition: id, changes, leader_epoch };
        if partition.leader_epoch != leader_epoch {
            let _known = self.ask_controller(Input::LeadChange(report)).await;
            return;
        }
        let target: Vec<ReplicaId> = self.membership(partition.target()).ids().collect();
        if replica.approach(&target, partition.leader_epoch, approach) != Stand::There {
            return;
        }
        let voters = target.iter().map(|id| ImageReplica { node_id: id.node, disk_id: id.disk });
        let input = Input::MembersChanged { report, voters: voters.collect() };
        if matches!(self.ask_controller(input).await, Ok(Reply::Noted { is_taken: true })) {
            let nodes: Vec<i32> = target.iter().map(|id| id.node).collect();
            tracing::info!(partition = replica.name(), ?nodes, "a partition has moved");
        }
    }

    /// The node that leads a partition, as far as is known here, where that is there.
    pub fn leader_there(&self, id: PartitionId) -> Option<i32> {
        let leader = self.leaders().leader(id).map(|leader| leader.node_id);
        leader.filter(|leader| self.present().contains(leader))
    }

    /// The newest that the image says of a partition, with its topic.
    pub(super) fn partition_now(&self, id: PartitionId) -> Option<(Arc<Topic>, Partition)> {
        let image = self.image();
        let topic = image.topic_by_id(id.topic_id)?;
        Some((Arc::clone(topic), topic.partition(id.index)?.clone()))
    }
}
