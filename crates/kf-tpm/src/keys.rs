//! What the TPM holds for us: P-256 signature keys, HMAC keys and sealed secrets.

use kf_crypto::spki_of_public_key;
use kf_key::{KeyAlgorithm, SecretArray, SecretBytes};
use tss_esapi::constants::StructureTag;
use tss_esapi::interface_types::algorithm::HashingAlgorithm;
use tss_esapi::interface_types::resource_handles::Hierarchy;
use tss_esapi::structures::{Digest, HashScheme, HashcheckTicket, MaxBuffer, Public, Signature, SignatureScheme};
use tss_esapi::tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK};

use crate::blob::Blob;
use crate::live::Live;
use crate::policy::BootPolicy;
use crate::template::Guard;
use crate::{Tpm, TpmError, template};

/// The most octets of a sealed secret (TPM 2.0 Part 2 section 11.1.15: MAX_SYM_DATA).
pub const MAX_SEALED_OCTETS: usize = 128;

/// What stands before the use of an object.
#[derive(Debug, Default)]
pub struct Protection {
    /// A value that must be known. The TPM counts wrong ones and locks itself after a few.
    pub auth: Option<SecretBytes>,
    /// What must have booted.
    pub policy: Option<BootPolicy>,
}

impl Protection {
    /// A copy for a call, which runs on another thread.
    pub(crate) fn duplicate(&self) -> Self {
        let auth = self.auth.as_ref().map(duplicate);
        Self { auth, policy: self.policy.clone() }
    }

    pub(crate) fn guard(&self) -> Guard {
        let has_auth = self.auth.is_some();
        Guard { has_auth, policy: self.policy.as_ref().map(|policy| policy.digest(has_auth)) }
    }
}

pub(crate) fn duplicate(secret: &SecretBytes) -> SecretBytes {
    // Exposed to a copy that is wiped like the original.
    SecretBytes::fill(secret.len(), |out| out.copy_from_slice(secret.expose()))
}

impl Tpm {
    /// Makes a P-256 signature key that cannot leave the TPM.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn generate_signature_key(&self, protection: &Protection) -> Result<Blob, TpmError> {
        let protection = protection.duplicate();
        self.call(move |live| {
            live.create(template::signature_key(&protection.guard())?, protection.auth.as_ref(), None)
        })
    }

    /// Signs `message` (ECDSA with SHA-256); the signature is DER `Ecdsa-Sig-Value`.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn sign(&self, key: &Blob, protection: &Protection, message: &[u8]) -> Result<Vec<u8>, TpmError> {
        let (key, protection, digest) = (key.clone(), protection.duplicate(), kf_crypto::sha256(message));
        self.call(move |live| sign(live, &key, &protection, &digest))
    }

    /// Has the TPM draw an HMAC-SHA-256 key.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn generate_hmac_key(&self, protection: &Protection) -> Result<Blob, TpmError> {
        let protection = protection.duplicate();
        self.call(move |live| {
            live.create(template::hmac_key(&protection.guard(), true)?, protection.auth.as_ref(), None)
        })
    }

    /// Puts an HMAC-SHA-256 key into the TPM, which gives it out no more.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn import_hmac_key(&self, key: &SecretArray<32>, protection: &Protection) -> Result<Blob, TpmError> {
        // Exposed to the command that puts it into the TPM.
        let key = SecretBytes::fill(32, |out| out.copy_from_slice(key.expose()));
        let protection = protection.duplicate();
        self.call(move |live| {
            live.create(template::hmac_key(&protection.guard(), false)?, protection.auth.as_ref(), Some(&key))
        })
    }

    /// HMAC-SHA-256 under a key in the TPM.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn hmac(&self, key: &Blob, protection: &Protection, message: &[u8]) -> Result<SecretArray<32>, TpmError> {
        let (key, protection, message) = (key.clone(), protection.duplicate(), message.to_vec());
        self.call(move |live| hmac(live, &key, &protection, &message))
    }

    /// Seals a secret of 1 to [`MAX_SEALED_OCTETS`] octets.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn seal(&self, secret: &SecretBytes, protection: &Protection) -> Result<Blob, TpmError> {
        if secret.is_empty() || secret.len() > MAX_SEALED_OCTETS {
            return Err(TpmError::Bug("length of a sealed secret"));
        }
        let (secret, protection) = (duplicate(secret), protection.duplicate());
        self.call(move |live| {
            live.create(template::sealed_data(&protection.guard())?, protection.auth.as_ref(), Some(&secret))
        })
    }

    /// Opens what was sealed.
    ///
    /// # Errors
    /// [`TpmError::BootState`] when the policy is not satisfied, [`TpmError::Authorization`], [`TpmError::LockedOut`],
    /// [`TpmError::OtherTpm`].
    pub fn unseal(&self, sealed: &Blob, protection: &Protection) -> Result<SecretBytes, TpmError> {
        let (sealed, protection) = (sealed.clone(), protection.duplicate());
        self.call(move |live| {
            let object = live.load(&sealed, protection.auth.as_ref())?;
            let [first, second] = live.authorise(protection.policy.as_ref(), protection.auth.is_some())?;
            let data = live
                .context
                .execute_with_sessions((first, second, None), |context| context.unseal(object.into()))
                .map_err(TpmError::of("TPM2_Unseal"))?;
            Ok(SecretBytes::fill(data.len(), |out| out.copy_from_slice(&data)))
        })
    }

    /// What tells this TPM from every other, until its owner hierarchy is cleared: SHA-256 of the public area of its storage key.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn fingerprint(&self) -> Result<[u8; 32], TpmError> {
        self.call(Live::storage_fingerprint)
    }

    /// Random octets from the TPM's source, over an encrypted session.
    ///
    /// # Errors
    /// [`TpmError`].
    pub fn random(&self) -> Result<SecretArray<32>, TpmError> {
        self.call(|live| {
            let session = live.encrypting_session()?;
            let octets = live
                .context
                .execute_with_session(Some(session), |context| context.get_random(32))
                .map_err(TpmError::of("TPM2_GetRandom"))?;
            array(&octets)
        })
    }
}

impl Blob {
    /// SubjectPublicKeyInfo of a P-256 signature key.
    ///
    /// # Errors
    /// [`TpmError::Damaged`] when it is another kind of object.
    pub fn spki(&self) -> Result<Vec<u8>, TpmError> {
        let wrong = TpmError::Damaged("not a P-256 signature key");
        let Public::Ecc { unique, .. } = self.public()? else { return Err(wrong) };
        let mut point = vec![0x04];
        for coordinate in [unique.x(), unique.y()] {
            // A TPM may leave leading zeros out.
            let missing = 32_usize.checked_sub(coordinate.len()).ok_or(TpmError::Damaged("coordinate"))?;
            point.resize(point.len().saturating_add(missing), 0);
            point.extend_from_slice(coordinate);
        }
        spki_of_public_key(KeyAlgorithm::P256, &point).map_err(|_length| wrong)
    }
}

fn sign(live: &mut Live, key: &Blob, protection: &Protection, digest: &[u8; 32]) -> Result<Vec<u8>, TpmError> {
    let object = live.load(key, protection.auth.as_ref())?;
    let [first, second] = live.authorise(protection.policy.as_ref(), protection.auth.is_some())?;
    let digest = Digest::try_from(digest.as_slice()).map_err(|_length| TpmError::Bug("digest"))?;
    let scheme = SignatureScheme::EcDsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
    let ticket = null_ticket()?;
    let signature = live
        .context
        .execute_with_sessions((first, second, None), |context| context.sign(object, digest, scheme, ticket))
        .map_err(TpmError::of("TPM2_Sign"))?;
    let Signature::EcDsa(signature) = signature else { return Err(TpmError::Bug("signature scheme")) };
    let mut raw = [0; 64];
    for (half, number) in raw.chunks_exact_mut(32).zip([signature.signature_r(), signature.signature_s()]) {
        let start = half.len().checked_sub(number.len()).ok_or(TpmError::Bug("signature length"))?;
        half.iter_mut().skip(start).zip(number.iter()).for_each(|(out, octet)| *out = *octet);
    }
    kf_crypto::ecdsa_signature_to_der(&raw).ok_or(TpmError::Bug("signature of zero"))
}

fn hmac(live: &mut Live, key: &Blob, protection: &Protection, message: &[u8]) -> Result<SecretArray<32>, TpmError> {
    let object = live.load(key, protection.auth.as_ref())?;
    let [first, second] = live.authorise(protection.policy.as_ref(), protection.auth.is_some())?;
    let message = MaxBuffer::try_from(message.to_vec()).map_err(|_length| TpmError::Bug("HMAC message too long"))?;
    let code = live
        .context
        .execute_with_sessions((first, second, None), |context| {
            context.hmac(object.into(), message, HashingAlgorithm::Sha256)
        })
        .map_err(TpmError::of("TPM2_HMAC"))?;
    array(&code)
}

fn array(octets: &[u8]) -> Result<SecretArray<32>, TpmError> {
    let octets: &[u8; 32] = octets.try_into().map_err(|_length| TpmError::Bug("length of an answer"))?;
    Ok(SecretArray::fill(|out| *out = *octets))
}

/// An unrestricted key signs any digest; the TPM wants a ticket all the same, and takes the null one.
fn null_ticket() -> Result<HashcheckTicket, TpmError> {
    HashcheckTicket::try_from(TPMT_TK_HASHCHECK {
        tag: StructureTag::Hashcheck.into(),
        hierarchy: tss_esapi::handles::TpmHandle::from(Hierarchy::Null).into(),
        digest: TPM2B_DIGEST::default(),
    })
    .map_err(|_invalid| TpmError::Bug("ticket"))
}
