//! A connection that takes answers to the last byte, and keeps what was said.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use bytes::Bytes;
use vltava_protocol::api::ApiKey;
use vltava_protocol::decode::Reader;
use vltava_protocol::encode::{Part, Writer};
use vltava_protocol::frame::{RequestHeader, ResponseHeader};
use vltava_protocol::message::{Message, Request};
use vltava_protocol::messages::api_versions::ApiVersionsRequest;
use vltava_protocol::types::Str;

/// Longer than any answer takes, on a machine that does much else.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(30);

/// An answer, as text in which what differs from broker to broker is the same.
pub struct Noted {
    what: String,
    text: String,
}

/// One connection, and what was said over it.
pub struct Talk {
    pub address: SocketAddr,
    stream: TcpStream,
    correlation_id: i32,
    advertised: BTreeSet<(ApiKey, i16)>,
    asked: BTreeSet<(ApiKey, i16)>,
    noted: Vec<Noted>,
    /// Texts that differ from broker to broker, and what is noted for them.
    masks: Vec<(String, &'static str)>,
}

impl Talk {
    pub fn new(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(ANSWER_TIME_MAX)).expect("a timeout");
        stream.set_nodelay(true).expect("a connection");
        let mut talk = Self {
            address,
            stream,
            correlation_id: 0,
            advertised: BTreeSet::new(),
            asked: BTreeSet::new(),
            noted: Vec::new(),
            masks: Vec::new(),
        };
        talk.mask(talk.address.port().to_string(), "PORT");
        talk.mask(talk.name(""), "");
        let answer = talk.ask(0, &ApiVersionsRequest::default());
        for row in answer.api_keys {
            let versions = row.min_version..=row.max_version;
            let key = ApiKey(row.api_key);
            talk.advertised.extend(versions.map(|version| (key, version)));
        }
        talk
    }

    /// A name of this run only: a broker may be asked several times.
    pub fn name(&self, name: &str) -> String {
        format!("run-{}-{name}", std::process::id())
    }

    /// See [`Self::name`].
    pub fn str(&self, name: &str) -> Str {
        Str::from(self.name(name))
    }

    /// Such a text is noted as `shown`.
    pub fn mask(&mut self, text: impl ToString, shown: &'static str) {
        self.masks.push((text.to_string(), shown));
    }

    /// The versions of an API in which it is to be asked.
    pub fn versions<R: Request>(&self) -> std::ops::RangeInclusive<i16> {
        let api = R::API.api().expect("an API of the table");
        let served = (api.min_version..=api.max_version)
            .all(|version| self.advertised.contains(&(api.key, version)));
        assert!(served, "{} is not served in all versions", api.name);
        api.min_version..=api.max_version
    }

    /// Sends a request; decodes its answer, which must hold nothing else.
    pub fn ask<R: Request>(&mut self, version: i16, request: &R) -> R::Response {
        self.send(version, request);
        self.receive::<R>(version)
    }

    pub fn send<R: Request>(&mut self, version: i16, request: &R) {
        self.asked.insert((R::API, version));
        self.correlation_id += 1;
        let header = RequestHeader {
            api_key: R::API,
            api_version: version,
            correlation_id: self.correlation_id,
            client_id: Some(Str::from_static("apis")),
        };
        let mut writer = Writer::frame();
        header.encode(&mut writer).expect("a header");
        request.encode(&mut writer, version).unwrap_or_else(|error| panic!("{error}"));
        for part in writer.finish_frame().expect("a frame") {
            let Part::Memory(bytes) = part else { panic!("a part outside memory") };
            self.stream.write_all(&bytes).expect("bytes sent");
        }
    }

    /// The answer to the last request.
    pub fn receive<R: Request>(&mut self, version: i16) -> R::Response {
        let what = format!("{} v{version}", R::NAME);
        let frame = self.frame().unwrap_or_else(|error| panic!("{what}: {error}"));
        let mut reader = Reader::new(frame.clone());
        let header = ResponseHeader::decode(&mut reader, R::API, version).expect("a header");
        assert_eq!(header.correlation_id, self.correlation_id, "{what}");
        let body = frame.slice(frame.len() - reader.remaining()..);
        let response = R::Response::decode(&mut reader, version)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(reader.remaining(), 0, "{what}: bytes behind the answer");
        let mut writer = Writer::new();
        response.encode(&mut writer, version).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(writer.into_bytes().expect("bytes") == body, "{what}: other bytes: {response:?}");
        response
    }

    fn frame(&mut self) -> std::io::Result<Bytes> {
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let mut frame = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut frame)?;
        Ok(Bytes::from(frame))
    }

    /// Keeps an answer for the comparison with another broker.
    pub fn note<M: Message>(&mut self, what: &str, version: i16, answer: &M) {
        self.noted.push(Noted {
            what: format!("{} v{version}: {what}", M::NAME),
            text: self.masked(&format!("{answer:#?}")),
        });
    }

    /// Asks, and notes the answer.
    pub fn exchange<R: Request>(&mut self, what: &str, version: i16, request: &R) -> R::Response {
        let answer = self.ask(version, request);
        self.note(what, version, &answer);
        answer
    }

    fn masked(&self, text: &str) -> String {
        let mut masked = text.to_owned();
        for (text, shown) in &self.masks {
            masked = masked.replace(text, shown);
        }
        // Messages are for people; we have more of them.
        let mut lines = Vec::new();
        let mut all = masked.lines();
        while let Some(line) = all.next() {
            match line.split_once("message: ") {
                Some((_, "Some(")) => drop(all.by_ref().take(2).count()),
                Some((_, "None,")) => {}
                _ => lines.push(line),
            }
        }
        lines.join("\n")
    }

    /// Everything that was noted. All versions must have been asked.
    pub fn finish(self) -> Vec<Noted> {
        let is_ours = |(key, version): &&(ApiKey, i16)| {
            key.api().is_some_and(|api| api.min_version <= *version)
        };
        let missing: Vec<_> = self.advertised.difference(&self.asked).filter(is_ours).collect();
        // A Kafka serves more.
        let is_kafka = self.advertised.contains(&(ApiKey::ADD_PARTITIONS_TO_TXN, 0));
        assert!(is_kafka || missing.is_empty(), "never asked: {missing:?}");
        self.noted
    }
}

/// What two brokers answered otherwise: the lines that only one has, and to which requests.
pub fn differences(ours: &[Noted], theirs: &[Noted]) -> Vec<String> {
    assert_eq!(ours.len(), theirs.len(), "they were asked the same");
    let mut by_lines: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (ours, theirs) in ours.iter().zip(theirs) {
        assert_eq!(ours.what, theirs.what);
        if ours.text != theirs.text {
            let lines = difference(&ours.text, &theirs.text);
            by_lines.entry(lines).or_default().push(&ours.what);
        }
    }
    by_lines.iter().map(|(lines, whats)| format!("{}\n{lines}", whats.join("\n"))).collect()
}

/// The lines outside the longest common subsequence.
fn difference(ours: &str, theirs: &str) -> String {
    let (ours, theirs): (Vec<_>, Vec<_>) = (ours.lines().collect(), theirs.lines().collect());
    let mut common = vec![vec![0_u32; theirs.len() + 1]; ours.len() + 1];
    for (i, our) in ours.iter().enumerate().rev() {
        for (j, their) in theirs.iter().enumerate().rev() {
            common[i][j] = if our == their {
                common[i + 1][j + 1] + 1
            } else {
                common[i + 1][j].max(common[i][j + 1])
            };
        }
    }
    let (mut i, mut j, mut shown) = (0, 0, String::new());
    while i < ours.len() || j < theirs.len() {
        if i < ours.len() && j < theirs.len() && ours[i] == theirs[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == theirs.len() || i < ours.len() && common[i + 1][j] >= common[i][j + 1] {
            shown += &format!("  ours   {}\n", ours[i]);
            i += 1;
        } else {
            shown += &format!("  theirs {}\n", theirs[j]);
            j += 1;
        }
    }
    shown
}
