//! What is wanted of nodes, and what is known of them, as settings: any node describes all of them.
//! And what can be altered of a node's other settings while it runs.

use std::collections::BTreeMap;

use vltava_protocol::messages::describe_configs::{
    DescribeConfigsResourceResult, DescribeConfigsSynonym,
};
use vltava_protocol::types::Str;

use crate::cluster::dynamic_settings::{self, RATES, TOPIC_DEFAULTS, UNCLEAN_LEADER_ELECTION};
use crate::cluster::node_settings::{ADDRESS, PREFIX, STATE, address_text, state_name};
use crate::config::describe::{DescribedSynonym, Source};
use crate::metadata::image::{Image, Node, NodeState};

/// The programs of the nodes that are there, by node.
pub type Software = BTreeMap<i32, Str>;

/// The ids of the disks of a node.
pub const DISKS: &str = "vltava.node.disks";
/// The program that a node runs; empty where it is not there.
pub const SOFTWARE: &str = "vltava.node.software";
/// Which nodes the cluster has, also those that were never there: asked of no node in particular.
pub const NODES: &str = "vltava.nodes";

/// Kafka's numbers of sources: a node's own that changes while it runs, all nodes', a default.
const DYNAMIC: i8 = 2;
const DYNAMIC_OF_ALL: i8 = 3;
const DEFAULT: i8 = 5;
/// Kafka's numbers of types.
const BOOLEAN: i8 = 1;
const INT: i8 = 3;
const STRING: i8 = 2;
const LONG: i8 = 5;
const LIST: i8 = 7;

/// Whether somebody asks for these, and for nothing else.
pub fn are_all(keys: &[Str]) -> bool {
    let is_one = |key: &Str| key.starts_with(PREFIX) || RATES.contains(&key.as_str());
    !keys.is_empty() && keys.iter().all(is_one)
}

/// What is described of a node.
pub fn of_node(
    image: &Image,
    node: &Node,
    software: &Software,
) -> Vec<DescribeConfigsResourceResult> {
    let disks: Vec<String> = node.disks.iter().map(ToString::to_string).collect();
    let address = node.peer_endpoint.as_ref().map(address_text).unwrap_or_default();
    let state = match node.state {
        NodeState::There => entry(STATE, state_name(node.state), STRING, DEFAULT, false),
        state => entry(STATE, state_name(state), STRING, DYNAMIC, false),
    };
    let program = software.get(&node.id).map(Str::as_str).unwrap_or_default();
    let described = [
        (entry(ADDRESS, &address, STRING, DYNAMIC, true), DOCS[0]),
        (entry(DISKS, &disks.join(","), LIST, DYNAMIC, true), DOCS[1]),
        (entry(SOFTWARE, program, STRING, DYNAMIC, true), DOCS[2]),
        (state, DOCS[3]),
    ];
    let described = described.into_iter().map(|(entry, doc)| documented(entry, doc));
    described.chain(rates(image, &node.id.to_string())).collect()
}

/// The throttles that were set for a node, or for all; where none was, Kafka describes none.
fn rates<'a>(
    image: &'a Image,
    resource_name: &str,
) -> impl Iterator<Item = DescribeConfigsResourceResult> + use<'a> {
    let resource_name = resource_name.to_owned();
    RATES.into_iter().zip(RATE_DOCS).filter_map(move |(name, doc)| {
        let all = || dynamic_settings::of(image, "", name).map(|rate| (rate, DYNAMIC_OF_ALL));
        let own = dynamic_settings::of(image, &resource_name, name).map(|rate| (rate, DYNAMIC));
        let (rate, source) = own.filter(|_| !resource_name.is_empty()).or_else(all)?;
        Some(documented(entry(name, rate, LONG, source, false), doc))
    })
}

/// What was altered of a node's settings that give topics their defaults, nearest first: its own,
/// then all nodes'.
pub fn topic_defaults(image: &Image, node_id: i32) -> Vec<DescribedSynonym> {
    let own = node_id.to_string();
    let places = [(own.as_str(), Source::DynamicBroker), ("", Source::DynamicDefaultBroker)];
    let given = |name| {
        places.into_iter().filter_map(move |(place, source)| {
            let value = dynamic_settings::of(image, place, name)?.to_string();
            Some(DescribedSynonym { name, value, source })
        })
    };
    TOPIC_DEFAULTS.into_iter().flat_map(given).collect()
}

/// The defaults of topics that were altered for all nodes.
fn topic_defaults_of_all(image: &Image) -> impl Iterator<Item = DescribeConfigsResourceResult> {
    TOPIC_DEFAULTS.into_iter().filter_map(|name| {
        let value = dynamic_settings::of(image, "", name)?;
        let kind = if name == UNCLEAN_LEADER_ELECTION { BOOLEAN } else { INT };
        let doc = "Default of the topic setting of the same name.";
        Some(documented(entry(name, value, kind, DYNAMIC_OF_ALL, false), doc))
    })
}

const RATE_DOCS: [&str; 2] = [
    "Bytes per second that its replicas are sent which are throttled and not in sync.",
    "Bytes per second that it sends, as leader, to replicas that are throttled and not in sync.",
];

const DOCS: [&str; 4] = [
    "Where the other nodes reach it. Set for a node that is not in the cluster, it lets it join.",
    "The ids of its disks, made when they were first used.",
    "The program that it runs; empty where it is not there.",
    "there; draining: it leads nothing that another can; removing: its replicas move away, and it \
     leaves; expected: it was added, and was never there.",
];

/// What is described of no node in particular.
pub fn of_all(image: &Image) -> Vec<DescribeConfigsResourceResult> {
    let ids: Vec<String> = image.nodes().map(|node| node.id.to_string()).collect();
    let doc = "The nodes of the cluster, also those that were added and never there.";
    let nodes = documented(entry(NODES, &ids.join(","), LIST, DYNAMIC, true), doc);
    std::iter::once(nodes).chain(topic_defaults_of_all(image)).chain(rates(image, "")).collect()
}

fn documented(
    entry: DescribeConfigsResourceResult,
    doc: &'static str,
) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult { documentation: Some(Str::from_static(doc)), ..entry }
}

fn entry(
    name: &'static str,
    value: &str,
    config_type: i8,
    config_source: i8,
    read_only: bool,
) -> DescribeConfigsResourceResult {
    let (name, value) = (Str::from_static(name), Some(Str::from(value)));
    DescribeConfigsResourceResult {
        synonyms: vec![DescribeConfigsSynonym {
            name: name.clone(),
            value: value.clone(),
            source: config_source,
        }],
        name,
        value,
        read_only,
        config_source,
        is_sensitive: false,
        config_type,
        documentation: None,
    }
}
