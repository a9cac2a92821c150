//! How many are enough. No allocation: a leader asks at every flush.

/// A majority of so many.
pub fn majority(voters: usize) -> usize {
    voters / 2 + 1
}

/// How many of so many voters must have flushed what clients may see: a majority, or more where
/// `min.insync.replicas` asks for it, and never more than there are, as Kafka caps it.
pub fn needed(voters: usize, min_insync_replicas: usize) -> usize {
    min_insync_replicas.max(majority(voters)).min(voters)
}

/// The largest value that at least `needed` of the values have reached; `None` where they are
/// fewer, or none is needed.
pub fn reached_by(needed: usize, values: impl Iterator<Item = i64> + Clone) -> Option<i64> {
    let has_reached = |value: i64| values.clone().filter(|other| *other >= value).count();
    values.clone().filter(|value| needed > 0 && has_reached(*value) >= needed).max()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// flushed ends, min.insync.replicas, what is committed
    const TABLE: &[(&[i64], usize, Option<i64>)] = &[
        (&[], 1, None),
        (&[7], 1, Some(7)),
        (&[7], 3, Some(7)),
        (&[7, 3], 1, Some(3)),
        (&[7, 3], 2, Some(3)),
        (&[7, 7], 9, Some(7)),
        (&[7, 3, 5], 0, Some(5)),
        (&[7, 3, 5], 1, Some(5)),
        (&[7, 3, 5], 2, Some(5)),
        (&[7, 3, 5], 3, Some(3)),
        (&[7, 3, 5], 4, Some(3)),
        (&[7, 7, 1], 2, Some(7)),
        (&[7, 3, 5, 9], 1, Some(5)),
        (&[7, 3, 5, 9], 4, Some(3)),
        (&[7, 3, 5, 9, 1], 1, Some(5)),
        (&[7, 3, 5, 9, 1], 3, Some(5)),
        (&[7, 3, 5, 9, 1], 4, Some(3)),
        (&[7, 3, 5, 9, 1], 5, Some(1)),
        (&[-1, 0, -1], 1, Some(-1)),
    ];

    #[test]
    fn golden_table() {
        for (ends, min_insync, committed) in TABLE {
            let needed = needed(ends.len(), *min_insync);
            let reached = reached_by(needed, ends.iter().copied());
            assert_eq!(reached, *committed, "{ends:?} min {min_insync}");
        }
    }

    #[test]
    fn majorities() {
        let majorities: Vec<usize> = (0..8).map(majority).collect();
        assert_eq!(majorities, [1, 1, 2, 2, 3, 3, 4, 4]);
    }
}
