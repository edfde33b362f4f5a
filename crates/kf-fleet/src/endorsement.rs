//! Proof that a device's key lives in its TPM: what `kf_enrol::endorsement` decides, with the registry behind it.

use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kf_api::device::Device;
use kf_api::endorsement::{Endorsement, EndorsementAnswer, EndorsementChallenge, EndorsementRequest};
use kf_api::product_line::{ENDORSEMENT_ATTRIBUTE, EndorsementPolicy, ProductLine};
use kf_enrol::Refusal;
use kf_enrol::endorsement::{
    AttestedKey, Challenge, Challenges, Endorsed, EndorsementKey, MAX_PUBLIC_AREA_OCTETS, make_credential,
};
use kf_key::CertificateStatus;
use kf_pki::request::RequestedKey;
use kf_store::endorsement::ProvenKey;

use crate::enrolment::{Claim, EnrolCredential, TlsClient, device_principal};
use crate::entry::Entry;
use crate::{Fleet, FleetError};

/// The most octets of a certificate, decoded; makers' RSA certificates are below 2 KiB.
const MAX_CERTIFICATE_OCTETS: usize = 8 * 1024;
/// The most certificates between an endorsement certificate and its maker's root.
const MAX_ISSUERS: usize = 8;
/// The most CA certificates of makers in a policy.
const MAX_AUTHORITIES: usize = 64;
/// The most endorsement keys in a policy.
const MAX_KEYS: usize = 4_096;

/// The challenges that wait, in memory: a restart costs devices a retry.
#[derive(Default)]
pub(crate) struct Waiting(Mutex<Challenges>);

/// A device, and what it showed; not judged yet.
pub struct EndorsementClaim(Claim);

impl std::fmt::Debug for EndorsementClaim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("EndorsementClaim").field(&self.0.device.id).finish()
    }
}

impl Fleet {
    /// Finds the device that shows an enrolment code, a voucher, its IDevID or the certificate it holds.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`], [`FleetError::TooMany`] after failed attempts.
    pub async fn endorsement_claim(
        &self,
        client: TlsClient<'_>,
        credential: EnrolCredential,
    ) -> Result<EndorsementClaim, FleetError> {
        Ok(EndorsementClaim(self.claim(client, &credential).await?))
    }

    /// A challenge for a device. What it showed is not used up.
    ///
    /// # Errors
    /// As [`Fleet::est_simple_enroll`]; [`FleetError::Conflict`] when the product line asks for no TPM.
    pub async fn endorsement_challenge(
        &self,
        client: TlsClient<'_>,
        claim: EndorsementClaim,
        request: &EndorsementRequest,
    ) -> Result<EndorsementChallenge, FleetError> {
        let EndorsementClaim(claim) = claim;
        let line = self.line(claim.device.product_line)?;
        let policy = line.policy.endorsement.as_ref().ok_or_else(no_endorsement)?;
        let key = decode("public_area", &request.public_area, MAX_PUBLIC_AREA_OCTETS)?;
        let key = AttestedKey::from_public_area(&key).map_err(super::enrolment::of_rule)?;
        let requested = RequestedKey::from_spki(&key.spki).map_err(super::enrolment::of_request)?;
        if let Err(refused) = claim.may_prove(&requested, &line, self.now()) {
            return Err(self.refused(&claim, client, refused).await);
        }
        let outcome = self.challenge(&claim.device, policy, &key, &requested, request);
        self.note_refusal(&claim.device, claim.credential(), outcome).await
    }

    fn challenge(
        &self,
        device: &Device,
        policy: &EndorsementPolicy,
        key: &AttestedKey,
        requested: &RequestedKey,
        request: &EndorsementRequest,
    ) -> Result<EndorsementChallenge, FleetError> {
        let field = "endorsement_certificate";
        let certificate = decode(field, &request.endorsement_certificate, MAX_CERTIFICATE_OCTETS)?;
        if request.issuers.len() > MAX_ISSUERS {
            return Err(FleetError::invalid("issuers", "there are too many", "send at most 8, without the root"));
        }
        let issuers: Vec<Vec<u8>> = request
            .issuers
            .iter()
            .map(|issuer| decode("issuers", issuer, MAX_CERTIFICATE_OCTETS))
            .collect::<Result<_, _>>()?;
        let issuers: Vec<&[u8]> = issuers.iter().map(Vec::as_slice).collect();
        let registered = registered_endorsement(device);
        let bound = self.store.bound_endorsement_key(device.id)?;
        let now = self.now();
        let endorsement = EndorsementKey::accept(policy, registered, bound, &certificate, &issuers, now)
            .map_err(super::enrolment::of_rule)?;
        let (secret, seed) = (kf_crypto::random_secret()?, kf_crypto::random_secret()?);
        let made = make_credential(&endorsement, key, &secret, seed)?;
        let id = kf_crypto::random_array()?;
        let challenge = Challenge::new(device.id, requested.spki_sha256, endorsement.sha256(), secret, now);
        let expires = challenge.expires();
        self.challenges.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, challenge, now);
        Ok(EndorsementChallenge {
            id: hex::encode(id),
            credential: STANDARD.encode(made.blob),
            encrypted_seed: STANDARD.encode(made.encrypted_seed),
            expires,
        })
    }

    /// Takes the answer to a challenge, which is gone afterwards, whatever the answer.
    ///
    /// # Errors
    /// [`FleetError::Unauthenticated`] for a wrong, late or repeated answer, [`FleetError::TooMany`] after several,
    /// [`FleetError::Conflict`] when the device was bound to another TPM in the meantime.
    pub async fn endorsement_answer(
        &self,
        client: TlsClient<'_>,
        claim: EndorsementClaim,
        id: &str,
        answer: &EndorsementAnswer,
    ) -> Result<Endorsement, FleetError> {
        let EndorsementClaim(claim) = claim;
        let (credential, device) = (claim.credential(), claim.device);
        let id = fixed::<16>("id", id)?;
        let answer = fixed::<32>("answer", &answer.answer)?;
        let now = self.now();
        let answered = self.challenges.0.lock().unwrap_or_else(PoisonError::into_inner).answer(&id, answer, now);
        let Some(proven) = answered.filter(|proven| proven.device == device.id) else {
            self.count_attempt(client.address);
            return Err(FleetError::Unauthenticated);
        };
        let spki_sha256 = hex::encode(proven.spki_sha256);
        let endorsement_key_sha256 = hex::encode(proven.endorsement_sha256);
        let who = device_principal(&device, credential);
        let entry = Entry::done(&who, "endorsement.prove", now)
            .about(device.id)
            .about(format!("spki:{spki_sha256}"))
            .at_facility(Some(device.facility))
            .with("endorsement_key_sha256", &endorsement_key_sha256);
        let key = ProvenKey {
            device: device.id,
            spki: proven.spki_sha256,
            endorsement_key: proven.endorsement_sha256,
            proven: now,
        };
        let is_registered = registered_endorsement(&device) == Some(proven.endorsement_sha256);
        self.store.record_proven_key(key, is_registered, entry.build()).await?;
        Ok(Endorsement { spki_sha256, endorsement_key_sha256 })
    }

    /// What is known of a key, for the rules.
    pub(crate) fn endorsed<'a>(
        &self,
        device: &Device,
        line: &'a ProductLine,
        key: &RequestedKey,
    ) -> Result<Endorsed<'a>, FleetError> {
        let policy = line.policy.endorsement.as_ref();
        let proven = match policy {
            Some(_) => self.store.proven_key(device.id, &key.spki_sha256)?,
            None => None,
        };
        Ok(Endorsed { policy, registered: registered_endorsement(device), proven })
    }
}

/// Whether a certificate that a device holds lets it prove another key.
pub(crate) fn may_prove_by_certificate(
    device: &Device,
    registered: &kf_api::certificate::Certificate,
) -> Result<(), Refusal> {
    match registered.status {
        CertificateStatus::Good => {}
        status @ (CertificateStatus::Held | CertificateStatus::Revoked) => return Err(Refusal::NotGood(status)),
    }
    if registered.device != Some(device.id) {
        return Err(Refusal::OtherDevice);
    }
    if device.state.may_enrol() { Ok(()) } else { Err(Refusal::DeviceState(device.state)) }
}

/// The endorsement key that an operator registered. An attribute that is no hash matches none.
fn registered_endorsement(device: &Device) -> Option<[u8; 32]> {
    let text = device.attributes.get(ENDORSEMENT_ATTRIBUTE)?;
    let mut octets = [0; 32];
    Some(match hex::decode_to_slice(text, &mut octets) {
        Ok(()) => octets,
        Err(_not_a_hash) => [0; 32],
    })
}

/// Refuses what could not work.
pub(crate) fn check_policy(policy: &EndorsementPolicy) -> Result<(), FleetError> {
    let EndorsementPolicy { bind_first: _, authorities, keys } = policy;
    let is_certificate = |pem: &String| {
        kf_pki::pem::decode_all("CERTIFICATE", pem).is_some_and(|certificates| {
            !certificates.is_empty()
                && certificates.iter().all(|der| kf_pki::certificate::PresentedCertificate::from_der(der).is_some())
        })
    };
    if authorities.len() > MAX_AUTHORITIES || !authorities.iter().all(is_certificate) {
        let problem = "is not a list of at most 64 certificates in PEM";
        let remedy = "give the CA certificates of the TPMs' makers";
        return Err(FleetError::invalid("policy.endorsement.authorities", problem, remedy));
    }
    if keys.len() > MAX_KEYS || !keys.iter().all(|key| fixed::<32>("keys", key).is_ok()) {
        let problem = "is not a list of at most 4096 hashes";
        let remedy = "give the SHA-256 of each endorsement key's SubjectPublicKeyInfo as 64 hexadecimal digits";
        return Err(FleetError::invalid("policy.endorsement.keys", problem, remedy));
    }
    Ok(())
}

fn decode(field: &str, text: &str, limit: usize) -> Result<Vec<u8>, FleetError> {
    let remedy = "send base64 (RFC 4648 section 4) of the octets";
    if text.len() > limit.saturating_mul(4) / 3 + 4 {
        return Err(FleetError::invalid(field, "is too long", remedy));
    }
    STANDARD.decode(text).map_err(|_not_base64| FleetError::invalid(field, "is not base64", remedy))
}

fn fixed<const N: usize>(field: &str, text: &str) -> Result<[u8; N], FleetError> {
    let mut octets = [0; N];
    match hex::decode_to_slice(text, &mut octets) {
        Ok(()) => Ok(octets),
        Err(_other) => {
            Err(FleetError::invalid(field, "is not hexadecimal of the right length", "repeat it as it was given"))
        }
    }
}

fn no_endorsement() -> FleetError {
    FleetError::conflict(
        "product line",
        "it asks for no proof of a TPM",
        "enrol without one, or set `endorsement` in the product line's policy",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused_field(policy: EndorsementPolicy) -> Option<String> {
        match check_policy(&policy) {
            Ok(()) => None,
            Err(FleetError::Invalid { field, .. }) => Some(field),
            Err(other) => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_policy_names_certificates_and_hashes() {
        assert_eq!(refused_field(EndorsementPolicy::default()), None);
        let hash = "ab".repeat(32);
        assert_eq!(refused_field(EndorsementPolicy { keys: vec![hash.clone()], ..Default::default() }), None);
        for keys in [vec!["ab".to_owned()], vec![hash; MAX_KEYS + 1]] {
            let policy = EndorsementPolicy { keys, ..Default::default() };
            assert_eq!(refused_field(policy).as_deref(), Some("policy.endorsement.keys"));
        }
        for pem in ["", "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n"] {
            let policy = EndorsementPolicy { authorities: vec![pem.to_owned()], ..Default::default() };
            assert_eq!(refused_field(policy).as_deref(), Some("policy.endorsement.authorities"));
        }
    }
}
