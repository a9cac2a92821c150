//! Timers of one machine, by deadline and by key. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::machine::TimerChange;

/// Deadlines, each under a key; setting a key again moves it.
#[derive(Debug)]
pub struct Timers<K> {
    by_key: BTreeMap<K, u64>,
    by_deadline: BTreeSet<(u64, K)>,
}

impl<K: Clone + Ord> Default for Timers<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), by_deadline: BTreeSet::new() }
    }
}

impl<K: Clone + Ord> Timers<K> {
    /// Applies what a machine asked for.
    pub fn apply(&mut self, change: TimerChange<K>) {
        match change {
            TimerChange::Set { key, at_ms } => {
                self.cancel(&key);
                self.by_key.insert(key.clone(), at_ms);
                self.by_deadline.insert((at_ms, key));
            }
            TimerChange::Cancel { key } => self.cancel(&key),
        }
    }

    fn cancel(&mut self, key: &K) {
        if let Some((key, at_ms)) = self.by_key.remove_entry(key) {
            self.by_deadline.remove(&(at_ms, key));
        }
    }

    /// When the next timer is due, in monotonic milliseconds.
    pub fn next_deadline_ms(&self) -> Option<u64> {
        self.by_deadline.first().map(|(at_ms, _)| *at_ms)
    }

    /// Takes out a timer that is due.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<K> {
        if self.next_deadline_ms()? > now_ms {
            return None;
        }
        let (_, key) = self.by_deadline.pop_first()?;
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timer_fires_once_at_its_last_deadline() {
        let mut timers = Timers::default();
        timers.apply(TimerChange::Set { key: "a", at_ms: 10 });
        timers.apply(TimerChange::Set { key: "b", at_ms: 20 });
        timers.apply(TimerChange::Set { key: "a", at_ms: 30 });
        assert_eq!(timers.next_deadline_ms(), Some(20));
        assert_eq!(timers.pop_due(19), None);
        assert_eq!(timers.pop_due(30), Some("b"));
        assert_eq!(timers.pop_due(30), Some("a"));
        assert_eq!(timers.pop_due(u64::MAX), None);
    }

    #[test]
    fn a_cancelled_timer_does_not_fire() {
        let mut timers = Timers::default();
        timers.apply(TimerChange::Set { key: 1, at_ms: 10 });
        timers.apply(TimerChange::Cancel { key: 1 });
        timers.apply(TimerChange::Cancel { key: 2 });
        assert_eq!(timers.pop_due(u64::MAX), None);
    }
}
