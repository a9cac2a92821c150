//! CreateTopics, DeleteTopics, CreatePartitions, DescribeConfigs, AlterConfigs,
//! IncrementalAlterConfigs, DescribeLogDirs.

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::alter_configs::{self, AlterConfigsRequest};
use vltava_protocol::messages::create_partitions::{
    CreatePartitionsAssignment, CreatePartitionsRequest, CreatePartitionsTopic,
};
use vltava_protocol::messages::create_topics::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig, CreateTopicsRequest,
};
use vltava_protocol::messages::delete_topics::{DeleteTopicState, DeleteTopicsRequest};
use vltava_protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource,
};
use vltava_protocol::messages::describe_log_dirs::{
    DescribableLogDirTopic, DescribeLogDirsRequest,
};
use vltava_protocol::messages::incremental_alter_configs::{self, IncrementalAlterConfigsRequest};
use vltava_protocol::types::Str;

use crate::cluster::{UNKNOWN_ID, create};
use crate::talk::Talk;

const TOPIC: i8 = 2;
const BROKER: i8 = 4;

/// Settings of topics whose defaults come from a setting of the node in another unit; and the one
/// that a Kafka with eligible leader replicas sets for all brokers.
const SHOWN_OTHERWISE: &[&str] =
    &["flush.ms", "min.insync.replicas", "retention.ms", "segment.jitter.ms", "segment.ms"];

/// Sends all of this file's.
pub fn ask(talk: &mut Talk) {
    create_topics(talk);
    delete_topics(talk);
    create_partitions(talk);
    describe_configs(talk);
    alter_configs(talk);
    incremental_alter_configs(talk);
    describe_log_dirs(talk);
}

fn config(name: &'static str, value: &'static str) -> CreatableTopicConfig {
    CreatableTopicConfig { name: Str::from_static(name), value: Some(Str::from_static(value)) }
}

/// Topics good and bad; the first four are to be made.
fn creatable(talk: &Talk, version: i16) -> Vec<CreatableTopic> {
    let topic = |name: &str, num_partitions, replication_factor| CreatableTopic {
        name: talk.str(&format!("created-{version}-{name}")),
        num_partitions,
        replication_factor,
        ..CreatableTopic::default()
    };
    let defaults = if version >= 4 { -1 } else { 1 };
    let assigned = |brokers: &[i32]| {
        vec![CreatableReplicaAssignment { partition_index: 0, broker_ids: brokers.to_vec() }]
    };
    vec![
        topic("plain", 2, 1),
        topic("defaults", defaults.into(), defaults),
        CreatableTopic {
            configs: vec![config("retention.ms", "1000"), config("segment.bytes", "2097152")],
            ..topic("configured", 1, 1)
        },
        CreatableTopic { assignments: assigned(&[1]), ..topic("assigned", -1, -1) },
        CreatableTopic { assignments: assigned(&[7]), ..topic("elsewhere", -1, -1) },
        CreatableTopic { assignments: assigned(&[1]), ..topic("both", 1, 1) },
        CreatableTopic { name: talk.str("seen"), ..topic("", 1, 1) },
        CreatableTopic { name: Str::from_static("a/b"), ..topic("", 1, 1) },
        topic("no-partitions", 0, 1),
        topic("no-replicas", 1, 0),
        topic("replicated", 1, 2),
        CreatableTopic {
            configs: vec![config("no.such", "1000")],
            ..topic("unknown-config", 1, 1)
        },
        CreatableTopic {
            configs: vec![config("retention.ms", "long")],
            ..topic("bad-config", 1, 1)
        },
        topic("twice", 1, 1),
        topic("twice", 1, 1),
    ]
}

fn create_topics(talk: &mut Talk) {
    for version in talk.versions::<CreateTopicsRequest>() {
        let topics = creatable(talk, version);
        for validate_only in [true, false] {
            let request = CreateTopicsRequest {
                topics: topics.clone(),
                validate_only,
                ..CreateTopicsRequest::default()
            };
            let mut answer = talk.ask(version, &request);
            assert_eq!(answer.throttle_time_ms, 0);
            answer.topics.sort_by_key(|topic| topic.name.clone());
            for topic in &mut answer.topics {
                assert_eq!(topic.topic_id.is_zero(), version < 7 || topic.num_partitions < 0);
                topic.topic_id = UNKNOWN_ID;
                // Which settings there are is compared by DescribeConfigs.
                let configs = topic.configs.take().unwrap_or_default();
                assert_eq!(configs.is_empty(), version < 5 || topic.num_partitions < 0);
            }
            let good = answer.topics.iter().filter(|topic| topic.error_code.is_none());
            assert_eq!(good.count(), 4, "{answer:#?}");
            talk.note(&format!("validate only: {validate_only}"), version, &answer);
        }
    }
}

fn delete_topics(talk: &mut Talk) {
    for version in talk.versions::<DeleteTopicsRequest>() {
        let [first, second] = ["gone", "gone-too"].map(|name| format!("{name}-{version}"));
        create(talk, &first, 1);
        let id = create(talk, &second, 1);
        talk.mask(id, "id of gone-too");
        let (missing, bad) = (talk.str("missing"), Str::from_static("a/b"));
        let mut request =
            DeleteTopicsRequest { timeout_ms: 30_000, ..DeleteTopicsRequest::default() };
        if version >= 6 {
            let named = |name| DeleteTopicState { name: Some(name), ..DeleteTopicState::default() };
            let by_id = |topic_id| DeleteTopicState { topic_id, name: None };
            let names = [talk.str(&first), missing, bad].map(named);
            request.topics = names.into_iter().chain([id, UNKNOWN_ID].map(by_id)).collect();
        } else {
            request.topic_names = vec![talk.str(&first), talk.str(&second), missing, bad];
        }
        let mut answer = talk.ask(version, &request);
        answer.responses.sort_by_key(|topic| (topic.name.clone(), topic.topic_id));
        let good = answer.responses.iter().filter(|topic| topic.error_code.is_none());
        assert_eq!(good.count(), 2, "{answer:#?}");
        for topic in &mut answer.responses {
            if topic.name == Some(talk.str(&first)) {
                assert_eq!(topic.topic_id.is_zero(), version < 6);
                topic.topic_id = UNKNOWN_ID;
            }
        }
        talk.note("two of them exist", version, &answer);
    }
}

fn create_partitions(talk: &mut Talk) {
    for version in talk.versions::<CreatePartitionsRequest>() {
        let name = format!("grows-{version}");
        create(talk, &name, 2);
        let assignment = |broker| CreatePartitionsAssignment { broker_ids: vec![broker] };
        let cases = [
            ("more", name.as_str(), 3, None),
            ("as many", &name, 3, None),
            ("fewer", &name, 1, None),
            ("a missing topic", "missing", 3, None),
            ("assigned", &name, 4, Some(vec![assignment(1)])),
            ("assigned elsewhere", &name, 5, Some(vec![assignment(7)])),
            ("assigned too many", &name, 5, Some(vec![assignment(1), assignment(1)])),
        ];
        for (what, name, count, assignments) in cases {
            for validate_only in [true, false] {
                let topic = CreatePartitionsTopic {
                    name: talk.str(name),
                    count,
                    assignments: assignments.clone(),
                };
                let request = CreatePartitionsRequest {
                    topics: vec![topic],
                    timeout_ms: 30_000,
                    validate_only,
                };
                let what = format!("{what}, validate only: {validate_only}");
                let answer = talk.exchange(&what, version, &request);
                assert_eq!(answer.results.len(), 1);
                let is_good =
                    ["more", "assigned"].iter().any(|good| what.starts_with(&format!("{good},")));
                assert_eq!(answer.results[0].error_code.is_none(), is_good, "{what}");
            }
        }
    }
}

fn resource(
    resource_type: i8,
    name: Str,
    keys: Option<&[&'static str]>,
) -> DescribeConfigsResource {
    let keys = keys.map(|keys| keys.iter().copied().map(Str::from_static).collect());
    DescribeConfigsResource { resource_type, resource_name: name, configuration_keys: keys }
}

fn describe_configs(talk: &mut Talk) {
    let configured = talk.str("created-7-configured");
    let node = Str::from_static("1");
    let some: &[&str] = &["retention.ms", "segment.bytes", "cleanup.policy", "no.such"];
    let of_node: &[&str] = &["node.id", "num.io.threads", "log.retention.ms", "log.dirs"];
    let cases = [
        ("a topic", resource(TOPIC, configured.clone(), Some(some))),
        ("all of a topic", resource(TOPIC, configured, None)),
        ("a missing topic", resource(TOPIC, talk.str("missing"), None)),
        ("a bad topic", resource(TOPIC, Str::from_static("a/b"), None)),
        ("a broker", resource(BROKER, node, Some(of_node))),
        ("all brokers", resource(BROKER, Str::EMPTY, Some(of_node))),
        ("another broker", resource(BROKER, Str::from_static("7"), None)),
        ("no broker", resource(BROKER, Str::from_static("seven"), None)),
        ("a resource of no type", resource(3, Str::from_static("x"), None)),
    ];
    for version in talk.versions::<DescribeConfigsRequest>() {
        for (what, resource) in &cases {
            for include_synonyms in [false, true] {
                let request = DescribeConfigsRequest {
                    resources: vec![resource.clone()],
                    include_synonyms,
                    include_documentation: version >= 3,
                };
                let mut answer = talk.ask(version, &request);
                for result in &mut answer.results {
                    result.configs.sort_by_key(|config| config.name.clone());
                    for config in &mut result.configs {
                        assert!(include_synonyms || config.synonyms.is_empty());
                        assert_eq!(config.documentation.is_some(), version >= 3);
                        // In our own words.
                        config.documentation = None;
                        if SHOWN_OTHERWISE.contains(&config.name.as_str()) {
                            config.synonyms.clear();
                            config.config_source = 0;
                        }
                    }
                    if result.resource_type == BROKER && result.resource_name == "1" {
                        // Its own address, directories and defaults.
                        assert!(!result.configs.is_empty());
                        result.configs.clear();
                    }
                }
                let what = format!("{what}, synonyms: {include_synonyms}");
                talk.note(&what, version, &answer);
            }
        }
    }
}

fn alter_configs(talk: &mut Talk) {
    create(talk, "altered", 1);
    let cases: [(&str, i8, Str, &'static str, Option<&'static str>); 7] = [
        ("set", TOPIC, talk.str("altered"), "retention.ms", Some("77")),
        ("set badly", TOPIC, talk.str("altered"), "retention.ms", Some("long")),
        ("set what is not", TOPIC, talk.str("altered"), "no.such", Some("1")),
        ("null", TOPIC, talk.str("altered"), "retention.ms", None),
        ("a missing topic", TOPIC, talk.str("missing"), "retention.ms", Some("77")),
        ("a resource of no type", 3, talk.str("altered"), "retention.ms", Some("77")),
        ("set another", TOPIC, talk.str("altered"), "segment.ms", Some("7777")),
    ];
    for version in talk.versions::<AlterConfigsRequest>() {
        for (what, resource_type, resource_name, name, value) in &cases {
            let config = alter_configs::AlterableConfig {
                name: Str::from_static(name),
                value: value.map(Str::from_static),
            };
            let resource = alter_configs::AlterConfigsResource {
                resource_type: *resource_type,
                resource_name: resource_name.clone(),
                configs: vec![config],
            };
            let request = AlterConfigsRequest { resources: vec![resource], validate_only: false };
            let answer = talk.exchange(what, version, &request);
            let is_sound = ["set", "set another"].contains(what);
            assert_eq!(answer.responses[0].error_code.is_none(), is_sound);
        }
        let left = described(talk, &["retention.ms", "segment.ms"]);
        assert_eq!(left, ["604800000", "7777"], "what is not given is the default again");
    }
}

/// Values of these settings of the topic that is altered.
fn described(talk: &mut Talk, keys: &'static [&'static str]) -> Vec<String> {
    let request = DescribeConfigsRequest {
        resources: vec![resource(TOPIC, talk.str("altered"), Some(keys))],
        ..DescribeConfigsRequest::default()
    };
    let mut answer = talk.ask(4, &request);
    answer.results[0].configs.sort_by_key(|config| config.name.clone());
    talk.note("what was altered", 4, &answer);
    let values = answer.results[0].configs.iter().map(|config| config.value.clone());
    values.map(|value| value.unwrap_or_default().to_string()).collect()
}

/// Of which resource: its type and name; setting, operation and value.
type Alteration = (i8, Str, &'static str, i8, Option<&'static str>);

fn incremental_alter_configs(talk: &mut Talk) {
    let topic = talk.str("altered");
    let cases: [(&str, Alteration); 9] = [
        ("set", (TOPIC, topic.clone(), "retention.ms", 0, Some("78"))),
        ("set badly", (TOPIC, topic.clone(), "retention.ms", 0, Some("long"))),
        ("set to null", (TOPIC, topic.clone(), "retention.ms", 0, None)),
        ("delete", (TOPIC, topic.clone(), "retention.ms", 1, None)),
        ("delete again", (TOPIC, topic.clone(), "retention.ms", 1, None)),
        ("append", (TOPIC, topic.clone(), "cleanup.policy", 2, Some("compact"))),
        ("subtract", (TOPIC, topic.clone(), "cleanup.policy", 3, Some("compact"))),
        ("append to what is no list", (TOPIC, topic.clone(), "retention.ms", 2, Some("1"))),
        ("a missing topic", (TOPIC, talk.str("missing"), "retention.ms", 0, Some("77"))),
    ];
    for version in talk.versions::<IncrementalAlterConfigsRequest>() {
        for (what, (resource_type, resource_name, name, config_operation, value)) in &cases {
            let config = incremental_alter_configs::AlterableConfig {
                name: Str::from_static(name),
                config_operation: *config_operation,
                value: value.map(Str::from_static),
            };
            let resource = incremental_alter_configs::AlterConfigsResource {
                resource_type: *resource_type,
                resource_name: resource_name.clone(),
                configs: vec![config],
            };
            for validate_only in [true, false] {
                let request = IncrementalAlterConfigsRequest {
                    resources: vec![resource.clone()],
                    validate_only,
                };
                let what = format!("{what}, validate only: {validate_only}");
                talk.exchange(&what, version, &request);
            }
        }
        let left = described(talk, &["retention.ms", "cleanup.policy"]);
        assert_eq!(left, ["delete", "604800000"], "each case was undone by another");
    }
}

fn describe_log_dirs(talk: &mut Talk) {
    let own = talk.name("");
    let topic = |name: &str, partitions: &[i32]| DescribableLogDirTopic {
        topic: talk.str(name),
        partitions: partitions.to_vec(),
    };
    let some = Some(vec![topic("seen", &[0, 9]), topic("missing", &[0])]);
    for version in talk.versions::<DescribeLogDirsRequest>() {
        for (what, topics) in [("some", some.clone()), ("all", None)] {
            let mut answer = talk.ask(version, &DescribeLogDirsRequest { topics });
            assert_eq!(answer.results.len(), 1);
            for result in &mut answer.results {
                assert_eq!(result.error_code, ErrorCode::NONE);
                assert_eq!(result.total_bytes > 0, version >= 4);
                assert_eq!(result.usable_bytes > 0, version >= 4);
                result.log_dir = Str::EMPTY;
                (result.total_bytes, result.usable_bytes) = (0, 0);
                result.topics.retain(|topic| topic.name.starts_with(&own));
                result.topics.sort_by_key(|topic| topic.name.clone());
                for topic in &mut result.topics {
                    topic.partitions.sort_by_key(|partition| partition.partition_index);
                }
                assert!(!result.topics.is_empty());
            }
            talk.note(what, version, &answer);
        }
    }
}
