//! Which segments may go. Pure decision.

use crate::options::LogOptions;

/// What the decision needs of a segment. The last one is the active segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentFacts {
    /// First offset.
    pub base_offset: i64,
    /// The offset behind its last batch.
    pub next_offset: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Its largest timestamp; where no batch has one, when it was begun.
    pub newest_ms: i64,
}

/// How many of the oldest segments go: those wholly below the log's start; and, where `options`
/// delete, those that are old or more than is to be kept. Nothing at or above `committed_end` goes
/// by age or size. Where the active one is among them, it is to be closed first (Kafka's rule); an
/// empty one never is.
pub fn segments_to_delete(
    segments: &[SegmentFacts],
    log_start: i64,
    committed_end: i64,
    options: &LogOptions,
    now_ms: i64,
) -> usize {
    let Some((active, closed)) = segments.split_last() else {
        return 0;
    };
    let is_below = |s: &SegmentFacts| s.next_offset <= log_start;
    let mut below_start = closed.iter().take_while(|s| is_below(s)).count();
    if below_start == closed.len() && is_below(active) && active.bytes > 0 {
        below_start += 1;
    }
    if !options.deletes {
        return below_start;
    }
    let may_go = |s: &SegmentFacts| s.next_offset <= committed_end && s.bytes > 0;
    let is_old = |s: &SegmentFacts| {
        let age = now_ms.saturating_sub(s.newest_ms);
        options.retention_ms.is_some_and(|limit| age > limit)
    };
    let old = segments.iter().take_while(|s| may_go(s) && is_old(s)).count();
    let total: u64 = segments.iter().map(|s| s.bytes).sum();
    let mut surplus = options.retention_bytes.map_or(0, |limit| total.saturating_sub(limit));
    let mut too_much = 0;
    for segment in closed.iter().chain([active]) {
        if !may_go(segment) || segment.bytes > surplus {
            break;
        }
        surplus -= segment.bytes;
        too_much += 1;
    }
    below_start.max(old).max(too_much)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Segments of ten offsets and 100 bytes; newest timestamps as given.
    fn segments(newest: &[i64]) -> Vec<SegmentFacts> {
        let facts = (0..).zip(newest).map(|(n, newest_ms)| SegmentFacts {
            base_offset: n * 10,
            next_offset: n * 10 + 10,
            bytes: 100,
            newest_ms: *newest_ms,
        });
        facts.collect()
    }

    fn options(retention_ms: Option<i64>, retention_bytes: Option<u64>) -> LogOptions {
        LogOptions { retention_ms, retention_bytes, ..LogOptions::default() }
    }

    #[test]
    fn age_counts_from_the_newest_batch_and_stops_at_the_first_that_stays() {
        let all = segments(&[10, 20, 90, 15]);
        let by_age = |now| segments_to_delete(&all, 0, 40, &options(Some(50), None), now);
        assert_eq!(by_age(60), 0);
        assert_eq!(by_age(61), 1);
        assert_eq!(by_age(100), 2);
        assert_eq!(by_age(1000), 4, "the active one, too");
        let committed = segments_to_delete(&all, 0, 29, &options(Some(50), None), 1000);
        assert_eq!(committed, 2);
        assert_eq!(segments_to_delete(&all, 0, 40, &options(None, None), 1000), 0);
    }

    #[test]
    fn size_keeps_at_least_the_limit() {
        let all = segments(&[0, 0, 0, 0]);
        let by_size = |limit| segments_to_delete(&all, 0, 40, &options(None, Some(limit)), 0);
        assert_eq!(by_size(400), 0);
        assert_eq!(by_size(301), 0);
        assert_eq!(by_size(300), 1);
        assert_eq!(by_size(100), 3);
        assert_eq!(by_size(0), 4);
    }

    #[test]
    fn a_log_that_does_not_delete_loses_only_what_is_below_its_start() {
        let all = segments(&[0, 0, 0]);
        let mut options = options(Some(1), Some(1));
        options.deletes = false;
        assert_eq!(segments_to_delete(&all, 0, 30, &options, 1000), 0);
        assert_eq!(segments_to_delete(&all, 19, 30, &options, 1000), 1);
        assert_eq!(segments_to_delete(&all, 20, 30, &options, 1000), 2);
        assert_eq!(segments_to_delete(&all, 30, 30, &options, 1000), 3, "the active one, too");
    }

    #[test]
    fn an_empty_active_segment_stays() {
        let mut all = segments(&[0, 0]);
        all[1].bytes = 0;
        all[1].next_offset = all[1].base_offset;
        assert_eq!(segments_to_delete(&all, 0, 20, &options(Some(1), None), 1000), 1);
        assert_eq!(segments_to_delete(&[], 0, 0, &options(Some(1), None), 1000), 0);
    }
}
