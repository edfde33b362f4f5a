//! One CA after another: made, switched to, retired, closed. Each step is one transaction with its log entry, so that a server
//! that stops between two of them goes on with the next one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kf_access::{Action, Principal, Target, Visibility, authorize};
use kf_api::authority::{Authority, AuthorityKind};
use kf_api::campaign::CampaignKind;
use kf_api::operator::Credential;
use kf_api::proposal::ProposedAct;
use kf_api::succession::{
    NewSuccession, Succession, SuccessionAct, SuccessionActRequest, SuccessionOutcome, SuccessionStatus, UnprovedDevice,
};
use kf_api::{Page, PageRequest};
use kf_key::{
    AuthorityId, CertificateStatus, DeviceId, KeyAlgorithm, KeyId, ProposalId, SerialNumber, SuccessionState,
    UnixMillis,
};
use kf_pki::certificate::{IssuedCertificate, check_issuance, check_link, check_root};
use kf_pki::issuer::Issuer;
use kf_pki::succession::MAX_ANCHORS;
use kf_rotation::succession::{Hindrance, SuccessionFacts, may_step};
use kf_signer::{GeneratedKey, KeyPurpose};
use kf_store::campaign::AskedPart;
use kf_store::succession::{NewHeir, SuccessionChange};

use super::{Known, Plan, facts_of, row_of};
use crate::enrolment::device_principal;
use crate::entry::Entry;
use crate::issuance::BACKDATE;
use crate::naming::check_why;
use crate::proposal::Consent;
use crate::{ClientCertificate, Fleet, FleetError, TlsClient};

/// Lifetime of a root in days; the ceiling of its profile.
const MAX_ROOT_DAYS: u32 = 14_640;

/// When the last certificate of each retired CA ends, as far as it was looked up.
#[derive(Default)]
pub(crate) struct Closings(Mutex<BTreeMap<AuthorityId, UnixMillis>>);

/// A root that has just been made.
struct NewRoot {
    plan: Plan,
    key: GeneratedKey,
    signed: IssuedCertificate,
    issuer: Issuer,
}

impl Fleet {
    /// Makes the successor of a root, with both link certificates and a successor of every issuing CA below it, or of one
    /// issuing CA. Nothing issues from them yet; a new root is handed out from now on.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Invalid`], [`FleetError::Conflict`] when it has a successor or is none to be
    /// succeeded, [`FleetError::Signer`].
    pub async fn succession_create(
        &self,
        who: &Principal,
        authority: &str,
        new: NewSuccession,
    ) -> Result<SuccessionOutcome, FleetError> {
        authorize(who, Action::AuthorityCreate, Target::Fleet)?;
        check_why(&new.why)?;
        let known = self.find_authority(authority)?;
        self.may_be_succeeded(&known)?;
        let heirs = match known.record.kind {
            AuthorityKind::Root => self.heirs_of_root(&known, &new).await?,
            _ => vec![self.heir_of_issuing(&known, &new).await?],
        };
        let now = self.now();
        let entry =
            heirs.iter().fold(Entry::done(who, "authority.succeed", now).about(known.record.id), |entry, heir| {
                let (authority, serial) = (&heir.successor.authority, heir.successor.certificate.serial);
                entry
                    .about(authority.id)
                    .with(&authority.name, format!("{} {} cert:{serial}", authority.id, authority.algorithm))
            });
        let entry =
            heirs.iter().filter_map(|heir| heir.links.as_ref()).fold(entry, |entry, [new_with_old, old_with_new]| {
                entry.with("new_with_old", new_with_old.0.serial).with("old_with_new", old_with_new.0.serial)
            });
        let entry = entry.because(&new.why).build();
        let logged = self.store.insert_successions(heirs, new.why, now, entry).await?;
        self.after_step().await?;
        let succession = self.status_of(known.record.id)?;
        Ok(SuccessionOutcome { done: true, proposal: None, succession, log_index: Some(logged.index) })
    }

    fn may_be_succeeded(&self, known: &Known) -> Result<(), FleetError> {
        let lineage = &self.authorities().lineage;
        let refused = |problem: String, remedy: &str| Err(FleetError::conflict("authority", problem, remedy));
        let name = &known.record.name;
        if known.record.kind == AuthorityKind::Factory {
            return refused(
                format!("`{name}` is the root of factory stations"),
                "its batches end with it; name another CA",
            );
        }
        if let Some(handover) = lineage.from(known.record.id) {
            let successor = &handover.succession.successor_name;
            return refused(format!("`{name}` is succeeded by `{successor}`"), "name the CA that issues today");
        }
        if !lineage.may_issue(known.record.id) || known.record.status != CertificateStatus::Good {
            return refused(format!("`{name}` does not issue"), "name the CA that issues today");
        }
        Ok(())
    }

    /// The plan of a successor: the old CA again, under the next name.
    fn heir_plan(&self, known: &Known, new: &NewSuccession) -> Result<Plan, FleetError> {
        let Authority { kind, facility, algorithm, shard_count, not_before, not_after, .. } = known.record.clone();
        let algorithm = new.algorithm.unwrap_or(algorithm);
        let held = self.signer.capabilities().key_algorithms.contains(&algorithm);
        if !algorithm.may_sign_certificates() || !held {
            return Err(FleetError::invalid(
                "algorithm",
                format!("this fleet's key back end holds no {algorithm} CA keys"),
                "see `keyfleet status` for what the back end offers",
            ));
        }
        let most = if kind == AuthorityKind::Root { MAX_ROOT_DAYS } else { super::MAX_LIFETIME_DAYS };
        let lifetime = match new.lifetime_days {
            None => not_after.since(not_before),
            Some(days) if (1..=most).contains(&days) => u64::from(days) * UnixMillis::DAY,
            Some(days) => {
                let problem = format!("{days} is out of range");
                return Err(FleetError::invalid("lifetime_days", problem, format!("use 1 to {most}")));
            }
        };
        Ok(Plan {
            id: AuthorityId::from_parts(self.now(), kf_crypto::random_array()?),
            name: self.next_name(&known.record.name)?,
            kind,
            facility,
            algorithm,
            lifetime,
            shard_count,
            is_default: false,
        })
    }

    /// `root` becomes `root-2`, `root-2` becomes `root-3`.
    fn next_name(&self, name: &str) -> Result<String, FleetError> {
        let numbered = name.rsplit_once('-').and_then(|(stem, number)| Some((stem, number.parse::<u32>().ok()?)));
        let (stem, number) = numbered.filter(|(stem, _)| !stem.is_empty()).unwrap_or((name, 1));
        let authorities = self.authorities();
        (1..=64)
            .filter_map(|step| number.checked_add(step))
            .map(|number| format!("{stem}-{number}"))
            .find(|name| name.len() <= 48 && authorities.by_name(name).is_none())
            .ok_or_else(|| FleetError::conflict("name", format!("no name follows `{name}`"), "give CAs shorter names"))
    }

    async fn fresh_ca_key(&self, purpose: KeyPurpose, algorithm: KeyAlgorithm) -> Result<GeneratedKey, FleetError> {
        let id = KeyId::from_parts(self.now(), kf_crypto::random_array()?);
        Ok(self.signer.generate_key(id, purpose, algorithm).await?)
    }

    async fn new_root(&self, old: &Known, new: &NewSuccession) -> Result<NewRoot, FleetError> {
        let (plan, now) = (self.heir_plan(old, new)?, self.now());
        let key = self.fresh_ca_key(KeyPurpose::RootCa, plan.algorithm).await?;
        let request = plan.request(&self.config.fleet, &key, now, UnixMillis(u64::MAX))?;
        let checked = check_root(request)
            .map_err(|refusal| FleetError::invalid("authority", refusal.to_string(), "correct the request"))?;
        let signed = self.signer.sign_root(key.key, checked).await?;
        let issuer = Issuer::from_certificate(plan.id, &signed.der, plan.shard_count, &self.config.listen.public_http)
            .map_err(|_not_an_issuer| FleetError::Bug("the new root is no CA"))?;
        self.signer.register_key(key.key, key.handle.clone(), facts_of(AuthorityKind::Root, &issuer.name));
        Ok(NewRoot { plan, key, signed, issuer })
    }

    async fn heirs_of_root(&self, old: &Known, new: &NewSuccession) -> Result<Vec<NewHeir>, FleetError> {
        let root = self.new_root(old, new).await?;
        let new_with_old = self.link(old.record.key, &old.issuer, &root.issuer).await?;
        let old_with_new = self.link(root.key.key, &root.issuer, &old.issuer).await?;
        let links = [(old.record.id, new_with_old), (root.plan.id, old_with_new)]
            .map(|(authority, issued)| (row_of(authority, &issued.facts), issued.der));
        let authorities = self.authorities();
        let below: Vec<Arc<Known>> = authorities
            .live()
            .filter(|known| {
                known.record.issuer == Some(old.record.id)
                    && known.record.status == CertificateStatus::Good
                    && authorities.lineage.may_issue(known.record.id)
                    && authorities.lineage.from(known.record.id).is_none()
            })
            .cloned()
            .collect();
        let mut heirs = Vec::with_capacity(below.len() + 1);
        for known in &below {
            let plan = self.heir_plan(known, &NewSuccession { lifetime_days: None, ..new.clone() })?;
            heirs.push(self.issuing_below(known.record.id, plan, (&root.issuer, root.key.key)).await?);
        }
        let NewRoot { plan, key, signed, .. } = root;
        let successor = plan.record(None, &key, &signed, self.now());
        heirs.insert(0, NewHeir { predecessor: old.record.id, successor, links: Some(links) });
        Ok(heirs)
    }

    /// The successor of one issuing CA: below the root that takes over, where one does.
    async fn heir_of_issuing(&self, known: &Known, new: &NewSuccession) -> Result<NewHeir, FleetError> {
        let plan = self.heir_plan(known, new)?;
        let authorities = self.authorities();
        let above = known.record.issuer.ok_or(FleetError::Bug("an issuing CA without issuer"))?;
        let above = authorities.lineage.from(above).map_or(above, |handover| handover.succession.successor);
        let root = authorities.get(above).ok_or(FleetError::Bug("no root"))?;
        self.issuing_below(known.record.id, plan, (&root.issuer, root.record.key)).await
    }

    async fn issuing_below(
        &self,
        predecessor: AuthorityId,
        plan: Plan,
        (issuer, issuer_key): (&Issuer, KeyId),
    ) -> Result<NewHeir, FleetError> {
        let now = self.now();
        let key = self.fresh_ca_key(KeyPurpose::IssuingCa, plan.algorithm).await?;
        let checked = check_issuance(issuer, plan.request(&self.config.fleet, &key, now, issuer.not_after)?)
            .map_err(|refusal| FleetError::invalid("authority", refusal.to_string(), "correct the request"))?;
        let signed = self.signer.sign_certificate(issuer_key, checked).await?;
        let successor = plan.record(Some(issuer.authority), &key, &signed, now);
        Ok(NewHeir { predecessor, successor, links: None })
    }

    async fn link(&self, key: KeyId, issuer: &Issuer, of: &Issuer) -> Result<IssuedCertificate, FleetError> {
        let now = self.now();
        let serial = SerialNumber::from_parts(now, kf_crypto::random_array()?);
        let checked = check_link(issuer, of, serial, now.minus(BACKDATE))
            .map_err(|refusal| FleetError::invalid("authority", refusal.to_string(), "both roots have to be valid"))?;
        Ok(self.signer.sign_certificate(key, checked).await?)
    }

    /// Takes up what a step changed: CAs in memory, CRLs, the file of roots.
    pub(super) async fn after_step(&self) -> Result<(), FleetError> {
        self.reload_authorities()?;
        self.write_public_files()?;
        self.sign_due_crls().await;
        Ok(())
    }

    /// Where the succession of a CA stands, by the name or id of the old or of the new one.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] also for a CA without one.
    pub async fn succession_show(&self, who: &Principal, authority: &str) -> Result<SuccessionStatus, FleetError> {
        authorize(who, Action::AuthorityRead, Target::Fleet)?;
        let found = match self.withdrawn(authority)? {
            Some(succession) => self.status_with(succession)?,
            None => self.status_of(self.predecessor_of(authority)?)?,
        };
        // Counts are of the whole fleet: they are not for who sees a part of it.
        Ok(match who.visibility() {
            Visibility::Fleet => found,
            Visibility::Facilities(_) => SuccessionStatus { trust: None, unexpired: 0, last_expiry: None, ..found },
        })
    }

    /// The devices that have not proved that they trust the new root, those that the caller may see.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Conflict`] for an issuing CA.
    pub async fn succession_unproved(
        &self,
        who: &Principal,
        authority: &str,
        page: PageRequest,
    ) -> Result<Page<UnprovedDevice>, FleetError> {
        authorize(who, Action::AuthorityRead, Target::Fleet)?;
        let permit = authorize(who, Action::DeviceRead, Target::Visible)?;
        let succession = self.succession_of(self.predecessor_of(authority)?)?;
        if succession.kind != AuthorityKind::Root {
            return Err(FleetError::conflict("authority", "devices trust roots, not issuing CAs", "name a root"));
        }
        Ok(self.store.unproved_devices(succession.successor, permit.visibility(), &page)?)
    }

    fn predecessor_of(&self, authority: &str) -> Result<AuthorityId, FleetError> {
        let id = self.find_authority(authority)?.record.id;
        let authorities = self.authorities();
        let found = authorities.lineage.from(id).or_else(|| authorities.lineage.to(id));
        found.map(|handover| handover.succession.predecessor).ok_or(FleetError::NotFound("succession"))
    }

    pub(super) fn succession_of(&self, predecessor: AuthorityId) -> Result<Succession, FleetError> {
        let authorities = self.authorities();
        let handover = authorities.lineage.from(predecessor).ok_or(FleetError::NotFound("succession"))?;
        Ok(handover.succession.clone())
    }

    pub(super) fn status_of(&self, predecessor: AuthorityId) -> Result<SuccessionStatus, FleetError> {
        self.status_with(self.succession_of(predecessor)?)
    }

    pub(super) fn status_with(&self, succession: Succession) -> Result<SuccessionStatus, FleetError> {
        let (predecessor, now) = (succession.predecessor, self.now());
        let trust = match succession.kind {
            AuthorityKind::Root => Some(self.store.trust_progress(succession.successor, now)?),
            _ => None,
        };
        let (unexpired, last_expiry) = self.store.unexpired_below(predecessor, now)?;
        Ok(SuccessionStatus { succession, trust, unexpired, last_expiry })
    }

    /// Switches to the successor, retires the old CA, or withdraws a successor that has not taken over.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::Conflict`] when it is not the next step, when CAs below are not as far, when
    /// devices would be stranded, or when something hangs on what is to be withdrawn.
    pub async fn succession_act(
        &self,
        who: &Principal,
        authority: &str,
        request: SuccessionActRequest,
    ) -> Result<SuccessionOutcome, FleetError> {
        check_why(&request.why)?;
        let predecessor = self.predecessor_of(authority)?;
        match request.act {
            SuccessionAct::Switch => self.switch(who, predecessor, &request).await,
            SuccessionAct::Retire => self.retire(who, predecessor, &request).await,
            SuccessionAct::Withdraw => self.withdraw(who, predecessor, &request).await,
        }
    }

    async fn switch(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
        request: &SuccessionActRequest,
    ) -> Result<SuccessionOutcome, FleetError> {
        authorize(who, Action::AuthorityCreate, Target::Fleet)?;
        let succession = self.succession_of(predecessor)?;
        self.require_step(&succession, SuccessionState::Switched, 0)?;
        // What is below a root goes with it.
        let authorities = self.authorities();
        let below = authorities.live().filter(|known| {
            let handover = authorities.lineage.from(known.record.id);
            let is_ready = handover.is_some_and(|handover| handover.succession.state == SuccessionState::Prepared);
            is_ready && known.record.issuer == Some(predecessor)
        });
        let together: Vec<_> = std::iter::once(predecessor).chain(below.map(|known| known.record.id)).collect();
        self.take_step(who, &together, (SuccessionState::Switched, 0), (request, &Consent::NotNeeded)).await
    }

    async fn retire(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
        request: &SuccessionActRequest,
    ) -> Result<SuccessionOutcome, FleetError> {
        let succession = self.succession_to_retire(who, predecessor)?;
        let stranded = self.stranded_by(&succession)?;
        if stranded == 0 || request.dry_run {
            let step = (SuccessionState::Retired, 0);
            return self.take_step(who, &[predecessor], step, (request, &Consent::NotNeeded)).await;
        }
        if !request.strand {
            self.require_step(&succession, SuccessionState::Retired, 0)?;
        }
        let act = ProposedAct::RetireAuthority { authority: predecessor, stranded, why: request.why.clone() };
        self.propose_end(who, predecessor, act, stranded).await
    }

    /// Proposes what leaves so many devices behind: always to a second person.
    pub(super) async fn propose_end(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
        act: ProposedAct,
        devices: u64,
    ) -> Result<SuccessionOutcome, FleetError> {
        let control = self.dual_control().always(self.now());
        let waiting = self.propose(who, act, control, (devices, 0), None).await?;
        let waiting = waiting.ok_or(FleetError::Bug("leaving devices behind asked for no second person"))?;
        self.not_done(predecessor, waiting.proposal)
    }

    /// What a step comes to that waits, or was only looked at.
    pub(super) fn not_done(
        &self,
        predecessor: AuthorityId,
        proposal: Option<ProposalId>,
    ) -> Result<SuccessionOutcome, FleetError> {
        let succession = self.status_of(predecessor)?;
        Ok(SuccessionOutcome { done: false, proposal, succession, log_index: None })
    }

    /// A succession whose old CA the caller may retire, and whose next step that is.
    pub(crate) fn succession_to_retire(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
    ) -> Result<Succession, FleetError> {
        authorize(who, Action::AuthorityRevoke, Target::Fleet)?;
        let succession = self.succession_of(predecessor)?;
        self.require_step(&succession, SuccessionState::Retired, u64::MAX)?;
        Ok(succession)
    }

    /// Refuses a step that something stands in the way of; `agreed` devices may be left behind.
    fn require_step(&self, succession: &Succession, to: SuccessionState, agreed: u64) -> Result<(), FleetError> {
        let facts = self.succession_facts(succession, agreed)?;
        may_step(&facts, to).map_err(|hindrance| hindered(&succession.predecessor_name, hindrance))
    }

    fn succession_facts(&self, succession: &Succession, agreed: u64) -> Result<SuccessionFacts, FleetError> {
        let authorities = self.authorities();
        let lineage = &authorities.lineage;
        let is_below = |known: &&Arc<Known>| {
            known.record.issuer == Some(succession.predecessor) && known.record.status == CertificateStatus::Good
        };
        let count = |is_counted: &dyn Fn(AuthorityId) -> bool| {
            let found = authorities.live().filter(is_below).filter(|known| is_counted(known.record.id)).count();
            u64::try_from(found).unwrap_or(u64::MAX)
        };
        let heir = authorities.get(succession.successor).ok_or(FleetError::Bug("a successor that is not there"))?;
        Ok(SuccessionFacts {
            state: succession.state,
            heirless: count(&|id| lineage.from(id).is_none()),
            waits_for_root: heir.record.issuer.is_some_and(|root| !lineage.may_issue(root)),
            handed_out_below: count(&|id| lineage.is_handed_out(id)),
            unproved: self.stranded_by(succession)?,
            agreed,
            unexpired: self.store.unexpired_below(succession.predecessor, self.now())?.0,
        })
    }

    /// Devices that would not find back if the old CA were retired now.
    fn stranded_by(&self, succession: &Succession) -> Result<u64, FleetError> {
        match succession.kind {
            AuthorityKind::Root => Ok(self.store.trust_progress(succession.successor, self.now())?.unproved),
            _ => Ok(0),
        }
    }

    /// Retires a root after a second person has agreed to leave so many devices behind.
    pub(crate) async fn carry_out_retirement_of_root(
        &self,
        who: &Principal,
        predecessor: AuthorityId,
        (agreed, why): (u64, &str),
        consent: &Consent,
    ) -> Result<SuccessionOutcome, FleetError> {
        let succession = self.succession_to_retire(who, predecessor)?;
        self.require_step(&succession, SuccessionState::Retired, agreed)?;
        let request = SuccessionActRequest {
            act: SuccessionAct::Retire,
            strand: true,
            although_trusted: false,
            why: why.to_owned(),
            dry_run: false,
        };
        self.take_step(who, &[predecessor], (SuccessionState::Retired, agreed), (&request, consent)).await
    }

    async fn take_step(
        &self,
        who: &Principal,
        predecessors: &[AuthorityId],
        (to, agreed): (SuccessionState, u64),
        (request, consent): (&SuccessionActRequest, &Consent),
    ) -> Result<SuccessionOutcome, FleetError> {
        let first = *predecessors.first().ok_or(FleetError::Bug("no succession"))?;
        let succession = self.succession_of(first)?;
        if request.dry_run {
            return self.not_done(first, None);
        }
        let (act, now) = (act_name(to), self.now());
        let entry = predecessors.iter().fold(Entry::done(who, act, now), |entry, id| entry.about(*id));
        let entry = entry
            .about(succession.successor)
            .because(&request.why)
            .with("name", &succession.predecessor_name)
            .with("successor", &succession.successor_name);
        // Who would be stranded is counted where it is decided, and noted there.
        let change =
            SuccessionChange { predecessors: predecessors.to_vec(), seen: succession.state, to, agreed, at: now };
        let logged = self.store.change_successions(change, consent.with(self.evidence(entry).build())).await?;
        self.after_step().await?;
        let succession = self.status_of(first)?;
        Ok(SuccessionOutcome { done: true, proposal: None, succession, log_index: Some(logged.index) })
    }

    /// Notes that a device accepted a chain that only a root which takes over explains. Trouble is logged: the connection
    /// goes on, and the proof comes again with the next one.
    pub async fn note_trust(&self, certificate: &ClientCertificate, root: AuthorityId, client: TlsClient<'_>) {
        let is_open =
            self.authorities().lineage.open_root().is_some_and(|handover| handover.succession.successor == root);
        if !is_open || certificate.serial.is_none() {
            return;
        }
        if let Err(error) = self.try_note_trust(root, client).await {
            tracing::warn!(%error, "a proof of trust was not noted");
        }
    }

    async fn try_note_trust(&self, root: AuthorityId, client: TlsClient<'_>) -> Result<(), FleetError> {
        // An operator, or a certificate that was revoked, proves nothing about a device.
        let Ok((_, certificate, device)) = self.device_of_certificate(client) else { return Ok(()) };
        if certificate.status != CertificateStatus::Good || self.store.trusts(root, device.id)? {
            return Ok(());
        }
        let now = self.now();
        let who = device_principal(&device, Credential::Certificate);
        let entry = Entry::done(&who, "trust.prove", now)
            .about(device.id)
            .about(root)
            .about(format!("cert:{}", certificate.serial))
            .at_facility(Some(device.facility));
        self.store.note_trust(root, device.id, now, entry.build()).await?;
        Ok(())
    }

    /// The SHA-256, hexadecimal, of the root that a device is asked to take up by a campaign that goes on, or that is paused and has
    /// told it. That it is told is noted: it may have the root from then on.
    pub(crate) async fn anchor_of(&self, device: DeviceId, asked: &[AskedPart]) -> Result<Option<String>, FleetError> {
        let Some(part) = asked.iter().find(|part| part.kind == CampaignKind::TrustAnchor && part.is_open()) else {
            return Ok(None);
        };
        let authorities = self.authorities();
        let Some(handover) = authorities.lineage.open_root() else { return Ok(None) };
        let root = handover.succession.successor;
        if self.store.trusts(root, device)? {
            return Ok(None);
        }
        if !part.is_told && !self.tell(part.campaign, device).await? {
            return Ok(None);
        }
        let known = authorities.get(root).ok_or(FleetError::Bug("a successor that is not there"))?;
        Ok(Some(hex::encode(kf_crypto::sha256(&known.issuer.certificate))))
    }

    /// The SHA-256, hexadecimal, of the first of the roots that a device holds which is handed out no more: it was retired or
    /// withdrawn. Nothing where the device would be left without one that is.
    pub(crate) fn gone_anchor_of(&self, held: &str) -> Option<String> {
        let authorities = self.authorities();
        let offered: Vec<String> = authorities
            .anchors()
            .iter()
            .map(|known| hex::encode(kf_crypto::sha256(&known.issuer.certificate)))
            .collect();
        let held = held.split_ascii_whitespace().take(MAX_ANCHORS).map(str::to_ascii_lowercase);
        let (kept, gone): (Vec<_>, Vec<_>) = held.partition(|root| offered.contains(root));
        gone.into_iter().next().filter(|root| !kept.is_empty() && is_fingerprint(root))
    }

    /// Refuses unless one root takes over from another.
    pub(crate) fn require_open_root(&self) -> Result<(), FleetError> {
        match self.authorities().lineage.open_root() {
            Some(_) => Ok(()),
            None => Err(FleetError::conflict(
                "kind",
                "no root takes over from another",
                "make a successor first: `keyfleet authority succeed root`",
            )),
        }
    }

    /// Closes CAs of which everything has expired.
    pub(crate) async fn turn_successions(&self) -> Result<(), FleetError> {
        let now = self.now();
        let authorities = self.authorities();
        for handover in authorities.lineage.all() {
            let Succession { predecessor, state, .. } = handover.succession;
            if state != SuccessionState::Retired || now <= self.closings.of(predecessor) {
                continue;
            }
            let (_, last) = self.store.unexpired_below(predecessor, now)?;
            if self.require_step(&handover.succession, SuccessionState::Closed, u64::MAX).is_err() {
                self.closings.set(predecessor, last.unwrap_or(now));
                continue;
            }
            let request = SuccessionActRequest {
                act: SuccessionAct::Retire,
                strand: false,
                although_trusted: false,
                why: "everything that it issued has expired".to_owned(),
                dry_run: false,
            };
            let step = (&request, &Consent::NotNeeded);
            self.take_step(&Self::server_principal(), &[predecessor], (SuccessionState::Closed, 0), step).await?;
        }
        Ok(())
    }
}

impl Closings {
    fn of(&self, authority: AuthorityId) -> UnixMillis {
        let closings = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        closings.get(&authority).copied().unwrap_or(UnixMillis(0))
    }

    fn set(&self, authority: AuthorityId, last: UnixMillis) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(authority, last);
    }
}

/// Whether a text is a SHA-256 in hexadecimal.
fn is_fingerprint(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|octet| octet.is_ascii_hexdigit())
}

const fn act_name(to: SuccessionState) -> &'static str {
    match to {
        SuccessionState::Prepared => "authority.succeed",
        SuccessionState::Switched => "authority.switch",
        SuccessionState::Retired => "authority.retire",
        SuccessionState::Closed => "authority.close",
        SuccessionState::Withdrawn => "authority.withdraw",
    }
}

/// Why a step towards the end of a CA is not taken, and what to do first: the same words for its retirement and for its key.
pub(crate) fn hindered(authority: &str, hindrance: Hindrance) -> FleetError {
    let remedy = match hindrance {
        Hindrance::Heirless { .. } => "make one for each: `keyfleet authority succeed NAME`",
        Hindrance::RootFirst => "switch or withdraw the root: what is below it goes with it",
        Hindrance::Issued { .. } => "it has taken over for somebody: go on with `keyfleet authority switch`",
        Hindrance::Asking { .. } => "end them first: `keyfleet campaign rollback NAME`, or `abort`",
        Hindrance::Trusting { .. } => {
            "they let go of it at their next poll or renewal, and find their server by the old root all the time; withdraw it \
             with --although-trusted and a second person"
        }
        Hindrance::Default => {
            "let a successor take over (`keyfleet authority succeed`, `switch`), or make another CA the default: `keyfleet \
             authority create NAME --make-default`"
        }
        Hindrance::NotRetired { .. } => "retire it first: `keyfleet authority retire NAME`",
        Hindrance::Living { .. } => {
            "renew their holders under another CA and revoke them; or leave them as they are with --certificates-stay and a \
             second person"
        }
        Hindrance::BelowFirst { .. } => "retire the issuing CAs below it first",
        Hindrance::Stranded { .. } => {
            "list them with `keyfleet authority trust --devices`, and wait; or leave them behind with --strand and a second \
             person"
        }
        _ => "look with `keyfleet authority trust`; it goes from prepared to switched to retired",
    };
    FleetError::conflict("authority", format!("`{authority}`: {hindrance}"), remedy)
}
