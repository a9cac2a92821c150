//! A leader sends a member whose disk is slow no more than that can hold.

use std::cell::Cell;

use super::groups::{Cluster, MS, NODES, tell};
use crate::runtime::sim::DiskOptions;

const VALUE_BYTES: usize = 512 << 10;
const WRITES: usize = 64;
/// What goes into one message.
const MESSAGE_BYTES: usize = 1 << 20;

async fn begin_without_one(cluster: &mut Cluster) -> usize {
    for index in 0..NODES {
        cluster.start(index).await;
    }
    cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
    let leader = cluster.leader().unwrap();
    let away = (leader + 1) % NODES;
    cluster.kill(away);
    for _ in 0..WRITES {
        cluster.write(&"x".repeat(VALUE_BYTES)).await;
    }
    away
}

/// What a disk takes in no faster than the network brings it is not gathered in memory.
#[test]
fn a_slow_disk_is_not_sent_more_than_it_takes() {
    for seed in 1..3 {
        tell(seed, async |mut cluster| {
            let away = begin_without_one(&mut cluster).await;
            cluster.start(away).await;
            let slow = DiskOptions { flush_ns: 100 * MS..=200 * MS, ..DiskOptions::default() };
            cluster.set_disk_options(away, slow);
            let most = Cell::new(0);
            let has_all = |cluster: &Cluster| {
                let replica = cluster.replica(away);
                most.set(most.get().max(replica.log.pending_bytes()));
                replica.high_watermark() == WRITES as i64
            };
            cluster.until(60_000, "it has all", has_all).await;
            assert!(most.get() > 4 << 20, "{} bytes: the disk was not slow", most.get());
            assert!(most.get() < 9 << 20, "{} bytes wait for a slow disk", most.get());
        });
    }
}

/// A batch that is larger than a message goes alone, to all.
#[test]
fn a_batch_larger_than_a_message_goes_alone() {
    tell(1, async move |mut cluster| {
        for index in 0..NODES {
            cluster.start(index).await;
        }
        for bytes in [10, MESSAGE_BYTES - 10, MESSAGE_BYTES + 10, 5 * MESSAGE_BYTES, 10] {
            cluster.write(&"x".repeat(bytes)).await;
        }
        let have_all = |cluster: &Cluster| {
            (0..NODES).all(|index| cluster.replica(index).high_watermark() == 5)
        };
        cluster.until(5_000, "all have all", have_all).await;
    });
}
