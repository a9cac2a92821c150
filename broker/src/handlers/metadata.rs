//! Metadata (key 3): nodes, topics, and who leads their partitions.
//!
//! Versions: 1 racks, controller, internal topics, 2 cluster id (KIP-78), 3 throttle time, 4 no
//! automatic creation where the client wants none (KIP-361), 5 offline replicas (KIP-112), 7 leader
//! epochs (KIP-320), 8 allowed operations (KIP-430), 9 flexible, 10 topic ids (KIP-516), 11 cluster
//! operations moved to DescribeCluster (KIP-700), 12 topics by id, 13 an error for all (KIP-1102).
//!
//! Ours: a topic that is created automatically is there when the answer leaves; Kafka answers
//! UNKNOWN_TOPIC_OR_PARTITION first. Of internal topics only `__consumer_offsets` is created so.
//! Beside LEADER_NOT_AVAILABLE a node that is cut off names another replica (`node/presence.rs`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use vltava_protocol::types::{Str, Uuid};

use super::Reply;
use super::context::Context;
use super::topology::{
    CLUSTER_OPERATIONS, OPERATIONS_NOT_ASKED, PartitionView, Standpoint, TOPIC_OPERATIONS,
    partition_view,
};
use crate::metadata::image::{Image, Topic};
use crate::metadata::leaders::Leaders;
use crate::metadata::topic_name::{self, CLUSTER_METADATA, CONSUMER_OFFSETS};
use crate::node::presence::Elsewhere;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::METADATA;

/// The first version that asks for topics by id.
const IDS_FROM: i16 = 12;
/// Before it, replicas that are away are not named, and whoever asks is told that some are.
const OFFLINE_NAMED_FROM: i16 = 1;
/// The first version that knows LISTENER_NOT_FOUND.
const LISTENER_NOT_FOUND_FROM: i16 = 6;

/// Describes the cluster; creates topics that a client asks for by name where that is allowed.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: MetadataRequest,
) -> Reply<MetadataResponse> {
    if let Some(refused) = refused(&request, context.api_version) {
        return Reply::Now(refused);
    }
    let wanted = wanted(&request, context.api_version);
    let failures = create_missing(&context, &request, &wanted).await;
    let node = &context.services.node;
    let (image, leaders, present) = (node.image(), node.leaders(), node.shown());
    let view = View {
        image: &image,
        leaders: &leaders,
        from: Standpoint { listener: &context.client.listener, present: &present },
        version: context.api_version,
        with_operations: request.include_topic_authorized_operations,
        elsewhere: node.elsewhere(),
    };
    let mut response = view.cluster(node.controller_id(), &request);
    match wanted {
        Wanted::All => {
            for topic in image.topics() {
                response.topics.push(view.topic(topic));
                context.services.runtime.yield_if_needed().await;
            }
        }
        Wanted::These(topics) => {
            for wanted in topics {
                response.topics.push(view.wanted(wanted, &failures));
                context.services.runtime.yield_if_needed().await;
            }
        }
    }
    Reply::Now(response)
}

/// What a client asks about.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    All,
    These(Vec<WantedTopic>),
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum WantedTopic {
    Name(Str),
    Id(Uuid),
}

/// Before version 12 a topic has a name, and no id is looked at.
fn refused(request: &MetadataRequest, version: i16) -> Option<MetadataResponse> {
    let topics = request.topics.as_deref().unwrap_or_default();
    let is_by_id = |topic: &MetadataRequestTopic| topic.name.is_none() || !topic.topic_id.is_zero();
    if version >= IDS_FROM || !topics.iter().any(is_by_id) {
        return None;
    }
    let refused = |topic: &MetadataRequestTopic| MetadataResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST,
        name: Some(topic.name.clone().unwrap_or_default()),
        topic_id: topic.topic_id,
        ..MetadataResponseTopic::default()
    };
    let topics = topics.iter().map(refused).collect();
    Some(MetadataResponse { topics, ..MetadataResponse::default() })
}

fn wanted(request: &MetadataRequest, version: i16) -> Wanted {
    let Some(topics) = &request.topics else {
        return Wanted::All;
    };
    if version == 0 && topics.is_empty() {
        return Wanted::All;
    }
    let mut seen = BTreeSet::new();
    // Who asks by id may leave the name null or, as Java's client does, empty.
    let named = topics.iter().map(|topic| match &topic.name {
        Some(name) if topic.topic_id.is_zero() => WantedTopic::Name(name.clone()),
        _ => WantedTopic::Id(topic.topic_id),
    });
    Wanted::These(named.filter(|topic| seen.insert(topic.clone())).collect())
}

/// Creates topics that are asked for by name and do not exist; says which could not be created.
async fn create_missing<R: Runtime>(
    context: &Context<R>,
    request: &MetadataRequest,
    wanted: &Wanted,
) -> BTreeMap<Str, ErrorCode> {
    let mut failures = BTreeMap::new();
    let Wanted::These(topics) = wanted else {
        return failures;
    };
    if !request.allow_auto_topic_creation || !context.services.config.auto_create_topics {
        return failures;
    }
    for topic in topics {
        let WantedTopic::Name(name) = topic else {
            continue;
        };
        if !may_be_created(name) || context.services.node.image().topic(name).is_some() {
            continue;
        }
        if let Err(error) = context.services.node.ensure_topic(name).await {
            failures.insert(name.clone(), error);
        }
    }
    failures
}

fn may_be_created(name: &str) -> bool {
    let is_ours = name == CLUSTER_METADATA || topic_name::is_internal(name);
    topic_name::validate(name).is_ok() && (!is_ours || name == CONSUMER_OFFSETS)
}

/// What a topic that could not be created is answered with: what the client can do something about,
/// or "unknown".
fn creation_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::INVALID_TOPIC_EXCEPTION
        | ErrorCode::INVALID_REPLICATION_FACTOR
        | ErrorCode::POLICY_VIOLATION => error,
        _ => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    }
}

/// The cluster, from one place.
struct View<'a> {
    image: &'a Image,
    leaders: &'a Leaders,
    from: Standpoint<'a>,
    version: i16,
    with_operations: bool,
    /// Where clients may find what has no leader.
    elsewhere: Option<Elsewhere>,
}

impl View<'_> {
    /// The answer without its topics.
    fn cluster(&self, controller_id: i32, request: &MetadataRequest) -> MetadataResponse {
        let nodes = self.from.nodes(self.image);
        let brokers = nodes.map(|(node, endpoint)| MetadataResponseBroker {
            node_id: node.id,
            host: endpoint.host.clone(),
            port: endpoint.port.into(),
            rack: node.rack.clone(),
        });
        let operations = match request.include_cluster_authorized_operations {
            true => CLUSTER_OPERATIONS,
            false => OPERATIONS_NOT_ASKED,
        };
        MetadataResponse {
            brokers: brokers.collect(),
            cluster_id: self.image.cluster().map(|cluster| Str::from(cluster.id.to_string())),
            controller_id,
            cluster_authorized_operations: operations,
            ..MetadataResponse::default()
        }
    }

    fn wanted(
        &self,
        wanted: WantedTopic,
        failures: &BTreeMap<Str, ErrorCode>,
    ) -> MetadataResponseTopic {
        match wanted {
            WantedTopic::Name(name) => match self.image.topic(&name) {
                Some(topic) => self.topic(topic),
                None => {
                    let unknown = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION;
                    let error_code = match topic_name::validate(&name) {
                        Ok(()) => failures.get(&name).map_or(unknown, |e| creation_error(*e)),
                        Err(_) => ErrorCode::INVALID_TOPIC_EXCEPTION,
                    };
                    MetadataResponseTopic {
                        error_code,
                        is_internal: topic_name::is_internal(&name),
                        name: Some(name),
                        topic_authorized_operations: self.operations(),
                        ..MetadataResponseTopic::default()
                    }
                }
            },
            WantedTopic::Id(topic_id) => match self.image.topic_by_id(topic_id) {
                Some(topic) => self.topic(topic),
                None => MetadataResponseTopic {
                    error_code: ErrorCode::UNKNOWN_TOPIC_ID,
                    name: None,
                    topic_id,
                    ..MetadataResponseTopic::default()
                },
            },
        }
    }

    fn operations(&self) -> i32 {
        if self.with_operations { TOPIC_OPERATIONS } else { OPERATIONS_NOT_ASKED }
    }

    fn topic(&self, topic: &Arc<Topic>) -> MetadataResponseTopic {
        let partition = |indexed| {
            let view = partition_view(self.image, self.leaders, self.from, topic, indexed);
            self.partition(view)
        };
        MetadataResponseTopic {
            error_code: ErrorCode::NONE,
            name: Some(topic.name.clone()),
            topic_id: topic.id,
            is_internal: topic.is_internal(),
            partitions: topic.indexed_partitions().map(partition).collect(),
            topic_authorized_operations: self.operations(),
        }
    }

    fn partition(&self, mut view: PartitionView) -> MetadataResponsePartition {
        if self.version < OFFLINE_NAMED_FROM {
            view.leave_out_offline();
        }
        let error_code = match view.error_code {
            ErrorCode::LISTENER_NOT_FOUND if self.version < LISTENER_NOT_FOUND_FROM => {
                ErrorCode::LEADER_NOT_AVAILABLE
            }
            error => error,
        };
        let elsewhere = || self.elsewhere?.of(&view.replica_nodes);
        let leader_id = match view.error_code {
            ErrorCode::LEADER_NOT_AVAILABLE => {
                let is_told_of = |id: &i32| self.from.nodes(self.image).any(|(it, _)| it.id == *id);
                elsewhere().filter(is_told_of).unwrap_or(view.leader_id)
            }
            _ => view.leader_id,
        };
        MetadataResponsePartition {
            error_code,
            partition_index: view.index,
            leader_id,
            leader_epoch: view.leader_epoch,
            replica_nodes: view.replica_nodes,
            isr_nodes: view.in_sync_nodes,
            offline_replicas: view.offline_nodes,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;
    use crate::handlers::topology::tests::cluster;

    fn asked(names: &[&str]) -> MetadataRequest {
        let topic = |name: &&str| MetadataRequestTopic {
            name: Some(Str::from(*name)),
            topic_id: Uuid::ZERO,
        };
        MetadataRequest { topics: Some(names.iter().map(topic).collect()), ..Default::default() }
    }

    fn from(listener: &'static str) -> Standpoint<'static> {
        static PRESENT: LazyLock<BTreeSet<i32>> = LazyLock::new(|| BTreeSet::from([1]));
        Standpoint { listener, present: &PRESENT }
    }

    fn view<'a>(image: &'a Image, leaders: &'a Leaders, version: i16) -> View<'a> {
        let from = from("PLAINTEXT");
        View { image, leaders, from, version, with_operations: false, elsewhere: None }
    }

    #[test]
    fn null_is_all_and_empty_is_all_in_version_0_only() {
        let null = MetadataRequest { topics: None, ..Default::default() };
        assert_eq!(wanted(&null, 1), Wanted::All);
        assert_eq!(wanted(&asked(&[]), 0), Wanted::All);
        assert_eq!(wanted(&asked(&[]), 1), Wanted::These(vec![]));
        let Wanted::These(topics) = wanted(&asked(&["a", "b", "a"]), 9) else { panic!() };
        assert_eq!(topics.len(), 2, "each topic is described once");
    }

    #[test]
    fn ids_are_refused_before_version_12() {
        let by_id = MetadataRequest {
            topics: Some(vec![MetadataRequestTopic { name: None, topic_id: Uuid(5) }]),
            ..Default::default()
        };
        let answer = refused(&by_id, 11).unwrap();
        assert_eq!(answer.topics[0].error_code, ErrorCode::INVALID_REQUEST);
        assert_eq!(answer.topics[0].name, Some(Str::EMPTY));
        assert_eq!(refused(&by_id, 12), None);
        assert_eq!(refused(&asked(&["a"]), 0), None);
    }

    #[test]
    fn the_cluster_as_kafka_shows_it() {
        let (image, leaders) = cluster(&[("t", 5, 2)]);
        let answer = view(&image, &leaders, 12).cluster(1, &asked(&[]));
        let broker = &answer.brokers[0];
        assert_eq!((broker.node_id, broker.host.as_str(), broker.port), (1, "kafka.example", 9092));
        assert_eq!(broker.rack, Some(Str::from_static("r1")));
        assert_eq!(answer.cluster_id, Some(Str::from(Uuid(9).to_string())));
        assert_eq!(answer.cluster_authorized_operations, i32::MIN);
        let elsewhere = View { from: from("INSIDE"), ..view(&image, &leaders, 12) };
        assert!(elsewhere.cluster(1, &asked(&[])).brokers.is_empty());
    }

    #[test]
    fn topics_by_name_and_by_id() {
        let (image, leaders) = cluster(&[("t", 5, 2), ("__consumer_offsets", 6, 1)]);
        let view = View { with_operations: true, ..view(&image, &leaders, 12) };
        let failures = BTreeMap::new();
        let found = view.wanted(WantedTopic::Id(Uuid(5)), &failures);
        assert_eq!((found.name.as_deref(), found.partitions.len()), (Some("t"), 2));
        assert_eq!((found.partitions[1].leader_id, found.partitions[1].leader_epoch), (1, 3));
        assert_eq!((found.is_internal, found.topic_authorized_operations), (false, 3576));
        let internal = view.wanted(WantedTopic::Name(Str::from(CONSUMER_OFFSETS)), &failures);
        assert!(internal.is_internal);
        let unknown = view.wanted(WantedTopic::Id(Uuid(7)), &failures);
        assert_eq!((unknown.error_code, unknown.name), (ErrorCode::UNKNOWN_TOPIC_ID, None));
        assert_eq!(unknown.topic_authorized_operations, i32::MIN);
    }

    #[test]
    fn topics_that_are_not_there() {
        let (image, leaders) = cluster(&[]);
        let view = view(&image, &leaders, 12);
        let failures = BTreeMap::from([
            (Str::from_static("a_b"), ErrorCode::INVALID_TOPIC_EXCEPTION),
            (Str::from_static("c"), ErrorCode::NOT_CONTROLLER),
        ]);
        let error =
            |name: &str| view.wanted(WantedTopic::Name(Str::from(name)), &failures).error_code;
        assert_eq!(error("x"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
        assert_eq!(error("a/b"), ErrorCode::INVALID_TOPIC_EXCEPTION);
        assert_eq!(error(""), ErrorCode::INVALID_TOPIC_EXCEPTION);
        assert_eq!(error("a_b"), ErrorCode::INVALID_TOPIC_EXCEPTION);
        assert_eq!(error("c"), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    }

    #[test]
    fn internal_topics_are_not_created_by_asking() {
        assert!(may_be_created("orders") && may_be_created(CONSUMER_OFFSETS));
        for name in ["__transaction_state", "__share_group_state", CLUSTER_METADATA, "a/b", ""] {
            assert!(!may_be_created(name), "{name}");
        }
    }

    #[test]
    fn old_clients_do_not_know_listener_not_found() {
        let (image, leaders) = cluster(&[("t", 5, 1)]);
        let error = |version| {
            let elsewhere = View { from: from("INSIDE"), ..view(&image, &leaders, version) };
            elsewhere.topic(image.topic("t").unwrap()).partitions[0].error_code
        };
        assert_eq!(error(5), ErrorCode::LEADER_NOT_AVAILABLE);
        assert_eq!(error(6), ErrorCode::LISTENER_NOT_FOUND);
    }
}
