//! Reports what a restored backup brings back (keys that were revoked after it was taken, tickets with their old codes)
//! and what it lacks (later keys, tickets and paper).

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use uuid::Uuid;

use crate::model::{Millis, Status};

pub(super) const KEYS: &str = "select k.key_id, k.name, k.role, k.event_id, e.slug as event, k.gate, k.offline, k.created_at, \
    k.expires_at, k.revoked_at, k.secret_hash from keys k left join events e on e.event_id = k.event_id order by k.key_id";
/// An event that is being deleted has a space in its slug; no other has.
pub(super) const TICKETS: &str = "select t.ticket_id, e.slug as event, t.seat, t.gate, t.seed, t.status, t.user_id, t.printed_at \
    from tickets t join events e on e.event_id = t.event_id where e.slug not like '% %' order by t.ticket_id";
pub(super) const USERS: &str = "select user_id, username from users order by user_id";

/// Read only from a schema with `former_secrets`: replaced secrets of keys, and up to when devices have the code keys of
/// tickets.
pub(super) const FORMER: &str = "select secret_hash, key_id from former_secrets";
pub(super) const MANIFESTS: &str = "select key_id, manifest_at from keys where manifest_at is not null";

/// Stores a missing key as a revoked one, if its event exists.
pub(super) const KEEP_KEY: &str = "insert into keys \
    (key_id, name, role, event_id, gate, offline, secret_hash, created_at, expires_at, revoked_at) \
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 \
    where $4 is null or exists (select 1 from events e where e.event_id = $4) on conflict do nothing";
/// Stores a secret that is no key's present one as a former secret of its key.
pub(super) const KEEP_SECRET: &str = "insert into former_secrets (secret_hash, key_id, ended_at) select $1, $2, $3 \
    where exists (select 1 from keys k where k.key_id = $2) \
    and not exists (select 1 from keys k where k.secret_hash = $1) on conflict do nothing";
pub(super) const KEEP_MANIFEST: &str = "update keys set manifest_at = $2 where key_id = $1";

/// Reads the state of a database of either kind through `$connection`; `$has_former` is the query whether it has
/// `former_secrets`.
macro_rules! state_of {
    ($connection:expr, $has_former:expr) => {{
        let connection = $connection;
        let has_former: bool = sqlx::query_scalar($has_former).fetch_one(&mut *connection).await.map_err(said)?;
        let (mut former, mut manifests) = (Vec::new(), Vec::new());
        if has_former {
            former = sqlx::query_as(FORMER).fetch_all(&mut *connection).await.map_err(said)?;
            manifests = sqlx::query_as(MANIFESTS).fetch_all(&mut *connection).await.map_err(said)?;
        }
        State {
            keys: sqlx::query_as(KEYS).fetch_all(&mut *connection).await.map_err(said)?,
            tickets: sqlx::query_as(TICKETS).fetch_all(&mut *connection).await.map_err(said)?,
            users: sqlx::query_as(USERS).fetch_all(&mut *connection).await.map_err(said)?,
            former,
            manifests,
        }
    }};
}

/// Stores keys and secrets that the previous database has and this one lacks, so that their devices can authenticate
/// unsent scans. All of them are stored as revoked or replaced, so accepting these scans takes an organizer's consent.
/// Evaluates to the ids of the keys added.
macro_rules! keep_ended {
    ($connection:expr, $before:expr, $now:expr, $has_former:expr) => {{
        let (connection, before, now) = ($connection, $before, $now);
        let mut kept = HashSet::new();
        for key in &before.keys {
            let made = sqlx::query(KEEP_KEY)
                .bind(key.key_id)
                .bind(&key.name)
                .bind(&key.role)
                .bind(key.event_id)
                .bind(key.gate.as_deref())
                .bind(key.offline)
                .bind(&key.secret_hash)
                .bind(key.created_at)
                .bind(key.expires_at)
                .bind(key.revoked_at.unwrap_or(now));
            if made.execute(&mut *connection).await.map_err(said)?.rows_affected() == 1 {
                kept.insert(key.key_id);
            }
        }
        let has_former: bool = sqlx::query_scalar($has_former).fetch_one(&mut *connection).await.map_err(said)?;
        if has_former {
            for (secret_hash, key_id) in before.secrets() {
                let keep = sqlx::query(KEEP_SECRET).bind(secret_hash).bind(key_id).bind(now);
                keep.execute(&mut *connection).await.map_err(said)?;
            }
            for (key_id, manifest_at) in before.manifests.iter().filter(|(key_id, _)| kept.contains(key_id)) {
                let keep = sqlx::query(KEEP_MANIFEST).bind(key_id).bind(manifest_at);
                keep.execute(&mut *connection).await.map_err(said)?;
            }
        }
        kept
    }};
}

pub(super) use {keep_ended, state_of};

/// The part of a database that a restore can bring back, of any release. Without `Debug`, because it contains seeds.
pub struct State {
    /// Replaced secrets, with the ids of their keys.
    pub(super) former: Vec<(Vec<u8>, Uuid)>,
    /// Up to when devices have the code keys of tickets, by the ids of their keys.
    pub(super) manifests: Vec<(Uuid, Millis)>,
    pub(super) keys: Vec<KeyRow>,
    pub(super) tickets: Vec<TicketRow>,
    pub(super) users: Vec<(Uuid, String)>,
}

#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    pub(super) key_id: Uuid,
    pub(super) name: String,
    pub(super) role: String,
    pub(super) event_id: Option<Uuid>,
    event: Option<String>,
    pub(super) gate: Option<String>,
    pub(super) offline: bool,
    pub(super) created_at: Millis,
    pub(super) expires_at: Option<Millis>,
    pub(super) revoked_at: Option<Millis>,
    pub(super) secret_hash: Vec<u8>,
}

impl KeyRow {
    fn is_good(&self, now: Millis) -> bool {
        self.revoked_at.is_none() && self.expires_at.is_none_or(|end| end > now)
    }

    fn describe(&self) -> String {
        let Self { key_id, name, role, created_at, .. } = self;
        let event = self.event.as_ref().map(|event| format!("  event {event}")).unwrap_or_default();
        let gate = self.gate.as_ref().map(|gate| format!("  gate {gate}")).unwrap_or_default();
        let end = self.expires_at.map_or_else(|| "  never expires".to_owned(), |end| format!("  expires {end}"));
        format!("{key_id}  {role:10}  {name}{event}{gate}  made {created_at}{end}")
    }
}

#[derive(sqlx::FromRow)]
pub(super) struct TicketRow {
    ticket_id: Uuid,
    event: String,
    seat: String,
    gate: String,
    seed: Vec<u8>,
    status: Status,
    user_id: Option<Uuid>,
    printed_at: Option<Millis>,
}

impl TicketRow {
    /// Whether a gate accepts its codes, for an entry or an exit.
    fn is_good(&self) -> bool {
        self.user_id.is_some() && self.status != Status::Revoked
    }

    fn describe(&self) -> String {
        let Self { ticket_id, event, seat, gate, .. } = self;
        format!("{ticket_id}  event {event}  seat {seat}  gate {gate}")
    }
}

/// The database that a restored one replaces, and which of its keys were added to the restored one as revoked.
pub struct Before {
    pub state: State,
    pub kept: HashSet<Uuid>,
}

impl State {
    /// Iterates over present and replaced secrets, with the ids of their keys.
    pub(super) fn secrets(&self) -> impl Iterator<Item = (&[u8], Uuid)> {
        let present = self.keys.iter().map(|key| (key.secret_hash.as_slice(), key.key_id));
        present.chain(self.former.iter().map(|(secret_hash, key_id)| (secret_hash.as_slice(), *key_id)))
    }

    /// Describes what is valid in this restored database: all of it or, given the database that it replaces, only what
    /// was no longer valid there.
    pub fn describe(&self, before: Option<&Before>, now: Millis) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = match before {
            Some(before) => self.describe_revived(before, now, &mut text),
            None => self.describe_all(now, &mut text),
        };
        text
    }

    fn describe_all(&self, now: Millis, text: &mut String) -> std::fmt::Result {
        let good: Vec<&KeyRow> = self.keys.iter().filter(|key| key.is_good(now)).collect();
        let count = |status| self.tickets.iter().filter(|ticket| ticket.is_good() && ticket.status == status).count();
        writeln!(text, "{WITHOUT_BEFORE}")?;
        writeln!(text, "{} keys are valid:", good.len())?;
        for key in &good {
            writeln!(text, "  {}", key.describe())?;
        }
        writeln!(
            text,
            "{} tickets are valid and {} used, with the codes, links and paper of that time.",
            count(Status::Valid),
            count(Status::Used)
        )?;
        write!(text, "{HOW_TO_REVOKE}")
    }

    fn describe_revived(&self, before: &Before, now: Millis, text: &mut String) -> std::fmt::Result {
        let Before { state: before, kept } = before;
        let (keys, tickets, users) =
            (self.keys_since(before, now), self.tickets_since(before), self.users_since(before));
        writeln!(text, "{} keys are valid again:", keys.len())?;
        for (key, since) in &keys {
            writeln!(text, "  {}  ({since})", key.describe())?;
        }
        writeln!(text, "{} tickets are valid again, with the codes, links and paper of that time:", tickets.len())?;
        for (ticket, since) in &tickets {
            writeln!(text, "  {}  ({since})", ticket.describe())?;
        }
        writeln!(text, "{} erased people exist again:", users.len())?;
        for username in &users {
            writeln!(text, "  {username}")?;
        }
        self.describe_lost(before, kept, now, text)?;
        write!(text, "{HOW_TO_REVOKE}\n{USED_SINCE}")
    }

    /// Describes what was valid in the previous database and is missing here.
    fn describe_lost(&self, before: &Self, kept: &HashSet<Uuid>, now: Millis, text: &mut String) -> std::fmt::Result {
        let here: HashSet<Uuid> = self.keys.iter().map(|key| key.key_id).collect();
        let keys: Vec<&KeyRow> =
            before.keys.iter().filter(|key| key.is_good(now) && !here.contains(&key.key_id)).collect();
        writeln!(
            text,
            "{} newer keys are no longer valid; enrol their devices again. If their event exists here, they are stored as revoked,",
            keys.len()
        )?;
        writeln!(
            text,
            "so that an organizer can accept unsent scans (/organizer, Gates: \"Accept its unsent scans\", or the device's file):"
        )?;
        for key in &keys {
            let lost = if kept.contains(&key.key_id) { "" } else { "  (its event does not exist here)" };
            writeln!(text, "  {}{lost}", key.describe())?;
        }
        let tickets = self.tickets_lost(before);
        writeln!(text, "{} tickets lack later changes:", tickets.len())?;
        for (ticket, how) in &tickets {
            writeln!(text, "  {}  ({how})", ticket.describe())?;
        }
        Ok(())
    }

    /// Returns the tickets that were valid there, and here are not, or only partly.
    fn tickets_lost<'a>(&self, before: &'a Self) -> Vec<(&'a TicketRow, &'static str)> {
        let here: HashMap<Uuid, &TicketRow> = self.tickets.iter().map(|ticket| (ticket.ticket_id, ticket)).collect();
        let how = |ticket: &TicketRow| match here.get(&ticket.ticket_id) {
            None if ticket.status == Status::Used => {
                Some("made and used since: issue it again, and admit it by its seat")
            }
            None => Some("made since: issue it again"),
            Some(other) if other.user_id.is_none() => Some("registered since: register it again"),
            Some(other) if other.status == Status::Revoked => Some("reissued since: reissue it again"),
            Some(other) if other.status == Status::Used && ticket.status == Status::Valid => {
                Some("undone since: used here; revoke and reissue it to let its holder in")
            }
            Some(other) if ticket.printed_at.is_some() && other.printed_at.is_none() => {
                Some("printed since: its paper admits nobody until it is printed again")
            }
            Some(_) => None,
        };
        let good = before.tickets.iter().filter(|ticket| ticket.is_good());
        good.filter_map(|ticket| Some((ticket, how(ticket)?))).collect()
    }

    /// Returns the keys that are valid here and were not there, with the reason.
    fn keys_since(&self, before: &Self, now: Millis) -> Vec<(&KeyRow, String)> {
        let there: HashMap<Uuid, &KeyRow> = before.keys.iter().map(|key| (key.key_id, key)).collect();
        let since = |key: &KeyRow| match there.get(&key.key_id) {
            None => Some("no longer existed".to_owned()),
            Some(KeyRow { revoked_at: Some(at), .. }) => Some(format!("was revoked {at}")),
            Some(other) if other.secret_hash != key.secret_hash => Some(
                "had another secret from a later enrolment; an organizer may accept that device's unsent scans"
                    .to_owned(),
            ),
            Some(_) => None,
        };
        self.keys.iter().filter(|key| key.is_good(now)).filter_map(|key| Some((key, since(key)?))).collect()
    }

    /// Does the same for tickets.
    fn tickets_since(&self, before: &Self) -> Vec<(&TicketRow, &'static str)> {
        let there: HashMap<Uuid, &TicketRow> = before.tickets.iter().map(|ticket| (ticket.ticket_id, ticket)).collect();
        let since = |ticket: &TicketRow| match there.get(&ticket.ticket_id) {
            None => Some("no longer existed"),
            Some(other) if other.status == Status::Revoked => Some("was revoked"),
            Some(other) if other.user_id != ticket.user_id => Some("was transferred"),
            Some(other) if other.seed != ticket.seed => Some("was reissued"),
            Some(other) if other.status == Status::Used && ticket.status == Status::Valid => Some("was used"),
            Some(_) => None,
        };
        self.tickets
            .iter()
            .filter(|ticket| ticket.is_good())
            .filter_map(|ticket| Some((ticket, since(ticket)?)))
            .collect()
    }

    /// Returns the usernames that exist here and did not there.
    fn users_since(&self, before: &Self) -> Vec<&str> {
        let there: HashSet<Uuid> = before.users.iter().map(|(user_id, _)| *user_id).collect();
        let gone = self.users.iter().filter(|(user_id, _)| !there.contains(user_id));
        gone.map(|(_, username)| username.as_str()).collect()
    }
}

const WITHOUT_BEFORE: &str = "\
What was valid when the backup was taken is valid again. Later changes are not known here: revoked keys; reissued, transferred,
revoked or used tickets; erased people. To list exactly these, restore with --before and the database that this one replaces.
Unsent scans of devices that were enrolled since cannot be accepted, because their keys are not known here: save the scans on
the device and admit those tickets by hand; or take a backup now and restore that one with --before, which stores these keys as
revoked.";

const HOW_TO_REVOKE: &str = "\
To invalidate what must not be valid, before anybody is admitted:
  register-ticket-api keys revoke KEY_ID
  POST /api/tickets/TICKET_ID/reissue or …/revoke, DELETE /api/users/USERNAME
  register-ticket-api change-secret gives new codes to every ticket that can still be scanned";

const USED_SINCE: &str = "\
A ticket that `was used` would admit again, even after a reissue. So that nobody enters twice, admit it by its seat, without a
code, before the doors open again: docs/runbook.md, Restore, has the commands";
