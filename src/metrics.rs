//! The metrics for Prometheus at `/metrics`.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Method, StatusCode};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::config::Settings;
use crate::model::{Millis, ScanResult};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ScanLabels {
    result: &'static str,
}

/// Upper bounds in seconds, from a scan on the same machine to the deadline of a request.
const LATENCY_BUCKETS: [f64; 10] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5];

/// The metrics of this process since it started.
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    latency: Family<RouteLabels, Histogram>,
    scans: Family<ScanLabels, Counter>,
    decided: AtomicU64,
    migrations_ok: Gauge,
    backup_last_success: Gauge,
    backup_last_sent: Gauge,
}

impl Metrics {
    /// Creates the metrics of a service with these settings.
    pub fn new(started_at: Millis, settings: &Settings) -> Self {
        let mut registry = Registry::default();
        let requests = Family::default();
        let latency = Family::new_with_constructor((|| Histogram::new(LATENCY_BUCKETS)) as fn() -> Histogram);
        let scans = Family::default();
        let started: Gauge = Gauge::default();
        let migrations_ok = Gauge::default();
        let (backup_last_success, backup_last_sent) = (Gauge::default(), Gauge::default());
        let ticket_secret_set: Gauge = Gauge::default();
        let start_time: Gauge<f64, AtomicU64> = Gauge::default();
        started.set(started_at.0);
        start_time.set(started_at.0 as f64 / 1_000.0);
        ticket_secret_set.set(settings.ticket_secret.is_some().into());
        registry.register("app_started_at", "When the process started, in milliseconds since 1970", started);
        let help = "When the process started, in seconds since 1970";
        registry.register("process_start_time_seconds", help, start_time);
        registry.register("migrations_ok", "Whether the schema is this release's", migrations_ok.clone());
        let help = "Whether TICKET_SECRET is set, without which a copy of the database can generate codes";
        registry.register("ticket_secret_set", help, ticket_secret_set);
        if settings.regular_backups().is_some() {
            let help = "When the newest backup was taken, in milliseconds since 1970, 0 without one";
            registry.register("backup_last_success", help, backup_last_success.clone());
            if settings.backup_command.is_some() {
                let help = "When BACKUP_COMMAND last succeeded, in milliseconds since 1970, 0 if not since the start";
                registry.register("backup_last_sent", help, backup_last_sent.clone());
            }
        }
        registry.register("http_requests", "Requests answered", Family::clone(&requests));
        registry.register("http_request_duration_seconds", "Time to the head of the response", latency.clone());
        registry.register("scans", "Scans by result", Family::clone(&scans));
        let decided = AtomicU64::default();
        Self { registry, requests, latency, scans, decided, migrations_ok, backup_last_success, backup_last_sent }
    }

    pub fn observe(&self, method: &Method, route: &'static str, status: StatusCode, elapsed: Duration) {
        let labels = RequestLabels { method: known_method(method), route, status: status.as_u16() };
        self.requests.get_or_create(&labels).inc();
        self.latency.get_or_create(&RouteLabels { route }).observe(elapsed.as_secs_f64());
    }

    /// Counts a newly decided scan. Replays do not count.
    pub fn count_scan(&self, result: ScanResult) {
        self.scans.get_or_create(&ScanLabels { result: result.as_str() }).inc();
        self.decided.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the number of scans decided since the process started, with any result.
    pub fn decided_scans(&self) -> u64 {
        self.decided.load(Ordering::Relaxed)
    }

    pub fn set_backup(&self, newest: Option<Millis>) {
        self.backup_last_success.set(newest.map_or(0, |newest| newest.0));
    }

    pub fn set_backup_sent(&self, now: Millis) {
        self.backup_last_sent.set(now.0);
    }

    /// Renders the metrics in OpenMetrics' text format.
    pub fn render(&self, migrations_ok: bool) -> String {
        self.migrations_ok.set(migrations_ok.into());
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

/// Converts OpenMetrics' text to Prometheus's own format, 0.0.4, in which the metadata of a counter has its full name, and no
/// line marks the end.
pub fn classic(openmetrics: &str) -> String {
    let counters: HashSet<&str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.strip_suffix(" counter")).collect();
    let mut text = String::with_capacity(openmetrics.len() + 64);
    for line in openmetrics.lines().filter(|line| *line != "# EOF") {
        let described = line.strip_prefix("# ").and_then(|line| line.split_once(' '));
        match described.and_then(|(what, rest)| Some((what, rest.split_once(' ')?))) {
            Some((what, (name, rest))) if counters.contains(name) => text += &format!("# {what} {name}_total {rest}\n"),
            _ => text += &format!("{line}\n"),
        }
    }
    text
}

/// Maps a method to a known name. Clients can invent methods, which must neither multiply the values of a label nor get into
/// the log.
pub fn known_method(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::OPTIONS => "OPTIONS",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_and_the_dashboard_ask_for_metrics_that_there_are() {
        let settings =
            Settings::read(|name| matches!(name, "BACKUP_DIR" | "BACKUP_COMMAND").then(|| "any".to_owned())).unwrap();
        let metrics = Metrics::new(Millis(0), &settings);
        metrics.observe(&Method::GET, "/", StatusCode::OK, Duration::ZERO);
        metrics.count_scan(ScanResult::Accepted);
        let text = classic(&metrics.render(true));
        for file in [include_str!("../monitoring/alerts.yml"), include_str!("../monitoring/grafana.json")] {
            let asked = file.split("{job=").map(|before| {
                let is_of_names = |character: char| character.is_ascii_lowercase() || character == '_';
                &before[before.trim_end_matches(is_of_names).len()..]
            });
            let asked: HashSet<_> = asked.filter(|name| !matches!(*name, "" | "up")).collect();
            assert!(asked.len() > 5, "{asked:?}");
            for name in asked {
                let family = format!("# TYPE {} ", name.trim_end_matches("_bucket"));
                assert!(text.contains(&family), "{name}: {text}");
            }
        }
    }
}
