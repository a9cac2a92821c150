//! DescribeGroups and ListGroups.
//!
//! DescribeGroups versions: 4 has instance ids (KIP-345); 6 answers GROUP_ID_NOT_FOUND where older
//! ones show a group that is Dead (KIP-1043). ListGroups: 4 filters by state (KIP-518), 5 by type
//! (KIP-848).

use std::ops::Bound;

use bytes::Bytes;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::describe_groups::{DescribedGroup, DescribedGroupMember};
use vltava_protocol::messages::list_groups::ListedGroup;
use vltava_protocol::types::Str;

use super::group::{Group, Phase};
use super::member::Member;
use super::session::Session;
use super::state::State;

/// From this version on, a group that does not exist is an error.
const FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND: i16 = 6;
/// What older versions say of a group that does not exist.
const DEAD: Str = Str::from_static("Dead");
/// The type of all groups that this version runs.
const CLASSIC: Str = Str::from_static("classic");

/// Handles DescribeGroups for one group.
pub(super) fn describe(
    state: &State,
    session: &Session,
    group_id: Str,
    api_version: i16,
) -> DescribedGroup {
    if let Some(group) = session.group(&group_id) {
        return describe_live(group);
    }
    if let Some(stored) = state.group(&group_id) {
        let protocol_type = stored.metadata.protocol_type.clone();
        return DescribedGroup {
            group_id,
            group_state: state_name(Phase::Empty),
            protocol_type: protocol_type.unwrap_or_default(),
            ..DescribedGroup::default()
        };
    }
    let mut described = DescribedGroup { group_state: DEAD, ..DescribedGroup::default() };
    if api_version >= FIRST_VERSION_WITH_GROUP_ID_NOT_FOUND {
        described.error_code = ErrorCode::GROUP_ID_NOT_FOUND;
        let message = format!("Group {group_id} not found.");
        described.error_message = Some(Str::from(message));
    }
    described.group_id = group_id;
    described
}

fn describe_live(group: &Group) -> DescribedGroup {
    // Until assignments are out, metadata of several generations may be mixed: none is shown.
    let is_stable = group.phase == Phase::Stable;
    let member = |(member_id, member): (&Str, &Member)| DescribedGroupMember {
        member_id: member_id.clone(),
        group_instance_id: member.instance_id.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        member_metadata: if is_stable { group.metadata_of(member) } else { Bytes::new() },
        member_assignment: member.assignment.clone(),
    };
    DescribedGroup {
        group_id: group.id.clone(),
        group_state: state_name(group.phase),
        protocol_type: group.protocol_type.clone().unwrap_or_default(),
        protocol_data: if is_stable {
            group.protocol.clone().unwrap_or_default()
        } else {
            Str::EMPTY
        },
        members: group.members.iter().map(member).collect(),
        ..DescribedGroup::default()
    }
}

fn state_name(phase: Phase) -> Str {
    Str::from_static(phase.name())
}

/// Which groups to list, and how many at once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListGroups {
    /// Only groups in one of these states, in any case; empty: all.
    pub states_filter: Vec<Str>,
    /// Only groups of one of these types, in any case; empty: all.
    pub types_filter: Vec<Str>,
    /// Groups behind this id: the `next` of the answer before.
    pub after: Option<Str>,
    /// How many groups to look at, at most.
    pub groups_max: usize,
}

/// Some of the groups of this partition.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GroupListing {
    /// Those that pass the filters.
    pub groups: Vec<ListedGroup>,
    /// Where to go on; `None`: that was all.
    pub next: Option<Str>,
}

/// Handles ListGroups, for as many groups as one step may look at.
pub(super) fn list(state: &State, session: &Session, request: &ListGroups) -> GroupListing {
    let lower = |filter: &[Str]| -> Vec<String> {
        let lowered = filter.iter().map(|name| name.trim().to_lowercase());
        lowered.collect()
    };
    let states = lower(&request.states_filter);
    let types = lower(&request.types_filter);
    let mut listing = GroupListing::default();
    let passes = |filter: &[String], name: &str| {
        filter.is_empty() || filter.iter().any(|wanted| *wanted == name.to_lowercase())
    };
    if !passes(&types, &CLASSIC) {
        return listing;
    }
    let from = match &request.after {
        Some(after) => Bound::Excluded(after.clone()),
        None => Bound::Unbounded,
    };
    let mut stored = state.groups().range((from.clone(), Bound::Unbounded)).peekable();
    let mut live = session.groups().range((from, Bound::Unbounded)).peekable();
    for _ in 0..request.groups_max.max(1) {
        // The lesser of the two comes next; a group that is in both comes once.
        let next_stored = stored.peek().map(|(id, _)| *id);
        let next_live = live.peek().map(|(id, _)| *id);
        let Some(id) = next_stored.into_iter().chain(next_live).min().cloned() else {
            listing.next = None;
            return listing;
        };
        let stored = stored.next_if(|(stored, _)| **stored == id);
        let live = live.next_if(|(live, _)| **live == id);
        let phase = live.map_or(Phase::Empty, |(_, group)| group.phase);
        let protocol_type = match (live, stored) {
            (Some((_, group)), _) => group.protocol_type.clone(),
            (None, Some((_, stored))) => stored.metadata.protocol_type.clone(),
            (None, None) => None,
        };
        if passes(&states, phase.name()) {
            listing.groups.push(ListedGroup {
                group_id: id.clone(),
                protocol_type: protocol_type.unwrap_or_default(),
                group_state: state_name(phase),
                group_type: CLASSIC,
            });
        }
        listing.next = Some(id);
    }
    listing
}
