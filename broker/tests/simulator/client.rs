//! A client of our own on the simulated network: frames, versions, timeouts, connections to the
//! nodes of a cluster. What it sends and understands are the protocol's own messages; what it
//! cannot understand breaks a promise.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::{Either, select};
use vltava::runtime::sim::{MILLION, Random, SimConnection, SimRuntime};
use vltava::runtime::{Connection, Network, Runtime};
use vltava_protocol::api::ApiKey;
use vltava_protocol::decode::Reader;
use vltava_protocol::encode::{Part, Writer};
use vltava_protocol::frame::{LENGTH_BYTES, RequestHeader, ResponseHeader};
use vltava_protocol::message::{Message, Request};
use vltava_protocol::messages::api_versions::ApiVersionsRequest;
use vltava_protocol::types::Str;

use crate::checkers::{Partition, violation};
use crate::promise;

/// The longest answer that makes sense here, in bytes.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why there is no answer. Whether the request took effect is unknown; the connection is gone.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// The connection could not be made, or broke.
    #[error("{0}")]
    Broken(#[from] io::Error),
}

struct Link {
    connection: SimConnection,
    buffer: BytesMut,
    /// What the broker says it serves.
    versions: BTreeMap<i16, RangeInclusive<i16>>,
    correlations: i32,
    awaited: VecDeque<(ApiKey, i16, i32)>,
}

/// What a connection is for: what is asked once never waits behind what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Lane {
    Calls,
    Batches,
}

/// A connection, by where it goes and what it is for.
type LinkId = (SocketAddr, Lane);

/// Who leads a partition, as a client has heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leader {
    /// Where it is.
    pub address: SocketAddr,
    /// Since which epoch it leads.
    pub epoch: i32,
}

/// One client with at most two connections to each node, which it makes again when they break.
pub struct Client {
    /// Its process.
    pub runtime: SimRuntime,
    /// What it does next.
    pub random: Random,
    /// For messages.
    pub name: String,
    /// All nodes: what a client is given to begin with.
    brokers: Rc<[SocketAddr]>,
    /// Whom it asks what any node can answer, until that one fails it.
    home: SocketAddr,
    /// How long it waits for an answer.
    pub timeout: Duration,
    links: BTreeMap<LinkId, Link>,
    leaders: BTreeMap<Partition, Leader>,
    /// The highest epoch that it has heard of: whoever says less is behind.
    epochs: BTreeMap<Partition, i32>,
}

/// Completes with the future, or with `None` where time is up first.
pub async fn within<T>(
    runtime: &SimRuntime,
    duration: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let sleep = pin!(runtime.sleep_until(runtime.now().after(duration)));
    match select(pin!(future), sleep).await {
        Either::Left((value, _)) => Some(value),
        Either::Right(((), _)) => None,
    }
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(
        runtime: SimRuntime,
        mut random: Random,
        name: String,
        brokers: Rc<[SocketAddr]>,
    ) -> Self {
        let home = match brokers.len() {
            1 => brokers[0],
            _ => *random.pick(&brokers),
        };
        Self {
            runtime,
            random,
            name,
            brokers,
            home,
            timeout: Duration::from_secs(20),
            links: BTreeMap::new(),
            leaders: BTreeMap::new(),
            epochs: BTreeMap::new(),
        }
    }

    /// The only node, where there is but one.
    pub fn only_broker(&self) -> Option<SocketAddr> {
        match self.brokers[..] {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whom it asks what any node can answer.
    pub fn home(&self) -> SocketAddr {
        self.home
    }

    /// Asks another node from now on.
    pub fn leave_home(&mut self) {
        if self.only_broker().is_none() {
            self.home = *self.random.pick(&self.brokers);
        }
    }

    /// Who leads a partition, as far as it has heard and nobody has denied since.
    pub fn leader(&self, partition: &Partition) -> Option<Leader> {
        self.leaders.get(partition).copied()
    }

    /// Hears who leads a partition; who is known to be behind is not believed (KIP-320).
    pub fn hear(&mut self, partition: &Partition, leader: Leader) {
        let known = self.epochs.entry(partition.clone()).or_insert(leader.epoch);
        if leader.epoch >= *known {
            *known = leader.epoch;
            self.leaders.insert(partition.clone(), leader);
        }
    }

    /// Whoever leads the partition, it is not the one that it thought.
    pub fn forget_leader(&mut self, partition: &Partition) {
        self.leaders.remove(partition);
    }

    /// Leaders have to be asked for again.
    pub fn forget_leaders(&mut self) {
        self.leaders.clear();
    }

    /// One connection serves where there is one node.
    fn lane(&self, lane: Lane) -> Lane {
        if self.only_broker().is_some() { Lane::Batches } else { lane }
    }

    /// Sleeps a random while up to `most`.
    pub async fn pause(&mut self, most: Duration) {
        let most_ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let pause = Duration::from_nanos(self.random.mostly_small(0..=most_ns));
        let until = self.runtime.now().after(pause);
        self.runtime.sleep_until(until).await;
    }

    /// Gives up all connections: answers that are owed never come.
    pub fn disconnect(&mut self) {
        self.links.clear();
    }

    /// Connects where it is not connected, and asks which versions there are.
    async fn connect(&mut self, to: LinkId) -> Result<(), CallError> {
        if self.links.contains_key(&to) {
            return Ok(());
        }
        let connecting = self.runtime.network().connect(to.0);
        let connected = within(&self.runtime, self.timeout, connecting).await;
        let link = Link {
            connection: connected.ok_or(CallError::TimedOut)??,
            buffer: BytesMut::new(),
            versions: BTreeMap::from([(ApiKey::API_VERSIONS.0, 0..=3)]),
            correlations: 0,
            awaited: VecDeque::new(),
        };
        self.links.insert(to, link);
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("vltava-simulator"),
            client_software_version: Str::from_static("1"),
            ..ApiVersionsRequest::default()
        };
        let answer = self.exchange(to, 3, &request).await?;
        let error = answer.error_code;
        promise!(error.is_none(), "{}: ApiVersions v3: {}", self.name, error.name());
        let versions = answer.api_keys.iter();
        let versions = versions.map(|api| (api.api_key, api.min_version..=api.max_version));
        if let Some(link) = self.links.get_mut(&to) {
            link.versions = versions.collect();
        }
        Ok(())
    }

    /// Draws a version that both sides know, at or above `least`: mostly the newest.
    fn version<Q: Request>(&mut self, to: LinkId, least: i16) -> i16 {
        let name = &self.name;
        let Some(link) = self.links.get(&to) else {
            return least;
        };
        let Some(served) = link.versions.get(&Q::API.0) else {
            violation(format!("{name}: {} is not advertised", Q::NAME))
        };
        let least = least.max(*served.start()).max(Q::VERSION_MIN);
        let most = (*served.end()).min(Q::VERSION_MAX);
        promise!(least <= most, "{name}: no common version of {}", Q::NAME);
        if !self.random.chance(MILLION / 3) {
            return most;
        }
        let above = self.random.below(u64::from((most - least).unsigned_abs()) + 1);
        least + i16::try_from(above).unwrap_or(0)
    }

    /// Sends a node a request in a version at or above `least`; its answer comes after those that
    /// [`Self::receive_at`] is owed already.
    pub async fn send_at<Q: Request>(
        &mut self,
        address: SocketAddr,
        least: i16,
        make: impl FnOnce(i16) -> Q,
    ) -> Result<(), CallError> {
        self.send((address, self.lane(Lane::Batches)), least, make).await
    }

    async fn send<Q: Request>(
        &mut self,
        to: LinkId,
        least: i16,
        make: impl FnOnce(i16) -> Q,
    ) -> Result<(), CallError> {
        self.connect(to).await?;
        let version = self.version::<Q>(to, least);
        let request = make(version);
        let sent = self.send_request(to, version, &request).await;
        if sent.is_err() {
            self.links.remove(&to);
        }
        sent
    }

    async fn send_request<Q: Request>(
        &mut self,
        to: LinkId,
        version: i16,
        request: &Q,
    ) -> Result<(), CallError> {
        let Some(link) = self.links.get_mut(&to) else {
            return Err(CallError::Broken(io::ErrorKind::NotConnected.into()));
        };
        link.correlations += 1;
        let header = RequestHeader {
            api_key: Q::API,
            api_version: version,
            correlation_id: link.correlations,
            client_id: Some(Str::from(self.name.as_str())),
        };
        link.awaited.push_back((Q::API, version, link.correlations));
        let parts = frame(&header, version, request);
        let sending = link.connection.send(parts);
        let sent = within(&self.runtime, self.timeout, sending).await;
        Ok(sent.ok_or(CallError::TimedOut)??)
    }

    /// Receives the next answer that a node owes to [`Self::send_at`]; it must be one to a `Q`.
    pub async fn receive_at<Q: Request>(
        &mut self,
        address: SocketAddr,
    ) -> Result<Q::Response, CallError> {
        self.receive::<Q>((address, self.lane(Lane::Batches))).await
    }

    async fn receive<Q: Request>(&mut self, from: LinkId) -> Result<Q::Response, CallError> {
        let received = self.receive_answer::<Q>(from).await;
        if received.is_err() {
            self.links.remove(&from);
        }
        received
    }

    async fn receive_answer<Q: Request>(&mut self, from: LinkId) -> Result<Q::Response, CallError> {
        let Some(link) = self.links.get_mut(&from) else {
            return Err(CallError::Broken(io::ErrorKind::NotConnected.into()));
        };
        let Some((api, version, correlation)) = link.awaited.pop_front() else {
            return Err(CallError::Broken(io::ErrorKind::NotConnected.into()));
        };
        assert_eq!(api, Q::API, "answers come in the order of their requests");
        let receiving = next_frame(link);
        let received = within(&self.runtime, self.timeout, receiving).await;
        let mut reader = Reader::new(received.ok_or(CallError::TimedOut)??);
        let header = ResponseHeader::decode(&mut reader, api, version);
        let name = &self.name;
        let body = header.and_then(|header| {
            let answered = header.correlation_id;
            promise!(
                answered == correlation,
                "{name}: {} v{version} was answered for {answered}, not {correlation}",
                Q::NAME
            );
            Q::Response::decode(&mut reader, version)
        });
        match body {
            Ok(body) if reader.remaining() == 0 => Ok(body),
            Ok(_) => violation(format!(
                "{name}: {} bytes follow the answer to {} v{version}",
                reader.remaining(),
                Q::NAME
            )),
            Err(error) => violation(format!(
                "{name}: the answer to {} v{version} cannot be decoded: {error}",
                Q::NAME
            )),
        }
    }

    async fn exchange<Q: Request>(
        &mut self,
        with: LinkId,
        version: i16,
        request: &Q,
    ) -> Result<Q::Response, CallError> {
        let answer = match self.send_request(with, version, request).await {
            Ok(()) => self.receive_answer::<Q>(with).await,
            Err(error) => Err(error),
        };
        if answer.is_err() {
            self.links.remove(&with);
        }
        answer
    }

    /// Sends a node a request in a version at or above `least` and waits for its answer.
    pub async fn call_at<Q: Request>(
        &mut self,
        address: SocketAddr,
        least: i16,
        make: impl FnOnce(i16) -> Q,
    ) -> Result<Q::Response, CallError> {
        let with = (address, self.lane(Lane::Calls));
        let awaited = self.links.get(&with).map_or(0, |link| link.awaited.len());
        assert_eq!(awaited, 0, "a call waits for its own answer alone");
        self.send(with, least, make).await?;
        self.receive::<Q>(with).await
    }

    /// The same, with the node that it asks what any can answer; turns to another where that fails.
    pub async fn call<Q: Request>(
        &mut self,
        least: i16,
        make: impl FnOnce(i16) -> Q,
    ) -> Result<Q::Response, CallError> {
        let answer = self.call_at(self.home, least, make).await;
        if answer.is_err() {
            self.leave_home();
        }
        answer
    }
}

fn frame<Q: Request>(header: &RequestHeader, version: i16, request: &Q) -> Vec<Bytes> {
    let mut writer = Writer::frame();
    let written = header
        .encode(&mut writer)
        .and_then(|()| request.encode(&mut writer, version))
        .and_then(|()| writer.finish_frame());
    let parts = match written {
        Ok(parts) => parts,
        Err(error) => panic!("{} v{version} cannot be written: {error}", Q::NAME),
    };
    let memory = parts.into_iter().map(|part| match part {
        Part::Memory(bytes) => bytes,
        Part::External(_) => panic!("a client sends from memory"),
    });
    memory.collect()
}

async fn next_frame(link: &mut Link) -> io::Result<Bytes> {
    loop {
        let length = link.buffer.first_chunk::<LENGTH_BYTES>();
        if let Some(length) = length.map(|length| i32::from_be_bytes(*length)) {
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            promise!(length <= ANSWER_BYTES_MAX, "an answer of {length} bytes");
            if link.buffer.len() >= LENGTH_BYTES + length {
                let mut frame = link.buffer.split_to(LENGTH_BYTES + length).freeze();
                return Ok(frame.split_off(LENGTH_BYTES));
            }
        }
        link.buffer.reserve(4096);
        let buffer = std::mem::take(&mut link.buffer);
        let (received, buffer) = link.connection.receive(buffer).await;
        link.buffer = buffer;
        if received? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}
