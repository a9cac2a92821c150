//! A "no", as it is told to a client.

use std::collections::BTreeSet;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

/// What stands more than once where each may stand once.
pub(super) fn repeated<T: Clone + Ord>(named: impl Iterator<Item = T>) -> BTreeSet<T> {
    let mut seen = BTreeSet::new();
    named.filter(|named| !seen.insert(named.clone())).collect()
}

/// Why something is not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    /// Kafka's code.
    pub error: ErrorCode,
    /// What a person reads.
    pub message: Str,
}

impl Refusal {
    pub fn new(error: ErrorCode, message: impl Into<String>) -> Self {
        Self { error, message: Str::from(message.into()) }
    }

    /// With the code's own words.
    pub fn plain(error: ErrorCode) -> Self {
        Self::new(error, error.message())
    }

    pub fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::INVALID_REQUEST, message)
    }

    pub fn invalid_assignment(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message)
    }
}
