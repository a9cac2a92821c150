//! A replica takes its place in its group: from what its log holds, and what was kept beside it.

use std::rc::Rc;

use bytes::Bytes;
use vltava_storage::io::Disk;
use vltava_storage::{GroupKey, Log, Recorded, StorageError};

use super::forced::Named;
use super::{Replica, group};
use crate::partition::error::PartitionError;
use crate::partition::kept;
use crate::partition::request::PartitionId;
use crate::partition::surroundings::Surroundings;
use crate::raft::history::{Base, History};
use crate::raft::membership::{Membership, ReplicaId};
use crate::raft::node::{Found, Node};
use crate::raft::persisted::Persisted;
use crate::raft::position::Position;
use crate::raft::recovery::{Recovered, recovered};
use crate::runtime::Runtime;

/// Which group a replica belongs to.
pub struct GroupPlace<R: Runtime> {
    /// Its partition.
    pub partition: PartitionId,
    /// Who belonged to it as it was made.
    pub founders: Membership,
    /// Who may belong to it now.
    pub replicas: Vec<ReplicaId>,
    /// How many others should rather lead it.
    pub rank: u32,
    /// Who was named to lead it, where a majority was gone.
    pub named: Option<Named>,
    /// What the replicas of this shard share.
    pub surroundings: Rc<Surroundings<R>>,
}

impl<R: Runtime> Replica<R> {
    /// The replica over an open log, in its group.
    ///
    /// # Errors
    /// [`PartitionError::Damaged`] where log and journal do not fit each other; or what the disk
    /// says.
    pub async fn join(
        runtime: R,
        name: String,
        log: Log<R::Disk>,
        min_insync_replicas: usize,
        place: GroupPlace<R>,
    ) -> Result<Rc<Self>, PartitionError> {
        let GroupPlace { partition, founders, replicas, rank, named, surroundings } = place;
        let is_alone = replicas == [surroundings.own];
        let (found, kept) = find(&log, partition, founders, is_alone, &surroundings).await?;
        let (own, seed) = (surroundings.own, runtime.random_u64());
        let options = group::options(min_insync_replicas, rank);
        let mut raft = Node::new(own, options, seed, found);
        raft.begins_at(log.log_start());
        raft.promise(kept.as_ref().map_or(Position::ZERO, |kept| kept.promised));
        let are_votes_lost = kept.as_ref().is_some_and(|kept| kept.are_votes_lost);
        let asked = if are_votes_lost { replicas } else { Vec::new() };
        if are_votes_lost {
            if asked.is_empty() {
                let what = "its votes are lost, and nobody is known who could know of them";
                return Err(PartitionError::Damaged(what.to_owned()));
            }
            raft.lose_votes(asked.iter().copied());
        }
        let near = Some(surroundings);
        let replica = Self::new(runtime, name, log, partition, raft, near, kept);
        replica.begin(named.as_ref());
        replica.meet_peers(&asked);
        Ok(replica)
    }

    /// Hears of the nodes that are up already: those of members, and of who is to be asked what it
    /// knows, member or not as far as is known here.
    fn meet_peers(&self, asked: &[ReplicaId]) {
        let Some(surroundings) = &self.surroundings else { return };
        let mut nodes: Vec<i32> = {
            let raft = self.raft.borrow();
            raft.members().ids().chain(asked.iter().copied()).map(|id| id.node).collect()
        };
        nodes.sort_unstable();
        nodes.dedup();
        for node in nodes {
            if surroundings.peers.session(node).is_some() {
                self.peer_up(node);
            }
        }
    }
}

async fn find<R: Runtime>(
    log: &Log<R::Disk>,
    partition: PartitionId,
    founders: Membership,
    is_alone: bool,
    surroundings: &Surroundings<R>,
) -> Result<(Found, Option<Persisted>), PartitionError> {
    let key = kept::key(partition);
    let damaged = |what: &str| Err(PartitionError::Damaged(what.to_owned()));
    match surroundings.journal.get(&key) {
        Recorded::Nothing if founders.is_alone(&surroundings.own) => {
            Ok((Found::alone(surroundings.own, &log.epochs(), log.flushed_end()), None))
        }
        Recorded::Nothing if log.end() > 0 => {
            damaged("it has records, and nothing is kept of what its group agreed on")
        }
        Recorded::Nothing => {
            let history =
                History::new(Base { at: Position::ZERO, members: founders, log_start: 0 });
            let found = Found::nothing(history);
            Ok((found, None))
        }
        Recorded::Value(bytes) => match Persisted::from_bytes(&bytes) {
            Ok(persisted) => Ok(settle(log, key, persisted, surroundings).await?),
            Err(error) => damaged(&error.to_string()),
        },
        // Nobody else has a vote, so none can count twice.
        Recorded::Lost if is_alone => {
            Ok((Found::alone(surroundings.own, &log.epochs(), log.flushed_end()), None))
        }
        Recorded::Lost => damaged("what its group agreed on is lost: its vote may count twice"),
    }
}

/// Log and marks are made one, durably, before anything is said of them.
async fn settle<R: Runtime>(
    log: &Log<R::Disk>,
    key: GroupKey,
    persisted: Persisted,
    surroundings: &Surroundings<R>,
) -> Result<(Found, Option<Persisted>), StorageError> {
    let mut persisted = persisted;
    align(&mut persisted.base, log);
    let Persisted { is_restoring, promised, are_votes_lost, .. } = persisted;
    if persisted.is_given_away() && log.end() > 0 {
        // A stop came between the two.
        log.reset_to(0, &[], &[]).await?;
    }
    let Recovered { mut found, cut_to, is_shorter } =
        recovered(persisted, log.end(), &log.epochs());
    match cut_to {
        // A stop came where it was given up altogether, or in a restore of a log that does not
        // begin at 0 any more.
        Some(offset) if offset < log.first_batch() => log.reset_to(offset, &[], &[]).await?,
        Some(offset) => log.truncate(offset).await?,
        None => {}
    }
    // What is deleted was committed, also where that was not noted: nobody can be sent it.
    found.history.compact(found.history.index_before(log.first_batch()));
    let kept = Persisted::of(found.epoch, found.vote, is_restoring, &found.history);
    let Found { is_lost, generation, .. } = found;
    let kept = Persisted { promised, is_lost, are_votes_lost, generation, ..kept };
    if is_shorter {
        let bytes = Bytes::from(kept.to_bytes());
        surroundings.journal.set(key, Some(bytes)).await?;
    }
    Ok((found, Some(kept)))
}

/// A base stands between batches. Early versions wrote one where the log begins, also inside its
/// first batch: no mark stands in there, so it is as good before that.
fn align<D: Disk>(base: &mut Base, log: &Log<D>) {
    let inside = log.first_batch()..=log.log_start();
    if inside.contains(&base.at.offset) {
        base.at.offset = log.first_batch();
    }
}
