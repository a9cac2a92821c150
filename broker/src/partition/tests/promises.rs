//! What producers are promised, by acks and `min.insync.replicas`, and who is in sync.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join4;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_storage::AppendClass;

use super::groups::{Cluster, NODES, PARTITION, batch, tell};
use crate::partition::append::append_all;
use crate::partition::client::Partitions;
use crate::partition::error::PartitionError;
use crate::partition::lookup::Lookup;
use crate::partition::replica::Queued;
use crate::partition::request::{Acks, AppendResult, AppendTo, Terms};
use crate::runtime::sim::SimRuntime;
use crate::runtime::{Monotonic, Runtime};

/// Three nodes, all in sync; which leads, and which does not.
async fn begin(cluster: &mut Cluster, min_insync_replicas: usize) -> (usize, usize) {
    cluster.min_insync_replicas = min_insync_replicas;
    for index in 0..NODES {
        cluster.start(index).await;
    }
    cluster.until(5_000, "a leader", |cluster| cluster.leader().is_some()).await;
    let leader = cluster.leader().unwrap();
    cluster.until(5_000, "all in sync", |cluster| in_sync(cluster, leader) == NODES).await;
    (leader, (leader + 1) % NODES)
}

/// How many are in sync, as this leader has it.
fn in_sync(cluster: &Cluster, leader: usize) -> usize {
    cluster.replica(leader).in_sync(0).1.len()
}

fn write(
    cluster: &Cluster,
    leader: usize,
    acks: Acks,
    time_ms: u64,
) -> Result<Queued, PartitionError> {
    let runtime = cluster.partitions(leader).unwrap().runtime().clone();
    let deadline: Monotonic = runtime.now().after(Duration::from_millis(time_ms));
    let terms = Some(Terms { acks, deadline });
    cluster.replica(leader).append_for(batch("a value"), AppendClass::Client, terms)
}

#[test]
fn with_too_few_in_sync_nothing_is_written_for_all_and_the_leader_still_writes_for_itself() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            let (leader, other) = begin(&mut cluster, 3).await;
            assert_eq!(
                write(&cluster, leader, Acks::All, 1_000).unwrap().committed.await,
                Ok(Ok(()))
            );
            cluster.kill(other);
            cluster.until(1_000, "it is out", |cluster| in_sync(cluster, leader) == 2).await;
            let refused = write(&cluster, leader, Acks::All, 1_000).map(drop);
            assert_eq!(refused, Err(PartitionError::NotEnoughReplicas));
            assert_eq!(cluster.replica(leader).end(), 1);
            let written = write(&cluster, leader, Acks::Leader, 1_000).unwrap();
            assert_eq!(written.committed.await, Ok(Ok(())));
            let replica = cluster.replica(leader);
            assert_eq!((replica.end(), replica.high_watermark()), (2, 1));
            // Another setting takes effect at once.
            replica.set_options(cluster.options.clone(), 2);
            let written = write(&cluster, leader, Acks::All, 1_000).unwrap();
            assert_eq!(written.committed.await, Ok(Ok(())));
            assert_eq!(replica.high_watermark(), 3);
            cluster.start(other).await;
            cluster.until(5_000, "it is in", |cluster| in_sync(cluster, leader) == NODES).await;
        });
    }
}

/// What is sent behind a batch that was refused for now is not taken for its producer's beginning.
#[test]
fn a_producer_that_was_refused_goes_on_with_that_batch() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            let (leader, other) = begin(&mut cluster, 3).await;
            let append = |cluster: &Cluster, sequence| {
                let mut builder = BatchBuilder::new().producer(7, 0, sequence);
                builder.append(0, None, Some(b"a value"), &[]).unwrap();
                let runtime = cluster.partitions(leader).unwrap().runtime().clone();
                let deadline = runtime.now().after(Duration::from_millis(1_000));
                let terms = Some(Terms { acks: Acks::All, deadline });
                let replica = cluster.replica(leader);
                replica.append_for(builder.build().into(), AppendClass::Client, terms)
            };
            cluster.kill(other);
            cluster.until(1_000, "it is out", |cluster| in_sync(cluster, leader) == 2).await;
            let refused = append(&cluster, 0).map(drop);
            assert_eq!(refused, Err(PartitionError::NotEnoughReplicas));
            cluster.replica(leader).set_options(cluster.options.clone(), 2);
            let refused = append(&cluster, 1).map(drop);
            assert_eq!(refused, Err(PartitionError::OutOfOrderSequence));
            for sequence in 0..2 {
                let written = append(&cluster, sequence).unwrap();
                assert_eq!(written.committed.await, Ok(Ok(())));
            }
        });
    }
}

#[test]
fn who_waits_is_told_in_time_that_it_is_not_known() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            let (leader, other) = begin(&mut cluster, 3).await;
            // It is not noticed yet that the two do not hear each other.
            cluster.block(leader, other);
            let short = write(&cluster, leader, Acks::All, 100).unwrap();
            let long = write(&cluster, leader, Acks::All, 100_000).unwrap();
            let began = cluster.simulation.executor().now_ns();
            assert_eq!(short.committed.await, Ok(Err(PartitionError::TimedOut)));
            let waited_ms = (cluster.simulation.executor().now_ns() - began) / 1_000_000;
            assert!((99..=110).contains(&waited_ms), "{waited_ms}");
            cluster.replica(leader).set_options(cluster.options.clone(), 2);
            assert_eq!(long.committed.await, Ok(Ok(())));
            assert_eq!(cluster.replica(leader).high_watermark(), 2);
        });
    }
}

/// Who waits for more than are in sync is told as the set shrinks, not when its time is over.
#[test]
fn a_write_that_waits_for_a_replica_that_goes_is_told_so_at_once() {
    for seed in 1..5 {
        tell(seed, async |mut cluster| {
            let (leader, other) = begin(&mut cluster, 3).await;
            let waiting = write(&cluster, leader, Acks::All, 100_000).unwrap();
            let for_itself = write(&cluster, leader, Acks::Leader, 100_000).unwrap();
            // It has not even been sent.
            cluster.kill(other);
            let began = cluster.simulation.executor().now_ns();
            let told = waiting.committed.await;
            assert_eq!(told, Ok(Err(PartitionError::NotEnoughReplicasAfterAppend)));
            let waited_ms = (cluster.simulation.executor().now_ns() - began) / 1_000_000;
            assert!(waited_ms < 1_000, "{waited_ms}");
            assert_eq!(for_itself.committed.await, Ok(Ok(())));
            cluster.replica(leader).set_options(cluster.options.clone(), 2);
            let stands = |cluster: &Cluster| cluster.replica(leader).high_watermark() == 2;
            cluster.until(1_000, "it stands in the log", stands).await;
        });
    }
}

/// Readers of a new leader wait until it knows what is committed, and not for ever.
#[test]
fn what_a_new_leader_does_not_know_yet_is_waited_for() {
    for seed in 1..9 {
        tell(seed, async |mut cluster| {
            let (leader, _) = begin(&mut cluster, 2).await;
            for _ in 0..20 {
                let written = write(&cluster, leader, Acks::All, 1_000).unwrap();
                assert_eq!(written.committed.await, Ok(Ok(())));
            }
            cluster.kill(leader);
            let is_led = |cluster: &Cluster| cluster.leader().is_some();
            cluster.until(5_000, "another leads", is_led).await;
            let next = cluster.leader().unwrap();
            let found = cluster.read(next, 0, false).await.unwrap();
            assert_eq!((found.high_watermark, found.is_behind), (20, false));
            // More are to have it than are there.
            [next, 3 - leader - next].into_iter().for_each(|index| cluster.kill(index));
            cluster.min_insync_replicas = 3;
            cluster.start(leader).await;
            cluster.start(next).await;
            cluster.until(5_000, "somebody leads", is_led).await;
            let next = cluster.leader().unwrap();
            let began = cluster.simulation.executor().now_ns();
            let found = cluster.read(next, 0, false).await.unwrap();
            let waited_ms = (cluster.simulation.executor().now_ns() - began) / 1_000_000;
            assert!(found.is_behind, "nobody knows what the third has");
            assert!(waited_ms <= 510, "{waited_ms}");
            let began = cluster.simulation.executor().now_ns();
            let _again = cluster.read(next, 0, false).await.unwrap();
            assert!(cluster.simulation.executor().now_ns() - began < 10_000_000, "once is enough");
        });
    }
}

/// Kafka's answer where the set shrank while the write waited.
#[test]
fn what_is_committed_while_too_few_are_in_sync_is_told_so() {
    let mut seen = 0;
    for seed in 1..5 {
        let told = std::rc::Rc::new(std::cell::Cell::new(0));
        let count = std::rc::Rc::clone(&told);
        tell(seed, async move |mut cluster: Cluster| {
            let (leader, _) = begin(&mut cluster, 2).await;
            // Whoever lacks anything is out.
            cluster.replica(leader).set_lag_ms_max(0);
            let mut queued = Vec::new();
            for _ in 0..500 {
                match write(&cluster, leader, Acks::All, 5_000) {
                    Ok(write) => queued.push(write),
                    Err(error) => assert_eq!(error, PartitionError::NotEnoughReplicas),
                }
                // So that more is appended before the followers have what was.
                let executor = cluster.simulation.executor();
                executor.sleep_until(executor.now_ns() + 100_000).await;
            }
            for queued in queued {
                match queued.committed.await.unwrap() {
                    Ok(()) => {}
                    Err(error) => {
                        assert_eq!(error, PartitionError::NotEnoughReplicasAfterAppend);
                        count.set(count.get() + 1);
                    }
                }
            }
            let is_committed = |cluster: &Cluster| {
                let replica = cluster.replica(leader);
                replica.high_watermark() == replica.end()
            };
            cluster.until(1_000, "all is committed", is_committed).await;
        });
        seen += told.get();
    }
    assert!(seen > 0, "it was never told");
}

#[test]
fn an_in_sync_set_is_told_as_it_changes_and_only_then() {
    tell(7, async |mut cluster| {
        let (leader, other) = begin(&mut cluster, 1).await;
        let before = cluster.replica(leader).in_sync(0);
        for _ in 0..50 {
            let written = write(&cluster, leader, Acks::All, 1_000).unwrap();
            written.committed.await.unwrap().unwrap();
        }
        cluster.sleep_ms(2_000).await;
        assert_eq!(cluster.replica(leader).in_sync(0), before, "under load and idle");
        let changes = cluster.replica(leader).leadership_changes();
        cluster.kill(other);
        changes.await;
        let after = cluster.replica(leader).in_sync(0);
        assert_eq!((after.0, after.1.len()), (before.0 + 1, 2));
    });
}

/// Has a client's batch appended, of a producer; what it is told.
async fn produce(partitions: &Rc<Partitions<SimRuntime>>, sequence: i32) -> AppendResult {
    let mut builder = BatchBuilder::new().producer(7, 0, sequence);
    builder.append(0, None, Some(b"a value"), &[]).unwrap();
    let deadline = partitions.runtime().now().after(Duration::from_secs(5));
    let terms = Terms { acks: Acks::All, deadline };
    let batch = AppendTo { partition: PARTITION, batch: builder.build().into(), terms };
    append_all(partitions, vec![batch]).await.remove(0)
}

/// Who stood still while another led has missed what the other took: it refuses nothing for good
/// before it knows that it leads.
#[test]
fn who_stood_still_tells_nobody_that_what_it_has_missed_is_not_there() {
    for seed in 1..20 {
        tell(seed, async |mut cluster| {
            let (leader, _) = begin(&mut cluster, 1).await;
            let paused = cluster.partitions(leader).unwrap();
            produce(&paused, 0).await.unwrap();
            cluster.pause(leader);
            let is_other = |cluster: &Cluster| cluster.leader().filter(|next| *next != leader);
            cluster.until(5_000, "another leads", |it| is_other(it).is_some()).await;
            let heir = is_other(&cluster).unwrap();
            let next = cluster.partitions(heir).unwrap();
            for sequence in 1..4 {
                produce(&next, sequence).await.unwrap();
            }
            cluster.resume(leader);
            assert!(cluster.replica(leader).leads().is_some(), "it does not know yet");
            let replica = cluster.replica(leader);
            let (produced, fetched, at_its_end, latest) = join4(
                produce(&paused, 4),
                cluster.read(leader, 4, false),
                cluster.read(leader, 1, false),
                replica.lookup(-1, Lookup::Latest),
            )
            .await;
            assert_eq!(produced.map(drop), Err(PartitionError::NotLeader));
            assert_eq!(fetched.map(drop), Err(PartitionError::NotLeader));
            // Nor what it has itself: it would say that this is all.
            assert_eq!(at_its_end.map(drop), Err(PartitionError::NotLeader));
            assert_eq!(latest.map(drop), Err(PartitionError::NotLeader));
            // Who leads says so.
            let refused = produce(&next, 9).await.map(drop);
            assert_eq!(refused, Err(PartitionError::OutOfOrderSequence));
            let out_of_range = PartitionError::OutOfRange { start: 0, end: 4 };
            assert_eq!(cluster.read(heir, 9, false).await.map(drop), Err(out_of_range));
        });
    }
}
