//! Makes the Rust of the messages between nodes from their schema, or says whether it is what the
//! schema makes of it.
//!
//!     cargo run --manifest-path broker/codegen/Cargo.toml            writes it
//!     cargo run --manifest-path broker/codegen/Cargo.toml -- --check compares
//!
//! Needs cmake and a C++ compiler, for flatc itself, and rustfmt.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const SCHEMA: &str = "peer.fbs";
const MADE: &str = "peer_generated.rs";

fn main() -> ExitCode {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => {
            eprintln!("no argument {other}: --check, or none");
            return ExitCode::from(2);
        }
    };
    match run(check) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(check: bool) -> Result<(), Box<dyn Error>> {
    // At run time: a folder of built things that two trees share has one program for both.
    let package = std::env::var("CARGO_MANIFEST_DIR").map_err(|_| "run it with cargo run")?;
    let root = Path::new(&package).join("../..").canonicalize()?;
    let folder = root.join("broker/src/peer/schema");
    let made = make(&root, &folder)?;
    let committed = folder.join(MADE);
    if !check {
        std::fs::write(&committed, made)?;
        println!("written: broker/src/peer/schema/{MADE}");
    } else if std::fs::read_to_string(&committed).unwrap_or_default() != made {
        let how = "cargo run --manifest-path broker/codegen/Cargo.toml";
        return Err(format!("{MADE} is not what {SCHEMA} makes: {how}").into());
    } else {
        println!("schema: {MADE} is what {SCHEMA} makes");
    }
    Ok(())
}

/// The Rust that the schema makes, formatted as the tree is.
fn make(root: &Path, folder: &Path) -> Result<String, Box<dyn Error>> {
    let scratch = Scratch::new()?;
    let mut flatc = Command::new(flatc::flatc());
    flatc.arg("--rust").arg("-o").arg(&scratch.0).arg(folder.join(SCHEMA));
    succeed(flatc)?;
    let made = scratch.0.join(MADE);
    let mut format = Command::new("rustfmt");
    format.args(["--edition", "2024", "--config-path"]).arg(root).arg(&made);
    succeed(format)?;
    Ok(std::fs::read_to_string(made)?)
}

fn succeed(mut command: Command) -> Result<(), Box<dyn Error>> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = [output.stdout, output.stderr].concat();
    Err(format!("{command:?}: {}", String::from_utf8_lossy(&text)).into())
}

/// A folder of this process's own, gone with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> std::io::Result<Self> {
        let name = format!("vltava-peer-codegen-{}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&folder)?;
        Ok(Self(folder))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
