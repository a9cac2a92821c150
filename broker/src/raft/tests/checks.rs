//! What must hold, by means of their own: none of this asks the code under test what is enough.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Disk, Entry, Replica};
use crate::raft::history::{Mark, What};
use crate::raft::membership::{Membership, ReplicaId, Seat};
use crate::raft::message::Message;
use crate::raft::node::{Node, Role};
use crate::raft::position::Position;

/// What a generation of the group has agreed on.
#[derive(Clone, Default, Hash)]
pub struct Agreed {
    /// What is chosen, by index, and in which epoch it was.
    chosen: BTreeMap<i64, (Entry, i32)>,
    /// What clients have seen, by offset.
    shown: BTreeMap<i64, u32>,
    /// The most that anybody has shown.
    most_shown: i64,
}

/// What was seen so far.
#[derive(Clone, Default, Hash)]
pub struct Checks {
    /// For whom a node has voted in an epoch.
    votes: BTreeMap<(i32, i32), ReplicaId>,
    /// Who led an epoch, in which life.
    leaders: BTreeMap<i32, (ReplicaId, u32)>,
    /// What somebody else has seen, or a disk holds, at an epoch's index.
    known: BTreeMap<(i32, i64), Entry>,
    /// Of each generation, by the epoch with which it begins.
    generations: BTreeMap<i32, Agreed>,
    /// High watermark and commit of each node, in this life.
    marks: BTreeMap<i32, (i64, i64)>,
    pub min_insync_replicas: usize,
    pub elections: usize,
    pub changes: usize,
    pub snapshots: usize,
    /// Leaders that were named, and what was chosen and is void by that.
    pub named: usize,
    pub voided: usize,
    /// Losses that were made good.
    pub regained: usize,
}

/// Whether enough of these members are among `there`: so many, or a majority, or all.
fn is_enough(of: &BTreeSet<ReplicaId>, there: &BTreeSet<ReplicaId>, least: usize) -> bool {
    let count = of.intersection(there).count();
    of.is_empty() || 2 * count > of.len() && count >= least.min(of.len())
}

fn are_enough(members: &Membership, there: &BTreeSet<ReplicaId>, least: usize) -> bool {
    let of = |is_in: fn(&Seat) -> bool| {
        members.seats().iter().filter(|seat| is_in(seat)).map(|seat| seat.id).collect()
    };
    is_enough(&of(|seat| seat.is_voter), there, least)
        && is_enough(&of(|seat| seat.was_voter), there, least)
}

/// What is flushed at an index, on which disks.
fn disks_with(replicas: &[Replica], index: i64, entry: &Entry) -> BTreeSet<ReplicaId> {
    let mut there = BTreeSet::new();
    for (node, replica) in replicas.iter().enumerate() {
        let disk = &replica.disk;
        // Whoever restores fetches what is below its base: it has been told of no less.
        let is_flushed = index < disk.flushed().max(disk.base_index());
        // Who has lost its log counts with what it had: until that is made good it has no say.
        let ghost = disk.ghost.as_ref().is_some_and(|(base, log)| {
            let nth = usize::try_from(index - base);
            nth.map_or(true, |nth| log.get(nth) == Some(entry))
        });
        if ghost || is_flushed && disk.entry(index).is_none_or(|own| own == entry) {
            there.insert(super::world::id(node as i32));
        }
    }
    there
}

impl Checks {
    /// A group of one began anew: nobody has seen what it had not shown.
    pub fn forget(&mut self) {
        self.leaders.clear();
        self.known.clear();
        self.generations.clear();
    }

    /// So much is chosen.
    pub fn chosen(&self) -> usize {
        self.generations.last_key_value().map_or(0, |(_, agreed)| agreed.chosen.len())
    }

    fn agreed(&mut self, node: &Node) -> &mut Agreed {
        self.generations.entry(node.generation()).or_default()
    }

    /// A node hears of a generation. Of what was agreed before, what is not on the disk of the one
    /// that was named is void; for who follows it, nothing is known to be agreed.
    pub fn enters(&mut self, replicas: &[Replica], node: i32, log_epoch: i32, is_void: bool) {
        let replica = &replicas[node as usize];
        let (Some(raft), disk) = (replica.node.as_ref(), &replica.disk) else { return };
        if is_void {
            self.marks.remove(&node);
            return;
        }
        self.named += 1;
        // That of which its log is: it need not have anything of the one that it had heard of.
        let before = self.generations.range(..=log_epoch).next_back();
        let before = before.map(|(_, agreed)| agreed.clone()).unwrap_or_default();
        let is_there = |index: i64, entry: &Entry| disk.entry(index).is_none_or(|own| own == entry);
        let ends = disk.flushed();
        let mut agreed = before;
        let all = agreed.chosen.len();
        agreed.chosen.retain(|index, (entry, _)| *index < ends && is_there(*index, entry));
        self.voided += all - agreed.chosen.len();
        let mut offset = disk.base.at.offset;
        let mut kept: BTreeMap<i64, u32> = BTreeMap::new();
        for entry in &disk.log[..(ends - disk.base_index()).max(0) as usize] {
            if let Entry::Batch { id, .. } = entry {
                kept.insert(offset, *id);
                offset += 1;
            }
        }
        let base = disk.base.at.offset;
        agreed.shown.retain(|at, id| *at < base || kept.get(at) == Some(id));
        agreed.most_shown = agreed.shown.last_key_value().map_or(0, |(at, _)| at + 1);
        self.generations.insert(raft.generation(), agreed);
    }

    pub fn started(&mut self, node: i32) {
        self.marks.remove(&node);
    }

    pub fn taken_back(&mut self, node: i32) {
        self.marks.entry(node).or_default().1 = 0;
    }

    /// One vote an epoch, and epochs never go back.
    pub fn persisted(&self, disk: &Disk, epoch: i32, vote: Option<ReplicaId>) {
        assert!(epoch >= disk.epoch, "the epoch goes back");
        let is_kept = epoch > disk.epoch || disk.vote.is_none() || disk.vote == vote;
        assert!(is_kept, "votes twice in {epoch}");
    }

    /// What an answer promises stands on the disk before it leaves.
    pub fn said(&mut self, replicas: &[Replica], from: i32, to: ReplicaId, message: &Message) {
        let disk = &replicas[from as usize].disk;
        match message {
            Message::VoteReply { is_pre: false, is_granted: true, epoch } => {
                let persisted = (disk.epoch, disk.vote);
                assert_eq!(persisted, (*epoch, Some(to)), "a vote that a restart forgets");
                let voted = *self.votes.entry((from, *epoch)).or_insert(to);
                assert_eq!(voted, to, "{from} votes twice in {epoch}");
            }
            Message::Flushed { index, .. } => {
                let flushed = disk.flushed();
                assert!(*index <= flushed, "says that it has flushed {index}, not {flushed}");
            }
            _ => {}
        }
    }

    /// Nobody is encouraged, or elected, who lacks what the voter has.
    pub fn voted(&self, voter: &Node, candidates_end: Position) {
        let own = voter.history().end();
        let is_behind = (candidates_end.epoch, candidates_end.index()) < (own.epoch, own.index());
        assert!(!is_behind, "votes for a candidate that lacks entries");
    }

    /// Two logs that have an entry of one epoch at one index have the same there.
    pub fn sent(&mut self, message: &Message, payload: &[Entry]) {
        if let Message::Append { run, .. } = message {
            self.know(run.from.index(), run.from.epoch, payload);
        }
    }

    fn know(&mut self, from: i64, epoch: i32, entries: &[Entry]) {
        let mut at = epoch;
        for (index, entry) in (from..).zip(entries) {
            let (Entry::Batch { epoch, .. } | Entry::Mark(Mark { epoch, .. })) = entry;
            assert!(*epoch >= at, "epochs go back in a log");
            at = *epoch;
            let known = self.known.entry((*epoch, index)).or_insert_with(|| entry.clone());
            assert_eq!(known, entry, "two entries of epoch {epoch} at {index}");
        }
    }

    pub fn flushed(&mut self, disk: &Disk) {
        if disk.is_kept && !disk.is_restoring {
            let flushed = (disk.flushed() - disk.base_index()) as usize;
            self.know(disk.base_index(), disk.base.at.epoch, &disk.log[..flushed]);
        }
    }

    /// No change before an entry of the epoch is chosen (Ongaro's erratum of 2015), and one at a
    /// time.
    pub fn changed(&mut self, node: &Node) {
        self.changes += 1;
        let history = node.history();
        let written_at = history.members_written_at().unwrap();
        let agreed = self.agreed(node);
        let own = agreed.chosen.iter().any(|(index, (entry, _))| {
            let start =
                Entry::Mark(Mark { epoch: node.epoch(), index: *index, what: What::EpochStart });
            *entry == start
        });
        let is_old = history.base().at.epoch == node.epoch();
        let is_named = history
            .marks()
            .iter()
            .any(|mark| matches!(mark.what, What::Forced(_)) && mark.epoch == node.epoch());
        assert!(own || is_named || is_old, "a change of members before the epoch's own commit");
        assert!(!history.members_at(written_at).is_joint(), "two changes at once");
    }

    /// One leader an epoch. Asked once all that a node wanted is done: before, it leads only by its
    /// own account.
    fn leads(&mut self, replica: &Replica, node: &Node) {
        assert!(!replica.disk.is_restoring, "a leader lacks batches");
        let own = (node.leader().unwrap(), replica.incarnation);
        let elections = &mut self.elections;
        let leader = *self.leaders.entry(node.epoch()).or_insert_with(|| {
            *elections += 1;
            own
        });
        assert_eq!(leader, own, "two leaders of epoch {}", node.epoch());
    }

    /// The high watermark never goes back; what clients see is on enough disks, and stays.
    pub fn shown(&mut self, replicas: &[Replica], node: i32, offset: i64) {
        let marks = self.marks.entry(node).or_default();
        assert!(offset >= marks.0, "the high watermark goes back");
        marks.0 = offset;
        let replica = &replicas[node as usize];
        let (raft, disk) = (replica.node.as_ref().unwrap(), &replica.disk);
        // Followers may not know yet who is in force: they show what somebody has shown before.
        let least = self.min_insync_replicas;
        let agreed = self.generations.entry(raft.generation()).or_default();
        let is_told = raft.role() != Role::Leader && offset <= agreed.most_shown;
        agreed.most_shown = agreed.most_shown.max(offset);
        let flushed = (disk.flushed() - disk.base_index()).max(0) as usize;
        let mut at = disk.base.at.offset;
        for (nth, entry) in disk.log.iter().enumerate() {
            let Entry::Batch { id, .. } = entry else { continue };
            if at >= offset {
                break;
            }
            assert!(nth < flushed, "shows what is not flushed here");
            if let Some(known) = agreed.shown.get(&at) {
                assert_eq!(known, id, "another batch at offset {at}");
            } else {
                let there = disks_with(replicas, disk.base_index() + nth as i64, entry);
                let is_enough = are_enough(raft.members(), &there, least);
                assert!(is_enough || is_told, "shows what is not on enough disks, at offset {at}");
                agreed.shown.insert(at, *id);
            }
            at += 1;
        }
        assert!(at >= offset, "shows what is not there");
    }

    /// What is chosen stays, and every leader has it.
    pub fn check(&mut self, replicas: &[Replica], node: i32) {
        let replica = &replicas[node as usize];
        let (Some(raft), disk) = (replica.node.as_ref(), &replica.disk) else { return };
        assert_eq!(disk.end_index(), raft.history().end().index(), "node and log differ");
        let marks = self.marks.entry(node).or_default();
        assert!(raft.committed() >= marks.1, "the commit goes back");
        // Before it has something of its generation it may have to give up all that it has.
        marks.1 = if raft.is_of_generation() { raft.committed() } else { 0 };
        let agreed = self.generations.entry(raft.generation()).or_default();
        for index in disk.base_index()..raft.committed() {
            let entry = disk.entry(index).expect("the commit is in the log");
            if let Some((known, _)) = agreed.chosen.get(&index) {
                assert_eq!(known, entry, "another entry is chosen at {index}");
            } else {
                let there = disks_with(replicas, index, entry);
                let members = raft.members();
                // A change that ends with this commit counts by what was in force for it.
                let before = raft.history().members_at(raft.committed());
                let is_enough = are_enough(members, &there, 1) || are_enough(before, &there, 1);
                assert!(is_enough, "chosen at {index}, and not on enough disks");
                agreed.chosen.insert(index, (entry.clone(), raft.epoch()));
            }
        }
        if raft.role() == Role::Leader {
            self.leads(replica, raft);
            // One of an older epoch need not have heard of it.
            let agreed = self.generations.entry(raft.generation()).or_default();
            for (index, (entry, epoch)) in agreed.chosen.range(disk.base_index()..) {
                let has_it = raft.epoch() < *epoch || disk.entry(*index) == Some(entry);
                assert!(has_it, "a leader lacks entry {index}");
            }
        }
    }
}
