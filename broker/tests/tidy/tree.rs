//! The files that are checked.

use std::fs;
use std::path::{Path, PathBuf};

use crate::source::Source;

/// Everything of the repository that the checks look at, read once.
pub struct Tree {
    pub root: PathBuf,
    /// Rust files of all crates, sorted by path.
    pub rust: Vec<Source>,
    /// Markdown files: path and text, sorted by path.
    pub markdown: Vec<(String, String)>,
}

/// What was built, installed, written by a broker, or belongs to another tool.
const FOREIGN: &[&str] = &["target", "node_modules", "data", "corpus", "artifacts", "venv"];

impl Tree {
    /// Reads the repository that this test was built from.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent();
        let root = root.expect("the crate is a folder of the workspace").to_path_buf();
        let mut paths = Vec::new();
        collect(&root, &root, &mut paths);
        paths.sort();
        let (mut rust, mut markdown) = (Vec::new(), Vec::new());
        for path in paths {
            let text = fs::read_to_string(root.join(&path)).expect(&path);
            match path.rsplit_once('.') {
                Some((_, "rs")) => rust.push(Source::new(path, text)),
                _ => markdown.push((path, text)),
            }
        }
        Self { root, rust, markdown }
    }

    /// Whether this file or folder is there; the path is relative to the root.
    pub fn exists(&self, path: &str) -> bool {
        self.root.join(path).exists()
    }

    /// Rust files under a folder.
    pub fn under<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = &'a Source> {
        self.rust.iter().filter(move |source| source.path.starts_with(folder))
    }

    /// The Rust file at a path.
    pub fn source(&self, path: &str) -> Option<&Source> {
        self.rust.iter().find(|source| source.path == path)
    }

    /// Names in a folder, sorted; none where there is no such folder.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.root.join(folder)) else {
            return Vec::new();
        };
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> = entries.flatten().map(name).collect();
        names.sort();
        names
    }
}

fn collect(root: &Path, folder: &Path, paths: &mut Vec<String>) {
    for entry in fs::read_dir(folder).expect("a folder of the tree").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let kind = entry.file_type().expect("the type of a file of the tree");
        if kind.is_dir() {
            if !name.starts_with('.') && !FOREIGN.contains(&&*name) {
                collect(root, &path, paths);
            }
        } else if name.ends_with(".rs") || name.ends_with(".md") {
            let path = path.strip_prefix(root).expect("a path under the root");
            paths.push(path.to_string_lossy().into_owned());
        }
    }
}
