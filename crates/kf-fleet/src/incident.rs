//! Compromise recovery: incidents, what they reach, their plans, approvals, runs and reports.
//!
//! Decisions are `kf_incident`'s. What is done here is gather facts, ask who may, and carry steps out by the same acts that
//! people use one by one: a run has no right that its runner lacks.

mod approve;
mod facts;
mod report;
mod run;
mod step;

use kf_access::{Action, Permit, Principal, Scope, Target, authorize};
use kf_api::incident::{
    BlastRadius, Hit, Incident, IncidentDetail, IncidentFilter, IncidentOpened, IncidentState, IncidentSubject,
    NewIncident, SubjectHit,
};
use kf_api::operator::{Credential, Operator, Role};
use kf_api::{Page, PageRequest};
use kf_key::{FacilityId, IncidentId, OperatorId, UnixMillis};
use kf_store::device::DeviceTarget;
use kf_store::incident::{NewRow, Opening};

use crate::entry::Entry;
use crate::naming::check_why;
use crate::{Fleet, FleetError};

/// Subjects of one incident.
const MAX_SUBJECTS: usize = 16;

/// A subject, and since when it has been there.
struct Found {
    subject: SubjectHit,
    since: UnixMillis,
}

impl Found {
    fn new(hit: Hit, name: String, facility: Option<FacilityId>, since: UnixMillis) -> Self {
        Self { subject: SubjectHit { hit, name, facility, epoch: None }, since }
    }
}

impl Fleet {
    /// Opens an incident, or answers with the one that is open on the same subjects. Opening it again with an earlier
    /// `since` widens it.
    ///
    /// # Errors
    /// [`FleetError::Invalid`], [`FleetError::NotFound`] for a subject, [`FleetError::Denied`].
    pub async fn incident_open(&self, who: &Principal, new: NewIncident) -> Result<IncidentOpened, FleetError> {
        check_why(&new.why)?;
        let now = self.now();
        check_new(&new, now)?;
        let mut found = Vec::with_capacity(new.subjects.len());
        for subject in &new.subjects {
            let one = self.find_subject(who, subject)?;
            authorize(who, Action::IncidentManage, target_of(one.subject.facility))?;
            found.push(one);
        }
        found.sort_by(|left, right| left.subject.hit.cmp(&right.subject.hit));
        found.dedup_by(|left, right| left.subject.hit == right.subject.hit);
        let incident = self.incident_of(who, &new, found)?;
        let subjects = digest(&incident.subjects);
        let radius = self.radius(&incident)?;
        if new.dry_run {
            let open = self.store.incident_of(&subjects)?;
            return Ok(IncidentOpened {
                already_open: open.is_some(),
                incident: open,
                dry_run: true,
                log_index: None,
                radius,
            });
        }
        let entry = |act: &str| {
            let mut entry = self
                .evidence(Entry::done(who, act, now))
                .about(incident.id)
                .at_facility(incident.facility)
                .because(&new.why)
                .with("since", incident.since.0)
                .with("devices", radius.devices)
                .with("certificates", radius.certificates);
            for subject in incident.subjects.iter().take(7) {
                entry = entry.about(hit_text(&subject.hit));
            }
            entry.build()
        };
        let row = NewRow {
            incident: incident.clone(),
            subjects,
            opened: entry("incident.open").into(),
            widened: entry("incident.widen").into(),
        };
        let (incident, already_open, log_index) = match self.store.open_incident(row).await? {
            Opening::Opened(index) => (incident, false, Some(index)),
            Opening::AlreadyOpen(found) => (*found, true, None),
            Opening::Widened(found, index) => (*found, true, Some(index)),
        };
        let radius = if already_open { self.radius(&incident)? } else { radius };
        Ok(IncidentOpened { incident: Some(incident), already_open, dry_run: false, log_index, radius })
    }

    /// Incidents that the caller may see, newest first.
    ///
    /// # Errors
    /// [`FleetError::Denied`].
    pub async fn incident_list(&self, who: &Principal, filter: IncidentFilter) -> Result<Page<Incident>, FleetError> {
        let permit = authorize(who, Action::IncidentRead, Target::Visible)?;
        let page = PageRequest { after: filter.after, limit: filter.limit };
        Ok(self.store.incidents(permit.visibility(), &page)?)
    }

    /// An incident with what it reaches now, and its plan.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub async fn incident_show(&self, who: &Principal, id: IncidentId) -> Result<IncidentDetail, FleetError> {
        let (incident, _) = self.incident_for(who, id, Action::IncidentRead)?;
        let radius = self.radius(&incident)?;
        let plan = self.plan_standing(&incident)?;
        Ok(IncidentDetail { incident, radius, plan })
    }

    /// An incident, if the caller may do this to it.
    pub(crate) fn incident_for(
        &self,
        who: &Principal,
        id: IncidentId,
        action: Action,
    ) -> Result<(Incident, Permit), FleetError> {
        let found = self.store.incident(id, &who.visibility())?.ok_or(FleetError::NotFound("incident"))?;
        let permit = authorize(who, action, target_of(found.facility))?;
        Ok((found, permit))
    }

    /// As [`Fleet::incident_for`], for one that is open and that the caller is no subject of.
    pub(crate) fn open_incident_for(
        &self,
        who: &Principal,
        id: IncidentId,
        action: Action,
    ) -> Result<Incident, FleetError> {
        let (incident, _) = self.incident_for(who, id, action)?;
        if incident.state == IncidentState::Closed {
            return Err(FleetError::conflict("incident", "is closed", "open another one"));
        }
        if self.is_subject(who, &incident)? {
            return Err(FleetError::conflict(
                "incident",
                "it is about your own credential",
                "ask somebody else in scope, or sign in with a certificate where only a token leaked",
            ));
        }
        Ok(incident)
    }

    /// Whether somebody's own credential is a subject. Whoever lost a token alone may still act by certificate.
    fn is_subject(&self, who: &Principal, incident: &Incident) -> Result<bool, FleetError> {
        let Ok(own) = who.id.parse::<OperatorId>() else { return Ok(false) };
        for subject in &incident.subjects {
            let hit = match &subject.hit {
                Hit::Operator(id) | Hit::Station(id) => *id == own,
                Hit::Token(token) => {
                    let owner = self.store.token(*token)?.map(|token| token.operator);
                    owner == Some(own) && who.credential != Credential::Certificate
                }
                _ => false,
            };
            if hit {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(crate) fn radius(&self, incident: &Incident) -> Result<BlastRadius, FleetError> {
        Ok(kf_incident::blast_radius(&self.incident_facts(incident)?))
    }

    fn incident_of(&self, who: &Principal, new: &NewIncident, found: Vec<Found>) -> Result<Incident, FleetError> {
        let now = self.now();
        let there_since = found.iter().map(|one| one.since).min().unwrap_or(now);
        let mut subjects: Vec<SubjectHit> = found.into_iter().map(|one| one.subject).collect();
        for subject in &mut subjects {
            subject.epoch = self.epoch_at_opening(&subject.hit)?;
        }
        let first = subjects.first().and_then(|subject| subject.facility);
        let facility = first.filter(|one| subjects.iter().all(|subject| subject.facility == Some(*one)));
        Ok(Incident {
            id: IncidentId::from_parts(now, kf_crypto::random_array()?),
            state: IncidentState::Open,
            subjects,
            facility,
            since: new.since.unwrap_or(there_since).min(now),
            opened: now,
            opened_by: who.id.clone(),
            opened_by_name: who.name.clone(),
            octets_per_second: new.octets_per_second,
            why: new.why.clone(),
            plan_sha256: None,
            closed: None,
            verdict: None,
            closing: None,
        })
    }

    /// The newest key epoch of a subject that has one: what a new one must follow.
    fn epoch_at_opening(&self, hit: &Hit) -> Result<Option<u32>, FleetError> {
        Ok(match hit {
            Hit::Facility(facility) => Some(self.store.newest_facility_epoch(*facility)?.0),
            Hit::Device(device) => {
                let delivery = self.store.delivery(*device)?;
                delivery.filter(|delivery| delivery.salt.is_some()).map(|delivery| delivery.place.device_epoch)
            }
            _ => None,
        })
    }

    fn find_subject(&self, who: &Principal, subject: &IncidentSubject) -> Result<Found, FleetError> {
        let visibility = who.visibility();
        Ok(match subject {
            IncidentSubject::Device(reference) => {
                let device = self.find_device(reference, &visibility)?;
                Found::new(Hit::Device(device.id), device.name, Some(device.facility), device.created)
            }
            IncidentSubject::Facility(reference) => {
                let facility = self.find_facility(reference, &visibility)?;
                Found::new(Hit::Facility(facility.id), facility.name, Some(facility.id), facility.created)
            }
            IncidentSubject::Batch(reference) => self.find_batch_subject(who, reference)?,
            IncidentSubject::Key(spki_sha256) => self.find_key_subject(who, spki_sha256)?,
            IncidentSubject::Authority(reference) => {
                let known = self.find_authority(reference)?;
                let record = &known.record;
                Found::new(Hit::Authority(record.id), record.name.clone(), None, record.not_before)
            }
            IncidentSubject::Operator(reference) => {
                let operator = self.operator_in_scope(who, reference)?;
                operator_found(Hit::Operator(operator.id), operator)
            }
            IncidentSubject::Station(reference) => {
                let operator = self.operator_in_scope(who, reference)?;
                if operator.role != Role::Station {
                    return Err(FleetError::invalid(
                        "station",
                        format!("`{}` is no station but a {}", operator.name, operator.role.name()),
                        "open the incident on the operator",
                    ));
                }
                operator_found(Hit::Station(operator.id), operator)
            }
            IncidentSubject::Token(id) => {
                let token = self.store.token(*id)?.ok_or(FleetError::NotFound("token"))?;
                let operator = self.operator_in_scope(who, &token.operator.to_string())?;
                let name = format!("{id} of {}", operator.name);
                Found { since: token.created, ..operator_found(Hit::Token(*id), Operator { name, ..operator }) }
            }
        })
    }

    fn find_batch_subject(&self, who: &Principal, reference: &str) -> Result<Found, FleetError> {
        match self.batch_for(who, reference, Action::BatchRead) {
            Ok((stored, _)) => {
                let batch = stored.batch;
                Ok(Found::new(Hit::Batch(batch.id), batch.name, Some(batch.facility), batch.issued))
            }
            Err(FleetError::NotFound(_)) => {
                let counted = self.store.count_devices(&DeviceTarget::Batch(reference.to_owned()), self.now())?;
                let mut facilities = counted.by_facility.into_keys();
                let (first, more) = (facilities.next(), facilities.next().is_some());
                let first = first.ok_or(FleetError::NotFound("batch"))?;
                let facility = (!more).then_some(first);
                // What spans facilities is not found by who does not see them all.
                let seen = facility.map_or(who.scope == Scope::Fleet, |one| who.visibility().sees(one));
                if !seen {
                    return Err(FleetError::NotFound("batch"));
                }
                Ok(Found::new(Hit::Label(reference.to_owned()), reference.to_owned(), facility, UnixMillis(0)))
            }
            Err(error) => Err(error),
        }
    }

    fn find_key_subject(&self, who: &Principal, spki_sha256: &str) -> Result<Found, FleetError> {
        let spki = spki_of(spki_sha256)?;
        let certificates = self.certificates_of_key(&spki)?;
        let first = certificates.first().and_then(|certificate| certificate.facility);
        let facility = first.filter(|one| certificates.iter().all(|other| other.facility == Some(*one)));
        if facility.is_none() {
            // Nobody learns from a refusal whether a key outside their scope is known.
            authorize(who, Action::IncidentManage, Target::Fleet).map_err(|_denied| FleetError::NotFound("key"))?;
        }
        let since = certificates.iter().map(|certificate| certificate.not_before).min().unwrap_or(self.now());
        let text = hex::encode(spki);
        Ok(Found::new(Hit::Key(text.clone()), text, facility, since))
    }

    /// An operator whose whole scope the caller's contains; others are not found.
    fn operator_in_scope(&self, who: &Principal, reference: &str) -> Result<Operator, FleetError> {
        let operator = self.find_operator(reference)?;
        if who.scope == Scope::Fleet {
            return Ok(operator);
        }
        let visibility = who.visibility();
        let inside =
            !operator.facilities.is_empty() && operator.facilities.iter().all(|facility| visibility.sees(*facility));
        if inside { Ok(operator) } else { Err(FleetError::NotFound("operator")) }
    }
}

fn operator_found(hit: Hit, operator: Operator) -> Found {
    let facility = match operator.facilities.as_slice() {
        [one] => Some(*one),
        _ => None,
    };
    Found::new(hit, operator.name, facility, operator.created)
}

/// The 32 octets of a key's digest.
pub(crate) fn spki_of(text: &str) -> Result<[u8; 32], FleetError> {
    let mut octets = [0; 32];
    hex::decode_to_slice(text, &mut octets).map_err(|_not_hexadecimal| {
        FleetError::invalid(
            "key",
            "is not a SHA-256",
            "give the SHA-256 of its SubjectPublicKeyInfo: 64 hexadecimal digits, as `certificate show` prints it",
        )
    })?;
    Ok(octets)
}

pub(crate) fn target_of(facility: Option<FacilityId>) -> Target {
    facility.map_or(Target::Fleet, Target::Facility)
}

fn check_new(new: &NewIncident, now: UnixMillis) -> Result<(), FleetError> {
    if !(1..=MAX_SUBJECTS).contains(&new.subjects.len()) {
        return Err(FleetError::invalid(
            "subjects",
            format!("{} subjects", new.subjects.len()),
            format!("name 1 to {MAX_SUBJECTS}: devices, keys, batches, stations, facilities, CAs, operators, tokens"),
        ));
    }
    if new.since.is_some_and(|since| since > now) {
        return Err(FleetError::invalid("since", "lies in the future", "say when it may have begun, or leave it out"));
    }
    Ok(())
}

/// Digest of what an incident is about: the same subjects are the same incident.
fn digest(subjects: &[SubjectHit]) -> [u8; 32] {
    let texts: Vec<String> = subjects.iter().map(|subject| hit_text(&subject.hit)).collect();
    kf_crypto::sha256(texts.join("\n").as_bytes())
}

/// A subject as the log names it.
pub(crate) fn hit_text(hit: &Hit) -> String {
    match hit {
        Hit::Device(id) => id.to_string(),
        Hit::Key(spki) => format!("spki:{spki}"),
        Hit::Batch(id) => id.to_string(),
        Hit::Label(name) => format!("batch:{name}"),
        Hit::Station(id) | Hit::Operator(id) => id.to_string(),
        Hit::Facility(id) => id.to_string(),
        Hit::Authority(id) => id.to_string(),
        Hit::Token(id) => id.to_string(),
    }
}
