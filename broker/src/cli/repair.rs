//! `vltava repair`: looks at the log of a partition while no broker runs, and cuts a damaged one on
//! an operator's word.
//!
//! Opens the log as a start of the broker would. Two kinds of damage are told apart. A log that
//! *cannot be opened* is out of service as a whole: `--accept-loss` gives up everything from the
//! first batch on that cannot be proved. A log that opens, and holds *batches that are not what was
//! written*, is served but for those, and nothing is done about it here: what stands behind them is
//! sound.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};

use vltava_storage::io::Disk;
use vltava_storage::{
    Corruption, EnvironmentOptions, Log, LogEnvironment, LogOptions, Loss, Opened, StorageError,
    load_notes, partition_directories,
};

use crate::cli::error::{CliError, DAMAGED, plain};
use crate::cli::json::{self, Object};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::runtime::{self, DataDirectory, DataDirectoryError, Options, Runtime, ShardStart};

/// `vltava repair`.
#[derive(Debug, clap::Args)]
pub struct RepairArguments {
    /// The partition, by the name of its directory, such as orders-0
    #[arg(value_name = "PARTITION")]
    partition: String,
    /// The data directory of the broker, which must be stopped
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: PathBuf,
    /// Where the log does not open: cut it before the first damaged batch, for good
    #[arg(long)]
    accept_loss: bool,
    /// Print what was found as JSON, on one line
    #[arg(long)]
    json: bool,
}

/// What was found, and done.
enum Found {
    /// It opens, and every batch is what was written.
    Sound { log_start: i64, end: i64 },
    /// It opens, and some batches are not: the first of each segment.
    Rotten { log_start: i64, end: i64, damage: Vec<Corruption> },
    /// It does not open. Nothing was changed.
    Damaged { damage: Corruption, loss: Loss },
    /// It did not open; now it does.
    Repaired { damage: Corruption, loss: Loss },
}

/// Does it. Fails if the log is damaged and stays so.
pub(super) fn run(arguments: &RepairArguments) -> Result<(), CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::new(error.to_string());
    let directory = DataDirectory::open(&arguments.data_dir).map_err(|error| match error {
        DataDirectoryError::Missing(path) => {
            CliError::new(format!("data directory {} does not exist", path.display()))
        }
        DataDirectoryError::InUse(_) => failed(&error).with_hint("Stop the broker first."),
        error => failed(&error),
    })?;
    let options = Options { data_directory: Arc::new(directory), recorder: None };
    let progress = Progress::start(format!("checking {}", arguments.partition));
    let (sender, receiver) = mpsc::channel();
    let (partition, accepts) = (arguments.partition.clone(), arguments.accept_loss);
    let make = move |start: ShardStart, sender: Sender<Found>| {
        let partition = partition.clone();
        async move {
            let found = look(start.runtime.disk(), &partition, accepts).await?;
            // Whoever asked waits for this shard.
            let _ = sender.send(found);
            Ok::<(), String>(())
        }
    };
    let shards = runtime::run_shards(&options, vec![sender], make).map_err(|e| failed(&e))?;
    let ended = shards.join();
    drop(progress);
    ended.map_err(|error| match error {
        runtime::ShardError::Failed { error, .. } => CliError::new(error),
        error => failed(&error),
    })?;
    let found = receiver.recv().map_err(|error| failed(&error))?;
    let mut output = Output::stdout();
    let line = if arguments.json {
        found.as_json(&arguments.partition)
    } else {
        found.as_text(&arguments.partition)
    };
    output.line(&line)?;
    std::io::Write::flush(&mut output)?;
    found.result(&arguments.partition)
}

async fn look<D: Disk>(disk: &D, partition: &str, accepts_loss: bool) -> Result<Found, String> {
    let words = |error: StorageError| error.to_string();
    let known = partition_directories(disk).await.map_err(words)?;
    if !known.iter().any(|name| name == partition) {
        return Err(format!("there is no partition {partition} in this data directory"));
    }
    let notes = load_notes(disk).await.map_err(|error| error.to_string())?;
    let logs = LogEnvironment::new(disk.clone(), EnvironmentOptions::default(), 0, notes);
    logs.on_event(|event| eprintln!("vltava: {}", plain(&event.to_string())));
    match Log::open(&logs, partition, LogOptions::default()).await.map_err(words)? {
        Opened::Ready(log) => verify(&log).await.map_err(words),
        Opened::Corrupt(corrupt) => {
            let damage = corrupt.corruption().clone();
            let loss = corrupt.survey().await.map_err(words)?;
            if !accepts_loss {
                return Ok(Found::Damaged { damage, loss });
            }
            let log = corrupt.accept_loss().await.map_err(words)?;
            let loss = Loss { log_start: log.log_start(), end: log.flushed_end(), ..loss };
            log.close().await.map_err(words)?;
            Ok(Found::Repaired { damage, loss })
        }
    }
}

/// Checks all segments of a log that opens.
async fn verify<D: Disk>(log: &Log<D>) -> Result<Found, StorageError> {
    let (log_start, end) = (log.log_start(), log.flushed_end());
    let mut damage = Vec::new();
    for segment in log.segments() {
        match log.verify(segment.base_offset).await {
            Ok(_) => {}
            Err(StorageError::Corrupt(corruption)) => damage.push(corruption),
            Err(error) => return Err(error),
        }
    }
    if damage.is_empty() {
        return Ok(Found::Sound { log_start, end });
    }
    Ok(Found::Rotten { log_start, end, damage })
}

impl Found {
    fn as_text(&self, partition: &str) -> String {
        match self {
            Self::Sound { log_start, end } => {
                format!("{partition}: sound, offsets {}", range(*log_start, *end))
            }
            Self::Rotten { log_start, end, damage } => {
                let mut text = format!(
                    "{partition}: serves offsets {}, but these batches are damaged (the first of \
                     each segment is told):",
                    range(*log_start, *end)
                );
                for damage in damage {
                    text.push_str(&format!("\n  {damage}"));
                }
                text
            }
            Self::Damaged { damage, loss } => format!(
                "{partition}: out of service: {damage}\n  kept: offsets {}\n  given up with \
                 --accept-loss: {}",
                range(loss.log_start, loss.end),
                given_up(loss)
            ),
            Self::Repaired { damage, loss } => format!(
                "{partition}: serves again: {damage}\n  kept: offsets {}\n  given up: {}",
                range(loss.log_start, loss.end),
                given_up(loss)
            ),
        }
    }

    fn as_json(&self, partition: &str) -> String {
        let (state, log_start, end, known_end, damage) = match self {
            Self::Sound { log_start, end } => ("sound", log_start, end, end, &[][..]),
            Self::Rotten { log_start, end, damage } => {
                ("rotten", log_start, end, end, damage.as_slice())
            }
            Self::Damaged { damage, loss } => {
                let damage = std::slice::from_ref(damage);
                ("damaged", &loss.log_start, &loss.end, &loss.known_end, damage)
            }
            Self::Repaired { damage, loss } => {
                let damage = std::slice::from_ref(damage);
                ("repaired", &loss.log_start, &loss.end, &loss.known_end, damage)
            }
        };
        let damage = damage.iter().map(|damage| {
            let object = Object::new()
                .text("file", &damage.path)
                .raw("position", damage.position)
                .raw("offset", damage.offset);
            object.text("what", &damage.what).finish()
        });
        Object::new()
            .text("partition", partition)
            .text("state", state)
            .raw("log_start", log_start)
            .raw("end", end)
            .raw("known_end", known_end)
            .raw("damage", json::array(damage))
            .finish()
    }

    fn result(&self, partition: &str) -> Result<(), CliError> {
        match self {
            Self::Sound { .. } | Self::Repaired { .. } => Ok(()),
            Self::Rotten { .. } => Err(CliError::new(format!("{partition} holds damaged batches"))
                .with_hint("Nothing is to be repaired: consumers pass over them by offset.")
                .with_code(DAMAGED)),
            Self::Damaged { .. } => Err(CliError::new(format!("{partition} is damaged"))
                .with_hint("Nothing was changed; --accept-loss gives up what cannot be kept.")
                .with_code(DAMAGED)),
        }
    }
}

fn range(from: i64, end: i64) -> String {
    if from >= end { "none".to_owned() } else { format!("{from} to {}", end - 1) }
}

fn given_up(loss: &Loss) -> String {
    match range(loss.end, loss.known_end) {
        none if none == "none" => format!("whatever stood at offset {} and behind", loss.end),
        known => format!("offsets {known}, and whatever stood behind"),
    }
}
