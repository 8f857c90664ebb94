//! The manifest: everything a gate needs to decide without a network.

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

/// Renew the record that a device has TOTP keys when less than this is left of it; see [`NOTED_AHEAD`].
const NOTED_AGAIN: Duration = Duration::from_mins(1);

/// Which part of the manifest.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct ManifestQuery {
    /// The `as_of` of an earlier manifest: return only tickets changed since, and of other gates than the key's only new
    /// ones; or all if the service cannot tell (`whole`).
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
        // Rust's parser would accept a sign too. A number larger than any of ours belongs to no history.
        let number: Option<u64> = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.map(|number| Self(number.try_into().unwrap_or(i64::MAX))).ok_or(Fault::NotAnAsOf)
    }
}

/// How codes are generated, and the limits by which a device decides on them, as `totp` and `admission` do.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(inline))]
struct Codes {
    /// The hash of the code: HMAC-SHA-1.
    #[cfg_attr(test, schemars(extend("const" = "SHA1")))]
    algorithm: &'static str,
    /// The number of digits of a code.
    #[cfg_attr(test, schemars(extend("const" = totp::DIGITS)))]
    digits: u8,
    /// How long a code lasts, in seconds.
    #[cfg_attr(test, schemars(extend("const" = totp::PERIOD)))]
    period: i64,
    /// How many steps before and after the current one are accepted.
    #[cfg_attr(test, schemars(extend("const" = totp::DRIFT)))]
    drift: i64,
    /// How far from now a code of another moment is recognised, in steps.
    stale_window: i64,
    /// How far from now a wrong code is recognised as right in another time zone, in quarters of an hour.
    zones: i64,
    /// The number of a ticket's refused codes after which its codes are not checked for a while.
    attempts: i64,
    /// The number of refused codes, of a ticket or of a key, from which a code of the future is called wrong.
    future_told: i64,
    /// The hour at which a day of the event begins, in its time zone.
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

/// What a gate must know about a ticket.
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

/// The details that only the ticket's own gate gets.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct OwnEntry<'a> {
    status: Status,
    /// Whether somebody holds the ticket.
    registered: bool,
    /// The holder's username; null when nobody holds the ticket and, for the key of a gate, when it is revoked.
    #[cfg_attr(test, schemars(with = "Option<Username>"))]
    username: Option<&'a str>,
    /// The holder's name, if known, under the same conditions.
    #[cfg_attr(test, schemars(with = "Option<Text<{ crate::limits::NAME }>>"))]
    full_name: Option<&'a str>,
    /// The slug of the event, if the holder is one of its own people, who may have the same username as somebody of the whole
    /// installation. Absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Slug"))]
    holder_event: Option<&'a str>,
    /// The ticket's category. Absent if it has none, nobody holds it, or it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Text<{ crate::limits::CATEGORY }>"))]
    category: Option<&'a str>,
    /// What the gate should know. Absent under the same conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Text<{ crate::limits::TICKET_NOTE }>"))]
    note: Option<&'a str>,
    /// From when it admits. Absent if only the event's doors limit it, nobody holds it, or it is revoked.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Millis"))]
    valid_from: Option<Millis>,
    /// Until when it admits. Absent under the same conditions.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Millis"))]
    valid_until: Option<Millis>,
    /// Whether the holder is inside: came in and has not gone out.
    inside: bool,
    /// The time step (seconds since the epoch divided by 30) of the newest accepted code; null when none was accepted.
    last_step: Option<i64>,
    /// When the ticket first admitted its holder; null when it has not.
    used_at: Option<Millis>,
    /// When it last admitted its holder. Absent if it did so only once.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "Millis"))]
    entered_at: Option<Millis>,
    /// True if it was issued at the door to somebody without a ticket. Absent otherwise.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(test, schemars(with = "bool", extend("const" = true)))]
    walk_up: bool,
    /// What was paid for it at the door, in the smallest unit of the event's currency. Absent if nothing was recorded.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "u64"))]
    paid: Option<i64>,
    /// Whether the ticket was printed, so that its printed code admits: once, or once a day, without a rotating code.
    printed: bool,
    /// The TOTP key, 20 bytes in base32 without padding. It is a secret. Absent if nobody holds the ticket, or it is
    /// revoked: all its codes are refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(test, schemars(with = "String", regex(pattern = "^[A-Z2-7]{32}$")))]
    key: Option<String>,
}

/// Everything a gate needs to decide offline.
#[cfg(test)]
#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "it is written piece by piece")]
pub(crate) struct Manifest {
    event: Event,
    /// The number of a state of the tickets, not a time. Send it back unchanged as `since`.
    as_of: u64,
    /// Whether these are all of the event's tickets: a device forgets any other ticket. Also true if `since` is from before the
    /// restore of a backup, or from release 0.1.0.
    whole: bool,
    /// The counts, in that state, of all tickets whose `status` this key gets. If there is no change since (304) and a
    /// device's own list has other counts, it loads the whole list and reports the difference.
    counts: GateState,
    codes: Codes,
    limits: GateLimits,
    /// The event's tickets; or those changed since, and of other gates than the key's only new ones.
    tickets: Vec<Entry<'static>>,
}

/// `GET /api/events/{event}/manifest`.
pub async fn show_manifest(call: Call<'_>) -> Result<Response, Error> {
    let query: ManifestQuery = call.query()?;
    let caller = call.caller()?;
    if !caller.offline {
        return Err(Error::Forbidden("Only a key created with `offline` may download the manifest."));
    }
    let event = call.event().await?;
    let heard = Heard { key_id: caller.key_id, unsent: unsent(&call.parts.headers) };
    if !event.has_manifest(call.now) {
        heard.note(call.app).await;
        return Err(Error::ManifestClosed(event.manifest_opens_in(call.now)));
    }
    let secret = Arc::clone(call.app.claimed_secret().await?);
    let state = call.app.store().manifest_state(event.event_id, caller.gate.as_deref()).await?;
    // The id distinguishes the event from a deleted one with the same slug, and the history from a restored database.
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
        // The device has the manifest once it has read all of it.
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

/// The record that a device sent a request.
pub(super) struct Heard {
    pub(super) key_id: Option<Uuid>,
    /// How many scans it has yet to send, if it says so.
    pub(super) unsent: Option<i64>,
}

impl Heard {
    /// Writes the record. A failure is only logged, so that the gate still gets its list.
    pub(super) async fn note(&self, app: &App) {
        let Some(key_id) = self.key_id else { return };
        if let Err(error) = app.in_time(app.store().note_heard(key_id, self.unsent, app.now())).await {
            tracing::warn!(%error, "cannot record that a device was heard from");
        }
    }
}

/// Returns how many scans a device says it has decided offline and not yet sent. It is a header because older releases ignore
/// unknown headers. A malformed value is ignored too, so that the gate still gets its list.
fn unsent(headers: &HeaderMap) -> Option<i64> {
    let number: u64 = headers.get("register-ticket-unsent")?.to_str().ok()?.parse().ok()?;
    Some(i64::try_from(number).map_or(UNSENT, |number| number.min(UNSENT)))
}

/// The key for which a manifest is generated.
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

/// Returns whether a ticket's code matters to the decision: not if nobody holds the ticket or it is revoked. A used
/// ticket may be admitted again after an exit or an undo, and only its right code shows that it is used.
fn may_be_admitted(ticket: &ManifestTicket) -> bool {
    ticket.username.is_some() && ticket.status != Status::Revoked
}

/// Reads a page of the manifest, and records that the device has the TOTP keys in it, in case the device gets lost. A page read
/// before the key was revoked may still be sent, so a renewal of tickets after the revocation must see the record.
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
    // Read for each page, because a download may take minutes. The maximum covers a clock that was ahead when a seed was
    // made, or is behind now.
    let now = app.now().max(newest);
    let is_good = app.store().note_manifest(key_id, now + NOTED_AGAIN, now + NOTED_AHEAD).await?;
    if is_good { Ok(tickets) } else { Err(Error::Unauthenticated(None)) }
}

/// Streams the manifest, page by page. A ticket that changes during the download may be newer than the ETag; the next request
/// then finds another ETag and gets the ticket again.
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
    // Only supervisors see the holder of a ticket that cannot be admitted; nobody sees its other details.
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

/// Returns whether `If-None-Match` matches, by the weak comparison of RFC 9110, section 13.1.2.
fn matches_etag(call: &Call<'_>, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let sent = call.parts.headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    sent.flat_map(|list| list.split(',')).any(|tag| tag.trim() == "*" || opaque(tag) == opaque(etag))
}
