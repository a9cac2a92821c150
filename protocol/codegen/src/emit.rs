//! Writes the structures of one module: fields, defaults, decoding and encoding in every version.
//!
//! The source is plain on purpose (`if version >= 9`, calls of the reader and the writer, no
//! generics): there is much of it, and it is compiled with every build.

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
    let present = current
        .fields
        .iter()
        .filter(|f| f.versions.contains(version) && f.tag.is_none());
    let fields: usize = present
        .map(|field| match &field.ty {
            Type::Struct(_) if is_null(field, version) => 1,
            ty => type_bytes_min(file, message, ty, version),
        })
        .sum();
    fields + usize::from(flexible)
}

fn type_bytes_min(file: &File, message: &Message, ty: &Type, version: i16) -> usize {
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
    field
        .nullable
        .is_some_and(|nullable| nullable.contains(version))
}

/// What emission of one structure needs to know.
struct Context<'a> {
    file: &'a File,
    message: &'a Message,
    current: &'a Struct,
}

fn emit_struct(out: &mut String, file: &File, message: &Message, current: &Struct) {
    let context = Context {
        file,
        message,
        current,
    };
    let name = &current.name;
    let derives_default = current
        .fields
        .iter()
        .all(|field| default_value(field).is_none());
    emit_doc(out, "", &current.doc);
    let default = if derives_default { ", Default" } else { "" };
    let _ = writeln!(
        out,
        "#[derive(Clone, Debug, PartialEq{default})]\npub struct {name} {{"
    );
    for field in &current.fields {
        emit_doc(out, "    ", &field.doc);
        let _ = writeln!(
            out,
            "    pub {}: {},",
            field_name(&field.name),
            rust_type(field)
        );
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
fn fixed_method(ty: &Type) -> &'static str {
    match ty {
        Type::Bool => "bool",
        Type::Int8 => "i8",
        Type::Int16 => "i16",
        Type::Int32 => "i32",
        Type::Int64 => "i64",
        Type::Uint16 => "u16",
        Type::Uint32 => "u32",
        Type::Float64 => "f64",
        _ => "uuid",
    }
}

/// The stem of the methods for a type with a length: `string`, `nullable_string`.
fn sized_method(ty: &Type) -> Option<&'static str> {
    match ty {
        Type::String => Some("string"),
        Type::Bytes => Some("bytes"),
        Type::Records => Some("records"),
        _ => None,
    }
}

/// The condition that a version lies in `wanted`, where those of `context` are possible; `None`
/// where it always does.
fn condition(wanted: Versions, context: Versions) -> Option<String> {
    let after = wanted.first > context.first;
    let before = wanted.last < context.last;
    match (after, before) {
        (false, false) => None,
        (true, false) => Some(format!("version >= {}", wanted.first)),
        (false, true) => Some(format!("version <= {}", wanted.last)),
        (true, true) if wanted.first == wanted.last => Some(format!("version == {}", wanted.first)),
        (true, true) => Some(format!(
            "({}..={}).contains(&version)",
            wanted.first, wanted.last
        )),
    }
}

/// An expression that is true where `field` differs from its default.
fn differs(field: &Field) -> String {
    let path = format!("self.{}", field_name(&field.name));
    match (&field.default, &field.ty) {
        (Default::Null, _) => format!("{path}.is_some()"),
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
    fn flexible(&self) -> &'static str {
        match self.message.flexible_from {
            None => "false",
            Some(from) if from > self.current.versions.last => "false",
            Some(from) if from <= self.current.versions.first => "true",
            Some(_) => "flexible",
        }
    }

    fn emit_flexible(&self, out: &mut String) {
        if let (Some(from), "flexible") = (self.message.flexible_from, self.flexible()) {
            let _ = writeln!(out, "        let flexible = version >= {from};");
        }
    }

    fn emit_version_check(&self, out: &mut String, error: &str) {
        let name = &self.current.name;
        let _ = writeln!(
            out,
            "        if !(Self::VERSION_MIN..=Self::VERSION_MAX).contains(&version) {{\n            \
             return Err({error}::UnsupportedVersion {{ message: \"{name}\", version }});\n        }}"
        );
    }

    fn plain_fields(&self) -> impl Iterator<Item = &Field> {
        self.current
            .fields
            .iter()
            .filter(|field| field.tag.is_none())
    }

    fn tagged_fields(&self) -> Vec<&Field> {
        let mut tagged: Vec<&Field> = self
            .current
            .fields
            .iter()
            .filter(|f| f.tag.is_some())
            .collect();
        tagged.sort_by_key(|field| field.tag);
        tagged
    }

    fn emit_decode(&self, out: &mut String, is_root: bool) {
        out.push_str(
            "    fn decode(reader: &mut Reader, version: i16) -> Result<Self, DecodeError> {\n",
        );
        if is_root {
            self.emit_version_check(out, "DecodeError");
        }
        self.emit_flexible(out);
        let is_empty = self.current.fields.is_empty();
        let binding = if is_empty { "value" } else { "mut value" };
        let _ = writeln!(out, "        let {binding} = Self::default();");
        for field in self.plain_fields() {
            let name = field_name(&field.name);
            let assign = format!("value.{name} = {};", self.read_field(field, "reader"));
            match condition(field.versions, self.current.versions) {
                None => _ = writeln!(out, "        {assign}"),
                Some(test) => {
                    let _ = writeln!(
                        out,
                        "        if {test} {{\n            {assign}\n        }}"
                    );
                }
            }
        }
        self.emit_decode_tags(out);
        out.push_str("        Ok(value)\n    }\n\n");
    }

    fn emit_decode_tags(&self, out: &mut String) {
        let (open, indent, close) = match self.flexible() {
            "false" => return,
            "true" => ("", "        ", ""),
            _ => ("        if flexible {\n", "            ", "        }\n"),
        };
        out.push_str(open);
        let tagged = self.tagged_fields();
        if tagged.is_empty() {
            let _ = writeln!(out, "{indent}reader.skip_tagged_fields()?;");
        } else {
            let _ = writeln!(
                out,
                "{indent}for _ in 0..reader.tagged_field_count()? {{\n{indent}    \
                 let (tag, mut body) = reader.tagged_field()?;\n{indent}    match tag {{"
            );
            for field in tagged {
                let tag = field.tag.unwrap_or_default();
                let guard = condition(field.versions, self.flexible_versions())
                    .map_or(String::new(), |test| format!(" if {test}"));
                let name = field_name(&field.name);
                let read = self
                    .read_field(field, "(&mut body)")
                    .replace("&mut (&mut body)", "&mut body");
                let _ = writeln!(
                    out,
                    "{indent}        {tag}{guard} => {{\n{indent}            value.{name} = {read};\n\
                     {indent}            body.finish_tagged_field(tag)?;\n{indent}        }}"
                );
            }
            let _ = writeln!(out, "{indent}        _ => {{}}\n{indent}    }}\n{indent}}}");
        }
        out.push_str(close);
    }

    /// The flexible ones of the structure's versions; only asked for where there are any.
    fn flexible_versions(&self) -> Versions {
        let Versions { first, last } = self.current.versions;
        Versions {
            first: first.max(self.message.flexible_from.unwrap_or(first)),
            last,
        }
    }

    /// An expression that reads a field in a version that has it.
    fn read_field(&self, field: &Field, reader: &str) -> String {
        let never_null = self.read_type(&field.ty, reader, false, field);
        if field.is_error_code() {
            return format!("ErrorCode({never_null})");
        }
        let Some(nullable) = field.nullable else {
            return never_null;
        };
        let or_null = self.read_type(&field.ty, reader, true, field);
        match condition(nullable, field.versions) {
            None => or_null,
            Some(test) => format!("if {test} {{ {or_null} }} else {{ Some({never_null}) }}"),
        }
    }

    fn read_type(&self, ty: &Type, reader: &str, nullable: bool, field: &Field) -> String {
        let flexible = self.flexible();
        let prefix = if nullable { "nullable_" } else { "" };
        if let Some(method) = sized_method(ty) {
            return format!("{reader}.{prefix}{method}({flexible})?");
        }
        match ty {
            Type::Struct(name) if nullable => format!(
                "if {reader}.is_present()? {{ Some({name}::decode({}, version)?) }} else {{ None }}",
                reborrow(reader)
            ),
            Type::Struct(name) => format!("{name}::decode({}, version)?", reborrow(reader)),
            Type::Array(element) => {
                let bytes_min = self.element_bytes_min(element, field);
                let read = match element.as_ref() {
                    Type::Struct(name) => format!("|reader| {name}::decode(reader, version)"),
                    Type::String => format!("|reader| reader.string({flexible})"),
                    Type::Bytes => format!("|reader| reader.bytes({flexible})"),
                    fixed => format!("Reader::{}", fixed_method(fixed)),
                };
                format!("{reader}.{prefix}array({flexible}, {bytes_min}, {read})?")
            }
            fixed => format!("{reader}.{}()?", fixed_method(fixed)),
        }
    }

    /// The least that an element takes, over all versions that have the field.
    fn element_bytes_min(&self, element: &Type, field: &Field) -> usize {
        let sizes = field
            .versions
            .iter()
            .map(|version| type_bytes_min(self.file, self.message, element, version));
        sizes.min().unwrap_or(1)
    }

    fn emit_encode(&self, out: &mut String, is_root: bool) {
        out.push_str(
            "    fn encode(&self, writer: &mut Writer, version: i16) -> Result<(), EncodeError> {\n",
        );
        if is_root {
            self.emit_version_check(out, "EncodeError");
        }
        self.emit_flexible(out);
        for field in self.plain_fields() {
            let mut body = String::new();
            self.write_null_check(&mut body, field);
            self.write_field(&mut body, field);
            match condition(field.versions, self.current.versions) {
                None => out.push_str(&indented(&body, 8)),
                Some(test) => {
                    let _ = write!(
                        out,
                        "        if {test} {{\n{}        }}",
                        indented(&body, 12)
                    );
                    self.emit_absence(out, field);
                }
            }
        }
        self.emit_encode_tags(out);
        out.push_str("        Ok(())\n    }\n");
    }

    /// What follows the closing brace of "if this version has the field".
    fn emit_absence(&self, out: &mut String, field: &Field) {
        if field.ignorable {
            out.push('\n');
            return;
        }
        let _ = writeln!(
            out,
            " else if {} {{\n            return Err(EncodeError::FieldNotInVersion {{ \
             field: \"{}.{}\", version }});\n        }}",
            differs(field),
            self.current.name,
            field.name
        );
    }

    /// Refuses null in versions that have none.
    fn write_null_check(&self, out: &mut String, field: &Field) {
        let Some(nullable) = field.nullable else {
            return;
        };
        if let Some(test) = condition(nullable, field.versions) {
            let name = field_name(&field.name);
            let _ = writeln!(
                out,
                "if !({test}) && self.{name}.is_none() {{\n    return \
                 Err(EncodeError::NullNotInVersion {{ field: \"{}.{}\", version }});\n}}",
                self.current.name, field.name
            );
        }
    }

    /// Statements that write a field in a version that has it.
    fn write_field(&self, out: &mut String, field: &Field) {
        let flexible = self.flexible();
        let path = format!("self.{}", field_name(&field.name));
        let is_nullable = field.nullable.is_some();
        if let Some(method) = sized_method(&field.ty) {
            let _ = match is_nullable {
                true => writeln!(
                    out,
                    "writer.nullable_{method}({path}.as_ref(), {flexible})?;"
                ),
                false => writeln!(out, "writer.{method}(&{path}, {flexible})?;"),
            };
            return;
        }
        match &field.ty {
            Type::Struct(_) if is_nullable => {
                let _ = writeln!(
                    out,
                    "writer.presence({path}.is_some());\nif let Some(value) = &{path} {{\n    \
                     value.encode(writer, version)?;\n}}"
                );
            }
            Type::Struct(_) => _ = writeln!(out, "{path}.encode(writer, version)?;"),
            Type::Array(element) => {
                let (length, items) = if is_nullable {
                    (
                        format!("{path}.as_ref().map(Vec::len)"),
                        format!("{path}.iter().flatten()"),
                    )
                } else {
                    (format!("Some({path}.len())"), format!("&{path}"))
                };
                let write = match element.as_ref() {
                    Type::Struct(_) => "item.encode(writer, version)?".to_owned(),
                    Type::String => format!("writer.string(item, {flexible})?"),
                    Type::Bytes => format!("writer.bytes(item, {flexible})?"),
                    fixed => format!("writer.{}(*item)", fixed_method(fixed)),
                };
                let _ = writeln!(
                    out,
                    "writer.array_length({length}, {flexible})?;\nfor item in {items} {{\n    \
                     {write};\n}}"
                );
            }
            Type::Int16 if field.is_error_code() => _ = writeln!(out, "writer.i16({path}.0);"),
            fixed => _ = writeln!(out, "writer.{}({path});", fixed_method(fixed)),
        }
    }

    fn emit_encode_tags(&self, out: &mut String) {
        let tagged = self.tagged_fields();
        for field in &tagged {
            let tag = field.tag.unwrap_or_default();
            let differs = differs(field);
            match condition(field.versions, self.current.versions) {
                None => _ = writeln!(out, "        let has_tag_{tag} = {differs};"),
                Some(test) => {
                    let _ = writeln!(out, "        let has_tag_{tag} = {test} && {differs};");
                    if !field.ignorable {
                        let _ = write!(out, "        if {test} {{\n        }}");
                        self.emit_absence(out, field);
                    }
                }
            }
        }
        let (open, indent, close) = match self.flexible() {
            "false" => return,
            "true" => ("", 8, ""),
            _ => ("        if flexible {\n", 12, "        }\n"),
        };
        let counts: Vec<String> = tagged
            .iter()
            .map(|field| format!("u32::from(has_tag_{})", field.tag.unwrap_or_default()))
            .collect();
        let count = if counts.is_empty() {
            "0".to_owned()
        } else {
            counts.join(" + ")
        };
        let mut body = format!("writer.unsigned_varint({count});\n");
        for field in tagged {
            let tag = field.tag.unwrap_or_default();
            let mut inner = String::new();
            self.write_field(&mut inner, field);
            let _ = writeln!(
                body,
                "if has_tag_{tag} {{\n    let mark = writer.begin_tagged_field({tag});\n{}    \
                 writer.end_tagged_field(&mark)?;\n}}",
                indented(&inner, 4)
            );
        }
        let _ = write!(out, "{open}{}{close}", indented(&body, indent));
    }
}

/// `reader` as an argument.
fn reborrow(reader: &str) -> String {
    match reader {
        "reader" => "reader".to_owned(),
        other => format!("&mut {other}"),
    }
}

/// Every line moved to the right.
fn indented(text: &str, by: usize) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        let _ = writeln!(out, "{:by$}{line}", "");
    }
    out
}
