//! Tickets: listing, registering, changing.

use async_trait::async_trait;
use sqlx::{AssertSqlSafe, FromRow as _, Row as _};
use uuid::Uuid;

use super::actions::record;
use super::issues::LARGE_CHUNK;
use super::scans::ids;
use super::search::fold_event;
use super::users::find_holder;
use super::{BEGIN, Backend, Connection, FIND, LOCK_TICKET, Row, json, kept_secrets};
use crate::error::Error;
use crate::fold;
use crate::limits::PARTY;
use crate::model::{Action, Millis, Status, Ticket};
use crate::store::{
    Act, Author, Guarded, ManifestTicket, NewSeed, PersonName, Reseeded, Result, TicketChange, TicketFilter,
    TicketPage, Tickets,
};

/// A statement that selects tickets.
macro_rules! select_tickets {
    ($($rest:tt)+) => {
        select_tickets_and!(""; $($rest)+)
    };
}

/// Does the same with more columns, each after a comma.
macro_rules! select_tickets_and {
    ($columns:expr; $($rest:tt)+) => {
        concat!(
            "select ",
            ticket_columns!(),
            $columns,
            " from tickets t join events e on e.event_id = t.event_id and ",
            issued_ticket!(),
            " left join users u on u.user_id = t.user_id ",
            $($rest)+
        )
    };
}

/// A statement that selects tickets, and what else their pages show.
macro_rules! select_pages {
    ($rest:literal) => {
        select_tickets_and!(
            concat!(
                ", e.name as event_name, e.version as event_version, e.language, e.time_zone, e.starts_at, e.ends_at, \
                 e.opens_at, e.location, e.reentry, ",
                first_use!(),
                ", ",
                kept_secrets!()
            );
            $rest
        )
    };
}

/// Returns the error for a missing ticket. It names the database, which is read through the same connection.
async fn dead_link(connection: &mut Connection) -> Error {
    match kept_secrets(connection).await {
        Ok(kept) => Error::DeadLink(kept.database()),
        Err(error) => error,
    }
}

#[async_trait]
impl Tickets for Backend {
    async fn list_tickets(&self, event_id: Uuid, filter: &TicketFilter, limit: i64) -> Result<Vec<Ticket>> {
        if filter.gate.is_some() || filter.search.is_some() {
            fold_event(self, event_id).await?;
        }
        let words = filter.search.as_deref().map(fold::words).unwrap_or_default();
        let statement = list_statement(filter, words.len());
        let mut query = sqlx::query_as(AssertSqlSafe(statement));
        query = query.bind(event_id).bind(filter.after.unwrap_or_default()).bind(limit);
        if let Some(status) = filter.status {
            query = query.bind(status);
        }
        if let Some(gate) = &filter.gate {
            query = query.bind(fold::place(gate));
        }
        for word in words {
            query = query.bind(word);
        }
        let mut lease = self.long_reader().await?;
        let outcome = query.fetch_all(lease.connection()).await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_user_tickets(&self, user_id: Uuid, after: Option<Uuid>, limit: i64) -> Result<Vec<Ticket>> {
        let mut lease = self.reader().await?;
        let outcome =
            sqlx::query_as(select_tickets!("where t.user_id = $1 and t.ticket_id > $2 order by t.ticket_id limit $3"))
                .bind(user_id)
                .bind(after.unwrap_or_default())
                .bind(limit)
                .fetch_all(lease.connection())
                .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn list_manifest(
        &self,
        event_id: Uuid,
        change: Option<i64>,
        gate: Option<&str>,
        after: Option<Uuid>,
        limit: i64,
    ) -> Result<Vec<ManifestTicket>> {
        let mut lease = self.long_reader().await?;
        // An import's tickets were written earlier, but are visible only since its action was recorded. Tickets of
        // release 0.1.0 have no action, so they may always be new.
        let outcome = sqlx::query_as(concat!(
            "select t.ticket_id, t.seat, t.gate, t.seed, coalesce(t.seeded_at, t.created_at) as seeded_at, t.status, \
",
            of_people!("u.username"),
            " as username, case when u.event_id is not null then e.slug end as holder_event, ",
            of_people!("coalesce(t.holder_name, u.full_name)"),
            " as full_name, t.category, ",
            of_people!("t.note"),
            " as note, t.valid_from, t.valid_until, t.inside, t.last_step, t.used_at, t.printed_at, t.walk_up, t.paid, ",
            last_entry!(),
            " from events e cross join tickets t left join users u on u.user_id = t.user_id \
             where e.event_id = $1 and ",
            issued_ticket!(),
            " and ",
            in_order!(),
            " and ($3 is null or t.issue_id in \
             (select a.action_id from actions a where a.event_id = $1 and a.action = 'issued' and a.change >= $3) \
             or t.change >= $3 and (t.issue_id is null or coalesce(t.gate_key = $5, true))) \
             order by t.event_id, t.ticket_id limit $4"
        ))
        .bind(event_id)
        .bind(after.unwrap_or_default())
        .bind(change)
        .bind(limit)
        .bind(gate.map(fold::place))
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn get_ticket(&self, ticket_id: Uuid) -> Result<Option<Guarded<Ticket>>> {
        let mut lease = self.reader().await?;
        let outcome = get_ticket(lease.connection(), ticket_id).await;
        let ticket = lease.settle(outcome).await?;
        Ok(ticket.map(|ticket| Guarded::new(ticket.event_id, ticket)))
    }

    async fn read_ticket_page(&self, ticket_id: Uuid) -> Result<TicketPage> {
        let mut lease = self.reader().await?;
        let found = sqlx::query_as(select_pages!("where t.ticket_id = $1 and e.forgotten_at is null"))
            .bind(ticket_id)
            .fetch_optional(lease.connection())
            .await;
        let outcome = match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(dead_link(lease.connection()).await),
            Err(error) => Err(error.into()),
        };
        lease.settle(outcome).await
    }

    async fn read_held_pages(&self, event_id: Uuid, user_id: Uuid) -> Result<Vec<TicketPage>> {
        let mut lease = self.reader().await?;
        let found: std::result::Result<Vec<TicketPage>, _> = sqlx::query_as(select_pages!(
            "where t.event_id = $1 and e.forgotten_at is null and t.user_id = $2 and t.status <> 'revoked' order by t.ticket_id"
        ))
        .bind(event_id)
        .bind(user_id)
        .fetch_all(lease.connection())
        .await;
        let outcome = match found {
            Ok(found) if found.is_empty() => Err(dead_link(lease.connection()).await),
            found => found.map_err(Error::from),
        };
        lease.settle(outcome).await
    }

    async fn register_ticket(
        &self,
        person: &PersonName,
        event_id: Uuid,
        seat: &str,
        gate: &str,
        author: Author,
    ) -> Result<Ticket> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let user = find_holder(connection, person, event_id).await?;
            let exact: Option<Uuid> = sqlx::query_scalar(concat!(
                "select t.ticket_id from events e join tickets t on t.event_id = e.event_id and ",
                issued_ticket!(),
                " where e.event_id = $1 and t.seat = $2 and t.gate = $3"
            ))
            .bind(event_id)
            .bind(seat)
            .bind(gate)
            .fetch_optional(&mut *connection)
            .await?;
            let found = match exact {
                None => find_read_at(connection, event_id, seat, gate).await?,
                found => found,
            };
            let ticket_id = found.ok_or(Error::TicketNotFound)?;
            super::register(connection, ticket_id, user.user_id, author.now).await?;
            record(connection, author, &Act::new(Action::Registered, event_id).ticket(ticket_id)).await?;
            let ticket = get_ticket(connection, ticket_id).await?.ok_or(Error::TicketNotFound)?;
            Ok(ticket)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn change_ticket(&self, ticket_id: Uuid, change: &TicketChange, author: Author) -> Result<Ticket> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let ticket = lock_ticket(connection, ticket_id).await?;
            let due = is_due(change, &ticket)?;
            if due {
                write_change(connection, &ticket, change, author.now).await?;
            } else if !change.shows_a_secret() {
                return Ok(ticket);
            }
            record(connection, author, &act_of(change, &ticket)).await?;
            let ticket = get_ticket(connection, ticket_id).await?.ok_or(Error::TicketNotFound)?;
            Ok(ticket)
        }
        .await;
        lease.settle(outcome).await
    }

    async fn reseed_tickets(&self, fingerprint: &[u8], new_seed: NewSeed, author: Author) -> Result<Reseeded> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            sqlx::query(
                "insert into settings (name, value) values ('ticket_secret', $1) \
                 on conflict (name) do update set value = excluded.value",
            )
            .bind(fingerprint)
            .execute(&mut *connection)
            .await?;
            let mut reseeded = Reseeded::default();
            let mut page = list_unused(connection, Uuid::nil()).await?;
            while let Some(Unused { ticket_id: last, .. }) = page.last() {
                let next = list_unused(connection, *last).await?;
                let seeds =
                    page.iter().map(|ticket| Ok((ticket.ticket_id, new_seed()?))).collect::<Result<Vec<_>>>()?;
                super::update_seeds(connection, &seeds, author.now).await?;
                for ticket in page {
                    let event = reseeded.entry(ticket.event.clone()).or_default();
                    event.event_id = ticket.event_id;
                    event.tickets += 1;
                    event.held += usize::from(ticket.is_held());
                }
                page = next;
            }
            for event in reseeded.values() {
                let act = Act::new(Action::Reissued, event.event_id).count(event.tickets);
                record(connection, author, &act).await?;
            }
            Ok(reseeded)
        }
        .await;
        lease.settle(outcome).await
    }
}

/// A ticket that may still be scanned.
#[derive(sqlx::FromRow)]
struct Unused {
    ticket_id: Uuid,
    event_id: Uuid,
    event: String,
    user_id: Option<Uuid>,
    status: Status,
}

impl Unused {
    /// Whether somebody may come with it.
    fn is_held(&self) -> bool {
        self.user_id.is_some() && self.status != Status::Revoked
    }
}

/// Lists tickets that may still be scanned, in the order of their ids.
async fn list_unused(connection: &mut Connection, after: Uuid) -> Result<Vec<Unused>> {
    let tickets = sqlx::query_as(concat!(
        "select t.ticket_id, t.event_id, e.slug as event, t.user_id, t.status \
         from tickets t join events e on e.event_id = t.event_id and ",
        issued_ticket!(),
        " where t.ticket_id > $1 and (t.status <> 'used' or t.inside or e.reentry <> 'none') \
         order by t.ticket_id limit $2"
    ))
    .bind(after)
    .bind(LARGE_CHUNK as i64)
    .fetch_all(connection)
    .await?;
    Ok(tickets)
}

/// Returns the action for a change. That of a transfer names the former holder, so that they are forgotten with the event.
fn act_of(change: &TicketChange, ticket: &Ticket) -> Act {
    let act = Act::new(change.action(), ticket.event_id).ticket(ticket.ticket_id);
    match (change, ticket.user_id) {
        (TicketChange::Transfer { .. }, Some(former)) => act.subject(former),
        _ => act,
    }
}

/// Whether a change still has to be made. Rejects a change that the ticket's state does not allow.
fn is_due(change: &TicketChange, ticket: &Ticket) -> Result<bool> {
    match (change, ticket.status) {
        (TicketChange::Revoke, status) => Ok(status != Status::Revoked),
        (TicketChange::Correct(details), _) => {
            let told =
                |ticket: &Ticket| (ticket.category.clone(), ticket.note.clone(), ticket.valid_from, ticket.valid_until);
            Ok(told(&details.applied(ticket)?) != told(ticket))
        }
        (_, Status::Used) => Err(Error::TicketUsed),
        // The walk-up was admitted with this ticket, or the admission was undone.
        (TicketChange::Reissue { .. }, Status::Revoked) if ticket.walk_up => Err(Error::TicketUsed),
        (TicketChange::Reissue { .. }, Status::Valid | Status::Revoked) => Ok(true),
        (TicketChange::Transfer { .. } | TicketChange::Print, Status::Revoked) => Err(Error::TicketRevoked),
        (TicketChange::Transfer { .. } | TicketChange::Print, Status::Valid) if ticket.user_id.is_none() => {
            Err(Error::TicketNotRegistered)
        }
        (TicketChange::Transfer { .. }, Status::Valid) => Ok(true),
        (TicketChange::Print, Status::Valid) => Ok(ticket.printed_at.is_none()),
    }
}

async fn write_change(connection: &mut Connection, ticket: &Ticket, change: &TicketChange, now: Millis) -> Result<()> {
    let set = |sql: &'static str| sqlx::query(sql).bind(ticket.ticket_id).bind(now);
    let corrected;
    let update = match change {
        TicketChange::Correct(details) => {
            corrected = details.applied(ticket)?;
            set("update tickets set category = $3, note = $4, valid_from = $5, valid_until = $6, changed_at = $2, \
                 version = version + 1 where ticket_id = $1")
            .bind(corrected.category.as_deref())
            .bind(corrected.note.as_deref())
            .bind(corrected.valid_from)
            .bind(corrected.valid_until)
        }
        TicketChange::Revoke => {
            set("update tickets set status = 'revoked', changed_at = $2, version = version + 1 where ticket_id = $1")
        }
        TicketChange::Print => {
            set("update tickets set printed_at = $2, changed_at = $2, version = version + 1 where ticket_id = $1")
        }
        TicketChange::Reissue { seed } => {
            set("update tickets set seed = $3, seeded_at = $2, last_step = null, status = 'valid', inside = $4, used_at = null, printed_at = null, mailed_at = null, mailing_at = null, \
             reissued_version = version + 1, \
             registered_at = case when user_id is null then null else registered_at end, changed_at = $2, \
             version = version + 1 where ticket_id = $1")
            .bind(seed.0.as_slice())
            .bind(false)
        }
        TicketChange::Transfer { seed, to } => {
            let user = find_holder(connection, to, ticket.event_id).await?;
            set("update tickets set seed = $3, seeded_at = $2, last_step = null, user_id = $4, holder_name = null, registered_at = $2, \
                 printed_at = null, mailed_at = null, mailing_at = null, changed_at = $2, version = version + 1 where ticket_id = $1")
            .bind(seed.0.as_slice())
            .bind(user.user_id)
        }
    };
    update.execute(connection).await?;
    Ok(())
}

/// Returns the statement that lists tickets: `$1` event, `$2` after, `$3` limit, then the values of the filter. Tickets
/// that do not match are read in the index only, without a join: there may be a million.
pub(in crate::store) fn list_statement(filter: &TicketFilter, words: usize) -> String {
    let mut conditions = Vec::new();
    let mut parameters = 4..;
    let mut next = || parameters.next().unwrap_or_default();
    if filter.status.is_some() {
        conditions.push(format!(" and t.status = ${}", next()));
    }
    if filter.gate.is_some() {
        conditions.push(format!(" and t.gate_key = ${}", next()));
    }
    for _ in 0..words {
        let words = if filter.without_addresses {
            format!("substr(t.search, 1, {FIND}(t.search, '|'))")
        } else {
            "t.search".into()
        };
        conditions.push(format!(" and {FIND}({words}, ${}) > 0", next()));
    }
    format!(
        concat!(
            "with found as (select t.ticket_id from events e cross join tickets t where e.event_id = $1 \
             and ",
            in_order!(),
            " and ",
            issued_ticket!(),
            "{conditions} order by t.event_id, t.ticket_id limit $3) ",
            select_tickets!("join found f on f.ticket_id = t.ticket_id order by t.ticket_id")
        ),
        conditions = conditions.concat(),
    )
}

/// Lists the other tickets of a ticket's holder for its gate that might be admitted.
pub(super) async fn list_party(connection: &mut Connection, ticket: &Ticket) -> Result<Vec<Ticket>> {
    let party = sqlx::query_as(select_tickets!(
        "where t.user_id = $1 and t.event_id = $2 and t.ticket_id <> $3 and coalesce(t.gate_key = $4, t.gate = $5) and ",
        may_be_admitted!("t"),
        " order by t.ticket_id limit $6"
    ))
    .bind(ticket.user_id)
    .bind(ticket.event_id)
    .bind(ticket.ticket_id)
    .bind(fold::place(&ticket.gate))
    .bind(&ticket.gate)
    .bind(PARTY as i64)
    .fetch_all(connection)
    .await?;
    Ok(party)
}

/// Returns the ticket whose seat and gate people read as these, if there is exactly one.
pub(super) async fn find_read_at(
    connection: &mut Connection,
    event_id: Uuid,
    seat: &str,
    gate: &str,
) -> Result<Option<Uuid>> {
    let found: Vec<Uuid> = sqlx::query_scalar(concat!(
        "select t.ticket_id from events e join tickets t on t.event_id = e.event_id and ",
        issued_ticket!(),
        " where e.event_id = $1 and t.seat_key = $2 and t.gate_key = $3 limit 2"
    ))
    .bind(event_id)
    .bind(fold::place(seat))
    .bind(fold::place(gate))
    .fetch_all(connection)
    .await?;
    Ok(if let [ticket_id] = found[..] { Some(ticket_id) } else { None })
}

/// Returns those of these tickets that exist.
pub(super) async fn find_tickets(connection: &mut Connection, ticket_ids: &[Uuid]) -> Result<Vec<Ticket>> {
    let tickets = sqlx::query_as(select_tickets!("where ", among!("t.ticket_id", id_in!("m.value ->> 0"), "$1")))
        .bind(json(&ids(ticket_ids))?)
        .fetch_all(connection)
        .await?;
    Ok(tickets)
}

async fn get_ticket(connection: &mut Connection, ticket_id: Uuid) -> Result<Option<Ticket>> {
    let ticket =
        sqlx::query_as(select_tickets!("where t.ticket_id = $1")).bind(ticket_id).fetch_optional(connection).await?;
    Ok(ticket)
}

/// Reads the ticket of a row, if it has one.
pub(super) fn optional_ticket(row: &Row) -> std::result::Result<Option<Ticket>, sqlx::Error> {
    let ticket_id: Option<Uuid> = row.try_get("ticket_id")?;
    ticket_id.map(|_| Ticket::from_row(row)).transpose()
}

/// Locks the row for the rest of the transaction, then reads the ticket.
pub(super) async fn lock_ticket(connection: &mut Connection, ticket_id: Uuid) -> Result<Ticket> {
    sqlx::query(LOCK_TICKET).bind(ticket_id).fetch_optional(&mut *connection).await?;
    get_ticket(connection, ticket_id).await?.ok_or(Error::TicketNotFound)
}
