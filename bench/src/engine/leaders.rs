//! Who leads which partition, asked again where somebody says that he does not.

use std::sync::Arc;

use vltava_client::metadata::Metadata;
use vltava_protocol::messages::metadata::{MetadataRequest, MetadataResponse};
use vltava_protocol::types::Str;

use crate::engine::context::Context;
use crate::engine::map::{Map, dense, index};

/// How often a worker asks at most, as Java's `retry.backoff.ms`.
pub const ASK_AGAIN_NS: u64 = 100_000_000;

/// Leaders as a worker knows them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leaders {
    /// Grows with each change.
    pub version: u32,
    /// Whether somebody has met a broker that is not the leader.
    is_doubtful: bool,
    asked_ns: u64,
}

impl Leaders {
    /// A broker says that it does not lead a partition.
    pub fn doubt(&mut self) {
        self.is_doubtful = true;
    }

    /// Whether to ask now.
    pub fn wants_asking(&self, now_ns: u64) -> bool {
        self.is_doubtful && now_ns >= self.asked_ns + ASK_AGAIN_NS
    }

    /// Somebody is about to be asked.
    pub fn ask(&mut self, now_ns: u64) {
        self.asked_ns = now_ns;
    }
}

/// The request for all topics of the run.
pub fn request(map: &Map) -> MetadataRequest {
    let names: Vec<Str> = map.topics.iter().map(|topic| topic.name.clone()).collect();
    Metadata::request(Some(&names), false)
}

/// Takes in an answer. Brokers that nobody knew at the begin are left out.
pub fn take_in(response: MetadataResponse, context: &mut Context) {
    context.leaders.is_doubtful = false;
    if moved(&mut context.map, response) {
        context.leaders.version += 1;
    }
}

/// Moves partitions to the leaders that an answer names. Whether any has moved.
fn moved(map: &mut Arc<Map>, response: MetadataResponse) -> bool {
    let mut moved = false;
    for topic in response.topics {
        let Some(name) = topic.name.filter(|_| topic.error_code.is_none()) else {
            continue;
        };
        for found in topic.partitions {
            let node = map.nodes.iter().position(|node| node.id == found.leader_id);
            let number = map.find(&name, topic.topic_id, found.partition_index);
            let (Some(node), Some(number)) = (node.map(dense), number) else {
                continue;
            };
            let Some(known) = map.place(number).copied() else {
                continue;
            };
            let is_news = (known.node, known.leader_epoch) != (node, found.leader_epoch);
            // An answer may be older than what is known.
            if is_news && found.leader_epoch >= known.leader_epoch {
                let place = &mut Arc::make_mut(map).partitions[index(number)];
                (place.node, place.leader_epoch) = (node, found.leader_epoch);
                moved = true;
            }
        }
    }
    moved
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use vltava_protocol::messages::metadata::{
        MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
    };

    use super::*;

    fn answer(leaders: &[(i32, i32)]) -> MetadataResponse {
        let broker = |node_id| MetadataResponseBroker {
            node_id,
            host: Str::from_static("localhost"),
            port: 9092,
            ..MetadataResponseBroker::default()
        };
        let partition = |(partition_index, (leader_id, leader_epoch))| MetadataResponsePartition {
            partition_index,
            leader_id,
            leader_epoch,
            ..MetadataResponsePartition::default()
        };
        let topic = MetadataResponseTopic {
            name: Some(Str::from_static("t")),
            partitions: (0..).zip(leaders.iter().copied()).map(partition).collect(),
            ..MetadataResponseTopic::default()
        };
        MetadataResponse {
            brokers: vec![broker(1), broker(2)],
            topics: vec![topic],
            ..MetadataResponse::default()
        }
    }

    #[test]
    fn a_partition_moves_to_a_newer_leader_that_is_known() {
        let mut metadata = Metadata::default();
        metadata.update(answer(&[(1, 5), (1, 5), (1, 5)]));
        let mut map = Arc::new(Map::new(&metadata, &[Str::from_static("t")]).unwrap());
        let before = Arc::clone(&map);
        assert!(!moved(&mut map, answer(&[(1, 5), (1, 5), (1, 5)])));
        assert!(moved(&mut map, answer(&[(2, 6), (2, 4), (9, 7)])));
        let places = map.partitions.iter().map(|place| (place.node, place.leader_epoch));
        assert_eq!(places.collect::<Vec<_>>(), [(1, 6), (0, 5), (0, 5)]);
        assert_eq!(before.partitions[0].node, 0, "other workers find out by themselves");
    }

    #[test]
    fn whoever_doubts_asks_now_and_then() {
        let mut leaders = Leaders::default();
        let now_ns = 1_000_000_000;
        assert!(!leaders.wants_asking(now_ns));
        leaders.doubt();
        assert!(leaders.wants_asking(now_ns));
        leaders.ask(now_ns);
        assert!(!leaders.wants_asking(now_ns + 1));
        assert!(leaders.wants_asking(now_ns + ASK_AGAIN_NS));
    }
}
