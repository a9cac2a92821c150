//! Producers that are not known and whose first batches were refused. Pure.
//!
//! A producer that is not known may begin with any sequence number: retention may have taken what
//! it wrote. But where its batch was refused for a reason that may pass (no space, not the leader
//! yet, too few replicas in sync), those behind it may be on their way already, and once the reason
//! has gone the first of them must not be taken for a beginning: the refused one, sent again, would
//! come behind it or never.
//!
//! Lives in memory only: after a restart every client sends anew, in order.

use std::collections::BTreeMap;

use crate::producer_state::ProducerBatch;

/// Producers remembered; what is not is as if it had never been refused.
const KEPT_MAX: usize = 1000;

/// Epoch and sequence that each of them has to go on with.
#[derive(Debug, Default)]
pub(crate) struct RefusedProducers(BTreeMap<i64, (i16, i32)>);

impl RefusedProducers {
    /// A batch of a producer that is not known was refused. Only the first of them counts.
    pub(crate) fn refuse(&mut self, batch: &ProducerBatch) {
        let known = self.0.get(&batch.producer_id);
        if known.is_none_or(|(epoch, _)| *epoch < batch.producer_epoch) {
            self.take_back(batch);
        }
    }

    /// A batch was taken back, and its producer is not known any more. Called for the newest batch
    /// first: the oldest counts.
    pub(crate) fn take_back(&mut self, batch: &ProducerBatch) {
        self.0.insert(batch.producer_id, (batch.producer_epoch, batch.base_sequence));
        if self.0.len() > KEPT_MAX {
            self.0.pop_first();
        }
    }

    /// A batch of this producer was taken.
    pub(crate) fn forget(&mut self, producer_id: i64) {
        self.0.remove(&producer_id);
    }

    /// Whether a batch stands behind a refused one of the same producer, which is not known.
    pub(crate) fn is_ahead(&self, batch: &ProducerBatch) -> bool {
        self.0.get(&batch.producer_id).is_some_and(|(epoch, sequence)| {
            *epoch == batch.producer_epoch && *sequence != batch.base_sequence
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(producer_epoch: i16, base_sequence: i32) -> ProducerBatch {
        ProducerBatch {
            producer_id: 7,
            producer_epoch,
            base_sequence,
            last_offset_delta: 0,
            timestamp: 0,
            is_transactional: false,
            is_control: false,
        }
    }

    #[test]
    fn a_producer_goes_on_where_it_was_refused_first() {
        let mut refused = RefusedProducers::default();
        assert!(!refused.is_ahead(&batch(0, 3)), "nothing was refused");
        refused.refuse(&batch(0, 3));
        refused.refuse(&batch(0, 4));
        assert!(refused.is_ahead(&batch(0, 4)) && !refused.is_ahead(&batch(0, 3)));
        assert!(!refused.is_ahead(&batch(1, 0)), "a new epoch begins anew");
        refused.refuse(&batch(1, 5));
        assert!(refused.is_ahead(&batch(1, 6)));
        refused.forget(7);
        assert!(!refused.is_ahead(&batch(1, 6)));
    }

    #[test]
    fn of_what_is_taken_back_the_oldest_counts() {
        let mut refused = RefusedProducers::default();
        refused.take_back(&batch(0, 2));
        refused.take_back(&batch(0, 1));
        assert!(refused.is_ahead(&batch(0, 2)) && !refused.is_ahead(&batch(0, 1)));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut refused = RefusedProducers::default();
        for producer_id in 0..2000 {
            refused.refuse(&ProducerBatch { producer_id, ..batch(0, 1) });
        }
        assert_eq!(refused.0.len(), KEPT_MAX);
    }
}
