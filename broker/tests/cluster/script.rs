//! `scripts/cluster`, as the README has it: three nodes that are ready, a topic on all of them,
//! Ctrl-C.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::nodes::{alone, vltava};
use crate::support::{binary, directory, get, is_ci, leave_out, root, signal};
use crate::view::{await_agreement, until};

const CLIENT_PORTS: [u16; 3] = [9092, 9192, 9292];
const ADMIN_PORTS: [u16; 3] = [9644, 9744, 9844];
const PEER_PORTS: [u16; 3] = [7641, 7642, 7643];

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// The script under way, which ends its nodes where a test fails.
struct Script {
    process: Child,
    output: PathBuf,
}

impl Script {
    fn said(&self) -> String {
        fs::read_to_string(&self.output).unwrap_or_default()
    }

    fn is_running(&mut self) -> bool {
        self.process.try_wait().expect("its status").is_none()
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if self.is_running() {
            signal(self.process.id(), "TERM");
            let _status = self.process.wait();
            eprintln!("what scripts/cluster said:\n{}", self.said());
        }
    }
}

#[test]
fn the_script_starts_three_nodes_and_stops_them() {
    let _alone = alone();
    let ports = [CLIENT_PORTS, ADMIN_PORTS, PEER_PORTS].concat();
    if let Some(taken) = ports.iter().find(|port| TcpListener::bind(local(**port)).is_err()) {
        assert!(!is_ci(), "port {taken} is in use");
        return leave_out("scripts/cluster", format_args!("port {taken} is in use"));
    }
    let directory = directory();
    let output = directory.path().join("said");
    let file = File::create(&output).expect("a file");
    let process = Command::new(root().join("scripts/cluster"))
        .args(["--memory", "512MiB", "--data-dir"])
        .arg(directory.path())
        .env("VLTAVA_BIN", binary())
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("the file again"))
        .stderr(file)
        .spawn()
        .expect("bash");
    let mut script = Script { process, output };
    until("the three are not ready", || {
        assert!(script.is_running(), "it has ended:\n{}", script.said());
        script.said().contains("Three nodes are ready").then_some(())
    });
    for port in ADMIN_PORTS {
        assert_eq!(get(local(port), "/ready").expect("a page").0, 200, "{port}");
    }
    // The command that the script tells of.
    let words = ["topic", "create", "greetings", "--partitions", "3", "--replication-factor", "3"];
    let made = vltava(&words);
    assert!(made.status.success(), "{made:?}");
    await_agreement(&CLIENT_PORTS.map(local), &["greetings"]);

    signal(script.process.id(), "INT");
    until("it does not end", || (!script.is_running()).then_some(()));
    let status = script.process.wait().expect("its status");
    let said = script.said();
    assert!(status.success() && !said.contains("panicked"), "{status}:\n{said}");
    for port in ports {
        assert!(TcpListener::bind(local(port)).is_ok(), "{port} is still in use:\n{said}");
    }
    for node in 1..=3 {
        let stopped = format!("{node} | ");
        assert!(said.contains(&stopped), "node {node} said nothing:\n{said}");
    }
}
