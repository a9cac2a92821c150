//! What replicas say to each other, as this room carries it. `schema/peer.fbs` has the fields on
//! the wire.

use vltava_protocol::encode::Records;
use vltava_protocol::types::Uuid;

use crate::metadata::image::PartitionId;
use crate::raft::history::What;
use crate::raft::membership::Membership;
use crate::raft::message::Message;

/// From one replica of a group to another. Their nodes are those of the session.
#[derive(Clone, Debug)]
pub struct GroupMessage {
    /// The group.
    pub group: PartitionId,
    /// The disk of the one who says it.
    pub from_disk: Uuid,
    /// The disk that it is for.
    pub to_disk: Uuid,
    /// The generation of the group that it speaks of; -1: as it was founded.
    pub generation: i32,
    /// What is said.
    pub body: Message,
    /// Batches, of a [`Message::Append`] only. As they lie in memory or in files where they are
    /// sent; one piece in memory where they have arrived.
    pub payload: Records,
}

/// Estimated bytes on the wire of a message without marks and members, more rather than less.
const BASE_BYTES: usize = 192;
/// The same of a mark, without members.
const MARK_BYTES: usize = 64;
/// Of one member.
const MEMBER_BYTES: usize = 32;

fn wire_bytes(members: &Membership) -> usize {
    MARK_BYTES + MEMBER_BYTES * members.seats().len()
}

impl GroupMessage {
    /// About how much it takes on the wire, and in a queue, without its payload; in bytes.
    pub fn wire_bytes(&self) -> usize {
        let of_mark = |what: &What| MARK_BYTES + what.members().map_or(0, wire_bytes);
        let rest = match &self.body {
            Message::Append { run, .. } => run.marks.iter().map(|mark| of_mark(&mark.what)).sum(),
            Message::Snapshot { base, .. } => wire_bytes(&base.members),
            _ => 0,
        };
        BASE_BYTES + rest
    }
}
