//! What of a group must survive beside its log, as bytes: epoch and vote, and the marks.
//!
//! One value for each group, in a keyed journal; it is written anew, whole, at each change. Big
//! endian, in this order (version 1):
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version |
//! | 1 | flags: 1 there is a vote, 2 what stands before the base is being fetched, 4 a promise, |
//! |   | 8 the log was lost, 16 a generation, 32 the votes were lost |
//! | 4 | epoch |
//! | 20 | the vote, where there is one: node, disk |
//! | 4, 8, 8 | the promise, where there is one: epoch, offset, marks |
//! | 4 | the generation, where there is one |
//! | 4, 8, 8, 8 | the base: epoch, offset, marks; the log's start there |
//! | 1, then 21 each | its members: how many; node, disk, flags: 1 votes, 2 voted, 4 learns |
//! | 4 | how many marks |
//! | 4, 8, 1 each | a mark: epoch, index, kind: 0 epoch's start, 1 members, 2 start, 3 forced |
//!
//! A log start's offset follows (8); of the kinds 1 and 3 the members, as above.
//!
//! The journal has a checksum of its own. Bytes that are something else all the same are an error,
//! never a panic, and what is read takes no more memory than a small multiple of the bytes.

use vltava_protocol::types::Uuid;

use super::history::{Base, History, Mark, What};
use super::membership::{Membership, ReplicaId, Seat};
use super::position::Position;

const VERSION: u8 = 1;
const HAS_VOTE: u8 = 1;
const IS_RESTORING: u8 = 2;
const HAS_PROMISED: u8 = 4;
const IS_LOST: u8 = 8;
const HAS_GENERATION: u8 = 16;
const ARE_VOTES_LOST: u8 = 32;
const FLAGS: u8 =
    HAS_VOTE | IS_RESTORING | HAS_PROMISED | IS_LOST | HAS_GENERATION | ARE_VOTES_LOST;
const EPOCH_START: u8 = 0;
const MEMBERS: u8 = 1;
const LOG_START: u8 = 2;
const FORCED: u8 = 3;

/// What a disk keeps of a group beside its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persisted {
    /// The newest epoch known.
    pub epoch: i32,
    /// Who got the vote in it.
    pub vote: Option<ReplicaId>,
    /// What stands before the base is being fetched: of the log, nothing counts.
    pub is_restoring: bool,
    /// The log was lost or damaged, and is not made good yet.
    pub is_lost: bool,
    /// Epoch and vote were lost, and are not made good yet ([`super::node::Node::lose_votes`]).
    pub are_votes_lost: bool,
    /// The epoch with which the newest generation that the disk knows began; -1: the group is as it
    /// was founded ([`super::node::Node::enter`]).
    pub generation: i32,
    /// Where the disk's log ended before it was given away ([`super::node::Node::promise`]);
    /// [`Position::ZERO`] where it never was.
    pub promised: Position,
    /// What the marks before were.
    pub base: Base,
    /// The marks behind the base.
    pub marks: Vec<Mark>,
}

/// Why bytes are no value of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PersistedError {
    /// Another version wrote them.
    #[error("version {0} of a group's state is not known")]
    Version(u8),
    /// They are not what was written.
    #[error("a group's state is damaged")]
    Damaged,
}

impl Persisted {
    /// What is to be kept of a group.
    pub fn of(epoch: i32, vote: Option<ReplicaId>, is_restoring: bool, history: &History) -> Self {
        let (base, marks) = (history.base().clone(), history.marks().to_vec());
        let promised = Position::ZERO;
        Self {
            epoch,
            vote,
            is_restoring,
            is_lost: false,
            are_votes_lost: false,
            generation: -1,
            promised,
            base,
            marks,
        }
    }

    /// What is kept of a group whose log here is given away, as the group has only these members
    /// now: what was promised in it. The log ended at `log_end`.
    pub fn given_away(self, log_end: Position, members: Membership) -> Self {
        let had_more = self.promised.is_up_to_date_with(&log_end);
        let promised = if had_more { self.promised } else { log_end };
        let base = Base { at: Position::ZERO, members, log_start: 0 };
        Self { is_restoring: false, promised, base, marks: Vec::new(), ..self }
    }

    /// Whether nothing that a log holds can be of this group any more: it was given away.
    pub fn is_given_away(&self) -> bool {
        self.base.at == Position::ZERO && self.marks.is_empty() && self.promised != Position::ZERO
    }

    /// How many marks there are, with those before the base.
    pub fn marks_end(&self) -> i64 {
        self.base.at.marks + i64::try_from(self.marks.len()).unwrap_or(i64::MAX)
    }

    /// As bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![VERSION, 0];
        bytes.extend(self.epoch.to_be_bytes());
        if let Some(vote) = &self.vote {
            bytes[1] |= HAS_VOTE;
            put_id(&mut bytes, vote);
        }
        if self.is_restoring {
            bytes[1] |= IS_RESTORING;
        }
        if self.is_lost {
            bytes[1] |= IS_LOST;
        }
        if self.are_votes_lost {
            bytes[1] |= ARE_VOTES_LOST;
        }
        if self.promised != Position::ZERO {
            bytes[1] |= HAS_PROMISED;
            bytes.extend(self.promised.epoch.to_be_bytes());
            bytes.extend(self.promised.offset.to_be_bytes());
            bytes.extend(self.promised.marks.to_be_bytes());
        }
        if self.generation >= 0 {
            bytes[1] |= HAS_GENERATION;
            bytes.extend(self.generation.to_be_bytes());
        }
        let Base { at, members, log_start } = &self.base;
        bytes.extend(at.epoch.to_be_bytes());
        for number in [at.offset, at.marks, *log_start] {
            bytes.extend(number.to_be_bytes());
        }
        put_members(&mut bytes, members);
        bytes.extend(u32::try_from(self.marks.len()).unwrap_or(u32::MAX).to_be_bytes());
        for mark in &self.marks {
            bytes.extend(mark.epoch.to_be_bytes());
            bytes.extend(mark.index.to_be_bytes());
            match &mark.what {
                What::EpochStart => bytes.push(EPOCH_START),
                What::Membership(members) => {
                    bytes.push(MEMBERS);
                    put_members(&mut bytes, members);
                }
                What::LogStart(offset) => {
                    bytes.push(LOG_START);
                    bytes.extend(offset.to_be_bytes());
                }
                What::Forced(members) => {
                    bytes.push(FORCED);
                    put_members(&mut bytes, members);
                }
            }
        }
        bytes
    }

    /// What the bytes say.
    ///
    /// # Errors
    /// Where they are not what [`Persisted::to_bytes`] makes of something.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, PersistedError> {
        match bytes.first() {
            Some(&VERSION) => Self::from_reader(&mut Reader(&bytes[1..])),
            Some(other) => return Err(PersistedError::Version(*other)),
            None => None,
        }
        .ok_or(PersistedError::Damaged)
    }

    fn from_reader(reader: &mut Reader<'_>) -> Option<Self> {
        let flags = reader.u8()?;
        let epoch = reader.i32()?;
        let vote = if flags & HAS_VOTE != 0 { Some(reader.id()?) } else { None };
        let has_promised = flags & HAS_PROMISED != 0;
        let promised = if has_promised { reader.position()? } else { Position::ZERO };
        let generation = if flags & HAS_GENERATION != 0 { reader.i32()? } else { -1 };
        let at = reader.position()?;
        let base = Base { at, log_start: reader.i64()?, members: reader.members()? };
        let count = reader.take().map(u32::from_be_bytes)?;
        let mut marks = Vec::new();
        for _ in 0..count {
            let (epoch, index) = (reader.i32()?, reader.i64()?);
            let what = match reader.u8()? {
                EPOCH_START => What::EpochStart,
                MEMBERS => What::Membership(Box::new(reader.members()?)),
                LOG_START => What::LogStart(reader.i64()?),
                FORCED => What::Forced(Box::new(reader.members()?)),
                _ => return None,
            };
            marks.push(Mark { epoch, index, what });
        }
        let is = |flag| flags & flag != 0;
        let read = Self {
            epoch,
            vote,
            is_restoring: is(IS_RESTORING),
            is_lost: is(IS_LOST),
            are_votes_lost: is(ARE_VOTES_LOST),
            generation,
            promised,
            base,
            marks,
        };
        let is_whole = reader.0.is_empty() && flags & !FLAGS == 0;
        (is_whole && read.is_sound()).then_some(read)
    }

    /// Whether a log can have these marks.
    fn is_sound(&self) -> bool {
        let mut at = self.base.at;
        let follows = |mark: &Mark| {
            let is_start = mark.what.begins_epoch();
            let offsets = mark.index.checked_sub(at.index());
            let is_next = offsets
                .is_some_and(|offsets| offsets == 0 || offsets > 0 && at.epoch >= 0)
                && mark.epoch >= at.epoch
                && is_start == (mark.epoch > at.epoch);
            let offset = at.offset.saturating_add(offsets.unwrap_or(0).max(0));
            at = Position { epoch: mark.epoch, offset, marks: at.marks + 1 };
            is_next && at.is_sound()
        };
        let are_places = self.base.at.is_sound() && self.promised.is_sound();
        self.epoch >= -1 && self.generation >= -1 && are_places && self.marks.iter().all(follows)
    }
}

fn put_id(bytes: &mut Vec<u8>, id: &ReplicaId) {
    bytes.extend(id.node.to_be_bytes());
    bytes.extend(id.disk.0.to_be_bytes());
}

fn put_members(bytes: &mut Vec<u8>, members: &Membership) {
    bytes.push(u8::try_from(members.seats().len()).unwrap_or(u8::MAX));
    for seat in members.seats() {
        put_id(bytes, &seat.id);
        bytes.push(seat.roles());
    }
}

/// Takes from the front; `None` where too little is left.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*taken)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take().map(u8::from_be_bytes)
    }

    fn i32(&mut self) -> Option<i32> {
        self.take().map(i32::from_be_bytes)
    }

    fn i64(&mut self) -> Option<i64> {
        self.take().map(i64::from_be_bytes)
    }

    fn id(&mut self) -> Option<ReplicaId> {
        let node = self.i32()?;
        Some(ReplicaId { node, disk: Uuid(self.take().map(u128::from_be_bytes)?) })
    }

    fn position(&mut self) -> Option<Position> {
        Some(Position { epoch: self.i32()?, offset: self.i64()?, marks: self.i64()? })
    }

    fn members(&mut self) -> Option<Membership> {
        let count = usize::from(self.u8()?);
        let mut seats = Vec::new();
        for _ in 0..count {
            let (id, roles) = (self.id()?, self.u8()?);
            if roles & !Seat::ROLES != 0 {
                return None;
            }
            seats.push(Seat::with_roles(id, roles));
        }
        Membership::from_seats(seats)
    }
}

#[cfg(test)]
mod tests;
