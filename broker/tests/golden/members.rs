//! Two of the three nodes of a cluster, as a kill of all left them, with the votes and the epochs
//! of several leaders: today's release opens both, and the majority that they are serves what was
//! acknowledged.

use std::net::SocketAddr;

use bytes::Bytes;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use vltava_protocol::types::Str;

use crate::directory::{copy, golden, keep};
use crate::is_making_directories;
use crate::nodes::{Nodes, Place};
use crate::support::wire;
use crate::view::{
    await_agreement, await_leader, connect, create_topic, leader_of, metadata_of_any, until,
};

const TOPIC: &str = "orders";
const PARTITIONS: i32 = 2;
const OFFSETS: &str = "__consumer_offsets";
const GROUP: &str = "billing";
/// Each begins with a leader that is killed, but for the first.
const ROUNDS: i32 = 3;
/// The nodes whose directories are kept: a majority.
const KEPT: [i32; 2] = [1, 2];
/// The producer of each partition is the first, or the second, that the cluster gave an id.
const IDS: i64 = 0;
/// The last versions that name one group, and topics by their names.
const FIND_VERSION: i16 = 2;
const COMMIT_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 7;

/// A round's batch of a partition: one record.
fn batch(partition: i32, round: i32) -> Bytes {
    let mut builder = BatchBuilder::new().producer(IDS + i64::from(partition), 0, round);
    builder.append(1_700_000_000_000, None, Some(&value(partition, round)), &[]).unwrap();
    Bytes::from(builder.build())
}

fn value(partition: i32, round: i32) -> Vec<u8> {
    format!("{TOPIC}-{partition}, round {round}").into_bytes()
}

/// Writes until it is acknowledged, which may be for the second time; returns where.
fn produce(addresses: &[SocketAddr], partition: i32, round: i32) -> i64 {
    until("a batch is not acknowledged", || {
        let mut link = connect(leader_of(addresses, TOPIC, partition)?).ok()?;
        let answer = wire::produce(&mut link, TOPIC, partition, batch(partition, round)).ok()?;
        let error = answer.error_code;
        assert!(error.is_none() || error.is_retriable(), "{error:?}");
        error.is_none().then_some(answer.base_offset)
    })
}

/// A connection to the group's coordinator.
fn coordinator(addresses: &[SocketAddr]) -> Option<vltava_client::blocking::Link> {
    let request = FindCoordinatorRequest { key: Str::from_static(GROUP), ..Default::default() };
    let mut link = addresses.iter().find_map(|address| connect(*address).ok())?;
    link.send_at(&request, FIND_VERSION).ok()?;
    let answer = link.receive::<FindCoordinatorRequest>().ok()?;
    let metadata = metadata_of_any(addresses)?;
    let broker = metadata.brokers.get(&answer.node_id).filter(|_| answer.error_code.is_none())?;
    connect(format!("{}:{}", broker.host, broker.port).parse().ok()?).ok()
}

fn commit(addresses: &[SocketAddr], offset: i64) {
    let partition = OffsetCommitRequestPartition { committed_offset: offset, ..Default::default() };
    let topic = OffsetCommitRequestTopic {
        name: Str::from_static(TOPIC),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: Str::from_static(GROUP),
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    until("an offset is not committed", || {
        let mut link = coordinator(addresses)?;
        link.send_at(&request, COMMIT_VERSION).ok()?;
        let answer = link.receive::<OffsetCommitRequest>().ok()?;
        answer.topics[0].partitions[0].error_code.is_none().then_some(())
    });
}

fn committed(addresses: &[SocketAddr]) -> i64 {
    let topic =
        OffsetFetchRequestTopic { name: Str::from_static(TOPIC), partition_indexes: vec![0] };
    let request = OffsetFetchRequest {
        group_id: Str::from_static(GROUP),
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    };
    until("nobody says what is committed", || {
        let mut link = coordinator(addresses)?;
        link.send_at(&request, FETCH_VERSION).ok()?;
        let answer = link.receive::<OffsetFetchRequest>().ok()?;
        answer.error_code.is_none().then(|| answer.topics[0].partitions[0].committed_offset)
    })
}

fn write() {
    let mut nodes = Nodes::start_with(&[("offsets.topic.num.partitions", "1")]);
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    for partition in 0..PARTITIONS {
        let given = until("a producer gets no id", || {
            connect(addresses[0]).ok()?.call(&InitProducerIdRequest::default()).ok()
        });
        // One shard after the other may have a block of its own: connections choose.
        assert!(given.error_code.is_none() && given.producer_id >= 0, "{partition}: {given:?}");
    }
    for round in 0..ROUNDS {
        if round > 0 {
            let leader = await_leader(&addresses, TOPIC, 0, |_| true);
            nodes.kill(leader);
            await_leader(&nodes.others(leader), TOPIC, 0, |other| other != leader);
            nodes.node(leader).run();
        }
        for partition in 0..PARTITIONS {
            assert_eq!(produce(&addresses, partition, round), i64::from(round));
        }
        commit(&addresses, i64::from(round) + 1);
        await_agreement(&addresses, &[TOPIC, OFFSETS]);
    }
    nodes.kill_all();
    for node in KEPT {
        keep(&nodes.node(node).data.clone(), &format!("member-{node}"));
    }
}

#[test]
fn two_members_of_a_cluster_that_was_killed() {
    if is_making_directories() {
        write();
    }
    let mut nodes = Nodes::places(&[], |node, directory| {
        let place = Place::local(node, directory);
        if KEPT.contains(&node) {
            copy(&golden(&format!("member-{node}")), &place.data);
        }
        place
    });
    nodes.run(&KEPT);
    let addresses = KEPT.map(|node| nodes.address(node));
    for partition in 0..PARTITIONS {
        let expected = |rounds| -> Vec<_> {
            (0..rounds).map(|round| (i64::from(round), value(partition, round))).collect()
        };
        let read = || {
            until("a partition has no leader", || {
                let mut link = connect(leader_of(&addresses, TOPIC, partition)?).ok()?;
                wire::read_all(&mut link, TOPIC, partition).ok().filter(|all| !all.is_empty())
            })
        };
        assert_eq!(read(), expected(ROUNDS), "partition {partition}");
        // What was acknowledged is known, and the next one fits.
        for round in [0, ROUNDS - 1, ROUNDS] {
            assert_eq!(produce(&addresses, partition, round), i64::from(round));
        }
        assert_eq!(read(), expected(ROUNDS + 1), "partition {partition}");
    }
    assert_eq!(committed(&addresses), i64::from(ROUNDS));
    nodes.stop();
}
