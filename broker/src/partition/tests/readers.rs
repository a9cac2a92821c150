//! What a consumer is told while leaders come and go: never that what it has read is not there.

use vltava_protocol::batch;
use vltava_protocol::encode::Records;

use super::groups::{Cluster, NODES, PARTITION, tell};
use crate::partition::error::PartitionError;
use crate::partition::fetch::read_all;
use crate::partition::lookup::Lookup;
use crate::partition::request::ReadFrom;

/// A consumer: it asks every node that runs, whoever leads.
#[derive(Default)]
struct Consumer {
    /// The first offset that it has not read.
    position: i64,
    /// The epoch of the last batch that it has.
    epoch: i32,
    /// The largest end that it was told of.
    end: i64,
    /// It reads also from those who follow.
    may_follow: bool,
    /// Those who follow gave it so many batches.
    followed: usize,
}

impl Consumer {
    async fn read(&mut self, cluster: &Cluster, index: usize) -> Result<(), PartitionError> {
        let Some(partitions) = cluster.partitions(index) else { return Ok(()) };
        let read = ReadFrom {
            partition: PARTITION,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
            may_follow: self.may_follow,
            nearer: None,
            offset: self.position,
            bytes_max: 1 << 20,
        };
        let found = read_all(partitions, vec![read], 1 << 20).await.remove(0)?;
        let before = self.position;
        self.take(Records { parts: found.parts });
        let is_follower = cluster.replica(index).check_leads().is_err();
        self.followed += usize::from(is_follower && self.position > before);
        Ok(())
    }

    async fn ask(&mut self, cluster: &Cluster, index: usize) {
        if cluster.partitions(index).is_none() {
            return;
        }
        match self.read(cluster, index).await {
            Ok(()) => {}
            Err(PartitionError::NotLeader) => return,
            Err(error) => panic!("node {index}, asked for {}: {error}", self.position),
        }
        let replica = cluster.replica(index);
        let (epoch, end) = replica.end_of_epoch(self.epoch);
        assert!(
            self.position == 0 || epoch == self.epoch && end >= self.position,
            "node {index} says that epoch {} ends at {end}, and {} was read of it: {epoch}",
            self.epoch,
            self.position
        );
        match replica.lookup(-1, Lookup::Latest).await {
            Ok(latest) => {
                assert!(latest.offset >= self.end, "{} after {}", latest.offset, self.end);
                self.end = latest.offset;
            }
            Err(PartitionError::NotAvailable | PartitionError::NotLeader) => {}
            Err(error) => panic!("node {index}: {error}"),
        }
    }

    fn take(&mut self, records: Records) {
        let bytes = records.to_bytes().unwrap();
        for batch in batch::walk(&bytes) {
            let batch = batch.unwrap();
            assert_eq!(batch.base_offset(), self.position);
            (self.position, self.epoch) = (batch.next_offset(), batch.leader_epoch());
        }
        self.end = self.end.max(self.position);
    }

    async fn ask_for_ms(&mut self, cluster: &Cluster, ms: u64) {
        for _ in 0..ms {
            for index in 0..NODES {
                self.ask(cluster, index).await;
            }
            cluster.sleep_ms(1).await;
        }
    }
}

#[test]
fn nobody_is_told_by_a_new_leader_that_what_it_has_read_is_not_there() {
    for seed in 1..9 {
        tell(seed, async |mut cluster| {
            for index in 0..NODES {
                cluster.start(index).await;
            }
            let mut consumer = Consumer::default();
            for round in 0..4 {
                for number in 0..10 {
                    cluster.write(&format!("round {round}, value {number}")).await;
                    consumer.ask_for_ms(&cluster, 2).await;
                }
                let leader = cluster.leader().expect("it has just written");
                cluster.kill(leader);
                consumer.ask_for_ms(&cluster, 600).await;
                cluster.write(&format!("round {round}")).await;
                cluster.start(leader).await;
                consumer.ask_for_ms(&cluster, 20).await;
            }
            // All at once: nobody knows what is committed.
            (0..NODES).for_each(|index| cluster.kill(index));
            for index in 0..NODES {
                cluster.start(index).await;
            }
            consumer.ask_for_ms(&cluster, 2_000).await;
            assert_eq!((consumer.position, consumer.end), (44, 44));
        });
    }
}

/// A replica that follows gives what is committed, as far as it knows, and nothing once it is cut
/// off.
#[test]
fn who_reads_from_those_who_follow_reads_the_same() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            for index in 0..NODES {
                cluster.start(index).await;
            }
            let mut consumer = Consumer { may_follow: true, ..Consumer::default() };
            for round in 0..3 {
                for number in 0..20 {
                    cluster.write(&format!("round {round}, value {number}")).await;
                    for index in (0..NODES).filter(|index| Some(*index) != cluster.leader()) {
                        consumer.read(&cluster, index).await.unwrap();
                    }
                }
                let leader = cluster.leader().expect("it has just written");
                let nodes = [1, 2, 3];
                let nearest = cluster.replica(leader).nearest(&nodes, consumer.position);
                assert!(nearest.is_some_and(|node| node != i32::try_from(leader).unwrap() + 1));
                assert_eq!(cluster.replica(leader).nearest(&nodes, 1_000), None, "nobody has it");
                // What a follower has not, it may not have yet: that it is not there it cannot say.
                let mut ahead =
                    Consumer { may_follow: true, position: 1_000, ..Consumer::default() };
                for index in (0..NODES).filter(|index| *index != leader) {
                    let told = ahead.read(&cluster, index).await;
                    assert_eq!(told, Err(PartitionError::NotAvailable));
                }
                cluster.kill(leader);
                cluster.write(&format!("round {round}")).await;
                cluster.start(leader).await;
                cluster.sleep_ms(1_000).await;
            }
            assert!(consumer.followed > 10, "{}", consumer.followed);
            // One that is left alone would have nothing new for ever.
            cluster.kill(0);
            cluster.kill(1);
            cluster.sleep_ms(2_000).await;
            assert_eq!(consumer.read(&cluster, 2).await, Err(PartitionError::NotLeader));
        });
    }
}
