//! What a device says of its data at rest, once it lies under a new storage key and the old one is destroyed.
//!
//! ```text
//! statement = COSE_Sign1(identity key, [1, device, request, version, records, erasure, at])   external data "keyfleet storage v1"
//! ```
//! The request is the server's: the same statement answers it as often as it is asked.

use kf_key::{DeviceId, UnixMillis};
use minicbor::Decoder;

use crate::codec::{Message, Out, Written, array, decode, items};
use crate::cose::Signed;
use crate::identity::{IdentityKey, PublicKey};
use crate::order::signed_with;
use crate::refusal::{ExchangeError, Refusal};

const STATEMENT: &[u8] = b"keyfleet storage v1";
const VERSION: u8 = 1;

/// What is known of the cells in which the old key lay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyErasure {
    /// The medium remaps addresses: something else is read now.
    Overwritten,
    /// Erased, and not read back.
    Erased,
    /// Erased, and read back as erased.
    ReadBack,
    /// What is left is ciphertext, whose key was erased and read back.
    CryptoErased,
}

impl KeyErasure {
    /// Every one.
    pub const ALL: [Self; 4] = [Self::Overwritten, Self::Erased, Self::ReadBack, Self::CryptoErased];

    /// The name in answers and in the log.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Overwritten => "overwritten",
            Self::Erased => "erased",
            Self::ReadBack => "erased-and-read-back",
            Self::CryptoErased => "crypto-erased",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Overwritten => 1,
            Self::Erased => 2,
            Self::ReadBack => 3,
            Self::CryptoErased => 4,
        }
    }

    fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|erasure| erasure.code() == code)
    }
}

/// A device's statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageReport {
    /// Who says it.
    pub device: DeviceId,
    /// What asked for it.
    pub request: [u8; 16],
    /// The version of the storage key in use.
    pub version: u32,
    /// Records that lie under it.
    pub records: u32,
    /// What the erasure of the version before is worth.
    pub erasure: KeyErasure,
    /// When, by the device's clock; 0 when it has none.
    pub at: UnixMillis,
}

fn malformed(_reason: minicbor::decode::Error) -> Refusal {
    Refusal::Malformed
}

impl StorageReport {
    fn write(&self, out: &mut Out<'_>) -> Written {
        out.array(7)?.u8(VERSION)?.bytes(self.device.as_bytes())?.bytes(&self.request)?;
        out.u32(self.version)?.u32(self.records)?.u8(self.erasure.code())?.u64(self.at.0)?.ok()
    }

    fn read(input: &mut Decoder<'_>) -> Result<Self, Refusal> {
        let items = items(input)?;
        if input.u8().map_err(malformed)? != VERSION {
            return Err(Refusal::Version);
        }
        if items != 7 {
            return Err(Refusal::Malformed);
        }
        Ok(Self {
            device: DeviceId::from_bytes(array(input).map_err(malformed)?),
            request: array(input).map_err(malformed)?,
            version: input.u32().map_err(malformed)?,
            records: input.u32().map_err(malformed)?,
            erasure: KeyErasure::from_code(input.u8().map_err(malformed)?).ok_or(Refusal::Malformed)?,
            at: UnixMillis(input.u64().map_err(malformed)?),
        })
    }

    /// Signs it with the device's identity key.
    ///
    /// # Errors
    /// [`ExchangeError::Holder`] of the identity key.
    pub fn sign<K: IdentityKey>(&self, identity: &K) -> Result<Message, ExchangeError<K::Error>> {
        let payload = Message::encode(|out| self.write(out))?;
        signed_with(STATEMENT, &payload, identity)
    }

    /// What a message claims, to look up the device that must have signed it. Nothing is proved.
    ///
    /// # Errors
    /// Those of reading.
    pub fn claimed(message: &[u8]) -> Result<Self, Refusal> {
        let signed = Signed::read(message)?;
        decode(signed.unverified_payload(), Self::read, Self::write)
    }

    /// The statement, if `identity` signed it.
    ///
    /// # Errors
    /// [`Refusal::Unauthentic`], those of reading.
    pub fn verify(message: &[u8], identity: &PublicKey) -> Result<Self, Refusal> {
        let signed = Signed::read(message)?;
        decode(signed.verify(STATEMENT, identity)?, Self::read, Self::write)
    }
}

#[cfg(test)]
mod tests {
    use kf_key::SecretArray;

    use super::*;
    use crate::P256IdentityKey;
    use crate::order::{OrderAct, OrderOutcome, OrderReport};

    fn key(octet: u8) -> P256IdentityKey {
        P256IdentityKey::from_secret(&SecretArray::fill(|key| key.fill(octet))).unwrap()
    }

    fn report(erasure: KeyErasure) -> StorageReport {
        let (device, at) = (DeviceId::from_bytes([7; 16]), UnixMillis(1_800_000_000_000));
        StorageReport { device, request: [9; 16], version: 2, records: 300, erasure, at }
    }

    #[test]
    fn a_statement_is_read_as_it_was_signed_and_by_nobody_else_and_is_no_answer_to_an_order() {
        for erasure in KeyErasure::ALL {
            let message = report(erasure).sign(&key(1)).unwrap();
            assert_eq!(StorageReport::claimed(message.as_bytes()), Ok(report(erasure)));
            assert_eq!(StorageReport::verify(message.as_bytes(), &key(1).public_key()), Ok(report(erasure)));
            assert!(StorageReport::verify(message.as_bytes(), &key(2).public_key()).is_err());
            assert!(OrderReport::verify(message.as_bytes(), &key(1).public_key()).is_err());
            for place in 0..message.as_bytes().len() {
                let mut changed = message.as_bytes().to_vec();
                changed[place] ^= 1;
                assert!(StorageReport::verify(&changed, &key(1).public_key()).is_err(), "octet {place}");
            }
        }
        let answer = OrderReport {
            act: OrderAct::Rotate,
            device: DeviceId::from_bytes([7; 16]),
            counter: 1,
            outcome: OrderOutcome::Done,
            at: UnixMillis(0),
        };
        let answer = answer.sign(&key(1)).unwrap();
        assert!(StorageReport::verify(answer.as_bytes(), &key(1).public_key()).is_err());
    }
}
