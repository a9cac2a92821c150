//! A member of a classic group, and when its session ends.

use bytes::Bytes;
use vltava_protocol::messages::join_group::JoinGroupRequestProtocol;
use vltava_protocol::types::Str;

use super::machine::Timer;
use super::state::StoredMember;
use super::work::Work;
use crate::machine::Ticket;

/// A JoinGroup that waits for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParkedJoin {
    pub(super) ticket: Ticket,
    pub(super) api_version: i16,
}

/// When a member is given up.
///
/// The host's timer moves only where it must: a heartbeat moves `deadline_ms`; the timer that fires
/// before it is set again then. So a heartbeat changes no timer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct SessionTimer {
    deadline_ms: u64,
    armed_ms: Option<u64>,
}

impl SessionTimer {
    /// The member was heard: it has `timeout_ms` from now.
    pub(super) fn touch(
        &mut self,
        work: &mut Work<'_>,
        key: impl FnOnce() -> Timer,
        timeout_ms: u64,
    ) {
        self.deadline_ms = work.now.monotonic_ms.saturating_add(timeout_ms);
        if self.armed_ms.is_none_or(|armed_ms| armed_ms > self.deadline_ms) {
            self.armed_ms = Some(self.deadline_ms);
            work.set_timer(key(), timeout_ms);
        }
    }

    /// The timer fired. Whether the deadline has passed; where not, the timer is set again.
    pub(super) fn fired(&mut self, work: &mut Work<'_>, key: impl FnOnce() -> Timer) -> bool {
        self.armed_ms = None;
        let left_ms = self.deadline_ms.saturating_sub(work.now.monotonic_ms);
        if left_ms > 0 {
            self.armed_ms = Some(self.deadline_ms);
            work.set_timer(key(), left_ms);
        }
        left_ms == 0
    }
}

/// A member of a classic group.
#[derive(Clone, Debug)]
pub(super) struct Member {
    /// The name that survives a restart (KIP-345).
    pub(super) instance_id: Option<Str>,
    pub(super) client_id: Str,
    pub(super) client_host: Str,
    pub(super) rebalance_timeout_ms: i32,
    pub(super) session_timeout_ms: i32,
    /// What it can speak, most wanted first, with its metadata for each.
    pub(super) protocols: Vec<JoinGroupRequestProtocol>,
    /// What the leader gave it; empty until then.
    pub(super) assignment: Bytes,
    pub(super) join: Option<ParkedJoin>,
    pub(super) sync: Option<Ticket>,
    /// It has never completed a join: it does not know its id yet and cannot send heartbeats.
    pub(super) is_new: bool,
    pub(super) session: SessionTimer,
}

impl Member {
    /// As the log knows it: with the one protocol of its generation.
    pub(super) fn from_stored(stored: &StoredMember, protocol: Option<&Str>) -> Self {
        Self {
            instance_id: stored.instance_id.clone(),
            client_id: stored.client_id.clone(),
            client_host: stored.client_host.clone(),
            rebalance_timeout_ms: stored.rebalance_timeout_ms,
            session_timeout_ms: stored.session_timeout_ms,
            protocols: vec![JoinGroupRequestProtocol {
                name: protocol.cloned().unwrap_or_default(),
                metadata: stored.subscription.clone(),
            }],
            assignment: stored.assignment.clone(),
            join: None,
            sync: None,
            is_new: false,
            session: SessionTimer::default(),
        }
    }

    /// Its metadata for a protocol; `None` where it does not speak it.
    pub(super) fn metadata(&self, protocol: &Str) -> Option<&Bytes> {
        self.protocols
            .iter()
            .find(|offered| offered.name == *protocol)
            .map(|offered| &offered.metadata)
    }

    /// Whether the end of its session does not matter now: it waits for us, not we for it. A new
    /// member's parked join is given up all the same: its client may be gone, and nothing else
    /// would tell.
    pub(super) fn is_excused(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }

    /// Memory it takes, in bytes, about.
    pub(super) fn bytes(&self) -> usize {
        const FIXED_BYTES: usize = 512;
        const PROTOCOL_BYTES: usize = 64;
        let names = self.client_id.as_bytes().len()
            + self.client_host.as_bytes().len()
            + self.instance_id.as_ref().map_or(0, |id| id.as_bytes().len());
        let protocols: usize =
            self.protocols.iter().map(|offered| PROTOCOL_BYTES + protocol_bytes(offered)).sum();
        FIXED_BYTES + names + protocols + self.assignment.len()
    }
}

/// Bytes of one protocol that a member offers.
pub(super) fn protocol_bytes(protocol: &JoinGroupRequestProtocol) -> usize {
    protocol.name.as_bytes().len() + protocol.metadata.len()
}

/// A timeout as a client sent it, in ms: none is negative.
pub(super) fn timeout_ms(sent: i32) -> u64 {
    u64::try_from(sent).unwrap_or(0)
}
