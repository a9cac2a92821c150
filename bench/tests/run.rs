//! Runs against a real `vltava`: what is told is what happened.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

mod support;

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use support::binary;
use tempfile::TempDir;
use vltava_bench::result::{Interval, RunResult};
use vltava_bench::run::{Observer, Target, run};
use vltava_bench::scenario::Scenario;
use vltava_client::blocking::Link;
use vltava_protocol::messages::list_groups::ListGroupsRequest;

/// What `vltava serve` says when it serves.
const READY: &str = "is ready";

struct Broker {
    process: Child,
    address: SocketAddr,
    _data: TempDir,
}

impl Broker {
    /// Starts one that serves; `None`: there is no binary.
    fn start() -> Option<Self> {
        let binary = binary()?;
        let data = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (address, admin) = (free_address(), free_address());
        let mut process = Command::new(binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(data.path())
            .args(["--listen", &address.to_string(), "--admin", &admin.to_string()])
            .args(["--shards", "1", "--memory", "512MiB"])
            .args(["--set", "group.initial.rebalance.delay.ms=0"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (out, err) = (process.stdout.take().unwrap(), process.stderr.take().unwrap());
        // Whichever of the two says it. Both are read to their end: a full pipe stops the broker.
        let (sender, said) = std::sync::mpsc::channel();
        let errors = sender.clone();
        thread::spawn(move || BufReader::new(out).lines().for_each(|line| drop(sender.send(line))));
        thread::spawn(move || BufReader::new(err).lines().for_each(|line| drop(errors.send(line))));
        let is_ready = said.iter().flatten().any(|line| line.contains(READY));
        assert!(is_ready, "the broker ended before it served");
        Some(Self { process, address, _data: data })
    }

    fn target(&self) -> Target {
        Target {
            label: "under test".to_owned(),
            bootstrap: vec![self.address.to_string()],
            command: None,
            broker_pid: Some(self.process.id()),
            disk_sample_dir: None,
            round: None,
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap()
}

fn scenario(text: &str) -> Scenario {
    let run = "title = 'a test'\n[run]\nwarm_up_s = 0.2\nduration_s = 1.0\n";
    Scenario::parse(&format!("{run}{text}")).unwrap()
}

fn lasting(warm_up_s: f64, duration_s: f64, mut scenario: Scenario) -> Scenario {
    (scenario.run.warm_up_s, scenario.run.duration_s) = (warm_up_s, duration_s);
    scenario
}

/// What is true of any run that went well.
fn check(result: &RunResult) {
    let verification = &result.verification;
    assert!(verification.is_sound(), "{verification:?}");
    assert!(verification.acknowledged > 0, "{verification:?}");
    assert_eq!(verification.received, verification.expected, "{verification:?}");
    assert!(result.broker.as_ref().unwrap().memory_bytes > 0);
    let network = &result.network;
    assert!(network.sent_bytes + network.received_bytes > 0, "{network:?}");
    let records = |of: fn(&Interval) -> u64| result.timeline.iter().map(of).sum::<u64>();
    assert_eq!(records(|second| second.produced.records), result.produced.records);
    assert_eq!(records(|second| second.consumed.records), result.consumed.records);
}

#[test]
fn all_kinds_of_load_are_verified() {
    let Some(broker) = Broker::start() else {
        return;
    };
    let keyed_to_groups = scenario(
        "[topics]\npartitions = 4\n\
         [[producers]]\ncount = 3\nrecords_per_second = 2000.0\nkeys = 50\nlinger_ms = 2.0\n\
         record_bytes = { min = 5, max = 300 }\ncodec = 'lz4'\nentropy = 0.5\nidempotent = true\n\
         [[consumers]]\ncount = 3\ngroups = 2\n[[consumers]]\n",
    );
    let result = run(&keyed_to_groups, &broker.target(), None, &mut ()).unwrap();
    check(&result);
    let verification = &result.verification;
    assert_eq!(verification.expected, 3 * verification.acknowledged, "three read everything");
    assert_eq!(result.acknowledged_us.as_ref().unwrap().count, 2000, "all that were intended");
    assert!(result.end_to_end_us.is_some());
    assert_eq!(groups(&broker), Vec::<String>::new(), "its groups are gone");

    let closed = scenario("[[producers]]\nbatch_bytes = 20000\nacks = '1'\n");
    let result = run(&closed, &broker.target(), None, &mut ()).unwrap();
    check(&result);
    assert_eq!(result.verification.expected, result.verification.acknowledged, "it was read back");

    let written_before = Scenario::parse(
        "title = 'a test'\nrun = { warm_up_s = 0.0, duration_s = 60.0 }\n\
         fill = { bytes = 3000000 }\n[[consumers]]\nfrom = 'beginning'\n",
    );
    let written_before = written_before.unwrap();
    let result = run(&written_before, &broker.target(), None, &mut ()).unwrap();
    check(&result);
    assert_eq!(result.consumed.records, 2930);
    assert!(result.measured_s < 60.0, "it ends when all is read");
}

/// Groups that the broker knows.
fn groups(broker: &Broker) -> Vec<String> {
    let address = broker.address.to_string().parse().unwrap();
    let mut link = Link::open(&address, &"test".into()).unwrap();
    let listed = link.call(&ListGroupsRequest::default()).unwrap();
    listed.groups.iter().map(|group| group.group_id.to_string()).collect()
}

#[test]
fn a_broker_that_dies_spoils_the_run() {
    let Some(broker) = Broker::start() else {
        return;
    };
    /// Kills the broker when the first second is over.
    struct Killer(Broker);
    impl Observer for Killer {
        fn second(&mut self, _: &Interval) {
            self.0.process.kill().unwrap();
            thread::sleep(Duration::from_millis(100));
        }
    }
    let endless = scenario("[[producers]]\nrecords_per_second = 1000.0\n[[consumers]]\n");
    let mut endless = lasting(0.0, 3.0, endless);
    endless.run.retry_s = 0.5;
    let mut target = broker.target();
    target.broker_pid = None;
    let result = run(&endless, &target, None, &mut Killer(broker)).unwrap();
    assert!(!result.verification.is_sound(), "{:?}", result.verification);
    assert!(!result.verification.faults.is_empty());
}
