//! Replication, as a pure function of what it is told: inputs in, actions out. No clock, no I/O, no
//! async.
//!
//! One [`node::Node`] is one replica's view of one group; it lives on the shard that owns the
//! replica. A group's log *is* the partition's log: an entry is a record batch, its term is the
//! batch's leader epoch. What raft needs beside batches takes no offset: epoch starts, changes of
//! members and new log starts are [marks](history::Mark), and a place in a log counts offsets and
//! marks ([`position::Position`]; their sum is raft's index).
//!
//! - [`node`]: state, inputs; its parts `election`, `follower`, `leader`; `progress` (of its log),
//!   `others` (the members), `standing` (what it tells its driver). [`message`]: all that goes in
//!   and comes out, and when a driver does what. [`actions`]: the list it comes out in.
//! - [`history`], [`run`]: the marks of a log, and a part of a log as it is sent.
//! - [`forced`]: what is decided from outside where a majority is gone.
//! - [`membership`], [`quorum`]: who belongs to a group, and how many are enough.
//! - [`persisted`], [`recovery`]: what is kept beside the log, and what both are after a crash.
//!
//! Rules, beside those of Ongaro's *Consensus: bridging theory and practice* (2014):
//! - What counts is flushed: a follower reports, and a leader counts, what is on disks.
//! - The high watermark is what `min.insync.replicas`, and at least a majority, have flushed
//!   ([`quorum::needed`]); raft's commit takes the majority alone, and governs elections and
//!   members. A replica's high watermark is never above what it has flushed itself, and never back.
//! - Nobody is asked to elect who hears of a leader: pre-vote, and votes only where no leader is
//!   known whose node can be talked to. Whether it can is for sessions between nodes to say, of all
//!   groups at once; so an idle group sends nothing, and has no deadline. A leader that can talk to
//!   no majority leads no more.
//! - Members change by joint consensus, one change at a time, once an entry of the leader's epoch
//!   is committed. Voters are disks: a wiped one is another.
//! - An (epoch, offset) is given once. Where a log takes back what somebody may have seen, its
//!   leader leads no more, or in another epoch ([`message::Input::TakenBack`]).
//! - A group of one disk keeps nothing beside its log: what it takes back nobody has seen, and its
//!   epoch is above all of the log.
//! - Who was told to take a snapshot, and has not fetched all of it, votes and cannot lead.
//! - What a peer says may be anything. What cannot be is not listened to, and what contradicts what
//!   was committed is reported, not followed ([`message::Action::Contradiction`]).
//!
//! Sources beside that: KIP-101 (leader epochs), KIP-595; Ongaro's message "bug in single-server
//! membership changes" (2015).

pub mod actions;
mod election;
mod follower;
pub mod forced;
pub mod history;
mod leader;
pub mod membership;
pub mod message;
pub mod node;
mod others;
pub mod persisted;
pub mod position;
mod progress;
pub mod quorum;
pub mod recovery;
pub mod run;
mod standing;

pub use leader::Refusal;

#[cfg(test)]
mod tests;
