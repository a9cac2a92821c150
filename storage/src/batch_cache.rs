//! The tail of the logs in memory: the appenders' written buffers, within the shard's byte budget.
//!
//! Never slices of receive buffers. The oldest buffer of all logs goes first. Buffers that are
//! being filled count against the budget, too, but only what is kept here is given up for them.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;

/// Where a buffer's bytes stand: number of the log, base offset of the segment, position in its
/// file.
type Place = (u64, i64, u64);

struct Kept {
    bytes: Bytes,
    /// What it takes in memory.
    memory_bytes: usize,
}

/// Written buffers of all logs of a shard.
pub(crate) struct BatchCache {
    bytes_max: usize,
    kept: RefCell<BTreeMap<Place, Kept>>,
    by_age: RefCell<VecDeque<Place>>,
    kept_bytes: Cell<usize>,
    filling_bytes: Cell<usize>,
}

impl BatchCache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            kept: RefCell::default(),
            by_age: RefCell::default(),
            kept_bytes: Cell::new(0),
            filling_bytes: Cell::new(0),
        }
    }

    /// Memory of all buffers, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.kept_bytes.get() + self.filling_bytes.get()
    }

    /// An appender has a new buffer of this size.
    pub(crate) fn begin_buffer(&self, bytes: usize) {
        self.filling_bytes.set(self.filling_bytes.get() + bytes);
        self.evict();
    }

    /// An appender has no longer that buffer.
    pub(crate) fn end_buffer(&self, bytes: usize) {
        self.filling_bytes.set(self.filling_bytes.get().saturating_sub(bytes));
    }

    /// Keeps a buffer that is full: `bytes` stand at `position` of the segment.
    pub(crate) fn keep(&self, log: u64, segment: i64, position: u64, bytes: Bytes, memory: usize) {
        if bytes.is_empty() {
            return;
        }
        let place = (log, segment, position);
        let kept = Kept { bytes, memory_bytes: memory };
        let replaced = self.kept.borrow_mut().insert(place, kept);
        let replaced = replaced.map_or(0, |kept| kept.memory_bytes);
        self.kept_bytes.set(self.kept_bytes.get() + memory - replaced);
        self.by_age.borrow_mut().push_back(place);
        self.evict();
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
            if skip < found.bytes.len() {
                let end = skip.saturating_add(len).min(found.bytes.len());
                return Ok(found.bytes.slice(skip..end));
            }
        }
        let behind = (log, segment, position)..=(log, segment, u64::MAX);
        Err(kept.range(behind).next().map(|(place, _)| place.2))
    }

    /// Forgets what stands at or behind `position` of the segment, and all segments behind it.
    pub(crate) fn forget_from(&self, log: u64, segment: i64, position: u64) {
        let mut kept = self.kept.borrow_mut();
        let from = (log, segment, 0)..=(log, i64::MAX, u64::MAX);
        let gone: Vec<Place> = kept
            .range(from)
            .filter(|((_, base, start), kept)| {
                *base > segment || start + kept.bytes.len() as u64 > position
            })
            .map(|(place, _)| *place)
            .collect();
        for place in gone {
            if let Some(gone) = kept.remove(&place) {
                self.kept_bytes.set(self.kept_bytes.get() - gone.memory_bytes);
            }
        }
    }

    /// Forgets segments below this base offset.
    pub(crate) fn forget_below(&self, log: u64, segment: i64) {
        let mut kept = self.kept.borrow_mut();
        let gone = kept.range((log, i64::MIN, 0)..(log, segment, 0));
        let gone: Vec<Place> = gone.map(|(place, _)| *place).collect();
        for place in gone {
            if let Some(gone) = kept.remove(&place) {
                self.kept_bytes.set(self.kept_bytes.get() - gone.memory_bytes);
            }
        }
    }

    fn evict(&self) {
        let mut by_age = self.by_age.borrow_mut();
        let mut kept = self.kept.borrow_mut();
        while self.memory_bytes() > self.bytes_max {
            let Some(oldest) = by_age.pop_front() else {
                break;
            };
            if let Some(gone) = kept.remove(&oldest) {
                self.kept_bytes.set(self.kept_bytes.get() - gone.memory_bytes);
            }
        }
        // Places of what was forgotten otherwise are left behind; they must not pile up.
        if by_age.len() > 2 * kept.len() + 64 {
            by_age.retain(|place| kept.contains_key(place));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(byte: u8, len: usize) -> Bytes {
        Bytes::from(vec![byte; len])
    }

    #[test]
    fn bytes_are_found_or_where_the_next_begin() {
        let cache = BatchCache::new(1000);
        cache.keep(1, 0, 100, bytes(1, 50), 50);
        cache.keep(1, 0, 150, bytes(2, 50), 50);
        cache.keep(1, 0, 300, bytes(3, 50), 50);
        assert_eq!(cache.find(1, 0, 50, 10), Err(Some(100)));
        assert_eq!(cache.find(1, 0, 120, 500), Ok(bytes(1, 30)));
        assert_eq!(cache.find(1, 0, 150, 5), Ok(bytes(2, 5)));
        assert_eq!(cache.find(1, 0, 200, 5), Err(Some(300)));
        assert_eq!(cache.find(1, 0, 350, 5), Err(None));
        assert_eq!(cache.find(2, 0, 100, 5), Err(None));
        assert_eq!(cache.find(1, 7, 100, 5), Err(None));
    }

    #[test]
    fn the_oldest_goes_first_and_the_budget_holds() {
        let cache = BatchCache::new(100);
        for n in 0..50 {
            cache.keep(n % 3, 0, n * 10, bytes(1, 10), 10);
            assert!(cache.memory_bytes() <= 100);
        }
        assert_eq!(cache.find(1, 0, 390, 1), Err(Some(400)));
        assert!(cache.find(1, 0, 400, 1).is_ok());
        cache.begin_buffer(95);
        assert_eq!(cache.kept_bytes.get(), 0);
        cache.end_buffer(95);
        assert_eq!(cache.memory_bytes(), 0);
    }

    #[test]
    fn what_is_cut_is_forgotten() {
        let cache = BatchCache::new(10_000);
        for segment in [0, 10, 20] {
            for position in [0, 100, 200] {
                cache.keep(1, segment, position, bytes(1, 100), 100);
            }
        }
        cache.forget_below(1, 10);
        assert_eq!(cache.find(1, 0, 0, 1), Err(None));
        cache.forget_from(1, 10, 150);
        assert!(cache.find(1, 10, 99, 1).is_ok());
        assert_eq!(cache.find(1, 10, 100, 1), Err(None));
        assert_eq!(cache.find(1, 20, 0, 1), Err(None));
        assert_eq!(cache.memory_bytes(), 100);
    }
}
