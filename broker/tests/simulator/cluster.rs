//! The nodes of a run and the hosts they live on. Starts, crashes and stops them.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use vltava::runtime::sim::{Crash, HostId, MILLION, Random, SimRuntime, Simulation};
use vltava::shard::Shard;
use vltava_storage::io::fault_disk::FaultDisk;

use crate::checkers::{Checkers, violation};
use crate::faults::Trouble;
use crate::losses;
use crate::node::{self, Node};
use crate::rot;
use crate::swarm::Swarm;

/// All that a disk can hold when it is not full, in bytes.
const DISK_BYTES: u64 = 1 << 40;
/// Where a node listens for clients.
const PORT: u16 = 9092;
/// Where a node listens for the others.
const PEER_PORT: u16 = 9192;
/// Where it tells of itself.
pub const ADMIN_PORT: u16 = 9644;
/// An orderly stop takes no longer than this, in nanoseconds of virtual time.
const STOP_NS_MAX: u64 = 120_000_000_000;
/// A process that is to die after so many polls may have come to rest: it dies after this time.
const FUSE_NS_MAX: u64 = 50_000_000;

/// One of the nodes: what outlives its lives.
struct Member {
    host: HostId,
    starts: Cell<u64>,
    node: RefCell<Option<Node>>,
    /// A write of the disk was made to fail: the node may end.
    disk_failed: Cell<bool>,
    /// The disk is full, or nothing can be opened, or so it was just now: a node that starts may
    /// end.
    is_cramped: Cell<bool>,
    /// The node has ended by itself.
    ended: Cell<bool>,
    /// A trouble has this node in its hands; others leave it alone.
    is_taken: Cell<bool>,
    /// It is to run: from before it is a node of the cluster until it is none any more.
    is_in: Cell<bool>,
    /// What it is told of others as it comes; a founder knows the founders.
    peers: RefCell<Option<String>>,
}

impl Member {
    fn has_bad_disk(&self) -> bool {
        self.disk_failed.get() || self.is_cramped.get()
    }
}

/// A cluster. A clone is the same one. Its nodes are named by their place, from 0.
#[derive(Clone)]
pub struct Cluster {
    /// The run.
    pub simulation: Simulation,
    /// What was drawn for it.
    pub swarm: Rc<Swarm>,
    /// Who watches.
    pub checkers: Checkers,
    members: Rc<[Member]>,
    /// A disk is about to be lost.
    is_losing: Rc<Cell<bool>>,
}

impl Cluster {
    /// Hosts with empty disks, those of nodes that may come later among them.
    pub fn new(simulation: &Simulation, swarm: &Rc<Swarm>, checkers: &Checkers) -> Self {
        let founders = swarm.shape.nodes;
        let member = |place| Member {
            host: simulation.add_host(),
            starts: Cell::new(0),
            node: RefCell::new(None),
            disk_failed: Cell::new(false),
            is_cramped: Cell::new(false),
            ended: Cell::new(false),
            is_taken: Cell::new(false),
            is_in: Cell::new(place < founders),
            peers: RefCell::new(None),
        };
        Self {
            simulation: simulation.clone(),
            swarm: Rc::clone(swarm),
            checkers: checkers.clone(),
            members: (0..founders + swarm.shape.comers).map(member).collect(),
            is_losing: Rc::default(),
        }
    }

    /// The seed of the run.
    pub fn seed(&self) -> u64 {
        self.simulation.executor().seed()
    }

    /// All nodes that are to run now.
    pub fn nodes(&self) -> std::vec::IntoIter<usize> {
        self.places(true).into_iter()
    }

    /// The places of those that are to run, or of the others.
    pub fn places(&self, is_in: bool) -> Vec<usize> {
        let places = 0..self.members.len();
        places.filter(|place| self.members[*place].is_in.get() == is_in).collect()
    }

    /// From now on the node of this place is to run, and is told of these others; or not any more.
    pub fn place(&self, node: usize, peers: Option<String>) {
        self.members[node].is_in.set(peers.is_some());
        *self.members[node].peers.borrow_mut() = peers;
    }

    /// The number that a node has in the cluster.
    pub fn id(node: usize) -> i32 {
        i32::try_from(node).unwrap_or(i32::MAX - 1) + 1
    }

    /// Where a node lives.
    pub fn host(&self, node: usize) -> HostId {
        self.members[node].host
    }

    /// Where clients connect: to nodes that are there, or may be.
    pub fn addresses(&self) -> Rc<[SocketAddr]> {
        (0..self.members.len()).map(|node| self.address(node)).collect()
    }

    /// Where clients connect to a node.
    pub fn address(&self, node: usize) -> SocketAddr {
        SocketAddr::new(self.simulation.address(self.host(node)), PORT)
    }

    /// A node's disk.
    pub fn disk(&self, node: usize) -> FaultDisk {
        self.simulation.disk(self.host(node))
    }

    /// How often nodes were started.
    pub fn starts(&self) -> u64 {
        self.members.iter().map(|member| member.starts.get()).sum()
    }

    /// How often this one was.
    pub fn starts_of(&self, node: usize) -> u64 {
        self.members[node].starts.get()
    }

    /// Whether a node's process runs.
    pub fn is_running(&self, node: usize) -> bool {
        self.simulation.running(self.host(node)).is_some()
    }

    /// The shards of a node that runs.
    pub fn shards(&self, node: usize) -> Vec<Rc<Shard<SimRuntime>>> {
        let running = self.members[node].node.borrow();
        let running = running.as_ref().filter(|_| self.is_running(node));
        running.map(Node::shards).unwrap_or_default()
    }

    /// Takes one of the nodes that no trouble has in its hands; `None` where there is none.
    pub fn take(&self, random: &mut Random) -> Option<usize> {
        let free: Vec<usize> =
            self.nodes().filter(|node| !self.members[*node].is_taken.get()).collect();
        let node = match free[..] {
            [] => return None,
            [only] if self.members.len() == 1 => only,
            _ => *random.pick(&free),
        };
        self.members[node].is_taken.set(true);
        Some(node)
    }

    /// Takes this one, as soon as no trouble has it.
    pub async fn take_this(&self, node: usize) {
        let executor = self.simulation.executor();
        while self.members[node].is_taken.replace(true) {
            executor.sleep_until(executor.now_ns() + 10_000_000).await;
        }
    }

    /// Others may have it.
    pub fn give_back(&self, node: usize) {
        self.members[node].is_taken.set(false);
    }

    /// How nodes are named to others.
    pub fn peers(&self, nodes: impl IntoIterator<Item = usize>) -> String {
        let peer = |node| format!("{}@{}", Self::id(node), self.peer_address(node));
        nodes.into_iter().map(peer).collect::<Vec<_>>().join(",")
    }

    /// Where others reach a node.
    pub fn peer_address(&self, node: usize) -> String {
        format!("{}:{PEER_PORT}", self.address(node).ip())
    }

    fn settings(&self, node: usize) -> Vec<(&'static str, String)> {
        let address = self.address(node);
        let mut settings = vec![
            ("listeners", format!("PLAINTEXT://{address}")),
            ("admin.listener", format!("{}:{ADMIN_PORT}", address.ip())),
        ];
        if !self.swarm.shape.is_alone() {
            let told = self.members[node].peers.borrow().clone();
            let peers = told.unwrap_or_else(|| self.peers(0..self.swarm.shape.nodes));
            settings.push(("node.id", Self::id(node).to_string()));
            settings.push(("peers", peers));
        }
        settings.extend(self.swarm.node_settings.iter().cloned());
        settings
    }

    /// Starts a node, with as many shards as chance says.
    pub async fn start(&self, node: usize, random: &mut Random) {
        let (host, member) = (self.host(node), &self.members[node]);
        self.simulation.settled(host).await;
        let shards = random.between(self.swarm.shards.clone());
        let executor = self.simulation.executor();
        executor.note(&format!("node {} starts with {shards} shards", Self::id(node)));
        member.starts.set(member.starts.get() + 1);
        member.disk_failed.set(false);
        member.ended.set(false);
        if self.checkers.rot.borrow().is_on(node) {
            self.checkers.replicas.borrow_mut().starts_damaged(Self::id(node));
        }
        let shards = usize::try_from(shards).unwrap_or(1);
        let runtimes = self.simulation.start(host, shards);
        let (members, name) = (Rc::clone(&self.members), executor.clone());
        let started = node::start(runtimes, &self.settings(node), move |why| {
            let (member, id) = (&members[node], Self::id(node));
            // A disk that fails may end a node; nothing else may.
            assert!(member.has_bad_disk(), "node {id} has ended: {why}");
            name.note(&format!("node {id} has ended: {why}"));
            member.ended.set(true);
        });
        *member.node.borrow_mut() = Some(started);
    }

    /// Starts all nodes that do not run.
    pub async fn ensure_running(&self, random: &mut Random) {
        for node in self.nodes() {
            if !self.is_running(node) {
                self.start(node, random).await;
            }
        }
    }

    /// Whether this node's disk may have failed it since it started.
    pub fn has_bad_disk(&self, node: usize) -> bool {
        self.members[node].has_bad_disk()
    }

    /// A write of this node's disk is made to fail, or was: what was only written may be lost.
    pub fn disk_failed(&self, node: usize) {
        self.members[node].disk_failed.set(true);
        self.written_may_be_lost();
    }

    /// The disk holds no more than this many bytes for a while.
    pub async fn fill_disk(&self, node: usize, bytes_max: u64, for_ns: u64, random: &mut Random) {
        self.disk(node).set_capacity(bytes_max);
        let free = || self.disk(node).set_capacity(DISK_BYTES);
        self.cramped(node, for_ns, free, random).await;
    }

    /// A node can open no file for a while; what it has open stays so. A log that it had to cut
    /// back meanwhile has ended, until a restart (`docs/replication.md`).
    pub async fn lack_descriptors(&self, node: usize, for_ns: u64, random: &mut Random) {
        self.disk(node).set_lacks_descriptors(true);
        let free = || self.disk(node).set_lacks_descriptors(false);
        self.cramped(node, for_ns, free, random).await;
        let has_ended = |shard: &Rc<Shard<SimRuntime>>| {
            let replicas = &shard.services.partitions;
            !replicas.local_where(|replica| replica.ended().is_some()).is_empty()
        };
        if self.shards(node).iter().any(has_ended) {
            assert!(!self.swarm.shape.is_alone(), "a node alone cuts nothing back");
            self.crash(node, Crash::Process, random).await;
        }
    }

    /// Waits, frees it, and starts a node again that has ended for it, or a log of it.
    async fn cramped(&self, node: usize, for_ns: u64, free: impl Fn(), random: &mut Random) {
        let (executor, member) = (self.simulation.executor(), &self.members[node]);
        member.is_cramped.set(true);
        executor.sleep_until(executor.now_ns() + for_ns).await;
        free();
        // What failed in the meantime may show a little later.
        executor.sleep_until(executor.now_ns() + 5_000_000_000).await;
        member.is_cramped.set(false);
        if member.ended.get() {
            self.simulation.kill(member.host, Crash::Process);
            self.start(node, random).await;
        }
    }

    fn written_may_be_lost(&self) {
        let offsets = self.checkers.offsets.borrow();
        let mut acks = self.checkers.acks.borrow_mut();
        acks.written_may_be_lost(|partition| offsets.high_watermark(partition));
    }

    /// Takes a node's power at this moment, and leaves it so.
    pub fn cut_power(&self, node: usize) {
        self.simulation.executor().note(&format!("node {} has no power", Self::id(node)));
        self.simulation.kill(self.host(node), Crash::Power);
        self.members[node].node.borrow_mut().take();
        self.written_may_be_lost();
    }

    /// Ends a node at a moment that chance picks, and leaves it so.
    pub async fn crash_now(&self, node: usize, how: Crash, random: &mut Random) {
        self.crash_all_now(&[node], how, random).await;
    }

    /// Ends nodes at about the same moment, and leaves them so.
    pub async fn crash_all_now(&self, nodes: &[usize], how: Crash, random: &mut Random) {
        self.strike(nodes, how, random).await;
        let has_failed = nodes.iter().any(|node| self.members[*node].disk_failed.get());
        if how == Crash::Power || has_failed {
            self.written_may_be_lost();
        }
    }

    /// Ends a node at a moment that chance picks, and starts it again after a while.
    pub async fn crash(&self, node: usize, how: Crash, random: &mut Random) {
        self.crash_all(&[node], how, random).await;
    }

    /// Ends nodes at about the same moment, and starts them again after a while.
    pub async fn crash_all(&self, nodes: &[usize], how: Crash, random: &mut Random) {
        self.crash_all_now(nodes, how, random).await;
        let executor = self.simulation.executor();
        let down_ns = random.mostly_small(1_000_000..=5_000_000_000);
        executor.sleep_until(executor.now_ns() + down_ns).await;
        for &node in nodes {
            self.start(node, random).await;
        }
        if random.chance(250_000) {
            // Once more, while they recover.
            self.crash_all_now(nodes, how, random).await;
            for &node in nodes {
                self.start(node, random).await;
            }
        }
    }

    /// Takes a node's power and its disk, and starts it with an empty one after a while; only the
    /// power, where another loss is not made good yet.
    pub async fn wipe(&self, node: usize, random: &mut Random) {
        if !self.may_lose() {
            return self.crash(node, Crash::Power, random).await;
        }
        let executor = self.simulation.executor();
        self.is_losing.set(true);
        self.crash_now(node, Crash::Power, random).await;
        self.lose_disk(node);
        self.is_losing.set(false);
        let down_ns = random.mostly_small(1_000_000..=5_000_000_000);
        executor.sleep_until(executor.now_ns() + down_ns).await;
        self.start(node, random).await;
    }

    /// Takes the power and the disk of a node, which has an empty one when it starts again. What it
    /// was told of the cluster may have left since: now it is told of those that are there.
    pub fn lose_disk(&self, node: usize) {
        self.cut_power(node);
        if !self.swarm.shape.is_alone() {
            let there = self.peers(self.places(true));
            *self.members[node].peers.borrow_mut() = Some(there);
        }
        self.simulation.replace_disk(self.host(node));
        self.checkers.replicas.borrow_mut().lost_disk(Self::id(node));
        self.simulation.executor().note(&format!("node {} has lost its disk", Self::id(node)));
    }

    /// A node's disk damages what was written, while the node runs, or between two of its lives;
    /// nothing happens where another loss is not made good yet.
    pub async fn damage(&self, node: usize, trouble: Trouble, random: &mut Random) {
        if !self.may_lose() {
            return;
        }
        if random.chance(MILLION / 2) {
            rot::strike(self, node, trouble, random).await;
            if self.checkers.rot.borrow().is_on(node) {
                // It may have started just now, and not have opened its logs.
                self.checkers.replicas.borrow_mut().starts_damaged(Self::id(node));
            }
            return;
        }
        self.is_losing.set(true);
        self.crash_now(node, Crash::Process, random).await;
        rot::strike(self, node, trouble, random).await;
        self.is_losing.set(false);
        self.start(node, random).await;
    }

    /// Whether all that was lost or damaged before is made good.
    fn may_lose(&self) -> bool {
        !self.is_losing.get() && losses::outstanding(self).is_none()
    }

    /// Ends nodes within the next polls of their tasks: in the middle of an instant, as a rule.
    async fn strike(&self, nodes: &[usize], how: Crash, random: &mut Random) {
        let executor = self.simulation.executor();
        let is_any_running = || nodes.iter().any(|node| self.is_running(*node));
        if !is_any_running() {
            return;
        }
        for &node in nodes {
            let (simulation, host) = (self.simulation.clone(), self.host(node));
            if let Some(process) = simulation.running(host) {
                let polls = random.mostly_small(1..=2_000);
                executor.after_polls(process, polls, move || simulation.kill(host, how));
            }
        }
        let given_up_ns = executor.now_ns() + random.mostly_small(1..=FUSE_NS_MAX);
        while is_any_running() && executor.now_ns() < given_up_ns {
            executor.sleep_until(executor.now_ns() + 100_000).await;
        }
        for &node in nodes {
            self.simulation.kill(self.host(node), how);
            self.members[node].node.borrow_mut().take();
        }
    }

    /// Stops a node in order, and starts it again.
    pub async fn restart(&self, node: usize, random: &mut Random) {
        self.stop(node, random).await;
        self.start(node, random).await;
    }

    /// Stops a node in order. A busy shard hears of it later than others.
    pub async fn stop(&self, node: usize, random: &mut Random) {
        let executor = self.simulation.executor();
        let running = self.members[node].node.borrow_mut().take();
        if let Some(running) = running {
            executor.note(&format!("node {} is told to stop", Self::id(node)));
            let is_alone = self.swarm.shape.is_alone();
            self.checkers.stopping.set(is_alone && self.swarm.troubles.is_empty());
            while running.stop_one(random) {
                let later_ns = random.mostly_small(1..=20_000_000);
                executor.sleep_until(executor.now_ns() + later_ns).await;
            }
            let limit_ns = executor.now_ns() + STOP_NS_MAX;
            while !running.has_stopped() {
                if executor.now_ns() > limit_ns {
                    violation("an orderly stop does not come to its end".to_owned());
                }
                executor.sleep_until(executor.now_ns() + 1_000_000).await;
            }
        }
        self.checkers.stopping.set(false);
        self.simulation.kill(self.host(node), Crash::Process);
    }
}
