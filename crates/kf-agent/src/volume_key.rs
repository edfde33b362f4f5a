//! The key of an encrypted volume (LUKS), held by the TPM, for gateways without a secure element. It goes to the program
//! that opens the volume through a pipe: never an argument, never a file, never the environment.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use crate::config::Key;
use crate::failure::Failure;

#[cfg(not(feature = "tpm"))]
pub(crate) fn create(_key: &Key, _file: &Path) -> Result<ExitCode, Failure> {
    Err(Failure::NotBuilt { field: "key.kind", value: "tpm", feature: "tpm" })
}

#[cfg(not(feature = "tpm"))]
pub(crate) fn run(_key: &Key, _file: &Path, _command: &[OsString]) -> Result<ExitCode, Failure> {
    Err(Failure::NotBuilt { field: "key.kind", value: "tpm", feature: "tpm" })
}

#[cfg(feature = "tpm")]
pub(crate) use sealed::{create, run};

#[cfg(feature = "tpm")]
mod sealed {
    use std::fs::{File, OpenOptions};
    use std::io::{self, Read as _, Write as _};
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::process::{Command, Stdio};

    use kf_key::SecretBytes;
    use kf_tpm::{Blob, MAX_BLOB_OCTETS};

    use super::{ExitCode, Failure, Key, OsString, Path};
    use crate::key_source::tpm::{Place, fault};

    /// As long as the master key of AES-256-XTS is worth: 256 bits of it unlock the 512 of the volume.
    const KEY_OCTETS: usize = 32;

    pub(crate) fn create(key: &Key, file: &Path) -> Result<ExitCode, Failure> {
        let failed = |source| Failure::State { path: file.to_owned(), source };
        // Made first, so that an existing one is refused before the TPM is asked.
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
        let outcome = sealed_key(key).and_then(|sealed| {
            out.write_all(&sealed).and_then(|()| out.sync_all()).and_then(|()| sync_directory(file)).map_err(failed)
        });
        if outcome.is_err() {
            // Nothing but an empty file is lost.
            drop(std::fs::remove_file(file));
        }
        outcome.map(|()| ExitCode::SUCCESS)
    }

    fn sealed_key(key: &Key) -> Result<Vec<u8>, Failure> {
        let place = Place::open(key)?;
        let mut random = Ok(());
        let secret = SecretBytes::fill(KEY_OCTETS, |out| random = kf_crypto::fill_random(out));
        random.map_err(|_opaque| Failure::Random)?;
        Ok(place.tpm.seal(&secret, &place.protection).map_err(|error| fault(&error))?.to_bytes())
    }

    fn sync_directory(file: &Path) -> io::Result<()> {
        let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or_else(|| Path::new(".")))?.sync_all()
    }

    pub(crate) fn run(key: &Key, file: &Path, command: &[OsString]) -> Result<ExitCode, Failure> {
        let expected = "a program by its absolute path";
        let Some((program, arguments)) = command.split_first().filter(|(program, _)| Path::new(program).is_absolute())
        else {
            return Err(Failure::Content { field: "command", expected });
        };
        let secret = release(key, file)?;
        let failed = |source| Failure::Program { program: program.to_string_lossy().into_owned(), source };
        let mut child = Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().map_err(failed)?;
        if let Some(mut pipe) = child.stdin.take() {
            // Exposed to the program that opens the volume. One that does not read all of it ends with its own error.
            match pipe.write_all(secret.expose()) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
                _ => {}
            }
        }
        let status = child.wait().map_err(failed)?;
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
    }

    fn release(key: &Key, file: &Path) -> Result<SecretBytes, Failure> {
        let failed = |source| Failure::State { path: file.to_owned(), source };
        let most = u64::try_from(MAX_BLOB_OCTETS).unwrap_or_default().saturating_add(1);
        let mut stored = Vec::new();
        File::open(file).and_then(|open| open.take(most).read_to_end(&mut stored)).map_err(failed)?;
        let blob = Blob::from_bytes(&stored).map_err(|error| fault(&error))?;
        let place = Place::open(key)?;
        Ok(place.tpm.unseal(&blob, &place.protection).map_err(|error| fault(&error))?)
    }
}
