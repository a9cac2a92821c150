//! Writes `encode`.

use std::fmt::Write;

use super::structure::{Context, condition, differs, fixed_method, sized_method};
use crate::model::{Field, Type};
use crate::names::field_name;

impl Context<'_> {
    pub(super) fn emit_encode(&self, out: &mut String, is_root: bool) {
        out.push_str(
            "    fn encode(&self, writer: &mut Writer, version: i16) \
             -> Result<(), EncodeError> {\n",
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
                    let _ = write!(out, "        if {test} {{\n{}        }}", indented(&body, 12));
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
        let _ = write!(out, " else if {} {{", differs(field));
        self.emit_refusal(out, field);
    }

    /// The error for a field that the version lacks, and the end of its block.
    fn emit_refusal(&self, out: &mut String, field: &Field) {
        let name = format!("{}.{}", self.current.name, field.name);
        let _ = writeln!(
            out,
            "\n            return Err(EncodeError::FieldNotInVersion {{ \
             field: \"{name}\", version }});\n        }}"
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
                true => writeln!(out, "writer.nullable_{method}({path}.as_ref(), {flexible})?;"),
                false => writeln!(out, "writer.{method}(&{path}, {flexible})?;"),
            };
            return;
        }
        match &field.ty {
            Type::Struct(_) if is_nullable => {
                let presence = match field.tag {
                    Some(_) => "tagged_presence",
                    None => "presence",
                };
                let _ = writeln!(
                    out,
                    "writer.{presence}({path}.is_some());\nif let Some(value) = &{path} {{\n    \
                     value.encode(writer, version)?;\n}}"
                );
            }
            Type::Struct(_) => _ = writeln!(out, "{path}.encode(writer, version)?;"),
            Type::Array(element) => {
                let (length, items) = if is_nullable {
                    (format!("{path}.as_ref().map(Vec::len)"), format!("{path}.iter().flatten()"))
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
            Type::Int16 if field.is_error_code() => _ = writeln!(out, "writer.error_code({path});"),
            fixed => _ = writeln!(out, "writer.{}({path});", fixed_method(fixed)),
        }
    }

    fn emit_encode_tags(&self, out: &mut String) {
        let tagged = self.tagged_fields();
        for field in &tagged {
            let has = format!("has_tag_{}", field.tag.unwrap_or_default());
            let differs = differs(field);
            match condition(field.versions, self.current.versions) {
                Some(test) if field.ignorable => {
                    let _ = writeln!(out, "        let {has} = {test} && {differs};");
                }
                Some(test) => {
                    let _ = writeln!(out, "        let {has} = {differs};");
                    let _ = write!(out, "        if {has} && !({test}) {{");
                    self.emit_refusal(out, field);
                }
                None => _ = writeln!(out, "        let {has} = {differs};"),
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
        let count = if counts.is_empty() { "0".to_owned() } else { counts.join(" + ") };
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

/// Every line moved to the right.
fn indented(text: &str, by: usize) -> String {
    let mut out = String::with_capacity(text.len() * 2);
    for line in text.lines() {
        let _ = writeln!(out, "{:by$}{line}", "");
    }
    out
}
