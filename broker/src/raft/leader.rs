//! Leaders: what each member has, what of it is chosen, and what only a leader may begin.

use super::actions::Actions;
use super::history::{MARKS_KEPT, What};
use super::membership::{MEMBERS_MAX, Membership, ReplicaId};
use super::message::{Action, Message};
use super::node::{Node, Role, Turn};
use super::others::Other;
use super::position::Position;

/// Marks in one message, each of which may name as many members as a group can have: far below what
/// the way to another node takes.
const MARKS_SENT_MAX: usize = 2 * MARKS_KEPT;

/// Why a leader cannot do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It does not lead.
    NotLeader,
    /// Another change of membership is not committed yet, or this epoch's start is not.
    ChangeUnderWay,
    /// It is handing over.
    HandingOver,
    /// Too few of the voters that would be can be talked to, or there would be too many members.
    NoQuorum,
    /// Whoever is to lead is no other voter.
    NoVoter,
    /// Too much is under way that is not committed.
    Crowded,
}

impl Node {
    /// Begins a change of the members: the voters and learners of `next`.
    ///
    /// # Errors
    /// Where this replica cannot.
    pub fn change_members(&mut self, now: u64, next: &Membership) -> Result<Actions, Refusal> {
        if self.role != Role::Leader {
            return Err(Refusal::NotLeader);
        }
        if next.seats().len() > MEMBERS_MAX || !next.left().is_quorum(|id| self.is_up(id)) {
            return Err(Refusal::NoQuorum);
        }
        if !next.voters().all(|id| self.members().is_voter(&id) || self.has_entered(&id)) {
            return Err(Refusal::NoQuorum);
        }
        // Also the epoch's own start has to be committed (Ongaro's erratum of 2015).
        if !self.has_settled_members() {
            return Err(Refusal::ChangeUnderWay);
        }
        let mut turn = Turn::new(now);
        let members = self.members().entering(next);
        self.write_mark(&mut turn, What::Membership(Box::new(members)));
        self.replicate(&mut turn);
        Ok(turn.actions)
    }

    /// Whether a change of the members could begin here: this replica leads, an entry of its epoch
    /// is committed, and so are its members, which are not in the middle of a change.
    pub fn has_settled_members(&self) -> bool {
        let is_committed = |at: i64| at < self.committed;
        let is_idle = self.history.members_written_at().is_none_or(is_committed);
        self.leads().is_some() && is_idle && !self.members().is_joint()
    }

    /// Below this index the log of another member, also of a learner, is this leader's and on its
    /// disk; `None` where it does not belong to the group, or cannot be talked to.
    pub fn index_flushed_by(&self, id: &ReplicaId) -> Option<i64> {
        self.other(id).filter(|_| self.is_up(id)).map(|other| other.flushed)
    }

    /// Whether a member has something of this generation on its disk. Who has not has no say: as a
    /// voter it could keep the group from electing anybody.
    fn has_entered(&self, id: &ReplicaId) -> bool {
        let end = self.other(id).and_then(|other| self.history.at(other.flushed));
        self.generation < 0 || end.is_some_and(|end| end.epoch >= self.generation)
    }

    /// Moves the log's start, in all replicas: once that is committed, nobody needs what is below
    /// this offset.
    ///
    /// # Errors
    /// Where this replica does not lead, or nothing that it writes is committed.
    pub fn move_log_start(&mut self, now: u64, offset: i64) -> Result<Actions, Refusal> {
        if self.role != Role::Leader {
            return Err(Refusal::NotLeader);
        }
        if self.history.marks().len() > 2 * MARKS_KEPT {
            return Err(Refusal::Crowded);
        }
        let mut turn = Turn::new(now);
        self.write_mark(&mut turn, What::LogStart(offset));
        self.replicate(&mut turn);
        Ok(turn.actions)
    }

    /// Whether a move of the log's start is not committed yet: one at a time is enough.
    pub fn is_moving_log_start(&self) -> bool {
        let end = self.history.end().index();
        self.history.log_start_between(self.committed, end).is_some()
    }

    /// Hands leadership to another voter, once that has all of the log. Writes are refused
    /// meanwhile, for an election's time at most.
    ///
    /// # Errors
    /// Where this replica cannot.
    pub fn hand_over(&mut self, now: u64, to: ReplicaId) -> Result<Actions, Refusal> {
        if self.role != Role::Leader {
            return Err(Refusal::NotLeader);
        }
        if self.handing_over.is_some() {
            return Err(Refusal::HandingOver);
        }
        if to == self.id || !self.members().voters().any(|voter| voter == to) {
            return Err(Refusal::NoVoter);
        }
        let mut turn = Turn::new(now);
        self.handing_over = Some(to);
        self.deadline = Some(now + self.options.election_ms);
        self.hand_over_if_ready(&mut turn);
        self.replicate(&mut turn);
        Ok(turn.actions)
    }

    /// The next message for a member: entries up to `until` at most, in whole batches (the driver
    /// chooses, and sends the batches along). `None`: nothing now.
    pub fn append_for(&mut self, to: ReplicaId, until: i64) -> Option<Message> {
        if self.role != Role::Leader || !self.is_up(&to) {
            return None;
        }
        let (epoch, high_watermark) = (self.epoch, self.high_watermark);
        let nth = self.others.iter().position(|other| other.id == to)?;
        let other = self.others[nth];
        if other.is_probing && other.has_asked {
            return None;
        }
        if other.next < self.history.base().at.index() {
            (self.others[nth].is_probing, self.others[nth].has_asked) = (true, true);
            let base = Box::new(self.snapshot()?);
            return Some(Message::Snapshot { epoch, base, high_watermark });
        }
        // A probe carries nothing: it may be refused.
        let until = if other.is_probing { other.next } else { until.max(other.next) };
        let run = self.history.run(other.next, until)?;
        let other = &mut self.others[nth];
        (other.next, other.has_asked, other.told) = (until, true, (self.committed, high_watermark));
        self.sent = self.sent.max(until);
        Some(Message::Append { epoch, run, committed: self.committed, high_watermark })
    }

    /// Whether a member is to be sent something: entries that are flushed here, a snapshot, or a
    /// question.
    pub fn has_for(&self, to: &ReplicaId) -> bool {
        let has = |other: &Other| match other.is_probing {
            true => !other.has_asked,
            false => other.next < self.flushed,
        };
        self.role == Role::Leader && self.is_up(to) && self.other(to).is_some_and(has)
    }

    /// The other voters that can be talked to and have all that is committed.
    pub fn caught_up(&self) -> impl Iterator<Item = ReplicaId> {
        let has_all = |other: &&Other| other.flushed >= self.committed && self.is_up(&other.id);
        let others = self.others.iter().filter(has_all).map(|other| other.id);
        others.filter(|id| self.members().is_voter(id))
    }

    /// The other members: who, and what of this leader's log is on its disk (-1: it has said
    /// nothing in this epoch).
    pub fn other_members(&self) -> impl Iterator<Item = (ReplicaId, i64)> {
        self.others.iter().map(|other| (other.id, other.flushed))
    }

    /// Below which offset a member has the log on its disk, as far as this leader knows; -1: it has
    /// said nothing yet.
    pub fn end_of(&self, id: &ReplicaId) -> i64 {
        if *id == self.id {
            return self.history.at(self.flushed).map_or(-1, |at| at.offset);
        }
        let at = self.other(id).and_then(|other| self.history.at(other.flushed));
        at.map_or(-1, |at| at.offset)
    }

    /// The members for which there is something.
    pub fn members_behind(&self) -> impl Iterator<Item = ReplicaId> {
        self.others.iter().map(|other| other.id).filter(|id| self.has_for(id))
    }

    /// Whether it is not known where a member's log agrees with this leader's.
    pub fn is_asking(&self, id: &ReplicaId) -> bool {
        self.other(id).is_some_and(|other| other.is_probing)
    }

    /// What may be sent to a member next ends here: it is flushed, and has not too many marks.
    pub fn sends_until(&self, to: &ReplicaId) -> i64 {
        let next = self.next_for(to).unwrap_or(self.flushed);
        self.flushed.min(self.history.index_behind(next, MARKS_SENT_MAX))
    }

    /// What is to be sent to a member next begins here.
    pub fn next_for(&self, to: &ReplicaId) -> Option<i64> {
        self.other(to).map(|other| other.next)
    }

    /// Batches stand at the end of the log.
    pub(super) fn appended(&mut self, turn: &mut Turn, offsets: i64) {
        assert!(self.takes_writes(), "batches of one who does not lead");
        self.history.append_batches(offsets);
        self.replicate(turn);
    }

    pub(super) fn write_mark(&mut self, turn: &mut Turn, what: What) {
        let mark = self.history.append_mark(self.epoch, what).clone();
        if mark.what.members().is_some() {
            self.know_members();
        }
        turn.ask(Action::WriteMark(mark));
    }

    /// Sends to whoever lacks something.
    pub(super) fn replicate(&mut self, turn: &mut Turn) {
        let end = self.history.end().index();
        for other in &self.others {
            if self.is_up(&other.id) && (other.next < end || !other.has_asked) {
                turn.ask(Action::Replicate { to: other.id });
            }
        }
        self.watch_members(turn);
    }

    /// While a member that is there lacks something, or has not said where it stands, there is a
    /// deadline to ask again: what it had before it went, it may not know to be the leader's.
    pub(super) fn watch_members(&mut self, turn: &mut Turn) {
        if self.handing_over.is_some() {
            return;
        }
        let end = self.history.end().index();
        let is_behind =
            |other: &Other| (other.flushed < end || other.is_probing) && self.is_up(&other.id);
        let is_any = self.others.iter().any(is_behind);
        self.deadline = match (is_any, self.deadline) {
            (false, _) => None,
            (true, Some(deadline)) => Some(deadline),
            (true, None) => Some(turn.now + self.options.retry_ms),
        };
    }

    /// Who is behind is asked again where it stands, unless it moves.
    pub(super) fn ask_again(&mut self, turn: &mut Turn) {
        self.handing_over = None;
        let end = self.history.end().index();
        let is_behind = |other: &&mut Other| other.flushed < end || other.is_probing;
        for other in self.others.iter_mut().filter(is_behind) {
            if !std::mem::take(&mut other.has_moved) {
                (other.is_probing, other.has_asked) = (true, false);
            }
        }
        self.replicate(turn);
    }

    /// As leader: a member that has said something.
    fn heard(&mut self, id: ReplicaId) -> Option<&mut Other> {
        let is_leader = self.role == Role::Leader;
        self.others.iter_mut().find(|other| other.id == id && is_leader)
    }

    pub(super) fn member_flushed(&mut self, turn: &mut Turn, from: ReplicaId, index: i64) {
        let end = self.history.end().index();
        // Beyond the end is what this leader never sent.
        let Some(other) = self.heard(from).filter(|_| (0..=end).contains(&index)) else {
            return;
        };
        other.flushed = other.flushed.max(index);
        if other.is_probing {
            (other.next, other.is_probing) = (other.flushed, false);
        }
        other.next = other.next.max(other.flushed);
        // Whoever moves is not asked again; the others are, however busy this one is.
        other.has_moved = true;
        let is_behind = other.next < end;
        self.advance(turn);
        if is_behind && self.role == Role::Leader {
            turn.ask(Action::Replicate { to: from });
        }
        if self.role == Role::Leader {
            self.watch_members(turn);
            self.hand_over_if_ready(turn);
        }
    }

    pub(super) fn member_diverged(
        &mut self,
        turn: &mut Turn,
        from: ReplicaId,
        rejected: i64,
        end: Position,
    ) {
        let own = self.history.end_of_epoch(end.epoch);
        let Some(other) = self.heard(from) else { return };
        if rejected <= other.flushed {
            return;
        }
        let next = match own {
            Some(own) if own.epoch == end.epoch => own.index().min(end.index()),
            Some(own) => own.index(),
            // Only a snapshot helps.
            None => -1,
        };
        let next = if next < 0 { -1 } else { next.min(rejected - 1).max(other.flushed.min(next)) };
        *other = Other { next, is_probing: true, has_asked: false, ..*other };
        turn.ask(Action::Replicate { to: from });
    }

    fn hand_over_if_ready(&self, turn: &mut Turn) {
        let end = self.history.end().index();
        let ready = self.handing_over.and_then(|to| self.other(&to));
        if let Some(other) = ready.filter(|other| other.flushed == end) {
            turn.send(other.id, Message::TimeoutNow { epoch: self.epoch });
        }
    }

    /// The epoch at which this replica leads, once an entry of it is chosen: then all that earlier
    /// leaders left is, too.
    pub fn leads(&self) -> Option<i32> {
        (self.role == Role::Leader && self.has_committed_own()).then_some(self.epoch)
    }

    /// Whether an entry of this epoch is chosen.
    fn has_committed_own(&self) -> bool {
        self.history.at(self.committed).is_some_and(|at| at.epoch == self.epoch)
    }

    /// Commits what enough voters have flushed.
    pub(super) fn advance(&mut self, turn: &mut Turn) {
        let flushed = |id: &ReplicaId| {
            let other = self.other(id);
            other.map_or(self.flushed, |other| other.flushed)
        };
        let chosen = self.members().reached(1, flushed).unwrap_or(-1);
        let visible = self.members().reached(self.options.min_insync_replicas, flushed);
        // What earlier epochs left is chosen with the first entry of this one (Ongaro 3.6.2).
        let is_own = self.history.at(chosen).is_some_and(|at| at.epoch == self.epoch);
        if is_own && chosen > self.committed {
            self.raise_committed(chosen);
            self.members_committed(turn);
        }
        let visible = visible.and_then(|visible| self.history.at(visible));
        if let Some(at) = visible.filter(|_| self.has_committed_own()) {
            self.raise_high_watermark(turn, at.offset);
        }
        self.tell_committed(turn);
    }

    /// Nothing else goes to who has all of the log: it is told what became of it.
    fn tell_committed(&mut self, turn: &mut Turn) {
        let (epoch, end) = (self.epoch, self.history.end().index());
        let (committed, high_watermark) = (self.committed, self.high_watermark);
        let is_leader = self.role == Role::Leader;
        let told = (committed, high_watermark);
        let has_all = |other: &&mut Other| is_leader && other.flushed == end && other.told != told;
        for other in self.others.iter_mut().filter(has_all) {
            other.told = told;
            turn.send(other.id, Message::Committed { epoch, committed, high_watermark });
        }
    }

    /// Ends a change of members whose first step is committed, and leads no more where it is no
    /// voter.
    fn members_committed(&mut self, turn: &mut Turn) {
        let written_at = self.history.members_written_at();
        if written_at.is_some_and(|at| at >= self.committed) {
            return;
        }
        if self.members().is_joint() {
            let left = self.members().left();
            self.write_mark(turn, What::Membership(Box::new(left)));
            self.replicate(turn);
        } else if !self.members().is_voter(&self.id) {
            self.follow(turn, self.epoch, None);
        }
    }
}
