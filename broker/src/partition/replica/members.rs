//! The members of a replica's group, brought, step by step, to where they are to be.
//!
//! Each step is taken from what is found, so it does not matter who took those before, or where
//! they ended: who is to come learns first, without a vote; once all of them are caught up, the
//! voters become those that are to be, in one change of both halves; who leads and is not to stay
//! hands over before. What is left over of other changes goes with that.

use vltava_storage::ReplicatedBatches;

use super::Replica;
use crate::raft::membership::{Membership, ReplicaId};
use crate::raft::node::Node;
use crate::runtime::Runtime;

/// How often a leader that is not to stay tries to hand over before the change takes its vote all
/// the same.
const HAND_OVERS: u32 = 5;

/// What is remembered from one look at a group to the next.
#[derive(Debug, Default)]
pub struct Approach {
    /// What was committed at the look before.
    committed: Option<i64>,
    /// How often it was tried to hand over.
    hand_overs: u32,
}

/// How far a group is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stand {
    /// Another replica leads, or none does, or in another epoch.
    NotLeading,
    /// On its way.
    UnderWay,
    /// Its members are those that it is to have, and that is committed.
    There,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    Change(Membership),
    HandOver(ReplicaId),
    Done,
}

/// What the next step depends on.
struct Look<'a, F> {
    own: ReplicaId,
    target: &'a [ReplicaId],
    members: &'a Membership,
    /// Whether a member lacks no more than what came since the look before.
    is_caught_up: F,
    may_hand_over: bool,
    /// Whether this leader was named when a majority was gone: who comes is taken in one by one,
    /// since some may never come.
    was_named: bool,
}

impl<F: Fn(&ReplicaId) -> bool> Look<'_, F> {
    /// The next step, where no change is under way.
    fn next(&self) -> Step {
        let (members, target) = (self.members, self.target);
        let is_wanted = |id: &ReplicaId| target.contains(id);
        let is_voter = |id: &ReplicaId| members.voters().any(|voter| voter == *id);
        let strangers = members.learners().any(|id| !is_wanted(&id));
        let comes: Vec<ReplicaId> = target.iter().copied().filter(|id| !is_voter(id)).collect();
        if comes.is_empty() && members.voters().all(|id| is_wanted(&id)) {
            // Learners that are wanted vote, so what is left are others.
            let rest = Membership::new(target.iter().copied(), []);
            return if strangers { Step::Change(rest) } else { Step::Done };
        }
        let learns = |id: &ReplicaId| members.learners().any(|learner| learner == *id);
        if strangers || !comes.iter().all(learns) {
            return Step::Change(Membership::new(members.voters(), comes));
        }
        if !comes.iter().all(&self.is_caught_up) {
            let ready: Vec<_> = comes.into_iter().filter(|id| (self.is_caught_up)(id)).collect();
            let is_alone = members.is_sole_voter(&self.own);
            if !self.was_named || !is_alone || ready.is_empty() {
                return Step::Wait;
            }
            let voters = || members.voters().chain(ready.iter().copied());
            let waiting = members.learners().filter(|id| !ready.contains(id));
            return Step::Change(Membership::new(voters(), waiting));
        }
        if !is_wanted(&self.own) && self.may_hand_over {
            let mut heirs = members.voters().filter(is_wanted).peekable();
            if heirs.peek().is_none() {
                // Nobody who stays votes yet: they are taken in before this one goes.
                return Step::Change(Membership::new(members.voters().chain(comes), []));
            }
            return heirs.find(&self.is_caught_up).map_or(Step::Wait, Step::HandOver);
        }
        Step::Change(Membership::new(target.iter().copied(), []))
    }
}

impl<R: Runtime> Replica<R> {
    /// Brings the members of the group a step nearer to these voters, where this replica leads in
    /// the epoch that the record of the change names; by any other record nothing is done. To be
    /// called again and again, with a moment between: it ends where the group is there.
    pub fn approach(&self, target: &[ReplicaId], epoch: i32, approach: &mut Approach) -> Stand {
        let Some(near) = &self.surroundings else { return Stand::NotLeading };
        let now = self.now_ms();
        let step = {
            let raft = self.raft.borrow();
            if raft.leads() != Some(epoch) {
                return Stand::NotLeading;
            }
            if !raft.has_settled_members() {
                return Stand::UnderWay;
            }
            let before = approach.committed.replace(raft.committed());
            next_step(&raft, near.own, target, before, approach.hand_overs)
        };
        let begun = match step {
            Step::Done => return Stand::There,
            Step::Wait => return Stand::UnderWay,
            Step::Change(next) => {
                // Whoever comes is to be reached as soon as it belongs to the group.
                let begun = self.raft.borrow_mut().change_members(now, &next);
                match &begun {
                    Ok(_) => tracing::info!(
                        partition = self.name, voters = ?nodes(next.voters()),
                        learners = ?nodes(next.learners()),
                        "the members of a group change"
                    ),
                    Err(why) => {
                        tracing::debug!(partition = self.name, ?why, "members do not change now")
                    }
                }
                begun
            }
            Step::HandOver(to) => {
                approach.hand_overs += 1;
                tracing::info!(
                    partition = self.name,
                    to = to.node,
                    "a leader that is not to stay hands over"
                );
                self.raft.borrow_mut().hand_over(now, to)
            }
        };
        // What is refused now is tried at the next look.
        if let Ok(actions) = begun {
            self.perform(actions, ReplicatedBatches::default());
        }
        Stand::UnderWay
    }

    /// Sessions with nodes that were not the group's before are the group's from now on.
    pub(super) fn meet_new_members(&self) {
        let Some(near) = &self.surroundings else { return };
        let strangers: Vec<i32> = {
            let raft = self.raft.borrow();
            let history = raft.history();
            let named_at = (history.base().at.index(), history.members_written_at());
            if self.members_met.replace(named_at) == named_at {
                return;
            }
            self.end_flights(|to| raft.next_for(to).is_none());
            let nodes = raft.members().ids().map(|id| id.node);
            nodes.filter(|node| *node != near.own.node && !raft.knows_up(*node)).collect()
        };
        for node in strangers {
            if near.peers.session(node).is_some() {
                let actions = self.raft.borrow_mut().meet(self.now_ms(), node);
                self.perform(actions, ReplicatedBatches::default());
            }
        }
    }
}

fn nodes(ids: impl Iterator<Item = ReplicaId>) -> Vec<i32> {
    ids.map(|id| id.node).collect()
}

fn next_step(
    raft: &Node,
    own: ReplicaId,
    target: &[ReplicaId],
    committed_before: Option<i64>,
    hand_overs: u32,
) -> Step {
    // It need not have all at any moment: under load, something is always on its way.
    let enough = committed_before.unwrap_or(i64::MAX).min(raft.committed());
    let is_caught_up = |id: &ReplicaId| raft.index_flushed_by(id).is_some_and(|has| has >= enough);
    let (members, may_hand_over) = (raft.members(), hand_overs < HAND_OVERS);
    let was_named = raft.generation() >= 0;
    Look { own, target, members, is_caught_up, may_hand_over, was_named }.next()
}

#[cfg(test)]
mod tests {
    use vltava_protocol::types::Uuid;

    use super::*;

    fn ids(nodes: &str) -> Vec<ReplicaId> {
        let id = |node: &str| node.parse().map(|node| ReplicaId { node, disk: Uuid(7) });
        nodes.split_whitespace().filter_map(|node| id(node).ok()).collect()
    }

    /// `voters` or `voters + learners`
    fn members(text: &str) -> Membership {
        let (voters, learners) = text.split_once('+').unwrap_or((text, ""));
        Membership::new(ids(voters), ids(learners))
    }

    /// own, members, target, who is caught up, whether it may hand over, what is done
    const STEPS: &[(&str, &str, &str, &str, bool, &str)] = &[
        ("1", "1 2", "1 2", "", true, "done"),
        ("1", "1 2", "2 1", "", true, "done"),
        // who comes learns first
        ("1", "1 2", "2 3", "2 3", true, "1 2 + 3"),
        ("1", "1 2 + 3", "2 3", "2", true, "wait"),
        // who goes hands over first, to one that has all
        ("1", "1 2 + 3", "2 3", "2 3", true, "hand over to 2"),
        ("1", "1 2 + 3", "2 3", "3", true, "wait"),
        ("1", "1 2 4 + 3", "2 3 4", "3 4", true, "hand over to 4"),
        ("1", "1 2 + 3", "2 3", "2 3", false, "2 3"),
        ("2", "1 2 + 3", "2 3", "3", true, "2 3"),
        // nobody who stays votes yet
        ("1", "1", "2", "2", true, "1 + 2"),
        ("1", "1 + 2", "2", "2", true, "1 2"),
        ("1", "1 2", "2", "2", true, "hand over to 2"),
        ("2", "1 2", "2", "", true, "2"),
        ("1", "1 2 + 3 4", "3 4", "3 4", true, "1 2 3 4"),
        // more, and fewer
        ("1", "1 + 2 3", "1 2 3", "2", true, "wait"),
        ("1", "1 + 2 3", "1 2 3", "2 3", true, "1 2 3"),
        ("1", "1 2 3", "1 2", "", true, "1 2"),
        // what is left over of another change goes
        ("1", "1 2 + 3", "1 2", "", true, "1 2"),
        ("1", "1 2 + 3", "2 4", "3", true, "1 2 + 4"),
        ("1", "1 2 + 3 4", "2 4", "2 3 4", true, "1 2 + 4"),
        // a voter that is gone for good is not asked
        ("1", "1 2 3 + 4", "1 2 4", "2 4", true, "1 2 4"),
        // who was named alone takes in who is there
        ("1", "1 + 2 3", "1 2 3", "3", true, "1 3 + 2 one by one"),
        ("1", "1 + 2 3", "1 2 3", "", true, "wait one by one"),
        ("1", "1 + 2 3", "1 2 3", "2 3", true, "1 2 3 one by one"),
        ("1", "1 3 + 2", "1 2 3", "3", true, "wait one by one"),
    ];

    #[test]
    fn golden_table_of_steps() {
        for (own, before, target, caught_up, may_hand_over, expected) in STEPS {
            let (own, target, caught_up) = (ids(own)[0], ids(target), ids(caught_up));
            let before = members(before);
            let look = Look {
                own,
                target: &target,
                members: &before,
                is_caught_up: |id: &ReplicaId| caught_up.contains(id),
                may_hand_over: *may_hand_over,
                was_named: expected.ends_with(" one by one"),
            };
            let expected = match expected.trim_end_matches(" one by one") {
                "done" => Step::Done,
                "wait" => Step::Wait,
                text => match text.strip_prefix("hand over to ") {
                    Some(to) => Step::HandOver(ids(to)[0]),
                    None => Step::Change(members(text)),
                },
            };
            assert_eq!(look.next(), expected, "{before:?} to {target:?}");
        }
    }

    /// From any members to any others, with whoever leads: it ends, and there.
    #[test]
    fn every_way_ends() {
        let sets = |mask: u32| -> Vec<ReplicaId> {
            (0..4)
                .filter(|bit| mask & 1 << bit != 0)
                .flat_map(|bit| ids(&bit.to_string()))
                .collect()
        };
        for from in 1..16 {
            for to in 1..16 {
                let target = sets(to);
                let mut group = Membership::new(sets(from), []);
                let mut own = sets(from)[0];
                let mut steps = 0;
                loop {
                    let look = Look {
                        own,
                        target: &target,
                        members: &group,
                        is_caught_up: |_: &ReplicaId| true,
                        may_hand_over: true,
                        was_named: from % 2 == 0,
                    };
                    match look.next() {
                        Step::Done => break,
                        Step::HandOver(next) => own = next,
                        Step::Change(next) => {
                            assert!(next.voters().any(|id| id == own), "the leader goes");
                            group = next;
                        }
                        Step::Wait => panic!("nobody is behind"),
                    }
                    steps += 1;
                    assert!(steps < 6, "{from} to {to}: {group:?}");
                }
                assert!(group.voters().eq(Membership::new(target, []).voters()));
            }
        }
    }
}
