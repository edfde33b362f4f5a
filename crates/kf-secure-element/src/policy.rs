//! What a slot permits, decided from the configuration before anything is sent.

use core::fmt;

use crate::config::{ConfigZone, KeyType, OutputProtection, ReadAccess, Slot, WriteAccess};

/// What is to be done with a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Use {
    /// ECDSA over a digest that is handed over.
    Sign,
    /// ECDH with the shared secret in the answer.
    Agree,
    /// A new private key by GenKey.
    Generate,
    /// The public half of the private key in it.
    PublicKey,
    /// HMAC-SHA-256 by the SHA command.
    Hmac,
    /// HMAC-SHA-256 by the KDF command in HKDF mode.
    Kdf,
    /// AES-128 in ECB mode.
    Aes,
    /// Reading in the clear.
    Read,
    /// Reading encrypted under the key of this slot.
    ReadEncrypted(Slot),
    /// Writing in the clear.
    Write,
    /// Writing encrypted under the key of this slot.
    WriteEncrypted(Slot),
    /// Locking the slot.
    Lock,
}

/// Why a use was refused without asking the chip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// The configuration zone is not locked yet: no randomness, no keys.
    ConfigUnlocked,
    /// The data zone is not locked yet: no key works.
    DataUnlocked,
    /// The zone is locked.
    ZoneLocked,
    /// The slot is locked.
    SlotLocked(Slot),
    /// Another kind of key or data is in the slot.
    Kind(Slot, Use),
    /// SlotConfig or KeyConfig does not permit it.
    NotPermitted(Slot, Use),
    /// The chip's options do not permit the output in the clear.
    OutputProtected,
    /// The AES command is not enabled.
    NoAes,
    /// The slot is used after an authorisation or with a nonce of the chip only, which this driver does not do.
    NeedsAuthorization(Slot),
    /// More octets, or another place, than the slot has.
    Extent(Slot),
    /// The message is too long for the chip.
    Length,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ConfigUnlocked => f.write_str("its configuration is not locked yet; personalize it"),
            Self::DataUnlocked => f.write_str("its data zone is not locked yet; personalize it"),
            Self::ZoneLocked => f.write_str("the zone is locked for good"),
            Self::SlotLocked(slot) => write!(f, "{slot} is locked for good"),
            Self::Kind(slot, wanted) => write!(f, "{slot} holds another kind of key than {wanted:?} needs"),
            Self::NotPermitted(slot, wanted) => write!(f, "{slot} is not configured for {wanted:?}"),
            Self::OutputProtected => f.write_str("its options do not let derived keys out in the clear"),
            Self::NoAes => f.write_str("AES is not enabled in its configuration"),
            Self::NeedsAuthorization(slot) => write!(f, "{slot} asks for an authorisation first"),
            Self::Extent(slot) => write!(f, "{slot} has no such place"),
            Self::Length => f.write_str("the message is too long for it"),
        }
    }
}

impl core::error::Error for Refusal {}

/// Whether the configuration permits a use of a slot now.
///
/// # Errors
/// The [`Refusal`]. What is permitted here the chip can still refuse, for it knows its keys.
pub fn check(zone: &ConfigZone, slot: Slot, wanted: Use) -> Result<(), Refusal> {
    if !zone.is_config_locked() {
        return Err(Refusal::ConfigUnlocked);
    }
    let is_write = matches!(wanted, Use::Generate | Use::Write | Use::WriteEncrypted(_) | Use::Lock);
    if is_write && zone.is_slot_locked(slot) {
        return Err(Refusal::SlotLocked(slot));
    }
    let is_for_open_zone = matches!(wanted, Use::Generate | Use::PublicKey | Use::Write | Use::Lock);
    if !zone.is_data_locked() && !is_for_open_zone {
        return Err(Refusal::DataUnlocked);
    }
    check_authorization(zone, slot, wanted)?;
    match wanted {
        Use::Sign | Use::Agree | Use::Generate | Use::PublicKey => check_private_key(zone, slot, wanted),
        Use::Hmac | Use::Kdf | Use::Aes => check_symmetric_key(zone, slot, wanted),
        Use::Read | Use::ReadEncrypted(_) => check_read(zone, slot, wanted),
        Use::Write | Use::WriteEncrypted(_) => check_write(zone, slot, wanted),
        Use::Lock if zone.key_config(slot).is_lockable() => Ok(()),
        Use::Lock => Err(Refusal::NotPermitted(slot, wanted)),
    }
}

const fn permit(is_permitted: bool, slot: Slot, wanted: Use) -> Result<(), Refusal> {
    if is_permitted { Ok(()) } else { Err(Refusal::NotPermitted(slot, wanted)) }
}

fn check_authorization(zone: &ConfigZone, slot: Slot, wanted: Use) -> Result<(), Refusal> {
    let key = zone.key_config(slot);
    let needs = key.needs_authorization() || (key.needs_random() && wanted == Use::Sign);
    if needs && wanted != Use::Lock { Err(Refusal::NeedsAuthorization(slot)) } else { Ok(()) }
}

fn check_private_key(zone: &ConfigZone, slot: Slot, wanted: Use) -> Result<(), Refusal> {
    let (config, key) = (zone.slot_config(slot), zone.key_config(slot));
    if !key.is_private() || key.key_type() != KeyType::P256 {
        return Err(Refusal::Kind(slot, wanted));
    }
    match wanted {
        Use::Sign => permit(config.signs(), slot, wanted),
        Use::Agree if zone.ecdh_output() == OutputProtection::Protected => Err(Refusal::OutputProtected),
        Use::Agree => permit(config.agrees(), slot, wanted),
        Use::Generate => permit(config.may_generate(), slot, wanted),
        _ => permit(key.shows_public_key(), slot, wanted),
    }
}

fn check_symmetric_key(zone: &ConfigZone, slot: Slot, wanted: Use) -> Result<(), Refusal> {
    let key = zone.key_config(slot);
    let expected = if wanted == Use::Aes { KeyType::Aes } else { KeyType::ShaOrData };
    if key.is_private() || key.key_type() != expected {
        return Err(Refusal::Kind(slot, wanted));
    }
    match wanted {
        Use::Aes if !zone.has_aes() => Err(Refusal::NoAes),
        Use::Kdf if zone.kdf_output() == OutputProtection::Protected => Err(Refusal::OutputProtected),
        // A key that can be read is none.
        _ => permit(zone.slot_config(slot).is_secret(), slot, wanted),
    }
}

fn check_read(zone: &ConfigZone, slot: Slot, wanted: Use) -> Result<(), Refusal> {
    let access = zone.slot_config(slot).read();
    let is_permitted = match wanted {
        Use::ReadEncrypted(key) => access == ReadAccess::Encrypted { key },
        _ => access == ReadAccess::Clear,
    };
    permit(is_permitted && !zone.key_config(slot).is_private(), slot, wanted)
}

fn check_write(zone: &ConfigZone, slot: Slot, wanted: Use) -> Result<(), Refusal> {
    if zone.key_config(slot).is_private() {
        return Err(Refusal::Kind(slot, wanted));
    }
    let access = zone.slot_config(slot).write();
    let is_permitted = match wanted {
        Use::WriteEncrypted(key) => access == WriteAccess::Encrypted { key },
        // Before the data zone is locked everything is written in the clear.
        _ => !zone.is_data_locked() || access == WriteAccess::Always,
    };
    permit(is_permitted, slot, wanted)
}
