//! Who waits for what a partition commits. Pure: what is woken is a value of the caller's.
//!
//! Two kinds wait. A *write* waits for the high watermark to reach its end; writes end in the order
//! they were appended, so they stand in a queue. A *watch* (a fetch that found too little) waits
//! for so many more committed bytes.

use std::collections::{BTreeMap, VecDeque};

/// Writes that wait for their commit, in the order of their end offsets.
#[derive(Debug)]
pub struct CommitQueue<T> {
    waiting: VecDeque<(i64, T)>,
}

impl<T> Default for CommitQueue<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new() }
    }
}

impl<T> CommitQueue<T> {
    /// `waiter` is owed an answer once everything below `end_offset` is committed. A duplicate of a
    /// batch that is still on its way waits for the end of the original, which may lie before
    /// that of writes queued since.
    pub fn push(&mut self, end_offset: i64, waiter: T) {
        let behind = self.waiting.iter().rev().take_while(|(end, _)| *end > end_offset).count();
        self.waiting.insert(self.waiting.len() - behind, (end_offset, waiter));
    }

    /// The next write whose end is at or below the high watermark.
    pub fn pop_committed(&mut self, high_watermark: i64) -> Option<T> {
        let (end_offset, _) = self.waiting.front()?;
        if *end_offset > high_watermark {
            return None;
        }
        self.waiting.pop_front().map(|(_, waiter)| waiter)
    }

    /// Those of them that wait, in no order that matters.
    pub fn waiting(&self) -> impl Iterator<Item = &T> {
        self.waiting.iter().map(|(_, waiter)| waiter)
    }

    /// Takes out those for which this holds.
    pub fn take_where(&mut self, mut holds: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for (end_offset, waiter) in std::mem::take(&mut self.waiting) {
            if holds(&waiter) {
                taken.push(waiter);
            } else {
                self.waiting.push_back((end_offset, waiter));
            }
        }
        taken
    }

    /// All that still wait, taken out: for a log that has ended.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.waiting.drain(..).map(|(_, waiter)| waiter)
    }

    /// The same, each with the end that it waits for.
    pub fn drain_with_ends(&mut self) -> Vec<(i64, T)> {
        self.waiting.drain(..).collect()
    }

    /// The highest end that somebody waits for.
    pub fn last_end(&self) -> Option<i64> {
        self.waiting.back().map(|(end, _)| *end)
    }
}

/// How many bytes a high watermark passes: of batches that are appended, in the order of their
/// offsets, and committed later, several at a time.
#[derive(Debug, Default)]
pub struct UncommittedBytes {
    /// The offset behind each batch, and its bytes.
    batches: VecDeque<(i64, u64)>,
}

impl UncommittedBytes {
    /// Batches of so many bytes stand between two offsets; what stood there, or behind, was cut.
    pub fn append(&mut self, base_offset: i64, end_offset: i64, bytes: u64) {
        while self.batches.back().is_some_and(|(end, _)| *end > base_offset) {
            self.batches.pop_back();
        }
        self.batches.push_back((end_offset, bytes));
    }

    /// The high watermark has risen to this offset: over how many bytes. At least one: of what was
    /// there before a restart nothing is known.
    pub fn commit(&mut self, high_watermark: i64) -> u64 {
        let mut passed = 0;
        while let Some((_, bytes)) = self.batches.pop_front_if(|(end, _)| *end <= high_watermark) {
            passed += bytes;
        }
        passed.max(1)
    }
}

/// Names a watch of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(u64);

/// Watches of one partition.
#[derive(Debug)]
pub struct Watches<T> {
    next: u64,
    waiting: BTreeMap<WatchId, T>,
}

impl<T> Default for Watches<T> {
    fn default() -> Self {
        Self { next: 0, waiting: BTreeMap::new() }
    }
}

impl<T> Watches<T> {
    /// Adds a watch.
    pub fn add(&mut self, watch: T) -> WatchId {
        let id = WatchId(self.next);
        self.next += 1;
        self.waiting.insert(id, watch);
        id
    }

    /// Removes a watch; nothing happens where it is gone.
    pub fn remove(&mut self, id: WatchId) {
        self.waiting.remove(&id);
    }

    /// Shows each watch to `satisfied`; those for which it returns true are gone.
    pub fn retain(&mut self, mut satisfied: impl FnMut(&mut T) -> bool) {
        if !self.waiting.is_empty() {
            self.waiting.retain(|_, watch| !satisfied(watch));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_leave_in_order_and_only_when_committed() {
        let mut queue = CommitQueue::default();
        queue.push(5, "a");
        queue.push(9, "b");
        assert_eq!(queue.pop_committed(4), None);
        assert_eq!(queue.pop_committed(8), Some("a"));
        assert_eq!(queue.pop_committed(8), None);
        assert_eq!(queue.drain().collect::<Vec<_>>(), ["b"]);
    }

    #[test]
    fn a_duplicate_waits_for_its_original_only() {
        let mut queue = CommitQueue::default();
        queue.push(5, "original");
        queue.push(9, "later");
        queue.push(5, "duplicate");
        assert_eq!(queue.pop_committed(5), Some("original"));
        assert_eq!(queue.pop_committed(5), Some("duplicate"));
        assert_eq!(queue.pop_committed(5), None);
    }

    #[test]
    fn who_is_taken_out_leaves_the_others_in_order() {
        let mut queue = CommitQueue::default();
        for end in 1..=6 {
            queue.push(end, end);
        }
        assert_eq!(queue.take_where(|end| end % 2 == 0), [2, 4, 6]);
        assert_eq!(queue.waiting().copied().collect::<Vec<_>>(), [1, 3, 5]);
        assert_eq!((queue.pop_committed(4), queue.pop_committed(4)), (Some(1), Some(3)));
        assert_eq!(queue.pop_committed(4), None);
    }

    #[test]
    fn bytes_are_counted_when_they_are_committed_not_when_they_are_flushed() {
        let mut bytes = UncommittedBytes::default();
        assert_eq!(bytes.commit(7), 1, "of before a restart");
        bytes.append(7, 8, 100);
        bytes.append(8, 12, 400);
        assert_eq!(bytes.commit(8), 100);
        assert_eq!(bytes.commit(10), 1, "within a batch");
        assert_eq!(bytes.commit(12), 400);
        bytes.append(12, 20, 1000);
        bytes.append(20, 25, 5000);
        bytes.append(14, 15, 30);
        assert_eq!(bytes.commit(20), 30, "what was cut does not count");
    }

    #[test]
    fn watches_go_once_satisfied_or_removed() {
        let mut watches = Watches::default();
        let first = watches.add(1);
        watches.add(2);
        watches.remove(first);
        let mut seen = Vec::new();
        watches.retain(|watch| {
            seen.push(*watch);
            true
        });
        watches.retain(|_| panic!("nothing is left"));
        assert_eq!(seen, [2]);
    }
}
