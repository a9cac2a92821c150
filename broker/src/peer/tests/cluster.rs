//! Nodes on the simulated network, each with a log of what it was told.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::types::Uuid;

use super::{records, said};
use crate::metadata::image::PartitionId;
use crate::peer::SessionId;
use crate::peer::events::PeerEvents;
use crate::peer::greeting::{Introduction, Refusal};
use crate::peer::message::GroupMessage;
use crate::peer::options::Options;
use crate::peer::peers::Peers;
use crate::peer::tests::nothing;
use crate::raft::message::Message;
use crate::runtime::jobs::Jobs;
use crate::runtime::mesh::mesh;
use crate::runtime::sim::{HostId, SimRuntime, Simulation, SimulationOptions};
use crate::runtime::{Network, Queue, Runtime};

pub(super) const MS: u64 = 1_000_000;
pub(super) const PORT: u16 = 9192;

/// What a node was told, and when (simulated time, in nanoseconds).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Up {
        shard: usize,
        session: SessionId,
    },
    Down {
        shard: usize,
        session: SessionId,
    },
    /// The message's number, by the sender's count, and its payload's length.
    Said {
        shard: usize,
        session: SessionId,
        group: i32,
        number: i64,
        payload: usize,
    },
}

/// Who is admitted.
type Admits = Rc<dyn Fn(&Introduction) -> Result<(), Refusal>>;

/// What all lives of a node have in common.
pub(super) struct Diary {
    pub(super) told: RefCell<Vec<(u64, Told)>>,
    /// What it says of who asks to be admitted.
    pub(super) admits: RefCell<Admits>,
    /// While this is true, what it received is not done.
    pub(super) holds: Cell<bool>,
    pub(super) asked: RefCell<BTreeMap<u16, u32>>,
}

pub(super) struct Scribe {
    shard: usize,
    shards: usize,
    simulation: Simulation,
    runtime: SimRuntime,
    diary: Rc<Diary>,
}

impl Scribe {
    fn note(&self, told: Told) {
        let now = self.simulation.executor().now_ns();
        self.diary.told.borrow_mut().push((now, told));
    }
}

impl PeerEvents for Scribe {
    fn admit(&self, introduction: &Introduction) -> Result<(), Refusal> {
        let admits = Rc::clone(&self.diary.admits.borrow());
        admits(introduction)
    }

    async fn peer_up(&self, session: SessionId, introduction: &Arc<Introduction>) {
        assert_eq!(session.node, introduction.node_id);
        self.note(Told::Up { shard: self.shard, session });
    }

    async fn peer_down(&self, session: SessionId) {
        self.note(Told::Down { shard: self.shard, session });
    }

    fn shard_of(&self, group: PartitionId) -> usize {
        group.index as usize % self.shards
    }

    async fn received(&self, from: SessionId, messages: Vec<GroupMessage>) {
        for message in messages {
            let number = match message.body {
                Message::Flushed { index, .. } => index,
                Message::Append { committed, .. } => committed,
                _ => -1,
            };
            let payload = message.payload.to_bytes().expect("in memory");
            assert!(payload.iter().all(|byte| *byte == number as u8), "another's payload");
            let (group, payload) = (message.group.index, payload.len());
            assert_eq!(self.shard_of(message.group), self.shard, "on another's shard");
            let shard = self.shard;
            self.note(Told::Said { shard, session: from, group, number, payload });
        }
        while self.diary.holds.get() {
            self.runtime.sleep_until(self.runtime.now().after(Duration::from_millis(5))).await;
        }
    }

    async fn requested(&self, from: SessionId, kind: u16, body: Bytes) -> Bytes {
        *self.diary.asked.borrow_mut().entry(kind).or_default() += 1;
        let wait = Duration::from_millis(u64::from(kind));
        self.runtime.sleep_until(self.runtime.now().after(wait)).await;
        let reversed: Vec<u8> = body.iter().rev().copied().collect();
        [&[from.node as u8], &reversed[..]].concat().into()
    }
}

/// One life of a node: a part for each shard.
pub(super) type Life = Vec<Rc<Peers<SimRuntime, Scribe>>>;

pub(super) struct TestNode {
    pub(super) id: i32,
    pub(super) host: HostId,
    pub(super) shards: usize,
    pub(super) disk: Uuid,
    pub(super) cluster: Option<Uuid>,
    pub(super) protocol: (u16, u16),
    pub(super) starts: u64,
    pub(super) options: Options,
    pub(super) diary: Rc<Diary>,
    pub(super) life: Life,
}

/// Nodes 1, 2, ... in one simulation, by index from 0.
pub(super) struct Cluster {
    pub(super) simulation: Simulation,
    pub(super) nodes: Vec<TestNode>,
}

impl Cluster {
    /// Nodes with so many shards each, not started.
    pub(super) fn new(options: SimulationOptions, shards: &[usize]) -> Self {
        let simulation = Simulation::new(options);
        let node = |(index, shards): (usize, &usize)| TestNode {
            id: index as i32 + 1,
            host: simulation.add_host(),
            shards: *shards,
            disk: Uuid(1000 + index as u128),
            cluster: Some(Uuid(5)),
            protocol: (1, 1),
            starts: 0,
            options: Options::default(),
            diary: Rc::new(Diary {
                told: RefCell::default(),
                admits: RefCell::new(Rc::new(|_| Ok(()))),
                holds: Cell::new(false),
                asked: RefCell::default(),
            }),
            life: Vec::new(),
        };
        let nodes = shards.iter().enumerate().map(node).collect();
        Self { simulation, nodes }
    }

    pub(super) fn now(&self) -> u64 {
        self.simulation.executor().now_ns()
    }

    pub(super) async fn sleep_ms(&self, ms: u64) {
        let executor = self.simulation.executor();
        executor.sleep_until(executor.now_ns() + ms * MS).await;
    }

    pub(super) fn address(&self, index: usize) -> SocketAddr {
        SocketAddr::new(self.simulation.address(self.nodes[index].host), PORT)
    }

    /// Starts a node that knows of all others.
    pub(super) async fn start(&mut self, index: usize) {
        let simulation = self.simulation.clone();
        let addresses: Vec<_> = (0..self.nodes.len()).map(|at| self.address(at)).collect();
        let node = &mut self.nodes[index];
        simulation.settled(node.host).await;
        node.starts += 1;
        let introduction = Arc::new(Introduction {
            protocol: node.protocol,
            feature_level: 1,
            cluster_id: node.cluster,
            node_id: node.id,
            disk_id: node.disk,
            start: 100 * node.starts,
            shards: node.shards as u16,
            software: "test".into(),
            rack: None,
            endpoints: Vec::new(),
        });
        let runtimes = simulation.start(node.host, node.shards);
        let ports = mesh(node.shards, 4);
        node.life.clear();
        for (runtime, port) in runtimes.into_iter().zip(ports) {
            let scribe = Scribe {
                shard: port.shard(),
                shards: node.shards,
                simulation: simulation.clone(),
                runtime: runtime.clone(),
                diary: Rc::clone(&node.diary),
            };
            let jobs = Jobs::new(port);
            let peers = Peers::new(
                runtime.clone(),
                Rc::clone(&jobs),
                scribe,
                Arc::clone(&introduction),
                node.options,
            );
            runtime.spawn(Queue::Foreground, jobs.serve(runtime.clone(), Rc::clone(&peers)));
            let any = SocketAddr::from(([0, 0, 0, 0], PORT));
            let listener = runtime.network().listen(any).await.unwrap();
            runtime.spawn(Queue::Foreground, Rc::clone(&peers).accept(listener));
            node.life.push(peers);
        }
        for (id, address) in (1..).zip(addresses) {
            if id != node.id {
                node.life[0].know(id, address);
            }
        }
    }

    /// Kills a node's process; the power, too, where `how` says so.
    pub(super) fn kill(&mut self, index: usize, how: crate::runtime::sim::Crash) {
        self.simulation.kill(self.nodes[index].host, how);
        self.nodes[index].life.clear();
    }

    pub(super) fn shard(&self, index: usize, shard: usize) -> &Rc<Peers<SimRuntime, Scribe>> {
        &self.nodes[index].life[shard]
    }

    /// Whether all shards of a node have a session with another.
    pub(super) fn is_up(&self, from: usize, to: usize) -> bool {
        let id = self.nodes[to].id;
        let life = &self.nodes[from].life;
        !life.is_empty() && life.iter().all(|peers| peers.session(id).is_some())
    }

    /// Waits until every pair is up; panics where that takes too long.
    pub(super) async fn all_up(&self, ms: u64) {
        let until = self.now() + ms * MS;
        let pairs = || {
            let all = 0..self.nodes.len();
            all.clone().flat_map(move |from| all.clone().map(move |to| (from, to)))
        };
        while !pairs().filter(|(from, to)| from != to).all(|(from, to)| self.is_up(from, to)) {
            assert!(self.now() < until, "not all up in {ms} ms");
            self.sleep_ms(1).await;
        }
    }

    /// Waits for something; panics where it takes too long. How long it took, in ms.
    pub(super) async fn until(&self, ms: u64, holds: impl Fn(&Self) -> bool) -> u64 {
        let begin = self.now();
        while !holds(self) {
            assert!(self.now() < begin + ms * MS, "not in {ms} ms");
            self.sleep_ms(1).await;
        }
        (self.now() - begin) / MS
    }

    /// What a node was told of messages: group, number.
    pub(super) fn said_to(&self, index: usize) -> Vec<(i32, i64)> {
        let told = self.nodes[index].diary.told.borrow();
        told.iter()
            .filter_map(|(_, told)| match told {
                Told::Said { group, number, .. } => Some((*group, *number)),
                _ => None,
            })
            .collect()
    }

    /// How often a node was told of an end of a session.
    pub(super) fn downs(&self, index: usize) -> usize {
        let told = self.nodes[index].diary.told.borrow();
        told.iter().filter(|(_, told)| matches!(told, Told::Down { .. })).count()
    }
}

/// Small: goes before payload.
pub(super) fn small(group: i32, number: i64) -> GroupMessage {
    said(group, Message::Flushed { epoch: 1, index: number })
}

/// With so many bytes of payload.
pub(super) fn large(group: i32, number: i64, payload: usize) -> GroupMessage {
    let body = Message::Append { epoch: 1, run: nothing(), committed: number, high_watermark: 0 };
    GroupMessage { payload: records(vec![number as u8; payload]), ..said(group, body) }
}

/// Runs a story to its end.
pub(super) fn tell<F: Future<Output = ()> + 'static>(
    options: SimulationOptions,
    shards: &[usize],
    story: impl FnOnce(Cluster) -> F,
) -> u64 {
    let cluster = Cluster::new(options, shards);
    let simulation = cluster.simulation.clone();
    simulation.executor().run(600_000 * MS, story(cluster)).expect("ends");
    let hash = simulation.executor().trace_hash();
    simulation.close();
    hash
}

/// A promise kept in every run: on each shard sessions begin and end in turn, with rising numbers,
/// nothing comes outside of one, and of each group a session brings a part of what was said that
/// has no holes.
pub(super) fn check_diary(node: &TestNode) {
    let told = node.diary.told.borrow();
    let mut up: BTreeMap<(usize, i32), u64> = BTreeMap::new();
    let mut latest: BTreeMap<(usize, i32), u64> = BTreeMap::new();
    let mut numbers: BTreeMap<(i32, SessionId), i64> = BTreeMap::new();
    for (at, told) in told.iter() {
        match told {
            Told::Up { shard, session: SessionId { node, number } } => {
                let key = (*shard, *node);
                assert!(up.insert(key, *number).is_none(), "{at}: up twice");
                let before = latest.insert(key, *number);
                assert!(before.is_none_or(|before| before < *number), "{at}: {before:?} {number}");
            }
            Told::Down { shard, session: SessionId { node, number } } => {
                assert_eq!(up.remove(&(*shard, *node)), Some(*number), "{at}: down");
            }
            Told::Said { shard, session, group, number, .. } => {
                let SessionId { node, number: current } = session;
                assert_eq!(up.get(&(*shard, *node)), Some(current), "{at}: of no session");
                let last = numbers.insert((*group, *session), *number);
                assert!(last.is_none_or(|last| last + 1 == *number), "{at}: {last:?} {number}");
            }
        }
    }
}
