//! Values of any message, made from its schema.

use vltava_protocol_codegen::model::{Default, Field, File, Message, Struct, Type};

use super::random::Random;

/// Which value to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Every field has its default.
    Default,
    /// The least: lowest numbers, null, empty.
    Min,
    /// The most: highest numbers, long strings, several elements.
    Max,
    /// Anything, from this seed.
    Random(u64),
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Uuid(u128),
    Text(String),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    /// One for each field of the structure; `None` where the version lacks the field.
    Struct(Vec<Option<Value>>),
}

/// Makes a structure.
pub fn make(
    file: &File,
    message: &Message,
    of: &Struct,
    version: i16,
    kind: Kind,
    random: &mut Random,
) -> Value {
    let maker = Maker { file, message, version, kind };
    maker.structure(of, random)
}

/// The depth of what lies below the wide arrays: nothing there has elements.
const BELOW: usize = usize::MAX;

/// A structure whose arrays at `depth` have many elements; the arrays around them have one, and
/// everything else is the least.
pub fn make_wide(
    file: &File,
    message: &Message,
    of: &Struct,
    version: i16,
    depth: usize,
    elements: usize,
) -> Value {
    let mut unused = Random::new(0);
    let least = make(file, message, of, version, Kind::Min, &mut unused);
    let Value::Struct(mut values) = least else { panic!("a structure") };
    let inner = depth.checked_sub(1).unwrap_or(BELOW);
    for (field, value) in of.fields.iter().zip(&mut values) {
        let (Some(value), Some(element)) = (value, element_type(&field.ty)) else {
            continue;
        };
        let count = match depth {
            0 => elements,
            BELOW => 0,
            _ => 1,
        };
        let one = match element.struct_name() {
            Some(name) => {
                let of = file.find_struct(message, name).unwrap();
                make_wide(file, message, of, version, inner, elements)
            }
            None => {
                let maker = Maker { file, message, version, kind: Kind::Min };
                maker.value(element, &mut unused)
            }
        };
        *value = Value::Array(vec![one; count]);
    }
    Value::Struct(values)
}

fn element_type(ty: &Type) -> Option<&Type> {
    match ty {
        Type::Array(element) => Some(element),
        _ => None,
    }
}

/// A field's default, in a version that has the field.
pub fn default(file: &File, message: &Message, field: &Field, version: i16) -> Value {
    match field.default {
        Default::Null => Value::Null,
        Default::True => Value::Bool(true),
        Default::Int(number) => Value::Int(number),
        Default::Zero => match &field.ty {
            Type::Bool => Value::Bool(false),
            Type::Float64 => Value::Float(0.0),
            Type::Uuid => Value::Uuid(0),
            Type::String => Value::Text(String::new()),
            Type::Bytes | Type::Records => Value::Bytes(Vec::new()),
            Type::Array(_) => Value::Array(Vec::new()),
            Type::Struct(name) => {
                let of = file.find_struct(message, name).unwrap();
                let mut unused = Random::new(0);
                make(file, message, of, version, Kind::Default, &mut unused)
            }
            _ => Value::Int(0),
        },
    }
}

/// One to four bytes a character, and some that JSON escapes.
const ALPHABET: &str = "abcXYZ019._-/ \"\\\u{1}\u{7f}éß€水🌊";

struct Maker<'a> {
    file: &'a File,
    message: &'a Message,
    version: i16,
    kind: Kind,
}

impl Maker<'_> {
    fn structure(&self, of: &Struct, random: &mut Random) -> Value {
        let fields = of.fields.iter().map(|field| {
            let is_present = field.versions.contains(self.version);
            is_present.then(|| self.field(field, random))
        });
        Value::Struct(fields.collect())
    }

    fn field(&self, field: &Field, random: &mut Random) -> Value {
        let nullable = field.nullable.is_some_and(|n| n.contains(self.version));
        let wants_default = match self.kind {
            Kind::Default => true,
            Kind::Random(_) => random.below(6) == 0,
            Kind::Min | Kind::Max => false,
        };
        if wants_default {
            let value = default(self.file, self.message, field, self.version);
            return match (&field.ty, value) {
                // What is null by default, but not in this version.
                (ty, Value::Null) if !nullable => self.value(ty, random),
                (_, value) => value,
            };
        }
        let wants_null = match self.kind {
            Kind::Min => true,
            Kind::Random(_) => random.below(4) == 0,
            Kind::Max | Kind::Default => false,
        };
        if nullable && wants_null {
            return Value::Null;
        }
        self.value(&field.ty, random)
    }

    fn value(&self, ty: &Type, random: &mut Random) -> Value {
        match ty {
            Type::Bool => Value::Bool(match self.kind {
                Kind::Max => true,
                Kind::Random(_) => random.flip(),
                _ => false,
            }),
            Type::Int8 => self.int(i8::MIN.into(), i8::MAX.into(), random),
            Type::Int16 => self.int(i16::MIN.into(), i16::MAX.into(), random),
            Type::Int32 => self.int(i32::MIN.into(), i32::MAX.into(), random),
            Type::Int64 => self.int(i64::MIN, i64::MAX, random),
            Type::Uint16 => self.int(0, u16::MAX.into(), random),
            Type::Uint32 => self.int(0, u32::MAX.into(), random),
            Type::Float64 => Value::Float(match self.kind {
                Kind::Min => f64::MIN,
                Kind::Max => f64::MAX,
                _ => random.next() as i32 as f64 / 8.0,
            }),
            Type::Uuid => Value::Uuid(match self.kind {
                Kind::Min => 0,
                Kind::Max => u128::MAX,
                _ => u128::from(random.next()) << 64 | u128::from(random.next()),
            }),
            Type::String => Value::Text(self.text(random)),
            Type::Bytes | Type::Records => Value::Bytes(self.bytes(random)),
            Type::Array(element) => {
                let count = match self.kind {
                    Kind::Max => 3,
                    Kind::Random(_) => random.below(4),
                    _ => 0,
                };
                Value::Array((0..count).map(|_| self.value(element, random)).collect())
            }
            Type::Struct(name) => {
                let of = self.file.find_struct(self.message, name).unwrap();
                self.structure(of, random)
            }
        }
    }

    fn int(&self, min: i64, max: i64, random: &mut Random) -> Value {
        Value::Int(match self.kind {
            Kind::Min => min,
            Kind::Max => max,
            _ if random.flip() => (random.below(300) as i64 - 2).clamp(min, max),
            _ => {
                let span = (i128::from(max) - i128::from(min) + 1) as u128;
                let offset = u128::from(random.next()) % span;
                (i128::from(min) + offset as i128) as i64
            }
        })
    }

    fn text(&self, random: &mut Random) -> String {
        match self.kind {
            Kind::Max => "Vltava-Moldau ".repeat(12),
            Kind::Random(_) => {
                let alphabet: Vec<char> = ALPHABET.chars().collect();
                let length = random.below(20);
                let draw = |_| alphabet[random.below(alphabet.len())];
                (0..length).map(draw).collect()
            }
            _ => String::new(),
        }
    }

    /// Sometimes long enough to be written by reference.
    fn bytes(&self, random: &mut Random) -> Vec<u8> {
        let length = match self.kind {
            Kind::Max => 700,
            Kind::Random(_) => random.below(400),
            _ => 0,
        };
        (0..length).map(|_| random.next() as u8).collect()
    }
}
