//! People whom a supervisor admits without a ticket.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::scans::ScanReply;
use crate::door::{self, WalkUp};
use crate::error::Error;
use crate::fault::Fault;
use crate::limits::{CATEGORY, NAME, TICKET_NOTE, WALK_UPS};
use crate::model::{Millis, Place, Price, ScanResult, Text, Whole};
use crate::request::Call;
use crate::response::{self, Response, with_scan};

/// People to admit without a ticket.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct WalkUpRequest {
    /// The id of the first one's scan, any UUID, made by the device. A retry sends the same id and so admits nobody again. The scans
    /// of the others have the UUIDs (version 5) of the names `2`, `3` and so on in the namespace that this id is.
    scan_id: Uuid,
    /// Where they are admitted: the event's only gate when absent. A key that is bound to a gate overrides it.
    gate: Option<Place>,
    /// How many they are, 1 when absent. Each gets a ticket, with the next free number as its seat.
    count: Option<People>,
    /// The name on the tickets, of whoever pays.
    full_name: Option<Text<NAME>>,
    /// What kind of tickets they get.
    category: Option<Text<CATEGORY>>,
    /// What is to be known of them.
    note: Option<Text<TICKET_NOTE>>,
    /// What each of them paid, in the smallest unit of the event's currency; the event's price when absent.
    paid: Option<Price>,
    /// When the device made it, by its own clock. One further off than of a scan is not kept: it has the time of its receipt.
    scanned_at: Option<Millis>,
}

/// People who were admitted without a ticket, as a batch tells it.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "WalkUp"))]
pub(crate) struct WalkUpDetails {
    /// How many they were, 1 when absent.
    count: Option<People>,
    /// The name on the tickets.
    full_name: Option<Text<NAME>>,
    /// What kind of tickets they got.
    category: Option<Text<CATEGORY>>,
    /// What is to be known of them.
    note: Option<Text<TICKET_NOTE>>,
    /// What each of them paid, in the smallest unit of the event's currency; the event's price when absent.
    paid: Option<Price>,
}

impl WalkUpDetails {
    pub(super) fn read(self, scan_id: Uuid, gate: Option<Place>, scanned_at: Millis, offline: bool) -> WalkUp {
        WalkUp {
            scan_id,
            gate: gate.map(Place::into_string),
            count: self.count.map_or(1, |People(count)| count),
            full_name: self.full_name.map(|name| name.0),
            category: self.category.map(|category| category.0),
            note: self.note.map(|note| note.0),
            paid: self.paid.map(|paid| paid.0),
            scanned_at,
            offline,
        }
    }
}

/// A number of people who come together, from 1 to [`WALK_UPS`].
#[derive(Clone, Copy, Deserialize)]
#[serde(try_from = "Whole")]
pub(crate) struct People(usize);

impl TryFrom<Whole> for People {
    type Error = Fault;

    fn try_from(Whole(people): Whole) -> Result<Self, Fault> {
        let is_possible = (1..=WALK_UPS).contains(&people);
        let most = WALK_UPS as usize;
        is_possible.then_some(Self(people as usize)).ok_or(Fault::OutOfRange { least: 1, most })
    }
}

/// What became of them.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "WalkUpScans"))]
pub(crate) struct WalkUpReply {
    /// One scan with its ticket for each person. When the request was sent before they are those of then, each with its
    /// `result`: `accepted`, or `undone`.
    #[cfg_attr(test, schemars(length(min = 1, max = WALK_UPS)))]
    scans: Vec<ScanReply>,
}

/// `POST /api/events/{event}/walk-ups`.
pub async fn admit_walk_ups(call: Call<'_>) -> Result<Response, Error> {
    let body: WalkUpRequest = call.json()?;
    let WalkUpRequest { scan_id, gate, count, full_name, category, note, paid, scanned_at } = body;
    let details = WalkUpDetails { count, full_name, category, note, paid };
    let request = details.read(scan_id, gate, scanned_at.unwrap_or(call.now), false);
    let (event, caller) = (call.event().await?, call.caller()?);
    let scanned = door::admit(call.app, caller, &event, &request, call.now).await?;
    let scans: Vec<ScanReply> = scanned.into_iter().map(|scanned| ScanReply::new(scanned, caller)).collect();
    let result = scans.first().map_or(ScanResult::Accepted, |scan| scan.result);
    Ok(with_scan(response::json(StatusCode::OK, &WalkUpReply { scans })?, result))
}
