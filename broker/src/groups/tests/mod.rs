//! Stories of groups, in a small vocabulary: join, sync, beat, leave, commit, tick, restart.
//!
//! A [`World`] is a machine with a host of nothing but a log, timers and a clock. After every step
//! it checks what `groups` promises (see the front page of the room).

mod admin;
mod expiry;
mod golden;
mod hostile;
mod joining;
mod leaving;
mod offsets;
mod properties;
mod reloading;
mod sessions;
mod static_members;
mod syncing;

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use vltava_protocol::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity,
};
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::OffsetFetchRequestGroup;
use vltava_protocol::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};
use vltava_protocol::types::Str;

use super::deletion::Deletion;
use super::group::{Group, Phase};
use super::{Client, GroupMachine, Input, Join, Memory, Options, Reply, Session, State, Timer};
use crate::machine::{KeyValue, Machine, Now, Outcome, Ticket, TimerChange};

/// What a join asks for; the rest is as [`ask`] has it.
#[derive(Clone, Debug)]
struct Ask {
    version: i16,
    client: &'static str,
    request: JoinGroupRequest,
}

/// A join of group "g" by a consumer that speaks "range", in the newest version.
fn ask(client: &'static str) -> Ask {
    Ask {
        version: 9,
        client,
        request: JoinGroupRequest {
            group_id: Str::from("g"),
            session_timeout_ms: 10_000,
            rebalance_timeout_ms: 60_000,
            protocol_type: Str::from("consumer"),
            protocols: protocols(&[("range", subscription(&["t"]))]),
            ..JoinGroupRequest::default()
        },
    }
}

impl Ask {
    fn version(mut self, version: i16) -> Self {
        self.version = version;
        self
    }
    fn instance(mut self, instance: &str) -> Self {
        self.request.group_instance_id = Some(Str::from(instance));
        self
    }
    fn member(mut self, member: &Str) -> Self {
        self.request.member_id = member.clone();
        self
    }
    fn session_ms(mut self, timeout_ms: i32) -> Self {
        self.request.session_timeout_ms = timeout_ms;
        self
    }
    fn rebalance_ms(mut self, timeout_ms: i32) -> Self {
        self.request.rebalance_timeout_ms = timeout_ms;
        self
    }
    fn speaks(mut self, offered: &[(&str, Bytes)]) -> Self {
        self.request.protocols = protocols(offered);
        self
    }
    fn reads(self, topics: &[&str]) -> Self {
        self.speaks(&[("range", subscription(topics))])
    }
    fn kind(mut self, protocol_type: &str) -> Self {
        self.request.protocol_type = Str::from(protocol_type);
        self
    }
    fn group(mut self, group: &str) -> Self {
        self.request.group_id = Str::from(group);
        self
    }
}

fn protocols(offered: &[(&str, Bytes)]) -> Vec<JoinGroupRequestProtocol> {
    let protocol = |(name, metadata): &(&str, Bytes)| JoinGroupRequestProtocol {
        name: Str::from(*name),
        metadata: metadata.clone(),
    };
    offered.iter().map(protocol).collect()
}

/// A consumer's metadata: version 1, topics, user data, owned partitions.
fn subscription(topics: &[&str]) -> Bytes {
    let mut bytes = vec![0, 1];
    bytes.extend(u32::try_from(topics.len()).unwrap().to_be_bytes());
    for topic in topics {
        bytes.extend(u16::try_from(topic.len()).unwrap().to_be_bytes());
        bytes.extend(topic.as_bytes());
    }
    bytes.extend([255, 255, 255, 255, 0, 0, 0, 0]);
    Bytes::from(bytes)
}

/// A machine, its log, its timers and its clock.
struct World {
    machine: GroupMachine,
    state: State,
    session: Session,
    log: Vec<KeyValue>,
    now: Now,
    timers: BTreeMap<Timer, u64>,
    replies: BTreeMap<Ticket, Reply>,
    open: BTreeSet<Ticket>,
    tickets: u64,
    /// When each input came, in monotonic ms.
    asked_ms: BTreeMap<Ticket, u64>,
    notes: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self::with(|_| {})
    }

    /// A world where some options are not the default's.
    fn with(change: impl FnOnce(&mut Options)) -> Self {
        let mut options = Options::default();
        change(&mut options);
        let mut world = Self {
            machine: GroupMachine::new(options, &Memory::default()),
            state: State::default(),
            session: Session::default(),
            log: Vec::new(),
            now: Now { monotonic_ms: 5_000, wall_ms: 1_700_000_000_000 },
            timers: BTreeMap::new(),
            replies: BTreeMap::new(),
            open: BTreeSet::new(),
            tickets: 0,
            asked_ms: BTreeMap::new(),
            notes: Vec::new(),
        };
        world.restart();
        world
    }

    /// Leadership is lost and won: whoever waits gets no answer from here, and the log is replayed.
    fn restart(&mut self) {
        self.open.clear();
        self.timers.clear();
        self.session = Session::default();
        self.state = replayed(&self.machine, &self.log);
        let outcome = self.machine.lead(&self.state, &mut self.session, self.now);
        self.apply(outcome);
    }

    fn submit(&mut self, input: Input) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.open.insert(ticket);
        self.asked_ms.insert(ticket, self.now.monotonic_ms);
        let outcome = self.machine.handle(&self.state, &mut self.session, ticket, input, self.now);
        self.apply(outcome);
        ticket
    }

    fn apply(&mut self, outcome: Outcome<GroupMachine>) {
        for record in &outcome.records {
            let offset = i64::try_from(self.log.len()).unwrap();
            self.log.push(record.clone());
            let wall_ms = self.now.wall_ms;
            self.machine
                .replay(&mut self.state, record, offset, wall_ms)
                .expect("the machine reads what it wrote");
        }
        for change in outcome.timers {
            match change {
                TimerChange::Set { key, at_ms } => drop(self.timers.insert(key, at_ms)),
                TimerChange::Cancel { key } => drop(self.timers.remove(&key)),
            }
        }
        for (ticket, reply) in outcome.replies {
            assert!(self.open.remove(&ticket), "{ticket:?} was answered twice");
            self.replies.insert(ticket, reply);
        }
        self.notes.extend(outcome.notes);
        self.check();
    }

    /// Lets time pass; what is due on the way happens.
    fn tick(&mut self, ms: u64) {
        let end_ms = self.now.monotonic_ms + ms;
        let mut fired = 0;
        while let Some((timer, at_ms)) = self.next_timer().filter(|(_, at_ms)| *at_ms <= end_ms) {
            self.advance_to(at_ms.max(self.now.monotonic_ms));
            self.timers.remove(&timer);
            let outcome = self.machine.fire(&self.state, &mut self.session, timer, self.now);
            self.apply(outcome);
            fired += 1;
            assert!(fired < 1_000_000, "timers that never come to rest");
        }
        self.advance_to(end_ms);
    }

    fn next_timer(&self) -> Option<(Timer, u64)> {
        let next = self.timers.iter().min_by_key(|(_, at_ms)| **at_ms);
        next.map(|(timer, at_ms)| (timer.clone(), *at_ms))
    }

    fn advance_to(&mut self, at_ms: u64) {
        let passed_ms = at_ms - self.now.monotonic_ms;
        self.now.monotonic_ms = at_ms;
        self.now.wall_ms += i64::try_from(passed_ms).unwrap();
    }

    /// The reply to a request, which must be there.
    fn reply(&mut self, ticket: Ticket) -> Reply {
        let reply = self.replies.remove(&ticket);
        reply.unwrap_or_else(|| panic!("{ticket:?} is not answered yet"))
    }

    fn is_open(&self, ticket: Ticket) -> bool {
        self.open.contains(&ticket)
    }

    fn join(&mut self, ask: &Ask) -> Ticket {
        self.submit(Input::JoinGroup(Box::new(Join {
            request: ask.request.clone(),
            api_version: ask.version,
            client: Client { id: Str::from(ask.client), host: Str::from("/10.0.0.1") },
            random: u128::from(self.tickets) * 0x9e37_79b9_7f4a_7c15,
        })))
    }

    fn joined(&mut self, ticket: Ticket) -> JoinGroupResponse {
        match self.reply(ticket) {
            Reply::JoinGroup(response) => response,
            other => panic!("{other:?} is no join"),
        }
    }

    /// A join that is answered with an error at once.
    fn join_error(&mut self, ask: &Ask) -> ErrorCode {
        let ticket = self.join(ask);
        let error = self.joined(ticket).error_code;
        assert_ne!(error, ErrorCode::NONE);
        error
    }

    /// Joins as a client does: asks for an id where there is none, then joins with it.
    fn enter(&mut self, ask: &Ask) -> (Str, Ticket) {
        let first = self.join(&ask.clone().member(&Str::EMPTY));
        let response = self.joined(first);
        assert_eq!(response.error_code, ErrorCode::MEMBER_ID_REQUIRED);
        let member = response.member_id;
        let ticket = self.join(&ask.clone().member(&member));
        (member, ticket)
    }

    fn sync(&mut self, member: &Str, generation: i32, gives: &[(&Str, &str)]) -> Ticket {
        self.sync_with(sync_request(member, generation, gives))
    }

    fn sync_with(&mut self, request: SyncGroupRequest) -> Ticket {
        self.submit(Input::SyncGroup { request, api_version: 5 })
    }

    fn synced(&mut self, ticket: Ticket) -> SyncGroupResponse {
        match self.reply(ticket) {
            Reply::SyncGroup(response) => response,
            other => panic!("{other:?} is no sync"),
        }
    }

    /// What a member was given.
    fn assignment(&mut self, ticket: Ticket) -> String {
        let response = self.synced(ticket);
        assert_eq!(response.error_code, ErrorCode::NONE);
        String::from_utf8(response.assignment.to_vec()).unwrap()
    }

    fn beat(&mut self, member: &Str, generation: i32) -> ErrorCode {
        self.beat_with(HeartbeatRequest {
            group_id: Str::from("g"),
            generation_id: generation,
            member_id: member.clone(),
            ..HeartbeatRequest::default()
        })
    }

    fn beat_with(&mut self, request: HeartbeatRequest) -> ErrorCode {
        let ticket = self.submit(Input::Heartbeat(request));
        match self.reply(ticket) {
            Reply::Heartbeat(response) => response.error_code,
            other => panic!("{other:?} is no heartbeat"),
        }
    }

    fn leave(&mut self, members: &[MemberIdentity]) -> LeaveGroupResponse {
        self.leave_with(
            LeaveGroupRequest {
                group_id: Str::from("g"),
                members: members.to_vec(),
                ..LeaveGroupRequest::default()
            },
            5,
        )
    }

    fn leave_with(&mut self, request: LeaveGroupRequest, api_version: i16) -> LeaveGroupResponse {
        let ticket = self.submit(Input::LeaveGroup { request, api_version });
        match self.reply(ticket) {
            Reply::LeaveGroup(response) => response,
            other => panic!("{other:?} is no leave"),
        }
    }

    /// Commits one offset of topic "t", partition 0.
    fn commit(&mut self, member: &Str, generation: i32, offset: i64) -> ErrorCode {
        self.commit_with(&commit_request("g", member, generation, "t", offset), 10)
    }

    /// Commits, and gives the error of the first partition.
    fn commit_with(&mut self, request: &OffsetCommitRequest, api_version: i16) -> ErrorCode {
        let ticket = self.submit(Input::OffsetCommit { request: request.clone(), api_version });
        match self.reply(ticket) {
            Reply::OffsetCommit(response) => response.topics[0].partitions[0].error_code,
            other => panic!("{other:?} is no commit"),
        }
    }

    /// All offsets of a group: topic, partition, offset.
    fn offsets(&mut self, group: &str) -> Vec<(String, i32, i64)> {
        let ticket = self.submit(Input::OffsetFetch(OffsetFetchRequestGroup {
            group_id: Str::from(group),
            topics: None,
            ..OffsetFetchRequestGroup::default()
        }));
        let Reply::OffsetFetch(response) = self.reply(ticket) else {
            panic!("no fetch");
        };
        let mut offsets = Vec::new();
        for topic in response.topics {
            for partition in topic.partitions {
                let index = partition.partition_index;
                offsets.push((topic.name.to_string(), index, partition.committed_offset));
            }
        }
        offsets
    }

    fn group(&self) -> &Group {
        self.session.group(&Str::from("g")).expect("group g is live")
    }

    fn phase(&self) -> Phase {
        self.session.group(&Str::from("g")).map_or(Phase::Empty, |group| group.phase)
    }

    /// Brings members into group "g" and through one generation. The first leads; each is given its
    /// own client id.
    fn stable(&mut self, asks: &[Ask]) -> Vec<Str> {
        let mut entered = Vec::new();
        for ask in asks {
            if ask.request.group_instance_id.is_some() || ask.version < 4 {
                entered.push((None, self.join(ask)));
            } else {
                let (member, ticket) = self.enter(ask);
                entered.push((Some(member), ticket));
            }
        }
        while self.is_open(entered[0].1) {
            self.tick(500);
        }
        let responses: Vec<_> = entered.iter().map(|(_, ticket)| self.joined(*ticket)).collect();
        let members: Vec<Str> =
            responses.iter().map(|response| response.member_id.clone()).collect();
        let generation = responses[0].generation_id;
        assert!(responses.iter().all(|response| response.error_code.is_none()));
        assert_eq!(responses[0].leader, members[0], "the first to join leads");
        self.settle(generation, &members, asks);
        members
    }

    /// The first of these members assigns its client id to each; all ask.
    fn settle(&mut self, generation: i32, members: &[Str], asks: &[Ask]) {
        let gives: Vec<_> = members.iter().zip(asks.iter().map(|ask| ask.client)).collect();
        for (index, member) in members.iter().enumerate() {
            let gives = if index == 0 { gives.as_slice() } else { &[] };
            let ticket = self.sync(member, generation, gives);
            assert_eq!(self.assignment(ticket), asks[index].client);
        }
        assert_eq!(self.phase(), Phase::Stable);
    }

    /// What the room promises, at this moment.
    fn check(&self) {
        let mut parked = BTreeSet::new();
        for deletion in &self.session.deletions {
            let (Deletion::Group { ticket, .. } | Deletion::Topic { ticket, .. }) = deletion;
            parked.insert(*ticket);
        }
        let mut bytes = 0;
        for (id, group) in self.session.groups() {
            assert!(!group.is_idle(), "{id:?} needs no session");
            bytes += group.bytes();
            self.check_log_has(id, group);
            self.check_waits(id, group);
            let is_member = |id: &Str| group.members.contains_key(id);
            assert!(group.leader.as_ref().is_none_or(is_member), "a stranger leads");
            assert!(group.static_members.values().all(is_member));
            assert!(group.pending_syncs.iter().all(is_member));
            let joins = group.members.values().filter_map(|member| member.join);
            assert_eq!(joins.clone().count(), group.parked_joins());
            parked.extend(joins.map(|join| join.ticket));
            parked.extend(group.members.values().filter_map(|member| member.sync));
        }
        assert_eq!(bytes, self.session.bytes(), "the session's size");
        assert_eq!(parked, self.open, "who waits is known, and nobody else waits");
        for (id, stored) in self.state.groups() {
            let is_live = self.session.group(id).is_some();
            assert!(is_live || stored.metadata.members.is_empty(), "{id:?} was lost");
        }
    }

    /// A stable group is in the log exactly as it is here; an empty one has no members there.
    fn check_log_has(&self, id: &Str, group: &Group) {
        let mut stored =
            self.state.group(id).map(|stored| stored.metadata.clone()).unwrap_or_default();
        match group.phase {
            Phase::Stable => {
                let mut live = group.stored(0);
                live.changed_at_ms = stored.changed_at_ms.take();
                stored.changed_at_ms = live.changed_at_ms;
                assert_eq!(live, stored);
            }
            Phase::Empty => assert!(stored.members.is_empty()),
            Phase::Preparing(_) | Phase::Completing => {
                assert!(stored.generation <= group.generation);
            }
        }
    }

    /// Nothing waits without a timer that ends the wait.
    fn check_waits(&self, id: &Str, group: &Group) {
        let is_set = |timer: &Timer| self.timers.contains_key(timer);
        for member in &group.pending_joins {
            assert!(is_set(&group.session_timer(member)), "{member:?} for ever");
        }
        for (member_id, member) in &group.members {
            let timer = group.session_timer(member_id);
            assert!(member.is_excused() || is_set(&timer), "{member_id:?} for ever");
        }
        let group_id = id.clone();
        match group.phase {
            Phase::Preparing(_) => assert!(is_set(&Timer::Join { group: group_id })),
            Phase::Completing => {
                assert!(group.leader.is_some());
                assert!(group.pending_syncs.is_empty() || is_set(&Timer::Sync { group: group_id }));
            }
            Phase::Empty | Phase::Stable => {}
        }
    }
}

fn sync_request(member: &Str, generation: i32, gives: &[(&Str, &str)]) -> SyncGroupRequest {
    SyncGroupRequest {
        group_id: Str::from("g"),
        generation_id: generation,
        member_id: member.clone(),
        protocol_type: Some(Str::from("consumer")),
        protocol_name: Some(Str::from("range")),
        assignments: gives
            .iter()
            .map(|(member, assignment)| SyncGroupRequestAssignment {
                member_id: (*member).clone(),
                assignment: Bytes::copy_from_slice(assignment.as_bytes()),
            })
            .collect(),
        ..SyncGroupRequest::default()
    }
}

fn commit_request(
    group: &str,
    member: &Str,
    generation: i32,
    topic: &str,
    offset: i64,
) -> OffsetCommitRequest {
    OffsetCommitRequest {
        group_id: Str::from(group),
        generation_id_or_member_epoch: generation,
        member_id: member.clone(),
        topics: vec![OffsetCommitRequestTopic {
            name: Str::from(topic),
            partitions: vec![OffsetCommitRequestPartition {
                committed_offset: offset,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

fn identity(member: &Str) -> MemberIdentity {
    MemberIdentity { member_id: member.clone(), ..MemberIdentity::default() }
}

/// The state that a log gives.
fn replayed(machine: &GroupMachine, log: &[KeyValue]) -> State {
    let mut state = State::default();
    for (offset, record) in log.iter().enumerate() {
        let offset = i64::try_from(offset).unwrap();
        machine.replay(&mut state, record, offset, 0).unwrap();
    }
    state
}

/// The live state as one log, asked for in pieces of `records_max`.
fn snapshot(machine: &GroupMachine, state: &State, records_max: usize) -> Vec<KeyValue> {
    let mut log: Vec<KeyValue> = Vec::new();
    loop {
        let after = log.last().map(|record| record.key.clone());
        let piece = machine.snapshot(state, after.as_ref(), records_max);
        if piece.is_empty() {
            return log;
        }
        log.extend(piece);
    }
}
