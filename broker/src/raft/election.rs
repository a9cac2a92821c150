//! Elections: who asks, who votes for whom, and what follows from it.

use super::history::What;
use super::membership::ReplicaId;
use super::message::{Action, Message};
use super::node::{Node, Options, Role, Turn};
use super::position::Position;

/// How many times an election's time who may not be elected waits before it asks again who leads.
const ASKS_SELDOM: u64 = 8;

impl Node {
    /// Somebody may be about to be elected: sets the deadline at which it asks for votes after
    /// all, each replica at another moment.
    pub(super) fn wait_for_leader(&mut self, now: u64) {
        let election_ms = self.options.election_ms;
        self.deadline = Some(now + election_ms + self.random_below(election_ms));
    }

    /// Nobody leads, and nobody is known to ask: one after the other, those first that should
    /// rather lead. The first gives the others the time to notice.
    pub(super) fn wait_for_turn(&mut self, now: u64) {
        let Options { turn_ms, election_ms, rank, .. } = self.options;
        // Of a new group, others may not have theirs yet: whoever asked too early asks again.
        let each_ms = if self.epoch < 0 { 2 * election_ms } else { turn_ms };
        let before_ms = turn_ms + u64::from(rank) * each_ms;
        self.deadline = Some(now + before_ms + self.random_below(turn_ms));
    }

    /// Asks all voters: before they vote, whether they would (pre-vote), or for their votes.
    pub(super) fn campaign(&mut self, turn: &mut Turn, is_pre: bool, is_transfer: bool) {
        let epoch = self.epoch.max(self.history.end().epoch).checked_add(1);
        self.leader = None;
        let Some(epoch) = epoch.filter(|epoch| *epoch < i32::MAX) else {
            // It waits to be told; a voter may still ask for its vote.
            self.deadline = None;
            return;
        };
        if !self.may_campaign() {
            return self.ask_who_leads(turn, epoch);
        }
        self.wait_for_leader(turn.now);
        if is_pre {
            self.role = Role::PreCandidate;
        } else {
            (self.role, self.epoch, self.vote) = (Role::Candidate, epoch, Some(self.id));
            self.persist(turn);
        }
        turn.ask(Action::RoleChanged);
        let log_end = self.history.end();
        for nth in 0..self.others.len() {
            self.others[nth].vote = None;
            let id = self.others[nth].id;
            if self.members().is_voter(&id) && self.is_up(&id) {
                turn.send(id, Message::Vote { epoch, is_pre, is_transfer, log_end });
            }
        }
        self.count_votes(turn);
    }

    /// Of who may not be elected. Nobody counts the answers: a leader that is asked tells who it
    /// is, see [`Node::asked_for_vote`]. Who was taken out of the group asks in vain, and not
    /// often.
    fn ask_who_leads(&mut self, turn: &mut Turn, epoch: i32) {
        self.wait_for_leader(turn.now + ASKS_SELDOM * self.options.election_ms);
        let (is_pre, is_transfer, log_end) = (true, false, self.history.end());
        for other in self.others.iter().filter(|other| self.is_up(&other.id)) {
            if self.members().is_voter(&other.id) {
                turn.send(other.id, Message::Vote { epoch, is_pre, is_transfer, log_end });
            }
        }
    }

    /// Voters may. Whoever is removed by a change that may not be committed may be the only one
    /// that has it in its log, and is needed to finish it (Ongaro 4.2.2).
    pub(super) fn may_campaign(&self) -> bool {
        let was_voter = |written_at: i64| {
            written_at >= self.committed && self.history.members_at(written_at).is_voter(&self.id)
        };
        let is_removed_for_good = !self.members().is_voter(&self.id)
            && !self.history.members_written_at().is_some_and(was_voter);
        let has_what_it_had = self.history.end().is_up_to_date_with(&self.promised);
        self.is_whole() && self.has_say() && has_what_it_had && !is_removed_for_good
    }

    /// Whether a majority could elect it, as far as it knows.
    pub fn may_be_elected(&self) -> bool {
        let is_electable = !matches!(self.role, Role::Leader | Role::Ended) && self.may_campaign();
        is_electable && self.members().is_quorum(|id| self.is_up(id))
    }

    fn count_votes(&mut self, turn: &mut Turn) {
        let answer = |id: &ReplicaId| {
            // Its own it gives.
            self.other(id).map_or(Some(true), |other| other.vote)
        };
        let is_given = self.members().is_quorum(|id| answer(id) == Some(true));
        let is_refused = self.members().is_quorum(|id| answer(id) == Some(false));
        if is_given {
            match self.role {
                Role::PreCandidate => self.campaign(turn, false, false),
                _ => self.lead(turn),
            }
        } else if is_refused {
            // It will not come to it; the deadline asks again.
            self.role = Role::Follower;
            turn.ask(Action::RoleChanged);
        }
    }

    fn lead(&mut self, turn: &mut Turn) {
        self.lead_from(turn, What::EpochStart);
    }

    /// Leads, from this entry on.
    pub(super) fn lead_from(&mut self, turn: &mut Turn, start: What) {
        assert!(self.is_whole(), "a leader lacks batches");
        (self.role, self.leader, self.deadline) = (Role::Leader, Some(self.id), None);
        (self.handing_over, self.sent) = (None, 0);
        self.others.clear();
        self.know_members();
        turn.ask(Action::RoleChanged);
        self.write_mark(turn, start);
        self.replicate(turn);
    }

    pub(super) fn persist(&self, turn: &mut Turn) {
        let Self { epoch, vote, generation, .. } = *self;
        let are_votes_lost = !self.unheard.is_empty();
        turn.ask(Action::Persist { epoch, vote, generation, are_votes_lost });
    }

    /// Follows this leader in this epoch, or waits for one.
    pub(super) fn follow(&mut self, turn: &mut Turn, epoch: i32, leader: Option<ReplicaId>) {
        assert!(epoch >= self.epoch, "epoch {epoch} behind {}", self.epoch);
        if self.role == Role::Leader {
            self.say_resigned(turn);
        }
        let is_newer = epoch > self.epoch;
        if is_newer {
            (self.epoch, self.vote) = (epoch, None);
            self.persist(turn);
        }
        let is_other = self.role != Role::Follower || self.leader != leader;
        (self.role, self.leader) = (Role::Follower, leader);
        if is_other || is_newer {
            // What of the log is a new leader's is for it to say.
            self.matched = self.history.base().at.index();
            (self.leader_high_watermark, self.handing_over) = (-1, None);
            turn.ask(Action::RoleChanged);
        }
        match leader {
            Some(_) => self.deadline = None,
            None => self.wait_for_leader(turn.now),
        }
    }

    pub(super) fn has_live_leader(&self) -> bool {
        self.live_leader().is_some()
    }

    pub(super) fn asked_for_vote(
        &mut self,
        turn: &mut Turn,
        from: ReplicaId,
        epoch: i32,
        (is_pre, is_transfer): (bool, bool),
        log_end: Position,
    ) {
        // Who asks this one follows nobody, and an idle group has nothing to say that would make
        // the leader known: it was opened anew within its node's session, or is beyond this epoch,
        // and can never follow in it. It answers accordingly.
        if self.role == Role::Leader && is_pre {
            self.forget_what_was_told(turn, from.node);
        }
        // Whoever is heard by a leader's followers does not depose it by asking often. A leader
        // that asks leads no more.
        let is_needed = is_transfer || !self.has_live_leader() || self.leader == Some(from);
        let is_current = log_end.is_up_to_date_with(&self.history.end())
            && log_end.is_up_to_date_with(&self.promised)
            && self.has_say();
        let is_granted = if is_pre {
            is_needed && is_current && epoch > self.epoch
        } else {
            if is_needed && epoch > self.epoch {
                self.follow(turn, epoch, None);
            }
            let is_free = self.vote.is_none_or(|vote| vote == from) && self.leader.is_none();
            is_needed && is_current && epoch == self.epoch && is_free
        };
        if is_granted && !is_pre && self.vote.is_none() {
            self.vote = Some(from);
            self.persist(turn);
            self.wait_for_leader(turn.now);
        }
        let epoch = if is_granted { epoch } else { self.epoch.max(0) };
        turn.send(from, Message::VoteReply { epoch, is_pre, is_granted });
    }

    /// A voter answered.
    pub(super) fn answered(
        &mut self,
        turn: &mut Turn,
        from: ReplicaId,
        epoch: i32,
        is_pre: bool,
        is_granted: bool,
    ) {
        let is_asked = match self.role {
            Role::PreCandidate => is_pre && (!is_granted || epoch == self.epoch + 1),
            Role::Candidate => !is_pre && epoch == self.epoch,
            _ => false,
        };
        let other = self.others.iter_mut().find(|other| other.id == from);
        if let Some(other) = other.filter(|_| is_asked) {
            other.vote = Some(is_granted);
            self.count_votes(turn);
        }
    }

    /// Who leads no more says so: nobody waits for a leader whose node is well.
    pub(super) fn say_resigned(&self, turn: &mut Turn) {
        for other in &self.others {
            turn.send(other.id, Message::Resigned { epoch: self.epoch });
        }
    }
}
