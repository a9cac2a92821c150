//! What must hold in a file beyond its grammar.

use std::collections::BTreeSet;

use crate::model::{Default, Field, File, Item, Message, Struct, Type, Versions};
use crate::parse::LineError;

/// Checks names, references, tags and defaults.
pub(crate) fn check(file: &File) -> Result<(), LineError> {
    let mut names = BTreeSet::new();
    let mut used = BTreeSet::new();
    for message in file.messages() {
        for declared in std::iter::once(&message.root).chain(&message.structs) {
            unique(&mut names, declared)?;
        }
    }
    for declared in &file.shared {
        unique(&mut names, declared)?;
    }
    for message in file.messages() {
        visit(file, message, &message.root, message.versions, &mut Vec::new(), &mut used)?;
    }
    let declared = file.messages().into_iter().flat_map(|message| &message.structs);
    for declared in declared.chain(&file.shared) {
        if !used.contains(&declared.name) {
            return Err((declared.line, format!("nothing uses struct {}", declared.name)));
        }
    }
    for item in &file.items {
        if let Item::Api(api) = item {
            check_api_doc(&api.doc, api.request.root.line)?;
        }
    }
    Ok(())
}

fn unique(names: &mut BTreeSet<String>, declared: &Struct) -> Result<(), LineError> {
    if names.insert(declared.name.clone()) {
        Ok(())
    } else {
        Err((declared.line, format!("a second {} in one module", declared.name)))
    }
}

fn check_api_doc(doc: &[String], line: usize) -> Result<(), LineError> {
    match doc.first() {
        Some(first) if first.ends_with('.') => Ok(()),
        _ => Err((line, "the line above `api` says in one sentence what it does".to_owned())),
    }
}

/// Checks a structure where it is used: in `versions`, below the structures in `path`.
fn visit<'a>(
    file: &'a File,
    message: &'a Message,
    current: &'a Struct,
    versions: Versions,
    path: &mut Vec<&'a str>,
    used: &mut BTreeSet<String>,
) -> Result<(), LineError> {
    if path.contains(&current.name.as_str()) {
        return Err((current.line, format!("{} contains itself", current.name)));
    }
    if !current.versions.covers(versions) {
        let message = format!("{} is used in versions that it does not have", current.name);
        return Err((current.line, message));
    }
    path.push(&current.name);
    let mut names = BTreeSet::new();
    let mut tags = BTreeSet::new();
    for field in &current.fields {
        if !names.insert(&field.name) {
            return Err((field.line, format!("a second field {}", field.name)));
        }
        if field.tag.is_some_and(|tag| !tags.insert(tag)) {
            return Err((field.line, "a second field of this tag".to_owned()));
        }
        check_field(message, field)?;
        let Some(name) = field.ty.struct_name() else {
            continue;
        };
        let Some(inner) = file.find_struct(message, name) else {
            return Err((field.line, format!("no struct {name} in this file")));
        };
        used.insert(name.to_owned());
        // Where the versions do not meet, the field is not on the wire in this use.
        if let Some(versions) = field.versions.intersect(versions) {
            visit(file, message, inner, versions, path, used)?;
            if matches!(field.ty, Type::Array(_)) {
                check_element(file, message, inner, versions)?;
            }
        }
    }
    path.pop();
    Ok(())
}

fn check_field(message: &Message, field: &Field) -> Result<(), LineError> {
    let wrong = |text: &str| Err((field.line, text.to_owned()));
    if field.tag.is_some() && !field.versions.iter().all(|v| message.is_flexible(v)) {
        return wrong("a tagged field needs flexible versions");
    }
    let has_null = matches!(
        field.ty,
        Type::String | Type::Bytes | Type::Records | Type::Struct(_) | Type::Array(_)
    );
    if field.nullable.is_some() && !has_null {
        return wrong("a field of this type cannot be null");
    }
    if field.default == Default::Null && field.nullable.is_none() {
        return wrong("null is the default of a field that cannot be null");
    }
    Ok(())
}

/// An array of elements that take no bytes would have no bound.
fn check_element(
    file: &File,
    message: &Message,
    element: &Struct,
    versions: Versions,
) -> Result<(), LineError> {
    for version in versions.iter() {
        if crate::emit::struct_bytes_min(file, message, element, version) == 0 {
            let text = format!("{} takes no bytes in version {version}", element.name);
            return Err((element.line, text));
        }
    }
    Ok(())
}
