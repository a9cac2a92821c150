//! The same scenarios as the crate `raft` (tikv) ran: `oracle.txt`, which `tests/raft-oracle`
//! wrote. Compared are who is elected, also as a leader hands over, what each log holds (the epoch
//! of each entry) and each commit, after every step; and the index that enough voters have, of one
//! set of them and of two.
//!
//! Where the two differ by design the scenarios do not go: there, a leader that lost its majority
//! is made to follow, as check-quorum makes ours; members do not change (there a change is in force
//! once it is applied, here once it is written).

use super::world::{Entry, World, ids};
use crate::raft::membership::{Membership, Seat};
use crate::raft::node::Options;

const TRACE: &str = include_str!("oracle.txt");
const OPTIONS: Options =
    Options { election_ms: 0, turn_ms: 0, rank: 0, retry_ms: 0, min_insync_replicas: 1 };

fn numbers(text: &str) -> Vec<i32> {
    text.split_whitespace().map(|word| word.parse().unwrap()).collect()
}

#[test]
fn enough_voters_are_the_same() {
    let mut rows = 0;
    for line in TRACE.lines().filter_map(|line| line.strip_prefix("quorum ")) {
        let columns: Vec<Vec<i32>> = line.split('|').map(numbers).collect();
        let [acked, new, old, reached] = &columns[..] else { panic!("{line}") };
        let seat = |(id, node): (_, i32)| Seat {
            id,
            is_voter: new.contains(&node),
            was_voter: old.contains(&node),
            is_learner: false,
        };
        let nodes = 0..acked.len() as i32;
        let seats = ids(nodes.clone()).into_iter().zip(nodes).map(seat);
        let seats = seats.filter(|seat| seat.is_voter || seat.was_voter).collect();
        let members = Membership::from_seats(seats).unwrap();
        let ours = members.reached(1, |id| i64::from(acked[id.node as usize]));
        assert_eq!(ours, Some(i64::from(reached[0])), "{line}");
        let has = |least: i32| members.is_quorum(|id| acked[id.node as usize] >= least);
        assert!(has(reached[0]) && !has(reached[0] + 1), "{line}");
        rows += 1;
    }
    assert!(rows >= 100, "{rows}");
}

/// One node as the trace shows it: the epochs of its entries, and how many are chosen.
fn shown(world: &World, node: i32) -> String {
    let epoch = |entry: &Entry| match entry {
        Entry::Batch { epoch, .. } => epoch.to_string(),
        Entry::Mark(mark) => mark.epoch.to_string(),
    };
    let epochs: Vec<String> = world.replica(node).disk.log.iter().map(epoch).collect();
    format!("{}/{}", epochs.join(" "), world.node(node).unwrap().committed())
}

/// Only these see each other, by new sessions.
fn connect_only(world: &mut World, among: &[i32]) {
    for a in world.nodes() {
        for b in a + 1..world.nodes().end {
            world.set_cut(a, b, true);
        }
    }
    world.calm();
    for a in among {
        for b in among.iter().filter(|b| *b > a) {
            world.set_cut(*a, *b, false);
        }
    }
    world.calm();
}

fn repeat(world: &mut World, what: &[&str], among: &[i32]) {
    let node: i32 = what[1].parse().unwrap();
    let entries = || 0..what[2].parse::<i32>().unwrap();
    match what[0] {
        "campaign" => {
            connect_only(world, among);
            world.deadline(node);
        }
        "write" => {
            connect_again(world, among, node);
            entries().for_each(|_| world.append(node));
        }
        "transfer" => {
            connect_again(world, among, node);
            world.hand_over(node, what[2].parse().unwrap());
        }
        _ => {
            entries().for_each(|_| world.append(node));
            world.flush_all(node);
            world.wires.clear();
            connect_only(world, &[]);
        }
    }
    world.calm();
}

/// As [`connect_only`], and the leader stays one: it is never without a majority.
fn connect_again(world: &mut World, among: &[i32], leader: i32) {
    among.iter().for_each(|node| world.set_cut(leader, *node, false));
    world.calm();
    for a in world.nodes() {
        for b in a + 1..world.nodes().end {
            let is_cut = !(among.contains(&a) && among.contains(&b));
            world.set_cut(a, b, is_cut);
        }
    }
    world.calm();
}

#[test]
fn elections_logs_and_commits_are_the_same() {
    let (mut world, mut steps, mut elected) = (None, 0, 0);
    for (number, line) in TRACE.lines().enumerate() {
        if let Some(count) = line.strip_prefix("group ") {
            let count = count.parse().unwrap();
            let mut begun = World::new(count, count, OPTIONS, None);
            begun.checks.min_insync_replicas = 1;
            begun.calm();
            world = Some(begun);
        } else if !line.starts_with("quorum ") {
            let world = world.as_mut().unwrap();
            let (what, rest) = line.split_once(" among ").unwrap();
            let (among, rest) = rest.split_once(" leader ").unwrap();
            let (leader, logs) = rest.split_once(" | ").unwrap();
            repeat(world, &what.split(' ').collect::<Vec<_>>(), &numbers(among));
            let among = numbers(among);
            let own = world.leader().filter(|own| among.contains(own));
            let own = own.map_or("-".to_owned(), |own| own.to_string());
            assert_eq!(own, leader, "line {}: {line}", number + 1);
            let own: Vec<String> = world.nodes().map(|node| shown(world, node)).collect();
            assert_eq!(own.join(" | "), logs, "line {}: {line}", number + 1);
            steps += 1;
            elected += i32::from(what.starts_with("campaign") && leader != "-");
        }
    }
    assert!(steps > 500 && elected > 100, "{steps}, {elected}");
}
