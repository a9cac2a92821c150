//! DeleteGroups, and the end of a topic's offsets: in steps, where one batch does not hold them.

use std::ops::Bound;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_groups::DeletableGroupResult;
use vltava_protocol::types::{Str, Uuid};

use super::group::Phase;
use super::machine::{Reply, Timer};
use super::records;
use super::session::Session;
use super::state::State;
use super::work::{NEXT_STEP_MS, STEP_VISITS_MAX, Work};
use crate::machine::Ticket;

/// A deletion under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// A group, offsets first.
    Group { id: Str, ticket: Ticket },
    /// Offsets of a topic, group by group, from this group and partition on.
    Topic { name: Str, ended: Ended, ticket: Ticket, from: Option<(Str, i32)> },
}

/// Which offsets of a topic's name end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Those of this topic, and those that were kept without an id.
    Of(Uuid),
    /// All but those of this topic, and but those that were kept without an id where there is one.
    AllBut(Option<Uuid>),
}

impl Deletion {
    /// The end of offsets of a topic's name.
    pub(super) fn topic(name: Str, ended: Ended, ticket: Ticket) -> Self {
        Self::Topic { name, ended, ticket, from: None }
    }
}

impl Ended {
    fn includes(self, topic_id: Uuid) -> bool {
        match self {
            Self::Of(id) => topic_id.is_zero() || topic_id == id,
            Self::AllBut(None) => true,
            Self::AllBut(Some(id)) => !topic_id.is_zero() && topic_id != id,
        }
    }

    fn reply(self) -> Reply {
        match self {
            Self::Of(_) => Reply::TopicDeleted,
            Self::AllBut(_) => Reply::TopicFound,
        }
    }
}

/// Whether there is more to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Done,
    More,
}

/// Begins a deletion, behind those under way.
pub(super) fn begin(state: &State, session: &mut Session, work: &mut Work<'_>, deletion: Deletion) {
    session.deletions.push_back(deletion);
    if session.deletions.len() == 1 {
        step(state, session, work);
    }
}

/// Goes on with the first deletion, and sets the timer for the next step where there is one.
pub(super) fn step(state: &State, session: &mut Session, work: &mut Work<'_>) {
    let Some(mut deletion) = session.deletions.pop_front() else {
        return;
    };
    let progress = match &mut deletion {
        Deletion::Group { id, ticket } => delete_group(state, session, work, id, *ticket),
        Deletion::Topic { name, ended, ticket, from } => {
            let progress = delete_topic(state, work, name, *ended, from);
            if progress == Progress::Done {
                work.reply(*ticket, ended.reply());
            }
            progress
        }
    };
    if progress == Progress::More {
        session.deletions.push_front(deletion);
    }
    if !session.deletions.is_empty() {
        work.set_timer(Timer::Deletion, NEXT_STEP_MS);
    }
}

fn delete_group(
    state: &State,
    session: &mut Session,
    work: &mut Work<'_>,
    id: &Str,
    ticket: Ticket,
) -> Progress {
    let error_code = match try_delete_group(state, session, work, id) {
        Ok(Progress::More) => return Progress::More,
        Ok(Progress::Done) => ErrorCode::NONE,
        Err(error) => error,
    };
    let result = DeletableGroupResult {
        group_id: id.clone(),
        error_code,
        ..DeletableGroupResult::default()
    };
    work.reply(ticket, Reply::DeleteGroup(result));
    Progress::Done
}

fn try_delete_group(
    state: &State,
    session: &mut Session,
    work: &mut Work<'_>,
    id: &Str,
) -> Result<Progress, ErrorCode> {
    let stored = state.group(id);
    match session.group(id) {
        Some(group) if group.phase != Phase::Empty => return Err(ErrorCode::NON_EMPTY_GROUP),
        None if stored.is_none() => return Err(ErrorCode::GROUP_ID_NOT_FOUND),
        Some(_) | None => {}
    }
    let failed = |_| ErrorCode::UNKNOWN_SERVER_ERROR;
    if let Some(stored) = stored {
        for (topic, partition) in stored.offsets.keys() {
            if work.is_step_full() {
                return Ok(Progress::More);
            }
            work.try_record(records::offset_tombstone(id, topic, *partition)).map_err(failed)?;
        }
        work.try_record(records::group_tombstone(id)).map_err(failed)?;
    }
    session.drop_pending(work, id);
    work.note(id, "deleted");
    Ok(Progress::Done)
}

/// Ends offsets of a topic that is gone; those of another topic of the same name stay.
fn delete_topic(
    state: &State,
    work: &mut Work<'_>,
    name: &Str,
    ended: Ended,
    from: &mut Option<(Str, i32)>,
) -> Progress {
    let Some(groups) = state.groups_of_topic(name) else {
        return Progress::Done;
    };
    let mut visits = 0_usize;
    let (first, mut partition_from) = match from.take() {
        Some((group_id, partition)) => (Bound::Included(group_id), partition),
        None => (Bound::Unbounded, i32::MIN),
    };
    let is_resumed = |group_id: &Str| matches!(&first, Bound::Included(first) if first == group_id);
    for group_id in groups.range((first.clone(), Bound::Unbounded)) {
        let Some(stored) = state.group(group_id) else {
            continue;
        };
        if !is_resumed(group_id) {
            partition_from = i32::MIN;
        }
        let rest = (name.clone(), partition_from)..=(name.clone(), i32::MAX);
        for ((_, partition), committed) in stored.offsets.range(rest) {
            if visits >= STEP_VISITS_MAX || work.is_step_full() {
                *from = Some((group_id.clone(), *partition));
                return Progress::More;
            }
            visits += 1;
            if ended.includes(committed.topic_id) {
                let tombstone = records::offset_tombstone(group_id, name, *partition);
                if let Err(error) = work.try_record(tombstone) {
                    work.note(group_id, format_args!("an offset of {name:?} stays: {error:?}"));
                }
            }
        }
    }
    Progress::Done
}
