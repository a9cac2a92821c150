//! The way to a partition: clients ask any node who leads, go there, and ask again when that is
//! denied.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use vltava_protocol::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponsePartition,
};
use vltava_protocol::types::Str;

use super::Topic;
use crate::checkers::{Partition, violation};
use crate::client::{CallError, Client, Leader};

/// Metadata tells epochs of leaders and ids of topics from this version on.
const WITH_IDS: i16 = 10;

/// Where to go for a partition, and the epoch to name there (-1: none); `None` where no leader is
/// known now.
pub async fn leader(
    client: &mut Client,
    topic: &Topic,
    index: i32,
) -> Result<Option<Leader>, CallError> {
    if let Some(address) = client.only_broker() {
        return Ok(Some(Leader { address, epoch: -1 }));
    }
    let partition = (Rc::clone(&topic.key), index);
    if client.leader(&partition).is_none() {
        learn(client, topic).await?;
    }
    let leader = client.leader(&partition);
    if leader.is_none() {
        // Another may know.
        client.leave_home();
    }
    Ok(leader)
}

/// The partitions among these that have a leader, by where that is, with its epoch.
pub async fn by_leader(
    client: &mut Client,
    topic: &Topic,
    indexes: impl Iterator<Item = i32>,
) -> Result<BTreeMap<SocketAddr, BTreeMap<i32, i32>>, CallError> {
    let mut led: BTreeMap<SocketAddr, BTreeMap<i32, i32>> = BTreeMap::new();
    let mut is_asked = false;
    for index in indexes {
        let partition: Partition = (Rc::clone(&topic.key), index);
        let known = client.leader(&partition);
        if is_asked && client.only_broker().is_none() && known.is_none() {
            continue;
        }
        match leader(client, topic, index).await? {
            Some(Leader { address, epoch }) => {
                led.entry(address).or_default().insert(index, epoch);
            }
            None => is_asked = true,
        }
    }
    Ok(led)
}

/// A replica of each partition of a topic, drawn of those that are in sync, with the leader's
/// epoch: the leader's now and then, and mostly a follower's.
pub async fn some_replicas(
    client: &mut Client,
    topic: &Topic,
) -> Result<BTreeMap<i32, Leader>, CallError> {
    let answer = metadata(client, topic).await?;
    let nodes = nodes(&answer);
    let mut drawn = BTreeMap::new();
    for partition in partitions(&answer, topic) {
        let in_sync = partition.isr_nodes.iter().filter_map(|node| nodes.get(node));
        let addresses: Vec<SocketAddr> = in_sync.copied().collect();
        if partition.error_code.is_none() && !addresses.is_empty() {
            let address = *client.random.pick(&addresses);
            drawn.insert(
                partition.partition_index,
                Leader { address, epoch: partition.leader_epoch },
            );
        }
    }
    Ok(drawn)
}

async fn metadata(client: &mut Client, topic: &Topic) -> Result<MetadataResponse, CallError> {
    let request = MetadataRequest {
        topics: Some(vec![MetadataRequestTopic {
            name: Some(Str::from(&*topic.name)),
            ..MetadataRequestTopic::default()
        }]),
        allow_auto_topic_creation: false,
        ..MetadataRequest::default()
    };
    client.call(WITH_IDS, |_| request).await
}

fn partitions<'a>(
    answer: &'a MetadataResponse,
    topic: &Topic,
) -> impl Iterator<Item = &'a MetadataResponsePartition> {
    let told = answer.topics.iter().find(|told| told.topic_id == topic.id.get());
    told.into_iter().flat_map(|told| &told.partitions)
}

async fn learn(client: &mut Client, topic: &Topic) -> Result<(), CallError> {
    let answer = metadata(client, topic).await?;
    let nodes = nodes(&answer);
    for partition in partitions(&answer, topic) {
        if let Some(&address) = nodes.get(&partition.leader_id)
            && partition.error_code.is_none()
        {
            let epoch = partition.leader_epoch;
            let key = (Rc::clone(&topic.key), partition.partition_index);
            client.hear(&key, Leader { address, epoch });
        }
    }
    Ok(())
}

fn nodes(answer: &MetadataResponse) -> BTreeMap<i32, SocketAddr> {
    let nodes = answer.brokers.iter();
    nodes.map(|broker| (broker.node_id, address(&broker.host, broker.port))).collect()
}

/// The address that an answer names.
pub fn address(host: &str, port: i32) -> SocketAddr {
    let parsed = host.parse::<IpAddr>().ok().zip(u16::try_from(port).ok());
    match parsed {
        Some((host, port)) => SocketAddr::new(host, port),
        None => violation(format!("a node is said to be at {host}:{port}")),
    }
}
