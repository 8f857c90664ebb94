//! Every statement that PostgreSQL and SQLite both read. This file is compiled twice, once inside each database's
//! module, which gives it `Db`, `Backend` and the operations that differ.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::{FromRow as _, Row as _};
use uuid::Uuid;

use super::{BEGIN, Backend, Db, LOCK_TICKET, LOCK_USER};
use crate::admission::ATTEMPTS;
use crate::error::{Error, FieldError};
use crate::model::{Direction, Event, Key, Millis, Scan, ScanResult, Status, Ticket, User};
use crate::store::{
    Arrivals, Created, EventChange, GateCounts, Health, ManifestState, Mark, NewTicket, Recorded, Result, ScanContext,
    Stats, Store, TicketChange, TicketFilter, TicketName,
};

type Connection = <Db as sqlx::Database>::Connection;
type Row = <Db as sqlx::Database>::Row;

/// Tickets written by one statement: large enough to be fast, small enough to show progress.
const CHUNK: usize = 5_000;

macro_rules! event_columns {
    () => {
        "event_id, slug, name, time_zone, starts_at, ends_at, reentry, version"
    };
}

macro_rules! ticket_columns {
    () => {
        "t.ticket_id, t.event_id, e.slug as event, t.user_id, t.seat, t.gate, t.seed, t.status, u.username, \
         u.full_name, u.email, t.inside, t.last_step, t.version, t.created_at, t.registered_at, t.used_at, \
         t.printed_at"
    };
}

macro_rules! scan_columns {
    () => {
        "s.scan_id, s.event_id, s.ticket_id, s.presented, s.at_gate, s.direction, s.result, s.offline_result, \
         s.manual, s.note, s.seconds_off, s.first_used_at, s.first_used_gate, s.scanned_at, s.received_at, \
         s.decided_at, s.key_id, s.undone_at, s.undone_by"
    };
}

/// A statement that selects tickets.
macro_rules! select_tickets {
    ($($rest:tt)+) => {
        concat!(
            "select ",
            ticket_columns!(),
            " from tickets t join events e on e.event_id = t.event_id left join users u on u.user_id = t.user_id ",
            $($rest)+
        )
    };
}

/// A statement that selects keys.
macro_rules! select_keys {
    ($rest:literal) => {
        concat!(
            "select k.key_id, k.name, k.role, k.event_id, e.slug as event, k.gate, k.offline, k.created_at, ",
            "k.expires_at, k.revoked_at from keys k left join events e on e.event_id = k.event_id ",
            $rest
        )
    };
}

/// How many codes of a ticket were refused since a moment, those of offline gates apart.
macro_rules! count_refusals {
    ($ticket:literal, $since:literal) => {
        concat!(
            "(select count(*) from scans r where r.ticket_id = ",
            $ticket,
            " and r.received_at > ",
            $since,
            " and r.result in ('wrong_code', 'stale_code') and r.offline_result is null)"
        )
    };
}

/// All that a decision needs; `$ticket` says by what the ticket is found.
macro_rules! select_scan_context {
    ($ticket:literal) => {
        concat!(
            "select e.event_id as of_event_id, e.reentry, ",
            ticket_columns!(),
            ", ",
            count_refusals!("t.ticket_id", "$3"),
            " as refusals",
            ", (select max(a.decided_at) from scans a where a.ticket_id = t.ticket_id and a.result = 'accepted' ",
            "and a.undone_at is null) as newest_accepted_at",
            ", (select coalesce(a.at_gate, t.gate) from scans a where a.ticket_id = t.ticket_id ",
            "and a.result = 'accepted' and a.direction = 'entry' and a.undone_at is null ",
            "and a.decided_at >= t.used_at order by a.decided_at limit 1) as first_used_gate",
            ", (select s.value from settings s where s.name = 'ticket_secret') as secret_fingerprint",
            ", (select count(*) from scans p where p.scan_id = $2) as prior",
            " from events e left join tickets t on t.event_id = e.event_id and ",
            $ticket,
            " left join users u on u.user_id = t.user_id where e.slug = $1"
        )
    };
}

/// The beginning of every statement that writes a scan, whose values [`bind_scan`] gives as `$1` to `$17`.
macro_rules! insert_scan {
    () => {
        "insert into scans (scan_id, event_id, ticket_id, presented, at_gate, direction, result, offline_result, \
         manual, note, seconds_off, first_used_at, first_used_gate, scanned_at, received_at, decided_at, key_id) \
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17"
    };
}

/// Writes a scan unless too many codes were refused: `$18` since when, `$19` how many.
pub const INSERT_SCAN: &str = concat!(insert_scan!(), " where ", count_refusals!("$3", "$18"), " <= $19");

/// Gives a statement the values of a scan, and after them since when refusals count and how many are let pass.
pub fn bind_scan<'q>(
    query: sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments>,
    scan: &'q Scan,
    refusals_since: Millis,
) -> sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments> {
    query
        .bind(scan.scan_id)
        .bind(scan.event_id)
        .bind(scan.ticket_id)
        .bind(scan.presented)
        .bind(scan.at_gate.as_deref())
        .bind(scan.direction.as_str())
        .bind(scan.result.as_str())
        .bind(scan.offline_result.as_deref())
        .bind(scan.manual)
        .bind(scan.note.as_deref())
        .bind(scan.seconds_off)
        .bind(scan.first_used_at)
        .bind(scan.first_used_gate.as_deref())
        .bind(scan.scanned_at)
        .bind(scan.received_at)
        .bind(scan.decided_at)
        .bind(scan.key_id)
        .bind(refusals_since)
        .bind(ATTEMPTS)
}

#[async_trait]
impl Store for Backend {
    async fn health(&self) -> Result<Health> {
        let mut lease = self.reader().await?;
        let outcome = super::health(lease.connection()).await;
        lease.settle(outcome).await
    }

    async fn claim_secret(&self, fingerprint: &[u8]) -> Result<Vec<u8>> {
        let mut lease = self.writer().await?;
        let outcome = async {
            sqlx::query("insert into settings (name, value) values ('ticket_secret', $1) on conflict do nothing")
                .bind(fingerprint)
                .execute(lease.connection())
                .await?;
            let kept = sqlx::query_scalar("select value from settings where name = 'ticket_secret'")
                .fetch_one(lease.connection())
                .await?;
            Ok(kept)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn find_key(&self, secret_hash: &[u8]) -> Result<Option<Key>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_keys!("where k.secret_hash = $1"))
            .bind(secret_hash)
            .fetch_optional(lease.connection())
            .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn insert_key(&self, key: &Key, secret_hash: &[u8]) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = sqlx::query(
            "insert into keys (key_id, name, role, event_id, gate, offline, secret_hash, created_at, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(key.key_id)
        .bind(&key.name)
        .bind(key.role.as_str())
        .bind(key.event_id)
        .bind(key.gate.as_deref())
        .bind(key.offline)
        .bind(secret_hash)
        .bind(key.created_at)
        .bind(key.expires_at)
        .execute(lease.connection())
        .await;
        lease.settle(outcome.map(drop).map_err(Error::from)).await
    }

    async fn list_keys(&self, event_id: Option<Uuid>, after: Option<Uuid>, limit: i64) -> Result<Vec<Key>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_keys!(
            "where ($1 is null or k.event_id = $1) and k.key_id > $2 order by k.key_id limit $3"
        ))
        .bind(event_id)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn get_key(&self, key_id: Uuid) -> Result<Option<Key>> {
        let mut lease = self.reader().await?;
        let outcome =
            sqlx::query_as(select_keys!("where k.key_id = $1")).bind(key_id).fetch_optional(lease.connection()).await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn revoke_key(&self, key_id: Uuid, now: Millis) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = sqlx::query("update keys set revoked_at = $2 where key_id = $1 and revoked_at is null")
            .bind(key_id)
            .bind(now)
            .execute(lease.connection())
            .await;
        lease.settle(outcome.map(drop).map_err(Error::from)).await
    }

    async fn insert_user(&self, user: &User) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = sqlx::query(
            "insert into users (user_id, username, full_name, email, created_at) values ($1, $2, $3, $4, $5)",
        )
        .bind(user.user_id)
        .bind(&user.username)
        .bind(user.full_name.as_deref())
        .bind(user.email.as_deref())
        .bind(user.created_at)
        .execute(lease.connection())
        .await;
        lease.settle(outcome.map(drop).map_err(|error| unless_unique(error, Error::UsernameTaken))).await
    }

    async fn find_user(&self, username: &str) -> Result<Option<User>> {
        let mut lease = self.reader().await?;
        let outcome = find_user(lease.connection(), username).await;
        lease.settle(outcome).await
    }

    async fn erase_user(&self, username: &str, only_event: Option<Uuid>, now: Millis) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            sqlx::query(LOCK_USER).bind(username).fetch_optional(&mut *connection).await?;
            let user = find_user(connection, username).await?.ok_or(Error::UserNotFound)?;
            if let Some(event_id) = only_event {
                let elsewhere: i64 =
                    sqlx::query_scalar("select count(*) from tickets where user_id = $1 and event_id <> $2")
                        .bind(user.user_id)
                        .bind(event_id)
                        .fetch_one(&mut *connection)
                        .await?;
                if elsewhere > 0 {
                    return Err(Error::Forbidden("This user holds tickets of another event than your key's."));
                }
            }
            // First the tickets, whose locks every scan and undo waits for, so that no note is written behind us.
            sqlx::query(
                "update tickets set status = 'revoked', changed_at = $2, version = version + 1 where user_id = $1",
            )
            .bind(user.user_id)
            .bind(now)
            .execute(&mut *connection)
            .await?;
            for statement in [
                "update scans set note = null \
                 where note is not null and ticket_id in (select ticket_id from tickets where user_id = $1)",
                "update tickets set user_id = null where user_id = $1",
                "delete from users where user_id = $1",
            ] {
                sqlx::query(statement).bind(user.user_id).execute(&mut *connection).await?;
            }
            Ok(())
        }
        .await;
        lease.settle(outcome).await
    }

    async fn list_user_tickets(
        &self,
        user_id: Uuid,
        only_event: Option<Uuid>,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<Ticket>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_tickets!(
            "where t.user_id = $1 and ($2 is null or t.event_id = $2) and t.ticket_id > $3 \
             order by t.ticket_id limit $4"
        ))
        .bind(user_id)
        .bind(only_event)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn insert_event(&self, event: &Event, now: Millis) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = sqlx::query(
            "insert into events (event_id, slug, name, time_zone, starts_at, ends_at, reentry, version, created_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(event.event_id)
        .bind(&event.slug)
        .bind(&event.name)
        .bind(&event.time_zone)
        .bind(event.starts_at)
        .bind(event.ends_at)
        .bind(event.reentry.as_str())
        .bind(event.version)
        .bind(now)
        .execute(lease.connection())
        .await;
        lease.settle(outcome.map(drop).map_err(|error| unless_unique(error, Error::EventExists))).await
    }

    async fn find_event(&self, slug: &str) -> Result<Option<Event>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(concat!("select ", event_columns!(), " from events where slug = $1"))
            .bind(slug)
            .fetch_optional(lease.connection())
            .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_events(&self, after: Option<Uuid>, limit: i64) -> Result<Vec<Event>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(concat!(
            "select ",
            event_columns!(),
            " from events where event_id > $1 order by event_id limit $2"
        ))
        .bind(after.unwrap_or_default())
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn change_event(&self, event_id: Uuid, change: &EventChange) -> Result<Event> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let mut event = lock_event(connection, event_id).await?;
            change.apply(&mut event)?;
            sqlx::query(
                "update events set name = $2, time_zone = $3, starts_at = $4, ends_at = $5, reentry = $6, \
                 version = $7 where event_id = $1",
            )
            .bind(event_id)
            .bind(&event.name)
            .bind(&event.time_zone)
            .bind(event.starts_at)
            .bind(event.ends_at)
            .bind(event.reentry.as_str())
            .bind(event.version)
            .execute(&mut *connection)
            .await?;
            Ok(event)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn delete_event(&self, event_id: Uuid, now: Millis) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let event = lock_event(connection, event_id).await?;
            let running =
                event.starts_at.is_some_and(|start| start <= now) && event.ends_at.is_none_or(|end| now <= end);
            if event.slug == crate::store::DEFAULT_EVENT || running {
                return Err(Error::EventInUse);
            }
            for statement in [
                "delete from scans where event_id = $1",
                "delete from tickets where event_id = $1",
                "delete from keys where event_id = $1",
                "delete from events where event_id = $1",
            ] {
                sqlx::query(statement).bind(event_id).execute(&mut *connection).await?;
            }
            Ok(())
        }
        .await;
        lease.settle(outcome).await
    }

    async fn create_tickets(
        &self,
        event_id: Uuid,
        tickets: &[NewTicket],
        now: Millis,
        progress: &(dyn Fn(usize) + Send + Sync),
    ) -> Result<Created> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let mut users_created = 0;
            for (number, chunk) in tickets.chunks(CHUNK).enumerate() {
                users_created += super::insert_holders(connection, chunk, now).await?;
                super::insert_tickets(connection, event_id, chunk, now)
                    .await
                    .map_err(|error| unless_unique(error, Error::SeatTaken(Vec::new())))?;
                progress(number * CHUNK + chunk.len());
            }
            if tickets.len() >= CHUNK {
                super::analyze(connection).await?;
            }
            let registered = tickets.iter().filter(|ticket| ticket.holder.is_some()).count() as u64;
            Ok(Created { created: tickets.len() as u64, registered, users_created })
        }
        .await;
        match lease.settle(outcome).await {
            // To write without asking first is faster; which seats are taken is asked when one is.
            Err(Error::SeatTaken(_)) => Err(taken_seats(self, event_id, tickets).await?),
            outcome => outcome,
        }
    }

    async fn list_tickets(&self, event_id: Uuid, filter: &TicketFilter, limit: i64) -> Result<Vec<Ticket>> {
        let pattern = filter.search.as_deref().map(contains_pattern);
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(select_tickets!(
            "where t.event_id = $1 and t.ticket_id > $2 and ($3 is null or t.status = $3) \
             and ($4 is null or t.gate = $4) and ($5 is null or t.changed_at >= $5) \
             and ($6 is null or ",
            ascii_lower!("t.seat"),
            " like $6 escape '\\' or ",
            ascii_lower!("u.username"),
            " like $6 escape '\\' or ",
            ascii_lower!("u.full_name"),
            " like $6 escape '\\') order by t.ticket_id limit $7"
        ))
        .bind(event_id)
        .bind(filter.after.unwrap_or_default())
        .bind(filter.status.map(Status::as_str))
        .bind(filter.gate.as_deref())
        .bind(filter.changed_since)
        .bind(pattern)
        .bind(limit)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn get_ticket(&self, ticket_id: Uuid) -> Result<Option<Ticket>> {
        let mut lease = self.reader().await?;
        let outcome = get_ticket(lease.connection(), ticket_id).await;
        lease.settle(outcome).await
    }

    async fn register_ticket(
        &self,
        username: &str,
        event_id: Uuid,
        seat: &str,
        gate: &str,
        now: Millis,
    ) -> Result<Ticket> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let user = find_user(connection, username).await?.ok_or(Error::UserNotFound)?;
            let ticket_id: Uuid =
                sqlx::query_scalar("select ticket_id from tickets where event_id = $1 and seat = $2 and gate = $3")
                    .bind(event_id)
                    .bind(seat)
                    .bind(gate)
                    .fetch_optional(&mut *connection)
                    .await?
                    .ok_or(Error::TicketNotFound)?;
            super::register(connection, ticket_id, user.user_id, now).await?;
            let ticket = get_ticket(connection, ticket_id).await?.ok_or(Error::TicketNotFound)?;
            Ok(ticket)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn change_ticket(&self, ticket_id: Uuid, change: &TicketChange, now: Millis) -> Result<Ticket> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let ticket = lock_ticket(connection, ticket_id).await?;
            match (change, ticket.status) {
                (TicketChange::Revoke, Status::Revoked) => return Ok(ticket),
                (TicketChange::Revoke, _) => {
                    sqlx::query(
                        "update tickets set status = 'revoked', changed_at = $2, version = version + 1 \
                         where ticket_id = $1",
                    )
                    .bind(ticket_id)
                    .bind(now)
                    .execute(&mut *connection)
                    .await?;
                }
                (_, Status::Used) => return Err(Error::TicketUsed),
                (TicketChange::Transfer { .. }, Status::Revoked) => return Err(Error::TicketRevoked),
                (TicketChange::Reissue { seed }, _) => {
                    sqlx::query(
                        "update tickets set seed = $2, status = 'valid', inside = $4, used_at = null, \
                         printed_at = null, registered_at = case when user_id is null then null else registered_at end, \
                         changed_at = $3, version = version + 1 where ticket_id = $1",
                    )
                    .bind(ticket_id)
                    .bind(seed.0.as_slice())
                    .bind(now)
                    .bind(false)
                    .execute(&mut *connection)
                    .await?;
                }
                (TicketChange::Transfer { seed, username }, Status::Valid) => {
                    if ticket.user_id.is_none() {
                        return Err(Error::TicketNotRegistered);
                    }
                    let user = find_user(connection, username).await?.ok_or(Error::UserNotFound)?;
                    sqlx::query(
                        "update tickets set seed = $2, user_id = $4, registered_at = $3, printed_at = null, \
                         changed_at = $3, version = version + 1 where ticket_id = $1",
                    )
                    .bind(ticket_id)
                    .bind(seed.0.as_slice())
                    .bind(now)
                    .bind(user.user_id)
                    .execute(&mut *connection)
                    .await?;
                }
            }
            let ticket = get_ticket(connection, ticket_id).await?.ok_or(Error::TicketNotFound)?;
            Ok(ticket)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn read_scan(
        &self,
        event: &str,
        ticket: &TicketName<'_>,
        scan_id: Uuid,
        refusals_since: Millis,
    ) -> Result<Option<ScanContext>> {
        let query = match ticket {
            TicketName::Id(_) => sqlx::query(select_scan_context!("t.ticket_id = $4")),
            TicketName::Seat { .. } => sqlx::query(select_scan_context!("t.seat = $4 and t.gate = $5")),
            TicketName::None => sqlx::query(select_scan_context!("t.ticket_id is null")),
        };
        let query = query.bind(event).bind(scan_id).bind(refusals_since);
        let query = match ticket {
            TicketName::Id(ticket_id) => query.bind(ticket_id),
            TicketName::Seat { seat, gate } => query.bind(*seat).bind(*gate),
            TicketName::None => query,
        };
        let mut lease = self.reader().await?;
        let outcome = async {
            let Some(row) = query.fetch_optional(lease.connection()).await? else {
                return Ok(None);
            };
            let mut context = scan_context(&row)?;
            if row.try_get::<i64, _>("prior")? > 0 {
                context.prior = get_scan(lease.connection(), scan_id).await?;
            }
            Ok(Some(context))
        }
        .await;
        lease.settle(outcome).await
    }

    async fn record_scan(&self, scan: &Scan, mark: Option<&Mark>, refusals_since: Millis) -> Result<Recorded> {
        let mut lease = self.writer().await?;
        let outcome = match (mark, scan.ticket_id) {
            (Some(mark), _) => super::record_accepted(lease.connection(), scan, mark, refusals_since).await,
            (None, Some(ticket_id)) if [ScanResult::WrongCode, ScanResult::StaleCode].contains(&scan.result) => {
                lease = lease.begin(BEGIN).await?;
                // One refused code at a time, so that each is counted by the next.
                sqlx::query(LOCK_TICKET).bind(ticket_id).fetch_optional(lease.connection()).await?;
                record_refused(lease.connection(), scan, refusals_since).await
            }
            // What is refused before its code is looked at has no limit.
            (None, _) => record_refused(lease.connection(), scan, Millis(i64::MAX)).await,
        };
        let outcome = match outcome {
            Ok(0) => Ok(Recorded::Outdated),
            Ok(_) => Ok(Recorded::Done),
            Err(error) if is_unique_violation(&error) => Ok(Recorded::ScanIdTaken),
            Err(error) => Err(Error::from(error)),
        };
        lease.settle(outcome).await
    }

    async fn get_scan(&self, scan_id: Uuid) -> Result<Option<Scan>> {
        let mut lease = self.reader().await?;
        let outcome = get_scan(lease.connection(), scan_id).await;
        lease.settle(outcome).await
    }

    async fn undo_scan(&self, scan_id: Uuid, by: Option<Uuid>, not_before: Millis, now: Millis) -> Result<Scan> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let scan = get_scan(connection, scan_id).await?.ok_or(Error::ScanNotFound)?;
            let ticket = lock_ticket(connection, scan.ticket_id.ok_or(Error::NotUndoable)?).await?;
            // Read again behind the lock: another undo may have been first.
            let scan = get_scan(connection, scan_id).await?.ok_or(Error::ScanNotFound)?;
            if scan.undone_at.is_some() {
                return Ok(scan);
            }
            // A reissued ticket is unused: what was accepted before belongs to the ticket it was.
            let of_this_use = ticket.used_at.is_some_and(|used_at| used_at <= scan.decided_at);
            if !of_this_use || newest_accepted(connection, ticket.ticket_id).await? != Some(scan_id) {
                return Err(Error::NotUndoable);
            }
            if scan.received_at < not_before {
                return Err(Error::UndoExpired);
            }
            sqlx::query("update scans set undone_at = $2, undone_by = $3 where scan_id = $1")
                .bind(scan_id)
                .bind(now)
                .bind(by)
                .execute(&mut *connection)
                .await?;
            take_back(connection, &ticket, &scan, now).await?;
            Ok(Scan { undone_at: Some(now), undone_by: by, ..scan })
        }
        .await;
        lease.settle(outcome).await
    }

    async fn list_scans(
        &self,
        event_id: Uuid,
        after: Option<(Millis, Uuid)>,
        limit: i64,
    ) -> Result<Vec<(Scan, Option<(String, String)>)>> {
        let (after_time, after_id) = after.unwrap_or((Millis(i64::MIN), Uuid::nil()));
        let mut lease = self.reader().await?;
        let outcome = async {
            let rows = sqlx::query(concat!(
                "select ",
                scan_columns!(),
                ", t.seat as ticket_seat, t.gate as ticket_gate from scans s \
                 left join tickets t on t.ticket_id = s.ticket_id \
                 where s.event_id = $1 and (s.received_at, s.scan_id) > ($2, $3) \
                 order by s.received_at, s.scan_id limit $4"
            ))
            .bind(event_id)
            .bind(after_time)
            .bind(after_id)
            .bind(limit)
            .fetch_all(lease.connection())
            .await?;
            let place = |row: &Row| -> std::result::Result<_, sqlx::Error> {
                let seat: Option<String> = row.try_get("ticket_seat")?;
                let gate: Option<String> = row.try_get("ticket_gate")?;
                Ok((Scan::from_row(row)?, seat.zip(gate)))
            };
            Ok(rows.iter().map(place).collect::<std::result::Result<_, _>>()?)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn manifest_state(&self, event_id: Uuid) -> Result<ManifestState> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_as(
            "select count(*) as tickets, cast(coalesce(sum(version), 0) as bigint) as versions \
             from tickets where event_id = $1",
        )
        .bind(event_id)
        .fetch_one(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn stats(&self, event_id: Uuid) -> Result<Stats> {
        let mut lease = self.reader().await?;
        let outcome = stats(lease.connection(), event_id).await;
        lease.settle(outcome.map_err(Error::from)).await
    }
}

/// Which of these tickets are there already.
async fn taken_seats(backend: &Backend, event_id: Uuid, tickets: &[NewTicket]) -> Result<Error> {
    let mut lease = backend.reader().await?;
    let outcome = super::find_taken(lease.connection(), event_id, tickets).await;
    let places = lease.settle(outcome.map_err(Error::from)).await?;
    let taken = |place: &i64| FieldError::new(place.to_string(), "this seat at this gate has a ticket already");
    Ok(Error::SeatTaken(places.iter().map(taken).collect()))
}

fn is_unique_violation(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| error.is_unique_violation())
}

fn unless_unique(error: sqlx::Error, taken: Error) -> Error {
    if is_unique_violation(&error) { taken } else { error.into() }
}

/// A `like` pattern for texts that contain this one.
fn contains_pattern(text: &str) -> String {
    let escaped = text.to_ascii_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

fn scan_context(row: &Row) -> std::result::Result<ScanContext, sqlx::Error> {
    let has_ticket = row.try_get::<Option<Uuid>, _>("ticket_id")?.is_some();
    let reentry: String = row.try_get("reentry")?;
    Ok(ScanContext {
        event_id: row.try_get("of_event_id")?,
        reentry: reentry.parse().map_err(|error: String| sqlx::Error::Decode(error.into()))?,
        ticket: if has_ticket { Some(Ticket::from_row(row)?) } else { None },
        prior: None,
        refusals: row.try_get("refusals")?,
        newest_accepted_at: row.try_get("newest_accepted_at")?,
        first_used_gate: row.try_get("first_used_gate")?,
        secret_fingerprint: row.try_get("secret_fingerprint")?,
    })
}

async fn find_user(connection: &mut Connection, username: &str) -> Result<Option<User>> {
    let user = sqlx::query_as(
        "select user_id, username, full_name, email, created_at from users where lower(username) = lower($1)",
    )
    .bind(username)
    .fetch_optional(connection)
    .await?;
    Ok(user)
}

async fn get_ticket(connection: &mut Connection, ticket_id: Uuid) -> Result<Option<Ticket>> {
    let ticket =
        sqlx::query_as(select_tickets!("where t.ticket_id = $1")).bind(ticket_id).fetch_optional(connection).await?;
    Ok(ticket)
}

/// Locks the row for the rest of the transaction, then reads it with what belongs to it.
async fn lock_ticket(connection: &mut Connection, ticket_id: Uuid) -> Result<Ticket> {
    sqlx::query(LOCK_TICKET).bind(ticket_id).fetch_optional(&mut *connection).await?;
    get_ticket(connection, ticket_id).await?.ok_or(Error::TicketNotFound)
}

/// Takes the event's row for the rest of the transaction, and counts the change.
async fn lock_event(connection: &mut Connection, event_id: Uuid) -> Result<Event> {
    sqlx::query_as(concat!("update events set version = version + 1 where event_id = $1 returning ", event_columns!()))
        .bind(event_id)
        .fetch_optional(connection)
        .await?
        .ok_or(Error::EventNotFound)
}

async fn get_scan(connection: &mut Connection, scan_id: Uuid) -> Result<Option<Scan>> {
    let scan = sqlx::query_as(concat!("select ", scan_columns!(), " from scans s where s.scan_id = $1"))
        .bind(scan_id)
        .fetch_optional(connection)
        .await?;
    Ok(scan)
}

/// Returns how many rows were written.
async fn record_refused(
    connection: &mut Connection,
    scan: &Scan,
    refusals_since: Millis,
) -> std::result::Result<u64, sqlx::Error> {
    let written = bind_scan(sqlx::query(INSERT_SCAN), scan, refusals_since).execute(connection).await?;
    Ok(written.rows_affected())
}

async fn newest_accepted(connection: &mut Connection, ticket_id: Uuid) -> Result<Option<Uuid>> {
    let newest = sqlx::query_scalar(
        "select scan_id from scans where ticket_id = $1 and result = 'accepted' and undone_at is null \
         order by decided_at desc, received_at desc, scan_id desc limit 1",
    )
    .bind(ticket_id)
    .fetch_optional(connection)
    .await?;
    Ok(newest)
}

/// Gives a ticket back the state it had before its newest accepted scan, which is marked as undone already.
async fn take_back(connection: &mut Connection, ticket: &Ticket, scan: &Scan, now: Millis) -> Result<()> {
    let entered_before: i64 = sqlx::query_scalar(
        "select count(*) from scans where ticket_id = $1 and result = 'accepted' and direction = 'entry' \
         and undone_at is null and decided_at >= $2",
    )
    .bind(ticket.ticket_id)
    .bind(ticket.used_at)
    .fetch_one(&mut *connection)
    .await?;
    let unused = scan.direction == Direction::Entry && entered_before == 0;
    let status = if unused && ticket.status == Status::Used { Status::Valid } else { ticket.status };
    sqlx::query(
        "update tickets set status = $2, inside = $3, used_at = $4, changed_at = $5, version = version + 1 \
         where ticket_id = $1",
    )
    .bind(ticket.ticket_id)
    .bind(status.as_str())
    .bind(scan.direction == Direction::Exit)
    .bind(if unused { None } else { ticket.used_at })
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

async fn stats(connection: &mut Connection, event_id: Uuid) -> std::result::Result<Stats, sqlx::Error> {
    let gates: Vec<GateCounts> = sqlx::query_as(
        "select gate, count(*) as tickets, count(registered_at) as registered, count(used_at) as admitted, \
         sum(case when inside then 1 else 0 end) as inside from tickets where event_id = $1 group by gate",
    )
    .bind(event_id)
    .fetch_all(&mut *connection)
    .await?;
    let refused: Vec<(String, i64)> = sqlx::query_as(
        "select result, count(*) from scans where event_id = $1 and result <> 'accepted' group by result",
    )
    .bind(event_id)
    .fetch_all(&mut *connection)
    .await?;
    let undone = sqlx::query_scalar("select count(*) from scans where event_id = $1 and undone_at is not null")
        .bind(event_id)
        .fetch_one(&mut *connection)
        .await?;
    let arrivals: Vec<Arrivals> = sqlx::query_as(
        "select decided_at - decided_at % 60000 as minute, count(*) as admitted from scans \
         where event_id = $1 and result = 'accepted' and direction = 'entry' and undone_at is null \
         group by decided_at - decided_at % 60000 order by 1",
    )
    .bind(event_id)
    .fetch_all(&mut *connection)
    .await?;
    Ok(Stats { gates, refused: BTreeMap::from_iter(refused), undone, arrivals })
}
