//! Which shard of this node owns a partition: computed, plus exceptions.
//!
//! The node's own affair: nothing on disk depends on it, and it may change between two starts.
//! Every shard holds the same immutable table; a change is a new table, sent to all.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use super::image::PartitionId;

/// Partition to shard. A clone is cheap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardTable {
    shards: NonZeroUsize,
    exceptions: Arc<BTreeMap<PartitionId, usize>>,
}

impl ShardTable {
    /// Of so many shards, with these exceptions. One that names a shard which does not exist (the
    /// node had more of them before) counts for nothing.
    pub fn new(shards: NonZeroUsize, exceptions: BTreeMap<PartitionId, usize>) -> Self {
        Self { shards, exceptions: Arc::new(exceptions) }
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.shards.get()
    }

    /// The shard of a partition, below [`Self::shards`]. Group 0 is on shard 0; the partitions of
    /// one topic are on different shards, in turn, beginning with one that depends on the topic.
    pub fn shard_of(&self, partition: PartitionId) -> usize {
        if partition == PartitionId::CLUSTER_METADATA {
            return 0;
        }
        match self.exceptions.get(&partition) {
            Some(shard) if *shard < self.shards() => *shard,
            _ => self.computed(partition),
        }
    }

    /// The same with one partition on this shard.
    ///
    /// # Panics
    /// Where there is no such shard, or it is group 0's partition: the caller's mistake.
    pub fn with(&self, partition: PartitionId, shard: usize) -> Self {
        assert!(shard < self.shards(), "there is no shard {shard}");
        assert!(partition != PartitionId::CLUSTER_METADATA, "group 0 stays on shard 0");
        let mut exceptions = BTreeMap::clone(&self.exceptions);
        match self.computed(partition) == shard {
            true => exceptions.remove(&partition),
            false => exceptions.insert(partition, shard),
        };
        Self { shards: self.shards, exceptions: Arc::new(exceptions) }
    }

    /// The same with these exceptions in place of its own.
    pub fn with_exceptions(&self, exceptions: BTreeMap<PartitionId, usize>) -> Self {
        Self { shards: self.shards, exceptions: Arc::new(exceptions) }
    }

    /// The same without the exceptions of partitions that are none any more.
    pub fn kept(&self, is_known: impl Fn(&PartitionId) -> bool) -> Self {
        let kept = self.exceptions.iter().filter(|(id, _)| is_known(id));
        let exceptions = kept.map(|(id, shard)| (*id, *shard)).collect();
        Self { shards: self.shards, exceptions: Arc::new(exceptions) }
    }

    /// The partitions that are not where they are computed to be, also those of shards that there
    /// are none of now.
    pub fn exceptions(&self) -> impl Iterator<Item = (PartitionId, usize)> + '_ {
        self.exceptions.iter().map(|(id, shard)| (*id, *shard))
    }

    fn computed(&self, partition: PartitionId) -> usize {
        let first = mix(partition.topic_id.0);
        // Both below the number of shards, so the sum cannot overflow.
        let shards = self.shards.get() as u128;
        let index = u128::from(partition.index.unsigned_abs()) % shards;
        let shard = (u128::from(first) % shards + index) % shards;
        usize::try_from(shard).unwrap_or(0)
    }
}

/// Spreads ids that differ in few bits (SplitMix64's finisher over both halves).
fn mix(id: u128) -> u64 {
    #[expect(clippy::cast_possible_truncation, reason = "folds both halves into one")]
    let mut hash = (id >> 64) as u64 ^ id as u64;
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::types::Uuid;

    use super::*;

    fn table(shards: usize) -> ShardTable {
        ShardTable::new(NonZeroUsize::new(shards).unwrap(), BTreeMap::new())
    }

    fn partition(topic: u128, index: i32) -> PartitionId {
        PartitionId { topic_id: Uuid(topic), index }
    }

    #[test]
    fn a_topic_is_spread_evenly() {
        for shards in [1, 2, 3, 5, 64] {
            let table = table(shards);
            for topic in [0, 2, 3, u128::MAX, 0x1234_5678] {
                let mut owned = vec![0; shards];
                for index in 0..100 {
                    owned[table.shard_of(partition(topic, index))] += 1;
                }
                let (least, most) = (owned.iter().min().unwrap(), owned.iter().max().unwrap());
                assert!(most - least <= 1, "{shards} shards: {owned:?}");
            }
        }
    }

    #[test]
    fn topics_of_one_partition_are_spread() {
        let table = table(5);
        let mut owned = [0; 5];
        for topic in 0..1000 {
            owned[table.shard_of(partition(topic * 3, 0))] += 1;
        }
        assert!(owned.iter().all(|count| (140..=260).contains(count)), "{owned:?}");
    }

    #[test]
    fn group_0_is_on_shard_0() {
        let exceptions = BTreeMap::from([(PartitionId::CLUSTER_METADATA, 3)]);
        let table = ShardTable::new(NonZeroUsize::new(5).unwrap(), exceptions);
        assert_eq!(table.shard_of(PartitionId::CLUSTER_METADATA), 0);
    }

    #[test]
    fn an_exception_counts_while_its_shard_exists() {
        let id = partition(9, 0);
        let computed = table(5).shard_of(id);
        let elsewhere = (computed + 1) % 5;
        let exceptions = BTreeMap::from([(id, elsewhere)]);
        let five = ShardTable::new(NonZeroUsize::new(5).unwrap(), exceptions.clone());
        assert_eq!(five.shard_of(id), elsewhere);
        let one = ShardTable::new(NonZeroUsize::new(1).unwrap(), exceptions.clone());
        assert_eq!(one.shard_of(id), 0);
        assert_eq!(*one.exceptions, exceptions);
    }

    #[test]
    fn a_partition_goes_where_it_is_put_and_back() {
        let (id, other, gone) = (partition(9, 0), partition(9, 1), partition(8, 0));
        let computed = table(5);
        let (home, away) = (computed.shard_of(id), (computed.shard_of(id) + 2) % 5);
        let moved = computed.with(id, away).with(gone, 4);
        assert_eq!((moved.shard_of(id), moved.shard_of(other)), (away, computed.shard_of(other)));
        let kept = moved.kept(|id| id.topic_id != gone.topic_id);
        assert_eq!(kept.exceptions().collect::<Vec<_>>(), [(id, away)]);
        assert_eq!(kept.shard_of(gone), computed.shard_of(gone));
        assert_eq!(kept.with(id, home), computed, "where it is computed to be, it is no exception");
    }

    /// A table is computed anew at each start: another result would move every partition for
    /// nothing.
    #[test]
    fn the_spread_is_the_same_in_every_release() {
        let shards: Vec<usize> =
            (0..8).map(|topic| table(5).shard_of(partition(topic << 64 | 77, 1))).collect();
        assert_eq!(shards, GOLDEN);
    }

    const GOLDEN: [usize; 8] = [1, 0, 0, 0, 3, 3, 2, 3];
}
