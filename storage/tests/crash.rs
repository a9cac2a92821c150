//! Crashes, failures and full disks at every single disk operation of a run. What was acknowledged
//! is there afterwards, once, in order; what was cut does not come back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::pin::pin;
use std::rc::Rc;

use futures_util::future::{join_all, select};
use support::workload::{
    Model, Went, check_reopened, log_on, open_or_create, opened, other_topic, work,
};
use support::{
    Chance, DIRECTORY, TOPIC_ID, batch, environment, pause, read_all, ready, records_of, run,
    slow_down, small_environment, small_options,
};
use vltava_protocol::types::Uuid;
use vltava_storage::io::fault_disk::{Fault, FaultDisk};
use vltava_storage::io::{Disk, IoErrorKind};
use vltava_storage::producer_state::SequenceCheck;
use vltava_storage::{
    AppendClass, EnvironmentOptions, Log, LogEnvironment, Opened, StorageError, load_notes,
    remove_leftovers, remove_log, topic_id_of,
};

const STEPS: usize = 60;

/// Seeds of a test: so many, or `VLTAVA_SEEDS` times as many for a longer look.
fn seeds(first: u64, count: u64) -> impl Iterator<Item = u64> {
    let times = std::env::var("VLTAVA_SEEDS").ok();
    let times = times.and_then(|times| times.parse().ok()).unwrap_or(1);
    (0..count * times).map(move |n| first + 100 * n)
}

/// A run from an empty disk with this fault; the model, the disk, and whether it went through.
async fn first_life(seed: u64, fault: Option<Fault>, notes_last: bool) -> (FaultDisk, Model, Went) {
    let disk = FaultDisk::new(seed * 1000 + fault.map_or(0, |fault| number(&fault)));
    disk.inject(fault.unwrap_or(Fault::Crash { at: u64::MAX }));
    let mut model = Model::default();
    let chance = Chance::new(seed);
    if seed / 100 % 2 == 1 {
        // Zeros are still under way when the append beside them has ended.
        slow_down(&disk, &Rc::new(Chance::new(seed)));
    }
    let environment = environment(&disk).await.unwrap();
    let log = match open_or_create(&environment).await {
        Ok(opened) => ready(opened),
        Err(StorageError::Full(_)) => {
            // Tried again, it works.
            opened(&environment).await
        }
        Err(_) => return (disk, model, Went::Ended),
    };
    let went = work(&environment, &log, &mut model, &chance, STEPS).await;
    if notes_last {
        environment.write_notes().await.unwrap();
    }
    (disk, model, went)
}

fn number(fault: &Fault) -> u64 {
    match *fault {
        Fault::Crash { at }
        | Fault::Fail { at, .. }
        | Fault::FailRead { at }
        | Fault::LoseWrite { at }
        | Fault::MisdirectWrite { at, .. } => at,
    }
}

/// After a crash: restart, check; append, crash somewhere, restart, check again.
async fn later_lives(seed: u64, disk: FaultDisk, mut model: Model) {
    let chance = Chance::new(seed ^ 0xABCD);
    let mut disk = disk;
    for life in 0..3 {
        disk = disk.restart();
        remove_leftovers(&disk).await.unwrap();
        let environment = environment(&disk).await.unwrap();
        let log = opened(&environment).await;
        check_reopened(&log, &mut model).await;
        let at = disk.operations() + chance.below(40);
        disk.inject(Fault::Crash { at });
        let went = work(&environment, &log, &mut model, &chance, STEPS / 2).await;
        if went == Went::Through && life == 1 {
            disk.heal();
            match log.close().await {
                Ok(()) => model.acked_end = model.end(),
                // Zeros were under way that it had met.
                Err(error) => assert!(disk.is_down(), "{error}"),
            }
        }
    }
}

fn operations_of(seed: u64) -> u64 {
    run(async {
        let (disk, model, went) = first_life(seed, None, false).await;
        assert_eq!(went, Went::Through);
        assert!(model.end() > 10, "the run writes enough");
        disk.operations()
    })
}

#[test]
fn a_crash_at_any_operation_loses_nothing_acknowledged() {
    for seed in seeds(1, 20) {
        let operations = operations_of(seed);
        for at in 0..operations {
            run(async {
                let fault = Fault::Crash { at };
                let (disk, model, _) = first_life(seed, Some(fault), false).await;
                later_lives(seed * 7919 + at, disk, model).await;
            });
        }
    }
}

#[test]
fn after_a_failed_operation_nothing_is_acknowledged() {
    let kind = IoErrorKind::Failed;
    for seed in seeds(5, 3) {
        let mut ended = 0;
        for at in 0..operations_of(seed) {
            run(async {
                let fault = Fault::Fail { at, kind };
                let (disk, model, went) = first_life(seed, Some(fault), false).await;
                ended += u64::from(went == Went::Ended);
                later_lives(seed * 7919 + at, disk, model).await;
            });
        }
        assert!(ended > 30, "{ended} runs ended");
    }
}

/// Batches until the log has ended, or there are enough; the end of what was acknowledged.
async fn fill(log: &Log<FaultDisk>) -> i64 {
    for fill in 0..30 {
        let appended = log.append(vec![block_batch(fill)], 0, AppendClass::Client, 1);
        if appended.is_err() || log.write_pending().await.is_err() {
            break;
        }
    }
    log.flushed_end()
}

#[test]
fn a_segment_whose_name_was_never_durable_is_begun_anew() {
    let mut failed = 0;
    for (seed, at) in seeds(1, 20).flat_map(|seed| (0..80).map(move |at| (seed, at))) {
        run(async {
            let disk = FaultDisk::new(seed * 1000 + at);
            let log = log_on(&disk).await;
            disk.inject(Fault::Fail { at: disk.operations() + at, kind: IoErrorKind::Failed });
            fill(&log).await;
            let why = log.ended().map(|why| why.to_string()).unwrap_or_default();
            if !why.contains("sync_dir") {
                return;
            }
            failed += 1;
            // The next process sees the name; no sync of its own makes it durable.
            disk.heal();
            let end = fill(&log_on(&disk).await).await;
            let log = log_on(&disk.restart()).await;
            assert_eq!(log.flushed_end(), end, "seed {seed}, operation {at}");
        });
    }
    assert!(failed > 20, "{failed} syncs of the directory failed");
}

/// Removes a log, fails to make its new name durable, removes it at the next start, and loses power
/// there: whether its old name came back with less than the whole log.
async fn come_back_in_parts(seed: u64, at: u64) -> bool {
    let disk = FaultDisk::new(seed * 1000 + at);
    let log = log_on(&disk).await;
    fill(&log).await;
    // The first change gives it its new name, the second makes that durable.
    disk.inject(Fault::Fail { at: disk.operations() + 1, kind: IoErrorKind::Failed });
    assert!(log.remove().await.is_err());
    disk.heal();
    disk.inject(Fault::Crash { at: disk.operations() + at });
    let removed = remove_leftovers(&disk).await;
    let disk = disk.restart();
    let logs = environment(&disk).await.unwrap();
    remove_leftovers(&disk).await.unwrap();
    let found = topic_id_of(&logs, DIRECTORY).await.unwrap();
    assert!(found.is_none_or(|id| id == TOPIC_ID), "seed {seed}, operation {at}: {found:?}");
    let is_whole = matches!(open_or_create(&logs).await, Ok(Opened::Ready(_)));
    remove_log(&logs, DIRECTORY, TOPIC_ID).await.unwrap();
    let again = Log::create(&logs, DIRECTORY, other_topic(), small_options()).await;
    assert!(again.is_ok(), "seed {seed}, operation {at}: {:?}", again.err());
    removed.is_err() && found.is_some() && !is_whole
}

#[test]
fn what_comes_back_of_a_removed_log_is_known_for_what_it_was() {
    let mut came_back = 0;
    for seed in seeds(1, 40) {
        for at in 0..60 {
            came_back += u64::from(run(come_back_in_parts(seed, at)));
        }
    }
    assert!(came_back > 40, "{came_back} came back in parts");
}

/// A log that a process made that was killed after so many steps of it; the next process writes to
/// it, and loses the power: whether there was a log to write to.
async fn outlive_its_maker(seed: u64, steps: u64) -> bool {
    let disk = FaultDisk::new(seed * 1000 + steps);
    let logs = environment(&disk).await.unwrap();
    slow_down(&disk, &Rc::new(Chance::new(seed)));
    let made = Log::create(&logs, DIRECTORY, TOPIC_ID, small_options());
    drop(select(pin!(made), pin!(pause(steps))).await);
    remove_leftovers(&disk).await.unwrap();
    let logs = environment(&disk).await.unwrap();
    if topic_id_of(&logs, DIRECTORY).await.unwrap().is_none() {
        return false;
    }
    let log = opened(&logs).await;
    log.append(vec![block_batch(1)], 0, AppendClass::Client, 1).unwrap();
    assert_eq!(log.write_pending().await.unwrap(), 1);
    let disk = disk.restart();
    remove_leftovers(&disk).await.unwrap();
    assert_eq!(log_on(&disk).await.end(), 1, "seed {seed}, {steps} steps");
    true
}

#[test]
fn what_is_written_to_a_log_of_a_killed_process_is_there() {
    let mut written = 0;
    for seed in seeds(1, 40) {
        written += (0..60).filter(|steps| run(outlive_its_maker(seed, *steps))).count();
    }
    assert!(written > 200, "{written} logs were written to");
}

/// Logs that are made side by side, with one operation that fails: what is made outlives a crash.
async fn make_side_by_side(seed: u64, at: u64) -> u64 {
    let disk = FaultDisk::new(seed * 1000 + at);
    disk.inject(Fault::Fail { at, kind: IoErrorKind::Failed });
    slow_down(&disk, &Rc::new(Chance::new(seed)));
    let (logs, topic_id) = (environment(&disk).await.unwrap(), Uuid(1));
    let names = ["topic-0", "topic-1", "topic-2"];
    let make = |name| Log::create(&logs, name, topic_id, small_options());
    let made = join_all(names.map(make)).await;
    let disk = disk.restart();
    let logs = environment(&disk).await.unwrap();
    for (name, made) in names.into_iter().zip(made) {
        let is_there = topic_id_of(&logs, name).await.is_ok_and(|id| id == Some(topic_id));
        assert!(made.is_err() || is_there, "seed {seed}, operation {at}: {name} is gone");
    }
    disk.root_syncs_failed()
}

#[test]
fn a_log_that_was_made_is_there_also_where_a_sync_for_another_failed() {
    let mut failed = 0;
    for seed in seeds(1, 40) {
        for at in 0..60 {
            failed += run(make_side_by_side(seed, at));
        }
    }
    assert!(failed > 40, "{failed} syncs of the root failed");
}

#[test]
fn a_failed_read_loses_nothing() {
    for seed in seeds(8, 2) {
        let reads = run(async { first_life(seed, None, false).await.0.reads() });
        for at in 3..reads {
            run(async {
                let disk = FaultDisk::new(seed);
                let mut model = Model::default();
                let environment = environment(&disk).await.unwrap();
                let log = opened(&environment).await;
                disk.inject(Fault::FailRead { at });
                work(&environment, &log, &mut model, &Chance::new(seed), STEPS).await;
                later_lives(seed * 7919 + at, disk, model).await;
            });
        }
    }
}

#[test]
fn a_full_disk_refuses_and_recovers_by_itself() {
    let kind = IoErrorKind::Full;
    for seed in seeds(10, 3) {
        let mut ended = 0;
        let operations = operations_of(seed);
        for at in 0..operations {
            run(async {
                let fault = Fault::Fail { at, kind };
                let (disk, model, went) = first_life(seed, Some(fault), false).await;
                // Only a sync that says "no space" ends a log: what is durable is not known.
                ended += u64::from(went == Went::Ended);
                disk.heal();
                later_lives(seed * 7919 + at, disk, model).await;
            });
        }
        assert!(ended < operations * 2 / 3, "{ended} of {operations} runs ended");
    }
}

#[test]
fn a_disk_that_fills_up_takes_appends_again_when_there_is_space() {
    for seed in seeds(13, 4) {
        run(async {
            let disk = FaultDisk::new(seed);
            let mut model = Model::default();
            let chance = Chance::new(seed);
            let environment = environment(&disk).await.unwrap();
            let log = opened(&environment).await;
            disk.set_capacity(60_000);
            let went = work(&environment, &log, &mut model, &chance, 300).await;
            assert_eq!(went, Went::Through);
            let at_full = model.acked_end;
            disk.set_capacity(1 << 30);
            let went = work(&environment, &log, &mut model, &chance, 100).await;
            assert_eq!(went, Went::Through);
            assert!(model.acked_end > at_full + 20);
            later_lives(seed, disk, model).await;
        });
    }
}

/// A batch that fills one block exactly, so that the next one begins with a block.
fn block_batch(fill: u8) -> vltava_storage::AppendBatch {
    let value = vec![fill; 4096 - 61 - 9];
    let batch = batch(1, &[value], None);
    assert_eq!(batch.batch_bytes(), 4096);
    batch
}

/// The log of a disk, which writes no zeros ahead: they would cover what stands there.
async fn log_without_zeros(disk: &FaultDisk) -> Log<FaultDisk> {
    let notes = load_notes(disk).await.unwrap();
    let options = EnvironmentOptions { zero_bytes_max: 0, ..small_environment() };
    opened(&LogEnvironment::new(disk.clone(), options, 0, notes)).await
}

#[test]
fn what_was_cut_never_comes_back() {
    let mut second_alone = 0;
    for seed in 0..300 {
        run(async {
            let disk = FaultDisk::new(seed);
            let log = log_without_zeros(&disk).await;
            let first = vec![block_batch(1), block_batch(2)];
            log.append(first, 0, AppendClass::Client, 1).unwrap();
            // The allocation is the first operation; the write is torn.
            let at = disk.operations() + 1;
            disk.inject(Fault::Crash { at });
            log.write_pending().await.unwrap_err();
            let disk = disk.restart();
            let path = "topic-0/00000000000000000000.log";
            let content = disk.content(path).unwrap();
            let is_whole = |bytes: Option<&[u8]>| bytes.is_some_and(|b| records_of(b).is_some());
            let second = is_whole(content.get(4096..8192));
            let log = log_without_zeros(&disk).await;
            if log.end() > 0 || !second {
                return;
            }
            second_alone += 1;
            check_stays_away(log, disk, seed % 2 == 0).await;
        });
    }
    assert!(second_alone > 5, "{second_alone} torn writes left the second batch alone");
}

/// The batch of block 1 stands in the file whole; the log ends before block 0. After one more
/// batch, and a crash, it must not be read: of the process alone, which leaves all that it wrote,
/// or of the machine, after which chance says what of that is there.
async fn check_stays_away(log: Log<FaultDisk>, disk: FaultDisk, is_power_lost: bool) {
    let again = vec![block_batch(3)];
    log.append(again, 0, AppendClass::Client, 1).unwrap();
    assert_eq!(log.write_pending().await.unwrap(), 1);
    drop(log);
    let disk = if is_power_lost { disk.restart() } else { disk };
    let log = log_without_zeros(&disk).await;
    let found = read_all(&log, 10_000).await.unwrap();
    assert_eq!((found.len(), found[0].value[0]), (1, 3));
}

#[test]
fn what_was_truncated_never_comes_back() {
    for seed in 0..60 {
        run(async {
            let disk = FaultDisk::new(seed);
            let log = log_without_zeros(&disk).await;
            let batches = vec![block_batch(1), block_batch(2)];
            log.append(batches, 0, AppendClass::Client, 1).unwrap();
            log.write_pending().await.unwrap();
            log.truncate(0).await.unwrap();
            check_stays_away(log, disk, seed % 2 == 0).await;
        });
    }
}

#[test]
fn what_a_full_disk_took_in_never_comes_back() {
    for seed in 0..400 {
        run(async {
            let disk = FaultDisk::new(seed);
            let log = log_without_zeros(&disk).await;
            let batches = vec![block_batch(1), block_batch(2)];
            log.append(batches, 0, AppendClass::Client, 1).unwrap();
            let (at, kind) = (disk.operations() + 1, IoErrorKind::Full);
            disk.inject(Fault::Fail { at, kind });
            let refused = log.write_pending().await;
            assert!(matches!(refused, Err(StorageError::Full(_))));
            assert_eq!((log.end(), log.flushed_end()), (0, 0));
            check_stays_away(log, disk, seed % 2 == 0).await;
        });
    }
}

#[test]
fn a_producer_that_a_full_disk_refused_goes_on_where_it_was() {
    run(async {
        let disk = FaultDisk::new(1);
        let log = log_on(&disk).await;
        let sent = |sequence: i32| batch(1, &[vec![0]], Some((7, 0, sequence)));
        let check = |sequence: i32| log.check_producer(&sent(sequence).producer().unwrap());
        let append = |sequence: i32| log.append(vec![sent(sequence)], 0, AppendClass::Client, 1);
        assert_eq!(check(5), SequenceCheck::Append, "a beginning, as far as is known");
        append(3).unwrap();
        append(4).unwrap();
        let (at, kind) = (disk.operations() + 1, IoErrorKind::Full);
        disk.inject(Fault::Fail { at, kind });
        assert!(matches!(log.write_pending().await, Err(StorageError::Full(_))));
        // It was on its way when the others were refused.
        assert_eq!(check(5), SequenceCheck::OutOfOrder);
        assert_eq!(check(3), SequenceCheck::Append);
        append(3).unwrap();
        assert_eq!(check(4), SequenceCheck::Append);
        log.write_pending().await.unwrap();
    });
}

/// After writes that were lost, or landed elsewhere, without an error.
/// A roll that finds no space leaves the file it made. What waited is refused; what comes then may
/// end elsewhere, and so may the next roll.
#[test]
fn what_refused_rolls_left_is_no_damage() {
    run(async {
        let disk = FaultDisk::new(1);
        let log = log_on(&disk).await;
        for n in 0..20 {
            log.append(vec![block_batch(n)], 0, AppendClass::Client, 1).unwrap();
            log.write_pending().await.unwrap();
        }
        drop(log);
        let end = 20;
        for left in [vec![21, 23], vec![end, 22], vec![end, 25, 27]] {
            for base in &left {
                disk.put(&format!("{DIRECTORY}/{base:020}.log"), &[]);
            }
            let log = log_on(&disk).await;
            assert_eq!((log.end(), log.log_start()), (end, 0), "{left:?}");
            assert_eq!(read_all(&log, 5000).await.unwrap().len(), 20, "{left:?}");
            let last = disk.files().into_iter().rfind(|path| path.ends_with(".log"));
            let base = log.segments().last().unwrap().base_offset;
            assert_eq!(last, Some(format!("{DIRECTORY}/{base:020}.log")), "{left:?}");
        }
    });
}

async fn check_damaged(disk: FaultDisk, model: &Model, seen: &mut [u32; 3]) {
    let disk = disk.restart();
    let environment = environment(&disk).await.unwrap();
    match open_or_create(&environment).await.unwrap() {
        Opened::Corrupt(_) => seen[0] += 1,
        Opened::Ready(log) => {
            let end = log.flushed_end();
            assert!(end >= model.acked_end, "silently cut: {end}, {}", model.acked_end);
            match read_all(&log, 5000).await {
                Err(_) => seen[1] += 1,
                Ok(found) => {
                    let start = log.log_start();
                    assert!(start >= model.start && start <= model.start_max);
                    assert_eq!(found, model.records[start as usize..end as usize]);
                    seen[2] += 1;
                }
            }
        }
    }
}

#[test]
fn lost_and_misdirected_writes_are_never_cut_silently() {
    let mut seen = [0; 3];
    for seed in seeds(17, 2) {
        let sound = run(first_life_unread(seed, Fault::Crash { at: u64::MAX }));
        for at in 0..sound.0.operations() {
            let elsewhere = [-3, -1, 1, 2].map(|blocks| Fault::MisdirectWrite { at, blocks });
            for fault in elsewhere.into_iter().chain([Fault::LoseWrite { at }]) {
                run(async {
                    let (disk, model, went) = first_life_unread(seed, fault).await;
                    if went == Went::Through {
                        check_damaged(disk, &model, &mut seen).await;
                    }
                });
            }
        }
    }
    assert!(seen.iter().all(|count| *count > 20), "corrupt, unreadable, sound: {seen:?}");
}

/// A run that does not look at what it reads: the fault is on disk, and found only later.
async fn first_life_unread(seed: u64, fault: Fault) -> (FaultDisk, Model, Went) {
    let disk = FaultDisk::new(seed);
    disk.inject(fault);
    let mut model = Model::default();
    let chance = Chance::new(seed);
    let environment = environment(&disk).await.unwrap();
    let log = match open_or_create(&environment).await {
        Ok(Opened::Ready(log)) => log,
        _ => return (disk, model, Went::Ended),
    };
    for _ in 0..STEPS {
        let batch = model.next_batch(&chance);
        let class = vltava_storage::AppendClass::Client;
        if log.append(vec![batch], 0, class, model.now_ms).is_err() {
            return (disk, model, Went::Ended);
        }
        if chance.one_in(3) {
            match log.write_pending().await {
                Ok(end) => model.acked_end = end,
                Err(_) => return (disk, model, Went::Ended),
            }
        }
        if chance.one_in(15) && log.checkpoint().await.is_err() {
            return (disk, model, Went::Ended);
        }
        if chance.one_in(20) {
            log.release_idle();
        }
    }
    environment.write_notes().await.unwrap();
    (disk, model, Went::Through)
}
