//! Which commands there are.

use std::str::FromStr;

use super::{balance, change, recover, status};
use crate::cli::arguments::{ClusterArguments, whole_number};
use crate::cli::error::CliError;

/// What to do with a cluster's nodes.
#[derive(Debug, clap::Subcommand)]
pub enum ClusterCommand {
    /// Show the nodes, who leads, who votes, and what is under way
    Status(StatusArguments),
    /// Let a node join, and wait until it has
    Add(AddArguments),
    /// Move what a node leads to others, and wait until it leads nothing
    Drain(DrainArguments),
    /// Move what a node keeps to others, and take it out of the cluster
    Remove(RemoveArguments),
    /// Spread replicas and leaders evenly over the nodes, such as onto a new one
    Balance(BalanceArguments),
    /// Go on without nodes that are gone for good, where a majority is gone with them
    Recover(RecoverArguments),
}

/// `vltava cluster status`.
#[derive(Debug, clap::Args)]
pub struct StatusArguments {
    /// Print a JSON object
    #[arg(long)]
    pub(super) json: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
}

/// `vltava cluster add`.
#[derive(Debug, clap::Args)]
pub struct AddArguments {
    /// The node's number, and where it listens for the other nodes: as --peers has it
    #[arg(value_name = "ID@HOST:PORT")]
    pub(super) node: NodeAddress,
    /// Do not wait until the node is there
    #[arg(long)]
    pub(super) no_wait: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
}

/// `vltava cluster drain`.
#[derive(Debug, clap::Args)]
pub struct DrainArguments {
    /// The node's number
    #[arg(value_name = "NODE", value_parser = whole_number::<i32>)]
    pub(super) node: i32,
    /// Let the node lead again
    #[arg(long)]
    pub(super) undo: bool,
    /// Do not wait until it leads nothing
    #[arg(long)]
    pub(super) no_wait: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
}

/// `vltava cluster remove`.
#[derive(Debug, clap::Args)]
pub struct RemoveArguments {
    /// The node's number
    #[arg(value_name = "NODE", value_parser = whole_number::<i32>)]
    pub(super) node: i32,
    /// Also where topics have more replicas than there will be nodes: they keep fewer
    #[arg(long)]
    pub(super) fewer_replicas: bool,
    /// Do not wait until it has left
    #[arg(long)]
    pub(super) no_wait: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
}

/// `vltava cluster balance`.
#[derive(Debug, clap::Args)]
pub struct BalanceArguments {
    /// Only show what would move
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Partitions that are on their way at a time
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) at_a_time: u16,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
}

/// `vltava cluster recover`.
#[derive(Debug, clap::Args)]
pub struct RecoverArguments {
    /// The numbers of all nodes that are gone for good: none that may come back
    #[arg(value_name = "NODE", required = true, value_parser = whole_number::<i32>)]
    pub(super) gone: Vec<i32>,
    /// The admin port of a node that is left: of the one that has most, where several are
    #[arg(long, value_name = "HOST:PORT", default_value = "127.0.0.1:9644")]
    pub(super) admin: String,
    /// Do not ask
    #[arg(long, short)]
    pub(super) yes: bool,
    #[command(flatten)]
    pub(super) cluster: ClusterArguments,
}

/// A node and its address, as `4@host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    pub(super) id: i32,
    pub(super) address: String,
}

impl FromStr for NodeAddress {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const FORM: &str = "write ID@HOST:PORT";
        let (id, address) = text.split_once('@').ok_or(FORM)?;
        let id = whole_number(id).map_err(|_| FORM)?;
        let (host, port) = address.rsplit_once(':').ok_or(FORM)?;
        let is_port = whole_number::<u16>(port).is_ok_and(|port| port > 0);
        if host.is_empty() || !is_port {
            return Err(FORM);
        }
        Ok(Self { id, address: address.to_owned() })
    }
}

/// Does it.
pub fn run(command: ClusterCommand) -> Result<(), CliError> {
    match command {
        ClusterCommand::Status(arguments) => status::run(&arguments),
        ClusterCommand::Add(arguments) => change::add(&arguments),
        ClusterCommand::Drain(arguments) => change::drain(&arguments),
        ClusterCommand::Remove(arguments) => change::remove(&arguments),
        ClusterCommand::Balance(arguments) => balance::run(&arguments),
        ClusterCommand::Recover(arguments) => recover::run(&arguments),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_a_number_and_an_address() {
        let node = NodeAddress { id: 4, address: "[::1]:7644".to_owned() };
        assert_eq!("4@[::1]:7644".parse(), Ok(node));
        for text in ["", "4", "@h:1", "x@h:1", "-1@h:1", "4@h", "4@h:", "4@:1", "4@h:0", "4@h:x"] {
            assert!(text.parse::<NodeAddress>().is_err(), "{text}");
        }
    }
}
