//! How two images differ: what a node must do to follow.

use std::sync::Arc;

use super::image::{Image, Node, Topic};
use super::sorted_map::Change;

/// How one image differs from another.
#[derive(Debug, Default, PartialEq)]
pub struct Delta<'a> {
    /// Topics that are new. One that was deleted and made again under its name is also among the
    /// removed.
    pub added_topics: Vec<&'a Arc<Topic>>,
    /// Topics that are gone.
    pub removed_topics: Vec<&'a Arc<Topic>>,
    /// Topics with new partitions, moved partitions or other settings.
    pub changed_topics: Vec<TopicChange<'a>>,
    /// Nodes that are new or registered anew.
    pub changed_nodes: Vec<&'a Node>,
    /// Nodes that are gone.
    pub removed_nodes: Vec<i32>,
}

/// A topic that stays, before and after.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TopicChange<'a> {
    /// As it was.
    pub before: &'a Arc<Topic>,
    /// As it is.
    pub after: &'a Arc<Topic>,
}

impl<'a> TopicChange<'a> {
    /// Whether its own settings differ.
    pub fn has_other_settings(&self) -> bool {
        self.before.settings != self.after.settings
    }
}

impl Image {
    /// What changed from `before` to this image.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> Delta<'a> {
        let mut delta = Delta::default();
        for Change { before, after, .. } in self.topics.changes_since(&before.topics) {
            match (before, after) {
                (Some(old), Some(new)) if old.id == new.id => {
                    delta.changed_topics.push(TopicChange { before: old, after: new });
                }
                (old, new) => {
                    delta.removed_topics.extend(old);
                    delta.added_topics.extend(new);
                }
            }
        }
        let is_new = |node: &&Arc<Node>| before.nodes.get(&node.id) != Some(node);
        delta.changed_nodes.extend(self.nodes.values().filter(is_new).map(Arc::as_ref));
        let is_gone = |id: &&i32| !self.nodes.contains_key(id);
        delta.removed_nodes.extend(before.nodes.keys().filter(is_gone));
        delta
    }
}
