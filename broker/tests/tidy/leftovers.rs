//! What was left lying about: unfinished code, prints, nameless plans, files that nobody uses.

use crate::Finding;
use crate::docs::listed_apis;
use crate::source::{Source, identifier};
use crate::tree::Tree;

const UNFINISHED: &[&str] = &["todo", "dbg", "unimplemented"];

/// Macros that write to the terminal, and who has one: the commands, the harness, build scripts.
const PRINTS: &[&str] = &["print", "println", "eprint", "eprintln"];
const PRINTERS: &[&str] = &[
    "broker/src/cli.rs",
    "broker/src/cli/",
    "broker/src/main.rs",
    "bench/src/",
    "bench/instructions/",
    "broker/codegen/src/main.rs",
    "protocol/build.rs",
    "protocol/codegen/src/main.rs",
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.rust {
        check_macros(source, &mut findings);
        check_plans(&source.path, &source.text, &mut findings);
        check_owner(tree, source, &mut findings);
    }
    for (path, text) in &tree.markdown {
        check_plans(path, text, &mut findings);
    }
    findings
}

fn check_macros(source: &Source, findings: &mut Vec<Finding>) {
    let mut report = |name: &str, tests_may: bool, instead: &str| {
        for at in source.words(name) {
            let is_macro = source.code[at + name.len()..].starts_with('!');
            if is_macro && !(tests_may && source.is_test(at)) {
                let what = format!("`{name}!` here: {instead}");
                findings.push(Finding::new(&source.path, source.line_of(at), what));
            }
        }
    };
    for name in UNFINISHED {
        report(name, false, "finish it, or open an issue and return an error");
    }
    if !PRINTERS.iter().any(|place| source.path.starts_with(place)) {
        for name in PRINTS {
            report(name, true, "only the commands print; elsewhere log, or return it");
        }
    }
}

/// A plan in a comment names its issue: `TODO(#12): what`.
fn check_plans(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for word in ["TODO", "FIXME", "XXX"] {
        // Where this very file names the words, they are quoted.
        let places = text.match_indices(word).filter(|(at, _)| {
            let before = text[..*at].chars().next_back();
            !before.is_some_and(|c| c.is_alphanumeric() || c == '"' || c == '`' || c == '_')
        });
        for (at, _) in places {
            let behind = text[at + word.len()..].trim_start_matches(['(', ' ', ':']);
            let issue = behind.strip_prefix('#').and_then(|rest| rest.chars().next());
            if !issue.is_some_and(|digit| digit.is_ascii_digit()) {
                let line = text[..at].matches('\n').count() + 1;
                let what = format!("`{word}` without an issue: `{word}(#12): what`");
                findings.push(Finding::new(path, line, what));
            }
        }
    }
}

/// Each file under `src` is declared by the file above it.
fn check_owner(tree: &Tree, source: &Source, findings: &mut Vec<Finding>) {
    let Some((folder, file)) = source.path.rsplit_once('/') else {
        return;
    };
    let stem = file.trim_end_matches(".rs");
    let in_source = folder.ends_with("/src") || folder.contains("/src/");
    let is_root = folder.ends_with("/src") && (stem == "lib" || stem == "main");
    if !in_source || is_root || folder.contains("/bin") || folder.contains("/schema") {
        return;
    }
    // The front page of a folder is declared above it; every other file beside its front page, or
    // by the file that has the folder's name.
    let (name, above) = match (stem, folder.rsplit_once('/')) {
        ("mod", Some((above, name))) => (name, above),
        _ => (stem, folder),
    };
    let fronts = ["/lib.rs", "/main.rs", "/mod.rs", ".rs"].map(|end| format!("{above}{end}"));
    let declared = fronts.iter().filter_map(|front| tree.source(front)).any(|front| {
        front.words("mod").any(|at| identifier(front.code[at + 3..].trim_start()) == name)
    });
    // Handlers are declared by their list.
    let listed = above == "broker/src/handlers" && listed_apis(tree).contains(&name);
    if !declared && !listed {
        findings.push(Finding::new(&source.path, 1, "no file declares it: use it or remove it"));
    }
}

#[test]
fn leftovers_are_seen() {
    let plans = format!("// {0} later\n// {0}(#3): sooner\n", "TODO");
    let text = format!("fn f() {{\n  todo!();\n  println!();\n}}\n{plans}fn todo() {{}}");
    let source = Source::new("broker/src/net/listener.rs".into(), text);
    let mut findings = Vec::new();
    check_macros(&source, &mut findings);
    check_plans(&source.path, &source.text, &mut findings);
    let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [2, 3, 5]);
}
