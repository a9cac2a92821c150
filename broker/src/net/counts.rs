//! How many connections the node has: limits are the node's, and the kernel spreads connections
//! over its shards unevenly.
//!
//! Touched where a connection begins and ends, never between.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

/// The connections of all shards. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct ConnectionCounts(Arc<Mutex<Open>>);

impl ConnectionCounts {
    /// Counts one more, until the returned guard is dropped.
    ///
    /// # Errors
    /// Where a limit is reached.
    pub fn open(
        &self,
        peer: IpAddr,
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
        Ok(OpenConnection { peer, counts: self.clone() })
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
    counts: ConnectionCounts,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        let mut open = self.counts.lock();
        open.total -= 1;
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
        let first = counts.open(peer(1), LIMITS);
        let second = counts.clone().open(peer(1), LIMITS);
        let per_ip = counts.open(peer(1), LIMITS);
        assert_eq!(per_ip.err(), Some(LimitReached("max.connections.per.ip")));
        let third = counts.open(peer(2), LIMITS);
        let total = counts.open(peer(3), LIMITS);
        assert_eq!(total.err(), Some(LimitReached("max.connections")));
        drop(second);
        assert!(counts.open(peer(3), LIMITS).is_ok());
        assert!(counts.open(peer(1), LIMITS).is_ok());
        drop((first, third));
        let open = counts.lock();
        assert!(open.total == 0 && open.by_ip.is_empty(), "{open:?}");
    }
}
