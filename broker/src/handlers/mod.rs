//! One file for each API of Kafka, and the one list from which dispatch and ApiVersions follow.
//!
//! A handler is `async fn handle(context, request) -> Reply<Response>`. A connection awaits it
//! before it starts the next request, so that each sees what those before it did, as in Kafka. Only
//! a wait goes into [`Reply::Later`], and overlaps with later requests: for a flush (Produce), for
//! records (Fetch), for a group's coordinator, once the request stands in its queue. A new API is a
//! schema file, a handler file and one word in the list below.
//!
//! Beside the APIs: [`context`], what a handler is given; `client`, who asks; `by_name`, `errors`,
//! `leader_hints`, `node_settings`, `route`, `settings`, `topology`: what several of them share.
//!
//! Lives on every shard, in the view of one connection on it. Kafka's error codes are chosen here
//! (and in coordinators), never below.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;

use bytes::Bytes;
use vltava_protocol::api::{Api, ApiKey};
use vltava_protocol::decode::{DecodeError, Reader};
use vltava_protocol::encode::{EncodeError, Part, Writer};
use vltava_protocol::error_code::ErrorCode;
use vltava_protocol::frame::{RequestHeader, ResponseHeader};
use vltava_protocol::message::Message;

use self::client::Client;
use self::context::{Context, Services};
use crate::runtime::{Monotonic, Runtime};

mod by_name;
pub mod client;
pub mod context;
mod errors;
mod group;
mod leader_hints;
pub mod node_settings;
mod route;
mod settings;
mod topology;

/// What a handler answers.
pub enum Reply<A> {
    /// Known now.
    Now(A),
    /// Known later; requests behind this one may start. It holds no part of the request's frame,
    /// whose memory is given to others meanwhile.
    Later(Pin<Box<dyn Future<Output = A>>>),
    /// Known when all that was queued is committed, or cannot be any more. Until then logs hold
    /// bytes of the request, so this is brought to its end even when the client has gone.
    Committed(Pin<Box<dyn Future<Output = A>>>),
    /// Nothing is sent (Produce with acks=0); otherwise as `Committed`. An error closes the
    /// connection: the only way to tell a client that waits for no answer.
    Silent(Pin<Box<dyn Future<Output = ErrorCode>>>),
}

impl<A> Reply<A> {
    /// An answer that is still being worked on.
    pub fn later(future: impl Future<Output = A> + 'static) -> Self {
        Self::Later(Box::pin(future))
    }

    /// An answer that waits for commits.
    pub fn committed(future: impl Future<Output = A> + 'static) -> Self {
        Self::Committed(Box::pin(future))
    }

    /// No answer; the future's error, where there is one, closes the connection.
    pub fn silent(future: impl Future<Output = ErrorCode> + 'static) -> Self {
        Self::Silent(Box::pin(future))
    }
}

/// A frame that is not ready yet: its parts, none where nothing is sent. An error closes the
/// connection.
pub type Unfinished = Pin<Box<dyn Future<Output = Result<Vec<Part>, Refusal>>>>;

/// An answer on the wire, or on its way there.
pub enum Answer {
    /// A frame.
    Now(Vec<Part>),
    /// A frame, once it is ready. Dropped when the client has gone.
    Later(Unfinished),
    /// Likewise, but logs hold bytes of the request until it is ready: never dropped before.
    Committed(Unfinished),
}

/// Why a request gets no answer but a closed connection, as Kafka does it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// An API key that is not served.
    #[error("API key {0} is not served here")]
    UnknownApi(i16),
    /// A version that is not served.
    #[error("{api} version {version} is not served here")]
    UnknownVersion {
        /// Which API.
        api: &'static str,
        /// The version asked for.
        version: i16,
    },
    /// Bytes that are no such request.
    #[error("the request cannot be read: {0}")]
    Unreadable(#[from] DecodeError),
    /// A failure that the client can learn of in no other way.
    #[error("the request failed with {0:?} and its client waits for no answer")]
    NoAnswer(ErrorCode),
    /// An answer that cannot be written in the version asked for: our fault.
    #[error("the answer cannot be written: {0}")]
    Unwritable(#[from] EncodeError),
}

macro_rules! apis {
    ($($module:ident),+ $(,)?) => {
        $(pub mod $module;)+

        /// The keys of the APIs that are served.
        pub const SERVED: &[ApiKey] = &[$($module::API),+];

        async fn run<R: Runtime>(
            context: Context<R>,
            header: &RequestHeader,
            mut body: Reader,
        ) -> Result<Answer, Refusal> {
            match header.api_key {
                $($module::API => {
                    let request = Message::decode(&mut body, header.api_version)?;
                    let (services, received) = (Rc::clone(&context.services), context.received);
                    let reply = $module::handle(context, request).await;
                    answer(&services, received, reply, header)
                })+
                ApiKey(key) => Err(Refusal::UnknownApi(key)),
            }
        }
    };
}

// In the order of their keys.
apis! {
    produce,
    fetch,
    list_offsets,
    metadata,
    offset_commit,
    offset_fetch,
    find_coordinator,
    join_group,
    heartbeat,
    leave_group,
    sync_group,
    describe_groups,
    list_groups,
    api_versions,
    create_topics,
    delete_topics,
    delete_records,
    init_producer_id,
    offset_for_leader_epoch,
    describe_configs,
    alter_configs,
    describe_log_dirs,
    create_partitions,
    delete_groups,
    elect_leaders,
    incremental_alter_configs,
    alter_partition_reassignments,
    list_partition_reassignments,
    offset_delete,
    describe_quorum,
    update_features,
    describe_cluster,
    describe_producers,
    unregister_broker,
    describe_topic_partitions,
}

/// The table's row of an API that is served.
pub fn served(key: ApiKey) -> Option<&'static Api> {
    SERVED.contains(&key).then(|| key.api()).flatten()
}

/// Decodes one request and hands it to its handler. `frame` is the request without its length.
pub async fn dispatch<R: Runtime>(
    services: &Rc<Services<R>>,
    client: &Rc<Client>,
    frame: Bytes,
) -> Result<Answer, Refusal> {
    let received = services.runtime.now();
    let mut body = Reader::new(frame);
    let mut header = RequestHeader::decode(&mut body)?;
    // It is kept until the answer is there, and must not keep the frame.
    header.client_id = header.client_id.map(|id| id.detached());
    let Some(api) = served(header.api_key) else {
        return Err(Refusal::UnknownApi(header.api_key.0));
    };
    if !api.is_version_stable(header.api_version) {
        return api_versions::refuse_version(api, &header);
    }
    let context = Context {
        services: Rc::clone(services),
        client: Rc::clone(client),
        client_id: header.client_id.clone(),
        api_version: header.api_version,
        received,
    };
    // Here, before every handler, stands the authoriser; it allows everything until there is a
    // security room.
    run(context, &header, body).await
}

fn answer<A: Message + 'static, R: Runtime>(
    services: &Rc<Services<R>>,
    received: Monotonic,
    reply: Reply<A>,
    header: &RequestHeader,
) -> Result<Answer, Refusal> {
    let services = Rc::clone(services);
    match reply {
        Reply::Now(response) => {
            let (parts, error) = encode(&response, header)?;
            services.answered(header.api_key, received, error);
            Ok(Answer::Now(parts))
        }
        Reply::Later(future) => Ok(Answer::Later(finish(services, received, future, header))),
        Reply::Committed(future) => {
            Ok(Answer::Committed(finish(services, received, future, header)))
        }
        Reply::Silent(future) => {
            let api_key = header.api_key;
            Ok(Answer::Committed(Box::pin(async move {
                let error = future.await;
                services.answered(api_key, received, error);
                if error.is_none() { Ok(Vec::new()) } else { Err(Refusal::NoAnswer(error)) }
            })))
        }
    }
}

fn finish<A: Message + 'static, R: Runtime>(
    services: Rc<Services<R>>,
    received: Monotonic,
    future: Pin<Box<dyn Future<Output = A>>>,
    header: &RequestHeader,
) -> Unfinished {
    let header = header.clone();
    Box::pin(async move {
        let response = future.await;
        let encoded = encode(&response, &header).map_err(|error| {
            tracing::error!(%error, api = %header.api_key, "an answer cannot be written");
            Refusal::Unwritable(error)
        });
        let error = encoded.as_ref().map_or(ErrorCode::UNKNOWN_SERVER_ERROR, |(_, error)| *error);
        services.answered(header.api_key, received, error);
        encoded.map(|(parts, _)| parts)
    })
}

/// The frame of an answer, and the first error code in it.
fn encode<A: Message>(
    response: &A,
    header: &RequestHeader,
) -> Result<(Vec<Part>, ErrorCode), EncodeError> {
    let mut writer = Writer::frame();
    let response_header = ResponseHeader { correlation_id: header.correlation_id };
    response_header.encode(&mut writer, header.api_key, header.api_version)?;
    response.encode(&mut writer, header.api_version)?;
    let error = writer.first_error();
    Ok((writer.finish_frame()?, error))
}
