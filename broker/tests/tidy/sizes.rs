//! Sizes are a ratchet: what is over a limit stands in a list with its size, which may only shrink.

use crate::Finding;
use crate::source::Source;
use crate::tree::Tree;

const LINE_CHARACTERS_MAX: usize = 100;
const FUNCTION_LINES_MAX: usize = 70;
const FILE_LINES_MAX: usize = 600;
/// Longer unit tests stand in `tests.rs` beside the file.
const UNIT_TEST_LINES_MAX: usize = 200;

/// `path:function` and its length. Nothing is added here: split it.
const LONG_FUNCTIONS: &[(&str, usize)] = &[];

/// Path and lines of logic. Nothing is added here: split it.
const LONG_FILES: &[(&str, usize)] = &[];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.rust.iter().filter(|source| !is_made_by_a_program(source)) {
        check_lines(source, &mut findings);
        if !source.is_test_file() {
            check_functions(source, &mut findings);
            check_file(source, &mut findings);
        }
    }
    let files = LONG_FILES.iter().map(|(path, _)| *path);
    let functions = LONG_FUNCTIONS.iter().map(|(name, _)| name.split(':').next().unwrap_or(name));
    for path in files.chain(functions).filter(|path| !tree.exists(path)) {
        findings.push(Finding::new(path, 1, "stands in a list of sizes, but not in the tree"));
    }
    findings
}

/// Rust that `flatc` wrote.
fn is_made_by_a_program(source: &Source) -> bool {
    source.path.starts_with("broker/src/peer/schema/")
}

fn check_lines(source: &Source, findings: &mut Vec<Finding>) {
    for (line, text) in source.lines() {
        let characters = text.chars().count();
        // A link or a vector of bytes cannot be broken; prose and code can.
        let breakable = text.trim().contains(' ');
        if characters > LINE_CHARACTERS_MAX && breakable {
            let what = format!("{characters} characters: at most {LINE_CHARACTERS_MAX}");
            findings.push(Finding::new(&source.path, line, what));
        }
    }
}

fn check_functions(source: &Source, findings: &mut Vec<Finding>) {
    for (name, range) in source.functions() {
        if source.is_test(range.start) {
            continue;
        }
        let first = source.line_of(range.start);
        let lines = source.line_of(range.end - 1) + 1 - first;
        let key = format!("{}:{name}", source.path);
        let what = ratchet(LONG_FUNCTIONS, &key, lines, FUNCTION_LINES_MAX);
        findings.extend(what.map(|what| Finding::new(&source.path, first, what)));
    }
}

fn check_file(source: &Source, findings: &mut Vec<Finding>) {
    let what = ratchet(LONG_FILES, &source.path, source.logic_lines(), FILE_LINES_MAX);
    findings.extend(what.map(|what| Finding::new(&source.path, 1, what)));
    let tests = source.test_lines();
    if tests > UNIT_TEST_LINES_MAX {
        let what = format!(
            "{tests} lines of unit tests, above {UNIT_TEST_LINES_MAX}: in tests.rs beside it"
        );
        findings.push(Finding::new(&source.path, 1, what));
    }
}

/// What is wrong with a size: above the limit and not listed, above its place in the list, or
/// listed with a number that it has left behind.
fn ratchet(list: &[(&str, usize)], key: &str, lines: usize, limit: usize) -> Option<String> {
    let listed = list.iter().find(|(name, _)| *name == key).map(|(_, listed)| *listed);
    match listed {
        None if lines > limit => {
            Some(format!("`{key}` has {lines} lines: at most {limit}, split it"))
        }
        Some(listed) if lines > listed => {
            Some(format!("`{key}` has {lines} lines: it may only shrink from {listed}"))
        }
        Some(_) if lines <= limit => {
            Some(format!("`{key}` has {lines} lines: take it off the list of sizes"))
        }
        Some(listed) if lines < listed => Some(format!(
            "`{key}` has {lines} lines: write that in the list of sizes, not {listed}"
        )),
        _ => None,
    }
}

#[test]
fn the_ratchet_only_turns_down() {
    let list = [("a", 90)];
    assert!(ratchet(&list, "a", 90, 70).is_none());
    for lines in [91, 89, 70] {
        assert!(ratchet(&list, "a", lines, 70).is_some(), "{lines}");
    }
    assert!(ratchet(&list, "b", 71, 70).is_some());
    assert!(ratchet(&list, "b", 70, 70).is_none());
}
