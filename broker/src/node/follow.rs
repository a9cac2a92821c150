//! Follows group 0: applies what it has committed to an image, and the image to all shards.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::batch::Batch;
use vltava_protocol::record;

use super::admission::Addresses;
use super::level::Ended;
use super::view;
use crate::metadata::image::{Image, Node};
use crate::metadata::records::Record;
use crate::partition::error::PartitionError;
use crate::partition::replay;
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

/// Bytes of the log that one step reads.
const STEP_BYTES: usize = 1024 * 1024;
/// How long a node waits before it looks again whether what has rotted here is mended (`mend`).
const MEND_PAUSE: Duration = Duration::from_millis(500);

/// Follows group 0 for as long as the process lives. Runs on shard 0. An image that cannot be made
/// is an error: this node must not go on with an older one. Nor may it where its copy of the group
/// has ended while other nodes decide: alone it does, since then nothing else will be decided.
///
/// What was decided until this node came stands below `until_here`; 0: that is not known.
pub async fn follow<R: Runtime>(
    node: Rc<view::Node<R>>,
    group: Rc<Replica<R>>,
    until_here: i64,
) -> Result<(), Ended> {
    let mut image = Image::default();
    let mut offset = group.log_start();
    let mut is_first = true;
    loop {
        if group.given_up_from() < offset {
            return Err("the cluster's metadata was recovered without this node, which knew of \
                        decisions that are void: start it again"
                .to_owned()
                .into());
        }
        let committed = group.high_watermark();
        while offset < committed {
            let read = group.read_bytes(offset, STEP_BYTES).await;
            if offset < group.log_start() {
                // The controller has written its live state again and deleted what lay before, also
                // what is missing here: what stands from the new start on is all there is.
                (image, offset) = (Image::default(), group.log_start());
                continue;
            }
            let applied = match read {
                Ok(bytes) => apply(&mut image, &bytes, offset, committed)?,
                Err(PartitionError::Damaged(what)) => Err(what),
                Err(PartitionError::NoDescriptor) => {
                    tracing::warn!("what the cluster decides cannot be read without a descriptor");
                    node.parts.runtime.sleep(MEND_PAUSE).await;
                    continue;
                }
                Err(error) => return Err(error.to_string().into()),
            };
            match applied {
                Ok(next) => offset = next,
                Err(_) if mend(&node, &group, offset).await => {}
                Err(what) => return Err(what.into()),
            }
        }
        node.settle_level(&image).await?;
        if std::mem::take(&mut is_first) && until_here > 0 && offset >= until_here {
            node.remove_deleted(&image, &group).await;
        }
        publish(&node, Arc::new(image.clone())).await;
        node.know_peers(&image);
        node.know_throttles(&image);
        node.set_applied(offset);
        group.committed_beyond(offset).await;
        if node.parts.peers.is_some()
            && let Some(why) = group.ended()
        {
            return Err(
                format!("nothing more can be heard of what the cluster decides: {why}").into()
            );
        }
    }
}

/// Waits until the batch at this offset is what was written, as other nodes have it; where this
/// node is alone, it stays damaged, and the answer is no.
async fn mend<R: Runtime>(node: &view::Node<R>, group: &Replica<R>, offset: i64) -> bool {
    if !group.suspect(offset) {
        return false;
    }
    tracing::warn!("this node waits until another has given it what has rotted of the metadata");
    let runtime = &node.parts.runtime;
    while group.has_rot() && group.log_start() <= offset {
        runtime.sleep(MEND_PAUSE).await;
    }
    true
}

/// What of a log's bytes was applied, up to which offset; or why its first batch is not what was
/// written.
type Applied = Result<i64, String>;

/// Applies the records from `offset` on, below `committed`.
///
/// # Errors
/// What was written cannot be understood.
fn apply(image: &mut Image, bytes: &Bytes, offset: i64, committed: i64) -> Result<Applied, String> {
    let mut next = offset;
    for batch in replay::proved(bytes, offset) {
        let batch = match batch {
            Ok(batch) => batch,
            Err(error) if next == offset => return Ok(Err(error.to_string())),
            Err(_) => break,
        };
        if batch.base_offset() >= committed {
            break;
        }
        for record in records(&batch) {
            let applied = record.and_then(|record| {
                image.apply(record).map_err(|error| format!("group 0, offset {next}: {error}"))
            });
            applied?;
        }
        next = batch.next_offset();
    }
    let nothing = || format!("the log of group 0 cannot be read at offset {offset}");
    Ok(if next > offset { Ok(next) } else { Err(nothing()) })
}

/// The records of a batch of group 0.
fn records(batch: &Batch<'_>) -> impl Iterator<Item = Result<Record, String>> {
    let offset = batch.base_offset();
    let decoded = move |key: &[u8], value: Option<&[u8]>| {
        let value = value.map(Bytes::copy_from_slice);
        let record = Record::decode(&Bytes::copy_from_slice(key), value.as_ref());
        record.map_err(|error| format!("group 0, offset {offset}: {error}"))
    };
    let records = record::records(batch.payload(), batch.record_count());
    records.filter_map(move |record| match record {
        Ok(record) => Some(decoded(record.key?, record.value)),
        Err(error) => Some(Err(error.to_string())),
    })
}

/// Where this node's copy of group 0 says the nodes are, as far as it can be read; committed or
/// not.
pub async fn logged_addresses<R: Runtime>(group: &Replica<R>) -> Addresses {
    let mut addresses = Addresses::new();
    let mut offset = group.log_start();
    while offset < group.end() {
        let Ok(bytes) = group.read_bytes(offset, STEP_BYTES).await else { break };
        let before = offset;
        for batch in replay::proved(&bytes, offset).map_while(Result::ok) {
            for record in records(&batch).map_while(Result::ok) {
                match record {
                    Record::Node(id, Some(Node { peer_endpoint: Some(at), .. })) => {
                        addresses.insert(id, at);
                    }
                    Record::Node(id, _) => drop(addresses.remove(&id)),
                    _ => {}
                }
            }
            offset = batch.next_offset();
        }
        if offset == before {
            break;
        }
    }
    addresses
}

/// Gives the image to all shards; returns when each has done what it asks. Nothing is opened before
/// all shards have removed what is gone.
async fn publish<R: Runtime>(node: &Rc<view::Node<R>>, image: Arc<Image>) {
    node.on_all(move |node| node.take(image)).await;
    node.on_all(view::Node::open_taken).await;
}
