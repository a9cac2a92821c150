//! The scenarios that are checked in can be run, and no two of them look alike on a page.
#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use vltava_bench::scenario::Scenario;

#[test]
fn each_scenario_is_one_and_says_why() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scenarios");
    let mut titles = BTreeSet::new();
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(path.extension().unwrap(), "toml", "{}", path.display());
        let text = fs::read_to_string(&path).unwrap();
        let scenario = match Scenario::parse(&text) {
            Ok(scenario) => scenario,
            Err(error) => panic!("{}: {error}", path.display()),
        };
        assert!(scenario.why.len() > 40, "{}: why?", path.display());
        assert!(titles.insert(scenario.title), "{}: its title is taken", path.display());
        count += 1;
    }
    assert!(count >= 20, "{count} scenarios");
}
