//! What a module's error means.

use cryptoki::error::{Error, RvError};
use kf_backend::{BackendError, TokenFault};

/// Whether the token or the session may be gone, so that starting anew can help. Object handles belong to it: they
/// die with the session that found them.
pub(crate) const fn is_gone(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::DeviceRemoved
                | RvError::DeviceError
                | RvError::DeviceMemory
                | RvError::TokenNotPresent
                | RvError::TokenNotRecognized
                | RvError::SlotIdInvalid
                | RvError::SessionHandleInvalid
                | RvError::SessionClosed
                | RvError::UserNotLoggedIn
                | RvError::ObjectHandleInvalid
                | RvError::KeyHandleInvalid
                | RvError::CryptokiNotInitialized
                | RvError::GeneralError
                | RvError::FunctionFailed,
            _
        )
    )
}

/// Whether the token itself, or the session with it, went away.
const fn is_removed(value: &RvError) -> bool {
    matches!(
        value,
        RvError::DeviceRemoved
            | RvError::TokenNotPresent
            | RvError::TokenNotRecognized
            | RvError::SlotIdInvalid
            | RvError::SessionHandleInvalid
            | RvError::SessionClosed
            | RvError::CryptokiNotInitialized
    )
}

/// Whether a login was refused. It must not be tried again: tokens lock after a few attempts.
pub(crate) const fn is_login_refused(error: &Error) -> bool {
    matches!(
        error,
        Error::Pkcs11(
            RvError::PinIncorrect
                | RvError::PinInvalid
                | RvError::PinLenRange
                | RvError::PinExpired
                | RvError::PinLocked
                | RvError::UserPinNotInitialized,
            _
        )
    )
}

/// The error for the layers above: function and name of the return value, no text of the module.
pub(crate) fn fault(error: &Error) -> BackendError {
    let fault = match error {
        Error::LibraryLoading(_) | Error::MissingSymbol(_) => TokenFault::Module,
        Error::Pkcs11(RvError::PinLocked, _) => TokenFault::Locked,
        refused if is_login_refused(refused) => TokenFault::Login,
        Error::Pkcs11(value, function) if is_removed(value) => {
            TokenFault::Gone { during: format!("C_{function:?}: {value:?}") }
        }
        Error::Pkcs11(value, function) => {
            TokenFault::Call { function: format!("C_{function:?}"), code: format!("{value:?}") }
        }
        other => TokenFault::Call { function: "the module's binding".to_owned(), code: format!("{other:?}") },
    };
    BackendError::Token(fault)
}

#[cfg(test)]
mod tests {
    use cryptoki::context::Function;

    use super::*;

    fn of(value: RvError) -> TokenFault {
        match fault(&Error::Pkcs11(value, Function::Sign)) {
            BackendError::Token(fault) => fault,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_token_that_is_locked_gone_or_broken_is_told_apart() {
        assert_eq!(of(RvError::PinLocked), TokenFault::Locked);
        for refused in [RvError::PinIncorrect, RvError::PinExpired, RvError::UserPinNotInitialized] {
            assert_eq!(of(refused), TokenFault::Login);
        }
        for removed in [RvError::DeviceRemoved, RvError::TokenNotPresent, RvError::SessionClosed] {
            let name = format!("C_Sign: {removed:?}");
            assert_eq!(of(removed), TokenFault::Gone { during: name });
        }
        let broken = TokenFault::Call { function: "C_Sign".to_owned(), code: "DeviceError".to_owned() };
        assert_eq!(of(RvError::DeviceError), broken);
    }

    #[test]
    fn whatever_says_that_the_token_is_gone_lets_the_session_be_opened_anew() {
        for value in [RvError::DeviceRemoved, RvError::TokenNotPresent, RvError::SlotIdInvalid, RvError::SessionClosed]
        {
            assert!(is_removed(&value) && is_gone(&Error::Pkcs11(value, Function::Sign)));
        }
    }
}
