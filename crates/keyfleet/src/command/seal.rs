//! `keyfleet seal`: a command for a device.

use std::path::PathBuf;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use kf_api::sealed::{SealAnswer, SealRequest};

use crate::api::Context;
use crate::failure::Failure;
use crate::file;
use crate::output::{Names, object, raw};

/// What to seal, and for whom.
#[derive(Debug, Args)]
pub(crate) struct Seal {
    /// Name or id of the device
    device: String,
    /// What for: the label that the device listens to, 1 to 16 characters of a-z, 0-9, `-`
    service: String,
    /// The plaintext, at most 16,384 octets; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// aes-128-ccm, aes-128-gcm or chacha20-poly1305: what the device was built with
    #[arg(long, default_value = "aes-128-ccm")]
    algorithm: String,
    /// What to bind the payload to, for example its topic; the device must give the same
    #[arg(long, value_name = "TEXT", default_value = "")]
    external_aad: String,
    /// Why, for the log; at most 500 characters
    #[arg(long, default_value = "")]
    why: String,
    /// Where to write the sealed payload [default: base64 on standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, seal: Seal) -> Result<(), Failure> {
    let Seal { device, service, file, algorithm, external_aad, why, out } = seal;
    file::must_be_free(out.as_deref())?;
    let plaintext = BASE64_STANDARD.encode(file::read_or_stdin(&file)?);
    let external_aad = BASE64_STANDARD.encode(external_aad);
    let request = SealRequest { device, service, plaintext, external_aad, algorithm, why };
    let answer: SealAnswer = context.api()?.post("/v1/seal", &request).await?;
    let Some(out) = out else {
        return match context.format {
            crate::output::Format::Table => raw(format!("{}\n", answer.envelope).as_bytes()),
            format => object(format, &answer, &Names::new()),
        };
    };
    let envelope = BASE64_STANDARD
        .decode(&answer.envelope)
        .map_err(|_not_base64| Failure::local("the server's answer is not base64", "update keyfleet or the server"))?;
    file::write_new(&out, &envelope)
}
