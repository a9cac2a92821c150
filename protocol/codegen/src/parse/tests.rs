use super::*;

const EXAMPLE: &str = "
# Asks for something.
#
# v2 added the limit.
api Ask key 7 versions 1-4 flexible 3+ unstable 4

request
  Name: string
  # Bytes, at most.
  Limit: int32 = -1, v2+, ignorable
  Topics: [Topic]?v2+ = []
    Id: uuid, v3+
    Partitions: [int32]
    Extra: string?, v3+, tag 0
  Who: Person, v1-2
  struct Person, v1-3
    Name: string?

response
  ErrorCode: int16
  Found: Pair?, v4
  Weight: float64

struct Pair
  Left: bool = true
  Right: records?
";

fn error(text: &str) -> String {
    parse("f", text).unwrap_err().to_string()
}

#[test]
fn reads_an_api() {
    let file = parse("f", EXAMPLE).unwrap();
    let [Item::Api(api)] = file.items.as_slice() else { panic!("one api") };
    assert_eq!((api.name.as_str(), api.key), ("Ask", 7));
    assert_eq!(api.doc, ["Asks for something.", "", "v2 added the limit."]);
    assert_eq!(api.unstable_from, Some(4));
    assert_eq!(api.request.versions, Versions { first: 1, last: 4 });
    assert_eq!(api.request.flexible_from, Some(3));
    let fields = &api.request.root.fields;
    assert_eq!(fields[1].default, Default::Int(-1));
    assert_eq!(fields[1].versions, Versions { first: 2, last: 4 });
    assert_eq!(fields[1].doc, ["Bytes, at most."]);
    assert!(fields[1].ignorable);
    assert_eq!(fields[2].nullable, Some(Versions { first: 2, last: 4 }));
    assert_eq!(fields[2].default, Default::Zero);
    let names: Vec<_> = api.request.structs.iter().map(|s| s.name.as_str()).collect();
    assert_eq!(names, ["Topic", "Person"]);
    assert_eq!(api.request.structs[0].fields[2].tag, Some(0));
    assert_eq!(api.request.structs[0].fields[2].default, Default::Null);
    assert_eq!(file.shared[0].name, "Pair");
    assert_eq!(file.shared[0].fields[0].default, Default::True);
}

#[test]
fn reads_records() {
    let text = "
# A committed offset.
keyed Offset type 1
key
  Group: string
value versions 0-3 flexible 2+
  Offset: int64

record Note type 3 versions 0-1
  Text: string

data Loose versions 2
  Crc: uint32
";
    let file = parse("f", text).unwrap();
    let names: Vec<_> = file.messages().iter().map(|m| m.root.name.as_str()).collect();
    assert_eq!(names, ["OffsetKey", "OffsetValue", "Note", "Loose"]);
    assert!(matches!(file.items[0], Item::Keyed { record_type: 1, .. }));
    assert!(matches!(file.items[1], Item::Record { record_type: 3, .. }));
    assert_eq!(file.messages()[1].flexible_from, Some(2));
}

#[test]
fn errors_name_file_and_line() {
    for (text, expected) in [
        ("record A type 1 versions 0\n   X: int8\n", "f:2: indent with two spaces a level"),
        ("record A type 1 versions 0\n  X: int9\n", "f:2: \"int9\" is no type"),
        (
            "record A type 1 versions 0\n  x: int8\n",
            "f:2: \"x\" is no name: expected UpperCamelCase",
        ),
        ("record A type 1\n", "f:1: versions are missing"),
        ("record A versions 0\n", "f:1: a record needs a type"),
        ("table A\n", "f:1: expected api, keyed, record or data, found \"table\""),
        ("data A versions 0\n  X: int8 = 128\n", "f:2: \"128\" is no default for this type"),
        ("data A versions 0\n  X: int8 = 0\n", "f:2: zero is the default anyway"),
        ("data A versions 0\n  X: int8?\n", "f:2: a field of this type cannot be null"),
        (
            "data A versions 0\n  X: int8, v1+\n",
            "f:2: versions 1+ lie outside those of what they are part of",
        ),
        (
            "data A versions 0\n  X: int8, often\n",
            "f:2: expected versions (as v3+), tag N or ignorable, found \"often\"",
        ),
        ("data A versions 0\n  X: int8, tag 0\n", "f:2: a tagged field needs flexible versions"),
        ("data A versions 0\n  X: int8\n  X: int8\n", "f:3: a second field X"),
        ("data A versions 0\n  X: B\n", "f:2: no struct B in this file"),
        (
            "data A versions 0\n  X: [B]\n    Y: int8, v0\n  struct C\n    Z: int8\n",
            "f:4: nothing uses struct C",
        ),
        ("data A versions 0\n  X: int8\n    Y: int8\n", "f:3: X has no fields of its own"),
        ("data A versions 0\n  B: [B]\n    B: [B]\n", "f:2: B contains itself"),
        (
            "data A versions 0\n  B: string = null\n",
            "f:2: null is the default of a field that cannot be null",
        ),
        ("data A versions 0-1\n  B: [B]\n    C: int8, v1\n", "f:2: B takes no bytes in version 0"),
        ("data A versions 0\ndata A versions 0\n", "f:2: a second A in one module"),
        ("data A versions 0\n  X: [[int8]]\n", "f:2: no array of \"[int8]\""),
        (
            "api A key 1 versions 0\nrequest\nresponse\n",
            "f:2: the line above `api` says in one sentence what it does",
        ),
        ("# Does.\napi A key 1 versions 0\nrequest\n", "f:3: expected response"),
        ("  X: int8\n", "f:1: indented, but nothing is open above"),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn any_cut_of_a_file_is_an_error_or_a_file() {
    for end in 0..EXAMPLE.len() {
        let _ = parse("f", &EXAMPLE[..end]);
    }
}
