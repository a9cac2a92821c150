//! Frames as real clients and a real Kafka 4.4 sent them: they decode to what stands beside them,
//! to the last byte, and encode to the same bytes again.
//!
//! `golden/CLIENT/API-vN.txt` has, each under its title, the bytes of a request (without the length
//! in front), what it says, the bytes of its answer, and what that says. A new frame is a file with
//! the two titles of bytes; `VLTAVA_WRITE_GOLDEN=1 cargo test -p vltava-protocol --test golden`
//! writes what they say, which somebody then reads.
#![allow(clippy::expect_used, reason = "a test fails by panicking")]

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use vltava_protocol::decode::Reader;
use vltava_protocol::encode::Writer;
use vltava_protocol::frame::{RequestHeader, ResponseHeader};
use vltava_protocol::message::Message;

/// Bytes on one line of a file.
const LINE_BYTES: usize = 40;

/// A request and its answer.
struct Exchange {
    request: Bytes,
    response: Bytes,
}

/// What a message says, and its bytes as they are written here.
type Decode = fn(&mut Reader, i16, &mut Writer) -> String;

fn decode<M: Message>(reader: &mut Reader, version: i16, writer: &mut Writer) -> String {
    let message = M::decode(reader, version).unwrap_or_else(|error| panic!("{}: {error}", M::NAME));
    message.encode(writer, version).unwrap_or_else(|error| panic!("{}: {error}", M::NAME));
    format!("{message:#?}")
}

macro_rules! messages {
    ($(($parent:ident::$module:ident $name:ident))*) => {
        fn decoder(name: &str) -> Decode {
            match name {
                $(stringify!($name) => decode::<vltava_protocol::$parent::$module::$name>,)*
                _ => panic!("{name} is not generated"),
            }
        }
    };
}

vltava_protocol::for_each_message!(messages);

impl Exchange {
    fn read(text: &str) -> Self {
        let bytes = |title: &str| {
            let begin = text.find(title).unwrap_or_else(|| panic!("no title {title:?}"));
            let lines = text[begin..].lines().skip(1).take_while(|line| !line.is_empty());
            let digits: String = lines.collect();
            let pairs = (0..digits.len()).step_by(2);
            pairs.map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("hex")).collect()
        };
        Self { request: bytes("# request, bytes\n"), response: bytes("# response, bytes\n") }
    }

    /// The file as it is to be. Decodes everything on the way.
    fn written(&self) -> String {
        let mut reader = Reader::new(self.request.clone());
        let mut writer = Writer::new();
        let header = RequestHeader::decode(&mut reader).expect("a header");
        header.encode(&mut writer).expect("a header");
        let api = header.api_key.api().expect("an API of the table");
        let decoder_of = |suffix| decoder(&format!("{}{suffix}", api.name));
        let request = decoder_of("Request")(&mut reader, header.api_version, &mut writer);
        assert_same(&self.request, &reader, writer);

        let mut reader = Reader::new(self.response.clone());
        let mut writer = Writer::new();
        let answered = ResponseHeader::decode(&mut reader, api.key, header.api_version);
        let answered = answered.expect("a header");
        assert_eq!(answered.correlation_id, header.correlation_id);
        answered.encode(&mut writer, api.key, header.api_version).expect("a header");
        let response = decoder_of("Response")(&mut reader, header.api_version, &mut writer);
        assert_same(&self.response, &reader, writer);

        let mut text = format!("# request, bytes\n{}\n", hex(&self.request));
        writeln!(text, "# request\n{header:#?}\n{request}\n").expect("text");
        write!(text, "# response, bytes\n{}\n# response\n{response}\n", hex(&self.response))
            .expect("text");
        text
    }
}

fn assert_same(bytes: &Bytes, reader: &Reader, writer: Writer) {
    assert_eq!(reader.remaining(), 0, "bytes are left");
    let written = writer.into_bytes().expect("bytes in memory");
    assert!(written == *bytes, "{} instead of\n{}", hex(&written), hex(bytes));
}

fn hex(bytes: &[u8]) -> String {
    bytes.chunks(LINE_BYTES).fold(String::new(), |mut text, line| {
        line.iter().for_each(|byte| write!(text, "{byte:02x}").expect("text"));
        text + "\n"
    })
}

fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let list = |path: &Path| {
        let entries = fs::read_dir(path).expect("a directory");
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("a file").path()).collect();
        paths.sort();
        paths
    };
    list(&root).iter().flat_map(|client| list(client)).collect()
}

#[test]
fn frames_of_real_clients_say_what_stands_beside_them() {
    let files = files();
    assert!(files.len() >= 40, "frames are missing");
    for path in files {
        let text = fs::read_to_string(&path).expect("a file");
        let written = Exchange::read(&text).written();
        if std::env::var_os("VLTAVA_WRITE_GOLDEN").is_some() {
            fs::write(&path, written).expect("a file");
        } else {
            assert!(text == written, "{} says something else", path.display());
        }
    }
}
