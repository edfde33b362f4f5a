//! What a device is made of, and nothing around it: key, certificate, encrypted image, record. No journal, no read-back, no proof.

use kf_api::batch::Outcome;
use kf_batch::P256Key;
use kf_batch::frame::document_hash;
use kf_batch::quota::QuotaTerms;
use kf_batch::record::{Check, EntropyEvidence, Hardware, HardwareKind, KeyOrigin, MadeKey, Record};
use kf_crypto::PrivateKey;
use kf_key::{CertificateProfile, DeviceId, SecretArray, SerialNumber};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance};
use kf_pki::issuer::Issuer;
use kf_pki::request::RequestedKey;
use kf_station::target::{Material, Target};
use kf_station::token::{Generation, StationKey, StationToken};

use super::port::Output;
use crate::error::BenchError;

/// What is the same for all devices.
pub(super) struct Making<'a> {
    token: &'a dyn StationToken,
    target: &'a dyn Target,
    terms: &'a QuotaTerms,
    issuer: Issuer,
    record_key: P256Key,
    head: [u8; 32],
}

impl<'a> Making<'a> {
    pub(super) fn new(
        token: &'a dyn StationToken,
        target: &'a dyn Target,
        terms: &'a QuotaTerms,
    ) -> Result<Self, BenchError> {
        let issuer = terms.issuer().map_err(BenchError::failed("the batch CA"))?;
        let record_key =
            token.public_key(StationKey::Record(Generation::FIRST)).map_err(BenchError::failed("the record key"))?;
        Ok(Self { token, target, terms, issuer, record_key, head: [0; 32] })
    }

    /// Makes one device and writes its image.
    pub(super) fn make(&mut self, position: u32, output: &Output) -> Result<(), BenchError> {
        let device = self.terms.devices.device(position).unwrap_or(DeviceId::from_bytes([0; 16]));
        let name = self.terms.devices.name(device).unwrap_or_default();
        let scalar: SecretArray<32> = random()?;
        let key = PrivateKey::p256_from_scalar(&scalar).map_err(BenchError::failed("a key"))?;
        let requested = RequestedKey::from_spki(&key.spki()).map_err(BenchError::failed("a key"))?;
        let spki_sha256 = requested.spki_sha256;
        let certificate = self.certify(device, &name, requested)?;
        let chain = [certificate, self.terms.authority_certificate.clone()];
        let (device_key, fuse): (SecretArray<32>, SecretArray<32>) = (random()?, random()?);
        let material = Material {
            device,
            name: &name,
            product_line: &self.terms.product_line_name,
            server: "https://fleet.example:8443",
            anchor: &self.terms.anchor,
            chain: &chain,
            key: Some(&key),
            device_key: Some(&device_key),
            random: &fuse,
            flash_key: None,
        };
        let image = self.target.image(&material).map_err(BenchError::failed("an image"))?;
        output.write(position, &image).map_err(BenchError::io("an image"))?;
        let [certificate, _] = chain;
        self.record(device, position, spki_sha256, certificate)
    }

    fn certify(&self, device: DeviceId, name: &str, key: RequestedKey) -> Result<Vec<u8>, BenchError> {
        let random = kf_crypto::random_array().map_err(BenchError::failed("a number"))?;
        let request = IssuanceRequest {
            profile: CertificateProfile::IDevId,
            subject: Subject::Device {
                organization: self.terms.organization.clone(),
                device,
                name: name.to_owned(),
                product_line: self.terms.product_line_name.clone(),
            },
            key,
            serial: SerialNumber::from_parts(self.terms.issued, random),
            not_before: self.terms.issued,
            not_after: None,
        };
        let checked = check_issuance(&self.issuer, request).map_err(BenchError::failed("a certificate"))?;
        let signature = self.token.sign(StationKey::Authority(Generation::FIRST), checked.tbs());
        let signature = signature.map_err(BenchError::failed("a signature"))?;
        Ok(checked.complete(&signature).map_err(BenchError::failed("a certificate"))?.der)
    }

    fn record(
        &mut self,
        device: DeviceId,
        position: u32,
        spki_sha256: [u8; 32],
        certificate: Vec<u8>,
    ) -> Result<(), BenchError> {
        let check = |name: &str| Check { name: name.to_owned(), passed: true, detail: None };
        let record = Record {
            batch: self.terms.batch,
            sequence: u64::from(position) + 1,
            previous: self.head,
            device,
            outcome: Outcome::Passed,
            at: self.terms.issued,
            fixture: "fixture-1".to_owned(),
            operator: "Ana".to_owned(),
            recipe: self.terms.recipe,
            firmware: None,
            key: Some(MadeKey { origin: KeyOrigin::StationToken, spki_sha256 }),
            certificate: Some(certificate),
            fingerprints: Vec::new(),
            salt: None,
            entropy: Some(EntropyEvidence { source: "software".to_owned(), samples: 32, failures: 0 }),
            hardware: vec![Hardware { kind: HardwareKind::Address, value: position.to_be_bytes().to_vec() }],
            checks: ["read-back", "no-key-in-clear", "fuses", "proof-of-possession"].map(check).into(),
            unsafe_marks: Vec::new(),
            reason: None,
        };
        let unsigned = record.prepare(&self.record_key).map_err(BenchError::failed("a record"))?;
        let signature = self.token.sign(StationKey::Record(Generation::FIRST), &unsigned.to_be_signed());
        let signature = signature.map_err(BenchError::failed("a signature"))?;
        let document = unsigned.complete(&signature).map_err(BenchError::failed("a record"))?;
        self.head = document_hash(&document);
        Ok(())
    }
}

fn random() -> Result<SecretArray<32>, BenchError> {
    kf_crypto::random_secret().map_err(BenchError::failed("random octets"))
}
