//! The tail of the logs in memory: the appenders' written buffers, within the shard's byte budget.
//!
//! Never slices of receive buffers. The oldest buffer of all logs goes first. The budget is that of
//! all buffers: those being filled, those kept here, and those that answers on their way to slow
//! clients still hold; only what is kept here is given up.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

use crate::io::BufferPool;

/// Where a buffer's bytes stand: number of the log, base offset of the segment, position in its
/// file.
type Place = (u64, i64, u64);

/// Written buffers of all logs of a shard.
pub(crate) struct BatchCache {
    bytes_max: usize,
    /// Where all buffers come from.
    pool: BufferPool,
    kept: RefCell<BTreeMap<Place, Bytes>>,
    by_age: RefCell<VecDeque<Place>>,
}

impl BatchCache {
    pub(crate) fn new(bytes_max: usize, pool: BufferPool) -> Self {
        Self { bytes_max, pool, kept: RefCell::default(), by_age: RefCell::default() }
    }

    /// Makes room for a buffer of this size. Whether there is.
    pub(crate) fn make_room(&self, bytes: usize) -> bool {
        let allowed = self.bytes_max.saturating_sub(bytes);
        let mut by_age = self.by_age.borrow_mut();
        let mut kept = self.kept.borrow_mut();
        while self.pool.lent_bytes() > allowed {
            let Some(oldest) = by_age.pop_front() else {
                return false;
            };
            kept.remove(&oldest);
        }
        bytes <= self.bytes_max
    }

    /// Keeps a buffer that is full: `bytes` stand at `position` of the segment.
    pub(crate) fn keep(&self, log: u64, segment: i64, position: u64, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        let place = (log, segment, position);
        let mut kept = self.kept.borrow_mut();
        kept.insert(place, bytes);
        let mut by_age = self.by_age.borrow_mut();
        by_age.push_back(place);
        // Places of what was forgotten otherwise are left behind; they must not pile up.
        if by_age.len() > 2 * kept.len() + 64 {
            by_age.retain(|place| kept.contains_key(place));
        }
    }

    /// The bytes at `position`, as many as lie together, at most `len`; or else where the next kept
    /// bytes of the segment begin.
    pub(crate) fn find(
        &self,
        log: u64,
        segment: i64,
        position: u64,
        len: usize,
    ) -> Result<Bytes, Option<u64>> {
        let kept = self.kept.borrow();
        let before = kept.range((log, segment, 0)..=(log, segment, position));
        if let Some(((_, _, start), found)) = before.last() {
            let skip = usize::try_from(position - start).unwrap_or(usize::MAX);
            if skip < found.len() {
                let end = skip.saturating_add(len).min(found.len());
                return Ok(found.slice(skip..end));
            }
        }
        let behind = (log, segment, position)..=(log, segment, u64::MAX);
        Err(kept.range(behind).next().map(|(place, _)| place.2))
    }

    /// Forgets what stands at or behind `position` of the segment, and all segments behind it.
    pub(crate) fn forget_from(&self, log: u64, segment: i64, position: u64) {
        let from = (log, segment, 0)..=(log, i64::MAX, u64::MAX);
        let mut kept = self.kept.borrow_mut();
        let gone = kept.extract_if(from, |(_, base, start), bytes| {
            *base > segment || *start + bytes.len() as u64 > position
        });
        gone.for_each(drop);
    }

    /// Forgets segments below this base offset.
    pub(crate) fn forget_below(&self, log: u64, segment: i64) {
        let below = (log, i64::MIN, 0)..(log, segment, 0);
        self.kept.borrow_mut().extract_if(below, |_, _| true).for_each(drop);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::BLOCK_BYTES;

    fn cache(blocks: usize) -> BatchCache {
        BatchCache::new(blocks * BLOCK_BYTES, BufferPool::new(BLOCK_BYTES, 0, 0))
    }

    /// Bytes in a buffer of one block of the pool.
    fn bytes(cache: &BatchCache, byte: u8, len: usize) -> Bytes {
        let mut buffer = cache.pool.take(BLOCK_BYTES);
        buffer.append(&vec![byte; len]);
        buffer.slice(0..len)
    }

    #[test]
    fn bytes_are_found_or_where_the_next_begin() {
        let cache = cache(3);
        cache.keep(1, 0, 100, bytes(&cache, 1, 50));
        cache.keep(1, 0, 150, bytes(&cache, 2, 50));
        cache.keep(1, 0, 300, bytes(&cache, 3, 50));
        assert_eq!(cache.find(1, 0, 50, 10), Err(Some(100)));
        assert_eq!(cache.find(1, 0, 120, 500).unwrap(), vec![1; 30]);
        assert_eq!(cache.find(1, 0, 150, 5).unwrap(), vec![2; 5]);
        assert_eq!(cache.find(1, 0, 200, 5), Err(Some(300)));
        assert_eq!(cache.find(1, 0, 350, 5), Err(None));
        assert_eq!(cache.find(2, 0, 100, 5), Err(None));
        assert_eq!(cache.find(1, 7, 100, 5), Err(None));
    }

    #[test]
    fn the_oldest_goes_first_and_the_budget_holds() {
        let cache = cache(10);
        for n in 0..50 {
            assert!(cache.make_room(BLOCK_BYTES));
            cache.keep(n % 3, 0, n * 10, bytes(&cache, 1, 10));
            assert!(cache.pool.lent_bytes() <= 10 * BLOCK_BYTES);
        }
        assert_eq!(cache.find(1, 0, 390, 1), Err(Some(400)));
        assert!(cache.find(1, 0, 400, 1).is_ok());
        assert!(!cache.make_room(11 * BLOCK_BYTES));
        assert_eq!(cache.pool.lent_bytes(), 0);
    }

    /// Clients that take an answer and never read it cannot make memory grow: what they hold is
    /// missing from the cache.
    #[test]
    fn what_readers_hold_counts() {
        let cache = cache(4);
        let mut held = Vec::new();
        for n in 0..3 {
            cache.keep(1, 0, n * 10, bytes(&cache, 1, 10));
            held.extend(cache.find(1, 0, n * 10, 10));
        }
        for n in 3..20 {
            assert!(cache.make_room(BLOCK_BYTES));
            cache.keep(1, 0, n * 10, bytes(&cache, 1, 10));
            assert!(cache.pool.lent_bytes() <= 4 * BLOCK_BYTES);
        }
        held.clear();
        assert_eq!(cache.pool.lent_bytes(), BLOCK_BYTES);
    }

    #[test]
    fn what_is_cut_is_forgotten() {
        let cache = cache(9);
        for segment in [0, 10, 20] {
            for position in [0, 100, 200] {
                cache.keep(1, segment, position, bytes(&cache, 1, 100));
            }
        }
        cache.forget_below(1, 10);
        assert_eq!(cache.find(1, 0, 0, 1), Err(None));
        cache.forget_from(1, 10, 150);
        assert!(cache.find(1, 10, 99, 1).is_ok());
        assert_eq!(cache.find(1, 10, 100, 1), Err(None));
        assert_eq!(cache.find(1, 20, 0, 1), Err(None));
        assert_eq!(cache.pool.lent_bytes(), BLOCK_BYTES);
    }
}
