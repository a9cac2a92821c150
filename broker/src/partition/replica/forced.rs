//! A replica hears that its group begins anew with a leader that was named from outside, since a
//! majority of its voters is gone (`raft::forced`).

use std::cell::Cell;

use vltava_storage::{ReplicatedBatches, StorageError};

use super::Replica;
use crate::partition::left::{Left, LogEnd};
use crate::partition::request::PartitionId;
use crate::raft::membership::ReplicaId;
use crate::raft::node::Role;
use crate::runtime::Runtime;

/// Who leads a group from now on, whatever its voters say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// From which epoch on.
    pub epoch: i32,
    /// Who.
    pub leader: ReplicaId,
    /// Who else is to have its log.
    pub learners: Vec<ReplicaId>,
}

/// What a leader that was named makes void here.
pub(super) struct Void {
    /// What was kept below this offset may be: another generation of the group has begun, and its
    /// leader has not said what it has. 0: nothing is.
    below: Cell<i64>,
    /// See [`Replica::given_up_from`].
    given_up_from: Cell<i64>,
}

impl Default for Void {
    fn default() -> Self {
        Self { below: Cell::new(0), given_up_from: Cell::new(i64::MAX) }
    }
}

impl<R: Runtime> Replica<R> {
    /// What this replica could lead with; `None` where it has no others beside it, or cannot say:
    /// its log has ended until a restart, which may find more.
    pub fn left(&self) -> Option<Left> {
        let near = self.surroundings.as_ref()?;
        let raft = self.raft.borrow();
        if raft.role() == Role::Ended || self.log.ended().is_some() {
            return None;
        }
        let history = raft.history();
        let end = history.at(raft.flushed()).unwrap_or_else(|| history.end());
        Some(Left {
            id: near.own,
            epoch: raft.epoch().max(raft.generation()),
            log_end: LogEnd { epoch: end.epoch, index: end.index(), offset: end.offset },
            can_lead: raft.can_be_named(),
            is_led: raft.leads().is_some() || raft.follows(),
            members: raft.members().clone(),
        })
    }

    /// The generation of the group that this replica is in ([`crate::raft::node::Node`]).
    pub fn generation(&self) -> i32 {
        self.raft.borrow().generation()
    }

    /// Leads, or gives way, as it was decided; does nothing where that was heard before.
    pub fn hear_of_named(&self, named: &Named) {
        let Some(near) = &self.surroundings else { return };
        if named.leader != near.own {
            return self.enter(named.epoch);
        }
        let is_done = {
            let raft = self.raft.borrow();
            raft.generation() >= named.epoch && raft.is_of_generation()
        };
        if is_done {
            return;
        }
        let (now, learners) = (self.now_ms(), named.learners.iter().copied());
        let actions = self.raft.borrow_mut().force(now, named.epoch, learners);
        let (leads, end) = (self.role() == Role::Leader, self.log.end());
        if leads {
            tracing::warn!(
                partition = self.name,
                epoch = named.epoch,
                log_end = end,
                committed = self.high_watermark(),
                "this replica was made leader without a majority: records that only others had, at \
                 or beyond the end of its log, are lost"
            );
        } else {
            tracing::error!(
                partition = self.name,
                epoch = named.epoch,
                "this replica was to lead without a majority, and cannot: it lacks a part of its \
                 log"
            );
        }
        self.perform(actions, ReplicatedBatches::default());
    }

    /// Of group 0, nobody stands above it who could tell: who says that it began anew is believed.
    pub(super) fn hear_of_generation(&self, generation: i32) {
        if self.partition == PartitionId::CLUSTER_METADATA {
            self.enter(generation);
        }
    }

    /// A generation begins with another leader.
    fn enter(&self, generation: i32) {
        // One that has ended hears of it after a restart.
        if generation <= self.generation() || self.role() == Role::Ended {
            return;
        }
        let actions = self.raft.borrow_mut().enter(self.now_ms(), generation);
        if self.role() == Role::Ended {
            tracing::error!(
                partition = self.name,
                epoch = generation,
                "another replica was made leader without a majority, with an epoch that this one \
                 has passed: it takes no part any more. Start the node with an empty data directory"
            );
        }
        self.expect_void();
        self.perform(actions, ReplicatedBatches::default());
    }

    /// Where a generation has begun of which this log has nothing, all of it may be void.
    pub(super) fn expect_void(&self) {
        let is_void = !self.raft.borrow().is_of_generation();
        self.void.below.set(if is_void { self.log.end() } else { 0 });
    }

    /// More is committed: where that is of the generation, all that is here is its leader's.
    pub(super) fn trust(&self) {
        if self.void.below.get() > 0 && self.raft.borrow().is_of_generation() {
            self.void.below.set(0);
        }
    }

    /// The leader of the generation has said what it has: what stands from this offset on goes.
    pub(super) fn give_up_from(&self, offset: i64) {
        let end = self.void.below.take();
        if offset < end {
            self.void.given_up_from.set(self.void.given_up_from.get().min(offset));
            tracing::warn!(
                partition = self.name,
                from = offset,
                to = end,
                "records are given up, also such as were committed: the leader that was named \
                 without a majority does not have them"
            );
        }
    }

    /// From this offset on, records of before were given up since the process has started: who has
    /// read them has read what is void.
    pub fn given_up_from(&self) -> i64 {
        self.void.given_up_from.get()
    }

    /// Cuts the log; where nothing of it stands so far down, it is empty, and begins there.
    pub(super) async fn cut_log(&self, to: i64) -> Result<(), StorageError> {
        match to < self.log.first_batch() {
            true => self.log.reset_to(to, &[], &[]).await,
            false => self.log.truncate(to).await,
        }
    }
}
