//! Keys and salts from files, descriptors or a person; identifiers in both of their spellings.

use std::io::Read as _;
use std::path::Path;
use std::str::FromStr;

use kf_key::{DeviceId, FacilityId, ParseIdError, SecretArray, SecretBytes};

use super::Derive;
use crate::failure::Failure;
use crate::file;
use crate::output::can_ask;

/// The most octets read from standard input: a key in hexadecimal with some white space around it.
const MAX_INPUT_OCTETS: u64 = 1_024;

/// Identifiers that are also accepted as a UUID with hyphens.
pub(super) trait Prefixed: FromStr<Err = ParseIdError> {
    /// The text prefix.
    const PREFIX: &'static str;
}

impl Prefixed for FacilityId {
    const PREFIX: &'static str = Self::PREFIX;
}

impl Prefixed for DeviceId {
    const PREFIX: &'static str = Self::PREFIX;
}

/// Reads `fac_…` or a UUID.
pub(super) fn identifier<I: Prefixed>(text: &str) -> Result<I, String> {
    let bare = text.strip_prefix(I::PREFIX).unwrap_or(text).replace('-', "").to_ascii_lowercase();
    format!("{}{bare}", I::PREFIX).parse().map_err(|error: ParseIdError| format!("{error}, or a UUID"))
}

/// Reads 32 hexadecimal digits.
pub(super) fn boot_random(text: &str) -> Result<[u8; 16], String> {
    let mut random = [0; 16];
    hex::decode_to_slice(text, &mut random).map_err(|_not_hex| "expected 32 hexadecimal digits".to_owned())?;
    Ok(random)
}

/// The key that the walk starts from.
pub(super) fn start(derive: &Derive) -> Result<SecretArray<32>, Failure> {
    if derive.vector_root {
        return Ok(SecretArray::fill(|key| key.iter_mut().zip(0..).for_each(|(octet, value)| *octet = value)));
    }
    match derive.device_key_file.as_ref().or(derive.root_file.as_ref()) {
        Some(path) if path == Path::new("-") => {
            let mut octets = Vec::new();
            let standard_input = std::io::stdin().lock();
            let read = standard_input.take(MAX_INPUT_OCTETS).read_to_end(&mut octets);
            let octets = SecretBytes::from_vec(octets);
            read.map_err(|error| Failure::file("read", Path::new("standard input"), error))?;
            secret(&octets, "standard input")
        }
        Some(path) => secret(&file::read_secret(path)?, &path.display().to_string()),
        None if can_ask() => ask(),
        None => Err(Failure::usage(
            "no root is given and nobody can be asked here",
            "give --root-file FILE (`-` is standard input), --device-key-file FILE or --vector-root",
        )),
    }
}

fn ask() -> Result<SecretArray<32>, Failure> {
    let answer = rpassword::prompt_password("Fleet root, 64 hexadecimal digits (not shown): ")
        .map_err(|error| Failure::file("read", Path::new("the terminal"), error))?;
    secret(&SecretBytes::from_vec(answer.into_bytes()), "the terminal")
}

/// The salt of a device.
pub(super) fn salt(path: &Path) -> Result<[u8; 16], Failure> {
    // Exposed to be part of an info. The salt alone opens nothing, but its destruction must count.
    secret::<16>(&file::read_secret(path)?, &path.display().to_string()).map(|salt| *salt.expose())
}

/// `N` octets, or twice as many hexadecimal digits with white space around them.
fn secret<const N: usize>(octets: &SecretBytes, from: &str) -> Result<SecretArray<N>, Failure> {
    // Exposed to be read.
    let given = octets.expose();
    SecretArray::try_fill(|secret: &mut [u8; N]| {
        if given.len() == N {
            secret.copy_from_slice(given);
            return Ok(());
        }
        hex::decode_to_slice(given.trim_ascii(), secret).map_err(|_not_hex| {
            Failure::local(
                format!("{from} holds neither {N} octets nor {} hexadecimal digits", N * 2),
                "check that it is the file you meant",
            )
        })
    })
}
