//! The settings of a topic: all that Kafka 4.4 has. Those without effect are kept and described, so
//! that tools which copy a topic's settings from one cluster to another (MirrorMaker, Terraform)
//! meet no error.

use super::definitions::{Check, Definition, Kind, Scope, Synonym, Unit};

const fn topic(name: &'static str, kind: Kind, default: &'static str) -> Definition {
    Definition::new(Scope::Topic, name, kind, default)
}

const fn same(name: &'static str) -> Synonym {
    Synonym { name, factor: 1 }
}

const MINUTE_MS: i64 = 60 * 1000;
const HOUR_MS: i64 = 60 * MINUTE_MS;

/// The codecs a topic may ask for, and the two that are none.
pub const COMPRESSION_TYPES: &[&str] =
    &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];

/// Settings of a topic, by name.
pub static TOPIC: &[Definition] = &[
    topic("cleanup.policy", Kind::List, "delete")
        .check(Check::OneOf(&["compact", "delete"]))
        .synonyms(&[same("log.cleanup.policy")])
        .doc(
            "What happens to old segments: `delete` removes them by age and size; `compact` keeps \
             the last record of each key. Until compaction exists, nothing of a topic with \
             `compact` is removed. Empty: nothing is removed.",
        ),
    topic("compression.gzip.level", Kind::Int, "-1")
        .check(Check::BetweenOr(1, 9, -1))
        .synonyms(&[same("compression.gzip.level")])
        .doc("Effort of gzip where `compression.type` is `gzip`; -1 is the codec's own default."),
    topic("compression.lz4.level", Kind::Int, "9")
        .check(Check::Between(1, 17))
        .synonyms(&[same("compression.lz4.level")])
        .without_effect()
        .doc("Where `compression.type` is `lz4`, the broker writes lz4 at its fast level, always."),
    topic("compression.type", Kind::String, "producer")
        .check(Check::OneOf(COMPRESSION_TYPES))
        .synonyms(&[same("compression.type")])
        .doc(
            "Codec of the stored batches. `producer` keeps what the producer sent, byte for byte; \
             any other makes the broker compress again what comes in another codec.",
        ),
    topic("compression.zstd.level", Kind::Int, "3")
        .check(Check::Between(-131_072, 22))
        .synonyms(&[same("compression.zstd.level")])
        .doc("Effort of zstd where `compression.type` is `zstd`."),
    topic("delete.retention.ms", Kind::Long, "86400000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .synonyms(&[same("log.cleaner.delete.retention.ms")])
        .without_effect()
        .doc("How long compaction keeps tombstones."),
    topic(
        "errors.deadletterqueue.group.enable",
        Kind::Boolean,
        "false",
    )
    .without_effect()
    .doc("Whether share groups may use this topic as their dead-letter queue."),
    topic("file.delete.delay.ms", Kind::Long, "60000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .synonyms(&[same("log.segment.delete.delay.ms")])
        .without_effect()
        .doc(
            "How long Kafka keeps the files of a removed segment. Vltava removes them at once: \
              who reads them still holds them open.",
        ),
    topic("flush.messages", Kind::Long, "9223372036854775807")
        .check(Check::AtLeast(1))
        .synonyms(&[same("log.flush.interval.messages")])
        .without_effect()
        .doc(
            "Kafka's number of records between flushes. Vltava flushes before it acknowledges, \
             whatever stands here.",
        ),
    topic("flush.ms", Kind::Long, "9223372036854775807")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .synonyms(&[
            same("log.flush.interval.ms"),
            same("log.flush.scheduler.interval.ms"),
        ])
        .without_effect()
        .doc(
            "Kafka's time between flushes. Vltava flushes before it acknowledges, whatever stands \
             here.",
        ),
    topic("follower.replication.throttled.replicas", Kind::List, "")
        .check(Check::ThrottledReplicas)
        .doc(
            "Replicas that are sent what they lack no faster than \
             `follower.replication.throttled.rate` of their node while they are not in sync: \
             `partition:node` pairs, or `*`.",
        ),
    topic("index.interval.bytes", Kind::Int, "4096")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(0))
        .synonyms(&[same("log.index.interval.bytes")])
        .doc("How many bytes of log lie between two entries of the offset index."),
    topic("leader.replication.throttled.replicas", Kind::List, "")
        .check(Check::ThrottledReplicas)
        .doc(
            "Replicas that, while they lead, send what others lack that are not in sync no faster \
             than `leader.replication.throttled.rate` of their node: `partition:node` pairs, or \
             `*`.",
        ),
    topic("local.retention.bytes", Kind::Long, "-2")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(-2))
        .synonyms(&[same("log.local.retention.bytes")])
        .without_effect()
        .doc(
            "Size of what stays on local disks once a topic is tiered; -2 follows \
             `retention.bytes`.",
        ),
    topic("local.retention.ms", Kind::Long, "-2")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(-2))
        .synonyms(&[same("log.local.retention.ms")])
        .without_effect()
        .doc("Age of what stays on local disks once a topic is tiered; -2 follows `retention.ms`."),
    topic("max.compaction.lag.ms", Kind::Long, "9223372036854775807")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .synonyms(&[same("log.cleaner.max.compaction.lag.ms")])
        .without_effect()
        .doc("How long a record may stay uncompacted at most."),
    topic("max.decompressed.message.bytes", Kind::Int, "2147483639")
        .unit(Unit::Bytes)
        .check(Check::Between(1, 2_147_483_639))
        .synonyms(&[same("max.decompressed.message.bytes")])
        .doc("Largest batch a client may send, counted after decompression."),
    topic("max.message.bytes", Kind::Int, "1048588")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(0))
        .synonyms(&[same("message.max.bytes")])
        .doc("Largest record batch the topic takes, as it is stored (compressed, if it is)."),
    topic("message.timestamp.after.max.ms", Kind::Long, "3600000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .synonyms(&[same("log.message.timestamp.after.max.ms")])
        .doc(
            "How far a record's timestamp may lie in the broker's future; beyond, the batch is \
             refused. Not for `LogAppendTime`.",
        ),
    topic(
        "message.timestamp.before.max.ms",
        Kind::Long,
        "9223372036854775807",
    )
    .unit(Unit::Milliseconds)
    .check(Check::AtLeast(0))
    .synonyms(&[same("log.message.timestamp.before.max.ms")])
    .doc(
        "How far a record's timestamp may lie in the broker's past; beyond, the batch is refused. \
         Not for `LogAppendTime`.",
    ),
    topic("message.timestamp.type", Kind::String, "CreateTime")
        .check(Check::OneOf(&["CreateTime", "LogAppendTime"]))
        .synonyms(&[same("log.message.timestamp.type")])
        .doc(
            "Whose clock a record's timestamp shows: the producer's (`CreateTime`) or the broker's \
             (`LogAppendTime`).",
        ),
    topic("min.cleanable.dirty.ratio", Kind::Double, "0.5")
        .check(Check::Between(0, 1))
        .synonyms(&[same("log.cleaner.min.cleanable.ratio")])
        .without_effect()
        .doc("Share of a log that is not compacted yet from which compaction begins."),
    topic("min.compaction.lag.ms", Kind::Long, "0")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .synonyms(&[same("log.cleaner.min.compaction.lag.ms")])
        .without_effect()
        .doc("How long a record stays uncompacted at least."),
    topic("min.insync.replicas", Kind::Int, "1")
        .check(Check::AtLeast(1))
        .synonyms(&[same("min.insync.replicas")])
        .doc(
            "On how many replicas a record must be flushed before it is acknowledged (acks=all) \
             and served. A majority is always needed; this asks for more. Capped by the number of \
             replicas.",
        ),
    topic("preallocate", Kind::Boolean, "false")
        .synonyms(&[same("log.preallocate")])
        .without_effect()
        .doc(
            "Kafka's allocation of whole segments. Vltava allocates ahead of its writes, by its \
             own measure.",
        ),
    topic("remote.copy.lag.bytes", Kind::Long, "-1")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(-1))
        .synonyms(&[same("log.remote.copy.lag.bytes")])
        .without_effect()
        .doc("How much of a tiered topic may wait for its upload."),
    topic("remote.copy.lag.ms", Kind::Long, "0")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(-1))
        .synonyms(&[same("log.remote.copy.lag.ms")])
        .without_effect()
        .doc("How long a segment of a tiered topic may wait for its upload."),
    topic("remote.log.copy.disable", Kind::Boolean, "false")
        .without_effect()
        .doc("Makes a tiered topic's remote part read-only."),
    topic("remote.log.delete.on.disable", Kind::Boolean, "false")
        .without_effect()
        .doc("Whether the remote part is deleted when tiering ends."),
    topic("remote.storage.enable", Kind::Boolean, "false")
        .without_effect()
        .doc("Tiered storage. `true` is refused: nothing would be tiered."),
    topic("retention.bytes", Kind::Long, "-1")
        .unit(Unit::Bytes)
        .synonyms(&[same("log.retention.bytes")])
        .doc(
            "Size of a partition from which its oldest segments are removed; negative: no limit. \
             Only with `delete`.",
        ),
    topic("retention.ms", Kind::Long, "604800000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(-1))
        .synonyms(&[
            same("log.retention.ms"),
            Synonym {
                name: "log.retention.minutes",
                factor: MINUTE_MS,
            },
            Synonym {
                name: "log.retention.hours",
                factor: HOUR_MS,
            },
        ])
        .doc(
            "Age of a segment's newest record from which the segment is removed; -1: no limit. \
             Only with `delete`.",
        ),
    topic("segment.bytes", Kind::Int, "1073741824")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(1_048_576))
        .synonyms(&[same("log.segment.bytes")])
        .doc("Largest size of a segment file. Retention removes whole segments."),
    topic("segment.index.bytes", Kind::Int, "10485760")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(4))
        .synonyms(&[same("log.index.size.max.bytes")])
        .doc("Largest size of a segment's offset index; a new segment begins when it is reached."),
    topic("segment.jitter.ms", Kind::Long, "0")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .synonyms(&[
            same("log.roll.jitter.ms"),
            Synonym {
                name: "log.roll.jitter.hours",
                factor: HOUR_MS,
            },
        ])
        .without_effect()
        .doc("Kafka's random part of `segment.ms`, against many segments beginning at once."),
    topic("segment.ms", Kind::Long, "604800000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .synonyms(&[
            same("log.roll.ms"),
            Synonym {
                name: "log.roll.hours",
                factor: HOUR_MS,
            },
        ])
        .doc(
            "Age from which a segment is closed though it is not full, so that retention can \
             remove it.",
        ),
    topic("unclean.leader.election.enable", Kind::Boolean, "false")
        .synonyms(&[same("unclean.leader.election.enable")])
        .doc(
            "Whether a replica that may lack acknowledged records leads when a majority of the \
             replicas is gone for 9 s: the one that has most, and what only others had is lost.",
        ),
];
