//! A customer's receipt as text, fit to be printed on a page.

use std::fmt::Write as _;

use kf_api::order::OrderAct;
use kf_api::ownership::{CustomerReceipt, EndedOwnership, OwnershipEnd};

use crate::moment;
use crate::output::printable;

/// The page.
pub(super) fn text(receipt: &CustomerReceipt) -> String {
    let CustomerReceipt { fleet, at, record, wipe, timeline, tree_size, .. } = receipt;
    let mut page = String::new();
    let mut line = |text: String| {
        page.push_str(&printable(&text));
        page.push('\n');
    };
    line(format!("RECEIPT: device {} {}", record.device_name, title(record.end)));
    line("=".repeat(72));
    line(format!("Fleet        {fleet}"));
    line(format!("Device       {} ({})", record.device_name, record.device));
    if !record.customer.is_empty() {
        line(format!("Reference    {}", record.customer));
    }
    line(format!("When         {}", moment::text(record.at)));
    line(format!("Why          {}", record.why));
    line(format!("Proposed by  {}", record.proposed_by));
    line(format!("Approved by  {}", record.approved_by));
    line(String::new());
    line("What became of its keys".to_owned());
    for (what, fate) in fates(record, wipe.as_deref()) {
        line(format!("  {what:<28}{fate}"));
    }
    if !record.exceptions.is_empty() {
        line(String::new());
        line("Not reached".to_owned());
        for exception in &record.exceptions {
            line(format!("  - {exception}"));
        }
    }
    line(String::new());
    line(format!("Log entries (tree of {tree_size}, made out {})", moment::text(*at)));
    for entry in timeline {
        let _never_fails = write!(page, "  {:>8}  {}  {}", entry.index, moment::text(entry.at), printable(&entry.act));
        page.push_str(&format!("\n            {}\n", entry.leaf_sha256));
    }
    page.push_str(
        "\nThis page is for reading. The JSON form of this receipt has each entry as it was signed, with its\n\
         proof: `keyfleet audit verify-receipt FILE --verifier-key KEY`, where KEY is the log's public key.\n",
    );
    page
}

const fn title(end: OwnershipEnd) -> &'static str {
    match end {
        OwnershipEnd::Scrapped => "was scrapped",
        OwnershipEnd::Resold => "was sold on",
        OwnershipEnd::Returned => "was returned",
        OwnershipEnd::Stolen => "was reported stolen",
    }
}

fn fates(record: &EndedOwnership, wipe: Option<&str>) -> Vec<(&'static str, String)> {
    let device_keys = match record.device_keys.as_str() {
        "none" => "none was ever sent".to_owned(),
        "barred" => "barred: derived no more here; what could bring them back is named below".to_owned(),
        other => other.to_owned(),
    };
    let mut rows = vec![
        ("LDevIDs (this owner's)", format!("{} revoked", record.ldevids.len())),
        ("IDevID (its maker's)", record.idevid.clone()),
        ("device keys", device_keys),
        (
            "keys on the device itself",
            wipe.map_or("not ordered to be destroyed".to_owned(), |progress| said(record.order_act, progress)),
        ),
    ];
    if let Some(replacement) = &record.replacement {
        rows.push(("its place is taken by", replacement.to_string()));
    }
    if record.claimable {
        rows.push(("its next owner", "may claim it with the label".to_owned()));
    }
    rows
}

fn said(act: Option<OrderAct>, progress: &str) -> String {
    let done = match act {
        Some(OrderAct::FactoryReset) => "destroyed but for the IDevID",
        _ => "wiped",
    };
    match progress {
        "executed" => format!("{done}, as the device has signed"),
        "never-answered" => format!("ordered to be {done}; it never answered"),
        other => format!("ordered to be {done}; so far: {other}"),
    }
}
