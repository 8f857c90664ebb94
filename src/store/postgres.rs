//! PostgreSQL: the service registers and admits through `sp_register_ticket_to_user` and `fn_mark_ticket_as_used`.

#[path = "queries.rs"]
mod queries;

use std::collections::HashSet;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Postgres, SqlSafeStr as _};
use uuid::Uuid;

use super::pool::{Lease, Pool};
use super::{Health, Mark, NewTicket, Recorded, Result, migration_error};
use crate::error::Error;
use crate::model::{Millis, Scan};

type Db = Postgres;
type Backend = PostgresStore;

const BEGIN: &str = "begin";
const LOCK_TICKET: &str = "select 1 from tickets where ticket_id = $1 for update";

/// The schema, in the order in which its files run.
const MIGRATIONS: [(&str, &str); 3] = [
    ("create tables", include_str!("../../sql/postgres/01_create_tables.sql")),
    ("create ticket stored procedures", include_str!("../../sql/postgres/02_create_ticket_stored_procedures.sql")),
    ("grant ticket_service", include_str!("../../sql/postgres/03_grant_ticket_service.sql")),
];

pub struct PostgresStore {
    pool: Pool<Postgres>,
}

impl PostgresStore {
    pub fn new(options: PgConnectOptions, pool_max: usize) -> Self {
        Self { pool: Pool::new(options.disable_statement_logging(), pool_max) }
    }

    async fn reader(&self) -> Result<Lease<Db>> {
        self.pool.lease().await
    }

    async fn writer(&self) -> Result<Lease<Db>> {
        self.pool.lease().await
    }
}

/// SQLSTATEs that pass by themselves: connection (08), resources (53), operator (57), serialization and deadlock (40).
pub(super) fn is_passing(code: &str) -> bool {
    code.len() == 5 && ["08", "53", "57", "40"].iter().any(|class| code.starts_with(class))
}

/// SQLSTATEs of something that is not there: table, column, function; or not ours to use.
pub(super) fn is_outdated_schema(code: &str) -> bool {
    ["42P01", "42703", "42883", "42501"].contains(&code)
}

async fn health(connection: &mut PgConnection) -> Result<Health> {
    let now = sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
        .fetch_one(&mut *connection)
        .await?;
    let known: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut *connection).await?;
    let migrated = known && {
        let applied: i64 = sqlx::query_scalar("select count(*) from _sqlx_migrations where success and version <= $1")
            .bind(MIGRATIONS.len() as i64)
            .fetch_one(connection)
            .await?;
        applied == MIGRATIONS.len() as i64
    };
    Ok(Health { migrated, now })
}

async fn register(connection: &mut PgConnection, ticket_id: Uuid, user_id: Uuid, now: Millis) -> Result<()> {
    let outcome = sqlx::query("call sp_register_ticket_to_user($1, $2, $3)")
        .bind(ticket_id)
        .bind(user_id)
        .bind(now)
        .execute(connection)
        .await;
    let Err(error) = outcome else { return Ok(()) };
    match error.as_database_error().and_then(|refusal| refusal.code()).as_deref() {
        Some("RT001") => Err(Error::TicketNotFound),
        Some("RT002") => Err(Error::UserNotFound),
        Some("RT003") => Err(Error::TicketAlreadyRegistered),
        Some("RT004") => Err(Error::TicketRevoked),
        _ => Err(error.into()),
    }
}

/// The mark and the scan in one statement: the scan is written only when the ticket was marked, and a scan_id that is
/// taken takes the mark back with it.
const MARK_AND_INSERT_SCAN: &str = "with marked as \
    (select fn_mark_ticket_as_used($18, $19, $20, $21, $16, $15) as done) \
    insert into scans (scan_id, event_id, ticket_id, presented, at_gate, direction, result, offline_result, manual, \
    note, seconds_off, first_used_at, first_used_gate, scanned_at, received_at, decided_at, key_id) \
    select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17 from marked where done";

async fn record_scan(
    connection: &mut PgConnection,
    scan: &Scan,
    mark: Option<&Mark>,
) -> std::result::Result<Recorded, sqlx::Error> {
    let Some(mark) = mark else {
        queries::bind_scan(sqlx::query(queries::INSERT_SCAN), scan).execute(connection).await?;
        return Ok(Recorded::Done);
    };
    let written = queries::bind_scan(sqlx::query(MARK_AND_INSERT_SCAN), scan)
        .bind(mark.ticket_id)
        .bind(mark.version)
        .bind(mark.step)
        .bind(mark.inside)
        .execute(connection)
        .await?
        .rows_affected();
    Ok(if written == 1 { Recorded::Done } else { Recorded::TicketChanged })
}

/// Creates the holders that do not exist yet; returns how many.
async fn insert_holders(connection: &mut PgConnection, tickets: &[NewTicket], now: Millis) -> Result<u64> {
    let holders: Vec<_> = tickets.iter().filter_map(|ticket| ticket.holder.as_ref()).collect();
    if holders.is_empty() {
        return Ok(0);
    }
    let ids: Vec<Uuid> = holders.iter().map(|_| Uuid::now_v7()).collect();
    let usernames: Vec<&str> = holders.iter().map(|holder| holder.username.as_str()).collect();
    let full_names: Vec<Option<&str>> = holders.iter().map(|holder| holder.full_name.as_deref()).collect();
    let emails: Vec<Option<&str>> = holders.iter().map(|holder| holder.email.as_deref()).collect();
    let written = sqlx::query(
        "insert into users (user_id, username, full_name, email, created_at) \
         select user_id, username, full_name, email, $1 \
         from unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) as n (user_id, username, full_name, email) \
         on conflict do nothing",
    )
    .bind(now)
    .bind(ids)
    .bind(usernames)
    .bind(full_names)
    .bind(emails)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}

/// Writes tickets whose seats are free; returns the ids of those it wrote.
async fn insert_tickets(
    connection: &mut PgConnection,
    event_id: Uuid,
    tickets: &[NewTicket],
    now: Millis,
) -> Result<HashSet<Uuid>> {
    let ids: Vec<Uuid> = tickets.iter().map(|ticket| ticket.ticket_id).collect();
    let seats: Vec<&str> = tickets.iter().map(|ticket| ticket.seat.as_str()).collect();
    let gates: Vec<&str> = tickets.iter().map(|ticket| ticket.gate.as_str()).collect();
    let seeds: Vec<&[u8]> = tickets.iter().map(|ticket| ticket.seed.0.as_slice()).collect();
    let holders: Vec<Option<&str>> =
        tickets.iter().map(|ticket| ticket.holder.as_ref().map(|holder| holder.username.as_str())).collect();
    let written: Vec<Uuid> = sqlx::query_scalar(
        "insert into tickets \
         (ticket_id, event_id, user_id, seat, gate, seed, created_at, changed_at, registered_at) \
         select n.ticket_id, $1, u.user_id, n.seat, n.gate, n.seed, $2, $2, \
         case when u.user_id is not null then $2 end \
         from unnest($3::uuid[], $4::text[], $5::text[], $6::bytea[], $7::text[]) \
         as n (ticket_id, seat, gate, seed, username) \
         left join users u on lower(u.username) = lower(n.username) \
         on conflict (event_id, seat, gate) do nothing returning ticket_id",
    )
    .bind(event_id)
    .bind(now)
    .bind(ids)
    .bind(seats)
    .bind(gates)
    .bind(seeds)
    .bind(holders)
    .fetch_all(connection)
    .await?;
    Ok(written.into_iter().collect())
}

/// Brings the planner's statistics up to date after many tickets were written.
async fn analyze(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("select fn_analyze_tickets()").execute(connection).await?;
    Ok(())
}

fn migrator() -> Migrator {
    let migrations = MIGRATIONS.iter().zip(1..).map(|((name, sql), version)| {
        Migration::new(version, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    Migrator::with_migrations(migrations.collect())
}

/// Applies what is missing as the owner, behind sqlx's advisory lock, and lets the service's login in.
pub(super) async fn migrate(owner: &PgConnectOptions, grant_to: Option<&str>) -> Result<()> {
    let options = owner.clone().disable_statement_logging();
    let mut connection =
        options.connect().await.map_err(|error| Error::DatabaseUnavailable(format!("connecting: {error}")))?;
    migrator().run_direct(None, &mut connection, false).await.map_err(migration_error)?;
    let read_versions = "grant select on _sqlx_migrations to ticket_service";
    sqlx::raw_sql(read_versions).execute(&mut connection).await?;
    if let Some(login) = grant_to {
        let login = login.replace('"', "\"\"");
        let grant = format!("grant ticket_service to \"{login}\"");
        sqlx::raw_sql(AssertSqlSafe(grant)).execute(&mut connection).await?;
    }
    connection.close().await?;
    Ok(())
}
