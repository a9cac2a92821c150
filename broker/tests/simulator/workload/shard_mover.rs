//! Whoever moves partitions between the shards of nodes while everybody uses them.

use super::scraper::ask;
use super::{RETRY, Workload};
use crate::client::Client;
use crate::promise;

/// More shards than a node ever has: some moves go nowhere.
const SHARDS: u64 = 6;
/// Of the topic of offsets; some of them are not there.
const OFFSETS_PARTITIONS: u64 = 3;

/// Moves partitions, one after the other, until the run is to end.
pub async fn move_partitions(workload: &Workload, mut client: Client) {
    while !workload.is_finishing() {
        let which = client.random.index(workload.topics.len() + 1);
        let (topic, partitions) = match workload.topics.get(which) {
            Some(topic) => (&*topic.name, u64::try_from(topic.partitions).unwrap_or(1)),
            None => ("__consumer_offsets", OFFSETS_PARTITIONS),
        };
        let shard = client.random.between(0..=SHARDS - 1);
        let partition = client.random.between(0..=partitions - 1);
        let path = format!("/shards/{shard}/{topic}/{partition}");
        let address = *client.random.pick(&workload.brokers);
        match ask(&client, address, "POST", &path).await {
            Ok(Some((head, body))) => {
                let status = head.split(' ').nth(1).unwrap_or_default();
                // 408: the network held back what was asked.
                let is_known = ["200", "400", "404", "408", "503"].contains(&status);
                promise!(is_known, "a move to {path} was answered with {head}");
                if status == "200" && !body.contains(" in 0 us") {
                    workload.moved.set(workload.moved.get() + 1);
                }
                client.pause(workload.swarm.think_max).await;
            }
            // The process ended before it had answered.
            Ok(None) | Err(_) => client.pause(RETRY).await,
        }
    }
}
