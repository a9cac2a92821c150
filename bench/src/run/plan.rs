//! Who does what: the clients of a scenario, divided among workers.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use vltava_client::blocking::{self, Cluster};
use vltava_client::error::ClientError;
use vltava_client::metadata::{Metadata, TopicPartition};
use vltava_protocol::messages::init_producer_id::InitProducerIdRequest;
use vltava_protocol::types::Str;

use crate::engine::class::Class;
use crate::engine::client::ClientPlan;
use crate::engine::consumer::ConsumerPlan;
use crate::engine::group::{Group, MemberPlan};
use crate::engine::map::{Map, Node, Place, index};
use crate::engine::producer::ProducerPlan;
use crate::scenario::{Consumers, Fill, Producers, Scenario};

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
            let bytes_max = None;
            let plan = ProducerPlan { number, class, place, bytes_max, identity };
            plans.push(ClientPlan::Producer(plan));
            number += 1;
        }
    }
    Ok(plans)
}

/// A producer that writes what is to be there beforehand, as fast as it goes.
pub fn filler(fill: &Fill, number: u32, map: &Map) -> ClientPlan {
    let record_bytes = fill.record_bytes.clone();
    let batch_bytes = fill.batch_bytes;
    let spec = Producers { record_bytes, batch_bytes, ..Producers::default() };
    let class = Arc::new(Class::new(0, &spec, map, 0));
    let bytes_max = Some(fill.bytes);
    let (place, identity) = (0, None);
    ClientPlan::Producer(ProducerPlan { number, class, place, bytes_max, identity })
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

/// What the group is called that is this reader.
pub fn group_name(reader: &ConsumerPlan, map: &Map) -> Str {
    // No other group has the name of this run's first topic and this reader's number.
    let first = map.topics.first().map_or("", |topic| topic.name.as_str());
    Str::from(format!("{first}-readers-{}", reader.reader))
}

/// The members of a group, which share a class evenly with those of others: group `number` of it.
pub fn members(
    reader: ConsumerPlan,
    number: u32,
    name: Str,
    coordinator: Node,
    metadata: Arc<Metadata>,
) -> Vec<ClientPlan> {
    let class = &reader.class;
    let more = u32::from(number < class.count % class.groups);
    let members = class.count / class.groups + more;
    let assigned = (0..members).map(|_| AtomicUsize::new(0)).collect();
    let group = Arc::new(Group { reader, name, coordinator, metadata, assigned });
    let plan = |number| ClientPlan::Member(MemberPlan { group: Arc::clone(&group), number });
    (0..members).map(plan).collect()
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

#[cfg(test)]
mod tests {
    use vltava_client::blocking::Address;

    use super::*;

    #[test]
    fn members_of_a_group_are_spread_over_threads() {
        let class = Arc::new(Consumers { count: 7, groups: 2, ..Consumers::default() });
        let address = Address { host: String::from("localhost"), port: 9092 };
        let coordinator = Node { id: 1, address };
        let of = |number: u32| {
            let reader = consumer(&class, number, vec![0, 1], &Arc::new(vec![0, 0]), 1);
            let name = group_name(&reader, &Map::default());
            members(reader, number, name, coordinator.clone(), Arc::default())
        };
        assert_eq!((of(0).len(), of(1).len()), (4, 3));
        let hands = deal(of(0), 2);
        assert_eq!(hands.iter().map(Vec::len).collect::<Vec<usize>>(), [2, 2]);
        let number = |client: &ClientPlan| match client {
            ClientPlan::Member(member) => Some(member.number),
            ClientPlan::Producer(_) | ClientPlan::Consumer(_) => None,
        };
        assert_eq!(hands[1].iter().map(number).collect::<Vec<_>>(), [Some(1), Some(3)]);
    }
}
