//! Which nodes keep a new partition: as evenly as can be, the replicas of one partition on as many
//! racks as there are.

use vltava_protocol::types::{Str, Uuid};

/// A node, as far as placing needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Its number.
    pub id: i32,
    /// Its rack; `None` is a rack of its own kind.
    pub rack: Option<Str>,
}

/// Places partitions `first..first + count` of a topic. Each gets `replication_factor` different
/// nodes, the first of which is the one that should lead. `None` where there are fewer nodes than
/// that.
///
/// The result depends on nothing but what goes in. Leaders go round the nodes, beginning with one
/// that depends on the topic, so that topics of one partition are spread, too; partitions added
/// later carry on where the others ended.
pub fn place(
    nodes: &[Candidate],
    topic_id: Uuid,
    first: usize,
    count: usize,
    replication_factor: usize,
) -> Option<Vec<Vec<i32>>> {
    if replication_factor > nodes.len() || replication_factor == 0 {
        return None;
    }
    let order = across_racks(nodes);
    let racks = rack_count(&order);
    let nodes_count = order.len() as u128;
    let start = usize::try_from(topic_id.0 % nodes_count).unwrap_or(0);
    let placed = (first..first.saturating_add(count)).map(|partition| {
        let candidates = candidates(order.len(), start, partition);
        let by_preference = candidates.map(|at| order[at]);
        one_partition(by_preference, racks, replication_factor)
    });
    Some(placed.collect())
}

/// Nodes in an order in which neighbours stand on different racks, as far as that is possible.
fn across_racks(nodes: &[Candidate]) -> Vec<&Candidate> {
    let mut sorted: Vec<&Candidate> = nodes.iter().collect();
    sorted.sort_by(|one, other| (&one.rack, one.id).cmp(&(&other.rack, other.id)));
    let mut ranked: Vec<(usize, &Candidate)> = Vec::with_capacity(sorted.len());
    for node in sorted {
        let rank = match ranked.last() {
            Some((rank, previous)) if previous.rack == node.rack => rank + 1,
            _ => 0,
        };
        ranked.push((rank, node));
    }
    // Stable: within a rank the racks stay in order.
    ranked.sort_by_key(|(rank, _)| *rank);
    ranked.into_iter().map(|(_, node)| node).collect()
}

fn rack_count(nodes: &[&Candidate]) -> usize {
    let mut racks: Vec<&Option<Str>> = nodes.iter().map(|node| &node.rack).collect();
    racks.sort();
    racks.dedup();
    racks.len()
}

/// Places in the order of nodes, as a partition prefers them: a leader that moves on with each
/// partition, followers that shift with each round, so that the partitions of a node that fails are
/// led by all others.
fn candidates(nodes: usize, start: usize, partition: usize) -> impl Iterator<Item = usize> + Clone {
    let leader = (start + partition % nodes) % nodes;
    let others = nodes - 1;
    let shift = (partition / nodes) % others.max(1);
    let followers = (0..others).map(move |at| (leader + 1 + (shift + at) % others.max(1)) % nodes);
    std::iter::once(leader).chain(followers)
}

/// The first `replication_factor` of the nodes, passing over used racks as long as there are
/// others.
fn one_partition<'a>(
    by_preference: impl Iterator<Item = &'a Candidate> + Clone,
    racks: usize,
    replication_factor: usize,
) -> Vec<i32> {
    let mut chosen: Vec<&Candidate> = Vec::with_capacity(replication_factor);
    while chosen.len() < replication_factor {
        let use_any = chosen.len() >= racks;
        let is_free = |node: &&Candidate| !chosen.iter().any(|other| other.id == node.id);
        let on_new_rack = |node: &&Candidate| !chosen.iter().any(|other| other.rack == node.rack);
        let next =
            by_preference.clone().find(|node| is_free(node) && (use_any || on_new_rack(node)));
        match next {
            Some(node) => chosen.push(node),
            None => break,
        }
    }
    chosen.into_iter().map(|node| node.id).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    fn nodes(racks: &[Option<&str>]) -> Vec<Candidate> {
        let ids = 1..;
        ids.zip(racks).map(|(id, rack)| Candidate { id, rack: rack.map(Str::from) }).collect()
    }

    #[test]
    fn one_node_keeps_everything() {
        let placed = place(&nodes(&[None]), Uuid(77), 0, 3, 1).unwrap();
        assert_eq!(placed, [[1], [1], [1]]);
    }

    #[test]
    fn too_few_nodes_is_nothing() {
        assert_eq!(place(&nodes(&[None]), Uuid(0), 0, 1, 2), None);
        assert_eq!(place(&[], Uuid(0), 0, 1, 1), None);
        assert_eq!(place(&nodes(&[None]), Uuid(0), 0, 1, 0), None);
    }

    #[test]
    fn later_partitions_carry_on() {
        let nodes = nodes(&[None, None, None]);
        let all = place(&nodes, Uuid(5), 0, 9, 2).unwrap();
        let mut grown = place(&nodes, Uuid(5), 0, 4, 2).unwrap();
        grown.extend(place(&nodes, Uuid(5), 4, 5, 2).unwrap());
        assert_eq!(all, grown);
    }

    fn rack() -> impl Strategy<Value = Option<Str>> {
        prop::option::of("[abc]".prop_map(Str::from))
    }

    proptest! {
        #[test]
        fn replicas_are_different_even_and_across_racks(
            racks in prop::collection::vec(rack(), 1..9),
            topic in any::<u128>(),
            rounds in 1..4_usize,
            wanted in 1..5_usize,
        ) {
            let ids = 10..;
            let candidates = ids.zip(racks).map(|(id, rack)| Candidate { id, rack });
            let nodes: Vec<Candidate> = candidates.collect();
            let replication_factor = wanted.min(nodes.len());
            let count = rounds * nodes.len();
            let placed = place(&nodes, Uuid(topic), 0, count, replication_factor).unwrap();
            prop_assert_eq!(placed.len(), count);
            let rack_of: BTreeMap<i32, &Option<Str>> =
                nodes.iter().map(|node| (node.id, &node.rack)).collect();
            let all_racks: BTreeSet<&Option<Str>> = rack_of.values().copied().collect();
            let mut led: BTreeMap<i32, usize> = BTreeMap::new();
            for replicas in &placed {
                let different: BTreeSet<&i32> = replicas.iter().collect();
                prop_assert_eq!(different.len(), replication_factor);
                let used: BTreeSet<_> = replicas.iter().map(|id| rack_of[id]).collect();
                prop_assert_eq!(used.len(), replication_factor.min(all_racks.len()));
                *led.entry(replicas[0]).or_default() += 1;
            }
            prop_assert!(nodes.iter().all(|node| led.get(&node.id) == Some(&rounds)), "{:?}", led);
        }
    }
}
