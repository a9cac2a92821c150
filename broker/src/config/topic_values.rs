//! What a topic's log needs, typed: the topic's own settings over the node's defaults.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::check::{self, InvalidValue};
use super::definitions::{Definition, topic_setting, topic_settings};

/// How batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// As the producer sent them.
    Producer,
    /// Not compressed.
    Uncompressed,
    /// gzip of this level; -1 is the codec's default.
    Gzip(i32),
    /// Snappy.
    Snappy,
    /// LZ4.
    Lz4,
    /// Zstandard of this level.
    Zstd(i32),
}

/// Whose clock timestamps show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, at append.
    LogAppendTime,
}

/// A topic's settings, as far as they are in effect. Plain values: a change makes a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// Old segments may be removed by age and size (never while `compact` is set, until compaction
    /// exists).
    pub delete: bool,
    /// The last record of each key is what counts: records need a key.
    pub compact: bool,
    /// How batches are stored.
    pub compression: Compression,
    /// Bytes of log between two index entries.
    pub index_interval_bytes: u32,
    /// Largest batch, as stored.
    pub message_bytes_max: u32,
    /// Largest batch, decompressed.
    pub decompressed_message_bytes_max: u32,
    /// How far a timestamp may lie in the future.
    pub timestamp_after_max_ms: u64,
    /// How far a timestamp may lie in the past.
    pub timestamp_before_max_ms: u64,
    /// Whose clock timestamps show.
    pub timestamp_type: TimestampType,
    /// On how many replicas a record must be flushed, at least; capped by their number.
    pub min_insync_replicas: u32,
    /// Size of a partition beyond which old segments go; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// Age beyond which segments go; `None`: no limit.
    pub retention_ms: Option<u64>,
    /// Largest segment.
    pub segment_bytes: u32,
    /// Largest offset index of a segment.
    pub segment_index_bytes: u32,
    /// Age at which a segment is closed.
    pub segment_ms: u64,
    /// Whether one that lacks acknowledged records may lead when no majority is left.
    pub unclean_leader_election: bool,
}

/// The node's defaults for topics: immutable, cheap to clone, the same on every shard.
#[derive(Clone, Debug)]
pub struct TopicDefaults {
    values: Arc<BTreeMap<&'static str, String>>,
}

impl TopicDefaults {
    /// From the value of each topic setting in canonical form; those that are missing take Kafka's
    /// default. An error where they contradict each other.
    pub fn new(mut values: BTreeMap<&'static str, String>) -> Result<Self, InvalidValue> {
        for definition in topic_settings() {
            values
                .entry(definition.name)
                .or_insert_with(|| definition.default.unwrap_or_default().to_string());
        }
        check_together(&values)?;
        TopicConfig::from_values(&values)?;
        Ok(Self { values: Arc::new(values) })
    }

    /// The default of one topic setting, as it is described; `None` for an unknown name.
    pub fn value(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str)
    }

    /// Checks a topic's own settings (all of them: what is set and what stays), in Kafka's words.
    /// An error is INVALID_CONFIG.
    pub fn validate<'a>(
        &self,
        own: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), InvalidValue> {
        let mut values = BTreeMap::clone(&self.values);
        for (name, value) in own {
            let definition = topic_setting(name).ok_or_else(|| {
                InvalidValue::Conflict(format!("Unknown topic config name: {name}"))
            })?;
            values.insert(definition.name, check::canonical(definition, value)?);
        }
        check_together(&values)?;
        TopicConfig::from_values(&values).map(drop)
    }

    /// The settings in effect for a topic with these of its own. Those that do not parse count as
    /// not given: they were checked when they were accepted, so an older or newer version wrote
    /// them.
    pub fn resolve<'a>(&self, own: impl Iterator<Item = (&'a str, &'a str)>) -> TopicConfig {
        let mut values = BTreeMap::clone(&self.values);
        for (name, value) in own {
            let canonical = topic_setting(name).and_then(|definition| {
                Some((definition, check::canonical(definition, value).ok()?))
            });
            if let Some((definition, canonical)) = canonical {
                values.insert(definition.name, canonical);
            }
        }
        TopicConfig::from_values(&values).unwrap_or_default()
    }
}

impl Default for TopicDefaults {
    /// Kafka's defaults.
    fn default() -> Self {
        let defaults = topic_settings().map(|definition| {
            (definition.name, definition.default.unwrap_or_default().to_string())
        });
        Self { values: Arc::new(defaults.collect()) }
    }
}

impl Default for TopicConfig {
    /// Kafka's defaults.
    fn default() -> Self {
        Self {
            delete: true,
            compact: false,
            compression: Compression::Producer,
            index_interval_bytes: 4096,
            message_bytes_max: 1_048_588,
            decompressed_message_bytes_max: 2_147_483_639,
            timestamp_after_max_ms: 3_600_000,
            timestamp_before_max_ms: i64::MAX.unsigned_abs(),
            timestamp_type: TimestampType::CreateTime,
            min_insync_replicas: 1,
            unclean_leader_election: false,
            retention_bytes: None,
            retention_ms: Some(604_800_000),
            segment_bytes: 1_073_741_824,
            segment_index_bytes: 10_485_760,
            segment_ms: 604_800_000,
        }
    }
}

impl TopicConfig {
    /// From every topic setting, by name.
    fn from_values(values: &BTreeMap<&'static str, String>) -> Result<Self, InvalidValue> {
        let reader = Reader { values };
        let policy = reader.list("cleanup.policy")?;
        Ok(Self {
            delete: policy.iter().any(|policy| policy == "delete"),
            compact: policy.iter().any(|policy| policy == "compact"),
            compression: match reader.text("compression.type") {
                "uncompressed" => Compression::Uncompressed,
                "gzip" => Compression::Gzip(reader.int("compression.gzip.level")?),
                "snappy" => Compression::Snappy,
                "lz4" => Compression::Lz4,
                "zstd" => Compression::Zstd(reader.int("compression.zstd.level")?),
                _ => Compression::Producer,
            },
            index_interval_bytes: reader.bytes("index.interval.bytes")?,
            message_bytes_max: reader.bytes("max.message.bytes")?,
            decompressed_message_bytes_max: reader.bytes("max.decompressed.message.bytes")?,
            timestamp_after_max_ms: reader.unsigned("message.timestamp.after.max.ms")?,
            timestamp_before_max_ms: reader.unsigned("message.timestamp.before.max.ms")?,
            timestamp_type: match reader.text("message.timestamp.type") {
                "LogAppendTime" => TimestampType::LogAppendTime,
                _ => TimestampType::CreateTime,
            },
            min_insync_replicas: reader.bytes("min.insync.replicas")?,
            unclean_leader_election: reader.text("unclean.leader.election.enable") == "true",
            retention_bytes: reader.limit("retention.bytes")?,
            retention_ms: reader.limit("retention.ms")?,
            segment_bytes: reader.bytes("segment.bytes")?,
            segment_index_bytes: reader.bytes("segment.index.bytes")?,
            segment_ms: reader.unsigned("segment.ms")?,
        })
    }
}

/// Rules over more than one setting.
fn check_together(values: &BTreeMap<&'static str, String>) -> Result<(), InvalidValue> {
    let reader = Reader { values };
    let least = reader.long("min.compaction.lag.ms")?;
    let most = reader.long("max.compaction.lag.ms")?;
    if least > most {
        return Err(InvalidValue::Conflict(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > max.compaction.lag.ms \
             ({most})"
        )));
    }
    if reader.text("remote.storage.enable") == "true" {
        return Err(InvalidValue::Conflict(
            "Tiered Storage functionality is disabled in the broker. Topic cannot be configured \
             with remote log storage."
                .to_string(),
        ));
    }
    Ok(())
}

/// Reads typed values out of a full set of them.
struct Reader<'a> {
    values: &'a BTreeMap<&'static str, String>,
}

impl Reader<'_> {
    fn text(&self, name: &str) -> &str {
        self.values.get(name).map(String::as_str).unwrap_or_default()
    }

    fn definition(name: &str) -> Result<&'static Definition, InvalidValue> {
        topic_setting(name)
            .ok_or_else(|| InvalidValue::Conflict(format!("Unknown topic config name: {name}")))
    }

    fn long(&self, name: &str) -> Result<i64, InvalidValue> {
        check::integer(Self::definition(name)?, self.text(name), i64::MIN, i64::MAX)
    }

    fn int(&self, name: &str) -> Result<i32, InvalidValue> {
        let number = self.long(name)?;
        i32::try_from(number)
            .map_err(|_| InvalidValue::new(name, number, "Not a number of type INT"))
    }

    fn bytes(&self, name: &str) -> Result<u32, InvalidValue> {
        let number = self.long(name)?;
        u32::try_from(number)
            .map_err(|_| InvalidValue::new(name, number, "Not a number of type INT"))
    }

    fn unsigned(&self, name: &str) -> Result<u64, InvalidValue> {
        let number = self.long(name)?;
        u64::try_from(number)
            .map_err(|_| InvalidValue::new(name, number, "Value must be at least 0"))
    }

    /// Negative means no limit.
    fn limit(&self, name: &str) -> Result<Option<u64>, InvalidValue> {
        Ok(u64::try_from(self.long(name)?).ok())
    }

    fn list(&self, name: &str) -> Result<Vec<String>, InvalidValue> {
        check::list(Self::definition(name)?, self.text(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(own: &[(&str, &str)]) -> TopicConfig {
        TopicDefaults::default().resolve(own.iter().copied())
    }

    fn validate(own: &[(&str, &str)]) -> Result<(), String> {
        TopicDefaults::default().validate(own.iter().copied()).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_of_the_type_are_those_of_the_table() {
        assert_eq!(resolve(&[]), TopicConfig::default());
        assert_eq!(
            TopicDefaults::new(BTreeMap::new()).unwrap().values,
            TopicDefaults::default().values
        );
    }

    /// Every setting in effect changes the value; every other does not.
    #[test]
    fn each_setting_in_effect_reaches_its_field() {
        let other_value = |name: &str| match name {
            "cleanup.policy" => "compact",
            "compression.type" => "zstd",
            "message.timestamp.type" => "LogAppendTime",
            "compression.gzip.level" | "compression.lz4.level" | "compression.zstd.level" => "2",
            "min.cleanable.dirty.ratio" => "0.25",
            "retention.bytes" | "retention.ms" | "segment.ms" => "77",
            "errors.deadletterqueue.group.enable" | "preallocate" | "remote.storage.enable" => {
                "true"
            }
            "remote.log.copy.disable" | "remote.log.delete.on.disable" => "true",
            "unclean.leader.election.enable" => "true",
            _ => "2097152",
        };
        // What is in effect of a list of replicas is a partition's (`node/options.rs`).
        let of_topics = |it: &&Definition| !it.name.ends_with(".throttled.replicas");
        for definition in topic_settings().filter(of_topics) {
            let name = definition.name;
            let codec = match name {
                "compression.gzip.level" => "gzip",
                "compression.lz4.level" => "lz4",
                "compression.zstd.level" => "zstd",
                _ => "producer",
            };
            let before = resolve(&[("compression.type", codec)]);
            let after = resolve(&[("compression.type", codec), (name, other_value(name))]);
            assert_eq!(before != after, definition.in_effect, "{name}");
        }
    }

    #[test]
    fn own_settings_stand_over_the_nodes_defaults() {
        let node = BTreeMap::from([("retention.ms", "1000".to_string())]);
        let defaults = TopicDefaults::new(node).unwrap();
        assert_eq!(defaults.resolve(std::iter::empty()).retention_ms, Some(1000));
        assert_eq!(defaults.resolve([("retention.ms", "5")].into_iter()).retention_ms, Some(5));
        assert_eq!(defaults.resolve([("retention.ms", "-1")].into_iter()).retention_ms, None);
        assert_eq!(defaults.value("retention.ms"), Some("1000"));
        assert_eq!(defaults.value("no.such"), None);
    }

    #[test]
    fn policies_and_codecs() {
        let both = resolve(&[("cleanup.policy", "compact,delete")]);
        assert!(both.compact && both.delete);
        let none = resolve(&[("cleanup.policy", "")]);
        assert!(!none.compact && !none.delete);
        let zstd = resolve(&[("compression.type", "zstd"), ("compression.zstd.level", "-5")]);
        assert_eq!(zstd.compression, Compression::Zstd(-5));
    }

    #[test]
    fn validation_speaks_as_kafka_does() {
        assert_eq!(validate(&[("foo", "1")]).unwrap_err(), "Unknown topic config name: foo");
        assert_eq!(
            validate(&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "5")])
                .unwrap_err(),
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)"
        );
        assert!(validate(&[("remote.storage.enable", "true")]).is_err());
        assert!(validate(&[("remote.storage.enable", "false")]).is_ok());
        assert!(validate(&[("retention.ms", "1"), ("cleanup.policy", "delete")]).is_ok());
    }

    #[test]
    fn what_does_not_parse_counts_as_not_given() {
        let config = resolve(&[("retention.ms", "soon"), ("unknown", "1"), ("segment.ms", "9")]);
        assert_eq!(config, TopicConfig { segment_ms: 9, ..TopicConfig::default() });
    }
}
