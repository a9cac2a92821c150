//! A broker that the harness starts: its command, until it answers, until it is stopped.

use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use vltava_client::blocking::{Address, Link};
use vltava_client::metadata::Metadata;
use vltava_protocol::types::Str;

use crate::interrupt::{is_interrupted, on_ended, on_started};
use crate::scenario::End;

/// How long a broker may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long it may take to stop when it is asked to.
const STOPPED_WITHIN: Duration = Duration::from_secs(60);
/// How often it is asked.
const PAUSE: Duration = Duration::from_millis(1);
/// What stands for ports in a command; the first is where it is to listen for clients.
const PORTS: [&str; 9] = [
    "{port}", "{port2}", "{port3}", "{port4}", "{port5}", "{port6}", "{port7}", "{port8}",
    "{port9}",
];
/// How much of what it wrote is shown where it fails.
const OUTPUT_LINES: usize = 12;

/// A broker that runs; ends when this is dropped.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    /// As it was started.
    command: String,
    directory: PathBuf,
    address: String,
    ready: Duration,
}

/// Why a broker could not be started or stopped.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// A file, a port or a process could not be had.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// It ended before it answered.
    #[error("`{command}` ended before it answered ({status}); it wrote:\n{output}")]
    Ended {
        /// How it was started.
        command: String,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it wrote.
        output: String,
    },
    /// It runs, and does not answer.
    #[error(
        "`{command}` does not answer on port {{port}} within {} s; it wrote:\n{output}",
        READY_WITHIN.as_secs()
    )]
    Silent {
        /// How it was started.
        command: String,
        /// The end of what it wrote.
        output: String,
    },
    /// Somebody wants the harness to end.
    #[error("interrupted while the broker was to start")]
    Interrupted,
    /// It does not end.
    #[error("`{command}` does not end within {} s", STOPPED_WITHIN.as_secs())]
    Lasting {
        /// How it was started.
        command: String,
    },
    /// The process that was started is gone, and something still answers.
    #[error(
        "the command for {0} ended, but a broker still answers there: the command is to be the \
         broker itself (`exec` in a script), or its CPU and memory cannot be told"
    )]
    Detached(String),
}

fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> LaunchError {
    let what = what.into();
    move |source| LaunchError::System { what, source }
}

impl Launched {
    /// Starts a broker and waits until it answers.
    ///
    /// In `command`, which is one command as for `env`, `{port}` becomes a free port on 127.0.0.1,
    /// `{port2}` to `{port9}` others, and `{data}` an empty directory below `data_parent`.
    ///
    /// # Errors
    /// Where it cannot be started, or does not answer.
    pub fn start(command: &str, data_parent: &Path) -> Result<Self, LaunchError> {
        let directory = new_directory(data_parent)?;
        let data = directory.join("data");
        fs::create_dir(&data).map_err(system(format!("making {}", data.display())))?;
        let ports = free_ports().map_err(system("finding a free port"))?;
        let mut command = command.replace("{data}", &quoted(&data));
        for (port, name) in ports.iter().zip(PORTS) {
            command = command.replace(name, &port.to_string());
        }
        let begun = Instant::now();
        let child = spawn(&command, &directory)?;
        on_started(child.id(), &directory);
        let address = format!("127.0.0.1:{}", ports[0]);
        let ready = Duration::ZERO;
        let mut launched = Self { child, command, directory, address, ready };
        launched.wait_until_ready(begun)?;
        launched.ready = begun.elapsed();
        Ok(launched)
    }

    /// Ends it, and waits until it has ended. Its data stays, and [`Self::start_again`] is to
    /// follow.
    ///
    /// # Errors
    /// Where the process was not the broker, or does not end.
    pub fn end(&mut self, how: End) -> Result<(), LaunchError> {
        let signal = match how {
            End::Stop => Signal::TERM,
            End::Kill => Signal::KILL,
        };
        match self.await_end(signal)? {
            None => Err(LaunchError::Lasting { command: self.command.clone() }),
            Some(_) if self.answers() => Err(LaunchError::Detached(self.address.clone())),
            Some(_) => Ok(()),
        }
    }

    /// Starts it with the same command, on the same port and data. How long it took until it
    /// answered.
    ///
    /// # Errors
    /// Where it cannot be started, or does not answer.
    pub fn start_again(&mut self) -> Result<Duration, LaunchError> {
        let begun = Instant::now();
        self.child = spawn(&self.command, &self.directory)?;
        on_started(self.child.id(), &self.directory);
        self.wait_until_ready(begun)?;
        Ok(begun.elapsed())
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its data stands.
    pub fn data(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// How long it took from its start to its first answer.
    pub fn ready(&self) -> Duration {
        self.ready
    }

    /// Ends it in an orderly way, and removes its data.
    ///
    /// # Errors
    /// Where the process was not the broker.
    pub fn stop(mut self) -> Result<(), LaunchError> {
        match self.await_end(Signal::TERM)? {
            Some(_) if self.answers() => Err(LaunchError::Detached(self.address.clone())),
            // One that takes longer than that is ended the hard way, when this is dropped.
            _ => Ok(()),
        }
    }

    /// Asks it to end, and waits for that; `None`: it has not ended.
    fn await_end(&mut self, signal: Signal) -> Result<Option<ExitStatus>, LaunchError> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        let asked = pid.is_some_and(|pid| kill_process(pid, signal).is_ok());
        let deadline = Instant::now() + STOPPED_WITHIN;
        while asked && Instant::now() < deadline {
            let status = self.child.try_wait().map_err(system("waiting for a broker to end"))?;
            if status.is_some() {
                on_ended(self.child.id());
                return Ok(status);
            }
            sleep(PAUSE);
        }
        Ok(None)
    }

    fn wait_until_ready(&mut self, begun: Instant) -> Result<(), LaunchError> {
        while begun.elapsed() < READY_WITHIN {
            if self.answers() {
                return Ok(());
            }
            if is_interrupted() {
                return Err(LaunchError::Interrupted);
            }
            let status = self.child.try_wait().map_err(system("waiting for a broker"))?;
            if let Some(status) = status {
                let (command, output) = (self.command.clone(), self.output());
                return Err(LaunchError::Ended { command, status, output });
            }
            sleep(PAUSE);
        }
        Err(LaunchError::Silent { command: self.command.clone(), output: self.output() })
    }

    /// Whether it says which APIs it serves, and which brokers there are.
    fn answers(&self) -> bool {
        let Ok(address) = self.address.parse::<Address>() else {
            return false;
        };
        let linked = Link::open(&address, &Str::from_static("ready"));
        let asked = linked.and_then(|mut link| link.call(&Metadata::request(Some(&[]), false)));
        asked.is_ok_and(|metadata| !metadata.brokers.is_empty())
    }

    /// The end of what it wrote.
    fn output(&self) -> String {
        let output = fs::read(self.directory.join("output")).unwrap_or_default();
        let output = String::from_utf8_lossy(&output);
        let lines: Vec<&str> = output.lines().collect();
        lines[lines.len().saturating_sub(OUTPUT_LINES)..].join("\n")
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // Where it has ended already, there is nothing to do; whose directory is gone, neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
        on_ended(self.child.id());
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// Starts a process whose words go to the end of a file in the directory.
fn spawn(command: &str, directory: &Path) -> Result<Child, LaunchError> {
    let opened = File::options().create(true).append(true).open(directory.join("output"));
    let log = opened.map_err(system("a file for what the broker writes"))?;
    let errors = log.try_clone().map_err(system("its standard error"))?;
    Command::new("sh")
        .args(["-c", &format!("exec env {command}")])
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(system(format!("starting `{command}`")))
}

/// An empty directory that nobody else has.
fn new_directory(parent: &Path) -> Result<PathBuf, LaunchError> {
    static LAUNCHES: AtomicU32 = AtomicU32::new(0);
    let launch = LAUNCHES.fetch_add(1, Ordering::Relaxed);
    // A broker may have another working directory.
    let absolute = fs::canonicalize(parent);
    let parent = absolute.map_err(system(format!("finding {}", parent.display())))?;
    let directory = parent.join(format!("vltava-bench-{}-{launch}", process::id()));
    fs::create_dir(&directory).map_err(system(format!("making {}", directory.display())))?;
    Ok(directory)
}

/// Ports that nobody listens on, one for each name.
fn free_ports() -> io::Result<[u16; PORTS.len()]> {
    let mut ports = [0; PORTS.len()];
    // All are held until the last is found, so that none is found twice.
    let mut listeners = Vec::with_capacity(ports.len());
    for port in &mut ports {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        *port = listener.local_addr()?.port();
        listeners.push(listener);
    }
    Ok(ports)
}

/// A path as one word of a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn a_command_that_ends_at_once_is_told_with_its_words() {
        let parent = tempfile::tempdir().unwrap();
        let command = "sh -c 'echo port {port}; ls -d {data}; exit 3'";
        let error = Launched::start(command, parent.path()).unwrap_err().to_string();
        assert!(error.contains("exit status: 3"), "{error}");
        assert!(error.contains("\nport "), "{error}");
        assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 0, "its directory is gone");
    }

    #[test]
    fn a_command_may_set_variables() {
        let parent = tempfile::tempdir().unwrap();
        let command = "GREETING=hello sh -c 'echo $GREETING {data} {port2}'";
        let error = Launched::start(command, parent.path()).unwrap_err().to_string();
        assert!(error.contains("hello /"), "{error}");
    }

    #[test]
    fn a_path_is_one_word() {
        assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
    }
}
