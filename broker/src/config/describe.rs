//! What DescribeConfigs answers (KIP-133, KIP-226, KIP-569), as plain data.

use super::check;
use super::definitions::{Definition, Kind, broker_setting, broker_settings, topic_settings};
use super::definitions::{group_settings, topic_setting};
use super::values::{BrokerConfig, family_of_aliases};

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The topic's own setting.
    Topic,
    /// The node's own, altered while it runs.
    DynamicBroker,
    /// Of all nodes, altered while they run.
    DynamicDefaultBroker,
    /// The node's file or command line.
    StaticBroker,
    /// Nobody gave it.
    Default,
}

impl Source {
    /// The number of this source in responses.
    pub const fn code(self) -> i8 {
        match self {
            Self::Topic => 1,
            Self::DynamicBroker => 2,
            Self::DynamicDefaultBroker => 3,
            Self::StaticBroker => 4,
            Self::Default => 5,
        }
    }
}

/// A value that a setting would have, if those before it were not given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedSynonym {
    /// Which setting gives it.
    pub name: &'static str,
    /// The value, in that setting's own unit.
    pub value: String,
    /// Who gave it.
    pub source: Source,
}

/// One setting of one resource. None is sensitive: there are no passwords yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its name.
    pub name: &'static str,
    /// Its value; `None` where there is none.
    pub value: Option<String>,
    /// Whether it can be altered while the node runs.
    pub is_read_only: bool,
    /// Who gave the value.
    pub source: Source,
    /// Where the value comes from, and what stands behind it.
    pub synonyms: Vec<DescribedSynonym>,
    /// Its type.
    pub kind: Kind,
    /// What it does.
    pub documentation: &'static str,
}

/// What of a node's settings can be altered while it runs.
#[derive(Clone, Copy, Default)]
pub struct Dynamic<'a> {
    /// The names of those settings.
    pub names: &'a [&'static str],
    /// What was given for them, what is nearer to the node first.
    pub given: &'a [DescribedSynonym],
}

impl Dynamic<'_> {
    fn of(&self, name: &str) -> impl Iterator<Item = &DescribedSynonym> {
        self.given.iter().filter(move |given| given.name == name)
    }
}

/// Every setting of a topic with these of its own, by name.
pub fn topic<'a>(
    config: &BrokerConfig,
    dynamic: Dynamic<'_>,
    own: impl Iterator<Item = (&'a str, &'a str)> + Clone,
) -> Vec<Described> {
    topic_settings()
        .map(|definition| {
            let given = own.clone().find(|(name, _)| *name == definition.name);
            topic_entry(config, dynamic, definition, given.map(|(_, value)| value))
        })
        .collect()
}

fn topic_entry(
    config: &BrokerConfig,
    dynamic: Dynamic<'_>,
    definition: &'static Definition,
    own: Option<&str>,
) -> Described {
    let names = definition.synonyms.iter().map(|s| s.name);
    let mut synonyms = node_synonyms(config, dynamic, names);
    // Those that are altered while nodes run have the same name and unit.
    let altered = dynamic.of(definition.name).next().map(|given| given.value.as_str());
    let default = altered.or_else(|| config.topic_defaults.value(definition.name));
    let mut value = default.unwrap_or_default().to_string();
    if let Some(own) = own {
        value = check::canonical(definition, own).unwrap_or_else(|_| own.to_string());
        let own =
            DescribedSynonym { name: definition.name, value: value.clone(), source: Source::Topic };
        synonyms.insert(0, own);
    }
    Described {
        name: definition.name,
        value: Some(value),
        is_read_only: false,
        source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
        synonyms,
        kind: definition.kind,
        documentation: definition.doc,
    }
}

/// Every setting of this node, by name. But for those that are dynamic all are read-only: they are
/// read at start.
pub fn node(config: &BrokerConfig, dynamic: Dynamic<'_>) -> Vec<Described> {
    let mut described: Vec<Described> = broker_settings()
        .map(|definition| {
            let names = family_of_aliases(definition.name);
            let synonyms = node_synonyms(config, dynamic, names.into_iter());
            let altered = dynamic.of(definition.name).next().map(|given| given.value.as_str());
            Described {
                name: definition.name,
                value: altered.or_else(|| config.value(definition.name)).map(str::to_string),
                is_read_only: !dynamic.names.contains(&definition.name),
                source: synonyms.first().map_or(Source::Default, |synonym| synonym.source),
                synonyms,
                kind: definition.kind,
                documentation: definition.doc,
            }
        })
        .collect();
    described.sort_by_key(|entry| entry.name);
    described
}

/// Every setting of a group, by name: the defaults, since none can be altered yet.
pub fn group() -> Vec<Described> {
    group_settings()
        .map(|definition| {
            let value = definition.default.unwrap_or_default().to_string();
            Described {
                name: definition.name,
                value: Some(value.clone()),
                is_read_only: true,
                source: Source::Default,
                synonyms: vec![DescribedSynonym {
                    name: definition.name,
                    value,
                    source: Source::Default,
                }],
                kind: definition.kind,
                documentation: definition.doc,
            }
        })
        .collect()
}

/// What was given for these settings of the node, while it runs or at its start, then their
/// defaults, each in order: as Kafka lists them.
fn node_synonyms(
    config: &BrokerConfig,
    dynamic: Dynamic<'_>,
    names: impl Iterator<Item = &'static str> + Clone,
) -> Vec<DescribedSynonym> {
    let altered = names.clone().flat_map(|name| dynamic.of(name).cloned());
    let altered: Vec<_> = altered.collect();
    let given = names.clone().filter_map(|name| {
        let value = config.given.get(name)?.clone();
        Some(DescribedSynonym { name, value, source: Source::StaticBroker })
    });
    let defaults = names.filter_map(|name| {
        let value = broker_setting(name)?.default?.to_string();
        Some(DescribedSynonym { name, value, source: Source::Default })
    });
    altered.into_iter().chain(given).chain(defaults).collect()
}

/// Whether a topic setting is a list, so that APPEND and SUBTRACT make sense; `None` for an unknown
/// name.
pub fn is_topic_list(name: &str) -> Option<bool> {
    topic_setting(name).map(|definition| definition.kind == Kind::List)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::values::{Given, Origin, load};

    fn config(given: &[(&str, &str)]) -> BrokerConfig {
        let given: Vec<Given> = given
            .iter()
            .map(|(name, value)| Given {
                name: (*name).to_string(),
                value: (*value).to_string(),
                origin: Origin::Set,
            })
            .collect();
        load(&given).unwrap().config
    }

    fn described(config: &BrokerConfig, own: &[(&str, &str)], name: &str) -> Described {
        let all = topic(config, Dynamic::default(), own.iter().copied());
        all.into_iter().find(|entry| entry.name == name).unwrap()
    }

    fn synonyms(entry: &Described) -> Vec<(&'static str, &str, Source)> {
        entry.synonyms.iter().map(|s| (s.name, s.value.as_str(), s.source)).collect()
    }

    #[test]
    fn a_topic_without_own_settings_shows_the_nodes_defaults() {
        let entry = described(&config(&[]), &[], "retention.ms");
        assert_eq!(entry.value.as_deref(), Some("604800000"));
        assert!(entry.source == Source::Default && !entry.is_read_only);
        assert_eq!(synonyms(&entry), [("log.retention.hours", "168", Source::Default)]);
    }

    #[test]
    fn each_source_stands_before_what_it_hides() {
        let config = config(&[("log.retention.minutes", "5"), ("log.retention.ms", "60000")]);
        let entry = described(&config, &[("retention.ms", " 7 ")], "retention.ms");
        assert_eq!(entry.value.as_deref(), Some("7"));
        assert_eq!(entry.source, Source::Topic);
        assert_eq!(
            synonyms(&entry),
            [
                ("retention.ms", "7", Source::Topic),
                ("log.retention.ms", "60000", Source::StaticBroker),
                ("log.retention.minutes", "5", Source::StaticBroker),
                ("log.retention.hours", "168", Source::Default),
            ]
        );
        let inherited = described(&config, &[], "retention.ms");
        assert_eq!(inherited.source, Source::StaticBroker);
        assert_eq!(inherited.value.as_deref(), Some("60000"));
    }

    #[test]
    fn a_setting_without_a_nodes_default_has_no_synonyms() {
        let entry = described(&config(&[]), &[], "remote.storage.enable");
        assert!(entry.synonyms.is_empty() && entry.source == Source::Default);
    }

    #[test]
    fn the_node_describes_all_of_its_settings_in_order() {
        let config = config(&[("broker.id", "9")]);
        let all = node(&config, Dynamic::default());
        assert!(all.is_sorted_by_key(|entry| entry.name));
        let node_id = all.iter().find(|entry| entry.name == "node.id").unwrap();
        assert_eq!(node_id.value.as_deref(), Some("9"));
        assert_eq!(node_id.source, Source::StaticBroker);
        assert!(node_id.is_read_only);
        let memory = all.iter().find(|entry| entry.name == "memory").unwrap();
        assert_eq!((memory.value.as_deref(), memory.source), (None, Source::Default));
        assert_eq!(all.len(), broker_settings().count());
    }

    #[test]
    fn lists_are_known_as_such() {
        assert_eq!(is_topic_list("cleanup.policy"), Some(true));
        assert_eq!(is_topic_list("retention.ms"), Some(false));
        assert_eq!(is_topic_list("nothing"), None);
    }
}
