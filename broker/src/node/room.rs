//! A node whose disk is below its reserve, or that has no descriptor for its logs, lets others
//! lead: clients can write and read there. One that starts on a full disk waits.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::peers::ROOM;
use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::runtime::Runtime;

/// What a node answers that takes writes of clients, and can open its logs.
const HAS_ROOM: &[u8] = &[1];
const HAS_NONE: &[u8] = &[0];

/// How long to wait where the disk is full.
const PAUSE: Duration = Duration::from_secs(1);

/// Writes `what` again, says so once, and waits, for as long as the disk is full.
///
/// # Errors
/// Any other.
pub(super) async fn once_there_is_room<R: Runtime, T, E: Display>(
    runtime: &R,
    what: &str,
    is_full: impl Fn(&E) -> bool,
    write: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let mut is_told = false;
    loop {
        match write().await {
            Err(error) if is_full(&error) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!(%error, "waiting for room to write down {what}");
                }
                runtime.sleep(PAUSE).await;
            }
            written => return written,
        }
    }
}

impl<R: Runtime> Node<R> {
    /// Hands over what this shard leads and has no room for to replicas that have all of it, on
    /// nodes that say that they have room; how many it was. What nobody can take is refused here,
    /// as it would be on one node. Group 0 may use the disk's reserve, and stays.
    pub(super) async fn hand_over_for_room(self: &Rc<Self>) -> usize {
        let is_low = self.is_low_on_space();
        let led = self.parts.partitions.local_where(|replica| {
            (is_low || replica.lacks_descriptor()) && replica.leads().is_some()
        });
        if led.is_empty() {
            return 0;
        }
        let (mut load, mut room, mut moved) = (self.leaders_by_node(), BTreeMap::new(), 0);
        for (id, replica) in led {
            if id == PartitionId::CLUSTER_METADATA && !replica.lacks_descriptor() {
                continue;
            }
            let mut able = replica.successors();
            for node in &able {
                if !room.contains_key(node) {
                    room.insert(*node, self.has_room(*node).await);
                }
            }
            able.retain(|node| room.get(node) == Some(&true));
            if let Some(to) = self.successor(&able, &mut load) {
                moved += usize::from(replica.hand_over(to).await);
            }
        }
        moved
    }

    /// Whether another node says that it has room.
    pub(super) async fn has_room(&self, node: i32) -> bool {
        let answer = self.ask_peer(node, ROOM, Bytes::new()).await;
        answer.is_some_and(|answer| answer == HAS_ROOM)
    }

    /// Whether this node has room, for another.
    pub(super) async fn answer_room(self: &Rc<Self>) -> Bytes {
        let lacks = |node: Rc<Self>| {
            let lack = node.parts.partitions.local_where(|replica| replica.lacks_descriptor());
            std::future::ready(!lack.is_empty())
        };
        // Descriptors are the process's, whichever shard is asked.
        let is_cramped = self.is_low_on_space() || self.on_all(lacks).await.contains(&Some(true));
        Bytes::from_static(if is_cramped { HAS_NONE } else { HAS_ROOM })
    }
}
