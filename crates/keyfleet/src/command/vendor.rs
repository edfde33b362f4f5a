//! `keyfleet vendor`: devices made elsewhere, by the IDevIDs of their manufacturers.

mod rows;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use kf_api::PageRequest;
use kf_api::device::ImportReport;
use kf_api::vendor::{NewVendor, Vendor, VendorDevice, VendorImport};
use serde_json::json;

use crate::api::{Context, Paging, list, segment};
use crate::command::device::import::finish;
use crate::failure::Failure;
use crate::file;
use crate::output::{Names, object, say};

const COLUMNS: [&str; 5] = ["name", "subject", "not_after", "withdrawn", "id"];
const DEVICE_COLUMNS: [&str; 4] = ["identifier", "device", "certificate_sha256", "first_used"];
/// Rows in one call.
const ROWS_PER_CALL: usize = 2_000;
/// The most refused rows that are listed; all are counted.
const MAX_LISTED_ERRORS: usize = 1_000;

const IMPORT_EXAMPLES: &str = "\
CSV has the columns certificate (PEM, or base64 of DER), name and identifier, in any order; one of certificate and identifier
is enough. A row with a certificate binds the device to it. A row with an identifier alone, which is the serialNumber of
the certificate's subject, else its common name, is a line of an allow list: the first certificate of the vendor's that says
so and enrols becomes the only one.

Examples:
  keyfleet vendor create acme --anchor acme-root.pem
  keyfleet vendor import acme idevids.csv --facility lyon --product-line thermo --dry-run
  keyfleet vendor import microchip manifest.json --signer manifest-signer.pem --facility lyon --product-line thermo";

/// What can be done with manufacturers.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Trust a manufacturer's CA for the devices that are imported under it, and for no other
    Create {
        /// Unique name: a-z, 0-9, `-`, `.`, `_`
        name: String,
        /// Its CA certificate, PEM: the root, or the CA that issues its IDevIDs
        #[arg(long, value_name = "FILE")]
        anchor: PathBuf,
    },
    /// List manufacturers
    List {
        #[command(flatten)]
        paging: Paging,
    },
    /// Show a manufacturer
    Show {
        /// Name or id
        vendor: String,
    },
    /// List the devices that may bootstrap by a manufacturer's IDevIDs
    Devices {
        /// Name or id
        vendor: String,
        #[command(flatten)]
        paging: Paging,
    },
    /// Register devices with the IDevIDs that they may use
    Import(Import),
    /// End the trust: no IDevID of the manufacturer's bootstraps a device from now on
    Withdraw {
        /// Name or id
        vendor: String,
        /// Why, for the log
        #[arg(long, default_value = "")]
        why: String,
    },
}

/// What to import.
#[derive(Debug, Args)]
#[command(after_help = IMPORT_EXAMPLES)]
pub(crate) struct Import {
    /// Name or id of the manufacturer
    vendor: String,
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How it is written [default: by its name]
    #[arg(long)]
    form: Option<Form>,
    /// The certificate under which the entries of a manifest are signed, PEM
    #[arg(long, value_name = "FILE")]
    signer: Option<PathBuf>,
    /// Name or id of the facility that the devices join
    #[arg(long)]
    facility: String,
    /// Name or id of their product line
    #[arg(long)]
    product_line: String,
    /// Check every row, register nothing
    #[arg(long)]
    dry_run: bool,
}

/// Forms of files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// RFC 4180 with certificates or identifiers
    Csv,
    /// Microchip's manifest of pre-provisioned secure elements: a JSON array of signed entries
    Microchip,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api_within(Duration::from_secs(600))?;
    match verb {
        Verb::Create { name, anchor } => {
            let new = NewVendor { name, anchor_pem: file::read_text(&anchor)? };
            let made: Vendor = api.post("/v1/vendors", &new).await?;
            object(context.format, &made, &Names::new())
        }
        Verb::List { paging } => {
            list::<Vendor>(context, &mut api, "/v1/vendors", PageRequest::default(), &paging, &COLUMNS).await
        }
        Verb::Show { vendor } => {
            let found: Vendor = api.get(&format!("/v1/vendors/{}", segment(&vendor))).await?;
            object(context.format, &found, &Names::new())
        }
        Verb::Devices { vendor, paging } => {
            let path = format!("/v1/vendors/{}/devices", segment(&vendor));
            list::<VendorDevice>(context, &mut api, &path, PageRequest::default(), &paging, &DEVICE_COLUMNS).await
        }
        Verb::Withdraw { vendor, why } => {
            let path = format!("/v1/vendors/{}/withdraw", segment(&vendor));
            let found: Vendor = api.post(&path, &json!({"why": why})).await?;
            object(context.format, &found, &Names::new())
        }
        Verb::Import(import) => {
            let read = rows::read(&import.file, form_of(&import)?, import.signer.as_deref())?;
            let path = format!("/v1/vendors/{}/devices", segment(&import.vendor));
            let mut total = ImportReport {
                dry_run: import.dry_run,
                rows: u64::try_from(read.refused.len()).unwrap_or(u64::MAX),
                refused: u64::try_from(read.refused.len()).unwrap_or(u64::MAX),
                errors: read.refused,
                ..ImportReport::default()
            };
            for piece in read.rows.chunks(ROWS_PER_CALL) {
                let call = VendorImport {
                    facility: import.facility.clone(),
                    product_line: import.product_line.clone(),
                    source: read.source.clone(),
                    dry_run: import.dry_run,
                    rows: piece.iter().map(|(_, row)| row.clone()).collect(),
                };
                let report: ImportReport = match api.post(&path, &call).await {
                    Ok(report) => report,
                    Err(failure) => {
                        say(&format!("{} rows were answered; the same command goes on", total.rows));
                        return Err(failure);
                    }
                };
                add(&mut total, report, piece);
            }
            total.errors.sort_by_key(|error| error.row);
            total.errors.truncate(MAX_LISTED_ERRORS);
            finish(context, &total)
        }
    }
}

/// Adds a report, with the rows numbered as in the file.
fn add(total: &mut ImportReport, report: ImportReport, piece: &[(u64, kf_api::vendor::VendorRow)]) {
    total.rows += report.rows;
    total.registered += report.registered;
    total.already_there += report.already_there;
    total.refused += report.refused;
    for mut error in report.errors {
        let index = usize::try_from(error.row.saturating_sub(1)).unwrap_or(usize::MAX);
        error.row = piece.get(index).map_or(error.row, |(number, _)| *number);
        total.errors.push(error);
    }
}

fn form_of(import: &Import) -> Result<Form, Failure> {
    let by_name = || match import.file.extension().and_then(std::ffi::OsStr::to_str) {
        Some("csv") => Some(Form::Csv),
        Some("json") => Some(Form::Microchip),
        _ => None,
    };
    import.form.or_else(by_name).ok_or_else(|| {
        Failure::usage(
            format!("{} ends in neither .csv nor .json", import.file.display()),
            "give --form csv or --form microchip",
        )
    })
}
