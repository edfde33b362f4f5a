//! `keyfleet policy`: rotation policies, read and judged without a server, and a running fleet judged by its own.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use kf_api::inventory::{InventoryFilter, InventoryKey};
use kf_fleet::{Clock as _, SystemClock};
use kf_rotation::{KeyClass, Policy, PolicyError, Preset, Rule, Scope};
use serde::Serialize;

use crate::api::{Context, Paging, list};
use crate::failure::Failure;
use crate::file;
use crate::moment;
use crate::output::{Listing, Names, say};

/// What is shown of a key that is due, or will be.
const DUE_COLUMNS: [&str; 7] = ["class", "name", "verdict", "because", "rotate_at", "age_days", "key"];

/// What can be done with policies.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Read a policy, refuse what contradicts itself, and show the rule of every class of keys
    Check {
        /// The policy; the built-in one when absent
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
        /// Judge the running fleet by its server's policy instead: what is overdue, what is due, what will be, and why
        #[arg(long, conflicts_with = "file")]
        fleet: bool,
        /// With --fleet: also what will be due within this time (30d, 12h, or a date)
        #[arg(long, value_name = "WHEN", requires = "fleet")]
        within: Option<String>,
        /// As it holds for this facility
        #[arg(long, value_name = "NAME")]
        facility: Option<String>,
        /// As it holds for this product line
        #[arg(long, value_name = "NAME")]
        product_line: Option<String>,
    },
    /// What each preset demands, in the standard's terms
    Presets,
}

#[derive(Serialize)]
struct Row {
    class: KeyClass,
    #[serde(flatten)]
    rule: Rule,
}

#[derive(Serialize)]
struct PresetRow {
    name: &'static str,
    demands: &'static str,
}

impl Verb {
    /// Whether a server is to be asked.
    pub(crate) const fn asks_the_fleet(&self) -> bool {
        matches!(self, Self::Check { fleet: true, .. })
    }
}

/// What the server's policy says of the keys of the running fleet, as far as somebody has to do something.
pub(crate) async fn judge_fleet(context: &Context, verb: Verb) -> Result<(), Failure> {
    let Verb::Check { within, facility, product_line, .. } = verb else { return run(context, verb) };
    let now = SystemClock.now();
    let due_before = within.as_deref().map_or(Ok(now), |text| moment::parse(text, now));
    let due_before = due_before.map_err(|problem| Failure::usage(format!("--within: {problem}"), "for example 30d"))?;
    let filter = InventoryFilter { due_before: Some(due_before), facility, product_line, ..InventoryFilter::default() };
    let paging = Paging { all: true, ..Paging::default() };
    list::<InventoryKey>(context, &mut context.api()?, "/v1/inventory", filter, &paging, &DUE_COLUMNS).await
}

pub(crate) fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::Check { file, facility, product_line, .. } => {
            let policy = file.as_deref().map_or_else(|| Ok(Policy::default()), read)?;
            let scope = Scope { facility: facility.as_deref(), product_line: product_line.as_deref() };
            show(context, &policy, scope)
        }
        Verb::Presets => {
            let rows = Preset::ALL.map(|preset| PresetRow { name: preset.name(), demands: preset.statement() });
            let mut listing = Listing::new(context.format, &["name", "demands"]);
            listing.rows(&rows, &Names::new())?;
            listing.end(None)
        }
    }
}

fn read(path: &Path) -> Result<Policy, Failure> {
    let text = file::read_text(path)?;
    Policy::parse(&text).map_err(|error| {
        if let PolicyError::Contradictions(found) = &error {
            for one in found {
                say(&format!("{}: {one}", path.display()));
            }
        }
        Failure::usage(format!("{}: {error}", path.display()), "mend the file; nothing of it is used before")
    })
}

fn show(context: &Context, policy: &Policy, scope: Scope<'_>) -> Result<(), Failure> {
    let columns = ["class", "originator", "recipient-after", "rotate-at", "uses", "octets", "rotate-on", "exception"];
    let mut listing = Listing::new(context.format, &columns);
    let rows: Vec<Row> =
        KeyClass::ALL.into_iter().map(|class| Row { class, rule: policy.rule(class, scope) }).collect();
    listing.rows(&rows, &Names::new())?;
    listing.end(None)
}
