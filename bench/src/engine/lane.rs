//! A producer's connection to one broker: what may leave, and what waits for its acknowledgement.

use std::collections::VecDeque;

use bytes::Bytes;
use thiserror::Error;
use vltava_client::error::ClientError;
use vltava_protocol::encode::{Part, Records};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::produce::{
    PartitionProduceData, ProduceRequest, ProduceResponse, TopicProduceData,
};

use crate::engine::context::Context;
use crate::engine::link::{Link, Received};
use crate::engine::map::{Map, Node};
use crate::engine::poll::Token;
use crate::engine::queue::{CloseError, Queues, Sent};
use crate::scenario::Acks;

/// A request is filled with batches up to this, in bytes, as Java's `max.request.size`.
const REQUEST_BYTES: usize = 1 << 20;
/// How long the broker may take for the acknowledgement of its replicas, in milliseconds.
const TIMEOUT_MS: i32 = 30_000;

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

/// A connection, and what it waits for.
#[derive(Debug)]
pub struct Lane {
    link: Link,
    token: Token,
    acks: Acks,
    in_flight_max: usize,
    /// Partitions whose oldest batch may leave.
    ready: VecDeque<u32>,
    /// Batches of each request that is not answered.
    in_flight: VecDeque<Vec<Sent>>,
}

impl Lane {
    /// Connects, waiting for that.
    ///
    /// # Errors
    /// Where the broker cannot be reached, or does not know what is needed.
    pub fn open(
        node: &Node,
        token: Token,
        acks: Acks,
        in_flight_max: usize,
        context: &Context,
    ) -> Result<Self, ClientError> {
        let link = Link::open(&node.address, &"vltava-bench-producer".into())?;
        link.version::<ProduceRequest>()?;
        context.add(&link, token)?;
        let (ready, in_flight) = (VecDeque::new(), VecDeque::new());
        Ok(Self { link, token, acks, in_flight_max, ready, in_flight })
    }

    /// The oldest batch of a partition may leave.
    pub fn push(&mut self, partition: u32) {
        self.ready.push_back(partition);
    }

    /// Whether it could take another request, and has none to send.
    pub fn is_hungry(&self) -> bool {
        self.ready.is_empty() && self.has_room()
    }

    /// Whether it may send another request.
    pub fn has_room(&self) -> bool {
        self.in_flight.len() < self.in_flight_max
    }

    /// Whether all is sent and answered.
    pub fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.in_flight.is_empty() && self.link.is_flushed()
    }

    /// How many records have no answer.
    pub fn unanswered(&self) -> u64 {
        self.in_flight.iter().flatten().map(|sent| sent.records).sum()
    }

    /// Sends requests, as many as may be under way. `taken` is told of each partition that a batch
    /// was taken from.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn send(
        &mut self,
        queues: &mut Queues,
        is_ending: bool,
        context: &mut Context,
        mut taken: impl FnMut(u32),
    ) -> Result<(), LaneError> {
        while !self.ready.is_empty() && self.has_room() {
            let (request, batches) = self.request(queues, is_ending, context, &mut taken)?;
            let version = self.link.version::<ProduceRequest>()?;
            match self.acks {
                Acks::None => self.link.send_unanswered(&request, version)?,
                Acks::Leader | Acks::All => self.link.send(&request, version)?,
            }
            self.in_flight.push_back(batches);
            // Else its batches would be shared when they have left, and could not be used again.
            drop(request);
            self.flush(queues, context)?;
        }
        if !self.link.is_flushed() {
            self.flush(queues, context)?;
        }
        Ok(())
    }

    /// Reads answers.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn receive(
        &mut self,
        queues: &mut Queues,
        context: &mut Context,
    ) -> Result<u64, LaneError> {
        let read = context.receive(&mut self.link);
        context.tick();
        let mut failed = 0;
        while let Some(Received { answer, frame }) = context.received.pop_front() {
            let response = answer.decode::<ProduceRequest>()?;
            context.buffers.give_back(frame);
            failed += self.on_response(&response, queues, context);
        }
        read?;
        Ok(failed)
    }

    fn flush(&mut self, queues: &mut Queues, context: &mut Context) -> Result<(), LaneError> {
        context.flush(&mut self.link, self.token)?;
        // Nobody answers: what has left is all that is known.
        if self.acks == Acks::None && self.link.is_flushed() {
            for sent in self.in_flight.drain(..).flatten() {
                queues.on_acknowledged(&sent);
                context.stats.on_acknowledged(context.now_ns, sent.records, sent.bytes);
            }
        }
        Ok(())
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
            let Some((batch, sent)) = queues.take(partition, &mut context.buffers)? else {
                continue;
            };
            taken(partition);
            if queues.list_if_ready(partition, now_ns) {
                self.ready.push_back(partition);
            }
            bytes += batch.len();
            batches.push(sent);
            add(&mut request, &context.map, partition, batch);
        }
        Ok((request, batches))
    }

    /// How many records were refused.
    fn on_response(
        &mut self,
        response: &ProduceResponse,
        queues: &mut Queues,
        context: &mut Context,
    ) -> u64 {
        let now_ns = context.now_ns;
        let mut failed = 0;
        let Some(batches) = self.in_flight.pop_front() else {
            return failed;
        };
        let refused = refused(response, &context.map);
        for sent in batches {
            let code = refused.iter().find(|(partition, _)| *partition == sent.partition);
            if let Some((_, code)) = code {
                failed += sent.records;
                context.stats.fault(format!("a batch was refused: {}", code.name()));
                continue;
            }
            queues.on_acknowledged(&sent);
            context.stats.on_acknowledged(now_ns, sent.records, sent.bytes);
            for (intended_ns, count) in &sent.intended {
                context.stats.acknowledged_after(*intended_ns, now_ns, *count);
            }
        }
        failed
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
