//! An operator: lets nodes join the cluster, drains them, takes that back, and removes them, by the
//! requests of `vltava cluster add`, `drain` and `remove`, and waits as these do.

use std::collections::BTreeSet;
use std::time::Duration;

use vltava::cluster::node_settings::{ADDRESS, STATE};
use vltava::metadata::image::NodeState;
use vltava::runtime::Runtime;
use vltava::runtime::sim::MILLION;
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::messages::incremental_alter_configs::{
    AlterConfigsResource, AlterableConfig, IncrementalAlterConfigsRequest,
};
use vltava_protocol::messages::unregister_broker::UnregisterBrokerRequest;
use vltava_protocol::types::Str;

use super::{ARRIVAL, RETRY, Workload};
use crate::client::{CallError, Client};
use crate::cluster::Cluster;
use crate::promise;

/// A resource of this type is a node.
const NODE: i8 = 4;
const SET: i8 = 0;
/// Between two changes, at most.
const PAUSE: Duration = Duration::from_secs(5);

struct Operator<'a> {
    workload: &'a Workload,
    cluster: &'a Cluster,
    client: Client,
    /// Places of which something was asked that was not answered: it may happen later, also to
    /// another node under that number.
    in_doubt: BTreeSet<usize>,
}

/// Lets nodes come and go until the run is to end, and the last change is done.
pub async fn operate(workload: &Workload, client: Client) {
    let cluster = &workload.cluster;
    let mut operator = Operator { workload, cluster, client, in_doubt: BTreeSet::new() };
    while !workload.is_finishing() {
        operator.client.pause(PAUSE).await;
        operator.change().await;
    }
    operator.settle().await;
}

impl Operator<'_> {
    async fn change(&mut self) {
        let random = &mut self.client.random;
        let leaving = self.cluster.draw_leaving(random);
        let outside: Vec<usize> = self.cluster.places(false);
        let outside = outside.into_iter().filter(|place| !self.in_doubt.contains(place));
        let coming: Vec<usize> = outside.collect();
        let is_more = random.chance(MILLION / 2);
        match (leaving, &coming[..]) {
            (Some(node), []) => self.see_off(node).await,
            (Some(node), _) if !is_more => self.see_off(node).await,
            (_, []) => {}
            (_, coming) => {
                let node = *random.pick(coming);
                self.add(node).await;
            }
        }
    }

    /// A node is added and started, in either order.
    async fn add(&mut self, node: usize) {
        self.note(&format!("node {} is to join", Cluster::id(node)));
        let is_first = self.client.random.chance(MILLION / 2);
        if is_first {
            self.cluster.come(node, &mut self.client.random).await;
            self.client.pause(PAUSE).await;
        }
        let address = self.cluster.peer_address(node);
        while !self.set(node, ADDRESS, &address).await.unwrap_or(false) {
            self.client.pause(RETRY).await;
        }
        if !is_first {
            self.client.pause(PAUSE).await;
            self.cluster.come(node, &mut self.client.random).await;
        }
        while !self.cluster.is_known_to_all(node) {
            self.client.pause(RETRY).await;
        }
        self.note(&format!("node {} has joined", Cluster::id(node)));
        self.workload.came.set(self.workload.came.get() + 1);
    }

    /// Whether the controller says that there is no such node: who has just begun to lead may know
    /// less.
    async fn is_forgotten(&mut self, node: usize) -> bool {
        let error = self.unregister(node).await;
        error.is_ok_and(|error| error == ErrorCode::BROKER_ID_NOT_REGISTERED)
    }

    /// A node is drained and taken back, or removed, with or without being drained before.
    async fn see_off(&mut self, node: usize) {
        if self.client.random.chance(MILLION / 2) {
            self.note(&format!("node {} is drained", Cluster::id(node)));
            let _answered = self.set(node, STATE, "draining").await;
            self.client.pause(PAUSE).await;
            if self.client.random.chance(MILLION / 2) {
                // What a removed node kept may be waiting for it to take replicas again.
                while !self.set(node, STATE, "there").await.unwrap_or(false) {
                    self.client.pause(RETRY).await;
                }
                return;
            }
        }
        self.workload.checkers.replicas.borrow_mut().nodes_may_leave();
        self.note(&format!("node {} is to leave", Cluster::id(node)));
        loop {
            match self.cluster.state_of(node) {
                Some(None) if self.is_forgotten(node).await => break,
                None | Some(None) | Some(Some(NodeState::Removing)) => {}
                Some(_) => {
                    let _answered = self.set(node, STATE, "removing").await;
                }
            }
            self.client.pause(RETRY).await;
        }
        self.cluster.leave(node, &mut self.client.random).await;
        self.workload.left.set(self.workload.left.get() + 1);
    }

    /// What was asked once and not answered has happened by now, or never does: who is there stays,
    /// and nobody else is waited for.
    async fn settle(&mut self) {
        let until = self.client.runtime.now().after(ARRIVAL);
        self.client.runtime.sleep_until(until).await;
        for node in self.in_doubt.clone() {
            let is_in = self.cluster.places(true).contains(&node);
            loop {
                match self.cluster.state_of(node) {
                    Some(Some(NodeState::There)) if is_in => break,
                    Some(_) if is_in => {
                        let _answered = self.set(node, STATE, "there").await;
                    }
                    Some(_) if self.is_forgotten(node).await => break,
                    _ => {}
                }
                self.client.pause(RETRY).await;
            }
        }
    }

    /// Says what is wanted of a node; whether that was taken.
    async fn set(
        &mut self,
        node: usize,
        name: &'static str,
        value: &str,
    ) -> Result<bool, CallError> {
        let config = AlterableConfig {
            name: Str::from_static(name),
            config_operation: SET,
            value: Some(Str::from(value)),
        };
        let request = IncrementalAlterConfigsRequest {
            resources: vec![AlterConfigsResource {
                resource_type: NODE,
                resource_name: Str::from(Cluster::id(node).to_string()),
                configs: vec![config],
            }],
            validate_only: false,
        };
        let was_in_doubt = !self.in_doubt.insert(node);
        let answer = self.client.call(0, |_| request).await?;
        let mut is_taken = true;
        for told in &answer.responses {
            let error = told.error_code;
            // An earlier request may have been done, and its node be gone.
            let is_done = was_in_doubt && error == ErrorCode::BROKER_ID_NOT_REGISTERED;
            promise!(
                error.is_none() || error.is_retriable() || is_done,
                "{name}={value} of node {}: {} {:?}",
                Cluster::id(node),
                error.name(),
                told.error_message
            );
            is_taken &= error.is_none();
        }
        if is_taken && !was_in_doubt {
            self.in_doubt.remove(&node);
        }
        if !is_taken {
            // It may be one that was removed and has not heard of it.
            self.client.leave_home();
        }
        Ok(is_taken)
    }

    /// What the controller says to a node that is to be forgotten.
    async fn unregister(&mut self, node: usize) -> Result<ErrorCode, CallError> {
        let broker_id = Cluster::id(node);
        let was_in_doubt = !self.in_doubt.insert(node);
        let answer = self.client.call(0, |_| UnregisterBrokerRequest { broker_id }).await?;
        let error = answer.error_code;
        // It may keep replicas still.
        let is_told = error == ErrorCode::BROKER_ID_NOT_REGISTERED
            || error == ErrorCode::INVALID_REQUEST
            || error.is_none();
        promise!(
            is_told || error.is_retriable(),
            "UnregisterBroker of node {broker_id}: {} {:?}",
            error.name(),
            answer.error_message
        );
        if is_told && !was_in_doubt {
            self.in_doubt.remove(&node);
        }
        if !is_told {
            self.client.leave_home();
        }
        Ok(error)
    }

    fn note(&self, what: &str) {
        self.workload.simulation.executor().note(what);
    }
}
