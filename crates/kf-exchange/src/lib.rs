//! What passes between a device and the server about keys, without a socket, a clock, a random source or an allocator.
//!
//! * The **exchange**: an authenticated Diffie-Hellman in the manner of SIGMA-I (Krawczyk 2003; the design behind IKE), over
//!   P-256, SHA-256 and AES-128-GCM. Both sides sign the transcript, the device with its identity key and the server with
//!   the *delivery key* that the device has pinned, and prove by a MAC that the identity beside the signature is theirs.
//!   It carries the device key of a new epoch, the first delivery, the claim by another facility, and sessions whose
//!   keys cannot be recomputed from the root.
//! * **Orders** (rotate, wipe) signed by the order key, and the device's signed answer.
//! * The device's signed **statement** that its data at rest lie under a new storage key.
//! * **Successions** of the keys that devices pin: the key before signs the one after.
//!
//! ```text
//! device                                                                                  server
//!   hello     version, suite, purpose, nonce, ephemeral key, which delivery key it knows      ->
//!   <-        challenge   session, ephemeral key, which delivery key, signature, MAC
//!   proof     session, device, identity key, signature, MAC                                  ->
//!   <-        delivery    session, sealed: where the key lies, and the key
//!   acknowledgement   session, device, where the key lies, MAC under the new key             ->
//!   <-        done        session, MAC under the new key
//! ```
//!
//! Every state is a type, spent by the step that leaves it; a message that is refused hands the state back unchanged, so
//! that whoever can inject messages cannot end an exchange. A message has one encoding: what decodes is encoded again
//! and must be the same octets. Whatever goes wrong with a signature, a MAC or the sealed key is one opaque
//! [`Refusal::Unauthentic`].
//!
//! Preconditions: ephemeral secrets and nonces are fresh and uniformly random; a server answers each challenge at most
//! once (it forgets the session when it has sent the delivery); a device acknowledges a key only after it has stored it
//! and read it back. What this is not: protection of the device's identifier against somebody who reads the messages
//! (it stands in every sealed payload anyway), nor against the loss of the delivery key and the root at once.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod acknowledgement;
mod codec;
mod cose;
mod device;
mod identity;
mod message;
pub mod order;
mod place;
mod refusal;
mod server;
pub mod storage;
pub mod succession;
mod transcript;

pub use acknowledgement::{Acknowledgement, AwaitDone};
pub use codec::{MAX_MESSAGE_OCTETS, Message};
pub use device::{AwaitChallenge, AwaitDelivery, Delivered};
pub use identity::{Ephemeral, IdentityKey, KeyAgreement, P256IdentityKey, PublicKey, signature_from_der};
pub use message::{Kind, Purpose, challenged_session, named_key, peek};
pub use place::KeyPlace;
pub use refusal::{ExchangeError, Refusal, Refused};
pub use server::{Authenticated, AwaitProof, ClaimedIdentity};

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;
