//! Work for another shard: a job goes over the mesh, its result comes back the same way.
//!
//! Each room that spans shards has [`Jobs`] of its own: `T` is that room's part on one shard. A job
//! runs in the mesh loop of the shard it was sent to, up to its first await, in the order in which
//! jobs were sent from one shard; what it waits for afterwards overlaps with other jobs. So whoever
//! enqueues in the job's synchronous part keeps the order of its caller.

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use futures_channel::oneshot;
use slab::Slab;

use super::mesh::{MeshPort, TrySendError};
use super::{Queue, Runtime};

type Work = Pin<Box<dyn Future<Output = Box<dyn Any + Send>>>>;
type Job<T> = Box<dyn FnOnce(&Rc<T>) -> Work + Send>;

/// What travels between shards.
pub enum Message<T> {
    /// Run this; send the result back under the ticket.
    Job {
        /// Names the caller's wait.
        ticket: usize,
        /// The work.
        job: Job<T>,
    },
    /// The result of a job.
    Done {
        /// Names the wait.
        ticket: usize,
        /// The job's result.
        result: Box<dyn Any + Send>,
    },
}

/// One shard's view of a room that spans all shards.
pub struct Jobs<T> {
    port: MeshPort<Message<T>>,
    waiting: RefCell<Slab<oneshot::Sender<Box<dyn Any + Send>>>>,
}

impl<T: 'static> Jobs<T> {
    /// This shard's view, over its port of the room's mesh.
    pub fn new(port: MeshPort<Message<T>>) -> Rc<Self> {
        Rc::new(Self { port, waiting: RefCell::default() })
    }

    /// This shard's number.
    pub fn own(&self) -> usize {
        self.port.shard()
    }

    /// How many shards there are.
    pub fn count(&self) -> usize {
        self.port.shards()
    }

    /// Sends a job to another shard. When this returns, the job stands in the mesh, behind all that
    /// were sent there before; the [`Pending`] is its result.
    pub async fn start<A, F>(
        &self,
        shard: usize,
        job: impl FnOnce(&Rc<T>) -> F + Send + 'static,
    ) -> Pending<A>
    where
        A: Send + 'static,
        F: Future<Output = A> + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let ticket = self.waiting.borrow_mut().insert(sender);
        let job: Job<T> = Box::new(move |target| {
            let work = job(target);
            Box::pin(async move { Box::new(work.await) as Box<dyn Any + Send> })
        });
        if self.port.send(shard, Message::Job { ticket, job }).await.is_err() {
            // The shard has ended: dropping the sender tells the receiver.
            self.waiting.borrow_mut().try_remove(ticket);
        }
        Pending { receiver, result: PhantomData }
    }

    /// Completes when all that was sent to a shard from here has begun there.
    pub async fn reached(&self, shard: usize) {
        if shard != self.own() {
            // A shard that has ended begins nothing any more.
            let _ended = self.start(shard, |_| ready(())).await.await;
        }
    }

    /// Takes messages for ever: jobs for `target`, results for those who wait here. To be spawned
    /// once on each shard.
    pub async fn serve<R: Runtime>(self: Rc<Self>, runtime: R, target: Rc<T>) {
        loop {
            let (from, message) = self.port.receive().await;
            // Messages may come as fast as they are taken: others have their turn.
            runtime.yield_if_needed().await;
            match message {
                Message::Done { ticket, result } => {
                    let waiting = self.waiting.borrow_mut().try_remove(ticket);
                    // Who no longer waits needs no result.
                    let _ = waiting.map(|sender| sender.send(result));
                }
                Message::Job { ticket, job } => {
                    let mut work = job(&target);
                    let mut context = Context::from_waker(Waker::noop());
                    match work.as_mut().poll(&mut context) {
                        Poll::Ready(result) => self.answer(&runtime, from, ticket, result),
                        Poll::Pending => {
                            let jobs = Rc::clone(&self);
                            runtime.spawn(Queue::Foreground, async move {
                                let result = work.await;
                                // A shard that has ended waits for nothing.
                                drop(jobs.port.send(from, Message::Done { ticket, result }).await);
                            });
                        }
                    }
                }
            }
        }
    }

    /// Sends a result back; where the queue is full, from a task of its own: this loop must never
    /// wait for another's.
    fn answer<R: Runtime>(
        self: &Rc<Self>,
        runtime: &R,
        to: usize,
        ticket: usize,
        result: Box<dyn Any + Send>,
    ) {
        let sent = self.port.try_send(to, Message::Done { ticket, result });
        if let Err(TrySendError::Full(message)) = sent {
            let jobs = Rc::clone(self);
            runtime.spawn(Queue::Foreground, async move {
                drop(jobs.port.send(to, message).await);
            });
        }
    }
}

/// The result of a job, once it has come back. `None`: the other shard is gone, the process is
/// stopping.
pub struct Pending<A> {
    receiver: oneshot::Receiver<Box<dyn Any + Send>>,
    result: PhantomData<A>,
}

impl<A> Unpin for Pending<A> {}

impl<A: Send + 'static> Future for Pending<A> {
    type Output = Option<A>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<A>> {
        let received = std::task::ready!(Pin::new(&mut self.receiver).poll(context));
        Poll::Ready(received.ok().and_then(|result| result.downcast().ok()).map(|result| *result))
    }
}
