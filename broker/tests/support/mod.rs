//! A real `vltava` process for tests: started on free ports and a directory of its own, stopped,
//! killed and started again.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test uses its part of this, and fails by panicking"
)]

pub mod mounts;
pub mod wire;

use std::fmt::Display;
use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a start or an orderly stop may take, on a machine that does much else.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What `vltava serve` says when it serves.
const READY: &str = "is ready";

/// What a failed test shows of the broker's last lines.
const SAID_LINES_MAX: usize = 60;

/// The binary under test: this build's, or the one that `VLTAVA_BIN` names.
pub fn binary() -> PathBuf {
    match std::env::var_os("VLTAVA_BIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(env!("CARGO_BIN_EXE_vltava")),
    }
}

/// The root of the workspace.
pub fn root() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
    root.expect("the crate is a folder of the workspace").to_owned()
}

/// Whether this is what every change must pass: then nothing may be left out for want of a program.
pub fn is_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}

/// Says what is left out, and for want of what: in the output, and in the file that
/// `VLTAVA_LEFT_OUT` names, from which `scripts/test` says it again at its end.
pub fn leave_out(what: &str, why: impl Display) {
    let line = format!("skipped: {what}, since {why}");
    println!("{line}");
    if let Some(path) = std::env::var_os("VLTAVA_LEFT_OUT") {
        let file = OpenOptions::new().create(true).append(true).open(path);
        file.and_then(|mut file| writeln!(file, "{line}")).expect("a line in VLTAVA_LEFT_OUT");
    }
}

/// Whether a command can be run. Go may be one that `scripts/setup` fetched.
pub fn is_here(command: &str) -> bool {
    if command == "go" {
        let found = Command::new(root().join("scripts/setup")).arg("go-command").output();
        return found.is_ok_and(|output| !output.stdout.is_empty());
    }
    let looked = Command::new("sh").args(["-c", &format!("command -v {command}")]).output();
    looked.is_ok_and(|output| output.status.success())
}

/// An empty directory on the disk of the build, which takes O_DIRECT where `/tmp` may not.
pub fn directory() -> TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory for the test")
}

/// A port that nobody listens on. Not one that the system hands out to those who connect: a client
/// that tries to reach a broker which is away might be given it, and meet itself.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed) + std::process::id() * 61;
        let port = 20_000 + u16::try_from(number % 12_000).expect("a small number");
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

/// Asks the admin port for a page: its status and its text.
pub fn get(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    ask(admin, "GET", path)
}

/// Has the admin port do something: the status, and what was said.
#[allow(dead_code, reason = "few tests do that")]
pub fn post(admin: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let (status, said) = ask(admin, "POST", path)?;
    // It ended before it had answered.
    if status == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok((status, said)) }
}

fn ask(admin: SocketAddr, method: &str, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(admin)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "{method} {path} HTTP/1.0\r\nHost: {admin}\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let text = answer.split_once("\r\n\r\n").map_or("", |(_, text)| text);
    Ok((status.unwrap_or(0), text.to_owned()))
}

/// How to start a broker.
pub struct Options {
    pub shards: usize,
    pub memory: &'static str,
    /// Settings by their Kafka names.
    pub settings: Vec<(&'static str, String)>,
    /// A file of settings.
    pub config: Option<PathBuf>,
    /// More arguments of `vltava serve`.
    pub arguments: Vec<&'static str>,
    /// Runs the broker below another command: `["prlimit", "--nofile=64"]`.
    pub wrapper: Vec<String>,
}

/// How many shards a test's broker has that asks for no number: `VLTAVA_TEST_SHARDS`, or 2.
fn shards() -> usize {
    let wanted = std::env::var("VLTAVA_TEST_SHARDS").ok();
    wanted.map_or(2, |shards| shards.parse().expect("VLTAVA_TEST_SHARDS is a number"))
}

impl Default for Options {
    fn default() -> Self {
        Self {
            shards: shards(),
            memory: "512MiB",
            // As Kafka's own tests do: a group does not wait for more members at its start.
            settings: vec![("group.initial.rebalance.delay.ms", "0".to_owned())],
            config: None,
            arguments: Vec::new(),
            wrapper: Vec::new(),
        }
    }
}

/// A process, and what it says.
pub struct Broker {
    pub options: Options,
    pub data: PathBuf,
    /// Where clients find it.
    pub address: SocketAddr,
    /// What it listens at for them, where that is not the same.
    pub listener: Option<SocketAddr>,
    pub admin: SocketAddr,
    process: Option<Child>,
    output: Arc<Mutex<Vec<String>>>,
    errors: Arc<Mutex<Vec<String>>>,
    _directory: Option<TempDir>,
}

impl Broker {
    /// Starts one in a directory of its own; panics where it does not come to serve.
    pub fn start(options: Options) -> Self {
        let directory = directory();
        let mut broker = Self::new(options, &directory.path().join("data"));
        broker._directory = Some(directory);
        fs::create_dir(&broker.data).expect("a directory for the data");
        broker.run();
        broker
    }

    /// One that is not running, for a directory.
    pub fn new(options: Options, data: &Path) -> Self {
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Self {
            options,
            data: data.to_owned(),
            address: local(free_port()),
            listener: None,
            admin: local(free_port()),
            process: None,
            output: Arc::default(),
            errors: Arc::default(),
            _directory: None,
        }
    }

    /// Starts the process and waits until it serves; panics with what it said where it does not.
    pub fn run(&mut self) {
        if let Err(status) = self.try_run() {
            panic!("vltava ended with {status}:\n{}", self.said());
        }
    }

    /// Starts the process and waits until it serves, or has ended.
    pub fn try_run(&mut self) -> Result<(), ExitStatus> {
        let (ready, errors) = self.begin();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ready.recv_timeout(Duration::from_millis(50)) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(RecvTimeoutError::Timeout) => {
                    panic!("vltava did not come to serve:\n{}", self.said());
                }
                // Its output is closed: it has ended, or is about to.
                Err(RecvTimeoutError::Disconnected) => {
                    errors.join().expect("its errors are kept");
                    let mut process = self.process.take().expect("it was started");
                    return Err(process.wait().expect("its exit status"));
                }
            }
        }
    }

    /// Starts the process, and waits for nothing. The receiver hears when it serves; the thread
    /// ends when the process has said its last error.
    pub fn begin(&mut self) -> (Receiver<()>, JoinHandle<()>) {
        assert!(self.process.is_none(), "it runs already");
        let mut process = self.command().spawn().expect("vltava starts");
        let out = process.stdout.take().expect("its output");
        let err = process.stderr.take().expect("its errors");
        self.process = Some(process);
        self.listen(out, err)
    }

    fn command(&self) -> Command {
        let mut words = self.options.wrapper.clone();
        words.push(binary().to_string_lossy().into_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("serve");
        command.arg("--data-dir").arg(&self.data);
        command.args(["--listen", &self.listener.unwrap_or(self.address).to_string()]);
        if self.listener.is_some() {
            command.args(["--advertise", &self.address.to_string()]);
        }
        command.args(["--admin", &self.admin.to_string()]);
        command.args(["--shards", &self.options.shards.to_string()]);
        command.args(["--memory", self.options.memory]);
        if let Some(file) = &self.options.config {
            command.arg("--config").arg(file);
        }
        for (name, value) in &self.options.settings {
            command.args(["--set", &format!("{name}={value}")]);
        }
        command.args(&self.options.arguments);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Keeps what the process says; the receiver hears when it serves.
    fn listen(
        &self,
        out: impl Read + Send + 'static,
        err: impl Read + Send + 'static,
    ) -> (Receiver<()>, JoinHandle<()>) {
        let (sender, receiver) = channel();
        let (output, errors) = (Arc::clone(&self.output), Arc::clone(&self.errors));
        let reader = thread::spawn(move || {
            for line in BufReader::new(err).lines().map_while(Result::ok) {
                errors.lock().expect("no panic while locked").push(line);
            }
        });
        thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                let is_ready = line.contains(READY);
                output.lock().expect("no panic while locked").push(line);
                if is_ready {
                    // Nobody waits any more when it says so a second time.
                    let _sent = sender.send(());
                }
            }
        });
        (receiver, reader)
    }

    /// What all runs have said to whoever watches, and as errors.
    pub fn said(&self) -> String {
        let lines = self.output.lock().expect("no panic while locked").join("\n");
        format!("{lines}\n{}", self.errors())
    }

    /// What all runs have said as errors.
    pub fn errors(&self) -> String {
        self.errors.lock().expect("no panic while locked").join("\n")
    }

    /// The lines that all runs have said as errors, from this one on.
    pub fn errors_from(&self, line: usize) -> Vec<String> {
        self.errors.lock().expect("no panic while locked").get(line..).unwrap_or_default().to_vec()
    }

    /// Standard error of all runs, once it says this so often; or after [`PATIENCE`].
    pub fn errors_with(&self, text: &str, times: usize) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let errors = self.errors();
            if errors.matches(text).count() >= times || Instant::now() > deadline {
                return errors;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// The number of the process.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// Whether it was started, and neither stopped nor killed since.
    pub fn has_process(&self) -> bool {
        self.process.is_some()
    }

    /// Whether the process is still there.
    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut();
        process.is_some_and(|process| matches!(process.try_wait(), Ok(None)))
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("a signal to a child");
        process.wait().expect("its exit status");
    }

    /// SIGTERM, and waits for the end; panics where that does not come.
    pub fn stop(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        signal(process.id(), "TERM");
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = process.try_wait().expect("its exit status") {
                return status;
            }
            if Instant::now() > deadline {
                drop(process.kill());
                drop(process.wait());
                panic!("vltava did not stop:\n{}", self.said());
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// An orderly stop, and a new start.
    pub fn restart(&mut self) {
        let status = self.stop();
        assert!(status.success(), "an orderly stop ended with {status}:\n{}", self.said());
        self.run();
    }

    /// Memory of the process, in bytes: a line of its status, `VmRSS` or `VmHWM`.
    pub fn memory_bytes(&self, line: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process_id()))
            .expect("the status of a child");
        let found = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'));
        let kib = found.expect("the line").trim().trim_end_matches("kB").trim();
        kib.parse::<u64>().expect("a number") * 1024
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        if thread::panicking() {
            let said = self.said();
            let lines: Vec<&str> = said.lines().filter(|line| !line.contains(" INFO ")).collect();
            let begin = lines.len().saturating_sub(SAID_LINES_MAX);
            eprintln!("what vltava said:\n{}", lines[begin..].join("\n"));
        }
    }
}

/// Sends a signal by its name, as `kill` of the shell does.
pub fn signal(process: u32, name: &str) {
    let command = format!("kill -{name} {process}");
    let status = Command::new("sh").args(["-c", &command]).status().expect("a shell");
    assert!(status.success(), "{command}: {status}");
}
