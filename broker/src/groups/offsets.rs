//! OffsetCommit, OffsetFetch, OffsetDelete.
//!
//! OffsetCommit versions: 2 to 4 choose how long an offset is kept; 6 has the leader's epoch
//! (KIP-320); 7 static members (KIP-345); 9 answers GROUP_ID_NOT_FOUND where older ones expect
//! ILLEGAL_GENERATION (KIP-848); 10 has topic ids (KIP-848), which the caller has looked up: here
//! topics have names, and the id is kept beside.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
    OffsetCommitResponse, OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use vltava_protocol::messages::offset_delete::{
    OffsetDeleteRequest, OffsetDeleteRequestTopic, OffsetDeleteResponse,
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use vltava_protocol::messages::offset_fetch::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics, OffsetFetchResponseGroup,
    OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use vltava_protocol::types::{Str, Uuid};

use super::group::{Group, Phase};
use super::machine::Reply;
use super::records;
use super::session::Session;
use super::state::{CommittedOffset, State, StoredGroup};
use super::work::Work;
use crate::machine::{KeyValue, Ticket};

/// From this version on, a commit to a group that does not exist says so.
const FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND: i16 = 9;

/// Handles an OffsetCommit.
pub(super) fn commit(
    state: &State,
    session: &mut Session,
    work: &mut Work<'_>,
    ticket: Ticket,
    request: &OffsetCommitRequest,
    api_version: i16,
) {
    let checked = check_committer(state, session, work, request, api_version)
        .and_then(|()| check_memory(state, work, request));
    let response = match checked {
        Ok(()) => commit_partitions(work, request),
        Err(error) => commit_response(request, |_| error),
    };
    work.reply(ticket, Reply::OffsetCommit(response));
}

/// Whether whoever commits may.
fn check_committer(
    state: &State,
    session: &mut Session,
    work: &mut Work<'_>,
    request: &OffsetCommitRequest,
    api_version: i16,
) -> Result<(), ErrorCode> {
    let checked = session.with_live(&request.group_id, |group| {
        let checked = check_member(group, request);
        // A member that commits is alive.
        if checked.is_ok() && matches!(group.phase, Phase::Stable | Phase::Preparing(_)) {
            group.touch(work, &request.member_id);
        }
        checked
    });
    if let Some(checked) = checked {
        return checked;
    }
    let is_without_generation = request.generation_id_or_member_epoch < 0;
    if is_without_generation {
        // An administrator, or a client that assigns partitions to itself, of an empty group or of
        // one that exists by this commit.
        Ok(())
    } else if state.group(&request.group_id).is_some() {
        Err(ErrorCode::UNKNOWN_MEMBER_ID)
    } else if api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND {
        Err(ErrorCode::GROUP_ID_NOT_FOUND)
    } else {
        Err(ErrorCode::ILLEGAL_GENERATION)
    }
}

fn check_member(group: &Group, request: &OffsetCommitRequest) -> Result<(), ErrorCode> {
    let generation = request.generation_id_or_member_epoch;
    if generation < 0 && group.phase == Phase::Empty {
        return Ok(());
    }
    group.validate_member(&request.member_id, request.group_instance_id.as_ref())?;
    if generation != group.generation {
        return Err(ErrorCode::ILLEGAL_GENERATION);
    }
    if group.phase == Phase::Completing {
        // It knows its generation, but not yet what it may read.
        return Err(ErrorCode::REBALANCE_IN_PROGRESS);
    }
    Ok(())
}

/// Whether there is room for what is new; what replaces an older commit always has it.
fn check_memory(
    state: &State,
    work: &mut Work<'_>,
    request: &OffsetCommitRequest,
) -> Result<(), ErrorCode> {
    let stored = state.group(&request.group_id);
    let is_known = |topic: &OffsetCommitRequestTopic| {
        topic
            .partitions
            .iter()
            .all(|partition| committed(stored, &topic.name, partition.partition_index).is_some())
    };
    if request.topics.iter().all(is_known) || work.has_memory(&request.group_id) {
        Ok(())
    } else {
        Err(ErrorCode::COORDINATOR_NOT_AVAILABLE)
    }
}

fn committed<'a>(
    stored: Option<&'a StoredGroup>,
    topic: &Str,
    partition: i32,
) -> Option<&'a CommittedOffset> {
    stored?.offsets.get(&(topic.clone(), partition))
}

fn commit_partitions(work: &mut Work<'_>, request: &OffsetCommitRequest) -> OffsetCommitResponse {
    let mut commits = Vec::new();
    let units_max = work.options.offset_metadata_units_max;
    let now_ms = work.now.wall_ms;
    let mut response = commit_response(request, |_| ErrorCode::NONE);
    for (topic, answered) in request.topics.iter().zip(&mut response.topics) {
        for (partition, answered) in topic.partitions.iter().zip(&mut answered.partitions) {
            match commit_record(request, topic, partition, now_ms, units_max) {
                Some(record) => commits.push(record),
                None => answered.error_code = ErrorCode::OFFSET_METADATA_TOO_LARGE,
            }
        }
    }
    match work.records(commits) {
        Ok(()) => response,
        Err(_) => commit_response(request, |_| ErrorCode::UNKNOWN_SERVER_ERROR),
    }
}

/// The record of one commit; `None` where its text is too long.
fn commit_record(
    request: &OffsetCommitRequest,
    topic: &OffsetCommitRequestTopic,
    partition: &OffsetCommitRequestPartition,
    now_ms: i64,
    units_max: usize,
) -> Option<KeyValue> {
    let metadata = partition.committed_metadata.clone().unwrap_or_default();
    let is_short =
        metadata.as_bytes().len() <= units_max || metadata.encode_utf16().count() <= units_max;
    if !is_short {
        return None;
    }
    let retention_ms = request.retention_time_ms;
    let committed = CommittedOffset {
        offset: partition.committed_offset,
        leader_epoch: partition.committed_leader_epoch,
        metadata,
        committed_at_ms: now_ms,
        expires_at_ms: (retention_ms != -1).then(|| now_ms.saturating_add(retention_ms)),
        topic_id: topic.topic_id,
    };
    let index = partition.partition_index;
    records::offset(&request.group_id, &topic.name, index, &committed).ok()
}

/// An answer for each partition that was asked about.
fn commit_response(
    request: &OffsetCommitRequest,
    error_of: impl Fn(&OffsetCommitRequestPartition) -> ErrorCode,
) -> OffsetCommitResponse {
    let partition = |partition: &OffsetCommitRequestPartition| OffsetCommitResponsePartition {
        partition_index: partition.partition_index,
        error_code: error_of(partition),
    };
    let topic = |topic: &OffsetCommitRequestTopic| OffsetCommitResponseTopic {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partitions.iter().map(partition).collect(),
    };
    OffsetCommitResponse {
        topics: request.topics.iter().map(topic).collect(),
        ..OffsetCommitResponse::default()
    }
}

/// Handles an OffsetFetch for one group: all its offsets where no topics are named.
pub(super) fn fetch(state: &State, request: &OffsetFetchRequestGroup) -> OffsetFetchResponseGroup {
    let stored = state.group(&request.group_id);
    let topics = match &request.topics {
        Some(topics) => topics.iter().map(|topic| fetch_topic(stored, topic)).collect(),
        None => stored.map_or_else(Vec::new, fetch_all),
    };
    OffsetFetchResponseGroup {
        group_id: request.group_id.clone(),
        topics,
        ..OffsetFetchResponseGroup::default()
    }
}

fn fetch_topic(
    stored: Option<&StoredGroup>,
    topic: &OffsetFetchRequestTopics,
) -> OffsetFetchResponseTopics {
    let partition = |&index: &i32| {
        let committed = committed(stored, &topic.name, index)
            // A topic of that name was deleted and made again: these are offsets of other records.
            .filter(|committed| !is_other_topic(committed.topic_id, topic.topic_id));
        fetch_partition(index, committed)
    };
    OffsetFetchResponseTopics {
        name: topic.name.clone(),
        topic_id: topic.topic_id,
        partitions: topic.partition_indexes.iter().map(partition).collect(),
    }
}

/// Whether both ids are known, and not the same.
fn is_other_topic(committed: Uuid, asked: Uuid) -> bool {
    !committed.is_zero() && !asked.is_zero() && committed != asked
}

fn fetch_all(stored: &StoredGroup) -> Vec<OffsetFetchResponseTopics> {
    let mut topics: Vec<OffsetFetchResponseTopics> = Vec::new();
    for ((name, partition), committed) in &stored.offsets {
        let answer = fetch_partition(*partition, Some(committed));
        match topics.last_mut() {
            Some(topic) if topic.name == *name => topic.partitions.push(answer),
            _ => topics.push(OffsetFetchResponseTopics {
                name: name.clone(),
                partitions: vec![answer],
                ..OffsetFetchResponseTopics::default()
            }),
        }
    }
    topics
}

/// No offset is -1, with no error: the client then begins where its own settings say.
fn fetch_partition(
    partition_index: i32,
    committed: Option<&CommittedOffset>,
) -> OffsetFetchResponsePartitions {
    let metadata = committed.map_or(Str::EMPTY, |committed| committed.metadata.clone());
    OffsetFetchResponsePartitions {
        partition_index,
        committed_offset: committed.map_or(-1, |committed| committed.offset),
        committed_leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: Some(metadata),
        error_code: ErrorCode::NONE,
    }
}

/// Handles an OffsetDelete.
pub(super) fn delete(
    state: &State,
    session: &Session,
    work: &mut Work<'_>,
    ticket: Ticket,
    request: &OffsetDeleteRequest,
) {
    let deleted = check_deletable(state, session, request)
        .and_then(|live| delete_partitions(state, live, work, request));
    let response = deleted.unwrap_or_else(|error_code| OffsetDeleteResponse {
        error_code,
        ..OffsetDeleteResponse::default()
    });
    work.reply(ticket, Reply::OffsetDelete(response));
}

/// Whether offsets of the group may be deleted; and the group, where it has members.
fn check_deletable<'a>(
    state: &State,
    session: &'a Session,
    request: &OffsetDeleteRequest,
) -> Result<Option<&'a Group>, ErrorCode> {
    if request.group_id.as_bytes().is_empty() {
        return Err(ErrorCode::INVALID_GROUP_ID);
    }
    let live = session.group(&request.group_id);
    if live.is_none() && state.group(&request.group_id).is_none() {
        return Err(ErrorCode::GROUP_ID_NOT_FOUND);
    }
    let with_members = live.filter(|group| group.phase != Phase::Empty);
    match with_members {
        // What its members read cannot be told.
        Some(group) if !group.is_of_consumers() => Err(ErrorCode::NON_EMPTY_GROUP),
        other => Ok(other),
    }
}

fn delete_partitions(
    state: &State,
    live: Option<&Group>,
    work: &mut Work<'_>,
    request: &OffsetDeleteRequest,
) -> Result<OffsetDeleteResponse, ErrorCode> {
    let group_id = &request.group_id;
    let subscribed = live.map(Group::subscribed_topics);
    let is_read = |topic: &Str| match &subscribed {
        None => false,
        Some(None) => true,
        Some(Some(topics)) => topics.contains(topic),
    };
    let mut tombstones = Vec::new();
    let mut response = OffsetDeleteResponse::default();
    for topic in &request.topics {
        let error_code = if is_read(&topic.name) {
            ErrorCode::GROUP_SUBSCRIBED_TO_TOPIC
        } else {
            for partition in &topic.partitions {
                let index = partition.partition_index;
                if committed(state.group(group_id), &topic.name, index).is_some() {
                    let tombstone = records::offset_tombstone(group_id, &topic.name, index);
                    tombstones.push(tombstone.map_err(|_| ErrorCode::UNKNOWN_SERVER_ERROR)?);
                }
            }
            ErrorCode::NONE
        };
        response.topics.push(delete_response(topic, error_code));
    }
    work.records(tombstones).map_err(|_| ErrorCode::UNKNOWN_SERVER_ERROR)?;
    Ok(response)
}

fn delete_response(
    topic: &OffsetDeleteRequestTopic,
    error_code: ErrorCode,
) -> OffsetDeleteResponseTopic {
    OffsetDeleteResponseTopic {
        name: topic.name.clone(),
        partitions: topic
            .partitions
            .iter()
            .map(|partition| OffsetDeleteResponsePartition {
                partition_index: partition.partition_index,
                error_code,
            })
            .collect(),
    }
}
