//! Every API in every version that ApiVersions names, against a real process: answers are decoded
//! to their last byte, written again to the same bytes, and checked.
//!
//! The same requests can be sent to a Kafka 4.4 too, by hand, and the answers compared:
//! `APIS_KAFKA=127.0.0.1:9092 cargo test -p vltava --test apis -- --ignored`. What differs on
//! purpose stands in `docs/differences-from-kafka.md` and is left out of the comparison where it
//! would show.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a test fails by panicking, and its numbers are small"
)]

#[path = "apis/admin.rs"]
mod admin;
#[path = "apis/cluster.rs"]
mod cluster;
#[path = "apis/groups.rs"]
mod groups;
#[path = "apis/order.rs"]
mod order;
#[path = "apis/records.rs"]
mod records;
#[path = "apis/reload.rs"]
mod reload;
#[path = "apis/replicas.rs"]
mod replicas;
mod support;
#[path = "apis/talk.rs"]
mod talk;

use std::net::SocketAddr;

use crate::support::{Broker, Options, free_port};
use crate::talk::{Noted, Talk, differences};

/// Sends everything there is to a broker, and returns what it answered.
fn everything(address: SocketAddr) -> Vec<Noted> {
    let mut talk = Talk::new(address);
    cluster::ask(&mut talk);
    admin::ask(&mut talk);
    records::ask(&mut talk);
    groups::ask(&mut talk);
    replicas::ask(&mut talk);
    talk.finish()
}

fn start(shards: usize) -> Broker {
    Broker::start(Options { shards, ..Options::default() })
}

fn every_version_is_answered(shards: usize) {
    every_version_is_answered_by(start(shards));
}

fn every_version_is_answered_by(mut broker: Broker) {
    everything(broker.address);
    assert!(broker.stop().success());
    assert!(!broker.said().contains("panicked"), "{}", broker.said());
}

#[test]
fn every_version_of_every_api_is_answered_by_one_shard() {
    every_version_is_answered(1);
}

#[test]
fn every_version_of_every_api_is_answered_by_two_shards() {
    every_version_is_answered(2);
}

#[test]
fn every_version_of_every_api_is_answered_by_five_shards() {
    every_version_is_answered(5);
}

/// One that others may join: it forms a cluster by itself, and listens for them.
#[test]
fn every_version_of_every_api_is_answered_by_a_cluster_of_one() {
    let mut options = Options::default();
    let peers = format!("1@127.0.0.1:{}", free_port());
    options.settings.extend([("node.id", "1".to_owned()), ("peers", peers)]);
    every_version_is_answered_by(Broker::start(options));
}

#[test]
#[ignore = "by hand, with a Kafka 4.4 that APIS_KAFKA names"]
fn a_kafka_answers_the_same() {
    let kafka = std::env::var("APIS_KAFKA").expect("APIS_KAFKA=host:port");
    let theirs = everything(kafka.parse().expect("host:port"));
    let broker = start(2);
    let ours = everything(broker.address);
    let found = differences(&ours, &theirs);
    assert!(found.is_empty(), "{}", found.join("\n"));
}
