//! A replica on the simulated runtime, over a disk that is full now and then.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::types::Uuid;
use vltava_storage::io::fault_disk::FaultDisk;
use vltava_storage::{
    AppendClass, EnvironmentOptions, Log, LogEnvironment, LogOptions, Notes, Opened, StorageError,
};

use crate::partition::error::PartitionError;
use crate::partition::replica::Replica;
use crate::runtime::sim::{SimRuntime, run_alone};
use crate::runtime::{Queue, Runtime};

const DIRECTORY: &str = "topic-0";

/// Runs a test over a fresh replica of a log that keeps records for a millisecond.
fn with_replica<F: Future<Output = ()> + 'static>(
    seed: u64,
    test: impl FnOnce(Rc<Replica<SimRuntime>>, SimRuntime, FaultDisk) -> F + 'static,
) {
    run_alone(seed, |runtime, disk| async move {
        let log = open(&runtime).await;
        let replica = Replica::alone(runtime.clone(), DIRECTORY.to_owned(), log, 1);
        test(replica, runtime, disk).await;
    });
}

async fn open(runtime: &SimRuntime) -> Log<<SimRuntime as Runtime>::Disk> {
    let (disk, options) = (runtime.disk().clone(), EnvironmentOptions::default());
    let logs = LogEnvironment::new(disk, options, 0, Notes::default());
    let options = LogOptions { retention_ms: Some(1), ..LogOptions::default() };
    match Log::open(&logs, DIRECTORY, options.clone()).await {
        Ok(Opened::Ready(log)) => log,
        _ => Log::create(&logs, DIRECTORY, Uuid(1), options).await.unwrap(),
    }
}

fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.append(1, None, Some(value.as_bytes()), &[]).unwrap();
    Bytes::from(builder.build())
}

async fn write(replica: &Rc<Replica<SimRuntime>>, value: &str) -> Result<i64, PartitionError> {
    let queued = replica.append(batch(value), AppendClass::Client)?;
    let base_offset = queued.base_offset;
    queued.committed.await.unwrap_or(Err(PartitionError::Ended))?;
    Ok(base_offset)
}

async fn holds(replica: &Replica<SimRuntime>, offset: i64, value: &str) -> bool {
    let bytes = replica.read_bytes(offset, 1 << 20).await.unwrap();
    bytes.windows(value.len()).any(|window| window == value.as_bytes())
}

/// Retention closes the last segment, and there is no space for the next; clients write meanwhile.
#[test]
fn who_is_acknowledged_while_retention_finds_no_space_finds_the_record() {
    let full = Rc::new(Cell::new(0));
    for seed in 0..60 {
        let full = Rc::clone(&full);
        with_replica(seed, move |replica, runtime, disk| async move {
            write(&replica, "old").await.unwrap();
            disk.set_capacity(0);
            let keeper = Rc::clone(&replica);
            runtime.spawn(Queue::Background, async move {
                match keeper.apply_retention().await {
                    Ok(_) => {}
                    Err(PartitionError::Full) => full.set(full.get() + 1),
                    Err(error) => panic!("{error}"),
                }
            });
            let pause = Duration::from_micros(runtime.random_u64() % 1_000);
            runtime.sleep_until(runtime.now().after(pause)).await;
            let first = replica.append(batch("first"), AppendClass::Client).unwrap();
            let pause = Duration::from_micros(runtime.random_u64() % 1_000);
            runtime.sleep_until(runtime.now().after(pause)).await;
            disk.set_capacity(1 << 40);
            let second = write(&replica, "second").await;
            if let Ok(Ok(())) = first.committed.await {
                assert!(holds(&replica, first.base_offset, "first").await, "seed {seed}");
            }
            if let Ok(offset) = second {
                assert!(holds(&replica, offset, "second").await, "seed {seed}");
            }
        });
    }
    assert!(full.get() > 10, "{} met a full disk", full.get());
}

/// Whoever decides by what was appended learns of it at once.
#[test]
fn a_refusal_is_counted_before_anybody_is_woken() {
    with_replica(1, |replica, _, disk| async move {
        write(&replica, "a").await.unwrap();
        disk.set_capacity(0);
        let large = "b".repeat(1 << 20);
        let written = write(&replica, &large).await;
        assert_eq!(written, Err(PartitionError::Full));
        assert_eq!((replica.refusals(), replica.last_refusal()), (1, Some(PartitionError::Full)));
        disk.set_capacity(1 << 40);
        assert_eq!(write(&replica, "c").await, Ok(1));
        assert_eq!(replica.refusals(), 1);
    });
}

#[test]
fn who_waits_is_answered_when_the_log_is_closed_or_removed() {
    for removes in [false, true] {
        with_replica(2, move |replica, _, _| async move {
            let queued = replica.append(batch("a"), AppendClass::Client).unwrap();
            if removes {
                replica.remove().await.unwrap();
            } else {
                replica.close().await.unwrap();
            }
            let answer = queued.committed.await.unwrap();
            assert!(answer.is_ok() || removes, "{answer:?}");
            let later = replica.append(batch("b"), AppendClass::Client);
            assert_eq!(later.err(), Some(PartitionError::Ended));
        });
    }
}

#[test]
fn a_log_that_ended_is_told_from_one_that_is_damaged() {
    assert_eq!(PartitionError::from(StorageError::Closed), PartitionError::Ended);
}
