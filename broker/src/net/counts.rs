//! How many connections the node has: limits are the node's, and the kernel spreads connections
//! over its shards unevenly.
//!
//! Touched where a connection begins and ends, never between.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many times the connections of another shard one may get by moves.
const UNEVEN_FACTOR_MAX: u32 = 2;
/// So many connections more are no matter.
const UNEVEN_MIN: u32 = 8;

/// What may be open at once.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// `max.connections`.
    pub total: u32,
    /// `max.connections.per.ip`.
    pub per_ip: u32,
}

/// The limit that one more connection would pass, by its setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitReached(pub &'static str);

#[derive(Debug, Default)]
struct Open {
    total: u32,
    by_ip: BTreeMap<IpAddr, u32>,
    by_shard: BTreeMap<usize, u32>,
}

impl Open {
    fn on_shard(&mut self, shard: usize) -> &mut u32 {
        self.by_shard.entry(shard).or_default()
    }

    fn is_fair(&self, from: usize, to: usize) -> bool {
        let count = |shard| self.by_shard.get(&shard).copied().unwrap_or_default();
        count(to) < UNEVEN_FACTOR_MAX * count(from) + UNEVEN_MIN
    }
}

/// The connections of all shards. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct ConnectionCounts(Arc<Mutex<Open>>);

impl ConnectionCounts {
    /// Counts one more on this shard, until the returned guard is dropped.
    ///
    /// # Errors
    /// Where a limit is reached.
    pub fn open(
        &self,
        peer: IpAddr,
        shard: usize,
        limits: ConnectionLimits,
    ) -> Result<OpenConnection, LimitReached> {
        let mut open = self.lock();
        if open.total >= limits.total {
            return Err(LimitReached("max.connections"));
        }
        let same = open.by_ip.entry(peer).or_default();
        if *same >= limits.per_ip {
            // Not left behind where the limit is none at all.
            if *same == 0 {
                open.by_ip.remove(&peer);
            }
            return Err(LimitReached("max.connections.per.ip"));
        }
        *same += 1;
        open.total += 1;
        *open.on_shard(shard) += 1;
        Ok(OpenConnection { peer, shard, counts: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        // Every change below is whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection that counts.
#[derive(Debug)]
pub struct OpenConnection {
    peer: IpAddr,
    shard: usize,
    counts: ConnectionCounts,
}

impl OpenConnection {
    /// Whether it may go to another shard: not where that one has many more connections than its
    /// own. One partition that all clients use must not bring them all to one core.
    pub fn may_move_to(&self, shard: usize) -> bool {
        self.counts.lock().is_fair(self.shard, shard)
    }

    /// Counts it on another shard from now on, where it may go there. Returns whether it may.
    pub fn move_to(&mut self, shard: usize) -> bool {
        let mut open = self.counts.lock();
        let is_fair = open.is_fair(self.shard, shard);
        if is_fair {
            *open.on_shard(self.shard) -= 1;
            *open.on_shard(shard) += 1;
            self.shard = shard;
        }
        is_fair
    }

    /// Where it counts.
    pub fn shard(&self) -> usize {
        self.shard
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.counts.lock();
        open.total -= 1;
        *open.on_shard(self.shard) -= 1;
        if let Some(same) = open.by_ip.get_mut(&self.peer) {
            *same -= 1;
            if *same == 0 {
                open.by_ip.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const LIMITS: ConnectionLimits = ConnectionLimits { total: 3, per_ip: 2 };

    fn peer(number: u8) -> IpAddr {
        IpAddr::from(Ipv4Addr::new(10, 0, 0, number))
    }

    #[test]
    fn limits_hold_over_all_clones_and_end_with_the_connection() {
        let counts = ConnectionCounts::default();
        let first = counts.open(peer(1), 0, LIMITS);
        let second = counts.clone().open(peer(1), 0, LIMITS);
        let per_ip = counts.open(peer(1), 0, LIMITS);
        assert_eq!(per_ip.err(), Some(LimitReached("max.connections.per.ip")));
        let third = counts.open(peer(2), 0, LIMITS);
        let total = counts.open(peer(3), 0, LIMITS);
        assert_eq!(total.err(), Some(LimitReached("max.connections")));
        drop(second);
        assert!(counts.open(peer(3), 0, LIMITS).is_ok());
        assert!(counts.open(peer(1), 0, LIMITS).is_ok());
        drop((first, third));
        let open = counts.lock();
        assert!(open.total == 0 && open.by_ip.is_empty(), "{open:?}");
    }
    #[test]
    fn a_shard_gets_no_more_than_its_share_by_moves() {
        let counts = ConnectionCounts::default();
        let many = ConnectionLimits { total: 1000, per_ip: 1000 };
        let mut open: Vec<_> = (0..100).map(|_| counts.open(peer(1), 0, many).unwrap()).collect();
        let moved = open.iter_mut().filter_map(|one| one.move_to(1).then_some(one.shard()));
        assert_eq!(moved.collect::<Vec<_>>(), [1; 70]);
        assert_eq!(counts.lock().by_shard, BTreeMap::from([(0, 30), (1, 70)]));
        drop(open);
        assert_eq!(counts.lock().by_shard, BTreeMap::from([(0, 0), (1, 0)]));
    }
}
