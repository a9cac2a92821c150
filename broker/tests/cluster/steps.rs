//! A move of a partition is interrupted at each of its steps: whoever leads, comes, goes, or is the
//! controller is killed, paused or cut off as soon as a node says that the step is taken. The
//! others finish the move, and who was away takes its part; nothing is lost, doubled or reordered.
//! And nodes leave and join while links between them fail.
//!
//! - `VLTAVA_CLUSTER_ROUNDS` (6: each step once): interruptions; from 24 on each of the four is
//!   killed at each step, and what comes after is drawn.
//! - `VLTAVA_CLUSTER_ONLY`: the steps whose names contain this.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vltava_protocol::error_code::ErrorCode;

use crate::membership::{await_status, cluster, done, named};
use crate::network::Network;
use crate::nodes::{Nodes, ONLY, seed, variable};
use crate::producer::Random;
use crate::reassign::{alter, begin, listed};
use crate::view::{
    PATIENCE, await_agreement, await_leader, await_partition, await_replicas, create_topic,
    metadata_of_any, partition, until,
};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "stepped";
/// What is moved; nothing happens to the others but that nodes go.
const MOVED: i32 = 0;
const FOUR: [i32; 4] = [1, 2, 3, 4];
/// How long who is not to be waited for by an event is kept away: well beyond the 300 ms after
/// which nodes notice.
const NOTICED: Duration = Duration::from_millis(800);

/// A step of a move, and what a node says when it takes it, of this node that comes.
struct Step {
    name: &'static str,
    said: &'static [&'static str],
    /// Only where the leader is the one that goes.
    hands_over: bool,
}

/// In their order. Nobody says that a move was decided but the answer to who asked.
const STEPS: &[Step] = &[
    Step { name: "decided", said: &[], hands_over: false },
    Step {
        name: "learns",
        said: &["stepped-0", "the members of a group change", "learners=[{comes}]"],
        hands_over: false,
    },
    Step {
        name: "hands over",
        said: &["stepped-0", "a leader that is not to stay hands over"],
        hands_over: true,
    },
    Step {
        name: "votes",
        said: &["stepped-0", "the members of a group change", "learners=[]"],
        hands_over: false,
    },
    Step { name: "moved", said: &["stepped-0", "a partition has moved"], hands_over: false },
    Step {
        name: "gone",
        said: &["stepped", "index=0", "a replica is gone from this node"],
        hands_over: false,
    },
];

/// Who is interrupted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Leads,
    Comes,
    Goes,
    Controls,
}

const ROLES: [Role; 4] = [Role::Leads, Role::Comes, Role::Goes, Role::Controls];

/// What happens to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Kill,
    Pause,
    CutOff,
    Mute,
    Deaf,
    /// Of the link to whoever comes, or from there to who leads.
    Cut,
}

/// One interruption.
struct Round {
    step: &'static Step,
    role: Role,
    fault: Fault,
}

struct Arena {
    nodes: Nodes,
    network: Network,
    work: Work,
    random: Random,
}

/// Who has which part in the move of a round.
struct Cast {
    leads: i32,
    comes: i32,
    goes: i32,
    before: Vec<i32>,
    target: Vec<i32>,
}

impl Arena {
    /// Four nodes, on a network that may fail; whoever works knows all but these.
    fn begin(what: &str, unknown: &[i32]) -> Self {
        let random = Random(seed());
        let network = Network::new(&FOUR, what);
        let mut nodes = Nodes::places(&[], |node, directory| network.place(node, directory));
        nodes.run_all();
        let directory = nodes.directory.clone();
        nodes.add_at(4, network.place(4, &directory), &[]);
        done(&cluster(&nodes, &["add", "--no-wait", &named(&nodes, 4)]));
        nodes.run(&[4]);
        done(&cluster(&nodes, &["add", &named(&nodes, 4)]));
        create_topic(nodes.address(1), TOPIC, PARTITIONS);
        await_agreement(&nodes.addresses(), &[TOPIC]);
        let mut known = nodes.by_number();
        known.retain(|node, _| !unknown.contains(node));
        let work = Work::begin(known, TOPIC, &random);
        work.await_progress();
        Self { nodes, network, work, random }
    }

    /// Who moves where, so that the move takes this step.
    fn cast(&mut self, step: &Step) -> Cast {
        let addresses = self.nodes.addresses();
        // Who was cut off may not have heard of a change.
        await_agreement(&addresses, &[TOPIC]);
        let leads = await_leader(&addresses, TOPIC, MOVED, |_| true);
        let before = partition(&addresses, TOPIC, MOVED).expect("somebody answers").replicas;
        let follows = *before.iter().find(|node| **node != leads).expect("another replica");
        let leader_goes = step.hands_over || self.random.below(2) == 0;
        let goes = if leader_goes { leads } else { follows };
        let comes = *FOUR.iter().find(|node| !before.contains(node)).expect("a fourth");
        let stay = before.iter().copied().filter(|node| *node != goes);
        let target = stay.chain([comes]).collect();
        Cast { leads, comes, goes, before, target }
    }

    /// How many lines each node has said.
    fn lines(&self) -> BTreeMap<i32, usize> {
        let nodes = self.nodes.brokers.iter();
        nodes.map(|(node, broker)| (*node, broker.errors_from(0).len())).collect()
    }

    /// Waits until a node takes this step, which says so in a line behind these.
    fn await_step(&self, step: &Step, cast: &Cast, from: &BTreeMap<i32, usize>) {
        let comes = cast.comes.to_string();
        let words: Vec<_> = step.said.iter().map(|word| word.replace("{comes}", &comes)).collect();
        let is_it = |line: &String| words.iter().all(|word| line.contains(word));
        let is_said = || {
            let mut nodes = self.nodes.brokers.iter();
            nodes.any(|(node, broker)| broker.errors_from(from[node]).iter().any(is_it))
        };
        let began = Instant::now();
        while !words.is_empty() && !is_said() {
            assert!(began.elapsed() < PATIENCE, "nobody says: {words:?}");
            // A step lasts a tenth of a second.
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// The number of the node that has this part now.
    fn victim(&self, role: Role, cast: &Cast) -> i32 {
        let addresses = self.nodes.addresses();
        match role {
            Role::Comes => cast.comes,
            Role::Goes => cast.goes,
            Role::Leads => {
                partition(&addresses, TOPIC, MOVED).and_then(|it| it.leader).unwrap_or(cast.leads)
            }
            Role::Controls => metadata_of_any(&addresses).expect("somebody answers").controller_id,
        }
    }

    fn strike(&mut self, fault: Fault, victim: i32, cast: &Cast) {
        match fault {
            Fault::Kill => self.nodes.kill(victim),
            Fault::Pause => self.nodes.pause(victim),
            Fault::CutOff => self.network.cut_off(victim),
            Fault::Mute => self.network.mute(victim),
            Fault::Deaf => self.network.deafen(victim),
            Fault::Cut if victim == cast.comes => self.network.cut(victim, cast.leads),
            Fault::Cut => self.network.cut(victim, cast.comes),
        }
    }

    fn mend(&mut self, fault: Fault, victim: i32) {
        match fault {
            Fault::Kill => self.nodes.run(&[victim]),
            Fault::Pause => self.nodes.resume(victim),
            _ => self.network.heal(),
        }
    }

    /// Interrupts a move, and sees that it is finished, by the others where they can.
    fn interrupt(&mut self, number: u64, round: &Round) {
        let Round { step, role, fault } = round;
        let cast = self.cast(step);
        self.begin_move(step, &cast);
        let (began, victim) = (Instant::now(), self.victim(*role, &cast));
        self.strike(*fault, victim, &cast);
        println!("{number}: {}: {role:?}, node {victim}: {fault:?}", step.name);
        if victim == cast.comes || *fault == Fault::Cut {
            thread::sleep(NOTICED);
        } else {
            let others = self.nodes.others(victim);
            await_partition(&others, TOPIC, MOVED, |it| {
                let leader = it.leader.filter(|leader| *leader != victim);
                it.replicas == cast.target && leader.is_some()
            });
            self.work.await_progress();
        }
        self.mend(*fault, victim);
        self.await_end(&cast.target, cast.goes);
        println!("{number}: well after {:.1?}", began.elapsed());
    }

    /// Asks for a move, and waits until it takes this step.
    fn begin_move(&self, step: &Step, cast: &Cast) {
        let (asked, lines) = (self.nodes.address(cast.target[0]), self.lines());
        let moves = [(MOVED, Some(cast.target.clone()))].into();
        begin(asked, TOPIC, &moves);
        self.await_step(step, cast, &lines);
    }

    /// Waits until the partition is where it is to stay, nothing is left of the move, or of its
    /// replica on this node, and everybody goes on.
    fn await_end(&mut self, replicas: &[i32], without: i32) {
        await_replicas(&self.nodes.addresses(), TOPIC, MOVED, replicas);
        until("the move is still listed", || {
            let addresses = self.nodes.addresses();
            addresses.iter().all(|it| listed(*it, TOPIC) == Some(vec![])).then_some(())
        });
        let log = self.nodes.node(without).data.join(format!("{TOPIC}-{MOVED}"));
        until("a log stays where it is not kept", || (!log.exists()).then_some(()));
        self.work.await_progress();
        self.work.await_group();
        for node in FOUR {
            assert!(self.nodes.node(node).is_running(), "node {node} ended by itself");
        }
    }

    /// Takes a move back once it takes this step; whether it was not too late.
    fn cancel(&mut self, step: &Step) -> bool {
        let cast = self.cast(step);
        self.begin_move(step, &cast);
        let asked = self.nodes.address(cast.target[0]);
        let answers = alter(asked, TOPIC, &[(MOVED, None)].into());
        let is_back = match answers[&MOVED] {
            ErrorCode::NONE => true,
            ErrorCode::NO_REASSIGNMENT_IN_PROGRESS => false,
            error => panic!("it cannot be cancelled: {error:?}"),
        };
        println!("{}: {}", step.name, if is_back { "taken back" } else { "was done" });
        match is_back {
            true => self.await_end(&cast.before, cast.comes),
            false => self.await_end(&cast.target, cast.goes),
        }
        is_back
    }

    fn end(mut self) {
        self.work.await_whole();
        let history = self.work.end();
        self.nodes.kill_all();
        self.nodes.run_all();
        println!("{} records", history.check());
        await_agreement(&self.nodes.addresses(), &[TOPIC]);
        self.nodes.stop();
    }
}

/// Each step once, with another part and another fault each time; or, with rounds enough, a kill of
/// each part at each step, and then whatever is drawn.
fn rounds(random: &mut Random) -> Vec<Round> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let steps: Vec<&Step> = STEPS.iter().filter(|step| step.name.contains(&only)).collect();
    let count = variable("VLTAVA_CLUSTER_ROUNDS", steps.len() as u64) as usize;
    let faults = [Fault::Kill, Fault::Pause, Fault::CutOff, Fault::Mute, Fault::Deaf, Fault::Cut];
    let (mut first, kills) = (random.below(ROLES.len() as u64) as usize, steps.len() * ROLES.len());
    let mut pick = |number: usize| {
        let draw = |random: &mut Random, from: usize| random.below(from as u64) as usize;
        let step = steps[number % steps.len()];
        let (role, fault) = match number {
            _ if count < kills => {
                first += 1;
                let fault = if number.is_multiple_of(2) { 0 } else { draw(random, faults.len()) };
                (ROLES[first % ROLES.len()], faults[fault])
            }
            _ if number < kills => (ROLES[number / steps.len()], Fault::Kill),
            _ => (ROLES[draw(random, ROLES.len())], faults[draw(random, faults.len())]),
        };
        Round { step, role, fault }
    };
    (0..count).filter(|_| !steps.is_empty()).map(&mut pick).collect()
}

#[test]
fn a_move_that_is_interrupted_at_any_step_is_finished() {
    let mut arena = Arena::begin("links that fail while a partition moves", &[]);
    let rounds = rounds(&mut arena.random);
    for (number, round) in (0..).zip(&rounds) {
        arena.interrupt(number, round);
    }
    arena.end();
}

/// It ends where it began, or, where that is decided already, at its end.
#[test]
fn a_move_that_is_cancelled_at_any_step_ends_whole() {
    let mut arena = Arena::begin("links between four nodes", &[]);
    let mut taken_back = 0;
    for step in STEPS {
        taken_back += usize::from(arena.cancel(step));
    }
    assert!(taken_back >= 2, "only {taken_back} moves were taken back");
    arena.end();
}

/// Links between nodes fail and are mended, again and again, until this is told to stop.
fn let_links_fail(network: &Network, mut random: Random, stop: &AtomicBool) {
    while !stop.load(Ordering::Acquire) {
        let mut draw = |below: u64| random.below(below);
        let node = FOUR[draw(4) as usize];
        match draw(4) {
            0 => network.cut_off(node),
            1 => network.mute(node),
            2 => network.deafen(node),
            _ => network.cut(node, FOUR[(node as usize + draw(3) as usize) % 4]),
        }
        // For longer and shorter than others notice.
        thread::sleep(Duration::from_millis(50 + draw(800)));
        network.heal();
        thread::sleep(Duration::from_millis(50 + draw(600)));
    }
}

/// Does something while links fail.
fn while_links_fail<T>(network: &Network, random: &mut Random, act: impl FnOnce() -> T) -> T {
    let (stop, drawn) = (AtomicBool::default(), Random(random.below(u64::MAX) | 1));
    thread::scope(|scope| {
        scope.spawn(|| let_links_fail(network, drawn, &stop));
        let _stopped = Stop(&stop);
        act()
    })
}

/// Also where what was done has panicked.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// An operator's command, said again until it is done; or was before, by one whose answer was lost.
fn persist(nodes: &Nodes, arguments: &[&str], is_done: &str) {
    let began = Instant::now();
    loop {
        let output = cluster(nodes, arguments);
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() || said.contains(is_done) {
            return;
        }
        println!("{arguments:?}: {}", said.trim());
        assert!(began.elapsed() < PATIENCE * 2, "{said}");
    }
}

/// A founder leaves, and its vote and its replicas go to others; then it comes with an empty disk.
#[test]
fn nodes_leave_and_join_while_links_fail() {
    const LEAVES: i32 = 3;
    let Arena { mut nodes, network, work, mut random } =
        Arena::begin("links that fail while members change", &[LEAVES]);
    for round in 0..variable("VLTAVA_CLUSTER_ROUNDS", 1).div_ceil(8) {
        let began = Instant::now();
        let leaves = LEAVES.to_string();
        while_links_fail(&network, &mut random, || {
            persist(&nodes, &["remove", &leaves], "there is no node 3");
        });
        await_status(&nodes, &[r#""voters":[1,2,4],"learners":[]"#]);
        work.await_progress();
        work.await_group();
        println!("{round}: node {LEAVES} has left after {:.1?}", began.elapsed());
        nodes.stop_node(LEAVES);
        nodes.wipe(LEAVES);
        let name = named(&nodes, LEAVES);
        while_links_fail(&network, &mut random, || {
            persist(&nodes, &["add", "--no-wait", &name], "in the cluster already");
            nodes.run(&[LEAVES]);
            persist(&nodes, &["add", &name], "in the cluster already");
            // It gets its part of what there is.
            persist(&nodes, &["balance"], "spread evenly");
        });
        println!("{round}: node {LEAVES} has joined after {:.1?}", began.elapsed());
        work.await_progress();
        work.await_group();
    }
    let history = work.end();
    println!("{} records", history.check());
    nodes.stop();
}
