//! Events, and their statistics.
//!
//! A deleted event disappears at once: its `deleted_at` is set, and every statement skips it and its rows. The rows are
//! then deleted in short transactions, between which others can write, and the event last. If that is interrupted, the
//! next deletion of an event or large import deletes the remaining rows.

use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::issues::{Met, clear_abandoned, delete_in_chunks};
use super::search::fold_places;
use super::{BEGIN, Backend, Connection, ROWS_OF_AN_EVENT, unless_held, unless_unique};
use crate::error::Error;
use crate::fault::Fault;
use crate::fold;
use crate::limits::{ATTEMPTS_WINDOW, CLOCKS_APART, GUESSES_NOTED, GUESSES_SHOWN, LIST_KEPT};
use crate::model::{Action, Event, Millis, Use};
use crate::store::{
    Act, Author, CountedGroup, CountedScans, DEFAULT_EVENT, EventChange, Events, Guarded, ManifestState, PrintedList,
    Result, Stats,
};

/// A deletion that began this long ago has no request any more, so others may finish it.
const STOPPED: Duration = Duration::from_mins(2);

/// How long a request with another purpose spends on interrupted deletions.
const FOR_OTHERS: Duration = Duration::from_secs(10);

macro_rules! event_columns {
    () => {
        "event_id, slug, name, time_zone, starts_at, ends_at, opens_at, closes_at, reentry, capacity, category_colours, \
         language, location, forget_after_days, forgotten_at, walk_ups, walk_up_price, currency, version"
    };
}

#[async_trait]
impl Events for Backend {
    async fn insert_event(&self, event: &Event, author: Author) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            sqlx::query(
            "insert into events (event_id, slug, name, time_zone, starts_at, ends_at, opens_at, closes_at, reentry, \
             version, created_at, capacity, category_colours, language, location, forget_after_days, \
             walk_ups, walk_up_price, currency) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)",
        )
        .bind(event.event_id)
        .bind(&event.slug)
        .bind(&event.name)
        .bind(&event.time_zone)
        .bind(event.starts_at)
        .bind(event.ends_at)
        .bind(event.opens_at)
        .bind(event.closes_at)
        .bind(event.reentry)
        .bind(event.version)
        .bind(author.now)
        .bind(event.capacity)
        .bind(event.category_colours.to_json())
        .bind(&event.language)
        .bind(&event.location)
        .bind(event.forget_after_days)
        .bind(event.walk_ups)
        .bind(event.walk_up_price)
        .bind(&event.currency)
        .execute(&mut *connection)
        .await
        .map_err(|error| unless_unique(error, Error::EventExists))?;
            record(connection, author, &Act::new(Action::EventCreated, event.event_id)).await
        }
        .await;
        lease.settle(outcome.map(drop)).await
    }

    async fn find_event(&self, slug: &str) -> Result<Option<Guarded<Event>>> {
        let mut lease = self.reader().await?;
        let outcome = find_event(lease.connection(), slug).await;
        let event = lease.settle(outcome).await?;
        Ok(event.map(|event| Guarded::new(event.event_id, event)))
    }

    async fn list_events(&self, after: Option<Uuid>, limit: i64) -> Result<Vec<Event>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select ",
            event_columns!(),
            " from events where event_id > $1 and deleted_at is null order by event_id limit $2"
        ))
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn change_event(&self, event_id: Uuid, change: &EventChange, author: Author) -> Result<Event> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let known = lock_event(connection, event_id).await?;
            let mut event = known.clone();
            change.apply(&mut event)?;
            if (event.starts_at, event.ends_at) != (known.starts_at, known.ends_at) {
                let used = read_use(connection, event_id, author.now).await?;
                known.check_change(&event, &used, author.now)?;
            }
            if event.currency != known.currency && was_paid(connection, event_id).await? {
                return Err(Error::field("currency", Fault::PaidInIt));
            }
            sqlx::query(
                "update events set name = $2, time_zone = $3, starts_at = $4, ends_at = $5, opens_at = $6, closes_at = $7, \
                 reentry = $8, version = $9, capacity = $10, category_colours = $11, language = $12, location = $13, \
                 forget_after_days = $14, walk_ups = $15, walk_up_price = $16, currency = $17 \
                 where event_id = $1",
            )
            .bind(event_id)
            .bind(&event.name)
            .bind(&event.time_zone)
            .bind(event.starts_at)
            .bind(event.ends_at)
            .bind(event.opens_at)
            .bind(event.closes_at)
            .bind(event.reentry)
            .bind(event.version)
            .bind(event.capacity)
            .bind(event.category_colours.to_json())
            .bind(&event.language)
            .bind(&event.location)
            .bind(event.forget_after_days)
            .bind(event.walk_ups)
            .bind(event.walk_up_price)
            .bind(&event.currency)
            .execute(&mut *connection)
            .await?;
            record(connection, author, &Act::new(Action::EventChanged, event_id)).await?;
            Ok(event)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn printed_list(&self, event_id: Uuid) -> Result<PrintedList> {
        let mut lease = self.long_reader().await?;
        // An import is one action, whose `count` is its number of tickets.
        let outcome = sqlx::query_as(
            "select e.list_printed_at as printed_at, (select cast(coalesce(sum(coalesce(a.count, 1)), 0) as bigint) \
             from actions a where a.event_id = e.event_id and a.at >= e.list_printed_at and a.action in \
             ('issued', 'registered', 'corrected', 'transferred', 'reissued', 'renewed', 'revoked', 'user_erased')) as changes \
             from events e where e.event_id = $1 and e.deleted_at is null",
        )
        .bind(event_id)
        .fetch_optional(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await?.ok_or(Error::EventNotFound)
    }

    async fn note_list_printed(&self, event_id: Uuid, author: Author) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            record(connection, author, &Act::new(Action::ListPrinted, event_id)).await?;
            sqlx::query("update events set list_printed_at = $2 where event_id = $1")
                .bind(event_id)
                .bind(author.now)
                .execute(&mut *connection)
                .await?;
            Ok(())
        }
        .await;
        lease.settle(outcome).await
    }

    async fn delete_event(&self, event_id: Uuid, confirm: Option<&str>, author: Author) -> Result<()> {
        clear_abandoned(self, Met::In(event_id), author.now).await?;
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            super::take_event(connection, event_id).await.map_err(|error| unless_held(error, Error::EventInUse))?;
            let event = lock_event(connection, event_id).await?;
            let used = read_use(connection, event_id, author.now).await?;
            if event.slug == DEFAULT_EVENT || event.is_in_use(&used, author.now) {
                return Err(Error::EventInUse);
            }
            let issuing: Option<Uuid> = sqlx::query_scalar("select issuing from events where event_id = $1")
                .bind(event_id)
                .fetch_one(&mut *connection)
                .await?;
            if issuing.is_some() {
                return Err(Error::ImportInProgress);
            }
            let needs_confirming = has_tickets(connection, event_id).await?;
            if confirm.map_or(needs_confirming, |typed| typed != event.slug) {
                return Err(Error::field("confirm", Fault::NotTheSlug));
            }
            let delete = sqlx::query("delete from keys where event_id = $1").bind(event_id).execute(&mut *connection);
            delete.await.map_err(|error| unless_held(error, Error::EventInUse))?;
            // No slug contains a space, so this one conflicts with none, and the event's own slug becomes free.
            sqlx::query("update events set slug = $2, deleted_at = $3 where event_id = $1")
                .bind(event_id)
                .bind(format!("deleted {event_id}"))
                .bind(author.now)
                .execute(&mut *connection)
                .await?;
            // Actions in the event are deleted with it. This one belongs to no event, so it stays, and names the event by
            // its id.
            record(connection, author, &Act::new(Action::EventDeleted, None).subject(event_id)).await
        }
        .await;
        lease.settle(outcome.map(drop)).await
    }

    async fn clear_event(&self, event_id: Uuid, now: Millis) -> Result<()> {
        clear(self, event_id).await?;
        clear_stopped(self, now).await;
        Ok(())
    }

    async fn manifest_state(&self, event_id: Uuid, gate: Option<&str>) -> Result<ManifestState> {
        if gate.is_some() {
            fold_places(self, event_id).await?;
        }
        let mut lease = self.long_reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select count(*) as tickets, \
             cast(coalesce(sum(case when coalesce(t.gate_key = $2, true) then t.version end), 0) as bigint) as versions, \
             count(case when coalesce(t.gate_key = $2, true) then 1 end) as own_tickets, \
             count(case when coalesce(t.gate_key = $2, true) then t.used_at end) as admitted, \
             count(case when coalesce(t.gate_key = $2, true) and t.inside then 1 end) as inside, \
             (select s.value from settings s where s.name = 'history') as history, ",
            next_change!(
                "coalesce(max(t.change), 0)",
                "coalesce((select max(a.change) from actions a where a.event_id = $1 and a.action = 'issued'), 0)"
            ),
            " as change from events e join tickets t on t.event_id = e.event_id and ",
            issued_ticket!(),
            " where e.event_id = $1"
        ))
        .bind(event_id)
        .bind(gate.map(fold::place))
        .fetch_one(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn stats(&self, event_id: Uuid, now: Millis) -> Result<Stats> {
        let mut lease = self.counting_reader().await?;
        let outcome = stats(lease.connection(), event_id, now).await;
        lease.settle(outcome.map_err(Error::from)).await
    }
}

pub(super) async fn find_event(connection: &mut Connection, slug: &str) -> Result<Option<Event>> {
    let event =
        sqlx::query_as(concat!("select ", event_columns!(), " from events where slug = $1 and deleted_at is null"))
            .bind(slug)
            .fetch_optional(connection)
            .await?;
    Ok(event)
}

/// Locks the event's row for the rest of the transaction, and increments its version.
pub(super) async fn lock_event(connection: &mut Connection, event_id: Uuid) -> Result<Event> {
    sqlx::query_as(concat!(
        "update events set version = version + 1 where event_id = $1 and deleted_at is null returning ",
        event_columns!()
    ))
    .bind(event_id)
    .fetch_optional(connection)
    .await?
    .ok_or(Error::EventNotFound)
}

/// Deletes the remaining rows of a deleted event, and then the event.
async fn clear(backend: &Backend, event_id: Uuid) -> Result<()> {
    for rows in ROWS_OF_AN_EVENT {
        delete_in_chunks(backend, event_id, rows).await?;
    }
    let mut lease = backend.writer().await?;
    let delete = sqlx::query("delete from events where event_id = $1 and deleted_at is not null").bind(event_id);
    let outcome = delete.execute(lease.connection()).await;
    lease.settle(outcome.map_err(Error::from)).await.map(drop)
}

/// Finishes interrupted deletions of events. A failure does not fail the caller's request; the next one continues.
pub(super) async fn clear_stopped(backend: &Backend, now: Millis) {
    let stopped = async {
        let mut lease = backend.reader().await?;
        let find = "select event_id from events where deleted_at < $1 or deleted_at > $2 order by deleted_at";
        let outcome =
            sqlx::query_scalar(find).bind(now - STOPPED).bind(now + CLOCKS_APART).fetch_all(lease.connection()).await;
        let events: Vec<Uuid> = lease.settle(outcome.map_err(Error::from)).await?;
        for event_id in events {
            clear(backend, event_id).await?;
        }
        Result::Ok(())
    };
    if let Ok(Err(error)) = tokio::time::timeout(FOR_OTHERS, stopped).await {
        tracing::warn!(%error, "the remaining rows of a deleted event stay hidden until the next deletion or import");
    }
}

/// Reads what determines whether an event is in use.
pub(super) async fn read_use(connection: &mut Connection, event_id: Uuid, now: Millis) -> Result<Use> {
    let admitted_at = sqlx::query_scalar(
        "select max(received_at) from scans where event_id = $1 and result = 'accepted' and undone_at is null \
         and received_at <= $2",
    )
    .bind(event_id)
    .bind(now + CLOCKS_APART)
    .fetch_one(&mut *connection)
    .await?;
    // Which manifests a device with a key of all events has is not recorded.
    let lists: i64 = sqlx::query_scalar(
        "select count(*) from keys where (event_id = $1 or event_id is null and $4) and revoked_at is null \
         and (expires_at is null or expires_at > $2) and manifest_at > $3",
    )
    .bind(event_id)
    .bind(now)
    .bind(now - LIST_KEPT)
    .bind(has_tickets(connection, event_id).await?)
    .fetch_one(connection)
    .await?;
    Ok(Use { admitted_at, is_listed: lists > 0 })
}

/// Whether anything was paid at the event's doors. A walk-up that pays more has to wait for the event's row, which we
/// have locked.
async fn was_paid(connection: &mut Connection, event_id: Uuid) -> Result<bool> {
    let paid: Option<i32> =
        sqlx::query_scalar("select 1 from tickets where event_id = $1 and paid is not null limit 1")
            .bind(event_id)
            .fetch_optional(connection)
            .await?;
    Ok(paid.is_some())
}

async fn has_tickets(connection: &mut Connection, event_id: Uuid) -> Result<bool> {
    let ticket: Option<i32> = sqlx::query_scalar("select 1 from tickets where event_id = $1 limit 1")
        .bind(event_id)
        .fetch_optional(connection)
        .await?;
    Ok(ticket.is_some())
}

async fn stats(connection: &mut Connection, event_id: Uuid, now: Millis) -> std::result::Result<Stats, sqlx::Error> {
    let groups: Vec<CountedGroup> = sqlx::query_as(concat!(
        "select t.gate, t.category, sum(case when t.walk_up and t.used_at is null then 0 else 1 end) as tickets, \
         count(t.registered_at) as registered, count(t.used_at) as admitted, \
         sum(case when t.status = 'valid' and (t.user_id is not null or e.forgotten_at is not null \
         and t.registered_at is not null) then 1 else 0 end) as expected, \
         sum(case when t.inside then 1 else 0 end) as inside, count(case when t.walk_up then t.used_at end) as walk_ups, \
         cast(coalesce(sum(case when t.walk_up and t.used_at is not null then t.paid end), 0) as bigint) as cash \
         from events e join tickets t on t.event_id = e.event_id and ",
        issued_ticket!(),
        " where e.event_id = $1 group by t.gate, t.category"
    ))
    .bind(event_id)
    .fetch_all(&mut *connection)
    .await?;
    let scans: Vec<CountedScans> = sqlx::query_as(concat!(
        "select s.result, s.direction, s.undone_at is not null as undone, \
         case when s.result = 'accepted' then s.decided_at - s.decided_at % 60000 end as minute, count(*) as scans \
         from scans s where s.event_id = $1 and ",
        kept_scan!(),
        " group by 1, 2, 3, 4"
    ))
    .bind(event_id)
    .fetch_all(&mut *connection)
    .await?;
    let guessing = sqlx::query_as(concat!(
        "select g.key_id, k.name, k.gate, g.refused_codes, g.within_window from (select s.key_id, \
         count(*) as refused_codes, sum(case when s.received_at > $3 then 1 else 0 end) as within_window \
         from scans s where s.event_id = $1 and s.received_at > $2 and s.received_at <= $5 \
         and s.result in ('wrong_code', 'stale_code') and ",
        kept_scan!(),
        " group by s.key_id having count(*) >= $4) as g left join keys k on k.key_id = g.key_id \
         order by g.refused_codes desc, g.key_id"
    ))
    .bind(event_id)
    .bind(now - GUESSES_SHOWN)
    .bind(now - ATTEMPTS_WINDOW)
    .bind(GUESSES_NOTED)
    .bind(now + CLOCKS_APART)
    .fetch_all(connection)
    .await?;
    Ok(Stats::new(groups, &scans, guessing))
}
