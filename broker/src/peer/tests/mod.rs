//! Frames under hostile hands, and sessions of several nodes on the simulated network.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::print_stdout,
    reason = "a failed expectation is a failed test"
)]

#[cfg(feature = "simulator")]
mod cluster;
#[cfg(feature = "simulator")]
mod faults;
mod frames;
mod machine;
#[cfg(feature = "simulator")]
mod sessions;
mod versions;

use bytes::Bytes;
use vltava_protocol::encode::{Part, Records};
use vltava_protocol::types::Uuid;

use super::message::GroupMessage;
use crate::metadata::image::PartitionId;
use crate::raft::history::{Base, Mark, What};
use crate::raft::membership::{Membership, ReplicaId};
use crate::raft::message::Message;
use crate::raft::position::Position;
use crate::raft::run::Run;

fn group(index: i32) -> PartitionId {
    PartitionId { topic_id: Uuid(0x1234_5678_9abc_def0_0fed_cba9_8765_4321), index }
}

fn records(bytes: impl Into<Bytes>) -> Records {
    Records { parts: vec![Part::Memory(bytes.into())] }
}

fn said(index: i32, body: Message) -> GroupMessage {
    let (from_disk, to_disk) = (Uuid(77), Uuid(u128::MAX - 3));
    let generation = -1;
    GroupMessage {
        group: group(index),
        from_disk,
        to_disk,
        generation,
        body,
        payload: Records::default(),
    }
}

/// A run in which nothing stands.
fn nothing() -> Run {
    Run { from: Position::ZERO, end: Position::ZERO, marks: Vec::new() }
}

/// One of each kind.
fn one_of_each() -> Vec<GroupMessage> {
    let at = |epoch, offset| Position { epoch, offset, marks: offset / 7 };
    let replica = |node| ReplicaId { node, disk: Uuid(u128::from(node as u32) << 65 | 1) };
    let before = Membership::new([replica(1), replica(3)], [replica(i32::MAX)]);
    let after = Membership::new([replica(1), replica(2), replica(3)], [replica(i32::MAX)]);
    let members = before.entering(&after);
    let base = Base { at: at(3, 5), members: before, log_start: 4 };
    let marks = vec![
        Mark { epoch: 4, index: 70, what: What::EpochStart },
        Mark { epoch: 4, index: 71, what: What::Membership(Box::new(members)) },
        Mark { epoch: 4, index: 90, what: What::LogStart(-1) },
        Mark { epoch: 4, index: 91, what: What::Membership(Box::new(after)) },
    ];
    let run = Run { from: at(3, 60), end: at(4, i64::MAX / 2), marks };
    let append = |run| Message::Append { epoch: 4, run, committed: 12, high_watermark: i64::MAX };
    let bodies = vec![
        Message::Vote { epoch: 5, is_pre: true, is_transfer: false, log_end: at(-1, 0) },
        Message::Vote { epoch: 6, is_pre: false, is_transfer: true, log_end: at(4, 9) },
        Message::VoteReply { epoch: i32::MAX, is_pre: false, is_granted: true },
        append(run),
        Message::Snapshot { epoch: 4, base: Box::new(base), high_watermark: 5 },
        Message::Flushed { epoch: 4, index: 17 },
        Message::Diverged { epoch: 4, rejected: 60, end: at(2, 40) },
        append(nothing()),
        Message::Committed { epoch: 4, committed: 17, high_watermark: 9 },
        Message::TimeoutNow { epoch: 4 },
        Message::Resigned { epoch: 0 },
    ];
    let mut messages: Vec<_> = (0..).zip(bodies).map(|(index, body)| said(index, body)).collect();
    messages[3].payload = records(vec![7u8; 300]);
    messages[7].payload = records(&b"batches"[..]);
    messages
}

/// What must come as it went.
fn essence(message: &GroupMessage) -> (PartitionId, Uuid, Uuid, Message, Bytes) {
    let payload = message.payload.to_bytes().expect("in memory");
    (message.group, message.from_disk, message.to_disk, message.body.clone(), payload)
}

/// xorshift64*.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % below.max(1)
    }
}
