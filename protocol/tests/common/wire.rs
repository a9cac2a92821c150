//! The bytes of a value, by interpreting its schema.

use vltava_protocol_codegen::model::{Field, File, Message, Struct, Type};

use super::value::{Value, default};

/// Writes a structure in one version.
pub fn write(
    out: &mut Vec<u8>,
    file: &File,
    message: &Message,
    of: &Struct,
    version: i16,
    value: &Value,
) {
    let flexible = message.is_flexible(version);
    let encoder = Encoder { file, message, version, flexible };
    encoder.structure(out, of, value);
}

struct Encoder<'a> {
    file: &'a File,
    message: &'a Message,
    version: i16,
    flexible: bool,
}

impl Encoder<'_> {
    fn structure(&self, out: &mut Vec<u8>, of: &Struct, value: &Value) {
        let Value::Struct(values) = value else { panic!("a structure, found {value:?}") };
        let mut tagged = Vec::new();
        for (field, value) in of.fields.iter().zip(values) {
            let Some(value) = value else { continue };
            match field.tag {
                None => self.field(out, field, value),
                Some(_) if *value == default(self.file, self.message, field, self.version) => {}
                Some(tag) => {
                    let mut body = Vec::new();
                    self.field(&mut body, field, value);
                    tagged.push((tag, body));
                }
            }
        }
        if self.flexible {
            tagged.sort();
            varint(out, tagged.len());
            for (tag, body) in tagged {
                varint(out, tag as usize);
                varint(out, body.len());
                out.extend(body);
            }
        }
    }

    fn field(&self, out: &mut Vec<u8>, field: &Field, value: &Value) {
        let is_nullable = field.nullable.is_some_and(|n| n.contains(self.version));
        if is_nullable && matches!(field.ty, Type::Struct(_)) {
            out.push(match (value, field.tag) {
                (Value::Null, None) => 0xff,
                (Value::Null, Some(_)) => 0,
                _ => 1,
            });
            if *value == Value::Null {
                return;
            }
        }
        self.value(out, &field.ty, value);
    }

    fn value(&self, out: &mut Vec<u8>, ty: &Type, value: &Value) {
        match (ty, value) {
            (Type::String, Value::Null) if !self.flexible => out.extend((-1_i16).to_be_bytes()),
            (_, Value::Null) if self.flexible => out.push(0),
            (_, Value::Null) => out.extend((-1_i32).to_be_bytes()),
            (_, Value::Bool(value)) => out.push((*value).into()),
            (Type::Int8, Value::Int(value)) => out.extend((*value as i8).to_be_bytes()),
            (Type::Int16 | Type::Uint16, Value::Int(value)) => {
                out.extend((*value as u16).to_be_bytes());
            }
            (Type::Int32 | Type::Uint32, Value::Int(value)) => {
                out.extend((*value as u32).to_be_bytes());
            }
            (_, Value::Int(value)) => out.extend(value.to_be_bytes()),
            (_, Value::Float(value)) => out.extend(value.to_be_bytes()),
            (_, Value::Uuid(value)) => out.extend(value.to_be_bytes()),
            (_, Value::Text(text)) => {
                if self.flexible {
                    varint(out, text.len() + 1);
                } else {
                    out.extend((text.len() as u16).to_be_bytes());
                }
                out.extend(text.as_bytes());
            }
            (_, Value::Bytes(bytes)) => {
                self.length(out, bytes.len());
                out.extend(bytes);
            }
            (Type::Array(element), Value::Array(values)) => {
                self.length(out, values.len());
                for value in values {
                    self.value(out, element, value);
                }
            }
            (Type::Struct(name), value) => {
                let of = self.file.find_struct(self.message, name).unwrap();
                self.structure(out, of, value);
            }
            (ty, value) => panic!("{value:?} as {ty:?}"),
        }
    }

    fn length(&self, out: &mut Vec<u8>, length: usize) {
        if self.flexible {
            varint(out, length + 1);
        } else {
            out.extend((length as u32).to_be_bytes());
        }
    }
}

pub fn varint(out: &mut Vec<u8>, value: usize) {
    let mut rest = value;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
