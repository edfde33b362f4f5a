//! `keyfleet exposure`: what a stolen key exposes, for one or several periods side by side.

use clap::Args;
use kf_key::UnixMillis;
use kf_rotation::Period;
use kf_rotation::exposure::{Exposed, Impersonation};
use serde::Serialize;

use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Format, Listing, Names};

const EXAMPLES: &str = "\
A key serves for a period, is stolen at some moment of it, and the theft is answered a while later. What was protected
under the key until then, or until the end of the period, is exposed. A row for each period; docs/manual/rotation.md
has the formula and what it leaves out.

Examples:
  # A sensor that sends 20 octets a second: rotate daily, monthly, or never in ten years?
  keyfleet exposure --octets-per-second 20 --detection 7d --period 1d --period 30d --period 10y
  # The same key on 100,000 devices
  keyfleet exposure --octets-per-second 20 --detection 7d --period 30d --devices 100000
  # For how long does a stolen device pass for itself, if relying parties accept a CRL for a day?
  keyfleet exposure --detection 7d --validity 90d --validity 10y --freshness 1d";

/// What is asked.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Exposure {
    /// How long a key serves before its successor takes over; repeat to compare
    #[arg(long, value_name = "PERIOD", required_unless_present = "validity")]
    period: Vec<Period>,
    /// From the theft of a key to the answer
    #[arg(long, value_name = "PERIOD")]
    detection: Period,
    /// Octets that one device protects in a second
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    octets_per_second: f64,
    /// Devices that share the key
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    devices: u64,
    /// The share of devices that are offline when a rotation is due, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, requires = "offline_gap")]
    offline_share: f64,
    /// For how much longer an offline device goes on with the old key
    #[arg(long, value_name = "PERIOD", requires = "offline_share")]
    offline_gap: Option<Period>,
    /// Validity of a certificate whose key is stolen; repeat to compare
    #[arg(long, value_name = "PERIOD")]
    validity: Vec<Period>,
    /// The age of a CRL or OCSP answer that relying parties accept; without it they ask for none
    #[arg(long, value_name = "PERIOD", requires = "validity")]
    freshness: Option<Period>,
}

/// One answer. Times are in seconds, so that scripts need no unit.
#[derive(Serialize)]
struct Row {
    kind: &'static str,
    serves: Period,
    expected_seconds: f64,
    worst_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_octets: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worst_octets: Option<f64>,
    /// Whether the thief is still unnoticed when the successor is made.
    #[serde(skip_serializing_if = "Option::is_none")]
    outlived: Option<bool>,
}

/// What a table shows: rounded, with units.
#[derive(Serialize)]
struct Readable {
    kind: &'static str,
    serves: Period,
    expected: String,
    worst: String,
    expected_data: String,
    worst_data: String,
}

pub(crate) fn run(context: &Context, exposure: &Exposure) -> Result<(), Failure> {
    let mut rows = Vec::new();
    for period in &exposure.period {
        rows.push(key(exposure, *period)?);
    }
    for validity in &exposure.validity {
        rows.push(certificate(exposure, *validity)?);
    }
    if context.format != Format::Table {
        let columns =
            ["kind", "serves", "expected_seconds", "worst_seconds", "expected_octets", "worst_octets", "outlived"];
        let mut listing = Listing::new(context.format, &columns);
        listing.rows(&rows, &Names::new())?;
        return listing.end(None);
    }
    let columns = ["kind", "serves", "expected", "worst", "expected_data", "worst_data"];
    let mut listing = Listing::new(context.format, &columns);
    listing.rows(&rows.iter().map(readable).collect::<Vec<_>>(), &Names::new())?;
    listing.end(None)
}

fn key(asked: &Exposure, period: Period) -> Result<Row, Failure> {
    let exposed = Exposed {
        octets_per_second: asked.octets_per_second,
        sharing_devices: asked.devices,
        period: period.milliseconds(),
        detection: asked.detection.milliseconds(),
        offline_share: asked.offline_share,
        offline_gap: asked.offline_gap.map_or(0, Period::milliseconds),
    };
    let answer =
        exposed.exposure().map_err(|error| Failure::usage(error.to_string(), "see `keyfleet exposure --help`"))?;
    Ok(Row {
        kind: "key",
        serves: period,
        expected_seconds: seconds(answer.expected_time),
        worst_seconds: seconds(answer.worst_time),
        expected_octets: Some(answer.expected_octets),
        worst_octets: Some(answer.worst_octets),
        outlived: Some(answer.outlived),
    })
}

fn certificate(asked: &Exposure, validity: Period) -> Result<Row, Failure> {
    let stolen = Impersonation {
        validity: validity.milliseconds(),
        detection: asked.detection.milliseconds(),
        freshness: asked.freshness.map(Period::milliseconds),
    };
    let (expected, worst) =
        stolen.window().map_err(|error| Failure::usage(error.to_string(), "see `keyfleet exposure --help`"))?;
    Ok(Row {
        kind: "certificate",
        serves: validity,
        expected_seconds: seconds(expected),
        worst_seconds: seconds(worst),
        expected_octets: None,
        worst_octets: None,
        outlived: None,
    })
}

fn readable(row: &Row) -> Readable {
    Readable {
        kind: row.kind,
        serves: row.serves,
        expected: time(row.expected_seconds),
        worst: time(row.worst_seconds),
        expected_data: row.expected_octets.map_or_else(String::new, data),
        worst_data: row.worst_octets.map_or_else(String::new, data),
    }
}

fn seconds(milliseconds: f64) -> f64 {
    milliseconds / f64::from(u32::try_from(UnixMillis::SECOND).unwrap_or(1_000))
}

fn time(seconds: f64) -> String {
    scaled(seconds, &[(365.0 * 86_400.0, "y"), (86_400.0, "d"), (3_600.0, "h"), (60.0, "m"), (1.0, "s")])
}

fn data(octets: f64) -> String {
    scaled(octets, &[(1e12, " TB"), (1e9, " GB"), (1e6, " MB"), (1e3, " kB"), (1.0, " B")])
}

/// A number in the largest unit of which there is one at least.
fn scaled(number: f64, units: &[(f64, &str)]) -> String {
    let fits = units.iter().find(|(size, _)| number >= *size).or(units.last());
    fits.map_or_else(|| number.to_string(), |(size, name)| format!("{:.1}{name}", number / size))
}
