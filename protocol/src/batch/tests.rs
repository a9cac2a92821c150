use super::*;
use crate::batch_builder::BatchBuilder;

fn sample() -> Vec<u8> {
    let mut builder = BatchBuilder::new().position(41, 7).producer(1000, 3, i32::MAX);
    builder.append(1_700_000_000_000, Some(b"k"), Some(b"v"), &[]).unwrap();
    builder.append(1_700_000_000_500, None, None, &[(b"h", None)]).unwrap();
    builder.append(1_700_000_000_200, Some(b""), Some(b""), &[]).unwrap();
    builder.build()
}

fn with(mut bytes: Vec<u8>, at: usize, field: &[u8]) -> Vec<u8> {
    bytes[at..at + field.len()].copy_from_slice(field);
    bytes
}

#[test]
fn every_field_is_where_it_should_be() {
    let bytes = sample();
    let (batch, rest) = Batch::parse(&bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!((batch.base_offset(), batch.last_offset(), batch.next_offset()), (41, 43, 44));
    assert_eq!(batch.batch_bytes(), bytes.len());
    assert_eq!(usize::try_from(batch.batch_length()).unwrap(), bytes.len() - 12);
    assert_eq!((batch.leader_epoch(), batch.magic(), batch.record_count()), (7, 2, 3));
    assert_eq!((batch.producer_id(), batch.producer_epoch()), (1000, 3));
    assert_eq!((batch.base_sequence(), batch.last_sequence()), (i32::MAX, 1));
    assert_eq!(batch.base_timestamp(), 1_700_000_000_000);
    assert_eq!(batch.max_timestamp(), 1_700_000_000_500);
    assert_eq!(
        (batch.codec(), batch.timestamp_type()),
        (Ok(Codec::None), TimestampType::CreateTime)
    );
    assert!(!batch.is_transactional() && !batch.is_control() && batch.has_producer_id());
    assert_eq!(batch.delete_horizon_ms(), None);
    assert_eq!(batch.check_crc(), Ok(()));
    assert_eq!(batch.check_producer_rules(), Ok(()));
    assert_eq!(batch.payload(), &bytes[61..]);
}

#[test]
fn a_batch_cut_off_anywhere_is_incomplete() {
    let bytes = sample();
    for length in 0..bytes.len() {
        match Batch::parse(&bytes[..length]) {
            Err(BatchError::Incomplete { needed, available }) => {
                assert_eq!(available, length);
                assert!(needed > length && needed <= bytes.len(), "{length}: {needed}");
                assert!(length < 17 || needed == bytes.len());
            }
            other => panic!("{length}: {other:?}"),
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_under_the_crc_is_found() {
    let bytes = sample();
    for index in 17..bytes.len() {
        let mut broken = bytes.clone();
        broken[index] ^= 0x10;
        let (batch, _) = Batch::parse(&broken).unwrap();
        assert!(matches!(batch.check_crc(), Err(BatchError::Crc { .. })), "byte {index}");
    }
}

#[test]
fn lengths_and_magics_that_cannot_be() {
    for length in [i32::MIN, -1, 0, 13] {
        let bytes = with(sample(), 8, &length.to_be_bytes());
        assert_eq!(Batch::parse(&bytes).unwrap_err(), BatchError::Length(length));
        assert_eq!(Batch::parse(&bytes[..13]).unwrap_err(), BatchError::Length(length));
    }
    for length in [14, 48] {
        let bytes = with(sample(), 8, &i32::to_be_bytes(length));
        assert_eq!(Batch::parse(&bytes).unwrap_err(), BatchError::Length(length));
        let old = with(bytes, 16, &[1]);
        assert_eq!(Batch::parse(&old).unwrap_err(), BatchError::OldMagic(1));
    }
    let bytes = with(sample(), 8, &i32::MAX.to_be_bytes());
    assert!(matches!(Batch::parse(&bytes), Err(BatchError::Incomplete { .. })));
    for (magic, error) in [
        (0, BatchError::OldMagic(0)),
        (1, BatchError::OldMagic(1)),
        (3, BatchError::UnknownMagic(3)),
        (-1, BatchError::UnknownMagic(-1)),
    ] {
        let bytes = with(sample(), 16, &i8::to_be_bytes(magic));
        assert_eq!(Batch::parse(&bytes).unwrap_err(), error);
    }
}

#[test]
fn fields_at_their_extremes_do_not_panic() {
    let mut bytes = sample();
    bytes[0..8].copy_from_slice(&i64::MAX.to_be_bytes());
    bytes[21..61].fill(0x7f);
    let (batch, _) = Batch::parse(&bytes).unwrap();
    assert_eq!((batch.last_offset(), batch.next_offset()), (i64::MAX, i64::MAX));
    assert_eq!(batch.codec(), Err(7));
    assert!(batch.last_sequence() >= 0);
    bytes[21..61].fill(0x80);
    let (batch, _) = Batch::parse(&bytes).unwrap();
    let _ = (batch.last_offset(), batch.last_sequence(), batch.check_producer_rules());
}

#[test]
fn each_rule_for_producers_is_checked() {
    let rules = |bytes: Vec<u8>| Batch::parse(&bytes).unwrap().0.check_producer_rules();
    for count in [0, -1, i32::MIN] {
        let bytes = with(sample(), 57, &i32::to_be_bytes(count));
        assert_eq!(rules(bytes), Err(ProducerRuleError::RecordCount(count)));
    }
    for delta in [-1, 1, 3, i32::MIN, i32::MAX] {
        let bytes = with(sample(), 23, &i32::to_be_bytes(delta));
        let error = ProducerRuleError::OffsetRange { last_offset_delta: delta, record_count: 3 };
        assert_eq!(rules(bytes), Err(error));
    }
    let bytes = with(sample(), 53, &i32::to_be_bytes(-1));
    let error = ProducerRuleError::Sequence { producer_id: 1000, base_sequence: -1 };
    assert_eq!(rules(bytes), Err(error));
    assert_eq!(rules(with(sample(), 21, &[0, 0x20])), Err(ProducerRuleError::Control));
    assert_eq!(rules(with(sample(), 21, &[0, 0x08])), Err(ProducerRuleError::LogAppendTime));
    assert_eq!(rules(with(sample(), 21, &[0, 0x05])), Err(ProducerRuleError::Codec(5)));
}

#[test]
fn a_stamp_changes_offset_and_epoch_and_leaves_the_crc_right() {
    let bytes = sample();
    let (batch, _) = Batch::parse(&bytes).unwrap();
    let mut stamped = batch.stamp(1 << 40, 99).to_vec();
    stamped.extend_from_slice(&batch.bytes()[STAMP_BYTES..]);
    let (stamped, _) = Batch::parse(&stamped).unwrap();
    assert_eq!((stamped.base_offset(), stamped.leader_epoch()), (1 << 40, 99));
    assert_eq!(stamped.check_crc(), Ok(()));
    assert_eq!(stamped.payload(), batch.payload());
}

#[test]
fn log_append_time_is_set_under_a_new_crc() {
    let bytes = sample();
    let (batch, _) = Batch::parse(&bytes).unwrap();
    let mut changed = batch.header_with_timestamps(TimestampType::LogAppendTime, 5).to_vec();
    changed.extend_from_slice(batch.payload());
    let (changed, _) = Batch::parse(&changed).unwrap();
    assert_eq!(changed.check_crc(), Ok(()));
    assert_eq!(changed.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((changed.max_timestamp(), changed.base_timestamp()), (5, batch.base_timestamp()));
    assert_eq!(changed.producer_id(), 1000);
    // And back again: the very same bytes.
    let back = changed.header_with_timestamps(TimestampType::CreateTime, batch.max_timestamp());
    assert_eq!(back, bytes[..HEADER_BYTES]);
}

#[test]
fn records_in_another_codecs_form_make_a_batch_that_is_right() {
    let bytes = sample();
    let (batch, _) = Batch::parse(&bytes).unwrap();
    let mut payload = Vec::new();
    crate::compression::compress(Codec::Zstd, None, batch.payload(), &mut payload).unwrap();
    let changed = batch.with_payload(Codec::Zstd, TimestampType::LogAppendTime, 9, &payload);
    let (changed, rest) = Batch::parse(&changed).unwrap();
    assert!(rest.is_empty());
    assert_eq!((changed.check_crc(), changed.codec()), (Ok(()), Ok(Codec::Zstd)));
    assert_eq!(
        (changed.max_timestamp(), changed.timestamp_type()),
        (9, TimestampType::LogAppendTime)
    );
    assert_eq!((changed.payload(), changed.record_count()), (&payload[..], 3));
    // And back again: the very same bytes.
    let (time, max) = (TimestampType::CreateTime, batch.max_timestamp());
    assert_eq!(changed.with_payload(Codec::None, time, max, batch.payload()), bytes);
}

#[test]
fn a_walk_ends_behind_the_last_complete_batch() {
    let one = sample();
    let all = one.repeat(3);
    for length in 0..=all.len() {
        let mut batches = walk(&all[..length]);
        assert_eq!(batches.by_ref().filter(Result::is_ok).count(), length / one.len());
        assert_eq!(batches.position(), length / one.len() * one.len());
        assert_eq!(batches.rest().len(), length % one.len());
    }
}

#[test]
fn a_walk_ends_with_the_first_error() {
    let one = sample();
    let mut all = one.repeat(3);
    all[one.len() + 16] = 9;
    let mut batches = walk(&all);
    assert!(batches.next().unwrap().is_ok());
    assert_eq!(batches.next().unwrap().unwrap_err(), BatchError::UnknownMagic(9));
    assert!(batches.next().is_none());
    assert_eq!(batches.position(), one.len());
    // The zeros that space is allocated ahead with are no batch, and no end either.
    let zeros = [0; 100];
    assert_eq!(walk(&zeros).next().unwrap().unwrap_err(), BatchError::Length(0));
}

#[test]
fn sequences_wrap_as_kafkas_do() {
    assert_eq!(add_to_sequence(i32::MAX, 1), 0);
    assert_eq!(add_to_sequence(i32::MAX - 1, 5), 3);
    assert_eq!(add_to_sequence(0, 0), 0);
    assert_eq!(add_to_sequence(0, -1), i32::MAX);
    assert!(add_to_sequence(i32::MIN, i32::MIN) >= 0);
}
