//! Writes a structure: its fields, its default, and the frame of its functions.

use std::fmt::Write;

use crate::model::{Default, Field, File, Message, Struct, Type, Versions};
use crate::names::field_name;

/// The structures of a file, as the content of a module.
pub fn emit_module(file: &File) -> String {
    let mut out = String::new();
    for message in file.messages() {
        emit_struct(&mut out, file, message, &message.root);
        for nested in &message.structs {
            emit_struct(&mut out, file, message, nested);
        }
    }
    if let Some(message) = file.messages().first() {
        for shared in &file.shared {
            emit_struct(&mut out, file, message, shared);
        }
    }
    out
}

/// The least that a structure takes on the wire in one version.
pub(crate) fn struct_bytes_min(
    file: &File,
    message: &Message,
    current: &Struct,
    version: i16,
) -> usize {
    let flexible = message.is_flexible(version);
    let present = current.fields.iter().filter(|f| f.versions.contains(version) && f.tag.is_none());
    let fields: usize = present
        .map(|field| match &field.ty {
            Type::Struct(_) if is_null(field, version) => 1,
            ty => type_bytes_min(file, message, ty, version),
        })
        .sum();
    fields + usize::from(flexible)
}

pub(super) fn type_bytes_min(file: &File, message: &Message, ty: &Type, version: i16) -> usize {
    let flexible = message.is_flexible(version);
    match ty {
        Type::Bool | Type::Int8 => 1,
        Type::Int16 | Type::Uint16 => 2,
        Type::Int32 | Type::Uint32 => 4,
        Type::Int64 | Type::Float64 => 8,
        Type::Uuid => 16,
        Type::String if flexible => 1,
        Type::String => 2,
        Type::Bytes | Type::Records | Type::Array(_) if flexible => 1,
        Type::Bytes | Type::Records | Type::Array(_) => 4,
        Type::Struct(name) => file
            .find_struct(message, name)
            .map_or(0, |inner| struct_bytes_min(file, message, inner, version)),
    }
}

fn is_null(field: &Field, version: i16) -> bool {
    field.nullable.is_some_and(|nullable| nullable.contains(version))
}

/// What emission of one structure needs to know.
pub(super) struct Context<'a> {
    pub(super) file: &'a File,
    pub(super) message: &'a Message,
    pub(super) current: &'a Struct,
}

fn emit_struct(out: &mut String, file: &File, message: &Message, current: &Struct) {
    let context = Context { file, message, current };
    let name = &current.name;
    let derives_default = current.fields.iter().all(|field| default_value(field).is_none());
    emit_doc(out, "", &current.doc);
    let default = if derives_default { ", Default" } else { "" };
    let _ = writeln!(out, "#[derive(Clone, Debug, PartialEq{default})]\npub struct {name} {{");
    for field in &current.fields {
        emit_doc(out, "    ", &field.doc);
        let _ = writeln!(out, "    pub {}: {},", field_name(&field.name), rust_type(field));
    }
    out.push_str("}\n\n");
    if !derives_default {
        emit_default(out, current);
    }
    let is_root = std::ptr::eq(current, &raw const message.root);
    if is_root {
        let Versions { first, last } = message.versions;
        let _ = write!(
            out,
            "impl Message for {name} {{\n    const NAME: &'static str = \"{name}\";\n    \
             const VERSION_MIN: i16 = {first};\n    const VERSION_MAX: i16 = {last};\n\n"
        );
    } else {
        let _ = writeln!(out, "impl {name} {{");
    }
    context.emit_decode(out, is_root);
    context.emit_encode(out, is_root);
    out.push_str("}\n\n");
}

fn emit_doc(out: &mut String, indent: &str, doc: &[String]) {
    for line in doc {
        let _ = writeln!(out, "{}", format!("{indent}/// {line}").trim_end());
    }
}

fn emit_default(out: &mut String, current: &Struct) {
    let _ = writeln!(
        out,
        "impl Default for {} {{\n    fn default() -> Self {{\n        Self {{",
        current.name
    );
    for field in &current.fields {
        let value = default_value(field).unwrap_or_else(|| "Default::default()".to_owned());
        let _ = writeln!(out, "            {}: {value},", field_name(&field.name));
    }
    out.push_str("        }\n    }\n}\n\n");
}

/// The field's default in Rust, where it is not that of its type.
fn default_value(field: &Field) -> Option<String> {
    match field.default {
        Default::Zero if field.nullable.is_some() => Some("Some(Default::default())".to_owned()),
        Default::Zero | Default::Null => None,
        Default::True => Some("true".to_owned()),
        Default::Int(value) if field.is_error_code() => Some(format!("ErrorCode({value})")),
        Default::Int(value) => Some(value.to_string()),
    }
}

fn rust_type(field: &Field) -> String {
    let base = match &field.ty {
        _ if field.is_error_code() => "ErrorCode".to_owned(),
        Type::Array(element) => format!("Vec<{}>", base_type(element)),
        ty => base_type(ty).to_owned(),
    };
    match field.nullable {
        Some(_) => format!("Option<{base}>"),
        None => base,
    }
}

fn base_type(ty: &Type) -> &str {
    match ty {
        Type::Bool => "bool",
        Type::Int8 => "i8",
        Type::Int16 => "i16",
        Type::Int32 => "i32",
        Type::Int64 => "i64",
        Type::Uint16 => "u16",
        Type::Uint32 => "u32",
        Type::Float64 => "f64",
        Type::Uuid => "Uuid",
        Type::String => "Str",
        Type::Bytes => "Bytes",
        Type::Records => "Records",
        Type::Struct(name) => name,
        Type::Array(element) => base_type(element),
    }
}

/// The reader's and the writer's method for a type without a length.
pub(super) fn fixed_method(ty: &Type) -> &str {
    match ty {
        Type::Uuid => "uuid",
        primitive => base_type(primitive),
    }
}

/// The stem of the methods for a type with a length: `string`, `nullable_string`.
pub(super) fn sized_method(ty: &Type) -> Option<&'static str> {
    match ty {
        Type::String => Some("string"),
        Type::Bytes => Some("bytes"),
        Type::Records => Some("records"),
        _ => None,
    }
}

/// The condition that a version lies in `wanted`, where those of `context` are possible; `None`
/// where it always does.
pub(super) fn condition(wanted: Versions, context: Versions) -> Option<String> {
    let after = wanted.first > context.first;
    let before = wanted.last < context.last;
    match (after, before) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {}", wanted.first)),
        (false, true) => Some(format!("version <= {}", wanted.last)),
        (true, true) if wanted.first == wanted.last => Some(format!("version == {}", wanted.first)),
        (true, true) => Some(format!("({}..={}).contains(&version)", wanted.first, wanted.last)),
    }
}

/// An expression that is true where `field` differs from its default.
pub(super) fn differs(field: &Field) -> String {
    let path = format!("self.{}", field_name(&field.name));
    match (&field.default, &field.ty) {
        (Default::Null, _) => format!("{path}.is_some()"),
        (Default::Zero, Type::Struct(name)) if field.nullable.is_some() => {
            format!("{path} != Some({name}::default())")
        }
        (Default::Zero, _) if field.nullable.is_some() => {
            format!("{path}.as_ref().is_none_or(|value| !value.is_empty())")
        }
        (Default::True, _) => format!("!{path}"),
        (Default::Int(value), _) if field.is_error_code() => {
            format!("{path} != ErrorCode({value})")
        }
        (Default::Int(value), _) => format!("{path} != {value}"),
        (Default::Zero, _) if field.is_error_code() => format!("{path} != ErrorCode::NONE"),
        (Default::Zero, Type::Bool) => path,
        (Default::Zero, Type::Float64) => format!("{path} != 0.0"),
        (Default::Zero, Type::Uuid) => format!("!{path}.is_zero()"),
        (Default::Zero, Type::Struct(name)) => format!("{path} != {name}::default()"),
        (Default::Zero, Type::String | Type::Bytes | Type::Records | Type::Array(_)) => {
            format!("!{path}.is_empty()")
        }
        (Default::Zero, _) => format!("{path} != 0"),
    }
}

impl Context<'_> {
    /// Rust for "this version is flexible".
    pub(super) fn flexible(&self) -> &'static str {
        match self.message.flexible_from {
            None => "false",
            Some(from) if from > self.current.versions.last => "false",
            Some(from) if from <= self.current.versions.first => "true",
            Some(_) => "flexible",
        }
    }

    pub(super) fn emit_flexible(&self, out: &mut String) {
        if let (Some(from), "flexible") = (self.message.flexible_from, self.flexible()) {
            let _ = writeln!(out, "        let flexible = version >= {from};");
        }
    }

    pub(super) fn emit_version_check(&self, out: &mut String, error: &str) {
        let name = &self.current.name;
        let range = "(Self::VERSION_MIN..=Self::VERSION_MAX)";
        let fields = format!("message: \"{name}\", version");
        let _ = writeln!(
            out,
            "        if !{range}.contains(&version) {{\n            \
             return Err({error}::UnsupportedVersion {{ {fields} }});\n        }}"
        );
    }

    pub(super) fn plain_fields(&self) -> impl Iterator<Item = &Field> {
        self.current.fields.iter().filter(|field| field.tag.is_none())
    }

    pub(super) fn tagged_fields(&self) -> Vec<&Field> {
        let mut tagged: Vec<&Field> =
            self.current.fields.iter().filter(|f| f.tag.is_some()).collect();
        tagged.sort_by_key(|field| field.tag);
        tagged
    }
}
