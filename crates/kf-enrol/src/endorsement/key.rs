//! The two keys of an activation: the endorsement key, and the key that is to be certified.

use kf_api::product_line::EndorsementPolicy;
use kf_crypto::{SignatureHash, is_public_key, public_key_of_spki, sha256, spki_of_public_key};
use kf_key::{KeyAlgorithm, UnixMillis};
use kf_pki::certificate::PresentedCertificate;
use kf_pki::chain::verify_endorsement;

use crate::Refusal;

/// The most octets of a public area (TPMT_PUBLIC) of a P-256 key.
pub const MAX_PUBLIC_AREA_OCTETS: usize = 256;
/// The most hashes of EKs that are compared with, and the most CA certificates.
const MAX_LISTED: usize = 4_096;

/// TPM_ALG_ID values (TPM 2.0 Part 2 section 6.3).
const ALG_ECC: u16 = 0x0023;
const ALG_SHA256: u16 = 0x000b;
const ALG_NULL: u16 = 0x0010;
const ALG_ECDSA: u16 = 0x0018;
const CURVE_P256: u16 = 0x0003;

/// TPMA_OBJECT bits (TPM 2.0 Part 2 section 8.3).
mod attribute {
    pub(super) const FIXED_TPM: u32 = 1 << 1;
    pub(super) const FIXED_PARENT: u32 = 1 << 4;
    pub(super) const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
    pub(super) const RESTRICTED: u32 = 1 << 16;
    pub(super) const DECRYPT: u32 = 1 << 17;
    pub(super) const SIGN: u32 = 1 << 18;
}

/// A P-256 signature key, by its public area: made in a TPM and bound to it, if the TPM that is asked says so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttestedKey {
    /// SubjectPublicKeyInfo, DER.
    pub spki: Vec<u8>,
    /// The TPM's name of it: algorithm and SHA-256 of the public area.
    pub(super) name: Vec<u8>,
}

impl AttestedKey {
    /// Reads a TPMT_PUBLIC.
    ///
    /// # Errors
    /// [`Refusal::PublicArea`] with what is wrong: not a P-256 ECDSA signature key with SHA-256 name, or one that could
    /// leave its TPM or came into it from outside.
    pub fn from_public_area(area: &[u8]) -> Result<Self, Refusal> {
        let malformed = Refusal::PublicArea("it is not a TPMT_PUBLIC of a P-256 signature key");
        if area.len() > MAX_PUBLIC_AREA_OCTETS {
            return Err(malformed);
        }
        let mut reader = Reader(area);
        if reader.u16() != Some(ALG_ECC) || reader.u16() != Some(ALG_SHA256) {
            return Err(malformed);
        }
        check_attributes(reader.u32().ok_or(malformed)?)?;
        let policy = reader.sized().ok_or(malformed)?;
        // Symmetric algorithm, scheme and its hash, curve, key derivation.
        let parameters = [reader.u16(), reader.u16(), reader.u16(), reader.u16(), reader.u16()];
        let expected = [ALG_NULL, ALG_ECDSA, ALG_SHA256, CURVE_P256, ALG_NULL].map(Some);
        let point = [reader.sized().ok_or(malformed)?, reader.sized().ok_or(malformed)?];
        let is_policy = policy.is_empty() || policy.len() == 32;
        if parameters != expected || !is_policy || !reader.0.is_empty() || point.iter().any(|c| c.len() > 32) {
            return Err(malformed);
        }
        let mut public = vec![0x04];
        for coordinate in point {
            // A TPM may leave leading zeros out.
            public.resize(public.len().saturating_add(32_usize.saturating_sub(coordinate.len())), 0);
            public.extend_from_slice(coordinate);
        }
        if !is_public_key(KeyAlgorithm::P256, &public) {
            return Err(Refusal::PublicArea("its point is not on P-256"));
        }
        let spki = spki_of_public_key(KeyAlgorithm::P256, &public).map_err(|_length| malformed)?;
        Ok(Self { spki, name: [ALG_SHA256.to_be_bytes().as_slice(), &sha256(area)].concat() })
    }
}

fn check_attributes(attributes: u32) -> Result<(), Refusal> {
    let needed = attribute::FIXED_TPM | attribute::FIXED_PARENT | attribute::SENSITIVE_DATA_ORIGIN | attribute::SIGN;
    if attributes & needed != needed {
        return Err(Refusal::PublicArea("the key could leave its TPM, or was not made in it"));
    }
    if attributes & (attribute::RESTRICTED | attribute::DECRYPT) != 0 {
        return Err(Refusal::PublicArea("the key is not one for signatures alone"));
    }
    Ok(())
}

/// An endorsement key, of which this crate speaks three: RSA-2048 and ECC P-256 with SHA-256 and AES-128 (templates L-1
/// and L-2 of the EK Credential Profile), ECC P-384 with SHA-384 and AES-256 (template H-3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndorsementKey {
    pub(super) spki: Vec<u8>,
    pub(super) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Rsa2048,
    Ecc { algorithm: KeyAlgorithm, point: Vec<u8> },
}

impl EndorsementKey {
    /// Believes the EK of `certificate` for a device, or does not: its hash is registered for the device, or it is listed
    /// or certified by a TPM maker's CA that the line names, and the line binds what comes first. `issuers` are the
    /// certificates between, DER; `bound` is the EK that the device has proven before.
    ///
    /// # Errors
    /// [`Refusal::EndorsementKey`] with what is wrong.
    pub fn accept(
        policy: &EndorsementPolicy,
        registered: Option<[u8; 32]>,
        bound: Option<[u8; 32]>,
        certificate: &[u8],
        issuers: &[&[u8]],
        now: UnixMillis,
    ) -> Result<Self, Refusal> {
        let presented = PresentedCertificate::from_der(certificate)
            .ok_or(Refusal::EndorsementKey("its certificate cannot be read"))?;
        let key = Self::from_spki(&presented.spki)?;
        let hash = key.sha256();
        match registered.or(bound) {
            Some(expected) if expected == hash => Ok(key),
            Some(_) => Err(Refusal::EndorsementKey("it is not the one of this device")),
            None if !policy.bind_first => Err(Refusal::EndorsementKey("none is registered for this device")),
            None if is_listed(policy, hash) || is_certified(policy, certificate, issuers, now) => Ok(key),
            None => Err(Refusal::EndorsementKey("neither listed nor certified by a TPM maker that the line names")),
        }
    }

    /// An EK by its SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`Refusal::EndorsementKey`] for any but RSA-2048, P-256 and P-384.
    pub fn from_spki(spki: &[u8]) -> Result<Self, Refusal> {
        let kind = match public_key_of_spki(spki) {
            Ok((algorithm @ (KeyAlgorithm::P256 | KeyAlgorithm::P384), point)) if is_public_key(algorithm, point) => {
                Kind::Ecc { algorithm, point: point.to_vec() }
            }
            Ok(_) => return Err(Refusal::EndorsementKey("it is neither RSA-2048 nor P-256 nor P-384")),
            Err(_other) if is_rsa_2048(spki) => Kind::Rsa2048,
            Err(_other) => return Err(Refusal::EndorsementKey("it is neither RSA-2048 nor P-256 nor P-384")),
        };
        Ok(Self { spki: spki.to_vec(), kind })
    }

    /// SHA-256 of its SubjectPublicKeyInfo: how it is registered.
    #[must_use]
    pub fn sha256(&self) -> [u8; 32] {
        sha256(&self.spki)
    }

    /// The hash of its template.
    pub(super) const fn hash(&self) -> SignatureHash {
        match self.kind {
            Kind::Ecc { algorithm: KeyAlgorithm::P384, .. } => SignatureHash::Sha384,
            _ => SignatureHash::Sha256,
        }
    }

    /// Octets of the AES key of its template.
    pub(super) const fn symmetric_octets(&self) -> usize {
        match self.hash() {
            SignatureHash::Sha256 => 16,
            _ => 32,
        }
    }
}

/// `SEQUENCE { rsaEncryption, BIT STRING }` of a modulus of 2,048 bits and the exponent 65,537, which has one length.
fn is_rsa_2048(spki: &[u8]) -> bool {
    const PREFIX: [u8; 28] = [
        0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
        0x00, 0x03, 0x82, 0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a,
    ];
    spki.len() == 294 && spki.starts_with(&PREFIX) && spki.ends_with(&[0x02, 0x03, 0x01, 0x00, 0x01])
}

fn is_listed(policy: &EndorsementPolicy, hash: [u8; 32]) -> bool {
    let hash = hex::encode(hash);
    policy.keys.iter().take(MAX_LISTED).any(|listed| listed.eq_ignore_ascii_case(&hash))
}

fn is_certified(policy: &EndorsementPolicy, certificate: &[u8], issuers: &[&[u8]], now: UnixMillis) -> bool {
    let anchors: Vec<Vec<u8>> = policy
        .authorities
        .iter()
        .take(MAX_LISTED)
        .filter_map(|pem| kf_pki::pem::decode_all("CERTIFICATE", pem))
        .flatten()
        .collect();
    let anchors: Vec<&[u8]> = anchors.iter().map(Vec::as_slice).collect();
    verify_endorsement(certificate, issuers, &anchors, now).is_ok()
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn u16(&mut self) -> Option<u16> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*number))
    }

    fn u32(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    /// Two octets of length, then so many.
    fn sized(&mut self) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?);
        let (octets, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(octets)
    }
}
