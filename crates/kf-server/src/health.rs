//! Liveness and readiness.

use bytes::Bytes;
use http::StatusCode;

use crate::app::App;
use crate::reply::{Reply, reply};

const TEXT: &str = "text/plain; charset=utf-8";

/// The process answers.
pub(crate) fn live() -> Reply {
    reply(StatusCode::OK, TEXT, Bytes::from_static(b"ok\n"))
}

/// The server can do its work; otherwise 503 and one reason per line.
pub(crate) async fn ready(app: &App) -> Reply {
    let reasons = app.fleet.not_ready().await;
    if reasons.is_empty() {
        return reply(StatusCode::OK, TEXT, Bytes::from_static(b"ready\n"));
    }
    reply(StatusCode::SERVICE_UNAVAILABLE, TEXT, reasons.join("\n") + "\n")
}
