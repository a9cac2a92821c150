//! Shards are nobody's business: a directory that was written with five is served by two, by one,
//! and by five again, after orderly stops and after kills; and a connection that goes over to the
//! shard of its partition answers as if nothing had happened.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::{Broker, Options, wire};
use vltava_client::blocking::Link;
use vltava_protocol::messages::fetch::FetchRequest;
use vltava_protocol::messages::produce::ProduceRequest;

const TOPIC: &str = "moved";
const PARTITIONS: i32 = 11;

/// Writes one more record to each partition, and reads all that are there.
fn write_and_read(broker: &Broker, round: i64) {
    let mut link = wire::connect(broker.address).expect("a connection");
    for partition in 0..PARTITIONS {
        let value = format!("{round}-{partition}");
        let answer = wire::produce(&mut link, TOPIC, partition, wire::batch(&[value.as_bytes()]));
        let answer = answer.expect("an answer");
        assert!(answer.error_code.is_none(), "{TOPIC}-{partition}: {:?}", answer.error_code);
        assert_eq!(answer.base_offset, round);
        let expected: Vec<(i64, Vec<u8>)> =
            (0..=round).map(|at| (at, format!("{at}-{partition}").into_bytes())).collect();
        let found = wire::read_all(&mut link, TOPIC, partition).expect("the records");
        assert_eq!(found, expected, "{TOPIC}-{partition} with {} shards", broker.options.shards);
    }
}

#[test]
fn a_directory_opens_with_any_number_of_shards() {
    let mut broker = Broker::start(Options { shards: 5, ..Options::default() });
    let mut link = wire::connect(broker.address).expect("a connection");
    let error = wire::create_topic(&mut link, TOPIC, PARTITIONS, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    write_and_read(&broker, 0);
    for (round, shards) in (1..).zip([2, 1, 5, 1, 2, 5]) {
        broker.options.shards = shards;
        if round % 2 == 0 {
            broker.kill();
            broker.run();
        } else {
            broker.restart();
        }
        write_and_read(&broker, round);
    }
    assert!(broker.stop().success());
}

/// Requests sent before the first answer is read; more than the broker reads ahead.
const PIPELINED: usize = 200;

/// Produces without waiting for answers, while the connection moves, and checks their order.
fn pipeline(link: &mut Link, partition: i32) {
    for number in 0..PIPELINED {
        let batch = wire::batch(&[format!("{number}").as_bytes()]);
        let request = wire::produce_request(TOPIC, partition, -1, batch);
        link.send_at(&request, wire::PRODUCE_VERSION).expect("a request sent");
    }
    for number in 0..PIPELINED {
        let answer = link.receive::<ProduceRequest>().expect("an answer");
        let answer = &answer.responses[0].partition_responses[0];
        assert!(answer.error_code.is_none(), "{TOPIC}-{partition}: {:?}", answer.error_code);
        assert_eq!(answer.base_offset, i64::try_from(number).expect("small"));
    }
}

/// Fetches often enough, each time one record, in one session.
fn fetch_in_a_session(link: &mut Link, partition: i32) {
    let mut session_id = 0;
    for number in 0..40 {
        let offset = i64::from(number);
        let request = FetchRequest {
            session_id,
            session_epoch: number,
            ..wire::fetch_request(TOPIC, partition, offset)
        };
        link.send_at(&request, wire::FETCH_VERSION).expect("a request sent");
        let answer = link.receive::<FetchRequest>().expect("an answer");
        assert!(answer.error_code.is_none(), "fetch {number}: {:?}", answer.error_code);
        assert_ne!(answer.session_id, 0);
        assert!(number == 0 || answer.session_id == session_id, "another session");
        session_id = answer.session_id;
        assert_eq!(answer.responses[0].partitions[0].partition_index, partition);
    }
}

#[test]
fn a_connection_goes_to_the_shard_of_its_partition_and_nothing_is_lost_on_the_way() {
    let broker = Broker::start(Options { shards: 5, ..Options::default() });
    let mut link = wire::connect(broker.address).expect("a connection");
    let error = wire::create_topic(&mut link, TOPIC, PARTITIONS, &[]).expect("an answer");
    assert!(error.is_none(), "{error:?}");
    // One connection for all partitions, one after the other: it is wherever the last one was.
    (0..PARTITIONS).for_each(|partition| pipeline(&mut link, partition));
    (0..PARTITIONS).for_each(|partition| fetch_in_a_session(&mut link, partition));
    let (_, metrics) = support::get(broker.admin, "/metrics").expect("the metrics");
    let moved =
        metrics.lines().find_map(|line| line.strip_prefix("vltava_connections_moved_total "));
    let moved: u32 = moved.and_then(|moved| moved.parse().ok()).expect("a count");
    assert!(moved >= 4, "five shards have partitions, and it moved {moved} times:\n{metrics}");
    assert!(metrics.contains("\nvltava_connections 1\n"), "{metrics}");
}
