//! A replica whose log lacks what its leader's marks no longer tell apart: it takes what is
//! committed as it is. `raft/recovery.rs` says in which order that is safe.

use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use vltava_storage::{ReplicatedBatches, StorageError};

use super::Replica;
use crate::partition::copy::{Answer, COPY, Question};
use crate::raft::history::Base;
use crate::raft::node::Role;
use crate::raft::position::Position;
use crate::runtime::Runtime;

/// How long to wait where nobody leads, or the leader does not answer.
pub(super) const PAUSE: Duration = Duration::from_millis(100);
/// How long to wait, at least and at most, where a throttle asks for it.
const LATER_MIN: Duration = Duration::from_millis(1);
const LATER_MAX: Duration = Duration::from_secs(1);
/// How long a leader may take to answer.
const ANSWER_TIME: Duration = Duration::from_secs(10);

impl<R: Runtime> Replica<R> {
    /// The log becomes the leader's up to the base. What it says of its ends counts for nothing
    /// before all of it is there, and that is noted.
    pub(super) async fn restore(&self, base: Base, kept_end: i64) -> Result<(), StorageError> {
        let (base_at, end) = (base.at, base.at.offset);
        let is_whole = kept_end >= end;
        self.keep(|kept| {
            (kept.base, kept.is_restoring) = (base, !is_whole);
            kept.marks.clear();
        })
        .await?;
        if is_whole {
            return self.cut_log(end).await;
        }
        tracing::info!(partition = self.name, end, "a replica takes its log from its leader");
        let mut is_begun = false;
        while self.log.end() < end || !is_begun {
            if self.is_void(base_at) {
                return Ok(());
            }
            let question = match is_begun {
                false => Question::Beginning,
                true => Question::Batches { from: self.log.end(), until: end },
            };
            match self.ask_leader(question, base_at).await {
                Some(Answer::Beginning { first_batch, epochs, producers }) => {
                    let begin = first_batch.min(end);
                    let is_before = |epoch: &&(i32, i64)| epoch.1 <= begin;
                    let epochs: Vec<_> = epochs.iter().filter(is_before).copied().collect();
                    self.begin_at(begin, &epochs, &producers, kept_end).await?;
                    is_begun = true;
                }
                Some(Answer::Batches(bytes)) if !bytes.is_empty() => {
                    self.take_copied(bytes, end).await?;
                }
                Some(Answer::Later(wait_ms)) => {
                    let wait = Duration::from_millis(wait_ms.into()).clamp(LATER_MIN, LATER_MAX);
                    self.runtime.sleep(wait).await;
                }
                // It was deleted there meanwhile.
                Some(Answer::Gone) => is_begun = false,
                Some(Answer::Batches(_)) | None => self.runtime.sleep(PAUSE).await,
            }
        }
        self.keep(|kept| kept.is_restoring = false).await
    }

    /// What the log has below `kept_end` is the leader's; where the leader has it no more, the log
    /// begins where the leader's does.
    async fn begin_at(
        &self,
        first_batch: i64,
        epochs: &[(i32, i64)],
        producers: &Bytes,
        kept_end: i64,
    ) -> Result<(), StorageError> {
        let own_end = self.log.end().min(kept_end);
        if own_end > first_batch && self.log.first_batch() < own_end {
            return self.log.truncate(own_end).await;
        }
        self.log.reset_to(first_batch, producers, epochs).await
    }

    async fn take_copied(&self, bytes: Bytes, until: i64) -> Result<(), StorageError> {
        let Some(batches) = copied(bytes, until) else {
            tracing::error!(partition = self.name, "a leader's batches are not what they were");
            if let Some(leader) = self.raft.borrow().leader() {
                self.tell_rotten(leader.node, self.log.end());
            }
            self.runtime.sleep(PAUSE).await;
            return Ok(());
        };
        let now_ms = self.runtime.wall_clock_ms();
        let taken = self.log.append_replicated(batches, self.replicated_class, now_ms);
        let written = match taken {
            Ok(_) => self.write_all().await,
            Err(error) => Err(error),
        };
        match written {
            Err(error @ (StorageError::Full(_) | StorageError::NoDescriptor(_))) => {
                tracing::warn!(
                    partition = self.name, %error,
                    "a replica waits for room for its log"
                );
                self.runtime.sleep(10 * PAUSE).await;
                Ok(())
            }
            written => written,
        }
    }

    async fn write_all(&self) -> Result<(), StorageError> {
        while self.log.has_pending() {
            self.log.write_pending().await?;
        }
        Ok(())
    }

    /// Whether what is to be restored up to this base is not to be any more: the replica leaves, or
    /// another generation has begun, and what is to be now stands behind this.
    fn is_void(&self, base_at: Position) -> bool {
        let raft = self.raft.borrow();
        let has_ended = self.agenda.borrow().is_over() || raft.role() == Role::Ended;
        has_ended || raft.history().base().at != base_at
    }

    async fn ask_leader(&self, question: Question, base_at: Position) -> Option<Answer> {
        let surroundings = self.surroundings.as_ref()?;
        let leader = self.raft.borrow().leader().filter(|leader| *leader != surroundings.own)?;
        let body = question.to_bytes(self.partition);
        let asked = pin!(surroundings.peers.request(leader.node, COPY, body));
        // What passes beside this changes nothing in it: a long answer is not given up for that.
        let is_in_vain = pin!(async {
            loop {
                let changed = self.agenda_changes.listen();
                if self.is_void(base_at) {
                    return;
                }
                changed.await;
            }
        });
        match self.runtime.in_time(ANSWER_TIME, select(asked, is_in_vain)).await? {
            Either::Left((answer, _)) => Answer::from_bytes(answer.ok()?),
            Either::Right(_) => None,
        }
    }
}

/// The batches that a leader answered; `None` where they are not as they were written, or go beyond
/// what it was asked for: that the group does not know.
fn copied(bytes: Bytes, until: i64) -> Option<ReplicatedBatches> {
    let batches = ReplicatedBatches::check(bytes).ok()?;
    batches.next_offset().is_none_or(|next| next <= until).then_some(batches)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::batch_builder::BatchBuilder;

    use super::*;

    #[test]
    fn no_more_is_taken_than_was_asked_for() {
        let batch = |base_offset| {
            let mut builder = BatchBuilder::new().position(base_offset, 2);
            builder.append(1, None, Some(b"a"), &[]).unwrap();
            builder.build()
        };
        let two = Bytes::from([batch(7), batch(8)].concat());
        let next = |until| copied(two.clone(), until).map(|batches| batches.next_offset());
        assert_eq!((next(10), next(9), next(8)), (Some(Some(9)), Some(Some(9)), None));
        assert!(copied(two.slice(1..), 10).is_none());
    }
}
