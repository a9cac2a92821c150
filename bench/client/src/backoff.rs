//! How long to wait before another attempt.

/// Doubles from attempt to attempt, up to a limit, and starts again after a success.
#[derive(Clone, Debug)]
pub struct Backoff {
    first_ms: u64,
    max_ms: u64,
    next_ms: u64,
}

impl Backoff {
    /// Java's defaults: 100 ms to begin with, 1 s at most.
    pub fn new() -> Self {
        Self::between(100, 1000)
    }

    /// With limits of one's own, in milliseconds.
    pub fn between(first_ms: u64, max_ms: u64) -> Self {
        Self { first_ms, max_ms, next_ms: first_ms }
    }

    /// How long to wait now, in milliseconds.
    pub fn next_ms(&mut self) -> u64 {
        let now = self.next_ms;
        self.next_ms = now.saturating_mul(2).min(self.max_ms);
        now
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.next_ms = self.first_ms;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_to_its_limit_and_starts_again() {
        let mut backoff = Backoff::new();
        let waits: Vec<u64> = (0..6).map(|_| backoff.next_ms()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        backoff.reset();
        assert_eq!(backoff.next_ms(), 100);
    }
}
