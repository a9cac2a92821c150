//! A consumer's connection to one broker: one fetch at a time, over the partitions that it reads
//! there.

use std::collections::VecDeque;

use vltava_client::error::ClientError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use vltava_protocol::messages::metadata::MetadataRequest;

use crate::engine::context::Context;
use crate::engine::leaders;
use crate::engine::line::Line;
use crate::engine::link::Received;
use crate::engine::map::{Map, Node, index};
use crate::engine::poll::Token;
use crate::engine::reader::Reader;
use crate::engine::session::{Names, Session};
use crate::scenario::Consumers;

/// An answer has so many bytes at most, as Java's `fetch.max.bytes`.
const ANSWER_BYTES_MAX: i32 = 50 << 20;
/// How long is waited after an error that may pass.
const RETRY_NS: u64 = 50_000_000;
/// So many such errors in a row are a fault.
const RETRIES_MAX: u32 = 600;
/// What a broker says that has no such session any more.
const SESSION_ENDED: [ErrorCode; 3] = [
    ErrorCode::FETCH_SESSION_ID_NOT_FOUND,
    ErrorCode::INVALID_FETCH_SESSION_EPOCH,
    ErrorCode::FETCH_SESSION_TOPIC_ID_ERROR,
];

/// What was asked, in the order of the answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Records,
    Leaders,
}

/// A connection, and what it reads.
#[derive(Debug)]
pub struct FetchLane {
    line: Line,
    session: Session,
    asked: VecDeque<Asked>,
    retry_at_ns: u64,
    retries: u32,
}

impl FetchLane {
    /// Connects, waiting for that.
    ///
    /// # Errors
    /// Where the broker cannot be reached, or does not know what is needed.
    pub fn open(node: &Node, token: Token, context: &Context) -> Result<Self, ClientError> {
        let mut line = Line::open(node, token, "vltava-bench-consumer", context)?;
        if let Some(link) = line.link() {
            link.version::<FetchRequest>()?;
        }
        Ok(Self {
            line,
            session: Session::new(context.map.partitions.len()),
            asked: VecDeque::new(),
            retry_at_ns: 0,
            retries: 0,
        })
    }

    /// Reads these from now on, in ascending order, and no others.
    pub fn assign(&mut self, partitions: Vec<u32>) {
        self.session.assign(partitions);
    }

    /// Asks, unless it has asked, for what comes at these positions (by partition). When to be
    /// called again though no answer comes.
    ///
    /// # Errors
    /// Where the broker has been away for too long.
    pub fn ask(
        &mut self,
        class: &Consumers,
        positions: &[i64],
        context: &mut Context,
    ) -> Result<u64, ClientError> {
        if self.session.is_empty() {
            return Ok(u64::MAX);
        }
        if !self.line.revive(context)? {
            return Ok(self.line.due_ns());
        }
        match self.try_ask(class, positions, context) {
            Err(error) if error.is_unreachable() => {
                self.lose(context);
                Ok(self.line.due_ns())
            }
            asked => asked,
        }
    }

    fn try_ask(
        &mut self,
        class: &Consumers,
        positions: &[i64],
        context: &mut Context,
    ) -> Result<u64, ClientError> {
        let Some(link) = self.line.link() else {
            return Ok(u64::MAX);
        };
        if context.leaders.wants_asking(context.now_ns) {
            context.leaders.ask(context.now_ns);
            link.send(&leaders::request(&context.map), link.version::<MetadataRequest>()?)?;
            self.asked.push_back(Asked::Leaders);
        }
        let mut due_ns = u64::MAX;
        if context.now_ns < self.retry_at_ns {
            due_ns = self.retry_at_ns;
        } else if !self.asked.contains(&Asked::Records) {
            let names = self.session.ask(positions);
            let version = link.version::<FetchRequest>()?;
            link.send(&request(class, &names, &context.map), version)?;
            self.asked.push_back(Asked::Records);
        }
        self.line.flush(context)?;
        Ok(due_ns)
    }

    /// Reads answers, and the records in them. How many bytes of batches have come.
    ///
    /// # Errors
    /// Where what comes is no answer.
    pub fn receive(
        &mut self,
        positions: &mut [i64],
        reader: &mut Reader,
        context: &mut Context,
    ) -> Result<u64, ClientError> {
        let read = self.line.receive(context);
        context.tick();
        let mut bytes = 0;
        while let Some(Received { answer, frame }) = context.received.pop_front() {
            match self.asked.pop_front().ok_or(ClientError::Correlation)? {
                Asked::Leaders => leaders::take_in(answer.decode::<MetadataRequest>()?, context),
                Asked::Records => {
                    let response = answer.decode::<FetchRequest>()?;
                    bytes += self.take_in(response, positions, reader, context)?;
                }
            }
            context.buffers.give_back(frame);
        }
        match read {
            Err(error) if error.is_unreachable() => self.lose(context),
            read => read?,
        }
        Ok(bytes)
    }

    fn take_in(
        &mut self,
        response: FetchResponse,
        positions: &mut [i64],
        reader: &mut Reader,
        context: &mut Context,
    ) -> Result<u64, ClientError> {
        if SESSION_ENDED.contains(&response.error_code) {
            self.session.lose();
            return Ok(0);
        }
        ClientError::check(response.error_code, None, "fetching")?;
        self.session.on_answer(response.session_id);
        let mut bytes = 0;
        for topic in response.responses {
            for data in topic.partitions {
                let partition =
                    context.map.find(&topic.topic, topic.topic_id, data.partition_index);
                // What was given to another member meanwhile is not this one's any more.
                if let Some(partition) = partition
                    && let Some(offset) = self.session.asked(partition)
                    && positions.get(index(partition)) == Some(&offset)
                {
                    bytes += self.take(partition, offset, data, positions, reader, context);
                }
            }
        }
        Ok(bytes)
    }

    /// The connection is gone. What it was to bring is asked for again.
    fn lose(&mut self, context: &mut Context) {
        self.line.lose(context);
        self.session.lose();
        self.asked.clear();
        context.leaders.doubt();
    }

    fn take(
        &mut self,
        partition: u32,
        offset: i64,
        data: PartitionData,
        positions: &mut [i64],
        reader: &mut Reader,
        context: &mut Context,
    ) -> u64 {
        match data.error_code {
            ErrorCode::NONE => {}
            code if code.is_retriable() && self.retries < RETRIES_MAX => {
                self.retries += 1;
                if code.invalidates_metadata() {
                    context.leaders.doubt();
                }
                self.retry_at_ns = context.now_ns + RETRY_NS;
                return 0;
            }
            code => {
                context.stats.fault(format!("a fetch was refused: {}", code.name()));
                self.retry_at_ns = context.now_ns + RETRY_NS;
                return 0;
            }
        }
        self.retries = 0;
        let bytes = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
        let (next_offset, error) = reader.read(partition, offset, &bytes, context);
        if let Some(error) = error {
            context.stats.fault(format!("the batch at offset {next_offset}: {error}"));
            self.retry_at_ns = context.now_ns + RETRY_NS;
        }
        if positions[index(partition)] != next_offset {
            positions[index(partition)] = next_offset;
            self.session.move_on(partition);
        }
        bytes.len() as u64
    }
}

fn request(class: &Consumers, names: &Names, map: &Map) -> FetchRequest {
    let (session_id, session_epoch) = names.session;
    let mut request = FetchRequest {
        max_wait_ms: signed(class.max_wait_ms),
        min_bytes: signed(class.min_bytes),
        max_bytes: ANSWER_BYTES_MAX,
        session_id,
        session_epoch,
        ..FetchRequest::default()
    };
    for (partition, offset) in &names.partitions {
        let (Some(place), Some(topic)) = (map.place(*partition), map.topic_of(*partition)) else {
            continue;
        };
        let fetch = FetchPartition {
            partition: place.partition,
            current_leader_epoch: place.leader_epoch,
            fetch_offset: *offset,
            partition_max_bytes: signed(class.partition_bytes),
            ..FetchPartition::default()
        };
        match request.topics.last_mut().filter(|last| last.topic == topic.name) {
            Some(last) => last.partitions.push(fetch),
            None => request.topics.push(FetchTopic {
                topic: topic.name.clone(),
                topic_id: topic.id,
                partitions: vec![fetch],
            }),
        }
    }
    request
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
