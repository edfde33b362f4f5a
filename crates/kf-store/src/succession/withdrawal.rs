//! Withdrawing successors that nothing was issued under.

use kf_access::Visibility;
use kf_key::{AuthorityId, RevocationReason, SerialNumber, SuccessionState, UnixMillis};
use rusqlite::{Connection, Row};

use super::{deactivate_key, found};
use crate::act::Class;
use crate::column::{Coded, count, millis};
use crate::revocation::{Profiles, Revocation, Revoked, Selection, change, revoke_itself};
use crate::{Audit, Logged, Store, StoreError, sql};

/// What hangs on a successor that has not taken over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Certificates of devices and operators below it.
    pub issued: u64,
    /// Campaigns that ask devices to trust it: running, paused or stopped.
    pub asking: u64,
    /// Devices, but decommissioned ones, that have proved that they trust it, or were asked to by a campaign that has ended. Who
    /// merely fetched the CA certificates is not known.
    pub trusting: u64,
}

impl Attached {
    const fn and(self, other: Self) -> Self {
        Self {
            issued: self.issued.saturating_add(other.issued),
            asking: self.asking.saturating_add(other.asking),
            trusting: self.trusting.saturating_add(other.trusting),
        }
    }
}

/// Successors that are to be withdrawn together: a root with what is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Withdrawal {
    /// The old CAs, the root first.
    pub predecessors: Vec<AuthorityId>,
    /// Devices that were agreed to trust a root that is withdrawn.
    pub agreed: u64,
    /// When.
    pub at: UnixMillis,
}

/// What hangs on one successor, which was made at `made`.
fn attached(connection: &Connection, successor: AuthorityId, made: UnixMillis) -> Result<Attached, StoreError> {
    let (id, since) = (successor.as_bytes(), millis(made));
    // Of devices (3, 4) and operators (7). The server's own (5), those of responders (6) and links (8) go with it.
    let issued = "SELECT count(*) FROM certificate WHERE authority = ?1 AND profile IN (3, 4, 7)";
    // A campaign of this kind (3) is about the one root that takes over: those since it was made.
    let asking = "SELECT count(*) FROM campaign c WHERE c.kind = 3 AND c.state IN (2, 3, 4) AND c.created >= ?2
        AND EXISTS (SELECT 1 FROM succession s JOIN authority a ON a.id = s.successor
            WHERE s.successor = ?1 AND a.issuer IS NULL)";
    // Whoever was taken into a wave, but those whose part was taken back (6): they were never told.
    let trusting = "SELECT count(*) FROM device d WHERE d.state <> 5 AND (
        EXISTS (SELECT 1 FROM device_trust t WHERE t.root = ?1 AND t.device = d.id)
        OR EXISTS (SELECT 1 FROM authority a WHERE a.id = ?1 AND a.issuer IS NULL)
            AND EXISTS (SELECT 1 FROM campaign c CROSS JOIN campaign_device m ON m.campaign = c.id AND m.device = d.id
                WHERE c.kind = 3 AND c.created >= ?2 AND m.state NOT IN (1, 5, 6)))";
    let one = |row: &Row<'_>| count(row, 0);
    Ok(Attached {
        issued: sql::one(connection, issued, [id], one)?.unwrap_or_default(),
        asking: sql::one(connection, asking, (id, since), one)?.unwrap_or_default(),
        trusting: sql::one(connection, trusting, (id, since), one)?.unwrap_or_default(),
    })
}

impl Store {
    /// What hangs on the successors of CAs that have not handed over.
    ///
    /// # Errors
    /// [`StoreError::NotFound`] for a CA without one.
    pub fn attached_to_successors(&self, successors: &[(AuthorityId, UnixMillis)]) -> Result<Attached, StoreError> {
        self.read(|connection| {
            sql::at_once(connection, || {
                successors.iter().try_fold(Attached::default(), |sum, (successor, made)| {
                    Ok(sum.and(attached(connection, *successor, *made)?))
                })
            })
        })
    }

    /// Withdraws successors that have not taken over, for good: their certificates, the link from the old root, and all that is
    /// below them are revoked, their keys deactivated. What hangs on them is counted in the same transaction, and noted in the
    /// log entry (`detail.trusting`, `detail.certificates`). The old CAs may be succeeded anew.
    ///
    /// # Errors
    /// [`StoreError::NotFound`]; [`StoreError::IllegalState`] when one has taken over, when something was issued below it, a campaign
    /// asks for trust in it, or more devices trust it than was agreed.
    pub async fn withdraw_successions(
        &self,
        withdrawal: Withdrawal,
        audit: impl Into<Audit>,
    ) -> Result<Logged<Revoked>, StoreError> {
        let audit = audit.into();
        self.write(Class::Ordinary, move |act| {
            let Withdrawal { predecessors, agreed, at } = &withdrawal;
            let (mut sum, mut revoked, mut stored) = (Attached::default(), Revoked::default(), Vec::new());
            for predecessor in predecessors.iter().take(super::MAX_AT_ONCE) {
                let one = found(act, *predecessor)?;
                let succession = &one.succession;
                succession.state.transition(SuccessionState::Withdrawn).map_err(|illegal| {
                    StoreError::IllegalState {
                        what: "succession",
                        found: illegal.from.name().into(),
                        expected: SuccessionState::Prepared.name().into(),
                    }
                })?;
                sum = sum.and(attached(act.connection(), succession.successor, succession.made)?);
                stored.push(one);
            }
            require_free(sum, *agreed)?;
            for one in &stored {
                let successor = one.succession.successor;
                let sql = "UPDATE succession SET state = ?2, withdrawn = ?3 WHERE successor = ?1";
                act.execute(sql, (successor.as_bytes(), SuccessionState::Withdrawn.code(), millis(*at)))?;
                let of = |selection| Revocation {
                    selection,
                    profiles: Profiles::All,
                    reason: RevocationReason::CessationOfOperation,
                    at: *at,
                };
                let below = of(Selection::Authority(successor));
                revoked.add(change(act, &below, &Visibility::Fleet)?);
                revoked.add(revoke_itself(act, successor, &below)?);
                let link: Option<SerialNumber> = one.new_with_old;
                if let Some(link) = link {
                    revoked.add(change(act, &of(Selection::Certificate(link)), &Visibility::Fleet)?);
                }
                deactivate_key(act, successor, *at)?;
            }
            let facts = [("trusting", sum.trusting.to_string()), ("certificates", revoked.certificates.to_string())];
            let index = act.log(&audit.with_details(facts))?;
            Ok(Logged { value: revoked, index })
        })
        .await
    }
}

/// The same that the caller was told, which may have changed since.
fn require_free(sum: Attached, agreed: u64) -> Result<(), StoreError> {
    let Attached { issued, asking, trusting } = sum;
    let refused = |found: String, expected: String| StoreError::IllegalState { what: "successor", found, expected };
    if issued > 0 {
        return Err(refused(format!("one that has issued {issued} certificates"), "one that has issued none".into()));
    }
    if asking > 0 {
        let found = format!("one that {asking} campaigns ask devices to trust");
        return Err(refused(found, "one that none asks for".into()));
    }
    if trusting > agreed {
        let found = format!("one that {trusting} devices trust, or were asked to");
        return Err(refused(found, format!("one that at most {agreed} trust")));
    }
    Ok(())
}
