use proptest::prelude::*;

use super::*;
use crate::batch::Batch;
use crate::batch_builder::BatchBuilder;

/// Three records: with everything; with nothing; empty, not null.
fn payload() -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let headers: [(&[u8], Option<&[u8]>); 3] = [(b"a", Some(b"1")), (b"", None), (b"a", Some(b""))];
    builder.append(1000, Some(b"key"), Some(&[7; 200]), &headers).unwrap();
    builder.append(900, None, None, &[]).unwrap();
    builder.append(5000, Some(b""), Some(b""), &[]).unwrap();
    Batch::parse(&builder.build()).unwrap().0.payload().to_vec()
}

fn fault_of(payload: &[u8], record_count: i32) -> (i32, RecordFault) {
    let error = validate_records(payload, 0, record_count, record_count - 1).unwrap_err();
    (error.index, error.fault)
}

/// One record whose body is this.
fn record(body: &[u8]) -> Vec<u8> {
    assert!(body.len() < 64, "a length of one byte");
    let mut bytes = vec![u8::try_from(body.len() * 2).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn records_come_out_as_they_went_in() {
    let payload = payload();
    let all: Vec<_> = records(&payload, 3).collect::<Result<_, _>>().unwrap();
    assert_eq!((all[0].key, all[0].value), (Some(&b"key"[..]), Some(&[7; 200][..])));
    assert_eq!(all[0].headers.len(), 3);
    let headers: Vec<_> = all[0].headers.collect();
    assert_eq!(headers[0], (&b"a"[..], Some(&b"1"[..])));
    assert_eq!(headers[1], (&b""[..], None));
    assert_eq!(headers[2], (&b"a"[..], Some(&b""[..])));
    assert_eq!((all[1].key, all[1].value, all[1].headers.is_empty()), (None, None, true));
    assert_eq!((all[2].key, all[2].value), (Some(&b""[..]), Some(&b""[..])));
    let deltas: Vec<_> = all.iter().map(|r| (r.offset_delta, r.timestamp_delta)).collect();
    assert_eq!(deltas, [(0, 0), (1, -100), (2, 4000)]);
}

#[test]
fn facts_are_those_of_the_records() {
    let facts = validate_records(&payload(), 1000, 3, 2).unwrap();
    let expected = Facts {
        max_timestamp: 5000,
        max_timestamp_offset_delta: 2,
        min_timestamp: Some(900),
        first_without_key: Some(1),
    };
    assert_eq!(facts, expected);
    // Records without a timestamp do not count.
    let mut builder = BatchBuilder::new();
    builder.append(-1, Some(b"k"), None, &[]).unwrap();
    let bytes = builder.build();
    let (batch, _) = Batch::parse(&bytes).unwrap();
    let facts = validate_records(batch.payload(), batch.base_timestamp(), 1, 0).unwrap();
    assert_eq!((facts.max_timestamp, facts.min_timestamp), (-1, None));
    assert_eq!(facts.first_without_key, None);
}

#[test]
fn a_payload_cut_off_anywhere_is_an_error() {
    let payload = payload();
    for length in 0..payload.len() {
        assert!(validate_records(&payload[..length], 0, 3, 2).is_err(), "{length}");
        assert!(records(&payload[..length], 3).any(|r| r.is_err()), "{length}");
    }
}

#[test]
fn counts_that_lie_are_errors() {
    let payload = payload();
    assert!(matches!(fault_of(&payload, 2), (2, RecordFault::Trailing(_))));
    assert_eq!(fault_of(&payload, 4), (3, RecordFault::Missing { record_count: 4 }));
    assert_eq!(fault_of(&payload, i32::MAX), (3, RecordFault::Missing { record_count: i32::MAX }));
    for (record_count, last_offset_delta) in
        [(0, -1), (-1, -2), (3, 3), (3, 1), (i32::MIN, i32::MAX)]
    {
        let error = validate_records(&payload, 0, record_count, last_offset_delta).unwrap_err();
        assert_eq!(error.fault, RecordFault::Count { record_count, last_offset_delta });
    }
    // Iterating is total for any count, and ends after the error.
    let mut hostile = records(&payload, -5);
    assert!(hostile.next().unwrap().is_err());
    assert!(hostile.next().is_none());
}

#[test]
fn each_lie_in_a_record_has_its_own_name() {
    // attributes, timestamp delta, offset delta, key length, value length, header count
    assert!(validate_records(&record(&[0, 0, 0, 1, 1, 0]), 0, 1, 0).is_ok());
    let faults = [
        (record(&[0, 0, 2, 1, 1, 0]), RecordFault::OffsetDelta(1)),
        (record(&[0, 0, 0, 3, 1, 0]), RecordFault::FieldLength(-2)),
        (record(&[0, 0, 0, 1, 3, 0]), RecordFault::FieldLength(-2)),
        (record(&[0, 0, 0, 20, 1, 0]), RecordFault::Beyond { needed: 10, available: 2 }),
        (record(&[0, 0, 0, 1, 20, 0]), RecordFault::Beyond { needed: 10, available: 1 }),
        (record(&[0, 0, 0, 1, 1, 1]), RecordFault::HeaderCount(-1)),
        (record(&[0, 0, 0, 1, 1, 2]), RecordFault::HeaderCount(1)),
        (record(&[0, 0, 0, 1, 1, 2, 1, 1]), RecordFault::HeaderKey),
        (record(&[0, 0, 0, 1, 1, 2, 0, 3]), RecordFault::FieldLength(-2)),
        (record(&[0, 0, 0, 1, 1, 2, 0, 2]), RecordFault::Beyond { needed: 1, available: 0 }),
        (record(&[0, 0, 0, 1, 1, 0, 9]), RecordFault::Surplus(1)),
        (record(&[]), RecordFault::Beyond { needed: 1, available: 0 }),
        (record(&[0]), RecordFault::Varint),
        (vec![1], RecordFault::Length(-1)),
        (vec![80, 0, 0], RecordFault::Beyond { needed: 40, available: 2 }),
        (vec![0x80], RecordFault::Varint),
        // An int of five bytes at most, which must fit.
        (record(&[0, 0, 0x80, 0x80, 0x80, 0x80, 0x10, 1, 1, 0]), RecordFault::Varint),
        (record(&[0, 0, 0x80, 0x80, 0x80, 0x80, 0x80, 0, 1, 1, 0]), RecordFault::Varint),
    ];
    for (payload, fault) in faults {
        assert_eq!(fault_of(&payload, 1), (0, fault), "{payload:?}");
    }
    // A long of ten bytes, which must fit, too.
    let mut long = vec![0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0, 1, 1, 0];
    assert!(validate_records(&record(&long), 0, 1, 0).is_ok());
    assert_eq!(
        validate_records(&record(&long), -1, 1, 0).unwrap_err().fault,
        RecordFault::Timestamp
    );
    long[10] = 0x02;
    assert_eq!(fault_of(&record(&long), 1), (0, RecordFault::Varint));
}

#[test]
fn header_counts_cost_no_more_than_the_bytes() {
    // 2^31 - 1 headers announced.
    let body = [0, 0, 0, 1, 1, 0xfe, 0xff, 0xff, 0xff, 0x0f];
    assert_eq!(fault_of(&record(&body), 1), (0, RecordFault::HeaderCount(i32::MAX)));
}

proptest! {
    #[test]
    fn garbage_never_panics_and_ends(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        count in any::<i32>(),
    ) {
        prop_assert!(records(&bytes, count).count() <= bytes.len() + 1);
        for record in records(&bytes, count).flatten() {
            prop_assert_eq!(record.headers.count(), record.headers.len());
        }
        let _ = validate_records(&bytes, 0, count, count.wrapping_sub(1));
    }

    #[test]
    fn a_changed_byte_never_panics(at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = payload();
        *at.get_mut(&mut bytes) = byte;
        let valid = validate_records(&bytes, 0, 3, 2).is_ok();
        let read = records(&bytes, 3).all(|record| record.is_ok());
        prop_assert!(read || !valid);
    }
}
