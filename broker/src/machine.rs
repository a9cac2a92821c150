//! What a replicated state machine is. Pure: no I/O, no clock, no async.
//!
//! A machine lives over one partition, on the shard that owns it, in the view of that partition's
//! leader. `coordinator::host` runs it: inputs become records, records are appended and replayed,
//! replies leave once what they saw is committed. The contract is in the signatures:
//! [`Machine::handle`] cannot change `State`; only [`Machine::replay`] can, and it sees nothing but
//! records. `Session` is what no record holds (joining members, last heartbeats, parked requests);
//! it dies with leadership. Where an append fails or leadership goes, the host drops both and loads
//! the partition again.

use std::fmt::Debug;

use bytes::Bytes;

/// Monotonic time in milliseconds, and wall-clock time in milliseconds since 1970, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// For deadlines: never goes back.
    pub monotonic_ms: u64,
    /// For what is written into records. May jump.
    pub wall_ms: i64,
}

/// Names a request that waits for its reply. Made by the host; unique while the machine lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A record of the partition: a key, and a value or (a tombstone) none. Bytes as they stand in the
/// log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyValue {
    /// Which piece of state.
    pub key: Bytes,
    /// Its new value; `None` removes it.
    pub value: Option<Bytes>,
}

/// What a machine wants of its timers. A timer has a key; setting it again moves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TimerChange<K> {
    /// Fire once at or after this monotonic time.
    Set {
        /// Which timer.
        key: K,
        /// When, in monotonic milliseconds.
        at_ms: u64,
    },
    /// Do not fire.
    Cancel {
        /// Which timer.
        key: K,
    },
}

/// What one input came to.
#[derive(Debug)]
pub struct Outcome<M: Machine + ?Sized> {
    /// Appended as one batch, in this order, all or none; replayed once they stand in the log, and
    /// before the next call.
    pub records: Vec<KeyValue>,
    /// Sent once `records`, and all that was appended before, is committed.
    pub replies: Vec<(Ticket, M::Reply)>,
    /// Applied at once.
    pub timers: Vec<TimerChange<M::Timer>>,
    /// What happened, for whoever reads the broker's log. Changes of state only: nothing for each
    /// request.
    pub notes: Vec<String>,
    /// The same, of what somebody should think about.
    pub warnings: Vec<String>,
}

impl<M: Machine + ?Sized> Default for Outcome<M> {
    fn default() -> Self {
        Self {
            records: Vec::new(),
            replies: Vec::new(),
            timers: Vec::new(),
            notes: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// A record that this machine cannot read: of a newer version, or damaged. The host stops and says
/// which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("record cannot be replayed: {0}")]
pub struct ReplayError(pub String);

/// A replicated state machine.
pub trait Machine: 'static {
    /// What the records say. Written by replay alone.
    type State: Default;
    /// What no record holds. Dies with leadership.
    type Session: Default;
    /// A request.
    type Input;
    /// Its answer.
    type Reply: Debug;
    /// Names a timer.
    type Timer: Clone + Ord + Debug;

    /// Answers an input. The reply may come later, in the outcome of another input or timer, under
    /// the same ticket.
    fn handle(
        &self,
        state: &Self::State,
        session: &mut Self::Session,
        ticket: Ticket,
        input: Self::Input,
        now: Now,
    ) -> Outcome<Self>;

    /// A timer fired.
    fn fire(
        &self,
        state: &Self::State,
        session: &mut Self::Session,
        timer: Self::Timer,
        now: Now,
    ) -> Outcome<Self>;

    /// Called once when the whole log has been replayed and this node leads: timers for what was
    /// loaded.
    fn lead(&self, state: &Self::State, session: &mut Self::Session, now: Now) -> Outcome<Self>;

    /// Applies one record. `offset` and `timestamp_ms` are those of the record in the log.
    fn replay(
        &self,
        state: &mut Self::State,
        record: &KeyValue,
        offset: i64,
        timestamp_ms: i64,
    ) -> Result<(), ReplayError>;

    /// The live state as records, in pieces: what a log must hold for a replay to give this state.
    /// The host writes it again when segments roll, and deletes what lies before. `after` is
    /// the last key of the piece before; an empty piece is the end.
    fn snapshot(
        &self,
        state: &Self::State,
        after: Option<&Bytes>,
        records_max: usize,
    ) -> Vec<KeyValue>;
}
