//! CreatePartitions: more partitions for topics that exist.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use vltava_protocol::types::Str;

use super::controller::{Decision, PARTITIONS_MAX, PARTITIONS_PER_REQUEST_MAX, Reply, refused};
use super::new_partitions::{
    Present, check_assignment, check_there, chosen, partition_records, too_many,
};
use super::refusal::{Refusal, repeated};
use crate::metadata::image::Image;
use crate::metadata::records::Record;

/// Decides a request: each topic for itself.
pub(super) fn decide(
    image: &Image,
    present: Present<'_>,
    request: CreatePartitionsRequest,
) -> Decision {
    let additional = |topic: &CreatePartitionsTopic| {
        let there = image.topic(&topic.name).map(|known| known.partition_count());
        there.map_or(0, |there| usize::try_from(topic.count.saturating_sub(there)).unwrap_or(0))
    };
    let asked = request.topics.iter().map(additional).fold(0, usize::saturating_add);
    if asked > PARTITIONS_PER_REQUEST_MAX {
        let message = "Excessively large number of additional partitions per request.";
        return refused(ErrorCode::POLICY_VIOLATION, message);
    }
    let duplicates = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let duplicate = || Refusal::invalid_request("Duplicate topic name.");
    let mut results: Vec<CreatePartitionsTopicResult> =
        duplicates.iter().map(|name| result(name.clone(), Err(duplicate()))).collect();
    let mut records = Vec::new();
    for topic in request.topics.into_iter().filter(|topic| !duplicates.contains(&topic.name)) {
        let added = add(image, present, &topic, records.len());
        results.push(result(topic.name, added.map(|added| records.extend(added))));
    }
    if request.validate_only {
        records.clear();
    }
    (
        records,
        Reply::CreatePartitions(CreatePartitionsResponse {
            results,
            ..CreatePartitionsResponse::default()
        }),
    )
}

fn result(name: Str, added: Result<(), Refusal>) -> CreatePartitionsTopicResult {
    let (error_code, error_message) = match added {
        Ok(()) => (ErrorCode::NONE, None),
        Err(Refusal { error, message }) => (error, Some(message)),
    };
    CreatePartitionsTopicResult { name, error_code, error_message }
}

/// The new partitions of one topic; `added` are those of this request so far.
fn add(
    image: &Image,
    present: Present<'_>,
    topic: &CreatePartitionsTopic,
    added: usize,
) -> Result<Vec<Record>, Refusal> {
    let known = image
        .topic(&topic.name)
        .ok_or_else(|| Refusal::plain(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION))?;
    let there = known.partition_count();
    let invalid = |message: String| Refusal::new(ErrorCode::INVALID_PARTITIONS, message);
    if topic.count == there {
        return Err(invalid(format!("Topic already has {there} partition(s).")));
    }
    if topic.count < there {
        return Err(invalid(format!(
            "The topic {} currently has {there} partition(s); {} would not be an increase.",
            topic.name, topic.count
        )));
    }
    let additional = usize::try_from(topic.count - there).unwrap_or(0);
    if image.partition_count().saturating_add(added).saturating_add(additional) > PARTITIONS_MAX {
        return Err(too_many());
    }
    let replication_factor = known.partition(0).map_or(1, |partition| partition.target().count());
    let replicas = match &topic.assignments {
        Some(assignments) => {
            if assignments.len() != additional {
                return Err(Refusal::invalid_assignment(format!(
                    "Attempted to add {additional} additional partition(s), but only {} \
                     assignment(s) were specified.",
                    assignments.len()
                )));
            }
            for (index, assignment) in (there..).zip(assignments) {
                check_assignment(image, &assignment.broker_ids, &[], Some(replication_factor))?;
                check_there(image, present, index, &assignment.broker_ids)?;
            }
            assignments.iter().map(|assignment| assignment.broker_ids.clone()).collect()
        }
        None => {
            let first = known.partitions.len();
            let wanted = i16::try_from(replication_factor).unwrap_or(i16::MAX);
            chosen(image, present, known.id, first..first + additional, wanted)?
        }
    };
    Ok(partition_records(image, known.id, there, replicas).collect())
}
