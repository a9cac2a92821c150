//! What names a raft group on a disk.

use std::fmt;

use vltava_protocol::types::Uuid;

/// A raft group: that of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupKey {
    /// Its topic.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: i32,
}

impl fmt::Display for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "partition {} of topic {}", self.partition, self.topic_id)
    }
}
