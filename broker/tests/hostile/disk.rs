//! A disk that fills: clients' writes are refused, reads and deletions go on, a start is possible,
//! and everything comes back by itself.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use vltava_protocol::error_code::ErrorCode;

use crate::support::mounts::{Mounted, free_bytes};
use crate::support::{self, Broker, Options, PATIENCE, get, wire};

fn write(broker: &Broker, topic: &str, value: &[u8]) -> ErrorCode {
    let mut link = wire::connect(broker.address).unwrap();
    wire::produce(&mut link, topic, 0, wire::batch(&[value])).unwrap().error_code
}

fn create(broker: &Broker, topic: &str) -> ErrorCode {
    let mut link = wire::connect(broker.address).unwrap();
    wire::create_topic(&mut link, topic, 1, &[]).unwrap()
}

fn count(broker: &Broker, topic: &str) -> usize {
    let mut link = wire::connect(broker.address).unwrap();
    wire::read_all(&mut link, topic, 0).unwrap().len()
}

fn delete(broker: &Broker, topic: &str) {
    let mut link = wire::connect(broker.address).unwrap();
    assert_eq!(wire::delete_topic(&mut link, topic).unwrap(), ErrorCode::NONE);
}

/// Writes until it works again.
fn write_again(broker: &Broker, topic: &str) {
    again("write", || write(broker, topic, b"again"));
}

/// Creates until it works again: each shard looks for itself, once a second.
fn create_again(broker: &Broker, topic: &str) {
    again("creation", || create(broker, topic));
}

fn again(what: &str, attempt: impl Fn() -> ErrorCode) {
    let deadline = Instant::now() + PATIENCE;
    while !attempt().is_none() {
        assert!(Instant::now() < deadline, "a {what} is refused although there is space");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn below_the_reserve() {
    const BALLAST_BYTES: u64 = 4 << 30;
    let mut broker = Broker::start(Options::default());
    assert_eq!(create(&broker, "t"), ErrorCode::NONE);
    assert_eq!(create(&broker, "gone"), ErrorCode::NONE);
    assert_eq!(write(&broker, "t", b"before"), ErrorCode::NONE);
    assert!(broker.stop().success());
    let ballast = broker.data.with_file_name("ballast");
    let free = free_bytes(&broker.data);
    let length = BALLAST_BYTES.to_string();
    let made = Command::new("fallocate").args(["-l", &length]).arg(&ballast).status();
    if !made.is_ok_and(|status| status.success()) {
        support::leave_out("below the reserve", "there is no space for a file of 4 GiB");
        return;
    }
    // Others use this disk, too: there is room for 2 GiB of theirs on either side.
    let reserve = free.saturating_sub(BALLAST_BYTES / 2);
    broker.options.settings.push(("disk.reserve.bytes", reserve.to_string()));
    for _ in 0..2 {
        broker.run();
        // From the first moment on.
        assert_eq!(write(&broker, "t", b"refused"), ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!(create(&broker, "new"), ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!(count(&broker, "t"), 1);
        assert!(broker.stop().success());
    }
    broker.run();
    delete(&broker, "gone");
    fs::remove_file(&ballast).unwrap();
    write_again(&broker, "t");
    create_again(&broker, "new");
    assert_eq!(count(&broker, "t"), 2);
}

#[test]
fn a_full_disk_in_memory() {
    let directory = support::directory();
    let arguments = ["-t", "tmpfs", "-o", "size=64m", "none"];
    if let Some(small) = Mounted::new(directory.path(), &arguments, "a full disk in memory") {
        fill(&small.0);
    }
}

#[test]
fn a_full_disk_with_a_file_system() {
    let directory = support::directory();
    let what = "a full disk with a file system";
    if let Some(small) = Mounted::image(directory.path(), 96 << 20, what) {
        fill(&small.0);
    }
}

/// Fills the disk to its last byte, starts again, and makes space.
fn fill(small: &Path) {
    let data = small.join("data");
    fs::create_dir(&data).unwrap();
    let mut broker = Broker::new(Options::default(), &data);
    broker.options.settings.push(("disk.reserve.bytes", "0".to_owned()));
    broker.run();
    for topic in ["t", "large"] {
        assert_eq!(create(&broker, topic), ErrorCode::NONE);
        assert_eq!(write(&broker, topic, b"before"), ErrorCode::NONE);
    }
    let value = vec![7; 512 << 10];
    let mut written = 1;
    let refused = loop {
        match write(&broker, "large", &value) {
            ErrorCode::NONE => written += 1,
            error => break error,
        }
        assert!(written < 1000, "it does not fill");
    };
    assert_eq!(refused, ErrorCode::KAFKA_STORAGE_ERROR);
    // What is left goes to a file of somebody else.
    let other = small.join("other");
    let into = format!("of={}", other.display());
    let rest = Command::new("dd").args(["if=/dev/zero", "bs=4096", &into]).output().unwrap();
    assert!(!rest.status.success(), "it is not full");
    for _ in 0..2 {
        assert_eq!(write(&broker, "large", &value), ErrorCode::KAFKA_STORAGE_ERROR);
        assert_eq!(count(&broker, "large"), written);
        broker.restart();
    }
    let (status, reasons) = get(broker.admin, "/ready").unwrap();
    assert_eq!(status, 200, "{reasons}");
    delete(&broker, "large");
    write_again(&broker, "t");
    fs::remove_file(&other).unwrap();
    write_again(&broker, "t");
    assert!(count(&broker, "t") >= 2);
    create_again(&broker, "new");
    assert_eq!(write(&broker, "new", b"value"), ErrorCode::NONE);
    broker.kill();
    broker.run();
    assert_eq!(count(&broker, "new"), 1);
}
