//! Which shard has which partition of this node, and moves by hand: `GET /shards`, and
//! `POST /shards/SHARD/TOPIC/PARTITION`.

use std::fmt::Write;
use std::rc::Rc;

use super::http::{Response, Status};
use super::report::PARTITIONS_SHOWN_MAX;
use super::view::View;
use crate::metadata::image::PartitionId;
use crate::node::shards::MoveError;
use crate::runtime::Runtime;

/// Where they are listed.
pub const PATH: &str = "/shards";

/// A line for each partition of this node: its shard, topic and number. In the order of topics;
/// nothing but their count where there are very many.
pub async fn list<R: Runtime>(view: &Rc<View<R>>) -> Response {
    let node = &view.parts.node;
    let (image, own) = (node.image(), node.node_id());
    let mut lines = String::new();
    let mut count = 0;
    for topic in image.topics() {
        for (index, partition) in topic.indexed_partitions() {
            if !partition.is_on(own) {
                continue;
            }
            count += 1;
            if count <= PARTITIONS_SHOWN_MAX {
                let shard = view.parts.partitions.shard_of(topic.partition_id(index));
                // Writing to a string cannot fail.
                let _written = writeln!(lines, "{shard} {} {index}", topic.name);
            }
        }
        view.parts.runtime.yield_if_needed().await;
    }
    let shards = view.parts.partitions.shard_count();
    let told = match count {
        0..=PARTITIONS_SHOWN_MAX => lines,
        _ => String::new(),
    };
    let head = format!("# {shards} shards, {count} partitions: shard topic partition\n");
    Response::text(Status::Ok, head + &told)
}

/// Moves the partition that the path names; `None`: it names none. Answers when it is served on its
/// new shard.
pub async fn move_partition<R: Runtime>(view: &Rc<View<R>>, path: &str) -> Option<Response> {
    let (shard, topic, index) = target(path)?;
    let refused = |status, why: String| Some(Response::text(status, format!("{why}\n")));
    let image = view.parts.node.image();
    let found = image.topic(topic).filter(|topic| topic.has_partition(index));
    let Some(id) = found.map(|topic| topic.partition_id(index)) else {
        return refused(Status::NotFound, MoveError::NotHere.to_string());
    };
    drop(image);
    Some(moved(view, id, topic, shard).await)
}

async fn moved<R: Runtime>(
    view: &Rc<View<R>>,
    id: PartitionId,
    topic: &str,
    shard: usize,
) -> Response {
    match view.parts.node.move_partition(id, shard).await {
        Ok(moved) => {
            let (from, to, pause) = (moved.from, moved.to, moved.pause);
            let partition = format!("{topic}-{}", id.index);
            let pause_us = u64::try_from(pause.as_micros()).unwrap_or(u64::MAX);
            tracing::info!(partition, from, to, pause_us, "a partition was moved by hand");
            let told = format!("{partition}: from shard {from} to {to} in {pause_us} us\n");
            Response::text(Status::Ok, told)
        }
        Err(error) => {
            let status = match error {
                MoveError::NotHere => Status::NotFound,
                MoveError::Group0 | MoveError::NoShard(_) => Status::BadRequest,
                MoveError::NotNow(_) | MoveError::Stopping => Status::ServiceUnavailable,
            };
            Response::text(status, format!("{error}\n"))
        }
    }
}

/// Shard, topic and partition. Names of topics hold nothing that a path would have to escape.
fn target(path: &str) -> Option<(usize, &str, i32)> {
    let mut parts = path.strip_prefix(PATH)?.strip_prefix('/')?.split('/');
    let target = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?.parse().ok()?);
    parts.next().is_none().then_some(target)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_names_shard_topic_and_partition() {
        assert_eq!(target("/shards/3/orders.v1/12"), Some((3, "orders.v1", 12)));
        let others =
            ["/shards", "/shards/", "/shards/3/orders", "/shards/3/orders/1/", "/shards/x/t/1"];
        for other in others {
            assert_eq!(target(other), None, "{other}");
        }
        assert_eq!(target("/shards/-1/t/0"), None);
        assert_eq!(target("/shards/1/t/99999999999"), None);
    }
}
