//! Python programs from PyPI that we test against.

use std::path::{Path, PathBuf};

use crate::Tool;

/// An interpreter in which the modules asked for can be imported.
#[derive(Clone, Debug)]
pub struct Python(Tool);

/// The interpreter of an environment below `target` of this workspace, which `cargo xtask prerequisites` makes.
fn interpreter(environment: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target").join(environment).join("bin/python")
}

impl Python {
    /// The interpreter of the workspace's environment `target/venv`, else `python3`, that can import `module`.
    ///
    /// # Panics
    /// When neither can, naming the remedy.
    #[must_use]
    pub fn with_module(module: &str) -> Self {
        Self::importing("venv", module)
    }

    /// As [`Python::with_module`], in the environment of Espressif's generators and readers of partition images.
    ///
    /// # Panics
    /// As [`Python::with_module`].
    #[must_use]
    pub fn with_espressif_module(module: &str) -> Self {
        Self::importing("venv-espressif", module)
    }

    /// As [`Python::with_module`], in the environment of esptool, espsecure and espefuse.
    ///
    /// # Panics
    /// As [`Python::with_module`].
    #[must_use]
    pub fn with_esptool_module(module: &str) -> Self {
        Self::importing("venv-esptool", module)
    }

    /// As [`Python::with_module`], in the environment of CycloneDX's own schemas.
    ///
    /// # Panics
    /// As [`Python::with_module`].
    #[must_use]
    pub fn with_cyclonedx_module(module: &str) -> Self {
        Self::importing("venv-cyclonedx", module)
    }

    fn importing(environment: &str, module: &str) -> Self {
        let probe = format!("import {module}");
        let own = interpreter(environment);
        if own.is_file() && Tool::at(&own).run(&["-c", &probe]).success() {
            return Self(Tool::at(&own));
        }
        let system = Tool::new("python3");
        assert!(
            system.run(&["-c", &probe]).success(),
            "Python cannot import `{module}`: cargo xtask prerequisites makes target/{environment}"
        );
        Self(system)
    }

    /// The interpreter, to be run with arguments.
    #[must_use]
    pub const fn tool(&self) -> &Tool {
        &self.0
    }
}
