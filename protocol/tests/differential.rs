//! The crate `kafka-protocol` reads our bytes, and writes the same ones, for every message and
//! version that it knows.

mod common;

use bytes::{Bytes, BytesMut};
use common::{Case, cases, schemas};
use kafka_protocol::messages::{
    ApiKey, ConsumerProtocolAssignment, ConsumerProtocolSubscription, EndTxnMarker,
    KRaftVersionRecord, RequestKind, ResponseKind, SnapshotFooterRecord, SnapshotHeaderRecord,
};
use kafka_protocol::protocol::{Decodable, Encodable, Message};
use vltava_protocol::api::APIS;

const RANDOM_CASES: u64 = 12;

/// What the other crate makes of a case; `None` where it does not know the message or the version.
fn recode(case: &Case<'_>) -> Option<Result<Vec<u8>, String>> {
    let name = case.schema.name();
    for api in APIS {
        let key = ApiKey::try_from(api.key.0).ok();
        let key = key.filter(|key| {
            let versions = key.valid_versions();
            (versions.min..=versions.max).contains(&case.version)
        });
        if name == format!("{}Request", api.name) {
            return key.map(|key| recode_request(case, key));
        }
        if name == format!("{}Response", api.name) {
            return key.map(|key| recode_response(case, key));
        }
    }
    match name {
        "ConsumerProtocolAssignment" => recode_data::<ConsumerProtocolAssignment>(case),
        "ConsumerProtocolSubscription" => recode_data::<ConsumerProtocolSubscription>(case),
        "EndTxnMarker" => recode_data::<EndTxnMarker>(case),
        "KRaftVersionRecord" => recode_data::<KRaftVersionRecord>(case),
        "SnapshotFooterRecord" => recode_data::<SnapshotFooterRecord>(case),
        "SnapshotHeaderRecord" => recode_data::<SnapshotHeaderRecord>(case),
        // LeaderChangeMessage and VotersRecord it knows, but refuses what is in their arrays.
        _ => None,
    }
}

fn recode_request(case: &Case<'_>, key: ApiKey) -> Result<Vec<u8>, String> {
    let mut bytes = Bytes::copy_from_slice(&case.bytes);
    let mut out = BytesMut::new();
    let recoded = RequestKind::decode(key, &mut bytes, case.version)
        .and_then(|message| message.encode(&mut out, case.version));
    assert!(bytes.is_empty() || recoded.is_err(), "{}: bytes left", case.what());
    recoded.map(|()| out.to_vec()).map_err(|error| format!("{error:#}"))
}

fn recode_response(case: &Case<'_>, key: ApiKey) -> Result<Vec<u8>, String> {
    let mut bytes = Bytes::copy_from_slice(&case.bytes);
    let mut out = BytesMut::new();
    let recoded = ResponseKind::decode(key, &mut bytes, case.version)
        .and_then(|message| message.encode(&mut out, case.version));
    assert!(bytes.is_empty() || recoded.is_err(), "{}: bytes left", case.what());
    recoded.map(|()| out.to_vec()).map_err(|error| format!("{error:#}"))
}

fn recode_data<M: Message + Decodable + Encodable>(
    case: &Case<'_>,
) -> Option<Result<Vec<u8>, String>> {
    if !(M::VERSIONS.min..=M::VERSIONS.max).contains(&case.version) {
        return None;
    }
    let mut bytes = Bytes::copy_from_slice(&case.bytes);
    let mut out = BytesMut::new();
    let recoded = M::decode(&mut bytes, case.version)
        .and_then(|message| message.encode(&mut out, case.version));
    assert!(bytes.is_empty() || recoded.is_err(), "{}: bytes left", case.what());
    Some(recoded.map(|()| out.to_vec()).map_err(|error| format!("{error:#}")))
}

/// Versions that the other crate's table names, and its codec refuses.
const REFUSED: &[(&str, i16)] =
    &[("InitProducerIdRequest", 6), ("OffsetCommitRequest", 10), ("OffsetFetchRequest", 10)];

#[test]
fn same_bytes_as_kafka_protocol() {
    let mut compared = 0;
    for schema in schemas() {
        for case in cases(&schema, RANDOM_CASES) {
            let Some(recoded) = recode(&case) else {
                continue;
            };
            let what = case.what();
            let is_refused = REFUSED.contains(&(schema.name(), case.version));
            match recoded {
                Err(_) if is_refused => continue,
                Ok(_) if is_refused => panic!("{what}: accepted now, take it off the list"),
                Err(error) => panic!("{what}: {error}"),
                Ok(bytes) => {
                    assert!(bytes == case.bytes, "{what}: {bytes:02x?} for {:02x?}", case.bytes)
                }
            }
            compared += 1;
        }
    }
    // The other crate does not shrink: fewer means that some were not compared.
    assert_eq!(compared, COMPARED);
}

const COMPARED: usize = 8_145;
