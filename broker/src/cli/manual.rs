//! What clap can write about the program: completions and manual pages.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use clap_complete::Shell;
use clap_mangen::Man;

use crate::cli::error::CliError;
use crate::cli::output::Output;

/// `vltava completions`.
#[derive(Debug, clap::Args)]
pub struct CompletionsArguments {
    /// The shell
    shell: Shell,
}

/// `vltava man`.
#[derive(Debug, clap::Args)]
pub struct ManArguments {
    /// Write one page for each command into this directory, instead of printing that of vltava
    #[arg(long, value_name = "DIRECTORY")]
    directory: Option<PathBuf>,
}

/// Prints a completion script.
pub(super) fn completions(
    arguments: &CompletionsArguments,
    mut root: clap::Command,
) -> Result<(), CliError> {
    let name = root.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut root, name, &mut script);
    let mut output = Output::stdout();
    output.write_all(&script)?;
    Ok(output.flush()?)
}

/// Prints a page, or writes all.
pub(super) fn man(arguments: &ManArguments, mut root: clap::Command) -> Result<(), CliError> {
    root.build();
    match &arguments.directory {
        None => {
            let mut page = Vec::new();
            Man::new(root).render(&mut page)?;
            let mut output = Output::stdout();
            output.write_all(&page)?;
            Ok(output.flush()?)
        }
        Some(directory) => {
            let name = root.get_name().to_owned();
            write_pages(directory, &name, root)
        }
    }
}

/// One page for the command, and one for each below it: `vltava-topic-create.1`.
fn write_pages(directory: &Path, name: &str, command: clap::Command) -> Result<(), CliError> {
    for below in command.get_subcommands().filter(|below| below.get_name() != "help") {
        write_pages(directory, &format!("{name}-{}", below.get_name()), below.clone())?;
    }
    let path = directory.join(format!("{name}.1"));
    let failed = |error| CliError::new(format!("cannot write {}: {error}", path.display()));
    let mut page = Vec::new();
    Man::new(command.display_name(name)).title(name).render(&mut page).map_err(failed)?;
    fs::write(&path, page).map_err(failed)
}
