//! How a command fails: a sentence for a person, and a number for a script.
//!
//! | exit code | means |
//! |---|---|
//! | 0 | done |
//! | 1 | it was tried, and failed: refused by the broker or by the system |
//! | 2 | nothing was tried: arguments or settings are wrong (clap's own exit code, too) |
//! | 3 | no broker could be reached, or not in time |
//! | 4 | `inspect` or `repair` found damage |

use std::fmt;
use std::io;
use std::process::ExitCode;

use vltava_client::error::ClientError;
use vltava_protocol::batch_builder::BuildError;
use vltava_protocol::error_code::ErrorCode;

/// Tried, and failed.
pub const REFUSED: u8 = 1;
/// Arguments or settings are wrong.
pub const USAGE: u8 = 2;
/// Nobody answers.
pub const UNREACHABLE: u8 = 3;
/// A file is damaged.
pub const DAMAGED: u8 = 4;

/// A failed command.
#[derive(Debug)]
pub struct CliError {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl CliError {
    /// What failed, and why.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, code: REFUSED }
    }

    /// Arguments that make no sense together.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(message).with_code(USAGE)
    }

    /// What to do about it.
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What else is to be known, behind the message.
    pub fn with_context(mut self, context: impl AsRef<str>) -> Self {
        self.message = format!("{}\n{}", self.message, context.as_ref());
        self
    }

    /// What failed, and why, without what to do about it.
    pub fn message(&self) -> String {
        plain(&self.message)
    }

    /// The exit code.
    pub fn with_code(mut self, code: u8) -> Self {
        self.code = code;
        self
    }

    /// Nothing failed: whoever read standard output has seen enough.
    pub fn is_quiet(&self) -> bool {
        self.message.is_empty()
    }

    /// What the process ends with.
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())?;
        match &self.hint {
            Some(hint) => write!(f, "\n{hint}"),
            None => Ok(()),
        }
    }
}

/// What the system says, for people: without the numbers of its errors, and without saying of a
/// name that looking it up failed, before it says why.
pub(super) fn plain(text: &str) -> String {
    const NUMBER: &str = " (os error ";
    let mut plain = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, behind)) = rest.split_once(NUMBER) {
        plain.push_str(before);
        let end = behind.find(|c: char| !c.is_ascii_digit()).unwrap_or(behind.len());
        rest = match behind[end..].strip_prefix(')') {
            Some(behind) if end > 0 => behind,
            _ => {
                plain.push_str(NUMBER);
                behind
            }
        };
    }
    plain.push_str(rest);
    plain.replace("failed to lookup address information: ", "")
}

impl std::error::Error for CliError {}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let hint = hint_for(&error);
        let code = match error {
            ClientError::Address(_) => USAGE,
            ref error if error.is_unreachable() => UNREACHABLE,
            ClientError::TimedOut { .. } => UNREACHABLE,
            _ => REFUSED,
        };
        Self { message: error.to_string(), hint: hint.map(str::to_owned), code }
    }
}

fn hint_for(error: &ClientError) -> Option<&'static str> {
    match error {
        ClientError::NoBroker(failures)
            if failures.iter().any(|failure| {
                matches!(failure, ClientError::Foreign(_) | ClientError::Closed(_))
            }) =>
        {
            Some("Is it the port of a broker's listener, and does that speak PLAINTEXT?")
        }
        ClientError::NoBroker(_) => {
            Some("Start one with `vltava serve`, or name another with --bootstrap HOST:PORT.")
        }
        ClientError::Missing(what) if what.starts_with("topic ") => {
            Some("`vltava topic list` shows what there is, `vltava topic create` makes one.")
        }
        ClientError::Missing(what) if what.starts_with("group ") => {
            Some("`vltava group list` shows what there is.")
        }
        ClientError::TimedOut { last, .. } => hint_for(last),
        ClientError::Broker { code, .. } => match *code {
            ErrorCode::TOPIC_ALREADY_EXISTS => Some("`vltava topic describe` shows it."),
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION => {
                Some("`vltava topic list` shows what there is, `vltava topic create` makes one.")
            }
            ErrorCode::LEADER_NOT_AVAILABLE => Some(
                "`vltava topic describe` shows which partitions have a leader; the broker's log \
                 says why others have none.",
            ),
            ErrorCode::KAFKA_STORAGE_ERROR => Some("The broker's log says why."),
            ErrorCode::MESSAGE_TOO_LARGE => {
                Some("The topic's setting max.message.bytes limits how large a batch may be.")
            }
            ErrorCode::INVALID_CONFIG => Some("`vltava config` lists the settings of topics."),
            ErrorCode::INVALID_REPLICATION_FACTOR => {
                Some("A topic cannot have more replicas than the cluster has brokers.")
            }
            _ => None,
        },
        _ => None,
    }
}

impl From<BuildError> for CliError {
    fn from(error: BuildError) -> Self {
        ClientError::from(error).into()
    }
}

/// A closed pipe ends a command quietly; other failures of standard output are told.
impl From<io::Error> for CliError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new("").with_code(0);
        }
        Self::new(format!("cannot write to standard output: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::plain;

    #[test]
    fn errors_of_the_system_are_told_in_words() {
        for (text, told) in [
            ("a: Connection refused (os error 111)", "a: Connection refused"),
            ("x (os error 2) and y (os error 13); z", "x and y; z"),
            ("x (os error two)", "x (os error two)"),
            ("x (os error 2", "x (os error 2"),
            ("a:1: failed to lookup address information: No such name", "a:1: No such name"),
            ("", ""),
        ] {
            assert_eq!(plain(text), told);
        }
    }
}
