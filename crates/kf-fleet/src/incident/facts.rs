//! Facts about the subjects of an incident, from registry and log.

use kf_access::Visibility;
use kf_api::PageRequest;
use kf_api::batch::Batch;
use kf_api::certificate::Certificate;
use kf_api::facility::Facility;
use kf_api::incident::{FacilityHit, Hit, Incident};
use kf_api::operator::Operator;
use kf_incident::{
    Act, AuthorityFacts, BatchFacts, CredentialFacts, DeviceFacts, DeviceSet, FacilityFacts, Facts, HitFacts, KeyFacts,
    Rates, StationFacts,
};
use kf_key::{BatchId, DeviceId, DeviceState, FacilityId, OperatorId, SerialNumber, TokenId, UnixMillis};
use kf_store::certificate::KeyHolder;
use kf_store::device::DeviceTarget;

use crate::{Fleet, FleetError};

/// Log entries of a leaked credential that are looked at for what they made.
const MAX_ACTS: u32 = 10_000;
/// Pages of a listing that are read: a million rows.
const MAX_PAGES: u32 = 1_000;

impl Fleet {
    /// What registry and log say about an incident now.
    pub(crate) fn incident_facts(&self, incident: &Incident) -> Result<Facts, FleetError> {
        let mut hits = Vec::with_capacity(incident.subjects.len());
        for subject in &incident.subjects {
            let hit = match &subject.hit {
                Hit::Device(id) => HitFacts::Device(Box::new(self.device_facts(*id, subject.epoch)?)),
                Hit::Key(spki) => HitFacts::Key(self.key_facts(spki)?),
                Hit::Batch(id) => HitFacts::Batch(Box::new(self.batch_facts_of(*id)?)),
                Hit::Label(name) => {
                    HitFacts::Label { name: name.clone(), set: self.set_of(&DeviceTarget::Batch(name.clone()))? }
                }
                Hit::Station(id) => HitFacts::Station(Box::new(self.station_facts(*id, incident.since)?)),
                Hit::Facility(id) => {
                    let epoch = subject.epoch.unwrap_or_default();
                    HitFacts::Facility(Box::new(self.facility_facts(*id, epoch, incident.since)?))
                }
                Hit::Authority(id) => {
                    let authority = self.find_authority(&id.to_string())?.record.clone();
                    let (certificates, devices) = self.store.count_issued(*id)?;
                    HitFacts::Authority(Box::new(AuthorityFacts { authority, certificates, devices }))
                }
                Hit::Operator(id) => {
                    HitFacts::Credential(Box::new(self.credential_facts(*id, None, incident.since)?))
                }
                Hit::Token(id) => {
                    let token = self.store.token(*id)?.ok_or(FleetError::NotFound("token"))?;
                    let facts = self.credential_facts(token.operator, Some(*id), incident.since)?;
                    HitFacts::Credential(Box::new(facts))
                }
            };
            hits.push(hit);
        }
        let counts = self.store.device_counts(&Visibility::Fleet)?;
        Ok(Facts {
            now: self.now(),
            since: incident.since,
            octets_per_second: incident.octets_per_second,
            freshness: self.config.crl_lifetime_seconds.max(self.config.ocsp_lifetime_seconds) * UnixMillis::SECOND,
            fleet_devices: counts.into_iter().map(|(_, count)| count).sum(),
            fleet_facilities: self.store.count_facilities()?,
            hits,
        })
    }

    /// How fast this server was in earlier incidents, or what is assumed where there were none.
    pub(crate) fn incident_rates(&self) -> Result<Rates, FleetError> {
        let (devices, milliseconds) = self.store.measured_incident_steps()?;
        if devices == 0 || milliseconds == 0 {
            return Ok(Rates::default());
        }
        let devices_per_second = devices.saturating_mul(UnixMillis::SECOND).div_euclid(milliseconds).max(1);
        Ok(Rates { devices_per_second, measured: true })
    }

    /// Every certificate with a public key, whatever its status.
    pub(crate) fn certificates_of_key(&self, spki: &[u8; 32]) -> Result<Vec<Certificate>, FleetError> {
        let text = hex::encode(spki);
        let certificates = match self.store.key_standing(spki)?.holder {
            Some(KeyHolder::Device(id)) => self.store.certificates_of_device(id, &Visibility::Fleet)?,
            Some(KeyHolder::Operator(id)) => self.store.certificates_of_operator(id, UnixMillis(0))?,
            Some(KeyHolder::Subject(_)) => {
                let own = self.authorities();
                let serials = own.all().map(|known| known.record.id).collect::<Vec<_>>();
                let mut found = Vec::new();
                for authority in serials {
                    found.extend(self.store.authority_certificate(authority)?.map(|stored| stored.certificate));
                }
                found
            }
            None => Vec::new(),
        };
        Ok(certificates.into_iter().filter(|certificate| certificate.spki_sha256 == text).collect())
    }

    fn facility_of(&self, id: FacilityId) -> Result<Facility, FleetError> {
        self.store.facility(id, &Visibility::Fleet)?.ok_or(FleetError::NotFound("facility"))
    }

    fn all_devices_of(&self, facility: FacilityId) -> Result<u64, FleetError> {
        let counts = self.store.device_counts(&Visibility::Facilities([facility].into()))?;
        Ok(counts.into_iter().map(|(_, count)| count).sum())
    }

    fn set_of(&self, target: &DeviceTarget) -> Result<DeviceSet, FleetError> {
        let lately = self.now().minus(UnixMillis::DAY);
        let found = self.store.count_devices(target, lately)?;
        let mut facilities = Vec::with_capacity(found.by_facility.len());
        for (facility, devices) in found.by_facility {
            let name = self.facility_of(facility)?.name;
            let of_devices = self.all_devices_of(facility)?;
            facilities.push(FacilityHit { facility, name, devices, of_devices });
        }
        Ok(DeviceSet {
            devices: facilities.iter().map(|hit| hit.devices).sum(),
            names: found.names,
            certificates: found.certificates,
            serials: found.serials,
            last_not_after: found.last_not_after,
            facilities,
            seen_lately: found.seen_lately,
        })
    }

    fn device_facts(&self, id: DeviceId, epoch: Option<u32>) -> Result<DeviceFacts, FleetError> {
        let device = self.store.device(id, &Visibility::Fleet)?.ok_or(FleetError::NotFound("device"))?;
        Ok(DeviceFacts {
            facility: self.facility_of(device.facility)?,
            facility_devices: self.all_devices_of(device.facility)?,
            certificates: self.store.certificates_of_device(id, &Visibility::Fleet)?,
            keys: self.store.device_key_epochs(id, &Visibility::Fleet)?,
            epoch,
            device,
        })
    }

    fn key_facts(&self, spki_sha256: &str) -> Result<KeyFacts, FleetError> {
        let spki = super::spki_of(spki_sha256)?;
        let certificates = self.certificates_of_key(&spki)?;
        let device = certificates.iter().find_map(|certificate| certificate.device);
        let set = match device {
            Some(id) => self.set_of(&DeviceTarget::Device { id, seen: DeviceState::Active })?,
            None => DeviceSet::default(),
        };
        let holder =
            set.names.first().cloned().or_else(|| certificates.first().map(|certificate| certificate.subject.clone()));
        Ok(KeyFacts { spki_sha256: spki_sha256.to_owned(), holder, certificates, set })
    }

    fn batch_facts_of(&self, id: BatchId) -> Result<BatchFacts, FleetError> {
        let stored = self.store.batch(id, &Visibility::Fleet)?.ok_or(FleetError::NotFound("batch"))?;
        self.batch_facts(stored.batch)
    }

    fn batch_facts(&self, batch: Batch) -> Result<BatchFacts, FleetError> {
        let set = self.set_of(&DeviceTarget::Batch(batch.name.clone()))?;
        let there = set.facilities.iter().find(|hit| hit.facility == batch.facility).map_or(0, |hit| hit.devices);
        Ok(BatchFacts { elsewhere: set.devices.saturating_sub(there), set, batch })
    }

    /// Batches whose quota was in force at some moment since, and how many were over before.
    fn batches_since(
        &self,
        station: Option<OperatorId>,
        visibility: &Visibility,
        since: UnixMillis,
    ) -> Result<(Vec<BatchFacts>, u64), FleetError> {
        let (mut batches, mut earlier) = (Vec::new(), 0);
        let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        for _ in 0..MAX_PAGES {
            let found = self.store.batches(station, visibility, &page)?;
            for batch in found.items {
                if batch.expires >= since {
                    batches.push(self.batch_facts(batch)?);
                } else {
                    earlier += 1;
                }
            }
            page.after = found.next;
            if page.after.is_none() {
                break;
            }
        }
        Ok((batches, earlier))
    }

    fn station_facts(&self, id: OperatorId, since: UnixMillis) -> Result<StationFacts, FleetError> {
        let (batches, earlier_batches) = self.batches_since(Some(id), &Visibility::Fleet, since)?;
        Ok(StationFacts { credential: self.credential_facts(id, None, since)?, batches, earlier_batches })
    }

    fn facility_facts(&self, id: FacilityId, epoch: u32, since: UnixMillis) -> Result<FacilityFacts, FleetError> {
        let here = Visibility::Facilities([id].into());
        let (batches, _) = self.batches_since(None, &here, since)?;
        Ok(FacilityFacts {
            facility: self.facility_of(id)?,
            set: self.set_of(&DeviceTarget::Facility(id))?,
            epochs: self.store.facility_epochs(id, &here)?,
            epoch,
            operators: self.operators_at(id)?,
            batches,
            departed: self.store.departed_devices(id)?,
        })
    }

    /// Operators in whose scope a facility is, those of the whole fleet not among them.
    fn operators_at(&self, facility: FacilityId) -> Result<Vec<Operator>, FleetError> {
        let mut found = Vec::new();
        let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        for _ in 0..MAX_PAGES {
            let operators = self.store.operators(&page)?;
            found.extend(operators.items.into_iter().filter(|operator| operator.facilities.contains(&facility)));
            page.after = operators.next;
            if page.after.is_none() {
                break;
            }
        }
        Ok(found)
    }

    fn credential_facts(
        &self,
        id: OperatorId,
        only: Option<TokenId>,
        since: UnixMillis,
    ) -> Result<CredentialFacts, FleetError> {
        let operator = self.store.operator(id)?.ok_or(FleetError::NotFound("operator"))?;
        let done = self.store.log_of_actor(id, only, since, MAX_ACTS)?;
        let mut by_act = std::collections::BTreeMap::new();
        let (mut acts, mut issued) = (Vec::with_capacity(done.entries.len()), Vec::new());
        for (index, entry) in done.entries {
            *by_act.entry(entry.act.clone()).or_default() += 1;
            if entry.act == "certificate.issue" {
                issued.extend(self.certificates_named(&entry.subjects)?);
            }
            acts.push(Act { index, act: entry.act, subjects: entry.subjects });
        }
        let (scope_devices, scope) = self.scope_of(&operator)?;
        let certificates = if only.is_some() { Vec::new() } else { self.store.certificates_of_operator(id, since)? };
        Ok(CredentialFacts {
            tokens: self.store.tokens_of_operator(id)?,
            operator,
            only,
            certificates,
            scope_devices,
            scope,
            acts,
            entries: done.total,
            by_act,
            first: done.first,
            issued,
        })
    }

    fn certificates_named(&self, subjects: &[String]) -> Result<Vec<Certificate>, FleetError> {
        let mut found = Vec::new();
        for serial in subjects.iter().filter_map(|text| text.strip_prefix("cert:")?.parse::<SerialNumber>().ok()) {
            found.extend(self.store.certificate(serial, &Visibility::Fleet)?.map(|stored| stored.certificate));
        }
        Ok(found)
    }

    /// Devices and facility names in an operator's scope.
    fn scope_of(&self, operator: &Operator) -> Result<(u64, Vec<String>), FleetError> {
        let principal = kf_access::Principal::new(
            operator.id.to_string(),
            operator.name.clone(),
            operator.role,
            operator.facilities.iter().copied(),
            kf_api::operator::Credential::Token,
        );
        let devices = self.store.device_counts(&principal.visibility())?.into_iter().map(|(_, count)| count).sum();
        let mut names = Vec::new();
        for facility in &operator.facilities {
            names.push(self.facility_of(*facility)?.name);
        }
        Ok((devices, names))
    }
}
