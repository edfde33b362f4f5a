//! The log as the API shows it, and the published tiles.

use std::time::Duration;

use kf_access::{Action, Principal, Target, authorize};
use kf_api::audit::{AuditFilter, AuditRecord, EventFilter};
use kf_api::{Page, PageRequest};
use kf_log::succession::SUCCESSION;
use kf_log::tile::tile_width;
use kf_log::{TileKind, TilePath};
use kf_store::StoreError;

use crate::log_publisher::LOG_LINKS_FACT;
use crate::naming::shortened;
use crate::{Fleet, FleetError};

/// The longest subject: `spki:` and 64 hexadecimal digits, or `batch:` and a batch.
const MAX_SUBJECT: usize = 128;

/// How long entries are gathered before whoever waits for them is answered.
const GATHER: Duration = Duration::from_millis(50);

/// The place of the entry before the one at `index`.
fn place_before(index: u64) -> String {
    index.saturating_sub(1).to_string()
}

fn check_subject(subject: Option<&str>) -> Result<(), FleetError> {
    match subject {
        Some(subject) if subject.is_empty() || subject.len() > MAX_SUBJECT => Err(FleetError::invalid(
            "subject",
            format!("`{}` is not a subject", shortened(subject)),
            "give an id as the log writes it: dev_…, fac_…, cert:<serial>, spki:<sha256>",
        )),
        _ => Ok(()),
    }
}

impl Fleet {
    /// Log entries the caller may see, oldest first.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Denied`].
    pub async fn audit_list(&self, who: &Principal, filter: AuditFilter) -> Result<Page<AuditRecord>, FleetError> {
        check_subject(filter.subject.as_deref())?;
        let permit = authorize(who, Action::AuditRead, Target::Visible)?;
        let page = PageRequest { after: filter.after, limit: filter.limit };
        Ok(self.store.log_list(filter.subject.as_deref(), permit.visibility(), &page)?)
    }

    /// The next log entries that the caller may see, as soon as there is one, or none when there was none for the time that
    /// was asked for. `next` is always there: the place to go on from.
    ///
    /// # Errors
    /// As [`Fleet::audit_list`].
    pub async fn audit_follow(&self, who: &Principal, filter: EventFilter) -> Result<Page<AuditRecord>, FleetError> {
        check_subject(filter.subject.as_deref())?;
        let permit = authorize(who, Action::AuditRead, Target::Visible)?;
        let seconds = filter.wait_seconds.unwrap_or(u32::MAX).min(EventFilter::MAX_WAIT_SECONDS);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(u64::from(seconds));
        let mut after = match filter.after {
            Some(after) => after,
            None => place_before(self.store.tree().size),
        };
        loop {
            // What is committed from here on is looked for in the next round.
            let size = self.store.tree().size;
            let page = PageRequest { after: Some(after.clone()), limit: filter.limit };
            let found = self.store.log_list(filter.subject.as_deref(), permit.visibility(), &page)?;
            if let Some(last) = found.items.last() {
                after = last.index.to_string();
                return Ok(Page { next: Some(after), ..found });
            }
            // Entries that the caller may not see are not looked at again. A place beyond the end stays: it is of another log.
            if after.parse::<u64>().is_ok_and(|after| after < size) {
                after = place_before(size);
            }
            if tokio::time::timeout_at(deadline, self.store.log_beyond(size)).await.is_err() {
                return Ok(Page { items: Vec::new(), next: Some(after) });
            }
            // A burst is one answer and one look.
            tokio::time::sleep_until(deadline.min(tokio::time::Instant::now() + GATHER)).await;
        }
    }

    /// A file of the log (`checkpoint`, `succession`, `tile/…`) as far as the newest checkpoint reaches, for auditors; the path is
    /// checked against the tlog-tiles grammar. The log spans all facilities, so it takes the whole fleet's scope.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn audit_file(&self, who: &Principal, path: &str) -> Result<Vec<u8>, FleetError> {
        const NO_FILE: FleetError = FleetError::NotFound("file of the log");
        authorize(who, Action::AuditRead, Target::Fleet)?;
        let checkpoint = self.store.checkpoint()?.ok_or(NO_FILE)?;
        if path == "checkpoint" {
            return Ok(checkpoint.note.into_bytes());
        }
        if path == SUCCESSION {
            let links = self.store.fact(LOG_LINKS_FACT)?.ok_or(NO_FILE)?;
            return Ok(links.into_bytes());
        }
        let tile: TilePath = path.parse().map_err(|_not_a_path| NO_FILE)?;
        let (level, index, width) = match tile.kind() {
            TileKind::Hashes(level) => (level, tile.index(), tile.width()),
            TileKind::Entries => (0, tile.index(), tile.width()),
        };
        if width > tile_width(checkpoint.size, level, index) {
            return Err(NO_FILE);
        }
        let octets = match tile.kind() {
            TileKind::Hashes(level) => self.store.log_tile(level, index, width),
            TileKind::Entries => self.store.log_bundle(index, width),
        };
        octets.map_err(|error| match error {
            StoreError::NotFound { .. } => NO_FILE,
            other => other.into(),
        })
    }

    /// The log's public key as a signed-note verifier key. Public.
    #[must_use]
    pub fn audit_verifier_key(&self) -> String {
        self.log.verifier()
    }
}
