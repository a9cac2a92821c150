//! Formats of yesterday: today's release reads them to the same values, and, at the same feature
//! level, writes the same bytes. What is golden, and where it stands, is listed in
//! `docs/storage-format.md`; the formats of logs are tested in `storage/tests/format.rs`.
//!
//! `VLTAVA_GOLDEN=rewrite` writes the files anew. A file that changes by it is a new version of its
//! format, which belongs to a feature level of its own, or a mistake. `VLTAVA_GOLDEN=directories`
//! makes the directories of whole nodes, which have ids and times of their own each time.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "a test fails by panicking, and its numbers are small"
)]

#[path = "golden/directory.rs"]
mod directory;
#[path = "golden/members.rs"]
mod members;
#[path = "cluster/nodes.rs"]
mod nodes;
#[path = "golden/records.rs"]
mod records;
mod support;
#[path = "cluster/view.rs"]
mod view;
#[path = "golden/votes.rs"]
mod votes;
#[path = "golden/wire.rs"]
mod wire;

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Where a golden file or directory stands.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden").join(name)
}

/// Whether golden files are to be written.
fn is_rewriting() -> bool {
    std::env::var("VLTAVA_GOLDEN").is_ok_and(|mode| mode == "rewrite")
}

/// Whether golden directories are to be made: for a new version of some format, beside the old.
fn is_making_directories() -> bool {
    std::env::var("VLTAVA_GOLDEN").is_ok_and(|mode| mode == "directories")
}

/// Named bytes, one a line: a name, and what belongs to it in hexadecimal; `-` for nothing.
fn golden_lines(name: &str, written: &[(&str, Vec<Option<Bytes>>)]) -> Vec<Vec<Option<Bytes>>> {
    let mut text = String::new();
    for (name, parts) in written {
        text += name;
        for part in parts {
            let hex = part.as_ref().map(|bytes| hex(bytes));
            write!(text, " {}", hex.as_deref().unwrap_or("-")).unwrap();
        }
        text.push('\n');
    }
    if is_rewriting() {
        fs::create_dir_all(path(name).parent().unwrap()).unwrap();
        fs::write(path(name), &text).unwrap();
    }
    let golden = fs::read_to_string(path(name)).expect("a golden file");
    for (golden, written) in golden.lines().zip(text.lines()) {
        assert_eq!(golden, written, "{name}: written otherwise");
    }
    assert_eq!(golden, text, "{name}: more, or less, is written");
    let parts = |line: &str| line.split(' ').skip(1).map(from_hex).collect();
    golden.lines().map(parts).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Bytes> {
    let digits = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).expect("hexadecimal");
    (text != "-").then(|| (0..text.len()).step_by(2).map(digits).collect())
}
