//! A live group of the classic protocol: what it is made of, and what can be read off it.
//!
//! What moves it from phase to phase is in `classic`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::join_group::{
    JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
};
use vltava_protocol::messages::sync_group::SyncGroupResponse;
use vltava_protocol::types::Str;

use super::machine::{Reply, Timer};
use super::member::{Member, ParkedJoin, timeout_ms};
use super::state::{StoredGroup, StoredMember, StoredMetadata};
use super::subscription::{self, CONSUMER};
use super::work::Work;
use crate::machine::Ticket;

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// No members.
    Empty,
    /// Members join, or join again. With a delay where the group was empty.
    Preparing(Option<InitialDelay>),
    /// All know their generation; the leader works out who gets what.
    Completing,
    /// All have, or can fetch, their assignment.
    Stable,
}

/// A group that was empty waits for more members before its first generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct InitialDelay {
    /// Length of the wait under way, in ms.
    pub(super) delay_ms: u64,
    /// How much longer it may become, in ms.
    pub(super) remaining_ms: u64,
    /// Whether a member came since it began.
    pub(super) is_extended: bool,
}

impl Phase {
    /// Kafka's name for it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Preparing(_) => "PreparingRebalance",
            Self::Completing => "CompletingRebalance",
            Self::Stable => "Stable",
        }
    }
}

/// A live group.
#[derive(Clone, Debug)]
pub(super) struct Group {
    pub(super) id: Str,
    pub(super) phase: Phase,
    pub(super) generation: i32,
    /// "consumer", "connect"...: what kind of client the group is of.
    pub(super) protocol_type: Option<Str>,
    /// Which of the offered protocols this generation speaks.
    pub(super) protocol: Option<Str>,
    pub(super) leader: Option<Str>,
    pub(super) members: BTreeMap<Str, Member>,
    /// Member id by instance id (KIP-345).
    pub(super) static_members: BTreeMap<Str, Str>,
    /// Ids that were given out and are not used yet (KIP-394).
    pub(super) pending_joins: BTreeSet<Str>,
    /// Members of this generation that have not asked for their assignment yet.
    pub(super) pending_syncs: BTreeSet<Str>,
    /// How many members have a join parked.
    parked_joins: usize,
    /// How many members speak each protocol.
    speakers: BTreeMap<Str, usize>,
    members_bytes: usize,
}

impl Group {
    /// A group without members, as the log has it, or new.
    pub(super) fn empty(id: Str, stored: Option<&StoredGroup>) -> Self {
        let stored = stored.map(|stored| &stored.metadata);
        Self {
            id,
            phase: Phase::Empty,
            generation: stored.map_or(0, |stored| stored.generation),
            protocol_type: stored.and_then(|stored| stored.protocol_type.clone()),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            parked_joins: 0,
            speakers: BTreeMap::new(),
            members_bytes: 0,
        }
    }

    /// A group as the log has it, when this node begins to lead: all members have their whole
    /// session timeout, for they were not heard here yet.
    pub(super) fn load(work: &mut Work<'_>, id: &Str, stored: &StoredGroup) -> Self {
        let metadata = &stored.metadata;
        let mut group = Self::empty(id.clone(), Some(stored));
        group.protocol = metadata.protocol.clone();
        for stored in &metadata.members {
            let member = Member::from_stored(stored, metadata.protocol.as_ref());
            group.insert(stored.member_id.clone(), member);
        }
        group.leader = metadata.leader.clone();
        if !group.members.is_empty() {
            group.phase = Phase::Stable;
            group.touch_all(work);
        }
        group
    }

    /// Nothing of it needs a session: the log says all there is.
    pub(super) fn is_idle(&self) -> bool {
        let is_idle = self.phase == Phase::Empty && self.pending_joins.is_empty();
        assert!(!is_idle || self.members.is_empty(), "an empty group has no members");
        is_idle
    }

    /// Memory it takes, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        const FIXED_BYTES: usize = 512;
        const PENDING_BYTES: usize = 256;
        FIXED_BYTES + PENDING_BYTES * self.pending_joins.len() + self.members_bytes
    }

    pub(super) fn is_leader(&self, member_id: &Str) -> bool {
        self.leader.as_ref() == Some(member_id)
    }

    /// Whether its members are consumers, whose metadata says what they read.
    pub(super) fn is_of_consumers(&self) -> bool {
        self.protocol_type.as_ref() == Some(&CONSUMER)
    }

    /// The key of a member's session timer; also of an id that was given out and is not used yet.
    pub(super) fn session_timer(&self, member_id: &Str) -> Timer {
        Timer::Session { group: self.id.clone(), member: member_id.clone() }
    }

    pub(super) fn join_timer(&self) -> Timer {
        Timer::Join { group: self.id.clone() }
    }

    pub(super) fn sync_timer(&self) -> Timer {
        Timer::Sync { group: self.id.clone() }
    }

    /// The longest rebalance timeout of its members, in ms.
    pub(super) fn rebalance_timeout_ms(&self) -> u64 {
        let longest = self.members.values().map(|member| member.rebalance_timeout_ms);
        timeout_ms(longest.max().unwrap_or(0))
    }

    /// A member was heard: its session begins anew.
    pub(super) fn touch(&mut self, work: &mut Work<'_>, member_id: &Str) {
        let Some(member) = self.members.get(member_id) else {
            return;
        };
        let timeout_ms = timeout_ms(member.session_timeout_ms);
        self.touch_for(work, member_id, timeout_ms);
    }

    /// As [`Self::touch`], with a timeout of its own.
    pub(super) fn touch_for(&mut self, work: &mut Work<'_>, member_id: &Str, timeout_ms: u64) {
        let key = self.session_timer(member_id);
        if let Some(member) = self.members.get_mut(member_id) {
            member.session.touch(work, || key, timeout_ms);
        }
    }

    fn touch_all(&mut self, work: &mut Work<'_>) {
        let ids: Vec<Str> = self.members.keys().cloned().collect();
        for id in &ids {
            self.touch(work, id);
        }
    }

    /// Whether a request speaks for a member as the group knows it.
    pub(super) fn validate_member(
        &self,
        member_id: &Str,
        instance_id: Option<&Str>,
    ) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(ErrorCode::UNKNOWN_MEMBER_ID),
                Some(current) if current != member_id => {
                    return Err(ErrorCode::FENCED_INSTANCE_ID);
                }
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(ErrorCode::UNKNOWN_MEMBER_ID)
        }
    }

    /// Whether members of this kind fit: the group's type, and a protocol that all others speak.
    pub(super) fn supports(
        &self,
        protocol_type: &Str,
        protocols: &[JoinGroupRequestProtocol],
    ) -> bool {
        if self.phase == Phase::Empty {
            return !protocol_type.as_bytes().is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|offered| self.speaker_count(&offered.name) == self.members.len())
    }

    pub(super) fn speaker_count(&self, protocol: &Str) -> usize {
        self.speakers.get(protocol).copied().unwrap_or(0)
    }

    /// Takes a member in, with its counts. The caller moves the phase.
    pub(super) fn insert(&mut self, member_id: Str, member: Member) {
        if let Some(instance_id) = &member.instance_id {
            self.static_members.insert(instance_id.clone(), member_id.clone());
        }
        if self.leader.is_none() {
            self.leader = Some(member_id.clone());
        }
        self.pending_joins.remove(&member_id);
        self.count_in(&member);
        if let Some(previous) = self.members.insert(member_id, member) {
            // Only a damaged record names a member twice.
            self.count_out(&previous);
        }
    }

    /// Changes a member in place, with its counts.
    pub(super) fn update(&mut self, member_id: &Str, change: impl FnOnce(&mut Member)) {
        let Some(mut member) = self.take(member_id) else {
            return;
        };
        change(&mut member);
        self.count_in(&member);
        self.members.insert(member_id.clone(), member);
    }

    /// Takes a member out, with its counts, and says nothing to anybody.
    pub(super) fn take(&mut self, member_id: &Str) -> Option<Member> {
        let member = self.members.remove(member_id)?;
        self.count_out(&member);
        Some(member)
    }

    fn count_in(&mut self, member: &Member) {
        self.members_bytes += member.bytes();
        self.parked_joins += usize::from(member.join.is_some());
        for name in distinct_names(&member.protocols) {
            *self.speakers.entry(name.clone()).or_default() += 1;
        }
    }

    fn count_out(&mut self, member: &Member) {
        self.members_bytes -= member.bytes();
        self.parked_joins -= usize::from(member.join.is_some());
        for name in distinct_names(&member.protocols) {
            if let Some(count) = self.speakers.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.speakers.remove(name);
                }
            }
        }
    }

    /// Gives each member its assignment.
    pub(super) fn set_assignments(&mut self, mut assignment_of: impl FnMut(&Str) -> Bytes) {
        for (member_id, member) in &mut self.members {
            let assignment = assignment_of(member_id);
            self.members_bytes -= member.assignment.len();
            self.members_bytes += assignment.len();
            member.assignment = assignment;
        }
    }

    /// Takes a member, or an id given out, away. What it has parked is answered: it is unknown now.
    pub(super) fn remove(&mut self, work: &mut Work<'_>, member_id: &Str) {
        let timer = self.session_timer(member_id);
        self.pending_syncs.remove(member_id);
        if self.pending_joins.remove(member_id) {
            work.cancel_timer(timer);
            return;
        }
        let Some(member) = self.take(member_id) else {
            return;
        };
        work.cancel_timer(timer);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
        if let Some(join) = member.join {
            let member_id = Str::EMPTY;
            reply_join_error(work, join, member_id, ErrorCode::UNKNOWN_MEMBER_ID);
        }
        if let Some(ticket) = member.sync {
            reply_sync_error(work, ticket, ErrorCode::UNKNOWN_MEMBER_ID);
        }
    }

    /// Answers a member's parked join, if it has one.
    pub(super) fn complete_parked_join(
        &mut self,
        work: &mut Work<'_>,
        member_id: &Str,
        response: JoinGroupResponse,
    ) {
        if let Some(member) = self.members.get_mut(member_id)
            && let Some(join) = member.join.take()
        {
            self.parked_joins -= 1;
            reply_join(work, join, response);
        }
    }

    /// A member parks a join. One that it had parked before, on a connection now lost, is told to
    /// join again.
    pub(super) fn park_join(&mut self, work: &mut Work<'_>, member_id: &Str, join: ParkedJoin) {
        let Some(member) = self.members.get_mut(member_id) else {
            return;
        };
        match member.join.replace(join) {
            Some(earlier) => {
                let error = ErrorCode::REBALANCE_IN_PROGRESS;
                reply_join_error(work, earlier, member_id.clone(), error);
            }
            None => self.parked_joins += 1,
        }
    }

    /// Whether everybody we know of has joined.
    pub(super) fn has_all_joined(&self) -> bool {
        self.parked_joins == self.members.len() && self.pending_joins.is_empty()
    }

    pub(super) fn parked_joins(&self) -> usize {
        self.parked_joins
    }

    /// What a member is told of the current generation; the leader also gets everybody's metadata.
    pub(super) fn join_response(&self, member_id: &Str) -> JoinGroupResponse {
        JoinGroupResponse {
            generation_id: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            leader: self.leader.clone().unwrap_or_default(),
            member_id: member_id.clone(),
            members: if self.is_leader(member_id) {
                self.members_with_metadata()
            } else {
                Vec::new()
            },
            ..JoinGroupResponse::default()
        }
    }

    fn members_with_metadata(&self) -> Vec<JoinGroupResponseMember> {
        self.members
            .iter()
            .map(|(member_id, member)| JoinGroupResponseMember {
                member_id: member_id.clone(),
                group_instance_id: member.instance_id.clone(),
                metadata: self.metadata_of(member),
            })
            .collect()
    }

    /// A member's metadata for the protocol of this generation.
    pub(super) fn metadata_of(&self, member: &Member) -> Bytes {
        self.protocol
            .as_ref()
            .and_then(|protocol| member.metadata(protocol))
            .cloned()
            .unwrap_or_default()
    }

    /// What a member is told of its assignment.
    pub(super) fn sync_response(&self, member_id: &Str) -> SyncGroupResponse {
        let member = self.members.get(member_id);
        SyncGroupResponse {
            protocol_type: self.protocol_type.clone(),
            protocol_name: self.protocol.clone(),
            assignment: member.map_or_else(Bytes::new, |member| member.assignment.clone()),
            ..SyncGroupResponse::default()
        }
    }

    /// The current generation, as the log has it.
    pub(super) fn stored(&self, now_ms: i64) -> StoredMetadata {
        StoredMetadata {
            protocol_type: self.protocol_type.clone(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            changed_at_ms: Some(now_ms),
            members: self
                .members
                .iter()
                .map(|(member_id, member)| StoredMember {
                    member_id: member_id.clone(),
                    instance_id: member.instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: member.session_timeout_ms,
                    subscription: self.metadata_of(member),
                    assignment: member.assignment.clone(),
                })
                .collect(),
        }
    }

    /// Topics that its members read. `None`: it cannot be told, so it may be any.
    pub(super) fn subscribed_topics(&self) -> Option<BTreeSet<Str>> {
        let mut topics = BTreeSet::new();
        if !self.is_of_consumers() {
            return Some(topics);
        }
        for member in self.members.values() {
            let metadata = member.metadata(self.protocol.as_ref()?)?;
            subscription::add_topics(metadata, &mut topics).ok()?;
        }
        Some(topics)
    }
}

/// A client may name a protocol twice; it speaks it once.
fn distinct_names(protocols: &[JoinGroupRequestProtocol]) -> BTreeSet<&Str> {
    protocols.iter().map(|offered| &offered.name).collect()
}

/// Answers a join.
pub(super) fn reply_join(work: &mut Work<'_>, join: ParkedJoin, mut response: JoinGroupResponse) {
    const FIRST_VERSION_WITH_NULL_PROTOCOL: i16 = 7;
    if join.api_version < FIRST_VERSION_WITH_NULL_PROTOCOL && response.protocol_name.is_none() {
        response.protocol_name = Some(Str::EMPTY);
    }
    work.reply(join.ticket, Reply::JoinGroup(response));
}

/// Answers a join with an error.
pub(super) fn reply_join_error(
    work: &mut Work<'_>,
    join: ParkedJoin,
    member_id: Str,
    error_code: ErrorCode,
) {
    let response = JoinGroupResponse {
        error_code,
        protocol_name: None,
        member_id,
        ..JoinGroupResponse::default()
    };
    reply_join(work, join, response);
}

/// Answers a sync with an error.
pub(super) fn reply_sync_error(work: &mut Work<'_>, ticket: Ticket, error_code: ErrorCode) {
    let response = SyncGroupResponse { error_code, ..SyncGroupResponse::default() };
    work.reply(ticket, Reply::SyncGroup(response));
}
