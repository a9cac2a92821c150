//! Control records: what brokers write among a partition's records, and clients skip.
//!
//! The key is a version, i16, and a type, i16; readers take any version from 0 on and look at the
//! first four bytes. The value depends on the type. [`EndTransactionMarker`] is the only one that
//! clients of a broker see; the others stand in logs of KRaft.

use thiserror::Error;

/// The version of keys and markers that is written.
const VERSION: i16 = 0;

/// What a control record says. Numbers that Kafka may add are kept, not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ControlType {
    /// A producer's transaction was aborted.
    Abort,
    /// A producer's transaction was committed.
    Commit,
    /// A new leader of a KRaft quorum.
    LeaderChange,
    /// The first record of a KRaft snapshot.
    SnapshotHeader,
    /// The last record of a KRaft snapshot.
    SnapshotFooter,
    /// Which version of KRaft its quorum speaks.
    KraftVersion,
    /// The voters of a KRaft quorum.
    KraftVoters,
    /// Not known here; to be skipped.
    Unknown(i16),
}

/// Why a control record cannot be read.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ControlError {
    /// The key or value is too short.
    #[error("a control record's {part} of {length} bytes, which is too short")]
    Short {
        /// "key" or "value".
        part: &'static str,
        /// Its length.
        length: usize,
    },
    /// A version below 0.
    #[error("a control record of version {0}")]
    Version(i16),
}

impl ControlType {
    /// Reads a control record's key.
    pub fn from_key(key: &[u8]) -> Result<Self, ControlError> {
        let [version, number] = two_shorts("key", key)?;
        if version < 0 {
            return Err(ControlError::Version(version));
        }
        Ok(Self::from_number(number))
    }

    /// The key that says this.
    pub fn to_key(self) -> [u8; 4] {
        let [a, b] = VERSION.to_be_bytes();
        let [c, d] = self.number().to_be_bytes();
        [a, b, c, d]
    }

    /// The number in the key.
    pub const fn number(self) -> i16 {
        match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(number) => number,
        }
    }

    /// The type of that number.
    pub const fn from_number(number: i16) -> Self {
        match number {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            unknown => Self::Unknown(unknown),
        }
    }
}

/// The end of a transaction, in the value of an abort or commit record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndTransactionMarker {
    /// Epoch of the transaction coordinator that decided; an older one is a zombie's.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// Reads a control record's value. Later versions may be longer.
    pub fn from_value(value: &[u8]) -> Result<Self, ControlError> {
        let short = ControlError::Short { part: "value", length: value.len() };
        let Some(([a, b, epoch @ ..], _)) = value.split_first_chunk::<6>() else {
            return Err(short);
        };
        match i16::from_be_bytes([*a, *b]) {
            version @ ..0 => Err(ControlError::Version(version)),
            _ => Ok(Self { coordinator_epoch: i32::from_be_bytes(*epoch) }),
        }
    }

    /// The value that says this.
    pub fn to_value(self) -> [u8; 6] {
        let [a, b] = VERSION.to_be_bytes();
        let [c, d, e, f] = self.coordinator_epoch.to_be_bytes();
        [a, b, c, d, e, f]
    }
}

fn two_shorts(part: &'static str, bytes: &[u8]) -> Result<[i16; 2], ControlError> {
    match bytes {
        [a, b, c, d, ..] => Ok([i16::from_be_bytes([*a, *b]), i16::from_be_bytes([*c, *d])]),
        _ => Err(ControlError::Short { part, length: bytes.len() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_markers_are_those_of_kafka() {
        assert_eq!(ControlType::Commit.to_key(), [0, 0, 0, 1]);
        assert_eq!(ControlType::Abort.to_key(), [0, 0, 0, 0]);
        let marker = EndTransactionMarker { coordinator_epoch: 0x0102_0304 };
        assert_eq!(marker.to_value(), [0, 0, 1, 2, 3, 4]);
        assert_eq!(EndTransactionMarker::from_value(&marker.to_value()), Ok(marker));
        for number in -3..=9 {
            let control = ControlType::from_number(number);
            assert_eq!(ControlType::from_key(&control.to_key()), Ok(control));
        }
    }

    #[test]
    fn a_later_version_is_read_by_its_first_bytes() {
        assert_eq!(ControlType::from_key(&[0, 1, 0, 1, 9, 9]), Ok(ControlType::Commit));
        let marker = EndTransactionMarker::from_value(&[0, 1, 0, 0, 0, 7, 9]).unwrap();
        assert_eq!(marker.coordinator_epoch, 7);
    }

    #[test]
    fn what_is_cut_off_or_negative_is_refused() {
        for length in 0..4 {
            assert!(ControlType::from_key(&[0; 4][..length]).is_err());
        }
        for length in 0..6 {
            assert!(EndTransactionMarker::from_value(&[0; 6][..length]).is_err());
        }
        assert_eq!(ControlType::from_key(&[0xff, 0xff, 0, 1]), Err(ControlError::Version(-1)));
        assert_eq!(
            EndTransactionMarker::from_value(&[0xff, 0xff, 0, 0, 0, 1]),
            Err(ControlError::Version(-1))
        );
    }
}
