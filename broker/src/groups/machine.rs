//! The machine of one partition of `__consumer_offsets`: what goes in, what comes out, and which
//! file answers it.

use bytes::Bytes;
use vltava_protocol::messages::delete_groups::DeletableGroupResult;
use vltava_protocol::messages::describe_groups::DescribedGroup;
use vltava_protocol::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use vltava_protocol::messages::join_group::JoinGroupResponse;
use vltava_protocol::messages::leave_group::{LeaveGroupRequest, LeaveGroupResponse};
use vltava_protocol::messages::offset_commit::{OffsetCommitRequest, OffsetCommitResponse};
use vltava_protocol::messages::offset_delete::{OffsetDeleteRequest, OffsetDeleteResponse};
use vltava_protocol::messages::offset_fetch::{OffsetFetchRequestGroup, OffsetFetchResponseGroup};
use vltava_protocol::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use vltava_protocol::types::{Str, Uuid};

use super::deletion::{self, Deletion, Ended};
use super::describe::{self, GroupListing, ListGroups};
use super::group::Group;
use super::join::{self, Join};
use super::memory::{Memory, Share};
use super::options::Options;
use super::session::Session;
use super::state::State;
use super::work::Work;
use super::{expiry, heartbeat, leave, offsets, snapshot, sync};
use crate::machine::{KeyValue, Machine, Now, Outcome, ReplayError, Ticket};

/// Coordinates the groups of one partition of `__consumer_offsets`.
#[derive(Debug)]
pub struct GroupMachine {
    options: Options,
    memory: Share,
}

/// Who sends a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Client {
    /// The client id of the request's header; empty where it has none.
    pub id: Str,
    /// Where it comes from, as Kafka shows it: `/127.0.0.1`.
    pub host: Str,
}

/// A request for one group, or about all groups of the partition.
///
/// Topics have names here; a request that names them by id has had its `name`s filled in (and, the
/// other way round, `topic_id` from names where the topic exists).
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A member comes, or comes again. Answered when all have.
    JoinGroup(Box<Join>),
    /// A member asks what it may read; the leader says it. Answered when the leader has.
    SyncGroup {
        /// What was asked.
        request: SyncGroupRequest,
        /// In which version.
        api_version: i16,
    },
    /// A member is alive.
    Heartbeat(HeartbeatRequest),
    /// Members go.
    LeaveGroup {
        /// Who goes.
        request: LeaveGroupRequest,
        /// In which version.
        api_version: i16,
    },
    /// How far a group has read.
    OffsetCommit {
        /// What to keep; topics that do not exist are taken out before.
        request: OffsetCommitRequest,
        /// In which version.
        api_version: i16,
    },
    /// How far a group has read, asked.
    OffsetFetch(OffsetFetchRequestGroup),
    /// Some offsets are not wanted any more.
    OffsetDelete(OffsetDeleteRequest),
    /// What a group is like.
    DescribeGroup {
        /// Which group.
        group_id: Str,
        /// In which version it was asked.
        api_version: i16,
    },
    /// Which groups there are.
    ListGroups(ListGroups),
    /// A group without members is not wanted any more.
    DeleteGroup {
        /// Which group.
        group_id: Str,
    },
    /// A topic was deleted: its offsets end.
    TopicDeleted {
        /// What it was called.
        name: Str,
        /// Its id; offsets of a later topic of that name stay.
        id: Uuid,
    },
    /// What a name means now, told after a load: a topic may have been deleted while nobody led.
    /// Offsets of any other topic of that name end.
    TopicFound {
        /// Of a topic that offsets are kept of.
        name: Str,
        /// The topic of that name that there is; `None`: there is none.
        id: Option<Uuid>,
    },
}

/// The answer to an [`Input`], of the same name.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    missing_docs,
    reason = "each is the answer to the input of its name, in the protocol's own words"
)]
pub enum Reply {
    JoinGroup(JoinGroupResponse),
    SyncGroup(SyncGroupResponse),
    Heartbeat(HeartbeatResponse),
    LeaveGroup(LeaveGroupResponse),
    OffsetCommit(OffsetCommitResponse),
    OffsetFetch(OffsetFetchResponseGroup),
    OffsetDelete(OffsetDeleteResponse),
    DescribeGroup(DescribedGroup),
    ListGroups(GroupListing),
    DeleteGroup(DeletableGroupResult),
    TopicDeleted,
    TopicFound,
}

/// What a group waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// A sign of life of a member, or the join of one that was given an id.
    Session {
        /// Whose group.
        group: Str,
        /// Its id.
        member: Str,
    },
    /// All members to join.
    Join {
        /// Which group.
        group: Str,
    },
    /// All members to ask for their assignment.
    Sync {
        /// Which group.
        group: Str,
    },
    /// The next step of a deletion.
    Deletion,
    /// The next step of the sweep for expired offsets, or the next sweep.
    Sweep,
}

impl GroupMachine {
    /// A machine that does as the operator chose; what it holds counts with what the other machines
    /// of `memory` hold.
    pub fn new(options: Options, memory: &Memory) -> Self {
        Self { options, memory: memory.share() }
    }

    /// Begins the work of one input, or of one timer.
    fn work(&self, state: &State, session: &Session, now: Now) -> Work<'_> {
        // What the last work came to was replayed since.
        self.memory.set(state.bytes().saturating_add(session.bytes()));
        Work::new(&self.options, now, self.memory.total_bytes())
    }
}

impl Machine for GroupMachine {
    type State = State;
    type Session = Session;
    type Input = Input;
    type Reply = Reply;
    type Timer = Timer;

    fn handle(
        &self,
        state: &State,
        session: &mut Session,
        ticket: Ticket,
        input: Input,
        now: Now,
    ) -> Outcome<Self> {
        let mut work = self.work(state, session, now);
        match input {
            Input::JoinGroup(join) => join::join(state, session, &mut work, ticket, *join),
            Input::SyncGroup { request, api_version } => {
                sync::sync(session, &mut work, ticket, request, api_version)
            }
            Input::Heartbeat(request) => {
                heartbeat::heartbeat(session, &mut work, ticket, &request);
            }
            Input::LeaveGroup { request, api_version } => {
                leave::leave(session, &mut work, ticket, request, api_version)
            }
            Input::OffsetCommit { request, api_version } => {
                offsets::commit(state, session, &mut work, ticket, &request, api_version)
            }
            Input::OffsetFetch(request) => {
                let response = offsets::fetch(state, &request);
                work.reply(ticket, Reply::OffsetFetch(response));
            }
            Input::OffsetDelete(request) => {
                offsets::delete(state, session, &mut work, ticket, &request);
            }
            Input::DescribeGroup { group_id, api_version } => {
                let described = describe::describe(state, session, group_id, api_version);
                work.reply(ticket, Reply::DescribeGroup(described));
            }
            Input::ListGroups(request) => {
                let listing = describe::list(state, session, &request);
                work.reply(ticket, Reply::ListGroups(listing));
            }
            Input::DeleteGroup { group_id } => {
                let id = group_id.detached();
                let deletion = Deletion::Group { id, ticket };
                deletion::begin(state, session, &mut work, deletion);
            }
            Input::TopicDeleted { name, id } => {
                let deletion = Deletion::topic(name.detached(), Ended::Of(id), ticket);
                deletion::begin(state, session, &mut work, deletion);
            }
            Input::TopicFound { name, id } => {
                let deletion = Deletion::topic(name.detached(), Ended::AllBut(id), ticket);
                deletion::begin(state, session, &mut work, deletion);
            }
        }
        work.finish()
    }

    fn fire(&self, state: &State, session: &mut Session, timer: Timer, now: Now) -> Outcome<Self> {
        let mut work = self.work(state, session, now);
        match timer {
            Timer::Session { group, member } => {
                heartbeat::session_timer_fired(session, &mut work, &group, &member);
            }
            Timer::Join { group } => {
                session.with_live(&group, |group| group.join_timer_fired(&mut work));
            }
            Timer::Sync { group } => {
                session.with_live(&group, |group| group.sync_timer_fired(&mut work));
            }
            Timer::Deletion => deletion::step(state, session, &mut work),
            Timer::Sweep => expiry::step(state, session, &mut work),
        }
        work.finish()
    }

    /// Members of what was stable go on as they were, with fresh sessions: most of them never
    /// notice that the coordinator moved. Who was in the middle of a rebalance finds that its
    /// generation, or itself, is unknown, and joins again.
    fn lead(&self, state: &State, session: &mut Session, now: Now) -> Outcome<Self> {
        let mut work = self.work(state, session, now);
        for (id, stored) in state.groups() {
            if stored.metadata.members.is_empty() {
                continue;
            }
            let mut group = Group::load(&mut work, id, stored);
            if group.members.len() > self.options.group_members_max {
                group.prepare_rebalance(&mut work, "it is larger than it may be now");
            }
            session.insert(group);
        }
        work.set_timer(Timer::Sweep, self.options.offsets_check_interval_ms);
        work.finish()
    }

    fn replay(
        &self,
        state: &mut State,
        record: &KeyValue,
        _offset: i64,
        _timestamp_ms: i64,
    ) -> Result<(), ReplayError> {
        state.apply(record)
    }

    fn snapshot(&self, state: &State, after: Option<&Bytes>, records_max: usize) -> Vec<KeyValue> {
        snapshot::piece(state, after, records_max, self.options.batch_bytes_max)
    }
}
