//! AlterConfigs and IncrementalAlterConfigs: settings of topics. Those of nodes are read at start;
//! those of groups wait for the group protocols they belong to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::{alter_configs, incremental_alter_configs};
use vltava_protocol::types::Str;

use super::controller::{Controller, Decision, Reply, TopicSettings};
use super::refusal::Refusal;
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

/// One change of one setting.
struct Change {
    name: Str,
    operation: i8,
    value: Option<Str>,
}

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// A resource with what is to be changed of it.
struct Asked {
    kind: i8,
    name: Str,
    changes: Vec<Change>,
}

/// What came of it.
struct Altered {
    kind: i8,
    name: Str,
    error_code: ErrorCode,
    error_message: Option<Str>,
}

/// Replaces all own settings of the resources (AlterConfigs).
pub(super) fn replace(
    controller: &Controller,
    image: &Image,
    request: alter_configs::AlterConfigsRequest,
    node_id: i32,
) -> Decision {
    let set = |config: alter_configs::AlterableConfig| Change {
        name: config.name,
        operation: SET,
        value: config.value,
    };
    let asked = request.resources.into_iter().map(|resource| Asked {
        kind: resource.resource_type,
        name: resource.resource_name,
        changes: resource.configs.into_iter().map(set).collect(),
    });
    let resources = Resources::new(controller, image, node_id);
    let (altered, records) = resources.alter_all(asked.collect(), false, request.validate_only);
    let response = |altered: Altered| alter_configs::AlterConfigsResourceResponse {
        error_code: altered.error_code,
        error_message: altered.error_message,
        resource_type: altered.kind,
        resource_name: altered.name,
    };
    let responses = altered.into_iter().map(response).collect();
    let response = alter_configs::AlterConfigsResponse { responses, ..Default::default() };
    (records, Reply::AlterConfigs(response))
}

/// Changes some settings of the resources (IncrementalAlterConfigs).
pub(super) fn change(
    controller: &Controller,
    image: &Image,
    request: incremental_alter_configs::IncrementalAlterConfigsRequest,
    node_id: i32,
) -> Decision {
    let change = |config: incremental_alter_configs::AlterableConfig| Change {
        name: config.name,
        operation: config.config_operation,
        value: config.value,
    };
    let asked = request.resources.into_iter().map(|resource| Asked {
        kind: resource.resource_type,
        name: resource.resource_name,
        changes: resource.configs.into_iter().map(change).collect(),
    });
    let resources = Resources::new(controller, image, node_id);
    let (altered, records) = resources.alter_all(asked.collect(), true, request.validate_only);
    let response = |altered: Altered| incremental_alter_configs::AlterConfigsResourceResponse {
        error_code: altered.error_code,
        error_message: altered.error_message,
        resource_type: altered.kind,
        resource_name: altered.name,
    };
    let responses = altered.into_iter().map(response).collect();
    let response = incremental_alter_configs::IncrementalAlterConfigsResponse {
        responses,
        ..Default::default()
    };
    (records, Reply::IncrementalAlterConfigs(response))
}

/// The resources of one request.
struct Resources<'a> {
    settings: &'a dyn TopicSettings,
    image: &'a Image,
    node_id: i32,
    duplicates: BTreeSet<(i8, Str)>,
    records: Vec<Record>,
}

impl<'a> Resources<'a> {
    fn new(controller: &'a Controller, image: &'a Image, node_id: i32) -> Self {
        Self {
            settings: controller.topic_settings.as_ref(),
            image,
            node_id,
            duplicates: BTreeSet::new(),
            records: Vec::new(),
        }
    }

    /// Alters each for itself; the records are empty where it is only to be tried.
    fn alter_all(
        mut self,
        asked: Vec<Asked>,
        is_incremental: bool,
        validate_only: bool,
    ) -> (Vec<Altered>, Vec<Record>) {
        let mut seen = BTreeSet::new();
        let repeated = asked.iter().filter(|asked| !seen.insert((asked.kind, &asked.name)));
        self.duplicates = repeated.map(|asked| (asked.kind, asked.name.clone())).collect();
        let altered = asked.into_iter().map(|Asked { kind, name, changes }| {
            let (error_code, error_message) =
                match self.alter(kind, &name, &changes, is_incremental) {
                    Ok(()) => (ErrorCode::NONE, None),
                    Err(Refusal { error, message }) => (error, Some(message)),
                };
            Altered { kind, name, error_code, error_message }
        });
        let altered = altered.collect();
        (altered, if validate_only { Vec::new() } else { self.records })
    }

    fn alter(
        &mut self,
        kind: i8,
        name: &Str,
        changes: &[Change],
        is_incremental: bool,
    ) -> Result<(), Refusal> {
        if self.duplicates.contains(&(kind, name.clone())) {
            return Err(Refusal::invalid_request("Each resource must appear at most once."));
        }
        check_changes(changes)?;
        match kind {
            TOPIC_RESOURCE => self.alter_topic(name, changes, is_incremental),
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

    fn alter_topic(
        &mut self,
        name: &Str,
        changes: &[Change],
        is_incremental: bool,
    ) -> Result<(), Refusal> {
        if name.is_empty() {
            return Err(Refusal::invalid_request("Default topic resources are not allowed."));
        }
        let invalid_name = |message| Refusal::new(ErrorCode::INVALID_TOPIC_EXCEPTION, message);
        topic_name::validate(name).map_err(invalid_name)?;
        let topic = self.image.topic(name);
        let before = topic.map(|topic| Arc::clone(&topic.settings)).unwrap_or_default();
        let mut own = if is_incremental { BTreeMap::clone(&before) } else { BTreeMap::new() };
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

    /// Settings of a node cannot be altered; a wrong node is told first.
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
