//! Reading a log of the broker's own records: what is replayed decides what the node does, so each
//! batch is proved first.

use bytes::Bytes;
use vltava_protocol::batch::{self, Batch, BatchError};

/// Bytes that are not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// A batch is none, or its checksum is wrong.
    #[error("offset {offset}: {error}")]
    Batch {
        /// The first offset that cannot be proved.
        offset: i64,
        /// What is wrong.
        error: BatchError,
    },
    /// A batch does not continue the one before it.
    #[error("offset {expected} is missing: a batch begins at {found}")]
    Gap {
        /// Where it should begin.
        expected: i64,
        /// Where it says it does.
        found: i64,
    },
}

/// The batches in `bytes` that hold `from` and what follows, each with its checksum right and
/// without a gap; ends after the first that is not.
pub fn proved(bytes: &Bytes, from: i64) -> impl Iterator<Item = Result<Batch<'_>, Damaged>> {
    let (mut expected, mut ended) = (from, false);
    batch::walk(bytes).filter_map(move |batch| {
        if ended {
            return None;
        }
        let proved = prove(batch, expected);
        match &proved {
            Ok(batch) if batch.next_offset() <= expected => return None,
            Ok(batch) => expected = batch.next_offset(),
            Err(_) => ended = true,
        }
        Some(proved)
    })
}

fn prove(batch: Result<Batch<'_>, BatchError>, expected: i64) -> Result<Batch<'_>, Damaged> {
    let wrong = |error| Damaged::Batch { offset: expected, error };
    let batch = batch.map_err(wrong)?;
    // The base offset stands outside of the checksum.
    if batch.base_offset() > expected {
        return Err(Damaged::Gap { expected, found: batch.base_offset() });
    }
    batch.check_crc().map_err(wrong)?;
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use vltava_protocol::batch_builder::BatchBuilder;

    use super::*;

    /// Three batches of two records each, and where the second begins.
    fn three() -> (Vec<u8>, usize) {
        let mut bytes = Vec::new();
        let mut second = 0;
        for base in [0i64, 2, 4] {
            let mut builder = BatchBuilder::new();
            for value in [b"first", b"other"] {
                builder.append(7, Some(b"key"), Some(value), &[]).unwrap();
            }
            let mut batch = builder.build();
            batch[..8].copy_from_slice(&base.to_be_bytes());
            second = if base == 0 { batch.len() } else { second };
            bytes.extend(batch);
        }
        (bytes, second)
    }

    fn bases(bytes: Vec<u8>, from: i64) -> Result<Vec<i64>, Damaged> {
        let bytes = Bytes::from(bytes);
        proved(&bytes, from).map(|batch| Ok(batch?.base_offset())).collect()
    }

    #[test]
    fn what_was_written_is_proved_from_any_offset() {
        let (bytes, second) = three();
        assert_eq!(bases(bytes.clone(), 0), Ok(vec![0, 2, 4]));
        assert_eq!(bases(bytes.clone(), 3), Ok(vec![2, 4]));
        assert_eq!(bases(bytes[second..].to_vec(), 3), Ok(vec![2, 4]));
    }

    #[test]
    fn a_flipped_bit_is_seen_wherever_it_changes_what_is_replayed() {
        let (bytes, second) = three();
        // Of the second batch: the leader epoch stands outside of the checksum, and says nothing
        // here.
        for at in (second..2 * second).filter(|at| !(12..16).contains(&(at - second))) {
            for bit in 0..8 {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << bit;
                let read = bases(bytes, 0);
                let whole = read.as_ref().is_ok_and(|bases| bases.len() == 3);
                assert!(!whole, "byte {}, bit {bit}: {read:?}", at - second);
            }
        }
    }
}
