//! The tasks of one shard: who is ready, in which order they are polled, and their end.
//!
//! A task that is woken stands behind the others of its queue. Queues share the thread: each runs
//! for a slice of time, and the one that has had the least of its share goes first.
//!
//! A task may be woken on any thread. On its own, it goes into its queue; on others, into the
//! shard's mailbox, and the shard's alarm is rung if it sleeps.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io::Write;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use slab::Slab;

use super::Queue;

/// How long the tasks of a queue run before the ring, and other queues, have their turn; and how
/// long a task that asks may run before it yields.
const SLICE_MAX: Duration = Duration::from_micros(500);

/// What each queue gets of the thread where all have tasks, in the order of [`Queue`].
const SHARES: [u64; 5] = [4000, 1000, 400, 200, 50];

type Queues = [VecDeque<Arc<TaskWaker>>; SHARES.len()];

thread_local! {
    /// The ready tasks of the shard that this thread runs.
    static HERE: RefCell<Option<Rc<Ready>>> = const { RefCell::new(None) };
}

/// Tasks that are to be polled.
struct Ready {
    /// Of the shard; unique in the process.
    id: u64,
    queues: RefCell<Queues>,
}

impl Ready {
    fn push(&self, task: Arc<TaskWaker>) {
        self.queues.borrow_mut()[task.queue as usize].push_back(task);
    }
}

/// What other threads reach of a shard.
struct Mailbox {
    id: u64,
    woken: mpsc::Sender<Arc<TaskWaker>>,
    /// The shard sleeps, or is about to.
    is_asleep: AtomicBool,
    /// An eventfd that ends the sleep.
    alarm: std::fs::File,
}

/// Wakes one task, from any thread.
struct TaskWaker {
    shard: Arc<Mailbox>,
    key: usize,
    queue: Queue,
    /// It stands in a queue, or in the mailbox.
    is_queued: AtomicBool,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.is_queued.swap(true, Ordering::AcqRel) {
            return; // It will be polled for this, too.
        }
        let is_here = HERE.try_with(|here| match &*here.borrow() {
            Some(ready) if ready.id == self.shard.id => {
                ready.push(Arc::clone(self));
                true
            }
            _ => false,
        });
        if is_here != Ok(true) {
            self.shard.send(Arc::clone(self));
        }
    }
}

impl Mailbox {
    fn send(&self, task: Arc<TaskWaker>) {
        if self.woken.send(task).is_err() {
            return; // The shard has ended.
        }
        // Either the shard sees the task before it sleeps, or this sees that it sleeps.
        fence(Ordering::SeqCst);
        if self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::AcqRel) {
            // An error (a counter that is full) means that it is rung already.
            let _full = (&self.alarm).write(&1u64.to_ne_bytes());
        }
    }
}

/// The tasks of one shard.
pub(super) struct Tasks {
    mailbox: Arc<Mailbox>,
    woken_elsewhere: mpsc::Receiver<Arc<TaskWaker>>,
    ready: Rc<Ready>,
    live: RefCell<Slab<Task>>,
    has_ended: Cell<bool>,
    /// When the task that runs was polled.
    polled: Cell<Instant>,
    /// Time that each queue has had, by its share.
    had: RefCell<[u128; SHARES.len()]>,
    /// The same of the queue that ran last: what a queue has at least that was idle meanwhile.
    had_least: Cell<u128>,
}

struct Task {
    waker: Arc<TaskWaker>,
    /// `None` while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tasks({})", self.live.borrow().len())
    }
}

impl Tasks {
    /// None yet, of the shard that is to run on this thread. Writing to `alarm` wakes it.
    pub(super) fn new(alarm: std::fs::File) -> Rc<Self> {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let id = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let (woken, woken_elsewhere) = mpsc::channel();
        let ready = Rc::new(Ready { id, queues: RefCell::default() });
        HERE.set(Some(Rc::clone(&ready)));
        Rc::new(Self {
            mailbox: Arc::new(Mailbox { id, woken, is_asleep: AtomicBool::new(false), alarm }),
            woken_elsewhere,
            ready,
            live: RefCell::default(),
            has_ended: Cell::new(false),
            polled: Cell::new(Instant::now()),
            had: RefCell::default(),
            had_least: Cell::new(0),
        })
    }

    /// Adds a task; it is polled in its turn.
    pub(super) fn spawn(&self, queue: Queue, future: impl Future<Output = ()> + 'static) {
        if self.has_ended.get() {
            return;
        }
        let mut live = self.live.borrow_mut();
        let entry = live.vacant_entry();
        let waker = Arc::new(TaskWaker {
            shard: Arc::clone(&self.mailbox),
            key: entry.key(),
            queue,
            is_queued: AtomicBool::new(true),
        });
        self.ready.push(Arc::clone(&waker));
        entry.insert(Task { waker, future: Some(Box::pin(future)) });
    }

    /// Polls tasks of one queue, for a slice of time. Returns false where no task is ready.
    pub(super) fn run_slice(&self) -> bool {
        self.take_in();
        let Some(queue) = self.next_queue() else {
            return false;
        };
        let begun = Instant::now();
        let mut now = begun;
        while now.duration_since(begun) < SLICE_MAX
            && let Some(task) = self.next_of(queue)
        {
            self.polled.set(now);
            self.poll(task);
            now = Instant::now();
        }
        let had = now.duration_since(begun).as_nanos() / u128::from(SHARES[queue]);
        self.had.borrow_mut()[queue] += had;
        true
    }

    /// Takes in what other threads have woken. Returns whether there was anything.
    fn take_in(&self) -> bool {
        let mut some = false;
        for task in self.woken_elsewhere.try_iter() {
            self.ready.push(task);
            some = true;
        }
        some
    }

    /// The queue with tasks that has had the least.
    fn next_queue(&self) -> Option<usize> {
        let queues = self.ready.queues.borrow();
        let mut had = self.had.borrow_mut();
        let ready = (0..queues.len()).filter(|queue| !queues[*queue].is_empty());
        let next = ready.min_by_key(|queue| had[*queue].max(self.had_least.get()))?;
        // Time in which it had nothing to do is not made up for.
        had[next] = had[next].max(self.had_least.get());
        self.had_least.set(had[next]);
        Some(next)
    }

    fn next_of(&self, queue: usize) -> Option<Arc<TaskWaker>> {
        self.ready.queues.borrow_mut()[queue].pop_front()
    }

    fn poll(&self, waker: Arc<TaskWaker>) {
        // Before the poll: what was done before a wake that found it queued is seen by this poll,
        // and a wake from now on queues it again.
        waker.is_queued.swap(false, Ordering::AcqRel);
        let key = waker.key;
        let future = match self.live.borrow_mut().get_mut(key) {
            Some(task) if Arc::ptr_eq(&task.waker, &waker) => task.future.take(),
            // It has ended.
            _ => None,
        };
        let Some(mut future) = future else {
            return;
        };
        let waker = Waker::from(waker);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Pending => self.live.borrow_mut()[key].future = Some(future),
            Poll::Ready(()) => {
                // Dropping it may run code that comes back here.
                drop(future);
                let task = self.live.borrow_mut().remove(key);
                drop(task);
            }
        }
    }

    /// The shard goes to sleep: who wakes a task from now on rings the alarm. Returns false, and
    /// it does not, where one was woken before.
    pub(super) fn may_sleep(&self) -> bool {
        self.mailbox.is_asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let may = !self.take_in();
        if !may {
            self.rise();
        }
        may
    }

    /// The shard is awake.
    pub(super) fn rise(&self) {
        self.mailbox.is_asleep.store(false, Ordering::Relaxed);
    }

    /// Whether any task is ready.
    pub(super) fn has_ready(&self) -> bool {
        self.ready.queues.borrow().iter().any(|queue| !queue.is_empty())
    }

    /// Whether the task that asks has had its time.
    pub(super) fn has_had_its_time(&self) -> bool {
        self.polled.get().elapsed() > SLICE_MAX
    }

    /// Ends all tasks: each is dropped where it waits. Later ones are not begun.
    pub(super) fn end(&self) {
        self.has_ended.set(true);
        let tasks = std::mem::take(&mut *self.live.borrow_mut());
        drop(tasks);
        let queues = std::mem::take(&mut *self.ready.queues.borrow_mut());
        drop(queues);
        HERE.set(None);
    }
}

#[cfg(test)]
mod tests {

    use std::future::{pending, poll_fn};

    use super::super::sync::yield_now;
    use super::*;

    /// With an alarm that counts: a file that grows.
    fn tasks() -> Rc<Tasks> {
        Tasks::new(tempfile::tempfile().unwrap())
    }

    fn times_rung(tasks: &Tasks) -> u64 {
        tasks.mailbox.alarm.metadata().unwrap().len() / 8
    }

    #[test]
    fn queues_that_are_always_ready_all_go_on() {
        let tasks = tasks();
        let polls = Rc::new(RefCell::new([0; SHARES.len()]));
        let queues = [
            Queue::Sessions,
            Queue::Foreground,
            Queue::Control,
            Queue::Recovery,
            Queue::Background,
        ];
        for queue in queues {
            let polls = Rc::clone(&polls);
            tasks.spawn(queue, async move {
                loop {
                    polls.borrow_mut()[queue as usize] += 1;
                    yield_now().await;
                }
            });
        }
        while polls.borrow().contains(&0) {
            assert!(tasks.run_slice());
        }
        tasks.end();
    }

    /// However much there is to do for groups: a session's task runs in the next slice.
    #[test]
    fn sessions_wait_for_one_slice() {
        let tasks = tasks();
        let polled = Rc::new(Cell::new(0));
        for _ in 0..1_000 {
            let polled = Rc::clone(&polled);
            tasks.spawn(Queue::Foreground, async move {
                std::thread::sleep(SLICE_MAX / 2);
                polled.set(polled.get() + 1);
            });
        }
        assert!(tasks.run_slice());
        let beats = Rc::new(Cell::new(0));
        for _ in 0..10 {
            let (before, beat) = (polled.get(), Rc::clone(&beats));
            tasks.spawn(Queue::Sessions, async move { beat.set(beat.get() + 1) });
            assert!(tasks.run_slice());
            assert_eq!(polled.get(), before, "it waits behind others");
            assert!(tasks.run_slice());
        }
        assert_eq!(beats.get(), 10);
        assert!(polled.get() > 0, "the others have their time");
        tasks.end();
    }

    #[test]
    fn a_queue_that_was_idle_is_owed_nothing() {
        let tasks = tasks();
        tasks.had.borrow_mut()[0] = 1_000_000;
        tasks.had_least.set(1_000_000);
        tasks.spawn(Queue::Background, pending());
        assert!(tasks.run_slice());
        assert!(tasks.had.borrow()[Queue::Background as usize] >= 1_000_000);
        assert!(!tasks.run_slice(), "it waits");
        tasks.end();
    }

    #[test]
    fn a_waker_outlives_its_task_and_its_shard() {
        let tasks = tasks();
        let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
        let keep = Rc::clone(&kept);
        tasks.spawn(
            Queue::Foreground,
            poll_fn(move |context| {
                *keep.borrow_mut() = Some(context.waker().clone());
                Poll::Ready(())
            }),
        );
        assert!(tasks.run_slice());
        let polled = Rc::new(Cell::new(0));
        let count = Rc::clone(&polled);
        // In the place of the one that has ended.
        tasks.spawn(
            Queue::Foreground,
            poll_fn(move |_| {
                count.set(count.get() + 1);
                Poll::Pending
            }),
        );
        let waker = kept.take().unwrap();
        waker.wake_by_ref();
        while tasks.run_slice() {}
        assert_eq!(polled.get(), 1, "woken for another");
        tasks.end();
        drop(tasks);
        std::thread::spawn(|| waker.wake()).join().unwrap();
    }

    #[test]
    fn the_alarm_rings_once_and_only_for_who_sleeps() {
        let tasks = tasks();
        let kept: Arc<std::sync::Mutex<Vec<Waker>>> = Arc::default();
        for _ in 0..3 {
            let keep = Arc::clone(&kept);
            tasks.spawn(
                Queue::Control,
                poll_fn(move |context| {
                    keep.lock().unwrap().push(context.waker().clone());
                    Poll::Pending
                }),
            );
        }
        while tasks.run_slice() {}
        let wakers = std::mem::take(&mut *kept.lock().unwrap());
        let wake = |range: std::ops::Range<usize>| {
            let woken = wakers[range].to_vec();
            std::thread::spawn(|| woken.into_iter().for_each(Waker::wake)).join().unwrap();
        };
        wake(0..1);
        assert_eq!(times_rung(&tasks), 0, "it is awake");
        assert!(!tasks.may_sleep(), "a task was woken before");
        assert!(tasks.has_ready() && tasks.run_slice());
        assert!(tasks.may_sleep());
        wake(1..3);
        assert_eq!(times_rung(&tasks), 1, "once is enough");
        assert!(!tasks.may_sleep());
        assert!(tasks.run_slice() && !tasks.run_slice());
        tasks.end();
    }
}
