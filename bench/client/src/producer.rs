//! Batches on their way to brokers: gathered, sent, sent again.
//!
//! One batch of a partition is under way at a time, so that what is sent again stays in order;
//! other partitions do not wait for it. With an identity (from InitProducerId) batches carry
//! sequence numbers, and a batch that is sent twice is stored once. After a batch has failed for
//! good its partition takes no more: what follows could not be in order.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use vltava_protocol::batch::add_to_sequence;
use vltava_protocol::batch_builder::{BatchBuilder, BuildError, HeaderRef};
use vltava_protocol::compression::Compressor;
use vltava_protocol::encode::Records;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::produce::{
    PartitionProduceData, PartitionProduceResponse, ProduceRequest, ProduceResponse,
    TopicProduceData,
};
use vltava_protocol::types::Str;

use crate::backoff::Backoff;
use crate::error::ClientError;
use crate::metadata::{Metadata, NodeId, TopicPartition};

/// How records are sent.
#[derive(Clone, Debug)]
pub struct ProducerOptions {
    /// 0: no answer; 1: the leader has it; -1: it is as durable as the cluster makes it.
    pub acks: i16,
    /// What the broker may take to gather acknowledgements, in milliseconds.
    pub timeout_ms: i32,
    /// How long a batch is tried, in milliseconds.
    pub delivery_timeout_ms: u64,
    /// How long a batch waits for more records, in milliseconds.
    pub linger_ms: u64,
    /// A batch is closed when it would grow past this, before compression.
    pub batch_bytes_max: usize,
    /// A request takes no further batch when it has grown past this.
    pub request_bytes_max: usize,
    /// Id and epoch of an idempotent producer.
    pub identity: Option<(i64, i16)>,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self {
            acks: -1,
            timeout_ms: 30_000,
            delivery_timeout_ms: 120_000,
            linger_ms: 5,
            batch_bytes_max: 256 << 10,
            request_bytes_max: 8 << 20,
            identity: None,
        }
    }
}

/// What became of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Where it was to go.
    pub partition: TopicPartition,
    /// How many records it had.
    pub record_count: i32,
    /// The offset of its first record (-1 with acks=0), or why it failed for good.
    pub result: Result<i64, DeliveryError>,
}

/// Why a batch failed for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryError {
    /// The broker's error. One that is retriable: the batch's time is up, and this is what the last
    /// attempt met ([`ErrorCode::REQUEST_TIMED_OUT`] where none was answered).
    pub code: ErrorCode,
    /// What it adds.
    pub message: Option<Str>,
}

/// Batches of all partitions.
pub struct Producer {
    options: ProducerOptions,
    compressor: Compressor,
    queues: BTreeMap<TopicPartition, Queue>,
    deliveries: Vec<Delivery>,
    wants_metadata: bool,
    buffered_bytes: usize,
}

struct Queue {
    open: Option<Open>,
    closed: VecDeque<Closed>,
    /// Who has been sent the first of `closed` and has not answered.
    in_flight: Option<NodeId>,
    next_attempt_ms: u64,
    backoff: Backoff,
    next_sequence: i32,
    /// Why the first of `closed` was not taken when it was last tried.
    last_error: Option<DeliveryError>,
    failure: Option<DeliveryError>,
}

struct Open {
    builder: BatchBuilder,
    since_ms: u64,
}

struct Closed {
    bytes: Bytes,
    record_count: i32,
    deadline_ms: u64,
}

impl Producer {
    /// One without records.
    pub fn new(options: ProducerOptions, compressor: Compressor) -> Self {
        Self {
            options,
            compressor,
            queues: BTreeMap::new(),
            deliveries: Vec::new(),
            wants_metadata: false,
            buffered_bytes: 0,
        }
    }

    /// Adds a record to its partition's batch. `true` where that began a new batch: time for a
    /// partitioner to move on.
    pub fn append(
        &mut self,
        now_ms: u64,
        partition: &TopicPartition,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[HeaderRef<'_>],
    ) -> Result<bool, ClientError> {
        if !self.queues.contains_key(partition) {
            self.queues.insert(partition.clone(), Queue::new());
        }
        let Some(queue) = self.queues.get_mut(partition) else {
            return Ok(false);
        };
        if let Some(DeliveryError { code, message }) = &queue.failure {
            ClientError::check(*code, message.as_ref(), partition.to_string())?;
        }
        let record_bytes = BatchBuilder::record_bytes_max(key, value);
        let is_full = queue.open.as_ref().is_some_and(|open| {
            open.builder.uncompressed_bytes() + record_bytes > self.options.batch_bytes_max
        });
        if is_full {
            self.buffered_bytes += queue.close(now_ms, &self.options, &mut self.compressor)?;
        }
        let is_new = queue.open.is_none();
        let open = queue
            .open
            .get_or_insert_with(|| Open { builder: BatchBuilder::new(), since_ms: now_ms });
        open.builder.append(timestamp, key, value, headers)?;
        Ok(is_new)
    }

    /// Bytes of closed batches that have not been delivered: whoever appends should wait while
    /// there are many.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Whether nothing waits to be sent or answered.
    pub fn is_idle(&self) -> bool {
        self.queues.values().all(|queue| queue.open.is_none() && queue.closed.is_empty())
    }

    /// Whether a leader was not known or not the leader, since this was last asked.
    pub fn take_wants_metadata(&mut self) -> bool {
        std::mem::take(&mut self.wants_metadata)
    }

    /// What became of batches since this was last asked.
    pub fn take_deliveries(&mut self) -> Vec<Delivery> {
        std::mem::take(&mut self.deliveries)
    }

    /// The requests that should leave now, one for each leader at most. `flush`: open batches do
    /// not linger. With acks=0 they are not answered, and count as delivered.
    pub fn take_requests(
        &mut self,
        now_ms: u64,
        flush: bool,
        metadata: &Metadata,
    ) -> Result<BTreeMap<NodeId, ProduceRequest>, BuildError> {
        let mut requests: BTreeMap<NodeId, (usize, ProduceRequest)> = BTreeMap::new();
        for (partition, queue) in &mut self.queues {
            if queue.is_ripe(now_ms, flush, &self.options) {
                self.buffered_bytes += queue.close(now_ms, &self.options, &mut self.compressor)?;
            }
            if queue.in_flight.is_some() || now_ms < queue.next_attempt_ms {
                continue;
            }
            let Some(first) = queue.closed.front() else {
                continue;
            };
            if now_ms >= first.deadline_ms {
                let timed_out = DeliveryError { code: ErrorCode::REQUEST_TIMED_OUT, message: None };
                let error = queue.last_error.take().unwrap_or(timed_out);
                self.buffered_bytes -= queue.fail(partition, error, &mut self.deliveries);
                continue;
            }
            let Some((leader, _)) = metadata.leader(partition) else {
                self.wants_metadata = true;
                let code = ErrorCode::LEADER_NOT_AVAILABLE;
                // What a leader has said says more than that it is gone.
                queue.last_error.get_or_insert(DeliveryError { code, message: None });
                queue.next_attempt_ms = now_ms + queue.backoff.next_ms();
                continue;
            };
            let (bytes, request) =
                requests.entry(leader).or_insert_with(|| (0, self.options.request()));
            if *bytes > self.options.request_bytes_max {
                continue;
            }
            *bytes += first.bytes.len();
            put(request, partition, metadata, first.bytes.clone());
            if self.options.acks == 0 {
                self.buffered_bytes -= queue.deliver(partition, Ok(-1), &mut self.deliveries);
            } else {
                queue.in_flight = Some(leader);
            }
        }
        Ok(requests.into_iter().map(|(leader, (_, request))| (leader, request)).collect())
    }

    /// When [`Self::take_requests`] may have something to do without an answer coming in.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let queues = self.queues.values();
        queues.filter_map(|queue| queue.next_deadline_ms(&self.options)).min()
    }

    /// Takes in an answer.
    pub fn on_response(&mut self, now_ms: u64, response: ProduceResponse, metadata: &Metadata) {
        for topic in response.responses {
            let Some(name) = metadata.name_of(&topic.name, topic.topic_id) else {
                continue;
            };
            for answer in topic.partition_responses {
                let partition = TopicPartition { topic: name.clone(), partition: answer.index };
                self.on_answer(now_ms, &partition, answer);
            }
        }
    }

    fn on_answer(
        &mut self,
        now_ms: u64,
        partition: &TopicPartition,
        answer: PartitionProduceResponse,
    ) {
        let Some(queue) = self.queues.get_mut(partition) else {
            return;
        };
        if queue.in_flight.take().is_none() {
            return;
        }
        let PartitionProduceResponse {
            error_code: code, error_message: message, base_offset, ..
        } = answer;
        if code.is_none() || code == ErrorCode::DUPLICATE_SEQUENCE_NUMBER {
            self.buffered_bytes -= queue.deliver(partition, Ok(base_offset), &mut self.deliveries);
        } else if code.is_retriable() {
            self.wants_metadata |= code.invalidates_metadata();
            queue.last_error = Some(DeliveryError { code, message });
            queue.next_attempt_ms = now_ms + queue.backoff.next_ms();
        } else {
            let error = DeliveryError { code, message };
            self.buffered_bytes -= queue.fail(partition, error, &mut self.deliveries);
        }
    }

    /// The connection to a broker is gone: what it has not answered is sent again.
    pub fn on_disconnect(&mut self, now_ms: u64, node: NodeId) {
        for queue in self.queues.values_mut() {
            if queue.in_flight == Some(node) {
                queue.in_flight = None;
                queue.next_attempt_ms = now_ms + queue.backoff.next_ms();
                self.wants_metadata = true;
            }
        }
    }
}

impl ProducerOptions {
    fn request(&self) -> ProduceRequest {
        ProduceRequest { acks: self.acks, timeout_ms: self.timeout_ms, ..ProduceRequest::default() }
    }
}

impl Queue {
    fn new() -> Self {
        Self {
            open: None,
            closed: VecDeque::new(),
            in_flight: None,
            next_attempt_ms: 0,
            backoff: Backoff::new(),
            next_sequence: 0,
            last_error: None,
            failure: None,
        }
    }

    /// Whether the open batch should be closed: its time is up, and nothing is in front of it.
    fn is_ripe(&self, now_ms: u64, flush: bool, options: &ProducerOptions) -> bool {
        let waited = |open: &Open| flush || now_ms >= open.since_ms + options.linger_ms;
        self.closed.is_empty() && self.open.as_ref().is_some_and(waited)
    }

    fn next_deadline_ms(&self, options: &ProducerOptions) -> Option<u64> {
        if self.in_flight.is_some() {
            return None;
        }
        if self.closed.is_empty() {
            return self.open.as_ref().map(|open| open.since_ms + options.linger_ms);
        }
        Some(self.next_attempt_ms)
    }

    /// Closes the open batch; returns its bytes.
    fn close(
        &mut self,
        now_ms: u64,
        options: &ProducerOptions,
        compressor: &mut Compressor,
    ) -> Result<usize, BuildError> {
        let Some(Open { mut builder, .. }) = self.open.take() else {
            return Ok(0);
        };
        let record_count = builder.record_count();
        if let Some((id, epoch)) = options.identity {
            builder = builder.producer(id, epoch, self.next_sequence);
            self.next_sequence = add_to_sequence(self.next_sequence, record_count);
        }
        let bytes = Bytes::from(builder.build_compressed(compressor)?);
        let length = bytes.len();
        self.closed.push_back(Closed {
            bytes,
            record_count,
            deadline_ms: now_ms.saturating_add(options.delivery_timeout_ms),
        });
        Ok(length)
    }

    /// The first batch is done; returns its bytes.
    fn deliver(
        &mut self,
        partition: &TopicPartition,
        result: Result<i64, DeliveryError>,
        deliveries: &mut Vec<Delivery>,
    ) -> usize {
        let Some(first) = self.closed.pop_front() else {
            return 0;
        };
        self.backoff.reset();
        self.next_attempt_ms = 0;
        self.last_error = None;
        deliveries.push(Delivery {
            partition: partition.clone(),
            record_count: first.record_count,
            result,
        });
        first.bytes.len()
    }

    /// The first batch has failed for good, and with it all that follow; returns their bytes.
    fn fail(
        &mut self,
        partition: &TopicPartition,
        error: DeliveryError,
        deliveries: &mut Vec<Delivery>,
    ) -> usize {
        let mut bytes = 0;
        while !self.closed.is_empty() {
            bytes += self.deliver(partition, Err(error.clone()), deliveries);
        }
        self.failure = Some(error);
        bytes
    }
}

/// Adds a batch to a request, by topic name and by topic id: the version decides which of them is
/// sent.
fn put(
    request: &mut ProduceRequest,
    partition: &TopicPartition,
    metadata: &Metadata,
    batch: Bytes,
) {
    let data =
        PartitionProduceData { index: partition.partition, records: Some(Records::from(batch)) };
    // Partitions come in order, so that a topic's stand together.
    match request.topic_data.last_mut() {
        Some(topic) if topic.name == partition.topic => topic.partition_data.push(data),
        _ => request.topic_data.push(TopicProduceData {
            name: partition.topic.clone(),
            topic_id: metadata.topic_id(&partition.topic),
            partition_data: vec![data],
        }),
    }
}

#[cfg(test)]
mod tests;
