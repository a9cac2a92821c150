//! What is served: `/metrics`, `/health`, `/ready`, and a list of them.

use std::rc::Rc;
use std::time::Duration;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_storage::io::Disk;

use super::catalogue::{self, Metric};
use super::exposition::{self, Page, Seconds};
use super::http::{Method, Request, Response, Status};
use super::report::{NodeReport, Readiness};
use super::view::{Silent, View};
use super::{recover, shards};
use crate::metrics::{ApiSnapshot, Snapshot};
use crate::runtime::{ProcessFacts, Runtime};

/// How long a shard may take to say that it is there.
const HEALTH_TIME: Duration = Duration::from_secs(1);
/// How long it may take to say how it stands: a scraper waits for ten seconds.
const REPORT_TIME: Duration = Duration::from_secs(3);

/// Upper bounds of latencies, in microseconds.
const LATENCY_BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 30_000_000,
];

const INDEX: &str = "\
vltava

/metrics  for Prometheus
/health   200 while the process serves at all
/ready    200 when it serves everything; else 503 and the reasons
/shards   which shard has which partition; POST /shards/SHARD/TOPIC/PARTITION moves one
/cluster  the id of the cluster
/recover  /recover/NODE,NODE: what would be done without these nodes, for good; POST does it
";

/// Where a node tells to which cluster it belongs.
pub const CLUSTER: &str = "/cluster";

/// Answers a request.
pub async fn answer<R: Runtime>(
    view: &Rc<View<R>>,
    request: &Request,
    process: impl Future<Output = ProcessFacts>,
) -> Response {
    if request.method == Method::Post {
        let posted = match shards::move_partition(view, &request.path).await {
            None => recover::recover(view, &request.path).await,
            posted => posted,
        };
        return posted.unwrap_or_else(|| Response::of_status(Status::MethodNotAllowed));
    }
    if let Some(plan) = recover::plan(view, &request.path).await {
        return plan;
    }
    let answered = match request.path.as_str() {
        "/" => Ok(Response::text(Status::Ok, INDEX)),
        "/metrics" => metrics(view, process).await,
        CLUSTER => Ok(cluster(view)),
        "/health" => health(view).await,
        "/ready" => readiness(view).await,
        shards::PATH => Ok(shards::list(view).await),
        _ => Ok(Response::of_status(Status::NotFound)),
    };
    answered
        .unwrap_or_else(|silent| Response::text(Status::ServiceUnavailable, format!("{silent}\n")))
}

fn cluster<R: Runtime>(view: &Rc<View<R>>) -> Response {
    match view.parts.node.image().cluster() {
        Some(cluster) => Response::text(Status::Ok, format!("{}\n", cluster.id)),
        None => Response::text(Status::ServiceUnavailable, "this node is in no cluster yet\n"),
    }
}

async fn health<R: Runtime>(view: &Rc<View<R>>) -> Result<Response, Silent> {
    view.ask_all(HEALTH_TIME, |_| ()).await?;
    Ok(Response::text(Status::Ok, "healthy\n"))
}

async fn readiness<R: Runtime>(view: &Rc<View<R>>) -> Result<Response, Silent> {
    let mut sum = Readiness::default();
    for readiness in view.ask_all(HEALTH_TIME, |view| view.readiness()).await? {
        sum.add(readiness);
    }
    if sum.is_ready() {
        return Ok(Response::text(Status::Ok, "ready\n"));
    }
    let reasons = sum.reasons().join("\n");
    Ok(Response::text(Status::ServiceUnavailable, format!("{reasons}\n")))
}

async fn metrics<R: Runtime>(
    view: &Rc<View<R>>,
    process: impl Future<Output = ProcessFacts>,
) -> Result<Response, Silent> {
    let mut node =
        NodeReport { disk_reserve_bytes: view.parts.disk_reserve_bytes, ..NodeReport::default() };
    for report in view.ask_all(REPORT_TIME, |view| view.report()).await? {
        node.shards += 1;
        node.sum.add(report);
    }
    view.complete(&mut node.sum.offsets.items, REPORT_TIME).await?;
    node.process = process.await;
    let space = view.parts.runtime.disk().space().await;
    node.disk = space.ok().map(|space| (space.free, space.total));
    node.sum.partitions.items.sort_unstable();
    node.sum.offsets.items.sort_unstable();
    view.parts.runtime.yield_if_needed().await;
    Ok(Response { status: Status::Ok, content_type: exposition::CONTENT_TYPE, body: render(&node) })
}

/// The page of metrics, in the order of the catalogue.
pub fn render(node: &NodeReport) -> String {
    let mut page = Page::default();
    let sum = &node.sum;
    let is = u8::from;
    page.metric(&catalogue::BUILD_INFO).add(&[&env!("CARGO_PKG_VERSION")], 1);
    page.single(&catalogue::SHARDS, node.shards);
    page.single(&catalogue::READY, is(sum.readiness.is_ready()));
    page.single(&catalogue::IS_CONTROLLER, is(sum.is_controller));
    page.single(&catalogue::NODES, sum.tally.nodes);
    page.single(&catalogue::NODES_REACHED, sum.tally.nodes_reached);
    requests(&mut page, &sum.metrics);
    traffic(&mut page, &sum.metrics);
    disk(&mut page, node);
    partitions(&mut page, node);
    groups(&mut page, node);
    process(&mut page, &node.process);
    page.into_text()
}

fn requests(page: &mut Page, metrics: &Snapshot) {
    let apis = || {
        let apis = metrics.apis.iter();
        apis.map(|(key, api)| (ApiKey(*key).name(), api))
    };
    let mut requests = page.metric(&catalogue::REQUESTS);
    for (name, api) in apis() {
        requests.add(&[&name], api.requests);
    }
    let mut errors = page.metric(&catalogue::REQUEST_ERRORS);
    for (name, api) in apis() {
        for (code, count) in &api.errors {
            errors.add(&[&name, &ErrorCode(*code).name()], count);
        }
    }
    let mut durations = page.metric(&catalogue::REQUEST_DURATION);
    for (name, api) in apis() {
        let sum = Seconds(api.latency_us_sum);
        let count = api.latency_us.len();
        durations.add_histogram(&[&name], &buckets(api), sum, count);
    }
}

/// How many latencies are at or below each bound. The histogram knows them to two digits.
fn buckets(api: &ApiSnapshot) -> Vec<(Seconds, u64)> {
    let mut recorded = api.latency_us.iter_recorded().peekable();
    let mut below = 0;
    let bounds = LATENCY_BOUNDS_US.into_iter().map(|bound| {
        while let Some(step) = recorded.peek() {
            if api.latency_us.lowest_equivalent(step.value_iterated_to()) > bound {
                break;
            }
            below += step.count_since_last_iteration();
            recorded.next();
        }
        (Seconds(bound), below)
    });
    bounds.collect()
}

fn traffic(page: &mut Page, metrics: &Snapshot) {
    let Snapshot { counters, memory, .. } = metrics;
    let singles: [(&'static Metric, u64); 14] = [
        (&catalogue::RECEIVED_BYTES, counters.received_bytes),
        (&catalogue::SENT_BYTES, counters.sent_bytes),
        (&catalogue::APPENDED_BYTES, counters.appended_bytes),
        (&catalogue::APPENDED_BATCHES, counters.appended_batches),
        (&catalogue::FETCHED_BYTES, counters.fetched_bytes),
        (&catalogue::PARTITIONS_MOVED, counters.partitions_moved),
        (&catalogue::CONNECTIONS, metrics.connections),
        (&catalogue::CONNECTIONS_ACCEPTED, counters.connections_accepted),
        (&catalogue::CONNECTIONS_MOVED, counters.connections_moved),
        (&catalogue::CONNECTIONS_REFUSED, counters.connections_refused),
        (&catalogue::REQUEST_MEMORY, memory.request_bytes),
        (&catalogue::REQUEST_MEMORY_LIMIT, memory.request_bytes_max),
        (&catalogue::BUFFER_MEMORY, memory.buffer_bytes),
        (&catalogue::BATCH_CACHE_LIMIT, memory.cache_bytes_max),
    ];
    for (metric, value) in singles {
        page.single(metric, value);
    }
}

fn disk(page: &mut Page, node: &NodeReport) {
    let mut free = page.metric(&catalogue::DISK_FREE);
    node.disk.iter().for_each(|(bytes, _)| free.add(&[], bytes));
    let mut size = page.metric(&catalogue::DISK_SIZE);
    node.disk.iter().for_each(|(_, bytes)| size.add(&[], bytes));
    page.single(&catalogue::DISK_RESERVE, node.disk_reserve_bytes);
}

fn partitions(page: &mut Page, node: &NodeReport) {
    let partitions = &node.sum.partitions;
    let out_of_service = node.sum.readiness.out_of_service_count;
    page.single(&catalogue::PARTITIONS, partitions.count);
    page.single(&catalogue::PARTITIONS_LED, node.sum.tally.led);
    page.single(&catalogue::PARTITIONS_UNDER_REPLICATED, node.sum.tally.under_replicated);
    page.single(&catalogue::PARTITIONS_WITHOUT_LEADER, node.sum.tally.without_leader);
    page.single(&catalogue::PARTITIONS_OUT_OF_SERVICE, out_of_service);
    page.single(&catalogue::PARTITIONS_DAMAGED, node.sum.damaged_partitions);
    page.single(&catalogue::PARTITIONS_NOT_SHOWN, partitions.left_out());
    let mut sizes = page.metric(&catalogue::LOG_SIZE);
    for facts in &partitions.items {
        sizes.add(&[&facts.topic, &facts.partition], facts.size_bytes);
    }
    let mut starts = page.metric(&catalogue::LOG_START_OFFSET);
    for facts in &partitions.items {
        starts.add(&[&facts.topic, &facts.partition], facts.log_start);
    }
    let mut ends = page.metric(&catalogue::LOG_END_OFFSET);
    for facts in &partitions.items {
        ends.add(&[&facts.topic, &facts.partition], facts.log_end);
    }
    let mut committed = page.metric(&catalogue::HIGH_WATERMARK);
    for facts in &partitions.items {
        committed.add(&[&facts.topic, &facts.partition], facts.high_watermark);
    }
}

fn groups(page: &mut Page, node: &NodeReport) {
    let offsets = &node.sum.offsets;
    page.single(&catalogue::GROUPS, node.sum.groups);
    page.single(&catalogue::GROUP_OFFSETS_NOT_SHOWN, offsets.left_out());
    let mut committed = page.metric(&catalogue::GROUP_OFFSET);
    for offset in &offsets.items {
        let labels: [&dyn std::fmt::Display; 3] = [&offset.group, &offset.topic, &offset.partition];
        committed.add(&labels, offset.committed);
    }
    let mut lags = page.metric(&catalogue::GROUP_LAG);
    for offset in &offsets.items {
        if let Some(lag) = offset.lag() {
            lags.add(&[&offset.group, &offset.topic, &offset.partition], lag);
        }
    }
}

fn process(page: &mut Page, process: &ProcessFacts) {
    page.single(&catalogue::PROCESS_MEMORY, process.resident_bytes);
    page.single(&catalogue::PROCESS_CPU, Seconds(process.cpu_us));
    page.single(&catalogue::PROCESS_FDS, process.descriptors);
    page.single(&catalogue::PROCESS_FDS_LIMIT, process.descriptors_max);
    page.single(&catalogue::PROCESS_START, process.started_at_s);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::admin::catalogue::ALL;
    use crate::admin::report::{
        Bounded, GroupOffset, PARTITIONS_SHOWN_MAX, PartitionFacts, Report,
    };
    use crate::metrics::{Memory, ShardMetrics};

    fn report() -> NodeReport {
        let shard = ShardMetrics::default();
        shard.answered(0, Duration::from_micros(99), 0);
        shard.answered(0, Duration::from_micros(300), 6);
        shard.answered(0, Duration::from_secs(50), 0);
        let partition = |topic: &str, partition| PartitionFacts {
            topic: topic.to_owned(),
            partition,
            size_bytes: 100,
            log_start: 2,
            log_end: 9,
            high_watermark: 8,
        };
        let offset = GroupOffset {
            group: "say \"hello\"".into(),
            topic: "t".into(),
            partition: 1,
            id: None,
            committed: 5,
            high_watermark: Some(8),
        };
        let sum = Report {
            metrics: shard.snapshot(Memory::default()),
            partitions: Bounded::collect([partition("t", 0), partition("t", 1)].into_iter(), 9),
            offsets: Bounded::collect([offset].into_iter(), 9),
            groups: 1,
            ..Report::default()
        };
        NodeReport { shards: 1, sum, ..NodeReport::default() }
    }

    #[test]
    fn the_page_has_every_metric_of_the_catalogue_in_order() {
        let text = render(&report());
        let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
        let found: Vec<_> = types.filter_map(|line| line.split(' ').next()).collect();
        let expected: Vec<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn latencies_are_counted_below_their_bounds() {
        let text = render(&report());
        let expected = "\
vltava_request_duration_seconds_bucket{api=\"Produce\",le=\"0.0001\"} 1
vltava_request_duration_seconds_bucket{api=\"Produce\",le=\"0.00025\"} 1
vltava_request_duration_seconds_bucket{api=\"Produce\",le=\"0.0005\"} 2
";
        assert!(text.contains(expected), "{text}");
        for line in [
            "vltava_request_duration_seconds_bucket{api=\"Produce\",le=\"30\"} 2",
            "vltava_request_duration_seconds_bucket{api=\"Produce\",le=\"+Inf\"} 3",
            "vltava_request_duration_seconds_sum{api=\"Produce\"} 50.000399",
            "vltava_request_duration_seconds_count{api=\"Produce\"} 3",
            "vltava_request_errors_total{api=\"Produce\",error=\"NOT_LEADER_OR_FOLLOWER\"} 1",
            "vltava_log_end_offset{topic=\"t\",partition=\"1\"} 9",
            "vltava_group_lag_records{group=\"say \\\"hello\\\"\",topic=\"t\",partition=\"1\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n\n{text}");
        }
    }

    #[test]
    fn too_many_partitions_are_only_counted() {
        let mut node = report();
        let one = node.sum.partitions.items[0].clone();
        let many = std::iter::repeat_n(one, PARTITIONS_SHOWN_MAX);
        let other = Report {
            partitions: Bounded::collect(many, PARTITIONS_SHOWN_MAX),
            ..Report::default()
        };
        node.sum.add(other);
        let text = render(&node);
        assert!(text.contains("\nvltava_partitions 5002\n"), "{text}");
        assert!(text.contains("\nvltava_partitions_not_shown 5002\n"));
        assert!(!text.contains("\nvltava_log_size_bytes{"));
    }
}
