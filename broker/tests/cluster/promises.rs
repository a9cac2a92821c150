//! What produce and fetch promise with several replicas, as clients are told it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vltava_client::blocking::Link;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_records::{
    DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic,
};
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes};
use crate::support::mounts::free_bytes;
use crate::support::wire;
use crate::view::{
    PATIENCE, await_partition, connect, create_topic_with, leader_of, partition, until,
};

pub const TOPIC: &str = "promised";

/// Resources with settings, as Kafka numbers and names them.
const OF_TOPIC: (i8, &str) = (2, TOPIC);
const OF_ALL_NODES: (i8, &str) = (4, "");

/// A connection to who leads, and its number.
pub fn leader(nodes: &Nodes) -> (i32, Link) {
    until("nobody leads", || {
        let address = leader_of(&nodes.addresses(), TOPIC, 0)?;
        let found = nodes.by_number().into_iter().find(|(_, it)| *it == address)?;
        Some((found.0, connect(address).ok()?))
    })
}

pub fn write(link: &mut Link, acks: i16, timeout_ms: i32) -> ErrorCode {
    write_value(link, acks, timeout_ms, b"a value")
}

fn write_value(link: &mut Link, acks: i16, timeout_ms: i32, value: &[u8]) -> ErrorCode {
    let mut request = wire::produce_request(TOPIC, 0, acks, wire::batch(&[value]));
    request.timeout_ms = timeout_ms;
    link.send_at(&request, wire::PRODUCE_VERSION).expect("it is sent");
    let answer = link.receive::<ProduceRequest>().expect("an answer");
    answer.responses[0].partition_responses[0].error_code
}

/// Sets it for the topic, or for all nodes; without a value: takes it back.
fn set_min_insync_replicas(address: SocketAddr, resource: (i8, &str), value: Option<&str>) {
    const DELETE: i8 = 1;
    let config = AlterableConfig {
        name: Str::from("min.insync.replicas"),
        config_operation: if value.is_none() { DELETE } else { 0 },
        value: value.map(Str::from),
    };
    let resource = AlterConfigsResource {
        resource_type: resource.0,
        resource_name: Str::from(resource.1),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], ..Default::default() };
    until("a setting is not taken", || {
        let answer = connect(address).ok()?.call(&request).ok()?;
        answer.responses[0].error_code.is_none().then_some(())
    });
}

const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// The first offset, or the one behind the last, as one node has it.
fn offset_at(address: SocketAddr, timestamp: i64) -> Option<i64> {
    let asked = ListOffsetsPartition { timestamp, ..ListOffsetsPartition::default() };
    let topic = ListOffsetsTopic { name: Str::from(TOPIC), partitions: vec![asked] };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    let answer = connect(address).ok()?.call(&request).ok()?;
    let partition = &answer.topics[0].partitions[0];
    partition.error_code.is_none().then_some(partition.offset)
}

#[test]
fn too_few_replicas_in_sync_and_a_log_that_begins_later() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 1, 3, &[("min.insync.replicas", "3")]);
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    let (number, mut link) = leader(&nodes);
    assert_eq!(write(&mut link, -1, 30_000), ErrorCode::NONE);
    let down = NODES.into_iter().find(|node| *node != number).expect("another");
    nodes.kill(down);
    let up = nodes.others(down);
    await_partition(&up, TOPIC, 0, |it| it.in_sync.len() == 2 && !it.in_sync.contains(&down));
    assert_eq!(write(&mut link, -1, 30_000), ErrorCode::NOT_ENOUGH_REPLICAS);
    assert_eq!(write(&mut link, 1, 30_000), ErrorCode::NONE);
    set_min_insync_replicas(up[0], OF_TOPIC, Some("2"));
    let mut becomes = |error| {
        until("another setting has no effect", || {
            (write(&mut link, -1, 30_000) == error).then_some(())
        });
    };
    becomes(ErrorCode::NONE);
    // Without one of its own that of all nodes counts, also as it changes.
    set_min_insync_replicas(up[0], OF_ALL_NODES, Some("3"));
    becomes(ErrorCode::NONE);
    set_min_insync_replicas(up[0], OF_TOPIC, None);
    becomes(ErrorCode::NOT_ENOUGH_REPLICAS);
    set_min_insync_replicas(up[0], OF_ALL_NODES, None);
    becomes(ErrorCode::NONE);
    delete_records_to(&mut link, 2);
    nodes.run_all();
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    // Whoever leads next begins there, too: also the one that was away.
    for _ in 0..2 {
        let (number, _) = leader(&nodes);
        nodes.kill(number);
        let up = nodes.others(number);
        let found = until("nobody says where the log begins", || {
            let address = leader_of(&up, TOPIC, 0).filter(|it| *it != nodes.address(number))?;
            offset_at(address, EARLIEST)
        });
        assert_eq!(found, 2);
        nodes.run_all();
        await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    }
    nodes.stop();
}

/// Batches that are larger than what goes between nodes at once, with each of the acks: all
/// replicas have them, also one that was away.
#[test]
fn large_batches_are_on_all_replicas_whatever_the_acks() {
    const BYTES: [usize; 3] = [1_048_580, 3_000_000, 6_000_000];
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 1, 3, &[("max.message.bytes", "8000000")]);
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    let (number, mut link) = leader(&nodes);
    let away = NODES.into_iter().find(|node| *node != number).expect("another");
    nodes.kill(away);
    for (acks, bytes) in [1, -1].into_iter().zip(BYTES) {
        let written = write_value(&mut link, acks, 30_000, &vec![b'x'; bytes]);
        assert_eq!(written, ErrorCode::NONE, "acks={acks}");
    }
    // This is not answered, and by itself on its connection.
    let value = vec![b'x'; BYTES[2]];
    let request = wire::produce_request(TOPIC, 0, 0, wire::batch(&[&value]));
    let mut unheard = connect(nodes.address(number)).expect("a connection");
    unheard.send_at(&request, wire::PRODUCE_VERSION).expect("it is sent");
    until("what was written without acks is not there", || {
        (offset_at(nodes.address(number), LATEST)? == 3).then_some(())
    });
    nodes.run_all();
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    nodes.kill(number);
    let up = nodes.others(number);
    let end = until("nobody says where the log ends", || {
        let address = leader_of(&up, TOPIC, 0).filter(|it| *it != nodes.address(number))?;
        offset_at(address, LATEST)
    });
    assert_eq!(end, 3);
    nodes.run_all();
    nodes.stop();
}

/// A follower stands still under a write that all are to have: who waits is told so as the set
/// shrinks, who comes later is refused before anything is written, and what was written is there.
#[test]
fn a_follower_stands_still_under_a_write_that_all_are_to_have() {
    const TIMEOUT_MS: i32 = 50_000;
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 1, 3, &[("min.insync.replicas", "3")]);
    // As the leader knows: whoever stood still has not heard yet that somebody was missed.
    let all = |nodes: &Nodes| {
        let (number, _) = leader(nodes);
        await_partition(&[nodes.address(number)], TOPIC, 0, |it| it.in_sync.len() == 3);
    };
    all(&nodes);
    let mut written = 0;
    // The machine may be so busy that a write comes when the set has shrunk already.
    let (paused, up, mut link) = (0..20)
        .find_map(|_| {
            let (number, mut link) = leader(&nodes);
            link.answer_within(PATIENCE).expect("a timeout");
            assert_eq!(write(&mut link, -1, TIMEOUT_MS), ErrorCode::NONE);
            let paused = NODES.into_iter().find(|node| *node != number).expect("another");
            nodes.pause(paused);
            let began = Instant::now();
            let told = write(&mut link, -1, TIMEOUT_MS);
            let time = began.elapsed();
            written += 1;
            if told == ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND {
                assert!(time < Duration::from_secs(10), "told after {time:?}");
                written += 1;
                return Some((paused, nodes.others(paused), link));
            }
            assert_eq!(told, ErrorCode::NOT_ENOUGH_REPLICAS, "after {time:?}");
            nodes.resume(paused);
            all(&nodes);
            None
        })
        .expect("each write comes too late to wait");
    await_partition(&up, TOPIC, 0, |it| it.in_sync.len() == 2 && !it.in_sync.contains(&paused));
    assert_eq!(write(&mut link, -1, TIMEOUT_MS), ErrorCode::NOT_ENOUGH_REPLICAS);
    assert_eq!(write(&mut link, 1, TIMEOUT_MS), ErrorCode::NONE);
    written += 1;
    nodes.resume(paused);
    all(&nodes);
    assert_eq!(write(&mut leader(&nodes).1, -1, TIMEOUT_MS), ErrorCode::NONE);
    written += 1;
    let found = wire::read_all(&mut leader(&nodes).1, TOPIC, 0).expect("records");
    assert_eq!(found.len(), written, "what was refused before it was written is not there");
    nodes.stop();
}

fn delete_records_to(link: &mut Link, offset: i64) {
    let asked = DeleteRecordsPartition { partition_index: 0, offset };
    let topic = DeleteRecordsTopic { name: Str::from(TOPIC), partitions: vec![asked] };
    let request = DeleteRecordsRequest { topics: vec![topic], timeout_ms: 30_000 };
    let answer = link.call(&request).expect("an answer");
    let partition = &answer.topics[0].partitions[0];
    assert_eq!((partition.error_code, partition.low_watermark), (ErrorCode::NONE, offset));
}

#[test]
fn who_has_no_room_lets_others_lead() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 6, 3, &[]);
    for number in 0..6 {
        await_partition(&addresses, TOPIC, number, |it| it.in_sync.len() == 3);
    }
    // More than there is, and less than twice as much: what a leader sends is still taken.
    let free = free_bytes(&nodes.directory);
    let reserve = (free + free / 2).to_string();
    for node in [1, 2] {
        nodes.restart_with(node, &[("disk.reserve.bytes", &reserve)]);
    }
    for number in 0..6 {
        until("it is not written where there is room", || {
            partition(&addresses, TOPIC, number).filter(|it| it.leader == Some(3))?;
            let mut link = connect(nodes.address(3)).ok()?;
            let answer = wire::produce(&mut link, TOPIC, number, wire::batch(&[b"a value"]));
            answer.ok()?.error_code.is_none().then_some(())
        });
    }
    nodes.stop();
}
