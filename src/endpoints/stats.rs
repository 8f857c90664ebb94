//! The numbers of an evening.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;

use crate::error::Error;
#[cfg(test)]
use crate::model::Slug;
use crate::request::Call;
use crate::response::{self, Response};
use crate::store::{Arrivals, Counts, GateCounts};

/// The numbers of an event.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Stats"))]
pub(crate) struct EventStats {
    /// The event's slug.
    #[cfg_attr(test, schemars(with = "Slug"))]
    event: String,
    #[serde(flatten)]
    counts: Counts,
    /// Refused scans by reason. A reason without a refusal may be absent. `too_many_attempts` is not a verdict and is not counted.
    refused: BTreeMap<String, i64>,
    /// Scans that were undone.
    #[cfg_attr(test, schemars(range(min = 0)))]
    undone: i64,
    /// The same for each gate.
    gates: Vec<GateCounts>,
    /// Admissions by minute, in order of time.
    arrivals: Vec<Arrivals>,
}

/// `GET /api/events/{event}/stats`.
pub async fn show_stats(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let mut stats = call.app.store().stats(event.event_id).await?;
    // Sorted here, because the databases sort texts differently.
    stats.gates.sort_by(|a, b| a.gate.cmp(&b.gate));
    let sum = |count: fn(&Counts) -> i64| stats.gates.iter().map(|gate| count(&gate.counts)).sum();
    let counts = Counts {
        tickets: sum(|counts| counts.tickets),
        registered: sum(|counts| counts.registered),
        admitted: sum(|counts| counts.admitted),
        expected: sum(|counts| counts.expected),
        inside: sum(|counts| counts.inside),
    };
    let stats = EventStats {
        event: event.slug,
        counts,
        refused: stats.refused,
        undone: stats.undone,
        gates: stats.gates,
        arrivals: stats.arrivals,
    };
    response::json(StatusCode::OK, &stats)
}
