//! `keyfleet audit`.

mod receipt;
mod verify;

pub(crate) use verify::copy_log;

use std::time::Duration;

use clap::Subcommand;
use kf_api::Page;
use kf_api::audit::{AuditFilter, AuditRecord, EventFilter};

use crate::api::{Context, Paging, list};
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, raw, say, to_value};

/// How long a server that does not answer is left alone.
const AGAIN: Duration = Duration::from_secs(2);

const COLUMNS: [&str; 8] = [
    "index",
    "entry.at",
    "entry.who.name",
    "entry.who.role",
    "entry.act",
    "entry.phase",
    "entry.subjects",
    "entry.why",
];

/// What can be done with the log.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// List entries
    List {
        /// Only those about this: dev_..., fac_..., op_..., cert:SERIAL, spki:SHA256
        #[arg(long, value_name = "ID")]
        subject: Option<String>,
        #[command(flatten)]
        paging: Paging,
    },
    /// Print entries as they are made, until interrupted; with `--format json`, one object per line
    Follow {
        /// Only those about this, or made with this token: dev_..., fac_..., op_..., tok_..., cert:SERIAL
        #[arg(long, value_name = "ID")]
        subject: Option<String>,
        /// Go on after this entry; without it, from now on
        #[arg(long, value_name = "INDEX")]
        after: Option<u64>,
        /// End after so many entries
        #[arg(long, value_name = "N")]
        count: Option<u64>,
    },
    /// Check the whole log without trusting whoever keeps it: signature, tiles, entries, older checkpoints
    Verify(verify::Verify),
    /// Check a customer's receipt, or an incident's report, without asking anybody: each entry of it against the signed log
    VerifyReceipt(receipt::VerifyReceipt),
}

/// Asks for the next entries again and again. A server that is away for a while is waited for: nothing is missed, because the
/// place in the log is kept here.
async fn follow(context: &Context, mut filter: EventFilter, mut left: u64) -> Result<(), Failure> {
    let mut api = context.api()?;
    let names = Names::new();
    let mut listing = Listing::new(context.format, &COLUMNS);
    let mut was_away = false;
    while left > 0 {
        filter.limit = Some(u32::try_from(left).unwrap_or(u32::MAX).min(kf_api::page::MAX_LIMIT));
        let page: Page<AuditRecord> = match api.query("/v1/events", &filter).await {
            Ok(page) => page,
            // Where nothing was heard yet there is no place to go on from, and an address may be wrong.
            Err(failure) if failure.is_passing() && filter.after.is_some() => {
                if !was_away {
                    say(&format!("{failure}; trying again every {} seconds", AGAIN.as_secs()));
                }
                was_away = true;
                tokio::time::sleep(AGAIN).await;
                continue;
            }
            Err(failure) => return Err(failure),
        };
        was_away = false;
        left = left.saturating_sub(u64::try_from(page.items.len()).unwrap_or(u64::MAX));
        if context.format == Format::Json {
            for record in &page.items {
                raw(format!("{}\n", to_value(record)?).as_bytes())?;
            }
        } else {
            listing.rows(&page.items, &names)?;
        }
        filter.after = page.next.or(filter.after);
    }
    Ok(())
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    match verb {
        Verb::List { subject, paging } => {
            let mut api = context.api()?;
            let filter = AuditFilter { subject, after: None, limit: None };
            list::<AuditRecord>(context, &mut api, "/v1/audit", filter, &paging, &COLUMNS).await
        }
        Verb::Follow { subject, after, count } => {
            let filter = EventFilter { subject, after: after.map(|after| after.to_string()), ..EventFilter::default() };
            follow(context, filter, count.unwrap_or(u64::MAX)).await
        }
        Verb::Verify(wanted) => verify::run(context, wanted).await,
        Verb::VerifyReceipt(wanted) => receipt::run(context, &wanted),
    }
}
