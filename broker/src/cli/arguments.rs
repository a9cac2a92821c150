//! Arguments that several commands share.

use std::time::Duration;

use vltava_client::blocking::{Address, Cluster, ClusterOptions};
use vltava_protocol::types::Str;

use crate::cli::CliError;

/// How a cluster is reached.
#[derive(Debug, clap::Args)]
pub struct ClusterArguments {
    /// Brokers to ask for the cluster's brokers, with commas between them
    #[arg(long, short = 'b', value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Seconds to try again what may succeed later
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    timeout: u64,
}

impl ClusterArguments {
    /// Connects.
    pub(super) fn connect(&self) -> Result<Cluster, CliError> {
        let options = ClusterOptions {
            client_id: Str::from_static("vltava"),
            retry_for: Duration::from_secs(self.timeout),
        };
        Ok(Cluster::connect(Address::list(&self.bootstrap)?, options)?)
    }

    /// How long to try again, in milliseconds.
    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout.saturating_mul(1000)
    }
}

/// A name and a value, as `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub(super) name: String,
    pub(super) value: String,
}

impl std::str::FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write name=value")?;
        if name.is_empty() {
            return Err("the name before = is missing");
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}
