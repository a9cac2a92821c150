//! The order of requests for groups: that of one connection, whatever else it waits for.

use std::thread;
use std::time::Duration;

use vltava_client::blocking::Link;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic};
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use vltava_protocol::types::Str;

use crate::start;
use crate::support::{PATIENCE, wire};

const TOPIC: &str = "read";
const GROUP: Str = Str::from_static("group");
/// Commits under way at once.
const COMMITS: i64 = 200;
/// A version in which topics have names.
const VERSION: i16 = 7;

fn commit(offset: i64) -> OffsetCommitRequest {
    let partition = OffsetCommitRequestPartition {
        partition_index: 0,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: Str::from_static(TOPIC),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    OffsetCommitRequest { group_id: GROUP, topics: vec![topic], ..OffsetCommitRequest::default() }
}

fn committed() -> OffsetFetchRequest {
    let topic =
        OffsetFetchRequestTopic { name: Str::from_static(TOPIC), partition_indexes: vec![0] };
    OffsetFetchRequest {
        group_id: GROUP,
        topics: Some(vec![topic]),
        ..OffsetFetchRequest::default()
    }
}

fn read(link: &mut Link) -> i64 {
    let answer = link.receive::<OffsetFetchRequest>().expect("offsets");
    answer.topics[0].partitions[0].committed_offset
}

/// A fetch that waits for records which never come.
fn long_poll() -> FetchRequest {
    let partition = FetchPartition { partition_max_bytes: 1_000, ..FetchPartition::default() };
    let topic = FetchTopic {
        topic: Str::from_static(TOPIC),
        partitions: vec![partition],
        ..FetchTopic::default()
    };
    FetchRequest {
        max_wait_ms: i32::try_from(PATIENCE.as_millis()).unwrap(),
        min_bytes: 1,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

#[test]
fn commits_of_one_connection_are_applied_in_its_order() {
    for shards in [1, 2, 5] {
        let broker = start(shards);
        let mut link = wire::connect(broker.address).expect("a connection");
        wire::create_topic(&mut link, TOPIC, 1, &[]).expect("a topic");
        find_coordinator(&mut link);
        for offset in 0..COMMITS {
            link.send_at(&commit(offset), VERSION).expect("a commit");
            link.send_at(&committed(), VERSION).expect("a question");
        }
        for offset in 0..COMMITS {
            let answer = link.receive::<OffsetCommitRequest>().expect("an answer");
            assert_eq!(answer.topics[0].partitions[0].error_code, ErrorCode::NONE);
            assert_eq!(read(&mut link), offset, "{shards} shards");
        }
    }
}

#[test]
fn a_commit_does_not_wait_for_the_answers_before_it() {
    for shards in [1, 2, 5] {
        let broker = start(shards);
        let mut link = wire::connect(broker.address).expect("a connection");
        wire::create_topic(&mut link, TOPIC, 1, &[]).expect("a topic");
        find_coordinator(&mut link);
        link.send_at(&long_poll(), 11).expect("a fetch");
        link.send_at(&commit(5), VERSION).expect("a commit");
        // Sees the commit long before the fetch is answered.
        let mut other = wire::connect(broker.address).expect("a connection");
        let mut offset = -1;
        for _ in 0..PATIENCE.as_millis() / 4 {
            other.send_at(&committed(), VERSION).expect("a question");
            offset = read(&mut other);
            if offset == 5 {
                break;
            }
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(offset, 5, "{shards} shards");
    }
}

/// The first time, the topic of offsets is made, and its coordinators load.
fn find_coordinator(link: &mut Link) {
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    let answer = link.call(&request).expect("a coordinator");
    assert_eq!(answer.coordinators[0].error_code, ErrorCode::NONE);
    loop {
        link.send_at(&committed(), VERSION).expect("a question");
        let answer = link.receive::<OffsetFetchRequest>().expect("offsets");
        if answer.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS {
            return;
        }
    }
}
