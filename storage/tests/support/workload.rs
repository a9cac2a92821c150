//! A workload on one log, and what its client knows: the model.

use std::rc::Rc;

use vltava_protocol::types::Uuid;
use vltava_storage::io::fault_disk::FaultDisk;
use vltava_storage::producer_state::SequenceCheck;
use vltava_storage::{AppendClass, Log, LogEnvironment, StorageError};

use super::*;

/// A batch that an idempotent producer wrote.
#[derive(Clone, Debug)]
pub struct Sent {
    pub producer: (i64, i16, i32),
    pub count: i32,
    pub base_offset: i64,
    /// The log need not know it any more.
    pub may_be_forgotten: bool,
}

/// What the clients of a log know.
#[derive(Clone, Debug, Default)]
pub struct Model {
    /// Appended and not taken back, from offset 0 on.
    pub records: Vec<Record>,
    /// Everything below is acknowledged.
    pub acked_end: i64,
    /// Acknowledged log start; a delete that failed may have moved it up to `start_max`.
    pub start: i64,
    pub start_max: i64,
    pub sent: Vec<Sent>,
    pub epoch: i32,
    pub now_ms: i64,
    value: u64,
}

impl Model {
    /// A batch of this model's next values.
    pub fn next_batch(&mut self, chance: &Chance) -> AppendBatch {
        let count = 1 + chance.below(3);
        let values: Vec<Vec<u8>> = (0..count)
            .map(|_| {
                self.value += 1;
                let len = match chance.below(12) {
                    0 => 3000 + chance.below(12_000),
                    1..4 => 600,
                    _ => 20 + chance.below(200),
                };
                let mut value = format!("{}:", self.value).into_bytes();
                value.resize(len as usize, self.value as u8);
                value
            })
            .collect();
        self.now_ms += chance.below(50) as i64;
        let producer = (chance.below(2) == 0).then(|| {
            let id = chance.below(3) as i64;
            let last = self.sent.iter().rev().find(|sent| sent.producer.0 == id);
            let sequence = last.map_or(0, |sent| sent.producer.2 + sent.count);
            (id, 0, sequence)
        });
        let base_offset = self.end();
        if let Some(producer) = producer {
            self.sent.push(Sent {
                producer,
                count: count as i32,
                base_offset,
                may_be_forgotten: false,
            });
        }
        let timestamp = 1000 + self.now_ms - chance.below(100) as i64;
        for value in &values {
            self.records.push(Record {
                offset: self.end(),
                timestamp,
                epoch: self.epoch,
                value: value.clone(),
            });
        }
        batch(timestamp, &values, producer)
    }

    pub fn end(&self) -> i64 {
        self.records.len() as i64
    }

    /// What was not acknowledged is gone.
    pub fn cut(&mut self, end: i64) {
        self.records.truncate(end as usize);
        self.sent.retain(|sent| sent.base_offset < end);
        self.acked_end = self.acked_end.min(end);
    }
}

/// How a workload went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// To its end.
    Through,
    /// The log takes no more appends.
    Ended,
}

/// Opens the log, or makes it where it is not there.
pub async fn open_or_create(
    environment: &Rc<LogEnvironment<FaultDisk>>,
) -> Result<Opened<FaultDisk>, StorageError> {
    let directories = vltava_storage::partition_directories(environment.disk()).await?;
    let options = small_options();
    if directories.iter().any(|name| name == DIRECTORY) {
        return Log::open(environment, DIRECTORY, options).await;
    }
    Log::create(environment, DIRECTORY, TOPIC_ID, options).await.map(Opened::Ready)
}

/// The log, opened or made.
pub async fn opened(environment: &Rc<LogEnvironment<FaultDisk>>) -> Log<FaultDisk> {
    ready(open_or_create(environment).await.unwrap())
}

/// The log of a disk that is used for nothing else.
pub async fn log_on(disk: &FaultDisk) -> Log<FaultDisk> {
    opened(&environment(disk).await.unwrap()).await
}

/// What an error means for the model: everything that waited is gone, or the log has ended.
fn take(model: &mut Model, log: &Log<FaultDisk>, error: &StorageError) -> Went {
    if log.ended().is_some() {
        let refused = log.append(vec![], 0, AppendClass::Client, 0);
        assert!(refused.is_err(), "nothing is taken after {error}");
        return Went::Ended;
    }
    assert!(matches!(error, StorageError::Full(_) | StorageError::Unreadable(_)), "{error}");
    assert!(log.end() >= model.acked_end, "what was acknowledged stays");
    model.cut(log.end());
    Went::Through
}

/// Random work of so many steps. What was acknowledged is checked as it goes.
pub async fn work(
    environment: &Rc<LogEnvironment<FaultDisk>>,
    log: &Log<FaultDisk>,
    model: &mut Model,
    chance: &Chance,
    steps: usize,
) -> Went {
    for _ in 0..steps {
        let result = match chance.below(24) {
            0..10 => {
                let before = model.end();
                if chance.one_in(10) {
                    model.epoch += 1;
                }
                let batches = (0..1 + chance.below(3)).map(|_| model.next_batch(chance));
                let batches: Vec<AppendBatch> = batches.collect();
                let epoch = model.epoch;
                let appended = log.append(batches, epoch, AppendClass::Client, model.now_ms);
                let appended = appended.expect("an open log takes batches");
                assert_eq!(appended.base_offset, before);
                assert_eq!(appended.last_offset + 1, model.end());
                Ok(())
            }
            10..17 => log.write_pending().await.map(|end| {
                assert!(end >= model.acked_end);
                model.acked_end = end;
            }),
            17 => log.checkpoint().await.map(drop),
            18 => {
                // Notes are not part of the log: an error ends nothing.
                let _ = environment.write_notes().await;
                Ok(())
            }
            19 if chance.one_in(3) && model.acked_end > model.start => {
                let range = (model.acked_end - model.start) as u64;
                let to = model.start + 1 + chance.below(range) as i64;
                model.start_max = model.start_max.max(to);
                log.delete_records(to).await.map(|start| model.start = start)
            }
            20 => {
                log.release_idle();
                Ok(())
            }
            21 if chance.one_in(4) => {
                let to = log.flushed_end() - chance.below(15) as i64;
                let to = to.max(log.log_start());
                // From here on nobody may count on what is behind, whether or not the cut comes
                // through. A batch has three records at most.
                model.acked_end = model.acked_end.min(to - 2).max(0);
                model.start = model.start.min(to - 2).max(0);
                // Batches that retention took may be forgotten.
                let start = log.log_start();
                let below = model.sent.iter_mut().filter(|sent| sent.base_offset < start);
                below.for_each(|sent| sent.may_be_forgotten = true);
                log.truncate(to).await.map(|()| {
                    model.cut(log.end());
                    model.acked_end = log.end();
                    model.start = log.log_start();
                    model.epoch += 1;
                })
            }
            22 if chance.one_in(3) => {
                let mut options = small_options();
                options.retention_bytes = Some(30_000);
                log.set_options(options);
                model.start_max = model.start_max.max(log.flushed_end());
                let kept = log.apply_retention(model.now_ms, log.flushed_end()).await;
                kept.map(|_| model.start = log.log_start())
            }
            _ => {
                let found = read_all(log, 1 + chance.below(9000) as usize).await;
                let (start, end) = (log.log_start() as usize, log.flushed_end() as usize);
                match found {
                    Ok(found) => assert_eq!(found, model.records[start..end]),
                    Err(error) => assert!(error.contains("faulty disk"), "{error}"),
                }
                Ok(())
            }
        };
        if let Err(error) = result
            && take(model, log, &error) == Went::Ended
        {
            return Went::Ended;
        }
        if environment.disk().is_down() {
            return Went::Ended;
        }
    }
    Went::Through
}

/// A log that was opened again holds what was acknowledged, each record once, in order; nothing
/// from nowhere; and knows its producers. The model then is what the log holds.
pub async fn check_reopened(log: &Log<FaultDisk>, model: &mut Model) {
    let (start, end) = (log.log_start(), log.flushed_end());
    assert!(end >= model.acked_end, "lost {end}..{}", model.acked_end);
    assert!(end <= model.end(), "{end} of {}", model.end());
    let start_max = model.start_max.max(model.start);
    assert!(start >= model.start && start <= start_max, "{start} of {}..={start_max}", model.start);
    let found = read_all(log, 5000).await.expect("what was flushed can be read");
    assert_eq!(found, model.records[start as usize..end as usize]);
    model.cut(end);
    model.acked_end = end;
    model.start = start;
    model.start_max = start;
    check_producers(log, model);
    let epochs: Vec<i32> = found.iter().map(|record| record.epoch).collect();
    assert_eq!(log.latest_epoch().filter(|_| !epochs.is_empty()), epochs.last().copied());
}

/// The last five batches of each producer are known, and what follows them is in order.
pub fn check_producers(log: &Log<FaultDisk>, model: &Model) {
    for id in 0..3 {
        let sent: Vec<&Sent> = model.sent.iter().filter(|s| s.producer.0 == id).collect();
        for sent in sent.iter().rev().take(5) {
            if sent.may_be_forgotten {
                continue;
            }
            let checked = check(log, sent.producer, sent.count);
            let last_offset = sent.base_offset + i64::from(sent.count) - 1;
            let base_offset = sent.base_offset;
            let known = SequenceCheck::Duplicate { base_offset, last_offset };
            assert_eq!(checked, known, "{sent:?}");
        }
        if let Some(last) = sent.last() {
            let next = (id, 0, last.producer.2 + last.count);
            assert_eq!(check(log, next, 1), SequenceCheck::Append, "{sent:?}");
        }
    }
}

fn check(log: &Log<FaultDisk>, producer: (i64, i16, i32), count: i32) -> SequenceCheck {
    let values = vec![vec![0]; count as usize];
    let batch = batch(0, &values, Some(producer));
    log.check_producer(&batch.producer().unwrap())
}

/// The id of another topic.
pub fn other_topic() -> Uuid {
    Uuid(TOPIC_ID.0 + 1)
}
