//! A consumer's connection to one broker: one fetch at a time, over the partitions that it reads
//! there. Without fetch sessions, as librdkafka does.

use vltava_client::error::ClientError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{FetchPartition, FetchRequest, FetchTopic, PartitionData};

use crate::engine::context::Context;
use crate::engine::link::{Link, Received};
use crate::engine::map::{Map, Node, index};
use crate::engine::poll::Token;
use crate::engine::reader::Reader;
use crate::scenario::Consumers;

/// An answer has so many bytes at most, as Java's `fetch.max.bytes`.
const ANSWER_BYTES_MAX: i32 = 50 << 20;
/// How long is waited after an error that may pass.
const RETRY_NS: u64 = 50_000_000;
/// So many such errors in a row are a fault.
const RETRIES_MAX: u32 = 100;

/// A connection, and what it reads.
#[derive(Debug)]
pub struct FetchLane {
    link: Link,
    token: Token,
    partitions: Vec<u32>,
    /// Where the next fetch begins, so that no partition is always first.
    first: usize,
    /// What was asked for: partitions, and from where. Empty: there is no fetch under way.
    asked: Vec<(u32, i64)>,
    retry_at_ns: u64,
    retries: u32,
}

impl FetchLane {
    /// Connects, waiting for that.
    ///
    /// # Errors
    /// Where the broker cannot be reached, or does not know what is needed.
    pub fn open(node: &Node, token: Token, context: &Context) -> Result<Self, ClientError> {
        let link = Link::open(&node.address, &"vltava-bench-consumer".into())?;
        link.version::<FetchRequest>()?;
        context.add(&link, token)?;
        Ok(Self {
            link,
            token,
            partitions: Vec::new(),
            first: 0,
            asked: Vec::new(),
            retry_at_ns: 0,
            retries: 0,
        })
    }

    /// Reads these from now on, in ascending order, and no others.
    pub fn assign(&mut self, partitions: Vec<u32>) {
        self.partitions = partitions;
        self.first = 0;
    }

    /// Asks, unless it has asked, for what comes at these positions (by partition). When to be
    /// called again though no answer comes.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn ask(
        &mut self,
        class: &Consumers,
        positions: &[i64],
        context: &mut Context,
    ) -> Result<u64, ClientError> {
        if !self.asked.is_empty() || self.partitions.is_empty() {
            if !self.link.is_flushed() {
                context.flush(&mut self.link, self.token)?;
            }
            return Ok(u64::MAX);
        }
        if context.now_ns < self.retry_at_ns {
            return Ok(self.retry_at_ns);
        }
        let request = self.request(class, positions, &context.map);
        let version = self.link.version::<FetchRequest>()?;
        self.link.send(&request, version)?;
        context.flush(&mut self.link, self.token)?;
        Ok(u64::MAX)
    }

    /// Reads answers, and the records in them. How many bytes of batches have come.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn receive(
        &mut self,
        positions: &mut [i64],
        reader: &mut Reader,
        context: &mut Context,
    ) -> Result<u64, ClientError> {
        let read = context.receive(&mut self.link);
        context.tick();
        let mut bytes = 0;
        while let Some(Received { answer, frame }) = context.received.pop_front() {
            let asked = std::mem::take(&mut self.asked);
            let response = answer.decode::<FetchRequest>()?;
            ClientError::check(response.error_code, None, "fetching")?;
            for topic in response.responses {
                for data in topic.partitions {
                    let partition =
                        context.map.find(&topic.topic, topic.topic_id, data.partition_index);
                    let offset = asked.iter().find(|(asked, _)| Some(*asked) == partition);
                    // What was given to another member meanwhile is not this one's any more.
                    if let Some((partition, offset)) = offset.copied()
                        && positions.get(index(partition)) == Some(&offset)
                    {
                        bytes += self.take(partition, offset, data, positions, reader, context);
                    }
                }
            }
            context.buffers.give_back(frame);
        }
        read?;
        Ok(bytes)
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
        positions[index(partition)] = next_offset;
        bytes.len() as u64
    }

    fn request(&mut self, class: &Consumers, positions: &[i64], map: &Map) -> FetchRequest {
        let mut request = FetchRequest {
            max_wait_ms: signed(class.max_wait_ms),
            min_bytes: signed(class.min_bytes),
            max_bytes: ANSWER_BYTES_MAX,
            ..FetchRequest::default()
        };
        let (behind, before) = self.partitions.split_at(self.first);
        for partition in before.iter().chain(behind) {
            let position = positions.get(index(*partition));
            let (Some(place), Some(topic), Some(offset)) =
                (map.place(*partition), map.topic_of(*partition), position)
            else {
                continue;
            };
            let fetch = FetchPartition {
                partition: place.partition,
                current_leader_epoch: place.leader_epoch,
                fetch_offset: *offset,
                partition_max_bytes: signed(class.partition_bytes),
                ..FetchPartition::default()
            };
            self.asked.push((*partition, *offset));
            match request.topics.last_mut().filter(|last| last.topic == topic.name) {
                Some(last) => last.partitions.push(fetch),
                None => request.topics.push(FetchTopic {
                    topic: topic.name.clone(),
                    topic_id: topic.id,
                    partitions: vec![fetch],
                }),
            }
        }
        self.first = (self.first + 1) % self.partitions.len().max(1);
        request
    }
}

fn signed(number: u32) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}
