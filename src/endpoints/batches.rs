//! Scans that a gate decided by itself while it was offline, sent when the network is back; and those of them that the
//! service would have refused.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::scans::{ScanBody, ScanReply};
use crate::error::Error;
use crate::gate::{ScanRequest, scan};
use crate::limits::BATCH_SCANS;
use crate::list::{self, PageQuery};
use crate::model::Millis;
use crate::request::{Call, parse_object};
use crate::response::{self, Response};

/// Each item is read by itself, so that one that is wrong does not keep the others out.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchBody {
    scans: Vec<Box<RawValue>>,
}

#[derive(Serialize)]
struct BatchReply {
    results: Vec<Option<BatchResult>>,
}

/// The verdict on one scan of a batch, or why it could not have one.
#[derive(Serialize)]
#[serde(untagged)]
enum BatchResult {
    Decided {
        #[serde(flatten)]
        reply: Box<ScanReply>,
        status: u16,
    },
    Refused {
        scan_id: Option<Uuid>,
        status: u16,
        code: &'static str,
        detail: String,
    },
}

/// `POST /api/events/{event}/scans/batch`: applied in the order of `scanned_at`, each in its own transaction, answered
/// in the order of the request. A batch that breaks off is sent again whole: what was written is replayed.
pub async fn record_batch(call: Call<'_>) -> Result<Response, Error> {
    let caller = call.caller()?;
    if !caller.offline {
        return Err(Error::Forbidden("Only a key made with `offline` may send batches."));
    }
    let body: BatchBody = call.json()?;
    if body.scans.len() > BATCH_SCANS {
        return Err(Error::field("scans", format!("must hold at most {BATCH_SCANS} scans")));
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
                let reply = Box::new(ScanReply::new(scanned));
                BatchResult::Decided { status: reply.status().as_u16(), reply }
            }
            Err(error) => refused(Some(request.scan_id), error)?,
        });
    }
    response::json(StatusCode::OK, &BatchReply { results })
}

fn read_item(item: &RawValue, now: Millis) -> Result<ScanRequest, Error> {
    let body: ScanBody = parse_object(item.get().as_bytes())?;
    let required = |field| Err(Error::field(field, "is required in a batch"));
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

/// A refusal that concerns one item. A failure, and JSON that is none, concern the whole batch.
fn refused(scan_id: Option<Uuid>, error: Error) -> Result<BatchResult, Error> {
    if error.status().is_server_error() || matches!(error, Error::MalformedJson(_)) {
        return Err(error);
    }
    Ok(BatchResult::Refused { scan_id, status: error.status().as_u16(), code: error.code(), detail: error.detail() })
}

/// `GET /api/events/{event}/conflicts`: whom gates admitted offline and should not have, the newest first.
pub async fn list_conflicts(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let event = call.event().await?;
    let after = query.after.map(|cursor| cursor.0);
    let conflicts = call.app.store().list_conflicts(event.event_id, after, query.limit.to_read()).await?;
    list::respond("conflicts", conflicts, query.limit, |conflict| conflict.scan_id)
}
