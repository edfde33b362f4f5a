//! Python programs from PyPI that we test against.

use std::path::{Path, PathBuf};

use crate::Tool;

/// An interpreter in which the modules asked for can be imported.
#[derive(Clone, Debug)]
pub struct Python(Tool);

/// `target/venv/bin/python` of this workspace, which `cargo xtask test` makes.
fn virtual_environment() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/venv/bin/python")
}

impl Python {
    /// The interpreter of the workspace's virtual environment, else `python3`, that can import `module`.
    ///
    /// # Panics
    /// When neither can, naming the remedy.
    #[must_use]
    pub fn with_module(module: &str) -> Self {
        let probe = format!("import {module}");
        let venv = virtual_environment();
        if venv.is_file() && Tool::at(&venv).run(&["-c", &probe]).success() {
            return Self(Tool::at(&venv));
        }
        let system = Tool::new("python3");
        assert!(
            system.run(&["-c", &probe]).success(),
            "Python cannot import `{module}`: python3 -m venv target/venv && target/venv/bin/pip install {module}, \
             or cargo xtask test"
        );
        Self(system)
    }

    /// The interpreter, to be run with arguments.
    #[must_use]
    pub const fn tool(&self) -> &Tool {
        &self.0
    }
}
