//! What every generated message can do.

use bytes::Bytes;

use crate::api::ApiKey;
use crate::decode::{DecodeError, Reader};
use crate::encode::{EncodeError, Writer};

/// A message in all its versions.
pub trait Message: Clone + std::fmt::Debug + Default + PartialEq {
    /// Kafka's name for it, as `ProduceRequest`.
    const NAME: &'static str;
    /// Lowest version.
    const VERSION_MIN: i16;
    /// Highest version, which may still be unstable; see [`crate::api::Api::max_version`].
    const VERSION_MAX: i16;

    /// Reads it in this version. What follows it stays in the reader.
    ///
    /// # Errors
    /// Bytes that are no such message, or a version outside `VERSION_MIN..=VERSION_MAX`.
    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError>;

    /// Writes it in this version. After an error, what the writer holds is of no use.
    ///
    /// # Errors
    /// The version does not exist or cannot say what the value holds.
    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError>;
}

/// A message that asks for an answer.
pub trait Request: Message {
    /// The API that it belongs to.
    const API: ApiKey;
    /// What answers it, in the same version.
    type Response: Message;
}

/// Numbers in front, then the message: keys and values of records.
///
/// # Errors
/// As [`Message::encode`].
pub fn to_prefixed_bytes<M: Message>(
    prefix: &[i16],
    message: &M,
    version: i16,
) -> Result<Bytes, EncodeError> {
    let mut writer = Writer::new();
    for number in prefix {
        writer.i16(*number);
    }
    message.encode(&mut writer, version)?;
    // Nothing here is outside memory: records of internal topics hold no record data.
    Ok(writer.into_bytes().unwrap_or_default())
}

/// The version in front, then the message: values of internal topics, and what the consumer
/// protocol puts into its byte fields.
///
/// # Errors
/// As [`Message::encode`].
pub fn to_versioned_bytes<M: Message>(message: &M, version: i16) -> Result<Bytes, EncodeError> {
    to_prefixed_bytes(&[version], message, version)
}

/// Reads what [`to_versioned_bytes`] wrote. Bytes behind it are not looked at.
///
/// # Errors
/// As [`Message::decode`]; a version that does not exist here is one of them.
pub fn from_versioned_bytes<M: Message>(bytes: &Bytes) -> Result<M, DecodeError> {
    let mut reader = Reader::new(bytes.clone());
    let version = reader.i16()?;
    M::decode(&mut reader, version)
}
