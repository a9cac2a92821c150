//! Who does what: the clients of a scenario, divided among workers.

use std::sync::Arc;

use vltava_client::blocking::{self, Cluster};
use vltava_client::error::ClientError;
use vltava_client::metadata::TopicPartition;
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::types::Str;

use crate::engine::class::Class;
use crate::engine::client::ClientPlan;
use crate::engine::consumer::ConsumerPlan;
use crate::engine::group::GroupPlan;
use crate::engine::map::{Map, Node, Place, index};
use crate::engine::producer::ProducerPlan;
use crate::scenario::{Consumers, Fill, Producers, Scenario, Size};

/// The producers of a scenario, with numbers from `first` on.
pub fn producers(
    cluster: &mut Cluster,
    scenario: &Scenario,
    map: &Map,
    first: u32,
) -> Result<Vec<ClientPlan>, ClientError> {
    let mut plans = Vec::new();
    let mut number = first;
    for (class, spec) in scenario.producers.iter().enumerate() {
        let class = Arc::new(Class::new(class, spec, map, u64::from(number)));
        for place in 0..spec.count {
            let identity = if spec.idempotent { Some(identity(cluster)?) } else { None };
            let class = Arc::clone(&class);
            let records_max = None;
            let plan = ProducerPlan { number, class, place, records_max, identity };
            plans.push(ClientPlan::Producer(plan));
            number += 1;
        }
    }
    Ok(plans)
}

/// A producer that writes what is to be there beforehand, as fast as it goes.
pub fn filler(fill: &Fill, number: u32, map: &Map) -> ClientPlan {
    let record_bytes = Size::Fixed(fill.record_bytes);
    let batch_bytes = fill.batch_bytes;
    let spec = Producers { record_bytes, batch_bytes, ..Producers::default() };
    let class = Arc::new(Class::new(0, &spec, map, 0));
    let records_max = Some(fill.bytes.div_ceil(u64::from(fill.record_bytes.max(1))));
    let (place, identity) = (0, None);
    ClientPlan::Producer(ProducerPlan { number, class, place, records_max, identity })
}

/// A consumer that reads by itself.
pub fn consumer(
    class: &Arc<Consumers>,
    reader: u32,
    partitions: Vec<u32>,
    offsets: &Arc<Vec<i64>>,
    producers: u32,
) -> ConsumerPlan {
    ConsumerPlan {
        reader,
        class: Arc::clone(class),
        partitions,
        offsets: Arc::clone(offsets),
        producers,
        may_begin_late: false,
        ends: None,
    }
}

/// A group of members that share a class evenly, group `number` of its class.
pub fn group(
    cluster: &mut Cluster,
    reader: ConsumerPlan,
    number: u32,
    map: &Map,
) -> Result<GroupPlan, ClientError> {
    let class = &reader.class;
    let more = u32::from(number < class.count % class.groups);
    let members = class.count / class.groups + more;
    // No other group has the name of this run's first topic and this reader's number.
    let first = map.topics.first().map_or("", |topic| topic.name.as_str());
    let name = Str::from(format!("{first}-readers-{}", reader.reader));
    let coordinator = cluster.coordinator(&name)?;
    let metadata = Arc::new(cluster.metadata().clone());
    let coordinator = Node::of(&metadata, coordinator)?;
    Ok(GroupPlan { reader, name, members, coordinator, metadata })
}

/// Connections that have asked for the broker's versions, and ask for nothing else while they are
/// held: the same number to each node, or one less.
pub fn idle(count: u32, map: &Map) -> Result<Vec<blocking::Link>, ClientError> {
    let client_id = Str::from_static("vltava-bench-idle");
    let nodes = map.nodes.iter().cycle().take(index(count));
    nodes.map(|node| blocking::Link::open(&node.address, &client_id)).collect()
}

/// Where partitions begin or end now, by their numbers.
pub fn offsets(
    cluster: &mut Cluster,
    map: &Map,
    timestamp: i64,
) -> Result<Arc<Vec<i64>>, ClientError> {
    let name = |place: &Place| TopicPartition {
        topic: map.topics[index(place.topic)].name.clone(),
        partition: place.partition,
    };
    let names: Vec<TopicPartition> = map.partitions.iter().map(name).collect();
    let wanted: Vec<(TopicPartition, i64)> =
        names.iter().map(|name| (name.clone(), timestamp)).collect();
    let found = cluster.list_offsets(&wanted)?;
    let offset = |name: &TopicPartition| {
        let missing = || ClientError::Missing(format!("an offset of {name}"));
        found.get(name).copied().ok_or_else(missing)
    };
    Ok(Arc::new(names.iter().map(offset).collect::<Result<_, _>>()?))
}

/// Deals clients out to so many workers at most.
pub fn deal(clients: Vec<ClientPlan>, workers: usize) -> Vec<Vec<ClientPlan>> {
    let count = workers.min(clients.len()).max(1);
    let mut hands: Vec<Vec<ClientPlan>> = (0..count).map(|_| Vec::new()).collect();
    for (place, client) in clients.into_iter().enumerate() {
        hands[place % count].push(client);
    }
    hands
}

fn identity(cluster: &mut Cluster) -> Result<(i64, i16), ClientError> {
    let request =
        InitProducerIdRequest { transactional_id: None, ..InitProducerIdRequest::default() };
    let given = cluster.retry(|cluster| {
        let given = cluster.call_any(&request)?;
        ClientError::check(given.error_code, None, "asking for a producer id")?;
        Ok(given)
    })?;
    Ok((given.producer_id, given.producer_epoch))
}
