//! `vltava serve` and `vltava config`.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;

use super::logging::{self, LogFormat};
use crate::config::render;
use crate::config::values::{self, BrokerConfig, Given, Origin};
use crate::server;

/// Arguments of `vltava serve`.
#[derive(Debug, Args)]
pub struct Serve {
    /// Directory of the logs and of everything else that must survive; it must exist [default:
    /// ./data].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<String>,
    /// Where clients connect [default: 127.0.0.1:9092].
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// How clients reach this node, where that is not the address it listens on.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// Where metrics and health are served; `none` turns it off [default: 127.0.0.1:9644].
    #[arg(long, value_name = "HOST:PORT")]
    admin: Option<String>,
    /// Shards, each a thread with its own partitions [default: one for each core].
    #[arg(long, value_name = "N")]
    shards: Option<String>,
    /// Memory for requests and for the batch cache, as 4GiB [default: half of the machine's].
    #[arg(long, value_name = "SIZE")]
    memory: Option<String>,
    /// This node's number in its cluster [default: 1].
    #[arg(long, value_name = "N")]
    node_id: Option<String>,
    /// Settings in a file of Kafka's properties.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A setting by its Kafka name; goes before the file's.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    log_format: LogFormat,
    /// Which log lines are shown: a level, or levels by room (`info,vltava::net=debug`).
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log_level: String,
}

/// Arguments of `vltava config`.
#[derive(Debug, Args)]
pub struct Config {
    /// Only settings whose name contains this.
    #[arg(default_value = "")]
    filter: String,
    /// As a JSON array.
    #[arg(long)]
    json: bool,
    /// As the page of the documentation.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,
}

impl Serve {
    /// Runs a broker until it is told to stop.
    ///
    /// # Errors
    /// One line (a line each, for settings) that says what is wrong.
    pub fn run(self, started: Instant) -> Result<(), String> {
        let (config, warnings) = self.load()?;
        let _logging = logging::start(self.log_format, &self.log_level)?;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        server::run(config, started).map_err(|error| error.to_string())
    }

    fn load(&self) -> Result<(BrokerConfig, Vec<String>), String> {
        let mut given = match &self.config {
            None => Vec::new(),
            Some(path) => {
                let shown = path.display().to_string();
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("--config {shown}: {error}"))?;
                values::from_properties(&shown, &text).map_err(|error| error.to_string())?
            }
        };
        for setting in &self.settings {
            let Some((name, value)) = setting.split_once('=') else {
                return Err(format!("--set {setting}: expected NAME=VALUE"));
            };
            given.push(Given {
                name: name.trim().to_owned(),
                value: value.to_owned(),
                origin: Origin::Set,
            });
        }
        given.extend(self.flags());
        let loaded = values::load(&given).map_err(|errors| errors.to_string())?;
        Ok((loaded.config, loaded.warnings))
    }

    fn flags(&self) -> Vec<Given> {
        let plaintext =
            |address: &Option<String>| address.as_ref().map(|at| format!("PLAINTEXT://{at}"));
        let flags = [
            ("--data-dir", "log.dirs", self.data_dir.clone()),
            ("--listen", "listeners", plaintext(&self.listen)),
            ("--advertise", "advertised.listeners", plaintext(&self.advertise)),
            ("--admin", "admin.listener", self.admin.clone()),
            ("--shards", "shards", self.shards.clone()),
            ("--memory", "memory", self.memory.clone()),
            ("--node-id", "node.id", self.node_id.clone()),
        ];
        let given = flags.into_iter().filter_map(|(flag, name, value)| {
            let (name, origin) = (name.to_owned(), Origin::Flag(flag));
            value.map(|value| Given { name, value, origin })
        });
        given.collect()
    }
}

impl Config {
    /// Prints the settings.
    pub fn run(&self) {
        let text = if self.markdown {
            render::markdown()
        } else if self.json {
            render::json(&self.filter)
        } else {
            render::text(&self.filter)
        };
        print!("{text}");
    }
}
