//! Truncated and lying input: an error or a value, never a panic.

mod common;

use bytes::Bytes;
use common::random::Random;
use common::registry;
use common::value::Kind;
use common::{Case, cases, schemas};

/// Cuts of one input that are tried, at most.
const CUTS_MAX: usize = 400;

fn decode(case: &Case<'_>, bytes: &[u8]) -> bool {
    let entry = registry::find(case.schema.name());
    (entry.decode)(Bytes::copy_from_slice(bytes), case.version).is_ok()
}

#[test]
fn a_message_cut_short_is_an_error() {
    for schema in schemas() {
        for case in cases(&schema, 1) {
            let step = case.bytes.len().div_ceil(CUTS_MAX).max(1);
            for end in (0..case.bytes.len()).step_by(step) {
                assert!(!decode(&case, &case.bytes[..end]), "{} cut at {end}", case.what());
            }
        }
    }
}

/// Every length, count and marker is one of these bytes; so is everything else.
#[test]
fn lies_at_every_place_are_survived() {
    const LIES: &[&[u8]] = &[
        &[0xff],
        &[0x80],
        &[0x7f, 0xff],
        &[0x7f, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xff],
        &[0xff, 0xff, 0xff, 0xfe],
        &[0xff, 0xff, 0xff, 0xff, 0x0f],
        &[0xff, 0xff, 0xff, 0xff, 0xff],
        &[0, 0x0f, 0x42, 0x41],
    ];
    for schema in schemas() {
        for case in cases(&schema, 1) {
            if case.kind == Kind::Max {
                continue;
            }
            let mut bytes = case.bytes.clone();
            for at in 0..bytes.len().min(CUTS_MAX) {
                for lie in LIES {
                    let end = bytes.len().min(at + lie.len());
                    bytes[at..end].copy_from_slice(&lie[..end - at]);
                    let _ = decode(&case, &bytes);
                    bytes[at..end].copy_from_slice(&case.bytes[at..end]);
                }
            }
        }
    }
}

#[test]
fn noise_is_survived() {
    let mut random = Random::new(7);
    for schema in schemas() {
        for case in cases(&schema, 0) {
            for _ in 0..20 {
                let length = random.below(300);
                let noise: Vec<u8> = (0..length).map(|_| random.next().to_be_bytes()[0]).collect();
                let _ = decode(&case, &noise);
            }
        }
    }
}
