//! Metrics: counted by whoever does the work through the `metrics` facade, gauges asked from the fleet when somebody
//! looks. The names are those of the manual; no label ever holds a device.

use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use metrics::{Counter, counter};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use crate::app::App;
use crate::surface::Surface;

/// Seconds; from an answer out of memory to a slow signer.
const BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0, 10.0];

/// The recorder of this process. It is one per process because the facade has one; a second server in the same process
/// (only tests do that) shares it.
pub(crate) fn install() -> Option<PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder =
                PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &BUCKETS).ok()?;
            let recorder = builder.build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).ok()?;
            Some(handle)
        })
        .clone()
}

/// Counters of answered requests, found once: looking one up by its labels costs as much as an answer from memory.
pub(crate) struct Requests(Vec<(&'static str, [Counter; 4])>);

impl Requests {
    /// To be called once the recorder is installed.
    pub(crate) fn new() -> Self {
        let counters = |surface| {
            let one = |status| counter!("keyfleet_http_requests_total", "surface" => surface, "status" => status);
            (surface, ["2xx", "3xx", "4xx", "5xx"].map(one))
        };
        Self(Surface::NAMES.into_iter().map(counters).collect())
    }

    /// One request was answered.
    pub(crate) fn count(&self, surface: &'static str, status: StatusCode, spent: Duration) {
        let class = usize::from((status.as_u16() / 100).clamp(2, 5)) - 2;
        let counters = self.0.iter().find(|(name, _)| *name == surface);
        if let Some(counter) = counters.and_then(|(_, classes)| classes.get(class)) {
            counter.increment(1);
        }
        if matches!(surface, "est-simpleenroll" | "est-simplereenroll" | "est-serverkeygen") {
            metrics::histogram!("keyfleet_enrol_seconds", "operation" => surface).record(spent.as_secs_f64());
        }
    }
}

/// A request or connection ended in a panic.
pub(crate) fn panicked() {
    metrics::counter!("keyfleet_panics_total").increment(1);
}

/// A connection was opened (`1.0`) or closed (`-1.0`).
pub(crate) fn connections(listener: &'static str, change: f64) {
    metrics::gauge!("keyfleet_connections", "listener" => listener).increment(change);
}

/// A waiting connection was closed to make room for another.
pub(crate) fn cut_for_another() {
    metrics::counter!("keyfleet_connections_cut_total").increment(1);
}

/// A handshake ended well, in this group of key exchange.
pub(crate) fn handshake(group: &'static str) {
    metrics::counter!("keyfleet_tls_handshakes_total", "group" => group).increment(1);
}

/// A handshake failed.
pub(crate) fn handshake_failed() {
    metrics::counter!("keyfleet_tls_handshakes_failed_total").increment(1);
}

/// Everything, in the text format of Prometheus.
pub(crate) async fn render(app: &App) -> String {
    for (name, labels, value) in app.fleet.gauges().await {
        let labels: Vec<metrics::Label> =
            labels.into_iter().map(|(key, value)| metrics::Label::new(key, value)).collect();
        metrics::gauge!(name, labels).set(value);
    }
    // Histograms are folded here too, because nothing else runs the recorder's upkeep.
    app.metrics.run_upkeep();
    app.metrics.render()
}
