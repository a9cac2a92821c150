//! A scenario with some of its settings changed from outside: `--set run.duration_s=5`.
//!
//! A setting is named as in the file. Under an array of classes, a number names one of them, and no
//! number all of them: `producers.0.codec=lz4`, `producers.codec=lz4`.

use serde::Deserialize;
use toml::{Table, Value};

use crate::scenario::{Scenario, ScenarioError};

/// Why a setting cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    /// The scenario is none, or is none any more.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// It does not say what to change, and to what.
    #[error("`{0}` is not NAME=VALUE")]
    Unreadable(String),
    /// It names a class that the scenario does not have.
    #[error("`{0}`: the scenario has no such class")]
    NoSuchClass(String),
}

/// The scenario in `text`, with each of `settings`, `NAME=VALUE`, in its place.
///
/// # Errors
/// A setting that is none, or a scenario that cannot be run.
pub fn scenario_with(text: &str, settings: &[String]) -> Result<Scenario, OverrideError> {
    // What is wrong with a file is told by its line, and so before anything is changed.
    let unreadable = |error: toml::de::Error| OverrideError::Scenario(error.into());
    if settings.is_empty() {
        return Ok(Scenario::parse(text)?);
    }
    let mut table: Table = text.parse().map_err(unreadable)?;
    for setting in settings {
        for (name, value) in parsed(setting)? {
            put(&mut table, &name, value)
                .ok_or_else(|| OverrideError::NoSuchClass(setting.clone()))?;
        }
    }
    let scenario = Scenario::deserialize(table).map_err(unreadable)?;
    scenario.check()?;
    Ok(scenario)
}

/// As TOML reads it; what it cannot read is a word.
fn parsed(setting: &str) -> Result<Table, OverrideError> {
    let unreadable = || OverrideError::Unreadable(setting.to_owned());
    let (name, value) = setting.split_once('=').ok_or_else(unreadable)?;
    let word = Value::String(value.trim().to_owned());
    let (as_it_is, as_word) = (setting.parse(), format!("{name} = {word}").parse());
    as_it_is.or(as_word).map_err(|_| unreadable())
}

/// Puts a value into a table, or what it holds into the table of that name. `None` where it names a
/// class that is not there.
fn put(table: &mut Table, name: &str, value: Value) -> Option<()> {
    match (table.get_mut(name), value) {
        (Some(Value::Table(inner)), Value::Table(values)) => put_all(inner, values),
        (Some(Value::Array(classes)), Value::Table(values)) => put_classes(classes, values),
        (_, value) => {
            table.insert(name.to_owned(), value);
            Some(())
        }
    }
}

fn put_all(table: &mut Table, values: Table) -> Option<()> {
    values.into_iter().try_for_each(|(name, value)| put(table, &name, value))
}

fn put_classes(classes: &mut [Value], values: Table) -> Option<()> {
    for (name, value) in values {
        match (name.parse::<usize>(), value) {
            (Ok(number), Value::Table(values)) => {
                put_all(classes.get_mut(number)?.as_table_mut()?, values)?;
            }
            (_, value) => {
                for class in classes.iter_mut() {
                    put(class.as_table_mut()?, &name, value.clone())?;
                }
            }
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

    use super::*;
    use crate::scenario::{Acks, Codec, Size};

    const TEXT: &str = "title = 'x'\n[[producers]]\ncount = 2\n[[producers]]\ncodec = 'gzip'\n";

    fn with(settings: &[&str]) -> Result<Scenario, OverrideError> {
        let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
        scenario_with(TEXT, &settings)
    }

    #[test]
    fn settings_are_changed_in_their_place() {
        let scenario = with(&[
            "run.duration_s=5",
            "producers.codec=lz4",
            "producers.1.acks=1",
            "producers.0.records_per_second = 1e3",
            "producers.0.record_bytes={ min = 1, max = 9 }",
            "topics.configs.\"retention.bytes\"=\"7\"",
            "fill.bytes=64",
            "title=another",
        ]);
        // acks are words: a number is none.
        assert!(scenario.is_err());
        let scenario = with(&[
            "run.duration_s=5",
            "producers.codec=lz4",
            "producers.1.acks='1'",
            "producers.0.records_per_second = 1e3",
            "producers.0.record_bytes={ min = 1, max = 9 }",
            "topics.configs.\"retention.bytes\"=\"7\"",
            "fill.bytes=64",
            "title=another one",
        ]);
        let scenario = scenario.unwrap();
        assert_eq!((scenario.run.duration_s, scenario.title.as_str()), (5.0, "another one"));
        let [first, second] = scenario.producers.as_slice() else {
            panic!("{:?}", scenario.producers);
        };
        assert_eq!((first.count, first.codec, first.acks), (2, Codec::Lz4, Acks::All));
        assert_eq!(first.record_bytes, Size::Between { min: 1, max: 9 });
        assert_eq!(first.records_per_second, Some(1000.0));
        assert_eq!((second.codec, second.acks), (Codec::Lz4, Acks::Leader));
        assert_eq!(scenario.topics.configs["retention.bytes"], "7");
        assert_eq!(scenario.fill.unwrap().bytes, 64);
    }

    #[test]
    fn what_changes_nothing_that_there_is_is_refused() {
        let refused = |setting: &str| with(&[setting]).unwrap_err().to_string();
        assert!(refused("run.duration=5").contains("duration"), "a name that is not known");
        assert!(refused("producers.7.count=5").contains("no such class"));
        assert!(refused("duration").contains("NAME=VALUE"));
        assert!(refused("=5").contains("NAME=VALUE"));
        assert!(refused("producers.entropy=2").contains("entropy"));
        assert!(refused("producers.count=many").contains("many"));
        assert!(with(&[]).is_ok());
    }
}
