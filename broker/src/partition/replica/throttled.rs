//! Whom this leader sends to no faster than the throttles of both nodes let it.

use std::time::Duration;

use vltava_protocol::types::Uuid;

use super::Replica;
use crate::partition::throttle::{THROTTLE, THROTTLED_BYTES, Throttled, answered};
use crate::raft::membership::ReplicaId;
use crate::runtime::Runtime;

/// How long another node may take to say whether it may be sent to.
const ANSWER_TIME: Duration = Duration::from_secs(2);
/// How long it is waited where it does not say.
const RETRY: Duration = Duration::from_millis(100);
/// How long it is waited at most before it is looked again who is to be throttled.
const WAIT_MAX: Duration = Duration::from_millis(500);

/// Bytes that may be sent, and whose throttles have counted them.
#[derive(Clone, Copy, Debug)]
pub(in crate::partition) struct Allowance {
    pub(in crate::partition) bytes: Option<usize>,
    leader: bool,
    follower: Option<i32>,
}

impl<R: Runtime> Replica<R> {
    /// From now on these are throttled.
    pub fn set_throttled(&self, throttled: Throttled) {
        *self.throttled.borrow_mut() = throttled;
    }

    /// Whether a member may wait for what it lacks: it is not in sync, and no write waits for it.
    fn may_wait(&self, to: ReplicaId) -> bool {
        let (raft, in_sync) = (self.raft.borrow(), self.in_sync.borrow());
        let own = self.surroundings.as_ref().map(|near| near.own);
        let is_in_sync = |id: &ReplicaId| Some(*id) == own || in_sync.has(id);
        if is_in_sync(&to) {
            return false;
        }
        // Those in sync are enough for all that is written.
        let (members, least) = (raft.members(), raft.min_insync_replicas());
        !members.is_voter(&to) || members.reached(least, |id| i64::from(is_in_sync(id))) == Some(1)
    }

    /// Bytes that a member may be sent now.
    ///
    /// # Errors
    /// Where it is too early: when to look again.
    pub(super) async fn may_send(&self, to: ReplicaId) -> Result<Allowance, Duration> {
        let free = Allowance { bytes: None, leader: false, follower: None };
        let Some(near) = &self.surroundings else { return Ok(free) };
        let (leader, follower) = {
            let throttled = self.throttled.borrow();
            (throttled.leaders.has(near.own.node), throttled.followers.has(to.node))
        };
        let leader = leader && near.throttles.own.leader.is_limited();
        if !leader && !follower || !self.may_wait(to) {
            return Ok(free);
        }
        let bytes = i64::try_from(THROTTLED_BYTES).unwrap_or(i64::MAX);
        if leader {
            let taken = near.throttles.own.leader.take(self.runtime.now(), bytes);
            taken.map_err(|wait| wait.min(WAIT_MAX))?;
        }
        let allowance = Allowance {
            bytes: Some(THROTTLED_BYTES),
            leader,
            follower: follower.then_some(to.node),
        };
        if follower && let Err(wait) = self.ask_to_send(to.node, bytes).await {
            self.has_sent(Allowance { follower: None, ..allowance }, 0);
            return Err(wait.min(WAIT_MAX));
        }
        Ok(allowance)
    }

    /// The same of a member on a node that asks for what it lacks.
    pub(in crate::partition) async fn may_send_to_node(
        &self,
        node: i32,
    ) -> Result<Allowance, Duration> {
        let asks = |id: &ReplicaId| id.node == node && !self.in_sync.borrow().has(id);
        let member = self.raft.borrow().members().ids().find(asks);
        let nobody = ReplicaId { node, disk: Uuid::ZERO };
        self.may_send(member.unwrap_or(nobody)).await
    }

    async fn ask_to_send(&self, node: i32, bytes: i64) -> Result<(), Duration> {
        let Some(near) = &self.surroundings else { return Ok(()) };
        let (asked, question) = near.throttles.question(node, bytes);
        let answer = near.peers.request(node, THROTTLE, question);
        let answer = self.runtime.in_time(ANSWER_TIME, answer).await;
        let Some(Ok(answer)) = answer else { return Err(RETRY) };
        match answered(answer) {
            Duration::ZERO => {
                near.throttles.taken(node, asked, bytes);
                Ok(())
            }
            wait => Err(wait),
        }
    }

    /// What came of an allowance: so many bytes.
    pub(in crate::partition) fn has_sent(&self, allowance: Allowance, bytes: usize) {
        let (Some(near), Some(allowed)) = (&self.surroundings, allowance.bytes) else { return };
        let count = |bytes: usize| i64::try_from(bytes).unwrap_or(i64::MAX);
        let more = count(bytes) - count(allowed);
        if allowance.leader {
            near.throttles.own.leader.correct(self.runtime.now(), more);
        }
        if let Some(node) = allowance.follower {
            near.throttles.owe(node, more);
        }
    }
}
