//! Everything that goes into a [`super::node::Node`], and everything that comes out; what replicas
//! of a group say to each other.

use super::history::{Base, Mark};
use super::membership::ReplicaId;
use super::position::Position;
use super::run::Run;

/// From one replica of a group to another. Batches travel beside it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Message {
    /// Asks for a vote.
    Vote {
        /// The epoch that the candidate would lead.
        epoch: i32,
        /// Only whether there would be one (Ongaro 9.6): nothing changes by it.
        is_pre: bool,
        /// The leader asked for this election.
        is_transfer: bool,
        /// Where the candidate's log ends.
        log_end: Position,
    },
    /// The answer.
    VoteReply {
        /// The epoch asked for where it is granted, else the answerer's.
        epoch: i32,
        /// As in the question.
        is_pre: bool,
        /// Whether.
        is_granted: bool,
    },
    /// The log goes on like this; also with nothing in it: the leader leads.
    Append {
        /// The leader's.
        epoch: i32,
        /// What stands between two places of its log.
        run: Run,
        /// Raft's commit: entries below this index are chosen.
        committed: i64,
        /// What clients may see.
        high_watermark: i64,
    },
    /// The leader no longer knows the marks that this follower would need next: it takes the
    /// leader's log up to a place that is committed as it is. The batches between log start and
    /// base travel by another way.
    Snapshot {
        /// The leader's.
        epoch: i32,
        /// The place, with what stands before.
        base: Box<Base>,
        /// What clients may see.
        high_watermark: i64,
    },
    /// To who has all of the log: what is chosen, and what clients may see. Else the next
    /// [`Message::Append`] says it.
    Committed {
        /// The leader's.
        epoch: i32,
        /// As in an append.
        committed: i64,
        /// As in an append.
        high_watermark: i64,
    },
    /// The follower's log is the leader's, and on disk, below this index.
    Flushed {
        /// The leader's.
        epoch: i32,
        /// The first index that is not.
        index: i64,
    },
    /// The follower's log is not the leader's at the beginning of a run.
    Diverged {
        /// The leader's.
        epoch: i32,
        /// The index at which the run began.
        rejected: i64,
        /// The end of the follower's newest epoch that is no newer than the run's begin.
        end: Position,
    },
    /// To be leader now: the leader asks for it.
    TimeoutNow {
        /// The leader's.
        epoch: i32,
    },
    /// The leader leads no more.
    Resigned {
        /// The leader's.
        epoch: i32,
    },
}

impl Message {
    /// Its epoch.
    pub fn epoch(&self) -> i32 {
        match self {
            Self::Vote { epoch, .. }
            | Self::VoteReply { epoch, .. }
            | Self::Append { epoch, .. }
            | Self::Snapshot { epoch, .. }
            | Self::Committed { epoch, .. }
            | Self::Flushed { epoch, .. }
            | Self::Diverged { epoch, .. }
            | Self::TimeoutNow { epoch }
            | Self::Resigned { epoch } => *epoch,
        }
    }

    /// How many offsets the batches beside it have.
    pub fn offsets(&self) -> i64 {
        match self {
            Self::Append { run, .. } => run.end.offset - run.from.offset,
            _ => 0,
        }
    }

    /// Whether a replica can have said this. What is not is not listened to.
    pub fn is_sound(&self) -> bool {
        let epoch = self.epoch();
        let is_sound = match self {
            Self::Vote { log_end, .. } => log_end.is_sound() && log_end.epoch <= epoch,
            Self::Append { run, .. } => run.is_sound(epoch),
            Self::Snapshot { base, .. } => {
                base.at.is_sound()
                    && base.at.epoch <= epoch
                    && (0..=base.at.offset).contains(&base.log_start)
                    && !base.members.seats().is_empty()
            }
            Self::Diverged { end, .. } => end.is_sound(),
            _ => true,
        };
        // Nothing comes behind the largest epoch: nobody leads at it.
        (0..i32::MAX).contains(&epoch) && is_sound
    }
}

/// What a node is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// The node's deadline has come.
    Deadline,
    /// Another node of the cluster can be talked to, by a new session: what was said in an earlier
    /// one may be lost, and nothing of it is received any more. Within a session messages may be
    /// lost, doubled and reordered.
    PeerUp(i32),
    /// It cannot.
    PeerDown(i32),
    /// A replica of the group says something.
    Received {
        /// Who.
        from: ReplicaId,
        /// What.
        message: Message,
    },
    /// Batches of so many offsets stand at the end of the leader's log.
    Appended {
        /// How many.
        offsets: i64,
    },
    /// The log's batches are on disk below this offset. Not to be said while an
    /// [`Action::Truncate`] or [`Action::Restore`] waits to be done: the log speaks of what is cut
    /// then.
    Flushed {
        /// The first offset that is not.
        end_offset: i64,
    },
    /// The first so many marks of the log are on disk (counted as [`Position::marks`] counts), and
    /// the same holds.
    MarksFlushed {
        /// How many.
        marks: i64,
    },
    /// For want of space a write failed, and the log took back what was not flushed; or it did not
    /// take what came last, and what is before that is still to be written. It ends at this offset,
    /// and may go on from there.
    TakenBack {
        /// Where the log's batches end.
        end_offset: i64,
    },
    /// The disk failed: nothing more becomes durable here before a restart.
    LogEnded,
}

/// What a node asks of its driver.
///
/// Actions are done in their order, also those of one input behind those of the one before. What
/// stands behind an [`Action::Persist`] is done when that is durable; and while anything waits to
/// be done, the node is not believed: it may lead only once its epoch is kept. `docs/invariants.md`
/// says in which order marks and batches become durable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Epoch, vote and generation are to survive a restart.
    Persist {
        /// The newest epoch known.
        epoch: i32,
        /// Who got the vote in it.
        vote: Option<ReplicaId>,
        /// See [`super::node::Node::generation`].
        generation: i32,
        /// What was voted before is not known ([`super::node::Node::lose_votes`]).
        are_votes_lost: bool,
    },
    /// Say this.
    Send {
        /// To whom.
        to: ReplicaId,
        /// What.
        message: Message,
    },
    /// Ask [`super::node::Node::append_for`] what this member is to be sent.
    Replicate {
        /// Who.
        to: ReplicaId,
    },
    /// Write a mark at the end of the log (as leader).
    WriteMark(Mark),
    /// Cut the log here, before anything else is written: batches first, then marks.
    Truncate {
        /// What stands behind is gone.
        to: Position,
    },
    /// Write what was received at the end of the log: of the message's batches, those in this run.
    Write(Run),
    /// The log is given up for the leader's up to the base of the node's history: batches from the
    /// leader's log start to the base's offset are to be fetched from whoever leads, all else is to
    /// go; where the base is the beginning, all of it. Then [`Input::Flushed`] says that they are
    /// there. After a restart in between it is asked for again.
    Restore {
        /// Batches below this offset are the leader's already.
        kept: i64,
    },
    /// Batches below this offset may be served and acknowledged.
    HighWatermark {
        /// The first that may not.
        offset: i64,
    },
    /// The role, the leader or the epoch is another: see the node.
    RoleChanged,
    /// What was lost of the log ([`super::node::Found::is_lost`]) is there again: that is to
    /// survive a restart.
    Regained,
    /// A leader's log differs here from what was committed: one of the two is not what its disk was
    /// given. Nothing of it was taken; an operator must look.
    Contradiction {
        /// The index.
        index: i64,
    },
}
