use bytes::{Bytes, BytesMut};
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::protocol::StrBytes;
use kafka_protocol::records as theirs;
use proptest::prelude::*;

use super::*;
use crate::batch::Batch;
use crate::compression::Decompressor;
use crate::record::{records, validate_records};

type OwnedHeader = (String, Option<Vec<u8>>);

#[derive(Clone, Debug)]
struct Owned {
    timestamp: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<OwnedHeader>,
}

fn several() -> impl Strategy<Value = Vec<Owned>> {
    proptest::collection::vec(owned(), 1..20)
}

fn owned() -> impl Strategy<Value = Owned> {
    let field = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
    let headers = proptest::collection::vec(("[a-z]{0,8}", field()), 0..4);
    (0_i64..1 << 45, field(), field(), headers).prop_map(|(timestamp, key, value, mut headers)| {
        // The other implementation keeps headers in a map.
        let mut seen = std::collections::BTreeSet::new();
        headers.retain(|(key, _)| seen.insert(key.clone()));
        Owned { timestamp, key, value, headers }
    })
}

fn append(builder: &mut BatchBuilder, record: &Owned) {
    let headers: Vec<HeaderRef<'_>> =
        record.headers.iter().map(|(k, v)| (k.as_bytes(), v.as_deref())).collect();
    builder
        .append(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers)
        .unwrap();
}

fn their_record(offset: i64, record: &Owned) -> theirs::Record {
    theirs::Record {
        transactional: true,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: 5,
        producer_id: 77,
        producer_epoch: 2,
        timestamp_type: theirs::TimestampType::Creation,
        offset,
        sequence: i32::try_from(offset).unwrap(),
        timestamp: record.timestamp,
        key: record.key.clone().map(Bytes::from),
        value: record.value.clone().map(Bytes::from),
        headers: record
            .headers
            .iter()
            .map(|(k, v)| (StrBytes::from_string(k.clone()), v.clone().map(Bytes::from)))
            .collect::<IndexMap<_, _>>(),
    }
}

fn their_codec(codec: Codec) -> theirs::Compression {
    match codec {
        Codec::None => theirs::Compression::None,
        Codec::Gzip => theirs::Compression::Gzip,
        Codec::Snappy => theirs::Compression::Snappy,
        Codec::Lz4 => theirs::Compression::Lz4,
        Codec::Zstd => theirs::Compression::Zstd,
    }
}

fn built(all: &[Owned], codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new().position(0, 5).producer(77, 2, 0).transactional();
    for record in all {
        append(&mut builder, record);
    }
    builder.build_compressed(&mut Compressor::new(codec, None).unwrap()).unwrap()
}

fn check(bytes: &[u8], all: &[Owned], codec: Codec) {
    let (batch, rest) = Batch::parse(bytes).unwrap();
    assert!(rest.is_empty());
    assert_eq!(batch.check_crc(), Ok(()));
    assert_eq!(batch.check_producer_rules(), Ok(()));
    assert_eq!(batch.codec(), Ok(codec));
    let mut decompressor = Decompressor::new();
    let payload = decompressor.decompress(codec, batch.payload(), 1 << 20).unwrap();
    let count = i32::try_from(all.len()).unwrap();
    let facts = validate_records(payload, batch.base_timestamp(), count, count - 1).unwrap();
    assert_eq!(facts.max_timestamp, batch.max_timestamp());
    assert_eq!(batch.record_count(), count);
    for (read, record) in records(payload, count).zip(all) {
        let read = read.unwrap();
        assert_eq!(batch.base_timestamp() + read.timestamp_delta, record.timestamp);
        assert_eq!((read.key, read.value), (record.key.as_deref(), record.value.as_deref()));
        let headers: Vec<OwnedHeader> = read
            .headers
            .map(|(k, v)| (String::from_utf8(k.to_vec()).unwrap(), v.map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(headers, record.headers);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_is_built_is_read(all in several()) {
        for codec in Codec::ALL {
            check(&built(&all, codec), &all, codec);
        }
    }

    /// The crate `kafka-protocol` reads what is written here.
    #[test]
    fn another_implementation_reads_what_is_built(all in several()) {
        for codec in Codec::ALL {
            let mut bytes = Bytes::from(built(&all, codec));
            let set = theirs::RecordBatchDecoder::decode(&mut bytes).unwrap();
            let expected: Vec<_> = (0..).zip(&all).map(|(n, r)| their_record(n, r)).collect();
            prop_assert_eq!(set.records, expected);
        }
    }

    /// And what it writes is read here.
    #[test]
    fn what_another_implementation_builds_is_read(all in several()) {
        for codec in Codec::ALL {
            let mut bytes = BytesMut::new();
            let set: Vec<_> = (0..).zip(&all).map(|(n, record)| their_record(n, record)).collect();
            let compression = their_codec(codec);
            let options = theirs::RecordEncodeOptions { version: 2, compression };
            theirs::RecordBatchEncoder::encode(&mut bytes, &set, &options).unwrap();
            check(&bytes, &all, codec);
        }
    }
}

#[test]
fn flags_and_positions_go_into_the_header() {
    let mut builder =
        BatchBuilder::new().position(9, 4).producer(8, 1, -1).control().transactional();
    builder.append(6, Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]).unwrap();
    let bytes = builder.log_append_time(123).build();
    let (batch, _) = Batch::parse(&bytes).unwrap();
    assert_eq!((batch.base_offset(), batch.leader_epoch()), (9, 4));
    assert!(batch.is_control() && batch.is_transactional());
    assert_eq!(batch.timestamp_type(), TimestampType::LogAppendTime);
    assert_eq!((batch.max_timestamp(), batch.base_timestamp()), (123, 6));
    assert_eq!((batch.base_sequence(), batch.last_sequence()), (-1, -1));
    assert_eq!(batch.check_crc(), Ok(()));
}

#[test]
fn timestamps_too_far_apart_are_refused_and_leave_the_batch_as_it_was() {
    let mut builder = BatchBuilder::new();
    builder.append(i64::MAX, None, Some(b"a"), &[]).unwrap();
    let before = builder.clone().build();
    assert_eq!(builder.append(-2, None, Some(b"b"), &[]), Err(BuildError::Timestamp));
    assert_eq!(builder.build(), before);
}

#[test]
fn sizes_are_told_before_a_record_is_appended() {
    let mut builder = BatchBuilder::new();
    assert!(builder.is_empty());
    for length in [0, 1, 63, 64, 8191, 8192, 100_000] {
        let value = vec![1; length];
        let before = builder.uncompressed_bytes();
        builder.append(1 << 50, Some(&value), Some(&value), &[]).unwrap();
        let added = builder.uncompressed_bytes() - before;
        assert!(added <= BatchBuilder::record_bytes_max(Some(&value), Some(&value)));
    }
    assert_eq!(builder.record_count(), 7);
    assert_eq!(builder.uncompressed_bytes(), builder.build().len());
}
