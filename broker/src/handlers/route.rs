//! Where the partitions live that one connection's requests name. Pure.

use std::cell::Cell;

/// Requests in a row that name partitions of one shard only, before the connection counts as that
/// shard's. Sixteen in a row by chance, of a client that writes to two shards alike, are one in
/// 30,000; and being wrong costs no more than one more move.
const REQUESTS_MIN: u32 = 16;

/// What the latest requests had in common.
#[derive(Debug, Default)]
pub struct Route {
    shard: Cell<usize>,
    /// In a row; more than [`REQUESTS_MIN`] are as good as that.
    requests: Cell<u32>,
}

impl Route {
    /// A request named partitions of these shards.
    pub fn named(&self, shards: impl IntoIterator<Item = usize>) {
        let mut shards = shards.into_iter();
        let Some(shard) = shards.next() else {
            return;
        };
        let is_same = self.shard.replace(shard) == shard;
        self.requests.set(match shards.next() {
            Some(_) => 0,
            None if is_same => self.requests.get().saturating_add(1),
            None => 1,
        });
    }

    /// The shard that all partitions live on which the latest requests named. Asks for as many
    /// requests again before it says so once more.
    pub fn settled(&self) -> Option<usize> {
        let is_settled = self.requests.get() >= REQUESTS_MIN;
        is_settled.then(|| {
            self.requests.set(0);
            self.shard.get()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_settles_after_enough_requests_for_one_shard_and_starts_anew() {
        let route = Route::default();
        for _ in 0..2 {
            for _ in 1..REQUESTS_MIN {
                route.named([3]);
                assert_eq!(route.settled(), None);
            }
            route.named([]);
            assert_eq!(route.settled(), None, "a request that names none says nothing");
            route.named([3]);
            assert_eq!(route.settled(), Some(3));
            assert_eq!(route.settled(), None);
        }
    }

    #[test]
    fn several_shards_or_another_one_begin_it_anew() {
        let route = Route::default();
        for between in [vec![2], vec![3, 2], vec![2, 3]] {
            (1..REQUESTS_MIN).for_each(|_| route.named([3]));
            route.named(between);
            route.named([3]);
            assert_eq!(route.settled(), None);
            (1..REQUESTS_MIN).for_each(|_| route.named([3]));
            assert_eq!(route.settled(), Some(3));
        }
    }
}
