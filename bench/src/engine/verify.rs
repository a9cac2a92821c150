//! Whether what a reader receives is what was sent: all of it, once, in order, whole.
//!
//! Pure. Knows for each producer and partition which record comes next, and of those that did not
//! come in their turn a bounded number of gaps.

use crate::engine::map::index;
use crate::engine::payload::Seen;
use crate::engine::queue::Acknowledged;

/// Gaps that are remembered of one producer in one partition. What comes late into one that is
/// forgotten counts as repeated.
const GAPS_MAX: usize = 256;

/// One producer's records in one partition.
#[derive(Clone, Debug, Default)]
struct Stream {
    next: u64,
    /// What was passed over: first sequence, and the one behind the last.
    gaps: Vec<(u64, u64)>,
    has_begun: bool,
    /// Records before the first one that came, where the log begins later.
    before: u64,
}

#[derive(Clone, Debug, Default)]
struct Partition {
    /// By the producer's number.
    streams: Vec<Stream>,
    bare: u64,
    /// Where its log begins, if that is not at its first record: so many records are gone at most.
    begins_at: Option<u64>,
}

/// What one reader has received.
#[derive(Clone, Debug)]
pub struct Verifier {
    partitions: Vec<Partition>,
    producers: u32,
    counts: Counts,
}

/// What was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Records received.
    pub received: u64,
    /// Of them, such as had been received before.
    pub repeated: u64,
    /// Such as came behind a later one.
    pub out_of_order: u64,
    /// Such as are not what was sent.
    pub corrupt: u64,
    /// Such as came with another timestamp than they were sent with.
    pub restamped: u64,
    /// Records acknowledged, that were to be received.
    pub expected: u64,
    /// Of them, such as never came.
    pub missing: u64,
    /// Received ones that nobody had acknowledged.
    pub surplus: u64,
}

impl Verifier {
    /// For a reader of so many partitions, written by producers with numbers below `producers`.
    pub fn new(partition_count: usize, producers: u32) -> Self {
        let partitions = vec![Partition::default(); partition_count];
        Self { partitions, producers, counts: Counts::default() }
    }

    /// The log of this partition begins at this offset, not with its first record: what was before
    /// is not missed, but no more than there are offsets before.
    pub fn begins_late(&mut self, partition: u32, offset: u64) {
        if let Some(partition) = self.partitions.get_mut(index(partition)) {
            partition.begins_at = Some(offset);
        }
    }

    /// A record has come with another timestamp than it was sent with; [`Self::on_record`] is told
    /// of it, too.
    pub fn on_restamped(&mut self) {
        self.counts.restamped += 1;
    }

    /// A record has come.
    pub fn on_record(&mut self, partition: u32, seen: Seen) {
        self.counts.received += 1;
        let Some(state) = self.partitions.get_mut(index(partition)) else {
            self.counts.corrupt += 1;
            return;
        };
        let (producer, sequence) = match seen {
            Seen::Whole { producer, sequence, .. } | Seen::Placed { producer, sequence }
                if producer < self.producers =>
            {
                (producer, sequence)
            }
            Seen::Bare => {
                state.bare += 1;
                return;
            }
            _ => {
                self.counts.corrupt += 1;
                return;
            }
        };
        if state.streams.len() <= index(producer) {
            state.streams.resize(index(producer) + 1, Stream::default());
        }
        let begins_late = state.begins_at.is_some();
        let stream = &mut state.streams[index(producer)];
        if !std::mem::replace(&mut stream.has_begun, true) && begins_late {
            stream.before = sequence;
            stream.next = sequence;
        }
        if sequence == stream.next {
            stream.next += 1;
        } else if sequence > stream.next {
            stream.pass_over(sequence);
        } else if stream.fill(sequence) {
            self.counts.out_of_order += 1;
        } else {
            self.counts.repeated += 1;
        }
    }

    /// Compares with what was acknowledged: producer, partition, and how much.
    pub fn finish(self, acknowledged: impl Iterator<Item = (u32, u32, Acknowledged)>) -> Counts {
        let mut counts = self.counts;
        let (mut placed, mut bare) = (0, vec![0; self.partitions.len()]);
        // What is taken to be gone, by partition.
        let mut gone = vec![0; self.partitions.len()];
        for (producer, partition, of) in acknowledged {
            let Some(state) = self.partitions.get(index(partition)) else {
                continue;
            };
            bare[index(partition)] += of.bare;
            let unseen = Stream::default();
            let stream = state.streams.get(index(producer)).unwrap_or(&unseen);
            let before = match state.begins_at {
                Some(_) if stream.has_begun => stream.before.min(of.sequence_end),
                Some(_) => of.sequence_end,
                None => 0,
            };
            gone[index(partition)] += before;
            placed += of.sequence_end.saturating_sub(before);
            counts.expected += of.sequence_end - before;
            let gaps: u64 = stream.gaps.iter().map(|(first, end)| end - first).sum();
            let tail = of.sequence_end.saturating_sub(stream.next.max(before));
            counts.missing += gaps + tail;
        }
        for ((state, bare), gone) in self.partitions.iter().zip(bare).zip(gone) {
            // Nobody can tell which ones are gone where the log begins late.
            let expected = if state.begins_at.is_some() { state.bare.min(bare) } else { bare };
            counts.expected += expected;
            counts.missing += expected.saturating_sub(state.bare);
            if let Some(begins_at) = state.begins_at {
                let unseen = (gone + bare - expected).saturating_sub(begins_at);
                counts.expected += unseen;
                counts.missing += unseen;
            }
        }
        let distinct = counts.received - counts.repeated - counts.corrupt;
        counts.surplus = (distinct + counts.missing).saturating_sub(counts.expected);
        debug_assert!(placed <= counts.expected, "{placed} of {counts:?}");
        counts
    }

    /// Takes in what another has received of the same: members of a group, of which each has read a
    /// partition for a while. What both have received has come again; in which order they have,
    /// nobody knows.
    pub fn merge(&mut self, other: Self) {
        for (mine, theirs) in self.partitions.iter_mut().zip(other.partitions) {
            mine.bare += theirs.bare;
            if mine.streams.len() < theirs.streams.len() {
                mine.streams.resize(theirs.streams.len(), Stream::default());
            }
            for (mine, theirs) in mine.streams.iter_mut().zip(&theirs.streams) {
                self.counts.repeated += mine.merge(theirs);
            }
        }
        self.counts.received += other.counts.received;
        self.counts.repeated += other.counts.repeated;
        self.counts.out_of_order += other.counts.out_of_order;
        self.counts.corrupt += other.counts.corrupt;
        self.counts.restamped += other.counts.restamped;
    }
}

impl Stream {
    /// Takes in what another has seen: how much of that had been seen here.
    fn merge(&mut self, other: &Self) -> u64 {
        let (mine, theirs) = (self.seen(), other.seen());
        let next = self.next.max(other.next);
        let unseen = |gaps: &[(u64, u64)], end: u64| {
            let mut gaps = Vec::from(gaps);
            gaps.push((end, next));
            gaps
        };
        let (ours, others) = (unseen(&self.gaps, self.next), unseen(&other.gaps, other.next));
        let mut both = Vec::new();
        for (first, end) in ours {
            let parts = others.iter().map(|(from, to)| (first.max(*from), end.min(*to)));
            both.extend(parts.filter(|(first, end)| first < end));
        }
        self.gaps = both;
        self.next = next;
        self.has_begun |= other.has_begun;
        mine + theirs - self.seen()
    }

    /// How many records have come, each counted once.
    fn seen(&self) -> u64 {
        let missed: u64 = self.gaps.iter().map(|(first, end)| end - first).sum();
        self.next - missed
    }

    /// A record came before those that should have come first.
    fn pass_over(&mut self, sequence: u64) {
        if self.gaps.len() == GAPS_MAX {
            // The oldest two become one: what lies between them is then missed, too.
            let (_, end) = self.gaps.remove(1);
            self.gaps[0].1 = end;
        }
        self.gaps.push((self.next, sequence));
        self.next = sequence + 1;
    }

    /// A record came that had been passed over: whether it had.
    fn fill(&mut self, sequence: u64) -> bool {
        let holds = |(first, end): &(u64, u64)| *first <= sequence && sequence < *end;
        let Some(place) = self.gaps.iter().position(holds) else {
            return false;
        };
        let (first, end) = self.gaps[place];
        let pieces = [(first, sequence), (sequence + 1, end)];
        self.gaps.splice(place..=place, pieces.into_iter().filter(|(first, end)| first < end));
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(producer: u32, sequence: u64) -> Seen {
        Seen::Whole { producer, sequence, intended_ns: 0 }
    }

    fn after(sequences: &[u64], acknowledged: u64) -> Counts {
        let mut verifier = Verifier::new(2, 3);
        sequences.iter().for_each(|sequence| verifier.on_record(1, seen(2, *sequence)));
        let of = Acknowledged { sequence_end: acknowledged, bare: 0 };
        verifier.finish([(2, 1, of)].into_iter())
    }

    #[test]
    fn all_once_and_in_order_is_all_there_is_to_say() {
        let counts = Counts { received: 3, expected: 3, ..Counts::default() };
        assert_eq!(after(&[0, 1, 2], 3), counts);
    }

    #[test]
    fn what_is_missing_is_missed_wherever_it_was() {
        assert_eq!(after(&[], 2).missing, 2);
        assert_eq!(after(&[1, 2], 3).missing, 1);
        assert_eq!(after(&[0, 2], 3).missing, 1);
        assert_eq!(after(&[0, 1], 3).missing, 1);
        let many: Vec<u64> = (0..2000).map(|sequence| sequence * 2 + 1).collect();
        assert!(after(&many, 4000).missing >= 2000, "gaps beyond the bound are missed, too");
    }

    #[test]
    fn what_comes_again_or_late_is_counted_as_that() {
        let again = after(&[0, 1, 1, 0, 2], 3);
        assert_eq!((again.repeated, again.missing, again.out_of_order), (2, 0, 0));
        let late = after(&[0, 3, 2, 1, 4], 5);
        assert_eq!((late.repeated, late.missing, late.out_of_order), (0, 0, 2));
        assert_eq!(after(&[0, 3, 2, 2, 1, 4], 5).repeated, 1);
    }

    #[test]
    fn strangers_and_torn_records_are_corrupt() {
        let mut verifier = Verifier::new(1, 3);
        verifier.on_record(0, seen(3, 0));
        verifier.on_record(0, Seen::Corrupt);
        verifier.on_record(9, seen(0, 0));
        assert_eq!(verifier.finish(std::iter::empty()).corrupt, 3);
    }

    #[test]
    fn records_that_say_nothing_are_counted() {
        let mut verifier = Verifier::new(2, 1);
        verifier.on_record(0, Seen::Bare);
        verifier.on_record(0, Seen::Bare);
        let of = |bare| Acknowledged { sequence_end: 0, bare };
        let counts = verifier.clone().finish([(0, 0, of(2)), (0, 1, of(1))].into_iter());
        assert_eq!((counts.missing, counts.surplus, counts.expected), (1, 0, 3));
        assert_eq!(verifier.finish([(0, 0, of(1))].into_iter()).surplus, 1);
    }

    #[test]
    fn where_the_log_begins_late_only_what_is_behind_is_expected() {
        let mut verifier = Verifier::new(2, 2);
        verifier.begins_late(0, 18);
        verifier.on_record(0, seen(0, 7));
        verifier.on_record(0, seen(0, 9));
        let of = Acknowledged { sequence_end: 11, bare: 0 };
        let counts = verifier.finish([(0, 0, of), (1, 0, of)].into_iter());
        assert_eq!((counts.expected, counts.missing), (4, 2));
    }

    #[test]
    fn no_more_is_gone_than_there_are_offsets_before_the_log() {
        let of = Acknowledged { sequence_end: 11, bare: 2 };
        let mut verifier = Verifier::new(1, 1);
        verifier.begins_late(0, 5);
        let counts = verifier.clone().finish([(0, 0, of)].into_iter());
        assert_eq!((counts.expected, counts.missing), (8, 8), "nothing came");
        verifier.on_record(0, seen(0, 10));
        let counts = verifier.clone().finish([(0, 0, of)].into_iter());
        assert_eq!((counts.expected, counts.missing, counts.surplus), (8, 7, 0));
        (3..10).for_each(|sequence| verifier.on_record(0, seen(0, sequence)));
        verifier.on_record(0, Seen::Bare);
        assert!(verifier.finish([(0, 0, of)].into_iter()).missing > 0, "what came late was missed");
    }

    #[test]
    fn what_was_never_acknowledged_is_surplus() {
        assert_eq!(after(&[0, 1, 2], 2).surplus, 1);
    }

    #[test]
    fn members_that_take_over_from_each_other_have_read_it_all_together() {
        let read = |sequences: &[u64]| {
            let mut verifier = Verifier::new(1, 3);
            sequences.iter().for_each(|sequence| verifier.on_record(0, seen(2, *sequence)));
            verifier
        };
        let together = |parts: &[&[u64]]| {
            let mut whole = read(&[]);
            parts.iter().for_each(|part| whole.merge(read(part)));
            let of = Acknowledged { sequence_end: 8, bare: 0 };
            whole.finish([(2, 0, of)].into_iter())
        };
        let all = Counts { received: 8, expected: 8, ..Counts::default() };
        assert_eq!(together(&[&[0, 1, 2, 6, 7], &[3, 4, 5]]), all);
        assert_eq!(together(&[&[3, 4, 5], &[6, 7], &[0, 1, 2]]), all);
        let again = together(&[&[0, 1, 2, 3, 4], &[3, 4, 5, 6, 7]]);
        assert_eq!((again.repeated, again.missing, again.surplus), (2, 0, 0));
        let less = together(&[&[0, 1, 2], &[5, 6]]);
        assert_eq!((less.repeated, less.missing), (0, 3));
    }
}
