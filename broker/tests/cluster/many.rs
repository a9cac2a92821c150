//! Many partitions on three nodes, each written to by many idempotent producers, while a node is
//! killed and comes back, and then all; and on a node alone: nothing hangs, every write is there
//! once, what a producer repeats is known, and memory and the time of a start are bounded.
//!
//! - `VLTAVA_CLUSTER_PARTITIONS` (300): how many. Thousands take some minutes, and a release
//!   (`VLTAVA_BIN`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use vltava_client::error::ClientError;
use vltava_client::metadata::Metadata;
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::encode::Records;
use vltava_protocol::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic,
};
use vltava_protocol::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use vltava_protocol::types::Str;

use crate::nodes::{NODES, Nodes, Place, variable};
use crate::producer::now_ms;
use crate::support::wire::{PRODUCE_VERSION, create_topic_request};
use crate::view::{connect, is_whole, metadata, metadata_of_any, within};

const TOPIC: &str = "many";
/// Whose node goes.
const VICTIM: i32 = 2;
/// Producers of each partition.
const PRODUCERS: i64 = 10;
/// Partitions of one request.
const AT_A_TIME: usize = 200;
/// What a node may take for each partition that it keeps, written to by so many producers.
const PARTITION_BYTES: u64 = 64 << 10;
/// And beside that: the cache of what was written last, and requests.
const NODE_BYTES: u64 = 256 << 20;

pub struct Many {
    pub nodes: Nodes,
    partitions: i32,
    /// How long any step may take.
    bound: Duration,
    /// Batches of each producer, which is its next sequence number.
    rounds: i32,
}

/// One record of a producer of a partition.
fn batch(producer: i64, sequence: i32) -> Bytes {
    let mut builder = BatchBuilder::new().producer(producer, 0, sequence);
    builder.append(now_ms(), None, Some(b"one of many"), &[]).expect("a small record");
    Bytes::from(builder.build())
}

/// Has a leader take a batch of a producer of each of these partitions; those that have it.
fn produce(
    leader: SocketAddr,
    some: &[i32],
    producer: i64,
    sequence: i32,
    look: impl Fn(i32, i64),
) -> Result<Vec<i32>, ClientError> {
    let data = some.iter().map(|index| {
        let id = i64::from(*index) * PRODUCERS + producer;
        let records = Some(Records::from(batch(id, sequence)));
        PartitionProduceData { index: *index, records }
    });
    let topic = TopicProduceData {
        name: Str::from(TOPIC),
        partition_data: data.collect(),
        ..TopicProduceData::default()
    };
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: 10_000,
        topic_data: vec![topic],
        ..ProduceRequest::default()
    };
    let mut link = connect(leader)?;
    link.answer_within(Duration::from_secs(20))?;
    link.send_at(&request, PRODUCE_VERSION)?;
    let answer = link.receive::<ProduceRequest>()?;
    let mut done = Vec::new();
    for answer in answer.responses.into_iter().flat_map(|it| it.partition_responses) {
        let error = answer.error_code;
        assert!(error.is_none() || error.is_retriable(), "{}: {error:?}", answer.index);
        if error.is_none() {
            look(answer.index, answer.base_offset);
            done.push(answer.index);
        }
    }
    Ok(done)
}

impl Many {
    /// The topic on all of these nodes.
    pub fn start(nodes: Nodes, partitions: i32) -> Self {
        let bound = Duration::from_secs(30) + Duration::from_millis(10) * partitions as u32;
        let many = Self { nodes, partitions, bound, rounds: 0 };
        println!("{partitions} partitions, {} producers", i64::from(partitions) * PRODUCERS);
        many.step("made", |many| {
            let mut request = create_topic_request(TOPIC, partitions, &[]);
            request.topics[0].replication_factor = many.nodes.brokers.len() as i16;
            request.timeout_ms = bound.as_millis() as i32;
            let mut link = connect(many.nodes.addresses()[0]).expect("a connection");
            link.answer_within(bound).expect("a limit");
            let answer = link.call(&request).expect("an answer");
            assert!(answer.topics[0].error_code.is_none(), "{:?}", answer.topics[0]);
            many.await_whole();
        });
        many
    }

    pub fn step<T>(&self, what: &str, act: impl FnOnce(&Self) -> T) -> T {
        let began = Instant::now();
        let done = act(self);
        let (took, memory) = (began.elapsed(), self.memory());
        println!("{what}: {took:.1?}; MiB: {memory:?}");
        assert!(took < self.bound, "{what}: {took:?}");
        done
    }

    /// MiB of each that runs.
    fn memory(&self) -> Vec<u64> {
        let running = self.nodes.brokers.values().filter(|broker| broker.has_process());
        running.map(|broker| broker.memory_bytes("VmRSS") >> 20).collect()
    }

    /// What the first node that answers says of the topic, with its addresses.
    fn known(&self) -> Option<Metadata> {
        metadata_of_any(&self.nodes.addresses())
    }

    /// Waits until all nodes that run say of each partition that all replicas on these nodes are in
    /// sync.
    pub fn await_whole(&self) {
        within(self.bound, "not all replicas are in sync", || {
            self.nodes
                .addresses()
                .iter()
                .all(|address| {
                    let known = metadata(*address).ok();
                    known.is_some_and(|it| it.topics.get(&Str::from(TOPIC)).is_some_and(is_whole))
                })
                .then_some(())
        });
    }

    /// Those partitions of these that have a leader, by its address.
    fn by_leader(&self, wanted: &BTreeSet<i32>) -> BTreeMap<SocketAddr, Vec<i32>> {
        let mut found: BTreeMap<SocketAddr, Vec<i32>> = BTreeMap::new();
        let Some(metadata) = self.known() else { return found };
        let Some(topic) = metadata.topics.get(&Str::from(TOPIC)) else { return found };
        for number in wanted {
            let leader = topic.partitions.get(number).and_then(|partition| partition.leader);
            let broker = leader.and_then(|leader| metadata.brokers.get(&leader));
            let address = broker.and_then(|it| format!("{}:{}", it.host, it.port).parse().ok());
            if let Some(address) = address {
                found.entry(address).or_default().push(*number);
            }
        }
        found
    }

    /// Has something done to each partition by its leader, until it is done to all; what returns is
    /// those that it was done to.
    fn each_led(
        &self,
        what: &str,
        mut act: impl FnMut(SocketAddr, &[i32]) -> Result<Vec<i32>, ClientError>,
    ) {
        let mut left: BTreeSet<i32> = (0..self.partitions).collect();
        within(self.bound, what, || {
            self.each_led_once(&mut left, &mut act);
            left.is_empty().then_some(())
        });
    }

    /// Tries it once; those are left to which it was not done.
    fn each_led_once(
        &self,
        left: &mut BTreeSet<i32>,
        mut act: impl FnMut(SocketAddr, &[i32]) -> Result<Vec<i32>, ClientError>,
    ) {
        for (leader, led) in self.by_leader(left) {
            for some in led.chunks(AT_A_TIME) {
                let Ok(done) = act(leader, some) else { break };
                left.retain(|number| !done.contains(number));
            }
        }
    }

    /// A batch of each producer of this place in its partition, to all partitions.
    fn write(&self, producer: i64, sequence: i32) {
        self.write_and(producer, sequence, |_, _| ());
    }

    /// The same, and looks at each partition and the offset that its batch has.
    fn write_and(&self, producer: i64, sequence: i32, look: impl Fn(i32, i64)) {
        self.each_led("not all partitions take a batch", |leader, some| {
            produce(leader, some, producer, sequence, &look)
        });
    }

    /// Tries it once; how many partitions have not taken it.
    pub fn try_to_write(&self, producer: i64) -> usize {
        let mut left: BTreeSet<i32> = (0..self.partitions).collect();
        self.each_led_once(&mut left, |leader, some| {
            produce(leader, some, producer, self.rounds, |_, _| ())
        });
        left.len()
    }

    /// A batch of every producer.
    pub fn write_all(&mut self) {
        let sequence = self.rounds;
        (0..PRODUCERS).for_each(|producer| self.write(producer, sequence));
        self.rounds += 1;
    }

    /// The last batch of every producer once more: it is known.
    fn repeat_all(&self) {
        let end = i64::from(self.rounds) * PRODUCERS;
        for producer in 0..PRODUCERS {
            self.write_and(producer, self.rounds - 1, |partition, offset| {
                assert!(offset < end, "partition {partition} has taken a batch twice: {offset}");
            });
        }
    }

    /// All nodes are killed, and start again: producers are known, and nothing is missed.
    fn lose_all(&mut self) {
        self.nodes.kill_all();
        let began = Instant::now();
        self.nodes.run_all();
        println!("all started: {:.1?}; MiB: {:?}", began.elapsed(), self.memory());
        self.step("whole again", Self::await_whole);
        let began = Instant::now();
        self.repeat_all();
        println!("repeated by all producers: {:.1?}; MiB: {:?}", began.elapsed(), self.memory());
        self.step("asked where they end", Self::check_ends);
        let bound = NODE_BYTES + PARTITION_BYTES * self.partitions as u64;
        for (node, broker) in &self.nodes.brokers {
            let bytes = broker.memory_bytes("VmHWM");
            assert!(bytes < bound, "node {node} took {bytes} bytes, and may take {bound}");
        }
    }

    /// Every partition ends where it should: nothing is missed, and nothing there twice.
    pub fn check_ends(&self) {
        let expected = i64::from(self.rounds) * PRODUCERS;
        self.each_led("not all partitions say where they end", |leader, some| {
            let asked = some.iter().map(|partition_index| ListOffsetsPartition {
                partition_index: *partition_index,
                timestamp: -1,
                ..ListOffsetsPartition::default()
            });
            let topic = ListOffsetsTopic { name: Str::from(TOPIC), partitions: asked.collect() };
            let request = ListOffsetsRequest {
                replica_id: -1,
                topics: vec![topic],
                ..ListOffsetsRequest::default()
            };
            let answer = connect(leader)?.call(&request)?;
            let said = answer.topics.into_iter().flat_map(|it| it.partitions);
            let said: Vec<_> = said.filter(|it| it.error_code.is_none()).collect();
            for it in &said {
                assert_eq!(it.offset, expected, "partition {}", it.partition_index);
            }
            Ok(said.iter().map(|it| it.partition_index).collect())
        });
    }
}

/// How many are asked for.
fn partitions() -> i32 {
    variable("VLTAVA_CLUSTER_PARTITIONS", 300) as i32
}

#[test]
fn many_partitions_lose_a_node_and_get_it_back() {
    let mut many = Many::start(Nodes::start(), partitions());
    let began = Instant::now();
    many.write_all();
    println!("written to by all producers: {:.1?}; MiB: {:?}", began.elapsed(), many.memory());

    many.nodes.kill(VICTIM);
    many.step("written to without a node", |many| many.write(0, many.rounds));
    let began = Instant::now();
    many.nodes.run(&[VICTIM]);
    println!("started: {:.1?}", began.elapsed());
    assert!(began.elapsed() < many.bound / 2, "{:?}", began.elapsed());
    many.step("whole again", Many::await_whole);
    // The first producers' batches of this round are there already.
    let began = Instant::now();
    many.write_all();
    println!("written to again: {:.1?}", began.elapsed());
    many.step("asked where they end", Many::check_ends);
    many.lose_all();
    let began = Instant::now();
    many.nodes.stop();
    println!("stopped: {:.1?}", began.elapsed());
}

#[test]
fn a_node_alone_keeps_many_partitions_and_knows_their_producers() {
    let mut nodes = Nodes::places(&[], Place::local);
    NODES.into_iter().filter(|node| *node != VICTIM).for_each(|node| drop(nodes.forget(node)));
    nodes.node(VICTIM).options.settings.retain(|(name, _)| *name != "peers");
    nodes.run_all();
    let mut many = Many::start(nodes, partitions());
    let began = Instant::now();
    many.write_all();
    println!("written to by all producers: {:.1?}; MiB: {:?}", began.elapsed(), many.memory());
    many.lose_all();
    many.nodes.stop();
}
