//! `keyfleet incident`.

mod screen;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use kf_api::incident::{
    ApprovalRequest, Incident, IncidentClosing, IncidentDetail, IncidentFilter, IncidentOpened, IncidentReport,
    IncidentSubject, NewIncident, PlanRequest, PlanStanding, RunOutcome, RunRequest, Verdict,
};
use kf_fleet::{Clock as _, SystemClock};
use kf_key::{IncidentId, TokenId};

use crate::api::{Api, Context, Paging, list};
use crate::failure::Failure;
use crate::output::{Format, Names, object, raw, say};
use crate::{file, moment};

const COLUMNS: [&str; 7] = ["id", "state", "opened", "since", "opened_by_name", "verdict", "why"];
/// How long one step may take: a million devices at the rate that is assumed, several times over.
const STEP_DEADLINE: Duration = Duration::from_secs(600);

/// What can be done with incidents.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Say what may be compromised, and see what it reaches; the same incident is open once
    Open(Open),
    /// List incidents, newest first
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show an incident: what it reaches now, its plan, and how far that is
    Show {
        /// Identifier, `inc_...`
        incident: IncidentId,
    },
    /// Make the plan: what stops at once, what needs two people, what is by hand
    Plan {
        /// Identifier, `inc_...`
        incident: IncidentId,
        /// Say what it would be, change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Agree to the plan that somebody else made; counts for a day, and for this very plan
    Approve(Approve),
    /// Do what the plan says, as far as that goes without a person; safe to run again at any time
    Run(Run),
    /// The report: a timeline from the log with proofs, as Markdown, or JSON with `--format json`
    Report {
        /// Identifier, `inc_...`
        incident: IncidentId,
        /// Where to write it, as JSON where the name ends in .json; standard output when absent
        #[arg(long, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// Close an incident with a verdict
    Close {
        /// Identifier, `inc_...`
        incident: IncidentId,
        /// What it came to
        #[arg(long)]
        verdict: VerdictArgument,
        /// Why, for the log; required unless everything is done
        #[arg(long, default_value = "")]
        why: String,
    },
}

/// What may be compromised. Repeat an option for several; all of them are one incident.
#[derive(Debug, Args)]
pub(crate) struct Open {
    #[command(flatten)]
    subjects: Subjects,
    /// When it may have begun: a date, a moment, or how long ago (30d, 12h). Unknown when absent: since the subjects are there
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
    /// Octets that one device protects in a second, to say how much data is exposed
    #[arg(long, value_name = "NUMBER")]
    octets_per_second: Option<u64>,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Say what it reaches, keep nothing
    #[arg(long)]
    dry_run: bool,
}

/// The subjects.
#[derive(Debug, Args)]
#[group(required = false, multiple = true)]
pub(crate) struct Subjects {
    /// A device (name or id) that was stolen, opened or taken over
    #[arg(long)]
    device: Vec<String>,
    /// A public key whose private key is known to others: SHA-256 of its SubjectPublicKeyInfo
    #[arg(long, value_name = "SHA256")]
    key: Vec<String>,
    /// A batch (name or id)
    #[arg(long)]
    batch: Vec<String>,
    /// A factory station (name or id)
    #[arg(long)]
    station: Vec<String>,
    /// Everything at a facility (name or id)
    #[arg(long)]
    facility: Vec<String>,
    /// A CA (name or id)
    #[arg(long)]
    authority: Vec<String>,
    /// Every credential of an operator (name or id)
    #[arg(long)]
    operator: Vec<String>,
    /// One API token, `tok_...`
    #[arg(long)]
    token: Vec<TokenId>,
}

/// Agreement to a plan.
#[derive(Debug, Args)]
pub(crate) struct Approve {
    /// Identifier, `inc_...`
    incident: IncidentId,
    /// SHA-256 of the plan that you read; the one in force when absent
    #[arg(long, value_name = "SHA256")]
    plan: Option<String>,
    /// Why, for the log
    #[arg(long, default_value = "")]
    why: String,
}

/// A run.
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Identifier, `inc_...`
    incident: IncidentId,
    /// Record that this step was done by hand; repeat for several
    #[arg(long, value_name = "STEP", requires = "why")]
    by_hand: Vec<u32>,
    /// What was done by hand, for the log
    #[arg(long)]
    why: Option<String>,
}

/// What an incident came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum VerdictArgument {
    /// It was a compromise, and every step is done, those by hand included
    Recovered,
    /// It was a compromise, and what is left is accepted for the reason given
    Accepted,
    /// It was none
    FalseAlarm,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Open(open) => self::open(context, open).await,
        Verb::List { paging } => {
            let filter = IncidentFilter::default();
            list::<Incident>(context, &mut context.api()?, "/v1/incidents", filter, &paging, &COLUMNS).await
        }
        Verb::Show { incident } => {
            let found: IncidentDetail = context.api()?.get(&path(incident, "")).await?;
            match context.format {
                Format::Table => raw(screen::detail(&found).as_bytes()),
                format => object(format, &found, &Names::new()),
            }
        }
        Verb::Plan { incident, dry_run } => {
            let request = PlanRequest { dry_run };
            let plan: PlanStanding = context.api()?.post(&path(incident, "/plan"), &request).await?;
            show_plan(context, &plan)
        }
        Verb::Approve(approve) => self::approve(context, approve).await,
        Verb::Run(run) => run_plan(context, run).await,
        Verb::Report { incident, out } => report(context, incident, out).await,
        Verb::Close { incident, verdict, why } => {
            let verdict = match verdict {
                VerdictArgument::Recovered => Verdict::Recovered,
                VerdictArgument::Accepted => Verdict::Accepted,
                VerdictArgument::FalseAlarm => Verdict::FalseAlarm,
            };
            let closing = IncidentClosing { verdict, why };
            let closed: Incident = context.api()?.post(&path(incident, "/close"), &closing).await?;
            object(context.format, &closed, &Names::new())
        }
    }
}

fn path(incident: IncidentId, rest: &str) -> String {
    format!("/v1/incidents/{incident}{rest}")
}

async fn open(context: &Context, open: Open) -> Result<(), Failure> {
    let Open { subjects, since, octets_per_second, why, dry_run } = open;
    let since = since
        .map(|text| {
            moment::parse_past(&text, SystemClock.now())
                .map_err(|problem| Failure::usage(format!("--since {text}: {problem}"), "for example --since 3d"))
        })
        .transpose()?;
    let subjects = subjects.into_subjects();
    if subjects.is_empty() {
        return Err(Failure::usage(
            "nothing that may be compromised is named",
            "give one or more of --device, --key, --batch, --station, --facility, --authority, --operator, --token",
        ));
    }
    let new = NewIncident { subjects, since, octets_per_second, why, dry_run };
    let opened: IncidentOpened = context.api_within(STEP_DEADLINE)?.post("/v1/incidents", &new).await?;
    match context.format {
        Format::Table => raw(screen::opened(&opened).as_bytes())?,
        format => object(format, &opened, &Names::new())?,
    }
    if let Some(incident) = &opened.incident {
        if opened.already_open {
            say(&format!("{} is open already; nothing new was made", incident.id));
        }
        say(&format!("next: keyfleet incident plan {}", incident.id));
    }
    Ok(())
}

impl Subjects {
    /// What is named.
    pub(crate) fn into_subjects(self) -> Vec<IncidentSubject> {
        let Self { device, key, batch, station, facility, authority, operator, token } = self;
        let mut subjects: Vec<IncidentSubject> = device.into_iter().map(IncidentSubject::Device).collect();
        subjects.extend(key.into_iter().map(IncidentSubject::Key));
        subjects.extend(batch.into_iter().map(IncidentSubject::Batch));
        subjects.extend(station.into_iter().map(IncidentSubject::Station));
        subjects.extend(facility.into_iter().map(IncidentSubject::Facility));
        subjects.extend(authority.into_iter().map(IncidentSubject::Authority));
        subjects.extend(operator.into_iter().map(IncidentSubject::Operator));
        subjects.extend(token.into_iter().map(IncidentSubject::Token));
        subjects
    }
}

fn show_plan(context: &Context, plan: &PlanStanding) -> Result<(), Failure> {
    match context.format {
        Format::Table => raw(screen::plan(plan).as_bytes()),
        format => object(format, plan, &Names::new()),
    }
}

async fn approve(context: &Context, approve: Approve) -> Result<(), Failure> {
    let Approve { incident, plan, why } = approve;
    let mut api = context.api()?;
    let plan_sha256 = match plan {
        Some(plan) => plan,
        None => {
            let found: IncidentDetail = api.get(&path(incident, "")).await?;
            let plan = found.plan.ok_or_else(|| {
                Failure::usage("no plan was made yet", format!("make one with `keyfleet incident plan {incident}`"))
            })?;
            say(&format!("approving the plan in force, {}", plan.plan_sha256));
            plan.plan_sha256
        }
    };
    let request = ApprovalRequest { plan_sha256, why };
    let plan: PlanStanding = api.post(&path(incident, "/approve"), &request).await?;
    show_plan(context, &plan)
}

/// Step by step, so that a person sees how far it is.
async fn run_plan(context: &Context, run: Run) -> Result<(), Failure> {
    let Run { incident, by_hand, why } = run;
    let mut api = context.api_within(STEP_DEADLINE)?;
    let mut request = RunRequest { by_hand, why: why.unwrap_or_default(), at_most: Some(1) };
    let mut done = Vec::new();
    let last = loop {
        let outcome = one_step(&mut api, incident, &request).await?;
        for standing in &outcome.done {
            let outcome = standing.outcome.as_deref().unwrap_or("done");
            say(&format!("step {}: {}: {outcome}", standing.step.number, standing.step.what));
        }
        done.extend(outcome.done.iter().cloned());
        if !outcome.more {
            break outcome;
        }
        request.by_hand.clear();
    };
    let outcome = RunOutcome { done, ..last };
    match context.format {
        Format::Table => raw(screen::ran(&outcome).as_bytes())?,
        format => object(format, &outcome, &Names::new())?,
    }
    judge(&outcome)
}

async fn one_step(api: &mut Api, incident: IncidentId, request: &RunRequest) -> Result<RunOutcome, Failure> {
    api.post(&path(incident, "/run"), request).await
}

/// Whether all is done that a run does.
fn judge(outcome: &RunOutcome) -> Result<(), Failure> {
    match outcome.waits.first() {
        None => Ok(()),
        Some(first) => Err(Failure::Partial {
            problem: format!("{} steps are left; it waits: {first}", outcome.left),
            remedy: format!("then run `keyfleet incident run {}` again", outcome.incident),
        }),
    }
}

async fn report(context: &Context, incident: IncidentId, out: Option<PathBuf>) -> Result<(), Failure> {
    let report: IncidentReport = context.api_within(STEP_DEADLINE)?.get(&path(incident, "/report")).await?;
    let is_json = out.as_ref().and_then(|out| out.extension()).is_some_and(|extension| extension == "json");
    let text = match context.format {
        Format::Table if !is_json => kf_incident::markdown(&report, moment::text),
        Format::Json | Format::Table => {
            let text = serde_json::to_string_pretty(&report);
            format!("{}\n", text.map_err(|error| Failure::Output(std::io::Error::other(error)))?)
        }
        Format::Csv => return Err(Failure::usage("a report is no table", "leave --format out, or give --format json")),
    };
    match out {
        Some(path) => file::write_new(&path, text.as_bytes()),
        None => raw(text.as_bytes()),
    }
}
