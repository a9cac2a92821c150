//! What the crate does with the bytes of a message, by the message's name.

use bytes::Bytes;
use vltava_protocol::decode::{DecodeError, Reader};
use vltava_protocol::encode::Writer;
use vltava_protocol::message::Message;

/// A generated message.
pub struct Entry {
    pub module: &'static str,
    pub name: &'static str,
    pub version_min: i16,
    pub version_max: i16,
    /// Decodes, encodes, and decodes that again, which must give the same value.
    pub recode: fn(&[u8], i16) -> Result<Recoded, DecodeError>,
    /// The bytes of the default.
    pub default: fn(i16) -> Vec<u8>,
    /// Whether these bytes decode to the default.
    pub is_default: fn(&[u8], i16) -> bool,
    /// Decodes, and drops what came out.
    pub decode: fn(Bytes, i16) -> Result<(), DecodeError>,
}

/// What came of decoding and encoding.
pub struct Recoded {
    pub bytes: Vec<u8>,
    /// Bytes that the first decoding left.
    pub rest: usize,
}

macro_rules! entries {
    ($(($parent:ident::$module:ident $name:ident))*) => {
        /// Every generated message.
        pub const ENTRIES: &[Entry] = &[
            $(entry::<vltava_protocol::$parent::$module::$name>(
                concat!(stringify!($parent), "::", stringify!($module)),
            ),)*
        ];
    };
}

vltava_protocol::for_each_message!(entries);

const fn entry<M: Message>(module: &'static str) -> Entry {
    Entry {
        module,
        name: M::NAME,
        version_min: M::VERSION_MIN,
        version_max: M::VERSION_MAX,
        recode: recode::<M>,
        default: default::<M>,
        is_default: is_default::<M>,
        decode: decode::<M>,
    }
}

pub fn find(name: &str) -> &'static Entry {
    let mut entries = ENTRIES.iter();
    let found = entries.find(|entry| entry.name == name);
    found.unwrap_or_else(|| panic!("{name} is not generated"))
}

fn encode<M: Message>(message: &M, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).unwrap();
    let len = writer.len();
    let bytes = writer.into_bytes().unwrap();
    assert_eq!(bytes.len(), len, "the writer knows its length");
    bytes.to_vec()
}

fn recode<M: Message>(bytes: &[u8], version: i16) -> Result<Recoded, DecodeError> {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    let message = M::decode(&mut reader, version)?;
    let encoded = encode(&message, version);
    let mut again = Reader::new(Bytes::copy_from_slice(&encoded));
    let message_again = M::decode(&mut again, version).unwrap();
    assert_eq!(again.remaining(), 0);
    // Compared as text: NaN, which hostile bytes may say, is not equal to itself.
    assert_eq!(format!("{message:?}"), format!("{message_again:?}"));
    Ok(Recoded { bytes: encoded, rest: reader.remaining() })
}

fn default<M: Message>(version: i16) -> Vec<u8> {
    encode(&M::default(), version)
}

fn is_default<M: Message>(bytes: &[u8], version: i16) -> bool {
    let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
    M::decode(&mut reader, version).unwrap() == M::default()
}

fn decode<M: Message>(bytes: Bytes, version: i16) -> Result<(), DecodeError> {
    M::decode(&mut Reader::new(bytes), version).map(drop)
}
