//! Bytes: as they go they come, and no others come at all.

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::FutureExt;

use super::{Dice, essence, one_of_each, records, said};
use crate::peer::codec::{self, Builder};
use crate::peer::frame::{
    self, Frame, FrameBuffer, FrameError, HEADER_BYTES, Kind, Limits, RESERVE_BYTES_MAX,
};
use crate::peer::greeting;
use crate::peer::message::GroupMessage;
use crate::peer::options::{GREETING_LIMITS, Options};
use crate::peer::outbox::{Item, Outbox};
use crate::peer::schema::vltava::peer as wire;
use crate::peer::tests::nothing;
use crate::peer::window::Window;
use crate::raft::message::Message;

const LIMITS: Limits = Limits { message_bytes_max: 1 << 20, payload_bytes_max: 64 << 20 };

fn buffer_of(bytes: &[u8]) -> FrameBuffer {
    let mut frames = FrameBuffer::new(LIMITS);
    frames.put_back(bytes.into());
    frames
}

/// A frame of all kinds of messages, with their payloads.
fn stream() -> Vec<u8> {
    let messages = one_of_each();
    let mut builder = Builder::new();
    let payload_bytes = codec::write_groups(&mut builder, messages.iter());
    let mut bytes = frame::head(Kind::Groups, builder.finished_data(), payload_bytes).to_vec();
    for message in &messages {
        bytes.extend(message.payload.to_bytes().unwrap());
    }
    bytes
}

/// Whatever a frame is said to be, reading it ends well.
fn read_somehow(frame: &Frame) -> bool {
    match frame.kind {
        Kind::Hello => greeting::read_hello(frame).is_ok(),
        Kind::Welcome | Kind::Refused => greeting::read_answer(frame).is_ok(),
        Kind::Start | Kind::Heartbeat => codec::read_session(frame).is_ok(),
        Kind::Groups => codec::read_groups(frame).is_ok(),
        Kind::Request => codec::read_request(&frame.message).is_ok(),
        Kind::Response => codec::read_response(&frame.message).is_ok(),
    }
}

#[test]
fn all_kinds_of_messages_come_as_they_went() {
    let frame = buffer_of(&stream()).next_frame().unwrap().unwrap();
    let read = codec::read_groups(&frame).unwrap();
    let (sent, read): (Vec<_>, Vec<_>) =
        (one_of_each().iter().map(essence).collect(), read.iter().map(essence).collect());
    assert_eq!(read, sent);
}

#[test]
fn a_payload_is_a_slice_of_its_frame() {
    let frame = buffer_of(&stream()).next_frame().unwrap().unwrap();
    let within = frame.payload.as_ptr_range();
    for message in codec::read_groups(&frame).unwrap() {
        let payload = message.payload.to_bytes().unwrap();
        assert!(payload.is_empty() || within.contains(&payload.as_ptr()));
    }
}

#[test]
fn a_stream_may_arrive_in_any_pieces() {
    let once = stream();
    let beat = codec::session_frame(Kind::Heartbeat, 9);
    let large = frame::head(Kind::Request, &[], 3 << 20);
    let body: Bytes = (0..3 << 20).map(|index: u32| index as u8).collect();
    let parts: [&[u8]; 7] = [&beat, &once, &large, &body, &once, &beat, &beat];
    let all = parts.concat();
    for seed in 1..30 {
        let (mut dice, mut frames, mut at) = (Dice(seed), FrameBuffer::new(LIMITS), 0);
        let mut came = Vec::new();
        while at < all.len() {
            let mut room = frames.room().unwrap();
            let (held, capacity) = (room.len(), room.capacity());
            assert!(capacity > held, "no room");
            assert!(capacity <= (2 * held).max(RESERVE_BYTES_MAX), "{capacity} for {held}");
            let most = (capacity - held).min(all.len() - at) as u64;
            let most = if dice.roll(4) == 0 { 1 + dice.roll(40) } else { most }.min(most);
            let piece = &all[at..at + 1 + dice.roll(most) as usize];
            room.put_slice(piece);
            assert_eq!(room.capacity(), capacity);
            frames.put_back(room);
            at += piece.len();
            while let Some(frame) = frames.next_frame().unwrap() {
                came.push((frame.kind, frame.payload.len()));
            }
        }
        let groups = (Kind::Groups, 307);
        let beat = (Kind::Heartbeat, 0);
        assert_eq!(came, [beat, groups, (Kind::Request, 3 << 20), groups, beat, beat]);
        assert!(frames.is_empty());
    }
}

#[test]
fn what_is_cut_off_is_no_frame() {
    let whole = stream();
    for len in 0..whole.len() {
        let mut frames = buffer_of(&whole[..len]);
        assert_eq!(frames.next_frame(), Ok(None), "{len} of {}", whole.len());
        frames.room().unwrap();
    }
}

#[test]
fn a_flipped_bit_of_header_or_message_is_found() {
    let whole = stream();
    let checked = whole.len() - 307;
    for bit in 0..8 * checked {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        // A longer frame waits for its end.
        bytes.extend(std::iter::repeat_n(0, 100_000));
        let mut frames = buffer_of(&bytes);
        let waits = matches!(frames.next_frame(), Ok(None));
        assert!(waits || frames.next_frame().is_err(), "bit {bit}");
        assert!(!waits || (4..12).contains(&(bit / 8)), "bit {bit} waits");
    }
}

#[test]
fn a_length_that_lies_takes_no_memory() {
    let header = |kind: u16, flags: u16, message: u32, payload: u32| {
        let mut bytes = BytesMut::new();
        bytes.put_u16_le(kind);
        bytes.put_u16_le(flags);
        bytes.put_u32_le(message);
        bytes.put_u32_le(payload);
        bytes.put_u32_le(0);
        bytes
    };
    let refused = |bytes: &[u8]| {
        let mut frames = buffer_of(bytes);
        let error = frames.next_frame().unwrap_err();
        assert_eq!(frames.room().unwrap_err(), error);
        error
    };
    for kind in [0, 9, 255, u16::MAX] {
        assert_eq!(refused(&header(kind, 0, 4, 0)), FrameError::Kind(kind));
    }
    assert_eq!(refused(&header(6, 1, 4, 0)), FrameError::Flags(1));
    for (message, payload) in
        [((1 << 20) + 1, 0), (u32::MAX, 0), (0, (64 << 20) + 1), (0, u32::MAX)]
    {
        let error = refused(&header(6, 0, message, payload));
        assert!(matches!(error, FrameError::Length { .. }), "{error}");
    }
    // Allowed, and announced only.
    let mut frames = buffer_of(&header(6, 0, 1 << 20, 64 << 20));
    assert_eq!(frames.next_frame(), Ok(None));
    assert!(frames.room().unwrap().capacity() <= RESERVE_BYTES_MAX);
    let mut frames = FrameBuffer::new(GREETING_LIMITS);
    frames.put_back(header(1, 0, 17 << 10, 0));
    assert!(frames.next_frame().is_err(), "little before a greeting");
}

#[test]
fn nothing_that_a_peer_writes_panics() {
    let pieces = {
        let introduction = greeting::tests::introduction();
        let hello = greeting::Hello { introduction, purpose: greeting::Purpose::Knock };
        let hello = greeting::hello_frame(&hello);
        let whole = stream();
        [hello.to_vec(), whole[..whole.len() - 307].to_vec()]
    };
    let kinds = [
        Kind::Hello,
        Kind::Welcome,
        Kind::Refused,
        Kind::Start,
        Kind::Heartbeat,
        Kind::Groups,
        Kind::Request,
        Kind::Response,
    ];
    let (mut dice, mut sound) = (Dice(42), 0);
    for round in 0..60_000 {
        let mut message = pieces[round % 2][HEADER_BYTES..].to_vec();
        for _ in 0..=dice.roll(6) {
            let at = dice.roll(message.len() as u64) as usize;
            match dice.roll(4) {
                0 => message[at] = dice.roll(256) as u8,
                1 => message[at] ^= 1 << dice.roll(8),
                // Offsets and lengths that lead far.
                2 => message[at..].iter_mut().take(4).for_each(|byte| *byte = 0xff),
                _ => message.truncate(at.max(1)),
            }
        }
        let kind = match dice.roll(4) {
            0 => kinds[dice.roll(8) as usize],
            _ => [Kind::Hello, Kind::Groups][round % 2],
        };
        let frame = Frame {
            kind,
            message: message.into(),
            payload: Bytes::from(vec![0; if dice.roll(2) == 0 { 307 } else { 0 }]),
        };
        sound += usize::from(read_somehow(&frame));
    }
    // Some changes hit only values: then it is read.
    assert!(sound > 1000, "{sound}");
}

#[test]
fn what_is_shared_many_times_is_not_written_out() {
    let mut builder = Builder::new();
    let message = said(0, Message::Flushed { epoch: 1, index: 2 });
    let shared = codec::write_group(&mut builder, &message);
    let messages = builder.create_vector(&vec![shared; 4000]);
    let fields = wire::GroupMessagesArgs { messages: Some(messages) };
    let root = wire::GroupMessages::create(&mut builder, &fields);
    builder.finish(root, None);
    let message = Bytes::copy_from_slice(builder.finished_data());
    let frame = Frame { kind: Kind::Groups, message, payload: Bytes::new() };
    let error = codec::read_groups(&frame).unwrap_err().to_string();
    assert!(error.contains("pparent"), "{error}");
}

#[test]
fn too_many_messages_are_none() {
    let many: Vec<_> =
        (0..4097).map(|index| said(index, Message::TimeoutNow { epoch: 1 })).collect();
    let mut builder = Builder::new();
    codec::write_groups(&mut builder, many.iter());
    let message = Bytes::copy_from_slice(builder.finished_data());
    let frame = Frame { kind: Kind::Groups, message, payload: Bytes::new() };
    assert!(codec::read_groups(&frame).is_err());
}

#[test]
fn a_payload_belongs_to_somebody() {
    let frame = buffer_of(&stream()).next_frame().unwrap().unwrap();
    for payload in [frame.payload.slice(1..), Bytes::from(vec![0; 308]), Bytes::new()] {
        let frame = Frame { payload, ..frame.clone() };
        assert!(codec::read_groups(&frame).is_err());
    }
}

fn append(index: i32, number: i64, payload: usize) -> GroupMessage {
    let body = Message::Append { epoch: 1, run: nothing(), committed: number, high_watermark: 0 };
    GroupMessage { payload: records(vec![1; payload]), ..said(index, body) }
}

/// What a turn says, by group: the message's number.
fn read_turn(outbox: &mut Outbox, payload_bytes: usize) -> Vec<(i32, i64)> {
    let turn = outbox.take(payload_bytes).unwrap();
    let mut frames = FrameBuffer::new(LIMITS);
    let parts: Vec<_> = turn.parts.into_iter().map(|part| records_of(part).to_vec()).collect();
    frames.put_back(parts.concat().as_slice().into());
    let mut said = Vec::new();
    while let Some(frame) = frames.next_frame().unwrap() {
        match frame.kind {
            Kind::Groups => {
                said.extend(codec::read_groups(&frame).unwrap().iter().map(|message| {
                    let number = match message.body {
                        Message::Append { committed, .. } => committed,
                        Message::Flushed { index, .. } => index,
                        _ => -1,
                    };
                    (message.group.index, number)
                }));
            }
            kind => said.push((-(kind as i32), 0)),
        }
    }
    assert!(frames.is_empty());
    said
}

fn records_of(part: vltava_protocol::encode::Part) -> Bytes {
    match part {
        vltava_protocol::encode::Part::Memory(bytes) => bytes,
        vltava_protocol::encode::Part::External(_) => panic!("not in these tests"),
    }
}

#[test]
fn what_has_no_payload_goes_first_but_never_before_its_own_group() {
    let (mut outbox, window) = (Outbox::new(), Window::new(1 << 20));
    let flushed =
        |index, number| Item::Group(said(index, Message::Flushed { epoch: 1, index: number }));
    outbox.push(Item::Group(append(1, 1, 1000)), window.take(1000).now_or_never().flatten());
    outbox.push(Item::Group(append(2, 1, 1000)), window.take(1000).now_or_never().flatten());
    outbox.push(flushed(1, 2), None);
    outbox.push(flushed(3, 1), None);
    outbox.push(Item::Request { id: 1, kind: 2, body: Bytes::from_static(b"?") }, None);
    outbox.push(Item::Group(append(1, 3, 1000)), window.take(1000).now_or_never().flatten());
    // The first turn has what is urgent and one payload; group 1's second word waits behind it.
    assert_eq!(read_turn(&mut outbox, 1500), [(3, 1), (-7, 0), (1, 1)]);
    outbox.push(flushed(1, 4), None);
    outbox.push(flushed(4, 1), None);
    assert_eq!(read_turn(&mut outbox, 1500), [(4, 1), (2, 1), (1, 2)]);
    // One that is larger than a turn has it alone.
    assert_eq!(read_turn(&mut outbox, 10), [(1, 3), (1, 4)]);
    outbox.push(flushed(1, 5), None);
    assert_eq!(read_turn(&mut outbox, 10), [(1, 5)], "nothing of it waits any more");
    assert!(outbox.is_empty() && outbox.take(10).is_none());
    assert_eq!(outbox.bytes(), 0);
    assert!(window.take(1 << 20).now_or_never().flatten().is_some(), "all room has come back");
}

#[test]
fn many_messages_make_several_frames() {
    let mut outbox = Outbox::new();
    for index in 0..20_000 {
        outbox.push(Item::Group(said(index, Message::Resigned { epoch: 1 })), None);
    }
    let groups: Vec<i32> = read_turn(&mut outbox, 1).into_iter().map(|(group, _)| group).collect();
    assert_eq!(groups, (0..20_000).collect::<Vec<_>>());
}

/// A follower copies what it receives once, into its log: not before, because a frame grows.
#[test]
fn a_turn_of_payload_is_received_in_one_piece() {
    let payload = vec![7; Options::default().turn_bytes];
    let mut stream = frame::head(Kind::Groups, &[0; 4096], payload.len()).to_vec();
    stream.extend(&payload);
    let mut frames = FrameBuffer::new(LIMITS);
    let (mut rest, mut places) = (&stream[..], Vec::new());
    while !rest.is_empty() {
        let mut room = frames.room().unwrap();
        let spare = rest.len().min(room.capacity() - room.len());
        let (some, behind) = rest.split_at(spare.min(100_000));
        room.put_slice(some);
        places.push(room.as_ptr());
        (rest, _) = (behind, frames.put_back(room));
    }
    places.dedup();
    // The first is received into before it is known what comes.
    assert!(places.len() <= 2, "moved {} times", places.len() - 1);
    assert_eq!(frames.next_frame().unwrap().unwrap().payload, payload);
}
