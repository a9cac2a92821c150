//! The processes of one cluster, by the numbers of their nodes: started, killed, stopped in order,
//! paused, started again with other settings, wiped; and nodes that come later.
//!
//! Nothing here waits for time to pass: a start waits until the node serves, a stop until it has
//! ended. Who waits for more asks the cluster (`view.rs`).
#![allow(dead_code, reason = "each test uses its part of this")]

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::SystemTime;

use tempfile::TempDir;

use crate::support::{self, Broker, Options, signal};

/// Those that every cluster begins with.
pub const NODES: [i32; 3] = [1, 2, 3];

/// Where it is set, data directories stay, with what was said beside them.
const KEEP: &str = "VLTAVA_CLUSTER_KEEP";

/// Names what a test is to do of what it can: those whose names contain this.
pub const ONLY: &str = "VLTAVA_CLUSTER_ONLY";

/// Three times a process is as much as the machine should run at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Settings by their Kafka names, which a node is started with besides its own.
pub type Settings<'a> = &'a [(&'static str, &'a str)];

/// Where a node lives.
pub struct Place {
    /// What it listens at, for clients and for the others.
    pub host: IpAddr,
    /// Where the others find it.
    pub peer_address: SocketAddr,
    /// Where it is not found at what it listens at.
    pub behind: Option<Behind>,
    /// Exists, and is empty.
    pub data: PathBuf,
    /// Runs it below another command, as [`Options::wrapper`].
    pub wrapper: Vec<String>,
}

/// Others stand for a node: what it listens at itself.
pub struct Behind {
    /// Where clients find it.
    pub address: SocketAddr,
    /// What it listens at for them.
    pub listener: SocketAddr,
    /// And for the other nodes.
    pub peer_listener: SocketAddr,
}

impl Place {
    /// On the loopback, with a directory below that of the cluster.
    pub fn local(node: i32, directory: &Path) -> Self {
        let data = directory.join(node.to_string());
        fs::create_dir(&data).expect("a directory for the data");
        Self {
            host: Ipv4Addr::LOCALHOST.into(),
            peer_address: free_address(),
            behind: None,
            data,
            wrapper: Vec::new(),
        }
    }
}

pub struct Nodes {
    pub brokers: BTreeMap<i32, Broker>,
    /// Where they listen for each other.
    pub peer_addresses: Vec<(i32, SocketAddr)>,
    pub directory: PathBuf,
    _directory: Option<TempDir>,
    _alone: MutexGuard<'static, ()>,
}

/// While it is held, no other test has a cluster.
pub fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What `peers` says of nodes at these addresses.
pub fn peers(addresses: &[(i32, SocketAddr)]) -> String {
    let named: Vec<String> =
        addresses.iter().map(|(node, address)| format!("{node}@{address}")).collect();
    named.join(",")
}

/// How a node of a cluster is started.
pub fn options(node: i32, peers: &str) -> Options {
    let mut options = Options::default();
    if std::env::var_os(KEEP).is_some() {
        options.arguments.extend(["--log-level", "info,partition=debug"]);
    }
    let settings = [
        ("node.id", node.to_string()),
        ("peers", peers.to_owned()),
        ("offsets.topic.num.partitions", "3".to_owned()),
    ];
    options.settings.extend(settings);
    options
}

/// An address that nobody listens at.
pub fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, support::free_port()))
}

/// A setting of the environment that is a number.
pub fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs another command of the binary under test, such as `["cluster", "status", ...]`, to its end.
pub fn vltava(arguments: &[&str]) -> Output {
    let mut command = Command::new(support::binary());
    command.args(arguments).stdin(Stdio::null()).output().expect("vltava starts")
}

/// Of sizes and choices: given, or another at each run. Printed, so that a run can be repeated.
pub fn seed() -> u64 {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970");
    let seed = variable("VLTAVA_CLUSTER_SEED", clock.as_nanos() as u64 | 1);
    println!("VLTAVA_CLUSTER_SEED={seed}");
    seed
}

impl Nodes {
    /// Three that have formed a cluster.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Three that have formed a cluster, all with these settings.
    pub fn start_with(settings: Settings<'_>) -> Self {
        let mut nodes = Self::places(settings, Place::local);
        nodes.run_all();
        nodes
    }

    /// Three that do not run yet, each in a place of its own.
    pub fn places(settings: Settings<'_>, mut place: impl FnMut(i32, &Path) -> Place) -> Self {
        let alone = alone();
        let temporary = support::directory();
        let directory = temporary.path().to_owned();
        let temporary = if std::env::var_os(KEEP).is_some() {
            println!("data directories: {}", directory.display());
            let _kept = temporary.keep();
            None
        } else {
            Some(temporary)
        };
        let places = NODES.map(|node| (node, place(node, &directory)));
        let mut nodes = Self {
            brokers: BTreeMap::new(),
            peer_addresses: Vec::new(),
            directory,
            _directory: temporary,
            _alone: alone,
        };
        for (node, place) in &places {
            nodes.peer_addresses.push((*node, place.peer_address));
        }
        for (node, place) in places {
            nodes.put(node, place);
        }
        nodes.ids().into_iter().for_each(|node| nodes.set(node, settings));
        nodes
    }

    /// One more node on the loopback, which does not run yet: its peers are all that are there,
    /// and itself. Those that are there are not told of it.
    pub fn add(&mut self, node: i32, settings: Settings<'_>) {
        let place = Place::local(node, &self.directory);
        self.add_at(node, place, settings);
    }

    /// As [`Self::add`], somewhere.
    pub fn add_at(&mut self, node: i32, place: Place, settings: Settings<'_>) {
        assert!(!self.brokers.contains_key(&node), "node {node} is there");
        self.peer_addresses.push((node, place.peer_address));
        self.put(node, place);
        self.set(node, settings);
    }

    fn put(&mut self, node: i32, place: Place) {
        let mut options = options(node, &peers(&self.peer_addresses));
        options.wrapper = place.wrapper;
        let listener = place.behind.as_ref().map(|it| ("peer.listener", it.peer_listener));
        options.settings.extend(listener.map(|(name, address)| (name, address.to_string())));
        let mut broker = Broker::new(options, &place.data);
        broker.address.set_ip(place.host);
        broker.admin.set_ip(place.host);
        if let Some(behind) = place.behind {
            (broker.address, broker.listener) = (behind.address, Some(behind.listener));
        }
        self.brokers.insert(node, broker);
    }

    /// Takes a node that does not run out of the harness, with its directory as it is.
    pub fn forget(&mut self, node: i32) -> Broker {
        self.peer_addresses.retain(|(it, _)| *it != node);
        let mut broker = self.brokers.remove(&node).expect("one of the nodes");
        assert!(!broker.is_running(), "node {node} runs");
        broker
    }

    /// What a node is started with from its next start on, in place of what was said of the same
    /// settings before.
    pub fn set(&mut self, node: i32, settings: Settings<'_>) {
        let known = &mut self.node(node).options.settings;
        for (name, value) in settings {
            known.retain(|(it, _)| it != name);
            known.push((name, (*value).to_owned()));
        }
    }

    /// All numbers.
    pub fn ids(&self) -> Vec<i32> {
        self.brokers.keys().copied().collect()
    }

    /// Starts those that do not run.
    pub fn run_all(&mut self) {
        self.run(&self.ids());
    }

    /// Starts those of these that do not run: a node may wait for others before it serves.
    pub fn run(&mut self, these: &[i32]) {
        thread::scope(|scope| {
            for (node, broker) in &mut self.brokers {
                if these.contains(node) && !broker.is_running() {
                    scope.spawn(|| broker.run());
                }
            }
        });
    }

    pub fn node(&mut self, node: i32) -> &mut Broker {
        self.brokers.get_mut(&node).expect("one of the nodes")
    }

    /// SIGKILL.
    pub fn kill(&mut self, node: i32) {
        self.node(node).kill();
    }

    /// SIGKILL of all that run.
    pub fn kill_all(&mut self) {
        self.brokers.values_mut().filter_map(|it| it.is_running().then_some(it)).for_each(|it| {
            it.kill();
        });
    }

    /// An orderly stop of one, which must succeed.
    pub fn stop_node(&mut self, node: i32) {
        let broker = self.node(node);
        let status = broker.stop();
        assert!(status.success(), "the stop of {node} ended with {status}:\n{}", broker.said());
    }

    /// SIGSTOP: it keeps its connections, and says nothing. It may be killed, but not stopped in
    /// order, before [`Self::resume`].
    pub fn pause(&mut self, node: i32) {
        signal(self.node(node).process_id(), "STOP");
    }

    /// SIGCONT.
    pub fn resume(&mut self, node: i32) {
        signal(self.node(node).process_id(), "CONT");
    }

    /// An orderly stop, and a start with these settings besides.
    pub fn restart_with(&mut self, node: i32, settings: Settings<'_>) {
        self.stop_node(node);
        self.set(node, settings);
        self.node(node).run();
    }

    /// Empties the directory of a node that does not run, as if its disk were a new one.
    pub fn wipe(&mut self, node: i32) {
        let broker = self.node(node);
        assert!(!broker.is_running(), "node {node} runs");
        for entry in fs::read_dir(&broker.data).expect("the data directory") {
            let entry = entry.expect("what is in it");
            let is_directory = entry.file_type().expect("its type").is_dir();
            let removed = if is_directory {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            removed.expect("it can be removed");
        }
    }

    /// Where clients reach them, in the order of their numbers.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.brokers.values().map(|broker| broker.address).collect()
    }

    /// The same, by their numbers.
    pub fn by_number(&self) -> BTreeMap<i32, SocketAddr> {
        self.brokers.iter().map(|(node, broker)| (*node, broker.address)).collect()
    }

    /// Where clients reach one.
    pub fn address(&self, node: i32) -> SocketAddr {
        self.brokers[&node].address
    }

    /// Where clients reach all but one.
    pub fn others(&self, node: i32) -> Vec<SocketAddr> {
        let others = self.brokers.iter().filter(|(it, _)| **it != node);
        others.map(|(_, broker)| broker.address).collect()
    }

    /// As clients write it: the bootstrap servers.
    pub fn bootstrap(&self) -> String {
        let addresses: Vec<String> = self.addresses().iter().map(SocketAddr::to_string).collect();
        addresses.join(",")
    }

    /// Keeps beside the data what each has said, where that is kept.
    fn keep_words(&self) {
        if self._directory.is_none() {
            for (node, broker) in &self.brokers {
                let path = self.directory.join(format!("{node}.log"));
                let _written = fs::write(path, broker.said());
            }
        }
    }

    /// An orderly stop of all that run, at the same time. None of them may have panicked.
    pub fn stop(mut self) {
        self.stop_all();
    }

    /// The same, where what they have said is looked at afterwards.
    pub fn stop_all(&mut self) {
        thread::scope(|scope| {
            for broker in self.brokers.values_mut().filter_map(|it| it.is_running().then_some(it)) {
                scope.spawn(|| {
                    let status = broker.stop();
                    assert!(status.success(), "a stop ended with {status}:\n{}", broker.said());
                });
            }
        });
        for (node, broker) in &self.brokers {
            assert!(!broker.said().contains("panicked"), "node {node} panicked");
        }
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.keep_words();
    }
}
