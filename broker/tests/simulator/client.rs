//! A client of our own on the simulated network: frames, versions, timeouts. What it sends and
//! understands are the protocol's own messages; what it cannot understand breaks a promise.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::pin::pin;
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

use crate::checkers::violation;
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

/// One client with one connection, which it makes again when it breaks.
pub struct Client {
    /// Its process.
    pub runtime: SimRuntime,
    /// What it does next.
    pub random: Random,
    /// For messages.
    pub name: String,
    broker: SocketAddr,
    /// How long it waits for an answer.
    pub timeout: Duration,
    link: Option<Link>,
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
    pub fn new(runtime: SimRuntime, random: Random, name: String, broker: SocketAddr) -> Self {
        Self { runtime, random, name, broker, timeout: Duration::from_secs(20), link: None }
    }

    /// Sleeps a random while up to `most`.
    pub async fn pause(&mut self, most: Duration) {
        let most_ns = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX);
        let pause = Duration::from_nanos(self.random.mostly_small(0..=most_ns));
        let until = self.runtime.now().after(pause);
        self.runtime.sleep_until(until).await;
    }

    /// Answers that are owed to this client.
    pub fn awaited(&self) -> usize {
        self.link.as_ref().map_or(0, |link| link.awaited.len())
    }

    /// Gives up the connection: answers that are owed never come.
    pub fn disconnect(&mut self) {
        self.link = None;
    }

    /// Connects where it is not connected, and asks which versions there are.
    pub async fn connect(&mut self) -> Result<(), CallError> {
        if self.link.is_some() {
            return Ok(());
        }
        let connecting = self.runtime.network().connect(self.broker);
        let connected = within(&self.runtime, self.timeout, connecting).await;
        self.link = Some(Link {
            connection: connected.ok_or(CallError::TimedOut)??,
            buffer: BytesMut::new(),
            versions: BTreeMap::from([(ApiKey::API_VERSIONS.0, 0..=3)]),
            correlations: 0,
            awaited: VecDeque::new(),
        });
        let request = ApiVersionsRequest {
            client_software_name: Str::from_static("vltava-simulator"),
            client_software_version: Str::from_static("1"),
            ..ApiVersionsRequest::default()
        };
        let answer = self.exchange(3, &request).await?;
        let error = answer.error_code;
        promise!(error.is_none(), "{}: ApiVersions v3: {}", self.name, error.name());
        let versions = answer.api_keys.iter();
        let versions = versions.map(|api| (api.api_key, api.min_version..=api.max_version));
        if let Some(link) = &mut self.link {
            link.versions = versions.collect();
        }
        Ok(())
    }

    /// Draws a version that both sides know, at or above `least`: mostly the newest.
    fn version<Q: Request>(&mut self, least: i16) -> i16 {
        let name = &self.name;
        let Some(link) = &self.link else {
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

    /// Sends a request in a version at or above `least`; its answer comes after those owed already.
    pub async fn send<Q: Request>(
        &mut self,
        least: i16,
        make: impl FnOnce(i16) -> Q,
    ) -> Result<(), CallError> {
        self.connect().await?;
        let version = self.version::<Q>(least);
        let request = make(version);
        let sent = self.send_request(version, &request).await;
        if sent.is_err() {
            self.disconnect();
        }
        sent
    }

    async fn send_request<Q: Request>(
        &mut self,
        version: i16,
        request: &Q,
    ) -> Result<(), CallError> {
        let Some(link) = &mut self.link else {
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

    /// Receives the next answer that is owed; it must be one to a `Q`.
    pub async fn receive<Q: Request>(&mut self) -> Result<Q::Response, CallError> {
        let received = self.receive_answer::<Q>().await;
        if received.is_err() {
            self.disconnect();
        }
        received
    }

    async fn receive_answer<Q: Request>(&mut self) -> Result<Q::Response, CallError> {
        let Some(link) = &mut self.link else {
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
        version: i16,
        request: &Q,
    ) -> Result<Q::Response, CallError> {
        let answer = match self.send_request(version, request).await {
            Ok(()) => self.receive_answer::<Q>().await,
            Err(error) => Err(error),
        };
        if answer.is_err() {
            self.disconnect();
        }
        answer
    }

    /// Sends a request in a version at or above `least` and waits for its answer.
    pub async fn call<Q: Request>(
        &mut self,
        least: i16,
        make: impl FnOnce(i16) -> Q,
    ) -> Result<Q::Response, CallError> {
        assert_eq!(self.awaited(), 0, "a call waits for its own answer alone");
        self.send(least, make).await?;
        self.receive::<Q>().await
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
