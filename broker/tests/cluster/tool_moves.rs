//! kafka-reassign-partitions on a move that is under way, as slow as its throttle says: what it
//! tells of it, that it begins no second one, and how it cancels it. The words are those that it
//! says of a cluster of three Kafkas.

use vltava_protocol::error_code::ErrorCode;

use crate::nodes::Nodes;
use crate::producer::Random;
use crate::reassign::listed;
use crate::support::wire;
use crate::throttles::{LEADER_RATE, await_described};
use crate::tools::{Tools, is_skipped};
use crate::view::{await_partition, await_replicas, connect, leader_of, until};

const TOPIC: &str = "slow-moving";
const CLASS: &str = "reassign.ReassignPartitionsCommand";
/// Of each partition. At the throttle's rate they take longer than all that is tried meanwhile.
const BATCHES: usize = 32;
const BATCH_BYTES: usize = 64 << 10;
const THROTTLE: &str = "--throttle 20000";

/// Random bytes: as many go over the wire.
fn fill(nodes: &Nodes, number: i32) {
    let mut random = Random(7);
    for _ in 0..BATCHES {
        let value: Vec<u8> = (0..BATCH_BYTES).map(|_| random.below(256) as u8).collect();
        until("nothing is written", || {
            let mut link = connect(leader_of(&nodes.addresses(), TOPIC, number)?).ok()?;
            let answer = wire::produce(&mut link, TOPIC, number, wire::batch(&[&value])).ok()?;
            (answer.error_code == ErrorCode::NONE).then_some(())
        });
    }
}

/// What stands behind these words, up to the end of the next line that says something.
fn behind<'a>(said: &'a str, words: &str) -> &'a str {
    let rest = said.split_once(words).unwrap_or_else(|| panic!("{words}: {said}")).1;
    rest.lines().find(|line| !line.is_empty()).unwrap_or_default()
}

/// Both partitions go from two nodes to the third, and the tool says so.
fn a_move_is_under_way(tools: &Tools, plan: &str) {
    let said = tools.run(CLASS, &format!("--execute --reassignment-json-file {plan} {THROTTLE}"));
    let before = behind(&said, "Current partition replica assignment");
    assert!(before.contains(r#""partition":0,"replicas":[1,2]"#), "{said}");
    let begun = format!("Successfully started partition reassignments for {TOPIC}-0,{TOPIC}-1");
    assert!(said.contains(&begun), "{said}");

    let said = tools.run(CLASS, "--list");
    for line in [
        format!("{TOPIC}-0: replicas: 1,3,2. adding: 3. removing: 2."),
        format!("{TOPIC}-1: replicas: 2,3,1. adding: 3. removing: 1."),
    ] {
        assert!(said.contains(&line), "{line}, not\n{said}");
    }
    let said = tools.run(CLASS, &format!("--verify --reassignment-json-file {plan}"));
    for number in 0..2 {
        let line = format!("Reassignment of partition {TOPIC}-{number} is still in progress.");
        assert!(said.contains(&line), "{line}, not\n{said}");
    }
    let arguments = format!("--execute --reassignment-json-file {plan} {THROTTLE}");
    let refused = tools.output(CLASS, &arguments);
    let said = String::from_utf8_lossy(&refused.stdout);
    assert_eq!(refused.status.code(), Some(1), "{said}");
    assert!(said.contains("Cannot execute because there is an existing partition"), "{said}");
}

/// It goes back, faster than it came, since its throttle goes with it; nothing of it is left.
fn it_is_cancelled(tools: &Tools, nodes: &Nodes, plan: &str) {
    let cancel = format!("--cancel --reassignment-json-file {plan}");
    let said = tools.run(CLASS, &cancel);
    let line = format!("Successfully cancelled partition reassignments for: {TOPIC}-0,{TOPIC}-1");
    assert!(said.contains(&line), "{said}");
    assert!(said.contains("Clearing broker-level throttles on brokers 1,2,3"), "{said}");
    assert!(said.contains(&format!("Clearing topic-level throttles on topic {TOPIC}")), "{said}");
    let asked = nodes.addresses()[2];
    await_described(asked, 3, LEADER_RATE, None);
    until("it is still listed", || listed(asked, TOPIC)?.is_empty().then_some(()));
    for (number, replicas) in [(0, [1, 2]), (1, [2, 1])] {
        await_partition(&nodes.addresses(), TOPIC, number, |it| {
            it.leader.is_some() && it.replicas == replicas
        });
    }
    let said = tools.run(CLASS, &format!("--verify --reassignment-json-file {plan}"));
    for line in [
        format!("of partition {TOPIC}-0, but replica set is 1,2 rather than 1,3."),
        format!("of partition {TOPIC}-1, but replica set is 2,1 rather than 2,3."),
    ] {
        assert!(said.contains(&line), "{line}, not\n{said}");
    }
    let said = tools.run(CLASS, &cancel);
    assert!(said.contains("None of the specified partition reassignments are active."), "{said}");
    assert!(tools.run(CLASS, "--list").contains("No partition reassignments found."));
}

/// What the tool proposes itself.
fn a_proposal_is_executed(tools: &Tools, nodes: &Nodes) {
    let text = format!(r#"{{"version":1,"topics":[{{"topic":"{TOPIC}"}}]}}"#);
    let topics = tools.file("topics.json", &text);
    let generate = format!("--generate --topics-to-move-json-file {topics} --broker-list 2,3");
    let said = tools.run(CLASS, &generate);
    let now = behind(&said, "Current partition replica assignment");
    assert!(now.contains(r#""partition":1,"replicas":[2,1]"#), "{said}");
    let proposed = behind(&said, "Proposed partition reassignment configuration");
    let plan = tools.file("proposed.json", proposed);
    tools.run(CLASS, &format!("--execute --reassignment-json-file {plan}"));
    (0..2).for_each(|number| await_replicas(&nodes.addresses(), TOPIC, number, &[2, 3]));
    let verify = format!("--verify --reassignment-json-file {plan}");
    until("the move is not done", || {
        let said = tools.run(CLASS, &verify);
        (said.matches("is completed.").count() == 2).then_some(())
    });
}

#[test]
fn kafkas_tool_cancels_a_move_that_is_under_way() {
    if is_skipped() {
        return;
    }
    let nodes = Nodes::start();
    let tools = Tools::new(&nodes);
    let create = format!("--create --topic {TOPIC} --replica-assignment 1:2,2:1");
    tools.run("TopicCommand", &create);
    for (number, replicas) in [(0, [1, 2]), (1, [2, 1])] {
        await_replicas(&nodes.addresses(), TOPIC, number, &replicas);
        fill(&nodes, number);
    }
    let partition = |number: i32, replicas: &str| {
        format!(r#"{{"topic":"{TOPIC}","partition":{number},"replicas":[{replicas}]}}"#)
    };
    let moves = [partition(0, "1,3"), partition(1, "2,3")].join(",");
    let plan = tools.file("plan.json", &format!(r#"{{"version":1,"partitions":[{moves}]}}"#));
    a_move_is_under_way(&tools, &plan);
    it_is_cancelled(&tools, &nodes, &plan);
    a_proposal_is_executed(&tools, &nodes);
    nodes.stop();
}
