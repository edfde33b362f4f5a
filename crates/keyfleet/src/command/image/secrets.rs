//! What to look for, from the command line: names of files, never secrets.

use std::path::PathBuf;
use std::str::FromStr;

use kf_flash::scan::{NamedDigest, NamedSecret, SecretListError, Secrets};

use crate::failure::Failure;
use crate::file;

/// `NAME=FILE`.
#[derive(Clone, Debug)]
pub(crate) struct NamedFile {
    name: String,
    path: PathBuf,
}

impl FromStr for NamedFile {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((name, path)) if !name.is_empty() && !path.is_empty() => {
                Ok(Self { name: name.to_owned(), path: path.into() })
            }
            _ => Err("write NAME=FILE: the name for the report, and the file that holds the secret"),
        }
    }
}

/// `NAME=SHA256:OCTETS`.
#[derive(Clone, Debug)]
pub(crate) struct Digest {
    name: String,
    sha256: [u8; 32],
    octets: usize,
}

impl FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parsed = text.split_once('=').and_then(|(name, rest)| {
            let (digest, octets) = rest.split_once(':')?;
            let mut sha256 = [0; 32];
            hex::decode_to_slice(digest, &mut sha256).ok()?;
            Some(Self { name: name.to_owned(), sha256, octets: octets.parse().ok()? })
        });
        parsed.ok_or("write NAME=SHA256:OCTETS: 64 hexadecimal digits, and the length of the secret")
    }
}

/// Reads the files and prepares the search. Called once for each image that is scanned.
pub(super) fn read(files: &[NamedFile], digests: &[Digest]) -> Result<Secrets, Failure> {
    let mut secrets = Vec::new();
    for NamedFile { name, path } in files {
        secrets.extend(NamedSecret::from_file(name, file::read_secret(path)?).map_err(refused)?);
    }
    let digests = digests.iter().map(|digest| NamedDigest {
        name: digest.name.clone(),
        sha256: digest.sha256,
        octets: digest.octets,
    });
    Secrets::new(secrets, digests.collect()).map_err(refused)
}

fn refused(error: SecretListError) -> Failure {
    Failure::usage(error.to_string(), "see `keyfleet image check --help` for what can be looked for")
}
