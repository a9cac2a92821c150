//! A group of real nodes; their disks, of which a crash keeps what was flushed and by chance more;
//! and sessions between them, which lose what is under way when they end.

use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};

use vltava_protocol::types::Uuid;

use super::checks::Checks;
use crate::raft::history::{Base, History, Mark};
use crate::raft::membership::{Membership, ReplicaId};
use crate::raft::message::{Action, Input, Message};
use crate::raft::node::{Found, Node, Options, Role};
use crate::raft::position::Position;

/// What an index of a log holds. A batch has one record.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    Batch { id: u32, epoch: i32 },
    Mark(Mark),
}

/// What a disk holds, and what it would hold once all is flushed.
#[derive(Clone, Hash)]
pub struct Disk {
    pub epoch: i32,
    pub vote: Option<ReplicaId>,
    pub base: Base,
    pub log: Vec<Entry>,
    /// Of `log`, so many batches and so many marks are flushed.
    pub batches: usize,
    pub marks: usize,
    /// What stands before the base is being fetched.
    pub is_restoring: bool,
    /// Epoch and vote were lost.
    pub are_votes_lost: bool,
    /// The generation that is kept.
    pub generation: i32,
    /// Somebody else belongs to the group: epoch, vote and marks are kept.
    pub is_kept: bool,
    /// The log was lost, and this is noted.
    pub is_lost: bool,
    /// What was flushed of it then, from which index on.
    pub ghost: Option<(i64, Vec<Entry>)>,
}

impl Disk {
    pub fn base_index(&self) -> i64 {
        self.base.at.index()
    }

    pub fn end_index(&self) -> i64 {
        self.base_index() + self.log.len() as i64
    }

    pub fn entry(&self, index: i64) -> Option<&Entry> {
        self.log.get(usize::try_from(index - self.base_index()).ok()?)
    }

    fn count(&self) -> (usize, usize) {
        let marks = self.log.iter().filter(|entry| matches!(entry, Entry::Mark(_))).count();
        (self.log.len() - marks, marks)
    }

    /// The length of the longest beginning of the log with at most so many batches and marks.
    fn prefix(&self, batches: usize, marks: usize) -> usize {
        let mut left = (batches, marks);
        let fits = |entry: &&Entry| {
            let left = match entry {
                Entry::Batch { .. } => &mut left.0,
                Entry::Mark(_) => &mut left.1,
            };
            *left = left.wrapping_sub(1);
            *left != usize::MAX
        };
        self.log.iter().take_while(fits).count()
    }

    /// Below this index all is flushed.
    pub fn flushed(&self) -> i64 {
        match self.is_restoring {
            true => -1,
            false => self.base_index() + self.prefix(self.batches, self.marks) as i64,
        }
    }

    pub fn end_offset(&self) -> i64 {
        self.base.at.offset + self.count().0 as i64
    }

    /// Both are gone, the log and what is kept beside it.
    fn lose_all(&mut self, founders: Membership) {
        self.lose();
        (self.epoch, self.vote, self.generation) = (-1, None, -1);
        (self.are_votes_lost, self.is_restoring) = (true, false);
        self.base = Base { at: Position::ZERO, members: founders, log_start: 0 };
        self.log.clear();
        (self.batches, self.marks) = (0, 0);
    }

    /// The log is gone: what is kept beside it is noted as such, and stays.
    fn lose(&mut self) {
        let flushed = (self.flushed() - self.base_index()).max(0) as usize;
        if !self.is_lost {
            self.ghost = Some((self.base_index(), self.log[..flushed].to_vec()));
        }
        self.is_lost = true;
        self.is_restoring = self.base.at.offset > 0;
        let kept = if self.is_restoring { 0 } else { self.prefix(0, self.marks) };
        self.log.truncate(kept);
        (self.batches, self.marks) = self.count();
    }

    fn truncate(&mut self, index: i64) {
        self.log.truncate((index - self.base_index()) as usize);
        let (batches, marks) = self.count();
        (self.batches, self.marks) = (self.batches.min(batches), self.marks.min(marks));
    }

    /// The process is gone: what was flushed stays, and by chance more of what was written.
    /// Batches behind a mark are not written before it is flushed.
    fn crash(&mut self, mut more: impl FnMut(usize) -> usize) {
        let (batches, marks) = self.count();
        let marks = self.marks + more(marks - self.marks);
        let mut first_lost = None;
        let mut seen = 0;
        for (nth, entry) in self.log.iter().enumerate() {
            if let Entry::Mark(_) = entry {
                seen += 1;
                if seen > self.marks && first_lost.is_none() {
                    first_lost = Some(nth);
                }
            }
        }
        let written = first_lost.map_or(batches, |nth| {
            self.log[..nth].iter().filter(|entry| matches!(entry, Entry::Batch { .. })).count()
        });
        let batches = self.batches + more(written.max(self.batches) - self.batches);
        self.log.truncate(self.prefix(batches, marks));
        (self.batches, self.marks) = self.count();
    }

    fn found(&self, id: ReplicaId) -> Found {
        if !self.is_kept {
            let mut epochs: Vec<(i32, i64)> = Vec::new();
            if self.base.at.epoch >= 0 {
                epochs.push((self.base.at.epoch, self.base.at.offset));
            }
            let mut offset = self.base.at.offset;
            for entry in &self.log {
                let Entry::Batch { epoch, .. } = entry else { continue };
                if epochs.last().is_none_or(|last| last.0 < *epoch) {
                    epochs.push((*epoch, offset));
                }
                offset += 1;
            }
            return Found::alone(id, &epochs, offset);
        }
        let mut history = History::new(self.base.clone());
        for entry in &self.log {
            match entry {
                Entry::Batch { .. } => history.append_batches(1),
                Entry::Mark(mark) => drop(history.append_mark(mark.epoch, mark.what.clone()).index),
            }
        }
        // What was fetched before is not trusted.
        let end_offset = if self.is_restoring { 0 } else { history.end().offset };
        let Self { epoch, vote, is_lost, generation, .. } = *self;
        Found { epoch, vote, history, end_offset, is_lost, generation }
    }
}

#[derive(Clone, Hash)]
pub struct Replica {
    pub node: Option<Node>,
    pub disk: Disk,
    pub incarnation: u32,
}

/// What is under way from one node to another.
#[derive(Clone, Hash)]
pub enum Wire {
    Said { session: u32, generation: i32, message: Message, payload: Vec<Entry> },
    Up(u32),
    Down,
}

pub fn id(node: i32) -> ReplicaId {
    ReplicaId { node, disk: Uuid(100 + node as u128) }
}

pub fn ids(nodes: impl IntoIterator<Item = i32>) -> Vec<ReplicaId> {
    nodes.into_iter().map(id).collect()
}

#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % limit as u64) as usize
    }

    pub fn one_in(&mut self, limit: usize) -> bool {
        self.below(limit) == 0
    }
}

#[derive(Clone)]
pub struct World {
    pub replicas: Vec<Replica>,
    pub wires: BTreeMap<(i32, i32), VecDeque<Wire>>,
    /// The session with another, as a node knows it.
    sessions: BTreeMap<(i32, i32), u32>,
    cut: BTreeMap<(i32, i32), bool>,
    session: u32,
    pub now: u64,
    /// So many founded the group.
    voters: i32,
    pub checks: Checks,
    /// The newest generation, and who was named to begin it.
    pub generation: i32,
    pub named: i32,
    batches: u32,
    /// So many entries are sent at once where nothing is left to chance.
    pub sent_most: i64,
    /// Disks lose logs, too.
    pub loses_logs: bool,
    /// Leaders are named from outside.
    pub names_leaders: bool,
    /// Where chance decides; `None`: nothing is left to it.
    pub random: Option<Random>,
    options: Options,
}

impl World {
    /// So many nodes, of which the first `voters` are the group. Where that is one, it keeps
    /// nothing but its log.
    pub fn new(voters: i32, nodes: i32, options: Options, random: Option<Random>) -> Self {
        let disk = |node: i32| {
            let members = Membership::new(ids(0..voters), []);
            Disk {
                epoch: -1,
                vote: None,
                base: Base { at: Position::ZERO, members, log_start: 0 },
                log: Vec::new(),
                batches: 0,
                marks: 0,
                is_restoring: false,
                are_votes_lost: false,
                generation: -1,
                is_kept: voters > 1 || node >= voters,
                is_lost: false,
                ghost: None,
            }
        };
        let replica = |node| Replica { node: None, disk: disk(node), incarnation: 0 };
        let mut world = Self {
            replicas: (0..nodes).map(replica).collect(),
            wires: BTreeMap::new(),
            sessions: BTreeMap::new(),
            cut: BTreeMap::new(),
            session: 0,
            now: 0,
            voters,
            checks: Checks::default(),
            generation: -1,
            named: -1,
            batches: 0,
            sent_most: i64::MAX / 2,
            loses_logs: false,
            names_leaders: false,
            random,
            options,
        };
        for node in 0..nodes {
            world.start(node);
        }
        world
    }

    /// What of it the future depends on.
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (&self.replicas, &self.wires, &self.sessions, &self.cut).hash(&mut hasher);
        self.checks.hash(&mut hasher);
        hasher.finish()
    }

    pub fn nodes(&self) -> std::ops::Range<i32> {
        0..self.replicas.len() as i32
    }

    pub fn replica(&self, node: i32) -> &Replica {
        &self.replicas[node as usize]
    }

    fn replica_mut(&mut self, node: i32) -> &mut Replica {
        &mut self.replicas[node as usize]
    }

    pub fn node(&self, node: i32) -> Option<&Node> {
        self.replica(node).node.as_ref()
    }

    pub fn is_up(&self, node: i32) -> bool {
        self.node(node).is_some()
    }

    pub fn is_leader(&self, node: i32) -> bool {
        self.node(node).is_some_and(|node| node.role() == Role::Leader)
    }

    /// The leader of the newest epoch.
    pub fn leader(&self) -> Option<i32> {
        let leaders = self.nodes().filter(|node| self.is_leader(*node));
        leaders.max_by_key(|node| self.node(*node).unwrap().epoch())
    }

    fn chance(&mut self, limit: usize) -> usize {
        self.random.as_mut().map_or(0, |random| random.below(limit))
    }

    fn one_in(&mut self, limit: usize) -> bool {
        self.random.as_mut().is_some_and(|random| random.one_in(limit))
    }

    // Links.

    fn is_cut(&self, a: i32, b: i32) -> bool {
        self.cut.get(&(a.min(b), a.max(b))).copied().unwrap_or(false)
    }

    /// A link fails, or is there again.
    pub fn set_cut(&mut self, a: i32, b: i32, is_cut: bool) {
        if a == b || self.is_cut(a, b) == is_cut {
            return;
        }
        self.cut.insert((a.min(b), a.max(b)), is_cut);
        if is_cut {
            for (from, to) in [(a, b), (b, a)] {
                self.end_session(from, to);
            }
        } else {
            self.connect(a, b);
        }
    }

    /// A link fails for a moment.
    pub fn flap(&mut self, a: i32, b: i32) {
        if !self.is_cut(a, b) {
            self.set_cut(a, b, true);
            self.set_cut(a, b, false);
        }
    }

    fn connect(&mut self, a: i32, b: i32) {
        if self.is_up(a) && self.is_up(b) && !self.is_cut(a, b) {
            self.session += 1;
            for key in [(a, b), (b, a)] {
                self.wires.entry(key).or_default().push_back(Wire::Up(self.session));
            }
        }
    }

    /// Of what is under way the last part is lost, by chance; then the other end learns of it.
    fn end_session(&mut self, from: i32, to: i32) {
        let under_way = self.wires.get(&(from, to)).map_or(0, VecDeque::len);
        let lost = self.chance(under_way + 1);
        let wire = self.wires.entry((from, to)).or_default();
        wire.truncate(under_way - lost);
        if self.replicas[to as usize].node.is_some() {
            wire.push_back(Wire::Down);
        } else {
            self.wires.remove(&(from, to));
        }
    }

    /// Starts a node over what its disk holds.
    pub fn start(&mut self, node: i32) {
        self.open(node);
        for other in self.nodes().filter(|other| *other != node) {
            self.connect(node, other);
        }
    }

    /// A replica is opened anew, over what was flushed, in the sessions that its node has: it has
    /// changed its shard, and its log could not be closed in order.
    pub fn reopen(&mut self, node: i32) {
        if self.is_up(node) {
            self.step(node, Input::LogEnded);
            self.forget_unflushed(node);
            self.open(node);
            for other in self.nodes() {
                if self.sessions.contains_key(&(node, other)) {
                    self.step(node, Input::PeerUp(other));
                }
            }
        }
    }

    fn open(&mut self, node: i32) {
        let seed = (self.chance(usize::MAX) as u64) ^ (node as u64 + 1).wrapping_mul(1 << 40 | 77);
        let options = Options { rank: u32::try_from(node).unwrap(), ..self.options };
        let own = id(node);
        let others = ids(self.nodes());
        let replica = self.replica_mut(node);
        let found = replica.disk.found(own);
        if !replica.disk.is_kept {
            restart_alone(&mut replica.disk, &found);
            self.checks.forget();
        }
        let replica = self.replica_mut(node);
        replica.incarnation += 1;
        let mut raft = Node::new(own, options, seed, found);
        if replica.disk.are_votes_lost {
            raft.lose_votes(others);
        }
        replica.node = Some(raft);
        self.checks.started(node);
        let now = self.now;
        let actions = self.replica_mut(node).node.as_mut().unwrap().start(now);
        self.perform(node, actions, &[]);
    }

    fn forget_unflushed(&mut self, node: i32) {
        let mut random = self.random.take();
        let replica = self.replica_mut(node);
        replica.node = None;
        replica.disk.crash(|limit| random.as_mut().map_or(0, |random| random.below(limit + 1)));
        self.random = random;
    }

    pub fn crash(&mut self, node: i32) {
        self.forget_unflushed(node);
        for other in self.nodes().filter(|other| *other != node) {
            self.end_session(node, other);
            self.wires.remove(&(other, node));
            self.sessions.remove(&(node, other));
        }
    }

    /// The disk of a node that is down loses the group's log.
    pub fn lose_log(&mut self, node: i32) {
        // Of several at once, mostly nobody is elected any more.
        let is_first = self.replicas.iter().all(|replica| !replica.disk.is_lost);
        let may_lose = self.loses_logs && (is_first || self.one_in(8));
        let founders = Membership::new(ids(0..self.voters), []);
        let is_all = self.one_in(3);
        let replica = self.replica_mut(node);
        if may_lose && replica.node.is_none() && replica.disk.is_kept {
            match is_all {
                true => replica.disk.lose_all(founders),
                false => replica.disk.lose(),
            }
        }
    }

    /// A node goes down, and comes back without anything of the group's, its vote included.
    pub fn crash_and_lose_all(&mut self, node: i32) {
        self.crash(node);
        let founders = Membership::new(ids(0..self.voters), []);
        self.replica_mut(node).disk.lose_all(founders);
        self.start(node);
    }

    /// A node that is up goes down, and comes back without the group's log.
    pub fn crash_and_lose(&mut self, node: i32) {
        if self.loses_logs && self.is_up(node) {
            self.crash(node);
            self.lose_log(node);
            self.start(node);
        }
    }

    // Inputs.

    pub fn step(&mut self, node: i32, input: Input) {
        self.step_with(node, input, &[]);
    }

    fn step_with(&mut self, node: i32, input: Input, payload: &[Entry]) {
        let now = self.now;
        let Some(raft) = self.replica_mut(node).node.as_mut() else { return };
        let asks = match &input {
            Input::Received { message: Message::Vote { log_end, .. }, .. } => Some(*log_end),
            _ => None,
        };
        let actions: Vec<Action> = raft.step(now, input).into_iter().collect();
        let is_granted = |action: &Action| {
            matches!(
                action,
                Action::Send { message: Message::VoteReply { is_granted: true, .. }, .. }
            )
        };
        if let Some(log_end) = asks.filter(|_| actions.iter().any(is_granted)) {
            self.checks.voted(self.replicas[node as usize].node.as_ref().unwrap(), log_end);
        }
        self.perform(node, actions, payload);
    }

    /// Time goes on until this node's deadline, and no other's is met in time.
    pub fn deadline(&mut self, node: i32) {
        if let Some(deadline) = self.node(node).and_then(Node::deadline) {
            self.now = self.now.max(deadline);
            self.step(node, Input::Deadline);
        }
    }

    /// A client writes to whoever believes to lead here.
    pub fn append(&mut self, node: i32) {
        if self.node(node).is_some_and(Node::takes_writes) {
            let epoch = self.node(node).unwrap().epoch();
            self.batches += 1;
            let entry = Entry::Batch { id: self.batches, epoch };
            self.replica_mut(node).disk.log.push(entry);
            self.step(node, Input::Appended { offsets: 1 });
        }
    }

    /// So many more batches and marks are flushed, or what there is.
    pub fn flush(&mut self, node: i32, batches: usize, marks: usize) {
        let Some(is_fetching) = self.node(node).map(|node| node.is_restoring) else { return };
        let disk = &mut self.replica_mut(node).disk;
        if disk.is_restoring && !is_fetching {
            return;
        }
        let (all, all_marks) = disk.count();
        disk.marks = (disk.marks + marks).min(all_marks);
        // Batches behind a mark are not written before it is flushed.
        let before = &disk.log[..disk.prefix(usize::MAX, disk.marks)];
        let written = before.iter().filter(|entry| matches!(entry, Entry::Batch { .. })).count();
        disk.batches = (disk.batches + batches).min(all).min(written.max(disk.batches));
        disk.is_restoring = false;
        let marks = disk.base.at.marks + disk.marks as i64;
        let end_offset = disk.base.at.offset + disk.batches as i64;
        self.checks.flushed(&self.replicas[node as usize].disk);
        self.step(node, Input::MarksFlushed { marks });
        self.step(node, Input::Flushed { end_offset });
    }

    pub fn flush_all(&mut self, node: i32) {
        self.flush(node, 1000, 1000);
    }

    /// The disk is full: what is not flushed is taken back; or only the last of it, which was
    /// refused while the rest is being written.
    pub fn take_back(&mut self, node: i32) {
        if !self.is_up(node) || self.replica(node).disk.is_restoring {
            return;
        }
        let disk = &self.replica(node).disk;
        let unflushed = disk.count().0 - disk.batches;
        let waiting = self.chance(unflushed + 1);
        let disk = &mut self.replica_mut(node).disk;
        let kept = disk.prefix(disk.batches + waiting, usize::MAX) as i64;
        disk.truncate(disk.base_index() + kept);
        let end_offset = disk.end_offset();
        self.checks.taken_back(node);
        self.step(node, Input::TakenBack { end_offset });
    }

    pub fn hand_over(&mut self, from: i32, to: i32) {
        let now = self.now;
        let Some(node) = self.replica_mut(from).node.as_mut() else { return };
        if let Ok(actions) = node.hand_over(now, id(to)) {
            self.perform(from, actions, &[]);
        }
    }

    pub fn change(&mut self, node: i32, next: &Membership) -> bool {
        let now = self.now;
        let Some(raft) = self.replica_mut(node).node.as_mut() else { return false };
        let changed = raft.change_members(now, next);
        let Ok(actions) = changed else { return false };
        self.checks.changed(self.replicas[node as usize].node.as_ref().unwrap());
        let (epoch, own) = (self.node(node).unwrap().epoch(), id(node));
        let disk = &mut self.replica_mut(node).disk;
        (disk.epoch, disk.vote, disk.is_kept) = (epoch, Some(own), true);
        self.perform(node, actions, &[]);
        true
    }

    /// A leader is named from outside: of those that are up and can, the one that has most. Only it
    /// hears of it; who is told later: [`World::tell`].
    pub fn name_leader(&mut self) -> Option<i32> {
        let can = |node: &i32| self.node(*node).is_some_and(Node::can_be_named);
        let end = |node: &i32| {
            let (raft, disk) = (self.node(*node).unwrap(), &self.replica(*node).disk);
            let end = raft.history().at(raft.flushed()).unwrap();
            (end.epoch, disk.flushed())
        };
        let node = self.nodes().filter(can).max_by_key(end)?;
        let epochs = self.replicas.iter().map(|it| {
            let known = it.node.as_ref().map_or(-1, |node| node.epoch());
            known.max(it.disk.epoch).max(it.disk.generation)
        });
        let generation = epochs.max().unwrap_or(0).max(self.generation) + 1000;
        (self.generation, self.named) = (generation, node);
        self.tell(node);
        Some(node)
    }

    /// A node hears who was named the last time.
    pub fn tell(&mut self, node: i32) {
        let (now, generation, named) = (self.now, self.generation, self.named);
        let learners: Vec<i32> = self.nodes().filter(|other| *other != node).collect();
        let former = self.node(node).map(Node::generation);
        let log_epoch = self.node(node).map_or(-1, |raft| raft.history().end().epoch);
        let Some(raft) = self.replica_mut(node).node.as_mut() else { return };
        let actions: Vec<Action> = match named == node {
            true => raft.force(now, generation, ids(learners)),
            false => raft.enter(now, generation),
        }
        .into_iter()
        .collect();
        let is_void = raft.role() != Role::Leader;
        if former.is_some_and(|former| former < raft.generation()) {
            self.checks.taken_back(node);
            self.checks.enters(&self.replicas, node, log_epoch, is_void);
        }
        self.perform(node, actions, &[]);
    }

    pub fn move_log_start(&mut self, node: i32, offset: i64) {
        let now = self.now;
        let Some(raft) = self.replica_mut(node).node.as_mut() else { return };
        if let Ok(actions) = raft.move_log_start(now, offset) {
            self.perform(node, actions, &[]);
        }
    }

    /// What is committed and on this disk goes into the base.
    pub fn compact(&mut self, node: i32) {
        let replica = self.replica_mut(node);
        let Some(raft) = replica.node.as_mut().filter(|_| !replica.disk.is_restoring) else {
            return;
        };
        raft.compact(raft.committed().min(replica.disk.flushed()));
        self.follow_base(node);
    }

    /// The disk's base is the node's.
    fn follow_base(&mut self, node: i32) {
        let replica = self.replica_mut(node);
        let Some(base) = replica.node.as_ref().map(|node| node.history().base().clone()) else {
            return;
        };
        let disk = &mut replica.disk;
        let gone = (base.at.index() - disk.base_index()) as usize;
        let marks = (base.at.marks - disk.base.at.marks) as usize;
        disk.log.drain(..gone);
        disk.marks -= marks;
        disk.batches -= gone - marks;
        disk.base = base;
    }

    // What nodes ask for.

    fn perform(&mut self, node: i32, actions: impl IntoIterator<Item = Action>, payload: &[Entry]) {
        let incarnation = self.replica(node).incarnation;
        for action in actions {
            if !self.is_up(node) || self.replica(node).incarnation != incarnation {
                return;
            }
            self.perform_one(node, action, payload);
        }
        if self.is_up(node) && self.replica(node).incarnation == incarnation {
            self.follow_base(node);
            self.checks.check(&self.replicas, node);
        }
    }

    fn perform_one(&mut self, node: i32, action: Action, payload: &[Entry]) {
        match action {
            Action::Persist { generation: -1, .. } if !self.replica(node).disk.is_kept => {}
            Action::Persist { epoch, vote, generation, are_votes_lost } => {
                self.checks.persisted(&self.replica(node).disk, epoch, vote);
                if self.one_in(60) {
                    return self.crash(node);
                }
                let disk = &mut self.replica_mut(node).disk;
                (disk.epoch, disk.vote, disk.generation) = (epoch, vote, generation);
                (disk.is_kept, disk.are_votes_lost) = (true, are_votes_lost);
            }
            Action::Send { to, message } => {
                self.checks.said(&self.replicas, node, to, &message);
                let is_vote =
                    matches!(message, Message::VoteReply { is_pre: false, is_granted: true, .. });
                self.post(node, to.node, message, Vec::new());
                if is_vote && self.one_in(6) {
                    self.crash(node);
                    self.start(node);
                }
            }
            Action::Replicate { to } => self.replicate(node, to.node),
            Action::WriteMark(mark) => {
                let disk = &mut self.replica_mut(node).disk;
                assert_eq!(mark.index, disk.end_index());
                disk.log.push(Entry::Mark(mark));
                if !disk.is_kept {
                    disk.marks += 1;
                    let marks = disk.base.at.marks + disk.marks as i64;
                    self.step(node, Input::MarksFlushed { marks });
                }
            }
            Action::Truncate { to } => self.replica_mut(node).disk.truncate(to.index()),
            Action::Write(run) => {
                let disk = &mut self.replica_mut(node).disk;
                assert_eq!(run.from.index(), disk.end_index());
                let new = (run.end.index() - disk.end_index()) as usize;
                disk.log.extend_from_slice(&payload[payload.len() - new..]);
                assert_eq!(run.end.index(), disk.end_index());
            }
            Action::Restore { .. } => {
                let replica = self.replica_mut(node);
                let node = replica.node.as_ref().unwrap();
                // Now, or again after a restart.
                replica.disk.base = node.history().base().clone();
                replica.disk.log.clear();
                (replica.disk.batches, replica.disk.marks) = (0, 0);
                // Where only marks were missing nothing is to be fetched.
                replica.disk.is_restoring = node.is_restoring;
                self.checks.snapshots += 1;
            }
            Action::HighWatermark { offset } => self.checks.shown(&self.replicas, node, offset),
            Action::RoleChanged => {}
            Action::Regained => {
                if self.one_in(4) {
                    return self.crash(node);
                }
                let disk = &mut self.replica_mut(node).disk;
                (disk.is_lost, disk.ghost) = (false, None);
                self.checks.regained += 1;
            }
            Action::Contradiction { index } => panic!("{node} finds a contradiction at {index}"),
        }
    }

    /// Sends a member what it lacks: all, or by chance the next few entries.
    fn replicate(&mut self, node: i32, to: i32) {
        let by_chance = 1 + self.chance(4) as i64;
        let most = if self.random.is_some() { by_chance } else { self.sent_most };
        let replica = self.replica_mut(node);
        let Some(raft) = replica.node.as_mut() else { return };
        let Some(next) = raft.next_for(&id(to)) else { return };
        let until = (next.max(0) + most).min(raft.history().end().index());
        let Some(message) = raft.append_for(id(to), until) else { return };
        let more = raft.next_for(&id(to)).is_some_and(|next| next < raft.history().end().index());
        let payload = match &message {
            Message::Append { run, .. } => {
                let indexes = run.from.index()..run.end.index();
                indexes.map(|index| replica.disk.entry(index).unwrap().clone()).collect()
            }
            _ => Vec::new(),
        };
        self.checks.sent(&message, &payload);
        self.post(node, to, message, payload);
        if more && self.one_in(2) {
            self.replicate(node, to);
        }
    }

    fn post(&mut self, from: i32, to: i32, message: Message, payload: Vec<Entry>) {
        let session = self.sessions.get(&(from, to)).copied();
        if let Some(session) = session.filter(|_| self.is_up(to) && !self.is_cut(from, to)) {
            let generation = self.node(from).map_or(-1, Node::generation);
            let said = Wire::Said { session, generation, message, payload };
            self.wires.entry((from, to)).or_default().push_back(said);
        }
    }

    /// Takes the next that is under way from one node to another.
    pub fn deliver(&mut self, from: i32, to: i32) {
        self.deliver_nth(from, to, 0, false);
    }

    /// Takes all that is under way from one node to another.
    pub fn deliver_all(&mut self, from: i32, to: i32) {
        while self.wires.contains_key(&(from, to)) {
            self.deliver(from, to);
        }
    }

    /// What is under way from one node to another comes to nobody, and the session goes on: the
    /// group was not there yet.
    pub fn lose(&mut self, from: i32, to: i32) {
        self.wires.remove(&(from, to));
    }

    /// Time goes on, and one node looks whether its deadline has come.
    pub fn wait(&mut self, node: i32, ms: u64) {
        self.now += ms;
        self.step(node, Input::Deadline);
    }

    /// Takes one that is under way, out of its order; or does so and leaves it there.
    pub fn deliver_nth(&mut self, from: i32, to: i32, nth: usize, is_doubled: bool) {
        let Some(wire) = self.wires.get_mut(&(from, to)) else { return };
        let Some(next) = (if is_doubled { wire.get(nth).cloned() } else { wire.remove(nth) })
        else {
            return;
        };
        if wire.is_empty() {
            self.wires.remove(&(from, to));
        }
        match next {
            Wire::Up(session) => {
                self.sessions.insert((to, from), session);
                self.step(to, Input::PeerUp(from));
            }
            Wire::Down => {
                self.sessions.remove(&(to, from));
                self.step(to, Input::PeerDown(from));
            }
            Wire::Said { session, generation, message, payload } => {
                let is_heard = self.node(to).is_some_and(|node| node.hears(generation));
                if is_heard && self.sessions.get(&(to, from)) == Some(&session) {
                    self.step_with(to, Input::Received { from: id(from), message }, &payload);
                }
            }
        }
    }

    /// Delivers and flushes until nothing is under way.
    pub fn calm(&mut self) {
        for _ in 0..10_000 {
            for node in self.nodes() {
                self.flush_all(node);
            }
            let Some((from, to)) = self.wires.keys().next().copied() else { return };
            self.deliver(from, to);
        }
        panic!("there is no end to it");
    }
}

/// A group of one takes its log as the only thing it has: marks are counted anew.
fn restart_alone(disk: &mut Disk, found: &Found) {
    let batches: Vec<Entry> =
        disk.log.iter().filter(|entry| matches!(entry, Entry::Batch { .. })).cloned().collect();
    let mut batches = batches.into_iter();
    let history = &found.history;
    let mut log = Vec::new();
    for index in history.base().at.index()..history.end().index() {
        let mark = history.marks().iter().find(|mark| mark.index == index);
        log.extend(mark.map_or_else(|| batches.next(), |mark| Some(Entry::Mark(mark.clone()))));
    }
    assert!(batches.next().is_none());
    (disk.base, disk.log) = (history.base().clone(), log);
    (disk.batches, disk.marks) = disk.count();
}
