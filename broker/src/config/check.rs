//! Validates one value of one setting. The words of the errors are Kafka's: clients show them, and
//! some match on them.

use std::fmt;

use super::definitions::{Check, Definition, Kind};

/// A value that its setting does not take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Of the wrong type, or outside what is allowed.
    #[error("Invalid value {value} for configuration {name}: {reason}")]
    Value {
        /// The setting.
        name: String,
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A list with nothing between two commas.
    #[error("Configuration '{0}' values must not be empty.")]
    EmptyElement(String),
    /// Settings that contradict each other, or that cannot be kept.
    #[error("{0}")]
    Conflict(String),
}

impl InvalidValue {
    /// A value with what is wrong with it.
    pub fn new(name: &str, value: impl fmt::Display, reason: impl Into<String>) -> Self {
        Self::Value { name: name.to_string(), value: value.to_string(), reason: reason.into() }
    }

    /// The setting, where it is one.
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::Value { name, .. } | Self::EmptyElement(name) => Some(name),
            Self::Conflict(_) => None,
        }
    }

    /// What is wrong, for a sentence that has named setting and value already.
    pub fn reason(&self) -> String {
        match self {
            Self::Value { reason, .. } => match reason.strip_prefix(NOT_A_NUMBER) {
                Some("SHORT") => whole_number(i16::MAX.into()),
                Some("INT") => whole_number(i32::MAX.into()),
                Some("LONG") => whole_number(i64::MAX),
                _ => lower_first(reason),
            },
            Self::EmptyElement(_) => "values must not be empty".to_string(),
            Self::Conflict(conflict) => conflict.clone(),
        }
    }
}

/// Kafka's words of a number, in front of its type.
const NOT_A_NUMBER: &str = "Not a number of type ";

fn whole_number(max: i64) -> String {
    format!("expected a whole number, at most {max}")
}

/// Kafka's words begin like a sentence.
fn lower_first(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or(String::new(), |first| first.to_lowercase().chain(rest).collect())
}

/// The value as it is described: trimmed, booleans in lower case, lists without white space and
/// repetitions. An error where the setting does not take it.
pub fn canonical(definition: &Definition, value: &str) -> Result<String, InvalidValue> {
    let trimmed = value.trim();
    let name = definition.name;
    let canonical = match definition.kind {
        Kind::Boolean => boolean(name, value)?.to_string(),
        Kind::Short => integer(definition, value, i16::MIN.into(), i16::MAX.into())?.to_string(),
        Kind::Int => integer(definition, value, i32::MIN.into(), i32::MAX.into())?.to_string(),
        Kind::Long => integer(definition, value, i64::MIN, i64::MAX)?.to_string(),
        Kind::Double => format!("{:?}", double(definition, value)?),
        Kind::Size => {
            size(name, value)?;
            trimmed.to_string()
        }
        Kind::String => {
            one_of(definition, trimmed)?;
            trimmed.to_string()
        }
        Kind::List => list(definition, value)?.join(","),
    };
    Ok(canonical)
}

/// `true` or `false`, in any case.
pub fn boolean(name: &str, value: &str) -> Result<bool, InvalidValue> {
    let trimmed = value.trim();
    if trimmed.eq_ignore_ascii_case("true") {
        Ok(true)
    } else if trimmed.eq_ignore_ascii_case("false") {
        Ok(false)
    } else {
        Err(InvalidValue::new(name, value, "Expected value to be either true or false"))
    }
}

/// Bytes with or without a unit: `1048576`, `512KiB`, `512MiB`, `4GiB`, `1TiB`; `4G` and `4GB` mean
/// the same.
pub fn size(name: &str, value: &str) -> Result<u64, InvalidValue> {
    let invalid =
        || InvalidValue::new(name, value, "Expected a number of bytes, such as 512MiB or 4GiB");
    let trimmed = value.trim();
    let digits_end = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
    let (digits, unit) = trimmed.split_at(digits_end);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(invalid()),
    };
    let number: u64 = digits.parse().map_err(|_| invalid())?;
    number.checked_mul(1 << shift).ok_or_else(invalid)
}

/// The elements of a list, trimmed, each once.
pub fn list(definition: &Definition, value: &str) -> Result<Vec<String>, InvalidValue> {
    let trimmed = value.trim();
    let mut elements: Vec<String> = Vec::new();
    if trimmed.is_empty() {
        return Ok(elements);
    }
    for element in trimmed.split(',').map(str::trim) {
        if element.is_empty() {
            return Err(InvalidValue::EmptyElement(definition.name.to_string()));
        }
        one_of(definition, element)?;
        if !elements.iter().any(|known| known == element) {
            elements.push(element.to_string());
        }
    }
    if definition.check == Check::ThrottledReplicas {
        throttled_replicas(definition.name, &elements)?;
    }
    Ok(elements)
}

/// A whole number within its type and what its check allows.
pub fn integer(
    definition: &Definition,
    value: &str,
    type_min: i64,
    type_max: i64,
) -> Result<i64, InvalidValue> {
    let name = definition.name;
    let number = value
        .trim()
        .parse::<i64>()
        .ok()
        .filter(|number| (type_min..=type_max).contains(number))
        .ok_or_else(|| {
            let kind = definition.kind.name();
            InvalidValue::new(name, value, format!("{NOT_A_NUMBER}{kind}"))
        })?;
    match definition.check {
        Check::AtLeast(min) => in_range(name, number, min, i64::MAX)?,
        Check::Between(min, max) => in_range(name, number, min, max)?,
        Check::BetweenOr(min, max, other) if number != other && !(min..=max).contains(&number) => {
            let reason = format!("Value must be between {min} and {max} or equal to {other}");
            return Err(InvalidValue::new(name, number, reason));
        }
        _ => {}
    }
    Ok(number)
}

fn in_range(name: &str, number: i64, min: i64, max: i64) -> Result<(), InvalidValue> {
    if number < min {
        Err(InvalidValue::new(name, number, format!("Value must be at least {min}")))
    } else if number > max {
        Err(InvalidValue::new(name, number, format!("Value must be no more than {max}")))
    } else {
        Ok(())
    }
}

/// A floating point number within what its check allows.
fn double(definition: &Definition, value: &str) -> Result<f64, InvalidValue> {
    let name = definition.name;
    let number: f64 = value
        .trim()
        .parse()
        .map_err(|_| InvalidValue::new(name, value, "Not a number of type DOUBLE"))?;
    if let Check::Between(min, max) = definition.check {
        #[expect(clippy::cast_precision_loss, reason = "bounds of ratios are 0 and 1")]
        let (least, most) = (min as f64, max as f64);
        if number < least {
            let reason = format!("Value must be at least {min}");
            return Err(InvalidValue::new(name, format!("{number:?}"), reason));
        }
        // Kafka lets NaN pass here; a ratio that is no number would compare false for ever after.
        if number > least && number <= most || number == least {
            return Ok(number);
        }
        let reason = format!("Value must be no more than {max}");
        return Err(InvalidValue::new(name, format!("{number:?}"), reason));
    }
    Ok(number)
}

fn one_of(definition: &Definition, value: &str) -> Result<(), InvalidValue> {
    match definition.check {
        Check::OneOf(allowed) if !allowed.contains(&value) => {
            let reason = format!("String must be one of: {}", allowed.join(", "));
            Err(InvalidValue::new(definition.name, value, reason))
        }
        _ => Ok(()),
    }
}

/// `*` alone, or pairs of numbers.
fn throttled_replicas(name: &str, elements: &[String]) -> Result<(), InvalidValue> {
    let is_pair = |element: &String| {
        element.split_once(':').is_some_and(|(partition, node)| {
            let is_number =
                |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            is_number(partition) && is_number(node)
        })
    };
    if elements == ["*"] || elements.iter().all(is_pair) {
        return Ok(());
    }
    let reason = format!(
        "{name} must be the literal '*' or a list of replicas in the following format: \
         [partitionId]:[brokerId],[partitionId]:[brokerId],..."
    );
    Err(InvalidValue::new(name, format!("[{}]", elements.join(", ")), reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::definitions::topic_setting;

    fn check(name: &str, value: &str) -> Result<String, String> {
        canonical(topic_setting(name).unwrap(), value).map_err(|error| error.to_string())
    }

    /// Setting, value, error: each as a real Kafka 4.4 said it.
    const KAFKAS_WORDS: &[(&str, &str, &str)] = &[
        (
            "segment.bytes",
            "1",
            "Invalid value 1 for configuration segment.bytes: Value must be at least 1048576",
        ),
        (
            "segment.bytes",
            "x",
            "Invalid value x for configuration segment.bytes: Not a number of type INT",
        ),
        (
            "segment.bytes",
            "",
            "Invalid value  for configuration segment.bytes: Not a number of type INT",
        ),
        (
            "segment.bytes",
            "99999999999",
            "Invalid value 99999999999 for configuration segment.bytes: Not a number of type \
             INT",
        ),
        (
            "retention.ms",
            "-2",
            "Invalid value -2 for configuration retention.ms: Value must be at least -1",
        ),
        (
            "min.cleanable.dirty.ratio",
            "2",
            "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no \
             more than 1",
        ),
        (
            "cleanup.policy",
            "foo",
            "Invalid value foo for configuration cleanup.policy: String must be one of: \
             compact, delete",
        ),
        ("cleanup.policy", "compact,", "Configuration 'cleanup.policy' values must not be empty."),
        (
            "compression.type",
            "GZIP",
            "Invalid value GZIP for configuration compression.type: String must be one of: \
             uncompressed, zstd, lz4, snappy, gzip, producer",
        ),
        (
            "compression.gzip.level",
            "0",
            "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 \
             and 9 or equal to -1",
        ),
        (
            "compression.lz4.level",
            "18",
            "Invalid value 18 for configuration compression.lz4.level: Value must be no more \
             than 17",
        ),
        (
            "preallocate",
            "yes",
            "Invalid value yes for configuration preallocate: Expected value to be either true \
             or false",
        ),
        (
            "leader.replication.throttled.replicas",
            "x",
            "Invalid value [x] for configuration leader.replication.throttled.replicas: \
             leader.replication.throttled.replicas must be the literal '*' or a list of \
             replicas in the following format: \
             [partitionId]:[brokerId],[partitionId]:[brokerId],...",
        ),
    ];

    #[test]
    fn errors_are_in_kafkas_words() {
        for (name, value, error) in KAFKAS_WORDS {
            assert_eq!(check(name, value).unwrap_err(), *error);
        }
    }

    #[test]
    fn what_passes_is_described_in_one_form() {
        for (name, value, canonical) in [
            ("preallocate", " TRUE ", "true"),
            ("segment.bytes", " +2000000 ", "2000000"),
            ("cleanup.policy", "compact, delete", "compact,delete"),
            ("cleanup.policy", "compact,compact", "compact"),
            ("cleanup.policy", "", ""),
            ("compression.gzip.level", "-1", "-1"),
            ("min.cleanable.dirty.ratio", "1", "1.0"),
            ("min.cleanable.dirty.ratio", "0", "0.0"),
            ("retention.bytes", "-5", "-5"),
            ("leader.replication.throttled.replicas", "*", "*"),
            ("leader.replication.throttled.replicas", "0:1,1:2", "0:1,1:2"),
        ] {
            assert_eq!(check(name, value).unwrap(), canonical, "{name}={value}");
        }
    }

    #[test]
    fn a_ratio_must_be_a_number() {
        for value in ["NaN", "-0.5", "1.5", "inf", "-inf"] {
            assert!(check("min.cleanable.dirty.ratio", value).is_err(), "{value}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("0", 0),
            ("1048576", 1 << 20),
            ("512MiB", 512 << 20),
            ("4GiB", 4 << 30),
            ("4G", 4 << 30),
            ("4 gb", 4 << 30),
            ("2TiB", 2 << 40),
            ("8k", 8 << 10),
        ] {
            assert_eq!(size("memory", text), Ok(bytes), "{text}");
        }
        for text in
            ["", "GiB", "4XiB", "-1", "1.5GiB", "99999999999999999999", "18446744073709551615KiB"]
        {
            assert!(size("memory", text).is_err(), "{text}");
        }
    }
}
