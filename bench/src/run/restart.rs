//! The broker's end in the middle of a run, and its next life: how long until it is of use.

use std::thread::sleep;
use std::time::Duration;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_protocol::types::Str;

use crate::engine::clock::Clock;
use crate::launch::Launched;
use crate::observe::cache::{drop_page_cache, read_rate};
use crate::result::Restarted;
use crate::run::RunError;
use crate::scenario::Restart;

/// How long the disk is read to tell how fast it reads.
const DISK_READ: Duration = Duration::from_secs(2);
/// How often it is asked whether all partitions are led, and for how long.
const PAUSE: Duration = Duration::from_millis(2);
const LED_WITHIN_NS: u64 = 300_000_000_000;

/// Ends the broker and starts it again on its data. When it started, by the run's clock, and how
/// long it took until it answered.
pub fn restart(
    broker: &mut Launched,
    spec: &Restart,
    clock: Clock,
) -> Result<(u64, Restarted), RunError> {
    broker.end(spec.end)?;
    let mut restarted = Restarted::default();
    if spec.drop_page_cache {
        drop_page_cache(&broker.data()).map_err(RunError::Cache)?;
        restarted.disk_read_mb_s = read_rate(&broker.data(), DISK_READ).map_err(RunError::Cache)?;
    }
    let started_ns = clock.now_ns();
    restarted.answered_s = broker.start_again()?.as_secs_f64();
    Ok((started_ns, restarted))
}

/// Waits until each partition of these topics is led.
pub fn await_leaders(
    cluster: &mut Cluster,
    names: &[Str],
    clock: Clock,
) -> Result<(), ClientError> {
    let begun_ns = clock.now_ns();
    loop {
        match cluster.refresh(Some(names), false) {
            Err(error) if !error.is_retriable() && !error.is_unreachable() => return Err(error),
            Err(_) => {}
            Ok(()) => {
                let metadata = cluster.metadata();
                let mut partitions = names.iter().flat_map(|name| metadata.partitions_of(name));
                let is_known = names.iter().all(|name| {
                    let topic = metadata.topics.get(name);
                    topic.is_some_and(|topic| topic.error.is_none())
                });
                if is_known && partitions.all(|at| metadata.leader(&at).is_some()) {
                    return Ok(());
                }
            }
        }
        if clock.now_ns() - begun_ns > LED_WITHIN_NS {
            return Err(ClientError::Missing(String::from("a leader of each partition")));
        }
        sleep(PAUSE);
    }
}
