//! What a cluster says of itself to its clients, and waits until it says what is wanted.
#![allow(dead_code, reason = "each test uses its part of this")]

use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use vltava_client::blocking::{Address, Link};
use vltava_client::error::ClientError;
use vltava_client::metadata::{Metadata, Partition, Topic};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

use crate::support::wire;

/// Nothing that a majority can do should take longer, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A node that is paused or cut off does not keep a client waiting.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Nor does it keep one who connects.
const CONNECT_TIME: Duration = Duration::from_secs(1);

/// A connection to a node.
pub fn connect(address: SocketAddr) -> Result<Link, ClientError> {
    let address = Address { host: address.ip().to_string(), port: address.port() };
    let mut link = Link::open_within(&address, &Str::from("vltava-test"), CONNECT_TIME)?;
    link.answer_within(ANSWER_TIME)?;
    Ok(link)
}

/// What one node says of all topics.
pub fn metadata(address: SocketAddr) -> Result<Metadata, ClientError> {
    let mut metadata = Metadata::default();
    metadata.update(connect(address)?.call(&Metadata::request(None, false))?);
    Ok(metadata)
}

/// What the first node that answers says of all topics.
pub fn metadata_of_any(addresses: &[SocketAddr]) -> Option<Metadata> {
    addresses.iter().find_map(|address| metadata(*address).ok())
}

/// Where the leader of a partition is, as the first node that answers has it. The caller may turn
/// the addresses: who was restarted a moment ago may know less.
pub fn leader_of(addresses: &[SocketAddr], topic: &str, partition: i32) -> Option<SocketAddr> {
    let metadata = metadata_of_any(addresses)?;
    let leader = metadata.topics.get(&Str::from(topic))?.partitions.get(&partition)?.leader?;
    let broker = metadata.brokers.get(&leader)?;
    format!("{}:{}", broker.host, broker.port).parse().ok()
}

/// Asks again and again, until there is an answer.
pub fn until<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    within(PATIENCE, what, ask)
}

/// As [`until`], for what must not take as long.
pub fn within<T>(bound: Duration, what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + bound;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "after {} s: {what}", bound.as_secs());
        thread::sleep(Duration::from_millis(10));
    }
}

/// Makes a topic with three replicas of each partition, once there is a controller.
pub fn create_topic(address: SocketAddr, name: &str, partitions: i32) {
    create_topic_with(address, name, partitions, 3, &[]);
}

/// Makes a topic, once there is a controller.
pub fn create_topic_with(
    address: SocketAddr,
    name: &str,
    partitions: i32,
    replicas: i16,
    configs: &[(&str, &str)],
) {
    let mut request = wire::create_topic_request(name, partitions, configs);
    request.topics[0].replication_factor = replicas;
    until("a topic is not made", || {
        let mut link = connect(address).ok()?;
        link.answer_within(PATIENCE).ok()?;
        let answer = link.call(&request).ok()?;
        let topic = &answer.topics[0];
        let error = topic.error_code;
        assert!(error.is_none() || error.is_retriable(), "{error:?}: {:?}", topic.error_message);
        error.is_none().then_some(())
    });
}

/// What the first node that answers says of one partition.
pub fn partition(addresses: &[SocketAddr], topic: &str, partition: i32) -> Option<Partition> {
    let metadata = metadata_of_any(addresses)?;
    metadata.topics.get(&Str::from(topic))?.partitions.get(&partition).cloned()
}

/// Waits until somebody says of a partition what is wanted; panics with what was said last.
pub fn await_partition(
    addresses: &[SocketAddr],
    topic: &str,
    number: i32,
    wanted: impl Fn(&Partition) -> bool,
) -> Partition {
    let (mut last, mut turned) = (None, addresses.to_vec());
    let deadline = Instant::now() + PATIENCE;
    loop {
        turned.rotate_left(1);
        if let Some(said) = partition(&turned, topic, number) {
            if wanted(&said) {
                return said;
            }
            last = Some(said);
        }
        assert!(Instant::now() < deadline, "{topic}-{number} does not come to it: {last:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until one of these leads a partition; returns which.
pub fn await_leader(
    addresses: &[SocketAddr],
    topic: &str,
    number: i32,
    among: impl Fn(i32) -> bool,
) -> i32 {
    let leads = |said: &Partition| said.error.is_none() && said.leader.is_some_and(&among);
    let said = await_partition(addresses, topic, number, leads);
    said.leader.expect("that was asked for")
}

/// Waits until exactly these are replicas of a partition, in any order, and all of them have
/// caught up with a leader.
pub fn await_replicas(addresses: &[SocketAddr], topic: &str, number: i32, replicas: &[i32]) {
    let sorted = |nodes: &[i32]| {
        let mut nodes = nodes.to_vec();
        nodes.sort_unstable();
        nodes
    };
    let wanted = sorted(replicas);
    await_partition(addresses, topic, number, |said| {
        let leads = said.leader.is_some_and(|leader| wanted.contains(&leader));
        leads && sorted(&said.replicas) == wanted && sorted(&said.in_sync) == wanted
    });
}

/// Whether all replicas of all partitions are caught up with their leaders.
pub fn is_whole(topic: &Topic) -> bool {
    let is_caught_up = |partition: &Partition| {
        partition.leader.is_some()
            && partition.replicas.iter().all(|node| partition.in_sync.contains(node))
    };
    topic.error == ErrorCode::NONE && topic.partitions.values().all(is_caught_up)
}

/// The same, with what is in sync in one order, which is each release's own.
fn in_order(mut metadata: Metadata) -> Metadata {
    let partitions = metadata.topics.values_mut().flat_map(|topic| topic.partitions.values_mut());
    partitions.for_each(|partition| partition.in_sync.sort_unstable());
    metadata
}

/// Waits until all nodes tell the same of all topics, and each of these topics is whole.
pub fn await_agreement(addresses: &[SocketAddr], topics: &[&str]) -> Metadata {
    let mut last = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let said: Result<Vec<_>, _> =
            addresses.iter().map(|it| metadata(*it).map(in_order)).collect();
        if let Ok(said) = said {
            let whole = |name: &&str| said[0].topics.get(&Str::from(*name)).is_some_and(is_whole);
            if said.iter().all(|it| *it == said[0]) && topics.iter().all(whole) {
                return said[0].clone();
            }
            last = said;
        }
        assert!(Instant::now() < deadline, "the nodes do not come to agree: {last:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}
