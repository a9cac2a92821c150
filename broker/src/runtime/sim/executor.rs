//! The seeded executor: one thread, `!Send` tasks, virtual time.
//!
//! The next task to run is drawn from those that are ready; time stands still while any is, and
//! then leaps to the next event. Tasks belong to a process (one life of a node, or a client) and
//! are gone with it, at whatever point they stood. A task that never waits is caught by a limit on
//! the polls of one instant.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use super::random::{Purpose, Random};
use super::trace::{Trace, TraceSink};

/// One life of a node, or a client, or the harness itself: what owns tasks and sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProcessId(pub u64);

/// The harness: the process that outlives all others.
pub const HARNESS: ProcessId = ProcessId(0);

/// How a run is scheduled.
pub struct ExecutorOptions {
    /// Everything random follows from it.
    pub seed: u64,
    /// In so many of a million choices the task that has waited longest runs, else any.
    pub oldest_first_per_million: u32,
    /// Timers fire this much late, at most, in nanoseconds of virtual time.
    pub timer_late_ns_max: u64,
    /// Polls without time passing, above which the run is taken for a spin.
    pub polls_per_instant_max: u64,
    /// Where each step is told; none for speed.
    pub sink: Option<TraceSink>,
}

impl ExecutorOptions {
    /// What a test starts from.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            oldest_first_per_million: 0,
            timer_late_ns_max: 0,
            polls_per_instant_max: 1_000_000,
            sink: None,
        }
    }
}

/// Why a run could not go on. Names the seed, for whoever reads only the last line.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stuck {
    /// Time no longer passes: something polls, or wakes, without end.
    #[error(
        "seed {seed}: spins at {now_ns} ns; the last task polled was {task} of process {process}"
    )]
    Spin {
        /// The seed.
        seed: u64,
        /// When, in virtual time.
        now_ns: u64,
        /// The last task polled.
        task: u64,
        /// Its process.
        process: u64,
    },
    /// Nothing is ready and nothing will ever be.
    #[error("seed {seed}: nothing is left to happen at {now_ns} ns, but the run has not ended")]
    Deadlock {
        /// The seed.
        seed: u64,
        /// When, in virtual time.
        now_ns: u64,
    },
    /// The run's virtual time is up.
    #[error("seed {seed}: not done after {now_ns} ns")]
    OutOfTime {
        /// The seed.
        seed: u64,
        /// When, in virtual time.
        now_ns: u64,
    },
}

/// Names an event that has not happened yet: when, and which of those.
pub(super) type EventKey = (u64, u64);

enum Event {
    Wake(Waker),
    Call(Box<dyn FnOnce()>),
}

struct Task {
    /// Out while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    waker: Arc<TaskWaker>,
    process: ProcessId,
}

struct Process {
    tasks: BTreeSet<u64>,
    paused: bool,
    /// Tasks that became ready while the process was paused.
    held: Vec<u64>,
    /// What happens after so many more polls of its tasks.
    fuse: Option<(u64, Box<dyn FnOnce()>)>,
}

/// Tasks that may run. Wakers must be `Send`, so this is, although one thread uses it.
#[derive(Default)]
struct Ready(Mutex<Vec<u64>>);

impl Ready {
    fn push(&self, task: u64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(task);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<u64>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

struct TaskWaker {
    task: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::Relaxed) {
            self.ready.push(self.task);
        }
    }
}

/// The executor. A clone is the same one.
#[derive(Clone)]
pub struct Executor {
    inner: Rc<Inner>,
}

struct Inner {
    options: ExecutorOptions,
    now_ns: Cell<u64>,
    tasks: RefCell<BTreeMap<u64, Task>>,
    tasks_made: Cell<u64>,
    ready: Arc<Ready>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    events_made: Cell<u64>,
    processes: RefCell<BTreeMap<ProcessId, Process>>,
    processes_made: Cell<u64>,
    schedule: RefCell<Random>,
    trace: Trace,
    polls_at_instant: Cell<u64>,
    polls: Cell<u64>,
    last_polled: Cell<(u64, ProcessId)>,
}

impl Executor {
    /// An executor at time 0, with the harness as its only process.
    pub fn new(mut options: ExecutorOptions) -> Self {
        let trace = Trace::new(options.sink.take());
        let schedule = Random::new(options.seed, Purpose::Schedule, 0);
        let executor = Self {
            inner: Rc::new(Inner {
                options,
                now_ns: Cell::new(0),
                tasks: RefCell::default(),
                tasks_made: Cell::new(0),
                ready: Arc::default(),
                events: RefCell::default(),
                events_made: Cell::new(0),
                processes: RefCell::default(),
                processes_made: Cell::new(0),
                schedule: RefCell::new(schedule),
                trace,
                polls_at_instant: Cell::new(0),
                polls: Cell::new(0),
                last_polled: Cell::new((0, HARNESS)),
            }),
        };
        assert_eq!(executor.start_process(), HARNESS);
        executor
    }

    /// The seed of this run.
    pub fn seed(&self) -> u64 {
        self.inner.options.seed
    }

    /// Virtual time since the run began, in nanoseconds.
    pub fn now_ns(&self) -> u64 {
        self.inner.now_ns.get()
    }

    /// Polls so far: the length of the run in steps.
    pub fn polls(&self) -> u64 {
        self.inner.polls.get()
    }

    /// Hash of everything that happened so far, in order.
    pub fn trace_hash(&self) -> u64 {
        self.inner.trace.hash()
    }

    /// Tells the trace that something happened.
    pub fn note(&self, words: &str) {
        self.inner.trace.note(self.now_ns(), words);
    }

    pub(super) fn event(&self, what: &'static str, numbers: &[u64]) {
        self.inner.trace.event(self.now_ns(), what, numbers);
    }

    pub(super) fn trace_bytes(&self, bytes: &[u8]) {
        self.inner.trace.bytes(bytes);
    }

    /// A new process, without tasks.
    pub fn start_process(&self) -> ProcessId {
        let id = ProcessId(self.inner.processes_made.get());
        self.inner.processes_made.set(id.0 + 1);
        let process =
            Process { tasks: BTreeSet::new(), paused: false, held: Vec::new(), fuse: None };
        self.inner.processes.borrow_mut().insert(id, process);
        self.event("start", &[id.0]);
        id
    }

    /// Ends a process: it spawns nothing any more, and all its tasks are dropped where they stand.
    /// A task that kills its own process is dropped at the end of its poll.
    pub fn kill_process(&self, process: ProcessId) {
        let Some(killed) = self.inner.processes.borrow_mut().remove(&process) else {
            return;
        };
        self.event("kill", &[process.0, killed.tasks.len() as u64]);
        for id in killed.tasks {
            let task = self.inner.tasks.borrow_mut().remove(&id);
            // Dropped without a borrow: what a task holds may call back into the executor.
            drop(task);
        }
    }

    /// Stops a process where it stands, as SIGSTOP does; time goes on without it.
    pub fn pause_process(&self, process: ProcessId) {
        if let Some(process) = self.inner.processes.borrow_mut().get_mut(&process) {
            process.paused = true;
        }
        self.event("pause", &[process.0]);
    }

    /// Lets a paused process go on.
    pub fn resume_process(&self, process: ProcessId) {
        self.event("resume", &[process.0]);
        let held = match self.inner.processes.borrow_mut().get_mut(&process) {
            Some(process) => {
                process.paused = false;
                std::mem::take(&mut process.held)
            }
            None => Vec::new(),
        };
        for task in held {
            self.inner.ready.push(task);
        }
    }

    /// After so many more polls of the process's tasks, calls `act` between two polls: in the
    /// middle of an instant, where no timer reaches. A later call replaces an earlier one.
    pub fn after_polls(&self, process: ProcessId, polls: u64, act: impl FnOnce() + 'static) {
        if let Some(process) = self.inner.processes.borrow_mut().get_mut(&process) {
            process.fuse = Some((polls, Box::new(act)));
        }
    }

    /// Runs a task as part of a process; drops it at once where that is no longer alive.
    pub fn spawn(&self, process: ProcessId, task: impl Future<Output = ()> + 'static) {
        let id = self.inner.tasks_made.get();
        self.inner.tasks_made.set(id + 1);
        match self.inner.processes.borrow_mut().get_mut(&process) {
            Some(process) => process.tasks.insert(id),
            None => return,
        };
        let waker = Arc::new(TaskWaker {
            task: id,
            queued: AtomicBool::new(false),
            ready: Arc::clone(&self.inner.ready),
        });
        waker.wake_by_ref();
        let task = Task { future: Some(Box::pin(task)), waker, process };
        self.inner.tasks.borrow_mut().insert(id, task);
    }

    /// Calls `act` at a time, between two polls.
    pub(super) fn call_at(&self, at_ns: u64, act: impl FnOnce() + 'static) -> EventKey {
        self.add_event(at_ns, Event::Call(Box::new(act)))
    }

    fn add_event(&self, at_ns: u64, event: Event) -> EventKey {
        let key = (at_ns.max(self.now_ns()), self.inner.events_made.get());
        self.inner.events_made.set(key.1 + 1);
        self.inner.events.borrow_mut().insert(key, event);
        key
    }

    fn cancel_event(&self, key: EventKey) {
        let event = self.inner.events.borrow_mut().remove(&key);
        drop(event);
    }

    /// Completes at this time, or later by what the seed says of timers.
    pub fn sleep_until(&self, at_ns: u64) -> Sleep {
        Sleep { executor: self.clone(), at_ns, event: None }
    }

    /// A draw from the stream of the schedule.
    pub(super) fn schedule_chance(&self, per_million: u32) -> bool {
        self.inner.schedule.borrow_mut().chance(per_million)
    }

    /// Runs until `root`, a task of the harness, is done; gives up once virtual time is past
    /// `limit_ns`. Other tasks stay where they are, for another run.
    pub fn run<T: 'static>(
        &self,
        limit_ns: u64,
        root: impl Future<Output = T> + 'static,
    ) -> Result<T, Stuck> {
        let result = Rc::new(RefCell::new(None));
        let done = Rc::clone(&result);
        self.spawn(HARNESS, async move {
            let output = root.await;
            *done.borrow_mut() = Some(output);
        });
        loop {
            if let Some(output) = result.borrow_mut().take() {
                return Ok(output);
            }
            self.step(limit_ns)?;
        }
    }

    /// Drops every task and every event: the run is over. Without this, tasks that hold the
    /// executor would keep it, and themselves, for ever.
    pub fn close(&self) {
        let processes: Vec<ProcessId> = self.inner.processes.borrow().keys().copied().collect();
        for process in processes {
            self.kill_process(process);
        }
        let events = std::mem::take(&mut *self.inner.events.borrow_mut());
        drop(events);
    }

    fn step(&self, limit_ns: u64) -> Result<(), Stuck> {
        let seed = self.seed();
        let now_ns = self.now_ns();
        if let Some(task) = self.next_ready() {
            let polls = self.inner.polls_at_instant.get() + 1;
            self.inner.polls_at_instant.set(polls);
            if polls > self.inner.options.polls_per_instant_max {
                let (task, ProcessId(process)) = self.inner.last_polled.get();
                return Err(Stuck::Spin { seed, now_ns, task, process });
            }
            self.poll(task);
            return Ok(());
        }
        let Some((key, event)) = self.inner.events.borrow_mut().pop_first() else {
            return Err(Stuck::Deadlock { seed, now_ns });
        };
        if key.0 > limit_ns {
            self.inner.events.borrow_mut().insert(key, event);
            return Err(Stuck::OutOfTime { seed, now_ns });
        }
        if key.0 > now_ns {
            self.inner.now_ns.set(key.0);
            self.inner.polls_at_instant.set(0);
        }
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Call(act) => act(),
        }
        Ok(())
    }

    /// Draws the next task to poll; puts those of paused processes aside.
    fn next_ready(&self) -> Option<u64> {
        loop {
            let drawn = self.inner.ready.with(|ready| {
                if ready.is_empty() {
                    return None;
                }
                let mut schedule = self.inner.schedule.borrow_mut();
                let oldest = schedule.chance(self.inner.options.oldest_first_per_million);
                Some(match oldest {
                    true => ready.remove(0),
                    false => ready.swap_remove(schedule.index(ready.len())),
                })
            })?;
            let tasks = self.inner.tasks.borrow();
            // A task that has ended may still be woken.
            let Some(task) = tasks.get(&drawn) else {
                continue;
            };
            match self.inner.processes.borrow_mut().get_mut(&task.process) {
                Some(process) if process.paused => process.held.push(drawn),
                _ => return Some(drawn),
            }
        }
    }

    fn poll(&self, id: u64) {
        let (mut future, waker, process) = {
            let mut tasks = self.inner.tasks.borrow_mut();
            let Some(task) = tasks.get_mut(&id) else {
                return;
            };
            let Some(future) = task.future.take() else {
                return;
            };
            (future, Arc::clone(&task.waker), task.process)
        };
        waker.queued.store(false, Ordering::Relaxed);
        self.inner.last_polled.set((id, process));
        self.inner.polls.set(self.inner.polls.get() + 1);
        self.event("poll", &[id, process.0]);
        let waker = Waker::from(waker);
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(()) => {
                drop(future);
                let task = self.inner.tasks.borrow_mut().remove(&id);
                drop(task);
                if let Some(process) = self.inner.processes.borrow_mut().get_mut(&process) {
                    process.tasks.remove(&id);
                }
            }
            Poll::Pending => match self.inner.tasks.borrow_mut().get_mut(&id) {
                Some(task) => task.future = Some(future),
                // Its process was killed by this very poll.
                None => self.drop_later(future),
            },
        }
        self.burn_fuse(process);
    }

    /// Drops what was polled last once no borrow stands: what it holds may call back.
    fn drop_later(&self, future: Pin<Box<dyn Future<Output = ()>>>) {
        self.call_at(self.now_ns(), move || drop(future));
    }

    fn burn_fuse(&self, process: ProcessId) {
        let burnt = {
            let mut processes = self.inner.processes.borrow_mut();
            let Some(process) = processes.get_mut(&process) else {
                return;
            };
            match &mut process.fuse {
                Some((0 | 1, _)) => process.fuse.take(),
                Some((left, _)) => {
                    *left -= 1;
                    None
                }
                None => None,
            }
        };
        if let Some((_, act)) = burnt {
            act();
        }
    }
}

/// Completes at a time. Dropping it forgets it.
pub struct Sleep {
    executor: Executor,
    at_ns: u64,
    event: Option<EventKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let executor = self.executor.clone();
        let wakes_at_ns = match self.event {
            Some(key) => key.0,
            None if self.at_ns <= executor.now_ns() => return Poll::Ready(()),
            None => {
                let late_ns_max = executor.inner.options.timer_late_ns_max;
                let late_ns = match late_ns_max {
                    0 => 0,
                    most => executor.inner.schedule.borrow_mut().mostly_small(0..=most),
                };
                self.at_ns.saturating_add(late_ns)
            }
        };
        if wakes_at_ns <= executor.now_ns() {
            return Poll::Ready(());
        }
        // Kept under a new number each time, so that the newest waker is the one that is woken.
        if let Some(key) = self.event.take() {
            executor.cancel_event(key);
        }
        let waker = context.waker().clone();
        self.event = Some(executor.add_event(wakes_at_ns, Event::Wake(waker)));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.event.take() {
            self.executor.cancel_event(key);
        }
    }
}
