//! Random operations against a plain vector, one after the other and all at once.

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

use support::workload::{Model, check_producers, check_reopened, log_on, opened};
use support::{
    Chance, Record, Task, batch, bytes_of, environment, pause, read_all, records_of, run, run_all,
    slow_down, small_options,
};
use vltava_protocol::encode::Part;
use vltava_storage::io::fault_disk::FaultDisk;
use vltava_storage::producer_state::SequenceCheck;
use vltava_storage::{
    AppendClass, EnvironmentOptions, LoadedNotes, Log, LogEnvironment, ReadResult, StorageError,
    TimestampOffset,
};

/// One random read, compared with the vector.
async fn check_read(log: &Log<FaultDisk>, model: &Model, chance: &Chance) {
    let (start, end) = (log.first_batch(), log.flushed_end());
    let first = log.read(log.log_start(), i64::MAX, 1, true).await.unwrap().first_offset;
    assert_eq!(first.unwrap_or(log.log_start()), start, "the log's start is in its first batch");
    let from = start - 2 + chance.below((end - start + 5) as u64) as i64;
    let limit = from.max(0) + chance.below(60) as i64;
    let bytes_max = [1, 300, 2000, 20_000][chance.below(4) as usize];
    let at_least_one = !chance.one_in(4);
    let result = log.read(from, limit, bytes_max, at_least_one).await;
    if from < start || from > end {
        assert!(matches!(result, Err(StorageError::OutOfRange { .. })));
        return;
    }
    let result = result.unwrap();
    check_stable(log, &result);
    let bytes = bytes_of(&result.parts).unwrap();
    let found = records_of(&bytes).expect("whole batches");
    let Some(first) = found.first() else {
        assert_eq!((result.bytes, result.first_offset), (0, None));
        let nothing =
            from >= limit.min(end) || !at_least_one || batch_goes_over(model, from, limit);
        assert!(nothing, "nothing of {from}..{limit}");
        return;
    };
    let last = found.last().unwrap().offset;
    assert!(first.offset <= from && from <= last && last < limit.min(end));
    // Batches end where they like; what is there is what was written.
    assert_eq!(found, model.records[first.offset as usize..=last as usize]);
    let one_batch = found.len() <= 3;
    assert!(bytes.len() <= bytes_max || (at_least_one && one_batch), "{} bytes", bytes.len());
}

/// Of the active file, nothing is given out as a range that will be written again.
fn check_stable(log: &Log<FaultDisk>, result: &ReadResult) {
    let segments = log.segments();
    let active = segments.last().unwrap();
    if result.first_offset.is_none_or(|first| first < active.base_offset) {
        return;
    }
    for part in &result.parts {
        if let Part::External(range) = part {
            let end = range.position + range.len as u64;
            assert!(end <= active.bytes / 4096 * 4096, "{end} of {}", active.bytes);
        }
    }
}

/// Whether the batch that holds `from` may end at or behind `limit` (a batch has three records at
/// most).
fn batch_goes_over(model: &Model, from: i64, limit: i64) -> bool {
    from + 3 > limit.min(model.end())
}

async fn check_times(log: &Log<FaultDisk>, model: &Model, chance: &Chance) {
    let (start, end) = (log.log_start() as usize, log.flushed_end() as usize);
    let records = &model.records[start..end];
    let found = |record: &Record| TimestampOffset {
        timestamp: record.timestamp,
        offset: record.offset,
        leader_epoch: record.epoch,
    };
    let wanted = 900 + chance.below(model.now_ms as u64 + 200) as i64;
    let expected = records.iter().find(|record| record.timestamp >= wanted);
    let answered = log.offset_for_timestamp(wanted).await.unwrap();
    assert_eq!(answered, expected.map(found), "{wanted}");
    // The largest may stand below the log's start, in a segment that is still there.
    let largest = log.largest_timestamp().await.unwrap();
    let newest = records.iter().map(|record| record.timestamp).max();
    assert!(largest.map(|found| found.timestamp) >= newest);
}

async fn check_epochs(log: &Log<FaultDisk>, model: &Model) {
    let start = log.log_start() as usize;
    let records = &model.records[start..];
    assert_eq!(log.end(), model.end());
    let Some(last) = records.last() else {
        // A log that is empty remembers its epoch: the next one must not be smaller.
        let before = start.checked_sub(1).map(|at| model.records[at].epoch);
        assert!(log.latest_epoch() >= before, "{:?} after {before:?}", log.latest_epoch());
        return;
    };
    assert_eq!(log.latest_epoch(), Some(last.epoch));
    for epoch in 0..=last.epoch {
        let end = records.iter().find(|record| record.epoch > epoch);
        let end = end.map_or(log.end(), |record| record.offset);
        let answer = log.end_of_epoch(epoch).unwrap();
        if records[0].epoch <= epoch {
            assert_eq!(answer.end_offset, end, "epoch {epoch}");
        }
    }
}

async fn one_after_the_other(seed: u64) {
    let chance = Chance::new(seed);
    let mut disk = FaultDisk::new(seed);
    let mut model = Model::default();
    let mut environment = environment(&disk).await.unwrap();
    let mut log = opened(&environment).await;
    for _ in 0..250 {
        match chance.below(24) {
            0..8 => {
                model.epoch += i32::from(chance.one_in(8));
                let count = 1 + chance.below(4);
                let batches = (0..count).map(|_| model.next_batch(&chance)).collect();
                let (class, now) = (AppendClass::Client, model.now_ms + 1);
                log.append(batches, model.epoch, class, now).unwrap();
            }
            8..12 => model.acked_end = log.write_pending().await.unwrap(),
            12..16 => check_read(&log, &model, &chance).await,
            16 => check_times(&log, &model, &chance).await,
            17 => check_epochs(&log, &model).await,
            18 => drop(log.checkpoint().await.unwrap()),
            19 => drop(log.release_idle()),
            20 if chance.one_in(2) && log.flushed_end() > log.log_start() => {
                let range = (log.flushed_end() - log.log_start()) as u64;
                let to = log.log_start() + chance.below(range + 1) as i64;
                log.truncate(to).await.unwrap();
                let end = log.end();
                assert!(end <= to && end + 3 > to && end == log.flushed_end());
                model.cut(end);
                // What stood below the log's start, and before the oldest snapshot, cannot be known
                // again.
                let start = log.log_start();
                let below = model.sent.iter_mut().filter(|sent| sent.base_offset < start);
                below.for_each(|sent| sent.may_be_forgotten = true);
                check_producers(&log, &model);
                // Epochs go on from the highest that was ever used.
                model.epoch += 1;
            }
            21 if log.flushed_end() > 0 => {
                let to = chance.below(log.flushed_end() as u64 + 1) as i64;
                let expected = to.max(log.log_start());
                if chance.one_in(3) {
                    assert_eq!(log.delete_records(to).await.unwrap(), expected);
                }
            }
            22 if chance.one_in(3) => {
                let mut options = small_options();
                options.retention_bytes = Some(40_000);
                log.set_options(options.clone());
                let committed = log.flushed_end() - chance.below(5) as i64;
                log.apply_retention(model.now_ms, committed).await.unwrap();
                let closed = log.segments().len() > 1;
                assert!(!closed || log.size_bytes() < 40_000 + options.segment_bytes + 20_000);
                assert!(log.log_start() <= committed.max(0) || log.log_start() == model.start);
            }
            23 if chance.one_in(2) => {
                let orderly = chance.one_in(2);
                if orderly {
                    log.close().await.unwrap();
                    model.acked_end = model.end();
                }
                disk = if chance.one_in(2) { disk.restart() } else { disk };
                environment = support::environment(&disk).await.unwrap();
                log = opened(&environment).await;
                model.start_max = model.start_max.max(log.log_start());
                check_reopened(&log, &mut model).await;
                check_epochs(&log, &model).await;
            }
            _ => {}
        }
        model.start = log.log_start();
        model.start_max = model.start_max.max(model.start);
        model.acked_end = log.flushed_end();
    }
    while log.has_pending() {
        log.write_pending().await.unwrap();
    }
    let (start, end) = (log.log_start() as usize, log.flushed_end() as usize);
    assert_eq!(end, model.records.len());
    assert_eq!(read_all(&log, 3000).await.unwrap(), model.records[start..end]);
    let mut next = Some(log.log_start());
    while let Some(offset) = next {
        next = log.verify(offset).await.unwrap();
    }
}

#[test]
fn a_log_is_a_vector() {
    for seed in 0..40 {
        run(one_after_the_other(seed));
    }
}

/// A driver writes, clients append, readers read, and the log is trimmed, all at the same time on a
/// slow disk.
fn all_at_once(seed: u64) {
    let chance = Rc::new(Chance::new(seed));
    let disk = FaultDisk::new(seed);
    let environment = run(environment(&disk)).unwrap();
    let log = run(opened(&environment));
    slow_down(&disk, &chance);
    let model = Rc::new(RefCell::new(Model::default()));
    let working = Rc::new(Cell::new(2));
    let mut tasks: Vec<Task> = Vec::new();
    for _ in 0..2 {
        let (log, model, chance) = (log.clone(), Rc::clone(&model), Rc::clone(&chance));
        let working = Rc::clone(&working);
        tasks.push(Box::pin(async move {
            for _ in 0..60 {
                {
                    let mut model = model.borrow_mut();
                    let batch = model.next_batch(&chance);
                    let appended = log.append(vec![batch], 0, AppendClass::Client, model.now_ms);
                    assert_eq!(appended.unwrap().last_offset + 1, model.end());
                }
                pause(chance.below(6)).await;
            }
            working.set(working.get() - 1);
        }));
    }
    let (driver, working_too) = (log.clone(), Rc::clone(&working));
    tasks.push(Box::pin(async move {
        while working_too.get() > 0 || driver.has_pending() {
            let before = driver.flushed_end();
            assert!(driver.write_pending().await.unwrap() >= before);
            pause(1).await;
        }
    }));
    for reader in 0..3 {
        let (log, model, chance) = (log.clone(), Rc::clone(&model), Rc::clone(&chance));
        let working = Rc::clone(&working);
        tasks.push(Box::pin(async move {
            let mut next = 0;
            while working.get() > 0 || next < log.flushed_end() {
                pause(1 + chance.below(3)).await;
                let end = log.flushed_end();
                let result = match log.read(next, end, 2500, true).await {
                    Err(StorageError::OutOfRange { start, .. }) => {
                        next = start;
                        continue;
                    }
                    result => result.unwrap(),
                };
                pause(chance.below(9)).await;
                let files = result.parts.iter().filter(|p| matches!(p, Part::External(_)));
                assert!(reader > 0 || files.count() <= result.parts.len());
                let found = records_of(&bytes_of(&result.parts).unwrap()).unwrap();
                if let (Some(first), Some(last)) = (found.first(), found.last()) {
                    let range = first.offset as usize..=last.offset as usize;
                    assert_eq!(found, model.borrow().records[range]);
                    next = last.offset + 1;
                }
            }
        }));
    }
    let (keeper, noting, chance_too) = (log.clone(), Rc::clone(&environment), Rc::clone(&chance));
    tasks.push(Box::pin(async move {
        while working.get() > 0 {
            pause(chance_too.below(40)).await;
            match chance_too.below(5) {
                0 => drop(keeper.checkpoint().await.unwrap()),
                1 => noting.write_notes().await.unwrap(),
                2 => drop(keeper.release_idle()),
                3 => drop(keeper.offset_for_timestamp(1050).await.unwrap()),
                _ => {
                    let to = keeper.flushed_end() - 40;
                    keeper.delete_records(to).await.unwrap();
                }
            }
        }
    }));
    run_all(&chance, tasks);
    disk.set_latency(None);
    let mut model = model.borrow_mut();
    model.acked_end = log.flushed_end();
    assert_eq!(model.acked_end, model.end());
    model.start = log.log_start();
    model.start_max = model.start;
    drop(log);
    let disk = disk.restart();
    run(async {
        let log = log_on(&disk).await;
        check_reopened(&log, &mut model).await;
    });
}

#[test]
fn everything_may_overlap() {
    for seed in 0..30 {
        all_at_once(seed);
    }
}

#[test]
fn a_reader_keeps_its_file_while_the_log_is_deleted() {
    run(async {
        let disk = FaultDisk::new(1);
        let options = EnvironmentOptions { read_bytes_max: 0, ..support::small_environment() };
        let environment = LogEnvironment::new(disk.clone(), options, 0, LoadedNotes::default());
        let log = opened(&environment).await;
        let values = vec![vec![7; 5000]];
        for _ in 0..10 {
            let batch = batch(1, &values, None);
            log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
            log.write_pending().await.unwrap();
        }
        log.release_idle();
        let held = log.read(0, 10, 1 << 20, true).await.unwrap();
        assert!(held.parts.iter().any(|part| matches!(part, Part::External(_))));
        let reader = log.clone();
        log.remove().await.unwrap();
        assert_eq!(disk.files(), Vec::<String>::new());
        assert!(!records_of(&bytes_of(&held.parts).unwrap()).unwrap().is_empty());
        let appended = reader.append(vec![], 0, AppendClass::Client, 1);
        assert!(matches!(appended, Err(StorageError::Closed)));
        let again = opened(&environment).await;
        assert_eq!((again.log_start(), again.end()), (0, 0));
    });
}

#[test]
fn a_read_that_loses_its_segment_is_out_of_range() {
    run(async {
        let disk = FaultDisk::new(1);
        let log = log_on(&disk).await;
        for _ in 0..40 {
            let batch = batch(1, &[vec![7; 4000]], None);
            log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
            log.write_pending().await.unwrap();
        }
        drop(log);
        let log = log_on(&disk).await;
        let chance = Rc::new(Chance::new(3));
        // The reader is held up at its first look at a file; the segment goes meanwhile.
        disk.set_latency(Some(Rc::new(|operation| {
            let polls = if operation.name == "open" { 200 } else { 0 };
            Box::pin(pause(polls)) as Task
        })));
        let (reader, deleter) = (log.clone(), log.clone());
        let read = Box::pin(async move {
            let result = reader.read(1, 40, 1000, true).await;
            assert!(matches!(result, Err(StorageError::OutOfRange { .. })), "{result:?}");
        });
        let delete = Box::pin(async move {
            pause(20).await;
            assert_eq!(deleter.delete_records(35).await.unwrap(), 35);
        });
        run_all(&chance, vec![read, delete]);
    });
}

#[test]
fn a_slow_log_takes_little_space_and_an_idle_one_no_buffer() {
    run(async {
        let disk = FaultDisk::new(1);
        let environment = environment(&disk).await.unwrap();
        let log = opened(&environment).await;
        assert_eq!(environment.buffer_bytes(), 0);
        let batch = batch(1, &[vec![1; 100]], None);
        log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
        assert_eq!(log.pending_bytes(), 61 + 100 + 9);
        log.write_pending().await.unwrap();
        assert_eq!(environment.buffer_bytes(), 4096);
        assert_eq!(disk.content("topic-0/00000000000000000000.log").unwrap().len(), 16_384);
        log.release_idle();
        assert_eq!(environment.buffer_bytes(), 0);
        assert_eq!(read_all(&log, 100).await.unwrap().len(), 1);
    });
}

/// What comes while a log is being closed is refused, or stands in the log: never in the snapshot
/// of producers alone, where its repetition would be taken for a duplicate.
#[test]
fn a_log_that_closes_takes_nothing_that_it_does_not_write() {
    for seed in 0..60 {
        let chance = Rc::new(Chance::new(seed));
        let disk = FaultDisk::new(seed);
        let log = run(async {
            let environment = environment(&disk).await.unwrap();
            opened(&environment).await
        });
        slow_down(&disk, &chance);
        let taken = Rc::new(Cell::new(0));
        let nth = |sequence| batch(1000, &[vec![1]], Some((7, 0, sequence)));
        let (closing, wait) = (log.clone(), chance.below(30));
        let (appending, counted) = (log.clone(), Rc::clone(&taken));
        let tasks: Vec<Task> = vec![
            Box::pin(async move {
                pause(wait).await;
                closing.close().await.unwrap();
            }),
            Box::pin(async move {
                loop {
                    let batch = vec![nth(counted.get())];
                    match appending.append(batch, 0, AppendClass::Client, 1000) {
                        Ok(_) => counted.set(counted.get() + 1),
                        Err(StorageError::Closed) => return,
                        Err(error) => panic!("{error}"),
                    }
                    pause(1).await;
                }
            }),
        ];
        run_all(&chance, tasks);
        disk.set_latency(None);
        drop(log);
        run(async {
            let log = log_on(&disk).await;
            assert_eq!(log.end(), i64::from(taken.get()), "seed {seed}");
            let next = nth(taken.get()).producer().unwrap();
            assert_eq!(log.check_producer(&next), SequenceCheck::Append, "seed {seed}");
        });
    }
}

/// The next leader's epoch comes from the log: an emptied one that begins again at 0 strands every
/// client that has seen a larger one.
#[test]
fn a_log_that_was_emptied_remembers_its_epoch() {
    run(async {
        for by_retention in [false, true] {
            let mut disk = FaultDisk::new(7);
            let mut log = log_on(&disk).await;
            for epoch in 0..5 {
                let batches = vec![batch(1000, &[b"value".to_vec()], None)];
                log.append(batches, epoch, AppendClass::Client, 1000).unwrap();
                log.write_pending().await.unwrap();
            }
            for round in 0..3 {
                // Proved to its end: no walk finds the epochs again.
                log.close().await.unwrap();
                disk = disk.restart();
                log = log_on(&disk).await;
                if by_retention {
                    let mut options = small_options();
                    options.retention_ms = Some(1);
                    log.set_options(options);
                    log.apply_retention(1_000_000, 5).await.unwrap();
                } else {
                    log.delete_records(5).await.unwrap();
                }
                let found = (log.log_start(), log.end(), log.latest_epoch());
                assert_eq!(found, (5, 5, Some(4)), "round {round}");
            }
        }
    });
}
