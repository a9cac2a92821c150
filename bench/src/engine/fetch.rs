//! A consumer's connection to one broker: one fetch at a time, over the partitions that it reads
//! there.
//!
//! Of an answer only the headers of its batches are walked at first: they say what comes next, and
//! that is asked for before the records are looked at, so that the broker and the harness do not
//! wait for each other. The answer after is not read from its socket until then, so no more than
//! one is in memory.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use vltava_client::error::ClientError;
use vltava_protocol::batch::walk;
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

/// How long is waited after an error that may pass.
const RETRY_NS: u64 = 50_000_000;
/// The session, among the partitions for which something has gone wrong.
const SESSION: u32 = u32::MAX;
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

/// Batches of a partition that have come.
#[derive(Debug)]
struct Batches {
    partition: u32,
    /// What is before has been read.
    from_offset: i64,
    bytes: Bytes,
}

/// What has come, and is to be looked at.
#[derive(Debug, Default)]
pub struct Arrived {
    batches: Vec<Batches>,
    /// What they stand in.
    frames: Vec<Bytes>,
}

impl Arrived {
    /// How many bytes of batches there are.
    pub fn bytes(&self) -> u64 {
        self.batches.iter().map(|batches| batches.bytes.len() as u64).sum()
    }

    /// Checks all records. A batch that cannot be read is a fault.
    pub fn check(self, reader: &mut Reader, context: &mut Context) {
        for Batches { partition, from_offset, bytes } in self.batches {
            let (at, error) = reader.read(partition, from_offset, &bytes, context);
            if let Some(error) = error {
                context.stats.fault(format!("the batch at offset {at}: {error}"));
            }
        }
        self.frames.into_iter().for_each(|frame| context.buffers.give_back(frame));
    }
}

/// A connection, and what it reads.
#[derive(Debug)]
pub struct FetchLane {
    line: Line,
    session: Session,
    asked: VecDeque<Asked>,
    retry_at_ns: u64,
    /// Since when partitions have met nothing but errors that may pass.
    failing_since_ns: BTreeMap<u32, u64>,
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
            failing_since_ns: BTreeMap::new(),
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

    /// Reads answers, and moves positions to what comes next. What has come is to be checked.
    ///
    /// # Errors
    /// Where what comes is no answer.
    pub fn receive(
        &mut self,
        positions: &mut [i64],
        context: &mut Context,
    ) -> Result<Arrived, ClientError> {
        let read = self.line.receive(context);
        context.tick();
        let mut arrived = Arrived::default();
        while let Some(Received { answer, frame }) = context.received.pop_front() {
            match self.asked.pop_front().ok_or(ClientError::Correlation)? {
                Asked::Leaders => leaders::take_in(answer.decode::<MetadataRequest>()?, context),
                Asked::Records => {
                    let response = answer.decode::<FetchRequest>()?;
                    self.take_in(response, positions, context, &mut arrived)?;
                }
            }
            arrived.frames.push(frame);
        }
        match read {
            Err(error) if error.is_unreachable() => self.lose(context),
            read => read?,
        }
        Ok(arrived)
    }

    fn take_in(
        &mut self,
        response: FetchResponse,
        positions: &mut [i64],
        context: &mut Context,
        arrived: &mut Arrived,
    ) -> Result<(), ClientError> {
        if SESSION_ENDED.contains(&response.error_code) {
            self.session.lose();
            self.on_error(SESSION, response.error_code, context);
            return Ok(());
        }
        ClientError::check(response.error_code, None, "fetching")?;
        self.failing_since_ns.remove(&SESSION);
        self.session.on_answer(response.session_id);
        for topic in response.responses {
            for data in topic.partitions {
                let partition =
                    context.map.find(&topic.topic, topic.topic_id, data.partition_index);
                // What was given to another member meanwhile is not this one's any more.
                if let Some(partition) = partition
                    && let Some(offset) = self.session.asked(partition)
                    && positions.get(index(partition)) == Some(&offset)
                {
                    self.take(partition, offset, data, positions, context, arrived);
                }
            }
        }
        Ok(())
    }

    /// Something went wrong that may pass: it is tried again for as long as the run says.
    fn on_error(&mut self, partition: u32, code: ErrorCode, context: &mut Context) {
        let now_ns = context.now_ns;
        self.retry_at_ns = now_ns + RETRY_NS;
        let since_ns = *self.failing_since_ns.entry(partition).or_insert(now_ns);
        if now_ns - since_ns > context.retry_ns {
            context.stats.fault(format!("a fetch was refused: {}", code.name()));
        }
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
        context: &mut Context,
        arrived: &mut Arrived,
    ) {
        match data.error_code {
            ErrorCode::NONE => {}
            code if code.is_retriable() => {
                if code.invalidates_metadata() {
                    context.leaders.doubt();
                }
                self.on_error(partition, code, context);
                return;
            }
            code => {
                context.stats.fault(format!("a fetch was refused: {}", code.name()));
                self.retry_at_ns = context.now_ns + RETRY_NS;
                return;
            }
        }
        self.failing_since_ns.remove(&partition);
        let bytes = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
        let (next_offset, is_whole) = behind(offset, &bytes);
        if !is_whole {
            // Whoever checks it says what is wrong.
            self.retry_at_ns = context.now_ns + RETRY_NS;
        }
        if positions[index(partition)] != next_offset {
            positions[index(partition)] = next_offset;
            self.session.move_on(partition);
        }
        if !bytes.is_empty() {
            arrived.batches.push(Batches { partition, from_offset: offset, bytes });
        }
    }
}

/// The offset behind the last of these batches, by their headers; and whether all have one.
fn behind(from_offset: i64, bytes: &[u8]) -> (i64, bool) {
    let mut next_offset = from_offset;
    for batch in walk(bytes) {
        match batch {
            Ok(batch) => next_offset = next_offset.max(batch.next_offset()),
            Err(_) => return (next_offset, false),
        }
    }
    (next_offset, true)
}

fn request(class: &Consumers, names: &Names, map: &Map) -> FetchRequest {
    let (session_id, session_epoch) = names.session;
    let mut request = FetchRequest {
        max_wait_ms: signed(class.max_wait_ms),
        min_bytes: signed(class.min_bytes),
        max_bytes: signed(class.answer_bytes),
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a failing test should say where")]

    use vltava_protocol::batch_builder::BatchBuilder;

    use super::*;

    fn batch(base_offset: i64, records: u32) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        (0..records).for_each(|_| builder.append(5, None, Some(b"value"), &[]).unwrap());
        let mut bytes = builder.build();
        bytes[..8].copy_from_slice(&base_offset.to_be_bytes());
        bytes
    }

    #[test]
    fn what_comes_next_is_known_from_headers() {
        let two = [batch(7, 3), batch(10, 2)].concat();
        assert_eq!(behind(8, &two), (12, true));
        assert_eq!(behind(8, &[]), (8, true));
        assert_eq!(behind(7, &two[..two.len() - 1]), (10, true), "the last is cut off");
        let mut torn = two.clone();
        // The second one's magic.
        torn[batch(7, 3).len() + 16] = 9;
        assert_eq!(behind(7, &torn), (10, false));
    }
}
