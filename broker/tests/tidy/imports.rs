//! Imports stand in three blocks: the standard library, other crates, ours.

use crate::Finding;
use crate::source::{Source, identifier};
use crate::tree::Tree;

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.rust {
        check_file(source, &mut findings);
    }
    findings
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Block {
    Standard,
    Others,
    Ours,
}

fn block_of(path: &str) -> Block {
    match identifier(path) {
        "std" | "core" | "alloc" => Block::Standard,
        "crate" | "super" | "self" => Block::Ours,
        _ => Block::Others,
    }
}

/// Looks at imports that follow each other with nothing but empty lines between them.
fn check_file(source: &Source, findings: &mut Vec<Finding>) {
    let (mut last, mut has_gap, mut is_inside) = (None, false, false);
    for (index, line) in source.code.lines().enumerate() {
        let line = line.trim_end();
        if is_inside {
            is_inside = !line.ends_with(';');
            continue;
        }
        let Some(path) = line.strip_prefix("use ") else {
            has_gap = true;
            last = last.filter(|_| line.is_empty());
            continue;
        };
        let block = block_of(path);
        let what = match last {
            Some(before) if block < before => "an earlier block's import",
            Some(before) if block > before && !has_gap => "no empty line before this block",
            Some(before) if block == before && has_gap => "an empty line inside a block",
            _ => "",
        };
        if !what.is_empty() {
            let what = format!("{what}: std, other crates, ours, a block each");
            findings.push(Finding::new(&source.path, index + 1, what));
        }
        (last, has_gap, is_inside) = (Some(block), false, !line.ends_with(';'));
    }
}

#[test]
fn blocks_are_told_apart() {
    let sound =
        "use std::a;\n\nuse bytes::{\n    B,\n};\n\nuse super::c;\nuse crate::d;\n\nmod e;\n";
    let unsound = "use bytes::B;\n\nuse slab::S;\nuse crate::d;\n\nuse std::a;\n";
    let lines = |text: &str| {
        let mut findings = Vec::new();
        check_file(&Source::new("broker/src/x.rs".into(), text.into()), &mut findings);
        findings.iter().map(|finding| finding.line).collect::<Vec<_>>()
    };
    assert_eq!(lines(sound), [0; 0]);
    assert_eq!(lines(&format!("{sound}{unsound}")), [13, 14, 16]);
}
