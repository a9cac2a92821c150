//! `vltava repair`: what an operator sees of a damaged log, and the way out.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::{Broker, Options, binary};

/// Exit code, output and errors of a command.
fn run(words: &[&str], input: &str) -> (i32, String, String) {
    let mut child = Command::new(binary())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may have ended already.
    let _written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

fn repair(data: &Path, more: &[&str]) -> (i32, String, String) {
    let mut words = vec!["repair", "--data-dir", data.to_str().unwrap()];
    words.extend(more);
    run(&words, "")
}

fn on(broker: &Broker, words: &[&str], input: &str) -> String {
    let address = broker.address.to_string();
    let mut all = words.to_vec();
    all.extend(["--bootstrap", &address]);
    let (code, out, errors) = run(&all, input);
    assert_eq!(code, 0, "{words:?}: {errors}");
    out
}

/// A broker that was stopped in order, with a log `t-0` of five batches of one record.
fn stopped() -> Broker {
    let mut broker = Broker::start(Options::default());
    on(&broker, &["topic", "create", "t", "-p", "1"], "");
    for number in 0..5 {
        on(&broker, &["produce", "t"], &format!("record {number}\n"));
    }
    assert!(broker.stop().success());
    broker
}

fn segment(broker: &Broker) -> PathBuf {
    broker.data.join("t-0/00000000000000000000.log")
}

fn files(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = entries.map(|path| (path.clone(), fs::read(&path).unwrap())).collect();
    files.sort();
    files
}

#[test]
fn a_log_that_does_not_open_is_shown_and_cut_only_on_an_operators_word() {
    let mut broker = stopped();
    let data = broker.data.clone();
    assert_eq!(
        repair(&data, &["t-0"]),
        (0, "t-0: sound, offsets 0 to 4\n".to_owned(), String::new())
    );
    let whole = fs::read(segment(&broker)).unwrap();
    fs::write(segment(&broker), &whole[..whole.len() - whole.len() / 5 - 10]).unwrap();
    let before = files(&data.join("t-0"));
    let (code, out, errors) = repair(&data, &["t-0"]);
    assert_eq!(code, 4, "{out}{errors}");
    assert!(out.starts_with("t-0: out of service: t-0/0000"), "{out}");
    assert!(out.contains("\n  kept: offsets 0 to 2\n"), "{out}");
    assert!(out.contains("--accept-loss: offsets 3 to 4, and whatever stood behind\n"), "{out}");
    assert!(errors.starts_with("vltava: t-0 is damaged\n"), "{errors}");
    assert_eq!(before, files(&data.join("t-0")), "something was changed");
    broker.run();
    let address = broker.address.to_string();
    let read = ["consume", "t", "-e", "--timeout", "2", "--bootstrap", &address];
    assert_ne!(run(&read, "").0, 0, "a damaged log is not served");
    let (code, _, errors) = repair(&data, &["t-0", "--accept-loss"]);
    assert_eq!(code, 1);
    assert!(errors.contains("is in use by another process"), "{errors}");
    assert!(broker.stop().success());
    // Not allowed, where the tests do not run as root; then all is one user's anyway.
    let _given = chown(data.join("t-0"), Some(65_534), Some(65_534));
    let (code, out, _) = repair(&data, &["t-0", "--accept-loss", "--json"]);
    assert_eq!(code, 0, "{out}");
    let owner = |path: &Path| fs::metadata(path).unwrap().uid();
    for (file, _) in files(&data.join("t-0")) {
        assert_eq!(owner(&file), owner(&data.join("t-0")), "{}", file.display());
    }
    let told = "{\"partition\":\"t-0\",\"state\":\"repaired\",\"log_start\":0,\"end\":3,\
                \"known_end\":5,\"damage\":[{\"file\":\"t-0/00000000000000000000.log\",";
    assert!(out.starts_with(told), "{out}");
    assert_eq!(repair(&data, &["t-0"]).1, "t-0: sound, offsets 0 to 2\n");
    broker.run();
    on(&broker, &["produce", "t"], "after\n");
    let read = on(&broker, &["consume", "t", "-e"], "");
    assert_eq!((read.lines().count(), read.lines().last()), (4, Some("after")));
}

#[test]
fn rot_in_a_log_that_opens_is_told_and_left() {
    let broker = stopped();
    let mut bytes = fs::read(segment(&broker)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(segment(&broker), &bytes).unwrap();
    let (code, out, errors) = repair(&broker.data, &["t-0", "--accept-loss"]);
    assert_eq!(code, 4);
    assert!(out.starts_with("t-0: serves offsets 0 to 4, but these batches"), "{out}");
    assert!(out.contains("(offset 2): a CRC that does not match"), "{out}");
    assert!(errors.contains("consumers pass over them"), "{errors}");
    assert_eq!(fs::read(segment(&broker)).unwrap(), bytes);
}

#[test]
fn what_is_not_there_is_said_in_a_line() {
    let broker = stopped();
    for name in ["u-0", "../t-0", "t-0/"] {
        let (code, _, errors) = repair(&broker.data, &[name]);
        assert_eq!(code, 1);
        let said = format!("vltava: there is no partition {name} in this data directory\n");
        assert_eq!(errors, said);
    }
    let (code, _, errors) = repair(Path::new("/nonexistent"), &["t-0"]);
    assert_eq!((code, errors.lines().count()), (1, 1), "{errors}");
}
