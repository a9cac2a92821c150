//! Partitions go from shard to shard of a real process while clients use them, and no client sees
//! more than a pause: no error, nothing lost, doubled or out of order; and after a restart they are
//! where they were put.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

#[path = "moves/clients.rs"]
mod clients;
mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use clients::Orders;
use support::{Broker, Options, wire};

const TOPIC: &str = "moving";
const PARTITIONS: i32 = 3;
/// What is moved: the topic's partitions, and that of the group coordinator.
const MOVED: [(&str, i32); 4] = [(TOPIC, 0), (TOPIC, 1), (TOPIC, 2), ("__consumer_offsets", 0)];
/// How often each goes to the other shard.
const ROUNDS: usize = 50;

fn options() -> Options {
    let mut options = Options { shards: 2, ..Options::default() };
    options.settings.push(("offsets.topic.num.partitions", "1".to_owned()));
    options
}

/// Asks for a move: the status, and what was said.
fn post(broker: &Broker, shard: usize, topic: &str, partition: i32) -> (u16, String) {
    let path = format!("/shards/{shard}/{topic}/{partition}");
    support::post(broker.admin, &path).expect("an answer")
}

/// The shard of a partition, as the admin port lists it.
fn shard_of(broker: &Broker, topic: &str, partition: i32) -> usize {
    let (status, text) = support::get(broker.admin, "/shards").expect("the list");
    assert_eq!(status, 200, "{text}");
    let suffix = format!(" {topic} {partition}");
    let line = text.lines().find_map(|line| line.strip_suffix(&suffix));
    line.and_then(|shard| shard.parse().ok()).unwrap_or_else(|| panic!("{suffix} in {text}"))
}

#[test]
fn partitions_go_from_shard_to_shard_and_no_client_sees_more_than_a_pause() {
    let mut broker = Broker::start(options());
    let address = broker.address;
    let mut link = wire::connect(address).expect("a connection");
    let error = wire::create_topic(&mut link, TOPIC, PARTITIONS, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    let orders = Arc::new(Orders::default());
    let spawn = |client: fn(std::net::SocketAddr, &Orders) -> Duration| {
        let orders = Arc::clone(&orders);
        thread::spawn(move || client(address, &orders))
    };
    let running = [
        ("an idempotent producer", spawn(|at, orders| clients::produce(at, orders, 0, true))),
        ("a plain producer", spawn(|at, orders| clients::produce(at, orders, 1, false))),
        ("a producer to the third", spawn(|at, orders| clients::produce(at, orders, 2, true))),
        ("a consumer", spawn(clients::consume)),
        ("a member of a group", spawn(clients::belong)),
    ];
    while orders.committed.load(Ordering::Acquire) == 0 {
        assert!(!running.iter().any(|(_, client)| client.is_finished()), "a client failed");
        thread::sleep(Duration::from_millis(5));
    }
    let mut longest_us = 0;
    for round in 0..ROUNDS {
        for (topic, partition) in MOVED {
            assert!(!running.iter().any(|(_, client)| client.is_finished()), "a client failed");
            let to = 1 - shard_of(&broker, topic, partition);
            let (status, told) = post(&broker, to, topic, partition);
            assert_eq!(status, 200, "round {round}: {told}");
            assert_eq!(shard_of(&broker, topic, partition), to);
            let pause = told.strip_suffix(" us\n").and_then(|told| told.rsplit(' ').next());
            longest_us = longest_us.max(pause.and_then(|us| us.parse().ok()).unwrap_or(0u64));
            thread::sleep(Duration::from_millis(2));
        }
    }
    orders.stop.store(true, Ordering::Release);
    println!("{} moves; the longest took {longest_us} us", ROUNDS * MOVED.len());
    for (who, client) in running {
        let longest = client.join().unwrap_or_else(|_| panic!("{who} failed"));
        println!("{who}: the longest answer took {longest:?}");
    }
    let places: Vec<usize> = MOVED.map(|(topic, index)| shard_of(&broker, topic, index)).into();
    let (_, metrics) = support::get(broker.admin, "/metrics").expect("the metrics");
    let moved = format!("\nvltava_partitions_moved_total {}\n", ROUNDS * MOVED.len());
    assert!(metrics.contains(&moved), "{metrics}");
    for restart in [Broker::restart, restart_by_force] {
        clients::check(broker.address, &orders);
        restart(&mut broker);
        let found: Vec<usize> = MOVED.map(|(topic, index)| shard_of(&broker, topic, index)).into();
        assert_eq!(found, places, "not where they were put");
    }
    clients::check(broker.address, &orders);
    let told = broker.errors();
    let is_bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
    assert_eq!(told.lines().find(is_bad), None, "{told}");
}

fn restart_by_force(broker: &mut Broker) {
    broker.kill();
    broker.run();
}

/// What cannot be moved is told why, and is served where it was.
#[test]
fn what_is_not_moved_is_told_why() {
    let broker = Broker::start(options());
    let mut link = wire::connect(broker.address).expect("a connection");
    let error = wire::create_topic(&mut link, TOPIC, 1, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    for (shard, topic, partition, status) in
        [(2, TOPIC, 0, 400), (1, TOPIC, 1, 404), (1, "nobody", 0, 404), (0, TOPIC, -1, 404)]
    {
        let (found, told) = post(&broker, shard, topic, partition);
        assert_eq!(found, status, "{shard} {topic} {partition}: {told}");
    }
    let here = shard_of(&broker, TOPIC, 0);
    assert_eq!(post(&broker, here, TOPIC, 0).0, 200, "it is there");
    let answer = wire::produce(&mut link, TOPIC, 0, wire::batch(&[b"served"])).expect("an answer");
    assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
}

/// The process is killed while partitions move: each life finds one owner of each, and all that was
/// acknowledged.
#[test]
fn a_kill_in_the_middle_of_a_move_loses_nothing() {
    let mut broker = Broker::start(options());
    let mut link = wire::connect(broker.address).expect("a connection");
    let error = wire::create_topic(&mut link, TOPIC, PARTITIONS, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    let mut written = vec![0u64; PARTITIONS as usize];
    for life in 0..12u64 {
        let admin = broker.admin;
        let mover = thread::spawn(move || {
            for number in 0.. {
                let path = format!("/shards/{}/{TOPIC}/{}", number / 3 % 2, number % 3);
                if support::post(admin, &path).is_err() {
                    return;
                }
            }
        });
        let mut link = wire::connect(broker.address).expect("a connection");
        let end = Instant::now() + Duration::from_millis(60 + life * 17 % 100);
        while Instant::now() < end {
            for partition in 0..PARTITIONS {
                let count = &mut written[usize::try_from(partition).expect("small")];
                let batch = wire::batch(&[count.to_string().as_bytes()]);
                let answer = wire::produce(&mut link, TOPIC, partition, batch).expect("an answer");
                assert!(answer.error_code.is_none(), "{:?}", answer.error_code);
                assert_eq!(answer.base_offset, i64::try_from(*count).expect("few"));
                *count += 1;
            }
        }
        broker.kill();
        mover.join().expect("the mover");
        broker.run();
        let mut link = wire::connect(broker.address).expect("a connection");
        for (partition, count) in (0..).zip(&written) {
            let found = wire::read_all(&mut link, TOPIC, partition).expect("the records");
            let expected = (0..*count).map(|at| (at as i64, at.to_string().into_bytes()));
            assert!(found.into_iter().eq(expected), "{TOPIC}-{partition} in life {life}");
        }
    }
}
