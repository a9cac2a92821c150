//! Votes and marks of groups: what was acknowledged is there after any crash, with any number of
//! shards, and after damage to one of the two files; what is damaged in both is never taken for
//! "never set".

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a test may panic, and its numbers are small"
)]

mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use bytes::Bytes;
use support::{Chance, Task, pause, run, run_all, slow_down};
use vltava_protocol::types::Uuid;
use vltava_storage::io::IoErrorKind;
use vltava_storage::io::fault_disk::{Fault, FaultDisk};
use vltava_storage::{
    EnvironmentOptions, GroupKey, KeyedJournal, LoadedJournals, LoadedNotes, LogEnvironment,
    Recorded, StorageError, StorageEvent, load_journals,
};

type Journal = Rc<KeyedJournal<FaultDisk>>;
type Events = Rc<RefCell<Vec<StorageEvent>>>;

const GROUPS: i32 = 12;

fn key(partition: i32) -> GroupKey {
    GroupKey { topic_id: Uuid(3), partition }
}

/// A node: the journals of its shards.
struct Node {
    journals: Vec<Journal>,
    loaded: Arc<LoadedJournals>,
    events: Events,
}

impl Node {
    async fn start(disk: &FaultDisk, shards: u32) -> Result<Self, StorageError> {
        let loaded = Arc::new(load_journals(disk).await?);
        let events = Events::default();
        let mut journals = Vec::new();
        for shard in 0..shards {
            let options = EnvironmentOptions::default();
            let notes = LoadedNotes::default();
            let environment = LogEnvironment::new(disk.clone(), options, shard, notes);
            let heard = Rc::clone(&events);
            environment.on_event(move |event| heard.borrow_mut().push(event.clone()));
            let opened = KeyedJournal::open(&environment, shard, shards, Arc::clone(&loaded));
            journals.push(Rc::new(opened.await?));
        }
        Ok(Self { journals, loaded, events })
    }

    async fn started(disk: &FaultDisk, shards: u32) -> Self {
        Self::start(disk, shards).await.unwrap()
    }

    fn damaged(&self) -> usize {
        let is_damage = |event: &&StorageEvent| matches!(event, StorageEvent::VotesDamaged { .. });
        self.events.borrow().iter().filter(is_damage).count()
    }

    /// The groups that were reported lost; `None`: some, nobody knows which.
    fn lost(&self) -> BTreeSet<Option<GroupKey>> {
        let lost = |event: &StorageEvent| match event {
            StorageEvent::VotesLost { group, .. } => Some(*group),
            _ => None,
        };
        self.events.borrow().iter().filter_map(lost).collect()
    }
}

fn value(text: &str) -> Recorded {
    Recorded::Value(Bytes::copy_from_slice(text.as_bytes()))
}

fn bytes(text: &str) -> Option<Bytes> {
    Some(Bytes::copy_from_slice(text.as_bytes()))
}

/// What the groups know.
#[derive(Clone, Debug, Default)]
struct Model {
    /// What was acknowledged last.
    acked: BTreeMap<GroupKey, Option<Bytes>>,
    /// Set since, and not acknowledged: it may be there, or not.
    open: BTreeMap<GroupKey, Vec<Option<Bytes>>>,
    /// Which shard's a group is.
    owner: BTreeMap<GroupKey, usize>,
    next: u64,
}

impl Model {
    fn next_value(&mut self, chance: &Chance) -> Option<Bytes> {
        self.next += 1;
        let mut value = format!("{}:", self.next).into_bytes();
        let len = if chance.one_in(4) { 60_000 } else { 60 };
        value.resize(20 + chance.below(len) as usize, self.next as u8);
        (!chance.one_in(7)).then(|| Bytes::from(value))
    }

    /// After a start: what is there was acknowledged last, or set since.
    fn check(&mut self, loaded: &LoadedJournals) {
        for partition in 0..GROUPS {
            let key = key(partition);
            let found = match loaded.get(&key) {
                Recorded::Nothing => None,
                Recorded::Value(value) => Some(value),
                Recorded::Lost => panic!("{key} is lost"),
            };
            let acked = self.acked.get(&key).cloned().flatten();
            let open = self.open.remove(&key).unwrap_or_default();
            assert!(found == acked || open.contains(&found), "{key}: {found:?}, was {acked:?}");
            self.acked.insert(key, found);
        }
        self.owner.clear();
    }
}

/// A group that sets, and knows what it was told.
async fn set_one(journal: Journal, model: Rc<RefCell<Model>>, key: GroupKey, value: Option<Bytes>) {
    let before = journal.get(&key);
    model.borrow_mut().open.entry(key).or_default().push(value.clone());
    let set = journal.set(key, value.clone()).await;
    match &set {
        Ok(()) => {
            let mut model = model.borrow_mut();
            model.acked.insert(key, value.clone());
            model.open.remove(&key);
            let expected = value.map_or(Recorded::Nothing, Recorded::Value);
            assert_eq!(journal.get(&key), expected);
        }
        Err(StorageError::Full(_)) => assert_eq!(journal.get(&key), before),
        Err(error) => {
            assert!(matches!(error, StorageError::Failed(_)), "{error}");
            assert!(journal.ended().is_some());
        }
    }
}

/// Groups set values, some at once, and move. Whether all shards still work.
async fn work(node: &Node, model: &Rc<RefCell<Model>>, chance: &Rc<Chance>, steps: usize) -> bool {
    let shards = node.journals.len() as u64;
    for _ in 0..steps {
        let keys: BTreeSet<i32> =
            (0..1 + chance.below(3)).map(|_| chance.below(GROUPS as u64) as i32).collect();
        let mut tasks: Vec<Task> = Vec::new();
        for key in keys.into_iter().map(key) {
            let home = key.partition as u64 % shards;
            let owner = *model.borrow_mut().owner.entry(key).or_insert(home as usize);
            let mut journal = &node.journals[owner];
            if chance.one_in(8) {
                let to = chance.below(shards) as usize;
                let Ok(given) = journal.give(&key).await else { return false };
                journal = &node.journals[to];
                journal.take(key, given);
                model.borrow_mut().owner.insert(key, to);
            }
            let value = model.borrow_mut().next_value(chance);
            let model = Rc::clone(model);
            tasks.push(Box::pin(set_one(Rc::clone(journal), model, key, value)));
        }
        run_all(chance, tasks);
        if node.journals.iter().any(|journal| journal.ended().is_some()) {
            return false;
        }
    }
    true
}

/// A run from an empty disk with this fault.
async fn first_life(seed: u64, fault: Fault, steps: usize) -> (FaultDisk, Model, bool) {
    let disk = FaultDisk::new(seed);
    disk.inject(fault);
    let chance = Rc::new(Chance::new(seed));
    if seed % 2 == 1 {
        slow_down(&disk, &Rc::new(Chance::new(seed)));
    }
    let node = Node::started(&disk, 1 + (seed % 3) as u32).await;
    let model = Rc::new(RefCell::new(Model::default()));
    let went = work(&node, &model, &chance, steps).await;
    let model = model.borrow().clone();
    (disk, model, went)
}

/// Restarts with other numbers of shards; another crash each time.
async fn later_lives(seed: u64, mut disk: FaultDisk, model: Model, fault: Fault) {
    let chance = Rc::new(Chance::new(seed ^ 0xABCD));
    let model = Rc::new(RefCell::new(model));
    let mut shards_before = 3;
    let mut may_damage = matches!(fault, Fault::Fail { .. });
    for _ in 0..3 {
        disk = disk.restart();
        if chance.one_in(2) {
            let at = disk.operations() + chance.below(30);
            disk.inject(Fault::Crash { at });
        }
        let shards = 1 + chance.below(4) as u32;
        let Ok(node) = Node::start(&disk, shards).await else {
            assert!(disk.is_down());
            may_damage = true;
            continue;
        };
        model.borrow_mut().check(&node.loaded);
        assert_eq!(node.lost(), BTreeSet::new());
        // Of the two files of a shard that there is no more, a stop may have left one; a sync of
        // names that fails for one shard may lose a name of another's.
        assert!(node.damaged() == 0 || may_damage, "{:?}", node.events.borrow());
        may_damage |= shards < shards_before;
        shards_before = shards_before.max(shards);
        work(&node, &model, &chance, 10).await;
    }
    let node = Node::started(&disk.restart(), 2).await;
    model.borrow_mut().check(&node.loaded);
}

const NO_FAULT: Fault = Fault::Crash { at: u64::MAX };
const STEPS: usize = 45;

fn operations_of(seed: u64) -> u64 {
    let (disk, _, went) = run(first_life(seed, NO_FAULT, STEPS));
    assert!(went);
    let bytes: usize = disk.files().iter().map(|path| disk.content(path).unwrap().len()).sum();
    assert!(bytes < 6 << 20, "{bytes}");
    disk.operations()
}

#[test]
fn a_crash_at_any_operation_loses_nothing() {
    for seed in [1, 3] {
        for at in 0..operations_of(seed) {
            run(async {
                let fault = Fault::Crash { at };
                let (disk, model, _) = first_life(seed, fault, STEPS).await;
                later_lives(seed * 7919 + at, disk, model, fault).await;
            });
        }
    }
}

#[test]
fn a_failed_operation_ends_it_and_loses_nothing() {
    for seed in [5] {
        for at in 0..operations_of(seed) {
            run(async {
                let fault = Fault::Fail { at, kind: IoErrorKind::Failed };
                let (disk, model, went) = first_life(seed, fault, STEPS).await;
                assert!(!went);
                later_lives(seed * 7919 + at, disk, model, fault).await;
            });
        }
    }
}

#[test]
fn a_full_disk_refuses_and_it_goes_on_by_itself() {
    for seed in [6] {
        let operations = operations_of(seed);
        let mut ended = 0;
        for at in 0..operations {
            run(async {
                let fault = Fault::Fail { at, kind: IoErrorKind::Full };
                let (disk, model, went) = first_life(seed, fault, STEPS).await;
                // Only a sync that says so ends it.
                ended += u64::from(!went);
                later_lives(seed * 7919 + at, disk, model, fault).await;
            });
        }
        assert!(ended < operations / 10, "{ended} of {operations}");
    }
}

#[test]
fn a_lost_or_misdirected_write_loses_nothing() {
    for seed in [9] {
        for at in 0..operations_of(seed) {
            let elsewhere = [-1, 1].map(|blocks| Fault::MisdirectWrite { at, blocks });
            for fault in elsewhere.into_iter().chain([Fault::LoseWrite { at }]) {
                run(async {
                    let (disk, model, _) = first_life(seed, fault, STEPS).await;
                    let model = Rc::new(RefCell::new(model));
                    for shards in [1, 3] {
                        let node = Node::started(&disk.restart(), shards).await;
                        model.borrow_mut().check(&node.loaded);
                        assert_eq!(node.lost(), BTreeSet::new(), "{fault:?}");
                    }
                });
            }
        }
    }
}

/// Flips a bit, zeroes a block, or cuts the file.
fn damage(content: &mut Vec<u8>, chance: &Chance, may_cut: bool) {
    let written = content.iter().rposition(|byte| *byte != 0).map_or(1, |last| last + 1);
    let at = chance.below(written as u64) as usize;
    match chance.below(if may_cut { 3 } else { 2 }) {
        0 => content[at] ^= 1 << chance.below(8),
        1 => {
            let block = at / 4096 * 4096;
            let end = (block + 4096).min(content.len());
            content[block..end].fill(0);
        }
        _ => content.truncate(at),
    }
}

#[test]
fn damage_to_one_file_loses_nothing_and_is_mended() {
    let mut seen = 0;
    for seed in 0..200 {
        run(async {
            let (mut disk, model, _) = first_life(seed, NO_FAULT, 20).await;
            let model = Rc::new(RefCell::new(model));
            let chance = Rc::new(Chance::new(seed));
            let shards = 1 + (seed % 3) as u32;
            for life in 0..4 {
                let copy = ["a", "b"][chance.below(2) as usize];
                let paths: Vec<String> =
                    disk.files().into_iter().filter(|path| path.ends_with(copy)).collect();
                let path = &paths[chance.below(paths.len() as u64) as usize];
                disk.damage(path, |content| damage(content, &chance, true));
                disk = disk.restart();
                let node = Node::started(&disk, shards).await;
                model.borrow_mut().check(&node.loaded);
                assert_eq!(node.lost(), BTreeSet::new(), "seed {seed}");
                seen += node.damaged();
                // Mended: the other file may be damaged next, in each second life without a write.
                if life % 2 == 0 {
                    work(&node, &model, &chance, 3).await;
                }
            }
        });
    }
    assert!(seen > 400, "{seen} of 800 seen");
}

/// Nothing older than what was acknowledged is ever given, whatever happened to the two files (but
/// for the last change: what is torn off there looks like a stop's).
#[test]
fn damage_to_both_files_is_known_for_what_it_is() {
    let (mut by_key, mut all, mut sound) = (0, 0, 0);
    for seed in 0..300 {
        run(async {
            let (disk, model, _) = first_life(seed * 3, NO_FAULT, 30).await;
            let chance = Chance::new(seed);
            let node = Node::started(&disk.restart(), 1).await;
            // Now both hold one base, and a change.
            let last = key(GROUPS);
            for n in 0..3 {
                node.journals[0].set(last, bytes(&format!("last {n}"))).await.unwrap();
            }
            let path = "vltava-votes-0-a";
            let before = disk.content(path).unwrap();
            let written = before.iter().rposition(|byte| *byte != 0).unwrap();
            // The same place in both; not in the last change.
            let at = chance.below(written as u64 / 4096 * 4096) as usize;
            let bit = chance.below(8);
            for path in [path, "vltava-votes-0-b"] {
                let content = |content: &mut Vec<u8>| match seed % 3 {
                    0 => content[at / 4096 * 4096..][..4096].fill(0),
                    _ => content[at] ^= 1 << bit,
                };
                assert!(disk.damage(path, content));
            }
            let node = Node::started(&disk.restart(), 1).await;
            let lost = node.lost();
            let is_lost = |key: &GroupKey| node.loaded.get(key) == Recorded::Lost;
            let mut known_lost = 0;
            for key in (0..GROUPS).map(key) {
                let acked = model.acked.get(&key).cloned().flatten();
                let expected = acked.map_or(Recorded::Nothing, Recorded::Value);
                let found = node.loaded.get(&key);
                assert!(found == expected || found == Recorded::Lost, "seed {seed}: {found:?}");
                assert_eq!(is_lost(&key), lost.contains(&None) || lost.contains(&Some(key)));
                known_lost += usize::from(lost.contains(&Some(key)));
            }
            by_key += usize::from(known_lost > 0 && !lost.contains(&None));
            all += usize::from(lost.contains(&None));
            sound += usize::from(lost.is_empty());
            check_stays_lost(&disk, &node, lost).await;
        });
    }
    assert!(by_key > 100 && all > 15 && sound > 15, "{by_key} {all} {sound}");
}

/// What is lost stays so, until it is set again.
async fn check_stays_lost(disk: &FaultDisk, before: &Node, lost: BTreeSet<Option<GroupKey>>) {
    let node = Node::started(&disk.restart(), 2).await;
    assert_eq!(node.lost(), BTreeSet::new(), "it is reported once");
    let is_all = lost.contains(&None);
    assert_eq!(node.journals.iter().all(|journal| journal.is_in_doubt()), is_all);
    for key in (0..GROUPS).map(key) {
        let found = node.journals[1].get(&key);
        assert_eq!(found, before.loaded.get(&key));
        if found == Recorded::Lost {
            node.journals[1].set(key, bytes("again")).await.unwrap();
            assert_eq!(node.journals[1].get(&key), value("again"));
        }
    }
    let node = Node::started(&disk.restart(), 2).await;
    assert_eq!(node.loaded.get(&key(99)) == Recorded::Lost, is_all);
    assert!((0..GROUPS).all(|n| node.loaded.get(&key(n)) != Recorded::Lost));
    for journal in &node.journals {
        journal.settle_doubt().await.unwrap();
        assert_eq!(journal.get(&key(99)), Recorded::Nothing);
    }
    let node = Node::started(&disk.restart(), 2).await;
    assert_eq!(node.loaded.get(&key(99)), Recorded::Nothing);
}

#[test]
fn a_file_that_is_gone_is_missed_and_made_again() {
    run(async {
        let (disk, model, _) = first_life(3, NO_FAULT, 40).await;
        let model = RefCell::new(model);
        for copy in ["a", "b", "a"] {
            let path = format!("vltava-votes-0-{copy}");
            let disk_view = disk.restart();
            vltava_storage::io::Disk::remove_file(&disk_view, &path).await.unwrap();
            let node = Node::started(&disk_view, 1).await;
            model.borrow_mut().check(&node.loaded);
            assert_eq!((node.damaged(), node.lost().len()), (1, 0));
            assert!(disk_view.content(&path).is_some());
        }
    });
}

#[test]
fn who_sets_nothing_writes_nothing() {
    run(async {
        let disk = FaultDisk::new(1);
        for shards in [1, 4] {
            let node = Node::started(&disk, shards).await;
            assert_eq!(node.journals[0].get(&key(1)), Recorded::Nothing);
            assert_eq!(node.journals[0].keys(), []);
            node.journals[0].settle_doubt().await.unwrap();
            let given = node.journals[0].give(&key(1)).await.unwrap();
            node.journals[0].take(key(1), given);
        }
        assert_eq!((disk.operations(), disk.files()), (0, Vec::<String>::new()));
        let node = Node::started(&disk, 4).await;
        node.journals[2].set(key(1), bytes("a")).await.unwrap();
        assert_eq!(disk.files(), ["vltava-votes-2-a", "vltava-votes-2-b"]);
        // Shards that there are no more: their files go with what they hold.
        let node = Node::started(&disk.restart(), 1).await;
        assert_eq!(node.journals[0].get(&key(1)), value("a"));
        assert_eq!(node.journals[0].keys(), [key(1)]);
        assert_eq!(disk.files(), ["vltava-votes-0-a", "vltava-votes-0-b"]);
    });
}

#[test]
fn all_that_comes_during_a_write_shares_the_next() {
    run(async {
        let disk = FaultDisk::new(1);
        let node = Node::started(&disk, 1).await;
        let journal = &node.journals[0];
        journal.set(key(0), bytes("first")).await.unwrap();
        let chance = Rc::new(Chance::new(5));
        slow_down(&disk, &chance);
        let before = disk.operations();
        let mut tasks: Vec<Task> = Vec::new();
        for n in 0..1000 {
            let journal = Rc::clone(journal);
            tasks.push(Box::pin(async move {
                journal.set(key(n), bytes("vote")).await.unwrap();
                assert_eq!(journal.get(&key(n)), value("vote"));
            }));
        }
        run_all(&chance, tasks);
        let writes = disk.operations() - before;
        // The first goes alone; while it is written most of the others come.
        assert!(writes <= 16, "{writes} writes for 1000 votes");
        // Of several of one key the newest counts.
        let mut tasks: Vec<Task> = Vec::new();
        for n in 0..20 {
            let journal = Rc::clone(journal);
            tasks.push(Box::pin(async move {
                pause(n).await;
                journal.set(key(7), bytes(&format!("vote {n}"))).await.unwrap();
            }));
        }
        run_all(&chance, tasks);
        let last = journal.get(&key(7));
        let node = Node::started(&disk.restart(), 1).await;
        assert_eq!(node.loaded.get(&key(7)), last);
    });
}

#[test]
fn a_group_that_moves_takes_its_value_along() {
    run(async {
        let disk = FaultDisk::new(1);
        let node = Node::started(&disk, 2).await;
        let [busy, quiet] = [&node.journals[0], &node.journals[1]];
        for n in 0..50 {
            busy.set(key(1), bytes(&format!("{n}"))).await.unwrap();
        }
        // The quiet shard's next write has a lower number than all these, but for the move.
        quiet.take(key(1), busy.give(&key(1)).await.unwrap());
        assert_eq!(quiet.get(&key(1)), value("49"));
        quiet.set(key(1), bytes("newer")).await.unwrap();
        let moved = Node::started(&disk.restart(), 2).await;
        assert_eq!(moved.loaded.get(&key(1)), value("newer"));
        // And back, to be removed there: the other shard's file still has a value.
        let [first, second] = [&moved.journals[0], &moved.journals[1]];
        first.take(key(1), second.give(&key(1)).await.unwrap());
        first.set(key(1), None).await.unwrap();
        for shards in [2, 2, 3, 1] {
            let node = Node::started(&disk.restart(), shards).await;
            assert_eq!(node.loaded.get(&key(1)), Recorded::Nothing);
            node.journals[0].set(key(2), bytes("else")).await.unwrap();
        }
    });
}

#[test]
fn a_file_stays_small_and_a_full_disk_takes_votes_for_long() {
    run(async {
        let disk = FaultDisk::new(1);
        let node = Node::started(&disk, 1).await;
        let journal = &node.journals[0];
        for n in 0..2000 {
            journal.set(key(n % 100), bytes("a vote")).await.unwrap();
            for path in disk.files() {
                assert!(disk.content(&path).unwrap().len() <= 520 << 10);
            }
        }
        disk.set_capacity(0);
        let mut taken = 0;
        while journal.set(key(taken % 100), bytes(&format!("{taken}"))).await.is_ok() {
            taken += 1;
        }
        assert!((64..200).contains(&taken), "{taken}");
        assert!(journal.ended().is_none());
        assert_eq!(journal.get(&key((taken - 1) % 100)), value(&format!("{}", taken - 1)));
        disk.set_capacity(1 << 30);
        journal.set(key(0), bytes("again")).await.unwrap();
        let node = Node::started(&disk.restart(), 1).await;
        assert_eq!(node.loaded.get(&key(0)), value("again"));
        let last = (taken - 1) % 100;
        assert_eq!(node.loaded.get(&key(last)), value(&format!("{}", taken - 1)));
    });
}

#[test]
fn large_values_take_several_frames_and_too_large_ones_are_refused() {
    run(async {
        let disk = FaultDisk::new(1);
        let node = Node::started(&disk, 1).await;
        let journal = &node.journals[0];
        let large = |n: i32| Bytes::from(vec![n as u8; vltava_storage::VALUE_BYTES_MAX]);
        let refused = journal.set(key(0), Some(Bytes::from(vec![0; (64 << 10) + 1]))).await;
        assert!(matches!(refused, Err(StorageError::ValueTooLarge { .. })));
        let sets = (0..100).map(|n| journal.set(key(n), Some(large(n))));
        for set in futures_util::future::join_all(sets).await {
            set.unwrap();
        }
        for _ in 0..3 {
            let node = Node::started(&disk.restart(), 2).await;
            assert_eq!((node.lost().len(), node.damaged()), (0, 0));
            assert!((0..100).all(|n| node.loaded.get(&key(n)) == Recorded::Value(large(n))));
            node.journals[0].set(key(1), Some(large(1))).await.unwrap();
        }
    });
}

/// One load serves all shards, and a group's value goes with it to another thread.
#[test]
fn what_goes_between_shards_may_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<LoadedJournals>();
    crosses::<vltava_storage::Given>();
}

/// Whether a task was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Thousands of groups vote at once. Those whom one write answers are all woken by it: were they
/// woken one by the other, the next write would begin when the last of them has had its turn.
#[test]
fn a_write_wakes_all_whom_it_answers() {
    run(async {
        let disk = FaultDisk::new(1);
        let node = Node::started(&disk, 1).await;
        let journal = &node.journals[0];
        slow_down(&disk, &Rc::new(Chance::new(1)));
        let mut first = Box::pin(journal.set(key(0), bytes("alone")));
        let mut context = Context::from_waker(Waker::noop());
        assert!(first.as_mut().poll(&mut context).is_pending());
        let mut behind: Vec<_> = (1..GROUPS)
            .map(|n| (Arc::new(Woken::default()), Box::pin(journal.set(key(n), bytes("behind")))))
            .collect();
        for (woken, set) in &mut behind {
            let waker = Waker::from(Arc::clone(woken));
            assert!(set.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
        }
        first.await.unwrap();
        // It was woken as the first let go of the files: it writes for all.
        let writer = behind.iter().position(|(woken, _)| woken.0.load(Ordering::Relaxed)).unwrap();
        behind.swap_remove(writer).1.await.unwrap();
        assert!(behind.iter().all(|(woken, _)| woken.0.load(Ordering::Relaxed)));
    });
}

/// Whoever sets may give up halfway.
#[test]
fn a_write_that_nobody_waits_for_leaves_all_in_order() {
    for seed in 0..300 {
        run(async {
            let disk = FaultDisk::new(seed);
            let node = Node::started(&disk, 1).await;
            let journal = &node.journals[0];
            if seed % 2 == 0 {
                journal.set(key(0), bytes("first")).await.unwrap();
            }
            slow_down(&disk, &Rc::new(Chance::new(seed)));
            let mut waiting = Some(Box::pin(journal.set(key(2), bytes("waits"))));
            {
                let mut given_up = pin!(journal.set(key(1), bytes("given up")));
                let mut context = Context::from_waker(Waker::noop());
                for _ in 0..seed % 13 {
                    if given_up.as_mut().poll(&mut context).is_ready() {
                        break;
                    }
                    waiting.take_if(|waiting| waiting.as_mut().poll(&mut context).is_ready());
                }
            }
            if let Some(waiting) = waiting {
                waiting.await.unwrap();
            }
            assert_eq!(journal.get(&key(2)), value("waits"));
            journal.set(key(3), bytes("after")).await.unwrap();
            let node = Node::started(&disk.restart(), 1).await;
            assert_eq!(node.lost(), BTreeSet::new(), "seed {seed}");
            let found = [2, 3].map(|n| node.loaded.get(&key(n)));
            assert_eq!(found, [value("waits"), value("after")]);
            let given_up = node.loaded.get(&key(1));
            assert!(given_up == Recorded::Nothing || given_up == value("given up"));
        });
    }
}

#[test]
fn a_file_that_cannot_be_read_is_no_loss_where_its_copy_can() {
    run(async {
        let (disk, model, _) = first_life(3, NO_FAULT, 40).await;
        let model = RefCell::new(model);
        let reads = disk.reads();
        let probe = disk.restart();
        load_journals(&probe).await.unwrap();
        let count = probe.reads() - reads;
        let mut refused = 0;
        for at in 0..count {
            let disk = probe.restart();
            disk.inject(Fault::FailRead { at: disk.reads() + at });
            match load_journals(&disk).await {
                Ok(loaded) => model.borrow_mut().check(&loaded),
                Err(error) => {
                    assert!(matches!(error, StorageError::Unreadable(_)));
                    refused += 1;
                }
            }
        }
        assert_eq!(refused, 1, "the list of files");
    });
}

#[test]
fn another_version_is_refused() {
    run(async {
        let (disk, _, _) = first_life(3, NO_FAULT, 4).await;
        disk.damage("vltava-votes-0-a", |content| {
            content[7] = 2;
            let len = u32::from_be_bytes(content[8..12].try_into().unwrap()) as usize;
            let crc = crc32c::crc32c_append(crc32c::crc32c(&content[..12]), &content[16..][..len]);
            content[12..16].copy_from_slice(&crc.to_be_bytes());
        });
        let refused = load_journals(&disk.restart()).await;
        assert!(matches!(refused, Err(StorageError::Format { found: 2, known: 1, .. })));
    });
}
