//! Who is to be in group 0: every registered node, and which of them are to have a vote.

use crate::metadata::image::{Image, NodeState, Replica};

/// The most that vote on the cluster's metadata: more would only make it slower.
const VOTERS_MAX: usize = 5;

/// Who is in group 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// They have a vote.
    pub voters: Vec<Replica>,
    /// They only follow.
    pub learners: Vec<Replica>,
}

/// What the leader of group 0 sees of the nodes.
pub trait Sight {
    /// Whether a member is there with this disk, and has all that is committed.
    fn is_caught_up(&self, member: &Replica) -> bool;
    /// Whether a node is gone for so long that it is not waited for.
    fn is_gone_for_long(&self, node_id: i32) -> bool;
}

/// The members that the group is to have next, given those that it has; `leader` is one of them.
/// The same as they are where nothing is to be done, or must be waited for.
///
/// Every registered node is a member, with the disk that it registered with. As many vote as are
/// odd, and at most `VOTERS_MAX`; of two nodes, both. Who has a vote keeps it as long as its
/// node is one of the cluster's with that disk, is not being removed and not gone for long. It
/// loses it only when another takes its place at once, or when there is nobody to: so the number of
/// votes falls only as nodes are removed. A voter that is not registered keeps its vote until
/// another takes it.
pub fn wanted(image: &Image, now: &Members, leader: Replica, sight: &impl Sight) -> Members {
    let mut members = Vec::new();
    let mut may_vote = Vec::new();
    for node in image.nodes() {
        let Some(disk_id) = node.disks.first() else { continue };
        let member = Replica { node_id: node.id, disk_id: *disk_id };
        members.push(member);
        if node.state != NodeState::Removing {
            may_vote.push(member);
        }
    }
    let count = match may_vote.len().min(VOTERS_MAX) {
        2 => 2,
        even if even % 2 == 0 => even.saturating_sub(1),
        odd => odd,
    };
    let stays = |voter: &&Replica| {
        may_vote.contains(voter) && (**voter == leader || !sight.is_gone_for_long(voter.node_id))
    };
    let mut voters: Vec<Replica> = now.voters.iter().filter(stays).copied().collect();
    voters.sort_by_key(|voter| (*voter != leader, voter.node_id));
    voters.truncate(count);
    let is_ready = |member: &&Replica| {
        now.learners.contains(member)
            && sight.is_caught_up(member)
            && !sight.is_gone_for_long(member.node_id)
    };
    let ready = may_vote.iter().filter(is_ready);
    voters.extend(ready.take(count - voters.len()));
    // Whoever founded the cluster may not have registered yet: nothing is decided without it before
    // it has, or another takes its place.
    let is_unknown = |voter: &&Replica| image.node(voter.node_id).is_none();
    let unknown = now.voters.iter().filter(is_unknown).copied();
    voters.extend(unknown.take(now.voters.len().saturating_sub(voters.len())));
    // Whoever loses its vote is replaced first, where there will be somebody.
    if voters.len() < count.min(now.voters.len()) || voters.is_empty() {
        voters.clone_from(&now.voters);
    }
    voters.sort_unstable();
    let mut learners: Vec<Replica> =
        members.into_iter().filter(|member| !voters.contains(member)).collect();
    learners.sort_unstable();
    Members { voters, learners }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]

    use std::sync::Arc;

    use vltava_protocol::types::Uuid;

    use super::*;
    use crate::metadata::image::{Cluster, Node};
    use crate::metadata::records::{FORMAT_VERSION, Record};

    /// Nodes that are caught up; nodes that are gone for long.
    struct Seen(&'static [i32], &'static [i32]);

    impl Sight for Seen {
        fn is_caught_up(&self, member: &Replica) -> bool {
            self.0.contains(&member.node_id)
        }

        fn is_gone_for_long(&self, node_id: i32) -> bool {
            self.1.contains(&node_id)
        }
    }

    /// `3` is node 3 with its first disk, `3b` with its second.
    fn replica(text: &str) -> Replica {
        let (number, disk) = match text.strip_suffix('b') {
            Some(number) => (number, 200),
            None => (text, 100),
        };
        let node_id: i32 = number.parse().unwrap();
        Replica { node_id, disk_id: Uuid(disk + u128::from(node_id.unsigned_abs())) }
    }

    fn replicas(text: &str) -> Vec<Replica> {
        text.split_whitespace().map(replica).collect()
    }

    /// Nodes by their disks; `-` behind one that is removed, `?` behind one that was never seen.
    fn image(nodes: &str) -> Image {
        let mut image = Image::default();
        let (id, format_version) = (Uuid(9), FORMAT_VERSION);
        let cluster = Cluster { id, format_version, features: Arc::default() };
        image.apply(Record::Cluster(cluster)).unwrap();
        for text in nodes.split_whitespace() {
            let state = match text.chars().last() {
                Some('-') => NodeState::Removing,
                Some('?') => NodeState::Expected,
                _ => NodeState::There,
            };
            let found = replica(text.trim_end_matches(['-', '?']));
            let disks = match state {
                NodeState::Expected => Vec::new(),
                _ => vec![found.disk_id],
            };
            let (id, endpoints) = (found.node_id, Vec::new());
            let levels = crate::metadata::features::Levels::default();
            let (rack, peer_endpoint) = (None, None);
            let node = Node { id, epoch: 0, rack, endpoints, disks, peer_endpoint, state, levels };
            image.apply(Record::Node(id, Some(node))).unwrap();
        }
        image
    }

    fn shown(members: &Members) -> String {
        let names = |of: &[Replica]| {
            let name = |it: &Replica| {
                let is_second = it.disk_id.0 > 200;
                format!("{}{}", it.node_id, if is_second { "b" } else { "" })
            };
            of.iter().map(name).collect::<Vec<_>>().join(" ")
        };
        let learners = names(&members.learners);
        let voters = names(&members.voters);
        if learners.is_empty() { voters } else { format!("{voters} + {learners}") }
    }

    /// nodes, voters + learners, who is caught up, who is gone for long, what is wanted; 1 leads
    type Row = (&'static str, &'static str, &'static [i32], &'static [i32], &'static str);
    const TABLE: &[Row] = &[
        ("1 2 3", "1 2 3", &[1, 2, 3], &[], "1 2 3"),
        // a node comes: first it follows, then it votes where that makes the number odd
        ("1 2 3 4?", "1 2 3", &[1, 2, 3], &[], "1 2 3"),
        ("1 2 3 4", "1 2 3", &[1, 2, 3, 4], &[], "1 2 3 + 4"),
        ("1 2 3 4", "1 2 3 + 4", &[1, 2, 3, 4], &[], "1 2 3 + 4"),
        ("1 2 3 4 5", "1 2 3 + 4 5", &[1, 2, 3, 4], &[], "1 2 3 4 + 5"),
        ("1 2 3 4 5", "1 2 3 4 + 5", &[1, 2, 3, 4, 5], &[], "1 2 3 4 5"),
        ("1 2 3 4 5 6 7", "1 2 3 4 5 + 6", &[1, 2, 3, 4, 5, 6], &[], "1 2 3 4 5 + 6 7"),
        ("1", "1", &[1], &[], "1"),
        ("1 2", "1", &[1, 2], &[], "1 + 2"),
        ("1 2", "1 + 2", &[1, 2], &[], "1 2"),
        ("1 2 3", "1 2 + 3", &[1, 2, 3], &[], "1 2 3"),
        // who founded it registers one after the other
        ("1", "1 2 3", &[1, 2, 3], &[], "1 2 3"),
        ("1 3", "1 2 3", &[1], &[], "1 2 3"),
        ("1 2", "1 2 3", &[1, 2], &[3], "1 2 3"),
        // four that founded it
        ("1 2 3 4", "1 2 3 4", &[1, 2, 3, 4], &[], "1 2 3 + 4"),
        // a node goes: another takes its vote, if there is one
        ("1 2 3- 4", "1 2 3 + 4", &[1, 2, 3, 4], &[], "1 2 4 + 3"),
        ("1 2 3- 4", "1 2 3 + 4", &[1, 2, 3], &[], "1 2 3 + 4"),
        ("1 2 4", "1 2 3 + 4", &[1, 2, 4], &[], "1 2 4"),
        ("1 2 3-", "1 2 3", &[1, 2, 3], &[], "1 2 + 3"),
        ("1 2", "1 2 + 3", &[1, 2], &[], "1 2"),
        ("1-", "1", &[1], &[], "1"),
        // a disk that was wiped is another member; the old one's vote goes when the new one has it
        ("1 2b 3", "1 2 3", &[1, 3], &[], "1 2 3 + 2b"),
        ("1 2b 3", "1 2 3 + 2b", &[1, 3], &[], "1 2 3 + 2b"),
        ("1 2b 3", "1 2 3 + 2b", &[1, 2, 3], &[], "1 2b 3"),
        // whoever is gone for long gives its vote to one that follows; nobody else loses one
        ("1 2 3 4", "1 2 3 + 4", &[1, 2, 4], &[3], "1 2 4 + 3"),
        ("1 2 3 4", "1 2 3 + 4", &[1, 2], &[3, 4], "1 2 3 + 4"),
        ("1 2 3", "1 2 3", &[1, 2], &[3], "1 2 3"),
    ];

    #[test]
    fn golden_table_of_members() {
        for (nodes, now, caught_up, gone, expected) in TABLE {
            let (voters, learners) = now.split_once('+').unwrap_or((now, ""));
            let now = Members { voters: replicas(voters), learners: replicas(learners) };
            let found = wanted(&image(nodes), &now, replica("1"), &Seen(caught_up, gone));
            assert_eq!(shown(&found), *expected, "{nodes}: {}", shown(&now));
        }
    }
}
