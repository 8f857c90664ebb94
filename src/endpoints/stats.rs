//! Statistics of an event.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

use http::StatusCode;
use serde::Serialize;

use super::manifest::Heard;
use crate::error::Error;
use crate::fold;
use crate::limits::{CATEGORIES, KEY_ATTEMPTS};
#[cfg(test)]
use crate::model::{Capacity, Currency, Place, Price, Slug, Text};
use crate::model::{Millis, Role};
use crate::request::Call;
use crate::response::{self, Response};
use crate::store::{Arrivals, CountedGroup, Counts, GuessingKey};
use uuid::Uuid;

/// The statistics of an event.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Stats"))]
pub(crate) struct EventStats<'a> {
    /// The event's slug.
    #[cfg_attr(test, schemars(with = "Slug"))]
    event: String,
    /// When they were counted; they include everything before. That is now, except for events with
    /// [`crate::limits::LARGE_EVENT`] tickets and scans or more, whose statistics are cached for ten times as long as
    /// counting took, and at least a second.
    as_of: Millis,
    #[serde(flatten)]
    counts: Counts,
    /// Refused scans by reason. A reason without a refusal may be absent. `too_many_attempts` is not a verdict and is not
    /// counted.
    refused: &'a BTreeMap<String, i64>,
    /// Scans that were undone.
    #[cfg_attr(test, schemars(range(min = 0)))]
    undone: i64,
    /// The statistics of each gate.
    gates: Vec<GateCounts>,
    /// The statistics of each category, if tickets have categories: the ones with the most tickets, at most
    /// [`crate::limits::CATEGORIES`].
    categories: Vec<CategoryCounts>,
    /// How many people the venue holds; null if the event does not say.
    #[cfg_attr(test, schemars(with = "Option<Capacity>"))]
    capacity: Option<i64>,
    /// Whether supervisors may admit people without a ticket.
    takes_walk_ups: bool,
    /// What each of them pays, in the smallest unit of `currency`; null if the event has no price.
    #[cfg_attr(test, schemars(with = "Option<Price>"))]
    walk_up_price: Option<i64>,
    /// The currency of `walk_up_price` and `cash` (ISO 4217); null if the event has none.
    #[cfg_attr(test, schemars(with = "Option<Currency>"))]
    currency: Option<String>,
    /// Admissions by minute, in chronological order.
    arrivals: &'a [Arrivals],
    /// The keys with [`crate::limits::GUESSES_NOTED`] or more refused codes within the last
    /// [`crate::limits::GUESSES_SHOWN`], those with the most first. Only for organizers and supervisors.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Vec<Guessing>"))]
    guessing: Option<Vec<Guessing>>,
}

/// The statistics of one gate.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct GateCounts {
    /// The gate.
    #[cfg_attr(test, schemars(with = "Place"))]
    gate: String,
    #[serde(flatten)]
    counts: Counts,
}

/// The statistics of one category.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct CategoryCounts {
    /// The category; null for the tickets without one.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::CATEGORY }>>"))]
    category: Option<String>,
    #[serde(flatten)]
    counts: Counts,
}

/// A key that seems to be used to guess codes.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "GuessingKey"))]
struct Guessing {
    /// The key; null for `ORGANIZER_KEY`.
    key_id: Option<Uuid>,
    /// Its name, if it has one.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::KEY_NAME }>>"))]
    name: Option<String>,
    /// The gate that it is bound to, if any.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    gate: Option<String>,
    /// Its refused codes within the last [`crate::limits::GUESSES_SHOWN`].
    #[cfg_attr(test, schemars(range(min = 0)))]
    refused_codes: i64,
    /// Whether so many were refused within the last [`crate::limits::ATTEMPTS_WINDOW`] that its codes are not checked now.
    limited: bool,
}

impl From<&GuessingKey> for Guessing {
    fn from(key: &GuessingKey) -> Self {
        let limited = key.within_window >= KEY_ATTEMPTS;
        let (name, gate) = (key.name.clone(), key.gate.clone());
        Self { key_id: key.key_id, name, gate, refused_codes: key.refused_codes, limited }
    }
}

/// Merges counts whose names read the same, under the spelling with the most tickets; returns the `most` names with the most
/// tickets, in reading order.
fn as_read<'a>(groups: impl Iterator<Item = (&'a str, &'a Counts)>, most: usize) -> Vec<(String, Counts)> {
    let mut groups: Vec<_> = groups.collect();
    groups.sort_by(|(one, counts), (other, others)| others.tickets.cmp(&counts.tickets).then(one.cmp(other)));
    let mut read: Vec<(String, Counts)> = Vec::new();
    let mut indexes = HashMap::new();
    for (name, counts) in groups {
        let index = *indexes.entry(fold::place(name)).or_insert(read.len());
        if index == read.len() {
            read.push((name.to_owned(), Counts::default()));
        }
        read[index].1.add(counts);
    }
    read.sort_by_key(|(_, counts)| Reverse(counts.tickets));
    read.truncate(most);
    read.sort_by(|(one, _), (other, _)| fold::order(one, other));
    read
}

/// Returns the counts by category, which include tickets without one, unless no ticket has one.
fn by_category(groups: &[CountedGroup]) -> Vec<CategoryCounts> {
    if groups.iter().all(|group| group.category.is_none()) {
        return Vec::new();
    }
    let counted = groups.iter().map(|group| (group.category.as_deref().unwrap_or_default(), &group.counts));
    let named = |(name, counts): (String, Counts)| CategoryCounts {
        category: Some(name).filter(|name| !name.is_empty()),
        counts,
    };
    as_read(counted, CATEGORIES).into_iter().map(named).collect()
}

/// `GET /api/events/{event}/stats`.
pub async fn show_stats(call: Call<'_>) -> Result<Response, Error> {
    // Finding the event has the usual deadline; only counting may take longer.
    let event = call.app.in_time(call.event()).await?;
    let caller = call.caller()?;
    // A device without a list sends no other request before it scans, so this one shows that it is alive.
    if caller.role.is_of_a_device() && !caller.offline {
        Heard { key_id: caller.key_id, unsent: None }.note(call.app).await;
    }
    let count = call.app.store().stats(event.event_id, call.now);
    let counted = call.app.numbers.of(event.event_id, call.now, count).await?;
    let stats = &counted.stats;
    let mut counts = Counts::default();
    stats.groups.iter().for_each(|group| counts.add(&group.counts));
    let gates = as_read(stats.groups.iter().map(|group| (group.gate.as_str(), &group.counts)), usize::MAX);
    let is_told = caller.role.holds(Role::Supervisor);
    let stats = EventStats {
        event: event.slug,
        as_of: counted.as_of,
        counts,
        refused: &stats.refused,
        undone: stats.undone,
        gates: gates.into_iter().map(|(gate, counts)| GateCounts { gate, counts }).collect(),
        categories: by_category(&stats.groups),
        capacity: event.capacity,
        takes_walk_ups: event.walk_ups,
        walk_up_price: event.walk_up_price,
        currency: event.currency,
        arrivals: &stats.arrivals,
        guessing: is_told.then(|| stats.guessing.iter().map(Guessing::from).collect()),
    };
    response::json(StatusCode::OK, &stats)
}
