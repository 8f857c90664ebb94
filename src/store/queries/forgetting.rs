//! Events that forget their people.
//!
//! The event is marked first: its `forgotten_at` is set. From then on its tickets are read without their holders, and it
//! accepts nothing new. Personal data is then erased in short transactions, between which others can write. If that is
//! interrupted, the next call erases the rest: it handles all marked events.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::events::{lock_event, read_use};
use super::issues::{CHUNK, Met, RowsOf, clear_abandoned, delete_in_chunks};
use super::{BEGIN, Backend, Connection, json, unless_held};
use crate::error::Error;
use crate::model::{Action, Event, Millis, Use};
use crate::store::{Act, Author, Forgetting, Forgotten, Result};

/// For this long, each call overwrites again what an event has forgotten.
const OVERWRITTEN: Duration = Duration::from_hours(48);

/// Whether the ticket `t` has personal data. Its search text has some only while it has a holder or a name.
macro_rules! is_personal {
    () => {
        "(t.user_id is not null or t.holder_name is not null or t.note is not null or t.reference is not null \
         or t.mailed_at is not null or t.mailing_at is not null)"
    };
}

/// Whether the person `u` holds no ticket.
macro_rules! holds_nothing {
    () => {
        "not exists (select 1 from tickets t where t.user_id = u.user_id)"
    };
}

/// People of the installation who transferred a ticket of the event `$1` to others.
macro_rules! former_holders {
    () => {
        "u.user_id in (select a.subject_id from actions a where a.event_id = $1 and a.action = 'transferred')"
    };
}

/// The personal data besides that of tickets: people who transferred theirs, the event's own people, and notes of the gate.
const REST: &[RowsOf] = &[
    RowsOf {
        find: concat!(
            "select u.user_id from users u where u.event_id is null and ",
            former_holders!(),
            " and ",
            holds_nothing!(),
            " and u.user_id > $2 order by u.user_id limit $3"
        ),
        delete: concat!(
            "delete from users as u where u.event_id is null and ",
            former_holders!(),
            " and ",
            holds_nothing!(),
            " and u.user_id > $2 and u.user_id <= $3"
        ),
    },
    rows_of!("event_id", "users", "user_id"),
    RowsOf {
        find: "select scan_id from scans where event_id = $1 and note is not null and scan_id > $2 order by scan_id limit $3",
        delete: "update scans set note = null where event_id = $1 and note is not null and scan_id > $2 and scan_id <= $3",
    },
];

#[async_trait]
impl Forgetting for Backend {
    async fn list_due(&self, now: Millis) -> Result<Vec<Event>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select ",
            event_columns!(),
            " from events where deleted_at is null and (forgotten_at is not null or forget_after_days is not null \
             and not exists (select 1 from tickets t where t.event_id = events.event_id \
             and t.valid_until > $1 - events.forget_after_days * 86400000)) order by event_id"
        ))
        .bind(now)
        .fetch_all(lease.connection())
        .await;
        let mut events: Vec<Event> = lease.settle(outcome.map_err(Error::from)).await?;
        events.retain(|event| event.forgotten_at.is_some() || event.forgets_at().is_some_and(|at| at <= now));
        Ok(events)
    }

    async fn count_people(&self, event_id: Uuid) -> Result<Forgotten> {
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select (select count(*) from tickets t where t.event_id = $1 and ",
            is_personal!(),
            ") as tickets, (select count(*) from users u where u.event_id = $1 or u.event_id is null \
             and (u.user_id in (select t.user_id from tickets t where t.event_id = $1) or ",
            former_holders!(),
            ") and not exists (select 1 from tickets t join events e on e.event_id = t.event_id \
             where t.user_id = u.user_id and t.event_id <> $1 and e.forgotten_at is null)) as people"
        ))
        .bind(event_id)
        .fetch_one(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn forget_event(&self, event_id: Uuid, author: Author) -> Result<Forgotten> {
        clear_abandoned(self, Met::In(event_id), author.now).await?;
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = mark(lease.connection(), event_id, author).await;
        let forgotten_at = lease.settle(outcome).await?;
        let mut forgotten = forget_tickets(self, event_id, author.now).await?;
        for rows in REST {
            let erased = delete_in_chunks(self, event_id, rows).await?;
            forgotten.people += if rows.delete.contains("from users") { erased } else { 0 };
        }
        // A call that was interrupted before it overwrote may have erased everything else.
        if forgotten != Forgotten::default() || author.now - OVERWRITTEN < forgotten_at {
            super::overwrite(self).await?;
        }
        Ok(forgotten)
    }
}

/// Marks the event as forgotten, unless it is already. It then admits nobody and accepts nothing. Returns when it was marked.
async fn mark(connection: &mut Connection, event_id: Uuid, author: Author) -> Result<Millis> {
    super::take_event(connection, event_id).await.map_err(|error| unless_held(error, Error::EventInUse))?;
    let known: Option<(Option<Millis>, Option<Uuid>)> =
        sqlx::query_as("select forgotten_at, issuing from events where event_id = $1 and deleted_at is null")
            .bind(event_id)
            .fetch_optional(&mut *connection)
            .await?;
    match known.ok_or(Error::EventNotFound)? {
        (Some(forgotten_at), _) => return Ok(forgotten_at),
        (None, Some(_)) => return Err(Error::ImportInProgress),
        (None, None) => {}
    }
    let event = lock_event(connection, event_id).await?;
    // A manifest that a device still has is no reason to keep the names.
    let used = Use { is_listed: false, ..read_use(connection, event_id, author.now).await? };
    if event.is_in_use(&used, author.now) {
        return Err(Error::EventInUse);
    }
    sqlx::query("update events set forgotten_at = $2 where event_id = $1")
        .bind(event_id)
        .bind(author.now)
        .execute(&mut *connection)
        .await?;
    record(connection, author, &Act::new(Action::EventForgotten, event_id)).await?;
    Ok(author.now)
}

/// Erases the personal data of the event's tickets, and those of their holders who then hold no ticket.
async fn forget_tickets(backend: &Backend, event_id: Uuid, now: Millis) -> Result<Forgotten> {
    let (mut after, mut size, mut forgotten) = (Uuid::nil(), CHUNK, Forgotten::default());
    loop {
        let mut lease = backend.reader().await?;
        let outcome = sqlx::query_scalar(concat!(
            "select t.ticket_id from tickets t where t.event_id = $1 and ",
            is_personal!(),
            " and t.ticket_id > $2 order by t.ticket_id limit $3"
        ))
        .bind(event_id)
        .bind(after)
        .bind(size as i64)
        .fetch_all(lease.connection())
        .await;
        let found: Vec<Uuid> = lease.settle(outcome.map_err(Error::from)).await?;
        let Some(&last) = found.last() else { return Ok(forgotten) };
        let mut lease = backend.writer().await?.begin(BEGIN).await?;
        let locked = Instant::now();
        let outcome = forget_some(lease.connection(), event_id, (after, last), now).await;
        let some = lease.settle(outcome).await?;
        forgotten.tickets += some.tickets;
        forgotten.people += some.people;
        size = super::give_way(size, locked.elapsed()).await;
        after = last;
    }
}

/// Does the same for some tickets, in one transaction: once a ticket has no holder, nothing tells which person of the
/// installation held it.
async fn forget_some(
    connection: &mut Connection,
    event_id: Uuid,
    (after, until): (Uuid, Uuid),
    now: Millis,
) -> Result<Forgotten> {
    // Locked before their tickets, in the same order as when a person is erased.
    let holders: Vec<Uuid> = sqlx::query_scalar(concat!(
        "select u.user_id from users u where u.user_id in (select t.user_id from tickets t where t.event_id = $1 \
         and t.ticket_id > $2 and t.ticket_id <= $3) order by u.user_id",
        lock_users!()
    ))
    .bind(event_id)
    .bind(after)
    .bind(until)
    .fetch_all(&mut *connection)
    .await?;
    let tickets = sqlx::query(concat!(
        "update tickets as t set ",
        without_holder!(),
        ", reference = null, mailed_at = null, mailing_at = null, search = null, changed_at = $4, version = t.version + 1 \
         where t.event_id = $1 and t.ticket_id > $2 and t.ticket_id <= $3 and ",
        is_personal!()
    ))
    .bind(event_id)
    .bind(after)
    .bind(until)
    .bind(now)
    .execute(&mut *connection)
    .await?;
    let ids: Vec<_> = holders.iter().map(|user_id| (user_id.simple().to_string(),)).collect();
    let people = sqlx::query(concat!(
        "delete from users as u where ",
        among!("u.user_id", id_in!("m.value ->> 0"), "$1"),
        " and ",
        holds_nothing!()
    ))
    .bind(json(&ids)?)
    .execute(connection)
    .await?;
    Ok(Forgotten { tickets: tickets.rows_affected() as i64, people: people.rows_affected() as i64 })
}
