//! The revocation fence: what a restored registry must not fall behind, kept with the checkpoint outside this host.
//! Numbers: how many certificates were revoked for good, and the highest cRLNumber of each CA. And, line by line, what must not
//! come back: see [`Line`].

mod book;
mod last_list;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use kf_access::Visibility;
use kf_key::AuthorityId;
use kf_store::Store;
use serde::{Deserialize, Serialize};

use crate::log_publisher::{local, write_durably};
use crate::{Fleet, FleetError};

pub(crate) use book::Line;

const FILE: &str = "fence.json";
/// The most octets of a fence: some 30,000 CAs.
const MAX_OCTETS: u64 = 2 * 1024 * 1024;

/// The fence at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Fence {
    /// Format version: 1.
    v: u8,
    /// Certificates revoked for good; only grows.
    revoked: u64,
    /// Highest cRLNumber of each CA that was published; only grows.
    crl_numbers: BTreeMap<AuthorityId, u64>,
}

/// Keeps the fence at the witness; without a witness there is none.
#[derive(Debug, Default)]
pub(crate) struct FenceKeeper {
    witness: Option<PathBuf>,
    written: Mutex<Fence>,
    /// Changes of status that are not in the book yet.
    waiting: Mutex<Vec<Line>>,
}

impl FenceKeeper {
    pub(crate) fn new(witness: Option<PathBuf>) -> Self {
        Self { witness, written: Mutex::default(), waiting: Mutex::default() }
    }

    /// Whether anything is kept at all.
    pub(crate) const fn has_witness(&self) -> bool {
        self.witness.is_some()
    }

    /// Compares the registry with the fence, and lifts its CRL numbers above those that were published: a list with a
    /// number that somebody has seen would be taken for an old one. `Some(why)`: revocations are missing.
    pub(crate) async fn compare(&self, store: &Store) -> Result<Option<String>, FleetError> {
        let Some(fence) = self.read()? else { return Ok(None) };
        for (authority, number) in &fence.crl_numbers {
            if store.authority(*authority)?.is_some() {
                store.raise_crl_number(*authority, *number).await?;
            }
        }
        let (_, _, revoked) = store.certificate_counts(&Visibility::Fleet)?;
        let is_behind = revoked < fence.revoked;
        Ok(is_behind.then(|| {
            format!("the witness has seen {} revoked certificates, the registry holds {revoked}", fence.revoked)
        }))
    }

    fn read(&self) -> Result<Option<Fence>, FleetError> {
        let Some(path) = self.witness.as_ref().map(|witness| witness.join(FILE)) else { return Ok(None) };
        match std::fs::metadata(&path) {
            Ok(facts) if facts.len() > MAX_OCTETS => return Err(unreadable(&path)),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(local(&path, &error)),
        }
        let octets = std::fs::read(&path).map_err(|error| local(&path, &error))?;
        match serde_json::from_slice::<Fence>(&octets) {
            Ok(fence) if fence.v == 1 => Ok(Some(fence)),
            _ => Err(unreadable(&path)),
        }
    }

    fn keep(&self, fence: Fence) -> Result<(), FleetError> {
        let Some(witness) = &self.witness else { return Ok(()) };
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written == fence {
            return Ok(());
        }
        let octets = serde_json::to_vec_pretty(&fence).map_err(|_bug| FleetError::Bug("fence"))?;
        write_durably(&witness.join(FILE), &octets)?;
        *written = fence;
        Ok(())
    }
}

fn unreadable(path: &Path) -> FleetError {
    FleetError::Local {
        path: path.display().to_string(),
        problem: "is not a revocation fence of a known version; restore it from the witness's own backup".to_owned(),
    }
}

impl Fleet {
    /// Tells the witness of something that is done and durable here. What cannot be written now is written with a later turn, and
    /// what a crash leaves unwritten is found by the next start.
    pub(crate) fn tell_witness(&self, lines: impl IntoIterator<Item = Line>) {
        self.fence.note_lines(lines);
        if let Err(error) = self.fence.write_noted() {
            tracing::error!(error = %error, "the witness was not told who was shut out");
        }
    }

    /// Keeps the fence at the witness; a failure is reported and tried again at the next turn. While the registry is
    /// fenced the witness keeps what it has: it knows better.
    pub(crate) fn keep_fence(&self) {
        if let Err(error) = self.fence.write_noted() {
            tracing::error!(error = %error, "the witness was not told what was revoked");
        }
        if self.store.health().fenced.is_some() {
            return;
        }
        let outcome = self.present_fence().and_then(|fence| self.fence.keep(fence));
        if let Err(error) = outcome {
            tracing::error!(error = %error, "the revocation fence was not kept");
        }
    }

    fn present_fence(&self) -> Result<Fence, FleetError> {
        let (_, _, revoked) = self.store.certificate_counts(&Visibility::Fleet)?;
        Ok(Fence { v: 1, revoked, crl_numbers: self.crl_numbers() })
    }
}
