//! What the service asks of a database, one trait a resource. `queries/` answers in SQL that both databases read, one
//! file a trait; `postgres.rs` and `sqlite.rs` hold what differs: opening, locking, registering, marking, bulk inserts.
//!
//! No call has a deadline of its own: the caller drops the call when time is up, and the connection dies with it.

pub mod migrations;
mod pool;
mod postgres;
mod sqlite;
mod together;

use std::collections::BTreeMap;

use async_trait::async_trait;
use uuid::Uuid;

pub use postgres::PostgresStore;
pub(crate) use postgres::schema as postgres_schema;
pub use sqlite::SqliteStore;
pub(crate) use sqlite::{beside, log_without_file, make_directory_of, schema as sqlite_schema};

use crate::config::{Database, Settings};
use crate::error::{DatabaseId, Error};
#[cfg(test)]
use crate::model::Place;
use crate::model::{
    Action, CategoryColours, Direction, Event, Key, MailList, Millis, Reentry, Scan, ScanResult, Seed, Status, Ticket,
    User, check_order,
};
pub use migrations::Migrated;
use migrations::{MIGRATIONS, Migration};

pub type Result<T> = std::result::Result<T, Error>;

/// The event that is meant where a request names none. Every database has it.
pub const DEFAULT_EVENT: &str = "default";

/// The gate of tickets for which nobody names one, where the event has not exactly one.
pub const ENTRANCE: &str = "Entrance";

/// The holder of a ticket whose holder was erased between being found and being written: nobody has this id, so the
/// foreign key refuses the ticket instead of leaving it without a holder.
const NOBODY: Uuid = Uuid::nil();

/// The database, as the endpoints see it: what is here and in the traits below. Every method is one unit: all of it
/// happens, or nothing.
#[async_trait]
pub trait Store:
    Keys
    + Users
    + Events
    + Forgetting
    + Issues
    + Lists
    + Tickets
    + Mails
    + Admissions
    + Scans
    + Losses
    + Actions
    + Invariants
    + Send
    + Sync
{
    async fn health(&self) -> Result<Health>;

    /// What the database keeps of the secrets; no fingerprint before the first `TICKET_SECRET`.
    async fn kept_secrets(&self) -> Result<KeptSecrets>;
    /// Keeps the fingerprint if the database has none yet, and returns what it keeps.
    async fn claim_secret(&self, fingerprint: &[u8]) -> Result<KeptSecrets>;
}

/// What the database keeps of the secrets that tickets are made with.
#[derive(sqlx::FromRow)]
pub struct KeptSecrets {
    /// Of the `TICKET_SECRET` that this database is used with.
    pub secret_fingerprint: Option<Vec<u8>>,
    /// What links of ticket pages are made with besides: 32 random bytes.
    pub link_salt: Option<Vec<u8>>,
}

impl KeptSecrets {
    /// Which database this is.
    pub fn database(&self) -> Option<DatabaseId> {
        self.link_salt.clone().map(DatabaseId::from)
    }
}

/// A row of an event, which only that event's keys and those of no event may see: it is given out to nobody who does not
/// say which event their key is bound to.
pub struct Guarded<T> {
    row: T,
    event_id: Option<Uuid>,
}

impl<T> Guarded<T> {
    /// `event_id` is the event that the row belongs to, if any.
    pub fn new(event_id: impl Into<Option<Uuid>>, row: T) -> Self {
        Self { row, event_id: event_id.into() }
    }

    /// The row, for a key that is bound to this event or to none.
    pub fn open(self, bound_to: Option<Uuid>) -> Result<T> {
        match bound_to {
            Some(_) if bound_to != self.event_id => Err(Error::Forbidden("Your key is bound to another event.")),
            _ => Ok(self.row),
        }
    }
}

/// Who changes something, and when.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// None for the key of the environment, and for the command line.
    pub key_id: Option<Uuid>,
    pub now: Millis,
}

/// What was done: an entry of `actions`, but for who did it and when.
pub struct Act {
    pub action: Action,
    /// The event it belongs to, with which it is deleted; none where it is about the whole installation.
    pub event_id: Option<Uuid>,
    pub ticket_id: Option<Uuid>,
    /// What else it was done to: a user, a key, a scan, an event that is gone.
    pub subject_id: Option<Uuid>,
    /// To how many at once.
    pub count: Option<i64>,
}

impl Act {
    pub fn new(action: Action, event_id: impl Into<Option<Uuid>>) -> Self {
        Self { action, event_id: event_id.into(), ticket_id: None, subject_id: None, count: None }
    }

    pub fn ticket(self, ticket_id: Uuid) -> Self {
        Self { ticket_id: Some(ticket_id), ..self }
    }

    pub fn subject(self, subject_id: Uuid) -> Self {
        Self { subject_id: Some(subject_id), ..self }
    }

    pub fn count(self, count: usize) -> Self {
        Self { count: i64::try_from(count).ok(), ..self }
    }
}

/// What organizers and supervisors did. What changes something is recorded in the transaction of the change, by the method
/// that makes it.
#[async_trait]
pub trait Actions {
    /// Records what changes nothing, such as an export.
    async fn record_action(&self, author: Author, act: &Act) -> Result<()>;
    /// Actions in the order in which they were done, after the one with this moment and id: an event's, or all.
    async fn list_actions(
        &self,
        event_id: Option<Uuid>,
        after: Option<(Millis, Uuid)>,
        limit: i64,
    ) -> Result<Vec<ListedAction>>;
    /// What was done to one ticket, in that order, after the action with this id: the issue is among it, and what was done to
    /// all tickets of its event at once.
    async fn list_ticket_actions(&self, ticket_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<ListedAction>>;
}

/// What holds of the data whatever happens, for whoever doubts it.
#[async_trait]
pub trait Invariants {
    /// Looks at all rows, which takes as long as it takes: the caller sets no deadline.
    async fn check(&self) -> Result<Vec<Checked>>;
}

/// An invariant, and the rows for which it does not hold.
#[derive(Debug)]
pub struct Checked {
    pub name: &'static str,
    /// What is wrong where it does not hold, and what that means.
    pub meaning: &'static str,
    /// How many rows break it.
    pub broken: i64,
    /// The ids of some of these.
    pub ids: Vec<Uuid>,
}

impl Checked {
    /// One line of what is wrong, if anything is.
    pub fn breach(&self) -> Option<String> {
        let Self { name, meaning, broken, ids } = self;
        let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
        let more = if *broken > ids.len() as i64 { ", …" } else { "" };
        (*broken > 0).then(|| format!("{name}: {broken}. {meaning} {}{more}", ids.join(", ")))
    }
}

/// What was done, by whom and when, without personal data.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Action"))]
pub struct ListedAction {
    /// The action's id, a UUID (version 7) made by the service.
    pub action_id: Uuid,
    /// When it was done.
    pub at: Millis,
    pub action: Action,
    /// The key that did it; null for the key of the environment, and for the command line.
    pub key_id: Option<Uuid>,
    /// That key's name, while there is the key.
    pub key_name: Option<String>,
    /// The slug of the event; null where it is about the whole installation.
    #[cfg_attr(test, schemars(with = "Option<crate::model::Slug>"))]
    pub event: Option<String>,
    /// The ticket; null where it is about none, or about many.
    pub ticket_id: Option<Uuid>,
    /// What else it was done to: a user, a key, a scan, or an event that is gone.
    pub subject_id: Option<Uuid>,
    /// How many tickets it was done to, where it is about many.
    pub count: Option<i64>,
}

/// What `GET /health?full=1` looks at.
pub struct Health {
    pub migrated: bool,
    /// The database's clock.
    pub now: Millis,
    /// Whether what it acknowledged outlives a crash.
    pub durable: bool,
    /// Whether it takes a write now.
    pub writable: bool,
    /// Whether nobody has used it yet.
    pub empty: bool,
}

/// Who deletes an event leaves an action behind.
const IS_EMPTY: &str = "select not exists (select 1 from tickets) and not exists (select 1 from actions)";

/// Writes, and changes nothing: where there is no room, or only reading is allowed, that fails.
const PROBE: &str =
    "insert into settings (name, value) values ('probe', '') on conflict (name) do update set value = excluded.value";

/// Says in the log why a database takes no write.
fn is_written<T>(probe: std::result::Result<T, sqlx::Error>) -> bool {
    probe.inspect_err(|error| tracing::warn!(%error, "full health check: the database takes no write")).is_ok()
}

#[async_trait]
pub trait Keys {
    /// The key that this secret is, or was until another device got it. [`Error::Unauthenticated`] where there is none.
    async fn find_key(&self, secret_hash: &[u8]) -> Result<FoundKey>;
    /// The hashes of all secrets that a key has and had.
    async fn list_secrets(&self, key_id: Uuid) -> Result<Vec<Vec<u8>>>;
    /// Keeps a new key, if the key that makes it is still good.
    async fn insert_key(&self, key: &Key, secret_hash: &[u8], author: Author) -> Result<()>;
    /// Keys in the order of their creation; with an event only those bound to it.
    async fn list_keys(&self, event_id: Option<Uuid>, after: Option<Uuid>, limit: i64) -> Result<Vec<ListedKey>>;
    async fn get_key(&self, key_id: Uuid) -> Result<Option<Guarded<Key>>>;
    /// Revokes a key, and every key that it made, and so on; what they offered to devices is worth nothing any more. Returns
    /// those that were not revoked before.
    async fn revoke_key(&self, key_id: Uuid, author: Author) -> Result<Vec<Uuid>>;
    /// Keeps the token that enrols a device with a key, instead of the one before, if the key that offers it is still good.
    /// Returns whether the offered key is.
    async fn offer_enrolment(
        &self,
        key_id: Uuid,
        enrol_hash: &[u8],
        expires_at: Millis,
        author: Author,
    ) -> Result<bool>;
    /// The key that a token enrols with while both are good, and its event, for whoever has the token.
    async fn find_enrolment(
        &self,
        key_id: Uuid,
        enrol_hash: &[u8],
        now: Millis,
    ) -> Result<Option<(Key, Option<Event>)>>;
    /// Gives a key a new secret and uses its token up. Returns whether it did: the token has to be good, and so the key. The
    /// secret before is kept, where its device had a list, to prove what it scanned.
    async fn enrol_key(&self, key_id: Uuid, enrol_hash: &[u8], secret_hash: &[u8], now: Millis) -> Result<bool>;
    /// Notes that a key was there at `now`, and for longer than any scan may be old: its creation lies in the future, because
    /// the clock was ahead then.
    async fn note_made_before(&self, key_id: Uuid, now: Millis) -> Result<()>;
    /// Notes that a key's device was heard of, and how many scans it has yet to send, where it says so: unless something was noted
    /// within [`crate::limits::HEARD_NOTED`].
    async fn note_heard(&self, key_id: Uuid, unsent: Option<i64>, now: Millis) -> Result<()>;
    /// Agrees to take what was scanned until now with secrets of a key that have ended.
    async fn take_scans(&self, key_id: Uuid, author: Author) -> Result<()>;
}

/// A key by one of its secrets.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct FoundKey {
    #[sqlx(flatten)]
    pub key: Key,
    /// When another device got the key with another secret; none for the secret that it has now.
    pub replaced_at: Option<Millis>,
    /// The database that knows it.
    #[sqlx(rename = "link_salt", try_from = "Vec<u8>")]
    pub database: DatabaseId,
}

/// A key, and when its holder was last at work.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Key"))]
pub struct ListedKey {
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub key: Key,
    /// When the newest scan with this key was received; null when there is none.
    pub newest_scan_at: Option<Millis>,
    /// When its device was last heard of, within a minute: by a scan, its list or its numbers; null when it never was.
    pub heard_at: Option<Millis>,
    /// How many scans its device said then it had decided by itself and not yet sent; null when it did not say.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub unsent: Option<i64>,
    /// When the device last got its list, or was told that it is as it should be, within a minute; null when it has none.
    pub manifest_at: Option<Millis>,
    /// When the key last passed from a device that worked offline to another one; null when it never did.
    pub replaced_at: Option<Millis>,
    /// Whether it is the key that asked.
    #[sqlx(skip)]
    pub yours: bool,
}

/// How a person is named: by a username among an event's own people, or among those of the whole installation.
#[derive(Clone, Debug)]
pub struct PersonName {
    pub username: String,
    pub event_id: Option<Uuid>,
}

#[async_trait]
pub trait Users {
    async fn insert_user(&self, person: &PersonName, details: &UserDetails, author: Author) -> Result<User>;
    async fn find_user(&self, person: &PersonName) -> Result<Option<User>>;
    /// Changes the person, and then has every gate that keeps a list learn the name, where one is given.
    async fn change_user(&self, person: &PersonName, change: &UserChange, author: Author) -> Result<User>;
    /// Erases the person, takes their tickets away and revokes them; of a person with many, some by one transaction, the
    /// person by the last. Who was stopped on the way leaves the person with the tickets that are left, and repeats it.
    async fn erase_user(&self, person: &PersonName, author: Author) -> Result<()>;
}

/// What is known of a person.
pub struct UserDetails {
    pub full_name: Option<String>,
    pub email: Option<String>,
}

/// Changes to a person; what is `None` stays, and the inner `None` clears.
pub struct UserChange {
    pub full_name: Option<Option<String>>,
    pub email: Option<Option<String>>,
}

#[async_trait]
pub trait Events {
    async fn insert_event(&self, event: &Event, author: Author) -> Result<()>;
    async fn find_event(&self, slug: &str) -> Result<Option<Guarded<Event>>>;
    async fn list_events(&self, after: Option<Uuid>, limit: i64) -> Result<Vec<Event>>;
    async fn change_event(&self, event_id: Uuid, change: &EventChange, author: Author) -> Result<Event>;
    /// Deletes an event with its keys, unless it is in use: from then on nobody finds it, nor anything of it, and its slug is
    /// free. `confirm` is the slug repeated; it may be missing where there are no tickets.
    async fn delete_event(&self, event_id: Uuid, confirm: Option<&str>, author: Author) -> Result<()>;
    /// Deletes the rows of an event that is deleted, while others can write; then those of events whose deletion was stopped
    /// before this.
    async fn clear_event(&self, event_id: Uuid, now: Millis) -> Result<()>;

    /// When the list of an event was last printed, and what was done to its tickets since.
    async fn printed_list(&self, event_id: Uuid) -> Result<PrintedList>;
    /// Keeps that it is printed now.
    async fn note_list_printed(&self, event_id: Uuid, author: Author) -> Result<()>;

    /// The state of an event's tickets, and what is counted of those of one gate, or of all.
    async fn manifest_state(&self, event_id: Uuid, gate: Option<&str>) -> Result<ManifestState>;
    /// What is counted of an event, and which keys seem to try codes.
    async fn stats(&self, event_id: Uuid, now: Millis) -> Result<Stats>;
}

/// How an event forgets its people: their names, usernames, addresses, references and notes, and what tells who was mailed. What is
/// counted of it stays.
#[async_trait]
pub trait Forgetting {
    /// Events whose people are to be forgotten by now, and those that have forgotten theirs: of these something may be left,
    /// where that was stopped, or have come since.
    async fn list_due(&self, now: Millis) -> Result<Vec<Event>>;
    /// What forgetting an event's people would erase now.
    async fn count_people(&self, event_id: Uuid) -> Result<Forgotten>;
    /// Forgets an event's people. From the first moment on it admits nobody and takes no ticket; what is personal is then erased by
    /// short transactions, between which others write. Who is stopped on the way repeats it. [`Error::EventInUse`] while people come in or
    /// somebody writes of it, [`Error::ImportInProgress`] while tickets are imported.
    async fn forget_event(&self, event_id: Uuid, author: Author) -> Result<Forgotten>;
}

/// What of an event's people was erased, or would be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Forgotten {
    /// Tickets that told of somebody.
    pub tickets: i64,
    /// People who hold no ticket of another event that has not forgotten its own.
    pub people: i64,
}

/// The list of an event on paper, and how much of it is true no more.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PrintedList {
    /// When its tickets were last read to be printed; null when they never were.
    pub printed_at: Option<Millis>,
    /// How many tickets were made, given to a person, corrected, reissued or revoked since then; one to which two of these
    /// happened counts twice.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub changes: i64,
}

/// Changes to an event; what is `None` stays, and the inner `None` clears.
#[derive(Default)]
pub struct EventChange {
    pub name: Option<String>,
    pub time_zone: Option<String>,
    pub starts_at: Option<Option<Millis>>,
    pub ends_at: Option<Option<Millis>>,
    pub opens_at: Option<Option<Millis>>,
    pub closes_at: Option<Option<Millis>>,
    pub reentry: Option<Reentry>,
    pub capacity: Option<Option<i64>>,
    pub category_colours: Option<CategoryColours>,
    pub language: Option<Option<String>>,
    pub location: Option<Option<String>>,
    pub forget_after_days: Option<Option<i64>>,
    pub walk_ups: Option<bool>,
    pub walk_up_price: Option<Option<i64>>,
    pub currency: Option<Option<String>>,
}

impl EventChange {
    /// Applies the change, unless the event would then end before it starts, close before it opens, or have a price without a
    /// currency.
    pub fn apply(&self, event: &mut Event) -> Result<()> {
        if let Some(name) = &self.name {
            event.name.clone_from(name);
        }
        if let Some(time_zone) = &self.time_zone {
            event.time_zone.clone_from(time_zone);
        }
        event.starts_at = self.starts_at.unwrap_or(event.starts_at);
        event.ends_at = self.ends_at.unwrap_or(event.ends_at);
        event.opens_at = self.opens_at.unwrap_or(event.opens_at);
        event.closes_at = self.closes_at.unwrap_or(event.closes_at);
        event.reentry = self.reentry.unwrap_or(event.reentry);
        event.capacity = self.capacity.unwrap_or(event.capacity);
        if let Some(colours) = &self.category_colours {
            event.category_colours.clone_from(colours);
        }
        if let Some(language) = &self.language {
            event.language.clone_from(language);
        }
        if let Some(location) = &self.location {
            event.location.clone_from(location);
        }
        event.forget_after_days = self.forget_after_days.unwrap_or(event.forget_after_days);
        event.walk_ups = self.walk_ups.unwrap_or(event.walk_ups);
        event.walk_up_price = self.walk_up_price.unwrap_or(event.walk_up_price);
        if let Some(currency) = &self.currency {
            event.currency.clone_from(currency);
        }
        event.check_price()?;
        event.check_times()
    }
}

/// What identifies the state of an event's tickets, as far as a gate is told of it.
#[derive(Debug, sqlx::FromRow)]
pub struct ManifestState {
    pub tickets: i64,
    /// Of those of the gate: what is told of others never changes.
    pub versions: i64,
    /// What tells this database from others, and from itself before it was restored.
    history: Vec<u8>,
    /// The number of the first change that may be missing in what is read.
    change: i64,
    #[sqlx(flatten)]
    pub counts: GateState,
}

/// What a gate compares with its own list, when it has heard of no change.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(inline))]
pub struct GateState {
    /// Tickets with a `status`.
    #[sqlx(rename = "own_tickets")]
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub tickets: i64,
    /// Those of them with a `used_at`.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub admitted: i64,
    /// Those whose holder is inside.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub inside: i64,
}

impl ManifestState {
    /// The bits of a cursor that count changes; those above tell the history. Together they are fewer than the 53 that a
    /// number has in JavaScript.
    const COUNTING: u32 = 32;
    const HISTORIES: i64 = 1 << 20;
    /// Cursors of 0.1.0 were times, in milliseconds: they lie below the first history.
    const FIRST_HISTORY: i64 = 1 << 10;

    /// Tells this database's history from others, most likely.
    pub fn history(&self) -> i64 {
        let random = self.history.iter().take(4).fold(0, |number, byte| (number << 8) | i64::from(*byte));
        Self::FIRST_HISTORY + random % (Self::HISTORIES - Self::FIRST_HISTORY)
    }

    fn begin(&self) -> i64 {
        self.history() << Self::COUNTING
    }

    /// Stands for this state: whoever has it and asks later gets what changed in between. No clock is in it.
    pub fn cursor(&self) -> i64 {
        self.begin() + self.change
    }

    /// The first change that is new to whoever has a cursor. None where it is of another history, or of the future of this
    /// one: then everything may be new.
    pub fn change_since(&self, cursor: i64) -> Option<i64> {
        (self.begin()..=self.cursor()).contains(&cursor).then(|| cursor - self.begin())
    }
}

pub struct Stats {
    pub groups: Vec<CountedGroup>,
    pub refused: BTreeMap<String, i64>,
    pub undone: i64,
    pub arrivals: Vec<Arrivals>,
    /// Keys of which [`crate::limits::GUESSES_NOTED`] codes or more were refused lately, the most first.
    pub guessing: Vec<GuessingKey>,
    /// How many rows were counted.
    pub rows: i64,
}

impl Stats {
    pub fn new(groups: Vec<CountedGroup>, scans: &[CountedScans], guessing: Vec<GuessingKey>) -> Self {
        let mut refused = BTreeMap::new();
        let (mut undone, mut arrivals) = (0, BTreeMap::new());
        for counted in scans {
            undone += if counted.undone { counted.scans } else { 0 };
            match counted.minute {
                None => *refused.entry(counted.result.clone()).or_default() += counted.scans,
                Some(minute) if counted.direction == Direction::Entry && !counted.undone => {
                    *arrivals.entry(minute).or_default() += counted.scans;
                }
                Some(_) => {}
            }
        }
        let arrivals = arrivals.into_iter().map(|(minute, admitted)| Arrivals { minute, admitted }).collect();
        let rows =
            groups.iter().map(|group| group.counts.tickets).chain(scans.iter().map(|counted| counted.scans)).sum();
        Self { groups, refused, undone, arrivals, guessing, rows }
    }
}

/// Scans of one kind that were counted together.
#[derive(sqlx::FromRow)]
pub struct CountedScans {
    pub result: String,
    pub direction: Direction,
    pub undone: bool,
    /// The minute of those that were accepted.
    pub minute: Option<Millis>,
    pub scans: i64,
}

/// A key with which many wrong codes were scanned.
#[derive(sqlx::FromRow)]
pub struct GuessingKey {
    /// None for the key of the environment.
    pub key_id: Option<Uuid>,
    pub name: Option<String>,
    pub gate: Option<String>,
    /// Within the last [`crate::limits::GUESSES_SHOWN`].
    pub refused_codes: i64,
    /// Within the last [`crate::limits::ATTEMPTS_WINDOW`].
    pub within_window: i64,
}

/// What is counted of the tickets of one category at one gate.
#[derive(Debug, sqlx::FromRow)]
pub struct CountedGroup {
    pub gate: String,
    pub category: Option<String>,
    #[sqlx(flatten)]
    pub counts: Counts,
}

/// What is counted, of an event or of a gate.
#[derive(Debug, Default, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counts {
    /// Tickets, without those of walk-ups that were undone.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub tickets: i64,
    /// Tickets that were registered to a person.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub registered: i64,
    /// Tickets that have admitted their holder, which are those with a `used_at`.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub admitted: i64,
    /// Tickets whose holder may still come: held, and neither used nor revoked.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub expected: i64,
    /// Holders who are inside now.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub inside: i64,
    /// People who were admitted without a ticket; they are among those admitted.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub walk_ups: i64,
    /// What they paid, in the smallest unit of the event's currency.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub cash: i64,
}

impl Counts {
    /// Adds what is counted of something else.
    pub fn add(&mut self, other: &Self) {
        self.tickets += other.tickets;
        self.registered += other.registered;
        self.admitted += other.admitted;
        self.expected += other.expected;
        self.inside += other.inside;
        self.walk_ups += other.walk_ups;
        self.cash += other.cash;
    }
}

/// The admissions of one minute.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Arrivals {
    /// The start of the minute.
    pub minute: Millis,
    /// Tickets admitted in this minute.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub admitted: i64,
}

#[async_trait]
pub trait Issues {
    /// Creates all of these tickets, which appear at once, or none, and with them those of their holders whom nobody knows
    /// among the people of `people_of`: that event's own, or the installation's; and makes the corrections. Others can write
    /// meanwhile. `progress` is told how many tickets are written so far. [`Error::SeatTaken`], and
    /// [`Error::InvalidPayload`] where a holder is known with another address, name the tickets by their place in the slice.
    async fn create_tickets(
        &self,
        event_id: Uuid,
        people_of: Option<Uuid>,
        list: &Issuance,
        author: Author,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<Created>;
}

/// What a list has to know of what is there.
#[async_trait]
pub trait Lists {
    /// The gates of an event's tickets, and the greatest number that is a seat at each.
    async fn list_gates(&self, event_id: Uuid) -> Result<Vec<GateSeats>>;
    /// The tickets of an event that are there already of those that a list names, each with the place of what names it.
    async fn find_issued(&self, event_id: Uuid, wanted: &[Wanted]) -> Result<Vec<Issued>>;
    /// The tickets of an event that these people hold, in the order of their ids.
    async fn find_held(&self, event_id: Uuid, people_of: Option<Uuid>, usernames: &[String]) -> Result<Vec<Issued>>;
    /// Those of these people who are known.
    async fn find_people(&self, people_of: Option<Uuid>, usernames: &[String]) -> Result<Vec<KnownPerson>>;
}

/// What a list makes of an event's tickets.
#[derive(Default)]
pub struct Issuance {
    /// The holders of the new tickets, each once.
    pub people: Vec<NewUser>,
    pub tickets: Vec<NewTicket>,
    pub corrections: Vec<Correction>,
    /// What is to be known of people of whom it is not known yet.
    pub details: Vec<NewUser>,
}

/// What changes of a ticket that is there; what is `None` stays.
pub struct Correction {
    pub ticket_id: Uuid,
    pub reference: Option<String>,
    /// The name on the ticket; the inner `None` is the holder's own.
    pub holder_name: Option<Option<String>>,
    /// Who gets the ticket, if nobody holds it.
    pub username: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    pub valid_from: Option<Millis>,
    pub valid_until: Option<Millis>,
}

impl Correction {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        let Self { ticket_id: _, reference, holder_name, username, category, note, valid_from, valid_until } = self;
        let texts = [reference, username, category, note];
        let times = [valid_from, valid_until];
        holder_name.is_none() && texts.into_iter().all(Option::is_none) && times.into_iter().all(Option::is_none)
    }
}

/// How a list names a ticket that may be there: by its reference, or by its seat and gate.
pub struct Wanted {
    pub reference: Option<String>,
    pub place: Option<(String, String)>,
}

/// A ticket that is there, as far as a list has to know it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Issued {
    /// The place in the list of what was asked for.
    #[sqlx(skip)]
    pub place: usize,
    pub ticket_id: Uuid,
    pub seat: String,
    pub gate: String,
    pub reference: Option<String>,
    pub status: Status,
    pub username: Option<String>,
    /// The event whose own person the holder is.
    pub holder_event_id: Option<Uuid>,
    /// The holder's own name.
    pub own_name: Option<String>,
    /// The name on the ticket.
    pub full_name: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    pub valid_from: Option<Millis>,
    pub valid_until: Option<Millis>,
    pub walk_up: bool,
}

/// Somebody whom a list names.
#[derive(sqlx::FromRow)]
pub struct KnownPerson {
    pub username: String,
    pub full_name: Option<String>,
    pub email: Option<String>,
}

/// A gate, the greatest number that is a seat there, and how many tickets it has.
#[derive(sqlx::FromRow)]
pub struct GateSeats {
    pub gate: String,
    pub last_number: Option<i64>,
    /// Tickets that are not revoked, and that nobody got at the door.
    pub standing: i64,
}

#[async_trait]
pub trait Tickets {
    async fn list_tickets(&self, event_id: Uuid, filter: &TicketFilter, limit: i64) -> Result<Vec<Ticket>>;
    async fn list_user_tickets(&self, user_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Ticket>>;
    /// An event's tickets in the order of their ids, or those of them that a change with this number or a later one wrote. Of
    /// another gate than this those that are new: all that is told of them never changes.
    async fn list_manifest(
        &self,
        event_id: Uuid,
        change: Option<i64>,
        gate: Option<&str>,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ManifestTicket>>;
    async fn get_ticket(&self, ticket_id: Uuid) -> Result<Option<Guarded<Ticket>>>;
    /// Reads all that a ticket's page shows, in one round trip. [`Error::DeadLink`] where there is no such ticket.
    async fn read_ticket_page(&self, ticket_id: Uuid) -> Result<TicketPage>;
    /// The same of all tickets of an event that a person holds and that are not revoked, in the order of their ids; one at least.
    async fn read_held_pages(&self, event_id: Uuid, user_id: Uuid) -> Result<Vec<TicketPage>>;
    /// Gives the ticket at a seat to a user, through `sp_register_ticket_to_user` on PostgreSQL.
    async fn register_ticket(
        &self,
        person: &PersonName,
        event_id: Uuid,
        seat: &str,
        gate: &str,
        author: Author,
    ) -> Result<Ticket>;
    async fn change_ticket(&self, ticket_id: Uuid, change: &TicketChange, author: Author) -> Result<Ticket>;
    /// Keeps the fingerprint of another `TICKET_SECRET`, and gives every ticket that may still be scanned a new seed. What
    /// tickets are stays, but none is printed any more. All of it, or nothing.
    async fn reseed_tickets(&self, fingerprint: &[u8], new_seed: NewSeed, author: Author) -> Result<Reseeded>;
}

/// What has to be known of tickets to mail them to their holders. A key that is bound to an event, `bound_to`, knows the
/// addresses of that event's own people alone.
#[async_trait]
pub trait Mails {
    async fn count_mails(&self, event_id: Uuid, bound_to: Option<Uuid>) -> Result<MailCounts>;
    /// Tickets of a list in the order of their holders, and of each in that of their ids, after the one with this id.
    async fn list_mails(
        &self,
        event_id: Uuid,
        bound_to: Option<Uuid>,
        list: MailList,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Ticket>>;
    /// Those of these tickets that the event has.
    async fn find_addressed(&self, event_id: Uuid, ticket_ids: &[Uuid]) -> Result<Vec<Addressed>>;
    /// Takes tickets, to mail them now, and records it. Returns those that nobody else has taken within `limits::MAIL_CLAIM`, and
    /// that are as they were read.
    async fn claim_mails(&self, tickets: &[&Addressed], author: Author) -> Result<Vec<Uuid>>;
    /// Gives back tickets that were taken at a moment: mailed, or not.
    async fn settle_mails(&self, ticket_ids: &[Uuid], claimed_at: Millis, mailed: bool) -> Result<()>;
}

/// A ticket, and what is written to its holder besides.
#[derive(sqlx::FromRow)]
pub struct Addressed {
    #[sqlx(flatten)]
    pub ticket: Ticket,
    /// The holder's own name, which need not be the one on the ticket.
    pub own_name: Option<String>,
}

/// How far the tickets of an event have got to their holders: of those that admit somebody.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MailCounts {
    /// Tickets that their holders were mailed.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub mailed: i64,
    /// Tickets whose holder has an address and was not mailed.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub unmailed: i64,
    /// How many people hold these.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub unmailed_people: i64,
    /// Tickets whose holder has no address, or none that the key may know.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub without_address: i64,
}

/// Where seeds come from.
pub type NewSeed = fn() -> Result<Seed>;

/// The tickets with a new seed under another `TICKET_SECRET`, by the slug of their event.
pub type Reseeded = BTreeMap<String, ReseededEvent>;

/// Those of one event.
#[derive(Debug, Default)]
pub struct ReseededEvent {
    pub event_id: Uuid,
    pub tickets: usize,
    /// Those of them that people hold.
    pub held: usize,
}

/// What a device that is lost knows, and what is done about it.
#[async_trait]
pub trait Losses {
    /// Notes that a key's device has keys of codes that were made until a moment, `until`, unless that is noted already for
    /// `least` or later. False when the key is revoked or gone.
    async fn note_manifest(&self, key_id: Uuid, least: Millis, until: Millis) -> Result<bool>;
    /// Gives a new seed to tickets, so many at most, whose present one the lost device of a revoked key may know; the
    /// ticket's holder and state stay. No ticket gets two for one loss. Used tickets that nobody can come in with again are
    /// left alone; one that changed since `undoable_since` may be undone. Some by one transaction: what is done stays done.
    async fn renew_tickets(
        &self,
        key_id: Uuid,
        undoable_since: Millis,
        most: usize,
        new_seed: NewSeed,
        author: Author,
    ) -> Result<Renewal>;
    /// The tickets that the loss of a key's device renewed and that somebody holds, in the order of their ids.
    async fn list_renewed(&self, key_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Ticket>>;
}

/// What was done of what the loss of a device makes necessary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Renewal {
    /// Tickets that got a new secret now.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub renewed: i64,
    /// Tickets that are left: ask again until there are none.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub remaining: i64,
}

/// What a manifest tells of a ticket, and no more: tens of thousands are read at once, and each column costs.
#[derive(sqlx::FromRow)]
pub struct ManifestTicket {
    pub ticket_id: Uuid,
    pub seat: String,
    pub gate: String,
    #[sqlx(try_from = "Vec<u8>")]
    pub seed: Seed,
    /// When that was made.
    pub seeded_at: Millis,
    pub status: Status,
    /// The holder's; every holder has one.
    pub username: Option<String>,
    /// The slug of the event, where the holder is one of its own people.
    pub holder_event: Option<String>,
    /// The name on the ticket.
    pub full_name: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    pub valid_from: Option<Millis>,
    pub valid_until: Option<Millis>,
    pub inside: bool,
    pub last_step: Option<i64>,
    pub used_at: Option<Millis>,
    pub entered_at: Option<Millis>,
    pub printed_at: Option<Millis>,
    pub walk_up: bool,
    pub paid: Option<i64>,
}

/// A ticket with what its page shows besides.
#[derive(sqlx::FromRow)]
pub struct TicketPage {
    #[sqlx(flatten)]
    pub ticket: Ticket,
    pub event_name: String,
    pub event_version: i64,
    pub language: Option<String>,
    pub time_zone: String,
    pub starts_at: Option<Millis>,
    pub ends_at: Option<Millis>,
    pub opens_at: Option<Millis>,
    pub location: Option<String>,
    pub reentry: Reentry,
    /// Where the ticket was used, as [`Ticket::admitted_at`] says when.
    pub first_used_gate: Option<String>,
    #[sqlx(flatten)]
    pub kept: KeptSecrets,
}

/// A ticket to be created, and its holder when it is registered in the same breath.
#[derive(Clone)]
pub struct NewTicket {
    pub ticket_id: Uuid,
    pub seat: String,
    pub gate: String,
    pub seed: Seed,
    pub holder: Option<NewUser>,
    pub reference: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    pub valid_from: Option<Millis>,
    pub valid_until: Option<Millis>,
}

/// A holder, who is made where there is none of this name.
#[derive(Clone)]
pub struct NewUser {
    pub username: String,
    /// Kept with the ticket where the holder is known by another.
    pub full_name: Option<String>,
    pub email: Option<String>,
}

/// What a creation of tickets did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "PlannedCounts"))]
pub struct Created {
    /// Tickets made.
    pub created: u64,
    /// Tickets registered to a person, of those made.
    pub registered: u64,
    /// Users created for them.
    pub users_created: u64,
    /// Tickets that were there already, and were corrected.
    pub updated: u64,
    /// Tickets that were there already, and stayed as they were.
    pub skipped: u64,
}

/// Which tickets of an event to list, in the order of their ids, which is the order of their creation.
#[derive(Default)]
pub struct TicketFilter {
    pub status: Option<Status>,
    pub gate: Option<String>,
    /// Words of which each is a part of the seat, the name, the username or the address, as people read them.
    pub search: Option<String>,
    /// Whether addresses of people of the whole installation are not looked at: whoever asks may not know them.
    pub without_addresses: bool,
    pub after: Option<Uuid>,
}

/// A change to a ticket by an organizer.
pub enum TicketChange {
    Revoke,
    /// From now its paper is good.
    Print,
    /// A new seed, for the same holder.
    Reissue {
        seed: Seed,
    },
    /// A new seed, for another holder.
    Transfer {
        seed: Seed,
        to: PersonName,
    },
    /// What the gate is told of it, and when it admits.
    Correct(TicketDetails),
}

/// What is told of a ticket besides its seat and its holder. What is `None` stays, and the inner `None` clears.
#[derive(Default)]
pub struct TicketDetails {
    pub category: Option<Option<String>>,
    pub note: Option<Option<String>>,
    pub valid_from: Option<Option<Millis>>,
    pub valid_until: Option<Option<Millis>>,
}

impl TicketDetails {
    /// The ticket with these, unless it would then end before it begins.
    pub fn applied(&self, ticket: &Ticket) -> Result<Ticket> {
        let mut ticket = ticket.clone();
        ticket.category = self.category.clone().unwrap_or(ticket.category);
        ticket.note = self.note.clone().unwrap_or(ticket.note);
        ticket.valid_from = self.valid_from.unwrap_or(ticket.valid_from);
        ticket.valid_until = self.valid_until.unwrap_or(ticket.valid_until);
        check_order(ticket.valid_from, ticket.valid_until).map_err(|fault| Error::field("valid_until", fault))?;
        Ok(ticket)
    }
}

impl TicketChange {
    /// What making this change is called.
    pub fn action(&self) -> Action {
        match self {
            Self::Revoke => Action::Revoked,
            Self::Print => Action::Printed,
            Self::Reissue { .. } => Action::Reissued,
            Self::Transfer { .. } => Action::Transferred,
            Self::Correct(_) => Action::Corrected,
        }
    }

    /// Whether the answer to it admits somebody, and so is recorded each time that it is given.
    pub fn shows_a_secret(&self) -> bool {
        !matches!(self, Self::Revoke | Self::Correct(_))
    }
}

/// What a decision at the gate asks of the database: one reading before it, one writing after it.
#[async_trait]
pub trait Admissions {
    /// Reads all that a decision needs, in one round trip. `None`: there is no such event.
    async fn read_scan(
        &self,
        event: &str,
        ticket: &TicketName<'_>,
        scan_id: Uuid,
        guesses: &Guesses,
    ) -> Result<Option<Guarded<ScanContext>>>;
    /// Writes a scan, and with it the mark on its ticket, in one round trip. Where its code was looked at it writes nothing
    /// if by now too many were refused, of the ticket (`admission::ATTEMPTS`) or of the key (`limits::KEY_ATTEMPTS`), or of
    /// either where the verdict tells that the code is one of the future (`admission::FUTURE_TOLD`):
    /// scans that were decided at the same time do not see each other when they read. Of refused codes each sees here
    /// those before it; a right one sees all that were answered, and misses at most what other connections are writing.
    async fn record_scan(&self, scan: &Scan, mark: Option<&Mark>, guesses: &Guesses) -> Result<Recorded>;
    /// Makes tickets of people who have none, each with the next free number as its seat, and admits them. Nothing is written
    /// where one of the `scan_id`s is taken ([`Error::ScanIdConflict`]) or somebody takes a seat meanwhile
    /// ([`Error::ScanContended`]).
    async fn admit_walk_ups(&self, walk_ups: &WalkUps, author: Author) -> Result<()>;
    /// The scans with these ids, of any event, in the order of the ids, and their tickets.
    async fn find_walk_ups(&self, scan_ids: &[Uuid]) -> Result<Vec<(Scan, Option<Ticket>)>>;
}

/// People without a ticket who are admitted together: what their tickets and scans have.
pub struct WalkUps {
    pub event_id: Uuid,
    pub gate: String,
    /// The greatest number that is a seat there, as far as it is known.
    pub last_number: i64,
    /// Of each person's scan,
    pub scan_ids: Vec<Uuid>,
    /// and as many seeds.
    pub seeds: Vec<Seed>,
    /// Kept with the tickets: nobody holds them.
    pub full_name: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    /// By each person, in the smallest unit of the event's currency.
    pub paid: Option<i64>,
    pub scanned_at: Millis,
    pub decided_at: Millis,
    pub offline_result: Option<ScanResult>,
}

/// Which refused codes count against a scan: those received after a moment. Where there is none, none does.
#[derive(Clone, Copy, Default)]
pub struct Guesses {
    /// None that is said to have been received later than this counts: its clock was wrong.
    pub until: Option<Millis>,
    /// Those of the same ticket, batches apart,
    pub of_ticket_since: Option<Millis>,
    /// and those of the same key, in batches too.
    pub of_key_since: Option<Millis>,
    /// That key; none for the key of the environment.
    pub key_id: Option<Uuid>,
}

/// How a ticket is named in a request.
pub enum TicketName<'a> {
    Id(Uuid),
    Seat {
        seat: &'a str,
        gate: &'a str,
    },
    /// By its id, and the scan that is to speak for it.
    OfParty {
        ticket_id: Uuid,
        vouched_by: Uuid,
    },
    /// Something that is no ticket at all.
    None,
}

/// Everything the decision on one scan needs, read at one moment.
pub struct ScanContext {
    pub event_id: Uuid,
    pub time_zone: String,
    /// When the event's doors open and close.
    pub opens_at: Option<Millis>,
    pub closes_at: Option<Millis>,
    pub reentry: Reentry,
    pub ticket: Option<Ticket>,
    /// Its holder's other tickets for its gate that might be admitted, so many at most as are told. None where a scan speaks for
    /// this one.
    pub party: Vec<Ticket>,
    /// The scan that speaks for the ticket, if it does.
    pub voucher: Option<Voucher>,
    /// The scan that has this `scan_id` already.
    pub prior: Option<Scan>,
    /// `wrong_code` and `stale_code` of the ticket, those that count against this scan,
    pub refusals: i64,
    /// and of the key.
    pub key_refusals: i64,
    pub newest_accepted_at: Option<Millis>,
    /// Whether the ticket, or one that it was before it was reissued, has admitted.
    pub has_admitted: bool,
    /// Where the ticket was used, as [`Ticket::admitted_at`] says when.
    pub first_used_gate: Option<String>,
    /// Of the `TICKET_SECRET` that this database was used with first.
    pub secret_fingerprint: Option<Vec<u8>>,
}

/// A scan that admitted a ticket's holder with another ticket, by the same key, and that may speak for this one.
pub struct Voucher {
    pub decided_at: Millis,
    /// That of the other ticket.
    pub gate: String,
    /// Whether it let its holder in, was not undone, and needed no other scan to speak for it.
    pub admitted: bool,
}

/// The change that an accepted scan makes, if the ticket is still at `version`.
#[derive(Clone, Copy)]
pub struct Mark {
    pub version: i64,
    pub step: Option<i64>,
    pub inside: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// Scan and mark are committed.
    Done,
    /// The ticket changed or went since it was read, or too many codes were refused meanwhile; nothing is written.
    Outdated,
    /// The `scan_id` is taken; nothing is written.
    ScanIdTaken,
}

#[async_trait]
pub trait Scans {
    async fn get_scan(&self, scan_id: Uuid) -> Result<Option<Guarded<Scan>>>;
    /// Undoes a ticket's newest accepted scan if it was received at `not_before` or later.
    async fn undo_scan(&self, scan_id: Uuid, not_before: Millis, author: Author) -> Result<Scan>;
    /// Scans in the order they were received, after the one with this moment and id.
    async fn list_scans(&self, event_id: Uuid, after: Option<(Millis, Uuid)>, limit: i64) -> Result<Vec<ListedScan>>;
    /// Tickets that were registered or have admitted somebody, or with `inside` those whose holder is inside, in the order of their ids, after
    /// the one with this id.
    async fn list_attendance(
        &self,
        event_id: Uuid,
        inside: bool,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Attendance>>;
    /// Scans with a key that were received at a moment or later, in that order, after the scan with this id.
    async fn list_key_scans(&self, key: &Key, since: Millis, after: Option<Uuid>, limit: i64) -> Result<Vec<KeyScan>>;
    /// Duplicates and undone scans, the newest first, after the scan with this id.
    async fn list_incidents(&self, event_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Incident>>;
    /// Conflicts, the newest first, after the scan with this id.
    async fn list_conflicts(&self, event_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Conflict>>;
}

/// A scan, and what its ticket and the keys are called now. What is about a ticket is none where the scan's is not known.
#[derive(sqlx::FromRow)]
pub struct ListedScan {
    #[sqlx(flatten)]
    pub scan: Scan,
    pub seat: Option<String>,
    pub gate: Option<String>,
    pub full_name: Option<String>,
    pub category: Option<String>,
    pub walk_up: Option<bool>,
    /// Of the key that scanned, while there is the key.
    pub key_name: Option<String>,
    /// Of the key that took the scan back.
    pub undone_by_name: Option<String>,
}

/// A ticket, and where it admitted its holder first and last.
#[derive(sqlx::FromRow)]
pub struct Attendance {
    #[sqlx(flatten)]
    pub ticket: Ticket,
    pub first_gate: Option<String>,
    pub last_gate: Option<String>,
}

/// A scan with a key, without the person.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct KeyScan {
    /// The scan's id, made by the device.
    pub scan_id: Uuid,
    /// The ticket; null when it is not known.
    pub ticket_id: Option<Uuid>,
    /// Its seat.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    pub seat: Option<String>,
    /// The gate that admits it.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    pub gate: Option<String>,
    pub direction: Direction,
    pub result: ScanResult,
    /// When the device made the scan, by its own clock.
    pub scanned_at: Millis,
    /// When the service received it.
    pub received_at: Millis,
    /// When it was taken back; null when it was not.
    pub undone_at: Option<Millis>,
}

/// A scan as an organizer looks into it: of which ticket, by which device, and who let its holder in before.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct TracedScan {
    /// The scan's id, made by the device.
    pub scan_id: Uuid,
    /// The ticket; null when it is not known.
    #[sqlx(skip)]
    pub ticket: Option<Ticket>,
    /// The gate where the scan was made: that of the key, else what the request said, else null.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    pub at_gate: Option<String>,
    pub direction: Direction,
    /// When the device made the scan, by its own clock.
    pub scanned_at: Millis,
    /// When the service received it.
    pub received_at: Millis,
    /// The key of the device; null for the key of the environment.
    pub key_id: Option<Uuid>,
    /// That key's name.
    pub key_name: Option<String>,
    /// With `already_used`: when the ticket admitted its holder, with `once_a_day` on this day. Null where it does not apply.
    pub first_used_at: Option<Millis>,
    /// With `already_used`: the gate where that was, when known. Null where it does not apply.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    pub first_used_gate: Option<String>,
    /// With `already_used`: the name of the key that admitted the holder then, when it has one.
    pub first_key_name: Option<String>,
}

/// A scan by which a gate admitted somebody while it was offline, and which the service refused afterwards.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Conflict {
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub scan: TracedScan,
    /// What the gate decided.
    #[cfg_attr(test, schemars(with = "String", extend("const" = ScanResult::Accepted.as_str())))]
    pub offline_result: ScanResult,
    /// What the service decided; never `accepted`.
    pub result: ScanResult,
}

/// A scan that was refused because its ticket was used already, or one that was undone.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Incident {
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub scan: TracedScan,
    /// What the service decided: `already_used`, or, of a scan that was undone, `accepted`.
    pub result: ScanResult,
    /// When the scan was undone; null where it was not.
    pub undone_at: Option<Millis>,
    /// The key that undid it; null for the key of the environment, and where nobody did.
    pub undone_by: Option<Uuid>,
    /// That key's name.
    pub undone_key_name: Option<String>,
}

impl AsMut<TracedScan> for Conflict {
    fn as_mut(&mut self) -> &mut TracedScan {
        &mut self.scan
    }
}

impl AsMut<TracedScan> for Incident {
    fn as_mut(&mut self) -> &mut TracedScan {
        &mut self.scan
    }
}

/// Makes a store without touching network or disk: the first call opens it.
pub fn open(settings: &Settings) -> Box<dyn Store> {
    let &Settings { pool_max, db_timeout, .. } = settings;
    match &settings.database {
        Database::Postgres { service, pool_mode, .. } => {
            Box::new(PostgresStore::new((**service).clone(), *pool_mode, pool_max, db_timeout))
        }
        Database::Sqlite(path) => Box::new(SqliteStore::new(path.clone(), pool_max, db_timeout)),
    }
}

/// Brings the schema to this release's, under a lock, and then folds the texts of tickets that a release before it has made,
/// while others write: running it twice, or twice at once, does no harm. Returns the names of the migrations that it applied.
pub async fn migrate(database: &Database) -> Result<Migrated> {
    let migrated = migrate_by(database, MIGRATIONS).await?;
    match database {
        Database::Postgres { owner, .. } => postgres::fold_all(owner).await?,
        Database::Sqlite(path) => sqlite::fold_all(path).await?,
    }
    Ok(migrated)
}

/// The same by another list, such as that of an earlier release.
pub async fn migrate_by(database: &Database, migrations: &[Migration]) -> Result<Migrated> {
    match database {
        Database::Postgres { owner, grant_to, .. } => postgres::migrate(owner, grant_to.as_deref(), migrations).await,
        Database::Sqlite(path) => sqlite::migrate(path, migrations).await,
    }
}

/// Runs every file of PostgreSQL's schema once more, as the owner: a restored database has its tables and functions, but
/// not who may use them.
pub(crate) async fn reapply(database: &Database) -> Result<()> {
    match database {
        Database::Postgres { owner, grant_to, .. } => postgres::reapply(owner, grant_to.as_deref()).await,
        Database::Sqlite(_) => Ok(()),
    }
}

/// What a failed statement means for the caller. Refusals that a statement expects are sorted out where it is run.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) | sqlx::Error::WorkerCrashed => {
                Self::DatabaseUnavailable(error.to_string())
            }
            sqlx::Error::Database(refusal) => {
                let code = refusal.code().unwrap_or_default();
                if postgres::is_outdated_schema(&code) {
                    Self::DatabaseUnavailable(format!(
                        "the schema is not that of this release; if it is older, run `register-ticket-api migrate`: {error}"
                    ))
                } else if postgres::is_passing(&code) || sqlite::is_passing(&code) || refusal.is_foreign_key_violation()
                {
                    // A foreign key fails only when what it names was deleted between our reading and writing: the
                    // next try finds it gone and says so.
                    Self::DatabaseUnavailable(error.to_string())
                } else {
                    Self::Internal(error.to_string())
                }
            }
            _ => Self::Internal(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// What need not ask whether a ticket, a user, a scan or an event is there: they were found before, or everything is
    /// meant.
    const FOUND_OR_ALL: &[&str] = &[
        "from tickets t where t.user_id = u.user_id)",
        "from users u where u.event_id is null and",
        "delete from users as u where",
        "from scans where event_id = $1 and note is not null",
        "count(*) from tickets t where t.event_id = $1 and",
        "select t.user_id from tickets t where t.event_id = $1",
        "select t.ticket_id from tickets t where t.event_id = $1 and",
        "from users u where u.event_id = $1 or u.event_id is null",
        "from tickets t join events e on e.event_id = t.event_id where t.user_id = u.user_id and t.event_id <> $1",
        "select u.user_id from users u where u.user_id in (",
        "from tickets t left join users u on u.user_id = t.user_id where t.search is null",
        "left join users u on u.user_id = t.user_id",
        "left join tickets t on t.ticket_id = s.ticket_id",
        "from tickets p where p.user_id = t.user_id",
        "from scans a left join keys f on f.key_id = a.key_id where a.ticket_id = s.ticket_id",
        "select t.issue_id from tickets t where t.ticket_id = $1",
        "select c.action_id from tickets t join actions c on c.event_id = t.event_id",
        "select 1 from tickets where ticket_id = $1",
        "select user_id, status from tickets where ticket_id = $1",
        "select a.user_id, a.ticket_id from tickets a where a.ticket_id = $3",
        "select 1 from users where lower(username) = lower($1)",
        "ticket_id in (select ticket_id from tickets where user_id = $1 and ticket_id > $2 and ticket_id <= $3)",
        "select ticket_id from tickets where user_id = $1 and ticket_id > $2 order by ticket_id limit 1 offset $3",
        "select u.issue_id from users u where lower(u.username) = lower($1)",
        "select 1 from users u where u.user_id > e.issuing and u.issue_id = e.issuing",
        "select 1 from tickets t where t.user_id = $1 and t.event_id = e.event_id and t.issue_id = e.issuing",
        "select ticket_id from tickets where event_id = (select e.event_id from events e where e.issuing = $1)",
        "delete from tickets where issue_id = $1",
        "select user_id from users where issue_id = $1",
        "delete from users where issue_id = $1",
        "select 1 from tickets where event_id = $1 limit 1",
        "select 1 from tickets t where t.event_id = events.event_id and t.valid_until > $1",
        "select 1 from tickets where event_id between $1 and $1 and search is null ",
        "select version from tickets where event_id between $1 and $1 and search is null ",
        "delete from users where user_id = $1",
        "from scans r where r.ticket_id = ",
        "from scans r where ",
        "from scans a where a.ticket_id = t.ticket_id",
        "join scans a on a.ticket_id = t.ticket_id",
        "from scans b where b.ticket_id = a.ticket_id",
        "join scans n on n.ticket_id = t.ticket_id",
        "from scans u where u.ticket_id = t.ticket_id",
        "join scans s on s.ticket_id = t.ticket_id",
        "join users u on u.user_id = t.user_id where u.event_id",
        "from scans p where p.scan_id = ",
        "select 1 from tickets where ticket_id = $3 for no key update",
        "join tickets t on t.ticket_id = n.ticket_id",
        "cross join tickets t where e.event_id = n.event_id",
        "n cross join events e",
        " from scans s where \", among!(\"s.scan_id\"",
        "select 1 from tickets where event_id = $1 and paid is not null limit 1",
        "select \", scan_columns!(), \" from scans s where s.scan_id = $1\"",
        "from scans a join tickets t on t.ticket_id = a.ticket_id where a.ticket_id = $1",
        "select max(received_at) from scans where event_id = $1",
        "left join events e on e.event_id = k.event_id",
        "select issuing from events where event_id = $1",
        "from events e where e.issuing is not null",
        "from events w where w.issuing = u.issue_id",
        "from events d where d.deleted_at is not null",
        "from events where deleted_at < $1 or deleted_at > $2",
        "delete from events where event_id = $1 and deleted_at is not null",
        "select count(*) from tickets t join events e on e.event_id = t.event_id where t.user_id = $1 and t.ticket_id > $2 and t.ticket_id <= $3 and t.issue_id = e.issuing",
    ];

    /// By what a statement asks whether a row of a table is there, not hidden by an import or a deletion: one of these.
    const ASKED: &[(&str, &[&str])] = &[
        ("tickets", &["issued_ticket!()"]),
        ("users", &["issued_user!()"]),
        ("scans", &["kept_scan!()", "e.deleted_at is null"]),
        ("events", &["issued_ticket!()", "issued_user!()", "deleted_at is null"]),
    ];

    /// Every file that has SQL in it, without its comments and tests, each run of white space one space.
    fn sources() -> Vec<String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store");
        let files = |folder: &Path| -> Vec<_> {
            std::fs::read_dir(folder)
                .unwrap()
                .map(|entry| entry.unwrap().path())
                .filter(|path| path.is_file())
                .collect()
        };
        let files = files(&folder).into_iter().chain(files(&folder.join("queries")));
        let read = |path: std::path::PathBuf| {
            let source = std::fs::read_to_string(path).unwrap();
            let code = source.split("#[cfg(test)]").next().unwrap_or_default().lines();
            let code: Vec<_> = code.filter(|line| !line.trim_start().starts_with("//")).collect();
            code.join(" ").replace('\\', " ").split_whitespace().collect::<Vec<_>>().join(" ")
        };
        files.map(read).collect()
    }

    #[test]
    fn every_statement_asks_whether_what_it_reads_is_there() {
        let (mut asked, mut wrong) = (0, Vec::new());
        for mut source in sources() {
            for phrase in FOUND_OR_ALL {
                source = source.replace(phrase, "");
            }
            // A statement begins with its verb, in quotes.
            for verb in ["select", "insert", "update", "delete", "with"] {
                source = source.replace(&format!("\"{verb} "), &format!("\u{0}{verb} "));
            }
            for statement in source.split('\u{0}') {
                for (table, questions) in ASKED {
                    let named = ["from", "join"].iter().any(|word| statement.contains(&format!("{word} {table} ")));
                    let asks = questions.iter().any(|question| statement.contains(question));
                    if named && !asks {
                        wrong.push(format!("without {questions:?}: {statement}"));
                    }
                    asked += usize::from(named);
                }
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(asked > 10, "only {asked} statements were found");
    }

    #[test]
    fn what_need_not_ask_is_there() {
        let sources = sources().concat();
        for phrase in FOUND_OR_ALL {
            assert!(sources.contains(phrase), "no statement says: {phrase}");
        }
    }
}
