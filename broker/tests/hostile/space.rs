//! Connections that announce much and send little: memory stays bounded, others are served.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::support::{Broker, Options, wire};
use crate::witness::Witness;

const CONNECTIONS: usize = 300;
/// What each announces, just below `socket.request.max.bytes`.
const ANNOUNCED_BYTES: i32 = 99 << 20;

fn broker() -> Broker {
    Broker::start(Options { memory: "256MiB", ..Options::default() })
}

/// The memory that a broker may take which was given 256 MiB for what clients send.
const PEAK_BYTES_MAX: u64 = 640 << 20;

fn announce(broker: &Broker, sent: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(broker.address).expect("a connection");
    stream.write_all(&ANNOUNCED_BYTES.to_be_bytes()).expect("a length");
    // A Produce of version 9, as far as it goes.
    stream.write_all(&[0, 0, 0, 9, 0, 0, 0, 7, 0xff, 0xff, 0]).expect("a header");
    // It may be closed meanwhile.
    drop(stream.write_all(sent));
    stream
}

#[test]
fn announced_bytes_take_no_memory() {
    let mut broker = broker();
    let before = broker.memory_bytes("VmRSS");
    let witness = Witness::start(broker.address);
    let streams: Vec<TcpStream> =
        (0..CONNECTIONS).map(|_| announce(&broker, &[0; 10_000])).collect();
    std::thread::sleep(Duration::from_secs(2));
    let grown = broker.memory_bytes("VmRSS").saturating_sub(before);
    assert!(grown < 128 << 20, "grown by {} MiB", grown >> 20);
    let seen = witness.stop();
    assert!(seen.slowest < Duration::from_secs(5), "{seen:?}");
    drop(streams);
    assert!(broker.is_running() && broker.stop().success());
}

#[test]
fn what_trickles_in_stays_within_the_budget() {
    let mut broker = broker();
    let witness = Witness::start(broker.address);
    let mut streams: Vec<TcpStream> = (0..CONNECTIONS).map(|_| announce(&broker, &[])).collect();
    // Together they send far more than there is memory; whoever is closed comes again.
    let block = vec![0; 256 << 10];
    let begin = Instant::now();
    let (mut sent, mut closed) = (0usize, 0);
    while sent < 1 << 30 && begin.elapsed() < Duration::from_secs(25) {
        for stream in &mut streams {
            stream.set_nonblocking(true).expect("a socket");
            match stream.write(&block) {
                Ok(count) => sent += count,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                Err(_) => {
                    closed += 1;
                    *stream = announce(&broker, &[]);
                }
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    let peak = broker.memory_bytes("VmHWM");
    assert!(peak < PEAK_BYTES_MAX, "memory grew to {} MiB", peak >> 20);
    // One request can always complete, also a large one.
    let mut link = wire::connect(broker.address).expect("a connection");
    let configs = [("max.message.bytes", "20000000")];
    let error = wire::create_topic(&mut link, "large", 1, &configs).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    let answer = wire::produce(&mut link, "large", 0, wire::batch(&[&vec![7; 10 << 20]]));
    assert!(answer.expect("an answer").error_code.is_none());
    let seen = witness.stop();
    println!("sent {} MiB, {closed} closed, {seen:?}", sent >> 20);
    assert!(closed > 0 && broker.errors().contains("others needed the memory"), "not logged");
    assert!(seen.slowest < Duration::from_secs(10), "{seen:?}");
    drop(streams);
    assert!(broker.is_running() && broker.stop().success());
}

/// A Fetch of version 4 for all of one partition from an offset on.
fn fetch_frame(topic: &str, offset: i64) -> Vec<u8> {
    let mut fetch = vec![0, 1, 0, 4, 0, 0, 0, 7, 0xff, 0xff];
    for number in [-1i32, 0, 1, i32::MAX] {
        fetch.extend(number.to_be_bytes());
    }
    fetch.push(0);
    fetch.extend(1i32.to_be_bytes());
    fetch.extend((topic.len() as i16).to_be_bytes());
    fetch.extend(topic.as_bytes());
    fetch.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    fetch.extend(offset.to_be_bytes());
    fetch.extend((32i32 << 20).to_be_bytes());
    let mut request = (fetch.len() as i32).to_be_bytes().to_vec();
    request.extend(fetch);
    request
}

#[test]
fn answers_that_nobody_reads_take_no_memory() {
    /// How often records are written and then fetched; each time others.
    const ROUNDS: usize = 40;
    const BATCHES: usize = 10;
    /// Less than the answers to all rounds; each shard has a quarter of 128 MiB as its cache.
    const PEAK_BYTES_MAX: u64 = 256 << 20;
    let mut broker = Broker::start(Options { memory: "128MiB", ..Options::default() });
    let mut link = wire::connect(broker.address).expect("a connection");
    let error = wire::create_topic(&mut link, "unread", 1, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    let witness = Witness::start(broker.address);
    let batch = wire::batch(&[&vec![7; 900 << 10]]);
    let mut streams = Vec::new();
    for round in 0..ROUNDS {
        for _ in 0..BATCHES {
            let answer = wire::produce(&mut link, "unread", 0, batch.clone());
            assert!(answer.expect("an answer").error_code.is_none());
        }
        // Fetched while they are in memory, again and again, on connections that read nothing
        // beyond the beginning.
        let many = fetch_frame("unread", (round * BATCHES) as i64).repeat(200);
        for _ in 0..2 {
            let mut stream = TcpStream::connect(broker.address).expect("a connection");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
            stream.write_all(&many).expect("requests");
            // It was Fetch that was answered, not an error.
            let mut answer = vec![0; 1 << 16];
            stream.read_exact(&mut answer).expect("the beginning of an answer");
            assert!(answer.windows(100).any(|bytes| bytes == [7; 100]), "no records in it");
            streams.push(stream);
        }
    }
    let peak = broker.memory_bytes("VmHWM");
    println!("unread answers: {} MiB at most", peak >> 20);
    assert!(peak < PEAK_BYTES_MAX, "memory grew to {} MiB", peak >> 20);
    let seen = witness.stop();
    assert!(seen.slowest < Duration::from_secs(5), "{seen:?}");
    drop(streams);
    assert!(broker.is_running() && broker.stop().success());
}
