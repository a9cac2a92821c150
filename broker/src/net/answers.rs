//! The writing half of a connection: answers leave in the order of their requests.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::{poll_fn, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use vltava_protocol::encode::{ExternalBytes, Part};

use super::budget::Charge;
use super::connection::{Ended, Shared, wake};
use crate::handlers::{Answer, Refusal};
use crate::runtime::{Connection, Queue, Runtime};

/// Answers below this size are gathered into one send, in bytes.
const GATHER_BYTES_MAX: usize = 256 * 1024;

/// Counts a request as under way while it lives.
pub(super) struct UnderWay(Rc<Cell<usize>>);

impl UnderWay {
    pub(super) fn begin(count: &Rc<Cell<usize>>) -> Self {
        count.set(count.get() + 1);
        Self(Rc::clone(count))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// An answer that the writer owes the peer.
pub(super) struct Owed {
    pub(super) answer: Answer,
    /// Given back when the answer has left.
    pub(super) charge: Charge,
    /// Likewise.
    pub(super) _under_way: UnderWay,
}

impl Owed {
    /// What it holds of memory, in bytes, as far as it is there.
    pub(super) fn memory_bytes(&self) -> usize {
        let Answer::Now(parts) = &self.answer else {
            return 0;
        };
        let in_memory = parts.iter().filter(|part| matches!(part, Part::Memory(_)));
        in_memory.map(Part::len).sum()
    }

    pub(super) fn awaits_commit(&self) -> bool {
        matches!(self.answer, Answer::Committed(_))
    }
}

/// The connection is gone, but logs hold bytes of some of its requests: these stay charged until
/// they are committed.
pub(super) fn bring_to_end<R: Runtime>(runtime: &R, owed: VecDeque<Owed>) {
    let committing = owed.into_iter().filter_map(|owed| match owed.answer {
        Answer::Committed(unfinished) => Some((unfinished, owed.charge)),
        Answer::Now(_) | Answer::Later(_) => None,
    });
    let committing: Vec<_> = committing.collect();
    if committing.is_empty() {
        return;
    }
    runtime.spawn(Queue::Foreground, async move {
        for (unfinished, charge) in committing {
            // Nobody is there to be told.
            drop(unfinished.await);
            drop(charge);
        }
    });
}

/// Sends answers until the connection is closed.
pub(super) async fn write_answers<R: Runtime>(shared: Rc<Shared<R>>) {
    while !shared.is_closed() {
        let parts = poll_fn(|context| poll_gather(&shared, context)).await;
        let Some(parts) = parts else { return };
        if let Err(error) = send(&shared, parts).await {
            return shared.end(Ended::Io(error));
        }
    }
}

/// The answers at the front that are ready, as one list of parts; `None` once the connection is
/// closed.
fn poll_gather<R: Runtime>(
    shared: &Rc<Shared<R>>,
    context: &mut Context<'_>,
) -> Poll<Option<(Vec<Part>, Vec<Owed>)>> {
    if shared.is_closed() {
        return Poll::Ready(None);
    }
    *shared.writer.borrow_mut() = Some(context.waker().clone());
    let mut parts = Vec::new();
    let mut sent = Vec::new();
    let mut gathered = 0;
    while gathered < GATHER_BYTES_MAX {
        // Taken out while it is polled: a handler may reach this connection again.
        let Some(mut front) = shared.owed.borrow_mut().pop_front() else {
            break;
        };
        match poll_answer(&mut front.answer, context) {
            Poll::Ready(Ok(answer)) => {
                gathered += answer.iter().map(Part::len).sum::<usize>();
                parts.extend(answer);
                sent.push(front);
                continue;
            }
            Poll::Ready(Err(refusal)) if sent.is_empty() => {
                shared.end(Ended::Refused(refusal));
                return Poll::Ready(None);
            }
            // What was owed before it leaves first.
            Poll::Ready(Err(refusal)) => {
                front.answer = Answer::Later(Box::pin(ready(Err(refusal))))
            }
            Poll::Pending => {}
        }
        shared.owed.borrow_mut().push_front(front);
        break;
    }
    if sent.is_empty() {
        return Poll::Pending;
    }
    wake(&shared.reader);
    Poll::Ready(Some((parts, sent)))
}

fn poll_answer(answer: &mut Answer, context: &mut Context<'_>) -> Poll<Result<Vec<Part>, Refusal>> {
    match answer {
        Answer::Now(parts) => Poll::Ready(Ok(std::mem::take(parts))),
        Answer::Later(unfinished) | Answer::Committed(unfinished) => {
            Pin::new(unfinished).poll(context)
        }
    }
}

/// Sends parts in order. The charges of their requests are given back afterwards.
async fn send<R: Runtime>(
    shared: &Rc<Shared<R>>,
    (parts, owed): (Vec<Part>, Vec<Owed>),
) -> std::io::Result<()> {
    let mut in_memory = Vec::new();
    for part in parts {
        match part {
            Part::Memory(bytes) => in_memory.push(bytes),
            Part::External(range) => {
                send_in_memory(shared, &mut in_memory).await?;
                send_external(shared, &range).await?;
            }
        }
    }
    send_in_memory(shared, &mut in_memory).await?;
    drop(owed);
    // It may wait for nothing to be under way.
    wake(&shared.reader);
    Ok(())
}

async fn send_in_memory<R: Runtime>(
    shared: &Rc<Shared<R>>,
    parts: &mut Vec<Bytes>,
) -> std::io::Result<()> {
    if parts.is_empty() {
        return Ok(());
    }
    let bytes = parts.iter().map(Bytes::len).sum();
    shared.socket.send(std::mem::take(parts)).await?;
    shared.sent(bytes);
    Ok(())
}

async fn send_external<R: Runtime>(
    shared: &Rc<Shared<R>>,
    range: &ExternalBytes,
) -> std::io::Result<()> {
    shared.socket.send_file(range).await?;
    shared.sent(range.len);
    Ok(())
}
