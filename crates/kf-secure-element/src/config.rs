//! The configuration zone as types.

use core::fmt;

/// Octets of the zone.
pub const ZONE_OCTETS: usize = 128;

const SLOT_CONFIG: usize = 20;
const CHIP_MODE: usize = 19;
const AES_ENABLE: usize = 13;
const LOCK_DATA: usize = 86;
const LOCK_CONFIG: usize = 87;
const SLOT_LOCKED: usize = 88;
const CHIP_OPTIONS: usize = 90;
const KEY_CONFIG: usize = 96;

const UNLOCKED: u8 = 0x55;

/// One of the sixteen slots of the data zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot(u8);

impl Slot {
    /// All of them.
    pub const ALL: [Self; 16] = {
        let mut all = [Self(0); 16];
        let mut number = 0;
        let mut rest: &mut [Self] = &mut all;
        while let Some((slot, more)) = rest.split_first_mut() {
            *slot = Self(number);
            number += 1;
            rest = more;
        }
        all
    };

    /// Slot `number`; `None` above 15.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number < 16 { Some(Self(number)) } else { None }
    }

    /// For layouts, at compile time.
    pub(crate) const fn of(number: u8) -> Self {
        Self(number & 15)
    }

    /// 0 to 15.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    pub(crate) fn index(self) -> usize {
        usize::from(self.0)
    }

    /// Octets that it holds.
    #[must_use]
    pub const fn octets(self) -> usize {
        match self.0 {
            0..=7 => 36,
            8 => 416,
            _ => 72,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "slot {}", self.0)
    }
}

/// What the Write command may do to a slot (the four WriteConfig bits).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteAccess {
    /// In the clear, always.
    Always,
    /// In the clear, while the public key in it is not valid. Not used by us.
    PublicKeyInvalid,
    /// Never after the data zone was locked.
    Never,
    /// Encrypted and authenticated under the key of another slot.
    Encrypted {
        /// WriteKey.
        key: Slot,
    },
}

/// What the Read command may do to a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadAccess {
    /// In the clear.
    Clear,
    /// Encrypted under the key of another slot.
    Encrypted {
        /// ReadKey.
        key: Slot,
    },
    /// Never.
    Never,
}

/// SlotConfig of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlotConfig(u16);

impl SlotConfig {
    /// Of its two octets, little endian.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Bit 0 of ReadKey of a private key: it signs what is handed over.
    #[must_use]
    pub const fn signs(self) -> bool {
        self.0 & 0x0001 != 0
    }

    /// Bit 2 of ReadKey of a private key, and bit 3 clear: ECDH, with the secret in the answer.
    #[must_use]
    pub const fn agrees(self) -> bool {
        self.0 & 0x000c == 0x0004
    }

    /// LimitedUse: each use counts on counter 0.
    #[must_use]
    pub const fn is_limited(self) -> bool {
        self.0 & 0x0020 != 0
    }

    /// IsSecret.
    #[must_use]
    pub const fn is_secret(self) -> bool {
        self.0 & 0x0080 != 0
    }

    /// Bit 1 of WriteConfig of a private key: GenKey may make a new one.
    #[must_use]
    pub const fn may_generate(self) -> bool {
        self.0 & 0x2000 != 0
    }

    /// The Read command.
    #[must_use]
    pub const fn read(self) -> ReadAccess {
        match (self.0 & 0x0080 != 0, self.0 & 0x0040 != 0) {
            (false, false) => ReadAccess::Clear,
            (true, true) => ReadAccess::Encrypted { key: nibble(self.0, 0) },
            _ => ReadAccess::Never,
        }
    }

    /// The Write command.
    #[must_use]
    pub const fn write(self) -> WriteAccess {
        match (self.0 >> 12) & 15 {
            0 => WriteAccess::Always,
            1 => WriteAccess::PublicKeyInvalid,
            bits if bits & 0b0100 != 0 => WriteAccess::Encrypted { key: nibble(self.0, 8) },
            _ => WriteAccess::Never,
        }
    }
}

const fn nibble(bits: u16, shift: u32) -> Slot {
    let [low, _] = ((bits >> shift) & 15).to_le_bytes();
    Slot::of(low)
}

/// What kind of key a slot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyType {
    /// On the curve P-256.
    P256,
    /// AES-128.
    Aes,
    /// A key for SHA-256 or HMAC, or plain data.
    ShaOrData,
    /// A value that is reserved.
    Reserved,
}

/// KeyConfig of one slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyConfig(u16);

impl KeyConfig {
    /// Of its two octets, little endian.
    #[must_use]
    pub const fn from_bits(bits: u16) -> Self {
        Self(bits)
    }

    /// Its bits.
    #[must_use]
    pub const fn bits(self) -> u16 {
        self.0
    }

    /// Private: an ECC private key.
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.0 & 0x0001 != 0
    }

    /// PubInfo of a private key: its public half may be computed.
    #[must_use]
    pub const fn shows_public_key(self) -> bool {
        self.0 & 0x0002 != 0
    }

    /// KeyType.
    #[must_use]
    pub const fn key_type(self) -> KeyType {
        match (self.0 >> 2) & 7 {
            4 => KeyType::P256,
            6 => KeyType::Aes,
            7 => KeyType::ShaOrData,
            _ => KeyType::Reserved,
        }
    }

    /// Lockable: the slot can be locked on its own.
    #[must_use]
    pub const fn is_lockable(self) -> bool {
        self.0 & 0x0020 != 0
    }

    /// ReqRandom: a nonce of the chip must be part of what is done with the key.
    #[must_use]
    pub const fn needs_random(self) -> bool {
        self.0 & 0x0040 != 0
    }

    /// ReqAuth: another key must have been proven before.
    #[must_use]
    pub const fn needs_authorization(self) -> bool {
        self.0 & 0x0080 != 0
    }
}

/// Whether keys that KDF derives may be put out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutputProtection {
    /// In the clear.
    Clear,
    /// Only encrypted under the IO protection key, or not at all.
    Protected,
}

/// The configuration zone as it was read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct ConfigZone([u8; ZONE_OCTETS]);

impl fmt::Debug for ConfigZone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigZone")
            .field("serial_number", &self.serial_number())
            .field("is_config_locked", &self.is_config_locked())
            .field("is_data_locked", &self.is_data_locked())
            .finish_non_exhaustive()
    }
}

/// Nine octets that no other chip has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SerialNumber([u8; 9]);

impl SerialNumber {
    /// The octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 9] {
        &self.0
    }

    /// Reads eighteen hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim().as_bytes();
        // A sign is none of the digits, though the standard library reads it.
        if digits.len() != 18 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        let mut octets = [0; 9];
        for (place, pair) in octets.iter_mut().zip(digits.chunks(2)) {
            *place = u8::from_str_radix(core::str::from_utf8(pair).ok()?, 16).ok()?;
        }
        Some(Self(octets))
    }
}

impl fmt::Display for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for SerialNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SerialNumber({self})")
    }
}

impl ConfigZone {
    /// Of its octets.
    #[must_use]
    pub const fn from_bytes(octets: [u8; ZONE_OCTETS]) -> Self {
        Self(octets)
    }

    /// Its octets.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ZONE_OCTETS] {
        &self.0
    }

    fn octet(&self, index: usize) -> u8 {
        self.0.get(index).copied().unwrap_or_default()
    }

    fn pair(&self, index: usize) -> u16 {
        u16::from_le_bytes([self.octet(index), self.octet(index.saturating_add(1))])
    }

    /// The chip's serial number: octets 0 to 3 and 8 to 12.
    #[must_use]
    pub fn serial_number(&self) -> SerialNumber {
        let mut octets = [0; 9];
        let parts = self.0.iter().take(4).chain(self.0.iter().skip(8).take(5));
        octets.iter_mut().zip(parts).for_each(|(place, octet)| *place = *octet);
        SerialNumber(octets)
    }

    /// Whether the configuration cannot be changed any more.
    #[must_use]
    pub fn is_config_locked(&self) -> bool {
        self.octet(LOCK_CONFIG) != UNLOCKED
    }

    /// Whether slots are used by their policies, and no longer written in the clear whatever these say.
    #[must_use]
    pub fn is_data_locked(&self) -> bool {
        self.octet(LOCK_DATA) != UNLOCKED
    }

    /// Whether nothing can ever be written to the slot again, nor a key be made in it.
    #[must_use]
    pub fn is_slot_locked(&self, slot: Slot) -> bool {
        (self.pair(SLOT_LOCKED) >> slot.number()) & 1 == 0
    }

    /// SlotConfig of a slot.
    #[must_use]
    pub fn slot_config(&self, slot: Slot) -> SlotConfig {
        SlotConfig(self.pair(SLOT_CONFIG.saturating_add(slot.index() * 2)))
    }

    /// KeyConfig of a slot.
    #[must_use]
    pub fn key_config(&self, slot: Slot) -> KeyConfig {
        KeyConfig(self.pair(KEY_CONFIG.saturating_add(slot.index() * 2)))
    }

    /// Whether the AES command is enabled.
    #[must_use]
    pub fn has_aes(&self) -> bool {
        self.octet(AES_ENABLE) & 1 != 0
    }

    /// Whether the clock is divided, which makes commands up to ten times as slow.
    #[must_use]
    pub fn has_slow_clock(&self) -> bool {
        self.octet(CHIP_MODE) >> 3 != 0
    }

    /// Whether KDF may put out what it derives (ChipOptions bits 10 and 11).
    #[must_use]
    pub fn kdf_output(&self) -> OutputProtection {
        protection(self.pair(CHIP_OPTIONS) >> 10)
    }

    /// Whether ECDH may put out the shared secret (ChipOptions bits 8 and 9).
    #[must_use]
    pub fn ecdh_output(&self) -> OutputProtection {
        protection(self.pair(CHIP_OPTIONS) >> 8)
    }
}

const fn protection(bits: u16) -> OutputProtection {
    if bits & 3 == 0 { OutputProtection::Clear } else { OutputProtection::Protected }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bits_of_a_slot_mean_what_the_data_sheet_says() {
        let identity = SlotConfig::from_bits(0x2081);
        assert!(identity.signs() && !identity.agrees() && identity.is_secret() && identity.may_generate());
        assert_eq!((identity.read(), identity.write()), (ReadAccess::Never, WriteAccess::Never));
        let key = SlotConfig::from_bits(0x46c6);
        assert_eq!(key.read(), ReadAccess::Encrypted { key: Slot::of(6) });
        assert_eq!(key.write(), WriteAccess::Encrypted { key: Slot::of(6) });
        let data = SlotConfig::from_bits(0);
        assert_eq!((data.read(), data.write()), (ReadAccess::Clear, WriteAccess::Always));
        assert_eq!(SlotConfig::from_bits(0x8000).write(), WriteAccess::Never);
        // A master secret that is written to the neighbouring slot does not come out.
        assert!(!SlotConfig::from_bits(0x000c).agrees());
    }

    #[test]
    fn a_serial_number_is_read_as_it_is_written() {
        let serial = SerialNumber([1, 0x23, 0xa0, 4, 5, 6, 7, 8, 0xee]);
        let mut text = text_of(&serial);
        assert_eq!(SerialNumber::parse(&text), Some(serial));
        text.pop();
        assert_eq!(SerialNumber::parse(&text), None);
        assert_eq!(SerialNumber::parse("0123a00405060708eg"), None);
        assert_eq!(SerialNumber::parse("+123a0040506070812"), None);
    }

    fn text_of(serial: &SerialNumber) -> std::string::String {
        std::format!("{serial}")
    }

    #[test]
    fn every_slot_is_there_once() {
        assert_eq!(Slot::ALL.map(Slot::number), core::array::from_fn(|index| u8::try_from(index).unwrap()));
        assert_eq!(Slot::ALL.iter().map(|slot| slot.octets()).sum::<usize>(), 1208);
        assert_eq!(Slot::new(16), None);
    }
}
