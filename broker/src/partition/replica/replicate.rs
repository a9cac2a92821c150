//! A leader's log to the other members of its group: read from where each stands, and sent as there
//! is room on the way to its node. Only what is flushed here is sent: what a failed write takes
//! back, nobody has seen.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use vltava_protocol::encode::{Part, Records};

use super::Replica;
use crate::partition::flights::Flight;
use crate::raft::membership::ReplicaId;
use crate::runtime::{Queue, Runtime};

/// Bytes of batches in one message; a batch that is larger goes alone.
const MESSAGE_BYTES: usize = 1 << 20;

/// What a leader has on its way to the other members.
#[derive(Debug, Default)]
pub(super) struct Sends {
    /// The members that are being sent to.
    sending: RefCell<Vec<Sending>>,
    /// What was sent to members and is not on their disks.
    flights: RefCell<BTreeMap<ReplicaId, Flight>>,
}

/// A member that is being sent to.
#[derive(Debug)]
struct Sending {
    to: ReplicaId,
    /// There may be more for it than it was looked for.
    is_wanted: bool,
}

impl<R: Runtime> Replica<R> {
    /// Sends a member what it lacks, until there is nothing more that is flushed here.
    pub(super) fn replicate(&self, to: ReplicaId) {
        {
            let mut sending = self.sends.sending.borrow_mut();
            if let Some(sending) = sending.iter_mut().find(|sending| sending.to == to) {
                sending.is_wanted = true;
                return;
            }
            sending.push(Sending { to, is_wanted: false });
        }
        if let Some(replica) = self.this.upgrade() {
            let task = async move { replica.send_all(to).await };
            self.runtime.spawn(Queue::Foreground, task);
        }
    }

    /// More of the log is flushed here: whoever lacks it is sent it.
    pub(super) fn replicate_to_all(&self) {
        let behind: Vec<_> = self.raft.borrow().members_behind().collect();
        for to in behind {
            self.replicate(to);
        }
    }

    async fn send_all(&self, to: ReplicaId) {
        loop {
            let has_more = self.send_some(to).await;
            {
                let mut sending = self.sends.sending.borrow_mut();
                let Some(nth) = sending.iter().position(|sending| sending.to == to) else {
                    return;
                };
                if !has_more && !std::mem::take(&mut sending[nth].is_wanted) {
                    sending.swap_remove(nth);
                    return;
                }
            }
            self.runtime.yield_if_needed().await;
        }
    }

    /// One message; whether there may be another.
    async fn send_some(&self, to: ReplicaId) -> bool {
        if self.agenda.borrow().has_left() || !self.raft.borrow().has_for(&to) {
            return false;
        }
        // What makes room is that the member says what it has: that begins it again.
        if self.is_flight_full(to) {
            return false;
        }
        let (planned, from, until, end) = {
            let raft = self.raft.borrow();
            let next = raft.next_for(&to);
            // What is asked carries nothing: it goes out also where nothing can be read. Whoever
            // has all would never be told, and could not give what is damaged here.
            let is_asking = raft.is_asking(&to);
            let until = raft.sends_until(&to);
            let end = raft.history().at(until).map_or(i64::MAX, |at| at.offset);
            let from = next.filter(|_| !is_asking).and_then(|next| raft.history().at(next));
            ((raft.epoch(), next), from, until, end)
        };
        let end = end.min(self.log.flushed_end());
        let Some(from) = from.filter(|from| from.index() < until && from.offset < end) else {
            // Marks only, a question, or a snapshot.
            let message = self.raft.borrow_mut().append_for(to, until);
            if let Some(message) = message {
                self.say(to, message);
            }
            return self.raft.borrow().has_for(&to);
        };
        let allowance = match self.may_send(to).await {
            Ok(allowance) => allowance,
            Err(wait) => {
                self.runtime.sleep(wait).await;
                // Who leads, and what is lacked, may be another.
                return true;
            }
        };
        let sent = self.send_batches(to, planned, from.offset..end, allowance.bytes).await;
        self.has_sent(allowance, sent.unwrap_or(0));
        sent.is_some()
    }

    /// Whether as much is on its way to a member as it may have to keep in memory.
    fn is_flight_full(&self, to: ReplicaId) -> bool {
        self.look_at_flight(to);
        self.sends.flights.borrow().get(&to).is_some_and(Flight::is_full)
    }

    /// A member has said something, or is to be sent more: what is on its disk is on its way no
    /// more.
    pub(super) fn look_at_flight(&self, to: ReplicaId) {
        let mut flights = self.sends.flights.borrow_mut();
        let Some(flight) = flights.get_mut(&to) else { return };
        let raft = self.raft.borrow();
        match (raft.index_flushed_by(&to), raft.next_for(&to)) {
            (Some(flushed), Some(next)) if !raft.is_asking(&to) => flight.look(flushed, next),
            // Where it stands is not known, and it is sent nothing before it is.
            _ => flight.clear(),
        }
    }

    /// So many bytes of batches are on their way to a member, up to what it is sent next.
    fn note_sent(&self, to: ReplicaId, bytes: usize) {
        let Some(near) = self.surroundings.as_ref().filter(|_| bytes > 0) else { return };
        let end = self.raft.borrow().next_for(&to).unwrap_or(0);
        let mut flights = self.sends.flights.borrow_mut();
        flights.entry(to).or_insert_with(|| near.flights.to(to.node)).add(end, bytes);
    }

    /// This replica sends nothing any more to those for which this says so.
    pub(super) fn end_flights(&self, is_over: impl Fn(&ReplicaId) -> bool) {
        self.sends.flights.borrow_mut().retain(|to, _| !is_over(to));
    }

    /// Batches between two offsets, as they fit into one message, to a member that was to be sent
    /// what is behind an index, in an epoch. The bytes that were sent, where there may be more.
    async fn send_batches(
        &self,
        to: ReplicaId,
        planned: (i32, Option<i64>),
        offsets: Range<i64>,
        bytes_max: Option<usize>,
    ) -> Option<usize> {
        let bytes_max = bytes_max.unwrap_or(MESSAGE_BYTES);
        // What is damaged is nobody's; who lacks it waits until it is mended.
        let offsets = offsets.start..offsets.end.min(self.sound_until(offsets.start).ok()?);
        let peers = &self.surroundings.as_ref()?.peers;
        let mut room = peers.room(to.node, bytes_max).await?;
        let read = self.log_to_read().read_to_send(offsets.start, offsets.end, bytes_max).await;
        let (parts, next) = match read {
            Ok(read) => read?,
            Err(error) => {
                self.note_unread(offsets.start, &error);
                tracing::warn!(
                    partition = self.name, %error,
                    "what a follower lacks cannot be read; it is tried again"
                );
                return None;
            }
        };
        let bytes = parts.iter().map(Part::len).sum();
        if bytes > room.bytes() {
            // One batch, which is larger. What it was to have is given back first: it may need all
            // there is.
            drop(room);
            room = peers.room(to.node, bytes).await?;
        }
        let message = {
            let mut raft = self.raft.borrow_mut();
            // It may stand elsewhere by now, and so may this replica; in another epoch the log may
            // be another.
            let is_as_planned = (raft.epoch(), raft.next_for(&to)) == planned;
            if self.agenda.borrow().has_left() || !is_as_planned {
                return Some(0);
            }
            let until = raft.history().index_of(next).min(raft.sends_until(&to));
            raft.append_for(to, until)
        };
        let message = message?;
        let has_batches = message.offsets() > 0;
        let payload = Records { parts: if has_batches { parts } else { Vec::new() } };
        self.note_sent(to, payload.len());
        room.send(self.to_say(to, message, payload));
        has_batches.then_some(bytes)
    }
}
