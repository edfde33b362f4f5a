//! `kf-emulator`: runs the firmware images in QEMU and stands for what surrounds a microcontroller.
#![allow(clippy::print_stderr, reason = "a command-line tool says on standard error why it failed")]

mod bridge;
mod check;
mod device_command;
mod figures;
mod flash_chip;
mod fuses;
#[allow(clippy::indexing_slicing, reason = "a JSON value without the key gives null")]
mod life;
mod machine;
mod modem;
mod noise;
mod remains;
mod report;
mod request;
mod server;
mod size;
mod target;
mod vectors;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "kf-emulator", about = "The firmware in an emulated microcontroller")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Run every image and hold the results against the vectors, the limits and the manual.
    Check(check::Arguments),
    /// One device, whose fuses and flash are in a folder.
    #[command(subcommand)]
    Device(device_command::Verb),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().task {
        Task::Check(arguments) => check::run(&arguments),
        Task::Device(verb) => device_command::run(verb).map(|()| true),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("kf-emulator: {error}");
            let mut cause = error.source();
            while let Some(next) = cause {
                eprintln!("  {next}");
                cause = next.source();
            }
            ExitCode::FAILURE
        }
    }
}
