//! Names: as the process sees them, and as they may survive a crash.

use std::collections::{BTreeMap, BTreeSet};

use super::image::{Chance, Image};

/// Number of a file or directory, whatever its name.
pub(super) type NodeId = u64;

/// The root directory.
pub(super) const ROOT: NodeId = 0;

#[derive(Debug)]
pub(super) enum Node {
    File(Image),
    Directory { current: BTreeMap<String, NodeId>, durable: BTreeMap<String, NodeId> },
}

/// A name in a directory, and what it stands for afterwards.
pub(super) type Edit = (NodeId, String, Option<NodeId>);

/// One atomic change of names, not yet synced in the directories named.
#[derive(Debug)]
struct NameChange {
    edits: Vec<Edit>,
    unsynced: BTreeSet<NodeId>,
}

/// All files and directories.
#[derive(Debug)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    next_node: NodeId,
    pending: Vec<NameChange>,
}

fn empty_directory() -> Node {
    Node::Directory { current: BTreeMap::new(), durable: BTreeMap::new() }
}

impl Tree {
    pub(super) fn new() -> Self {
        Self {
            nodes: BTreeMap::from([(ROOT, empty_directory())]),
            next_node: 1,
            pending: Vec::new(),
        }
    }

    pub(super) fn find(&self, path: &str) -> Option<NodeId> {
        let mut node = ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            node = *self.children(node)?.get(name)?;
        }
        Some(node)
    }

    /// The directory of a path, and its last name.
    pub(super) fn parent<'a>(&self, path: &'a str) -> Option<(NodeId, &'a str)> {
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let node = self.find(directory)?;
        self.children(node).map(|_| (node, name))
    }

    pub(super) fn children(&self, node: NodeId) -> Option<&BTreeMap<String, NodeId>> {
        match self.nodes.get(&node)? {
            Node::Directory { current, .. } => Some(current),
            Node::File(_) => None,
        }
    }

    pub(super) fn image(&self, node: NodeId) -> Option<&Image> {
        match self.nodes.get(&node)? {
            Node::File(image) => Some(image),
            Node::Directory { .. } => None,
        }
    }

    pub(super) fn image_mut(&mut self, node: NodeId) -> Option<&mut Image> {
        match self.nodes.get_mut(&node)? {
            Node::File(image) => Some(image),
            Node::Directory { .. } => None,
        }
    }

    pub(super) fn create(&mut self, directory: NodeId, name: &str, is_directory: bool) -> NodeId {
        let id = self.next_node;
        self.next_node += 1;
        let node = if is_directory { empty_directory() } else { Node::File(Image::default()) };
        self.nodes.insert(id, node);
        self.change(vec![(directory, name.to_owned(), Some(id))]);
        id
    }

    /// Changes names in the process's view, all at once; on the platter later, all at once.
    pub(super) fn change(&mut self, edits: Vec<Edit>) {
        for (directory, name, node) in &edits {
            self.edit(*directory, name, *node, false);
        }
        let unsynced = edits.iter().map(|edit| edit.0).collect();
        self.pending.push(NameChange { edits, unsynced });
    }

    pub(super) fn sync_dir(&mut self, directory: NodeId) {
        for change in &mut self.pending {
            change.unsynced.remove(&directory);
        }
        self.settle(|change| change.unsynced.is_empty());
    }

    /// Names of this directory are unknown from now on: some changes will never be on the platter.
    pub(super) fn fail_sync_dir(&mut self, directory: NodeId, chance: &mut Chance) {
        self.pending.retain(|change| !change.unsynced.contains(&directory) || chance.coin());
    }

    pub(super) fn crash(&mut self, chance: &mut Chance) {
        let survive_all = chance.below(3);
        self.settle(|_| survive_all == 0 || (survive_all == 1 && chance.coin()));
        self.pending.clear();
        for node in self.nodes.values_mut() {
            match node {
                Node::File(image) => image.crash(chance),
                Node::Directory { current, durable } => *current = durable.clone(),
            }
        }
    }

    /// Bytes that all files take.
    pub(super) fn used_bytes(&self) -> u64 {
        let images = self.nodes.values().filter_map(|node| match node {
            Node::File(image) => Some(image.current().len() as u64),
            Node::Directory { .. } => None,
        });
        images.sum()
    }

    /// Forgets files that have no name in either view, and that `is_open` does not know.
    pub(super) fn forget_unnamed(&mut self, is_open: impl Fn(NodeId) -> bool) {
        let mut named = BTreeSet::from([ROOT]);
        for node in self.nodes.values() {
            if let Node::Directory { current, durable } = node {
                named.extend(current.values().chain(durable.values()));
            }
        }
        for change in &self.pending {
            named.extend(change.edits.iter().filter_map(|edit| edit.2));
        }
        self.nodes.retain(|id, _| named.contains(id) || is_open(*id));
    }

    fn settle(&mut self, mut is_durable: impl FnMut(&NameChange) -> bool) {
        for change in std::mem::take(&mut self.pending) {
            if is_durable(&change) {
                for (directory, name, node) in &change.edits {
                    self.edit(*directory, name, *node, true);
                }
            } else {
                self.pending.push(change);
            }
        }
    }

    fn edit(&mut self, directory: NodeId, name: &str, node: Option<NodeId>, platter: bool) {
        let Some(Node::Directory { current, durable }) = self.nodes.get_mut(&directory) else {
            return;
        };
        let names = if platter { durable } else { current };
        match node {
            Some(node) => names.insert(name.to_owned(), node),
            None => names.remove(name),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rename_is_atomic_and_certain_once_synced() {
        let (mut old, mut new) = (0, 0);
        for seed in 0..60 {
            let mut tree = Tree::new();
            let file = tree.create(ROOT, "a", false);
            tree.sync_dir(ROOT);
            tree.change(vec![(ROOT, "a".to_owned(), None), (ROOT, "b".to_owned(), Some(file))]);
            tree.crash(&mut Chance::new(seed));
            match (tree.find("a"), tree.find("b")) {
                (Some(_), None) => old += 1,
                (None, Some(_)) => new += 1,
                both => panic!("{both:?}"),
            }
        }
        assert!(old > 5 && new > 5, "{old} {new}");
    }

    #[test]
    fn an_unsynced_name_may_vanish_and_its_file_is_forgotten() {
        let mut vanished = 0;
        for seed in 0..60 {
            let mut tree = Tree::new();
            tree.create(ROOT, "a", false);
            tree.crash(&mut Chance::new(seed));
            tree.forget_unnamed(|_| false);
            vanished += usize::from(tree.find("a").is_none());
            assert_eq!(tree.nodes.len() == 1, tree.find("a").is_none());
        }
        assert!(vanished > 5 && vanished < 55, "{vanished}");
    }
}
