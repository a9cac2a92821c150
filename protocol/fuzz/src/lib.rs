//! The fuzz targets, in one list: what cargo-fuzz runs, and what `tests/fuzz_smoke.rs` runs in CI.
//!
//! A target takes any bytes. Whatever they are, nothing may panic; and what decodes must encode to
//! bytes that decode to the same value again.
//!
//! The first byte chooses the message, the second the version, counted from its lowest one.

use bytes::Bytes;
use vltava_protocol::batch::walk;
use vltava_protocol::compression::decompress;
use vltava_protocol::decode::Reader;
use vltava_protocol::encode::Writer;
use vltava_protocol::frame::{LENGTH_BYTES, RequestHeader, ResponseHeader, frame_length};
use vltava_protocol::message::Message;
use vltava_protocol::record::{records as records_of, validate_records};
use vltava_protocol::records;

/// What a batch may grow to in [`batch`].
const DECOMPRESSED_BYTES_MAX: usize = 1 << 20;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// Every target, by name.
pub const TARGETS: &[(&str, Target)] = &[
    ("request", request),
    ("response", response),
    ("record", record),
    ("frame", frame),
    ("batch", batch),
];

/// A generated message.
pub struct Codec {
    /// Kafka's name for it.
    pub name: &'static str,
    /// Whether it belongs to an API, and not to the records.
    pub is_api: bool,
    version_min: i16,
    recode: fn(&[u8], i16),
}

macro_rules! codecs {
    ($(($parent:ident::$module:ident $name:ident))*) => {
        /// Every generated message.
        pub const CODECS: &[Codec] = &[
            $(codec::<vltava_protocol::$parent::$module::$name>(stringify!($parent)),)*
        ];
    };
}

vltava_protocol::for_each_message!(codecs);

const fn codec<M: Message>(parent: &str) -> Codec {
    Codec {
        name: M::NAME,
        is_api: parent.as_bytes()[0] == b'm',
        version_min: M::VERSION_MIN,
        recode: recode::<M>,
    }
}

/// Any request in any version.
pub fn request(data: &[u8]) {
    run(data, |codec| codec.is_api && codec.name.ends_with("Request"));
}

/// Any response in any version.
pub fn response(data: &[u8]) {
    run(data, |codec| codec.is_api && codec.name.ends_with("Response"));
}

/// Any record, with its key, its value, or on its own.
pub fn record(data: &[u8]) {
    run(data, |codec| !codec.is_api);
    let bytes = Bytes::copy_from_slice(data);
    if let Ok(key) = records::group::Key::decode(&bytes) {
        let encoded = key.to_bytes().expect("what was decoded can be encoded");
        assert_eq!(records::group::Key::decode(&encoded), Ok(key));
    }
    let _ = records::transaction::Key::decode(&bytes);
    let _ = records::share::Key::decode(&bytes);
}

/// A length, a header, and the rest of a connection's first frame.
pub fn frame(data: &[u8]) {
    let Some((prefix, rest)) = data.split_first_chunk::<LENGTH_BYTES>() else {
        return;
    };
    let Ok(length) = frame_length(*prefix, 1 << 20) else {
        return;
    };
    let body = Bytes::copy_from_slice(&rest[..length.min(rest.len())]);
    let mut reader = Reader::new(body.clone());
    if let Ok(header) = RequestHeader::decode(&mut reader) {
        let mut writer = Writer::new();
        header.encode(&mut writer).expect("what was decoded can be encoded");
        let encoded = writer.into_bytes().expect("in memory");
        assert_eq!(RequestHeader::decode(&mut Reader::new(encoded)), Ok(header.clone()));
        let mut reader = Reader::new(body);
        let _ = ResponseHeader::decode(&mut reader, header.api_key, header.api_version);
    }
}

/// Record batches, whatever their checksum says: header, codec, records.
pub fn batch(data: &[u8]) {
    for batch in walk(data).flatten() {
        let _ = batch.check_crc();
        let _ = batch.check_producer_rules();
        let Ok(codec) = batch.codec() else {
            continue;
        };
        let Ok(payload) = decompress(codec, batch.payload(), DECOMPRESSED_BYTES_MAX) else {
            continue;
        };
        assert!(payload.len() <= DECOMPRESSED_BYTES_MAX.max(batch.payload().len()));
        let count = batch.record_count();
        let read = records_of(&payload, count).filter(Result::is_ok).count();
        assert!(read <= payload.len());
        let facts =
            validate_records(&payload, batch.base_timestamp(), count, batch.last_offset_delta());
        if facts.is_ok() {
            assert_eq!(usize::try_from(count), Ok(read));
        }
    }
}

/// Fails on what a fuzzer must find soon: one that finds nothing here proves nothing elsewhere.
pub fn canary(data: &[u8]) {
    assert!(!data.starts_with(&[0xca, 0xfe]), "the canary sings");
}

fn run(data: &[u8], is_wanted: fn(&Codec) -> bool) {
    let [message, version, rest @ ..] = data else {
        return;
    };
    let wanted: Vec<&Codec> = CODECS.iter().filter(|codec| is_wanted(codec)).collect();
    let codec = wanted[usize::from(*message) % wanted.len()];
    (codec.recode)(rest, codec.version_min + i16::from(*version));
}

fn recode<M: Message>(data: &[u8], version: i16) {
    let Ok(message) = M::decode(&mut Reader::new(Bytes::copy_from_slice(data)), version) else {
        return;
    };
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("what was decoded can be encoded");
    let encoded = writer.into_bytes().expect("in memory");
    let mut reader = Reader::new(encoded);
    let again = M::decode(&mut reader, version).expect("what was encoded can be decoded");
    assert_eq!(reader.remaining(), 0);
    // Compared as text: NaN is not equal to itself.
    assert_eq!(format!("{message:?}"), format!("{again:?}"));
}
