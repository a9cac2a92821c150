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
