//! Replicas that are to go to another shard of their node, on a disk that does not let them.

use vltava_storage::AppendClass;

use super::groups::{Cluster, MS, NODES, batch, tell};
use crate::partition::error::PartitionError;
use crate::runtime::sim::DiskOptions;

async fn led(cluster: &mut Cluster) -> usize {
    for index in 0..NODES {
        cluster.start(index).await;
    }
    cluster.write("of before").await;
    cluster.leader().unwrap()
}

async fn another_leads(cluster: &Cluster, before: usize) {
    let is_led = |cluster: &Cluster| cluster.leader().is_some_and(|index| index != before);
    cluster.until(1_000, "another leads", is_led).await;
    cluster.write("behind that").await;
}

/// A disk takes longer than a replica waits to be at rest: it stays, leads on, and acknowledges
/// what was being written.
#[test]
fn who_does_not_come_to_rest_stays_as_it_was() {
    tell(1, async move |mut cluster| {
        let leader = led(&mut cluster).await;
        let (replica, epoch) = (cluster.replica(leader), cluster.replica(leader).leads());
        let flush_ns = 12_000 * MS..=12_000 * MS;
        let slow = DiskOptions { flush_ns, ..DiskOptions::default() };
        for index in 0..NODES {
            cluster.set_disk_options(index, slow.clone());
        }
        let queued = replica.append(batch("slowly"), AppendClass::Client).unwrap();
        let left = replica.leave(&cluster.partitions(leader).unwrap()).await;
        assert!(matches!(left, Err(PartitionError::NotLeader)));
        assert!(replica.is_still_here() && replica.may_leave());
        assert_eq!(queued.committed.await, Ok(Ok(())));
        for index in 0..NODES {
            cluster.set_disk_options(index, DiskOptions::default());
        }
        assert!(cluster.try_write(leader, "as before").await.is_ok());
        assert_eq!(cluster.replica(leader).leads(), epoch);
    });
}

/// A log that cannot be closed in order is opened where it goes as after a crash. Who led says that
/// it leads no more: the others do not wait for it.
#[test]
fn who_leaves_without_what_it_was_lets_another_lead() {
    tell(1, async move |mut cluster| {
        let leader = led(&mut cluster).await;
        cluster.disk(leader).set_lacks_descriptors(true);
        let partitions = cluster.partitions(leader).unwrap();
        assert!(cluster.replica(leader).leave(&partitions).await.is_ok());
        another_leads(&cluster, leader).await;
    });
}

/// It was taken out as the leader that it was, and its log cannot be opened where it goes.
#[test]
fn who_does_not_arrive_lets_another_lead() {
    tell(1, async move |mut cluster| {
        let leader = led(&mut cluster).await;
        let partitions = cluster.partitions(leader).unwrap();
        let departure = cluster.replica(leader).leave(&partitions).await.unwrap();
        let near = cluster.surroundings(leader);
        departure.abandon(&partitions, near.as_deref());
        another_leads(&cluster, leader).await;
    });
}
