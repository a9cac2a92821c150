//! The settings of a node, without the defaults of its topics (those stand in `topic_defaults.rs`).

use super::definitions::{Check, Definition, Kind, Scope, Unit};

const fn node(name: &'static str, kind: Kind, default: &'static str) -> Definition {
    Definition::new(Scope::Broker, name, kind, default)
}

const MIB: i64 = 1024 * 1024;

/// What `replica.selector.class` names to have consumers read from a replica of their rack.
pub const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

/// Settings of a node, by name.
pub static BROKER: &[Definition] = &[
    node("admin.listener", Kind::String, "127.0.0.1:9644").ours().doc(
        "Where metrics and health are served over HTTP: `host:port`. `none`, or empty: \
             nowhere.",
    ),
    node("advertised.listeners", Kind::List, "").no_default().doc(
        "How clients reach this node, `NAME://host:port` for each name in `listeners`. \
             Default: what `listeners` says; for all interfaces, this machine's host name.",
    ),
    node("auto.create.topics.enable", Kind::Boolean, "true").doc(
        "Whether a topic that a producer or consumer asks for, and that does not exist, is \
         created.",
    ),
    node("auto.leader.rebalance.enable", Kind::Boolean, "true").doc(
        "Whether leaders go back, every `leader.imbalance.check.interval.seconds`, to the replicas \
         that their partitions prefer.",
    ),
    node("broker.id", Kind::Int, "1").check(Check::AtLeast(0)).doc("Older name of `node.id`."),
    node("broker.rack", Kind::String, "")
        .no_default()
        .doc("Where this node stands: replicas of a partition are spread over racks."),
    node("connections.max.idle.ms", Kind::Long, "600000")
        .unit(Unit::Milliseconds)
        .doc("How long a connection may be silent before it is closed; negative: for ever."),
    node("default.replication.factor", Kind::Int, "1")
        .check(Check::Between(1, 32_767))
        .doc("Replicas of a topic that is created without saying how many."),
    node("delete.topic.enable", Kind::Boolean, "true").doc("Whether topics can be deleted."),
    node("disk.reserve.bytes", Kind::Size, "256MiB").ours().unit(Unit::Bytes).doc(
        "Free disk space below which records of clients are refused, and nothing is created, so \
             that offsets, deletions and retention still work.",
    ),
    node("fetch.max.bytes", Kind::Int, "57671680")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(1024))
        .doc(
            "Most record bytes in one fetch response, whatever the client asks for; the first \
             batch is sent in any case.",
        ),
    node("group.initial.rebalance.delay.ms", Kind::Int, "3000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .doc("How long an empty classic group waits for more members after the first one came."),
    node("group.max.session.timeout.ms", Kind::Int, "1800000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .doc("Longest session timeout a member of a classic group may ask for."),
    node("group.max.size", Kind::Int, "2147483647")
        .check(Check::AtLeast(1))
        .doc("Most members of a classic group."),
    node("group.min.session.timeout.ms", Kind::Int, "6000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .doc("Shortest session timeout a member of a classic group may ask for."),
    node("inter.broker.listener.name", Kind::String, "").no_default().doc(
        "Which of `listeners` the other nodes use. Default: PLAINTEXT, or the only one there \
             is.",
    ),
    node("leader.imbalance.check.interval.seconds", Kind::Long, "300")
        .unit(Unit::Seconds)
        .check(Check::AtLeast(1))
        .doc("How often a node looks whether it leads what others are preferred for."),
    node(
        "listener.security.protocol.map",
        Kind::String,
        "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    )
    .doc(
        "Which protocol each listener's name stands for: `NAME:PROTOCOL`. Only PLAINTEXT is \
         served yet.",
    ),
    node("listeners", Kind::List, "PLAINTEXT://127.0.0.1:9092").doc(
        "Where clients connect: `NAME://host:port`, separated by commas. An empty host is all \
         interfaces. Kafka's default is all interfaces; ours is this machine only, as nothing is \
         encrypted or authenticated yet; with `peers` it is port 9092 of the host that this node \
         has there.",
    ),
    node("log.dir", Kind::List, "data").doc("Older name of `log.dirs`."),
    node("log.dirs", Kind::List, "data").doc("The data directory. One for now."),
    node("log.retention.check.interval.ms", Kind::Long, "300000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .doc("How often segments are looked through for what retention may remove."),
    node("log.verify.interval.ms", Kind::Long, "604800000")
        .ours()
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .doc(
            "How often segments are read again, 8 MiB a second on each shard, to find what \
             has rotted: from the begin of one pass to the begin of the next. The first begins ten \
             minutes after the start, or after this time where that is less.",
        ),
    node("max.connections", Kind::Int, "2147483647")
        .check(Check::AtLeast(0))
        .doc("Most client connections of this node; more are closed as they come."),
    node("max.connections.per.ip", Kind::Int, "2147483647")
        .check(Check::AtLeast(0))
        .doc("Most client connections from one address; more are closed as they come."),
    node("max.incremental.fetch.session.cache.slots", Kind::Int, "1000")
        .check(Check::AtLeast(0))
        .doc("Most fetch sessions (KIP-227) that this node keeps."),
    node("max.request.partition.size.limit", Kind::Int, "2000")
        .check(Check::AtLeast(1))
        .doc("Most partitions in one answer of DescribeTopicPartitions (KIP-966)."),
    node("memory", Kind::Size, "").no_default().ours().unit(Unit::Bytes).doc(
        "Memory for requests, caches, buffers and groups of all shards, such as `4GiB`. Half of it \
         is the batch cache, from which readers near a log's end are served. Default: 512 MiB for \
         each shard, at most half of the machine or its cgroup; older records are read \
         from the disk, past the page cache.",
    ),
    node("node.id", Kind::Int, "1")
        .check(Check::AtLeast(0))
        .doc("This node's number, unique in the cluster."),
    node("node.replace.after.ms", Kind::Long, "1800000")
        .ours()
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(-1))
        .doc(
            "How long the cluster waits for a node that is gone before it makes up for it: copies \
             of what it keeps are made on other nodes. -1: for ever. Counts as the node that leads \
             group 0 has it.",
        ),
    node("num.partitions", Kind::Int, "1")
        .check(Check::AtLeast(1))
        .doc("Partitions of a topic that is created without saying how many."),
    node("offset.metadata.max.bytes", Kind::Int, "4096")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(0))
        .doc("Longest text that a client may keep with a committed offset."),
    node("offsets.commit.timeout.ms", Kind::Int, "5000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .without_effect()
        .doc(
            "How long an offset commit may wait for its record to be replicated. There is nothing \
             to wait for on one node.",
        ),
    node("offsets.retention.check.interval.ms", Kind::Long, "600000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .doc("How often committed offsets are looked through for expired ones."),
    node("offsets.retention.minutes", Kind::Int, "10080")
        .unit(Unit::Minutes)
        .check(Check::AtLeast(1))
        .doc("How long the offsets of a group without members are kept."),
    node("offsets.topic.num.partitions", Kind::Int, "50")
        .check(Check::AtLeast(1))
        .doc("Partitions of `__consumer_offsets`. Counts when the topic is created."),
    node("offsets.topic.replication.factor", Kind::Short, "3").check(Check::AtLeast(1)).doc(
        "Replicas of `__consumer_offsets`, at most as many as there are nodes. Counts when \
             the topic is created.",
    ),
    node("offsets.topic.segment.bytes", Kind::Int, "104857600")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(MIB))
        .doc("Segment size of `__consumer_offsets`."),
    node("peer.listener", Kind::String, "").no_default().ours().doc(
        "Where this node listens for the other nodes, as `host:port`, where that is not the \
         address that `peers` has for it: behind an address translation, or in a container.",
    ),
    node("peers", Kind::List, "").no_default().ours().doc(
        "The nodes of the cluster, this one among them, as `id@host:port`: where each listens for \
         the others, which is not where clients connect. The cluster forms once, when all of them \
         are there. Default: this node is alone.",
    ),
    node("producer.id.expiration.ms", Kind::Int, "86400000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(1))
        .doc("How long a partition remembers an idempotent producer that sends nothing."),
    node("replica.lag.time.max.ms", Kind::Long, "30000")
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .doc(
            "How long a replica that can be talked to stays in sync after it had all of its \
             leader's log. One whose node is gone is out of sync at once.",
        ),
    node("replica.selector.class", Kind::String, "")
        .no_default()
        .check(Check::OneOf(&[
            "",
            "org.apache.kafka.common.replica.LeaderSelector",
            RACK_AWARE_SELECTOR,
        ]))
        .doc(
            "With `org.apache.kafka.common.replica.RackAwareReplicaSelector` consumers that name \
             their rack are sent to a replica that is in sync and whose node has that \
             `broker.rack` (KIP-392). Default: they read from the leader.",
        ),
    node("shard.balance.interval.ms", Kind::Long, "5000")
        .ours()
        .unit(Unit::Milliseconds)
        .check(Check::AtLeast(0))
        .doc(
            "How often the node looks whether one of its cores is hot while another is not; after \
             three such looks in a row a partition goes from the one to the other. 0: never.",
        ),
    node("shards", Kind::Int, "").no_default().ours().check(Check::Between(1, 1024)).doc(
        "Shards: threads, each with its own partitions and connections. Default: one for each \
             core this process may use.",
    ),
    node("socket.listen.backlog.size", Kind::Int, "50")
        .check(Check::AtLeast(1))
        .without_effect()
        .doc("Connections that may wait to be accepted. The kernel's limit is taken."),
    node("socket.request.max.bytes", Kind::Int, "104857600")
        .unit(Unit::Bytes)
        .check(Check::AtLeast(1))
        .doc("Largest request; a connection that announces more is closed."),
    node("write.max.bytes", Kind::Size, "2MiB").ours().unit(Unit::Bytes).doc(
        "Most bytes that one write to a log carries. What waits meanwhile goes with the next \
             write.",
    ),
];
