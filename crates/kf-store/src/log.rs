//! The log: entries committed with their acts, the tree over them, and what is published of it.

use std::ops::Range;

use kf_access::Visibility;
use kf_api::audit::AuditRecord;
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, OperatorId, SerialNumber};
use kf_log::entry::MAX_ENTRY_OCTETS;
use kf_log::hash::{leaf_hash, subtree_root};
use kf_log::tile::{TILE_WIDTH, parse_tile, push_bundle_entry, tile_width};
use kf_log::tree::{CompletedTile, MAX_TILE_LEVELS};
use kf_log::{AuditEntry, HashReader, Tree};
use rusqlite::Connection;

use crate::act::Class;
use crate::column::{self, integer};
use crate::listing::{BAD_CURSOR, Branch, Listing, next_of, scopes};
use crate::proposal::ProposalChange;
use crate::{Store, StoreError, sql};

/// The most subjects of one entry.
const MAX_SUBJECTS: usize = 8;
/// The most entries that [`Store::log_entries`] returns.
const MAX_ENTRIES_READ: u64 = 1_024;

/// The entries that are committed with an act, at least one, and the decision on the proposal that it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Audit {
    pub(crate) entries: Vec<AuditEntry>,
    pub(crate) decision: Option<ProposalChange>,
}

impl From<AuditEntry> for Audit {
    fn from(entry: AuditEntry) -> Self {
        Self::from(vec![entry])
    }
}

impl From<Vec<AuditEntry>> for Audit {
    fn from(entries: Vec<AuditEntry>) -> Self {
        Self { entries, decision: None }
    }
}

impl Audit {
    /// The same of an act that was proposed: the decision, with its entry, is committed together with the act or not at
    /// all. The act fails as [`Store::change_proposal`] does when somebody else has decided.
    #[must_use]
    pub fn deciding(mut self, change: ProposalChange, entry: AuditEntry) -> Self {
        self.entries.push(entry);
        self.decision = Some(change);
        self
    }

    /// The same with a further fact in the first entry, known only inside the transaction.
    pub(crate) fn with_detail(&self, key: &str, value: impl ToString) -> Self {
        self.with_details([(key, value.to_string())])
    }

    /// As [`Audit::with_detail`], with several.
    pub(crate) fn with_details<'a>(&self, facts: impl IntoIterator<Item = (&'a str, String)>) -> Self {
        let mut audit = self.clone();
        if let Some(first) = audit.entries.first_mut() {
            first.detail.extend(facts.into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
        audit
    }
}

/// What an act gave, and the index of its (first) log entry, which is durable together with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged<T> {
    /// What the act gave.
    pub value: T,
    /// Index of its first log entry.
    pub index: u64,
}

/// The tree over all entries committed so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeHead {
    /// Entries.
    pub size: u64,
    /// RFC 6962 root over them.
    pub root: [u8; 32],
}

/// The newest checkpoint that was signed and published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedCheckpoint {
    /// Entries it covers.
    pub size: u64,
    /// The signed note.
    pub note: String,
}

/// The tag of API tokens in the subject index.
const TOKEN: u8 = 8;

/// The key of the subject index: short, because it is stored once per entry and subject. `None` for what is not
/// indexed: `spki:` hashes, which have a table of their own.
fn subject_key(subject: &str) -> Option<Vec<u8>> {
    const PREFIXES: [(u8, &str); 13] = [
        (1, "fleet_"),
        (2, "fac_"),
        (3, "line_"),
        (4, "dev_"),
        (5, "ca_"),
        (6, "key_"),
        (7, "op_"),
        (TOKEN, "tok_"),
        (9, "prop_"),
        (10, "code_"),
        (11, "enr_"),
        (12, "intent_"),
        // 13 is a certificate.
        (14, "ekey_"),
    ];
    if subject.starts_with("spki:") {
        return None;
    }
    let serial = subject.strip_prefix("cert:").and_then(|text| text.parse::<SerialNumber>().ok());
    if let Some(serial) = serial {
        return Some(tagged(13, serial.as_bytes()));
    }
    let id = PREFIXES.iter().find_map(|(tag, prefix)| {
        let octets = hex::decode(subject.strip_prefix(prefix)?).ok().filter(|octets| octets.len() == 16)?;
        Some(tagged(*tag, &octets))
    });
    Some(id.unwrap_or_else(|| tagged(255, subject.as_bytes())))
}

fn tagged(tag: u8, octets: &[u8]) -> Vec<u8> {
    [&[tag], octets].concat()
}

/// An entry that is stored when its group commits.
#[derive(Debug)]
pub(crate) struct Entered {
    leaf: Vec<u8>,
    hash: [u8; 32],
    subjects: Vec<Vec<u8>>,
    actor: Option<OperatorId>,
    facility: Option<FacilityId>,
}

impl Entered {
    /// # Errors
    /// [`StoreError::Invalid`] over the limits.
    pub(crate) fn of(entry: &AuditEntry) -> Result<Self, StoreError> {
        let leaf = entry.to_leaf();
        if leaf.is_empty() || leaf.len() > MAX_ENTRY_OCTETS || entry.subjects.len() > MAX_SUBJECTS {
            return Err(StoreError::Invalid { field: "audit", problem: "at most 8 subjects and 16,384 octets" });
        }
        // What was done with a token is found by it, like what was done to it.
        let token = entry.who.token.map(|token| tagged(TOKEN, token.as_bytes()));
        Ok(Self {
            hash: leaf_hash(&leaf),
            leaf,
            subjects: entry.subjects.iter().filter_map(|subject| subject_key(subject)).chain(token).collect(),
            actor: entry.who.id.parse().ok(),
            facility: entry.facility,
        })
    }

    /// The hash of its leaf.
    pub(crate) const fn hash(&self) -> [u8; 32] {
        self.hash
    }
}

/// Stores entries from index `base` on, with their index rows.
pub(crate) fn append(connection: &Connection, base: u64, entries: &[Entered]) -> Result<(), StoreError> {
    let (mut leaves, mut subjects, mut actors, mut facilities) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (index, entry) in (integer(base)..).zip(entries) {
        leaves.push((index, &entry.leaf));
        subjects.extend(entry.subjects.iter().map(|subject| (subject, index)));
        actors.extend(entry.actor.as_ref().map(|actor| (actor.as_bytes(), index)));
        facilities.extend(entry.facility.as_ref().map(|facility| (facility.as_bytes(), index)));
    }
    sql::insert_pairs(connection, "INSERT OR FAIL INTO log (idx, entry)", &leaves)?;
    // An entry may name the same subject twice.
    sql::insert_pairs(connection, "INSERT OR IGNORE INTO log_subject (subject, idx)", &subjects)?;
    sql::insert_pairs(connection, "INSERT OR FAIL INTO log_actor (actor, idx)", &actors)?;
    sql::insert_pairs(connection, "INSERT OR FAIL INTO log_facility (facility, idx)", &facilities)
}

/// Key of a completed tile.
fn tile_id(level: u8, index: u64) -> i64 {
    (i64::from(level) << 56) | integer(index & ((1 << 56) - 1))
}

/// Stores tiles that were completed.
pub(crate) fn store_tiles(connection: &Connection, tiles: &[CompletedTile]) -> Result<(), StoreError> {
    for tile in tiles {
        let sql = "INSERT INTO log_tile (id, hashes) VALUES (?1, ?2)";
        sql::execute(connection, sql, (tile_id(tile.level, tile.index), tile.hashes.concat()))?;
    }
    Ok(())
}

fn completed_tile(connection: &Connection, level: u8, index: u64) -> Result<Vec<[u8; 32]>, StoreError> {
    let sql = "SELECT hashes FROM log_tile WHERE id = ?1";
    let octets: Vec<u8> = sql::one(connection, sql, [tile_id(level, index)], |row| row.get(0))?
        .ok_or_else(|| StoreError::Corrupt { what: format!("hash tile {level}/{index} is missing") })?;
    parse_tile(&octets, TILE_WIDTH)
        .map_err(|error| StoreError::Corrupt { what: format!("hash tile {level}/{index}: {error}") })
}

/// Rebuilds the right edge of the tree: at most 255 entries are hashed and 255 tiles read per level, whatever the size of
/// the log.
pub(crate) fn load_tree(connection: &Connection) -> Result<Tree, StoreError> {
    let last: Option<i64> = sql::one(connection, "SELECT max(idx) FROM log", [], |row| row.get(0))?.flatten();
    let size = last.map_or(0, |last| u64::try_from(last).unwrap_or(0).saturating_add(1));
    let width = u64::from(TILE_WIDTH);
    let sql = "SELECT entry FROM log WHERE idx >= ?1 ORDER BY idx";
    let mut edges = vec![sql::all(connection, sql, [integer(size - size % width)], |row| {
        row.get_ref(0)?
            .as_blob()
            .map(leaf_hash)
            .map_err(|error| rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Blob, Box::new(error)))
    })?];
    let mut complete = size / width;
    for level in 0_u8.. {
        if complete == 0 || usize::from(level) >= MAX_TILE_LEVELS {
            break;
        }
        let mut edge = Vec::new();
        for index in complete - complete % width..complete {
            edge.extend(subtree_root(&completed_tile(connection, level, index)?));
        }
        edges.push(edge);
        complete /= width;
    }
    // The newest completed tile must not lie beyond the log either: entries were cut out of the file.
    let beyond = "SELECT 1 FROM log_tile WHERE id >= ?1 AND id < ?2";
    if sql::exists(connection, beyond, (tile_id(0, size / width), tile_id(1, 0)))? {
        return Err(StoreError::Corrupt { what: "the log is shorter than its hash tiles".into() });
    }
    Tree::restore(size, edges).map_err(|error| StoreError::Corrupt { what: error.to_string() })
}

/// See [`Store::log_list`].
pub(crate) fn list(
    connection: &Connection,
    subject: Option<&str>,
    visibility: &Visibility,
    page: &PageRequest,
) -> Result<Page<AuditRecord>, StoreError> {
    let after = match &page.after {
        None => -1,
        Some(text) => integer(text.parse().map_err(|_detail| BAD_CURSOR)?),
    };
    let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
    let keys = log_listing(subject, visibility).keys(connection, after.into(), rows + 1)?;
    let mut items = Vec::with_capacity(keys.len());
    for key in keys {
        let sql = "SELECT idx, entry FROM log WHERE idx = ?1";
        items.extend(sql::one(connection, sql, [key], record)?);
    }
    let next = next_of(&mut items, rows, |last: &AuditRecord| last.index.to_string());
    Ok(Page { items, next })
}

impl Store {
    /// Appends entries that belong to no act on the database.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn append_log(&self, audit: impl Into<Audit>) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), |_act| Ok(())).await
    }

    /// The tree over everything committed.
    #[must_use]
    pub fn tree(&self) -> TreeHead {
        let tree = self.shared().tree();
        TreeHead { size: tree.size(), root: tree.root() }
    }

    /// Waits until the log has more than `size` entries; for ever when the store is closed.
    pub async fn log_beyond(&self, size: u64) {
        let mut grown = self.shared().grown.subscribe();
        if grown.wait_for(|now| *now > size).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// The leaves (exact octets) of a range of at most 1,024 indices; shorter when the log ends before.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn log_entries(&self, range: Range<u64>) -> Result<Vec<Vec<u8>>, StoreError> {
        let end = range.end.min(range.start.saturating_add(MAX_ENTRIES_READ));
        let sql = "SELECT entry FROM log WHERE idx >= ?1 AND idx < ?2 ORDER BY idx";
        self.read(|connection| sql::all(connection, sql, (integer(range.start), integer(end)), |row| row.get(0)))
    }

    /// Entries about `subject` (text form of an id, `cert:<serial>`), or all, oldest first, as far as `visibility`
    /// reaches: entries of no facility are seen by those who see the fleet only.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn log_list(
        &self,
        subject: Option<&str>,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<AuditRecord>, StoreError> {
        self.read_at_once(|connection| list(connection, subject, visibility, page))
    }

    /// A hash tile for publication: `width` hashes (1 to 256) of tile `index` at `level`, each 32 octets.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the tree does not reach that far.
    pub fn log_tile(&self, level: u8, index: u64, width: u16) -> Result<Vec<u8>, StoreError> {
        self.hashes(level, index, width).map(|hashes| hashes.concat())
    }

    /// An entry bundle for publication: `width` entries (1 to 256) from `256 * index`, each with its 16-bit length.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] when the log does not reach that far.
    pub fn log_bundle(&self, index: u64, width: u16) -> Result<Vec<u8>, StoreError> {
        let first = index.saturating_mul(u64::from(TILE_WIDTH));
        let entries = self.log_entries(first..first.saturating_add(u64::from(width.min(TILE_WIDTH))))?;
        if width == 0 || entries.len() != usize::from(width) {
            return Err(StoreError::NotFound { what: "entry bundle" });
        }
        let mut bundle = Vec::new();
        for entry in &entries {
            push_bundle_entry(&mut bundle, entry)
                .map_err(|error| StoreError::Corrupt { what: format!("entry bundle {index}: {error}") })?;
        }
        Ok(bundle)
    }

    /// Keeps a signed checkpoint as the newest one published. An older one than the newest is refused.
    ///
    /// # Errors
    /// [`StoreError::IllegalState`] when its size goes back or lies beyond the log.
    pub async fn publish_checkpoint(&self, checkpoint: PublishedCheckpoint) -> Result<(), StoreError> {
        let size = self.shared().tree().size();
        if checkpoint.size > size {
            return Err(sizes(size, checkpoint.size));
        }
        self.write(Class::Reserved, move |act| {
            let sql = "INSERT INTO checkpoint (only, size, note) VALUES (1, ?1, ?2)
                ON CONFLICT (only) DO UPDATE SET size = excluded.size, note = excluded.note
                WHERE excluded.size >= size";
            let changed = act.execute(sql, (integer(checkpoint.size), &checkpoint.note))?;
            if changed == 0 {
                let newest = act.one("SELECT size FROM checkpoint", [], |row| column::count(row, 0))?;
                return Err(sizes(newest.unwrap_or(0), checkpoint.size));
            }
            Ok(())
        })
        .await
    }

    /// The newest checkpoint that was published.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn checkpoint(&self) -> Result<Option<PublishedCheckpoint>, StoreError> {
        self.read(|connection| {
            sql::one(connection, "SELECT size, note FROM checkpoint", [], |row| {
                Ok(PublishedCheckpoint { size: column::count(row, 0)?, note: row.get(1)? })
            })
        })
    }
}

fn sizes(found: u64, offered: u64) -> StoreError {
    StoreError::IllegalState {
        what: "checkpoint",
        found: format!("at {found} entries"),
        expected: format!("{offered} entries"),
    }
}

/// An index and an entry.
pub(crate) fn record(row: &rusqlite::Row<'_>) -> rusqlite::Result<AuditRecord> {
    let entry: Vec<u8> = row.get(1)?;
    let entry = serde_json::from_slice(&entry)
        .map_err(|error| rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Blob, Box::new(error)))?;
    Ok(AuditRecord { index: column::count(row, 0)?, entry })
}

/// The indices to list: by subject within the facilities, by facility, or all.
fn log_listing(subject: Option<&str>, visibility: &Visibility) -> Listing {
    let facility = subject.and_then(|subject| subject.parse::<FacilityId>().ok());
    let branches = scopes(visibility).into_iter().filter_map(|scope| match (subject, facility, scope) {
        (None, _, None) => Some(Branch::new("log")),
        (_, Some(wanted), Some(seen)) if wanted != seen => None,
        (None, _, Some(wanted)) | (_, Some(wanted), _) => {
            Some(Branch::new("log_facility").with("facility = ?", wanted.as_bytes().to_vec()))
        }
        (Some(subject), None, None) => Some(Branch::new("log_subject").with("subject = ?", subject_key(subject)?)),
        (Some(subject), None, Some(seen)) => {
            Some(Branch::new("log_subject").with("subject = ?", subject_key(subject)?).with(
                "EXISTS (SELECT 1 FROM log_facility f WHERE f.facility = ? AND f.idx = log_subject.idx)",
                seen.as_bytes().to_vec(),
            ))
        }
    });
    Listing::ascending("idx", branches.collect())
}

impl HashReader for Store {
    type Error = StoreError;

    /// Hashes of a tile of the tree, complete or at its edge.
    fn hashes(&self, level: u8, index: u64, width: u16) -> Result<Vec<[u8; 32]>, StoreError> {
        let tree = self.shared().tree();
        let there = tile_width(tree.size(), level, index);
        if width == 0 || width > there {
            return Err(StoreError::NotFound { what: "hash tile" });
        }
        let mut hashes = if there == TILE_WIDTH {
            self.read(|connection| completed_tile(connection, level, index))?
        } else {
            tree.edge(usize::from(level)).to_vec()
        };
        hashes.truncate(usize::from(width));
        Ok(hashes)
    }
}
