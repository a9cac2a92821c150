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

    /// All that still wait, taken out: for a log that has ended.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.waiting.drain(..).map(|(_, waiter)| waiter)
    }

    /// The highest end that somebody waits for.
    pub fn last_end(&self) -> Option<i64> {
        self.waiting.back().map(|(end, _)| *end)
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
