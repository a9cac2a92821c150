//! A client that keeps its offsets in groups without members, and deletes such groups.

use std::net::SocketAddr;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_groups::DeleteGroupsRequest;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use vltava_protocol::types::{Str, Uuid};

use super::{RETRY, Topic, Workload, route};
use crate::checkers::{KeptOffset, violation};
use crate::client::{CallError, Client};
use crate::promise;

/// `OffsetCommit` and `OffsetFetch` name topics by id from this version on.
const BY_ID: i16 = 10;
/// `OffsetFetch` asks for several groups from this version on.
const MANY_GROUPS: i16 = 8;
/// After so many changes whose fate is unknown, a group proves nothing any more.
const DOUBTS_MAX: usize = 2;

/// Commits, deletes and asks, until the run is to end.
pub async fn keep(workload: &Workload, mut client: Client) {
    let topic = &workload.topics[0];
    let (mut group, mut kept, mut groups) = (String::new(), KeptOffset::default(), 0);
    while !workload.is_finishing() {
        if group.is_empty() || kept.doubts() > DOUBTS_MAX {
            groups += 1;
            group = format!("{}-{groups}", client.name);
            kept = KeptOffset::default();
        }
        let done = match client.random.below(4) {
            0 => delete(&mut client, &group, &mut kept).await,
            1 => commit(&mut client, &group, topic, &mut kept).await,
            _ => check(&mut client, &group, topic, &kept).await,
        };
        if done.is_err() {
            client.pause(RETRY).await;
        }
        client.pause(workload.swarm.think_max * 5).await;
    }
}

/// Looks for the group's coordinator; `None` where there is none now.
async fn coordinator(client: &mut Client, group: &str) -> Result<Option<SocketAddr>, CallError> {
    let make = |version| FindCoordinatorRequest {
        key: if version < 4 { Str::from(group) } else { Str::EMPTY },
        key_type: 0,
        coordinator_keys: if version < 4 { Vec::new() } else { vec![Str::from(group)] },
    };
    let answer = client.call(1, make).await?;
    let (error, host, port) = match answer.coordinators.first() {
        Some(found) => (found.error_code, &found.host, found.port),
        None => (answer.error_code, &answer.host, answer.port),
    };
    promise!(error.is_none() || error.is_retriable(), "FindCoordinator: {}", error.name());
    Ok(error.is_none().then(|| route::address(host, port)))
}

/// Commits an offset, higher or lower than the last.
async fn commit(
    client: &mut Client,
    group: &str,
    topic: &Topic,
    kept: &mut KeptOffset,
) -> Result<(), CallError> {
    let Some(coordinator) = coordinator(client, group).await? else {
        return Ok(());
    };
    let offset = i64::try_from(client.random.mostly_small(0..=1_000_000)).unwrap_or(0);
    let (name, id) = (Str::from(&*topic.name), topic.id.get());
    let make = |version| OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: if version < BY_ID { name } else { Str::EMPTY },
            topic_id: if version < BY_ID { Uuid::ZERO } else { id },
            partitions: vec![OffsetCommitRequestPartition {
                partition_index: 0,
                committed_offset: offset,
                committed_metadata: Some(Str::EMPTY),
                ..OffsetCommitRequestPartition::default()
            }],
        }],
        ..OffsetCommitRequest::default()
    };
    let answer = client.call_at(coordinator, 2, make).await;
    let told = answer.as_ref().ok().and_then(|answer| answer.topics.first()?.partitions.first());
    match told.map(|told| told.error_code) {
        Some(ErrorCode::NONE) => kept.set(Some(offset)),
        other => {
            promise!(other.is_none_or(ErrorCode::is_retriable), "OffsetCommit: {other:?}");
            kept.doubt(Some(offset));
        }
    }
    answer.map(|_| ())
}

async fn delete(client: &mut Client, group: &str, kept: &mut KeptOffset) -> Result<(), CallError> {
    let Some(coordinator) = coordinator(client, group).await? else {
        return Ok(());
    };
    let request = DeleteGroupsRequest { groups_names: vec![Str::from(group)] };
    let answer = client.call_at(coordinator, 0, |_| request).await;
    let told = answer.as_ref().ok().and_then(|answer| answer.results.first());
    match told.map(|told| told.error_code) {
        Some(ErrorCode::NONE) => kept.set(None),
        Some(ErrorCode::GROUP_ID_NOT_FOUND) => {
            promise!(kept.may_be_none(), "{group} has committed, and is not found");
        }
        other => {
            promise!(other.is_none_or(ErrorCode::is_retriable), "DeleteGroups: {other:?}");
            kept.doubt(None);
        }
    }
    answer.map(|_| ())
}

/// Asks what is committed.
async fn check(
    client: &mut Client,
    group: &str,
    topic: &Topic,
    kept: &KeptOffset,
) -> Result<(), CallError> {
    let Some(coordinator) = coordinator(client, group).await? else {
        return Ok(());
    };
    let (name, id) = (Str::from(&*topic.name), topic.id.get());
    let make = |version| OffsetFetchRequest {
        groups: vec![OffsetFetchRequestGroup {
            group_id: Str::from(group),
            topics: Some(vec![OffsetFetchRequestTopics {
                name: if version < BY_ID { name } else { Str::EMPTY },
                topic_id: if version < BY_ID { Uuid::ZERO } else { id },
                partition_indexes: vec![0],
            }]),
            ..OffsetFetchRequestGroup::default()
        }],
        ..OffsetFetchRequest::default()
    };
    let answer = client.call_at(coordinator, MANY_GROUPS, make).await?;
    let Some(answered) = answer.groups.first() else {
        violation(format!("OffsetFetch: nothing is said of {group}"))
    };
    let told = answered.topics.iter().flat_map(|topic| &topic.partitions).next();
    let error = told.map_or(answered.error_code, |told| told.error_code);
    if !error.is_none() {
        promise!(error.is_retriable(), "OffsetFetch: {}", error.name());
        return Ok(());
    }
    if answered.error_code.is_none() {
        let offset = told.map_or(-1, |told| told.committed_offset);
        kept.check_told(group, (offset >= 0).then_some(offset));
    }
    Ok(())
}
