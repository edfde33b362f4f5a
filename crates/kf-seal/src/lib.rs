//! Sealed payloads: what a device and the server send each other across a broker that nobody trusts.
//!
//! A sealed payload is one COSE_Encrypt0 (RFC 9052 section 5.2) of a fixed shape, in deterministic CBOR
//! (RFC 8949 section 4.2.1):
//!
//! ```text
//! 16([ << {1: alg, 4: kid, 10: kid context} >>, {5: IV}, ciphertext with its tag ])
//!
//! kid         = version 1 | device 16 | facility epoch 4 | device epoch 4 | sender 1 | service 1..16    (big endian)
//!               with version 2 the mixed session, 16 octets, stands between the epochs and the sender
//! kid context = boot number 4 | boot random 16
//! IV          = the first octets of the boot random | counter 4
//! ```
//!
//! `kid` names the place of the application key in the hierarchy, `kid context` (RFC 8613 section 5.1) the *boot* below
//! it: 128 fresh random bits that the sealing key is derived from. A counter that starts at zero below such a key cannot
//! repeat a nonce, whatever storage does: after a power loss, in a restored snapshot, in a clone, the next boot draws
//! other bits. The *boot number* is a persistent counter of the sender. It keeps no nonce apart; it lets a receiver that
//! remembers few boots refuse every older one ([`Replay`]).
//!
//! What sealing does not do: it gives no forward secrecy (whoever has the application key opens what was recorded), it
//! does not hide who sends how much to which service, and it does not stop a broker from delaying or dropping. Two copies
//! of a *running* process, forked from the memory of one, share a boot and a counter: start a new boot after a live fork.
//!
//! No allocator is used. Nothing here draws random octets or reads a clock.
//!
//! ```
//! # use kf_derive::{DeviceKey, Sender, SoftwareKey};
//! # use kf_key::{DeviceId, SecretArray, UnixMillis};
//! # use kf_seal::*;
//! # let device_key = DeviceKey::from_keyed_hmac(SoftwareKey::new(SecretArray::fill(|key| key.fill(7))));
//! # let (fresh_random, device) = ([0x5a, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], DeviceId::from_bytes([1; 16]));
//! let application = device_key.session(SESSION, 0)?.application(b"telemetry", 0)?;
//! let key_id = KeyId {
//!     device, facility_epoch: 1, device_epoch: 1, session: None, sender: Sender::Device, service: Service::new("telemetry")?,
//! };
//!
//! // The device: one boot, one sealer, many payloads.
//! let mut sealer = Sealer::new(&application, key_id, Boot::new(1, fresh_random)?, SealAlgorithm::Aes128Ccm)?;
//! let mut buffer = [0; 256];
//! let envelope = sealer.seal(b"21.5 C", b"", &mut buffer)?;
//!
//! // The server: parse, find the key, open, and let nothing out before the replay window has taken note.
//! let sealed = Sealed::parse(envelope)?;
//! let mut opener = Opener::new(&application, &key_id, &sealed)?;
//! let mut plaintext = [0; 256];
//! let authentic = opener.open(&sealed, b"", &mut plaintext)?;
//! let mut replay = Replay::<8>::new();
//! let accepted = replay.accept(authentic.mark())?;
//! assert_eq!(authentic.release(&accepted)?, b"21.5 C");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod algorithm;
mod boot;
mod cbor;
mod cipher;
mod envelope;
mod key_id;
mod opener;
mod replay;
mod sealer;

pub use algorithm::SealAlgorithm;
pub use boot::{Boot, BootId, StuckRandom};
pub use envelope::{ParseError, Sealed};
pub use key_id::{KEY_ID_MAX_OCTETS, KeyId, Mismatch, Service, ServiceError};
pub use opener::{Authentic, FAILURES_PER_OPENER, OpenError, Opener};
pub use replay::{Accepted, CorruptReplay, Mark, NotAccepted, Replay, ReplayError, WINDOW_COUNTERS};
pub use sealer::{MESSAGES_PER_BOOT, SealError, Sealer};

/// The session of the device key below which payloads are sealed; its epoch is 0. A static place: key separation, not
/// forward secrecy.
pub const SESSION: &[u8] = b"sealed";

/// The most octets of a plaintext: 1,024 blocks, what a TLS record holds, and the length that the usage limit was
/// computed for ([`MESSAGES_PER_BOOT`]).
pub const MAX_PLAINTEXT_OCTETS: usize = 1 << 14;

/// The most octets of external additional data, such as a topic.
pub const MAX_EXTERNAL_AAD_OCTETS: usize = 256;

/// The most octets by which an envelope is longer than its plaintext; 94 and the length of the service's label with
/// AES-CCM and a plaintext of 256 octets or more, and 16 more in a mixed session.
pub const MAX_OVERHEAD_OCTETS: usize = 126;

/// The most octets of an envelope.
pub const MAX_ENVELOPE_OCTETS: usize = MAX_PLAINTEXT_OCTETS + MAX_OVERHEAD_OCTETS;

#[cfg(not(any(feature = "aes-128-ccm", feature = "aes-128-gcm", feature = "chacha20-poly1305")))]
compile_error!("choose an algorithm: feature aes-128-ccm, aes-128-gcm or chacha20-poly1305");

#[cfg(test)]
extern crate std;

#[cfg(test)]
mod tests;
