//! `keyfleet demo --scene incident`: one site's credential and one factory station are stolen. What the thief can do, what is known of it,
//! who stops it, who settles it, and that the other site notices nothing. Nothing is simulated but the thief.

use std::process::ExitCode;

use kf_api::certificate::{Certificate, CertificateWithPem, IssueRequest};
use kf_api::device::{Device, NewDevice};
use kf_api::enrolment::{CodeRequest, NewCode};
use kf_api::facility::{Facility, NewFacility};
use kf_api::incident::{
    ApprovalRequest, Incident, IncidentClosing, IncidentDetail, IncidentOpened, IncidentReport, IncidentSubject,
    NewIncident, PlanRequest, PlanStanding, RunOutcome, RunRequest, StepState, Verdict,
};
use kf_api::operator::{NewOperator, NewToken, Operator, Role, TokenRequest};
use kf_api::{Page, incident::TimelineEntry};
use kf_client::{Client, Method};
use kf_crypto::PrivateKey;
use kf_key::{CertificateStatus, IncidentId, KeyAlgorithm, SerialNumber, UnixMillis};
use kf_log::proof::verify_inclusion;
use kf_log::{Checkpoint, VerifierKey};
use kf_pki::request::make_request;

use super::report::Report;
use super::stage::{FACILITY, LINE, Stage, client_of};
use super::{DemoError, at, failed, proof, run_with};

/// The other site.
const ELSEWHERE: &str = "plant-b";
const DEVICES: [(&str, &str); 4] =
    [("gate-1", FACILITY), ("gate-2", FACILITY), ("door-1", ELSEWHERE), ("door-2", ELSEWHERE)];

/// Runs it: success only if every check holds.
pub(crate) fn run(json: bool) -> ExitCode {
    let mut report = Report::new(json);
    run_with(&mut report, play)
}

async fn play(report: &mut Report) -> Result<(), DemoError> {
    let stage = Stage::set(report).await?;
    let cast = Cast::of(&stage, report).await?;
    let before = elsewhere(&stage).await?;
    let stolen = cast.steal(&stage, report).await?;
    let (id, plan) = open(&stage, &cast, &stolen, report).await?;
    cast.stop(&stage, id, &stolen, report).await?;
    cast.settle(&stage, id, &plan, &stolen, report).await?;
    report.check(
        "elsewhere",
        &format!("devices, certificates and operators of {ELSEWHERE} are what they were, octet for octet"),
        elsewhere(&stage).await? == before,
    );
    close(&stage, &cast, id, report).await?;
    proof::log(&stage, report).await?;
    stage.strike().await;
    Ok(())
}

/// Who takes part, each with a credential of their own.
struct Cast {
    ines: Client,
    bert: Client,
}

/// What the thief has made.
struct Stolen {
    since: UnixMillis,
    certificate: SerialNumber,
}

impl Cast {
    async fn of(stage: &Stage, report: &mut Report) -> Result<Self, DemoError> {
        let step = "fleet";
        stage.create_line(step).await?;
        let facility = NewFacility { name: ELSEWHERE.to_owned(), description: "demonstration".to_owned() };
        let _: Facility = stage.post("/v1/facilities", &facility, step).await?;
        for (name, facility) in DEVICES {
            let new = NewDevice {
                name: name.to_owned(),
                facility: facility.to_owned(),
                product_line: LINE.to_owned(),
                batch: None,
                attributes: Default::default(),
            };
            let _: Device = stage.post("/v1/devices", &new, step).await?;
            certify(stage, &stage.owner, name).await?;
        }
        let ines = sign_up(stage, "ines", Role::FacilityOperator, &[FACILITY]).await?;
        sign_up(stage, "boris", Role::FacilityOperator, &[ELSEWHERE]).await?;
        sign_up(stage, "line-1", Role::Station, &[FACILITY]).await?;
        let bert = sign_up(stage, "bert", Role::FleetOperator, &[]).await?;
        report.check(
            step,
            &format!("two sites, two devices each with certificates; ines runs {FACILITY}, boris {ELSEWHERE}, line-1 is its factory station"),
            true,
        );
        Ok(Self { ines, bert })
    }

    /// The thief has a laptop with the credential of ines.
    async fn steal(&self, stage: &Stage, report: &mut Report) -> Result<Stolen, DemoError> {
        let step = "theft";
        let since = stage.fleet.clock().now();
        let url = stage.url("/v1/codes");
        let request = CodeRequest { device: "gate-1".to_owned(), lifetime_hours: Some(1) };
        let code: Result<NewCode, _> = self.ines.send_json(Method::POST, &url, &request).await;
        let certificate = certify(stage, &self.ines, "gate-2").await?;
        report.check(
            step,
            &format!(
                "with the credential of ines a thief makes a code for gate-1 and a certificate for gate-2 at {FACILITY}"
            ),
            code.is_ok(),
        );
        let seen: Result<serde_json::Value, _> = self.ines.get_json(&stage.url("/v1/devices/door-1")).await;
        let listed: Page<Device> = self.ines.get_json(&stage.url("/v1/devices")).await.map_err(at(step))?;
        report.check(
            step,
            &format!(
                "and finds nothing of {ELSEWHERE}: {} devices are listed, door-1 is not there",
                listed.items.len()
            ),
            seen.is_err() && listed.items.len() == 2,
        );
        Ok(Stolen { since, certificate })
    }

    /// One person stops it: what can be undone waits for nobody.
    async fn stop(&self, stage: &Stage, id: IncidentId, stolen: &Stolen, report: &mut Report) -> Result<(), DemoError> {
        let step = "stop";
        let begun = std::time::Instant::now();
        let outcome = run_plan(stage, &self.bert, id).await?;
        let took = begun.elapsed().as_millis();
        let waits = outcome.waits.first().is_some_and(|waits| waits.contains("approve"));
        report.check(
            step,
            &format!(
                "one person runs the plan: {} steps in {took} ms, and what is permanent waits",
                outcome.done.len()
            ),
            waits && !outcome.done.is_empty(),
        );
        let shut_out: Result<serde_json::Value, _> = self.ines.get_json(&stage.url("/v1/whoami")).await;
        report.check(step, "the stolen credential is nobody's", shut_out.is_err());
        let held = status(stage, stolen.certificate).await? == CertificateStatus::Held;
        report.check(step, "the thief's certificate is on hold, and its session would be cut", held);
        Ok(())
    }

    /// Two people settle it.
    async fn settle(
        &self,
        stage: &Stage,
        id: IncidentId,
        plan: &PlanStanding,
        stolen: &Stolen,
        report: &mut Report,
    ) -> Result<(), DemoError> {
        let step = "settle";
        let url = stage.url(&format!("/v1/incidents/{id}/approve"));
        let approval = ApprovalRequest { plan_sha256: plan.plan_sha256.clone(), why: "seen the empty rack".to_owned() };
        let own: Result<PlanStanding, _> = self.bert.send_json(Method::POST, &url, &approval).await;
        report.check(step, "who made the plan cannot agree to it", own.is_err());
        let approved: PlanStanding = stage.owner.send_json(Method::POST, &url, &approval).await.map_err(at(step))?;
        report.check(step, "a second person agrees to this very plan, by its SHA-256", approved.approved);
        let outcome = run_plan(stage, &self.bert, id).await?;
        report.check(step, &format!("{} permanent steps are done", outcome.done.len()), outcome.finished);
        let revoked = status(stage, stolen.certificate).await? == CertificateStatus::Revoked;
        report.check(step, "the thief's certificate is revoked for good", revoked);
        proof::status_of(stage, "gate-1", false, report).await?;
        proof::status_of(stage, "door-1", false, report).await
    }
}

async fn sign_up(stage: &Stage, name: &str, role: Role, facilities: &[&str]) -> Result<Client, DemoError> {
    let step = "fleet";
    let facilities = facilities.iter().map(|name| (*name).to_owned()).collect();
    let new = NewOperator { name: name.to_owned(), role, facilities, voucher_key_pem: None };
    let _: Operator = stage.post("/v1/operators", &new, step).await?;
    let request = TokenRequest { operator: name.to_owned(), lifetime_days: Some(1) };
    let token: NewToken = stage.post("/v1/tokens", &request, step).await?;
    client_of(&stage.root, &token.token)
}

/// A certificate for a device, at the request of whoever asks; its serial number.
async fn certify(stage: &Stage, who: &Client, device: &str) -> Result<SerialNumber, DemoError> {
    let step = "fleet";
    let key = PrivateKey::generate(KeyAlgorithm::P256).map_err(at(step))?;
    let csr = make_request(&key, "").map_err(at(step))?;
    let request = IssueRequest {
        profile: kf_key::CertificateProfile::LDevId,
        csr_pem: kf_pki::pem::encode("CERTIFICATE REQUEST", &csr),
        device: Some(device.to_owned()),
        operator: None,
        dns_names: Vec::new(),
        authority: None,
        lifetime_hours: None,
        dry_run: false,
    };
    let issued: CertificateWithPem =
        who.send_json(Method::POST, &stage.url("/v1/certificates"), &request).await.map_err(at(step))?;
    Ok(issued.certificate.serial)
}

async fn status(stage: &Stage, serial: SerialNumber) -> Result<CertificateStatus, DemoError> {
    let shown: CertificateWithPem = stage.get(&format!("/v1/certificates/{serial}"), "status").await?;
    Ok(shown.certificate.status)
}

/// Everything of the other site that an incident could change, as it travels.
async fn elsewhere(stage: &Stage) -> Result<Vec<serde_json::Value>, DemoError> {
    let step = "elsewhere";
    let devices: Page<Device> = stage.get(&format!("/v1/devices?facility={ELSEWHERE}"), step).await?;
    let certificates: Page<Certificate> = stage.get(&format!("/v1/certificates?facility={ELSEWHERE}"), step).await?;
    let epochs: serde_json::Value = stage.get(&format!("/v1/facilities/{ELSEWHERE}/epochs"), step).await?;
    let operators: Page<Operator> = stage.get("/v1/operators", step).await?;
    let boris: Vec<&Operator> = operators.items.iter().filter(|operator| operator.name == "boris").collect();
    let value = |value: Result<serde_json::Value, serde_json::Error>| value.map_err(at(step));
    Ok(vec![
        value(serde_json::to_value(&devices))?,
        value(serde_json::to_value(&certificates))?,
        epochs,
        value(serde_json::to_value(&boris))?,
    ])
}

/// Somebody notices: what it reaches, and what follows.
async fn open(
    stage: &Stage,
    cast: &Cast,
    stolen: &Stolen,
    report: &mut Report,
) -> Result<(IncidentId, PlanStanding), DemoError> {
    let step = "incident";
    let new = NewIncident {
        subjects: vec![IncidentSubject::Operator("ines".to_owned()), IncidentSubject::Station("line-1".to_owned())],
        since: Some(stolen.since),
        octets_per_second: None,
        why: "a laptop and a station are gone".to_owned(),
        dry_run: false,
    };
    let opened: IncidentOpened = stage.post("/v1/incidents", &new, step).await?;
    let radius = &opened.radius;
    let stays = radius.facilities.iter().all(|hit| hit.name == FACILITY);
    report.check(
        step,
        &format!(
            "what it reaches stays at {FACILITY}: {} certificates; {} things are named that stay safe, and why",
            radius.certificates,
            radius.safe.len()
        ),
        stays && !radius.safe.is_empty(),
    );
    let acts = radius.acts.iter().find(|acts| acts.name == "ines").map(|acts| acts.by_act.clone()).unwrap_or_default();
    let said: Vec<String> = acts.iter().map(|(act, count)| format!("{act} {count}")).collect();
    report.check(step, &format!("the log says what the credential did since: {}", said.join(", ")), acts.len() == 2);
    let incident = opened.incident.ok_or_else(|| failed(step, "none was opened"))?;
    let again: IncidentOpened = stage.post("/v1/incidents", &new, step).await?;
    let is_same = again.already_open && again.incident.is_some_and(|again| again.id == incident.id);
    report.check(step, "opened twice, it is one", is_same);
    let url = stage.url(&format!("/v1/incidents/{}/plan", incident.id));
    let plan: PlanStanding =
        cast.bert.send_json(Method::POST, &url, &PlanRequest::default()).await.map_err(at(step))?;
    let names_other = plan.steps.iter().any(|standing| standing.step.what.contains(ELSEWHERE));
    report.check(
        step,
        &format!("a plan of {} steps, in order, none of which names {ELSEWHERE}", plan.steps.len()),
        !plan.steps.is_empty() && !names_other,
    );
    Ok((incident.id, plan))
}

async fn run_plan(stage: &Stage, who: &Client, id: IncidentId) -> Result<RunOutcome, DemoError> {
    let url = stage.url(&format!("/v1/incidents/{id}/run"));
    who.send_json(Method::POST, &url, &RunRequest::default()).await.map_err(at("run"))
}

/// Hands do what no program does; then it is closed, and the report proves what happened.
async fn close(stage: &Stage, cast: &Cast, id: IncidentId, report: &mut Report) -> Result<(), DemoError> {
    let step = "close";
    let shown: IncidentDetail = stage.get(&format!("/v1/incidents/{id}"), step).await?;
    let steps = shown.plan.map(|plan| plan.steps).unwrap_or_default();
    let by_hand: Vec<u32> = steps
        .iter()
        .filter(|standing| standing.state == StepState::Hand)
        .map(|standing| standing.step.number)
        .collect();
    let request = RunRequest { by_hand, why: "a new station stands there".to_owned(), at_most: None };
    let url = stage.url(&format!("/v1/incidents/{id}/run"));
    let outcome: RunOutcome = cast.bert.send_json(Method::POST, &url, &request).await.map_err(at(step))?;
    let closing = IncidentClosing { verdict: Verdict::Recovered, why: String::new() };
    let closed: Incident = stage.post(&format!("/v1/incidents/{id}/close"), &closing, step).await?;
    let is_over = outcome.left == 0 && closed.verdict == Some(Verdict::Recovered);
    report.check(step, "what was left to hands is recorded; the incident is closed as recovered", is_over);
    let made: IncidentReport = stage.get(&format!("/v1/incidents/{id}/report"), step).await?;
    let key = VerifierKey::from_text(&stage.verifier_key).map_err(at(step))?;
    let checkpoint = Checkpoint::open(&made.checkpoint, &key).map_err(at(step))?;
    let proven = made.timeline.iter().filter(|entry| holds(entry, &checkpoint)).count();
    let duties: Vec<&str> = made.duties.iter().map(|duty| duty.name.as_str()).collect();
    report.check(
        step,
        &format!(
            "its report names the duties of the CRA ({}) and proves each of {} log entries against the signed checkpoint",
            duties.join(", "),
            made.timeline.len()
        ),
        proven == made.timeline.len() && proven > 10 && duties.len() == 3,
    );
    Ok(())
}

fn holds(entry: &TimelineEntry, checkpoint: &Checkpoint) -> bool {
    let proof: Option<Vec<[u8; 32]>> = entry.proof.iter().map(|hash| hex::decode(hash).ok()?.try_into().ok()).collect();
    let leaf = entry.leaf.as_bytes();
    proof.is_some_and(|proof| verify_inclusion(leaf, entry.index, checkpoint.size, &checkpoint.root, &proof).is_ok())
}
