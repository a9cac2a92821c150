//! The admin port of a real process: metrics that parse and move, health, readiness, and what it
//! does with those who send it something else.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use support::{Broker, Options, wire};
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};

/// An answer over HTTP.
struct Answer {
    status: u16,
    head: String,
    body: String,
}

/// Sends bytes and reads until the broker closes.
fn send(admin: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(admin).expect("the admin port");
    stream.set_read_timeout(Some(support::PATIENCE)).expect("a time limit");
    stream.write_all(request).expect("the request is sent");
    receive(stream)
}

fn receive(mut stream: TcpStream) -> Answer {
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("the whole answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok());
    let status = status.expect("a status");
    let answer = Answer { status, head: head.to_owned(), body: body.to_owned() };
    assert!(answer.head.contains("\r\nConnection: close"), "{head}");
    answer
}

fn get(admin: SocketAddr, path: &str) -> Answer {
    let request = format!("GET {path} HTTP/1.1\r\nHost: {admin}\r\n\r\n");
    send(admin, request.as_bytes())
}

/// Samples by name and labels, as they stand on the page.
type Samples = BTreeMap<String, f64>;

fn metrics(broker: &Broker) -> Samples {
    let answer = get(broker.admin, "/metrics");
    assert_eq!(answer.status, 200, "{}", answer.body);
    let kind = "\r\nContent-Type: text/plain; version=0.0.4";
    assert!(answer.head.contains(kind), "{}", answer.head);
    let length = format!("\r\nContent-Length: {}\r\n", answer.body.len());
    assert!(answer.head.contains(&length), "{}", answer.head);
    parse(&answer.body)
}

/// Reads the text format as a scraper does; panics where it does not hold to it.
fn parse(text: &str) -> Samples {
    let (mut samples, mut current) = (Samples::new(), "");
    assert!(text.ends_with('\n'), "the last line is not ended");
    for line in text.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a name and help");
            assert!(!help.is_empty() && !name.is_empty(), "{line}");
            current = name;
            continue;
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').expect("a name and a kind");
            assert_eq!(name, current, "TYPE without HELP");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            continue;
        }
        assert!(line.starts_with(current), "{line} stands below {current}");
        let (name, value) = line.rsplit_once(' ').expect("a sample");
        let value = value.parse().expect("a number");
        let before = samples.insert(name.to_owned(), value);
        assert!(before.is_none(), "{name} stands there twice");
    }
    samples
}

fn value(samples: &Samples, name: &str) -> f64 {
    let found = samples.get(name);
    *found.unwrap_or_else(|| panic!("{name} is not among {:?}", samples.keys()))
}

fn commit_offset(broker: &Broker, group: &str, topic: &str, partition: i32, offset: i64) {
    let partition = OffsetCommitRequestPartition {
        partition_index: partition,
        committed_offset: offset,
        ..OffsetCommitRequestPartition::default()
    };
    let topic = OffsetCommitRequestTopic {
        name: topic.into(),
        partitions: vec![partition],
        ..OffsetCommitRequestTopic::default()
    };
    let request = OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        topics: vec![topic],
        ..OffsetCommitRequest::default()
    };
    let deadline = Instant::now() + support::PATIENCE;
    loop {
        let mut link = wire::connect(broker.address).expect("a connection");
        // As clients do: the first search makes the topic of offsets.
        let key = vltava_protocol::messages::find_coordinator::FindCoordinatorRequest {
            coordinator_keys: vec![group.into()],
            ..Default::default()
        };
        link.call(&key).expect("a coordinator, or not yet");
        link.send_at(&request, 8).expect("the commit is sent");
        let answer = link.receive::<OffsetCommitRequest>().expect("an answer");
        let error = answer.topics[0].partitions[0].error_code;
        if error.is_none() {
            return;
        }
        assert!(error.is_retriable(), "{error:?}");
        assert!(Instant::now() < deadline, "no commit: {error:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn metrics_move_with_what_clients_do() {
    let broker = Broker::start(Options::default());
    let before = metrics(&broker);
    assert_eq!(value(&before, "vltava_shards"), broker.options.shards as f64);
    assert_eq!(value(&before, "vltava_ready"), 1.0);
    assert_eq!(value(&before, "vltava_is_controller"), 1.0);
    assert_eq!(value(&before, "vltava_nodes"), 1.0);
    assert_eq!(value(&before, "vltava_nodes_reached"), 1.0);
    assert_eq!(value(&before, "vltava_appended_batches_total"), 0.0);
    assert!(value(&before, "process_resident_memory_bytes") > 1e6);
    assert!(value(&before, "process_open_fds") > 5.0);
    assert!(value(&before, "vltava_disk_size_bytes") > 1e6);

    let mut link = wire::connect(broker.address).expect("a connection");
    wire::create_topic(&mut link, "orders-eu", 2, &[]).expect("an answer");
    let mut written = 0;
    for (partition, count) in [(0, 3), (1, 2)] {
        for _ in 0..count {
            let batch = wire::batch(&[b"first", b"second"]);
            written += batch.len();
            let answer = wire::produce(&mut link, "orders-eu", partition, batch);
            assert!(answer.expect("an answer").error_code.is_none());
        }
    }
    let answer = wire::produce(&mut link, "missing", 0, wire::batch(&[b"x"]));
    assert!(!answer.expect("an answer").error_code.is_none());
    let data = wire::fetch(&mut link, "orders-eu", 0, 0).expect("an answer");
    let fetched = data.records.expect("records").len();
    commit_offset(&broker, "billing \"x\"", "orders-eu", 0, 4);

    let after = metrics(&broker);
    let moved = |name: &str| value(&after, name) - value(&before, name);
    let number = |bytes: usize| u32::try_from(bytes).map(f64::from).expect("few bytes");
    assert_eq!(moved("vltava_appended_bytes_total"), number(written));
    assert_eq!(moved("vltava_appended_batches_total"), 5.0);
    assert_eq!(moved("vltava_fetched_bytes_total"), number(fetched));
    assert!(moved("vltava_received_bytes_total") > number(written));
    assert!(moved("vltava_sent_bytes_total") > number(fetched));
    assert!(moved("vltava_connections_accepted_total") >= 1.0);
    assert!(value(&after, "vltava_connections") >= 1.0);
    for (name, expected) in [
        ("vltava_requests_total{api=\"Produce\"}", 6.0),
        ("vltava_request_errors_total{api=\"Produce\",error=\"UNKNOWN_TOPIC_OR_PARTITION\"}", 1.0),
        ("vltava_request_duration_seconds_count{api=\"Produce\"}", 6.0),
        ("vltava_request_duration_seconds_bucket{api=\"Produce\",le=\"+Inf\"}", 6.0),
        ("vltava_log_end_offset{topic=\"orders-eu\",partition=\"0\"}", 6.0),
        ("vltava_high_watermark_offset{topic=\"orders-eu\",partition=\"1\"}", 4.0),
        ("vltava_log_start_offset{topic=\"orders-eu\",partition=\"1\"}", 0.0),
        ("vltava_groups", 1.0),
        (
            "vltava_group_committed_offset{group=\"billing \\\"x\\\"\",\
             topic=\"orders-eu\",partition=\"0\"}",
            4.0,
        ),
        (
            "vltava_group_lag_records{group=\"billing \\\"x\\\"\",\
             topic=\"orders-eu\",partition=\"0\"}",
            2.0,
        ),
        ("vltava_partitions_out_of_service", 0.0),
        ("vltava_partitions_under_replicated", 0.0),
        ("vltava_partitions_without_leader", 0.0),
    ] {
        assert_eq!(value(&after, name), expected, "{name}");
    }
    assert!(value(&after, "vltava_log_size_bytes{topic=\"orders-eu\",partition=\"0\"}") > 0.0);
}

#[test]
fn whoever_asks_wrongly_is_told_and_nobody_else_notices() {
    let broker = Broker::start(Options::default());
    let admin = broker.admin;
    let index = get(admin, "/");
    assert_eq!(index.status, 200);
    assert!(index.body.contains("/metrics") && index.body.contains("/ready"));
    assert_eq!(get(admin, "/health").status, 200);
    assert_eq!(get(admin, "/ready?verbose").body, "ready\n");
    assert_eq!(get(admin, "/nothing").status, 404);
    let head = send(admin, b"HEAD /health HTTP/1.1\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.head.contains("\r\nContent-Length: 8"), "{}", head.head);
    let post = send(admin, b"POST /metrics HTTP/1.1\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(post.status, 405);
    assert_eq!(send(admin, b"\x16\x03\x01\x02\x00\x01\x00").status, 400);
    // A client of Kafka that has come to the wrong port.
    assert_eq!(send(admin, b"\0\0\0\x1b\0\x12\0\x03").status, 400);
    let long = format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(20_000));
    assert_eq!(send(admin, long.as_bytes()).status, 431);

    // Some say nothing, some half of something, some go: the port answers others meanwhile.
    let mut slow = TcpStream::connect(admin).expect("the admin port");
    slow.write_all(b"GET / HTT").expect("sent");
    let begin = Instant::now();
    let gone = TcpStream::connect(admin).expect("the admin port");
    gone.shutdown(Shutdown::Both).expect("closed");
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(admin)).collect();
    assert_eq!(get(admin, "/health").status, 200);
    slow.set_read_timeout(Some(support::PATIENCE)).expect("a time limit");
    assert_eq!(receive(slow).status, 408);
    assert!(begin.elapsed() >= Duration::from_secs(4), "it was not waited for");
    drop(silent);
}

#[test]
fn no_more_than_so_many_connections_are_held() {
    let broker = Broker::start(Options::default());
    let open: Vec<_> =
        (0..70).map(|_| TcpStream::connect(broker.admin).expect("the kernel accepts")).collect();
    // Accepted in their order: those beyond the limit are closed, without an answer.
    for mut beyond in open.iter().skip(64) {
        let limit = Some(Duration::from_secs(3));
        beyond.set_read_timeout(limit).expect("a time limit");
        assert_eq!(beyond.read(&mut [0; 64]).expect("closed"), 0);
    }
    drop(open);
    let deadline = Instant::now() + support::PATIENCE;
    while TcpStream::connect(broker.admin)
        .and_then(|mut stream| {
            stream.write_all(b"GET /health HTTP/1.1\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text)
        })
        .map_or(true, |text| !text.starts_with("HTTP/1.1 200"))
    {
        assert!(Instant::now() < deadline, "the port does not come back");
    }
}

#[test]
fn a_damaged_log_makes_it_unready_and_says_which() {
    let mut broker = Broker::start(Options::default());
    let mut link = wire::connect(broker.address).expect("a connection");
    wire::create_topic(&mut link, "whole", 1, &[]).expect("an answer");
    wire::create_topic(&mut link, "damaged", 1, &[]).expect("an answer");
    for _ in 0..3 {
        let batch = wire::batch(&[&[7; 500]]);
        wire::produce(&mut link, "damaged", 0, batch).expect("an answer");
    }
    assert_eq!(get(broker.admin, "/ready").status, 200);
    broker.stop();
    damage(&broker.data.join("damaged-0"));
    broker.run();
    let ready = get(broker.admin, "/ready");
    assert_eq!(ready.status, 503, "{}", ready.body);
    let reasons: Vec<_> = ready.body.lines().collect();
    assert_eq!(reasons.len(), 1, "{reasons:?}");
    assert!(reasons[0].starts_with("damaged-0: "), "{reasons:?}");
    assert_eq!(get(broker.admin, "/health").status, 200);
    let metrics = metrics(&broker);
    assert_eq!(value(&metrics, "vltava_ready"), 0.0);
    assert_eq!(value(&metrics, "vltava_partitions_out_of_service"), 1.0);
}

/// Makes a log's checkpoint another than its checksum knows.
fn damage(log: &std::path::Path) {
    let checkpoint = log.join("vltava-checkpoint");
    let mut bytes = fs::read(&checkpoint).expect("a checkpoint");
    for byte in &mut bytes[20..30] {
        *byte ^= 0xff;
    }
    fs::write(&checkpoint, bytes).expect("the damage is done");
}

#[test]
fn it_says_that_it_is_not_ready_while_it_opens_its_logs() {
    let data = support::directory();
    let mut broker = Broker::new(Options::default(), data.path());
    let admin = broker.admin;
    // Asks from before the start on: whatever is answered before the ready line was 503.
    let asking = std::thread::spawn(move || {
        let mut seen = Vec::new();
        let deadline = Instant::now() + support::PATIENCE;
        while seen.last() != Some(&200) && Instant::now() < deadline {
            let asked = TcpStream::connect(admin).and_then(|mut stream| {
                stream.write_all(b"GET /ready HTTP/1.1\r\n\r\n")?;
                let mut text = String::new();
                stream.read_to_string(&mut text)?;
                Ok(text)
            });
            let text = asked.unwrap_or_default();
            seen.extend(text.split(' ').nth(1).and_then(|word| word.parse::<u16>().ok()));
        }
        seen
    });
    broker.run();
    let seen = asking.join().expect("it asked");
    assert_eq!(seen.last(), Some(&200));
    assert!(seen.iter().all(|status| [200, 503].contains(status)), "{seen:?}");
}

#[test]
fn the_port_in_use_is_named_before_anything_is_touched() {
    let data = support::directory();
    let mut broker = Broker::new(Options::default(), data.path());
    let taken = TcpListener::bind(broker.admin).expect("a port");
    let status = broker.try_run().expect_err("the port is taken");
    assert!(!status.success());
    let said = broker.errors();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains(&broker.admin.to_string()), "{said}");
    let entries = fs::read_dir(data.path()).expect("the directory").count();
    assert_eq!(entries, 0, "the directory was touched");
    drop(taken);
    // One address for both is found, too.
    broker.admin = broker.address;
    let status = broker.try_run().expect_err("one port for two");
    assert!(!status.success());
    // Any free port will do: the ready line says which it is.
    broker.admin.set_port(0);
    broker.run();
    let said = broker.said();
    let behind = said.split_once("admin on http://").expect("its address").1;
    let address = behind.split_whitespace().next().expect("its address");
    assert_eq!(get(address.parse().expect("an address"), "/ready").status, 200);
}

#[test]
fn log_lines_are_json_where_a_machine_reads_them() {
    let options = Options { arguments: vec!["--log-format", "json"], ..Options::default() };
    let mut broker = Broker::start(options);
    let mut link = wire::connect(broker.address).expect("a connection");
    assert!(wire::create_topic(&mut link, "logged", 3, &[]).expect("an answer").is_none());
    assert!(broker.stop().success());
    let lines = broker.errors();
    for line in lines.lines() {
        let is_object = line.starts_with("{\"timestamp\":\"2") && line.ends_with('}');
        assert!(is_object && line.contains("\"level\":\""), "{line}");
    }
    for told in ["ready", "topic logged created, with 3 partitions, id ", "stopping"] {
        assert!(lines.contains(&format!("\"message\":\"{told}")), "no {told} in\n{lines}");
    }
}
