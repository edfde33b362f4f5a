//! What happens, as it happens: the log, followed.
//!
//! An answer comes as soon as something has happened, and ends; whoever wants more asks again from there. As `text/event-stream` that
//! is what the standard calls reconnecting, and every client of it does so by itself. Nobody holds a place here for longer than
//! half a minute, and each answer is given to whoever is allowed to see it at that moment.

use axum::extract::{FromRequestParts as _, State};
use http::header::ACCEPT;
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use kf_api::Page;
use kf_api::audit::{AuditRecord, EventFilter};

use super::extract::{AppState, Asked, Caller};
use super::{Answer, app, of, ok};
use crate::failure::Failure;

/// HTML, section 9.2: "server-sent events".
const EVENT_STREAM: &str = "text/event-stream";
const LAST_EVENT_ID: &str = "last-event-id";
/// Milliseconds after which a client of event streams asks again.
const RETRY: u32 = 100;

pub(super) async fn follow(State(state): State<AppState>, mut parts: Parts) -> Answer {
    let Caller(who) = Caller::from_request_parts(&mut parts, &state).await?;
    let Asked(mut filter) = Asked::<EventFilter>::from_request_parts(&mut parts, &state).await?;
    if let Some(last) = last_event_id(&parts.headers)? {
        filter.after = Some(last);
    }
    let app = app(&state)?;
    let place = app.follower_place()?;
    let mut stop = app.stop.clone();
    let page = tokio::select! {
        page = app.fleet.audit_follow(&who, filter.clone()) => page?,
        // A sender that is gone is as good as a stop.
        _ = stop.wait_for(|stop| *stop) => Page { items: Vec::new(), next: filter.after },
    };
    drop(place);
    // A token may have been withdrawn meanwhile.
    Caller::from_request_parts(&mut parts, &state).await?;
    if wants_stream(&parts.headers) {
        return Ok(of(StatusCode::OK, EVENT_STREAM, stream_of(&page)?.into_bytes()));
    }
    ok(&page)
}

/// Where a client of event streams stood; it comes after what stands in the address, which such a client cannot change.
fn last_event_id(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let Some(value) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let text = value.to_str().ok().filter(|text| text.parse::<u64>().is_ok());
    let text = text.ok_or_else(|| {
        Failure::invalid("Last-Event-ID", "it is not a place in the log", "send the `id` of the last event, or nothing")
    })?;
    Ok(Some(text.to_owned()))
}

fn wants_stream(headers: &HeaderMap) -> bool {
    headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).any(|value| value.contains(EVENT_STREAM))
}

/// One event per entry, by its index; its name is the act. Entries are JSON on one line, so that nothing in them can begin a
/// line of the stream.
fn stream_of(page: &Page<AuditRecord>) -> Result<String, Failure> {
    let mut text = format!("retry: {RETRY}\n\n");
    for record in &page.items {
        let data = serde_json::to_string(&record.entry).map_err(|error| {
            tracing::error!(%error, "an entry of the log could not be encoded");
            Failure::internal()
        })?;
        let act = record.entry.get("act").and_then(serde_json::Value::as_str);
        let act = act.filter(|act| act.bytes().all(|byte| byte.is_ascii_graphic()));
        text.push_str(&format!("id: {}\nevent: {}\ndata: {data}\n\n", record.index, act.unwrap_or("message")));
    }
    if page.items.is_empty()
        && let Some(next) = &page.next
    {
        // No event, but the place moves.
        text.push_str(&format!("id: {next}\n\n"));
    }
    Ok(text)
}
