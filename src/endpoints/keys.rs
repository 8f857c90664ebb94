//! Keys of gates, supervisors and organizers.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::stream::{Stream, StreamExt as _};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::actions::export;
use crate::app::App;
use crate::auth::{Caller, Hash, NewSecret, random_bytes, read_enrolment};
use crate::error::Error;
use crate::fault::Fault;
use crate::limits::{
    ENROLMENT, GateLimits, KEY_AFTER_EVENT, KEY_NAME, KEY_OF_ORGANIZER, KEY_WITHOUT_END, OFFLINE_WINDOW, UNDO_WINDOW,
};
use crate::links;
use crate::list::{self, Cursor, Limit, PAGE, PageQuery};
use crate::model::{Action, Event, Key, Millis, Place, Role, Seed, Slug, Text, Ticket};
use crate::request::Call;
use crate::response::{self, Response};
use crate::sheet::{self, LinkLine};
use crate::store::{Act, Author, Renewal};

/// A key to create.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct NewKey {
    /// What the key is for.
    pub name: Text<KEY_NAME>,
    /// What it may do.
    pub role: Role,
    /// The slug of the event to bind the key to; none when absent.
    pub event: Option<Slug>,
    /// The gate to bind the key to. Needs `event`.
    pub gate: Option<Place>,
    /// Whether the key may load the manifest and send batches; `false` when absent.
    #[serde(default)]
    pub offline: bool,
    /// When the key expires. Absent or null: the key of an `organizer` after [`crate::limits::KEY_OF_ORGANIZER`], but no later
    /// than the key that creates it; another key [`crate::limits::KEY_AFTER_EVENT`] after its event's end or, if that is
    /// unknown or long past, after [`crate::limits::KEY_WITHOUT_END`].
    pub expires_at: Option<Millis>,
}

/// A new key, with its secret, which no other answer contains.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyWithSecret {
    #[serde(flatten)]
    pub details: Key,
    /// The secret to send as `Authorization: Bearer`: `rtk_` and 32 random bytes in base64url without padding.
    #[cfg_attr(test, schemars(regex(pattern = "^rtk_[A-Za-z0-9_-]{43}$")))]
    pub key: String,
}

/// `POST /api/keys`: the only answer with the key's secret.
pub async fn create_key(call: Call<'_>) -> Result<Response, Error> {
    let new: NewKey = call.json()?;
    response::json(StatusCode::CREATED, &create(call.app, call.caller()?, new, call.now).await?)
}

/// Creates a key. The command line calls it too.
pub async fn create(app: &App, caller: &Caller, new: NewKey, now: Millis) -> Result<KeyWithSecret, Error> {
    let event = match &new.event {
        Some(slug) => Some(caller.open_event(app.store().find_event(&slug.0).await?)?),
        None => {
            caller.must_be_unbound()?;
            None
        }
    };
    if new.gate.is_some() && event.is_none() {
        return Err(Error::field("event", Fault::EventMissing));
    }
    if new.expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(Error::field("expires_at", Fault::NotInFuture));
    }
    // A temporary organizer's key must not create one that outlasts it.
    let latest = caller.expires_at.filter(|_| !new.role.is_of_a_device());
    if latest.is_some_and(|latest| new.expires_at.is_some_and(|expiry| latest < expiry)) {
        return Err(Error::field("expires_at", Fault::AfterYourKey));
    }
    let usual = default_expiry(new.role, event.as_ref(), now);
    let expires_at = new.expires_at.unwrap_or(latest.map_or(usual, |latest| usual.min(latest)));
    let secret = NewSecret::random()?;
    let details = Key {
        key_id: Uuid::now_v7(),
        name: new.name.0,
        role: new.role,
        event_id: event.as_ref().map(|event| event.event_id),
        gate: new.gate.map(Place::into_string),
        offline: new.offline,
        created_at: now,
        created_by: caller.key_id,
        expires_at: Some(expires_at),
        revoked_at: None,
        taken_at: None,
        event: event.map(|event| event.slug),
    };
    app.store().insert_key(&details, &secret.hash, caller.author(now)).await?;
    Ok(KeyWithSecret { details, key: secret.text })
}

fn default_expiry(role: Role, event: Option<&Event>, now: Millis) -> Millis {
    if !role.is_of_a_device() {
        return now + KEY_OF_ORGANIZER;
    }
    let after_event = event.and_then(|event| event.ends_at).map(|end| end + KEY_AFTER_EVENT);
    // If the event is long over, that expiry is in the past.
    after_event.filter(|&expiry| expiry > now).unwrap_or(now + KEY_WITHOUT_END)
}

/// `GET /api/keys`.
pub async fn list_keys(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let after = query.after.map(|cursor| cursor.0);
    let caller = call.caller()?;
    let mut keys = call.app.store().list_keys(caller.event_id, after, query.limit.to_read()).await?;
    for listed in &mut keys {
        listed.yours = caller.key_id == Some(listed.key.key_id);
    }
    list::respond("keys", keys, query.limit, |listed| listed.key.key_id)
}

/// `DELETE /api/keys/{key_id}`: also revokes the keys that it created, directly or through others; repeatable.
pub async fn revoke_key(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    revoke(call.app, call.caller()?, key_id, call.now).await?;
    Ok(response::no_content())
}

/// Revokes a key and those that it created, and returns how many. The command line calls it too.
pub async fn revoke(app: &App, caller: &Caller, key_id: Uuid, now: Millis) -> Result<usize, Error> {
    find_key(app, caller, key_id).await?;
    let revoked = app.store().revoke_key(key_id, caller.author(now)).await?;
    app.keys.forget(|key| key.key_id == key_id || revoked.contains(&key.key_id));
    Ok(revoked.len())
}

/// The consent of an organizer to a key's unsent scans.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct TakenScans {
    /// Until when batches with ended secrets of this key are accepted, for scans made until now.
    taken_until: Millis,
}

/// `POST /api/keys/{key_id}/take`: lets devices that no longer have the key send the scans that they made.
pub async fn take_scans(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    find_key(call.app, call.caller()?, key_id).await?;
    call.app.store().take_scans(key_id, call.author()?).await?;
    call.app.keys.forget(|key| key.key_id == key_id);
    response::json(StatusCode::OK, &TakenScans { taken_until: call.now + OFFLINE_WINDOW })
}

/// The maximum tickets that one request renews, so that it ends within seconds and the caller sees progress.
const RENEWED: usize = 5_000;

/// `POST /api/keys/{key_id}/lost`: reports the device as lost. The caller repeats it while tickets remain.
pub async fn report_loss(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    response::json(StatusCode::OK, &lose(call.app, call.caller()?, key_id, call.now).await?)
}

/// Revokes the key of a lost device, and renews up to `RENEWED` of the tickets whose TOTP keys the device may have. The
/// command line calls it too.
pub async fn lose(app: &App, caller: &Caller, key_id: Uuid, now: Millis) -> Result<Renewal, Error> {
    let key = find_key(app, caller, key_id).await?;
    if !key.role.is_of_a_device() {
        return Err(Error::KeyNotOfDevice);
    }
    // Committed first: from then on no manifest is sent to this key.
    revoke(app, caller, key_id, now).await?;
    let new_seed = || Ok(Seed(random_bytes()?));
    app.store().renew_tickets(key_id, now - UNDO_WINDOW, RENEWED, new_seed, caller.author(now)).await
}

/// `GET /api/keys/{key_id}/links.csv`: the links that changed because the key's device is lost, to send again.
pub async fn export_changed_links(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    let key = find_key(call.app, call.caller()?, key_id).await?;
    let Caller { key_id: by, event_id: bound_to, .. } = *call.caller()?;
    let by = by.map(tracing::field::display);
    tracing::info!(key.id = by, event = key.event, "links downloaded");
    let rows = changed_links(Arc::clone(call.app), key_id, bound_to).await?;
    export(&call, changed_links_exported(&key), rows, &format!("links-{key_id}.csv")).await
}

/// Returns the action that records an export of these links.
pub fn changed_links_exported(key: &Key) -> Act {
    Act::new(Action::LinksExported, key.event_id).subject(key.key_id)
}

/// Streams these links as CSV, page by page, for a key bound to an event or to none. The command line writes the same.
pub async fn changed_links(
    app: Arc<App>,
    key_id: Uuid,
    bound_to: Option<Uuid>,
) -> Result<impl Stream<Item = Result<Bytes, Error>> + Send + 'static, Error> {
    let secret = Arc::clone(app.in_time(app.claimed_links()).await?);
    let reader = Arc::clone(&app);
    let read = move |after| {
        let app = Arc::clone(&reader);
        async move { app.in_time(app.store().list_renewed(key_id, after, PAGE)).await }
    };
    let mut writer = sheet::Writer::new::<LinkLine>();
    Ok(list::pages(read, |ticket: &Ticket| ticket.ticket_id).map(move |tickets| {
        for ticket in &tickets? {
            writer.line(&LinkLine::new(ticket, links::ticket_url(&app, &secret, ticket), bound_to))?;
        }
        writer.take()
    }))
}

/// Which scans of a key to list.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct KeyScansQuery {
    /// Only scans received then or later; all when absent.
    since: Option<Millis>,
    /// Maximum number of entries in a page.
    #[serde(default)]
    limit: Limit,
    /// The `next` of the previous page.
    after: Option<Cursor>,
}

/// `GET /api/keys/{key_id}/scans`: the scans made with the key, oldest first.
pub async fn list_key_scans(call: Call<'_>) -> Result<Response, Error> {
    let query: KeyScansQuery = call.query()?;
    let key = find_key(call.app, call.caller()?, call.id("key_id", Error::KeyNotFound)?).await?;
    let (since, after) = (query.since.unwrap_or(Millis(0)), query.after.map(|cursor| cursor.0));
    let scans = call.app.store().list_key_scans(&key, since, after, query.limit.to_read()).await?;
    list::respond("scans", scans, query.limit, |scan| scan.scan_id)
}

pub async fn find_key(app: &App, caller: &Caller, key_id: Uuid) -> Result<Key, Error> {
    caller.open(app.store().get_key(key_id).await?, Error::KeyNotFound)
}

/// An offer of a key to a device.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Enrolment {
    /// The address of the gate's page, with the single-use token in its fragment. It is a secret.
    #[cfg_attr(test, schemars(extend("format" = "uri"), regex(pattern = "/gate#enrol=[A-Za-z0-9_-]{43}$")))]
    pub enrol_url: String,
    /// When the token expires: after [`crate::limits::ENROLMENT`].
    expires_at: Millis,
}

/// `POST /api/keys/{key_id}/enrol`: creates an address that gives the key to one device, and invalidates the previous one.
pub async fn offer_enrolment(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    let key = find_key(call.app, call.caller()?, key_id).await?;
    response::json(StatusCode::OK, &offer(call.app, &key, call.author()?).await?)
}

/// Creates the address. The demo calls it too.
pub async fn offer(app: &App, key: &Key, author: Author) -> Result<Enrolment, Error> {
    let token = NewSecret::enrolment(key.key_id)?;
    let expires_at = author.now + ENROLMENT;
    if !key.role.is_of_a_device() || !app.store().offer_enrolment(key.key_id, &token.hash, expires_at, author).await? {
        return Err(Error::KeyNotEnrollable);
    }
    Ok(Enrolment { enrol_url: links::enrol_url(app, &token.text), expires_at })
}

/// The token of an offer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "EnrolRequest"))]
pub(crate) struct EnrolmentBody {
    /// The part of the `enrol_url` after `#enrol=`.
    #[cfg_attr(test, schemars(regex(pattern = "^[A-Za-z0-9_-]{43}$")))]
    token: String,
}

/// A key offered to a device, and the event's details for the person with the device.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct OfferedKey {
    #[serde(flatten)]
    details: Key,
    /// The event's name; null when the key is not bound to an event.
    event_name: Option<String>,
    /// The event's time zone (IANA).
    time_zone: Option<String>,
    /// When the event starts.
    starts_at: Option<Millis>,
    /// When the event ends.
    ends_at: Option<Millis>,
    limits: GateLimits,
}

/// A key given to a device, with its secret.
#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(crate) struct EnrolledKey {
    #[serde(flatten)]
    offered: OfferedKey,
    /// The secret to send as `Authorization: Bearer`: `rtk_` and 32 random bytes in base64url without padding.
    #[cfg_attr(test, schemars(regex(pattern = "^rtk_[A-Za-z0-9_-]{43}$")))]
    key: String,
}

/// `POST /api/enrol/offer`: returns what a token offers. The token stays valid.
pub async fn show_offer(call: Call<'_>) -> Result<Response, Error> {
    let (key_id, enrol_hash) = read_token(&call)?;
    let _permit = call.app.keys.place().await?;
    response::json(StatusCode::OK, &find_offer(&call, key_id, &enrol_hash).await?)
}

/// `POST /api/enrol`: returns the key for the token, new at each enrolment. It reads everything before it uses the token, so
/// that afterwards only a lost answer can lose the key.
pub async fn enrol(call: Call<'_>) -> Result<Response, Error> {
    let (key_id, enrol_hash) = read_token(&call)?;
    let _permit = call.app.keys.place().await?;
    let offered = find_offer(&call, key_id, &enrol_hash).await?;
    let secret = NewSecret::random()?;
    if !call.app.store().enrol_key(key_id, &enrol_hash, &secret.hash, call.now).await? {
        return Err(Error::EnrolmentExpired);
    }
    call.app.keys.forget(|key| key.key_id == key_id);
    response::json(StatusCode::OK, &EnrolledKey { offered, key: secret.text })
}

fn read_token(call: &Call<'_>) -> Result<(Uuid, Hash), Error> {
    let body: EnrolmentBody = call.json()?;
    read_enrolment(&body.token).ok_or(Error::EnrolmentExpired)
}

/// Returns what a token offers, while it is valid.
async fn find_offer(call: &Call<'_>, key_id: Uuid, enrol_hash: &Hash) -> Result<OfferedKey, Error> {
    let found = call.app.store().find_enrolment(key_id, enrol_hash, call.now).await?;
    let (details, event) = found.ok_or(Error::EnrolmentExpired)?;
    Ok(OfferedKey {
        details,
        starts_at: event.as_ref().and_then(|event| event.starts_at),
        ends_at: event.as_ref().and_then(|event| event.ends_at),
        time_zone: event.as_ref().map(|event| event.time_zone.clone()),
        event_name: event.map(|event| event.name),
        limits: GateLimits::TOLD,
    })
}
