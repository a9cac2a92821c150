//! Partitions go from one shard of this node to another while they are served.
//!
//! Which shard owns a partition is this node's own affair: computed, but for the exceptions that a
//! small file names (`vltava_storage::read_shard_exceptions`). Every shard holds the same table,
//! and looks partitions up in it (`partition/routing.rs`). Shard 0 moves one partition at a time,
//! from shard A to shard B, in these steps:
//!
//! 1. A and B stand still: no image is applied there before the end, so both know the partition,
//!    and it is neither made nor removed meanwhile.
//! 2. B expects it: work that comes for it is held there, in its order.
//! 3. Every shard takes the new table, waits until all that it sent by the old one stands in the
//!    mesh, and then until that has begun on A. So from here on nothing new comes to A, and what a
//!    connection sent to A began there before what it sends to B begins.
//! 4. A ends the partition's group coordinator, closes its log in order and gives up its replica as
//!    it is (`partition/replica/change_shard.rs`).
//! 5. B opens the log, and the replica goes on: at its epoch, as leader where it led. What was held
//!    begins.
//! 6. The file is written.
//!
//! What must hold: at any moment at most one shard has the log open for writing. B opens it in step
//! 5 only, after A has closed it for good in step 4. A crash at any step leaves a log and a journal
//! that any shard can open at the next start, and the old file or the new one, which are as good as
//! each other: so there is one owner then.
//!
//! Where A cannot let go (its journal has ended, its disk does not answer), all goes back: every
//! shard takes the old table again, as in step 3, and what B held is refused with the error of a
//! partition without a leader.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join3;
use futures_util::lock::{Mutex, OwnedMutexGuard};
use vltava_storage::{ShardExceptions, read_shard_exceptions, write_shard_exceptions};

use super::view::Node;
use crate::metadata::image::{PartitionId, Topic};
use crate::metadata::shard_table::ShardTable;
use crate::partition::error::PartitionError;
use crate::partition::kept;
use crate::partition::replica::{Departure, Replica};
use crate::runtime::Runtime;

/// How long a coordinator that is to move may take to answer those who have asked: its partition
/// may have no majority.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// Why a partition stayed where it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// This node has no such partition, or is just making or removing it.
    #[error("there is no such partition on this node")]
    NotHere,
    /// Group 0 is not moved.
    #[error("the partition of group 0 stays on shard 0")]
    Group0,
    /// There is no such shard.
    #[error("there is no shard {0}")]
    NoShard(usize),
    /// Its log is being opened, cut or restored, or has ended.
    #[error("it cannot be moved now: {0}")]
    NotNow(PartitionError),
    /// A shard has ended.
    #[error("the broker is stopping")]
    Stopping,
}

/// A move that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The shard that had the partition.
    pub from: usize,
    /// The shard that has it now; the same where nothing was to be done.
    pub to: usize,
    /// How long nothing was taken for it: from when it stopped on the one shard to when it went on
    /// on the other.
    pub pause: Duration,
}

/// What moves need on a shard.
#[derive(Default)]
pub struct Moves {
    /// On shard 0: one at a time.
    turn: Mutex<()>,
    /// While a partition leaves this shard, or comes here: keeps images from being applied.
    standing: RefCell<Option<OwnedMutexGuard<()>>>,
}

impl<R: Runtime> Node<R> {
    /// Moves a partition of this node to another of its shards. Completes when it is served there.
    ///
    /// # Errors
    /// See each; the partition is served where it was.
    pub async fn move_partition(
        self: &Rc<Self>,
        partition: PartitionId,
        to: usize,
    ) -> Result<Moved, MoveError> {
        let carry = move |node: Rc<Self>| async move { node.carry(partition, to).await };
        self.on(0, carry).await.unwrap_or(Err(MoveError::Stopping))
    }

    /// On shard 0.
    async fn carry(self: &Rc<Self>, id: PartitionId, to: usize) -> Result<Moved, MoveError> {
        let _turn = self.moves.turn.lock().await;
        if id == PartitionId::CLUSTER_METADATA {
            return Err(MoveError::Group0);
        }
        let table = Arc::clone(self.parts.partitions.routing().table());
        if to >= table.shards() {
            return Err(MoveError::NoShard(to));
        }
        // Exceptions that this shard knows of only are never taken for those of gone partitions.
        self.own_topic(id).ok_or(MoveError::NotHere)?;
        let from = table.shard_of(id);
        if from == to {
            return Ok(Moved { from, to, pause: Duration::ZERO });
        }
        let moved = self.carry_between(id, from, to, &table).await;
        for shard in [from, to] {
            let go_on = |node: Rc<Self>| {
                drop(node.moves.standing.take());
                std::future::ready(())
            };
            self.on(shard, go_on).await;
        }
        let pause = moved?;
        self.parts.partitions.metrics().count(|counters| counters.partitions_moved += 1);
        self.note_table().await;
        Ok(Moved { from, to, pause })
    }

    async fn carry_between(
        self: &Rc<Self>,
        id: PartitionId,
        from: usize,
        to: usize,
        table: &ShardTable,
    ) -> Result<Duration, MoveError> {
        let stopping = || Err(MoveError::Stopping);
        let may_leave = move |node: Rc<Self>| async move { node.may_leave(id).await };
        self.on(from, may_leave).await.unwrap_or_else(stopping)?;
        let expect = move |node: Rc<Self>| async move { node.expect(id).await };
        self.on(to, expect).await.unwrap_or_else(stopping)?;
        let image = self.image();
        let is_known = |id: &PartitionId| {
            image.topic_by_id(id.topic_id).is_some_and(|topic| topic.has_partition(id.index))
        };
        let before = self.parts.runtime.now();
        self.reroute(Arc::new(table.kept(is_known).with(id, to)), from).await;
        let leave = move |node: Rc<Self>| async move { node.leave(id).await };
        match self.on(from, leave).await.unwrap_or(Err(MoveError::Stopping)) {
            Ok(departure) => {
                let arrive = move |node: Rc<Self>| async move { node.arrive(id, departure).await };
                self.on(to, arrive).await.ok_or(MoveError::Stopping)?;
                Ok(self.parts.runtime.now().since(before))
            }
            Err(error) => {
                self.reroute(Arc::new(table.clone()), to).await;
                let give_up = move |node: Rc<Self>| {
                    node.parts.groups.arrived(id);
                    // What was held is told to look again.
                    drop(node.parts.partitions.remove(id));
                    std::future::ready(())
                };
                self.on(to, give_up).await;
                Err(error)
            }
        }
    }

    /// All shards look partitions up in this table. Returns when nothing that was sent by an
    /// earlier one is on its way to `old` any more.
    async fn reroute(self: &Rc<Self>, table: Arc<ShardTable>, old: usize) {
        // A shard that has ended sends nothing.
        self.on_all(move |node| async move { node.take_table(table, old).await }).await;
    }

    async fn take_table(&self, table: Arc<ShardTable>, old: usize) {
        let parts = &self.parts;
        parts.partitions.set_table(table).await;
        let groups = async {
            if let Some(peers) = &parts.peers {
                peers.jobs.reached(old).await;
            }
        };
        join3(parts.partitions.reached(old), parts.groups.reached(old), groups).await;
    }

    /// No image is applied on this shard until `standing` is let go.
    async fn stand(&self) {
        let standing = Arc::clone(&self.reconciling).lock_owned().await;
        let before = self.moves.standing.replace(Some(standing));
        assert!(before.is_none(), "two moves at a time");
    }

    /// The topic of a partition that this node has, by this shard's image.
    fn own_topic(&self, id: PartitionId) -> Option<Arc<Topic>> {
        let image = self.image();
        let topic = image.topic_by_id(id.topic_id)?;
        self.is_named(topic.partition(id.index)?).then(|| Arc::clone(topic))
    }

    /// Step 1, on the shard that has it.
    async fn may_leave(&self, id: PartitionId) -> Result<(), MoveError> {
        self.stand().await;
        self.own_topic(id).ok_or(MoveError::NotHere)?;
        let replica = self.parts.partitions.local(id).map_err(MoveError::NotNow)?;
        match replica.may_leave() && !self.parts.logs.is_low() {
            true => Ok(()),
            false => {
                Err(MoveError::NotNow(replica.last_refusal().unwrap_or(PartitionError::Opening)))
            }
        }
    }

    /// Steps 1 and 2, on the shard that is to have it.
    async fn expect(&self, id: PartitionId) -> Result<(), MoveError> {
        self.stand().await;
        self.own_topic(id).ok_or(MoveError::NotHere)?;
        self.parts.partitions.arriving(id);
        self.parts.groups.expect(id);
        Ok(())
    }

    /// Step 4.
    async fn leave(self: &Rc<Self>, id: PartitionId) -> Result<Departure, MoveError> {
        let partitions = &self.parts.partitions;
        let replica = partitions.local(id).map_err(MoveError::NotNow)?;
        self.end_coordinator(id).await;
        let left = replica.leave(partitions).await;
        match left {
            Ok(departure) => {
                drop(partitions.remove(id));
                Ok(departure)
            }
            Err(error) => {
                match self.own_topic(id).filter(|_| replica.is_still_here()) {
                    // As it was, but for its coordinator.
                    Some(topic) => self.begin_to_coordinate(&topic, id, &replica),
                    None => partitions.broken(id, error.clone()),
                }
                Err(MoveError::NotNow(error))
            }
        }
    }

    /// Whoever has asked is answered first, but for members that wait for others to join: they look
    /// for their coordinator again.
    async fn end_coordinator(&self, id: PartitionId) {
        if let Some(host) = self.parts.groups.local(id) {
            self.parts.runtime.in_time(ANSWER_TIME, host.told_all()).await;
        }
        self.parts.groups.remove(id);
    }

    /// Step 5.
    async fn arrive(self: Rc<Self>, id: PartitionId, mut departure: Departure) {
        let partitions = &self.parts.partitions;
        assert!(partitions.is_arriving(id), "a partition came that nobody expected");
        let Some(topic) = self.own_topic(id) else {
            unreachable!("no image is applied meanwhile");
        };
        if let Some(surroundings) = self.surroundings() {
            departure.give_to(&surroundings.journal, id);
        }
        self.reopened.borrow_mut().insert(id);
        let opened = match self.open_log(&topic, id.index).await {
            Ok(log) => {
                let near = self.surroundings();
                let name = topic.log_name(id.index);
                match Replica::arrive(partitions, &name, &log, near, departure) {
                    Some(replica) => Ok(replica),
                    None => self.take_place(&topic, id.index, log).await,
                }
            }
            Err(error) => {
                departure.abandon(partitions, self.surroundings().as_deref());
                Err(error.into())
            }
        };
        self.begin_to_serve(&topic, id.index, opened);
        self.parts.groups.arrived(id);
        // They may have changed on the way.
        self.set_options(&topic);
    }

    /// Writes the exceptions down: for the next start.
    async fn note_table(&self) {
        let routing = self.parts.partitions.routing();
        let exceptions: ShardExceptions = routing
            .table()
            .exceptions()
            .filter_map(|(id, shard)| Some((kept::key(id), u32::try_from(shard).ok()?)))
            .collect();
        drop(routing);
        if let Err(error) = write_shard_exceptions(self.parts.runtime.disk(), &exceptions).await {
            tracing::warn!(
                %error,
                "it could not be noted on which shards partitions are; a restart may move some back"
            );
        }
    }

    /// Reads which partitions are not where they are computed to be, and tells all shards: to be
    /// called on shard 0 before the first image is applied.
    pub async fn load_table(self: &Rc<Self>) {
        let found = match read_shard_exceptions(self.parts.runtime.disk()).await {
            Ok(found) if found.is_empty() => return,
            Ok(found) => found,
            Err(error) => {
                return tracing::warn!(
                    %error,
                    "which partitions were moved to other shards is not known: they move back"
                );
            }
        };
        let exceptions: BTreeMap<PartitionId, usize> = found
            .into_iter()
            .filter_map(|(key, shard)| {
                let id = PartitionId { topic_id: key.topic_id, index: key.partition };
                Some((id, usize::try_from(shard).ok()?))
            })
            .collect();
        let table = Arc::clone(self.parts.partitions.routing().table());
        let table = Arc::new(table.with_exceptions(exceptions));
        self.on_all(move |node| async move { node.parts.partitions.set_table(table).await }).await;
    }
}
