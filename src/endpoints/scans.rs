//! Scans: the one decision at the gate, and its undo.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::tickets::attachment;
use crate::admission::{self, ATTEMPTS_WINDOW, Decision, Presented, Subject};
use crate::app::{App, with_scan};
use crate::auth::Caller;
use crate::error::Error;
use crate::model::{Direction, Millis, Place, Role, Scan, ScanResult, Slug, Status, Text, Ticket};
use crate::page::{self, PAGE};
use crate::request::Call;
use crate::response::{self, Response};
use crate::sheet;
use crate::store::{DEFAULT_EVENT, Mark, Recorded, ScanContext, TicketName};
use crate::totp::{Code, QrCode};

/// How often a scan whose ticket changed under it is decided again.
const TRIES: usize = 3;
/// How long after its receipt a scan can be undone.
const UNDO_WINDOW: i64 = 15 * Millis::MINUTE;

/// How old a scan in a batch may be.
const OFFLINE_OLDEST: i64 = 72 * Millis::HOUR;
/// How far the clock of a gate may be ahead.
const OFFLINE_AHEAD: i64 = 30 * Millis::SECOND;

/// A scan as a device sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ScanBody {
    scan_id: Uuid,
    code: Option<String>,
    seat: Option<Place>,
    gate: Option<Place>,
    totp_code: Option<String>,
    manual: Option<bool>,
    note: Option<Text<500>>,
    at_gate: Option<Place>,
    direction: Option<Direction>,
    pub(super) scanned_at: Option<Millis>,
    /// Only in a batch: what the gate decided.
    pub(super) offline_result: Option<ScanResult>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AttendanceBody {
    seat: Place,
    gate: Place,
    totp_code: String,
    event: Option<Slug>,
    scan_id: Option<Uuid>,
}

/// What was shown at a gate, understood.
pub(super) struct ScanRequest {
    pub(super) scan_id: Uuid,
    ticket: Shown,
    /// None when a supervisor vouches.
    code: Option<Code>,
    note: Option<String>,
    at_gate: Option<String>,
    direction: Direction,
    pub(super) scanned_at: Millis,
    /// What the gate decided by itself, while it was offline.
    offline_result: Option<ScanResult>,
}

enum Shown {
    Ticket(Uuid),
    Seat {
        seat: String,
        gate: String,
    },
    /// Something that is no code of ours.
    Nothing,
}

impl Shown {
    fn name(&self) -> TicketName<'_> {
        match self {
            Self::Ticket(ticket_id) => TicketName::Id(*ticket_id),
            Self::Seat { seat, gate } => TicketName::Seat { seat, gate },
            Self::Nothing => TicketName::None,
        }
    }

    /// A name for what was shown, by which a retry is recognised when there is no such ticket.
    fn claimed(&self) -> Uuid {
        match self {
            Self::Ticket(ticket_id) => *ticket_id,
            Self::Seat { seat, gate } => {
                let digest = Sha256::new().chain_update(seat).chain_update([0]).chain_update(gate).finalize();
                let mut bytes = [0; 16];
                bytes.copy_from_slice(&digest[..16]);
                Uuid::from_bytes(bytes)
            }
            Self::Nothing => Uuid::nil(),
        }
    }
}

impl ScanRequest {
    pub(super) fn read(body: ScanBody, now: Millis) -> Result<Self, Error> {
        let manual = body.manual == Some(true);
        let (ticket, code) = match (body.code, body.seat, body.gate, body.totp_code) {
            (Some(qr), None, None, None) if !manual => match QrCode::parse(&qr) {
                Some(qr) => (Shown::Ticket(qr.ticket_id), Some(qr.code)),
                None => (Shown::Nothing, Some(Code::Rotating(String::new()))),
            },
            (None, Some(seat), Some(gate), code) if code.is_some() != manual => {
                (Shown::Seat { seat: seat.into_string(), gate: gate.into_string() }, code.map(Code::Rotating))
            }
            _ => {
                let forms =
                    "send either `code`, or `seat`, `gate` and `totp_code`, or `seat`, `gate`, `manual` and `note`";
                return Err(Error::field("body", forms));
            }
        };
        if manual != body.note.is_some() {
            return Err(Error::field("note", "is required for a manual admission, and only for that"));
        }
        Ok(Self {
            scan_id: body.scan_id,
            ticket,
            code,
            note: body.note.map(|note| note.0),
            at_gate: body.at_gate.map(Place::into_string),
            direction: body.direction.unwrap_or(Direction::Entry),
            scanned_at: body.scanned_at.unwrap_or(now),
            offline_result: body.offline_result,
        })
    }

    /// Whether this caller may send this now. Asked after the replay, which any key of the event gets at any time.
    fn check(&self, caller: &Caller, now: Millis) -> Result<(), Error> {
        if self.manual() && !caller.role.holds(Role::Supervisor) {
            return Err(Error::Forbidden("Only a supervisor may admit without a code."));
        }
        let oldest = caller.created_at.unwrap_or(Millis(i64::MIN)).max(now.plus(-OFFLINE_OLDEST));
        if self.offline() && !(oldest..=now.plus(OFFLINE_AHEAD)).contains(&self.scanned_at) {
            let why = "must lie after the key's creation, within the last 72 h and not more than 30 s ahead";
            return Err(Error::field("scanned_at", why));
        }
        Ok(())
    }

    fn manual(&self) -> bool {
        self.code.is_none()
    }

    fn offline(&self) -> bool {
        self.offline_result.is_some()
    }
}

/// The answer to a scan, whatever its verdict.
#[derive(Serialize)]
pub(super) struct ScanReply {
    scan_id: Uuid,
    pub(super) result: ScanResult,
    message: String,
    ticket: Option<Ticket>,
    at_gate: Option<String>,
    direction: Direction,
    scanned_at: Millis,
    first_used_at: Option<Millis>,
    first_used_gate: Option<String>,
    right_gate: Option<String>,
    seconds_off: Option<i64>,
    replayed: bool,
    undone_at: Option<Millis>,
}

impl ScanReply {
    fn new(scan: Scan, ticket: Option<Ticket>, replayed: bool) -> Self {
        let right_gate = match (scan.result, &ticket) {
            (ScanResult::WrongGate, Some(ticket)) => Some(ticket.gate.clone()),
            _ => None,
        };
        Self {
            scan_id: scan.scan_id,
            result: scan.result,
            message: admission::message(scan.result, scan.direction, scan.seconds_off, right_gate.as_deref()),
            ticket,
            at_gate: scan.at_gate,
            direction: scan.direction,
            scanned_at: scan.scanned_at,
            first_used_at: scan.first_used_at,
            first_used_gate: scan.first_used_gate,
            right_gate,
            seconds_off: scan.seconds_off,
            replayed,
            undone_at: scan.undone_at,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        match self.result {
            ScanResult::Accepted => StatusCode::OK,
            ScanResult::AlreadyUsed | ScanResult::WrongGate | ScanResult::NotRegistered | ScanResult::NotInside => {
                StatusCode::CONFLICT
            }
            ScanResult::WrongCode | ScanResult::StaleCode => StatusCode::UNPROCESSABLE_ENTITY,
            ScanResult::Revoked => StatusCode::GONE,
            ScanResult::UnknownTicket => StatusCode::NOT_FOUND,
            ScanResult::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    fn respond(self) -> Result<Response, Error> {
        let result = self.result;
        let mut response = response::json(self.status(), &self)?;
        if result == ScanResult::TooManyAttempts {
            response.headers_mut().insert(header::RETRY_AFTER, (ATTEMPTS_WINDOW / Millis::SECOND).into());
        }
        Ok(with_scan(response, result))
    }
}

/// `POST /api/events/{event}/scans`.
pub async fn record_scan(call: Call<'_>) -> Result<Response, Error> {
    let body: ScanBody = call.json()?;
    if body.offline_result.is_some() {
        return Err(Error::field("offline_result", "is for batches only"));
    }
    let request = ScanRequest::read(body, call.now)?;
    let event = call.params.get("event").unwrap_or(DEFAULT_EVENT);
    scan(call.app, call.caller()?, event, &request, call.now).await?.respond()
}

/// `POST /api/users/attendance`: the same, by seat, gate and digits.
pub async fn record_attendance(call: Call<'_>) -> Result<Response, Error> {
    let body: AttendanceBody = call.json_or_form()?;
    let request = ScanRequest {
        scan_id: body.scan_id.unwrap_or_else(Uuid::now_v7),
        ticket: Shown::Seat { seat: body.seat.into_string(), gate: body.gate.into_string() },
        code: Some(Code::Rotating(body.totp_code)),
        note: None,
        at_gate: None,
        direction: Direction::Entry,
        scanned_at: call.now,
        offline_result: None,
    };
    let event = body.event.as_ref().map_or(DEFAULT_EVENT, |slug| slug.0.as_str());
    scan(call.app, call.caller()?, event, &request, call.now).await?.respond()
}

/// Decides one scan and writes it down. Reads, decides, writes only if the ticket is still what was read; otherwise
/// once more from the start.
pub(super) async fn scan(
    app: &App,
    caller: &Caller,
    event: &str,
    request: &ScanRequest,
    now: Millis,
) -> Result<ScanReply, Error> {
    // Scans of offline gates neither count towards the limit of attempts nor meet it.
    let refusals_since = if request.offline() { Millis(i64::MAX) } else { now.plus(-ATTEMPTS_WINDOW) };
    for _ in 0..TRIES {
        let context = app.store().read_scan(event, &request.ticket.name(), request.scan_id, refusals_since).await?;
        let Some(context) = context else {
            return Err(caller.found(None).err().unwrap_or(Error::EventNotFound));
        };
        caller.may_enter(context.event_id)?;
        if let Some(prior) = context.prior {
            return replay(prior, context.event_id, context.ticket, request);
        }
        request.check(caller, now)?;
        app.check_secret(context.secret_fingerprint.as_deref())?;
        let (scan, mark) = decide(app, caller, &context, request, now);
        let mut ticket = context.ticket;
        // `too_many_attempts` is not written down: it is no verdict.
        if scan.result == ScanResult::TooManyAttempts
            || app.store().record_scan(&scan, mark.as_ref(), refusals_since).await? == Recorded::Done
        {
            app.metrics.count_scan(scan.result);
            if let (Some(mark), Some(ticket)) = (mark, &mut ticket) {
                ticket.status = Status::Used;
                ticket.inside = mark.inside;
                ticket.used_at = ticket.used_at.or(Some(scan.decided_at));
            }
            return Ok(ScanReply::new(scan, ticket, false));
        }
    }
    Err(Error::ScanContended)
}

/// The first verdict again, when it is the same scan.
fn replay(prior: Scan, event_id: Uuid, ticket: Option<Ticket>, request: &ScanRequest) -> Result<ScanReply, Error> {
    let same_ticket = match prior.ticket_id {
        Some(ticket_id) => ticket.as_ref().is_some_and(|ticket| ticket.ticket_id == ticket_id),
        None => prior.presented == Some(request.ticket.claimed()),
    };
    if prior.event_id != event_id || prior.direction != request.direction || !same_ticket {
        return Err(Error::ScanIdConflict);
    }
    // A ticket that came into being after it was unknown is not part of that verdict.
    let ticket = ticket.filter(|_| prior.ticket_id.is_some());
    Ok(ScanReply::new(prior, ticket, true))
}

fn decide(
    app: &App,
    caller: &Caller,
    context: &ScanContext,
    request: &ScanRequest,
    now: Millis,
) -> (Scan, Option<Mark>) {
    let ticket = context.ticket.as_ref();
    let as_of = if request.offline() { request.scanned_at } else { now };
    let at_gate = caller.gate.as_ref().or(request.at_gate.as_ref());
    let subject = ticket.map(|ticket| subject(app, ticket, context, request));
    let presented = Presented {
        code: request.code.as_ref(),
        at_gate: at_gate.map(String::as_str),
        direction: request.direction,
        offline: request.offline(),
    };
    let mut decision = admission::decide(subject.as_ref(), &presented, as_of);
    // Whom the gate refused did not come in, so nothing is marked: its verdict stands.
    if let (ScanResult::Accepted, Some(own)) = (decision.result, request.offline_result)
        && own != ScanResult::Accepted
    {
        decision = Decision::refuse(own);
    }
    let used_before = ticket.filter(|_| decision.result == ScanResult::AlreadyUsed);
    let mark = ticket.filter(|_| decision.result == ScanResult::Accepted).map(|ticket| Mark {
        version: ticket.version,
        step: decision.step,
        inside: request.direction == Direction::Entry,
    });
    let scan = Scan {
        scan_id: request.scan_id,
        event_id: context.event_id,
        ticket_id: ticket.map(|ticket| ticket.ticket_id),
        presented: if ticket.is_none() { Some(request.ticket.claimed()) } else { None },
        at_gate: at_gate.cloned(),
        direction: request.direction,
        result: decision.result,
        offline_result: request.offline_result.map(|result| result.as_str().to_owned()),
        manual: request.manual(),
        note: request.note.clone(),
        seconds_off: decision.seconds_off,
        first_used_at: used_before.and_then(|ticket| ticket.used_at),
        first_used_gate: used_before.and(context.first_used_gate.clone()),
        scanned_at: request.scanned_at,
        received_at: now,
        decided_at: as_of,
        key_id: caller.key_id,
        undone_at: None,
        undone_by: None,
    };
    (scan, mark)
}

fn subject(app: &App, ticket: &Ticket, context: &ScanContext, request: &ScanRequest) -> Subject {
    Subject {
        key: app.secret.key_of(ticket.ticket_id, ticket.seed),
        gate: ticket.gate.clone(),
        status: ticket.status,
        registered: ticket.user_id.is_some(),
        inside: ticket.inside,
        printed: ticket.printed_at.is_some(),
        last_step: ticket.last_step,
        refusals: context.refusals,
        newest_accepted_at: context.newest_accepted_at.filter(|_| request.offline()),
        reentry: context.reentry,
    }
}

/// `POST /api/scans/{scan_id}/undo`: takes back a ticket's newest accepted scan, within 15 minutes.
pub async fn undo_scan(call: Call<'_>) -> Result<Response, Error> {
    let scan_id = call.id("scan_id", Error::ScanNotFound)?;
    let store = call.app.store();
    let caller = call.caller()?;
    let scan = store.get_scan(scan_id).await?.ok_or(Error::ScanNotFound)?;
    caller.may_enter(scan.event_id)?;
    let undone = store.undo_scan(scan_id, caller.key_id, call.now.plus(-UNDO_WINDOW), call.now).await?;
    let ticket = match undone.ticket_id {
        Some(ticket_id) => store.get_ticket(ticket_id).await?,
        None => None,
    };
    response::json(StatusCode::OK, &ScanReply::new(undone, ticket, false))
}

/// `GET /api/events/{event}/scans.csv`.
pub async fn export_scans(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let rows = scan_rows(Arc::clone(call.app), event.event_id);
    Ok(attachment(response::streamed("text/csv; charset=utf-8", rows), &format!("scans-{}.csv", event.slug)))
}

/// An event's scans as CSV, page by page. The command line writes the same.
pub fn scan_rows(app: Arc<App>, event_id: Uuid) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let read = move |after| {
        let app = Arc::clone(&app);
        async move { app.in_time(app.store().list_scans(event_id, after, PAGE)).await }
    };
    let mut writer = sheet::Writer::new(sheet::SCAN_COLUMNS);
    page::pages(read, |(scan, _): &(Scan, _)| (scan.received_at, scan.scan_id)).map(move |scans| {
        for (scan, place) in &scans? {
            writer.scan(scan, place.as_ref())?;
        }
        writer.take()
    })
}
