//! Batches of an open log that are not what was written: they are not given to anybody, and taken
//! again from another replica, in their place.
//!
//! A log that nobody else keeps stays as it is: all that is sound in it is served.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{Either, select};
use vltava_storage::{Corruption, ReplicatedBatches, StorageError};

use super::Replica;
use crate::partition::copy::{Answer, COPY, Question};
use crate::partition::error::PartitionError;
use crate::runtime::{Monotonic, Queue, Runtime};

/// How long another replica may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// How long it is waited where no other replica has it, or it cannot be written.
const RETRY: Duration = Duration::from_secs(5);
/// Offsets that are remembered until somebody looks.
const SUSPECTS_MAX: usize = 16;
/// Pieces that are taken at a time: of more, the rest waits for the next.
const PIECES_MAX: usize = 4096;

/// What is known of a log's damage.
#[derive(Debug, Default)]
pub(super) struct Rot {
    /// Somebody was given something that was not what was written, from about there on.
    suspects: Vec<i64>,
    found: Vec<Damage>,
    /// When it was last tried to mend what was found.
    tried: Option<Monotonic>,
}

/// Damage that was found, and not mended yet.
#[derive(Clone, Debug)]
struct Damage {
    corruption: Corruption,
    /// Where its segment ends: what stands between was not looked at.
    until: i64,
}

impl<R: Runtime> Replica<R> {
    /// What was read from this offset on does not seem to be what was written. Whether it is to be
    /// mended: others keep the log, too.
    pub fn suspect(&self, offset: i64) -> bool {
        let mut rot = self.rot.borrow_mut();
        let is_shared = self.is_shared();
        if is_shared && rot.suspects.len() < SUSPECTS_MAX && !rot.suspects.contains(&offset) {
            rot.suspects.push(offset);
        }
        is_shared
    }

    /// Tells the leader on a node that what it sent from this offset on is not what was written.
    pub(super) fn tell_rotten(&self, node: i32, from: i64) {
        let Some(peers) = self.surroundings.as_ref().map(|near| near.peers.clone()) else { return };
        let body = Question::Rotten { from }.to_bytes(self.partition);
        self.runtime.spawn(Queue::Control, async move {
            // Nothing is answered. Where it is not heard, it is said again with the next message.
            let _ = peers.request(node, COPY, body).await;
        });
    }

    /// Whether [`Replica::look_at_suspects`] or [`Replica::mend`] has something to do.
    pub fn has_rot(&self) -> bool {
        let rot = self.rot.borrow();
        !rot.suspects.is_empty() || !rot.found.is_empty()
    }

    /// Reads from the disk what is suspect: the damage that this finds, now known.
    pub async fn look_at_suspects(&self) -> Vec<Corruption> {
        let suspects = std::mem::take(&mut self.rot.borrow_mut().suspects);
        let mut found = Vec::new();
        for offset in suspects {
            if self.sound_until(offset).is_err() {
                continue;
            }
            match self.log.verify(offset).await {
                Err(StorageError::Corrupt(corruption)) => {
                    self.damaged(corruption.clone());
                    found.push(corruption);
                }
                // What was read of it before may have been damaged in memory.
                _ => self.log.forget_read(offset),
            }
        }
        found
    }

    /// This damage was found: what it stands in is given to nobody until it is mended.
    pub fn damaged(&self, corruption: Corruption) {
        if !self.is_shared() {
            return;
        }
        let bases = self.log.segments().into_iter().map(|segment| segment.base_offset);
        let until = bases.filter(|base| *base > corruption.offset).min();
        let until = until.unwrap_or_else(|| self.log.flushed_end());
        let mut rot = self.rot.borrow_mut();
        // Of a segment that is written to, the end is another each time.
        let is_another =
            |known: &Damage| known.until != until && known.corruption.offset != corruption.offset;
        rot.found.retain(is_another);
        rot.found.push(Damage { corruption, until });
    }

    /// Below which offset a read that begins at `from` finds what was written, as far as is known.
    pub(in crate::partition) fn sound_until(&self, from: i64) -> Result<i64, PartitionError> {
        let mut sound = i64::MAX;
        for Damage { corruption, until } in &self.rot.borrow().found {
            if (corruption.offset..*until).contains(&from) {
                return Err(PartitionError::Damaged(corruption.to_string()));
            }
            if from < corruption.offset {
                sound = sound.min(corruption.offset);
            }
        }
        Ok(sound)
    }

    /// The same for clients. Where no other replica could give what is damaged, all that is sound
    /// behind it is served as well, and who reads finds the damage himself.
    pub(in crate::partition) fn served_until(&self, from: i64) -> Result<i64, PartitionError> {
        let own = self.surroundings.as_ref().map(|near| near.own);
        let is_sole = own.is_none_or(|own| self.raft.borrow().members().is_sole_voter(&own));
        if is_sole { Ok(i64::MAX) } else { self.sound_until(from) }
    }

    /// Takes what is damaged from other replicas, as far as those that are there have it. The
    /// damage that is gone.
    pub async fn mend(&self) -> Vec<Corruption> {
        let now = self.runtime.now();
        let is_early = |tried: Monotonic| now.since(tried) < RETRY;
        if self.rot.borrow().tried.is_some_and(is_early) {
            return Vec::new();
        }
        let found = self.rot.borrow().found.clone();
        let mut mended = Vec::new();
        for damage in found {
            let first = damage.corruption.clone();
            let is_deleted = damage.until <= self.log_start();
            let left = if is_deleted { None } else { self.mend_one(first.clone()).await };
            let mut rot = self.rot.borrow_mut();
            // What was found meanwhile in front of it stays.
            let found_at = damage.corruption.offset;
            let is_another =
                |known: &Damage| known.until != damage.until || known.corruption.offset < found_at;
            rot.found.retain(is_another);
            match left {
                None => mended.push(first),
                Some(corruption) => rot.found.push(Damage { corruption, ..damage }),
            }
        }
        let is_all = self.rot.borrow().found.is_empty();
        self.rot.borrow_mut().tried = (!is_all).then(|| self.runtime.now());
        if !mended.is_empty() {
            // Who lacks what was damaged may have it now.
            self.replicate_to_all();
        }
        mended
    }

    /// What of the damage is left.
    async fn mend_one(&self, mut damage: Corruption) -> Option<Corruption> {
        for _ in 0..PIECES_MAX {
            if !self.take_same(&damage).await {
                return Some(damage);
            }
            match self.log.verify(damage.offset).await {
                Ok(_) => return None,
                Err(StorageError::Corrupt(next)) if next.offset > damage.offset => damage = next,
                Err(error) => {
                    tracing::warn!(
                        partition = self.name, %error,
                        "a batch was written again, and is damaged still: the disk does not keep it"
                    );
                    return Some(damage);
                }
            }
        }
        Some(damage)
    }

    /// Puts in place what another replica has from the damage on; whether one had it.
    async fn take_same(&self, damage: &Corruption) -> bool {
        // What is not committed may be another's on another replica.
        if damage.offset >= self.high_watermark() {
            return false;
        }
        for node in self.other_nodes() {
            let Some(batches) = self.ask_same(node, damage.offset).await else { continue };
            match self.heed_end(self.log.mend(damage, &batches).await) {
                Ok(Some(_)) => return true,
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(
                        partition = self.name, %error,
                        "a batch cannot be written again"
                    );
                    return false;
                }
            }
        }
        false
    }

    /// The nodes of other members that are there, the leader's first.
    fn other_nodes(&self) -> Vec<i32> {
        let raft = self.raft.borrow();
        let Some(near) = &self.surroundings else { return Vec::new() };
        let members = raft.members().ids().map(|id| id.node);
        let mut nodes: Vec<i32> = members.filter(|node| *node != near.own.node).collect();
        nodes.retain(|node| near.peers.session(*node).is_some());
        let leader = raft.leader().map(|leader| leader.node);
        nodes.sort_by_key(|node| Some(*node) != leader);
        nodes
    }

    async fn ask_same(&self, node: i32, from: i64) -> Option<ReplicatedBatches> {
        let near = self.surroundings.as_ref()?;
        let until = self.high_watermark();
        let body = Question::Same { from, until }.to_bytes(self.partition);
        let asked = pin!(near.peers.request(node, COPY, body));
        let time = pin!(self.runtime.sleep_until(self.runtime.now().after(ANSWER_TIME)));
        let Either::Left((Ok(answer), _)) = select(asked, time).await else { return None };
        let Some(Answer::Batches(bytes)) = Answer::from_bytes(answer) else { return None };
        let batches = ReplicatedBatches::check(bytes);
        if batches.is_err() {
            // That one has rotted, too.
            self.tell_rotten(node, from);
        }
        batches.ok().filter(|batches| !batches.is_empty())
    }
}
