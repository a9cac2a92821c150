//! DescribeConfigs (key 32): settings of topics, nodes and groups (KIP-133).
//!
//! Versions: 1 sources and synonyms (KIP-226), 3 types and documentation (KIP-569), 4 flexible.
//!
//! Ours: most of a node's settings are read-only, since they are read at start, but not what is
//! wanted of it (`vltava.node.*`) and its throttles, which any node describes, of all; a topic's
//! default that comes from `log.retention.hours` and the like is shown with its source (Kafka shows
//! it as a default). Log levels are not described.

use std::collections::BTreeSet;

use vltava_protocol::api::ApiKey;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResourceResult,
    DescribeConfigsResponse, DescribeConfigsResult, DescribeConfigsSynonym,
};
use vltava_protocol::types::Str;

use super::context::Context;
use super::node_settings::Software;
use super::{Reply, node_settings};
use crate::cluster::alter_settings::{
    CLIENT_METRICS_RESOURCE, GROUP_RESOURCE, NODE_LOGGER_RESOURCE, NODE_RESOURCE,
};
use crate::cluster::dynamic_settings::TOPIC_DEFAULTS;
use crate::config::describe::{self, Described, Dynamic};
use crate::config::values::BrokerConfig;
use crate::metadata::image::Image;
use crate::metadata::records::TOPIC_RESOURCE;
use crate::metadata::topic_name;
use crate::runtime::Runtime;

/// The API of this file.
pub const API: ApiKey = ApiKey::DESCRIBE_CONFIGS;

/// Describes each resource for itself.
pub async fn handle<R: Runtime>(
    context: Context<R>,
    request: DescribeConfigsRequest,
) -> Reply<DescribeConfigsResponse> {
    let node = &context.services.node;
    let (image, software) = (node.image(), node.software());
    let view = View { config: &context.services.config, image: &image, software: &software };
    let mut response = DescribeConfigsResponse::default();
    let mut seen = BTreeSet::new();
    for resource in &request.resources {
        // Once each, as in Kafka: an answer is a hundred times as large as its question.
        if !seen.insert((resource.resource_type, &resource.resource_name)) {
            continue;
        }
        response.results.push(view.describe(&request, resource));
        context.services.runtime.yield_if_needed().await;
    }
    Reply::Now(response)
}

/// Why a resource is not described.
type Failure = (ErrorCode, String);

/// What is described.
struct View<'a> {
    config: &'a BrokerConfig,
    image: &'a Image,
    software: &'a Software,
}

impl View<'_> {
    fn describe(
        &self,
        request: &DescribeConfigsRequest,
        resource: &DescribeConfigsResource,
    ) -> DescribeConfigsResult {
        let DescribeConfigsResource { resource_type, resource_name, .. } = resource;
        let keys = resource.configuration_keys.as_deref().unwrap_or_default();
        let wanted = self.wanted_of_nodes(*resource_type, resource_name);
        let described = match &wanted {
            Some(_) if node_settings::are_all(keys) => Ok(Vec::new()),
            _ => settings(self.config, self.image, *resource_type, resource_name),
        };
        let (error_code, message, described) = match described {
            Ok(described) => (ErrorCode::NONE, String::new(), described),
            Err((error, message)) => (error, message, Vec::new()),
        };
        let is_asked = |name: &str| keys.is_empty() || keys.iter().any(|key| *key == name);
        let entries = described.into_iter().filter(|entry| is_asked(entry.name));
        let entries = entries.map(|described| entry(described, request));
        let wanted = wanted.filter(|_| error_code.is_none()).unwrap_or_default();
        let wanted = wanted.into_iter().filter(|entry| is_asked(&entry.name));
        let wanted = wanted.map(|mut entry| {
            if !request.include_synonyms {
                entry.synonyms.clear();
            }
            entry.documentation = entry.documentation.filter(|_| request.include_documentation);
            entry
        });
        DescribeConfigsResult {
            error_code,
            error_message: Some(Str::from(message)),
            resource_type: *resource_type,
            resource_name: resource_name.clone(),
            configs: entries.chain(wanted).collect(),
        }
    }

    /// What any node says of a node, or of all.
    fn wanted_of_nodes(
        &self,
        resource_type: i8,
        name: &str,
    ) -> Option<Vec<DescribeConfigsResourceResult>> {
        match resource_type {
            NODE_RESOURCE if name.is_empty() => Some(node_settings::of_all(self.image)),
            NODE_RESOURCE => {
                let node = self.image.node(name.parse().ok()?)?;
                Some(node_settings::of_node(self.image, node, self.software))
            }
            _ => None,
        }
    }
}

fn settings(
    config: &BrokerConfig,
    image: &Image,
    resource_type: i8,
    name: &Str,
) -> Result<Vec<Described>, Failure> {
    let invalid = |message: String| (ErrorCode::INVALID_REQUEST, message);
    let altered = node_settings::topic_defaults(image, config.node_id);
    let dynamic = Dynamic { names: &TOPIC_DEFAULTS, given: &altered };
    match resource_type {
        TOPIC_RESOURCE => {
            let invalid_name = |message| (ErrorCode::INVALID_TOPIC_EXCEPTION, message);
            topic_name::validate(name).map_err(invalid_name)?;
            let unknown = (ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, String::new());
            let topic = image.topic(name).ok_or(unknown)?;
            Ok(describe::topic(config, dynamic, topic.own_settings()))
        }
        NODE_RESOURCE => {
            // Without a name: what all nodes were given while they run, which any node describes.
            if name.is_empty() {
                return Ok(Vec::new());
            }
            let own = config.node_id;
            match name.parse::<i32>() {
                Ok(id) if id == own => Ok(describe::node(config, dynamic)),
                Ok(_) => Err(invalid(format!(
                    "Unexpected broker id, expected {own} or empty string, but received {name}"
                ))),
                Err(_) => Err(invalid(format!("Broker id must be an integer, but it is: {name}"))),
            }
        }
        GROUP_RESOURCE if name.is_empty() => Err(invalid(
            "Group name must not be \
            empty"
                .to_string(),
        )),
        GROUP_RESOURCE => Ok(describe::group()),
        CLIENT_METRICS_RESOURCE if name.is_empty() => {
            Err(invalid("Client metrics subscription name must not be empty".to_string()))
        }
        CLIENT_METRICS_RESOURCE => Ok(Vec::new()),
        NODE_LOGGER_RESOURCE => Err(invalid("Log levels are not described.".to_string())),
        other => Err(invalid(format!("Unexpected resource type {other} for resource {name}"))),
    }
}

fn entry(described: Described, request: &DescribeConfigsRequest) -> DescribeConfigsResourceResult {
    let synonyms = match request.include_synonyms {
        true => described.synonyms,
        false => Vec::new(),
    };
    let synonyms = synonyms.into_iter().map(|synonym| DescribeConfigsSynonym {
        name: Str::from_static(synonym.name),
        value: Some(Str::from(synonym.value)),
        source: synonym.source.code(),
    });
    let documentation = Str::from_static(described.documentation);
    DescribeConfigsResourceResult {
        name: Str::from_static(described.name),
        value: described.value.map(Str::from),
        read_only: described.is_read_only,
        config_source: described.source.code(),
        is_sensitive: false,
        synonyms: synonyms.collect(),
        config_type: described.kind.describe_code(),
        documentation: request.include_documentation.then_some(documentation),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::config::values;
    use crate::handlers::topology::tests::cluster;
    use crate::metadata::records::Record;

    fn ask(
        resource_type: i8,
        name: &str,
        keys: Option<&[&str]>,
        request: &DescribeConfigsRequest,
    ) -> DescribeConfigsResult {
        let config = values::load(&[]).unwrap().config;
        let (mut image, _) = cluster(&[("t", 5, 1)]);
        let own = [(Str::from_static("segment.ms"), Str::from_static("5000"))];
        let own = Arc::new(own.into_iter().collect());
        image.apply(Record::Settings((TOPIC_RESOURCE, Str::from_static("t")), own)).unwrap();
        let resource = DescribeConfigsResource {
            resource_type,
            resource_name: Str::from(name),
            configuration_keys: keys.map(|keys| keys.iter().map(|key| Str::from(*key)).collect()),
        };
        let software = Software::from([(1, Str::from_static("vltava 9"))]);
        View { config: &config, image: &image, software: &software }.describe(request, &resource)
    }

    fn plain() -> DescribeConfigsRequest {
        DescribeConfigsRequest::default()
    }

    #[test]
    fn a_topics_settings_with_their_sources() {
        let keys: &[&str] = &["segment.ms", "retention.ms", "unknown"];
        let with = DescribeConfigsRequest { include_synonyms: true, ..plain() };
        let found = ask(2, "t", Some(keys), &with);
        assert_eq!((found.error_code, found.error_message), (ErrorCode::NONE, Some(Str::EMPTY)));
        let [retention, segment] = <[_; 2]>::try_from(found.configs).unwrap();
        assert_eq!((segment.value.as_deref(), segment.config_source), (Some("5000"), 1));
        assert_eq!((retention.value.as_deref(), retention.config_source), (Some("604800000"), 5));
        assert_eq!(
            (segment.config_type, segment.read_only, segment.is_sensitive),
            (5, false, false)
        );
        let names: Vec<&str> = segment.synonyms.iter().map(|s| s.name.as_str()).collect();
        assert_eq!(names, ["segment.ms", "log.roll.hours"]);
        assert_eq!(segment.documentation, None);
    }

    #[test]
    fn no_keys_are_all_keys() {
        assert_eq!(ask(2, "t", None, &plain()).configs.len(), 37);
        assert_eq!(ask(2, "t", Some(&[]), &plain()).configs.len(), 37);
        let with = DescribeConfigsRequest { include_documentation: true, ..plain() };
        let found = ask(4, "1", None, &with).configs;
        assert!(found.iter().all(|entry| entry.documentation.is_some()));
        let altered = found.iter().filter(|entry| !entry.read_only);
        assert_eq!(
            altered.map(|entry| entry.name.as_str()).collect::<Vec<_>>(),
            ["min.insync.replicas", "unclean.leader.election.enable", node_state()]
        );
        assert!(found.iter().all(|entry| entry.synonyms.is_empty()));
        assert!(!ask(32, "g", None, &plain()).configs.is_empty());
    }

    fn node_state() -> &'static str {
        crate::cluster::node_settings::STATE
    }

    #[test]
    fn what_is_wanted_of_a_node_is_described_by_any() {
        let keys: &[&str] = &[node_state(), node_settings::SOFTWARE];
        let found = ask(4, "1", Some(keys), &plain());
        let value = |name: &str| {
            let found = found.configs.iter().find(|entry| entry.name == name);
            found.and_then(|entry| entry.value.as_deref())
        };
        assert_eq!(found.configs.len(), 2);
        assert_eq!(value(node_settings::SOFTWARE), Some("vltava 9"));
        assert_eq!(value(node_state()), Some("there"));
        let all = ask(4, "", Some(&[node_settings::NODES]), &plain());
        assert_eq!(all.configs[0].value.as_deref(), Some("1"));
        assert_eq!(ask(4, "7", Some(keys), &plain()).error_code, ErrorCode::INVALID_REQUEST);
    }

    #[test]
    fn what_is_altered_while_a_node_runs_goes_before_what_it_was_started_with() {
        let config = values::load(&[]).unwrap().config;
        let (mut image, _) = cluster(&[("t", 5, 1)]);
        let name = "unclean.leader.election.enable";
        for (place, value) in [("", "true"), ("1", "false")] {
            let given = Arc::new([(Str::from_static(name), Str::from_static(value))].into());
            let resource = (NODE_RESOURCE, Str::from_static(place));
            image.apply(Record::Settings(resource, given)).unwrap();
        }
        let view = View { config: &config, image: &image, software: &Software::new() };
        let with = DescribeConfigsRequest { include_synonyms: true, ..plain() };
        for (kind, resource_name, expected) in [
            (2, "t", vec![("false", 2), ("true", 3), ("false", 5)]),
            (4, "1", vec![("false", 2), ("true", 3), ("false", 5)]),
            (4, "", vec![("true", 3)]),
        ] {
            let resource = DescribeConfigsResource {
                resource_type: kind,
                resource_name: Str::from_static(resource_name),
                configuration_keys: Some(vec![Str::from_static(name)]),
            };
            let [entry] = <[_; 1]>::try_from(view.describe(&with, &resource).configs).unwrap();
            let synonyms = entry.synonyms.iter();
            let synonyms = synonyms.map(|it| (it.value.as_deref().unwrap(), it.source));
            assert_eq!(synonyms.collect::<Vec<_>>(), expected, "{kind} {resource_name}");
            assert_eq!(entry.value.as_deref(), Some(expected[0].0));
            assert_eq!((entry.config_source, entry.read_only), (expected[0].1, false));
        }
    }

    #[test]
    fn resources_that_are_not_described() {
        for (kind, name, error, message) in [
            (2, "none", ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ""),
            (2, "", ErrorCode::INVALID_TOPIC_EXCEPTION, "the empty string is not allowed"),
            (4, "7", ErrorCode::INVALID_REQUEST, "expected 1 or empty string, but received 7"),
            (4, "x", ErrorCode::INVALID_REQUEST, "Broker id must be an integer, but it is: x"),
            (32, "", ErrorCode::INVALID_REQUEST, "Group name must not be empty"),
            (16, "", ErrorCode::INVALID_REQUEST, "subscription name must not be empty"),
            (8, "1", ErrorCode::INVALID_REQUEST, "Log levels are not described."),
            (99, "x", ErrorCode::INVALID_REQUEST, "Unexpected resource type 99 for resource x"),
        ] {
            let found = ask(kind, name, None, &plain());
            assert_eq!(found.error_code, error, "{kind} {name}");
            assert!(found.error_message.unwrap().contains(message), "{kind} {name}");
            assert!(found.configs.is_empty());
        }
        assert_eq!(ask(4, "", None, &plain()).error_code, ErrorCode::NONE);
    }
}
