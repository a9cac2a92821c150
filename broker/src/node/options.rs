//! The plain options of the rooms below, from settings.

use vltava_protocol::batch::TimestampType;
use vltava_protocol::compression::Codec;
use vltava_storage::LogOptions;

use crate::cluster::controller::{Options as ControllerOptions, TopicSettings};
use crate::config::describe;
use crate::config::topic_values::{self, Compression, TopicConfig, TopicDefaults};
use crate::config::values::BrokerConfig;
use crate::groups::Options as GroupOptions;
use crate::metadata::image::{Settings, Topic};
use crate::partition::throttle::{Listed, Throttled};
use crate::partition::validate::AppendRules;

/// What a topic's logs do.
pub fn log_options(topic: &TopicConfig, broker: &BrokerConfig) -> LogOptions {
    LogOptions {
        segment_bytes: topic.segment_bytes.into(),
        segment_ms: clamped(topic.segment_ms),
        segment_jitter_ms: 0,
        index_interval_bytes: topic.index_interval_bytes.into(),
        index_bytes_max: topic.segment_index_bytes.into(),
        retention_ms: topic.retention_ms.map(clamped),
        retention_bytes: topic.retention_bytes,
        // Nothing of a compacted topic is deleted before there is compaction: what it would keep
        // must not go.
        deletes: topic.delete && !topic.compact,
        producer_expiration_ms: clamped(broker.producer_id_expiration_ms),
    }
}

/// On how many replicas a record of the topic must be flushed.
pub fn min_insync_replicas(topic: &TopicConfig) -> usize {
    in_memory(topic.min_insync_replicas.into())
}

/// Which replicas of a partition are throttled while they are not in sync.
pub fn throttled(topic: &Topic, index: i32) -> Throttled {
    let listed = |name: &str| {
        let own = topic.own_settings().find(|(own, _)| *own == name);
        own.map(|(_, list)| listed(list, index)).unwrap_or_default()
    };
    Throttled {
        leaders: listed("leader.replication.throttled.replicas"),
        followers: listed("follower.replication.throttled.replicas"),
    }
}

/// The nodes that a list of `partition:node` pairs, or `*`, names of a partition.
fn listed(list: &str, index: i32) -> Listed {
    let mut pairs = list.split(',').map(str::trim);
    if pairs.clone().any(|pair| pair == "*") {
        return Listed::All;
    }
    let index = index.to_string();
    let of_index = |pair: &str| {
        let (partition, node) = pair.split_once(':')?;
        (partition == index).then(|| node.parse().ok()).flatten()
    };
    Listed::Nodes(pairs.by_ref().filter_map(of_index).collect())
}

/// What a topic's partitions take.
pub fn append_rules(topic: &TopicConfig) -> AppendRules {
    AppendRules {
        message_bytes_max: in_memory(topic.message_bytes_max.into()),
        segment_bytes: in_memory(topic.segment_bytes.into()),
        timestamp_type: match topic.timestamp_type {
            topic_values::TimestampType::CreateTime => TimestampType::CreateTime,
            topic_values::TimestampType::LogAppendTime => TimestampType::LogAppendTime,
        },
        timestamp_before_max_ms: clamped(topic.timestamp_before_max_ms),
        timestamp_after_max_ms: clamped(topic.timestamp_after_max_ms),
        codec: match topic.compression {
            Compression::Producer => None,
            Compression::Uncompressed => Some((Codec::None, None)),
            Compression::Gzip(level) => Some((Codec::Gzip, Some(level))),
            Compression::Snappy => Some((Codec::Snappy, None)),
            Compression::Lz4 => Some((Codec::Lz4, None)),
            Compression::Zstd(level) => Some((Codec::Zstd, Some(level))),
        },
        decompressed_bytes_max: in_memory(topic.decompressed_message_bytes_max.into()),
        is_compacted: topic.compact,
    }
}

/// What group coordinators do; those of one shard hold `memory_bytes_max` together.
pub fn group_options(broker: &BrokerConfig, memory_bytes_max: usize) -> GroupOptions {
    let (groups, offsets) = (&broker.groups, &broker.offsets);
    let timeout = |ms: u32| i32::try_from(ms).unwrap_or(i32::MAX);
    GroupOptions {
        initial_rebalance_delay_ms: groups.initial_rebalance_delay_ms.into(),
        session_timeout_ms_min: timeout(groups.session_timeout_ms_min),
        session_timeout_ms_max: timeout(groups.session_timeout_ms_max),
        group_members_max: in_memory(groups.members_max.into()),
        offset_metadata_units_max: in_memory(offsets.metadata_bytes_max.into()),
        offsets_retention_ms: clamped(offsets.retention_ms),
        offsets_check_interval_ms: offsets.retention_check_interval_ms,
        memory_bytes_max,
        ..GroupOptions::default()
    }
}

/// What the controller gives topics where a request says nothing.
pub fn controller_options(broker: &BrokerConfig) -> ControllerOptions {
    ControllerOptions {
        partitions_default: broker.partitions_default,
        replication_factor_default: broker.replication_factor_default,
    }
}

/// What the controller asks of topic settings, answered from the one table of settings.
pub struct SettingsTable(pub TopicDefaults);

impl TopicSettings for SettingsTable {
    fn is_list(&self, name: &str) -> bool {
        describe::is_topic_list(name).unwrap_or(false)
    }

    fn default_value(&self, name: &str) -> Option<String> {
        self.0.value(name).map(str::to_owned)
    }

    fn validate(&self, own: &Settings) -> Result<(), String> {
        let own = own.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        self.0.validate(own).map_err(|error| error.to_string())
    }
}

fn clamped(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

fn in_memory(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_is_throttled_as_lists_name_its_replicas() {
        let nodes = |nodes: &[i32]| Listed::Nodes(nodes.to_vec());
        for (list, index, expected) in [
            ("", 0, nodes(&[])),
            ("*", 7, Listed::All),
            ("0:1,0:3,1:2", 0, nodes(&[1, 3])),
            ("0:1, 1:2 ,10:3", 1, nodes(&[2])),
            ("0:1,1:2,10:3", 2, nodes(&[])),
        ] {
            assert_eq!(listed(list, index), expected, "{list}, partition {index}");
        }
    }
}
