//! Errors, by who must act, and what a response code means.

use bitfield::BitRange as _;
use kf_backend::{BackendError, TokenFault};
use tss_esapi::Error;
use tss_esapi::constants::response_code::Tss2ResponseCode;

/// Why a TPM did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The operator: not an address of a TPM.
    #[error("{text:?} is not a TPM's address: write device:/dev/tpmrm0, or swtpm:host=127.0.0.1,port=PORT")]
    Address {
        /// What was given, cut short.
        text: String,
    },
    /// The operator: nothing answers there.
    #[error("no TPM answers at {address} (code {code:#x}): is it enabled, and may this user open it?")]
    Unreachable {
        /// The address.
        address: String,
        /// Of the software stack.
        code: u32,
    },
    /// It went away in the middle of a call.
    #[error("the TPM went away during {call} (code {code:#x}); nothing was released, the next call tries anew")]
    Vanished {
        /// TPM2 command.
        call: &'static str,
        /// Of the software stack.
        code: u32,
    },
    /// It did not answer in time.
    #[error("the TPM did not answer within {millis} ms; nothing was released, a late answer is thrown away")]
    Late {
        /// The longest wait.
        millis: u64,
    },
    /// It still works on a call that was given up, or too many callers wait.
    #[error("the TPM is still busy with an earlier call; try again later")]
    Busy,
    /// Too many wrong authorisations: it refuses until its lockout time is over (TPM 2.0 Part 1 section 19.8).
    #[error("the TPM is locked out after wrong authorisations: wait, or reset the lockout with the lockout password")]
    LockedOut,
    /// The authorisation value is not this object's. Not tried again, because the TPM counts.
    #[error("the TPM refused the authorisation value; it is not tried again, because the TPM locks itself")]
    Authorization,
    /// The platform did not boot what the policy demands.
    #[error("the platform configuration registers are not those that the key is bound to: approve the new boot state")]
    BootState,
    /// An approval of a boot state that the policy authority did not sign.
    #[error("no approval of a boot state is signed by the policy authority")]
    Approval,
    /// The object belongs to another TPM or its owner hierarchy was cleared since.
    #[error("the stored object belongs to another TPM, or this one was cleared")]
    OtherTpm,
    /// The stored object is damaged.
    #[error("the stored object of the TPM is damaged: {0}")]
    Damaged(&'static str),
    /// The TPM lacks something.
    #[error("the TPM holds no {0}")]
    Missing(&'static str),
    /// A credential that is not for this TPM and this key.
    #[error("the credential is not for this TPM and this key")]
    Credential,
    /// Another answer.
    #[error("{call} failed with {code:#x}")]
    Call {
        /// TPM2 command.
        call: &'static str,
        /// TPM or software stack response code.
        code: u32,
    },
    /// A bug of ours.
    #[error("internal error in the TPM back end ({0}); please report this")]
    Bug(&'static str),
}

/// Layer numbers of response codes (TCG TSS 2.0 Overview section 4.1): the TPM itself, the way to it, and the resource
/// manager, which passes the TPM's own codes on.
const LAYER_TCTI: u32 = 10;
const LAYERS_TPM: [u32; 3] = [0, 11, 12];

/// Response codes (TPM 2.0 Part 2 section 6.6). Format one: parameter, handle and session numbers masked out.
mod code {
    pub(super) const LOCKOUT: u32 = 0x921;
    pub(super) const PCR_CHANGED: u32 = 0x128;
    pub(super) const POLICY: u32 = 0x126;
    pub(super) const AUTH_FAIL: u32 = 0x08e;
    pub(super) const BAD_AUTH: u32 = 0x0a2;
    pub(super) const POLICY_FAIL: u32 = 0x09d;
    pub(super) const INTEGRITY: u32 = 0x09f;
}

/// The number behind an error; 0 for one of the binding itself.
pub(crate) fn response_code(error: Error) -> u32 {
    match error {
        Error::WrapperError(_) | Error::Tss2Error(Tss2ResponseCode::Success) => 0,
        Error::Tss2Error(Tss2ResponseCode::FormatZero(code)) => code.bit_range(31, 0),
        Error::Tss2Error(Tss2ResponseCode::FormatOne(code)) => code.bit_range(31, 0),
    }
}

/// The TPM's own code without the numbers that say which parameter; `None` when it did not come from the TPM.
pub(crate) fn tpm_code(number: u32) -> Option<u32> {
    let low = number & 0xfff;
    LAYERS_TPM.contains(&((number >> 16) & 0xff)).then_some(if low & 0x80 == 0 { low } else { low & 0x0bf })
}

impl TpmError {
    /// What a failed `call` means.
    pub(crate) fn of(call: &'static str) -> impl Fn(Error) -> Self {
        move |error| {
            let number = response_code(error);
            match tpm_code(number) {
                None if (number >> 16) & 0xff == LAYER_TCTI => Self::Vanished { call, code: number },
                Some(code::LOCKOUT) => Self::LockedOut,
                Some(code::AUTH_FAIL | code::BAD_AUTH) => Self::Authorization,
                Some(code::POLICY_FAIL | code::PCR_CHANGED | code::POLICY) => Self::BootState,
                Some(code::INTEGRITY) => Self::OtherTpm,
                _ => Self::Call { call, code: number },
            }
        }
    }

    /// Whether the connection is of no more use.
    pub(crate) const fn breaks_connection(&self) -> bool {
        matches!(self, Self::Vanished { .. } | Self::Call { .. } | Self::Bug(_))
    }
}

impl From<TpmError> for BackendError {
    fn from(error: TpmError) -> Self {
        match error {
            TpmError::LockedOut | TpmError::Authorization => Self::Token(TokenFault::Login),
            TpmError::OtherTpm => Self::OtherRoot,
            TpmError::Late { .. } | TpmError::Busy => Self::Token(TokenFault::Pause),
            TpmError::Damaged(_) => Self::Handle,
            TpmError::Bug(what) => Self::Bug(what),
            TpmError::Vanished { call, code } | TpmError::Call { call, code } => {
                Self::Token(TokenFault::Call { function: call.to_owned(), code: format!("{code:#x}") })
            }
            other => Self::Token(TokenFault::Call { function: "TPM".to_owned(), code: other.to_string() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_the_tpm_are_read_through_the_resource_manager_and_without_positions() {
        assert_eq!(tpm_code(0x921), Some(code::LOCKOUT));
        assert_eq!(tpm_code(0x98e), Some(code::AUTH_FAIL));
        assert_eq!(tpm_code(0x9a2), Some(code::BAD_AUTH));
        assert_eq!(tpm_code(0x99d), Some(code::POLICY_FAIL));
        assert_eq!(tpm_code(0x1df), Some(code::INTEGRITY));
        assert_eq!(tpm_code(0x000b_0921), Some(code::LOCKOUT));
        assert_eq!(tpm_code(0x000a_000a), None);
    }
}
