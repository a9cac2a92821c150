//! What waits to be sent on one lane, and in which order it goes.
//!
//! What has no payload (votes, what was flushed, small requests) goes before what has: an election
//! must not wait behind megabytes. But what one group says stays in order: where a message of it
//! waits with its payload, everything later of that group waits behind.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use vltava_protocol::encode::Part;

use super::codec::{self, Builder, MESSAGES_MAX};
use super::frame::{self, Kind};
use super::message::GroupMessage;
use super::options::MESSAGE_BYTES_MAX;
use super::window::Taken;
use crate::metadata::image::PartitionId;

/// Bytes of messages in one frame, estimated: well below what the other side takes in.
const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX / 4;
/// What a request or its answer takes beside its body.
const REQUEST_BYTES: usize = 64;
/// Bodies of requests up to this go with what has no payload, in bytes.
pub(super) const SMALL_BODY_BYTES: usize = 4 << 10;

/// One thing to be said.
#[derive(Debug)]
pub(super) enum Item {
    Group(GroupMessage),
    Request {
        id: u64,
        kind: u16,
        body: Bytes,
    },
    Response {
        id: u64,
        is_busy: bool,
        body: Bytes,
    },
    /// Nothing: the lane is used, so that the other side sees it work.
    Heartbeat {
        session: u64,
    },
}

impl Item {
    fn payload_bytes(&self) -> usize {
        match self {
            Self::Group(message) => message.payload.len(),
            Self::Request { body, .. } | Self::Response { body, .. } => body.len(),
            Self::Heartbeat { .. } => 0,
        }
    }

    /// About what it takes on the wire, and here, without what is paid for by a window.
    fn bytes(&self) -> usize {
        match self {
            Self::Group(message) => message.wire_bytes(),
            Self::Request { body, .. } | Self::Response { body, .. } => {
                REQUEST_BYTES + body.len().min(SMALL_BODY_BYTES)
            }
            Self::Heartbeat { .. } => REQUEST_BYTES,
        }
    }
}

#[derive(Debug)]
struct Waiting {
    item: Item,
    /// Free again when it has been sent.
    room: Option<Taken>,
}

/// What goes into the socket next, together.
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// In order.
    pub(super) parts: Vec<Part>,
    /// Dropped when it has been sent.
    pub(super) rooms: Vec<Taken>,
}

/// See the module.
pub(super) struct Outbox {
    urgent: VecDeque<Waiting>,
    bulk: VecDeque<Waiting>,
    /// How many messages of a group stand in `bulk`.
    bulk_groups: BTreeMap<PartitionId, usize>,
    /// Of both queues, estimated, without payloads.
    bytes: usize,
    builder: Builder,
}

impl Outbox {
    pub(super) fn new() -> Self {
        Self {
            urgent: VecDeque::new(),
            bulk: VecDeque::new(),
            bulk_groups: BTreeMap::new(),
            bytes: 0,
            builder: Builder::new(),
        }
    }

    /// What waits, in estimated bytes, without payloads.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.urgent.is_empty() && self.bulk.is_empty()
    }

    pub(super) fn push(&mut self, item: Item, room: Option<Taken>) {
        self.bytes += item.bytes();
        let is_bulk = room.is_some();
        match &item {
            Item::Group(GroupMessage { group, .. }) if is_bulk => {
                *self.bulk_groups.entry(*group).or_default() += 1;
            }
            Item::Group(GroupMessage { group, .. }) => {
                if let Some(count) = self.bulk_groups.get_mut(group) {
                    *count += 1;
                    return self.bulk.push_back(Waiting { item, room });
                }
            }
            _ => {}
        }
        let queue = if is_bulk { &mut self.bulk } else { &mut self.urgent };
        queue.push_back(Waiting { item, room });
    }

    /// Takes what goes next: all that is urgent, and payload of about `payload_bytes`; nothing
    /// where nothing waits.
    pub(super) fn take(&mut self, payload_bytes: usize) -> Option<Turn> {
        if self.is_empty() {
            return None;
        }
        let mut turn = Turn::default();
        let urgent = std::mem::take(&mut self.urgent);
        self.write(urgent, &mut turn);
        let (mut chosen, mut bytes) = (VecDeque::new(), 0);
        while let Some(next) = self.bulk.front() {
            let more = next.item.payload_bytes();
            if !chosen.is_empty() && more > 0 && bytes + more > payload_bytes {
                break;
            }
            bytes += more;
            chosen.extend(self.bulk.pop_front());
        }
        for waiting in &chosen {
            if let Item::Group(GroupMessage { group, .. }) = &waiting.item
                && let Some(count) = self.bulk_groups.get_mut(group)
            {
                *count -= 1;
                if *count == 0 {
                    self.bulk_groups.remove(group);
                }
            }
        }
        self.write(chosen, &mut turn);
        Some(turn)
    }

    /// Frames for these, in their order; those of groups together where they follow each other.
    fn write(&mut self, items: VecDeque<Waiting>, turn: &mut Turn) {
        let (mut together, mut together_bytes) = (Vec::new(), 0);
        for Waiting { item, room } in items {
            let bytes = item.bytes();
            self.bytes -= bytes;
            turn.rooms.extend(room);
            let is_full =
                together.len() >= MESSAGES_MAX || together_bytes + bytes > FRAME_BYTES_MAX;
            let message = match item {
                Item::Group(message) if !is_full => Ok(message),
                item => Err(item),
            };
            match message {
                Ok(message) => {
                    together_bytes += bytes;
                    together.push(message);
                }
                Err(item) => {
                    self.write_groups(&mut together, turn);
                    together_bytes = 0;
                    match item {
                        Item::Group(message) => {
                            together_bytes = bytes;
                            together.push(message);
                        }
                        item => self.write_alone(item, turn),
                    }
                }
            }
        }
        self.write_groups(&mut together, turn);
    }

    fn write_groups(&mut self, messages: &mut Vec<GroupMessage>, turn: &mut Turn) {
        if messages.is_empty() {
            return;
        }
        let payload_bytes = codec::write_groups(&mut self.builder, messages.iter());
        let head = frame::head(Kind::Groups, self.builder.finished_data(), payload_bytes);
        turn.parts.push(Part::Memory(head));
        for message in messages.drain(..) {
            turn.parts.extend(message.payload.parts);
        }
    }

    fn write_alone(&mut self, item: Item, turn: &mut Turn) {
        let (kind, body) = match item {
            Item::Request { id, kind, body } => {
                codec::write_request(&mut self.builder, id, kind);
                (Kind::Request, body)
            }
            Item::Response { id, is_busy, body } => {
                codec::write_response(&mut self.builder, id, is_busy);
                (Kind::Response, body)
            }
            Item::Heartbeat { session } => {
                let frame = codec::session_frame(Kind::Heartbeat, session);
                return turn.parts.push(Part::Memory(frame));
            }
            Item::Group(_) => unreachable!("groups are written together"),
        };
        let head = frame::head(kind, self.builder.finished_data(), body.len());
        turn.parts.push(Part::Memory(head));
        turn.parts.push(Part::Memory(body));
    }
}
