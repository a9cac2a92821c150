//! A broker by its command: started, found ready, stopped, and nothing left of it.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

mod support;

use std::fs;
use std::net::TcpStream;
use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use support::binary;
use tempfile::{TempDir, tempdir_in};
use vltava_bench::launch::{LaunchError, Launched};
use vltava_bench::result::Interval;
use vltava_bench::run::{Observer, RunError, Target, run};
use vltava_bench::scenario::{End, Scenario};

const ARGUMENTS: &str = "serve --data-dir {data} --listen 127.0.0.1:{port} --admin none --shards 1 \
                         --memory 512MiB";

fn data_parent() -> TempDir {
    tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

fn entries(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn a_broker_is_started_on_an_empty_directory_and_leaves_nothing() {
    let (Some(binary), parent) = (binary(), data_parent()) else {
        return;
    };
    let command = format!("{} {ARGUMENTS}", binary.display());
    let broker = Launched::start(&command, parent.path()).unwrap();
    assert!(entries(&broker.data()) > 0, "it wrote where it was told to");
    let name = fs::read_to_string(format!("/proc/{}/comm", broker.pid())).unwrap();
    assert_eq!(name.trim(), binary.file_name().unwrap().to_str().unwrap(), "the broker itself");
    let address = broker.address().to_owned();
    assert!(TcpStream::connect(&address).is_ok());
    broker.stop().unwrap();
    assert!(TcpStream::connect(&address).is_err(), "it ended");
    assert_eq!(entries(parent.path()), 0, "and its data is gone");
}

#[test]
fn a_command_that_is_not_the_broker_is_found_out() {
    let (Some(binary), parent) = (binary(), data_parent()) else {
        return;
    };
    let pid_file = parent.path().join("pid");
    let script =
        format!("{} {ARGUMENTS} & echo $! >{}; wait", binary.display(), pid_file.display());
    let broker = Launched::start(&format!("sh -c '{}'", script.replace('\'', "")), parent.path());
    let stopped = broker.unwrap().stop();
    let pid: i32 = fs::read_to_string(pid_file).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert!(matches!(stopped, Err(LaunchError::Detached(_))), "{stopped:?}");
}

#[test]
fn a_broker_that_is_killed_and_started_again_has_all_that_it_acknowledged() {
    let (Some(binary), parent) = (binary(), data_parent()) else {
        return;
    };
    let scenario = Scenario::parse(
        "title = 'a test'\nrun = { warm_up_s = 0.0, duration_s = 0.5 }\n\
         topics = { count = 2, partitions = 5 }\n\
         fill = { bytes = 3_000_000, record_bytes = 1000, batch_bytes = 9000 }\n\
         restart = { end = 'kill', drop_page_cache = true }\n",
    );
    let scenario = scenario.unwrap();
    let command = format!("{} {ARGUMENTS}", binary.display());
    let mut broker = Launched::start(&command, parent.path()).unwrap();
    let first_life = broker.pid();
    let target = Target {
        bootstrap: vec![broker.address().to_owned()],
        broker_pid: Some(first_life),
        ..Target::default()
    };
    let ours = run(&scenario, &target, None, &mut ()).unwrap_err();
    assert!(matches!(ours, RunError::NotOurs), "{ours}");

    let result = run(&scenario, &target, Some(&mut broker), &mut ()).unwrap();
    assert_ne!(broker.pid(), first_life, "it was started again");
    let verification = &result.verification;
    assert!(verification.is_sound(), "{verification:?}");
    // One more was written to it when it was back.
    assert_eq!((verification.received, verification.expected), (3001, 3001));
    let restarted = result.preparation.restart.unwrap();
    assert!(restarted.answered_s > 0.0, "{restarted:?}");
    assert!(restarted.led_s >= restarted.answered_s, "{restarted:?}");
    assert!(restarted.acknowledged_s > restarted.led_s, "{restarted:?}");
    assert!(result.preparation.started_s.is_some_and(|seconds| seconds > 0.0));
    assert!(result.preparation.topics_s.is_some_and(|seconds| seconds > 0.0));
    assert!(result.preparation.memory.unwrap().at_first_bytes > 0);
    assert!(result.broker.unwrap().memory_bytes > 0, "that of its second life");
    broker.stop().unwrap();
}

#[test]
fn a_broker_that_comes_back_under_load_spoils_nothing() {
    /// Kills the broker in the first second, and starts it again.
    struct Killer<'a> {
        broker: &'a mut Launched,
        kills: u32,
    }
    impl Observer for Killer<'_> {
        fn second(&mut self, _: &Interval) {
            if self.kills == 0 {
                self.broker.end(End::Kill).unwrap();
                self.broker.start_again().unwrap();
            }
            self.kills += 1;
        }
    }
    let (Some(binary), parent) = (binary(), data_parent()) else {
        return;
    };
    // So many partitions that they are fetched in a session.
    let scenario = Scenario::parse(
        "title = 'a test'\nrun = { warm_up_s = 0.0, duration_s = 3.0 }\n\
         topics = { partitions = 20 }\n\
         [[producers]]\nrecords_per_second = 2000.0\nkeys = 100\nidempotent = true\n\
         [[producers]]\nrecords_per_second = 2000.0\nrecord_bytes = 100\n\
         [[producers]]\nbatch_bytes = 20000\nin_flight = 3\nacks = '1'\n\
         [[consumers]]\n",
    );
    let scenario = scenario.unwrap();
    let command = format!("{} {ARGUMENTS}", binary.display());
    let mut broker = Launched::start(&command, parent.path()).unwrap();
    let bootstrap = vec![broker.address().to_owned()];
    let target = Target { bootstrap, ..Target::default() };
    let mut killer = Killer { broker: &mut broker, kills: 0 };
    let result = run(&scenario, &target, None, &mut killer).unwrap();
    let verification = &result.verification;
    assert!(verification.is_sound(), "{verification:?}");
    assert!(verification.reconnects >= 4, "each client lost its connection: {verification:?}");
    assert!(verification.resent > 0, "{verification:?}");
    let records = result.timeline.last().unwrap().consumed.records;
    assert!(records > 2000, "it went on afterwards");
    broker.stop().unwrap();
}
