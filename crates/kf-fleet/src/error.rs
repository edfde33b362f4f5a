//! Errors of the use cases, grouped by who must act.

use kf_access::Denied;
use kf_signer::SignerError;
use kf_store::StoreError;

/// Why a use case did not happen. Nothing was written unless the variant says otherwise.
///
/// Exhaustive on purpose: a surface must decide what each variant becomes, and the compiler must notice when it has not.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The caller's input is wrong: which field, what is wrong, what to do.
    #[error("{field}: {problem}")]
    Invalid {
        /// Field of the request.
        field: String,
        /// What is wrong with it.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// The caller did not prove who they are, and could.
    #[error("authentication is missing or not accepted")]
    Unauthenticated,
    /// The caller may not do this.
    #[error(transparent)]
    Denied(Denied),
    /// No credential would help: a rule forbids it until somebody with the right to change that acts.
    #[error("{field}: {problem}")]
    Forbidden {
        /// What the rule is about.
        field: String,
        /// What it forbids.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// It does not exist, or the caller may not know that it does.
    #[error("there is no {0} here")]
    NotFound(&'static str),
    /// The act contradicts the state of the registry.
    #[error("{field}: {problem}")]
    Conflict {
        /// Field of the request.
        field: String,
        /// What it contradicts.
        problem: String,
        /// What to do about it.
        remedy: String,
    },
    /// Too many attempts.
    #[error("too many attempts")]
    TooMany {
        /// Seconds to wait.
        retry_after_seconds: u32,
    },
    /// Issuance is switched off.
    #[error("issuance is stopped: {0}")]
    IssuanceStopped(String),
    /// The store has no room: reads and revocation go on.
    #[error("the store is full; reads and revocation go on, issuance does not")]
    StoreFull,
    /// The database is older than what the witness saw.
    #[error("the server is fenced: {0}")]
    Fenced(String),
    /// The signer does not answer, or refused.
    #[error("the signer is not available")]
    Signer(#[source] SignerError),
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// A file or address on this machine could not be used.
    #[error("{path}: {problem}")]
    Local {
        /// Which.
        path: String,
        /// Why not.
        problem: String,
    },
    /// A bug of ours.
    #[error("internal error ({0}); please report this")]
    Bug(&'static str),
}

impl FleetError {
    /// A refusal of one field.
    pub(crate) fn invalid(field: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into(), remedy: remedy.into() }
    }

    /// Whether the rules refuse it, so that the same again would be refused again; the rest is the state of the machine.
    pub(crate) const fn is_refusal(&self) -> bool {
        match self {
            Self::Invalid { .. }
            | Self::Denied(_)
            | Self::Forbidden { .. }
            | Self::NotFound(_)
            | Self::Conflict { .. } => true,
            Self::Unauthenticated
            | Self::TooMany { .. }
            | Self::IssuanceStopped(_)
            | Self::StoreFull
            | Self::Fenced(_)
            | Self::Signer(_)
            | Self::Store(_)
            | Self::Local { .. }
            | Self::Bug(_) => false,
        }
    }

    /// A contradiction with the registry.
    pub(crate) fn conflict(field: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Conflict { field: field.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

impl From<Denied> for FleetError {
    fn from(denied: Denied) -> Self {
        if denied.may_know { Self::Denied(denied) } else { Self::NotFound("such thing") }
    }
}

impl From<SignerError> for FleetError {
    fn from(error: SignerError) -> Self {
        match error {
            SignerError::UsedUp { key } => Self::conflict(
                "key",
                format!("{key} has signed as often as the policy allows, and signs nothing new"),
                "make its successor: `keyfleet authority succeed` for a CA, `keyfleet rotate --class CLASS --now` for another \
                 key of the server; `keyfleet inventory` shows its class and uses",
            ),
            other => Self::Signer(other),
        }
    }
}

impl From<kf_crypto::CryptoError> for FleetError {
    fn from(_: kf_crypto::CryptoError) -> Self {
        Self::Bug("random source")
    }
}
