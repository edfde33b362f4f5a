//! The server's wrapping key: in versions, each of which wraps what is stored while it is the newest.
//!
//! A new version is kept outside the registry first, then made known to the registry with its log entry, then used. What lies
//! under older ones is brought under it in the background, batch by batch, each batch one transaction; a row says which
//! version it lies under, so that a sweep that was cut short goes on with what is left. A version under which nothing lies may
//! be destroyed.

mod book;

use std::sync::{Mutex, MutexGuard, PoisonError};

use kf_access::{Action, Principal, Target, authorize};
use kf_key::{KeyState, UnixMillis};
use kf_signer::{FIRST_VERSION, KeyHandle, RewrapItem, SignerClient};
use kf_store::key::KeyMaterial;
use kf_store::wrapping::{MAX_MOVED, MovedRow, WrappedPlace, WrappedRow, WrappingVersion};

use crate::encryption_key::material_context;
use crate::entry::Entry;
use crate::{Fleet, FleetError};

pub(crate) use book::WrappingBook;

/// Batches of one turn of the background work: it has other things to do as well.
const BATCHES_PER_TURN: u32 = 8;
/// How long rows that do not open are left alone.
const REST: u64 = UnixMillis::HOUR;

/// Where the sweep is. Only what does not open makes it remember a place.
#[derive(Default)]
pub(crate) struct WrappingSweep {
    place: Mutex<Place>,
    /// The next batch, made while the one before it was written.
    ready: Mutex<Option<Batch>>,
}

/// Rows to be moved, and what is to be written. A row is only moved as it was read, so that a batch which is old moves less.
struct Batch {
    /// The version that they are brought under.
    newest: u32,
    rows: Vec<WrappedRow>,
    moved: Vec<MovedRow>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Place {
    after: Option<WrappedPlace>,
    unreadable: u64,
    rests_until: Option<UnixMillis>,
}

/// What a part of a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rewrapped {
    /// Rows that lie under the newest version now.
    pub moved: u64,
    /// Rows that do not open, and stay as they are.
    pub unreadable: u64,
    /// Whether there may be more.
    pub more: bool,
}

impl WrappingSweep {
    fn place(&self) -> MutexGuard<'_, Place> {
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ready(&self) -> MutexGuard<'_, Option<Batch>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Fleet {
    /// The versions of the wrapping key, oldest first; the first is as old as the fleet.
    pub(crate) fn wrapping_versions(&self) -> Result<Vec<WrappingVersion>, FleetError> {
        let founded = self.store.keys_after(None, 1)?.first().map_or(UnixMillis(0), |key| key.created);
        let mut versions = self.store.wrapping_versions()?;
        for version in versions.iter_mut().filter(|version| version.created == UnixMillis(0)) {
            version.created = founded;
        }
        Ok(versions)
    }

    /// Makes the next version behind the one that the caller has seen; the index of the log entry.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] when there is a newer one by now; [`FleetError::Local`], [`FleetError::Signer`].
    pub(crate) async fn advance_wrapping(&self, who: &Principal, seen: u32, why: &str) -> Result<u64, FleetError> {
        if *who != Self::server_principal() {
            authorize(who, Action::ServerKeyManage, Target::Fleet)?;
        }
        let _turn = self.wrapping.turn.lock().await;
        let newest = self.store.wrapping_versions()?.last().map_or(FIRST_VERSION, |version| version.version);
        if newest != seen {
            return Err(FleetError::conflict(
                "version",
                format!("the newest version of the wrapping key is {newest}, not {seen}"),
                "somebody made it already: look with `keyfleet inventory --class wrapping-key`",
            ));
        }
        let now = self.now();
        // One that was kept and is not known here: the registry refused it the last time.
        let waiting = self.wrapping.versions().last().map(|(version, _)| *version).filter(|version| *version > newest);
        let next = match waiting {
            Some(version) => version,
            None => {
                let next = self.wrapping.next(newest);
                let sealed = self.signer.new_wrapping(next).await?;
                self.wrapping.add(next, &sealed, now)?;
                next
            }
        };
        let index = self.adopt_wrapping(who, (newest, next), why).await?;
        let sealed = self.wrapping.sealed(next).ok_or(FleetError::Bug("a wrapping key that was just kept"))?;
        self.signer.register_wrapping(next, sealed);
        self.signer.load_wrapping().await?;
        *self.wrapping_sweep.place() = Place::default();
        self.wake.notify_one();
        Ok(index)
    }

    async fn adopt_wrapping(&self, who: &Principal, (seen, next): (u32, u32), why: &str) -> Result<u64, FleetError> {
        let entry = Entry::done(who, "wrapping.rotate", self.now())
            .about(format!("wrap:{next}"))
            .because(why)
            .with("version", next)
            .with("deactivated", seen);
        Ok(self.store.advance_wrapping((seen, next), self.now(), entry.build()).await?.index)
    }

    /// Makes registry and book agree: after a crash, or after one of them was restored from before.
    ///
    /// # Errors
    /// [`FleetError::Local`] when something lies under a version that the book lacks.
    pub(crate) async fn reconcile_wrapping(&self) -> Result<(), FleetError> {
        let server = Self::server_principal();
        for version in self.store.wrapping_versions()? {
            let (number, state) = (version.version, version.state);
            if state == KeyState::Destroyed || (number == FIRST_VERSION && !self.wrapping.is_destroyed(number)) {
                continue;
            }
            let left = self.store.wrapped_under(number)?.total();
            match (self.wrapping.sealed(number), self.wrapping.is_destroyed(number)) {
                (Some(_), false) => {}
                (None, false) if left > 0 => return Err(self.lacking(number, left)),
                (_, is_destroyed) => {
                    let why = if is_destroyed {
                        "its destruction was not recorded here: the server stopped, or this registry is of before"
                    } else {
                        "its material is missing, and nothing lay under it"
                    };
                    tracing::warn!(version = number, left, why, "a version of the wrapping key is gone");
                    let entry = Entry::done(&server, "wrapping.destroy", self.now())
                        .about(format!("wrap:{number}"))
                        .because(why)
                        .with("lost_rows", left);
                    self.store.destroy_wrapping(number, true, self.now(), entry.build()).await?;
                }
            }
        }
        let newest = |versions: &[WrappingVersion]| versions.last().map_or(FIRST_VERSION, |last| last.version);
        for (version, _) in self.wrapping.versions() {
            let seen = newest(&self.store.wrapping_versions()?);
            if version > seen {
                let why = "it was made and not recorded here: the server stopped, or this registry is of before";
                self.adopt_wrapping(&server, (seen, version), why).await?;
            }
        }
        let versions = self.store.wrapping_versions()?;
        if versions.last().is_some_and(|last| last.state == KeyState::Destroyed) {
            self.advance_wrapping(&server, newest(&versions), "the newest version is gone").await?;
        }
        Ok(())
    }

    fn lacking(&self, version: u32, left: u64) -> FleetError {
        FleetError::Local {
            path: self.dir.wrapping_keys().display().to_string(),
            problem: format!(
                "lacks version {version} of the wrapping key, under which {left} rows of the registry lie: bring back the \
                 copy of this file that was made after the last rotation, or the one at the witness"
            ),
        }
    }

    /// The background's share of the sweep.
    pub(crate) async fn turn_wrapping(&self) -> Result<(), FleetError> {
        for _ in 0..BATCHES_PER_TURN {
            if !self.rewrap_some(MAX_MOVED).await?.more {
                return Ok(());
            }
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Brings at most `limit` rows (and at most 1,024) under the newest version of the wrapping key, in one transaction.
    ///
    /// # Errors
    /// [`FleetError::Signer`], [`FleetError::StoreFull`], [`FleetError::Fenced`]; nothing is lost, and the next call goes on.
    pub async fn rewrap_some(&self, limit: usize) -> Result<Rewrapped, FleetError> {
        let now = self.now();
        let Place { after, rests_until, .. } = *self.wrapping_sweep.place();
        // A clock that went back ends the rest.
        if rests_until.is_some_and(|until| now < until && until.since(now) <= REST) {
            return Ok(Rewrapped::default());
        }
        let newest = self.store.wrapping_versions()?.last().map_or(FIRST_VERSION, |version| version.version);
        if newest == FIRST_VERSION {
            return Ok(Rewrapped::default());
        }
        let ready = self.wrapping_sweep.ready().take();
        let batch = match ready.filter(|batch| batch.newest == newest && batch.rows.len() <= limit) {
            Some(batch) => batch,
            None => self.batch(newest, after, limit).await?,
        };
        let Some(last) = batch.rows.last().map(|row| row.place) else { return Ok(self.end_sweep(now)) };
        let unreadable = u64::try_from(batch.rows.len() - batch.moved.len()).unwrap_or(u64::MAX);
        let keys: Vec<WrappedPlace> = batch.moved.iter().map(|row| row.from.place).collect();
        // The signer works on the next one while the disk has this one.
        let (moved, next) = tokio::join!(self.store_moved(batch.moved, newest), self.batch(newest, Some(last), limit));
        let moved = moved?;
        self.replace_handles(&keys)?;
        if unreadable > 0 {
            let mut place = self.wrapping_sweep.place();
            place.after = Some(last);
            place.unreadable = place.unreadable.saturating_add(unreadable);
        }
        // Whatever went wrong with it will be said when it is its turn.
        *self.wrapping_sweep.ready() = next.ok().filter(|batch| !batch.rows.is_empty());
        Ok(Rewrapped { moved, unreadable, more: true })
    }

    /// The next rows, and what is to be written of them.
    async fn batch(&self, newest: u32, after: Option<WrappedPlace>, limit: usize) -> Result<Batch, FleetError> {
        let rows = self.store.wrapped_below(newest, after, limit)?;
        let moved = self.rewrapped(&rows).await?;
        Ok(Batch { newest, rows, moved })
    }

    async fn store_moved(&self, rows: Vec<MovedRow>, newest: u32) -> Result<u64, FleetError> {
        if rows.is_empty() {
            return Ok(0);
        }
        let entry = Entry::done(&Self::server_principal(), "wrapping.rewrap", self.now())
            .about(format!("wrap:{newest}"))
            .with("version", newest);
        Ok(self.store.move_wrapped(rows, entry.build()).await?)
    }

    fn end_sweep(&self, now: UnixMillis) -> Rewrapped {
        let mut place = self.wrapping_sweep.place();
        let unreadable = place.unreadable;
        if unreadable > 0 {
            tracing::error!(unreadable, "rows of the registry do not open under their version of the wrapping key");
        }
        *place = Place { rests_until: (unreadable > 0).then(|| now.plus(REST)), ..Place::default() };
        Rewrapped { unreadable, ..Rewrapped::default() }
    }

    /// The rows under the newest version; one that does not open is left out.
    async fn rewrapped(&self, rows: &[WrappedRow]) -> Result<Vec<MovedRow>, FleetError> {
        let mut moved = Vec::with_capacity(rows.len());
        let (mut secrets, mut sources) = (Vec::new(), Vec::new());
        for row in rows {
            let context = match row.place {
                WrappedPlace::SignatureKey(key) => {
                    let handle = KeyHandle::from_bytes(&row.wrapped);
                    let handle = handle.map_err(|_unreadable| FleetError::Bug("stored key handle"))?;
                    let to = self.signer.rewrap_handle(key, &handle).await?.to_bytes();
                    moved.push(MovedRow { from: row.clone(), to });
                    continue;
                }
                WrappedPlace::EncryptionVersion(key, version) => material_context(key, version),
                WrappedPlace::Salt(_, device) => SignerClient::salt_context(device),
            };
            secrets.push(RewrapItem { context, wrapped: row.wrapped.clone() });
            sources.push(row);
        }
        if !secrets.is_empty() {
            let wrapped = self.signer.rewrap(&secrets).await?;
            let pairs = sources.into_iter().zip(wrapped);
            moved.extend(pairs.filter_map(|(from, to)| Some(MovedRow { from: from.clone(), to: to? })));
        }
        Ok(moved)
    }

    /// The signer loads moved keys by their new handles from now on.
    fn replace_handles(&self, moved: &[WrappedPlace]) -> Result<(), FleetError> {
        for place in moved {
            if let WrappedPlace::SignatureKey(key) = place
                && let Some(record) = self.store.key(*key)?
                && record.material != KeyMaterial::Destroyed
            {
                self.signer.replace_handle(*key, crate::authority::handle_of(&record)?);
            }
        }
        Ok(())
    }
}
