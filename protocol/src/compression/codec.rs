//! Which codecs there are, and how they fail.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Codec {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952; several members are read as one.
    Gzip,
    /// Snappy: xerial's framing (written and read) or one raw block (read).
    Snappy,
    /// One lz4 frame.
    Lz4,
    /// Zstandard frames (KIP-110).
    Zstd,
}

impl Codec {
    /// All of them, by their number.
    pub const ALL: [Self; 5] = [Self::None, Self::Gzip, Self::Snappy, Self::Lz4, Self::Zstd];

    /// The number in a batch's attributes.
    pub const fn id(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Snappy => 2,
            Self::Lz4 => 3,
            Self::Zstd => 4,
        }
    }

    /// The codec of that number.
    pub const fn from_id(id: u8) -> Option<Self> {
        match id {
            0 => Some(Self::None),
            1 => Some(Self::Gzip),
            2 => Some(Self::Snappy),
            3 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _ => None,
        }
    }

    /// The name that Kafka's settings use.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Snappy => "snappy",
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
        }
    }

    /// The levels that Kafka's settings allow, where the codec has levels.
    pub const fn levels(self) -> Option<RangeInclusive<i32>> {
        match self {
            Self::None | Self::Snappy => None,
            Self::Gzip => Some(1..=9),
            Self::Lz4 => Some(1..=17),
            Self::Zstd => Some(-131_072..=22),
        }
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Codec {
    type Err = CompressionError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|codec| codec.name() == name);
        found.ok_or(CompressionError::UnknownCodec)
    }
}

/// Why bytes cannot be compressed or decompressed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum CompressionError {
    /// No codec of that name.
    #[error("no such codec; there are none, gzip, snappy, lz4, zstd")]
    UnknownCodec,
    /// The bytes are not what the codec writes.
    #[error("not valid {codec}: {what}")]
    Corrupt {
        /// Whose format it should be.
        codec: Codec,
        /// What is wrong.
        what: &'static str,
    },
    /// The bytes would decompress to more than allowed.
    #[error("decompresses to more than {bytes_max} bytes")]
    TooLarge {
        /// What was allowed.
        bytes_max: usize,
    },
    /// A level that the codec does not have.
    #[error("{codec} has no level {level}")]
    Level {
        /// Which codec.
        codec: Codec,
        /// Which level.
        level: i32,
    },
    /// The codec's library refused, for want of memory in all likelihood.
    #[error("{0} could not be set up")]
    Library(Codec),
}

impl CompressionError {
    pub(super) const fn corrupt(codec: Codec, what: &'static str) -> Self {
        Self::Corrupt { codec, what }
    }
}
