//! `keyfleet device release` and `keyfleet device claim`: from the factory to who installs the device.

use std::path::PathBuf;

use clap::Args;
use kf_api::ShownOnce;
use kf_api::label::{ClaimRequest, Label, ReleaseRequest, Released};
use kf_enrol::claim::{MAX_CLAIM_OCTETS, parse_claim};

use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Names, object, say};

const CLAIM_EXAMPLES: &str = "\
The label is read from a file or standard input, never from the command line: its code is a secret until the device is taken.
A scanner that types does as well as a decoder of pictures. Without --label it is asked for.

Examples:
  zbarimg --raw --quiet label.png | keyfleet device claim --label - --facility lyon
  keyfleet device claim --facility lyon          # then scan";

/// Which devices are let go.
#[derive(Debug, Args)]
pub(crate) struct Release {
    /// Name or id of a device
    #[arg(required_unless_present = "batch", conflicts_with = "batch")]
    device: Option<String>,
    /// Every device of this batch that is still at the batch's facility
    #[arg(long)]
    batch: Option<String>,
    /// Why, for the log
    #[arg(long, default_value = "")]
    why: String,
}

/// What is claimed.
#[derive(Debug, Args)]
#[command(after_help = CLAIM_EXAMPLES)]
pub(crate) struct Claim {
    /// The text of the label's QR code; `-` is standard input
    #[arg(long, value_name = "FILE")]
    label: Option<PathBuf>,
    /// Name or id of the facility that the device is to belong to
    #[arg(long)]
    facility: String,
}

pub(super) async fn release(context: &Context, release: Release) -> Result<(), Failure> {
    let Release { device, batch, why } = release;
    let released: Released = context.api()?.post("/v1/devices/release", &ReleaseRequest { device, batch, why }).await?;
    object(context.format, &released, &Names::new())
}

pub(super) async fn claim(context: &Context, claim: &Claim) -> Result<(), Failure> {
    let octets = match &claim.label {
        Some(path) => file::read_or_stdin(path)?,
        None => rpassword::prompt_password("Label: ")
            .map_err(|error| Failure::local(format!("the label cannot be read: {error}"), "give --label FILE"))?
            .into_bytes(),
    };
    let text = String::from_utf8(octets).unwrap_or_default();
    let uri = text.trim();
    let parsed = parse_claim(uri).map_err(|error| {
        Failure::usage(
            error.to_string(),
            format!("give the text of the label's QR code, keyfleet:claim?…, at most {MAX_CLAIM_OCTETS} octets"),
        )
    })?;
    // Exposed to be sent over TLS to the server that is to compare its hash.
    let code = ShownOnce::new(String::from_utf8_lossy(parsed.code.expose()).into_owned());
    let request = ClaimRequest {
        device: parsed.device.clone(),
        code,
        key_sha256: parsed.key_sha256.map(hex::encode),
        facility: claim.facility.clone(),
    };
    let label: Label = context.api()?.post("/v1/devices/claim", &request).await?;
    object(context.format, &label, &Names::new())?;
    say(&format!(
        "{} waits for the device: switch it on, and it belongs to {} once it has enrolled",
        parsed.device, claim.facility
    ));
    Ok(())
}
