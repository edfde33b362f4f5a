//! The transcript hash and the keys made from it.

use kf_derive::{KeyedHmac, SoftwareKey, extract};
use kf_key::SecretArray;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// In front of everything that is hashed, signed or expanded, so that no key serves two protocols or two steps.
const PROTOCOL: &[u8; 20] = b"keyfleet exchange v1";
const LABEL_OCTETS: usize = 16;

/// What a value is for. Padded to one length, so that no label is the beginning of another.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Label([u8; LABEL_OCTETS]);

impl Label {
    pub(crate) const SERVER_SIGNS: Self = Self(*b"server signs....");
    pub(crate) const DEVICE_SIGNS: Self = Self(*b"device signs....");
    pub(crate) const SERVER_MAC: Self = Self(*b"server mac......");
    pub(crate) const DEVICE_MAC: Self = Self(*b"device mac......");
    pub(crate) const DELIVERY: Self = Self(*b"delivery........");
    pub(crate) const MIX: Self = Self(*b"mixed session...");
    pub(crate) const ACKNOWLEDGE: Self = Self(*b"acknowledge.....");
    pub(crate) const DONE: Self = Self(*b"done............");

    /// `protocol || label`, in front of a message under a MAC.
    pub(crate) fn prefix(self) -> [u8; PROTOCOL.len() + LABEL_OCTETS] {
        let mut octets = [0; PROTOCOL.len() + LABEL_OCTETS];
        for (octet, value) in octets.iter_mut().zip(PROTOCOL.iter().chain(&self.0)) {
            *octet = *value;
        }
        octets
    }
}

/// Hash of everything sent so far, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Transcript([u8; 32]);

impl Transcript {
    pub(crate) fn begin() -> Self {
        Self(Sha256::digest(PROTOCOL).into())
    }

    /// The hash so far, then a message behind its length.
    pub(crate) fn then(self, message: &[u8]) -> Self {
        let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
        let hash = Sha256::new().chain_update(self.0).chain_update(length.to_be_bytes()).chain_update(message);
        Self(hash.finalize().into())
    }

    pub(crate) const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// What is signed at this point.
    pub(crate) fn to_be_signed(self, label: Label) -> [u8; 68] {
        let mut octets = [0; 68];
        for (octet, value) in octets.iter_mut().zip(PROTOCOL.iter().chain(&label.0).chain(&self.0)) {
            *octet = *value;
        }
        octets
    }
}

/// `HKDF-Extract(salt = transcript hash, shared secret)`: from here on the keys of this exchange.
pub(crate) struct Schedule(SoftwareKey);

impl Schedule {
    pub(crate) fn new(agreed: Transcript, shared: &SecretArray<32>) -> Self {
        // Exposed to Extract.
        Self(extract(agreed.as_bytes(), shared.expose()))
    }

    /// `HKDF-Expand(prk, protocol || label || transcript hash, 32)`.
    pub(crate) fn expand(&self, label: Label, at: Transcript) -> SoftwareKey {
        let mut info = [0x01; 69];
        for (octet, value) in info.iter_mut().zip(at.to_be_signed(label)) {
            *octet = value;
        }
        SoftwareKey::new(SecretArray::fill(|key| hmac(&self.0, &info, key)))
    }

    /// MAC over the hash of `parts`, each behind its length.
    pub(crate) fn mac(&self, label: Label, at: Transcript, parts: &[&[u8]]) -> [u8; 32] {
        let said = parts.iter().fold(at, |hash, part| hash.then(part));
        let mut tag = [0; 32];
        hmac(&self.expand(label, at), said.as_bytes(), &mut tag);
        tag
    }
}

fn hmac(key: &SoftwareKey, message: &[u8], tag: &mut [u8; 32]) {
    match key.hmac_sha256(message, tag) {
        Ok(()) => {}
        Err(never) => match never {},
    }
}

/// In constant time.
pub(crate) fn equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.ct_eq(b).into()
}
