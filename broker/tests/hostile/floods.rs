//! More than the disk takes: whoever sends it is slowed down, whether it waits for answers or not.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Broker, Options, wire};

/// Less than what five shards need at least, 32 MiB each: they take that.
const MEMORY: &str = "64MiB";
/// The memory that such a broker may take: that of its shards, and the process itself.
const PEAK_BYTES_MAX: u64 = (5 * 32 + 32) << 20;
/// What is sent in all.
const FLOOD_BYTES: usize = 640 << 20;
const PARTITIONS: i32 = 40;
const SENDERS: usize = 8;
/// Longer than anything here takes, on a machine that does much else.
const PATIENCE: Duration = Duration::from_secs(60);

/// A Produce of version 8 with batches for some partitions.
fn produce_frame(
    topic: &str,
    partitions: &[i32],
    acks: i16,
    transactional_id: Option<&str>,
    batch: &[u8],
) -> Vec<u8> {
    let mut body = vec![0, 0, 0, 8, 0, 0, 0, 7, 0xff, 0xff];
    match transactional_id {
        None => body.extend((-1i16).to_be_bytes()),
        Some(id) => {
            body.extend((id.len() as i16).to_be_bytes());
            body.extend(id.as_bytes());
        }
    }
    body.extend(acks.to_be_bytes());
    body.extend(30_000i32.to_be_bytes());
    body.extend(1i32.to_be_bytes());
    body.extend((topic.len() as i16).to_be_bytes());
    body.extend(topic.as_bytes());
    body.extend((partitions.len() as i32).to_be_bytes());
    for partition in partitions {
        body.extend(partition.to_be_bytes());
        body.extend((batch.len() as i32).to_be_bytes());
        body.extend(batch);
    }
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

fn broker_with(topic: &str) -> Broker {
    let broker = Broker::start(Options { memory: MEMORY, ..Options::default() });
    let mut link = wire::connect(broker.address).expect("a connection");
    let error = wire::create_topic(&mut link, topic, PARTITIONS, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    broker
}

fn ends_within_its_memory(mut broker: Broker, what: &str) {
    let peak = broker.memory_bytes("VmHWM");
    println!("{what}: {} MiB at most", peak >> 20);
    assert!(peak < PEAK_BYTES_MAX, "{what}: memory grew to {} MiB", peak >> 20);
    assert!(broker.is_running() && broker.stop().success());
    assert!(!broker.said().contains("panicked"), "{}", broker.said());
}

/// Runs senders side by side, each with its number.
fn side_by_side(send: impl Fn(usize) + Sync) {
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let send = &send;
            scope.spawn(move || send(sender));
        }
    });
}

/// The end of a partition, once it is where it should be.
fn await_end(address: SocketAddr, topic: &str, partition: i32, expected: i64) {
    let mut link = wire::connect(address).expect("a connection");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let end = wire::fetch(&mut link, topic, partition, expected).expect("an answer");
        if end.error_code.is_none() && end.high_watermark == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{topic}-{partition}: {}", end.high_watermark);
    }
}

#[test]
fn writes_without_acknowledgement_stay_within_the_budget() {
    let broker = broker_with("unacknowledged");
    let batch = wire::batch(&[&vec![7; 120 << 10]]);
    let rounds = FLOOD_BYTES / SENDERS / batch.len() / PARTITIONS as usize;
    side_by_side(|_| {
        let mut stream = TcpStream::connect(broker.address).expect("a connection");
        for _ in 0..rounds {
            for partition in 0..PARTITIONS {
                let frame = produce_frame("unacknowledged", &[partition], 0, None, &batch);
                stream.write_all(&frame).expect("it goes on");
            }
        }
        // All is received before the end of the stream is.
        stream.shutdown(Shutdown::Write).expect("a socket");
        assert_eq!(stream.read(&mut [0]).expect("closed in order"), 0);
    });
    // Slowed down is all that they were.
    for partition in 0..PARTITIONS {
        let expected = (rounds * SENDERS) as i64;
        await_end(broker.address, "unacknowledged", partition, expected);
    }
    ends_within_its_memory(broker, "acks=0");
}

#[test]
fn what_is_sent_and_left_behind_stays_within_the_budget() {
    let broker = broker_with("left");
    let batch = wire::batch(&[&vec![7; 120 << 10]]);
    let rounds = FLOOD_BYTES / SENDERS / batch.len() / PARTITIONS as usize;
    side_by_side(|_| {
        // Closed by us a while later, so that nothing that was sent is thrown away unread.
        let mut left = VecDeque::new();
        for _ in 0..rounds {
            let mut stream = TcpStream::connect(broker.address).expect("a connection");
            stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
            for partition in 0..PARTITIONS {
                let frame = produce_frame("left", &[partition], -1, None, &batch);
                stream.write_all(&frame).expect("it goes on");
            }
            stream.shutdown(Shutdown::Write).expect("a socket");
            left.push_back(stream);
            if left.len() > 4 {
                left.pop_front();
            }
        }
    });
    // Others are served again when that is written.
    let mut link = wire::connect(broker.address).expect("a connection");
    let answer = wire::produce(&mut link, "left", 0, wire::batch(&[b"more"]));
    assert!(answer.expect("an answer").error_code.is_none());
    ends_within_its_memory(broker, "sent and left");
}

#[test]
fn a_write_without_acknowledgement_that_fails_closes_its_connection() {
    let mut broker = broker_with("failing");
    let batch = wire::batch(&[b"a record"]);
    let mut damaged = batch.to_vec();
    *damaged.last_mut().expect("bytes") ^= 1;
    let cases = [
        ("no such partition", produce_frame("failing", &[PARTITIONS], 0, None, &batch)),
        ("one of two", produce_frame("failing", &[3, PARTITIONS], 0, None, &batch)),
        ("damaged", produce_frame("failing", &[0], 0, None, &damaged)),
        ("transactional", produce_frame("failing", &[0], 0, Some("id"), &batch)),
    ];
    for (what, frame) in cases {
        let mut stream = TcpStream::connect(broker.address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        // What was asked before is answered.
        let asked = produce_frame("failing", &[1], -1, None, &batch);
        stream.write_all(&[asked, frame].concat()).expect("sent");
        let mut length = [0; 4];
        stream.read_exact(&mut length).expect("an answer");
        let mut answers = Vec::new();
        let read = stream.read_to_end(&mut answers);
        assert!(read.is_ok(), "{what}: {read:?}");
        assert_eq!(answers.len(), u32::from_be_bytes(length) as usize, "{what}: one answer");
    }
    let mut link = wire::connect(broker.address).expect("a connection");
    let written = wire::fetch(&mut link, "failing", 3, 0).expect("an answer");
    assert_eq!(written.high_watermark, 1, "the valid one of two");
    // The last connection is closed before the line about it is read.
    let said = broker.errors_with("waits for no answer", 4);
    assert_eq!(said.matches("waits for no answer").count(), 4, "each is logged:\n{said}");
    assert!(broker.stop().success());
}

#[test]
fn an_idle_connection_is_closed_and_the_log_says_so() {
    let idle = ("connections.max.idle.ms", "500".to_owned());
    let mut broker = Broker::start(Options { settings: vec![idle], ..Options::default() });
    let mut stream = TcpStream::connect(broker.address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
    assert_eq!(stream.read(&mut [0]).expect("closed in order"), 0);
    assert!(broker.stop().success());
    let said = broker.errors_with("nothing moved", 1);
    assert!(said.contains("nothing moved"), "{said}");
}

#[test]
fn limits_on_connections_are_the_nodes() {
    let limit = ("max.connections", "10".to_owned());
    let options = Options { shards: 5, settings: vec![limit], ..Options::default() };
    let mut broker = Broker::start(options);
    // However the kernel spreads them over the shards.
    let links: Vec<_> = (0..10).map(|_| wire::connect(broker.address)).collect();
    assert!(links.iter().all(Result::is_ok), "refused below the limit");
    assert!(wire::connect(broker.address).is_err(), "taken above the limit");
    drop(links);
    let deadline = Instant::now() + PATIENCE;
    while wire::connect(broker.address).is_err() {
        assert!(Instant::now() < deadline, "what was closed still counts");
    }
    assert!(broker.stop().success());
}
