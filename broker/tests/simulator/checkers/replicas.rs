//! One leader an epoch; epochs and high watermarks of a replica never go back; what it knew to be
//! committed is on its disk after a restart.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::{Rc, Weak};

use vltava::metadata::image::PartitionId;
use vltava::partition::replica::Replica;
use vltava::raft::node::Role;
use vltava::runtime::sim::SimRuntime;
use vltava_protocol::types::Uuid;

use crate::promise;

/// A leader that was named without a majority begins with an epoch so far above all others: whoever
/// hears of it forgets what it knew to be committed.
const EPOCHS_APART: i32 = 1 << 16;

/// Which life of a node.
#[derive(Clone, Copy, Debug)]
pub enum Life {
    /// That of its so-manieth start.
    Start(u64),
    /// Its replicas may have been recovered since they were seen last.
    Unknown,
}

/// What is to be seen of a replica at a moment.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its node.
    pub node: i32,
    /// Which life of the node.
    pub life: Life,
    /// What it is in its group.
    pub role: Role,
    /// Its epoch.
    pub epoch: i32,
    /// What it knows to be committed.
    pub high_watermark: i64,
    /// The end of its log.
    pub end: i64,
}

/// What was seen of a replica last.
struct Known {
    life: Life,
    epoch: i32,
    high_watermark: i64,
    /// The highest epoch in which it led, in any life.
    led: i32,
    /// The highest that it ever knew to be committed.
    committed: i64,
}

/// What was seen last of a replica that may come and go, while it is there.
struct Passing {
    replica: Weak<Replica<SimRuntime>>,
    epoch: i32,
    high_watermark: i64,
}

impl Life {
    fn is_surely(self, other: Self) -> bool {
        matches!((self, other), (Self::Start(one), Self::Start(two)) if one == two)
    }
}

/// All replicas of a run, as they were seen from outside.
#[derive(Default)]
pub struct Replicas {
    leaders: BTreeMap<(PartitionId, i32), i32>,
    known: BTreeMap<(PartitionId, i32), Known>,
    passing: BTreeMap<(PartitionId, i32), Passing>,
    /// What a disk that was lost knew to be committed, until the one in its place has that.
    owed: BTreeMap<(PartitionId, i32), i64>,
    /// Partitions whose replicas may come and go: what a node has of one may be new.
    moving: BTreeSet<PartitionId>,
    /// All partitions are such, but that of the cluster's metadata.
    are_all_moving: bool,
}

impl Replicas {
    /// A node whose disk has rotted starts: it may take the place of what it had with nothing, and
    /// owes that until it has it again.
    pub fn starts_damaged(&mut self, node: i32) {
        let of_node = self.known.iter_mut().filter(|((_, its), _)| *its == node);
        for (of, known) in of_node {
            let owed = self.owed.entry(*of).or_insert(known.committed);
            *owed = known.committed.max(*owed);
            known.committed = -1;
        }
    }

    /// From now on the partition's replicas may be moved.
    pub fn may_move(&mut self, topic_id: Uuid, index: i32) {
        self.moving.insert(PartitionId { topic_id, index });
    }

    /// From now on nodes may leave, and any partition with them.
    pub fn nodes_may_leave(&mut self) {
        self.are_all_moving = true;
    }

    /// The node is none of the cluster any more: it owes nothing, and what comes under its number
    /// is another.
    pub fn has_left(&mut self, gone: i32) {
        self.known.retain(|(_, node), _| *node != gone);
        self.owed.retain(|(_, node), _| *node != gone);
    }

    /// The node has lost its disk: what it keeps from now on is another replica's.
    pub fn lost_disk(&mut self, lost: i32) {
        let (gone, known) =
            std::mem::take(&mut self.known).into_iter().partition(|((_, node), _)| *node == lost);
        self.known = known;
        let gone: BTreeMap<_, Known> = gone;
        self.owed.extend(gone.into_iter().map(|(of, known)| (of, known.committed)));
    }

    /// Whether a node lacks what its lost disk knew to be committed, of partitions that it is to
    /// keep.
    pub fn is_owed(&self, is_to_keep: impl Fn(PartitionId, i32) -> bool) -> bool {
        self.owed.keys().any(|(partition, node)| is_to_keep(*partition, *node))
    }

    /// A replica was looked at.
    pub fn observe(
        &mut self,
        partition: PartitionId,
        seen: Seen,
        replica: &Rc<Replica<SimRuntime>>,
    ) {
        let Seen { node, life, role, epoch, high_watermark, end } = seen;
        if role == Role::Leader {
            let leader = *self.leaders.entry((partition, epoch)).or_insert(node);
            promise!(
                leader == node,
                "{partition:?}: nodes {leader} and {node} both led in epoch {epoch}"
            );
        }
        if self.owed.get(&(partition, node)).is_some_and(|owed| *owed <= high_watermark) {
            self.owed.remove(&(partition, node));
        }
        let may_move = self.are_all_moving && partition != PartitionId::CLUSTER_METADATA;
        if may_move || self.moving.contains(&partition) {
            return self.observe_passing(partition, seen, replica);
        }
        let first = Known { life, epoch, high_watermark, led: -1, committed: -1 };
        let known = self.known.entry((partition, node)).or_insert(first);
        if epoch >= known.epoch.saturating_add(EPOCHS_APART) {
            (known.high_watermark, known.committed) = (high_watermark, -1);
        }
        if known.life.is_surely(life) {
            went_on(partition, seen, (known.epoch, known.high_watermark));
        } else {
            promise!(
                epoch >= known.led,
                "{partition:?}: node {node} led in epoch {}, and starts again in {epoch}",
                known.led
            );
            promise!(
                end >= known.committed,
                "{partition:?}: node {node} knew {} to be committed, and starts again with {end}",
                known.committed
            );
        }
        (known.life, known.epoch, known.high_watermark) = (life, epoch, high_watermark);
        known.committed = known.committed.max(high_watermark);
        if role == Role::Leader {
            known.led = known.led.max(epoch);
        }
    }
    /// The same of one that may come and go: what it was on this node before it was last opened
    /// there says nothing of what it is now.
    fn observe_passing(
        &mut self,
        partition: PartitionId,
        seen: Seen,
        replica: &Rc<Replica<SimRuntime>>,
    ) {
        let Seen { node, epoch, high_watermark, .. } = seen;
        let now = Passing { replica: Rc::downgrade(replica), epoch, high_watermark };
        let before = self.passing.insert((partition, node), now);
        let before = before.filter(|before| before.replica.ptr_eq(&Rc::downgrade(replica)));
        let is_named = |before: &Passing| epoch >= before.epoch.saturating_add(EPOCHS_APART);
        if let Some(before) = before.filter(|before| !is_named(before)) {
            went_on(partition, seen, (before.epoch, before.high_watermark));
        }
    }
}

/// Neither epoch nor high watermark of a replica that was there all the time is below these.
fn went_on(partition: PartitionId, seen: Seen, (epoch, high_watermark): (i32, i64)) {
    let Seen { node, epoch: epoch_now, high_watermark: now, .. } = seen;
    promise!(
        epoch_now >= epoch,
        "{partition:?}: the epoch of node {node} went back from {epoch} to {epoch_now}"
    );
    promise!(
        now >= high_watermark,
        "{partition:?}: the high watermark of node {node} went back from {high_watermark} to {now}"
    );
}
