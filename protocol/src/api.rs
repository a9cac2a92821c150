//! The one table of APIs: those of Kafka 4.4's broker listener, generated from `schema/api/`.
//!
//! It says what the wire knows; which of them a broker serves is the broker's own list.

use std::fmt;

include!(concat!(env!("OUT_DIR"), "/api.rs"));

/// Which API a request belongs to. Any number may come off the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiKey(pub i16);

/// What the wire knows about an API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Api {
    /// Its number.
    pub key: ApiKey,
    /// Kafka's name, as `Produce`.
    pub name: &'static str,
    /// Lowest version.
    pub min_version: i16,
    /// Highest stable version: what a broker advertises.
    pub max_version: i16,
    /// Highest version that can be decoded: above `max_version` where Kafka is still changing one.
    pub unstable_max_version: i16,
    /// First version with tagged fields and compact lengths (KIP-482); `None` where no version has
    /// them.
    pub flexible_from: Option<i16>,
    /// What it does, in one line.
    pub summary: &'static str,
}

impl ApiKey {
    /// What the wire knows about it; `None` for an API outside the table.
    pub fn api(self) -> Option<&'static Api> {
        let at = APIS.binary_search_by_key(&self, |api| api.key).ok()?;
        APIS.get(at)
    }

    /// Kafka's name for it, or `Unknown`.
    pub fn name(self) -> &'static str {
        self.api().map_or("Unknown", |api| api.name)
    }
}

impl Api {
    /// Whether the version is served when this API is.
    pub fn is_version_stable(&self, version: i16) -> bool {
        (self.min_version..=self.max_version).contains(&version)
    }

    /// Whether requests and responses of this version are in the flexible encoding.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.api() {
            Some(api) => f.pad(api.name),
            None => write!(f, "ApiKey({})", self.0),
        }
    }
}

impl fmt::Display for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
