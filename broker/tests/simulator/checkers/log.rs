//! What is served once is served always, byte for byte: after restarts, from memory or from files.

use std::collections::BTreeMap;

use vltava_protocol::batch::HEADER_BYTES;

use super::Partition;
use crate::promise;

/// Hashes of all batches that were served, by partition and base offset.
#[derive(Default)]
pub struct ServedLog {
    batches: BTreeMap<Partition, BTreeMap<i64, (u64, i64)>>,
}

impl ServedLog {
    /// A batch was served, its CRC checked; `next_offset` is the one behind it.
    pub fn check_served(
        &mut self,
        partition: &Partition,
        base_offset: i64,
        next_offset: i64,
        bytes: &[u8],
    ) {
        let batches = self.batches.entry(partition.clone()).or_default();
        // The header holds the CRC of all that follows.
        let hash = hash(&bytes[..HEADER_BYTES.min(bytes.len())]);
        let before = batches.range(..next_offset).next_back();
        let Some((&known_base, &(known_hash, known_next))) = before else {
            batches.insert(base_offset, (hash, next_offset));
            return;
        };
        if known_next <= base_offset {
            batches.insert(base_offset, (hash, next_offset));
            return;
        }
        promise!(
            (known_base, known_hash, known_next) == (base_offset, hash, next_offset),
            "{partition:?}: the batch {base_offset}..{next_offset} (hash {hash:x}) was served as \
             {known_base}..{known_next} (hash {known_hash:x}) before"
        );
    }
}

/// FNV-1a.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
