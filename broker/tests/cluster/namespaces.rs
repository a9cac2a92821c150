//! A network of network namespaces, one for each node, and faults on it.
//!
//! Nodes hang on a bridge in a namespace of its own; whoever runs the test is one more on the
//! bridge, as a machine of clients. The host itself gets one interface, and nothing else. Names
//! carry the process that made them: what a process left behind that is no more (it was killed)
//! goes when the next one begins.
//!
//! Packets are lost at whoever should receive them, without a word to the sender, as when a cable
//! is pulled: connections stay, and know nothing.

use std::collections::BTreeSet;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};

use crate::nodes::Place;
use crate::support::free_port;

const NAMESPACES: &str = "/run/netns";
/// What all names of namespaces begin with.
const PREFIX: &str = "vltava";
/// Whoever runs the test, among the nodes.
pub const CLIENTS: u8 = 254;

/// Networks of 256 addresses that no network uses: they are reserved for measurements of routers.
fn subnet(process: u32) -> [u8; 3] {
    let number = process % 512;
    [198, if number < 256 { 18 } else { 19 }, (number % 256) as u8]
}

/// Runs a command to its end; what it said is the error.
fn run(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let said = |output: Output| {
        let errors = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        format!("{}: {}: {errors}", words.join(" "), output.status)
    };
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(said(output)),
        Err(error) => Err(format!("{}: {error}", words[0])),
    }
}

/// [`run`], with a command in one line: no word has a space.
fn command(line: &str) -> Result<(), String> {
    run(&line.split_whitespace().collect::<Vec<_>>())
}

fn namespace(process: u32, node: i32) -> String {
    format!("{PREFIX}-{process}-{node}")
}

/// The interface of whoever runs the test.
fn interface(process: u32) -> String {
    format!("vl{process}")
}

/// Removes what processes left behind that are no more: their namespaces, what runs in these, and
/// with the namespaces their interfaces.
fn sweep() {
    let entries = fs::read_dir(NAMESPACES).into_iter().flatten().flatten();
    for name in entries.map(|entry| entry.file_name().to_string_lossy().into_owned()) {
        let mut parts = name.split('-');
        let ours = parts.next() == Some(PREFIX);
        let process = parts.next().and_then(|part| part.parse::<u32>().ok());
        if let (true, Some(process)) = (ours, process)
            && !Path::new(&format!("/proc/{process}")).exists()
        {
            remove(&name);
        }
    }
}

/// Removes a namespace, and ends what runs in it.
fn remove(name: &str) {
    let listed = Command::new("ip").args(["netns", "pids", name]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    for process in listed.unwrap_or_default().split_whitespace() {
        let _ended = run(&["kill", "-KILL", process]);
    }
    let _gone = run(&["ip", "netns", "del", name]);
}

/// Nodes in namespaces of their own. Goes with all that is in it.
pub struct Namespaces {
    process: u32,
    nodes: BTreeSet<i32>,
}

impl Namespaces {
    /// An error, with its reason, where there can be none: for who may not make them, or has no
    /// `nft` or `tc`.
    pub fn new(nodes: &[i32]) -> Result<Self, String> {
        sweep();
        // Dropped with what there is of it, where it does not become whole.
        let network = Self { process: std::process::id(), nodes: nodes.iter().copied().collect() };
        network.build().map(|()| network)
    }

    fn build(&self) -> Result<(), String> {
        let (switch, interface) = (namespace(self.process, 0), interface(self.process));
        command("nft --version")?;
        command("tc -V")?;
        command("nsenter --version")?;
        command(&format!("ip netns add {switch}"))?;
        command(&format!("ip -n {switch} link add bridge type bridge"))?;
        command(&format!("ip -n {switch} link set bridge up"))?;
        command(&format!("ip link add {interface} type veth peer name clients netns {switch}"))?;
        command(&format!("ip -n {switch} link set clients master bridge up"))?;
        let clients = self.address(CLIENTS);
        command(&format!("ip addr add {clients}/24 dev {interface}"))?;
        command(&format!("ip link set {interface} up"))?;
        self.nodes.iter().try_for_each(|node| self.plug_in(*node))
    }

    fn plug_in(&self, node: i32) -> Result<(), String> {
        let (switch, own) = (namespace(self.process, 0), namespace(self.process, node));
        let address = self.of(node);
        command(&format!("ip netns add {own}"))?;
        command(&format!(
            "ip -n {switch} link add node{node} type veth peer name eth0 netns {own}"
        ))?;
        command(&format!("ip -n {switch} link set node{node} master bridge up"))?;
        command(&format!("ip -n {own} addr add {address}/24 dev eth0"))?;
        command(&format!("ip -n {own} link set eth0 up"))?;
        command(&format!("ip -n {own} link set lo up"))?;
        self.nft(node, "add table ip faults")?;
        self.nft(node, "add chain ip faults lost { type filter hook input priority 0 ; }")
    }

    fn nft(&self, node: i32, words: &str) -> Result<(), String> {
        let own = namespace(self.process, node);
        command(&format!("nsenter --net={NAMESPACES}/{own} nft {words}"))
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = subnet(self.process);
        Ipv4Addr::new(a, b, c, host)
    }

    fn of(&self, node: i32) -> Ipv4Addr {
        self.address(u8::try_from(node).expect("a small number"))
    }

    /// Where a node lives that is to run here.
    pub fn place(&self, node: i32, directory: &Path) -> Place {
        let own = namespace(self.process, node);
        let wrapper = vec!["nsenter".to_owned(), format!("--net={NAMESPACES}/{own}")];
        let host = self.of(node).into();
        let peer_address = (host, free_port()).into();
        Place { host, peer_address, wrapper, ..Place::local(node, directory) }
    }

    /// What comes from one address is lost at a node.
    fn lose(&self, from: Ipv4Addr, at: i32) {
        let rule = format!("add rule ip faults lost ip saddr {from} drop");
        self.nft(at, &rule).expect("a rule that drops packets");
    }

    /// What one node sends to another is lost. What the other answers to connections it holds
    /// still comes; so does what it sends by itself.
    pub fn lose_one_way(&self, from: i32, to: i32) {
        self.lose(self.of(from), to);
    }

    /// Nothing that clients send reaches a node.
    pub fn cut_off_clients(&self, node: i32) {
        self.lose(self.address(CLIENTS), node);
    }

    /// So many bytes a second at most pass to and from a node.
    pub fn slow_down(&self, node: i32, kilobytes: u32) {
        for (space, device) in self.both_ends(node) {
            // A burst lets a whole segment of TCP pass; the queue holds 400 ms.
            let shape = format!("tbf rate {}kbit burst 16kb latency 400ms", kilobytes * 8);
            let line = format!("tc -n {space} qdisc replace dev {device} root {shape}");
            command(&line).expect("a slow link");
        }
    }

    pub fn nodes(&self) -> std::vec::IntoIter<i32> {
        self.nodes.iter().copied().collect::<Vec<_>>().into_iter()
    }

    /// Ends all faults.
    pub fn heal(&self) {
        for node in &self.nodes {
            self.nft(*node, "flush chain ip faults lost").expect("rules go");
            for (space, device) in self.both_ends(*node) {
                // An error where it was not slow.
                let _restored = command(&format!("tc -n {space} qdisc del dev {device} root"));
            }
        }
    }

    fn both_ends(&self, node: i32) -> [(String, String); 2] {
        let (switch, own) = (namespace(self.process, 0), namespace(self.process, node));
        [(own, "eth0".to_owned()), (switch, format!("node{node}"))]
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        for node in &self.nodes {
            remove(&namespace(self.process, *node));
        }
        remove(&namespace(self.process, 0));
        // Goes with its other end; where that was not made, by itself.
        let _gone = run(&["ip", "link", "del", &interface(self.process)]);
    }
}
