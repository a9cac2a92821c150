//! Real clients under way while something happens to the cluster (`rides.rs`): an idempotent
//! producer and a group of each client, which must see no error. At the end each record that was
//! sent is there once, in order. What each does is in `tests/clients/NAME/`.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use vltava_protocol::types::Str;

use crate::nodes::{Nodes, ONLY};
use crate::support::{self, signal, wire};
use crate::view::{connect, is_whole, leader_of, metadata_of_any, until, within};

pub const PARTITIONS: i32 = 3;
/// Of a client, between two changes of leader.
const PROGRESS_RECORDS: i64 = 60;
/// Some are built first, and fetch what that takes.
const START_TIME_MAX: Duration = Duration::from_secs(300);
/// Where the arguments of a client say how many seconds it may take in all.
const LIMIT_S: &str = "{limit_s}";

struct Client {
    /// What it calls itself in its records, and its topic.
    name: &'static str,
    needs: &'static [&'static str],
    /// In `tests/clients`.
    script: &'static str,
    arguments: &'static [&'static str],
}

static CLIENTS: [Client; 3] = [
    Client {
        name: "java",
        needs: &["javac", "mvn"],
        script: "java/run",
        arguments: &["-Dtest=Ride"],
    },
    Client {
        name: "librdkafka",
        needs: &["python3"],
        script: "python/run",
        arguments: &["-s", "--timeout={limit_s}", "ride.py"],
    },
    Client {
        name: "franz-go",
        needs: &["go"],
        script: "go/run",
        arguments: &["-tags", "ride", "-run", "TestRide", "-timeout={limit_s}s"],
    },
];

impl Client {
    /// Whether it can run. What it lacks is said by name, and a failure in CI.
    fn can_run(&self) -> bool {
        let name = self.name;
        let Some(missing) = self.needs.iter().find(|need| !support::is_here(need)) else {
            return true;
        };
        assert!(!support::is_ci(), "{name} cannot run: {missing} is missing");
        support::leave_out(name, format_args!("{missing} is missing"));
        false
    }
}

/// Those of which the environment gives a part of the name; all, where it names none of these.
pub fn named<T>(all: &[&'static T], name: impl Fn(&T) -> &str) -> Vec<&'static T> {
    let only = std::env::var(ONLY).unwrap_or_default();
    let is_any = all.iter().any(|it| name(it).contains(&only));
    all.iter().copied().filter(|it| !is_any || name(it).contains(&only)).collect()
}

/// A client under way.
struct Rider {
    client: &'static Client,
    process: Child,
    output: PathBuf,
}

impl Rider {
    fn begin(client: &'static Client, nodes: &Nodes, stop: &Path, limit: Duration) -> Self {
        let output = nodes.directory.join(format!("{}.out", client.name));
        let file = File::create(&output).expect("a file for the output");
        let limit_s = limit.as_secs().to_string();
        let arguments = client.arguments.iter().map(|word| word.replace(LIMIT_S, &limit_s));
        let process = Command::new("timeout")
            .args(["--kill-after=10", &limit_s])
            .arg(support::root().join("tests/clients").join(client.script))
            .arg(nodes.bootstrap())
            .args(arguments)
            .env("RIDE_TOPIC", client.name)
            .env("RIDE_STOP", stop)
            .env("CLIENTS_WORK", support::root().join("target/clients"))
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("the file again"))
            .stderr(file)
            .spawn()
            .expect("timeout starts");
        Self { client, process, output }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("its status").is_none()
    }

    /// How much of its topic is committed, as these have it: one of them knows who leads a
    /// partition, and another, which does not reach that node, may not.
    fn written(&self, nodes: &[SocketAddr]) -> Option<i64> {
        let committed = |asked: &SocketAddr, partition: i32| {
            let leader = leader_of(&[*asked], self.client.name, partition)?;
            let mut link = connect(leader).ok()?;
            let data = wire::fetch(&mut link, self.client.name, partition, 0).ok()?;
            data.error_code.is_none().then_some(data.high_watermark)
        };
        let each = (0..PARTITIONS)
            .map(|partition| nodes.iter().find_map(|asked| committed(asked, partition)));
        each.sum()
    }

    /// Its records are there once each, in order. Returns how many.
    fn check(&self, nodes: &Nodes) -> usize {
        let (name, said) = (self.client.name, self.said());
        let sent = said.split_once("RIDE sent=").expect("how many it sent").1;
        let sent = sent.split_whitespace().next().and_then(|it| it.parse::<usize>().ok());
        let sent = sent.expect("a number");
        for partition in 0..PARTITIONS {
            let leader = leader_of(&nodes.addresses(), name, partition).expect("a leader");
            let mut link = connect(leader).expect("a connection");
            let log = wire::read_all(&mut link, name, partition).expect("records");
            let numbers = (partition as usize..sent).step_by(PARTITIONS as usize);
            let values = numbers.map(|number| format!("{name} {number}").into_bytes());
            let expected: Vec<(i64, Vec<u8>)> = (0..).zip(values).collect();
            let differs = log.iter().zip(&expected).find(|(is, due)| is != due);
            assert_eq!(differs, None, "{name}, partition {partition}: what is there, and is due");
            assert_eq!(log.len(), expected.len(), "{name}, partition {partition}");
        }
        sent
    }
}

impl Drop for Rider {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("what {} said:\n{}", self.client.name, self.said());
        }
        if self.is_running() {
            // `timeout` hands it on to all below it.
            signal(self.process.id(), "TERM");
            drop(self.process.wait());
        }
    }
}

/// All clients that can run here.
pub struct Riders {
    riders: Vec<Rider>,
    /// Once it is there, they finish.
    stop: PathBuf,
}

impl Riders {
    /// The names of those that can run here, each of which is its topic, too.
    pub fn names() -> Vec<&'static str> {
        let wanted = named(&CLIENTS.each_ref(), |client| client.name).into_iter();
        wanted.filter(|client| client.can_run()).map(|client| client.name).collect()
    }

    /// Starts them; their topics are there. They end themselves after so long.
    pub fn begin(names: &[&str], nodes: &Nodes, limit: Duration) -> Self {
        let stop = nodes.directory.join("stop");
        let wanted = CLIENTS.iter().filter(|client| names.contains(&client.name));
        let riders = wanted
            .map(|client| Rider::begin(client, nodes, &stop, START_TIME_MAX + limit))
            .collect();
        let mut riders = Self { riders, stop };
        riders.await_progress(&nodes.addresses(), START_TIME_MAX, "the start");
        riders
    }

    pub fn topics(&self) -> impl Iterator<Item = &'static str> {
        self.riders.iter().map(|rider| rider.client.name)
    }

    /// Waits until each has written more, as these nodes have it, and sees no error.
    pub fn await_progress(&mut self, nodes: &[SocketAddr], bound: Duration, after: &str) {
        for rider in &mut self.riders {
            let name = rider.client.name;
            let mut before = None;
            within(bound, &format!("{name} writes nothing after {after}"), || {
                assert!(rider.is_running(), "{name}, after {after}:\n{}", rider.said());
                let now = rider.written(nodes)?;
                let then = *before.get_or_insert(now);
                (now >= then + PROGRESS_RECORDS).then_some(())
            });
        }
    }

    /// Waits until all replicas are there, under load.
    pub fn await_whole(&self, nodes: &Nodes) {
        let topics: Vec<Str> = self.topics().map(Str::from_static).collect();
        until("the replicas do not catch up", || {
            let metadata = metadata_of_any(&nodes.addresses())?;
            let whole = |topic: &Str| metadata.topics.get(topic).is_some_and(is_whole);
            topics.iter().all(whole).then_some(())
        });
    }

    /// Lets them finish what they have begun, and looks at what is there.
    pub fn end(mut self, nodes: &Nodes) {
        File::create(&self.stop).expect("a file");
        for rider in &mut self.riders {
            let status = rider.process.wait().expect("its status");
            assert!(status.success(), "{}: {status}\n{}", rider.client.name, rider.said());
            println!("{}: {} records", rider.client.name, rider.check(nodes));
        }
    }
}
