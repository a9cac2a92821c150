//! Typed messages between the shards of a process.
//!
//! One bounded queue for each ordered pair of shards (a shard may send to itself), so that no two
//! threads ever write into the same one, and one waker for each receiving shard. Messages of one
//! sender arrive in the order in which their `send` was first polled. A shard whose receiving task
//! is at work is not woken. Plain wakers: the same code runs on threads and on the simulator's one.
//!
//! A port moves to its shard's thread and stays there. Dropping a future loses nothing: a message
//! leaves its queue only when `receive` returns it, and enters it only when `send` returns.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::task::AtomicWaker;
use rtrb::{Consumer, Producer, PushError, RingBuffer};

/// A message came back: the shard it was for has ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Ended<M>(pub M);

impl<M> fmt::Debug for Ended<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ended")
    }
}

/// Why a message was not taken at once. It comes back.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum TrySendError<M> {
    /// No room, or others wait for it.
    Full(M),
    /// The shard has ended.
    Ended(M),
}

impl<M> fmt::Debug for TrySendError<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full",
            Self::Ended(_) => "Ended",
        })
    }
}

/// The ports of so many shards, in their order. Each pair's queue holds `capacity` messages.
///
/// # Panics
/// Where either number is 0: the caller's mistake.
pub fn mesh<M: Send + 'static>(shards: usize, capacity: usize) -> Vec<MeshPort<M>> {
    assert!(shards > 0, "a mesh of no shards");
    assert!(capacity > 0, "queues that hold nothing");
    let inboxes: Vec<Arc<AtomicWaker>> = (0..shards).map(|_| Arc::default()).collect();
    let mut ports: Vec<MeshPort<M>> = (0..shards)
        .map(|shard| MeshPort {
            shard,
            outgoing: Vec::with_capacity(shards),
            incoming: RefCell::new(Vec::with_capacity(shards)),
            inbox: Arc::clone(&inboxes[shard]),
            next_sender: Cell::new(0),
        })
        .collect();
    for from in 0..shards {
        for to in 0..shards {
            let (producer, consumer) = RingBuffer::new(capacity);
            let room = Arc::new(AtomicWaker::new());
            ports[from].outgoing.push(Outgoing {
                producer: RefCell::new(producer),
                inbox: Arc::clone(&inboxes[to]),
                room: Arc::clone(&room),
                waiting: RefCell::default(),
                next_waiter: Cell::new(0),
            });
            let incoming = Incoming { consumer, room };
            ports[to].incoming.get_mut().push(incoming);
        }
    }
    ports
}

/// One shard's end of the mesh.
pub struct MeshPort<M> {
    shard: usize,
    /// By receiving shard.
    outgoing: Vec<Outgoing<M>>,
    /// By sending shard.
    incoming: RefCell<Vec<Incoming<M>>>,
    /// Wakes this shard's receiving task.
    inbox: Arc<AtomicWaker>,
    /// Whose queue is looked at first: each in turn.
    next_sender: Cell<usize>,
}

struct Outgoing<M> {
    producer: RefCell<Producer<M>>,
    inbox: Arc<AtomicWaker>,
    /// Wakes the first that waits for room.
    room: Arc<AtomicWaker>,
    /// Tasks that wait for room, in their order.
    waiting: RefCell<BTreeMap<u64, Waker>>,
    next_waiter: Cell<u64>,
}

struct Incoming<M> {
    consumer: Consumer<M>,
    room: Arc<AtomicWaker>,
}

impl<M> fmt::Debug for MeshPort<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MeshPort({} of {})", self.shard, self.outgoing.len())
    }
}

impl<M: Send + 'static> MeshPort<M> {
    /// Whose it is.
    pub fn shard(&self) -> usize {
        self.shard
    }

    /// How many shards there are.
    pub fn shards(&self) -> usize {
        self.outgoing.len()
    }

    /// Sends to a shard, waiting for room where there is none. The message's place in the order is
    /// that of the first poll.
    ///
    /// # Panics
    /// Where there is no such shard: the caller's mistake.
    pub fn send(&self, to: usize, message: M) -> SendMessage<'_, M> {
        SendMessage { outgoing: &self.outgoing[to], message: Some(message), waiter: None }
    }

    /// Sends to a shard where there is room now, and nobody waits for it.
    ///
    /// # Errors
    /// The message comes back.
    ///
    /// # Panics
    /// Where there is no such shard: the caller's mistake.
    pub fn try_send(&self, to: usize, message: M) -> Result<(), TrySendError<M>> {
        let outgoing = &self.outgoing[to];
        if !outgoing.waiting.borrow().is_empty() {
            return Err(TrySendError::Full(message));
        }
        outgoing.push(message)
    }

    /// The next message, and which shard sent it. Only one task of the shard may wait for it.
    /// Returns at once as long as there are messages: a loop that answers them yields by itself.
    pub async fn receive(&self) -> (usize, M) {
        std::future::poll_fn(|context| {
            if let Some(received) = self.try_receive() {
                return Poll::Ready(received);
            }
            self.inbox.register(context.waker());
            // What came before that would wake nobody.
            self.try_receive().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next message, where there is one.
    pub fn try_receive(&self) -> Option<(usize, M)> {
        let mut incoming = self.incoming.borrow_mut();
        let first = self.next_sender.get();
        let shards = incoming.len();
        for sender in (first..shards).chain(0..first) {
            let queue = &mut incoming[sender];
            if let Ok(message) = queue.consumer.pop() {
                self.next_sender.set((sender + 1) % shards);
                queue.room.wake();
                return Some((sender, message));
            }
        }
        None
    }
}

impl<M> Drop for MeshPort<M> {
    fn drop(&mut self) {
        let queues = std::mem::take(self.incoming.get_mut());
        for Incoming { consumer, room } in queues {
            drop(consumer);
            room.wake(); // Who waits for room learns that there will be none.
        }
    }
}

impl<M> Outgoing<M> {
    fn push(&self, message: M) -> Result<(), TrySendError<M>> {
        let mut producer = self.producer.borrow_mut();
        if producer.is_abandoned() {
            return Err(TrySendError::Ended(message));
        }
        match producer.push(message) {
            Ok(()) => {
                self.inbox.wake();
                Ok(())
            }
            Err(PushError::Full(message)) => Err(TrySendError::Full(message)),
        }
    }

    /// Leaves the line; who is first now tries in its turn.
    fn leave(&self, waiter: u64) {
        let mut waiting = self.waiting.borrow_mut();
        let was_first = waiting.keys().next() == Some(&waiter);
        let own = waiting.remove(&waiter);
        let next = was_first.then(|| waiting.values().next().cloned()).flatten();
        drop(waiting);
        drop(own);
        if let Some(next) = next {
            next.wake();
        }
    }
}

/// See [`MeshPort::send`].
#[must_use = "a message is sent when this is awaited"]
pub struct SendMessage<'a, M> {
    outgoing: &'a Outgoing<M>,
    message: Option<M>,
    /// Its place in the line of those that wait for room.
    waiter: Option<u64>,
}

// The message is moved out, never pinned.
impl<M> Unpin for SendMessage<'_, M> {}

impl<M> SendMessage<'_, M> {
    /// Tries to push; leaves the message here where there is no room.
    fn try_push(&mut self) -> Poll<Result<(), Ended<M>>> {
        let Some(message) = self.message.take() else {
            panic!("a send was awaited twice");
        };
        match self.outgoing.push(message) {
            Ok(()) => Poll::Ready(Ok(())),
            Err(TrySendError::Ended(message)) => Poll::Ready(Err(Ended(message))),
            Err(TrySendError::Full(message)) => {
                self.message = Some(message);
                Poll::Pending
            }
        }
    }
}

impl<M> Future for SendMessage<'_, M> {
    type Output = Result<(), Ended<M>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let first = this.outgoing.waiting.borrow().keys().next().copied();
        if (first.is_none() || first == this.waiter)
            && let Poll::Ready(result) = this.try_push()
        {
            return Poll::Ready(result);
        }
        let waiter = *this.waiter.get_or_insert_with(|| {
            let next = this.outgoing.next_waiter.get();
            this.outgoing.next_waiter.set(next + 1);
            next
        });
        let waker = context.waker().clone();
        let former = this.outgoing.waiting.borrow_mut().insert(waiter, waker);
        drop(former);
        if first.is_none() || first == Some(waiter) {
            this.outgoing.room.register(context.waker());
            // Room made before that would wake nobody.
            return this.try_push();
        }
        Poll::Pending
    }
}

impl<M> Drop for SendMessage<'_, M> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.outgoing.leave(waiter);
        }
    }
}

#[cfg(test)]
mod tests {

    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    impl Woken {
        fn times(&self) -> usize {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn poll<F: Future + Unpin>(future: &mut F, woken: &Arc<Woken>) -> Poll<F::Output> {
        let waker = Waker::from(Arc::clone(woken));
        Pin::new(future).poll(&mut Context::from_waker(&waker))
    }

    fn two() -> (MeshPort<u32>, MeshPort<u32>) {
        let mut ports = mesh(2, 1);
        let second = ports.pop().unwrap();
        (ports.pop().unwrap(), second)
    }

    #[test]
    fn each_sender_has_its_turn() {
        let ports = mesh(3, 4);
        for i in 0..3 {
            ports[0].try_send(2, i).unwrap();
            ports[1].try_send(2, 10 + i).unwrap();
            ports[2].try_send(2, 20 + i).unwrap();
        }
        let received: Vec<_> = std::iter::from_fn(|| ports[2].try_receive()).collect();
        let senders: Vec<_> = received.iter().map(|(from, _)| *from).collect();
        assert_eq!(senders, [0, 1, 2, 0, 1, 2, 0, 1, 2]);
        assert_eq!(received[3], (0, 1));
        assert_eq!((ports[2].shard(), ports[2].shards()), (2, 3));
    }

    #[test]
    fn a_receiver_is_woken_once_for_many_messages() {
        let ports = mesh(2, 8);
        let woken = Arc::new(Woken::default());
        let mut receiving = Box::pin(ports[1].receive());
        assert!(poll(&mut receiving, &woken).is_pending());
        for i in 0..5 {
            ports[0].try_send(1, i).unwrap();
        }
        assert_eq!(woken.times(), 1);
        assert_eq!(poll(&mut receiving, &woken), Poll::Ready((0, 0)));
    }

    #[test]
    fn a_receive_that_is_given_up_loses_nothing() {
        let (first, second) = two();
        let woken = Arc::new(Woken::default());
        assert!(poll(&mut Box::pin(second.receive()), &woken).is_pending());
        first.try_send(1, 7).unwrap();
        assert_eq!(second.try_receive(), Some((0, 7)));
    }

    #[test]
    fn who_waits_for_room_goes_in_order_and_nobody_overtakes() {
        let (first, second) = two();
        let (early, late) = (Arc::new(Woken::default()), Arc::new(Woken::default()));
        first.try_send(1, 1).unwrap();
        let (mut two, mut three) = (first.send(1, 2), first.send(1, 3));
        assert!(poll(&mut two, &early).is_pending());
        assert!(poll(&mut three, &late).is_pending());
        assert_eq!(second.try_receive(), Some((0, 1)));
        assert_eq!((early.times(), late.times()), (1, 0));
        assert_eq!(first.try_send(1, 9), Err(TrySendError::Full(9)));
        assert!(poll(&mut three, &late).is_pending(), "not its turn");
        assert_eq!(poll(&mut two, &early), Poll::Ready(Ok(())));
        drop(two);
        assert!(late.times() > 0, "its turn now");
        assert_eq!(second.try_receive(), Some((0, 2)));
        assert_eq!(poll(&mut three, &late), Poll::Ready(Ok(())));
        drop(three);
        assert_eq!(second.try_receive(), Some((0, 3)));
        first.try_send(1, 4).unwrap();
    }

    #[test]
    fn who_gives_up_waiting_lets_the_next_one_in() {
        let (first, second) = two();
        let woken = Arc::new(Woken::default());
        first.try_send(1, 1).unwrap();
        let (mut two, mut three) = (first.send(1, 2), first.send(1, 3));
        assert!(poll(&mut two, &woken).is_pending());
        assert!(poll(&mut three, &woken).is_pending());
        drop(two);
        assert_eq!(woken.times(), 1);
        assert!(poll(&mut three, &woken).is_pending());
        assert_eq!(second.try_receive(), Some((0, 1)));
        assert_eq!(woken.times(), 2);
        assert_eq!(poll(&mut three, &woken), Poll::Ready(Ok(())));
        assert_eq!(second.try_receive(), Some((0, 3)));
    }

    #[test]
    fn a_shard_that_has_ended_gives_messages_back() {
        let (first, second) = two();
        let woken = Arc::new(Woken::default());
        first.try_send(1, 1).unwrap();
        let mut waiting = first.send(1, 2);
        assert!(poll(&mut waiting, &woken).is_pending());
        drop(second);
        assert_eq!(woken.times(), 1);
        assert_eq!(poll(&mut waiting, &woken), Poll::Ready(Err(Ended(2))));
        drop(waiting);
        assert_eq!(first.try_send(1, 3), Err(TrySendError::Ended(3)));
    }
}
