//! Public areas of the objects that we make (TPM 2.0 Part 2 section 12.2).

use tss_esapi::attributes::{ObjectAttributes, ObjectAttributesBuilder};
use tss_esapi::interface_types::algorithm::{HashingAlgorithm, PublicAlgorithm};
use tss_esapi::interface_types::ecc::EccCurve;
use tss_esapi::structures::{
    Digest, EccPoint, EccScheme, HashScheme, KeyDerivationFunctionScheme, KeyedHashScheme, Public, PublicBuilder,
    PublicEccParameters, PublicEccParametersBuilder, PublicKeyedHashParameters, SymmetricDefinitionObject,
};

use crate::TpmError;

/// What stands before the use of an object.
#[derive(Clone, Debug, Default)]
pub(crate) struct Guard {
    /// It has an authorisation value. Wrong ones count towards the lockout.
    pub(crate) has_auth: bool,
    /// authPolicy; with one, the value alone is not enough.
    pub(crate) policy: Option<[u8; 32]>,
}

fn invalid<E>(_error: E) -> TpmError {
    TpmError::Bug("object template")
}

/// The storage primary key: ECC P-256, AES-128-CFB, as the TCG's provisioning guidance has it.
pub(crate) fn storage_key() -> Result<Public, TpmError> {
    let attributes = ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(true)
        .with_no_da(true)
        .with_restricted(true)
        .with_decrypt(true)
        .build()
        .map_err(invalid)?;
    let parameters = PublicEccParametersBuilder::new_restricted_decryption_key(
        SymmetricDefinitionObject::AES_128_CFB,
        EccCurve::NistP256,
    )
    .build()
    .map_err(invalid)?;
    ecc(attributes, &Guard::default(), parameters)
}

/// A P-256 key that is no storage key: for this scheme, and nothing else.
fn p256(scheme: EccScheme) -> Result<PublicEccParameters, TpmError> {
    let is_signing_key = matches!(scheme, EccScheme::EcDsa(_));
    PublicEccParametersBuilder::new()
        .with_ecc_scheme(scheme)
        .with_curve(EccCurve::NistP256)
        .with_key_derivation_function_scheme(KeyDerivationFunctionScheme::Null)
        .with_symmetric(SymmetricDefinitionObject::Null)
        .with_is_signing_key(is_signing_key)
        .with_is_decryption_key(!is_signing_key)
        .with_restricted(false)
        .build()
        .map_err(invalid)
}

/// A P-256 signature key that is made in the TPM and never leaves it.
pub(crate) fn signature_key(guard: &Guard) -> Result<Public, TpmError> {
    let attributes = born_here(guard).with_sign_encrypt(true).build().map_err(invalid)?;
    let parameters = p256(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))?;
    ecc(attributes, guard, parameters)
}

/// A P-256 key for ECDH that is made in the TPM and never leaves it.
pub(crate) fn agreement_key(guard: &Guard) -> Result<Public, TpmError> {
    let attributes = born_here(guard).with_decrypt(true).build().map_err(invalid)?;
    let parameters = p256(EccScheme::EcDh(HashScheme::new(HashingAlgorithm::Sha256)))?;
    ecc(attributes, guard, parameters)
}

/// The public half of somebody else's P-256 key, to verify signatures with.
pub(crate) fn verification_key(x: &[u8], y: &[u8]) -> Result<Public, TpmError> {
    let attributes =
        ObjectAttributesBuilder::new().with_sign_encrypt(true).with_user_with_auth(true).build().map_err(invalid)?;
    let parameters = p256(EccScheme::EcDsa(HashScheme::new(HashingAlgorithm::Sha256)))?;
    let point = EccPoint::new(x.to_vec().try_into().map_err(invalid)?, y.to_vec().try_into().map_err(invalid)?);
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(point)
        .build()
        .map_err(invalid)
}

/// An HMAC-SHA-256 key, drawn by the TPM or brought in.
pub(crate) fn hmac_key(guard: &Guard, is_drawn_here: bool) -> Result<Public, TpmError> {
    let attributes =
        born_here(guard).with_sensitive_data_origin(is_drawn_here).with_sign_encrypt(true).build().map_err(invalid)?;
    keyed_hash(attributes, guard, KeyedHashScheme::HMAC_SHA_256)
}

/// Octets that the TPM keeps and gives back (a sealed data object).
pub(crate) fn sealed_data(guard: &Guard) -> Result<Public, TpmError> {
    let attributes = born_here(guard).with_sensitive_data_origin(false).build().map_err(invalid)?;
    keyed_hash(attributes, guard, KeyedHashScheme::Null)
}

/// Bound to this TPM and this parent. An object without an authorisation value cannot be guessed, so that failures do
/// not count towards the lockout; one with a policy is used by the policy only.
fn born_here(guard: &Guard) -> ObjectAttributesBuilder {
    ObjectAttributesBuilder::new()
        .with_fixed_tpm(true)
        .with_fixed_parent(true)
        .with_sensitive_data_origin(true)
        .with_user_with_auth(guard.policy.is_none())
        .with_no_da(!guard.has_auth)
}

fn policy_digest(guard: &Guard) -> Result<Digest, TpmError> {
    guard.policy.map_or_else(|| Ok(Digest::default()), |policy| Digest::try_from(policy.as_slice()).map_err(invalid))
}

fn ecc(attributes: ObjectAttributes, guard: &Guard, parameters: PublicEccParameters) -> Result<Public, TpmError> {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy_digest(guard)?)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .map_err(invalid)
}

fn keyed_hash(attributes: ObjectAttributes, guard: &Guard, scheme: KeyedHashScheme) -> Result<Public, TpmError> {
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(attributes)
        .with_auth_policy(policy_digest(guard)?)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(scheme))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .map_err(invalid)
}
