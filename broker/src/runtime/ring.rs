//! The shard's io_uring.
//!
//! A request goes into a table that owns its memory until the kernel is done with it, and comes
//! back to the task that waits for it with its result. Requests made while tasks run are submitted
//! together, when the executor turns the ring; with nothing to run it sleeps there, until something
//! completes, a timer fires, or the alarm (an eventfd) is rung by another thread.
//!
//! A dropped [`Pending`] gives its request up: what may wait for ever is cancelled, everything else
//! is submitted and runs to its end, and in either case the memory stays until the kernel has
//! answered.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::BufMut;
use io_uring::{IoUring, Probe, opcode, squeue, types};
use slab::Slab;

use super::Monotonic;
use super::bulk::Bulk;
use super::enter::{enter, enter_and_wait};
use super::recorder::Recorder;
use super::request::Request;
use super::setup::{Mode, set_up};
use super::timers::{TimerKey, Timers};

/// Entries of the submission queue: what one system call submits at most.
const SUBMISSIONS: u32 = 1024;
/// Entries of the completion queue; what does not fit waits in the kernel.
const COMPLETIONS: u32 = 8192;
/// The user data of cancellations, whose own results say nothing.
const CANCELLATION: u64 = u64::MAX;
/// The user data of the read that the alarm ends.
const ALARM: u64 = u64::MAX - 1;
/// How long a shutdown waits for the kernel to give the memory of requests back.
const SHUTDOWN_MAX: Duration = Duration::from_secs(5);

/// One shard's ring. A clone is the same ring.
#[derive(Clone)]
pub(super) struct Ring(Rc<Shared>);

struct Shared {
    core: RefCell<Core>,
    /// Ends a sleep where another thread writes to it.
    alarm: OwnedFd,
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
    /// Those among them that move much.
    bulk: Bulk,
    /// Submitted requests that nobody waits for, to be cancelled.
    cancelled: VecDeque<usize>,
    timers: Timers,
    /// A read of the alarm is in the kernel's hands, into this.
    is_alarm_read: bool,
    alarm_rung: Box<[u8; 8]>,
    in_flight: usize,
    next_id: u64,
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

impl Ring {
    /// Sets up a ring for the calling thread, which must be the only one that uses it. The kernel
    /// keeps the open file `lock`, with the locks that it holds, until the ring's last request is
    /// done: also where the process is gone before.
    ///
    /// # Errors
    /// `ENOSYS` or `EPERM` where the kernel or a container profile refuses io_uring; others of
    /// `io_uring_setup(2)`.
    pub(super) fn new(
        shard: usize,
        origin: Instant,
        recorder: Option<Arc<dyn Recorder>>,
        lock: RawFd,
    ) -> io::Result<Self> {
        let uring = set_up(SUBMISSIONS, COMPLETIONS, Mode::Deferred)?;
        uring.submitter().register_files(&[lock])?;
        Self::over(uring, shard, origin, recorder)
    }

    /// [`Ring::new`] of a size of its own, as on a kernel that has no better mode.
    #[cfg(test)]
    pub(super) fn small(submissions: u32, completions: u32, mode: Mode) -> io::Result<Self> {
        let uring = set_up(submissions, completions, mode)?;
        Self::over(uring, 0, Instant::now(), None)
    }

    fn over(
        uring: IoUring,
        shard: usize,
        origin: Instant,
        recorder: Option<Arc<dyn Recorder>>,
    ) -> io::Result<Self> {
        let core = Core {
            uring: Some(Box::new(uring)),
            slots: Slab::new(),
            queued: VecDeque::new(),
            bulk: Bulk::default(),
            cancelled: VecDeque::new(),
            timers: Timers::default(),
            is_alarm_read: false,
            alarm_rung: Box::default(),
            in_flight: 0,
            next_id: 0,
            woken: Vec::new(),
        };
        let core = RefCell::new(core);
        Ok(Self(Rc::new(Shared { core, alarm: eventfd()?, origin, shard, recorder })))
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

    /// Asks for something. It is submitted when the ring is turned next, also where the answer is
    /// never awaited.
    pub(super) fn ask(&self, request: Request) -> Pending {
        let mut core = self.0.core.borrow_mut();
        let id = core.next_id;
        core.next_id += 1;
        let closed = core.uring.is_none();
        let is_bulk = request.is_bulk();
        let key = core.slots.insert(Slot {
            id,
            request,
            state: if closed { State::Done(-libc::ECANCELED) } else { State::Queued },
            waker: None,
        });
        if !closed {
            let core = &mut *core;
            let queue = if is_bulk { &mut core.bulk.queued } else { &mut core.queued };
            queue.push_back(key);
        }
        Pending { ring: self.clone(), key: Some(key) }
    }

    /// Time since the process began.
    pub(super) fn now(&self) -> Monotonic {
        self.0.now()
    }

    /// What ends a sleep, where it is written to.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub(super) fn alarm(&self) -> io::Result<std::fs::File> {
        Ok(self.0.alarm.try_clone()?.into())
    }

    /// Completes once it is as late as that.
    pub(super) fn sleep_until(&self, deadline: Monotonic) -> Sleep {
        Sleep { ring: self.clone(), deadline, timer: None }
    }

    /// Submits what was asked for, and wakes who waits for what has completed, or for a time that
    /// has come. Waits for nothing.
    pub(super) fn turn(&self) {
        self.advance(false);
    }

    /// The same, but waits until there is something to wake anybody for, or the alarm is rung.
    pub(super) fn sleep(&self) {
        self.advance(true);
    }

    fn advance(&self, may_sleep: bool) {
        let mut core = self.0.core.borrow_mut();
        core.advance(&self.0, may_sleep);
        let woken = std::mem::take(&mut core.woken);
        drop(core);
        self.wake(woken);
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
    fn advance(&mut self, shared: &Shared, may_sleep: bool) {
        let Some(mut uring) = self.uring.take() else {
            return;
        };
        if self.timers.next().is_some() {
            self.timers.fire(shared.now(), &mut self.woken);
        }
        self.fill(&mut uring, shared);
        // Nor where the alarm found no place in the queue: nobody could end the sleep.
        let is_idle = self.woken.is_empty()
            && self.is_alarm_read
            && self.queued.is_empty()
            && self.bulk.has_nothing_to_send()
            && self.cancelled.is_empty()
            && uring.completion().is_empty();
        if may_sleep && is_idle {
            let time = self.timers.next().map(|next| next.since(shared.now()));
            enter_and_wait(&uring, time);
        } else {
            let submission = uring.submission();
            let has_work =
                !submission.is_empty() || submission.taskrun() || submission.cq_overflow();
            drop(submission);
            if has_work {
                enter(&uring);
            }
        }
        self.reap(&mut uring, shared);
        self.uring = Some(uring);
    }

    /// Moves what is queued into the submission queue, as much as fits.
    fn fill(&mut self, uring: &mut IoUring, shared: &Shared) {
        let mut submissions = uring.submission();
        if !self.is_alarm_read && !submissions.is_full() {
            let alarm = types::Fd(shared.alarm.as_raw_fd());
            let read = opcode::Read::new(alarm, self.alarm_rung.as_mut_ptr(), 8);
            // SAFETY: the entry points to `alarm_rung`, which stays where it is until the read has
            // completed; the descriptor is open as long as the ring.
            let pushed = unsafe { submissions.push(&read.build().user_data(ALARM)) };
            assert!(pushed.is_ok(), "the queue was not full");
            self.is_alarm_read = true;
        }
        if !self.bulk.queued.is_empty() {
            self.bulk.look_at(shared.now());
        }
        while !submissions.is_full() {
            let Some(key) = self.queued.pop_front().or_else(|| self.bulk.next()) else {
                break;
            };
            let slot = &mut self.slots[key];
            let is_bulk = slot.request.is_bulk();
            if slot.state != State::Queued && (is_bulk || slot.request.is_endless()) {
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
            self.bulk.in_flight += usize::from(is_bulk);
            if matches!(slot.request, Request::Write { .. }) {
                self.bulk.written = Some(shared.now());
            }
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
    }

    /// Takes all completions that are there.
    fn reap(&mut self, uring: &mut IoUring, shared: &Shared) {
        for completion in uring.completion() {
            match completion.user_data() {
                CANCELLATION => continue,
                ALARM => {
                    self.is_alarm_read = false;
                    continue;
                }
                _ => {}
            }
            let key = usize::try_from(completion.user_data()).unwrap_or(usize::MAX);
            assert!(self.slots.contains(key), "a completion of no request");
            self.complete(key, completion.result(), shared);
        }
    }

    fn complete(&mut self, key: usize, result: i32, shared: &Shared) {
        let slot = &mut self.slots[key];
        if let Some(recorder) = &shared.recorder {
            recorder.completed(shared.shard, slot.id, result);
        }
        take_result(&mut slot.request, result);
        self.in_flight -= 1;
        self.bulk.in_flight -= usize::from(slot.request.is_bulk());
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
        for key in self.queued.drain(..).chain(self.bulk.queued.drain(..)) {
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
        if self.is_alarm_read {
            cancels.push(ALARM);
        }
        while (self.in_flight > 0 || self.is_alarm_read) && Instant::now() < deadline {
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
        if self.in_flight == 0 {
            // The lock is free now; else when the kernel has taken the ring apart, a moment later.
            drop(uring.submitter().unregister_files());
        }
        drop(uring);
        self.forget_in_flight();
    }

    /// The kernel may still write into the memory of what is under way: better lost than freed.
    fn forget_in_flight(&mut self) {
        if self.in_flight > 0 {
            std::mem::forget(std::mem::take(&mut self.slots));
        }
        if self.is_alarm_read {
            std::mem::forget(std::mem::take(&mut self.alarm_rung));
        }
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        // A ring that was not shut down: a panic.
        self.forget_in_flight();
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
        Request::ReadBlocks { buffer, .. } => {
            // SAFETY: the kernel has filled so many bytes where the entry pointed, at what was
            // spare.
            unsafe { buffer.advance(filled) };
        }
        Request::Accept { accepted: opened, .. } | Request::Open { opened, .. } => {
            // SAFETY: a descriptor that the kernel has just made for this request; nobody else
            // knows it.
            *opened = Some(unsafe { OwnedFd::from_raw_fd(result) });
        }
        _ => {}
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
