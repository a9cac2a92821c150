//! Members of classic groups: join, be assigned, read, commit, be thrown out, come again.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::message::{from_versioned_bytes, to_versioned_bytes};
use vltava_protocol::messages::find_coordinator::FindCoordinatorRequest;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse,
};
use vltava_protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use vltava_protocol::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use vltava_protocol::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use vltava_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use vltava_protocol::records::consumer_protocol::{
    ConsumerProtocolAssignment, ConsumerProtocolSubscription, TopicPartition,
};
use vltava_protocol::types::{Str, Uuid};

use super::fetch::Fetcher;
use super::{RETRY, Topic, Workload, route};
use crate::checkers::{Partition, violation};
use crate::client::{CallError, Client};
use crate::promise;

/// `OffsetCommit` and `OffsetFetch` name topics by id from this version on.
const BY_ID: i16 = 10;
/// `OffsetFetch` asks for several groups from this version on.
const MANY_GROUPS: i16 = 8;
/// `LeaveGroup` names several members from this version on.
const MANY_MEMBERS: i16 = 3;
const PROTOCOL: Str = Str::from_static("range");
const PROTOCOL_TYPE: Str = Str::from_static("consumer");

struct Member<'a> {
    workload: &'a Workload,
    client: Client,
    /// Where the group's coordinator is.
    coordinator: SocketAddr,
    group: String,
    topic: &'a Topic,
    fetcher: Fetcher<'a>,
    /// Set for a static member.
    instance: Option<Str>,
    id: Str,
    generation: i32,
    /// Where to read each partition that it owns.
    positions: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    /// High watermarks that were told since nobody writes any more.
    ends: BTreeMap<i32, i64>,
}

/// Why a member stops what it does.
enum Leave {
    /// It joins again.
    Rejoin,
    /// It joins again as somebody new.
    Anew,
    /// All is read and committed.
    Done,
}

impl From<CallError> for Leave {
    fn from(_: CallError) -> Self {
        Self::Rejoin
    }
}

/// Takes part in a group until the run is to end and all that it owns is read and committed.
pub async fn take_part(workload: &Workload, mut client: Client) {
    let number = client.random.below(workload.swarm.groups);
    let topic = usize::try_from(number).unwrap_or(0) % workload.topics.len();
    let is_static = client.random.chance(MILLION / 4);
    let topic = &workload.topics[topic];
    let mut member = Member {
        workload,
        group: format!("group-{number}"),
        topic,
        fetcher: Fetcher::new(workload, &mut client, topic),
        instance: is_static.then(|| Str::from(client.name.as_str())),
        coordinator: client.home(),
        client,
        id: Str::EMPTY,
        generation: -1,
        positions: BTreeMap::new(),
        committed: BTreeMap::new(),
        ends: BTreeMap::new(),
    };
    loop {
        match member.take_part_once().await {
            Leave::Done => break,
            Leave::Anew => member.id = Str::EMPTY,
            Leave::Rejoin => {}
        }
        member.client.pause(RETRY).await;
    }
}

/// What a member does about an error of the coordinator's.
fn react(name: &str, what: &str, error: ErrorCode) -> Result<(), Leave> {
    match error {
        ErrorCode::NONE => Ok(()),
        ErrorCode::UNKNOWN_MEMBER_ID | ErrorCode::FENCED_INSTANCE_ID => Err(Leave::Anew),
        ErrorCode::REBALANCE_IN_PROGRESS | ErrorCode::ILLEGAL_GENERATION => Err(Leave::Rejoin),
        other => {
            promise!(other.is_retriable(), "{name}: {what}: {}", other.name());
            Err(Leave::Rejoin)
        }
    }
}

impl Member<'_> {
    fn partition(&self, index: i32) -> Partition {
        (Rc::clone(&self.topic.key), index)
    }

    async fn take_part_once(&mut self) -> Leave {
        match self.member_life().await {
            Ok(()) => Leave::Done,
            Err(leave) => leave,
        }
    }

    async fn member_life(&mut self) -> Result<(), Leave> {
        self.find_coordinator().await?;
        let members = self.join().await?;
        self.sync(members).await?;
        self.fetch_committed().await?;
        while !self.is_done() {
            self.read().await?;
            if self.client.random.chance(MILLION / 3) {
                self.commit().await?;
            }
            if self.client.random.chance(MILLION / 20) {
                self.commit_too_late().await?;
            }
            self.heartbeat().await?;
            if self.client.random.chance(MILLION / 50) && !self.workload.is_finishing() {
                // It falls silent, or says good-bye.
                if self.client.random.chance(MILLION / 2) {
                    self.leave().await?;
                }
                self.client.pause(self.workload.swarm.think_max * 100).await;
                return Err(Leave::Rejoin);
            }
            let think = self.workload.swarm.think_max;
            self.client.pause(think).await;
        }
        self.commit().await?;
        self.leave().await
    }

    fn is_done(&self) -> bool {
        let read = |(index, position): (&i32, &i64)| {
            self.ends.get(index).is_some_and(|end| position >= end)
        };
        self.workload.is_quiet() && self.positions.iter().all(read)
    }

    async fn find_coordinator(&mut self) -> Result<(), Leave> {
        let group = Str::from(self.group.as_str());
        let make = |version| FindCoordinatorRequest {
            key: if version < 4 { group.clone() } else { Str::EMPTY },
            key_type: 0,
            coordinator_keys: if version < 4 { Vec::new() } else { vec![group] },
        };
        let answer = self.client.call(1, make).await?;
        let (error, host, port) = match answer.coordinators.first() {
            Some(found) => (found.error_code, &found.host, found.port),
            None => (answer.error_code, &answer.host, answer.port),
        };
        react(&self.client.name, "FindCoordinator", error)?;
        self.coordinator = route::address(host, port);
        Ok(())
    }

    /// Joins; gives the members where this one is the leader.
    async fn join(&mut self) -> Result<Vec<Str>, Leave> {
        let subscription = ConsumerProtocolSubscription {
            topics: vec![Str::from(&*self.topic.name)],
            ..ConsumerProtocolSubscription::default()
        };
        let metadata = to_versioned_bytes(&subscription, 0).unwrap_or_default();
        let request = JoinGroupRequest {
            group_id: Str::from(self.group.as_str()),
            session_timeout_ms: self.workload.swarm.session_timeout_ms,
            rebalance_timeout_ms: self.workload.swarm.session_timeout_ms,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: PROTOCOL_TYPE,
            protocols: vec![JoinGroupRequestProtocol { name: PROTOCOL, metadata }],
            reason: None,
        };
        let least = if self.instance.is_some() { 5 } else { 1 };
        let answer = self.client.call_at(self.coordinator, least, |_| request).await?;
        if answer.error_code == ErrorCode::MEMBER_ID_REQUIRED {
            self.id = answer.member_id;
            return Err(Leave::Rejoin);
        }
        react(&self.client.name, "JoinGroup", answer.error_code)?;
        Ok(self.joined(answer))
    }

    fn joined(&mut self, answer: JoinGroupResponse) -> Vec<Str> {
        self.id = answer.member_id;
        self.generation = answer.generation_id;
        let leads = answer.leader == self.id && !answer.skip_assignment;
        let mut members: Vec<Str> = match leads {
            true => answer.members.into_iter().map(|member| member.member_id).collect(),
            false => Vec::new(),
        };
        members.sort();
        promise!(
            !leads || members.contains(&self.id),
            "{}: leads generation {} without being in it",
            self.client.name,
            self.generation
        );
        members
    }

    async fn sync(&mut self, members: Vec<Str>) -> Result<(), Leave> {
        let request = SyncGroupRequest {
            group_id: Str::from(self.group.as_str()),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            protocol_type: Some(PROTOCOL_TYPE),
            protocol_name: Some(PROTOCOL),
            assignments: self.assign(&members),
        };
        let least = if self.instance.is_some() { 3 } else { 0 };
        let answer = self.client.call_at(self.coordinator, least, |_| request).await?;
        react(&self.client.name, "SyncGroup", answer.error_code)?;
        self.positions.clear();
        self.committed.clear();
        self.ends.clear();
        if answer.assignment.is_empty() {
            return Ok(());
        }
        let assignment: ConsumerProtocolAssignment = match from_versioned_bytes(&answer.assignment)
        {
            Ok(assignment) => assignment,
            Err(error) => violation(format!("{}: its assignment: {error}", self.client.name)),
        };
        let given = assignment.assigned_partitions.iter().flat_map(|topic| &topic.partitions);
        // Who takes the place of a static member in a generation is given what that one had.
        let who = self.instance.as_ref().unwrap_or(&self.id);
        for &index in given {
            let partition = self.partition(index);
            let mut groups = self.workload.checkers.groups.borrow_mut();
            groups.check_owner(&self.group, self.generation, &partition, who);
            self.positions.insert(index, 0);
        }
        Ok(())
    }

    /// Deals out the partitions, one after the other.
    fn assign(&self, members: &[Str]) -> Vec<SyncGroupRequestAssignment> {
        let mut dealt: Vec<Vec<i32>> = vec![Vec::new(); members.len()];
        if !members.is_empty() {
            for index in 0..self.topic.partitions {
                let to = usize::try_from(index).unwrap_or(0) % members.len();
                dealt[to].push(index);
            }
        }
        let assignments = members.iter().zip(dealt).map(|(member, partitions)| {
            let assignment = ConsumerProtocolAssignment {
                assigned_partitions: vec![TopicPartition {
                    topic: Str::from(&*self.topic.name),
                    partitions,
                }],
                user_data: None,
            };
            SyncGroupRequestAssignment {
                member_id: member.clone(),
                assignment: to_versioned_bytes(&assignment, 0).unwrap_or_default(),
            }
        });
        assignments.collect()
    }

    async fn fetch_committed(&mut self) -> Result<(), Leave> {
        if self.positions.is_empty() {
            return Ok(());
        }
        let (group, name) = (Str::from(self.group.as_str()), Str::from(&*self.topic.name));
        let indexes: Vec<i32> = self.positions.keys().copied().collect();
        let floors: BTreeMap<i32, i64> = {
            let mut groups = self.workload.checkers.groups.borrow_mut();
            let floors = indexes.iter().map(|&index| {
                let partition = self.partition(index);
                (index, groups.committed(&self.group, &partition))
            });
            floors.collect()
        };
        let id = self.topic.id.get();
        let make = |version| match version < MANY_GROUPS {
            true => OffsetFetchRequest {
                group_id: group,
                topics: Some(vec![OffsetFetchRequestTopic { name, partition_indexes: indexes }]),
                ..OffsetFetchRequest::default()
            },
            false => OffsetFetchRequest {
                groups: vec![OffsetFetchRequestGroup {
                    group_id: group,
                    topics: Some(vec![OffsetFetchRequestTopics {
                        name: if version < BY_ID { name } else { Str::EMPTY },
                        topic_id: if version < BY_ID { Uuid::ZERO } else { id },
                        partition_indexes: indexes,
                    }]),
                    ..OffsetFetchRequestGroup::default()
                }],
                ..OffsetFetchRequest::default()
            },
        };
        let answer = self.client.call_at(self.coordinator, 1, make).await?;
        let old = answer.topics.iter().flat_map(|topic| &topic.partitions);
        let old = old.map(|told| (told.partition_index, told.committed_offset, told.error_code));
        let new = answer.groups.iter().flat_map(|group| &group.topics);
        let new = new.flat_map(|topic| &topic.partitions);
        let new = new.map(|told| (told.partition_index, told.committed_offset, told.error_code));
        let group_error = answer.groups.first().map(|group| group.error_code);
        let name = &self.client.name;
        react(name, "OffsetFetch", group_error.unwrap_or(answer.error_code))?;
        let told: Vec<(i32, i64, ErrorCode)> = old.chain(new).collect();
        promise!(told.len() == floors.len(), "{name}: OffsetFetch: {told:?}");
        for (index, offset, error) in told {
            react(name, "OffsetFetch", error)?;
            let partition = self.partition(index);
            let mut groups = self.workload.checkers.groups.borrow_mut();
            groups.check_fetched(&self.group, &partition, floors[&index], offset);
            self.positions.insert(index, offset.max(0));
            self.committed.insert(index, offset.max(0));
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), Leave> {
        if self.positions.is_empty() {
            return Ok(());
        }
        let quiet = self.workload.is_quiet();
        let fetched = self.fetcher.fetch(&mut self.client, &self.positions).await?;
        for fetched in fetched {
            let mut groups = self.workload.checkers.groups.borrow_mut();
            groups.delivered(&self.group, &fetched.partition, fetched.next);
            self.positions.insert(fetched.partition.1, fetched.next);
            if let Some(end) = fetched.high_watermark.filter(|_| quiet) {
                self.ends.insert(fetched.partition.1, end);
            }
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), Leave> {
        let changed = self.positions.iter();
        let changed: BTreeMap<i32, i64> = changed
            .filter(|(index, position)| self.committed.get(index) != Some(position))
            .map(|(&index, &position)| (index, position))
            .collect();
        if changed.is_empty() {
            return Ok(());
        }
        let make = self.commit_request(&changed, self.generation);
        let least = if self.instance.is_some() { 7 } else { 2 };
        let workload = self.workload;
        for (&index, &offset) in &changed {
            let mut groups = workload.checkers.groups.borrow_mut();
            groups.commit_sent(&self.group, &self.partition(index), offset);
        }
        let answer = self.client.call_at(self.coordinator, least, make).await?;
        let mut worst = Ok(());
        for told in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            let partition = self.partition(told.partition_index);
            let Some(&offset) = changed.get(&told.partition_index) else {
                violation(format!("{}: OffsetCommit tells of {partition:?}", self.client.name))
            };
            let mut groups = workload.checkers.groups.borrow_mut();
            match told.error_code {
                ErrorCode::NONE => {
                    groups.commit_acknowledged(&self.group, &partition, offset);
                    self.committed.insert(told.partition_index, offset);
                }
                ErrorCode::UNKNOWN_MEMBER_ID
                | ErrorCode::ILLEGAL_GENERATION
                | ErrorCode::REBALANCE_IN_PROGRESS
                | ErrorCode::FENCED_INSTANCE_ID => {
                    groups.commit_refused(&self.group, &partition, offset);
                }
                // It may have been appended before the coordinator thought otherwise.
                _ => {}
            }
            worst = worst.and(react(&self.client.name, "OffsetCommit", told.error_code));
        }
        worst
    }

    /// Commits as somebody would who has missed that the generation is over: that is refused.
    async fn commit_too_late(&mut self) -> Result<(), Leave> {
        let earlier = self.generation - 1;
        if self.positions.is_empty() || earlier < 0 {
            return Ok(());
        }
        let make = self.commit_request(&self.positions, earlier);
        let least = if self.instance.is_some() { 7 } else { 2 };
        let answer = self.client.call_at(self.coordinator, least, make).await?;
        for told in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            promise!(
                !told.error_code.is_none(),
                "{}: {} took a commit of generation {earlier} after that generation was over",
                self.client.name,
                self.group
            );
        }
        Ok(())
    }

    fn commit_request(
        &self,
        offsets: &BTreeMap<i32, i64>,
        generation: i32,
    ) -> impl FnOnce(i16) -> OffsetCommitRequest + use<> {
        let partitions = offsets.iter().map(|(&partition_index, &committed_offset)| {
            OffsetCommitRequestPartition {
                partition_index,
                committed_offset,
                committed_metadata: Some(Str::EMPTY),
                ..OffsetCommitRequestPartition::default()
            }
        });
        let mut request = OffsetCommitRequest {
            group_id: Str::from(self.group.as_str()),
            generation_id_or_member_epoch: generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
            topics: vec![OffsetCommitRequestTopic {
                name: Str::from(&*self.topic.name),
                partitions: partitions.collect(),
                ..OffsetCommitRequestTopic::default()
            }],
            ..OffsetCommitRequest::default()
        };
        let id = self.topic.id.get();
        move |version| {
            if version >= BY_ID {
                request.topics[0].name = Str::EMPTY;
                request.topics[0].topic_id = id;
            }
            request
        }
    }

    async fn heartbeat(&mut self) -> Result<(), Leave> {
        let request = HeartbeatRequest {
            group_id: Str::from(self.group.as_str()),
            generation_id: self.generation,
            member_id: self.id.clone(),
            group_instance_id: self.instance.clone(),
        };
        let least = if self.instance.is_some() { 3 } else { 0 };
        let answer = self.client.call_at(self.coordinator, least, |_| request).await?;
        react(&self.client.name, "Heartbeat", answer.error_code)
    }

    async fn leave(&mut self) -> Result<(), Leave> {
        let (group, id) = (Str::from(self.group.as_str()), self.id.clone());
        let identity = MemberIdentity {
            member_id: id.clone(),
            group_instance_id: self.instance.clone(),
            reason: None,
        };
        let make = |version| match version < MANY_MEMBERS {
            true => LeaveGroupRequest { group_id: group, member_id: id, members: Vec::new() },
            false => LeaveGroupRequest {
                group_id: group,
                member_id: Str::EMPTY,
                members: vec![identity],
            },
        };
        let least = if self.instance.is_some() { 3 } else { 0 };
        let answer = self.client.call_at(self.coordinator, least, make).await?;
        self.id = Str::EMPTY;
        match answer.error_code {
            ErrorCode::UNKNOWN_MEMBER_ID => Ok(()),
            error => react(&self.client.name, "LeaveGroup", error),
        }
    }
}
