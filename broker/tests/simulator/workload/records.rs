//! Records that name themselves, and can be checked on their own.

use bytes::Bytes;
use vltava::runtime::sim::Random;
use vltava_protocol::batch::{self, Batch, HEADER_BYTES};
use vltava_protocol::batch_builder::BatchBuilder;
use vltava_protocol::compression::{Codec, Compressor, decompress};
use vltava_protocol::record::records;

use crate::checkers::{Checkers, Partition, RecordId, violation};
use crate::promise;
use crate::swarm::Swarm;

/// The most that a batch of this run unpacks to, in bytes.
const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of a value, beside its id, that make a batch of one record fill one block: what is left
/// are the batch's header and the record's own fields.
const BLOCK_FILLER_BYTES: usize = 4096 - HEADER_BYTES - 9 - 8;

/// Zstd last: not all versions know it.
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// The value of a record: its id, then bytes that follow from it.
fn value(id: RecordId, len: usize) -> Vec<u8> {
    let mut value = id.0.to_be_bytes().to_vec();
    value.extend(filler(id).flatten().take(len));
    value
}

/// What follows the id in a value, in pieces.
fn filler(id: RecordId) -> impl Iterator<Item = [u8; 8]> {
    (0u64..).map(move |piece| (id.0 ^ piece).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes())
}

/// A batch of records with these ids; each value has some bytes beside its id.
pub fn build(
    random: &mut Random,
    (producer_id, producer_epoch, sequence): (i64, i16, i32),
    ids: &[RecordId],
    swarm: &Swarm,
    now_ms: i64,
) -> Bytes {
    let mut builder = BatchBuilder::new().producer(producer_id, producer_epoch, sequence);
    for &id in ids {
        let len = match swarm.whole_blocks {
            true => BLOCK_FILLER_BYTES,
            false => usize::try_from(random.mostly_small(0..=swarm.record_bytes_max)).unwrap_or(0),
        };
        let appended = builder.append(now_ms, None, Some(&value(id, len)), &[]);
        assert!(appended.is_ok(), "{appended:?}");
    }
    let codec = match !swarm.whole_blocks && random.chance(300_000) {
        true => *random.pick(&CODECS[..CODECS.len() - usize::from(!swarm.zstd)]),
        false => Codec::None,
    };
    let built = Compressor::new(codec, None).map_err(|error| error.to_string()).and_then(
        |mut compressor| {
            let built = builder.build_compressed(&mut compressor);
            built.map_err(|error| error.to_string())
        },
    );
    match built {
        Ok(bytes) => bytes.into(),
        Err(error) => panic!("{codec:?}: {error}"),
    }
}

/// What a fetch gave.
pub struct Taken {
    /// The records at and above where was asked for.
    pub records: Vec<(i64, RecordId)>,
    /// Where to read next.
    pub next: i64,
    /// There is a batch that is not what was written: clients know it by its CRC.
    pub is_damaged: bool,
}

/// Takes in what a fetch at `position` gave, batch by batch. What is damaged, and what is behind
/// it, is not taken; it may come only where something has rotted.
pub fn take_in(
    checkers: &Checkers,
    partition: &Partition,
    position: i64,
    high_watermark: i64,
    may_be_damaged: bool,
    bytes: &[u8],
) -> Taken {
    let mut taken = Taken { records: Vec::new(), next: position, is_damaged: false };
    for batch in batch::walk(bytes) {
        let next = taken.next;
        let batch = batch.map_err(|error| error.to_string());
        let proved = batch.and_then(|batch| match batch.check_crc() {
            Ok(()) => Ok(batch),
            Err(error) => Err(error.to_string()),
        });
        let batch = match proved {
            Ok(batch) => batch,
            Err(_) if may_be_damaged => return Taken { is_damaged: true, ..taken },
            Err(error) => violation(format!("{partition:?}@{next}: served {error}")),
        };
        let range = (batch.base_offset(), batch.next_offset());
        if may_be_damaged && !(range.0..range.1).contains(&next) {
            // The offset is not under the CRC, but none is left out.
            return Taken { is_damaged: true, ..taken };
        }
        let offsets = checkers.offsets.borrow();
        offsets.check_batch(partition, next, range, high_watermark);
        let mut log = checkers.log.borrow_mut();
        log.check_served(partition, range.0, range.1, batch.bytes());
        let acks = checkers.acks.borrow();
        for (offset, id) in unpack(partition, &batch) {
            acks.check_seen(partition, offset, id);
            if offset >= position {
                taken.records.push((offset, id));
            }
        }
        taken.next = range.1;
    }
    taken
}

/// The ids of a batch's records, each with its offset.
pub fn unpack(partition: &Partition, batch: &Batch<'_>) -> Vec<(i64, RecordId)> {
    let at = batch.base_offset();
    let codec = match batch.codec() {
        Ok(codec) => codec,
        Err(codec) => violation(format!("{partition:?}@{at}: codec {codec}")),
    };
    let payload = match decompress(codec, batch.payload(), PAYLOAD_BYTES_MAX) {
        Ok(payload) => payload,
        Err(error) => violation(format!("{partition:?}@{at}: {error}")),
    };
    let mut ids = Vec::new();
    for record in records(&payload, batch.record_count()) {
        let record = match record {
            Ok(record) => record,
            Err(error) => violation(format!("{partition:?}@{at}: {error}")),
        };
        let offset = at + i64::from(record.offset_delta);
        let value = record.value.unwrap_or_default();
        let Some((id, rest)) = value.split_first_chunk::<8>() else {
            violation(format!("{partition:?}@{offset}: a record of {} bytes", value.len()))
        };
        let id = RecordId(u64::from_be_bytes(*id));
        let mut pieces = rest.chunks(8).zip(filler(id));
        let whole = pieces.all(|(found, written)| *found == written[..found.len()]);
        promise!(whole, "{partition:?}@{offset}: {id:?} is not what was written");
        ids.push((offset, id));
    }
    ids
}
