//! What two nodes say before anything else: who they are, what for, and why not.

use std::fmt;

use bytes::Bytes;
use vltava_protocol::types::{Str, Uuid};

use super::codec::{self, Builder};
use super::frame::{self, Frame, FrameError, Kind};
use super::schema::vltava::peer as wire;
use crate::metadata::image::NodeEndpoint;

/// The versions of the protocol between nodes that this program speaks.
pub const PROTOCOL_MIN: u16 = 1;
/// See [`PROTOCOL_MIN`].
pub const PROTOCOL_MAX: u16 = 1;
/// The most shards that a node can have: a session has as many connections.
const SHARDS_MAX: u16 = 1024;
/// Of what a peer's operator gets to read here, in characters.
const WORDS_MAX: usize = 300;

/// Who speaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Introduction {
    /// Versions of the protocol between nodes that it speaks: from, to.
    pub protocol: (u16, u16),
    /// The highest feature level that it can be raised to.
    pub feature_level: u16,
    /// Its cluster; `None` where it belongs to none yet.
    pub cluster_id: Option<Uuid>,
    /// Its number.
    pub node_id: i32,
    /// Its data directory: a wiped disk is another one.
    pub disk_id: Uuid,
    /// Names the process: another one after each start.
    pub start: u64,
    /// Its shards.
    pub shards: u16,
    /// Name and version of the program.
    pub software: Str,
    /// Its rack.
    pub rack: Option<Str>,
    /// How it is reached, by listener.
    pub endpoints: Vec<NodeEndpoint>,
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Heartbeats of a session, which it begins.
    Control { session: u64 },
    /// A lane of it.
    Lane { session: u64, lane: u16 },
    /// Asks the other side to begin one.
    Knock,
}

/// Opens a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) introduction: Introduction,
    pub(super) purpose: Purpose,
}

/// Why a node does not talk to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RefusalCode(pub u16);

impl RefusalCode {
    /// It belongs to another cluster.
    pub const WRONG_CLUSTER: Self = Self(1);
    /// Another disk runs under its number.
    pub const DUPLICATE_NODE: Self = Self(2);
    /// There is no version of the protocol that both speak.
    pub const VERSION: Self = Self(3);
    /// It is none of the cluster's nodes.
    pub const UNKNOWN_NODE: Self = Self(4);
    /// Somebody else answers at the address than was asked for.
    pub const WRONG_NODE: Self = Self(5);
    /// The session's number is not above one that was there. Nothing that an operator could do.
    pub const STALE_SESSION: Self = Self(6);
    /// It broke the rules of the protocol.
    pub const VIOLATION: Self = Self(7);

    /// It stops, in order: the session ends, and a new one begins when it is back.
    pub const STOPPING: Self = Self(8);

    /// What the refused node's operator can do.
    pub fn advice(self) -> &'static str {
        match self {
            Self::WRONG_CLUSTER => {
                "correct this node's --peers, or, to let it join that cluster with an empty disk, \
                 its data directory"
            }
            Self::DUPLICATE_NODE => {
                "give this node a --node-id of its own, or stop the other that runs under it"
            }
            Self::VERSION => {
                "upgrade the older of the two nodes, by one release at a time, so that both speak \
                 a common version"
            }
            Self::UNKNOWN_NODE => "HOST:PORT is where --peers says that this node listens",
            Self::WRONG_NODE => "correct the addresses in --peers: each with its own node's id",
            _ => "report this: it is a mistake of the program, not of its operator",
        }
    }
}

/// A node does not talk to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What kind of reason.
    pub code: RefusalCode,
    /// The reason, for the operators of both nodes.
    pub words: String,
}

impl Refusal {
    /// For this reason.
    pub fn new(code: RefusalCode, words: impl Into<String>) -> Self {
        Self { code, words: words.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.words)
    }
}

/// What a greeting is answered with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Welcome { introduction: Introduction, protocol: u16 },
    Refused { refusal: Refusal, session_latest: u64 },
}

/// The highest version that both speak.
///
/// # Errors
/// There is none: in words for both operators.
pub(super) fn common_protocol(own: (u16, u16), theirs: (u16, u16)) -> Result<u16, Refusal> {
    let version = own.1.min(theirs.1);
    if version >= own.0.max(theirs.0) {
        return Ok(version);
    }
    let words = format!(
        "no common version of the protocol between nodes: {} to {} here, {} to {} there",
        own.0, own.1, theirs.0, theirs.1
    );
    Err(Refusal::new(RefusalCode::VERSION, words))
}

pub(super) fn hello_frame(hello: &Hello) -> Bytes {
    let mut builder = Builder::new();
    let introduction = Some(write_introduction(&mut builder, &hello.introduction));
    let (purpose, session, lane) = match hello.purpose {
        Purpose::Control { session } => (wire::Purpose::Control, session, 0),
        Purpose::Lane { session, lane } => (wire::Purpose::Lane, session, lane),
        Purpose::Knock => (wire::Purpose::Knock, 0, 0),
    };
    let fields = wire::HelloArgs { introduction, purpose, session, lane };
    let root = wire::Hello::create(&mut builder, &fields);
    builder.finish(root, None);
    frame::head(Kind::Hello, builder.finished_data(), 0)
}

pub(super) fn answer_frame(answer: &Answer) -> Bytes {
    let mut builder = Builder::new();
    match answer {
        Answer::Welcome { introduction, protocol } => {
            let introduction = Some(write_introduction(&mut builder, introduction));
            let fields = wire::WelcomeArgs { introduction, protocol: *protocol };
            let root = wire::Welcome::create(&mut builder, &fields);
            builder.finish(root, None);
            frame::head(Kind::Welcome, builder.finished_data(), 0)
        }
        Answer::Refused { refusal, session_latest } => {
            let words = Some(builder.create_string(&shortened(&refusal.words)));
            let (code, session_latest) = (refusal.code.0, *session_latest);
            let fields = wire::RefusedArgs { code, words, session_latest };
            let root = wire::Refused::create(&mut builder, &fields);
            builder.finish(root, None);
            frame::head(Kind::Refused, builder.finished_data(), 0)
        }
    }
}

fn write_introduction(
    builder: &mut Builder,
    from: &Introduction,
) -> flatbuffers::WIPOffset<wire::Introduction<'static>> {
    let mut endpoints = Vec::with_capacity(from.endpoints.len());
    for endpoint in &from.endpoints {
        let listener = Some(builder.create_string(&endpoint.listener));
        let host = Some(builder.create_string(&endpoint.host));
        let fields = wire::EndpointArgs { listener, host, port: endpoint.port };
        endpoints.push(wire::Endpoint::create(builder, &fields));
    }
    let endpoints = Some(builder.create_vector(&endpoints));
    let software = Some(builder.create_string(&from.software));
    let rack = from.rack.as_ref().map(|rack| builder.create_string(rack));
    let cluster_id = from.cluster_id.map(codec::id);
    let fields = wire::IntroductionArgs {
        protocol_min: from.protocol.0,
        protocol_max: from.protocol.1,
        feature_level: from.feature_level,
        cluster_id: cluster_id.as_ref(),
        node_id: from.node_id,
        disk_id: Some(&codec::id(from.disk_id)),
        start: from.start,
        shards: from.shards,
        software,
        rack,
        endpoints,
    };
    wire::Introduction::create(builder, &fields)
}

pub(super) fn read_hello(frame: &Frame) -> Result<Hello, FrameError> {
    if frame.kind != Kind::Hello {
        return Err(FrameError::Unexpected(frame.kind));
    }
    let hello = codec::read::<wire::Hello>(frame.kind, &frame.message)?;
    let (session, lane) = (hello.session(), hello.lane());
    let purpose = match hello.purpose() {
        wire::Purpose::Control => Purpose::Control { session },
        wire::Purpose::Lane => Purpose::Lane { session, lane },
        wire::Purpose::Knock => Purpose::Knock,
        wire::Purpose(number) => {
            return Err(codec::refused(frame.kind, format!("a purpose {number}")));
        }
    };
    Ok(Hello { introduction: read_introduction(frame.kind, &hello.introduction())?, purpose })
}

pub(super) fn read_answer(frame: &Frame) -> Result<Answer, FrameError> {
    match frame.kind {
        Kind::Welcome => {
            let welcome = codec::read::<wire::Welcome>(frame.kind, &frame.message)?;
            let introduction = read_introduction(frame.kind, &welcome.introduction())?;
            Ok(Answer::Welcome { introduction, protocol: welcome.protocol() })
        }
        Kind::Refused => {
            let refused = codec::read::<wire::Refused>(frame.kind, &frame.message)?;
            let refusal = Refusal::new(RefusalCode(refused.code()), shortened(refused.words()));
            Ok(Answer::Refused { refusal, session_latest: refused.session_latest() })
        }
        kind => Err(FrameError::Unexpected(kind)),
    }
}

fn read_introduction(
    kind: Kind,
    from: &wire::Introduction<'_>,
) -> Result<Introduction, FrameError> {
    let endpoint = |endpoint: wire::Endpoint<'_>| NodeEndpoint {
        listener: endpoint.listener().into(),
        host: endpoint.host().into(),
        port: endpoint.port(),
    };
    let introduction = Introduction {
        protocol: (from.protocol_min(), from.protocol_max()),
        feature_level: from.feature_level(),
        cluster_id: from.cluster_id().map(codec::uuid),
        node_id: from.node_id(),
        disk_id: codec::uuid(from.disk_id()),
        start: from.start(),
        shards: from.shards(),
        software: shortened(from.software().unwrap_or_default()).into(),
        rack: from.rack().map(|rack| shortened(rack).into()),
        endpoints: from.endpoints().into_iter().flatten().map(endpoint).collect(),
    };
    let has_shards = (1..=SHARDS_MAX).contains(&introduction.shards);
    if !has_shards || introduction.node_id < 0 || introduction.disk_id.is_zero() {
        let Introduction { node_id, disk_id, shards, .. } = introduction;
        let why = format!("node {node_id} with disk {disk_id} and {shards} shards");
        return Err(codec::refused(kind, why));
    }
    Ok(introduction)
}

/// Text of a peer as it may stand in a log: one line, and not a long one.
fn shortened(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(WORDS_MAX).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::peer::frame::FrameBuffer;
    use crate::peer::options::GREETING_LIMITS;

    pub(in crate::peer) fn introduction() -> Introduction {
        Introduction {
            protocol: (1, 3),
            feature_level: 7,
            cluster_id: Some(Uuid(u128::MAX - 5)),
            node_id: 3,
            disk_id: Uuid(1 << 64 | 9),
            start: 1_790_000_000_000,
            shards: 4,
            software: "vltava 0.1.0".into(),
            rack: Some("b".into()),
            endpoints: vec![
                NodeEndpoint { listener: "PLAINTEXT".into(), host: "a".into(), port: 9092 },
                NodeEndpoint { listener: "PEER".into(), host: "10.0.0.1".into(), port: 9192 },
            ],
        }
    }

    fn frame(bytes: Bytes) -> Frame {
        let mut frames = FrameBuffer::new(GREETING_LIMITS);
        frames.put_back(bytes.into());
        let frame = frames.next_frame().unwrap().unwrap();
        assert!(frames.is_empty());
        frame
    }

    #[test]
    fn greetings_come_as_they_went() {
        let nobody = Introduction {
            cluster_id: None,
            rack: None,
            endpoints: Vec::new(),
            software: Str::EMPTY,
            ..introduction()
        };
        for introduction in [introduction(), nobody] {
            for purpose in [
                Purpose::Knock,
                Purpose::Control { session: u64::MAX },
                Purpose::Lane { session: 8, lane: u16::MAX },
            ] {
                let hello = Hello { introduction: introduction.clone(), purpose };
                assert_eq!(read_hello(&frame(hello_frame(&hello))), Ok(hello));
            }
            let welcome = Answer::Welcome { introduction, protocol: 2 };
            assert_eq!(read_answer(&frame(answer_frame(&welcome))), Ok(welcome));
        }
        let refusal = Refusal::new(RefusalCode::UNKNOWN_NODE, "who are you?");
        let refused = Answer::Refused { refusal, session_latest: 12 };
        assert_eq!(read_answer(&frame(answer_frame(&refused))), Ok(refused));
    }

    #[test]
    fn a_peers_words_are_one_short_line() {
        let words = format!("a\nb\u{1b}[31m{}", "c".repeat(5000));
        let refusal = Refusal::new(RefusalCode::VIOLATION, words);
        let frame = frame(answer_frame(&Answer::Refused { refusal, session_latest: 0 }));
        let Ok(Answer::Refused { refusal, .. }) = read_answer(&frame) else { panic!() };
        assert!(refusal.words.starts_with("ab[31mccc"), "{refusal}");
        assert_eq!(refusal.words.chars().count(), WORDS_MAX);
    }

    #[test]
    fn nodes_that_cannot_be_are_refused() {
        let wrong = [
            Introduction { shards: 0, ..introduction() },
            Introduction { shards: SHARDS_MAX + 1, ..introduction() },
            Introduction { node_id: -1, ..introduction() },
            Introduction { disk_id: Uuid::ZERO, ..introduction() },
        ];
        for introduction in wrong {
            let hello = Hello { introduction, purpose: Purpose::Knock };
            assert!(read_hello(&frame(hello_frame(&hello))).is_err());
        }
    }

    #[test]
    fn the_highest_common_version_is_spoken() {
        for (own, theirs, common) in [
            ((1, 1), (1, 1), Some(1)),
            ((1, 4), (2, 3), Some(3)),
            ((1, 4), (4, 9), Some(4)),
            ((1, 4), (5, 9), None),
            ((5, 9), (1, 4), None),
            ((3, 2), (1, 9), None),
        ] {
            assert_eq!(common_protocol(own, theirs).ok(), common, "{own:?} {theirs:?}");
        }
    }
}
