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

#[test]
fn what_repeats_a_row_of_the_documentation_is_there() {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(bench.join("../docs/performance.md")).unwrap();
    let (_, table) = page.split_once("## To repeat it").unwrap();
    let named: Vec<&str> = table.split('`').filter(|word| word.ends_with(".toml")).collect();
    assert!(named.len() >= 18, "{named:?}");
    for name in named {
        assert!(bench.join("scenarios").join(name).exists(), "{name}");
    }
    let script = fs::read_to_string(bench.join("librdkafka/compare")).unwrap();
    let columns = table.lines().filter_map(|line| line.split('|').nth(3));
    let cases: Vec<&str> = columns
        .flat_map(|column| column.split('`'))
        .filter(|word| word.starts_with(|first: char| first.is_ascii_lowercase()))
        .filter(|word| word.contains('-'))
        .collect();
    assert!(cases.len() >= 9, "{cases:?}");
    for case in cases {
        let kind = case.split('-').next().unwrap();
        assert!(script.contains(&format!("  {case})")) || script.contains(&format!("  {kind}-*)")));
        assert!(script.contains(case), "{case} is in no list");
    }
}
