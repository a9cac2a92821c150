//! Writes `decode`.

use std::fmt::Write;

use super::structure::{Context, condition, fixed_method, sized_method, type_bytes_min};
use crate::model::{Field, Type, Versions};
use crate::names::field_name;

impl Context<'_> {
    pub(super) fn emit_decode(&self, out: &mut String, is_root: bool) {
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
                    let _ = writeln!(out, "        if {test} {{\n            {assign}\n        }}");
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
                let read = self.read_field(field, "body");
                let _ = writeln!(
                    out,
                    "{indent}        {tag}{guard} => {{\n\
                     {indent}            value.{name} = {read};\n\
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
        Versions { first: first.max(self.message.flexible_from.unwrap_or(first)), last }
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
        let present = match field.tag {
            Some(_) => "is_tagged_present",
            None => "is_present",
        };
        if let Some(method) = sized_method(ty) {
            return format!("{reader}.{prefix}{method}({flexible})?");
        }
        match ty {
            // Kafka's own inconsistency: a number here, a sign there.
            Type::Struct(name) if nullable => format!(
                "if {reader}.{present}()? {{ Some({name}::decode({}, version)?) }} else {{ None }}",
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
}

/// `reader` as an argument.
fn reborrow(reader: &str) -> String {
    match reader {
        "reader" => "reader".to_owned(),
        other => format!("&mut {other}"),
    }
}
