//! `vltava consume`: which records, and in which form.

use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use vltava_client::metadata::TopicPartition;
use vltava_client::records::ConsumedRecord;
use vltava_protocol::batch::TimestampType;
use vltava_protocol::types::Str;

use crate::cli::arguments::{ClusterArguments, name, whole_number};
use crate::cli::error::CliError;
use crate::cli::format::{self, Format};
use crate::cli::json::{self, Object};
use crate::cli::member;
use crate::cli::output::Output;
use crate::cli::position::{PartitionList, Position};
use crate::cli::reading::Reading;

/// `vltava consume`.
#[derive(Debug, clap::Args)]
pub struct ConsumeArguments {
    /// The topics to read
    #[arg(required = true, value_name = "TOPIC", value_parser = name)]
    topics: Vec<String>,
    /// Read as a member of this consumer group, and commit what was printed
    #[arg(long, short, conflicts_with = "partition", value_parser = name)]
    group: Option<String>,
    /// Which partitions to read, such as 0,2,5-7 [default: all]
    #[arg(long, short, value_name = "LIST")]
    partition: Option<PartitionList>,
    /// Where to begin: beginning, end, an offset, -N (N before the end) or time:WHEN (RFC 3339, or
    /// ms since 1970). A group begins there in partitions where it has not committed yet
    #[arg(
        long,
        short = 'o',
        default_value = "beginning",
        value_name = "WHERE",
        allow_hyphen_values = true
    )]
    from: Position,
    /// End after N records [default: never]
    #[arg(long, short = 'c', value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = whole_number::<u64>)]
    count: Option<u64>,
    /// End when everything was read that was there at the start
    #[arg(long, short = 'e')]
    exit_at_end: bool,
    #[arg(long, short = 'f', value_name = "TEXT", default_value = "%s\\n")]
    #[arg(help = format::HELP, conflicts_with = "json")]
    format: String,
    /// What to print for a null key or value [default: empty]
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    null: String,
    /// Print JSON, one line for each record
    #[arg(long, short = 'J')]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

/// Does it.
pub(super) fn run(arguments: &ConsumeArguments) -> Result<(), CliError> {
    let format = Format::parse(&arguments.format, &arguments.null)
        .map_err(|error| CliError::usage(format!("--format: {error}")))?;
    if arguments.count == Some(0) {
        return Ok(());
    }
    let mut topics: Vec<Str> =
        arguments.topics.iter().map(|topic| Str::from(topic.as_str())).collect();
    topics.sort();
    topics.dedup();
    let mut cluster = arguments.cluster.connect()?;
    cluster.await_topics(&topics, false)?;
    let printer = Printer {
        output: Output::stdout(),
        form: if arguments.json { Form::Json } else { Form::Text(format) },
        left: arguments.count,
    };
    let mut reading = Reading::new(cluster, printer, topics, arguments.exit_at_end);
    match &arguments.group {
        Some(group) => {
            let stop = stop_flag()?;
            member::run(&mut reading, Str::from(group.as_str()), arguments.from, &stop)
        }
        None => read_partitions(&mut reading, arguments),
    }
}

fn read_partitions(reading: &mut Reading, arguments: &ConsumeArguments) -> Result<(), CliError> {
    let mut partitions = Vec::new();
    for topic in &reading.topics {
        let all = reading.cluster.metadata().partitions_of(topic);
        match &arguments.partition {
            None => partitions.extend(all),
            Some(PartitionList(wanted)) => {
                for &partition in wanted {
                    let found = TopicPartition { topic: topic.clone(), partition };
                    if !all.contains(&found) {
                        let message = format!(
                            "topic {topic} has no partition {partition}, only 0 to {}",
                            all.len().saturating_sub(1)
                        );
                        return Err(CliError::new(message));
                    }
                    partitions.push(found);
                }
            }
        }
    }
    let patience = reading.cluster.patience();
    reading.cluster.await_leaders(&partitions, patience)?;
    let offsets = reading.offsets_at(&partitions, arguments.from)?;
    if let Position::Offset(offset) = arguments.from {
        let ends = reading.offsets_at(&partitions, Position::End)?;
        if let Some((partition, end)) = ends.iter().find(|(_, end)| **end < offset) {
            let message = format!("{partition} has no offset {offset}: it ends at {end}");
            return Err(CliError::new(message));
        }
    }
    reading.begin(offsets)?;
    while !reading.is_done() {
        reading.fetch(None)?;
        reading.wait(None);
    }
    Ok(())
}

/// Becomes true when the process is asked to end; asked twice, it ends at once.
fn stop_flag() -> Result<Arc<AtomicBool>, CliError> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down, the second finds it up.
        flag::register_conditional_default(signal, Arc::clone(&stop))
            .and_then(|_| flag::register(signal, Arc::clone(&stop)))
            .map_err(|error| CliError::new(format!("cannot wait for signals: {error}")))?;
    }
    Ok(stop)
}

/// Whether the process was asked to end.
pub(super) fn is_asked_to_stop(stop: &AtomicBool) -> bool {
    stop.load(Ordering::Relaxed)
}

enum Form {
    Text(Format),
    Json,
}

/// Prints records until there were enough.
pub(super) struct Printer {
    pub(super) output: Output,
    form: Form,
    /// How many more to print.
    left: Option<u64>,
}

impl Printer {
    /// Whether enough was printed.
    pub(super) fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    /// Prints a record; breaks when that was the last one wanted.
    pub(super) fn print(
        &mut self,
        partition: &TopicPartition,
        record: &ConsumedRecord<'_>,
    ) -> io::Result<ControlFlow<()>> {
        match &self.form {
            Form::Text(format) => {
                format.write(&mut self.output, &partition.topic, partition.partition, record)?;
            }
            Form::Json => self.output.line(&as_json(partition, record))?,
        }
        if let Some(left) = &mut self.left {
            *left = left.saturating_sub(1);
        }
        Ok(if self.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    }

    /// What was printed is to be seen. An error, too, where nobody sees it any more: a topic to
    /// which nothing is written would keep `vltava consume | head -1` for ever.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.output.flush()?;
        if self.output.is_closed() { Err(io::ErrorKind::BrokenPipe.into()) } else { Ok(()) }
    }
}

fn as_json(partition: &TopicPartition, record: &ConsumedRecord<'_>) -> String {
    let headers = record
        .headers
        .map(|(key, value)| Object::new().bytes("key", Some(key)).bytes("value", value).finish());
    let timestamp_type = match record.timestamp_type {
        TimestampType::CreateTime => "create",
        TimestampType::LogAppendTime => "append",
    };
    Object::new()
        .text("topic", &partition.topic)
        .raw("partition", partition.partition)
        .raw("offset", record.offset)
        .raw("timestamp", record.timestamp)
        .text("timestamp_type", timestamp_type)
        .bytes("key", record.key)
        .bytes("value", record.value)
        .raw("headers", json::array(headers))
        .finish()
}
