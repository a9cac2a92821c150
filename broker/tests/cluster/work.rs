//! What a cluster is under while things happen to it: idempotent producers, readers, and a group;
//! and at the end everything that any of them knows, checked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vltava_protocol::types::Str;

use crate::check::{Ledger, Read, findings};
use crate::group::{self, Group};
use crate::producer::{Orders, Producer, Random};
use crate::support::wire;
use crate::view::{PATIENCE, await_agreement, connect, leader_of, metadata_of_any, until, within};

pub const PARTITIONS: i32 = 4;
const PRODUCERS: usize = 6;
const MEMBERS: usize = 2;

/// Producers, readers and a group at work on one topic, and how far each partition is.
pub struct Work {
    /// Where clients reach each node.
    nodes: BTreeMap<i32, SocketAddr>,
    topic: &'static str,
    orders: Arc<Orders>,
    totals: Vec<Arc<AtomicU64>>,
    producers: Vec<JoinHandle<Ledger>>,
    readers: Vec<JoinHandle<Vec<Read>>>,
    group: Arc<Group>,
    members: Vec<JoinHandle<()>>,
    _release: Release,
}

/// Lets all that are at work go, also where the test has failed.
struct Release {
    orders: Arc<Orders>,
    group: Arc<Group>,
}

impl Drop for Release {
    fn drop(&mut self) {
        self.orders.stop.store(true, Ordering::Release);
        self.group.stop.store(true, Ordering::Release);
    }
}

impl Work {
    /// On a topic that is there, of [`PARTITIONS`].
    pub fn begin(nodes: BTreeMap<i32, SocketAddr>, topic: &'static str, random: &Random) -> Self {
        let addresses: Vec<SocketAddr> = nodes.values().copied().collect();
        let orders = Arc::new(Orders::default());
        let totals: Vec<Arc<AtomicU64>> = (0..PARTITIONS).map(|_| Arc::default()).collect();
        let producer = |number: usize| {
            let partition = number % PARTITIONS as usize;
            let random = Random(random.0 ^ (number as u64 + 1) << 32);
            let producer = Producer::new(&addresses, topic, partition as i32, number, random);
            let (orders, total) = (Arc::clone(&orders), Arc::clone(&totals[partition]));
            let addresses = addresses.clone();
            thread::spawn(move || producer.run(&addresses, &orders, &total))
        };
        let producers = (0..PRODUCERS).map(producer).collect();
        let (asked, told) = (addresses.clone(), Arc::clone(&orders));
        let mut readers = vec![thread::spawn(move || read_along(&asked, topic, &told.stop))];
        for node in nodes.values().copied() {
            let told = Arc::clone(&orders);
            readers.push(thread::spawn(move || read_one(node, topic, &told.stop)));
        }
        let group = Arc::new(Group::new("readers", topic, PARTITIONS));
        let member = |_| {
            let (group, addresses) = (Arc::clone(&group), addresses.clone());
            thread::spawn(move || group::run(&group, &addresses))
        };
        let members = (0..MEMBERS).map(member).collect();
        let _release = Release { orders: Arc::clone(&orders), group: Arc::clone(&group) };
        Self { nodes, topic, orders, totals, producers, readers, group, members, _release }
    }

    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.values().copied().collect()
    }

    fn acknowledged(&self) -> Vec<u64> {
        self.totals.iter().map(|total| total.load(Ordering::Acquire)).collect()
    }

    /// Panics where one of the threads has.
    fn assert_alive(&self) {
        let ended = self.producers.iter().any(JoinHandle::is_finished)
            || self.readers.iter().any(JoinHandle::is_finished)
            || self.members.iter().any(JoinHandle::is_finished);
        assert!(!ended, "one of those at work has found something: see above");
    }

    /// Waits until more is acknowledged of each partition.
    pub fn await_progress(&self) -> Duration {
        self.await_progress_of(&(0..PARTITIONS).collect::<Vec<_>>())
    }

    /// Waits until more is acknowledged of each of these partitions; how long it took.
    pub fn await_progress_of(&self, partitions: &[i32]) -> Duration {
        let (before, began) = (self.acknowledged(), Instant::now());
        loop {
            let now = self.acknowledged();
            if partitions.iter().all(|it| now[*it as usize] > before[*it as usize]) {
                return began.elapsed();
            }
            self.assert_alive();
            assert!(
                began.elapsed() < PATIENCE,
                "partitions are at {now:?}, and were at {before:?}; as nodes have it: {:#?}",
                metadata_of_any(&self.addresses())
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until the group has committed more of some partition.
    pub fn await_group(&self) {
        let before = self.group.committed();
        until("the group commits nothing", || {
            self.assert_alive();
            self.group.committed().iter().zip(&before).any(|(now, then)| now > then).then_some(())
        });
    }

    /// All but these.
    fn survivors(&self, victims: &[i32]) -> Vec<SocketAddr> {
        let survivors = self.nodes.iter().filter(|(node, _)| !victims.contains(node));
        survivors.map(|(_, address)| *address).collect()
    }

    /// Waits until the survivors have other leaders than a node, and write with them.
    pub fn await_takeover(&self, victim: i32) {
        let survivors = self.survivors(&[victim]);
        until(&format!("partitions of node {victim} have no other leader"), || {
            let metadata = metadata_of_any(&survivors)?;
            let topic = metadata.topics.get(&Str::from(self.topic))?;
            let others_lead =
                topic.partitions.values().all(|it| it.leader.is_some_and(|it| it != victim));
            others_lead.then_some(())
        });
        self.await_progress();
    }

    /// Waits until all replicas are caught up, which under load they are for moments only.
    pub fn await_whole(&self) {
        self.orders.pause.store(true, Ordering::Release);
        await_agreement(&self.addresses(), &[self.topic]);
        self.orders.pause.store(false, Ordering::Release);
    }

    /// Which partitions a node leads, as the first of the others has it.
    pub fn led_by(&self, node: i32) -> Vec<i32> {
        let others = self.survivors(&[node]);
        let metadata = until("no node says who leads", || metadata_of_any(&others));
        let topic = &metadata.topics[&Str::from(self.topic)];
        let led = topic.partitions.iter().filter(|(_, it)| it.leader == Some(node));
        led.map(|(number, _)| *number).collect()
    }

    /// Who leads most, of those that have not had their turn.
    pub fn victim(&self, had: &mut Vec<i32>) -> i32 {
        if had.len() == self.nodes.len() {
            had.clear();
        }
        let metadata = until("no node says who leads", || metadata_of_any(&self.addresses()));
        let topic = &metadata.topics[&Str::from(self.topic)];
        let led =
            |node: i32| topic.partitions.values().filter(|it| it.leader == Some(node)).count();
        let left = self.nodes.keys().copied().filter(|node| !had.contains(node));
        let chosen = left.max_by_key(|node| led(*node)).expect("one is left");
        had.push(chosen);
        chosen
    }

    /// Lets producers finish what they have begun, and the group read to the end.
    pub fn end(self) -> History {
        let survivors = self.addresses();
        self.orders.stop.store(true, Ordering::Release);
        let mut broken = Vec::new();
        let ledgers = joined(self.producers, &mut broken);
        let mut served = vec![Vec::new(); PARTITIONS as usize];
        for reader in joined(self.readers, &mut broken) {
            for (partition, read) in served.iter_mut().zip(reader) {
                partition.push(read);
            }
        }
        let ends: Vec<i64> =
            self.totals.iter().map(|it| it.load(Ordering::Acquire) as i64).collect();
        if broken.is_empty() {
            within(PATIENCE, &format!("the group does not read to the ends, {ends:?}"), || {
                let is_running = !self.members.iter().any(JoinHandle::is_finished);
                (!is_running || self.group.committed() >= ends).then_some(())
            });
        }
        self.group.stop.store(true, Ordering::Release);
        let _none: Vec<()> = joined(self.members, &mut broken);
        assert!(broken.is_empty(), "those at work have found something: {broken:#?}");
        History { topic: self.topic, addresses: survivors, ledgers, served, group: self.group }
    }
}

/// What threads return; what one panicked with is kept, so that others' are told, too.
fn joined<T>(threads: Vec<JoinHandle<T>>, broken: &mut Vec<String>) -> Vec<T> {
    let mut results = Vec::new();
    for thread in threads {
        match thread.join() {
            Ok(result) => results.push(result),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(|it| (*it).to_owned()));
                broken.push(text.unwrap_or_default());
            }
        }
    }
    results
}

/// What all that were at work know, once they have ended.
pub struct History {
    topic: &'static str,
    addresses: Vec<SocketAddr>,
    ledgers: Vec<Ledger>,
    /// By partition, what each reader was served.
    served: Vec<Vec<Read>>,
    group: Arc<Group>,
}

impl History {
    /// Each record of each producer is there once, in order, and where it was acknowledged; and
    /// what was served meanwhile is there as it was served. Returns how many there are.
    pub fn check(&self) -> u64 {
        let mut wrong = Vec::new();
        for (partition, served) in (0..PARTITIONS).zip(&self.served) {
            let mine = self.ledgers.iter().filter(|ledger| ledger.partition == partition);
            let expected = mine.map(|ledger| ledger.sent).sum();
            let log = read_whole(&self.addresses, self.topic, partition, expected);
            let longest = served.iter().map(Vec::len).max().unwrap_or(0);
            assert!(longest > 0, "nothing of partition {partition} was served meanwhile");
            wrong.extend(findings(partition, &self.ledgers, &log, served));
            wrong.extend(self.group.findings(partition, &log));
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        self.ledgers.iter().map(|ledger| ledger.sent).sum()
    }
}

/// Reads all partitions as they grow, from whoever leads: what was served meanwhile.
fn read_along(addresses: &[SocketAddr], topic: &str, stop: &AtomicBool) -> Vec<Read> {
    let mut addresses = addresses.to_vec();
    let mut links = BTreeMap::new();
    let mut served = vec![Vec::new(); PARTITIONS as usize];
    while !stop.load(Ordering::Acquire) {
        for (partition, records) in (0..PARTITIONS).zip(&mut served) {
            let Some(leader) = leader_of(&addresses, topic, partition) else { continue };
            let link = match links.remove(&leader) {
                Some(link) => Ok(link),
                None => connect(leader),
            };
            let Ok(mut link) = link else { continue };
            if wire::read_on(&mut link, topic, partition, records).is_ok() {
                links.insert(leader, link);
            }
        }
        addresses.rotate_left(1);
        thread::sleep(Duration::from_millis(5));
    }
    served
}

/// Reads from one node whatever it takes itself to lead, be it so or not.
fn read_one(address: SocketAddr, topic: &str, stop: &AtomicBool) -> Vec<Read> {
    let mut kept = None;
    let mut served = vec![Vec::new(); PARTITIONS as usize];
    while !stop.load(Ordering::Acquire) {
        thread::sleep(Duration::from_millis(20));
        let Some(mut link) = kept.take().or_else(|| connect(address).ok()) else { continue };
        let mut read = |(partition, records): (i32, &mut Read)| {
            wire::read_on(&mut link, topic, partition, records)
        };
        if (0..PARTITIONS).zip(&mut served).try_for_each(&mut read).is_ok() {
            kept = Some(link);
        }
    }
    served
}

/// All records of a partition, once its leader has them.
fn read_whole(addresses: &[SocketAddr], topic: &str, partition: i32, expected: u64) -> Read {
    let mut records = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(leader) = leader_of(addresses, topic, partition)
            && let Ok(mut link) = connect(leader)
        {
            drop(wire::read_on(&mut link, topic, partition, &mut records));
        }
        if records.len() as u64 >= expected || Instant::now() > deadline {
            return records;
        }
        thread::sleep(Duration::from_millis(10));
    }
}
