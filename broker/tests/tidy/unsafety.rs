//! `unsafe` stands in few files, and each block says why it is sound.

use crate::Finding;
use crate::source::Source;
use crate::tree::Tree;

/// Where it may stand.
const PLACES: &[&str] = &[
    "broker/src/runtime/ring.rs",
    "broker/src/runtime/file.rs",
    "broker/src/runtime/socket.rs",
    "broker/src/runtime/system.rs",
    "broker/src/peer/schema/",
    "storage/src/io/",
];
/// Written by `flatc`, which explains nothing.
const MADE_BY_A_PROGRAM: &str = "broker/src/peer/schema/";

pub fn check(tree: &Tree) -> Vec<Finding> {
    tree.rust.iter().flat_map(check_source).collect()
}

fn check_source(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    let allowed = PLACES.iter().any(|place| source.path.starts_with(place));
    for at in source.words("unsafe") {
        let line = source.line_of(at);
        let behind = source.code[at + "unsafe".len()..].trim_start();
        if !allowed {
            let what = format!("`unsafe` here: it stands only in {}", PLACES.join(", "));
            findings.push(Finding::new(&source.path, line, what));
        } else if source.path.starts_with(MADE_BY_A_PROGRAM) {
            continue;
        } else if behind.starts_with("fn") || behind.starts_with("extern") {
            if behind.starts_with("fn") && !comment_above(source, line).contains("# Safety") {
                let what = "`unsafe fn` without `# Safety`: say what its caller must hold";
                findings.push(Finding::new(&source.path, line, what));
            }
        } else if !comment_above(source, line).contains("SAFETY:") {
            let what = "`unsafe` without `SAFETY:` above it: say why it is sound";
            findings.push(Finding::new(&source.path, line, what));
        }
    }
    findings
}

/// The comment on this line, and those directly above the statement that the line is part of.
fn comment_above(source: &Source, line: usize) -> String {
    let lines: Vec<&str> = source.text.lines().collect();
    let mut comment = lines[line - 1].to_owned();
    let mut at = line - 1;
    while at > 0 {
        at -= 1;
        let text = lines[at].trim();
        let continued = !text.is_empty() && !text.ends_with([';', '{', '}', ',']);
        let attribute = text.starts_with("#[");
        if !text.starts_with("//") && !attribute && !continued {
            break;
        }
        comment.push_str(text);
    }
    comment
}

#[test]
fn unsafe_is_seen() {
    let text =
        "// SAFETY: of a kind.\nlet x =\n    unsafe { f() };\nlet y = unsafe { g() };\n// unsafe\n";
    let source = Source::new("broker/src/runtime/ring.rs".into(), text.into());
    let lines: Vec<usize> = check_source(&source).iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [4]);
    let source = Source::new("broker/src/net/ring.rs".into(), text.into());
    assert_eq!(check_source(&source).len(), 2);
}
