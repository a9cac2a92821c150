//! Real clients ride through every change of leader and of coordinator: none of them sees an error
//! that it does not live through by itself, and no record is lost, doubled or moved.
//!
//! An election without a majority is not among these: what it loses had been acknowledged
//! (`unclean.rs`).
//!
//! - `VLTAVA_CLUSTER_ROUNDS` (0): more rounds after those that there always are, each with what is
//!   drawn, also what takes clients half a minute.
//! - `VLTAVA_CLUSTER_ONLY`: which clients, or else what happens to them, by a part of the name.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use vltava_protocol::messages::elect_leaders::ElectLeadersRequest;
use vltava_protocol::types::Str;

use crate::membership::{cluster, done};
use crate::network::Network;
use crate::nodes::{NODES, Nodes, seed, variable};
use crate::producer::Random;
use crate::reassign::{Moves, begin};
use crate::riders::{PARTITIONS, Riders, named};
use crate::view::{
    PATIENCE, await_agreement, await_leader, await_replicas, connect, create_topic,
    metadata_of_any, partition, until,
};

/// Where the clients' groups commit, each in one of its partitions.
const OFFSETS: &str = "__consumer_offsets";
const PREFERRED: i8 = 0;
/// How long who is not to be waited for by an event is kept away: well beyond the 300 ms after
/// which nodes notice.
const NOTICED: Duration = Duration::from_millis(1500);
/// Clients wait for an answer on a connection that says nothing: Java's and librdkafka for 30 s.
const ANSWER_TIME: Duration = Duration::from_secs(120);
/// What a round may take the clients in all.
const ROUND_TIME_MAX: Duration = Duration::from_secs(60);

struct Arena {
    riders: Riders,
    nodes: Nodes,
    network: Network,
}

struct Trouble {
    name: &'static str,
    happen: fn(&mut Arena, i32),
}

macro_rules! troubles {
    ($($name:ident),+) => {
        &[$(Trouble { name: stringify!($name), happen: $name },)+]
    };
}

/// To each node in turn.
const TO_EACH: &[Trouble] = troubles![node_is_killed, node_is_stopped];

/// Once, to whoever leads most.
const ONCE: &[Trouble] = troubles![
    leader_is_paused,
    leader_is_cut_off_from_peers,
    pair_is_cut,
    leader_is_drained,
    replicas_move_off_their_leaders,
    preferred_leaders_are_elected
];

/// What takes clients as long as they wait for an answer.
const SLOW: &[Trouble] = troubles![leader_is_paused_for_long, leader_is_cut_off];

fn node_is_killed(arena: &mut Arena, node: i32) {
    arena.nodes.kill(node);
    arena.await_progress(node, "the kill");
    arena.nodes.run_all();
}

fn node_is_stopped(arena: &mut Arena, node: i32) {
    arena.nodes.stop_node(node);
    arena.await_progress(node, "the stop");
    arena.nodes.run_all();
}

/// When it goes on, it takes itself for a leader, and has requests that came before.
fn leader_is_paused(arena: &mut Arena, leader: i32) {
    arena.nodes.pause(leader);
    arena.await_takeover(leader);
    thread::sleep(NOTICED);
    arena.nodes.resume(leader);
}

/// Clients give it up by themselves.
fn leader_is_paused_for_long(arena: &mut Arena, leader: i32) {
    arena.nodes.pause(leader);
    arena.await_takeover(leader);
    let others = arena.nodes.others(leader);
    arena.riders.await_progress(&others, ANSWER_TIME, "a leader stands still");
    arena.nodes.resume(leader);
}

/// Clients still reach it, and must learn from it where to go.
fn leader_is_cut_off_from_peers(arena: &mut Arena, leader: i32) {
    arena.network.cut_off(leader);
    arena.await_takeover(leader);
    arena.await_progress(leader, "a leader is cut off from its peers");
    arena.network.heal();
}

fn leader_is_cut_off(arena: &mut Arena, leader: i32) {
    arena.network.cut_off(leader);
    arena.network.cut_off_clients(leader);
    arena.await_takeover(leader);
    let others = arena.nodes.others(leader);
    arena.riders.await_progress(&others, ANSWER_TIME, "a leader is cut off");
    arena.network.heal();
}

/// Two do not reach each other, and the third reaches both.
fn pair_is_cut(arena: &mut Arena, leader: i32) {
    let follower = NODES.into_iter().find(|node| *node != leader).expect("another");
    arena.network.cut(leader, follower);
    thread::sleep(NOTICED);
    arena.await_progress(leader, "two nodes do not reach each other");
    arena.network.heal();
}

/// It leads nothing while it is, and again afterwards.
fn leader_is_drained(arena: &mut Arena, leader: i32) {
    let node = leader.to_string();
    done(&cluster(&arena.nodes, &["drain", &node]));
    arena.await_takeover(leader);
    arena.await_progress(leader, "a drain");
    done(&cluster(&arena.nodes, &["drain", "--undo", &node]));
}

/// Each partition loses the replica that leads it, which comes back later as an empty one; the
/// groups' coordinators move, too.
fn replicas_move_off_their_leaders(arena: &mut Arena, _: i32) {
    let addresses = arena.nodes.addresses();
    for topic in arena.topics() {
        let moves = arena.moves(topic, |replicas, leader| {
            replicas.iter().copied().filter(|node| *node != leader).collect()
        });
        begin(addresses[0], topic, &moves);
        for (number, stay) in moves {
            let stay = stay.expect("a place");
            await_leader(&addresses, topic, number, |node| stay.contains(&node));
        }
    }
    arena.riders.await_progress(&addresses, PATIENCE, "moves off the leaders");
    for topic in arena.topics() {
        let back = (0..PARTITIONS).map(|number| (number, Some(NODES.to_vec())));
        begin(addresses[0], topic, &back.collect());
        for number in 0..PARTITIONS {
            await_replicas(&addresses, topic, number, &NODES);
        }
    }
}

/// Of each partition another than its leader becomes the preferred one, and is elected.
fn preferred_leaders_are_elected(arena: &mut Arena, _: i32) {
    let addresses = arena.nodes.addresses();
    let mut preferred: Vec<(&str, i32, i32)> = Vec::new();
    for topic in arena.topics() {
        let moves = arena.moves(topic, |replicas, leader| {
            let mut turned = replicas.to_vec();
            let at = turned.iter().position(|node| *node == leader).unwrap_or(0);
            turned.rotate_left(at + 1);
            turned
        });
        begin(addresses[0], topic, &moves);
        preferred.extend(
            moves
                .iter()
                .map(|(number, replicas)| (topic, *number, replicas.as_ref().expect("a place")[0])),
        );
    }
    let request = ElectLeadersRequest {
        election_type: PREFERRED,
        topic_partitions: None,
        ..ElectLeadersRequest::default()
    };
    until("leaders are not where they are preferred", || {
        connect(addresses[0]).ok()?.call(&request).ok()?;
        let leads = |(topic, number, node): &(&str, i32, i32)| {
            partition(&addresses, topic, *number).is_some_and(|it| it.leader == Some(*node))
        };
        preferred.iter().all(leads).then_some(())
    });
}

impl Arena {
    fn topics(&self) -> Vec<&'static str> {
        self.riders.topics().chain([OFFSETS]).collect()
    }

    /// While something has happened to a node, which is not asked.
    fn await_progress(&mut self, victim: i32, after: &str) {
        self.riders.await_progress(&self.nodes.others(victim), PATIENCE, after);
    }

    /// Waits until the others have other leaders than a node.
    fn await_takeover(&self, victim: i32) {
        for topic in self.topics() {
            for number in 0..PARTITIONS {
                await_leader(&self.nodes.others(victim), topic, number, |node| node != victim);
            }
        }
    }

    /// For each partition of a topic, where it is to be, by where it is and who leads it.
    fn moves(&self, topic: &str, place: impl Fn(&[i32], i32) -> Vec<i32>) -> Moves {
        let addresses = self.nodes.addresses();
        let all = (0..PARTITIONS).map(|number| {
            let leader = await_leader(&addresses, topic, number, |_| true);
            let found = until("nobody knows a partition", || partition(&addresses, topic, number));
            (number, Some(place(&found.replicas, leader)))
        });
        all.collect()
    }

    /// Who leads most of what the clients use.
    fn victim(&self) -> i32 {
        let metadata = until("nobody answers", || metadata_of_any(&self.nodes.addresses()));
        let mut led: BTreeMap<i32, usize> = NODES.map(|node| (node, 0)).into();
        for topic in self.topics() {
            let partitions = metadata.topics[&Str::from(topic)].partitions.values();
            partitions.filter_map(|it| it.leader).for_each(|node| {
                *led.entry(node).or_default() += 1;
            });
        }
        let most = led.into_iter().max_by_key(|(_, count)| *count);
        most.expect("there are nodes").0
    }

    fn round(&mut self, trouble: &Trouble, node: i32) {
        let began = Instant::now();
        (trouble.happen)(self, node);
        let happened = began.elapsed();
        self.riders.await_progress(&self.nodes.addresses(), PATIENCE, trouble.name);
        self.riders.await_whole(&self.nodes);
        let whole = began.elapsed() - happened;
        println!("{}, node {node}: {happened:.1?}; well after {whole:.1?}", trouble.name);
        for node in NODES {
            assert!(self.nodes.node(node).is_running(), "node {node} ended by itself");
        }
    }
}

#[test]
fn real_clients_ride_through_changes_of_leader() {
    let chosen = chosen(Random(seed()), variable("VLTAVA_CLUSTER_ROUNDS", 0));
    let names = Riders::names();
    let network = Network::new(&NODES, "real clients");
    let mut nodes = Nodes::places(&[], |node, directory| {
        let mut place = network.place(node, directory);
        // A relay takes connections to a node that is gone, and closes them, as no kernel does:
        // clients go past it, and stay when they should be cut off, too.
        if let Some(behind) = &mut place.behind {
            behind.address = behind.listener;
        }
        place
    });
    nodes.run_all();
    let addresses = nodes.addresses();
    names.iter().for_each(|topic| create_topic(addresses[0], topic, PARTITIONS));
    await_agreement(&addresses, &names);
    let limit = ROUND_TIME_MAX * u32::try_from(chosen.len()).expect("a small number");
    let riders = Riders::begin(&names, &nodes, limit);
    let mut arena = Arena { riders, nodes, network };
    for (trouble, node) in chosen {
        let node = node.unwrap_or_else(|| arena.victim());
        arena.round(trouble, node);
    }
    arena.riders.end(&arena.nodes);
    arena.nodes.stop();
}

/// What happens, and to whom; `None`: to who leads most then.
fn chosen(mut random: Random, rounds: u64) -> Vec<(&'static Trouble, Option<i32>)> {
    let all: Vec<&Trouble> = [TO_EACH, ONCE, SLOW].into_iter().flatten().collect();
    let wanted = named(&all, |it| it.name);
    let is_wanted = |it: &&Trouble| wanted.iter().any(|wanted| wanted.name == it.name);
    let to_each = TO_EACH.iter().filter(is_wanted);
    let mut chosen: Vec<_> = to_each.flat_map(|it| NODES.map(|node| (it, Some(node)))).collect();
    chosen.extend(ONCE.iter().filter(is_wanted).map(|it| (it, None)));
    let drawn = |_| (wanted[random.below(wanted.len() as u64) as usize], None);
    chosen.extend((0..rounds).map(drawn));
    chosen
}
