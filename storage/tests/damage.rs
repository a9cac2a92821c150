//! Bit rot, zeroed pages and cut files, in every file of a data directory: detected and reported,
//! or harmless; never cut silently.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::cell::Cell;
use std::rc::Rc;

use support::workload::{Model, check_producers, log_on, open_or_create, opened, other_topic};
use support::{
    Chance, DIRECTORY, TOPIC_ID, batch, environment, read_all, ready, run, small_options,
};
use vltava_storage::io::Disk;
use vltava_storage::io::fault_disk::{Fault, FaultDisk};
use vltava_storage::{
    AppendClass, CorruptLog, EnvironmentOptions, Log, LogEnvironment, Opened, StorageError,
    StorageEvent, load_notes, topic_id_of,
};

/// A log of several segments, noted; closed in good order or not.
async fn written(seed: u64, orderly: bool) -> (FaultDisk, Model) {
    let disk = FaultDisk::new(seed);
    let chance = Chance::new(seed);
    let mut model = Model::default();
    let environment = environment(&disk).await.unwrap();
    let log = opened(&environment).await;
    for step in 0..90 {
        let batch = model.next_batch(&chance);
        let now = model.now_ms;
        log.append(vec![batch], 0, AppendClass::Client, now).unwrap();
        if chance.one_in(2) {
            model.acked_end = log.write_pending().await.unwrap();
        }
        if step == 70 {
            log.checkpoint().await.unwrap();
        }
    }
    while log.has_pending() {
        model.acked_end = log.write_pending().await.unwrap();
    }
    assert!(log.segments().len() > 2);
    environment.write_notes().await.unwrap();
    if orderly {
        log.close().await.unwrap();
    }
    drop(log);
    (disk.restart(), model)
}

/// What came of damage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Found {
    AtOpen,
    OnRead,
    Harmless,
}

async fn look(disk: &FaultDisk, model: &Model, path: &str, orderly: bool) -> Found {
    let environment = environment(disk).await.unwrap();
    let reported = Rc::new(Cell::new(0));
    let count = Rc::clone(&reported);
    environment.on_event(move |event| {
        // A torn tail is what a damaged tail must not be taken for.
        assert!(!matches!(event, StorageEvent::TailCut { .. }), "{event}");
        count.set(count.get() + 1);
    });
    let log = match Log::open(&environment, DIRECTORY, small_options()).await {
        Ok(Opened::Corrupt(_)) => return Found::AtOpen,
        Ok(Opened::Ready(log)) => log,
        Err(error) => {
            assert!(matches!(error, StorageError::Format { .. }), "{error}");
            return Found::AtOpen;
        }
    };
    let end = log.flushed_end();
    assert_eq!(end, model.acked_end, "{path} (orderly {orderly}): silently cut");
    check_producers(&log, model);
    let mut damaged = false;
    let mut next = Some(log.log_start());
    while let Some(offset) = next {
        match log.verify(offset).await {
            Ok(following) => next = following,
            Err(StorageError::Corrupt(_)) => {
                damaged = true;
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let read = read_all(&log, 3000).await;
    match read {
        // Base offset and leader epoch stand outside the CRC: only the log, which knows what must
        // stand where, sees them.
        Ok(_) if damaged => Found::OnRead,
        Ok(found) => {
            assert!(found == model.records, "{path}: wrong records");
            for timestamp in [1000, 1100, 2000] {
                let found = log.offset_for_timestamp(timestamp).await.unwrap();
                let expected = model.records.iter().find(|r| r.timestamp >= timestamp);
                let expected = expected.map(|r| (r.timestamp, r.offset));
                assert_eq!(found.map(|f| (f.timestamp, f.offset)), expected, "{path}");
            }
            Found::Harmless
        }
        Err(_) => {
            assert!(damaged, "{path}: a reader sees what verification does not");
            Found::OnRead
        }
    }
}

fn damage(disk: &FaultDisk, path: &str, chance: &Chance) {
    let kind = chance.below(3);
    let random = chance.next() as usize;
    disk.damage(path, |content| {
        if content.is_empty() {
            return;
        }
        let at = random % content.len();
        match kind {
            0 => content[at] ^= 1 << (random % 8),
            1 => {
                let end = content.len().min(at / 512 * 512 + 512);
                content[at / 512 * 512..end].fill(0);
            }
            _ => content.truncate(at),
        }
    });
}

#[test]
fn damage_anywhere_is_reported_or_harmless() {
    let mut seen = std::collections::BTreeMap::new();
    for orderly in [true, false] {
        let files = run(async { written(3, orderly).await.0.files() });
        for (number, path) in files.iter().enumerate() {
            for round in 0..20 {
                run(async {
                    let (disk, model) = written(3, orderly).await;
                    let chance = Chance::new(number as u64 * 1000 + round);
                    damage(&disk, path, &chance);
                    let found = look(&disk, &model, path, orderly).await;
                    let kind = path.rsplit(['.', '/']).next().unwrap().to_owned();
                    *seen.entry((kind, found)).or_insert(0) += 1;
                });
            }
        }
    }
    let count = |kind: &str, found| *seen.get(&(kind.to_owned(), found)).unwrap_or(&0);
    assert!(count("log", Found::AtOpen) > 10 && count("log", Found::OnRead) > 10, "{seen:?}");
    assert!(count("vltava-checkpoint", Found::AtOpen) > 5, "{seen:?}");
    for harmless in ["index", "timeindex", "snapshot", "metadata", "leader-epoch-checkpoint"] {
        assert_eq!(count(harmless, Found::AtOpen) + count(harmless, Found::OnRead), 0, "{seen:?}");
        assert!(count(harmless, Found::Harmless) > 0, "{harmless}: {seen:?}");
    }
}

#[test]
fn a_lost_file_is_reported_or_harmless() {
    for orderly in [true, false] {
        let files = run(async { written(4, orderly).await.0.files() });
        for path in files {
            run(async {
                let (disk, model) = written(4, orderly).await;
                disk.remove_file(&path).await.unwrap();
                let found = look(&disk, &model, &path, orderly).await;
                let must_be_seen = path.ends_with(".log") || path.ends_with("vltava-checkpoint");
                let expected = if must_be_seen { Found::AtOpen } else { Found::Harmless };
                assert_eq!(found, expected, "{path}");
            });
        }
    }
}

/// The log's only flushed batch behind the note is damaged, with valid ones far behind it.
#[test]
fn damage_above_the_note_is_told_by_what_stands_behind_it() {
    run(async {
        for (values, is_seen) in [(40, true), (3, false)] {
            let disk = FaultDisk::new(1);
            let log = log_on(&disk).await;
            for _ in 0..values {
                let batch = batch(1, &[vec![1; 500]], None);
                log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
                log.write_pending().await.unwrap();
            }
            let disk = disk.restart();
            disk.damage("topic-0/00000000000000000000.log", |content| content[700] ^= 1);
            let environment = support::environment(&disk).await.unwrap();
            match Log::open(&environment, DIRECTORY, small_options()).await.unwrap() {
                Opened::Corrupt(corrupt) => {
                    assert!(is_seen);
                    assert_eq!(corrupt.corruption().offset, 1);
                }
                // Within one write's reach it looks like a torn write.
                Opened::Ready(log) => assert_eq!((is_seen, log.end()), (false, 1)),
            }
        }
    });
}

async fn corrupt(disk: &FaultDisk) -> CorruptLog<FaultDisk> {
    let environment = environment(disk).await.unwrap();
    match Log::open(&environment, DIRECTORY, small_options()).await.unwrap() {
        Opened::Corrupt(corrupt) => corrupt,
        Opened::Ready(_) => panic!("not seen"),
    }
}

#[test]
fn an_accepted_loss_leaves_a_sound_log() {
    let chance = Chance::new(8);
    let files = run(async { written(5, false).await.0.files() });
    let files = files.iter().filter(|p| p.ends_with(".log") || p.ends_with("-checkpoint"));
    let mut accepted = 0;
    for path in files {
        for _ in 0..20 {
            run(async {
                let (disk, model) = written(5, false).await;
                damage(&disk, path, &chance);
                let environment = environment(&disk).await.unwrap();
                let opened = Log::open(&environment, DIRECTORY, small_options()).await.unwrap();
                let Opened::Corrupt(corrupt) = opened else {
                    return;
                };
                let contents = || disk.files().iter().map(|f| disk.content(f)).collect::<Vec<_>>();
                let before = contents();
                let loss = corrupt.survey().await.unwrap();
                assert_eq!(before, contents(), "looking changed something");
                let log = corrupt.accept_loss().await.unwrap();
                accepted += 1;
                let end = log.flushed_end();
                assert_eq!((loss.log_start, loss.end), (log.log_start(), end), "{path}");
                assert!(loss.known_end > end || loss.known_end == model.acked_end, "{loss:?}");
                let found = read_all(&log, 3000).await.unwrap();
                assert_eq!(found, model.records[..end as usize]);
                let values = [b"after".to_vec()];
                let appended = log.append(vec![batch(1, &values, None)], 9, AppendClass::Client, 1);
                assert_eq!(appended.unwrap().base_offset, end);
                log.write_pending().await.unwrap();
                environment.write_notes().await.unwrap();
                let disk = disk.restart();
                let log = log_on(&disk).await;
                let found = read_all(&log, 3000).await.unwrap();
                assert_eq!(found.len() as i64, end + 1);
                assert_eq!(found.last().unwrap().value, b"after");
            });
        }
    }
    assert!(accepted > 30, "{accepted}");
}

#[test]
fn a_damaged_log_stays_as_it_is_until_somebody_decides() {
    run(async {
        let (disk, _) = written(6, true).await;
        let path = "topic-0/00000000000000000000.log";
        disk.damage(path, |content| content.truncate(5000));
        let before: Vec<_> = disk.files().iter().map(|f| disk.content(f)).collect();
        let found = corrupt(&disk).await;
        assert_eq!((found.corruption().path.as_str(), found.corruption().position), (path, 5000));
        drop(found);
        drop(corrupt(&disk).await);
        let after: Vec<_> = disk.files().iter().map(|f| disk.content(f)).collect();
        assert_eq!(before, after);
        corrupt(&disk).await.remove().await.unwrap();
        assert!(disk.files().iter().all(|file| file.starts_with("vltava-flushed-")));
    });
}

#[test]
fn another_version_is_refused_and_changes_nothing() {
    run(async {
        let (disk, _) = written(7, true).await;
        disk.damage("topic-0/vltava-checkpoint", |content| {
            content[7] = 2;
            let len = 16 + u32::from_be_bytes([content[8], content[9], content[10], content[11]]);
            let crc = crc32c::crc32c(&content[..12]);
            let crc = crc32c::crc32c_append(crc, &content[16..len as usize]);
            content[12..16].copy_from_slice(&crc.to_be_bytes());
        });
        let environment = environment(&disk).await.unwrap();
        let opened = Log::open(&environment, DIRECTORY, small_options()).await;
        let Err(error) = opened else {
            panic!("opened");
        };
        assert_eq!(
            error.to_string(),
            "topic-0/vltava-checkpoint has format version 2; this program knows 1"
        );
    });
}

#[test]
fn notes_of_a_topic_that_was_made_again_say_nothing() {
    run(async {
        let (disk, _) = written(8, false).await;
        let environment = environment(&disk).await.unwrap();
        let log = opened(&environment).await;
        log.remove().await.unwrap();
        // The note is still in the file; the topic that has the name now is another.
        assert!(load_notes(&disk).await.unwrap().notes.is_empty());
        let options = small_options();
        let made = Log::create(&environment, DIRECTORY, other_topic(), options.clone()).await;
        drop(made.unwrap());
        assert_eq!(load_notes(&disk).await.unwrap().notes[DIRECTORY].topic_id, TOPIC_ID);
        let environment = support::environment(&disk.restart()).await.unwrap();
        let log = ready(Log::open(&environment, DIRECTORY, options).await.unwrap());
        assert_eq!((log.topic_id(), log.end()), (other_topic(), 0));
    });
}

/// Appends batches of one record to the log, each with a write of its own.
async fn append(log: &Log<FaultDisk>, batches: usize) {
    for _ in 0..batches {
        let batch = batch(1, &[vec![1; 500]], None);
        log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
        log.write_pending().await.unwrap();
    }
}

/// Cuts the log's file by hand; what opening it comes to.
async fn cut_by_hand(disk: &FaultDisk, len: usize) -> Opened<FaultDisk> {
    let path = "topic-0/00000000000000000000.log";
    assert!(disk.damage(path, |content| content.truncate(len)));
    let environment = environment(disk).await.unwrap();
    Log::open(&environment, DIRECTORY, small_options()).await.unwrap()
}

/// Killed before the first note; what the next run recovered and served is not to be lost by a
/// later cut, though nothing was ever written to it again.
#[test]
fn what_recovery_kept_is_noted() {
    for is_noted in [true, false] {
        run(async {
            let disk = FaultDisk::new(9);
            let first = environment(&disk).await.unwrap();
            append(&opened(&first).await, 5).await;
            let disk = disk.restart();
            let second = environment(&disk).await.unwrap();
            let log = ready(Log::open(&second, DIRECTORY, small_options()).await.unwrap());
            assert_eq!(log.flushed_end(), 5);
            if is_noted {
                second.write_notes().await.unwrap();
            }
            match cut_by_hand(&disk.restart(), 1200).await {
                Opened::Corrupt(corrupt) => {
                    assert!(is_noted);
                    assert_eq!(corrupt.corruption().offset, 2);
                }
                // Without a note it looks like the end of a write that was torn.
                Opened::Ready(log) => assert_eq!((is_noted, log.end()), (false, 2)),
            }
        });
    }
}

/// The topic was deleted and made again while another shard's file still has a note of its first
/// life: that one must not hide the note of the log that is there now.
#[test]
fn a_note_of_an_earlier_topic_hides_none() {
    for shards in [(0, 1), (1, 0)] {
        run(async {
            let disk = FaultDisk::new(10);
            let options = EnvironmentOptions::default;
            let notes = load_notes(&disk).await.unwrap();
            let first = LogEnvironment::new(disk.clone(), options(), shards.0, notes);
            let log = opened(&first).await;
            append(&log, 9).await;
            first.write_notes().await.unwrap();
            log.remove().await.unwrap();
            let notes = load_notes(&disk).await.unwrap();
            let second = LogEnvironment::new(disk.clone(), options(), shards.1, notes);
            let made = Log::create(&second, DIRECTORY, other_topic(), small_options()).await;
            append(&made.unwrap(), 5).await;
            second.write_notes().await.unwrap();
            let disk = disk.restart();
            let note = load_notes(&disk).await.unwrap().notes[DIRECTORY];
            assert_eq!((note.topic_id, note.flushed_end), (other_topic(), 5), "{shards:?}");
            let opened = cut_by_hand(&disk, 1200).await;
            assert!(matches!(opened, Opened::Corrupt(_)), "{shards:?}: silently cut");
        });
    }
}

/// Whose log it is, decides whether it is deleted: no damage may make it another's.
#[test]
fn a_log_belongs_to_its_topic_or_nobody_knows() {
    run(async {
        let (whole, _) = written(11, true).await;
        for path in ["topic-0/partition.metadata", "topic-0/vltava-checkpoint"] {
            let is_checkpoint = path.ends_with("checkpoint");
            for at in 0..whole.content(path).unwrap().len().min(200) {
                let (disk, _) = written(11, true).await;
                disk.damage(path, |content| content[at] ^= 1);
                let shard = environment(&disk).await.unwrap();
                match topic_id_of(&shard, DIRECTORY).await {
                    Ok(found) => assert_eq!(found, Some(TOPIC_ID), "{path}: byte {at}"),
                    Err(error) => assert!(is_checkpoint, "{path}: byte {at}: {error}"),
                }
            }
            let (disk, _) = written(11, true).await;
            disk.remove_file(path).await.unwrap();
            let shard = environment(&disk).await.unwrap();
            assert_eq!(topic_id_of(&shard, DIRECTORY).await.unwrap(), Some(TOPIC_ID));
            if is_checkpoint {
                // Whose it is, and no more.
                let opened = Log::open(&shard, DIRECTORY, small_options()).await.unwrap();
                assert!(matches!(opened, Opened::Corrupt(_)));
            } else {
                assert_eq!(disk.restart().content(path), whole.content(path), "not made whole");
            }
        }
        let shard = environment(&whole).await.unwrap();
        assert_eq!(topic_id_of(&shard, "topic-1").await.unwrap(), None);
    });
}

/// Descriptors run out between two looks at a directory that is not there: nothing is damaged.
#[test]
fn a_lack_of_descriptors_is_no_damage() {
    run(async {
        let disk = FaultDisk::new(1);
        let shard = environment(&disk).await.unwrap();
        let hook = disk.clone();
        disk.set_latency(Some(Rc::new(move |operation| {
            if operation.path.ends_with("checkpoint") {
                hook.set_lacks_descriptors(true);
            }
            Box::pin(std::future::ready(()))
        })));
        let found = topic_id_of(&shard, DIRECTORY).await;
        assert!(matches!(found, Err(StorageError::NoDescriptor(_))), "{found:?}");
        disk.set_latency(None);
        disk.set_lacks_descriptors(false);
        assert_eq!(topic_id_of(&shard, DIRECTORY).await.unwrap(), None);
    });
}

/// A log that was noted is missed where it is gone; a stop at any moment of making or deleting one
/// leaves none that is missed and was never there, or that nobody wants any more.
#[test]
fn a_log_that_is_gone_is_missed_and_no_other() {
    run(async {
        let (mut noted, mut crashed) = (0, 0);
        for at in 0..40 {
            let disk = FaultDisk::new(at);
            disk.inject(Fault::Crash { at });
            let made = async {
                let shard = environment(&disk).await?;
                ready(open_or_create(&shard).await?);
                shard.write_notes().await.map_err(StorageError::Unreadable)
            };
            let is_answered = made.await.is_ok();
            crashed += u64::from(!is_answered);
            let disk = disk.restart();
            let shard = environment(&disk).await.unwrap();
            let is_noted = shard.made(DIRECTORY, TOPIC_ID).await.is_some();
            let is_there = topic_id_of(&shard, DIRECTORY).await.unwrap().is_some();
            assert!(is_noted || !is_answered, "{at}: nobody would miss it");
            assert!(is_there || !is_noted, "{at}: it was never there");
            if !is_there {
                continue;
            }
            noted += u64::from(is_noted);
            // Whoever opens it notes it, where that was not done.
            opened(&shard).await;
            shard.write_notes().await.unwrap();
            disk.rename(DIRECTORY, "elsewhere").await.unwrap();
            let shard = environment(&disk).await.unwrap();
            shard.keep_notes_of_gone(|id| id == TOPIC_ID).await;
            assert_eq!(shard.made(DIRECTORY, TOPIC_ID).await, Some(0), "{at}");
            assert_eq!(shard.made(DIRECTORY, other_topic()).await, None);
            shard.keep_notes_of_gone(|_| false).await;
            assert_eq!(shard.made(DIRECTORY, TOPIC_ID).await, None);
        }
        assert!(noted > 0 && crashed > 10, "{noted} {crashed}");
    });
}

/// What was given up may have been read: no other record may get its offset and its epoch, and
/// clients take no epoch below one that they have seen.
#[test]
fn an_accepted_loss_leaves_the_epoch() {
    run(async {
        let mut disk = FaultDisk::new(3);
        let mut environment = environment(&disk).await.unwrap();
        let log = opened(&environment).await;
        for epoch in 0..5 {
            let batches = vec![support::batch(1000, &[b"value".to_vec()], None)];
            log.append(batches, epoch, AppendClass::Client, 1000).unwrap();
            log.write_pending().await.unwrap();
        }
        environment.write_notes().await.unwrap();
        log.close().await.unwrap();
        drop(log);
        disk = disk.restart();
        let path = format!("{DIRECTORY}/{:020}.log", 0);
        assert!(disk.damage(&path, |bytes| bytes.truncate(bytes.len() / 2)));
        environment = support::environment(&disk).await.unwrap();
        let found = Log::open(&environment, DIRECTORY, small_options()).await.unwrap();
        let Opened::Corrupt(corrupt) = found else {
            panic!("half of the log is gone");
        };
        let mut log = corrupt.accept_loss().await.unwrap();
        assert_eq!((log.end(), log.latest_epoch()), (2, Some(4)));
        for epoch in 4..6 {
            log.close().await.unwrap();
            disk = disk.restart();
            environment = support::environment(&disk).await.unwrap();
            log = opened(&environment).await;
            assert_eq!(log.latest_epoch(), Some(epoch));
            let batches = vec![support::batch(1000, &[b"value".to_vec()], None)];
            log.append(batches, epoch + 1, AppendClass::Client, 1000).unwrap();
            log.write_pending().await.unwrap();
        }
    });
}

/// A replica that was given away and comes back is another log: what was noted of the first says
/// nothing of it, and who expects it misses nothing.
#[test]
fn a_log_that_is_made_again_is_not_taken_for_the_one_that_was_removed() {
    run(async {
        let mut disk = FaultDisk::new(1);
        for (round, count) in (0..).zip([20_u8, 3, 7, 7]) {
            let shard = environment(&disk).await.unwrap();
            let made = shard.made(DIRECTORY, TOPIC_ID).await;
            assert_eq!(made.is_some(), round > 0, "round {round}");
            shard.given_away(DIRECTORY, TOPIC_ID).await;
            assert_eq!(shard.made(DIRECTORY, TOPIC_ID).await, None);
            let log = Log::create(&shard, DIRECTORY, TOPIC_ID, small_options()).await.unwrap();
            for n in 0..count {
                let batch = batch(1, &[vec![n; 100]], None);
                log.append(vec![batch], 0, AppendClass::Client, 1).unwrap();
                log.write_pending().await.unwrap();
            }
            shard.write_notes().await.unwrap();
            assert_eq!(shard.made(DIRECTORY, TOPIC_ID).await, Some(i64::from(count)));
            // What was noted is looked for: by who opens it, and by who makes it at once anew.
            disk = disk.restart();
            let shard = environment(&disk).await.unwrap();
            let opened = Log::open(&shard, DIRECTORY, small_options()).await.unwrap();
            let log = ready(opened);
            assert_eq!(log.end(), i64::from(count), "round {round}");
            log.remove().await.unwrap();
            assert_eq!(shard.made(DIRECTORY, TOPIC_ID).await, None);
            let log = Log::create(&shard, DIRECTORY, TOPIC_ID, small_options()).await.unwrap();
            shard.write_notes().await.unwrap();
            drop((log, shard));
            disk = disk.restart();
            let shard = environment(&disk).await.unwrap();
            let opened = Log::open(&shard, DIRECTORY, small_options()).await.unwrap();
            ready(opened).remove().await.unwrap();
        }
    });
}
