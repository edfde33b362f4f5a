//! `keyfleet code`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use kf_api::enrolment::{Code, CodeRequest, NewCode};
use kf_key::CodeId;
use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

use crate::api::{Context, segment};
use crate::failure::Failure;
use crate::file;
use crate::moment;
use crate::output::{Format, Listing, Names, object, raw, say, to_value};

const COLUMNS: [&str; 5] = ["id", "device", "expires", "used", "withdrawn"];

/// What can be done with one-time enrolment codes.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a code for a registered device; it is shown once, earlier unused ones are withdrawn
    Create(Create),
    /// List the codes of a device
    List {
        /// Name or id of the device
        device: String,
    },
    /// Withdraw a code
    Withdraw {
        /// Identifier, `code_...`
        code: CodeId,
    },
}

/// A code to be made.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Name or id of the device
    device: String,
    /// Lifetime in hours, 1 to 8,760; 168 (a week) when absent
    #[arg(long, value_name = "HOURS")]
    lifetime_hours: Option<u32>,
    /// Write the code here (mode 0600) instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Draw the label's QR code on standard error
    #[arg(long)]
    qr: bool,
    /// Write the label's QR code here (mode 0600), SVG
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

pub(crate) async fn run(context: &Context, verb: Verb) -> Result<(), Failure> {
    let mut api = context.api()?;
    match verb {
        Verb::Create(create) => {
            file::must_be_free(create.out.as_deref())?;
            file::must_be_free(create.svg.as_deref())?;
            let request = CodeRequest { device: create.device.clone(), lifetime_hours: create.lifetime_hours };
            let made: NewCode = api.post("/v1/codes", &request).await?;
            show_once(context, &made, &create)
        }
        Verb::List { device } => {
            let codes: Vec<Code> = api.get(&format!("/v1/codes?device={}", segment(&device))).await?;
            let mut listing = Listing::new(context.format, &COLUMNS);
            listing.rows(&codes, &Names::new())?;
            listing.end(None)
        }
        Verb::Withdraw { code } => {
            api.delete(&format!("/v1/codes/{code}")).await?;
            say(&format!("{code} is withdrawn"));
            Ok(())
        }
    }
}

fn show_once(context: &Context, made: &NewCode, create: &Create) -> Result<(), Failure> {
    say(&format!("code {} for {}, valid until {}", made.id, made.device_name, moment::text(made.expires)));
    if let Some(svg) = &create.svg {
        file::write_private(svg, drawing(made)?.as_bytes())?;
        say(&format!("label written to {}", svg.display()));
    }
    if create.qr {
        say(&label(made)?);
    }
    if let Some(out) = &create.out {
        return keep(context, made, out);
    }
    match context.format {
        // Exposed to the person who asked for it, once.
        Format::Table => raw(format!("{}\n", made.code.expose()).as_bytes()),
        other => object(other, made, &Names::new()),
    }
}

fn keep(context: &Context, made: &NewCode, out: &Path) -> Result<(), Failure> {
    // Exposed to the file that the person chose for it.
    file::write_private(out, made.code.expose().as_bytes())?;
    say(&format!("written to {}; it is not shown again", out.display()));
    let mut facts = to_value(made)?;
    if let Some(fields) = facts.as_object_mut() {
        fields.remove("code");
        fields.remove("claim_uri");
    }
    object(context.format, &facts, &Names::new())
}

fn matrix(made: &NewCode) -> Result<QrCode, Failure> {
    // Exposed to the label: the QR code is the code.
    QrCode::new(made.claim_uri.expose()).map_err(|error| {
        Failure::local(
            format!("the label does not fit a QR code: {error}"),
            "use a shorter server name, or print the code",
        )
    })
}

/// Half blocks, two rows of modules a line, with the quiet zone of four modules (ISO/IEC 18004).
fn label(made: &NewCode) -> Result<String, Failure> {
    let code = matrix(made)?;
    // Most terminals are dark: a light module is what the terminal prints, a dark one is its background.
    let (light, dark) = (Dense1x2::Dark, Dense1x2::Light);
    Ok(code.render::<Dense1x2>().quiet_zone(true).light_color(light).dark_color(dark).build())
}

/// The same matrix as SVG, drawn here: one path, no styles, so that it passes any content security policy.
fn drawing(made: &NewCode) -> Result<String, Failure> {
    let code = matrix(made)?;
    let width = code.width();
    let side = width + 8;
    let mut path = String::new();
    for (index, color) in code.to_colors().into_iter().enumerate() {
        if color == qrcode::Color::Dark {
            path.push_str(&format!("M{} {}h1v1h-1z", index % width + 4, index / width + 4));
        }
    }
    Ok(format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {side} {side}\" shape-rendering=\"crispEdges\">\
         <title>{}</title><rect width=\"{side}\" height=\"{side}\" fill=\"#fff\"/><path d=\"{path}\"/></svg>\n",
        made.device_name.replace(['<', '>', '&'], "?")
    ))
}

#[cfg(test)]
mod tests {
    use kf_api::ShownOnce;
    use kf_key::{DeviceId, UnixMillis};

    use super::*;

    fn code() -> NewCode {
        NewCode {
            id: CodeId::from_parts(UnixMillis(1), [0; 10]),
            device: DeviceId::from_parts(UnixMillis(1), [0; 10]),
            device_name: "thermo-0001".to_owned(),
            code: ShownOnce::new("ABCD-EFGH".to_owned()),
            claim_uri: ShownOnce::new("keyfleet:claim?x=1".to_owned()),
            expires: UnixMillis(2),
        }
    }

    #[test]
    fn a_label_is_one_dark_path_in_a_quiet_zone() {
        let svg = drawing(&code()).unwrap();
        assert!(
            svg.contains("viewBox=\"0 0 33 33\"") && svg.contains("M4 4h1v1h-1z") && !svg.contains("style"),
            "{svg}"
        );
        // The finder pattern's corner: the first dark module lies right behind four light ones.
        assert!(label(&code()).unwrap().lines().count() >= 16);
    }
}
