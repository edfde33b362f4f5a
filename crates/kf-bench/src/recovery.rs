//! From a backup to the first correct revocation answer, where everything was revoked after the backup was made: the hardest
//! case, because every answer of the backup is wrong.

use std::time::Instant;

use kf_age::Identity;
use kf_api::backup::{NewBackup, NewBackupKey};
use kf_api::revocation::{RevocationTarget, RevokeRequest};
use kf_fleet::{BackupKeys, DataDir, RestoreOptions, restore};
use kf_key::{RevocationReason, SecretBytes};
use kf_pki::ocsp::{CertStatus, make_request, verify_response};
use tokio::runtime::Runtime;

use crate::error::BenchError;
use crate::figure::{Aim, Figure};
use crate::measure::Effort;
use crate::scratch_fleet::{FACILITY, IN_FLIGHT, ScratchFleet, fleet_error, issue_request};
use crate::status::issuer;
use crate::trivial_server::runtime;

/// What the plan asks of a fleet of 100,000 devices, in seconds.
const MOST_SECONDS: f64 = 120.0;
/// Devices of a full measurement; a quick one has a fiftieth.
const DEVICES: u32 = 100_000;

pub(crate) fn measure(effort: &Effort) -> Result<Vec<Figure>, BenchError> {
    let runtime = runtime()?;
    let fleet = ScratchFleet::with_witness(&runtime)?;
    let is_full = effort.large >= 1_000_000;
    let count = if is_full { DEVICES } else { DEVICES / 50 };
    let devices = fleet.register(&runtime, "lost", count)?;
    let requests = devices.iter().map(|device| issue_request(device)).collect::<Result<_, _>>()?;
    let serials = fleet.issue(&runtime, IN_FLIGHT, requests)?;
    let issuer = issuer(&fleet, &runtime)?;
    let (key, person) = (Identity::generate(), Identity::generate());
    let new = NewBackupKey { recipient: key.recipient().to_string(), sealed_to: vec![person.recipient().to_string()] };
    runtime.block_on(fleet.fleet.backup_key_create(&fleet.owner, new)).map_err(fleet_error)?;
    let full = backed_up(&fleet, &runtime, false)?;
    fleet.register(&runtime, "since", count / 100)?;
    let increment = backed_up(&fleet, &runtime, true)?;
    let request = RevokeRequest {
        target: RevocationTarget::Facility(FACILITY.to_owned()),
        reason: RevocationReason::KeyCompromise,
        why: "benchmark".to_owned(),
        verify: false,
        dry_run: false,
    };
    runtime.block_on(async {
        fleet.fleet.revoke(&fleet.owner, request).await.map_err(fleet_error)?;
        fleet.fleet.turn().await;
        fleet.fleet.close().await;
        Ok::<_, BenchError>(())
    })?;
    let text = key.to_file();
    // Exposed to its own copy, in the form in which a person has it.
    let identity = SecretBytes::fill(text.len(), |place| place.copy_from_slice(text.expose()));
    let options = RestoreOptions {
        from: increment.directory.clone().into(),
        at: None,
        keys: BackupKeys::open(&[], &[identity]).map_err(fleet_error)?,
        witness: None,
        accept_loss: true,
        dry_run: false,
    };
    let elsewhere = DataDir::new(fleet.path("restored"));
    let begun = Instant::now();
    restore(&elsewhere, &options).map_err(fleet_error)?;
    let restored_seconds = begun.elapsed().as_secs_f64();
    let restored = fleet.opened_at(&runtime, &elsewhere)?;
    let wrong =
        || BenchError::Failed { what: "an OCSP answer", why: "a revoked certificate is not revoked".to_owned() };
    let first = serials.first().ok_or_else(wrong)?;
    let answer = runtime.block_on(restored.ocsp(&make_request(&issuer, *first, None)));
    let is_right = verify_response(&answer.der, &issuer, *first, None, restored.clock().now());
    let seconds = begun.elapsed().as_secs_f64();
    if !matches!(is_right, Ok(CertStatus::Revoked { .. })) {
        return Err(wrong());
    }
    let aim = if is_full { Aim::AtMost(MOST_SECONDS) } else { Aim::None };
    let name = format!("restore of {count} devices, to the first right answer");
    Ok(vec![
        Figure::value("backup while the server works", full.seconds, "s", Aim::None)
            .with_note(format!("{count} devices, {} octets sealed", full.octets)),
        Figure::value("increment while the server works", increment.seconds, "s", Aim::None).with_note(format!(
            "{} devices came since, {} octets sealed",
            count / 100,
            increment.octets
        )),
        Figure::value(name, seconds, "s", aim).with_note(format!(
            "all revoked after the backup; {restored_seconds:.1} s of it open and check the full one and the increment"
        )),
    ])
}

/// A backup that was made.
struct Made {
    directory: String,
    seconds: f64,
    octets: u64,
}

fn backed_up(fleet: &ScratchFleet, runtime: &Runtime, incremental: bool) -> Result<Made, BenchError> {
    let new = NewBackup { incremental, ..NewBackup::default() };
    let begun = Instant::now();
    let made = runtime.block_on(fleet.fleet.backup_create(&fleet.owner, new)).map_err(fleet_error)?;
    let seconds = begun.elapsed().as_secs_f64();
    if made.full_because.is_some() {
        return Err(BenchError::Failed { what: "an increment", why: "it is a full backup".to_owned() });
    }
    let octets = made.manifest.iter().flat_map(|manifest| &manifest.files).map(|file| file.octets).sum();
    Ok(Made { directory: made.directory, seconds, octets })
}
