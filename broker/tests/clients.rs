//! Real clients against a real process, with 1, 2 and 5 shards: `tests/clients/NAME/run`.
//!
//! A client whose language is missing is skipped, by name; with `CI=true` that is a failure.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use support::{Broker, Options, is_ci, is_here, leave_out, root, wire};

/// How long all tests of one client may take, as `timeout` reads it.
const SUITE_TIME_MAX: &str = "420s";

/// A suite: its folder, and the commands it takes to run it.
struct Suite {
    name: &'static str,
    needs: &'static [&'static str],
}

const KCAT: Suite = Suite { name: "kcat", needs: &["kcat"] };
const PYTHON: Suite = Suite { name: "python", needs: &["python3"] };
const JAVA: Suite = Suite { name: "java", needs: &["javac", "mvn"] };
const TOOLS: Suite = Suite { name: "tools", needs: &["java", "mvn"] };
const GO: Suite = Suite { name: "go", needs: &["go"] };
const NODE: Suite = Suite { name: "node", needs: &["node", "npm"] };

macro_rules! suites {
    ($($name:ident: $suite:ident with $shards:literal;)*) => {
        $(#[test]
        fn $name() {
            run(&$suite, $shards);
        })*
    };
}

suites! {
    kcat_with_1_shard: KCAT with 1;
    kcat_with_2_shards: KCAT with 2;
    kcat_with_5_shards: KCAT with 5;
    python_with_1_shard: PYTHON with 1;
    python_with_2_shards: PYTHON with 2;
    python_with_5_shards: PYTHON with 5;
    java_with_1_shard: JAVA with 1;
    java_with_2_shards: JAVA with 2;
    java_with_5_shards: JAVA with 5;
    tools_with_1_shard: TOOLS with 1;
    tools_with_2_shards: TOOLS with 2;
    tools_with_5_shards: TOOLS with 5;
    go_with_1_shard: GO with 1;
    go_with_2_shards: GO with 2;
    go_with_5_shards: GO with 5;
    node_with_1_shard: NODE with 1;
    node_with_2_shards: NODE with 2;
    node_with_5_shards: NODE with 5;
}

/// After an orderly stop each segment, also the active one, reads alike to Kafka and to `inspect`.
#[test]
fn dump_log_and_inspect_agree() {
    if TOOLS.is_skipped() {
        return;
    }
    let mut broker = Broker::start(Options::default());
    let mut link = wire::connect(broker.address).expect("a connection");
    let configs = [("segment.bytes", "1048576")];
    let error = wire::create_topic(&mut link, "dumped", 2, &configs).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    for number in 0..200usize {
        let partition = i32::from(number % 3 == 0);
        let value = vec![b'v'; 1 + number * 97 % 30_000];
        let batch = wire::batch(&vec![&value[..]; 1 + number % 4]);
        let answer = wire::produce(&mut link, "dumped", partition, batch).expect("an answer");
        assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
    }
    drop(link);
    for codec in ["gzip", "snappy", "lz4", "zstd"] {
        // With acks=all it is an idempotent producer.
        let mut command = Command::new(support::binary());
        command.args(["produce", "dumped", "--partition", "0", "--codec", codec, "--bootstrap"]);
        command.arg(broker.address.to_string()).stdin(Stdio::piped());
        let mut process = command.spawn().expect("vltava produce");
        let lines = "compressed well ".repeat(100).replace(' ', "\n");
        let mut input = process.stdin.take().expect("its input");
        input.write_all(lines.as_bytes()).expect("lines to write");
        drop(input);
        assert!(process.wait().expect("its exit status").success(), "{codec}");
    }
    assert!(broker.stop().success());
    let mut segments = Vec::new();
    for partition in 0..2 {
        let folder = broker.data.join(format!("dumped-{partition}"));
        let entries = fs::read_dir(folder).expect("the partition's directory").flatten();
        segments.extend(entries.map(|entry| entry.path()));
    }
    segments.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    segments.sort();
    assert!(segments.len() > 3, "{segments:?} are no closed segments");
    for segment in segments {
        let inspected = inspected(&segment);
        assert!(!inspected.is_empty(), "{segment:?} has no batches");
        assert_eq!(dumped(&segment), inspected, "{segment:?}");
    }
}

/// What both say of a batch: base and last offset, count, position, size, CRC, codec.
type Line = Vec<String>;

fn dumped(segment: &Path) -> Vec<Line> {
    let output = Command::new(root().join("tests/clients/tools/tool"))
        .args(["org.apache.kafka.tools.DumpLogSegments", "--files"])
        .arg(segment)
        .output()
        .expect("kafka-dump-log");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("baseOffset:"));
    let field = |line: &str, name: &str| {
        let (_, behind) = line.split_once(&format!("{name}: ")).expect(name);
        behind.split(' ').next().unwrap_or_default().to_owned()
    };
    lines
        .map(|line| {
            assert!(line.ends_with("isvalid: true"), "{line}");
            ["baseOffset", "lastOffset", " count", "position", "size", "crc", "compresscodec"]
                .map(|name| field(line, name))
                .to_vec()
        })
        .collect()
}

fn inspected(segment: &Path) -> Vec<Line> {
    let mut command = Command::new(support::binary());
    let output = command.args(["inspect", "--json"]).arg(segment).output().expect("inspect");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("\"damage\":null"), "{text}");
    let lines = text.lines().filter(|line| line.contains("\"base_offset\""));
    let field = |line: &str, name: &str| {
        let (_, behind) = line.split_once(&format!("\"{name}\":")).expect(name);
        behind.split([',', '}']).next().unwrap_or_default().trim_matches('"').to_owned()
    };
    lines
        .map(|line| {
            ["base_offset", "last_offset", "record_count", "position", "bytes", "crc", "codec"]
                .map(|name| field(line, name))
                .to_vec()
        })
        .collect()
}

impl Suite {
    /// Whether what it needs is missing: said by name, and a failure in CI.
    fn is_skipped(&self) -> bool {
        let Some(missing) = self.needs.iter().find(|need| !is_here(need)) else {
            return false;
        };
        let name = self.name;
        assert!(!is_ci(), "{name} cannot run: {missing} is missing");
        leave_out(name, format_args!("{missing} is missing"));
        true
    }
}

/// Runs a suite against a broker of its own, which must live through it and stop in order.
fn run(suite: &Suite, shards: usize) {
    let name = suite.name;
    if suite.is_skipped() {
        return;
    }
    let begin = Instant::now();
    let broker = Broker::start(Options { shards, ..Options::default() });
    let (address, data) = (broker.address, broker.data.clone());
    let broker = Arc::new(Mutex::new(broker));
    let restarts = Restarts::serve(Arc::clone(&broker));

    let directory = support::directory();
    let log = directory.path().join("output");
    let output = File::create(&log).expect("a file for the output");
    let status = Command::new("timeout")
        .args(["--kill-after=10", SUITE_TIME_MAX])
        .arg(root().join("tests/clients").join(name).join("run"))
        .arg(address.to_string())
        .env("BROKER", "vltava")
        .env("DATA_DIR", data)
        .env("RESTART_CMD", restarts.command())
        .env("CLIENTS_WORK", root().join("target/clients"))
        .stdin(Stdio::null())
        .stdout(output.try_clone().expect("the file again"))
        .stderr(output)
        .status()
        .expect("bash runs the suite");
    let said = String::from_utf8_lossy(&fs::read(&log).expect("the output")).into_owned();
    drop(restarts);
    assert!(status.success(), "{name} with {shards} shards: {status}\n{said}");

    let mut broker = broker.lock().expect("no restart failed");
    assert!(broker.is_running(), "the broker ended while {name} ran");
    let status = broker.stop();
    assert!(status.success(), "the broker ended with {status}");
    assert!(!broker.said().contains("panicked"), "the broker panicked");
    println!("{name} with {shards} shards, {} s:\n{}", begin.elapsed().as_secs(), closing(&said));
}

/// The runner's own closing lines: those that count.
fn closing(said: &str) -> String {
    let counts = |line: &&str| {
        ["# pass", "# fail", "# skip", " passed", "Tests run:", "ok  \t", "--- SKIP"]
            .iter()
            .any(|sign| line.contains(sign))
    };
    let lines: Vec<&str> = said.lines().filter(counts).collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

/// Restarts the broker when a suite asks for it: whoever connects waits for a line.
struct Restarts {
    port: u16,
    ended: Arc<AtomicBool>,
}

impl Restarts {
    fn serve(broker: Arc<Mutex<Broker>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("its address").port();
        let ended = Arc::new(AtomicBool::new(false));
        let asked_to_end = Arc::clone(&ended);
        thread::spawn(move || {
            for connection in listener.incoming() {
                if asked_to_end.load(Ordering::Acquire) {
                    return;
                }
                broker.lock().expect("no restart failed").restart();
                let mut connection = connection.expect("a connection");
                connection.write_all(b"ok\n").expect("whoever asked still waits");
            }
        });
        Self { port, ended }
    }

    /// For the shell.
    fn command(&self) -> String {
        let port = self.port;
        format!(
            "bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port}; read -r line <&3; test \"$line\" = ok'"
        )
    }
}

impl Drop for Restarts {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        drop(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
    }
}
