//! Keys and roles. A key is 32 random bytes, sent as `rtk_` and base64url. The database stores only their SHA-256.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use data_encoding::BASE64URL_NOPAD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;

use crate::error::{DatabaseId, Error};
use crate::fold;
use crate::limits::{KEY_REMEMBERED, OFFLINE_AHEAD, OFFLINE_WINDOW};
use crate::model::{Key, Millis, Role};
use crate::store::{Author, FoundKey, Guarded, Store};

/// Capacity of the key cache: more keys than any event has gates.
const REMEMBERED_AT_MOST: usize = 1_000;
/// Concurrent lookups of keys in the database.
const LOOKUPS: usize = 2;
const PREFIX: &str = "rtk_";

pub type Hash = [u8; 32];

/// A new key or token: its text, which its owner sees once, and its hash, which the database stores.
pub struct NewSecret {
    pub text: String,
    pub hash: Vec<u8>,
}

impl NewSecret {
    pub fn random() -> Result<Self, Error> {
        let bytes: [u8; 32] = random_bytes()?;
        let text = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes));
        Ok(Self { text, hash: Sha256::digest(bytes).to_vec() })
    }

    /// Creates a token that enrols a device with this key: the key's id, by which it is looked up, and 16 random bytes.
    pub fn enrolment(key_id: Uuid) -> Result<Self, Error> {
        let random: [u8; 16] = random_bytes()?;
        let bytes = [*key_id.as_bytes(), random].concat();
        Ok(Self { text: BASE64URL_NOPAD.encode(&bytes), hash: Sha256::digest(bytes).to_vec() })
    }
}

/// Returns cryptographically secure random bytes from the operating system.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| Error::Internal(format!("cannot get random bytes: {error}")))?;
    Ok(bytes)
}

/// Returns the id of the key that a token claims to belong to, and the token's hash; `None` if the token is malformed.
pub fn read_enrolment(token: &str) -> Option<(Uuid, Hash)> {
    let bytes = secret_bytes(token)?;
    Some((Uuid::from_slice(&bytes[..16]).ok()?, Sha256::digest(bytes).into()))
}

/// Returns whether `proof` shows that a device that has, or had, the secret of this hash wrote `text` about this event with
/// this key: HMAC-SHA-256, keyed with the secret's SHA-256, of the lines `unsent scan`, key, event and text. The service
/// needs only the stored hash, and the proof discloses nothing about the secret.
pub fn proves(hash: &[u8], proof: &[u8], key_id: Uuid, event: &str, text: &str) -> bool {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(hash) else { return false };
    mac.chain_update(format!("unsent scan\n{key_id}\n{event}\n{text}")).verify_slice(proof).is_ok()
}

fn secret_bytes(text: &str) -> Option<[u8; 32]> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// The client that sent a request, and its permissions.
#[derive(Debug)]
pub struct Caller {
    /// `None` for `ORGANIZER_KEY`.
    pub key_id: Option<Uuid>,
    pub role: Role,
    /// The event to which the caller's role is limited.
    pub event_id: Option<Uuid>,
    /// The gate of all scans of this caller.
    pub gate: Option<String>,
    pub offline: bool,
    pub created_at: Option<Millis>,
    pub expires_at: Option<Millis>,
    /// The remaining permission of a key that has ended.
    pub ended: Option<Ended>,
    /// The database that has the key; `None` for `ORGANIZER_KEY`.
    pub database: Option<DatabaseId>,
}

/// The remaining permission of an ended key: to send scans that its device had decided offline.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// The time until which a scan must have been made.
    pub until: Millis,
    /// Whether an organizer has agreed. Then the gate's own verdict is accepted without proof of the code, and a scan may be
    /// of any age. Anyone who has the device could have made such scans.
    pub agreed: bool,
}

impl Ended {
    /// Returns the remaining permission of an ended key's secret at this moment, if any. An organizer's consent covers only
    /// what had ended when it was given, not a later device with the same key.
    fn of(FoundKey { key, replaced_at, .. }: &FoundKey, now: Millis) -> Option<Self> {
        let withdrawn = key.revoked_at.max(*replaced_at);
        let ended = withdrawn.or(key.expires_at);
        let agreed = key.taken_at.filter(|&at| ended.is_some_and(|end| end <= at) && now < at + OFFLINE_WINDOW);
        let expired = key.expires_at.filter(|&at| withdrawn.is_none() && now < at + OFFLINE_WINDOW);
        match (agreed, expired) {
            (Some(until), _) => Some(Self { until, agreed: true }),
            (None, Some(until)) => Some(Self { until, agreed: false }),
            (None, None) => None,
        }
    }
}

impl Caller {
    /// The holder of `ORGANIZER_KEY`, or the person who runs the command line.
    pub const ENVIRONMENT: Self = Self {
        key_id: None,
        role: Role::Organizer,
        event_id: None,
        gate: None,
        offline: true,
        created_at: None,
        expires_at: None,
        ended: None,
        database: None,
    };

    /// Returns the holder of a key that is valid, or that has ended with a remaining permission.
    fn with(found: &FoundKey, now: Millis) -> Result<Self, Error> {
        let FoundKey { key, replaced_at, database } = found;
        let database = Some(*database);
        let expired = key.expires_at.is_some_and(|expiry| expiry <= now);
        if key.revoked_at.is_none() && replaced_at.is_none() && !expired {
            return Ok(Self { database, ..Self::of(key) });
        }
        let ended = Ended::of(found, now).ok_or(Error::Unauthenticated(database))?;
        Ok(Self { ended: Some(ended), database, ..Self::of(key) })
    }

    /// Returns the device of a key whose scans an organizer uploads as a file.
    pub fn absent(key: &Key, now: Millis) -> Self {
        Self { ended: Some(Ended { until: now + OFFLINE_AHEAD, agreed: true }), ..Self::of(key) }
    }

    fn of(key: &Key) -> Self {
        Self {
            key_id: Some(key.key_id),
            role: key.role,
            event_id: key.event_id,
            gate: key.gate.clone(),
            offline: key.offline || !key.role.is_of_a_device(),
            created_at: Some(key.created_at),
            expires_at: key.expires_at,
            ended: None,
            database: None,
        }
    }

    /// Returns whether an organizer has agreed to accept the scans of this device, whose key has ended.
    pub fn is_agreed(&self) -> bool {
        self.ended.is_some_and(|ended| ended.agreed)
    }

    /// Returns the author of this caller's changes at this moment.
    pub fn author(&self, now: Millis) -> Author {
        Author { key_id: self.key_id, now }
    }

    /// Returns whether the caller may access this gate of its event. A device that is bound to another gate may not.
    pub fn stands_at(&self, gate: &str) -> bool {
        !self.role.is_of_a_device() || self.gate.as_deref().is_none_or(|own| fold::same_place(own, gate))
    }

    /// Returns a row if the caller may access it. Without a row, fails with `missing`.
    pub fn open<T>(&self, row: Option<Guarded<T>>, missing: Error) -> Result<T, Error> {
        row.ok_or(missing)?.open(self.event_id)
    }

    /// Returns an event, or data read from it, if the caller may access it. A bound key does not learn whether another event
    /// exists.
    pub fn open_event<T>(&self, event: Option<Guarded<T>>) -> Result<T, Error> {
        let missing = match self.event_id {
            Some(_) => Error::Forbidden("Your key is bound to another event."),
            None => Error::EventNotFound,
        };
        self.open(event, missing)
    }

    /// Rejects a caller whose key is bound to an event.
    pub fn must_be_unbound(&self) -> Result<(), Error> {
        match self.event_id {
            Some(_) => Err(Error::Forbidden("Your key is bound to one event, but this request concerns all events.")),
            None => Ok(()),
        }
    }
}

/// Authenticates keys, with a cache.
pub struct KeyRing {
    organizer: Option<Hash>,
    lookups: Semaphore,
    remembered: Mutex<Remembered>,
}

#[derive(Default)]
struct Remembered {
    keys: HashMap<Hash, (FoundKey, Millis)>,
    /// The number of invalidations so far.
    forgotten: u64,
}

impl KeyRing {
    pub fn new(organizer_key: Option<&str>) -> Self {
        let organizer = organizer_key.map(|key| Sha256::digest(key).into());
        Self { organizer, lookups: Semaphore::new(LOOKUPS), remembered: Mutex::default() }
    }

    /// Authenticates a request by a valid key. Queries the database only for keys that it has not looked up in the last 30 s.
    pub async fn authenticate(&self, headers: &HeaderMap, store: &dyn Store, now: Millis) -> Result<Caller, Error> {
        let caller = self.authenticate_late(headers, store, now).await?;
        if caller.ended.is_some() { Err(Error::Unauthenticated(caller.database)) } else { Ok(caller) }
    }

    /// Like [`KeyRing::authenticate`], but also accepts an ended key that has a remaining permission.
    pub async fn authenticate_late(
        &self,
        headers: &HeaderMap,
        store: &dyn Store,
        now: Millis,
    ) -> Result<Caller, Error> {
        let token = bearer(headers).ok_or(Error::Unauthenticated(None))?;
        let environment: Hash = Sha256::digest(token).into();
        if self.organizer.is_some_and(|organizer| organizer.ct_eq(&environment).into()) {
            return Ok(Caller::ENVIRONMENT);
        }
        let secret = token.strip_prefix(PREFIX).and_then(secret_bytes).ok_or(Error::Unauthenticated(None))?;
        let hash: Hash = Sha256::digest(secret).into();

        if let Some(caller) = self.recall(&hash, now) {
            return caller;
        }
        let forgotten = self.lock().forgotten;
        let _place = self.place().await?;
        let mut found = store.find_key(&hash).await?;
        if found.key.created_at > now {
            store.note_made_before(found.key.key_id, now).await?;
            found.key.created_at = now - OFFLINE_WINDOW;
        }
        let caller = Caller::with(&found, now);
        self.remember(hash, found, now, forgotten);
        caller
    }

    /// Waits for a permit to look up a secret in the database. Clients that try random secrets queue here and leave the rest
    /// of the pool to clients with cached keys.
    pub async fn place(&self) -> Result<SemaphorePermit<'_>, Error> {
        self.lookups.acquire().await.map_err(|error| Error::Internal(error.to_string()))
    }

    /// Removes the keys that a change made invalid from this process's cache.
    pub fn forget(&self, gone: impl Fn(&Key) -> bool) {
        let mut remembered = self.lock();
        remembered.keys.retain(|_, (found, _)| !gone(&found.key));
        remembered.forgotten += 1;
    }

    fn recall(&self, hash: &Hash, now: Millis) -> Option<Result<Caller, Error>> {
        let remembered = self.lock();
        let (found, since) = remembered.keys.get(hash)?;
        (*since..*since + KEY_REMEMBERED).contains(&now).then(|| Caller::with(found, now))
    }

    /// Caches a key, unless any was invalidated during the lookup: it may have been this one.
    fn remember(&self, hash: Hash, found: FoundKey, now: Millis, forgotten: u64) {
        let mut remembered = self.lock();
        if remembered.forgotten != forgotten {
            return;
        }
        if remembered.keys.len() >= REMEMBERED_AT_MOST {
            remembered.keys.clear();
        }
        remembered.keys.insert(hash, (found, now));
    }

    fn lock(&self) -> MutexGuard<'_, Remembered> {
        // A panic cannot leave an entry half-written.
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::store::SqliteStore;

    const ENVIRONMENT_KEY: &str = "a-secret-that-is-only-in-a-test.";
    const NOW: Millis = Millis(1_000_000);

    fn headers(authorization: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, authorization.parse().unwrap())])
    }

    fn key() -> Key {
        Key {
            key_id: Uuid::from_u128(1),
            name: "North".into(),
            role: Role::Gate,
            event_id: Some(Uuid::from_u128(2)),
            event: Some("fair".into()),
            gate: Some("North".into()),
            offline: false,
            created_at: Millis(0),
            created_by: None,
            expires_at: None,
            revoked_at: None,
            taken_at: None,
        }
    }

    fn found(key: Key) -> FoundKey {
        FoundKey { key, replaced_at: None, database: vec![].into() }
    }

    /// Returns a ring that cached `key` at `NOW`, and the header that carries it.
    fn remembering(key: &Key) -> (KeyRing, HeaderMap) {
        let secret = NewSecret::random().unwrap();
        let ring = KeyRing::new(Some(ENVIRONMENT_KEY));
        ring.remember(secret.hash.try_into().unwrap(), found(key.clone()), NOW, 0);
        (ring, headers(&format!("Bearer {}", secret.text)))
    }

    #[derive(Debug, PartialEq)]
    enum Answer {
        Known(Option<Uuid>),
        Unauthenticated,
        /// The database was queried, which cannot be opened here.
        Asked,
    }

    async fn answer(ring: &KeyRing, headers: &HeaderMap, now: Millis) -> Answer {
        let a_directory = SqliteStore::new("src".into(), 1, Duration::from_secs(1));
        match ring.authenticate(headers, &a_directory, now).await {
            Ok(caller) => Answer::Known(caller.key_id),
            Err(Error::Unauthenticated(_)) => Answer::Unauthenticated,
            Err(_) => Answer::Asked,
        }
    }

    #[test]
    fn a_key_is_sent_as_a_bearer_token() {
        for (authorization, token) in [
            ("Bearer abc", Some("abc")),
            ("bearer abc", Some("abc")),
            ("BEARER   abc  ", Some("abc")),
            ("Bearer", None),
            ("Bearer ", None),
            ("Bearerabc", None),
            ("Basic abc", None),
            ("abc", None),
        ] {
            assert_eq!(bearer(&headers(authorization)), token, "{authorization:?}");
        }
        assert_eq!(bearer(&HeaderMap::new()), None);
        assert_eq!(bearer(&HeaderMap::from_iter([(AUTHORIZATION, "Bearer \u{f1}".parse().unwrap())])), None);
    }

    #[test]
    fn a_new_key_is_32_random_bytes_of_which_the_hash_is_kept() {
        let [one, other] = [NewSecret::random().unwrap(), NewSecret::random().unwrap()];
        assert_ne!(one.text, other.text);
        let bytes = BASE64URL_NOPAD.decode(one.text.strip_prefix(PREFIX).unwrap().as_bytes()).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_eq!(one.hash, Sha256::digest(bytes).to_vec());
    }

    #[test]
    fn a_token_is_found_by_its_key_and_known_by_its_hash() {
        let key_id = key().key_id;
        let [one, other] = [NewSecret::enrolment(key_id).unwrap(), NewSecret::enrolment(key_id).unwrap()];
        assert_ne!(one.text, other.text);
        let (claimed, hash) = read_enrolment(&one.text).unwrap();
        assert_eq!(claimed, key_id);
        assert_eq!(hash.to_vec(), one.hash);
        for text in ["", "x", &one.text[1..], &format!("{}A", one.text), &format!("{PREFIX}{}", one.text)] {
            assert!(read_enrolment(text).is_none(), "{text:?}");
        }
    }

    #[tokio::test]
    async fn the_key_of_the_environment_needs_no_database() {
        let ring = KeyRing::new(Some(ENVIRONMENT_KEY));
        assert_eq!(answer(&ring, &headers(&format!("Bearer {ENVIRONMENT_KEY}")), NOW).await, Answer::Known(None));
    }

    #[tokio::test]
    async fn what_is_no_key_of_ours_is_refused_without_the_database() {
        let short = format!("Bearer {PREFIX}{}", BASE64URL_NOPAD.encode(&[0; 31]));
        let long = format!("Bearer {PREFIX}{}", BASE64URL_NOPAD.encode(&[0; 33]));
        let bare = format!("Bearer {}", BASE64URL_NOPAD.encode(&[0; 32]));
        let almost = format!("Bearer {}!", &ENVIRONMENT_KEY[1..]);
        for ring in [KeyRing::new(Some(ENVIRONMENT_KEY)), KeyRing::new(None)] {
            for authorization in ["Bearer nonsense", "Basic abc", "Bearer rtk_", &short, &long, &bare, &almost] {
                let answer = answer(&ring, &headers(authorization), NOW).await;
                assert_eq!(answer, Answer::Unauthenticated, "{authorization}");
            }
            assert_eq!(answer(&ring, &HeaderMap::new(), NOW).await, Answer::Unauthenticated);
        }
    }

    #[tokio::test]
    async fn a_key_is_remembered_for_30_seconds() {
        let (ring, headers) = remembering(&key());
        let known = Answer::Known(Some(key().key_id));
        assert_eq!(answer(&ring, &headers, NOW).await, known);
        assert_eq!(answer(&ring, &headers, NOW + Duration::from_millis(29_999)).await, known);
        assert_eq!(answer(&ring, &headers, NOW + Duration::from_millis(30_000)).await, Answer::Asked);
        assert_eq!(answer(&ring, &headers, NOW - Duration::from_millis(1)).await, Answer::Asked, "the clock went back");
    }

    #[tokio::test]
    async fn a_remembered_key_expires_in_time() {
        let (ring, headers) = remembering(&Key { expires_at: Some(NOW + Duration::from_millis(1_000)), ..key() });
        assert_eq!(answer(&ring, &headers, NOW + Duration::from_millis(999)).await, Answer::Known(Some(key().key_id)));
        assert_eq!(answer(&ring, &headers, NOW + Duration::from_millis(1_000)).await, Answer::Unauthenticated);
    }

    #[tokio::test]
    async fn a_revoked_key_opens_nothing() {
        let (ring, headers) = remembering(&Key { revoked_at: Some(Millis(1)), ..key() });
        assert_eq!(answer(&ring, &headers, NOW).await, Answer::Unauthenticated);
    }

    #[tokio::test]
    async fn a_key_is_forgotten_at_once_and_no_other() {
        let (ring, headers) = remembering(&key());
        ring.forget(|key| key.key_id == Uuid::nil());
        assert_eq!(answer(&ring, &headers, NOW).await, Answer::Known(Some(key().key_id)));
        ring.forget(|known| known.key_id == key().key_id);
        assert_eq!(answer(&ring, &headers, NOW).await, Answer::Asked);
    }

    #[test]
    fn a_key_that_was_revoked_while_it_was_looked_up_is_not_remembered() {
        let ring = KeyRing::new(None);
        let forgotten = ring.lock().forgotten;
        ring.forget(|known| known.key_id == key().key_id);
        ring.remember([0; 32], found(key()), NOW, forgotten);
        assert!(ring.recall(&[0; 32], NOW).is_none());
    }

    #[test]
    fn so_many_keys_are_remembered_and_no_more() {
        let ring = KeyRing::new(None);
        for number in 0..=REMEMBERED_AT_MOST {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            ring.remember(hash, found(key()), NOW, 0);
            assert!(ring.recall(&hash, NOW).is_some());
            assert!(ring.lock().keys.len() <= REMEMBERED_AT_MOST);
        }
    }

    #[test]
    fn an_organizer_may_do_offline_what_others_are_given() {
        for &role in Role::ALL {
            let may = |offline| Caller::of(&Key { role, offline, ..key() }).offline;
            assert!(may(true), "{role:?}");
            assert_eq!(may(false), role == Role::Organizer, "{role:?}");
        }
    }

    #[test]
    fn a_bound_key_has_its_role_in_its_event_only() {
        let row = |event: u128| Some(Guarded::new(Uuid::from_u128(event), "row"));
        let none = || None::<Guarded<&str>>;
        let bound = Caller::of(&key());
        assert!(bound.open_event(row(2)).is_ok());
        assert!(matches!(bound.open_event(row(3)), Err(Error::Forbidden(_))));
        assert!(matches!(bound.open_event(none()), Err(Error::Forbidden(_))), "not even whether another event exists");
        assert!(bound.open(row(2), Error::TicketNotFound).is_ok());
        assert!(matches!(bound.open(row(3), Error::TicketNotFound), Err(Error::Forbidden(_))));
        assert!(matches!(bound.open(none(), Error::TicketNotFound), Err(Error::TicketNotFound)));
        let of_no_event = Some(Guarded::new(None, "row"));
        assert!(matches!(bound.open(of_no_event, Error::KeyNotFound), Err(Error::Forbidden(_))));
        assert!(matches!(bound.must_be_unbound(), Err(Error::Forbidden(_))));

        let unbound = Caller::of(&Key { event_id: None, ..key() });
        assert!(unbound.open_event(row(3)).is_ok());
        assert!(matches!(unbound.open_event(none()), Err(Error::EventNotFound)));
        assert!(unbound.must_be_unbound().is_ok());
    }
}
