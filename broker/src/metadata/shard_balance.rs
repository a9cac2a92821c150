//! Which partition should go to another shard, where one core is hot and another is not.
//!
//! A shard's partitions share its core. Which of them takes how much of it is not measured; how
//! much each was asked to do is, so a partition is taken to cost its part of that. One moves at a
//! time, and only where that makes the two shards clearly more alike: a partition that is all the
//! work of its shard would only take the heat along.
//!
//! Restless is worse than uneven, for each move is a pause: the same shard has to be hot for a few
//! looks in a row, and a partition that has moved stays for a while.

use std::collections::BTreeMap;

use super::image::PartitionId;

/// A shard is hot from here on: this many thousandths of its core.
const HOT: u64 = 600;
/// And only where another has this much less to do.
const DIFFERENCE: u64 = 250;
/// A move has to take so much from the hotter of the two, in thousandths of a core.
const GAIN: u64 = 100;
/// For so many looks in a row.
const LOOKS: u32 = 3;
/// A partition that has moved stays for so many looks.
const STAY: u64 = 60;

/// What one shard did between two looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShardLoad {
    /// How much of the time it was at work, in thousandths.
    pub busy: u64,
    /// What its partitions were asked to do, in any unit, those that were asked most; none of group
    /// 0.
    pub partitions: Vec<(PartitionId, u64)>,
    /// The same of all of them together.
    pub work: u64,
}

/// Remembers what it saw before.
#[derive(Clone, Debug, Default)]
pub struct Balancer {
    looks: u64,
    /// The shard that was hot at the latest looks, and at how many of them in a row.
    hot: Option<(usize, u32)>,
    /// At which look each partition has moved.
    moved: BTreeMap<PartitionId, u64>,
}

impl Balancer {
    /// Takes a look at all shards: what is to move where, if anything.
    pub fn look(&mut self, loads: &[ShardLoad]) -> Option<(PartitionId, usize)> {
        self.looks += 1;
        let looks = self.looks;
        self.moved.retain(|_, at| looks - *at < STAY);
        let busy = |shard: &usize| loads[*shard].busy;
        // Of several alike, the first.
        let hottest = (0..loads.len()).rev().max_by_key(busy)?;
        let coolest = (0..loads.len()).min_by_key(busy)?;
        let (high, low) = (loads[hottest].busy, loads[coolest].busy);
        if high < HOT || high - low < DIFFERENCE {
            self.hot = None;
            return None;
        }
        let in_a_row = match self.hot {
            Some((shard, count)) if shard == hottest => count + 1,
            _ => 1,
        };
        self.hot = Some((hottest, in_a_row));
        if in_a_row < LOOKS {
            return None;
        }
        let chosen = self.choose(&loads[hottest], low)?;
        self.moved.insert(chosen, looks);
        // What comes of it is looked at anew.
        self.hot = None;
        Some((chosen, coolest))
    }

    /// The partition that leaves the least to the hotter of the two.
    fn choose(&self, hot: &ShardLoad, low: u64) -> Option<PartitionId> {
        let candidates = hot.partitions.iter().filter(|(id, _)| !self.moved.contains_key(id));
        let hotter_after = |work: u64| {
            let share = hot.busy.saturating_mul(work) / hot.work.max(1);
            (hot.busy - share.min(hot.busy)).max(low + share)
        };
        let best = candidates.min_by_key(|(id, work)| (hotter_after(*work), *id))?;
        (hotter_after(best.1) + GAIN <= hot.busy).then_some(best.0)
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::types::Uuid;

    use super::*;

    fn id(number: i32) -> PartitionId {
        PartitionId { topic_id: Uuid(7), index: number }
    }

    /// A shard's load, in thousandths, and the work of its partitions by their numbers.
    fn load(busy: u64, partitions: &[(i32, u64)]) -> ShardLoad {
        ShardLoad {
            busy,
            partitions: partitions.iter().map(|(number, work)| (id(*number), *work)).collect(),
            work: partitions.iter().map(|(_, work)| work).sum(),
        }
    }

    /// What is decided at so many looks that are all alike: at which look, what, and where to.
    fn decided(loads: &[ShardLoad], looks: u64) -> Vec<(u64, i32, usize)> {
        let mut balancer = Balancer::default();
        let looks = (1..=looks).filter_map(|look| {
            let (partition, to) = balancer.look(loads)?;
            Some((look, partition.index, to))
        });
        looks.collect()
    }

    type Row = (&'static str, Vec<ShardLoad>, Option<(i32, usize)>);

    /// The table: loads of the shards, and what moves where at the third look.
    #[test]
    fn golden() {
        let some = [(1, 50), (2, 30), (3, 20)];
        let table: [Row; 12] = [
            ("one shard has nowhere to go", vec![load(1000, &some)], None),
            ("idle", vec![load(0, &[]), load(0, &[])], None),
            ("half a core is not hot", vec![load(500, &some), load(0, &[])], None),
            ("both are hot", vec![load(1000, &some), load(800, &some)], None),
            ("the half of it", vec![load(1000, &some), load(0, &[])], Some((1, 1))),
            ("less where the other has work", vec![load(900, &some), load(500, &[])], Some((3, 1))),
            ("to the coolest", vec![load(300, &[]), load(900, &some), load(0, &[])], Some((1, 2))),
            ("one that is all the work stays", vec![load(1000, &[(1, 9)]), load(0, &[])], None),
            (
                "what gains too little stays",
                vec![load(900, &[(1, 95), (2, 5)]), load(0, &[])],
                None,
            ),
            ("no work that is known", vec![load(900, &[(1, 0)]), load(0, &[])], None),
            (
                "the first of those alike",
                vec![load(900, &[(2, 1), (1, 1)]), load(0, &[])],
                Some((1, 1)),
            ),
            (
                "numbers without end",
                vec![load(u64::MAX / 2, &[(1, u64::MAX / 4)]), load(0, &[])],
                None,
            ),
        ];
        for (what, loads, expected) in table {
            let found = decided(&loads, 3);
            let expected: Vec<_> =
                expected.into_iter().map(|(partition, to)| (3, partition, to)).collect();
            assert_eq!(found, expected, "{what}");
        }
    }

    #[test]
    fn one_moves_at_a_time_and_stays_for_a_while() {
        let loads = [load(1000, &[(1, 50), (2, 30), (3, 20)]), load(0, &[])];
        // As if no move ever changed anything.
        let found = decided(&loads, 70);
        let (first, again) =
            ([(3, 1, 1), (6, 2, 1), (9, 3, 1)], [(63, 1, 1), (66, 2, 1), (69, 3, 1)]);
        assert_eq!(found, [first, again].concat());
    }

    #[test]
    fn a_moment_of_heat_moves_nothing() {
        let (hot, cool) = (load(1000, &[(1, 5), (2, 5)]), load(0, &[]));
        let mut balancer = Balancer::default();
        for _ in 0..10 {
            for loads in [[hot.clone(), cool.clone()], [cool.clone(), hot.clone()]] {
                assert_eq!(balancer.look(&loads), None);
                assert_eq!(balancer.look(&loads), None);
            }
        }
    }
}
