//! What this room tells those above it, and asks them.

use std::sync::Arc;

use bytes::Bytes;

use super::greeting::{Introduction, Refusal};
use super::link::SessionId;
use super::message::GroupMessage;
use crate::metadata::image::PartitionId;

/// One shard's part of whoever uses the connections. Each shard has its own.
///
/// For each node, on each shard: `peer_up`, then `received` and `requested`, then `peer_down`, then
/// perhaps `peer_up` with a higher number. What one shard of the other node said about one group
/// comes in its order, with nothing left out, as long as the session lasts; what was said last
/// before its end may be lost, on both sides.
pub trait PeerEvents: 'static {
    /// Whether this node may be talked to. Asked on shard 0, by both sides, before each session.
    /// Protocol version, cluster ids that differ, and another disk under the number of a node that
    /// is up are refused before.
    ///
    /// # Errors
    /// The reason, for both operators.
    fn admit(&self, introduction: &Introduction) -> Result<(), Refusal>;

    /// A session begins: from now on the node can be sent to from this shard. Nothing of it comes
    /// before this completes.
    async fn peer_up(&self, session: SessionId, introduction: &Arc<Introduction>);

    /// It has ended: nothing of it comes any more, and what was not answered may be lost. The next
    /// one begins when this has completed.
    async fn peer_down(&self, session: SessionId);

    /// The shard of this node that owns a group's replica.
    fn shard_of(&self, group: PartitionId) -> usize;

    /// Messages for groups of this shard have come. What must keep their order happens before the
    /// first await. Until this completes, at most a window's worth more is read from that lane: so
    /// the other side is slowed down. A payload is a slice of its frame and keeps all of that in
    /// memory.
    async fn received(&self, from: SessionId, messages: Vec<GroupMessage>);

    /// A room of the other node asks this node's room `kind`; the answer. Many may be under way.
    async fn requested(&self, from: SessionId, kind: u16, body: Bytes) -> Bytes;
}
