//! What a campaign would take, for people and for scripts.

use kf_api::campaign::{CampaignForecast, CampaignLoad, LoadPoint};
use serde::Serialize;

use super::show;
use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, say};

const COLUMNS: [&str; 5] = ["from_seconds", "until_seconds", "wave", "requests_per_second", "signatures_per_second"];

/// Lengths of time in which the same comes.
#[derive(Serialize)]
struct Stretch {
    from_seconds: u64,
    until_seconds: u64,
    wave: u64,
    requests_per_second: String,
    signatures_per_second: String,
}

/// The estimate, and below it the load over time.
pub(super) fn print(context: &Context, forecast: &CampaignForecast) -> Result<(), Failure> {
    if context.format != Format::Table {
        return object(context.format, forecast, &Names::new());
    }
    show(context, &forecast.estimate, &Names::new())?;
    load(context, &forecast.load)
}

/// The load over time as a table, and the verdict.
pub(super) fn load(context: &Context, load: &CampaignLoad) -> Result<(), Failure> {
    // Times at which nothing comes say nothing: nights between waves, a campaign of devices that all sleep.
    let is_some = |point: &&LoadPoint| point.requests_per_second > 0.0 || point.signatures_per_second > 0.0;
    let stretches = stretches(load.points.iter().filter(is_some));
    if stretches.is_empty() {
        say("\nno load: no device matches, or none that does was heard of within thirty days");
        return Ok(());
    }
    say("\nload on average; where no time is listed nothing comes");
    let mut listing = Listing::new(context.format, &COLUMNS);
    listing.rows(&stretches, &Names::new())?;
    listing.end(None)?;
    let CampaignLoad { peak_requests_per_second: requests, peak_signatures_per_second: signatures, .. } = load;
    say(&format!(
        "at most {} requests and {} signatures a second where devices come when they like",
        rate(*requests),
        rate(*signatures)
    ));
    let CampaignLoad { pushed_requests_per_second: requests, pushed_signatures_per_second: signatures, .. } = load;
    say(&format!(
        "at most {} requests and {} signatures a second where all act at once",
        rate(*requests),
        rate(*signatures)
    ));
    let of_requests = match load.capacity_requests_per_second {
        Some(most) => format!("{most:.0} requests and "),
        None => String::new(),
    };
    let (signatures, from) = (load.capacity_signatures_per_second, &load.capacity_from);
    say(&format!("this server bears {of_requests}{signatures:.0} signatures a second ({from})"));
    if !load.fits {
        say("that is more than it bears: lower --per-minute");
    }
    if load.waits_at_gate {
        say("so many devices sleep that a gate will stay shut until somebody opens it: see --min-done and --patience");
    }
    Ok(())
}

/// Points that follow each other and say the same as one.
fn stretches<'a>(points: impl Iterator<Item = &'a LoadPoint>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for point in points {
        let next = Stretch {
            from_seconds: point.from_seconds,
            until_seconds: point.from_seconds + point.seconds,
            wave: point.wave,
            requests_per_second: rate(point.requests_per_second),
            signatures_per_second: rate(point.signatures_per_second),
        };
        match stretches.last_mut() {
            Some(last)
                if last.until_seconds == next.from_seconds
                    && last.wave == next.wave
                    && last.requests_per_second == next.requests_per_second
                    && last.signatures_per_second == next.signatures_per_second =>
            {
                last.until_seconds = next.until_seconds;
            }
            _ => stretches.push(next),
        }
    }
    stretches
}

/// Something that comes so often in a second; what comes more rarely than can be shown is not nothing.
fn rate(per_second: f64) -> String {
    if per_second > 0.0 && per_second < 0.001 { "<0.001".to_owned() } else { format!("{per_second:.3}") }
}
