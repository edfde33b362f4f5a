//! Key pairs, signatures and SubjectPublicKeyInfo (FIPS 186-5, FIPS 204, RFC 5480, RFC 8410, RFC 9881, RFC 5958).

use aws_lc_rs::signature::{
    self, EcdsaKeyPair, Ed25519KeyPair, KeyPair, PqdsaKeyPair, PqdsaSigningAlgorithm, UnparsedPublicKey,
};
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

use crate::CryptoError;

/// A private signature key in the provider's memory, which clears it on drop. Neither Clone nor Debug-printable.
pub struct PrivateKey(Inner);

enum Inner {
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    MlDsa(KeyAlgorithm, PqdsaKeyPair),
}

/// ML-DSA with pure messages and an empty context (RFC 9881 section 3); `None` for the others.
fn ml_dsa(algorithm: KeyAlgorithm) -> Option<&'static PqdsaSigningAlgorithm> {
    match algorithm {
        KeyAlgorithm::MlDsa44 => Some(&signature::ML_DSA_44_SIGNING),
        KeyAlgorithm::MlDsa65 => Some(&signature::ML_DSA_65_SIGNING),
        KeyAlgorithm::MlDsa87 => Some(&signature::ML_DSA_87_SIGNING),
        _ => None,
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PrivateKey({})", self.algorithm())
    }
}

/// Stack that is written over after a key was made, read or written: the provider leaves limbs of scalars in frames that are gone,
/// and what is moved to the heap later takes them along. More than it uses for curves, and for lattices.
const STACK_OCTETS: usize = 16 * 1024;
const ML_DSA_STACK_OCTETS: usize = 256 * 1024;

fn on_a_wiped_stack<T>(algorithm: KeyAlgorithm, work: impl FnOnce() -> T) -> T {
    match ml_dsa(algorithm) {
        None => kf_key::with_wiped_stack::<STACK_OCTETS, T>(work),
        Some(_) => kf_key::with_wiped_stack::<ML_DSA_STACK_OCTETS, T>(work),
    }
}

impl PrivateKey {
    /// A fresh key.
    ///
    /// # Errors
    /// [`CryptoError`] for RSA, which we never generate, and when the random source fails.
    pub fn generate(algorithm: KeyAlgorithm) -> Result<Self, CryptoError> {
        on_a_wiped_stack(algorithm, || Self::drawn(algorithm))
    }

    fn drawn(algorithm: KeyAlgorithm) -> Result<Self, CryptoError> {
        let inner = match algorithm {
            KeyAlgorithm::P256 => {
                EcdsaKeyPair::generate(&signature::ECDSA_P256_SHA256_ASN1_SIGNING).map(Inner::P256).ok()
            }
            KeyAlgorithm::P384 => {
                EcdsaKeyPair::generate(&signature::ECDSA_P384_SHA384_ASN1_SIGNING).map(Inner::P384).ok()
            }
            KeyAlgorithm::Ed25519 => Ed25519KeyPair::generate().map(Inner::Ed25519).ok(),
            KeyAlgorithm::MlDsa44 | KeyAlgorithm::MlDsa65 | KeyAlgorithm::MlDsa87 => ml_dsa(algorithm)
                .and_then(|kind| PqdsaKeyPair::generate(kind).ok())
                .map(|pair| Inner::MlDsa(algorithm, pair)),
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
        };
        inner.map(Self).ok_or(CryptoError)
    }

    /// A key from PKCS#8 DER.
    ///
    /// # Errors
    /// [`CryptoError`] when the bytes are not a key of this algorithm.
    pub fn from_pkcs8(algorithm: KeyAlgorithm, pkcs8: &SecretBytes) -> Result<Self, CryptoError> {
        on_a_wiped_stack(algorithm, || Self::read(algorithm, pkcs8))
    }

    fn read(algorithm: KeyAlgorithm, pkcs8: &SecretBytes) -> Result<Self, CryptoError> {
        // Exposed to the provider, which keeps its own copy and clears it on drop.
        let der = pkcs8.expose();
        let inner = match algorithm {
            KeyAlgorithm::P256 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_ASN1_SIGNING, der).map(Inner::P256).ok()
            }
            KeyAlgorithm::P384 => {
                EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P384_SHA384_ASN1_SIGNING, der).map(Inner::P384).ok()
            }
            KeyAlgorithm::Ed25519 => Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).map(Inner::Ed25519).ok(),
            KeyAlgorithm::MlDsa44 | KeyAlgorithm::MlDsa65 | KeyAlgorithm::MlDsa87 => ml_dsa(algorithm)
                .and_then(|kind| PqdsaKeyPair::from_pkcs8(kind, der).ok())
                .map(|pair| Inner::MlDsa(algorithm, pair)),
            KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => None,
        };
        inner.map(Self).ok_or(CryptoError)
    }

    /// A P-256 key from its private scalar (SEC 1 section 3.2.1), for keys whose randomness comes from elsewhere.
    ///
    /// # Errors
    /// [`CryptoError`] for a scalar outside [1, n-1], which comes once in 2^32 draws.
    pub fn p256_from_scalar(scalar: &SecretArray<32>) -> Result<Self, CryptoError> {
        /// PrivateKeyInfo (RFC 5958) and ECPrivateKey (RFC 5915) up to the scalar; the public key is left out.
        const HEAD: [u8; 35] = [
            0x30, 0x41, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08,
            0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x27, 0x30, 0x25, 0x02, 0x01, 0x01, 0x04, 0x20,
        ];
        let pkcs8 = SecretBytes::fill(HEAD.len() + 32, |out| {
            // Exposed to be put into the one form that the provider reads.
            let octets = HEAD.iter().chain(scalar.expose());
            out.iter_mut().zip(octets).for_each(|(out, octet)| *out = *octet);
        });
        Self::from_pkcs8(KeyAlgorithm::P256, &pkcs8)
    }

    /// The key as PKCS#8 version 1 DER, for wrapping or for a device's own file.
    ///
    /// # Errors
    /// [`CryptoError`] when the provider cannot encode it.
    pub fn to_pkcs8(&self) -> Result<SecretBytes, CryptoError> {
        on_a_wiped_stack(self.algorithm(), || self.written())
    }

    fn written(&self) -> Result<SecretBytes, CryptoError> {
        let document = match &self.0 {
            Inner::P256(pair) | Inner::P384(pair) => pair.to_pkcs8v1(),
            Inner::Ed25519(pair) => pair.to_pkcs8v1(),
            // The seed alone (RFC 9881 section 6), from which the rest is expanded again.
            Inner::MlDsa(_, pair) => pair.to_pkcs8v1(),
        };
        document
            .map(|document| {
                let der = document.as_ref();
                SecretBytes::fill(der.len(), |out| out.copy_from_slice(der))
            })
            .map_err(|aws_lc_rs::error::Unspecified| CryptoError)
    }

    /// The algorithm of the key.
    #[must_use]
    pub const fn algorithm(&self) -> KeyAlgorithm {
        match &self.0 {
            Inner::P256(_) => KeyAlgorithm::P256,
            Inner::P384(_) => KeyAlgorithm::P384,
            Inner::Ed25519(_) => KeyAlgorithm::Ed25519,
            Inner::MlDsa(algorithm, _) => *algorithm,
        }
    }

    /// The raw public key: an uncompressed point (65 or 97 octets), 32 octets of Ed25519, or 1,312, 1,952 or 2,592 of
    /// ML-DSA.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        match &self.0 {
            Inner::P256(pair) | Inner::P384(pair) => pair.public_key().as_ref(),
            Inner::Ed25519(pair) => pair.public_key().as_ref(),
            Inner::MlDsa(_, pair) => pair.public_key().as_ref(),
        }
    }

    /// SubjectPublicKeyInfo DER of the public key.
    #[must_use]
    pub fn spki(&self) -> Vec<u8> {
        spki_of_public_key(self.algorithm(), self.public_key()).unwrap_or_default()
    }

    /// Signs `message`; ECDSA signatures are DER `Ecdsa-Sig-Value`, Ed25519 signatures 64 octets, ML-DSA signatures 2,420,
    /// 3,309 or 4,627.
    ///
    /// # Errors
    /// [`CryptoError`] when the random source fails.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoError> {
        match &self.0 {
            Inner::P256(pair) | Inner::P384(pair) => pair
                .sign(&aws_lc_rs::rand::SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|aws_lc_rs::error::Unspecified| CryptoError),
            Inner::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Inner::MlDsa(_, pair) => {
                let mut signature = vec![0; pair.algorithm().signature_len()];
                let length = pair.sign(message, &mut signature).map_err(|aws_lc_rs::error::Unspecified| CryptoError)?;
                signature.truncate(length);
                Ok(signature)
            }
        }
    }
}

/// Why bytes are not a SubjectPublicKeyInfo that we read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a SubjectPublicKeyInfo of P-256 or P-384 with an uncompressed point, Ed25519 or ML-DSA")]
pub struct SpkiError;

const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce,
    0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];
const P384_PREFIX: [u8; 23] = [
    0x30, 0x76, 0x30, 0x10, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x05, 0x2b, 0x81, 0x04, 0x00,
    0x22, 0x03, 0x62, 0x00,
];
const ED25519_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const ML_DSA_44_PREFIX: [u8; 22] = ml_dsa_prefix(0x11, 1_312);
const ML_DSA_65_PREFIX: [u8; 22] = ml_dsa_prefix(0x12, 1_952);
const ML_DSA_87_PREFIX: [u8; 22] = ml_dsa_prefix(0x13, 2_592);

/// RFC 9881 section 4: id-ml-dsa-44, -65 and -87 are 2.16.840.1.101.3.4.3.17 to 19, without parameters.
const fn ml_dsa_prefix(arc: u8, key_octets: u16) -> [u8; 22] {
    let [bits_high, bits_low] = (key_octets + 1).to_be_bytes();
    let [all_high, all_low] = (key_octets + 18).to_be_bytes();
    [
        0x30, 0x82, all_high, all_low, 0x30, 0x0b, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x03, arc,
        0x03, 0x82, bits_high, bits_low, 0x00,
    ]
}

/// Every SubjectPublicKeyInfo that is read and written: what stands before the key, and the key's length.
const SPKI_FORMS: [(KeyAlgorithm, &[u8], usize); 6] = [
    (KeyAlgorithm::P256, &P256_PREFIX, 65),
    (KeyAlgorithm::P384, &P384_PREFIX, 97),
    (KeyAlgorithm::Ed25519, &ED25519_PREFIX, 32),
    (KeyAlgorithm::MlDsa44, &ML_DSA_44_PREFIX, 1_312),
    (KeyAlgorithm::MlDsa65, &ML_DSA_65_PREFIX, 1_952),
    (KeyAlgorithm::MlDsa87, &ML_DSA_87_PREFIX, 2_592),
];

/// SubjectPublicKeyInfo DER (RFC 5480, RFC 8410, RFC 9881) of a raw public key.
///
/// # Errors
/// [`SpkiError`] when the length does not fit the algorithm, and for RSA.
pub fn spki_of_public_key(algorithm: KeyAlgorithm, public_key: &[u8]) -> Result<Vec<u8>, SpkiError> {
    let fits = |form: &&(KeyAlgorithm, &[u8], usize)| form.0 == algorithm && form.2 == public_key.len();
    let (_, prefix, _) = SPKI_FORMS.iter().find(fits).ok_or(SpkiError)?;
    Ok([prefix, public_key].concat())
}

/// Algorithm and raw public key of a SubjectPublicKeyInfo.
///
/// # Errors
/// [`SpkiError`] for anything but a canonical P-256, P-384, Ed25519 or ML-DSA key.
pub fn public_key_of_spki(spki: &[u8]) -> Result<(KeyAlgorithm, &[u8]), SpkiError> {
    SPKI_FORMS
        .into_iter()
        .find_map(|(algorithm, prefix, length)| {
            spki.strip_prefix(prefix).filter(|key| key.len() == length).map(|key| (algorithm, key))
        })
        .ok_or(SpkiError)
}

/// Verifies a signature made as [`PrivateKey::sign`] makes them, under a raw public key.
///
/// # Errors
/// [`CryptoError`] for a wrong signature, a point off the curve, and RSA (see [`verify_rsa_pkcs1`]).
pub fn verify(algorithm: KeyAlgorithm, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    let scheme: &dyn signature::VerificationAlgorithm = match algorithm {
        KeyAlgorithm::P256 => &signature::ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::P384 => &signature::ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::Ed25519 => &signature::ED25519,
        KeyAlgorithm::MlDsa44 => &signature::ML_DSA_44,
        KeyAlgorithm::MlDsa65 => &signature::ML_DSA_65,
        KeyAlgorithm::MlDsa87 => &signature::ML_DSA_87,
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => return Err(CryptoError),
    };
    UnparsedPublicKey::new(scheme, public_key)
        .verify(message, signature)
        .map_err(|aws_lc_rs::error::Unspecified| CryptoError)
}

/// Verifies an RSASSA-PKCS1-v1_5 signature with SHA-256 (RFC 8017 section 8.2) under an RSAPublicKey DER of 2048 to
/// 8192 bits. A public operation: we hold no RSA private key.
///
/// # Errors
/// [`CryptoError`] for a wrong signature or a key outside these sizes.
pub fn verify_rsa_pkcs1(public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
    UnparsedPublicKey::new(&signature::RSA_PKCS1_2048_8192_SHA256, public_key)
        .verify(message, signature)
        .map_err(|aws_lc_rs::error::Unspecified| CryptoError)
}

/// The hash of a signature that somebody else made: requests come with any of them (keytool takes SHA-384 for P-384 and
/// for RSA-3072).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SignatureHash {
    /// SHA-256.
    Sha256,
    /// SHA-384.
    Sha384,
    /// SHA-512.
    Sha512,
}

/// Verifies a signature whose hash is named apart from the key: ECDSA on P-256 or P-384 (raw point, DER
/// `Ecdsa-Sig-Value`), or RSASSA-PKCS1-v1_5 (RSAPublicKey DER of 2048 to 8192 bits).
///
/// # Errors
/// [`CryptoError`] for a wrong signature, a bad key, and Ed25519 and ML-DSA, which name no hash.
pub fn verify_with_hash(
    algorithm: KeyAlgorithm,
    hash: SignatureHash,
    public_key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> Result<(), CryptoError> {
    use KeyAlgorithm::{P256, P384, Rsa2048, Rsa3072, Rsa4096};
    use SignatureHash::{Sha256, Sha384, Sha512};
    let scheme: &dyn signature::VerificationAlgorithm = match (algorithm, hash) {
        (P256, Sha256) => &signature::ECDSA_P256_SHA256_ASN1,
        (P256, Sha384) => &signature::ECDSA_P256_SHA384_ASN1,
        (P256, Sha512) => &signature::ECDSA_P256_SHA512_ASN1,
        (P384, Sha256) => &signature::ECDSA_P384_SHA256_ASN1,
        (P384, Sha384) => &signature::ECDSA_P384_SHA384_ASN1,
        (P384, Sha512) => &signature::ECDSA_P384_SHA512_ASN1,
        (Rsa2048 | Rsa3072 | Rsa4096, Sha256) => &signature::RSA_PKCS1_2048_8192_SHA256,
        (Rsa2048 | Rsa3072 | Rsa4096, Sha384) => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Rsa2048 | Rsa3072 | Rsa4096, Sha512) => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return Err(CryptoError),
    };
    UnparsedPublicKey::new(scheme, public_key)
        .verify(message, signature)
        .map_err(|aws_lc_rs::error::Unspecified| CryptoError)
}

/// Whether the provider takes these octets as a public key of the algorithm: a point on its curve and not at infinity
/// (SP 800-56A section 5.6.2.3.3), 32 octets of Ed25519, an ML-DSA key of the right length, or an RSAPublicKey DER.
#[must_use]
pub fn is_public_key(algorithm: KeyAlgorithm, public_key: &[u8]) -> bool {
    let scheme: &'static dyn signature::VerificationAlgorithm = match algorithm {
        KeyAlgorithm::P256 => &signature::ECDSA_P256_SHA256_ASN1,
        KeyAlgorithm::P384 => &signature::ECDSA_P384_SHA384_ASN1,
        KeyAlgorithm::Ed25519 => &signature::ED25519,
        KeyAlgorithm::MlDsa44 => &signature::ML_DSA_44,
        KeyAlgorithm::MlDsa65 => &signature::ML_DSA_65,
        KeyAlgorithm::MlDsa87 => &signature::ML_DSA_87,
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => &signature::RSA_PKCS1_2048_8192_SHA256,
    };
    signature::ParsedPublicKey::new(scheme, public_key).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_off_its_curve_is_no_public_key() {
        let mut point = PrivateKey::generate(KeyAlgorithm::P256).unwrap().public_key().to_vec();
        assert!(is_public_key(KeyAlgorithm::P256, &point));
        point[40] ^= 1;
        assert!(!is_public_key(KeyAlgorithm::P256, &point));
        assert!(!is_public_key(KeyAlgorithm::P256, &[0]));
    }

    const SIGNING: [KeyAlgorithm; 6] = [
        KeyAlgorithm::P256,
        KeyAlgorithm::P384,
        KeyAlgorithm::Ed25519,
        KeyAlgorithm::MlDsa44,
        KeyAlgorithm::MlDsa65,
        KeyAlgorithm::MlDsa87,
    ];

    #[test]
    fn a_key_survives_pkcs8_and_verifies_what_it_signed() {
        for algorithm in SIGNING {
            let key = PrivateKey::generate(algorithm).unwrap();
            let again = PrivateKey::from_pkcs8(algorithm, &key.to_pkcs8().unwrap()).unwrap();
            assert_eq!(again.public_key(), key.public_key());
            let signature = again.sign(b"message").unwrap();
            assert_eq!(verify(algorithm, key.public_key(), b"message", &signature), Ok(()));
            assert_eq!(verify(algorithm, key.public_key(), b"massage", &signature), Err(CryptoError));
        }
    }

    #[test]
    fn a_scalar_becomes_the_key_whose_multiple_of_the_generator_is_known() {
        let one = SecretArray::fill(|scalar: &mut [u8; 32]| scalar[31] = 1);
        let key = PrivateKey::p256_from_scalar(&one).unwrap();
        // SP 800-186 section 3.2.1.3: the x-coordinate of the generator begins 6b17d1f2.
        assert_eq!(key.public_key()[..5], [0x04, 0x6b, 0x17, 0xd1, 0xf2]);
        let signature = key.sign(b"message").unwrap();
        assert_eq!(verify(KeyAlgorithm::P256, key.public_key(), b"message", &signature), Ok(()));
        assert!(PrivateKey::p256_from_scalar(&SecretArray::fill(|scalar: &mut [u8; 32]| scalar.fill(0))).is_err());
        assert!(PrivateKey::p256_from_scalar(&SecretArray::fill(|scalar: &mut [u8; 32]| scalar.fill(0xff))).is_err());
    }

    #[test]
    fn a_public_key_survives_its_subject_public_key_info() {
        for algorithm in SIGNING {
            let key = PrivateKey::generate(algorithm).unwrap();
            assert_eq!(public_key_of_spki(&key.spki()), Ok((algorithm, key.public_key())));
        }
        assert_eq!(public_key_of_spki(&[0x30, 0x00]), Err(SpkiError));
    }

    #[test]
    fn a_key_of_one_algorithm_is_not_read_as_another() {
        let pkcs8 = PrivateKey::generate(KeyAlgorithm::P256).unwrap().to_pkcs8().unwrap();
        assert!(PrivateKey::from_pkcs8(KeyAlgorithm::P384, &pkcs8).is_err());
        assert!(PrivateKey::from_pkcs8(KeyAlgorithm::Ed25519, &pkcs8).is_err());
        let pkcs8 = PrivateKey::generate(KeyAlgorithm::MlDsa44).unwrap().to_pkcs8().unwrap();
        assert!(PrivateKey::from_pkcs8(KeyAlgorithm::MlDsa65, &pkcs8).is_err());
        assert_eq!(pkcs8.len(), 54, "the seed, not the expanded key");
        assert!(PrivateKey::generate(KeyAlgorithm::Rsa2048).is_err());
    }
}
