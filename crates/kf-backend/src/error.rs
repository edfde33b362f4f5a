//! Errors, by who must act.

use kf_key::KeyAlgorithm;

/// Why a back end did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// The caller: the back end declared that it cannot.
    #[error("the back end holds no {0} keys; choose an algorithm among its capabilities")]
    Algorithm(KeyAlgorithm),
    /// The caller: the key is in its chip for good and only wraps.
    #[error("the key cannot be replaced, so nothing is derived from it; wrap a replaceable key under it")]
    OnlyWraps,
    /// The caller: the handle belongs to another back end, another key or another algorithm, or was altered.
    #[error("the key handle does not open under this key identifier and root")]
    Handle,
    /// The operator: there is no such key in the token.
    #[error("the token holds no key labelled {label}; restore it or register the key anew")]
    MissingKey {
        /// CKA_LABEL that was looked for.
        label: String,
    },
    /// The operator: the token holds a key of this label already; it is never overwritten.
    #[error("the token holds a key labelled {label} already; it is never overwritten")]
    KeyExists {
        /// CKA_LABEL.
        label: String,
    },
    /// The operator: every slot for a key is taken.
    #[error("the token has room for {keys} keys and holds them; destroy one that is no longer needed")]
    Full {
        /// How many it holds.
        keys: usize,
    },
    /// The operator: the root is not the one of the start. Another token was plugged in.
    #[error("the token's root is another one than at start; plug the right token in")]
    OtherRoot,
    /// The operator: an object in the token lacks a protection that we set when we make one.
    #[error("the token's key {label} is {problem}; it was not made by this program and is refused")]
    WeakObject {
        /// CKA_LABEL.
        label: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The hardware, or the way to it.
    #[error("the token does not answer: {0}")]
    Token(TokenFault),
    /// The cryptographic provider or its random source failed. Opaque on purpose.
    #[error("cryptographic operation failed")]
    Crypto,
    /// A bug of ours.
    #[error("internal error in the key back end ({0}); please report this")]
    Bug(&'static str),
}

/// What a token reported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenFault {
    /// The PKCS#11 module cannot be loaded or initialised.
    #[error("the module cannot be loaded")]
    Module,
    /// No slot holds a token of that label, or more than one does.
    #[error("{found} tokens are labelled {label}; exactly one is needed")]
    Label {
        /// Label from the configuration.
        label: String,
        /// How many tokens carry it.
        found: usize,
    },
    /// The PIN was not accepted. Not retried: tokens lock after a few attempts.
    #[error("the login was refused; it is not tried again, because tokens lock after a few attempts")]
    Login,
    /// The PIN is locked after too many attempts.
    #[error("its PIN is locked; the token's security officer must set a new one")]
    Locked,
    /// The token or the session with it went away.
    #[error("it is gone ({during}); plug it in again or restart what it hangs on")]
    Gone {
        /// What was attempted when it was missed.
        during: String,
    },
    /// The token did not answer in time. What it still does has no effect here.
    #[error("it did not answer within {seconds} s")]
    Late {
        /// How long was waited.
        seconds: u64,
    },
    /// The token was tried a moment ago and did not answer.
    #[error("it did not answer a moment ago and is tried again shortly")]
    Pause,
    /// A return value of the module.
    #[error("{function} failed with {code}")]
    Call {
        /// PKCS#11 function.
        function: String,
        /// Name of the return value.
        code: String,
    },
}
