//! Kafka's error codes: number, name, what a client may do about it, and a message of ours.

use std::fmt;

/// An error code of the protocol.
///
/// Any number may come off the wire; the associated constants are those that Kafka 4.4 knows.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ErrorCode(pub i16);

/// What a client does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Remedy {
    /// Nothing: the same request would fail again.
    Final,
    /// The same request may succeed later.
    Retry,
    /// As `Retry`, and the client asks for fresh metadata before.
    Refresh,
}

struct Entry {
    code: i16,
    name: &'static str,
    remedy: Remedy,
    message: &'static str,
}

impl ErrorCode {
    /// Whether this is success.
    pub const fn is_none(self) -> bool {
        self.0 == 0
    }

    /// Kafka's name for it; `None` for a number that Kafka 4.4 does not know.
    pub fn known_name(self) -> Option<&'static str> {
        self.entry().map(|entry| entry.name)
    }

    /// Kafka's name for it. A number that Kafka 4.4 does not know is an unknown server error.
    pub fn name(self) -> &'static str {
        self.known_name().unwrap_or("UNKNOWN_SERVER_ERROR")
    }

    /// Whether the same request may succeed later.
    pub fn is_retriable(self) -> bool {
        self.entry().is_some_and(|entry| entry.remedy != Remedy::Final)
    }

    /// Whether a client asks for fresh metadata before it tries again.
    pub fn invalidates_metadata(self) -> bool {
        self.entry().is_some_and(|entry| entry.remedy == Remedy::Refresh)
    }

    /// What it says, in one sentence without a full stop.
    pub fn message(self) -> &'static str {
        match self.entry() {
            Some(entry) => entry.message,
            None => "An error code that this version does not know",
        }
    }

    /// All codes that Kafka 4.4 knows, in the order of their numbers.
    pub fn all() -> impl Iterator<Item = Self> {
        ENTRIES.iter().map(|entry| Self(entry.code))
    }

    /// The table begins at -1 and leaves no number out.
    fn entry(self) -> Option<&'static Entry> {
        let at = usize::try_from(i32::from(self.0) + 1).ok()?;
        ENTRIES.get(at)
    }
}

impl fmt::Debug for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.known_name() {
            Some(name) => f.pad(name),
            None => write!(f, "ErrorCode({})", self.0),
        }
    }
}

macro_rules! error_codes {
    ($($code:literal $name:ident $remedy:ident $message:literal)*) => {
        impl ErrorCode {
            $(
                #[doc = concat!($message, ".")]
                pub const $name: Self = Self($code);
            )*
        }

        const ENTRIES: &[Entry] = &[
            $(Entry {
                code: $code,
                name: stringify!($name),
                remedy: Remedy::$remedy,
                message: $message,
            },)*
        ];
    };
}

#[rustfmt::skip]
error_codes! {
    -1 UNKNOWN_SERVER_ERROR Final "The server met an error that has no code of its own"
    0 NONE Final "No error"
    1 OFFSET_OUT_OF_RANGE Final "The offset is outside the range that the log holds"
    2 CORRUPT_MESSAGE Retry "The records fail their checksum, or are malformed"
    3 UNKNOWN_TOPIC_OR_PARTITION Refresh "This server does not host this topic or partition"
    4 INVALID_FETCH_SIZE Final "The fetch size is invalid"
    5 LEADER_NOT_AVAILABLE Refresh "The partition has no leader at the moment"
    6 NOT_LEADER_OR_FOLLOWER Refresh "This server is not the leader or follower of the partition"
    7 REQUEST_TIMED_OUT Retry "The request was not finished within its time"
    8 BROKER_NOT_AVAILABLE Final "The broker is not available"
    9 REPLICA_NOT_AVAILABLE Refresh "The replica is not available"
    10 MESSAGE_TOO_LARGE Final "The batch is larger than the server accepts"
    11 STALE_CONTROLLER_EPOCH Final "The controller has a newer epoch"
    12 OFFSET_METADATA_TOO_LARGE Final "The metadata of a committed offset is too long"
    13 NETWORK_EXCEPTION Refresh "The connection was lost before the answer came"
    14 COORDINATOR_LOAD_IN_PROGRESS Retry
        "The coordinator is still loading the state of this group or transactional id"
    15 COORDINATOR_NOT_AVAILABLE Retry "The coordinator is not available"
    16 NOT_COORDINATOR Retry "This server is not the coordinator"
    17 INVALID_TOPIC_EXCEPTION Final
        "The topic's name is invalid, or the topic may not be written to"
    18 RECORD_LIST_TOO_LARGE Final "The records are larger than a segment can hold"
    19 NOT_ENOUGH_REPLICAS Retry "Fewer replicas are in sync than the topic demands"
    20 NOT_ENOUGH_REPLICAS_AFTER_APPEND Retry
        "The records were written, but to fewer in-sync replicas than the topic demands"
    21 INVALID_REQUIRED_ACKS Final "The value of acks is invalid"
    22 ILLEGAL_GENERATION Final "The generation is not the group's current one"
    23 INCONSISTENT_GROUP_PROTOCOL Final "The member's protocols do not fit those of the group"
    24 INVALID_GROUP_ID Final "The group's id is invalid"
    25 UNKNOWN_MEMBER_ID Final "The group does not know this member"
    26 INVALID_SESSION_TIMEOUT Final
        "The session timeout is outside the range that the server allows"
    27 REBALANCE_IN_PROGRESS Final "The group is rebalancing: join again"
    28 INVALID_COMMIT_OFFSET_SIZE Final "The offset commit is too large"
    29 TOPIC_AUTHORIZATION_FAILED Final "Not authorised for the topic"
    30 GROUP_AUTHORIZATION_FAILED Final "Not authorised for the group"
    31 CLUSTER_AUTHORIZATION_FAILED Final "Not authorised for the cluster"
    32 INVALID_TIMESTAMP Final "The timestamp of a record is outside the allowed range"
    33 UNSUPPORTED_SASL_MECHANISM Final "The server does not offer this SASL mechanism"
    34 ILLEGAL_SASL_STATE Final "The request is out of place at this step of the SASL exchange"
    35 UNSUPPORTED_VERSION Final "The server does not support this version of the API"
    36 TOPIC_ALREADY_EXISTS Final "A topic of this name exists"
    37 INVALID_PARTITIONS Final "The number of partitions is invalid"
    38 INVALID_REPLICATION_FACTOR Final
        "The replication factor is below 1 or above the number of brokers"
    39 INVALID_REPLICA_ASSIGNMENT Final "The assignment of replicas is invalid"
    40 INVALID_CONFIG Final "The configuration is invalid"
    41 NOT_CONTROLLER Retry "This server is not the controller"
    42 INVALID_REQUEST Final "The request contradicts itself, or what the protocol allows"
    43 UNSUPPORTED_FOR_MESSAGE_FORMAT Final
        "The message format on the server does not support the request"
    44 POLICY_VIOLATION Final "A policy of the server forbids the request"
    45 OUT_OF_ORDER_SEQUENCE_NUMBER Final "The sequence number does not follow the last one"
    46 DUPLICATE_SEQUENCE_NUMBER Final "The sequence number was used before"
    47 INVALID_PRODUCER_EPOCH Final "The producer's epoch is older than the current one"
    48 INVALID_TXN_STATE Final "The transaction is in no state that allows this"
    49 INVALID_PRODUCER_ID_MAPPING Final "The producer id does not belong to this transactional id"
    50 INVALID_TRANSACTION_TIMEOUT Final "The transaction timeout is above what the server allows"
    51 CONCURRENT_TRANSACTIONS Retry "Another operation of the same transaction is under way"
    52 TRANSACTION_COORDINATOR_FENCED Final "A newer transaction coordinator exists"
    53 TRANSACTIONAL_ID_AUTHORIZATION_FAILED Final "Not authorised for the transactional id"
    54 SECURITY_DISABLED Final "The server has no security features enabled"
    55 OPERATION_NOT_ATTEMPTED Final "Not attempted, because an operation before it failed"
    56 KAFKA_STORAGE_ERROR Refresh "A disk failed while the log was accessed"
    57 LOG_DIR_NOT_FOUND Final "The log directory does not exist on this server"
    58 SASL_AUTHENTICATION_FAILED Final "Authentication failed"
    59 UNKNOWN_PRODUCER_ID Final "The server holds no state for this producer id"
    60 REASSIGNMENT_IN_PROGRESS Final "The partition's replicas are being moved"
    61 DELEGATION_TOKEN_AUTH_DISABLED Final "Delegation tokens are disabled"
    62 DELEGATION_TOKEN_NOT_FOUND Final "The delegation token does not exist on this server"
    63 DELEGATION_TOKEN_OWNER_MISMATCH Final "The delegation token belongs to another principal"
    64 DELEGATION_TOKEN_REQUEST_NOT_ALLOWED Final
        "Delegation tokens may not be asked for over this connection"
    65 DELEGATION_TOKEN_AUTHORIZATION_FAILED Final "Not authorised for the delegation token"
    66 DELEGATION_TOKEN_EXPIRED Final "The delegation token has expired"
    67 INVALID_PRINCIPAL_TYPE Final "The type of a principal is not supported"
    68 NON_EMPTY_GROUP Final "The group still has members"
    69 GROUP_ID_NOT_FOUND Final "The group does not exist"
    70 FETCH_SESSION_ID_NOT_FOUND Retry "The fetch session does not exist"
    71 INVALID_FETCH_SESSION_EPOCH Retry "The fetch session has another epoch"
    72 LISTENER_NOT_FOUND Refresh
        "The leader has no listener of the name that the client came through"
    73 TOPIC_DELETION_DISABLED Final "Deletion of topics is disabled"
    74 FENCED_LEADER_EPOCH Refresh "The leader epoch is older than the server's"
    75 UNKNOWN_LEADER_EPOCH Retry "The leader epoch is newer than the server's"
    76 UNSUPPORTED_COMPRESSION_TYPE Final
        "The client does not understand the compression that the records have"
    77 STALE_BROKER_EPOCH Final "The broker's epoch is stale"
    78 OFFSET_NOT_AVAILABLE Retry "The leader does not know its high watermark yet"
    79 MEMBER_ID_REQUIRED Final "A member id is assigned: join again with it"
    80 PREFERRED_LEADER_NOT_AVAILABLE Refresh "The preferred leader is not available"
    81 GROUP_MAX_SIZE_REACHED Final "The group has as many members as the server allows"
    82 FENCED_INSTANCE_ID Final "Another member took over this group instance id"
    83 ELIGIBLE_LEADERS_NOT_AVAILABLE Refresh "No replica that may lead is available"
    84 ELECTION_NOT_NEEDED Refresh "The partition needs no election"
    85 NO_REASSIGNMENT_IN_PROGRESS Final "The partition's replicas are not being moved"
    86 GROUP_SUBSCRIBED_TO_TOPIC Final "A member of the group still subscribes to the topic"
    87 INVALID_RECORD Final "A record is invalid: the whole batch was refused"
    88 UNSTABLE_OFFSET_COMMIT Retry "Offsets of an unfinished transaction stand in the way"
    89 THROTTLING_QUOTA_EXCEEDED Retry "A quota is used up: try again later"
    90 PRODUCER_FENCED Final "A newer producer uses the same transactional id"
    91 RESOURCE_NOT_FOUND Final "The resource does not exist"
    92 DUPLICATE_RESOURCE Final "The resource exists"
    93 UNACCEPTABLE_CREDENTIAL Final "The credential does not meet the server's demands"
    94 INCONSISTENT_VOTER_SET Final "The voter sets of the two sides differ"
    95 INVALID_UPDATE_VERSION Final "The version of an update is invalid"
    96 FEATURE_UPDATE_FAILED Final "The features could not be updated"
    97 PRINCIPAL_DESERIALIZATION_FAILURE Final "The forwarded principal could not be read"
    98 SNAPSHOT_NOT_FOUND Final "The snapshot does not exist"
    99 POSITION_OUT_OF_RANGE Final "The position lies outside the snapshot"
    100 UNKNOWN_TOPIC_ID Refresh "This server does not know the topic id"
    101 DUPLICATE_BROKER_REGISTRATION Final "A broker of this id is registered"
    102 BROKER_ID_NOT_REGISTERED Final "No broker of this id is registered"
    103 INCONSISTENT_TOPIC_ID Refresh "The topic id in the log differs from the one in the request"
    104 INCONSISTENT_CLUSTER_ID Final "The cluster id differs from the server's"
    105 TRANSACTIONAL_ID_NOT_FOUND Final "The transactional id does not exist"
    106 FETCH_SESSION_TOPIC_ID_ERROR Retry
        "The topic ids of the fetch session do not fit the request"
    107 INELIGIBLE_REPLICA Final "The replica may not become part of the in-sync set"
    108 NEW_LEADER_ELECTED Final "The partition has a new leader"
    109 OFFSET_MOVED_TO_TIERED_STORAGE Final "The offset has moved to tiered storage"
    110 FENCED_MEMBER_EPOCH Final "The member's epoch was fenced by the coordinator: join again"
    111 UNRELEASED_INSTANCE_ID Final "Another member still uses this group instance id"
    112 UNSUPPORTED_ASSIGNOR Final "The server does not know this assignor"
    113 STALE_MEMBER_EPOCH Final "The member's epoch is older than the coordinator's"
    114 MISMATCHED_ENDPOINT_TYPE Final "The endpoint is of another kind than the request needs"
    115 UNSUPPORTED_ENDPOINT_TYPE Final "The server does not support this kind of endpoint"
    116 UNKNOWN_CONTROLLER_ID Final "The controller's id is unknown"
    117 UNKNOWN_SUBSCRIPTION_ID Final "The telemetry subscription is unknown: ask for a new one"
    118 TELEMETRY_TOO_LARGE Final "The telemetry is larger than the server accepts"
    119 INVALID_REGISTRATION Final "The controller considers the broker's registration invalid"
    120 TRANSACTION_ABORTABLE Final "The transaction can only be aborted now"
    121 INVALID_RECORD_STATE Final "The record is in no state that allows this acknowledgement"
    122 SHARE_SESSION_NOT_FOUND Retry "The share session does not exist"
    123 INVALID_SHARE_SESSION_EPOCH Retry "The share session has another epoch"
    124 FENCED_STATE_EPOCH Final "The state epoch of the share partition was fenced"
    125 INVALID_VOTER_KEY Final "The voter's id and directory id do not fit"
    126 DUPLICATE_VOTER Final "The voter is part of the set"
    127 VOTER_NOT_FOUND Final "The voter is not part of the set"
    128 INVALID_REGULAR_EXPRESSION Final "The regular expression is invalid"
    129 REBOOTSTRAP_REQUIRED Final
        "The client's metadata is stale: start again from the bootstrap servers"
    130 STREAMS_INVALID_TOPOLOGY Final "The topology is invalid"
    131 STREAMS_INVALID_TOPOLOGY_EPOCH Final "The topology's epoch is invalid"
    132 STREAMS_TOPOLOGY_FENCED Final "The topology's epoch was fenced"
    133 SHARE_SESSION_LIMIT_REACHED Retry "The server holds as many share sessions as it allows"
    134 GROUP_DELETION_FAILED Final "The group could not be deleted"
    135 STREAMS_TOPOLOGY_DESCRIPTION_UPDATE_FAILED Final
        "The description of the topology could not be stored"
    136 CONTROLLER_ID_NOT_REGISTERED Final "No controller of this id is registered"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_has_no_gap() {
        for (at, entry) in ENTRIES.iter().enumerate() {
            assert_eq!(usize::try_from(i32::from(entry.code) + 1), Ok(at), "{}", entry.name);
            assert_eq!(ErrorCode(entry.code).name(), entry.name);
        }
        assert_eq!(ENTRIES.len(), 138);
    }

    #[test]
    fn unknown_numbers_are_final() {
        for code in [-2, i16::MIN, 137, i16::MAX] {
            assert_eq!(ErrorCode(code).known_name(), None);
            assert!(!ErrorCode(code).is_retriable());
        }
    }

    #[test]
    fn remedies_are_kafkas() {
        assert!(ErrorCode::NOT_LEADER_OR_FOLLOWER.invalidates_metadata());
        assert!(ErrorCode::NOT_COORDINATOR.is_retriable());
        assert!(!ErrorCode::NOT_COORDINATOR.invalidates_metadata());
        assert!(!ErrorCode::OFFSET_OUT_OF_RANGE.is_retriable());
        assert_eq!(ErrorCode::all().filter(|code| code.is_retriable()).count(), RETRIABLE);
    }

    const RETRIABLE: usize = 32;
}
