//! ApiVersions, Metadata, DescribeCluster, UpdateFeatures, FindCoordinator,
//! DescribeTopicPartitions.

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::api_versions::ApiVersionsRequest;
use vltava_protocol::messages::create_topics::{CreatableTopic, CreateTopicsRequest};
use vltava_protocol::messages::describe_cluster::DescribeClusterRequest;
use vltava_protocol::messages::describe_topic_partitions::{
    Cursor, DescribeTopicPartitionsRequest, TopicRequest,
};
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse,
};
use vltava_protocol::messages::update_features::{FeatureUpdateKey, UpdateFeaturesRequest};
use vltava_protocol::types::{Str, Uuid};

use crate::talk::Talk;

/// No topic's id.
pub const UNKNOWN_ID: Uuid = Uuid(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);

/// Makes a topic of one replica, and returns its id.
pub fn create(talk: &mut Talk, name: &str, partitions: i32) -> Uuid {
    let topic = CreatableTopic {
        name: talk.str(name),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], ..CreateTopicsRequest::default() };
    let answer = talk.ask(7, &request);
    assert_eq!(answer.topics[0].error_code, ErrorCode::NONE);
    let partition =
        |partition_index| ListOffsetsPartition { partition_index, ..Default::default() };
    let topic = ListOffsetsTopic {
        name: talk.str(name),
        partitions: (0..partitions).map(partition).collect(),
    };
    let request = ListOffsetsRequest { topics: vec![topic], ..Default::default() };
    // A Kafka creates its replicas a little later.
    while talk.ask(7, &request).topics[0].partitions.iter().any(|one| !one.error_code.is_none()) {}
    answer.topics[0].topic_id
}

/// Sends all of this file's.
pub fn ask(talk: &mut Talk) {
    api_versions(talk);
    let id = create(talk, "seen", 2);
    talk.mask(id, "id of seen");
    metadata(talk, id);
    describe_cluster(talk);
    update_features(talk);
    find_coordinator(talk);
    describe_topic_partitions(talk);
}

fn api_versions(talk: &mut Talk) {
    for version in talk.versions::<ApiVersionsRequest>() {
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("vltava-test"),
            client_software_version: Str::from_static("1.0"),
            ..ApiVersionsRequest::default()
        };
        let mut answer = talk.ask(version, &request);
        assert_eq!(answer.error_code, ErrorCode::NONE);
        assert_eq!(answer.throttle_time_ms, 0);
        for row in &answer.api_keys {
            let api = ApiKey(row.api_key).api().expect("an API of the table");
            let is_produce = api.key == ApiKey::PRODUCE;
            assert_eq!(row.min_version, if is_produce { 0 } else { api.min_version });
            assert_eq!(row.max_version, api.max_version);
        }
        // What is served, and features: of each broker its own.
        answer.api_keys.clear();
        answer.supported_features.clear();
        answer.finalized_features.clear();
        answer.finalized_features_epoch = 0;
        talk.note("named", version, &answer);
        let unnamed = talk.ask(version, &ApiVersionsRequest::default());
        let expected = if version < 3 { ErrorCode::NONE } else { ErrorCode::INVALID_REQUEST };
        assert_eq!(unnamed.error_code, expected);
    }
}

/// Only topics of this run, in their order; the cluster's id and the epoch of leaders are each
/// broker's own.
fn note_metadata(talk: &mut Talk, what: &str, version: i16, mut answer: MetadataResponse) {
    let own = talk.name("");
    answer.topics.retain(|topic| topic.name.as_ref().is_none_or(|name| name.starts_with(&own)));
    answer.topics.sort_by_key(|topic| topic.name.clone());
    if answer.cluster_id.is_some() {
        answer.cluster_id = Some(Str::from_static("the cluster"));
    }
    talk.note(what, version, &answer);
}

fn metadata(talk: &mut Talk, id: Uuid) {
    let by_name =
        |name: Str| MetadataRequestTopic { name: Some(name), ..MetadataRequestTopic::default() };
    for version in talk.versions::<MetadataRequest>() {
        // Before version 4, a topic that does not exist is created.
        let missing = if version < 4 { Str::from_static("a/b") } else { talk.str("missing") };
        let request = MetadataRequest {
            topics: Some(vec![by_name(talk.str("seen")), by_name(missing)]),
            allow_auto_topic_creation: version < 4,
            include_cluster_authorized_operations: (8..=10).contains(&version),
            include_topic_authorized_operations: version >= 8,
        };
        let answer = talk.ask(version, &request);
        assert_eq!(answer.brokers.len(), 1);
        assert_eq!(answer.brokers[0].node_id, 1);
        let topic = answer.topics.iter().find(|topic| topic.error_code.is_none()).unwrap();
        assert_eq!(topic.partitions.len(), 2);
        assert!(topic.partitions.iter().all(|partition| partition.leader_id == 1));
        assert!(version < 10 || topic.topic_id == id);
        note_metadata(talk, "two topics", version, answer);
        let all = MetadataRequest {
            topics: if version == 0 { Some(Vec::new()) } else { None },
            ..MetadataRequest::default()
        };
        let answer = talk.ask(version, &all);
        assert!(answer.topics.iter().any(|topic| topic.name == Some(talk.str("seen"))));
        note_metadata(talk, "all topics", version, answer);
        if version >= 1 {
            let none = MetadataRequest { topics: Some(Vec::new()), ..MetadataRequest::default() };
            let answer = talk.ask(version, &none);
            assert!(answer.topics.is_empty());
            note_metadata(talk, "no topics", version, answer);
        }
        if version >= 12 {
            let by_id = |topic_id| MetadataRequestTopic { topic_id, name: None };
            let topics = Some(vec![by_id(id), by_id(UNKNOWN_ID)]);
            let answer = talk.ask(version, &MetadataRequest { topics, ..all });
            assert!(
                answer.topics.iter().any(|topic| topic.error_code == ErrorCode::UNKNOWN_TOPIC_ID)
            );
            note_metadata(talk, "by id", version, answer);
        }
    }
}

/// Each broker has features of its own; none takes one that nobody has.
fn update_features(talk: &mut Talk) {
    for version in talk.versions::<UpdateFeaturesRequest>() {
        let update = |feature, level| {
            let (feature, max_version_level) = (Str::from_static(feature), level);
            FeatureUpdateKey { feature, max_version_level, ..FeatureUpdateKey::default() }
        };
        let request = |updates: &[(&'static str, i16)]| UpdateFeaturesRequest {
            feature_updates: updates.iter().map(|(name, level)| update(name, *level)).collect(),
            validate_only: version >= 1,
            ..UpdateFeaturesRequest::default()
        };
        let unknown = talk.ask(version, &request(&[("nobody.has.this", 1)]));
        assert_eq!(unknown.error_code, ErrorCode::INVALID_UPDATE_VERSION);
        assert!(unknown.results.is_empty());
        let nothing = talk.ask(version, &request(&[]));
        assert_eq!(nothing.error_code, ErrorCode::NONE);
        talk.note("no updates", version, &nothing);
    }
}

fn describe_cluster(talk: &mut Talk) {
    for version in talk.versions::<DescribeClusterRequest>() {
        for endpoint_type in if version == 0 { 1..=1 } else { 1..=3 } {
            let request = DescribeClusterRequest {
                include_cluster_authorized_operations: true,
                endpoint_type,
                include_fenced_brokers: version >= 2,
            };
            let mut answer = talk.ask(version, &request);
            assert_eq!(answer.error_code.is_none(), endpoint_type == 1);
            if !answer.cluster_id.is_empty() {
                answer.cluster_id = Str::from_static("the cluster");
            }
            talk.note(&format!("endpoints of type {endpoint_type}"), version, &answer);
        }
    }
}

fn find_coordinator(talk: &mut Talk) {
    let group = talk.str("group");
    for version in talk.versions::<FindCoordinatorRequest>() {
        for (kind, key_type) in [("a group", 0), ("a share partition", 2), ("what is not", 9)] {
            if version < 1 && key_type > 0 {
                continue;
            }
            let request = if version < 4 {
                FindCoordinatorRequest {
                    key: group.clone(),
                    key_type,
                    ..FindCoordinatorRequest::default()
                }
            } else {
                let coordinator_keys = vec![group.clone(), talk.str("other")];
                FindCoordinatorRequest {
                    key_type,
                    coordinator_keys,
                    ..FindCoordinatorRequest::default()
                }
            };
            // The topic of offsets may have to be made first.
            let answer = loop {
                let answer = talk.ask(version, &request);
                let first = answer.coordinators.first();
                let error = first.map_or(answer.error_code, |first| first.error_code);
                if error != ErrorCode::COORDINATOR_NOT_AVAILABLE {
                    assert_eq!(error.is_none(), key_type == 0, "{kind}: {answer:?}");
                    break answer;
                }
            };
            talk.note(&format!("coordinator of {kind}"), version, &answer);
        }
    }
}

fn describe_topic_partitions(talk: &mut Talk) {
    let topics = vec![
        TopicRequest { name: talk.str("seen") },
        TopicRequest { name: talk.str("missing") },
        TopicRequest { name: Str::from_static("a/b") },
    ];
    let request =
        DescribeTopicPartitionsRequest { topics, response_partition_limit: 1, cursor: None };
    for version in talk.versions::<DescribeTopicPartitionsRequest>() {
        let first = talk.exchange("a first page", version, &request);
        assert!(first.next_cursor.is_some());
        let cursor = Cursor { topic_name: talk.str("seen"), partition_index: 1 };
        let request = DescribeTopicPartitionsRequest {
            response_partition_limit: 10,
            cursor: Some(cursor),
            ..request.clone()
        };
        let last = talk.exchange("a last page", version, &request);
        assert!(last.next_cursor.is_none());
    }
}
