//! A batch for tests: a factory CA, a station with its keys, a quota and records.

use kf_api::batch::Outcome;
use kf_crypto::PrivateKey;
use kf_key::{
    AuthorityId, BatchId, CertificateProfile, DeviceId, FacilityId, KeyAlgorithm, OperatorId, ProductLineId,
    SecretArray, SerialNumber, UnixMillis,
};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance, check_root};
use kf_pki::issuer::Issuer;
use kf_pki::request::RequestedKey;

use crate::device_list::{DeviceList, Naming};
use crate::key::P256Key;
use crate::quota::{Quota, QuotaTerms, quota_hash};
use crate::record::{Check, EntropyEvidence, KeyOrigin, MadeKey, Record};
use crate::salt::SealedBatchKey;

pub(crate) const NOW: UnixMillis = UnixMillis(1_790_000_000_000);
const URL: &str = "http://pki.example";

pub(crate) fn key() -> (PrivateKey, P256Key) {
    let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
    let public = P256Key::from_spki(&key.spki()).unwrap();
    (key, public)
}

fn requested(key: &PrivateKey) -> RequestedKey {
    RequestedKey::from_spki(&key.spki()).unwrap()
}

/// A fleet, a station and what passes between them.
pub(crate) struct Sample {
    pub(crate) server: PrivateKey,
    pub(crate) server_key: P256Key,
    pub(crate) authority: PrivateKey,
    pub(crate) record: PrivateKey,
    pub(crate) record_key: P256Key,
    pub(crate) quota: Quota,
    pub(crate) document: Vec<u8>,
}

impl Sample {
    pub(crate) fn new(count: u32) -> Self {
        let factory = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let (server, server_key) = key();
        let authority = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let ((_, transport_key), (record, record_key)) = (key(), key());
        let expires = NOW.plus(7 * UnixMillis::DAY);
        let subject = |name: &str| Subject::Authority { common_name: name.into(), organization: "Acme".into() };
        let request = |profile, name, key: &PrivateKey, end| IssuanceRequest {
            profile,
            subject: subject(name),
            key: requested(key),
            serial: SerialNumber::from_parts(NOW, [7; 16]),
            not_before: NOW,
            not_after: Some(end),
        };
        let long = NOW.plus(3_650 * UnixMillis::DAY);
        let checked = check_root(request(CertificateProfile::Root, "factory root", &factory, long)).unwrap();
        let signature = factory.sign(checked.tbs()).unwrap();
        let root = checked.complete(&signature).unwrap();
        let issuer = Issuer::from_certificate(AuthorityId::from_bytes([1; 16]), &root.der, 1, URL).unwrap();
        let request = request(CertificateProfile::IssuingCa, "batch", &authority, expires);
        let checked = check_issuance(&issuer, request).unwrap();
        let signature = factory.sign(checked.tbs()).unwrap();
        let batch_authority = checked.complete(&signature).unwrap();
        let naming = Naming { prefix: "pump-".into(), digits: 6, first: 1 };
        let terms = QuotaTerms {
            batch: BatchId::from_parts(NOW, [3; 10]),
            name: "pump-2026-11".into(),
            facility: FacilityId::from_bytes([4; 16]),
            facility_epoch: 1,
            product_line: ProductLineId::from_bytes([5; 16]),
            product_line_name: "pump".into(),
            organization: "Acme".into(),
            station: OperatorId::from_bytes([6; 16]),
            station_name: "line-1".into(),
            sequence: 4,
            recipe: [8; 32],
            allows_unsafe: false,
            allows_early_enrolment: false,
            issued: NOW,
            expires,
            server: "fleet.example:8443".into(),
            anchor: root.der.clone(),
            authority: AuthorityId::from_bytes([2; 16]),
            authority_certificate: batch_authority.der,
            factory_certificate: root.der,
            base_url: URL.into(),
            devices: DeviceList::fresh(NOW, [9; 10], count, naming).unwrap(),
            transport_key,
            record_key,
        };
        let batch_key = SecretArray::fill(|octets| octets.fill(0x5a));
        let batch_key = SealedBatchKey::seal(&batch_key, &transport_key, &terms.hash()).unwrap();
        let quota = Quota { terms, salt_key: key().1, batch_key };
        let document = sign_quota(&quota, &server, &server_key);
        Self { server, server_key, authority, record, record_key, quota, document }
    }

    pub(crate) fn device(&self, position: u32) -> DeviceId {
        self.quota.terms.devices.device(position).unwrap()
    }

    /// A record as an honest station makes it.
    pub(crate) fn made(&self, position: u32, sequence: u64, previous: [u8; 32], outcome: Outcome) -> Record {
        let device = self.device(position);
        let passed = outcome == Outcome::Passed;
        let key = PrivateKey::generate(KeyAlgorithm::P256).unwrap();
        let at = NOW.plus(sequence * 1_000);
        Record {
            batch: self.quota.terms.batch,
            sequence,
            previous,
            device,
            outcome,
            at,
            fixture: "fixture-3".into(),
            operator: "Ana".into(),
            recipe: self.quota.terms.recipe,
            firmware: Some([1; 32]),
            key: Some(MadeKey { origin: KeyOrigin::Device, spki_sha256: kf_crypto::sha256(&key.spki()) }),
            certificate: passed.then(|| self.certify(device, &key, at)),
            fingerprints: Vec::new(),
            salt: None,
            entropy: Some(EntropyEvidence { source: "token".into(), samples: 1_024, failures: 0 }),
            hardware: Vec::new(),
            checks: vec![Check { name: "read-back".into(), passed: true, detail: None }],
            unsafe_marks: Vec::new(),
            reason: (!passed).then(|| "the fixture hung".into()),
        }
    }

    pub(crate) fn certify(&self, device: DeviceId, key: &PrivateKey, at: UnixMillis) -> Vec<u8> {
        let terms = &self.quota.terms;
        let subject = Subject::Device {
            organization: terms.organization.clone(),
            device,
            name: terms.devices.name(device).unwrap(),
            product_line: terms.product_line_name.clone(),
        };
        self.certify_as(subject, key, at)
    }

    pub(crate) fn certify_as(&self, subject: Subject, key: &PrivateKey, at: UnixMillis) -> Vec<u8> {
        let request = IssuanceRequest {
            profile: CertificateProfile::IDevId,
            subject,
            key: requested(key),
            serial: SerialNumber::from_parts(at, *kf_crypto::sha256(&key.spki()).first_chunk().unwrap()),
            not_before: at,
            not_after: None,
        };
        let checked = check_issuance(&self.quota.terms.issuer().unwrap(), request).unwrap();
        let signature = self.authority.sign(checked.tbs()).unwrap();
        checked.complete(&signature).unwrap().der
    }

    pub(crate) fn sign(&self, record: &Record) -> Vec<u8> {
        let unsigned = record.prepare(&self.record_key).unwrap();
        let signature = self.record.sign(&unsigned.to_be_signed()).unwrap();
        unsigned.complete(&signature).unwrap()
    }

    pub(crate) fn quota_hash(&self) -> [u8; 32] {
        quota_hash(&self.document)
    }
}

pub(crate) fn sign_quota(quota: &Quota, server: &PrivateKey, server_key: &P256Key) -> Vec<u8> {
    let unsigned = quota.prepare(server_key).unwrap();
    let signature = server.sign(&unsigned.to_be_signed()).unwrap();
    unsigned.complete(&signature).unwrap()
}
