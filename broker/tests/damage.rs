//! Damage to the data directory of a real process, between a kill and the next start: reported, and
//! never cut or deleted silently; what is not damaged is served.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use support::wire::{self, batch, connect, create_topic, fetch, produce, read_all};
use support::{Broker, Options, PATIENCE};
use vltava_client::blocking::Link;
use vltava_protocol::batch::walk;
use vltava_protocol::error_code::ErrorCode;

const TOPIC: &str = "damaged";
const BATCHES: i64 = 5;
const SEGMENT: &str = "00000000000000000000.log";

fn options(shards: usize) -> Options {
    Options { shards, ..Options::default() }
}

fn directory(partition: i32) -> String {
    format!("{TOPIC}-{partition}")
}

/// Where the last note of a log's flushed end stands; `docs/storage-format.md` has the bytes.
fn noted_end(data: &Path, partition: i32) -> i64 {
    let name = directory(partition).into_bytes();
    let mut end = 0;
    for entry in fs::read_dir(data).unwrap().map(Result::unwrap) {
        if !entry.file_name().to_string_lossy().starts_with("vltava-flushed-") {
            continue;
        }
        // Gone where it is just being replaced.
        let bytes = fs::read(entry.path()).unwrap_or_default();
        for at in 0..bytes.len() {
            // The name, the topic's id, the generation, the end.
            if let Some(note) = bytes[at..].strip_prefix(name.as_slice())
                && let Some(noted) = note.get(20..28)
            {
                end = end.max(i64::from_be_bytes(noted.try_into().unwrap()));
            }
        }
    }
    end
}

/// The notes are written once a second: nothing outside the process tells when.
fn wait_until_noted(data: &Path, partitions: i32) {
    let deadline = Instant::now() + PATIENCE;
    while (0..partitions).any(|partition| noted_end(data, partition) < BATCHES) {
        assert!(Instant::now() < deadline, "the flushed ends are not noted");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn value(partition: i32, number: i64) -> Vec<u8> {
    format!("{partition} {number} {}", "v".repeat(300)).into_bytes()
}

fn write(link: &mut Link, partitions: i32) {
    assert!(create_topic(link, TOPIC, partitions, &[]).unwrap().is_none());
    for number in 0..BATCHES {
        for partition in 0..partitions {
            let value = value(partition, number);
            let written = produce(link, TOPIC, partition, batch(&[&value])).unwrap();
            assert_eq!((written.error_code, written.base_offset), (ErrorCode::NONE, number));
        }
    }
}

/// Where a batch of a segment begins.
fn position_of(segment: &[u8], number: usize) -> usize {
    let batches = walk(segment).take(number);
    batches.map(|batch| batch.unwrap().batch_bytes()).sum()
}

/// A flipped bit, a cut, a zeroed page, a lost file, and damage that does no harm.
#[test]
fn a_damaged_log_is_reported_and_kept_and_the_others_serve() {
    const PARTITIONS: i32 = 7;
    for (shards, later) in [(1, 2), (2, 5), (5, 1)] {
        let mut broker = Broker::start(options(shards));
        write(&mut connect(broker.address).unwrap(), PARTITIONS);
        wait_until_noted(&broker.data, PARTITIONS);
        broker.kill();
        let path = |partition: i32, file: &str| broker.data.join(directory(partition)).join(file);
        let change = |partition, file: &str, change: &dyn Fn(&mut Vec<u8>)| {
            let mut bytes = fs::read(path(partition, file)).unwrap();
            change(&mut bytes);
            fs::write(path(partition, file), bytes).unwrap();
        };
        change(0, SEGMENT, &|bytes| {
            let at = position_of(bytes, 2) + 100;
            bytes[at] ^= 4;
        });
        change(1, SEGMENT, &|bytes| bytes.truncate(position_of(bytes, 3)));
        change(2, SEGMENT, &|bytes| bytes[..512].fill(0));
        fs::remove_file(path(3, SEGMENT)).unwrap();
        change(4, "vltava-checkpoint", &|bytes| bytes[20] ^= 1);
        // The id of a topic, in the file without a checksum.
        change(5, "partition.metadata", &|bytes| {
            let id = bytes.iter().position(|byte| *byte == b':').unwrap();
            let end = bytes.len() - 4;
            assert!(end > id);
            bytes[end] = if bytes[end] == b'A' { b'B' } else { b'A' };
        });
        let kept: Vec<_> = (0..3).map(|p| fs::read(path(p, SEGMENT)).unwrap()).collect();
        broker.options.shards = later;
        broker.run();
        let mut link = connect(broker.address).unwrap();
        for partition in 0..5 {
            let read = fetch(&mut link, TOPIC, partition, 0).unwrap();
            assert_eq!(read.error_code, ErrorCode::KAFKA_STORAGE_ERROR, "{partition}");
            let written = produce(&mut link, TOPIC, partition, batch(&[b"more"])).unwrap();
            assert_eq!(written.error_code, ErrorCode::KAFKA_STORAGE_ERROR, "{partition}");
            let said = broker.said();
            assert!(said.contains(&directory(partition)), "{partition}: {said}");
        }
        for partition in 5..PARTITIONS {
            let expected: Vec<_> = (0..BATCHES).map(|n| (n, value(partition, n))).collect();
            assert_eq!(read_all(&mut link, TOPIC, partition).unwrap(), expected);
            let written = wire::produce(&mut link, TOPIC, partition, batch(&[b"more"])).unwrap();
            assert_eq!((written.error_code, written.base_offset), (ErrorCode::NONE, BATCHES));
        }
        assert!(broker.stop().success());
        for (partition, kept) in (0..3).zip(kept) {
            let path = broker.data.join(directory(partition)).join(SEGMENT);
            assert!(fs::read(path).unwrap() == kept, "{partition}: changed");
        }
    }
}

/// Killed before anything was noted; recovered, served, killed again: what was served is no torn
/// tail, whoever cuts it.
#[test]
fn what_was_recovered_and_served_is_not_cut() {
    for shards in [1, 2, 5] {
        let mut broker = Broker::start(options(shards));
        write(&mut connect(broker.address).unwrap(), 1);
        broker.kill();
        broker.run();
        let read = read_all(&mut connect(broker.address).unwrap(), TOPIC, 0).unwrap();
        assert_eq!(read.len(), 5);
        wait_until_noted(&broker.data, 1);
        broker.kill();
        let path = broker.data.join(directory(0)).join(SEGMENT);
        let segment = fs::read(&path).unwrap();
        fs::write(&path, &segment[..position_of(&segment, 2)]).unwrap();
        broker.run();
        let read = fetch(&mut connect(broker.address).unwrap(), TOPIC, 0, 0).unwrap();
        assert_eq!(read.error_code, ErrorCode::KAFKA_STORAGE_ERROR);
    }
}
