//! Membership in a classic group, as one member lives it: join, sync, heartbeat, and again.
//!
//! Eager: before it joins anew, a member gives up all it has ([`GroupEvent::Revoked`]); whoever
//! drives it commits then. One request is under way at a time.

use vltava_protocol::encode::EncodeError;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use vltava_protocol::messages::join_group::{
    JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse, JoinGroupResponseMember,
};
use vltava_protocol::messages::leave_group::{LeaveGroupRequest, MemberIdentity};
use vltava_protocol::messages::sync_group::{
    SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse,
};
use vltava_protocol::types::Str;

use crate::assignor::{
    PROTOCOL_TYPE, RANGE, assign_range, decode_assignment, decode_subscription, encode_assignment,
    encode_subscription,
};
use crate::backoff::Backoff;
use crate::metadata::{Metadata, TopicPartition};

/// From this version on, LeaveGroup has a list of members.
const LEAVE_GROUP_MEMBERS: i16 = 3;

/// How a member behaves.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Which group.
    pub group: Str,
    /// What to read.
    pub topics: Vec<Str>,
    /// A name that stays over restarts (KIP-345).
    pub instance_id: Option<Str>,
    /// After so much silence the coordinator takes the member for dead; milliseconds.
    pub session_timeout_ms: i32,
    /// How long members have to come back when the group changes; milliseconds.
    pub rebalance_timeout_ms: i32,
    /// How often it says that it lives; milliseconds.
    pub heartbeat_interval_ms: u64,
}

impl GroupOptions {
    /// Java's defaults.
    pub fn new(group: Str, topics: Vec<Str>) -> Self {
        Self {
            group,
            topics,
            instance_id: None,
            session_timeout_ms: 45_000,
            rebalance_timeout_ms: 300_000,
            heartbeat_interval_ms: 3000,
        }
    }
}

/// What should be sent to the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupRequest {
    /// Become a member, or say that one still is.
    Join(JoinGroupRequest),
    /// Hand out, or ask for, assignments.
    Sync(SyncGroupRequest),
    /// Say that one lives.
    Heartbeat(HeartbeatRequest),
}

/// What the coordinator answered.
#[derive(Clone, Debug, PartialEq)]
pub enum GroupResponse {
    /// To a join.
    Join(JoinGroupResponse),
    /// To a sync.
    Sync(SyncGroupResponse),
    /// To a heartbeat.
    Heartbeat(HeartbeatResponse),
}

/// What changed for the member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// It has these partitions now, and no others.
    Assigned(Vec<TopicPartition>),
    /// It must give up all partitions; it may still commit.
    Revoked,
    /// It has lost all partitions; it may not commit any more.
    Lost,
    /// The coordinator must be looked up again.
    CoordinatorMoved,
    /// The group will not have it.
    Refused(ErrorCode),
}

#[derive(Debug)]
enum State {
    /// Wants to join.
    Outside,
    /// Has joined, wants to sync; where it leads, with everybody's assignment.
    Joined(Vec<SyncGroupRequestAssignment>),
    /// Has its partitions.
    Stable,
    /// Will not try again.
    Refused,
}

/// One member.
#[derive(Debug)]
pub struct Membership {
    options: GroupOptions,
    state: State,
    is_waiting: bool,
    has_partitions: bool,
    member_id: Str,
    generation: i32,
    next_attempt_ms: u64,
    next_heartbeat_ms: u64,
    backoff: Backoff,
}

impl Membership {
    /// Somebody who is not a member yet.
    pub fn new(options: GroupOptions) -> Self {
        Self {
            options,
            state: State::Outside,
            is_waiting: false,
            has_partitions: false,
            member_id: Str::EMPTY,
            generation: -1,
            next_attempt_ms: 0,
            next_heartbeat_ms: 0,
            backoff: Backoff::new(),
        }
    }

    /// The group's generation that it belongs to, -1 for none.
    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// The id that the coordinator gave it; empty for none.
    pub fn member_id(&self) -> &Str {
        &self.member_id
    }

    /// Its options.
    pub fn options(&self) -> &GroupOptions {
        &self.options
    }

    /// What to send now, if anything. Nothing while an answer is missing.
    pub fn take_request(&mut self, now_ms: u64) -> Result<Option<GroupRequest>, EncodeError> {
        if self.is_waiting || now_ms < self.next_attempt_ms {
            return Ok(None);
        }
        let request = match &mut self.state {
            State::Refused => return Ok(None),
            State::Stable if now_ms < self.next_heartbeat_ms => return Ok(None),
            State::Stable => {
                self.next_heartbeat_ms = now_ms + self.options.heartbeat_interval_ms;
                GroupRequest::Heartbeat(HeartbeatRequest {
                    group_id: self.options.group.clone(),
                    generation_id: self.generation,
                    member_id: self.member_id.clone(),
                    group_instance_id: self.options.instance_id.clone(),
                })
            }
            State::Joined(assignments) => {
                let assignments = assignments.clone();
                GroupRequest::Sync(self.sync_request(assignments))
            }
            State::Outside => GroupRequest::Join(self.join_request()?),
        };
        self.is_waiting = true;
        Ok(Some(request))
    }

    /// When [`Self::take_request`] has something to do without an answer coming in.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        match self.state {
            _ if self.is_waiting => None,
            State::Refused => None,
            State::Stable => Some(self.next_attempt_ms.max(self.next_heartbeat_ms)),
            State::Outside | State::Joined(_) => Some(self.next_attempt_ms),
        }
    }

    /// Takes in an answer. What it means for the member, in order. `metadata` should know the
    /// group's topics: if the member is made leader, it divides their partitions.
    pub fn on_response(
        &mut self,
        now_ms: u64,
        response: GroupResponse,
        metadata: &Metadata,
    ) -> Result<Vec<GroupEvent>, EncodeError> {
        self.is_waiting = false;
        match response {
            GroupResponse::Join(response) => self.on_join(now_ms, response, metadata),
            GroupResponse::Sync(response) => Ok(self.on_sync(now_ms, &response)),
            GroupResponse::Heartbeat(response) => Ok(match response.error_code {
                ErrorCode::NONE => Vec::new(),
                code => self.on_error(now_ms, code),
            }),
        }
    }

    /// The connection to the coordinator is gone, and with it the answer.
    pub fn on_disconnect(&mut self, now_ms: u64) -> Vec<GroupEvent> {
        self.is_waiting = false;
        self.next_attempt_ms = now_ms + self.backoff.next_ms();
        vec![GroupEvent::CoordinatorMoved]
    }

    /// Takes in an error that the coordinator gave to a commit. Empty: it is the commit's alone.
    pub fn on_commit_error(&mut self, now_ms: u64, code: ErrorCode) -> Vec<GroupEvent> {
        match code {
            ErrorCode::OFFSET_METADATA_TOO_LARGE
            | ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            | ErrorCode::UNKNOWN_TOPIC_ID => Vec::new(),
            code => self.on_error(now_ms, code),
        }
    }

    /// Says good-bye, so that the others need not wait for the session to end. `None` where there
    /// is no need: a static member keeps its place, and who is no member has none. In the shape of
    /// `version`.
    pub fn leave(&self, version: i16) -> Option<LeaveGroupRequest> {
        if self.member_id.is_empty() || self.options.instance_id.is_some() {
            return None;
        }
        let mut request = LeaveGroupRequest {
            group_id: self.options.group.clone(),
            ..LeaveGroupRequest::default()
        };
        if version < LEAVE_GROUP_MEMBERS {
            request.member_id = self.member_id.clone();
        } else {
            request.members.push(MemberIdentity {
                member_id: self.member_id.clone(),
                ..MemberIdentity::default()
            });
        }
        Some(request)
    }

    fn join_request(&self) -> Result<JoinGroupRequest, EncodeError> {
        Ok(JoinGroupRequest {
            group_id: self.options.group.clone(),
            session_timeout_ms: self.options.session_timeout_ms,
            rebalance_timeout_ms: self.options.rebalance_timeout_ms,
            member_id: self.member_id.clone(),
            group_instance_id: self.options.instance_id.clone(),
            protocol_type: PROTOCOL_TYPE,
            protocols: vec![JoinGroupRequestProtocol {
                name: RANGE,
                metadata: encode_subscription(&self.options.topics)?,
            }],
            ..JoinGroupRequest::default()
        })
    }

    fn sync_request(&self, assignments: Vec<SyncGroupRequestAssignment>) -> SyncGroupRequest {
        SyncGroupRequest {
            group_id: self.options.group.clone(),
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            group_instance_id: self.options.instance_id.clone(),
            protocol_type: Some(PROTOCOL_TYPE),
            protocol_name: Some(RANGE),
            assignments,
        }
    }

    fn on_join(
        &mut self,
        now_ms: u64,
        response: JoinGroupResponse,
        metadata: &Metadata,
    ) -> Result<Vec<GroupEvent>, EncodeError> {
        match response.error_code {
            ErrorCode::NONE => {}
            // The id to join with (KIP-394).
            ErrorCode::MEMBER_ID_REQUIRED => {
                self.member_id = response.member_id;
                return Ok(Vec::new());
            }
            code => return Ok(self.on_error(now_ms, code)),
        }
        self.backoff.reset();
        self.member_id = response.member_id;
        self.generation = response.generation_id;
        let leads = response.leader == self.member_id && !response.skip_assignment;
        let assignments = if leads { assign(&response.members, metadata)? } else { Vec::new() };
        self.state = State::Joined(assignments);
        Ok(Vec::new())
    }

    fn on_sync(&mut self, now_ms: u64, response: &SyncGroupResponse) -> Vec<GroupEvent> {
        if !response.error_code.is_none() {
            return self.on_error(now_ms, response.error_code);
        }
        let Ok(partitions) = decode_assignment(&response.assignment) else {
            return self.refuse(ErrorCode::INCONSISTENT_GROUP_PROTOCOL);
        };
        self.backoff.reset();
        self.state = State::Stable;
        self.has_partitions = true;
        self.next_heartbeat_ms = now_ms + self.options.heartbeat_interval_ms;
        vec![GroupEvent::Assigned(partitions)]
    }

    fn on_error(&mut self, now_ms: u64, code: ErrorCode) -> Vec<GroupEvent> {
        match code {
            // The group is changing; the member still has its place in it.
            ErrorCode::REBALANCE_IN_PROGRESS => {
                self.state = State::Outside;
                self.give_up(GroupEvent::Revoked)
            }
            // The group went on without it.
            ErrorCode::UNKNOWN_MEMBER_ID => {
                self.member_id = Str::EMPTY;
                self.fall_out()
            }
            ErrorCode::ILLEGAL_GENERATION => self.fall_out(),
            ErrorCode::NOT_COORDINATOR | ErrorCode::COORDINATOR_NOT_AVAILABLE => {
                self.next_attempt_ms = now_ms + self.backoff.next_ms();
                vec![GroupEvent::CoordinatorMoved]
            }
            code if code.is_retriable() => {
                self.next_attempt_ms = now_ms + self.backoff.next_ms();
                Vec::new()
            }
            code => self.refuse(code),
        }
    }

    fn fall_out(&mut self) -> Vec<GroupEvent> {
        self.generation = -1;
        self.state = State::Outside;
        self.give_up(GroupEvent::Lost)
    }

    fn refuse(&mut self, code: ErrorCode) -> Vec<GroupEvent> {
        self.state = State::Refused;
        let mut events = self.give_up(GroupEvent::Lost);
        events.push(GroupEvent::Refused(code));
        events
    }

    /// The event, where there is something to give up.
    fn give_up(&mut self, event: GroupEvent) -> Vec<GroupEvent> {
        if std::mem::take(&mut self.has_partitions) { vec![event] } else { Vec::new() }
    }
}

/// Divides the partitions of all topics among the members. One whose subscription cannot be read
/// gets nothing.
fn assign(
    members: &[JoinGroupResponseMember],
    metadata: &Metadata,
) -> Result<Vec<SyncGroupRequestAssignment>, EncodeError> {
    let subscribed: Vec<(Str, Vec<Str>)> = members
        .iter()
        .map(|member| {
            let order = member.group_instance_id.as_ref().unwrap_or(&member.member_id);
            (order.clone(), decode_subscription(&member.metadata).unwrap_or_default())
        })
        .collect();
    let partition_count =
        |topic: &Str| metadata.topics.get(topic).map(|topic| topic.partitions.len());
    let assigned = assign_range(&subscribed, partition_count);
    let pairs = members.iter().zip(assigned).map(|(member, partitions)| {
        Ok(SyncGroupRequestAssignment {
            member_id: member.member_id.clone(),
            assignment: encode_assignment(&partitions)?,
        })
    });
    pairs.collect()
}

#[cfg(test)]
mod tests;
