//! Recordings of a broker that does it wrong, made of one that does it right.

use std::collections::BTreeSet;

use vltava::runtime::Operation;

use crate::check::{AnswerId, contains};
use crate::tape::Event;

/// The events without the submissions that `is_left_out` picks, and without their completions.
pub fn without(events: &[Event], is_left_out: impl Fn(&Operation) -> bool) -> Vec<Event> {
    let mut left_out = BTreeSet::new();
    let kept = events.iter().filter(|event| match event {
        Event::Submitted(shard, id, operation) if is_left_out(operation) => {
            left_out.insert((*shard, *id));
            false
        }
        // The numbers begin anew with each start.
        Event::Submitted(shard, id, _) => {
            left_out.remove(&(*shard, *id));
            true
        }
        Event::Completed(shard, id, _) => !left_out.contains(&(*shard, *id)),
    });
    kept.cloned().collect()
}

/// The events with the flag of the data sync taken off the writes into files with such names.
pub fn without_data_sync(events: &[Event], name_ends: &str) -> Vec<Event> {
    let mut events = events.to_vec();
    for event in &mut events {
        if let Event::Submitted(_, _, Operation::Write { path, data_sync, .. }) = event
            && path.ends_with(name_ends)
        {
            *data_sync = false;
        }
    }
    events
}

/// The events with an answer sent just before the first write of these bytes is done. `None` where
/// it left behind another, in one send.
pub fn answered_early(events: &[Event], answer: AnswerId, bytes: &[u8]) -> Option<Vec<Event>> {
    let (peer, correlation_id) = answer;
    let id = correlation_id.to_be_bytes();
    let sent = events.iter().position(|event| match event {
        Event::Submitted(_, _, Operation::Send { peer: Some(to), content }) => {
            *to == peer && content.get(4..8) == Some(&id)
        }
        _ => false,
    })?;
    let write = events[..sent].iter().find_map(|event| match event {
        Event::Submitted(shard, id, Operation::Write { content, .. }) => {
            contains(content, bytes).then_some((*shard, *id))
        }
        _ => None,
    })?;
    let is_done = |event: &Event| matches!(event, Event::Completed(s, id, _) if (*s, *id) == write);
    // The numbers begin anew with each start: the last before the answer is of the same run.
    let done = events[..sent].iter().rposition(is_done)?;
    let mut events = events.to_vec();
    let answer = events.remove(sent);
    events.insert(done, answer);
    Some(events)
}

/// Whether this syncs a directory: the root, a partition's, or one that is being made.
pub fn is_directory_sync(operation: &Operation) -> bool {
    matches!(operation, Operation::Sync { path, .. } if is_directory(path))
}

/// Whether this syncs a file.
pub fn is_file_sync(operation: &Operation) -> bool {
    matches!(operation, Operation::Sync { path, .. } if !is_directory(path))
}

fn is_directory(path: &str) -> bool {
    let number = path.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
    path == "." || path.ends_with(".new") || (!path.contains('/') && number.is_some())
}
