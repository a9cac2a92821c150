//! What a group has committed survives the loss of its coordinator's node.

use std::net::SocketAddr;

use vltava_client::blocking::Link;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes};
use crate::view::{await_agreement, connect, create_topic, until};

const TOPIC: &str = "read";
const OFFSETS: &str = "__consumer_offsets";
/// Enough that each node coordinates one, as a rule.
const GROUPS: [&str; 3] = ["first", "second", "third"];
/// Before it the requests name one group, and topics by name.
const FIND_VERSION: i16 = 2;
const COMMIT_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 7;

/// Who coordinates a group, as the first node that answers has it.
fn coordinator(addresses: &[SocketAddr], group: &str) -> Option<i32> {
    addresses.iter().find_map(|address| {
        let mut link = connect(*address).ok()?;
        let request = FindCoordinatorRequest { key: Str::from(group), ..Default::default() };
        link.send_at(&request, FIND_VERSION).ok()?;
        let answer = link.receive::<FindCoordinatorRequest>().ok()?;
        let error = answer.error_code;
        assert!(error.is_none() || error.is_retriable(), "FindCoordinator: {error:?}");
        error.is_none().then_some(answer.node_id)
    })
}

/// A connection to the coordinator.
fn link(addresses: &[SocketAddr], group: &str) -> Option<(i32, Link)> {
    let node = coordinator(addresses, group)?;
    let index = NODES.iter().position(|it| *it == node).expect("one of the nodes");
    Some((node, connect(addresses[index]).ok()?))
}

fn commit(addresses: &[SocketAddr], group: &str, offset: i64) {
    until("a commit is not taken", || {
        let partition = OffsetCommitRequestPartition {
            committed_offset: offset,
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: Str::from(TOPIC),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequest {
            group_id: Str::from(group),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        let (_, mut link) = link(addresses, group)?;
        link.send_at(&request, COMMIT_VERSION).ok()?;
        let answer = link.receive::<OffsetCommitRequest>().ok()?;
        let error = answer.topics[0].partitions[0].error_code;
        assert!(error.is_none() || error.is_retriable(), "OffsetCommit: {error:?}");
        error.is_none().then_some(())
    });
}

/// Asks for what is committed.
fn ask(link: &mut Link, group: &str) -> Option<()> {
    let topic = OffsetFetchRequestTopic { name: Str::from(TOPIC), partition_indexes: vec![0] };
    let request = OffsetFetchRequest {
        group_id: Str::from(group),
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    };
    link.send_at(&request, FETCH_VERSION).ok()
}

/// What is committed, and who says so.
fn committed(addresses: &[SocketAddr], group: &str) -> (i32, i64) {
    until("nobody says what is committed", || {
        let (node, mut link) = link(addresses, group)?;
        ask(&mut link, group)?;
        let answer = link.receive::<OffsetFetchRequest>().ok()?;
        let error = answer.error_code;
        assert!(error.is_none() || error.is_retriable(), "OffsetFetch: {error:?}");
        error.is_none().then(|| (node, answer.topics[0].partitions[0].committed_offset))
    })
}

#[test]
fn committed_offsets_survive_the_loss_of_their_coordinators_node() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, 1);
    let mut latest = 0;
    for round in 0..3 {
        for offset in 1..=20 {
            latest = round * 100 + offset;
            GROUPS.iter().for_each(|group| commit(&addresses, group, latest));
        }
        let (node, _) = committed(&addresses, GROUPS[round as usize]);
        nodes.kill(node);
        for group in GROUPS {
            let (by, found) = committed(&addresses, group);
            assert_eq!(found, latest, "group {group}, by node {by} after node {node} was killed");
            assert_ne!(by, node, "a coordinator that was killed");
            commit(&addresses, group, latest + 1);
        }
        latest += 1;
        nodes.node(node).run();
        await_agreement(&addresses, &[TOPIC, OFFSETS]);
        for group in GROUPS {
            assert_eq!(committed(&addresses, group).1, latest, "group {group}");
        }
    }
    nodes.kill_all();
    nodes.run_all();
    for group in GROUPS {
        assert_eq!(committed(&addresses, group).1, latest, "group {group}, after all were killed");
    }
    nodes.stop();
}

/// Its clients' requests may be read before the word that another coordinates.
#[test]
fn who_stood_still_tells_nobody_what_was_committed_before() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, 1);
    for round in 1..=3 {
        for group in GROUPS {
            commit(&addresses, group, round * 10);
            // The first is asked who coordinates, and goes on.
            let (node, mut stale) = until("nobody coordinates", || link(&addresses, group));
            if node == NODES[0] {
                continue;
            }
            nodes.pause(node);
            ask(&mut stale, group).expect("it is asked");
            commit(&addresses, group, round * 10 + 1);
            nodes.resume(node);
            let answer = stale.receive::<OffsetFetchRequest>().expect("its answer");
            assert_eq!(answer.error_code, ErrorCode::NOT_COORDINATOR, "{answer:?}");
            assert_eq!(committed(&addresses, group).1, round * 10 + 1);
        }
        await_agreement(&addresses, &[TOPIC, OFFSETS]);
    }
    nodes.stop();
}
