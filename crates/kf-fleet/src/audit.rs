//! The log as the API shows it, and the published tiles.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::audit::{AuditFilter, AuditRecord};
use kf_api::{Page, PageRequest};
use kf_log::tile::tile_width;
use kf_log::{TileKind, TilePath};
use kf_store::StoreError;

use crate::naming::shortened;
use crate::{Fleet, FleetError};

/// The longest subject: `spki:` and 64 hexadecimal digits, or `batch:` and a batch.
const MAX_SUBJECT: usize = 128;

impl Fleet {
    /// Log entries the caller may see, oldest first.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Denied`].
    pub async fn audit_list(&self, who: &Principal, filter: AuditFilter) -> Result<Page<AuditRecord>, FleetError> {
        if let Some(subject) = &filter.subject
            && (subject.is_empty() || subject.len() > MAX_SUBJECT)
        {
            return Err(FleetError::invalid(
                "subject",
                format!("`{}` is not a subject", shortened(subject)),
                "give an id as the log writes it: dev_…, fac_…, cert:<serial>, spki:<sha256>",
            ));
        }
        let permit = authorize(who, Action::AuditRead, Target::Visible)?;
        let page = PageRequest { after: filter.after, limit: filter.limit };
        Ok(self.store.log_list(filter.subject.as_deref(), permit.visibility(), &page)?)
    }

    /// A file of the log (`checkpoint`, `tile/…`) as far as the newest checkpoint reaches, for auditors; the path is
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
        self.log.verifier().to_string()
    }
}
