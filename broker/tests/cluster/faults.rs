//! Nothing acknowledged is lost, doubled or moved under what may happen to processes and to the
//! network between them; and after each fault everything goes on within a bound.
//!
//! All scenarios happen to one cluster, one after the other, in an order of the seed's choice; with
//! more rounds (`VLTAVA_CLUSTER_ROUNDS`) than there are scenarios they are drawn.
//! `VLTAVA_CLUSTER_ONLY`: the scenarios whose names contain this.

use std::thread;
use std::time::{Duration, Instant};

use crate::network::Network;
use crate::nodes::{NODES, Nodes, ONLY, seed, variable};
use crate::producer::Random;
use crate::view::{await_agreement, create_topic};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "faulty";
/// A link that takes seconds for what a busy partition takes in one.
const SLOW_KILOBYTES: u32 = 200;
/// How long who is not to be waited for by an event is kept away: well beyond the 300 ms after
/// which nodes notice.
const NOTICED: Duration = Duration::from_millis(1000);

/// What a fault happens to.
struct Arena {
    work: Work,
    nodes: Nodes,
    network: Network,
    random: Random,
    had: Vec<i32>,
}

impl Arena {
    /// Who leads most, of those that nothing has happened to for longest; and the other two.
    fn victim(&mut self) -> (i32, [i32; 2]) {
        let victim = self.work.victim(&mut self.had);
        let mut others = NODES.into_iter().filter(|node| *node != victim);
        let first = others.next().expect("a second node");
        (victim, [first, others.next().expect("a third")])
    }
}

struct Scenario {
    name: &'static str,
    happen: fn(&mut Arena),
}

macro_rules! scenarios {
    ($($name:ident),+) => {
        &[$(Scenario { name: stringify!($name), happen: $name },)+]
    };
}

const SCENARIOS: &[Scenario] = scenarios![
    leader_is_cut_off,
    leader_is_cut_off_from_peers,
    leader_is_cut_off_from_clients,
    leader_is_mute,
    leader_is_deaf,
    pair_is_cut,
    leader_is_cut_off_and_killed,
    majority_is_lost_around_a_leader_that_is_cut_off,
    link_is_slow,
    link_flaps,
    leader_is_paused,
    followers_are_paused,
    all_are_paused,
    leader_is_killed,
    all_are_killed,
    nodes_restart_in_order,
    leader_is_paused_and_another_killed
];

/// Nobody reaches it. The others take over, and it comes back to a later epoch.
fn leader_is_cut_off(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.network.cut_off(leader);
    arena.network.cut_off_clients(leader);
    arena.work.await_takeover(leader);
    arena.work.await_group();
    arena.network.heal();
}

/// Clients still reach it: it acknowledges nothing, and shows nothing that does not last.
fn leader_is_cut_off_from_peers(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.network.cut_off(leader);
    arena.work.await_takeover(leader);
    arena.work.await_group();
    arena.network.heal();
}

/// It leads on, as far as its peers know: what others lead goes on meanwhile.
fn leader_is_cut_off_from_clients(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    let led = arena.work.led_by(leader);
    let others: Vec<i32> = (0..PARTITIONS).filter(|number| !led.contains(number)).collect();
    arena.network.cut_off_clients(leader);
    thread::sleep(NOTICED);
    arena.work.await_progress_of(&others);
    arena.network.heal();
}

/// The others do not hear it, and it hears them.
fn leader_is_mute(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.network.mute(leader);
    arena.work.await_takeover(leader);
    arena.work.await_group();
    arena.network.heal();
}

/// It does not hear the others, and they hear it: it must not keep them from going on.
fn leader_is_deaf(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.network.deafen(leader);
    arena.work.await_takeover(leader);
    arena.work.await_group();
    arena.network.heal();
}

/// Two do not reach each other, and the third reaches both: whoever leads has a majority.
fn pair_is_cut(arena: &mut Arena) {
    let (leader, [follower, _]) = arena.victim();
    arena.network.cut(leader, follower);
    thread::sleep(NOTICED);
    arena.work.await_progress();
    arena.work.await_progress();
    arena.work.await_group();
    arena.network.heal();
}

/// What only it has taken is cut from its log once it is back.
fn leader_is_cut_off_and_killed(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.network.cut_off(leader);
    arena.work.await_takeover(leader);
    arena.nodes.kill(leader);
    arena.network.heal();
    arena.work.await_progress();
    arena.nodes.run(&[leader]);
}

/// The others have gone on without it, and are killed: it must not lead before one is back.
fn majority_is_lost_around_a_leader_that_is_cut_off(arena: &mut Arena) {
    let (leader, others) = arena.victim();
    arena.network.cut_off(leader);
    arena.work.await_takeover(leader);
    others.iter().for_each(|node| arena.nodes.kill(*node));
    arena.network.heal();
    let back = others[arena.random.below(2) as usize];
    arena.nodes.run(&[back]);
    arena.work.await_progress();
    arena.nodes.run_all();
}

/// To and from a leader; what is queued delays also what nodes say to keep their places.
fn link_is_slow(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.network.slow_down(leader, SLOW_KILOBYTES);
    for _ in 0..3 {
        arena.work.await_progress();
    }
    thread::sleep(NOTICED);
    arena.work.await_progress();
    arena.work.await_group();
    arena.network.heal();
}

/// A node comes and goes, for longer and shorter than others notice.
fn link_flaps(arena: &mut Arena) {
    let (victim, _) = arena.victim();
    for _ in 0..8 {
        arena.network.cut_off(victim);
        thread::sleep(Duration::from_millis(20 + arena.random.below(600)));
        arena.network.heal();
        thread::sleep(Duration::from_millis(arena.random.below(400)));
    }
}

/// For longer than others wait: when it goes on, it takes itself for a leader.
fn leader_is_paused(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.nodes.pause(leader);
    arena.work.await_takeover(leader);
    arena.work.await_group();
    arena.nodes.resume(leader);
}

/// A leader without a majority acknowledges nothing.
fn followers_are_paused(arena: &mut Arena) {
    let (_, others) = arena.victim();
    others.iter().for_each(|node| arena.nodes.pause(*node));
    thread::sleep(NOTICED);
    others.iter().for_each(|node| arena.nodes.resume(*node));
}

/// As when the machine below them stands still.
fn all_are_paused(arena: &mut Arena) {
    NODES.iter().for_each(|node| arena.nodes.pause(*node));
    thread::sleep(NOTICED);
    NODES.iter().for_each(|node| arena.nodes.resume(*node));
}

fn leader_is_killed(arena: &mut Arena) {
    let (leader, _) = arena.victim();
    arena.nodes.kill(leader);
    arena.work.await_takeover(leader);
    arena.work.await_group();
    arena.nodes.run(&[leader]);
}

fn all_are_killed(arena: &mut Arena) {
    arena.nodes.kill_all();
    arena.nodes.run_all();
}

fn nodes_restart_in_order(arena: &mut Arena) {
    for node in NODES {
        arena.nodes.node(node).restart();
        arena.work.await_whole();
    }
}

/// Two of three are away, and the one that was paused comes back first: it is not up to date.
fn leader_is_paused_and_another_killed(arena: &mut Arena) {
    let (leader, others) = arena.victim();
    arena.nodes.pause(leader);
    arena.work.await_takeover(leader);
    let victim = others[arena.random.below(2) as usize];
    arena.nodes.kill(victim);
    arena.nodes.resume(leader);
    arena.work.await_progress();
    arena.nodes.run(&[victim]);
}

/// Which scenarios, in which order.
fn chosen(random: &mut Random) -> Vec<&'static Scenario> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let mut left: Vec<&Scenario> = SCENARIOS.iter().filter(|it| it.name.contains(&only)).collect();
    let all = left.clone();
    let mut chosen = Vec::new();
    while !left.is_empty() {
        chosen.push(left.swap_remove(random.below(left.len() as u64) as usize));
    }
    while !all.is_empty() && (chosen.len() as u64) < variable("VLTAVA_CLUSTER_ROUNDS", 0) {
        chosen.push(all[random.below(all.len() as u64) as usize]);
    }
    chosen
}

#[test]
fn nothing_acknowledged_is_lost_under_faults() {
    let mut random = Random(seed());
    let network = Network::new(&NODES, "faults of the network");
    let chosen = chosen(&mut random);
    let mut nodes = Nodes::places(&[], |node, directory| network.place(node, directory));
    nodes.run_all();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &random);
    work.await_progress();

    let mut arena = Arena { work, nodes, network, random, had: Vec::new() };
    for (round, scenario) in (0..).zip(&chosen) {
        let began = Instant::now();
        (scenario.happen)(&mut arena);
        let happened = began.elapsed();
        arena.work.await_progress();
        arena.work.await_group();
        if arena.random.below(4) > 0 {
            arena.work.await_whole();
        }
        let whole = began.elapsed() - happened;
        println!("{round}: {}, {happened:.1?}; well after {whole:.1?}", scenario.name);
        for node in NODES {
            assert!(arena.nodes.node(node).is_running(), "node {node} ended by itself");
        }
    }
    arena.work.await_whole();
    let history = arena.work.end();
    arena.nodes.kill_all();
    arena.nodes.run_all();
    let records = history.check();
    println!("faults: {} rounds, {records} records", chosen.len());
    await_agreement(&addresses, &[TOPIC]);
    arena.nodes.stop();
}
