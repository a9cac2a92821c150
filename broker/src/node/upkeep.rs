//! What the logs of a shard need now and then: notes of what is flushed, retention, room given
//! back.

use std::rc::Rc;
use std::time::Duration;

use super::view::Node;
use crate::runtime::Runtime;

/// How often the flushed ends of logs that moved are noted (`docs/storage-format.md` says what
/// for).
const NOTE_PERIOD: Duration = Duration::from_secs(1);

/// Looks after the logs of this shard for as long as the process lives.
pub async fn run<R: Runtime>(node: Rc<Node<R>>) {
    // The notes of an earlier run are rewritten only when every shard has read them.
    node.all_serving().await;
    let runtime = node.parts.runtime.clone();
    let retention_period = Duration::from_millis(node.parts.config.retention_check_interval_ms);
    let mut retention_due = runtime.now().after(retention_period);
    loop {
        runtime.sleep_until(runtime.now().after(NOTE_PERIOD)).await;
        note(&node).await;
        node.open_where_space_was_missing().await;
        checkpoint(&node).await;
        if runtime.now() >= retention_due {
            apply_retention(&node).await;
            retention_due = runtime.now().after(retention_period);
        }
    }
}

/// Notes what is flushed, and learns how much space is left.
async fn note<R: Runtime>(node: &Rc<Node<R>>) {
    let logs = &node.parts.logs;
    if let Err(error) = logs.write_notes().await {
        tracing::warn!(%error, "the flushed ends could not be noted; it is tried again");
    }
    if let Err(error) = logs.refresh_space().await {
        tracing::warn!(%error, "the disk does not say how much space is left");
    }
}

/// Writes down what a restart would have to work out again, and takes buffers back from logs that
/// are idle.
async fn checkpoint<R: Runtime>(node: &Rc<Node<R>>) {
    for (_, replica) in node.parts.partitions.all_local() {
        if let Err(error) = replica.tidy_up().await {
            tracing::warn!(
                partition = replica.name(), %error,
                "a checkpoint failed; it is tried again"
            );
        }
        node.parts.runtime.yield_if_needed().await;
    }
}

async fn apply_retention<R: Runtime>(node: &Rc<Node<R>>) {
    for (_, replica) in node.parts.partitions.all_local() {
        match replica.apply_retention().await {
            Ok(0) => {}
            Ok(segments) => {
                tracing::info!(partition = replica.name(), segments, "retention deleted segments");
            }
            Err(error) => {
                tracing::warn!(
                    partition = replica.name(), %error,
                    "retention failed; it is tried again"
                );
            }
        }
        node.parts.runtime.yield_if_needed().await;
    }
}
