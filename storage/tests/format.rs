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

use support::workload::opened;
use support::{Record, batch, environment, read_all, run, small_options};
use vltava_storage::io::fault_disk::FaultDisk;
use vltava_storage::producer_state::SequenceCheck;
use vltava_storage::{AppendClass, TimestampOffset};

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
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1")
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
