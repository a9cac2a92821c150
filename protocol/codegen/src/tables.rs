//! Writes what lists all messages: the table of APIs, the requests, the record types, and the
//! registry.

use std::fmt::Write;

use crate::model::{Api, File, Item};
use crate::names::snake_case;

/// What a generated module begins with.
const PRELUDE: &str = "\
use bytes::Bytes;
use crate::decode::{DecodeError, Reader};
use crate::encode::{EncodeError, Records, Writer};
use crate::error_code::ErrorCode;
use crate::message::Message;
use crate::types::{Str, Uuid};

";

const REQUEST: &str = "\
impl crate::message::Request for $NAMERequest {
    const API: crate::api::ApiKey = crate::api::ApiKey($KEY);
    type Response = $NAMEResponse;
}
";

const KEYED: &str = "\
impl $NAMEKey {
    /// The number in front of the key.
    pub const RECORD_TYPE: i16 = $TYPE;

    /// A record's key: the number, then the fields.
    pub fn to_key_bytes(&self) -> Result<Bytes, EncodeError> {
        crate::message::to_prefixed_bytes(&[Self::RECORD_TYPE], self, 0)
    }
}

impl $NAMEValue {
    /// A record's value: the version, then the fields.
    pub fn to_value_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        crate::message::to_versioned_bytes(self, version)
    }

    /// Reads a record's value, in the version that stands in front.
    pub fn from_value_bytes(bytes: &Bytes) -> Result<Self, DecodeError> {
        crate::message::from_versioned_bytes(bytes)
    }
}

";

const KEY_ENUM: &str = "\
/// A key of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Key {
$VARIANTS}

impl Key {
    /// Reads a record's key.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes.clone());
        Ok(match reader.i16()? {
$DECODE            other => return Err(DecodeError::UnknownRecordType(other)),
        })
    }

    /// A record's key, as it stands in the log.
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        match self {
$ENCODE        }
    }
}

";

const RECORD: &str = "\
impl $NAME {
    /// The number in front of the record.
    pub const RECORD_TYPE: i16 = $TYPE;

    /// The record: its number, the version, the fields.
    pub fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {
        crate::message::to_prefixed_bytes(&[Self::RECORD_TYPE, version], self, version)
    }
}

";

const RECORD_ENUM: &str = "\
/// A record of any type.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
$VARIANTS}

impl Record {
    /// Reads a record: its number, the version, the fields.
    pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes.clone());
        let record_type = reader.i16()?;
        let version = reader.i16()?;
        Ok(match record_type {
$DECODE            other => return Err(DecodeError::UnknownRecordType(other)),
        })
    }

    /// The record in its highest version, as it stands in the log.
    pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {
        match self {
$ENCODE        }
    }
}

";

const API: &str = "    Api {
        key: ApiKey($KEY),
        name: \"$NAME\",
        min_version: $MIN,
        max_version: $MAX,
        unstable_max_version: $UNSTABLE,
        flexible_from: $FLEXIBLE,
        summary: $SUMMARY,
    },
";

const REGISTRY: &str = "\
/// Calls `$visit! { (messages::produce ProduceRequest) ... }` with every generated message: for
/// tests, tools and fuzzers that must not forget one.
#[macro_export]
macro_rules! for_each_message {
    ($visit:ident) => {
        $visit! {
";

/// A module: its name, and the files of which it consists.
pub struct Module {
    /// In Rust's form.
    pub name: String,
    /// In order.
    pub files: Vec<File>,
}

impl Module {
    fn items(&self) -> impl Iterator<Item = &Item> {
        self.files.iter().flat_map(|file| &file.items)
    }

    fn api(&self) -> Option<&Api> {
        self.items().find_map(|item| match item {
            Item::Api(api) => Some(api),
            _ => None,
        })
    }
}

/// All modules of requests and responses.
pub fn emit_messages(modules: &[Module]) -> String {
    let mut out = String::new();
    for module in modules {
        open_module(&mut out, module);
        if let Some(api) = module.api() {
            let key = api.key.to_string();
            out.push_str(&fill(REQUEST, &[("$NAME", &api.name), ("$KEY", &key)]));
        }
        out.push_str("}\n\n");
    }
    out
}

/// All modules of records.
pub fn emit_records(modules: &[Module]) -> String {
    let mut out = String::new();
    for module in modules {
        open_module(&mut out, module);
        emit_keyed(&mut out, module);
        emit_unkeyed(&mut out, module);
        out.push_str("}\n\n");
    }
    out
}

fn open_module(out: &mut String, module: &Module) {
    if let Some(api) = module.api() {
        for line in &api.doc {
            let _ = writeln!(out, "{}", format!("/// {line}").trim_end());
        }
    }
    let _ = writeln!(out, "pub mod {} {{\n{PRELUDE}", module.name);
    for file in &module.files {
        out.push_str(&crate::emit::emit_module(file));
    }
}

/// The enum of keys, and the framing of keys and values.
fn emit_keyed(out: &mut String, module: &Module) {
    let (mut variants, mut decode, mut encode) = (String::new(), String::new(), String::new());
    for item in module.items() {
        let Item::Keyed { name, record_type, .. } = item else {
            continue;
        };
        let number = record_type.to_string();
        out.push_str(&fill(KEYED, &[("$NAME", name), ("$TYPE", &number)]));
        let _ = writeln!(variants, "    {name}({name}Key),");
        let read = format!("{name}Key::decode(&mut reader, 0)?");
        let _ = writeln!(decode, "            {number} => Self::{name}({read}),");
        let _ = writeln!(encode, "            Self::{name}(key) => key.to_key_bytes(),");
    }
    if !variants.is_empty() {
        let parts = [("$VARIANTS", &variants), ("$DECODE", &decode), ("$ENCODE", &encode)];
        out.push_str(&fill(KEY_ENUM, &parts.map(|(from, to)| (from, to.as_str()))));
    }
}

/// The enum of records without key.
fn emit_unkeyed(out: &mut String, module: &Module) {
    let (mut variants, mut decode, mut encode) = (String::new(), String::new(), String::new());
    for item in module.items() {
        let Item::Record { record_type, message } = item else {
            continue;
        };
        let (name, number) = (&message.root.name, record_type.to_string());
        out.push_str(&fill(RECORD, &[("$NAME", name), ("$TYPE", &number)]));
        let _ = writeln!(variants, "    {name}({name}),");
        let read = format!("{name}::decode(&mut reader, version)?");
        let _ = writeln!(decode, "            {number} => Self::{name}({read}),");
        let write = format!("record.to_bytes({name}::VERSION_MAX)");
        let _ = writeln!(encode, "            Self::{name}(record) => {write},");
    }
    if !variants.is_empty() {
        let parts = [("$VARIANTS", &variants), ("$DECODE", &decode), ("$ENCODE", &encode)];
        out.push_str(&fill(RECORD_ENUM, &parts.map(|(from, to)| (from, to.as_str()))));
    }
}

/// The table of APIs and the constants of their keys.
pub fn emit_api_table(modules: &[Module]) -> String {
    let mut apis: Vec<&Api> = modules.iter().filter_map(Module::api).collect();
    apis.sort_by_key(|api| api.key);
    let mut out = String::from("impl ApiKey {\n");
    for api in &apis {
        let constant = snake_case(&api.name).to_uppercase();
        let _ = writeln!(out, "    /// {}", summary(api));
        let _ = writeln!(out, "    pub const {constant}: Self = Self({});", api.key);
    }
    out.push_str("}\n\n/// All APIs, in the order of their keys.\npub const APIS: &[Api] = &[\n");
    for api in &apis {
        let versions = api.request.versions;
        let stable_max = api.unstable_from.map_or(versions.last, |from| from - 1);
        let parts = [
            ("$KEY", api.key.to_string()),
            ("$NAME", api.name.clone()),
            ("$MIN", versions.first.to_string()),
            ("$MAX", stable_max.to_string()),
            ("$UNSTABLE", versions.last.to_string()),
            ("$FLEXIBLE", format!("{:?}", api.request.flexible_from)),
            ("$SUMMARY", format!("{:?}", summary(api))),
        ];
        let parts: Vec<(&str, &str)> =
            parts.iter().map(|(from, to)| (*from, to.as_str())).collect();
        out.push_str(&fill(API, &parts));
    }
    out.push_str("];\n");
    out
}

fn summary(api: &Api) -> &str {
    api.doc.first().map_or("", String::as_str)
}

/// A macro that hands `module Message` of every message, requests and records alike, to another.
pub fn emit_registry(messages: &[Module], records: &[Module]) -> String {
    let mut out = REGISTRY.to_owned();
    for (parent, modules) in [("messages", messages), ("records", records)] {
        for module in modules {
            for message in module.files.iter().flat_map(File::messages) {
                let (name, root) = (&module.name, &message.root.name);
                let _ = writeln!(out, "            ({parent}::{name} {root})");
            }
        }
    }
    out.push_str("        }\n    };\n}\n");
    out
}

/// The template with its placeholders replaced.
fn fill(template: &str, parts: &[(&str, &str)]) -> String {
    parts.iter().fold(template.to_owned(), |text, (from, to)| text.replace(from, to))
}
