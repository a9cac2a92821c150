//! An administrator of what the others use: deletes records, changes settings of topics.

use std::rc::Rc;

use vltava::runtime::sim::MILLION;
use vltava_protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::types::Str;

use super::{RETRY, Topic, Workload, route};
use crate::checkers::violation;
use crate::client::{CallError, Client};
use crate::promise;

/// A resource of this type is a topic.
const TOPIC: i8 = 2;
/// Operations of `IncrementalAlterConfigs`.
const SET: i8 = 0;
const DELETE: i8 = 1;
/// `DeleteRecords` up to the high watermark.
const ALL: i64 = -1;

/// Deletes records and changes settings until the run is to end.
pub async fn tune(workload: &Workload, mut client: Client) {
    while !workload.is_finishing() {
        let topic = &workload.topics[client.random.index(workload.topics.len())];
        let done = match client.random.chance(MILLION / 2) {
            true => delete_records(workload, &mut client, topic).await,
            false => alter_config(&mut client, topic).await,
        };
        if done.is_err() {
            client.pause(RETRY).await;
        }
        client.pause(workload.swarm.think_max * 20).await;
    }
}

async fn delete_records(
    workload: &Workload,
    client: &mut Client,
    topic: &Topic,
) -> Result<(), CallError> {
    let index = client.random.index(topic.partitions.unsigned_abs() as usize);
    let index = i32::try_from(index).unwrap_or(0);
    let partition = (Rc::clone(&topic.key), index);
    let committed = workload.checkers.offsets.borrow().high_watermark(&partition);
    let all = client.random.chance(MILLION / 8);
    let below = client.random.between(0..=committed.unsigned_abs());
    let to = if all { ALL } else { i64::try_from(below).unwrap_or(0) };
    let viewer = topic.viewer(client);
    let floor = {
        let mut starts = workload.checkers.starts.borrow_mut();
        starts.ask(&partition, if all { i64::MAX } else { to });
        starts.floor(&viewer, &partition)
    };
    let request = DeleteRecordsRequest {
        topics: vec![DeleteRecordsTopic {
            name: Str::from(&*topic.name),
            partitions: vec![DeleteRecordsPartition { partition_index: index, offset: to }],
        }],
        timeout_ms: 30_000,
    };
    let Some(leader) = route::leader(client, topic, index).await? else {
        return Ok(());
    };
    let answer = client.call_at(leader.address, 0, |_| request).await?;
    let mut told = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let Some(told) = told.next() else {
        violation(format!("DeleteRecords of {partition:?}: no answer"))
    };
    let error = told.error_code;
    if !error.is_none() {
        promise!(error.is_retriable(), "DeleteRecords of {partition:?}@{to}: {}", error.name());
        return Ok(());
    }
    // "All" is at least what was known to be committed.
    let least = if all { committed } else { to };
    let mut starts = workload.checkers.starts.borrow_mut();
    starts.check_deleted(&viewer, &partition, (floor, least), told.low_watermark);
    Ok(())
}

async fn alter_config(client: &mut Client, topic: &Topic) -> Result<(), CallError> {
    let random = &mut client.random;
    let (name, value) = match random.below(3) {
        0 => ("retention.bytes", random.between(0..=4 << 20)),
        1 => ("retention.ms", random.mostly_small(500..=120_000)),
        _ => ("segment.bytes", random.mostly_small(1 << 20..=8 << 20)),
    };
    let is_set = random.chance(MILLION * 3 / 4);
    let config = AlterableConfig {
        name: Str::from_static(name),
        config_operation: if is_set { SET } else { DELETE },
        value: is_set.then(|| Str::from(value.to_string().as_str())),
    };
    let request = IncrementalAlterConfigsRequest {
        resources: vec![AlterConfigsResource {
            resource_type: TOPIC,
            resource_name: Str::from(&*topic.name),
            configs: vec![config],
        }],
        validate_only: false,
    };
    let answer = client.call(0, |_| request).await?;
    for told in &answer.responses {
        let error = told.error_code;
        promise!(
            error.is_none() || error.is_retriable(),
            "IncrementalAlterConfigs of {}, {name}={value}: {} {:?}",
            topic.name,
            error.name(),
            told.error_message
        );
    }
    Ok(())
}
