//! An orderly stop while producers write with acks=all: what was begun is answered, nothing that
//! was acknowledged is lost, and it takes a bounded time.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use vltava_client::blocking::Link;
use vltava_protocol::messages::produce::ProduceRequest;

use crate::support::wire::{self, PRODUCE_VERSION};
use crate::support::{Broker, Options};

const TOPIC: &str = "stopped";
const PARTITIONS: i32 = 7;
/// Requests that a producer has under way.
const IN_FLIGHT: usize = 12;
/// Acknowledgements before the broker is stopped.
const WARM_UP: usize = 2_000;
/// How long a stop may take, on a machine that does much else.
const STOP_TIME_MAX: Duration = Duration::from_secs(15);

/// Where a record was acknowledged: partition and offset.
type Place = (i32, i64);

/// Writes until its connection is closed; what was acknowledged.
fn produce(address: SocketAddr, producer: usize, count: &AtomicUsize) -> BTreeMap<Place, Vec<u8>> {
    let mut link = wire::connect(address).expect("a connection");
    let mut acknowledged = BTreeMap::new();
    let mut under_way = VecDeque::new();
    for number in 0.. {
        let partition = (producer + number) as i32 % PARTITIONS;
        let value = format!("{producer} {number} {}", "x".repeat(number * 37 % 5_000)).into_bytes();
        let batch = wire::batch(&[&value]);
        let request = wire::produce_request(TOPIC, partition, -1, batch);
        let is_sent = link.send_at(&request, PRODUCE_VERSION).is_ok();
        under_way.push_back((partition, value));
        while under_way.len() >= if is_sent { IN_FLIGHT } else { 1 } {
            let Some((partition, value)) = under_way.pop_front() else { break };
            let Some(offset) = receive(&mut link) else {
                return acknowledged;
            };
            acknowledged.insert((partition, offset), value);
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
    acknowledged
}

/// The offset of the next answer; `None` once the connection is closed.
fn receive(link: &mut Link) -> Option<i64> {
    let mut answer = link.receive::<ProduceRequest>().ok()?;
    let answer = answer.responses.remove(0).partition_responses.remove(0);
    assert!(answer.error_code.is_none(), "{:?}: {:?}", answer.error_code, answer.error_message);
    Some(answer.base_offset)
}

fn stops_under_load(shards: usize, producers: usize) {
    let mut broker = Broker::start(Options { shards, ..Options::default() });
    let mut link = wire::connect(broker.address).expect("a connection");
    let error = wire::create_topic(&mut link, TOPIC, PARTITIONS, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    let (address, count) = (broker.address, &AtomicUsize::new(0));
    let (acknowledged, took) = thread::scope(|scope| {
        let producers: Vec<_> = (0..producers)
            .map(|producer| scope.spawn(move || produce(address, producer, count)))
            .collect();
        while count.load(Ordering::Relaxed) < WARM_UP {
            thread::sleep(Duration::from_millis(1));
        }
        let begin = Instant::now();
        let status = broker.stop();
        let took = begin.elapsed();
        assert!(status.success(), "{shards} shards: {status}");
        let all = producers.into_iter().flat_map(|producer| producer.join().expect("it ends"));
        (all.collect::<BTreeMap<_, _>>(), took)
    });
    assert!(took < STOP_TIME_MAX, "{shards} shards: it took {took:?}");
    assert!(!broker.said().contains("did not close cleanly"), "{}", broker.said());
    broker.run();
    let mut link = wire::connect(broker.address).expect("a connection");
    let mut written = BTreeMap::new();
    for partition in 0..PARTITIONS {
        let records = wire::read_all(&mut link, TOPIC, partition).expect("answers");
        written.extend(records.into_iter().map(|(offset, value)| ((partition, offset), value)));
    }
    for (place, value) in &acknowledged {
        assert_eq!(written.get(place), Some(value), "{shards} shards: {place:?} was acknowledged");
    }
    let untold = written.len() - acknowledged.len();
    println!("{shards} shards: {took:?}, {} acknowledged, {untold} untold", acknowledged.len());
    assert_eq!(untold, 0, "{shards} shards: what was begun is answered");
    assert!(broker.stop().success());
}

#[test]
fn what_was_begun_is_answered_before_the_end_on_2_shards() {
    stops_under_load(2, 8);
}

#[test]
fn what_was_begun_is_answered_before_the_end_on_5_shards() {
    // Some shards have no connection, and still work for those of others.
    stops_under_load(5, 2);
}
