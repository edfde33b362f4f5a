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
        refused if is_login_refused(refused) => TokenFault::Login,
        Error::Pkcs11(value, function) => {
            TokenFault::Call { function: format!("C_{function:?}"), code: format!("{value:?}") }
        }
        other => TokenFault::Call { function: "the module's binding".to_owned(), code: format!("{other:?}") },
    };
    BackendError::Token(fault)
}
