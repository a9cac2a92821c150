//! Tables that must agree, and docs that must lead somewhere.

use std::ops::RangeInclusive;

use crate::Finding;
use crate::source::identifier;
use crate::tree::Tree;

const HANDLERS: &str = "broker/src/handlers/mod.rs";
const DIFFERENCES: &str = "docs/differences-from-kafka.md";
const MAP: &str = "docs/README.md";
const INVARIANTS: &str = "docs/invariants.md";
const FAULTS: &str = "docs/faults.md";
const CHECKERS: &str = "broker/tests/simulator/checkers";
/// The faults that a cluster has to survive before anybody trusts it: each is made to happen by
/// something in the simulator, to real processes, or both.
const FAULTS_COVERED: [RangeInclusive<usize>; 4] = [1..=14, 18..=20, 23..=26, 29..=36];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_schemas(tree, &mut findings);
    check_handlers(tree, &mut findings);
    for (path, text) in &tree.markdown {
        check_links(tree, path, text, &mut findings);
        if path.starts_with("docs/") {
            check_references(tree, path, text, &mut findings);
        }
    }
    check_map(tree, &mut findings);
    check_checkers(tree, &mut findings);
    let faults = text_of(tree, FAULTS).unwrap_or_default();
    check_faults(faults, &FAULTS_COVERED, &mut findings);
    findings
}

/// The APIs of the one list, `apis! { produce, fetch, ... }`, from which modules and dispatch
/// follow.
pub fn listed_apis(tree: &Tree) -> Vec<&str> {
    let list = tree.source(HANDLERS).and_then(|source| {
        let (_, behind) = source.code.split_once("\napis! {")?;
        behind.split_once('}').map(|(list, _)| list)
    });
    list.map_or(Vec::new(), |list| list.split(',').map(str::trim).collect())
}

/// Each schema of an API has a handler in the list, or the docs say that it has none.
fn check_schemas(tree: &Tree, findings: &mut Vec<Finding>) {
    let listed = listed_apis(tree);
    if listed.is_empty() {
        return;
    }
    let differences = text_of(tree, DIFFERENCES).unwrap_or_default();
    for schema in tree.names("protocol/schema/api") {
        let Some((number, name)) = schema.split_once('_') else {
            continue;
        };
        let name = identifier(name);
        let camel: String = name.split('_').map(capitalised).collect();
        let named = differences.split(|c: char| !c.is_alphanumeric()).any(|word| word == camel);
        if !listed.contains(&name) && number.parse::<u16>().is_ok() && !named {
            let path = format!("protocol/schema/api/{schema}");
            let what =
                format!("not in the list of {HANDLERS}; {DIFFERENCES} does not name {camel}");
            findings.push(Finding::new(&path, 1, what));
        }
    }
}

/// Each file that is named as an API stands in the list.
fn check_handlers(tree: &Tree, findings: &mut Vec<Finding>) {
    let listed = listed_apis(tree);
    let schemas: Vec<String> = tree.names("protocol/schema/api");
    for source in tree.under("broker/src/handlers/") {
        let name = identifier(&source.path["broker/src/handlers/".len()..]);
        let is_api = schemas
            .iter()
            .any(|schema| schema.split_once('_').is_some_and(|(_, api)| identifier(api) == name));
        if is_api && !listed.contains(&name) {
            let what = format!("`{name}` does not stand in the list of {HANDLERS}");
            findings.push(Finding::new(&source.path, 1, what));
        }
    }
}

/// Links to files of the tree resolve, also to headings in them.
fn check_links(tree: &Tree, path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (line, link) in links(text) {
        if link.contains("://") || link.starts_with("mailto:") {
            continue;
        }
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let target = if file.is_empty() { path.to_owned() } else { resolve(path, file) };
        if !tree.exists(&target) {
            let what = format!("links to `{link}`, which does not exist");
            findings.push(Finding::new(path, line, what));
        } else if let (false, Some(text)) = (heading.is_empty(), text_of(tree, &target))
            && !headings(text).any(|found| found == heading)
        {
            let what = format!("links to `{link}`: no such heading");
            findings.push(Finding::new(path, line, what));
        }
    }
}

/// `path:function` in the docs names a file of the tree and a function, type or constant in it.
fn check_references(tree: &Tree, path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (index, line) in text.lines().enumerate() {
        for quoted in line.split('`').skip(1).step_by(2) {
            let (file, name) = quoted.split_once(':').unwrap_or((quoted, ""));
            if !file.ends_with(".rs") || !file.contains('/') || file.contains(['*', '<', '{', ' '])
            {
                continue;
            }
            let name = name.rsplit("::").next().unwrap_or(name);
            let what = match tree.source(file) {
                None => format!("names `{file}`, which does not exist"),
                Some(source) if !name.is_empty() && !declares(&source.code, identifier(name)) => {
                    format!("names `{quoted}`: {file} declares no `{name}`")
                }
                Some(_) => continue,
            };
            findings.push(Finding::new(path, index + 1, what));
        }
    }
}

/// Whether the code declares something of this name.
fn declares(code: &str, name: &str) -> bool {
    const KINDS: &[&str] =
        &["fn", "struct", "enum", "trait", "const", "static", "type", "mod", "!"];
    code.match_indices(name).any(|(at, _)| {
        let before = code[..at].trim_end();
        let spaced = before.len() < at && identifier(&code[at..]) == name;
        spaced && KINDS.iter().any(|kind| before.ends_with(kind))
    })
}

/// The map leads to each page of the docs, by itself or through a page it links to.
fn check_map(tree: &Tree, findings: &mut Vec<Finding>) {
    let mut seen = vec![MAP.to_owned()];
    let mut next = 0;
    while let Some(page) = seen.get(next).cloned() {
        next += 1;
        for (_, link) in links(text_of(tree, &page).unwrap_or_default()) {
            let target = resolve(&page, link.split('#').next().unwrap_or(link));
            if target.ends_with(".md") && !seen.contains(&target) {
                seen.push(target);
            }
        }
    }
    for (path, _) in &tree.markdown {
        // Decisions are listed by their folder.
        let listed = path.starts_with("docs/decisions/") || seen.contains(path);
        if path.starts_with("docs/") && !listed {
            findings.push(Finding::new(path, 1, format!("nobody finds it: link it in {MAP}")));
        }
    }
}

/// What a checker of the simulator looks at is a promise: it stands with the others.
fn check_checkers(tree: &Tree, findings: &mut Vec<Finding>) {
    let invariants = text_of(tree, INVARIANTS).unwrap_or_default();
    for file in tree.names(CHECKERS) {
        let name = identifier(&file);
        if name != "mod" && !invariants.contains(&format!("`{name}`")) {
            let what = format!("name `{name}`, and what it promises, in {INVARIANTS}");
            findings.push(Finding::new(&format!("{CHECKERS}/{file}"), 1, what));
        }
    }
}

/// Each fault has a number, and names what covers it, in one process and with real ones, or says
/// that nothing does: which it may not of those that have to be survived. (That what is named
/// exists is checked of all docs.)
fn check_faults(text: &str, covered: &[RangeInclusive<usize>], findings: &mut Vec<Finding>) {
    let mut numbers = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let ["", number, fault @ .., ""] = &cells[..] else { continue };
        if number.starts_with('-') || *number == "#" {
            continue;
        }
        let mut found =
            |what: &str| findings.push(Finding::new(FAULTS, index + 1, what.to_owned()));
        let Ok(number) = number.parse::<usize>() else {
            found("give the fault a number of its own");
            continue;
        };
        numbers.push(number);
        let covers = |cell: &&str| cell.contains(".rs:");
        let is_whole = match fault {
            [fault, must_hold, ways @ ..] if ways.len() == 2 => {
                let told = !fault.is_empty() && !must_hold.is_empty();
                told && ways.iter().all(|way| covers(way) || way.starts_with("none"))
            }
            _ => false,
        };
        if !is_whole {
            found("name `path.rs:function` of what covers it, or say `none` and why");
        }
        let must_be = covered.iter().any(|numbers| numbers.contains(&number));
        if must_be && !fault.iter().any(covers) {
            found("nothing covers it, and it has to be survived");
        }
    }
    numbers.sort_unstable();
    let last = covered.iter().map(RangeInclusive::end).max().map_or(0, |last| *last);
    let last = last.max(numbers.len());
    if !numbers.iter().copied().eq(1..=last) {
        let what = format!("number them 1 to {last}, each once: {numbers:?}");
        findings.push(Finding::new(FAULTS, 1, what));
    }
}

fn text_of<'a>(tree: &'a Tree, path: &str) -> Option<&'a str> {
    tree.markdown.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str())
}

/// Targets of `[text](target)` with their lines; not those in code.
fn links(text: &str) -> Vec<(usize, &str)> {
    let (mut links, mut fenced) = (Vec::new(), false);
    for (index, line) in text.lines().enumerate() {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let in_code = line[..at].matches('`').count() % 2 == 1;
            if let (false, Some(end)) = (in_code, line[at..].find(')')) {
                links.push((index + 1, &line[at + 2..at + end]));
            }
        }
    }
    links
}

/// A link relative to the folder of the page it stands in.
fn resolve(page: &str, link: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in link.trim_end_matches('/').split('/') {
        match part {
            "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// Headings as links name them: lower case, spaces as hyphens, without punctuation.
fn headings(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter(|line| line.starts_with('#')).map(|line| {
        let title = line.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    })
}

fn capitalised(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}

#[test]
fn links_and_headings_are_read() {
    let text = "a [b](../c.md#d-e) `[x](y)`\n```\n[z](w)\n```\n[v](u)";
    assert_eq!(links(text), [(1, "../c.md#d-e"), (5, "u")]);
    assert_eq!(resolve("docs/a/b.md", "../c.md"), "docs/c.md");
    assert_eq!(headings("## D: E_f\n").next().unwrap(), "d-e_f");
    assert!(declares("pub fn append(x: u8) {}", "append"));
    assert!(!declares("append(x); fn append_all() {}", "append"));
}

#[test]
fn faults_name_what_covers_them() {
    let found = |row: &str| {
        let mut findings = Vec::new();
        let head = "| # | fault | a | b | c |\n|---|---|---|---|---|";
        check_faults(&format!("{head}\n{row}"), &[1..=1], &mut findings);
        findings.len()
    };
    assert_eq!(found("| 1 | it burns | nothing is lost | `a/b.rs:fire` | none: no fire here |"), 0);
    assert_eq!(found("| 1 | it burns | nothing is lost | somewhere | `a/b.rs:fire` |"), 1);
    assert_eq!(found("| 1 | it burns | | `a/b.rs:fire` | none yet |"), 1);
    assert_eq!(found("| 1 | it burns | nothing is lost | `a/b.rs:fire` |"), 1);
    assert_eq!(found("| it burns | nothing is lost | `a/b.rs:fire` | none yet |"), 2);
    assert_eq!(found("| 1 | it burns | nothing is lost | none yet | none: no fire here |"), 1);
    assert_eq!(found("| 2 | it burns | nothing is lost | `a/b.rs:fire` | none yet |"), 1);
}
