//! Reading: consumers without a group, and the reading of everything at the end.

use std::collections::BTreeMap;
use std::rc::Rc;

use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchTopic, FetchableTopicResponse, PartitionData,
};
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::types::{Str, Uuid};

use super::{RETRY, Topic, Workload, records};
use crate::checkers::{Partition, RecordId, violation};
use crate::client::{CallError, Client};
use crate::promise;

/// Fetch names topics by id from this version on.
const BY_ID: i16 = 13;
/// `ListOffsets` for the end of what is committed.
const LATEST: i64 = -1;

/// What one fetch gave for a partition.
pub struct Fetched {
    /// Which.
    pub partition: Partition,
    /// The records, with their offsets.
    pub records: Vec<(i64, RecordId)>,
    /// Where to read next.
    pub next: i64,
    /// What was committed.
    pub high_watermark: i64,
}

/// Fetches from partitions of one topic at these positions; checks all that comes.
pub async fn fetch(
    workload: &Workload,
    client: &mut Client,
    topic: &Topic,
    positions: &BTreeMap<i32, i64>,
) -> Result<Vec<Fetched>, CallError> {
    let random = &mut client.random;
    let bytes_max = i32::try_from(random.mostly_small(1..=1 << 20)).unwrap_or(1);
    let max_wait_ms = i32::try_from(random.mostly_small(0..=2000)).unwrap_or(0);
    let min_bytes = i32::try_from(random.mostly_small(0..=4096)).unwrap_or(0);
    let floors: BTreeMap<i32, i64> = {
        let offsets = workload.checkers.offsets.borrow();
        let floors = positions.keys();
        let floors = floors.map(|&index| (index, offsets.high_watermark(&key(topic, index))));
        floors.collect()
    };
    let partitions = positions.iter().map(|(&partition, &fetch_offset)| FetchPartition {
        partition,
        fetch_offset,
        partition_max_bytes: bytes_max,
        ..FetchPartition::default()
    });
    let partitions: Vec<FetchPartition> = partitions.collect();
    let (_, least) = workload.swarm.least_versions();
    let make = |version| FetchRequest {
        max_wait_ms,
        min_bytes,
        max_bytes: bytes_max,
        topics: vec![FetchTopic {
            topic: match version < BY_ID {
                true => Str::from(&*topic.name),
                false => Str::EMPTY,
            },
            topic_id: match version < BY_ID {
                true => Uuid::ZERO,
                false => topic.id.get(),
            },
            partitions,
        }],
        ..FetchRequest::default()
    };
    let answer = client.call(least, make).await?;
    let error = answer.error_code;
    promise!(error.is_none() || error.is_retriable(), "{}: Fetch: {}", client.name, error.name());
    let data = answer.responses.iter().flat_map(|topic: &FetchableTopicResponse| &topic.partitions);
    let taken = data.filter_map(|data| {
        let position = positions.get(&data.partition_index);
        let Some(&position) = position else {
            violation(format!("{}: a partition that was not asked for", client.name))
        };
        let partition = key(topic, data.partition_index);
        take_partition(workload, &partition, position, floors[&data.partition_index], data)
    });
    Ok(taken.collect())
}

fn key(topic: &Topic, index: i32) -> Partition {
    (Rc::clone(&topic.name), index)
}

fn take_partition(
    workload: &Workload,
    partition: &Partition,
    position: i64,
    floor: i64,
    data: &PartitionData,
) -> Option<Fetched> {
    let error = data.error_code;
    if !error.is_none() {
        promise!(
            error.is_retriable() && error != ErrorCode::OFFSET_OUT_OF_RANGE,
            "Fetch of {partition:?}@{position}: {}",
            error.name()
        );
        return None;
    }
    let checkers = &workload.checkers;
    let told = data.high_watermark;
    checkers.offsets.borrow_mut().check_high_watermark(partition, floor, told);
    let records = data.records.as_ref().and_then(|records| records.to_bytes());
    let bytes = records.unwrap_or_default();
    let (records, next) = records::take_in(checkers, partition, position, told, &bytes);
    Some(Fetched { partition: partition.clone(), records, next, high_watermark: told })
}

/// Reads a random topic again and again, each time from its start, until the run is to end.
pub async fn consume(workload: &Workload, mut client: Client) {
    while !workload.is_finishing() {
        let topic = &workload.topics[client.random.index(workload.topics.len())];
        let mut positions: BTreeMap<i32, i64> = (0..topic.partitions).map(|p| (p, 0)).collect();
        for _ in 0..client.random.mostly_small(1..=50) {
            match fetch(workload, &mut client, topic, &positions).await {
                Ok(fetched) => {
                    for fetched in fetched {
                        positions.insert(fetched.partition.1, fetched.next);
                    }
                }
                Err(_) => client.pause(RETRY).await,
            }
            if client.random.chance(MILLION / 4) {
                client.pause(workload.swarm.think_max).await;
            }
            if workload.is_finishing() {
                return;
            }
        }
        // What it says may be older than the answers of other clients that come before it.
        let _ = list_end(workload, &mut client, topic).await;
    }
}

/// Asks for the ends of all partitions of a topic; `None` for those that cannot say now.
async fn list_end(
    workload: &Workload,
    client: &mut Client,
    topic: &Topic,
) -> Result<BTreeMap<i32, Option<i64>>, CallError> {
    let floors: BTreeMap<Partition, i64> = {
        let offsets = workload.checkers.offsets.borrow();
        let all = topic.all();
        all.map(|partition| {
            let floor = offsets.high_watermark(&partition);
            (partition, floor)
        })
        .collect()
    };
    let partitions = (0..topic.partitions).map(|partition_index| ListOffsetsPartition {
        partition_index,
        timestamp: LATEST,
        ..ListOffsetsPartition::default()
    });
    let partitions: Vec<ListOffsetsPartition> = partitions.collect();
    let make = |_version| ListOffsetsRequest {
        replica_id: -1,
        topics: vec![ListOffsetsTopic { name: Str::from(&*topic.name), partitions }],
        ..ListOffsetsRequest::default()
    };
    let answer = client.call(1, make).await?;
    let mut ends = BTreeMap::new();
    for told in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        let (index, error) = (told.partition_index, told.error_code);
        let partition = key(topic, index);
        promise!(
            error.is_none() || error.is_retriable(),
            "ListOffsets of {partition:?}: {}",
            error.name()
        );
        let Some(&floor) = floors.get(&partition) else {
            violation(format!("ListOffsets tells of {partition:?}, unasked"))
        };
        if error.is_none() {
            let mut offsets = workload.checkers.offsets.borrow_mut();
            offsets.check_high_watermark(&partition, floor, told.offset);
        }
        ends.insert(index, error.is_none().then_some(told.offset));
    }
    Ok(ends)
}

/// The whole of each partition: offsets and records.
pub type ReadThrough = BTreeMap<Partition, Vec<(i64, RecordId)>>;

/// Reads every partition from its start to its end, however long it takes.
pub async fn read_through(workload: &Workload, client: &mut Client) -> ReadThrough {
    let mut whole = ReadThrough::new();
    for topic in workload.topics.iter() {
        let ends = loop {
            let ends = list_end(workload, client, topic).await.unwrap_or_default();
            let known: BTreeMap<i32, i64> =
                ends.iter().filter_map(|(&index, &end)| Some((index, end?))).collect();
            if known.len() == topic.partitions.unsigned_abs() as usize {
                break known;
            }
            client.pause(RETRY).await;
        };
        whole.extend(topic.all().map(|partition| (partition, Vec::new())));
        let mut positions: BTreeMap<i32, i64> = (0..topic.partitions).map(|p| (p, 0)).collect();
        loop {
            positions.retain(|index, position| *position < ends[index]);
            if positions.is_empty() {
                break;
            }
            let Ok(fetched) = fetch(workload, client, topic, &positions).await else {
                client.pause(RETRY).await;
                continue;
            };
            if fetched.is_empty() {
                client.pause(RETRY).await;
            }
            for fetched in fetched {
                positions.insert(fetched.partition.1, fetched.next);
                whole.entry(fetched.partition).or_default().extend(fetched.records);
            }
        }
    }
    whole
}
