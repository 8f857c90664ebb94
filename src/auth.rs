//! Keys and roles. A key is 32 random bytes, sent as `rtk_` and base64url; the database keeps only their SHA-256.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

use crate::error::Error;
use crate::model::{Event, Key, Millis, Role};
use crate::store::Store;

/// How long a process may go on trusting a key that another process revoked.
const REMEMBERED: i64 = 30 * Millis::SECOND;
/// Keys remembered at most: more than any event has gates, and bounded.
const REMEMBERED_AT_MOST: usize = 1_000;
const PREFIX: &str = "rtk_";

type Hash = [u8; 32];

/// A new key: what its owner gets to see once, and what the database keeps.
pub struct NewSecret {
    pub text: String,
    pub hash: Vec<u8>,
}

impl NewSecret {
    pub fn random() -> Result<Self, Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("no random bytes: {error}")))?;
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
        Ok(Self { text, hash: Sha256::digest(bytes).to_vec() })
    }
}

/// Who is asking, and what they may do.
#[derive(Clone, Debug)]
pub struct Caller {
    /// None for the key of the environment.
    pub key_id: Option<Uuid>,
    pub role: Role,
    /// The only event in which this caller has its role.
    pub event_id: Option<Uuid>,
    /// The gate at which everything this caller scans is scanned.
    pub gate: Option<String>,
    pub offline: bool,
    pub created_at: Option<Millis>,
}

impl Caller {
    /// The holder of `ORGANIZER_KEY`, and whoever runs the command line on the machine.
    pub const ENVIRONMENT: Self =
        Self { key_id: None, role: Role::Organizer, event_id: None, gate: None, offline: true, created_at: None };

    fn of(key: &Key) -> Self {
        Self {
            key_id: Some(key.key_id),
            role: key.role,
            event_id: key.event_id,
            gate: key.gate.clone(),
            offline: key.offline || key.role == Role::Organizer,
            created_at: Some(key.created_at),
        }
    }

    /// Refuses a caller whose key is bound to another event.
    pub fn may_enter(&self, event_id: Uuid) -> Result<(), Error> {
        match self.event_id {
            Some(own) if own != event_id => Err(Error::Forbidden("Your key is bound to another event.")),
            _ => Ok(()),
        }
    }

    /// An event that was looked for, if this caller may know of it.
    pub fn found(&self, event: Option<Event>) -> Result<Event, Error> {
        match event {
            Some(event) => self.may_enter(event.event_id).map(|()| event),
            None if self.event_id.is_some() => Err(Error::Forbidden("Your key is bound to another event.")),
            None => Err(Error::EventNotFound),
        }
    }

    /// Refuses a caller whose key is bound to any event.
    pub fn must_be_unbound(&self) -> Result<(), Error> {
        match self.event_id {
            Some(_) => Err(Error::Forbidden("Your key is bound to one event; this is about all of them.")),
            None => Ok(()),
        }
    }
}

/// The keys this process knows.
pub struct KeyRing {
    organizer: Option<Hash>,
    remembered: Mutex<HashMap<Hash, (Key, Millis)>>,
}

impl KeyRing {
    pub fn new(organizer_key: Option<&str>) -> Self {
        let organizer = organizer_key.map(|key| Sha256::digest(key).into());
        Self { organizer, remembered: Mutex::default() }
    }

    /// Finds who sent a request. Asks the database only for keys it has not seen within the last 30 s.
    pub async fn authenticate(&self, headers: &HeaderMap, store: &dyn Store, now: Millis) -> Result<Caller, Error> {
        let token = bearer(headers).ok_or(Error::Unauthenticated)?;
        let environment: Hash = Sha256::digest(token).into();
        if self.organizer.is_some_and(|organizer| organizer.ct_eq(&environment).into()) {
            return Ok(Caller::ENVIRONMENT);
        }
        let secret = token.strip_prefix(PREFIX).and_then(|text| BASE64URL_NOPAD.decode(text.as_bytes()).ok());
        let hash: Hash = Sha256::digest(secret.filter(|bytes| bytes.len() == 32).ok_or(Error::Unauthenticated)?).into();

        let key = match self.recall(&hash, now) {
            Some(key) => key,
            None => {
                let key = store.find_key(&hash).await?.ok_or(Error::Unauthenticated)?;
                self.remember(hash, &key, now);
                key
            }
        };
        let expired = key.expires_at.is_some_and(|expiry| expiry <= now);
        if key.revoked_at.is_some() || expired { Err(Error::Unauthenticated) } else { Ok(Caller::of(&key)) }
    }

    /// Forgets the keys that a change made invalid, at once in this process.
    pub fn forget(&self, gone: impl Fn(&Key) -> bool) {
        self.lock().retain(|_, (key, _)| !gone(key));
    }

    fn recall(&self, hash: &Hash, now: Millis) -> Option<Key> {
        let remembered = self.lock();
        let (key, since) = remembered.get(hash)?;
        (since.0..since.0 + REMEMBERED).contains(&now.0).then(|| key.clone())
    }

    fn remember(&self, hash: Hash, key: &Key, now: Millis) {
        let mut remembered = self.lock();
        if remembered.len() >= REMEMBERED_AT_MOST {
            remembered.clear();
        }
        remembered.insert(hash, (key.clone(), now));
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, (Key, Millis)>> {
        // A panic cannot leave a map of whole entries half-written.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}
