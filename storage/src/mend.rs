//! Batches that are not what was written, in their file again as another replica has them.

use crate::error::{Corruption, StorageError, StorageResult};
use crate::header::{AppendBatch, ReplicatedBatches};
use crate::io::{AlignedBuffer, BLOCK_BYTES, Disk, Durability, File, OpenMode, block_start};
use crate::scan::FileScan;
use crate::segment::{Segment, SegmentCursor};
use crate::state::LogInner;

impl<D: Disk> LogInner<D> {
    pub(crate) async fn mend(
        &self,
        damage: &Corruption,
        batches: &ReplicatedBatches,
    ) -> StorageResult<Option<i64>> {
        // Nothing is written, cut or closed meanwhile.
        let _writer = self.writer.lock().await;
        let _files = self.files.lock().await;
        self.state.borrow().check_open()?;
        let segment = self.state.borrow().segment_of(damage.offset);
        let is_its = |segment: &Segment<D>| segment.log_path() == damage.path;
        let Some(segment) = segment.filter(|segment| is_its(segment)) else {
            return Ok(None);
        };
        let end = segment.flushed.get();
        let (bytes, next) = self.replacement(damage, batches.batches(), end).await?;
        if bytes.is_empty() {
            return Ok(None);
        }
        // The last block of the active file is written again as it fills, with what is in memory of
        // it, or was proved when it was read: with the same as is written now.
        self.end_zeros().await?;
        // What stood beside the damage is written again, too, and was acknowledged.
        self.write_over(damage, &bytes).await.map_err(|error| self.fail(error))?;
        self.environment.chunks.forget_segment(segment.number(&self.environment.chunks));
        Ok(Some(next))
    }

    /// What is to be written at the damage, and the offset behind it.
    async fn replacement(
        &self,
        damage: &Corruption,
        batches: &[AppendBatch],
        end: SegmentCursor,
    ) -> StorageResult<(Vec<u8>, i64)> {
        let mut scan = FileScan::open_past_cache(&self.environment.disk, &damage.path).await?;
        let (mut bytes, mut next) = (Vec::new(), damage.offset);
        if scan.len() < damage.position {
            return Ok((bytes, next));
        }
        for batch in batches {
            let (position, facts) = (damage.position + bytes.len() as u64, batch.facts());
            let behind = position + batch.batch_bytes() as u64;
            if behind > end.position {
                break;
            }
            // In front of the log's start nothing is known.
            let known = self.state.borrow().epochs.epoch_at(facts.base_offset);
            let is_last = behind == end.position;
            let fits = facts.base_offset == next
                && known.is_none_or(|known| known == facts.leader_epoch)
                && is_last == (facts.next_offset() == end.next_offset);
            if !fits {
                // They are not what stood there.
                return Ok((Vec::new(), next));
            }
            let (header, rest) = batch.pieces();
            bytes.extend_from_slice(header);
            bytes.extend_from_slice(rest);
            next = facts.next_offset();
            let is_sound_behind = match scan.header(behind).await? {
                Ok(header) => header.base_offset == next && scan.check_crc(behind, &header).await?,
                Err(_) => false,
            };
            if is_last || is_sound_behind {
                break;
            }
        }
        Ok((bytes, next))
    }

    /// Writes the blocks that these bytes lie in, with what stands around them, durably.
    async fn write_over(&self, damage: &Corruption, bytes: &[u8]) -> StorageResult<()> {
        let disk = &self.environment.disk;
        let start = block_start(damage.position);
        let behind = damage.position + bytes.len() as u64;
        let blocks_end = behind.next_multiple_of(BLOCK_BYTES as u64);
        let mut scan = FileScan::open_past_cache(disk, &damage.path).await?;
        let len = scan.len();
        let count = |from: u64, to: u64| usize::try_from(to.saturating_sub(from)).unwrap_or(0);
        let (before, after) = (count(start, damage.position), count(behind, blocks_end.min(len)));
        let mut buffer = AlignedBuffer::new(count(start, blocks_end));
        let head = scan.bytes(start, before).await?;
        buffer.append(&head[..before.min(head.len())]);
        buffer.append(bytes);
        let tail = scan.bytes(behind, after).await?;
        buffer.append(&tail[..after.min(tail.len())]);
        let filled = buffer.filled();
        let file = disk.open(&damage.path, OpenMode::Write).await;
        let file = file.map_err(StorageError::from_read)?;
        let written = file.write_at(buffer.blocks(0..filled), start, Durability::Flushed).await;
        written.map_err(StorageError::from_write)?;
        if blocks_end > len {
            file.set_len(len.max(behind)).await.map_err(StorageError::from_write)?;
            file.sync().await.map_err(StorageError::from_sync)?;
        }
        Ok(())
    }
}
