//! Clients append while a write fails, while retention cuts, while the log's start moves: what was
//! acknowledged is there, what was refused is not, and nobody waits above the log's end.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use support::workload::{log_on, opened};
use support::{
    Chance, DIRECTORY, Record, TOPIC_ID, Task, batch, pause, read_all, run, run_all, slow_down,
    small_environment, small_options,
};
use vltava_storage::io::fault_disk::{Fault, FaultDisk};
use vltava_storage::io::{Disk, IoErrorKind};
use vltava_storage::{
    AppendClass, EnvironmentOptions, LoadedNotes, Log, LogEnvironment, LogOptions, StorageError,
};

/// What the clients of a log, and whoever drives it, know.
#[derive(Default)]
struct Clients {
    /// Who waits, by the end of his batch: (end, number).
    waiting: Vec<(i64, u64)>,
    /// Told that it is durable: number to offset.
    acked: BTreeMap<u64, i64>,
    refused: BTreeSet<u64>,
    next: u64,
    epoch: i32,
}

impl Clients {
    fn append(&mut self, log: &Log<FaultDisk>, chance: &Chance) {
        let number = self.next;
        self.next += 1;
        self.epoch += i32::from(chance.one_in(9));
        let mut value = format!("{number}:").into_bytes();
        value.resize(20 + chance.below(4000) as usize, 7);
        let batch = batch(1000, &[value], Some((chance.below(2) as i64, 0, number as i32)));
        let Ok(appended) = log.append(vec![batch], self.epoch, AppendClass::Client, 1000) else {
            assert!(log.ended().is_some());
            return;
        };
        let highest = self.waiting.last().map_or(0, |(end, _)| *end);
        assert!(highest <= appended.base_offset, "{highest} waits above the log's end");
        self.waiting.push((appended.last_offset + 1, number));
    }

    /// As a partition's driver does after each write, without an await.
    fn after_write(&mut self, written: &Result<i64, StorageError>) {
        for (end, number) in std::mem::take(&mut self.waiting) {
            match written {
                Ok(flushed) if end <= *flushed => drop(self.acked.insert(number, end - 1)),
                Ok(_) => self.waiting.push((end, number)),
                Err(_) => drop(self.refused.insert(number)),
            }
        }
    }

    fn check(&self, log: &Log<FaultDisk>, found: &[Record], seed: u64) {
        let number_of = |record: &Record| -> u64 {
            let text = String::from_utf8_lossy(&record.value).into_owned();
            text.split(':').next().unwrap().parse().unwrap()
        };
        let found: BTreeMap<i64, &Record> = found.iter().map(|r| (r.offset, r)).collect();
        for (number, offset) in &self.acked {
            if *offset >= log.log_start() {
                let stands = found.get(offset).map(|record| number_of(record));
                assert_eq!(stands, Some(*number), "seed {seed}: lost {offset}");
            }
        }
        for record in found.values() {
            let number = number_of(record);
            assert!(!self.refused.contains(&number), "seed {seed}: {number} was refused");
            assert_eq!(log.epoch_at(record.offset), Some(record.epoch), "seed {seed}");
        }
    }
}

/// How a run went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    /// No write failed.
    Unharmed,
    /// Somebody was refused, and the log went on.
    Refused,
    /// The log ended.
    Ended,
}

/// Two clients and the driver; one task that makes the log shorter; and a disk that is full now and
/// then.
fn everything_at_once(seed: u64) -> Went {
    let chance = Rc::new(Chance::new(seed));
    let disk = FaultDisk::new(seed);
    let log = run(log_on(&disk));
    slow_down(&disk, &chance);
    let clients = Rc::new(RefCell::new(Clients::default()));
    let working = Rc::new(Cell::new(2));
    let mut tasks: Vec<Task> = Vec::new();
    for _ in 0..2 {
        let (log, clients, chance) = (log.clone(), Rc::clone(&clients), Rc::clone(&chance));
        let working = Rc::clone(&working);
        tasks.push(Box::pin(async move {
            for _ in 0..40 {
                clients.borrow_mut().append(&log, &chance);
                // Now and then the queue runs dry: retention closes the last segment only then.
                let polls = if chance.one_in(6) { 400 } else { 12 };
                pause(chance.below(polls)).await;
            }
            working.set(working.get() - 1);
        }));
    }
    let (driver, known, busy) = (log.clone(), Rc::clone(&clients), Rc::clone(&working));
    tasks.push(Box::pin(async move {
        while busy.get() > 0 || driver.has_pending() {
            if driver.has_pending() {
                let written = driver.write_pending().await;
                known.borrow_mut().after_write(&written);
            }
            pause(1).await;
        }
    }));
    let (keeper, chance_too, faulty) = (log.clone(), Rc::clone(&chance), disk.clone());
    tasks.push(Box::pin(async move {
        let mut options = small_options();
        options.retention_ms = Some(1);
        keeper.set_options(options);
        while working.get() > 0 {
            pause(chance_too.below(60)).await;
            // Either nothing can grow for a while, or one operation finds no space: a sync that
            // does ends the log.
            faulty.set_capacity(if chance_too.one_in(3) { 0 } else { 1 << 40 });
            if chance_too.one_in(16) {
                let at = faulty.operations() + chance_too.below(9);
                faulty.inject(Fault::Fail { at, kind: IoErrorKind::Full });
            }
            let done = match chance_too.below(3) {
                0 => keeper.checkpoint().await.map(drop),
                1 => {
                    let to = keeper.flushed_end() - chance_too.below(4) as i64;
                    keeper.delete_records(to).await.map(drop)
                }
                _ => keeper.apply_retention(5000, keeper.flushed_end()).await.map(drop),
            };
            let full = |error: &StorageError| matches!(error, StorageError::Full(_));
            assert!(done.as_ref().err().is_none_or(full) || keeper.ended().is_some(), "{done:?}");
        }
    }));
    run_all(&chance, tasks);
    disk.set_latency(None);
    disk.set_capacity(1 << 40);
    disk.heal();
    let clients = clients.borrow();
    assert!(clients.waiting.is_empty(), "somebody waits for ever");
    if log.ended().is_some() {
        return Went::Ended;
    }
    let found = run(read_all(&log, 5000)).unwrap();
    clients.check(&log, &found, seed);
    drop(log);
    let log = run(log_on(&disk));
    assert_eq!(run(read_all(&log, 5000)).unwrap(), found, "seed {seed}");
    if clients.refused.is_empty() { Went::Unharmed } else { Went::Refused }
}

#[test]
fn who_was_acknowledged_finds_it_and_who_was_refused_does_not() {
    let went: Vec<Went> = (0..400).map(everything_at_once).collect();
    let count = |kind| went.iter().filter(|went| **went == kind).count();
    let (refused, ended) = (count(Went::Refused), count(Went::Ended));
    assert!(refused > 100 && ended < 250, "{refused} met a full disk, {ended} ended");
}

/// A disk on which one kind of operation takes very long.
fn delay(disk: &FaultDisk, name: &'static str, path_end: &'static str, polls: u64) {
    disk.set_latency(Some(Rc::new(move |operation| {
        let is_slow = operation.name == name && operation.path.ends_with(path_end);
        let polls = if is_slow { polls } else { 0 };
        Box::pin(pause(polls)) as Task
    })));
}

async fn write(log: &Log<FaultDisk>, values: usize) {
    for _ in 0..values {
        append(log, 4000);
        log.write_pending().await.unwrap();
    }
}

/// Files are removed while the log takes and writes more: the file system may need long for a large
/// segment.
#[test]
fn writes_go_on_while_segments_are_removed() {
    for by_retention in [true, false] {
        let disk = FaultDisk::new(1);
        let log = run(log_on(&disk));
        run(write(&log, 22));
        let mut options = small_options();
        options.retention_bytes = Some(30_000);
        log.set_options(options);
        delay(&disk, "remove_file", ".log", 5000);
        let removed = Rc::new(Cell::new(false));
        let (keeper, done) = (log.clone(), Rc::clone(&removed));
        let tasks: Vec<Task> = vec![
            Box::pin(async move {
                if by_retention {
                    assert!(keeper.apply_retention(1000, 22).await.unwrap() > 1);
                } else {
                    assert_eq!(keeper.delete_records(17).await.unwrap(), 17);
                }
                done.set(true);
            }),
            Box::pin(async move {
                while log.log_start() == 0 {
                    pause(1).await;
                }
                pause(100).await;
                write(&log, 1).await;
                assert!(!removed.get(), "the write waited for the removal");
            }),
        ];
        run_all(&Chance::new(1), tasks);
    }
}

/// The file is made as long as what waits asks for. What comes meanwhile is not written behind its
/// end: a full disk would be met there by batches that have their space.
#[test]
fn nothing_is_written_where_no_space_was_taken() {
    let disk = FaultDisk::new(1);
    let (write_bytes_max, buffer_bytes_min) = (1 << 16, 1 << 14);
    let options = EnvironmentOptions { write_bytes_max, buffer_bytes_min, ..small_environment() };
    let environment = LogEnvironment::new(disk.clone(), options, 0, LoadedNotes::default());
    let log = run(opened(&environment));
    run(write(&log, 4));
    log.release_idle();
    let space = run(disk.space()).unwrap();
    disk.set_capacity(space.total - space.free + 4096);
    delay(&disk, "allocate", ".log", 50);
    append(&log, 4000);
    let (driver, client) = (log.clone(), log.clone());
    let tasks: Vec<Task> = vec![
        Box::pin(async move {
            assert_eq!(driver.write_pending().await.unwrap(), 5);
            let file = disk.content("topic-0/00000000000000000000.log").unwrap();
            assert_eq!(file.len(), 20_480);
            assert!(matches!(driver.write_pending().await, Err(StorageError::Full(_))));
        }),
        Box::pin(async move {
            pause(10).await;
            append(&client, 3000);
        }),
    ];
    run_all(&Chance::new(1), tasks);
    assert_eq!((log.flushed_end(), log.end()), (5, 5));
}

fn append(log: &Log<FaultDisk>, bytes: usize) {
    let batch = batch(1000, &[vec![7; bytes]], None);
    log.append(vec![batch], 0, AppendClass::Client, 1000).unwrap();
}

/// Zeros take as long as `held` says; appends take no time.
fn hold_zeros(disk: &FaultDisk, held: &Rc<Cell<u64>>) -> Rc<Cell<u64>> {
    let (held, begun) = (Rc::clone(held), Rc::new(Cell::new(0)));
    let count = Rc::clone(&begun);
    disk.set_latency(Some(Rc::new(move |operation| {
        let are_zeros = operation.name == "write" && operation.bytes > 8192;
        if !are_zeros {
            return Box::pin(pause(0)) as Task;
        }
        count.set(count.get() + 1);
        let held = Rc::clone(&held);
        Box::pin(std::future::poll_fn(move |_| {
            held.set(held.get().saturating_sub(1));
            if held.get() == 0 { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })) as Task
    })));
    begun
}

/// A log with a trickle, and zeros under way ahead of it that end when `held` is 0.
fn with_zeros_under_way(disk: &FaultDisk, held: &Rc<Cell<u64>>) -> Log<FaultDisk> {
    let environment = LogEnvironment::new(
        disk.clone(),
        EnvironmentOptions { zero_bytes_max: 65_536, ..EnvironmentOptions::default() },
        0,
        LoadedNotes::default(),
    );
    let log = run(Log::create(&environment, DIRECTORY, TOPIC_ID, LogOptions::default())).unwrap();
    let begun = hold_zeros(disk, held);
    while begun.get() == 0 {
        run(write_small(&log));
    }
    log
}

async fn write_small(log: &Log<FaultDisk>) {
    append(log, 1000);
    log.write_pending().await.unwrap();
}

/// Zeros are written beside the appends, not before them; but where they go, appends wait: the disk
/// asserts that no two writes at once touch a block.
#[test]
fn appends_go_on_beside_zeros_and_wait_only_for_those_in_their_way() {
    let disk = FaultDisk::new(1);
    let held = Rc::new(Cell::new(u64::MAX));
    let log = with_zeros_under_way(&disk, &held);
    assert!(disk.under_way().iter().any(|(path, _)| path.ends_with(".log")));
    run(write_small(&log));
    append(&log, 20_000);
    let waited = Rc::new(Cell::new(false));
    let (driver, still_held) = (log.clone(), Rc::clone(&held));
    let (did_wait, end) = (Rc::clone(&waited), log.end());
    let tasks: Vec<Task> = vec![
        Box::pin(async move {
            assert_eq!(driver.write_pending().await.unwrap(), end);
            assert!(did_wait.get(), "it went where zeros were under way");
        }),
        Box::pin(async move {
            pause(100).await;
            waited.set(true);
            still_held.set(1);
        }),
    ];
    run_all(&Chance::new(1), tasks);
    for _ in 0..200 {
        held.set(3);
        run(write_small(&log));
    }
    let found = run(read_all(&log, 5000)).unwrap();
    assert_eq!(found.len() as i64, log.end());
    drop(log);
    let log = run(log_on(&disk.restart()));
    assert_eq!(run(read_all(&log, 5000)).unwrap(), found);
}

/// Whatever makes the file shorter waits for zeros under way: the disk asserts that no file is cut
/// while it is written to.
#[test]
fn nothing_is_cut_closed_or_removed_while_zeros_are_under_way() {
    for way in 0..5 {
        let disk = FaultDisk::new(1);
        let held = Rc::new(Cell::new(u64::MAX));
        let log = with_zeros_under_way(&disk, &held);
        let end = log.end();
        assert!(!log.release_idle() && !disk.under_way().is_empty(), "they go on");
        held.set(50);
        match way {
            0 => run(log.close()).unwrap(),
            1 => run(log.truncate(end - 3)).unwrap(),
            2 => run(log.clone().remove()).unwrap(),
            3 => {
                log.set_options(LogOptions { segment_bytes: 1, ..LogOptions::default() });
                run(write_small(&log));
                assert_eq!(log.segments().len(), 2);
            }
            _ => {
                let options = LogOptions { retention_bytes: Some(0), ..LogOptions::default() };
                log.set_options(options);
                assert_eq!(run(log.apply_retention(1000, end)).unwrap(), 1);
            }
        }
        assert!(disk.under_way().is_empty(), "way {way}");
        if way == 1 || way == 3 || way == 4 {
            run(write_small(&log));
            let first = log.log_start();
            assert_eq!(run(read_all(&log, 5000)).unwrap().len() as i64, log.end() - first);
        }
    }
}

/// What a failed write of zeros leaves is not known, as with any other: the log ends. Where there
/// was no space after all it goes on, without zeros.
#[test]
fn zeros_that_fail_end_the_log_and_without_space_there_are_none() {
    let disk = FaultDisk::new(1);
    drop(with_zeros_under_way(&disk, &Rc::new(Cell::new(u64::MAX))));
    let at = disk.operations() - 1;
    for kind in [IoErrorKind::Failed, IoErrorKind::Full] {
        let disk = FaultDisk::new(1);
        disk.inject(Fault::Fail { at, kind });
        let log = with_zeros_under_way(&disk, &Rc::new(Cell::new(1)));
        append(&log, 1000);
        let written = run(log.write_pending());
        assert_eq!(written.is_ok(), kind == IoErrorKind::Full, "{written:?}");
        assert_eq!(log.ended().is_some(), kind == IoErrorKind::Failed);
        let found = run(read_all(&log, 5000)).unwrap().len() as i64;
        assert_eq!(found, log.flushed_end());
        let log = run(log_on(&disk.restart()));
        assert_eq!(log.flushed_end(), found);
    }
}

/// An offset is given once only: while the log is cut, none is given.
#[test]
fn nothing_is_appended_while_the_log_is_truncated() {
    let disk = FaultDisk::new(1);
    let log = run(log_on(&disk));
    run(write(&log, 3));
    delay(&disk, "set_len", ".log", 50);
    let (cutter, client) = (log.clone(), log.clone());
    let tasks: Vec<Task> = vec![
        Box::pin(async move { cutter.truncate(1).await.unwrap() }),
        Box::pin(async move {
            pause(10).await;
            let batch = batch(1000, &[vec![7; 10]], None);
            let appended = client.append(vec![batch], 0, AppendClass::Client, 1000);
            assert!(matches!(appended, Err(StorageError::Truncating)), "{appended:?}");
        }),
    ];
    run_all(&Chance::new(1), tasks);
    assert_eq!(log.end(), 1);
    run(write(&log, 1));
    assert_eq!(run(read_all(&log, 5000)).unwrap().len(), 2);
}
