//! What is left of a partition, and what becomes of it. Pure.

use std::collections::BTreeSet;

use crate::raft::membership::{Membership, ReplicaId};

/// Where a log ends: the greater, the more it can hold of what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEnd {
    /// The epoch of its last entry; -1: it has none.
    pub epoch: i32,
    /// Raft's index.
    pub index: i64,
    /// The offset of the next batch.
    pub offset: i64,
}

/// A replica that is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Which.
    pub id: ReplicaId,
    /// The newest epoch that it knows.
    pub epoch: i32,
    /// Where its log on disk ends.
    pub log_end: LogEnd,
    /// Whether nothing of its log is missing.
    pub can_lead: bool,
    /// Whether it leads, or follows a leader that is there.
    pub is_led: bool,
    /// Who belongs to the group, as far as it knows.
    pub members: Membership,
}

/// What becomes of a partition of which these are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prospect {
    /// It has a leader.
    Led,
    /// A majority is there: it elects one by itself.
    Elects,
    /// Only who leads by decision can, and this one has most.
    Needs(ReplicaId),
    /// The same, but this node is there, keeps a replica, and cannot say what that has: its log is
    /// being opened, cannot be, or has ended until a restart. It may have more than all others.
    Unsure(i32),
    /// Nobody is left who could.
    Nobody,
}

/// What becomes of a partition, by those of its replicas that answer. Which members count is said
/// by the one that has most. `silent` are nodes that are there, and whose replicas do not.
pub fn prospect(left: &[Left], silent: &BTreeSet<i32>) -> Prospect {
    if left.iter().any(|left| left.is_led) {
        return Prospect::Led;
    }
    let unsure = silent.first().map(|node| Prospect::Unsure(*node));
    let Some(first) = fullest(left) else { return unsure.unwrap_or(Prospect::Nobody) };
    let can_lead = |id: &ReplicaId| left.iter().any(|left| left.id == *id && left.can_lead);
    match first.members.is_quorum(can_lead) {
        true => Prospect::Elects,
        false => unsure.unwrap_or(Prospect::Needs(first.id)),
    }
}

/// Of those that could lead, the one that has most: by epoch, then by where its log ends.
fn fullest(left: &[Left]) -> Option<&Left> {
    let having = |left: &&Left| (left.log_end, -left.id.node);
    left.iter().filter(|left| left.can_lead).max_by_key(having)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::types::Uuid;

    use super::*;

    fn id(node: i32) -> ReplicaId {
        ReplicaId { node, disk: Uuid(7) }
    }

    /// Of a group of 1, 2 and 3: where its log ends.
    fn left(node: i32, epoch: i32, offset: i64) -> Left {
        Left {
            id: id(node),
            epoch,
            log_end: LogEnd { epoch, index: offset + 1, offset },
            can_lead: true,
            is_led: false,
            members: Membership::new([1, 2, 3].map(id), []),
        }
    }

    #[test]
    fn who_has_most_is_named_only_where_nobody_can_be_elected() {
        let prospect = |left: &[Left]| prospect(left, &BTreeSet::new());
        let needs = |left: &[Left]| match prospect(left) {
            Prospect::Needs(id) => id.node,
            other => panic!("{other:?}"),
        };
        assert_eq!(prospect(&[]), Prospect::Nobody);
        assert_eq!(needs(&[left(2, 4, 10)]), 2);
        assert_eq!(prospect(&[left(2, 4, 10), left(3, 4, 9)]), Prospect::Elects);
        // One of them has lost its log: it does not count, and the other is no majority.
        let lost = Left { can_lead: false, ..left(3, 9, 90) };
        assert_eq!(needs(&[left(2, 4, 10), lost.clone()]), 2);
        assert_eq!(prospect(std::slice::from_ref(&lost)), Prospect::Nobody);
        // Of five, two are left.
        let five = |left: Left| Left { members: Membership::new((1..6).map(id), []), ..left };
        assert_eq!(needs(&[five(left(2, 4, 10)), five(left(3, 5, 9))]), 3, "the newer epoch");
        assert_eq!(needs(&[five(left(2, 4, 10)), five(left(3, 4, 9))]), 2, "the longer log");
        let led = Left { is_led: true, ..left(3, 4, 9) };
        assert_eq!(prospect(&[left(2, 4, 10), led]), Prospect::Led);
    }

    #[test]
    fn nobody_is_named_while_one_that_is_there_cannot_say_what_it_has() {
        let silent = BTreeSet::from([3]);
        assert_eq!(prospect(&[left(2, 4, 10)], &silent), Prospect::Unsure(3));
        assert_eq!(prospect(&[], &silent), Prospect::Unsure(3));
        let both = [left(1, 4, 9), left(2, 4, 10)];
        assert_eq!(prospect(&both, &silent), Prospect::Elects, "it is not needed");
        let led = Left { is_led: true, ..left(2, 4, 10) };
        assert_eq!(prospect(&[led], &silent), Prospect::Led);
    }
}
