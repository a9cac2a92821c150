//! Who may name whom: the rooms of the broker, and the tiers of the libraries below it.

use crate::Finding;
use crate::source::{Source, identifier};
use crate::tree::Tree;

/// The rooms in their order, and what each may name. Crates of ours below the broker are written
/// `protocol` and `storage`; with `::`, only that module of a crate or room is meant. `*` composes:
/// it may name everything.
const ROOMS: &[(&str, &str)] = &[
    ("config", "protocol"),
    ("metrics", ""),
    ("runtime", "storage::io metrics protocol::encode"),
    ("raft", "protocol::types"),
    ("metadata", "protocol"),
    ("machine", "protocol::types metadata"),
    // Raft's words, not its rules.
    (
        "peer",
        "runtime raft::message raft::history raft::membership raft::position raft::run metadata \
         metrics protocol",
    ),
    ("partition", "storage raft metadata peer runtime metrics protocol"),
    ("groups", "machine metadata protocol"),
    ("cluster", "machine metadata protocol"),
    ("coordinator", "storage machine metadata peer partition runtime metrics protocol"),
    // It turns settings of topics into options of logs, internal topics into machines, and the
    // image's replicas into members of groups.
    (
        "node",
        "storage config groups cluster metadata raft::membership partition peer coordinator \
         runtime metrics protocol",
    ),
    (
        "handlers",
        "storage config metrics runtime metadata machine partition coordinator node groups \
         cluster protocol",
    ),
    // A listener is advertised by an endpoint of the image.
    ("net", "config metadata handlers runtime metrics protocol"),
    // It names groups by what they have committed, and topics and errors by their names.
    (
        "admin",
        "storage::io cluster coordinator groups metadata metrics node partition runtime protocol",
    ),
    ("shard", "*"),
    ("screen", "*"),
    ("server", "*"),
    ("cli", "*"),
];

/// Modules of a library from the ground up: a module names only modules of tiers before its own.
struct Tiers {
    crate_folder: &'static str,
    tiers: &'static [&'static [&'static str]],
    /// What it may name of `vltava_protocol`; everything where empty.
    protocol: &'static [&'static str],
}

const LIBRARIES: &[Tiers] = &[
    Tiers {
        crate_folder: "protocol/src/",
        tiers: &[
            &["types"],
            &["error_code"],
            &["encode"],
            &["decode"],
            &["api"],
            &["message"],
            &["messages", "records"],
            &["frame"],
            &["compression", "control"],
            &["batch"],
            &["record"],
            &["batch_builder"],
        ],
        protocol: &[],
    },
    Tiers {
        crate_folder: "storage/src/",
        tiers: &[
            &["io", "layout", "leader_epochs", "group_key"],
            &["batch_cache", "buffer_supply", "chunks"],
            &["error", "options"],
            &["checkpoint", "index", "retention"],
            &["producer_state", "journal_file"],
            &["notes"],
            &["header", "refused"],
            &["segment"],
            &["append_queue", "environment", "log_checkpoint", "scan"],
            &["partition_files", "reset_record", "keyed_journal", "zero_ahead", "shard_exceptions"],
            &["state"],
            &["header_walk"],
            &["locate"],
            &["appends", "appender", "reader", "recovery", "undisturbed", "verify", "mend"],
            &["cut", "lookup", "reset"],
            &["log"],
            &["testing"],
        ],
        protocol: &["types", "batch", "record", "control", "compression", "encode"],
    },
];

pub fn check(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in tree.under("broker/src/") {
        check_room(source, &mut findings);
    }
    if let Some(source) = tree.source("broker/src/lib.rs") {
        check_order(source, &mut findings);
    }
    for library in LIBRARIES {
        for source in tree.under(library.crate_folder) {
            check_library(library, source, &mut findings);
        }
    }
    findings.extend(check_foreign(tree));
    findings
}

/// Where a name is used, and the path that follows the crate's root: `["raft", "message"]`.
type Use<'a> = (usize, Vec<&'a str>);

fn check_room(source: &Source, findings: &mut Vec<Finding>) {
    let name = module_of(source, "broker/src/");
    if name == "lib" || name == "main" {
        return;
    }
    let Some((_, may_name)) = ROOMS.iter().find(|(room, _)| *room == name) else {
        let what = format!("`{name}` is no room: give it a row in the table of rooms");
        findings.push(Finding::new(&source.path, 1, what));
        return;
    };
    let may_name: Vec<&str> = may_name.split_whitespace().collect();
    let allowed = |path: &[&str]| {
        let whole = |allowed: &&str| {
            let parts: Vec<&str> = allowed.split("::").collect();
            *allowed == "*" || path.starts_with(&parts)
        };
        path[0] == name || may_name.iter().any(whole)
    };
    let mut uses = uses_of_root(source, "broker/src/");
    for (library, short) in [("vltava_protocol", "protocol"), ("vltava_storage", "storage")] {
        for (at, path) in paths_behind(source, library) {
            uses.push((at, [&[short], &path[..]].concat()));
        }
    }
    for (at, path) in uses {
        if !source.is_test(at) && !allowed(&path) {
            let what = format!(
                "room `{name}` names `{}`: it may name only {}",
                path.join("::"),
                may_name.join(", ")
            );
            findings.push(Finding::new(&source.path, source.line_of(at), what));
        }
    }
}

/// `lib.rs` lists the rooms in the table's order.
fn check_order(source: &Source, findings: &mut Vec<Finding>) {
    let mut last = 0;
    for at in source.words("mod") {
        let name = identifier(source.code[at + 3..].trim_start());
        let Some(place) = ROOMS.iter().position(|(room, _)| *room == name) else {
            continue;
        };
        if place < last {
            let what = format!("`{name}` stands below `{}`: order as in the table", ROOMS[last].0);
            findings.push(Finding::new(&source.path, source.line_of(at), what));
        }
        last = last.max(place);
    }
}

fn check_library(library: &Tiers, source: &Source, findings: &mut Vec<Finding>) {
    let name = module_of(source, library.crate_folder);
    if name == "lib" {
        return;
    }
    let tier_of = |module: &str| library.tiers.iter().position(|tier| tier.contains(&module));
    let Some(own) = tier_of(name) else {
        let what = format!("`{name}` stands in no tier: give it a place in the table of tiers");
        findings.push(Finding::new(&source.path, 1, what));
        return;
    };
    for (at, path) in uses_of_root(source, library.crate_folder) {
        let below = tier_of(path[0]).is_none_or(|tier| tier < own);
        if path[0] != name && !below && !source.is_test(at) {
            let what = format!("`{name}` names `{}`, which does not stand below it", path[0]);
            findings.push(Finding::new(&source.path, source.line_of(at), what));
        }
    }
    for (at, path) in paths_behind(source, "vltava_protocol") {
        let free = library.protocol.is_empty() || library.protocol.contains(&path[0]);
        if !free && !source.is_test(at) {
            let what = format!(
                "storage names `protocol::{}`: it may name only {}",
                path[0],
                library.protocol.join(", ")
            );
            findings.push(Finding::new(&source.path, source.line_of(at), what));
        }
    }
}

/// Only `runtime` knows what the machine is made of; only the cli knows the client.
fn check_foreign(tree: &Tree) -> Vec<Finding> {
    let rules: [(&[&str], &[&str], &str); 3] = [
        (&["io_uring"], &["broker/src/runtime/"], "reach it through `Runtime`"),
        // Aligned memory is asked of the kernel beside the seam that carries it.
        (&["libc"], &["broker/src/runtime/", "storage/src/io/"], "reach it through `Runtime`"),
        (&["vltava_client"], &["broker/src/cli.rs", "broker/src/cli/"], "only the cli is a client"),
    ];
    let mut findings = Vec::new();
    for source in tree.rust.iter().filter(|source| !source.path.starts_with("bench/")) {
        for (crates, places, instead) in rules {
            if places.iter().any(|place| source.path.starts_with(place)) {
                continue;
            }
            for name in crates {
                // A path or an import; not a field or a variable of that name.
                let named = source.words(name).filter(|at| {
                    let before = source.code[..*at].trim_end();
                    source.code[at + name.len()..].trim_start().starts_with("::")
                        || before.ends_with("use")
                });
                for at in named.filter(|at| !source.is_test(*at)) {
                    let what = format!("`{name}` is named here: {instead}");
                    findings.push(Finding::new(&source.path, source.line_of(at), what));
                }
            }
        }
    }
    findings
}

/// The module of the crate's root that a file belongs to.
fn module_of<'a>(source: &'a Source, folder: &str) -> &'a str {
    let rest = &source.path[folder.len()..];
    identifier(rest)
}

/// Every path that begins at the crate's root: behind `crate::`, and behind `super::` where it
/// climbs that far.
fn uses_of_root<'a>(source: &'a Source, folder: &str) -> Vec<Use<'a>> {
    let mut uses = paths_behind(source, "crate");
    let parts: Vec<&str> = source.path[folder.len()..].split('/').collect();
    let is_front = matches!(parts.last(), Some(&"mod.rs"));
    let depth = parts.len() - usize::from(is_front);
    let mut last = usize::MAX;
    for at in source.words("super") {
        let (mut rest, mut climbs) = (&source.code[at..], 0);
        while let Some(next) = rest.strip_prefix("super").map(str::trim_start) {
            let Some(next) = next.strip_prefix("::") else {
                break;
            };
            (rest, climbs) = (next.trim_start(), climbs + 1);
        }
        // One chain is looked at once, from its first `super`.
        let begin = source.code.len() - rest.len();
        if climbs >= depth && begin != last {
            uses.extend(tree_of(rest).into_iter().map(|path| (at, path)));
        }
        last = begin;
    }
    uses
}

/// Paths behind `name::`, also those in braces: `crate::{a, b::{c, d}}` gives `a`, `b::c`, `b::d`.
fn paths_behind<'a>(source: &'a Source, name: &str) -> Vec<Use<'a>> {
    let mut uses = Vec::new();
    for (at, _) in source.code.match_indices(name) {
        let bytes = source.code.as_bytes();
        let whole = at == 0 || !(bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
        let behind = source.code[at + name.len()..].trim_start();
        if let (true, Some(rest)) = (whole, behind.strip_prefix("::")) {
            uses.extend(tree_of(rest.trim_start()).into_iter().map(|path| (at, path)));
        }
    }
    uses
}

/// The paths of a use tree, each to at most three names.
fn tree_of(text: &str) -> Vec<Vec<&str>> {
    let Some(inside) = text.strip_prefix('{') else {
        let name = identifier(text);
        let behind = text[name.len()..].trim_start();
        let Some(rest) = behind.strip_prefix("::").map(str::trim_start) else {
            return if name.is_empty() { Vec::new() } else { vec![vec![name]] };
        };
        let mut paths = tree_of(rest);
        if paths.is_empty() {
            return vec![vec![name]];
        }
        for path in &mut paths {
            path.insert(0, name);
            path.truncate(3);
        }
        return paths;
    };
    let (mut paths, mut depth, mut begin) = (Vec::new(), 0usize, 0usize);
    for (at, character) in inside.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                paths.extend(tree_of(inside[begin..at].trim()));
                begin = at + 1;
                if character == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    paths
}

#[test]
fn use_trees_are_read() {
    let paths = tree_of("{a, b::{c, d::e}, f::*};");
    assert_eq!(paths, [vec!["a"], vec!["b", "c"], vec!["b", "d", "e"], vec!["f"]]);
    let text = "use super::super::raft::Node;\nfn x() { crate::net::go(); }\n#[cfg(test)]\nmod t \
                { use crate::cli; }";
    let source = Source::new("broker/src/groups/classic.rs".into(), text.into());
    let mut findings = Vec::new();
    check_room(&source, &mut findings);
    let lines: Vec<usize> = findings.iter().map(|finding| finding.line).collect();
    assert_eq!(lines, [2, 1]);
}

#[test]
fn the_table_has_no_circles() {
    for (index, (room, may_name)) in ROOMS.iter().enumerate() {
        for name in may_name.split_whitespace().map(identifier) {
            let below = ROOMS[..index].iter().any(|(other, _)| *other == name);
            let library = ["protocol", "storage", ""].contains(&name);
            assert!(below || library, "{room} may name {name}, which stands below it");
        }
    }
}
