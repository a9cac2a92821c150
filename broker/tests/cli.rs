//! `vltava`'s client commands against a real `vltava serve`: what a person or a script sees.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{Broker, Options, binary, directory, signal};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::compression::{Codec, Compressor};

/// Runs a command to its end.
fn run(broker: &Broker, words: &[&str], input: &str) -> Output {
    let mut child = start(broker, words);
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads nothing may have ended already.
    let _written = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().unwrap()
}

fn start(broker: &Broker, words: &[&str]) -> Child {
    Command::new(binary())
        .args(words)
        .args(["--bootstrap", &broker.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a command that succeeds prints.
fn printed(broker: &Broker, words: &[&str], input: &str) -> String {
    let output = run(broker, words, input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {}: {said}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// Exit code and errors of a command that fails.
fn failed(broker: &Broker, words: &[&str]) -> (i32, String) {
    let output = run(broker, words, "");
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn topics_are_created_listed_described_and_deleted() {
    let broker = Broker::start(Options::default());
    let created =
        printed(&broker, &["topic", "create", "t", "-p", "3", "-c", "retention.ms=86400000"], "");
    assert_eq!(created, "created topic t: partitions 3, replication factor 1\n");
    let (code, said) = failed(&broker, &["topic", "create", "t"]);
    assert_eq!(code, 1);
    assert!(said.contains("TOPIC_ALREADY_EXISTS"), "{said}");
    let again = printed(&broker, &["topic", "create", "t", "--if-not-exists", "--json"], "");
    assert_eq!(again, "{\"topic\":\"t\",\"created\":false}\n");
    let listed = printed(&broker, &["topic", "list"], "");
    assert_eq!(listed, "TOPIC  PARTITIONS  REPLICATION\nt      3           1\n");
    let described = printed(&broker, &["topic", "describe", "t", "--json"], "");
    assert!(described.contains("\"configs\":{\"retention.ms\":\"86400000\"}"), "{described}");
    assert!(described.contains("\"partition\":2,\"leader\":1"), "{described}");
    assert_eq!(printed(&broker, &["topic", "delete", "t"], ""), "deleted topic t\n");
    let (code, said) = failed(&broker, &["topic", "describe", "t"]);
    assert_eq!(code, 1);
    assert!(said.starts_with("vltava: topic t does not exist\n"), "{said}");
    let (code, said) = failed(&broker, &["topic", "delete", "t"]);
    assert!(code == 1 && !said.contains("topic create"), "{said}");
    printed(&broker, &["topic", "delete", "t", "--if-exists"], "");
    let (code, said) = failed(&broker, &["topic", "create", "x", "-c", "no.such=1"]);
    assert_eq!(code, 1);
    assert!(said.contains("INVALID_CONFIG"), "{said}");
    let (_, said) = failed(&broker, &["topic", "create", "x", "-c", "rtention.ms=1"]);
    assert!(said.contains("Did you mean retention.ms?"), "{said}");
}

#[test]
fn lines_become_records_and_records_lines() {
    let broker = Broker::start(Options::default());
    printed(&broker, &["topic", "create", "t", "-p", "2"], "");
    let input = "k1:v1\nno key\nk1:\nk2:v:2\n";
    for (codec, acks) in
        [("none", "0"), ("gzip", "1"), ("snappy", "all"), ("lz4", "1"), ("zstd", "all")]
    {
        let words =
            ["produce", "t", "-K", ":", "-H", "h=1", "-z", codec, "-X", acks, "-p", "1", "-Z"];
        printed(&broker, &words, input);
    }
    // With acks=0 nothing says when they are there.
    let words =
        ["consume", "t", "-c", "20", "-f", "%t %p %o %k(%K) %s(%S) %h\\n", "--null", "NULL"];
    let read = printed(&broker, &words, "");
    let lines: Vec<&str> = read.lines().collect();
    assert_eq!(lines.len(), 20);
    assert_eq!(lines[0], "t 1 0 k1(2) v1(2) h=1");
    assert_eq!(lines[1], "t 1 1 NULL(-1) no key(6) h=1");
    assert_eq!(lines[2], "t 1 2 k1(2) NULL(-1) h=1");
    assert_eq!(lines[19], "t 1 19 k2(2) v:2(3) h=1");
    let json = printed(&broker, &["consume", "t", "-p", "1", "-o", "-1", "-e", "--json"], "");
    assert!(json.contains("\"offset\":19,"), "{json}");
    assert!(json.contains(
        "\"key\":\"k2\",\"value\":\"v:2\",\"headers\":[{\"key\":\"h\",\"value\":\"1\"}]"
    ));
    let from = |position: &str| {
        let words = ["consume", "t", "-p", "1", "-e", "-f", "%o ", "-o", position];
        printed(&broker, &words, "")
    };
    assert_eq!(from("offset:17"), "17 18 19 ");
    assert_eq!(from("17"), "17 18 19 ");
    assert_eq!(from("end"), "");
    assert_eq!(from("time:2001-01-01").split(' ').count(), 21);
    assert_eq!(from("time:9000-01-01T00:00:00Z"), "");
    let (code, said) = failed(&broker, &["consume", "t", "-o", "offset:99"]);
    assert_eq!(code, 1);
    assert!(said.contains("has no offset 99"), "{said}");
    let (code, said) = failed(&broker, &["consume", "t", "-p", "7"]);
    assert_eq!((code, &*said), (1, "vltava: topic t has no partition 7, only 0 to 1\n"));
    let summary = printed(&broker, &["produce", "new", "--json"], "a\nb\n");
    let expected = concat!(
        r#"{"topic":"new","records":2,"#,
        r#""partitions":[{"partition":0,"records":2,"first_offset":0}]}"#,
        "\n"
    );
    assert_eq!(summary, expected);
}

#[test]
fn much_comes_back_as_it_was_also_over_a_restart() {
    let mut broker = Broker::start(Options::default());
    let input: String = (0..200_000).map(|number| format!("line {number}\n")).collect();
    printed(&broker, &["produce", "t", "-z", "lz4"], &input);
    assert!(printed(&broker, &["consume", "t", "-e"], "") == input);
    broker.stop();
    broker.run();
    assert!(printed(&broker, &["consume", "t", "-e"], "") == input);
    broker.stop();
    let mut segments = Vec::new();
    for entry in fs::read_dir(broker.data.join("t-0")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "log") {
            segments.push(path.display().to_string());
        }
    }
    segments.sort();
    let output =
        Command::new(binary()).args(["inspect", "-q", "--json"]).args(&segments).output().unwrap();
    assert!(output.status.success());
    let report = String::from_utf8(output.stdout).unwrap();
    assert!(report.contains("\"next_offset\":200000,"), "{report}");
    assert!(report.contains("\"padding_bytes\":0,\"damage\":null}"), "{report}");
}

#[test]
fn a_group_shares_the_work_and_goes_on_where_it_was() {
    let broker = Broker::start(Options::default());
    printed(&broker, &["topic", "create", "t", "-p", "4"], "");
    let write = |from: u32| {
        for partition in ["0", "1", "2", "3"] {
            let lines: String = (from..from + 50).map(|n| format!("{partition}-{n}\n")).collect();
            printed(&broker, &["produce", "t", "-p", partition], &lines);
        }
    };
    write(0);
    let first = printed(&broker, &["consume", "t", "-g", "g", "-c", "30"], "");
    let rest = printed(&broker, &["consume", "t", "-g", "g", "-e"], "");
    let mut all: Vec<&str> = first.lines().chain(rest.lines()).collect();
    all.sort_unstable();
    all.dedup();
    assert_eq!((first.lines().count(), rest.lines().count(), all.len()), (30, 170, 200));
    // Two members that stay.
    let members: Vec<Child> =
        (0..2).map(|_| start(&broker, &["consume", "t", "-g", "g"])).collect();
    await_group(&broker, "\"member\":", 2 + 4);
    write(50);
    await_group(&broker, "\"lag\":0", 4);
    let mut lines = Vec::new();
    for member in members {
        signal(member.id(), "INT");
        let output = member.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", output.status);
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(text.lines().count(), 100, "each has two partitions");
        lines.extend(text.lines().map(str::to_owned));
    }
    lines.sort_unstable();
    lines.dedup();
    assert_eq!(lines.len(), 200);
    // Who leaves says so: nobody waits for a session to end.
    let described = printed(&broker, &["group", "describe", "g"], "");
    assert!(described.contains("state     Empty"), "{described}");
    let listed = printed(&broker, &["group", "list"], "");
    assert!(listed.contains("g      Empty"), "{listed}");
    assert_eq!(failed(&broker, &["group", "describe", "nobody"]).0, 1);
}

/// Waits until the group's description holds `what` so many times.
fn await_group(broker: &Broker, what: &str, count: usize) {
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        // It fails for as long as there is no such group.
        let output = run(broker, &["group", "describe", "g", "--json"], "");
        let described = String::from_utf8_lossy(&output.stdout).into_owned();
        let stable = described.contains("\"state\":\"Stable\"");
        if stable && described.matches(what).count() == count {
            return;
        }
        assert!(Instant::now() < deadline, "{described}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn commands_go_on_when_a_killed_broker_comes_back() {
    let mut broker = Broker::start(Options::default());
    printed(&broker, &["topic", "create", "t", "-p", "2"], "");
    let mut producer = start(&broker, &["produce", "t", "-z", "snappy"]);
    let mut consumer = start(&broker, &["consume", "t", "-g", "g", "-c", "90000"]);
    let reader = std::thread::spawn({
        let mut out = consumer.stdout.take().unwrap();
        move || std::io::read_to_string(&mut out).unwrap()
    });
    let mut input = producer.stdin.take().unwrap();
    let lines = |from: u32| (from..from + 10_000).map(|n| format!("{n}\n")).collect::<String>();
    // Commands do not wait for a broker that was never there: both must have met it.
    input.write_all(lines(0).as_bytes()).unwrap();
    printed(&broker, &["consume", "t", "-c", "1"], "");
    await_group(&broker, "\"member\":", 1 + 2);
    for round in 0..4 {
        broker.kill();
        input.write_all(lines(round * 20_000 + 10_000).as_bytes()).unwrap();
        broker.run();
        input.write_all(lines(round * 20_000 + 20_000).as_bytes()).unwrap();
    }
    drop(input);
    let produced = producer.wait_with_output().unwrap();
    assert!(produced.status.success(), "{produced:?}");
    // Each record once, whoever asks.
    let mut written: Vec<u32> = printed(&broker, &["consume", "t", "-e"], "")
        .lines()
        .map(|line| line.parse().unwrap())
        .collect();
    written.sort_unstable();
    assert!(written.iter().copied().eq(0..90_000), "{} records", written.len());
    let consumed = consumer.wait_with_output().unwrap();
    assert!(consumed.status.success(), "{consumed:?}");
    let said = String::from_utf8_lossy(&consumed.stderr);
    assert!(said.contains("; trying again\n") && !said.contains("os error"), "{said}");
    // What was read and not committed when the broker was killed may be read again.
    let read = reader.join().unwrap();
    assert_eq!(read.lines().count(), 90_000);
}

#[test]
fn a_member_goes_on_when_a_commit_falls_due_while_the_broker_is_away() {
    // The first heartbeat leaves after three seconds, the first commit after five: it is to be the
    // commit that finds the broker away.
    const BEHIND_A_HEARTBEAT: Duration = Duration::from_millis(3500);
    const BEHIND_A_COMMIT: Duration = Duration::from_secs(3);
    let mut broker = Broker::start(Options::default());
    printed(&broker, &["topic", "create", "t", "-p", "2"], "");
    let mut consumer = start(&broker, &["consume", "t", "-g", "g", "-c", "4"]);
    let mut lines = BufReader::new(consumer.stdout.take().unwrap()).lines();
    let mut read = |count| lines.by_ref().take(count).collect::<Result<Vec<_>, _>>().unwrap();
    printed(&broker, &["produce", "t", "-p", "0"], "1\n2\n");
    assert_eq!(read(2), ["1", "2"]);
    std::thread::sleep(BEHIND_A_HEARTBEAT);
    broker.kill();
    std::thread::sleep(BEHIND_A_COMMIT);
    broker.run();
    printed(&broker, &["produce", "t", "-p", "0"], "3\n4\n");
    assert_eq!(read(2), ["3", "4"]);
    let ended = consumer.wait_with_output().unwrap();
    assert!(ended.status.success(), "{ended:?}");
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.ends_with("; trying again\n") && said.lines().count() == 1, "{said}");
    // Where nothing came the group stands, too.
    printed(&broker, &["produce", "t", "-p", "1"], "5\n6\n");
    let described = printed(&broker, &["group", "describe", "g", "--json"], "");
    for (partition, committed, lag) in [(0, 4, 0), (1, 0, 2)] {
        let stands = format!("\"partition\":{partition},\"committed\":{committed},");
        let lags = format!(":{},\"lag\":{lag},", committed + lag);
        assert!(described.contains(&stands) && described.contains(&lags), "{described}");
    }
}

/// Stands before a broker, one connection and one request at a time, and closes the connection
/// instead of the first answer to CreateTopics.
fn swallow_an_answer(here: &TcpListener, broker: SocketAddr) {
    const CREATE_TOPICS: [u8; 2] = 19_u16.to_be_bytes();
    fn frame(from: &mut TcpStream) -> Option<Vec<u8>> {
        let mut length = [0; 4];
        from.read_exact(&mut length).ok()?;
        let mut frame = length.to_vec();
        frame.resize(4 + u32::from_be_bytes(length) as usize, 0);
        from.read_exact(&mut frame[4..]).ok()?;
        Some(frame)
    }
    let mut has_swallowed = false;
    for mut client in here.incoming().map_while(Result::ok) {
        let mut broker = TcpStream::connect(broker).unwrap();
        while let Some(request) = frame(&mut client) {
            broker.write_all(&request).unwrap();
            let answer = frame(&mut broker).unwrap();
            if request[4..6] == CREATE_TOPICS && !std::mem::replace(&mut has_swallowed, true) {
                break;
            }
            client.write_all(&answer).unwrap();
        }
    }
}

/// The topic is there when the command asks again; else that is an error.
#[test]
fn a_topic_is_created_though_the_answer_is_lost() {
    let directory = directory();
    let mut broker = Broker::new(Options::default(), directory.path());
    let listener = SocketAddr::from((Ipv4Addr::LOCALHOST, support::free_port()));
    let here = TcpListener::bind(broker.address).unwrap();
    broker.listener = Some(listener);
    broker.run();
    thread::spawn(move || swallow_an_answer(&here, listener));
    let said = printed(&broker, &["topic", "create", "t", "-p", "3"], "");
    assert_eq!(said, "topic t exists already\n");
    let (code, said) = failed(&broker, &["topic", "create", "t", "-p", "3"]);
    assert!(code == 1 && said.contains("already exists"), "{code}: {said}");
    broker.stop();
}

#[test]
fn partitions_without_a_leader_are_shown_and_the_others_used() {
    let mut broker = Broker::start(Options::default());
    printed(&broker, &["topic", "create", "t", "-p", "3"], "");
    for partition in ["0", "1", "2"] {
        printed(&broker, &["produce", "t", "-p", partition], partition);
    }
    broker.stop();
    fs::write(broker.data.join("t-1/vltava-checkpoint"), "damaged").unwrap();
    broker.run();
    let described = printed(&broker, &["topic", "describe", "t"], "");
    let row: Vec<&str> = described.lines().nth_back(1).unwrap().split_whitespace().collect();
    assert_eq!((row[0], row[1], &row[row.len() - 2..]), ("1", "none", &["-", "-"][..]));
    assert!(described.lines().last().unwrap().ends_with('1'), "{described}");
    let described = printed(&broker, &["topic", "describe", "t", "--json"], "");
    assert_eq!(described.matches("\"first_offset\":null,\"end_offset\":null").count(), 1);
    assert!(described.contains("\"partition\":1,\"leader\":null"), "{described}");
    let words = ["consume", "t", "-p", "0,2", "-e", "-f", "%s"];
    let read = printed(&broker, &words, "");
    assert!(["02", "20"].contains(&&*read), "{read}");
    printed(&broker, &["produce", "t", "-p", "2"], "more\n");
    // Lines without a key go round it.
    let input = "x\n".repeat(100_000);
    let summary = printed(&broker, &["produce", "t", "--json"], &input);
    assert!(!summary.contains("\"partition\":1,"), "{summary}");
    for words in [
        &["consume", "t", "-e"][..],
        &["consume", "t", "-p", "1", "-o", "0"],
        &["produce", "t", "-p", "1"],
    ] {
        let (code, said) = failed(&broker, &[words, &["--timeout", "1"]].concat());
        assert_eq!(code, 3, "{words:?}: {said}");
        assert!(said.starts_with("vltava: gave up after 1 s: t[1]: "), "{words:?}: {said}");
        assert!(said.contains("(LEADER_NOT_AVAILABLE)\n`vltava topic describe`"), "{said}");
    }
}

/// Exit code and errors of a command that needs no broker.
fn alone(words: &[&str]) -> (i32, String) {
    let output = Command::new(binary()).args(words).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), said)
}

#[test]
fn mistakes_are_told_with_their_exit_code() {
    let free = format!("127.0.0.1:{}", support::free_port());
    let (code, said) = alone(&["topic", "list", "-b", &free]);
    let refused = format!("vltava: no broker answers at {free}: Connection refused\n");
    assert!(code == 3 && said.starts_with(&refused) && said.contains("vltava serve"), "{said}");
    let other = format!("127.0.0.1:{}", support::free_port());
    let (code, said) = alone(&["topic", "list", "-b", &format!("{free},{other}")]);
    assert_eq!(code, 3);
    assert!(said.contains(&format!("{free}: Connection refused; {other}: Connection")), "{said}");
    for (words, told) in [
        (&["topic", "list", "-b", "a b"][..], "\"a b\" is no address; write host:port"),
        (&["topic", "list", "--timeout", "-1"], "write a whole number"),
        (&["topic", "create", "t", "-c", "novalue"], "write NAME=VALUE"),
        (&["topic", "create", "t", "-p", "0"], "write a whole number from 1 on"),
        (&["topic", "create", ""], "a name cannot be empty"),
        (&["consume", "t", "-f", "%q"], "%q stands for nothing; there are %t"),
        (&["consume", "t", "-o", "middle"], "write beginning, end, an offset, -N or time:WHEN"),
        (&["consume", "t", "-o", "time:noon"], "write a time as 2026-11-21T12:00:00Z"),
        (&["consume", "t", "-g", "g", "-p", "0"], "cannot be used with"),
        (&["produce", "t", "-z", "lzma"], "there are none, gzip, snappy, lz4, zstd"),
        (&["produce", "t", "-z", "gzip", "--level", "10"], "gzip has no level 10; it has 1 to 9"),
        (&["produce", "t", "-z", "lz4", "--level", "1"], "--codec lz4 has no levels"),
        (&["no-such-command"], "unrecognized subcommand"),
    ] {
        let (code, said) = alone(words);
        assert_eq!(code, 2, "{words:?}: {said}");
        assert!(said.starts_with("vltava: ") && said.contains(told), "{words:?}: {said}");
    }
    for (words, told) in [
        (&["inspect", "no/such/file"][..], "cannot read no/such/file: No such file or directory\n"),
        (&["inspect", "/"], "/ is a directory"),
        (&["repair", "t-0", "--data-dir", "no/such"], "data directory no/such does not exist\n"),
        (&["config", "no.such.setting"], "no setting has \"no.such.setting\" in its name\n"),
    ] {
        let (code, said) = alone(words);
        assert_eq!(code, 1, "{words:?}: {said}");
        assert!(said.starts_with(&format!("vltava: {told}")), "{words:?}: {said}");
    }
}

#[test]
fn a_broker_that_is_refused_its_settings_says_which_and_where() {
    let directory = directory();
    let file = directory.path().join("vltava.properties");
    fs::write(&file, "# mine\nmemory=1\n").unwrap();
    let file = file.display().to_string();
    for (words, told) in [
        (&["--listen", "foo"][..], "--listen foo: expected HOST:PORT"),
        (&["--advertise", "y"], "--advertise y: expected HOST:PORT"),
        (&["--admin", "x"], "--admin x: expected HOST:PORT"),
        (&["--memory", "1"], "--memory 1: must be at least 64MiB"),
        (&["--shards", "0"], "--shards 0: value must be at least 1"),
        (&["--node-id", "-1"], "--node-id -1: value must be at least 0"),
        (&["--data-dir", "a,b"], "--data-dir a,b: only one directory"),
        (&["--set", "memory=1"], "--set memory=1: must be at least 64MiB"),
        (&["--set", "memory"], "--set memory: expected NAME=VALUE"),
        (&["--set", "memry=1"], "--set: unknown setting memry; did you mean memory?"),
        (&["--log-level", "net=debgu"], "--log-level net=debgu: \"debgu\" is no level"),
        (&["--config", &file], &format!("{file}:2: memory=1: must be at least 64MiB")),
    ] {
        let (code, said) = alone(&[&["serve"], words].concat());
        assert_eq!(code, 2, "{words:?}: {said}");
        assert!(said.starts_with(&format!("vltava: {told}")), "{words:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{words:?}: {said}");
    }
    let (code, said) = alone(&["serve", "--config", "no/such/file"]);
    assert_eq!((code, &*said), (1, "vltava: --config no/such/file: No such file or directory\n"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let (code, said) = alone(&["serve", "--listen", &taken, "--admin", "none"]);
    let told = format!("vltava: cannot listen on {taken} for clients (--listen): Address already");
    assert!(code == 1 && said.starts_with(&told) && !said.contains("os error"), "{said}");
    let kafkas = directory.path().join("kafka");
    fs::create_dir_all(&kafkas).unwrap();
    // As Kafka formats it.
    fs::write(kafkas.join("bootstrap.checkpoint"), "").unwrap();
    let ids = "version=1\nnode.id=9\ncluster.id=my-own\ndirectory.id=dqlZQVpNTTqeAz4a5qjOOQ\n";
    fs::write(kafkas.join("meta.properties"), ids).unwrap();
    let listen = format!("127.0.0.1:{}", support::free_port());
    let kafkas = kafkas.display().to_string();
    let (code, said) =
        alone(&["serve", "--data-dir", &kafkas, "--listen", &listen, "--admin", "none"]);
    assert!(code == 1 && said.contains("the data directory is a Kafka broker's"), "{said}");
}

#[test]
fn pages_and_completions_are_written() {
    const VERSION: &str = concat!("vltava ", env!("CARGO_PKG_VERSION"));
    for shell in ["bash", "zsh", "fish"] {
        let output = Command::new(binary()).args(["completions", shell]).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout).unwrap().contains("consume"));
    }
    let pages = directory();
    let words = ["man", "--directory", &pages.path().display().to_string()];
    assert!(Command::new(binary()).args(words).status().unwrap().success());
    let page = fs::read_to_string(pages.path().join("vltava-topic-create.1")).unwrap();
    assert!(page.contains("retention.ms=86400000"), "{page}");
    assert!(page.lines().any(|line| line.starts_with(".TH") && line.contains(VERSION)), "{page}");
    let page = fs::read_to_string(pages.path().join("vltava.1")).unwrap();
    assert!(page.contains("vltava\\-topic(1)") && !page.contains("vltava\\-help(1)"), "{page}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let broker = Broker::start(Options::default());
    let input = "x\n".repeat(100_000);
    printed(&broker, &["produce", "t"], &input);
    let ends = |mut child: Child| {
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    };
    ends(start(&broker, &["consume", "t"]));
    // Nothing is written to this one: it cannot learn of it by writing.
    printed(&broker, &["topic", "create", "quiet"], "");
    ends(start(&broker, &["consume", "quiet"]));
    let mut config = Command::new(binary());
    config.arg("config").stdout(Stdio::piped()).stderr(Stdio::piped());
    ends(config.spawn().unwrap());
}

#[test]
fn where_nobody_reads_errors_the_exit_code_still_tells() {
    let free = format!("127.0.0.1:{}", support::free_port());
    for (words, code) in [
        (&["topic", "list", "-b", &free][..], 3),
        (&["no-such-command"], 2),
        (&["serve", "--data-dir", "no/such"], 1),
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let status = Command::new(binary()).args(words).stderr(writer).status().unwrap();
        assert_eq!(status.code(), Some(code), "{words:?}");
    }
}

#[test]
fn what_answers_and_is_no_broker_is_told() {
    let broker = Broker::start(Options::default());
    let admin = broker.admin.to_string();
    let (code, said) = alone(&["topic", "list", "-b", &admin]);
    assert_eq!(code, 3);
    assert!(said.contains(&format!("{admin}: what answers there does not speak")), "{said}");
}

/// A segment of three batches, at 0, 5 and 10, of five records each.
fn segment() -> Vec<u8> {
    let mut bytes = Vec::new();
    for base_offset in [0, 5, 10] {
        let mut builder = BatchBuilder::new().position(base_offset, 3);
        for number in 0..5 {
            let value = format!("value {number}");
            builder.append(1_000_000, Some(b"key"), Some(value.as_bytes()), &[]).unwrap();
        }
        let mut compressor = Compressor::new(Codec::Zstd, None).unwrap();
        bytes.extend(builder.build_compressed(&mut compressor).unwrap());
    }
    bytes
}

/// Exit code and output of `inspect` for a segment file of this content.
fn inspect(options: &[&str], content: &[u8]) -> (i32, String) {
    let directory = directory();
    let path = directory.path().join("00000000000000000000.log");
    fs::write(&path, content).unwrap();
    let output = Command::new(binary()).arg("inspect").args(options).arg(&path).output().unwrap();
    (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
}

#[test]
fn a_segment_is_shown_with_its_records() {
    let (code, shown) = inspect(&["--records"], &segment());
    assert_eq!(code, 0);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 3 * 6 + 1);
    assert!(lines[6].contains("offsets 5 to 9, records 5,") && lines[6].contains("epoch 3, zstd"));
    assert_eq!(lines[7], "  5 1970-01-01T00:16:40.000Z \"key\" => \"value 0\"");
    assert!(lines[18].ends_with("; all CRCs are right"), "{}", lines[18]);
    let (code, shown) = inspect(&["--records", "--json"], &segment());
    assert_eq!((code, shown.lines().count()), (0, 4));
    assert!(shown.contains("\"value\":\"value 4\""), "{shown}");
    let (code, shown) = inspect(&["-q"], &[]);
    assert_eq!(code, 0);
    assert!(shown.contains("batches 0, records 0"), "{shown}");
}

#[test]
fn what_stands_beside_segments_is_no_damage() {
    let directory = directory();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let (log, index) = (path("00000000000000000000.log"), path("00000000000000000000.index"));
    fs::write(&log, segment()).unwrap();
    fs::write(&index, [0, 0, 0, 9, 0, 0, 1, 0]).unwrap();
    let told = format!("vltava: {index} is no segment: inspect reads .log files\n");
    assert_eq!(alone(&["inspect", &index]), (2, told.clone()));
    assert_eq!(alone(&["inspect", &index, &log]), (0, told));
}

#[test]
fn zeros_behind_a_segment_are_space_and_anything_else_is_damage() {
    let whole = segment();
    let one = whole.len() / 3;
    let report = |content: &[u8]| inspect(&["--json", "-q"], content);
    let valid = |bytes: usize| format!("\"valid_bytes\":{bytes},");
    let mut padded = whole.clone();
    padded.resize(whole.len() + 10_000, 0);
    let (code, shown) = report(&padded);
    assert_eq!(code, 0);
    assert!(shown.contains("\"padding_bytes\":10000,\"damage\":null"), "{shown}");
    // Something stands behind the zeros.
    *padded.last_mut().unwrap() = 1;
    let (code, shown) = report(&padded);
    assert_eq!(code, 4);
    assert!(shown.contains(&valid(whole.len())) && shown.contains("batch length of 0"), "{shown}");
    // Cut off inside the last batch (its offset begins with zeros), and behind the one before.
    for length in [2 * one + 8, 2 * one + 11, 2 * one + 30, 3 * one - 1] {
        let (code, shown) = report(&whole[..length]);
        assert_eq!(code, 4, "{length}");
        assert!(shown.contains(&valid(2 * one)), "{shown}");
    }
    assert_eq!(report(&whole[..2 * one]).0, 0);
    // A flipped bit; a batch that stands twice; a length that goes far behind the end.
    let mut flipped = whole.clone();
    flipped[one + 70] ^= 4;
    let (code, shown) = report(&flipped);
    assert_eq!(code, 4);
    assert!(shown.contains(&valid(one)) && shown.contains("CRC-32C"), "{shown}");
    let twice = [&whole[..], &whole[one..]].concat();
    let (code, shown) = report(&twice);
    assert_eq!(code, 4);
    assert!(shown.contains("begins at offset 5 where 15 is the next"), "{shown}");
    let mut long = whole;
    long[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    let (code, shown) = report(&long);
    assert_eq!(code, 4);
    assert!(shown.contains(&valid(0)), "{shown}");
}
