//! Which leader epoch begins at which offset (KIP-101). Pure.
//!
//! Holds what the batches say: the epoch of each batch, at the first offset that has it. Both
//! columns only rise.

/// The epochs of one log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeaderEpochs {
    /// (epoch, offset of its first batch), both rising.
    entries: Vec<(i32, i64)>,
}

/// Until where an epoch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochEnd {
    /// The largest epoch at or below the one asked for.
    pub epoch: i32,
    /// The offset behind its last batch.
    pub end_offset: i64,
}

impl LeaderEpochs {
    /// From what a checkpoint holds; `None` where it does not rise.
    pub fn from_entries(entries: Vec<(i32, i64)>) -> Option<Self> {
        let rises = entries.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 < pair[1].1);
        rises.then_some(Self { entries })
    }

    /// All (epoch, start offset), oldest first.
    pub fn entries(&self) -> &[(i32, i64)] {
        &self.entries
    }

    /// The newest epoch that has a batch.
    pub fn latest(&self) -> Option<i32> {
        self.entries.last().map(|entry| entry.0)
    }

    /// A batch of this epoch stands at this offset, behind all others. True where the epoch is new.
    /// An epoch below that of the batch before is left out: it can begin nothing.
    pub fn assign(&mut self, epoch: i32, offset: i64) -> bool {
        match self.entries.last_mut() {
            _ if epoch < 0 => false,
            Some(last) if epoch == last.0 => false,
            // The newest epoch had begun here and has no batch left: it was cut away with them, and
            // what takes their place may be older, of another leader.
            Some(last) if offset <= last.1 => {
                *last = (epoch, last.1.min(offset));
                true
            }
            Some((latest, _)) if epoch < *latest => false,
            _ => {
                self.entries.push((epoch, offset));
                true
            }
        }
    }

    /// The epoch of the batch at this offset.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let behind = self.entries.partition_point(|entry| entry.1 <= offset);
        behind.checked_sub(1).map(|at| self.entries[at].0)
    }

    /// Where `epoch` ended: the start of the first larger epoch, or `log_end` for the newest. The
    /// epoch in the answer is the largest that is not larger. `None` for an epoch that is newer
    /// than all, or where nothing is known (KIP-101's UNDEFINED). An epoch older than all: itself,
    /// ending where the oldest begins (as Kafka answers).
    pub fn end_of(&self, epoch: i32, log_end: i64) -> Option<EpochEnd> {
        let behind = self.entries.partition_point(|entry| entry.0 <= epoch);
        let Some(next) = self.entries.get(behind) else {
            let latest = self.latest()?;
            return (latest == epoch).then_some(EpochEnd { epoch, end_offset: log_end });
        };
        let epoch = behind.checked_sub(1).map_or(epoch, |at| self.entries[at].0);
        Some(EpochEnd { epoch, end_offset: next.1 })
    }

    /// The log now ends at `end`: epochs that began at or behind it are gone. Where nothing is left
    /// behind `start`, the one that stands there stays: what a log has had is all that says which
    /// epoch comes next, and clients take no smaller one.
    pub fn truncate(&mut self, end: i64, start: i64) {
        let is_kept = |at: i64| at < end || (at == end && end == start);
        let kept = self.entries.partition_point(|entry| is_kept(entry.1));
        self.entries.truncate(kept);
    }

    /// The log now starts at `start`: epochs that ended before are gone, and the one at `start`
    /// begins there.
    pub fn cut_front(&mut self, start: i64) {
        let behind = self.entries.partition_point(|entry| entry.1 <= start);
        if behind > 0 {
            self.entries.drain(..behind - 1);
            self.entries[0].1 = start;
        }
    }

    /// Kafka's text: version, count, one line for each epoch.
    pub fn to_text(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            text.push_str(&format!("{epoch} {start}\n"));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> LeaderEpochs {
        LeaderEpochs::from_entries(entries.to_vec()).unwrap()
    }

    fn end(epoch: i32, end_offset: i64) -> Option<EpochEnd> {
        Some(EpochEnd { epoch, end_offset })
    }

    #[test]
    fn an_epoch_ends_where_the_next_begins() {
        let epochs = epochs(&[(2, 10), (4, 20), (5, 30)]);
        assert_eq!(epochs.end_of(2, 99), end(2, 20));
        assert_eq!(epochs.end_of(3, 99), end(2, 20));
        assert_eq!(epochs.end_of(4, 99), end(4, 30));
        assert_eq!(epochs.end_of(5, 99), end(5, 99));
        assert_eq!(epochs.end_of(6, 99), None);
        assert_eq!(epochs.end_of(1, 99), end(1, 10));
        assert_eq!(LeaderEpochs::default().end_of(0, 99), None);
    }

    #[test]
    fn only_new_epochs_are_assigned() {
        let mut epochs = LeaderEpochs::default();
        assert!(!epochs.assign(-1, 0));
        assert!(epochs.assign(1, 0));
        assert!(!epochs.assign(1, 5));
        assert!(epochs.assign(3, 7));
        assert!(!epochs.assign(2, 9));
        assert!(epochs.assign(4, 7));
        assert_eq!(epochs.entries(), &[(1, 0), (4, 7)]);
        assert_eq!(epochs.epoch_at(6), Some(1));
        assert_eq!(epochs.epoch_at(7), Some(4));
        assert_eq!(epochs.epoch_at(-1), None);
    }

    #[test]
    fn what_has_no_batch_left_gives_way_to_an_older_epoch() {
        let mut epochs = epochs(&[(5, 10)]);
        epochs.truncate(10, 10);
        assert_eq!((epochs.latest(), epochs.epoch_at(9)), (Some(5), None));
        assert!(!epochs.assign(5, 10));
        assert!(epochs.assign(3, 10));
        assert!(!epochs.assign(2, 11));
        assert!(epochs.assign(6, 12));
        assert_eq!(epochs.entries(), &[(3, 10), (6, 12)]);
    }

    #[test]
    fn both_ends_can_be_cut() {
        let mut epochs = epochs(&[(2, 10), (4, 20), (5, 30)]);
        epochs.truncate(30, 0);
        assert_eq!(epochs.entries(), &[(2, 10), (4, 20)]);
        epochs.cut_front(15);
        assert_eq!(epochs.entries(), &[(2, 15), (4, 20)]);
        epochs.cut_front(20);
        assert_eq!(epochs.entries(), &[(4, 20)]);
        epochs.cut_front(5);
        assert_eq!(epochs.entries(), &[(4, 20)]);
        // Cut from both ends until nothing is left: the epoch is remembered.
        epochs.cut_front(40);
        epochs.truncate(40, 40);
        assert_eq!(epochs.entries(), &[(4, 40)]);
        epochs.truncate(0, -1);
        assert_eq!(epochs.entries(), &[]);
    }

    #[test]
    fn the_text_is_kafkas() {
        assert_eq!(epochs(&[(0, 0), (3, 17)]).to_text(), "0\n2\n0 0\n3 17\n");
        assert!(LeaderEpochs::from_entries(vec![(1, 5), (1, 6)]).is_none());
        assert!(LeaderEpochs::from_entries(vec![(1, 5), (2, 5)]).is_none());
    }
}
