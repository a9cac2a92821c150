//! Positions in partitions, and the fetches that move them. Without fetch sessions.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};

use crate::backoff::Backoff;
use crate::metadata::{Metadata, NodeId, TopicPartition};
use crate::records::next_offset;

/// How records are fetched.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// How long a broker may wait for `min_bytes`, in milliseconds.
    pub max_wait_ms: i32,
    /// What an answer should have at least.
    pub min_bytes: i32,
    /// What an answer should have at most; one batch is sent even if it is larger.
    pub max_bytes: i32,
    /// The same for one partition.
    pub partition_max_bytes: i32,
}

impl Default for FetchOptions {
    fn default() -> Self {
        Self { max_wait_ms: 500, min_bytes: 1, max_bytes: 50 << 20, partition_max_bytes: 1 << 20 }
    }
}

/// What a fetch brought for one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fetched {
    /// Batches; the position has moved behind the last complete one.
    Batches {
        /// Of which partition.
        partition: TopicPartition,
        /// Where the fetch began: earlier records of the first batch have been seen.
        from_offset: i64,
        /// The first offset that is not committed: where the partition ends for now.
        high_watermark: i64,
        /// To be read with [`crate::records::for_each_record`].
        bytes: Bytes,
    },
    /// The position is not in the log any more, or not yet. It is not fetched until it is set
    /// again.
    OutOfRange {
        /// Which partition.
        partition: TopicPartition,
        /// Where it stood.
        offset: i64,
    },
    /// The broker will not let it be fetched.
    Refused {
        /// Which partition.
        partition: TopicPartition,
        /// Why.
        code: ErrorCode,
    },
}

#[derive(Clone, Debug)]
struct Position {
    offset: i64,
    /// Nothing to fetch until it is set again.
    is_lost: bool,
    next_attempt_ms: u64,
    backoff: Backoff,
}

/// The positions of a consumer.
#[derive(Debug, Default)]
pub struct Fetcher {
    options: FetchOptions,
    positions: BTreeMap<TopicPartition, Position>,
    /// Brokers that have not answered a fetch.
    in_flight: BTreeSet<NodeId>,
    wants_metadata: bool,
}

impl Fetcher {
    /// One that fetches nothing yet.
    pub fn new(options: FetchOptions) -> Self {
        Self { options, ..Self::default() }
    }

    /// Fetches a partition from this offset on.
    pub fn set_position(&mut self, partition: TopicPartition, offset: i64) {
        let position =
            Position { offset, is_lost: false, next_attempt_ms: 0, backoff: Backoff::new() };
        self.positions.insert(partition, position);
    }

    /// Where a partition is fetched next.
    pub fn position(&self, partition: &TopicPartition) -> Option<i64> {
        self.positions.get(partition).map(|position| position.offset)
    }

    /// All positions.
    pub fn positions(&self) -> impl Iterator<Item = (&TopicPartition, i64)> {
        self.positions.iter().map(|(partition, position)| (partition, position.offset))
    }

    /// Fetches this partition no more.
    pub fn remove(&mut self, partition: &TopicPartition) {
        self.positions.remove(partition);
    }

    /// Fetches nothing any more.
    pub fn clear(&mut self) {
        self.positions.clear();
    }

    /// Whether a leader was not known or not the leader, since this was last asked.
    pub fn take_wants_metadata(&mut self) -> bool {
        std::mem::take(&mut self.wants_metadata)
    }

    /// One request for each leader that is not busy with one.
    pub fn take_requests(
        &mut self,
        now_ms: u64,
        metadata: &Metadata,
    ) -> BTreeMap<NodeId, FetchRequest> {
        let mut requests: BTreeMap<NodeId, FetchRequest> = BTreeMap::new();
        for (partition, position) in &mut self.positions {
            if position.is_lost || now_ms < position.next_attempt_ms {
                continue;
            }
            let Some((leader, leader_epoch)) = metadata.leader(partition) else {
                self.wants_metadata = true;
                position.next_attempt_ms = now_ms + position.backoff.next_ms();
                continue;
            };
            if self.in_flight.contains(&leader) {
                continue;
            }
            let request = requests.entry(leader).or_insert_with(|| self.options.request());
            let fetch = FetchPartition {
                partition: partition.partition,
                current_leader_epoch: leader_epoch,
                fetch_offset: position.offset,
                partition_max_bytes: self.options.partition_max_bytes,
                ..FetchPartition::default()
            };
            match request.topics.last_mut() {
                Some(topic) if topic.topic == partition.topic => topic.partitions.push(fetch),
                _ => request.topics.push(FetchTopic {
                    topic: partition.topic.clone(),
                    topic_id: metadata.topic_id(&partition.topic),
                    partitions: vec![fetch],
                }),
            }
        }
        self.in_flight.extend(requests.keys());
        requests
    }

    /// When a partition that failed is to be tried again.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        let waiting = self.positions.values().filter(|position| !position.is_lost);
        waiting.map(|position| position.next_attempt_ms).min()
    }

    /// Takes in an answer; what it brought for each partition, in the broker's order.
    pub fn on_response(
        &mut self,
        now_ms: u64,
        node: NodeId,
        response: FetchResponse,
        metadata: &Metadata,
    ) -> Vec<Fetched> {
        self.in_flight.remove(&node);
        if !response.error_code.is_none() {
            self.wants_metadata = true;
            self.postpone_all(now_ms, node, metadata);
            return Vec::new();
        }
        let mut fetched = Vec::new();
        for topic in response.responses {
            let Some(name) = metadata.name_of(&topic.topic, topic.topic_id) else {
                continue;
            };
            for data in topic.partitions {
                let partition =
                    TopicPartition { topic: name.clone(), partition: data.partition_index };
                fetched.extend(self.on_partition(now_ms, partition, data));
            }
        }
        fetched
    }

    /// The connection to a broker is gone.
    pub fn on_disconnect(&mut self, now_ms: u64, node: NodeId, metadata: &Metadata) {
        if self.in_flight.remove(&node) {
            self.wants_metadata = true;
            self.postpone_all(now_ms, node, metadata);
        }
    }

    fn postpone_all(&mut self, now_ms: u64, node: NodeId, metadata: &Metadata) {
        for (partition, position) in &mut self.positions {
            if metadata.leader(partition).is_some_and(|(leader, _)| leader == node) {
                position.next_attempt_ms = now_ms + position.backoff.next_ms();
            }
        }
    }

    fn on_partition(
        &mut self,
        now_ms: u64,
        partition: TopicPartition,
        data: PartitionData,
    ) -> Option<Fetched> {
        let position = self.positions.get_mut(&partition)?;
        let code = data.error_code;
        if code == ErrorCode::OFFSET_OUT_OF_RANGE {
            position.is_lost = true;
            let offset = position.offset;
            return Some(Fetched::OutOfRange { partition, offset });
        }
        if !code.is_none() {
            position.next_attempt_ms = now_ms + position.backoff.next_ms();
            self.wants_metadata |= code.invalidates_metadata();
            return (!code.is_retriable()).then_some(Fetched::Refused { partition, code });
        }
        position.backoff.reset();
        position.next_attempt_ms = 0;
        let from_offset = position.offset;
        let bytes = data.records.and_then(|records| records.to_bytes()).unwrap_or_default();
        if let Some(next) = next_offset(&bytes) {
            position.offset = next.max(from_offset);
        }
        Some(Fetched::Batches {
            partition,
            from_offset,
            high_watermark: data.high_watermark,
            bytes,
        })
    }
}

impl FetchOptions {
    fn request(&self) -> FetchRequest {
        FetchRequest {
            max_wait_ms: self.max_wait_ms,
            min_bytes: self.min_bytes,
            max_bytes: self.max_bytes,
            ..FetchRequest::default()
        }
    }
}

#[cfg(test)]
mod tests;
