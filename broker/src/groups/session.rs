//! What no record holds: groups with members, and work that goes on step by step.

use std::collections::{BTreeMap, VecDeque};

use vltava_protocol::types::Str;

use super::deletion::Deletion;
use super::expiry::SweepPosition;
use super::group::Group;
use super::state::State;
use super::work::Work;

/// The live side of the groups of one partition. Dies with leadership.
///
/// A group is here while it has members, or ids given out for members to come. All other groups
/// are what the state says: empty.
#[derive(Debug, Default)]
pub struct Session {
    groups: BTreeMap<Str, Group>,
    bytes: usize,
    /// Deletions too large for one batch, first come first served.
    pub(super) deletions: VecDeque<Deletion>,
    /// How far the sweep for expired offsets has come; `None` between two sweeps.
    pub(super) sweep: Option<SweepPosition>,
}

impl Session {
    /// Memory it takes, in bytes, about.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn groups(&self) -> &BTreeMap<Str, Group> {
        &self.groups
    }

    pub(super) fn group(&self, id: &Str) -> Option<&Group> {
        self.groups.get(id)
    }

    /// Does something with a live group; `None` where the group is not live: it is empty, or there
    /// is none.
    pub(super) fn with_live<R>(
        &mut self,
        id: &Str,
        act: impl FnOnce(&mut Group) -> R,
    ) -> Option<R> {
        let group = self.groups.get_mut(id)?;
        self.bytes -= group.bytes();
        let result = act(group);
        self.bytes += group.bytes();
        if group.is_idle() {
            self.remove(id);
        }
        Some(result)
    }

    /// Does something with a group, which is made where there is none.
    pub(super) fn with_group(&mut self, state: &State, id: &Str, act: impl FnOnce(&mut Group)) {
        if !self.groups.contains_key(id) {
            let stored = state.group(id);
            assert!(
                stored.is_none_or(|stored| stored.metadata.members.is_empty()),
                "a group with members is live from the moment this node leads"
            );
            self.insert(Group::empty(id.detached(), stored));
        }
        self.with_live(id, act);
    }

    /// Makes a group live.
    pub(super) fn insert(&mut self, group: Group) {
        self.bytes += group.bytes();
        let previous = self.groups.insert(group.id.clone(), group);
        assert!(previous.is_none(), "a group becomes live once");
    }

    fn remove(&mut self, id: &Str) {
        if let Some(group) = self.groups.remove(id) {
            self.bytes -= group.bytes();
        }
    }

    /// Forgets the ids given out for an empty group: it is being deleted.
    pub(super) fn drop_pending(&mut self, work: &mut Work<'_>, id: &Str) {
        self.with_live(id, |group| {
            for member_id in group.pending_joins.clone() {
                group.remove(work, &member_id);
            }
        });
    }
}
