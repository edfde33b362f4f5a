//! The endorsement key: its certificate, and the answer to a credential challenge (TPM 2.0 Part 1 section 24, TCG EK
//! Credential Profile 2.5).

use kf_key::SecretArray;
use tss_esapi::Error;
use tss_esapi::abstraction::{AsymmetricAlgorithmSelection, ek, nv};
use tss_esapi::handles::{KeyHandle, NvIndexTpmHandle, ObjectHandle, PersistentTpmHandle, TpmHandle};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::interface_types::key_bits::RsaKeyBits;
use tss_esapi::interface_types::resource_handles::{Hierarchy, NvAuth};
use tss_esapi::interface_types::session_handles::AuthSession;
use tss_esapi::structures::{Digest, EncryptedSecret, IdObject, Nonce};

use crate::live::Live;
use crate::{Blob, Protection, Tpm, TpmError};

/// Which of the endorsement keys that a maker may provide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndorsementKind {
    /// ECC P-256 (template L-2).
    P256,
    /// ECC P-384 (template H-3).
    P384,
    /// RSA-2048 (template L-1).
    Rsa2048,
}

impl EndorsementKind {
    /// Every kind, the faster ones first.
    pub const ALL: [Self; 3] = [Self::P256, Self::P384, Self::Rsa2048];

    /// NV index of the certificate (section 2.2.1).
    const fn certificate_index(self) -> u32 {
        match self {
            Self::P256 => 0x01c0_000a,
            Self::P384 => 0x01c0_0016,
            Self::Rsa2048 => 0x01c0_0002,
        }
    }

    /// Where makers leave the key itself (section 2.2.2.2).
    const fn persistent_handle(self) -> u32 {
        match self {
            Self::P256 => 0x8101_0002,
            Self::P384 => 0x8101_0016,
            Self::Rsa2048 => 0x8101_0001,
        }
    }

    const fn selection(self) -> AsymmetricAlgorithmSelection {
        match self {
            Self::P256 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP256),
            Self::P384 => AsymmetricAlgorithmSelection::Ecc(EccCurve::NistP384),
            Self::Rsa2048 => AsymmetricAlgorithmSelection::Rsa(RsaKeyBits::Rsa2048),
        }
    }

    /// The low templates are used by policy only; the high ones by their empty authorisation value too.
    const fn needs_policy(self) -> bool {
        matches!(self, Self::P256 | Self::Rsa2048)
    }
}

/// The certificate that the TPM's maker put into it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorsementCertificate {
    /// Of which key.
    pub kind: EndorsementKind,
    /// DER.
    pub certificate: Vec<u8>,
}

impl Tpm {
    /// The first endorsement certificate that the TPM holds.
    ///
    /// # Errors
    /// [`TpmError::Missing`] when it holds none of the kinds above.
    pub fn endorsement_certificate(&self) -> Result<EndorsementCertificate, TpmError> {
        self.call(|live| {
            for kind in EndorsementKind::ALL {
                if let Some(certificate) = read_certificate(live, kind)? {
                    return Ok(EndorsementCertificate { kind, certificate });
                }
            }
            Err(TpmError::Missing("endorsement certificate; the maker provides one, or the TPM was wiped of it"))
        })
    }

    /// Decrypts a challenge that was made for this TPM's endorsement key and `key`, which was made under `protection`.
    ///
    /// # Errors
    /// [`TpmError::Credential`] when it was made for another TPM or another key, or was altered.
    pub fn activate_credential(
        &self,
        kind: EndorsementKind,
        key: &Blob,
        protection: &Protection,
        blob: &[u8],
        encrypted_seed: &[u8],
    ) -> Result<SecretArray<32>, TpmError> {
        let (key, protection) = (key.clone(), protection.duplicate());
        let (blob, seed) = (blob.to_vec(), encrypted_seed.to_vec());
        self.call(move |live| activate(live, kind, &key, &protection, &blob, &seed))
    }
}

fn read_certificate(live: &mut Live, kind: EndorsementKind) -> Result<Option<Vec<u8>>, TpmError> {
    let index = NvIndexTpmHandle::new(kind.certificate_index()).map_err(|_invalid| TpmError::Bug("NV index"))?;
    let Some(object) = existing(live, TpmHandle::NvIndex(index))? else { return Ok(None) };
    let area = live
        .context
        .execute_with_session(Some(AuthSession::Password), |context| {
            nv::read_full(context, NvAuth::NvIndex(object.into()), index)
        })
        .map_err(TpmError::of("TPM2_NV_Read"))?;
    // The area may be larger than the certificate: its own length says where it ends.
    let [0x30, 0x82, high, low, ..] = *area.as_slice() else { return Ok(None) };
    let length = usize::from(u16::from_be_bytes([high, low])).saturating_add(4);
    Ok(area.get(..length).map(<[u8]>::to_vec))
}

/// An object of the TPM, if it is there.
fn existing(live: &mut Live, handle: TpmHandle) -> Result<Option<ObjectHandle>, TpmError> {
    /// TPM_RC_HANDLE: there is no such object.
    const HANDLE: u32 = 0x08b;
    match live.context.execute_without_session(|context| context.tr_from_tpm_public(handle)) {
        Ok(object) => Ok(Some(object)),
        Err(error) if crate::error::tpm_code(crate::error::response_code(error)) == Some(HANDLE) => Ok(None),
        Err(error) => Err(TpmError::of("TPM2_ReadPublic")(error)),
    }
}

/// The endorsement key: where the maker left it, or made again from the seed, which gives the same key.
fn endorsement_key(live: &mut Live, kind: EndorsementKind) -> Result<KeyHandle, TpmError> {
    let handle =
        PersistentTpmHandle::new(kind.persistent_handle()).map_err(|_invalid| TpmError::Bug("persistent handle"))?;
    if let Some(object) = existing(live, TpmHandle::Persistent(handle))? {
        return Ok(object.into());
    }
    let public = ek::create_ek_public_from_default_template_2(kind.selection(), None)
        .map_err(|_unsupported| TpmError::Bug("endorsement template"))?;
    let made = live
        .context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.create_primary(Hierarchy::Endorsement, public, None, None, None, None)
        })
        .map_err(TpmError::of("TPM2_CreatePrimary"))?;
    live.flush_later(made.key_handle.into());
    Ok(made.key_handle)
}

fn activate(
    live: &mut Live,
    kind: EndorsementKind,
    key: &Blob,
    protection: &Protection,
    blob: &[u8],
    seed: &[u8],
) -> Result<SecretArray<32>, TpmError> {
    let malformed = |_length| TpmError::Credential;
    let blob = IdObject::try_from(blob.to_vec()).map_err(malformed)?;
    let seed = EncryptedSecret::try_from(seed.to_vec()).map_err(malformed)?;
    let object = live.load(key, protection.auth.as_ref())?;
    let endorsement = endorsement_key(live, kind)?;
    // The role is ADMIN: with adminWithPolicy clear the authorisation value serves, whatever the key's policy.
    let encrypting = live.encrypting_session()?;
    let second = if kind.needs_policy() { endorsement_policy(live)? } else { AuthSession::Password };
    let secret = live
        .context
        .execute_with_sessions((Some(encrypting), Some(second), None), |context| {
            context.activate_credential(object, endorsement, blob, seed)
        })
        .map_err(refused)?;
    let secret: &[u8; 32] = secret.as_slice().try_into().map_err(|_length| TpmError::Credential)?;
    Ok(SecretArray::fill(|out| *out = *secret))
}

/// PolicySecret of the endorsement hierarchy, whose authorisation value is empty on a device that its owner did not
/// lock otherwise (policy A of the EK Credential Profile).
fn endorsement_policy(live: &mut Live) -> Result<AuthSession, TpmError> {
    let (session, policy) = live.policy_session()?;
    live.context
        .execute_with_session(Some(AuthSession::Password), |context| {
            context.policy_secret(
                policy,
                tss_esapi::handles::AuthHandle::Endorsement,
                Nonce::default(),
                Digest::default(),
                Nonce::default(),
                None,
            )
        })
        .map_err(TpmError::of("TPM2_PolicySecret"))?;
    Ok(session)
}

/// A credential for another key fails by its MAC, one for another TPM by whatever its seed decrypts to.
fn refused(error: Error) -> TpmError {
    /// TPM_RC_INTEGRITY, TPM_RC_VALUE, TPM_RC_SIZE, TPM_RC_ECC_POINT, TPM_RC_INSUFFICIENT, TPM_RC_BAD_TAG and
    /// TPM_RC_FAILURE of the asymmetric decryption.
    const REFUSALS: [u32; 6] = [0x09f, 0x084, 0x095, 0x0a7, 0x09a, 0x101];
    match crate::error::tpm_code(crate::error::response_code(error)) {
        Some(code) if REFUSALS.contains(&code) => TpmError::Credential,
        _ => TpmError::of("TPM2_ActivateCredential")(error),
    }
}
