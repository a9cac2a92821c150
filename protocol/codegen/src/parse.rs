//! Reads schema text. The grammar is described in `protocol/schema/README.md`.

use std::fmt;

use crate::check;
use crate::model::{Api, Default, Field, File, Item, Message, Struct, Type, Versions};
use crate::names::is_name;

/// What is wrong with a schema, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaError {
    /// The file, as it was named to [`parse`].
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// What, and what instead.
    pub message: String,
}

impl fmt::Display for SchemaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

impl std::error::Error for SchemaError {}

/// A line's number and what is wrong with it.
pub(crate) type LineError = (usize, String);

/// Reads and checks one file. `file` is what errors call it.
///
/// # Errors
/// The first thing that is wrong, with its line.
pub fn parse(file: &str, text: &str) -> Result<File, SchemaError> {
    let error = |(line, message)| SchemaError { file: file.to_owned(), line, message };
    let lines = split_lines(text).map_err(error)?;
    let parsed = Parser { lines, at: 0 }.file().map_err(error)?;
    check::check(&parsed).map_err(error)?;
    Ok(parsed)
}

/// A line that says something, with the comment above it.
struct Line {
    number: usize,
    indent: usize,
    text: String,
    doc: Vec<String>,
}

fn split_lines(text: &str) -> Result<Vec<Line>, LineError> {
    let mut lines = Vec::new();
    let mut doc = Vec::new();
    for (at, raw) in text.lines().enumerate() {
        let number = at + 1;
        let content = raw.trim();
        if content.is_empty() {
            doc.clear();
            continue;
        }
        if let Some(comment) = content.strip_prefix('#') {
            doc.push(comment.strip_prefix(' ').unwrap_or(comment).to_owned());
            continue;
        }
        let indent = raw.len() - raw.trim_start_matches(' ').len();
        if raw.starts_with('\t') || indent % 2 != 0 {
            return Err((number, "indent with two spaces a level".to_owned()));
        }
        lines.push(Line {
            number,
            indent,
            text: content.to_owned(),
            doc: std::mem::take(&mut doc),
        });
    }
    Ok(lines)
}

/// What a heading says about versions.
struct Heading {
    versions: Versions,
    flexible_from: Option<i16>,
    unstable_from: Option<i16>,
    key: Option<i16>,
    record_type: Option<i16>,
}

struct Parser {
    lines: Vec<Line>,
    at: usize,
}

impl Parser {
    fn file(mut self) -> Result<File, LineError> {
        let mut file = File { items: Vec::new(), shared: Vec::new() };
        while self.at < self.lines.len() {
            let number = self.lines[self.at].number;
            let text = self.lines[self.at].text.clone();
            let (keyword, rest) = split_word(&text);
            let item = match keyword {
                _ if self.lines[self.at].indent > 0 => {
                    return Err((number, "indented, but nothing is open above".to_owned()));
                }
                "api" => self.api(rest, &mut file.shared)?,
                "keyed" => self.keyed(rest)?,
                "record" => self.record(rest)?,
                "data" => Item::Data(self.data(rest)?),
                _ => {
                    let expected = "expected api, keyed, record or data";
                    return Err((number, format!("{expected}, found {keyword:?}")));
                }
            };
            file.items.push(item);
        }
        Ok(file)
    }

    fn api(&mut self, rest: &str, shared: &mut Vec<Struct>) -> Result<Item, LineError> {
        let (name, heading) = self.heading(rest, &["key", "versions", "flexible", "unstable"])?;
        let line = &self.lines[self.at];
        let missing_key = (line.number, "an api needs a key".to_owned());
        let doc = line.doc.clone();
        let key = heading.key.ok_or(missing_key)?;
        self.at += 1;
        let request = self.section("request", format!("{name}Request"), &heading)?;
        let response = self.section("response", format!("{name}Response"), &heading)?;
        while self.at < self.lines.len() && split_word(&self.lines[self.at].text).0 == "struct" {
            self.shared_struct(0, heading.versions, shared)?;
        }
        Ok(Item::Api(Api {
            name,
            key,
            doc,
            unstable_from: heading.unstable_from,
            request,
            response,
        }))
    }

    fn keyed(&mut self, rest: &str) -> Result<Item, LineError> {
        let line = &self.lines[self.at];
        let (number, doc) = (line.number, line.doc.clone());
        let mut words = rest.split_whitespace();
        let (Some(name), Some("type"), Some(record_type), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err((number, "expected: keyed NAME type NUMBER".to_owned()));
        };
        let record_type = parse_version(record_type, number)?;
        self.at += 1;
        let heading = Heading {
            versions: Versions { first: 0, last: 0 },
            flexible_from: None,
            unstable_from: None,
            key: None,
            record_type: None,
        };
        let mut key = self.section("key", format!("{name}Key"), &heading)?;
        let Some(line) = self.lines.get(self.at) else {
            return Err((number, "a value must follow the key".to_owned()));
        };
        let ("value", words) = split_word(&line.text) else {
            return Err((line.number, "expected value, after the key".to_owned()));
        };
        let words = format!("{name}Value {words}");
        let value_doc = line.doc.clone();
        let (value_name, heading) = self.heading(&words, &["versions", "flexible"])?;
        let mut value = self.message(value_name, value_doc, &heading)?;
        for message in [&mut key, &mut value] {
            if message.root.doc.is_empty() {
                message.root.doc.clone_from(&doc);
            }
        }
        Ok(Item::Keyed { name: name.to_owned(), record_type, key, value })
    }

    fn record(&mut self, rest: &str) -> Result<Item, LineError> {
        let line = &self.lines[self.at];
        let missing = (line.number, "a record needs a type".to_owned());
        let doc = line.doc.clone();
        let (name, heading) = self.heading(rest, &["type", "versions", "flexible"])?;
        Ok(Item::Record {
            record_type: heading.record_type.ok_or(missing)?,
            message: self.message(name, doc, &heading)?,
        })
    }

    fn data(&mut self, rest: &str) -> Result<Message, LineError> {
        let doc = self.lines[self.at].doc.clone();
        let (name, heading) = self.heading(rest, &["versions", "flexible"])?;
        self.message(name, doc, &heading)
    }

    /// `NAME key N versions A-B flexible N+ ...`, of which `allowed` may stand here.
    fn heading(&self, rest: &str, allowed: &[&str]) -> Result<(String, Heading), LineError> {
        let number = self.lines[self.at].number;
        let (name, mut rest) = split_word(rest);
        if !is_name(name) {
            return Err((number, format!("{name:?} is no name: expected UpperCamelCase")));
        }
        let mut versions = None;
        let mut flexible = None;
        let (mut unstable_from, mut key, mut record_type) = (None, None, None);
        while !rest.is_empty() {
            let (word, after) = split_word(rest);
            let (value, after) = split_word(after);
            rest = after;
            if !allowed.contains(&word) {
                return Err((number, format!("expected one of {allowed:?}, found {word:?}")));
            }
            match word {
                "key" => key = Some(parse_version(value, number)?),
                "type" => record_type = Some(parse_version(value, number)?),
                "unstable" => unstable_from = Some(parse_version(value, number)?),
                "versions" => versions = Some(parse_range(value, number, None)?),
                _ => flexible = Some(value),
            }
        }
        let versions = versions.ok_or((number, "versions are missing".to_owned()))?;
        let flexible_from = match flexible {
            Some(range) => Some(parse_range(range, number, Some(versions))?.first),
            None => None,
        };
        let heading = Heading { versions, flexible_from, unstable_from, key, record_type };
        Ok((name.to_owned(), heading))
    }

    /// A section of a declaration: its keyword alone in a line, and fields.
    fn section(
        &mut self,
        keyword: &str,
        name: String,
        heading: &Heading,
    ) -> Result<Message, LineError> {
        match self.lines.get(self.at) {
            Some(line) if line.text == keyword && line.indent == 0 => {
                let doc = line.doc.clone();
                self.message(name, doc, heading)
            }
            other => {
                let number = other.or(self.lines.last()).map_or(0, |line| line.number);
                Err((number, format!("expected {keyword}")))
            }
        }
    }

    /// The fields and structures below the current line.
    fn message(
        &mut self,
        name: String,
        doc: Vec<String>,
        heading: &Heading,
    ) -> Result<Message, LineError> {
        let line = self.lines[self.at].number;
        self.at += 1;
        let mut structs = Vec::new();
        let fields = self.fields(2, heading.versions, &mut structs)?;
        Ok(Message {
            root: Struct { name, doc, versions: heading.versions, fields, line },
            versions: heading.versions,
            flexible_from: heading.flexible_from,
            structs,
        })
    }

    /// Fields at this indent, and structures declared between them.
    fn fields(
        &mut self,
        indent: usize,
        versions: Versions,
        structs: &mut Vec<Struct>,
    ) -> Result<Vec<Field>, LineError> {
        let mut fields = Vec::new();
        while let Some(line) = self.lines.get(self.at) {
            if line.indent < indent {
                break;
            }
            if line.indent > indent {
                return Err((line.number, "indented too far".to_owned()));
            }
            if split_word(&line.text).0 == "struct" {
                self.shared_struct(indent, versions, structs)?;
                continue;
            }
            let field = parse_field(line, versions)?;
            self.at += 1;
            let is_open = self.lines.get(self.at).is_some_and(|next| next.indent > indent);
            match field.ty.struct_name() {
                Some(name) if is_open => {
                    // Room first, so that structures stand in the order of the text.
                    let (name, at) = (name.to_owned(), structs.len());
                    let mut nested = Vec::new();
                    let inner = self.fields(indent + 2, field.versions, &mut nested)?;
                    structs.push(Struct {
                        name,
                        doc: field.doc.clone(),
                        versions: field.versions,
                        fields: inner,
                        line: field.line,
                    });
                    structs.splice(at + 1.., nested);
                }
                None if is_open => {
                    let message = format!("{} has no fields of its own", field.name);
                    return Err((self.lines[self.at].number, message));
                }
                _ => {}
            }
            fields.push(field);
        }
        Ok(fields)
    }

    /// `struct NAME[, VERSIONS]` and its fields.
    fn shared_struct(
        &mut self,
        indent: usize,
        versions: Versions,
        structs: &mut Vec<Struct>,
    ) -> Result<(), LineError> {
        let line = &self.lines[self.at];
        let number = line.number;
        let doc = line.doc.clone();
        let mut pieces = split_word(&line.text).1.split(',').map(str::trim);
        let name = pieces.next().unwrap_or_default().to_owned();
        if !is_name(&name) {
            return Err((number, format!("{name:?} is no name: expected UpperCamelCase")));
        }
        let versions = match pieces.next().map(|piece| piece.strip_prefix('v')) {
            None => versions,
            Some(Some(range)) => parse_range(range, number, Some(versions))?,
            Some(None) => return Err((number, "expected versions, as v1+".to_owned())),
        };
        self.at += 1;
        let fields = self.fields(indent + 2, versions, structs)?;
        structs.push(Struct { name, doc, versions, fields, line: number });
        Ok(())
    }
}

/// `Name: TYPE [= DEFAULT] [, VERSIONS] [, tag N] [, ignorable]`
fn parse_field(line: &Line, context: Versions) -> Result<Field, LineError> {
    let number = line.number;
    let wrong = |message: String| (number, message);
    let (name, rest) =
        line.text.split_once(':').ok_or_else(|| wrong("expected NAME: TYPE".to_owned()))?;
    if !is_name(name) {
        return Err(wrong(format!("{name:?} is no name: expected UpperCamelCase")));
    }
    let mut clauses = rest.split(',').map(str::trim);
    let head = clauses.next().unwrap_or_default();
    let (mut versions, mut tag, mut ignorable) = (context, None, false);
    for clause in clauses {
        if clause == "ignorable" {
            ignorable = true;
        } else if let Some(tag_number) = clause.strip_prefix("tag ") {
            let parsed = tag_number.trim().parse();
            tag = Some(parsed.map_err(|_| wrong(format!("{tag_number:?} is no tag")))?);
        } else if let Some(range) = clause.strip_prefix('v') {
            versions = parse_range(range, number, Some(context))?;
        } else {
            let expected = "expected versions (as v3+), tag N or ignorable";
            return Err(wrong(format!("{expected}, found {clause:?}")));
        }
    }
    let (written_type, written_default) = match head.split_once('=') {
        Some((written_type, default)) => (written_type.trim(), Some(default.trim())),
        None => (head, None),
    };
    let (ty, nullable) = match written_type.split_once('?') {
        None => (parse_type(written_type, number)?, None),
        Some((ty, "")) => (parse_type(ty, number)?, Some(versions)),
        Some((ty, range)) => {
            let range = range
                .strip_prefix('v')
                .ok_or_else(|| wrong("expected versions after ?, as ?v3+".to_owned()))?;
            let range = parse_range(range, number, Some(versions))?;
            (parse_type(ty, number)?, Some(range))
        }
    };
    let default = match written_default {
        Some(text) => parse_default(text, &ty, number)?,
        // Null where that can be said in every version.
        None if nullable == Some(versions) => Default::Null,
        None => Default::Zero,
    };
    Ok(Field {
        name: name.to_owned(),
        doc: line.doc.clone(),
        ty,
        versions,
        nullable,
        default,
        tag,
        ignorable,
        line: number,
    })
}

fn parse_type(text: &str, line: usize) -> Result<Type, LineError> {
    if let Some(inner) = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        let element = parse_type(inner, line)?;
        if matches!(element, Type::Array(_) | Type::Records) {
            return Err((line, format!("no array of {inner:?}")));
        }
        return Ok(Type::Array(Box::new(element)));
    }
    Ok(match text {
        "bool" => Type::Bool,
        "int8" => Type::Int8,
        "int16" => Type::Int16,
        "int32" => Type::Int32,
        "int64" => Type::Int64,
        "uint16" => Type::Uint16,
        "uint32" => Type::Uint32,
        "float64" => Type::Float64,
        "uuid" => Type::Uuid,
        "string" => Type::String,
        "bytes" => Type::Bytes,
        "records" => Type::Records,
        name if is_name(name) => Type::Struct(name.to_owned()),
        other => return Err((line, format!("{other:?} is no type"))),
    })
}

fn parse_default(text: &str, ty: &Type, line: usize) -> Result<Default, LineError> {
    let default = match (text, ty) {
        ("null", _) => Default::Null,
        ("true", Type::Bool) => Default::True,
        ("\"\"", Type::String | Type::Bytes) | ("[]", Type::Array(_)) | ("{}", Type::Struct(_)) => {
            Default::Zero
        }
        _ => {
            let range = match ty {
                Type::Int8 => (i8::MIN.into(), i8::MAX.into()),
                Type::Int16 => (i16::MIN.into(), i16::MAX.into()),
                Type::Int32 => (i32::MIN.into(), i32::MAX.into()),
                Type::Int64 => (i64::MIN, i64::MAX),
                Type::Uint16 => (0, u16::MAX.into()),
                Type::Uint32 => (0, u32::MAX.into()),
                _ => return Err((line, format!("{text:?} is no default for this type"))),
            };
            let parsed = match text.strip_prefix("0x") {
                Some(digits) => i64::from_str_radix(digits, 16).ok(),
                None => text.parse().ok(),
            };
            match parsed {
                Some(0) => return Err((line, "zero is the default anyway".to_owned())),
                Some(value) if (range.0..=range.1).contains(&value) => Default::Int(value),
                _ => return Err((line, format!("{text:?} is no default for this type"))),
            }
        }
    };
    Ok(default)
}

/// `3`, `3-13`, or, within a known range, `3+`.
fn parse_range(text: &str, line: usize, within: Option<Versions>) -> Result<Versions, LineError> {
    let range = match (text.strip_suffix('+'), text.split_once('-'), within) {
        (Some(first), _, Some(within)) => {
            Versions { first: parse_version(first, line)?, last: within.last }
        }
        (None, Some((first, last)), _) => {
            Versions { first: parse_version(first, line)?, last: parse_version(last, line)? }
        }
        (None, None, _) => {
            let only = parse_version(text, line)?;
            Versions { first: only, last: only }
        }
        (Some(_), _, None) => return Err((line, "say the last version here".to_owned())),
    };
    let fits = within.is_none_or(|within| within.covers(range));
    if range.first > range.last || !fits {
        let message = format!("versions {text} lie outside those of what they are part of");
        return Err((line, message));
    }
    Ok(range)
}

fn parse_version(text: &str, line: usize) -> Result<i16, LineError> {
    let parsed = text.parse().ok().filter(|&version: &i16| version >= 0);
    parsed.ok_or_else(|| (line, format!("{text:?} is no number from 0 to 32767")))
}

/// The first word, and what follows it.
fn split_word(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((word, rest)) => (word, rest.trim()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests;
