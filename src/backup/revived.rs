//! What a restored backup makes good again: keys that were revoked after it was taken, tickets with the codes of then; and
//! what is no longer good in it: keys, tickets and paper of since.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;

use uuid::Uuid;

use crate::model::{Millis, Status};

pub(super) const KEYS: &str = "select k.key_id, k.name, k.role, e.slug as event, k.gate, k.created_at, k.expires_at, \
    k.revoked_at, k.secret_hash from keys k left join events e on e.event_id = k.event_id order by k.key_id";
/// An event that is being deleted has a space in its slug, as no other has.
pub(super) const TICKETS: &str = "select t.ticket_id, e.slug as event, t.seat, t.gate, t.seed, t.status, t.user_id, t.printed_at \
    from tickets t join events e on e.event_id = t.event_id where e.slug not like '% %' order by t.ticket_id";
pub(super) const USERS: &str = "select user_id, username from users order by user_id";

/// What of a database can come back to life. Of any release: no column is newer than 0.1.0. Without `Debug`: it has seeds.
pub struct State {
    pub(super) keys: Vec<KeyRow>,
    pub(super) tickets: Vec<TicketRow>,
    pub(super) users: Vec<(Uuid, String)>,
}

#[derive(sqlx::FromRow)]
pub(super) struct KeyRow {
    key_id: Uuid,
    name: String,
    role: String,
    event: Option<String>,
    gate: Option<String>,
    created_at: Millis,
    expires_at: Option<Millis>,
    revoked_at: Option<Millis>,
    secret_hash: Vec<u8>,
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

impl State {
    /// Tells what is good in this database, which was restored: all of it, or, beside the database that it takes the place
    /// of, what was not good there any more.
    pub fn describe(&self, before: Option<&Self>, now: Millis) -> String {
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
        writeln!(
            text,
            "Good again is what was good when the backup was taken. Not known here is what became of it since: keys"
        )?;
        writeln!(
            text,
            "that were revoked, tickets that were reissued, transferred, revoked or used, people who were erased."
        )?;
        writeln!(text, "--before, with the database that this one takes the place of, tells exactly that.")?;
        writeln!(text, "{} keys are good:", good.len())?;
        for key in &good {
            writeln!(text, "  {}", key.describe())?;
        }
        writeln!(text, "{tickets} tickets are good, with the codes, links and paper of then.")?;
        write!(text, "{HOW_TO_REVOKE}")
    }

    fn describe_revived(&self, before: &Self, now: Millis, text: &mut String) -> std::fmt::Result {
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
        self.describe_lost(before, now, text)?;
        write!(text, "{HOW_TO_REVOKE}")
    }

    /// What was good in the database before and is not here.
    fn describe_lost(&self, before: &Self, now: Millis, text: &mut String) -> std::fmt::Result {
        let here: HashSet<Uuid> = self.keys.iter().map(|key| key.key_id).collect();
        let keys: Vec<&KeyRow> =
            before.keys.iter().filter(|key| key.is_good(now) && !here.contains(&key.key_id)).collect();
        writeln!(text, "{} keys of since are gone; enrol their devices again:", keys.len())?;
        for key in &keys {
            writeln!(text, "  {}", key.describe())?;
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
            Some(other) if other.secret_hash != key.secret_hash => {
                Some("had another secret, of a later enrolment".to_owned())
            }
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

const HOW_TO_REVOKE: &str = "\
To make worthless again what shall not be good, before anybody is let in:
  register-ticket-api keys revoke KEY_ID
  POST /api/tickets/TICKET_ID/reissue or …/revoke, DELETE /api/users/USERNAME
  register-ticket-api change-secret gives every ticket that is not used up new codes";
