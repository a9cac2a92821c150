//! Which offset enough voters have flushed.

/// The first offset that is *not* flushed on `needed` of the voters, given each voter's flushed
/// end.
///
/// `needed` is at least a majority, and more where `min.insync.replicas` asks for it; it is capped
/// by the number of voters, as Kafka caps it. No voters: nothing is ever committed.
pub fn flushed_on(flushed_ends: &[i64], min_insync_replicas: usize) -> Option<i64> {
    let majority = flushed_ends.len() / 2 + 1;
    let needed = min_insync_replicas.max(majority).min(flushed_ends.len());
    let mut ends = flushed_ends.to_vec();
    ends.sort_unstable();
    ends.iter().rev().nth(needed.checked_sub(1)?).copied()
}

#[cfg(test)]
mod tests {
    use super::flushed_on;

    /// flushed ends, min.insync.replicas, what is committed
    const TABLE: &[(&[i64], usize, Option<i64>)] = &[
        (&[], 1, None),
        (&[7], 1, Some(7)),
        (&[7], 3, Some(7)),
        (&[7, 3], 1, Some(3)),
        (&[7, 3, 5], 1, Some(5)),
        (&[7, 3, 5], 2, Some(5)),
        (&[7, 3, 5], 3, Some(3)),
        (&[7, 3, 5, 9, 1], 1, Some(5)),
        (&[7, 3, 5, 9, 1], 4, Some(3)),
    ];

    #[test]
    fn golden_table() {
        for (ends, min_insync, committed) in TABLE {
            assert_eq!(flushed_on(ends, *min_insync), *committed, "{ends:?} min {min_insync}");
        }
    }
}
