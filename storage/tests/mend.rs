//! Batches that rotted are put back from another replica: the files are what they were, to the
//! byte, also after a crash right behind it.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::collections::BTreeMap;

use support::workload::{Model, opened};
use support::{Chance, DIRECTORY, environment, run};
use vltava_storage::io::fault_disk::{Fault, FaultDisk};
use vltava_storage::io::{BLOCK_BYTES, Disk, IoErrorKind};
use vltava_storage::{AppendClass, Log, ReplicatedBatches, StorageError};

/// So many bytes of batches are asked for at a time.
const PIECE_BYTES: usize = 3000;

async fn written(disk: &FaultDisk, chance: &Chance) -> Log<FaultDisk> {
    let log = opened(&environment(disk).await.unwrap()).await;
    let mut model = Model::default();
    for step in 0..90 {
        let epoch = step / 30;
        log.append(vec![model.next_batch(chance)], epoch, AppendClass::Client, 1).unwrap();
        log.write_pending().await.unwrap();
    }
    assert!(log.segments().len() > 2);
    log
}

/// The files of the log's batches, by their paths.
async fn files(disk: &FaultDisk) -> BTreeMap<String, Vec<u8>> {
    let entries = disk.list(DIRECTORY).await.unwrap();
    let logs = entries.into_iter().filter(|entry| entry.name.ends_with(".log"));
    let paths: Vec<String> = logs.map(|entry| format!("{DIRECTORY}/{}", entry.name)).collect();
    let mut files = BTreeMap::new();
    for path in paths {
        let bytes = std::cell::RefCell::default();
        disk.damage(&path, |held| *bytes.borrow_mut() = held.clone());
        files.insert(path, bytes.into_inner());
    }
    files
}

fn rot(disk: &FaultDisk, path: &str, bytes: usize, chance: &Chance) {
    let at = chance.below(bytes as u64) as usize;
    let len = if chance.one_in(2) { 1 } else { chance.below(6000) as usize };
    let end = (at + len).min(bytes);
    disk.damage(path, |held| held[at..end].iter_mut().for_each(|byte| *byte ^= 0x5a));
}

/// How many bytes of a file are of batches: behind the log's end it has zeros.
fn written_bytes(file: &[u8]) -> usize {
    file.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// What is found, and put back from what another replica has, until nothing is found.
async fn mend_all(log: &Log<FaultDisk>, other: &Log<FaultDisk>) {
    let mut offset = log.log_start();
    loop {
        match log.verify(offset).await {
            Ok(Some(next)) => offset = next,
            Ok(None) => return,
            Err(StorageError::Corrupt(damage)) => {
                let end = other.flushed_end();
                let bytes = other.read_in_memory(damage.offset, end, PIECE_BYTES).await.unwrap();
                let batches = ReplicatedBatches::check(bytes).unwrap();
                let mended = log.mend(&damage, &batches).await.unwrap();
                assert!(mended.is_some(), "not mended: {damage}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn what_rotted_is_what_it_was_again() {
    for seed in 1..150 {
        run(async {
            let (disk, twin) = (FaultDisk::new(seed), FaultDisk::new(seed));
            let log = written(&disk, &Chance::new(seed)).await;
            let other = written(&twin, &Chance::new(seed)).await;
            let (before, chance) = (files(&disk).await, Chance::new(seed + 1000));
            assert_eq!(before, files(&twin).await, "two replicas have the same");
            for (path, bytes) in &before {
                let len = written_bytes(bytes);
                for _ in 0..chance.below(if len > 0 { 3 } else { 1 }) {
                    rot(&disk, path, len, &chance);
                }
            }
            mend_all(&log, &other).await;
            let restarted = disk.restart();
            let after = files(&restarted).await;
            for (path, known) in &before {
                let (bytes, len) = (&after[path], written_bytes(known));
                assert_eq!(bytes[..len], known[..len], "seed {seed}: {path}");
                // The active file may be longer: space that was allocated.
                let is_closed = path != before.keys().last().unwrap();
                assert!(!is_closed || bytes.len() == known.len(), "seed {seed}: {path}");
            }
            let reopened = opened(&environment(&restarted).await.unwrap()).await;
            assert_eq!(reopened.flushed_end(), log.flushed_end());
            mend_all(&reopened, &other).await;
        });
    }
}

/// The last block is written again as the log goes on, whether it is in memory or is read for that.
#[test]
fn the_end_of_a_log_is_what_it_was_while_it_is_written_to() {
    for seed in 1..150 {
        run(async {
            let (disk, twin) = (FaultDisk::new(seed), FaultDisk::new(seed));
            let log = written(&disk, &Chance::new(seed)).await;
            let other = written(&twin, &Chance::new(seed)).await;
            let (before, chance) = (files(&disk).await, Chance::new(seed + 3000));
            let (last, bytes) = before.iter().next_back().unwrap();
            let len = written_bytes(bytes);
            if chance.one_in(2) {
                log.release_idle();
            }
            if len > 0 {
                let from = (len as u64).saturating_sub(chance.below(600) + 1) as usize;
                disk.damage(last, |held| held[from] ^= 1);
            }
            mend_all(&log, &other).await;
            let mut model = Model::default();
            for _ in 0..10 {
                log.append(vec![model.next_batch(&chance)], 3, AppendClass::Client, 1).unwrap();
                log.write_pending().await.unwrap();
            }
            let end = log.flushed_end();
            let restarted = disk.restart();
            let reopened = opened(&environment(&restarted).await.unwrap()).await;
            assert_eq!(reopened.flushed_end(), end, "seed {seed}");
            let mut offset = Some(reopened.log_start());
            while let Some(from) = offset {
                offset = reopened.verify(from).await.unwrap();
            }
        });
    }
}

/// After an orderly stop a start reads nothing of the log: what rotted in its last block meanwhile
/// is found before that is written again.
#[test]
fn the_end_of_a_log_is_proved_before_it_is_written_again() {
    let mut found = 0;
    for seed in 1..150 {
        found += run(async {
            let (disk, twin) = (FaultDisk::new(seed), FaultDisk::new(seed));
            let log = written(&disk, &Chance::new(seed)).await;
            let other = written(&twin, &Chance::new(seed)).await;
            log.close().await.unwrap();
            let (before, chance) = (files(&disk).await, Chance::new(seed + 5000));
            let (last, bytes) = before.iter().next_back().unwrap();
            let len = written_bytes(bytes);
            if len.is_multiple_of(BLOCK_BYTES) {
                return 0;
            }
            let at = len - 1 - chance.below((len % BLOCK_BYTES) as u64) as usize;
            disk.damage(last, |held| held[at] ^= 1);
            let log = opened(&environment(&disk).await.unwrap()).await;
            let end = log.flushed_end();
            let mut model = Model::default();
            log.append(vec![model.next_batch(&chance)], 3, AppendClass::Client, 1).unwrap();
            let segments = log.segments().len();
            let Err(error) = log.write_pending().await else {
                assert!(log.segments().len() > segments, "seed {seed}: it was written over");
                return 0;
            };
            assert!(matches!(error, StorageError::Corrupt(_)), "seed {seed}: {error}");
            assert_eq!(log.flushed_end(), end);
            mend_all(&log, &other).await;
            if !log.has_pending() {
                log.append(vec![model.next_batch(&chance)], 3, AppendClass::Client, 1).unwrap();
            }
            assert!(log.write_pending().await.unwrap() > end, "seed {seed}");
            mend_all(&log, &log).await;
            1
        });
    }
    assert!(found > 100, "{found}");
}

/// A cut walks over what is left of a segment: what has rotted in it is found before anything has
/// changed, and once that is mended the log can be cut.
#[test]
fn a_cut_that_meets_rot_changes_nothing() {
    let mut met = 0;
    for seed in 1..300 {
        met += run(async {
            let (disk, twin) = (FaultDisk::new(seed), FaultDisk::new(seed));
            let log = written(&disk, &Chance::new(seed)).await;
            let other = written(&twin, &Chance::new(seed)).await;
            let (before, chance) = (files(&disk).await, Chance::new(seed + 7000));
            let (path, bytes) =
                before.iter().nth(chance.below(before.len() as u64) as usize).unwrap();
            rot(&disk, path, written_bytes(bytes), &chance);
            let (start, end) = (log.log_start(), log.flushed_end());
            let to = start + chance.below((end - start).unsigned_abs()) as i64;
            let is_met = match log.truncate(to).await {
                Ok(()) => 0,
                Err(StorageError::Corrupt(_)) => {
                    assert_eq!(log.flushed_end(), end, "seed {seed}");
                    mend_all(&log, &other).await;
                    log.truncate(to).await.unwrap();
                    1
                }
                Err(error) => panic!("seed {seed}: {error}"),
            };
            assert!(log.flushed_end() <= to, "seed {seed}");
            mend_all(&log, &other).await;
            is_met
        });
    }
    assert!(met > 30, "{met}");
}

#[test]
fn strange_batches_are_not_taken() {
    for seed in 1..100 {
        run(async {
            let (disk, twin) = (FaultDisk::new(seed), FaultDisk::new(seed));
            let log = written(&disk, &Chance::new(seed)).await;
            let other = written(&twin, &Chance::new(seed)).await;
            let before = files(&disk).await;
            disk.damage(before.keys().next().unwrap(), |bytes| bytes[70] ^= 1);
            let Err(StorageError::Corrupt(damage)) = log.verify(0).await else { panic!() };
            let later = other.segments()[1].base_offset;
            let bytes = other.read_in_memory(later, other.flushed_end(), 1).await.unwrap();
            let strange = ReplicatedBatches::check(bytes).unwrap();
            assert_eq!(log.mend(&damage, &strange).await.unwrap(), None, "another offset");
            let none = ReplicatedBatches::default();
            assert_eq!(log.mend(&damage, &none).await.unwrap(), None, "nothing");
            assert!(log.verify(0).await.is_err());
        });
    }
}

/// The process stops, or the disk fails, at each operation: what is not what it was is damage that
/// is found, nothing of what was sound is another, and mending goes on afterwards.
#[test]
fn a_crash_while_it_is_mended_costs_nothing() {
    for seed in 1..40 {
        for nth in 0..6 {
            run(async {
                let (disk, twin) = (FaultDisk::new(seed), FaultDisk::new(seed));
                let log = written(&disk, &Chance::new(seed)).await;
                let other = written(&twin, &Chance::new(seed)).await;
                let (before, chance) = (files(&disk).await, Chance::new(seed + 2000));
                let (path, bytes) = before.iter().next().unwrap();
                rot(&disk, path, bytes.len(), &chance);
                let damaged = files(&disk).await[path].clone();
                let at = disk.operations() + nth;
                disk.inject(Fault::Crash { at });
                let Err(StorageError::Corrupt(damage)) = log.verify(0).await else { return };
                let end = other.flushed_end();
                let piece = other.read_in_memory(damage.offset, end, PIECE_BYTES).await.unwrap();
                let batches = ReplicatedBatches::check(piece).unwrap();
                let _ = log.mend(&damage, &batches).await;
                let restarted = disk.restart();
                let after = files(&restarted).await[path].clone();
                for at in 0..bytes.len() {
                    let is_old_or_right = after[at] == damaged[at] || after[at] == bytes[at];
                    assert!(is_old_or_right, "seed {seed}, operation {nth}: byte {at} is another");
                }
                let reopened = opened(&environment(&restarted).await.unwrap()).await;
                mend_all(&reopened, &other).await;
                let mended = files(&restarted).await[path].clone();
                assert!(mended.starts_with(bytes), "seed {seed}, operation {nth}");
                let more = &mended[bytes.len()..];
                assert!(more.len() < BLOCK_BYTES && more.iter().all(|byte| *byte == 0));
            });
        }
    }
}

/// A write or a sync fails at each operation: what stands beside the damage may be gone with it, so
/// nothing more is acknowledged on that log.
#[test]
fn a_disk_that_fails_while_it_is_mended_ends_the_log() {
    let mut ended = 0;
    for nth in 0..6 {
        ended += run(async {
            let (disk, twin) = (FaultDisk::new(1), FaultDisk::new(1));
            let log = written(&disk, &Chance::new(1)).await;
            let other = written(&twin, &Chance::new(1)).await;
            disk.damage(files(&disk).await.keys().next().unwrap(), |bytes| bytes[70] ^= 1);
            let Err(StorageError::Corrupt(damage)) = log.verify(0).await else { panic!() };
            let end = other.flushed_end();
            let piece = other.read_in_memory(damage.offset, end, PIECE_BYTES).await.unwrap();
            let batches = ReplicatedBatches::check(piece).unwrap();
            let at = disk.operations() + nth;
            disk.inject(Fault::Fail { at, kind: IoErrorKind::Failed });
            let mended = log.mend(&damage, &batches).await;
            assert_eq!(mended.is_err(), log.ended().is_some(), "operation {nth}: {mended:?}");
            usize::from(mended.is_err())
        });
    }
    assert!(ended > 0, "nothing failed");
}
