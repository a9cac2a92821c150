//! What a run does, as a file says it (TOML; `bench/scenarios/`).
//!
//! Every field has a default but `title`, and a name that is not known is refused: a run never
//! measures something else than its file says.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

mod size;

pub use size::{Size, Weighted, quantiles};

/// One scenario.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// What it is, in a line.
    pub title: String,
    /// Why it is measured: what it stands for, and whom it has embarrassed.
    #[serde(default)]
    pub why: String,
    /// How long.
    #[serde(default)]
    pub run: RunTime,
    /// The topics that it makes, and deletes when it is over.
    #[serde(default)]
    pub topics: Topics,
    /// What is written before anything is measured.
    #[serde(default)]
    pub fill: Option<Fill>,
    /// Whether the broker is ended and started again then; it must be the harness's own.
    #[serde(default)]
    pub restart: Option<Restart>,
    /// Whether it is about how the broker starts, which must be the harness's own then. One with a
    /// restart is.
    #[serde(default)]
    pub start: bool,
    /// Who writes: each entry is a class of producers that are alike.
    #[serde(default)]
    pub producers: Vec<Producers>,
    /// Who reads, likewise.
    #[serde(default)]
    pub consumers: Vec<Consumers>,
    /// Connections that ask for nothing after their first request.
    #[serde(default)]
    pub idle_connections: u32,
}

/// How long a run takes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct RunTime {
    /// Seconds under load before measuring begins.
    pub warm_up_s: f64,
    /// Seconds measured.
    pub duration_s: f64,
    /// Threads that make the load; 0: one for each core, but no more than there are clients.
    pub threads: u32,
    /// Seconds for which clients try again what failed and may pass: a leader that has moved, a
    /// connection that is lost.
    pub retry_s: f64,
}

impl Default for RunTime {
    fn default() -> Self {
        Self { warm_up_s: 3.0, duration_s: 10.0, threads: 0, retry_s: 30.0 }
    }
}

/// The topics of a run.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Topics {
    /// How many.
    pub count: u32,
    /// Partitions of each.
    pub partitions: u32,
    /// Replicas of each partition; -1: the broker's default.
    pub replication_factor: i16,
    /// Settings, by Kafka's names.
    pub configs: BTreeMap<String, String>,
}

impl Default for Topics {
    fn default() -> Self {
        Self { count: 1, partitions: 1, replication_factor: -1, configs: BTreeMap::new() }
    }
}

impl Topics {
    /// Whether the broker may delete records of the run: their settings say something about it.
    pub fn may_lose_records(&self) -> bool {
        self.configs.keys().any(|name| name.starts_with("retention.") || name == "cleanup.policy")
    }
}

/// What is written beforehand, over all partitions alike, as fast as it goes.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Fill {
    /// How much, in bytes of records' values.
    pub bytes: u64,
    /// How large each value is.
    #[serde(default = "default_record_bytes")]
    pub record_bytes: Size,
    /// How large batches are, in bytes: each goes to another partition than the last.
    #[serde(default = "default_batch_bytes")]
    pub batch_bytes: u32,
}

fn default_record_bytes() -> Size {
    Size::Fixed(1024)
}

fn default_batch_bytes() -> u32 {
    1 << 20
}

/// How the broker is ended and started again, on the same data, after what was written beforehand.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// How it is ended.
    pub end: End,
    /// Whether the system's page cache gives up its data in between, so that all reads are the
    /// disk's.
    #[serde(default)]
    pub drop_page_cache: bool,
}

/// How a broker is ended.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// In an orderly way: SIGTERM.
    Stop,
    /// At once: SIGKILL.
    Kill,
}

/// Producers that are alike.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Producers {
    /// How many, each with a connection of its own to each broker and a batch under way for each
    /// partition.
    pub count: u32,
    /// Records a second, of all of them together: an open loop. Absent: each writes as much as it
    /// gets answered (a closed loop).
    pub records_per_second: Option<f64>,
    /// How large a record's value is: a number of bytes, or a distribution of them.
    pub record_bytes: Size,
    /// Different keys; 0: none, and records go to the partitions in turn, a batch each.
    pub keys: u32,
    /// How much of a value is random, from 0 (all the same byte) to 1.
    pub entropy: f64,
    /// How batches are compressed.
    pub codec: Codec,
    /// Which acknowledgement counts.
    pub acks: Acks,
    /// How long a batch waits for more records, in milliseconds.
    pub linger_ms: f64,
    /// A batch is closed when it would grow past this, in bytes before compression.
    pub batch_bytes: u32,
    /// Requests that each may have under way.
    pub in_flight: u32,
    /// Whether batches carry sequence numbers.
    pub idempotent: bool,
}

impl Default for Producers {
    fn default() -> Self {
        Self {
            count: 1,
            records_per_second: None,
            record_bytes: Size::Fixed(1024),
            keys: 0,
            entropy: 1.0,
            codec: Codec::None,
            acks: Acks::All,
            linger_ms: 0.0,
            batch_bytes: 1 << 20,
            in_flight: 5,
            idempotent: false,
        }
    }
}

/// Consumers that are alike.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Consumers {
    /// How many.
    pub count: u32,
    /// Groups that share them evenly, each group reading everything; 0: no groups, each consumer
    /// reads all partitions.
    pub groups: u32,
    /// Where they begin.
    pub from: From,
    /// What a fetch waits for, in bytes.
    pub min_bytes: u32,
    /// How long it waits for that, in milliseconds.
    pub max_wait_ms: u32,
    /// At most so many bytes of each partition in an answer.
    pub partition_bytes: u32,
    /// At most so many bytes in an answer, but that it has a batch at least: 50 MiB, as Java's
    /// `fetch.max.bytes`. Of what is not much more than 1 MiB all is still in a core's cache when
    /// it is checked, which is cheaper for the harness; brokers may see less of each partition.
    pub answer_bytes: u32,
    /// Values' bytes a second that each takes, to be slow on purpose.
    pub bytes_per_second: Option<f64>,
}

impl Default for Consumers {
    fn default() -> Self {
        Self {
            count: 1,
            groups: 0,
            from: From::End,
            min_bytes: 1,
            max_wait_ms: 500,
            partition_bytes: 1 << 20,
            answer_bytes: 50 << 20,
            bytes_per_second: None,
        }
    }
}

/// Kafka's codecs.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "they are called what they are")]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Which acknowledgement a producer waits for: 0, 1 or "all", as Kafka's clients have it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(try_from = "AcksWritten")]
pub enum Acks {
    /// None.
    #[serde(rename = "0")]
    None,
    /// The leader's.
    #[serde(rename = "1")]
    Leader,
    /// That of all in-sync replicas.
    #[serde(rename = "all")]
    All,
}

/// What a file may say of it: a number, or its name.
#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "acks is 0, 1 or \"all\"")]
enum AcksWritten {
    Number(i64),
    Name(String),
}

impl TryFrom<AcksWritten> for Acks {
    type Error = &'static str;

    fn try_from(written: AcksWritten) -> Result<Self, Self::Error> {
        let name = match written {
            AcksWritten::Number(number) => number.to_string(),
            AcksWritten::Name(name) => name,
        };
        match name.as_str() {
            "0" => Ok(Self::None),
            "1" => Ok(Self::Leader),
            "all" | "-1" => Ok(Self::All),
            _ => Err("acks is 0, 1 or \"all\""),
        }
    }
}

/// Where consumers begin.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum From {
    /// With the first record there is.
    Beginning,
    /// With the first that is written after they have come.
    End,
}

/// Why a scenario cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// It is no scenario.
    #[error("{0}")]
    Unreadable(#[from] toml::de::Error),
    /// A change of it that cannot be made.
    #[error("{change}: {what}")]
    Change {
        /// Which.
        change: String,
        /// Why.
        what: String,
    },
    /// A value that makes no sense.
    #[error("{field}: {what}")]
    Value {
        /// Which.
        field: &'static str,
        /// Why.
        what: &'static str,
    },
}

impl Scenario {
    /// Reads a scenario.
    ///
    /// # Errors
    /// Where it is none, or cannot be run.
    pub fn parse(text: &str) -> Result<Self, ScenarioError> {
        let scenario: Self = toml::from_str(text)?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Reads a scenario with some values changed: `run.duration_s=30`, `producers.0.keys=1`. A
    /// value is read as TOML would, and as a string where that cannot be.
    ///
    /// # Errors
    /// Where it is none, or cannot be changed so, or cannot be run.
    pub fn parse_changed(text: &str, changes: &[&str]) -> Result<Self, ScenarioError> {
        // What is wrong with the file itself is told with its line.
        let unchanged: Self = toml::from_str(text)?;
        if changes.is_empty() {
            unchanged.check()?;
            return Ok(unchanged);
        }
        let scenario = changed(text, changes)?.try_into::<Self>();
        let scenario = scenario.map_err(|error| {
            let what = error.message().trim().to_owned();
            ScenarioError::Change { change: culprit(text, changes), what }
        })?;
        scenario.check()?;
        Ok(scenario)
    }

    /// Whether nobody writes, and somebody reads: it is over when all there is has been read.
    pub fn only_reads(&self) -> bool {
        self.producers.is_empty() && !self.consumers.is_empty()
    }

    /// Whether only a broker that the harness starts itself will do.
    pub fn needs_own_broker(&self) -> bool {
        self.start || self.restart.is_some()
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// The first value that makes no sense.
    pub fn check(&self) -> Result<(), ScenarioError> {
        let refuse = |field, what| Err(ScenarioError::Value { field, what });
        let is_time = |seconds: f64| (0.0..=86_400.0).contains(&seconds);
        let run = &self.run;
        if !is_time(run.warm_up_s) || !is_time(run.duration_s) {
            return refuse("run", "not between 0 and 86400 seconds");
        }
        if !(0.0..=30.0).contains(&run.retry_s) {
            return refuse("run.retry_s", "not between 0 and 30");
        }
        if self.topics.count == 0 || self.topics.partitions == 0 {
            return refuse("topics", "no partition at all");
        }
        let has_clients = !(self.producers.is_empty() && self.consumers.is_empty());
        if !has_clients && self.idle_connections == 0 && self.restart.is_none() {
            return refuse("producers", "nobody writes, and nobody reads");
        }
        if self.only_reads() && self.run.warm_up_s > 0.0 {
            let what =
                "nobody writes, and what is read in the warm-up is not measured: set it to 0";
            return refuse("run.warm_up_s", what);
        }
        for producers in &self.producers {
            producers.check()?;
        }
        for consumers in &self.consumers {
            consumers.check()?;
        }
        match &self.fill {
            Some(fill) if fill.record_bytes.largest() == 0 || fill.batch_bytes == 0 => {
                refuse("fill", "record_bytes and batch_bytes are 1 at least")
            }
            Some(Fill { record_bytes, .. }) => match record_bytes.fault() {
                Some(what) => refuse("fill.record_bytes", what),
                None => Ok(()),
            },
            None => Ok(()),
        }
    }
}

/// A scenario as TOML has it, with these values changed.
fn changed(text: &str, changes: &[&str]) -> Result<toml::Value, ScenarioError> {
    let mut root = toml::Value::Table(toml::from_str(text)?);
    for change in changes {
        let refuse =
            |what: &str| ScenarioError::Change { change: (*change).into(), what: what.into() };
        let (field, value) = change.split_once('=').ok_or_else(|| refuse("no `=` in it"))?;
        let table = toml::from_str::<toml::Table>(&format!("value = {value}"));
        let read = table.ok().and_then(|mut table| table.remove("value"));
        let value = read.unwrap_or_else(|| toml::Value::String(value.to_owned()));
        set(&mut root, field.trim(), value).map_err(refuse)?;
    }
    Ok(root)
}

/// Of changes that make no scenario together: the one without which they do; all of them, where
/// there is none.
fn culprit(text: &str, changes: &[&str]) -> String {
    let is_at_fault = |at: &usize| {
        let others = changes.iter().enumerate().filter(|(other, _)| other != at);
        let others: Vec<&str> = others.map(|(_, change)| *change).collect();
        changed(text, &others).is_ok_and(|root| root.try_into::<Scenario>().is_ok())
    };
    match (0..changes.len()).find(is_at_fault) {
        Some(at) => changes[at].to_owned(),
        None => changes.join(" "),
    }
}

/// Sets a value by its path; tables on the way are made, entries of arrays must be there.
fn set(node: &mut toml::Value, path: &str, value: toml::Value) -> Result<(), &'static str> {
    let (name, rest) = match path.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (path, None),
    };
    let child = match node {
        toml::Value::Table(table) => {
            table.entry(name).or_insert_with(|| toml::Value::Table(toml::Table::new()))
        }
        toml::Value::Array(entries) => {
            let number: usize = name.parse().map_err(|_| "a list has numbers, from 0")?;
            entries.get_mut(number).ok_or("the list has no such entry")?
        }
        _ => return Err("goes into a value that has no parts"),
    };
    match rest {
        Some(rest) => set(child, rest, value),
        None => {
            *child = value;
            Ok(())
        }
    }
}

impl Producers {
    fn check(&self) -> Result<(), ScenarioError> {
        let refuse = |field, what| Err(ScenarioError::Value { field, what });
        if self.count == 0 || self.in_flight == 0 || self.batch_bytes == 0 {
            return refuse("producers", "count, in_flight and batch_bytes are 1 at least");
        }
        if !(0.0..=1.0).contains(&self.entropy) {
            return refuse("producers.entropy", "not between 0 and 1");
        }
        if !(0.0..=60_000.0).contains(&self.linger_ms) {
            return refuse("producers.linger_ms", "not between 0 and 60000");
        }
        if self.records_per_second.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return refuse("producers.records_per_second", "not more than 0");
        }
        match self.record_bytes.fault() {
            Some(what) => refuse("producers.record_bytes", what),
            None => Ok(()),
        }
    }
}

impl Consumers {
    fn check(&self) -> Result<(), ScenarioError> {
        let refuse = |field, what| Err(ScenarioError::Value { field, what });
        if self.count == 0 {
            return refuse("consumers.count", "is 0");
        }
        if self.groups > self.count {
            return refuse("consumers.groups", "more groups than consumers");
        }
        if self.partition_bytes == 0 || self.answer_bytes == 0 {
            return refuse("consumers", "partition_bytes and answer_bytes are 1 at least");
        }
        if self.bytes_per_second.is_some_and(|rate| !(rate > 0.0 && rate.is_finite())) {
            return refuse("consumers.bytes_per_second", "not more than 0");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;

    #[test]
    fn a_file_says_what_differs_from_the_defaults() {
        let scenario = Scenario::parse(
            "title = 'small batches'\n\
             [topics]\npartitions = 16\nconfigs = { 'retention.bytes' = '1000000' }\n\
             [[producers]]\ncount = 50\nkeys = 1000\nrecord_bytes = { min = 10, max = 30 }\n\
             acks = '1'\nrecords_per_second = 5e3\n\
             [[consumers]]\ngroups = 1\n",
        );
        let scenario = scenario.unwrap();
        let producers = &scenario.producers[0];
        assert_eq!(producers.record_bytes.mean(), 20.0);
        assert_eq!((producers.count, producers.acks), (50, Acks::Leader));
        assert_eq!(scenario.consumers[0], Consumers { groups: 1, ..Consumers::default() });
        assert_eq!(scenario.run, RunTime::default());
        let written = toml::to_string(&scenario).unwrap();
        assert_eq!(Scenario::parse(&written).unwrap(), scenario);
    }

    #[test]
    fn single_values_can_be_changed() {
        let text = "title = 'x'\n[[producers]]\nkeys = 5\n";
        let changes = ["run.duration_s=2.5", "producers.0.acks=2", "producers.0.keys = 7"];
        let mut expected = Scenario::parse(text).unwrap();
        expected.run.duration_s = 2.5;
        (expected.producers[0].keys, expected.producers[0].acks) = (7, Acks::Leader);
        let changed = Scenario::parse_changed(text, &["producers.0.acks='1'"]).unwrap();
        assert_eq!(changed.producers[0].acks, Acks::Leader);
        let refused =
            |changes: &[&str]| Scenario::parse_changed(text, changes).unwrap_err().to_string();
        let acks = refused(&changes);
        assert_eq!(acks, "producers.0.acks=2: acks is 0, 1 or \"all\"");
        let number = Scenario::parse_changed(text, &["producers.0.acks=1"]).unwrap();
        assert_eq!(number.producers[0].acks, Acks::Leader);
        let unknown = refused(&["run.duration_s=1", "run.duration=5"]);
        assert!(unknown.starts_with("run.duration=5: unknown field `duration`"), "{unknown}");
        assert!(!unknown.contains("line"), "{unknown}");
        let size = refused(&["producers.0.record_bytes=small"]);
        assert!(size.contains("producers.0.record_bytes=small: a size is"), "{size}");
        let changes = [changes[0], "producers.0.acks='1'", changes[2]];
        assert_eq!(Scenario::parse_changed(text, &changes).unwrap(), expected);
        for change in ["title", "producers.1.keys=1", "producers.keys=1", "title.x=1", "run.x=1"] {
            assert!(Scenario::parse_changed(text, &[change]).is_err(), "{change}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |text: &str| Scenario::parse(text).unwrap_err().to_string();
        assert!(refused("[topics]\ncount = 1").contains("title"));
        assert!(refused("title = 'x'\nprodcuers = []").contains("prodcuers"));
        assert!(refused("title = 'x'").contains("nobody writes"));
        let producers = |line: &str| refused(&format!("title = 'x'\n[[producers]]\n{line}"));
        assert!(producers("entropy = 1.5").contains("entropy"));
        assert!(producers("records_per_second = 0").contains("records_per_second"));
        assert!(producers("record_bytes = { min = 2, max = 1 }").contains("min is more"));
        assert!(producers("codec = 'zip'").contains("zip"));
        let only_reads = "title = 'x'\nrun = { warm_up_s = 0 }\n[[consumers]]\n";
        assert!(Scenario::parse(only_reads).is_ok());
        assert!(refused(&only_reads.replace("= 0", "= 1")).contains("warm_up_s"));
        assert!(refused(&format!("{only_reads}groups = 2")).contains("more groups"));
    }
}
