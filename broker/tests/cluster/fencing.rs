//! Epochs as clients name them (KIP-320): one that is over is fenced, one that a node has not heard
//! of is unknown, by whoever is asked.

use vltava_client::blocking::Link;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::FetchRequest;
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes};
use crate::support::wire::{self, FETCH_VERSION};
use crate::view::{await_agreement, connect, create_topic, partition};

const TOPIC: &str = "fenced";
/// Versions that name a topic, and the epoch that the client knows of.
const LIST_OFFSETS: std::ops::RangeInclusive<i16> = 4..=11;
const EPOCH_ENDS: std::ops::RangeInclusive<i16> = 2..=4;

fn list_offsets(link: &mut Link, version: i16, current_leader_epoch: i32) -> ErrorCode {
    let partition =
        ListOffsetsPartition { partition_index: 0, current_leader_epoch, timestamp: -1 };
    let topic = ListOffsetsTopic { name: Str::from(TOPIC), partitions: vec![partition] };
    let request =
        ListOffsetsRequest { replica_id: -1, topics: vec![topic], ..ListOffsetsRequest::default() };
    link.send_at(&request, version).expect("sent");
    let answer = link.receive::<ListOffsetsRequest>().expect("an answer");
    answer.topics[0].partitions[0].error_code
}

fn epoch_end(link: &mut Link, version: i16, current_leader_epoch: i32) -> ErrorCode {
    let partition =
        OffsetForLeaderPartition { partition: 0, current_leader_epoch, leader_epoch: 0 };
    let topic = OffsetForLeaderTopic { topic: Str::from(TOPIC), partitions: vec![partition] };
    let request = OffsetForLeaderEpochRequest { replica_id: -1, topics: vec![topic] };
    link.send_at(&request, version).expect("sent");
    let answer = link.receive::<OffsetForLeaderEpochRequest>().expect("an answer");
    answer.topics[0].partitions[0].error_code
}

fn fetch(link: &mut Link, version: i16, current_leader_epoch: i32) -> ErrorCode {
    let mut request = wire::fetch_request(TOPIC, 0, 0);
    request.topics[0].partitions[0].current_leader_epoch = current_leader_epoch;
    link.send_at(&request, version).expect("sent");
    let answer = link.receive::<FetchRequest>().expect("an answer");
    answer.responses[0].partitions[0].error_code
}

#[test]
fn an_epoch_that_is_over_is_fenced_and_a_later_one_is_unknown() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, 1);
    await_agreement(&addresses, &[TOPIC]);
    let of = |told: vltava_client::metadata::Partition| {
        (told.leader.expect("one leads"), told.leader_epoch)
    };
    let (leader, before) = of(partition(&addresses, TOPIC, 0).expect("it is known"));
    let mut link = connect(nodes.address(leader)).expect("a connection");
    let written = wire::produce(&mut link, TOPIC, 0, wire::batch(&[b"x"])).expect("an answer");
    assert!(written.error_code.is_none());
    nodes.node(leader).restart();
    await_agreement(&addresses, &[TOPIC]);
    let (leader, epoch) = of(partition(&addresses, TOPIC, 0).expect("it is known"));
    assert!(epoch > before, "epoch {before}, then {epoch}");

    for node in NODES {
        let mut link = connect(nodes.address(node)).expect("a connection");
        let right = match node == leader {
            true => ErrorCode::NONE,
            false => ErrorCode::NOT_LEADER_OR_FOLLOWER,
        };
        for (named, expected) in [
            (before, ErrorCode::FENCED_LEADER_EPOCH),
            (epoch, right),
            (epoch + 1, ErrorCode::UNKNOWN_LEADER_EPOCH),
        ] {
            let place = format!("epoch {named} of {epoch}, at {node}, led by {leader}");
            for version in LIST_OFFSETS {
                let told = list_offsets(&mut link, version, named);
                assert_eq!(told, expected, "ListOffsets {version}, {place}");
            }
            for version in EPOCH_ENDS {
                let told = epoch_end(&mut link, version, named);
                assert_eq!(told, expected, "OffsetForLeaderEpoch {version}, {place}");
            }
            for version in 9..=FETCH_VERSION {
                let told = fetch(&mut link, version, named);
                // From 11 on whoever follows is read from, too (KIP-392).
                let reads = version >= 11 && named == epoch;
                let expected = if reads { ErrorCode::NONE } else { expected };
                assert_eq!(told, expected, "Fetch {version}, {place}");
            }
        }
    }
    nodes.stop();
}
