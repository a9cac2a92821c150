//! Batches that real clients wrote: `batches/CLIENT-CODEC.batch`, taken from the segments of a
//! Kafka 4.4.
//!
//! Each client wrote the same 60 records with each codec: keys `key-0` to `key-59`, values
//! `value-N` four times with spaces between them. librdkafka 2.x through kcat, the Java client 4.3,
//! franz-go 1.22, kafka-python 3.0 with python-snappy, lz4 and zstandard, kafkajs 2.2 with
//! kafkajs-snappy, kafkajs-lz4 and zstd-codec.
#![allow(clippy::unwrap_used, reason = "a failing test should say where")]

use std::fs;
use std::path::Path;

use vltava_protocol::batch::Batch;
use vltava_protocol::compression::{Codec, Decompressor};
use vltava_protocol::record::{records, validate_records};

const CLIENTS: [&str; 5] = ["librdkafka", "java", "franzgo", "kafkapython", "kafkajs"];
const RECORDS: i32 = 60;

fn captured(client: &str, codec: Codec) -> Vec<u8> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/batches");
    fs::read(directory.join(format!("{client}-{codec}.batch"))).unwrap()
}

fn all() -> impl Iterator<Item = (&'static str, Codec)> {
    let compressed = || Codec::ALL.into_iter().filter(|codec| *codec != Codec::None);
    CLIENTS.into_iter().flat_map(move |client| compressed().map(move |codec| (client, codec)))
}

#[test]
fn what_clients_write_is_read() {
    let mut decompressor = Decompressor::new();
    for (client, codec) in all() {
        let bytes = captured(client, codec);
        let (batch, rest) = Batch::parse(&bytes).unwrap();
        assert!(rest.is_empty());
        assert_eq!(batch.check_crc(), Ok(()), "{client} {codec}");
        assert_eq!(batch.check_producer_rules(), Ok(()), "{client} {codec}");
        assert_eq!(batch.codec(), Ok(codec));
        let payload = decompressor.decompress(codec, batch.payload(), 10_000).unwrap();
        let facts =
            validate_records(payload, batch.base_timestamp(), RECORDS, RECORDS - 1).unwrap();
        assert_eq!(facts.max_timestamp, batch.max_timestamp(), "{client} {codec}");
        for (number, record) in records(payload, RECORDS).enumerate() {
            let record = record.unwrap();
            let value = [format!("value-{number}").as_str(); 4].join(" ");
            assert_eq!(record.key, Some(format!("key-{number}").as_bytes()));
            assert_eq!(record.value, Some(value.as_bytes()), "{client} {codec}");
        }
    }
}

#[test]
fn what_clients_write_and_somebody_breaks_is_an_error_or_bytes_within_the_bound() {
    let mut decompressor = Decompressor::new();
    for (client, codec) in all() {
        let bytes = captured(client, codec);
        let (batch, _) = Batch::parse(&bytes).unwrap();
        let payload = batch.payload();
        for at in 0..payload.len() {
            let mut broken = payload.to_vec();
            broken[at] = broken[at].wrapping_add(0x41);
            for hostile in [&broken[..], &payload[..at]] {
                if let Ok(read) = decompressor.decompress(codec, hostile, 10_000) {
                    assert!(read.len() <= 10_000);
                    let _ = validate_records(read, 0, RECORDS, RECORDS - 1);
                }
            }
            assert!(decompressor.buffer_bytes() <= 10_000);
        }
    }
}
