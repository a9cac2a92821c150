//! What the tests of all messages share: values made from the schemas, and what the crate does with
//! them.
//!
//! The values, their bytes and their JSON are made by interpreting the schema, not by generated
//! code: a mistake of the generator cannot cancel itself out.
#![allow(dead_code, reason = "each test uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a failing test may panic"
)]

pub mod json;
pub mod random;
pub mod registry;
pub mod value;
pub mod wire;

use std::path::Path;

use random::Random;
use value::{Kind, Value};
use vltava_protocol_codegen::generate::{read_apis, read_records};
use vltava_protocol_codegen::model::{File, Message};

/// A message of the schemas.
pub struct Schema {
    /// Its module below `vltava_protocol`.
    pub module: String,
    pub file: File,
    /// Which of the file's messages.
    pub at: usize,
}

impl Schema {
    pub fn message(&self) -> &Message {
        self.file.messages()[self.at]
    }

    pub fn name(&self) -> &str {
        &self.message().root.name
    }
}

/// A value of a message in one version, and its bytes.
pub struct Case<'a> {
    pub schema: &'a Schema,
    pub version: i16,
    pub kind: Kind,
    pub value: Value,
    pub bytes: Vec<u8>,
}

impl Case<'_> {
    pub fn what(&self) -> String {
        format!("{} v{} {:?}", self.schema.name(), self.version, self.kind)
    }

    pub fn json(&self) -> String {
        let mut out = String::new();
        let message = self.schema.message();
        json::write(&mut out, &self.schema.file, message, &message.root, &self.value);
        out
    }
}

/// All messages of `schema/`.
pub fn schemas() -> Vec<Schema> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
    let apis = read_apis(&root.join("api")).unwrap();
    let records = read_records(&root.join("record")).unwrap();
    let mut schemas = Vec::new();
    for (parent, modules) in [("messages", apis), ("records", records)] {
        for module in modules {
            for file in module.files {
                for at in 0..file.messages().len() {
                    schemas.push(Schema {
                        module: format!("{parent}::{}", module.name),
                        file: file.clone(),
                        at,
                    });
                }
            }
        }
    }
    schemas
}

/// One value of every kind for every version of a message, and `random` more.
pub fn cases(schema: &Schema, random: u64) -> Vec<Case<'_>> {
    let message = schema.message();
    let mut kinds = vec![Kind::Default, Kind::Min, Kind::Max];
    kinds.extend((0..random).map(Kind::Random));
    let mut cases = Vec::new();
    for version in message.versions.iter() {
        for &kind in &kinds {
            let seed = match kind {
                Kind::Random(seed) => seed,
                _ => 0,
            };
            let mut random = Random::new(seed ^ random::hash(schema.name()) ^ version as u64);
            let value =
                value::make(&schema.file, message, &message.root, version, kind, &mut random);
            let mut bytes = Vec::new();
            wire::write(&mut bytes, &schema.file, message, &message.root, version, &value);
            cases.push(Case { schema, version, kind, value, bytes });
        }
    }
    cases
}

/// The bytes of a message whose arrays at one depth have many elements, and everything else the
/// least.
pub fn wide_case(schema: &Schema, version: i16, depth: usize, elements: usize) -> Vec<u8> {
    let message = schema.message();
    let (file, root) = (&schema.file, &message.root);
    let value = value::make_wide(file, message, root, version, depth, elements);
    let mut bytes = Vec::new();
    wire::write(&mut bytes, file, message, root, version, &value);
    bytes
}
