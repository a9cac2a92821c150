//! Nothing acknowledged is lost while one node's disk is full, or slow; and the others do not wait
//! for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::nodes::{NODES, Nodes, Place, seed};
use crate::producer::Random;
use crate::support::leave_out;
use crate::support::mounts::Mounted;
use crate::view::{await_agreement, create_topic};
use crate::work::{PARTITIONS, Work};

const TOPIC: &str = "stored";
/// Whose disk it is.
const NODE: i32 = 2;
const SMALL_BYTES: u64 = 512 << 20;
/// What is kept free for the cluster's own records.
const RESERVE: &str = "67108864";
/// A disk that takes a second for what a busy node writes in a moment.
const SLOW_BYTES: u64 = 256 << 10;
/// How long it is slow: a limit counts in slices of time.
const MEASURED: Duration = Duration::from_secs(4);

fn others_led(work: &Work, node: i32) -> Vec<i32> {
    let led = work.led_by(node);
    (0..PARTITIONS).filter(|number| !led.contains(number)).collect()
}

fn begin(nodes: &mut Nodes) -> Work {
    nodes.run_all();
    let addresses = nodes.addresses();
    create_topic(addresses[0], TOPIC, PARTITIONS);
    await_agreement(&addresses, &[TOPIC]);
    let work = Work::begin(nodes.by_number(), TOPIC, &Random(seed()));
    work.await_progress();
    work.await_group();
    work
}

fn end(mut nodes: Nodes, work: Work, what: &str) {
    work.await_progress();
    work.await_group();
    work.await_whole();
    for node in NODES {
        assert!(nodes.node(node).is_running(), "node {node} ended by itself");
    }
    let history = work.end();
    nodes.kill_all();
    nodes.run_all();
    println!("{what}: {} records", history.check());
    nodes.stop();
}

/// Takes what is left of a file system.
fn fill(small: &Path) -> PathBuf {
    let ballast = small.join("ballast");
    let into = format!("of={}", ballast.display());
    let filled = Command::new("dd").args(["if=/dev/zero", "bs=64k", &into]).output();
    assert!(!filled.expect("dd").status.success(), "it is not full");
    ballast
}

#[test]
fn nothing_acknowledged_is_lost_while_a_disk_is_full() {
    let directory = crate::support::directory();
    let Some(small) = Mounted::image(directory.path(), SMALL_BYTES, "a full disk of a node") else {
        return;
    };
    let mut nodes = Nodes::places(&[("disk.reserve.bytes", RESERVE)], |node, directory| {
        let mut place = Place::local(node, directory);
        if node == NODE {
            place.data = small.0.join("data");
            fs::create_dir(&place.data).expect("a directory on the small disk");
        }
        place
    });
    let work = begin(&mut nodes);
    let ballast = fill(&small.0);
    // As a follower it falls behind, and is not waited for.
    let others = others_led(&work, NODE);
    for _ in 0..3 {
        work.await_progress_of(&others);
    }
    // What it has led, others lead; groups that it has coordinated go on, too.
    work.await_progress();
    work.await_group();
    // It is away, and the others lead all; it starts on a full disk.
    nodes.kill(NODE);
    work.await_takeover(NODE);
    nodes.run_all();
    work.await_progress();
    work.await_group();
    fs::remove_file(ballast).expect("the ballast");
    end(nodes, work, "full disk");
}

/// A limit to what a process writes to a disk, by the blkio controller of cgroup v1.
struct Slow {
    group: PathBuf,
    device: String,
}

impl Slow {
    const ROOT: &str = "/sys/fs/cgroup/blkio";
    const LIMIT: &str = "blkio.throttle.write_bps_device";

    /// For the disk that holds a path; `None`, said with its reason, where it cannot be limited.
    fn new(path: &Path, process: u32, what: &str) -> Option<Self> {
        let group = Path::new(Self::ROOT).join(format!("vltava-{}", std::process::id()));
        match disk_of(path).and_then(|device| {
            fs::create_dir_all(&group)?;
            // Removes the group again where the rest fails.
            let slow = Self { group, device };
            slow.limit(SLOW_BYTES)?;
            fs::write(slow.group.join("cgroup.procs"), process.to_string())?;
            Ok(slow)
        }) {
            Ok(slow) => Some(slow),
            Err(error) => {
                leave_out(what, format_args!("no cgroup (v1, blkio) limits writes: {error}"));
                None
            }
        }
    }

    /// Nought is no limit.
    fn limit(&self, bytes: u64) -> std::io::Result<()> {
        fs::write(self.group.join(Self::LIMIT), format!("{} {bytes}", self.device))
    }
}

impl Drop for Slow {
    fn drop(&mut self) {
        let _unlimited = self.limit(0);
        let within = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
        for process in within.lines() {
            let _moved = fs::write(Path::new(Self::ROOT).join("cgroup.procs"), process);
        }
        let _gone = fs::remove_dir(&self.group);
    }
}

/// The numbers of the whole disk below a path, as cgroups name it.
fn disk_of(path: &Path) -> std::io::Result<String> {
    let device = fs::metadata(path)?.dev();
    let (major, minor) = ((device >> 8) & 0xfff, (device & 0xff) | ((device >> 12) & 0xfff00));
    let own = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    let whole = if own.join("partition").exists() { own.join("../dev") } else { own.join("dev") };
    Ok(fs::read_to_string(whole)?.trim().to_owned())
}

/// Bytes that a process has had written to a disk.
fn written(process: u32) -> u64 {
    let said = fs::read_to_string(format!("/proc/{process}/io")).expect("what it has written");
    let line = said.lines().find_map(|line| line.strip_prefix("write_bytes: "));
    line.expect("a line").parse().expect("a number")
}

#[test]
fn nothing_acknowledged_is_lost_while_a_disk_is_slow() {
    let mut nodes = Nodes::places(&[], Place::local);
    let work = begin(&mut nodes);
    let data = nodes.node(NODE).data.clone();
    let process = nodes.node(NODE).process_id();
    if let Some(slow) = Slow::new(&data, process, "a slow disk of a node") {
        let other = nodes.node(if NODE == 1 { 3 } else { 1 }).process_id();
        let before = [process, other].map(written);
        let began = Instant::now();
        while began.elapsed() < MEASURED {
            // Not of the group: what its coordinator commits waits for its own disk, which may be
            // this one.
            work.await_progress();
        }
        let seconds = began.elapsed().as_secs_f64();
        let after = [process, other].map(written);
        let [own, others] = [0, 1].map(|at| (after[at] - before[at]) as f64 / seconds);
        println!("the slow disk takes {own:.0} bytes a second, another {others:.0}");
        assert!(others > SLOW_BYTES as f64 * 2.0, "nothing to be slow for");
        assert!(own < others / 2.0, "it is not slow");
        drop(slow);
    }
    end(nodes, work, "slow disk");
}
