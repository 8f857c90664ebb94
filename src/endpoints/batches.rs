//! Batches of scans that an offline gate decided and sends once the network is back, and the conflicts among them: admissions
//! that the service would have refused.

use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::keys::find_key;
use super::scans::{ScanBody, ScanReply, decided_offline, decided_walk_up};
use super::walk_ups::WalkUpDetails;
use crate::auth::{Caller, proves};
use crate::door::{self, WalkUp};
use crate::error::Error;
use crate::fault::{Fault, FieldError};
use crate::gate::{ScanRequest, Shown, scan};
use crate::limits::{BATCH_SCANS, NOTE};
use crate::list::{self, PageQuery};
use crate::model::{Action, Direction, Event, Millis, Place, ScanResult, Slug, Text};
use crate::request::{Call, parse_object};
use crate::response::{self, Response};
use crate::store::Act;

/// Scans that a gate decided offline.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "BatchRequest"))]
pub(crate) struct BatchBody {
    // Each item is parsed separately, so that a malformed one does not reject the others.
    /// In any order: they apply in the order of `scanned_at`.
    #[cfg_attr(test, schemars(with = "Vec<ScanBody>", length(max = BATCH_SCANS)))]
    scans: Vec<Box<RawValue>>,
}

/// The results of a batch.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "BatchResult"))]
pub(crate) struct BatchReply {
    /// One entry for each scan of the request, in the order of the request.
    #[cfg_attr(test, schemars(with = "Vec<BatchResult>", length(max = BATCH_SCANS)))]
    results: Vec<Option<BatchResult>>,
}

/// The verdict on one scan of a batch, or why there is none.
#[derive(Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(inline))]
enum BatchResult {
    Decided(BatchVerdict),
    Refused(BatchRefusal),
}

/// A scan and the decision on it, with the status that it would have had as a single scan.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct BatchVerdict {
    #[serde(flatten)]
    reply: Box<ScanReply>,
    /// The HTTP status that this result has for a single scan.
    #[cfg_attr(test, schemars(extend("enum" = [200, 404, 409, 410, 422])))]
    status: u16,
}

/// An item that was refused without a decision. It changed nothing.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct BatchRefusal {
    /// The item's `scan_id`; null when it had no readable one.
    scan_id: Option<Uuid>,
    /// The HTTP status that this refusal has for a single scan.
    #[cfg_attr(test, schemars(extend("enum" = [403, 409, 422])))]
    status: u16,
    /// The stable name of the refusal.
    #[cfg_attr(test, schemars(extend("enum" = ["forbidden", "scan_id_conflict", "walk_ups_not_allowed", "event_forgotten", "invalid_payload"])))]
    code: &'static str,
    /// What is wrong with the item, for people.
    detail: String,
    /// The fields that were rejected. Absent when there are none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    errors: Vec<FieldError>,
}

/// `POST /api/events/{event}/scans/batch`: applies the scans in the order of `scanned_at`, each in its own transaction, and
/// answers in the order of the request. An interrupted batch is sent again whole: recorded scans are replayed, so each attempt
/// gets further, even if the batch has more wrong codes than a key may send at once.
pub async fn record_batch(call: Call<'_>) -> Result<Response, Error> {
    let caller = call.caller()?;
    if !caller.offline {
        return Err(Error::Forbidden("Only a key created with `offline` may send batches."));
    }
    let body: BatchBody = call.json()?;
    if body.scans.len() > BATCH_SCANS {
        return Err(Error::field("scans", Fault::TooManyScans { most: BATCH_SCANS }));
    }
    let event = call.event().await?;
    let read = |item: &RawValue| read_item(item, call.now).map_err(|error| (claimed_id(item.get()), error));
    let requests = body.scans.iter().map(|item| read(item)).collect();
    let results = decide_all(&call, caller, &event, requests).await?;
    response::json(StatusCode::OK, &BatchReply { results })
}

/// An item of a batch.
enum Item {
    Scan(ScanRequest),
    WalkUp(WalkUp),
}

impl Item {
    fn scan_id(&self) -> Uuid {
        match self {
            Self::Scan(request) => request.scan_id,
            Self::WalkUp(request) => request.scan_id,
        }
    }

    fn scanned_at(&self) -> Millis {
        match self {
            Self::Scan(request) => request.scanned_at,
            Self::WalkUp(request) => request.scanned_at,
        }
    }

    /// Decides the item; for people without a ticket, returns the verdict on the first person's scan.
    async fn decide(&self, call: &Call<'_>, device: &Caller, event: &Event) -> Result<ScanReply, Error> {
        let scanned = match self {
            Self::Scan(request) => scan(call.app, device, &event.slug, request, call.now).await?,
            Self::WalkUp(request) => {
                let admitted = door::admit(call.app, device, event, request, call.now).await?;
                admitted.into_iter().next().ok_or(Error::ScanContended)?
            }
        };
        Ok(ScanReply::new(scanned, device))
    }
}

/// Decides items in the order of `scanned_at`, and returns the results in the order of the items. An item that could not be
/// read has its id, if that was readable, and the reason.
async fn decide_all(
    call: &Call<'_>,
    device: &Caller,
    event: &Event,
    items: Vec<Result<Item, (Option<Uuid>, Error)>>,
) -> Result<Vec<Option<BatchResult>>, Error> {
    let mut results = Vec::with_capacity(items.len());
    let mut requests = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        match item {
            Ok(request) => {
                requests.push((index, request));
                results.push(None);
            }
            Err((scan_id, error)) => results.push(Some(refused(scan_id, error)?)),
        }
    }
    requests.sort_by_key(|(_, request)| request.scanned_at());
    for (index, request) in requests {
        let outcome = call.app.in_time(request.decide(call, device, event)).await;
        results[index] = Some(match outcome {
            Ok(reply) => BatchResult::Decided(BatchVerdict { status: reply.status().as_u16(), reply: Box::new(reply) }),
            Err(error) => refused(Some(request.scan_id()), error)?,
        });
    }
    Ok(results)
}

/// Scans from the file of a device that cannot send them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct HandedScans {
    /// The slug of the event, as in the file.
    event: Slug,
    /// In any order: they apply in the order of `scanned_at`.
    #[cfg_attr(test, schemars(length(max = BATCH_SCANS)))]
    scans: Vec<HandedScan>,
}

/// A scan as a device wrote it to its file, and the proof.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct HandedScan {
    /// The text of a JSON object, byte by byte as the device wrote it. The operation lists its members.
    scan: String,
    /// HMAC-SHA-256 of the lines `unsent scan`, key id, event and scan, keyed with the SHA-256 of the 32 bytes of the device's
    /// key, in base64url without padding.
    proof: String,
}

/// A scan in a device's file: it identifies the ticket, and contains neither a code nor a name.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WrittenScan {
    scan_id: Uuid,
    ticket_id: Option<Uuid>,
    vouched_by: Option<Uuid>,
    seat: Option<Place>,
    gate: Option<Place>,
    note: Option<Text<NOTE>>,
    walk_up: Option<WalkUpDetails>,
    at_gate: Option<Place>,
    direction: Direction,
    scanned_at: Millis,
    offline_result: ScanResult,
}

impl WrittenScan {
    fn read(self) -> Result<Item, Error> {
        decided_offline(self.offline_result)?;
        let (seat, gate) = (self.seat.map(Place::into_string), self.gate.map(Place::into_string));
        let named = (self.ticket_id, self.vouched_by, seat, gate, self.note);
        if let Some(details) = self.walk_up {
            if named != (None, None, None, None, None) || self.direction == Direction::Exit {
                return Err(Error::field("scan", Fault::NotAScan));
            }
            decided_walk_up(Some(self.offline_result))?;
            return Ok(Item::WalkUp(details.read(self.scan_id, self.at_gate, self.scanned_at, true)));
        }
        let shown = match named {
            (Some(ticket_id), None, None, None, None) => Shown::Ticket(ticket_id),
            (Some(ticket_id), Some(vouched_by), None, None, None) => Shown::OfParty { ticket_id, vouched_by },
            (None, None, Some(seat), Some(gate), None) => Shown::Seat { seat, gate, code: None },
            (None, None, Some(seat), Some(gate), Some(note)) => Shown::Vouched { seat, gate, note: note.0 },
            (None, None, None, None, None) => Shown::Nothing,
            _ => return Err(Error::field("scan", Fault::NotAScan)),
        };
        Ok(Item::Scan(ScanRequest {
            scan_id: self.scan_id,
            shown,
            at_gate: self.at_gate.map(Place::into_string),
            direction: self.direction,
            scanned_at: self.scanned_at,
            offline_result: Some(self.offline_result),
        }))
    }
}

/// `POST /api/keys/{key_id}/scans`: records scans from a device's file as scans of that device. By submitting them the organizer
/// consents to them.
pub async fn hand_in_scans(call: Call<'_>) -> Result<Response, Error> {
    let body: HandedScans = call.json()?;
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    let organizer = call.caller()?;
    let key = find_key(call.app, organizer, key_id).await?;
    if body.scans.len() > BATCH_SCANS {
        return Err(Error::field("scans", Fault::TooManyScans { most: BATCH_SCANS }));
    }
    let slug = &body.event.0;
    let event = organizer.open_event(call.app.store().find_event(slug).await?)?;
    let secrets = call.app.store().list_secrets(key_id).await?;
    let read = |HandedScan { scan, proof }: &HandedScan| {
        let proof = BASE64URL_NOPAD.decode(proof.as_bytes()).unwrap_or_default();
        if !secrets.iter().any(|hash| proves(hash, &proof, key_id, slug, scan)) {
            return Err((claimed_id(scan), Error::field("proof", Fault::NotOfThisKey)));
        }
        let written = parse_object::<WrittenScan>(scan.as_bytes()).map_err(|error| match error {
            Error::MalformedJson(_) => Error::field("scan", Fault::Unreadable),
            error => error,
        });
        written.and_then(WrittenScan::read).map_err(|error| (claimed_id(scan), error))
    };
    let requests: Vec<_> = body.scans.iter().map(read).collect();
    let device = Caller::absent(&key, call.now);
    let proven = requests.iter().filter(|request| request.is_ok()).count();
    if proven > 0 {
        // Recorded first, so that no scan exists without a record of who submitted it.
        let act = Act::new(Action::ScansHandedIn, event.event_id).subject(key_id).count(proven);
        call.app.store().record_action(call.author()?, &act).await?;
    }
    let results = decide_all(&call, &device, &event, requests).await?;
    response::json(StatusCode::OK, &BatchReply { results })
}

fn read_item(item: &RawValue, now: Millis) -> Result<Item, Error> {
    let body: ScanBody = parse_object(item.get().as_bytes()).map_err(|error| match error {
        // As part of the batch it was valid JSON; only its values cannot be read, such as `1e999` or a text that is not
        // Unicode.
        Error::MalformedJson(_) => Error::field("body", Fault::Unreadable),
        error => error,
    })?;
    let required = |field| Err(Error::field(field, Fault::Required));
    if body.scanned_at.is_none() {
        return required("scanned_at");
    }
    if body.offline_result.is_none() {
        return required("offline_result");
    }
    match body.read_walk_up(now)? {
        Some(walk_up) => Ok(Item::WalkUp(walk_up)),
        None => body.read(now).map(Item::Scan),
    }
}

/// Returns the id of an item that cannot be read as a whole, so that the gate can tell which one it was.
fn claimed_id(item: &str) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Named {
        scan_id: Uuid,
    }
    parse_object::<Named>(item.as_bytes()).ok().map(|named| named.scan_id)
}

/// Returns the refusal of one item, or the error if it concerns the whole batch, which is then sent again.
fn refused(scan_id: Option<Uuid>, error: Error) -> Result<BatchResult, Error> {
    let is_of_item = matches!(
        error,
        Error::Forbidden(_)
            | Error::ScanIdConflict
            | Error::WalkUpsNotAllowed
            | Error::EventForgotten
            | Error::InvalidPayload(_)
    );
    if !is_of_item {
        return Err(error);
    }
    Ok(BatchResult::Refused(BatchRefusal {
        scan_id,
        status: error.status().as_u16(),
        code: error.code(),
        detail: error.detail(),
        errors: error.errors().to_vec(),
    }))
}

/// `GET /api/events/{event}/conflicts`: offline admissions that the service refused, newest first.
pub async fn list_conflicts(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let event = call.event().await?;
    let after = query.after.map(|cursor| cursor.0);
    let conflicts = call.app.store().list_conflicts(event.event_id, after, query.limit.to_read()).await?;
    list::respond("conflicts", conflicts, query.limit, |conflict| conflict.scan.scan_id)
}
