//! The settings as documentation: `docs/configuration.md`, and what `vltava config` prints.

use std::fmt::Write;

use super::definitions::{
    Check, Definition, Unit, broker_settings, group_settings, topic_settings,
};
use super::migration;

/// `docs/configuration.md`.
pub fn markdown() -> String {
    let mut page = String::from(INTRODUCTION);
    section(&mut page, "Settings of a node", NODE_NOTE, sorted(broker_settings()));
    section(&mut page, "Settings of a topic", TOPIC_NOTE, sorted(topic_settings()));
    section(&mut page, "Settings of a group", GROUP_NOTE, sorted(group_settings()));
    page.push_str("## Settings of Kafka without effect\n\n");
    page.push_str(MIGRATION_NOTE);
    let mut names: Vec<&str> = migration::ignored_names().collect();
    names.sort_unstable();
    page.push_str(&names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(",\n"));
    page.push_str(".\n");
    page
}

const INTRODUCTION: &str = "# Configuration

This page is made from the table in `broker/src/config/`. `vltava config` prints the settings of a
node and of a topic, and `vltava config retention` those with `retention` in their names. Names are
Kafka's wherever Kafka has the setting. *not in Kafka*: a setting that only Vltava has. *no effect*:
taken, so that files and tools made for Kafka work unchanged, but Vltava does nothing differently
for it.

";

const NODE_NOTE: &str =
    "Given in the file of `--config` (Java properties), by `--set name=value`, or by a flag. A \
     flag goes before `--set`, and both before the file. They are read at start. An unknown name \
     is refused.

";

const TOPIC_NOTE: &str = "Given when a topic is created (`vltava topic create --config`), or \
                          altered while it is in use (`kafka-configs`, any admin client). *Default \
                          from* names the settings of the node that give the default; the first \
                          that is given counts.

";

const GROUP_NOTE: &str = "Known by name; they take effect with the group protocols they belong to.

";

const MIGRATION_NOTE: &str = "These may stand in a `server.properties` that comes from Kafka; \
                              `vltava serve` warns and goes on. Refused, because somebody relies \
                              on them: `authorizer.class.name`, policies and quota call-backs in \
                              Java, `config.providers`, `security.inter.broker.protocol` other \
                              than PLAINTEXT, listeners other than PLAINTEXT, \
                              `remote.log.storage.system.enable=true`, a quorum of several voters, \
                              more than one directory in `log.dirs`.

";

fn sorted(definitions: impl Iterator<Item = &'static Definition>) -> Vec<&'static Definition> {
    let mut sorted: Vec<_> = definitions.collect();
    sorted.sort_by_key(|definition| definition.name);
    sorted
}

fn section(page: &mut String, title: &str, note: &str, definitions: Vec<&'static Definition>) {
    let _ = write!(page, "## {title}\n\n{note}");
    for definition in definitions {
        let _ = writeln!(page, "### `{}`\n\n{}\n", definition.name, definition.doc);
        let _ = writeln!(page, "{}\n", facts(definition).join(" · "));
    }
}

const NO_EFFECT: &str = "no effect";
const NOT_IN_KAFKA: &str = "not in Kafka";

/// Type, default, unit, allowed values and so on, as short phrases.
fn facts(definition: &Definition) -> Vec<String> {
    let mut facts = vec![format!("type {}", definition.kind.name().to_ascii_lowercase())];
    facts.push(match definition.default {
        None => "no default".to_string(),
        Some("") => "default empty".to_string(),
        Some(default) => format!("default `{default}`"),
    });
    if definition.unit != Unit::None {
        facts.push(format!("in {}", definition.unit.name()));
    }
    facts.extend(allowed(definition.check));
    if let [first, rest @ ..] = definition.synonyms {
        let more: String = rest.iter().map(|synonym| format!(", `{}`", synonym.name)).collect();
        facts.push(format!("default from `{}`{more}", first.name));
    }
    if !definition.in_effect {
        facts.push(NO_EFFECT.to_string());
    }
    if !definition.is_kafka {
        facts.push(NOT_IN_KAFKA.to_string());
    }
    facts
}

fn allowed(check: Check) -> Option<String> {
    match check {
        Check::Any => None,
        Check::AtLeast(min) => Some(format!("from {min}")),
        Check::Between(min, max) => Some(format!("from {min} to {max}")),
        Check::BetweenOr(min, max, other) => Some(format!("from {min} to {max}, or {other}")),
        Check::OneOf(allowed) => Some(format!("one of {}", allowed.join(", "))),
        Check::ThrottledReplicas => Some("`*` or `partition:node` pairs".to_string()),
    }
}

/// The node's and the topics' settings as text for a terminal, or those whose name contains
/// `filter`; empty where none does.
pub fn text(filter: &str) -> String {
    let mut text = String::new();
    let groups = [
        ("Settings of a node (vltava serve --set NAME=VALUE, or in the file of --config)", {
            sorted(broker_settings())
        }),
        ("Settings of a topic (vltava topic create --config NAME=VALUE)", {
            sorted(topic_settings())
        }),
    ];
    for (heading, mut definitions) in groups {
        definitions.retain(|definition| definition.name.contains(filter));
        if definitions.is_empty() {
            continue;
        }
        let _ = writeln!(text, "{heading}\n");
        for definition in definitions {
            let facts = facts(definition).join(", ").replace('`', "");
            let _ = writeln!(text, "{}\n    {}\n    {facts}\n", definition.name, definition.doc);
        }
    }
    let legend = [
        (NOT_IN_KAFKA, "a setting that only Vltava has."),
        (NO_EFFECT, "taken, so that files and tools made for Kafka work, but nothing is done."),
    ];
    for (word, meaning) in legend {
        if text.contains(&format!(", {word}")) {
            let _ = writeln!(text, "\"{word}\": {meaning}");
        }
    }
    text
}

/// The same as a JSON array, for scripts.
pub fn json(filter: &str) -> String {
    let entries: Vec<String> = sorted(broker_settings().chain(topic_settings()))
        .into_iter()
        .filter(|definition| definition.name.contains(filter))
        .map(json_entry)
        .collect();
    format!("[\n{}\n]\n", entries.join(",\n"))
}

fn json_entry(definition: &Definition) -> String {
    let default = definition.default.map_or("null".to_string(), json_string);
    let synonyms: Vec<String> =
        definition.synonyms.iter().map(|synonym| json_string(synonym.name)).collect();
    format!(
        "  {{\"name\": {}, \"scope\": \"{}\", \"type\": \"{}\", \"default\": {default}, \"unit\": \
         \"{}\", \"default_from\": [{}], \"in_effect\": {}, \"kafka\": {}, \"documentation\": {}}}",
        json_string(definition.name),
        format!("{:?}", definition.scope).to_ascii_lowercase(),
        definition.kind.name().to_ascii_lowercase(),
        definition.unit.name(),
        synonyms.join(", "),
        definition.in_effect,
        definition.is_kafka,
        json_string(definition.doc),
    )
}

fn json_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            c if c.is_control() => {
                let _ = write!(quoted, "\\u{:04x}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_stands_on_the_page_and_on_the_screen() {
        let page = markdown();
        for definition in broker_settings().chain(topic_settings()).chain(group_settings()) {
            assert!(page.contains(&format!("### `{}`\n", definition.name)), "{}", definition.name);
        }
        assert_eq!(
            text("").matches("\n    type ").count(),
            broker_settings().chain(topic_settings()).count()
        );
        assert!(text("retention.ms").contains("log.retention.ms"));
        assert!(!text("retention.ms").contains("num.partitions"));
        assert_eq!(text("no such setting"), "");
    }

    #[test]
    fn settings_of_nodes_and_topics_stand_apart_and_words_are_explained() {
        let all = text("");
        let (nodes, topics) = (all.find("Settings of a node"), all.find("Settings of a topic"));
        assert!(nodes == Some(0) && topics > all.find("\nwrite.max.bytes\n"));
        assert!(topics < all.find("\nretention.ms\n"));
        let explained = |text: &str| {
            [NO_EFFECT, NOT_IN_KAFKA].map(|word| text.contains(&format!("\n\"{word}\": ")))
        };
        assert_eq!(explained(&all), [true, true]);
        assert_eq!(explained(&text("num.partitions")), [false, false]);
        assert!(!text("num.partitions").contains("topic create"));
        assert_eq!(explained(&text("disk.reserve.bytes")), [false, true]);
    }

    #[test]
    fn json_is_quoted() {
        assert_eq!(json_string("a\"b\\c\nd"), "\"a\\\"b\\\\c\\u000ad\"");
        assert!(json("num.partitions").contains("\"default\": \"1\""));
        assert!(json("memory").contains("\"default\": null"));
    }

    /// `docs/configuration.md` is this table; write it again with `VLTAVA_WRITE_DOCS=1 cargo test
    /// -p vltava --lib render`.
    #[test]
    fn the_page_in_docs_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
        if std::env::var_os("VLTAVA_WRITE_DOCS").is_some() {
            std::fs::write(path, markdown()).expect("docs/ can be written");
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(written == markdown(), "docs/configuration.md differs; see this test's comment");
    }
}
