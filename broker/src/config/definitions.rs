//! What a setting is, and where to find it by name.

use super::{broker, group, topic, topic_defaults};

/// Whom a setting belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// A node: its properties file, `--set`, flags. Read at start.
    Broker,
    /// A topic: CreateTopics, AlterConfigs, IncrementalAlterConfigs.
    Topic,
    /// A group: the same calls, with the group's id as the resource.
    Group,
}

/// The type of a value, as DescribeConfigs names it (KIP-569).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`, in any case.
    Boolean,
    /// Any text; white space around it is not part of it.
    String,
    /// 16 bits, signed.
    Short,
    /// 32 bits, signed.
    Int,
    /// 64 bits, signed.
    Long,
    /// A floating point number.
    Double,
    /// Texts separated by commas.
    List,
    /// Bytes, with or without a unit: `512MiB`, `4GiB`, `1048576`. Described as a string.
    Size,
}

impl Kind {
    /// The number of this type in DescribeConfigs responses.
    pub const fn describe_code(self) -> i8 {
        match self {
            Self::Boolean => 1,
            Self::String | Self::Size => 2,
            Self::Int => 3,
            Self::Short => 4,
            Self::Long => 5,
            Self::Double => 6,
            Self::List => 7,
        }
    }

    /// Kafka's name of this type, as in its error messages.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Boolean => "BOOLEAN",
            Self::String => "STRING",
            Self::Short => "SHORT",
            Self::Int => "INT",
            Self::Long => "LONG",
            Self::Double => "DOUBLE",
            Self::List => "LIST",
            Self::Size => "SIZE",
        }
    }
}

/// What a number counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A text, a choice, a plain number.
    None,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Minutes.
    Minutes,
    /// Hours.
    Hours,
}

impl Unit {
    /// As shown in documentation.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Bytes => "bytes",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::Minutes => "minutes",
            Self::Hours => "hours",
        }
    }
}

/// Which values of its type a setting takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Check {
    /// All.
    Any,
    /// Numbers from here on.
    AtLeast(i64),
    /// Numbers between the two, both included.
    Between(i64, i64),
    /// Numbers between the two, or this other one.
    BetweenOr(i64, i64, i64),
    /// One of these texts; of a list, each element.
    OneOf(&'static [&'static str]),
    /// `*`, or `partition:node` pairs.
    ThrottledReplicas,
}

/// A setting of the node that gives a topic setting its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The node's setting.
    pub name: &'static str,
    /// What its number is multiplied with, where the units differ (`log.retention.hours` and
    /// `retention.ms`).
    pub factor: i64,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Kafka's name, or ours where Kafka has no such setting.
    pub name: &'static str,
    /// Type of its value.
    pub kind: Kind,
    /// Its value where nobody gives one; `None` where "not given" is a value of its own (Kafka's
    /// null).
    pub default: Option<&'static str>,
    /// What its number counts.
    pub unit: Unit,
    /// Which values are allowed.
    pub check: Check,
    /// Whom it belongs to.
    pub scope: Scope,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// For a topic setting: where its default comes from; the first that is given wins, as in
    /// Kafka.
    pub synonyms: &'static [Synonym],
    /// False where the setting is accepted, kept and described, but changes nothing yet.
    pub in_effect: bool,
    /// Whether Kafka has it, too.
    pub is_kafka: bool,
}

impl Definition {
    /// A setting of Kafka's, with a default.
    pub const fn new(scope: Scope, name: &'static str, kind: Kind, default: &'static str) -> Self {
        Self {
            name,
            kind,
            default: Some(default),
            unit: Unit::None,
            check: Check::Any,
            scope,
            doc: "",
            synonyms: &[],
            in_effect: true,
            is_kafka: true,
        }
    }

    /// Not given by default.
    pub const fn no_default(mut self) -> Self {
        self.default = None;
        self
    }

    /// What its number counts.
    pub const fn unit(mut self, unit: Unit) -> Self {
        self.unit = unit;
        self
    }

    /// Which values are allowed.
    pub const fn check(mut self, check: Check) -> Self {
        self.check = check;
        self
    }

    /// What it does.
    pub const fn doc(mut self, doc: &'static str) -> Self {
        self.doc = doc;
        self
    }

    /// Where a topic setting's default comes from.
    pub const fn synonyms(mut self, synonyms: &'static [Synonym]) -> Self {
        self.synonyms = synonyms;
        self
    }

    /// Accepted and described, without effect.
    pub const fn without_effect(mut self) -> Self {
        self.in_effect = false;
        self
    }

    /// Ours: Kafka has no such setting.
    pub const fn ours(mut self) -> Self {
        self.is_kafka = false;
        self
    }
}

/// Names that mean the same setting; the first is the one that counts where both are given in one
/// place.
const ALIASES: &[(&str, &str)] = &[("node.id", "broker.id"), ("log.dirs", "log.dir")];

/// Every setting of a node: its own, and the defaults it gives to topics.
pub fn broker_settings() -> impl Iterator<Item = &'static Definition> {
    broker::BROKER.iter().chain(topic_defaults::TOPIC_DEFAULTS)
}

/// Every setting of a topic.
pub fn topic_settings() -> impl Iterator<Item = &'static Definition> {
    topic::TOPIC.iter()
}

/// Every setting of a group.
pub fn group_settings() -> impl Iterator<Item = &'static Definition> {
    group::GROUP.iter()
}

/// The node's setting of this name.
pub fn broker_setting(name: &str) -> Option<&'static Definition> {
    broker_settings().find(|definition| definition.name == name)
}

/// The topic setting of this name.
pub fn topic_setting(name: &str) -> Option<&'static Definition> {
    topic_settings().find(|definition| definition.name == name)
}

/// Settings that stand for each other, in their order of precedence, `name` among them; just itself
/// where there is no other. `log.retention.ms`, `.minutes` and `.hours` are such a family, and
/// `node.id` and `broker.id`.
pub fn family(name: &str) -> Vec<&'static str> {
    for (first, second) in ALIASES {
        if name == *first || name == *second {
            return vec![first, second];
        }
    }
    for topic in topic_settings() {
        if topic.synonyms.iter().any(|synonym| synonym.name == name) {
            return topic.synonyms.iter().map(|synonym| synonym.name).collect();
        }
    }
    broker_setting(name).map(|definition| vec![definition.name]).unwrap_or_default()
}

/// The name among `names` that a person who typed `name` most likely meant: the one fewest edits
/// away, unless more than half of it would have to be typed anew.
pub fn nearest<'a>(name: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    // Beyond this many characters nobody mistyped a name; the cost below is quadratic.
    const NAME_CHARS_MAX: usize = 256;
    if name.len() > NAME_CHARS_MAX {
        return None;
    }
    let distances =
        names.map(|candidate| (edit_distance(name.as_bytes(), candidate.as_bytes()), candidate));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    (distance * 2 <= name.len()).then_some(nearest)
}

/// Levenshtein's distance: how many bytes must be added, removed or replaced.
fn edit_distance(from: &[u8], to: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, left) in from.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in to.iter().enumerate() {
            let replaced = diagonal + usize::from(left != right);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::check;

    #[test]
    fn every_setting_is_complete_and_its_default_valid() {
        let all = broker_settings().chain(topic_settings()).chain(group_settings());
        for definition in all {
            assert!(definition.doc.len() > 10, "{} has no documentation", definition.name);
            assert!(
                definition.doc.ends_with('.'),
                "{}: a sentence ends with a stop",
                definition.name
            );
            if let Some(default) = definition.default {
                let canonical = check::canonical(definition, default).unwrap();
                assert_eq!(
                    canonical, default,
                    "{}: the default as it is described",
                    definition.name
                );
            }
        }
    }

    #[test]
    fn names_are_unique_within_a_scope() {
        for names in [
            broker_settings().map(|definition| definition.name).collect::<Vec<_>>(),
            topic_settings().map(|definition| definition.name).collect(),
            group_settings().map(|definition| definition.name).collect(),
        ] {
            let unique: BTreeSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len());
        }
    }

    #[test]
    fn each_synonym_is_a_setting_whose_default_gives_the_topics_default() {
        for topic in topic_settings() {
            let Some(last) = topic.synonyms.last() else {
                continue;
            };
            for synonym in topic.synonyms {
                assert!(broker_setting(synonym.name).is_some(), "{}", synonym.name);
            }
            let default = broker_setting(last.name).unwrap().default.unwrap();
            let scaled = match default.parse::<i64>() {
                Ok(number) => (number * last.factor).to_string(),
                Err(_) => default.to_string(),
            };
            assert_eq!(Some(scaled.as_str()), topic.default, "{}", topic.name);
        }
    }

    #[test]
    fn nearest_finds_the_name_that_was_meant() {
        let names = || broker_settings().map(|definition| definition.name);
        assert_eq!(nearest("num.partition", names()), Some("num.partitions"));
        assert_eq!(nearest("log.retention.hour", names()), Some("log.retention.hours"));
        assert_eq!(nearest("advertized.listeners", names()), Some("advertised.listeners"));
        assert_eq!(nearest(&"x".repeat(100_000), names()), None);
        assert_eq!(nearest("anything", std::iter::empty()), None);
        assert_eq!(nearest("foo", names()), None);
    }

    #[test]
    fn families_come_in_order_of_precedence() {
        assert_eq!(
            family("log.retention.hours"),
            ["log.retention.ms", "log.retention.minutes", "log.retention.hours"]
        );
        assert_eq!(family("broker.id"), ["node.id", "broker.id"]);
        assert_eq!(family("num.partitions"), ["num.partitions"]);
        assert!(family("no.such.setting").is_empty());
    }
}
