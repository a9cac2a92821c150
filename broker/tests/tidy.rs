//! Keeps the tree in shape: rooms, purity, sizes, completeness, leftovers, `unsafe` (see
//! `docs/style.md`).
//!
//! A scan of text, not of types: quick, and readable when it complains. Each finding is one line,
//! `path:line: what, instead`.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "tidy/docs.rs"]
mod docs;
#[path = "tidy/golden.rs"]
mod golden;
#[path = "tidy/imports.rs"]
mod imports;
#[path = "tidy/leftovers.rs"]
mod leftovers;
#[path = "tidy/purity.rs"]
mod purity;
#[path = "tidy/rooms.rs"]
mod rooms;
#[path = "tidy/sizes.rs"]
mod sizes;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/unsafety.rs"]
mod unsafety;

use std::sync::LazyLock;

use tree::Tree;

/// One thing to put right.
pub struct Finding {
    /// Relative to the repository's root.
    pub path: String,
    /// Counted from 1.
    pub line: usize,
    /// What is wrong, and what to do instead.
    pub what: String,
}

impl Finding {
    /// A finding in a line of a file.
    pub fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        let (path, what) = (path.to_owned(), what.into());
        Self { path, line, what }
    }
}

/// Runs one group of checks over the repository and prints what it finds.
fn run(check: impl Fn(&Tree) -> Vec<Finding>) -> Result<(), String> {
    static TREE: LazyLock<Tree> = LazyLock::new(Tree::read);
    assert!(!TREE.rust.is_empty(), "no Rust files under {:?}", TREE.root);
    let mut findings = check(&TREE);
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    for finding in &findings {
        println!("{}:{}: {}", finding.path, finding.line, finding.what);
    }
    match findings.len() {
        0 => Ok(()),
        count => Err(format!("{count} to put right, printed above")),
    }
}

#[test]
fn rooms_name_only_rooms_above_them() -> Result<(), String> {
    run(rooms::check)
}

#[test]
fn pure_files_are_pure() -> Result<(), String> {
    run(purity::check)
}

#[test]
fn sizes_stay_within_their_limits() -> Result<(), String> {
    run(sizes::check)
}

#[test]
fn tables_and_docs_are_complete() -> Result<(), String> {
    run(docs::check)
}

#[test]
fn every_format_has_golden_files() -> Result<(), String> {
    run(golden::check)
}

#[test]
fn imports_stand_in_three_blocks() -> Result<(), String> {
    run(imports::check)
}

#[test]
fn nothing_is_left_over() -> Result<(), String> {
    run(leftovers::check)
}

#[test]
fn unsafe_stays_where_it_belongs() -> Result<(), String> {
    run(unsafety::check)
}
