//! What the generator writes, in full, for a message that has one of each.

use super::emit_module;
use crate::parse::parse;

const SCHEMA: &str = "
data Sample versions 0-4 flexible 3+
  # Who.
  Name: string?v2+
  Limit: int32 = -1, v1+, ignorable
  Old: bool, v0-1
  ErrorCode: int16
  Parts: [Part]
    Key: uuid
  Extra: Part?, v4+, tag 0
";

/// Written again with `VLTAVA_WRITE_GOLDEN=1 cargo test -p vltava-protocol-codegen`.
#[test]
fn one_of_each() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/emit/sample.expected");
    let emitted = emit_module(&parse("sample", SCHEMA).unwrap());
    if std::env::var_os("VLTAVA_WRITE_GOLDEN").is_some() {
        std::fs::write(path, &emitted).unwrap();
    }
    let expected = std::fs::read_to_string(path).unwrap();
    assert!(emitted == expected, "{emitted}");
}
