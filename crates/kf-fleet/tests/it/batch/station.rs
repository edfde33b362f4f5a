//! A factory station, as far as the server can tell: keys, a quota, and records. What it makes is right unless a test says otherwise.

use base64::Engine as _;
use kf_api::batch::{BatchImport, BatchOutcome, NewBatch, Outcome};
use kf_api::operator::{Credential, NewOperator, Role};
use kf_batch::P256Key;
use kf_batch::frame::{document_hash, split_quota};
use kf_batch::keys_destroyed::KeysDestroyed;
use kf_batch::manifest::{Counts, Manifest};
use kf_batch::quota::{Quota, StationKnows, quota_hash};
use kf_batch::record::{Check, EntropyEvidence, KeyOrigin, MadeKey, Record};
use kf_batch::salt::SaltSealer;
use kf_batch::station_request::StationRequest;
use kf_crypto::{HpkePrivateKey, PrivateKey};
use kf_fleet::{FleetError, Principal};
use kf_key::{CertificateProfile, DeviceId, KeyAlgorithm, SecretArray, SerialNumber, UnixMillis};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance};
use kf_pki::request::{RequestedKey, make_request};

use crate::scratch::Scratch;

pub(crate) const RECIPE: [u8; 32] = [0xab; 32];

pub(crate) fn fresh() -> PrivateKey {
    PrivateKey::generate(KeyAlgorithm::P256).unwrap()
}

fn public(key: &PrivateKey) -> P256Key {
    P256Key::from_spki(&key.spki()).unwrap()
}

/// A station with its identity key, known to the server.
pub(crate) struct Station {
    pub(crate) name: String,
    pub(crate) identity: PrivateKey,
    pub(crate) principal: Principal,
}

/// The keys that a station made for one batch.
pub(crate) struct BatchKeys {
    pub(crate) authority: PrivateKey,
    pub(crate) record: PrivateKey,
    transport: HpkePrivateKey,
}

impl Station {
    pub(crate) async fn new(scratch: &Scratch, name: &str, facility: &str) -> Self {
        let identity = fresh();
        let new = NewOperator {
            name: name.into(),
            role: Role::Station,
            facilities: vec![facility.into()],
            voucher_key_pem: Some(kf_pki::pem::encode("PUBLIC KEY", &identity.spki())),
        };
        let made = scratch.fleet.operator_create(&scratch.owner, new).await.unwrap();
        let principal = Principal::new(made.id.to_string(), made.name, made.role, made.facilities, Credential::Token);
        Self { name: name.into(), identity, principal }
    }

    /// What it hands in at `now`.
    pub(crate) fn request(&self, now: UnixMillis) -> (BatchKeys, Vec<u8>) {
        let (authority, record) = (fresh(), fresh());
        let transport = HpkePrivateKey::derive(&kf_crypto::random_secret().unwrap()).unwrap();
        let request = StationRequest {
            station: self.name.clone(),
            authority_csr: make_request(&authority, "").unwrap(),
            transport_key: P256Key::from_point(*transport.public_key()).unwrap(),
            record_key: public(&record),
            made: now,
            nonce: kf_crypto::random_array().unwrap(),
        };
        let unsigned = request.prepare(&public(&self.identity)).unwrap();
        let signature = self.identity.sign(&unsigned.to_be_signed()).unwrap();
        (BatchKeys { authority, record, transport }, unsigned.complete(&signature).unwrap())
    }
}

pub(crate) fn new_batch(name: &str, count: u32, request: &[u8]) -> NewBatch {
    NewBatch {
        name: name.into(),
        product_line: "thermo".into(),
        facility: "plant-a".into(),
        profile: None,
        count,
        name_prefix: None,
        first_number: None,
        digits: None,
        station_request: base64::engine::general_purpose::STANDARD.encode(request),
        recipe_sha256: hex::encode(RECIPE),
        lifetime_hours: None,
        allow_unsafe: false,
        allow_early_enrolment: false,
        why: "order 4711".into(),
        dry_run: false,
    }
}

/// A device that came off the line.
pub(crate) struct Made {
    pub(crate) key: PrivateKey,
    pub(crate) certificate: Vec<u8>,
    pub(crate) record: Record,
    pub(crate) document: Vec<u8>,
}

/// A batch being made.
pub(crate) struct Line {
    pub(crate) keys: BatchKeys,
    pub(crate) quota: Quota,
    pub(crate) document: Vec<u8>,
    sealer: SaltSealer,
    sequence: u64,
    head: [u8; 32],
    counts: Counts,
    at: UnixMillis,
}

impl Line {
    /// Authorises a batch and has the station take the quota.
    pub(crate) async fn start(scratch: &Scratch, station: &Station, name: &str, count: u32) -> Self {
        Self::with(scratch, station, name, count, |_| {}).await
    }

    pub(crate) async fn with(
        scratch: &Scratch,
        station: &Station,
        name: &str,
        count: u32,
        adjust: impl FnOnce(&mut NewBatch),
    ) -> Self {
        let (keys, request) = station.request(scratch.clock_now());
        let mut new = new_batch(name, count, &request);
        adjust(&mut new);
        let outcome: BatchOutcome = scratch.fleet.batch_create(&scratch.owner, new).await.unwrap();
        assert!(outcome.done);
        let document = scratch.fleet.batch_quota(&station.principal, name).await.unwrap();
        Self::take(scratch, station, keys, document).await
    }

    pub(crate) async fn take(scratch: &Scratch, station: &Station, keys: BatchKeys, document: Vec<u8>) -> Self {
        let pins = scratch.fleet.station_pins(&station.principal).await.unwrap();
        let pinned = kf_pki::pem::decode_all("PUBLIC KEY", &pins.batch_key_pem).unwrap();
        let document = split_quota(&document).unwrap().item.to_vec();
        let server_key = P256Key::from_spki(&pinned[0]).unwrap();
        let knows = StationKnows {
            server_key: &server_key,
            station: &station.name,
            transport_key: &P256Key::from_point(*keys.transport.public_key()).unwrap(),
            record_key: &public(&keys.record),
            last_sequence: 0,
        };
        let quota = Quota::verify(&document, &knows, scratch.clock_now()).unwrap();
        let sealer = SaltSealer::new(&quota.salt_key, quota.terms.batch).unwrap();
        let at = quota.terms.issued;
        Self { keys, sealer, sequence: 0, head: quota_hash(&document), counts: Counts::default(), at, quota, document }
    }

    /// A copy of the station, as it stands.
    pub(crate) fn copied(&self) -> Self {
        let pkcs8 = |key: &PrivateKey| PrivateKey::from_pkcs8(KeyAlgorithm::P256, &key.to_pkcs8().unwrap()).unwrap();
        let transport = HpkePrivateKey::derive(&kf_crypto::random_secret().unwrap()).unwrap();
        Self {
            keys: BatchKeys { authority: pkcs8(&self.keys.authority), record: pkcs8(&self.keys.record), transport },
            quota: self.quota.clone(),
            document: self.document.clone(),
            sealer: SaltSealer::new(&self.quota.salt_key, self.quota.terms.batch).unwrap(),
            sequence: self.sequence,
            head: self.head,
            counts: self.counts,
            at: self.at,
        }
    }

    /// What the holder of `by` says of the keys of this batch.
    pub(crate) fn keys_destroyed(&self, by: &PrivateKey, adjust: impl FnOnce(&mut KeysDestroyed)) -> Vec<u8> {
        let terms = &self.quota.terms;
        let mut destroyed = KeysDestroyed {
            batch: terms.batch,
            generation: 1,
            keys: [public(&self.keys.authority), terms.record_key, terms.transport_key].map(|key| key.spki_sha256()),
            method: "looked for".into(),
            is_given_up: false,
            at: self.at,
        };
        adjust(&mut destroyed);
        let unsigned = destroyed.prepare(&public(by)).unwrap();
        let signature = by.sign(&unsigned.to_be_signed()).unwrap();
        unsigned.complete(&signature).unwrap()
    }

    pub(crate) fn device(&self, position: u32) -> DeviceId {
        self.quota.terms.devices.device(position).unwrap()
    }

    /// The batch key, which only the holder of the transport key can have.
    pub(crate) fn batch_key(&self) -> SecretArray<32> {
        let agreed = self.keys.transport.agree(self.quota.batch_key.encapsulated()).unwrap();
        self.quota.open_batch_key(&agreed).unwrap()
    }

    pub(crate) fn certify(&self, device: DeviceId, key: &PrivateKey, at: UnixMillis) -> Vec<u8> {
        let terms = &self.quota.terms;
        let subject = Subject::Device {
            organization: terms.organization.clone(),
            device,
            name: terms.devices.name(device).unwrap_or_else(|| "thermo-x".into()),
            product_line: terms.product_line_name.clone(),
        };
        let request = IssuanceRequest {
            profile: CertificateProfile::IDevId,
            subject,
            key: RequestedKey::from_spki(&key.spki()).unwrap(),
            serial: SerialNumber::from_parts(at, kf_crypto::random_array().unwrap()),
            not_before: at,
            not_after: None,
        };
        let checked = check_issuance(&terms.issuer().unwrap(), request).unwrap();
        let signature = self.keys.authority.sign(checked.tbs()).unwrap();
        checked.complete(&signature).unwrap().der
    }

    /// Makes the device at a position.
    pub(crate) fn make(&mut self, position: u32, outcome: Outcome) -> Made {
        self.make_with(position, outcome, |_| {})
    }

    pub(crate) fn make_with(&mut self, position: u32, outcome: Outcome, adjust: impl FnOnce(&mut Record)) -> Made {
        let device = self.device(position);
        self.at = self.at.plus(1_000);
        let key = fresh();
        // The fleet's clock stands still in these tests, the station's goes on.
        let certificate = self.certify(device, &key, self.quota.terms.issued);
        let salt = SecretArray::fill(|salt: &mut [u8; 16]| salt.fill(u8::try_from(position % 250).unwrap()));
        let salt = self.sealer.seal(device, &salt).unwrap();
        let passed = outcome == Outcome::Passed;
        let mut record = Record {
            batch: self.quota.terms.batch,
            sequence: self.sequence + 1,
            previous: self.head,
            device,
            outcome,
            at: self.at,
            fixture: format!("fixture-{}", position % 8),
            operator: "Ana".into(),
            recipe: RECIPE,
            firmware: Some([7; 32]),
            key: Some(MadeKey { origin: KeyOrigin::Device, spki_sha256: kf_crypto::sha256(&key.spki()) }),
            certificate: Some(certificate.clone()),
            fingerprints: Vec::new(),
            salt: Some(salt),
            entropy: Some(EntropyEvidence { source: "token".into(), samples: 1_024, failures: 0 }),
            hardware: Vec::new(),
            checks: vec![Check { name: "read-back".into(), passed: true, detail: None }],
            unsafe_marks: Vec::new(),
            reason: (!passed).then(|| "the fixture hung".into()),
        };
        adjust(&mut record);
        let document = self.sign(&record);
        self.sequence += 1;
        self.head = document_hash(&document);
        match outcome {
            Outcome::Passed => self.counts.passed += 1,
            Outcome::Scrapped => self.counts.scrapped += 1,
            Outcome::Rework => self.counts.rework += 1,
        }
        Made { key, certificate, record, document }
    }

    pub(crate) fn sign(&self, record: &Record) -> Vec<u8> {
        let unsigned = record.prepare(&public(&self.keys.record)).unwrap();
        let signature = self.keys.record.sign(&unsigned.to_be_signed()).unwrap();
        unsigned.complete(&signature).unwrap()
    }

    pub(crate) fn manifest(&self, is_final: bool) -> Vec<u8> {
        let manifest = Manifest {
            batch: self.quota.terms.batch,
            last: self.sequence,
            head: self.head,
            counts: self.counts,
            at: self.at,
            operator: "Ana".into(),
            is_final,
        };
        let unsigned = manifest.prepare(&public(&self.keys.record)).unwrap();
        let signature = self.keys.record.sign(&unsigned.to_be_signed()).unwrap();
        unsigned.complete(&signature).unwrap()
    }
}

/// Imports these documents as the station itself.
pub(crate) async fn import<'a>(
    scratch: &Scratch,
    station: &Station,
    batch: &str,
    documents: impl IntoIterator<Item = &'a Vec<u8>>,
) -> BatchImport {
    let sequence: Vec<u8> = documents.into_iter().flatten().copied().collect();
    try_import(scratch, station, batch, sequence).await.unwrap()
}

pub(crate) async fn try_import(
    scratch: &Scratch,
    station: &Station,
    batch: &str,
    sequence: Vec<u8>,
) -> Result<BatchImport, FleetError> {
    scratch.fleet.batch_import(&station.principal, batch, sequence, false).await
}
