//! Whether the other side of a session lives. Pure.

/// Counts own beats during which nothing came.
///
/// In beats, not in time: a process that was stopped finds, when it goes on, one late beat, and
/// then what has come meanwhile. So its own pause never makes it take another for dead.
#[derive(Clone, Copy, Debug)]
pub(super) struct Liveness {
    missed_max: u32,
    missed: u32,
}

impl Liveness {
    /// Heard of just now; dead after so many beats in silence.
    pub(super) fn new(missed_max: u32) -> Self {
        Self { missed_max, missed: 0 }
    }

    /// The other side was heard.
    pub(super) fn heard(&mut self) {
        self.missed = 0;
    }

    /// An own beat; whether the other side still counts as alive.
    pub(super) fn beat(&mut self) -> bool {
        self.missed = self.missed.saturating_add(1);
        self.missed <= self.missed_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_counts_from_the_last_word() {
        let mut liveness = Liveness::new(3);
        assert!((0..3).all(|_| liveness.beat()));
        liveness.heard();
        assert!((0..3).all(|_| liveness.beat()));
        assert!(!liveness.beat());
    }
}
