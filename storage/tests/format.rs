//! Files of yesterday: today's code reads them, and writes the same.
//!
//! `VLTAVA_GOLDEN=rewrite` writes the golden files anew; a change of theirs is a new format
//! version, or a mistake. `VLTAVA_GOLDEN=DIRECTORY` writes them there as well, to be looked at with
//! Kafka's `DumpLogSegments`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use support::workload::opened;
use support::{Record, batch, environment, read_all, run, small_options};
use vltava_protocol::types::Uuid;
use vltava_storage::io::fault_disk::{Fault, FaultDisk};
use vltava_storage::producer_state::SequenceCheck;
use vltava_storage::{
    AppendClass, GroupKey, KeyedJournal, Recorded, ShardExceptions, TimestampOffset, load_journals,
    read_shard_exceptions, write_shard_exceptions,
};

const BATCHES: i64 = 60;

/// Timestamp, values, and (producer id, epoch, base sequence).
type Golden = (i64, Vec<Vec<u8>>, Option<(i64, i16, i32)>);

/// What stands in the golden log: idempotent batches of two records, and plain ones of one;
/// timestamps that go back now and then.
fn golden_batch(n: i64) -> Golden {
    let timestamp = 1_700_000_000_000 + n * 100 - (n % 7) * 150;
    let value = |k: i64| format!("value {n}.{k} ").repeat(30 + n as usize % 5).into_bytes();
    if n % 2 == 0 {
        let producer = (7 + n % 4, 1, (n / 4 * 2) as i32);
        (timestamp, vec![value(0), value(1)], Some(producer))
    } else {
        (timestamp, vec![value(0)], None)
    }
}

fn expected() -> Vec<Record> {
    let mut records: Vec<Record> = Vec::new();
    for n in 0..BATCHES {
        let (timestamp, values, _) = golden_batch(n);
        for value in values {
            records.push(Record {
                offset: records.len() as i64,
                timestamp,
                epoch: (n / 20) as i32,
                value,
            });
        }
    }
    records
}

/// Writes the golden log, closed in good order.
async fn write() -> FaultDisk {
    let disk = FaultDisk::new(0);
    let environment = environment(&disk).await.unwrap();
    let log = opened(&environment).await;
    for n in 0..BATCHES {
        let (timestamp, values, producer) = golden_batch(n);
        let batches = vec![batch(timestamp, &values, producer)];
        let epoch = (n / 20) as i32;
        log.append(batches, epoch, AppendClass::Client, timestamp).unwrap();
        if n % 3 == 0 {
            log.write_pending().await.unwrap();
        }
    }
    environment.write_notes().await.unwrap();
    log.close().await.unwrap();
    disk
}

fn golden() -> PathBuf {
    golden_of("v1")
}

fn golden_of(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn save(disk: &FaultDisk, directory: &Path) {
    for file in disk.files() {
        let path = directory.join(&file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, disk.content(&file).unwrap()).unwrap();
    }
}

fn load(directory: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            load(&entry.path(), &format!("{path}/"), files);
        } else {
            files.insert(path, fs::read(entry.path()).unwrap());
        }
    }
}

fn golden_files() -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    load(&golden(), "", &mut files);
    files
}

#[test]
fn todays_code_writes_the_golden_files() {
    let disk = run(write());
    match std::env::var("VLTAVA_GOLDEN") {
        Ok(mode) if mode == "rewrite" => save(&disk, &golden()),
        Ok(directory) => save(&disk, Path::new(&directory)),
        Err(_) => {}
    }
    let golden = golden_files();
    let names: Vec<&String> = golden.keys().collect();
    assert_eq!(names, disk.files().iter().collect::<Vec<_>>());
    for (name, bytes) in &golden {
        assert!(disk.content(name).as_ref() == Some(bytes), "{name} differs");
    }
}

#[test]
fn todays_code_reads_the_golden_files() {
    run(async {
        let disk = FaultDisk::new(0);
        for (name, bytes) in golden_files() {
            disk.put(&name, &bytes);
        }
        let environment = environment(&disk).await.unwrap();
        let before = disk.operations();
        let log = opened(&environment).await;
        assert_eq!(disk.operations(), before, "an orderly log is opened without a change");
        let expected = expected();
        assert_eq!(read_all(&log, 2000).await.unwrap(), expected);
        assert_eq!(log.segments().len(), 2);
        assert_eq!((log.latest_epoch(), log.epoch_at(30)), (Some(2), Some(1)));
        for wanted in (0..BATCHES).map(|n| 1_700_000_000_000 + n * 100) {
            let record = expected.iter().find(|r| r.timestamp >= wanted);
            let record = record.map(|r| TimestampOffset {
                timestamp: r.timestamp,
                offset: r.offset,
                leader_epoch: r.epoch,
            });
            assert_eq!(log.offset_for_timestamp(wanted).await.unwrap(), record);
        }
        let (timestamp, values, producer) = golden_batch(BATCHES - 2);
        let again = batch(timestamp, &values, producer).producer().unwrap();
        let known = log.check_producer(&again);
        assert!(matches!(known, SequenceCheck::Duplicate { .. }), "{known:?}");
        log.set_options(small_options());
    });
}

#[test]
fn closed_files_end_exactly_and_the_names_are_kafkas() {
    let golden = golden_files();
    let mut bytes = 0;
    for (name, content) in golden.iter().filter(|(name, _)| name.ends_with(".log")) {
        let records = support::records_of(content).expect("only whole batches");
        let base = name.trim_start_matches("topic-0/").trim_end_matches(".log");
        assert_eq!(base.len(), 20);
        assert_eq!(records[0].offset, base.parse::<i64>().unwrap());
        bytes += content.len();
    }
    assert!(bytes > 20_000);
    let text = |name: &str| String::from_utf8(golden[name].clone()).unwrap();
    assert_eq!(text("topic-0/leader-epoch-checkpoint"), "0\n3\n0 0\n1 30\n2 60\n");
    assert_eq!(text("topic-0/partition.metadata"), "version: 0\ntopic_id: AAAAAAAAAAAAAAAAEjRWeA");
    for (name, content) in &golden {
        let entry_bytes = match name.rsplit('.').next().unwrap() {
            "index" => 8,
            "timeindex" => 12,
            _ => continue,
        };
        assert!(content.len() % entry_bytes == 0 && !content.is_empty(), "{name}");
    }
}

/// A file as far as something stands in it: space behind that was only allocated.
fn without_space(mut content: Vec<u8>) -> Vec<u8> {
    let blocks = content.iter().rposition(|byte| *byte != 0).map_or(0, |last| last / 4096 + 1);
    content.truncate(blocks * 4096);
    content
}

/// Files that today's code wrote are the golden ones.
fn check_written(name: &str, written: &BTreeMap<String, Vec<u8>>) {
    let directory = golden_of(name);
    if std::env::var("VLTAVA_GOLDEN").is_ok_and(|mode| mode == "rewrite") {
        fs::create_dir_all(&directory).unwrap();
        written.iter().for_each(|(file, bytes)| fs::write(directory.join(file), bytes).unwrap());
    }
    let mut golden = BTreeMap::new();
    load(&directory, "", &mut golden);
    assert!(golden == *written, "the files of {name} differ");
}

fn group(partition: i32) -> GroupKey {
    GroupKey { topic_id: Uuid(0x0123_4567_89ab_cdef), partition }
}

async fn journal_on(disk: &FaultDisk) -> KeyedJournal<FaultDisk> {
    let loaded = Arc::new(load_journals(disk).await.unwrap());
    let environment = environment(disk).await.unwrap();
    KeyedJournal::open(&environment, 0, 1, loaded).await.unwrap()
}

#[test]
fn votes_are_written_and_read_as_ever() {
    run(async {
        let disk = FaultDisk::new(0);
        let journal = journal_on(&disk).await;
        for n in 0..6 {
            let vote = Bytes::from(format!("vote {n}"));
            journal.set(group(n % 4), Some(vote)).await.unwrap();
        }
        journal.set(group(3), None).await.unwrap();
        // Of the next run: a base, and a change.
        let journal = journal_on(&disk).await;
        journal.set(group(7), Some(Bytes::from_static(b"seven"))).await.unwrap();
        let files = disk.files().into_iter();
        let files = files.map(|file| (file.clone(), without_space(disk.content(&file).unwrap())));
        check_written("votes-v1", &files.collect());
        for copies in [["a", "b"], ["a", "a"], ["b", "b"]] {
            let disk = FaultDisk::new(0);
            for copy in copies {
                let name = format!("vltava-votes-0-{copy}");
                disk.put(&name, &fs::read(golden_of("votes-v1").join(&name)).unwrap());
            }
            let journal = journal_on(&disk).await;
            let found = [0, 1, 2, 3, 7].map(|n| journal.get(&group(n)));
            let value = |text: &'static str| Recorded::Value(Bytes::from_static(text.as_bytes()));
            let votes = ["vote 4", "vote 5", "vote 2"].map(value);
            let expected = votes.into_iter().chain([Recorded::Nothing, value("seven")]);
            assert_eq!(found.to_vec(), expected.collect::<Vec<_>>());
        }
    });
}

#[test]
fn a_reset_is_written_and_read_as_ever() {
    run(async {
        let disk = write().await;
        let environment = environment(&disk).await.unwrap();
        let log = opened(&environment).await;
        let (producers, epochs) = (log.producers_before(80), [(0, 0), (1, 30), (2, 60)]);
        // The record stands when its name is durable, after its content and its name.
        let at = disk.operations() + 4;
        disk.inject(Fault::Crash { at });
        log.reset_to(80, &producers, &epochs).await.unwrap_err();
        let disk = disk.restart();
        let reset = disk.content("topic-0/vltava-reset").unwrap();
        check_written("reset-v1", &BTreeMap::from([("vltava-reset".to_owned(), reset)]));
        let disk = FaultDisk::new(0);
        for (name, bytes) in golden_files() {
            disk.put(&name, &bytes);
        }
        let reset = fs::read(golden_of("reset-v1").join("vltava-reset")).unwrap();
        disk.put("topic-0/vltava-reset", &reset);
        let log = opened(&support::environment(&disk).await.unwrap()).await;
        assert_eq!((log.log_start(), log.flushed_end(), log.epochs()), (80, 80, vec![(2, 80)]));
        assert!(!producers.is_empty() && log.producers_before(80) == producers);
    });
}

#[test]
fn exceptions_of_shards_are_written_and_read_as_ever() {
    run(async {
        let disk = FaultDisk::new(0);
        let exceptions = ShardExceptions::from([(group(0), 1), (group(7), 4)]);
        write_shard_exceptions(&disk, &exceptions).await.unwrap();
        let file = disk.content("vltava-shards").unwrap();
        check_written("shards-v1", &BTreeMap::from([("vltava-shards".to_owned(), file)]));
        let disk = FaultDisk::new(0);
        let golden = fs::read(golden_of("shards-v1").join("vltava-shards")).unwrap();
        disk.put("vltava-shards", &golden);
        assert_eq!(read_shard_exceptions(&disk).await.unwrap(), exceptions);
    });
}
