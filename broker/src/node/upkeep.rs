//! What the logs of a shard need now and then: notes of what is flushed, checkpoints, retention,
//! buffers given back and made ready, what rotted, and another try where no room was to open one.
//! None waits for another's work.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{join, join5};
use vltava_storage::io::Space;

use super::view::Node;
use crate::runtime::Runtime;

/// How often the flushed ends of logs that moved are noted (`docs/storage-format.md` says what
/// for).
const NOTE_PERIOD: Duration = Duration::from_secs(1);

/// How often logs are looked at for what a restart would have to work out again.
const CHECKPOINT_PERIOD: Duration = Duration::from_millis(250);

/// A log that took nothing for so long gives its buffers back; as often, those are opened for which
/// there was no room.
const IDLE_PERIOD: Duration = Duration::from_secs(1);

/// Mends what has rotted in the logs of this shard, for as long as the process lives: from its
/// start on, since it may be what keeps this node, or all, from starting.
pub async fn mend<R: Runtime>(node: Rc<Node<R>>) {
    every(&node, IDLE_PERIOD, async |node| node.mend_logs().await).await;
}

/// Looks after the logs of this shard for as long as the process lives.
pub async fn run<R: Runtime>(node: Rc<Node<R>>) {
    // The notes of an earlier run are rewritten only when every shard has read them.
    node.all_serving().await;
    let retention_period = Duration::from_millis(node.parts.config.retention_check_interval_ms);
    let noting = every(&node, NOTE_PERIOD, async |node| note(node).await);
    let checkpointing = every(&node, CHECKPOINT_PERIOD, async |node| checkpoint(node).await);
    let tidying = every(&node, IDLE_PERIOD, async |node| tidy_up(node).await);
    let opening = every(&node, IDLE_PERIOD, async |node| node.open_where_room_was_missing().await);
    let retaining = every(&node, retention_period, async |node| apply_retention(node).await);
    let handing = every(&node, NOTE_PERIOD, async |node| hand_over(node).await);
    join(join5(noting, checkpointing, tidying, opening, retaining), handing).await;
}

/// Has memory ready for logs that are written to, for as long as the process lives.
pub async fn prepare_buffers<R: Runtime>(node: Rc<Node<R>>) {
    node.parts.logs.prepare_buffers().await;
}

/// Does it again and again, with this pause in between.
async fn every<R: Runtime>(node: &Rc<Node<R>>, pause: Duration, work: impl AsyncFn(&Rc<Node<R>>)) {
    let runtime = &node.parts.runtime;
    loop {
        runtime.sleep(pause).await;
        work(node).await;
    }
}

/// Lets others lead where space, or descriptors, do not suffice. Others are asked for that.
async fn hand_over<R: Runtime>(node: &Rc<Node<R>>) {
    if node.parts.peers.is_some() {
        let moved = node.hand_over_for_room().await;
        if moved > 0 {
            tracing::info!(moved, "others lead what clients could not write or read here");
        }
    }
}

/// Notes what is flushed, and learns how much space is left.
async fn note<R: Runtime>(node: &Rc<Node<R>>) {
    let logs = &node.parts.logs;
    if let Err(error) = logs.write_notes().await {
        tracing::warn!(%error, "the flushed ends could not be noted; it is tried again");
    }
    let was_low = logs.is_low();
    match logs.refresh_space().await {
        Err(error) => tracing::warn!(%error, "the disk does not say how much space is left"),
        Ok(_) if node.parts.jobs.own() > 0 => {}
        Ok(space) if logs.is_low() && !was_low => warn_of_low(space),
        Ok(space) if was_low && !logs.is_low() => {
            tracing::info!(free_bytes = space.free, "there is space again: clients may write");
        }
        Ok(_) => {}
    }
}

/// Says that clients may not write.
pub fn warn_of_low(space: Space) {
    tracing::warn!(
        free_bytes = space.free,
        "less than disk.reserve.bytes is free: clients' writes are refused"
    );
}

/// Takes buffers back from logs that are idle.
async fn tidy_up<R: Runtime>(node: &Rc<Node<R>>) {
    for (_, replica) in node.parts.partitions.local_where(|replica| !replica.is_tidy()) {
        replica.tidy_up();
        node.parts.runtime.yield_if_needed().await;
    }
}

/// Writes down what a restart would have to work out again.
async fn checkpoint<R: Runtime>(node: &Rc<Node<R>>) {
    for (_, replica) in node.parts.partitions.local_where(|replica| !replica.is_tidy()) {
        if let Err(error) = replica.checkpoint().await {
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
