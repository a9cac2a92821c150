use super::*;

fn batch(id: i64, epoch: i16, base_sequence: i32, count: i32) -> ProducerBatch {
    ProducerBatch {
        producer_id: id,
        producer_epoch: epoch,
        base_sequence,
        last_offset_delta: count - 1,
        timestamp: 1000,
        is_transactional: false,
        is_control: false,
    }
}

fn noted(batches: &[ProducerBatch]) -> (ProducerStates, i64) {
    let mut states = ProducerStates::default();
    let mut offset = 0;
    for batch in batches {
        assert_eq!(states.check(batch), SequenceCheck::Append, "{batch:?}");
        states.note(batch, offset, 100);
        offset += i64::from(batch.last_offset_delta) + 1;
    }
    (states, offset)
}

#[test]
fn the_last_five_batches_are_known_and_no_more() {
    let batches: Vec<_> = (0..7).map(|n| batch(1, 0, n * 2, 2)).collect();
    let (states, _) = noted(&batches);
    for (n, batch) in (0..).zip(&batches) {
        let expected = if n < 2 {
            SequenceCheck::OutOfOrder
        } else {
            SequenceCheck::Duplicate { base_offset: n * 2, last_offset: n * 2 + 1 }
        };
        assert_eq!(states.check(batch), expected, "{n}");
    }
    // The same start, but another end: not the same batch.
    assert_eq!(states.check(&batch(1, 0, 12, 1)), SequenceCheck::OutOfOrder);
    assert_eq!(states.check(&batch(1, 0, 14, 1)), SequenceCheck::Append);
    assert_eq!(states.check(&batch(1, 0, 15, 1)), SequenceCheck::OutOfOrder);
}

#[test]
fn epochs_are_fenced_and_begin_at_zero() {
    let (states, _) = noted(&[batch(1, 3, 0, 5)]);
    assert_eq!(states.check(&batch(1, 2, 5, 1)), SequenceCheck::InvalidEpoch);
    assert_eq!(states.check(&batch(1, 4, 5, 1)), SequenceCheck::OutOfOrder);
    assert_eq!(states.check(&batch(1, 4, 0, 1)), SequenceCheck::Append);
    // An unknown id may go on anywhere.
    assert_eq!(states.check(&batch(2, 4, 77, 1)), SequenceCheck::Append);
    let (states, _) = noted(&[batch(1, 3, 0, 5), batch(1, 4, 0, 5)]);
    assert_eq!(
        states.check(&batch(1, 4, 0, 5)),
        SequenceCheck::Duplicate { base_offset: 5, last_offset: 9 }
    );
}

#[test]
fn sequences_wrap_to_zero() {
    let (states, _) = noted(&[batch(1, 0, i32::MAX - 1, 2), batch(1, 0, 0, 1)]);
    assert_eq!(states.get(1).unwrap().last_sequence(), 0);
    let (states, _) = noted(&[batch(1, 0, i32::MAX - 1, 4)]);
    assert_eq!(states.get(1).unwrap().last_sequence(), 1);
    assert!(matches!(states.check(&batch(1, 0, i32::MAX - 1, 4)), SequenceCheck::Duplicate { .. }));
    assert_eq!(states.check(&batch(1, 0, 2, 1)), SequenceCheck::Append);
}

#[test]
fn a_marker_ends_the_transaction_and_may_raise_the_epoch() {
    let data = ProducerBatch { is_transactional: true, ..batch(1, 0, 0, 3) };
    let marker = ProducerBatch { is_control: true, is_transactional: true, ..batch(1, 1, -1, 1) };
    let mut states = ProducerStates::default();
    states.note(&data, 10, 100);
    assert_eq!(states.first_open_transaction(), Some(10));
    assert_eq!(states.expire(i64::MAX, 1), 0, "an open transaction stays");
    states.note(&marker, 13, 100);
    assert_eq!(states.first_open_transaction(), None);
    assert_eq!(states.get(1).unwrap().last_sequence(), NO_SEQUENCE);
    assert_eq!(states.check(&batch(1, 1, 3, 1)), SequenceCheck::OutOfOrder);
    assert_eq!(states.check(&batch(1, 1, 0, 1)), SequenceCheck::Append);
}

#[test]
fn what_was_noted_can_be_taken_back() {
    let (before, offset) = noted(&[batch(1, 0, 0, 1), batch(2, 0, 0, 1), batch(1, 0, 1, 1)]);
    let mut states = before.clone();
    let undos = vec![
        states.note(&batch(1, 0, 2, 1), offset, 2),
        states.note(&batch(3, 0, 0, 1), offset + 1, 2),
        states.note(&batch(2, 1, 0, 1), offset + 2, 2),
    ];
    assert!(states.get(1).is_none() || states.get(2).is_none());
    for undo in undos.into_iter().rev() {
        states.undo(undo);
    }
    assert_eq!(states, before);
}

#[test]
fn memory_is_bounded_and_the_oldest_goes_first() {
    let mut states = ProducerStates::default();
    for id in 0..100_000 {
        states.note(&batch(id, 0, 0, 1), id, 1000);
    }
    assert_eq!(states.len(), 1000);
    assert_eq!(states.by_age.len(), 1000);
    assert!(states.get(98_999).is_none() && states.get(99_000).is_some());
    assert_eq!(states.expire(2000, 1000), 1000);
    assert_eq!((states.len(), states.by_age.len()), (0, 0));
    assert!(size_of::<ProducerEntry>() <= 200);
}

#[test]
fn a_snapshot_holds_everything_and_damage_is_seen() {
    let mut batches: Vec<_> = (0..7).map(|n| batch(1, 0, n * 2, 2)).collect();
    batches.push(ProducerBatch { is_transactional: true, ..batch(9, 2, 0, 4) });
    let (states, _) = noted(&batches);
    let mut bytes = states.to_snapshot();
    assert_eq!(bytes.len(), states.snapshot_bytes());
    assert_eq!(ProducerStates::from_snapshot(&bytes), Some(states.clone()));
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(ProducerStates::from_snapshot(&bytes), None, "bit {bit}");
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    for len in 0..bytes.len() {
        assert_eq!(ProducerStates::from_snapshot(&bytes[..len]), None);
    }
    let empty = ProducerStates::default();
    assert_eq!(ProducerStates::from_snapshot(&empty.to_snapshot()), Some(empty));
}
