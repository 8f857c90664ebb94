//! Tickets: create, list, change, export.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::actions::export;
use super::imports;
use super::users::PeopleQuery;
use crate::app::App;
use crate::auth::{Caller, random_bytes};
use crate::error::Error;
use crate::fault::{Fault, FieldError};
use crate::limits::{CATEGORY, REFERENCE, SEARCH, TICKET_NOTE};
use crate::links::{otpauth_url, ticket_url};
use crate::list::{self, Cursor, Limit, PAGE};
use crate::mail::letter::Letter;
use crate::model::{Action, Event, Flag, Millis, Place, Seed, Status, Text, Ticket, Username, check_order};
use crate::request::{Call, is_list, present};
use crate::response::{self, Response};
use crate::sheet::{self, LinkLine, TicketLine};
use crate::store::{Act, Issuance, NewTicket, PersonName, TicketChange, TicketDetails, TicketFilter};
use crate::totp::{self, Code, LinkSecret, QrCode};

/// A ticket to create.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "NewTicket"))]
pub(crate) struct Seat {
    /// The seat, unique at its gate within the event.
    seat: Place,
    /// The only gate that admits this ticket.
    gate: Place,
    /// The seller's own id of the ticket, unique in the event.
    reference: Option<Text<REFERENCE>>,
    /// The ticket's category.
    category: Option<Text<CATEGORY>>,
    /// What the gate should know: it is shown with the verdict.
    note: Option<Text<TICKET_NOTE>>,
    /// From when it admits, or from the event's `opens_at` if that is later.
    valid_from: Option<Millis>,
    /// Until when it admits, after `valid_from`, or until the event's `closes_at` if that is earlier.
    valid_until: Option<Millis>,
}

/// `POST /api/events/{event}/tickets`: creates one ticket, an array of them, or a list; all or nothing.
pub async fn create_tickets(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    if event.forgotten_at.is_some() {
        return Err(Error::EventForgotten);
    }
    if is_list(&call.parts.headers) {
        return match imports::import(&call, &event).await? {
            Ok(imported) => response::json(StatusCode::CREATED, &imported),
            Err(preview) => response::json(StatusCode::OK, &preview),
        };
    }
    let _: ListsOnly = call.query()?;
    let list = Issuance { tickets: new_tickets(read_seats(&call)?)?, ..Issuance::default() };
    let caller = call.caller()?;
    let store = call.app.store();
    let made = store.create_tickets(event.event_id, caller.event_id, &list, caller.author(call.now), &|_| {});
    let name = |index| if call.is_array() { format!("[{index}]") } else { "seat".to_owned() };
    response::json(StatusCode::CREATED, &made.await.map_err(|error| name_fields(error, name))?)
}

/// The query of a request without a list: no parameters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ListsOnly {}

/// Reads one seat, or an array of distinct seats.
fn read_seats(call: &Call<'_>) -> Result<Vec<Seat>, Error> {
    let Some(seats) = call.json_array::<Seat>() else {
        let seat: Seat = call.json()?;
        check_order(seat.valid_from, seat.valid_until).map_err(|fault| Error::field("valid_until", fault))?;
        return Ok(vec![seat]);
    };
    let seats = seats?;
    if seats.is_empty() {
        return Err(Error::field("body", Fault::NoTickets));
    }
    let mut seen = std::collections::HashSet::new();
    if let Some(index) = seats.iter().position(|seat| !seen.insert((&seat.seat, &seat.gate))) {
        return Err(Error::field(format!("[{index}]"), Fault::SeatRepeated));
    }
    let mut seen = std::collections::HashSet::new();
    for (index, seat) in seats.iter().enumerate() {
        let fault = |fault| Error::field(format!("[{index}]"), fault);
        if seat.reference.as_ref().is_some_and(|reference| !seen.insert(reference.0.as_str())) {
            return Err(fault(Fault::ReferenceRepeated));
        }
        check_order(seat.valid_from, seat.valid_until).map_err(fault)?;
    }
    Ok(seats)
}

fn new_tickets(seats: Vec<Seat>) -> Result<Vec<NewTicket>, Error> {
    let new = |Seat { seat, gate, reference, category, note, valid_from, valid_until }: Seat| {
        Ok(NewTicket {
            ticket_id: Uuid::now_v7(),
            seat: seat.into_string(),
            gate: gate.into_string(),
            seed: Seed(random_bytes()?),
            holder: None,
            reference: reference.map(|reference| reference.0),
            category: category.map(|category| category.0),
            note: note.map(|note| note.0),
            valid_from,
            valid_until,
        })
    };
    seats.into_iter().map(new).collect()
}

/// Names the fields of errors as in the request: the store knows only the tickets' indexes.
pub(super) fn name_fields(error: Error, name: impl Fn(usize) -> String) -> Error {
    let renamed = |errors: Vec<FieldError>| {
        let named = errors.into_iter().take(sheet::import::ERRORS_TOLD).map(|mut error| {
            if let Ok(index) = error.field.parse() {
                error.field = name(index);
            }
            error
        });
        named.collect()
    };
    match error {
        Error::SeatTaken(errors) => Error::SeatTaken(renamed(errors)),
        Error::InvalidPayload(errors) => Error::InvalidPayload(renamed(errors)),
        other => other,
    }
}

/// Which tickets to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ListQuery {
    /// Only tickets with this status.
    status: Option<Status>,
    /// Only tickets of this gate.
    gate: Option<Place>,
    /// Only tickets where each of these words is part of the seat, the name, the username or the e-mail address, ignoring
    /// order, case and accents. A key bound to an event does not search addresses of other people than the event's own.
    #[cfg_attr(test, schemars(with = "Option<String>", length(max = SEARCH), regex(pattern = PRINTABLE)))]
    q: Option<Search>,
    /// Maximum number of entries in a page.
    #[serde(default)]
    limit: Limit,
    /// The `next` of the previous page.
    after: Option<Cursor>,
}

/// A search text of at most [`SEARCH`] characters; the empty one matches everything.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Search(pub String);

/// The schema pattern of text without control characters.
#[cfg(test)]
pub(super) const PRINTABLE: &str = r"^[^\x00-\x1f\x7f-\x9f]*$";

impl TryFrom<String> for Search {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        if text.chars().count() > SEARCH {
            return Err(Fault::TooLong { most: SEARCH });
        }
        if text.chars().any(char::is_control) {
            return Err(Fault::BadCharacters);
        }
        Ok(Self(text))
    }
}

/// `GET /api/events/{event}/tickets`.
pub async fn list_tickets(call: Call<'_>) -> Result<Response, Error> {
    let query: ListQuery = call.query()?;
    let filter = TicketFilter {
        status: query.status,
        gate: query.gate.map(Place::into_string),
        search: query.q.map(|search| search.0),
        without_addresses: call.caller()?.event_id.is_some(),
        after: query.after.map(|cursor| cursor.0),
    };
    let event = call.event().await?;
    let tickets = call.app.store().list_tickets(event.event_id, &filter, query.limit.to_read()).await?;
    list::respond("tickets", tickets, query.limit, |ticket| ticket.ticket_id)
}

/// `GET /api/tickets/{ticket_id}`.
pub async fn show_ticket(call: Call<'_>) -> Result<Response, Error> {
    response::json(StatusCode::OK, &find_ticket(&call).await?)
}

/// The changes to a ticket. An absent member does not change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "TicketChange"))]
pub(crate) struct Changes {
    /// The ticket's category; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Text<CATEGORY>>"))]
    category: Option<Option<Text<CATEGORY>>>,
    /// What the gate should know; null clears it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Text<TICKET_NOTE>>"))]
    note: Option<Option<Text<TICKET_NOTE>>>,
    /// From when it admits; null if only the event's doors limit it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Millis>"))]
    valid_from: Option<Option<Millis>>,
    /// Until when it admits, after its `valid_from`; null if only the event's doors limit it.
    #[serde(default, deserialize_with = "present")]
    #[cfg_attr(test, schemars(with = "Option<Millis>"))]
    valid_until: Option<Option<Millis>>,
}

/// `PATCH /api/tickets/{ticket_id}`: in any status; the codes, link and printed code stay valid.
pub async fn change_ticket(call: Call<'_>) -> Result<Response, Error> {
    let changes: Changes = call.json()?;
    let details = TicketDetails {
        category: changes.category.map(|category| category.map(|category| category.0)),
        note: changes.note.map(|note| note.map(|note| note.0)),
        valid_from: changes.valid_from,
        valid_until: changes.valid_until,
    };
    response::json(StatusCode::OK, &change(&call, &TicketChange::Correct(details)).await?)
}

/// `POST /api/tickets/{ticket_id}/revoke`: from any status; repeatable.
pub async fn revoke_ticket(call: Call<'_>) -> Result<Response, Error> {
    let ticket = change(&call, &TicketChange::Revoke).await?;
    response::json(StatusCode::OK, &ticket)
}

/// `POST /api/tickets/{ticket_id}/reissue`: gives the ticket a new seed, so that its old codes and link stop working.
pub async fn reissue_ticket(call: Call<'_>) -> Result<Response, Error> {
    let secret = call.app.claimed_links().await?;
    let ticket = change(&call, &TicketChange::Reissue { seed: Seed(random_bytes()?) }).await?;
    provisioned(&call, secret, &ticket).await
}

/// The ticket's new holder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "TransferRequest"))]
pub(crate) struct Transfer {
    /// The username of the new holder.
    username: Username,
}

/// `POST /api/tickets/{ticket_id}/transfer`: gives the ticket another holder and a new seed.
pub async fn transfer_ticket(call: Call<'_>) -> Result<Response, Error> {
    let people: PeopleQuery = call.query()?;
    let body: Transfer = call.json()?;
    let to = PersonName { username: body.username.as_str().to_owned(), event_id: people.of(&call).await? };
    let secret = call.app.claimed_links().await?;
    let change_to = TicketChange::Transfer { seed: Seed(random_bytes()?), to };
    let ticket = change(&call, &change_to).await?;
    provisioned(&call, secret, &ticket).await
}

pub(super) async fn find_ticket(call: &Call<'_>) -> Result<Ticket, Error> {
    let ticket_id = call.id("ticket_id", Error::TicketNotFound)?;
    call.caller()?.open(call.app.store().get_ticket(ticket_id).await?, Error::TicketNotFound)
}

async fn change(call: &Call<'_>, change: &TicketChange) -> Result<Ticket, Error> {
    let ticket = find_ticket(call).await?;
    call.app.store().change_ticket(ticket.ticket_id, change, call.author()?).await
}

async fn provisioned(call: &Call<'_>, secret: &LinkSecret, ticket: &Ticket) -> Result<Response, Error> {
    let event = call.caller()?.open_event(call.app.store().find_event(&ticket.event).await?)?;
    response::json(StatusCode::OK, &with_provisioning(call.app, secret, &event, ticket))
}

/// A ticket, with the code to print.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct PrintedTicket {
    #[serde(flatten)]
    ticket: Ticket,
    /// The text to print as a QR code. It is a secret: anyone who has it has the ticket.
    #[cfg_attr(test, schemars(regex(pattern = r"^RP1\.[A-Za-z0-9_-]{22}\.[A-Za-z0-9_-]{14}$")))]
    printed_code: String,
}

/// `POST /api/tickets/{ticket_id}/print`: returns the code to print for a person without a phone. Repeatable, with the same answer.
pub async fn print_ticket(call: Call<'_>) -> Result<Response, Error> {
    let secret = call.app.claimed_secret().await?;
    let ticket = change(&call, &TicketChange::Print).await?;
    let key = secret.key_of(ticket.ticket_id, ticket.seed);
    let printed = QrCode { ticket_id: ticket.ticket_id, code: Code::Printed(key.print_proof()) };
    response::json(StatusCode::OK, &PrintedTicket { ticket, printed_code: printed.to_string() })
}

/// The address of a ticket's page.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "TicketLink"))]
pub(crate) struct Link {
    /// The link of the holder's ticket page. Anyone who has the link has the ticket.
    #[cfg_attr(test, schemars(extend("format" = "uri-reference"), length(min = 1)))]
    ticket_url: String,
    /// The subject of a message to the holder, in the event's language.
    subject: String,
    /// Its text, as in a mail with this ticket; it contains the link.
    text: String,
}

/// The options of the message to the holder.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct LinkQuery {
    /// Whether the message has the links of all `valid` tickets of the holder for this event; `false` when absent. An action is
    /// recorded for each.
    all: Option<Flag>,
}

/// `GET /api/tickets/{ticket_id}/link`: returns the address of the ticket's page.
pub async fn show_link(call: Call<'_>) -> Result<Response, Error> {
    let query: LinkQuery = call.query()?;
    let secret = call.app.claimed_links().await?;
    let ticket = find_ticket(&call).await?;
    if ticket.status == Status::Revoked {
        return Err(Error::TicketRevoked);
    }
    let holder = ticket.user_id.ok_or(Error::TicketNotRegistered)?;
    let event = call.caller()?.open_event(call.app.store().find_event(&ticket.event).await?)?;
    let mut tickets = vec![ticket];
    if query.all == Some(Flag::Yes) {
        tickets.extend(held_besides(&call, &tickets[0], holder).await?);
    }
    for ticket in &tickets {
        let act = Act::new(Action::LinkShown, ticket.event_id).ticket(ticket.ticket_id);
        call.app.store().record_action(call.author()?, &act).await?;
    }
    let linked = tickets.iter().map(|ticket| (ticket, ticket_url(call.app, secret, ticket)));
    let letter = Letter::new(&event, tickets[0].full_name.as_deref(), linked, None, false);
    let ticket_url = ticket_url(call.app, secret, &tickets[0]);
    response::json(StatusCode::OK, &Link { ticket_url, subject: letter.subject(), text: letter.text() })
}

/// Returns the holder's other valid tickets for the same event.
async fn held_besides(call: &Call<'_>, ticket: &Ticket, holder: Uuid) -> Result<Vec<Ticket>, Error> {
    let mut held = call.app.store().list_user_tickets(holder, None, PAGE).await?;
    held.retain(|other| {
        (other.event_id, other.status) == (ticket.event_id, Status::Valid) && other.ticket_id != ticket.ticket_id
    });
    Ok(held)
}

/// What a holder's phone needs to generate codes. It is a secret, and only this answer contains it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Provisioning {
    /// The TOTP key, 20 bytes in base32 without padding.
    #[cfg_attr(test, schemars(regex(pattern = "^[A-Z2-7]{32}$")))]
    secret: String,
    /// The same as an `otpauth://totp/…` URL, for authenticator apps.
    #[cfg_attr(test, schemars(extend("format" = "uri"), regex(pattern = "^otpauth://totp/")))]
    otpauth_url: String,
    /// The link of the holder's ticket page. Anyone who has the link has the ticket.
    #[cfg_attr(test, schemars(extend("format" = "uri-reference"), length(min = 1)))]
    ticket_url: String,
    /// The hash of the code: HMAC-SHA-1.
    #[cfg_attr(test, schemars(extend("const" = "SHA1")))]
    algorithm: &'static str,
    /// The number of digits of a code.
    #[cfg_attr(test, schemars(extend("const" = totp::DIGITS)))]
    digits: u8,
    /// How long a code lasts, in seconds.
    #[cfg_attr(test, schemars(extend("const" = totp::PERIOD)))]
    period: i64,
}

/// A ticket with what its holder's phone needs: the answer to a registration, reissue or transfer.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TicketWithProvisioning<'a> {
    #[serde(flatten)]
    ticket: &'a Ticket,
    provisioning: Provisioning,
}

pub fn with_provisioning<'a>(
    app: &App,
    secret: &LinkSecret,
    event: &Event,
    ticket: &'a Ticket,
) -> TicketWithProvisioning<'a> {
    let ticket_url = ticket_url(app, secret, ticket);
    let secret = secret.codes.key_of(ticket.ticket_id, ticket.seed).base32();
    let otpauth_url = otpauth_url(&event.name, ticket, &secret);
    let provisioning =
        Provisioning { secret, otpauth_url, ticket_url, algorithm: "SHA1", digits: totp::DIGITS, period: totp::PERIOD };
    TicketWithProvisioning { ticket, provisioning }
}

/// `GET /api/events/{event}/tickets.csv`.
pub async fn export_tickets(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let rows = ticket_rows(Arc::clone(call.app), event.event_id, call.caller()?.event_id);
    let act = Act::new(Action::TicketsExported, event.event_id);
    export(&call, act, rows, &format!("tickets-{}.csv", event.slug)).await
}

/// Streams an event's tickets as CSV, page by page, for a key bound to this event or to none. The command line writes the same.
pub fn ticket_rows(
    app: Arc<App>,
    event_id: Uuid,
    bound_to: Option<Uuid>,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let mut writer = sheet::Writer::new::<TicketLine>();
    ticket_pages(app, event_id).map(move |tickets| {
        for ticket in &tickets? {
            writer.line(&TicketLine::new(ticket, bound_to))?;
        }
        writer.take()
    })
}

/// `GET /api/events/{event}/links.csv`: the links of all tickets that have a holder and are not revoked.
pub async fn export_links(call: Call<'_>) -> Result<Response, Error> {
    let event = call.event().await?;
    let secret = Arc::clone(call.app.claimed_links().await?);
    let Caller { key_id, event_id: bound_to, .. } = *call.caller()?;
    tracing::info!(key.id = key_id.map(tracing::field::display), event = event.slug, "links downloaded");
    let app = Arc::clone(call.app);
    let mut writer = sheet::Writer::new::<LinkLine>();
    let rows = ticket_pages(Arc::clone(call.app), event.event_id).map(move |tickets| {
        for ticket in tickets?.iter().filter(|ticket| ticket.user_id.is_some() && ticket.status != Status::Revoked) {
            writer.line(&LinkLine::new(ticket, ticket_url(&app, &secret, ticket), bound_to))?;
        }
        writer.take()
    });
    export(&call, Act::new(Action::LinksExported, event.event_id), rows, &format!("links-{}.csv", event.slug)).await
}

fn ticket_pages(app: Arc<App>, event_id: Uuid) -> impl Stream<Item = Result<Vec<Ticket>, Error>> + Send + 'static {
    let read = move |after| {
        let app = Arc::clone(&app);
        let filter = TicketFilter { after, ..TicketFilter::default() };
        async move { app.in_time(app.store().list_tickets(event_id, &filter, PAGE)).await }
    };
    list::pages(read, |ticket: &Ticket| ticket.ticket_id)
}
