//! A directory of schemas in, files of Rust out: what the build script calls.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use crate::model::{File, Item};
use crate::names::snake_case;
use crate::parse::{SchemaError, parse};
use crate::tables::{self, Module};

/// Reads `schema/api` and `schema/record`; writes `api.rs`, `messages.rs`, `records.rs` and
/// `registry.rs`.
///
/// # Errors
/// A file that cannot be read or written, or the first error in a schema, with file and line.
pub fn generate(schema: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let messages = read_apis(&schema.join("api"))?;
    let records = read_records(&schema.join("record"))?;
    fs::write(out.join("api.rs"), tables::emit_api_table(&messages))?;
    fs::write(out.join("messages.rs"), tables::emit_messages(&messages))?;
    fs::write(out.join("records.rs"), tables::emit_records(&records))?;
    let registry = tables::emit_registry(&messages, &records);
    fs::write(out.join("registry.rs"), registry)?;
    Ok(())
}

/// One module for each file in `api`: the file is named key, underscore, name.
///
/// # Errors
/// As [`generate`].
pub fn read_apis(directory: &Path) -> Result<Vec<Module>, Box<dyn Error>> {
    let mut modules = Vec::new();
    for path in sorted_entries(directory)? {
        let file = read_file(&path)?;
        let [Item::Api(api)] = file.items.as_slice() else {
            return Err(one_line(&path, "one api in a file"));
        };
        let name = snake_case(&api.name);
        if file_name(&path) != format!("{:02}_{name}", api.key) {
            return Err(one_line(&path, "the file is named by key and name of its api"));
        }
        modules.push(Module { name, files: vec![file] });
    }
    Ok(modules)
}

/// One module for each file, or folder of files, in `record`.
///
/// # Errors
/// As [`generate`].
pub fn read_records(directory: &Path) -> Result<Vec<Module>, Box<dyn Error>> {
    let mut modules = Vec::new();
    for path in sorted_entries(directory)? {
        let paths = if path.is_dir() { sorted_entries(&path)? } else { vec![path.clone()] };
        let files: Result<Vec<File>, _> = paths.iter().map(|path| read_file(path)).collect();
        let module = Module { name: file_name(&path), files: files? };
        check_module(&path, &module)?;
        modules.push(module);
    }
    Ok(modules)
}

/// What the files of one module must not have twice.
fn check_module(path: &Path, module: &Module) -> Result<(), Box<dyn Error>> {
    let mut names = Vec::new();
    let (mut keyed, mut unkeyed) = (Vec::new(), Vec::new());
    for file in &module.files {
        for message in file.messages() {
            names.push(message.root.name.as_str());
            names.extend(message.structs.iter().map(|nested| nested.name.as_str()));
        }
        for item in &file.items {
            match item {
                Item::Keyed { record_type, .. } => keyed.push(*record_type),
                Item::Record { record_type, .. } => unkeyed.push(*record_type),
                Item::Api(_) => return Err(one_line(path, "an api among records")),
                Item::Data(_) => {}
            }
        }
    }
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
        return Err(one_line(path, &format!("a second {} in one module", twice[0])));
    }
    for numbers in [&mut keyed, &mut unkeyed] {
        numbers.sort_unstable();
        if let Some(twice) = numbers.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(one_line(path, &format!("a second record of type {}", twice[0])));
        }
    }
    Ok(())
}

fn one_line(path: &Path, message: &str) -> Box<dyn Error> {
    Box::new(SchemaError { file: path.display().to_string(), line: 1, message: message.to_owned() })
}

fn read_file(path: &Path) -> Result<File, Box<dyn Error>> {
    let text = fs::read_to_string(path)?;
    Ok(parse(&path.display().to_string(), &text)?)
}

fn file_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn sorted_entries(directory: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let entries: Result<Vec<PathBuf>, std::io::Error> = fs::read_dir(directory)
        .map_err(|error| format!("{}: {error}", directory.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    let mut entries = entries?;
    entries.sort();
    Ok(entries)
}
