//! `keyfleet rotate`: what the policy asks for now, carried out.

use clap::Args;
use kf_api::rotation::{RotateRequest, RotationOutcome, RotationReport};
use kf_rotation::KeyClass;

use crate::api::{Context, names_for};
use crate::failure::Failure;
use crate::output::{Format, Listing, object, say};

const COLUMNS: [&str; 8] = ["name", "class", "operation", "outcome", "remaining", "because", "problem", "proposal"];

const EXAMPLES: &str = "\
The policy decides what is due, the state of the fleet what is left to be done: a run that was cut short is finished by the next
one, and a second one finds nothing. Devices get their new keys by themselves, at their next exchange.

Examples:
  keyfleet rotate --dry-run
  keyfleet rotate --facility lyon --why \"yearly rotation\"
  # A new version of the server's wrapping key, although none is due; and how much still lies under older ones
  keyfleet rotate --class wrapping-key --now --why \"a custodian left\"
  keyfleet rotate --class wrapping-key --dry-run";

/// What to rotate.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Rotate {
    /// Only this facility (name or id)
    #[arg(long)]
    facility: Option<String>,
    /// Only this class of keys, as `keyfleet policy check` lists them
    #[arg(long)]
    class: Option<KeyClass>,
    /// Make a successor although none is due; for a class of the server's own keys
    #[arg(long, requires = "class")]
    now: bool,
    /// The most acts of this run, 1 to 10,000
    #[arg(long, value_name = "N")]
    limit: Option<u32>,
    /// Why, for the log; the policy's own reason when absent
    #[arg(long, default_value = "")]
    why: String,
    /// Say what would happen, change nothing
    #[arg(long)]
    dry_run: bool,
}

pub(crate) async fn run(context: &Context, rotate: Rotate) -> Result<(), Failure> {
    let Rotate { facility, class, now, limit, why, dry_run } = rotate;
    let class = class.map(|class| class.name().to_owned());
    let request = RotateRequest { facility, class, now, limit, dry_run, why };
    let mut api = context.api_within(std::time::Duration::from_secs(600))?;
    let report: RotationReport = api.post("/v1/rotation", &request).await?;
    let names = names_for(context.format, &mut api, &COLUMNS).await;
    if context.format == Format::Json {
        object(context.format, &report, &names)?;
    } else if report.items.is_empty() && context.format == Format::Table {
        say("nothing is due; `keyfleet policy check --fleet --within 90d` says what will be");
    } else {
        let mut listing = Listing::new(context.format, &COLUMNS);
        listing.rows(&report.items, &names)?;
        listing.end(None)?;
    }
    judge(&report)
}

/// Whether a script has to look again.
fn judge(report: &RotationReport) -> Result<(), Failure> {
    let count = |outcome| report.items.iter().filter(|step| step.outcome == outcome).count();
    let (refused, waiting) = (count(RotationOutcome::Refused), count(RotationOutcome::WaitsForApproval));
    if refused + waiting == 0 && !report.more {
        return Ok(());
    }
    let more = if report.more { ", and there is more to do" } else { "" };
    Err(Failure::Partial {
        problem: format!("{refused} refused, {waiting} wait for a second person{more}"),
        remedy: "see the reason of each above; `keyfleet proposal list` has what waits".to_owned(),
    })
}
