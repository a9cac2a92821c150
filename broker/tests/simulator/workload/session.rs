//! A client's side of an incremental fetch session (KIP-227): what the node remembers of it, and so
//! what need not be said again.

use std::collections::BTreeMap;

use super::fetch::Floors;
use crate::checkers::Partition;
use crate::promise;

/// What the node should remember of a partition.
struct Known {
    position: i64,
    /// The leader's, as it was named; -1: none.
    epoch: i32,
    /// High watermark and log start as they were told last, if not an error.
    told: Option<(i64, i64)>,
}

/// What a request says of a session.
pub struct Asked {
    /// Its id; 0: a new one.
    pub id: i32,
    /// Its epoch; 0: a new one; -1: none.
    pub epoch: i32,
    /// Partitions that are named, with positions.
    pub named: BTreeMap<i32, i64>,
    /// Partitions that are fetched no more.
    pub forgotten: Vec<i32>,
}

/// A session.
#[derive(Default)]
pub struct Session {
    id: i32,
    epoch: i32,
    by_id: bool,
    known: BTreeMap<i32, Known>,
}

impl Session {
    /// What to ask for; notes that it was asked. A session goes on with names or with ids as it
    /// began. `epochs` are those of the leaders.
    pub fn ask(
        &mut self,
        positions: &BTreeMap<i32, i64>,
        epochs: &BTreeMap<i32, i32>,
        by_id: bool,
    ) -> Asked {
        let epoch_of = |index: &i32| epochs.get(index).copied().unwrap_or(-1);
        if self.by_id != by_id {
            self.epoch = 0;
        }
        self.by_id = by_id;
        if self.epoch == 0 {
            self.known.clear();
        }
        let is_known = |index: &i32, position: i64| {
            let known = self.known.get(index);
            known.is_some_and(|it| (it.position, it.epoch) == (position, epoch_of(index)))
        };
        let named: BTreeMap<i32, i64> = positions
            .iter()
            .filter(|&(index, &position)| !is_known(index, position))
            .map(|(&index, &position)| (index, position))
            .collect();
        let all = self.known.keys().copied();
        let forgotten: Vec<i32> = all.filter(|index| !positions.contains_key(index)).collect();
        for index in &forgotten {
            self.known.remove(index);
        }
        for (&index, &position) in &named {
            let told = self.known.get(&index).and_then(|known| known.told);
            self.known.insert(index, Known { position, epoch: epoch_of(&index), told });
        }
        Asked { id: self.id, epoch: self.epoch, named, forgotten }
    }

    /// The answer, if any, was lost, or the node knows the session no more: it begins anew, and
    /// ends the old one.
    pub fn restart(&mut self) {
        self.epoch = 0;
    }

    /// An answer told this of a partition; `None`: an error.
    pub fn tell(&mut self, index: i32, told: Option<(i64, i64)>) {
        if let Some(known) = self.known.get_mut(&index) {
            known.told = told;
        }
    }

    /// Whether the leader did not know the high watermark, or the log's start, when it told of this
    /// partition last.
    pub fn was_told_nothing(&self, index: i32) -> bool {
        let told = self.known.get(&index).and_then(|known| known.told);
        told.is_some_and(|(high_watermark, start)| high_watermark.max(start) == i64::MAX)
    }

    /// An answer left this partition out: then nothing was new of it, whatever was known when it
    /// was asked for.
    pub fn check_left_out(&self, partition: &Partition, floors: &Floors) {
        promise!(self.epoch > 0, "{partition:?} is missing from a full answer");
        let told = self.known.get(&partition.1).and_then(|known| known.told);
        let Some((high_watermark, log_start)) = told else {
            promise!(false, "{partition:?}: a session leaves out what it never told");
            return;
        };
        promise!(
            high_watermark >= floors.high_watermark && log_start >= floors.log_start,
            "{partition:?}: a session told {log_start}..{high_watermark} last, and leaves out \
             {}..{}",
            floors.log_start,
            floors.high_watermark
        );
    }

    /// The whole answer was taken in; it named this session (0: none).
    pub fn answered(&mut self, id: i32) {
        promise!(
            self.epoch == 0 || id == self.id,
            "session {} was answered as session {id}",
            self.id
        );
        self.id = id;
        self.epoch = if id == 0 { 0 } else { self.epoch + 1 };
    }
}
