//! `vltava produce`: lines of standard input become records.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_client::metadata::TopicPartition;
use vltava_client::partitioner::Partitioner;
use vltava_client::producer::{Delivery, Producer, ProducerOptions};
use vltava_protocol::compression::{Codec, Compressor};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::types::Str;

use crate::cli::arguments::{ClusterArguments, Pair, integer, name, whole_number};
use crate::cli::error::{CliError, UNREACHABLE};
use crate::cli::format::unescape;
use crate::cli::json::{self, Object};
use crate::cli::output::Output;
use crate::cli::progress::Progress;

/// Lines that wait between reading and sending.
const LINES_MAX: usize = 1024;
/// Bytes of batches that wait for a broker.
const BUFFERED_BYTES_MAX: usize = 64 << 20;
/// How long to wait for a line when nothing else is to be done.
const IDLE: Duration = Duration::from_secs(3600);

/// `vltava produce`.
#[derive(Debug, clap::Args)]
pub struct ProduceArguments {
    /// The topic to write to; it is created where the broker creates topics by itself
    #[arg(value_parser = name)]
    topic: String,
    /// Text between key and value of a line, such as : or \t [default: lines have no keys]
    #[arg(long, short = 'K', value_name = "TEXT")]
    key_separator: Option<String>,
    /// A header of every record; may be repeated
    #[arg(long, short = 'H', value_name = "NAME=VALUE")]
    header: Vec<Pair>,
    /// Compression of the batches: none, gzip, snappy, lz4 or zstd
    #[arg(long, short = 'z', default_value = "none")]
    codec: Codec,
    /// Compression level: gzip 1 to 9, zstd -131072 to 22 [default: the codec's own]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = integer)]
    level: Option<i32>,
    /// The partition to write to [default: by the key's hash, as Java's client; without a key, any]
    #[arg(long, short, value_name = "N", allow_negative_numbers = true)]
    #[arg(value_parser = whole_number::<i32>)]
    partition: Option<i32>,
    /// Acknowledgement to wait for: 0 (none), 1 (the leader has it) or all (the in-sync replicas
    /// have it; each record is then written once, also over retries)
    #[arg(long, short = 'X', default_value = "all", value_parser = parse_acks)]
    acks: i16,
    /// Write an empty value as null (a tombstone)
    #[arg(long, short = 'Z')]
    tombstones: bool,
    /// Print at the end, as JSON, how many records went to which partition
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    cluster: ClusterArguments,
}

fn parse_acks(text: &str) -> Result<i16, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        _ => Err(String::from("write 0, 1 or all")),
    }
}

/// Does it.
pub(super) fn run(arguments: &ProduceArguments) -> Result<(), CliError> {
    let compressor = compressor(arguments.codec, arguments.level)?;
    let separator = arguments.key_separator.as_deref().map(unescape).transpose();
    let separator =
        separator.map_err(|error| CliError::usage(format!("--key-separator: {error}")))?;
    let mut cluster = arguments.cluster.connect()?;
    let topic = Str::from(arguments.topic.as_str());
    cluster.await_topics(std::slice::from_ref(&topic), true)?;
    let partition_count = partition_count(&cluster, &topic, arguments.partition)?;
    let options = ProducerOptions {
        acks: arguments.acks,
        delivery_timeout_ms: arguments.cluster.timeout_ms(),
        identity: identity(&mut cluster, arguments.acks)?,
        ..ProducerOptions::default()
    };
    let mut session = Session {
        arguments,
        separator,
        topic,
        partition_count,
        partitioner: Partitioner::new(std::process::id()),
        producer: Producer::new(options, compressor),
        cluster,
        summary: BTreeMap::new(),
        progress: Progress::start("writing"),
    };
    if io::stdin().is_terminal() {
        eprintln!("Each line becomes a record of topic {}; Ctrl-D ends.", arguments.topic);
    }
    session.copy()?;
    session.tell()
}

/// Refuses a level that would do nothing.
fn compressor(codec: Codec, level: Option<i32>) -> Result<Compressor, CliError> {
    if let Some(level) = level
        && !matches!(codec, Codec::Gzip | Codec::Zstd)
    {
        let message = format!("--level {level}: --codec {codec} has no levels; gzip and zstd have");
        return Err(CliError::usage(message));
    }
    Compressor::new(codec, level).map_err(|error| {
        let levels = codec.levels().map_or(String::new(), |levels| {
            format!("; it has {} to {}", levels.start(), levels.end())
        });
        CliError::usage(format!("--level: {error}{levels}"))
    })
}

fn partition_count(cluster: &Cluster, topic: &Str, wanted: Option<i32>) -> Result<u32, CliError> {
    let partitions = cluster.metadata().topics.get(topic).map(|topic| topic.partitions.len());
    let count = u32::try_from(partitions.unwrap_or(0)).unwrap_or(u32::MAX);
    match wanted.map(u32::try_from) {
        Some(Ok(partition)) if partition >= count => {
            let message =
                format!("topic {topic} has no partition {partition}, only 0 to {}", count - 1);
            Err(CliError::new(message))
        }
        _ => Ok(count),
    }
}

/// Id and epoch of an idempotent producer, where the broker gives them out.
fn identity(cluster: &mut Cluster, acks: i16) -> Result<Option<(i64, i16)>, ClientError> {
    if acks != -1 {
        return Ok(None);
    }
    let request = InitProducerIdRequest {
        transaction_timeout_ms: i32::MAX,
        ..InitProducerIdRequest::default()
    };
    let given = cluster.retry(|cluster| {
        let response = cluster.call_any(&request)?;
        ClientError::check(response.error_code, None, "asking for a producer id")?;
        Ok((response.producer_id, response.producer_epoch))
    });
    match given {
        Ok(identity) => Ok(Some(identity)),
        // Allowed to write, but not idempotently; or a broker that cannot.
        Err(ClientError::Broker { .. } | ClientError::Unsupported { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What one partition was given.
struct Written {
    records: u64,
    first_offset: i64,
}

struct Session<'a> {
    arguments: &'a ProduceArguments,
    separator: Option<Vec<u8>>,
    topic: Str,
    partition_count: u32,
    partitioner: Partitioner,
    producer: Producer,
    cluster: Cluster,
    summary: BTreeMap<i32, Written>,
    progress: Progress,
}

impl Session<'_> {
    /// Copies standard input to the topic.
    fn copy(&mut self) -> Result<(), CliError> {
        let (sender, lines) = mpsc::sync_channel(LINES_MAX);
        let reader = thread::spawn(move || read_lines(&sender));
        let mut at_end = false;
        while !at_end || !self.producer.is_idle() {
            if !at_end {
                at_end = self.take_lines(&lines)?;
            }
            self.send(at_end)?;
            if at_end {
                self.pause();
            }
        }
        match reader.join() {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(CliError::new(format!("cannot read standard input: {error}"))),
            Err(_) => Err(CliError::new("cannot read standard input")),
        }
    }

    /// Waits for a line, or until a batch must leave; takes what else is there. `true` at the end
    /// of input.
    fn take_lines(&mut self, lines: &Receiver<Vec<u8>>) -> Result<bool, CliError> {
        let now_ms = self.cluster.now_ms();
        let deadline = self.producer.next_deadline_ms();
        let wait = deadline.map_or(IDLE, |at| Duration::from_millis(at.saturating_sub(now_ms)));
        match lines.recv_timeout(wait) {
            Ok(line) => self.append(&line)?,
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => return Ok(true),
        }
        while self.producer.buffered_bytes() < BUFFERED_BYTES_MAX {
            match lines.try_recv() {
                Ok(line) => self.append(&line)?,
                Err(mpsc::TryRecvError::Empty) => return Ok(false),
                Err(mpsc::TryRecvError::Disconnected) => return Ok(true),
            }
        }
        Ok(false)
    }

    fn append(&mut self, line: &[u8]) -> Result<(), CliError> {
        let (key, value) = split(line, self.separator.as_deref());
        let value = Some(value).filter(|value| !value.is_empty() || !self.arguments.tombstones);
        let partition = match self.arguments.partition {
            Some(partition) => partition,
            // A count of partitions fits an i32, and so does a number below it.
            None => {
                i32::try_from(self.partitioner.partition(key, self.partition_count)).unwrap_or(0)
            }
        };
        let to = TopicPartition { topic: self.topic.clone(), partition };
        let headers = self.arguments.header.iter();
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            headers.map(|pair| (pair.name.as_bytes(), Some(pair.value.as_bytes()))).collect();
        let now_ms = self.cluster.now_ms();
        self.producer.append(now_ms, &to, wall_clock_ms(), key, value, &headers)?;
        Ok(())
    }

    /// Sends what should leave now, and waits for the answers.
    fn send(&mut self, flush: bool) -> Result<(), CliError> {
        let now_ms = self.cluster.now_ms();
        let requests = self.producer.take_requests(now_ms, flush, self.cluster.metadata())?;
        if !requests.is_empty() {
            self.partitioner.move_on();
        }
        let mut waiting = Vec::new();
        for (node, request) in requests {
            let link = self.cluster.link(node);
            let sent = link.and_then(|link| match request.acks {
                0 => link.send_unanswered(&request),
                _ => link.send(&request),
            });
            match sent {
                Ok(()) if request.acks == 0 => {}
                Ok(()) => waiting.push(node),
                Err(error) => self.lost(node, error)?,
            }
        }
        for node in waiting {
            match self.cluster.link(node).and_then(|link| link.receive::<ProduceRequest>()) {
                Ok(response) => {
                    let now_ms = self.cluster.now_ms();
                    self.producer.on_response(now_ms, response, self.cluster.metadata());
                }
                Err(error) => self.lost(node, error)?,
            }
        }
        for delivery in self.producer.take_deliveries() {
            self.count(delivery)?;
        }
        if self.producer.take_wants_metadata() {
            let topic = self.topic.clone();
            // Where nobody answers now, the batches' own deadline ends it.
            let _ = self.cluster.refresh(Some(&[topic]), false);
        }
        Ok(())
    }

    /// A connection failed: its batches are sent again, unless trying again is in vain.
    fn lost(&mut self, node: i32, error: ClientError) -> Result<(), CliError> {
        self.cluster.disconnect(node);
        self.producer.on_disconnect(self.cluster.now_ms(), node);
        if error.is_retriable() { Ok(()) } else { Err(error.into()) }
    }

    fn count(&mut self, delivery: Delivery) -> Result<(), CliError> {
        let Delivery { partition, record_count, result } = delivery;
        let records = u64::try_from(record_count).unwrap_or(0);
        match result {
            Ok(offset) => {
                let written = self
                    .summary
                    .entry(partition.partition)
                    .or_insert(Written { records: 0, first_offset: offset });
                written.records += records;
                self.progress.add(records, 0);
                Ok(())
            }
            Err(error) => {
                let what = format!("writing to {partition}");
                let failed = ClientError::check(error.code, error.message.as_ref(), what);
                let written = self.progress.records();
                let failed =
                    failed.map_or_else(CliError::from, |()| CliError::new("nothing was written"));
                let is_late = error.code == ErrorCode::REQUEST_TIMED_OUT;
                let failed = if is_late { failed.with_code(UNREACHABLE) } else { failed };
                Err(failed.with_context(format!("{written} records were written before.")))
            }
        }
    }

    /// Waits until a batch may be tried again.
    fn pause(&self) {
        let now_ms = self.cluster.now_ms();
        if let Some(deadline) = self.producer.next_deadline_ms() {
            thread::sleep(Duration::from_millis(deadline.saturating_sub(now_ms)));
        }
    }

    fn tell(self) -> Result<(), CliError> {
        let records: u64 = self.summary.values().map(|written| written.records).sum();
        drop(self.progress);
        if self.arguments.json {
            let partitions = self.summary.iter().map(|(partition, written)| {
                let object = Object::new()
                    .raw("partition", partition)
                    .raw("records", written.records)
                    .raw("first_offset", written.first_offset);
                object.finish()
            });
            let summary = Object::new()
                .text("topic", &self.topic)
                .raw("records", records)
                .raw("partitions", json::array(partitions));
            let mut output = Output::stdout();
            output.line(&summary.finish())?;
            output.flush()?;
        }
        Ok(())
    }
}

/// A line's key and value. A line without the separator has no key.
fn split<'a>(line: &'a [u8], separator: Option<&[u8]>) -> (Option<&'a [u8]>, &'a [u8]) {
    let found = separator.filter(|separator| !separator.is_empty()).and_then(|separator| {
        let at = line.windows(separator.len()).position(|window| window == separator)?;
        Some((&line[..at], &line[at + separator.len()..]))
    });
    match found {
        Some((key, value)) => (Some(key), value),
        None => (None, line),
    }
}

/// Sends each line of standard input, without its end, until nobody takes them.
fn read_lines(lines: &SyncSender<Vec<u8>>) -> io::Result<()> {
    let mut input = io::stdin().lock();
    loop {
        let mut line = Vec::new();
        if input.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        if line.last() == Some(&b'\n') {
            line.pop();
        }
        if lines.send(line).is_err() {
            return Ok(());
        }
    }
}

fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_at_the_first_separator() {
        assert_eq!(split(b"k:v:w", Some(b":")), (Some(&b"k"[..]), &b"v:w"[..]));
        assert_eq!(split(b":", Some(b":")), (Some(&b""[..]), &b""[..]));
        assert_eq!(split(b"k=>v", Some(b"=>")), (Some(&b"k"[..]), &b"v"[..]));
        assert_eq!(split(b"line", Some(b":")), (None, &b"line"[..]));
        assert_eq!(split(b"line", Some(b"")), (None, &b"line"[..]));
        assert_eq!(split(b"k:v", None), (None, &b"k:v"[..]));
    }

    #[test]
    fn acks_are_read() {
        assert_eq!(parse_acks("all"), Ok(-1));
        assert_eq!(parse_acks("-1"), Ok(-1));
        assert_eq!((parse_acks("0"), parse_acks("1")), (Ok(0), Ok(1)));
        assert!(parse_acks("2").is_err());
    }
}
