//! Secrets from where they are kept: a file, an inherited descriptor, a systemd credential. Never an argument, never the
//! environment.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use kf_key::{SecretArray, SecretBytes};

use crate::config::{Bootstrap, Key, hex_octets};
use crate::failure::Failure;

/// The most octets of a secret.
const MAX_SECRET_OCTETS: usize = 8 * 1024;

/// The content of a file or pipe, white space at its end removed.
fn read_secret(path: &Path) -> io::Result<SecretBytes> {
    let mut file = File::open(path)?;
    let mut length = 0;
    let mut failure = None;
    let buffer = SecretBytes::fill(MAX_SECRET_OCTETS, |buffer| {
        while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match file.read(rest) {
                Ok(0) => break,
                Ok(read) => length = length.saturating_add(read),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    if length == MAX_SECRET_OCTETS {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than any secret of ours"));
    }
    // Exposed to cut off what was not filled.
    let content = buffer.expose().get(..length).unwrap_or_default();
    Ok(SecretBytes::fill(content.len(), |out| out.copy_from_slice(content)))
}

fn without_line_end(secret: &SecretBytes) -> SecretBytes {
    // Exposed to drop the line end that editors and `echo` leave.
    let trimmed = secret.expose().trim_ascii();
    SecretBytes::fill(trimmed.len(), |out| out.copy_from_slice(trimmed))
}

/// `/proc/self/fd/N` opens an inherited pipe or file without unsafe code.
fn descriptor_path(number: u32) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{number}"))
}

fn credential_path(name: &str) -> io::Result<PathBuf> {
    let directory = std::env::var_os("CREDENTIALS_DIRECTORY")
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "systemd handed over no credentials"))?;
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a credential name has no `/` and no leading dot"));
    }
    Ok(Path::new(&directory).join(name))
}

/// Where the enrolment code comes from.
#[derive(Debug)]
pub(crate) enum CodeSource {
    None,
    /// Read again for every attempt, so that an operator can put a new code there.
    Path(PathBuf),
    /// A descriptor can be read once.
    Held(SecretBytes),
}

impl CodeSource {
    pub(crate) fn open(bootstrap: &Bootstrap) -> Result<Self, Failure> {
        let failed = |field| move |source| Failure::Source { field, source };
        match (&bootstrap.code_file, bootstrap.code_fd, &bootstrap.code_credential) {
            (Some(path), ..) => Ok(Self::Path(path.clone())),
            (None, Some(number), _) => {
                let secret = read_secret(&descriptor_path(number)).map_err(failed("bootstrap.code_fd"))?;
                Ok(Self::Held(without_line_end(&secret)))
            }
            (None, None, Some(name)) => {
                credential_path(name).map(Self::Path).map_err(failed("bootstrap.code_credential"))
            }
            (None, None, None) => Ok(Self::None),
        }
    }

    pub(crate) fn is_available(&self) -> bool {
        match self {
            Self::None => false,
            // An emptied file is how a unit that must find one says that there is no code any more.
            Self::Path(path) => std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0),
            Self::Held(code) => !code.is_empty(),
        }
    }

    pub(crate) fn read(&self) -> io::Result<SecretBytes> {
        match self {
            Self::None => Err(io::Error::new(io::ErrorKind::NotFound, "no enrolment code is configured")),
            Self::Path(path) => read_secret(path).map(|secret| without_line_end(&secret)),
            Self::Held(code) => Ok(without_line_end(code)),
        }
    }
}

/// The key that wraps the private key at rest; `None` where it may rest unwrapped.
pub(crate) fn seal_key(key: &Key) -> Result<Option<SecretArray<32>>, Failure> {
    let (field, secret) = match (key.seal_fd, &key.seal_credential) {
        (Some(number), _) => ("key.seal_fd", read_secret(&descriptor_path(number))),
        (None, Some(name)) => ("key.seal_credential", credential_path(name).and_then(|path| read_secret(&path))),
        (None, None) => return Ok(None),
    };
    let secret = secret.map_err(|source| Failure::Source { field, source })?;
    let wrong = Failure::Content { field, expected: "32 octets, or 64 hexadecimal digits" };
    // Exposed to bring it into its one form.
    let octets = secret.expose();
    if octets.len() == 32 {
        return Ok(Some(SecretArray::fill(|key| key.copy_from_slice(octets))));
    }
    let digits = std::str::from_utf8(octets.trim_ascii()).ok().and_then(hex_octets);
    match digits {
        Some(digits) => Ok(Some(SecretArray::fill(|key| *key = digits))),
        None => Err(wrong),
    }
}

/// What unlocks a key in hardware, as it is: an authorisation value or a PIN.
pub(crate) fn unlock_value(key: &Key) -> Result<Option<SecretBytes>, Failure> {
    let (field, secret) = match (key.seal_fd, &key.seal_credential) {
        (Some(number), _) => ("key.seal_fd", read_secret(&descriptor_path(number))),
        (None, Some(name)) => ("key.seal_credential", credential_path(name).and_then(|path| read_secret(&path))),
        (None, None) => return Ok(None),
    };
    let secret = secret.map_err(|source| Failure::Source { field, source })?;
    Ok(Some(without_line_end(&secret)))
}

/// A key as a [`crate::KeySource`] stores it: octets, none of them white space to be dropped.
pub(crate) fn stored_key(path: &Path) -> io::Result<SecretBytes> {
    read_secret(path)
}

/// The PKCS#8 DER of a PEM file.
pub(crate) fn private_key_pem(path: &Path, field: &'static str) -> Result<SecretBytes, Failure> {
    const BEGIN: &str = "-----BEGIN PRIVATE KEY-----";
    const END: &str = "-----END PRIVATE KEY-----";
    let secret = read_secret(path).map_err(|source| Failure::Source { field, source })?;
    let wrong = || Failure::Content { field, expected: "a PKCS#8 private key in PEM" };
    // Exposed to decode it; the digits are copied once, into a buffer that is wiped.
    let text = std::str::from_utf8(secret.expose()).map_err(|_binary| wrong())?;
    let body = text.split_once(BEGIN).and_then(|(_, rest)| rest.split_once(END)).ok_or_else(wrong)?.0;
    let digits = body.bytes().filter(|octet| !octet.is_ascii_whitespace());
    let digits = SecretBytes::fill(digits.clone().count(), |out| {
        out.iter_mut().zip(digits).for_each(|(out, digit)| *out = digit);
    });
    BASE64_STANDARD.decode(digits.expose()).map(SecretBytes::from_vec).map_err(|_broken| wrong())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;

    use super::*;

    fn key(seal_fd: u32) -> Key {
        Key { seal_fd: Some(seal_fd), ..Key::default() }
    }

    #[test]
    fn a_code_comes_from_a_file_without_its_line_end_and_a_replaced_one_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("code");
        let bootstrap = Bootstrap { code_file: Some(path.clone()), ..Bootstrap::default() };
        let source = CodeSource::open(&bootstrap).unwrap();
        assert!(!source.is_available());
        std::fs::write(&path, "").unwrap();
        assert!(!source.is_available());
        std::fs::write(&path, "ABCD-EFGH\n").unwrap();
        assert!(source.is_available() && source.read().unwrap().equals(b"ABCD-EFGH"));
        std::fs::write(&path, "SECOND").unwrap();
        assert!(source.read().unwrap().equals(b"SECOND"));
        std::fs::write(&path, vec![b'x'; MAX_SECRET_OCTETS]).unwrap();
        assert!(source.read().is_err());
    }

    #[test]
    fn a_seal_key_comes_from_a_descriptor_raw_or_in_hexadecimal() {
        for (content, fits) in
            [(vec![7; 32], true), (b"07".repeat(32), true), (vec![7; 31], false), (Vec::new(), false)]
        {
            let mut file = tempfile::tempfile().unwrap();
            io::Write::write_all(&mut file, &content).unwrap();
            let number = u32::try_from(file.as_raw_fd()).unwrap();
            match seal_key(&key(number)) {
                Ok(Some(seal)) => assert!(fits && seal.expose() == &[7; 32]),
                other => assert!(!fits, "{other:?}"),
            }
        }
        assert!(seal_key(&Key::default()).unwrap().is_none());
    }

    #[test]
    fn a_private_key_is_read_from_pem_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "-----BEGIN PRIVATE KEY-----\nAQID\n-----END PRIVATE KEY-----\n").unwrap();
        assert!(private_key_pem(&path, "f").unwrap().equals(&[1, 2, 3]));
        std::fs::write(&path, "-----BEGIN EC PRIVATE KEY-----\nAQID\n-----END EC PRIVATE KEY-----\n").unwrap();
        let refusal = private_key_pem(&path, "bootstrap.idevid_key_file").unwrap_err().to_string();
        assert!(refusal.contains("idevid_key_file") && !refusal.contains("AQID"), "{refusal}");
    }
}
