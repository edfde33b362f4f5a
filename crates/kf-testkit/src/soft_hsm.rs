//! A PKCS#11 token in a scratch directory: SoftHSM2 with its own configuration file and its own objects.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Tool, scratch};

const MODULES: [&str; 3] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
];

/// A token that nobody else uses; gone when dropped.
#[derive(Debug)]
pub struct SoftHsm {
    directory: TempDir,
}

impl SoftHsm {
    /// Label of the token.
    pub const LABEL: &'static str = "keyfleet-test";
    /// Its user PIN. A scratch token guards nothing, so that this one may be known.
    pub const PIN: &'static str = "13572468";
    /// Its security officer's PIN.
    pub const SO_PIN: &'static str = "24681357";
    /// The variable that names the configuration file: set it for child processes only.
    pub const VARIABLE: &'static str = "SOFTHSM2_CONF";

    /// Makes a configuration in a scratch directory and initialises a token.
    ///
    /// # Panics
    /// When SoftHSM2 is not installed or refuses.
    #[must_use]
    pub fn new() -> Self {
        let directory = scratch();
        let tokens = directory.path().join("tokens");
        std::fs::create_dir(&tokens).unwrap_or_else(|error| panic!("{}: {error}", tokens.display()));
        let this = Self { directory };
        let text = format!(
            "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n",
            tokens.display()
        );
        std::fs::write(this.configuration(), text).unwrap_or_else(|error| panic!("softhsm2.conf: {error}"));
        let arguments =
            ["--init-token", "--free", "--label", Self::LABEL, "--pin", Self::PIN, "--so-pin", Self::SO_PIN];
        let output = this.tool("softhsm2-util").run(&arguments);
        assert!(output.success(), "softhsm2-util --init-token: {}", output.text());
        this
    }

    /// The configuration file, the value of [`SoftHsm::VARIABLE`].
    #[must_use]
    pub fn configuration(&self) -> PathBuf {
        self.directory.path().join("softhsm2.conf")
    }

    /// Where the objects are: move it away to make the token vanish.
    #[must_use]
    pub fn token_directory(&self) -> PathBuf {
        self.directory.path().join("tokens")
    }

    /// The PKCS#11 module.
    ///
    /// # Panics
    /// When it is not installed.
    #[must_use]
    pub fn module() -> &'static Path {
        MODULES
            .iter()
            .map(Path::new)
            .find(|path| path.is_file())
            .unwrap_or_else(|| panic!("libsofthsm2.so is not installed: apt-get install libsofthsm2"))
    }

    /// A program that sees this token.
    ///
    /// # Panics
    /// As [`Tool::new`].
    #[must_use]
    pub fn tool(&self, program: &str) -> Tool {
        Tool::new(program).env(Self::VARIABLE, self.configuration())
    }
}

impl Default for SoftHsm {
    fn default() -> Self {
        Self::new()
    }
}
