//! Health, metrics and the OpenAPI document.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderName, HeaderValue, StatusCode};
use once_cell::sync::OnceCell;
use serde::{Deserialize, Serialize};

use crate::app::{FullHealth, within};
use crate::backup;
use crate::error::Error;
use crate::limits::CLOCKS_APART;
use crate::metrics;
use crate::request::Call;
use crate::response::{self, Response};
use crate::store;

/// How long the result of a full check is cached.
const CACHED: Duration = Duration::from_secs(10);
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");

/// The process answers. This says nothing about the database.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct Health {
    /// Always `ok`.
    #[cfg_attr(test, schemars(extend("const" = "ok")))]
    status: &'static str,
    /// The service's version.
    version: &'static str,
    /// The commit that it was built from. Null if the build did not say.
    revision: Option<String>,
}

/// Which check to run.
#[derive(Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HealthQuery {
    /// `1` runs the full check; any other value, or none, returns the short answer.
    full: Option<String>,
}

/// `GET /health`: shows that the process answers and, with `?full=1`, whether the service can work.
pub async fn show_health(call: Call<'_>) -> Result<Response, Error> {
    let query: HealthQuery = call.query()?;
    if query.full.as_deref() != Some("1") {
        let (version, revision) = (env!("CARGO_PKG_VERSION"), call.app.settings.revision.clone());
        let health = Health { status: "ok", version, revision };
        let mut response = response::json(StatusCode::OK, &health)?;
        // The process's uptime in milliseconds, by which a client recognises a cold start.
        let uptime = format!("uptime;dur={}", call.app.started.elapsed().as_millis());
        response.headers_mut().extend(HeaderValue::try_from(uptime).ok().map(|uptime| (SERVER_TIMING, uptime)));
        return Ok(response);
    }
    let mut cached = call.app.health.0.lock().await;
    let health = match &*cached {
        Some((at, health)) if at.elapsed() < CACHED => health.clone(),
        _ => {
            let health = check(&call).await;
            *cached = Some((Instant::now(), health.clone()));
            health
        }
    };
    let status = if health.status == "ok" { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    response::json(status, &health)
}

async fn check(call: &Call<'_>) -> FullHealth {
    let word = |good: bool| if good { "ok" } else { "failed" };
    let health = ask_database(call)
        .await
        .inspect_err(|error| tracing::warn!(%error, "full health check: cannot query the database"));
    let backups = call.app.settings.regular_backups().map(|directory| {
        let is_empty = health.as_ref().is_ok_and(|health| health.empty);
        let checked = backup::regular::check(call.app, directory, is_empty);
        word(checked.inspect_err(|error| tracing::warn!("full health check: {error:#}")).is_ok())
    });
    // Without the database the rest is not known to have failed.
    let unknown = FullHealth {
        status: "failed",
        version: env!("CARGO_PKG_VERSION"),
        revision: call.app.settings.revision.clone(),
        database: "failed",
        migrations: "unchecked",
        clock: "unchecked",
        durability: "unchecked",
        writable: "unchecked",
        secret: "unchecked",
        secret_mark: None,
        backups,
    };
    let Ok(store::Health { migrated, now, durable, writable, .. }) = health else { return unknown };
    let mut known = FullHealth {
        database: "ok",
        migrations: word(migrated),
        clock: word(Duration::from_millis(now.0.abs_diff(call.app.now().0)) <= CLOCKS_APART),
        durability: word(durable),
        ..unknown
    };
    if migrated {
        known.writable = word(writable);
        (known.secret, known.secret_mark) = check_secret(call).await;
    } else {
        tracing::warn!("full health check: the schema is behind, run `register-ticket-api migrate`");
    }
    if !durable {
        tracing::warn!(
            "full health check: PostgreSQL runs with `fsync`, `full_page_writes` or `synchronous_commit` off"
        );
    }
    let FullHealth { migrations, clock, durability, writable, secret, .. } = known;
    let checks = [migrations, clock, durability, writable, secret, backups.unwrap_or("ok")];
    known.status = word(checks.iter().all(|check| *check == "ok"));
    known
}

/// Checks the database, with a shorter deadline than the request, so that the request is answered even if the database is not.
async fn ask_database(call: &Call<'_>) -> Result<store::Health, Error> {
    within(call.app.settings.db_timeout * 4 / 5, call.app.store().health()).await
}

/// Checks that `TICKET_SECRET` is the one of the database, and returns its mark. A database without registered tickets accepts
/// any, and has no mark.
async fn check_secret(call: &Call<'_>) -> (&'static str, Option<String>) {
    let warn = |error: &Error| tracing::warn!(error.code = error.code(), "full health check: TICKET_SECRET");
    let kept = within(call.app.settings.db_timeout / 5, call.app.store().kept_secrets()).await.inspect_err(warn);
    let Ok(kept) = kept else { return ("unchecked", None) };
    let fits = call.app.checked_secret(kept.secret_fingerprint.as_deref()).inspect_err(warn);
    (if fits.is_ok() { "ok" } else { "failed" }, call.app.secret_mark(&kept))
}

/// `GET /metrics`: in Prometheus' text format, or in OpenMetrics if the client accepts it.
pub async fn show_metrics(call: Call<'_>) -> Result<Response, Error> {
    call.caller()?.must_be_unbound()?;
    let health = ask_database(&call).await;
    let text = call.app.metrics.render(health.is_ok_and(|health| health.migrated));
    if response::accepts(&call.parts.headers, ACCEPT, "application/openmetrics-text") {
        let media_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        return Ok(response::whole(StatusCode::OK, media_type, text));
    }
    Ok(response::whole(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", metrics::classic(&text)))
}

/// `GET /openapi.json`.
pub async fn show_openapi(call: Call<'_>) -> Result<Response, Error> {
    /// Shared by all requests: clients that request it and do not read it must not hold a copy each.
    static PLAIN: OnceCell<Bytes> = OnceCell::new();
    let document = Bytes::from_static(include_bytes!(concat!(env!("OUT_DIR"), "/openapi.json.gz")));
    let plain = |gzip: &[u8]| PLAIN.get_or_try_init(|| response::gunzip(gzip)).cloned();
    response::compressed(&call.parts.headers, StatusCode::OK, "application/json", document, plain)
}
