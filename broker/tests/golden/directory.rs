//! The data directories of a whole node, as an orderly stop and as a kill left them: today's
//! release opens them, alone and as a cluster of one, and serves what was in them.
//!
//! They hold three topics: `orders` with two partitions, `numbered` of an idempotent producer,
//! `rolled` with a segment for each round; what two groups have committed; and an epoch for each
//! start. In a file nothing is kept of the space that was only allocated.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use vltava_client::blocking::Link;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestTopic};
use vltava_protocol::messages::offset_for_leader_epoch::{
    OffsetForLeaderEpochRequest, OffsetForLeaderPartition, OffsetForLeaderTopic,
};
use vltava_protocol::types::Str;

use crate::support::{self, Broker, Options, wire};
use crate::{is_making_directories, path};

/// Starts, and writes at each.
const ROUNDS_STOPPED: i64 = 3;
/// The kill ends one more.
const ROUNDS_KILLED: i64 = 4;
/// Batches of the idempotent producer in a round: more than are remembered of it.
const BATCHES: i32 = 6;
const GROUPS: [&str; 2] = ["billing", "shipping"];
/// The producer's id: the first that a cluster gives away.
const PRODUCER_ID: i64 = 0;
/// A segment of `rolled` ends with the first record that is so much younger than its first one.
const SEGMENT_MS: i64 = 1000;
const BLOCK_BYTES: usize = 4096;
/// The last versions that name one group, and topics by their names.
const FIND_VERSION: i16 = 2;
const COMMIT_VERSION: i16 = 8;
const FETCH_VERSION: i16 = 7;

fn options(settings: &[(&'static str, String)]) -> Options {
    let mut options = Options { shards: 1, memory: "64MiB", ..Options::default() };
    options.settings.push(("offsets.topic.num.partitions", "1".to_owned()));
    options.settings.extend_from_slice(settings);
    options
}

/// With these a node is a cluster of one.
fn of_one() -> [(&'static str, String); 1] {
    [("peers", format!("1@127.0.0.1:{}", support::free_port()))]
}

fn value(topic: &str, partition: i32, round: i64, number: i64) -> Vec<u8> {
    format!("{topic}-{partition}, round {round}, number {number}").into_bytes()
}

/// What stands in a plain partition after so many rounds.
fn expected(topic: &str, partition: i32, rounds: i64) -> Vec<(i64, Vec<u8>)> {
    let of_round = |round| (0..3).map(move |number| (round, number));
    let records = (0..rounds).flat_map(of_round);
    (0..).zip(records.map(|(round, number)| value(topic, partition, round, number))).collect()
}

/// A round's batch of a plain partition. Rounds are far enough apart in time for segments to end.
fn batch(topic: &str, partition: i32, round: i64) -> Bytes {
    let mut builder = BatchBuilder::new();
    for number in 0..3 {
        let timestamp = 1_700_000_000_000 + round * 10 * SEGMENT_MS;
        let value = value(topic, partition, round, number);
        builder.append(timestamp, None, Some(&value), &[]).unwrap();
    }
    Bytes::from(builder.build())
}

/// A batch of the producer: one record, by its number over all rounds.
fn numbered(sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new().producer(PRODUCER_ID, 0, sequence);
    let value = format!("numbered {sequence}");
    builder.append(1_700_000_000_000, None, Some(value.as_bytes()), &[]).unwrap();
    Bytes::from(builder.build())
}

fn produce(link: &mut Link, topic: &str, partition: i32, batch: Bytes) -> i64 {
    let answer = wire::produce(link, topic, partition, batch).expect("an answer");
    assert!(answer.error_code.is_none(), "{topic}-{partition}: {:?}", answer.error_code);
    answer.base_offset
}

/// One start's part of what the directories hold.
fn write_round(broker: &Broker, round: i64) {
    let mut link = wire::connect(broker.address).unwrap();
    for (topic, partition) in [("orders", 0), ("orders", 1), ("rolled", 0)] {
        let base = produce(&mut link, topic, partition, batch(topic, partition, round));
        assert_eq!(base, round * 3);
    }
    for batch in 0..BATCHES {
        let sequence = round as i32 * BATCHES + batch;
        assert_eq!(produce(&mut link, "numbered", 0, numbered(sequence)), i64::from(sequence));
    }
    for (group, more) in GROUPS.into_iter().zip(1..) {
        // Makes the topic of offsets, where there is none.
        let find = FindCoordinatorRequest { key: Str::from(group), ..Default::default() };
        link.send_at(&find, FIND_VERSION).unwrap();
        link.receive::<FindCoordinatorRequest>().unwrap();
        let partition = OffsetCommitRequestPartition {
            committed_offset: round * 3 + more,
            committed_metadata: Some(Str::from(format!("round {round}"))),
            ..OffsetCommitRequestPartition::default()
        };
        let topic = OffsetCommitRequestTopic {
            name: Str::from_static("orders"),
            partitions: vec![partition],
            ..OffsetCommitRequestTopic::default()
        };
        let request = OffsetCommitRequest {
            group_id: Str::from(group),
            topics: vec![topic],
            ..OffsetCommitRequest::default()
        };
        until(|| {
            link.send_at(&request, COMMIT_VERSION).unwrap();
            let answer = link.receive::<OffsetCommitRequest>().unwrap();
            let error = answer.topics[0].partitions[0].error_code;
            assert!(error.is_none() || error.is_retriable(), "{error:?}");
            error.is_none().then_some(())
        });
    }
}

/// A coordinator may not be there yet.
fn until<T>(mut ask: impl FnMut() -> Option<T>) -> T {
    for _ in 0..1000 {
        if let Some(answer) = ask() {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not within ten seconds");
}

/// Makes both directories.
fn write() {
    let mut broker = Broker::start(options(&[]));
    let mut link = wire::connect(broker.address).unwrap();
    let roll = [("segment.ms", SEGMENT_MS.to_string())];
    let roll = roll.each_ref().map(|(name, value)| (*name, value.as_str()));
    for (topic, partitions, configs) in
        [("orders", 2, &[("retention.ms", "-1")][..]), ("numbered", 1, &[]), ("rolled", 1, &roll)]
    {
        let made = wire::create_topic(&mut link, topic, partitions, configs).unwrap();
        assert_eq!(made, ErrorCode::NONE);
    }
    let given = link.call(&InitProducerIdRequest::default()).unwrap();
    assert_eq!((given.producer_id, given.producer_epoch), (PRODUCER_ID, 0));
    write_round(&broker, 0);
    for round in 1..ROUNDS_STOPPED {
        broker.restart();
        write_round(&broker, round);
    }
    assert!(broker.stop().success());
    keep(&broker.data, "stopped");
    broker.run();
    write_round(&broker, ROUNDS_KILLED - 1);
    broker.kill();
    keep(&broker.data, "killed");
}

/// Where a node's directory of this name stands.
pub fn golden(name: &str) -> std::path::PathBuf {
    path("disk/v1").join(format!("node-{name}"))
}

/// Makes it the golden one of this name.
pub fn keep(data: &Path, name: &str) {
    let to = golden(name);
    if to.exists() {
        fs::remove_dir_all(&to).unwrap();
    }
    copy(data, &to);
}

/// Copies a directory, without space that was only allocated and without the lock.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, target) = (entry.unwrap().path(), |name| to.join(name));
        let name = entry.file_name().unwrap();
        if entry.is_dir() {
            copy(&entry, &target(name));
        } else if name != ".lock" {
            let mut bytes = fs::read(&entry).unwrap();
            let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
            // An orderly end is no end of a block, and stands behind no zero of a batch's own.
            if bytes.len() - end >= BLOCK_BYTES {
                bytes.truncate(end.next_multiple_of(BLOCK_BYTES));
            }
            fs::write(target(name), bytes).unwrap();
        }
    }
}

/// Everything that the directory held is served; then as much again is written.
fn check(broker: &Broker, rounds: i64) {
    let mut link = wire::connect(broker.address).unwrap();
    for (topic, partition) in [("orders", 0), ("orders", 1), ("rolled", 0)] {
        let found = wire::read_all(&mut link, topic, partition).unwrap();
        assert_eq!(found, expected(topic, partition, rounds), "{topic}-{partition}");
    }
    let found = wire::read_all(&mut link, "numbered", 0).unwrap();
    let sequences = rounds as i32 * BATCHES;
    let written = (0..sequences).map(|it| (i64::from(it), format!("numbered {it}").into_bytes()));
    assert_eq!(found, written.collect::<Vec<_>>());
    check_producer(&mut link, sequences);
    check_groups(&mut link, rounds);
    check_epochs(&mut link, rounds);
    // The id after those of before: none is given away twice.
    let given = link.call(&InitProducerIdRequest::default()).unwrap();
    assert!(given.producer_id > PRODUCER_ID, "{given:?}");
}

/// The last five batches are known, and the next one fits.
fn check_producer(link: &mut Link, sequences: i32) {
    for known in sequences - 5..sequences {
        assert_eq!(produce(link, "numbered", 0, numbered(known)), i64::from(known), "a duplicate");
    }
    let skipped = wire::produce(link, "numbered", 0, numbered(sequences + 1)).unwrap();
    assert_eq!(skipped.error_code, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(produce(link, "numbered", 0, numbered(sequences)), i64::from(sequences));
}

fn check_groups(link: &mut Link, rounds: i64) {
    for (group, more) in GROUPS.into_iter().zip(1..) {
        let topic = OffsetFetchRequestTopic {
            name: Str::from_static("orders"),
            partition_indexes: vec![0],
        };
        let request = OffsetFetchRequest {
            group_id: Str::from(group),
            topics: Some(vec![topic]),
            ..OffsetFetchRequest::default()
        };
        let found = until(|| {
            link.send_at(&request, FETCH_VERSION).unwrap();
            let answer = link.receive::<OffsetFetchRequest>().unwrap();
            assert!(answer.error_code.is_none() || answer.error_code.is_retriable());
            answer.error_code.is_none().then(|| answer.topics[0].partitions[0].clone())
        });
        assert_eq!(found.committed_offset, (rounds - 1) * 3 + more, "{group}");
        assert_eq!(found.metadata, Some(Str::from(format!("round {}", rounds - 1))), "{group}");
    }
}

/// Each start was an epoch of its own, and ended where the next one began.
fn check_epochs(link: &mut Link, rounds: i64) {
    for epoch in 0..rounds {
        let partition = OffsetForLeaderPartition {
            leader_epoch: epoch as i32,
            current_leader_epoch: -1,
            ..OffsetForLeaderPartition::default()
        };
        let topic =
            OffsetForLeaderTopic { topic: Str::from_static("orders"), partitions: vec![partition] };
        let topics = vec![topic];
        let request = OffsetForLeaderEpochRequest { replica_id: -1, topics };
        let answer = link.call(&request).unwrap();
        let found = &answer.topics[0].partitions[0];
        let expected = (ErrorCode::NONE, epoch as i32, (epoch + 1) * 3);
        assert_eq!((found.error_code, found.leader_epoch, found.end_offset), expected);
    }
}

fn is_opened(name: &str, rounds: i64, settings: &[(&'static str, String)]) {
    if !is_making_directories() {
        let directory = support::directory();
        let data = directory.path().join("data");
        copy(&golden(name), &data);
        let mut broker = Broker::new(options(settings), &data);
        broker.run();
        check(&broker, rounds);
        broker.restart();
        let mut link = wire::connect(broker.address).unwrap();
        let found = wire::read_all(&mut link, "orders", 1).unwrap();
        assert_eq!(found, expected("orders", 1, rounds), "after a start of this release");
        assert!(broker.stop().success());
        let said = broker.said();
        assert!(!said.contains(" ERROR ") && !said.contains("panicked"), "{said}");
    }
}

#[test]
fn a_node_that_was_alone() {
    if is_making_directories() {
        write();
    }
    is_opened("stopped", ROUNDS_STOPPED, &[]);
    is_opened("killed", ROUNDS_KILLED, &[]);
}

#[test]
fn a_node_that_was_alone_becomes_a_cluster_of_one() {
    is_opened("stopped", ROUNDS_STOPPED, &of_one());
    is_opened("killed", ROUNDS_KILLED, &of_one());
}
