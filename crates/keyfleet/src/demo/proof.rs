//! What is proved, with the formats and signatures that anybody can check.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::path::PathBuf;

use kf_api::certificate::Certificate;
use kf_client::{Client, HeaderValue, Method, header};
use kf_key::{CertificateProfile, RevocationReason};
use kf_log::{TileSource, VerifierKey, verify_log};
use kf_pki::crl::{CrlScope, VerifiedCrl};
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};

use super::device::history;
use super::report::Report;
use super::stage::{Stage, issuing_authority};
use super::{DemoError, at, failed};

/// Every device has one LDevID that names it, and no two share a key.
pub(crate) async fn certificates(stage: &Stage, names: &[String], report: &mut Report) -> Result<(), DemoError> {
    let mut keys = BTreeSet::new();
    let mut named = 0;
    for name in names {
        let certificate = ldevid_of(stage, name).await?;
        named += usize::from(certificate.subject.contains(name.as_str()));
        keys.insert(certificate.spki_sha256);
    }
    report.check(
        "enrol",
        &format!("{} device processes made their own keys and enrolled over EST; no two keys are equal", names.len()),
        named == names.len() && keys.len() == names.len(),
    );
    Ok(())
}

async fn ldevid_of(stage: &Stage, name: &str) -> Result<Certificate, DemoError> {
    let history = history(stage, name).await?;
    let ldevid = history.certificates.into_iter().find(|certificate| certificate.profile == CertificateProfile::LDevId);
    ldevid.ok_or_else(|| failed("enrol", format!("{name} has no LDevID")))
}

async fn issuer(stage: &Stage) -> Result<Issuer, DemoError> {
    let authority = issuing_authority(stage).await?;
    let ders = kf_pki::pem::decode_all("CERTIFICATE", &authority.certificate_pem).unwrap_or_default();
    let der = ders.first().ok_or_else(|| failed("ocsp", "the issuing CA has no certificate"))?;
    Issuer::from_certificate(authority.id, der, authority.shard_count, &stage.fleet.config().listen.public_http)
        .map_err(at("ocsp"))
}

/// A live OCSP answer with a nonce, over plain HTTP, its signature verified.
pub(crate) async fn status_of(stage: &Stage, name: &str, revoked: bool, report: &mut Report) -> Result<(), DemoError> {
    let issuer = issuer(stage).await?;
    let serial = ldevid_of(stage, name).await?.serial;
    let nonce: [u8; 16] = kf_crypto::random_array().map_err(at("ocsp"))?;
    let request = make_request(&issuer, serial, Some(&nonce));
    let client = Client::builder().build().map_err(at("ocsp"))?;
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static("application/ocsp-request"))];
    let answer = client.request(Method::POST, &issuer.ocsp_url(), &headers, request).await.map_err(at("ocsp"))?;
    let now = stage.fleet.clock().now();
    let status =
        verify_response(&answer.body, &issuer, serial, Some(&nonce), now).map_err(|reason| failed("ocsp", reason))?;
    let (said, holds) = match status {
        CertStatus::Good => ("good", !revoked),
        CertStatus::Revoked { reason: RevocationReason::KeyCompromise, .. } => ("revoked (keyCompromise)", revoked),
        CertStatus::Revoked { .. } => ("revoked", false),
        CertStatus::NeverIssued | CertStatus::Unknown => ("unknown", false),
    };
    report.check("ocsp", &format!("OCSP says {said} for {name}; signature and nonce verified"), holds);
    Ok(())
}

/// The CRL at the address in the certificate carries the serial number within a second.
pub(crate) async fn crl_carries(stage: &Stage, name: &str, report: &mut Report) -> Result<(), DemoError> {
    let issuer = issuer(stage).await?;
    let serial = ldevid_of(stage, name).await?.serial;
    let shard = serial.shard(issuer.shard_count);
    let url = issuer.shard_url(shard);
    let client = Client::builder().build().map_err(at("crl"))?;
    let answer = client.request(Method::GET, &url, &[], Vec::new()).await.map_err(at("crl"))?;
    let now = stage.fleet.clock().now();
    let crl = VerifiedCrl::from_der(&answer.body, &issuer, CrlScope::Shard(shard), now)
        .map_err(|reason| failed("crl", reason))?;
    report.check(
        "crl",
        &format!(
            "the CRL shard at the certificate's own address carries {name}; signature and scope verified, number {}",
            crl.number()
        ),
        crl.revokes(serial),
    );
    Ok(())
}

struct Published(PathBuf);

impl TileSource for Published {
    type Error = Infallible;

    fn read(&self, path: &str) -> Result<Option<Vec<u8>>, Infallible> {
        Ok(std::fs::read(self.0.join(path)).ok())
    }
}

/// The published log says what was done to the device.
pub(crate) async fn audit(stage: &Stage, victim: &str, report: &mut Report) -> Result<(), DemoError> {
    log(stage, report).await?;
    let recorded = records_revocation(&history(stage, victim).await?.events);
    report.check("evidence", &format!("the log says who revoked {victim}, when and why"), recorded);
    Ok(())
}

/// The published log verifies from its files alone.
pub(crate) async fn log(stage: &Stage, report: &mut Report) -> Result<(), DemoError> {
    stage.fleet.turn().await;
    let key = VerifierKey::from_text(&stage.verifier_key).map_err(at("audit"))?;
    let source = Published(stage.path().join("fleet").join("log"));
    let verified = match verify_log(&source, &key, &[]) {
        Ok(verified) => verified,
        Err(never) => match never {},
    };
    let findings: Vec<String> = verified.findings.iter().take(3).map(ToString::to_string).collect();
    let said = if findings.is_empty() { String::new() } else { format!(": {}", findings.join("; ")) };
    report.check(
        "audit",
        &format!("the log of {} entries verifies offline against its signed checkpoint{said}", verified.entries),
        verified.holds() && verified.entries > 0,
    );
    Ok(())
}

fn records_revocation(events: &[kf_api::audit::AuditRecord]) -> bool {
    events.iter().any(|record| {
        let entry = &record.entry;
        let text = |field: &str| entry.get(field).and_then(|value| value.as_str()).unwrap_or_default();
        let who = entry.get("who").and_then(|who| who.get("name")).and_then(|name| name.as_str());
        text("act") == "certificate.revoke" && who == Some("owner") && !text("why").is_empty()
    })
}
