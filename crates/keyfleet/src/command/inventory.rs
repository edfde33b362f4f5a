//! `keyfleet inventory`: every key that the server knows of.

mod cyclonedx;

use clap::Args;
use kf_api::Page;
use kf_api::inventory::{InventoryFilter, InventoryKey};
use kf_api::status::FleetStatus;
use kf_fleet::{Clock as _, SystemClock};
use kf_key::KeyState;
use kf_rotation::KeyClass;

use crate::api::{Context, Paging, list};
use crate::arguments::Encoding;
use crate::failure::Failure;
use crate::moment;
use crate::output::say;

const COLUMNS: [&str; 10] =
    ["class", "name", "state", "algorithm", "place", "protection", "age_days", "verdict", "because", "key"];
/// CSV has every field, because nobody can ask it for more.
const CSV_COLUMNS: [&str; 24] = [
    "key",
    "name",
    "class",
    "key_type",
    "state",
    "algorithm",
    "size_bits",
    "strength_bits",
    "place",
    "protection",
    "created",
    "activated",
    "age_days",
    "expires",
    "rotate_at",
    "uses",
    "protects",
    "verdict",
    "because",
    "facility",
    "product_line",
    "device",
    "certificate",
    "spki_sha256",
];

const EXAMPLES: &str = "\
Every key is listed unless a page is asked for; keys that have ended are left out unless `--ended`, `--state` or
`--verdict` asks for them. docs/manual/inventory.md says what each column is worth.

Examples:
  # What somebody has to do something about, now or within a month
  keyfleet inventory --due-within 30d
  # The device keys of one site, for a spreadsheet
  keyfleet inventory --class device-key --facility lyon --format csv
  # A CycloneDX CBOM for an auditor
  keyfleet inventory --format cyclonedx > cbom.json";

/// Which keys.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Inventory {
    /// Class, as `keyfleet policy check` lists them
    #[arg(long)]
    class: Option<KeyClass>,
    /// pre-activation, active, suspended, deactivated, compromised or destroyed
    #[arg(long)]
    state: Option<KeyState>,
    /// Name or id of the facility
    #[arg(long)]
    facility: Option<String>,
    /// Name or id of the product line
    #[arg(long)]
    product_line: Option<String>,
    /// good, due, overdue, succeeded, processing-only, algorithm or ended
    #[arg(long)]
    verdict: Option<String>,
    /// Only keys that call for something now, or will within this time (30d, 12h, or a date)
    #[arg(long, value_name = "WHEN")]
    due_within: Option<String>,
    /// Also keys that have ended
    #[arg(long)]
    ended: bool,
    #[command(flatten)]
    paging: Paging,
}

pub(crate) async fn run(context: &Context, encoding: Encoding, inventory: Inventory) -> Result<(), Failure> {
    let Inventory { class, state, facility, product_line, verdict, due_within, ended, mut paging } = inventory;
    let now = SystemClock.now();
    let due_before = due_within.as_deref().map(|text| moment::parse(text, now)).transpose();
    let due_before =
        due_before.map_err(|problem| Failure::usage(format!("--due-within: {problem}"), "for example 30d"))?;
    let filter = InventoryFilter {
        class: class.map(|class| class.name().to_owned()),
        state,
        facility,
        product_line,
        verdict,
        due_before,
        ended,
        after: None,
        limit: None,
    };
    // An inventory of a part says little: one page is what has to be asked for.
    paging.all |= paging.limit.is_none() && paging.after.is_none();
    let mut api = context.api()?;
    match encoding {
        Encoding::Table | Encoding::Json => {
            list::<InventoryKey>(context, &mut api, "/v1/inventory", filter, &paging, &COLUMNS).await
        }
        Encoding::Csv => list::<InventoryKey>(context, &mut api, "/v1/inventory", filter, &paging, &CSV_COLUMNS).await,
        Encoding::Cyclonedx => {
            let status: FleetStatus = api.get("/v1/status").await?;
            let mut document = cyclonedx::Document::begin(std::io::stdout().lock(), &status.fleet, now)?;
            let mut filter = InventoryFilter { limit: Some(kf_api::page::MAX_LIMIT), ..filter };
            loop {
                let page: Page<InventoryKey> = api.query("/v1/inventory", &filter).await?;
                page.items.iter().try_for_each(|key| document.key(key))?;
                match page.next {
                    Some(next) if filter.after.as_ref() != Some(&next) => filter.after = Some(next),
                    _ => break,
                }
            }
            say(&format!("{} keys", document.end()?));
            Ok(())
        }
    }
}
