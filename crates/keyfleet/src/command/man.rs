//! `keyfleet man`.

use std::path::Path;

use clap::CommandFactory as _;

use crate::arguments::Arguments;
use crate::failure::Failure;
use crate::output::say;

pub(crate) fn run(directory: &Path) -> Result<(), Failure> {
    std::fs::create_dir_all(directory).map_err(|error| Failure::file("create", directory, error))?;
    clap_mangen::generate_to(Arguments::command(), directory)
        .map_err(|error| Failure::file("write", directory, error))?;
    say(&format!("man pages written to {0}; read one with `man {0}/keyfleet.1`", directory.display()));
    Ok(())
}
