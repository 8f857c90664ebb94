//! Scans: what devices send and are answered, undo and export.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::actions::export;
use super::walk_ups::WalkUpDetails;
use crate::admission::{self, Told, told};
use crate::app::App;
use crate::auth::Caller;
use crate::door::WalkUp;
use crate::error::Error;
use crate::fault::Fault;
use crate::gate::{self, ScanRequest, Scanned, Shown};
use crate::limits::{ATTEMPTS_WINDOW, NOTE, UNDO_WINDOW};
use crate::list::{self, PAGE, PageQuery};
#[cfg(test)]
use crate::model::Username;
use crate::model::{Action, Colour, Direction, Millis, Place, ScanResult, Slug, Status, Text, Ticket};
use crate::request::Call;
use crate::response::{self, Response, with_scan};
use crate::sheet::{self, ScanLine};
use crate::store::{Act, DEFAULT_EVENT, ListedScan};
use crate::totp::{Code, QrCode};

/// A scan as a device sends it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ScanBody {
    /// The scan's id, any UUID, made by the device. A retry sends the same id and so is the same scan.
    scan_id: Uuid,
    /// What the ticket's QR code shows: on a phone `RT1.<ticket_id, 16 bytes>.<six digits>`, on paper
    /// `RP1.<ticket_id, 16 bytes>.<proof, 10 bytes>`, bytes in base64url without padding. Text of any other form,
    /// however long, is answered with `unknown_ticket`, and so are the first 64 characters of it: a gate need keep no more.
    code: Option<String>,
    /// The seat on the ticket.
    seat: Option<Place>,
    /// The gate on the ticket.
    gate: Option<Place>,
    /// The six digits that the holder's phone shows at this moment (RFC 6238), with or without spaces.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]{3} ?[0-9]{3}$")))]
    totp_code: Option<String>,
    /// Always true.
    #[cfg_attr(test, schemars(extend("const" = true)))]
    manual: Option<bool>,
    /// Why the person was admitted by hand.
    note: Option<Text<NOTE>>,
    /// Another ticket of somebody who was just admitted, as the `party` of that answer, or the manifest, names it.
    ticket_id: Option<Uuid>,
    /// The scan that speaks for it in the place of a code: the accepted entry, by a code or by hand, with the same key, of a ticket of
    /// the same holder at the same gate, at most [`crate::limits::PARTY_WINDOW`] before.
    vouched_by: Option<Uuid>,
    /// Only in a batch: people whom a supervisor admitted without a ticket, in the place of a ticket.
    walk_up: Option<WalkUpDetails>,
    /// The gate where the device stands. A key that is bound to a gate overrides it.
    at_gate: Option<Place>,
    /// `entry` when absent.
    direction: Option<Direction>,
    /// When the device made the scan, by its own clock. In a batch the decision is made as of then: after the key's creation,
    /// at most [`crate::limits::OFFLINE_WINDOW`] ago and at most [`crate::limits::OFFLINE_AHEAD`] ahead. Of a single scan
    /// one further off than that is not kept: it has the time of its receipt.
    pub(super) scanned_at: Option<Millis>,
    /// Only in a batch: what the gate decided by itself. Never `too_many_attempts` or `undone`, which no gate decides.
    pub(super) offline_result: Option<ScanResult>,
}

/// A scan by seat and typed digits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "AttendanceRequest"))]
pub(crate) struct AttendanceBody {
    /// The seat on the ticket.
    seat: Place,
    /// The gate on the ticket.
    gate: Place,
    /// The six digits that the holder's phone shows at this moment (RFC 6238), with or without spaces.
    #[cfg_attr(test, schemars(regex(pattern = "^[0-9]{3} ?[0-9]{3}$")))]
    totp_code: String,
    /// The slug of the ticket's event, `default` when absent.
    event: Option<Slug>,
    /// Makes a retry the same scan. The service makes one when it is absent.
    scan_id: Option<Uuid>,
}

impl ScanBody {
    /// What a device says that it was shown.
    pub(super) fn read(self, now: Millis) -> Result<ScanRequest, Error> {
        if self.walk_up.is_some() {
            return Err(Error::field("walk_up", Fault::BatchOnly));
        }
        let manual = self.manual == Some(true);
        if manual != self.note.is_some() {
            return Err(Error::field("note", Fault::NoteIfManual));
        }
        let place = |seat: Place, gate: Place| (seat.into_string(), gate.into_string());
        let direction = self.direction.unwrap_or(Direction::Entry);
        let of_party = (self.ticket_id, self.vouched_by);
        let shown = match (self.code, self.seat, self.gate, self.totp_code, self.note, of_party) {
            (Some(qr), None, None, None, None, (None, None)) => QrCode::parse(&qr).map_or(Shown::Nothing, Shown::Qr),
            (None, Some(seat), Some(gate), Some(digits), None, (None, None)) => {
                let (seat, gate) = place(seat, gate);
                Shown::Seat { seat, gate, code: Some(Code::typed(&digits)) }
            }
            (None, Some(seat), Some(gate), None, Some(note), (None, None)) => {
                let (seat, gate) = place(seat, gate);
                Shown::Vouched { seat, gate, note: note.0 }
            }
            (None, None, None, None, None, (Some(ticket_id), Some(vouched_by))) => {
                if direction == Direction::Exit {
                    let words = vec![Direction::Entry.as_str().to_owned()];
                    return Err(Error::field("direction", Fault::NotOneOf { words }));
                }
                Shown::OfParty { ticket_id, vouched_by }
            }
            _ => return Err(Error::field("body", Fault::NotAScan)),
        };
        self.offline_result.map_or(Ok(()), decided_offline)?;
        Ok(ScanRequest {
            scan_id: self.scan_id,
            shown,
            at_gate: self.at_gate.map(Place::into_string),
            direction,
            scanned_at: self.scanned_at.unwrap_or(now),
            offline_result: self.offline_result,
        })
    }
}

impl ScanBody {
    /// What a device says, offline, whom it admitted without a ticket, if it is that.
    pub(super) fn read_walk_up(&self, now: Millis) -> Result<Option<WalkUp>, Error> {
        let Some(details) = &self.walk_up else { return Ok(None) };
        let named = (&self.code, &self.seat, &self.gate, &self.totp_code, &self.note, self.ticket_id, self.vouched_by);
        if named != (&None, &None, &None, &None, &None, None, None) || self.manual.is_some() {
            return Err(Error::field("body", Fault::NotAScan));
        }
        if self.direction == Some(Direction::Exit) {
            let words = vec![Direction::Entry.as_str().to_owned()];
            return Err(Error::field("direction", Fault::NotOneOf { words }));
        }
        decided_walk_up(self.offline_result)?;
        let scanned_at = self.scanned_at.unwrap_or(now);
        Ok(Some(details.clone().read(self.scan_id, self.at_gate.clone(), scanned_at, true)))
    }
}

/// Refuses what no gate decides on people whom it admits without a ticket.
pub(super) fn decided_walk_up(offline_result: Option<ScanResult>) -> Result<(), Error> {
    match offline_result {
        None | Some(ScanResult::Accepted) => Ok(()),
        Some(_) => {
            let words = vec![ScanResult::Accepted.as_str().to_owned()];
            Err(Error::field("offline_result", Fault::NotOneOf { words }))
        }
    }
}

/// Refuses a verdict that no gate gives by itself.
pub(super) fn decided_offline(result: ScanResult) -> Result<(), Error> {
    if result.is_kept() {
        return Ok(());
    }
    let decided = ScanResult::ALL.iter().filter(|result| result.is_kept());
    let words = decided.map(|result| result.as_str().to_owned()).collect();
    Err(Error::field("offline_result", Fault::NotOneOf { words }))
}

/// A scan and the decision on it. The same shape whatever the decision.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Scan"))]
pub(crate) struct ScanReply {
    /// The scan's id, made by the device.
    scan_id: Uuid,
    pub(super) result: ScanResult,
    /// The decision in a sentence, for the person at the gate. Its wording may change.
    #[cfg_attr(test, schemars(length(min = 1)))]
    message: String,
    /// The ticket, as far as this answer may tell of it; null when it is not known.
    ticket: Option<ScannedTicket>,
    /// The gate where the scan was made: that of the key, else what the request said, else null.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    at_gate: Option<String>,
    direction: Direction,
    /// When the device made the scan, by its own clock; when it did not say, or its clock was far off, when the service
    /// received it.
    scanned_at: Millis,
    /// With `already_used`: when the ticket admitted its holder, with `once_a_day` on this day. Null where it does not apply.
    first_used_at: Option<Millis>,
    /// With `already_used`: the gate where that was, when known. Null where it does not apply.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    first_used_gate: Option<String>,
    /// With `wrong_gate`: the gate of the ticket. Null where it does not apply.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    right_gate: Option<String>,
    /// With `too_early`: when to come back, because the ticket admits from then on. Null where it does not apply.
    opens_at: Option<Millis>,
    /// With `too_late`: until when the ticket admitted. Null where it does not apply.
    closed_at: Option<Millis>,
    /// With `stale_code`: how far the code is from this moment, in whole seconds. Negative: from the past (a screenshot, or a
    /// slow clock). Positive: from the future (a fast clock). Null when the code is right but this ticket must wait for the
    /// next one. With `wrong_code`: a multiple of 900 when the code would be good exactly so far away, because the clock or the
    /// time zone of a phone was set by hand; otherwise null. Null with any other result.
    seconds_off: Option<i64>,
    /// The holder's other tickets for this gate that could be admitted now, the first [`crate::limits::PARTY`] of them: each by a scan
    /// of its own with `ticket_id` and with this `scan_id` as `vouched_by`. Only with `accepted`, of an entry by a code or by hand, for the key that
    /// made it and as long as it may speak for them; else empty, and so in batches.
    #[cfg_attr(test, schemars(length(max = crate::limits::PARTY)))]
    party: Vec<PartyTicket>,
    /// Whether the `scan_id` was sent before: then this is its first verdict, or `undone`. Such an answer has changed nothing.
    replayed: bool,
    /// When the scan was undone; null when it was not.
    undone_at: Option<Millis>,
}

/// The ticket of a scan, or of a guest who was looked for, as far as the answer may tell of it: what the caller may not know is
/// null. To whom the right code was shown is told all. With any other result it is which ticket, its seat and its gate; a
/// supervisor is told the holder too.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct ScannedTicket {
    /// The ticket's id.
    ticket_id: Uuid,
    /// The slug of its event.
    #[cfg_attr(test, schemars(with = "Slug"))]
    event: String,
    /// The seat, unique at its gate within the event.
    #[cfg_attr(test, schemars(with = "Place"))]
    seat: String,
    /// The only gate that admits this ticket.
    #[cfg_attr(test, schemars(with = "Place"))]
    gate: String,
    /// Null when it is not told.
    status: Option<Status>,
    /// The holder's username; null when nobody holds the ticket, or when it is not told.
    #[cfg_attr(test, schemars(with = "Option<Username>"))]
    username: Option<String>,
    /// The holder's name, when one is known and told.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::NAME }>>"))]
    full_name: Option<String>,
    /// The slug of the event whose own people the holder is one of; null for one of the whole installation, without a holder, or
    /// when it is not told.
    #[cfg_attr(test, schemars(with = "Option<Slug>"))]
    holder_event: Option<String>,
    /// What kind of ticket it is; null where it came without one, or when it is not told.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::CATEGORY }>>"))]
    category: Option<String>,
    /// The colour in which the event shows that category, when it has one.
    category_colour: Option<Colour>,
    /// What the gate should know; null where there is nothing, or when it is not told.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::TICKET_NOTE }>>"))]
    note: Option<String>,
    /// From when it admits; null where the event's doors alone say so, or when it is not told.
    valid_from: Option<Millis>,
    /// Until when it admits; null where the event's doors alone say so, or when it is not told.
    valid_until: Option<Millis>,
    /// Whether somebody without a ticket was admitted by it, at the door; null when it is not told.
    walk_up: Option<bool>,
    /// What was paid for it then, in the smallest unit of the event's currency; null where nobody took anything down, or when it is
    /// not told.
    #[cfg_attr(test, schemars(range(min = 0)))]
    paid: Option<i64>,
    /// Whether the holder is inside now: came in and has not gone out. Null when it is not told.
    inside: Option<bool>,
    /// When the ticket was made; null when it is not told.
    created_at: Option<Millis>,
    /// When the ticket was registered to a person; null when it never was, or when it is not told.
    registered_at: Option<Millis>,
    /// When the ticket first admitted its holder; null when it has not, or when it is not told.
    used_at: Option<Millis>,
    /// When it last did so.
    entered_at: Option<Millis>,
}

/// Another ticket of somebody who was admitted.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct PartyTicket {
    /// The ticket's id.
    ticket_id: Uuid,
    /// The seat, unique at its gate within the event.
    #[cfg_attr(test, schemars(with = "Place"))]
    seat: String,
    /// The gate, that of the ticket that was admitted.
    #[cfg_attr(test, schemars(with = "Place"))]
    gate: String,
    /// The name on the ticket, when one is known.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::NAME }>>"))]
    full_name: Option<String>,
    /// What kind of ticket it is; null where it came without one.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::CATEGORY }>>"))]
    category: Option<String>,
    /// What the gate should know; null where there is nothing.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::TICKET_NOTE }>>"))]
    note: Option<String>,
}

impl From<Ticket> for PartyTicket {
    fn from(ticket: Ticket) -> Self {
        let Ticket { ticket_id, seat, gate, full_name, category, note, .. } = ticket;
        Self { ticket_id, seat, gate, full_name, category, note }
    }
}

impl ScannedTicket {
    pub(super) fn new(ticket: Ticket, told: Told) -> Self {
        let all = told == Told::Everything;
        let named = told >= Told::Holder;
        let category_colour = ticket.category_colour().filter(|_| all);
        Self {
            ticket_id: ticket.ticket_id,
            event: ticket.event,
            seat: ticket.seat,
            gate: ticket.gate,
            status: all.then_some(ticket.status),
            username: ticket.username.filter(|_| named),
            full_name: ticket.full_name.filter(|_| named),
            holder_event: ticket.holder_event.filter(|_| named),
            category_colour,
            category: ticket.category.filter(|_| all),
            note: ticket.note.filter(|_| all),
            valid_from: ticket.valid_from.filter(|_| all),
            valid_until: ticket.valid_until.filter(|_| all),
            walk_up: all.then_some(ticket.walk_up),
            paid: ticket.paid.filter(|_| all),
            inside: all.then_some(ticket.inside),
            created_at: all.then_some(ticket.created_at),
            registered_at: ticket.registered_at.filter(|_| all),
            used_at: ticket.used_at.filter(|_| all),
            entered_at: ticket.entered_at.filter(|_| all),
        }
    }
}

impl ScanReply {
    /// The answer for this caller.
    pub(super) fn new(Scanned { scan, ticket, party, replayed }: Scanned, caller: &Caller) -> Self {
        let right_gate = match (scan.result, &ticket) {
            (ScanResult::WrongGate, Some(ticket)) => Some(ticket.gate.clone()),
            _ => None,
        };
        // Any key of the event gets a verdict again; one of another gate learns no more by it than by a scan of its own.
        let elsewhere = ticket.as_ref().is_some_and(|ticket| !caller.stands_at(&ticket.gate));
        let told = match caller.ended {
            // Who has the device now is told no more than it sent.
            Some(_) => Told::Place,
            None => told(if elsewhere { ScanResult::WrongGate } else { scan.result }, caller.role),
        };
        let all = told == Told::Everything;
        let opens_at = scan.opens_at.filter(|_| all);
        let closed_at = scan.closed_at.filter(|_| all);
        let turned_at = opens_at.or(closed_at);
        let message =
            admission::message(scan.result, scan.direction, scan.seconds_off, right_gate.as_deref(), turned_at);
        Self {
            scan_id: scan.scan_id,
            result: scan.result,
            message,
            ticket: ticket.map(|ticket| ScannedTicket::new(ticket, told)),
            at_gate: scan.at_gate,
            direction: scan.direction,
            scanned_at: scan.scanned_at,
            first_used_at: scan.first_used_at.filter(|_| all),
            first_used_gate: scan.first_used_gate.filter(|_| all),
            right_gate,
            opens_at,
            closed_at,
            seconds_off: scan.seconds_off,
            party: party.into_iter().filter(|_| all).map(PartyTicket::from).collect(),
            replayed,
            undone_at: scan.undone_at,
        }
    }

    pub(super) fn status(&self) -> StatusCode {
        status_of(self.result)
    }
}

fn respond(scanned: Scanned, caller: &Caller) -> Result<Response, Error> {
    let reply = ScanReply::new(scanned, caller);
    let mut response = response::json(reply.status(), &reply)?;
    if reply.result == ScanResult::TooManyAttempts {
        response.headers_mut().insert(header::RETRY_AFTER, ATTEMPTS_WINDOW.as_secs().into());
    }
    Ok(with_scan(response, reply.result))
}

/// The status of the answer with this verdict.
pub(crate) fn status_of(result: ScanResult) -> StatusCode {
    match result {
        ScanResult::Accepted => StatusCode::OK,
        ScanResult::AlreadyUsed
        | ScanResult::WrongGate
        | ScanResult::TooEarly
        | ScanResult::TooLate
        | ScanResult::NotRegistered
        | ScanResult::NotInside
        | ScanResult::Undone => StatusCode::CONFLICT,
        ScanResult::WrongCode | ScanResult::StaleCode => StatusCode::UNPROCESSABLE_ENTITY,
        ScanResult::Revoked => StatusCode::GONE,
        ScanResult::UnknownTicket => StatusCode::NOT_FOUND,
        ScanResult::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
    }
}

/// `POST /api/events/{event}/scans`.
pub async fn record_scan(call: Call<'_>) -> Result<Response, Error> {
    let body: ScanBody = call.json()?;
    if body.offline_result.is_some() {
        return Err(Error::field("offline_result", Fault::BatchOnly));
    }
    let request = body.read(call.now)?;
    let event = call.params.get("event").unwrap_or(DEFAULT_EVENT);
    let caller = call.caller()?;
    respond(gate::scan(call.app, caller, event, &request, call.now).await?, caller)
}

/// `POST /api/users/attendance`: the same, by seat, gate and digits.
pub async fn record_attendance(call: Call<'_>) -> Result<Response, Error> {
    let body: AttendanceBody = call.json_or_form()?;
    let request = ScanRequest {
        scan_id: body.scan_id.unwrap_or_else(Uuid::now_v7),
        shown: Shown::Seat {
            seat: body.seat.into_string(),
            gate: body.gate.into_string(),
            code: Some(Code::typed(&body.totp_code)),
        },
        at_gate: None,
        direction: Direction::Entry,
        scanned_at: call.now,
        offline_result: None,
    };
    let event = body.event.as_ref().map_or(DEFAULT_EVENT, |slug| slug.0.as_str());
    let caller = call.caller()?;
    respond(gate::scan(call.app, caller, event, &request, call.now).await?, caller)
}

/// `POST /api/scans/{scan_id}/undo`: takes back a ticket's newest accepted scan, within [`UNDO_WINDOW`]. A key that is bound
/// to a gate takes back what was scanned at that gate, and where none was named, of that gate's tickets.
pub async fn undo_scan(call: Call<'_>) -> Result<Response, Error> {
    let scan_id = call.id("scan_id", Error::ScanNotFound)?;
    let store = call.app.store();
    let caller = call.caller()?;
    let scan = caller.open(store.get_scan(scan_id).await?, Error::ScanNotFound)?;
    let ticket_id = scan.ticket_id.ok_or(Error::NotUndoable)?;
    let ticket = async || caller.open(store.get_ticket(ticket_id).await?, Error::TicketNotFound);
    let gate = scan.at_gate.unwrap_or(ticket().await?.gate);
    if !caller.stands_at(&gate) {
        return Err(Error::Forbidden("Your key is bound to another gate."));
    }
    let scan = store.undo_scan(scan.scan_id, call.now - UNDO_WINDOW, caller.author(call.now)).await?;
    let undone = Scanned { scan, ticket: Some(ticket().await?), party: Vec::new(), replayed: false };
    response::json(StatusCode::OK, &ScanReply::new(undone, caller))
}

/// `GET /api/events/{event}/scans.csv`.
pub async fn export_scans(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let rows = scan_rows(Arc::clone(call.app), event.event_id);
    export(&call, Act::new(Action::ScansExported, event.event_id), rows, &format!("scans-{}.csv", event.slug)).await
}

/// An event's scans as CSV, page by page. The command line writes the same.
pub fn scan_rows(app: Arc<App>, event_id: Uuid) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let read = move |after| {
        let app = Arc::clone(&app);
        async move { app.in_time(app.store().list_scans(event_id, after, PAGE)).await }
    };
    let mut writer = sheet::Writer::new::<ScanLine>();
    list::pages(read, |ListedScan { scan, .. }: &ListedScan| (scan.received_at, scan.scan_id)).map(move |scans| {
        for scan in &scans? {
            writer.line(&ScanLine::new(scan))?;
        }
        writer.take()
    })
}

/// `GET /api/events/{event}/incidents`: tickets that were shown again after their use, and scans that were undone, the newest
/// first.
pub async fn list_incidents(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let event = call.event().await?;
    let after = query.after.map(|cursor| cursor.0);
    let incidents = call.app.store().list_incidents(event.event_id, after, query.limit.to_read()).await?;
    list::respond("incidents", incidents, query.limit, |incident| incident.scan.scan_id)
}
