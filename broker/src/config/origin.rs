//! Where a setting was given, and how a refusal names it: in the words of the person who gave it.

use std::fmt;
use std::sync::Arc;

use super::check::InvalidValue;

/// Where a setting was given. What stands later here goes before what stands earlier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A properties file.
    File {
        /// Its path, as the user wrote it.
        path: Arc<str>,
        /// The line, from 1.
        line: usize,
    },
    /// `--set name=value`.
    Set,
    /// A flag of the command line.
    Flag {
        /// Its name (`--data-dir`).
        name: &'static str,
        /// What stood behind it, which may be less than the setting's value: `--listen` has no
        /// name of a listener.
        typed: Arc<str>,
    },
}

impl Origin {
    /// What has the higher rank counts.
    pub(super) fn rank(&self) -> u8 {
        match self {
            Self::File { .. } => 1,
            Self::Set => 2,
            Self::Flag { .. } => 3,
        }
    }

    /// Says in one line why a setting from here is refused.
    pub(super) fn refusal(&self, name: &str, value: &str, error: &InvalidValue) -> String {
        let given = match self {
            Self::File { path, line } => format!("{path}:{line}: {name}={value}"),
            Self::Set => format!("--set {name}={value}"),
            Self::Flag { name, typed } if typed.is_empty() => format!("{name} \"\""),
            Self::Flag { name, typed } => format!("{name} {typed}"),
        };
        format!("{given}: {}", error.reason())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, line } => write!(f, "{path}:{line}"),
            Self::Set => f.write_str("--set"),
            Self::Flag { name, .. } => f.write_str(name),
        }
    }
}

/// A setting that somebody gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Given {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// Where.
    pub origin: Origin,
}
