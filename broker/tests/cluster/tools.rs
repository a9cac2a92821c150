//! Kafka's own tools see a Kafka cluster: the tools of `tests/clients/tools`, against three nodes.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use crate::nodes::{Nodes, vltava};
use crate::support::{is_ci, is_here, leave_out, root, signal, wire};
use crate::throttles::{LEADER_RATE, await_described};
use crate::view::{
    await_agreement, await_partition, connect, create_topic_with, leader_of, partition, until,
};

const TOPIC: &str = "seen";
const PARTITIONS: i32 = 4;
const RECORDS: usize = 25;

/// Whether what the tools need is missing: said by name, and a failure in CI.
pub fn is_skipped() -> bool {
    let Some(missing) = ["java", "mvn"].into_iter().find(|it| !is_here(it)) else { return false };
    assert!(!is_ci(), "Kafka's tools cannot run: {missing} is missing");
    leave_out("Kafka's tools", format_args!("{missing} is missing"));
    true
}

/// Kafka's tools, and the cluster they look at.
pub struct Tools {
    bootstrap: String,
    /// For what they read from files.
    directory: PathBuf,
}

impl Tools {
    pub fn new(nodes: &Nodes) -> Self {
        Self { bootstrap: nodes.bootstrap(), directory: nodes.directory.clone() }
    }

    /// What one says, which must succeed: its class, and its arguments in one line.
    pub fn run(&self, class: &str, arguments: &str) -> String {
        let output = self.output(class, arguments);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{class} {arguments}: {}\n{said}{errors}", output.status);
        said
    }

    /// The same, however it ends.
    pub fn output(&self, class: &str, arguments: &str) -> Output {
        self.command(class, "--bootstrap-server", arguments).output().expect("bash")
    }

    fn command(&self, class: &str, servers: &str, arguments: &str) -> Command {
        let mut command = Command::new(root().join("tests/clients/tools/tool"));
        command.arg(format!("org.apache.kafka.tools.{class}"));
        let (first, behind) = arguments.split_once(' ').unwrap_or((arguments, ""));
        // Where it begins with another word, that says what the options are.
        let (first, behind) = if first.starts_with("--") || class == "MetadataQuorumCommand" {
            ("", arguments)
        } else {
            (first, behind)
        };
        command.args(first.split_whitespace()).args([servers, &self.bootstrap]);
        command.args(behind.split_whitespace());
        command.env("CLIENTS_WORK", root().join("target/clients"));
        command
    }

    fn topics(&self, arguments: &str) -> String {
        self.run("TopicCommand", arguments)
    }

    /// A file with this text, for a tool to read.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    }
}

/// The lines that begin so, behind white space.
fn lines<'a>(said: &'a str, begin: &str) -> Vec<&'a str> {
    said.lines().map(str::trim).filter(|line| line.starts_with(begin)).collect()
}

/// What stands behind `Name:` up to the next tab.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let behind = line.split_once(&format!("{name}:")).unwrap_or_else(|| panic!("{name} in {line}"));
    behind.1.split('\t').find(|part| !part.is_empty()).unwrap_or_default().trim()
}

/// Numbers that stand in a list, in order of size.
fn numbers(list: &str) -> Vec<i32> {
    let mut numbers: Vec<i32> = list.split(',').filter_map(|it| it.trim().parse().ok()).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn kafkas_tools_see_a_kafka_cluster() {
    if is_skipped() {
        return;
    }
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, PARTITIONS, 3, &[("min.insync.replicas", "2")]);
    await_agreement(&addresses, &[TOPIC]);
    for number in 0..PARTITIONS {
        let leader = leader_of(&addresses, TOPIC, number).expect("a leader");
        let mut link = connect(leader).expect("a connection");
        let batch = wire::batch(&[&b"record"[..]; RECORDS]);
        let answer = wire::produce(&mut link, TOPIC, number, batch).expect("an answer");
        assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
    }
    let tools = Tools::new(&nodes);
    all_is_well(&tools);
    offsets_are_found(&tools);
    disks_are_listed(&tools);
    brokers_are_listed(&tools, &nodes);
    quorum_is_described(&tools);
    groups_are_described(&tools);

    nodes.kill(3);
    until("node 3 does not leave the in-sync sets", || {
        let others = nodes.others(3);
        let left = |number| {
            partition(&others, TOPIC, number)
                .is_some_and(|it| it.leader.is_some_and(|it| it != 3) && !it.in_sync.contains(&3))
        };
        (0..PARTITIONS).all(left).then_some(())
    });
    one_is_missing(&tools);
    nodes.run_all();
    await_agreement(&addresses, &[TOPIC]);

    leaders_are_preferred(&tools, &nodes);
    replicas_are_reassigned(&tools, &nodes);
    replicas_are_alike(&tools);
    nodes.stop();
}

fn all_is_well(tools: &Tools) {
    let said = tools.topics(&format!("--describe --topic {TOPIC}"));
    let summary = lines(&said, "Topic:")[0];
    assert_eq!(field(summary, "PartitionCount"), "4", "{said}");
    assert_eq!(field(summary, "ReplicationFactor"), "3", "{said}");
    let partitions = &lines(&said, "Topic:")[1..];
    assert_eq!(partitions.len(), 4, "{said}");
    for line in partitions {
        assert!([1, 2, 3].contains(&field(line, "Leader").parse().expect("a node")), "{line}");
        assert_eq!(numbers(field(line, "Replicas")), [1, 2, 3], "{line}");
        assert_eq!(numbers(field(line, "Isr")), [1, 2, 3], "{line}");
        assert_eq!(field(line, "Elr"), "", "{line}");
    }
    for which in ["under-replicated", "at-min-isr", "under-min-isr", "unavailable"] {
        let said = tools.topics(&format!("--describe --{which}-partitions"));
        assert_eq!(lines(&said, "Topic:"), [""; 0], "{which}");
    }
}

fn offsets_are_found(tools: &Tools) {
    let said = tools.run("GetOffsetShell", &format!("--topic {TOPIC} --time latest"));
    let expected: Vec<String> =
        (0..PARTITIONS).map(|number| format!("{TOPIC}:{number}:{RECORDS}")).collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

fn disks_are_listed(tools: &Tools) {
    let said = tools.run("LogDirsCommand", &format!("--describe --topic-list {TOPIC}"));
    for node in 1..=3 {
        assert!(said.contains(&format!("\"broker\":{node}")), "{said}");
    }
    for number in 0..PARTITIONS {
        let named = said.matches(&format!("\"{TOPIC}-{number}\"")).count();
        assert_eq!(named, 3, "replicas of partition {number}: {said}");
    }
    assert_eq!(said.matches("\"error\":null").count(), 3, "{said}");
}

fn brokers_are_listed(tools: &Tools, nodes: &Nodes) {
    let said = tools.run("BrokerApiVersionsCommand", "");
    for (node, address) in nodes.by_number() {
        assert!(said.contains(&format!("{address} (id: {node} ")), "{said}");
    }
    let said = tools.run("ClusterTool", "list-endpoints");
    for (node, address) in nodes.by_number() {
        let port = address.port().to_string();
        let listed = said.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&node.to_string().as_str()) && words.contains(&port.as_str())
        });
        assert!(listed, "node {node}: {said}");
    }
}

fn quorum_is_described(tools: &Tools) {
    let said = tools.run("MetadataQuorumCommand", "describe --status");
    let leader: i32 = field(&said.replace('\n', "\t"), "LeaderId").parse().expect("a node");
    assert!([1, 2, 3].contains(&leader), "{said}");
    for node in 1..=3 {
        assert!(field(&said, "CurrentVoters").contains(&format!("\"id\": {node}")), "{said}");
    }
    let said = tools.run("MetadataQuorumCommand", "describe --replication");
    let status = |line: &str| line.split_whitespace().last().unwrap_or_default().to_owned();
    let mut found: Vec<String> = said.lines().skip(1).map(status).collect();
    found.sort_unstable();
    assert_eq!(found, ["Follower", "Follower", "Leader"], "{said}");
}

fn groups_are_described(tools: &Tools) {
    let read = vltava(&["consume", TOPIC, "-g", "lookers", "-c", "100", "-b", &tools.bootstrap]);
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
    let class = "consumer.group.ConsumerGroupCommand";
    let said = tools.run(class, "--describe --group lookers");
    for number in 0..PARTITIONS {
        let words: Vec<&str> = said
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .find(|words| {
                words.get(1) == Some(&TOPIC) && words.get(2) == Some(&&*number.to_string())
            })
            .unwrap_or_default();
        assert_eq!(words.get(3..6), Some(&["25", "25", "0"][..]), "{said}");
    }
    let said = tools.run(class, "--describe --group lookers --state");
    let coordinator = said.split_once("(").and_then(|(_, behind)| behind.split_once(')'));
    let coordinator = coordinator.map_or("", |(_, rest)| rest);
    assert!(said.contains("Empty") && !coordinator.is_empty(), "{said}");
}

/// With node 3 away, as many as `min.insync.replicas` asks for are left.
fn one_is_missing(tools: &Tools) {
    for which in ["under-replicated", "at-min-isr"] {
        let said = tools.topics(&format!("--describe --topic {TOPIC} --{which}-partitions"));
        let partitions = lines(&said, "Topic:");
        assert_eq!(partitions.len(), 4, "{which}: {said}");
        for line in partitions {
            assert_eq!(numbers(field(line, "Replicas")), [1, 2, 3], "{line}");
            assert_eq!(numbers(field(line, "Isr")), [1, 2], "{line}");
        }
    }
    for which in ["under-min-isr", "unavailable"] {
        let said = tools.topics(&format!("--describe --topic {TOPIC} --{which}-partitions"));
        assert_eq!(lines(&said, "Topic:"), [""; 0], "{which}");
    }
    offsets_are_found(tools);
    // Who is away is still a voter, and has been heard of least.
    let said = tools.run("MetadataQuorumCommand", "describe --replication");
    let heard = |node: &str| -> i64 {
        let mut lines = said.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        let words = lines.find(|words| words[0] == node).expect("a voter");
        words[4].parse().expect("a time")
    };
    assert!(heard("3") < heard("1").min(heard("2")), "{said}");
}

/// Who was away leads nothing, until it is asked to where it stands first.
fn leaders_are_preferred(tools: &Tools, nodes: &Nodes) {
    let arguments = "--election-type preferred --all-topic-partitions";
    tools.run("LeaderElectionCommand", arguments);
    for number in 0..PARTITIONS {
        await_partition(&nodes.addresses(), TOPIC, number, |it| {
            it.leader.is_some() && it.leader == it.replicas.first().copied()
        });
    }
}

/// To two replicas, in another order, and back to three.
fn replicas_are_reassigned(tools: &Tools, nodes: &Nodes) {
    for replicas in [&[3, 1][..], &[2, 1, 3]] {
        let plan: Vec<String> = (0..PARTITIONS)
            .map(|number| {
                format!(
                    "{{\"topic\":\"{TOPIC}\",\"partition\":{number},\"replicas\":{replicas:?}}}"
                )
            })
            .collect();
        let text = format!("{{\"version\":1,\"partitions\":[{}]}}", plan.join(","));
        let file = tools.file("plan.json", &text);
        let class = "reassign.ReassignPartitionsCommand";
        let throttle = "--throttle 50000000";
        let said =
            tools.run(class, &format!("--execute --reassignment-json-file {file} {throttle}"));
        assert!(said.contains("Successfully started partition reassignments"), "{said}");
        assert!(said.contains("The inter-broker throttle limit was set to 50000000 B/s"), "{said}");
        let asked = nodes.addresses()[1];
        await_described(asked, 3, LEADER_RATE, Some(("50000000".to_owned(), 2)));
        for number in 0..PARTITIONS {
            await_partition(&nodes.addresses(), TOPIC, number, |it| {
                let mut in_sync = it.in_sync.clone();
                in_sync.sort_by_key(|node| replicas.iter().position(|it| it == node));
                it.leader.is_some() && it.replicas == replicas && in_sync == replicas
            });
        }
        let said = tools.run(class, &format!("--verify --reassignment-json-file {file}"));
        assert_eq!(said.matches("is completed.").count(), 4, "{said}");
        assert!(said.contains("Clearing broker-level throttles on brokers 1,2,3"), "{said}");
        await_described(asked, 3, LEADER_RATE, None);
        let said = tools.run(class, "--list");
        assert!(said.contains("No partition reassignments found."), "{said}");
    }
    offsets_are_found(tools);
}

/// It never ends by itself: it is asked until it has compared once.
fn replicas_are_alike(tools: &Tools) {
    let arguments = format!("--topics-include {TOPIC} --report-interval-ms 500");
    let mut command = tools.command("ReplicaVerificationTool", "--broker-list", &arguments);
    let file = tools.directory.join("verified");
    let output = fs::File::create(&file).expect("a file");
    let mut process = command.stdout(output).spawn().expect("bash");
    let said = || fs::read_to_string(&file).unwrap_or_default();
    let found = until("kafka-replica-verification compares nothing", || {
        let said = said();
        let ended = process.try_wait().expect("its status");
        assert!(ended.is_none(), "{ended:?}: {said}");
        said.lines().find(|line| line.contains("max lag is")).map(str::to_owned)
    });
    // The script below it is replaced by `timeout`, which hands this on.
    signal(process.id(), "TERM");
    process.wait().expect("its status");
    assert!(found.contains("max lag is 0 "), "{found}");
    assert!(!said().contains("doesn't match"), "{}", said());
}

/// Of two replicas one is gone: the other leads once it is asked to.
#[test]
fn kafkas_tool_holds_an_unclean_election() {
    const THIN: &str = "thin";
    if is_skipped() {
        return;
    }
    let mut nodes = Nodes::start();
    let tools = Tools::new(&nodes);
    tools.topics(&format!("--create --topic {THIN} --replica-assignment 1:3"));
    await_partition(&nodes.addresses(), THIN, 0, |it| it.in_sync.len() == 2);
    nodes.kill(3);
    let left = nodes.others(3);
    await_partition(&left, THIN, 0, |it| it.leader.is_none());
    let arguments = format!("--election-type unclean --topic {THIN} --partition 0");
    let said = tools.run("LeaderElectionCommand", &arguments);
    assert!(said.contains("Successfully completed leader election (UNCLEAN)"), "{said}");
    await_partition(&left, THIN, 0, |it| it.leader == Some(1) && it.in_sync == [1]);
    let said = tools.run("LeaderElectionCommand", &arguments);
    assert!(said.contains("Valid replica already elected"), "{said}");
    nodes.run_all();
    await_partition(&nodes.addresses(), THIN, 0, |it| it.in_sync.len() == 2);
    nodes.stop();
}
