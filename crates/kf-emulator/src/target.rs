//! What an image is built for, as its ELF header says, and what runs it.

use std::io::Read as _;
use std::path::{Path, PathBuf};

/// A target that the firmware is built for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// A Cortex-M4 with FPU.
    CortexM4,
}

/// Why an image is for no target.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TargetError {
    #[error("{path} cannot be read; `cargo xtask firmware --build-only` builds the images")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path} is no ELF image for a microcontroller that is known here")]
    Unknown { path: PathBuf },
}

impl Target {
    /// The target of an image.
    ///
    /// # Errors
    /// [`TargetError`].
    pub(crate) fn of(image: &Path) -> Result<Self, TargetError> {
        let mut header = [0; 20];
        let read = std::fs::File::open(image).and_then(|mut file| file.read_exact(&mut header));
        read.map_err(|source| TargetError::Read { path: image.to_owned(), source })?;
        // The magic, 32 bits, little endian; e_machine is at 18.
        match header {
            [0x7f, b'E', b'L', b'F', 1, 1, .., 0x28, 0] => Ok(Self::CortexM4),
            _ => Err(TargetError::Unknown { path: image.to_owned() }),
        }
    }

    /// As Rust names it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::CortexM4 => "thumbv7em-none-eabihf",
        }
    }

    /// Debian's emulator, the package that it is in, and the machine.
    pub(crate) const fn emulator(self) -> (&'static str, &'static str, &'static [&'static str]) {
        match self {
            Self::CortexM4 => ("qemu-system-arm", "qemu-system-arm", &["-machine", "mps2-an386"]),
        }
    }

    /// The program that tells the size of an image, and the Debian package that it is in.
    pub(crate) const fn size(self) -> (&'static str, &'static str) {
        match self {
            Self::CortexM4 => ("arm-none-eabi-size", "binutils-arm-none-eabi"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_says_what_it_is_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let image = folder.path().join("image");
        let with = |class: u8, machine: u8| {
            let mut header = [0; 64];
            header[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', class, 1]);
            header[18] = machine;
            std::fs::write(&image, header).expect("written");
            Target::of(&image)
        };
        assert_eq!(with(1, 0x28).expect("Arm"), Target::CortexM4);
        for (class, machine) in [(2, 0x28), (1, 0x3e)] {
            assert!(matches!(with(class, machine), Err(TargetError::Unknown { .. })), "{class} {machine}");
        }
        std::fs::write(&image, "ELF").expect("written");
        assert!(matches!(Target::of(&image), Err(TargetError::Read { .. })));
    }
}
