//! A signal to the harness alone: the broker that it started ends, and what it made is deleted.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use support::binary;
use tempfile::{TempDir, tempdir_in};
use vltava_bench::launch::Launched;
use vltava_client::blocking::Link;
use vltava_client::metadata::Metadata;
use vltava_protocol::messages::list_groups::ListGroupsRequest;

const ARGUMENTS: &str = "serve --data-dir {data} --listen 127.0.0.1:{port} --admin none --shards 1 \
                         --memory 512MiB --set group.initial.rebalance.delay.ms=0";
const SCENARIO: &str = "title = 'a test'\nrun = { warm_up_s = 0.0, duration_s = 60.0 }\n\
                        topics = { count = 2, partitions = 3 }\n\
                        [[producers]]\nrecords_per_second = 1000.0\n\
                        [[consumers]]\ncount = 2\ngroups = 1\n";

/// The harness, with these words, until it has said that it measures; what it says goes on.
fn measuring(directory: &Path, words: &[&str]) -> Child {
    let scenario = directory.join("scenario.toml");
    fs::write(&scenario, SCENARIO).unwrap();
    let mut harness = Command::new(env!("CARGO_BIN_EXE_vltava-bench"))
        .arg("run")
        .arg(&scenario)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(harness.stderr.take().unwrap()).lines();
    let is_measuring = said.by_ref().any(|line| line.unwrap().contains("1 s | acknowledged"));
    assert!(is_measuring, "it ended before");
    std::thread::spawn(move || said.for_each(drop));
    harness
}

fn interrupted(mut harness: Child, signal: Signal) -> ExitStatus {
    let pid = i32::try_from(harness.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, signal).unwrap();
    harness.wait().unwrap()
}

fn data_parent() -> TempDir {
    tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

#[test]
fn the_broker_that_was_started_ends_with_the_harness() {
    let (Some(binary), parent) = (binary(), data_parent()) else {
        return;
    };
    // The broker's own process number: `sh` becomes it.
    let pid = parent.path().join("pid");
    let script = parent.path().join("broker");
    let lines = format!("echo $$ >{}; exec {} \"$@\"", pid.display(), binary.display());
    fs::write(&script, lines).unwrap();
    let broker = format!("sh {} {ARGUMENTS}", script.display());
    let data = parent.path().display().to_string();
    let harness = measuring(parent.path(), &["--command", &broker, "--data", &data]);
    let process = fs::read_to_string(&pid).unwrap();
    let process = Path::new("/proc").join(process.trim());
    assert!(process.exists());
    let status = interrupted(harness, Signal::TERM);
    assert_eq!(status.signal(), Some(15), "{status}");
    assert!(!process.exists(), "the broker runs");
    let left = fs::read_dir(parent.path()).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().starts_with("vltava-")).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn topics_and_groups_of_an_interrupted_run_are_gone() {
    let (Some(binary), parent) = (binary(), data_parent()) else {
        return;
    };
    let command = format!("{} {ARGUMENTS}", binary.display());
    let broker = Launched::start(&command, parent.path()).unwrap();
    let address = broker.address().to_owned();
    let harness = measuring(parent.path(), &["--bootstrap", &address]);
    let mut link = Link::open(&address.parse().unwrap(), &"test".into()).unwrap();
    let topics = |link: &mut Link| link.call(&Metadata::request(None, false)).unwrap().topics.len();
    let groups = |link: &mut Link| link.call(&ListGroupsRequest::default()).unwrap().groups.len();
    assert!(topics(&mut link) >= 2);
    assert_eq!(groups(&mut link), 1);
    let status = interrupted(harness, Signal::INT);
    assert_eq!(status.signal(), Some(2), "{status}");
    assert!(TcpStream::connect(&address).is_ok(), "the broker is somebody else's");
    let names = link.call(&Metadata::request(None, false)).unwrap().topics;
    let names = names.iter().filter_map(|topic| topic.name.as_ref().map(ToString::to_string));
    let left: Vec<String> = names.filter(|name| name.starts_with("vltava-bench-")).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(groups(&mut link), 0);
    broker.stop().unwrap();
}

#[test]
fn what_cannot_be_run_ends_with_2_and_says_what_is_missing() {
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let ended = |words: &[&str]| {
        let harness = Command::new(env!("CARGO_BIN_EXE_vltava-bench"))
            .args(words)
            .stdin(Stdio::null())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&harness.stderr).into_owned();
        (harness.status.code(), said)
    };
    let start = scenarios.join("start.toml").display().to_string();
    let (code, said) = ended(&["run", &start]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--command"), "{said}");
    let (code, said) = ended(&["run", &start, "--command", "false", "--set", "run.duration=1"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("run.duration=1: unknown field"), "{said}");
    assert_eq!(ended(&["run", "--speed", "9"]).0, Some(2));
    let data = env!("CARGO_TARGET_TMPDIR");
    let (code, said) = ended(&["run", &start, "--command", "false", "--data", data]);
    assert_eq!(code, Some(1), "{said}");
    let gone = "127.0.0.1:1";
    assert_eq!(ended(&["produce", "--duration", "1", "--bootstrap", gone]).0, Some(1));
}

#[test]
fn a_disk_is_sampled_until_a_signal_comes() {
    let directory = data_parent();
    let mut harness = Command::new(env!("CARGO_BIN_EXE_vltava-bench"))
        .args(["disk", "--duration", "600"])
        .arg(directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // It writes: its file is there, and it listens for signals since before.
    while fs::read_dir(directory.path()).unwrap().next().is_none() {
        std::thread::yield_now();
    }
    std::thread::sleep(std::time::Duration::from_millis(200));
    let said = BufReader::new(harness.stdout.take().unwrap());
    let status = interrupted(harness, Signal::TERM);
    assert!(status.success(), "{status}");
    let line = said.lines().next().unwrap().unwrap();
    assert!(line.starts_with("p50 ") && line.contains("4 KiB with data sync"), "{line}");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
