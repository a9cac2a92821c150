//! Java's own bytes: Kafka 4.4's generated messages encode the same values to the same bytes.
//!
//! Needs `java` (17 or later) and `mvn`, which fetches the jars that `scripts/java-codec/pom.xml`
//! names. Where either is missing the test says so and passes, except in CI.
#![allow(clippy::unwrap_used, reason = "a failing test may panic")]

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;

use common::{Case, cases, schemas};
use vltava_protocol::api::APIS;
use vltava_protocol::encode::Writer;
use vltava_protocol::frame::ResponseHeader;

const RANDOM_CASES: u64 = 12;

/// Whether Java is here. Where it is not, says so; in CI that is an error.
fn has_java() -> bool {
    let Some(missing) = ["java", "mvn"].into_iter().find(|tool| !is_installed(tool)) else {
        return true;
    };
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "{missing} is missing, and CI skips nothing");
    // Not by a macro: the harness would swallow it.
    let _ = writeln!(std::io::stderr(), "skipped: java ({missing} is missing)");
    false
}

/// Names, versions and headers of all APIs.
#[test]
fn same_table_as_java() {
    if !has_java() {
        return;
    }
    let lines = APIS.iter().map(|api| format!("ApiKeys\t{}\t", api.key.0));
    let answers = ask_java(&lines.collect::<Vec<_>>());
    assert_eq!(answers.len(), APIS.len());
    for (api, answer) in APIS.iter().zip(answers) {
        let (min, max) = (api.min_version, api.max_version);
        let mut ours = format!("{} {min} {max} {}", api.name, api.unstable_max_version);
        for version in min..=api.unstable_max_version {
            let request = if api.is_flexible(version) { 2 } else { 1 };
            let mut writer = Writer::new();
            let header = ResponseHeader { correlation_id: 0 };
            header.encode(&mut writer, api.key, version).unwrap();
            // Version 1 is longer by an empty set of tagged fields.
            let response = writer.len() - 4;
            ours.push_str(&format!(" {request}/{response}"));
        }
        assert_eq!(ours, answer);
    }
}

#[test]
fn same_bytes_as_java() {
    if !has_java() {
        return;
    }
    let schemas = schemas();
    let cases: Vec<Case<'_>> = schemas
        .iter()
        .filter(|schema| class(schema.name(), &schema.module).is_some())
        .flat_map(|schema| cases(schema, RANDOM_CASES))
        .collect();
    let answers = encode_in_java(&cases);
    assert_eq!(answers.len(), cases.len());
    let mut differences = Vec::new();
    for (case, answer) in cases.iter().zip(&answers) {
        let ours: String = case.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if ours != *answer {
            differences.push(format!(
                "{}\n  ours {ours}\n  java {answer}\n  json {}",
                case.what(),
                case.json()
            ));
        }
    }
    assert!(
        differences.is_empty(),
        "{} of {} differ, as:\n{}",
        differences.len(),
        cases.len(),
        differences[..differences.len().min(5)].join("\n")
    );
}

/// The Java class of a message; `None` for records that are ours alone.
fn class(name: &str, module: &str) -> Option<String> {
    let package = match module {
        "records::metadata" | "records::node" => return None,
        "records::group" => "org.apache.kafka.coordinator.group.generated",
        "records::share" => "org.apache.kafka.coordinator.share.generated",
        "records::transaction" => "org.apache.kafka.coordinator.transaction.generated",
        "records::log" if name == "ProducerSnapshot" => {
            "org.apache.kafka.server.log.remote.metadata.storage.generated"
        }
        _ => "org.apache.kafka.common.message",
    };
    let is_api = module.starts_with("messages::");
    Some(format!("{package}.{name}{}", if is_api { "Data" } else { "" }))
}

fn encode_in_java(cases: &[Case<'_>]) -> Vec<String> {
    let lines = cases.iter().map(|case| {
        let class = class(case.schema.name(), &case.schema.module).unwrap();
        format!("{class}\t{}\t{}", case.version, case.json())
    });
    ask_java(&lines.collect::<Vec<_>>())
}

/// One line of answer for each line.
fn ask_java(lines: &[String]) -> Vec<String> {
    let source = scripts().join("JavaCodec.java");
    let mut child = Command::new("java")
        .arg("-Xshare:auto")
        .arg("-cp")
        .arg(format!("{}/*", jars().display()))
        .arg(source)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let corpus = lines.join("\n") + "\n";
    let mut stdin = child.stdin.take().unwrap();
    // Java answers while it reads: both pipes would fill.
    let feeder = std::thread::spawn(move || stdin.write_all(corpus.as_bytes()));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "java: {}", output.status);
    feeder.join().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

/// The folder with the jars, fetched where the pom has changed since.
fn jars() -> PathBuf {
    // Two tests, one folder.
    static FETCHING: Mutex<()> = Mutex::new(());
    let _fetching = FETCHING.lock().unwrap();
    let pom = scripts().join("pom.xml");
    let text = std::fs::read_to_string(&pom).unwrap();
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("java-codec");
    let (jars, fetched) = (root.join("jars"), root.join("pom.xml"));
    if std::fs::read_to_string(&fetched).is_ok_and(|old| old == text) {
        return jars;
    }
    let _ = std::fs::remove_dir_all(&root);
    let status = Command::new("mvn")
        .args(["-q", "-B", "dependency:copy-dependencies", "-f"])
        .arg(&pom)
        .arg(format!("-DoutputDirectory={}", jars.display()))
        .status()
        .unwrap();
    assert!(status.success(), "mvn: {status}");
    std::fs::write(fetched, text).unwrap();
    jars
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/java-codec")
}

fn is_installed(tool: &str) -> bool {
    let status =
        Command::new(tool).arg("-version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}
