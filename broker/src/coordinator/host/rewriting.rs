//! The log stays short: its live state is written again, and what lies before is deleted.

use std::rc::Rc;

use bytes::Bytes;

use super::Host;
use crate::machine::Machine;
use crate::partition::error::PartitionError;
use crate::runtime::{Queue, Runtime};

/// Records of the live state in one batch.
const REWRITE_RECORDS: usize = 256;

impl<M: Machine, R: Runtime> Host<M, R> {
    /// Once a segment of the log is closed, and the log is twice as large as the last time, the
    /// live state is written again behind it and what lies before is deleted: the log stays within
    /// about four times its live state, or as many segments, whatever its history.
    pub(super) fn rewrite_if_due(self: &Rc<Self>) {
        let has_grown = || self.replica.size_bytes() >= 2 * self.rewritten_bytes.get();
        if self.rewriting.get() || !self.replica.has_closed_segments() || !has_grown() {
            return;
        }
        self.rewriting.set(true);
        let host = Rc::clone(self);
        self.runtime.spawn(Queue::Background, async move {
            if let Err(error) = host.rewrite().await {
                tracing::warn!(
                    partition = host.replica.name(), %error,
                    "coordinator could not shorten its log"
                );
            }
            host.rewriting.set(false);
        });
    }

    async fn rewrite(self: &Rc<Self>) -> Result<(), PartitionError> {
        let start = self.replica.end();
        let generation = self.generation.get();
        let mut after: Option<Bytes> = None;
        loop {
            self.check_current();
            let piece =
                self.read(|state| self.machine.snapshot(state, after.as_ref(), REWRITE_RECORDS));
            let Some(piece) = piece.filter(|_| generation == self.generation.get()) else {
                return Ok(());
            };
            let Some(last) = piece.last() else { break };
            after = Some(last.key.clone());
            let queued = self.append(&piece, self.now())?;
            queued.committed.await.unwrap_or(Err(PartitionError::Unknown))?;
        }
        self.replica.delete_records(start).await?;
        self.rewritten_bytes.set(self.replica.size_bytes());
        tracing::info!(
            partition = self.replica.name(),
            start,
            "coordinator rewrote its live state"
        );
        Ok(())
    }
}
