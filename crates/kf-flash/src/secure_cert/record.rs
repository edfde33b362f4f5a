//! One record.

use core::fmt;

/// The type of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordType {
    /// 0: the certificate of an authority, DER, or PEM with a closing NUL.
    CaCertificate,
    /// 1: the certificate of the device, DER, or PEM with a closing NUL.
    DeviceCertificate,
    /// 2: the private key of the device, or a reference to it: see [`KeyProtection`].
    PrivateKey,
    /// 3: the encrypted RSA operands of the digital signature peripheral.
    DsData,
    /// 4: the eFuse block and RSA length of the digital signature peripheral.
    DsContext,
    /// 5: the salt of a key derived from an eFuse key.
    EcdsaKeySalt,
    /// 6: the eFuse block of the private key, 40 octets.
    SecurityConfig,
    /// 7: the key of a trusted environment's storage.
    TeeStorageKey,
    /// 8: a signature over the partition.
    SignatureBlock,
    /// 9: the SHA-256 of all records before it.
    Integrity,
    /// 51 to 55 for users, 201 and 202 for Matter, and whatever else is found.
    Other(u8),
}

/// How a private key is kept: the flags of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyProtection {
    /// 00: as it is.
    Clear,
    /// Bits 7..6 = 10: AES-256-GCM under key and IV that the HMAC peripheral derives.
    HmacEncrypted,
    /// Bits 7..6 = 01: no key stored; PBKDF2 with the HMAC peripheral over the salt makes it.
    HmacDerived,
    /// Bits 5..3 = 001: no key stored; it is in an eFuse block of the ECDSA peripheral.
    EcdsaPeripheral,
    /// Any other combination.
    Unknown,
}

/// A record whose CRC is right. Its value can be a secret, so it is not printed.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    /// Where it begins in the partition.
    pub offset: usize,
    /// Its type.
    pub record_type: RecordType,
    /// From 0 to 16: several records of one type.
    pub index: u8,
    /// How its value is kept.
    pub protection: KeyProtection,
    /// Its value; of an encrypted record, ciphertext and tag.
    pub value: &'a [u8],
    /// All of its octets.
    pub octets: &'a [u8],
}

impl RecordType {
    /// The number of the format.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::CaCertificate => 0,
            Self::DeviceCertificate => 1,
            Self::PrivateKey => 2,
            Self::DsData => 3,
            Self::DsContext => 4,
            Self::EcdsaKeySalt => 5,
            Self::SecurityConfig => 6,
            Self::TeeStorageKey => 7,
            Self::SignatureBlock => 8,
            Self::Integrity => 9,
            Self::Other(number) => number,
        }
    }

    /// The type of this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Self {
        match number {
            0 => Self::CaCertificate,
            1 => Self::DeviceCertificate,
            2 => Self::PrivateKey,
            3 => Self::DsData,
            4 => Self::DsContext,
            5 => Self::EcdsaKeySalt,
            6 => Self::SecurityConfig,
            7 => Self::TeeStorageKey,
            8 => Self::SignatureBlock,
            9 => Self::Integrity,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for RecordType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CaCertificate => f.write_str("ca_certificate"),
            Self::DeviceCertificate => f.write_str("device_certificate"),
            Self::PrivateKey => f.write_str("private_key"),
            Self::DsData => f.write_str("ds_data"),
            Self::DsContext => f.write_str("ds_context"),
            Self::EcdsaKeySalt => f.write_str("ecdsa_key_salt"),
            Self::SecurityConfig => f.write_str("security_config"),
            Self::TeeStorageKey => f.write_str("tee_storage_key"),
            Self::SignatureBlock => f.write_str("signature_block"),
            Self::Integrity => f.write_str("integrity"),
            Self::Other(number) => write!(f, "{number}"),
        }
    }
}

impl KeyProtection {
    pub(super) const fn flags(self) -> u8 {
        match self {
            Self::Clear | Self::Unknown => 0,
            Self::HmacEncrypted => 0x80,
            Self::HmacDerived => 0x40,
            Self::EcdsaPeripheral => 0x08,
        }
    }

    pub(super) const fn from_flags(flags: u8) -> Self {
        match flags {
            0 => Self::Clear,
            0x80 => Self::HmacEncrypted,
            0x40 => Self::HmacDerived,
            0x08 => Self::EcdsaPeripheral,
            _ => Self::Unknown,
        }
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { offset, record_type, index, protection, value, octets: _ } = self;
        write!(f, "{record_type} {index} at {offset:#x}, {protection:?}, {} octets", value.len())
    }
}
