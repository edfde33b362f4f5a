//! Errors, by who must act.

use kf_key::KeyId;

/// Why the signer did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerError {
    /// Nobody yet: the process is down or restarting; ask again later. When it cannot restart by itself (the
    /// passphrase came from a prompt) an operator must restart the server.
    #[error("the signer is not available")]
    Unavailable,
    /// The operator, at start: no root, wrong passphrase, unreachable token. The text names the remedy.
    #[error("the signer cannot start: {0}")]
    Start(String),
    /// The caller: the request lies outside what the key may do. Worth an alarm.
    #[error("the signer refused: {0}")]
    Refused(SignerRefusal),
    /// The operator: the key signed more than its ceiling within a minute. Worth an alarm.
    #[error("key {key} reached its ceiling of {per_minute} signatures a minute")]
    Rate {
        /// Key.
        key: KeyId,
        /// Ceiling.
        per_minute: u32,
    },
    /// The operator: the key has signed as often as the policy allows; what it signed stays. Make its successor.
    #[error("key {key} has signed as often as the policy allows")]
    UsedUp {
        /// Key.
        key: KeyId,
    },
    /// The operator: the back end reported a failure.
    #[error("the key back end failed: {0}")]
    Backend(String),
    /// A wrapped value does not open under this root and context. Opaque on purpose.
    #[error("the wrapped value does not open")]
    Wrapped,
    /// A bug of ours.
    #[error("internal error in the signer ({0}); please report this")]
    Bug(String),
}

/// What a key may not do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SignerRefusal {
    /// Never registered, or its handle does not open.
    #[error("key {0} is not registered or its handle does not open under this root")]
    UnknownKey(KeyId),
    /// The key serves another purpose.
    #[error("the key serves another purpose")]
    Purpose,
    /// The back end cannot hold such a key.
    #[error("the back end holds no keys of this algorithm for this purpose")]
    Algorithm,
    /// What was to be signed failed the signer's own check.
    #[error("the signer's own check failed: {0}")]
    Content(String),
    /// The log would go back or fork.
    #[error("the checkpoint goes back or forks: {last} entries were signed before")]
    Checkpoint {
        /// Size of the last checkpoint signed.
        last: u64,
    },
    /// A message of a key exchange does not hold, or its session is over.
    #[error("the exchange is refused: {0}")]
    Exchange(String),
    /// Too many octets.
    #[error("the request is larger than {limit} octets")]
    TooLarge {
        /// Limit.
        limit: usize,
    },
}
