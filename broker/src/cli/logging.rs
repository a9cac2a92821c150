//! Where log lines go: standard error, as text or as JSON, from a thread of its own so that no
//! shard waits for a terminal.

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line, for machines.
    Json,
}

/// Starts logging for the process.
///
/// # Errors
/// Where the filter cannot be read.
pub fn start(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter =
        EnvFilter::try_new(filter).map_err(|error| format!("--log-level {filter}: {error}"))?;
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    // Lines are written until the process ends.
    std::mem::forget(guard);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Text => builder
            .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
            .init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}
