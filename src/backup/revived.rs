//! What a restored backup makes good again: keys that were revoked after it was taken, tickets with the codes of then; and
//! what is no longer good in it: keys, tickets and paper of since.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use uuid::Uuid;

use crate::model::{Millis, Status};

pub(super) const KEYS: &str = "select k.key_id, k.name, k.role, k.event_id, e.slug as event, k.gate, k.offline, k.created_at, \
    k.expires_at, k.revoked_at, k.secret_hash from keys k left join events e on e.event_id = k.event_id order by k.key_id";
/// An event that is being deleted has a space in its slug, as no other has.
pub(super) const TICKETS: &str = "select t.ticket_id, e.slug as event, t.seat, t.gate, t.seed, t.status, t.user_id, t.printed_at \
    from tickets t join events e on e.event_id = t.event_id where e.slug not like '% %' order by t.ticket_id";
pub(super) const USERS: &str = "select user_id, username from users order by user_id";

/// What is in a schema that has `former_secrets`: what keys were before, and until when their devices have keys of tickets.
pub(super) const FORMER: &str = "select secret_hash, key_id from former_secrets";
pub(super) const MANIFESTS: &str = "select key_id, manifest_at from keys where manifest_at is not null";

/// Keeps a key that is not there, as a revoked one, where its event is there.
pub(super) const KEEP_KEY: &str = "insert into keys \
    (key_id, name, role, event_id, gate, offline, secret_hash, created_at, expires_at, revoked_at) \
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10 \
    where $4 is null or exists (select 1 from events e where e.event_id = $4) on conflict do nothing";
/// Keeps a secret that no key is here, as one that its key was.
pub(super) const KEEP_SECRET: &str = "insert into former_secrets (secret_hash, key_id, ended_at) select $1, $2, $3 \
    where exists (select 1 from keys k where k.key_id = $2) \
    and not exists (select 1 from keys k where k.secret_hash = $1) on conflict do nothing";
pub(super) const KEEP_MANIFEST: &str = "update keys set manifest_at = $2 where key_id = $1";

/// Reads the state of a database of either kind by a connection to it; `$has_former` asks whether it has `former_secrets`.
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

/// Keeps what keys the database before has and this one has not, so that their devices can prove what they have not sent: all of
/// it as what has ended, which takes an organizer's consent. The ids of the keys.
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

/// What of a database can come back to life. Of any release. Without `Debug`: it has seeds.
pub struct State {
    /// Secrets that keys were before, with those keys.
    pub(super) former: Vec<(Vec<u8>, Uuid)>,
    /// Until when devices have keys of tickets, by their own keys.
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
    /// Whether its codes are good at a gate, to come in or to go out.
    fn is_good(&self) -> bool {
        self.user_id.is_some() && self.status != Status::Revoked
    }

    fn describe(&self) -> String {
        let Self { ticket_id, event, seat, gate, .. } = self;
        format!("{ticket_id}  event {event}  seat {seat}  gate {gate}")
    }
}

/// The database that a restored one takes the place of, and the keys of it that were kept there as revoked.
pub struct Before {
    pub state: State,
    pub kept: HashSet<Uuid>,
}

impl State {
    /// The secrets that keys are or were, with those keys.
    pub(super) fn secrets(&self) -> impl Iterator<Item = (&[u8], Uuid)> {
        let present = self.keys.iter().map(|key| (key.secret_hash.as_slice(), key.key_id));
        present.chain(self.former.iter().map(|(secret_hash, key_id)| (secret_hash.as_slice(), *key_id)))
    }

    /// Tells what is good in this database, as it was restored: all of it, or, beside the database that it takes the place
    /// of, what was not good there any more.
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
        let tickets = self.tickets.iter().filter(|ticket| ticket.is_good()).count();
        writeln!(text, "{WITHOUT_BEFORE}")?;
        writeln!(text, "{} keys are good:", good.len())?;
        for key in &good {
            writeln!(text, "  {}", key.describe())?;
        }
        writeln!(text, "{tickets} tickets are good, with the codes, links and paper of then.")?;
        write!(text, "{HOW_TO_REVOKE}")
    }

    fn describe_revived(&self, before: &Before, now: Millis, text: &mut String) -> std::fmt::Result {
        let Before { state: before, kept } = before;
        let (keys, tickets, users) =
            (self.keys_since(before, now), self.tickets_since(before), self.users_since(before));
        writeln!(text, "{} keys are good again:", keys.len())?;
        for (key, since) in &keys {
            writeln!(text, "  {}  ({since})", key.describe())?;
        }
        writeln!(text, "{} tickets are good again, with the codes, links and paper of then:", tickets.len())?;
        for (ticket, since) in &tickets {
            writeln!(text, "  {}  ({since})", ticket.describe())?;
        }
        writeln!(text, "{} people are known again who were erased:", users.len())?;
        for username in &users {
            writeln!(text, "  {username}")?;
        }
        self.describe_lost(before, kept, now, text)?;
        write!(text, "{HOW_TO_REVOKE}\n{USED_SINCE}")
    }

    /// What was good in the database before and is not here.
    fn describe_lost(&self, before: &Self, kept: &HashSet<Uuid>, now: Millis, text: &mut String) -> std::fmt::Result {
        let here: HashSet<Uuid> = self.keys.iter().map(|key| key.key_id).collect();
        let keys: Vec<&KeyRow> =
            before.keys.iter().filter(|key| key.is_good(now) && !here.contains(&key.key_id)).collect();
        writeln!(
            text,
            "{} keys of since are good no more; enrol their devices again. Where their event is here they are kept as revoked:",
            keys.len()
        )?;
        writeln!(
            text,
            "what a device has not sent, an organizer may take (/organizer, Gates: \"Take its unsent scans\", or its file):"
        )?;
        for key in &keys {
            let lost = if kept.contains(&key.key_id) { "" } else { "  (its event is not here, nor is anything of it)" };
            writeln!(text, "  {}{lost}", key.describe())?;
        }
        let tickets = self.tickets_lost(before);
        writeln!(text, "{} tickets are worth less than they were:", tickets.len())?;
        for (ticket, how) in &tickets {
            writeln!(text, "  {}  ({how})", ticket.describe())?;
        }
        Ok(())
    }

    /// The tickets that were good there and are not, or not as much, here.
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
                Some("printed since: its paper admits nobody before it is printed again")
            }
            Some(_) => None,
        };
        let good = before.tickets.iter().filter(|ticket| ticket.is_good());
        good.filter_map(|ticket| Some((ticket, how(ticket)?))).collect()
    }

    /// The keys that are good here and were not there, with what became of them there.
    fn keys_since(&self, before: &Self, now: Millis) -> Vec<(&KeyRow, String)> {
        let there: HashMap<Uuid, &KeyRow> = before.keys.iter().map(|key| (key.key_id, key)).collect();
        let since = |key: &KeyRow| match there.get(&key.key_id) {
            None => Some("was gone".to_owned()),
            Some(KeyRow { revoked_at: Some(at), .. }) => Some(format!("was revoked {at}")),
            Some(other) if other.secret_hash != key.secret_hash => Some(
                "had another secret, of a later enrolment; an organizer may take what that device has not sent"
                    .to_owned(),
            ),
            Some(_) => None,
        };
        self.keys.iter().filter(|key| key.is_good(now)).filter_map(|key| Some((key, since(key)?))).collect()
    }

    /// The same of tickets.
    fn tickets_since(&self, before: &Self) -> Vec<(&TicketRow, &'static str)> {
        let there: HashMap<Uuid, &TicketRow> = before.tickets.iter().map(|ticket| (ticket.ticket_id, ticket)).collect();
        let since = |ticket: &TicketRow| match there.get(&ticket.ticket_id) {
            None => Some("was gone"),
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

    /// Who is known here and was not there.
    fn users_since(&self, before: &Self) -> Vec<&str> {
        let there: HashSet<Uuid> = before.users.iter().map(|(user_id, _)| *user_id).collect();
        let gone = self.users.iter().filter(|(user_id, _)| !there.contains(user_id));
        gone.map(|(_, username)| username.as_str()).collect()
    }
}

const WITHOUT_BEFORE: &str = "\
What was good when the backup was taken is good again. What happened since is not known here: keys that were revoked, tickets
that were reissued, transferred, revoked or used, people who were erased. To list exactly that, restore with --before and the
database that this one replaces. What devices that were enrolled since have not sent cannot be taken, because their keys are
not known here: save it on the device and admit those tickets by hand; or take a backup now and restore that one with --before,
which keeps these keys as revoked ones.";

const HOW_TO_REVOKE: &str = "\
To make worthless again what shall not be good, before anybody is let in:
  register-ticket-api keys revoke KEY_ID
  POST /api/tickets/TICKET_ID/reissue or …/revoke, DELETE /api/users/USERNAME
  register-ticket-api change-secret gives every ticket that is not used up new codes";

const USED_SINCE: &str = "\
A ticket that `was used` admits once more, even after its reissue. So that nobody comes in twice, admit it by its seat, without
a code, before the doors go on: docs/runbook.md, Restore, has the commands";
