use super::*;
use crate::message::Message;
use crate::messages::fetch::FetchRequest;
use crate::messages::metadata::{MetadataRequest, MetadataRequestTopic};
use crate::messages::offset_commit::OffsetCommitRequest;

fn bytes(of: &[u8]) -> Bytes {
    Bytes::copy_from_slice(of)
}

#[test]
fn small_things_are_one_piece() {
    let mut writer = Writer::new();
    writer.i32(7);
    writer.bytes(&bytes(&[1; COPY_BYTES_MAX]), false).unwrap();
    writer.string(&Str::from_static("abc"), true).unwrap();
    assert_eq!(writer.len(), 4 + 4 + COPY_BYTES_MAX + 4);
    assert_eq!(writer.finish().len(), 1);
}

#[test]
fn record_data_goes_in_by_reference() {
    let payload = bytes(&[5; 1_000]);
    let external =
        Part::External(ExternalBytes { source: Arc::new("a file"), position: 4_096, len: 70_000 });
    let records = Records {
        parts: vec![Part::Memory(payload.clone()), external.clone(), Part::Memory(Bytes::new())],
    };
    assert_eq!(records.len(), 71_000);
    let mut writer = Writer::frame();
    writer.i8(1);
    writer.records(&records, false).unwrap();
    writer.i8(2);
    assert_eq!(writer.len(), 4 + 1 + 4 + 71_000 + 1);
    let parts = writer.finish_frame().unwrap();
    let [Part::Memory(head), Part::Memory(shared), last, Part::Memory(tail)] = parts.as_slice()
    else {
        panic!("{parts:?}")
    };
    assert_eq!(head[..], [0, 1, 0x15, 0x5e, 1, 0, 1, 0x15, 0x58]);
    assert_eq!(shared.as_ptr(), payload.as_ptr());
    assert_eq!(*last, external);
    assert_eq!(tail[..], [2]);
}

#[test]
fn a_frame_begins_with_its_length() {
    let mut writer = Writer::frame();
    writer.raw(b"abc");
    let parts = writer.finish_frame().unwrap();
    assert_eq!(parts, [Part::Memory(bytes(&[0, 0, 0, 3, b'a', b'b', b'c']))]);
}

#[test]
fn a_tagged_field_moves_to_make_room_for_its_size() {
    let long = bytes(&[9; 300]);
    let mut writer = Writer::new();
    writer.i8(1);
    let mark = writer.begin_tagged_field(4);
    writer.bytes(&long, true).unwrap();
    writer.i16(-2);
    writer.end_tagged_field(&mark).unwrap();
    writer.i8(2);
    let mut expected = vec![1, 4, 0xb0, 0x02, 0xad, 0x02];
    expected.extend([9; 300]);
    expected.extend([0xff, 0xfe, 2]);
    assert_eq!(writer.len(), expected.len());
    assert_eq!(writer.into_bytes().unwrap(), expected);
}

#[test]
fn what_is_too_long_is_refused() {
    let text = Str::from("x".repeat(32_768));
    for flexible in [false, true] {
        let refused = Writer::new().string(&text, flexible);
        assert_eq!(refused, Err(EncodeError::TooLong(32_768)));
    }
    let huge = Records {
        parts: vec![Part::External(ExternalBytes {
            source: Arc::new(()),
            position: 0,
            len: 1 << 31,
        })],
    };
    let refused = Writer::new().records(&huge, true);
    assert_eq!(refused, Err(EncodeError::TooLong(1 << 31)));
}

#[test]
fn records_are_equal_however_cut() {
    let whole = Records::from(bytes(b"abcd"));
    let parts = [&b"ab"[..], b"", b"cd"].map(|piece| Part::Memory(bytes(piece)));
    let cut = Records { parts: parts.to_vec() };
    assert_eq!(whole, cut);
    assert_ne!(whole, Records::default());
}

#[test]
fn a_field_that_the_version_lacks_is_refused_unless_it_may_be_dropped() {
    let request = OffsetCommitRequest {
        group_instance_id: Some(Str::from_static("i")),
        ..OffsetCommitRequest::default()
    };
    assert_eq!(
        request.encode(&mut Writer::new(), 6),
        Err(EncodeError::FieldNotInVersion {
            field: "OffsetCommitRequest.GroupInstanceId",
            version: 6
        })
    );
    assert_eq!(request.encode(&mut Writer::new(), 7), Ok(()));
    let request = OffsetCommitRequest { retention_time_ms: 5, ..OffsetCommitRequest::default() };
    assert_eq!(request.encode(&mut Writer::new(), 7), Ok(()));
    let mut request = FetchRequest::default();
    request.replica_state.replica_id = 3;
    assert_eq!(
        request.encode(&mut Writer::new(), 14),
        Err(EncodeError::FieldNotInVersion { field: "FetchRequest.ReplicaState", version: 14 })
    );
}

#[test]
fn null_is_refused_where_the_version_has_none() {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic::default()]),
        ..MetadataRequest::default()
    };
    assert_eq!(request.encode(&mut Writer::new(), 9), Ok(()));
    let request = MetadataRequest { topics: None, ..MetadataRequest::default() };
    assert_eq!(
        request.encode(&mut Writer::new(), 0),
        Err(EncodeError::NullNotInVersion { field: "MetadataRequest.Topics", version: 0 })
    );
}
