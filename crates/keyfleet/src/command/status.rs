//! `keyfleet status` and `keyfleet whoami`.

use std::time::{Duration, Instant};

use clap::Args;
use kf_api::operator::WhoAmI;
use kf_api::status::{FleetStatus, Issuance};

use crate::api::{Context, names_for};
use crate::failure::Failure;
use crate::moment;
use crate::output::{Format, Names, object, printable, raw};

/// Between two attempts to reach a server that is starting.
const ATTEMPT_EVERY: Duration = Duration::from_millis(100);

/// What is waited for.
#[derive(Debug, Args)]
pub(crate) struct Status {
    /// Wait for a server that is starting, at most this long
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=600))]
    wait: Option<u64>,
}

pub(crate) async fn run(context: &Context, asked: &Status) -> Result<(), Failure> {
    let status = match asked.wait {
        None => context.api()?.get("/v1/status").await?,
        Some(seconds) => once_it_answers(context, Duration::from_secs(seconds)).await?,
    };
    match context.format {
        Format::Table => raw(for_people(&status).as_bytes()),
        other => object(other, &status, &Names::new()),
    }
}

/// Asks until the server answers. Only a server that cannot be reached is waited for: whoever else listens at its address, or
/// refuses this caller, will do so as well in a minute.
async fn once_it_answers(context: &Context, limit: Duration) -> Result<FleetStatus, Failure> {
    let begun = Instant::now();
    loop {
        let left = limit.saturating_sub(begun.elapsed());
        let answer = context.api_within(left.max(ATTEMPT_EVERY))?.get("/v1/status").await;
        match answer {
            Err(failure) if failure.is_unreachable() && left > ATTEMPT_EVERY => tokio::time::sleep(ATTEMPT_EVERY).await,
            answer => return answer,
        }
    }
}

/// The state as lines, what needs a person last.
fn for_people(status: &FleetStatus) -> String {
    let issuance = match &status.issuance {
        Issuance::Running => "running".to_owned(),
        Issuance::Stopped(why) => format!("STOPPED: {why}"),
        Issuance::StoreFull => "STOPPED: the store is full".to_owned(),
        Issuance::Fenced(why) => format!("FENCED: {why}"),
    };
    let devices: Vec<String> = status.devices.iter().map(|(state, count)| format!("{count} {state}")).collect();
    let (good, held, revoked) = status.certificates;
    let mut lines = vec![
        ("fleet", status.fleet.clone()),
        ("version", status.version.clone()),
        ("issuance", issuance),
        ("devices", devices.join(", ")),
        ("certificates", format!("{good} good, {held} held, {revoked} revoked")),
        ("log", format!("{} entries", status.log_size)),
        (
            "witness",
            if status.witness { "yes" } else { "NONE: a rollback of the database cannot be noticed" }.to_owned(),
        ),
        ("control", if status.single_control { "single (delayed acts)" } else { "dual" }.to_owned()),
        ("signer", if status.signer_up { "up" } else { "DOWN" }.to_owned()),
        ("delivery key", format!("sha256 {}", status.delivery_key_sha256)),
        ("order key", format!("sha256 {}", status.order_key_sha256)),
        ("next CRL", status.crl_next_update.map_or_else(|| "-".to_owned(), moment::text)),
    ];
    lines.extend(status.warnings.iter().map(|warning| ("WARNING", warning.clone())));
    lines.iter().map(|(what, value)| format!("{what:14}{}\n", printable(value))).collect()
}

pub(crate) async fn who_am_i(context: &Context) -> Result<(), Failure> {
    let mut api = context.api()?;
    let who: WhoAmI = api.get("/v1/whoami").await?;
    let names = if who.facilities.is_empty() {
        Names::new()
    } else {
        names_for(context.format, &mut api, &["facilities"]).await
    };
    object(context.format, &who, &names)
}
