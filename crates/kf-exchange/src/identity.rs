//! Keys of the two sides. Private ones stand behind small traits, so that a secure element, a TPM or a token can hold them.

use core::convert::Infallible;
use core::fmt;

use kf_key::SecretArray;
use p256::ecdsa::signature::hazmat::PrehashSigner;
use p256::ecdsa::signature::{Signer, Verifier};
use p256::ecdsa::{Signature, SigningKey, VerifyingKey};
use p256::elliptic_curve::sec1::ToSec1Point;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::refusal::Refusal;

/// SubjectPublicKeyInfo of an uncompressed point of P-256 (RFC 5480), without the point.
const SPKI_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A public key on P-256; there is no value that is not a point of the curve.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PublicKey(p256::PublicKey);

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PublicKey(")?;
        self.to_sec1().iter().try_for_each(|octet| write!(f, "{octet:02x}"))?;
        f.write_str(")")
    }
}

impl PublicKey {
    /// Reads an uncompressed point: 65 octets, the first one `04` (SEC 1 section 2.3.4).
    ///
    /// # Errors
    /// [`Refusal::PublicKey`].
    pub fn from_sec1(octets: &[u8; 65]) -> Result<Self, Refusal> {
        if octets.first() != Some(&4) {
            return Err(Refusal::PublicKey);
        }
        p256::PublicKey::from_sec1_bytes(octets).map(Self).map_err(|_not_a_point| Refusal::PublicKey)
    }

    /// Reads a SubjectPublicKeyInfo, DER.
    ///
    /// # Errors
    /// [`Refusal::PublicKey`] for another algorithm, curve or encoding.
    pub fn from_spki(der: &[u8]) -> Result<Self, Refusal> {
        let point = der.strip_prefix(SPKI_PREFIX.as_slice()).and_then(|point| point.try_into().ok());
        point.ok_or(Refusal::PublicKey).and_then(Self::from_sec1)
    }

    /// The uncompressed point.
    #[must_use]
    pub fn to_sec1(&self) -> [u8; 65] {
        let point = self.0.to_sec1_point(false);
        let mut octets = [0; 65];
        for (octet, value) in octets.iter_mut().zip(point.as_bytes()) {
            *octet = *value;
        }
        octets
    }

    /// The SubjectPublicKeyInfo, DER.
    #[must_use]
    pub fn to_spki(&self) -> [u8; 91] {
        let mut octets = [0; 91];
        for (octet, value) in octets.iter_mut().zip(SPKI_PREFIX.iter().chain(&self.to_sec1())) {
            *octet = *value;
        }
        octets
    }

    /// SHA-256 of the SubjectPublicKeyInfo: what names the key in messages and in the registry.
    #[must_use]
    pub fn spki_sha256(&self) -> [u8; 32] {
        Sha256::new().chain_update(SPKI_PREFIX).chain_update(self.to_sec1()).finalize().into()
    }

    /// Whether `signature` (r and s, 32 octets each) is one over `message` by ECDSA with SHA-256.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        VerifyingKey::from(self.0).verify(message, &signature).is_ok()
    }
}

/// A long-lived signature key on P-256: the device's identity key, or the server's delivery or order key.
pub trait IdentityKey {
    /// Why the holder did not answer.
    type Error;

    /// The public half.
    fn public_key(&self) -> PublicKey;

    /// ECDSA over SHA-256 of `message` (at most 384 octets): r and s, 32 octets each.
    ///
    /// # Errors
    /// Whatever the holder reports.
    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Self::Error>;
}

impl<K: IdentityKey + ?Sized> IdentityKey for &K {
    type Error = K::Error;

    fn public_key(&self) -> PublicKey {
        (**self).public_key()
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Self::Error> {
        (**self).sign(message)
    }
}

/// A signature as `Ecdsa-Sig-Value` (RFC 3279 section 2.2.3), which tokens and libraries give, as [`IdentityKey::sign`]
/// returns it.
///
/// # Errors
/// [`Refusal::Malformed`].
pub fn signature_from_der(der: &[u8]) -> Result<[u8; 64], Refusal> {
    Signature::from_der(der).map(|signature| signature.to_bytes().into()).map_err(|_reason| Refusal::Malformed)
}

/// An identity key in this process. Nonces are deterministic (RFC 6979), so signing needs no random source.
pub struct P256IdentityKey(SigningKey);

impl fmt::Debug for P256IdentityKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("P256IdentityKey")
    }
}

impl P256IdentityKey {
    /// From a private scalar, 32 octets.
    ///
    /// # Errors
    /// [`Refusal::DrawAgain`] when they are none.
    pub fn from_secret(secret: &SecretArray<32>) -> Result<Self, Refusal> {
        // Exposed to the curve.
        SigningKey::from_slice(secret.expose()).map(Self).map_err(|_no_scalar| Refusal::DrawAgain)
    }

    /// ECDSA over a SHA-256 digest that the caller has computed, as a TLS library on a microcontroller asks for it: r and
    /// s, 32 octets each. The same signature as [`IdentityKey::sign`] over the message of that digest.
    ///
    /// # Errors
    /// [`Refusal::DrawAgain`], which no digest is known to bring about: the nonce of RFC 6979 would be zero.
    pub fn sign_digest(&self, digest: &[u8; 32]) -> Result<[u8; 64], Refusal> {
        let signature: Result<Signature, _> = self.0.sign_prehash(digest);
        signature.map(|signature| signature.to_bytes().into()).map_err(|_unlikely| Refusal::DrawAgain)
    }
}

impl IdentityKey for P256IdentityKey {
    type Error = Infallible;

    fn public_key(&self) -> PublicKey {
        PublicKey(p256::PublicKey::from(self.0.verifying_key()))
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], Infallible> {
        let signature: Signature = self.0.sign(message);
        Ok(signature.to_bytes().into())
    }
}

/// A fresh key pair for one exchange.
pub trait KeyAgreement {
    /// Why the holder did not answer.
    type Error;

    /// The public half.
    fn public_key(&self) -> PublicKey;

    /// The x-coordinate of the shared point (SP 800-56A section 5.7.1.2).
    ///
    /// # Errors
    /// Whatever the holder reports.
    fn agree(&self, other: &PublicKey) -> Result<SecretArray<32>, Self::Error>;
}

/// An ephemeral key pair in this process.
pub struct Ephemeral(p256::SecretKey);

impl fmt::Debug for Ephemeral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ephemeral")
    }
}

impl Ephemeral {
    /// From 32 fresh, uniformly random octets, used for nothing else.
    ///
    /// # Errors
    /// [`Refusal::DrawAgain`], once in 2^32.
    pub fn from_random(random: SecretArray<32>) -> Result<Self, Refusal> {
        // Exposed to the curve.
        p256::SecretKey::from_slice(random.expose()).map(Self).map_err(|_no_scalar| Refusal::DrawAgain)
    }
}

impl KeyAgreement for Ephemeral {
    type Error = Infallible;

    fn public_key(&self) -> PublicKey {
        PublicKey(self.0.public_key())
    }

    fn agree(&self, other: &PublicKey) -> Result<SecretArray<32>, Infallible> {
        let shared = self.0.diffie_hellman(&other.0);
        Ok(SecretArray::fill(|secret| {
            let mut x = [0; 32];
            for (octet, value) in x.iter_mut().zip(shared.raw_secret_bytes()) {
                *octet = *value;
            }
            secret.copy_from_slice(&x);
            x.zeroize();
        }))
    }
}
