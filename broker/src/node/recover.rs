//! Group 0 without a majority: an operator names the nodes that are gone for good, and this one
//! goes on with its copy of what the cluster has decided.
//!
//! Nobody stands above group 0 who could decide it, so it is asked of the node that has most of
//! those that are left, and what it was asked is checked here: that a majority is really gone, that
//! each node that is not there was named, and that nobody else has more.

use std::collections::BTreeSet;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::messages;
use super::peers::LEFT;
use super::view::Node;
use crate::metadata::image::{NamedLeader, PartitionId};
use crate::partition::left::Left;
use crate::partition::replica::{Named, Replica};
use crate::raft::membership::ReplicaId;
use crate::runtime::Runtime;

/// How often others are asked who leads.
const ASK_PERIOD: Duration = Duration::from_millis(500);

/// How long a leader that has lost its majority may take to find out, and how often is looked.
const SETTLING_MAX: Duration = Duration::from_secs(10);
/// See [`SETTLING_MAX`].
const SETTLING_PERIOD: Duration = Duration::from_millis(50);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Who is to have a vote: this node alone.
    pub node: i32,
    /// Who has one now.
    pub voters: Vec<i32>,
    /// Who is named as gone.
    pub gone: Vec<i32>,
    /// The epoch of the last that this node has.
    pub epoch: i32,
    /// Where it ends.
    pub log_end: i64,
    named: Named,
}

/// Why there is no such plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoPlan {
    /// Group 0 has a leader.
    Led,
    /// In words for the operator.
    Refused(String),
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, epoch, log_end, .. } = self;
        let (voters, gone) = (listed(&self.voters), listed(&self.gone));
        writeln!(
            f,
            "the cluster's metadata (group 0) has no majority: nodes {voters} vote, and {gone} are \
             gone"
        )?;
        writeln!(
            f,
            "node {node} becomes the only voter, with its copy, which ends at offset {log_end}, \
             epoch {epoch}"
        )?;
        writeln!(
            f,
            "lost: what the cluster decided later (topics, partitions, settings, nodes), where \
             only {gone} had it"
        )?;
        write!(f, "{gone} must not run again with the disks that they had")
    }
}

/// As a person reads it.
fn listed(nodes: &[i32]) -> String {
    nodes.iter().map(i32::to_string).collect::<Vec<_>>().join(", ")
}

impl<R: Runtime> Node<R> {
    /// What would be done where these nodes are gone for good. On shard 0.
    ///
    /// # Errors
    /// Where nothing needs to be done, or must not.
    pub async fn plan_recovery(&self, gone: &BTreeSet<i32>) -> Result<Plan, NoPlan> {
        let refused = |why: &str| NoPlan::Refused(why.to_owned());
        let (own, group) = self.group_0().ok_or_else(|| {
            refused("this node has not opened the cluster's metadata: it is alone, or starts")
        })?;
        if let Some(there) = gone.intersection(&self.present()).next() {
            return Err(NoPlan::Refused(is_there(*there)));
        }
        if group.ended().is_some() {
            return Err(refused("this node's copy of the metadata has ended: restart it first"));
        }
        let survivor = self.own_left(&group).await.ok_or_else(|| refused("this node is alone"))?;
        if survivor.is_led {
            return Err(NoPlan::Led);
        }
        let others = self.others_left(own).await;
        let nodes: BTreeSet<i32> = self.image().nodes().map(|node| node.id).collect();
        check(own, &survivor, &others, &nodes, &self.present(), gone).map_err(NoPlan::Refused)?;
        let epochs = others.iter().map(|left| left.epoch).chain([survivor.epoch]);
        let epoch = NamedLeader::epoch_above(epochs.max().unwrap_or(-1));
        let epoch = epoch.ok_or_else(|| refused("there are no more epochs"))?;
        let stays = |id: &ReplicaId| *id != own && !gone.contains(&id.node);
        let learners = survivor.members.ids().filter(stays).collect();
        let mut voters: Vec<i32> = survivor
            .members
            .voters()
            .chain(survivor.members.outgoing())
            .map(|id| id.node)
            .collect();
        voters.sort_unstable();
        voters.dedup();
        Ok(Plan {
            node: own.node,
            voters,
            gone: gone.iter().copied().collect(),
            epoch: survivor.log_end.epoch,
            log_end: survivor.log_end.offset,
            named: Named { epoch, leader: own, learners },
        })
    }

    /// Does it: this node leads group 0 when it returns.
    ///
    /// # Errors
    /// As [`Node::plan_recovery`], which is asked once more.
    pub async fn recover(&self, gone: &BTreeSet<i32>) -> Result<Plan, NoPlan> {
        let plan = self.plan_recovery(gone).await?;
        let Some((_, group)) = self.group_0() else { return Err(NoPlan::Led) };
        tracing::warn!(gone = ?plan.gone, "an operator recovers the cluster without these nodes");
        group.hear_of_named(&plan.named);
        Ok(plan)
    }

    /// What this node has of group 0, once it has noticed who is gone: without a majority group 0
    /// is still led for a moment, as far as it knows.
    async fn own_left(&self, group: &Replica<R>) -> Option<Left> {
        let runtime = &self.parts.runtime;
        let until = runtime.now().after(SETTLING_MAX);
        loop {
            let (left, present) = (group.left()?, self.present());
            let is_led = left.is_led && left.members.is_quorum(|id| present.contains(&id.node));
            if is_led || !left.is_led || runtime.now() >= until {
                return Some(left);
            }
            runtime.sleep(SETTLING_PERIOD).await;
        }
    }

    fn group_0(&self) -> Option<(ReplicaId, Rc<Replica<R>>)> {
        let group = self.parts.partitions.local(PartitionId::CLUSTER_METADATA).ok()?;
        Some((self.surroundings()?.own, group))
    }

    /// Who belongs to group 0, as its leader or one that follows it says; waits until one does.
    pub(super) async fn members_elsewhere(&self, own: ReplicaId) -> Vec<ReplicaId> {
        let runtime = &self.parts.runtime;
        loop {
            let led = self.others_left(own).await.into_iter().find(|left| left.is_led);
            if let Some(left) = led {
                return left.members.ids().chain([own]).collect();
            }
            runtime.sleep(ASK_PERIOD).await;
        }
    }

    /// What the other nodes that are there have of group 0.
    async fn others_left(&self, own: ReplicaId) -> Vec<Left> {
        let mut left = Vec::new();
        for node in self.present().into_iter().filter(|node| *node != own.node) {
            let question = messages::who_is_left_to_bytes(&[PartitionId::CLUSTER_METADATA]);
            let Ok(question) = question else { continue };
            let Some(answer) = self.ask_peer(node, LEFT, question).await else { continue };
            let found = messages::left_from_bytes(node, &answer).unwrap_or_default();
            left.extend(found.into_iter().map(|(_, left)| left));
        }
        left
    }
}

fn is_there(node: i32) -> String {
    format!(
        "node {node} is there: it is not gone. Where it was started again with an empty disk, stop \
         it until this is done"
    )
}

/// Whether this node may go on without these.
///
/// # Errors
/// Why it must not, in words for the operator.
fn check(
    own: ReplicaId,
    survivor: &Left,
    others: &[Left],
    nodes: &BTreeSet<i32>,
    present: &BTreeSet<i32>,
    gone: &BTreeSet<i32>,
) -> Result<(), String> {
    let Left { log_end, can_lead, members, .. } = survivor;
    let voters: BTreeSet<i32> =
        members.ids().filter(|id| members.is_voter(id)).map(|id| id.node).collect();
    let all = listed(&voters.iter().copied().collect::<Vec<_>>());
    if let Some(there) = gone.iter().find(|node| present.contains(node)) {
        return Err(is_there(*there));
    }
    // Who has no vote may have kept partitions.
    let is_known = |node: &i32| voters.contains(node) || nodes.contains(node);
    if let Some(stranger) = gone.iter().find(|node| !is_known(node)) {
        return Err(format!("node {stranger} is none of the cluster's"));
    }
    let missing = |node: &&i32| !present.contains(node) && !gone.contains(node);
    if let Some(missing) = voters.iter().find(missing) {
        return Err(format!(
            "node {missing} is not there either: start it, or name it if it is gone for good"
        ));
    }
    if members.is_quorum(|id| !gone.contains(&id.node)) {
        return Err(format!(
            "of the voters {all} a majority is there: it elects a leader by itself"
        ));
    }
    if !can_lead {
        return Err("this node lacks a part of the cluster's metadata: ask another".to_owned());
    }
    let is_silent = |node: &&i32| {
        let has_answered = **node == own.node || others.iter().any(|it| it.id.node == **node);
        present.contains(node) && !has_answered
    };
    if let Some(silent) = voters.iter().find(is_silent) {
        return Err(format!(
            "node {silent} is there, and cannot say what it has of the cluster's metadata: wait \
             for it, or restart it; where that is to be given up, stop it, and name it as gone"
        ));
    }
    let has_more = |left: &&Left| left.can_lead && left.log_end > *log_end;
    if let Some(more) = others.iter().filter(|left| left.id != own).find(has_more) {
        return Err(format!(
            "node {} has more of the cluster's metadata than node {}: run this there",
            more.id.node, own.node
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use vltava_protocol::types::Uuid;

    use super::*;
    use crate::partition::left::LogEnd;
    use crate::raft::membership::Membership;

    fn id(node: i32) -> ReplicaId {
        ReplicaId { node, disk: Uuid(7) }
    }

    /// What node 1 of five says, with these present and these named as gone; the others' logs end
    /// at `others_end`.
    fn asked(present: &[i32], gone: &[i32], others_end: i64) -> Result<(), String> {
        asked_of(present, present, gone, others_end)
    }

    /// The same, where only some of those that are present answer.
    fn asked_of(
        present: &[i32],
        answering: &[i32],
        gone: &[i32],
        others_end: i64,
    ) -> Result<(), String> {
        let members = Membership::new((1..6).map(id), []);
        let log_end = LogEnd { epoch: 3, index: 11, offset: 10 };
        let survivor =
            Left { id: id(1), epoch: 3, log_end, can_lead: true, is_led: false, members };
        let others = answering.iter().map(|node| Left {
            id: id(*node),
            epoch: 3,
            log_end: LogEnd { index: others_end + 1, offset: others_end, epoch: 3 },
            can_lead: true,
            is_led: false,
            members: survivor.members.clone(),
        });
        let others: Vec<Left> = others.filter(|left| left.id != id(1)).collect();
        let set = |nodes: &[i32]| nodes.iter().copied().collect();
        check(id(1), &survivor, &others, &(1..7).collect(), &set(present), &set(gone))
    }

    #[test]
    fn exactly_the_nodes_that_are_gone_are_named() {
        let refused = |present: &[i32], gone: &[i32], end, why: &str| {
            let said = asked(present, gone, end).err().unwrap_or_default();
            assert!(said.contains(why), "{present:?} {gone:?}: {said:?}");
        };
        assert_eq!(asked(&[1, 2], &[3, 4, 5], 10), Ok(()));
        assert_eq!(asked(&[1, 2], &[3, 4, 5], 9), Ok(()));
        refused(&[1, 2], &[3, 4, 5], 11, "node 2 has more");
        refused(&[1, 2], &[3, 4], 10, "node 5 is not there either");
        refused(&[1, 2, 3], &[3, 4, 5], 10, "node 3 is there: it is not gone");
        refused(&[1, 2, 3], &[4, 5], 10, "a majority is there");
        refused(&[1, 2], &[3, 4, 5, 9], 10, "node 9 is none of the cluster's");
        // It is a node, and has no vote.
        assert_eq!(asked(&[1, 2], &[3, 4, 5, 6], 10), Ok(()));
        assert_eq!(asked_of(&[1, 2], &[2], &[3, 4, 5], 10), Ok(()));
        let said = asked_of(&[1, 2], &[], &[3, 4, 5], 10).err().unwrap_or_default();
        assert!(said.contains("node 2 is there, and cannot say"), "{said:?}");
    }
}
