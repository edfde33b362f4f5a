//! `keyfleet label`: labels of devices that passed, as sheets or for a label printer.

use std::path::PathBuf;

use clap::{Args, ValueEnum};
use kf_station::label::sheet_pdf;

use super::directory::StationDirectory;
use crate::failure::Failure;
use crate::file;
use crate::output::say;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// Sheets of 24, A4
    Pdf,
    /// For a label printer of 203 dots per inch, 50 × 25 mm
    Zpl,
    /// One label
    Svg,
    /// The QR code of one label
    Png,
}

/// Print the labels of devices that passed: a QR code with the claim, and the one-time code to type
#[derive(Debug, Args)]
pub(crate) struct Label {
    /// The station's directory
    #[arg(long, value_name = "DIR")]
    state: PathBuf,
    /// The batch, by name or id
    #[arg(long)]
    batch: String,
    /// One device only; needed for svg and png
    #[arg(long)]
    device: Option<String>,
    /// In which form
    #[arg(long, value_enum, default_value_t = Form::Pdf)]
    form: Form,
    /// Where to write it (mode 0600): a label is a secret until it is claimed
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub(crate) fn run(label: &Label) -> Result<(), Failure> {
    let Label { state, batch, device, form, out } = label;
    file::must_be_free(Some(out))?;
    let directory = StationDirectory::open(state)?.batch(batch)?.labels()?;
    let mut labels = directory.ready().map_err(|error| Failure::file("read", state, error))?;
    if let Some(device) = device {
        labels.retain(|label| label.name() == device);
    }
    let failed = |error: kf_station::label::LabelError| {
        Failure::local(crate::failure::chain_of(&error), "use a shorter server name, or print fewer labels at once")
    };
    let octets = match (form, labels.as_slice()) {
        (_, []) => {
            return Err(Failure::usage(
                "there is no such label",
                "labels are kept for devices that passed; see the recipe",
            ));
        }
        (Form::Pdf, labels) => sheet_pdf(labels).map_err(failed)?,
        (Form::Zpl, labels) => labels.iter().map(kf_station::label::Label::to_zpl).collect::<String>().into_bytes(),
        (Form::Svg, [one]) => one.to_svg().map_err(failed)?.into_bytes(),
        (Form::Png, [one]) => one.to_png().map_err(failed)?,
        (Form::Svg | Form::Png, _) => {
            return Err(Failure::usage("svg and png hold one label", "name the device with --device"));
        }
    };
    file::write_private(out, &octets)?;
    say(&format!("{} labels written to {}", labels.len(), out.display()));
    Ok(())
}
