//! What a later release says and this one does not know: fields are passed over, and everything
//! that is known is read as ever.

use bytes::Bytes;
use vltava_protocol::types::Uuid;

use super::{essence, one_of_each};
use crate::peer::codec::{self, Builder};
use crate::peer::frame::{self, Frame, FrameBuffer, Kind, Limits};
use crate::peer::greeting::tests::introduction;
use crate::peer::greeting::{self, Answer, Hello, Purpose, Refusal, RefusalCode};
use crate::peer::schema::vltava::peer as wire;

const LIMITS: Limits = Limits { message_bytes_max: 1 << 20, payload_bytes_max: 64 << 20 };

fn frame(bytes: Bytes) -> Frame {
    let mut frames = FrameBuffer::new(LIMITS);
    frames.put_back(bytes.into());
    let frame = frames.next_frame().unwrap().unwrap();
    assert!(frames.is_empty());
    frame
}

/// The same message as a later release may say it: its table has fields more. By hand: a copy of
/// the root's list of fields, with three more that point into it, stands before everything.
fn with_more_fields(message: &[u8]) -> Bytes {
    let number = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
    let short = |at: usize| u16::from_le_bytes(message[at..at + 2].try_into().unwrap());
    let table = number(0) as usize;
    let back = i32::from_le_bytes(message[table..table + 4].try_into().unwrap());
    let fields = table.checked_add_signed(-isize::try_from(back).unwrap()).unwrap();
    let fields_bytes = usize::from(short(fields));
    let known = &message[fields + 2..fields + fields_bytes];
    let (root, more) = (4, [4_u16, 4, 0]);
    // What begins on a multiple of eight goes on doing so.
    let front = (root + 2 + known.len() + 2 * more.len()).next_multiple_of(8);
    let mut longer = Vec::new();
    longer.extend((number(0) + front as u32).to_le_bytes());
    longer.extend((fields_bytes as u16 + 2 * more.len() as u16).to_le_bytes());
    longer.extend(known);
    longer.extend(more.iter().flat_map(|field| field.to_le_bytes()));
    longer.resize(front, 0);
    longer.extend(message);
    let table = table + front;
    let back = i32::try_from(table - root).unwrap();
    longer[table..table + 4].copy_from_slice(&back.to_le_bytes());
    Bytes::from(longer)
}

#[test]
fn fields_of_a_later_release_are_passed_over() {
    let hello = Hello { introduction: introduction(), purpose: Purpose::Control { session: 9 } };
    let newer = |frame: Frame| Frame { message: with_more_fields(&frame.message), ..frame };
    let known = frame(greeting::hello_frame(&hello));
    assert_ne!(newer(known.clone()), known);
    assert_eq!(greeting::read_hello(&newer(known)), Ok(hello));
    let welcome = Answer::Welcome { introduction: introduction(), protocol: 2 };
    assert_eq!(greeting::read_answer(&newer(frame(greeting::answer_frame(&welcome)))), Ok(welcome));
    let refusal = Refusal::new(RefusalCode::VERSION, "too old");
    let refused = Answer::Refused { refusal, session_latest: 12 };
    assert_eq!(greeting::read_answer(&newer(frame(greeting::answer_frame(&refused)))), Ok(refused));
    for kind in [Kind::Start, Kind::Heartbeat] {
        let control = newer(frame(codec::session_frame(kind, u64::MAX)));
        assert_eq!(codec::read_session(&control), Ok(u64::MAX));
    }
    let messages = one_of_each();
    let mut builder = Builder::new();
    let payload_bytes = codec::write_groups(&mut builder, messages.iter());
    let mut bytes = frame::head(Kind::Groups, builder.finished_data(), payload_bytes).to_vec();
    for message in &messages {
        bytes.extend_from_slice(&message.payload.to_bytes().unwrap_or_default());
    }
    let read = codec::read_groups(&newer(frame(bytes.into()))).unwrap();
    let (read, sent): (Vec<_>, Vec<_>) =
        (read.iter().map(essence).collect(), messages.iter().map(essence).collect());
    assert_eq!(read, sent);
    codec::write_request(&mut builder, 7, 3);
    let request = with_more_fields(builder.finished_data());
    assert_eq!(codec::read_request(&request), Ok((7, 3)));
    codec::write_response(&mut builder, 7, true);
    let response = with_more_fields(builder.finished_data());
    assert_eq!(codec::read_response(&response), Ok((7, true)));
}

/// An introduction with a number and a text that this release does not know, as a later one's
/// generated code writes it.
#[test]
fn an_introduction_of_a_later_release_is_read() {
    const NUMBER: u16 = wire::Introduction::VT_ENDPOINTS + 2;
    const TEXT: u16 = NUMBER + 2;
    let mut builder = Builder::new();
    let text = builder.create_string("of a later release");
    let table = builder.start_table();
    builder.push_slot_always(wire::Introduction::VT_PROTOCOL_MIN, 1_u16);
    builder.push_slot_always(wire::Introduction::VT_PROTOCOL_MAX, 3_u16);
    builder.push_slot_always(wire::Introduction::VT_FEATURE_LEVEL, 7_u16);
    builder.push_slot_always(wire::Introduction::VT_NODE_ID, 3_i32);
    builder.push_slot_always(wire::Introduction::VT_DISK_ID, codec::id(Uuid(5)));
    builder.push_slot_always(wire::Introduction::VT_SHARDS, 4_u16);
    builder.push_slot_always(NUMBER, u64::MAX);
    builder.push_slot_always(TEXT, text);
    let table = builder.end_table(table);
    let introduction = flatbuffers::WIPOffset::new(table.value());
    let (purpose, introduction) = (wire::Purpose::Knock, Some(introduction));
    let fields = wire::HelloArgs { introduction, purpose, session: 0, lane: 0 };
    let root = wire::Hello::create(&mut builder, &fields);
    builder.finish(root, None);
    let hello = frame(frame::head(Kind::Hello, builder.finished_data(), 0));
    let read = greeting::read_hello(&hello).unwrap().introduction;
    assert_eq!((read.protocol, read.feature_level, read.node_id), ((1, 3), 7, 3));
    assert_eq!((read.disk_id, read.shards, read.endpoints), (Uuid(5), 4, Vec::new()));
}
