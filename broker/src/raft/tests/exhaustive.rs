//! All orders of a few events, over the real nodes: from some places that are reached by hand, each
//! state that so many steps lead to is looked at once.

use std::collections::BTreeSet;

use super::world::{World, ids};
use crate::raft::membership::Membership;
use crate::raft::node::{Node, Options};

/// Time stands still: what is due may come at any moment.
const OPTIONS: Options =
    Options { election_ms: 0, turn_ms: 0, rank: 0, retry_ms: 0, min_insync_replicas: 1 };

/// How often what may happen by itself may happen.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Left {
    deadlines: u8,
    appends: u8,
    crashes: u8,
    flaps: u8,
    reopens: u8,
    taken_back: u8,
}

const NONE: Left =
    Left { deadlines: 0, appends: 0, crashes: 0, flaps: 0, reopens: 0, taken_back: 0 };

/// Everything that can happen next.
fn next(world: &World, left: Left) -> Vec<(World, Left)> {
    let mut all = Vec::new();
    let mut with = |left: Option<Left>, event: &dyn Fn(&mut World)| {
        if let Some(left) = left {
            let mut next = world.clone();
            event(&mut next);
            all.push((next, left));
        }
    };
    for (from, to) in world.wires.keys().copied() {
        with(Some(left), &|world| world.deliver(from, to));
    }
    let fewer = |count: u8| count.checked_sub(1);
    for node in world.nodes() {
        if !world.is_up(node) {
            with(Some(left), &|world| world.start(node));
            continue;
        }
        if world.node(node).and_then(Node::deadline).is_some() {
            let left = fewer(left.deadlines).map(|deadlines| Left { deadlines, ..left });
            with(left, &|world| world.deadline(node));
        }
        let disk = &world.replica(node).disk;
        if disk.flushed() < disk.end_index() {
            with(Some(left), &|world| world.flush_all(node));
            let left = fewer(left.taken_back).map(|taken_back| Left { taken_back, ..left });
            with(left, &|world| world.take_back(node));
        }
        if world.is_leader(node) {
            let left = fewer(left.appends).map(|appends| Left { appends, ..left });
            with(left, &|world| world.append(node));
        }
        let crashed = fewer(left.crashes).map(|crashes| Left { crashes, ..left });
        with(crashed, &|world| world.crash(node));
        let reopened = fewer(left.reopens).map(|reopens| Left { reopens, ..left });
        with(reopened, &|world| world.reopen(node));
        for other in node + 1..world.nodes().end {
            let left = fewer(left.flaps).map(|flaps| Left { flaps, ..left });
            with(left, &|world| world.flap(node, other));
        }
    }
    all
}

/// Looks at all that so many steps can lead to; how many states that are.
fn explore(begin: World, left: Left, depth: usize) -> usize {
    let mut seen = BTreeSet::from([(begin.fingerprint(), left)]);
    let mut edge = vec![(begin, left)];
    for _ in 0..depth {
        let mut beyond = Vec::new();
        for (world, left) in edge {
            for (world, left) in next(&world, left) {
                if seen.insert((world.fingerprint(), left)) {
                    beyond.push((world, left));
                }
            }
        }
        edge = beyond;
    }
    seen.len()
}

fn group(voters: i32, nodes: i32) -> World {
    let mut world = World::new(voters, nodes, OPTIONS, None);
    world.checks.min_insync_replicas = 1;
    world.calm();
    world
}

/// This node leads, and everybody has what it has.
fn led_by(world: &mut World, node: i32) {
    world.deadline(node);
    world.calm();
    assert!(world.is_leader(node));
}

/// Delivers what is under way to some nodes from those that are up among them, or down, and flushes
/// there.
fn talk(world: &mut World, among: &[i32]) {
    loop {
        among.iter().for_each(|node| world.flush_all(*node));
        let is_among = |key: &&(i32, i32)| {
            among.contains(&key.1) && (among.contains(&key.0) || !world.is_up(key.0))
        };
        let Some((from, to)) = world.wires.keys().find(is_among).copied() else { return };
        world.deliver(from, to);
    }
}

/// This node leads by the vote of another, and that is all that anybody has heard.
fn elect(world: &mut World, candidate: i32, voter: i32) {
    for nth in 0..20 {
        if nth % 10 == 0 {
            // At first it may not know how far epochs have come.
            world.deadline(candidate);
        }
        for (from, to) in [(candidate, voter), (voter, candidate)] {
            if !world.is_leader(candidate) {
                world.deliver(from, to);
            }
        }
    }
    assert!(world.is_leader(candidate));
}

#[test]
fn two_nodes_elect_and_replicate_in_all_orders() {
    let left = Left { deadlines: 2, appends: 1, crashes: 1, ..NONE };
    let states = explore(group(2, 2), left, 12);
    assert!(states > 3000, "{states}");
}

#[test]
fn three_nodes_elect_in_all_orders() {
    let states = explore(group(3, 3), Left { deadlines: 2, ..NONE }, 9);
    assert!(states > 2000, "{states}");
}

/// A vote that is on its way may meet another candidate, and a voter that has forgotten it.
#[test]
fn votes_are_remembered_in_all_orders() {
    let mut world = group(3, 3);
    // Both have been encouraged before they ask.
    for candidate in [0, 1] {
        world.deadline(candidate);
        world.deliver(candidate, 2);
        world.deliver(2, candidate);
    }
    let states = explore(world, Left { crashes: 1, ..NONE }, 8);
    assert!(states > 1000, "{states}");
}

/// Ongaro, figure 3.7: an entry of an old epoch on a majority is not chosen by that.
#[test]
fn an_old_epochs_entries_are_chosen_with_a_new_ones_in_all_orders() {
    let mut world = group(3, 3);
    led_by(&mut world, 0);
    // An entry of epoch 0 stands on node 0 alone.
    world.append(0);
    world.flush_all(0);
    world.wires.clear();
    world.crash(0);
    talk(&mut world, &[1, 2]);
    // Node 1 leads epoch 1, and nobody hears of it.
    elect(&mut world, 1, 2);
    world.flush_all(1);
    world.crash(1);
    world.start(0);
    talk(&mut world, &[0, 2]);
    // Node 0 leads again; its old entry is on its way to node 2.
    elect(&mut world, 0, 2);
    // It sends its old entry to node 2, hears that it is flushed there, and that is all.
    world.sent_most = 1;
    while world.replica(2).disk.batches == 0 {
        world.deliver(0, 2);
        world.flush(2, 1, 0);
        world.deliver(2, 0);
    }
    while world.wires.contains_key(&(2, 0)) {
        world.deliver(2, 0);
    }
    world.wires.remove(&(0, 2));
    world.crash(0);
    world.start(1);
    let left = Left { crashes: 1, deadlines: 2, ..NONE };
    talk(&mut world, &[1, 2]);
    let states = explore(world, left, 9);
    assert!(states > 1000, "{states}");
}

#[test]
fn members_change_in_all_orders() {
    let mut world = group(3, 4);
    led_by(&mut world, 0);
    assert!(world.change(0, &Membership::new(ids([0, 3]), [])));
    let states = explore(world, Left { crashes: 1, deadlines: 1, ..NONE }, 6);
    assert!(states > 2000, "{states}");
}

/// A group of one that somebody joins: from then on nothing is given twice.
#[test]
fn a_group_of_one_takes_another_in_all_orders() {
    let mut world = group(1, 2);
    world.append(0);
    world.flush_all(0);
    assert!(world.change(0, &Membership::new(ids([0]), ids([1]))));
    let left = Left { appends: 2, crashes: 1, taken_back: 1, ..NONE };
    let states = explore(world, left, 10);
    assert!(states > 3000, "{states}");
}

#[test]
fn what_is_taken_back_is_given_again_in_another_epoch_in_all_orders() {
    let mut world = group(3, 3);
    led_by(&mut world, 0);
    let left = Left { appends: 2, taken_back: 1, deadlines: 1, ..NONE };
    let states = explore(world, left, 8);
    assert!(states > 2000, "{states}");
}

/// Sessions break while a leader writes, and what was on its way in them is lost.
#[test]
fn sessions_break_in_all_orders() {
    let mut world = group(3, 3);
    led_by(&mut world, 0);
    let states = explore(world, Left { appends: 1, deadlines: 1, flaps: 1, ..NONE }, 8);
    assert!(states > 2000, "{states}");
}

/// Replicas are opened anew while their sessions go on, leaders and others.
#[test]
fn replicas_are_opened_anew_in_all_orders() {
    let mut world = group(3, 3);
    led_by(&mut world, 0);
    let states = explore(world, Left { appends: 1, deadlines: 1, reopens: 2, ..NONE }, 7);
    assert!(states > 2000, "{states}");
}
