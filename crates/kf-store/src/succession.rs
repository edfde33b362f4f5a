//! Successions of CAs, and which devices have proved that they trust a new root. Every facility shares the CAs, so reading
//! successions takes no visibility.

mod withdrawal;

use kf_access::Visibility;
use kf_api::authority::AuthorityKind;
use kf_api::campaign::SilenceByAge;
use kf_api::certificate::Certificate;
use kf_api::succession::{Succession, TrustProgress, UnprovedDevice};
use kf_api::{Page, PageRequest};
use kf_key::{AuthorityId, DeviceId, KeyState, SerialNumber, SuccessionState, UnixMillis};
use rusqlite::{Connection, Row};

use crate::act::{Act, Class};
use crate::authority::AuthorityRecord;
use crate::column::{self, Coded, count, millis};
use crate::listing::{BAD_CURSOR, next_of};
use crate::sql::{self, in_scope, scope};
use crate::{Audit, Logged, Store, StoreError};

pub use withdrawal::{Attached, Withdrawal};

/// The most CAs that are succeeded in one act: a root and what is below it.
pub const MAX_AT_ONCE: usize = 64;

macro_rules! columns {
    () => {
        "SELECT s.predecessor, p.name, s.successor, n.name, p.kind, s.state, s.why, s.made, s.switched, s.retired,
            s.closed, s.new_with_old, s.old_with_new, s.withdrawn FROM succession s JOIN authority p ON p.id = s.predecessor
            JOIN authority n ON n.id = s.successor"
    };
}

/// A succession with the serial numbers of its link certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredSuccession {
    /// The succession; its texts of link certificates are left out.
    pub succession: Succession,
    /// NewWithOld.
    pub new_with_old: Option<SerialNumber>,
    /// OldWithNew.
    pub old_with_new: Option<SerialNumber>,
}

/// One CA and the successor that is to be added for it, complete.
#[derive(Clone, Debug)]
pub struct NewHeir {
    /// The old CA.
    pub predecessor: AuthorityId,
    /// The new one.
    pub successor: AuthorityRecord,
    /// Of roots: NewWithOld and OldWithNew, each as a row of the registry and as DER.
    pub links: Option<[(Certificate, Vec<u8>); 2]>,
}

/// A step of one or more successions, taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuccessionChange {
    /// The old CAs.
    pub predecessors: Vec<AuthorityId>,
    /// The state that the caller saw all of them in.
    pub seen: SuccessionState,
    /// The new state.
    pub to: SuccessionState,
    /// Devices that may be left behind when a root is retired: those that have not proved that they trust its successor.
    pub agreed: u64,
    /// When.
    pub at: UnixMillis,
}

fn succession_row(row: &Row<'_>) -> rusqlite::Result<StoredSuccession> {
    let link = |column| match row.get::<_, Option<[u8; 20]>>(column)? {
        None => Ok(None),
        Some(_) => column::serial(row, column).map(Some),
    };
    Ok(StoredSuccession {
        succession: Succession {
            predecessor: column::id(row, 0)?,
            predecessor_name: row.get(1)?,
            successor: column::id(row, 2)?,
            successor_name: row.get(3)?,
            kind: column::coded(row, 4)?,
            state: column::coded(row, 5)?,
            why: row.get(6)?,
            made: column::time(row, 7)?,
            switched: column::optional_time(row, 8)?,
            retired: column::optional_time(row, 9)?,
            closed: column::optional_time(row, 10)?,
            withdrawn: column::optional_time(row, 13)?,
            new_with_old_pem: None,
            old_with_new_pem: None,
        },
        new_with_old: link(11)?,
        old_with_new: link(12)?,
    })
}

fn found(act: &Act<'_>, predecessor: AuthorityId) -> Result<StoredSuccession, StoreError> {
    let sql = concat!(columns!(), " WHERE s.predecessor = ?1 AND s.state <> 5");
    act.one(sql, [predecessor.as_bytes()], succession_row)?.ok_or(StoreError::NotFound { what: "succession" })
}

/// Devices that are not decommissioned (5) and have not proved that they trust a root.
fn unproved(act: &Act<'_>, root: AuthorityId) -> Result<u64, StoreError> {
    let sql = "SELECT count(*) FROM device d WHERE d.state <> 5
        AND NOT EXISTS (SELECT 1 FROM device_trust t WHERE t.root = ?1 AND t.device = d.id)";
    Ok(act.one(sql, [root.as_bytes()], |row| count(row, 0))?.unwrap_or(0))
}

/// The successor takes over as default of the fleet, where the old CA was it.
fn hand_over_default(act: &Act<'_>, succession: &Succession) -> Result<(), StoreError> {
    let sql = "UPDATE authority SET is_default = 0 WHERE id = ?1 AND is_default = 1";
    if act.execute(sql, [succession.predecessor.as_bytes()])? > 0 {
        act.execute("UPDATE authority SET is_default = 1 WHERE id = ?1", [succession.successor.as_bytes()])?;
    }
    Ok(())
}

/// The key of a CA whose certificates have all expired signs nothing any more.
fn deactivate_key(act: &Act<'_>, authority: AuthorityId, at: UnixMillis) -> Result<(), StoreError> {
    let sql = "UPDATE key SET state = ?2, deactivated = ?3 WHERE state = ?4
        AND id = (SELECT key FROM authority WHERE id = ?1)";
    let (to, from) = (KeyState::Deactivated.code(), KeyState::Active.code());
    act.execute(sql, (authority.as_bytes(), to, millis(at), from))?;
    Ok(())
}

impl Store {
    /// Adds successors of CAs with their keys, certificates and links, all in one act; nothing issues from them yet.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] on `succession` when one of the old CAs has a successor, on `name`, `id`, `serial` or `key`;
    /// [`StoreError::Stopped`].
    pub async fn insert_successions(
        &self,
        heirs: Vec<NewHeir>,
        why: String,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        self.logged(Class::Ordinary, audit.into(), move |act| {
            act.require_issuance()?;
            if heirs.is_empty() || heirs.len() > MAX_AT_ONCE {
                return Err(StoreError::Invalid { field: "succession", problem: "1 to 64 CAs at once" });
            }
            for NewHeir { successor, .. } in &heirs {
                crate::authority::insert_complete(act, successor)?;
            }
            for NewHeir { predecessor, successor, links } in &heirs {
                let mut serials = [None; 2];
                for (place, (certificate, der)) in serials.iter_mut().zip(links.iter().flatten()) {
                    crate::certificate::issuance::insert_with_key(act, certificate, der, None)?;
                    *place = Some(certificate.serial);
                }
                let [new_with_old, old_with_new] = &serials;
                let sql =
                    "INSERT INTO succession (predecessor, successor, state, why, made, new_with_old, old_with_new)
                    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
                let (predecessor, successor) = (predecessor.as_bytes(), successor.authority.id.as_bytes());
                let links = (new_with_old.as_ref(), old_with_new.as_ref());
                let (new_with_old, old_with_new) =
                    (links.0.map(SerialNumber::as_bytes), links.1.map(SerialNumber::as_bytes));
                let state = SuccessionState::Prepared.code();
                act.execute(sql, (predecessor, successor, state, &why, millis(at), new_with_old, old_with_new))?;
            }
            Ok(())
        })
        .await
    }

    /// Takes successions one step on by the one transition function. A switch hands the default over; closing deactivates the
    /// old key. Devices that a retired root would strand are counted in the same transaction, and noted in the log entry
    /// (`detail.stranded`).
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when one is not as the caller saw it, or cannot become this, or when more
    /// devices would be left behind than was agreed.
    pub async fn change_successions(
        &self,
        change: SuccessionChange,
        audit: impl Into<Audit>,
    ) -> Result<Logged<()>, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let SuccessionChange { predecessors, seen, to, agreed, at } = &change;
            let mut stranded = 0;
            for predecessor in predecessors.iter().take(MAX_AT_ONCE) {
                let stored = found(act, *predecessor)?.succession;
                let illegal = |expected: String| StoreError::IllegalState {
                    what: "succession",
                    found: stored.state.name().into(),
                    expected,
                };
                if stored.state != *seen {
                    return Err(illegal(seen.name().into()));
                }
                seen.transition(*to).map_err(|to| illegal(format!("one that can become {}", to.to.name())))?;
                if stored.kind == AuthorityKind::Root {
                    stranded += unproved(act, stored.successor)?;
                }
                if *to == SuccessionState::Retired && stranded > *agreed {
                    return Err(StoreError::IllegalState {
                        what: "authority",
                        found: format!(
                            "one that {stranded} devices depend on, which have not proved that they trust its successor"
                        ),
                        expected: format!("one that at most {agreed} are left behind by"),
                    });
                }
                let sql = match to {
                    SuccessionState::Switched => "UPDATE succession SET state = ?2, switched = ?3 WHERE successor = ?1",
                    SuccessionState::Retired => "UPDATE succession SET state = ?2, retired = ?3 WHERE successor = ?1",
                    SuccessionState::Closed => "UPDATE succession SET state = ?2, closed = ?3 WHERE successor = ?1",
                    SuccessionState::Prepared | SuccessionState::Withdrawn => {
                        return Err(illegal("one that goes on".into()));
                    }
                };
                act.execute(sql, (stored.successor.as_bytes(), to.code(), millis(*at)))?;
                match to {
                    SuccessionState::Switched => hand_over_default(act, &stored)?,
                    SuccessionState::Closed => deactivate_key(act, *predecessor, *at)?,
                    _ => {}
                }
            }
            let index = act.log(&audit.with_detail("stranded", stranded))?;
            Ok(Logged { value: (), index })
        })
        .await
    }

    /// Every succession, oldest first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn successions(&self) -> Result<Vec<StoredSuccession>, StoreError> {
        let sql = concat!(columns!(), " ORDER BY s.made, s.predecessor");
        self.read(|connection| sql::all(connection, sql, [], succession_row))
    }

    /// Notes once that a device has proved that it trusts a root; `false` when that was known.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn note_trust(
        &self,
        root: AuthorityId,
        device: DeviceId,
        at: UnixMillis,
        audit: impl Into<Audit>,
    ) -> Result<bool, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let sql = "INSERT INTO device_trust (root, device, at) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING";
            let is_new = act.execute(sql, (root.as_bytes(), device.as_bytes(), millis(at)))? > 0;
            if is_new {
                act.log(&audit)?;
            }
            Ok(is_new)
        })
        .await
    }

    /// Whether a device has proved that it trusts a root.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn trusts(&self, root: AuthorityId, device: DeviceId) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM device_trust WHERE root = ?1 AND device = ?2";
        self.read(|connection| sql::exists(connection, sql, (root.as_bytes(), device.as_bytes())))
    }

    /// What part of the fleet has proved that it trusts a root. Decommissioned devices (5) do not count.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn trust_progress(&self, root: AuthorityId, now: UnixMillis) -> Result<TrustProgress, StoreError> {
        let sql = "SELECT CASE WHEN t.device IS NOT NULL THEN 0 WHEN d.last_seen IS NULL THEN 1
                WHEN d.last_seen > ?2 - 86400000 THEN 2 WHEN d.last_seen > ?2 - 7 * 86400000 THEN 3
                WHEN d.last_seen > ?2 - 30 * 86400000 THEN 4 ELSE 5 END, count(*)
            FROM device d LEFT JOIN device_trust t ON t.root = ?1 AND t.device = d.id WHERE d.state <> 5 GROUP BY 1";
        self.read(|connection| {
            let (mut progress, mut ages) = (TrustProgress::default(), SilenceByAge::default());
            sql::all(connection, sql, (root.as_bytes(), millis(now)), |row| {
                let devices = count(row, 1)?;
                progress.devices += devices;
                let bucket = match row.get::<_, u8>(0)? {
                    0 => &mut progress.proved,
                    1 => &mut ages.never,
                    2 => &mut ages.day,
                    3 => &mut ages.week,
                    4 => &mut ages.month,
                    _ => &mut ages.longer,
                };
                *bucket += devices;
                Ok(())
            })?;
            let unproved = progress.devices.saturating_sub(progress.proved);
            Ok(TrustProgress { unproved, unproved_unheard: ages, ..progress })
        })
    }

    /// Devices that have not proved that they trust a root, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError::Invalid`] for a cursor that is none.
    pub fn unproved_devices(
        &self,
        root: AuthorityId,
        visibility: &Visibility,
        page: &PageRequest,
    ) -> Result<Page<UnprovedDevice>, StoreError> {
        let sql = concat!(
            "SELECT d.id, d.name, d.facility, d.last_seen FROM device d WHERE d.state <> 5 AND d.id > ?2
            AND NOT EXISTS (SELECT 1 FROM device_trust t WHERE t.root = ?4 AND t.device = d.id) AND ",
            in_scope!("d.facility"),
            " ORDER BY d.id LIMIT ?3"
        );
        self.unproved(page, |connection, after, rows| {
            sql::all(connection, sql, (scope(visibility), after, rows, root.as_bytes()), unproved_row)
        })
    }

    /// A page of devices that have not proved something, as `look` finds those after one of them, at most so many.
    pub(crate) fn unproved(
        &self,
        page: &PageRequest,
        look: impl Fn(&Connection, &[u8], u32) -> Result<Vec<UnprovedDevice>, StoreError>,
    ) -> Result<Page<UnprovedDevice>, StoreError> {
        let after = match &page.after {
            None => Vec::new(),
            Some(text) => text.parse::<DeviceId>().map_err(|_detail| BAD_CURSOR)?.as_bytes().to_vec(),
        };
        let mut items = self.read(|connection| look(connection, &after, page.rows() + 1))?;
        let rows = usize::try_from(page.rows()).unwrap_or(usize::MAX);
        let next = next_of(&mut items, rows, |last| last.device.to_string());
        Ok(Page { items, next })
    }

    /// How many certificates of a CA have not expired, and when the last of them does. Its own does not count, nor do those of
    /// its OCSP responders (6), which answer for the others.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub fn unexpired_below(
        &self,
        authority: AuthorityId,
        now: UnixMillis,
    ) -> Result<(u64, Option<UnixMillis>), StoreError> {
        let sql = "SELECT count(*), max(not_after) FROM certificate WHERE authority = ?1 AND not_after >= ?2
            AND profile <> 6 AND serial <> (SELECT serial FROM authority WHERE id = ?1)";
        let found = self.read(|connection| {
            sql::one(connection, sql, (authority.as_bytes(), millis(now)), |row| {
                Ok((count(row, 0)?, column::optional_time(row, 1)?))
            })
        })?;
        Ok(found.unwrap_or_default())
    }
}

/// `id, name, facility, last_seen` of a device.
pub(crate) fn unproved_row(row: &Row<'_>) -> rusqlite::Result<UnprovedDevice> {
    Ok(UnprovedDevice {
        device: column::id(row, 0)?,
        name: row.get(1)?,
        facility: column::id(row, 2)?,
        last_seen: column::optional_time(row, 3)?,
    })
}
