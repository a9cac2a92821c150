//! Which topics a member of the consumer protocol reads. The only part of a member's metadata that
//! a coordinator looks into: offsets of a topic that is being read neither expire nor may be
//! deleted.

use std::collections::BTreeSet;

use bytes::Bytes;
use vltava_protocol::decode::{DecodeError, Reader};
use vltava_protocol::types::Str;

/// The protocol type of consumers; others (Connect's workers) have metadata of their own kind.
pub(super) const CONSUMER: Str = Str::from_static("consumer");

/// Adds the topics that a consumer's metadata names.
///
/// Every version begins as version 0 does: a version, then the topics.
pub(super) fn add_topics(metadata: &Bytes, topics: &mut BTreeSet<Str>) -> Result<(), DecodeError> {
    let mut reader = Reader::new(metadata.clone());
    let version = reader.i16()?;
    if version < 0 {
        return Err(DecodeError::NegativeLength(i32::from(version)));
    }
    topics.extend(reader.array(false, 2, |reader| reader.string(false))?);
    Ok(())
}
