//! Drills: the same use cases as in earnest, on a copy of the registry with keys of its own.
//!
//! The copy has a root, CAs and a log that were made for it and are thrown away with it. It holds no key of the fleet, no
//! token that signs in and no code that enrols, so nothing that it signs is worth anything outside.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use kf_access::{Principal, Visibility};
use kf_api::certificate::IssueRequest;
use kf_api::device::{Departure, DeviceAct, DeviceActRequest};
use kf_api::drill::{DrillCheck, DrillReport, DrillTiming};
use kf_api::incident::{
    ApprovalRequest, BlastRadius, IncidentSubject, NewIncident, PlanRequest, PlanStanding, RunRequest, StepAct,
    StepStanding,
};
use kf_api::operator::{Credential, NewOperator, Role};
use kf_api::{PageRequest, operator::Operator};
use kf_backend::SoftwareBackend;
use kf_key::{
    AuthorityId, CertificateProfile, CertificateStatus, DeviceState, FacilityId, IncidentId, KeyAlgorithm, SecretArray,
    UnixMillis,
};
use kf_signer::{RateCeilings, SignerClient};
use kf_store::device::DeviceQuery;
use kf_store::{Options, Store};

use crate::{Clock, DataDir, Fleet, FleetConfig, FleetError, InitOptions, init};

/// The blast radius of a facility of 100,000 devices.
const RADIUS_LIMIT: u64 = UnixMillis::SECOND;
/// From the run until nothing is issued any more.
const STOP_LIMIT: u64 = UnixMillis::SECOND;
/// A plan for 100,000 devices.
const PLAN_LIMIT: u64 = 60 * UnixMillis::SECOND;
/// The first and the second of the two people.
const PEOPLE: [&str; 2] = ["drill-first", "drill-second"];

/// What to rehearse.
#[derive(Clone, Debug)]
pub struct DrillOptions {
    /// What is taken to be compromised; the facility with the most devices when there is none.
    pub subjects: Vec<IncidentSubject>,
    /// Devices that are brought back one by one, at most 1,000.
    pub sample: u32,
}

/// Rehearses an incident on a copy of the fleet at `source`, made in the empty directory `scratch`. The fleet may be running; it
/// is read and never written.
///
/// # Errors
/// [`FleetError::Local`], [`FleetError::Store`], and what an incident's use cases answer.
pub async fn drill(
    source: &DataDir,
    scratch: &Path,
    clock: Arc<dyn Clock>,
    options: DrillOptions,
) -> Result<DrillReport, FleetError> {
    let config = source.load_config()?;
    let begun = clock.now();
    let mut timings = Vec::new();
    let fleet = copy(source, scratch, &clock, &config).await?;
    timing(&mut timings, "copy the registry", clock.now().0.saturating_sub(begun.0), None);
    let rehearsal = Rehearsal::new(fleet, clock, timings).await?;
    let report = rehearsal.play(&config.fleet, begun, options).await;
    rehearsal.fleet.close().await;
    report
}

/// A fleet with the registry of another one and keys of its own.
async fn copy(
    source: &DataDir,
    scratch: &Path,
    clock: &Arc<dyn Clock>,
    config: &FleetConfig,
) -> Result<Arc<Fleet>, FleetError> {
    let dir = DataDir::new(scratch.join("drill"));
    let secret: [u8; 32] = kf_crypto::random_array()?;
    let backend = SoftwareBackend::new(SecretArray::fill(|octets| *octets = secret), "drill".into())
        .map_err(|_refused| FleetError::Bug("a root for the drill"))?;
    let signer = SignerClient::in_process(Arc::new(backend), RateCeilings::default())?;
    let config = FleetConfig {
        crl_lifetime_seconds: config.crl_lifetime_seconds,
        ocsp_lifetime_seconds: config.ocsp_lifetime_seconds,
        ..FleetConfig::named("drill")
    };
    let options = InitOptions {
        config: config.clone(),
        owner: "drill-first".to_owned(),
        algorithm: KeyAlgorithm::P256,
        root_lifetime_hours: 24 * 3_650,
    };
    init(&dir, signer.clone(), Arc::clone(clock), options).await?;
    let authority = issuing_authority(&dir).await?;
    kf_store::drill::copy_for_drill(&source.database(), &dir.database(), authority)?;
    Fleet::open(dir, config, signer, Arc::clone(clock)).await
}

async fn issuing_authority(dir: &DataDir) -> Result<AuthorityId, FleetError> {
    let store = Store::open(&dir.database(), Options::default())?;
    let found = store.authorities()?.into_iter().find(|authority| authority.is_default).map(|authority| authority.id);
    store.close().await;
    found.ok_or(FleetError::Bug("a new fleet without an issuing CA"))
}

/// What must not change elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
struct FacilityCounts {
    devices: Vec<(DeviceState, u64)>,
    /// Good, held, revoked.
    certificates: (u64, u64, u64),
}

impl FacilityCounts {
    fn all_devices(&self) -> u64 {
        self.devices.iter().map(|(_, count)| count).sum()
    }
}

struct Rehearsal {
    fleet: Arc<Fleet>,
    clock: Arc<dyn Clock>,
    first: Principal,
    second: Principal,
    copied: Vec<DrillTiming>,
}

impl Rehearsal {
    async fn new(fleet: Arc<Fleet>, clock: Arc<dyn Clock>, copied: Vec<DrillTiming>) -> Result<Self, FleetError> {
        let [first, second] = PEOPLE;
        let first = principal(&fleet, first)?;
        let new =
            NewOperator { name: second.to_owned(), role: Role::Owner, facilities: Vec::new(), voucher_key_pem: None };
        fleet.operator_create(&first, new).await?;
        let second = principal(&fleet, second)?;
        Ok(Self { fleet, clock, first, second, copied })
    }

    fn since(&self, begun: UnixMillis) -> u64 {
        self.clock.now().0.saturating_sub(begun.0)
    }

    async fn play(&self, name: &str, at: UnixMillis, options: DrillOptions) -> Result<DrillReport, FleetError> {
        let mut timings = self.copied.clone();
        let before = self.counts()?;
        let subjects = self.subjects_of(options.subjects)?;
        let new =
            NewIncident { subjects, since: None, octets_per_second: None, why: "drill".to_owned(), dry_run: false };
        let begun = self.clock.now();
        let opened = self.fleet.incident_open(&self.first, new).await?;
        timing(&mut timings, "blast radius", self.since(begun), Some(RADIUS_LIMIT));
        let incident = opened.incident.ok_or(FleetError::Bug("an incident that was not opened"))?;
        let plan = self.run(incident.id, &mut timings).await?;
        let (sample, mut checks) = self.bring_back(&opened.radius, options.sample, &mut timings).await?;
        checks.extend(self.checks(&before, &opened.radius, &plan)?);
        let in_time = timings.iter().all(|timing| timing.limit_millis.is_none_or(|limit| timing.millis <= limit));
        Ok(DrillReport {
            fleet: name.to_owned(),
            at,
            subjects: incident.subjects.into_iter().map(|subject| subject.name).collect(),
            devices: before.values().map(FacilityCounts::all_devices).sum(),
            hit: opened.radius.devices,
            sample,
            timings,
            steps: plan.steps,
            passed: in_time && checks.iter().all(|check| check.holds),
            checks,
            not_shown: vec![
                "how fast brokers and devices are: none is attached to a copy".to_owned(),
                "what leaked credentials did: the log stays where it is".to_owned(),
                "whether the second person answers the telephone".to_owned(),
            ],
        })
    }

    /// Plan, stop, agree, settle.
    async fn run(&self, id: IncidentId, timings: &mut Vec<DrillTiming>) -> Result<PlanStanding, FleetError> {
        let begun = self.clock.now();
        let plan = self.fleet.incident_plan(&self.first, id, PlanRequest::default()).await?;
        timing(timings, "plan", self.since(begun), Some(PLAN_LIMIT));
        let begun = self.clock.now();
        self.fleet.incident_run(&self.first, id, RunRequest::default()).await?;
        timing(timings, "stop", self.since(begun), None);
        let request = ApprovalRequest { plan_sha256: plan.plan_sha256, why: "drill".to_owned() };
        self.fleet.incident_approve(&self.second, id, request).await?;
        let begun = self.clock.now();
        self.fleet.incident_run(&self.first, id, RunRequest::default()).await?;
        timing(timings, "settle", self.since(begun), None);
        let begun = self.clock.now();
        self.fleet.incident_report(&self.first, id).await?;
        timing(timings, "report", self.since(begun), None);
        let shown = self.fleet.incident_show(&self.first, id).await?;
        let plan = shown.plan.ok_or(FleetError::Bug("a plan that was run is gone"))?;
        if let Some(millis) = plan.steps.iter().find_map(stopped_after) {
            timing(timings, "stop issuance", millis, Some(STOP_LIMIT));
        }
        Ok(plan)
    }

    /// Brings a sample of the hit devices back, one by one, as if they came by themselves: those that are away longest come last.
    async fn bring_back(
        &self,
        radius: &BlastRadius,
        sample: u32,
        timings: &mut Vec<DrillTiming>,
    ) -> Result<(u64, Vec<DrillCheck>), FleetError> {
        let (mut back, mut ended) = (0, 0);
        let mut stranded = Vec::new();
        let begun = self.clock.now();
        for hit in &radius.facilities {
            let page = PageRequest { after: None, limit: Some(sample.clamp(1, kf_api::page::MAX_LIMIT)) };
            let query = DeviceQuery { facility: Some(hit.facility), page, ..DeviceQuery::default() };
            let mut devices = self.fleet.store.devices(&query, &Visibility::Fleet)?.items;
            devices.sort_by_key(|device| std::cmp::Reverse(device.last_seen));
            for device in devices {
                match device.state {
                    DeviceState::Decommissioned => ended += 1,
                    _ => match self.revive(&device.name, device.state).await {
                        Ok(()) => back += 1,
                        Err(error) => stranded.push(format!("{}: {error}", device.name)),
                    },
                }
            }
        }
        timing(timings, "bring the sample back", self.since(begun), None);
        let found = match stranded.first() {
            None => format!("{back} came back, {ended} had ended for good"),
            Some(first) => format!("{} did not come back: {first}", stranded.len()),
        };
        let what = "nobody is stranded: each device of the sample that is not over gets a certificate again".to_owned();
        Ok((back, vec![DrillCheck { what, holds: stranded.is_empty(), found }]))
    }

    async fn revive(&self, device: &str, state: DeviceState) -> Result<(), FleetError> {
        if matches!(state, DeviceState::Suspended | DeviceState::Quarantined) {
            let request = DeviceActRequest {
                act: DeviceAct::Resume,
                why: "drill".to_owned(),
                departure: Departure::default(),
                dry_run: false,
            };
            self.fleet.device_act(&self.first, device, request).await?;
        }
        let key = kf_crypto::PrivateKey::generate(KeyAlgorithm::P256)?;
        let csr = kf_pki::request::make_request(&key, "")
            .map_err(|_refused| FleetError::Bug("a request that cannot be made"))?;
        let request = IssueRequest {
            profile: CertificateProfile::LDevId,
            csr_pem: kf_pki::pem::encode("CERTIFICATE REQUEST", &csr),
            device: Some(device.to_owned()),
            operator: None,
            dns_names: Vec::new(),
            authority: None,
            lifetime_hours: None,
            dry_run: false,
        };
        self.fleet.certificate_issue(&self.first, request).await?;
        Ok(())
    }

    fn checks(
        &self,
        before: &BTreeMap<FacilityId, FacilityCounts>,
        radius: &BlastRadius,
        plan: &PlanStanding,
    ) -> Result<Vec<DrillCheck>, FleetError> {
        let after = self.counts()?;
        let hit = |facility: &FacilityId| radius.facilities.iter().any(|one| one.facility == *facility);
        let changed = before.iter().filter(|(facility, counts)| !hit(facility) && after.get(facility) != Some(counts));
        let changed = changed.count();
        let others = before.keys().filter(|facility| !hit(facility)).count();
        let open = plan.steps.iter().filter(|step| step.ended.is_none() && !is_by_hand(step)).count();
        let believed = self.still_believed(radius)?;
        Ok(vec![
            DrillCheck {
                what: "no other facility changed: devices by state and certificates by status are as before".to_owned(),
                holds: changed == 0,
                found: format!("{changed} of {others} changed"),
            },
            DrillCheck {
                what: "every step that is not by hand is done".to_owned(),
                holds: open == 0,
                found: format!("{open} of {} are not", plan.steps.len()),
            },
            DrillCheck {
                what: "no certificate that was hit is good any more".to_owned(),
                holds: believed == 0,
                found: format!("{believed} of the first {} are", radius.serials.len()),
            },
        ])
    }

    fn still_believed(&self, radius: &BlastRadius) -> Result<usize, FleetError> {
        let mut good = 0;
        for serial in &radius.serials {
            let found = self.fleet.store.certificate(*serial, &Visibility::Fleet)?;
            let is_ldevid_good = found.is_some_and(|found| {
                found.certificate.status == CertificateStatus::Good
                    && found.certificate.profile == CertificateProfile::LDevId
            });
            good += usize::from(is_ldevid_good);
        }
        Ok(good)
    }

    fn counts(&self) -> Result<BTreeMap<FacilityId, FacilityCounts>, FleetError> {
        let mut counts = BTreeMap::new();
        let mut page = PageRequest { after: None, limit: Some(kf_api::page::MAX_LIMIT) };
        loop {
            let found = self.fleet.store.facilities(&Visibility::Fleet, &page)?;
            for facility in found.items {
                let there = Visibility::Facilities([facility.id].into());
                let devices = self.fleet.store.device_counts(&there)?;
                let certificates = self.fleet.store.certificate_counts(&there)?;
                counts.insert(facility.id, FacilityCounts { devices, certificates });
            }
            page.after = found.next;
            if page.after.is_none() {
                return Ok(counts);
            }
        }
    }

    /// What was asked for, or the facility with the most devices.
    fn subjects_of(&self, subjects: Vec<IncidentSubject>) -> Result<Vec<IncidentSubject>, FleetError> {
        if !subjects.is_empty() {
            return Ok(subjects);
        }
        let counts = self.counts()?;
        let largest =
            counts.iter().max_by_key(|(_, counts)| counts.all_devices()).map(|(facility, _)| facility.to_string());
        largest
            .map(|facility| vec![IncidentSubject::Facility(facility)])
            .ok_or_else(|| FleetError::conflict("facility", "the fleet has none", "create one, and register devices"))
    }
}

fn is_by_hand(standing: &StepStanding) -> bool {
    matches!(standing.step.step, StepAct::ByHand { .. })
}

/// How long it took to stop issuance, if the plan does.
fn stopped_after(standing: &StepStanding) -> Option<u64> {
    let is_stop =
        matches!(standing.step.step, StepAct::StopFacilityIssuance { .. } | StepAct::StopAuthorityIssuance { .. });
    let (begun, ended) = (standing.begun?, standing.ended?);
    is_stop.then(|| ended.0.saturating_sub(begun.0))
}

fn timing(timings: &mut Vec<DrillTiming>, what: &str, millis: u64, limit_millis: Option<u64>) {
    timings.push(DrillTiming { what: what.to_owned(), millis, limit_millis });
}

fn principal(fleet: &Fleet, name: &str) -> Result<Principal, FleetError> {
    let operator = fleet.store.operator_by_name(name)?.ok_or(FleetError::NotFound("operator"))?;
    let Operator { id, name, role, facilities, .. } = operator;
    Ok(Principal::new(id.to_string(), name, role, facilities, Credential::Token))
}
