//! How records are merged: what is wrong with one by itself, and what two of them say about each other.
//!
//! Every conflict is a function of the *set* of records and of the quota, never of the order in which they arrive: so a batch
//! that is sent twice, in pieces, or by two people, ends in the same registry and the same list of conflicts.
//!
//! Two histories are told from one by hashes. Let `H(n)` be the hashes of all records with sequence `n`, together with what
//! records with sequence `n + 1`, and manifests that end at `n`, say was before them. A station that was not copied and not
//! set back signs one history, so `H(n)` has one element; with two, there are two stations with one record key.

use kf_api::batch::ConflictKind;
use kf_key::{DeviceId, UnixMillis};
use kf_pki::certificate::{CertificateFacts, Subject, as_issued};
use kf_pki::issuer::Issuer;

use crate::manifest::Manifest;
use crate::quota::{MAX_SKEW, QuotaTerms};
use crate::record::Record;

/// What is known of a batch when a record of it arrives.
#[derive(Clone, Copy, Debug)]
pub struct BatchFacts<'a> {
    /// The terms of the quota, verified.
    pub terms: &'a QuotaTerms,
    /// The batch CA: [`QuotaTerms::issuer`].
    pub issuer: &'a Issuer,
    /// [`crate::quota::quota_hash`].
    pub quota_hash: [u8; 32],
    /// Whether the batch was cancelled or its station compromised: nothing of it counts any more.
    pub is_cancelled: bool,
}

/// What is wrong with a record by itself; nothing when empty.
#[must_use]
pub fn judge(record: &Record, facts: &BatchFacts<'_>) -> Vec<ConflictKind> {
    let terms = facts.terms;
    let rules = [
        (ConflictKind::OutsideQuota, terms.devices.position(record.device).is_none()),
        (ConflictKind::UnknownRecipe, record.recipe != terms.recipe),
        (ConflictKind::BeforeQuota, record.at.plus(MAX_SKEW) < terms.issued),
        (ConflictKind::AfterExpiry, record.at > terms.expires),
        (ConflictKind::BatchCancelled, facts.is_cancelled),
        (ConflictKind::UnsafeNotAllowed, !terms.allows_unsafe && !record.unsafe_marks.is_empty()),
        (ConflictKind::Certificate, matches!(certificate(record, facts), Some(Err(_)))),
    ];
    rules.into_iter().filter_map(|(kind, broken)| broken.then_some(kind)).collect()
}

/// The facts of the certificate in a record; `None` when there is none, an error when it is not exactly what the rules
/// make of quota, key, serial number and first moment, signed by the batch CA while that was valid.
///
/// # Errors
/// [`ConflictKind::Certificate`].
#[must_use]
pub fn certificate(record: &Record, facts: &BatchFacts<'_>) -> Option<Result<CertificateFacts, ConflictKind>> {
    let der = record.certificate.as_deref()?;
    let terms = facts.terms;
    let wrong = ConflictKind::Certificate;
    // What is outside the quota has no name in it; that is another conflict.
    let name = terms.devices.name(record.device)?;
    let subject = Subject::Device {
        organization: terms.organization.clone(),
        device: record.device,
        name,
        product_line: terms.product_line_name.clone(),
    };
    let checked = as_issued(facts.issuer, subject, der).map_err(|_not_as_issued| wrong).and_then(|issued| {
        let is_of_key = record.key.is_some_and(|key| key.spki_sha256 == issued.spki_sha256);
        let in_time = issued.not_before.plus(MAX_SKEW) >= terms.issued && issued.not_before <= terms.expires;
        if is_of_key && in_time { Ok(issued) } else { Err(wrong) }
    });
    Some(checked)
}

/// The place of a record in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Sequence.
    pub sequence: u64,
    /// Hash of the signed record.
    pub hash: [u8; 32],
    /// What it says was before it.
    pub previous: [u8; 32],
    /// When it was made.
    pub at: UnixMillis,
    /// The device.
    pub device: DeviceId,
}

impl Link {
    /// Of a record with this hash.
    #[must_use]
    pub const fn of(record: &Record, hash: [u8; 32]) -> Self {
        Self { sequence: record.sequence, hash, previous: record.previous, at: record.at, device: record.device }
    }
}

/// What is known around a record: all records whose sequence is one less, the same, or one more.
#[derive(Clone, Copy, Debug, Default)]
pub struct Neighbours<'a> {
    /// One less.
    pub before: &'a [Link],
    /// The same; whether the record itself is among them does not matter.
    pub same: &'a [Link],
    /// One more.
    pub after: &'a [Link],
}

/// What the chain says once `link` is part of it: sequences at which something is wrong.
#[must_use]
pub fn judge_link(link: &Link, around: Neighbours<'_>, quota_hash: [u8; 32]) -> Vec<(u64, ConflictKind)> {
    let Neighbours { before, same, after } = around;
    let mut found = Vec::new();
    let here = same.iter().map(|other| other.hash).chain(after.iter().map(|later| later.previous));
    if differs(link.hash, here) {
        found.push((link.sequence, ConflictKind::ClonedStation));
    }
    if link.sequence == 1 {
        if link.previous != quota_hash {
            found.push((1, ConflictKind::OtherQuota));
        }
    } else {
        let there = before.iter().map(|earlier| earlier.hash).chain(same.iter().map(|other| other.previous));
        if differs(link.previous, there) {
            found.push((link.sequence.saturating_sub(1), ConflictKind::ClonedStation));
        }
    }
    if before.iter().any(|earlier| earlier.hash == link.previous && link.at < earlier.at) {
        found.push((link.sequence, ConflictKind::ClockWentBack));
    }
    if after.iter().any(|later| later.previous == link.hash && later.at < link.at) {
        found.push((link.sequence.saturating_add(1), ConflictKind::ClockWentBack));
    }
    found
}

fn differs(hash: [u8; 32], mut others: impl Iterator<Item = [u8; 32]>) -> bool {
    others.any(|other| other != hash)
}

/// What a manifest says against the records with the sequence at which it ends; and against the quota, when it ends at none.
#[must_use]
pub fn judge_manifest(manifest: &Manifest, last: &[Link], quota_hash: [u8; 32]) -> Option<(u64, ConflictKind)> {
    if manifest.last == 0 {
        return (manifest.head != quota_hash).then_some((1, ConflictKind::OtherQuota));
    }
    let is_other = differs(manifest.head, last.iter().map(|link| link.hash));
    is_other.then_some((manifest.last, ConflictKind::ClonedStation))
}

#[cfg(test)]
mod tests;
