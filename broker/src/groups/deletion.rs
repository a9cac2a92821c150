//! DeleteGroups, and the end of a topic's offsets: in steps, where one batch does not hold them.

use std::ops::Bound;

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::delete_groups::DeletableGroupResult;
use vltava_protocol::types::{Str, Uuid};

use crate::machine::{KeyValue, Ticket};

use super::group::Phase;
use super::machine::{Reply, Timer};
use super::records;
use super::session::Session;
use super::state::State;
use super::work::{RecordError, Work};

/// Time from one step to the next, in ms: others get their turn between.
const NEXT_STEP_MS: u64 = 1;

/// A deletion under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deletion {
    /// A group, offsets first.
    Group { id: Str, ticket: Ticket },
    /// The offsets of a topic, group by group, from this group on.
    Topic { name: Str, id: Uuid, ticket: Ticket, from: Option<Str> },
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
        Deletion::Topic { name, id, ticket, from } => {
            let progress = delete_topic(state, work, name, *id, from);
            if progress == Progress::Done {
                work.reply(*ticket, Reply::TopicDeleted);
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
            append(work, records::offset_tombstone(id, topic, *partition)).map_err(failed)?;
        }
        append(work, records::group_tombstone(id)).map_err(failed)?;
    }
    session.drop_pending(work, id);
    work.note(id, "deleted");
    Ok(Progress::Done)
}

/// Ends offsets of a topic that is gone; those of a later topic of the same name stay.
fn delete_topic(
    state: &State,
    work: &mut Work<'_>,
    name: &Str,
    id: Uuid,
    from: &mut Option<Str>,
) -> Progress {
    let Some(groups) = state.groups_of_topic(name) else {
        return Progress::Done;
    };
    let first = from.take().map_or(Bound::Unbounded, Bound::Included);
    for group_id in groups.range((first, Bound::Unbounded)) {
        let Some(stored) = state.group(group_id) else {
            continue;
        };
        let all = (name.clone(), i32::MIN)..=(name.clone(), i32::MAX);
        for ((_, partition), committed) in stored.offsets.range(all) {
            if work.is_step_full() {
                *from = Some(group_id.clone());
                return Progress::More;
            }
            if committed.topic_id.is_zero() || committed.topic_id == id {
                let tombstone = records::offset_tombstone(group_id, name, *partition);
                if let Err(error) = append(work, tombstone) {
                    work.note(group_id, format_args!("an offset of {name:?} stays: {error:?}"));
                }
            }
        }
    }
    Progress::Done
}

fn append(work: &mut Work<'_>, record: Result<KeyValue, RecordError>) -> Result<(), RecordError> {
    work.record(record?)
}
