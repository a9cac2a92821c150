//! Between flatbuffers and values: the only file, but for `greeting`, that knows the generated
//! code. What comes is verified, with limits to its depth, its tables and its size when written
//! out, before anything of it is read.

use bytes::Bytes;
use flatbuffers::{
    FlatBufferBuilder, Follow, UnionWIPOffset, Verifiable, VerifierOptions, WIPOffset,
};
use vltava_protocol::encode::{Part, Records};
use vltava_protocol::types::Uuid;

use super::frame::{Frame, FrameError, Kind};
use super::message::GroupMessage;
use super::schema::vltava::peer as wire;
use crate::metadata::image::PartitionId;
use crate::raft::history::{Base, Mark, What};
use crate::raft::membership::{Membership, ReplicaId, Seat};
use crate::raft::message::Message;
use crate::raft::position::Position;
use crate::raft::run::Run;

/// Group messages in one frame, at most.
pub(super) const MESSAGES_MAX: usize = 4096;
/// A frame of group messages is a table of tables of tables (a body) of tables (marks) of tables
/// (members).
const DEPTH_MAX: usize = 6;
/// Tables in one message: bounds what a small message can be blown up to.
const TABLES_MAX: usize = 32_768;
/// A message written out, without anything shared in it, is at most so many times as long.
const APPARENT_SIZE_FACTOR: usize = 4;
const APPARENT_SIZE_MIN: usize = 4096;

pub(super) type Builder = FlatBufferBuilder<'static>;

/// Reads a message in place, once it is verified.
pub(super) fn read<'a, T>(kind: Kind, message: &'a [u8]) -> Result<T::Inner, FrameError>
where
    T: 'a + Follow<'a> + Verifiable,
{
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: TABLES_MAX,
        max_apparent_size: (APPARENT_SIZE_FACTOR * message.len()).max(APPARENT_SIZE_MIN),
        ignore_missing_null_terminator: false,
    };
    let read = flatbuffers::root_with_opts::<T>(&options, message);
    read.map_err(|error| refused(kind, error.to_string()))
}

pub(super) fn refused(kind: Kind, why: impl Into<String>) -> FrameError {
    // The verifier's words name a path of fields, one line each.
    let why = why.into().split_whitespace().collect::<Vec<_>>().join(" ");
    FrameError::Message { kind, why }
}

pub(super) fn id(uuid: Uuid) -> wire::Id {
    let low = uuid.0 & u128::from(u64::MAX);
    // Both halves fit by construction.
    wire::Id::new(u64::try_from(uuid.0 >> 64).unwrap_or(0), u64::try_from(low).unwrap_or(0))
}

pub(super) fn uuid(id: &wire::Id) -> Uuid {
    Uuid(u128::from(id.high()) << 64 | u128::from(id.low()))
}

fn wire_position(position: Position) -> wire::Position {
    wire::Position::new(position.offset, position.marks, position.epoch)
}

fn position(wire: &wire::Position) -> Position {
    Position { epoch: wire.epoch(), offset: wire.offset(), marks: wire.marks() }
}

fn wire_seat(seat: &Seat) -> wire::Seat {
    wire::Seat::new(&id(seat.id.disk), seat.id.node, seat.roles())
}

fn seat(wire: &wire::Seat) -> Seat {
    let id = ReplicaId { node: wire.node(), disk: uuid(wire.disk()) };
    Seat::with_roles(id, wire.roles())
}

// What is sent.

/// A frame's message that says these. Their payloads follow it, in their order.
pub(super) fn write_groups<'m>(
    builder: &mut Builder,
    messages: impl Iterator<Item = &'m GroupMessage>,
) -> usize {
    builder.reset();
    let mut payload_bytes = 0;
    let mut written = Vec::new();
    for message in messages {
        payload_bytes += message.payload.len();
        written.push(write_group(builder, message));
    }
    let messages = builder.create_vector(&written);
    let messages = Some(messages);
    let root = wire::GroupMessages::create(builder, &wire::GroupMessagesArgs { messages });
    builder.finish(root, None);
    payload_bytes
}

pub(super) fn write_group(
    builder: &mut Builder,
    message: &GroupMessage,
) -> WIPOffset<wire::GroupMessage<'static>> {
    let (body_type, body) = write_body(builder, message);
    let PartitionId { topic_id, index } = message.group;
    let arguments = wire::GroupMessageArgs {
        topic_id: Some(&id(topic_id)),
        partition: index,
        from_disk: Some(&id(message.from_disk)),
        to_disk: Some(&id(message.to_disk)),
        body_type,
        body: Some(body),
        generation: message.generation,
    };
    wire::GroupMessage::create(builder, &arguments)
}

fn write_body(
    builder: &mut Builder,
    message: &GroupMessage,
) -> (wire::Body, WIPOffset<UnionWIPOffset>) {
    match &message.body {
        Message::Vote { epoch, is_pre, is_transfer, log_end } => {
            let (epoch, is_pre, is_transfer) = (*epoch, *is_pre, *is_transfer);
            let log_end = &wire_position(*log_end);
            let fields = wire::VoteArgs { epoch, is_pre, is_transfer, log_end: Some(log_end) };
            (wire::Body::Vote, wire::Vote::create(builder, &fields).as_union_value())
        }
        Message::VoteReply { epoch, is_pre, is_granted } => {
            let (epoch, is_pre, is_granted) = (*epoch, *is_pre, *is_granted);
            let fields = wire::VoteReplyArgs { epoch, is_pre, is_granted };
            (wire::Body::VoteReply, wire::VoteReply::create(builder, &fields).as_union_value())
        }
        Message::Append { .. } => (wire::Body::Append, write_append(builder, message)),
        Message::Snapshot { epoch, base, high_watermark } => {
            let members = Some(write_membership(builder, &base.members));
            let fields = wire::SnapshotArgs {
                epoch: *epoch,
                base: Some(&wire_position(base.at)),
                members,
                high_watermark: *high_watermark,
                log_start: base.log_start,
            };
            (wire::Body::Snapshot, wire::Snapshot::create(builder, &fields).as_union_value())
        }
        Message::Flushed { epoch, index } => {
            let fields = wire::FlushedArgs { epoch: *epoch, index: *index };
            (wire::Body::Flushed, wire::Flushed::create(builder, &fields).as_union_value())
        }
        Message::Diverged { epoch, rejected, end } => {
            let (epoch, rejected, end) = (*epoch, *rejected, &wire_position(*end));
            let fields = wire::DivergedArgs { epoch, rejected, end: Some(end) };
            (wire::Body::Diverged, wire::Diverged::create(builder, &fields).as_union_value())
        }
        Message::Committed { epoch, committed, high_watermark } => {
            let (epoch, committed) = (*epoch, *committed);
            let high_watermark = *high_watermark;
            let fields = wire::CommittedArgs { epoch, committed, high_watermark };
            (wire::Body::Committed, wire::Committed::create(builder, &fields).as_union_value())
        }
        Message::TimeoutNow { epoch } => {
            let fields = wire::TimeoutNowArgs { epoch: *epoch };
            (wire::Body::TimeoutNow, wire::TimeoutNow::create(builder, &fields).as_union_value())
        }
        Message::Resigned { epoch } => {
            let fields = wire::ResignedArgs { epoch: *epoch };
            (wire::Body::Resigned, wire::Resigned::create(builder, &fields).as_union_value())
        }
    }
}

fn write_append(builder: &mut Builder, message: &GroupMessage) -> WIPOffset<UnionWIPOffset> {
    let Message::Append { epoch, run, committed, high_watermark } = &message.body else {
        unreachable!("called for an append only");
    };
    let run_marks = (!run.marks.is_empty()).then(|| {
        let marks: Vec<_> = run.marks.iter().map(|mark| write_mark(builder, mark)).collect();
        builder.create_vector(&marks)
    });
    let Ok(payload_bytes) = u32::try_from(message.payload.len()) else {
        panic!("a payload of {} bytes: there are limits far below", message.payload.len());
    };
    let fields = wire::AppendArgs {
        epoch: *epoch,
        run_from: Some(&wire_position(run.from)),
        run_end: Some(&wire_position(run.end)),
        run_marks,
        committed: *committed,
        high_watermark: *high_watermark,
        payload_bytes,
    };
    wire::Append::create(builder, &fields).as_union_value()
}

fn write_mark(builder: &mut Builder, mark: &Mark) -> WIPOffset<wire::Mark<'static>> {
    let (kind, membership, log_start) = match &mark.what {
        What::EpochStart => (wire::MarkKind::EpochStart, None, 0),
        What::Membership(members) => {
            (wire::MarkKind::Membership, Some(write_membership(builder, members)), 0)
        }
        What::LogStart(offset) => (wire::MarkKind::LogStart, None, *offset),
        What::Forced(members) => {
            (wire::MarkKind::Forced, Some(write_membership(builder, members)), 0)
        }
    };
    let (epoch, index) = (mark.epoch, mark.index);
    wire::Mark::create(builder, &wire::MarkArgs { epoch, index, kind, membership, log_start })
}

fn write_membership(
    builder: &mut Builder,
    members: &Membership,
) -> WIPOffset<wire::Membership<'static>> {
    let seats: Vec<_> = members.seats().iter().map(wire_seat).collect();
    let seats = Some(builder.create_vector(&seats));
    wire::Membership::create(builder, &wire::MembershipArgs { seats })
}

pub(super) fn write_request(builder: &mut Builder, id: u64, kind: u16) {
    builder.reset();
    let root = wire::Request::create(builder, &wire::RequestArgs { id, kind });
    builder.finish(root, None);
}

pub(super) fn write_response(builder: &mut Builder, id: u64, is_busy: bool) {
    builder.reset();
    let outcome = if is_busy { wire::Outcome::Busy } else { wire::Outcome::Answered };
    let root = wire::Response::create(builder, &wire::ResponseArgs { id, outcome });
    builder.finish(root, None);
}

// What has come.

/// The messages of a frame, with their payloads as slices of it.
pub(super) fn read_groups(frame: &Frame) -> Result<Vec<GroupMessage>, FrameError> {
    let root = read::<wire::GroupMessages>(Kind::Groups, &frame.message)?;
    let messages = root.messages();
    if messages.len() > MESSAGES_MAX {
        return Err(refused(Kind::Groups, format!("{} messages in one frame", messages.len())));
    }
    let mut payload = frame.payload.clone();
    let read: Result<Vec<_>, _> =
        messages.iter().map(|message| read_group(&message, &mut payload)).collect();
    if !payload.is_empty() {
        return Err(refused(Kind::Groups, format!("{} bytes that are nobody's", payload.len())));
    }
    read
}

fn read_group(
    message: &wire::GroupMessage<'_>,
    rest: &mut Bytes,
) -> Result<GroupMessage, FrameError> {
    let (body, payload_bytes) = read_body(message)?;
    if payload_bytes > rest.len() {
        let why = format!("a payload of {payload_bytes} bytes where {} are left", rest.len());
        return Err(refused(Kind::Groups, why));
    }
    let payload = rest.split_to(payload_bytes);
    let parts = if payload.is_empty() { Vec::new() } else { vec![Part::Memory(payload)] };
    Ok(GroupMessage {
        group: PartitionId { topic_id: uuid(message.topic_id()), index: message.partition() },
        from_disk: uuid(message.from_disk()),
        to_disk: uuid(message.to_disk()),
        generation: message.generation(),
        body,
        payload: Records { parts },
    })
}

/// What is said, and how much of the payload belongs to it.
fn read_body(message: &wire::GroupMessage<'_>) -> Result<(Message, usize), FrameError> {
    if let Some(append) = message.body_as_append() {
        return read_append(&append);
    }
    let body = if let Some(vote) = message.body_as_vote() {
        Some(Message::Vote {
            epoch: vote.epoch(),
            is_pre: vote.is_pre(),
            is_transfer: vote.is_transfer(),
            log_end: position(vote.log_end()),
        })
    } else if let Some(reply) = message.body_as_vote_reply() {
        let (is_pre, is_granted) = (reply.is_pre(), reply.is_granted());
        Some(Message::VoteReply { epoch: reply.epoch(), is_pre, is_granted })
    } else if let Some(snapshot) = message.body_as_snapshot() {
        let base = Base {
            at: position(snapshot.base()),
            members: read_membership(&snapshot.members())?,
            log_start: snapshot.log_start(),
        };
        Some(Message::Snapshot {
            epoch: snapshot.epoch(),
            base: Box::new(base),
            high_watermark: snapshot.high_watermark(),
        })
    } else if let Some(flushed) = message.body_as_flushed() {
        Some(Message::Flushed { epoch: flushed.epoch(), index: flushed.index() })
    } else if let Some(told) = message.body_as_committed() {
        let (committed, high_watermark) = (told.committed(), told.high_watermark());
        Some(Message::Committed { epoch: told.epoch(), committed, high_watermark })
    } else if let Some(diverged) = message.body_as_diverged() {
        let (rejected, end) = (diverged.rejected(), position(diverged.end()));
        Some(Message::Diverged { epoch: diverged.epoch(), rejected, end })
    } else if let Some(timeout) = message.body_as_timeout_now() {
        Some(Message::TimeoutNow { epoch: timeout.epoch() })
    } else {
        message.body_as_resigned().map(|resigned| Message::Resigned { epoch: resigned.epoch() })
    };
    let unknown = || {
        let number = message.body_type().0;
        refused(Kind::Groups, format!("a body of type {number}, which does not exist"))
    };
    body.map(|body| (body, 0)).ok_or_else(unknown)
}

fn read_append(append: &wire::Append<'_>) -> Result<(Message, usize), FrameError> {
    let marks = append.run_marks().into_iter().flatten();
    let marks: Result<Vec<_>, _> = marks.map(|mark| read_mark(&mark)).collect();
    let run =
        Run { from: position(append.run_from()), end: position(append.run_end()), marks: marks? };
    let (committed, high_watermark) = (append.committed(), append.high_watermark());
    // What does not fit is more than any frame has.
    let payload_bytes = usize::try_from(append.payload_bytes()).unwrap_or(usize::MAX);
    Ok((Message::Append { epoch: append.epoch(), run, committed, high_watermark }, payload_bytes))
}

fn read_mark(mark: &wire::Mark<'_>) -> Result<Mark, FrameError> {
    let what = match (mark.kind(), mark.membership()) {
        (wire::MarkKind::EpochStart, _) => What::EpochStart,
        (wire::MarkKind::Membership, Some(members)) => {
            What::Membership(Box::new(read_membership(&members)?))
        }
        (wire::MarkKind::Forced, Some(members)) => {
            What::Forced(Box::new(read_membership(&members)?))
        }
        (wire::MarkKind::Membership | wire::MarkKind::Forced, None) => {
            return Err(refused(Kind::Groups, "a change of members without members"));
        }
        (wire::MarkKind::LogStart, _) => What::LogStart(mark.log_start()),
        (wire::MarkKind(number), _) => {
            return Err(refused(Kind::Groups, format!("a mark of kind {number}")));
        }
    };
    Ok(Mark { epoch: mark.epoch(), index: mark.index(), what })
}

fn read_membership(members: &wire::Membership<'_>) -> Result<Membership, FrameError> {
    let seats = members.seats().iter().map(seat).collect();
    let refused = || refused(Kind::Groups, "members that no group can have");
    Membership::from_seats(seats).ok_or_else(refused)
}

/// A request's id, and which room it is for.
pub(super) fn read_request(message: &[u8]) -> Result<(u64, u16), FrameError> {
    let request = read::<wire::Request>(Kind::Request, message)?;
    Ok((request.id(), request.kind()))
}

/// Which request this answers, and whether nothing was done.
pub(super) fn read_response(message: &[u8]) -> Result<(u64, bool), FrameError> {
    let response = read::<wire::Response>(Kind::Response, message)?;
    match response.outcome() {
        wire::Outcome::Answered => Ok((response.id(), false)),
        wire::Outcome::Busy => Ok((response.id(), true)),
        wire::Outcome(number) => Err(refused(Kind::Response, format!("an outcome {number}"))),
    }
}

/// What a heartbeat, or a start, is of.
pub(super) fn read_session(frame: &Frame) -> Result<u64, FrameError> {
    match frame.kind {
        Kind::Start => read::<wire::Start>(frame.kind, &frame.message).map(|start| start.session()),
        Kind::Heartbeat => {
            read::<wire::Heartbeat>(frame.kind, &frame.message).map(|beat| beat.session())
        }
        kind => Err(FrameError::Unexpected(kind)),
    }
}

/// A whole frame that says that a session begins, or that the sender lives in it.
pub(super) fn session_frame(kind: Kind, session: u64) -> Bytes {
    let mut builder = Builder::new();
    match kind {
        Kind::Start => {
            let root = wire::Start::create(&mut builder, &wire::StartArgs { session });
            builder.finish(root, None);
        }
        _ => {
            let root = wire::Heartbeat::create(&mut builder, &wire::HeartbeatArgs { session });
            builder.finish(root, None);
        }
    }
    super::frame::head(kind, builder.finished_data(), 0)
}
