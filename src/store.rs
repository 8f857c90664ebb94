//! The service's interface to a database, one trait per resource. `queries/` implements the traits in SQL that both
//! databases understand, one file per trait; `postgres.rs` and `sqlite.rs` hold what differs: opening, locking,
//! registering, marking, bulk inserts.
//!
//! No call has a deadline of its own: the caller drops the call at its deadline, and the connection is closed with it.

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

/// The event of requests that name none. Every database has it.
pub const DEFAULT_EVENT: &str = "default";

/// The gate of tickets for which none is named, unless the event has exactly one gate.
pub const ENTRANCE: &str = "Entrance";

/// The holder of a ticket whose holder was erased between being found and being written. Nobody has this id, so the
/// foreign key rejects the ticket instead of leaving it without a holder.
const NOBODY: Uuid = Uuid::nil();

/// The database, as the endpoints see it: these methods and the traits below. Every method is atomic unless it says otherwise.
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

    /// Returns what the database stores about the secrets. There is no fingerprint before the first `TICKET_SECRET`.
    async fn kept_secrets(&self) -> Result<KeptSecrets>;
    /// Stores the fingerprint if the database has none yet, and returns what it then has.
    async fn claim_secret(&self, fingerprint: &[u8]) -> Result<KeptSecrets>;
}

/// The database's record of the secrets from which tickets are derived.
#[derive(sqlx::FromRow)]
pub struct KeptSecrets {
    /// The fingerprint of the `TICKET_SECRET` that this database is used with.
    pub secret_fingerprint: Option<Vec<u8>>,
    /// 32 random bytes from which the links of ticket pages are derived, besides the secret.
    pub link_salt: Option<Vec<u8>>,
}

impl KeptSecrets {
    /// Returns the id of this database.
    pub fn database(&self) -> Option<DatabaseId> {
        self.link_salt.clone().map(DatabaseId::from)
    }
}

/// A row that only keys bound to its event, or to none, may read. To get it, the caller has to say which event the key is
/// bound to.
pub struct Guarded<T> {
    row: T,
    event_id: Option<Uuid>,
}

impl<T> Guarded<T> {
    /// `event_id` is the event the row belongs to, if any.
    pub fn new(event_id: impl Into<Option<Uuid>>, row: T) -> Self {
        Self { row, event_id: event_id.into() }
    }

    /// Returns the row to a key that is bound to this event or to none.
    pub fn open(self, bound_to: Option<Uuid>) -> Result<T> {
        match bound_to {
            Some(_) if bound_to != self.event_id => Err(Error::Forbidden("Your key is bound to another event.")),
            _ => Ok(self.row),
        }
    }
}

/// The author and the time of a change.
#[derive(Clone, Copy, Debug)]
pub struct Author {
    /// None for the key of the environment, and for the command line.
    pub key_id: Option<Uuid>,
    pub now: Millis,
}

/// An entry of `actions`, without its author.
pub struct Act {
    pub action: Action,
    /// The event it belongs to and is deleted with; none if it is about the whole installation.
    pub event_id: Option<Uuid>,
    pub ticket_id: Option<Uuid>,
    /// Another object of the action: a user, a key, a scan, or a deleted event.
    pub subject_id: Option<Uuid>,
    /// The number of objects, if it is about many.
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

/// The actions of organizers and supervisors. A change is recorded in its own transaction, by the method that makes it.
#[async_trait]
pub trait Actions {
    /// Records an action that changes nothing, such as an export.
    async fn record_action(&self, author: Author, act: &Act) -> Result<()>;
    /// Returns actions in chronological order, after the one with this time and id: those of one event, or all.
    async fn list_actions(
        &self,
        event_id: Option<Uuid>,
        after: Option<(Millis, Uuid)>,
        limit: i64,
    ) -> Result<Vec<ListedAction>>;
    /// Returns the actions on one ticket in the same order, after the action with this id. They include its issue, and
    /// actions on all tickets of its event.
    async fn list_ticket_actions(&self, ticket_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<ListedAction>>;
}

/// Checks what must hold of the data at any time.
#[async_trait]
pub trait Invariants {
    /// Reads all rows, which can take long: the caller sets no deadline.
    async fn check(&self) -> Result<Vec<Checked>>;
}

/// An invariant, and the rows that violate it.
#[derive(Debug)]
pub struct Checked {
    pub name: &'static str,
    /// What a violation is, and what it means.
    pub meaning: &'static str,
    /// The number of violating rows.
    pub broken: i64,
    /// The ids of some of them.
    pub ids: Vec<Uuid>,
}

impl Checked {
    /// Returns one line that describes the violation, if there is one.
    pub fn breach(&self) -> Option<String> {
        let Self { name, meaning, broken, ids } = self;
        let ids: Vec<_> = ids.iter().map(Uuid::to_string).collect();
        let more = if *broken > ids.len() as i64 { ", …" } else { "" };
        (*broken > 0).then(|| format!("{name}: {broken}. {meaning} {}{more}", ids.join(", ")))
    }
}

/// An action, its author and its time, without personal data.
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
    /// That key's name, while the key exists.
    pub key_name: Option<String>,
    /// The slug of the event; null for an action on the whole installation.
    #[cfg_attr(test, schemars(with = "Option<crate::model::Slug>"))]
    pub event: Option<String>,
    /// The ticket; null for an action on none, or on many.
    pub ticket_id: Option<Uuid>,
    /// Another object of the action: a user, a key, a scan, or a deleted event.
    pub subject_id: Option<Uuid>,
    /// The number of tickets, for an action on many.
    pub count: Option<i64>,
}

/// The answer to `GET /health?full=1`.
pub struct Health {
    pub migrated: bool,
    /// The database's clock.
    pub now: Millis,
    /// Whether committed data survives a crash.
    pub durable: bool,
    /// Whether the database accepts a write now.
    pub writable: bool,
    /// Whether the database has never been used.
    pub empty: bool,
}

/// Tells whether a database has never been used: the deletion of an event leaves an action behind.
const IS_EMPTY: &str = "select not exists (select 1 from tickets) and not exists (select 1 from actions)";

/// Writes without changing anything. It fails if the disk is full or the database is read-only.
const PROBE: &str =
    "insert into settings (name, value) values ('probe', '') on conflict (name) do update set value = excluded.value";

/// Logs why a database accepts no write.
fn is_written<T>(probe: std::result::Result<T, sqlx::Error>) -> bool {
    probe.inspect_err(|error| tracing::warn!(%error, "full health check: the database accepts no writes")).is_ok()
}

#[async_trait]
pub trait Keys {
    /// Returns the key that has this secret, or had it until another device enrolled. [`Error::Unauthenticated`] if there
    /// is none.
    async fn find_key(&self, secret_hash: &[u8]) -> Result<FoundKey>;
    /// Lists the hashes of all secrets that a key has or had.
    async fn list_secrets(&self, key_id: Uuid) -> Result<Vec<Vec<u8>>>;
    /// Stores a new key if the key that creates it is still valid.
    async fn insert_key(&self, key: &Key, secret_hash: &[u8], author: Author) -> Result<()>;
    /// Lists keys in the order of their creation: all, or those bound to an event.
    async fn list_keys(&self, event_id: Option<Uuid>, after: Option<Uuid>, limit: i64) -> Result<Vec<ListedKey>>;
    async fn get_key(&self, key_id: Uuid) -> Result<Option<Guarded<Key>>>;
    /// Revokes a key, every key that it created, and so on; their enrolment tokens become invalid. Returns the keys that
    /// were not revoked before.
    async fn revoke_key(&self, key_id: Uuid, author: Author) -> Result<Vec<Uuid>>;
    /// Stores the token that enrols a device with a key, in place of the previous one, if the key that offers it is still
    /// valid. Returns whether the offered key is valid.
    async fn offer_enrolment(
        &self,
        key_id: Uuid,
        enrol_hash: &[u8],
        expires_at: Millis,
        author: Author,
    ) -> Result<bool>;
    /// Returns the key that a token enrols with, and its event, while both key and token are valid.
    async fn find_enrolment(
        &self,
        key_id: Uuid,
        enrol_hash: &[u8],
        now: Millis,
    ) -> Result<Option<(Key, Option<Event>)>>;
    /// Gives a key a new secret and uses up its token. Returns whether it did: token and key have to be valid. If the
    /// device with the previous secret had a manifest, that secret is stored, to authenticate scans made with it.
    async fn enrol_key(&self, key_id: Uuid, enrol_hash: &[u8], secret_hash: &[u8], now: Millis) -> Result<bool>;
    /// Notes that a key existed at `now`, and for longer than the maximum age of a scan. Its creation lies in the future,
    /// because the clock was ahead then.
    async fn note_made_before(&self, key_id: Uuid, now: Millis) -> Result<()>;
    /// Notes that a key's device was in contact, and its number of unsent scans if it reported that, unless something was
    /// noted within [`crate::limits::HEARD_NOTED`].
    async fn note_heard(&self, key_id: Uuid, unsent: Option<i64>, now: Millis) -> Result<()>;
    /// Agrees to accept scans that were made until now with replaced or revoked secrets of a key.
    async fn take_scans(&self, key_id: Uuid, author: Author) -> Result<()>;
}

/// A key, found by one of its secrets.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct FoundKey {
    #[sqlx(flatten)]
    pub key: Key,
    /// When another device enrolled with the key and got another secret; none for the current secret.
    pub replaced_at: Option<Millis>,
    /// The database that has the key.
    #[sqlx(rename = "link_salt", try_from = "Vec<u8>")]
    pub database: DatabaseId,
}

/// A key, and when it was last used.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "Key"))]
pub struct ListedKey {
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub key: Key,
    /// When the newest scan with this key was received; null when there is none.
    pub newest_scan_at: Option<Millis>,
    /// When its device was last in contact, by a scan, its list or its numbers, to within a minute; null when it never was.
    pub heard_at: Option<Millis>,
    /// How many scans the device then reported as decided offline and not yet sent; null when it did not report a number.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub unsent: Option<i64>,
    /// When the device last got its list, or the answer that it is up to date, to within a minute; null when it has none.
    pub manifest_at: Option<Millis>,
    /// When the key last moved from a device that worked offline to another one; null when it never did.
    pub replaced_at: Option<Millis>,
    /// Whether it is the key that made this request.
    #[sqlx(skip)]
    pub yours: bool,
}

/// The name of a person: a username, unique among an event's own people or among those of the installation.
#[derive(Clone, Debug)]
pub struct PersonName {
    pub username: String,
    pub event_id: Option<Uuid>,
}

#[async_trait]
pub trait Users {
    async fn insert_user(&self, person: &PersonName, details: &UserDetails, author: Author) -> Result<User>;
    async fn find_user(&self, person: &PersonName) -> Result<Option<User>>;
    /// Changes a person. If the name is given, every gate with a list then learns it.
    async fn change_user(&self, person: &PersonName, change: &UserChange, author: Author) -> Result<User>;
    /// Erases a person: revokes their tickets and removes them as the holder. If there are many, each transaction handles
    /// some, and the last one erases the person. A call that was interrupted leaves the person with the remaining
    /// tickets, and can be repeated.
    async fn erase_user(&self, person: &PersonName, author: Author) -> Result<()>;
}

/// The details of a person.
pub struct UserDetails {
    pub full_name: Option<String>,
    pub email: Option<String>,
}

/// Changes to a person. `None` leaves a value unchanged; an inner `None` clears it.
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
    /// Deletes an event with its keys, unless it is in use. From then on neither it nor its rows can be found, and its
    /// slug is free. `confirm` is the slug repeated; it may be omitted if there are no tickets.
    async fn delete_event(&self, event_id: Uuid, confirm: Option<&str>, author: Author) -> Result<()>;
    /// Deletes the rows of a deleted event, while others can write, and then those of events whose deletion was interrupted
    /// earlier.
    async fn clear_event(&self, event_id: Uuid, now: Millis) -> Result<()>;

    /// Returns when the list of an event was last printed, and the number of changes to its tickets since.
    async fn printed_list(&self, event_id: Uuid) -> Result<PrintedList>;
    /// Records that the list is printed now.
    async fn note_list_printed(&self, event_id: Uuid, author: Author) -> Result<()>;

    /// Returns the state of an event's tickets, and the counts of one gate or of all.
    async fn manifest_state(&self, event_id: Uuid, gate: Option<&str>) -> Result<ManifestState>;
    /// Returns an event's counts, and the keys that seem to guess codes.
    async fn stats(&self, event_id: Uuid, now: Millis) -> Result<Stats>;
}

/// Forgets the people of an event: their names, usernames, addresses, references and notes, and who was mailed. The
/// event's counts stay.
#[async_trait]
pub trait Forgetting {
    /// Lists the events whose people are to be forgotten by now, and those that have forgotten theirs: an interruption
    /// may have left something, or it may have come since.
    async fn list_due(&self, now: Millis) -> Result<Vec<Event>>;
    /// Counts what forgetting an event's people would erase now.
    async fn count_people(&self, event_id: Uuid) -> Result<Forgotten>;
    /// Forgets an event's people. From the start, the event admits nobody and accepts no ticket; personal data is then
    /// erased in short transactions, between which others can write. An interrupted call can be repeated.
    /// [`Error::EventInUse`] while people come in or another call writes to it, [`Error::ImportInProgress`] while tickets
    /// are imported.
    async fn forget_event(&self, event_id: Uuid, author: Author) -> Result<Forgotten>;
}

/// The personal data of an event that was, or would be, erased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Forgotten {
    /// Tickets with personal data.
    pub tickets: i64,
    /// People who hold no ticket of another event that has not forgotten its own.
    pub people: i64,
}

/// An event's list on paper, and how outdated it is.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct PrintedList {
    /// When its tickets were last read to be printed; null when they never were.
    pub printed_at: Option<Millis>,
    /// How many tickets were made, given to a person, corrected, reissued or revoked since then. A ticket with two of
    /// these changes counts twice.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub changes: i64,
}

/// Changes to an event. `None` leaves a value unchanged; an inner `None` clears it.
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
    /// Applies the change. It is an error if the event would end before it starts, close before it opens, or have a price
    /// without a currency.
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

/// The state of an event's tickets, as a gate's manifest shows it.
#[derive(Debug, sqlx::FromRow)]
pub struct ManifestState {
    pub tickets: i64,
    /// The sum of the versions of the gate's own tickets: what a gate learns of others never changes.
    pub versions: i64,
    /// Distinguishes this database from others, and from itself before it was restored.
    history: Vec<u8>,
    /// The number of the first change that the tickets read may lack.
    change: i64,
    #[sqlx(flatten)]
    pub counts: GateState,
}

/// The counts that a gate compares with its own list when it has received no change.
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
    /// The number of low bits of a cursor that count changes; the bits above identify the history. Together they are
    /// fewer than the 53 of a safe integer in JavaScript.
    const COUNTING: u32 = 32;
    const HISTORIES: i64 = 1 << 20;
    /// Cursors of 0.1.0 were times in milliseconds, which are less than the cursors of the first history.
    const FIRST_HISTORY: i64 = 1 << 10;

    /// Returns a number that most likely distinguishes this database's history from others.
    pub fn history(&self) -> i64 {
        let random = self.history.iter().take(4).fold(0, |number, byte| (number << 8) | i64::from(*byte));
        Self::FIRST_HISTORY + random % (Self::HISTORIES - Self::FIRST_HISTORY)
    }

    fn begin(&self) -> i64 {
        self.history() << Self::COUNTING
    }

    /// Identifies this state: a client that sends it later gets the changes since. It contains no time.
    pub fn cursor(&self) -> i64 {
        self.begin() + self.change
    }

    /// Returns the first change that is new to a client with this cursor. `None` if the cursor is of another history, or
    /// of the future of this one: then everything may be new.
    pub fn change_since(&self, cursor: i64) -> Option<i64> {
        (self.begin()..=self.cursor()).contains(&cursor).then(|| cursor - self.begin())
    }
}

pub struct Stats {
    pub groups: Vec<CountedGroup>,
    pub refused: BTreeMap<String, i64>,
    pub undone: i64,
    pub arrivals: Vec<Arrivals>,
    /// Keys with at least [`crate::limits::GUESSES_NOTED`] recently refused codes, the most first.
    pub guessing: Vec<GuessingKey>,
    /// The number of rows counted.
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

/// A count of scans of one kind.
#[derive(sqlx::FromRow)]
pub struct CountedScans {
    pub result: String,
    pub direction: Direction,
    pub undone: bool,
    /// The minute of the accepted scans.
    pub minute: Option<Millis>,
    pub scans: i64,
}

/// A key with many wrong codes.
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

/// The counts of the tickets of one category at one gate.
#[derive(Debug, sqlx::FromRow)]
pub struct CountedGroup {
    pub gate: String,
    pub category: Option<String>,
    #[sqlx(flatten)]
    pub counts: Counts,
}

/// The counts of an event or a gate.
#[derive(Debug, Default, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Counts {
    /// Tickets, except those of undone walk-ups.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub tickets: i64,
    /// Tickets that were registered to a person.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub registered: i64,
    /// Tickets that have admitted their holder: those with a `used_at`.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub admitted: i64,
    /// Tickets whose holder may still come: registered, and neither used nor revoked.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub expected: i64,
    /// Holders who are inside now.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub inside: i64,
    /// People who were admitted without a ticket; included in `admitted`.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub walk_ups: i64,
    /// What they paid, in the smallest unit of the event's currency.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub cash: i64,
}

impl Counts {
    /// Adds other counts.
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
    /// Creates all these tickets, or none; they become visible at once. With them, creates those of their holders that
    /// are not known among the people of `people_of`, an event or the installation, and makes the corrections. Others can
    /// write meanwhile. Calls `progress` with the number of tickets written so far. [`Error::SeatTaken`], and
    /// [`Error::InvalidPayload`] for a holder who is known with another address, name the tickets by their index in the
    /// slice.
    async fn create_tickets(
        &self,
        event_id: Uuid,
        people_of: Option<Uuid>,
        list: &Issuance,
        author: Author,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<Created>;
}

/// The reads of an import before it writes.
#[async_trait]
pub trait Lists {
    /// Returns the gates of an event's tickets, with the greatest numeric seat of each.
    async fn list_gates(&self, event_id: Uuid) -> Result<Vec<GateSeats>>;
    /// Returns those of the wanted tickets that the event has, each with the index of its entry in `wanted`.
    async fn find_issued(&self, event_id: Uuid, wanted: &[Wanted]) -> Result<Vec<Issued>>;
    /// Returns the tickets of an event that these people hold, in the order of their ids.
    async fn find_held(&self, event_id: Uuid, people_of: Option<Uuid>, usernames: &[String]) -> Result<Vec<Issued>>;
    /// Returns those of these people who are known.
    async fn find_people(&self, people_of: Option<Uuid>, usernames: &[String]) -> Result<Vec<KnownPerson>>;
}

/// The changes that an import makes to an event's tickets.
#[derive(Default)]
pub struct Issuance {
    /// The holders of the new tickets, each once.
    pub people: Vec<NewUser>,
    pub tickets: Vec<NewTicket>,
    pub corrections: Vec<Correction>,
    /// Details to add to known people who lack them.
    pub details: Vec<NewUser>,
}

/// Corrections to an existing ticket. `None` leaves a value unchanged.
pub struct Correction {
    pub ticket_id: Uuid,
    pub reference: Option<String>,
    /// The name on the ticket; an inner `None` means the holder's own name.
    pub holder_name: Option<Option<String>>,
    /// The holder to register it to, if it has none.
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

/// A ticket that may exist, identified by its reference, or by its seat and gate.
pub struct Wanted {
    pub reference: Option<String>,
    pub place: Option<(String, String)>,
}

/// An existing ticket, as an import needs it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Issued {
    /// The index of its entry in `wanted`.
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

/// A known person, as an import needs them.
#[derive(sqlx::FromRow)]
pub struct KnownPerson {
    pub username: String,
    pub full_name: Option<String>,
    pub email: Option<String>,
}

/// A gate, the greatest numeric seat there, and its number of tickets.
#[derive(sqlx::FromRow)]
pub struct GateSeats {
    pub gate: String,
    pub last_number: Option<i64>,
    /// Tickets that are neither revoked nor those of walk-ups.
    pub standing: i64,
}

#[async_trait]
pub trait Tickets {
    async fn list_tickets(&self, event_id: Uuid, filter: &TicketFilter, limit: i64) -> Result<Vec<Ticket>>;
    async fn list_user_tickets(&self, user_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Ticket>>;
    /// Lists an event's tickets in the order of their ids, or only those written by the change with this number or a
    /// later one. Of these, tickets of other gates only if they are new: what a gate learns of them never changes.
    async fn list_manifest(
        &self,
        event_id: Uuid,
        change: Option<i64>,
        gate: Option<&str>,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ManifestTicket>>;
    async fn get_ticket(&self, ticket_id: Uuid) -> Result<Option<Guarded<Ticket>>>;
    /// Reads all that a ticket's page shows, in one round trip. [`Error::DeadLink`] if there is no such ticket.
    async fn read_ticket_page(&self, ticket_id: Uuid) -> Result<TicketPage>;
    /// Does the same for all tickets of an event that a person holds and that are not revoked, in the order of their ids.
    /// Returns at least one.
    async fn read_held_pages(&self, event_id: Uuid, user_id: Uuid) -> Result<Vec<TicketPage>>;
    /// Registers the ticket at a seat to a user, through `sp_register_ticket_to_user` on PostgreSQL.
    async fn register_ticket(
        &self,
        person: &PersonName,
        event_id: Uuid,
        seat: &str,
        gate: &str,
        author: Author,
    ) -> Result<Ticket>;
    async fn change_ticket(&self, ticket_id: Uuid, change: &TicketChange, author: Author) -> Result<Ticket>;
    /// Stores the fingerprint of another `TICKET_SECRET`, and gives a new seed to every ticket that may still be scanned.
    /// Tickets keep their state, but none counts as printed any more. Atomic.
    async fn reseed_tickets(&self, fingerprint: &[u8], new_seed: NewSeed, author: Author) -> Result<Reseeded>;
}

/// Mails tickets to their holders. `bound_to` is the event that the key is bound to, if any: such a key may know only
/// the addresses of that event's own people.
#[async_trait]
pub trait Mails {
    async fn count_mails(&self, event_id: Uuid, bound_to: Option<Uuid>) -> Result<MailCounts>;
    /// Lists tickets by holder, and those of each holder by id, after the one with this id.
    async fn list_mails(
        &self,
        event_id: Uuid,
        bound_to: Option<Uuid>,
        list: MailList,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Ticket>>;
    /// Returns those of these tickets that the event has.
    async fn find_addressed(&self, event_id: Uuid, ticket_ids: &[Uuid]) -> Result<Vec<Addressed>>;
    /// Claims tickets for mailing and records it. Returns the ids of those that nobody else has claimed within
    /// `limits::MAIL_CLAIM` and that have not changed since they were read.
    async fn claim_mails(&self, tickets: &[&Addressed], author: Author) -> Result<Vec<Uuid>>;
    /// Releases tickets that were claimed at a time, as mailed or not.
    async fn settle_mails(&self, ticket_ids: &[Uuid], claimed_at: Millis, mailed: bool) -> Result<()>;
}

/// A ticket, and what else the mail to its holder needs.
#[derive(sqlx::FromRow)]
pub struct Addressed {
    #[sqlx(flatten)]
    pub ticket: Ticket,
    /// The holder's own name, which may differ from the one on the ticket.
    pub own_name: Option<String>,
}

/// The progress of mailing an event's tickets to their holders. Only tickets that can still admit are counted.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct MailCounts {
    /// Tickets that were mailed to their holders.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub mailed: i64,
    /// Tickets whose holder has an address but was not mailed.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub unmailed: i64,
    /// The number of people who hold these.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub unmailed_people: i64,
    /// Tickets whose holder has no address, or none that the key may know.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub without_address: i64,
}

/// Generates a seed.
pub type NewSeed = fn() -> Result<Seed>;

/// The tickets that got a new seed under another `TICKET_SECRET`, by the slug of their event.
pub type Reseeded = BTreeMap<String, ReseededEvent>;

/// The reseeded tickets of one event.
#[derive(Debug, Default)]
pub struct ReseededEvent {
    pub event_id: Uuid,
    pub tickets: usize,
    /// Those of them that have a holder.
    pub held: usize,
}

/// Records which tickets a device knows, and renews these if it is lost.
#[async_trait]
pub trait Losses {
    /// Notes that a key's device has the code keys of seeds made up to `until`, unless `least` or later is noted already.
    /// Returns false if the key is revoked or does not exist.
    async fn note_manifest(&self, key_id: Uuid, least: Millis, until: Millis) -> Result<bool>;
    /// Gives a new seed to at most `most` tickets whose present seed the lost device of a revoked key may know. Their
    /// holders and states stay. No ticket is renewed twice for one loss. Used tickets that cannot admit again are
    /// skipped, unless they changed since `undoable_since` and so may be undone. Each transaction handles some tickets;
    /// an interruption does not undo them.
    async fn renew_tickets(
        &self,
        key_id: Uuid,
        undoable_since: Millis,
        most: usize,
        new_seed: NewSeed,
        author: Author,
    ) -> Result<Renewal>;
    /// Lists the tickets that the loss of a key's device renewed and that have a holder, in the order of their ids.
    async fn list_renewed(&self, key_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Ticket>>;
}

/// The progress of renewing tickets after the loss of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Renewal {
    /// Tickets that this request gave a new secret.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub renewed: i64,
    /// Tickets that remain: repeat the request until there are none.
    #[cfg_attr(test, schemars(range(min = 0)))]
    pub remaining: i64,
}

/// The columns of a ticket that a manifest needs, and no others: tens of thousands of rows are read at once, and each
/// column costs time.
#[derive(sqlx::FromRow)]
pub struct ManifestTicket {
    pub ticket_id: Uuid,
    pub seat: String,
    pub gate: String,
    #[sqlx(try_from = "Vec<u8>")]
    pub seed: Seed,
    /// When the seed was made.
    pub seeded_at: Millis,
    pub status: Status,
    /// The holder's username; every holder has one.
    pub username: Option<String>,
    /// The slug of the event, if the holder is one of its own people.
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

/// A ticket, and what else its page shows.
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
    /// The gate of the admission whose time is [`Ticket::admitted_at`].
    pub first_used_gate: Option<String>,
    #[sqlx(flatten)]
    pub kept: KeptSecrets,
}

/// A ticket to create, and its holder if it is registered at once.
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

/// A holder, who is created if there is none with this username.
#[derive(Clone)]
pub struct NewUser {
    pub username: String,
    /// Stored with the ticket if the holder is known by another name.
    pub full_name: Option<String>,
    pub email: Option<String>,
}

/// The counts of an import.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[cfg_attr(test, schemars(rename = "PlannedCounts"))]
pub struct Created {
    /// Tickets created.
    pub created: u64,
    /// Created tickets that were registered to a person.
    pub registered: u64,
    /// Users created for them.
    pub users_created: u64,
    /// Existing tickets that were corrected.
    pub updated: u64,
    /// Existing tickets that were left unchanged.
    pub skipped: u64,
}

/// A filter for the tickets of an event. They are listed in the order of their ids, which is that of their creation.
#[derive(Default)]
pub struct TicketFilter {
    pub status: Option<Status>,
    pub gate: Option<String>,
    /// Words that must each occur in the seat, the name, the username or the address, compared as people read them.
    pub search: Option<String>,
    /// Whether to ignore addresses of people of the installation, because the client may not know them.
    pub without_addresses: bool,
    pub after: Option<Uuid>,
}

/// A change to a ticket by an organizer.
pub enum TicketChange {
    Revoke,
    /// Makes its paper valid from now.
    Print,
    /// Sets a new seed, for the same holder.
    Reissue {
        seed: Seed,
    },
    /// Sets a new seed, for another holder.
    Transfer {
        seed: Seed,
        to: PersonName,
    },
    /// Corrects what the gate shows of it, and when it admits.
    Correct(TicketDetails),
}

/// The details of a ticket besides its seat and holder. `None` leaves a value unchanged; an inner `None` clears it.
#[derive(Default)]
pub struct TicketDetails {
    pub category: Option<Option<String>>,
    pub note: Option<Option<String>>,
    pub valid_from: Option<Option<Millis>>,
    pub valid_until: Option<Option<Millis>>,
}

impl TicketDetails {
    /// Returns the ticket with these details. It is an error if the ticket would then end before it begins.
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
    /// The action that records this change.
    pub fn action(&self) -> Action {
        match self {
            Self::Revoke => Action::Revoked,
            Self::Print => Action::Printed,
            Self::Reissue { .. } => Action::Reissued,
            Self::Transfer { .. } => Action::Transferred,
            Self::Correct(_) => Action::Corrected,
        }
    }

    /// Whether the response contains a secret that admits, so that every request for it is recorded.
    pub fn shows_a_secret(&self) -> bool {
        !matches!(self, Self::Revoke | Self::Correct(_))
    }
}

/// The database's part in a decision at the gate: one read before it, one write after it.
#[async_trait]
pub trait Admissions {
    /// Reads all that a decision needs, in one round trip. `None` if there is no such event.
    async fn read_scan(
        &self,
        event: &str,
        ticket: &TicketName<'_>,
        scan_id: Uuid,
        guesses: &Guesses,
    ) -> Result<Option<Guarded<ScanContext>>>;
    /// Writes a scan and the mark on its ticket, in one round trip. If the scan's code was checked, writes nothing once
    /// too many codes were refused: of the ticket (`admission::ATTEMPTS`) or of the key (`limits::KEY_ATTEMPTS`), or of
    /// either if the verdict says that the code is of the future (`admission::FUTURE_TOLD`). The read alone cannot
    /// enforce this, because scans decided at the same time do not see each other. The write of a refused code sees all
    /// refused codes before it; that of a correct code sees all that were answered, and misses at most those that other
    /// connections are writing.
    async fn record_scan(&self, scan: &Scan, mark: Option<&Mark>, guesses: &Guesses) -> Result<Recorded>;
    /// Creates a ticket for each walk-up, with the next free number as its seat, and admits them. Writes nothing if one
    /// of the `scan_id`s is taken ([`Error::ScanIdConflict`]) or if another transaction takes a seat meanwhile
    /// ([`Error::ScanContended`]).
    async fn admit_walk_ups(&self, walk_ups: &WalkUps, author: Author) -> Result<()>;
    /// Returns the scans with these ids, of any event, in the order of `scan_ids`, and their tickets.
    async fn find_walk_ups(&self, scan_ids: &[Uuid]) -> Result<Vec<(Scan, Option<Ticket>)>>;
}

/// People without a ticket who are admitted together, with the values of their tickets and scans.
pub struct WalkUps {
    pub event_id: Uuid,
    pub gate: String,
    /// The greatest numeric seat at the gate, as far as known.
    pub last_number: i64,
    /// One for each person.
    pub scan_ids: Vec<Uuid>,
    /// One for each person.
    pub seeds: Vec<Seed>,
    /// Stored with the tickets, which have no holder.
    pub full_name: Option<String>,
    pub category: Option<String>,
    pub note: Option<String>,
    /// Paid by each person, in the smallest unit of the event's currency.
    pub paid: Option<i64>,
    pub scanned_at: Millis,
    pub decided_at: Millis,
    pub offline_result: Option<ScanResult>,
}

/// The refused codes that count against a scan: those received after a time. Without that time, none counts.
#[derive(Clone, Copy, Default)]
pub struct Guesses {
    /// Codes received later than this do not count: the clock was wrong.
    pub until: Option<Millis>,
    /// Since when codes of the same ticket count, batches excluded.
    pub of_ticket_since: Option<Millis>,
    /// Since when codes of the same key count, batches included.
    pub of_key_since: Option<Millis>,
    /// That key; none for the key of the environment.
    pub key_id: Option<Uuid>,
}

/// The identification of a ticket in a request.
pub enum TicketName<'a> {
    Id(Uuid),
    Seat {
        seat: &'a str,
        gate: &'a str,
    },
    /// By its id, together with the scan that is to vouch for it.
    OfParty {
        ticket_id: Uuid,
        vouched_by: Uuid,
    },
    /// Not a valid identifier of a ticket.
    None,
}

/// All that the decision on one scan needs, read at one moment.
pub struct ScanContext {
    pub event_id: Uuid,
    pub time_zone: String,
    /// When the event's doors open and close.
    pub opens_at: Option<Millis>,
    pub closes_at: Option<Millis>,
    pub reentry: Reentry,
    pub ticket: Option<Ticket>,
    /// Its holder's other tickets for its gate that might be admitted, up to the number that a response lists. Empty if a
    /// scan vouches for this ticket.
    pub party: Vec<Ticket>,
    /// The scan that vouches for the ticket, if any.
    pub voucher: Option<Voucher>,
    /// The scan that already has this `scan_id`.
    pub prior: Option<Scan>,
    /// The number of the ticket's `wrong_code` and `stale_code` that count against this scan.
    pub refusals: i64,
    /// The number of the key's refused codes that count against this scan.
    pub key_refusals: i64,
    pub newest_accepted_at: Option<Millis>,
    /// Whether the ticket has admitted anybody, before or after it was reissued.
    pub has_admitted: bool,
    /// The gate of the admission whose time is [`Ticket::admitted_at`].
    pub first_used_gate: Option<String>,
    /// The fingerprint of the `TICKET_SECRET` that this database is used with.
    pub secret_fingerprint: Option<Vec<u8>>,
}

/// A scan of another ticket of the same holder, by the same key, that may vouch for this one.
pub struct Voucher {
    pub decided_at: Millis,
    /// The gate of the other ticket.
    pub gate: String,
    /// Whether the scan admitted its holder, was not undone, and was not vouched for itself.
    pub admitted: bool,
}

/// The change that an accepted scan makes if the ticket is still at `version`.
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
    /// The ticket was changed or deleted since it was read, or too many codes were refused meanwhile; nothing is written.
    Outdated,
    /// The `scan_id` is taken; nothing is written.
    ScanIdTaken,
}

#[async_trait]
pub trait Scans {
    async fn get_scan(&self, scan_id: Uuid) -> Result<Option<Guarded<Scan>>>;
    /// Undoes a ticket's newest accepted scan if it was received at `not_before` or later.
    async fn undo_scan(&self, scan_id: Uuid, not_before: Millis, author: Author) -> Result<Scan>;
    /// Lists scans in the order they were received, after the one with this time and id.
    async fn list_scans(&self, event_id: Uuid, after: Option<(Millis, Uuid)>, limit: i64) -> Result<Vec<ListedScan>>;
    /// Lists tickets in the order of their ids, after the one with this id: those that were registered or have admitted,
    /// or with `inside` those whose holder is inside.
    async fn list_attendance(
        &self,
        event_id: Uuid,
        inside: bool,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Attendance>>;
    /// Lists scans by a key that were received at `since` or later, in that order, after the scan with this id.
    async fn list_key_scans(&self, key: &Key, since: Millis, after: Option<Uuid>, limit: i64) -> Result<Vec<KeyScan>>;
    /// Lists duplicates and undone scans, the newest first, after the scan with this id.
    async fn list_incidents(&self, event_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Incident>>;
    /// Lists conflicts, the newest first, after the scan with this id.
    async fn list_conflicts(&self, event_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Conflict>>;
}

/// A scan, with the current names of its ticket and keys. Values of the ticket are none if the ticket is not known.
#[derive(sqlx::FromRow)]
pub struct ListedScan {
    #[sqlx(flatten)]
    pub scan: Scan,
    pub seat: Option<String>,
    pub gate: Option<String>,
    pub full_name: Option<String>,
    pub category: Option<String>,
    pub walk_up: Option<bool>,
    /// The name of the key that scanned, while the key exists.
    pub key_name: Option<String>,
    /// The name of the key that undid the scan.
    pub undone_by_name: Option<String>,
}

/// A ticket, and the gates where it first and last admitted its holder.
#[derive(sqlx::FromRow)]
pub struct Attendance {
    #[sqlx(flatten)]
    pub ticket: Ticket,
    pub first_gate: Option<String>,
    pub last_gate: Option<String>,
}

/// A scan by a key, without the person.
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
    /// When it was undone; null when it was not.
    pub undone_at: Option<Millis>,
}

/// A scan with what an organizer needs to investigate it: the ticket, the device, and the admission before it.
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
    /// With `already_used`: when the ticket admitted its holder; with `once_a_day`, on this day. Null where it does not apply.
    pub first_used_at: Option<Millis>,
    /// With `already_used`: the gate of that admission, when known. Null where it does not apply.
    #[cfg_attr(test, schemars(with = "Option<Place>"))]
    pub first_used_gate: Option<String>,
    /// With `already_used`: the name of the key that admitted the holder then, when it has one.
    pub first_key_name: Option<String>,
}

/// A scan by which a gate admitted somebody while it was offline, and which the service rejected afterwards.
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

/// A scan that was rejected because its ticket was already used, or one that was undone.
#[derive(Debug, serde::Serialize, sqlx::FromRow)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Incident {
    #[serde(flatten)]
    #[sqlx(flatten)]
    pub scan: TracedScan,
    /// What the service decided: `already_used`; of an undone scan, `accepted`.
    pub result: ScanResult,
    /// When the scan was undone; null where it was not.
    pub undone_at: Option<Millis>,
    /// The key that undid it; null for the key of the environment, and when it was not undone.
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

/// Creates a store without touching network or disk: the first call opens it.
pub fn open(settings: &Settings) -> Box<dyn Store> {
    let &Settings { pool_max, db_timeout, .. } = settings;
    match &settings.database {
        Database::Postgres { service, pool_mode, .. } => {
            Box::new(PostgresStore::new((**service).clone(), *pool_mode, pool_max, db_timeout))
        }
        Database::Sqlite(path) => Box::new(SqliteStore::new(path.clone(), pool_max, db_timeout)),
    }
}

/// Migrates the schema to this release under a lock, then folds the texts of tickets that an earlier release created,
/// while others write. It is safe to run twice, or twice at once.
pub async fn migrate(database: &Database) -> Result<Migrated> {
    let migrated = migrate_by(database, MIGRATIONS).await?;
    match database {
        Database::Postgres { owner, .. } => postgres::fold_all(owner).await?,
        Database::Sqlite(path) => sqlite::fold_all(path).await?,
    }
    Ok(migrated)
}

/// Does the same with another list of migrations, such as that of an earlier release.
pub async fn migrate_by(database: &Database, migrations: &[Migration]) -> Result<Migrated> {
    match database {
        Database::Postgres { owner, grant_to, .. } => postgres::migrate(owner, grant_to.as_deref(), migrations).await,
        Database::Sqlite(path) => sqlite::migrate(path, migrations).await,
    }
}

/// Runs every file of PostgreSQL's schema again, as the owner: a restored database has its tables and functions, but not
/// its grants.
pub(crate) async fn reapply(database: &Database) -> Result<()> {
    match database {
        Database::Postgres { owner, grant_to, .. } => postgres::reapply(owner, grant_to.as_deref()).await,
        Database::Sqlite(_) => Ok(()),
    }
}

/// Translates a failed statement for the caller. Errors that a statement expects are handled where it is run.
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
                    // A foreign key fails only if its target was deleted between our read and our write: the retry finds
                    // that and says so.
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

    /// Statements that need not check whether a ticket, user, scan or event is visible: it was found before, or all rows
    /// are meant.
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

    /// The conditions that check whether a row of a table is visible, not hidden by an import or a deletion. A statement
    /// needs one of them.
    const ASKED: &[(&str, &[&str])] = &[
        ("tickets", &["issued_ticket!()"]),
        ("users", &["issued_user!()"]),
        ("scans", &["kept_scan!()", "e.deleted_at is null"]),
        ("events", &["issued_ticket!()", "issued_user!()", "deleted_at is null"]),
    ];

    /// Every file with SQL, without its comments and tests, with white space collapsed.
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
