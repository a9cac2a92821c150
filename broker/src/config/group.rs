//! The settings of a group. Kafka's names are known, so that a tool which writes them meets no
//! error; they take effect with the group protocols of KIP-848, KIP-932 and KIP-1071.

use super::definitions::{Check, Definition, Kind, Scope, Unit};

const fn group(name: &'static str, kind: Kind, default: &'static str) -> Definition {
    Definition::new(Scope::Group, name, kind, default).without_effect()
}

const fn milliseconds(name: &'static str, default: &'static str, min: i64) -> Definition {
    group(name, Kind::Int, default).unit(Unit::Milliseconds).check(Check::AtLeast(min))
}

/// Settings of a group, by name.
pub static GROUP: &[Definition] = &[
    milliseconds("consumer.assignment.interval.ms", "1000", 0)
        .doc("Shortest time between two assignments of a consumer group (KIP-848)."),
    milliseconds("consumer.heartbeat.interval.ms", "5000", 1)
        .doc("How often members of a consumer group report (KIP-848)."),
    milliseconds("consumer.session.timeout.ms", "45000", 1)
        .doc("How long a member of a consumer group may be silent (KIP-848)."),
    group("errors.deadletterqueue.copy.record.enable", Kind::Boolean, "false")
        .doc("Whether a share group's dead letters carry the record itself (KIP-1191)."),
    group("errors.deadletterqueue.topic.name", Kind::String, "")
        .doc("Topic of a share group's dead letters (KIP-1191)."),
    milliseconds("share.assignment.interval.ms", "1000", 0)
        .doc("Shortest time between two assignments of a share group (KIP-932)."),
    group("share.auto.offset.reset", Kind::String, "latest")
        .doc("Where a share group begins: `earliest`, `latest` or `by_duration:` (KIP-932)."),
    group("share.delivery.count.limit", Kind::Int, "5")
        .check(Check::AtLeast(2))
        .doc("How often a share group is given the same record (KIP-932)."),
    milliseconds("share.heartbeat.interval.ms", "5000", 1)
        .doc("How often members of a share group report (KIP-932)."),
    group("share.isolation.level", Kind::String, "read_uncommitted")
        .check(Check::OneOf(&["read_committed", "read_uncommitted"]))
        .doc(
            "Whether a share group sees records of transactions that are not committed (KIP-932).",
        ),
    group("share.partition.max.record.locks", Kind::Int, "2000")
        .check(Check::AtLeast(100))
        .doc("Most records of a partition that a share group may hold at once (KIP-932)."),
    milliseconds("share.record.lock.duration.ms", "30000", 1000)
        .doc("How long a share consumer may hold a record (KIP-932)."),
    group("share.renew.acknowledge.enable", Kind::Boolean, "true")
        .doc("Whether share consumers may hold a record for longer (KIP-1222)."),
    milliseconds("share.session.timeout.ms", "45000", 1)
        .doc("How long a member of a share group may be silent (KIP-932)."),
    milliseconds("streams.assignment.interval.ms", "1000", 0)
        .doc("Shortest time between two assignments of a streams group (KIP-1071)."),
    group("streams.assignor.name", Kind::String, "sticky")
        .doc("How tasks of a streams group are assigned (KIP-1071)."),
    milliseconds("streams.heartbeat.interval.ms", "5000", 1)
        .doc("How often members of a streams group report (KIP-1071)."),
    milliseconds("streams.initial.rebalance.delay.ms", "3000", 0)
        .doc("How long an empty streams group waits for more members (KIP-1071)."),
    group("streams.num.standby.replicas", Kind::Int, "0")
        .check(Check::AtLeast(0))
        .doc("Standby replicas of each task of a streams group (KIP-1071)."),
    group("streams.rack.aware.assignment.tags", Kind::List, "")
        .doc("Client tags over which standby tasks are spread (KIP-1071)."),
    milliseconds("streams.session.timeout.ms", "45000", 1)
        .doc("How long a member of a streams group may be silent (KIP-1071)."),
];
