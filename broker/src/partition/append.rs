//! Batches for partitions of one shard: enqueued at once, answered as their terms say.

use std::future::Future;
use std::rc::Rc;

use vltava_storage::AppendClass;

use super::client::Partitions;
use super::error::PartitionError;
use super::replica::{Queued, Replica};
use super::request::{AppendResult, AppendTo, Appended};
use crate::runtime::Runtime;

/// Enqueues all batches, in their order, before it returns; the future gives their results, in that
/// order.
pub fn append_all<R: Runtime>(
    partitions: &Rc<Partitions<R>>,
    batches: Vec<AppendTo>,
) -> impl Future<Output = Vec<AppendResult>> + use<R> {
    let queued: Vec<_> = batches.into_iter().map(|batch| enqueue(partitions, batch)).collect();
    async move {
        let mut results = Vec::with_capacity(queued.len());
        for queued in queued {
            results.push(match queued.await {
                Ok((replica, Ok(queued))) => committed(&replica, queued).await,
                Ok((replica, Err(error))) => Err(confirmed(&replica, error).await),
                Err(error) => Err(error),
            });
        }
        results
    }
}

/// A batch in its replica's queue, or why it is not.
type Enqueued<R> = (Rc<Replica<R>>, Result<Queued, PartitionError>);

fn enqueue<R: Runtime>(
    partitions: &Rc<Partitions<R>>,
    append: AppendTo,
) -> impl Future<Output = Result<Enqueued<R>, PartitionError>> + use<R> {
    let metrics = Rc::clone(partitions.metrics());
    let AppendTo { partition, batch, terms } = append;
    partitions.when_here(partition, move |replica| {
        let batch_bytes = batch.len() as u64;
        let queued = replica.append_for(batch, AppendClass::Client, Some(terms));
        if queued.as_ref().is_ok_and(|queued| !queued.is_duplicate) {
            metrics.count(|counters| {
                counters.appended_bytes += batch_bytes;
                counters.appended_batches += 1;
            });
        }
        Ok((replica, queued))
    })
}

/// What a producer is told in place of a refusal: the same, where it is final only if this replica
/// still leads.
async fn confirmed<R: Runtime>(replica: &Replica<R>, error: PartitionError) -> PartitionError {
    match error {
        PartitionError::OutOfOrderSequence | PartitionError::StaleProducerEpoch => {
            replica.confirm_leads().await.err().unwrap_or(error)
        }
        error => error,
    }
}

async fn committed<R: Runtime>(replica: &Replica<R>, queued: Queued) -> AppendResult {
    queued.committed.await.unwrap_or(Err(PartitionError::Ended))?;
    Ok(Appended { base_offset: queued.base_offset, log_start: replica.log_start() })
}
