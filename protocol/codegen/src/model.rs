//! What a schema file says, once read.

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first.
    pub first: i16,
    /// The last.
    pub last: i16,
}

impl Versions {
    /// Whether `version` is one of them.
    pub fn contains(self, version: i16) -> bool {
        self.first <= version && version <= self.last
    }

    /// Whether all of `other` are among them.
    pub fn covers(self, other: Self) -> bool {
        self.first <= other.first && other.last <= self.last
    }

    /// Those in both; `None` where there is none.
    pub fn intersect(self, other: Self) -> Option<Self> {
        let both = Self { first: self.first.max(other.first), last: self.last.min(other.last) };
        (both.first <= both.last).then_some(both)
    }

    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = i16> {
        self.first..=self.last
    }
}

/// The type of a field on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// One byte.
    Bool,
    /// One byte.
    Int8,
    /// Two bytes, big endian, as all numbers.
    Int16,
    /// Four bytes.
    Int32,
    /// Eight bytes.
    Int64,
    /// Two bytes.
    Uint16,
    /// Four bytes.
    Uint32,
    /// Eight bytes.
    Float64,
    /// Sixteen bytes.
    Uuid,
    /// UTF-8 with a length.
    String,
    /// Bytes with a length.
    Bytes,
    /// Record batches with a length.
    Records,
    /// A structure of the same file.
    Struct(String),
    /// Elements with a count. Never an array of arrays.
    Array(Box<Type>),
}

impl Type {
    /// The structure that this is, or has as its elements.
    pub fn struct_name(&self) -> Option<&str> {
        match self {
            Self::Struct(name) => Some(name),
            Self::Array(element) => element.struct_name(),
            _ => None,
        }
    }
}

/// The value of a field that a version lacks, or that nobody set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Default {
    /// Zero, false, empty, or a structure of defaults.
    Zero,
    /// Null.
    Null,
    /// A number.
    Int(i64),
    /// True.
    True,
}

/// A field of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// As Kafka writes it.
    pub name: String,
    /// Lines of documentation.
    pub doc: Vec<String>,
    /// Its type.
    pub ty: Type,
    /// In which versions it is on the wire. Within those of its structure.
    pub versions: Versions,
    /// In which of them it may be null.
    pub nullable: Option<Versions>,
    /// Its default.
    pub default: Default,
    /// Its number, where it is a tagged field.
    pub tag: Option<u32>,
    /// Whether a value may be dropped silently in a version that lacks the field.
    pub ignorable: bool,
    /// The line it stands in.
    pub line: usize,
}

impl Field {
    /// Whether its type in Rust is an error code: an `int16` whose name says so.
    pub fn is_error_code(&self) -> bool {
        self.ty == Type::Int16 && self.name.ends_with("ErrorCode")
    }
}

/// A structure: of a message, or nested in one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Struct {
    /// As Kafka writes it, except where two of one file would collide.
    pub name: String,
    /// Lines of documentation.
    pub doc: Vec<String>,
    /// In which versions it can occur.
    pub versions: Versions,
    /// In the order of the wire.
    pub fields: Vec<Field>,
    /// The line it stands in.
    pub line: usize,
}

/// A message: what is encoded as a whole, in one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its fields; the structure has the message's name.
    pub root: Struct,
    /// All its versions.
    pub versions: Versions,
    /// The first with tagged fields and compact lengths.
    pub flexible_from: Option<i16>,
    /// Structures that only this message uses.
    pub structs: Vec<Struct>,
}

impl Message {
    /// Whether `version` is flexible.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }
}

/// An API: a request and what answers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Api {
    /// As Kafka writes it, without `Request`.
    pub name: String,
    /// Its number.
    pub key: i16,
    /// Lines of documentation; the first says what it does.
    pub doc: Vec<String>,
    /// The first version that is still subject to change.
    pub unstable_from: Option<i16>,
    /// The request.
    pub request: Message,
    /// The response.
    pub response: Message,
}

/// What a file declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A request and a response.
    Api(Api),
    /// A record with a key: `NameKey` and `NameValue`.
    Keyed {
        /// Name without `Key` and `Value`.
        name: String,
        /// The number in front of the key.
        record_type: i16,
        /// Version 0 only, never flexible.
        key: Message,
        /// Any versions.
        value: Message,
    },
    /// A record without key: type, version, body.
    Record {
        /// The number in front.
        record_type: i16,
        /// The body.
        message: Message,
    },
    /// Anything else that has versions.
    Data(Message),
}

impl Item {
    /// Its messages.
    pub fn messages(&self) -> Vec<&Message> {
        match self {
            Self::Api(api) => vec![&api.request, &api.response],
            Self::Keyed { key, value, .. } => vec![key, value],
            Self::Record { message, .. } | Self::Data(message) => vec![message],
        }
    }
}

/// One schema file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// What it declares.
    pub items: Vec<Item>,
    /// Structures that a request and its response share.
    pub shared: Vec<Struct>,
}

impl File {
    /// All its messages.
    pub fn messages(&self) -> Vec<&Message> {
        self.items.iter().flat_map(Item::messages).collect()
    }

    /// The structure of this name that `message` refers to.
    pub fn find_struct<'a>(&'a self, message: &'a Message, name: &str) -> Option<&'a Struct> {
        let mut candidates = message.structs.iter().chain(&self.shared);
        candidates.find(|candidate| candidate.name == name)
    }
}
