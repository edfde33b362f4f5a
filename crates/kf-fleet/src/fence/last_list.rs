//! What CAs whose keys are destroyed have signed last, kept at the witness: no registry of before can sign it again.

use std::path::PathBuf;

use kf_key::{AuthorityId, UnixMillis};
use kf_pki::crl::{CrlScope, VerifiedCrl};
use kf_pki::issuer::Issuer;
use kf_store::final_crl::FinalCrl;

use super::FenceKeeper;
use crate::FleetError;
use crate::log_publisher::{local, write_durably};

const DIRECTORY: &str = "last-crls";
const FULL: &str = "full";
/// The most octets of a list.
const MAX_OCTETS: u64 = 64 * 1024 * 1024;

impl FenceKeeper {
    fn place_of(&self, authority: AuthorityId, shard: Option<u16>) -> Option<PathBuf> {
        let name = shard.map_or_else(|| FULL.to_owned(), |shard| shard.to_string());
        let directory = self.witness.as_ref()?.join(DIRECTORY).join(authority.to_string());
        Some(directory.join(name).with_extension("crl"))
    }

    /// Keeps the last lists of a CA; durable when this returns.
    pub(crate) fn keep_last_lists(&self, authority: AuthorityId, lists: &[FinalCrl]) -> Result<(), FleetError> {
        for list in lists {
            let Some(path) = self.place_of(authority, list.shard) else { return Ok(()) };
            write_durably(&path, &list.der)?;
        }
        Ok(())
    }

    /// The last lists of a CA, if all of them are here. Each must be signed by the CA.
    pub(crate) fn last_lists(&self, issuer: &Issuer, now: UnixMillis) -> Result<Option<Vec<FinalCrl>>, FleetError> {
        let mut lists = Vec::new();
        let shards = (0..issuer.shard_count.max(1)).map(Some);
        for shard in std::iter::once(None).chain(shards) {
            let Some(path) = self.place_of(issuer.authority, shard) else { return Ok(None) };
            match std::fs::metadata(&path) {
                Ok(facts) if facts.len() <= MAX_OCTETS => {}
                Ok(_) => return Err(foreign(&path, "is larger than any CRL")),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(local(&path, &error)),
            }
            let der = std::fs::read(&path).map_err(|error| local(&path, &error))?;
            let scope = shard.map_or(CrlScope::Full, CrlScope::Shard);
            let read = VerifiedCrl::from_der(&der, issuer, scope, now).map_err(|why| foreign(&path, why))?;
            lists.push(FinalCrl { shard, number: read.number(), this_update: read.this_update(), der });
        }
        Ok(Some(lists))
    }
}

fn foreign(path: &std::path::Path, why: &str) -> FleetError {
    FleetError::Local {
        path: path.display().to_string(),
        problem: format!("is not the last CRL of this CA: {why}; restore it from the witness's own backup"),
    }
}
