//! What recovery would keep of a damaged log, found out without changing it.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::{Recovery, Walked};
use crate::error::{StorageError, StorageResult};
use crate::io::Disk;
use crate::layout;
use crate::log_checkpoint::LogCheckpoint;
use crate::producer_state::ProducerStates;
use crate::scan::FileScan;
use crate::segment::{Segment, SegmentCursor};

/// What accepting the loss leaves of a damaged log, and what it gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loss {
    /// The first offset that stays.
    pub log_start: i64,
    /// The log will end here: this offset and all behind it are given up.
    pub end: i64,
    /// Below this offset the log certainly had records. There may have been more.
    pub known_end: i64,
}

impl<D: Disk> Recovery<'_, D> {
    /// The end at which recovery would cut, were the damage accepted; and where the log ended as
    /// far as its files and the note say.
    pub(crate) async fn survey(&self, mut checkpoint: LogCheckpoint) -> StorageResult<Loss> {
        let files = self.list().await?;
        let log_start = checkpoint.log_start;
        let proved = checkpoint.proved().map_or(0, |proved| proved.next_offset);
        let last_base = files.segments.last().copied().unwrap_or(0);
        let known_end = proved.max(last_base).max(self.flushed_note.unwrap_or(0));
        let end = match self.first_unsound(&checkpoint).await? {
            Some(unsound) if unsound.len.is_none() => checkpoint.segments[unsound.at].base_offset,
            Some(unsound) => {
                checkpoint.distrust_from(unsound.at);
                self.provable_end(&checkpoint, files.segments).await?
            }
            None => self.provable_end(&checkpoint, files.segments).await?,
        };
        Ok(Loss { log_start: log_start.min(end), end, known_end: known_end.max(end) })
    }

    /// Walks from the proved point to the first batch that fails, changing nothing.
    async fn provable_end(
        &self,
        checkpoint: &LogCheckpoint,
        bases: Vec<i64>,
    ) -> StorageResult<i64> {
        let Some(proved) = checkpoint.proved().copied() else {
            return Err(StorageError::Corrupt(crate::error::Corruption {
                path: self.path(layout::CHECKPOINT),
                position: 0,
                offset: -1,
                what: "it names no segment".to_owned(),
            }));
        };
        let mut later: Vec<i64> =
            bases.into_iter().filter(|base| *base > proved.base_offset).collect();
        self.take_empty(&mut later).await?;
        let mut later = later.into_iter();
        let mut walked = Walked {
            segments: BTreeMap::new(),
            epochs: checkpoint.epochs.clone(),
            producers: ProducerStates::default(),
        };
        let mut segment = Segment::new(Rc::clone(&self.directory), proved, false, (0, 0));
        loop {
            let path = self.path(&layout::log_file(segment.base_offset));
            let mut scan = FileScan::open(&self.environment.disk, &path).await?;
            let failing = self.walk(&mut scan, &segment, &mut walked).await?;
            let end = segment.flushed.get();
            if failing.is_some() || later.next() != Some(end.next_offset) {
                return Ok(end.next_offset);
            }
            let fresh = SegmentCursor::new(end.next_offset, end.created_ms);
            segment = Segment::new(Rc::clone(&self.directory), fresh, false, (0, 0));
        }
    }
}
