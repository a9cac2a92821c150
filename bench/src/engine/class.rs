//! What producers of a class have in common, made once for all of them.

use std::sync::Arc;

use bytes::Bytes;
use vltava_client::partitioner::murmur2;
use vltava_protocol::compression::Codec as WireCodec;

use crate::engine::map::Map;
use crate::engine::payload::Pool;
use crate::scenario::{Codec, Producers};

/// A class of producers.
#[derive(Debug)]
pub struct Class {
    /// Which of the run's it is.
    pub number: usize,
    /// What it is like.
    pub spec: Producers,
    /// How its batches are compressed.
    pub codec: WireCodec,
    /// What its values are made of.
    pub pool: Arc<Pool>,
    /// Its keys, and the partition that each leads to.
    pub keys: Vec<(Bytes, u32)>,
}

impl Class {
    /// Of producers that write to these partitions. Another seed: other bytes.
    pub fn new(number: usize, spec: &Producers, map: &Map, seed: u64) -> Self {
        let codec = wire_codec(spec.codec);
        let is_compressed = codec != WireCodec::None;
        Self {
            number,
            spec: spec.clone(),
            codec,
            pool: Arc::new(Pool::new(&spec.record_bytes, spec.entropy, is_compressed, seed)),
            keys: keys(spec.keys, map),
        }
    }
}

fn wire_codec(codec: Codec) -> WireCodec {
    match codec {
        Codec::None => WireCodec::None,
        Codec::Gzip => WireCodec::Gzip,
        Codec::Snappy => WireCodec::Snappy,
        Codec::Lz4 => WireCodec::Lz4,
        Codec::Zstd => WireCodec::Zstd,
    }
}

/// As many keys, each with the partition that Kafka's clients send it to; over all topics in turn.
fn keys(count: u32, map: &Map) -> Vec<(Bytes, u32)> {
    let topics = map.topics.iter().cycle();
    let keys = (0..count).zip(topics).map(|(number, topic)| {
        let key = Bytes::from(format!("key-{number:09}"));
        let hash = murmur2(&key) & 0x7fff_ffff;
        let partition = topic.first + hash % topic.partitions.max(1);
        (key, partition)
    });
    keys.collect()
}
