//! What the records of group 0 say.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use vltava_protocol::records::metadata::Key;
use vltava_protocol::types::Str;

use crate::machine::{KeyValue, ReplayError};
use crate::metadata::image::Image;
use crate::metadata::records::Record;
use crate::metadata::topic_name::collision_key;

/// The image, and what the controller derives from it. The default is an empty cluster that has not
/// formed.
#[derive(Clone, Debug, Default)]
pub struct State {
    image: Image,
    /// Topics whose names have a dot or an underscore, by what they collide under.
    collisions: BTreeMap<String, BTreeSet<Str>>,
}

impl State {
    /// The cluster. A clone is cheap, and stays as it is.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// An existing topic that a new one of this name would collide with, the name itself aside.
    pub(super) fn colliding(&self, name: &str) -> Option<&Str> {
        let topics = self.collisions.get(&collision_key(name)?)?;
        topics.iter().find(|topic| topic.as_str() != name)
    }

    /// Applies a record of the log.
    pub(super) fn replay(&mut self, record: &KeyValue) -> Result<(), ReplayError> {
        let failed = |error| ReplayError(format!("{error}"));
        let record = Record::decode(&record.key, record.value.as_ref()).map_err(failed)?;
        let (added, removed) = match &record {
            Record::Topic(_, Some(name)) => (Some(name.clone()), None),
            Record::Topic(id, None) => {
                (None, self.image.topic_by_id(*id).map(|topic| topic.name.clone()))
            }
            _ => (None, None),
        };
        self.image.apply(record).map_err(failed)?;
        if let Some(name) = added
            && let Some(key) = collision_key(&name)
        {
            self.collisions.entry(key).or_default().insert(name);
        }
        if let Some(name) = removed
            && let Some(key) = collision_key(&name)
        {
            let rest = self.collisions.get_mut(&key);
            let is_last = rest.is_some_and(|topics| topics.remove(&name) && topics.is_empty());
            if is_last {
                self.collisions.remove(&key);
            }
        }
        Ok(())
    }

    /// The records that make this state, behind the one with key `after`, at most `records_max`.
    pub(super) fn snapshot(&self, after: Option<&Bytes>, records_max: usize) -> Vec<KeyValue> {
        let after = match after.map(Key::decode) {
            None => None,
            Some(Ok(key)) => Some(key),
            // Not a key of ours; whoever passed it made it up.
            Some(Err(error)) => {
                debug_assert!(false, "a key that no piece of a snapshot ended with: {error}");
                return Vec::new();
            }
        };
        let records = self.image.to_records(after.as_ref(), records_max);
        // What was decoded from a record can be encoded as one.
        let encoded = records.iter().filter_map(|record| record.encode().ok());
        encoded.map(|(key, value)| KeyValue { key, value }).collect()
    }
}

#[cfg(test)]
impl PartialEq for State {
    fn eq(&self, other: &Self) -> bool {
        self.image == other.image && self.collisions == other.collisions
    }
}
