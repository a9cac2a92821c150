//! One file as a power failure would leave it: what is certain to be on disk, and nothing else.

use std::ops::Range;

use vltava_protocol::batch::Batch;

/// A file, as the requests to the rings have made it.
#[derive(Debug, Default)]
pub struct ShadowFile {
    changes: Vec<Change>,
    /// What all durable changes come to, in their order.
    image: Vec<u8>,
    newest_durable: Option<usize>,
    /// The batches of the image from its start, as far as they are whole.
    batches: Vec<FoundBatch>,
}

#[derive(Debug)]
struct Change {
    what: What,
    state: State,
}

#[derive(Debug)]
pub enum What {
    Write { position: usize, content: Vec<u8> },
    SetLength(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    UnderWay,
    /// The kernel has it, and a power failure takes it.
    Written,
    Durable,
    Failed,
}

/// A batch that is on disk.
#[derive(Clone, Debug)]
pub struct FoundBatch {
    pub base_offset: i64,
    pub next_offset: i64,
    pub range: Range<usize>,
}

impl ShadowFile {
    /// Something is to be changed: its number.
    pub fn begin(&mut self, what: What) -> usize {
        self.changes.push(Change { what, state: State::UnderWay });
        self.changes.len() - 1
    }

    /// A change is done. Of a write, so many bytes.
    pub fn done(&mut self, change: usize, result: i32, is_durable: bool) {
        let Ok(len) = usize::try_from(result) else {
            self.changes[change].state = State::Failed;
            return;
        };
        if let What::Write { content, .. } = &mut self.changes[change].what {
            content.truncate(len);
        }
        self.changes[change].state = State::Written;
        if is_durable {
            self.make_durable(&[change]);
        }
    }

    /// What a sync that begins now makes durable.
    pub fn written(&self) -> Vec<usize> {
        let written = self.changes.iter().enumerate();
        written.filter(|(_, change)| change.state == State::Written).map(|(at, _)| at).collect()
    }

    /// These changes cannot be lost any more.
    pub fn make_durable(&mut self, changes: &[usize]) {
        for at in changes {
            let change = &mut self.changes[*at];
            if change.state != State::Written {
                continue;
            }
            change.state = State::Durable;
            if self.newest_durable.is_none_or(|newest| newest < *at) {
                self.newest_durable = Some(*at);
                self.apply(*at);
                continue;
            }
            // Older than what is there: all over again.
            self.image.clear();
            self.batches.clear();
            let changes = 0..self.changes.len();
            for at in
                changes.filter(|at| self.changes[*at].state == State::Durable).collect::<Vec<_>>()
            {
                self.apply(at);
            }
        }
    }

    fn apply(&mut self, at: usize) {
        match &self.changes[at].what {
            What::Write { position, content } => {
                let end = position + content.len();
                if self.image.len() < end {
                    self.image.resize(end, 0);
                }
                self.image[*position..end].copy_from_slice(content);
            }
            What::SetLength(len) => {
                self.image.resize(*len, 0);
                self.batches.retain(|batch| batch.range.end <= *len);
            }
        }
    }

    /// Whether all that was asked for is on disk.
    pub fn is_whole(&self) -> bool {
        let settled = |change: &Change| matches!(change.state, State::Durable | State::Failed);
        self.changes.iter().all(settled)
    }

    /// What [`Self::find_batches`] found.
    pub fn batches(&self) -> &[FoundBatch] {
        &self.batches
    }

    /// What is certain to be on disk.
    pub fn image(&self) -> &[u8] {
        &self.image
    }

    /// The batches that recovery would find: whole, one behind the other, from the file's start.
    /// From now on nothing may change them.
    pub fn find_batches(&mut self) -> &[FoundBatch] {
        loop {
            let last = self.batches.last();
            let (position, offset) = last.map_or((0, None), |b| (b.range.end, Some(b.next_offset)));
            let Ok((batch, _)) = Batch::parse(&self.image[position..]) else {
                return &self.batches;
            };
            let continues = offset.is_none_or(|offset| offset == batch.base_offset());
            if !continues || batch.check_crc().is_err() {
                return &self.batches;
            }
            self.batches.push(FoundBatch {
                base_offset: batch.base_offset(),
                next_offset: batch.next_offset(),
                range: position..position + batch.batch_bytes(),
            });
        }
    }

    /// Whether a change leaves alone what somebody may rely upon: the batches that were found.
    pub fn spares_batches(&self, what: &What) -> bool {
        let relied_upon = self.batches.last().map_or(0, |batch| batch.range.end);
        match what {
            What::Write { position, content } => {
                let end = (position + content.len()).min(relied_upon);
                let start = (*position).min(end);
                self.image[start..end] == content[..end - start]
            }
            What::SetLength(len) => *len >= relied_upon,
        }
    }
}
