//! What a group coordinator does when its log is loaded again.

use std::thread;
use std::time::Duration;

use bytes::Bytes;
use vltava_client::blocking::{Address, Link};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::message::Message;
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup};
use vltava_protocol::records::group::{OffsetCommitKey, OffsetCommitValue};
use vltava_protocol::types::{Str, Uuid};

use crate::support::{Broker, Options, PATIENCE, wire};

const GROUP: Str = Str::from_static("group");
/// Whoever calls itself so may write into internal topics.
const ADMIN_CLIENT: Str = Str::from_static("__admin_client");

/// The record of an offset, as a coordinator writes it.
fn offset(topic: &str, topic_id: Uuid) -> (Bytes, Bytes) {
    let key = OffsetCommitKey { group: GROUP, topic: Str::from(topic), partition: 0 };
    let value = OffsetCommitValue { offset: 7, topic_id, ..OffsetCommitValue::default() };
    let key = key.to_key_bytes().expect("a key");
    (key, value.to_value_bytes(OffsetCommitValue::VERSION_MAX).expect("a value"))
}

/// Topics that the group has offsets of; `None` while its coordinator loads.
fn topics(link: &mut Link) -> Option<Vec<Str>> {
    let group = OffsetFetchRequestGroup { group_id: GROUP, ..OffsetFetchRequestGroup::default() };
    let request = OffsetFetchRequest { groups: vec![group], ..OffsetFetchRequest::default() };
    link.send_at(&request, 9).expect("a question");
    let mut answer = link.receive::<OffsetFetchRequest>().expect("offsets");
    let group = answer.groups.remove(0);
    let is_loaded = group.error_code != ErrorCode::COORDINATOR_LOAD_IN_PROGRESS;
    is_loaded.then(|| group.topics.into_iter().map(|topic| topic.name).collect())
}

#[test]
fn offsets_of_topics_that_went_while_nobody_led_end() {
    let mut options = Options { shards: 2, ..Options::default() };
    options.settings.push(("offsets.topic.num.partitions", "1".to_owned()));
    let mut broker = Broker::start(options);
    let address = Address { host: broker.address.ip().to_string(), port: broker.address.port() };
    let mut link = Link::open(&address, &ADMIN_CLIENT).expect("a connection");
    wire::create_topic(&mut link, "there", 1, &[]).expect("a topic");
    let request = FindCoordinatorRequest { coordinator_keys: vec![GROUP], ..Default::default() };
    link.call(&request).expect("a coordinator");
    // As after a crash between the end of a topic and that of its offsets.
    let mut builder = BatchBuilder::new();
    let all = [("gone", Uuid(7)), ("there", Uuid::ZERO), ("nameless", Uuid::ZERO)];
    for (topic, id) in all {
        let (key, value) = offset(topic, id);
        builder.append(1_600_000_000_000, Some(&key), Some(&value), &[]).expect("a record");
    }
    let written = wire::produce(&mut link, "__consumer_offsets", 0, builder.build().into());
    assert_eq!(written.expect("an answer").error_code, ErrorCode::NONE);

    broker.restart();
    let mut link = wire::connect(broker.address).expect("a connection");
    let mut seen = None;
    for _ in 0..PATIENCE.as_millis() / 10 {
        seen = topics(&mut link);
        if seen.as_ref().is_some_and(|topics| topics.len() == 1) {
            break;
        }
        thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(seen, Some(vec![Str::from_static("there")]));
}
