//! `ListOffsets`: where logs start and end.

use std::collections::BTreeMap;
use std::rc::Rc;

use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::types::Str;

use super::{Topic, Workload, route};
use crate::checkers::{Partition, violation};
use crate::client::{CallError, Client};
use crate::promise;

/// `ListOffsets` names the leader's epoch from this version on.
const LEADER_EPOCHS: i16 = 4;
/// Asks for the end of what is committed.
const LATEST: i64 = -1;
/// Asks for the log's start.
const EARLIEST: i64 = -2;

/// Asks for the ends of all partitions of a topic; `None` for those that cannot say now.
pub async fn list_end(
    workload: &Workload,
    client: &mut Client,
    topic: &Topic,
) -> Result<BTreeMap<i32, Option<i64>>, CallError> {
    let viewer = topic.viewer(client);
    let floors: BTreeMap<Partition, i64> = {
        let offsets = workload.checkers.offsets.borrow();
        let floors = topic.all().map(|partition| {
            let floor = offsets.floor(&viewer, &partition);
            (partition, floor)
        });
        floors.collect()
    };
    let told = list(client, topic, 0..topic.partitions, LATEST).await?;
    let mut ends = BTreeMap::new();
    for (partition, told) in told {
        let Some(&floor) = floors.get(&partition) else {
            violation(format!("ListOffsets tells of {partition:?}, unasked"))
        };
        if let Some(end) = told {
            let mut offsets = workload.checkers.offsets.borrow_mut();
            offsets.check_high_watermark(&viewer, &partition, floor, end);
        }
        ends.insert(partition.1, told);
    }
    Ok(ends)
}

/// Asks where the log of a partition starts; `None` where it cannot say now.
pub async fn list_start(
    workload: &Workload,
    client: &mut Client,
    topic: &Topic,
    index: i32,
) -> Result<Option<i64>, CallError> {
    let partition = (Rc::clone(&topic.key), index);
    let viewer = topic.viewer(client);
    let floor = workload.checkers.starts.borrow().floor(&viewer, &partition);
    let told = list(client, topic, index..index + 1, EARLIEST).await?;
    let told = told.get(&partition).copied().flatten();
    if let Some(start) = told {
        workload.checkers.starts.borrow_mut().check_told(&viewer, &partition, floor, start);
    }
    Ok(told)
}

async fn list(
    client: &mut Client,
    topic: &Topic,
    indexes: std::ops::Range<i32>,
    timestamp: i64,
) -> Result<BTreeMap<Partition, Option<i64>>, CallError> {
    let mut told = BTreeMap::new();
    for (address, epochs) in route::by_leader(client, topic, indexes).await? {
        let has_epochs = epochs.values().any(|epoch| *epoch >= 0);
        let partitions = epochs.into_iter().map(|(partition_index, current_leader_epoch)| {
            ListOffsetsPartition { partition_index, current_leader_epoch, timestamp }
        });
        let request = ListOffsetsRequest {
            replica_id: -1,
            topics: vec![ListOffsetsTopic {
                name: Str::from(&*topic.name),
                partitions: partitions.collect(),
            }],
            ..ListOffsetsRequest::default()
        };
        let least = if has_epochs { LEADER_EPOCHS } else { 1 };
        let answer = client.call_at(address, least, |_| request).await;
        if answer.is_err() {
            client.forget_leaders();
        }
        for partition in answer?.topics.iter().flat_map(|topic| &topic.partitions) {
            let (partition, offset) = take_in(client, topic, partition);
            told.insert(partition, offset);
        }
    }
    Ok(told)
}

fn take_in(
    client: &mut Client,
    topic: &Topic,
    told: &ListOffsetsPartitionResponse,
) -> (Partition, Option<i64>) {
    let partition = (Rc::clone(&topic.key), told.partition_index);
    let error = told.error_code;
    promise!(
        error.is_none() || error.is_retriable(),
        "ListOffsets of {partition:?}: {}",
        error.name()
    );
    if !error.is_none() {
        client.forget_leader(&partition);
    }
    (partition, error.is_none().then_some(told.offset))
}
