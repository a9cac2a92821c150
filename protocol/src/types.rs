//! Values that more than one message shares.

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

/// A string that borrows from the buffer it was decoded from, by reference count.
///
/// Cloning costs no copy; it may cross threads. Always valid UTF-8.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Str(Bytes);

impl Str {
    /// The empty string.
    pub const EMPTY: Self = Self(Bytes::new());

    /// A string that lives for ever; costs nothing.
    pub const fn from_static(text: &'static str) -> Self {
        Self(Bytes::from_static(text.as_bytes()))
    }

    /// Takes bytes that are UTF-8; gives them back where they are not.
    pub fn from_utf8(bytes: Bytes) -> Result<Self, Bytes> {
        if std::str::from_utf8(&bytes).is_ok() { Ok(Self(bytes)) } else { Err(bytes) }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        // Checked when it was made; checking again costs less than an `unsafe` would need to
        // excuse.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// The bytes of the text, shared.
    pub fn as_bytes(&self) -> &Bytes {
        &self.0
    }

    /// Whether it is the empty string. Does not look at the text, as `str::is_empty` would have to.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A copy that owns its bytes, for what outlives a request: a slice would pin the whole receive
    /// buffer.
    pub fn detached(&self) -> Self {
        Self(Bytes::copy_from_slice(&self.0))
    }
}

impl std::ops::Deref for Str {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl std::borrow::Borrow<str> for Str {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Str {
    fn from(text: &str) -> Self {
        Self(Bytes::copy_from_slice(text.as_bytes()))
    }
}

impl From<String> for Str {
    fn from(text: String) -> Self {
        Self(Bytes::from(text))
    }
}

impl PartialEq<str> for Str {
    fn eq(&self, other: &str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl PartialEq<&str> for Str {
    fn eq(&self, other: &&str) -> bool {
        self.0 == other.as_bytes()
    }
}

impl fmt::Display for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Str {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// A UUID: a topic's id, a disk's id, a cluster's id. Shown as Kafka shows it: base64url without
/// padding.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub u128);

impl Uuid {
    /// "No id", as Kafka writes it.
    pub const ZERO: Self = Self(0);

    /// Whether this is "no id".
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Digits of base64url, by value.
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
/// Digits of a UUID: 21 of six bits, and one that holds the last two.
const UUID_DIGITS: usize = 22;

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; UUID_DIGITS];
        let mut rest = self.0;
        for digit in digits.iter_mut().take(UUID_DIGITS - 1) {
            *digit = BASE64_URL[(rest >> 122) as usize];
            rest <<= 6;
        }
        digits[UUID_DIGITS - 1] = BASE64_URL[(rest >> 122) as usize];
        f.pad(std::str::from_utf8(&digits).unwrap_or_default())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not the 22 digits of a UUID in base64url.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a UUID: 22 digits of base64url")]
pub struct UuidError;

impl FromStr for Uuid {
    type Err = UuidError;

    fn from_str(text: &str) -> Result<Self, UuidError> {
        if text.len() != UUID_DIGITS {
            return Err(UuidError);
        }
        let mut value = 0_u128;
        for (at, digit) in text.bytes().enumerate() {
            let found = BASE64_URL.iter().position(|&candidate| candidate == digit);
            let bits = found.ok_or(UuidError)? as u128;
            if at < UUID_DIGITS - 1 {
                value = value << 6 | bits;
            } else if bits & 0x0f == 0 {
                value = value << 2 | bits >> 4;
            } else {
                return Err(UuidError);
            }
        }
        Ok(Self(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuid_is_shown_as_kafka_shows_it() {
        // From a real Kafka: Uuid.METADATA_TOPIC_ID, Uuid.ZERO_UUID.
        assert_eq!(Uuid(1).to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        assert_eq!(Uuid::ZERO.to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        assert_eq!(Uuid(u128::MAX).to_string(), "_____________________w");
        for value in [0, 1, 0x1234_5678_9abc_def0 << 64, u128::MAX, 1 << 127] {
            assert_eq!(Uuid(value).to_string().parse(), Ok(Uuid(value)));
        }
    }

    #[test]
    fn uuid_refuses_what_is_none() {
        for text in ["", "AAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA+Q", "é"] {
            assert_eq!(text.parse::<Uuid>(), Err(UuidError), "{text}");
        }
    }

    #[test]
    fn str_is_always_utf8() {
        assert!(Str::from_utf8(Bytes::from_static(&[0xff])).is_err());
        assert_eq!(Str::from_static("Vltava"), "Vltava");
        assert_eq!(Str::from("a").detached(), Str::from(String::from("a")));
    }
}
