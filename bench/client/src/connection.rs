//! One connection to a broker, without I/O: requests become bytes, bytes become answers.
//!
//! A broker answers in the order of the requests, so that a queue of what is in flight is all the
//! bookkeeping there is. The first request must be that of [`Connection::handshake`].

use std::collections::{BTreeMap, VecDeque};

use bytes::{Buf, Bytes, BytesMut};
use vltava_protocol::api::ApiKey;
use vltava_protocol::decode::Reader;
use vltava_protocol::encode::{Part, Writer};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::frame::{LENGTH_BYTES, RequestHeader, ResponseHeader, frame_length};
use vltava_protocol::message::{Message, Request};
use vltava_protocol::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use vltava_protocol::types::Str;

use crate::error::ClientError;

/// The largest answer that is taken.
pub const FRAME_BYTES_MAX: usize = 256 << 20;

/// What a client calls itself.
const SOFTWARE_NAME: Str = Str::from_static("vltava");
const SOFTWARE_VERSION: Str = Str::from_static(env!("CARGO_PKG_VERSION"));

/// The protocol's state of one connection.
#[derive(Debug)]
pub struct Connection {
    client_id: Str,
    /// What the broker serves, once it has said so.
    versions: BTreeMap<ApiKey, (i16, i16)>,
    next_correlation_id: i32,
    in_flight: VecDeque<InFlight>,
    received: BytesMut,
}

#[derive(Clone, Copy, Debug)]
struct InFlight {
    correlation_id: i32,
    api: ApiKey,
    version: i16,
}

/// An answer that has come in whole.
#[derive(Debug)]
pub struct Answer {
    /// To what.
    pub api: ApiKey,
    version: i16,
    reader: Reader,
}

impl Answer {
    /// The answer as what it should be: `R` is the type of the request that was oldest.
    pub fn decode<R: Request>(mut self) -> Result<R::Response, ClientError> {
        if R::API != self.api {
            return Err(ClientError::Correlation);
        }
        let decoded = R::Response::decode(&mut self.reader, self.version);
        decoded.map_err(|source| ClientError::Decode { api: self.api, source })
    }
}

impl Connection {
    /// A connection that has just been made.
    pub fn new(client_id: Str) -> Self {
        Self {
            client_id,
            versions: BTreeMap::new(),
            next_correlation_id: 0,
            in_flight: VecDeque::new(),
            received: BytesMut::new(),
        }
    }

    /// The first request: which versions the broker serves. After UNSUPPORTED_VERSION, to be sent
    /// again.
    pub fn handshake(&mut self) -> Result<Vec<Part>, ClientError> {
        let highest = ApiVersionsRequest::VERSION_MAX;
        let version = match self.versions.get(&ApiKey::API_VERSIONS) {
            Some((_, theirs)) => highest.min(*theirs),
            None => highest,
        };
        let request = ApiVersionsRequest {
            client_software_name: SOFTWARE_NAME,
            client_software_version: SOFTWARE_VERSION,
            ..ApiVersionsRequest::default()
        };
        self.encode(&request, version, true)
    }

    /// Takes in the answer to [`Self::handshake`]. `false`: the broker does not know the version
    /// that was asked in, but has said which it does: do it again.
    pub fn shake(&mut self, answer: Answer) -> Result<bool, ClientError> {
        let mut unsupported = answer.reader.clone();
        let refused =
            unsupported.i16().is_ok_and(|code| ErrorCode(code) == ErrorCode::UNSUPPORTED_VERSION);
        let first_time = self.versions.is_empty();
        // A broker that does not know the version answers in the first, where the error stands
        // first, too.
        let version = if refused { 0 } else { answer.version };
        let response = Answer { version, ..answer }.decode::<ApiVersionsRequest>()?;
        let ApiVersionsResponse { error_code, api_keys, .. } = response;
        let served = api_keys
            .into_iter()
            .map(|served| (ApiKey(served.api_key), (served.min_version, served.max_version)));
        self.versions = served.collect();
        if refused && first_time && self.versions.contains_key(&ApiKey::API_VERSIONS) {
            return Ok(false);
        }
        ClientError::check(error_code, None, "asking for the broker's versions")?;
        Ok(true)
    }

    /// The highest version of a request that both sides know.
    pub fn version<R: Request>(&self) -> Result<i16, ClientError> {
        let unsupported = ClientError::Unsupported { api: R::API };
        let Some((min, max)) = self.versions.get(&R::API) else {
            return Err(unsupported);
        };
        // What Kafka is still changing is not spoken.
        let stable = R::API.api().map_or(R::VERSION_MAX, |api| api.max_version);
        let version = stable.min(*max);
        if version >= *min && version >= R::VERSION_MIN { Ok(version) } else { Err(unsupported) }
    }

    /// The bytes of a request that will be answered, in a version at or below [`Self::version`].
    pub fn request<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<Vec<Part>, ClientError> {
        self.encode(request, version, true)
    }

    /// The bytes of a request that will not be answered: a produce with acks=0.
    pub fn request_unanswered<R: Request>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<Vec<Part>, ClientError> {
        self.encode(request, version, false)
    }

    /// How many requests wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Where to put bytes that have come in.
    pub fn received(&mut self) -> &mut BytesMut {
        &mut self.received
    }

    /// The next answer that has come in whole, if any. After an error the connection is of no use.
    pub fn next_answer(&mut self) -> Result<Option<Answer>, ClientError> {
        let Some(prefix) = self.received.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = frame_length(*prefix, FRAME_BYTES_MAX)?;
        let missing = (LENGTH_BYTES + length).saturating_sub(self.received.len());
        if missing > 0 {
            return Ok(None);
        }
        self.received.advance(LENGTH_BYTES);
        let frame = self.received.split_to(length).freeze();
        self.answer(frame).map(Some)
    }

    /// The answer in a frame that has come in whole, without its length: for those who receive into
    /// buffers of their own instead of [`Self::received`]. After an error the connection is of no
    /// use.
    pub fn answer(&mut self, frame: Bytes) -> Result<Answer, ClientError> {
        let mut reader = Reader::new(frame);
        let Some(InFlight { correlation_id, api, version }) = self.in_flight.pop_front() else {
            return Err(ClientError::Correlation);
        };
        let header = ResponseHeader::decode(&mut reader, api, version)
            .map_err(|source| ClientError::Decode { api, source })?;
        if header.correlation_id != correlation_id {
            return Err(ClientError::Correlation);
        }
        Ok(Answer { api, version, reader })
    }

    fn encode<R: Request>(
        &mut self,
        request: &R,
        version: i16,
        is_answered: bool,
    ) -> Result<Vec<Part>, ClientError> {
        let correlation_id = self.next_correlation_id;
        let header = RequestHeader {
            api_key: R::API,
            api_version: version,
            correlation_id,
            client_id: Some(self.client_id.clone()),
        };
        let mut writer = Writer::frame();
        header.encode(&mut writer)?;
        request.encode(&mut writer, version)?;
        let parts = writer.finish_frame()?;
        self.next_correlation_id = correlation_id.wrapping_add(1);
        if is_answered {
            self.in_flight.push_back(InFlight { correlation_id, api: R::API, version });
        }
        Ok(parts)
    }
}

#[cfg(test)]
mod tests;
