//! What tests against a real broker share.

use std::path::PathBuf;

/// The broker: the binary that `VLTAVA_BIN` names, or the one that the workspace's build has put
/// beside these tests. Without one there is nothing to run, which is an error where `CI=true`.
pub fn binary() -> Option<PathBuf> {
    let named = std::env::var_os("VLTAVA_BIN").map(PathBuf::from);
    // target/debug/deps/run-0123: two folders up.
    let test = std::env::current_exe().unwrap();
    let built = test.parent().unwrap().parent().unwrap().join("vltava");
    let found = named.unwrap_or(built);
    if found.exists() {
        return Some(found);
    }
    let is_required = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!is_required, "{} is not there: build vltava first", found.display());
    eprintln!("skipped: {} is not there; build vltava first", found.display());
    None
}
