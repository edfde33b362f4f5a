//! Withdrawing a successor that has not taken over: one transaction, in which it is revoked with everything below it.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::proposal::ProposedAct;
use kf_api::succession::{Succession, SuccessionActRequest, SuccessionOutcome};
use kf_key::{AuthorityId, SuccessionState};
use kf_rotation::succession::{Hindrance, WithdrawalFacts, may_withdraw};
use kf_store::succession::{Attached, Withdrawal};

use super::succession::hindered;
use crate::entry::Entry;
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

impl Fleet {
    /// Withdraws the successor of a CA, or proposes it where devices trust it already.
    pub(super) async fn withdraw(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
        request: &SuccessionActRequest,
    ) -> Result<SuccessionOutcome, FleetError> {
        let (_, attached) = self.successor_to_withdraw(who, predecessor)?;
        let Attached { trusting, .. } = attached;
        if request.dry_run {
            return self.not_done(predecessor, None);
        }
        if trusting == 0 {
            return self.carry_out_withdrawal(who, predecessor, (0, &request.why), &Consent::NotNeeded).await;
        }
        if !request.although_trusted {
            let name = self.succession_of(predecessor)?.predecessor_name;
            return Err(hindered(&name, Hindrance::Trusting { devices: trusting }));
        }
        let act = ProposedAct::WithdrawAuthority { authority: predecessor, trusting, why: request.why.clone() };
        self.propose_end(who, predecessor, act, trusting).await
    }

    /// A successor that the caller may withdraw, with what is below it, the root first; and what hangs on them.
    pub(crate) fn successor_to_withdraw(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
    ) -> Result<(Vec<Succession>, Attached), FleetError> {
        authorize(who, Action::AuthorityRevoke, Target::Fleet)?;
        let first = self.succession_of(predecessor)?;
        let authorities = self.authorities();
        let heir = authorities.get(first.successor).ok_or(FleetError::Bug("a successor that is not there"))?;
        let below = authorities.lineage.all().map(|handover| &handover.succession).filter(|succession| {
            let heir = authorities.get(succession.successor);
            heir.is_some_and(|heir| heir.record.issuer == Some(first.successor))
        });
        let together: Vec<Succession> = std::iter::once(&first).chain(below).cloned().collect();
        let successors: Vec<_> = together.iter().map(|one| (one.successor, one.made)).collect();
        let attached = self.store.attached_to_successors(&successors)?;
        let facts = WithdrawalFacts {
            state: first.state,
            waits_for_root: heir.record.issuer.is_some_and(|root| !authorities.lineage.may_issue(root)),
            issued: attached.issued,
            asking: attached.asking,
            trusting: attached.trusting,
            agreed: u64::MAX,
        };
        may_withdraw(&facts).map_err(|hindrance| hindered(&first.predecessor_name, hindrance))?;
        Ok((together, attached))
    }

    /// Withdraws a successor that so many devices may trust.
    pub(crate) async fn carry_out_withdrawal(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
        (agreed, why): (u64, &str),
        consent: &Consent,
    ) -> Result<SuccessionOutcome, FleetError> {
        let (together, attached) = self.successor_to_withdraw(who, predecessor)?;
        let first = together.first().ok_or(FleetError::Bug("no succession"))?.clone();
        if attached.trusting > agreed {
            return Err(hindered(&first.predecessor_name, Hindrance::Trusting { devices: attached.trusting }));
        }
        let now = self.now();
        let entry = Entry::done(who, "authority.withdraw", now).about(first.predecessor);
        let entry = together.iter().fold(entry, |entry, one| {
            entry.about(one.successor).with(&one.successor_name, format!("was to succeed {}", one.predecessor_name))
        });
        let predecessors = together.iter().map(|one| one.predecessor).collect();
        let withdrawal = Withdrawal { predecessors, agreed, at: now };
        let audit = consent.with(self.evidence(entry.because(why)).build());
        let logged = self.store.withdraw_successions(withdrawal, audit).await?;
        let log_index = Some(logged.index);
        self.after_status_changes(logged, false).await?;
        self.after_step().await?;
        let succession = Succession { state: SuccessionState::Withdrawn, withdrawn: Some(now), ..first };
        Ok(SuccessionOutcome { done: true, proposal: None, succession: self.status_with(succession)?, log_index })
    }

    /// Where a succession stands that was withdrawn, by the name or id of the one that was to take over.
    pub(super) fn withdrawn(&self, authority: &str) -> Result<Option<Succession>, FleetError> {
        let id = self.find_authority(authority)?.record.id;
        Ok(self.authorities().lineage.withdrawn(id).cloned())
    }
}
