//! Which replicas are in sync, as users of Kafka know it. Pure.
//!
//! A replica is in sync while it can be talked to and had all of the leader's log at some moment of
//! the last `replica.lag.time.max.ms`: so under load one that is healthy stays, though it never has
//! all. It is in sync again once it has had all. What it says of its disk is a little old when it
//! is heard: it had all when it has what the leader had at its report before.
//!
//! A leader that is new knows of nobody before it was heard; the set decides nothing but whether
//! writes are refused (`min.insync.replicas`), and there who was not heard yet counts.

use std::sync::Arc;

use crate::raft::membership::ReplicaId;

/// What a leader knows of another member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Who.
    pub id: ReplicaId,
    /// What of the leader's log it has flushed, as an index; -1: it has said nothing in this epoch.
    pub flushed: i64,
    /// Whether it can be talked to.
    pub is_up: bool,
    /// Whether it has a vote. Who has none is in no set, and may be in sync all the same.
    pub is_voter: bool,
}

/// What is remembered of it.
#[derive(Clone, Copy, Debug)]
struct Follower {
    heard: Heard,
    /// It had all at the last look.
    was_at_end: bool,
    /// The last moment, in milliseconds, at which it is known to have had all.
    caught_up_ms: Option<u64>,
    /// Where the leader's log ended when it said what it has,
    end_then: i64,
    /// and when that was.
    heard_ms: u64,
    is_in_sync: bool,
}

impl Follower {
    fn new(id: ReplicaId) -> Self {
        Self {
            heard: Heard { id, flushed: -1, is_up: false, is_voter: false },
            was_at_end: false,
            caught_up_ms: None,
            end_then: i64::MAX,
            heard_ms: 0,
            is_in_sync: false,
        }
    }

    fn look(&mut self, now_ms: u64, end: i64, lag_ms_max: u64, heard: Heard) {
        if !heard.is_up {
            let is_in_sync = false;
            *self = Self { heard, is_in_sync, ..Self::new(heard.id) };
            return;
        }
        let is_at_end = heard.flushed >= end;
        if is_at_end || self.was_at_end {
            // Until just now, where it is not any more.
            self.caught_up_ms = Some(now_ms);
        } else if heard.flushed > self.heard.flushed && heard.flushed >= self.end_then {
            self.caught_up_ms = self.caught_up_ms.max(Some(self.heard_ms));
        }
        if heard.flushed != self.heard.flushed {
            (self.end_then, self.heard_ms) = (end, now_ms);
        }
        (self.heard, self.was_at_end) = (heard, is_at_end);
        let had_all = |at: u64| now_ms.saturating_sub(at) <= lag_ms_max;
        self.is_in_sync = self.caught_up_ms.is_some_and(had_all);
    }
}

/// The in-sync set of a partition that is led here.
#[derive(Clone, Debug)]
pub struct InSync {
    lag_ms_max: u64,
    epoch: i32,
    followers: Vec<Follower>,
    version: u32,
    nodes: Arc<[i32]>,
}

impl InSync {
    /// Of a partition that is not led yet; followers stay in the set for so long, in milliseconds,
    /// after they had all.
    pub fn new(lag_ms_max: u64) -> Self {
        Self { lag_ms_max, epoch: -1, followers: Vec::new(), version: 0, nodes: Arc::from([]) }
    }

    /// Another `replica.lag.time.max.ms`.
    pub fn set_lag_ms_max(&mut self, lag_ms_max: u64) {
        self.lag_ms_max = lag_ms_max;
    }

    /// What is known now, of this epoch: where the log of its leader, on node `own`, ends as an
    /// index, and of each other member. Whether the set is another. To be called at each change of
    /// these, and twice a second while somebody who can be talked to lacks something.
    pub fn look(
        &mut self,
        now_ms: u64,
        epoch: i32,
        own: i32,
        end: i64,
        members: impl Iterator<Item = Heard>,
    ) -> bool {
        if epoch != self.epoch {
            *self = Self { epoch, ..Self::new(self.lag_ms_max) };
        }
        let mut count = 0;
        for heard in members {
            let known = self.followers.iter().position(|known| known.heard.id == heard.id);
            let nth = known.unwrap_or(self.followers.len());
            if known.is_none() {
                self.followers.push(Follower::new(heard.id));
            }
            self.followers.swap(nth, count);
            self.followers[count].look(now_ms, end, self.lag_ms_max, heard);
            count += 1;
        }
        self.followers.truncate(count);
        let known = self.nodes.split_first().filter(|(first, _)| **first == own);
        let is_same = known.is_some_and(|(_, rest)| self.others(own).eq(rest.iter().copied()));
        if !is_same {
            self.nodes = std::iter::once(own).chain(self.others(own)).collect();
            self.version += 1;
        }
        !is_same
    }

    /// The nodes in the set, the leader's first; and a number that rises with each other set of the
    /// epoch.
    pub fn nodes(&self) -> (u32, Arc<[i32]>) {
        (self.version, Arc::clone(&self.nodes))
    }

    /// Those in the set but the leader.
    pub fn in_sync(&self) -> impl Iterator<Item = Heard> + Clone {
        let voters = self.voters().filter(|known| known.is_in_sync);
        voters.map(|known| known.heard)
    }

    /// Whether another member is in sync, also one without a vote.
    pub fn has(&self, id: &ReplicaId) -> bool {
        self.followers.iter().any(|known| known.heard.id == *id && known.is_in_sync)
    }

    fn voters(&self) -> impl Iterator<Item = &Follower> + Clone {
        self.followers.iter().filter(|known| known.heard.is_voter)
    }

    /// Their nodes; where one changes its disk, two are on the leader's.
    fn others(&self, own: i32) -> impl Iterator<Item = i32> {
        self.in_sync().map(|heard| heard.id.node).filter(move |node| *node != own)
    }

    /// Whether so many replicas are in sync, the leader among them; or all, where they are fewer,
    /// as Kafka caps it: with `learners`, who are to have a vote. Who was not heard yet in this
    /// epoch counts.
    pub fn is_enough(&self, min_insync_replicas: usize, learners: usize) -> bool {
        let is_counted =
            |known: &&Follower| known.is_in_sync || known.heard.is_up && known.heard.flushed < 0;
        let counted = 1 + self.voters().filter(is_counted).count();
        counted >= min_insync_replicas.min(1 + self.voters().count() + learners)
    }
}

#[cfg(test)]
mod tests {
    use vltava_protocol::types::Uuid;

    use super::*;

    const LAG_MS: u64 = 100;

    /// Looks at (time, end, what nodes 2 and 3 have flushed; `None`: down), in epoch 5 on node 1.
    fn look(set: &mut InSync, now_ms: u64, end: i64, flushed: [Option<i64>; 2]) -> Vec<i32> {
        let heard = |(node, flushed): (i32, Option<i64>)| Heard {
            id: ReplicaId { node, disk: Uuid(7) },
            flushed: flushed.unwrap_or(-1),
            is_up: flushed.is_some(),
            is_voter: true,
        };
        let before = set.nodes();
        let is_other = set.look(now_ms, 5, 1, end, [2, 3].into_iter().zip(flushed).map(heard));
        let (version, nodes) = set.nodes();
        assert_eq!(is_other, before.1 != nodes);
        assert_eq!(version, before.0 + u32::from(is_other));
        nodes.to_vec()
    }

    #[test]
    fn golden_table() {
        // time, end, what 2 and 3 have flushed; who is in sync
        type Row = (u64, i64, [Option<i64>; 2], &'static [i32]);
        let table: &[Row] = &[
            // nobody was heard
            (0, 1, [Some(-1), Some(-1)], &[1]),
            (1, 1, [Some(1), Some(-1)], &[1, 2]),
            (2, 1, [Some(1), Some(1)], &[1, 2, 3]),
            // idle for long: then both lack something, and have it a moment later
            (100_000, 2, [Some(1), Some(1)], &[1, 2, 3]),
            (100_099, 2, [Some(2), Some(1)], &[1, 2, 3]),
            (100_101, 2, [Some(2), Some(1)], &[1, 2]),
            // having all it is back
            (100_200, 2, [Some(2), Some(2)], &[1, 2, 3]),
            // under load: never all, but what there was at the report before
            (100_210, 9, [Some(2), Some(2)], &[1, 2, 3]),
            (100_250, 20, [Some(9), Some(3)], &[1, 2, 3]),
            (100_300, 30, [Some(20), Some(4)], &[1, 2, 3]),
            (100_350, 40, [Some(30), Some(5)], &[1, 2]),
            (100_400, 50, [Some(40), Some(6)], &[1, 2]),
            // it catches up
            (100_450, 60, [Some(50), Some(58)], &[1, 2, 3]),
            // who stands still for long is out, though it lacks little
            (100_500, 61, [Some(60), Some(60)], &[1, 2, 3]),
            (100_700, 61, [Some(60), Some(60)], &[1]),
            (100_701, 61, [Some(61), Some(61)], &[1, 2, 3]),
            // who is down is out at once, and in again with all, not before
            (100_710, 61, [Some(61), None], &[1, 2]),
            (100_720, 70, [Some(70), Some(61)], &[1, 2]),
            (100_730, 80, [Some(80), Some(65)], &[1, 2]),
            (100_740, 90, [Some(90), Some(79)], &[1, 2]),
            (100_750, 90, [Some(90), Some(90)], &[1, 2, 3]),
            // also where nothing was written meanwhile
            (100_760, 90, [Some(90), None], &[1, 2]),
            (100_770, 90, [Some(90), Some(90)], &[1, 2, 3]),
        ];
        let mut set = InSync::new(LAG_MS);
        for (now_ms, end, flushed, in_sync) in table {
            let found = look(&mut set, *now_ms, *end, *flushed);
            assert_eq!(found, *in_sync, "at {now_ms}, end {end}: {flushed:?}");
        }
    }

    #[test]
    fn how_many_are_enough() {
        let mut set = InSync::new(LAG_MS);
        assert!(set.is_enough(9, 0), "alone");
        assert!(set.is_enough(1, 2) && !set.is_enough(2, 2), "named alone");
        look(&mut set, 0, 1, [Some(-1), None]);
        assert_eq!(
            [1, 2, 3].map(|min| set.is_enough(min, 0)),
            [true, true, false],
            "not heard yet"
        );
        look(&mut set, 1, 9, [Some(3), Some(9)]);
        assert_eq!([1, 2, 3].map(|min| set.is_enough(min, 0)), [true, true, false], "2 lags");
        look(&mut set, 2, 9, [Some(9), Some(9)]);
        assert_eq!([3, 4, 9].map(|min| set.is_enough(min, 0)), [true; 3], "capped");
    }

    #[test]
    fn an_epoch_begins_anew() {
        let mut set = InSync::new(LAG_MS);
        look(&mut set, 0, 1, [Some(1), Some(1)]);
        assert!(set.look(1, 6, 1, 2, std::iter::empty()));
        assert_eq!(set.nodes(), (1, Arc::from([1])));
    }
}
