//! Which partitions of this data directory are kept on another shard than the computed one: a small
//! file that is replaced as a whole.
//!
//! A preference, no truth: any shard can open any log, and reads what all shards have noted and
//! promised. So a file that is lost, damaged or older costs nothing but the spread that it asked
//! for.
//!
//! The payload (see `checkpoint` for the frame around it): a count, then of each partition the
//! topic's id, the partition's number, and the shard.

use std::collections::BTreeMap;

use vltava_protocol::types::Uuid;

use crate::checkpoint::{FieldReader, FieldWriter, FrameKind, Tail, frame, read_frame, replace};
use crate::error::{Corruption, StorageError, StorageResult};
use crate::group_key::GroupKey;
use crate::io::Disk;
use crate::layout::SHARDS;

const EXCEPTIONS: FrameKind = FrameKind { magic: *b"VLTS", version: 1 };

/// The shard of each partition that is an exception.
pub type ShardExceptions = BTreeMap<GroupKey, u32>;

/// Reads the exceptions; none where there is no file.
///
/// # Errors
/// [`StorageError::Corrupt`], [`StorageError::Format`], [`StorageError::Unreadable`]: the caller
/// goes on without.
pub async fn read_shard_exceptions<D: Disk>(disk: &D) -> StorageResult<ShardExceptions> {
    let Some(payload) = read_frame(disk, SHARDS, EXCEPTIONS).await? else {
        return Ok(ShardExceptions::new());
    };
    let list = FieldReader(&payload).list(|fields| {
        let topic_id = Uuid(fields.u128()?);
        Some((GroupKey { topic_id, partition: fields.i32()? }, fields.u32()?))
    });
    let exceptions = list.map(|list| list.into_iter().collect());
    exceptions.ok_or_else(|| {
        StorageError::Corrupt(Corruption {
            path: SHARDS.to_owned(),
            position: 0,
            offset: -1,
            what: "it ends too early".to_owned(),
        })
    })
}

/// Replaces the exceptions: after a crash the old ones or these, these for certain once this
/// returns.
///
/// # Errors
/// What the disk says; the old ones stand.
pub async fn write_shard_exceptions<D: Disk>(
    disk: &D,
    exceptions: &ShardExceptions,
) -> StorageResult<()> {
    let mut fields = FieldWriter::default();
    fields.count(exceptions.len());
    for (key, shard) in exceptions {
        fields.u128(key.topic_id.0);
        fields.i32(key.partition);
        fields.u32(*shard);
    }
    let written = replace(disk, "", SHARDS, &frame(EXCEPTIONS, &fields.0), Tail::Padded).await;
    written.map_err(StorageError::from_write)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::fault_disk::{Fault, FaultDisk};
    use crate::testing::run;

    fn some(shard: u32) -> ShardExceptions {
        let key = |partition| GroupKey { topic_id: Uuid(u128::MAX - 7), partition };
        ShardExceptions::from([(key(0), shard), (key(i32::MAX), 3)])
    }

    #[test]
    fn what_is_written_is_read() {
        run(async {
            let mut disk = FaultDisk::new(1);
            assert_eq!(read_shard_exceptions(&disk).await.unwrap(), ShardExceptions::new());
            for exceptions in [some(1), some(2), ShardExceptions::new()] {
                write_shard_exceptions(&disk, &exceptions).await.unwrap();
                disk = disk.restart();
                assert_eq!(read_shard_exceptions(&disk).await.unwrap(), exceptions);
            }
        });
    }

    #[test]
    fn a_crash_leaves_the_old_or_the_new() {
        run(async {
            for at in 0..20 {
                let disk = FaultDisk::new(at);
                write_shard_exceptions(&disk, &some(1)).await.unwrap();
                disk.inject(Fault::Crash { at });
                let written = write_shard_exceptions(&disk, &some(2)).await;
                let found = read_shard_exceptions(&disk.restart()).await.unwrap();
                assert!(found == some(2) || (found == some(1) && written.is_err()), "{at}");
            }
        });
    }

    #[test]
    fn damage_and_other_versions_are_told() {
        run(async {
            for at in [0, 5, 9, 13, 20, 40] {
                let damaged = FaultDisk::new(1);
                write_shard_exceptions(&damaged, &some(1)).await.unwrap();
                damaged.damage(SHARDS, |content| content[at] ^= 1);
                let found = read_shard_exceptions(&damaged).await;
                assert!(matches!(found, Err(StorageError::Corrupt(_))), "byte {at}: {found:?}");
            }
            let disk = FaultDisk::new(1);
            let newer = frame(FrameKind { version: 2, ..EXCEPTIONS }, &[]);
            replace(&disk, "", SHARDS, &newer, Tail::Padded).await.unwrap();
            let found = read_shard_exceptions(&disk).await;
            assert!(matches!(found, Err(StorageError::Format { found: 2, known: 1, .. })));
        });
    }
}
