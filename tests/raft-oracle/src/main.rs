//! What the crate `raft` (tikv) does in scenarios that ours can repeat: who is elected, what logs
//! hold then, what is committed; and which index enough voters have. One line for each step, to be
//! read by `broker/src/raft/tests/oracle.rs`.

use std::collections::{HashMap, HashSet};
use std::hash::BuildHasherDefault;

use fxhash::FxHasher;
use raft::eraftpb::Message;
use raft::storage::MemStorage;
use raft::{Config, MajorityConfig, Progress, RawNode, StateRole};

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % limit
    }
}

struct Group {
    nodes: Vec<RawNode<MemStorage>>,
    /// What an empty log has: index and term.
    begin: (u64, u64),
}

impl Group {
    fn new(count: u64) -> Self {
        let logger = slog::Logger::root(slog::Discard, slog::o!());
        let voters: Vec<u64> = (1..=count).collect();
        let node = |id: &u64| {
            let storage = MemStorage::new_with_conf_state((voters.clone(), vec![]));
            let config = Config { id: *id, pre_vote: true, applied: 0, ..Config::default() };
            RawNode::new(&config, storage, &logger).unwrap()
        };
        let nodes: Vec<_> = voters.iter().map(node).collect();
        let log = &nodes[0].raft.raft_log;
        let begin = (log.last_index(), nodes[0].raft.term);
        Self { nodes, begin }
    }

    fn is_leader(&self, nth: usize) -> bool {
        self.nodes[nth].raft.state == StateRole::Leader
    }

    fn settle(&mut self, among: &[usize]) {
        loop {
            let mut messages: Vec<Message> = Vec::new();
            let mut is_idle = true;
            for nth in among {
                let node = &mut self.nodes[*nth];
                while node.has_ready() {
                    is_idle = false;
                    let mut ready = node.ready();
                    messages.extend(ready.take_messages());
                    let store = node.raft.raft_log.store.clone();
                    store.wl().append(ready.entries()).unwrap();
                    if let Some(state) = ready.hs() {
                        store.wl().set_hardstate(state.clone());
                    }
                    messages.extend(ready.take_persisted_messages());
                    let mut light = node.advance(ready);
                    messages.extend(light.take_messages());
                    if let Some(commit) = light.commit_index() {
                        store.wl().mut_hard_state().set_commit(commit);
                    }
                    node.advance_apply();
                }
            }
            if is_idle && messages.is_empty() {
                return;
            }
            for message in messages {
                let to = message.to as usize - 1;
                if among.contains(&to) {
                    let _ = self.nodes[to].step(message);
                }
            }
        }
    }

    /// One node's log as the epochs of its entries, and its commit.
    fn shown(&self, nth: usize) -> String {
        let log = &self.nodes[nth].raft.raft_log;
        let epochs = (self.begin.0 + 1..=log.last_index())
            .map(|index| (log.term(index).unwrap() - self.begin.1 - 1).to_string());
        let epochs: Vec<String> = epochs.collect();
        format!("{}/{}", epochs.join(" "), log.committed.saturating_sub(self.begin.0))
    }

    fn run(&mut self, random: &mut Random) {
        let count = self.nodes.len();
        println!("group {count}");
        for _ in 0..14 {
            let candidate = random.below(count as u64) as usize;
            let among: Vec<usize> =
                (0..count).filter(|nth| *nth == candidate || random.below(3) > 0).collect();
            for nth in 0..count {
                let is_alone = !among.contains(&nth) || among.len() <= count / 2;
                if is_alone && self.is_leader(nth) {
                    // As check-quorum does.
                    let term = self.nodes[nth].raft.term;
                    self.nodes[nth].raft.become_follower(term, 0);
                }
            }
            let newest = among.iter().map(|nth| self.nodes[*nth].raft.term).max().unwrap();
            let leads =
                |nth: &&usize| self.is_leader(**nth) && self.nodes[**nth].raft.term == newest;
            let leader = among.iter().find(leads).copied();
            let what = match leader {
                // What it writes reaches nobody, and then nobody hears of it.
                Some(leader) if random.below(3) == 0 => {
                    let entries = 1 + random.below(2);
                    for _ in 0..entries {
                        let _ = self.nodes[leader].propose(vec![], vec![1]);
                        self.settle(&[leader]);
                    }
                    let term = self.nodes[leader].raft.term;
                    self.nodes[leader].raft.become_follower(term, 0);
                    format!("strand {leader} {entries}")
                }
                Some(leader) if among.len() > 1 && random.below(4) == 0 => {
                    let others: Vec<_> = among.iter().filter(|nth| **nth != leader).collect();
                    let heir = *others[random.below(others.len() as u64) as usize];
                    self.nodes[leader].ping();
                    self.settle(&among);
                    self.nodes[leader].transfer_leader(heir as u64 + 1);
                    format!("transfer {leader} {heir}")
                }
                Some(leader) => {
                    let entries = random.below(3);
                    self.nodes[leader].ping();
                    self.settle(&among);
                    for _ in 0..entries {
                        let _ = self.nodes[leader].propose(vec![], vec![1]);
                        self.settle(&among);
                    }
                    format!("write {leader} {entries}")
                }
                None => {
                    let _ = self.nodes[candidate].campaign();
                    format!("campaign {candidate}")
                }
            };
            self.settle(&among);
            let names: Vec<String> = among.iter().map(usize::to_string).collect();
            let leads = |nth: &&usize| self.is_leader(**nth);
            let leader = among.iter().find(leads).map_or("-".to_owned(), usize::to_string);
            let logs: Vec<String> = (0..count).map(|nth| self.shown(nth)).collect();
            println!("{what} among {} leader {leader} | {}", names.join(" "), logs.join(" | "));
        }
    }
}

type Fast = BuildHasherDefault<FxHasher>;

fn quorums(random: &mut Random) {
    for _ in 0..150 {
        let count = 1 + random.below(7);
        let acked: Vec<u64> = (0..count).map(|_| random.below(9)).collect();
        let mut progress: HashMap<u64, Progress, Fast> = HashMap::default();
        for (id, acked) in (0..).zip(&acked) {
            progress.insert(id, Progress { matched: *acked, ..Progress::new(1, 1) });
        }
        let mut some = |least: u64| -> HashSet<u64, Fast> {
            let mut some: HashSet<u64, Fast> = HashSet::default();
            while some.len() < least as usize {
                some = (0..count).filter(|_| random.below(2) == 0).collect();
            }
            some
        };
        let (new, old) = (some(1), some(0));
        let names = |set: &HashSet<u64, Fast>| {
            let mut names: Vec<_> = set.iter().copied().collect();
            names.sort_unstable();
            names.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
        };
        let (new_names, old_names) = (names(&new), names(&old));
        // An empty half of a joint one agrees to all.
        let committed = |set| MajorityConfig::new(set).committed_index(false, &progress).0;
        let reached = committed(new).min(committed(old));
        let acked: Vec<String> = acked.iter().map(u64::to_string).collect();
        println!("quorum {} | {new_names} | {old_names} | {reached}", acked.join(" "));
    }
}

fn main() {
    let mut random = Random(5);
    quorums(&mut random);
    for count in [2, 3, 3, 3, 4, 5, 5, 5] {
        for _ in 0..8 {
            Group::new(count).run(&mut random);
        }
    }
}
