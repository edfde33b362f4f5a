//! Where the device's private key lives: in files, in a TPM, in a secure element or in a PKCS#11 token. Hardware stores a handle or a blob
//! that is of use to it alone instead of the key.

pub(crate) mod pkcs11;
mod secure_element;
#[cfg(feature = "tpm")]
pub(crate) mod tpm;

use std::sync::Arc;

use kf_client::TlsKey;
use kf_crypto::PrivateKey;
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};

pub use secure_element::ElementKeys;

/// A key that cannot be made, read or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It could not be made.
    #[error("the key could not be generated")]
    Generate,
    /// The stored form is damaged, or was sealed under another key.
    #[error("the stored key cannot be opened: it is damaged, or the seal key is another one")]
    Open,
    /// It is sealed and no seal key was given, or the other way round.
    #[error("the stored key is {0}, the configuration says otherwise")]
    Protection(&'static str),
    /// It did not sign the certification request.
    #[error("the key did not sign")]
    Sign,
    /// The hardware that holds it did not do what was asked.
    #[error("the hardware that holds the key {0}")]
    Hardware(HardwareFault),
}

/// Why a TPM, a secure element or a token did not do what was asked. None of them changes what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HardwareFault {
    /// Nothing answers.
    #[error("does not answer: is it there, and may this user open it?")]
    Unreachable,
    /// It went away in the middle of a call.
    #[error("went away in the middle of a call")]
    Vanished,
    /// It took too long; a late answer is thrown away.
    #[error("did not answer in time")]
    Late,
    /// Too many wrong authorisations.
    #[error("is locked out after wrong authorisations: wait, or reset its lockout")]
    LockedOut,
    /// The seal key is not the object's authorisation value, or the PIN is wrong.
    #[error("refused the authorisation; it is not tried again by itself")]
    Authorization,
    /// Not booted as the policy demands.
    #[error("is bound to another boot state: approve the new one, or boot the approved one")]
    BootState,
    /// No approval by the policy authority.
    #[error("finds no approval of a boot state that the policy authority signed")]
    Approval,
    /// The key belongs to another TPM, secure element or token.
    #[error("is another one than the key was made in")]
    OtherDevice,
    /// Something else.
    #[error("refused the call")]
    Refused,
}

/// What a device shows to prove that its key lives in its TPM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    /// Public area of the key (TPMT_PUBLIC).
    pub public_area: Vec<u8>,
    /// Certificate of the endorsement key, DER.
    pub endorsement_certificate: Vec<u8>,
}

/// A key of the device, wherever it lives.
pub trait DeviceKey: Send + Sync {
    /// Signing for TLS.
    fn tls_key(&self) -> Arc<dyn TlsKey>;

    /// A PKCS#10 request with an empty subject, DER: names come from the registry, and RFC 7030 section 4.2.2 lets a
    /// renewal leave them out.
    ///
    /// # Errors
    /// [`KeyError::Sign`].
    fn certification_request(&self) -> Result<Vec<u8>, KeyError>;

    /// What proves where the key lives; `None` for a key that can prove nothing.
    ///
    /// # Errors
    /// [`KeyError::Hardware`].
    fn attestation(&self) -> Result<Option<Attestation>, KeyError> {
        Ok(None)
    }

    /// Decrypts a challenge that was made for this key and its TPM.
    ///
    /// # Errors
    /// [`KeyError::Hardware`].
    fn activate(&self, _credential: &[u8], _encrypted_seed: &[u8]) -> Result<SecretArray<32>, KeyError> {
        Err(KeyError::Hardware(HardwareFault::Refused))
    }
}

/// Makes keys and finds them again.
pub trait KeySource: Send + Sync {
    /// A fresh key and what is to be stored so that it can be found again.
    ///
    /// # Errors
    /// [`KeyError`].
    fn generate(&self) -> Result<(Box<dyn DeviceKey>, SecretBytes), KeyError>;

    /// Whether it can make keys of another algorithm than the configured one, and this one.
    fn can_make(&self, _algorithm: KeyAlgorithm) -> bool {
        false
    }

    /// As [`KeySource::generate`], of this algorithm.
    ///
    /// # Errors
    /// [`KeyError::Generate`] where it cannot.
    fn generate_of(&self, _algorithm: KeyAlgorithm) -> Result<(Box<dyn DeviceKey>, SecretBytes), KeyError> {
        Err(KeyError::Generate)
    }

    /// The key that was stored so.
    ///
    /// # Errors
    /// [`KeyError`].
    fn load(&self, stored: &SecretBytes) -> Result<Box<dyn DeviceKey>, KeyError>;

    /// Forgets every key but these, where keys are held elsewhere than in what is stored. Called when a slot was
    /// emptied and at each start, so that a power cut leaves no key behind for long.
    ///
    /// # Errors
    /// [`KeyError::Hardware`]; the keys are then forgotten next time.
    fn keep_only(&self, _stored: &[&SecretBytes]) -> Result<(), KeyError> {
        Ok(())
    }

    /// A key from which the wrapping key of what lies beside the identity is made: the same at every start, and of use to
    /// this source alone. `None` where keys may rest unwrapped.
    ///
    /// # Errors
    /// [`KeyError::Hardware`].
    fn wrapping_key(&self) -> Result<Option<SecretArray<32>>, KeyError>;

    /// Destroys every key that is held elsewhere than in what is stored, the wrapping key too where the hardware can, and
    /// looks that they are gone: for a wipe.
    ///
    /// # Errors
    /// [`KeyError::Hardware`]: something is left, and the call is to be repeated.
    fn destroy_all(&self) -> Result<(), KeyError> {
        self.keep_only(&[])
    }

    /// Whether what is stored is of no use to whoever copies the disk.
    fn is_protected_at_rest(&self) -> bool;
}

/// Keys in files, wrapped (AES-256-GCM) under a key that is handed over at each start, or plain where that is allowed.
#[derive(Debug)]
pub struct SoftwareKeys {
    algorithm: KeyAlgorithm,
    seal_key: Option<SecretArray<32>>,
}

const PLAIN: u8 = 1;
const SEALED: u8 = 2;
const SEAL_CONTEXT: &[u8] = b"keyfleet-agent private key v1";

#[derive(Debug)]
struct SoftwareKey(Arc<PrivateKey>);

impl SoftwareKeys {
    /// Keys of this algorithm.
    #[must_use]
    pub const fn new(algorithm: KeyAlgorithm, seal_key: Option<SecretArray<32>>) -> Self {
        Self { algorithm, seal_key }
    }

    /// One octet of version and protection, one of algorithm, then PKCS#8 or its seal.
    fn store(&self, key: &PrivateKey) -> Result<SecretBytes, KeyError> {
        let pkcs8 = key.to_pkcs8().map_err(|_opaque| KeyError::Generate)?;
        let algorithm = algorithm_octet(key.algorithm());
        let (kind, body) = match &self.seal_key {
            // Exposed to the file that the configuration allows.
            None => (PLAIN, pkcs8),
            Some(seal_key) => {
                // Exposed to the seal.
                let sealed = kf_crypto::seal(seal_key, SEAL_CONTEXT, pkcs8.expose());
                (SEALED, sealed.map(SecretBytes::from_vec).map_err(|_opaque| KeyError::Generate)?)
            }
        };
        Ok(SecretBytes::fill(body.len().saturating_add(2), |out| {
            let octets = [kind, algorithm].into_iter().chain(body.expose().iter().copied());
            out.iter_mut().zip(octets).for_each(|(out, octet)| *out = octet);
        }))
    }
}

/// What every source makes its wrapping key from: a key of its own and this label.
pub(crate) const WRAPPING_LABEL: &[u8] = b"keyfleet-agent wrapping key v1";

/// From a key that wraps private keys: another key for another purpose.
pub(crate) fn derived_wrapping_key(key: &SecretArray<32>) -> SecretArray<32> {
    // Exposed to HMAC.
    let tag = kf_crypto::hmac_sha256(key.expose(), WRAPPING_LABEL);
    SecretArray::fill(|octets| *octets = tag)
}

const fn algorithm_octet(algorithm: KeyAlgorithm) -> u8 {
    match algorithm {
        KeyAlgorithm::P256 => 1,
        KeyAlgorithm::P384 => 2,
        KeyAlgorithm::Ed25519 => 3,
        KeyAlgorithm::MlDsa44 => 4,
        KeyAlgorithm::MlDsa65 => 5,
        KeyAlgorithm::MlDsa87 => 6,
        KeyAlgorithm::Rsa2048 | KeyAlgorithm::Rsa3072 | KeyAlgorithm::Rsa4096 => 0,
    }
}

impl KeySource for SoftwareKeys {
    fn generate(&self) -> Result<(Box<dyn DeviceKey>, SecretBytes), KeyError> {
        self.generate_of(self.algorithm)
    }

    fn can_make(&self, algorithm: KeyAlgorithm) -> bool {
        algorithm.may_sign_certificates()
    }

    fn generate_of(&self, algorithm: KeyAlgorithm) -> Result<(Box<dyn DeviceKey>, SecretBytes), KeyError> {
        let key = PrivateKey::generate(algorithm).map_err(|_opaque| KeyError::Generate)?;
        let stored = self.store(&key)?;
        Ok((Box::new(SoftwareKey(Arc::new(key))), stored))
    }

    fn load(&self, stored: &SecretBytes) -> Result<Box<dyn DeviceKey>, KeyError> {
        // Exposed to open it.
        let [kind, algorithm, body @ ..] = stored.expose() else { return Err(KeyError::Open) };
        let algorithm = KeyAlgorithm::ALL
            .into_iter()
            .filter(|candidate| candidate.may_sign_certificates())
            .find(|candidate| algorithm_octet(*candidate) == *algorithm)
            .ok_or(KeyError::Open)?;
        let pkcs8 = match (*kind, &self.seal_key) {
            (PLAIN, None) => SecretBytes::fill(body.len(), |out| out.copy_from_slice(body)),
            (SEALED, Some(seal_key)) => {
                kf_crypto::open(seal_key, SEAL_CONTEXT, body).map_err(|_opaque| KeyError::Open)?
            }
            (PLAIN, Some(_)) => return Err(KeyError::Protection("not sealed")),
            (SEALED, None) => return Err(KeyError::Protection("sealed")),
            _ => return Err(KeyError::Open),
        };
        let key = PrivateKey::from_pkcs8(algorithm, &pkcs8).map_err(|_opaque| KeyError::Open)?;
        Ok(Box::new(SoftwareKey(Arc::new(key))))
    }

    fn wrapping_key(&self) -> Result<Option<SecretArray<32>>, KeyError> {
        Ok(self.seal_key.as_ref().map(derived_wrapping_key))
    }

    fn is_protected_at_rest(&self) -> bool {
        self.seal_key.is_some()
    }
}

impl DeviceKey for SoftwareKey {
    fn tls_key(&self) -> Arc<dyn TlsKey> {
        self.0.clone()
    }

    fn certification_request(&self) -> Result<Vec<u8>, KeyError> {
        kf_pki::request::make_request(&self.0, "").map_err(|_refused| KeyError::Sign)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed_under(octet: u8) -> SoftwareKeys {
        SoftwareKeys::new(KeyAlgorithm::P256, Some(SecretArray::fill(|key| key.fill(octet))))
    }

    #[test]
    fn a_sealed_key_opens_under_its_seal_key_only_and_its_file_does_not_hold_it() {
        let keys = sealed_under(1);
        let (key, stored) = keys.generate().unwrap();
        let again = keys.load(&stored).unwrap();
        assert_eq!(again.tls_key().spki(), key.tls_key().spki());
        assert_eq!(sealed_under(2).load(&stored).err(), Some(KeyError::Open));
        let plain = SoftwareKeys::new(KeyAlgorithm::P256, None);
        assert_eq!(plain.load(&stored).err(), Some(KeyError::Protection("sealed")));
        let (_, stored_plain) = plain.generate().unwrap();
        assert_eq!(keys.load(&stored_plain).err(), Some(KeyError::Protection("not sealed")));
        // The curve's object identifier stands in PKCS#8: visible in the plain form, absent from the sealed one.
        let curve = [0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
        let shows = |stored: &SecretBytes| stored.expose().windows(curve.len()).any(|window| window == curve);
        assert!(shows(&stored_plain) && !shows(&stored));
    }

    #[test]
    fn damaged_keys_are_refused() {
        let keys = sealed_under(1);
        let (_, stored) = keys.generate().unwrap();
        for position in 0..stored.len() {
            let mut octets = stored.expose().to_vec();
            octets[position] ^= 1;
            assert!(keys.load(&SecretBytes::from_vec(octets)).is_err(), "octet {position}");
        }
        for length in 0..stored.len() {
            assert!(keys.load(&SecretBytes::from_vec(stored.expose()[..length].to_vec())).is_err());
        }
    }

    #[test]
    fn a_request_carries_the_key_and_no_name() {
        for algorithm in KeyAlgorithm::ALL.into_iter().filter(|algorithm| algorithm.may_sign_certificates()) {
            let (key, _) = SoftwareKeys::new(algorithm, None).generate().unwrap();
            let request = key.certification_request().unwrap();
            let parsed = kf_pki::request::CertificationRequest::from_der(&request).unwrap();
            assert_eq!((parsed.key.spki, parsed.subject), (key.tls_key().spki(), vec![0x30, 0]));
        }
    }
}
