//! The log becomes the machine's state again: at the start, and after the log took something back.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::select;
use vltava_protocol::batch::Batch;
use vltava_protocol::record;

use super::{Host, Loaded, RELOAD_PAUSE};
use crate::coordinator::timers::Timers;
use crate::machine::{KeyValue, Machine};
use crate::partition::error::PartitionError;
use crate::partition::replay;
use crate::runtime::Runtime;

/// Bytes of the log that one step reads.
const LOAD_BYTES: usize = 1024 * 1024;

/// Why a log could not be replayed.
enum LoadError {
    /// It cannot be read now.
    Unreadable(String),
    /// What it holds is not what was written, or cannot be understood: no later try helps.
    Damaged(String),
}

impl<M: Machine, R: Runtime> Host<M, R> {
    /// For as long as the host lives: loads when the replica has begun to lead, and lets go when it
    /// does no longer.
    pub(super) async fn follow_leadership(self: Rc<Self>) {
        let mut led = None;
        while !self.stopped.get() {
            let (changed, stopped) = (self.replica.leadership_changes(), self.stops.listen());
            let leads = self.replica.leads();
            if leads == led {
                select(changed, stopped).await;
                continue;
            }
            if std::mem::replace(&mut led, leads).is_some() {
                self.unload(&PartitionError::NotLeader);
            }
            if let Some(epoch) = leads {
                Rc::clone(&self).load(epoch).await;
                self.release_held();
            }
        }
    }

    /// Until the log has been replayed, is found damaged, or the replica does not lead at this
    /// epoch any more.
    pub(super) async fn load(self: Rc<Self>, epoch: i32) {
        let is_over = || self.stopped.get() || self.replica.leads() != Some(epoch);
        while !is_over() && self.loaded.borrow().is_none() {
            match self.replay_log().await {
                // Perhaps not all of the log, and perhaps it was cut.
                _ if is_over() || self.loaded.borrow().is_some() => return,
                Ok(state) => {
                    let loaded = Loaded {
                        epoch,
                        state,
                        session: M::Session::default(),
                        timers: Timers::default(),
                        refusals: self.replica.refusals(),
                    };
                    *self.loaded.borrow_mut() = Some(loaded);
                    self.loads_changed.notify();
                    self.lead();
                    return;
                }
                Err(LoadError::Damaged(why)) => {
                    tracing::error!(
                        partition = self.replica.name(),
                        why,
                        "the log of a coordinator is damaged; it is out of service until a restart"
                    );
                    *self.damage.borrow_mut() = Some(why);
                    self.loads_changed.notify();
                    return;
                }
                Err(LoadError::Unreadable(error)) => {
                    tracing::error!(
                        partition = self.replica.name(),
                        error,
                        "coordinator cannot load its log"
                    );
                    self.release_held();
                    if !self.let_another_lead().await {
                        self.runtime.sleep(RELOAD_PAUSE * 10).await;
                    }
                }
            }
        }
    }

    /// Whether a replica leads in place of this one that has all of the log, and may be able to
    /// read it: this node may have no descriptor for a long time.
    async fn let_another_lead(&self) -> bool {
        for node in self.replica.successors() {
            if self.replica.hand_over(node).await {
                return true;
            }
        }
        false
    }

    async fn replay_log(&self) -> Result<M::State, LoadError> {
        let mut state = M::State::default();
        let mut offset = self.replica.log_start();
        // Everything in the log, also what is not yet committed: this replica leads, so it will be.
        while offset < self.replica.end() && !self.stopped.get() {
            let readable = self.replica.high_watermark();
            let read = self.replica.read_bytes(offset, LOAD_BYTES).await;
            let bytes = read.map_err(|error| match error {
                PartitionError::Damaged(what) => self.rotten(offset, what),
                other => LoadError::Unreadable(other.to_string()),
            })?;
            let before = offset;
            for batch in replay::proved(&bytes, offset) {
                let batch = batch.map_err(|error| self.rotten(offset, error.to_string()))?;
                if !batch.is_control() {
                    self.replay_batch(&mut state, &batch).map_err(LoadError::Damaged)?;
                }
                offset = batch.next_offset();
            }
            if offset == before && offset < readable {
                return Err(self.rotten(offset, format!("there is no batch at offset {offset}")));
            }
            if offset == before {
                // What is queued is not readable before it is written.
                self.replica.committed_beyond(offset).await;
                if let Some(why) = self.replica.ended() {
                    return Err(LoadError::Unreadable(why));
                }
            }
            self.runtime.yield_if_needed().await;
        }
        Ok(state)
    }

    /// The batch at this offset is not what was written. Where others keep the log, too, it is
    /// taken from them.
    fn rotten(&self, offset: i64, what: String) -> LoadError {
        match self.replica.suspect(offset) {
            true => LoadError::Unreadable(what),
            false => LoadError::Damaged(what),
        }
    }

    fn replay_batch(&self, state: &mut M::State, batch: &Batch<'_>) -> Result<(), String> {
        for record in record::records(batch.payload(), batch.record_count()) {
            let record = record.map_err(|error| error.to_string())?;
            let Some(key) = record.key else { continue };
            let pair = KeyValue {
                key: Bytes::copy_from_slice(key),
                value: record.value.map(Bytes::copy_from_slice),
            };
            let offset = batch.base_offset() + i64::from(record.offset_delta);
            let timestamp = batch.base_timestamp().saturating_add(record.timestamp_delta);
            self.machine
                .replay(state, &pair, offset, timestamp)
                .map_err(|error| format!("offset {offset}: {error}"))?;
        }
        Ok(())
    }
}
