//! Shards on the real machine: one thread, one executor and one ring each.

use std::cell::RefCell;
use std::fs::File;
use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::task::{Poll, Waker};
use std::thread::{self, JoinHandle};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::data_directory::DataDirectory;
use super::executor::Executor;
use super::file::MachineDisk;
use super::recorder::Recorder;
use super::request::{Request, SharedHandle};
use super::ring::Ring;
use super::setup;
use super::socket::{Listeners, MachineNetwork};
use super::sync::yield_now;
use super::system::{self, ProcessFacts, ShutdownSignals};
use super::tasks::Tasks;
use super::{Monotonic, Queue, Runtime};

/// Random bytes fetched from the operating system at a time.
const RANDOM_BYTES: usize = 512;
/// Descriptors that a shard needs before it serves anybody: its rings, its eventfds, the data
/// directory.
const DESCRIPTORS_PER_SHARD_MIN: u64 = 32;

/// How the shards run.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory, open and locked.
    pub data_directory: Arc<DataDirectory>,
    /// Sees what the rings do; for tests.
    pub recorder: Option<Arc<dyn Recorder>>,
}

/// Why no shard was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel, or a container's profile, refuses io_uring.
    #[error(
        "io_uring cannot be used here ({0}): a kernel without it, sysctl kernel.io_uring_disabled, \
         or a container profile"
    )]
    IoUringRefused(io::Error),
    /// The limits of the process cannot be asked for.
    #[error(
        "the limits of this process cannot be read ({0}): a container profile that refuses \
         prlimit64"
    )]
    LimitsRefused(io::Error),
    /// `RLIMIT_MEMLOCK` is too low.
    #[error(
        "the limit of locked memory is {limit} bytes; {needed} are needed (ulimit -l, \
         LimitMEMLOCK=)"
    )]
    LockedMemory {
        /// What it is, in bytes.
        limit: u64,
        /// What it has to be, in bytes.
        needed: u64,
    },
    /// `RLIMIT_NOFILE` is too low.
    #[error(
        "the limit of open files is {limit}; at least {needed} are needed (ulimit -n, \
         LimitNOFILE=)"
    )]
    Descriptors {
        /// What it is.
        limit: u64,
        /// What it has to be.
        needed: u64,
    },
    /// A thread, its executor or its ring could not be made.
    #[error("shard {shard} cannot start: {message}")]
    Shard {
        /// Which.
        shard: usize,
        /// The system's own words.
        message: String,
    },
}

/// How a shard ended, where not well.
#[derive(Debug, thiserror::Error)]
pub enum ShardError<E> {
    /// It ended with this error.
    #[error("shard {shard}: {error}")]
    Failed {
        /// Which.
        shard: usize,
        /// What its future returned.
        error: E,
    },
    /// It panicked; the message stands in the process's error output.
    #[error("shard {shard} panicked")]
    Panicked {
        /// Which.
        shard: usize,
    },
}

/// What a shard's future is given.
#[derive(Debug)]
pub struct ShardStart {
    /// Its executor, disk and network.
    pub runtime: MachineRuntime,
    /// Its number, from 0.
    pub shard: usize,
    /// Asks all shards to end, and is how they learn of it.
    pub stop: Stop,
}

/// Starts one shard for each of `parts` (what only that shard gets: its port of the mesh) and runs
/// the future that `make` builds for it. Each has a core of its own where there are enough. A shard
/// ends when its future does: its other tasks are dropped where they wait. The first that ends asks
/// the others to.
///
/// # Errors
/// Where any of them cannot start; then no `make` was called.
pub fn run_shards<P, M, F, E>(
    options: &Options,
    parts: Vec<P>,
    make: M,
) -> Result<Shards<E>, StartError>
where
    P: Send + 'static,
    M: Fn(ShardStart, P) -> F + Clone + Send + 'static,
    F: Future<Output = Result<(), E>> + 'static,
    E: Send + 'static,
{
    let shards = parts.len();
    check_limits(shards)?;
    let stop = Stop::default();
    let cores = system::cores();
    let common = Common {
        options: options.clone(),
        listeners: Arc::default(),
        origin: Instant::now(),
        stop: stop.clone(),
    };
    let mut threads: Vec<ShardThread<E>> = Vec::with_capacity(shards);
    for (shard, part) in parts.into_iter().enumerate() {
        // More shards than cores run where the scheduler puts them.
        let core = (shards <= cores.len()).then(|| cores[shard]);
        match start_shard(shard, core, common.clone(), part, make.clone()) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                cancel(threads);
                return Err(error);
            }
        }
    }
    let threads = threads.into_iter().map(|thread| {
        // It waits for this; if it is gone, joining it says why.
        let _gone = thread.go.send(());
        thread.thread
    });
    let threads = threads.collect();
    Ok(Shards { threads, stop })
}

/// Ends shards that wait for their start.
fn cancel<E>(threads: Vec<ShardThread<E>>) {
    for ShardThread { thread, go } in threads {
        drop(go);
        drop(thread.join());
    }
}

/// Whether this machine lets so many shards run: io_uring, locked memory, open files. Touches
/// nothing.
///
/// # Errors
/// What it refuses.
pub fn check_limits(shards: usize) -> Result<(), StartError> {
    setup::try_set_up().map_err(StartError::IoUringRefused)?;
    system::try_limits().map_err(StartError::LimitsRefused)?;
    let limit = system::limit("Max locked memory");
    let needed = system::LOCKED_MEMORY_BYTES_MIN;
    if limit < needed {
        return Err(StartError::LockedMemory { limit, needed });
    }
    let limit = system::limit("Max open files");
    let needed = DESCRIPTORS_PER_SHARD_MIN * shards as u64 + DESCRIPTORS_PER_SHARD_MIN;
    if limit < needed {
        return Err(StartError::Descriptors { limit, needed });
    }
    Ok(())
}

/// The running shards.
#[derive(Debug)]
pub struct Shards<E> {
    threads: Vec<JoinHandle<Result<(), E>>>,
    stop: Stop,
}

impl<E> Shards<E> {
    /// Asks all shards to end.
    pub fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Waits until all have ended.
    ///
    /// # Errors
    /// How the first that did not end well ended.
    pub fn join(self) -> Result<(), ShardError<E>> {
        let mut result = Ok(());
        for (shard, thread) in self.threads.into_iter().enumerate() {
            let ended = match thread.join() {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(ShardError::Failed { shard, error }),
                Err(_) => Err(ShardError::Panicked { shard }),
            };
            result = result.and(ended);
        }
        result
    }
}

/// Asks the shards to end. Crosses threads; a clone is the same.
#[derive(Clone, Debug, Default)]
pub struct Stop(Arc<StopState>);

#[derive(Debug, Default)]
struct StopState {
    requested: AtomicBool,
    waiting: Mutex<Vec<Waker>>,
}

impl Stop {
    /// Asks. Never taken back.
    pub fn request(&self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        self.0.requested.store(true, Ordering::Release);
        let woken = std::mem::take(&mut *waiting);
        drop(waiting);
        for waker in woken {
            waker.wake();
        }
    }

    /// Whether it was asked.
    pub fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::Acquire)
    }

    /// Completes once it was asked.
    pub async fn requested(&self) {
        poll_fn(|context| {
            let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if self.is_requested() {
                return Poll::Ready(());
            }
            if !waiting.iter().any(|known| known.will_wake(context.waker())) {
                waiting.push(context.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}

/// Asks the others to end when this shard does, however it does.
struct StopOnDrop(Stop);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.request();
    }
}

/// What all shards of a process have in common.
#[derive(Clone)]
struct Common {
    options: Options,
    listeners: Arc<Listeners>,
    origin: Instant,
    stop: Stop,
}

/// A shard that has what it needs, and waits for the others.
struct ShardThread<E> {
    thread: JoinHandle<Result<(), E>>,
    go: mpsc::Sender<()>,
}

fn start_shard<P, M, F, E>(
    shard: usize,
    core: Option<usize>,
    common: Common,
    part: P,
    make: M,
) -> Result<ShardThread<E>, StartError>
where
    P: Send + 'static,
    M: Fn(ShardStart, P) -> F + Send + 'static,
    F: Future<Output = Result<(), E>> + 'static,
    E: Send + 'static,
{
    let (go, wait_to_go) = mpsc::channel::<()>();
    let (ready, wait_until_ready) = mpsc::channel::<Result<(), String>>();
    let refused = |message: String| StartError::Shard { shard, message };
    let thread = thread::Builder::new().name(format!("shard-{shard}"));
    let thread = thread.spawn(move || {
        let (executor, runtime) = match equip(shard, core, &common) {
            Ok(equipment) => equipment,
            Err(message) => {
                drop(ready.send(Err(message)));
                return Ok(());
            }
        };
        drop(ready.send(Ok(())));
        if wait_to_go.recv().is_err() {
            return Ok(()); // Another one cannot start.
        }
        let _stop = StopOnDrop(common.stop.clone());
        executor.run(make(ShardStart { runtime, shard, stop: common.stop }, part))
    });
    let thread = thread.map_err(|error| refused(error.to_string()))?;
    match wait_until_ready.recv() {
        Ok(Ok(())) => Ok(ShardThread { thread, go }),
        Ok(Err(message)) => Err(refused(message)),
        Err(_) => Err(refused("its thread panicked".to_owned())),
    }
}

/// What the calling thread runs, and runs on.
fn equip(
    shard: usize,
    core: Option<usize>,
    common: &Common,
) -> Result<(Executor, MachineRuntime), String> {
    if let Some(core) = core {
        // A profile that refuses this: then the thread runs where the scheduler puts it.
        let _refused = system::pin_to(&[core]);
    }
    let recorder = common.options.recorder.clone();
    let lock = common.options.data_directory.ring_lock();
    let ring = Ring::new(shard, common.origin, recorder, lock);
    let ring = ring.map_err(|error| format!("io_uring: {error}"))?;
    let executor = Executor::new(ring.clone()).map_err(|error| error.to_string())?;
    let random = RandomBytes::open().map_err(|error| format!("/dev/urandom: {error}"))?;
    let runtime = MachineRuntime::new(&executor, ring, random, common);
    Ok((executor, runtime))
}

/// One shard's executor, disk and network. A clone is the same.
#[derive(Clone, Debug)]
pub struct MachineRuntime(Rc<RuntimeState>);

#[derive(Debug)]
struct RuntimeState {
    ring: Ring,
    disk: MachineDisk,
    network: MachineNetwork,
    tasks: Rc<Tasks>,
    random: RefCell<RandomBytes>,
}

impl MachineRuntime {
    fn new(executor: &Executor, ring: Ring, random: RandomBytes, common: &Common) -> Self {
        let directory = Arc::clone(&common.options.data_directory);
        Self(Rc::new(RuntimeState {
            disk: MachineDisk::new(ring.clone(), directory),
            network: MachineNetwork::new(ring.clone(), Arc::clone(&common.listeners)),
            tasks: Rc::clone(executor.tasks()),
            ring,
            random: RefCell::new(random),
        }))
    }

    /// What the process has taken so far. Asked of the system on a thread beside the shard's.
    pub async fn process_facts(&self) -> ProcessFacts {
        let asked = self.0.disk.blocking().run(|| Ok(ProcessFacts::read()));
        // Only where no thread can be started: then nothing is known.
        asked.await.unwrap_or_default()
    }

    /// Completes once the process is asked to end, by SIGTERM, SIGINT or SIGHUP.
    ///
    /// # Errors
    /// Where the ring is shut down.
    pub async fn shutdown_signal(&self, signals: &ShutdownSignals) -> io::Result<()> {
        let request = Request::Poll {
            handle: Arc::clone(&signals.event) as SharedHandle,
            events: u32::from(libc::POLLIN.cast_unsigned()),
        };
        let (result, _) = self.0.ring.ask(request).await;
        result.map(drop)
    }
}

impl Runtime for MachineRuntime {
    type Disk = MachineDisk;
    type Network = MachineNetwork;

    fn now(&self) -> Monotonic {
        self.0.ring.now()
    }

    fn wall_clock_ms(&self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
    }

    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + 'static {
        self.0.ring.sleep_until(deadline)
    }

    fn spawn(&self, queue: Queue, task: impl Future<Output = ()> + 'static) {
        self.0.tasks.spawn(queue, task);
    }

    async fn yield_if_needed(&self) {
        if self.0.tasks.has_had_its_time() {
            yield_now().await;
        }
    }

    fn processor_us(&self) -> u64 {
        system::thread_cpu_us()
    }

    fn random_u64(&self) -> u64 {
        self.0.random.borrow_mut().next_u64()
    }

    fn disk(&self) -> &MachineDisk {
        &self.0.disk
    }

    fn network(&self) -> &MachineNetwork {
        &self.0.network
    }
}

/// Random bytes of the operating system, fetched some at a time. Open from the start: when clients
/// have taken all descriptors, it could not be opened.
#[derive(Debug)]
struct RandomBytes {
    source: File,
    fetched: Vec<u8>,
}

impl RandomBytes {
    fn open() -> io::Result<Self> {
        let source = File::open("/dev/urandom")?;
        Ok(Self { source, fetched: Vec::new() })
    }

    fn next_u64(&mut self) -> u64 {
        loop {
            if let Some((rest, bytes)) = self.fetched.split_last_chunk::<8>() {
                let value = u64::from_ne_bytes(*bytes);
                self.fetched.truncate(rest.len());
                return value;
            }
            self.fetched.resize(RANDOM_BYTES, 0);
            if let Err(error) = self.source.read_exact(&mut self.fetched) {
                panic!("the operating system's random bytes have ended: {error}");
            }
        }
    }
}
