//! Escrows as the server knows them: it never sees a share. It logs each use before it happens, asks a second person before a release,
//! and alarms when nobody has shown for too long that an escrow opens.

use kf_access::{Action, Principal, Target, authorize};
use kf_api::escrow::{Escrow, EscrowOutcome, ShareUse, ShareUseRequest};
use kf_api::proposal::{ProposalState, ProposedAct};

use crate::entry::Entry;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// The most custodians of an escrow.
const MAX_CUSTODIANS: usize = 16;

impl Fleet {
    /// Makes an escrow known that a ceremony made.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::Conflict`] for one that is known, [`FleetError::Denied`].
    pub async fn escrow_create(&self, who: &Principal, escrow: Escrow) -> Result<Escrow, FleetError> {
        authorize(who, Action::EscrowManage, Target::Fleet)?;
        let is_id = escrow.ceremony.len() == 16 && escrow.ceremony.bytes().all(|digit| digit.is_ascii_hexdigit());
        let is_class = matches!(escrow.class.as_str(), "root" | "backup-key");
        let count = escrow.custodians.len();
        let is_quorum = (2..=count).contains(&usize::from(escrow.threshold)) && count <= MAX_CUSTODIANS;
        if escrow.v != 1 || !is_id || !is_class || !is_quorum || escrow.rehearse_days == 0 {
            return Err(FleetError::invalid(
                "escrow",
                "is not what a ceremony makes",
                "send the escrow.json that `keyfleet escrow split` wrote",
            ));
        }
        if let Some(old) = &escrow.replaces {
            self.replaceable(&escrow, old)?;
        }
        let escrow = Escrow { rehearsed: None, replaced_by: None, ..escrow };
        let people: Vec<_> = escrow.custodians.iter().map(|custodian| custodian.person.as_str()).collect();
        let entry = self
            .evidence(Entry::done(who, "escrow.create", self.now()))
            .with("replaces", escrow.replaces.as_deref().unwrap_or("nothing"))
            .with("ceremony", &escrow.ceremony)
            .with("class", &escrow.class)
            .with("threshold", escrow.threshold)
            .with("custodians", people.join(", "));
        self.store.insert_escrow(escrow.clone(), entry.build()).await?;
        Ok(escrow)
    }

    /// The escrow whose custodians others take over from: of the same class, and replaced by nobody else.
    fn replaceable(&self, new: &Escrow, old: &str) -> Result<Escrow, FleetError> {
        let found = self.store.escrow(old)?.ok_or(FleetError::NotFound("escrow that is replaced"))?;
        if found.class != new.class || found.replaced_by.as_ref().is_some_and(|by| *by != new.ceremony) {
            return Err(FleetError::conflict(
                "replaces",
                format!("ceremony {old} is of another class, or was replaced before"),
                "name the ceremony whose shares are held now: `keyfleet escrow list`",
            ));
        }
        Ok(found)
    }

    /// The escrows that are known.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn escrow_list(&self, who: &Principal) -> Result<Vec<Escrow>, FleetError> {
        authorize(who, Action::EscrowRead, Target::Fleet)?;
        Ok(self.store.escrows()?)
    }

    /// Proposes a release. Always two people's act, or one person's and a day's.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] without a reason, [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn escrow_release(
        &self,
        who: &Principal,
        ceremony: &str,
        why: String,
    ) -> Result<EscrowOutcome, FleetError> {
        check_why(&why)?;
        if why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say why the key is brought back"));
        }
        let escrow = self.escrow_to_release(who, ceremony)?;
        let act = ProposedAct::ReleaseEscrow { ceremony: escrow.ceremony, why };
        let waiting = self.propose(who, act, self.dual_control().always(self.now()), (0, 0), None).await?;
        let proposal = waiting.and_then(|waiting| waiting.proposal);
        Ok(EscrowOutcome { proposal: proposal.ok_or(FleetError::Bug("a release asked for no second person"))? })
    }

    /// An escrow that the caller may have released.
    pub(crate) fn escrow_to_release(&self, who: &Principal, ceremony: &str) -> Result<Escrow, FleetError> {
        authorize(who, Action::EscrowManage, Target::Fleet)?;
        self.store.escrow(ceremony)?.ok_or(FleetError::NotFound("escrow"))
    }

    /// Logs that a share is about to be used. For a release, only under a proposal that was approved and has not lapsed.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] without such a proposal, [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn escrow_use(
        &self,
        who: &Principal,
        ceremony: &str,
        request: ShareUseRequest,
    ) -> Result<(), FleetError> {
        let permit = authorize(who, Action::EscrowManage, Target::Fleet)?;
        let escrow = self.store.escrow(ceremony)?.ok_or(FleetError::NotFound("escrow"))?;
        let custodian = escrow.custodians.iter().find(|custodian| custodian.index == request.index);
        let custodian = custodian.ok_or(FleetError::NotFound("share"))?;
        if request.purpose == ShareUse::Release {
            let unapproved = || {
                FleetError::conflict(
                    "proposal",
                    "no release of this escrow is approved",
                    "propose it with `keyfleet escrow release`, and have a second person approve it",
                )
            };
            let id = request.proposal.ok_or_else(unapproved)?;
            let found = self.store.proposal(id, permit.visibility())?.ok_or_else(unapproved)?;
            let is_ours =
                matches!(&found.act, ProposedAct::ReleaseEscrow { ceremony, .. } if *ceremony == escrow.ceremony);
            if !is_ours || found.state != ProposalState::Done || found.expires <= self.now() {
                return Err(unapproved());
            }
        }
        let mut entry = self
            .evidence(Entry::done(who, "escrow.use", self.now()))
            .with("ceremony", &escrow.ceremony)
            .with("share", request.index)
            .with("custodian", &custodian.person)
            .with("purpose", request.purpose.name());
        if let Some(proposal) = request.proposal {
            entry = entry.about(proposal);
        }
        self.store.append_log(entry.build()).await?;
        Ok(())
    }

    /// Records that a rehearsal opened an escrow.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`].
    pub async fn escrow_rehearsed(&self, who: &Principal, ceremony: &str, why: String) -> Result<Escrow, FleetError> {
        check_why(&why)?;
        authorize(who, Action::EscrowManage, Target::Fleet)?;
        let found = self.store.escrow(ceremony)?.ok_or(FleetError::NotFound("escrow"))?;
        let now = self.now();
        let escrow = Escrow { rehearsed: Some(now), ..found };
        let entry =
            self.evidence(Entry::done(who, "escrow.rehearse", now)).because(&why).with("ceremony", &escrow.ceremony);
        self.store.keep_escrow(escrow.clone(), entry.build()).await?;
        self.replace(who, &escrow).await?;
        Ok(escrow)
    }

    /// New custodians have taken over once it was shown that their shares open; until then the old ones are rehearsed and
    /// alarmed for.
    async fn replace(&self, who: &Principal, new: &Escrow) -> Result<(), FleetError> {
        let Some(old) = &new.replaces else { return Ok(()) };
        let old = self.replaceable(new, old)?;
        if old.replaced_by.is_some() {
            return Ok(());
        }
        let entry = self
            .evidence(Entry::done(who, "escrow.replace", self.now()))
            .with("ceremony", &new.ceremony)
            .with("replaces", &old.ceremony);
        let old = Escrow { replaced_by: Some(new.ceremony.clone()), ..old };
        self.store.keep_escrow(old, entry.build()).await?;
        Ok(())
    }

    /// What is to be said of escrows in the status: those that nobody has shown to open for too long.
    pub(crate) fn escrow_warnings(&self) -> Vec<String> {
        let now = self.now();
        let escrows = self.store.escrows().unwrap_or_default();
        let overdue = escrows.into_iter().filter(|escrow| escrow.is_overdue(now));
        overdue
            .map(|escrow| {
                format!(
                    "escrow `{}` ({}) is overdue for a rehearsal: nobody has shown for {} days that it opens; \
                     `keyfleet escrow rehearse`",
                    escrow.name, escrow.ceremony, escrow.rehearse_days
                )
            })
            .collect()
    }
}
