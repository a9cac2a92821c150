//! The shard's own io_uring, beside the rings of the executor.
//!
//! A request goes into a table that owns its memory until the kernel is done with it, and comes
//! back to the task that waits for it with its result. Requests made while other tasks run are
//! submitted together, by one *driver* task, in one system call. With nothing to do, the driver
//! waits for an eventfd that the kernel signals; while it is awake, the signal is switched off, so
//! that completions cost nothing more.
//!
//! A dropped [`Pending`] gives its request up: what may wait for ever is cancelled, everything else
//! is submitted and runs to its end, and in either case the memory stays until the kernel has
//! answered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BufMut;
use glommio::io::BufferedFile;
use io_uring::{IoUring, Probe, opcode, squeue, types};
use slab::Slab;

use super::Monotonic;
use super::recorder::Recorder;
use super::remote::{Remote, Woken};
use super::request::Request;
use super::setup::{Mode, set_up};
use super::timers::{TimerKey, Timers};

/// Entries of the submission queue: what one system call submits at most.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue; what does not fit waits in the kernel.
const COMPLETIONS: u32 = 8192;
/// The user data of cancellations, whose own results say nothing.
const CANCELLATION: u64 = u64::MAX;
/// The user data of the timeout that stands for the next timer.
const TIMEOUT: u64 = u64::MAX - 1;
/// How long tasks of the driver's queue may run while others wait.
const SLICE_MAX: Duration = Duration::from_micros(500);
/// How long a shutdown waits for the kernel to give the memory of requests back.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// One shard's ring. A clone is the same ring.
#[derive(Clone)]
pub(super) struct Ring(Rc<Shared>);

struct Shared {
    core: RefCell<Core>,
    /// Signalled by the kernel, and by other threads, when there is something to do.
    eventfd: OwnedFd,
    remote: Arc<Remote>,
    /// When time began.
    origin: Instant,
    shard: usize,
    recorder: Option<Arc<dyn Recorder>>,
}

struct Core {
    /// `None` once shut down.
    uring: Option<Box<IoUring>>,
    slots: Slab<Slot>,
    /// Requests that are not submitted yet.
    queued: VecDeque<usize>,
    /// Submitted requests that nobody waits for, to be cancelled.
    cancelled: VecDeque<usize>,
    timers: Timers,
    /// When the kernel's timeout ends, where there is one.
    timeout: Option<Monotonic>,
    /// What the kernel reads when the timeout is submitted.
    timeout_after: Box<types::Timespec>,
    /// Tasks that other threads have woken.
    remotely_woken: Woken,
    in_flight: usize,
    next_id: u64,
    driver: Option<Waker>,
    /// The driver is running, or will run: no need to wake it.
    driver_awake: bool,
    /// The eventfd may be switched off while the driver is awake.
    may_silence: bool,
    /// Tasks to wake once the core is no longer borrowed.
    woken: Vec<Waker>,
}

struct Slot {
    id: u64,
    request: Request,
    state: State,
    waker: Option<Waker>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Queued,
    InFlight,
    /// Queued or in flight, and nobody waits for it.
    Abandoned {
        submitted: bool,
    },
    Done(i32),
}

/// What came of one turn of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Something was submitted or completed: there may be more.
    Progress,
    /// The same, and the tasks of this queue have had their time: others first.
    Enough,
    /// Nothing to do, and the eventfd will tell when there is.
    Idle,
    /// The ring is shut down.
    Closed,
}

impl Ring {
    /// Sets up a ring for the calling thread, which must be the only one that uses it.
    ///
    /// # Errors
    /// `ENOSYS` or `EPERM` where the kernel or a container profile refuses io_uring; others of
    /// `io_uring_setup(2)`.
    pub(super) fn new(
        shard: usize,
        origin: Instant,
        recorder: Option<Arc<dyn Recorder>>,
    ) -> io::Result<Self> {
        let (uring, mode) = set_up(SUBMISSIONS, COMPLETIONS, Mode::Deferred)?;
        Self::over(uring, mode, shard, origin, recorder)
    }

    /// [`Ring::new`] of a size of its own, as on a kernel that has no better mode.
    #[cfg(test)]
    pub(super) fn small(submissions: u32, completions: u32, mode: Mode) -> io::Result<Self> {
        let (uring, mode) = set_up(submissions, completions, mode)?;
        Self::over(uring, mode, 0, Instant::now(), None)
    }

    fn over(
        uring: IoUring,
        mode: Mode,
        shard: usize,
        origin: Instant,
        recorder: Option<Arc<dyn Recorder>>,
    ) -> io::Result<Self> {
        let eventfd = eventfd()?;
        uring.submitter().register_eventfd(eventfd.as_raw_fd())?;
        let (remote, remotely_woken) = Remote::new(&eventfd)?;
        let core = Core {
            uring: Some(Box::new(uring)),
            slots: Slab::new(),
            queued: VecDeque::new(),
            cancelled: VecDeque::new(),
            timers: Timers::default(),
            timeout: None,
            timeout_after: Box::default(),
            remotely_woken,
            in_flight: 0,
            next_id: 0,
            driver: None,
            driver_awake: true,
            // With deferred task work, what the kernel has to say shows in the ring's flags before
            // it looks whether the eventfd is switched off, with a full barrier in between on
            // x86-64. Elsewhere a signal could be lost.
            may_silence: mode == Mode::Deferred && cfg!(target_arch = "x86_64"),
            woken: Vec::new(),
        };
        Ok(Self(Rc::new(Shared {
            core: RefCell::new(core),
            eventfd,
            remote,
            origin,
            shard,
            recorder,
        })))
    }

    /// Whether this kernel knows an operation (`opcode::X::CODE`).
    pub(super) fn knows(&self, operation: u8) -> bool {
        let core = self.0.core.borrow();
        let mut probe = Probe::new();
        core.uring
            .as_ref()
            .is_some_and(|uring| uring.submitter().register_probe(&mut probe).is_ok())
            && probe.is_supported(operation)
    }

    /// Asks for something. It is submitted when the tasks that are ready now have run, also where
    /// the answer is never awaited.
    pub(super) fn ask(&self, request: Request) -> Pending {
        let mut core = self.0.core.borrow_mut();
        let id = core.next_id;
        core.next_id += 1;
        let closed = core.uring.is_none();
        let key = core.slots.insert(Slot {
            id,
            request,
            state: if closed { State::Done(-libc::ECANCELED) } else { State::Queued },
            waker: None,
        });
        if !closed {
            core.queued.push_back(key);
            core.wake_driver();
        }
        Pending { ring: self.clone(), key: Some(key) }
    }

    /// Time since the process began.
    pub(super) fn now(&self) -> Monotonic {
        self.0.now()
    }

    /// How other threads reach the shard.
    pub(super) fn remote(&self) -> &Arc<Remote> {
        &self.0.remote
    }

    /// Completes once it is as late as that.
    pub(super) fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        Sleep { ring: self.clone(), deadline, timer: None }
    }

    /// Submits and completes until the ring is shut down. Run by one task of the executor.
    pub(super) async fn drive(self) -> io::Result<()> {
        let events = self.0.eventfd.try_clone()?.into_raw_fd();
        // SAFETY: a descriptor of our own, just made and given away; `BufferedFile` closes it.
        let events = unsafe { BufferedFile::from_raw_fd(events) };
        while self.until_signal(&events).await? {}
        events.close().await.map_err(io::Error::from)
    }

    /// Works until the eventfd was signalled, or (false) the ring is shut down.
    async fn until_signal(&self, events: &BufferedFile) -> io::Result<bool> {
        let mut signal = pin!(events.read_at(0, 8));
        let mut slice = Instant::now();
        loop {
            let turn = poll_fn(|context| match self.turn(context.waker(), slice) {
                Turn::Progress => {
                    context.waker().wake_by_ref();
                    Poll::Pending
                }
                Turn::Idle => signal.as_mut().poll(context).map_ok(|_| Turn::Idle),
                turn => Poll::Ready(Ok(turn)),
            });
            match turn.await? {
                Turn::Enough => {
                    glommio::executor().yield_task_queue_now().await;
                    slice = Instant::now();
                }
                Turn::Closed => break,
                Turn::Idle | Turn::Progress => return Ok(true),
            }
        }
        // The read under way ends with this, or the executor would keep it.
        self.0.remote.signal();
        signal.await?;
        Ok(false)
    }

    /// One turn: submit, reap, and wake who waited.
    fn turn(&self, driver: &Waker, slice: Instant) -> Turn {
        let now = Instant::now();
        let mut core = self.0.core.borrow_mut();
        core.remember_driver(driver);
        core.driver_awake = true;
        let mut turn = core.turn(&self.0);
        core.driver_awake = turn == Turn::Progress;
        if turn == Turn::Progress && now.duration_since(slice) > SLICE_MAX {
            turn = Turn::Enough;
        }
        let woken = std::mem::take(&mut core.woken);
        drop(core);
        self.wake(woken);
        turn
    }

    fn wake(&self, mut woken: Vec<Waker>) {
        for waker in woken.drain(..) {
            waker.wake();
        }
        // The vector goes back for its capacity.
        self.0.core.borrow_mut().woken = woken;
    }

    /// Cancels what waits, waits for what is under way, and closes the ring. Later requests are
    /// answered `ECANCELED`.
    pub(super) fn shut_down(&self) {
        let mut core = self.0.core.borrow_mut();
        core.shut_down(&self.0);
        let driver = core.driver.take();
        core.woken.extend(driver);
        let woken = std::mem::take(&mut core.woken);
        drop(core);
        self.wake(woken);
    }

    /// How many requests are in the kernel's hands.
    #[cfg(test)]
    pub(super) fn in_flight(&self) -> usize {
        self.0.core.borrow().in_flight
    }

    /// How many requests are remembered at all.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.0.core.borrow().slots.len()
    }
}

impl fmt::Debug for Ring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ring({})", self.0.shard)
    }
}

impl Shared {
    fn now(&self) -> Monotonic {
        Monotonic::default().after(self.origin.elapsed())
    }
}

impl Core {
    fn remember_driver(&mut self, driver: &Waker) {
        if !self.driver.as_ref().is_some_and(|known| known.will_wake(driver)) {
            self.driver = Some(driver.clone());
        }
    }

    fn wake_driver(&mut self) {
        if !self.driver_awake
            && let Some(driver) = &self.driver
        {
            self.driver_awake = true;
            driver.wake_by_ref();
        }
    }

    fn turn(&mut self, shared: &Shared) -> Turn {
        let Some(mut uring) = self.uring.take() else {
            return Turn::Closed;
        };
        if self.may_silence {
            uring.completion().disable_eventfd();
        }
        shared.remote.rise();
        let mut woken = self.wake_remotely_woken();
        woken |= self.fire_timers(shared);
        let queued = self.fill(&mut uring, shared);
        let pending = uring.submission().taskrun() || uring.submission().cq_overflow();
        if queued || pending {
            enter(&uring);
        }
        let reaped = self.reap(&mut uring, shared);
        let progress = woken || queued || reaped || !self.queued.is_empty();
        let turn =
            if progress || !self.rest(&mut uring, shared) { Turn::Progress } else { Turn::Idle };
        self.uring = Some(uring);
        turn
    }

    /// Wakes tasks that other threads have woken. Returns whether there were any.
    fn wake_remotely_woken(&mut self) -> bool {
        let mut some = false;
        for task in self.remotely_woken.try_iter() {
            task.wake_here();
            some = true;
        }
        some
    }

    /// Wakes tasks that have slept long enough. Returns whether there were any.
    fn fire_timers(&mut self, shared: &Shared) -> bool {
        if self.timers.next().is_none() {
            return false;
        }
        let before = self.woken.len();
        self.timers.fire(shared.now(), &mut self.woken);
        self.woken.len() > before
    }

    /// Nothing to do: the eventfd will tell. Returns false where something has come in meanwhile.
    fn rest(&mut self, uring: &mut IoUring, shared: &Shared) -> bool {
        shared.remote.rest();
        if self.may_silence {
            uring.completion().enable_eventfd();
        }
        // What the kernel did before it saw the switch is seen here; what it does later, it
        // signals.
        fence(Ordering::SeqCst);
        let submission = uring.submission();
        let quiet = !submission.taskrun() && !submission.cq_overflow();
        drop(submission);
        quiet && uring.completion().is_empty() && !self.wake_remotely_woken()
    }

    /// Moves what is queued into the submission queue, as much as fits. Returns whether there is
    /// something in it.
    fn fill(&mut self, uring: &mut IoUring, shared: &Shared) -> bool {
        let mut submissions = uring.submission();
        while !submissions.is_full() {
            let Some(key) = self.queued.pop_front() else {
                break;
            };
            let slot = &mut self.slots[key];
            if slot.state != State::Queued && slot.request.is_endless() {
                self.slots.remove(key); // Given up before it went out.
                continue;
            }
            let entry = slot.request.entry().user_data(key as u64);
            if let Some(recorder) = &shared.recorder {
                let operation = slot.request.operation(flags_of(&entry));
                recorder.submitted(shared.shard, slot.id, &operation);
            }
            // SAFETY: what the entry points to is owned by the request, which stays in its slot,
            // unchanged, until the completion is reaped; descriptors are held by it, too.
            let pushed = unsafe { submissions.push(&entry) };
            assert!(pushed.is_ok(), "the queue was not full");
            slot.state = match slot.state {
                State::Abandoned { .. } => State::Abandoned { submitted: true },
                _ => State::InFlight,
            };
            self.in_flight += 1;
        }
        while !submissions.is_full() {
            let Some(key) = self.cancelled.pop_front() else {
                break;
            };
            let abandoned = State::Abandoned { submitted: true };
            if self.slots.get(key).is_some_and(|slot| slot.state == abandoned) {
                let cancel = opcode::AsyncCancel::new(key as u64).build();
                // SAFETY: a cancellation points to no memory.
                let pushed = unsafe { submissions.push(&cancel.user_data(CANCELLATION)) };
                assert!(pushed.is_ok(), "the queue was not full");
            }
        }
        if let Some(next) = self.timers.next()
            && self.timeout.is_none_or(|timeout| next < timeout)
            && !submissions.is_full()
        {
            let entry = self.timeout_entry(next.since(shared.now()));
            // SAFETY: the entry points to `timeout_after`, which stays where it is, and is not
            // changed before the kernel has read it: when the entry is submitted, at the end of
            // this turn.
            let pushed = unsafe { submissions.push(&entry) };
            assert!(pushed.is_ok(), "the queue was not full");
            self.timeout = Some(next);
        }
        submissions.sync();
        !submissions.is_empty()
    }

    /// Sets the kernel's timeout, or moves it.
    fn timeout_entry(&mut self, after: Duration) -> squeue::Entry {
        *self.timeout_after = types::Timespec::from(after);
        let after: *const types::Timespec = &raw const *self.timeout_after;
        if self.timeout.is_none() {
            return opcode::Timeout::new(after).build().user_data(TIMEOUT);
        }
        // Where it has just ended, this fails, and the next turn sets another.
        let moved = opcode::TimeoutUpdate::new(TIMEOUT, after).build();
        moved.user_data(CANCELLATION)
    }

    /// Takes all completions that are there. Returns whether there were any.
    fn reap(&mut self, uring: &mut IoUring, shared: &Shared) -> bool {
        let mut reaped = false;
        for completion in uring.completion() {
            reaped = true;
            match completion.user_data() {
                CANCELLATION => continue,
                TIMEOUT => {
                    self.timeout = None;
                    continue;
                }
                _ => {}
            }
            let key = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            assert!(self.slots.contains(key), "a completion of no request");
            self.complete(key, completion.result(), shared);
        }
        reaped
    }

    fn complete(&mut self, key: usize, result: i32, shared: &Shared) {
        let slot = &mut self.slots[key];
        if let Some(recorder) = &shared.recorder {
            recorder.completed(shared.shard, slot.id, result);
        }
        take_result(&mut slot.request, result);
        self.in_flight -= 1;
        match slot.state {
            State::InFlight => {
                slot.state = State::Done(result);
                self.woken.extend(slot.waker.take());
            }
            State::Abandoned { submitted: true } => drop(self.slots.remove(key)),
            State::Queued | State::Abandoned { submitted: false } | State::Done(_) => {
                unreachable!("a completion of what was not under way")
            }
        }
    }

    /// Nobody waits for this request any more. Returns its waker: dropping it may run code that
    /// comes back here.
    fn abandon(&mut self, key: usize) -> Option<Waker> {
        let slot = &mut self.slots[key];
        let waker = slot.waker.take();
        match slot.state {
            State::Queued => slot.state = State::Abandoned { submitted: false },
            State::InFlight => {
                slot.state = State::Abandoned { submitted: true };
                if slot.request.is_endless() {
                    self.cancelled.push_back(key);
                    self.wake_driver();
                }
            }
            State::Done(_) => drop(self.slots.remove(key)),
            State::Abandoned { .. } => unreachable!("given up twice"),
        }
        waker
    }

    fn shut_down(&mut self, shared: &Shared) {
        let Some(mut uring) = self.uring.take() else {
            return;
        };
        for key in self.queued.drain(..) {
            match self.slots[key].state {
                State::Queued => {
                    self.slots[key].state = State::Done(-libc::ECANCELED);
                    self.woken.extend(self.slots[key].waker.take());
                }
                _ => drop(self.slots.remove(key)),
            }
        }
        let deadline = Instant::now() + SHUTDOWN_MAX;
        let under_way = self.slots.iter().filter(|(_, slot)| slot.request.is_endless());
        let mut cancels: Vec<u64> = under_way.map(|(key, _)| key as u64).collect();
        while self.in_flight > 0 && Instant::now() < deadline {
            while let Some(key) = cancels.pop() {
                let cancel = opcode::AsyncCancel::new(key).build().user_data(CANCELLATION);
                // SAFETY: a cancellation points to no memory.
                if unsafe { uring.submission().push(&cancel) }.is_err() {
                    cancels.push(key);
                    break;
                }
            }
            let wait = types::Timespec::new().nsec(100_000_000);
            let wait = types::SubmitArgs::new().timespec(&wait);
            // A timeout, or a completion queue that is full, is no matter: what counts is what is
            // reaped.
            drop(uring.submitter().submit_with_args(1, &wait));
            self.reap(&mut uring, shared);
        }
        drop(uring);
        if self.in_flight > 0 {
            // The kernel may still write into their memory: better lost than freed.
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A ring that was not shut down (a panic): the kernel may still write into the memory of
        // its requests.
        if self.in_flight > 0 {
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

/// Takes over what the kernel has made or filled.
fn take_result(request: &mut Request, result: i32) {
    let Ok(filled) = usize::try_from(result) else {
        return;
    };
    match request {
        Request::Receive { buffer, .. } | Request::Read { buffer, .. } => {
            assert!(filled <= buffer.capacity() - buffer.len(), "more came than was asked for");
            // SAFETY: the kernel has filled so many bytes of the spare capacity that the entry
            // pointed to.
            unsafe { buffer.advance_mut(filled) };
        }
        Request::Accept { accepted: opened, .. } | Request::Open { opened, .. } => {
            // SAFETY: a descriptor that the kernel has just made for this request; nobody else
            // knows it.
            *opened = Some(unsafe { OwnedFd::from_raw_fd(result) });
        }
        _ => {}
    }
}

/// Submits, and lets the kernel do what it has put off.
fn enter(uring: &IoUring) {
    loop {
        match uring.submitter().submit() {
            Ok(_) => return,
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR) => {}
                // Completions have to be reaped first, or memory is short for a moment: the next
                // turn tries again.
                Some(libc::EBUSY | libc::EAGAIN) => return,
                _ => panic!("the shard's ring refuses to work: {error}"),
            },
        }
    }
}

/// The flags of a read or write (`RWF_DSYNC`), as they stand in the entry that the kernel gets.
fn flags_of(entry: &squeue::Entry) -> i32 {
    /// Where `struct io_uring_sqe` has them.
    const POSITION: usize = 28;
    const { assert!(size_of::<squeue::Entry>() == 64) };
    let entry: *const squeue::Entry = entry;
    // SAFETY: an entry is that structure of the kernel's, 64 bytes; the field lies within it.
    unsafe { entry.cast::<u8>().add(POSITION).cast::<i32>().read_unaligned() }
}

/// A counter that can be waited for.
pub(super) fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: takes no memory of ours.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A request under way. Comes back with its result (bytes, events or a descriptor's number) once
/// the kernel is done.
#[must_use = "nobody looks at the result"]
pub(super) struct Pending {
    ring: Ring,
    key: Option<usize>,
}

impl Future for Pending {
    type Output = (io::Result<usize>, Request);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(key) = self.key else {
            panic!("a request was awaited twice");
        };
        let mut core = self.ring.0.core.borrow_mut();
        let slot = &mut core.slots[key];
        let State::Done(result) = slot.state else {
            match &slot.waker {
                Some(waker) if waker.will_wake(context.waker()) => {}
                _ => slot.waker = Some(context.waker().clone()),
            }
            return Poll::Pending;
        };
        let slot = core.slots.remove(key);
        drop(core);
        self.key = None;
        let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        Poll::Ready((result, slot.request))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            let waker = self.ring.0.core.borrow_mut().abandon(key);
            drop(waker);
        }
    }
}

/// Completes at a deadline. See [`Ring::sleep_until`].
#[must_use = "sleeps only when it is awaited"]
pub(super) struct Sleep {
    ring: Ring,
    deadline: Monotonic,
    timer: Option<TimerKey>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.ring.now() >= self.deadline {
            return Poll::Ready(());
        }
        let mut core = self.ring.0.core.borrow_mut();
        let former = match self.timer {
            Some(timer) => core.timers.change(timer, context.waker()),
            None => {
                let timer = core.timers.add(self.deadline, context.waker().clone());
                core.wake_driver();
                drop(core);
                self.timer = Some(timer);
                return Poll::Pending;
            }
        };
        drop(core);
        drop(former);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer {
            let waker = self.ring.0.core.borrow_mut().timers.remove(timer);
            drop(waker);
        }
    }
}
