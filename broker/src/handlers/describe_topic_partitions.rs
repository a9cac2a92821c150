//! DescribeTopicPartitions (key 75): topics page by page (KIP-966).
//!
//! Ours: eligible leaders outside the in-sync set are nothing that has to be known: whoever is
//! elected has all that was committed, in the set or not. So both lists of them are empty, as
//! Kafka's are where there are none.

use std::collections::BTreeSet;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse,
    DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use vltava_protocol::types::{Str, Uuid};

use super::Reply;
use super::context::Context;
use super::topology::{OPERATIONS_NOT_ASKED, Standpoint, TOPIC_OPERATIONS, partition_view};
use crate::metadata::image::{Image, Topic};
use crate::metadata::leaders::Leaders;
use crate::metadata::topic_name;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DESCRIBE_TOPIC_PARTITIONS;

/// Describes as many partitions as fit, and says where to go on.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DescribeTopicPartitionsRequest,
) -> Reply<DescribeTopicPartitionsResponse> {
    let node = &context.services.node;
    let page = Page {
        image: &node.image(),
        leaders: &node.leaders(),
        from: Standpoint { listener: &context.client.listener, present: &node.shown() },
        partitions_max: context.services.config.describe_partitions_max,
    };
    Reply::Now(page.answer(&request))
}

struct Page<'a> {
    image: &'a Image,
    leaders: &'a Leaders,
    from: Standpoint<'a>,
    partitions_max: u32,
}

impl Page<'_> {
    fn answer(&self, request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
        let cursor = request.cursor.as_ref();
        let names: BTreeSet<&Str> = request.topics.iter().map(|topic| &topic.name).collect();
        let is_negative = cursor.is_some_and(|cursor| cursor.partition_index < 0);
        let from = cursor.map(|cursor| cursor.topic_name.as_str()).unwrap_or_default();
        let named: Vec<&Str> = names.into_iter().filter(|name| name.as_str() >= from).collect();
        let is_all = request.topics.is_empty();
        // A cursor behind all that is asked for was not given by us.
        if is_negative || !is_all && named.is_empty() {
            return refused(request);
        }
        let mut filling = Filling {
            page: self,
            cursor,
            left: request.response_partition_limit.clamp(1, self.limit()),
            response: DescribeTopicPartitionsResponse::default(),
        };
        if is_all {
            let mut topics = self.image.topics_from(from);
            while let Some(topic) = topics.next()
                && filling.topic(topic)
            {}
        } else {
            for name in named {
                let goes_on = match self.image.topic(name) {
                    Some(topic) => filling.topic(topic),
                    None => filling.unknown(name),
                };
                if !goes_on {
                    break;
                }
            }
        }
        filling.response
    }

    fn limit(&self) -> i32 {
        i32::try_from(self.partitions_max).unwrap_or(i32::MAX).max(1)
    }
}

fn refused(request: &DescribeTopicPartitionsRequest) -> DescribeTopicPartitionsResponse {
    let topics = request
        .topics
        .iter()
        .map(|topic| failed(topic.name.clone(), ErrorCode::INVALID_REQUEST, OPERATIONS_NOT_ASKED));
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn failed(
    name: Str,
    error_code: ErrorCode,
    operations: i32,
) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic {
        error_code,
        is_internal: topic_name::is_internal(&name),
        name: Some(name),
        topic_id: Uuid::ZERO,
        partitions: Vec::new(),
        topic_authorized_operations: operations,
    }
}

/// A page as it fills. Each step says whether there is room for more.
struct Filling<'a> {
    page: &'a Page<'a>,
    cursor: Option<&'a Cursor>,
    left: i32,
    response: DescribeTopicPartitionsResponse,
}

impl Filling<'_> {
    fn topic(&mut self, topic: &Topic) -> bool {
        let first = match self.cursor {
            Some(cursor) if cursor.topic_name == topic.name => cursor.partition_index,
            _ => 0,
        };
        if self.left == 0 {
            self.end(&topic.name, first);
            return false;
        }
        let count = topic.partition_count();
        let end = first.saturating_add(self.left).min(count);
        let partitions: Vec<_> =
            (first..end).filter_map(|index| self.partition(topic, index)).collect();
        self.left -= i32::try_from(partitions.len()).unwrap_or(self.left);
        self.response.topics.push(DescribeTopicPartitionsResponseTopic {
            error_code: ErrorCode::NONE,
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions,
            topic_authorized_operations: TOPIC_OPERATIONS,
        });
        if end < count {
            self.end(&topic.name, end);
        }
        end >= count
    }

    fn unknown(&mut self, name: &Str) -> bool {
        if self.left == 0 {
            self.end(name, 0);
            return false;
        }
        let error = match topic_name::validate(name) {
            Ok(()) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
            Err(_) => ErrorCode::INVALID_TOPIC_EXCEPTION,
        };
        self.response.topics.push(failed(name.clone(), error, TOPIC_OPERATIONS));
        true
    }

    /// The next page begins here.
    fn end(&mut self, topic_name: &Str, partition_index: i32) {
        self.response.next_cursor =
            Some(Cursor { topic_name: topic_name.clone(), partition_index });
    }

    fn partition(
        &self,
        topic: &Topic,
        index: i32,
    ) -> Option<DescribeTopicPartitionsResponsePartition> {
        let Page { image, leaders, from, .. } = *self.page;
        let partition = topic.partition(index)?;
        let view = partition_view(image, leaders, from, topic, (index, partition));
        Some(DescribeTopicPartitionsResponsePartition {
            // A partition without a leader is none, as Kafka has it here.
            error_code: ErrorCode::NONE,
            partition_index: index,
            leader_id: view.leader_id,
            leader_epoch: view.leader_epoch,
            replica_nodes: view.replica_nodes,
            isr_nodes: view.in_sync_nodes,
            eligible_leader_replicas: Some(Vec::new()),
            last_known_elr: Some(Vec::new()),
            offline_replicas: view.offline_nodes,
        })
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::messages::describe_topic_partitions::TopicRequest;

    use super::*;
    use crate::handlers::topology::tests::cluster;

    /// What an answer shows of one topic: name, error, partitions.
    type Shown = (String, ErrorCode, Vec<i32>);

    fn ask(
        names: &[&str],
        limit: i32,
        cursor: Option<(&str, i32)>,
    ) -> (Vec<Shown>, Option<(String, i32)>) {
        let (image, leaders) = cluster(&[("t", 5, 3), ("t2.x", 6, 1), ("a", 7, 1)]);
        let from = Standpoint { listener: "PLAINTEXT", present: &BTreeSet::from([1]) };
        let page = Page { image: &image, leaders: &leaders, from, partitions_max: 2000 };
        let request = DescribeTopicPartitionsRequest {
            topics: names.iter().map(|name| TopicRequest { name: Str::from(*name) }).collect(),
            response_partition_limit: limit,
            cursor: cursor.map(|(name, partition_index)| Cursor {
                topic_name: Str::from(name),
                partition_index,
            }),
        };
        let answer = page.answer(&request);
        let shown = answer.topics.into_iter().map(|topic| {
            let partitions = topic.partitions.iter().map(|p| p.partition_index).collect();
            (topic.name.unwrap_or_default().to_string(), topic.error_code, partitions)
        });
        let next =
            answer.next_cursor.map(|next| (next.topic_name.to_string(), next.partition_index));
        (shown.collect(), next)
    }

    fn shown(name: &str, partitions: &[i32]) -> Shown {
        (name.to_string(), ErrorCode::NONE, partitions.to_vec())
    }

    fn failed(name: &str, error: ErrorCode) -> Shown {
        (name.to_string(), error, vec![])
    }

    fn next(name: &str, index: i32) -> Option<(String, i32)> {
        Some((name.to_string(), index))
    }

    /// Each as a real Kafka 4.4 answers it.
    #[test]
    fn pages_as_kafka_cuts_them() {
        let all = vec![shown("a", &[0]), shown("t", &[0, 1, 2]), shown("t2.x", &[0])];
        assert_eq!(ask(&[], 2000, None), (all, None));
        assert_eq!(
            ask(&["t", "none", "a/b", "t2.x"], 2, None),
            (
                vec![
                    failed("a/b", ErrorCode::INVALID_TOPIC_EXCEPTION),
                    failed("none", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
                    shown("t", &[0, 1]),
                ],
                next("t", 2)
            )
        );
        assert_eq!(ask(&[], 2, Some(("t", 1))), (vec![shown("t", &[1, 2])], next("t2.x", 0)));
        assert_eq!(ask(&["t"], 2, Some(("t", 1))), (vec![shown("t", &[1, 2])], None));
        assert_eq!(ask(&["a", "none"], 1, None), (vec![shown("a", &[0])], next("none", 0)));
        assert_eq!(ask(&["t"], 0, None), (vec![shown("t", &[0])], next("t", 1)));
        assert_eq!(ask(&["t"], 10, Some(("t", 5))), (vec![shown("t", &[])], None));
        let from_gone = vec![shown("t", &[0, 1, 2]), shown("t2.x", &[0])];
        assert_eq!(ask(&[], 4, Some(("none", 1))), (from_gone, None));
    }

    #[test]
    fn cursors_that_nobody_gave_are_refused() {
        let refused = (vec![failed("t", ErrorCode::INVALID_REQUEST)], None);
        assert_eq!(ask(&["t"], 10, Some(("zz", 0))), refused);
        assert_eq!(ask(&["t"], 10, Some(("t", -1))), refused);
    }

    #[test]
    fn all_pages_together_are_everything_once() {
        let mut cursor: Option<(String, i32)> = None;
        let mut seen = Vec::new();
        loop {
            let from = cursor.as_ref().map(|(name, index)| (name.as_str(), *index));
            let (topics, next) = ask(&[], 1, from);
            for (name, _, partitions) in topics {
                seen.extend(partitions.into_iter().map(|index| (name.clone(), index)));
            }
            match next {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let expected = [("a", 0), ("t", 0), ("t", 1), ("t", 2), ("t2.x", 0)];
        let seen: Vec<_> = seen.iter().map(|(name, index)| (name.as_str(), *index)).collect();
        assert_eq!(seen, expected);
    }
}
