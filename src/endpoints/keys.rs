//! Keys of gates, supervisors and organizers.

use http::StatusCode;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::app::App;
use crate::auth::{Caller, NewSecret};
use crate::error::Error;
use crate::model::{Event, Key, Millis, Place, Role, Slug, Text};
use crate::page::{self, PageQuery};
use crate::request::Call;
use crate::response::{self, Response};

/// How long after its event's end a key of a gate lives.
const AFTER_EVENT: i64 = 12 * Millis::HOUR;
/// How long it lives when the event's end is not known.
const WITHOUT_END: i64 = 30 * Millis::DAY;

/// What a new key is asked to be.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewKey {
    pub name: Text<100>,
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
        Some(slug) => Some(caller.found(app.store().find_event(&slug.0).await?)?),
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
    if role == Role::Organizer {
        return None;
    }
    let after_event = event.and_then(|event| event.ends_at).map(|end| end.plus(AFTER_EVENT));
    // A key for an event that is long over would be born dead.
    Some(after_event.filter(|&expiry| expiry > now).unwrap_or(now.plus(WITHOUT_END)))
}

/// `GET /api/keys`.
pub async fn list_keys(call: Call<'_>) -> Result<Response, Error> {
    let query: PageQuery = call.query()?;
    let after = query.after.map(|cursor| cursor.0);
    let keys = call.app.store().list_keys(call.caller()?.event_id, after, query.limit.to_read()).await?;
    page::respond("keys", keys, query.limit, |key| key.key_id)
}

/// `DELETE /api/keys/{key_id}`: repeatable.
pub async fn revoke_key(call: Call<'_>) -> Result<Response, Error> {
    let key_id = call.id("key_id", Error::KeyNotFound)?;
    revoke(call.app, call.caller()?, key_id, call.now).await?;
    Ok(response::no_content())
}

/// Revokes a key. The command line calls it too.
pub async fn revoke(app: &App, caller: &Caller, key_id: Uuid, now: Millis) -> Result<(), Error> {
    let key = app.store().get_key(key_id).await?.ok_or(Error::KeyNotFound)?;
    if caller.event_id.is_some() && caller.event_id != key.event_id {
        return Err(Error::Forbidden("Your key is bound to another event."));
    }
    app.store().revoke_key(key_id, now).await?;
    app.keys.forget(|key| key.key_id == key_id);
    Ok(())
}
