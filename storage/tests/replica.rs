//! A copy of a log, as a follower keeps it: what a leader sent, byte for byte, cut and reset as
//! raft needs it; a crash at each disk operation.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use bytes::Bytes;
use support::workload::{Model, log_on, open_or_create};
use support::{
    Chance, DIRECTORY, TOPIC_ID, Task, batch, bytes_of, environment, pause, ready, run, run_all,
    slow_down, small_environment, small_options,
};
use vltava_protocol::batch::walk;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_storage::io::fault_disk::{Fault, FaultDisk};
use vltava_storage::io::{IoErrorKind, Space};
use vltava_storage::{
    AppendClass, EnvironmentOptions, LoadedNotes, Log, LogEnvironment, LogOptions, Opened,
    ReplicatedBatches, StorageError,
};

/// Options of the copy: its segments end elsewhere.
fn copy_options() -> LogOptions {
    LogOptions { segment_bytes: 15_000, index_interval_bytes: 900, ..small_options() }
}

async fn copy_on(disk: &FaultDisk) -> Result<Log<FaultDisk>, StorageError> {
    let environment = environment(disk).await?;
    let log = ready(open_or_create(&environment).await?);
    log.set_options(copy_options());
    Ok(log)
}

/// All batches from `from` to the flushed end, as a leader sends them.
async fn read_bytes(log: &Log<FaultDisk>, from: i64, bytes_max: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let mut next = from;
    while next < log.flushed_end() {
        let read = log.read(next, log.flushed_end(), bytes_max, true).await.unwrap();
        let bytes = bytes_of(&read.parts).unwrap();
        let batches = ReplicatedBatches::check(Bytes::from(bytes.clone())).unwrap();
        assert_eq!(batches.base_offset(), read.first_offset);
        next = batches.next_offset().unwrap();
        all.extend(bytes);
    }
    all
}

/// The copy takes what it lacks, at most so much at a time.
async fn copy_some(leader: &Log<FaultDisk>, copy: &Log<FaultDisk>, bytes_max: usize) {
    let read = leader.read(copy.end(), leader.flushed_end(), bytes_max, true).await.unwrap();
    let batches = ReplicatedBatches::check(Bytes::from(bytes_of(&read.parts).unwrap())).unwrap();
    let next = batches.next_offset();
    let before = copy.end();
    let appended = copy.append_replicated(batches, AppendClass::Replica, 5).unwrap();
    assert_eq!(appended.base_offset, before);
    assert_eq!(appended.last_offset + 1, next.unwrap_or(before));
}

/// The copy begins anew at the leader's start.
async fn reset(leader: &Log<FaultDisk>, copy: &Log<FaultDisk>, base: i64) {
    let mut epochs = leader.epochs();
    epochs.retain(|(_, start)| *start <= base);
    copy.reset_to(base, &leader.producers_before(base), &epochs).await.unwrap();
    let ends = (copy.log_start(), copy.flushed_end(), copy.end());
    assert_eq!((ends, copy.size_bytes()), ((base, base, base), 0));
}

/// All that both have is equal.
async fn check_equal(leader: &Log<FaultDisk>, copy: &Log<FaultDisk>, what: &str) {
    assert_eq!(copy.flushed_end(), leader.flushed_end(), "{what}");
    let start = leader.log_start().max(copy.log_start());
    // Whole batches: the first may begin before.
    let of_leader = read_bytes(leader, start, 7000).await;
    let of_copy = read_bytes(copy, start, 3000).await;
    assert!(of_leader == of_copy, "{what}: batches from {start} on differ");
    assert_eq!(copy.producers(), leader.producers(), "{what}");
    let from_start = |epochs: Vec<(i32, i64)>| -> Vec<(i32, i64)> {
        epochs.into_iter().map(|(epoch, at)| (epoch, at.max(start))).collect()
    };
    let behind = |epochs: &[(i32, i64)]| epochs.iter().filter(|e| e.1 > start).count();
    let (of_leader, of_copy) = (from_start(leader.epochs()), from_start(copy.epochs()));
    let (a, b) = (behind(&of_leader), behind(&of_copy));
    assert_eq!(of_leader[of_leader.len() - a..], of_copy[of_copy.len() - b..], "{what}");
    if leader.flushed_end() > start {
        assert_eq!(leader.latest_epoch(), copy.latest_epoch(), "{what}");
    }
}

/// A leader and its copy, for so many steps.
async fn follow(seed: u64) {
    let chance = Chance::new(seed);
    // Who truncates forgets producers that only retention's past knew: one or the other.
    let leader_cuts = seed.is_multiple_of(2);
    let mut leader_disk = FaultDisk::new(seed);
    let mut copy_disk = FaultDisk::new(seed + 1);
    let mut leader = log_on(&leader_disk).await;
    let mut copy = copy_on(&copy_disk).await.unwrap();
    let mut model = Model::default();
    for step in 0..250 {
        let what = format!("seed {seed}, step {step}");
        match chance.below(20) {
            0..6 => {
                model.epoch += i32::from(chance.one_in(9));
                let batch = model.next_batch(&chance);
                leader.append(vec![batch], model.epoch, AppendClass::Client, 1).unwrap();
                if chance.one_in(2) {
                    leader.write_pending().await.unwrap();
                }
            }
            6..12 => copy_some(&leader, &copy, 1 + chance.below(9000) as usize).await,
            12 | 13 => drop(copy.write_pending().await.unwrap()),
            14 if chance.one_in(2) => {
                let end = copy.end();
                let to = (end - chance.below(8) as i64).max(copy.log_start());
                copy.truncate(to).await.unwrap();
                assert!(copy.end() <= to && copy.end() == copy.flushed_end(), "{what}");
            }
            15 if leader_cuts && chance.one_in(3) => {
                let to = leader.flushed_end() - chance.below(12) as i64;
                leader.truncate(to.max(leader.log_start())).await.unwrap();
                model.cut(leader.end());
                model.epoch += 1;
                if copy.end() > leader.end() {
                    // What is queued goes in any case.
                    let end = copy.flushed_end().min(leader.end());
                    copy.truncate(leader.end()).await.unwrap();
                    assert_eq!(copy.end(), end, "{what}: batches end at the same places");
                }
            }
            15 if !leader_cuts && chance.one_in(3) => {
                let end = leader.flushed_end();
                let to = (end - chance.below(40) as i64).max(leader.log_start());
                leader.delete_records(to).await.unwrap();
            }
            16 if chance.one_in(3) => {
                copy_disk = copy_disk.restart();
                copy = copy_on(&copy_disk).await.unwrap();
            }
            17 if chance.one_in(3) => {
                if leader.has_pending() {
                    leader.write_pending().await.unwrap();
                }
                leader.close().await.unwrap();
                leader_disk = leader_disk.restart();
                leader = log_on(&leader_disk).await;
            }
            18 => {
                copy.checkpoint().await.unwrap();
                leader.checkpoint().await.unwrap();
                copy.release_idle();
            }
            _ => {
                while leader.has_pending() {
                    leader.write_pending().await.unwrap();
                }
                while copy.end() < leader.flushed_end() {
                    if copy.end() < leader.log_start() {
                        break;
                    }
                    copy_some(&leader, &copy, 20_000).await;
                }
            }
        }
        // Of what was deleted there, a copy that lags gets nothing any more.
        if copy.end() < leader.log_start() || chance.one_in(60) {
            let base = leader.log_start();
            reset(&leader, &copy, first_whole(&leader, base).await).await;
        }
        if chance.one_in(10) {
            while leader.has_pending() {
                leader.write_pending().await.unwrap();
            }
            while copy.end() < leader.flushed_end() {
                copy_some(&leader, &copy, 9000).await;
            }
            while copy.has_pending() {
                copy.write_pending().await.unwrap();
            }
            check_equal(&leader, &copy, &what).await;
        }
    }
}

/// Where a batch begins at or behind this offset.
async fn first_whole(log: &Log<FaultDisk>, offset: i64) -> i64 {
    if offset == log.flushed_end() {
        return offset;
    }
    let bytes = log.read_in_memory(offset, log.flushed_end(), 1).await.unwrap();
    let batch = walk(&bytes).next().unwrap().unwrap();
    if batch.base_offset() < offset { batch.next_offset() } else { offset }
}

/// How many times as many seeds: more for a longer look, as in `crash`.
fn times() -> u64 {
    let times = std::env::var("VLTAVA_SEEDS").ok();
    times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

#[test]
fn a_copy_is_equal_byte_for_byte() {
    for seed in 0..60 * times() {
        run(follow(seed));
    }
}

/// Batches as a leader of this epoch sends them: one record or two each, some of a producer.
fn sent(from: i64, epoch: i32, count: i64) -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    let mut offset = from;
    for n in 0..count {
        let mut builder = BatchBuilder::new().position(offset, epoch);
        if n % 2 == 0 {
            builder = builder.producer(i64::from(epoch), 0, offset as i32);
        }
        let value = vec![epoch as u8; 100 + (offset as usize * 997 + epoch as usize) % 2500];
        for _ in 0..1 + offset % 2 {
            builder.append(1000 + offset, None, Some(&value), &[]).unwrap();
            offset += 1;
        }
        batches.push(builder.build());
    }
    batches
}

fn end_of(batches: &[Vec<u8>]) -> i64 {
    let last = batches.last().map(|bytes| walk(bytes).next().unwrap().unwrap().next_offset());
    last.unwrap_or(0)
}

fn checked(batches: &[Vec<u8>]) -> ReplicatedBatches {
    ReplicatedBatches::check(Bytes::from(batches.concat())).unwrap()
}

/// What a copy may hold after a crash: the first so many batches of this, and at least so many.
#[derive(Clone, Default)]
struct May {
    batches: Vec<Vec<u8>>,
    at_least: usize,
}

/// A life of a copy: three leaders, whose logs differ, with cuts in between. An error ends it.
async fn three_leaders(log: &Log<FaultDisk>, may: &mut May, seed: u64) -> Result<(), StorageError> {
    let chance = Chance::new(seed);
    let first = log.latest_epoch().map_or(1, |epoch| epoch + 1);
    for epoch in first..first + 3 {
        for _ in 0..4 {
            let more = sent(end_of(&may.batches), epoch, 1 + chance.below(5) as i64);
            may.batches.extend(more.iter().cloned());
            log.append_replicated(checked(&more), AppendClass::Replica, 9)?;
            if chance.one_in(3) {
                continue;
            }
            while log.has_pending() {
                let flushed = log.write_pending().await?;
                may.at_least =
                    may.batches.iter().take_while(|b| end_of(&[(*b).clone()]) <= flushed).count();
            }
            if chance.one_in(4) {
                log.checkpoint().await?;
            }
        }
        let flushed = log.flushed_end();
        let keep = may.at_least - (chance.below(9) as usize).min(may.at_least);
        may.at_least = keep;
        let to = end_of(&may.batches[..keep]);
        log.truncate(to).await?;
        assert!(log.end() == to.min(flushed));
        may.batches.truncate(keep);
    }
    Ok(())
}

async fn check_prefix(disk: &FaultDisk, may: &May, what: &str) -> Log<FaultDisk> {
    let log = copy_on(disk).await.unwrap();
    let found = read_bytes(&log, log.log_start(), 5000).await;
    let count = walk(&found).count();
    assert!((may.at_least..=may.batches.len()).contains(&count), "{what}: {count} batches");
    assert!(found == may.batches[..count].concat(), "{what}: not what was sent");
    let epochs: Vec<i32> = walk(&found).map(|batch| batch.unwrap().leader_epoch()).collect();
    assert_eq!(log.latest_epoch().filter(|_| count > 0), epochs.last().copied(), "{what}");
    // Producers are those of the batches.
    let copy = copy_on(&FaultDisk::new(1)).await.unwrap();
    copy.append_replicated(checked(&may.batches[..count]), AppendClass::Internal, 9).unwrap();
    assert_eq!(log.producers(), copy.producers(), "{what}");
    log
}

/// The three leaders on a disk with this fault; then what comes back.
async fn with_fault(seed: u64, fault: Fault) -> FaultDisk {
    let disk = FaultDisk::new(seed);
    if seed.is_multiple_of(2) {
        slow_down(&disk, &Rc::new(Chance::new(seed)));
    }
    let log = copy_on(&disk).await.unwrap();
    disk.inject(fault);
    let mut may = May::default();
    let mut went = three_leaders(&log, &mut may, seed).await;
    let what = format!("seed {seed}, {fault:?}");
    if let Err(error) = &went
        && log.ended().is_none()
    {
        // No space: nothing changed but what waited.
        assert!(matches!(error, StorageError::Full(_)), "{what}: {error}");
        assert_eq!(log.end(), log.flushed_end(), "{what}");
        disk.heal();
        let whole = |batches: &[Vec<u8>]| -> usize {
            batches.iter().take_while(|b| end_of(&[(*b).clone()]) <= log.end()).count()
        };
        may.batches.truncate(whole(&may.batches));
        went = three_leaders(&log, &mut may, seed + 1).await;
        assert!(went.is_ok(), "{what}");
    }
    drop(log);
    let log = check_prefix(&disk.restart(), &may, &what).await;
    // And it goes on from there.
    may.batches.truncate(walk(&read_bytes(&log, 0, 9000).await).count());
    let more = sent(log.end(), 19, 3);
    may.batches.extend(more.iter().cloned());
    log.append_replicated(checked(&more), AppendClass::Replica, 9).unwrap();
    while log.has_pending() {
        log.write_pending().await.unwrap();
    }
    may.at_least = may.batches.len();
    check_prefix(&disk.restart(), &may, &what).await;
    disk
}

fn operations_of(seed: u64) -> std::ops::Range<u64> {
    let disk = FaultDisk::new(seed);
    run(async {
        let log = copy_on(&disk).await.unwrap();
        let before = disk.operations();
        three_leaders(&log, &mut May::default(), seed).await.unwrap();
        before..disk.operations()
    })
}

#[test]
fn after_a_crash_at_any_operation_a_copy_holds_a_prefix_of_what_was_sent_last() {
    for seed in (0..6 * times()).map(|seed| seed + seed / 6 * 2) {
        for at in operations_of(seed) {
            run(with_fault(seed, Fault::Crash { at }));
        }
    }
}

#[test]
fn a_copy_on_a_failing_or_full_disk_holds_a_prefix_of_what_was_sent_last() {
    for kind in [IoErrorKind::Failed, IoErrorKind::Full] {
        for seed in 6..8 {
            for at in operations_of(seed) {
                run(with_fault(seed, Fault::Fail { at, kind }));
            }
        }
    }
}

/// A log of batches of one leader, the last of them queued, and what another one sends for a reset.
async fn log_to_reset(disk: &FaultDisk, batches: &[Vec<u8>]) -> Log<FaultDisk> {
    let log = copy_on(disk).await.unwrap();
    for batch in batches {
        log.append_replicated(checked(std::slice::from_ref(batch)), AppendClass::Replica, 9)
            .unwrap();
        log.write_pending().await.unwrap();
    }
    log.checkpoint().await.unwrap();
    let queued = sent(end_of(batches), 1, 1);
    log.append_replicated(checked(&queued), AppendClass::Replica, 9).unwrap();
    log
}

/// What a leader sends with a reset: its producers and epochs.
async fn beginning(base: i64) -> (Vec<u8>, Vec<(i32, i64)>) {
    let leader = copy_on(&FaultDisk::new(7)).await.unwrap();
    let batches = sent(0, 5, 100);
    leader.append_replicated(checked(&batches), AppendClass::Internal, 9).unwrap();
    let epochs = if base > 3 { vec![(2, 0), (5, 3)] } else { vec![(5, 0)] };
    (leader.producers_before(base), epochs)
}

/// The bases: behind the old log, where it ends, inside it, where one of its segments begins, at
/// its start.
fn bases(log: &Log<FaultDisk>) -> [i64; 5] {
    let end = log.flushed_end();
    let segments = log.segments();
    [end + 20, end, end - 3, segments[segments.len() / 2].base_offset, 0]
}

#[test]
fn after_a_crash_at_any_operation_of_a_reset_the_log_is_the_old_one_or_the_new() {
    let batches = sent(0, 1, 40);
    for which in 0..5 {
        let (mut old, mut new, mut at) = (0, 0, 0);
        loop {
            let went_through = run(async {
                let disk = FaultDisk::new(at);
                let log = log_to_reset(&disk, &batches).await;
                let base = bases(&log)[which];
                let (producers, epochs) = beginning(base).await;
                disk.inject(Fault::Crash { at: disk.operations() + at });
                let reset = log.reset_to(base, &producers, &epochs).await;
                let log = copy_on(&disk.restart()).await.unwrap();
                let is_new = log.log_start() == base && log.end() == base;
                assert!(is_new || reset.is_err());
                if is_new {
                    new += 1;
                    check_is_new(log, &disk, base, &producers).await;
                } else {
                    old += 1;
                    let may = May { batches: batches.clone(), at_least: batches.len() };
                    check_prefix(&disk.restart(), &may, "the old log").await;
                }
                reset.is_ok()
            });
            at += 1;
            if went_through {
                break;
            }
        }
        assert!(old > 1 && new > 5, "{old} {new}");
    }
}

async fn check_is_new(log: Log<FaultDisk>, disk: &FaultDisk, base: i64, producers: &[u8]) {
    assert_eq!(log.producers_before(base), producers);
    assert_eq!(log.epochs().len(), 1);
    assert_eq!(log.latest_epoch(), Some(5));
    assert_eq!((log.size_bytes(), log.segments().len()), (0, 1));
    let more = sent(base, 6, 5);
    log.append_replicated(checked(&more), AppendClass::Replica, 9).unwrap();
    while log.has_pending() {
        log.write_pending().await.unwrap();
    }
    let (end, known) = (log.end(), log.producers());
    let disk = disk.restart();
    assert!(disk.files().iter().all(|path| !path.ends_with("vltava-reset")));
    let log = copy_on(&disk).await.unwrap();
    assert_eq!((log.log_start(), log.end()), (base, end));
    assert!(read_bytes(&log, base, 3000).await == more.concat());
    assert_eq!(log.producers(), known);
    // Also when it is cut back to where it began.
    log.truncate(base).await.unwrap();
    assert_eq!(log.producers_before(base), producers);
}

#[test]
fn what_comes_after_a_reset_stays() {
    let batches = sent(0, 1, 30);
    for seed in 0..60 {
        run(async {
            let disk = FaultDisk::new(seed);
            let log = log_to_reset(&disk, &batches).await;
            let base = bases(&log)[seed as usize % 5];
            let (producers, epochs) = beginning(base).await;
            log.reset_to(base, &producers, &epochs).await.unwrap();
            check_is_new(log, &disk, base, &producers).await;
        });
    }
}

#[test]
fn a_reset_on_a_full_or_failing_disk_leaves_the_old_log_or_the_new() {
    let batches = sent(0, 1, 30);
    for kind in [IoErrorKind::Full, IoErrorKind::Failed] {
        let (mut refused, mut begun) = (0, 0);
        for at in 0..200 {
            let went_through = run(async {
                let disk = FaultDisk::new(at);
                let log = log_to_reset(&disk, &batches).await;
                let base = log.flushed_end() + 5;
                let (producers, epochs) = beginning(base).await;
                disk.inject(Fault::Fail { at: disk.operations() + at, kind });
                let reset = log.reset_to(base, &producers, &epochs).await;
                disk.heal();
                if let Err(error) = &reset
                    && log.ended().is_none()
                {
                    assert!(matches!(error, StorageError::Full(_)), "{error}");
                    if disk.files().iter().any(|path| path.ends_with("vltava-reset")) {
                        let more = checked(&sent(log.end(), 6, 1));
                        let taken = log.append_replicated(more, AppendClass::Replica, 9);
                        assert!(matches!(taken, Err(StorageError::Truncating)), "{taken:?}");
                        begun += 1;
                    } else {
                        assert_eq!((log.log_start(), log.end()), (0, end_of(&batches)));
                        assert!(read_bytes(&log, 0, 5000).await == batches.concat());
                        refused += 1;
                    }
                    log.reset_to(base, &producers, &epochs).await.unwrap();
                    check_is_new(log, &disk, base, &producers).await;
                    return false;
                }
                let log = copy_on(&disk.restart()).await.unwrap();
                if log.end() == base {
                    check_is_new(log, &disk, base, &producers).await;
                } else {
                    assert!(reset.is_err());
                    assert!(read_bytes(&log, 0, 5000).await == batches.concat());
                }
                reset.is_ok()
            });
            if went_through {
                break;
            }
        }
        let is_full = kind == IoErrorKind::Full;
        assert!(!is_full || refused >= 3 && begun >= 3, "{refused} {begun}");
    }
}

/// A damaged replica is repaired with what another one sends, whatever is damaged, and a stop in
/// between does not matter.
#[test]
fn a_damaged_log_begins_anew() {
    let batches = sent(0, 1, 30);
    for damaged in ["vltava-checkpoint", "00000000000000000000.log"] {
        let mut crashes = 0;
        for at in 0..60 {
            run(async {
                let disk = FaultDisk::new(at);
                drop(log_to_reset(&disk, &batches).await);
                let path = format!("{DIRECTORY}/{damaged}");
                disk.damage(&path, |content| content.truncate(20));
                let disk = disk.restart();
                let environment = environment(&disk).await.unwrap();
                let Opened::Corrupt(corrupt) = open_or_create(&environment).await.unwrap() else {
                    panic!("{damaged} was damaged");
                };
                let (producers, epochs) = beginning(50).await;
                disk.inject(Fault::Crash { at: disk.operations() + at });
                let reset = corrupt.reset_to(TOPIC_ID, 50, &producers, &epochs).await;
                let disk = disk.restart();
                let environment = support::environment(&disk).await.unwrap();
                match open_or_create(&environment).await.unwrap() {
                    Opened::Ready(log) => check_is_new(log, &disk, 50, &producers).await,
                    Opened::Corrupt(_) => {
                        assert!(reset.is_err());
                        crashes += 1;
                    }
                }
            });
        }
        assert!((1..6).contains(&crashes), "{crashes}");
    }
}

#[test]
fn what_does_not_continue_the_log_is_refused_and_changes_nothing() {
    run(async {
        let log = copy_on(&FaultDisk::new(1)).await.unwrap();
        let batches = sent(0, 3, 4);
        let append = |batches: &[Vec<u8>]| {
            log.append_replicated(checked(batches), AppendClass::Replica, 9).map(|a| a.last_offset)
        };
        assert_eq!(append(&batches[..2]).unwrap(), 2);
        for wrong in [&batches[..1], &batches[1..], &batches[3..], &sent(3, 2, 1)] {
            let refused = append(wrong);
            assert!(matches!(refused, Err(StorageError::NotContinued { end: 3, .. })));
            assert_eq!((log.end(), log.latest_epoch()), (3, Some(3)));
        }
        assert_eq!(append(&[]).unwrap(), 2, "nothing is nothing");
        append(&batches[2..]).unwrap();
        while log.has_pending() {
            log.write_pending().await.unwrap();
        }
        assert!(read_bytes(&log, 0, 1000).await == batches.concat());
        // A log that this node leads next, and then follows again.
        log.append(vec![batch(1, &[vec![1]], None)], 4, AppendClass::Client, 1).unwrap();
        assert!(append(&sent(log.end(), 3, 1)).is_err());
        append(&sent(log.end(), 5, 1)).unwrap();
        log.write_pending().await.unwrap();
        assert_eq!(log.epochs(), [(3, 0), (4, 7), (5, 8)]);
    });
}

/// A leader of epoch 5 that nobody followed is cut back to where its log began, or to where
/// retention left it, and follows one whose batches are of an older epoch.
#[test]
fn what_was_cut_away_whole_gives_way_to_older_epochs() {
    for seed in 0..40 {
        run(async {
            let disk = FaultDisk::new(seed);
            let log = copy_on(&disk).await.unwrap();
            let mut start = 0;
            if seed % 2 == 0 {
                log.append_replicated(checked(&sent(0, 2, 4)), AppendClass::Replica, 9).unwrap();
                while log.has_pending() {
                    log.write_pending().await.unwrap();
                }
                start = log.delete_records(log.flushed_end()).await.unwrap();
            }
            let alone = sent(start, 5, 3);
            log.append_replicated(checked(&alone), AppendClass::Replica, 9).unwrap();
            log.write_pending().await.unwrap();
            if seed % 3 == 0 {
                log.checkpoint().await.unwrap();
            }
            log.truncate(start).await.unwrap();
            let older = [sent(start, 3, 3), sent(end_of(&sent(start, 3, 3)), 4, 2)].concat();
            log.append_replicated(checked(&older), AppendClass::Replica, 9).unwrap();
            while log.has_pending() {
                log.write_pending().await.unwrap();
            }
            let behind = sent(log.end(), 3, 1);
            assert!(log.append_replicated(checked(&behind), AppendClass::Replica, 9).is_err());
            let epochs = log.epochs();
            let log = copy_on(&disk.restart()).await.unwrap();
            assert_eq!(log.end(), end_of(&older), "seed {seed}");
            assert!(read_bytes(&log, start, 4000).await == older.concat());
            assert_eq!(log.epochs(), epochs);
            assert_eq!(epochs.last().map(|epoch| epoch.0), Some(4));
        });
    }
}

/// A replica takes what others' clients write while half of the reserve is free; then it refuses,
/// and is well again when there is space.
#[test]
fn a_replica_may_use_half_of_the_reserve() {
    run(async {
        let disk = FaultDisk::new(1);
        let options = EnvironmentOptions { reserve_bytes: 1000, ..small_environment() };
        let environment = LogEnvironment::new(disk, options, 0, LoadedNotes::default());
        let options = copy_options();
        let log = Log::create(&environment, DIRECTORY, TOPIC_ID, options).await.unwrap();
        let may = |free: u64, class| {
            environment.set_space(Space { free, total: 1 << 30 });
            let batches = checked(&sent(log.end(), 1, 1));
            let appended = log.append_replicated(batches, class, 9);
            assert!(log.ended().is_none());
            !matches!(appended, Err(StorageError::Full(_)))
        };
        let free = [1000, 999, 500, 499, 0];
        assert_eq!(
            free.map(|free| may(free, AppendClass::Client)),
            [true, false, false, false, false]
        );
        assert_eq!(
            free.map(|free| may(free, AppendClass::Replica)),
            [true, true, true, false, false]
        );
        assert_eq!(free.map(|free| may(free, AppendClass::Internal)), [true; 5]);
        assert!(may(2000, AppendClass::Replica));
        log.write_pending().await.unwrap();
    });
}

/// Batches come, are cut while they wait or are on their way to the disk, and others take their
/// place.
async fn follow_leaders(log: Log<FaultDisk>, chance: Rc<Chance>) -> Vec<Vec<u8>> {
    let mut batches: Vec<Vec<u8>> = Vec::new();
    for epoch in 1..12 {
        for _ in 0..1 + chance.below(5) {
            let more = sent(end_of(&batches), epoch, 1 + chance.below(4) as i64);
            log.append_replicated(checked(&more), AppendClass::Replica, 9).unwrap();
            batches.extend(more);
            pause(chance.below(12)).await;
        }
        let keep = batches.len() - (chance.below(8) as usize).min(batches.len());
        let to = end_of(&batches[..keep]);
        log.truncate(to).await.unwrap();
        let end = log.end();
        assert!(end <= to && end == log.flushed_end() && !log.has_pending());
        batches.retain(|batch| end_of(std::slice::from_ref(batch)) <= end);
        assert_eq!(end_of(&batches), end, "whole batches");
    }
    batches
}

#[test]
fn cuts_while_batches_wait_and_are_written() {
    for seed in 0..150 * times() {
        let chance = Rc::new(Chance::new(seed));
        let disk = FaultDisk::new(seed);
        let log = run(copy_on(&disk)).unwrap();
        slow_down(&disk, &chance);
        let done: Rc<RefCell<Option<Vec<Vec<u8>>>>> = Rc::default();
        let (follower, driver) = (log.clone(), log.clone());
        let (result, is_done) = (Rc::clone(&done), Rc::clone(&done));
        let chance_too = Rc::clone(&chance);
        let tasks: Vec<Task> = vec![
            Box::pin(async move {
                let batches = follow_leaders(follower, chance_too).await;
                *result.borrow_mut() = Some(batches);
            }),
            Box::pin(async move {
                while is_done.borrow().is_none() {
                    if driver.has_pending() {
                        driver.write_pending().await.unwrap();
                    }
                    pause(1).await;
                }
            }),
        ];
        run_all(&chance, tasks);
        let batches = done.take().unwrap();
        let found = run(read_bytes(&log, 0, 5000));
        assert!(found == batches.concat(), "seed {seed}");
        let may = May { at_least: batches.len(), batches };
        run(check_prefix(&disk.restart(), &may, &format!("seed {seed}")));
    }
}

/// Rot below a cut is not cut away with it: nothing has changed, and the next start says what it
/// is.
#[test]
fn a_cut_that_finds_damage_changes_nothing() {
    run(async {
        let disk = FaultDisk::new(1);
        let environment = environment(&disk).await.unwrap();
        let log = ready(open_or_create(&environment).await.unwrap());
        let batches = sent(0, 1, 6);
        log.append_replicated(checked(&batches), AppendClass::Replica, 9).unwrap();
        while log.has_pending() {
            log.write_pending().await.unwrap();
        }
        let keep = end_of(&batches[..4]);
        let rotten = batches[..3].concat().len() + 100;
        let path = format!("{DIRECTORY}/00000000000000000000.log");
        assert!(disk.damage(&path, |content| content[rotten] ^= 1));
        let refused = log.truncate(keep).await;
        let Err(StorageError::Corrupt(corruption)) = refused else { panic!("{refused:?}") };
        assert_eq!(corruption.offset, end_of(&batches[..3]));
        assert!(log.ended().is_none());
        assert_eq!(log.flushed_end(), end_of(&batches));
        environment.write_notes().await.unwrap();
        let disk = disk.restart();
        let environment = support::environment(&disk).await.unwrap();
        match open_or_create(&environment).await.unwrap() {
            Opened::Corrupt(corrupt) => {
                assert_eq!(corrupt.corruption().offset, end_of(&batches[..3]));
            }
            Opened::Ready(log) => panic!("silently cut: {} of {keep}", log.end()),
        }
    });
}

/// Readers while the log is cut and goes on with what another leader sends: what they get are whole
/// batches of one of the two.
#[test]
fn readers_that_a_cut_overtakes_get_whole_batches() {
    let (mut first, mut second) = (0, 0);
    for seed in 0..300 {
        let chance = Rc::new(Chance::new(seed));
        let disk = FaultDisk::new(seed);
        let log = run(copy_on(&disk)).unwrap();
        let of_first = sent(0, 1, 25);
        run(async {
            log.append_replicated(checked(&of_first), AppendClass::Replica, 9).unwrap();
            while log.has_pending() {
                log.write_pending().await.unwrap();
            }
            log.release_idle();
        });
        slow_down(&disk, &chance);
        let is_done = Rc::new(Cell::new(false));
        let seen = Rc::new(RefCell::new([0, 0]));
        let mut tasks: Vec<Task> = Vec::new();
        for _ in 0..3 {
            let (log, chance, is_done) = (log.clone(), Rc::clone(&chance), Rc::clone(&is_done));
            let seen = Rc::clone(&seen);
            tasks.push(Box::pin(async move {
                while !is_done.get() {
                    let from = chance.below(36) as i64;
                    let bytes_max = 1 + chance.below(9000) as usize;
                    let bytes = if chance.one_in(2) {
                        log.read_in_memory(from, i64::MAX, bytes_max).await
                    } else {
                        let read = log.read(from, i64::MAX, bytes_max, true).await;
                        read.map(|read| Bytes::from(bytes_of(&read.parts).unwrap()))
                    };
                    match bytes {
                        Err(StorageError::OutOfRange { .. } | StorageError::Truncating) => {}
                        Err(error) => panic!("seed {seed}: {error}"),
                        Ok(bytes) => {
                            let batches = ReplicatedBatches::check(bytes).unwrap();
                            assert!(batches.base_offset().is_none_or(|base| base <= from));
                            let epoch = batches.latest_epoch().unwrap_or(0);
                            seen.borrow_mut()[usize::from(epoch == 2)] += 1;
                        }
                    }
                    pause(1).await;
                }
            }));
        }
        let (chance_too, writer) = (Rc::clone(&chance), log.clone());
        tasks.push(Box::pin(async move {
            pause(chance_too.below(40)).await;
            let to = end_of(&sent(0, 1, 1 + chance_too.below(24) as i64));
            if chance_too.one_in(3) {
                writer.reset_to(to, &[], &[(1, 0)]).await.unwrap();
            } else {
                writer.truncate(to).await.unwrap();
            }
            let more = sent(writer.end(), 2, 12);
            writer.append_replicated(checked(&more), AppendClass::Replica, 9).unwrap();
            while writer.has_pending() {
                writer.write_pending().await.unwrap();
            }
            pause(chance_too.below(200)).await;
            is_done.set(true);
        }));
        run_all(&chance, tasks);
        first += seen.borrow()[0];
        second += seen.borrow()[1];
    }
    assert!(first > 500 && second > 500, "{first} {second}");
}
