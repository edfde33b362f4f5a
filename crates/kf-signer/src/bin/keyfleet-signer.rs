//! The signer as a program of its own, which links nothing of the server.

use std::process::ExitCode;

fn main() -> ExitCode {
    kf_signer::run_signer()
}
