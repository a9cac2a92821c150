//! Replication throttles: a partition moves as slowly as they say, and who writes to it notices
//! nothing.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes};
use crate::producer::Random;
use crate::reassign::begin;
use crate::support::wire;
use crate::view::{
    PATIENCE, await_leader, await_replicas, connect, create_topic_with, leader_of, partition, until,
};

const TOPIC: &str = "throttled";
const RECORDS: usize = 128;
const RECORD_BYTES: usize = 64 << 10;
const BYTES_PER_S: usize = 2 << 20;

const TOPIC_RESOURCE: i8 = 2;
const NODE_RESOURCE: i8 = 4;
pub const LEADER_RATE: &str = "leader.replication.throttled.rate";
const FOLLOWER_RATE: &str = "follower.replication.throttled.rate";

/// Sets, or (`None`) takes back.
fn set(address: SocketAddr, kind: i8, resource: &str, name: &str, value: Option<&str>) {
    let config = AlterableConfig {
        name: Str::from(name),
        config_operation: i8::from(value.is_none()),
        value: value.map(Str::from),
    };
    let resource = AlterConfigsResource {
        resource_type: kind,
        resource_name: Str::from(resource),
        configs: vec![config],
    };
    let request =
        IncrementalAlterConfigsRequest { resources: vec![resource], validate_only: false };
    let answer = connect(address).expect("a connection").call(&request).expect("an answer");
    assert_eq!(answer.responses[0].error_code, ErrorCode::NONE, "{:?}", answer.responses[0]);
}

/// What a node says of a rate: value and source.
fn described(address: SocketAddr, node: i32, name: &str) -> Option<(String, i8)> {
    let resource = DescribeConfigsResource {
        resource_type: NODE_RESOURCE,
        resource_name: Str::from(node.to_string()),
        configuration_keys: Some(vec![Str::from(name)]),
    };
    let request = DescribeConfigsRequest { resources: vec![resource], ..<_>::default() };
    let answer = connect(address).expect("a connection").call(&request).expect("an answer");
    let entry = answer.results[0].configs.first()?;
    Some((entry.value.as_ref()?.to_string(), entry.config_source))
}

/// Waits until a node says so of a rate.
pub fn await_described(address: SocketAddr, node: i32, name: &str, wanted: Option<(String, i8)>) {
    until("a rate is described otherwise", || {
        (described(address, node, name) == wanted).then_some(())
    });
}

/// Writes one record; how long that took.
fn write(addresses: &[SocketAddr], value: &[u8]) -> Duration {
    let began = Instant::now();
    until("nothing is written", || {
        let mut link = connect(leader_of(addresses, TOPIC, 0)?).ok()?;
        link.answer_within(PATIENCE).ok()?;
        let answer = wire::produce(&mut link, TOPIC, 0, wire::batch(&[value])).ok()?;
        answer.error_code.is_none().then_some(())
    });
    began.elapsed()
}

#[test]
fn a_partition_moves_as_slowly_as_throttles_say_while_it_is_written_to() {
    let mut random = Random(7);
    let nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 1, 2, &[]);
    let leader = await_leader(&addresses, TOPIC, 0, |_| true);
    for _ in 0..RECORDS {
        let value: Vec<u8> = (0..RECORD_BYTES).map(|_| random.below(256) as u8).collect();
        write(&addresses, &value);
    }
    let before = partition(&addresses, TOPIC, 0).expect("somebody answers").replicas;
    let comes = NODES.into_iter().find(|node| !before.contains(node)).expect("a third");
    let expected = Duration::from_secs_f64((RECORDS * RECORD_BYTES) as f64 / BYTES_PER_S as f64);

    for (rate, list, listed) in [
        (LEADER_RATE, "leader.replication.throttled.replicas", leader),
        (FOLLOWER_RATE, "follower.replication.throttled.replicas", comes),
    ] {
        let value = BYTES_PER_S.to_string();
        set(addresses[1], NODE_RESOURCE, &listed.to_string(), rate, Some(&value));
        set(addresses[2], TOPIC_RESOURCE, TOPIC, list, Some(&format!("0:{listed}")));
        await_described(addresses[0], listed, rate, Some((value, 2)));

        let began = Instant::now();
        let target = vec![leader, comes];
        begin(addresses[0], TOPIC, &[(0, Some(target.clone()))].into());
        let mut slowest = Duration::ZERO;
        until("it does not end", || {
            slowest = slowest.max(write(&addresses, b"meanwhile"));
            let said = partition(&addresses, TOPIC, 0)?;
            let is_there = said.replicas == target && said.in_sync.len() == 2;
            is_there.then_some(())
        });
        let took = began.elapsed();
        println!("{rate}: {took:?}, the slowest write {slowest:?}");
        assert!(took > expected.mul_f64(0.9), "{took:?}, expected {expected:?}");
        assert!(took < expected.mul_f64(2.0), "{took:?}, expected {expected:?}");
        assert!(slowest < expected / 4, "a write waited: {slowest:?}");

        // Taken back, nothing holds it.
        set(addresses[0], NODE_RESOURCE, &listed.to_string(), rate, None);
        await_described(addresses[0], listed, rate, None);
        set(addresses[0], TOPIC_RESOURCE, TOPIC, list, None);
        let began = Instant::now();
        let back = before.clone();
        begin(addresses[0], TOPIC, &[(0, Some(back.clone()))].into());
        await_replicas(&addresses, TOPIC, 0, &back);
        assert!(began.elapsed() < expected / 2, "{:?}", began.elapsed());
        await_leader(&addresses, TOPIC, 0, |_| true);
    }
    nodes.stop();
}
