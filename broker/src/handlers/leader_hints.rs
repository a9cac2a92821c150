//! Who leads, beside an answer that says that somebody else does (KIP-951): the client need not ask
//! for metadata first.

use std::collections::BTreeSet;
use std::sync::Arc;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

use super::client::Client;
use super::context::Services;
use crate::metadata::image::{Image, NodeEndpoint, PartitionId};
use crate::metadata::leaders::Leaders;
use crate::runtime::Runtime;

/// What one answer says of leaders. Most say nothing, and cost nothing.
pub struct LeaderHints<'a, R: Runtime> {
    services: &'a Services<R>,
    listener: &'a Str,
    known: Option<(Arc<Image>, Leaders)>,
    named: BTreeSet<i32>,
}

/// A node that an answer names, as the client reaches it.
pub struct NamedNode<'a> {
    /// Its number.
    pub id: i32,
    /// Its rack.
    pub rack: Option<&'a Str>,
    /// Where it is.
    pub endpoint: &'a NodeEndpoint,
}

impl<'a, R: Runtime> LeaderHints<'a, R> {
    /// Of an answer to this client.
    pub fn new(services: &'a Services<R>, client: &'a Client) -> Self {
        Self { services, listener: &client.listener, known: None, named: BTreeSet::new() }
    }

    /// The leader of a partition and its epoch, where the error says that another node leads and it
    /// is known which. The answer names its node, too.
    pub fn leader(&mut self, partition: PartitionId, error: ErrorCode) -> Option<(i32, i32)> {
        if !matches!(error, ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::FENCED_LEADER_EPOCH) {
            return None;
        }
        let node = &self.services.node;
        let (_, leaders) = self.known.get_or_insert_with(|| (node.image(), node.leaders()));
        let leader = leaders.leader(partition).filter(|leader| leader.node_id >= 0)?;
        self.named.insert(leader.node_id);
        Some((leader.node_id, leader.epoch))
    }

    /// The nodes of the leaders that were named, by number.
    pub fn nodes(&self) -> impl Iterator<Item = NamedNode<'_>> {
        let image = self.known.as_ref().map(|(image, _)| image);
        self.named.iter().filter_map(move |id| {
            let node = image?.node(*id)?;
            let endpoint = node.endpoint(self.listener)?;
            Some(NamedNode { id: *id, rack: node.rack.as_ref(), endpoint })
        })
    }
}
