//! The timers of one shard: who sleeps until when. Time comes in.

use std::collections::BTreeMap;
use std::task::Waker;

use super::Monotonic;

/// Names a timer: when it fires, and a number that makes it unique.
pub(super) type TimerKey = (Monotonic, u64);

/// Who sleeps until when.
#[derive(Debug, Default)]
pub(super) struct Timers {
    sleeping: BTreeMap<TimerKey, Waker>,
    next_number: u64,
}

impl Timers {
    /// A new timer.
    pub(super) fn add(&mut self, deadline: Monotonic, waker: Waker) -> TimerKey {
        let key = (deadline, self.next_number);
        self.next_number += 1;
        self.sleeping.insert(key, waker);
        key
    }

    /// Wakes another task when it fires, where it has not. Gives the former waker back: dropping it
    /// may run code.
    pub(super) fn change(&mut self, key: TimerKey, waker: &Waker) -> Option<Waker> {
        let known = self.sleeping.get_mut(&key)?;
        if known.will_wake(waker) {
            return None;
        }
        Some(std::mem::replace(known, waker.clone()))
    }

    /// Takes a timer out, where it has not fired. Gives its waker back.
    pub(super) fn remove(&mut self, key: TimerKey) -> Option<Waker> {
        self.sleeping.remove(&key)
    }

    /// When the next one fires.
    pub(super) fn next(&self) -> Option<Monotonic> {
        self.sleeping.keys().next().map(|(deadline, _)| *deadline)
    }

    /// Takes all out that fire by now, in their order.
    pub(super) fn fire(&mut self, now: Monotonic, woken: &mut Vec<Waker>) {
        while let Some(first) = self.sleeping.first_entry()
            && first.key().0 <= now
        {
            woken.push(first.remove());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timers_fire_in_order_and_once() {
        let mut timers = Timers::default();
        let waker = Waker::noop().clone();
        let late = timers.add(Monotonic(20), waker.clone());
        timers.add(Monotonic(10), waker.clone());
        timers.add(Monotonic(10), waker.clone());
        assert_eq!(timers.next(), Some(Monotonic(10)));
        let mut woken = Vec::new();
        timers.fire(Monotonic(9), &mut woken);
        assert!(woken.is_empty());
        timers.fire(Monotonic(10), &mut woken);
        assert_eq!(woken.len(), 2);
        assert_eq!(timers.next(), Some(Monotonic(20)));
        assert!(timers.change(late, &waker).is_none());
        assert!(timers.remove(late).is_some());
        assert!(timers.remove(late).is_none());
        assert_eq!(timers.next(), None);
    }
}
