//! Everything that goes into a [`super::node::Node`], and everything that comes out.

/// What a node is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Input {
    /// This replica's log is durable below this offset.
    Flushed {
        /// The first offset that is not known to be durable.
        end_offset: i64,
    },
    /// A flush of this replica's log failed: nothing more can become durable here before a restart.
    LogEnded,
}

/// What a node asks of its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// What lies below this offset is committed: it may be served, and writes that end below it may
    /// be acknowledged.
    HighWatermark {
        /// The first offset that is not committed.
        offset: i64,
    },
    /// This replica no longer leads: writes that wait are refused.
    Resign,
}
