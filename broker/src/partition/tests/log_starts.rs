//! The start of a log is the group's: what is deleted is deleted everywhere, and nothing else is.

use bytes::Bytes;
use futures_util::future::{join, join3};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_storage::io::IoErrorKind;
use vltava_storage::io::fault_disk::Fault;

use super::groups::{Cluster, NODES, tell};
use crate::partition::error::PartitionError;

async fn begin(cluster: &mut Cluster, values: usize) -> usize {
    for index in 0..NODES {
        cluster.start(index).await;
    }
    for number in 0..values {
        cluster.write(&format!("value {number}")).await;
    }
    let end = i64::try_from(values).unwrap();
    let have_all =
        |cluster: &Cluster| (0..NODES).all(|index| cluster.replica(index).high_watermark() == end);
    cluster.until(5_000, "all have all", have_all).await;
    cluster.leader().unwrap()
}

fn starts(cluster: &Cluster) -> [i64; NODES] {
    [0, 1, 2].map(|index| cluster.replica(index).log_start())
}

#[test]
fn what_a_leader_deletes_is_deleted_by_all_also_by_who_was_away_and_after_restarts() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            let leader = begin(&mut cluster, 40).await;
            let away = (leader + 1) % NODES;
            assert_eq!(cluster.replica(leader).delete_records(10).await, Ok(10));
            cluster.until(2_000, "all follow", |cluster| starts(cluster) == [10; 3]).await;
            cluster.kill(away);
            for (to, start) in [(15, 15), (20, 20), (12, 20), (30, 30)] {
                assert_eq!(cluster.replica(leader).delete_records(to).await, Ok(start));
            }
            cluster.start(away).await;
            cluster.until(5_000, "it follows", |cluster| starts(cluster) == [30; 3]).await;
            let above = cluster.replica(leader).delete_records(41).await;
            assert_eq!(above, Err(PartitionError::OutOfRange { start: 30, end: 40 }));
            let elsewhere = cluster.replica(away).delete_records(35).await;
            assert_eq!(elsewhere, Err(PartitionError::NotLeader));
            // At the same time: one move takes them all along.
            let replica = cluster.replica(leader);
            let (first, second, third) = join3(
                replica.delete_records(31),
                replica.delete_records(33),
                replica.delete_records(32),
            )
            .await;
            let moved = [first, second, third].map(Result::unwrap);
            assert!(moved[0] >= 31 && moved[1] == 33 && moved[2] >= 32, "{moved:?}");
            (0..NODES).for_each(|index| cluster.kill(index));
            for index in 0..NODES {
                cluster.start(index).await;
            }
            for number in 40..45 {
                cluster.write(&format!("value {number}")).await;
            }
            cluster.until(5_000, "all know it", |cluster| starts(cluster) == [33; 3]).await;
            let have_all = |cluster: &Cluster| {
                (0..NODES).all(|index| cluster.replica(index).high_watermark() == 45)
            };
            cluster.until(5_000, "all have all", have_all).await;
        });
    }
}

/// Who lacks what was deleted takes the log as it is, from where it begins now. The power fails at
/// any moment of that.
#[test]
fn a_log_that_does_not_begin_at_0_is_taken_whenever_the_power_fails() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            let leader = begin(&mut cluster, 10).await;
            let away = (leader + 1) % NODES;
            for round in 0..20_u64 {
                cluster.kill(away);
                for number in 0..20 {
                    cluster.write(&format!("value {round} {number}")).await;
                }
                let leader = cluster.leader().unwrap();
                let replica = cluster.replica(leader);
                replica.delete_records(replica.high_watermark() - 10).await.unwrap();
                cluster.start(away).await;
                cluster.sleep_us(500 * round).await;
                cluster.kill(away);
                cluster.start(away).await;
            }
            let end = cluster.replica(cluster.leader().unwrap()).high_watermark();
            let has_all = |cluster: &Cluster| cluster.replica(away).high_watermark() == end;
            cluster.until(10_000, "it has all there is", has_all).await;
        });
    }
}

fn batch_of(records: usize) -> Bytes {
    let mut builder = BatchBuilder::new();
    for number in 0..records {
        builder.append(1, None, Some(format!("record {number}").as_bytes()), &[]).unwrap();
    }
    Bytes::from(builder.build())
}

/// The same of a log that begins inside a batch, and also of its leaders: a copy begins with that
/// batch, whoever leads, and what follows continues it.
#[test]
fn a_log_that_begins_inside_a_batch_is_taken_whole_whenever_the_power_fails() {
    for seed in 1..6 {
        tell(seed, async move |mut cluster| {
            begin(&mut cluster, 10).await;
            let mut deleted = 0;
            for round in 0..20_u64 {
                let away = usize::try_from(seed + round).unwrap() % NODES;
                cluster.kill(away);
                for _ in 0..6 {
                    cluster.write_batch(batch_of(5)).await;
                }
                let leader = cluster.leader().unwrap();
                let replica = cluster.replica(leader);
                let to = replica.high_watermark() - 8;
                replica.delete_records(to).await.unwrap();
                deleted = to;
                assert_eq!(replica.log.first_batch(), to - 2, "it begins inside a batch");
                if round % 3 == 0 {
                    // What is left of it is in the files.
                    cluster.kill(leader);
                    cluster.start(leader).await;
                }
                cluster.start(away).await;
                cluster.sleep_us(500 * round).await;
                cluster.kill(away);
                cluster.start(away).await;
            }
            cluster.write_batch(batch_of(5)).await;
            let end = cluster.replica(cluster.leader().unwrap()).high_watermark();
            let have_all = |cluster: &Cluster| {
                (0..NODES).all(|index| cluster.replica(index).high_watermark() == end)
            };
            cluster.until(10_000, "all have all there is", have_all).await;
            let follow = |cluster: &Cluster| starts(cluster) == [deleted; NODES];
            cluster.until(2_000, "all begin there", follow).await;
        });
    }
}

#[test]
fn what_was_answered_is_known_to_the_next_leader() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            let leader = begin(&mut cluster, 20).await;
            assert_eq!(cluster.replica(leader).delete_records(20).await, Ok(20));
            cluster.kill(leader);
            cluster.write("more").await;
            let next = cluster.leader().unwrap();
            let follows = |cluster: &Cluster| cluster.replica(next).log_start() == 20;
            cluster.until(1_000, "it is known", follows).await;
            cluster.start(leader).await;
            cluster.until(5_000, "all know it", |cluster| starts(cluster) == [20; 3]).await;
        });
    }
}

#[test]
fn retention_is_for_the_leader_to_decide() {
    for seed in 1..6 {
        tell(seed, async |mut cluster| {
            cluster.options.segment_bytes = 1_000;
            cluster.options.retention_bytes = Some(2_000);
            let leader = begin(&mut cluster, 100).await;
            for index in (0..NODES).filter(|index| *index != leader) {
                assert_eq!(cluster.replica(index).apply_retention().await, Ok(0));
            }
            assert_eq!(starts(&cluster), [0; 3], "a follower does not decide");
            let replica = cluster.replica(leader);
            replica.apply_retention().await.unwrap();
            cluster.until(1_000, "it is decided", |_| replica.log_start() > 0).await;
            let start = replica.log_start();
            cluster.until(1_000, "all follow", |cluster| starts(cluster) == [start; 3]).await;
            assert!(start >= 50, "{start}");
            replica.apply_retention().await.unwrap();
            cluster.sleep_ms(100).await;
            assert_eq!(starts(&cluster), [start; 3]);
        });
    }
}

/// What it wrote down of its votes, and of marks, is on a disk that fails: it says that it leads no
/// more, since its node is there and nobody would take its place.
#[test]
fn a_leader_that_cannot_keep_its_marks_lets_another_lead() {
    tell(1, async |mut cluster| {
        let leader = begin(&mut cluster, 10).await;
        let (replica, disk) = (cluster.replica(leader), cluster.disk(leader));
        disk.inject(Fault::Fail { at: disk.operations(), kind: IoErrorKind::Failed });
        let is_led = |cluster: &Cluster| cluster.leader().is_some_and(|index| index != leader);
        let another_leads = cluster.until(2_000, "another leads", is_led);
        let (deleted, ()) = join(replica.delete_records(5), another_leads).await;
        assert!(deleted.is_err(), "{deleted:?}");
        cluster.write("behind that").await;
    });
}

/// A disk fails under what nobody waits for: whoever led then lets another lead, though nothing is
/// written.
#[test]
fn a_leader_whose_log_ends_between_writes_lets_another_lead() {
    tell(1, async |mut cluster| {
        let leader = begin(&mut cluster, 10).await;
        // As much as makes a checkpoint due.
        cluster.write(&"x".repeat(4 << 20)).await;
        let (replica, disk) = (cluster.replica(leader), cluster.disk(leader));
        disk.inject(Fault::Fail { at: disk.operations(), kind: IoErrorKind::Failed });
        assert!(replica.checkpoint().await.is_err());
        let is_led = |cluster: &Cluster| cluster.leader().is_some_and(|index| index != leader);
        cluster.until(2_000, "another leads", is_led).await;
        cluster.write("behind that").await;
    });
}
