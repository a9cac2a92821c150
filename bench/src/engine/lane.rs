//! A producer's connection to one broker: what may leave, and what waits for its acknowledgement.

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;
use vltava_client::error::ClientError;
use vltava_protocol::encode::{Part, Records};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::metadata::MetadataRequest;
use vltava_protocol::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};

use crate::engine::class::Class;
use crate::engine::context::Context;
use crate::engine::leaders;
use crate::engine::line::Line;
use crate::engine::link::Received;
use crate::engine::map::{Map, Node, index};
use crate::engine::poll::Token;
use crate::engine::queue::{CloseError, Queues, Sent};
use crate::scenario::Acks;

/// A request is filled with batches up to this, in bytes, as Java's `max.request.size`.
const REQUEST_BYTES: usize = 1 << 20;
/// How long the broker may take for the acknowledgement of its replicas, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;
const DUPLICATE: ErrorCode = ErrorCode::DUPLICATE_SEQUENCE_NUMBER;

/// Why a lane is of no more use.
#[derive(Debug, Error)]
pub enum LaneError {
    /// The connection.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// A batch.
    #[error(transparent)]
    Close(#[from] CloseError),
}

/// What was asked, in the order of the answers.
#[derive(Debug)]
enum Asked {
    /// To keep these.
    Produce(Vec<Sent>),
    /// Who leads what.
    Leaders,
}

/// What came of some batches.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Records that were refused for good.
    pub failed: u64,
    /// Partitions with batches that are to be sent again.
    pub returned: Vec<u32>,
}

/// A connection, and what it waits for.
#[derive(Debug)]
pub struct Lane {
    line: Line,
    /// Whether its broker leads any partition.
    pub leads: bool,
    /// The number of its producer's class.
    class: usize,
    acks: Acks,
    is_idempotent: bool,
    in_flight_max: usize,
    /// Partitions whose oldest batch may leave.
    ready: VecDeque<u32>,
    asked: VecDeque<Asked>,
    /// How many of them bring batches.
    in_flight: usize,
}

impl Lane {
    /// Connects, waiting for that.
    ///
    /// # Errors
    /// Where the broker cannot be reached, or does not know what is needed.
    pub fn open(
        node: &Node,
        token: Token,
        class: &Class,
        context: &Context,
    ) -> Result<Self, ClientError> {
        let Class { number, spec, .. } = class;
        let mut line = Line::open(node, token, "vltava-bench-producer", context)?;
        if let Some(link) = line.link() {
            link.version::<ProduceRequest>()?;
        }
        Ok(Self {
            line,
            leads: true,
            class: *number,
            acks: spec.acks,
            is_idempotent: spec.idempotent,
            in_flight_max: index(spec.in_flight),
            ready: VecDeque::new(),
            asked: VecDeque::new(),
            in_flight: 0,
        })
    }

    /// The oldest batch of a partition may leave.
    pub fn push(&mut self, partition: u32) {
        self.ready.push_back(partition);
    }

    /// Takes back all that may leave.
    pub fn take_ready(&mut self) -> VecDeque<u32> {
        std::mem::take(&mut self.ready)
    }

    /// Whether it could take another request, and has none to send.
    pub fn is_hungry(&self) -> bool {
        self.ready.is_empty() && self.may_take()
    }

    /// Whether records for it may leave at once.
    pub fn may_take(&self) -> bool {
        self.leads && self.has_room()
    }

    /// Whether it may send another request.
    fn has_room(&self) -> bool {
        self.in_flight < self.in_flight_max && self.line.is_up()
    }

    /// Whether all is sent and answered.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.in_flight == 0 && self.line.is_flushed()
    }

    /// When it wants its turn though nothing happens.
    pub fn due_ns(&self) -> u64 {
        if self.is_unused() { u64::MAX } else { self.line.due_ns() }
    }

    /// Whether nobody would miss its connection.
    fn is_unused(&self) -> bool {
        !self.leads && self.ready.is_empty()
    }

    /// How many records have no answer.
    pub fn unanswered(&self) -> u64 {
        let batches = self.asked.iter().filter_map(|asked| match asked {
            Asked::Produce(batches) => Some(batches),
            Asked::Leaders => None,
        });
        batches.flatten().map(|sent| sent.records).sum()
    }

    /// Sends requests, as many as may be under way. `taken` is told of each partition that a batch
    /// was taken from.
    ///
    /// # Errors
    /// Where the broker has been away for too long, or a batch cannot be closed.
    pub fn send(
        &mut self,
        queues: &mut Queues,
        is_ending: bool,
        context: &mut Context,
        mut taken: impl FnMut(u32),
    ) -> Result<Outcome, LaneError> {
        let was_up = self.line.is_up();
        if !was_up && self.is_unused() || !self.line.revive(context)? {
            return Ok(Outcome::default());
        }
        if !was_up {
            context.leaders.doubt();
        }
        match self.try_send(queues, is_ending, context, &mut taken) {
            Err(LaneError::Client(error)) if error.is_unreachable() => {
                Ok(self.lose(queues, context))
            }
            sent => sent.map(|()| Outcome::default()),
        }
    }

    /// Reads answers.
    ///
    /// # Errors
    /// Where what comes is no answer.
    pub fn receive(
        &mut self,
        queues: &mut Queues,
        context: &mut Context,
    ) -> Result<Outcome, LaneError> {
        let read = self.line.receive(context);
        context.tick();
        let mut outcome = Outcome::default();
        while let Some(Received { answer, frame }) = context.received.pop_front() {
            match self.asked.pop_front() {
                Some(Asked::Produce(batches)) => {
                    let response = answer.decode::<ProduceRequest>()?;
                    context.buffers.give_back(frame);
                    self.in_flight -= 1;
                    self.on_response(&response, batches, queues, context, &mut outcome);
                }
                Some(Asked::Leaders) => {
                    leaders::take_in(answer.decode::<MetadataRequest>()?, context);
                }
                None => return Err(ClientError::Correlation.into()),
            }
        }
        match read {
            Err(error) if error.is_unreachable() => {
                let lost = self.lose(queues, context);
                outcome.returned.extend(lost.returned);
                Ok(outcome)
            }
            read => Ok(read.map(|()| outcome)?),
        }
    }

    fn try_send(
        &mut self,
        queues: &mut Queues,
        is_ending: bool,
        context: &mut Context,
        taken: &mut impl FnMut(u32),
    ) -> Result<(), LaneError> {
        while !self.ready.is_empty() && self.has_room() {
            let (request, batches) = self.request(queues, is_ending, context, taken)?;
            if batches.is_empty() {
                continue;
            }
            // First of all: where sending fails, they are lost with the connection.
            self.asked.push_back(Asked::Produce(batches));
            self.in_flight += 1;
            let Some(link) = self.line.link() else { break };
            let version = link.version::<ProduceRequest>()?;
            match self.acks {
                Acks::None => link.send_unanswered(&request, version)?,
                Acks::Leader | Acks::All => link.send(&request, version)?,
            }
            drop(request);
            self.flush(queues, context)?;
        }
        if context.leaders.wants_asking(context.now_ns)
            && let Some(link) = self.line.link()
        {
            context.leaders.ask(context.now_ns);
            link.send(&leaders::request(&context.map), link.version::<MetadataRequest>()?)?;
            self.asked.push_back(Asked::Leaders);
        }
        if !self.line.is_flushed() {
            self.flush(queues, context)?;
        }
        Ok(())
    }

    fn flush(&mut self, queues: &mut Queues, context: &mut Context) -> Result<(), LaneError> {
        self.line.flush(context)?;
        // Nobody answers: what has left is all that is known.
        if self.acks == Acks::None && self.line.is_flushed() {
            for asked in std::mem::take(&mut self.asked) {
                let Asked::Produce(batches) = asked else {
                    self.asked.push_back(asked);
                    continue;
                };
                self.in_flight -= 1;
                for sent in batches {
                    queues.on_acknowledged(&sent);
                    context.stats.on_acknowledged(context.now_ns, sent.records, sent.bytes);
                    context.buffers.give_back(sent.batch);
                }
            }
        }
        Ok(())
    }

    /// The connection is gone: whatever has no answer is to be sent again.
    fn lose(&mut self, queues: &mut Queues, context: &mut Context) -> Outcome {
        self.line.lose(context);
        context.leaders.doubt();
        let mut outcome = Outcome::default();
        for asked in self.asked.drain(..) {
            let Asked::Produce(batches) = asked else { continue };
            for sent in batches {
                outcome.returned.push(sent.partition);
                queues.give_back(sent, context.now_ns);
            }
        }
        self.in_flight = 0;
        outcome
    }

    /// A request with the oldest batches of partitions that are ready, one of each.
    fn request(
        &mut self,
        queues: &mut Queues,
        is_ending: bool,
        context: &mut Context,
        taken: &mut impl FnMut(u32),
    ) -> Result<(ProduceRequest, Vec<Sent>), LaneError> {
        let acks = match self.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        };
        let mut request =
            ProduceRequest { acks, timeout_ms: TIMEOUT_MS, ..ProduceRequest::default() };
        let (mut batches, mut bytes) = (Vec::<Sent>::new(), 0);
        let now_ns = if is_ending { u64::MAX } else { context.now_ns };
        // Those that are listed again meanwhile have been here.
        for _ in 0..self.ready.len() {
            let fits = |partition: &mut u32| {
                batches.is_empty() || bytes + queues.first_len(*partition) <= REQUEST_BYTES
            };
            let Some(partition) = self.ready.pop_front_if(fits) else {
                break;
            };
            let Some(sent) = queues.take(partition, &mut context.buffers)? else {
                continue;
            };
            taken(partition);
            if queues.list_if_ready(partition, now_ns) {
                self.ready.push_back(partition);
            }
            bytes += sent.batch.len();
            add(&mut request, &context.map, partition, sent.batch.clone());
            batches.push(sent);
        }
        Ok((request, batches))
    }

    /// An answer to a request with these batches has come.
    fn on_response(
        &self,
        response: &ProduceResponse,
        batches: Vec<Sent>,
        queues: &mut Queues,
        context: &mut Context,
        outcome: &mut Outcome,
    ) {
        let now_ns = context.now_ns;
        let refused = refused(response, &context.map);
        for sent in batches {
            let code = refused.iter().find(|(partition, _)| *partition == sent.partition);
            match code.map(|(_, code)| *code) {
                Some(code) if self.may_pass(code, &sent, queues, context) => {
                    if code.invalidates_metadata() {
                        context.leaders.doubt();
                    }
                    outcome.returned.push(sent.partition);
                    queues.give_back(sent, now_ns);
                }
                // An earlier try was kept, and its answer lost.
                Some(code) if !(self.is_idempotent && code == DUPLICATE) => {
                    outcome.failed += sent.records;
                    queues.on_failed(&sent);
                    context.stats.fault(format!("a batch was refused: {}", code.name()));
                }
                _ => {
                    queues.on_acknowledged(&sent);
                    context.stats.on_acknowledged(now_ns, sent.records, sent.bytes);
                    for (intended_ns, count) in &sent.intended {
                        context.stats.acknowledged_after(self.class, *intended_ns, now_ns, *count);
                    }
                    context.buffers.give_back(sent.batch);
                }
            }
        }
    }

    /// Whether a batch that was refused is to be sent again: for so long since its first refusal.
    /// Behind one that is, a broker that counts finds the next out of order.
    fn may_pass(&self, code: ErrorCode, sent: &Sent, queues: &Queues, context: &Context) -> bool {
        let is_behind = self.is_idempotent && queues.has_returned(sent.partition);
        let since_ns = sent.returned_ns.unwrap_or(context.now_ns);
        let is_in_time = context.now_ns.saturating_sub(since_ns) <= context.retry_ns;
        let is_out_of_order = code == ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER;
        is_in_time && (code.is_retriable() || (is_out_of_order && is_behind))
    }
}

/// Which partitions an answer refuses, and why.
fn refused(response: &ProduceResponse, map: &Map) -> Vec<(u32, ErrorCode)> {
    let mut refused = Vec::new();
    for topic in &response.responses {
        let codes = topic.partition_responses.iter();
        for partition in codes.filter(|partition| !partition.error_code.is_none()) {
            if let Some(number) = map.find(&topic.name, topic.topic_id, partition.index) {
                refused.push((number, partition.error_code));
            }
        }
    }
    refused
}

fn add(request: &mut ProduceRequest, map: &Map, partition: u32, batch: Bytes) {
    let (Some(place), Some(topic)) = (map.place(partition), map.topic_of(partition)) else {
        return;
    };
    let data = PartitionProduceData {
        index: place.partition,
        records: Some(Records { parts: vec![Part::Memory(batch)] }),
    };
    let same = request.topic_data.iter_mut().rev().find(|data| data.name == topic.name);
    match same {
        Some(topic) => topic.partition_data.push(data),
        None => request.topic_data.push(TopicProduceData {
            name: topic.name.clone(),
            topic_id: topic.id,
            partition_data: vec![data],
        }),
    }
}
