//! Bit rot in a log that is open: what is damaged is given to nobody, and taken again from another
//! replica, whoever leads.

use bytes::Bytes;
use vltava_storage::io::Disk;
use vltava_storage::{ReplicatedBatches, StorageError};

use super::groups::{Cluster, NODES, tell};
use crate::partition::error::PartitionError;

const VALUES: usize = 60;
const VALUE_BYTES: usize = 8 << 10;
/// A batch that stands in a closed segment.
const ROTTEN: i64 = 20;

/// All have all, and nothing of it in memory.
async fn begin(cluster: &mut Cluster) -> usize {
    cluster.options.segment_bytes = 64 << 10;
    start_all(cluster).await;
    for number in 0..VALUES {
        cluster.write(&format!("{number}{}", "x".repeat(VALUE_BYTES))).await;
    }
    all_have(cluster, VALUES).await;
    (0..NODES).for_each(|index| cluster.kill(index));
    start_all(cluster).await;
    cluster.write("again").await;
    all_have(cluster, VALUES + 1).await;
    cluster.leader().expect("it has just written")
}

async fn all_have(cluster: &Cluster, values: usize) {
    let all = |cluster: &Cluster| (0..NODES).all(|at| high_watermark(cluster, at) == values);
    cluster.until(5_000, "all have all", all).await;
}

async fn start_all(cluster: &mut Cluster) {
    for index in 0..NODES {
        cluster.start(index).await;
    }
    cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
}

fn high_watermark(cluster: &Cluster, index: usize) -> usize {
    usize::try_from(cluster.replica(index).high_watermark()).unwrap()
}

/// The segment that holds a batch, and where it stands in it.
async fn place(cluster: &Cluster, index: usize, offset: i64) -> (String, usize) {
    let replica = cluster.replica(index);
    let segments = replica.log_to_read().segments();
    let base = segments.iter().rfind(|segment| segment.base_offset <= offset).unwrap().base_offset;
    let before = replica.log_to_read().read_in_memory(base, offset, 1 << 20).await.unwrap();
    let before = if base < offset { before.len() } else { 0 };
    (format!("topic-0/{base:020}.log"), before)
}

/// A bit of a record's value is another.
async fn rot(cluster: &Cluster, index: usize, offset: i64) {
    let (path, position) = place(cluster, index, offset).await;
    cluster.disk(index).damage(&path, |bytes| bytes[position + 200] ^= 1);
    // What was read on the way is not on the disk any more.
    cluster.replica(index).log_to_read().forget_read(offset);
}

async fn is_sound(cluster: &Cluster, index: usize) -> bool {
    cluster.replica(index).log_to_read().verify(ROTTEN).await.is_ok()
}

/// What the node does about once a second.
async fn look_after(cluster: &Cluster, index: usize) -> usize {
    let replica = cluster.replica(index);
    replica.look_at_suspects().await;
    replica.mend().await.len()
}

/// A follower lacks what has rotted on its leader's disk: it says so, the leader takes it from the
/// third, and nobody reads on and on.
#[test]
fn what_a_follower_finds_rotten_its_leader_mends() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            let leader = begin(&mut cluster).await;
            let behind = (leader + 1) % NODES;
            // It has lost its log.
            cluster.kill(behind);
            let disk = cluster.disk(behind);
            for entry in disk.list("topic-0").await.unwrap() {
                disk.remove_file(&format!("topic-0/{}", entry.name)).await.unwrap();
            }
            disk.remove_dir("topic-0").await.unwrap();
            rot(&cluster, leader, ROTTEN).await;
            assert!(!is_sound(&cluster, leader).await);
            cluster.start(behind).await;
            let told = |cluster: &Cluster| cluster.replica(leader).has_rot();
            cluster.until(5_000, "the leader hears of it", told).await;
            assert_eq!(look_after(&cluster, leader).await, 1, "one batch");
            assert!(is_sound(&cluster, leader).await);
            let has_all = |cluster: &Cluster| high_watermark(cluster, behind) == VALUES + 1;
            cluster.until(5_000, "it has all", has_all).await;
            assert_eq!(cluster.leader(), Some(leader), "it leads on");
            assert_eq!(cluster.served(behind).await, cluster.served(leader).await);
        });
    }
}

/// What was found is given to nobody until another replica is there that has it.
#[test]
fn what_is_damaged_is_given_to_nobody_until_it_is_mended() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            let leader = begin(&mut cluster).await;
            let follower = (leader + 1) % NODES;
            let serves = |cluster: &Cluster| {
                let replica = cluster.replica(follower);
                replica.check_serves(-1, true).is_ok() && high_watermark(cluster, follower) > VALUES
            };
            cluster.until(2_000, "the follower serves", serves).await;
            for index in [leader, follower] {
                rot(&cluster, index, ROTTEN).await;
                let replica = cluster.replica(index);
                let Err(StorageError::Corrupt(damage)) = replica.log_to_read().verify(ROTTEN).await
                else {
                    panic!("it is not found");
                };
                assert_eq!(damage.offset, ROTTEN);
                replica.damaged(damage);
                let before = cluster.read(index, ROTTEN - 1, true).await.expect("it is sound");
                assert!(before.bytes > VALUE_BYTES && before.bytes < 2 * VALUE_BYTES);
                let refused = cluster.read(index, ROTTEN, true).await;
                assert!(matches!(refused, Err(PartitionError::Damaged(_))), "{index}");
            }
            // Only the third has it, and is away.
            let third = (leader + 2) % NODES;
            cluster.kill(third);
            for index in [leader, follower] {
                assert_eq!(look_after(&cluster, index).await, 0);
            }
            cluster.start(third).await;
            for index in [follower, leader] {
                let replica = cluster.replica(index);
                for _ in 0..60 {
                    look_after(&cluster, index).await;
                    cluster.sleep_ms(100).await;
                }
                assert!(!replica.has_rot() && is_sound(&cluster, index).await, "{index}");
                let found = cluster.read(index, ROTTEN, true).await.expect("it is mended");
                let parts = vltava_protocol::encode::Records { parts: found.parts };
                let bytes: Bytes = parts.to_bytes().expect("in memory");
                let batches = ReplicatedBatches::check(bytes).expect("what was written");
                assert_eq!(batches.base_offset(), Some(ROTTEN));
            }
        });
    }
}

/// The log begins within a segment, and what has rotted in front of it hides where: others give
/// that, too, though nobody reads it.
#[test]
fn what_is_damaged_in_front_of_the_start_is_mended_where_it_hides_what_follows() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            cluster.options.index_interval_bytes = 1 << 20;
            let leader = begin(&mut cluster).await;
            let follower = (leader + 1) % NODES;
            // Of the same segment.
            let (rotten, start) = (ROTTEN - 2, ROTTEN - 1);
            let (path, position) = place(&cluster, follower, rotten).await;
            assert!(place(&cluster, follower, start).await.1 > position);
            assert_eq!(cluster.replica(leader).delete_records(start).await, Ok(start));
            let knows = |cluster: &Cluster| cluster.replica(follower).log_start() == start;
            cluster.until(5_000, "the follower begins there, too", knows).await;
            cluster.kill(follower);
            // Its length: what follows cannot be found.
            cluster.disk(follower).damage(&path, |bytes| bytes[position + 10] ^= 1);
            cluster.start(follower).await;
            let replica = cluster.replica(follower);
            let Err(StorageError::Corrupt(damage)) = replica.log_to_read().verify(start).await
            else {
                panic!("it is not found");
            };
            assert_eq!(damage.offset, rotten);
            replica.damaged(damage);
            let is_mended = async || {
                look_after(&cluster, follower).await;
                !replica.has_rot()
            };
            for _ in 0..60 {
                if is_mended().await {
                    break;
                }
                cluster.sleep_ms(100).await;
            }
            assert!(!replica.has_rot() && is_sound(&cluster, follower).await);
            let read = replica.log_to_read().read_in_memory(start, start + 1, 1).await;
            let batches = ReplicatedBatches::check(read.unwrap()).expect("what was written");
            assert_eq!(batches.base_offset(), Some(start));
        });
    }
}

/// What is damaged in a segment that is written to is found again as that grows: it is one damage,
/// and mended once.
#[test]
fn what_is_found_twice_in_a_segment_that_grows_is_mended_once() {
    tell(1, async |mut cluster| {
        let leader = begin(&mut cluster).await;
        let rotten = i64::try_from(VALUES - 1).unwrap();
        rot(&cluster, leader, rotten).await;
        let replica = cluster.replica(leader);
        for value in ["one more", "two more"] {
            let Err(StorageError::Corrupt(found)) = replica.log_to_read().verify(rotten).await
            else {
                panic!("nothing is found");
            };
            replica.damaged(found);
            cluster.write(value).await;
        }
        assert_eq!(replica.mend().await.len(), 1);
        assert!(!replica.has_rot());
        assert!(replica.sound_until(rotten).is_ok());
    });
}
