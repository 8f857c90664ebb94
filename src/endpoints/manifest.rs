//! All that a gate needs to decide without a network.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future;
use futures_util::stream::{self, Stream, StreamExt as _};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::admission;
use crate::app::App;
use crate::auth::Caller;
use crate::error::Error;
use crate::fault::Fault;
use crate::fold;
use crate::limits::{GateLimits, NOTED_AHEAD, UNSENT};
use crate::list::{self, PAGE};
use crate::model::{Event, Millis, Role, Status};
#[cfg(test)]
use crate::model::{Place, Slug, Text, Username};
use crate::request::Call;
use crate::response::{self, GZIP, Response, accepts};
#[cfg(test)]
use crate::store::GateState;
use crate::store::{ManifestState, ManifestTicket};
use crate::totp::{self, TicketSecret};

/// When it is noted again: before what is noted comes so near.
const NOTED_AGAIN: Duration = Duration::from_mins(1);

/// Which part of the manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ManifestQuery {
    /// The `as_of` of an earlier manifest: only tickets changed since then, and of another gate than the key's only new ones; or
    /// all where the service cannot tell (`whole`).
    #[cfg_attr(test, schemars(with = "Option<u64>"))]
    since: Option<Since>,
}

/// The `as_of` of a manifest that the gate has.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct Since(i64);

impl TryFrom<String> for Since {
    type Error = Fault;

    fn try_from(text: String) -> Result<Self, Fault> {
        // Rust would take a sign too. What is larger than any of ours is of no history.
        let number: Option<u64> = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.map(|number| Self(number.try_into().unwrap_or(i64::MAX))).ok_or(Fault::NotAnAsOf)
    }
}

/// How codes are made, and by what a device decides on them: as `totp` and `admission` do.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(inline))]
struct Codes {
    /// The hash of the code: HMAC-SHA-1.
    #[cfg_attr(test, schemars(extend("const" = "SHA1")))]
    algorithm: &'static str,
    /// The digits of a code.
    #[cfg_attr(test, schemars(extend("const" = totp::DIGITS)))]
    digits: u8,
    /// How long a code lasts, in seconds.
    #[cfg_attr(test, schemars(extend("const" = totp::PERIOD)))]
    period: i64,
    /// How many steps before and after the present one are accepted.
    #[cfg_attr(test, schemars(extend("const" = totp::DRIFT)))]
    drift: i64,
    /// How far from the present a code is found that is right at another moment, in steps.
    stale_window: i64,
    /// How far from the present a wrong code is looked at that would be good in another time zone, in quarters of an hour.
    zones: i64,
    /// Refused codes of a ticket after which its codes are not looked at for a while.
    attempts: i64,
    /// Refused codes, of a ticket or of a key, from which a code of the future is called wrong.
    future_told: i64,
    /// The hour by which a day of the event begins, in its time zone.
    #[cfg_attr(test, schemars(extend("const" = admission::DAY_TURNS)))]
    day_turns: i8,
}

impl Codes {
    const TOLD: Self = Self {
        algorithm: "SHA1",
        digits: totp::DIGITS,
        period: totp::PERIOD,
        drift: totp::DRIFT,
        stale_window: totp::STALE_WINDOW,
        zones: totp::ZONES,
        attempts: admission::ATTEMPTS,
        future_told: admission::FUTURE_TOLD,
        day_turns: admission::DAY_TURNS,
    };
}

/// A ticket as a gate must know it.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "ManifestTicket"))]
pub(crate) struct Entry<'a> {
    /// The ticket's id.
    ticket_id: Uuid,
    /// The seat.
    #[cfg_attr(test, schemars(with = "Place"))]
    seat: &'a str,
    /// The gate that admits it.
    #[cfg_attr(test, schemars(with = "Place"))]
    gate: &'a str,
    #[serde(flatten)]
    #[cfg_attr(test, schemars(with = "OwnEntry<'a>"))]
    own: Option<OwnEntry<'a>>,
}

/// What only the ticket's own gate is told.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OwnEntry<'a> {
    status: Status,
    /// Whether somebody holds the ticket.
    registered: bool,
    /// The holder's username; null when nobody holds the ticket and, for the key of a gate, when it is revoked.
    #[cfg_attr(test, schemars(with = "Option<Username>"))]
    username: Option<&'a str>,
    /// The holder's name, when one is known, under the same conditions.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::NAME }>>"))]
    full_name: Option<&'a str>,
    /// The slug of the event, where the holder is one of its own people: of the same username, such a one and one of the whole
    /// installation are two. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Slug"))]
    holder_event: Option<&'a str>,
    /// What kind of ticket it is. Absent where it came without one, when nobody holds it, or it is revoked; so is the note.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Text<{ crate::limits::CATEGORY }>"))]
    category: Option<&'a str>,
    /// What the gate should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Text<{ crate::limits::TICKET_NOTE }>"))]
    note: Option<&'a str>,
    /// From when it admits. Absent where the event's doors alone say so, when nobody holds it, or it is revoked; so is the next.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Millis"))]
    valid_from: Option<Millis>,
    /// Until when it admits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Millis"))]
    valid_until: Option<Millis>,
    /// Whether the holder is inside now: came in and has not gone out.
    inside: bool,
    /// The time step (seconds since the epoch divided by 30) of the newest code that was accepted; null when none was.
    last_step: Option<i64>,
    /// When the ticket first admitted its holder; null when it has not.
    used_at: Option<Millis>,
    /// When it last did so. Absent where that was the first time.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Millis"))]
    entered_at: Option<Millis>,
    /// True where somebody without a ticket was admitted by it. Absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, schemars(with = "bool", extend("const" = true)))]
    walk_up: bool,
    /// What was paid for it at the door, in the smallest unit of the event's currency. Absent where nobody took anything down.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "u64"))]
    paid: Option<i64>,
    /// Whether the ticket was printed, so that its paper admits: once, or once a day, without a rotating code.
    printed: bool,
    /// The TOTP key, 20 bytes in base32 without padding. It is a secret. Absent when nobody holds the ticket, or it is
    /// revoked: its codes are refused whatever they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String", regex(pattern = "^[A-Z2-7]{32}$")))]
    key: Option<String>,
}

/// All that a gate needs to decide offline.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "it is written piece by piece")]
pub(crate) struct Manifest {
    event: Event,
    /// To be sent as `since`: the number of a state of the tickets. It is no time, and only to be given back.
    as_of: u64,
    /// Whether these are all of the event's tickets: a device forgets what is not among them. With `since` too, where it is
    /// older than a restored backup, or of release 0.1.0.
    whole: bool,
    /// What is counted in that state of all tickets of which this key is told the `status`. A device that hears of no change
    /// since (304), and whose own list counts otherwise, gets the whole list anew, and says where they differed.
    counts: GateState,
    codes: Codes,
    limits: GateLimits,
    /// The event's tickets; or those changed since, and of another gate than the key's the new ones.
    tickets: Vec<Entry<'static>>,
}

/// `GET /api/events/{event}/manifest`.
pub async fn show_manifest(call: Call<'_>) -> Result<Response, Error> {
    let query: ManifestQuery = call.query()?;
    let caller = call.caller()?;
    if !caller.offline {
        return Err(Error::Forbidden("Only a key made with `offline` may download the manifest."));
    }
    let event = call.event().await?;
    let heard = Heard { key_id: caller.key_id, unsent: unsent(&call.parts.headers) };
    if !event.has_manifest(call.now) {
        heard.note(call.app).await;
        return Err(Error::ManifestClosed(event.manifest_opens_in(call.now)));
    }
    let secret = Arc::clone(call.app.claimed_secret().await?);
    let state = call.app.store().manifest_state(event.event_id, caller.gate.as_deref()).await?;
    // The id tells an event from one of the same name that was deleted, and the cursor's history one that was restored.
    let etag = format!(
        "W/\"{}-{}-{}-{}-{}\"",
        event.event_id.simple(),
        event.version,
        state.tickets,
        state.versions,
        state.history()
    );
    let mut response = if matches_etag(&call, &etag) {
        heard.note(call.app).await;
        let mut unchanged = response::no_content();
        *unchanged.status_mut() = StatusCode::NOT_MODIFIED;
        unchanged
    } else {
        tracing::info!(key.id = caller.key_id.map(tracing::field::display), event = event.slug, "manifest downloaded");
        let manifest = manifest(
            Arc::clone(call.app),
            secret,
            &event,
            &state,
            query.since.and_then(|since| state.change_since(since.0)),
            Reader::of(caller),
        )?;
        // The device has it when all of it was read.
        let app = Arc::clone(call.app);
        let noted = stream::once(async move { heard.note(&app).await }).filter_map(|()| future::ready(None));
        let manifest = manifest.chain(noted);
        if accepts(&call.parts.headers, header::ACCEPT_ENCODING, GZIP) {
            let mut response = response::streamed("application/json", response::gzipped(manifest));
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(GZIP));
            response
        } else {
            response::streamed("application/json", manifest)
        }
    };
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("authorization, accept-encoding"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    headers.extend(HeaderValue::from_str(&etag).ok().map(|etag| (header::ETAG, etag)));
    Ok(response)
}

/// What is noted of a device that asks.
pub(super) struct Heard {
    pub(super) key_id: Option<Uuid>,
    /// How many scans it has yet to send, where it says so.
    pub(super) unsent: Option<i64>,
}

impl Heard {
    /// Notes it. A note that cannot be written keeps no list from a gate.
    pub(super) async fn note(&self, app: &App) {
        let Some(key_id) = self.key_id else { return };
        if let Err(error) = app.in_time(app.store().note_heard(key_id, self.unsent, app.now())).await {
            tracing::warn!(%error, "it is not noted that a device was heard of");
        }
    }
}

/// How many scans a device says it has decided by itself and not yet sent. A header, which releases that do not know it pass
/// over, and that refuses nobody the list, whatever it says.
fn unsent(headers: &HeaderMap) -> Option<i64> {
    let number: u64 = headers.get("register-ticket-unsent")?.to_str().ok()?.parse().ok()?;
    Some(i64::try_from(number).map_or(UNSENT, |number| number.min(UNSENT)))
}

/// For whom a manifest is made.
#[derive(Clone)]
struct Reader {
    key_id: Option<Uuid>,
    gate: Option<String>,
    supervises: bool,
}

impl Reader {
    fn of(caller: &Caller) -> Self {
        let supervises = caller.role.holds(Role::Supervisor);
        Self { key_id: caller.key_id, gate: caller.gate.clone(), supervises }
    }

    fn is_at_gate_of(&self, ticket: &ManifestTicket) -> bool {
        self.gate.as_ref().is_none_or(|gate| fold::same_place(gate, &ticket.gate))
    }

    fn gets_key_of(&self, ticket: &ManifestTicket) -> bool {
        self.is_at_gate_of(ticket) && may_be_admitted(ticket)
    }
}

/// Whether a ticket's code says something: not so of one that nobody holds, or that is revoked. A used ticket may be
/// admitted once more, after its exit or an undo, and that it is used is told to whoever shows its code.
fn may_be_admitted(ticket: &ManifestTicket) -> bool {
    ticket.username.is_some() && ticket.status != Status::Revoked
}

/// Reads a page of the manifest and notes for the case that the device gets lost that it has the keys in it. What was
/// read before the key was revoked may be sent; whoever renews tickets after that has to know of it.
async fn read_page(
    app: &App,
    reader: &Reader,
    event_id: Uuid,
    change: Option<i64>,
    after: Option<Uuid>,
) -> Result<Vec<ManifestTicket>, Error> {
    let tickets = app.store().list_manifest(event_id, change, reader.gate.as_deref(), after, PAGE).await?;
    let given = tickets.iter().filter(|ticket| reader.gets_key_of(ticket));
    let Some((key_id, newest)) = reader.key_id.zip(given.map(|ticket| ticket.seeded_at).max()) else {
        return Ok(tickets);
    };
    // Read anew for each page, like the page itself: a download may take minutes. A clock that was ahead when a seed was
    // made, or is behind now, hides none.
    let now = app.now().max(newest);
    let is_good = app.store().note_manifest(key_id, now + NOTED_AGAIN, now + NOTED_AHEAD).await?;
    if is_good { Ok(tickets) } else { Err(Error::Unauthenticated(None)) }
}

/// The manifest, page by page. Each page is read anew, so a ticket that changes meanwhile may be newer than the ETag;
/// the next request then finds another ETag and gets it again.
fn manifest(
    app: Arc<App>,
    secret: Arc<TicketSecret>,
    event: &Event,
    state: &ManifestState,
    change: Option<i64>,
    reader: Reader,
) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + 'static, Error> {
    let mut head = String::from("{\"event\":");
    head.push_str(&json(event)?);
    head.push_str(",\"as_of\":");
    head.push_str(&state.cursor().to_string());
    head.push_str(",\"whole\":");
    head.push_str(if change.is_none() { "true" } else { "false" });
    head.push_str(",\"counts\":");
    head.push_str(&json(&state.counts)?);
    head.push_str(",\"codes\":");
    head.push_str(&json(&Codes::TOLD)?);
    head.push_str(",\"limits\":");
    head.push_str(&json(&GateLimits::TOLD)?);
    head.push_str(",\"tickets\":[");
    let mut chunk = head.into_bytes();
    let mut first = true;
    let event_id = event.event_id;
    let of = reader.clone();
    let read = move |after| {
        let (app, reader) = (Arc::clone(&app), of.clone());
        async move { app.in_time(read_page(&app, &reader, event_id, change, after)).await }
    };
    let tickets = list::pages(read, |ticket: &ManifestTicket| ticket.ticket_id).map(move |tickets| {
        for ticket in &tickets? {
            if !std::mem::replace(&mut first, false) {
                chunk.push(b',');
            }
            serde_json::to_writer(&mut chunk, &entry(&secret, ticket, &reader))
                .map_err(|error| Error::Internal(error.to_string()))?;
        }
        Ok(Bytes::from(std::mem::take(&mut chunk)))
    });
    Ok(tickets.chain(stream::iter([Ok(Bytes::from_static(b"]}"))])))
}

fn entry<'a>(secret: &TicketSecret, ticket: &'a ManifestTicket, reader: &Reader) -> Entry<'a> {
    // Who is turned away whatever the code is named to supervisors only, and more is told of nobody but who may come in.
    let may_come = may_be_admitted(ticket);
    let named = may_come || reader.supervises;
    let own = reader.is_at_gate_of(ticket).then(|| OwnEntry {
        status: ticket.status,
        registered: ticket.username.is_some(),
        username: ticket.username.as_deref().filter(|_| named),
        full_name: ticket.full_name.as_deref().filter(|_| named),
        holder_event: ticket.holder_event.as_deref().filter(|_| named),
        category: ticket.category.as_deref().filter(|_| may_come),
        note: ticket.note.as_deref().filter(|_| may_come),
        valid_from: ticket.valid_from.filter(|_| may_come),
        valid_until: ticket.valid_until.filter(|_| may_come),
        inside: ticket.inside,
        last_step: ticket.last_step,
        used_at: ticket.used_at,
        entered_at: ticket.entered_at.filter(|_| ticket.entered_at != ticket.used_at),
        walk_up: ticket.walk_up,
        paid: ticket.paid,
        printed: ticket.printed_at.is_some(),
        key: reader.gets_key_of(ticket).then(|| secret.key_of(ticket.ticket_id, ticket.seed).base32()),
    });
    Entry { ticket_id: ticket.ticket_id, seat: &ticket.seat, gate: &ticket.gate, own }
}

fn json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|error| Error::Internal(error.to_string()))
}

/// RFC 9110, section 13.1.2, with the weak comparison that it asks for.
fn matches_etag(call: &Call<'_>, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let sent = call.parts.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|list| list.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}
