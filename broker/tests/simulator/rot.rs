//! Disks that rot, or lose or misdirect what they said was written, on one node at a time. The
//! others have what is damaged, so it is made good, as what a lost disk had is; and nothing is
//! damaged or lost anew before that is done (`losses`).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use vltava::runtime::sim::{MILLION, Random};
use vltava_protocol::batch::{self, Batch};
use vltava_storage::{LoadedNotes, load_notes};

use crate::cluster::Cluster;
use crate::faults::Trouble;

/// Ends the names of the files of segments.
const LOG: &str = ".log";
/// Blocks of a disk.
const BLOCK_BYTES: usize = 4096;
/// What power leaves whole: of a block that is written anew, some sectors may be as they were.
const SECTOR_BYTES: usize = 512;
/// The leader epoch in a batch: it is not under the CRC, and no client can know whether it is what
/// was written.
const EPOCH: Range<usize> = 12..16;

/// A sector of a file that is not what was written.
struct Damage {
    node: usize,
    path: String,
    from: usize,
    /// What stands there instead.
    bytes: Vec<u8>,
    /// The offset behind the last batch that has a part in it.
    until: i64,
}

impl Damage {
    fn is_in(&self, content: &[u8]) -> bool {
        let until = self.from + self.bytes.len();
        // A log that was begun anew may have nothing there yet.
        let is_written = content.iter().skip(until).any(|byte| *byte != 0)
            || self.bytes.iter().any(|byte| *byte != 0);
        is_written && content.get(self.from..until) == Some(&self.bytes)
    }
}

/// All that has rotted in a run.
#[derive(Default)]
pub struct Rot {
    damages: Vec<Damage>,
    /// The directories of partitions of which something has rotted, on any node.
    directories: BTreeSet<String>,
}

impl Rot {
    /// Whether what is served of a partition may be damaged: clients know by its CRC, and try
    /// again.
    pub fn is_known(&self, topic: &str, partition: i32) -> bool {
        self.directories.contains(&format!("{topic}-{partition}"))
    }

    /// Whether something on this node is damaged, as far as was known last.
    pub fn is_on(&self, node: usize) -> bool {
        self.damages.iter().any(|damage| damage.node == node)
    }
}

/// Damage that is on a disk still, of what somebody may read: a log may begin behind it by now.
pub fn outstanding(cluster: &Cluster) -> Option<String> {
    let mut rot = cluster.checkers.rot.borrow_mut();
    rot.damages.retain(|damage| {
        if log_start(cluster, damage).is_some_and(|start| start >= damage.until) {
            return false;
        }
        let disk = cluster.disk(damage.node);
        // What was written over it, power may take back.
        [disk.content(&damage.path), disk.flushed(&damage.path)]
            .into_iter()
            .flatten()
            .any(|content| damage.is_in(&content))
    });
    let damage = rot.damages.first()?;
    let (id, path, from) = (Cluster::id(damage.node), &damage.path, damage.from);
    Some(format!("node {id}: the sector at {from} of {path} is not what was written"))
}

/// Where the log begins in which something was damaged, as the replica there knows.
fn log_start(cluster: &Cluster, damage: &Damage) -> Option<i64> {
    let (directory, _) = damage.path.rsplit_once('/')?;
    let (topic, index) = directory.rsplit_once('-')?;
    let index = index.parse().ok()?;
    cluster.shards(damage.node).iter().find_map(|shard| {
        let id = shard.services.node.image().topic(topic)?.partition_id(index);
        Some(shard.services.partitions.local(id).ok()?.log_start())
    })
}

/// Something of a node's logs is not what was written, of what the node has noted to be flushed:
/// what was written a moment ago may look like a write that power cut short.
pub async fn strike(cluster: &Cluster, node: usize, trouble: Trouble, random: &mut Random) {
    let disk = cluster.disk(node);
    let Ok(LoadedNotes { notes, .. }) = load_notes(&disk).await else { return };
    let mut segments: BTreeMap<&String, Vec<(String, i64)>> = BTreeMap::new();
    for path in disk.files().into_iter().filter(|path| path.ends_with(LOG)) {
        let known = path.split_once('/').and_then(|(directory, _)| notes.get_key_value(directory));
        if let Some((directory, note)) = known {
            segments.entry(directory).or_default().push((path, note.flushed_end));
        }
    }
    // Some logs have one segment, others many.
    let logs: Vec<Vec<(String, i64)>> = segments.into_values().collect();
    for _ in 0..random.mostly_small(1..=4) {
        if !logs.is_empty() {
            let log = random.pick(&logs);
            let segment = random.pick(log).clone();
            damage(cluster, node, &segment, trouble, random);
        }
    }
}

/// Changes a part of what stands in a segment below the flushed end.
fn damage(
    cluster: &Cluster,
    node: usize,
    (path, flushed_end): &(String, i64),
    trouble: Trouble,
    random: &mut Random,
) {
    let disk = cluster.disk(node);
    let before = disk.content(path).unwrap_or_default();
    let mut batches: Vec<Range<usize>> = Vec::new();
    let mut ends: Vec<(usize, i64)> = Vec::new();
    let is_flushed = |batch: &Batch<'_>| batch.next_offset() <= *flushed_end;
    for batch in batch::walk(&before).map_while(Result::ok).take_while(is_flushed) {
        let start = batches.last().map_or(0, |before| before.end);
        batches.push(start..start + batch.bytes().len());
        ends.push((start, batch.next_offset()));
    }
    let mut after = before.clone();
    match trouble {
        Trouble::Misdirected => misdirect(&mut after, &batches, random),
        _ => flip(&mut after, &batches, random),
    }
    let sectors = (0..before.len()).step_by(SECTOR_BYTES);
    let sectors = sectors.map(|at| at..(at + SECTOR_BYTES).min(before.len()));
    let damaged: Vec<_> =
        sectors.filter(|sector| before[sector.clone()] != after[sector.clone()]).collect();
    if damaged.is_empty() {
        return;
    }
    disk.damage(path, |bytes| {
        for sector in &damaged {
            let end = sector.end.min(bytes.len());
            if let Some(bytes) = bytes.get_mut(sector.start..end) {
                bytes.copy_from_slice(&after[sector.start..end]);
            }
        }
    });
    let executor = cluster.simulation.executor();
    executor.note(&format!("node {}: {trouble:?} in {path} at {damaged:?}", Cluster::id(node)));
    let mut rot = cluster.checkers.rot.borrow_mut();
    rot.damages.extend(damaged.into_iter().map(|sector| Damage {
        node,
        path: path.clone(),
        from: sector.start,
        until: ends.iter().take_while(|(start, _)| *start < sector.end).last().map_or(0, |it| it.1),
        bytes: after[sector].to_vec(),
    }));
    if let Some((directory, _)) = path.rsplit_once('/') {
        rot.directories.insert(directory.to_owned());
    }
}

/// One bit, or some, of one batch.
fn flip(bytes: &mut [u8], batches: &[Range<usize>], random: &mut Random) {
    if batches.is_empty() {
        return;
    }
    let batch = random.pick(batches).clone();
    let mut left = if random.chance(MILLION / 2) { 1 } else { random.between(2..=8) };
    while left > 0 {
        let within = random.index(batch.len());
        if !EPOCH.contains(&within) {
            bytes[batch.start + within] ^= 1 << random.below(8);
            left -= 1;
        }
    }
}

/// Blocks are as if they had never been written, or hold what was to go elsewhere in the file.
/// Behind them stands something that was written: nothing looks like the end of the log.
fn misdirect(bytes: &mut [u8], batches: &[Range<usize>], random: &mut Random) {
    let blocks = batches.last().map_or(0, |last| (last.end - 1) / BLOCK_BYTES);
    if blocks == 0 {
        return;
    }
    let first = random.index(blocks);
    let count = usize::try_from(random.mostly_small(1..=8)).unwrap_or(1).min(blocks - first);
    let range = first * BLOCK_BYTES..(first + count) * BLOCK_BYTES;
    if random.chance(MILLION / 2) {
        bytes[range].fill(0);
    } else {
        let from = random.index(blocks - count + 1) * BLOCK_BYTES;
        bytes.copy_within(from..from + count * BLOCK_BYTES, range.start);
    }
}
