//! The server's side of the batch: authorised, imported, reconciled, looked up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use base64::Engine as _;
use kf_api::Page;
use kf_api::audit::{AuditFilter, AuditRecord};
use kf_api::batch::{BatchImport, BatchOutcome, NewBatch, Outcome, Reconciliation, StationPins};
use kf_api::certificate::{Certificate, CertificateFilter};
use kf_api::device::{Device, DeviceFilter};
use kf_api::operator::{NewOperator, Operator};
use kf_batch::P256Key;
use kf_batch::quota::Quota;
use kf_client::{HeaderValue, Method, header};
use kf_key::{CertificateProfile, CertificateStatus, DeviceId, DeviceState};

use super::super::report::Report;
use super::super::stage::{FACILITY, LINE, Stage};
use super::super::{DemoError, at, failed};
use super::Chance;
use super::books::Books;
use super::shift::{STATION, Shift};

/// Items of one call.
const PIECE_ITEMS: usize = 500;
const PAGE: u32 = 1_000;

/// A batch that the station may make.
pub(super) struct Authorised {
    pub(super) name: String,
    pub(super) quota: Quota,
    pub(super) signed: Vec<u8>,
    pub(super) quota_file: PathBuf,
    pub(super) server_key_file: PathBuf,
}

/// The operator `station`, its request, and the batch that it is given.
pub(super) async fn authorise(
    stage: &Stage,
    shift: &Shift,
    devices: u32,
    report: &mut Report,
) -> Result<Authorised, DemoError> {
    const STEP: &str = "batch";
    stage.create_line(STEP).await?;
    let request = shift.request()?;
    let operator = NewOperator {
        name: STATION.to_owned(),
        role: kf_api::operator::Role::Station,
        facilities: vec![FACILITY.to_owned()],
        voucher_key_pem: Some(std::fs::read_to_string(shift.path("station.pem")).map_err(at(STEP))?),
    };
    let _: Operator = stage.post("/v1/operators", &operator, STEP).await?;
    let plan = shift.plan_hash()?;
    let new = NewBatch {
        name: "gate-1".to_owned(),
        product_line: LINE.to_owned(),
        facility: FACILITY.to_owned(),
        profile: None,
        count: devices,
        name_prefix: None,
        first_number: None,
        digits: None,
        station_request: base64::engine::general_purpose::STANDARD.encode(request),
        recipe_sha256: plan.clone(),
        lifetime_hours: Some(24),
        allow_unsafe: false,
        allow_early_enrolment: false,
        why: "demonstration".to_owned(),
        dry_run: false,
    };
    let outcome: BatchOutcome = stage.post("/v1/batches", &new, STEP).await?;
    let pins: StationPins = stage.get("/v1/station/pins", STEP).await?;
    let path = stage.url(&format!("/v1/batches/{}/quota", outcome.batch.id));
    let signed = stage.owner.request(Method::GET, &path, &[], Vec::new()).await.map_err(at(STEP))?.body;
    let server_key = kf_pki::pem::decode_all("PUBLIC KEY", &pins.batch_key_pem).unwrap_or_default();
    let server_key = server_key.first().ok_or_else(|| failed(STEP, "the server pins no key"))?;
    let server_key = P256Key::from_spki(server_key).map_err(at(STEP))?;
    let quota = Quota::open(&signed, &server_key).map_err(at(STEP))?;
    let (quota_file, server_key_file) = (shift.path("quota"), shift.path("server.pem"));
    std::fs::write(&quota_file, &signed).map_err(at(STEP))?;
    std::fs::write(&server_key_file, &pins.batch_key_pem).map_err(at(STEP))?;
    report.check(
        STEP,
        &format!(
            "the server signed a quota of {devices} devices for {STATION} and plan {}…",
            super::super::first(&plan)
        ),
        outcome.done && quota.terms.devices.count() == devices && hex::encode(quota.terms.recipe) == plan,
    );
    Ok(Authorised { name: new.name, quota, signed: signed.to_vec(), quota_file, server_key_file })
}

async fn send(stage: &Stage, batch: &str, items: &[&[u8]]) -> Result<BatchImport, DemoError> {
    const STEP: &str = "import";
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/cbor-seq"))];
    let url = stage.url(&format!("/v1/batches/{batch}/records?dry_run=false"));
    let mut total = BatchImport::default();
    for piece in items.chunks(PIECE_ITEMS) {
        let answer = stage.owner.request(Method::POST, &url, &headers, piece.concat()).await;
        let said: BatchImport = answer.and_then(kf_client::Response::json).map_err(at(STEP))?;
        add(&mut total, said);
    }
    Ok(total)
}

/// Adds what one call answered to what those before it did.
fn add(total: &mut BatchImport, said: BatchImport) {
    total.items += said.items;
    total.merged += said.merged;
    total.manifests += said.manifests;
    total.receipts += said.receipts;
    total.already_there += said.already_there;
    total.conflict_count += said.conflict_count;
    total.conflicts.extend(said.conflicts);
    total.refused_count += said.refused_count;
}

/// Items that were not there before.
const fn taken(said: &BatchImport) -> u64 {
    said.merged + said.manifests + said.receipts
}

/// Imported out of order and in two parts, then whole and in order, then again: each record counts once, in registry and log.
pub(super) async fn import(
    stage: &Stage,
    books: &Books,
    chance: &mut Chance,
    report: &mut Report,
) -> Result<(), DemoError> {
    let in_order: Vec<&[u8]> = books.items.iter().map(Vec::as_slice).collect();
    import_shuffled(stage, books, chance, report).await?;
    let all = u64::try_from(in_order.len()).unwrap_or(u64::MAX);
    for how in ["in order", "once more"] {
        let again = send(stage, &books.batch, &in_order).await?;
        report.check(
            "import",
            &format!("{how}: {} merged, {} already there", taken(&again), again.already_there),
            taken(&again) == 0 && again.already_there == all && again.conflict_count + again.refused_count == 0,
        );
    }
    let logged = logged_hashes(stage, &books.id).await?;
    let expected: BTreeMap<String, u32> =
        books.items.iter().map(|item| (hex::encode(kf_batch::frame::document_hash(item)), 1)).collect();
    report.check(
        "import",
        &format!("the log has one entry for each of {} records, manifests and receipts, by hash", expected.len()),
        logged == expected,
    );
    Ok(())
}

/// With half of the records the books must not balance.
async fn import_shuffled(
    stage: &Stage,
    books: &Books,
    chance: &mut Chance,
    report: &mut Report,
) -> Result<(), DemoError> {
    const STEP: &str = "import";
    let mut shuffled: Vec<&[u8]> = books.items.iter().map(Vec::as_slice).collect();
    for last in (1..shuffled.len()).rev() {
        let bound = u32::try_from(last).unwrap_or(u32::MAX).saturating_add(1);
        shuffled.swap(last, usize::try_from(chance.below(bound)).unwrap_or(0));
    }
    let (early, late) = shuffled.split_at(shuffled.len() / 2);
    let mut total = send(stage, &books.batch, early).await?;
    let path = format!("/v1/batches/{}/reconciliation", books.batch);
    let half: Reconciliation = stage.get(&path, STEP).await?;
    report.check(
        STEP,
        &format!("half of them, out of order: the books do not balance, {} gaps are named", half.gaps.len()),
        !half.balances && !half.gaps.is_empty(),
    );
    add(&mut total, send(stage, &books.batch, late).await?);
    let kinds: BTreeSet<&str> = total.conflicts.iter().map(|conflict| conflict.kind.name()).collect();
    let kinds: String = kinds.into_iter().map(|kind| format!(" ({kind})")).collect();
    let is_number = |found: u64, expected: usize| usize::try_from(found).is_ok_and(|found| found == expected);
    report.check(
        STEP,
        &format!(
            "the other half: {} records and {} manifests merged, {} conflicts{kinds}, {} refused",
            total.merged, total.manifests, total.conflict_count, total.refused_count
        ),
        is_number(total.merged, books.records.len())
            && is_number(taken(&total), books.items.len())
            && total.conflict_count + total.refused_count == 0,
    );
    Ok(())
}

/// How often each record and manifest of the batch stands in the log.
async fn logged_hashes(stage: &Stage, batch: &str) -> Result<BTreeMap<String, u32>, DemoError> {
    const STEP: &str = "import";
    let mut logged = BTreeMap::new();
    let mut after = None;
    loop {
        let filter = AuditFilter { subject: Some(batch.to_owned()), after, limit: Some(PAGE) };
        let page: Page<AuditRecord> = stage.query("/v1/audit", &filter, STEP).await?;
        for record in &page.items {
            let detail = record.entry.get("detail");
            let names = ["record_sha256", "manifest_sha256", "receipt_sha256"];
            let hash = names.iter().find_map(|name| detail?.get(*name)?.as_str());
            if let Some(hash) = hash {
                *logged.entry(hash.to_owned()).or_default() += 1;
            }
        }
        match page.next {
            Some(next) => after = Some(next),
            None => return Ok(logged),
        }
    }
}

/// planned = made + scrapped + missing, and each number is the station's own.
pub(super) async fn reconcile(stage: &Stage, books: &Books, report: &mut Report) -> Result<(), DemoError> {
    const STEP: &str = "reconcile";
    let path = format!("/v1/batches/{}/reconciliation", books.batch);
    let server: Reconciliation = stage.get(&path, STEP).await?;
    report.check(
        STEP,
        &format!(
            "{} planned = {} made + {} scrapped + {} missing; {} records, {} gaps, {} conflicts",
            server.planned,
            server.passed,
            server.scrapped,
            server.missing,
            server.records,
            server.gaps.len(),
            server.conflict_count
        ),
        server.balances && server.rework == 0 && server.planned == server.passed + server.scrapped + server.missing,
    );
    let station = books.counts;
    let same = [(server.passed, station.good), (server.scrapped, station.scrap), (server.missing, station.left)]
        .iter()
        .all(|(server, station)| *server == u64::from(*station));
    report.check(
        STEP,
        "the station counted the same, every manifest of its shifts agrees, and the keys of the batch are destroyed",
        same && server.key_destroyed.is_some()
            && !server.manifests.is_empty()
            && server.manifests.iter().all(|manifest| manifest.agrees)
            && server.manifests.iter().filter(|manifest| manifest.is_final).count() == 1,
    );
    Ok(())
}

/// Each device of the quota stands in the registry as its last record says, with the certificate of the key that is in it.
pub(super) async fn registry(stage: &Stage, books: &Books, report: &mut Report) -> Result<(), DemoError> {
    const STEP: &str = "registry";
    let mut states = BTreeMap::new();
    let mut filter = DeviceFilter { batch: Some(books.batch.clone()), limit: Some(PAGE), ..DeviceFilter::default() };
    loop {
        let page: Page<Device> = stage.query("/v1/devices", &filter, STEP).await?;
        states.extend(page.items.into_iter().map(|device| (device.id, device.state)));
        filter.after = page.next;
        if filter.after.is_none() {
            break;
        }
    }
    let certificates = certificates(stage).await?;
    let endings = books.endings();
    let mut wrong = Vec::new();
    for (device, name) in books.devices.iter() {
        let state = states.get(&device).copied();
        let held = certificates.get(&device).map_or(&[][..], Vec::as_slice);
        let good: Vec<&str> = held
            .iter()
            .filter(|certificate| certificate.status == CertificateStatus::Good)
            .map(|certificate| certificate.spki_sha256.as_str())
            .collect();
        let (expected, key) = match endings.get(&device) {
            Some((Outcome::Passed, key)) => (DeviceState::Registered, Some(hex::encode(key))),
            Some((Outcome::Scrapped, _)) => (DeviceState::Decommissioned, None),
            Some((Outcome::Rework, _)) | None => (DeviceState::Registered, None),
        };
        if state != Some(expected) || good != key.as_deref().into_iter().collect::<Vec<_>>() {
            wrong.push(name);
        }
    }
    let said = if wrong.is_empty() { String::new() } else { format!("; not so: {}", wrong.join(", ")) };
    report.check(
        STEP,
        &format!(
            "each of {} devices: made with the one certificate of its key, scrapped and gone, or still to be made{said}",
            states.len()
        ),
        wrong.is_empty() && states.len() == usize::try_from(books.devices.count()).unwrap_or(0),
    );
    Ok(())
}

async fn certificates(stage: &Stage) -> Result<BTreeMap<DeviceId, Vec<Certificate>>, DemoError> {
    const STEP: &str = "registry";
    let mut all: BTreeMap<DeviceId, Vec<Certificate>> = BTreeMap::new();
    let mut filter = CertificateFilter {
        profile: Some(CertificateProfile::IDevId),
        limit: Some(PAGE),
        ..CertificateFilter::default()
    };
    loop {
        let page: Page<Certificate> = stage.query("/v1/certificates", &filter, STEP).await?;
        for certificate in page.items {
            if let Some(device) = certificate.device {
                all.entry(device).or_default().push(certificate);
            }
        }
        filter.after = page.next;
        if filter.after.is_none() {
            return Ok(all);
        }
    }
}
