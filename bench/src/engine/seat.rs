//! A consumer's seat in a classic group: joins, says that it lives, commits where it stands.

use std::collections::VecDeque;
use std::sync::Arc;

use vltava_client::error::ClientError;
use vltava_client::group::{GroupEvent, GroupOptions, GroupRequest, GroupResponse, Membership};
use vltava_client::metadata::{Metadata, TopicPartition};
use vltava_client::offsets;
use vltava_protocol::message::Request;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::join_group::JoinGroupRequest;
use vltava_protocol::messages::leave_group::LeaveGroupRequest;
use vltava_protocol::messages::offset_commit::OffsetCommitRequest;
use vltava_protocol::messages::offset_fetch::OffsetFetchRequest;
use vltava_protocol::messages::sync_group::SyncGroupRequest;
use vltava_protocol::types::{Str, Uuid};

use crate::engine::consumer::Fetching;
use crate::engine::context::Context;
use crate::engine::link::{Link, Received};
use crate::engine::map::{Map, Node, index};
use crate::engine::poll::Token;

/// How often it commits, as Java's `auto.commit.interval.ms`.
const COMMIT_NS: u64 = 5_000_000_000;
const MILLISECOND_NS: u64 = 1_000_000;

/// What was asked, in the order of the answers.
#[derive(Debug)]
enum Asked {
    Join,
    Sync,
    Heartbeat,
    Commit,
    /// Where the group stands in these partitions.
    Offsets(Vec<TopicPartition>),
}

/// A member, and its connection to the group's coordinator.
#[derive(Debug)]
pub struct Seat {
    link: Link,
    token: Token,
    membership: Membership,
    metadata: Arc<Metadata>,
    asked: VecDeque<Asked>,
    next_commit_ns: u64,
    /// Whether it has the partitions that the group gave it, be they none.
    pub is_settled: bool,
}

impl Seat {
    /// Connects to the coordinator, waiting for that. It joins when it has its turn.
    ///
    /// # Errors
    /// Where the coordinator cannot be reached.
    pub fn open(
        coordinator: &Node,
        token: Token,
        options: GroupOptions,
        metadata: &Arc<Metadata>,
        context: &Context,
    ) -> Result<Self, ClientError> {
        let link = Link::open(&coordinator.address, &"vltava-bench-member".into())?;
        context.add(&link, token)?;
        Ok(Self {
            link,
            token,
            membership: Membership::new(options),
            metadata: Arc::clone(metadata),
            asked: VecDeque::new(),
            next_commit_ns: u64::MAX,
            is_settled: false,
        })
    }

    /// Says what is to be said now. When to be called again though no answer comes.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn turn(&mut self, fetching: &Fetching, context: &mut Context) -> Result<u64, ClientError> {
        if context.now_ns >= self.next_commit_ns {
            self.commit(fetching, context)?;
        }
        let now_ms = context.now_ns / MILLISECOND_NS;
        match self.membership.take_request(now_ms)? {
            Some(GroupRequest::Join(request)) => self.ask(&request, Asked::Join)?,
            Some(GroupRequest::Sync(request)) => self.ask(&request, Asked::Sync)?,
            Some(GroupRequest::Heartbeat(request)) => self.ask(&request, Asked::Heartbeat)?,
            None => {}
        }
        context.flush(&mut self.link, self.token)?;
        let due_ms = self.membership.next_deadline_ms().unwrap_or(u64::MAX);
        Ok(due_ms.saturating_mul(MILLISECOND_NS).min(self.next_commit_ns))
    }

    /// Hears answers; [`Self::turn`] is to follow. Where the group has not committed, `begin` is
    /// where a partition begins for it.
    ///
    /// # Errors
    /// Where the connection is gone, or what comes is no answer.
    pub fn receive(
        &mut self,
        fetching: &mut Fetching,
        begin: &[i64],
        context: &mut Context,
    ) -> Result<(), ClientError> {
        let read = context.receive(&mut self.link);
        let now_ms = context.tick() / MILLISECOND_NS;
        while let Some(Received { answer, .. }) = context.received.pop_front() {
            let response = match self.asked.pop_front().ok_or(ClientError::Correlation)? {
                Asked::Join => GroupResponse::Join(answer.decode::<JoinGroupRequest>()?),
                Asked::Sync => GroupResponse::Sync(answer.decode::<SyncGroupRequest>()?),
                Asked::Heartbeat => GroupResponse::Heartbeat(answer.decode::<HeartbeatRequest>()?),
                Asked::Commit => {
                    let response = answer.decode::<OffsetCommitRequest>()?;
                    let mut results = response.topics.iter().flat_map(|topic| &topic.partitions);
                    if let Some(failed) = results.find(|result| !result.error_code.is_none()) {
                        let why = failed.error_code.name();
                        context.stats.fault(format!("a commit was refused: {why}"));
                    }
                    continue;
                }
                Asked::Offsets(partitions) => {
                    let response = answer.decode::<OffsetFetchRequest>()?;
                    let what = "asking where the group stands";
                    let found = offsets::committed(response, &self.metadata).map_err(|code| {
                        ClientError::Broker { what: what.to_owned(), code, message: None }
                    })?;
                    let mut from = begin.to_vec();
                    for (partition, offset) in found {
                        if let Some(number) = number_of(&context.map, &partition) {
                            from[index(number)] = offset;
                        }
                    }
                    self.settle(&partitions, &from, fetching, context);
                    continue;
                }
            };
            let events = self.membership.on_response(now_ms, response, &self.metadata)?;
            for event in events {
                self.on_event(event, fetching, context)?;
            }
        }
        read
    }

    /// Says good-bye. Nobody waits for the answer.
    pub fn leave(mut self, fetching: &Fetching, context: &mut Context) {
        let left = self.commit(fetching, context).and_then(|()| {
            let version = self.link.version::<LeaveGroupRequest>()?;
            if let Some(request) = self.membership.leave(version) {
                self.link.send(&request, version)?;
            }
            context.flush(&mut self.link, self.token)
        });
        if let Err(error) = left {
            context.stats.fault(format!("leaving a group: {error}"));
        }
    }

    fn on_event(
        &mut self,
        event: GroupEvent,
        fetching: &mut Fetching,
        context: &mut Context,
    ) -> Result<(), ClientError> {
        match event {
            GroupEvent::Assigned(partitions) if partitions.is_empty() => {
                self.settle(&partitions, &[], fetching, context);
            }
            GroupEvent::Assigned(partitions) => {
                let version = self.link.version::<OffsetFetchRequest>()?;
                let group = &self.membership.options().group;
                let wanted = Some(&partitions[..]);
                let request = offsets::fetch_committed(version, group, wanted, &self.metadata);
                self.ask(&request, Asked::Offsets(partitions))?;
            }
            GroupEvent::Revoked => {
                self.commit(fetching, context)?;
                self.unsettle(fetching, context);
            }
            GroupEvent::Lost => {
                context.stats.fault(String::from("a member lost its partitions"));
                self.unsettle(fetching, context);
            }
            // It is asked again, where it is; that it is elsewhere shows as members without
            // partitions.
            GroupEvent::CoordinatorMoved => {}
            GroupEvent::Refused(code) => {
                context.stats.fault(format!("a group refused a member: {}", code.name()));
            }
        }
        Ok(())
    }

    fn settle(
        &mut self,
        partitions: &[TopicPartition],
        from: &[i64],
        fetching: &mut Fetching,
        context: &Context,
    ) {
        let numbers = partitions.iter().filter_map(|name| number_of(&context.map, name));
        let numbers: Vec<u32> = numbers.collect();
        fetching.assign(&numbers, from, &context.map);
        self.is_settled = true;
        self.next_commit_ns = context.now_ns + COMMIT_NS;
    }

    fn unsettle(&mut self, fetching: &mut Fetching, context: &Context) {
        fetching.assign(&[], &[], &context.map);
        self.is_settled = false;
        self.next_commit_ns = u64::MAX;
    }

    fn commit(&mut self, fetching: &Fetching, context: &mut Context) -> Result<(), ClientError> {
        self.next_commit_ns = context.now_ns + COMMIT_NS;
        let name = |(number, offset): (u32, i64)| {
            let (place, topic) = (context.map.place(number)?, context.map.topic_of(number)?);
            let topic = topic.name.clone();
            Some((TopicPartition { topic, partition: place.partition }, offset))
        };
        let standing: Vec<(TopicPartition, i64)> = fetching.positions().filter_map(name).collect();
        if standing.is_empty() {
            return Ok(());
        }
        let request = offsets::commit(
            &self.membership.options().group,
            self.membership.generation(),
            self.membership.member_id(),
            None,
            &standing,
            &self.metadata,
        );
        self.ask(&request, Asked::Commit)
    }

    fn ask<R: Request>(&mut self, request: &R, asked: Asked) -> Result<(), ClientError> {
        let version = self.link.version::<R>()?;
        self.link.send(request, version)?;
        self.asked.push_back(asked);
        Ok(())
    }
}

fn number_of(map: &Map, partition: &TopicPartition) -> Option<u32> {
    map.find(&partition.topic, Uuid::ZERO, partition.partition)
}

/// How members of a group behave: as Java's, but that they come back quickly when it changes.
pub fn options(group: &Str, map: &Map) -> GroupOptions {
    let topics = map.topics.iter().map(|topic| topic.name.clone()).collect();
    GroupOptions { rebalance_timeout_ms: 10_000, ..GroupOptions::new(group.clone(), topics) }
}
