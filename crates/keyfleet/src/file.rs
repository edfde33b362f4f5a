//! Files: read within a limit, written without ever overwriting, private ones for their owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use kf_key::SecretBytes;

use crate::failure::Failure;

/// The most octets of a file that is read whole, imports aside: certificates, requests, profiles, policies.
pub(crate) const MAX_SMALL_OCTETS: u64 = 1024 * 1024;

/// The contents of a small file.
///
/// # Errors
/// [`Failure::File`]; [`Failure::Local`] when it is larger than [`MAX_SMALL_OCTETS`].
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_SMALL_OCTETS + 1).read_to_end(&mut bytes))
        .map_err(|error| Failure::file("read", path, error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_SMALL_OCTETS) {
        return Ok(bytes);
    }
    Err(Failure::local(format!("{} is larger than 1 MiB", path.display()), "check that it is the file you meant"))
}

/// The contents of a small file, or of standard input for `-`.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_or_stdin(path: &Path) -> Result<Vec<u8>, Failure> {
    if path != Path::new("-") {
        return read(path);
    }
    let mut bytes = Vec::new();
    let input = std::io::stdin().lock().take(MAX_SMALL_OCTETS + 1).read_to_end(&mut bytes);
    input.map_err(|error| Failure::file("read", path, error))?;
    if u64::try_from(bytes.len()).is_ok_and(|length| length <= MAX_SMALL_OCTETS) {
        return Ok(bytes);
    }
    Err(Failure::local("standard input is larger than 1 MiB", "check that it is what you meant"))
}

/// The contents of a small text file.
///
/// # Errors
/// As [`read`], and [`Failure::Local`] when it is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String, Failure> {
    String::from_utf8(read(path)?)
        .map_err(|_binary| Failure::local(format!("{} is not text", path.display()), "give a PEM or text file"))
}

/// Whether a file begins with these octets; no more of it is read.
///
/// # Errors
/// [`Failure::File`].
pub(crate) fn begins_with(path: &Path, start: &[u8]) -> Result<bool, Failure> {
    let mut found = vec![0; start.len()];
    match File::open(path).and_then(|mut file| file.read_exact(&mut found)) {
        Ok(()) => Ok(found == start),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Failure::file("read", path, error)),
    }
}

/// The contents of a file that holds a secret: only its owner may be able to read it.
///
/// # Errors
/// As [`read`], and [`Failure::Local`] when others may read it.
pub(crate) fn read_secret(path: &Path) -> Result<SecretBytes, Failure> {
    let metadata = fs::metadata(path).map_err(|error| Failure::file("read", path, error))?;
    if metadata.permissions().mode() & 0o077 != 0 {
        return Err(Failure::local(
            format!("{} holds a secret and others may read it", path.display()),
            format!("chmod 600 {}", path.display()),
        ));
    }
    let file = File::open(path).map_err(|error| Failure::file("read", path, error))?;
    read_in_place(file).map_err(|error| Failure::file("read", path, error))?.ok_or_else(|| {
        Failure::local(format!("{} is larger than 1 MiB", path.display()), "check that it is the file you meant")
    })
}

/// Everything that a reader of secrets has, `None` when that is more than [`MAX_SMALL_OCTETS`]. Into memory that is not moved: a vector that
/// grows leaves copies behind.
fn read_in_place(mut from: impl std::io::Read) -> std::io::Result<Option<SecretBytes>> {
    let most = usize::try_from(MAX_SMALL_OCTETS).unwrap_or(0);
    let mut length = 0;
    let mut outcome = Ok(());
    let place = SecretBytes::fill(most + 1, |place| {
        while let Some(rest) = place.get_mut(length..).filter(|rest| !rest.is_empty()) {
            match from.read(rest) {
                Ok(0) => break,
                Ok(count) => length += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => {
                    outcome = Err(error);
                    break;
                }
            }
        }
    });
    outcome?;
    // Exposed to be kept in its length.
    let read = place.expose().get(..length).filter(|_| length <= most);
    Ok(read.map(|read| SecretBytes::fill(length, |octets| octets.copy_from_slice(read))))
}

/// Writes a new file that everybody may read.
///
/// # Errors
/// [`Failure::File`], also when it exists.
pub(crate) fn write_new(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    write(path, contents, 0o644)
}

/// Writes a new file that only its owner may read.
///
/// # Errors
/// As [`write_new`].
pub(crate) fn write_private(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    write(path, contents, 0o600)
}

fn write(path: &Path, contents: &[u8], mode: u32) -> Result<(), Failure> {
    let refused = |error| Failure::file("write", path, error);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(refused)?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a file would stand in the way of the next try, and be taken for a whole one.
        let _left = fs::remove_file(path);
        refused(error)
    })
}

/// Writes a new private file that is whole or not there, whatever happens in between, and whose name is durable.
///
/// # Errors
/// [`Failure::File`], also when it exists.
pub(crate) fn write_whole(path: &Path, contents: &[u8]) -> Result<(), Failure> {
    let refused = |error| Failure::file("write", path, error);
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    // Private from the start: 0600 is what this makes.
    let mut draft = tempfile::NamedTempFile::new_in(directory).map_err(refused)?;
    draft.write_all(contents).and_then(|()| draft.as_file().sync_all()).map_err(refused)?;
    draft.persist_noclobber(path).map_err(|error| refused(error.error))?;
    sync_directory(directory)
}

/// Makes the names in a directory durable.
///
/// # Errors
/// [`Failure::File`].
pub(crate) fn sync_directory(directory: &Path) -> Result<(), Failure> {
    let sync = File::open(directory).and_then(|directory| directory.sync_all());
    sync.map_err(|error| Failure::file("write", directory, error))
}

/// Refuses to go on when the file that is to be written later exists already, before anything is asked of the server.
///
/// # Errors
/// [`Failure::InTheWay`].
pub(crate) fn must_be_free(path: Option<&Path>) -> Result<(), Failure> {
    match path {
        Some(path) if path.symlink_metadata().is_ok() => Err(Failure::InTheWay {
            problem: format!("{} exists", path.display()),
            remedy: "choose another name; nothing is overwritten".to_owned(),
        }),
        _ => Ok(()),
    }
}

/// Makes a directory, with its parents, that only its owner may enter.
///
/// # Errors
/// [`Failure::File`].
pub(crate) fn private_directory(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|error| Failure::file("create", path, error))
}
