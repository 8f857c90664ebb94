//! The numbers of an evening.

use std::collections::BTreeMap;

use http::StatusCode;
use serde::Serialize;

use crate::error::Error;
use crate::request::Call;
use crate::response::{self, Response};
use crate::store::{Arrivals, Counts, GateCounts};

#[derive(Serialize)]
struct EventStats {
    event: String,
    #[serde(flatten)]
    counts: Counts,
    refused: BTreeMap<String, i64>,
    undone: i64,
    gates: Vec<GateCounts>,
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
