//! What a campaign would take, for people and for scripts.

use kf_api::campaign::{CampaignForecast, CampaignLoad, LoadPoint};

use super::show;
use crate::api::Context;
use crate::failure::Failure;
use crate::output::{Format, Listing, Names, object, say};

const COLUMNS: [&str; 5] = ["from_seconds", "seconds", "wave", "requests_per_second", "signatures_per_second"];

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
    let points: Vec<&LoadPoint> = load.points.iter().filter(is_some).collect();
    if points.is_empty() {
        say("\nno load: no device matches, or none that does was heard of within thirty days");
        return Ok(());
    }
    say("\nload, on average within each length of time; where none is listed nothing comes");
    let mut listing = Listing::new(context.format, &COLUMNS);
    listing.rows(&points, &Names::new())?;
    listing.end(None)?;
    let CampaignLoad { peak_requests_per_second: requests, peak_signatures_per_second: signatures, .. } = load;
    say(&format!(
        "at most {requests:.3} requests and {signatures:.3} signatures a second where devices come when they like"
    ));
    let CampaignLoad { pushed_requests_per_second: requests, pushed_signatures_per_second: signatures, .. } = load;
    say(&format!("at most {requests:.3} requests and {signatures:.3} signatures a second where all act at once"));
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
