//! A value as JSON, in the form that Kafka's `XDataJsonConverter.read` expects.

use std::fmt::Write;

use vltava_protocol::types::Uuid;
use vltava_protocol_codegen::model::{File, Message, Struct, Type};

use super::value::Value;

/// Writes a structure.
pub fn write(out: &mut String, file: &File, message: &Message, of: &Struct, value: &Value) {
    let Value::Struct(values) = value else { panic!("a structure, found {value:?}") };
    out.push('{');
    let mut separator = "";
    for (field, value) in of.fields.iter().zip(values) {
        let Some(value) = value else { continue };
        let mut name = field.name.clone();
        name[..1].make_ascii_lowercase();
        let _ = write!(out, "{separator}\"{name}\":");
        separator = ",";
        write_value(out, file, message, &field.ty, value);
    }
    out.push('}');
}

fn write_value(out: &mut String, file: &File, message: &Message, ty: &Type, value: &Value) {
    let _ = match value {
        Value::Null => write!(out, "null"),
        Value::Bool(value) => write!(out, "{value}"),
        Value::Int(value) => write!(out, "{value}"),
        // With a point or an exponent: else Java takes it for an integer, and refuses it.
        Value::Float(value) => write!(out, "{value:?}"),
        Value::Uuid(value) => write!(out, "\"{}\"", Uuid(*value)),
        Value::Text(text) => write_text(out, text),
        Value::Bytes(bytes) => write!(out, "\"{}\"", base64(bytes)),
        Value::Array(values) => {
            let Type::Array(element) = ty else { panic!("an array as {ty:?}") };
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at == 0 { "" } else { "," });
                write_value(out, file, message, element, value);
            }
            write!(out, "]")
        }
        Value::Struct(_) => {
            let name = ty.struct_name().unwrap();
            let of = file.find_struct(message, name).unwrap();
            write(out, file, message, of, value);
            Ok(())
        }
    };
}

fn write_text(out: &mut String, text: &str) -> std::fmt::Result {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => write!(out, "\\{c}")?,
            c if c < ' ' => write!(out, "\\u{:04x}", c as u32)?,
            c => out.push(c),
        }
    }
    out.push('"');
    Ok(())
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for chunk in bytes.chunks(3) {
        let mut bits = 0_u32;
        for at in 0..3 {
            bits = bits << 8 | u32::from(chunk.get(at).copied().unwrap_or(0));
        }
        for at in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * at) & 0x3f) as usize];
            out.push(if at <= chunk.len() { digit as char } else { '=' });
        }
    }
    out
}
