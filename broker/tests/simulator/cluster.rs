//! The nodes of a run and the hosts they live on: one node now. Starts, crashes and stops them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use vltava::runtime::sim::{Crash, HostId, Random, Simulation};
use vltava_storage::io::fault_disk::FaultDisk;

use crate::checkers::{Checkers, violation};
use crate::faults::Swarm;
use crate::node::{self, Node};

/// All that a disk can hold when it is not full, in bytes.
const DISK_BYTES: u64 = 1 << 40;
/// Where a node listens.
const PORT: u16 = 9092;
/// Where it tells of itself.
pub const ADMIN_PORT: u16 = 9644;
/// An orderly stop takes no longer than this, in nanoseconds of virtual time.
const STOP_NS_MAX: u64 = 120_000_000_000;
/// A process that is to die after so many polls may have come to rest: it dies after this time.
const FUSE_NS_MAX: u64 = 50_000_000;

struct State {
    starts: Cell<u64>,
    node: RefCell<Option<Node>>,
    /// A write of the disk was made to fail: the node may end.
    disk_failed: Cell<bool>,
    /// The disk is full, or was just now: a node that starts may end.
    disk_full: Cell<bool>,
    /// The node has ended by itself.
    ended: Cell<bool>,
}

/// A cluster. A clone is the same one.
#[derive(Clone)]
pub struct Cluster {
    /// The run.
    pub simulation: Simulation,
    /// What was drawn for it.
    pub swarm: Rc<Swarm>,
    /// The node's host.
    pub host: HostId,
    checkers: Checkers,
    state: Rc<State>,
}

impl Cluster {
    /// A host with an empty disk.
    pub fn new(simulation: &Simulation, swarm: &Rc<Swarm>, checkers: &Checkers) -> Self {
        Self {
            simulation: simulation.clone(),
            swarm: Rc::clone(swarm),
            host: simulation.add_host(),
            checkers: checkers.clone(),
            state: Rc::new(State {
                starts: Cell::new(0),
                node: RefCell::new(None),
                disk_failed: Cell::new(false),
                disk_full: Cell::new(false),
                ended: Cell::new(false),
            }),
        }
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.simulation.executor().seed()
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.simulation.address(self.host), PORT)
    }

    /// The node's disk.
    pub fn disk(&self) -> FaultDisk {
        self.simulation.disk(self.host)
    }

    /// How often the node was started.
    pub fn starts(&self) -> u64 {
        self.state.starts.get()
    }

    /// Starts the node, with as many shards as chance says.
    pub async fn start(&self, random: &mut Random) {
        self.simulation.settled(self.host).await;
        let shards = random.between(self.swarm.shards.clone());
        let executor = self.simulation.executor();
        executor.note(&format!("the node starts with {shards} shards"));
        self.state.starts.set(self.state.starts.get() + 1);
        self.state.disk_failed.set(false);
        self.state.ended.set(false);
        let shards = usize::try_from(shards).unwrap_or(1);
        let runtimes = self.simulation.start(self.host, shards);
        let (state, name) = (Rc::clone(&self.state), executor.clone());
        let started = node::start(
            runtimes,
            self.address(),
            ADMIN_PORT,
            &self.swarm.node_settings,
            move |why| {
                // A disk that fails may end a node; nothing else may.
                let may_end = state.disk_failed.get() || state.disk_full.get();
                assert!(may_end, "the node has ended: {why}");
                name.note(&format!("the node has ended: {why}"));
                state.ended.set(true);
            },
        );
        *self.state.node.borrow_mut() = Some(started);
    }

    /// Starts the node where it does not run.
    pub async fn ensure_running(&self, random: &mut Random) {
        if self.simulation.running(self.host).is_none() {
            self.start(random).await;
        }
    }

    /// A write is made to fail, or was: what was only written may be lost.
    pub fn disk_failed(&self) {
        self.state.disk_failed.set(true);
        self.written_may_be_lost();
    }

    /// The disk holds no more than this many bytes for a while.
    pub async fn fill_disk(&self, bytes_max: u64, for_ns: u64, random: &mut Random) {
        let executor = self.simulation.executor();
        self.disk().set_capacity(bytes_max);
        self.state.disk_full.set(true);
        executor.sleep_until(executor.now_ns() + for_ns).await;
        self.disk().set_capacity(DISK_BYTES);
        // What failed while there was no space may show a little later.
        executor.sleep_until(executor.now_ns() + 5_000_000_000).await;
        self.state.disk_full.set(false);
        if self.state.ended.get() {
            self.simulation.kill(self.host, Crash::Process);
            self.start(random).await;
        }
    }

    fn written_may_be_lost(&self) {
        let offsets = self.checkers.offsets.borrow();
        let mut acks = self.checkers.acks.borrow_mut();
        acks.written_may_be_lost(|partition| offsets.high_watermark(partition));
    }

    /// Ends the node at a moment that chance picks, and leaves it so.
    pub async fn crash_now(&self, how: Crash, random: &mut Random) {
        self.strike(how, random).await;
        if how == Crash::Power || self.state.disk_failed.get() {
            self.written_may_be_lost();
        }
    }

    /// Ends the node at a moment that chance picks, and starts it again after a while.
    pub async fn crash(&self, how: Crash, random: &mut Random) {
        self.crash_now(how, random).await;
        let executor = self.simulation.executor();
        let down_ns = random.mostly_small(1_000_000..=5_000_000_000);
        executor.sleep_until(executor.now_ns() + down_ns).await;
        self.start(random).await;
        if random.chance(250_000) {
            // Once more, while it recovers.
            self.crash_now(how, random).await;
            self.start(random).await;
        }
    }

    /// Ends the node within the next polls of its tasks: in the middle of an instant, as a rule.
    async fn strike(&self, how: Crash, random: &mut Random) {
        let executor = self.simulation.executor();
        let Some(process) = self.simulation.running(self.host) else {
            return;
        };
        let (simulation, host) = (self.simulation.clone(), self.host);
        let polls = random.mostly_small(1..=2_000);
        executor.after_polls(process, polls, move || simulation.kill(host, how));
        let given_up_ns = executor.now_ns() + random.mostly_small(1..=FUSE_NS_MAX);
        while self.simulation.running(self.host).is_some() && executor.now_ns() < given_up_ns {
            executor.sleep_until(executor.now_ns() + 100_000).await;
        }
        self.simulation.kill(self.host, how);
        self.state.node.borrow_mut().take();
    }

    /// Stops the node in order, and starts it again. A busy shard hears of it later than others.
    pub async fn restart(&self, random: &mut Random) {
        let executor = self.simulation.executor();
        let node = self.state.node.borrow_mut().take();
        if let Some(node) = node {
            executor.note("the node is told to stop");
            self.checkers.stopping.set(self.swarm.troubles.is_empty());
            while node.stop_one(random) {
                let later_ns = random.mostly_small(1..=20_000_000);
                executor.sleep_until(executor.now_ns() + later_ns).await;
            }
            let limit_ns = executor.now_ns() + STOP_NS_MAX;
            while !node.has_stopped() {
                if executor.now_ns() > limit_ns {
                    violation("an orderly stop does not come to its end".to_owned());
                }
                executor.sleep_until(executor.now_ns() + 1_000_000).await;
            }
        }
        self.checkers.stopping.set(false);
        self.simulation.kill(self.host, Crash::Process);
        self.start(random).await;
    }
}
