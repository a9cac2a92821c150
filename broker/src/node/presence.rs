//! Who is there, as this node sees it: what Kafka says of brokers that are not fenced.

use std::collections::{BTreeMap, BTreeSet};

use vltava_protocol::types::Str;

use super::peers::SOFTWARE;
use super::view::Node;
use crate::runtime::Runtime;

impl<R: Runtime> Node<R> {
    /// The nodes that are there: this one, and those with which it has a session. What is told to
    /// one node may for a moment not be what is told to another.
    pub fn present(&self) -> BTreeSet<i32> {
        let mut present = self.surroundings().map(|near| near.peers.up()).unwrap_or_default();
        present.insert(self.parts.config.node_id);
        present
    }

    /// The programs that they run.
    pub fn software(&self) -> BTreeMap<i32, Str> {
        let near = self.surroundings();
        let introduction = |id: &i32| near.as_ref()?.peers.introduction_of(*id);
        let others = self.present().into_iter().filter_map(|id| {
            let software = introduction(&id)?.software.clone();
            Some((id, software))
        });
        let own = (self.parts.config.node_id, Str::from_static(SOFTWARE));
        others.chain([own]).collect()
    }
}
