//! AlterConfigs and IncrementalAlterConfigs: settings of topics, and what is wanted of nodes
//! ([`super::node_settings`]), and those of theirs that change while they run
//! ([`super::dynamic_settings`]). Other settings of nodes are read at start; those of groups wait
//! for the group protocols they belong to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

use super::controller::{Controller, Decision, Reply, TopicSettings};
use super::refusal::{Refusal, repeated};
use super::{dynamic_settings, node_settings};
use crate::metadata::image::{Image, Settings};
use crate::metadata::records::{Record, TOPIC_RESOURCE};
use crate::metadata::topic_name;

/// A node as a resource with settings.
pub const NODE_RESOURCE: i8 = 4;
/// Log levels of a node.
pub const NODE_LOGGER_RESOURCE: i8 = 8;
/// A subscription to clients' metrics.
pub const CLIENT_METRICS_RESOURCE: i8 = 16;
/// A group.
pub const GROUP_RESOURCE: i8 = 32;

/// Longest value that a record can hold.
const VALUE_BYTES_MAX: usize = 32_767;

/// A request of either kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Alteration {
    /// What is altered, each for itself.
    pub resources: Vec<Resource>,
    /// Whether own settings that no change names stay (IncrementalAlterConfigs).
    pub is_incremental: bool,
    /// Whether it is only tried.
    pub validate_only: bool,
    /// The node that was asked.
    pub node_id: i32,
}

/// A resource with what is to be changed of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// Kafka's number.
    pub kind: i8,
    /// A topic's name, a node's id.
    pub name: Str,
    /// In the client's order.
    pub changes: Vec<Change>,
}

/// One change of one setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of the setting.
    pub name: Str,
    /// Kafka's number; others are refused.
    pub operation: i8,
    /// May be missing where the setting goes.
    pub value: Option<Str>,
}

/// A setting gets a value.
pub const SET: i8 = 0;
/// It goes back to its default.
pub(super) const DELETE: i8 = 1;
/// A list gets more elements.
pub(super) const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// What came of a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Altered {
    /// Kafka's number.
    pub kind: i8,
    /// As it was asked for.
    pub name: Str,
    /// Kafka's code.
    pub error_code: ErrorCode,
    /// What a person reads, where it is refused.
    pub error_message: Option<Str>,
}

pub(super) fn decide(controller: &Controller, image: &Image, alteration: Alteration) -> Decision {
    let Alteration { resources: asked, is_incremental, validate_only, node_id } = alteration;
    let mut resources = Resources {
        settings: controller.topic_settings.as_ref(),
        image,
        node_id,
        is_incremental,
        repeated: repeated(asked.iter().map(|asked| (asked.kind, asked.name.clone()))),
        records: Vec::new(),
    };
    let altered = asked.into_iter().map(|asked| resources.answer(asked)).collect();
    let records = if validate_only { Vec::new() } else { resources.records };
    (records, Reply::AlterSettings(altered))
}

/// The resources of one request.
struct Resources<'a> {
    settings: &'a dyn TopicSettings,
    image: &'a Image,
    node_id: i32,
    is_incremental: bool,
    repeated: BTreeSet<(i8, Str)>,
    records: Vec<Record>,
}

impl Resources<'_> {
    fn answer(&mut self, asked: Resource) -> Altered {
        let (error_code, error_message) = match self.alter(&asked) {
            Ok(()) => (ErrorCode::NONE, None),
            Err(Refusal { error, message }) => (error, Some(message)),
        };
        let Resource { kind, name, .. } = asked;
        Altered { kind, name, error_code, error_message }
    }

    fn alter(&mut self, asked: &Resource) -> Result<(), Refusal> {
        let Resource { kind, name, changes } = asked;
        if self.repeated.contains(&(*kind, name.clone())) {
            return Err(Refusal::invalid_request("Each resource must appear at most once."));
        }
        check_changes(changes)?;
        match *kind {
            TOPIC_RESOURCE => self.alter_topic(name, changes),
            NODE_RESOURCE if node_settings::is_all(changes) => {
                self.records.extend(node_settings::alter(self.image, name, changes)?);
                Ok(())
            }
            NODE_RESOURCE if dynamic_settings::is_all(changes) => {
                let altered =
                    dynamic_settings::alter(self.image, name, changes, self.is_incremental)?;
                self.records.extend(altered);
                Ok(())
            }
            NODE_RESOURCE => Err(self.node_refusal(name, changes)),
            NODE_LOGGER_RESOURCE => {
                Err(Refusal::invalid_request("Log levels cannot be altered while the node runs."))
            }
            GROUP_RESOURCE | CLIENT_METRICS_RESOURCE => {
                let message = "Settings of groups and of client metrics are not supported yet.";
                Err(Refusal::invalid_request(message))
            }
            other => Err(Refusal::invalid_request(format!("Unknown resource type {other}"))),
        }
    }

    fn alter_topic(&mut self, name: &Str, changes: &[Change]) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::invalid_request("Default topic resources are not allowed."));
        }
        let invalid_name = |message| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message);
        topic_name::validate(name).map_err(invalid_name)?;
        let topic = self.image.topic(name);
        let before = topic.map(|topic| Arc::clone(&topic.settings)).unwrap_or_default();
        let mut own = if self.is_incremental { BTreeMap::clone(&before) } else { BTreeMap::new() };
        for change in changes {
            self.apply(change, &mut own)?;
        }
        let own: Settings = Arc::new(own);
        let invalid = |message: String| Refusal::new(ErrorCode::INVALID_CONFIG, message);
        self.settings.validate(&own).map_err(invalid)?;
        if topic.is_none() {
            let message = format!("The topic '{name}' does not exist.");
            return Err(Refusal::new(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message));
        }
        if own != before {
            self.records.push(Record::Settings((TOPIC_RESOURCE, name.detached()), own));
        }
        Ok(())
    }

    fn apply(&self, change: &Change, own: &mut BTreeMap<Str, Str>) -> Result<(), Refusal> {
        let name = change.name.detached();
        // Where it is needed it is there: `check_changes`.
        let value = change.value.as_ref().map(Str::detached).unwrap_or_default();
        match change.operation {
            SET => {
                own.insert(name, value);
            }
            DELETE => {
                own.remove(&name);
            }
            operation => {
                let changed = self.list(operation, &name, &value, own.get(&name))?;
                own.insert(name, changed);
            }
        }
        Ok(())
    }

    /// A list with elements more, or less.
    fn list(
        &self,
        operation: i8,
        name: &Str,
        value: &str,
        before: Option<&Str>,
    ) -> Result<Str, Refusal> {
        let invalid = |message: String| Refusal::new(ErrorCode::INVALID_CONFIG, message);
        if !self.settings.is_list(name) {
            let operation = if operation == APPEND { "APPEND" } else { "SUBTRACT" };
            let message = format!("Can't {operation} to key {name} because its type is not LIST.");
            return Err(invalid(message));
        }
        let before = match before {
            Some(own) => own.to_string(),
            None => self.settings.default_value(name).unwrap_or_default(),
        };
        let mut elements: Vec<&str> = elements(&before).collect();
        if operation == APPEND {
            for element in self::elements(value) {
                if !elements.contains(&element) {
                    elements.push(element);
                }
            }
        } else {
            let removed: BTreeSet<&str> = self::elements(value).collect();
            elements.retain(|element| !removed.contains(element));
        }
        let changed = elements.join(",");
        if changed.len() > VALUE_BYTES_MAX {
            return Err(invalid(format!(
                "The configuration value cannot be added because it exceeds the maximum value size \
                 of {VALUE_BYTES_MAX} bytes."
            )));
        }
        Ok(Str::from(changed))
    }

    /// Other settings of a node cannot be altered; a wrong node is told first.
    fn node_refusal(&self, name: &Str, changes: &[Change]) -> Refusal {
        let node_id = self.node_id;
        if !name.is_empty() {
            match name.parse::<i32>() {
                Ok(id) if id == node_id => {}
                Ok(_) => {
                    return Refusal::invalid_request(format!(
                        "Unexpected broker id, expected {node_id}, but received {name}"
                    ));
                }
                Err(_) => {
                    let message = format!("Node id must be an integer, but it is: {name}");
                    return Refusal::invalid_request(message);
                }
            }
        }
        let names: Vec<&str> = changes.iter().map(|change| change.name.as_str()).collect();
        Refusal::invalid_request(format!(
            "Cannot update these configs dynamically: [{}]; a node reads its settings at start",
            names.join(", ")
        ))
    }
}

fn elements(list: &str) -> impl Iterator<Item = &str> {
    list.split(',').map(str::trim).filter(|element| !element.is_empty())
}

/// What is wrong with a resource's changes before anybody looks at what they change.
fn check_changes(changes: &[Change]) -> Result<(), Refusal> {
    let mut names = BTreeSet::new();
    if !changes.iter().all(|change| names.insert(&change.name)) {
        return Err(Refusal::invalid_request("Error due to duplicate config keys"));
    }
    let is_null = |change: &&Change| change.operation != DELETE && change.value.is_none();
    let null: Vec<&str> =
        changes.iter().filter(is_null).map(|change| change.name.as_str()).collect();
    if !null.is_empty() {
        let names = null.join(", ");
        return Err(Refusal::invalid_request(format!("Null value not supported for : {names}")));
    }
    match changes.iter().find(|change| !(SET..=SUBTRACT).contains(&change.operation)) {
        Some(Change { operation, .. }) => {
            Err(Refusal::invalid_request(format!("Unknown operations type {operation}")))
        }
        None => Ok(()),
    }
}
