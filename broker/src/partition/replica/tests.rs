//! A replica on the simulated runtime.

use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::types::Uuid;
use vltava_storage::{EnvironmentOptions, LogEnvironment, load_notes};

use super::*;
use crate::runtime::sim::{Simulation, SimulationOptions};

fn batch() -> Bytes {
    let mut builder = BatchBuilder::new();
    builder.append(1, None, Some(b"a record"), &[]).expect("a small record");
    Bytes::from(builder.build())
}

/// What stands in the queue as the log is closed is written by that, and told like any other write.
#[test]
fn a_close_tells_those_that_wait() {
    for seed in 1..20 {
        let simulation = Simulation::new(SimulationOptions::new(seed));
        let host = simulation.add_host();
        let runtime = simulation.start(host, 1).pop().expect("one shard");
        let run = simulation.executor().run(60_000_000_000, async move {
            let notes = load_notes(runtime.disk()).await.expect("notes").notes;
            let options = EnvironmentOptions::default();
            let logs = LogEnvironment::new(runtime.disk().clone(), options, 0, notes);
            let log = Log::create(&logs, "topic-0", Uuid(7), LogOptions::default()).await;
            let replica = Replica::new(runtime, "topic-0".to_owned(), log.expect("a log"), 1);
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
        run.unwrap_or_else(|stuck| panic!("seed {seed}: {stuck}"));
    }
}
