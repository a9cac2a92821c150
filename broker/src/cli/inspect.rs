//! `vltava inspect`: what is in a segment file, and where it stops making sense.
//!
//! Reads Kafka's segments as well as our own: batches of magic 2, one behind the other, and perhaps
//! zeros that were allocated ahead. Holds one batch in memory at a time.

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};

use vltava_protocol::batch::{Batch, LENGTH_OVERHEAD_BYTES, TimestampType};
use vltava_protocol::compression::Decompressor;
use vltava_protocol::control::ControlType;
use vltava_protocol::record::{Record, records};

use crate::cli::error::{CliError, DAMAGED};
use crate::cli::json::{self, Object};
use crate::cli::output::{Output, human_bytes};
use crate::cli::progress::Progress;
use crate::cli::timestamp;

/// What the records of one batch may decompress to.
const RECORDS_BYTES_MAX: usize = 1 << 30;
/// How much of a key or value is shown.
const SHOWN_BYTES_MAX: usize = 60;

/// `vltava inspect`.
#[derive(Debug, clap::Args)]
pub struct InspectArguments {
    /// Segment files, such as data/orders-0/00000000000000000000.log
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print the records of each batch, too
    #[arg(long, short, conflicts_with = "quiet")]
    records: bool,
    /// Print only the result for each file
    #[arg(long, short)]
    quiet: bool,
    /// Print JSON: one line for each batch, then one for the result
    #[arg(long)]
    json: bool,
}

/// Does it. Fails if a file is damaged.
pub(super) fn run(arguments: &InspectArguments) -> Result<(), CliError> {
    let mut output = Output::stdout();
    let mut damaged = Vec::new();
    for path in &arguments.files {
        let found = Inspection::of(path, arguments, &mut output)?;
        found.tell(path, arguments, &mut output)?;
        if found.damage.is_some() {
            damaged.push(path.display().to_string());
        }
    }
    output.flush()?;
    if damaged.is_empty() {
        return Ok(());
    }
    Err(CliError::new(format!("damaged: {}", damaged.join(", "))).with_code(DAMAGED))
}

/// What was found in a file.
#[derive(Default)]
struct Inspection {
    batches: u64,
    records: u64,
    /// How far the file makes sense.
    valid_bytes: u64,
    /// Zeros behind that.
    padding_bytes: u64,
    first_offset: Option<i64>,
    next_offset: i64,
    leader_epoch: i32,
    max_timestamp: i64,
    /// Why the rest makes none.
    damage: Option<String>,
}

impl Inspection {
    fn of(
        path: &Path,
        arguments: &InspectArguments,
        output: &mut Output,
    ) -> Result<Self, CliError> {
        if path.is_dir() {
            let path = path.display();
            let message = format!("{path} is a directory; name files in it, such as {path}/*.log");
            return Err(CliError::new(message));
        }
        let failed = |error| CliError::new(format!("cannot read {}: {error}", path.display()));
        let file = File::open(path).map_err(failed)?;
        let file_bytes = file.metadata().map_err(failed)?.len();
        let mut input = BufReader::with_capacity(1 << 20, file);
        let progress = Progress::start(format!("reading {}", path.display()));
        let mut found = Self {
            next_offset: offset_in_name(path).unwrap_or(0),
            max_timestamp: -1,
            ..Self::default()
        };
        let mut decompressor = Decompressor::new();
        let mut bytes = Vec::new();
        while found.valid_bytes < file_bytes {
            let left = file_bytes - found.valid_bytes;
            read_batch(&mut input, left, &mut bytes).map_err(failed)?;
            let batch = match Batch::parse(&bytes) {
                Ok((batch, _)) => batch,
                Err(error) => {
                    found.end(&mut input, &bytes, left, error.to_string()).map_err(failed)?;
                    break;
                }
            };
            let read = found.check(&batch, &mut decompressor);
            let records = match read {
                Ok(records) => records,
                Err(error) => {
                    found.damage = Some(error);
                    break;
                }
            };
            if !arguments.quiet {
                found.show(&batch, &records, arguments, output)?;
            }
            progress.add(u64::try_from(records.len()).unwrap_or(0), 0);
            found.count(&batch, records.len());
        }
        Ok(found)
    }

    /// Checks a batch against itself and those before it; its records.
    fn check<'a>(
        &self,
        batch: &Batch<'a>,
        decompressor: &'a mut Decompressor,
    ) -> Result<Vec<Record<'a>>, String> {
        batch.check_crc().map_err(|error| error.to_string())?;
        if batch.base_offset() < self.next_offset {
            return Err(format!(
                "the batch begins at offset {} where {} is the next",
                batch.base_offset(),
                self.next_offset
            ));
        }
        if batch.leader_epoch() < self.leader_epoch {
            let (epoch, before) = (batch.leader_epoch(), self.leader_epoch);
            return Err(format!("the batch is of leader epoch {epoch}, behind one of {before}"));
        }
        let codec = batch.codec().map_err(|id| format!("codec {id} is not known"))?;
        let payload = decompressor
            .decompress(codec, batch.payload(), RECORDS_BYTES_MAX)
            .map_err(|error| error.to_string())?;
        let read: Result<Vec<_>, _> = records(payload, batch.record_count()).collect();
        read.map_err(|error| error.to_string())
    }

    fn count(&mut self, batch: &Batch<'_>, records: usize) {
        self.batches += 1;
        self.records += u64::try_from(records).unwrap_or(0);
        self.valid_bytes += u64::try_from(batch.batch_bytes()).unwrap_or(0);
        self.first_offset.get_or_insert(batch.base_offset());
        self.next_offset = batch.next_offset();
        self.leader_epoch = batch.leader_epoch();
        self.max_timestamp = self.max_timestamp.max(batch.max_timestamp());
    }

    /// The file makes no more sense: because only zeros are left, or for the reason given.
    fn end(
        &mut self,
        input: &mut impl Read,
        bytes: &[u8],
        left: u64,
        error: String,
    ) -> std::io::Result<()> {
        let mut are_zeros = bytes.iter().all(|byte| *byte == 0);
        let mut buffer = [0; 4096];
        while are_zeros {
            let count = input.read(&mut buffer)?;
            if count == 0 {
                self.padding_bytes = left;
                return Ok(());
            }
            are_zeros = buffer[..count].iter().all(|byte| *byte == 0);
        }
        self.damage = Some(error);
        Ok(())
    }

    fn show(
        &self,
        batch: &Batch<'_>,
        records: &[Record<'_>],
        arguments: &InspectArguments,
        output: &mut Output,
    ) -> std::io::Result<()> {
        if arguments.json {
            return output.line(&self.batch_as_json(batch, records, arguments.records));
        }
        output.line(&self.batch_as_text(batch))?;
        if arguments.records {
            for record in records {
                output.line(&record_as_text(batch, record))?;
            }
        }
        Ok(())
    }

    fn batch_as_text(&self, batch: &Batch<'_>) -> String {
        let mut line = format!(
            "at {}: offsets {} to {}, records {}, {} bytes, epoch {}, {}, {} {}",
            self.valid_bytes,
            batch.base_offset(),
            batch.last_offset(),
            batch.record_count(),
            batch.batch_bytes(),
            batch.leader_epoch(),
            batch.codec().map_or_else(|id| id.to_string(), |codec| codec.to_string()),
            type_name(batch),
            timestamp::show(batch.max_timestamp()),
        );
        if batch.has_producer_id() {
            line.push_str(&format!(
                ", producer {} epoch {} sequences {} to {}",
                batch.producer_id(),
                batch.producer_epoch(),
                batch.base_sequence(),
                batch.last_sequence()
            ));
        }
        for (is_set, what) in [
            (batch.is_transactional(), ", transactional"),
            (batch.is_control(), ", control"),
            (batch.delete_horizon_ms().is_some(), ", delete horizon"),
        ] {
            line.push_str(if is_set { what } else { "" });
        }
        line
    }

    fn batch_as_json(
        &self,
        batch: &Batch<'_>,
        records: &[Record<'_>],
        with_records: bool,
    ) -> String {
        let object = Object::new()
            .raw("position", self.valid_bytes)
            .raw("base_offset", batch.base_offset())
            .raw("last_offset", batch.last_offset())
            .raw("record_count", batch.record_count())
            .raw("bytes", batch.batch_bytes())
            .raw("leader_epoch", batch.leader_epoch())
            .raw("crc", batch.crc())
            .text("codec", batch.codec().map_or("unknown", |codec| codec.name()))
            .text("timestamp_type", type_name(batch))
            .raw("base_timestamp", batch.base_timestamp())
            .raw("max_timestamp", batch.max_timestamp())
            .raw("producer_id", batch.producer_id())
            .raw("producer_epoch", batch.producer_epoch())
            .raw("base_sequence", batch.base_sequence())
            .raw("transactional", batch.is_transactional())
            .raw("control", batch.is_control());
        if !with_records {
            return object.finish();
        }
        let records = records.iter().map(|record| record_as_json(batch, record));
        object.raw("records", json::array(records)).finish()
    }

    fn tell(
        &self,
        path: &Path,
        arguments: &InspectArguments,
        output: &mut Output,
    ) -> std::io::Result<()> {
        let path = path.display().to_string();
        if arguments.json {
            let number =
                |number: Option<i64>| number.map_or(String::from("null"), |n| n.to_string());
            let object = Object::new()
                .text("file", &path)
                .raw("batches", self.batches)
                .raw("records", self.records)
                .raw("first_offset", number(self.first_offset))
                .raw("next_offset", self.next_offset)
                .raw("max_timestamp", self.max_timestamp)
                .raw("valid_bytes", self.valid_bytes)
                .raw("padding_bytes", self.padding_bytes)
                .optional_text("damage", self.damage.as_deref());
            return output.line(&object.finish());
        }
        let mut line = format!(
            "{path}: batches {}, records {}, next offset {}, {}",
            self.batches,
            self.records,
            self.next_offset,
            human_bytes(self.valid_bytes)
        );
        if self.padding_bytes > 0 {
            line.push_str(&format!(", then {} of zeros", human_bytes(self.padding_bytes)));
        }
        match &self.damage {
            Some(damage) => {
                line.push_str(&format!("; damaged at byte {}: {damage}", self.valid_bytes));
            }
            None => line.push_str("; all CRCs are right"),
        }
        output.line(&line)
    }
}

/// Reads the next batch into `bytes`: as much as its length says, at most what is left of the file.
fn read_batch(input: &mut impl Read, left: u64, bytes: &mut Vec<u8>) -> std::io::Result<()> {
    bytes.clear();
    let head = left.min(LENGTH_OVERHEAD_BYTES as u64);
    input.by_ref().take(head).read_to_end(bytes)?;
    let length = match bytes.get(8..12) {
        Some(&[a, b, c, d]) => u64::try_from(i32::from_be_bytes([a, b, c, d])).unwrap_or(0),
        _ => 0,
    };
    // Grows as bytes come, whatever the length says.
    input.by_ref().take(length.min(left - head)).read_to_end(bytes)?;
    Ok(())
}

/// The offset that the file's name says its first batch has.
fn offset_in_name(path: &Path) -> Option<i64> {
    let stem = path.file_name()?.to_str()?.split('.').next()?;
    let is_offset = stem.len() == 20 && stem.bytes().all(|byte| byte.is_ascii_digit());
    stem.parse().ok().filter(|_| is_offset)
}

fn type_name(batch: &Batch<'_>) -> &'static str {
    match batch.timestamp_type() {
        TimestampType::CreateTime => "created",
        TimestampType::LogAppendTime => "appended",
    }
}

fn timestamp_of(batch: &Batch<'_>, record: &Record<'_>) -> i64 {
    match batch.timestamp_type() {
        TimestampType::CreateTime => batch.base_timestamp().saturating_add(record.timestamp_delta),
        TimestampType::LogAppendTime => batch.max_timestamp(),
    }
}

fn offset_of(batch: &Batch<'_>, record: &Record<'_>) -> i64 {
    batch.base_offset().saturating_add(i64::from(record.offset_delta))
}

fn record_as_text(batch: &Batch<'_>, record: &Record<'_>) -> String {
    let mut line =
        format!("  {} {} ", offset_of(batch, record), timestamp::show(timestamp_of(batch, record)));
    if let Some(control) = control_of(batch, record) {
        line.push_str(&format!("{control:?}"));
        return line;
    }
    line.push_str(&format!("{} => {}", shown(record.key), shown(record.value)));
    for (key, value) in record.headers {
        line.push_str(&format!(", {}={}", String::from_utf8_lossy(key), shown(value)));
    }
    line
}

fn record_as_json(batch: &Batch<'_>, record: &Record<'_>) -> String {
    let headers = record
        .headers
        .map(|(key, value)| Object::new().bytes("key", Some(key)).bytes("value", value).finish());
    let object = Object::new()
        .raw("offset", offset_of(batch, record))
        .raw("timestamp", timestamp_of(batch, record))
        .bytes("key", record.key)
        .bytes("value", record.value)
        .raw("headers", json::array(headers));
    match control_of(batch, record) {
        Some(control) => object.text("control", &format!("{control:?}")).finish(),
        None => object.finish(),
    }
}

fn control_of(batch: &Batch<'_>, record: &Record<'_>) -> Option<ControlType> {
    let key = record.key.filter(|_| batch.is_control())?;
    ControlType::from_key(key).ok()
}

/// The beginning of a field, as text in quotes; what is no text, escaped.
fn shown(field: Option<&[u8]>) -> String {
    match field {
        None => String::from("null"),
        Some(bytes) if bytes.len() > SHOWN_BYTES_MAX => {
            format!("\"{}\"... ({} bytes)", bytes[..SHOWN_BYTES_MAX].escape_ascii(), bytes.len())
        }
        Some(bytes) => format!("\"{}\"", bytes.escape_ascii()),
    }
}
