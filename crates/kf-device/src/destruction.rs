//! Destroying keys, and what that is worth.
//!
//! Overwriting flash memory proves nothing: below an address there may be cells that keep the old content. What is
//! reported is therefore what was done, and on which medium ([`Erasure`]):
//!
//! | Report | Means |
//! |---|---|
//! | `Erased { read_back: true }` | the store's old bank was erased and every octet read back as erased, on a medium that says that erasing reaches the cells ([`Medium::Raw`](crate::storage::Medium::Raw)) |
//! | `Overwritten` | the same was done, on a medium that remaps addresses: copies may remain in cells that no address leads to |
//! | `CryptoErased` | what remains anywhere is ciphertext, and the key that it was wrapped under was revoked by the chip and does not unwrap any more |
//!
//! Copies in RAM: secrets are wiped when dropped, but stack frames of a cryptographic library are not; a firmware calls
//! [`kf_key::wipe_stack`] between acts. Not covered: registers, and whoever read the memory before.

use crate::entropy::Nonce;
use crate::identity::Slot;
use crate::record;
use crate::storage::{Erasure, Flash, Integrity, StorageError, Store};
use crate::wrap::{WrapError, WrapKey, Wrapped};
use kf_key::SecretArray;

/// What to destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The device key in use and one that has arrived.
    DeviceKeys,
    /// The ratchet.
    Ratchet,
    /// Key and certificate of one identity slot.
    Identity(Slot),
    /// The storage key, and one that is being left: what lies under them opens no more.
    StorageKey,
}

/// Destroys one thing in the store: its record is removed, what is alive moves to the other bank, the old bank is erased
/// and read back.
///
/// # Errors
/// Of the store.
pub fn destroy<F: Flash, I: Integrity>(
    store: &mut Store<F, I>,
    target: Target,
) -> Result<Erasure, StorageError<F::Error>> {
    match target {
        Target::DeviceKeys => store.destroy(&[record::DEVICE_KEY, record::NEXT_DEVICE_KEY]),
        Target::Ratchet => store.destroy(&[record::RATCHET]),
        Target::Identity(slot) => {
            let [key, certificate] = slot.records();
            store.destroy(&[key, certificate])
        }
        Target::StorageKey => store.destroy(&[record::STORAGE_KEY, record::STORAGE_KEY_LEFT, record::STORAGE_MIGRATED]),
    }
}

/// A chip whose wrapping key can be ended: a key slot that can be cleared, or one whose use depends on a monotonic
/// counter. An eFuse key cannot.
pub trait RevocableKey: WrapKey {
    /// Ends the wrapping key for good.
    ///
    /// # Errors
    /// Of the chip.
    fn revoke(&mut self) -> Result<(), Self::Error>;
}

/// Why the wrapping key is not known to be gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevokeError<W> {
    /// The chip refused.
    Wrap(WrapError<W>),
    /// It said that the key is gone, and still unwrapped what was wrapped before.
    StillUnwraps,
}

impl<W> core::fmt::Display for RevokeError<W> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Wrap(_) => "the chip did not revoke the wrapping key",
            Self::StillUnwraps => "the chip still unwraps with a key that it has revoked",
        })
    }
}

impl<W: core::fmt::Debug> core::error::Error for RevokeError<W> {}

/// Ends the wrapping key, which ends every key that was ever wrapped under it, in whatever cell it lies; and looks: what
/// was wrapped before must not unwrap after.
///
/// # Errors
/// [`RevokeError`].
pub fn crypto_erase<W: RevocableKey>(mut wrap: W, nonce: Nonce) -> Result<Erasure, RevokeError<W::Error>> {
    let probe = SecretArray::fill(|octets| octets.fill(0xa5));
    let context = Wrapped::PROBE;
    let wrapped = wrap.wrap(context, nonce, &probe).map_err(RevokeError::Wrap)?;
    wrap.unwrap(context, &wrapped).map_err(RevokeError::Wrap)?;
    wrap.revoke().map_err(|error| RevokeError::Wrap(WrapError::Holder(error)))?;
    match wrap.unwrap(context, &wrapped) {
        Ok(_) => Err(RevokeError::StillUnwraps),
        Err(_) => Ok(Erasure::CryptoErased),
    }
}
