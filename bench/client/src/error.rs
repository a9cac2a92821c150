//! What can go wrong between a client and a cluster.

use std::io;

use thiserror::Error;
use vltava_protocol::api::ApiKey;
use vltava_protocol::batch_builder::BuildError;
use vltava_protocol::decode::DecodeError;
use vltava_protocol::encode::EncodeError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::frame::FrameError;
use vltava_protocol::types::Str;

/// A failure, in words that a person can act on.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The address cannot be understood.
    #[error("{0:?} is no address; write host:port")]
    Address(String),
    /// The connection could not be made, or broke.
    #[error("{address}: {source}")]
    Io {
        /// Whom it was to, host:port.
        address: String,
        /// What the system says.
        source: io::Error,
    },
    /// The other side closed the connection.
    #[error("{0}: the connection was closed")]
    Closed(String),
    /// None of the addresses answers: what each has failed with.
    #[error("no broker answers at {}", listed(.0))]
    NoBroker(Vec<ClientError>),
    /// What answers does not speak Kafka's protocol.
    #[error("{0}: what answers there does not speak Kafka's protocol")]
    Foreign(String),
    /// The other side does not serve what is needed.
    #[error("the broker does not serve {api} in a version that is known here")]
    Unsupported {
        /// Which API.
        api: ApiKey,
    },
    /// What came back is not Kafka's protocol.
    #[error("an answer to {api} that cannot be read: {source}")]
    Decode {
        /// What was asked.
        api: ApiKey,
        /// What is wrong.
        source: DecodeError,
    },
    /// What came back is no frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// An answer to another request than the oldest.
    #[error("an answer to a request that was not made")]
    Correlation,
    /// The request cannot be said in the version that the broker serves.
    #[error("the broker is too old for this: {0}")]
    Encode(#[from] EncodeError),
    /// A batch cannot be built.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The broker says no.
    #[error("{what}: {}", refusal(*.code, .message.as_ref()))]
    Broker {
        /// What was asked for.
        what: String,
        /// Its answer.
        code: ErrorCode,
        /// What it adds.
        message: Option<Str>,
    },
    /// The broker does not know of it.
    #[error("{0} does not exist")]
    Missing(String),
    /// It took too long, with what failed last.
    #[error("gave up after {seconds} s: {last}")]
    TimedOut {
        /// How long was tried.
        seconds: u64,
        /// The last failure.
        last: Box<ClientError>,
    },
}

impl ClientError {
    /// The broker's error for `what`, unless it is none.
    pub fn check(
        code: ErrorCode,
        message: Option<&Str>,
        what: impl Into<String>,
    ) -> Result<(), Self> {
        if code.is_none() {
            return Ok(());
        }
        Err(Self::Broker { what: what.into(), code, message: message.cloned() })
    }

    /// Whether another attempt may succeed.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Closed(_) | Self::NoBroker(_) => true,
            Self::Broker { code, .. } => code.is_retriable(),
            _ => false,
        }
    }

    /// Whether the cluster could not be reached, as opposed to having refused.
    pub fn is_unreachable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Closed(_) | Self::Foreign(_) | Self::NoBroker(_) => true,
            Self::TimedOut { last, .. } => last.is_unreachable(),
            _ => false,
        }
    }
}

/// Failures that name their addresses.
fn listed(failures: &[ClientError]) -> String {
    let failures: Vec<String> = failures.iter().map(ClientError::to_string).collect();
    failures.join("; ")
}

/// An error code with what the broker adds, or with what it means.
fn refusal(code: ErrorCode, message: Option<&Str>) -> String {
    match message.filter(|message| !message.is_empty()) {
        Some(message) => format!("{message} ({code})"),
        None => format!("{} ({code})", code.message()),
    }
}
