//! Settings of a node that change while it runs, its own or, without a number, those of all nodes
//! that have none of their own: the rates of the replication throttles, and two defaults of topics.

use std::collections::BTreeMap;
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

use super::alter_settings::{APPEND, Change, DELETE, NODE_RESOURCE, SET};
use super::refusal::Refusal;
use crate::metadata::image::{Image, Settings};
use crate::metadata::records::Record;

/// Bytes per second that a node sends to throttled replicas, as their leader.
pub const LEADER_RATE: &str = "leader.replication.throttled.rate";
/// Bytes per second that its own throttled replicas are sent.
pub const FOLLOWER_RATE: &str = "follower.replication.throttled.rate";
/// Both.
pub const RATES: [&str; 2] = [FOLLOWER_RATE, LEADER_RATE];

/// On how many replicas a record must be flushed. Of all nodes only, as in Kafka: what a record has
/// been promised would change with its leader.
pub const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
/// Whether one that lacks acknowledged records may lead. A node's own counts where it leads group
/// 0, which decides that: as in Kafka.
pub const UNCLEAN_LEADER_ELECTION: &str = "unclean.leader.election.enable";
/// Defaults of topics; they go before those that nodes were started with.
pub const TOPIC_DEFAULTS: [&str; 2] = [MIN_INSYNC_REPLICAS, UNCLEAN_LEADER_ELECTION];

/// Kafka's third throttle: nothing moves between the directories of a node, so there is none to be
/// set. `kafka-reassign-partitions` takes it back when it is done, whether it had set it or not.
const DIRECTORIES_RATE: &str = "replica.alter.log.dirs.io.max.bytes.per.second";

/// Whose settings stand behind those of each node.
const ALL_NODES: &str = "";

/// The rate in effect for a node; `None`: any.
pub fn rate(image: &Image, node_id: i32, name: &str) -> Option<u64> {
    let rate = in_effect(image, node_id, name)?;
    rate.parse().ok().filter(|rate| *rate < i64::MAX.unsigned_abs())
}

/// The defaults of topics that are in effect for a node, of those that were set while it runs.
pub fn topic_defaults(image: &Image, node_id: i32) -> Vec<(&'static str, &str)> {
    let names = TOPIC_DEFAULTS.into_iter();
    names.filter_map(|name| Some((name, in_effect(image, node_id, name)?.as_str()))).collect()
}

fn in_effect<'a>(image: &'a Image, node_id: i32, name: &str) -> Option<&'a Str> {
    of(image, &node_id.to_string(), name).or_else(|| of(image, ALL_NODES, name))
}

/// What was set for a node, or (without a name) for all.
pub fn of<'a>(image: &'a Image, resource_name: &str, name: &str) -> Option<&'a Str> {
    image.settings(NODE_RESOURCE, resource_name)?.get(name)
}

/// Whether these are changes of such settings, and of nothing else.
pub(super) fn is_all(changes: &[Change]) -> bool {
    let is_one = |change: &Change| {
        let name = change.name.as_str();
        let is_known = RATES.contains(&name) || TOPIC_DEFAULTS.contains(&name);
        is_known || name == DIRECTORIES_RATE && change.operation == DELETE
    };
    !changes.is_empty() && changes.iter().all(is_one)
}

/// What the changes make of them; `None` where they are so already.
pub(super) fn alter(
    image: &Image,
    resource_name: &Str,
    changes: &[Change],
    is_incremental: bool,
) -> Result<Option<Record>, Refusal> {
    let known = |id: i32| image.node(id).is_some();
    if *resource_name != ALL_NODES && !resource_name.parse().is_ok_and(known) {
        let message = format!("there is no node {resource_name}");
        return Err(Refusal::new(ErrorCode::BROKER_ID_NOT_REGISTERED, message));
    }
    let before = image.settings(NODE_RESOURCE, resource_name).cloned().unwrap_or_default();
    let mut own = if is_incremental { BTreeMap::clone(&before) } else { BTreeMap::new() };
    for Change { name, operation, value } in changes {
        match *operation {
            SET => {
                if *resource_name != ALL_NODES && name.as_str() == MIN_INSYNC_REPLICAS {
                    return Err(invalid(format!(
                        "{name} can be altered for all brokers together (--entity-default), not \
                         for one"
                    )));
                }
                let value = value.as_ref().map(Str::as_str).unwrap_or_default().trim();
                own.insert(name.detached(), canonical(name, value)?);
            }
            DELETE => {
                own.remove(name);
            }
            operation => {
                let operation = if operation == APPEND { "APPEND" } else { "SUBTRACT" };
                return Err(invalid(format!(
                    "Can't {operation} to key {name} because its type is not LIST."
                )));
            }
        }
    }
    let own: Settings = Arc::new(own);
    let resource = (NODE_RESOURCE, resource_name.detached());
    Ok((own != before).then_some(Record::Settings(resource, own)))
}

/// What takes with a node that is forgotten.
pub(super) fn forget(image: &Image, node_id: i32) -> Option<Record> {
    let name = Str::from(node_id.to_string());
    image.settings(NODE_RESOURCE, &name)?;
    Some(Record::Settings((NODE_RESOURCE, name), Settings::default()))
}

/// As it is kept.
fn canonical(name: &str, value: &str) -> Result<Str, Refusal> {
    let value = value.to_ascii_lowercase();
    let reason = match (name, value.parse::<i64>()) {
        (UNCLEAN_LEADER_ELECTION, _) if ["true", "false"].contains(&value.as_str()) => {
            return Ok(Str::from(value));
        }
        (UNCLEAN_LEADER_ELECTION, _) => "Expected value to be either true or false",
        (MIN_INSYNC_REPLICAS, Ok(count)) if i32::try_from(count).is_err() => {
            "Not a number of type INT"
        }
        (MIN_INSYNC_REPLICAS, Ok(count)) if count < 1 => "Value must be at least 1",
        (MIN_INSYNC_REPLICAS, Err(_)) => "Not a number of type INT",
        (_, Ok(0..)) => return Ok(Str::from(value)),
        (_, Ok(_)) => "Value must be at least 0",
        (_, Err(_)) => "Not a number of type LONG",
    };
    // Not INVALID_CONFIG, which Kafka says of topics only.
    let message = format!("Invalid value {value} for configuration {name}: {reason}");
    Err(Refusal::invalid_request(message))
}

fn invalid(message: String) -> Refusal {
    Refusal::new(ErrorCode::INVALID_CONFIG, message)
}
