//! What an import reads of the existing data before it writes, and its corrections.

use std::collections::HashMap;
use std::hash::Hash;

use async_trait::async_trait;
use serde::Serialize;
use uuid::Uuid;

use super::actions::record;
use super::issues::LARGE_CHUNK;
use super::search::fold_places;
use super::{Backend, Connection, json};
use crate::error::Error;
use crate::fold;
use crate::model::{Action, Status};
use crate::store::{
    Act, Author, Correction, GateSeats, Issuance, Issued, KnownPerson, Lists, NewTicket, NewUser, Result, Wanted,
};

/// A statement that finds tickets of an event, `$1`, by a JSON array, `$2`.
macro_rules! select_issued {
    ($($rest:expr),+) => {
        concat!(
            "select t.ticket_id, t.seat, t.gate, t.reference, t.status, u.username, u.event_id as holder_event_id, \
             u.full_name as own_name, coalesce(t.holder_name, u.full_name) as full_name, t.category, t.note, \
             t.valid_from, t.valid_until, t.walk_up from tickets t join events e on e.event_id = t.event_id and ",
            issued_ticket!(),
            " left join users u on u.user_id = t.user_id where t.event_id = $1 and ",
            $($rest),+
        )
    };
}

const BY_REFERENCE: &str = select_issued!(among!("t.reference", "m.value ->> 0", "$2"));
/// Also finds some other tickets: with the seat of one row at the gate of another. An index of both columns would be
/// searched for each seat at each gate.
const BY_PLACE: &str = select_issued!(
    among!("t.seat_key", "m.value ->> 0", "$2"),
    " and ",
    among!("coalesce(t.gate_key, '')", "m.value ->> 1", "$2")
);

#[async_trait]
impl Lists for Backend {
    async fn list_gates(&self, event_id: Uuid) -> Result<Vec<GateSeats>> {
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select t.gate, max(",
            number_in!("t.seat"),
            ") as last_number, count(case when t.status <> 'revoked' and not t.walk_up then 1 end) as standing from events e join tickets t on t.event_id = e.event_id and ",
            issued_ticket!(),
            " where e.event_id = $1 group by t.gate order by t.gate"
        ))
        .bind(event_id)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn find_issued(&self, event_id: Uuid, wanted: &[Wanted]) -> Result<Vec<Issued>> {
        fold_places(self, event_id).await?;
        let mut found: Vec<Issued> = Vec::new();
        for (number, chunk) in wanted.chunks(LARGE_CHUNK).enumerate() {
            let references = by_value(chunk.iter().map(|wanted| wanted.reference.clone()));
            let places =
                by_value(chunk.iter().map(|Wanted { place, .. }| {
                    place.as_ref().map(|(seat, gate)| (fold::place(seat), fold::place(gate)))
                }));
            let first = number * LARGE_CHUNK;
            let rows: Vec<_> = references.keys().map(|reference| (reference,)).collect();
            for ticket in self.issued(BY_REFERENCE, event_id, &rows).await? {
                let place = ticket.reference.as_ref().and_then(|reference| references.get(reference));
                found.extend(place.map(|place| Issued { place: first + place, ..ticket }));
            }
            let rows: Vec<_> = places.keys().collect();
            for ticket in self.issued(BY_PLACE, event_id, &rows).await? {
                let place = places.get(&(fold::place(&ticket.seat), fold::place(&ticket.gate)));
                found.extend(place.map(|place| Issued { place: first + place, ..ticket }));
            }
        }
        Ok(found)
    }

    async fn find_held(&self, event_id: Uuid, people_of: Option<Uuid>, usernames: &[String]) -> Result<Vec<Issued>> {
        let mut found: Vec<Issued> = Vec::new();
        for chunk in usernames.chunks(LARGE_CHUNK) {
            let mut lease = self.reader().await?;
            let outcome = sqlx::query_as(select_issued!(
                among!("lower(u.username)", "lower(m.value ->> 0)", "$2"),
                " and u.event_id is not distinct from $3 order by t.ticket_id"
            ))
            .bind(event_id)
            .bind(json(&in_rows(chunk))?)
            .bind(people_of)
            .fetch_all(lease.connection())
            .await;
            let page: Vec<Issued> = lease.settle(outcome.map_err(Error::from)).await?;
            found.extend(page);
        }
        Ok(found)
    }

    async fn find_people(&self, people_of: Option<Uuid>, usernames: &[String]) -> Result<Vec<KnownPerson>> {
        let mut found: Vec<KnownPerson> = Vec::new();
        for chunk in usernames.chunks(LARGE_CHUNK) {
            let mut lease = self.reader().await?;
            let outcome = sqlx::query_as(concat!(
                "select u.username, u.full_name, u.email from users u where ",
                among!("lower(u.username)", "lower(m.value ->> 0)", "$1"),
                " and u.event_id is not distinct from $2 and ",
                issued_user!()
            ))
            .bind(json(&in_rows(chunk))?)
            .bind(people_of)
            .fetch_all(lease.connection())
            .await;
            let page: Vec<KnownPerson> = lease.settle(outcome.map_err(Error::from)).await?;
            found.extend(page);
        }
        Ok(found)
    }
}

impl Backend {
    /// Runs one of the statements above with these rows.
    async fn issued(&self, statement: &'static str, event_id: Uuid, rows: &[impl Serialize]) -> Result<Vec<Issued>> {
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let rows = json(&rows)?;
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(statement).bind(event_id).bind(rows).fetch_all(lease.connection()).await;
        lease.settle(outcome.map_err(Error::from)).await
    }
}

/// Returns the index of each value.
fn by_value<T: Eq + Hash>(values: impl Iterator<Item = Option<T>>) -> HashMap<T, usize> {
    values.enumerate().filter_map(|(index, value)| Some((value?, index))).collect()
}

/// Returns the indexes in the slice of the tickets whose reference another ticket has already.
pub(super) async fn find_references(backend: &Backend, event_id: Uuid, tickets: &[NewTicket]) -> Result<Vec<usize>> {
    let wanted = |ticket: &NewTicket| Wanted { reference: ticket.reference.clone(), place: None };
    let found = backend.find_issued(event_id, &tickets.iter().map(wanted).collect::<Vec<_>>()).await?;
    Ok(found.into_iter().map(|ticket| ticket.place).collect())
}

/// Wraps each text in a row of its own, as `m.value ->> 0` reads it.
fn in_rows(texts: &[String]) -> Vec<[&str; 1]> {
    texts.iter().map(|text| [text.as_str()]).collect()
}

/// Corrects existing tickets and people. Fails as a whole if a ticket is to be given to somebody and can no longer be held.
pub(super) async fn correct(
    connection: &mut Connection,
    event_id: Uuid,
    people_of: Option<Uuid>,
    list: &Issuance,
    author: Author,
) -> Result<()> {
    add_details(connection, people_of, &list.details).await?;
    for chunk in list.corrections.chunks(LARGE_CHUNK) {
        let row = |correction: &Correction| {
            let Correction { ticket_id, reference, holder_name, username, category, note, .. } = correction;
            (
                ticket_id.simple().to_string(),
                reference.clone(),
                holder_name.as_ref().map(|_| "named"),
                holder_name.clone().flatten(),
                username.clone(),
                category.clone(),
                note.clone(),
                correction.valid_from.map(|time| time.0),
                correction.valid_until.map(|time| time.0),
            )
        };
        let rows: Vec<_> = chunk.iter().map(row).collect();
        // Materialized: the planner may otherwise take it for short, and compare each of its rows with each ticket.
        let outcome = sqlx::query(concat!(
            "with n as materialized (select ",
            id_in!("n.value ->> 0"),
            " as ticket_id, n.value ->> 1 as reference, n.value ->> 2 is not null as is_named, \
             n.value ->> 3 as holder_name, n.value ->> 4 as username, n.value ->> 5 as category, n.value ->> 6 as note, \
             cast(n.value ->> 7 as bigint) as valid_from, cast(n.value ->> 8 as bigint) as valid_until, u.user_id from ",
            members!("$2"),
            " left join users u on lower(u.username) = lower(n.value ->> 4) and u.event_id is not distinct from $3 and ",
            issued_user!(),
            ") update tickets as t set reference = coalesce(n.reference, t.reference), \
             category = coalesce(n.category, t.category), note = coalesce(n.note, t.note), \
             valid_from = coalesce(n.valid_from, t.valid_from), valid_until = coalesce(n.valid_until, t.valid_until), \
             holder_name = case when n.is_named then n.holder_name else t.holder_name end, \
             user_id = coalesce(t.user_id, n.user_id), \
             registered_at = case when t.user_id is null and n.user_id is not null then $4 else t.registered_at end, \
             changed_at = $4, version = t.version + 1 from n where t.ticket_id = n.ticket_id and t.event_id = $1 and ",
            among!("t.ticket_id", id_in!("m.value ->> 0"), "$2"),
            " and (n.username is null or (t.user_id is null and n.user_id is not null and t.status = $5))"
        ))
        .bind(event_id)
        .bind(json(&rows)?)
        .bind(people_of)
        .bind(author.now)
        .bind(Status::Valid)
        .execute(&mut *connection)
        .await;
        if outcome?.rows_affected() != chunk.len() as u64 {
            // A ticket was changed since it was read.
            return Err(Error::ImportInProgress);
        }
        for correction in chunk {
            let act = Act::new(Action::Corrected, event_id).ticket(correction.ticket_id);
            record(connection, author, &act).await?;
        }
    }
    Ok(())
}

/// Adds names and addresses to people who have none.
async fn add_details(connection: &mut Connection, people_of: Option<Uuid>, details: &[NewUser]) -> Result<()> {
    for chunk in details.chunks(LARGE_CHUNK) {
        let rows: Vec<_> = chunk.iter().map(|new| (&new.username, &new.full_name, &new.email)).collect();
        sqlx::query(concat!(
            "with n as materialized (select lower(n.value ->> 0) as username, n.value ->> 1 as full_name, \
             n.value ->> 2 as email from ",
            members!("$1"),
            ") update users as u set full_name = coalesce(u.full_name, n.full_name), email = coalesce(u.email, n.email) \
             from n where lower(u.username) = n.username and u.event_id is not distinct from $2 and ",
            among!("lower(u.username)", "lower(m.value ->> 0)", "$1"),
            " and ",
            issued_user!()
        ))
        .bind(json(&rows)?)
        .bind(people_of)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
