//! Arguments that several commands share.

use std::str::FromStr;
use std::time::Duration;

use vltava_client::blocking::{Address, Cluster, ClusterOptions};
use vltava_protocol::types::Str;

use crate::cli::CliError;

/// How a cluster is reached.
#[derive(Debug, clap::Args)]
pub struct ClusterArguments {
    /// A broker of the cluster, or several with commas; the others are found through it
    #[arg(long, short = 'b', value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// How long to retry what may succeed later: a lost connection, a partition without a leader
    #[arg(
        long,
        value_name = "SECONDS",
        default_value = "30",
        allow_negative_numbers = true,
        value_parser = whole_number::<u64>
    )]
    timeout: u64,
}

impl ClusterArguments {
    /// Connects.
    pub(super) fn connect(&self) -> Result<Cluster, CliError> {
        let options = ClusterOptions {
            client_id: Str::from_static("vltava"),
            retry_for: Duration::from_secs(self.timeout),
        };
        Ok(Cluster::connect(Address::list(&self.bootstrap)?, options)?)
    }

    /// How long to try again, in milliseconds.
    pub(super) fn timeout_ms(&self) -> u64 {
        self.timeout.saturating_mul(1000)
    }
}

/// A number of things: 0 or more.
pub(super) fn whole_number<T: FromStr>(text: &str) -> Result<T, &'static str> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number).ok_or("write a whole number")
}

/// A number that may be negative.
pub(super) fn integer(text: &str) -> Result<i32, &'static str> {
    text.parse().map_err(|_| "write a whole number")
}

/// A number of things of which there must be one: 1 or more.
pub(super) fn at_least_one<T: FromStr + Default + PartialEq>(
    text: &str,
) -> Result<T, &'static str> {
    let number = whole_number(text).ok().filter(|number| *number != T::default());
    number.ok_or("write a whole number from 1 on")
}

/// The name of a topic or of a group. What else it may hold, the broker knows.
pub(super) fn name(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("a name cannot be empty") } else { Ok(text.to_owned()) }
}

/// A name and a value, as `name=value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    pub(super) name: String,
    pub(super) value: String,
}

impl std::str::FromStr for Pair {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
        if name.is_empty() {
            return Err("the name before = is missing");
        }
        Ok(Self { name: name.to_owned(), value: value.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_told_in_words() {
        assert_eq!(whole_number("0"), Ok(0_u64));
        assert_eq!(whole_number("2147483647"), Ok(i32::MAX));
        for text in ["", "-1", "+1", "x", "1.5", "2147483648"] {
            assert_eq!(whole_number::<i32>(text), Err("write a whole number"), "{text}");
        }
        assert_eq!(at_least_one("1"), Ok(1_i16));
        assert!(at_least_one::<i16>("0").is_err() && at_least_one::<i16>("-1").is_err());
    }
}
