//! Every metric: its name, kind, labels and meaning. `docs/metrics.md` is this table.

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by upper bound, with a sum and a count.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// Counter, gauge or histogram.
    pub kind: Kind,
    /// The labels of each of its lines.
    pub labels: &'static [&'static str],
    /// What it says, in a sentence or two.
    pub help: &'static str,
}

const PARTITION: &[&str] = &["topic", "partition"];
const GROUP: &[&str] = &["group", "topic", "partition"];

macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal $labels:expr, $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $constant: Metric = Metric {
                name: $name,
                kind: Kind::$kind,
                labels: $labels,
                help: $help,
            };
        )+

        /// All of them, in the order of the page.
        pub const ALL: &[Metric] = &[$($constant),+];
    };
}

metrics! {
    BUILD_INFO: Gauge "vltava_build_info" &["version"],
        "Always 1; the version stands in its label.";
    SHARDS: Gauge "vltava_shards" &[],
        "Shards of this node, each a thread with its own partitions.";
    READY: Gauge "vltava_ready" &[],
        "1 where `/ready` answers 200: every shard serves, and no log is out of service.";
    IS_CONTROLLER: Gauge "vltava_is_controller" &[],
        "1 where this node is the cluster's controller.";
    NODES: Gauge "vltava_nodes" &[],
        "Nodes of the cluster, as this one knows it; those that were added and were never there do \
         not count.";
    NODES_REACHED: Gauge "vltava_nodes_reached" &[],
        "Those of them that this node can talk to, itself among them.";
    REQUESTS: Counter "vltava_requests_total" &["api"],
        "Requests answered, by API.";
    REQUEST_ERRORS: Counter "vltava_request_errors_total" &["api", "error"],
        "Answers that hold an error, by API and by the first error code in the answer.";
    REQUEST_DURATION: Histogram "vltava_request_duration_seconds" &["api"],
        "From the complete request to its answer being ready. A Fetch waits for records as long as \
         its client allows; a JoinGroup waits for other members.";
    RECEIVED_BYTES: Counter "vltava_received_bytes_total" &[],
        "Bytes received from clients.";
    SENT_BYTES: Counter "vltava_sent_bytes_total" &[],
        "Bytes sent to clients.";
    APPENDED_BYTES: Counter "vltava_appended_bytes_total" &[],
        "Bytes of clients' record batches taken by partitions, as they came (compressed); without \
         duplicates.";
    APPENDED_BATCHES: Counter "vltava_appended_batches_total" &[],
        "Clients' record batches taken by partitions, without duplicates.";
    FETCHED_BYTES: Counter "vltava_fetched_bytes_total" &[],
        "Bytes of record batches given to fetches.";
    PARTITIONS_MOVED: Counter "vltava_partitions_moved_total" &[],
        "Partitions that went from one shard of this node to another while they were served.";
    CONNECTIONS: Gauge "vltava_connections" &[],
        "Connections of clients that are open.";
    CONNECTIONS_ACCEPTED: Counter "vltava_connections_accepted_total" &[],
        "Connections of clients that were accepted.";
    CONNECTIONS_MOVED: Counter "vltava_connections_moved_total" &[],
        "Times that a connection went over to the shard of the partitions it uses.";
    CONNECTIONS_REFUSED: Counter "vltava_connections_refused_total" &[],
        "Connections that the broker closed: over a limit, because of what they sent, because they \
         were idle, or because they held memory without making progress.";
    REQUEST_MEMORY: Gauge "vltava_request_memory_bytes" &[],
        "Memory held by requests from their first byte until their answer has left and what they \
         wrote is on disk.";
    REQUEST_MEMORY_LIMIT: Gauge "vltava_request_memory_limit_bytes" &[],
        "What requests may hold; near it, clients are slowed down.";
    BUFFER_MEMORY: Gauge "vltava_buffer_memory_bytes" &[],
        "Memory held by the buffers of logs: those being filled, and the batch cache.";
    BATCH_CACHE_LIMIT: Gauge "vltava_batch_cache_limit_bytes" &[],
        "What the batch cache may hold.";
    DISK_FREE: Gauge "vltava_disk_free_bytes" &[],
        "Space left on the file system of the data directory.";
    DISK_SIZE: Gauge "vltava_disk_size_bytes" &[],
        "All space of the file system of the data directory.";
    DISK_RESERVE: Gauge "vltava_disk_reserve_bytes" &[],
        "`disk.reserve.bytes`: below so much free space, clients' writes are refused.";
    PARTITIONS: Gauge "vltava_partitions" &[],
        "Partitions whose logs are open on this node, internal ones included.";
    PARTITIONS_LED: Gauge "vltava_partitions_led" &[],
        "Partitions that this node leads, group 0 and internal ones included.";
    PARTITIONS_UNDER_REPLICATED: Gauge "vltava_partitions_under_replicated" &[],
        "Partitions that this node leads and of which not all replicas are in sync, also where \
         they are on their way. Sum it over the nodes.";
    PARTITIONS_WITHOUT_LEADER: Gauge "vltava_partitions_without_leader" &[],
        "Partitions of the whole cluster that nobody leads, as far as this node knows. Do not sum \
         it.";
    PARTITIONS_OUT_OF_SERVICE: Gauge "vltava_partitions_out_of_service" &[],
        "Partitions that answer KAFKA_STORAGE_ERROR: their log is damaged, or ended after an I/O \
         error.";
    PARTITIONS_DAMAGED: Gauge "vltava_partitions_damaged" &[],
        "Partitions in whose segments the background check found a record batch that is not \
         what was written. They go on; see operations.md, \"A damaged log\".";
    PARTITIONS_NOT_SHOWN: Gauge "vltava_partitions_not_shown" &[],
        "Partitions without lines of their own below: all, where there are more than 5,000; else \
         none.";
    LOG_SIZE: Gauge "vltava_log_size_bytes" PARTITION,
        "Bytes of all segments of a partition.";
    LOG_START_OFFSET: Gauge "vltava_log_start_offset" PARTITION,
        "The first offset of a partition.";
    LOG_END_OFFSET: Gauge "vltava_log_end_offset" PARTITION,
        "The offset that the next record gets.";
    HIGH_WATERMARK: Gauge "vltava_high_watermark_offset" PARTITION,
        "The first offset that is not committed: what is below is durable and served.";
    GROUPS: Gauge "vltava_groups" &[],
        "Consumer groups that this node coordinates.";
    GROUP_OFFSETS_NOT_SHOWN: Gauge "vltava_group_offsets_not_shown" &[],
        "Committed offsets without lines of their own below: all, where there are more than \
         10,000; else none.";
    GROUP_OFFSET: Gauge "vltava_group_committed_offset" GROUP,
        "The next offset that a consumer group will read, as it has committed.";
    GROUP_LAG: Gauge "vltava_group_lag_records" GROUP,
        "How far the committed offset is behind the high watermark.";
    PROCESS_MEMORY: Gauge "process_resident_memory_bytes" &[],
        "Resident memory of the process.";
    PROCESS_CPU: Counter "process_cpu_seconds_total" &[],
        "Processor time that the process has used, in user and kernel mode.";
    PROCESS_FDS: Gauge "process_open_fds" &[],
        "Open file descriptors.";
    PROCESS_FDS_LIMIT: Gauge "process_max_fds" &[],
        "File descriptors that the process may open.";
    PROCESS_START: Gauge "process_start_time_seconds" &[],
        "When the process started, in seconds since 1970.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write;
    use std::path::Path;

    use super::*;

    const HEAD: &str = "\
# Metrics

What `/metrics` on the admin port says, for Prometheus (text format 0.0.4). Sums are over all shards
of the node; counters begin at 0 when the process starts. [operations.md](operations.md) says what
is worth watching.

This page is made from the table in `broker/src/admin/catalogue.rs`.

| metric | kind | labels | |
|---|---|---|---|
";

    fn page() -> String {
        let mut out = HEAD.to_owned();
        for metric in ALL {
            let labels: Vec<_> = metric.labels.iter().map(|l| format!("`{l}`")).collect();
            let (name, kind, help) = (metric.name, metric.kind.name(), metric.help);
            let labels = labels.join(", ");
            writeln!(out, "| `{name}` | {kind} | {labels} | {help} |").unwrap();
        }
        out
    }

    /// Write it again with `VLTAVA_WRITE_DOCS=1 cargo test -p vltava --lib admin::catalogue`.
    #[test]
    fn metrics_md_is_this_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/metrics.md");
        if std::env::var_os("VLTAVA_WRITE_DOCS").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == page(), "docs/metrics.md differs; see the comment above this test");
    }

    #[test]
    fn names_follow_the_conventions() {
        let names: BTreeSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name stands for two metrics");
        for metric in ALL {
            let is_counter = metric.kind == Kind::Counter;
            assert_eq!(metric.name.ends_with("_total"), is_counter, "{}", metric.name);
            let plain = |c: char| c.is_ascii_lowercase() || c == '_';
            assert!(metric.name.chars().all(plain), "{}", metric.name);
            assert!(metric.help.ends_with('.'), "{}", metric.name);
        }
    }
}
