//! Reads of what is not in the batch cache: chunks that are shared, read ahead, given up, and that
//! the disk does not give.

#![allow(
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::cell::RefCell;
use std::future::{pending, ready};
use std::rc::Rc;

use futures_util::FutureExt;
use support::{
    Chance, DIRECTORY, TOPIC_ID, Task, batch, bytes_of, pause, records_of, run, run_all, slow_down,
};
use vltava_protocol::encode::Part;
use vltava_storage::io::fault_disk::{Fault, FaultDisk, Operation};
use vltava_storage::{
    AppendClass, EnvironmentOptions, LoadedNotes, Log, LogEnvironment, LogOptions, StorageError,
};

const CHUNK_BYTES: usize = 8192;
const VALUE_BYTES: usize = 1000;

type Shard = Rc<LogEnvironment<FaultDisk>>;
type Calls = Rc<RefCell<Vec<Operation>>>;

fn shard(disk: &FaultDisk, chunks: usize) -> Shard {
    let options = EnvironmentOptions {
        read_chunk_bytes: CHUNK_BYTES,
        read_bytes_max: chunks * CHUNK_BYTES,
        ..EnvironmentOptions::default()
    };
    LogEnvironment::new(disk.clone(), options, 0, LoadedNotes::default())
}

/// A log of so many batches of one record, on disk and nowhere else.
async fn old_log(disk: &FaultDisk, batches: usize, chunks: usize) -> (Shard, Log<FaultDisk>) {
    let first = shard(disk, chunks);
    let log = Log::create(&first, DIRECTORY, TOPIC_ID, LogOptions::default()).await.unwrap();
    for n in 0..batches {
        append(&log, n);
        log.write_pending().await.unwrap();
    }
    log.close().await.unwrap();
    drop((log, first));
    let shard = shard(disk, chunks);
    let log = support::ready(Log::open(&shard, DIRECTORY, LogOptions::default()).await.unwrap());
    (shard, log)
}

fn append(log: &Log<FaultDisk>, n: usize) {
    let batch = batch(1, &[vec![n as u8; VALUE_BYTES]], None);
    log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
}

/// Reads of the log's own file, from now on.
fn recorded(disk: &FaultDisk) -> Calls {
    let calls = Calls::default();
    let kept = Rc::clone(&calls);
    disk.set_latency(Some(Rc::new(move |operation| {
        if operation.name == "read" && operation.path.ends_with(".log") {
            kept.borrow_mut().push(operation.clone());
        }
        Box::pin(ready(())) as Task
    })));
    calls
}

/// Reads from `next` on, and checks what came. Where the next read begins.
async fn read(log: &Log<FaultDisk>, next: i64, bytes_max: usize) -> Result<i64, StorageError> {
    let result = log.read(next, log.flushed_end(), bytes_max, true).await?;
    let found = records_of(&bytes_of(&result.parts).unwrap()).unwrap();
    assert_eq!(found.first().unwrap().offset, next);
    for record in &found {
        assert_eq!(record.value, vec![record.offset as u8; VALUE_BYTES]);
    }
    Ok(found.last().unwrap().offset + 1)
}

fn is_in_memory(parts: &[Part]) -> bool {
    parts.iter().all(|part| matches!(part, Part::Memory(_)))
}

#[test]
fn readers_near_one_another_share_what_is_read() {
    run(async {
        let disk = FaultDisk::new(1);
        let (_shard, log) = old_log(&disk, 200, 64).await;
        let calls = recorded(&disk);
        let (mut first, mut second) = (0, 0);
        while first < 200 {
            first = read(&log, first, 10_000).await.unwrap();
            if first > 20 {
                second = read(&log, second, 10_000).await.unwrap();
            }
        }
        let bytes: usize = calls.borrow().iter().map(|call| call.bytes).sum();
        assert_eq!(bytes as u64, log.segments()[0].bytes);
    });
}

/// What is asked for in order is read before it is asked for; what is not is read alone.
#[test]
fn only_who_reads_in_order_is_read_ahead_for() {
    run(async {
        let disk = FaultDisk::new(1);
        let (_shard, log) = old_log(&disk, 400, 64).await;
        let calls = recorded(&disk);
        for from in [300, 100, 250, 50] {
            calls.borrow_mut().clear();
            read(&log, from, 2000).await.unwrap();
            // The chunk in which the index leads to it, and those in which it begins and ends.
            assert!(calls.borrow().len() <= 3, "{:?}", calls.borrow());
        }
        calls.borrow_mut().clear();
        let next = read(&log, 0, 10_000).await.unwrap();
        // Two for the answer, four ahead.
        assert!((4..=7).contains(&calls.borrow().len()), "{:?}", calls.borrow());
        disk.set_latency(Some(Rc::new(|operation| {
            let is_log = operation.name == "read" && operation.path.ends_with(".log");
            if is_log { Box::pin(pending()) as Task } else { Box::pin(ready(())) as Task }
        })));
        // No read that begins now ends: nor does the answer wait for one.
        let second = read(&log, next, 10_000).now_or_never();
        assert!(second.expect("all of it was read ahead").unwrap() > next);
    });
}

/// What answers on their way still hold is bounded, and who is served meanwhile gets ranges of
/// files.
#[test]
fn answers_that_do_not_leave_hold_no_more_than_the_budget() {
    run(async {
        let disk = FaultDisk::new(1);
        let (shard, log) = old_log(&disk, 600, 16).await;
        let mut held = Vec::new();
        let mut next = 0;
        while next < 600 {
            let result = log.read(next, 600, 1 << 20, true).await.unwrap();
            let bytes = bytes_of(&result.parts).unwrap();
            next = records_of(&bytes).unwrap().last().unwrap().offset + 1;
            held.push(result.parts);
            assert!(shard.buffer_bytes() <= 2 * 16 * CHUNK_BYTES, "{}", shard.buffer_bytes());
        }
        assert!(held.iter().any(|parts| !is_in_memory(parts)), "there is no memory for all");
        // Each took less than the one before it: the first ones did not take everything.
        assert!(held.iter().filter(|parts| is_in_memory(parts)).count() > 10);
        drop(held);
        let result = log.read(0, 600, 1 << 20, true).await.unwrap();
        assert!(is_in_memory(&result.parts));
        assert!(shard.buffer_bytes() <= 16 * CHUNK_BYTES);
    });
}

/// Readers who went away leave chunks behind that were read ahead: others get that memory.
#[test]
fn what_was_read_ahead_for_nobody_is_given_up() {
    run(async {
        let disk = FaultDisk::new(1);
        let (_shard, log) = old_log(&disk, 2000, 16).await;
        for from in (0..1800).step_by(97) {
            let next = read(&log, from, 9000).await.unwrap();
            read(&log, next, 9000).await.unwrap();
        }
        let mut next = 0;
        for _ in 0..12 {
            next = read(&log, next, 30_000).await.unwrap();
        }
        let calls = recorded(&disk);
        for _ in 0..12 {
            next = read(&log, next, 30_000).await.unwrap();
        }
        let mut seen = std::collections::BTreeMap::new();
        for call in calls.borrow().iter() {
            *seen.entry(call.bytes).or_insert(0) += 1;
        }
        // Each chunk once, all of them whole.
        let chunks = 12 * 30_000 / CHUNK_BYTES;
        let whole = seen.get(&CHUNK_BYTES).copied().unwrap_or(0);
        assert!(whole <= chunks + 4, "{whole} reads of {chunks} chunks");
    });
}

/// A damaged index is made anew from all of the segment, which is not kept.
#[test]
fn a_rebuilt_index_does_not_push_out_what_readers_want() {
    run(async {
        let disk = FaultDisk::new(1);
        let (_shard, log) = old_log(&disk, 400, 16).await;
        for from in [20, 50, 80] {
            read(&log, from, 2000).await.unwrap();
        }
        let path = disk.files().into_iter().find(|path| path.ends_with(".index")).unwrap();
        disk.damage(&path, |content| content.fill(u8::MAX));
        assert!(log.release_idle());
        let calls = recorded(&disk);
        read(&log, 350, 2000).await.unwrap();
        let bytes: usize = calls.borrow().iter().map(|call| call.bytes).sum();
        assert!(bytes > 400_000, "the index is sound: {bytes} bytes read");
        calls.borrow_mut().clear();
        for from in [20, 50, 80] {
            read(&log, from, 2000).await.unwrap();
        }
        assert!(calls.borrow().is_empty(), "{:?}", calls.borrow());
    });
}

/// Whichever read fails, the answer is an error, or right; and what failed is asked for again.
#[test]
fn a_read_that_fails_is_an_error_and_no_guess() {
    run(async {
        let mut errors = 0;
        for at in 0..60 {
            let disk = FaultDisk::new(at);
            let (_shard, log) = old_log(&disk, 150, 16).await;
            disk.inject(Fault::FailRead { at: disk.reads() + at });
            // Out of order, where nothing is read ahead; then in order.
            for from in [60, 140, 20, 100, 40, 120, 80] {
                match read(&log, from, 12_000).await {
                    Ok(_) => {}
                    Err(StorageError::Unreadable(_)) => errors += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            let mut next = 0;
            while next < 150 {
                match read(&log, next, 12_000).await {
                    Ok(end) => next = end,
                    Err(StorageError::Unreadable(_)) => errors += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            assert!(log.ended().is_none());
        }
        assert!(errors > 10, "{errors}");
    });
}

/// A chunk that the disk did not give when it was read ahead is asked for again by who wants it.
#[test]
fn what_failed_ahead_is_read_again() {
    run(async {
        let mut last_ahead = None;
        for _ in 0..2 {
            let disk = FaultDisk::new(1);
            let (_shard, log) = old_log(&disk, 150, 16).await;
            if let Some(at) = last_ahead {
                disk.inject(Fault::FailRead { at });
            }
            let mut next = read(&log, 0, 10_000).await.unwrap();
            last_ahead = Some(disk.reads() - 1);
            while next < 150 {
                next = read(&log, next, 10_000).await.unwrap();
            }
        }
    });
}

/// What a file did not hold once is asked for again: a disk may have been without it for a moment.
#[test]
fn a_chunk_that_came_short_is_read_again() {
    run(async {
        let disk = FaultDisk::new(1);
        let (_shard, log) = old_log(&disk, 150, 16).await;
        let path = disk.files().into_iter().find(|path| path.ends_with(".log")).unwrap();
        let whole = disk.content(&path).unwrap();
        let middle = whole.len() / 2;
        disk.damage(&path, |content| content.truncate(middle));
        let (at, mut errors) = (75, 0);
        for from in [at - 10, at, at + 10] {
            errors += usize::from(read(&log, from, 12_000).await.is_err());
        }
        assert!(errors > 1, "{errors}");
        disk.damage(&path, |content| content.clone_from(&whole));
        for from in [at - 10, at, at + 10] {
            read(&log, from, 12_000).await.unwrap();
        }
    });
}

/// Bytes that are cut away while they are being read, or read ahead, are not what is read where
/// others are written later.
#[test]
fn what_was_cut_is_not_read_from_a_chunk() {
    for seed in 0..40 {
        let disk = FaultDisk::new(seed);
        let (_shard, log) = run(old_log(&disk, 120, 16));
        let chance = Rc::new(Chance::new(seed));
        slow_down(&disk, &chance);
        let kept = 30 + chance.below(60) as i64;
        let mut tasks: Vec<Task> = Vec::new();
        for _ in 0..3 {
            let (log, chance) = (log.clone(), Rc::clone(&chance));
            tasks.push(Box::pin(async move {
                for _ in 0..8 {
                    pause(chance.below(20)).await;
                    let from = chance.below(30) as i64;
                    // What lies above the cut may be gone.
                    drop(log.read(from, log.flushed_end(), 60_000, true).await);
                }
            }));
        }
        let (cut, chance_too) = (log.clone(), Rc::clone(&chance));
        tasks.push(Box::pin(async move {
            pause(chance_too.below(60)).await;
            cut.truncate(kept).await.unwrap();
            for n in kept..120 {
                let batch = batch(1, &[vec![255 - n as u8; VALUE_BYTES]], None);
                cut.append(vec![batch], 1, AppendClass::Client, 1).unwrap();
                cut.write_pending().await.unwrap();
            }
        }));
        run_all(&chance, tasks);
        disk.set_latency(None);
        run(async {
            // Not from the batch cache.
            log.close().await.unwrap();
            let mut next = 0;
            while next < 120 {
                let result = log.read(next, 120, 20_000, true).await.unwrap();
                for record in records_of(&bytes_of(&result.parts).unwrap()).unwrap() {
                    let n = record.offset;
                    let byte = if n < kept { n as u8 } else { 255 - n as u8 };
                    assert_eq!(record.value, vec![byte; VALUE_BYTES], "{n}, cut at {kept}");
                    next = n + 1;
                }
            }
        });
    }
}
