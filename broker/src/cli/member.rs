//! `vltava consume --group`: a member of a group, from joining to leaving.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use vltava_client::blocking::Cluster;
use vltava_client::error::ClientError;
use vltava_client::group::{GroupEvent, GroupOptions, GroupRequest, GroupResponse, Membership};
use vltava_client::metadata::{NodeId, TopicPartition};
use vltava_client::offsets;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::heartbeat::HeartbeatRequest;
use vltava_protocol::messages::join_group::JoinGroupRequest;
use vltava_protocol::messages::leave_group::LeaveGroupRequest;
use vltava_protocol::messages::offset_commit::OffsetCommitRequest;
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
    /// It has had partitions: from then on it lives through what is away for a while.
    has_begun: bool,
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
        has_begun: false,
        next_commit_ms: COMMIT_INTERVAL_MS,
    };
    let done = member.live(stop);
    // Also after an error: the others should not wait for a member that is gone.
    let is_patient = done.is_ok() && !is_asked_to_stop(stop);
    let left = member.leave(is_patient);
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
        let answered = self.call(&request);
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

    fn call(&mut self, request: &GroupRequest) -> Result<GroupResponse, ClientError> {
        let node = self.coordinator()?;
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

    /// Who coordinates the group. Before there is anything to read, that is waited for; later it
    /// is asked for again when something is to be said to it.
    fn coordinator(&mut self) -> Result<NodeId, ClientError> {
        let group = self.group();
        let cluster = &mut self.reading.cluster;
        if self.has_begun { cluster.try_coordinator(&group) } else { cluster.coordinator(&group) }
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
                GroupEvent::Lost => self.give_up(),
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

    /// Others may commit for these partitions now.
    fn give_up(&mut self) {
        self.is_assigned = false;
        self.reading.stop();
        self.reading.consumed.clear();
    }

    /// Goes on where the group has committed, or where it is to begin.
    fn begin(&mut self, partitions: &[TopicPartition]) -> Result<(), CliError> {
        let group = self.group();
        let committed = self.reading.cluster.committed_offsets(&group, Some(partitions))?;
        let fresh: Vec<TopicPartition> =
            partitions.iter().filter(|at| !committed.contains_key(at)).cloned().collect();
        let mut offsets = self.reading.offsets_at(&fresh, self.from)?;
        // Committed where nothing comes, too: else the group's lag there would be known to nobody.
        let begun = offsets.clone();
        offsets.extend(committed);
        self.reading.begin(offsets)?;
        self.reading.consumed = begun;
        self.is_assigned = true;
        self.has_begun = true;
        Ok(())
    }

    fn commit(&mut self) -> Result<(), CliError> {
        let committed = self.commit_once();
        let now_ms = self.reading.cluster.now_ms();
        self.next_commit_ms = now_ms + COMMIT_INTERVAL_MS;
        let events = match committed {
            Ok(ErrorCode::NONE) => return Ok(()),
            Ok(code) => self.membership.on_commit_error(now_ms, code),
            // While nobody answers, it is read on, where that goes.
            Err(error) if error.is_retriable() => self.membership.on_disconnect(now_ms),
            Err(error) => return Err(error.into()),
        };
        self.take(events)
    }

    /// Commits what was printed; what the coordinator says to it. Where another attempt may
    /// succeed it is committed with what comes next.
    fn commit_once(&mut self) -> Result<ErrorCode, ClientError> {
        let Some(request) = self.commit_request() else {
            return Ok(ErrorCode::NONE);
        };
        let sent = send_commit(&mut self.reading.cluster, &request);
        match sent {
            Ok(code) if may_succeed_later(code) => {}
            Err(ref error) if error.is_retriable() => {}
            _ => self.reading.consumed.clear(),
        }
        sent
    }

    /// The same, until it is done, or the time for trying is up.
    fn commit_patiently(&mut self) -> Result<ErrorCode, ClientError> {
        let Some(request) = self.commit_request() else {
            return Ok(ErrorCode::NONE);
        };
        self.reading.cluster.retry(|cluster| {
            let sent = send_commit(cluster, &request);
            if !matches!(sent, Ok(ErrorCode::NONE)) {
                cluster.forget_coordinator(&request.group_id);
            }
            let code = sent?;
            if may_succeed_later(code) {
                let what = format!("committing for group {}", request.group_id);
                ClientError::check(code, None, what)?;
            }
            Ok(code)
        })
    }

    /// Commits where what was printed ends; `None`: nothing is to be committed.
    fn commit_request(&self) -> Option<OffsetCommitRequest> {
        let consumed = &self.reading.consumed;
        let offsets: Vec<_> = consumed.iter().map(|(at, offset)| (at.clone(), *offset)).collect();
        let membership = &self.membership;
        let request = offsets::commit(
            &membership.options().group,
            membership.generation(),
            membership.member_id(),
            membership.options().instance_id.as_ref(),
            &offsets,
            self.reading.cluster.metadata(),
        );
        (!offsets.is_empty()).then_some(request)
    }

    /// `is_patient`: waits for a coordinator that is away.
    fn leave(&mut self, is_patient: bool) -> Result<(), CliError> {
        let committed = match self.is_assigned {
            true if is_patient => self.commit_patiently()?,
            true => self.commit_once()?,
            false => ErrorCode::NONE,
        };
        let group = self.group();
        let node = self.coordinator()?;
        let version = self.reading.cluster.link(node)?.version::<LeaveGroupRequest>()?;
        if let Some(request) = self.membership.leave(version) {
            self.reading.cluster.call(node, &request)?;
        }
        Ok(ClientError::check(committed, None, format!("committing for group {group}"))?)
    }
}

/// Whether the coordinator may take the same commit later. A topic that is gone does not come back.
fn may_succeed_later(code: ErrorCode) -> bool {
    let gone = [ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, ErrorCode::UNKNOWN_TOPIC_ID];
    code.is_retriable() && !gone.contains(&code)
}

/// Commits; the first error in the answer.
fn send_commit(
    cluster: &mut Cluster,
    request: &OffsetCommitRequest,
) -> Result<ErrorCode, ClientError> {
    let node = cluster.try_coordinator(&request.group_id)?;
    let response = cluster.call(node, request)?;
    let partitions = response.topics.iter().flat_map(|topic| &topic.partitions);
    let failed = partitions.map(|partition| partition.error_code).find(|code| !code.is_none());
    Ok(failed.unwrap_or_default())
}
