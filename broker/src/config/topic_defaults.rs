//! Settings of the node that give its topics their defaults, under Kafka's names. A topic's own
//! setting goes before them.

use super::definitions::{Check, Definition, Kind, Scope, Unit};
use super::topic::COMPRESSION_TYPES;

const fn node(name: &'static str, kind: Kind, default: &'static str) -> Definition {
    Definition::new(Scope::Broker, name, kind, default)
}

/// Defaults of topics, by name.
pub static TOPIC_DEFAULTS: &[Definition] = &[
    node("compression.gzip.level", Kind::Int, "-1")
        .check(Check::BetweenOr(1, 9, -1))
        .doc("Default of the topic setting `compression.gzip.level`."),
    node("compression.lz4.level", Kind::Int, "9")
        .check(Check::Between(1, 17))
        .without_effect()
        .doc("Default of the topic setting `compression.lz4.level`."),
    node("compression.type", Kind::String, "producer")
        .check(Check::OneOf(COMPRESSION_TYPES))
        .doc("Default of the topic setting `compression.type`."),
    node("compression.zstd.level", Kind::Int, "3")
        .check(Check::Between(-131_072, 22))
        .doc("Default of the topic setting `compression.zstd.level`."),
    node("log.cleaner.delete.retention.ms", Kind::Long, "86400000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .without_effect()
        .doc("Default of the topic setting `delete.retention.ms`."),
    node("log.cleaner.max.compaction.lag.ms", Kind::Long, "9223372036854775807")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .without_effect()
        .doc("Default of the topic setting `max.compaction.lag.ms`."),
    node("log.cleaner.min.cleanable.ratio", Kind::Double, "0.5")
        .check(Check::Between(0, 1))
        .without_effect()
        .doc("Default of the topic setting `min.cleanable.dirty.ratio`."),
    node("log.cleaner.min.compaction.lag.ms", Kind::Long, "0")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .without_effect()
        .doc("Default of the topic setting `min.compaction.lag.ms`."),
    node("log.cleanup.policy", Kind::List, "delete")
        .check(Check::OneOf(&["compact", "delete"]))
        .doc("Default of the topic setting `cleanup.policy`."),
    node("log.flush.interval.messages", Kind::Long, "9223372036854775807")
        .check(Check::AtLeast(1))
        .without_effect()
        .doc(
            "Default of the topic setting `flush.messages`. Vltava flushes before it acknowledges.",
        ),
    node("log.flush.interval.ms", Kind::Long, "")
        .no_default()
        .unit(Unit::Milliseconds)
        .without_effect()
        .doc("Default of the topic setting `flush.ms`. Vltava flushes before it acknowledges."),
    node("log.flush.scheduler.interval.ms", Kind::Long, "9223372036854775807")
        .unit(Unit::Milliseconds)
        .without_effect()
        .doc("Default of `log.flush.interval.ms`. Vltava flushes before it acknowledges."),
    node("log.index.interval.bytes", Kind::Int, "4096")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(0))
        .doc("Default of the topic setting `index.interval.bytes`."),
    node("log.index.size.max.bytes", Kind::Int, "10485760")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(4))
        .doc("Default of the topic setting `segment.index.bytes`."),
    node("log.local.retention.bytes", Kind::Long, "-2")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(-2))
        .without_effect()
        .doc("Default of the topic setting `local.retention.bytes`."),
    node("log.local.retention.ms", Kind::Long, "-2")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(-2))
        .without_effect()
        .doc("Default of the topic setting `local.retention.ms`."),
    node("log.message.timestamp.after.max.ms", Kind::Long, "3600000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .doc("Default of the topic setting `message.timestamp.after.max.ms`."),
    node("log.message.timestamp.before.max.ms", Kind::Long, "9223372036854775807")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .doc("Default of the topic setting `message.timestamp.before.max.ms`."),
    node("log.message.timestamp.type", Kind::String, "CreateTime")
        .check(Check::OneOf(&["CreateTime", "LogAppendTime"]))
        .doc("Default of the topic setting `message.timestamp.type`."),
    node("log.preallocate", Kind::Boolean, "false")
        .without_effect()
        .doc("Default of the topic setting `preallocate`."),
    node("log.remote.copy.lag.bytes", Kind::Long, "-1")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(-1))
        .without_effect()
        .doc("Default of the topic setting `remote.copy.lag.bytes`."),
    node("log.remote.copy.lag.ms", Kind::Long, "0")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(-1))
        .without_effect()
        .doc("Default of the topic setting `remote.copy.lag.ms`."),
    node("log.retention.bytes", Kind::Long, "-1")
        .unit(Unit::Bytes)
        .doc("Default of the topic setting `retention.bytes`."),
    node("log.retention.hours", Kind::Int, "168")
        .unit(Unit::Hours)
        .doc("Default of the topic setting `retention.ms`, in hours."),
    node("log.retention.minutes", Kind::Int, "").no_default().unit(Unit::Minutes).doc(
        "Default of the topic setting `retention.ms`, in minutes; goes before \
             `log.retention.hours`.",
    ),
    node("log.retention.ms", Kind::Long, "")
        .no_default()
        .unit(Unit::Milliseconds)
        .doc("Default of the topic setting `retention.ms`; goes before `log.retention.minutes`."),
    node("log.roll.hours", Kind::Int, "168")
        .unit(Unit::Hours)
        .check(Check::AtLeast(1))
        .doc("Default of the topic setting `segment.ms`, in hours."),
    node("log.roll.jitter.hours", Kind::Int, "0")
        .unit(Unit::Hours)
        .check(Check::AtLeast(0))
        .without_effect()
        .doc("Default of the topic setting `segment.jitter.ms`, in hours."),
    node("log.roll.jitter.ms", Kind::Long, "")
        .no_default()
        .unit(Unit::Milliseconds)
        .without_effect()
        .doc(
            "Default of the topic setting `segment.jitter.ms`; goes before \
             `log.roll.jitter.hours`.",
        ),
    node("log.roll.ms", Kind::Long, "")
        .no_default()
        .unit(Unit::Milliseconds)
        .doc("Default of the topic setting `segment.ms`; goes before `log.roll.hours`."),
    node("log.segment.bytes", Kind::Int, "1073741824")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(1_048_576))
        .doc("Default of the topic setting `segment.bytes`."),
    node("log.segment.delete.delay.ms", Kind::Long, "60000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .without_effect()
        .doc("Default of the topic setting `file.delete.delay.ms`."),
    node("max.decompressed.message.bytes", Kind::Int, "2147483639")
        .unit(Unit::Bytes)
        .check(Check::Between(1, 2_147_483_639))
        .doc("Default of the topic setting of the same name."),
    node("message.max.bytes", Kind::Int, "1048588").unit(Unit::Bytes).check(Check::AtLeast(0)).doc(
        "Default of the topic setting `max.message.bytes`: the largest record batch a topic \
             takes.",
    ),
    node("min.insync.replicas", Kind::Int, "1")
        .check(Check::AtLeast(1))
        .doc("Default of the topic setting `min.insync.replicas`."),
    node("unclean.leader.election.enable", Kind::Boolean, "false")
        .doc("Default of the topic setting `unclean.leader.election.enable`."),
];
