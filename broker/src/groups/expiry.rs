//! The sweep: offsets that nobody used for long end, and so do groups that have none left.
//!
//! As Kafka does it: an offset is kept while its group has members, except where they are consumers
//! that no longer read its topic; after that, for the retention time from the moment the group
//! became empty (or, for groups that only store offsets, from the commit). A sweep goes in steps,
//! so that it is not felt however many groups there are.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::ops::Bound;

use vltava_protocol::types::Str;

use super::group::{Group, Phase};
use super::machine::Timer;
use super::records;
use super::session::Session;
use super::state::{CommittedOffset, State, StoredGroup};
use super::work::{NEXT_STEP_MS, STEP_VISITS_MAX, Work};

/// How far a sweep has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SweepPosition {
    group: Str,
    /// The last offset of the group that was looked at.
    offset: Option<(Str, i32)>,
    /// Whether an offset of the group stays, and the group with it.
    is_kept: bool,
}

/// When offsets of a group end.
enum Rule<'a> {
    /// None does.
    Never,
    /// All, from this moment on (or, without one, from each commit on).
    Since(Option<i64>),
    /// Those that the members do not read, from each commit on. What they read is worked out once
    /// it is asked for: seldom.
    Unread(&'a Group, OnceCell<Option<BTreeSet<Str>>>),
}

/// Goes on with the sweep, or begins one, and sets the timer for the next step or the next sweep.
pub(super) fn step(state: &State, session: &mut Session, work: &mut Work<'_>) {
    let mut position = session.sweep.take();
    let mut visits = 0_usize;
    let first = match &position {
        Some(position) => Bound::Included(position.group.clone()),
        None => Bound::Unbounded,
    };
    for (id, stored) in state.groups().range((first, Bound::Unbounded)) {
        let mut at = match position.take() {
            Some(position) if position.group == *id => position,
            _ => SweepPosition { group: id.clone(), offset: None, is_kept: false },
        };
        if !sweep_group(session, work, id, stored, &mut at, &mut visits) {
            session.sweep = Some(at);
            work.set_timer(Timer::Sweep, NEXT_STEP_MS);
            return;
        }
    }
    work.set_timer(Timer::Sweep, work.options.offsets_check_interval_ms);
}

/// Looks at one group, or at the rest of one. Whether it was done before the step was full.
fn sweep_group(
    session: &Session,
    work: &mut Work<'_>,
    id: &Str,
    stored: &StoredGroup,
    at: &mut SweepPosition,
    visits: &mut usize,
) -> bool {
    let live = session.group(id);
    let metadata = &stored.metadata;
    let rule = match live.filter(|group| group.phase != Phase::Empty) {
        Some(group) if group.phase == Phase::Stable && group.is_of_consumers() => {
            Rule::Unread(group, OnceCell::new())
        }
        Some(_) => Rule::Never,
        None if metadata.protocol_type.is_some() => Rule::Since(metadata.changed_at_ms),
        None => Rule::Since(None),
    };
    let from = match &at.offset {
        Some(offset) => Bound::Excluded(offset.clone()),
        None => Bound::Unbounded,
    };
    for ((topic, partition), committed) in stored.offsets.range((from, Bound::Unbounded)) {
        if *visits >= STEP_VISITS_MAX || work.is_step_full() {
            return false;
        }
        *visits += 1;
        let is_over = is_expired(&rule, topic, committed, work);
        let is_written =
            is_over && work.try_record(records::offset_tombstone(id, topic, *partition)).is_ok();
        at.is_kept |= !is_written;
        at.offset = Some((topic.clone(), *partition));
    }
    *visits += 1;
    // Ids were given out for members that are about to come: the group is wanted.
    let is_idle = live.is_none();
    if is_idle && !at.is_kept {
        if work.is_step_full() {
            return false;
        }
        if work.try_record(records::group_tombstone(id)).is_ok() {
            work.note(id, "is empty and has no offsets left: removed");
        }
    }
    *visits < STEP_VISITS_MAX
}

fn is_expired(rule: &Rule<'_>, topic: &Str, committed: &CommittedOffset, work: &Work<'_>) -> bool {
    let since_ms = match rule {
        Rule::Never => return false,
        Rule::Since(Some(changed_at_ms)) => *changed_at_ms,
        Rule::Since(None) | Rule::Unread(..) => committed.committed_at_ms,
    };
    let now_ms = work.now.wall_ms;
    let is_over = match committed.expires_at_ms {
        Some(expires_at_ms) => now_ms >= expires_at_ms,
        None => now_ms.saturating_sub(since_ms) >= work.options.offsets_retention_ms,
    };
    is_over && !is_read(rule, topic)
}

/// Whether a member reads the topic; where that cannot be told, one does.
fn is_read(rule: &Rule<'_>, topic: &Str) -> bool {
    let Rule::Unread(group, topics) = rule else {
        return false;
    };
    topics
        .get_or_init(|| group.subscribed_topics())
        .as_ref()
        .is_none_or(|topics| topics.contains(topic))
}
