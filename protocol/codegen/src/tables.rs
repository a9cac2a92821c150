//! Writes what lists all messages: the table of APIs, the requests, the record types, and the
//! registry.

use std::fmt::Write;

use crate::model::{Api, File, Item};
use crate::names::snake_case;

/// What a generated module begins with.
const PRELUDE: &str = "use bytes::Bytes;\n\
    use crate::decode::{DecodeError, Reader};\n\
    use crate::encode::{EncodeError, Records, Writer};\n\
    use crate::error_code::ErrorCode;\n\
    use crate::message::Message;\n\
    use crate::types::{Str, Uuid};\n";

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
            let _ = writeln!(
                out,
                "impl crate::message::Request for {name}Request {{\n    \
                 const API: crate::api::ApiKey = crate::api::ApiKey({key});\n    \
                 type Response = {name}Response;\n}}\n}}\n",
                name = api.name,
                key = api.key
            );
        }
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
    let keyed: Vec<(&str, i16)> = module
        .items()
        .filter_map(|item| match item {
            Item::Keyed {
                name, record_type, ..
            } => Some((name.as_str(), *record_type)),
            _ => None,
        })
        .collect();
    if keyed.is_empty() {
        return;
    }
    for (name, record_type) in &keyed {
        let _ = writeln!(
            out,
            "impl {name}Key {{\n    /// The number in front of the key.\n    \
             pub const RECORD_TYPE: i16 = {record_type};\n\n    \
             /// A record's key: the number, then the fields.\n    \
             pub fn to_key_bytes(&self) -> Result<Bytes, EncodeError> {{\n        \
             crate::message::to_prefixed_bytes(&[Self::RECORD_TYPE], self, 0)\n    }}\n}}\n\n\
             impl {name}Value {{\n    /// A record's value: the version, then the fields.\n    \
             pub fn to_value_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {{\n        \
             crate::message::to_prefixed_bytes(&[version], self, version)\n    }}\n\n    \
             /// Reads a record's value, in the version that stands in front.\n    \
             pub fn from_value_bytes(bytes: &Bytes) -> Result<Self, DecodeError> {{\n        \
             crate::message::from_versioned_bytes(bytes)\n    }}\n}}\n"
        );
    }
    out.push_str("/// A key of any type.\n#[derive(Clone, Debug, PartialEq)]\npub enum Key {\n");
    for (name, _) in &keyed {
        let _ = writeln!(out, "    {name}({name}Key),");
    }
    out.push_str(
        "}\n\nimpl Key {\n    /// Reads a record's key.\n    \
         pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {\n        \
         let mut reader = Reader::new(bytes.clone());\n        \
         let reader = &mut reader;\n        \
         Ok(match reader.i16()? {\n",
    );
    for (name, record_type) in &keyed {
        let _ = writeln!(
            out,
            "            {record_type} => Self::{name}({name}Key::decode(reader, 0)?),"
        );
    }
    out.push_str(
        "            other => return Err(DecodeError::UnknownRecordType(other)),\n        })\n    }\n\n    \
         /// A record's key, as it stands in the log.\n    \
         pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {\n        match self {\n",
    );
    for (name, _) in &keyed {
        let _ = writeln!(out, "            Self::{name}(key) => key.to_key_bytes(),");
    }
    out.push_str("        }\n    }\n}\n\n");
}

/// The enum of records without key.
fn emit_unkeyed(out: &mut String, module: &Module) {
    let records: Vec<(&str, i16)> = module
        .items()
        .filter_map(|item| match item {
            Item::Record {
                record_type,
                message,
            } => Some((message.root.name.as_str(), *record_type)),
            _ => None,
        })
        .collect();
    if records.is_empty() {
        return;
    }
    for (name, record_type) in &records {
        let _ = writeln!(
            out,
            "impl {name} {{\n    /// The number in front of the record.\n    \
             pub const RECORD_TYPE: i16 = {record_type};\n\n    \
             /// The record: its number, the version, the fields.\n    \
             pub fn to_bytes(&self, version: i16) -> Result<Bytes, EncodeError> {{\n        \
             crate::message::to_prefixed_bytes(&[Self::RECORD_TYPE, version], self, version)\n    }}\n}}\n"
        );
    }
    out.push_str(
        "/// A record of any type.\n#[derive(Clone, Debug, PartialEq)]\npub enum Record {\n",
    );
    for (name, _) in &records {
        let _ = writeln!(out, "    {name}({name}),");
    }
    out.push_str(
        "}\n\nimpl Record {\n    /// Reads a record: its number, the version, the fields.\n    \
         pub fn decode(bytes: &Bytes) -> Result<Self, DecodeError> {\n        \
         let mut reader = Reader::new(bytes.clone());\n        \
         let reader = &mut reader;\n        \
         let record_type = reader.i16()?;\n        \
         let version = reader.i16()?;\n        \
         Ok(match record_type {\n",
    );
    for (name, record_type) in &records {
        let _ = writeln!(
            out,
            "            {record_type} => Self::{name}({name}::decode(reader, version)?),"
        );
    }
    out.push_str(
        "            other => return Err(DecodeError::UnknownRecordType(other)),\n        })\n    }\n\n    \
         /// The record in its highest version, as it stands in the log.\n    \
         pub fn to_bytes(&self) -> Result<Bytes, EncodeError> {\n        match self {\n",
    );
    for (name, _) in &records {
        let _ = writeln!(
            out,
            "            Self::{name}(record) => record.to_bytes({name}::VERSION_MAX),"
        );
    }
    out.push_str("        }\n    }\n}\n\n");
}

/// The table of APIs and the constants of their keys.
pub fn emit_api_table(modules: &[Module]) -> String {
    let mut apis: Vec<&Api> = modules.iter().filter_map(Module::api).collect();
    apis.sort_by_key(|api| api.key);
    let mut out = String::from("impl ApiKey {\n");
    for api in &apis {
        let summary = summary(api);
        let constant = snake_case(&api.name).to_uppercase();
        let _ = writeln!(
            out,
            "    /// {summary}\n    pub const {constant}: Self = Self({});",
            api.key
        );
    }
    out.push_str("}\n\n/// All APIs, in the order of their keys.\npub const APIS: &[Api] = &[\n");
    for api in &apis {
        let versions = api.request.versions;
        let stable_max = api.unstable_from.map_or(versions.last, |from| from - 1);
        let _ = writeln!(
            out,
            "    Api {{\n        key: ApiKey({}),\n        name: {:?},\n        \
             min_version: {},\n        max_version: {stable_max},\n        \
             unstable_max_version: {},\n        flexible_from: {:?},\n        \
             summary: {:?},\n    }},",
            api.key,
            api.name,
            versions.first,
            versions.last,
            api.request.flexible_from,
            summary(api)
        );
    }
    out.push_str("];\n");
    out
}

fn summary(api: &Api) -> &str {
    api.doc.first().map_or("", String::as_str)
}

/// A macro that hands `module Message` of every message, requests and records alike, to another.
pub fn emit_registry(messages: &[Module], records: &[Module]) -> String {
    let mut out = String::from(
        "/// Calls `$visit! { (messages::produce ProduceRequest) ... }` with every generated message: for tests, tools\n\
         /// and fuzzers that must not forget one.\n\
         #[macro_export]\nmacro_rules! for_each_message {\n    ($visit:ident) => {\n        $visit! {\n",
    );
    for (parent, modules) in [("messages", messages), ("records", records)] {
        for module in modules {
            for file in &module.files {
                for message in file.messages() {
                    let (name, root) = (&module.name, &message.root.name);
                    let _ = writeln!(out, "            ({parent}::{name} {root})");
                }
            }
        }
    }
    out.push_str("        }\n    };\n}\n");
    out
}
