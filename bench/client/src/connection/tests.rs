use bytes::Bytes;
use vltava_protocol::encode::Records;
use vltava_protocol::messages::api_versions::ApiVersion;
use vltava_protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use vltava_protocol::messages::metadata::MetadataRequest;

use super::*;

/// A request as a broker sees it: its header, and what follows.
fn seen(parts: Vec<Part>) -> (RequestHeader, Reader) {
    let bytes = Records { parts }.to_bytes().unwrap();
    let mut reader = Reader::new(bytes.slice(LENGTH_BYTES..));
    let header = RequestHeader::decode(&mut reader).unwrap();
    (header, reader)
}

/// An answer in a frame.
fn framed<M: Message>(header: &RequestHeader, response: &M, version: i16) -> Bytes {
    let mut writer = Writer::frame();
    let correlation_id = header.correlation_id;
    ResponseHeader { correlation_id }.encode(&mut writer, header.api_key, version).unwrap();
    response.encode(&mut writer, version).unwrap();
    Records { parts: writer.finish_frame().unwrap() }.to_bytes().unwrap()
}

fn serves(apis: &[(ApiKey, i16, i16)], error_code: ErrorCode) -> ApiVersionsResponse {
    let served = |&(api, min_version, max_version): &(ApiKey, i16, i16)| ApiVersion {
        api_key: api.0,
        min_version,
        max_version,
    };
    ApiVersionsResponse {
        error_code,
        api_keys: apis.iter().map(served).collect(),
        ..ApiVersionsResponse::default()
    }
}

/// A connection to a broker that serves these.
fn connected(apis: &[(ApiKey, i16, i16)]) -> Connection {
    let mut connection = Connection::new(Str::from_static("me"));
    let (header, _) = seen(connection.handshake().unwrap());
    let answer = framed(&header, &serves(apis, ErrorCode::NONE), header.api_version);
    connection.received().extend_from_slice(&answer);
    let answer = connection.next_answer().unwrap().unwrap();
    assert!(connection.shake(answer).unwrap());
    connection
}

#[test]
fn an_old_broker_is_asked_again_in_its_own_version() {
    let mut connection = Connection::new(Str::from_static("me"));
    let (header, _) = seen(connection.handshake().unwrap());
    assert_eq!(header.api_version, ApiVersionsRequest::VERSION_MAX);
    let apis = [(ApiKey::API_VERSIONS, 0, 2), (ApiKey::HEARTBEAT, 0, 3)];
    let refusal = framed(&header, &serves(&apis, ErrorCode::UNSUPPORTED_VERSION), 0);
    connection.received().extend_from_slice(&refusal);
    let answer = connection.next_answer().unwrap().unwrap();
    assert!(!connection.shake(answer).unwrap());
    let (header, _) = seen(connection.handshake().unwrap());
    assert_eq!(header.api_version, 2);
    connection.received().extend_from_slice(&framed(&header, &serves(&apis, ErrorCode::NONE), 2));
    let answer = connection.next_answer().unwrap().unwrap();
    assert!(connection.shake(answer).unwrap());
    assert_eq!(connection.version::<HeartbeatRequest>().unwrap(), 3);
    assert!(connection.version::<MetadataRequest>().is_err(), "not served");
}

#[test]
fn the_highest_version_that_both_know_is_spoken() {
    let apis = [(ApiKey::HEARTBEAT, 0, 99), (ApiKey::METADATA, 50, 60)];
    let connection = connected(&apis);
    assert_eq!(
        connection.version::<HeartbeatRequest>().unwrap(),
        ApiKey::HEARTBEAT.api().unwrap().max_version
    );
    assert!(connection.version::<MetadataRequest>().is_err(), "too new for us");
}

#[test]
fn answers_are_taken_as_their_bytes_come() {
    let mut connection = connected(&[(ApiKey::HEARTBEAT, 0, 4)]);
    let request = HeartbeatRequest::default();
    let headers: Vec<_> =
        (0..2).map(|_| seen(connection.request(&request, 4).unwrap()).0).collect();
    assert_eq!((connection.in_flight(), headers[0].client_id.as_deref()), (2, Some("me")));
    let response = HeartbeatResponse::default();
    let bytes: Vec<u8> = headers.iter().flat_map(|header| framed(header, &response, 4)).collect();
    let mut answers = 0;
    for byte in bytes {
        connection.received().extend_from_slice(&[byte]);
        if let Some(answer) = connection.next_answer().unwrap() {
            assert_eq!(answer.decode::<HeartbeatRequest>().unwrap(), response);
            answers += 1;
        }
    }
    assert_eq!((answers, connection.in_flight()), (2, 0));
}

#[test]
fn answers_out_of_order_or_unasked_for_are_errors() {
    let mut connection = connected(&[(ApiKey::HEARTBEAT, 0, 4)]);
    let (mut header, _) = seen(connection.request(&HeartbeatRequest::default(), 4).unwrap());
    header.correlation_id += 1;
    let answer = framed(&header, &HeartbeatResponse::default(), 4);
    connection.received().extend_from_slice(&answer);
    assert!(matches!(connection.next_answer(), Err(ClientError::Correlation)));
    let mut connection = connected(&[(ApiKey::HEARTBEAT, 0, 4)]);
    connection.received().extend_from_slice(&answer);
    assert!(matches!(connection.next_answer(), Err(ClientError::Correlation)));
    let mut connection = connected(&[(ApiKey::HEARTBEAT, 0, 4)]);
    connection.received().extend_from_slice(b"HTTP/1.1 400 Bad Request");
    assert!(matches!(connection.next_answer(), Err(ClientError::Frame(_))));
}
