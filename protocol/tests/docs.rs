//! `docs/protocol.md` is made from the table of APIs. Write it again with
//! `VLTAVA_WRITE_DOCS=1 cargo test -p vltava-protocol --test docs`.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

use std::fmt::Write;
use std::path::Path;

use vltava_protocol::api::APIS;

const HEAD: &str = "\
# Protocol

The APIs of Kafka 4.4's broker listener that Vltava can read and write, in every version that Kafka
4.4 serves. Which of them a broker serves is what it answers to ApiVersions. *Flexible* is the first
version with compact lengths and tagged fields (KIP-482).

This page is made from `protocol/schema/api/`, where each API has a file with its fields and what
each version added.

| key | API | versions | flexible | |
|---:|---|---|---|---|
";

fn render() -> String {
    let mut out = HEAD.to_owned();
    for api in APIS {
        let mut versions = format!("{}-{}", api.min_version, api.max_version);
        if api.min_version == api.max_version {
            versions = api.min_version.to_string();
        }
        if api.unstable_max_version > api.max_version {
            let _ = write!(versions, ", unstable {}", api.unstable_max_version);
        }
        let flexible = api.flexible_from.map_or("-".to_owned(), |from| format!("{from}+"));
        let (key, name, summary) = (api.key.0, api.name, api.summary);
        let _ = writeln!(out, "| {key} | {name} | {versions} | {flexible} | {summary} |");
    }
    out
}

#[test]
fn protocol_md_is_this_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/protocol.md");
    if std::env::var_os("VLTAVA_WRITE_DOCS").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, render()).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == render(),
        "docs/protocol.md differs; see the comment above this test's file"
    );
}
