//! The vocabulary of Keyfleet: identifiers, SP 800-57 key states, algorithms, certificate profiles, revocation
//! reasons, and the types that hold secret bytes.
//!
//! It is `no_std`; an allocator is needed only for the feature `alloc`, which boxes secrets, and for `serde`. It holds no I/O, reads no clock and draws no randomness: whoever needs an identifier or a
//! serial number passes the time and the random octets in.
#![no_std]
#![forbid(unsafe_code)]
#![warn(missing_docs)]

#[cfg(any(feature = "alloc", test))]
extern crate alloc;

mod algorithm;
mod campaign;
mod device;
mod id;
mod profile;
mod revocation;
mod role;
mod secret;
mod serial;
mod stack;
mod state;
mod succession;
mod time;

pub use algorithm::{KeyAlgorithm, UnknownAlgorithm};
pub use campaign::{CampaignState, IllegalCampaignTransition, MemberState};
pub use device::{DeviceState, IllegalDeviceTransition, KeyProtection};
pub use id::{
    AuthorityId, BackupId, BatchId, CampaignId, CodeId, DestructionId, DeviceId, EncryptionKeyId, EnrolmentId,
    FacilityId, FleetId, IncidentId, IntentId, KeyId, OperatorId, OrderId, ParseIdError, ProductLineId, ProposalId,
    TokenId, VendorId,
};
pub use profile::{CertificateProfile, UnknownProfile};
pub use revocation::{CertificateStatus, RevocationReason, UnknownReason};
pub use role::KeyRole;
pub use secret::SecretArray;
#[cfg(feature = "alloc")]
pub use secret::SecretBytes;
pub use serial::{ParseSerialError, SerialNumber};
pub use stack::{wipe_stack, with_wiped_stack};
pub use state::{IllegalTransition, KeyState, KeyType, UnknownKeyState};
pub use succession::{IllegalSuccessionTransition, SuccessionState};
pub use time::UnixMillis;
