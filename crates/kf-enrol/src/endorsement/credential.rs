//! TPM2_MakeCredential in software (TPM 2.0 Part 1 section 24, KDFs of section 11.4.10).

use kf_crypto::{
    CryptoError, SignatureHash, agree_with_ephemeral, encrypt_cfb_once, encrypt_rsa_oaep, hmac_with_hash, sha256,
    sha384,
};
use kf_key::{SecretArray, SecretBytes};

use super::key::Kind;
use super::{AttestedKey, EndorsementKey};

/// Labels with the zero that ends them (TPM 2.0 Part 1 section 11.4.10.2).
const IDENTITY: &[u8] = b"IDENTITY\0";
const STORAGE: &[u8] = b"STORAGE\0";
const INTEGRITY: &[u8] = b"INTEGRITY\0";

/// What TPM2_ActivateCredential takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// TPMS_ID_OBJECT: the MAC, then the encrypted secret.
    pub blob: Vec<u8>,
    /// TPM2B_ENCRYPTED_SECRET without its length: the seed, encrypted to the EK.
    pub encrypted_seed: Vec<u8>,
}

/// Encrypts `secret` so that only the TPM with this EK gives it out, and only if `key` is loaded in it. `seed` is used
/// for an RSA endorsement key; an ECC one agrees on its own.
///
/// # Errors
/// [`CryptoError`].
pub fn make_credential(
    endorsement: &EndorsementKey,
    key: &AttestedKey,
    secret: &SecretArray<32>,
    seed: SecretArray<32>,
) -> Result<Credential, CryptoError> {
    let hash = endorsement.hash();
    let (seed, encrypted_seed) = match &endorsement.kind {
        Kind::Rsa2048 => {
            // Exposed to be encrypted to the EK.
            let seed = SecretBytes::fill(32, |out| out.copy_from_slice(seed.expose()));
            let encrypted = encrypt_rsa_oaep(&endorsement.spki, hash, IDENTITY, &seed)?;
            (seed, encrypted)
        }
        Kind::Ecc { algorithm, point } => {
            let (ephemeral, shared) = agree_with_ephemeral(*algorithm, point)?;
            let (x, y) = coordinates(&ephemeral)?;
            let (peer_x, _) = coordinates(point)?;
            let seed = kdf_e(hash, &shared, x, peer_x);
            (seed, [sized(x).as_slice(), &sized(y)].concat())
        }
    };
    let symmetric = kdf_a(hash, &seed, STORAGE, &key.name, endorsement.symmetric_octets())?;
    // Exposed to be encrypted.
    let encrypted = encrypt_cfb_once(&symmetric, &sized(secret.expose()))?;
    let mac_key = kdf_a(hash, &seed, INTEGRITY, &[], digest_octets(hash))?;
    // Exposed to make the MAC, which is public.
    let mac = hmac_with_hash(hash, mac_key.expose(), &[&encrypted, &key.name]);
    Ok(Credential { blob: [sized(mac.expose()), encrypted].concat(), encrypted_seed })
}

/// x and y of an uncompressed point.
fn coordinates(point: &[u8]) -> Result<(&[u8], &[u8]), CryptoError> {
    let both = point.get(1..).ok_or(CryptoError)?;
    both.split_at_checked(both.len() / 2).ok_or(CryptoError)
}

/// Two octets of length, then the octets.
fn sized(octets: &[u8]) -> Vec<u8> {
    // Digests, coordinates and the secret: a few dozen octets.
    let length = u16::try_from(octets.len()).unwrap_or(u16::MAX);
    [length.to_be_bytes().as_slice(), octets].concat()
}

const fn digest_octets(hash: SignatureHash) -> usize {
    match hash {
        SignatureHash::Sha256 => 32,
        SignatureHash::Sha384 => 48,
        SignatureHash::Sha512 => 64,
    }
}

/// KDFa: one block of SP 800-108 in counter mode, cut to `octets`.
fn kdf_a(
    hash: SignatureHash,
    seed: &SecretBytes,
    label: &[u8],
    context: &[u8],
    octets: usize,
) -> Result<SecretBytes, CryptoError> {
    let bits = u32::try_from(octets.saturating_mul(8)).map_err(|_too_many| CryptoError)?;
    // Exposed to derive from.
    let block = hmac_with_hash(hash, seed.expose(), &[&1_u32.to_be_bytes(), label, context, &bits.to_be_bytes()]);
    let derived = block.expose().get(..octets).ok_or(CryptoError)?;
    Ok(SecretBytes::fill(octets, |out| out.copy_from_slice(derived)))
}

/// KDFe: one block of SP 800-56A's one-step derivation, as long as the hash.
fn kdf_e(hash: SignatureHash, shared: &SecretBytes, own_x: &[u8], peer_x: &[u8]) -> SecretBytes {
    let counter = 1_u32.to_be_bytes();
    let parts: [&[u8]; 5] = [&counter, shared.expose(), IDENTITY, own_x, peer_x];
    let length = parts.iter().map(|part| part.len()).sum();
    let input = SecretBytes::fill(length, |out| {
        out.iter_mut().zip(parts.iter().flat_map(|part| part.iter())).for_each(|(out, octet)| *out = *octet);
    });
    // Exposed to derive from.
    match hash {
        SignatureHash::Sha384 => SecretBytes::from_vec(sha384(input.expose()).to_vec()),
        _ => SecretBytes::from_vec(sha256(input.expose()).to_vec()),
    }
}
