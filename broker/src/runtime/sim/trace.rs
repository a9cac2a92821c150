//! What happened in a run, as one number, and line by line for those who ask.
//!
//! Two runs of one seed must give one hash; where they do not, something leaks into the run that
//! the seed does not decide (a clock, a hash map's order, an address).

use std::cell::Cell;

/// Where the lines of a trace go.
pub type TraceSink = Box<dyn Fn(&str)>;

/// Hash of everything that happened, in order; prints it where a sink is given.
pub(super) struct Trace {
    hash: Cell<u64>,
    sink: Option<TraceSink>,
}

/// An odd number with bits all over: multiplying by it spreads a change upwards.
const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;

impl Trace {
    pub(super) fn new(sink: Option<TraceSink>) -> Self {
        Self { hash: Cell::new(SPREAD), sink }
    }

    pub(super) fn hash(&self) -> u64 {
        self.hash.get()
    }

    fn mix(&self, word: u64) {
        let mixed = (self.hash.get() ^ word).wrapping_mul(SPREAD);
        self.hash.set(mixed ^ (mixed >> 29));
    }

    /// Something happened at `now_ns`; `numbers` say to whom, and how much.
    pub(super) fn event(&self, now_ns: u64, what: &'static str, numbers: &[u64]) {
        self.mix(now_ns);
        self.bytes(what.as_bytes());
        for &number in numbers {
            self.mix(number);
        }
        if let Some(sink) = &self.sink {
            sink(&format!("{} {what} {numbers:?}", seconds(now_ns)));
        }
    }

    /// A line in words; the words count, too.
    pub(super) fn note(&self, now_ns: u64, words: &str) {
        self.mix(now_ns);
        self.bytes(words.as_bytes());
        if let Some(sink) = &self.sink {
            sink(&format!("{} {words}", seconds(now_ns)));
        }
    }

    /// Bytes that moved.
    pub(super) fn bytes(&self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        let (words, rest) = bytes.as_chunks::<8>();
        for word in words {
            self.mix(u64::from_le_bytes(*word));
        }
        for &byte in rest {
            self.mix(u64::from(byte));
        }
    }
}

/// Virtual time as people read it.
fn seconds(now_ns: u64) -> String {
    format!("{:>4}.{:09}", now_ns / 1_000_000_000, now_ns % 1_000_000_000)
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn the_hash_depends_on_everything_and_its_order() {
        let hash = |act: &dyn Fn(&Trace)| {
            let trace = Trace::new(None);
            act(&trace);
            trace.hash()
        };
        let base = hash(&|trace| {
            trace.event(1, "poll", &[1, 2]);
            trace.bytes(b"0123456789");
        });
        assert_eq!(
            base,
            hash(&|trace| {
                trace.event(1, "poll", &[1, 2]);
                trace.bytes(b"0123456789");
            })
        );
        for other in [
            hash(&|trace| trace.event(1, "poll", &[1, 2])),
            hash(&|trace| {
                trace.event(2, "poll", &[1, 2]);
                trace.bytes(b"0123456789");
            }),
            hash(&|trace| {
                trace.event(1, "poll", &[2, 1]);
                trace.bytes(b"0123456789");
            }),
            hash(&|trace| {
                trace.event(1, "poll", &[1, 2]);
                trace.bytes(b"012345678X");
            }),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn lines_go_to_the_sink() {
        let lines = Rc::new(RefCell::new(Vec::new()));
        let seen = Rc::clone(&lines);
        let trace = Trace::new(Some(Box::new(move |line| {
            seen.borrow_mut().push(line.to_owned());
        })));
        trace.event(1_500_000_000, "kill", &[3]);
        trace.note(2, "rot in log/a");
        assert_eq!(*lines.borrow(), ["   1.500000000 kill [3]", "   0.000000002 rot in log/a"]);
    }
}
