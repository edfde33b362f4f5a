//! Break-glass: when the others are away. Two people make a credential beforehand, sealed to somebody's key; one person opens it, once, and
//! has its role for an hour at most. What can then be done alone is to stop, and what an incident's plan does; never more than the
//! credential's own scope, and never what founds, destroys or lets in.
//!
//! It cannot be silent: opening it is an entry, an error in the server's log, a metric, a program's call and a warning in every status until two
//! people have reviewed it; and each act of the session has the credential as a subject. It cannot go on: the end is fixed when it begins.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_age::Recipient;
use kf_api::break_glass::{
    BreakGlass, BreakGlassOpening, BreakGlassOutcome, BreakGlassSession, BreakGlassState, BreakGlassUse,
    MAX_SESSION_MINUTES, NewBreakGlass, REVIEWS, Review, SealedEnvelope,
};
use kf_api::operator::{Credential, Role};
use kf_api::proposal::{Proposal, ProposedAct};
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, OperatorId, ProposalId, SecretBytes, UnixMillis};

use crate::entry::Entry;
use crate::fence::Line;
use crate::naming::{check_name, check_why};
use crate::operator::{fresh_token, hash_of};
use crate::proposal::Consent;
use crate::{Fleet, FleetError};

const MINUTE: u64 = 60 * UnixMillis::SECOND;
const MAX_LIFETIME_DAYS: u32 = 366;
const MAX_FACILITIES: usize = 100;

impl Fleet {
    /// Proposes a credential. It is never one person's to make.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`] for a facility, [`FleetError::Denied`].
    pub async fn break_glass_create(
        &self,
        who: &Principal,
        new: NewBreakGlass,
    ) -> Result<BreakGlassOutcome, FleetError> {
        check_why(&new.why)?;
        let facilities = self.break_glass_to_make(who, &new)?;
        let taken = self.store.break_glass(&new.name, &Visibility::Fleet)?.is_some();
        if taken {
            return Err(FleetError::conflict("name", "is in use, or was", "choose another: none is made twice"));
        }
        let only = only_one(&facilities);
        let new = NewBreakGlass { facilities: facilities.iter().map(ToString::to_string).collect(), ..new };
        let act = ProposedAct::CreateBreakGlass { new: Box::new(new) };
        let waiting = self.propose(who, act, self.dual_control().always(self.now()), (0, 0), only).await?;
        let proposal = waiting.and_then(|waiting| waiting.proposal);
        Ok(BreakGlassOutcome { proposal: proposal.ok_or(FleetError::Bug("break-glass asked for no second person"))? })
    }

    /// The facilities of a credential that the caller may have made, or approve.
    pub(crate) fn break_glass_to_make(
        &self,
        who: &Principal,
        new: &NewBreakGlass,
    ) -> Result<Vec<FacilityId>, FleetError> {
        authorize(who, Action::BreakGlassCreate, Target::Fleet)?;
        check_name("name", &new.name)?;
        if new.why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say what it is for"));
        }
        recipient_of(new)?;
        let minutes = new.session_minutes.unwrap_or(MAX_SESSION_MINUTES);
        if !(1..=MAX_SESSION_MINUTES).contains(&minutes) {
            let problem = format!("{minutes} is out of range");
            return Err(FleetError::invalid("session_minutes", problem, "use 1 to 60"));
        }
        let days = new.lifetime_days.unwrap_or(MAX_LIFETIME_DAYS);
        if !(1..=MAX_LIFETIME_DAYS).contains(&days) {
            return Err(FleetError::invalid("lifetime_days", format!("{days} is out of range"), "use 1 to 366 days"));
        }
        let scoped = match new.role {
            Role::FleetOperator => false,
            Role::FacilityOperator => true,
            _ => {
                return Err(FleetError::invalid(
                    "role",
                    "is not one that glass is broken for",
                    "use fleet-operator or facility-operator: there is no super admin, behind glass or elsewhere",
                ));
            }
        };
        if scoped != (1..=MAX_FACILITIES).contains(&new.facilities.len()) {
            return Err(FleetError::invalid(
                "facilities",
                "do not fit the role",
                "name 1 to 100 for a facility operator, none for a fleet operator",
            ));
        }
        let found = new.facilities.iter().map(|name| Ok(self.find_facility(name, &Visibility::Fleet)?.id));
        found.collect()
    }

    /// Makes what was agreed to: the secret is sealed before anything is stored, and nobody sees it.
    pub(crate) async fn carry_out_break_glass(
        &self,
        who: &Principal,
        proposal: &Proposal,
        new: &NewBreakGlass,
        consent: &Consent,
    ) -> Result<(), FleetError> {
        let facilities = self.break_glass_to_make(who, new)?;
        let (secret, hash) = fresh_token()?;
        let mut sealed = Vec::new();
        // Exposed to be sealed to the recipient; afterwards only its hash is known here.
        kf_age::seal(&[recipient_of(new)?], secret.expose().as_bytes(), &mut sealed)
            .map_err(|_detail| FleetError::Bug("a secret that could not be sealed"))?;
        let now = self.now();
        let days = u64::from(new.lifetime_days.unwrap_or(MAX_LIFETIME_DAYS));
        let record = BreakGlass {
            id: proposal.id,
            name: new.name.clone(),
            role: new.role,
            facilities: facilities.clone(),
            recipient: new.recipient.clone(),
            session_minutes: new.session_minutes.unwrap_or(MAX_SESSION_MINUTES),
            created: now,
            expires: now.plus(days.saturating_mul(UnixMillis::DAY)),
            proposed_by: format!("{} ({})", proposal.proposer_name, proposal.proposer),
            approved_by: self.approver(who.id.parse().ok())?,
            withdrawn: None,
            used: None,
            state: None,
        };
        let entry = self
            .evidence(Entry::done(who, "break-glass.create", now))
            .about(record.id)
            .at_facility(only_one(&facilities))
            .because(&new.why)
            .with("name", &record.name)
            .with("role", record.role.name())
            .with("recipient", &record.recipient)
            .with("session_minutes", record.session_minutes)
            .with("expires", record.expires.0);
        let entry = consent.with(entry.build());
        self.store.insert_break_glass(record, only_one(&facilities), (hash, sealed), entry).await?;
        Ok(())
    }

    /// All that the caller sees.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn break_glass_list(&self, who: &Principal, page: PageRequest) -> Result<Page<BreakGlass>, FleetError> {
        let permit = authorize(who, Action::BreakGlassRead, Target::Visible)?;
        let page = self.store.break_glasses(permit.visibility(), &page)?;
        let now = self.now();
        Ok(Page { items: page.items.into_iter().map(|found| found.judged(now)).collect(), next: page.next })
    }

    /// One by name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn break_glass_show(&self, who: &Principal, name: &str) -> Result<BreakGlass, FleetError> {
        Ok(self.break_glass_for(who, name, Action::BreakGlassRead)?.judged(self.now()))
    }

    /// The sealed secret, to be kept where one person gets at it. It is of use to nobody without the recipient's identity.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn break_glass_sealed(&self, who: &Principal, name: &str) -> Result<SealedEnvelope, FleetError> {
        let found = self.break_glass_for(who, name, Action::BreakGlassRead)?;
        let sealed = self.store.break_glass_sealed(found.id)?.ok_or(FleetError::NotFound("sealed secret"))?;
        Ok(SealedEnvelope { id: found.id, sealed: STANDARD.encode(sealed) })
    }

    fn break_glass_for(&self, who: &Principal, name: &str, action: Action) -> Result<BreakGlass, FleetError> {
        let permit = authorize(who, action, Target::Visible)?;
        let found = self.store.break_glass(name, permit.visibility())?;
        found.ok_or(FleetError::NotFound("break-glass credential"))
    }

    /// Opens one: once, aloud, and for as long as was agreed beforehand. The caller has a credential of their own as well, so that it is
    /// known who they are.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] without a reason; [`FleetError::NotFound`] for a secret that opens nothing;
    /// [`FleetError::Conflict`] when it was opened before, withdrawn, or is too old; [`FleetError::Denied`].
    pub async fn break_glass_open(
        &self,
        who: &Principal,
        opening: BreakGlassOpening,
    ) -> Result<BreakGlassSession, FleetError> {
        check_why(&opening.why)?;
        authorize(who, Action::BreakGlassOpen, Target::Visible)?;
        if opening.why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say why: everybody will read it"));
        }
        let none = || FleetError::NotFound("break-glass credential with this secret");
        // Exposed to be hashed.
        let secret = SecretBytes::from_vec(opening.secret.expose().as_bytes().to_vec());
        let found = self.store.break_glass_by_secret(&hash_of(&secret).ok_or_else(none)?)?.ok_or_else(none)?;
        let now = self.now();
        if found.state_at(now) != BreakGlassState::Sealed {
            let problem = format!("`{}` is {}", found.name, found.state_at(now).name());
            return Err(FleetError::conflict(
                "secret",
                problem,
                "each is opened once; use another, or find a second person",
            ));
        }
        let operator: OperatorId =
            who.id.parse().map_err(|_not_an_operator| FleetError::Bug("the server broke glass"))?;
        let (token, session) = fresh_token()?;
        let ends = now.plus(u64::from(found.session_minutes) * MINUTE);
        let used = BreakGlassUse {
            operator,
            name: who.name.clone(),
            why: opening.why.clone(),
            opened: now,
            ends,
            ended: None,
            reviews: Vec::new(),
        };
        let record = BreakGlass { used: Some(used), ..found };
        let entry = self
            .evidence(Entry::done(who, "break-glass.open", now))
            .about(record.id)
            .at_facility(only_one(&record.facilities))
            .because(&opening.why)
            .with("name", &record.name)
            .with("role", record.role.name())
            .with("ends", ends.0);
        // Before it is open: a registry that is restored from before must not have it sealed again.
        self.fence.add(&[Line::BreakGlassOpened { credential: record.id, at: now }])?;
        self.store.open_break_glass(record.clone(), session, entry.build()).await?;
        metrics::counter!("keyfleet_break_glass_opened_total").increment(1);
        self.raise_break_glass(&record);
        Ok(BreakGlassSession { id: record.id, name: record.name, token, ends })
    }

    /// Who holds the token of a session that goes on.
    pub(crate) fn authenticate_session(&self, hash: &[u8; 32]) -> Result<Principal, FleetError> {
        let found = self.store.break_glass_by_session(hash)?.ok_or(FleetError::Unauthenticated)?;
        let used = match &found.used {
            Some(used) if found.state_at(self.now()) == BreakGlassState::Open => used,
            _ => return Err(FleetError::Unauthenticated),
        };
        let opener = self.store.operator(used.operator)?.filter(|operator| operator.enabled);
        if opener.is_none() {
            return Err(FleetError::Unauthenticated);
        }
        let principal = Principal::new(
            used.operator.to_string(),
            used.name.clone(),
            found.role,
            found.facilities.iter().copied(),
            Credential::BreakGlass,
        );
        Ok(principal.behind_glass(found.id))
    }

    /// Ends a session before its time. Whoever sees it may: it stops something.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] when none is open.
    pub async fn break_glass_end(&self, who: &Principal, name: &str, why: String) -> Result<BreakGlass, FleetError> {
        check_why(&why)?;
        let found = self.break_glass_for(who, name, Action::BreakGlassEnd)?;
        if found.state_at(self.now()) != BreakGlassState::Open {
            return Err(FleetError::conflict("name", "no session of it is open", "nothing is to be done"));
        }
        self.end_session(who, found, &why).await
    }

    async fn end_session(&self, who: &Principal, found: BreakGlass, why: &str) -> Result<BreakGlass, FleetError> {
        let now = self.now();
        let Some(used) = found.used.clone() else { return Err(FleetError::Bug("a session of nothing")) };
        let acts = self.acts_of(found.id)?;
        let entry = self
            .evidence(Entry::done(who, "break-glass.end", now))
            .about(found.id)
            .at_facility(only_one(&found.facilities))
            .because(why)
            .with("name", &found.name)
            .with("opened_by", &used.name)
            .with("acts", acts);
        let record = BreakGlass { used: Some(BreakGlassUse { ended: Some(now), ..used }), ..found.clone() };
        self.store.keep_break_glass(found, record.clone(), entry.build()).await?;
        Ok(record.judged(now))
    }

    /// Entries of acts that were done with it, but for its own.
    fn acts_of(&self, id: ProposalId) -> Result<usize, FleetError> {
        let page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        let found = self.store.log_list(Some(&id.to_string()), &Visibility::Fleet, &page)?.items;
        let is_act = |act: &str| !act.starts_with("break-glass.") && !act.starts_with("proposal.");
        let acts = found.iter().filter_map(|record| record.entry.get("act")?.as_str()).filter(|act| is_act(act));
        Ok(acts.count())
    }

    /// Says that somebody looked at what was done. Two people do, and neither is who opened it.
    ///
    /// # Errors
    /// [`FleetError::Conflict`] for who opened it, who has reviewed it, and while it is open; [`FleetError::Invalid`] without words.
    pub async fn break_glass_review(&self, who: &Principal, name: &str, why: String) -> Result<BreakGlass, FleetError> {
        check_why(&why)?;
        if why.trim().is_empty() {
            return Err(FleetError::invalid("why", "is missing", "say what you found"));
        }
        let found = self.break_glass_for(who, name, Action::BreakGlassReview)?;
        let now = self.now();
        let operator: OperatorId = who.id.parse().map_err(|_not_an_operator| FleetError::Bug("the server reviewed"))?;
        let conflict = |problem: &str, remedy: &str| Err(FleetError::conflict("name", problem, remedy));
        let used = match (found.state_at(now), &found.used) {
            (BreakGlassState::Unreviewed, Some(used)) => used.clone(),
            (BreakGlassState::Open, _) => {
                return conflict("it is still open", "end it first: `keyfleet break-glass end`");
            }
            _ => return conflict("nothing of it waits for a review", "see `keyfleet break-glass list`"),
        };
        if used.operator == operator {
            return conflict("you opened it yourself", "two others review it");
        }
        if used.reviews.iter().any(|review| review.operator == operator) {
            return conflict("you have reviewed it", "somebody else is the second");
        }
        let mut used = used;
        used.ended.get_or_insert(now);
        used.reviews.push(Review { operator, name: who.name.clone(), at: now, why: why.clone() });
        let entry = self
            .evidence(Entry::done(who, "break-glass.review", now))
            .about(found.id)
            .at_facility(only_one(&found.facilities))
            .because(&why)
            .with("name", &found.name)
            .with("review", used.reviews.len());
        let record = BreakGlass { used: Some(used), ..found.clone() };
        self.store.keep_break_glass(found, record.clone(), entry.build()).await?;
        Ok(record.judged(now))
    }

    /// Withdraws one that was not opened. One person may.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Denied`], [`FleetError::Conflict`] when it is not sealed.
    pub async fn break_glass_withdraw(
        &self,
        who: &Principal,
        name: &str,
        why: String,
    ) -> Result<BreakGlass, FleetError> {
        check_why(&why)?;
        let found = self.break_glass_for(who, name, Action::BreakGlassEnd)?;
        let now = self.now();
        if found.state_at(now) != BreakGlassState::Sealed {
            let problem = format!("it is {}", found.state_at(now).name());
            return Err(FleetError::conflict("name", problem, "only one that is sealed is withdrawn"));
        }
        let entry = self
            .evidence(Entry::done(who, "break-glass.withdraw", now))
            .about(found.id)
            .at_facility(only_one(&found.facilities))
            .because(&why)
            .with("name", &found.name);
        let record = BreakGlass { withdrawn: Some(now), ..found.clone() };
        self.store.keep_break_glass(found, record.clone(), entry.build()).await?;
        Ok(record.judged(now))
    }

    /// Ends what has come to its end, and raises again, at the first turn of a process, what was opened and is not reviewed.
    pub(crate) async fn turn_break_glass(&self) -> Result<(), FleetError> {
        let now = self.now();
        for found in self.store.used_break_glasses()? {
            let is_over = found.used.as_ref().is_some_and(|used| used.ended.is_none() && now > used.ends);
            if is_over {
                self.end_session(&Self::server_principal(), found, "its time is over").await?;
            }
        }
        Ok(())
    }

    /// The alarm: as loud as a server can be, and again at each start until the use is reviewed.
    pub(crate) fn raise_break_glass(&self, record: &BreakGlass) {
        let Some(used) = &record.used else { return };
        tracing::error!(
            credential = %record.id,
            name = %record.name,
            role = record.role.name(),
            opened_by = %used.name,
            why = %used.why,
            ends = used.ends.0,
            "BREAK-GLASS was opened"
        );
        self.call_alarm(&["break-glass.open", &record.name, &record.id.to_string(), &used.name]);
    }

    pub(crate) fn raise_unreviewed(&self) -> Result<(), FleetError> {
        self.store.used_break_glasses()?.iter().for_each(|record| self.raise_break_glass(record));
        Ok(())
    }

    /// What is to be said in every status, until two people have reviewed it.
    pub(crate) fn break_glass_warnings(&self) -> Vec<String> {
        let now = self.now();
        let used = self.store.used_break_glasses().unwrap_or_default();
        let said = used.into_iter().filter_map(|found| {
            let used = found.used.as_ref()?;
            let what = match found.state_at(now) {
                BreakGlassState::Open => format!("is open until {}", used.ends.0),
                _ => format!("waits for {} reviews", REVIEWS.saturating_sub(used.reviews.len())),
            };
            let (name, by, why) = (&found.name, &used.name, &used.why);
            Some(format!(
                "break-glass `{name}` was opened by {by} ({why}) and {what}: `keyfleet break-glass show {name}`"
            ))
        });
        said.collect()
    }

    /// Names of sealed credentials that would let somebody do this.
    pub(crate) fn break_glasses_for(&self, action: Action, target: Target) -> Result<Vec<String>, FleetError> {
        let now = self.now();
        let page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        let mut names = Vec::new();
        for found in self.store.break_glasses(&Visibility::Fleet, &page)?.items {
            let facilities = found.facilities.iter().copied();
            let id = OperatorId::from_bytes([0; 16]).to_string();
            let holder = Principal::new(id, found.name.clone(), found.role, facilities, Credential::BreakGlass);
            let is_sealed = found.state_at(now) == BreakGlassState::Sealed;
            if is_sealed && authorize(&holder.behind_glass(found.id), action, target).is_ok() {
                names.push(format!("{}, for {} minutes", found.name, found.session_minutes));
            }
        }
        Ok(names)
    }
}

fn recipient_of(new: &NewBreakGlass) -> Result<Recipient, FleetError> {
    new.recipient.parse().map_err(|_detail| {
        let remedy = "give a recipient of age, age1…, whose identity lies in a safe: `age-keygen`";
        FleetError::invalid("recipient", "is none of age", remedy)
    })
}

/// The facility of a credential that is for one; those of several are the whole fleet's to see.
fn only_one(facilities: &[FacilityId]) -> Option<FacilityId> {
    match facilities {
        [one] => Some(*one),
        _ => None,
    }
}

/// Whether somebody acts behind broken glass.
pub(crate) const fn is_behind_glass(who: &Principal) -> bool {
    who.break_glass.is_some()
}
