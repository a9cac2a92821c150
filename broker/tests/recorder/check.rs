//! The checker: each answer that promises something was sent only when what it promises would have
//! survived a power failure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use vltava::runtime::Operation;

use crate::shadow::Shadow;
use crate::tape::Event;

/// Names an answer: to whom, and its correlation id.
pub type AnswerId = (SocketAddr, i32);

/// What an answer tells its client that it need not fear for.
#[derive(Clone, Debug)]
pub enum Promise {
    /// A batch with these bytes in it stands at this offset of a log.
    Batch { directory: String, base_offset: i64, bytes: Vec<u8> },
    /// So many batches hold these bytes, in a log whose directory's name begins so.
    Noted { prefix: &'static str, bytes: Vec<u8>, batches: usize },
    /// A log begins here or later.
    LogStart { directory: String, offset: i64 },
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// What must not be, in words.
    pub violations: Vec<String>,
    /// Promises that were found to be kept.
    pub kept: usize,
}

impl Report {
    /// Whether a violation says this.
    pub fn says(&self, words: &str) -> bool {
        self.violations.iter().any(|violation| violation.contains(words))
    }
}

/// Checks a recording from an empty data directory to an orderly stop.
pub fn check(events: &[Event], promises: &BTreeMap<AnswerId, Promise>) -> Report {
    let mut shadow = Shadow::default();
    let mut streams = Streams::default();
    let mut report = Report::default();
    for event in events {
        for answer in streams.take_in(event) {
            let Some(promise) = promises.get(&answer) else {
                continue;
            };
            match keeps(&mut shadow, promise) {
                Ok(()) => report.kept += 1,
                Err(why) => report.violations.push(format!("answered too early: {why}")),
            }
        }
        shadow.take_in(event);
    }
    shadow.check_end();
    let unseen = promises.iter().filter(|(answer, _)| !streams.begun.contains(*answer));
    let unseen = unseen.map(|(answer, _)| format!("no answer {answer:?} in the recording"));
    report.violations.extend(unseen);
    report.violations.append(&mut shadow.violations);
    report
}

/// Whether a power failure now would leave what is promised.
fn keeps(shadow: &mut Shadow, promise: &Promise) -> Result<(), String> {
    match promise {
        Promise::Batch { directory, base_offset, bytes } => {
            let batches = batches_of(shadow, directory)?;
            let at = batches.binary_search_by_key(base_offset, |(offset, _)| *offset);
            let at = at.map_err(|_| format!("{directory} has no batch at {base_offset}"))?;
            match contains(batches[at].1, bytes) {
                true => Ok(()),
                false => Err(format!("{directory} has another batch at {base_offset}")),
            }
        }
        Promise::Noted { prefix, bytes, batches } => {
            let mut found = 0;
            for directory in shadow.directories(prefix) {
                let all = batches_of(shadow, &directory)?;
                found += all.iter().filter(|(_, batch)| contains(batch, bytes)).count();
            }
            if found >= *batches {
                return Ok(());
            }
            let bytes = String::from_utf8_lossy(bytes);
            Err(format!("{found} batches of {prefix} hold {bytes:?}, not {batches}"))
        }
        Promise::LogStart { directory, offset } => {
            let start = log_start(shadow, directory);
            match start.is_some_and(|start| start >= *offset) {
                true => Ok(()),
                false => Err(format!("{directory} begins at {start:?}, not at {offset}")),
            }
        }
    }
}

/// The batches of a log that a recovery would find, in order.
fn batches_of<'a>(shadow: &'a mut Shadow, directory: &str) -> Result<Vec<(i64, &'a [u8])>, String> {
    let mut batches = Vec::new();
    let mut next = None;
    for (name, file) in shadow.files(directory) {
        let Some(base) = name.strip_suffix(".log").and_then(|base| base.parse::<i64>().ok()) else {
            continue;
        };
        if next.is_some_and(|next| next != base) {
            return Err(format!("{directory}/{name} does not continue the log"));
        }
        let last = file.find_batches().last();
        next = Some(last.map_or(base, |batch| batch.next_offset));
        let file = &*file;
        let found = file.batches().iter();
        batches.extend(found.map(|b| (b.base_offset, &file.image()[b.range.clone()])));
    }
    Ok(batches)
}

/// The start of a log as its checkpoint has it; `docs/storage-format.md` has the bytes.
fn log_start(shadow: &mut Shadow, directory: &str) -> Option<i64> {
    let mut files = shadow.files(directory).into_iter();
    let (_, checkpoint) = files.find(|(name, _)| name == "vltava-checkpoint")?;
    let image = checkpoint.image();
    let start = image.get(36..44).filter(|_| image.starts_with(b"VLTC"))?;
    Some(i64::from_be_bytes(start.try_into().ok()?))
}

/// Whether the one run of bytes stands in the other.
pub fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    let first = bytes.iter().enumerate().filter(|(_, byte)| wanted.first() == Some(*byte));
    first.into_iter().any(|(at, _)| bytes[at..].starts_with(wanted))
}

/// What goes to each peer, taken apart into answers.
#[derive(Debug, Default)]
struct Streams {
    /// What the kernel has taken of answers that are not whole yet.
    sent: BTreeMap<SocketAddr, Vec<u8>>,
    under_way: BTreeMap<(usize, u64), (SocketAddr, Vec<u8>)>,
    /// Answers of which something was submitted.
    begun: BTreeSet<AnswerId>,
}

impl Streams {
    /// The answers that begin to leave with this event.
    fn take_in(&mut self, event: &Event) -> Vec<AnswerId> {
        match event {
            Event::Submitted(shard, id, Operation::Send { peer: Some(peer), content }) => {
                let mut bytes = self.sent.entry(*peer).or_default().clone();
                bytes.extend_from_slice(content);
                self.under_way.insert((*shard, *id), (*peer, content.clone()));
                let answers = answers(&bytes).0.into_iter().map(|id| (*peer, id));
                answers.filter(|answer| self.begun.insert(*answer)).collect()
            }
            Event::Completed(shard, id, result) => {
                if let Some((peer, content)) = self.under_way.remove(&(*shard, *id)) {
                    let len = usize::try_from(*result).unwrap_or(0);
                    let sent = self.sent.entry(peer).or_default();
                    sent.extend_from_slice(&content[..len]);
                    let whole = answers(sent).1;
                    sent.drain(..whole);
                }
                Vec::new()
            }
            Event::Submitted(..) => Vec::new(),
        }
    }
}

/// Correlation ids of the answers that begin in these bytes, and where the last whole one ends.
fn answers(bytes: &[u8]) -> (Vec<i32>, usize) {
    let (mut ids, mut at) = (Vec::new(), 0);
    while let Some(&[a, b, c, d, e, f, g, h]) = bytes.get(at..at + 8) {
        ids.push(i32::from_be_bytes([e, f, g, h]));
        let end = at + 4 + u32::from_be_bytes([a, b, c, d]) as usize;
        if end > bytes.len() {
            break;
        }
        at = end;
    }
    (ids, at)
}
