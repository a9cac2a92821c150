//! What a decoded message takes is bounded by what was sent.
//!
//! The allocator of this test counts, so there is one test in this file only.

mod common;

use bytes::Bytes;
use common::registry::{self, Entry};
use common::value::Kind;
use common::{cases, schemas, wide_case};
use peak_alloc::PeakAlloc;

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Bytes allocated for each byte of input, at most: the largest structure in Rust over the least
/// that it takes on the wire. Reached by the array of the densest structure.
const BYTES_PER_BYTE_MAX: usize = 48;
/// What a message may allocate in any case.
const BYTES_FREE: usize = 1_024;
/// Elements of the array that is made wide.
const WIDE_ELEMENTS: usize = 3_000;

/// The most that was allocated while these bytes were decoded.
fn allocated(entry: &Entry, bytes: &[u8], version: i16) -> usize {
    let bytes = Bytes::copy_from_slice(bytes);
    ALLOCATOR.reset_peak_usage();
    let before = ALLOCATOR.current_usage();
    let _ = (entry.decode)(bytes, version);
    ALLOCATOR.peak_usage() - before
}

fn check(entry: &Entry, bytes: &[u8], version: i16, what: &str) -> f64 {
    let allocated = allocated(entry, bytes, version);
    let limit = BYTES_FREE + BYTES_PER_BYTE_MAX * bytes.len();
    assert!(allocated <= limit, "{what}: {allocated} bytes for {} bytes of input", bytes.len());
    allocated as f64 / bytes.len().max(1) as f64
}

#[test]
fn decoding_allocates_no_more_than_the_input_justifies() {
    let mut worst = (0.0, String::new());
    for schema in schemas() {
        let entry = registry::find(schema.name());
        for version in schema.message().versions.iter() {
            for depth in 0..5 {
                let bytes = wide_case(&schema, version, depth, WIDE_ELEMENTS);
                let what = format!("{} v{version} wide at {depth}", schema.name());
                let ratio = check(entry, &bytes, version, &what);
                if ratio > worst.0 && bytes.len() > 1_000 {
                    worst = (ratio, what);
                }
            }
        }
        for case in cases(&schema, 1) {
            let mut bytes = case.bytes.clone();
            // Counts and lengths that announce far more than follows.
            for at in 0..bytes.len().min(200) {
                let end = bytes.len().min(at + 4);
                bytes[at..end].copy_from_slice(&[0x00, 0x0f, 0x42, 0x3f][..end - at]);
                check(entry, &bytes, case.version, &case.what());
                bytes[at..end].copy_from_slice(&case.bytes[at..end]);
            }
            if case.kind != Kind::Max {
                check(entry, &case.bytes, case.version, &case.what());
            }
        }
    }
    println!("worst: {:.1} bytes a byte, {}", worst.0, worst.1);
}
