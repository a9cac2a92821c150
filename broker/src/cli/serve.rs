//! `vltava serve` and `vltava config`.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::error::CliError;
use super::logging::{self, LogFormat};
use super::output::Output;
use crate::config::listeners;
use crate::config::render;
use crate::config::values::{self, BrokerConfig, Given, Origin};
use crate::metadata::features::Levels;
use crate::runtime::DataDirectoryError;
use crate::server::{self, ServerError};

/// Arguments of `vltava serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Directory for the topics' logs and all other state; it must exist [default: ./data]
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Where clients connect; no host before the colon: all interfaces [default: 127.0.0.1:9092]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The address that clients are told to connect to [default: that of --listen, or this
    /// machine's host name where that is all interfaces]
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where metrics and health are served over HTTP, or none [default: 127.0.0.1:9644]
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Shards: threads, each with its own partitions and connections [default: one for each core]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shards: Option<String>,
    /// Memory for requests, caches and buffers, such as 4GiB [default: 512 MiB for each shard]
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    memory: Option<String>,
    /// This broker's node.id [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    node_id: Option<String>,
    /// The nodes of the cluster, this one among them, and where each listens for the others
    /// [default: this node is alone]
    #[arg(long, value_name = "ID@HOST:PORT,...")]
    peers: Option<String>,
    /// A file of settings in the form and with the names of Kafka's server.properties
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting by its Kafka name, over the file's; may be repeated (`vltava config` lists all)
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// How log lines are written to standard error: text, or json (an object a line)
    #[arg(long, value_enum, value_name = "FORMAT", hide_possible_values = true)]
    #[arg(default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Which log lines are written: off, error, warn, info, debug or trace; for a part of the
    /// broker, as its lines name it, another level: info,net=debug
    #[arg(long, value_name = "LEVELS", default_value = "info")]
    log_level: String,
}

/// Arguments of `vltava config`.
#[derive(Debug, Args)]
pub struct Config {
    /// Only settings whose names contain this
    #[arg(value_name = "TEXT", default_value = "", hide_default_value = true)]
    filter: String,
    /// Print a JSON array
    #[arg(long)]
    json: bool,
    /// Print docs/configuration.md
    #[arg(long, conflicts_with_all = ["json", "filter"])]
    markdown: bool,
}

impl Serve {
    /// Runs a broker until it is told to stop.
    ///
    /// # Errors
    /// One line (a line each, for settings) that says what is wrong.
    pub fn run(self, started: Instant) -> Result<(), CliError> {
        self.run_as(Levels::SERVED, started)
    }

    /// As [`Serve::run`], as a release that serves these feature levels: for tests.
    ///
    /// # Errors
    /// As [`Serve::run`].
    pub fn run_as(self, levels: Levels, started: Instant) -> Result<(), CliError> {
        let (config, warnings) = self.load()?;
        let _logging = logging::start(self.log_format, &self.log_level)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        server::run_as(config, levels, started).map_err(failure)
    }

    fn load(&self) -> Result<(BrokerConfig, Vec<String>), CliError> {
        let mut given = match &self.config {
            None => Vec::new(),
            Some(path) => {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| CliError::new(format!("--config {shown}: {error}")))?;
                values::from_properties(&shown, &text)
                    .map_err(|error| CliError::usage(error.to_string()))?
            }
        };
        for setting in &self.settings {
            let Some((name, value)) = setting.split_once('=') else {
                return Err(CliError::usage(format!("--set {setting}: expected NAME=VALUE")));
            };
            given.push(Given {
                name: name.trim().to_owned(),
                value: value.to_owned(),
                origin: Origin::Set,
            });
        }
        given.extend(self.flags()?);
        let loaded = values::load(&given).map_err(|errors| CliError::usage(errors.to_string()))?;
        Ok((loaded.config, loaded.warnings))
    }

    fn flags(&self) -> Result<Vec<Given>, CliError> {
        let flags = [
            ("--data-dir", "log.dirs", &self.data_dir),
            ("--listen", "listeners", &self.listen),
            ("--advertise", "advertised.listeners", &self.advertise),
            ("--admin", "admin.listener", &self.admin),
            ("--shards", "shards", &self.shards),
            ("--memory", "memory", &self.memory),
            ("--node-id", "node.id", &self.node_id),
            ("--peers", "peers", &self.peers),
        ];
        let given = flags.into_iter().filter_map(|(flag, name, typed)| {
            typed.as_deref().map(|typed| setting(flag, name, typed))
        });
        given.collect()
    }
}

/// The setting that a flag stands for.
fn setting(flag: &'static str, name: &str, typed: &str) -> Result<Given, CliError> {
    let value = match flag {
        // Kafka's setting has the listener's name before the address.
        "--listen" | "--advertise" => {
            listeners::host_and_port(flag, typed)
                .map_err(|error| CliError::usage(format!("{flag} {typed}: {}", error.reason())))?;
            format!("PLAINTEXT://{typed}")
        }
        _ => typed.to_owned(),
    };
    let origin = Origin::Flag { name: flag, typed: typed.into() };
    Ok(Given { name: name.to_owned(), value, origin })
}

/// Why a broker does not run, and what to do about it, in one line.
fn failure(error: ServerError) -> CliError {
    let advice = match &error {
        ServerError::DataDirectory(DataDirectoryError::Missing(_)) => {
            ", or choose another with --data-dir"
        }
        ServerError::DataDirectory(DataDirectoryError::InUse(_)) => {
            "; stop that one, or choose another directory with --data-dir"
        }
        ServerError::Listen { error, .. } if error.kind() == ErrorKind::AddrInUse => {
            "; is another broker running there?"
        }
        ServerError::Listen { error, .. } if error.kind() == ErrorKind::AddrNotAvailable => {
            "; it must be an address of this machine"
        }
        ServerError::Listen { error, .. } if error.kind() == ErrorKind::PermissionDenied => {
            "; ports below 1024 take a privilege"
        }
        _ => "",
    };
    CliError::new(format!("{error}{advice}"))
}

impl Config {
    /// Prints the settings.
    ///
    /// # Errors
    /// None has a name like that.
    pub fn run(&self) -> Result<(), CliError> {
        let text = if self.markdown {
            render::markdown()
        } else if self.json {
            render::json(&self.filter)
        } else {
            render::text(&self.filter)
        };
        if text.is_empty() {
            let message = format!("no setting has {:?} in its name", self.filter);
            return Err(CliError::new(message));
        }
        let mut output = Output::stdout();
        output.write_all(text.as_bytes())?;
        Ok(output.flush()?)
    }
}
