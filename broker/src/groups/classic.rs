//! A live group of the classic protocol: its phases, and what moves it from one to the next.
//!
//! ```text
//!           a member joins                 all joined, or the deadline passed
//!   Empty ------------------> Preparing --------------------------------------> Completing
//!     ^                        |  ^  ^                                            |    |
//!     |   nobody is left       |  |  |   a member comes, goes or changes          |    |
//!     +------------------------+  |  +--------------------------------------------+    |
//!                                 |                                                    |
//!                                 +------------------------ Stable <-------------------+
//!                                  a member comes,                  the leader's assignment
//!                                  goes or changes                  is in the log
//! ```
//!
//! A generation is one pass through Preparing: its number goes up when joining ends. The log learns
//! of a generation when it is Stable, or Empty; what happens between is the session's alone, and
//! members begin again where it is lost. Kafka's fifth state, Dead, is a group that does not exist.

use std::collections::BTreeMap;

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::types::Str;

use super::group::{Group, InitialDelay, Phase, reply_sync_error};
use super::machine::Reply;
use super::records;
use super::work::{RecordError, Work};

impl Group {
    /// Begins a rebalance, or goes on with the one under way.
    pub(super) fn rebalance_or_complete_join(&mut self, work: &mut Work<'_>, reason: &str) {
        match self.phase {
            Phase::Preparing(_) => self.complete_join_if_due(work),
            Phase::Empty | Phase::Completing | Phase::Stable => {
                self.prepare_rebalance(work, reason);
            }
        }
    }

    /// Begins a rebalance: all members are to join again.
    pub(super) fn prepare_rebalance(&mut self, work: &mut Work<'_>, reason: &str) {
        assert!(!matches!(self.phase, Phase::Preparing(_)), "a rebalance begins once");
        if self.phase == Phase::Completing {
            self.reset_assignments(work, ErrorCode::REBALANCE_IN_PROGRESS);
        }
        self.pending_syncs.clear();
        work.cancel_timer(self.sync_timer());
        let generation = self.generation;
        work.note(&self.id, format_args!("rebalance of generation {generation} begins: {reason}"));
        if self.phase == Phase::Empty {
            let delay_ms = work.options.initial_rebalance_delay_ms;
            self.phase = Phase::Preparing(Some(InitialDelay {
                delay_ms,
                remaining_ms: self.rebalance_timeout_ms().saturating_sub(delay_ms),
                is_extended: false,
            }));
            work.set_timer(self.join_timer(), delay_ms);
        } else {
            self.phase = Phase::Preparing(None);
            if self.has_all_joined() {
                self.complete_join(work);
            } else {
                work.set_timer(self.join_timer(), self.rebalance_timeout_ms());
            }
        }
    }

    /// A member came while a group that was empty waits for more: it may wait longer.
    pub(super) fn extend_initial_delay(&mut self) {
        if let Phase::Preparing(Some(delay)) = &mut self.phase {
            delay.is_extended = true;
        }
    }

    /// Ends joining where nothing is waited for: all are here, and it is not the first time.
    pub(super) fn complete_join_if_due(&mut self, work: &mut Work<'_>) {
        if self.phase == Phase::Preparing(None) && self.has_all_joined() {
            self.complete_join(work);
        }
    }

    /// The deadline for joining passed.
    pub(super) fn join_timer_fired(&mut self, work: &mut Work<'_>) {
        match &mut self.phase {
            Phase::Preparing(Some(delay)) if delay.is_extended && delay.remaining_ms > 0 => {
                let next_ms = delay.remaining_ms.min(work.options.initial_rebalance_delay_ms);
                *delay = InitialDelay {
                    delay_ms: next_ms,
                    remaining_ms: delay.remaining_ms.saturating_sub(delay.delay_ms),
                    is_extended: false,
                };
                work.set_timer(self.join_timer(), next_ms);
            }
            Phase::Preparing(_) => self.complete_join(work),
            Phase::Empty | Phase::Completing | Phase::Stable => {}
        }
    }

    /// Joining ends: who is not here is given up (unless static), and the next generation begins.
    pub(super) fn complete_join(&mut self, work: &mut Work<'_>) {
        assert!(matches!(self.phase, Phase::Preparing(_)), "joining ends where it began");
        work.cancel_timer(self.join_timer());
        let absent: Vec<Str> = self
            .members
            .iter()
            .filter(|(_, member)| member.join.is_none() && member.instance_id.is_none())
            .map(|(id, _)| id.clone())
            .collect();
        for member_id in &absent {
            self.remove(work, member_id);
        }
        if !absent.is_empty() {
            work.note(&self.id, format_args!("gave up members that did not join: {absent:?}"));
        }
        if self.members.is_empty() {
            self.become_empty(work);
        } else if self.elect_leader(work) {
            self.begin_generation(work);
        } else {
            // Static members only, none of them here: wait until one joins, or their sessions end.
            work.note(&self.id, "rebalance waits: no member has joined");
            work.set_timer(self.join_timer(), self.rebalance_timeout_ms());
        }
    }

    /// Whether there is a leader that has joined; another takes over where the last one has not.
    fn elect_leader(&mut self, work: &mut Work<'_>) -> bool {
        let has_joined =
            |id: &Str| self.members.get(id).is_some_and(|member| member.join.is_some());
        if self.leader.as_ref().is_some_and(has_joined) {
            return true;
        }
        let mut joined = self.members.iter().filter(|(_, member)| member.join.is_some());
        let Some((member_id, _)) = joined.next() else {
            return false;
        };
        let member_id = member_id.clone();
        work.note(&self.id, format_args!("the leader did not join; {member_id:?} leads"));
        self.leader = Some(member_id);
        true
    }

    fn next_generation(&mut self) {
        // Past the end it begins again: a negative generation means none.
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    fn become_empty(&mut self, work: &mut Work<'_>) {
        self.next_generation();
        self.protocol = None;
        self.leader = None;
        self.phase = Phase::Empty;
        let generation = self.generation;
        work.note(&self.id, format_args!("is empty, with generation {generation}"));
        // Small enough for any batch; without it the log would have members that are not here.
        match records::group(&self.id, &self.stored(work.now.wall_ms)) {
            Ok(record) => work.record_always(record),
            Err(error) => work.note(&self.id, format_args!("cannot be written: {error:?}")),
        }
    }

    fn begin_generation(&mut self, work: &mut Work<'_>) {
        self.next_generation();
        self.protocol = self.select_protocol();
        self.phase = Phase::Completing;
        let generation = self.generation;
        let count = self.members.len();
        let protocol = self.protocol.clone().unwrap_or_default();
        work.note(
            &self.id,
            format_args!("generation {generation} has {count} members and speaks {protocol:?}"),
        );
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &ids {
            let response = self.join_response(member_id);
            self.complete_parked_join(work, member_id, response);
            self.touch(work, member_id);
            if let Some(member) = self.members.get_mut(member_id) {
                member.is_new = false;
            }
        }
        self.pending_syncs.extend(ids);
        work.set_timer(self.sync_timer(), self.rebalance_timeout_ms());
    }

    /// The protocol that most members want first of those that all speak. Where votes are equal,
    /// the leader's order decides.
    pub(super) fn select_protocol(&self) -> Option<Str> {
        let is_common = |name: &Str| self.speaker_count(name) == self.members.len();
        let mut votes: BTreeMap<&Str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|offered| &offered.name);
            if let Some(name) = names.find(|name| is_common(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().max().copied()?;
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id))?;
        let mut by_preference = leader.protocols.iter().map(|offered| &offered.name);
        by_preference.find(|name| votes.get(name) == Some(&most)).cloned()
    }

    /// The deadline for asking for assignments passed: who has not asked is given up.
    pub(super) fn sync_timer_fired(&mut self, work: &mut Work<'_>) {
        let is_due = matches!(self.phase, Phase::Completing | Phase::Stable);
        if !is_due || self.pending_syncs.is_empty() {
            return;
        }
        let late = std::mem::take(&mut self.pending_syncs);
        for member_id in &late {
            self.remove(work, member_id);
        }
        let count = late.len();
        self.prepare_rebalance(work, &format!("{count} members did not sync in time: {late:?}"));
    }

    /// A member asked for its assignment.
    pub(super) fn synced(&mut self, work: &mut Work<'_>, member_id: &Str) {
        self.pending_syncs.remove(member_id);
        if self.pending_syncs.is_empty() {
            work.cancel_timer(self.sync_timer());
        }
    }

    /// Takes assignments back, and answers whoever waits for one.
    pub(super) fn reset_assignments(&mut self, work: &mut Work<'_>, error: ErrorCode) {
        self.set_assignments(|_| Bytes::new());
        self.complete_parked_syncs(work, error);
    }

    /// Gives each member what the leader says it gets; nothing where it is not named.
    pub(super) fn assign(&mut self, mut assignments: BTreeMap<Str, Bytes>) {
        self.set_assignments(|member_id| assignments.remove(member_id).unwrap_or_default());
    }

    /// Answers every parked sync. These members were not expected to send heartbeats until now.
    pub(super) fn complete_parked_syncs(&mut self, work: &mut Work<'_>, error: ErrorCode) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for member_id in &ids {
            let Some(member) = self.members.get_mut(member_id) else {
                continue;
            };
            let Some(ticket) = member.sync.take() else {
                continue;
            };
            if error.is_none() {
                let response = self.sync_response(member_id);
                work.reply(ticket, Reply::SyncGroup(response));
            } else {
                reply_sync_error(work, ticket, error);
            }
            self.touch(work, member_id);
        }
    }

    /// Writes the current generation.
    pub(super) fn write(&self, work: &mut Work<'_>) -> Result<(), RecordError> {
        let record = records::group(&self.id, &self.stored(work.now.wall_ms))?;
        work.record(record)
    }
}
