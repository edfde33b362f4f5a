//! Keys that come over an authenticated exchange, as octets that go out and octets that come in.

use core::ffi::c_char;
use core::mem;

use kf_derive::{AeadAlgorithm, SessionKey};
use kf_device::exchange::kf_exchange::{
    AwaitChallenge, AwaitDelivery, AwaitDone, Ephemeral, MAX_MESSAGE_OCTETS, Message, PublicKey, Purpose, Refused,
};
use kf_device::exchange::{FinishError, Kept, begin, keep};
use kf_device::pin::Pin;
use kf_key::KeyRole;

use crate::device::{Device, give_message};
use crate::handle::{self, Held, InHandle};
use crate::pointer;
use crate::status::Status;

/// What a `kf_exchange` holds.
#[derive(Debug)]
pub struct Exchanging {
    purpose: Purpose,
    pin: PublicKey,
    state: State,
}

impl InHandle for Exchanging {
    const MARK: u64 = 0x4b46_4558_4348_414e;
    const WORDS: usize = 96;
}

#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "there is no heap to put one on")]
enum State {
    AwaitChallenge(AwaitChallenge<Ephemeral>),
    AwaitDelivery(AwaitDelivery),
    Kept(Kept),
    AwaitSession(SessionKey, AwaitDone),
    Delivered,
    Session(SessionKey),
    /// It failed after it had changed something: begin another exchange, which delivers the same key.
    Spent,
}

/// A step that did not happen leaves the state as it was, so that whoever can inject messages cannot end an exchange.
fn stay<S>(state: &mut State, refused: Refused<S>, back: impl FnOnce(S) -> State) -> Status {
    *state = back(refused.state);
    refused.error.into()
}

border! {
    /// `kf_exchange_begin` of the header.
    kf_exchange_begin(
        exchange: *mut Held<Exchanging>,
        device: *mut Held<Device>,
        purpose: u8,
        pin: *const [u8; 91],
        message: *mut [u8; MAX_MESSAGE_OCTETS],
        length: *mut usize,
    ) takes {
        out = handle::place(exchange),
        device = handle::get(device),
        pin = pointer::public_key(pin),
        place = pointer::value_mut(message),
        length = pointer::value_mut(length),
    } {
        let purpose = match purpose {
            1 => Purpose::Delivery,
            2 => Purpose::Session,
            _ => return Err(Status::Argument),
        };
        // What was taken up from the key in the firmware takes its place.
        let pin = *Pin::load(&mut device.store, KeyRole::Delivery, pin)?.key();
        let (state, hello) = begin(purpose, &pin, &mut device.source)?;
        give_message(&hello, place, length)?;
        out.put(Exchanging { purpose, pin, state: State::AwaitChallenge(state) })
    }
}

border! {
    /// `kf_exchange_step` of the header.
    kf_exchange_step(
        exchange: *mut Held<Exchanging>,
        device: *mut Held<Device>,
        answer: *const u8,
        answer_length: usize,
        message: *mut [u8; MAX_MESSAGE_OCTETS],
        length: *mut usize,
    ) takes {
        exchange = handle::get(exchange),
        device = handle::get(device),
        answer = pointer::octets(answer, answer_length),
        place = pointer::value_mut(message),
        length = pointer::value_mut(length),
    } {
        *length = 0;
        match exchange.step(&mut device, answer)? {
            Some(message) => give_message(&message, place, length),
            None => Ok(()),
        }
    }
}

impl Exchanging {
    /// Takes an answer, and gives the next message; `None` when the exchange has come to its end.
    fn step(&mut self, device: &mut Device, answer: &[u8]) -> Result<Option<Message>, Status> {
        match mem::replace(&mut self.state, State::Spent) {
            State::AwaitChallenge(state) => self.prove(state, device, answer).map(Some),
            State::AwaitDelivery(state) => match self.purpose {
                Purpose::Delivery => self.keep(state, device, answer).map(Some),
                Purpose::Session => self.open_session(state, device, answer).map(Some),
            },
            State::Kept(kept) => self.finish(kept, device, answer),
            State::AwaitSession(key, done) => match done.finish(answer) {
                Ok(()) => {
                    self.state = State::Session(key);
                    Ok(None)
                }
                Err(refused) => Err(stay(&mut self.state, refused, |done| State::AwaitSession(key, done))),
            },
            ended @ (State::Delivered | State::Session(_)) => {
                self.state = ended;
                Err(Status::State)
            }
            State::Spent => Err(Status::State),
        }
    }

    fn prove(
        &mut self,
        state: AwaitChallenge<Ephemeral>,
        device: &mut Device,
        answer: &[u8],
    ) -> Result<Message, Status> {
        let identity = match device.in_use() {
            Ok(identity) => identity,
            Err(status) => {
                self.state = State::AwaitChallenge(state);
                return Err(status);
            }
        };
        match state.prove(answer, &[self.pin], device.id, identity.key()) {
            Ok((state, proof)) => {
                self.state = State::AwaitDelivery(state);
                Ok(proof)
            }
            Err(refused) => {
                let Refused { state, error } = refused;
                self.state = State::AwaitChallenge(state);
                Err(error.into())
            }
        }
    }

    fn keep(&mut self, state: AwaitDelivery, device: &mut Device, answer: &[u8]) -> Result<Message, Status> {
        let held = match device.held() {
            Ok(held) => Some(held.place()),
            Err(Status::Missing) => None,
            Err(status) => {
                self.state = State::AwaitDelivery(state);
                return Err(status);
            }
        };
        let delivered = match state.open(answer, held.as_ref()) {
            Ok(delivered) => delivered,
            Err(refused) => return Err(stay(&mut self.state, refused, State::AwaitDelivery)),
        };
        let nonce = device.source.nonce()?;
        let (kept, acknowledgement) = keep(delivered, device.id, &mut device.store, &device.chip, nonce)?;
        self.state = State::Kept(kept);
        Ok(acknowledgement)
    }

    fn open_session(&mut self, state: AwaitDelivery, device: &mut Device, answer: &[u8]) -> Result<Message, Status> {
        let held = match device.held() {
            Ok(held) => held,
            Err(status) => {
                self.state = State::AwaitDelivery(state);
                return Err(status);
            }
        };
        match state.open_session(answer, &held.place(), held.key()) {
            Ok((key, done, message)) => {
                self.state = State::AwaitSession(key, done);
                Ok(message)
            }
            Err(refused) => Err(stay(&mut self.state, refused, State::AwaitDelivery)),
        }
    }

    fn finish(&mut self, kept: Kept, device: &mut Device, answer: &[u8]) -> Result<Option<Message>, Status> {
        match kept.finish(answer, &mut device.store, &device.chip) {
            Ok((_held, _erasure)) => {
                self.state = State::Delivered;
                Ok(None)
            }
            Err(FinishError::Refused { kept, refusal }) => {
                self.state = State::Kept(kept);
                Err(refusal.into())
            }
            Err(FinishError::Key(error)) => Err(error.into()),
        }
    }
}

/// An algorithm by its code in the header, which is that of the hierarchy.
#[allow(clippy::as_conversions, reason = "a fieldless enum with explicit codes")]
pub(crate) fn aead(code: u8) -> Result<AeadAlgorithm, Status> {
    let is_meant = |known: &AeadAlgorithm| kf_derive::Algorithm::from(*known) as u8 == code;
    AeadAlgorithm::ALL.into_iter().find(is_meant).ok_or(Status::Argument)
}

/// The key of a service below a session, for the AEAD that the caller has.
pub(crate) fn give_session_key(
    session: &SessionKey,
    service: &str,
    algorithm: u8,
    place: &mut [u8; 32],
    length: &mut usize,
) -> Result<(), Status> {
    let algorithm = aead(algorithm)?;
    let key = session.encryption(service.as_bytes(), algorithm, 0).map_err(|_too_long| Status::Length)?;
    // Exposed to the caller, who asked for it.
    pointer::give(key.expose(), place, length)
}

border! {
    /// `kf_exchange_session_key` of the header.
    kf_exchange_session_key(
        exchange: *mut Held<Exchanging>,
        service: *const c_char,
        algorithm: u8,
        key: *mut [u8; 32],
        length: *mut usize,
    ) takes {
        exchange = handle::get(exchange),
        service = pointer::text(service),
        place = pointer::value_mut(key),
        length = pointer::value_mut(length),
    } {
        let State::Session(session) = &exchange.state else { return Err(Status::State) };
        give_session_key(session, service, algorithm, place, length)
    }
}

/// `kf_exchange_end` of the header.
///
/// # Safety
/// `exchange` is NULL or a handle.
// SAFETY: no other symbol of this name exists: the prefix is ours.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn kf_exchange_end(exchange: *mut Held<Exchanging>) {
    // SAFETY: by the caller's promise.
    unsafe { handle::wipe(exchange) }
}
