//! Why a figure could not be measured.

/// Why a figure could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// A file, a socket or a process.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A part of Keyfleet or of the yardstick refused.
    #[error("{what}: {why}")]
    Failed {
        /// What was attempted.
        what: &'static str,
        /// What it said.
        why: String,
    },
}

impl BenchError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    pub(crate) fn failed<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Failed { what, why: error.to_string() }
    }
}
