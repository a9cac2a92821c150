//! Producers: idempotent ones repeat until they are answered, plain ones write once.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use vltava::runtime::Runtime;
use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use vltava_protocol::types::{Str, Uuid};

use super::{RETRY, Role, Topic, Workload, records, route};
use crate::checkers::{Partition, Promise, RecordId, Written, violation};
use crate::client::{CallError, Client, Leader};
use crate::promise;

/// Produce names topics by id from this version on.
pub const BY_ID: i16 = 13;

/// Batches of a producer that a broker remembers at least, to know them again.
const BATCHES_KNOWN: u64 = 5;

/// When so many records were acknowledged, a run has seen enough of them: producers slow down. With
/// several nodes each is more work.
const RECORDS_MANY: u64 = 30_000;
const RECORDS_MANY_OF_CLUSTER: u64 = 8_000;

/// One batch on its way.
struct Batch {
    index: i32,
    /// How many of its life and partition went before.
    place: u64,
    ids: Vec<RecordId>,
    bytes: Bytes,
}

/// What comes next in a partition.
#[derive(Clone, Copy, Default)]
struct Next {
    sequence: u64,
    place: u64,
}

/// One life of a producer: a producer id, and what it has written.
struct Life {
    number: u64,
    producer_id: i64,
    producer_epoch: i16,
    /// What comes next in each partition.
    next: BTreeMap<i32, Next>,
    /// Sent or to be sent, not acknowledged; in order.
    unacknowledged: BTreeMap<u64, Batch>,
    batches_made: u64,
}

struct Producer<'a> {
    workload: &'a Workload,
    client: Client,
    topic: &'a Topic,
    role: Role,
    life: Life,
    /// Numbers of batches whose answers are owed, and by whom; in the order of sending.
    in_flight: VecDeque<(u64, SocketAddr)>,
    /// A batch was refused for now: what is in flight comes to its end, then all is sent again.
    rewinding: bool,
}

/// What becomes of a batch that was answered.
enum Verdict {
    Acknowledged(i64),
    Again,
    /// The broker has lost what this batch follows, and may have.
    Forgotten,
}

/// Produces to one topic until the run is to end and all is acknowledged.
pub async fn produce(workload: &Workload, role: Role, mut client: Client) {
    let topic = client.random.index(workload.topics.len());
    let mut producer = Producer {
        workload,
        client,
        topic: &workload.topics[topic],
        role,
        life: Life::new(workload, 0),
        in_flight: VecDeque::new(),
        rewinding: false,
    };
    producer.begin().await;
    while !(workload.is_finishing() && producer.life.unacknowledged.is_empty()) {
        producer.client.timeout = match workload.is_finishing() {
            true => workload.swarm.client_timeout,
            false => workload.swarm.producer_timeout,
        };
        if let Err(error) = producer.step().await {
            producer.lost_connection(&error).await;
        }
    }
}

/// A request for one partition, in any version.
pub fn request(
    topic: &Topic,
    index: i32,
    bytes: Bytes,
    acks: i16,
) -> impl FnOnce(i16) -> ProduceRequest + use<> {
    let (name, id) = (Str::from(&*topic.name), topic.id.get());
    let data = PartitionProduceData { index, records: Some(bytes.into()) };
    move |version| ProduceRequest {
        transactional_id: None,
        acks,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: if version < BY_ID { name } else { Str::EMPTY },
            topic_id: if version < BY_ID { Uuid::ZERO } else { id },
            partition_data: vec![data],
        }],
    }
}

impl Life {
    fn new(workload: &Workload, batches_made: u64) -> Self {
        Self {
            number: workload.next_producer(),
            producer_id: -1,
            producer_epoch: -1,
            next: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            batches_made,
        }
    }

    /// Whether a broker that has all up to another batch of this partition still knows the oldest
    /// one that has no acknowledgement. Later ones may have: what was refused for now, or not
    /// answered, may have been written all the same. And nothing follows the first one before it is
    /// acknowledged: a broker that refuses it, and leads the next moment, takes the second for the
    /// first, as Kafka does of a producer that it does not know.
    fn may_go_on(&self, index: i32) -> bool {
        let oldest = self.unacknowledged.values().find(|batch| batch.index == index);
        let next = self.next.get(&index).map_or(0, |next| next.place);
        oldest.is_none_or(|oldest| oldest.place > 0 && next - oldest.place < BATCHES_KNOWN)
    }
}

impl Producer<'_> {
    fn acks(&self) -> i16 {
        match self.role {
            Role::ProducerOne => 1,
            _ => -1,
        }
    }

    fn is_idempotent(&self) -> bool {
        self.role != Role::ProducerPlain
    }

    fn partition(&self, index: i32) -> Partition {
        (Rc::clone(&self.topic.key), index)
    }

    /// Begins a life: gets a producer id, however long it takes.
    async fn begin(&mut self) {
        self.life = Life::new(self.workload, self.life.batches_made);
        self.in_flight.clear();
        self.rewinding = false;
        if !self.is_idempotent() {
            return;
        }
        self.client.disconnect();
        loop {
            let answer = self.client.call(0, |_| InitProducerIdRequest {
                transactional_id: None,
                transaction_timeout_ms: 60_000,
                ..InitProducerIdRequest::default()
            });
            match answer.await {
                Ok(body) if body.error_code.is_none() => {
                    self.life.producer_id = body.producer_id;
                    self.life.producer_epoch = body.producer_epoch;
                    return;
                }
                Ok(body) => promise!(
                    body.error_code.is_retriable(),
                    "{}: InitProducerId: {}",
                    self.client.name,
                    body.error_code.name()
                ),
                Err(_) => {}
            }
            self.client.pause(RETRY).await;
        }
    }

    /// The connection is gone: what was in flight is sent again, or its fate stays unknown.
    async fn lost_connection(&mut self, _error: &CallError) {
        self.client.disconnect();
        self.client.forget_leaders();
        self.in_flight.clear();
        self.rewinding = false;
        if !self.is_idempotent() {
            self.life.unacknowledged.clear();
        }
        self.client.pause(RETRY).await;
    }

    async fn step(&mut self) -> Result<(), CallError> {
        let room = self.in_flight.len() < self.workload.swarm.in_flight_max;
        if room
            && !self.rewinding
            && let Some(number) = self.next_batch()
        {
            return self.send(number).await;
        }
        if self.in_flight.is_empty() {
            if std::mem::take(&mut self.rewinding) {
                self.client.pause(RETRY).await;
                return Ok(());
            }
            let think = self.workload.swarm.think_max;
            self.client.pause(think).await;
            return Ok(());
        }
        self.receive().await
    }

    /// The next batch to send: one that is to be sent again, or a new one.
    fn next_batch(&mut self) -> Option<u64> {
        let waiting = self.life.unacknowledged.keys();
        let mut again =
            waiting.filter(|number| !self.in_flight.iter().any(|(sent, _)| sent == *number));
        if let Some(&number) = again.next() {
            return Some(number);
        }
        let many = match self.client.only_broker() {
            Some(_) => RECORDS_MANY,
            None => RECORDS_MANY_OF_CLUSTER,
        };
        let is_much = self.workload.checkers.acks.borrow().acknowledged() > many;
        let rests = if is_much { MILLION * 31 / 32 } else { MILLION / 4 };
        if self.workload.is_finishing() || self.client.random.chance(rests) {
            return None;
        }
        let partitions = self.topic.partitions.unsigned_abs() as usize;
        let index = i32::try_from(self.client.random.index(partitions));
        let index = index.unwrap_or(0);
        if self.is_idempotent() && !self.life.may_go_on(index) {
            return None;
        }
        let count = match self.workload.swarm.whole_blocks {
            true => 1,
            false => {
                let most = self.workload.swarm.batch_records_max;
                self.client.random.mostly_small(1..=most)
            }
        };
        Some(self.make_batch(index, count))
    }

    fn make_batch(&mut self, index: i32, count: u64) -> u64 {
        let partition = self.partition(index);
        let idempotent = self.is_idempotent();
        let life = &mut self.life;
        let next = life.next.entry(index).or_default();
        let Next { sequence, place } = *next;
        *next = Next { sequence: sequence + count, place: place + 1 };
        let mut acks = self.workload.checkers.acks.borrow_mut();
        let ids: Vec<RecordId> = (sequence..sequence + count)
            .map(|sequence| {
                let written = Written {
                    producer: life.number,
                    sequence: idempotent.then_some(sequence),
                    promise: match self.role {
                        Role::ProducerOne if self.client.only_broker().is_none() => Promise::Led,
                        Role::ProducerOne => Promise::Written,
                        _ => Promise::Flushed,
                    },
                };
                acks.send(&partition, written)
            })
            .collect();
        let base_sequence = match idempotent {
            true => i32::try_from(sequence).unwrap_or(i32::MAX),
            false => -1,
        };
        let bytes = records::build(
            &mut self.client.random,
            (life.producer_id, life.producer_epoch, base_sequence),
            &ids,
            &self.workload.swarm,
            self.client.runtime.wall_clock_ms(),
        );
        let number = life.batches_made;
        life.batches_made += 1;
        let batch = Batch { index, place, ids, bytes };
        life.unacknowledged.insert(number, batch);
        number
    }

    async fn send(&mut self, number: u64) -> Result<(), CallError> {
        let index = self.life.unacknowledged[&number].index;
        let Some(Leader { address, .. }) =
            route::leader(&mut self.client, self.topic, index).await?
        else {
            self.rewinding = true;
            return Ok(());
        };
        let batch = &self.life.unacknowledged[&number];
        let make = request(self.topic, batch.index, batch.bytes.clone(), self.acks());
        self.note(number, "sent");
        self.in_flight.push_back((number, address));
        let (least, _) = self.workload.swarm.least_versions();
        self.client.send_at(address, least, make).await
    }

    fn note(&self, number: u64, what: &str) {
        let Some(batch) = self.life.unacknowledged.get(&number) else {
            return;
        };
        let executor = self.workload.simulation.executor();
        executor.note(&format!(
            "{} batch {number} to {}-{} ({:?}..): {what}",
            self.client.name, self.topic.name, batch.index, batch.ids[0]
        ));
    }

    async fn receive(&mut self) -> Result<(), CallError> {
        let Some((number, address)) = self.in_flight.pop_front() else {
            return Ok(());
        };
        let answer = self.client.receive_at::<ProduceRequest>(address).await?;
        self.hear(number, &answer);
        let index = self.life.unacknowledged[&number].index;
        let answer = self.single(&answer, index);
        let (error, offset) = (answer.error_code.name(), answer.base_offset);
        self.note(number, &format!("answered {error} @{offset}"));
        match self.judge(number, &answer) {
            Verdict::Acknowledged(base_offset) => self.acknowledge(number, base_offset),
            Verdict::Again if self.is_idempotent() => self.rewinding = true,
            Verdict::Again => {
                self.life.unacknowledged.remove(&number);
            }
            Verdict::Forgotten => {
                self.workload.simulation.executor().note("a producer begins anew");
                self.begin().await;
            }
        }
        Ok(())
    }

    /// Takes the answer's word for who leads, where it denies that the node does.
    fn hear(&mut self, number: u64, answer: &ProduceResponse) {
        let partition = self.partition(self.life.unacknowledged[&number].index);
        let told = answer.responses.iter().flat_map(|topic| &topic.partition_responses).next();
        let Some(told) = told.filter(|told| !told.error_code.is_none()) else {
            return;
        };
        self.client.forget_leader(&partition);
        let leader = &told.current_leader;
        let node = answer.node_endpoints.iter().find(|node| node.node_id == leader.leader_id);
        if let Some(node) = node.filter(|_| self.client.random.chance(MILLION / 2)) {
            let address = route::address(&node.host, node.port);
            self.client.hear(&partition, Leader { address, epoch: leader.leader_epoch });
        }
    }

    /// The one partition that was asked for.
    fn single(&self, body: &ProduceResponse, index: i32) -> PartitionProduceResponse {
        let name = &self.client.name;
        let [topic] = &body.responses[..] else {
            violation(format!("{name}: {} topics for one", body.responses.len()))
        };
        let [partition] = &topic.partition_responses[..] else {
            violation(format!("{name}: {} partitions", topic.partition_responses.len()))
        };
        promise!(partition.index == index, "{name}: another partition answers");
        partition.clone()
    }

    fn judge(&self, number: u64, answer: &PartitionProduceResponse) -> Verdict {
        let (name, error) = (&self.client.name, answer.error_code);
        if error.is_none() {
            return Verdict::Acknowledged(answer.base_offset);
        }
        promise!(
            !self.workload.checkers.stopping.get(),
            "{name}: batch {number}: an orderly stop answers {}",
            error.name()
        );
        let partition = self.partition(answer.index);
        let forgets = [ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, ErrorCode::UNKNOWN_PRODUCER_ID];
        if !forgets.contains(&error) || !self.is_idempotent() {
            promise!(
                error.is_retriable(),
                "{name}: batch {number} for {partition:?}: {}",
                error.name()
            );
            return Verdict::Again;
        }
        let mut earlier = self.life.unacknowledged.range(..number);
        if earlier.any(|(_, batch)| batch.index == answer.index) {
            return Verdict::Again;
        }
        let acks = self.workload.checkers.acks.borrow();
        promise!(
            acks.may_have_lost(&partition, self.life.number),
            "{name}: batch {number} for {partition:?} follows what is acknowledged: {}",
            error.name()
        );
        Verdict::Forgotten
    }

    fn acknowledge(&mut self, number: u64, base_offset: i64) {
        let Some(batch) = self.life.unacknowledged.remove(&number) else {
            return;
        };
        let partition = self.partition(batch.index);
        let mut acks = self.workload.checkers.acks.borrow_mut();
        for (offset, id) in (base_offset..).zip(batch.ids) {
            acks.acknowledge(&partition, id, offset);
        }
    }
}
