//! A cluster, reached over as many connections as it takes.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::message::Request;
use vltava_protocol::messages::find_coordinator::{
    FindCoordinatorRequest, FindCoordinatorResponse,
};
use vltava_protocol::messages::list_offsets::ListOffsetsRequest;
use vltava_protocol::types::Str;

use crate::backoff::Backoff;
use crate::blocking::{Address, Link};
use crate::error::ClientError;
use crate::metadata::{Metadata, NodeId, TopicPartition};
use crate::offsets;

/// From this version on, FindCoordinator has a list of keys.
const FIND_COORDINATOR_KEYS: i16 = 4;

/// How a cluster is reached.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// What the client calls itself.
    pub client_id: Str,
    /// How long to try again what may succeed later.
    pub retry_for: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { client_id: Str::from_static("vltava"), retry_for: Duration::from_secs(30) }
    }
}

/// Connections to the brokers of a cluster.
#[derive(Debug)]
pub struct Cluster {
    bootstrap: Vec<Address>,
    options: ClusterOptions,
    started: Instant,
    metadata: Metadata,
    /// Connections by node; those to bootstrap addresses are made for metadata, and dropped.
    links: BTreeMap<NodeId, Link>,
    coordinators: BTreeMap<Str, NodeId>,
    failed_attempts: usize,
}

impl Cluster {
    /// Asks the first of the addresses that answers for the brokers of its cluster. Does not try
    /// twice: a broker that is not there should be told at once.
    pub fn connect(bootstrap: Vec<Address>, options: ClusterOptions) -> Result<Self, ClientError> {
        let mut cluster = Self {
            bootstrap,
            options,
            started: Instant::now(),
            metadata: Metadata::default(),
            links: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            failed_attempts: 0,
        };
        cluster.refresh(Some(&[]), false)?;
        Ok(cluster)
    }

    /// Milliseconds since this was made: the clock of whatever it drives.
    pub fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// What is known of the cluster.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Asks again for some topics, or (`None`) for all.
    pub fn refresh(
        &mut self,
        topics: Option<&[Str]>,
        allow_auto_topic_creation: bool,
    ) -> Result<(), ClientError> {
        let request = Metadata::request(topics, allow_auto_topic_creation);
        let response = self.call_any(&request)?;
        ClientError::check(response.error_code, None, "asking for metadata")?;
        self.metadata.update(response);
        Ok(())
    }

    /// Asks for topics until each is there, or cannot be used. Partitions may have no leader.
    pub fn await_topics(&mut self, topics: &[Str], create: bool) -> Result<(), ClientError> {
        let topics = topics.to_vec();
        self.retry(|cluster| {
            cluster.refresh(Some(&topics), create)?;
            for name in &topics {
                let topic = cluster.metadata.topics.get(name);
                let topic = topic.ok_or_else(|| ClientError::Missing(format!("topic {name}")))?;
                // Where it is not to be created, waiting for it would be in vain.
                if topic.error == ErrorCode::UNKNOWN_TOPIC_OR_PARTITION && !create {
                    return Err(ClientError::Missing(format!("topic {name}")));
                }
                ClientError::check(topic.error, None, format!("topic {name}"))?;
            }
            Ok(())
        })
    }

    /// Asks for the topics of these partitions until each partition has a leader, for so long at
    /// most.
    pub fn await_leaders(
        &mut self,
        partitions: &[TopicPartition],
        patience: Duration,
    ) -> Result<(), ClientError> {
        let mut topics: Vec<Str> = partitions.iter().map(|at| at.topic.clone()).collect();
        topics.dedup();
        let mut is_known = true;
        self.retry_for(patience, |cluster| {
            // What is known already may do.
            if !std::mem::take(&mut is_known) {
                cluster.refresh(Some(&topics), false)?;
            }
            let without = partitions.iter().find(|at| cluster.metadata.leader(at).is_none());
            let code = without.map_or(ErrorCode::NONE, |_| ErrorCode::LEADER_NOT_AVAILABLE);
            ClientError::check(code, None, without.map_or(String::new(), ToString::to_string))
        })
    }

    /// How long to try again what may succeed later.
    pub fn patience(&self) -> Duration {
        self.options.retry_for
    }

    /// The connection to a node, made if need be.
    pub fn link(&mut self, node: NodeId) -> Result<&mut Link, ClientError> {
        if !self.links.contains_key(&node) {
            let Some(broker) = self.metadata.brokers.get(&node) else {
                return Err(ClientError::Missing(format!("broker {node}")));
            };
            let port = u16::try_from(broker.port);
            let address = Address {
                host: broker.host.to_string(),
                port: port.map_err(|_| ClientError::Address(format!("port {}", broker.port)))?,
            };
            let link = Link::open(&address, &self.options.client_id)?;
            self.links.insert(node, link);
        }
        match self.links.get_mut(&node) {
            Some(link) => Ok(link),
            None => Err(ClientError::Missing(format!("broker {node}"))),
        }
    }

    /// Forgets a connection, after it has failed.
    pub fn disconnect(&mut self, node: NodeId) {
        self.links.remove(&node);
    }

    /// Calls a node, with a request made for the version that both sides know.
    pub fn call_with<R: Request>(
        &mut self,
        node: NodeId,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let link = self.link(node)?;
        let called = link.version::<R>().and_then(|version| link.call(&make(version)));
        // After an error the connection's state is not known; a version that is missing costs a
        // reconnect, no more.
        called.inspect_err(|_| self.disconnect(node))
    }

    /// Calls a node.
    pub fn call<R: Request>(
        &mut self,
        node: NodeId,
        request: &R,
    ) -> Result<R::Response, ClientError> {
        self.call_with(node, |_| request.clone())
    }

    /// Calls any broker that answers: those that are connected, those that are known, those that
    /// were given.
    pub fn call_any<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        let mut nodes: Vec<NodeId> = self.links.keys().copied().collect();
        let others = self.metadata.brokers.keys().copied();
        nodes.extend(others.filter(|node| !self.links.contains_key(node)));
        self.turn(&mut nodes);
        for node in nodes {
            match self.call(node, request) {
                Err(error) if error.is_unreachable() => {}
                done => return done,
            }
        }
        let mut failures = Vec::new();
        for address in &self.bootstrap {
            let opened = Link::open(address, &self.options.client_id);
            match opened.and_then(|mut link| link.call(request)) {
                Err(error) if error.is_unreachable() => failures.push(error),
                done => return done,
            }
        }
        Err(ClientError::NoBroker(failures))
    }

    /// Whenever something is tried again, another is asked first: one that is cut off from the
    /// others answers, and knows nothing.
    fn turn(&self, nodes: &mut [NodeId]) {
        nodes.rotate_left(self.failed_attempts.checked_rem(nodes.len()).unwrap_or(0));
    }

    /// Calls the broker that takes changes of the cluster; any, where none is known.
    pub fn call_controller<R: Request>(&mut self, request: &R) -> Result<R::Response, ClientError> {
        match self.metadata.controller_id {
            node if self.metadata.brokers.contains_key(&node) => self.call(node, request),
            _ => self.call_any(request),
        }
    }

    /// The same of a request that is made for a version.
    pub fn call_controller_with<R: Request>(
        &mut self,
        make: impl FnOnce(i16) -> R,
    ) -> Result<R::Response, ClientError> {
        let node = match self.metadata.controller_id {
            node if self.metadata.brokers.contains_key(&node) => node,
            _ => self.any_node()?,
        };
        self.call_with(node, make)
    }

    /// Who coordinates a group. Remembered until [`Self::forget_coordinator`].
    pub fn coordinator(&mut self, group: &Str) -> Result<NodeId, ClientError> {
        self.retry(|cluster| cluster.try_coordinator(group))
    }

    /// The same, asked once: for whoever has something else to do until it is known.
    pub fn try_coordinator(&mut self, group: &Str) -> Result<NodeId, ClientError> {
        if let Some(node) = self.coordinators.get(group) {
            return Ok(*node);
        }
        let node = self.find_coordinator(group)?;
        self.coordinators.insert(group.clone(), node);
        Ok(node)
    }

    /// Asks anew next time.
    pub fn forget_coordinator(&mut self, group: &Str) {
        if let Some(node) = self.coordinators.remove(group) {
            self.disconnect(node);
        }
    }

    fn find_coordinator(&mut self, group: &Str) -> Result<NodeId, ClientError> {
        let node = self.any_node()?;
        let response = self.call_with(node, |version| {
            let mut request = FindCoordinatorRequest::default();
            if version < FIND_COORDINATOR_KEYS {
                request.key = group.clone();
            } else {
                request.coordinator_keys.push(group.clone());
            }
            request
        })?;
        let FindCoordinatorResponse { coordinators, error_code, error_message, node_id, .. } =
            response;
        let what = || format!("looking for the coordinator of group {group}");
        ClientError::check(error_code, error_message.as_ref(), what())?;
        let found = match coordinators.into_iter().next() {
            Some(found) => {
                ClientError::check(found.error_code, found.error_message.as_ref(), what())?;
                found.node_id
            }
            None => node_id,
        };
        if !self.metadata.brokers.contains_key(&found) {
            self.refresh(Some(&[]), false)?;
        }
        Ok(found)
    }

    /// A broker that can be connected to.
    fn any_node(&mut self) -> Result<NodeId, ClientError> {
        let mut last = ClientError::Missing(String::from("a broker in the cluster's metadata"));
        let mut nodes: Vec<NodeId> = self.metadata.brokers.keys().copied().collect();
        self.turn(&mut nodes);
        for node in nodes {
            match self.link(node) {
                Ok(_) => return Ok(node),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// The offsets at timestamps, [`offsets::EARLIEST`] or [`offsets::LATEST`], of partitions whose
    /// topics are known.
    pub fn list_offsets(
        &mut self,
        wanted: &[(TopicPartition, i64)],
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        let mut found = BTreeMap::new();
        let mut topics: Vec<Str> =
            wanted.iter().map(|(partition, _)| partition.topic.clone()).collect();
        topics.dedup();
        self.retry(|cluster| {
            let mut missing = wanted.to_vec();
            missing.retain(|(partition, _)| !found.contains_key(partition));
            let mut failure = None;
            for (node, request) in offsets::list_offsets(&missing, &cluster.metadata) {
                let response = cluster.call::<ListOffsetsRequest>(node, &request)?;
                for (partition, offset) in offsets::listed(response) {
                    match offset {
                        Ok(offset) => drop(found.insert(partition, offset)),
                        Err(code) => failure = Some((partition, code)),
                    }
                }
            }
            let without_leader =
                missing.iter().find(|(partition, _)| !found.contains_key(partition));
            let (partition, code) = match (failure, without_leader) {
                (Some(failure), _) => failure,
                (None, Some((partition, _))) => {
                    (partition.clone(), ErrorCode::LEADER_NOT_AVAILABLE)
                }
                (None, None) => return Ok(()),
            };
            cluster.refresh(Some(&topics), false)?;
            ClientError::check(code, None, format!("looking up offsets of {partition}"))
        })?;
        Ok(found)
    }

    /// Where a group stands: in some partitions, or (`None`) wherever it has committed. Partitions
    /// without a commit are left out.
    pub fn committed_offsets(
        &mut self,
        group: &Str,
        partitions: Option<&[TopicPartition]>,
    ) -> Result<BTreeMap<TopicPartition, i64>, ClientError> {
        self.retry(|cluster| {
            let node = cluster.coordinator(group)?;
            // Topics have ids in later versions: what is known must not change while it is read.
            let metadata = cluster.metadata.clone();
            let response = cluster.call_with(node, |version| {
                offsets::fetch_committed(version, group, partitions, &metadata)
            })?;
            offsets::committed(response, &metadata).map_err(|code| {
                if code == ErrorCode::NOT_COORDINATOR {
                    cluster.forget_coordinator(group);
                }
                let what = format!("asking where group {group} stands");
                ClientError::Broker { what, code, message: None }
            })
        })
    }

    /// Tries until it succeeds, fails for good, or the time for trying is up.
    pub fn retry<T>(
        &mut self,
        attempt: impl FnMut(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.retry_for(self.options.retry_for, attempt)
    }

    fn retry_for<T>(
        &mut self,
        patience: Duration,
        mut attempt: impl FnMut(&mut Self) -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let started = Instant::now();
        let mut backoff = Backoff::new();
        loop {
            let error = match attempt(self) {
                Err(error) if error.is_retriable() => error,
                done => return done,
            };
            self.failed_attempts = self.failed_attempts.wrapping_add(1);
            let wait = Duration::from_millis(backoff.next_ms());
            let left = patience.saturating_sub(started.elapsed());
            if left.is_zero() {
                return Err(ClientError::TimedOut {
                    seconds: patience.as_secs(),
                    last: Box::new(error),
                });
            }
            thread::sleep(wait.min(left));
        }
    }
}
