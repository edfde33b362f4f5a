//! What a chip is configured to be, before its configuration is locked for good.

use core::fmt;

use crate::config::{ConfigZone, KeyConfig, KeyType, ReadAccess, Slot, SlotConfig, WriteAccess};

/// The first slot of an identity key, made on the line and locked: the IDevID key.
pub const IDENTITY: Slot = Slot::of(0);
/// A key for ECDH.
pub const AGREEMENT: Slot = Slot::of(1);
/// Keys that are replaced: LDevID keys, or whatever a back end generates.
pub const GENERATED: [Slot; 3] = [Slot::of(2), Slot::of(3), Slot::of(4)];
/// The device root key: HMAC only.
pub const ROOT: Slot = Slot::of(5);
/// The key under which other keys are written encrypted.
pub const TRANSPORT: Slot = Slot::of(6);
/// An AES-128 key.
pub const AES: Slot = Slot::of(7);
/// A certificate, whole.
pub const CERTIFICATE: Slot = Slot::of(8);
/// Where a certificate goes on that is longer than its slot.
pub const CERTIFICATE_REST: [Slot; 4] = [Slot::of(9), Slot::of(10), Slot::of(11), Slot::of(15)];
/// A certificate in compressed form; or the third part of one that is whole.
pub const COMPRESSED_CERTIFICATE: Slot = Slot::of(10);
/// Whose key is in the slot of [`GENERATED`] at the same place.
pub const LABELS: [Slot; 3] = [Slot::of(12), Slot::of(13), Slot::of(14)];

/// The AES_Enable octet and its neighbours cannot be written: what a layout sets begins here.
const FIRST: usize = 16;
const I2C_ADDRESS: usize = 16;
const CHIP_OPTIONS: usize = 90;

/// The 112 octets from octet 16 on that a layout gives to the configuration zone, without counters and locks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    i2c_address: u8,
    chip_options: u16,
    slots: [(SlotConfig, KeyConfig); 16],
}

impl fmt::Debug for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.slots.iter().map(|(slot, key)| (slot.bits(), key.bits()))).finish()
    }
}

/// What is wrong with a layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unsound {
    /// A private key without IsSecret, or with a write access that lets one be put in from outside.
    PrivateKey(Slot),
    /// A key for SHA-256 or AES that can be read or written in the clear.
    ReadableKey(Slot),
    /// Writing or reading is encrypted under a slot that is no secret key.
    ProtectingKey(Slot),
    /// A reserved key type.
    KeyType(Slot),
    /// An address that no chip answers.
    Address,
}

impl fmt::Display for Unsound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PrivateKey(slot) => write!(f, "{slot}: a private key must be secret and made in the chip"),
            Self::ReadableKey(slot) => write!(f, "{slot}: a key must be neither read nor written in the clear"),
            Self::ProtectingKey(slot) => write!(f, "{slot} is protected by a slot that holds no secret key"),
            Self::KeyType(slot) => write!(f, "{slot}: a reserved key type"),
            Self::Address => f.write_str("the I2C address must be 0x08 to 0x77"),
        }
    }
}

impl core::error::Error for Unsound {}

const fn private(read_key: u16, may_generate: bool, key: u16) -> (SlotConfig, KeyConfig) {
    let write = if may_generate { 0x2000 } else { 0x8000 };
    (SlotConfig::from_bits(0x0080 | read_key | write), KeyConfig::from_bits(key))
}

const fn bits(slot: u16, key: u16) -> (SlotConfig, KeyConfig) {
    (SlotConfig::from_bits(slot), KeyConfig::from_bits(key))
}

/// Readable, writable, lockable.
const DATA: (SlotConfig, KeyConfig) = bits(0x0000, 0x003c);
/// Not used: not read, not written, no key for anything.
const UNUSED: (SlotConfig, KeyConfig) = bits(0x8080, 0x0010);
/// Private, public half shown, P-256.
const P256: u16 = 0x0013;
const LOCKABLE: u16 = 0x0020;

impl Layout {
    /// What we recommend: an identity key that is locked on the line, keys that are replaced, a root key for HMAC that is
    /// written encrypted or locked, certificates in the clear.
    #[must_use]
    pub const fn keyfleet() -> Self {
        Self {
            i2c_address: 0x60,
            chip_options: 0,
            slots: [
                private(0x1, true, P256 | LOCKABLE),
                private(0x4, true, P256),
                private(0x1, true, P256),
                private(0x1, true, P256),
                private(0x1, true, P256),
                // Secret; written under slot 6; SHA key; lockable.
                bits(0x468f, 0x003c),
                // Secret; never written once the data zone is locked.
                bits(0x808f, 0x001c),
                // Secret; written under slot 6; AES key; lockable.
                bits(0x468f, 0x0038),
                DATA,
                DATA,
                DATA,
                DATA,
                DATA,
                DATA,
                DATA,
                DATA,
            ],
        }
    }

    /// The policies of the maker's Trust&GO for TLS, as its public data sheet describes them: a permanent identity key in
    /// slot 0, three keys that are replaced, certificates that are read. Such chips come locked; this is to know and to
    /// emulate them. Their slot 6 and 9 are written in the clear, so [`Layout::check`] does not pass them as our own.
    #[must_use]
    pub const fn trust_and_go() -> Self {
        let replaced = private(0x5, true, P256 | LOCKABLE);
        let certificate = bits(0x8f0f, 0x001c);
        Self {
            i2c_address: 0x35,
            chip_options: 0,
            slots: [
                private(0x5, false, P256),
                private(0x2, false, P256),
                replaced,
                replaced,
                replaced,
                UNUSED,
                bits(0x0f8f, 0x003c),
                UNUSED,
                bits(0x0f0f, 0x003c),
                bits(0x0f8f, 0x0018),
                certificate,
                bits(0x8f0f, 0x0010),
                certificate,
                UNUSED,
                UNUSED,
                UNUSED,
            ],
        }
    }

    /// The same with another seven-bit I2C address.
    #[must_use]
    pub const fn with_address(self, i2c_address: u8) -> Self {
        Self { i2c_address, ..self }
    }

    /// The same with another policy for one slot.
    #[must_use]
    pub fn with_slot(mut self, slot: Slot, policy: SlotConfig, key: KeyConfig) -> Self {
        self.slots.iter_mut().skip(slot.index()).take(1).for_each(|place| *place = (policy, key));
        self
    }

    /// Its seven-bit I2C address.
    #[must_use]
    pub const fn address(&self) -> u8 {
        self.i2c_address
    }

    fn policy(&self, slot: Slot) -> (SlotConfig, KeyConfig) {
        self.slots.get(slot.index()).copied().unwrap_or(UNUSED)
    }

    /// Whether a chip may be locked with it: keys stay inside, and what protects them is a key.
    ///
    /// # Errors
    /// What is unsound, at the first such slot.
    pub fn check(&self) -> Result<(), Unsound> {
        if !(0x08..=0x77).contains(&self.i2c_address) {
            return Err(Unsound::Address);
        }
        Slot::ALL.into_iter().try_for_each(|slot| self.check_slot(slot))
    }

    fn check_slot(&self, slot: Slot) -> Result<(), Unsound> {
        let (policy, key) = self.policy(slot);
        let is_sound = |holds: bool, otherwise| if holds { Ok(()) } else { Err(otherwise) };
        for protecting in [write_key(policy), read_key(policy)].into_iter().flatten() {
            let (other, other_key) = self.policy(protecting);
            let is_key = other.is_secret()
                && !other_key.is_private()
                && other.read() == ReadAccess::Never
                && matches!(other.write(), WriteAccess::Never | WriteAccess::Encrypted { .. });
            is_sound(is_key && protecting != slot, Unsound::ProtectingKey(slot))?;
        }
        is_sound(key.key_type() != KeyType::Reserved, Unsound::KeyType(slot))?;
        if key.is_private() {
            let is_born_inside = policy.is_secret() && policy.write() == WriteAccess::Never;
            return is_sound(is_born_inside && key.key_type() == KeyType::P256, Unsound::PrivateKey(slot));
        }
        let is_key = policy.is_secret() || key.key_type() == KeyType::Aes;
        let stays_inside = policy.is_secret()
            && policy.read() != ReadAccess::Clear
            && !matches!(policy.write(), WriteAccess::Always | WriteAccess::PublicKeyInvalid);
        is_sound(!is_key || stays_inside, Unsound::ReadableKey(slot))
    }

    /// The configuration zone of `chip` with this layout: what belongs to the chip itself (serial number, counters, locks)
    /// stays.
    #[must_use]
    pub fn applied_to(&self, chip: &ConfigZone) -> ConfigZone {
        let mut octets = *chip.as_bytes();
        let mut put = |index: usize, value: &[u8]| {
            octets.iter_mut().skip(index).zip(value).for_each(|(place, octet)| *place = *octet);
        };
        put(I2C_ADDRESS, &[self.i2c_address << 1, 0, 0, 0]);
        for (index, (policy, key)) in self.slots.iter().enumerate() {
            put(20 + index * 2, &policy.bits().to_le_bytes());
            put(96 + index * 2, &key.bits().to_le_bytes());
        }
        // UseLock, VolatileKeyPermission, SecureBoot, KdfIv and what is reserved: off.
        put(68, &[0; 16]);
        put(CHIP_OPTIONS, &self.chip_options.to_le_bytes());
        // X509format: no restriction.
        put(92, &[0; 4]);
        ConfigZone::from_bytes(octets)
    }

    /// Whether the chip is configured so.
    #[must_use]
    pub fn is_of(&self, chip: &ConfigZone) -> bool {
        self.applied_to(chip) == *chip
    }

    /// The words (index, four octets) that must be written to a chip, in order. Octets 0 to 15 and 84 to 87 are not the
    /// Write command's.
    pub(crate) fn words(&self, chip: &ConfigZone) -> impl Iterator<Item = (u8, [u8; 4])> + use<> {
        let (wanted, found) = (*self.applied_to(chip).as_bytes(), *chip.as_bytes());
        let differing = move |index: usize| {
            let wanted = wanted.get(index..index.saturating_add(4)).and_then(|word| <[u8; 4]>::try_from(word).ok())?;
            let is_different = found.get(index..index.saturating_add(4)) != Some(wanted.as_slice());
            let word = u8::try_from(index / 4).ok()?;
            is_different.then_some((word, wanted))
        };
        (FIRST..crate::config::ZONE_OCTETS).step_by(4).filter(|index| *index != 84).filter_map(differing)
    }
}

const fn write_key(policy: SlotConfig) -> Option<Slot> {
    match policy.write() {
        WriteAccess::Encrypted { key } => Some(key),
        _ => None,
    }
}

const fn read_key(policy: SlotConfig) -> Option<Slot> {
    match policy.read() {
        ReadAccess::Encrypted { key } => Some(key),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_that_we_recommend_is_sound() {
        Layout::keyfleet().check().unwrap();
    }

    #[test]
    fn a_layout_that_lets_a_key_out_is_refused() {
        let with = |slot, policy, key| {
            let layout = Layout::keyfleet();
            layout.with_slot(slot, SlotConfig::from_bits(policy), KeyConfig::from_bits(key)).check()
        };
        assert_eq!(with(ROOT, 0x460f, 0x003c), Ok(()), "without IsSecret it is data, encrypted in writing");
        assert_eq!(with(ROOT, 0x068f, 0x003c), Err(Unsound::ReadableKey(ROOT)), "written in the clear");
        assert_eq!(with(AES, 0x460f, 0x0038), Err(Unsound::ReadableKey(AES)), "an AES key that is read");
        assert_eq!(with(IDENTITY, 0x2001, 0x0033), Err(Unsound::PrivateKey(IDENTITY)), "not secret");
        assert_eq!(with(IDENTITY, 0x4681, 0x0033), Err(Unsound::PrivateKey(IDENTITY)), "put in from outside");
        assert_eq!(with(IDENTITY, 0x2081, 0x003f), Err(Unsound::PrivateKey(IDENTITY)), "not on the curve");
        assert_eq!(with(ROOT, 0x488f, 0x003c), Err(Unsound::ProtectingKey(ROOT)), "under slot 8, which is read");
        assert_eq!(with(ROOT, 0x458f, 0x003c), Err(Unsound::ProtectingKey(ROOT)), "under itself");
        assert_eq!(with(ROOT, 0x468f, 0x0034), Err(Unsound::KeyType(ROOT)), "a reserved type");
        assert_eq!(Layout::keyfleet().with_address(0).check(), Err(Unsound::Address));
        assert_eq!(Layout::trust_and_go().check(), Err(Unsound::ReadableKey(Slot::of(6))));
    }

    #[test]
    fn a_layout_leaves_alone_what_belongs_to_the_chip() {
        let chip = ConfigZone::from_bytes(core::array::from_fn(|index| u8::try_from(index).unwrap()));
        let applied = Layout::keyfleet().applied_to(&chip);
        for index in (0..16).chain(52..68).chain(84..90) {
            assert_eq!(applied.as_bytes()[index], chip.as_bytes()[index], "octet {index}");
        }
        assert!(Layout::keyfleet().is_of(&applied));
        assert_eq!(Layout::keyfleet().words(&applied).count(), 0);
        assert!(Layout::keyfleet().words(&chip).all(|(word, _)| word != 21 && word >= 4));
    }
}
