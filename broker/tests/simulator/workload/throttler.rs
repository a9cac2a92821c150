//! An operator who throttles replicas while they move, and ends that when the run is to end: what
//! is in sync is never held back, and what moves arrives.

use std::time::Duration;

use vltava::runtime::Runtime;
use vltava::runtime::sim::MILLION;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::types::Str;

use super::{ARRIVAL, RETRY, Workload};
use crate::client::{CallError, Client};
use crate::promise;

/// Types of resources.
const TOPIC: i8 = 2;
const NODE: i8 = 4;
/// Operations of `IncrementalAlterConfigs`.
const SET: i8 = 0;
const DELETE: i8 = 1;
/// Bytes per second of each node.
const RATES: [&str; 2] =
    ["leader.replication.throttled.rate", "follower.replication.throttled.rate"];
/// Whom they concern.
const LISTS: [&str; 2] =
    ["leader.replication.throttled.replicas", "follower.replication.throttled.replicas"];
/// Between two changes, at most.
const PAUSE: Duration = Duration::from_secs(10);

/// Sets rates and takes them back until the run is to end.
pub async fn throttle(workload: &Workload, mut client: Client) {
    while !workload.is_finishing() {
        client.pause(PAUSE).await;
        let rate = client.random.mostly_small(0..=1_000_000);
        let is_set = client.random.chance(MILLION * 3 / 4);
        let taken = alter(workload, &mut client, is_set.then_some(rate)).await;
        if !taken.unwrap_or(false) {
            client.pause(RETRY).await;
        }
    }
    // What was not answered may happen later.
    client.runtime.sleep_until(client.runtime.now().after(ARRIVAL)).await;
    while !alter(workload, &mut client, None).await.unwrap_or(false) {
        client.pause(RETRY).await;
    }
}

/// Throttles all replicas to this rate, or none; whether that was taken.
async fn alter(
    workload: &Workload,
    client: &mut Client,
    rate: Option<u64>,
) -> Result<bool, CallError> {
    let rate = rate.map(|rate| rate.to_string());
    let mut resources = vec![resource(NODE, "", RATES, rate.as_deref())];
    for topic in workload.topics.iter() {
        resources.push(resource(TOPIC, &topic.name, LISTS, rate.as_ref().map(|_| "*")));
    }
    let executor = workload.simulation.executor();
    executor.note(&format!("{}: replicas are throttled to {rate:?}", client.name));
    let request = IncrementalAlterConfigsRequest { resources, validate_only: false };
    let answer = client.call(0, |_| request).await?;
    for told in &answer.responses {
        let error = told.error_code;
        promise!(
            error.is_none() || error.is_retriable(),
            "throttles of {:?} to {rate:?}: {} {:?}",
            told.resource_name,
            error.name(),
            told.error_message
        );
    }
    Ok(answer.responses.iter().all(|told| told.error_code.is_none()))
}

fn resource(
    resource_type: i8,
    name: &str,
    settings: [&'static str; 2],
    value: Option<&str>,
) -> AlterConfigsResource {
    let configs = settings.map(|name| AlterableConfig {
        name: Str::from_static(name),
        config_operation: if value.is_some() { SET } else { DELETE },
        value: value.map(Str::from),
    });
    AlterConfigsResource {
        resource_type,
        resource_name: Str::from(name),
        configs: configs.to_vec(),
    }
}
