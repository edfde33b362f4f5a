//! `keyfleet image`: what is in a flash image, without a server.

mod check;
mod remnants;
mod report;
mod secrets;

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::api::Context;
use crate::failure::Failure;

pub(crate) use secrets::{Digest, NamedFile};

/// The acts on images.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List what is in an image, tell encrypted from plain, and find keys and secrets in clear
    Check(Check),
    /// Find what was deleted or overwritten in NVS and is still there, and fragments of keys that should be gone
    Remnants(Remnants),
}

const CHECK_EXAMPLES: &str = "\
Exit code 0: nothing is in clear that should not be; 1: there are findings.

A key that is nothing but random octets looks like any other random octets: it is found only when it is named, with
--secret, or --digest where the key itself should not be at hand. What looks random is not proven to be encrypted.

Examples:
  keyfleet image check flash.bin
  keyfleet image check flash.bin --secret device=device.key --secret wifi=wifi-password
  keyfleet image check flash.bin --digest master=2bd8…:32 --format json";

/// What is checked.
#[derive(Debug, Args)]
#[command(after_help = CHECK_EXAMPLES)]
pub(crate) struct Check {
    /// The image: a whole flash, a partition, or any other file up to 1 GiB
    file: PathBuf,
    #[command(flatten)]
    sought: Sought,
    /// The SHA-256 of a secret and its length in octets, to find it without having it
    #[arg(long, value_name = "NAME=SHA256:OCTETS")]
    digest: Vec<Digest>,
}

/// Secrets to look for.
#[derive(Debug, Args)]
pub(crate) struct Sought {
    /// A secret to look for, whole and in fragments of 8 octets: a private key (PEM, DER), hexadecimal text, or octets
    #[arg(long = "secret", value_name = "NAME=FILE")]
    secrets: Vec<NamedFile>,
}

const REMNANTS_EXAMPLES: &str = "\
Exit code 0: nothing is left; 1: there are findings.

Reads the NVS partitions of a dump: all that its partition table names, or the whole file when it is one partition.
`nvs_erase_key` and a new value only mark the old one erased: it stays until its page is erased, and what flash wears
level may keep a copy for longer. A dump shows what the chip still answers, not what its worn blocks hold.

Examples:
  keyfleet image remnants flash.bin
  keyfleet image remnants nvs.bin --nvs-keys nvs_keys.bin
  keyfleet image remnants flash.bin --offset 0x9000 --length 0x6000 --hmac-key efuse.key
  keyfleet image remnants flash.bin --secret old-key=old.pem";

/// What is looked through.
#[derive(Debug, Args)]
#[command(after_help = REMNANTS_EXAMPLES)]
pub(crate) struct Remnants {
    /// The dump: a whole flash or an NVS partition
    file: PathBuf,
    /// Where the partition begins in the file, in octets
    #[arg(long, value_name = "OCTETS", value_parser = number, requires = "length")]
    offset: Option<u64>,
    /// How many octets the partition has
    #[arg(long, value_name = "OCTETS", value_parser = number)]
    length: Option<u64>,
    /// The keys partition of an encrypted NVS partition, in clear
    #[arg(long, value_name = "FILE", conflicts_with = "hmac_key")]
    nvs_keys: Option<PathBuf>,
    /// The eFuse key from which the HMAC peripheral makes the keys of an encrypted NVS partition
    #[arg(long, value_name = "FILE")]
    hmac_key: Option<PathBuf>,
    #[command(flatten)]
    sought: Sought,
}

pub(crate) fn run(context: &Context, verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Check(check) => check::run(context, check),
        Verb::Remnants(remnants) => remnants::run(context, remnants),
    }
}

/// A number of octets, decimal or with `0x`.
fn number(text: &str) -> Result<u64, String> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_not_a_number| "a number of octets, such as 24576 or 0x6000".to_owned())
}
