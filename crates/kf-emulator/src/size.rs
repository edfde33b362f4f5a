//! How much flash an image takes.

use std::path::Path;
use std::process::Command;

use crate::target::{Target, TargetError};

/// Why a size is not known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SizeError {
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error("cannot start {program}; it is in the Debian package {package}")]
    Start { program: &'static str, package: &'static str, source: std::io::Error },
    #[error("{program} did not understand the image: {said}")]
    Form { program: &'static str, said: String },
}

/// Octets of flash: code, constants and the initial values of data.
///
/// # Errors
/// [`SizeError`].
pub(crate) fn flash_octets(image: &Path) -> Result<u64, SizeError> {
    let (program, package) = Target::of(image)?.size();
    let output =
        Command::new(program).arg(image).output().map_err(|source| SizeError::Start { program, package, source })?;
    let text = String::from_utf8_lossy(&output.stdout);
    let numbers: Vec<u64> = text
        .lines()
        .nth(1)
        .map(|line| line.split_whitespace().take(2).filter_map(|cell| cell.parse().ok()).collect())
        .unwrap_or_default();
    match numbers.as_slice() {
        [code, data] if output.status.success() => Ok(code + data),
        _ => Err(SizeError::Form { program, said: String::from_utf8_lossy(&output.stderr).into_owned() }),
    }
}
