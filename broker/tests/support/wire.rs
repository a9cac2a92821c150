//! Kafka's protocol in few words, for tests that know every byte they send.

use std::net::SocketAddr;
use std::ops::ControlFlow;

use bytes::Bytes;
use vltava_client::blocking::{Address, Link};
use vltava_client::error::ClientError;
use vltava_client::records::{for_each_record, next_offset};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::compression::Decompressor;
use vltava_protocol::encode::Records;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use vltava_protocol::messages::delete_topics::DeleteTopicsRequest;
use vltava_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};
use vltava_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, TopicProduceData,
};
use vltava_protocol::types::Str;

/// The last version that names topics by their names.
pub const PRODUCE_VERSION: i16 = 12;
/// See [`PRODUCE_VERSION`].
pub const FETCH_VERSION: i16 = 12;

/// A connection to a broker.
pub fn connect(address: SocketAddr) -> Result<Link, ClientError> {
    let address = Address { host: address.ip().to_string(), port: address.port() };
    Link::open(&address, &Str::from("vltava-test"))
}

/// A request that makes a topic of one replica.
pub fn create_topic_request(
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> CreateTopicsRequest {
    let config = |(name, value): &(&str, &str)| CreatableTopicConfig {
        name: Str::from(*name),
        value: Some(Str::from(*value)),
    };
    let topic = CreatableTopic {
        name: Str::from(name),
        num_partitions: partitions,
        replication_factor: 1,
        configs: configs.iter().map(config).collect(),
        ..CreatableTopic::default()
    };
    CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() }
}

/// Makes a topic of one replica.
pub fn create_topic(
    link: &mut Link,
    name: &str,
    partitions: i32,
    configs: &[(&str, &str)],
) -> Result<ErrorCode, ClientError> {
    let answer = link.call(&create_topic_request(name, partitions, configs))?;
    Ok(answer.topics[0].error_code)
}

/// A request that writes one batch.
pub fn produce_request(topic: &str, partition: i32, acks: i16, batch: Bytes) -> ProduceRequest {
    let data = PartitionProduceData { index: partition, records: Some(Records::from(batch)) };
    let data = TopicProduceData {
        name: Str::from(topic),
        partition_data: vec![data],
        ..TopicProduceData::default()
    };
    ProduceRequest { acks, timeout_ms: 30_000, topic_data: vec![data], ..ProduceRequest::default() }
}

/// Writes a batch and waits for the answer to it.
pub fn produce(
    link: &mut Link,
    topic: &str,
    partition: i32,
    batch: Bytes,
) -> Result<PartitionProduceResponse, ClientError> {
    link.send_at(&produce_request(topic, partition, -1, batch), PRODUCE_VERSION)?;
    let mut answer = link.receive::<ProduceRequest>()?;
    Ok(answer.responses.remove(0).partition_responses.remove(0))
}

/// Deletes a topic.
pub fn delete_topic(link: &mut Link, name: &str) -> Result<ErrorCode, ClientError> {
    let request = DeleteTopicsRequest {
        topic_names: vec![Str::from(name)],
        timeout_ms: 30_000,
        ..DeleteTopicsRequest::default()
    };
    link.send_at(&request, 5)?;
    let answer = link.receive::<DeleteTopicsRequest>()?;
    Ok(answer.responses[0].error_code)
}

/// A batch of records without keys.
pub fn batch(values: &[&[u8]]) -> Bytes {
    let mut builder = BatchBuilder::new();
    for value in values {
        builder.append(1_600_000_000_000, None, Some(value), &[]).expect("a small record");
    }
    Bytes::from(builder.build())
}

/// A request that reads a partition from an offset.
pub fn fetch_request(topic: &str, partition: i32, offset: i64) -> FetchRequest {
    let asked = FetchPartition {
        partition,
        fetch_offset: offset,
        current_leader_epoch: -1,
        partition_max_bytes: 4 << 20,
        ..FetchPartition::default()
    };
    let topic =
        FetchTopic { topic: Str::from(topic), partitions: vec![asked], ..FetchTopic::default() };
    FetchRequest { max_wait_ms: 500, min_bytes: 1, topics: vec![topic], ..FetchRequest::default() }
}

/// Fetches once from an offset.
pub fn fetch(
    link: &mut Link,
    topic: &str,
    partition: i32,
    offset: i64,
) -> Result<PartitionData, ClientError> {
    link.send_at(&fetch_request(topic, partition, offset), FETCH_VERSION)?;
    let mut answer = link.receive::<FetchRequest>()?;
    Ok(answer.responses.remove(0).partitions.remove(0))
}

/// All records of a partition: offsets and values.
pub fn read_all(
    link: &mut Link,
    topic: &str,
    partition: i32,
) -> Result<Vec<(i64, Vec<u8>)>, ClientError> {
    let mut records = Vec::new();
    read_on(link, topic, partition, &mut records)?;
    Ok(records)
}

/// The records of a partition behind those that were read, to its present end: offsets and values.
/// What was read before an error stays; a partition that does not answer yet gives nothing.
pub fn read_on(
    link: &mut Link,
    topic: &str,
    partition: i32,
    records: &mut Vec<(i64, Vec<u8>)>,
) -> Result<(), ClientError> {
    let mut offset = records.last().map_or(0, |(last, _)| last + 1);
    let mut decompressor = Decompressor::new();
    loop {
        let data = fetch(link, topic, partition, offset)?;
        if data.error_code.is_retriable() {
            return Ok(());
        }
        assert!(data.error_code.is_none(), "{topic}-{partition}: {:?}", data.error_code);
        let bytes = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
        let Some(next) = next_offset(&bytes) else {
            // A new leader may not know yet how much its predecessor has shown.
            assert!(offset >= data.high_watermark, "{topic}-{partition} ends early, at {offset}");
            return Ok(());
        };
        let read = for_each_record(&bytes, offset, &mut decompressor, |record| {
            records.push((record.offset, record.value.unwrap_or_default().to_vec()));
            ControlFlow::Continue(())
        });
        let _to_the_end = read.expect("records that can be read");
        offset = next;
        // Beyond it a fetch would wait for more.
        if offset == data.high_watermark {
            return Ok(());
        }
    }
}
