//! Incremental fetch sessions (KIP-227). Pure.
//!
//! A session remembers which partitions a client fetches and what it was told of each, so that a
//! request names only what changed and an answer holds only what is new. Sessions belong to the
//! shard of the connection that made them, and go with it where it moves. The number of the shard
//! that made one is in the low bits of its id, so that no two shards make the same.

use std::collections::BTreeMap;

use vltava_protocol::types::{Str, Uuid};

/// Bits of a session's id that hold its shard's number.
const SHARD_BITS: u32 = 10;
/// What the sessions of a shard may remember, in bytes as [`kept_bytes`] counts them: some 60,000
/// partitions.
const KEPT_BYTES_MAX: usize = 16 << 20;
/// What a partition takes in a session beside its topic's name, in bytes.
const PARTITION_BYTES: usize = 256;
/// A session that was used within this time is not evicted for another, in milliseconds (Kafka's
/// `MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS`).
const EVICTION_MS_MIN: u64 = 120_000;
/// The epoch of a request that wants no session, or ends one.
const FINAL_EPOCH: i32 = -1;
/// The epoch of a request that wants a new session.
const INITIAL_EPOCH: i32 = 0;

/// A topic as a request names it: by name up to version 12, by id from 13 on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicRef {
    /// By name.
    Name(Str),
    /// By id.
    Id(Uuid),
}

/// What a client wants of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The topic.
    pub topic: TopicRef,
    /// The partition's number.
    pub partition: i32,
    /// The first offset wanted.
    pub offset: i64,
    /// At most so many bytes of it.
    pub bytes_max: i32,
    /// The client's idea of the leader epoch; -1: none.
    pub current_leader_epoch: i32,
    /// The epoch of the last batch it has; -1: it does not say.
    pub last_fetched_epoch: i32,
}

/// What the client is told of one partition, as far as a session must remember it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// High watermark.
    pub high_watermark: i64,
    /// Log start.
    pub log_start: i64,
    /// Whether the answer holds records, an error, or a diverging epoch: it is sent whatever the
    /// rest says.
    pub has_news: bool,
    /// Whether it holds an error: the next answer is sent, too.
    pub has_error: bool,
}

/// Why a session cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionError {
    /// No such session here; also one that was ended because it grew beyond what is remembered.
    NotFound,
    /// Not the epoch that is next.
    WrongEpoch,
    /// It was begun with names and goes on with ids, or the other way round.
    TopicIds,
}

/// What one request fetches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetching {
    /// The session; 0: none.
    pub session_id: i32,
    /// Whether the answer holds only what is new.
    pub is_incremental: bool,
    /// The partitions, in the order in which they are to be served.
    pub wanted: Vec<Wanted>,
}

type Key = (TopicRef, i32);

struct Remembered {
    wanted: Wanted,
    told: Option<(i64, i64)>,
    /// Its turn: partitions that gave records go behind the others.
    turn: u64,
}

/// One session.
pub struct Session {
    epoch: i32,
    uses_ids: bool,
    last_used_ms: u64,
    partitions: BTreeMap<Key, Remembered>,
    turns: u64,
    /// The sum over `partitions`.
    kept_bytes: usize,
}

/// The sessions of one shard.
pub struct FetchSessions {
    shard: usize,
    sessions_max: usize,
    sessions: BTreeMap<i32, Session>,
    /// The sum over `sessions`.
    kept_bytes: usize,
}

impl FetchSessions {
    /// No sessions; at most `sessions_max` at a time.
    pub fn new(shard: usize, sessions_max: usize) -> Self {
        assert!(shard < 1 << SHARD_BITS, "shard {shard} does not fit a session id");
        Self { shard, sessions_max, sessions: BTreeMap::new(), kept_bytes: 0 }
    }

    /// Begins a request: finds or makes its session and says what is to be fetched. `random` is 64
    /// random bits, for a new id.
    pub fn begin(
        &mut self,
        (session_id, epoch): (i32, i32),
        wanted: Vec<Wanted>,
        forgotten: &[Key],
        uses_ids: bool,
        now_ms: u64,
        random: u64,
    ) -> Result<Fetching, SessionError> {
        if epoch == FINAL_EPOCH || epoch == INITIAL_EPOCH {
            self.end(session_id);
            let session_id = match epoch {
                INITIAL_EPOCH => self.create(&wanted, uses_ids, now_ms, random).unwrap_or(0),
                _ => 0,
            };
            return Ok(Fetching { session_id, is_incremental: false, wanted });
        }
        let session = self.sessions.get_mut(&session_id).ok_or(SessionError::NotFound)?;
        if session.epoch != epoch {
            return Err(SessionError::WrongEpoch);
        }
        if session.uses_ids != uses_ids {
            return Err(SessionError::TopicIds);
        }
        session.epoch = next_epoch(epoch);
        session.last_used_ms = now_ms;
        let kept_before = session.kept_bytes;
        for key in forgotten {
            session.forget(key);
        }
        for wanted in wanted {
            session.remember(wanted);
        }
        self.kept_bytes = self.kept_bytes - kept_before + session.kept_bytes;
        if session.partitions.is_empty() {
            // Nothing is left to ask for: the session is over, and the answer says so.
            self.end(session_id);
            return Ok(Fetching { session_id: 0, is_incremental: false, wanted: Vec::new() });
        }
        let fetching = Fetching { session_id, is_incremental: true, wanted: session.in_turn() };
        if self.kept_bytes > KEPT_BYTES_MAX && session.kept_bytes > kept_before {
            // The client asks for all again, and gets no session for that.
            self.end(session_id);
            return Err(SessionError::NotFound);
        }
        Ok(fetching)
    }

    /// Notes what a client is told of one partition, and says whether an incremental answer must
    /// hold it.
    pub fn tell(&mut self, session_id: i32, topic: &TopicRef, partition: i32, told: Told) -> bool {
        let Some(session) = self.sessions.get_mut(&session_id) else {
            return true;
        };
        let turn = session.turns;
        let key = (topic.clone(), partition);
        let Some(remembered) = session.partitions.get_mut(&key) else {
            return true;
        };
        let now = (told.high_watermark, told.log_start);
        let is_sent = told.has_news || remembered.told != Some(now);
        remembered.told = if told.has_error { None } else { Some(now) };
        if told.has_news && !told.has_error {
            remembered.turn = turn;
            session.turns += 1;
        }
        is_sent
    }

    /// Takes a session out: its connection moves to another shard.
    pub fn take(&mut self, id: i32) -> Option<Session> {
        let taken = self.sessions.remove(&id);
        self.kept_bytes -= taken.as_ref().map_or(0, |session| session.kept_bytes);
        taken
    }

    /// Takes in a session of another shard. Where there is no room it ends: its client begins anew.
    pub fn adopt(&mut self, id: i32, session: Session) {
        let fits = self.kept_bytes + session.kept_bytes <= KEPT_BYTES_MAX;
        if fits && self.sessions.len() < self.sessions_max {
            self.kept_bytes += session.kept_bytes;
            self.sessions.insert(id, session);
        }
    }

    fn create(
        &mut self,
        wanted: &[Wanted],
        uses_ids: bool,
        now_ms: u64,
        random: u64,
    ) -> Option<i32> {
        let wanted_bytes = wanted.iter().map(|wanted| kept_bytes(&wanted.topic)).sum::<usize>();
        let is_full = |sessions: &Self| {
            sessions.sessions.len() >= sessions.sessions_max
                || sessions.kept_bytes + wanted_bytes > KEPT_BYTES_MAX
        };
        if is_full(self) {
            let oldest = self.sessions.iter().min_by_key(|(_, session)| session.last_used_ms);
            let (id, last_used_ms) = oldest.map(|(id, session)| (*id, session.last_used_ms))?;
            if now_ms.saturating_sub(last_used_ms) < EVICTION_MS_MIN {
                return None;
            }
            self.end(id);
            if is_full(self) {
                return None;
            }
        }
        let id = self.free_id(random)?;
        let mut session = Session {
            epoch: next_epoch(INITIAL_EPOCH),
            uses_ids,
            last_used_ms: now_ms,
            partitions: BTreeMap::new(),
            turns: 0,
            kept_bytes: 0,
        };
        for wanted in wanted {
            session.remember(wanted.clone());
        }
        self.kept_bytes += session.kept_bytes;
        self.sessions.insert(id, session);
        Some(id)
    }

    fn end(&mut self, id: i32) {
        drop(self.take(id));
    }

    fn free_id(&self, random: u64) -> Option<i32> {
        let shard = u64::try_from(self.shard).ok()?;
        let counters = 1u64 << (31 - SHARD_BITS);
        (0..counters.min(64)).find_map(|step| {
            let counter = random.wrapping_add(step) % counters;
            let id = i32::try_from(counter << SHARD_BITS | shard).ok()?;
            (id != 0 && !self.sessions.contains_key(&id)).then_some(id)
        })
    }
}

impl Session {
    fn remember(&mut self, mut wanted: Wanted) {
        if let TopicRef::Name(name) = &wanted.topic {
            // What is kept must not pin the request's whole buffer.
            wanted.topic = TopicRef::Name(name.detached());
        }
        let key = (wanted.topic.clone(), wanted.partition);
        let turn = self.turns;
        match self.partitions.get_mut(&key) {
            Some(remembered) => remembered.wanted = wanted,
            None => {
                self.kept_bytes += kept_bytes(&key.0);
                self.partitions.insert(key, Remembered { wanted, told: None, turn });
                self.turns += 1;
            }
        }
    }

    fn forget(&mut self, key: &Key) {
        if self.partitions.remove(key).is_some() {
            self.kept_bytes -= kept_bytes(&key.0);
        }
    }

    fn in_turn(&self) -> Vec<Wanted> {
        let mut remembered: Vec<_> = self.partitions.values().collect();
        remembered.sort_by_key(|remembered| remembered.turn);
        remembered.into_iter().map(|remembered| remembered.wanted.clone()).collect()
    }
}

/// What a session takes for a partition of this topic, in bytes.
fn kept_bytes(topic: &TopicRef) -> usize {
    match topic {
        TopicRef::Name(name) => PARTITION_BYTES + name.len(),
        TopicRef::Id(_) => PARTITION_BYTES,
    }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(partition: i32, offset: i64) -> Wanted {
        Wanted {
            topic: TopicRef::Id(Uuid(7)),
            partition,
            offset,
            bytes_max: 1000,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }
    }

    fn told(high_watermark: i64) -> Told {
        Told { high_watermark, log_start: 0, has_news: false, has_error: false }
    }

    fn begun(sessions: &mut FetchSessions) -> i32 {
        let wanted = vec![wanted(0, 5), wanted(1, 6)];
        let fetching = sessions.begin((0, 0), wanted.clone(), &[], true, 0, 99).unwrap();
        assert!(!fetching.is_incremental && fetching.session_id != 0);
        assert_eq!(fetching.wanted, wanted);
        fetching.session_id
    }

    /// How many sessions there are, and partitions in them.
    fn counts(sessions: &FetchSessions) -> (usize, usize) {
        let partitions = sessions.sessions.values().map(|session| session.partitions.len()).sum();
        (sessions.sessions.len(), partitions)
    }

    #[test]
    fn a_session_remembers_what_is_wanted() {
        let mut sessions = FetchSessions::new(3, 10);
        let id = begun(&mut sessions);
        assert_eq!(id & 0x3ff, 3);
        let fetching = sessions.begin((id, 1), vec![wanted(1, 9)], &[], true, 1, 0).unwrap();
        assert!(fetching.is_incremental);
        assert_eq!(fetching.wanted, [wanted(0, 5), wanted(1, 9)]);
        let forgotten = [(TopicRef::Id(Uuid(7)), 0)];
        let fetching = sessions.begin((id, 2), Vec::new(), &forgotten, true, 2, 0).unwrap();
        assert_eq!(fetching.wanted, [wanted(1, 9)]);
        let forgotten = [(TopicRef::Id(Uuid(7)), 1)];
        let fetching = sessions.begin((id, 3), Vec::new(), &forgotten, true, 2, 0).unwrap();
        assert_eq!((fetching.session_id, fetching.wanted.len()), (0, 0), "nothing is left");
        let again = sessions.begin((id, 4), Vec::new(), &[], true, 2, 0);
        assert_eq!(again, Err(SessionError::NotFound));
    }

    #[test]
    fn wrong_ids_and_epochs_are_refused() {
        let mut sessions = FetchSessions::new(0, 10);
        let id = begun(&mut sessions);
        let mut begin = |id, epoch, ids| {
            sessions
                .begin((id, epoch), Vec::new(), &[], ids, 0, 0)
                .map(|fetching| fetching.session_id)
        };
        assert_eq!(begin(id + 1024, 1, true), Err(SessionError::NotFound));
        assert_eq!(begin(id, 2, true), Err(SessionError::WrongEpoch));
        assert_eq!(begin(id, 1, false), Err(SessionError::TopicIds));
        assert_eq!(begin(id, 1, true), Ok(id));
        assert_eq!(begin(id, 1, true), Err(SessionError::WrongEpoch), "a request sent twice");
        assert_eq!(begin(id, -1, true), Ok(0));
        assert_eq!(begin(id, 3, true), Err(SessionError::NotFound), "it was ended");
    }

    #[test]
    fn only_what_is_new_is_told() {
        let mut sessions = FetchSessions::new(0, 10);
        let id = begun(&mut sessions);
        let topic = TopicRef::Id(Uuid(7));
        let mut tell = |told| sessions.tell(id, &topic, 0, told);
        assert!(tell(told(4)), "the first time");
        assert!(!tell(told(4)));
        assert!(tell(told(5)));
        assert!(tell(Told { has_news: true, ..told(5) }));
        assert!(tell(Told { has_news: true, has_error: true, ..told(5) }));
        assert!(tell(told(5)), "the error is over");
        assert!(!tell(told(5)));
    }

    #[test]
    fn partitions_that_gave_records_go_behind() {
        let mut sessions = FetchSessions::new(0, 10);
        let id = begun(&mut sessions);
        sessions.tell(id, &TopicRef::Id(Uuid(7)), 0, Told { has_news: true, ..told(9) });
        let fetching = sessions.begin((id, 1), Vec::new(), &[], true, 0, 0).unwrap();
        assert_eq!(fetching.wanted, [wanted(1, 6), wanted(0, 5)]);
    }

    #[test]
    fn a_full_cache_evicts_only_what_is_old() {
        let mut sessions = FetchSessions::new(0, 1);
        let first = begun(&mut sessions);
        let begin = |sessions: &mut FetchSessions, now_ms| {
            sessions.begin((0, 0), Vec::new(), &[], true, now_ms, 5).unwrap().session_id
        };
        assert_eq!(begin(&mut sessions, EVICTION_MS_MIN - 1), 0, "sessionless, as Kafka does");
        let second = begin(&mut sessions, EVICTION_MS_MIN);
        assert!(second != 0 && second != first);
        assert_eq!(counts(&sessions), (1, 0));
    }

    fn many(range: std::ops::Range<usize>) -> Vec<Wanted> {
        range.map(|number| wanted(i32::try_from(number).unwrap(), 0)).collect()
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        const FIT: usize = KEPT_BYTES_MAX / PARTITION_BYTES;
        let mut sessions = FetchSessions::new(0, 10);
        let small = begun(&mut sessions);
        let large = sessions.begin((0, 0), many(0..FIT - 2), &[], true, 0, 7).unwrap().session_id;
        assert_ne!(large, 0, "all that fits");
        let refused = sessions.begin((0, 0), many(0..1), &[], true, 0, 9).unwrap();
        assert_eq!((refused.session_id, refused.wanted.len()), (0, 1), "served without a session");
        assert!(sessions.begin((small, 1), many(0..2), &[], true, 0, 0).is_ok(), "nothing new");
        let grown = sessions.begin((large, 1), many(FIT..FIT + 1), &[], true, 0, 0);
        assert_eq!(grown, Err(SessionError::NotFound));
        assert_eq!(counts(&sessions), (1, 2), "it is gone, with all it held");
        let forgotten = [(TopicRef::Id(Uuid(7)), 0), (TopicRef::Id(Uuid(7)), 5)];
        assert!(sessions.begin((small, 2), Vec::new(), &forgotten, true, 0, 0).is_ok());
        assert_eq!(sessions.kept_bytes, PARTITION_BYTES);
        assert_eq!(sessions.begin((small, -1), Vec::new(), &[], true, 0, 0).unwrap().session_id, 0);
        assert_eq!(sessions.kept_bytes, 0);
    }

    #[test]
    fn a_session_goes_on_at_another_shard_where_there_is_room() {
        let (mut here, mut there) = (FetchSessions::new(0, 10), FetchSessions::new(1, 2));
        let id = begun(&mut here);
        let own = begun(&mut there);
        assert_ne!(id, own);
        let session = here.take(id).unwrap();
        assert_eq!((counts(&here), here.kept_bytes), ((0, 0), 0));
        there.adopt(id, session);
        let again = here.begin((id, 1), Vec::new(), &[], true, 0, 0);
        assert_eq!(again, Err(SessionError::NotFound));
        let fetching = there.begin((id, 1), Vec::new(), &[], true, 0, 0).unwrap();
        assert_eq!(fetching.wanted, [wanted(0, 5), wanted(1, 6)]);
        let third = begun(&mut here);
        there.adopt(third, here.take(third).unwrap());
        assert_eq!(counts(&there), (2, 4), "no room for a third");
    }

    #[test]
    fn long_names_count() {
        let mut sessions = FetchSessions::new(0, 10);
        let named = |number: i32| Wanted {
            topic: TopicRef::Name(format!("{number:032000}").into()),
            ..wanted(0, 0)
        };
        let wanted: Vec<_> = (0..600).map(named).collect();
        let begun = sessions.begin((0, 0), wanted, &[], false, 0, 7).unwrap();
        assert_eq!(begun.session_id, 0, "18 MB of names");
    }
}
