//! `cargo xtask`: the project's scripts, in Rust.
//!
//! - `test`: everything that a change must pass, from a bare Debian machine on.
//! - `prerequisites`: what the tests need, installed, and nothing run.
//! - `tidy`: the layers and the few points of style that matter.
//! - `c-library`: header, static library and pkg-config file of the device SDK, installed.
//! - `firmware`: what runs on a microcontroller, built and run in the emulator.
//! - `documents`: the commands of the documents, run.
//! - `agent-size`: size and memory of the agent as it is shipped.
//! - `bench`: figures as ratios, by the crate `kf-bench`.
//!
//! It depends on none of our crates, so that it compiles in seconds and can say what is missing before anything else
//! is built.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command-line tool: standard output is its product")]

mod agent_size;
mod c_library;
mod document_commands;
mod firmware;
mod prerequisites;
mod process;
mod suite;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Build tasks of Keyfleet")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install what the tests need (as root), then run formatting, tidy, lints, tests, the demo and the documents.
    Test,
    /// Install what the tests need (as root), so that a single crate can be tested.
    Prerequisites,
    /// Hold the layers and the style points that are tested.
    Tidy,
    /// Build what runs on a microcontroller, run it in the emulator, and print what was checked.
    Firmware(firmware::Arguments),
    /// Build and install the C library of the device SDK: header, static library, pkg-config file.
    CLibrary(c_library::Arguments),
    /// Run the commands that the documents tell people to type, against the programs that were built last.
    Documents {
        /// Which documents, relative to the workspace; all when none is named.
        documents: Vec<std::path::PathBuf>,
    },
    /// Build the agent as it is shipped and print its size and its resident memory.
    AgentSize,
    /// Measure; each figure is a ratio to a yardstick timed in the same run.
    Bench {
        /// Passed on to kf-bench, see `cargo xtask bench -- --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Test => suite::run(),
        Task::Prerequisites => prerequisites::install(),
        Task::Tidy => tidy::run(),
        Task::Firmware(arguments) => firmware::run_all(&arguments),
        Task::CLibrary(arguments) => c_library::install(&arguments),
        Task::Documents { documents } => document_commands::run(&documents),
        Task::AgentSize => agent_size::run_all(),
        Task::Bench { arguments } => suite::bench(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("xtask: {failure}");
            ExitCode::FAILURE
        }
    }
}
