//! Consumers read from the replica of their rack (KIP-392), for as long as it is there and has
//! what they ask for; then from the leader.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use vltava_client::blocking::Link;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{FetchRequest, PartitionData};
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes, Place};
use crate::promises::{TOPIC, leader, write};
use crate::support::wire::FETCH_VERSION;
use crate::support::{self, is_ci, is_here, leave_out, signal, wire};
use crate::view::{await_partition, connect, create_topic_with, until, within};

/// Java is compiled first, and fetches what that takes.
const READER_TIME_MAX: Duration = Duration::from_secs(300);
/// How long it may take in all, as `timeout` reads it.
const READ_TIME_MAX: &str = "400s";
/// Records that are there before anybody reads.
const FIRST: i64 = 10;

fn rack(node: i32) -> &'static str {
    ["a", "b", "c"][node as usize - 1]
}

fn fetch(link: &mut Link, version: i16, rack: &str, offset: i64) -> PartitionData {
    let mut request = wire::fetch_request(TOPIC, 0, offset);
    request.rack_id = Str::from(rack);
    link.send_at(&request, version).expect("it is sent");
    let mut answer = link.receive::<FetchRequest>().expect("an answer");
    answer.responses.remove(0).partitions.remove(0)
}

/// Bytes of batches that a node has given to who fetched.
fn given(nodes: &mut Nodes, node: i32) -> u64 {
    let admin = nodes.node(node).admin;
    let (_, page) = support::get(admin, "/metrics").expect("its metrics");
    let line = page.lines().find(|line| line.starts_with("vltava_fetched_bytes_total"));
    let number = line.and_then(|line| line.rsplit(' ').next());
    number.and_then(|number| number.parse().ok()).expect("a number of bytes")
}

/// Three nodes in a rack each, and a topic of [`FIRST`] records.
fn start() -> (Nodes, i32, Link) {
    let mut nodes = Nodes::places(
        &[
            ("replica.selector.class", "org.apache.kafka.common.replica.RackAwareReplicaSelector"),
            ("replica.lag.time.max.ms", "2000"),
        ],
        Place::local,
    );
    for node in NODES {
        nodes.set(node, &[("broker.rack", rack(node))]);
    }
    nodes.run_all();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 1, 3, &[]);
    await_partition(&addresses, TOPIC, 0, |it| it.in_sync.len() == 3);
    let (number, mut link) = leader(&nodes);
    for _ in 0..FIRST {
        assert_eq!(write(&mut link, -1, 30_000), ErrorCode::NONE);
    }
    (nodes, number, link)
}

/// One that does not lead.
fn another(leader: i32) -> i32 {
    NODES.into_iter().find(|node| *node != leader).expect("another")
}

#[test]
fn consumers_read_from_the_replica_of_their_rack() {
    let (mut nodes, number, mut link) = start();
    let near = another(number);
    let sent = until("it is not sent to its rack", || {
        let found = fetch(&mut link, 12, rack(near), 0);
        (found.preferred_read_replica >= 0).then_some(found)
    });
    assert_eq!((sent.error_code, sent.preferred_read_replica), (ErrorCode::NONE, near));
    assert!(sent.records.is_none_or(|records| records.is_empty()));
    for stays in [rack(number), "", "elsewhere"] {
        let found = fetch(&mut link, 12, stays, 0);
        assert_eq!(found.preferred_read_replica, -1, "rack {stays:?}");
        assert!(found.records.is_some_and(|records| !records.is_empty()), "rack {stays:?}");
    }
    let mut follower = connect(nodes.address(near)).expect("a connection");
    assert_eq!(fetch(&mut follower, 10, "", 0).error_code, ErrorCode::NOT_LEADER_OR_FOLLOWER);
    let found = fetch(&mut follower, 11, rack(near), 0);
    assert!(found.records.is_some_and(|records| !records.is_empty()));
    let beyond = fetch(&mut follower, 11, rack(near), 1_000);
    assert_eq!(beyond.error_code, ErrorCode::OFFSET_NOT_AVAILABLE, "who leads may have it");
    drop((link, follower));
    kcat_reads_from(&mut nodes, near);
    nodes.stop();
}

/// librdkafka, on all records from the first on and a few that come later.
fn kcat_reads_from(nodes: &mut Nodes, near: i32) {
    if !is_here("kcat") {
        assert!(!is_ci(), "kcat is missing");
        return leave_out("what librdkafka reads from its rack", "kcat is missing");
    }
    let before = NODES.map(|node| given(nodes, node));
    let bootstrap = nodes.bootstrap();
    let rack = format!("client.rack={}", rack(near));
    let arguments = ["-C", "-q", "-u", "-t", TOPIC, "-p", "0", "-o", "beginning", "-c", "15"];
    let mut command = Command::new("timeout");
    command.args(["60", "kcat", "-b", &bootstrap, "-X", &rack]).args(arguments);
    let reading = command.stdout(Stdio::piped()).spawn().expect("kcat starts");
    let mut written = Command::new("timeout")
        .args(["60", "kcat", "-b", &bootstrap, "-P", "-t", TOPIC, "-p", "0"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("kcat starts");
    let mut input = written.stdin.take().expect("its input");
    for number in 0..5 {
        writeln!(input, "later {number}").expect("it is read");
    }
    drop(input);
    assert!(written.wait().expect("its end").success());
    let read = reading.wait_with_output().expect("its end");
    assert!(read.status.success(), "kcat ended with {}", read.status);
    assert_eq!(String::from_utf8_lossy(&read.stdout).lines().count(), 15);
    for (node, before) in NODES.into_iter().zip(before) {
        let has_given = given(nodes, node) > before;
        assert_eq!(has_given, node == near, "node {node}, where the rack's is {near}");
    }
}

/// A fetch session of a consumer of one rack, which reads from the first record on again and again.
struct Session {
    link: Link,
    rack: &'static str,
    id: i32,
    epoch: i32,
}

impl Session {
    /// What the leader says of the partition, which only the first request names.
    fn ask(&mut self) -> PartitionData {
        let mut request = wire::fetch_request(TOPIC, 0, 0);
        request.rack_id = Str::from(self.rack);
        (request.session_id, request.session_epoch) = (self.id, self.epoch);
        if self.epoch > 0 {
            request.topics.clear();
        }
        self.link.send_at(&request, FETCH_VERSION).expect("it is sent");
        let mut answer = self.link.receive::<FetchRequest>().expect("an answer");
        assert_eq!(answer.error_code, ErrorCode::NONE);
        assert!(answer.session_id != 0 && [0, answer.session_id].contains(&self.id));
        (self.id, self.epoch) = (answer.session_id, self.epoch + 1);
        let told = answer.responses.remove(0).partitions.remove(0);
        assert_eq!(told.error_code, ErrorCode::NONE);
        let has_records = told.records.as_ref().is_some_and(|records| !records.is_empty());
        assert_eq!(has_records, told.preferred_read_replica == -1, "records, or where they are");
        told
    }

    /// Asks until the consumer is sent to this node (-1: to none); and once more, which says the
    /// same: nobody else has asked meanwhile.
    fn await_preferred(&mut self, node: i32, when: &str) {
        until(&format!("a session is not told to read from {node}, {when}"), || {
            (self.ask().preferred_read_replica == node).then_some(())
        });
        assert_eq!(self.ask().preferred_read_replica, node, "{when}");
    }
}

/// A consumer that cannot reach the replica of its rack comes back to the leader, which must not
/// send it there again; nor to one that is behind, though that is there.
#[test]
fn a_leader_sends_nobody_to_a_replica_that_is_away_or_behind() {
    let (mut nodes, number, link) = start();
    let near = another(number);
    let mut session = Session { link, rack: rack(near), id: 0, epoch: 0 };
    session.await_preferred(near, "at first");
    nodes.kill(near);
    session.await_preferred(-1, "its node being gone");
    nodes.run_all();
    session.await_preferred(near, "its node being back");

    // It takes no more of what clients write, and its node is there.
    let free = support::mounts::free_bytes(&nodes.directory);
    nodes.restart_with(near, &[("disk.reserve.bytes", &(free * 4).to_string())]);
    session.await_preferred(near, "after a restart");
    let mut link = connect(nodes.address(number)).expect("a connection");
    assert_eq!(write(&mut link, -1, 30_000), ErrorCode::NONE);
    session.await_preferred(-1, "being behind");
    assert!(nodes.node(near).is_running(), "it has ended");
    nodes.restart_with(near, &[("disk.reserve.bytes", "1")]);
    session.await_preferred(near, "having caught up");
    drop((session, link));
    nodes.stop();
}

/// Java's consumer, which notes in a file how far it has read.
struct Reader {
    process: Child,
    read: PathBuf,
    said: PathBuf,
}

impl Reader {
    fn begin(nodes: &Nodes, rack: &str) -> Self {
        let [read, stop, said] = ["read", "stop", "said"].map(|it| nodes.directory.join(it));
        let file = File::create(&said).expect("a file");
        let process = Command::new("timeout")
            .args(["--kill-after=10", READ_TIME_MAX])
            .arg(support::root().join("tests/clients/java/run"))
            .args([&nodes.bootstrap(), "-Dtest=Near"])
            .env("NEAR_TOPIC", TOPIC)
            .env("NEAR_RACK", rack)
            .env("NEAR_READ", &read)
            .env("NEAR_STOP", stop)
            .env("CLIENTS_WORK", support::root().join("target/clients"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the file again"))
            .stderr(file)
            .spawn()
            .expect("timeout starts");
        Self { process, read, said }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.said).unwrap_or_default()
    }

    /// Waits until it has read so many records.
    fn await_read(&mut self, records: i64) {
        within(READER_TIME_MAX, "Java's consumer reads nothing", || {
            let ended = self.process.try_wait().expect("its status");
            assert!(ended.is_none(), "{ended:?}\n{}", self.said());
            let read = fs::read_to_string(&self.read).ok()?.parse::<i64>().ok()?;
            (read == records).then_some(())
        });
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if self.process.try_wait().expect("its status").is_none() {
            signal(self.process.id(), "TERM");
            drop(self.process.wait());
        }
    }
}

/// It reads from its rack, from the leader while its rack's node is gone, and from its rack again.
#[test]
fn javas_consumer_reads_from_its_rack_while_that_is_there() {
    if let Some(missing) = ["javac", "mvn"].into_iter().find(|it| !is_here(it)) {
        assert!(!is_ci(), "{missing} is missing");
        return leave_out("what Java reads from its rack", format_args!("{missing} is missing"));
    }
    let (mut nodes, number, mut link) = start();
    let near = another(number);
    let before = NODES.map(|node| given(&mut nodes, node));
    let mut reader = Reader::begin(&nodes, rack(near));
    let mut records = FIRST;
    reader.await_read(records);
    for (node, before) in NODES.into_iter().zip(before) {
        let has_given = given(&mut nodes, node) > before;
        assert_eq!(has_given, node == near, "node {node}, where the rack's is {near}");
    }
    nodes.kill(near);
    let before = given(&mut nodes, number);
    assert_eq!(write(&mut link, -1, 30_000), ErrorCode::NONE);
    records += 1;
    reader.await_read(records);
    assert!(given(&mut nodes, number) > before, "it did not read from the leader");
    nodes.run_all();
    // It asks the leader again where to read once its metadata is old.
    until("it does not come back to its rack", || {
        let before = given(&mut nodes, near);
        assert_eq!(write(&mut link, -1, 30_000), ErrorCode::NONE);
        records += 1;
        reader.await_read(records);
        (given(&mut nodes, near) > before).then_some(())
    });
    File::create(nodes.directory.join("stop")).expect("a file");
    let status = reader.process.wait().expect("its status");
    assert!(status.success(), "{status}\n{}", reader.said());
    nodes.stop();
}
