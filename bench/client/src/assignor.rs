//! What members of a classic group tell each other: subscriptions, assignments, and the range rule.
//!
//! The bytes are those of Kafka's `ConsumerProtocol`: a version, i16, and a body in the classic
//! encoding. Later versions only add fields at the end, so that any version can be read as an
//! earlier one.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::decode::DecodeError;
use vltava_protocol::encode::EncodeError;
use vltava_protocol::message::{from_versioned_bytes, to_versioned_bytes};
use vltava_protocol::records::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition as AssignedTopic,
};
use vltava_protocol::types::Str;

use crate::metadata::TopicPartition;

/// The type of group whose members consume topics.
pub const PROTOCOL_TYPE: Str = Str::from_static("consumer");
/// Name of the range rule.
pub const RANGE: Str = Str::from_static("range");

/// The version of what is written: the first is all that the range rule needs, and all can read it.
const VERSION: i16 = 0;

/// What a member wants to read.
pub fn encode_subscription(topics: &[Str]) -> Result<Bytes, EncodeError> {
    let subscription = ConsumerProtocolSubscription {
        topics: topics.to_vec(),
        ..ConsumerProtocolSubscription::default()
    };
    to_versioned_bytes(&subscription, VERSION)
}

/// Reads which topics a member wants.
pub fn decode_subscription(bytes: &Bytes) -> Result<Vec<Str>, DecodeError> {
    from_versioned_bytes(bytes)
        .map(|subscription: ConsumerProtocolSubscription| subscription.topics)
}

/// What a member is given to read.
pub fn encode_assignment(partitions: &[TopicPartition]) -> Result<Bytes, EncodeError> {
    let mut by_topic: BTreeMap<&Str, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        by_topic.entry(&partition.topic).or_default().push(partition.partition);
    }
    let assigned_partitions = by_topic
        .into_iter()
        .map(|(topic, partitions)| AssignedTopic { topic: topic.clone(), partitions });
    let assignment = ConsumerProtocolAssignment {
        assigned_partitions: assigned_partitions.collect(),
        user_data: None,
    };
    to_versioned_bytes(&assignment, VERSION)
}

/// Reads what a member is given to read. No bytes at all are no partitions: what a coordinator
/// gives to a member that its leader did not know of.
pub fn decode_assignment(bytes: &Bytes) -> Result<Vec<TopicPartition>, DecodeError> {
    if bytes.is_empty() {
        return Ok(Vec::new());
    }
    let assignment: ConsumerProtocolAssignment = from_versioned_bytes(bytes)?;
    let pairs = assignment.assigned_partitions.into_iter().flat_map(|assigned| {
        assigned
            .partitions
            .into_iter()
            .map(move |partition| TopicPartition { topic: assigned.topic.clone(), partition })
    });
    Ok(pairs.collect())
}

/// Kafka's range rule: for each topic, its subscribers in order (instance id first, else member id)
/// get one run of partitions each, the first ones one more where it does not come out even.
///
/// `members` are (what orders them, what they subscribe to); the answer has one assignment for
/// each.
pub fn assign_range(
    members: &[(Str, Vec<Str>)],
    partition_count: impl Fn(&Str) -> Option<usize>,
) -> Vec<Vec<TopicPartition>> {
    let mut subscribers: BTreeMap<&Str, Vec<usize>> = BTreeMap::new();
    for (index, (_, topics)) in members.iter().enumerate() {
        for topic in topics {
            let of_topic = subscribers.entry(topic).or_default();
            if of_topic.last() != Some(&index) {
                of_topic.push(index);
            }
        }
    }
    let mut assignments = vec![Vec::new(); members.len()];
    for (topic, mut of_topic) in subscribers {
        let Some(count) = partition_count(topic) else {
            continue;
        };
        of_topic.sort_by(|a, b| members[*a].0.cmp(&members[*b].0));
        let (each, more) = (count / of_topic.len(), count % of_topic.len());
        let mut partitions = (0_i32..).take(count);
        for (place, member) in of_topic.into_iter().enumerate() {
            let share = each + usize::from(place < more);
            let run = partitions
                .by_ref()
                .take(share)
                .map(|partition| TopicPartition { topic: topic.clone(), partition });
            assignments[member].extend(run);
        }
    }
    assignments
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&'static str]) -> Vec<Str> {
        names.iter().map(|name| Str::from_static(name)).collect()
    }

    fn pairs(assignment: &[TopicPartition]) -> Vec<(&str, i32)> {
        assignment.iter().map(|pair| (pair.topic.as_str(), pair.partition)).collect()
    }

    #[test]
    fn ranges_are_kafkas() {
        let topics = names(&["t0", "t1"]);
        let members = [(Str::from("c0"), topics.clone()), (Str::from("c1"), topics)];
        let assigned = assign_range(&members, |_| Some(3));
        assert_eq!(pairs(&assigned[0]), [("t0", 0), ("t0", 1), ("t1", 0), ("t1", 1)]);
        assert_eq!(pairs(&assigned[1]), [("t0", 2), ("t1", 2)]);
    }

    #[test]
    fn each_topic_goes_to_its_subscribers_in_order() {
        let members = [
            (Str::from("z"), names(&["a", "b", "a"])),
            (Str::from("y"), names(&["a"])),
            (Str::from("x"), names(&["gone"])),
        ];
        let assigned = assign_range(&members, |topic| (topic != "gone").then_some(1));
        assert_eq!(pairs(&assigned[0]), [("b", 0)]);
        assert_eq!(pairs(&assigned[1]), [("a", 0)]);
        assert!(assigned[2].is_empty());
    }

    #[test]
    fn subscriptions_and_assignments_are_read_as_written() {
        let topics = names(&["one", "two"]);
        let bytes = encode_subscription(&topics).unwrap();
        assert_eq!(decode_subscription(&bytes).unwrap(), topics);
        let members = [(Str::EMPTY, topics)];
        let assigned = assign_range(&members, |_| Some(5)).remove(0);
        assert_eq!(decode_assignment(&encode_assignment(&assigned).unwrap()).unwrap(), assigned);
        assert_eq!(decode_assignment(&Bytes::new()).unwrap(), []);
    }

    #[test]
    fn javas_version_is_read() {
        // Version 3 as Java writes it: topics, user data, owned partitions, generation, rack.
        let bytes = b"\0\x03\0\0\0\x01\0\x01t\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff\xff\xff";
        assert_eq!(decode_subscription(&Bytes::from_static(bytes)).unwrap(), names(&["t"]));
        for length in 2..9 {
            assert!(decode_subscription(&Bytes::from_static(&bytes[..length])).is_err());
        }
    }
}
