//! SubjectPublicKeyInfo and AlgorithmIdentifier, as far as they are accepted here.

use const_oid::ObjectIdentifier;
use kf_crypto::{CryptoError, SignatureHash};
use kf_key::KeyAlgorithm;

use crate::asn1::{Element, Elements, Writer, oid, only, tag};

/// A public key read from a SubjectPublicKeyInfo.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PublicKey<'a> {
    pub(crate) algorithm: KeyAlgorithm,
    /// The contents of the BIT STRING: a point, 32 octets, or an RSAPublicKey.
    pub(crate) bits: &'a [u8],
}

/// Why a SubjectPublicKeyInfo is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KeyRefusal {
    /// Not a SubjectPublicKeyInfo.
    Malformed,
    /// One, but of a kind or size that is not accepted.
    Unsupported,
}

/// The numbers of an RSAPublicKey, big-endian without leading zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RsaNumbers<'a> {
    pub(crate) modulus: &'a [u8],
    pub(crate) exponent: &'a [u8],
}

impl<'a> PublicKey<'a> {
    pub(crate) fn from_spki(spki: &'a [u8]) -> Result<Self, KeyRefusal> {
        if let Ok((algorithm, bits)) = kf_crypto::public_key_of_spki(spki) {
            return Ok(Self { algorithm, bits });
        }
        let (algorithm_identifier, bits) = parts(spki).ok_or(KeyRefusal::Malformed)?;
        let mut fields = algorithm_identifier.elements();
        let kind = fields.expect(tag::OID).ok_or(KeyRefusal::Malformed)?;
        if kind.value != oid::RSA_ENCRYPTION.as_bytes() {
            return Err(KeyRefusal::Unsupported);
        }
        // RFC 3279 section 2.3.1: the parameters are NULL.
        fields.expect(tag::NULL).filter(|null| null.value.is_empty()).ok_or(KeyRefusal::Malformed)?;
        fields.end().ok_or(KeyRefusal::Malformed)?;
        let numbers = RsaNumbers::from_der(bits).ok_or(KeyRefusal::Malformed)?;
        let algorithm = match numbers.modulus_bits() {
            2048 => KeyAlgorithm::Rsa2048,
            3072 => KeyAlgorithm::Rsa3072,
            4096 => KeyAlgorithm::Rsa4096,
            _ => return Err(KeyRefusal::Unsupported),
        };
        Ok(Self { algorithm, bits })
    }

    /// Verifies a signature that carries its own AlgorithmIdentifier.
    pub(crate) fn verify(&self, scheme: SignatureScheme, message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        match (scheme, self.algorithm) {
            (SignatureScheme::Ed25519, KeyAlgorithm::Ed25519) => {
                kf_crypto::verify(self.algorithm, self.bits, message, signature)
            }
            (SignatureScheme::Ecdsa(hash), KeyAlgorithm::P256 | KeyAlgorithm::P384)
            | (SignatureScheme::Rsa(hash), KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096) => {
                kf_crypto::verify_with_hash(self.algorithm, hash, self.bits, message, signature)
            }
            (SignatureScheme::MlDsa(algorithm), _) if algorithm == self.algorithm => {
                kf_crypto::verify(self.algorithm, self.bits, message, signature)
            }
            _ => Err(CryptoError),
        }
    }
}

/// AlgorithmIdentifier and key bits of any SubjectPublicKeyInfo.
fn parts(spki: &[u8]) -> Option<(Element<'_>, &[u8])> {
    let mut fields = only(spki, tag::SEQUENCE)?.elements();
    let algorithm = fields.expect(tag::SEQUENCE)?;
    let bits = fields.bit_string()?;
    fields.end().map(|()| (algorithm, bits))
}

/// The contents of the BIT STRING of any SubjectPublicKeyInfo.
pub(crate) fn bits_of_spki(spki: &[u8]) -> Option<&[u8]> {
    parts(spki).map(|(_, bits)| bits)
}

impl<'a> RsaNumbers<'a> {
    /// Reads an RSAPublicKey (RFC 8017 appendix A.1.1) in canonical DER.
    pub(crate) fn from_der(der: &'a [u8]) -> Option<Self> {
        let mut fields = only(der, tag::SEQUENCE)?.elements();
        let modulus = positive(fields.expect(tag::INTEGER)?.value)?;
        let exponent = positive(fields.expect(tag::INTEGER)?.value)?;
        fields.end().map(|()| Self { modulus, exponent })
    }

    pub(crate) fn modulus_bits(&self) -> usize {
        let unused = self.modulus.first().map_or(0, |first| first.leading_zeros());
        (self.modulus.len() * 8).saturating_sub(usize::try_from(unused).unwrap_or(0))
    }
}

/// The magnitude of a positive canonical INTEGER.
fn positive(contents: &[u8]) -> Option<&[u8]> {
    match contents {
        [0x00, 0x80..=0xff, ..] => contents.get(1..),
        [0x01..=0x7f, ..] => Some(contents),
        _ => None,
    }
}

/// How something foreign was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignatureScheme {
    Ecdsa(SignatureHash),
    Rsa(SignatureHash),
    Ed25519,
    /// Which of the three.
    MlDsa(KeyAlgorithm),
}

impl SignatureScheme {
    /// Reads an AlgorithmIdentifier; `None` for what is not accepted.
    pub(crate) fn of(identifier: &Element<'_>) -> Option<Self> {
        const ROWS: [(ObjectIdentifier, SignatureScheme); 10] = [
            (oid::ECDSA_WITH_SHA256, SignatureScheme::Ecdsa(SignatureHash::Sha256)),
            (oid::ECDSA_WITH_SHA384, SignatureScheme::Ecdsa(SignatureHash::Sha384)),
            (oid::ECDSA_WITH_SHA512, SignatureScheme::Ecdsa(SignatureHash::Sha512)),
            (oid::SHA256_WITH_RSA, SignatureScheme::Rsa(SignatureHash::Sha256)),
            (oid::SHA384_WITH_RSA, SignatureScheme::Rsa(SignatureHash::Sha384)),
            (oid::SHA512_WITH_RSA, SignatureScheme::Rsa(SignatureHash::Sha512)),
            (oid::ED25519, SignatureScheme::Ed25519),
            (oid::ML_DSA_44, SignatureScheme::MlDsa(KeyAlgorithm::MlDsa44)),
            (oid::ML_DSA_65, SignatureScheme::MlDsa(KeyAlgorithm::MlDsa65)),
            (oid::ML_DSA_87, SignatureScheme::MlDsa(KeyAlgorithm::MlDsa87)),
        ];
        let mut fields: Elements<'_> = identifier.elements();
        let kind = fields.expect(tag::OID)?;
        let scheme = ROWS.iter().find_map(|(oid, scheme)| (oid.as_bytes() == kind.value).then_some(*scheme))?;
        // RFC 5758 section 3.2, RFC 8410 section 3, RFC 9881 section 2: no parameters. RFC 4055 section 5: NULL for RSA.
        if matches!(scheme, Self::Rsa(_)) {
            fields.expect(tag::NULL).filter(|null| null.value.is_empty())?;
        }
        fields.end().map(|()| scheme)
    }
}

/// The AlgorithmIdentifier of signatures made with one of our keys; we hold no RSA private key.
pub(crate) fn write_signature_algorithm(writer: &mut Writer, algorithm: KeyAlgorithm) {
    writer.sequence(|w| match algorithm {
        KeyAlgorithm::P256 => w.oid(&oid::ECDSA_WITH_SHA256),
        KeyAlgorithm::P384 => w.oid(&oid::ECDSA_WITH_SHA384),
        KeyAlgorithm::Ed25519 => w.oid(&oid::ED25519),
        KeyAlgorithm::MlDsa44 => w.oid(&oid::ML_DSA_44),
        KeyAlgorithm::MlDsa65 => w.oid(&oid::ML_DSA_65),
        KeyAlgorithm::MlDsa87 => w.oid(&oid::ML_DSA_87),
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => {
            w.oid(&oid::SHA256_WITH_RSA);
            w.null();
        }
    });
}

/// SEQUENCE { what was signed, AlgorithmIdentifier, BIT STRING }: certificates, requests and CRLs alike.
pub(crate) fn signed(to_be_signed: &[u8], algorithm: KeyAlgorithm, signature: &[u8]) -> Vec<u8> {
    Writer::build(to_be_signed.len() + signature.len() + 40, |w| {
        w.sequence(|w| {
            w.raw(to_be_signed);
            write_signature_algorithm(w, algorithm);
            w.bit_string(signature);
        });
    })
}
