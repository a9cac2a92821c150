//! `vltava consume --group`: a member of a group, from joining to leaving.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vltava_client::error::ClientError;
use vltava_client::group::{GroupEvent, GroupOptions, GroupRequest, GroupResponse, Membership};
use vltava_client::metadata::{NodeId, TopicPartition};
use vltava_client::offsets;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::join_group::JoinGroupRequest;
use vltava_protocol::messages::leave_group::LeaveGroupRequest;
use vltava_protocol::messages::sync_group::SyncGroupRequest;
use vltava_protocol::types::Str;

use crate::cli::consume::is_asked_to_stop;
use crate::cli::error::CliError;
use crate::cli::position::Position;
use crate::cli::reading::Reading;

const COMMIT_INTERVAL_MS: u64 = 5000;
/// How long members have to come back when the group changes. An answer to JoinGroup takes as long.
const REBALANCE_TIMEOUT_MS: i32 = 60_000;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(70);

struct Member<'a> {
    reading: &'a mut Reading,
    membership: Membership,
    from: Position,
    is_assigned: bool,
    next_commit_ms: u64,
}

/// Joins, reads, commits and leaves.
pub(super) fn run(
    reading: &mut Reading,
    group: Str,
    from: Position,
    stop: &AtomicBool,
) -> Result<(), CliError> {
    let options = GroupOptions {
        rebalance_timeout_ms: REBALANCE_TIMEOUT_MS,
        ..GroupOptions::new(group, reading.topics.clone())
    };
    let mut member = Member {
        reading,
        membership: Membership::new(options),
        from,
        is_assigned: false,
        next_commit_ms: COMMIT_INTERVAL_MS,
    };
    let done = member.live(stop);
    // Also after an error: the others should not wait for a member that is gone.
    let left = member.leave();
    done.and(left)
}

impl Member<'_> {
    fn live(&mut self, stop: &AtomicBool) -> Result<(), CliError> {
        while !is_asked_to_stop(stop) && !self.reading.is_done() {
            self.talk()?;
            if self.is_assigned {
                self.reading.fetch(Some(self.from))?;
            }
            let now_ms = self.reading.cluster.now_ms();
            if self.is_assigned && now_ms >= self.next_commit_ms {
                self.commit()?;
            }
            self.reading.wait(self.membership.next_deadline_ms());
        }
        Ok(())
    }

    fn group(&self) -> Str {
        self.membership.options().group.clone()
    }

    /// Says to the coordinator what is due.
    fn talk(&mut self) -> Result<(), CliError> {
        let now_ms = self.reading.cluster.now_ms();
        let Some(request) = self.membership.take_request(now_ms).map_err(ClientError::from)? else {
            return Ok(());
        };
        let node = self.reading.cluster.coordinator(&self.group())?;
        let answered = self.call(node, &request);
        let now_ms = self.reading.cluster.now_ms();
        let events = match answered {
            Ok(response) => {
                let metadata = self.reading.cluster.metadata();
                self.membership
                    .on_response(now_ms, response, metadata)
                    .map_err(ClientError::from)?
            }
            Err(error) if error.is_retriable() => self.membership.on_disconnect(now_ms),
            Err(error) => return Err(error.into()),
        };
        self.take(events)
    }

    fn call(&mut self, node: NodeId, request: &GroupRequest) -> Result<GroupResponse, ClientError> {
        let cluster = &mut self.reading.cluster;
        cluster.link(node)?.answer_within(ANSWER_TIMEOUT)?;
        Ok(match request {
            GroupRequest::Join(request) => {
                // The leader divides what there is now.
                cluster.refresh(Some(&self.reading.topics), false)?;
                GroupResponse::Join(cluster.call::<JoinGroupRequest>(node, request)?)
            }
            GroupRequest::Sync(request) => {
                GroupResponse::Sync(cluster.call::<SyncGroupRequest>(node, request)?)
            }
            GroupRequest::Heartbeat(request) => {
                GroupResponse::Heartbeat(cluster.call::<HeartbeatRequest>(node, request)?)
            }
        })
    }

    fn take(&mut self, events: Vec<GroupEvent>) -> Result<(), CliError> {
        for event in events {
            match event {
                GroupEvent::Assigned(partitions) => self.begin(&partitions)?,
                GroupEvent::Revoked => {
                    // Too late to commit is no reason to end: somebody will read it again.
                    let _ = self.commit_once();
                    self.give_up();
                }
                GroupEvent::Lost => {
                    self.give_up();
                    self.reading.take_consumed();
                }
                GroupEvent::CoordinatorMoved => {
                    let group = self.group();
                    self.reading.cluster.forget_coordinator(&group);
                }
                GroupEvent::Refused(code) => {
                    ClientError::check(code, None, format!("joining group {}", self.group()))?;
                }
            }
        }
        Ok(())
    }

    fn give_up(&mut self) {
        self.is_assigned = false;
        self.reading.stop();
    }

    /// Goes on where the group has committed, or where it is to begin.
    fn begin(&mut self, partitions: &[TopicPartition]) -> Result<(), CliError> {
        let group = self.group();
        let committed = self.reading.cluster.committed_offsets(&group, Some(partitions))?;
        let fresh: Vec<TopicPartition> =
            partitions.iter().filter(|at| !committed.contains_key(at)).cloned().collect();
        let mut offsets = self.reading.offsets_at(&fresh, self.from)?;
        offsets.extend(committed);
        self.reading.begin(offsets)?;
        self.is_assigned = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), CliError> {
        let code = self.commit_once()?;
        let now_ms = self.reading.cluster.now_ms();
        self.next_commit_ms = now_ms + COMMIT_INTERVAL_MS;
        if code.is_none() {
            return Ok(());
        }
        let events = self.membership.on_commit_error(now_ms, code);
        self.take(events)
    }

    /// Commits what was printed; what the coordinator says to it. After an error it is committed
    /// with what comes next, or read again.
    fn commit_once(&mut self) -> Result<ErrorCode, ClientError> {
        let offsets = self.reading.take_consumed();
        if offsets.is_empty() {
            return Ok(ErrorCode::NONE);
        }
        let group = self.group();
        let cluster = &mut self.reading.cluster;
        let membership = &self.membership;
        let request = offsets::commit(
            &group,
            membership.generation(),
            membership.member_id(),
            membership.options().instance_id.as_ref(),
            &offsets,
            cluster.metadata(),
        );
        let node = cluster.coordinator(&group)?;
        let response = cluster.call(node, &request)?;
        let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
        let failed = partitions.map(|partition| partition.error_code).find(|code| !code.is_none());
        Ok(failed.unwrap_or_default())
    }

    fn leave(&mut self) -> Result<(), CliError> {
        let committed = if self.is_assigned { self.commit_once()? } else { ErrorCode::NONE };
        let group = self.group();
        let node = self.reading.cluster.coordinator(&group)?;
        let version = self.reading.cluster.link(node)?.version::<LeaveGroupRequest>()?;
        if let Some(request) = self.membership.leave(version) {
            self.reading.cluster.call(node, &request)?;
        }
        Ok(ClientError::check(committed, None, format!("committing for group {group}"))?)
    }
}
