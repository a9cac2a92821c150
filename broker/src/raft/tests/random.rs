//! Chance: what happens when, what is lost, who crashes. Two mixes: everything at once, and rounds
//! in which some nodes see each other and one of them has a short life as leader, which is how
//! entries come to stand on few disks in many epochs (Ongaro, figure 3.7).

use super::world::{Random, Wire, World, id};
use crate::raft::membership::{Membership, ReplicaId};
use crate::raft::message::Input;
use crate::raft::node::{Node, Options};

/// Each of these many seeds is run in each mix. `scripts/mutations` counts on these finding each
/// fault of raft's.
const SEEDS: u64 = 300;
const EVENTS: usize = 700;
const ROUNDS: usize = 40;

/// Voters at the start, other nodes, `min.insync.replicas`.
const GROUPS: &[(i32, i32, usize)] =
    &[(3, 0, 1), (3, 2, 1), (5, 0, 1), (1, 2, 1), (2, 1, 2), (4, 1, 3), (3, 0, 3), (1, 0, 1)];

impl World {
    fn draw(&mut self, limit: usize) -> usize {
        self.random.as_mut().unwrap().below(limit)
    }

    fn any_node(&mut self) -> i32 {
        let nodes = self.replicas.len();
        self.draw(nodes) as i32
    }

    fn some_members(&mut self) -> Membership {
        let (mut voters, mut learners) = (Vec::new(), Vec::new());
        for node in self.nodes() {
            match self.draw(4) {
                0 => {}
                1 => learners.push(id(node)),
                _ => voters.push(id(node)),
            }
        }
        Membership::new(voters, learners)
    }

    /// Something that is under way arrives, or is lost, doubled, or overtaken within its session.
    fn deliver_some(&mut self, among: &[i32], is_chaotic: bool) {
        let is_among = |key: &&(i32, i32)| among.contains(&key.0) && among.contains(&key.1);
        let keys: Vec<_> = self.wires.keys().filter(is_among).copied().collect();
        if keys.is_empty() {
            return;
        }
        let (from, to) = keys[self.draw(keys.len())];
        let said = |wire: &&Wire| matches!(wire, Wire::Said { .. });
        let said = self.wires[&(from, to)].iter().take_while(said).count();
        if !is_chaotic || said == 0 {
            return self.deliver(from, to);
        }
        let nth = self.draw(said);
        match self.draw(10) {
            0 => drop(self.wires.get_mut(&(from, to)).unwrap().remove(nth)),
            1 => self.deliver_nth(from, to, nth, true),
            _ => self.deliver_nth(from, to, nth, false),
        }
        self.wires.retain(|_, wire| !wire.is_empty());
    }

    fn event(&mut self, is_chaotic: bool) {
        let (one, two) = (self.any_node(), self.any_node());
        let nodes: Vec<i32> = self.nodes().collect();
        match self.draw(100) {
            0..=39 => self.deliver_some(&nodes, is_chaotic),
            40..=54 => {
                let (batches, marks) = (self.draw(3), self.draw(3));
                self.flush(one, batches, marks);
            }
            55..=58 => self.deadline(one),
            59..=64 => {
                let time = 1 + self.draw(150) as u64;
                self.pass(time);
            }
            65..=79 => {
                let leader = if self.draw(3) == 0 { Some(one) } else { self.leader() };
                leader.into_iter().for_each(|leader| self.append(leader));
            }
            80..=81 if self.is_up(one) => self.crash(one),
            82 => self.reopen(one),
            83..=89 if !self.is_up(one) => {
                if self.draw(2) == 0 {
                    self.lose_log(one);
                }
                self.start(one);
            }
            90..=91 => {
                let is_cut = self.draw(2) == 0;
                self.set_cut(one, two, is_cut);
            }
            92 => self.flap(one, two),
            93 => {
                let leader = self.leader().unwrap_or(one);
                self.hand_over(leader, two);
            }
            94..=95 => {
                let (next, leader) = (self.some_members(), self.leader().unwrap_or(one));
                self.change(leader, &next);
            }
            96 => self.compact(one),
            97 => self.take_back(one),
            98 => self.name_or_tell(one),
            _ => self.flush_all(one),
        }
    }

    /// A leader is named, where some are down; or a node hears who was.
    fn name_or_tell(&mut self, node: i32) {
        if !self.names_leaders {
            return self.take_back(node);
        }
        let is_any_down = self.nodes().any(|node| !self.is_up(node));
        if is_any_down && self.draw(3) == 0 {
            self.name_leader();
        } else {
            self.tell(node);
        }
    }

    /// Time goes on, and all deadlines are met.
    fn pass(&mut self, time: u64) {
        self.now += time;
        for node in self.nodes() {
            if self.node(node).and_then(Node::deadline).is_some_and(|at| at <= self.now) {
                self.step(node, Input::Deadline);
            }
        }
    }

    /// Some nodes see each other, one of them asks to lead, and something of what it does arrives.
    fn round(&mut self, is_chaotic: bool) {
        let nodes: Vec<i32> = self.nodes().collect();
        let candidate = self.any_node();
        let among: Vec<i32> =
            nodes.iter().copied().filter(|node| *node == candidate || self.draw(2) == 0).collect();
        for a in &nodes {
            if among.contains(a) && !self.is_up(*a) && self.draw(4) > 0 {
                self.start(*a);
            }
            for b in nodes.iter().filter(|b| *b > a) {
                let is_cut = !(among.contains(a) && among.contains(b));
                self.set_cut(*a, *b, is_cut);
            }
        }
        for _ in 0..self.draw(12) {
            self.deliver_some(&nodes, is_chaotic);
        }
        self.deadline(candidate);
        let busy = self.draw(50);
        for _ in 0..busy {
            match self.draw(12) {
                0..=7 => self.deliver_some(&among, is_chaotic),
                8..=9 => {
                    let nth = self.draw(among.len());
                    self.flush_all(among[nth]);
                }
                10 => self.append(candidate),
                _ => self.event_of_round(candidate),
            }
        }
        if self.draw(2) == 0 && self.is_up(candidate) {
            self.crash(candidate);
        }
    }

    fn event_of_round(&mut self, candidate: i32) {
        match self.draw(8) {
            7 => {
                let other = self.any_node();
                self.reopen(other);
            }
            6 => {
                let other = self.any_node();
                self.crash_and_lose(other);
            }
            0..=1 => {
                let next = self.some_members();
                self.change(candidate, &next);
            }
            2 => self.name_or_tell(candidate),
            3 => self.compact(candidate),
            4 => self.deadline(candidate),
            _ => {
                let to = self.any_node();
                self.hand_over(candidate, to);
            }
        }
    }

    /// No more faults: all finish. What was lost within a session is not asked for again by
    /// anybody: where that was done, all sessions end.
    fn settle(&mut self, is_chaotic: bool) {
        self.random = None;
        for a in self.nodes() {
            if !self.is_up(a) {
                self.start(a);
            }
            for b in a + 1..self.replicas.len() as i32 {
                if is_chaotic {
                    self.set_cut(a, b, true);
                }
                self.set_cut(a, b, false);
            }
        }
        for node in self.nodes() {
            self.tell(node);
        }
        for _ in 0..400 {
            self.calm();
            if self.is_settled() {
                return;
            }
            self.pass(10);
        }
        if self.waits_for_the_lost() {
            return;
        }
        let seen: Vec<_> = self.nodes().filter_map(|node| self.node(node)).collect();
        panic!("never at rest at {}: {seen:?}", self.now);
    }

    /// Whether too many have lost their logs: without them nobody can be elected, and only a leader
    /// makes good what they have lost.
    fn waits_for_the_lost(&self) -> bool {
        let has_say = |id: &ReplicaId| !self.replica(id.node).disk.is_lost;
        let cannot = |node: i32| !self.node(node).unwrap().members().is_quorum(has_say);
        self.leader().is_none() && self.nodes().any(cannot)
    }

    fn is_settled(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let node = self.node(leader).unwrap();
        let end = node.history().end();
        node.deadline().is_none()
            && !node.members().is_joint()
            && node.committed() == end.index()
            && node.high_watermark() == end.offset
            && node.members().ids().all(|member| {
                let other = self.node(member.node).unwrap();
                other.history().end() == end
                    && other.high_watermark() == end.offset
                    && other.committed() == end.index()
                    && other.leader() == Some(id(leader))
                    && other.deadline().is_none()
            })
    }
}

fn run(seed: u64, is_chaotic: bool, is_rounds: bool) -> World {
    let (voters, others, least) = GROUPS[(seed % GROUPS.len() as u64) as usize];
    let options = Options {
        election_ms: 100,
        turn_ms: 20,
        rank: 0,
        retry_ms: 50,
        min_insync_replicas: least,
    };
    let mut world = World::new(voters, voters + others, options, Some(Random(seed)));
    // Who has lost a log votes no more for a while: not in most runs.
    world.loses_logs = (seed / GROUPS.len() as u64).is_multiple_of(4);
    // Nor is what was agreed on made void.
    world.names_leaders = (seed / GROUPS.len() as u64) % 4 == 1;
    world.checks.min_insync_replicas = least;
    if is_rounds {
        (0..ROUNDS).for_each(|_| world.round(is_chaotic));
    } else {
        (0..EVENTS).for_each(|_| world.event(is_chaotic));
    }
    world.settle(is_chaotic);
    world
}

fn run_all(is_rounds: bool) {
    let (mut elections, mut chosen, mut changes, mut snapshots) = (0, 0, 0, 0);
    let (mut regained, mut settled, mut named, mut voided) = (0, 0, 0, 0);
    for seed in 0..SEEDS {
        for is_chaotic in [false, true] {
            let result = std::panic::catch_unwind(|| run(seed, is_chaotic, is_rounds));
            let Ok(world) = result else { panic!("seed {seed}, chaotic {is_chaotic}") };
            let checks = &world.checks;
            elections += checks.elections;
            chosen += checks.chosen();
            changes += checks.changes;
            snapshots += checks.snapshots;
            regained += checks.regained;
            named += checks.named;
            voided += checks.voided;
            settled += usize::from(world.is_settled());
        }
    }
    // Else it proves nothing.
    let runs = 2 * SEEDS as usize;
    assert!(elections > 3 * runs && chosen > 10 * runs, "{elections}, {chosen}");
    assert!(changes > runs / 2 && snapshots > runs / 20, "{changes}, {snapshots}");
    assert!(named > runs / 20 && voided > runs / 20, "{named}, {voided}");
    assert!(regained > runs / 20 && settled > runs * 2 / 3, "{regained}, {settled}");
}

#[test]
fn whatever_happens_what_was_shown_stays() {
    run_all(false);
}

#[test]
fn however_short_leaders_live_what_was_shown_stays() {
    run_all(true);
}

#[test]
fn a_seed_repeats_itself() {
    for seed in 0..8 {
        let end = || run(seed, true, true).fingerprint();
        assert_eq!(end(), end(), "seed {seed}");
    }
}
