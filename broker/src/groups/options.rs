//! What an operator may choose about groups. Plain values: this room knows no configuration names.

/// The settings of group coordination; each field names Kafka's setting for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long a group that was empty waits for more members, in ms; each that comes extends it
    /// (`group.initial.rebalance.delay.ms`).
    pub initial_rebalance_delay_ms: u64,
    /// Shortest session timeout a member may ask for, in ms (`group.min.session.timeout.ms`).
    pub session_timeout_ms_min: i32,
    /// Longest session timeout a member may ask for, in ms (`group.max.session.timeout.ms`).
    pub session_timeout_ms_max: i32,
    /// Members of one group, at most (`group.max.size`).
    pub group_members_max: usize,
    /// How long a new member's first JoinGroup may stay parked, in ms. A constant of Kafka's.
    pub new_member_join_timeout_ms: u64,
    /// Length of the text beside a committed offset, at most, counted as Kafka counts it: in UTF-16
    /// units (`offset.metadata.max.bytes`).
    pub offset_metadata_units_max: usize,
    /// How long offsets outlive their use, in ms (`offsets.retention.minutes`).
    pub offsets_retention_ms: i64,
    /// Time from one sweep for expired offsets to the next, in ms
    /// (`offsets.retention.check.interval.ms`).
    pub offsets_check_interval_ms: u64,
    /// Bytes of keys and values of one outcome, at most: what one batch of the log may hold
    /// (`max.message.bytes` of `__consumer_offsets`).
    pub batch_bytes_max: usize,
    /// Bytes of all the protocols that one member may offer. Kafka has no bound; ours is what
    /// could never be written into a record anyway.
    pub member_protocols_bytes_max: usize,
    /// Bytes that the states and sessions of all partitions of a shard may hold, about; above it
    /// nothing new is taken in (`COORDINATOR_NOT_AVAILABLE`, which clients try again: a coordinator
    /// that has room again goes on where it was). Kafka has no bound.
    pub memory_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            initial_rebalance_delay_ms: 3_000,
            session_timeout_ms_min: 6_000,
            session_timeout_ms_max: 1_800_000,
            group_members_max: i32::MAX.unsigned_abs() as usize,
            new_member_join_timeout_ms: 300_000,
            offset_metadata_units_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            offsets_check_interval_ms: 600_000,
            batch_bytes_max: 1_000_000,
            member_protocols_bytes_max: 1_000_000,
            memory_bytes_max: usize::MAX,
        }
    }
}
