//! What has to move so that the nodes keep equally many replicas, and are preferred as leaders
//! equally often: as little as can be, and never onto a rack that the partition has already, where
//! it has another now.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::types::Str;

use super::placement::Candidate;

/// Where each of these partitions is to be, in order of preference, where that is another place
/// than now: by their places in the list. Only these nodes give and take; what others keep stays.
pub fn spread(nodes: &[Candidate], partitions: &[Vec<i32>]) -> BTreeMap<usize, Vec<i32>> {
    let mut spread = Spread {
        racks: nodes.iter().map(|node| (node.id, &node.rack)).collect(),
        partitions: partitions.to_vec(),
    };
    while spread.move_one() {}
    while spread.prefer_another() {}
    let after = spread.partitions.into_iter().enumerate();
    after.filter(|(at, replicas)| *replicas != partitions[*at]).collect()
}

struct Spread<'a> {
    /// Of the nodes that give and take.
    racks: BTreeMap<i32, &'a Option<Str>>,
    partitions: Vec<Vec<i32>>,
}

impl Spread<'_> {
    /// Moves one replica from a node to one that has at least two less; whether there was one. Each
    /// makes the numbers more equal, so there is a last.
    fn move_one(&mut self) -> bool {
        let counts = self.counts(|replicas| &replicas[..]);
        for (giver, has) in sorted(&counts, true) {
            for (taker, would_have) in sorted(&counts, false) {
                if has < would_have + 2 {
                    break;
                }
                let may = |replicas: &Vec<i32>| self.may_move(replicas, giver, taker);
                if let Some(at) = self.partitions.iter().position(may) {
                    let replicas = self.partitions[at].iter_mut();
                    replicas.filter(|id| **id == giver).for_each(|id| *id = taker);
                    return true;
                }
            }
        }
        false
    }

    fn may_move(&self, replicas: &[i32], giver: i32, taker: i32) -> bool {
        if !replicas.contains(&giver) || replicas.contains(&taker) {
            return false;
        }
        let racks = |instead: i32| {
            let nodes = replicas.iter().map(|id| if *id == giver { instead } else { *id });
            nodes.filter_map(|id| self.racks.get(&id)).collect::<BTreeSet<_>>().len()
        };
        racks(taker) >= racks(giver)
    }

    /// Has one partition prefer another of its replicas, on a node that is preferred at least two
    /// times less often; whether there was one.
    fn prefer_another(&mut self) -> bool {
        let counts = self.counts(|replicas| &replicas[..replicas.len().min(1)]);
        for (giver, has) in sorted(&counts, true) {
            for replicas in self.partitions.iter_mut().filter(|it| it.first() == Some(&giver)) {
                let less = |id: &i32| counts.get(id).is_some_and(|count| count + 2 <= has);
                let others = (1..replicas.len()).filter(|at| less(&replicas[*at]));
                if let Some(at) = others.min_by_key(|at| counts.get(&replicas[*at]).copied()) {
                    replicas[..=at].rotate_right(1);
                    return true;
                }
            }
        }
        false
    }

    /// How many each node has of what counts of each partition.
    fn counts(&self, counted: impl Fn(&Vec<i32>) -> &[i32]) -> BTreeMap<i32, usize> {
        let mut counts: BTreeMap<i32, usize> = self.racks.keys().map(|id| (*id, 0)).collect();
        for id in self.partitions.iter().flat_map(counted) {
            if let Some(count) = counts.get_mut(id) {
                *count += 1;
            }
        }
        counts
    }
}

/// By what they have, the most or the least first.
fn sorted(counts: &BTreeMap<i32, usize>, is_most_first: bool) -> Vec<(i32, usize)> {
    let mut sorted: Vec<(i32, usize)> = counts.iter().map(|(id, count)| (*id, *count)).collect();
    sorted.sort_by_key(|(_, count)| if is_most_first { usize::MAX - count } else { *count });
    sorted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nodes(racks: &[(i32, &str)]) -> Vec<Candidate> {
        let rack = |rack: &str| (!rack.is_empty()).then(|| Str::from(rack));
        racks.iter().map(|(id, name)| Candidate { id: *id, rack: rack(name) }).collect()
    }

    #[test]
    fn a_new_node_gets_its_part_and_nothing_else_moves() {
        let four = nodes(&[(1, ""), (2, ""), (3, ""), (4, "")]);
        let partitions: Vec<Vec<i32>> =
            (0..8).map(|at| [[1, 2, 3], [2, 3, 1], [3, 1, 2]][at % 3].to_vec()).collect();
        let moves = spread(&four, &partitions);
        let new = moves.values().filter(|replicas| replicas.contains(&4)).count();
        assert_eq!((moves.len(), new), (6, 6), "{moves:?}");
        assert_eq!(spread(&four[..3], &partitions), BTreeMap::new(), "even already");
    }

    #[test]
    fn what_a_node_that_does_not_take_part_keeps_stays() {
        let two = nodes(&[(1, ""), (2, "")]);
        let moves = spread(&two, &[vec![9, 1], vec![9, 1], vec![9, 8]]);
        assert_eq!(moves, [(0, vec![9, 2])].into());
    }

    fn rack() -> impl Strategy<Value = Option<Str>> {
        prop::option::of("[ab]".prop_map(Str::from))
    }

    proptest! {
        #[test]
        fn it_is_even_and_no_partition_has_fewer_racks(
            racks in prop::collection::vec(rack(), 2..6),
            drawn in prop::collection::vec((1..4_usize, any::<prop::sample::Index>()), 0..40),
        ) {
            let ids = 1..;
            let is_plain = racks.iter().all(Option::is_none);
            let nodes: Vec<Candidate> =
                ids.zip(racks).map(|(id, rack)| Candidate { id, rack }).collect();
            let place = |(wanted, first): &(usize, prop::sample::Index)| -> Vec<i32> {
                let first = first.index(nodes.len());
                let turned = (0..nodes.len()).map(|at| nodes[(first + at) % nodes.len()].id);
                turned.take(*wanted).collect()
            };
            let before: Vec<Vec<i32>> = drawn.iter().map(place).collect();
            let mut after = before.clone();
            let racks = |replicas: &[i32]| {
                let known = |id: &i32| nodes.iter().find(|node| node.id == *id).unwrap();
                replicas.iter().map(|id| &known(id).rack).collect::<BTreeSet<_>>().len()
            };
            for (at, replicas) in spread(&nodes, &before) {
                prop_assert!(racks(&replicas) >= racks(&before[at]));
                let different: BTreeSet<&i32> = replicas.iter().collect();
                prop_assert_eq!(different.len(), before[at].len());
                after[at] = replicas;
            }
            prop_assert!(spread(&nodes, &after).is_empty(), "it is where it would be");
            let count = |id: i32| after.iter().filter(|it| it.contains(&id)).count();
            let counts = || nodes.iter().map(|node| count(node.id));
            if is_plain && let (Some(least), Some(most)) = (counts().min(), counts().max()) {
                prop_assert!(most <= least + 1, "{after:?}");
            }
        }
    }
}
