//! What things cost: operations and bytes, not time.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use support::{DIRECTORY, TOPIC_ID, batch, read_all, ready, run};
use vltava_protocol::encode::Part;
use vltava_storage::io::Space;
use vltava_storage::io::fault_disk::{FaultDisk, Operation};
use vltava_storage::producer_state::SequenceCheck;
use vltava_storage::{
    AppendClass, EnvironmentOptions, LoadedNotes, Log, LogEnvironment, LogOptions, StorageError,
};

type Shard = Rc<LogEnvironment<FaultDisk>>;

fn shard(disk: &FaultDisk, options: EnvironmentOptions) -> Shard {
    LogEnvironment::new(disk.clone(), options, 0, LoadedNotes::default())
}

async fn new_log(shard: &Shard) -> Log<FaultDisk> {
    let options = LogOptions::default();
    Log::create(shard, DIRECTORY, TOPIC_ID, options).await.unwrap()
}

async fn reopened(shard: &Shard) -> Log<FaultDisk> {
    ready(Log::open(shard, DIRECTORY, LogOptions::default()).await.unwrap())
}

fn append(log: &Log<FaultDisk>, bytes: usize) -> Result<i64, StorageError> {
    let batch = batch(1, &[vec![5; bytes]], None);
    log.append(vec![batch], 0, AppendClass::Client, 1).map(|appended| appended.last_offset)
}

/// Records every call from now on.
fn recorded(disk: &FaultDisk) -> Rc<RefCell<Vec<Operation>>> {
    let calls = Rc::new(RefCell::new(Vec::new()));
    let kept = Rc::clone(&calls);
    disk.set_latency(Some(Rc::new(move |operation| {
        kept.borrow_mut().push(operation.clone());
        Box::pin(std::future::ready(())) as Pin<Box<dyn Future<Output = ()>>>
    })));
    calls
}

fn bytes_read(calls: &RefCell<Vec<Operation>>) -> usize {
    let calls = calls.borrow();
    let reads = calls.iter().filter(|call| call.name == "read");
    reads.map(|call| call.bytes).sum()
}

#[test]
fn recovery_reads_only_what_is_not_proved() {
    run(async {
        let disk = FaultDisk::new(1);
        let options =
            EnvironmentOptions { write_bytes_max: 64 << 10, ..EnvironmentOptions::default() };
        let first = shard(&disk, options.clone());
        let log = new_log(&first).await;
        for n in 0..400 {
            append(&log, 20_000).unwrap();
            if n % 3 == 0 {
                log.write_pending().await.unwrap();
            }
            if log.is_checkpoint_due() {
                log.checkpoint().await.unwrap();
            }
        }
        while log.has_pending() {
            log.write_pending().await.unwrap();
        }
        drop((log, first));
        let disk = disk.restart();
        let calls = recorded(&disk);
        let log = reopened(&shard(&disk, options)).await;
        assert_eq!(log.flushed_end(), 400);
        let read = bytes_read(&calls);
        // 8 MB of log: at most an eighth of it, a chunk, and what one write reaches.
        assert!(read < 2_800_000, "{read} bytes read");
        calls.borrow_mut().clear();
        disk.set_latency(None);
        assert_eq!(read_all(&log, 1 << 20).await.unwrap().len(), 400);
    });
}

/// Appends and writes until a checkpoint is due: how many bytes the log has grown by then.
async fn bytes_until_due(log: &Log<FaultDisk>) -> u64 {
    let before = log.size_bytes();
    while !log.is_checkpoint_due() {
        append(log, 50_000).unwrap();
        log.write_pending().await.unwrap();
    }
    log.size_bytes() - before
}

/// A checkpoint names all segments, and comes with a snapshot of all producers: for logs of many of
/// them it is written more seldom, after a restart, too.
#[test]
fn a_checkpoint_costs_a_small_part_of_the_log_it_is_written_for() {
    run(async {
        let disk = FaultDisk::new(1);
        let first = shard(&disk, EnvironmentOptions::default());
        let log = new_log(&first).await;
        assert!((1 << 20..2 << 20).contains(&bytes_until_due(&log).await));
        log.set_options(LogOptions { segment_bytes: 1, ..LogOptions::default() });
        for _ in 0..900 {
            append(&log, 10).unwrap();
            log.write_pending().await.unwrap();
        }
        log.set_options(LogOptions::default());
        // 80 bytes for each segment, sixteen times.
        let grown = bytes_until_due(&log).await;
        assert!((1_140_000..1_240_000).contains(&grown), "{grown}");
        for id in 0..1000 {
            let batch = batch(1, &[vec![1]], Some((id, 0, 0)));
            log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
        }
        log.close().await.unwrap();
        drop((log, first));
        let shard = shard(&disk, EnvironmentOptions::default());
        let log = reopened(&shard).await;
        // 82 bytes for each producer of one batch.
        let grown = bytes_until_due(&log).await;
        assert!((2_440_000..2_560_000).contains(&grown), "{grown}");
        assert!(log.checkpoint().await.unwrap());
        bytes_until_due(&log).await;
        let calls = recorded(&disk);
        assert!(log.checkpoint().await.unwrap());
        let count = |name| calls.borrow().iter().filter(|call| call.name == name).count();
        // The snapshot's, and the checkpoint's: the indexes had their names.
        assert_eq!(count("sync_dir"), 2);
    });
}

#[test]
fn many_appends_share_one_write_and_one_allocation_serves_many() {
    run(async {
        let disk = FaultDisk::new(1);
        let log = new_log(&shard(&disk, EnvironmentOptions::default())).await;
        let calls = recorded(&disk);
        for _ in 0..100 {
            append(&log, 1000).unwrap();
        }
        while log.has_pending() {
            log.write_pending().await.unwrap();
        }
        let count = |name| calls.borrow().iter().filter(|call| call.name == name).count();
        assert_eq!((count("write"), count("allocate"), count("sync")), (1, 1, 0));
        for _ in 0..400 {
            append(&log, 1000).unwrap();
            log.write_pending().await.unwrap();
        }
        let is_append = |call: &&Operation| call.name == "write" && call.bytes <= 8192;
        assert_eq!(calls.borrow().iter().filter(is_append).count(), 400);
        // Zeros go ahead of them in larger and larger pieces.
        assert!(count("write") < 412, "{} writes", count("write"));
        assert!(count("allocate") < 6, "{} allocations", count("allocate"));
        assert_eq!(count("sync") + count("set_len") + count("sync_dir"), 0);
    });
}

/// Bytes of zeros that are written beside so many appends, and what the log holds then.
async fn zeroed(log: &Log<FaultDisk>, disk: &FaultDisk, bytes: usize, appends: u64) -> (u64, u64) {
    let calls = recorded(disk);
    for _ in 0..appends {
        append(log, bytes).unwrap();
        log.write_pending().await.unwrap();
    }
    disk.set_latency(None);
    let calls = calls.borrow();
    let written = calls.iter().filter(|call| call.name == "write");
    // What an append writes, and the block that it begins in.
    let zeros = written.filter(|call| call.bytes > (bytes + 200).next_multiple_of(4096) + 4096);
    (zeros.map(|call| call.bytes as u64).sum(), log.size_bytes())
}

#[test]
fn zeros_are_written_for_a_trickle_only_and_as_many_as_it_may_need() {
    run(async {
        let disk = FaultDisk::new(1);
        let log = new_log(&shard(&disk, EnvironmentOptions::default())).await;
        // Ten thousand logs may hold a few records each, and get one now and then.
        assert_eq!(zeroed(&log, &disk, 200, 50).await.0, 0);
        for _ in 0..50 {
            log.release_idle();
            assert_eq!(zeroed(&log, &disk, 1000, 10).await.0, 0);
        }
        let before = log.size_bytes();
        let (zeros, size) = zeroed(&log, &disk, 1000, 2000).await;
        let ahead = 256 << 10;
        assert!(zeros > size - before && zeros < size - before + 2 * ahead, "{zeros} of {size}");
        // Large writes need them not: one piece more may come before that is known.
        assert!(zeroed(&log, &disk, 200_000, 100).await.0 <= ahead);
        let none = EnvironmentOptions { zero_bytes_max: 0, ..EnvironmentOptions::default() };
        let disk = FaultDisk::new(1);
        let log = new_log(&shard(&disk, none)).await;
        assert_eq!(zeroed(&log, &disk, 1000, 500).await.0, 0);
    });
}

#[test]
fn a_sequential_reader_of_old_ranges_reads_each_chunk_once() {
    run(async {
        let disk = FaultDisk::new(1);
        let first = shard(&disk, EnvironmentOptions::default());
        let log = new_log(&first).await;
        for _ in 0..2000 {
            append(&log, 2000).unwrap();
            log.write_pending().await.unwrap();
        }
        log.close().await.unwrap();
        drop((log, first));
        let log = reopened(&shard(&disk, EnvironmentOptions::default())).await;
        let calls = recorded(&disk);
        let (mut next, mut answers) = (0, 0);
        while next < 2000 {
            let result = log.read(next, 2000, 100_000, true).await.unwrap();
            assert!(result.bytes <= 100_000);
            let in_memory = |part: &Part| matches!(part, Part::Memory(_));
            assert!(result.parts.iter().all(in_memory));
            let bytes = support::bytes_of(&result.parts).unwrap();
            next = support::records_of(&bytes).unwrap().last().unwrap().offset + 1;
            answers += 1;
        }
        let reads = calls.borrow().iter().filter(|call| call.name == "read").count();
        // 17 chunks of the log, and now and then a piece of the index.
        assert!(reads <= 17 + 8, "{reads} reads for {answers} answers");
        let log_bytes = log.segments()[0].bytes;
        let index_bytes = 2 * 8 * log_bytes / 4096;
        let read = bytes_read(&calls) as u64;
        assert!(read <= log_bytes + index_bytes, "{read} bytes read of {log_bytes}");
    });
}

/// Buffers are filled to their ends: headers and batches lie over the borders, at every place.
#[test]
fn what_lies_over_two_buffers_is_read_from_memory() {
    run(async {
        let disk = FaultDisk::new(1);
        let options = EnvironmentOptions {
            buffer_bytes_min: 4096,
            buffer_bytes_max: 4096,
            write_bytes_max: 8192,
            ..EnvironmentOptions::default()
        };
        let log = new_log(&shard(&disk, options)).await;
        let calls = recorded(&disk);
        let mut batches = Vec::new();
        // A header begins 1 to 80 bytes before a border, and batches go over one and over several.
        for (n, size) in (0..80).flat_map(|n| [10, 4096 - 2 * 70 + n % 3, 9000]).zip(0..) {
            let value = vec![u8::try_from(size % 251).unwrap(); n + size % 7];
            batches.push(value.clone());
            let timestamp = i64::from(u16::try_from(size).unwrap());
            let batch = batch(timestamp, &[value], None);
            log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
            if size % 3 == 0 {
                log.write_pending().await.unwrap();
            }
        }
        while log.has_pending() {
            log.write_pending().await.unwrap();
        }
        for (offset, value) in (0..).zip(&batches) {
            let read = log.read(offset, offset + 1, 1, true).await.unwrap();
            let bytes = support::bytes_of(&read.parts).unwrap();
            assert_eq!(support::records_of(&bytes).unwrap()[0].value, *value);
            let joined = log.read_in_memory(offset, offset + 1, 1).await.unwrap();
            assert_eq!(joined, bytes);
            let found = log.offset_for_timestamp(offset).await.unwrap().unwrap();
            assert_eq!(found.offset, offset);
        }
        let reads = calls.borrow().iter().filter(|call| call.name == "read").count();
        assert_eq!(reads, 0);
    });
}

#[test]
fn clients_are_refused_below_the_reserve_and_the_broker_is_not() {
    run(async {
        let disk = FaultDisk::new(1);
        let options =
            EnvironmentOptions { reserve_bytes: 1_000_000, ..EnvironmentOptions::default() };
        let shard = shard(&disk, options);
        let log = new_log(&shard).await;
        append(&log, 10).unwrap();
        let space = |free| Space { free, total: 1 << 30 };
        shard.set_space(space(999_999));
        assert!(matches!(append(&log, 10), Err(StorageError::Full(_))));
        let begun = |sequence| batch(1, &[b"first".to_vec()], Some((7, 0, sequence)));
        let refused = log.append(vec![begun(0)], 0, AppendClass::Client, 1);
        assert!(matches!(refused, Err(StorageError::Full(_))));
        let behind = log.check_producer(&begun(1).producer().unwrap());
        assert_eq!(behind, SequenceCheck::OutOfOrder, "the refused one has not come again");
        let own = batch(1, &[b"own".to_vec()], None);
        let internal = log.append(vec![own], 0, AppendClass::Internal, 1);
        assert_eq!(internal.unwrap().base_offset, 1);
        log.write_pending().await.unwrap();
        shard.set_space(space(1_010_000));
        append(&log, 10).unwrap();
        append(&log, 60_000).unwrap();
        log.write_pending().await.unwrap();
        // What was allocated since the disk was asked counts.
        assert!(matches!(append(&log, 10), Err(StorageError::Full(_))));
        assert!(shard.refresh_space().await.unwrap().free > 1 << 30);
        append(&log, 10).unwrap();
    });
}

#[test]
fn a_hundred_thousand_producers_take_bounded_memory() {
    run(async {
        let disk = FaultDisk::new(1);
        let options =
            EnvironmentOptions { producer_ids_max: 5000, ..EnvironmentOptions::default() };
        let shard = shard(&disk, options.clone());
        let log = new_log(&shard).await;
        let expired = LogOptions { producer_expiration_ms: 10, ..LogOptions::default() };
        for id in 0..100_000 {
            let batch = batch(100, &[vec![1]], Some((id, 0, 0)));
            log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
            if id % 500 == 0 {
                log.write_pending().await.unwrap();
            }
        }
        while log.has_pending() {
            log.write_pending().await.unwrap();
        }
        assert_eq!((shard.producer_ids(), log.producers().len()), (5000, 5000));
        let again = |id| batch(100, &[vec![1]], Some((id, 0, 0))).producer().unwrap();
        let known = log.check_producer(&again(99_999));
        assert!(matches!(known, SequenceCheck::Duplicate { .. }));
        assert_eq!(log.check_producer(&again(1)), SequenceCheck::Append);
        drop((log, shard));
        let disk = disk.restart();
        let shard = self::shard(&disk, options);
        let log = reopened(&shard).await;
        assert_eq!(shard.producer_ids(), 5000);
        assert_eq!(log.check_producer(&again(99_999)), known);
        log.set_options(expired);
        log.apply_retention(109, 0).await.unwrap();
        assert_eq!(shard.producer_ids(), 5000);
        log.apply_retention(110, 0).await.unwrap();
        assert_eq!(shard.producer_ids(), 0);
    });
}

#[test]
fn files_of_readers_are_bounded() {
    run(async {
        let disk = FaultDisk::new(1);
        let options = EnvironmentOptions {
            open_files_max: 3,
            cache_bytes_max: 0,
            ..EnvironmentOptions::default()
        };
        let shard = shard(&disk, options);
        let log = new_log(&shard).await;
        log.set_options(LogOptions { segment_bytes: 10_000, ..LogOptions::default() });
        for _ in 0..60 {
            append(&log, 3000).unwrap();
            log.write_pending().await.unwrap();
        }
        assert!(log.segments().len() > 15);
        let opened = Rc::new(Cell::new(0));
        let count = Rc::clone(&opened);
        disk.set_latency(Some(Rc::new(move |operation| {
            count.set(count.get() + u32::from(operation.name == "open"));
            Box::pin(std::future::ready(())) as Pin<Box<dyn Future<Output = ()>>>
        })));
        assert_eq!(read_all(&log, 100_000).await.unwrap().len(), 60);
        let first = opened.replace(0);
        assert_eq!(read_all(&log, 100_000).await.unwrap().len(), 60);
        assert!(opened.get() >= first && first > 10, "closed files are opened again");
    });
}
