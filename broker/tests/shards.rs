//! A directory belongs to no number of shards: what was written with five is served by two, by one,
//! and by five again, after orderly stops and after kills.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

mod support;

use support::{Broker, Options, wire};

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
