//! Scans that a gate decided by itself while it was offline, sent when the network is back; and those of them that the
//! service would have refused.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::scans::{ScanBody, ScanReply};
use crate::error::Error;
use crate::fault::{Fault, FieldError};
use crate::gate::{ScanRequest, scan};
use crate::limits::BATCH_SCANS;
use crate::list::{self, PageQuery};
use crate::model::Millis;
use crate::request::{Call, parse_object};
use crate::response::{self, Response};

/// Scans that a gate decided without the service.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "BatchRequest"))]
pub(crate) struct BatchBody {
    // Each item is read by itself, so that one that is wrong does not keep the others out.
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

/// The verdict on one scan of a batch, or why it could not have one.
#[derive(Serialize)]
#[serde(untagged)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(inline))]
enum BatchResult {
    Decided(BatchVerdict),
    Refused(BatchRefusal),
}

/// The scan and the decision on it, with the status it would have had alone.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct BatchVerdict {
    #[serde(flatten)]
    reply: Box<ScanReply>,
    /// The HTTP status that this result has for a single scan.
    #[cfg_attr(test, schemars(extend("enum" = [200, 404, 409, 410, 422])))]
    status: u16,
}

/// An item that was refused without a decision. It has changed nothing.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct BatchRefusal {
    /// The item's `scan_id`; null when it had none that could be read.
    scan_id: Option<Uuid>,
    /// The HTTP status that this refusal has for a single scan.
    #[cfg_attr(test, schemars(extend("enum" = [403, 409, 422])))]
    status: u16,
    /// The stable name of the refusal.
    #[cfg_attr(test, schemars(extend("enum" = ["forbidden", "scan_id_conflict", "invalid_payload"])))]
    code: &'static str,
    /// What is wrong with the item, for people.
    detail: String,
    /// The fields that were refused. Absent when there is none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[cfg_attr(test, schemars(length(min = 1)))]
    errors: Vec<FieldError>,
}

/// `POST /api/events/{event}/scans/batch`: applied in the order of `scanned_at`, each in its own transaction, answered
/// in the order of the request. A batch that breaks off is sent again whole: what was written is replayed, and so each time
/// it comes further, even when it holds more wrong codes than a key may send at once.
pub async fn record_batch(call: Call<'_>) -> Result<Response, Error> {
    let caller = call.caller()?;
    if !caller.offline {
        return Err(Error::Forbidden("Only a key made with `offline` may send batches."));
    }
    let body: BatchBody = call.json()?;
    if body.scans.len() > BATCH_SCANS {
        return Err(Error::field("scans", Fault::TooManyScans { most: BATCH_SCANS }));
    }
    let event = call.event().await?;

    let mut results = Vec::with_capacity(body.scans.len());
    let mut requests = Vec::with_capacity(body.scans.len());
    for (place, item) in body.scans.iter().enumerate() {
        match read_item(item, call.now) {
            Ok(request) => {
                requests.push((place, request));
                results.push(None);
            }
            Err(error) => results.push(Some(refused(claimed_id(item), error)?)),
        }
    }
    requests.sort_by_key(|(_, request)| request.scanned_at);
    for (place, request) in requests {
        let outcome = call.app.in_time(scan(call.app, caller, &event.slug, &request, call.now)).await;
        results[place] = Some(match outcome {
            Ok(scanned) => {
                let reply = Box::new(ScanReply::new(scanned, caller));
                BatchResult::Decided(BatchVerdict { status: reply.status().as_u16(), reply })
            }
            Err(error) => refused(Some(request.scan_id), error)?,
        });
    }
    response::json(StatusCode::OK, &BatchReply { results })
}

fn read_item(item: &RawValue, now: Millis) -> Result<ScanRequest, Error> {
    let body: ScanBody = parse_object(item.get().as_bytes()).map_err(|error| match error {
        // As a part of the batch it was JSON; only its values cannot be read, such as `1e999`, or a text that is not Unicode.
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
    body.read(now)
}

/// The id of an item that cannot be read whole, so that the gate can tell which one it was.
fn claimed_id(item: &RawValue) -> Option<Uuid> {
    #[derive(Deserialize)]
    struct Named {
        scan_id: Uuid,
    }
    parse_object::<Named>(item.get().as_bytes()).ok().map(|named| named.scan_id)
}

/// A refusal that concerns one item. Any other concerns the whole batch, which is sent again.
fn refused(scan_id: Option<Uuid>, error: Error) -> Result<BatchResult, Error> {
    if !matches!(error, Error::Forbidden(_) | Error::ScanIdConflict | Error::InvalidPayload(_)) {
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

/// `GET /api/events/{event}/conflicts`: whom gates admitted offline and should not have, the newest first.
pub async fn list_conflicts(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let event = call.event().await?;
    let after = query.after.map(|cursor| cursor.0);
    let conflicts = call.app.store().list_conflicts(event.event_id, after, query.limit.to_read()).await?;
    list::respond("conflicts", conflicts, query.limit, |conflict| conflict.scan_id)
}
