//! Reading a passphrase or PIN.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use kf_key::SecretBytes;
use zeroize::Zeroize;

use crate::SecretSource;

/// The most octets of a passphrase or PIN.
const MAX_OCTETS: usize = 1024;

/// Why there is no passphrase. Each text names the remedy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error("no terminal to ask on; use a file, a descriptor or a systemd credential")]
    Prompt(#[source] io::Error),
    #[error("the two entries differ")]
    Differ,
    #[error("cannot read {}", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{} has mode {mode:04o}; only its owner may read it: chmod 600", path.display())]
    Permissions { path: PathBuf, mode: u32 },
    #[error("a systemd credential is a file name without a path")]
    CredentialName,
    #[error("CREDENTIALS_DIRECTORY is not set; start the service with LoadCredential= or SetCredentialEncrypted=")]
    NoCredentials,
    #[error("the passphrase is empty or longer than {MAX_OCTETS} octets")]
    Length,
}

/// Reads the secret; `is_new` asks twice at a prompt.
pub(crate) fn read(source: &SecretSource, what: &str, is_new: bool) -> Result<SecretBytes, SourceError> {
    match source {
        SecretSource::Prompt => prompt(what, is_new),
        SecretSource::Descriptor(number) => read_file(Path::new(&format!("/proc/self/fd/{number}")), false),
        SecretSource::File(path) => read_file(path, true),
        SecretSource::Credential(name) => {
            if name.is_empty() || name.contains('/') || name == ".." || name == "." {
                return Err(SourceError::CredentialName);
            }
            let directory = std::env::var_os("CREDENTIALS_DIRECTORY").ok_or(SourceError::NoCredentials)?;
            // systemd guards the directory and sets the modes itself (systemd.exec(5)).
            read_file(&Path::new(&directory).join(name), false)
        }
    }
}

fn prompt(what: &str, is_new: bool) -> Result<SecretBytes, SourceError> {
    let ask = |text: String| {
        rpassword::prompt_password(text)
            .map(|entered| SecretBytes::from_vec(entered.into_bytes()))
            .map_err(SourceError::Prompt)
    };
    let first = ask(format!("{what}: "))?;
    // Exposed to a comparison in constant time.
    if is_new && !ask(format!("{what}, again: "))?.equals(first.expose()) {
        return Err(SourceError::Differ);
    }
    checked(first)
}

fn read_file(path: &Path, is_private: bool) -> Result<SecretBytes, SourceError> {
    let failed = |source| SourceError::Read { path: path.to_owned(), source };
    let mut file = File::open(path).map_err(failed)?;
    if is_private {
        let mode = file.metadata().map_err(failed)?.permissions().mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SourceError::Permissions { path: path.to_owned(), mode });
        }
    }
    // Of fixed size, because a vector that grows leaves copies behind.
    let mut octets = [0; MAX_OCTETS + 2];
    let mut length = 0;
    let outcome = loop {
        match file.read(octets.get_mut(length..).unwrap_or_default()) {
            Ok(0) => break Ok(()),
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(failed(error)),
        }
    };
    let text = octets.get(..length).unwrap_or_default();
    let text = text.strip_suffix(b"\n").map_or(text, |text| text.strip_suffix(b"\r").unwrap_or(text));
    let secret = SecretBytes::fill(text.len(), |out| out.copy_from_slice(text));
    octets.zeroize();
    outcome?;
    checked(secret)
}

fn checked(secret: SecretBytes) -> Result<SecretBytes, SourceError> {
    if secret.is_empty() || secret.len() > MAX_OCTETS { Err(SourceError::Length) } else { Ok(secret) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    fn read_path(path: PathBuf) -> Result<SecretBytes, SourceError> {
        read(&SecretSource::File(path), "test", false)
    }

    #[test]
    fn one_line_end_is_removed_and_nothing_else() {
        for (content, expected) in [
            (b"pin".as_slice(), b"pin".as_slice()),
            (b"pin\n", b"pin"),
            (b"pin\r\n", b"pin"),
            (b" pin \n\n", b" pin \n"),
        ] {
            let (_directory, path) = file(content, 0o600);
            assert!(read_path(path).unwrap().equals(expected));
        }
    }

    #[test]
    fn empty_and_overlong_secrets_are_refused() {
        for content in [b"".as_slice(), b"\n", &[b'x'; MAX_OCTETS + 1], &[b'x'; 5000]] {
            let (_directory, path) = file(content, 0o600);
            assert!(matches!(read_path(path), Err(SourceError::Length)));
        }
        let (_directory, path) = file(&[b'x'; MAX_OCTETS], 0o400);
        assert_eq!(read_path(path).unwrap().len(), MAX_OCTETS);
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        let (_directory, path) = file(b"pin", 0o640);
        assert!(matches!(read_path(path), Err(SourceError::Permissions { mode: 0o640, .. })));
    }

    #[test]
    fn a_credential_is_a_name_and_not_a_path() {
        for name in ["", "..", "../etc/shadow", "/etc/shadow"] {
            let source = SecretSource::Credential(name.to_owned());
            assert!(matches!(read(&source, "test", false), Err(SourceError::CredentialName)), "{name}");
        }
    }
}
