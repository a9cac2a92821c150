//! What this shard's disk keeps of a group beside its log, for who looks at it, or changes it,
//! while the group's replica is not open.

use bytes::Bytes;
use vltava_storage::{GroupKey, Recorded, StorageError};

use super::request::PartitionId;
use super::surroundings::Surroundings;
use crate::raft::history::{Base, History};
use crate::raft::membership::Membership;
use crate::raft::persisted::Persisted;
use crate::raft::position::Position;
use crate::runtime::Runtime;

/// Beyond any log's end.
const UNKNOWN_END: i64 = 1 << 59;

/// What names a partition's group on a disk.
pub fn key(partition: PartitionId) -> GroupKey {
    GroupKey { topic_id: partition.topic_id, partition: partition.index }
}

/// What is kept of it, where that can be read.
fn read<R: Runtime>(near: &Surroundings<R>, partition: PartitionId) -> Option<Persisted> {
    decoded(near.journal.get(&key(partition)))
}

fn decoded(recorded: Recorded) -> Option<Persisted> {
    match recorded {
        Recorded::Value(bytes) => Persisted::from_bytes(&bytes).ok(),
        Recorded::Nothing | Recorded::Lost => None,
    }
}

async fn write<R: Runtime>(
    near: &Surroundings<R>,
    partition: PartitionId,
    kept: &Persisted,
) -> Result<(), StorageError> {
    near.journal.set(key(partition), Some(Bytes::from(kept.to_bytes()))).await
}

/// What a disk has promised in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promised {
    /// Nothing: it never took part.
    Nothing,
    /// What it had when it gave its log away; it has taken nothing since.
    GivenAway,
    /// What its log is to hold.
    Log,
}

/// What this disk has promised in a group.
pub fn promised<R: Runtime>(near: &Surroundings<R>, partition: PartitionId) -> Promised {
    match near.journal.get(&key(partition)) {
        Recorded::Nothing => Promised::Nothing,
        recorded => match decoded(recorded) {
            Some(kept) if kept.is_given_away() => Promised::GivenAway,
            _ => Promised::Log,
        },
    }
}

/// What a disk knows of what it has voted in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Votes {
    /// All.
    Known,
    /// That it was lost, and is noted as such.
    Unsure,
    /// It is lost.
    Lost,
}

/// What this disk knows of what it has voted in a group, which may be one that it never took part
/// in.
pub fn votes<R: Runtime>(
    near: &Surroundings<R>,
    partition: PartitionId,
    may_be_new: bool,
) -> Votes {
    match near.journal.get(&key(partition)) {
        Recorded::Lost => Votes::Lost,
        // Both files are gone.
        Recorded::Nothing if !may_be_new => Votes::Lost,
        recorded => match decoded(recorded) {
            Some(kept) if kept.are_votes_lost => Votes::Unsure,
            _ => Votes::Known,
        },
    }
}

/// Notes that the log of a group is lost on this disk, before it is begun anew. False where that
/// must not be: what was kept of the group is lost, too, and its vote might count twice; or nothing
/// ever was, and no other replica has what the log had.
///
/// # Errors
/// What the disk says.
pub async fn note_lost<R: Runtime>(
    near: &Surroundings<R>,
    partition: PartitionId,
) -> Result<bool, StorageError> {
    let Some(kept) = read(near, partition) else { return Ok(false) };
    write(near, partition, &Persisted { is_lost: true, ..kept }).await?;
    Ok(true)
}

/// Notes that what was kept of a group is lost on this disk, and with it what its log is worth: it
/// is begun anew, and takes part in nothing before it knows in which epochs it may have voted
/// (`raft::forced`). Nothing is known of its members but whom the group began with.
///
/// # Errors
/// What the disk says.
pub async fn note_votes_lost<R: Runtime>(
    near: &Surroundings<R>,
    partition: PartitionId,
    founders: Membership,
) -> Result<(), StorageError> {
    let history = History::new(Base { at: Position::ZERO, members: founders, log_start: 0 });
    let kept = Persisted::of(-1, None, false, &history);
    write(near, partition, &Persisted { is_lost: true, are_votes_lost: true, ..kept }).await
}

/// Keeps what a replica promised whose log cannot be opened, before that is removed: the group has
/// these members now. Where its log ended is not known; it had no epoch that the marks do not name.
///
/// # Errors
/// What the disk says.
pub async fn give_away<R: Runtime>(
    near: &Surroundings<R>,
    partition: PartitionId,
    members: Membership,
) -> Result<(), StorageError> {
    let Some(kept) = read(near, partition) else { return Ok(()) };
    let epoch = kept.marks.last().map_or(kept.base.at.epoch, |mark| mark.epoch);
    let log_end = Position { epoch, offset: UNKNOWN_END, marks: 0 };
    write(near, partition, &kept.given_away(log_end, members)).await
}
