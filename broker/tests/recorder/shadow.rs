//! A data directory as a power failure would leave it, worked out from what the rings were asked:
//! of files only what a completed data sync covers, of names only what a completed sync of their
//! directory covers.

use std::collections::BTreeMap;

use vltava::runtime::Operation;

use crate::file::{ShadowFile, What};
use crate::tape::Event;

/// Ends the names of files and directories that nothing relies upon.
const UNRELIED: [&str; 3] = [".tmp", ".new", "-delete"];

#[derive(Debug)]
enum Node {
    File(ShadowFile),
    Directory(Directory),
}

#[derive(Debug, Default)]
struct Directory {
    /// Names as they are now.
    names: BTreeMap<String, usize>,
    /// Names as they were when the last sync that is done began.
    synced: BTreeMap<String, usize>,
    synced_at: usize,
}

impl Directory {
    /// What has this name, now and after a power failure.
    fn certain(&self, name: &str) -> Option<usize> {
        let node = self.names.get(name).filter(|node| self.synced.get(name) == Some(node));
        node.copied()
    }

    /// Names that a power failure would take, or give back their old meaning.
    fn uncertain(&self) -> impl Iterator<Item = &String> {
        let names = self.names.keys();
        names.filter(|name| self.certain(name).is_none() && !is_unrelied(name))
    }
}

/// What a request does once it is done.
#[derive(Debug)]
enum UnderWay {
    Change { file: usize, change: usize, is_durable: bool },
    SyncFile { file: usize, changes: Vec<usize> },
    SyncDirectory { directory: usize, names: BTreeMap<String, usize>, at: usize },
    Names(Operation),
}

/// The data directory.
#[derive(Debug)]
pub struct Shadow {
    /// The first is the root.
    nodes: Vec<Node>,
    open: BTreeMap<i32, usize>,
    under_way: BTreeMap<(usize, u64), UnderWay>,
    now: usize,
    /// What was done that must not be, in words.
    pub violations: Vec<String>,
}

impl Default for Shadow {
    fn default() -> Self {
        Self {
            nodes: vec![Node::Directory(Directory::default())],
            open: BTreeMap::new(),
            under_way: BTreeMap::new(),
            now: 0,
            violations: Vec::new(),
        }
    }
}

impl Shadow {
    /// Takes in what happened next.
    pub fn take_in(&mut self, event: &Event) {
        self.now += 1;
        match event {
            Event::Submitted(shard, id, operation) => {
                if let Some(begun) = self.begin(operation) {
                    self.under_way.insert((*shard, *id), begun);
                }
            }
            Event::Completed(shard, id, result) => {
                if let Some(begun) = self.under_way.remove(&(*shard, *id)) {
                    self.complete(begun, *result);
                }
            }
        }
    }

    fn begin(&mut self, operation: &Operation) -> Option<UnderWay> {
        match operation {
            Operation::Write { path, descriptor, position, content, data_sync } => {
                let position = usize::try_from(*position).unwrap();
                let what = What::Write { position, content: content.clone() };
                self.begin_change(path, *descriptor, what, *data_sync)
            }
            Operation::SetLength { path, descriptor, len } => {
                let what = What::SetLength(usize::try_from(*len).unwrap());
                self.begin_change(path, *descriptor, what, false)
            }
            Operation::Sync { path, descriptor } => {
                // The root is open from the beginning.
                let root = (path == ".").then_some(0);
                let Some(node) = root.or_else(|| self.open.get(descriptor).copied()) else {
                    self.violations.push(format!("{path}: a sync of what was never opened"));
                    return None;
                };
                Some(match &self.nodes[node] {
                    Node::File(file) => UnderWay::SyncFile { file: node, changes: file.written() },
                    Node::Directory(directory) => UnderWay::SyncDirectory {
                        directory: node,
                        names: directory.names.clone(),
                        at: self.now,
                    },
                })
            }
            Operation::Rename { from, to } => {
                self.check_rename(from, to);
                Some(UnderWay::Names(operation.clone()))
            }
            Operation::Remove { path } => {
                // What takes its place must be there first.
                self.check_beside(path, "removed");
                Some(UnderWay::Names(operation.clone()))
            }
            Operation::Open { .. } | Operation::CreateDirectory { .. } => {
                Some(UnderWay::Names(operation.clone()))
            }
            // Space alone is nothing to rely upon.
            Operation::Allocate { .. }
            | Operation::Accept
            | Operation::Send { .. }
            | Operation::Other(_) => None,
        }
    }

    fn begin_change(
        &mut self,
        path: &str,
        descriptor: i32,
        what: What,
        is_durable: bool,
    ) -> Option<UnderWay> {
        let node = self.open.get(&descriptor).copied();
        let Some((node, Node::File(file))) = node.map(|node| (node, &mut self.nodes[node])) else {
            self.violations.push(format!("{path}: a change of what was never opened"));
            return None;
        };
        if !file.spares_batches(&what) {
            self.violations.push(format!("{path}: changes batches that were acknowledged"));
        }
        Some(UnderWay::Change { file: node, change: file.begin(what), is_durable })
    }

    fn complete(&mut self, begun: UnderWay, result: i32) {
        match begun {
            UnderWay::Change { file, change, is_durable } => {
                self.file(file).done(change, result, is_durable);
            }
            UnderWay::SyncFile { file, changes } if result >= 0 => {
                self.file(file).make_durable(&changes);
            }
            UnderWay::SyncDirectory { directory, names, at } if result >= 0 => {
                let directory = self.directory(directory);
                if at > directory.synced_at {
                    directory.synced = names;
                    directory.synced_at = at;
                }
            }
            UnderWay::Names(operation) if result >= 0 => self.change_names(operation, result),
            // It failed: nothing has changed.
            _ => {}
        }
    }

    fn change_names(&mut self, operation: Operation, result: i32) {
        match operation {
            Operation::Open { path, create } => {
                let node = if create {
                    Some(self.add(&path, Node::File(ShadowFile::default())))
                } else {
                    self.find(&path)
                };
                match node {
                    Some(node) => self.open.insert(result, node),
                    None => self.open.remove(&result),
                };
            }
            Operation::CreateDirectory { path } => {
                self.add(&path, Node::Directory(Directory::default()));
            }
            Operation::Rename { from, to } => {
                if let (Some((from, old)), Some((to, new))) = (self.parent(&from), self.parent(&to))
                    && let Some(node) = self.directory(from).names.remove(&old)
                {
                    self.directory(to).names.insert(new, node);
                }
            }
            Operation::Remove { path } => {
                if let Some((parent, name)) = self.parent(&path) {
                    self.directory(parent).names.remove(&name);
                }
            }
            _ => {}
        }
    }

    fn add(&mut self, path: &str, node: Node) -> usize {
        self.nodes.push(node);
        let number = self.nodes.len() - 1;
        if let Some((parent, name)) = self.parent(path) {
            self.directory(parent).names.insert(name, number);
        }
        number
    }

    /// What gets a name of its own must be whole: its content, and the names in it; and what it
    /// may speak of, beside it, must be there.
    fn check_rename(&mut self, from: &str, to: &str) {
        if is_unrelied(to) {
            return;
        }
        self.check_beside(to, "gets its name");
        let is_whole = match self.find(from).map(|node| &self.nodes[node]) {
            Some(Node::File(file)) => file.is_whole(),
            Some(Node::Directory(directory)) => {
                directory.uncertain().next().is_none()
                    && directory.names.values().all(|node| match &self.nodes[*node] {
                        Node::File(file) => file.is_whole(),
                        Node::Directory(_) => true,
                    })
            }
            None => return,
        };
        if !is_whole {
            let violation = format!("{from}: becomes {to} before its content is durable");
            self.violations.push(violation);
        }
    }

    /// The other names of a directory must be certain.
    fn check_beside(&mut self, path: &str, what: &str) {
        let Some((parent, _)) = self.parent(path) else {
            return;
        };
        // Shards work in the root side by side.
        if parent == 0 || path.split('/').any(is_unrelied) {
            return;
        }
        let uncertain: Vec<String> = self.directory(parent).uncertain().cloned().collect();
        if !uncertain.is_empty() {
            let violation = format!("{path}: {what} while {uncertain:?} beside it may be lost");
            self.violations.push(violation);
        }
    }

    /// At an orderly end, every name is certain, and every file whole.
    pub fn check_end(&mut self) {
        let mut found = Vec::new();
        let mut directories = vec![(String::new(), 0)];
        while let Some((path, at)) = directories.pop() {
            let Node::Directory(directory) = &self.nodes[at] else {
                continue;
            };
            found.extend(directory.uncertain().map(|n| format!("{path}{n}: its name may be lost")));
            for (name, node) in directory.names.iter().filter(|(name, _)| !is_unrelied(name)) {
                let path = format!("{path}{name}");
                match &self.nodes[*node] {
                    Node::File(file) if !file.is_whole() => {
                        found.push(format!("{path}: its content may be lost"));
                    }
                    Node::File(_) => {}
                    Node::Directory(_) => directories.push((format!("{path}/"), *node)),
                }
            }
        }
        self.violations.append(&mut found);
    }

    /// The directories whose names begin so, and are certain.
    pub fn directories(&self, prefix: &str) -> Vec<String> {
        let Node::Directory(root) = &self.nodes[0] else {
            return Vec::new();
        };
        let names = root.names.keys().filter(|name| name.starts_with(prefix));
        names.filter(|name| root.certain(name).is_some()).cloned().collect()
    }

    /// The files of a directory, where its name and theirs are certain, by name.
    pub fn files(&mut self, directory: &str) -> Vec<(String, &mut ShadowFile)> {
        let Node::Directory(root) = &self.nodes[0] else {
            return Vec::new();
        };
        let Some(Node::Directory(directory)) = root.certain(directory).map(|at| &self.nodes[at])
        else {
            return Vec::new();
        };
        let names = directory.names.keys();
        let certain = names.filter_map(|name| Some((directory.certain(name)?, name.clone())));
        let certain: BTreeMap<usize, String> = certain.collect();
        let nodes = self.nodes.iter_mut().enumerate();
        let mut files: Vec<_> = nodes
            .filter_map(|(at, node)| match node {
                Node::File(file) => Some((certain.get(&at)?.clone(), file)),
                Node::Directory(_) => None,
            })
            .collect();
        files.sort_by(|(one, _), (other, _)| one.cmp(other));
        files
    }

    fn file(&mut self, node: usize) -> &mut ShadowFile {
        match &mut self.nodes[node] {
            Node::File(file) => file,
            Node::Directory(_) => panic!("a directory where a file was"),
        }
    }

    fn directory(&mut self, node: usize) -> &mut Directory {
        match &mut self.nodes[node] {
            Node::Directory(directory) => directory,
            Node::File(_) => panic!("a file where a directory was"),
        }
    }

    fn find(&self, path: &str) -> Option<usize> {
        if path.starts_with('/') {
            return None; // Opens an open file once more, for reading.
        }
        let parts = path.split('/').filter(|part| !matches!(*part, "" | "."));
        parts.into_iter().try_fold(0, |node, part| match &self.nodes[node] {
            Node::Directory(directory) => directory.names.get(part).copied(),
            Node::File(_) => None,
        })
    }

    fn parent(&self, path: &str) -> Option<(usize, String)> {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        Some((self.find(parent)?, name.to_owned()))
    }
}

fn is_unrelied(name: &str) -> bool {
    UNRELIED.iter().any(|end| name.ends_with(end))
}
