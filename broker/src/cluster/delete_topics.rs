//! DeleteTopics: by name or by id.

use std::collections::BTreeSet;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use vltava_protocol::types::{Str, Uuid};

use super::controller::{Decision, Reply};
use super::refusal::{Refusal, repeated};
use crate::metadata::image::{Image, Topic};
use crate::metadata::records::Record;

/// What a client names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Named {
    Name(Str),
    Id(Uuid),
}

/// Decides a request: each topic for itself, in the order in which they are named. What is named
/// twice is answered once and not deleted, also where one name is an id.
pub(super) fn decide(image: &Image, request: DeleteTopicsRequest) -> Decision {
    let by_name = |name| DeleteTopicState { name: Some(name), topic_id: Uuid::ZERO };
    let asked: Vec<DeleteTopicState> =
        request.topics.into_iter().chain(request.topic_names.into_iter().map(by_name)).collect();
    let duplicates = repeated(asked.iter().filter_map(|asked| named(asked).ok()));
    let found = asked.iter().map(|asked| {
        let named = named(asked)?;
        if duplicates.contains(&named) { Err(duplicate(&named)) } else { find(image, &named) }
    });
    let found: Vec<_> = found.collect();
    let in_two_ways = repeated(found.iter().flatten().map(|topic| topic.id));
    let mut answered = BTreeSet::new();
    let (mut records, mut responses) = (Vec::new(), Vec::with_capacity(asked.len()));
    for (asked, found) in asked.into_iter().zip(found) {
        let response = match found {
            Ok(topic) if in_two_ways.contains(&topic.id) => {
                let refusal = Refusal::invalid_request(
                    "The provided topic name maps to an ID that was already supplied.",
                );
                refused(Some(topic.name.clone()), topic.id, refusal)
            }
            Ok(topic) => {
                records.push(Record::Topic(topic.id, None));
                deleted(topic)
            }
            Err(refusal) => refused(asked.name, asked.topic_id, refusal),
        };
        if answered.insert((response.name.clone(), response.topic_id)) {
            responses.push(response);
        }
    }
    (
        records,
        Reply::DeleteTopics(DeleteTopicsResponse { responses, ..DeleteTopicsResponse::default() }),
    )
}

fn named(asked: &DeleteTopicState) -> Result<Named, Refusal> {
    match &asked.name {
        Some(_) if !asked.topic_id.is_zero() => {
            Err(Refusal::invalid_request("You may not specify both topic name and topic id."))
        }
        Some(name) => Ok(Named::Name(name.clone())),
        None if asked.topic_id.is_zero() => {
            Err(Refusal::invalid_request("Neither topic name nor id were specified."))
        }
        None => Ok(Named::Id(asked.topic_id)),
    }
}

fn duplicate(named: &Named) -> Refusal {
    Refusal::invalid_request(match named {
        Named::Name(_) => "Duplicate topic name.",
        Named::Id(_) => "Duplicate topic id.",
    })
}

fn find<'a>(image: &'a Image, named: &Named) -> Result<&'a Topic, Refusal> {
    let (topic, unknown) = match named {
        Named::Name(name) => (image.topic(name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
        Named::Id(id) => (image.topic_by_id(*id), ErrorCode::UNKNOWN_TOPIC_ID),
    };
    topic.map(AsRef::as_ref).ok_or_else(|| Refusal::plain(unknown))
}

fn deleted(topic: &Topic) -> DeletableTopicResult {
    DeletableTopicResult {
        name: Some(topic.name.clone()),
        topic_id: topic.id,
        ..DeletableTopicResult::default()
    }
}

fn refused(name: Option<Str>, topic_id: Uuid, refusal: Refusal) -> DeletableTopicResult {
    let Refusal { error, message } = refusal;
    DeletableTopicResult { name, topic_id, error_code: error, error_message: Some(message) }
}
