//! Malformed requests: what Kafka answers, or a closed connection.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use vltava_client::blocking::Link;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::types::Str;

use crate::support::{Broker, Options, wire};
use crate::witness::Witness;

/// Longer than any answer takes, on a machine that does much else.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// The broker to send to: one that is started here, or the one that the environment names.
struct Target {
    address: SocketAddr,
    broker: Option<Broker>,
}

impl Target {
    fn new() -> Self {
        if let Ok(address) = std::env::var("HOSTILE_BROKER") {
            return Self { address: address.parse().expect("host:port"), broker: None };
        }
        let broker = Broker::start(Options::default());
        Self { address: broker.address, broker: Some(broker) }
    }

    fn stream(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("a connection");
        stream.set_read_timeout(Some(ANSWER_TIME_MAX)).unwrap();
        stream
    }

    /// It must still be there, and not have panicked.
    fn end(self) {
        if let Some(mut broker) = self.broker {
            assert!(broker.is_running(), "it ended:\n{}", broker.said());
            assert!(broker.stop().success());
            assert!(!broker.said().contains("panicked"), "{}", broker.said());
        }
    }
}

/// A frame: length, then the parts.
fn frame(parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut bytes = (body.len() as i32).to_be_bytes().to_vec();
    bytes.extend(body);
    bytes
}

/// A request header of version 1, without a client id.
fn header(api_key: i16, version: i16) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(api_key.to_be_bytes());
    bytes.extend(version.to_be_bytes());
    bytes.extend(7i32.to_be_bytes());
    bytes.extend((-1i16).to_be_bytes());
    bytes
}

/// Bytes that look like nothing, the same in each run.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    };
    (0..count).map(|_| next()).collect()
}

/// Everything that comes until the other side closes; panics where it does not.
fn read_to_close(stream: &mut TcpStream, what: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("{what}: the connection stays open: {error}"),
    }
}

/// Sends bytes; the other side closes the connection without an answer.
fn closes(target: &Target, what: &str, bytes: &[u8]) {
    let mut stream = target.stream();
    // It may close before all is sent.
    drop(stream.write_all(bytes));
    let answer = read_to_close(&mut stream, what);
    assert!(answer.is_empty(), "{what}: answered with {} bytes", answer.len());
}

#[test]
fn malformed_frames_close_their_connection() {
    let target = Target::new();
    let witness = Witness::start(target.address);
    let varint_max: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0x0f];
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("HTTP", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec()),
        ("TLS", [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &noise(500)].concat()),
        ("negative length", (-1i32).to_be_bytes().to_vec()),
        ("length of the most", i32::MAX.to_be_bytes().to_vec()),
        ("length above the limit", (104_857_601i32).to_be_bytes().to_vec()),
        ("empty frame", frame(&[])),
        ("half a header", frame(&[&[0, 3, 0]])),
        ("a frame of noise", frame(&[&noise(2000)])),
        ("unknown key", frame(&[&header(999, 0)])),
        ("negative key", frame(&[&header(-1, 0)])),
        ("version above", frame(&[&header(0, 99), &[0; 20]])),
        ("version below", frame(&[&header(1, 0), &[0; 20]])),
        ("negative version", frame(&[&header(3, -1), &[0; 20]])),
        ("client id longer than the frame", frame(&[&[0, 3, 0, 0, 0, 0, 0, 7, 0x7f, 0xff]])),
        ("two thousand million topics", frame(&[&header(3, 0), &i32::MAX.to_be_bytes()])),
        ("topic name longer than the frame", frame(&[&header(3, 0), &[0, 0, 0, 1, 0x7f, 0xff]])),
        ("compact array of the most", frame(&[&header(3, 12), &[0], varint_max])),
        ("tagged fields of the most", frame(&[&header(18, 3), varint_max])),
        ("varint without an end", frame(&[&header(18, 3), &[0xff; 12]])),
        ("metadata of noise", frame(&[&header(3, 12), &[0], &noise(300)])),
    ];
    for (what, bytes) in &cases {
        // Some would wait for more of a frame: nothing more comes.
        let mut stream = target.stream();
        drop(stream.write_all(bytes));
        drop(stream.shutdown(Shutdown::Write));
        let answer = read_to_close(&mut stream, what);
        assert!(answer.is_empty(), "{what}: answered with {} bytes", answer.len());
    }
    for (what, bytes) in cases.iter().filter(|(what, _)| !["HTTP", "TLS"].contains(what)) {
        // What can be known at once is not waited for.
        closes(&target, what, bytes);
    }
    let seen = witness.stop();
    assert!(seen.slowest < Duration::from_secs(5), "{seen:?}");
    target.end();
}

#[test]
fn an_unknown_version_of_api_versions_is_answered() {
    let target = Target::new();
    let mut stream = target.stream();
    // The header of a flexible version ends with tagged fields, of which there are none.
    stream.write_all(&frame(&[&header(18, 99), &[0], &noise(30)])).unwrap();
    let mut answer = [0; 14];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[4..8], 7i32.to_be_bytes());
    assert_eq!(answer[8..10], ErrorCode::UNSUPPORTED_VERSION.0.to_be_bytes());
    // The connection stays, for a version that is known.
    let mut rest = vec![0; i32::from_be_bytes(answer[..4].try_into().unwrap()) as usize - 10];
    stream.read_exact(&mut rest).unwrap();
    stream.write_all(&frame(&[&header(18, 0)])).unwrap();
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(answer[8..10], [0, 0]);
    drop(stream);
    target.end();
}

#[test]
fn slow_and_half_closed_connections_are_served() {
    let target = Target::new();
    let mut slow = target.stream();
    for byte in frame(&[&header(18, 0)]) {
        slow.write_all(&[byte]).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let mut length = [0; 4];
    slow.read_exact(&mut length).expect("an answer");
    // Whoever sends no more has left, also where it could still read: as Kafka sees it.
    slow.write_all(&frame(&[&header(3, 0), &[0, 0, 0, 0]])).unwrap();
    slow.shutdown(Shutdown::Write).unwrap();
    read_to_close(&mut slow, "half-closed");
    // Whoever goes in the middle of a request harms nobody.
    for sent in [1, 4, 6, 11] {
        let mut stream = target.stream();
        stream.write_all(&frame(&[&header(18, 0)])[..sent]).unwrap();
        drop(stream);
    }
    wire::connect(target.address).expect("it still serves");
    target.end();
}

/// Makes a topic, and waits until its partition has a leader.
fn make(link: &mut Link, topic: &str) {
    let _exists_already = wire::create_topic(link, topic, 1, &[]).expect("an answer");
    let begin = Instant::now();
    while !wire::fetch(link, topic, 0, 0).expect("an answer").error_code.is_none() {
        assert!(begin.elapsed() < ANSWER_TIME_MAX, "{topic} has no leader");
    }
}

/// What is wrong with a batch, its bytes, and what may be answered.
struct Bad {
    what: &'static str,
    batch: Bytes,
    expected: &'static [ErrorCode],
}

const CORRUPT: &[ErrorCode] = &[ErrorCode::CORRUPT_MESSAGE];
/// Kafka has no name for the exception of a decompressor.
const TRANSACTIONAL: &[ErrorCode] = &[ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED];
const UNREADABLE: &[ErrorCode] = &[ErrorCode::CORRUPT_MESSAGE, ErrorCode::UNKNOWN_SERVER_ERROR];
const UNKNOWN_CODEC: &[ErrorCode] = &[ErrorCode::INVALID_RECORD, ErrorCode::UNKNOWN_SERVER_ERROR];
const INVALID: &[ErrorCode] = &[ErrorCode::INVALID_RECORD];

/// Where the fields of a batch's header stand.
const LENGTH: usize = 8;
const MAGIC: usize = 16;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const COUNT: usize = 57;
const RECORDS: usize = 61;

/// A good batch, changed, with a CRC that is right again.
fn changed(change: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let mut bytes = wire::batch(&[b"one", b"two", b"three"]).to_vec();
    change(&mut bytes);
    let crc = crc32c::crc32c(&bytes[ATTRIBUTES..]);
    bytes[CRC..CRC + 4].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

fn put(bytes: &mut [u8], at: usize, value: i32) {
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}

fn bad_batches() -> Vec<Bad> {
    let bad = |what, batch, expected| Bad { what, batch, expected };
    let codec = |number: u8, payload: &[u8]| {
        changed(|bytes| {
            bytes[ATTRIBUTES + 1] = number;
            bytes.truncate(RECORDS);
            bytes.extend(payload);
            let length = bytes.len() - 12;
            put(bytes, LENGTH, length as i32);
        })
    };
    let wrong_crc = {
        let mut bytes = wire::batch(&[b"one"]).to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        Bytes::from(bytes)
    };
    let twice = [wire::batch(&[b"one"]), wire::batch(&[b"two"])].concat();
    let garbage = noise(100);
    vec![
        bad("wrong CRC", wrong_crc, CORRUPT),
        bad("magic 0", changed(|bytes| bytes[MAGIC] = 0), INVALID),
        bad("magic 1", changed(|bytes| bytes[MAGIC] = 1), INVALID),
        bad("magic 3", changed(|bytes| bytes[MAGIC] = 3), CORRUPT),
        bad("two batches", Bytes::from(twice), INVALID),
        bad("no batch", Bytes::new(), INVALID),
        bad("a batch that is cut short", wire::batch(&[b"one"]).slice(..68), INVALID),
        bad("a header that is cut short", wire::batch(&[b"one"]).slice(..20), INVALID),
        bad("a length behind the end", changed(|bytes| put(bytes, LENGTH, 1000)), INVALID),
        bad("gzip of noise", codec(1, &garbage), UNREADABLE),
        bad("snappy of noise", codec(2, &garbage), UNREADABLE),
        bad("lz4 of noise", codec(3, &garbage), UNREADABLE),
        bad("zstd of noise", codec(4, &garbage), UNREADABLE),
        bad("an unknown codec", codec(7, &garbage), UNKNOWN_CODEC),
        bad("more records than there are", changed(|bytes| put(bytes, COUNT, 1000)), INVALID),
        bad("fewer records than there are", changed(|bytes| put(bytes, COUNT, 1)), INVALID),
        bad("a negative count", changed(|bytes| put(bytes, COUNT, -5)), INVALID),
        bad("a wrong last offset", changed(|bytes| put(bytes, LAST_OFFSET_DELTA, 9)), INVALID),
        bad("records of noise", codec(0, &garbage), INVALID),
        bad("a length below the header", changed(|bytes| put(bytes, LENGTH, 10)), CORRUPT),
        bad("a transaction's", changed(|bytes| bytes[ATTRIBUTES + 1] = 1 << 4), TRANSACTIONAL),
        bad("a control batch", changed(|bytes| bytes[ATTRIBUTES + 1] = 1 << 5), INVALID),
    ]
}

#[test]
fn bad_batches_are_refused_and_leave_nothing() {
    let target = Target::new();
    let topic = format!("bad-{}", std::process::id());
    let mut link = wire::connect(target.address).expect("a connection");
    make(&mut link, &topic);
    let before = wire::fetch(&mut link, &topic, 0, 0).expect("an answer").high_watermark;
    let mut wrong = Vec::new();
    for Bad { what, batch, expected } in bad_batches() {
        match wire::produce(&mut link, &topic, 0, batch) {
            Ok(answer) if expected.contains(&answer.error_code) => {}
            Ok(answer) => wrong.push(format!("{what}: {:?}, not {expected:?}", answer.error_code)),
            Err(error) => {
                wrong.push(format!("{what}: {error}"));
                link = wire::connect(target.address).expect("a connection");
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let longer = changed(|bytes| put(bytes, LENGTH, 10_000));
    // Kafka reads no batch there; either is right as long as nothing is written.
    drop(wire::produce(&mut link, &topic, 0, longer));
    let mut link = wire::connect(target.address).expect("a connection");
    let after = wire::fetch(&mut link, &topic, 0, 0).expect("an answer").high_watermark;
    assert_eq!(after, before, "something of it was written");
    let good = wire::produce(&mut link, &topic, 0, wire::batch(&[b"good"])).expect("an answer");
    assert!(good.error_code.is_none(), "{:?}", good.error_code);
    drop(link);
    target.end();
}

#[test]
fn a_small_batch_that_grows_without_end_is_bounded() {
    let target = Target::new();
    let topic = format!("bomb-{}", std::process::id());
    let mut link = wire::connect(target.address).expect("a connection");
    make(&mut link, &topic);
    let witness = Witness::start(target.address);
    // 200 MiB of zeros in less than 1 MiB.
    let mut zeros = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    let block = vec![0; 1 << 20];
    for _ in 0..200 {
        zeros.write_all(&block).unwrap();
    }
    let payload = zeros.finish().unwrap();
    let batch = changed(|bytes| {
        bytes[ATTRIBUTES + 1] = 1;
        bytes.truncate(RECORDS);
        bytes.extend(payload);
        let length = bytes.len() - 12;
        put(bytes, LENGTH, length as i32);
    });
    let begin = Instant::now();
    let answer = wire::produce(&mut link, &topic, 0, batch).expect("an answer");
    assert!(!answer.error_code.is_none(), "it was accepted");
    assert!(begin.elapsed() < ANSWER_TIME_MAX);
    if let Some(broker) = &target.broker {
        let peak = broker.memory_bytes("VmHWM");
        assert!(peak < 768 << 20, "memory grew to {} MiB", peak >> 20);
    }
    witness.stop();
    drop(link);
    target.end();
}

#[test]
fn strangers_and_ranges_get_kafkas_errors() {
    let target = Target::new();
    let topic = format!("range-{}", std::process::id());
    let mut link = wire::connect(target.address).expect("a connection");
    make(&mut link, &topic);
    for offset in [-5, 1_000_000] {
        let data = wire::fetch(&mut link, &topic, 0, offset).expect("an answer");
        assert_eq!(data.error_code, ErrorCode::OFFSET_OUT_OF_RANGE, "offset {offset}");
    }
    let data = wire::fetch(&mut link, &topic, 99, 0).expect("an answer");
    assert_eq!(data.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let answer = wire::produce(&mut link, "no-such-topic", 0, wire::batch(&[b"x"])).unwrap();
    assert_eq!(answer.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let answer = wire::produce(&mut link, &topic, -1, wire::batch(&[b"x"])).unwrap();
    assert_eq!(answer.error_code, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
    let stranger = HeartbeatRequest {
        group_id: Str::from("nobody"),
        member_id: Str::from("nobody"),
        generation_id: 3,
        ..HeartbeatRequest::default()
    };
    let begin = Instant::now();
    let error = loop {
        let find = FindCoordinatorRequest { key: Str::from("nobody"), ..Default::default() };
        link.send_at(&find, 2).expect("sent");
        link.receive::<FindCoordinatorRequest>().expect("an answer");
        let error = link.call(&stranger).expect("an answer").error_code;
        // The topic of the coordinators may just have been made.
        if !error.is_retriable() || begin.elapsed() > ANSWER_TIME_MAX {
            break error;
        }
    };
    assert_eq!(error, ErrorCode::UNKNOWN_MEMBER_ID);
    let nameless = HeartbeatRequest::default();
    let answer = link.call(&nameless).expect("an answer");
    assert_eq!(answer.error_code, ErrorCode::INVALID_GROUP_ID);
    // A sequence that does not begin at 0, and one that leaves a gap.
    let sequence = |number| {
        let mut builder = BatchBuilder::new().producer(900, 0, number);
        builder.append(0, None, Some(b"x"), &[]).unwrap();
        Bytes::from(builder.build())
    };
    let answers: Vec<ErrorCode> = [0, 1, 1, 9]
        .map(|number| wire::produce(&mut link, &topic, 0, sequence(number)).unwrap().error_code)
        .to_vec();
    let (none, gap) = (ErrorCode::NONE, ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
    assert_eq!(answers, [none, none, none, gap]);
    drop(link);
    target.end();
}
