//! Looks for bit rot: reads the segments of a shard's logs again and checks every batch, slowly,
//! over and over. Nothing else reads them after their day unless a consumer does, and then
//! it is late.
//!
//! A segment is read at `BYTES_PER_SECOND`, so a pass over a terabyte takes a day and a half; a
//! pass begins `log.verify.interval.ms` after the last one began. What is found is logged, and
//! counted by `vltava_partitions_damaged` while the log still holds it. What other nodes keep, too,
//! is taken from them (`mend`). Else the partition goes on: consumers check the CRC, and everything
//! else can be read.

use std::rc::Rc;
use std::time::Duration;

use vltava_storage::{Corruption, StorageError};

use super::view::Node;
use crate::metadata::image::PartitionId;
use crate::partition::replica::Replica;
use crate::runtime::Runtime;

/// Bytes that each shard reads in a second of a pass.
const BYTES_PER_SECOND: u64 = 8 << 20;
/// From the start of the process to the first pass, where passes are no shorter apart.
const FIRST_PASS_AFTER: Duration = Duration::from_mins(10);

/// Checks the logs of this shard for as long as the process lives.
pub async fn run<R: Runtime>(node: Rc<Node<R>>) {
    node.all_serving().await;
    let runtime = node.parts.runtime.clone();
    // From the begin of one pass to the begin of the next; a longer pass is followed at once.
    let period = Duration::from_millis(node.parts.config.verify_interval_ms);
    let mut due = runtime.now().after(period.min(FIRST_PASS_AFTER));
    loop {
        runtime.sleep_until(due).await;
        due = runtime.now().after(period);
        for (id, replica) in node.parts.partitions.all_local() {
            let found = damage_of(&runtime, &replica, |damage| {
                node.note_damage(id, damage.offset);
                replica.damaged(damage.clone());
            });
            let found = found.await;
            node.keep_damage(id, &found);
            runtime.yield_if_needed().await;
        }
    }
}

/// What is damaged in the segments of a log, oldest first; the first of each segment. Each is told
/// as it is found: a pass over the rest may take hours.
async fn damage_of<R: Runtime>(
    runtime: &R,
    replica: &Replica<R>,
    tell: impl Fn(&Corruption),
) -> Vec<Corruption> {
    let mut found = Vec::new();
    for base_offset in replica.segments() {
        let pause = async |bytes: u64| {
            let time = Duration::from_millis(bytes * 1000 / BYTES_PER_SECOND);
            runtime.sleep(time).await;
        };
        match replica.verify(base_offset, pause).await {
            Ok(()) => {}
            Err(StorageError::Corrupt(corruption)) => {
                tracing::error!(
                    partition = replica.name(), damage = %corruption,
                    "a record batch is not what was written; docs/operations.md, \"A damaged log\""
                );
                tell(&corruption);
                found.push(corruption);
            }
            // Gone meanwhile, or a disk that fails: reads will say so.
            Err(error) => {
                tracing::warn!(partition = replica.name(), %error, "a segment cannot be verified");
            }
        }
    }
    found
}

impl<R: Runtime> Node<R> {
    /// A pass has found this, and nothing else: what was found before it is gone. What was mended
    /// meanwhile is not there any more.
    fn keep_damage(&self, partition: PartitionId, found: &[Corruption]) {
        let mut damage = self.damage.borrow_mut();
        if let Some(offsets) = damage.get_mut(&partition) {
            offsets.retain(|known| found.iter().any(|corruption| corruption.offset == *known));
            if offsets.is_empty() {
                damage.remove(&partition);
            }
        }
    }

    /// Damage was found, in a pass or beside one.
    pub(super) fn note_damage(&self, partition: PartitionId, offset: i64) {
        let mut damage = self.damage.borrow_mut();
        let offsets = damage.entry(partition).or_default();
        if !offsets.contains(&offset) {
            offsets.push(offset);
        }
    }

    /// It is mended.
    pub(super) fn forget_damage(&self, partition: PartitionId, offset: i64) {
        if let Some(offsets) = self.damage.borrow_mut().get_mut(&partition) {
            offsets.retain(|known| *known != offset);
        }
    }

    /// Partitions of this shard that hold damage which the last pass found.
    pub fn damaged_partitions(&self) -> usize {
        let damage = self.damage.borrow();
        let holds = |(id, offsets): &(&PartitionId, &Vec<i64>)| {
            let replica = self.parts.partitions.local(**id);
            replica.is_ok_and(|replica| offsets.iter().any(|o| *o >= replica.log_start()))
        };
        damage.iter().filter(holds).count()
    }
}

#[cfg(test)]
#[cfg(feature = "simulator")]
mod tests {
    use bytes::Bytes;
    use vltava_protocol::batch_builder::BatchBuilder;
    use vltava_protocol::types::Uuid;
    use vltava_storage::{AppendClass, EnvironmentOptions, Log, LogEnvironment, LogOptions, Notes};

    use super::*;
    use crate::runtime::sim::{SimRuntime, run_alone};

    async fn written(runtime: &SimRuntime) -> Rc<Replica<SimRuntime>> {
        let (disk, options) = (runtime.disk().clone(), EnvironmentOptions::default());
        let logs = LogEnvironment::new(disk, options, 0, Notes::default());
        let options = LogOptions { segment_bytes: 1 << 20, ..LogOptions::default() };
        let log = Log::create(&logs, "topic-0", Uuid(1), options).await.unwrap();
        let replica = Replica::alone(runtime.clone(), "topic-0".to_owned(), log, 1);
        for _ in 0..40 {
            let mut builder = BatchBuilder::new();
            builder.append(1, None, Some(&vec![7; 100_000]), &[]).unwrap();
            let batch = Bytes::from(builder.build());
            let queued = replica.append(batch, AppendClass::Client).unwrap();
            queued.committed.await.unwrap().unwrap();
        }
        replica
    }

    #[test]
    fn rot_in_a_closed_segment_is_found_and_the_disk_is_not_kept_busy() {
        run_alone(1, |runtime, disk| async move {
            let replica = written(&runtime).await;
            assert_eq!(replica.segments().len(), 4);
            let before = runtime.now();
            assert_eq!(damage_of(&runtime, &replica, |_| {}).await, []);
            // Each takes its part.
            let least = Duration::from_millis(40 * 100_000 * 1000 / BYTES_PER_SECOND);
            assert!(runtime.now().since(before) >= least);
            disk.damage("topic-0/00000000000000000010.log", |bytes| bytes[250_000] ^= 1);
            let found = damage_of(&runtime, &replica, |_| {}).await;
            assert_eq!(found.iter().map(|c| c.offset).collect::<Vec<_>>(), [12]);
        });
    }
}
