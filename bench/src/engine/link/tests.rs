#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

use std::net::TcpListener;
use std::thread;

use vltava_protocol::api::ApiKey;
use vltava_protocol::encode::Writer;
use vltava_protocol::frame::ResponseHeader;
use vltava_protocol::message::Message;
use vltava_protocol::messages::api_versions::{
    ApiVersion, ApiVersionsRequest, ApiVersionsResponse,
};
use vltava_protocol::messages::metadata::{
    MetadataRequest, MetadataResponse, MetadataResponseTopic,
};

use super::*;

/// An answer as it travels.
fn frame<R: Request>(correlation_id: i32, version: i16, response: &R::Response) -> Vec<u8> {
    let mut writer = Writer::frame();
    ResponseHeader { correlation_id }.encode(&mut writer, R::API, version).unwrap();
    response.encode(&mut writer, version).unwrap();
    let mut bytes = Vec::new();
    for part in writer.finish_frame().unwrap() {
        match part {
            Part::Memory(part) => bytes.extend_from_slice(&part),
            Part::External(_) => unreachable!("nothing of it is elsewhere"),
        }
    }
    bytes
}

fn versions() -> ApiVersionsResponse {
    let served = |api: ApiKey| ApiVersion { api_key: api.0, min_version: 0, max_version: 4 };
    let api_keys = vec![served(ApiVersionsRequest::API), served(MetadataRequest::API)];
    ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }
}

/// Somebody who is asked for versions, and then says `bytes`, so many at a time.
fn broker(bytes: Vec<u8>, at_a_time: usize) -> (Address, thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_nodelay(true).unwrap();
        let version = ApiVersionsRequest::VERSION_MAX;
        let mut asked = [0; 4096];
        assert!(stream.read(&mut asked).unwrap() > 0);
        stream.write_all(&frame::<ApiVersionsRequest>(0, version, &versions())).unwrap();
        assert!(stream.read(&mut asked).unwrap() > 0);
        bytes.chunks(at_a_time).for_each(|chunk| stream.write_all(chunk).unwrap());
        // Until the other side is gone.
        assert_eq!(stream.read(&mut asked).unwrap_or_default(), 0);
    });
    (Address { host: String::from("127.0.0.1"), port }, thread)
}

/// Answers of very different sizes.
fn responses() -> Vec<MetadataResponse> {
    let named = |bytes: usize| MetadataResponse {
        cluster_id: Some(Str::from("x".repeat(bytes))),
        ..MetadataResponse::default()
    };
    // More than one read takes, in many strings.
    let mut large = named(1);
    large.topics = (0..100)
        .map(|_| MetadataResponseTopic {
            name: Some(Str::from("y".repeat(3000))),
            ..MetadataResponseTopic::default()
        })
        .collect();
    vec![named(0), large.clone(), named(70), named(30_000), large, named(9)]
}

#[test]
fn answers_are_whole_however_they_come() {
    let responses = responses();
    let mut bytes = Vec::new();
    for (correlation_id, response) in (1..).zip(&responses) {
        bytes.extend(frame::<MetadataRequest>(correlation_id, 4, response));
    }
    for at_a_time in [1000, 4099, 70_000, usize::MAX] {
        let (address, thread) = broker(bytes.clone(), at_a_time.min(bytes.len()));
        let mut link = Link::open(&address, &Str::from("test")).unwrap();
        let mut buffers = Buffers::default();
        assert_eq!(link.version::<MetadataRequest>().unwrap(), 4);
        for _ in &responses {
            link.send(&MetadataRequest::default(), 4).unwrap();
        }
        link.flush(&mut buffers).unwrap();
        assert!(link.is_flushed());
        let (mut received, mut seen) = (VecDeque::new(), Vec::new());
        while seen.len() < responses.len() {
            link.receive(&mut buffers, &mut received).unwrap();
            for Received { answer, frame } in received.drain(..) {
                seen.push(answer.decode::<MetadataRequest>().unwrap());
                buffers.give_back(frame);
            }
            thread::yield_now();
        }
        assert!(seen == responses, "{at_a_time} at a time");
        drop(link);
        thread.join().unwrap();
    }
}

#[test]
fn what_is_no_answer_is_an_error_and_so_is_the_end() {
    let stranger = frame::<MetadataRequest>(77, 4, &MetadataResponse::default());
    let endless = vec![0x7f, 0xff, 0xff, 0xff, 0];
    for bytes in [stranger, endless] {
        let (address, thread) = broker(bytes, 100);
        let mut link = Link::open(&address, &Str::from("test")).unwrap();
        link.send(&MetadataRequest::default(), 4).unwrap();
        link.flush(&mut Buffers::default()).unwrap();
        let mut received = VecDeque::new();
        let failure = loop {
            match link.receive(&mut Buffers::default(), &mut received) {
                Ok(()) => thread::yield_now(),
                Err(failure) => break failure,
            }
        };
        assert!(received.is_empty(), "{failure}");
        drop(link);
        thread.join().unwrap();
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = thread::spawn(move || drop(listener.accept()));
    let address = Address { host: String::from("127.0.0.1"), port };
    assert!(Link::open(&address, &Str::from("test")).is_err(), "it hung up");
    thread.join().unwrap();
}
