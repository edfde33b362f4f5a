//! Why a broker did not do what it was asked.

/// A step at a broker that failed; grouped by who must act.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The operator: a setting that cannot work.
    #[error("broker setting `{setting}`: {reason}")]
    Configuration {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it and what to write instead.
        reason: String,
    },
    /// The caller: a device name that the broker cannot carry (empty, over 64 characters, control characters, or one of
    /// the characters `+ # /` that MQTT gives a meaning).
    #[error(
        "a device name of this form cannot be used at the broker: 1 to 64 characters, none of them `+`, `#`, `/` or a control character"
    )]
    DeviceName,
    /// The caller: more CRLs, or larger ones, than a bundle may hold.
    #[error("the CRL bundle exceeds {limit_octets} octets")]
    CrlBundleTooLarge {
        /// The most octets of a bundle.
        limit_octets: usize,
    },
    /// The caller: something that is not a CRL.
    #[error("the CRL of {authority} cannot be read")]
    Crl {
        /// Whose.
        authority: String,
    },
    /// The operator: a file of the broker cannot be written or read.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// The broker process cannot be signalled.
    #[error("the broker process cannot be signalled: is it running, and may this user signal it?")]
    Signal {
        /// Why.
        source: std::io::Error,
    },
    /// The broker cannot be reached.
    #[error("the broker at {address} cannot be reached: {reason}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// What the connection said.
        reason: String,
    },
    /// The broker answered that it will not.
    #[error("the broker refused `{command}`: {reason}")]
    Refused {
        /// The command.
        command: &'static str,
        /// Its words.
        reason: String,
    },
    /// The broker did not answer in time.
    #[error("the broker did not finish `{step}` in time")]
    Timeout {
        /// The step.
        step: &'static str,
    },
    /// This broker, as set up, has no means for that.
    #[error("this broker cannot {what}: {remedy}")]
    Unsupported {
        /// What it cannot do.
        what: &'static str,
        /// What to set up so that it can.
        remedy: &'static str,
    },
}
