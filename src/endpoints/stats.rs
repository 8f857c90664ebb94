//! The numbers of an evening.

use std::collections::BTreeMap;

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use http::StatusCode;
use serde::Serialize;

use crate::error::Error;
use crate::fold;
use crate::limits::{ATTEMPTS_WINDOW, GUESSES_NOTED, GUESSES_SHOWN, KEY_ATTEMPTS};
use crate::model::Role;
#[cfg(test)]
use crate::model::{Place, Slug, Text};
use crate::request::Call;
use crate::response::{self, Response};
use crate::store::{Arrivals, Counts, GateCounts, GuessingKey};
use uuid::Uuid;

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
    /// The keys whose codes were refused [`crate::limits::GUESSES_NOTED`] times or more within the last
    /// [`crate::limits::GUESSES_SHOWN`], the most first. Only for organizers and supervisors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Vec<Guessing>"))]
    guessing: Option<Vec<Guessing>>,
}

/// A key with which somebody seems to try codes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "GuessingKey"))]
struct Guessing {
    /// The key; null for the key of the environment.
    key_id: Option<Uuid>,
    /// Its name, when it has one.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::KEY_NAME }>>"))]
    name: Option<String>,
    /// The gate that it is bound to, if any.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    gate: Option<String>,
    /// Its refused codes within the last [`crate::limits::GUESSES_SHOWN`].
    #[cfg_attr(test, schemars(range(min = 0)))]
    refused_codes: i64,
    /// Whether it made so many within the last [`crate::limits::ATTEMPTS_WINDOW`] that none of its codes is looked at now.
    limited: bool,
}

impl From<GuessingKey> for Guessing {
    fn from(key: GuessingKey) -> Self {
        let limited = key.within_window >= KEY_ATTEMPTS;
        Self { key_id: key.key_id, name: key.name, gate: key.gate, refused_codes: key.refused_codes, limited }
    }
}

/// The gates in the order in which people look for them; those that people read as the same are one, by the name that most of
/// its tickets have.
fn as_read(mut gates: Vec<GateCounts>) -> Vec<GateCounts> {
    gates.sort_by(|one, other| one.counts.tickets.cmp(&other.counts.tickets).reverse().then(one.gate.cmp(&other.gate)));
    let mut read: Vec<GateCounts> = Vec::with_capacity(gates.len());
    let mut places = HashMap::new();
    for gate in gates {
        match places.entry(fold::place(&gate.gate)) {
            Entry::Vacant(place) => {
                place.insert(read.len());
                read.push(gate);
            }
            Entry::Occupied(place) => read[*place.get()].counts.add(&gate.counts),
        }
    }
    read.sort_by(|one, other| fold::order(&one.gate, &other.gate));
    read
}

/// `GET /api/events/{event}/stats`.
pub async fn show_stats(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let store = call.app.store();
    let mut stats = store.stats(event.event_id).await?;
    let guessing = if call.caller()?.role.holds(Role::Supervisor) {
        let (shown, window) = (call.now - GUESSES_SHOWN, call.now - ATTEMPTS_WINDOW);
        let keys = store.list_guessing_keys(event.event_id, shown, window, call.now, GUESSES_NOTED).await?;
        Some(keys.into_iter().map(Guessing::from).collect())
    } else {
        None
    };
    stats.gates = as_read(stats.gates);
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
        guessing,
    };
    response::json(StatusCode::OK, &stats)
}
