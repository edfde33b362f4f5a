//! Merging what a factory station made: time, memory, octets.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read as _, Write as _};
use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use kf_access::Principal;
use kf_api::batch::{NewBatch, Outcome};
use kf_api::operator::{NewOperator, Role};
use kf_batch::P256Key;
use kf_batch::frame::{document_hash, split_item};
use kf_batch::quota::{Quota, quota_hash};
use kf_batch::record::{Check, EntropyEvidence, Hardware, HardwareKind, KeyOrigin, MadeKey, Record};
use kf_batch::salt::SaltSealer;
use kf_batch::station_request::StationRequest;
use kf_crypto::PrivateKey;
use kf_fleet::Clock as _;
use kf_key::{CertificateProfile, KeyAlgorithm, SecretArray, SerialNumber, UnixMillis};
use kf_pki::certificate::{IssuanceRequest, Subject, check_issuance};
use kf_pki::request::{RequestedKey, make_request};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, cpu_time, micros, peak_octets, resident_octets};
use crate::scratch_fleet::{FACILITY, LINE, ScratchFleet, fleet_error};
use crate::trivial_server::runtime;

const BATCH: &str = "batch";
const PIECE: usize = 1_024;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let count = effort.large.min(100_000);
    let scratch = ScratchFleet::create(&runtime)?;
    let started = Instant::now();
    let line = Line::start(&runtime, &scratch, count)?;
    let authorised = started.elapsed().as_secs_f64();
    let folder = tempfile::tempdir().map_err(BenchError::io("a folder for records"))?;
    let file = folder.path().join("records.cbor");
    let octets = line.make(count, &file)?;
    let verification = bare_verification()?;
    let before = resident_octets(std::process::id())?;
    let (started, cpu) = (Instant::now(), cpu_time());
    let merged = import(&runtime, &scratch, &file)?;
    let seconds = started.elapsed().as_secs_f64();
    let each = (cpu_time() - cpu).as_secs_f64() / f64::from(count);
    let peak = peak_octets()?;
    if merged != u64::from(count) {
        return Err(BenchError::Failed { what: "merging", why: format!("{merged} of {count} records") });
    }
    let started = Instant::now();
    import(&runtime, &scratch, &file)?;
    let again = started.elapsed().as_secs_f64();
    let mebibytes = |octets: u64| f64::from(u32::try_from(octets >> 10).unwrap_or(u32::MAX)) / 1_024.0;
    let name = |what: &str| format!("{what}, {count} devices");
    Ok(vec![
        Figure::value(name("batch authorised"), authorised, "s", Aim::None)
            .with_note("quota signed, devices registered, one transaction"),
        Figure::value(name("batch merged"), seconds, "s", Aim::None)
            .with_note("records and certificates verified, salts opened, registry and log durable"),
        Figure::ratio("merge of a record", micros(each), "us CPU", each / (2.0 * verification), "2 V", Aim::None)
            .with_note("V: a bare P-256 verification; a record has two signatures"),
        Figure::value(name("batch sent again"), again, "s", Aim::None),
        Figure::value(
            "memory that a merge adds at its peak",
            mebibytes(peak.saturating_sub(before)),
            "MiB",
            Aim::AtMost(96.0),
        ),
        Figure::value("record", per(octets, count), "octets", Aim::None)
            .with_note("as it travels, certificate and sealed salt in it"),
        Figure::value("registry", per(scratch.database_octets()?, count), "octets/device", Aim::None)
            .with_note("planned device, record, IDevID, key, salt, log entry, indexes"),
    ])
}

fn per(octets: u64, count: u32) -> f64 {
    f64::from(u32::try_from(octets / u64::from(count.max(1))).unwrap_or(u32::MAX))
}

/// CPU seconds of one bare P-256 verification.
fn bare_verification() -> Result<f64, BenchError> {
    let key = PrivateKey::generate(KeyAlgorithm::P256).map_err(BenchError::failed("a key"))?;
    let signature = key.sign(b"message").map_err(BenchError::failed("a signature"))?;
    crate::measure::cpu_per_operation(2_000, || {
        for _ in 0..2_000 {
            kf_crypto::verify(KeyAlgorithm::P256, key.public_key(), b"message", &signature)
                .map_err(BenchError::failed("a verification"))?;
        }
        Ok(())
    })
}

/// Sends a file in pieces, as the command line does; how many records were new.
fn import(runtime: &Runtime, scratch: &ScratchFleet, file: &Path) -> Result<u64, BenchError> {
    let mut reader = BufReader::new(File::open(file).map_err(BenchError::io("the records"))?);
    let (mut buffer, mut merged) = (Vec::new(), 0);
    let mut is_at_end = false;
    while !is_at_end || !buffer.is_empty() {
        let mut chunk = vec![0; 1 << 20];
        let read = reader.read(&mut chunk).map_err(BenchError::io("the records"))?;
        is_at_end = read == 0;
        buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        let mut end = 0;
        for _ in 0..PIECE {
            match split_item(buffer.get(end..).unwrap_or_default()) {
                Ok(Some(split)) => end += split.item.len(),
                Ok(None) => break,
                Err(error) => return Err(BenchError::Failed { what: "the records", why: error.to_string() }),
            }
        }
        let piece: Vec<u8> = buffer.drain(..end).collect();
        if piece.is_empty() {
            continue;
        }
        let report = runtime.block_on(scratch.fleet.batch_import(&scratch.owner, BATCH, piece, false));
        let report = report.map_err(fleet_error)?;
        if report.conflict_count + report.refused_count > 0 {
            return Err(BenchError::Failed { what: "merging", why: format!("{:?}", report.conflicts.first()) });
        }
        merged += report.merged;
    }
    Ok(merged)
}

/// A station, as far as the merge needs one.
struct Line {
    authority: PrivateKey,
    record: PrivateKey,
    quota: Quota,
    head: [u8; 32],
}

fn fresh() -> Result<PrivateKey, BenchError> {
    PrivateKey::generate(KeyAlgorithm::P256).map_err(BenchError::failed("a key"))
}

fn public(key: &PrivateKey) -> Result<P256Key, BenchError> {
    P256Key::from_spki(&key.spki()).map_err(BenchError::failed("a public key"))
}

impl Line {
    fn start(runtime: &Runtime, scratch: &ScratchFleet, count: u32) -> Result<Self, BenchError> {
        let (identity, authority, record) = (fresh()?, fresh()?, fresh()?);
        let new = NewOperator {
            name: "station".to_owned(),
            role: Role::Station,
            facilities: vec![FACILITY.to_owned()],
            voucher_key_pem: Some(kf_pki::pem::encode("PUBLIC KEY", &identity.spki())),
        };
        let owner: &Principal = &scratch.owner;
        runtime.block_on(scratch.fleet.operator_create(owner, new)).map_err(fleet_error)?;
        let request = StationRequest {
            station: "station".to_owned(),
            authority_csr: make_request(&authority, "").map_err(BenchError::failed("a request"))?,
            transport_key: public(&fresh()?)?,
            record_key: public(&record)?,
            made: kf_fleet::SystemClock.now(),
            nonce: [1; 16],
        };
        let unsigned = request.prepare(&public(&identity)?).map_err(BenchError::failed("a station request"))?;
        let signature = identity.sign(&unsigned.to_be_signed()).map_err(BenchError::failed("a signature"))?;
        let document = unsigned.complete(&signature).map_err(BenchError::failed("a station request"))?;
        let new = NewBatch {
            name: BATCH.to_owned(),
            product_line: LINE.to_owned(),
            facility: FACILITY.to_owned(),
            profile: None,
            count,
            name_prefix: None,
            first_number: None,
            digits: None,
            station_request: base64::engine::general_purpose::STANDARD.encode(document),
            recipe_sha256: "00".repeat(32),
            lifetime_hours: None,
            allow_unsafe: false,
            allow_early_enrolment: false,
            why: String::new(),
            dry_run: false,
        };
        runtime.block_on(scratch.fleet.batch_create(owner, new)).map_err(fleet_error)?;
        let document = runtime.block_on(scratch.fleet.batch_quota(owner, BATCH)).map_err(fleet_error)?;
        let pins = runtime.block_on(scratch.fleet.station_pins(owner)).map_err(fleet_error)?;
        let pinned = kf_pki::pem::decode_all("PUBLIC KEY", &pins.batch_key_pem).unwrap_or_default();
        let server = P256Key::from_spki(pinned.first().map_or(&[], Vec::as_slice));
        let server = server.map_err(BenchError::failed("the server's key"))?;
        let quota = Quota::open(&document, &server).map_err(BenchError::failed("the quota"))?;
        Ok(Self { authority, record, quota, head: quota_hash(&document) })
    }

    /// Writes the records of so many devices; how many octets they are.
    fn make(mut self, count: u32, file: &Path) -> Result<u64, BenchError> {
        let io = || BenchError::io("the records");
        let mut out = BufWriter::new(File::create(file).map_err(io())?);
        let sealer = SaltSealer::new(&self.quota.salt_key, self.quota.terms.batch);
        let mut sealer = sealer.map_err(BenchError::failed("sealing salts"))?;
        let mut octets = 0;
        for position in 0..count {
            let document = self.device(position, &mut sealer)?;
            octets += u64::try_from(document.len()).unwrap_or(0);
            out.write_all(&document).map_err(io())?;
        }
        out.flush().map_err(io())?;
        Ok(octets)
    }

    fn device(&mut self, position: u32, sealer: &mut SaltSealer) -> Result<Vec<u8>, BenchError> {
        let terms = &self.quota.terms;
        let device = terms.devices.device(position).unwrap_or(kf_key::DeviceId::from_bytes([0; 16]));
        let key = fresh()?;
        let at = terms.issued.plus(u64::from(position));
        let salt: SecretArray<16> = kf_crypto::random_secret().map_err(BenchError::failed("a salt"))?;
        let check = |name: &str| Check { name: name.to_owned(), passed: true, detail: None };
        let record = Record {
            batch: terms.batch,
            sequence: u64::from(position) + 1,
            previous: self.head,
            device,
            outcome: Outcome::Passed,
            at,
            fixture: format!("fixture-{}", position % 8),
            operator: "Ana".to_owned(),
            recipe: terms.recipe,
            firmware: Some([7; 32]),
            key: Some(MadeKey { origin: KeyOrigin::Device, spki_sha256: kf_crypto::sha256(&key.spki()) }),
            certificate: Some(self.certify(device, &key, at)?),
            fingerprints: Vec::new(),
            salt: Some(sealer.seal(device, &salt).map_err(BenchError::failed("sealing a salt"))?),
            entropy: Some(EntropyEvidence { source: "token".to_owned(), samples: 1_024, failures: 0 }),
            hardware: vec![Hardware { kind: HardwareKind::Address, value: position.to_be_bytes().to_vec() }],
            checks: ["read-back", "secure-boot", "jtag", "possession"].map(check).into(),
            unsafe_marks: Vec::new(),
            reason: None,
        };
        let unsigned = record.prepare(&public(&self.record)?).map_err(BenchError::failed("a record"))?;
        let signature = self.record.sign(&unsigned.to_be_signed()).map_err(BenchError::failed("a signature"))?;
        let document = unsigned.complete(&signature).map_err(BenchError::failed("a record"))?;
        self.head = document_hash(&document);
        Ok(document)
    }

    fn certify(&self, device: kf_key::DeviceId, key: &PrivateKey, at: UnixMillis) -> Result<Vec<u8>, BenchError> {
        let terms = &self.quota.terms;
        let subject = Subject::Device {
            organization: terms.organization.clone(),
            device,
            name: terms.devices.name(device).unwrap_or_default(),
            product_line: terms.product_line_name.clone(),
        };
        let request = IssuanceRequest {
            profile: CertificateProfile::IDevId,
            subject,
            key: RequestedKey::from_spki(&key.spki()).map_err(BenchError::failed("a key"))?,
            serial: SerialNumber::from_parts(at, kf_crypto::random_array().map_err(BenchError::failed("a number"))?),
            not_before: at,
            not_after: None,
        };
        let issuer = terms.issuer().map_err(BenchError::failed("the batch CA"))?;
        let checked = check_issuance(&issuer, request).map_err(BenchError::failed("a certificate"))?;
        let signature = self.authority.sign(checked.tbs()).map_err(BenchError::failed("a signature"))?;
        Ok(checked.complete(&signature).map_err(BenchError::failed("a certificate"))?.der)
    }
}
