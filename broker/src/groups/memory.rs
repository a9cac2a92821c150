//! What the groups of one shard hold, counted over all its partitions.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes that the group machines of one shard hold together, about.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    total_bytes: Rc<Cell<usize>>,
}

/// One machine's part of it. Given back when the machine goes.
#[derive(Debug)]
pub(super) struct Share {
    memory: Memory,
    own_bytes: Cell<usize>,
}

impl Memory {
    /// What all machines hold together, in bytes.
    pub fn bytes(&self) -> usize {
        self.total_bytes.get()
    }

    pub(super) fn share(&self) -> Share {
        Share { memory: self.clone(), own_bytes: Cell::new(0) }
    }
}

impl Share {
    /// What the machine holds now.
    pub(super) fn set(&self, bytes: usize) {
        let total = &self.memory.total_bytes;
        total.set(total.get() - self.own_bytes.replace(bytes) + bytes);
    }

    /// What the machines hold together.
    pub(super) fn total_bytes(&self) -> usize {
        self.memory.bytes()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_are_given_back() {
        let memory = Memory::default();
        let (one, other) = (memory.share(), memory.share());
        one.set(10);
        other.set(5);
        one.set(3);
        assert_eq!(memory.bytes(), 8);
        drop(one);
        assert_eq!(memory.bytes(), 5);
        drop(other);
        assert_eq!(memory.bytes(), 0);
    }
}
