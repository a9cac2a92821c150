//! Hosts, the processes that run on them, and each process's view of all this as a `Runtime`.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use vltava_storage::io::fault_disk::FaultDisk;

use super::disk::{Pace, SimDisk};
use super::executor::{Executor, ProcessId};
use super::fabric::Fabric;
use super::network::SimNetwork;
use super::options::{DiskOptions, NetworkOptions, SimulationOptions};
use super::random::{Purpose, Random};
use crate::runtime::sync::yield_now;
use crate::runtime::{Monotonic, Queue, Runtime};

/// A machine of the simulation. Its disk and address outlive its processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub u16);

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Crash {
    /// Killed; its kernel lives, closes its sockets, and keeps what was written.
    Process,
    /// The power fails: peers hear nothing, and what was not flushed may be lost.
    Power,
}

struct Host {
    address: IpAddr,
    disk: FaultDisk,
    pace: Pace,
    /// Owns the operations of the disk.
    kernel: ProcessId,
    ids: Rc<RefCell<Random>>,
    /// How far the host's wall clock is off, in milliseconds.
    wall_off_ms: Rc<Cell<i64>>,
    /// The process that runs now.
    running: Option<ProcessId>,
}

struct World {
    executor: Executor,
    fabric: Fabric,
    disk_options: DiskOptions,
    reads_past_cache: bool,
    poll_us: u64,
    wall_clock_ms: i64,
    yield_per_million: u32,
    hosts: RefCell<BTreeMap<HostId, Host>>,
}

/// A run: its hosts, its network, its time. A clone is the same one.
#[derive(Clone)]
pub struct Simulation {
    world: Rc<World>,
}

impl Simulation {
    /// A simulation without hosts, at time 0.
    pub fn new(options: SimulationOptions) -> Self {
        let executor = Executor::new(options.executor);
        Self {
            world: Rc::new(World {
                fabric: Fabric::new(executor.clone(), options.network),
                executor,
                disk_options: options.disk,
                reads_past_cache: options.reads_past_cache,
                poll_us: options.poll_us,
                wall_clock_ms: options.wall_clock_ms,
                yield_per_million: options.yield_per_million,
                hosts: RefCell::default(),
            }),
        }
    }

    /// Tasks and time.
    pub fn executor(&self) -> &Executor {
        &self.world.executor
    }

    /// A new host with an empty disk, and nothing running on it.
    pub fn add_host(&self) -> HostId {
        let world = &self.world;
        let mut hosts = world.hosts.borrow_mut();
        let number = u16::try_from(hosts.len()).unwrap_or(u16::MAX);
        let [high, low] = (number + 1).to_be_bytes();
        let seed = world.executor.seed();
        let mut random = Random::new(seed, Purpose::Disk, u64::from(number));
        let disk = FaultDisk::new(random.bits());
        let pace = Pace::new(world.executor.clone(), world.disk_options.clone(), random);
        pace.govern(&disk);
        disk.set_reads_past_cache(world.reads_past_cache);
        let ids = Random::new(seed, Purpose::Ids, u64::from(number));
        let host = Host {
            address: IpAddr::V4(Ipv4Addr::new(10, 0, high, low)),
            disk,
            pace,
            kernel: world.executor.start_process(),
            ids: Rc::new(RefCell::new(ids)),
            wall_off_ms: Rc::default(),
            running: None,
        };
        hosts.insert(HostId(number), host);
        HostId(number)
    }

    fn with_host<T>(&self, host: HostId, act: impl FnOnce(&mut Host) -> T) -> T {
        let mut hosts = self.world.hosts.borrow_mut();
        match hosts.get_mut(&host) {
            Some(host) => act(host),
            None => unknown_host(host),
        }
    }

    /// Where the host is found.
    pub fn address(&self, host: HostId) -> IpAddr {
        self.with_host(host, |host| host.address)
    }

    /// The host's disk, to look at or to damage. After a power failure: ask again.
    pub fn disk(&self, host: HostId) -> FaultDisk {
        self.with_host(host, |host| host.disk.clone())
    }

    /// The host gets an empty disk in place of its own.
    ///
    /// # Panics
    /// Where a process runs there, or something is under way on the disk.
    pub fn replace_disk(&self, host: HostId) {
        self.with_host(host, |state| {
            let is_idle = state.running.is_none() && state.pace.is_idle();
            assert!(is_idle, "{host:?} uses its disk");
            state.disk = FaultDisk::new(state.pace.seed());
            state.pace.govern(&state.disk);
            state.disk.set_reads_past_cache(self.world.reads_past_cache);
        });
        self.world.executor.note(&format!("{host:?}: an empty disk"));
    }

    /// Starts a process: one runtime for each of its shards. After a killed process, `settled`
    /// comes first.
    ///
    /// # Panics
    /// Where one runs already, or the last one's operations on the disk are still under way.
    pub fn start(&self, host: HostId, shards: usize) -> Vec<SimRuntime> {
        let world = &self.world;
        let process = world.executor.start_process();
        self.with_host(host, |state| {
            assert!(state.running.is_none(), "{host:?} runs a process already");
            assert!(state.pace.is_idle(), "{host:?} has not settled");
            state.running = Some(process);
            world.fabric.light(state.address);
            let pace = state.pace.clone();
            let (fabric, address) = (world.fabric.clone(), state.address);
            let runtime = SimRuntime {
                executor: world.executor.clone(),
                process,
                started_ns: world.executor.now_ns(),
                wall_clock_ms: world.wall_clock_ms,
                wall_off_ms: Rc::clone(&state.wall_off_ms),
                yield_per_million: world.yield_per_million,
                ids: Rc::clone(&state.ids),
                disk: SimDisk::new(state.disk.clone(), state.kernel, pace.clone()),
                network: SimNetwork::new(fabric, process, address, pace),
                poll_us: world.poll_us,
                polls: Rc::default(),
            };
            let shard = |_| SimRuntime { polls: Rc::default(), ..runtime.clone() };
            (0..shards).map(shard).collect()
        })
    }

    /// The process that runs on a host now.
    pub fn running(&self, host: HostId) -> Option<ProcessId> {
        self.with_host(host, |host| host.running)
    }

    /// Ends the host's process at once, if one runs; with the power, also what its kernel was doing
    /// on the disk, and what the disk had not flushed may be lost.
    pub fn kill(&self, host: HostId, how: Crash) {
        let world = &self.world;
        let (running, address) = self.with_host(host, |host| (host.running.take(), host.address));
        if let Some(process) = running {
            // Silent first: what tasks do while they are dropped reaches nobody.
            let announced = how == Crash::Process;
            world.fabric.process_gone(process, address, announced);
            world.executor.kill_process(process);
        }
        if how == Crash::Power {
            let kernel = self.with_host(host, |host| {
                host.disk = host.disk.restart();
                host.pace.forget();
                std::mem::replace(&mut host.kernel, world.executor.start_process())
            });
            world.executor.kill_process(kernel);
        }
    }

    /// Waits until nothing is under way on the host's disk: what a killed process had asked for
    /// goes on, and the next start waits for it (`runtime::DataDirectory`).
    pub async fn settled(&self, host: HostId) {
        let executor = self.executor();
        while !self.with_host(host, |host| host.pace.is_idle()) {
            executor.sleep_until(executor.now_ns() + 100_000).await;
        }
    }

    /// Stops the host's process where it stands; its sockets stay.
    pub fn pause(&self, host: HostId) {
        if let Some(process) = self.running(host) {
            self.world.executor.pause_process(process);
        }
    }

    /// Lets it go on.
    pub fn resume(&self, host: HostId) {
        if let Some(process) = self.running(host) {
            self.world.executor.resume_process(process);
        }
    }

    /// Moves the host's wall clock, forward or back.
    pub fn jump_wall_clock(&self, host: HostId, by_ms: i64) {
        let off = self.with_host(host, |host| Rc::clone(&host.wall_off_ms));
        off.set(off.get().saturating_add(by_ms));
        self.world.executor.note(&format!("{host:?}: wall clock {by_ms:+} ms"));
    }

    /// From now on the host's disk takes this long.
    pub fn set_disk_options(&self, host: HostId, options: DiskOptions) {
        self.with_host(host, |host| host.pace.set_options(options));
    }

    /// From now on the network is like this. Windows of connections that exist stay.
    pub fn set_network_options(&self, options: NetworkOptions) {
        self.world.fabric.options.replace(options);
    }

    /// Nothing goes from one host to another any more. Connections stay; what they send is held.
    pub fn block(&self, from: HostId, to: HostId) {
        let (from, to) = (self.address(from), self.address(to));
        self.world.fabric.block(from, to);
        self.world.executor.note(&format!("blocked: {from} to {to}"));
    }

    /// This route is open again.
    pub fn unblock(&self, from: HostId, to: HostId) {
        let (from, to) = (self.address(from), self.address(to));
        self.world.fabric.unblock_route(from, to);
        self.world.executor.note(&format!("open again: {from} to {to}"));
    }

    /// All routes are open again.
    pub fn unblock_all(&self) {
        self.world.fabric.unblock();
        self.world.executor.note("all routes open");
    }

    /// Ends the run: drops every process, so that nothing of it stays in memory.
    pub fn close(&self) {
        let hosts: Vec<HostId> = self.world.hosts.borrow().keys().copied().collect();
        for host in hosts {
            self.kill(host, Crash::Process);
        }
        self.world.executor.close();
    }
}

/// A host id comes from `add_host` of the same simulation.
fn unknown_host(host: HostId) -> ! {
    panic!("{host:?} is not of this simulation")
}

/// One shard of one process. A clone is the same shard.
#[derive(Clone)]
pub struct SimRuntime {
    executor: Executor,
    process: ProcessId,
    started_ns: u64,
    wall_clock_ms: i64,
    wall_off_ms: Rc<Cell<i64>>,
    yield_per_million: u32,
    ids: Rc<RefCell<Random>>,
    disk: SimDisk,
    network: SimNetwork,
    poll_us: u64,
    /// Of the tasks of this shard.
    polls: Rc<Cell<u64>>,
}

impl SimRuntime {
    /// Which life of which node this is.
    pub fn process(&self) -> ProcessId {
        self.process
    }
}

impl Runtime for SimRuntime {
    type Disk = SimDisk;
    type Network = SimNetwork;

    fn now(&self) -> Monotonic {
        Monotonic(self.executor.now_ns() - self.started_ns)
    }

    fn wall_clock_ms(&self) -> i64 {
        let passed_ms = i64::try_from(self.executor.now_ns() / 1_000_000).unwrap_or(i64::MAX);
        self.wall_clock_ms.saturating_add(passed_ms).saturating_add(self.wall_off_ms.get())
    }

    fn sleep_until(&self, deadline: Monotonic) -> impl Future<Output = ()> + 'static {
        self.executor.sleep_until(self.started_ns.saturating_add(deadline.0))
    }

    /// All queues are one here: no order among tasks may be relied on.
    fn spawn(&self, _queue: Queue, task: impl Future<Output = ()> + 'static) {
        let polls = Rc::clone(&self.polls);
        let mut task = Box::pin(task);
        let counted = poll_fn(move |context| {
            polls.set(polls.get() + 1);
            task.as_mut().poll(context)
        });
        self.executor.spawn(self.process, counted);
    }

    async fn yield_if_needed(&self) {
        if self.executor.schedule_chance(self.yield_per_million) {
            yield_now().await;
        }
    }

    fn processor_us(&self) -> u64 {
        // That passes for nobody.
        self.poll_us * self.polls.get()
    }

    fn random_u64(&self) -> u64 {
        self.ids.borrow_mut().bits()
    }

    fn disk(&self) -> &SimDisk {
        &self.disk
    }

    fn network(&self) -> &SimNetwork {
        &self.network
    }
}
