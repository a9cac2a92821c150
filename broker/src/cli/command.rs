//! Which commands there are.

use crate::cli::cluster::ClusterCommand;
use crate::cli::consume::ConsumeArguments;
use crate::cli::error::CliError;
use crate::cli::group::GroupCommand;
use crate::cli::inspect::InspectArguments;
use crate::cli::manual::{CompletionsArguments, ManArguments};
use crate::cli::produce::ProduceArguments;
use crate::cli::repair::RepairArguments;
use crate::cli::topic::TopicCommand;
use crate::cli::{cluster, consume, group, inspect, manual, produce, repair, topic};

/// A command that is a client.
#[derive(Debug, clap::Subcommand)]
pub enum ClientCommand {
    /// Create, list, describe and delete topics
    #[command(subcommand)]
    Topic(TopicCommand),
    /// Write the lines of standard input as records
    Produce(ProduceArguments),
    /// Print the records of topics
    Consume(ConsumeArguments),
    /// List consumer groups, show their members and lag
    #[command(subcommand)]
    Group(GroupCommand),
    /// Show a cluster's nodes; add, drain and remove them
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Check log segment files, and show the batches and records in them
    Inspect(InspectArguments),
    /// Check the log of a partition while its broker is stopped, and repair a damaged one
    Repair(RepairArguments),
    /// Print a completion script for a shell
    Completions(CompletionsArguments),
    /// Print the manual page, or write all pages into a directory
    Man(ManArguments),
}

/// Does it. `root` is the whole program as clap knows it, for completions and manual pages.
pub fn run(command: ClientCommand, root: fn() -> clap::Command) -> Result<(), CliError> {
    match command {
        ClientCommand::Topic(command) => topic::run(command),
        ClientCommand::Produce(arguments) => produce::run(&arguments),
        ClientCommand::Consume(arguments) => consume::run(&arguments),
        ClientCommand::Group(command) => group::run(command),
        ClientCommand::Cluster(command) => cluster::run(command),
        ClientCommand::Inspect(arguments) => inspect::run(&arguments),
        ClientCommand::Repair(arguments) => repair::run(&arguments),
        ClientCommand::Completions(arguments) => manual::completions(&arguments, root()),
        ClientCommand::Man(arguments) => manual::man(&arguments, root()),
    }
}
