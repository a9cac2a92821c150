//! An idempotent producer repeats what it does not know to be written, at a leader that has lost
//! what its disk knew of producers: the batches are known, and stand where they stood.

use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vltava_client::blocking::Link;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::elect_leaders::{ElectLeadersRequest, TopicPartitions};
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::produce::ProduceRequest;
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes};
use crate::support::wire::{self, PRODUCE_VERSION};
use crate::view::{
    await_leader, await_replicas, connect, create_topic_with, leader_of, partition, until,
};

const TOPIC: &str = "repeated";
/// Of one producer, as many are known again.
const BATCHES: usize = 5;
const RECORDS: i32 = 3;
/// A few of them close a segment of the least size, which leaves a snapshot behind.
const LARGE_BYTES: usize = 300 << 10;

/// What one producer has sent.
struct Sequence {
    id: i64,
    epoch: i16,
    next: i32,
}

impl Sequence {
    fn new(link: &mut Link) -> Self {
        let request =
            InitProducerIdRequest { producer_id: -1, producer_epoch: -1, ..Default::default() };
        let answer = link.call(&request).expect("an answer");
        assert_eq!(answer.error_code, ErrorCode::NONE);
        Self { id: answer.producer_id, epoch: answer.producer_epoch, next: 0 }
    }

    fn batch(&mut self, size: usize) -> Bytes {
        let mut builder = BatchBuilder::new().producer(self.id, self.epoch, self.next);
        for _ in 0..RECORDS {
            let value = vec![b'r'; size];
            builder.append(1_600_000_000_000, None, Some(&value), &[]).expect("a small record");
        }
        self.next += RECORDS;
        Bytes::from(builder.build())
    }
}

/// Sends all of these before it reads an answer, as a producer does; what was answered to each.
fn write(link: &mut Link, batches: &[Bytes]) -> Vec<(ErrorCode, i64)> {
    for batch in batches {
        let request = wire::produce_request(TOPIC, 0, -1, batch.clone());
        link.send_at(&request, PRODUCE_VERSION).expect("it is sent");
    }
    let answers = batches.iter().map(|_| {
        let answer = link.receive::<ProduceRequest>().expect("an answer");
        let told = &answer.responses[0].partition_responses[0];
        (told.error_code, told.base_offset)
    });
    answers.collect()
}

/// A connection to who leads.
fn leader(nodes: &[std::net::SocketAddr]) -> Link {
    until("nobody leads", || connect(leader_of(nodes, TOPIC, 0)?).ok())
}

/// Removes the files of a log whose names end so; how many there were.
fn lose(log: &Path, end: &str) -> usize {
    let entries = fs::read_dir(log).expect("the log").flatten().map(|entry| entry.path());
    let ends = |path: &PathBuf| path.to_string_lossy().ends_with(end);
    let lost: Vec<PathBuf> = entries.filter(ends).collect();
    lost.iter().for_each(|path| fs::remove_file(path).expect("a file that goes"));
    lost.len()
}

/// Gives the lead to the replica that is preferred.
fn elect_preferred(nodes: &Nodes, preferred: i32) {
    until("the preferred replica does not lead", || {
        let topic = TopicPartitions { topic: Str::from(TOPIC), partitions: vec![0] };
        let request = ElectLeadersRequest {
            topic_partitions: Some(vec![topic]),
            timeout_ms: 2000,
            ..ElectLeadersRequest::default()
        };
        connect(nodes.addresses()[0]).ok()?.call(&request).ok()?;
        let said = partition(&nodes.addresses(), TOPIC, 0)?;
        (said.leader == Some(preferred)).then_some(())
    });
}

#[test]
fn a_leader_that_has_lost_its_snapshots_knows_what_is_repeated() {
    let mut nodes = Nodes::start();
    let addresses = nodes.addresses();
    create_topic_with(addresses[0], TOPIC, 1, 3, &[("segment.bytes", "1048576")]);
    await_replicas(&addresses, TOPIC, 0, &NODES);
    let victim = partition(&addresses, TOPIC, 0).expect("it is known").replicas[0];
    let mut sequence = Sequence::new(&mut leader(&addresses));
    let mut end = 0;
    // Also its checkpoint, without which a log is not believed; and also what it was away for.
    for (checkpoint, away) in [(false, false), (true, false), (false, true), (true, true)] {
        let what = format!("without its checkpoint: {checkpoint}, written meanwhile: {away}");
        elect_preferred(&nodes, victim);
        for _ in 0..2 {
            let told = write(&mut leader(&addresses), &[sequence.batch(LARGE_BYTES)]);
            assert_eq!(told, [(ErrorCode::NONE, end)], "{what}");
            end += i64::from(RECORDS);
        }
        let batches: Vec<Bytes> = (0..BATCHES).map(|_| sequence.batch(10)).collect();
        let due: Vec<(ErrorCode, i64)> = (0..BATCHES as i64)
            .map(|number| (ErrorCode::NONE, end + number * i64::from(RECORDS)))
            .collect();
        end += BATCHES as i64 * i64::from(RECORDS);
        if !away {
            assert_eq!(write(&mut leader(&addresses), &batches), due, "{what}");
        }
        nodes.stop_node(victim);
        let log = nodes.node(victim).data.join(format!("{TOPIC}-0"));
        assert!(lose(&log, ".snapshot") > 0, "{what}: there was no snapshot");
        if checkpoint {
            assert_eq!(lose(&log, "vltava-checkpoint"), 1, "{what}");
        }
        let left = nodes.others(victim);
        await_leader(&left, TOPIC, 0, |leader| leader != victim);
        // Written now, or repeated now.
        assert_eq!(write(&mut leader(&left), &batches), due, "{what}");
        nodes.run_all();
        await_replicas(&addresses, TOPIC, 0, &NODES);
        elect_preferred(&nodes, victim);
        let mut link = connect(nodes.address(victim)).expect("a connection");
        assert_eq!(write(&mut link, &batches), due, "{what}");
        let next = write(&mut link, &[sequence.batch(10)]);
        assert_eq!(next, [(ErrorCode::NONE, end)], "{what}");
        end += i64::from(RECORDS);
    }
    let records = wire::read_all(&mut leader(&addresses), TOPIC, 0).expect("all of it");
    assert_eq!(records.len() as i64, end, "something was written twice");
    nodes.stop();
}
