//! Every message in every version: the bytes that its schema asks for decode, and encode to the
//! same bytes again.
#![allow(clippy::cast_sign_loss, reason = "versions are not negative")]

mod common;

use common::registry::{self, ENTRIES};
use common::value::Kind;
use common::{cases, schemas};

const RANDOM_CASES: u64 = 12;

#[test]
fn every_message_in_every_version() {
    let mut count = 0;
    for schema in schemas() {
        let entry = registry::find(schema.name());
        for case in cases(&schema, RANDOM_CASES) {
            let what = case.what();
            let recoded = (entry.recode)(&case.bytes, case.version);
            let recoded = recoded.unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!(recoded.rest, 0, "{what}: bytes left");
            assert!(
                recoded.bytes == case.bytes,
                "{what}: {:02x?} for {:02x?}",
                recoded.bytes,
                case.bytes
            );
            count += 1;
        }
    }
    let versions = |entry: &registry::Entry| (entry.version_max - entry.version_min + 1) as u64;
    let expected: u64 = ENTRIES.iter().map(versions).sum();
    assert_eq!(count, expected * (RANDOM_CASES + 3));
}

#[test]
fn defaults_are_those_of_the_schema() {
    for schema in schemas() {
        let entry = registry::find(schema.name());
        for case in cases(&schema, 0) {
            if case.kind == Kind::Default {
                let what = case.what();
                assert!((entry.is_default)(&case.bytes, case.version), "{what}");
                assert_eq!((entry.default)(case.version), case.bytes, "{what}");
            }
        }
    }
}

#[test]
fn registry_and_schemas_name_the_same_messages() {
    let schemas = schemas();
    assert_eq!(schemas.len(), ENTRIES.len());
    for (schema, entry) in schemas.iter().zip(ENTRIES) {
        let versions = schema.message().versions;
        assert_eq!(schema.name(), entry.name);
        assert_eq!(schema.module, entry.module);
        assert_eq!((versions.first, versions.last), (entry.version_min, entry.version_max));
    }
}

#[test]
fn versions_that_do_not_exist_are_refused() {
    for entry in ENTRIES {
        for version in [entry.version_min - 1, entry.version_max + 1, i16::MIN, i16::MAX] {
            let refused = (entry.decode)(bytes::Bytes::from_static(&[0; 64]), version);
            assert!(refused.is_err(), "{} v{version}", entry.name);
        }
    }
}

/// What a newer sender adds as tagged fields is passed over.
#[test]
fn unknown_tagged_fields_are_skipped() {
    for schema in schemas() {
        let entry = registry::find(schema.name());
        for mut case in cases(&schema, 0) {
            let is_flexible = schema.message().is_flexible(case.version);
            if case.kind != Kind::Default || !is_flexible {
                continue;
            }
            // The last byte says that the message has no tagged fields: two now, 200 and 201.
            assert_eq!(case.bytes.pop(), Some(0), "{}", case.what());
            case.bytes.extend([2, 0xc8, 0x01, 3, 1, 2, 3, 0xc9, 0x01, 0]);
            assert!((entry.is_default)(&case.bytes, case.version), "{}", case.what());
        }
    }
}
