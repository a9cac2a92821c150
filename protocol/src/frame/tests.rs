use bytes::Bytes;

use super::*;
use crate::api::APIS;

#[test]
fn a_length_is_checked_before_anything_is_received() {
    assert_eq!(frame_length([0, 0, 1, 0], 256), Ok(256));
    assert_eq!(frame_length([0; 4], 0), Ok(0));
    assert_eq!(frame_length([0xff; 4], 256), Err(FrameError::Negative(-1)));
    assert_eq!(
        frame_length([0, 0, 1, 1], 256),
        Err(FrameError::TooLong { length: 257, length_max: 256 })
    );
}

fn header_bytes(api_key: ApiKey, api_version: i16) -> Vec<u8> {
    let header = RequestHeader {
        api_key,
        api_version,
        correlation_id: 7,
        client_id: Some(Str::from_static("me")),
    };
    let mut writer = Writer::new();
    header.encode(&mut writer).unwrap();
    let bytes = writer.into_bytes().unwrap();
    let mut reader = Reader::new(bytes.clone());
    assert_eq!(RequestHeader::decode(&mut reader), Ok(header));
    assert_eq!(reader.remaining(), 0);
    bytes.to_vec()
}

#[test]
fn request_headers_of_both_versions() {
    // The client id is classic in both; only flexible versions have tagged fields behind it.
    let classic = header_bytes(ApiKey::PRODUCE, 8);
    assert_eq!(classic, [0, 0, 0, 8, 0, 0, 0, 7, 0, 2, b'm', b'e']);
    let flexible = header_bytes(ApiKey::PRODUCE, 9);
    assert_eq!(flexible, [0, 0, 0, 9, 0, 0, 0, 7, 0, 2, b'm', b'e', 0]);
    for api in APIS {
        for version in api.min_version..=api.unstable_max_version {
            header_bytes(api.key, version);
        }
    }
}

#[test]
fn a_null_client_id_and_unknown_tags_are_read() {
    let bytes = [0, 18, 0, 99, 0, 0, 0, 1, 0xff, 0xff, 1, 0, 2, 9, 9];
    let mut reader = Reader::new(Bytes::copy_from_slice(&bytes));
    let header = RequestHeader::decode(&mut reader).unwrap();
    assert_eq!(header.api_key, ApiKey::API_VERSIONS);
    assert_eq!(header.api_version, 99);
    assert_eq!(header.client_id, None);
    assert_eq!(reader.remaining(), 0);
}

#[test]
fn an_unknown_api_is_refused() {
    for key in [4, 52, 95, 9_999, -1] {
        let mut bytes = i16::to_be_bytes(key).to_vec();
        bytes.extend([0, 0, 0, 0, 0, 1, 0xff, 0xff]);
        let refused = RequestHeader::decode(&mut Reader::new(bytes.into()));
        assert_eq!(refused, Err(DecodeError::UnknownApi(key)));
    }
}

#[test]
fn response_headers() {
    let encoded = |key, version| {
        let mut writer = Writer::new();
        let header = ResponseHeader { correlation_id: 7 };
        header.encode(&mut writer, key, version).unwrap();
        let bytes = writer.into_bytes().unwrap();
        let mut reader = Reader::new(bytes.clone());
        assert_eq!(ResponseHeader::decode(&mut reader, key, version), Ok(header));
        bytes.to_vec()
    };
    assert_eq!(encoded(ApiKey::FETCH, 11), [0, 0, 0, 7]);
    assert_eq!(encoded(ApiKey::FETCH, 12), [0, 0, 0, 7, 0]);
    for version in 0..=5 {
        assert_eq!(encoded(ApiKey::API_VERSIONS, version), [0, 0, 0, 7]);
    }
}

#[test]
fn the_table_is_kafkas() {
    assert_eq!(APIS.len(), 79);
    assert!(APIS.windows(2).all(|pair| pair[0].key < pair[1].key));
    let produce = ApiKey::PRODUCE.api().unwrap();
    assert_eq!((produce.min_version, produce.max_version), (3, 13));
    assert_eq!(produce.flexible_from, Some(9));
    let init = ApiKey::INIT_PRODUCER_ID.api().unwrap();
    assert_eq!((init.max_version, init.unstable_max_version), (5, 6));
    assert!(init.is_version_stable(5) && !init.is_version_stable(6));
    assert_eq!(ApiKey(4).name(), "Unknown");
    assert_eq!(format!("{:?} {}", ApiKey(4), ApiKey::FETCH), "ApiKey(4) Fetch");
}
