//! Generates messages and records from the schemas.

use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=schema");
    let out = std::env::var("OUT_DIR")?;
    vltava_protocol_codegen::generate::generate(Path::new("schema"), Path::new(&out))
}
