//! Formats on disk: each that the docs name has golden files, and each golden file is named.

use crate::Finding;
use crate::tree::Tree;

const PAGE: &str = "docs/storage-format.md";
/// The files that there are, one a row.
const FORMATS: &str = "| file | who reads it |";
/// What is golden: format, level, path, test.
const GOLDEN: &str = "| format | feature level | golden | test |";
/// Where golden files stand: each entry of these folders is one, or a folder of them.
const FOLDERS: &[&str] = &["storage/tests/golden", "tests/golden/disk/v1", "tests/golden/wire/v1"];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let page = tree.markdown.iter().find(|(path, _)| path == PAGE);
    let text = page.map_or("", |(_, text)| text.as_str());
    let (formats, golden) = (rows(text, FORMATS), rows(text, GOLDEN));
    let mut findings = Vec::new();
    if formats.is_empty() || golden.is_empty() {
        findings.push(Finding::new(PAGE, 1, format!("has no table {FORMATS} or {GOLDEN}")));
    }
    let named = |column: usize| -> Vec<&str> {
        golden.iter().flat_map(|(_, cells)| quoted(cells.get(column).unwrap_or(&""))).collect()
    };
    for (line, cells) in &formats {
        for format in quoted(cells[0]).into_iter().filter(|format| !named(0).contains(format)) {
            let what = format!("`{format}` has no golden file: add one, and a row below");
            findings.push(Finding::new(PAGE, *line, what));
        }
    }
    for (line, cells) in &golden {
        for path in cells.iter().skip(2).flat_map(|cell| quoted(cell)) {
            if !tree.exists(path) {
                let what = format!("names `{path}`, which does not exist");
                findings.push(Finding::new(PAGE, *line, what));
            }
        }
    }
    for folder in FOLDERS {
        for name in tree.names(folder) {
            let path = format!("{folder}/{name}");
            if !named(2).contains(&path.as_str()) {
                let what = format!("nobody knows what it is: name it in {PAGE}");
                findings.push(Finding::new(&path, 1, what));
            }
        }
    }
    findings
}

/// The rows below the head of a table: their lines, and their cells.
fn rows<'a>(text: &'a str, head: &str) -> Vec<(usize, Vec<&'a str>)> {
    let lines = (1..).zip(text.lines()).skip_while(|(_, line)| !line.starts_with(head));
    let body = lines.skip(2).take_while(|(_, line)| line.starts_with('|'));
    body.map(|(number, line)| (number, line.trim_matches('|').split('|').map(str::trim).collect()))
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

#[test]
fn tables_are_read() {
    let text = "x\n| file | who |\n|---|---|\n| `a`, `b` | all |\n| `c` | `d` |\n\n| `e` | f |";
    let read = rows(text, "| file | who |");
    assert_eq!(read, [(4, vec!["`a`, `b`", "all"]), (5, vec!["`c`", "`d`"])]);
    assert_eq!(quoted(read[0].1[0]), ["a", "b"]);
}
