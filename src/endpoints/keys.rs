//! Keys of gates, supervisors and organizers.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, NewSecret, read_enrolment};
use crate::error::Error;
use crate::limits::{ENROLMENT, GateLimits, KEY_AFTER_EVENT, KEY_NAME, KEY_WITHOUT_END};
use crate::links;
use crate::list::{self, PageQuery};
use crate::model::{Event, Key, Millis, Place, Role, Slug, Text};
use crate::request::Call;
use crate::response::{self, Response};

/// What a new key is asked to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    pub name: Text<KEY_NAME>,
    pub role: Role,
    pub event: Option<Slug>,
    pub gate: Option<Place>,
    #[serde(default)]
    pub offline: bool,
    pub expires_at: Option<Millis>,
}

#[derive(Serialize)]
pub struct KeyWithSecret {
    #[serde(flatten)]
    pub details: Key,
    pub key: String,
}

/// `POST /api/keys`: the only answer that shows the key.
pub async fn create_key(call: Call<'_>) -> Result<Response, Error> {
    let new: NewKey = call.json()?;
    response::json(StatusCode::CREATED, &create(call.app, call.caller()?, new, call.now).await?)
}

/// Makes a key. The command line calls it too.
pub async fn create(app: &App, caller: &Caller, new: NewKey, now: Millis) -> Result<KeyWithSecret, Error> {
    let event = match &new.event {
        Some(slug) => Some(caller.open_event(app.store().find_event(&slug.0).await?)?),
        None => {
            caller.must_be_unbound()?;
            None
        }
    };
    if new.gate.is_some() && event.is_none() {
        return Err(Error::field("event", "is required for a key that is bound to a gate"));
    }
    if new.expires_at.is_some_and(|expiry| expiry <= now) {
        return Err(Error::field("expires_at", "must be in the future"));
    }
    let secret = NewSecret::random()?;
    let details = Key {
        key_id: Uuid::now_v7(),
        name: new.name.0,
        role: new.role,
        event_id: event.as_ref().map(|event| event.event_id),
        gate: new.gate.map(Place::into_string),
        offline: new.offline,
        created_at: now,
        expires_at: new.expires_at.or_else(|| default_expiry(new.role, event.as_ref(), now)),
        revoked_at: None,
        event: event.map(|event| event.slug),
    };
    app.store().insert_key(&details, &secret.hash).await?;
    Ok(KeyWithSecret { details, key: secret.text })
}

fn default_expiry(role: Role, event: Option<&Event>, now: Millis) -> Option<Millis> {
    if !role.is_of_a_device() {
        return None;
    }
    let after_event = event.and_then(|event| event.ends_at).map(|end| end + KEY_AFTER_EVENT);
    // A key for an event that is long over would be born dead.
    Some(after_event.filter(|&expiry| expiry > now).unwrap_or(now + KEY_WITHOUT_END))
}

/// `GET /api/keys`.
pub async fn list_keys(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let after = query.after.map(|cursor| cursor.0);
    let keys = call.app.store().list_keys(call.caller()?.event_id, after, query.limit.to_read()).await?;
    list::respond("keys", keys, query.limit, |listed| listed.key.key_id)
}

/// `DELETE /api/keys/{key_id}`: repeatable.
pub async fn revoke_key(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    revoke(call.app, call.caller()?, key_id, call.now).await?;
    Ok(response::no_content())
}

/// Revokes a key. The command line calls it too.
pub async fn revoke(app: &App, caller: &Caller, key_id: Uuid, now: Millis) -> Result<(), Error> {
    find_key(app, caller, key_id).await?;
    app.store().revoke_key(key_id, now).await?;
    app.keys.forget(|key| key.key_id == key_id);
    Ok(())
}

async fn find_key(app: &App, caller: &Caller, key_id: Uuid) -> Result<Key, Error> {
    caller.open(app.store().get_key(key_id).await?, Error::KeyNotFound)
}

#[derive(Serialize)]
pub struct Enrolment {
    pub enrol_url: String,
    expires_at: Millis,
}

/// `POST /api/keys/{key_id}/enrol`: an address that gives the key to one device; the one before is worth nothing.
pub async fn offer_enrolment(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    let key = find_key(call.app, call.caller()?, key_id).await?;
    response::json(StatusCode::OK, &offer(call.app, &key, call.now).await?)
}

/// Makes the address. The demo calls it too.
pub async fn offer(app: &App, key: &Key, now: Millis) -> Result<Enrolment, Error> {
    let token = NewSecret::enrolment(key.key_id)?;
    let expires_at = now + ENROLMENT;
    if !key.role.is_of_a_device() || !app.store().offer_enrolment(key.key_id, &token.hash, expires_at, now).await? {
        return Err(Error::KeyNotEnrollable);
    }
    Ok(Enrolment { enrol_url: links::enrol_url(app, &token.text), expires_at })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EnrolmentBody {
    token: String,
}

/// A key in the hands of a device, and what the device tells its people of the event.
#[derive(Serialize)]
struct EnrolledKey {
    #[serde(flatten)]
    key: KeyWithSecret,
    event_name: Option<String>,
    time_zone: Option<String>,
    starts_at: Option<Millis>,
    ends_at: Option<Millis>,
    limits: GateLimits,
}

/// `POST /api/enrol`: the key for the token, new at each enrolment. What is read is read first, so that nothing but the
/// way back can lose it.
pub async fn enrol(call: Call<'_>) -> Result<Response, Error> {
    let body: EnrolmentBody = call.json()?;
    let (key_id, enrol_hash) = read_enrolment(&body.token).ok_or(Error::EnrolmentExpired)?;
    let store = call.app.store();
    let _place = call.app.keys.place().await?;
    let (details, event) = store.find_enrolment(key_id, &enrol_hash).await?.ok_or(Error::EnrolmentExpired)?;
    let secret = NewSecret::random()?;
    if !store.enrol_key(key_id, &enrol_hash, &secret.hash, call.now).await? {
        return Err(Error::EnrolmentExpired);
    }
    call.app.keys.forget(|key| key.key_id == key_id);
    let enrolled = EnrolledKey {
        key: KeyWithSecret { details, key: secret.text },
        starts_at: event.as_ref().and_then(|event| event.starts_at),
        ends_at: event.as_ref().and_then(|event| event.ends_at),
        time_zone: event.as_ref().map(|event| event.time_zone.clone()),
        event_name: event.map(|event| event.name),
        limits: GateLimits::TOLD,
    };
    response::json(StatusCode::OK, &enrolled)
}
