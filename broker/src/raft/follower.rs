//! Followers and learners: they take the leader's log, and tell it what of it is on their disks.

use super::history::{Base, History};
use super::membership::ReplicaId;
use super::message::{Action, Message};
use super::node::{Node, Turn};
use super::run::Run;

impl Node {
    pub(super) fn append(
        &mut self,
        turn: &mut Turn,
        from: ReplicaId,
        run: &Run,
        committed: i64,
        high_watermark: i64,
    ) {
        let (begin, epoch) = (run.from.index(), self.epoch);
        let base = self.history.base().at;
        if !self.is_whole() {
            return self.restore_base(turn);
        }
        if begin < base.index() && !self.is_of_generation() {
            // Nothing says that what stands before the base is the leader's.
            self.forget_log();
            turn.ask(Action::Restore { kept: 0 });
        }
        let base = self.history.base().at;
        if begin >= base.index() && self.history.at(begin) != Some(run.from) {
            let end = self.history.end_of_epoch(run.from.epoch).unwrap_or(base);
            return turn.send(from, Message::Diverged { epoch, rejected: begin, end });
        }
        // What begins before the base is committed as far as that.
        if begin >= base.index() {
            let agreed = self.history.agrees_until(run);
            let (own_end, run_end) = (self.history.end().index(), run.end.index());
            if agreed < run_end {
                if agreed < own_end && !self.truncate(turn, agreed) {
                    return;
                }
                self.write(turn, run);
            }
            self.matched = self.matched.max(run_end);
        }
        self.learn_committed(turn, committed, high_watermark);
        self.tell_leader(turn, from);
    }

    /// The leader says what is chosen: of what is its own here, that is.
    pub(super) fn learn_committed(&mut self, turn: &mut Turn, committed: i64, shown: i64) {
        self.raise_committed(committed.min(self.matched));
        let at = self.history.at(committed).filter(|_| committed <= self.matched);
        if at.is_some_and(|at| at.epoch == self.epoch) {
            self.know_enough(committed);
            self.regain(turn);
        }
        self.leader_high_watermark = self.leader_high_watermark.max(shown);
        self.raise_high_watermark(turn, self.leader_high_watermark);
    }

    /// Cuts what is not the leader's; false where that was committed.
    fn truncate(&mut self, turn: &mut Turn, index: i64) -> bool {
        if index < self.committed {
            turn.ask(Action::Contradiction { index });
            return false;
        }
        let is_deleted = self.history.at(index).is_some_and(|at| at.offset < self.log_start);
        if is_deleted && !self.is_of_generation() {
            // What would stay was deleted here, and not there.
            self.forget_log();
            turn.ask(Action::Restore { kept: 0 });
            return false;
        }
        self.history.truncate(index);
        self.flushed = self.flushed.min(index);
        let to = self.history.end();
        self.durable_offset = self.durable_offset.min(to.offset);
        self.durable_marks = self.durable_marks.min(to.marks);
        assert!(to.offset >= self.high_watermark, "what was served is cut");
        self.know_members();
        turn.ask(Action::Truncate { to });
        true
    }

    /// Takes what of a run stands behind the log's end.
    fn write(&mut self, turn: &mut Turn, run: &Run) {
        let fresh = run.behind(self.history.end());
        self.history.extend(&fresh);
        if fresh.marks.iter().any(|mark| mark.what.members().is_some()) {
            self.know_members();
        }
        turn.ask(Action::Write(fresh));
    }

    pub(super) fn restore(
        &mut self,
        turn: &mut Turn,
        from: ReplicaId,
        base: Base,
        high_watermark: i64,
    ) {
        let index = base.at.index();
        if !self.is_of_generation() && self.history.at(index) != Some(base.at) {
            self.forget_log();
        }
        if self.is_restoring || !self.is_whole() && index < self.committed {
            return self.restore_base(turn);
        }
        let has_it =
            index < self.history.base().at.index() || self.history.at(index) == Some(base.at);
        if !self.is_whole() || !has_it {
            // What was shown stands before every base that a leader can have.
            if index < self.committed || base.at.offset < self.high_watermark {
                return turn.ask(Action::Contradiction { index });
            }
            let kept = self.history.at(self.committed).map_or(0, |at| at.offset);
            // What is committed elsewhere need not be on this disk yet.
            let kept = if self.is_whole() { kept.min(self.durable_offset) } else { 0 };
            self.durable_offset = kept;
            self.durable_marks = base.at.marks;
            self.log_start = self.log_start.max(base.log_start);
            self.history = History::new(base);
            (self.flushed, self.committed) = (index, index);
            self.is_restoring = !self.is_whole();
            self.know_members();
            turn.ask(Action::Restore { kept });
        }
        self.matched = self.matched.max(index.min(self.history.end().index()));
        self.learn_committed(turn, index, high_watermark);
        self.tell_leader(turn, from);
    }

    /// Fetches what stands before the base, where nobody does: it is chosen, whoever leads has it.
    fn restore_base(&mut self, turn: &mut Turn) {
        if !self.is_restoring {
            (self.is_restoring, self.durable_offset) = (true, 0);
            turn.ask(Action::Restore { kept: 0 });
        }
    }

    /// What is the leader's and on disk.
    pub(super) fn tell_leader(&mut self, turn: &mut Turn, leader: ReplicaId) {
        if !self.is_whole() {
            return;
        }
        let index = self.flushed.min(self.matched);
        self.raise_high_watermark(turn, self.leader_high_watermark);
        self.regain(turn);
        turn.send(leader, Message::Flushed { epoch: self.epoch, index });
    }

    /// Whether it takes part in elections: not while what it has told others of its log does not
    /// hold, nor before it has something of its generation.
    pub(super) fn has_say(&self) -> bool {
        self.lost.is_none() && self.unheard.is_empty() && self.is_of_generation()
    }

    /// A leader that has chosen an entry of its own epoch, in a session that began after the log
    /// was lost, says that it is chosen below this index.
    fn know_enough(&mut self, index: i64) {
        self.lost = self.lost.map(|until| until.min(index));
    }

    /// Where it has on disk what a leader of now has chosen, the loss is made good. Whatever this
    /// replica's word helped to choose before is in that leader's log by then, and chosen: without
    /// the word of who has lost its log, a majority of voters meets each that had chosen. And what
    /// it told this leader before is forgotten there (a session's beginning), so that the leader
    /// counts nothing but what is on this disk now.
    fn regain(&mut self, turn: &mut Turn) {
        let index = self.flushed.min(self.matched);
        if self.lost.is_some_and(|until| self.is_whole() && index >= until) {
            self.lost = None;
            turn.ask(Action::Regained);
        }
    }
}
