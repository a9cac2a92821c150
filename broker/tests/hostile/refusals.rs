//! Surroundings in which a broker cannot run: one clear line, an exit code, and nothing touched.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use vltava_protocol::error_code::ErrorCode;

use crate::support::{self, Broker, Options, wire};

/// Names and contents under a directory.
fn contents(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let Ok(entries) = fs::read_dir(path) else {
        return found;
    };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.path().is_dir() {
            let below = contents(&entry.path());
            found.extend(below.into_iter().map(|(key, value)| (format!("{name}/{key}"), value)));
            found.insert(name, Vec::new());
        } else {
            found.insert(name, fs::read(entry.path()).unwrap_or_default());
        }
    }
    found
}

/// The broker does not start; it says one line, which names what is wrong.
pub fn refuses(broker: &mut Broker, words: &[&str]) {
    let before = contents(&broker.data);
    let earlier = broker.errors().len();
    let Err(status) = broker.try_run() else {
        panic!("it started, in spite of {words:?}");
    };
    let said = broker.errors().split_off(earlier);
    assert!(!status.success(), "exit code {status}");
    assert!(status.code().is_some_and(|code| code != 101), "{status}, a panic:\n{said}");
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    assert_eq!(lines.len(), 1, "not one line:\n{said}");
    let lower = lines[0].to_lowercase();
    for word in words {
        assert!(lower.contains(&word.to_lowercase()), "{word:?} is not in {:?}", lines[0]);
    }
    assert_eq!(contents(&broker.data), before, "the directory was touched");
}

/// A broker that is not running; its directory is there where that is possible.
fn stopped(data: &Path) -> Broker {
    let _there_or_impossible = fs::create_dir(data);
    Broker::new(Options::default(), data)
}

#[test]
fn a_second_process_on_the_same_directory() {
    let mut first = Broker::start(Options::default());
    let mut second = stopped(&first.data.clone());
    let Err(status) = second.try_run() else { panic!("two processes share a directory") };
    assert!(!status.success());
    let said = second.errors();
    assert_eq!(said.lines().count(), 1, "not one line:\n{said}");
    assert!(said.contains(&*first.data.to_string_lossy()), "{said}");
    assert!(first.is_running());
    // The one that serves is not disturbed, and lets go of the directory when it ends.
    assert!(first.stop().success());
    second.run();
    assert!(second.stop().success());
}

#[test]
fn a_directory_that_a_killed_process_left() {
    let mut first = Broker::start(Options::default());
    first.kill();
    first.run();
    assert!(first.stop().success());
}

#[test]
fn a_port_in_use_by_another_program() {
    let directory = support::directory();
    let mut broker = stopped(&directory.path().join("data"));
    let _listener = TcpListener::bind(broker.address).expect("a free port");
    let port = broker.address.port().to_string();
    refuses(&mut broker, &[&port]);
}

#[test]
fn a_port_in_use_by_another_vltava() {
    let mut first = Broker::start(Options::default());
    let directory = support::directory();
    let mut second = stopped(&directory.path().join("data"));
    second.address = first.address;
    refuses(&mut second, &[&first.address.port().to_string()]);
    assert!(first.stop().success());
}

#[test]
fn an_admin_port_in_use() {
    let directory = support::directory();
    let mut broker = stopped(&directory.path().join("data"));
    let _listener = TcpListener::bind(broker.admin).expect("a free port");
    let port = broker.admin.port().to_string();
    refuses(&mut broker, &[&port]);
}

#[test]
fn a_directory_that_is_missing() {
    let directory = support::directory();
    let data = directory.path().join("nowhere");
    refuses(&mut Broker::new(Options::default(), &data), &["nowhere"]);
    assert!(!data.exists());
}

#[test]
fn a_directory_that_cannot_be() {
    let directory = support::directory();
    let file = directory.path().join("file");
    fs::write(&file, "not a directory").expect("a file");
    for data in [file.clone(), file.join("data"), "/proc/nowhere/data".into()] {
        refuses(&mut stopped(&data), &[&data.to_string_lossy()]);
    }
}

#[test]
fn a_directory_that_cannot_be_written() {
    let directory = support::directory();
    let data = directory.path().join("data");
    fs::create_dir(&data).expect("a directory");
    let mut broker = stopped(&data);
    refuses_read_only(&mut broker);
    // Nor one that was used before, and has everything that a start looks for.
    broker.options.wrapper.clear();
    broker.run();
    assert!(broker.stop().success());
    refuses_read_only(&mut broker);
}

fn refuses_read_only(broker: &mut Broker) {
    let data = broker.data.clone();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o555)).expect("its mode");
    if is_root() {
        // The super-user, without what makes it ignore permissions.
        let without = "-dac_override,-dac_read_search";
        broker.options.wrapper = ["setpriv", "--bounding-set", without, "--inh-caps", without]
            .map(str::to_owned)
            .to_vec();
    }
    refuses(broker, &[&data.to_string_lossy()]);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).expect("its mode");
}

pub fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("a number");
    output.stdout.starts_with(b"0\n")
}

#[test]
fn a_limit_of_files_that_is_too_small() {
    let directory = support::directory();
    let mut broker = stopped(&directory.path().join("data"));
    broker.options.wrapper = ["prlimit", "--nofile=32:32"].map(str::to_owned).to_vec();
    refuses(&mut broker, &["files"]);
}

#[test]
fn a_limit_of_locked_memory_that_is_too_small() {
    let directory = support::directory();
    let mut broker = stopped(&directory.path().join("data"));
    broker.options.wrapper = ["prlimit", "--memlock=16384:16384"].map(str::to_owned).to_vec();
    refuses(&mut broker, &["memlock"]);
}

/// A container's profile: a filter that refuses the system calls of these numbers, then the broker.
const FILTER: &str = r#"
import ctypes, struct, sys, os
libc = ctypes.CDLL(None, use_errno=True)
# Load the number of the call; of each that is named, EPERM; else go on.
code = [(0x20, 0, 0, 0)]
for number in sys.argv[1].split(","):
    code += [(0x15, 0, 1, int(number)), (0x06, 0, 0, 0x00050001)]
code += [(0x06, 0, 0, 0x7fff0000)]
filters = b"".join(struct.pack("HBBI", *line) for line in code)
buffer = ctypes.create_string_buffer(filters)
program = struct.pack("HxxxxxxP", len(code), ctypes.addressof(buffer))
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program, 0, 0):
    sys.exit("no filter of system calls")
os.execv(sys.argv[2], sys.argv[2:])
"#;

const IO_URING: [i64; 3] =
    [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];

/// Refuses these system calls to the broker; false where that is not possible here.
fn forbid(broker: &mut Broker, calls: &[i64]) -> bool {
    if Command::new("python3").arg("--version").output().is_err() {
        assert!(std::env::var("CI").is_err(), "python3 is missing");
        support::leave_out("system calls that are refused", "python3 is missing");
        return false;
    }
    let calls: Vec<_> = calls.iter().map(ToString::to_string).collect();
    broker.options.wrapper =
        ["python3", "-c", FILTER, &calls.join(",")].map(str::to_owned).to_vec();
    true
}

#[test]
fn io_uring_that_is_refused() {
    let directory = support::directory();
    let mut broker = stopped(&directory.path().join("data"));
    let calls = IO_URING.iter().map(std::slice::from_ref).chain([&IO_URING[..]]);
    for calls in calls {
        if forbid(&mut broker, calls) {
            refuses(&mut broker, &["io_uring"]);
        }
    }
}

#[test]
fn limits_that_may_not_be_read() {
    let directory = support::directory();
    let mut broker = stopped(&directory.path().join("data"));
    if forbid(&mut broker, &[libc::SYS_prlimit64]) {
        refuses(&mut broker, &["limits"]);
    }
}

#[test]
fn cores_that_may_not_be_chosen_are_done_without() {
    let directory = support::directory();
    let mut broker = stopped(&directory.path().join("data"));
    if forbid(&mut broker, &[libc::SYS_sched_setaffinity]) {
        broker.run();
        assert!(broker.stop().success());
    }
}

/// Allows the broker so many descriptors from now on.
fn allow_descriptors(broker: &Broker, count: usize) {
    let (process, limit) = (broker.process_id().to_string(), format!("--nofile={count}:"));
    let set = Command::new("prlimit").args(["--pid", &process, &limit]).status();
    assert!(set.expect("prlimit").success());
}

/// More partitions than descriptors: those that get none are refused, and come back by themselves.
#[test]
fn descriptors_that_do_not_suffice() {
    const PARTITIONS: i32 = 100;
    let mut broker = Broker::start(Options { shards: 1, ..Options::default() });
    let mut link = wire::connect(broker.address).unwrap();
    assert!(wire::create_topic(&mut link, "t", PARTITIONS, &[]).unwrap().is_none());
    assert!(broker.stop().success());
    broker.options.wrapper = ["prlimit", "--nofile=100:1000"].map(str::to_owned).to_vec();
    broker.run();
    let mut link = wire::connect(broker.address).unwrap();
    let open = fs::read_dir(format!("/proc/{}/fd", broker.process_id())).unwrap().count();
    allow_descriptors(&broker, open + 40);
    // A log that cannot be made: it is tried again.
    assert!(wire::create_topic(&mut link, "new", PARTITIONS, &[]).unwrap().is_none());
    let mut write = |topic, partition| {
        let batch = wire::batch(&[b"value"]);
        wire::produce(&mut link, topic, partition, batch).unwrap().error_code
    };
    for topic in ["t", "new"] {
        let errors = (0..PARTITIONS).map(|partition| write(topic, partition));
        let refused = errors.filter(|error| *error == ErrorCode::KAFKA_STORAGE_ERROR).count();
        assert!(refused > 0, "{topic}: descriptors sufficed");
    }
    allow_descriptors(&broker, open + 45);
    let (status, reasons) = support::get(broker.admin, "/ready").unwrap();
    assert!(status == 503 && reasons.contains("no descriptor"), "{status} {reasons}");
    allow_descriptors(&broker, 1000);
    let deadline = Instant::now() + support::PATIENCE;
    for (topic, partition) in (0..PARTITIONS).flat_map(|p| [("t", p), ("new", p)]) {
        while !write(topic, partition).is_none() {
            assert!(Instant::now() < deadline, "{topic}-{partition} does not come back");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let (status, reasons) = support::get(broker.admin, "/ready").unwrap();
    assert_eq!(status, 200, "{reasons}");
    assert!(broker.stop().success());
    broker.options.wrapper = ["prlimit", "--nofile=100:100"].map(str::to_owned).to_vec();
    broker.run();
    assert!(broker.said().contains("200 partitions"), "{}", broker.said());
}
