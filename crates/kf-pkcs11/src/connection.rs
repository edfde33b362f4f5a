//! One session with one token, reopened when it vanishes.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error, RvError};
use cryptoki::mechanism::MechanismType;
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use kf_backend::{BackendError, TokenFault};
use kf_key::{KeyAlgorithm, SecretBytes};

use crate::TokenConfig;
use crate::fault::{fault, is_gone};

/// How often a token is looked for before it is called away. While another process logs in, SoftHSM2 writes the token's
/// file; a process that reads it at that moment is told `CKR_GENERAL_ERROR`, or has no such token until it initialises the
/// module again.
const LOOKS: u32 = 4;
/// Between two looks; a login writes the file for far less.
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// The token, and the right to ask it.
pub(crate) struct Connection {
    config: TokenConfig,
    pin: SecretBytes,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    open: Option<Open>,
    /// Counts sessions; object handles of an earlier one are worthless.
    life: u64,
    failed_at: Option<Instant>,
    /// The login was refused or the PIN is locked: not tried again.
    refused: Option<TokenFault>,
}

/// An open, logged-in session. Object handles hold within one `life`.
pub(crate) struct Open {
    pub(crate) session: Session,
    pub(crate) life: u64,
    context: Pkcs11,
    slot: Slot,
}

/// Whether a call may be made twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    Once,
    WhenGone,
}

impl Connection {
    pub(crate) fn open(config: TokenConfig, pin: SecretBytes) -> Result<Self, BackendError> {
        let this = Self { config, pin, state: Mutex::new(State::default()) };
        this.with(Repeat::Once, |_open| Ok(()))?;
        Ok(this)
    }

    pub(crate) fn root_label(&self) -> &str {
        &self.config.root_label
    }

    /// Runs `call` on the session, opening it first when there is none.
    pub(crate) fn with<T>(
        &self,
        repeat: Repeat,
        call: impl Fn(&Open) -> Result<T, CallError>,
    ) -> Result<T, BackendError> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let was_open = state.open.is_some();
        match call(self.session(&mut state)?) {
            // Some modules go on with an empty token when theirs is pulled out. A new session tells.
            Err(CallError::Backend(BackendError::MissingKey { .. })) if was_open && repeat == Repeat::WhenGone => {
                close(&mut state);
            }
            Err(CallError::Token(error)) if is_gone(&error) => {
                close(&mut state);
                // A session that was opened for this very call is as fresh as it can be.
                if repeat == Repeat::Once || !was_open {
                    return Err(fault(&error));
                }
            }
            outcome => return outcome.map_err(CallError::into_backend),
        }
        let outcome = call(self.session(&mut state)?);
        if matches!(&outcome, Err(CallError::Token(error)) if is_gone(error)) {
            close(&mut state);
        }
        outcome.map_err(CallError::into_backend)
    }

    fn session<'a>(&self, state: &'a mut State) -> Result<&'a Open, BackendError> {
        if state.open.is_none() {
            if let Some(refused) = &state.refused {
                return Err(BackendError::Token(refused.clone()));
            }
            let pause: Duration = self.config.reconnect_pause;
            if state.failed_at.is_some_and(|failed| failed.elapsed() < pause) {
                return Err(BackendError::Token(TokenFault::Pause));
            }
            state.life += 1;
            match self.connect(state.life) {
                Ok(open) => {
                    state.failed_at = None;
                    state.open = Some(open);
                }
                Err(error) => {
                    state.failed_at = Some(Instant::now());
                    return Err(self.remember(state, error));
                }
            }
        }
        state.open.as_ref().ok_or(BackendError::Bug("session"))
    }

    /// Keeps what must not be tried again, and calls a token that was there before and is no more what it is: gone.
    fn remember(&self, state: &mut State, error: BackendError) -> BackendError {
        match error {
            BackendError::Token(refused @ (TokenFault::Login | TokenFault::Locked)) => {
                state.refused = Some(refused.clone());
                BackendError::Token(refused)
            }
            BackendError::Token(TokenFault::Label { label, found: 0 }) if state.life > 1 => {
                BackendError::Token(TokenFault::Gone { during: format!("looking for token {label}") })
            }
            other => other,
        }
    }

    /// Initialises the module, finds the token, opens a session and logs in. What fails leaves the module finalised.
    #[allow(clippy::disallowed_methods, reason = "nothing tells when another process has written a token's file")]
    fn connect(&self, life: u64) -> Result<Open, BackendError> {
        for look in 1.. {
            match self.look(life) {
                Err(error) if look < LOOKS && may_be_in_use(&error) => std::thread::sleep(BETWEEN_LOOKS),
                outcome => return outcome.map_err(CallError::into_backend),
            }
        }
        Err(BackendError::Bug("looks for a token"))
    }

    fn look(&self, life: u64) -> Result<Open, CallError> {
        let context = Pkcs11::new(&self.config.module)?;
        match context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
            // Another instance in this process: it would be finalised under our feet.
            Err(Error::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {
                return Err(BackendError::Bug("the PKCS#11 module is in use by this process already").into());
            }
            outcome => outcome?,
        }
        self.log_in(&context, life).inspect_err(|_error| drop(context.finalize()))
    }

    fn log_in(&self, context: &Pkcs11, life: u64) -> Result<Open, CallError> {
        let slot = self.find_token(context)?;
        if context.get_token_info(slot)?.user_pin_locked() {
            return Err(BackendError::Token(TokenFault::Locked).into());
        }
        let session = context.open_rw_session(slot)?;
        // Exposed to the binding, whose copy is wiped on drop.
        let pin =
            core::str::from_utf8(self.pin.expose()).map_err(|_not_text| BackendError::Token(TokenFault::Login))?;
        match session.login(UserType::User, Some(&AuthPin::new(pin.into()))) {
            Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Open { session, life, context: context.clone(), slot })
    }

    fn find_token(&self, context: &Pkcs11) -> Result<Slot, CallError> {
        let slots = context.get_slots_with_initialized_token()?;
        let mut found = slots.into_iter().filter(|slot| {
            context.get_token_info(*slot).is_ok_and(|token| token.label().trim_end() == self.config.token)
        });
        match (found.next(), found.count()) {
            (Some(slot), 0) => Ok(slot),
            (first, others) => Err(CallError::Backend(BackendError::Token(TokenFault::Label {
                label: self.config.token.clone(),
                found: usize::from(first.is_some()) + others,
            }))),
        }
    }

    /// The token's serial number.
    pub(crate) fn serial_number(&self) -> Result<String, BackendError> {
        self.with(Repeat::WhenGone, |open| {
            Ok(open.context.get_token_info(open.slot)?.serial_number().trim_end().to_owned())
        })
    }

    /// Token, model and serial number for people, and the algorithms of key pairs that the token makes.
    pub(crate) fn describe(&self) -> Result<(String, Vec<KeyAlgorithm>), BackendError> {
        self.with(Repeat::WhenGone, |open| {
            let token = open.context.get_token_info(open.slot)?;
            let description = format!(
                "token {} ({} {}, serial number {})",
                token.label().trim_end(),
                token.manufacturer_id().trim_end(),
                token.model().trim_end(),
                token.serial_number().trim_end()
            );
            let mechanisms = open.context.get_mechanism_list(open.slot)?;
            let offers = |needed: [MechanismType; 2]| needed.iter().all(|one| mechanisms.contains(one));
            let mut algorithms = Vec::new();
            if offers([MechanismType::ECC_KEY_PAIR_GEN, MechanismType::ECDSA]) {
                algorithms.extend([KeyAlgorithm::P256, KeyAlgorithm::P384]);
            }
            if offers([MechanismType::ECC_EDWARDS_KEY_PAIR_GEN, MechanismType::EDDSA]) {
                algorithms.push(KeyAlgorithm::Ed25519);
            }
            Ok((description, algorithms))
        })
    }
}

/// Why a call on the session failed.
pub(crate) enum CallError {
    Token(Error),
    Backend(BackendError),
}

impl From<Error> for CallError {
    fn from(error: Error) -> Self {
        Self::Token(error)
    }
}

impl From<BackendError> for CallError {
    fn from(error: BackendError) -> Self {
        Self::Backend(error)
    }
}

impl CallError {
    fn into_backend(self) -> BackendError {
        match self {
            Self::Token(error) => fault(&error),
            Self::Backend(error) => error,
        }
    }
}

/// Whether the token may be there all the same, and in use by another process at that moment. A refused login is never that.
const fn may_be_in_use(error: &CallError) -> bool {
    matches!(
        error,
        CallError::Token(Error::Pkcs11(RvError::GeneralError, _))
            | CallError::Backend(BackendError::Token(TokenFault::Label { found: 0, .. }))
    )
}

/// Gives the session and the module up. Errors say that they are gone, which is what is wanted.
fn close(state: &mut State) {
    if let Some(Open { session, context, .. }) = state.open.take() {
        drop(session.close());
        drop(context.finalize());
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        close(self.state.get_mut().unwrap_or_else(PoisonError::into_inner));
    }
}
