//! A replica on the simulated runtime.

use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::types::Uuid;
use vltava_storage::io::IoErrorKind;
use vltava_storage::io::fault_disk::Fault;
use vltava_storage::{EnvironmentOptions, LogEnvironment, load_notes};

use super::*;
use crate::runtime::sim::{SimRuntime, run_alone};

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.append(1, None, Some(b"a record"), &[]).expect("a small record");
    Bytes::from(builder.build())
}

async fn replica(runtime: SimRuntime, options: LogOptions) -> Rc<Replica<SimRuntime>> {
    let notes = load_notes(runtime.disk()).await.expect("notes").notes;
    let environment = EnvironmentOptions::default();
    let logs = LogEnvironment::new(runtime.disk().clone(), environment, 0, notes);
    let log = Log::create(&logs, "topic-0", Uuid(7), options).await;
    Replica::alone(runtime, "topic-0".to_owned(), log.expect("a log"), 1)
}

/// What stands in the queue as the log is closed is written by that, and told like any other write.
#[test]
fn a_close_tells_those_that_wait() {
    for seed in 1..20 {
        run_alone(seed, |runtime, _| async move {
            let replica = replica(runtime, LogOptions::default()).await;
            let mut queued = Vec::new();
            for _ in 0..5 {
                queued.push(replica.append(batch(), AppendClass::Client).expect("it is taken"));
            }
            replica.close().await.expect("closed in order");
            for queued in queued {
                assert_eq!(queued.committed.await, Ok(Ok(())));
            }
            assert_eq!(replica.high_watermark(), 5);
        });
    }
}

/// Retention closes the segment of a log that nobody writes to, and opens the next: that is to be
/// let go of again.
#[test]
fn what_retention_began_is_tidied_up() {
    run_alone(1, |runtime, _| async move {
        let options = LogOptions { retention_ms: Some(1000), ..LogOptions::default() };
        let replica = replica(runtime, options).await;
        let queued = replica.append(batch(), AppendClass::Client).expect("it is taken");
        assert_eq!(queued.committed.await, Ok(Ok(())));
        let tidy_up = || {
            replica.tidy_up();
            replica.tidy_up();
            assert!(replica.is_tidy());
        };
        tidy_up();
        assert_eq!(replica.apply_retention().await, Ok(1));
        assert!(!replica.is_tidy(), "the new segment's file is open");
        tidy_up();
        assert_eq!((replica.apply_retention().await, replica.is_tidy()), (Ok(0), true));
    });
}

/// A log that has ended says so once, and retention, which is asked for again and again, does not
/// repeat it.
#[test]
fn retention_of_a_log_that_has_ended_is_no_news() {
    run_alone(1, |runtime, disk| async move {
        let options = LogOptions { retention_ms: Some(1000), ..LogOptions::default() };
        let replica = replica(runtime, options).await;
        disk.inject(Fault::Fail { at: disk.operations(), kind: IoErrorKind::Failed });
        let queued = replica.append(batch(), AppendClass::Client).expect("it is taken");
        assert!(queued.committed.await.expect("an answer").is_err());
        assert!(replica.ended().is_some());
        assert_eq!(replica.apply_retention().await, Ok(0));
    });
}
