//! Pure files: state and input in, state and actions out. No I/O, no async, no clock, nothing that
//! differs between two runs.

use crate::Finding;
use crate::source::Source;
use crate::tree::Tree;

/// Files, and folders (with a `/` behind), that are pure.
const PURE: &[&str] = &[
    "broker/src/raft/",
    "broker/src/metadata/",
    "broker/src/machine.rs",
    "broker/src/machine/",
    "broker/src/groups/",
    "broker/src/shares/",
    "broker/src/cluster/",
    "broker/src/partition/flights.rs",
    "broker/src/partition/left.rs",
    "broker/src/partition/waiters.rs",
    "broker/src/partition/fetch_session.rs",
    "broker/src/transactions/machine.rs",
    "broker/src/transactions/producer_ids.rs",
    "broker/src/security/acl.rs",
    "broker/src/security/quota.rs",
    "broker/src/security/sasl.rs",
    "protocol/src/",
    "storage/src/leader_epochs.rs",
    "storage/src/producer_state.rs",
    "storage/src/refused.rs",
    "storage/src/retention.rs",
];

/// Words that end purity, and what to do instead.
const IMPURE: &[(&str, &str)] = &[
    ("async", "a pure file waits for nothing; its driver does"),
    ("await", "a pure file waits for nothing; its driver does"),
    ("Instant", "time comes in as an argument"),
    ("SystemTime", "time comes in as an argument"),
    ("HashMap", "iteration order differs between runs: use BTreeMap"),
    ("HashSet", "iteration order differs between runs: use BTreeSet"),
    ("RandomState", "random bits come in as an argument"),
    ("thread_local", "state is what the caller hands in"),
];

/// Modules of the standard library that reach outside.
const OUTSIDE: &[&str] = &["std::fs", "std::net", "std::thread", "std::env", "std::process"];

/// The wire has floats (quotas) and `std::io` (the codecs' traits), but decides nothing.
const WIRE: &str = "protocol/src/";

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &tree.rust {
        let named = |place: &str| match place.strip_suffix('/') {
            Some(_) => source.path.starts_with(place),
            None => source.path == place,
        };
        if PURE.iter().any(|place| named(place)) {
            check_pure(source, &mut findings);
        } else if source.path.starts_with("broker/src/") || source.path.starts_with("storage/src/")
        {
            for word in ["HashMap", "HashSet"] {
                let instead =
                    "iteration order differs between runs: use BTreeMap, BTreeSet or slab";
                report(source, word, instead, &mut findings);
            }
        }
    }
    findings
}

fn check_pure(source: &Source, findings: &mut Vec<Finding>) {
    for (word, instead) in IMPURE {
        report(source, word, instead, findings);
    }
    let wire = source.path.starts_with(WIRE);
    if !wire {
        for word in ["f32", "f64"] {
            report(source, word, "decisions are made in whole numbers", findings);
        }
    }
    let outside = OUTSIDE.iter().chain(if wire { &[][..] } else { &["std::io"][..] });
    for place in outside.chain(&["crate::runtime"]) {
        report(source, place, "a pure file reaches nothing outside: its driver does", findings);
    }
}

fn report(source: &Source, word: &str, instead: &str, findings: &mut Vec<Finding>) {
    for at in source.words(word).filter(|at| !source.is_test(*at)) {
        let what = format!("`{word}` here: {instead}");
        findings.push(Finding::new(&source.path, source.line_of(at), what));
    }
}

#[test]
fn impure_words_are_seen() {
    let text = "use std::time::Instant;\nfn f(x: f64) {}\n// HashMap\n\
                #[cfg(test)]\nmod t { use std::fs; }";
    let source = Source::new("broker/src/raft/node.rs".into(), text.into());
    let mut findings = Vec::new();
    check_pure(&source, &mut findings);
    let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [1, 2]);
}
