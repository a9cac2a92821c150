//! Reading: consumers without a group, and the reading of everything at the end.

use std::collections::BTreeMap;

use vltava::runtime::sim::MILLION;

use super::fetch::Fetcher;
use super::lookup::{list_end, list_start};
use super::{RETRY, Topic, Workload};
use crate::checkers::{Partition, RecordId};
use crate::client::Client;
use crate::promise;

/// Reads a random topic again and again, each time from its start, from its leaders or from any
/// replicas, until the run is to end. Now and then it forgets a partition for a while.
pub async fn consume(workload: &Workload, mut client: Client) {
    while !workload.is_finishing() {
        let topic = &workload.topics[client.random.index(workload.topics.len())];
        let is_near = client.only_broker().is_none() && client.random.chance(MILLION / 2);
        let mut fetcher = match is_near {
            true => Fetcher::near(workload, &mut client, topic),
            false => Fetcher::new(workload, &mut client, topic),
        };
        let mut positions: BTreeMap<i32, i64> = (0..topic.partitions).map(|p| (p, 0)).collect();
        let mut resting = BTreeMap::new();
        for _ in 0..client.random.mostly_small(1..=50) {
            match fetcher.fetch(&mut client, &positions).await {
                Ok(fetched) => {
                    for fetched in fetched {
                        positions.insert(fetched.partition.1, fetched.next);
                    }
                }
                Err(_) => client.pause(RETRY).await,
            }
            if client.random.chance(MILLION / 8) {
                positions.append(&mut resting);
            } else if client.random.chance(MILLION / 8) && positions.len() > 1 {
                let index = client.random.index(positions.len());
                let rests = positions.keys().nth(index).copied();
                resting.extend(rests.and_then(|index| positions.remove_entry(&index)));
            }
            if client.random.chance(MILLION / 4) {
                client.pause(workload.swarm.think_max).await;
            }
            if workload.is_finishing() {
                return;
            }
        }
        // What it says may be older than the answers of other clients that come before it.
        let _ = list_end(workload, &mut client, topic).await;
    }
}

/// What a partition holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WholeLog {
    /// Where it starts.
    pub start: i64,
    /// From there on: offsets and records.
    pub records: Vec<(i64, RecordId)>,
}

/// The whole of each partition.
pub type ReadThrough = BTreeMap<Partition, WholeLog>;

impl WholeLog {
    /// Checks that `later` is the same log: it may have lost its begin, and nothing else. More may
    /// have come, where that is said.
    pub fn check_later(&self, partition: &Partition, later: &Self, may_grow: bool) {
        let kept = self.records.iter().filter(|(offset, _)| *offset >= later.start);
        let next = self.records.last().map_or(self.start, |(last, _)| last + 1);
        let compared = later.records.iter().filter(|(offset, _)| !may_grow || *offset < next);
        promise!(
            later.start >= self.start && kept.eq(compared),
            "{partition:?}: {} records from {} on before, {} from {} on after",
            self.records.len(),
            self.start,
            later.records.len(),
            later.start
        );
    }
}

/// Reads every partition of the run's topics from its start to its end, however long it takes.
pub async fn read_through(workload: &Workload, client: &mut Client) -> ReadThrough {
    let mut whole = ReadThrough::new();
    for topic in workload.topics.iter() {
        whole.extend(read_topic(workload, client, topic).await);
    }
    whole
}

/// Reads every partition of a topic from its start to its end, however long it takes.
pub async fn read_topic(workload: &Workload, client: &mut Client, topic: &Topic) -> ReadThrough {
    let ends = loop {
        let ends = list_end(workload, client, topic).await.unwrap_or_default();
        let known: BTreeMap<i32, i64> =
            ends.iter().filter_map(|(&index, &end)| Some((index, end?))).collect();
        if known.len() == topic.partitions.unsigned_abs() as usize {
            break known;
        }
        client.pause(RETRY).await;
    };
    let mut whole: ReadThrough =
        topic.all().map(|partition| (partition, WholeLog::default())).collect();
    let mut positions: BTreeMap<i32, i64> = (0..topic.partitions).map(|p| (p, 0)).collect();
    let mut fetcher = Fetcher::new(workload, client, topic);
    loop {
        positions.retain(|index, position| *position < ends[index]);
        if positions.is_empty() {
            break;
        }
        let Ok(fetched) = fetcher.fetch(client, &positions).await else {
            client.pause(RETRY).await;
            continue;
        };
        if fetched.is_empty() {
            client.pause(RETRY).await;
        }
        for fetched in fetched {
            positions.insert(fetched.partition.1, fetched.next);
            whole.entry(fetched.partition).or_default().records.extend(fetched.records);
        }
    }
    for (partition, log) in &mut whole {
        log.start = loop {
            match list_start(workload, client, topic, partition.1).await {
                Ok(Some(start)) => break start,
                _ => client.pause(RETRY).await,
            }
        };
        // Read before it was deleted.
        log.records.retain(|(offset, _)| *offset >= log.start);
    }
    whole
}
