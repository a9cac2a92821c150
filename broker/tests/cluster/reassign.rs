//! Partitions move from node to node while they are written to and read: nothing is lost, doubled
//! or reordered, whoever is killed meanwhile, and also where the move is taken back half way.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread;
use std::time::Duration;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_partition_reassignments::{
    AlterPartitionReassignmentsRequest, ReassignablePartition, ReassignableTopic,
};
use vltava_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use vltava_protocol::messages::list_partition_reassignments::ListPartitionReassignmentsRequest;
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes, seed};
use crate::producer::Random;
use crate::support::wire;
use crate::view::{
    await_leader, await_partition, await_replicas, connect, create_topic_with, leader_of,
    partition, until,
};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "moved";
const OFFSETS: &str = "__consumer_offsets";

/// Where each partition is to be; `None` takes back what is under way.
pub type Moves = BTreeMap<i32, Option<Vec<i32>>>;

/// Asks for moves; what is answered for each partition.
pub fn alter(address: SocketAddr, topic: &str, moves: &Moves) -> BTreeMap<i32, ErrorCode> {
    let partitions = moves.iter().map(|(number, replicas)| ReassignablePartition {
        partition_index: *number,
        replicas: replicas.clone(),
    });
    let topics =
        vec![ReassignableTopic { name: Str::from(topic), partitions: partitions.collect() }];
    let request = AlterPartitionReassignmentsRequest { topics, ..<_>::default() };
    let answer = until("no controller answers", || {
        let answer = connect(address).ok()?.call(&request).ok()?;
        answer.error_code.is_none().then_some(answer)
    });
    let partitions = &answer.responses[0].partitions;
    partitions.iter().map(|it| (it.partition_index, it.error_code)).collect()
}

/// Asks for moves that nothing is wrong with.
pub fn begin(address: SocketAddr, topic: &str, moves: &Moves) {
    let answers = alter(address, topic, moves);
    assert!(answers.values().all(|error| error.is_none()), "{answers:?}");
}

/// Which partitions of a topic a node says are being moved.
pub fn listed(address: SocketAddr, topic: &str) -> Option<Vec<i32>> {
    let request = ListPartitionReassignmentsRequest::default();
    let answer = connect(address).ok()?.call(&request).ok()?;
    let topic = answer.topics.iter().find(|it| &*it.name == topic);
    let partitions = topic.map(|topic| topic.partitions.clone()).unwrap_or_default();
    Some(partitions.iter().map(|it| it.partition_index).collect())
}

/// Who keeps a partition, and who is to: each node in turn leaves one of them out.
struct Cast {
    nodes: Nodes,
}

impl Cast {
    fn replicas(&self, number: i32) -> Vec<i32> {
        let found = partition(&self.nodes.addresses(), TOPIC, number);
        found.expect("somebody answers").replicas
    }

    /// Moves that take from each partition its first replica, and give it to the node that has
    /// none, which is the second choice.
    fn turned(&self) -> Moves {
        let turn = |number| {
            let replicas = self.replicas(number);
            let other = NODES.into_iter().find(|node| !replicas.contains(node));
            (number, Some(vec![replicas[1], other.expect("a third")]))
        };
        (0..PARTITIONS).map(turn).collect()
    }

    fn await_done(&self, moves: &Moves) {
        for (number, replicas) in moves {
            let replicas = replicas.as_ref().expect("a place");
            await_replicas(&self.nodes.addresses(), TOPIC, *number, replicas);
        }
        until("moves are still listed", || {
            let addresses = self.nodes.addresses();
            addresses.iter().all(|it| listed(*it, TOPIC) == Some(vec![])).then_some(())
        });
    }

    /// Nobody keeps the log of a partition that it has no replica of.
    fn await_tidy(&self) {
        for number in 0..PARTITIONS {
            let replicas = self.replicas(number);
            for node in NODES.iter().filter(|node| !replicas.contains(node)) {
                let data = self.nodes.directory.join(node.to_string());
                let log = data.join(format!("{TOPIC}-{number}"));
                until("a log stays where it is not kept", || (!log.exists()).then_some(()));
            }
        }
    }
}

#[test]
fn partitions_move_while_they_are_written_to_and_read() {
    let mut random = Random(seed());
    let mut cast = Cast { nodes: Nodes::start() };
    let addresses = cast.nodes.addresses();
    create_topic_with(addresses[0], TOPIC, PARTITIONS, 2, &[]);
    let work = Work::begin(cast.nodes.by_number(), TOPIC, &random);
    work.await_progress();

    // Nothing happens meanwhile.
    let moves = cast.turned();
    begin(addresses[1], TOPIC, &moves);
    cast.await_done(&moves);
    work.await_progress();
    cast.await_tidy();

    // Whoever leads, comes, or goes is killed, at some moment.
    for role in ["leads", "comes", "goes"] {
        let (moves, before) = (cast.turned(), cast.replicas(0));
        let target = moves[&0].clone().expect("a place");
        let victim = match role {
            "leads" => await_leader(&addresses, TOPIC, 0, |_| true),
            "comes" => target[1],
            _ => before[0],
        };
        begin(addresses[0], TOPIC, &moves);
        thread::sleep(Duration::from_millis(random.below(400)));
        println!("node {victim}, which {role}, is killed");
        cast.nodes.kill(victim);
        thread::sleep(Duration::from_millis(random.below(1500)));
        cast.nodes.run(&[victim]);
        cast.await_done(&moves);
        work.await_progress();
        cast.await_tidy();
    }

    // The group's coordinator moves, and what it has committed with it.
    let offsets: Moves = (0..3)
        .map(|number| {
            let found = await_partition(&addresses, OFFSETS, number, |it| it.leader.is_some());
            let stay = found.replicas.iter().copied().filter(|node| Some(*node) != found.leader);
            (number, Some(stay.collect()))
        })
        .collect();
    begin(addresses[0], OFFSETS, &offsets);
    for (number, replicas) in &offsets {
        // Who led it goes, and comes back: the cluster wants three replicas of it.
        let stay = replicas.as_ref().expect("a place");
        await_leader(&addresses, OFFSETS, *number, |node| stay.contains(&node));
    }
    work.await_group();

    // A move that cannot end, taken back.
    let moves = cast.turned();
    let target = moves[&0].clone().expect("a place");
    let before: Moves = [(0, Some(cast.replicas(0)))].into();
    cast.nodes.kill(target[1]);
    let asked = cast.nodes.others(target[1])[0];
    begin(asked, TOPIC, &[(0, Some(target.clone()))].into());
    thread::sleep(Duration::from_millis(random.below(600)));
    assert_eq!(listed(asked, TOPIC), Some(vec![0]));
    let answers = alter(asked, TOPIC, &[(0, None)].into());
    assert_eq!(answers, [(0, ErrorCode::NONE)].into());
    // It may be through already.
    let again = alter(asked, TOPIC, &[(0, None)].into())[&0];
    assert!(
        [ErrorCode::NONE, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS].contains(&again),
        "{again:?}"
    );
    await_replicas(&cast.nodes.others(target[1]), TOPIC, 0, before[&0].as_ref().expect("a place"));
    cast.nodes.run(&[target[1]]);
    cast.await_done(&before);
    let answers = alter(asked, TOPIC, &[(0, None)].into());
    assert_eq!(answers, [(0, ErrorCode::NO_REASSIGNMENT_IN_PROGRESS)].into());
    cast.await_tidy();

    println!("{} records", work.end().check());
    cast.nodes.stop();
}

/// One replica moves around, and comes back to where it was: nobody's vote counts twice, and the
/// log it finds there is the one that it brings.
#[test]
fn a_single_replica_comes_back_to_where_it_was() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 1, 1, &[]);
    let first = await_leader(&addresses, TOPIC, 0, |_| true);
    let write = |expected: i64| {
        until("nothing is written", || {
            let mut link = connect(leader_of(&addresses, TOPIC, 0)?).ok()?;
            let answer = wire::produce(&mut link, TOPIC, 0, wire::batch(&[b"one"])).ok()?;
            let is_there = answer.error_code.is_none();
            assert!(!is_there || answer.base_offset == expected, "{}", answer.base_offset);
            is_there.then_some(())
        });
    };
    write(0);
    for round in 0..2 {
        for step in 1..=3_i64 {
            let node = NODES[(NODES.iter().position(|it| *it == first).expect("one of them")
                + step as usize)
                % 3];
            begin(addresses[0], TOPIC, &[(0, Some(vec![node]))].into());
            await_replicas(&addresses, TOPIC, 0, &[node]);
            write(round * 3 + step);
            for other in NODES.into_iter().filter(|other| *other != node) {
                let log = nodes.directory.join(other.to_string()).join(format!("{TOPIC}-0"));
                until("a log stays where it is not kept", || (!log.exists()).then_some(()));
            }
        }
        nodes.kill_all();
        nodes.run_all();
        await_leader(&addresses, TOPIC, 0, |node| node == first);
    }
    nodes.stop();
}

#[test]
fn leaders_go_where_they_are_preferred() {
    let nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 3, 3, &[]);
    let elect = |kind: i8, partitions: Option<Vec<i32>>| {
        let asked = partitions
            .map(|partitions| vec![TopicPartitions { topic: Str::from(TOPIC), partitions }]);
        let request = ElectLeadersRequest {
            election_type: kind,
            topic_partitions: asked,
            ..ElectLeadersRequest::default()
        };
        let answer = connect(addresses[2]).expect("a connection").call(&request);
        let results = answer.expect("an answer").replica_election_results;
        let results = results.into_iter().flat_map(|it| it.partition_result);
        results.map(|it| (it.partition_id, it.error_code)).collect::<Vec<_>>()
    };
    for number in 0..3 {
        let leader = await_leader(&addresses, TOPIC, number, |_| true);
        // The order alone is another: that takes nobody any time.
        let mut turned: Vec<i32> = NODES.into_iter().filter(|node| *node != leader).collect();
        turned.push(leader);
        begin(addresses[0], TOPIC, &[(number, Some(turned.clone()))].into());
        await_partition(&addresses[2..], TOPIC, number, |it| {
            it.replicas == turned && it.in_sync.len() == 3
        });
        assert_eq!(elect(1, Some(vec![number])), [(number, ErrorCode::ELECTION_NOT_NEEDED)]);
        assert_eq!(elect(0, Some(vec![number])), [(number, ErrorCode::NONE)]);
        await_leader(&addresses, TOPIC, number, |node| node == turned[0]);
        await_leader(&addresses[2..], TOPIC, number, |node| node == turned[0]);
        assert_eq!(elect(0, Some(vec![number])), [(number, ErrorCode::ELECTION_NOT_NEEDED)]);
    }
    assert_eq!(elect(0, None), [], "of all, those are told that were not where they should be");
    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
    assert_eq!(elect(0, Some(vec![9])), [(9, unknown)]);
    nodes.stop();
}
