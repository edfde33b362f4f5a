//! 100,000 devices of a facility revoked in one act, until OCSP and the CRL say so; and the same rows changed by SQLite alone, with
//! one CRL signed over them: no log, no counters, no shards, nobody told.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_crypto::PrivateKey;
use kf_fleet::{CurrentCrl, DataDir, Fleet};
use kf_key::{KeyAlgorithm, RevocationReason, SerialNumber, UnixMillis};
use kf_pki::crl::{CrlEntry, CrlScope, VerifiedCrl, check_crl};
use kf_pki::issuer::Issuer;
use kf_pki::ocsp::{CertStatus, make_request, verify_response};
use rusqlite::Connection;
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::{Effort, alternate, median};
use crate::populated_store::{Places, PopulatedStore};
use crate::scratch_fleet::{ClosedFleet, FACILITY, ScratchFleet, fleet_error};
use crate::status::issuer;

/// Devices of a full measurement; a quick one has a twentieth.
const DEVICES: u32 = 100_000;

pub(super) fn measure(effort: &Effort, runtime: &Runtime) -> Result<Vec<Figure>, BenchError> {
    let count = DEVICES.min(effort.large / 10);
    let fleet = ScratchFleet::create(runtime)?;
    let issuer = issuer(&fleet, runtime)?;
    let places = Places { authority: issuer.authority, ..fleet.places(runtime)? };
    let closed = fleet.close(runtime);
    let store = PopulatedStore::fill(runtime, &closed.directory.database(), places, count)?;
    let serials = store.serials();
    store.close(runtime);
    let filled = Filled { closed, issuer, serials, count };
    let key = PrivateKey::generate(KeyAlgorithm::P256).map_err(BenchError::failed("a key"))?;
    let mut acts = Vec::new();
    let mut ours = || {
        let (act, all) = filled.as_the_fleet_does(runtime)?;
        acts.push(act);
        Ok(all)
    };
    let seconds = alternate(effort.rounds, &mut [&mut || filled.without_a_log(&key), &mut ours])?;
    let [bare, ours] = seconds[..] else { return Ok(Vec::new()) };
    let name = format!("mass revocation of {count}, until OCSP and CRL say so");
    let note = format!(
        "SQLite alone on the same rows, flushed, and one CRL signed: {bare:.2} s; {:.0} devices per second",
        f64::from(count) / ours
    );
    let act = median(acts);
    Ok(vec![
        Figure::ratio(name, ours, "s", ours / bare, "without a log", Aim::AtMost(1.5)).with_note(note),
        Figure::ratio("  of which until the act is durable", act, "s", act / bare, "without a log", Aim::None),
    ])
}

/// A fleet that every round has a copy of.
struct Filled {
    closed: ClosedFleet,
    issuer: Issuer,
    serials: Vec<SerialNumber>,
    count: u32,
}

fn wrong(why: &str) -> BenchError {
    BenchError::Failed { what: "a mass revocation", why: why.to_owned() }
}

impl Filled {
    /// A copy of its data directory; only files that a start needs. What was not written back yet lies in the write-ahead log.
    fn copied(&self) -> Result<tempfile::TempDir, BenchError> {
        let folder = tempfile::tempdir().map_err(BenchError::io("a scratch folder"))?;
        for name in ["registry.sqlite", "registry.sqlite-wal", "keyfleet.toml"] {
            let from = self.closed.directory.path().join(name);
            if from.exists() {
                std::fs::copy(&from, folder.path().join(name)).map_err(BenchError::io("a copy of the registry"))?;
            }
        }
        Ok(folder)
    }

    /// Seconds until the act is durable, and until OCSP and the lists have it.
    fn as_the_fleet_does(&self, runtime: &Runtime) -> Result<(f64, f64), BenchError> {
        let folder = self.copied()?;
        let fleet = self.closed.open_at(runtime, &DataDir::new(folder.path()))?;
        // A server that runs has published its log and its lists; the copy has neither, and would pay for all of it here.
        runtime.block_on(fleet.turn());
        let begun = Instant::now();
        let seconds = runtime.block_on(async {
            let request = RevokeRequest {
                target: RevocationTarget::Facility(FACILITY.to_owned()),
                reason: RevocationReason::KeyCompromise,
                why: "benchmark".to_owned(),
                verify: false,
                dry_run: false,
            };
            let outcome = fleet.revoke(&self.closed.owner, request).await.map_err(fleet_error)?;
            if !outcome.done || outcome.certificates != u64::from(self.count) {
                return Err(wrong(&format!("{outcome:?}")));
            }
            let durable = begun.elapsed().as_secs_f64();
            let last = *self.serials.last().ok_or_else(|| wrong("nothing to revoke"))?;
            let answer = fleet.ocsp(&make_request(&self.issuer, last, None)).await;
            // The shards, as the background work signs them, and the full list.
            fleet.turn().await;
            let crl = fleet.crl(self.issuer.authority, CrlScope::Full).await.map_err(fleet_error)?;
            let seconds = begun.elapsed().as_secs_f64();
            self.check(&fleet, &answer.der, crl)?;
            Ok((durable, seconds))
        })?;
        runtime.block_on(fleet.close());
        Ok(seconds)
    }

    /// The last one is revoked for OCSP, and the full CRL has them all.
    fn check(&self, fleet: &Arc<Fleet>, answer: &[u8], crl: Option<CurrentCrl>) -> Result<(), BenchError> {
        let last = *self.serials.last().ok_or_else(|| wrong("nothing to revoke"))?;
        let now = fleet.clock().now();
        if !matches!(verify_response(answer, &self.issuer, last, None, now), Ok(CertStatus::Revoked { .. })) {
            return Err(wrong("OCSP does not say that it is revoked"));
        }
        let der = crl.ok_or_else(|| wrong("there is no CRL"))?.der;
        let crl = VerifiedCrl::from_der(&der, &self.issuer, CrlScope::Full, now).map_err(wrong)?;
        if self.serials.iter().all(|serial| crl.revokes(*serial)) { Ok(()) } else { Err(wrong("the CRL is short")) }
    }

    /// Seconds.
    fn without_a_log(&self, key: &PrivateKey) -> Result<f64, BenchError> {
        let folder = self.copied()?;
        let begun = Instant::now();
        let rows = change_rows(&folder.path().join("registry.sqlite")).map_err(BenchError::failed("SQLite"))?;
        let now = kf_fleet::Clock::now(&kf_fleet::SystemClock);
        let reason = RevocationReason::KeyCompromise;
        let encoded: Vec<_> =
            rows.iter().map(|serial| CrlEntry { serial: *serial, revoked: now, reason }.encode()).collect();
        let next = now.plus(UnixMillis::DAY);
        let crl = check_crl(&self.issuer, CrlScope::Full, 1, now, next, encoded.iter())
            .map_err(BenchError::failed("a large CRL"))?;
        let signature = key.sign(crl.tbs()).map_err(BenchError::failed("signing"))?;
        let octets = crl.complete(&signature).len();
        let seconds = begun.elapsed().as_secs_f64();
        if rows.len() == self.serials.len() && octets > rows.len() {
            Ok(seconds)
        } else {
            Err(wrong("rows are missing"))
        }
    }
}

/// Revokes every certificate of a device in one transaction that reaches the disk; their serial numbers, in order.
fn change_rows(path: &Path) -> rusqlite::Result<Vec<SerialNumber>> {
    let connection = Connection::open(path)?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.execute_batch("BEGIN IMMEDIATE")?;
    let sql =
        "UPDATE certificate SET status = 3, revoked = 1, reason = 1 WHERE profile = 4 AND status <> 3 RETURNING serial";
    let rows = connection
        .prepare(sql)?
        .query_map([], |row| row.get::<_, [u8; 20]>(0))?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    connection.execute_batch("COMMIT")?;
    let mut serials: Vec<_> = rows.iter().filter_map(|octets| SerialNumber::from_der_contents(octets)).collect();
    serials.sort_unstable();
    Ok(serials)
}
