//! PostgreSQL. The service registers and admits through `sp_register_ticket_to_user` and `fn_mark_ticket_as_used`.

/// A key's id, or the substitute for the key of the environment, which has none: the value in the index of refused codes.
macro_rules! key_or_environment {
    ($key:literal) => {
        concat!("coalesce(", $key, ", '00000000-0000-0000-0000-000000000000'::uuid)")
    };
}

/// Locks a selected row until the end of the transaction, as a foreign key does.
macro_rules! key_share {
    () => {
        " for key share"
    };
}

/// The number of the first change that a statement may not see yet, given the numbers of two changes: the one after both,
/// or that of the oldest transaction in progress in this database. Transactions of the server's other databases are
/// recognised by their locks. For one that has just ended this is impossible.
macro_rules! next_change {
    ($one:expr, $other:expr) => {
        concat!(
            "least(greatest(",
            $one,
            ", ",
            $other,
            ") + 1, (select min(x.xid::text::bigint) from pg_snapshot_xip(pg_current_snapshot()) as x (xid) \
             where not exists (select 1 from pg_locks l join pg_stat_activity s on s.pid = l.pid \
             join pg_database d on d.oid = s.datid where l.transactionid = x.xid::xid and l.mode = 'ExclusiveLock' \
             and d.datname <> current_database())))"
        )
    };
}

/// Locks the selected tickets `t` until the end of the transaction.
macro_rules! lock_tickets {
    () => {
        " for no key update of t"
    };
}

/// Locks the selected people `u` until the end of the transaction.
macro_rules! lock_users {
    () => {
        " for update of u"
    };
}

/// The elements of a JSON array parameter, as `n.value`, with their indexes from 0, as `n.place`.
macro_rules! members {
    ($parameter:literal) => {
        concat!(
            "(select m.value, m.place - 1 as place from jsonb_array_elements(",
            $parameter,
            "::jsonb) with ordinality as m (value, place)) as n"
        )
    };
}

/// Whether a value equals an expression over an element `m.value` of a JSON array parameter. With a join, a planner that
/// takes the table for nearly empty might compare each element with each row.
macro_rules! among {
    ($value:literal, $of_member:expr, $parameter:literal) => {
        concat!(
            $value,
            " = any(array(select ",
            $of_member,
            " from jsonb_array_elements(",
            $parameter,
            "::jsonb) as m (value)))"
        )
    };
}

/// An id in JSON, as in the elements of [`members!`].
macro_rules! id_in {
    ($text:literal) => {
        concat!("(", $text, ")::uuid")
    };
}

/// The number in a text of 1 to 15 digits without a sign; else null.
macro_rules! number_in {
    ($text:literal) => {
        concat!("case when ", $text, " ~ '^[0-9]{1,15}$' then ", $text, "::bigint end")
    };
}

/// The questions of decisions, as [`bind_asked`] binds them: `n`, in which `place` counts from 0. The arrays are not
/// passed to `unnest` directly: PostgreSQL would estimate from their lengths that a custom plan is cheaper than a generic
/// one, and plan each time.
macro_rules! asked {
    () => {
        "n as (select n.*, n.number - 1 as place from unnest((select $1::text[]), (select $2::uuid[]), (select $3::bigint[]), \
         (select $4::uuid[]), (select $5::bigint[]), (select $6::bigint[]), (select $7::uuid[]), (select $8::text[]), \
         (select $9::text[]), (select $10::uuid[])) with ordinality as n (event, scan_id, of_ticket_since, key_id, \
         of_key_since, until, ticket_id, seat, gate, vouched_by, number))"
    };
}

/// The admissions to be written, as [`record_many`] binds them.
macro_rules! admitted {
    () => {
        "n as (select * from unnest((select $1::uuid[]), (select $2::uuid[]), (select $3::uuid[]), (select $4::uuid[]), \
         (select $5::text[]), (select $6::text[]), (select $7::text[]), (select $8::boolean[]), (select $9::text[]), \
         (select $10::uuid[]), (select $11::bigint[]), (select $12::bigint[]), (select $13::bigint[]), (select $14::uuid[]), \
         (select $15::bigint[]), (select $16::bigint[]), (select $17::boolean[]), (select $18::bigint[]), \
         (select $19::bigint[]), (select $20::bigint[])) as n (scan_id, event_id, ticket_id, presented, at_gate, direction, \
         offline_result, manual, note, vouched_by, scanned_at, received_at, decided_at, key_id, version, step, inside, \
         of_ticket_since, of_key_since, until))"
    };
}

#[macro_use]
#[path = "queries/mod.rs"]
mod queries;

use std::time::{Duration, Instant};

use sqlx::migrate::Migrate as _;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection, Postgres};
use uuid::Uuid;

use self::queries::admissions::{Admitted, Asked, Locked, Scanning, bind_scan};
use self::queries::issues::{LARGE_CHUNK, RowsOf};
use self::queries::search::{Folded, fold_some};
use super::migrations::{FileOf, MIGRATIONS, Migrated, Migration, apply_missing, newest, of};
use super::pool::{Lease, Pool, Session};
use super::{Guesses, Health, IS_EMPTY, Mark, NOBODY, NewTicket, NewUser, PROBE, Result, is_written};
use crate::admission::ATTEMPTS;
use crate::config::PoolMode;
use crate::error::Error;
use crate::fold;
use crate::limits::KEY_ATTEMPTS;
use crate::model::{Millis, Scan, Seed};

type Db = Postgres;
type Backend = PostgresStore;

const BEGIN: &str = "begin";
/// For one transaction of many: it fails rather than wait longer for a lock.
const BEGIN_BRIEF: &str = "begin; set local lock_timeout = '5s'";
/// The function that returns the position of a text in another: 0 if it does not occur.
const FIND: &str = "strpos";
/// Lets one transaction at a time create tickets of an event; scans go on.
const LOCK_EVENT: &str = "select 1 from events where event_id = $1 and deleted_at is null for no key update";
/// Not `for update`: two transactions that both hold the ticket's key share lock, because they write scans of it, would
/// deadlock.
const LOCK_TICKET: &str = "select 1 from tickets where ticket_id = $1 for no key update";
const LOCK_USER: &str =
    "select 1 from users where lower(username) = lower($1) and event_id is not distinct from $2 for update";

const FILE: FileOf = |migration| migration.postgres;

/// Returns the version of the schema: the number of its newest migration.
pub(crate) fn schema() -> i64 {
    newest(FILE).0
}

pub struct PostgresStore {
    pool: Pool<Postgres>,
    scanning: Scanning,
}

impl PostgresStore {
    pub fn new(options: PgConnectOptions, pool_mode: PoolMode, pool_max: usize, timeout: Duration) -> Self {
        let options = options.disable_statement_logging();
        let (options, session) = match pool_mode {
            PoolMode::Session => (options.options(SESSION_SETTINGS), Session::Own),
            // A pooler does not know this option, and prepared statements may not exist in the next session, neither ours
            // nor the pooler's.
            PoolMode::Transaction => {
                (options.extra_float_digits(None).statement_cache_capacity(0), Session::Lent(BEGIN_LENT))
            }
        };
        let pool = Pool::new(options, session, pool_max, timeout);
        Self { scanning: Scanning::new(&pool, &pool), pool }
    }

    async fn scanning(&self) -> Result<&Scanning> {
        Ok(&self.scanning)
    }

    async fn reader(&self) -> Result<Lease<Db>> {
        self.pool.lease().await
    }

    /// For a read of up to a whole event. Scans always find another connection.
    async fn long_reader(&self) -> Result<Lease<Db>> {
        self.pool.lease_long().await
    }

    async fn counting_reader(&self) -> Result<Lease<Db>> {
        self.pool.lease_counting().await
    }

    async fn writer(&self) -> Result<Lease<Db>> {
        self.pool.lease().await
    }
}

/// The settings of every session, whatever the defaults of the server, database and role. They travel in the start-up
/// packet, so they take no round trip.
///
/// A statement that meets a row changed by another transaction reads the new version and does not fail: exactly-once is a
/// compare-and-set, which needs no more.
///
/// Every statement has its index. A plan made while a table was nearly empty, and cached with its prepared statement,
/// would go on scanning the whole table after it has grown, until the table is analyzed again. Reads without an index
/// then count as so expensive that PostgreSQL would compile them first, which takes longer than the read. No statement
/// uses more than one processor: a read of millions of rows would take those that decide scans.
///
/// Acknowledged data is on disk: here, and on the synchronous standbys if the server has any, whatever its own
/// `synchronous_commit`. The start-up packet knows no conditions.
const SESSION_SETTINGS: [(&str, &str); 5] = [
    ("default_transaction_isolation", "read committed"),
    ("enable_seqscan", "off"),
    ("jit", "off"),
    ("max_parallel_workers_per_gather", "0"),
    ("synchronous_commit", "on"),
];

/// Begins a transaction in a session that others used before, with the same settings. Their prepared statements have the
/// same names as ours.
const BEGIN_LENT: &str = "deallocate all; begin isolation level read committed; set local enable_seqscan = off; \
    set local jit = off; set local max_parallel_workers_per_gather = 0; set local synchronous_commit = on";

/// SQLSTATEs that are not the statement's fault: connection (08), resources such as a full disk (53), operator
/// intervention (57), PostgreSQL's files (58) and internal errors (XX), serialization and deadlock (40); a read-only
/// server after a failover (25006) and a plan invalidated by a migration (0A000), which the next connection may not meet;
/// a lock timeout (55P03).
pub(super) fn is_passing(code: &str) -> bool {
    code.len() == 5
        && ["08", "53", "57", "58", "XX", "40", "25006", "0A000", "55P03"].iter().any(|class| code.starts_with(class))
}

/// SQLSTATEs for a missing table, column or function, or one without permission.
pub(super) fn is_outdated_schema(code: &str) -> bool {
    ["42P01", "42703", "42883", "42501"].contains(&code)
}

/// Whether a commit survives a crash. A pooler may be set to drop the settings with which a session begins.
const DURABLE: &str = "select current_setting('fsync')::boolean and current_setting('full_page_writes')::boolean \
    and current_setting('synchronous_commit') <> 'off'";

async fn health(connection: &mut PgConnection) -> Result<Health> {
    let now = sqlx::query_scalar("select (extract(epoch from clock_timestamp()) * 1000)::bigint")
        .fetch_one(&mut *connection)
        .await?;
    let known: bool =
        sqlx::query_scalar("select to_regclass('_sqlx_migrations') is not null").fetch_one(&mut *connection).await?;
    let migrated = known && {
        let (schema, migrations) = newest(FILE);
        let applied: i64 = sqlx::query_scalar("select count(*) from _sqlx_migrations where success and version <= $1")
            .bind(schema)
            .fetch_one(&mut *connection)
            .await?;
        applied == migrations
    };
    let durable = sqlx::query_scalar(DURABLE).fetch_one(&mut *connection).await?;
    let writable = migrated && is_written(connection.execute(PROBE).await);
    let empty = migrated && sqlx::query_scalar(IS_EMPTY).fetch_one(connection).await?;
    Ok(Health { migrated, now, durable, writable, empty })
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

/// The mark and the scan in one statement: the scan is written only if the ticket was marked, and a taken `scan_id` rolls
/// the mark back.
macro_rules! mark_and_insert_scan {
    ($lock:literal, $event:literal) => {
        concat!(
            "with free as materialized (select 1 from tickets where ticket_id = $3 for no key update",
            $lock,
            "), marked as (select fn_mark_ticket_as_used($3, $27, $28, $29, $17, $16) as done from free where ",
            few_refusals!(),
            ") ",
            insert_scan!($event),
            " cross join marked where done"
        )
    };
}

const MARK_AND_INSERT_SCAN: &str = mark_and_insert_scan!("", " for key share");
const MARK_AND_INSERT_FREE_SCAN: &str = mark_and_insert_scan!(" skip locked", " for key share skip locked");

/// Marks a ticket and writes its scan. Returns the number of scans written.
async fn record_accepted(
    connection: &mut PgConnection,
    scan: &Scan,
    mark: &Mark,
    guesses: &Guesses,
    locked: Locked,
) -> std::result::Result<u64, sqlx::Error> {
    let statement = match locked {
        Locked::Wait => MARK_AND_INSERT_SCAN,
        Locked::Skip => MARK_AND_INSERT_FREE_SCAN,
    };
    let written = bind_scan(sqlx::query(statement), scan, Some(mark.version + 1), guesses)
        .bind(mark.version)
        .bind(mark.step)
        .bind(mark.inside)
        .execute(connection)
        .await?;
    Ok(written.rows_affected())
}

/// Many marks and scans in one statement. It skips locked rows, so that no caller of a batch waits for one of the others,
/// and no batch for another.
const MARK_AND_INSERT_FREE_SCANS: &str = concat!(
    "with ",
    admitted!(),
    ", free as materialized (select n.scan_id, e.forgotten_at from n join events e on e.event_id = n.event_id \
     and e.deleted_at is null join tickets t on t.ticket_id = n.ticket_id \
     for key share of e skip locked for no key update of t skip locked), \
     marked as materialized (select n.*, f.forgotten_at, \
     fn_mark_ticket_as_used(n.ticket_id, n.version, n.step, n.inside, n.decided_at, n.received_at) as done \
     from n join free f on f.scan_id = n.scan_id where ",
    few_refusals_of_admitted!("$21", "$22"),
    ") ",
    insert_admitted!("n.forgotten_at"),
    " from marked n where n.done returning scan_id"
);

/// Returns the ids of the scans written. No ticket and no id may occur twice.
async fn record_many(
    connection: &mut PgConnection,
    admitted: &[Admitted],
) -> std::result::Result<Vec<Uuid>, sqlx::Error> {
    let scan = |value: fn(&Scan) -> Option<&str>| admitted.iter().map(|one| value(&one.scan)).collect::<Vec<_>>();
    let id = |value: fn(&Scan) -> Option<Uuid>| admitted.iter().map(|one| value(&one.scan)).collect::<Vec<_>>();
    let time = |value: fn(&Admitted) -> Option<Millis>| admitted.iter().map(value).collect::<Vec<_>>();
    sqlx::query_scalar(MARK_AND_INSERT_FREE_SCANS)
        .bind(id(|scan| Some(scan.scan_id)))
        .bind(id(|scan| Some(scan.event_id)))
        .bind(id(|scan| scan.ticket_id))
        .bind(id(|scan| scan.presented))
        .bind(scan(|scan| scan.at_gate.as_deref()))
        .bind(scan(|scan| Some(scan.direction.as_str())))
        .bind(scan(|scan| scan.offline_result.map(|result| result.as_str())))
        .bind(admitted.iter().map(|one| one.scan.manual).collect::<Vec<_>>())
        .bind(scan(|scan| scan.note.as_deref()))
        .bind(id(|scan| scan.vouched_by))
        .bind(time(|one| Some(one.scan.scanned_at)))
        .bind(time(|one| Some(one.scan.received_at)))
        .bind(time(|one| Some(one.scan.decided_at)))
        .bind(id(|scan| scan.key_id))
        .bind(admitted.iter().map(|one| one.mark.version).collect::<Vec<_>>())
        .bind(admitted.iter().map(|one| one.mark.step).collect::<Vec<_>>())
        .bind(admitted.iter().map(|one| one.mark.inside).collect::<Vec<_>>())
        .bind(time(|one| one.guesses.of_ticket_since))
        .bind(time(|one| one.guesses.of_key_since))
        .bind(time(|one| one.guesses.until))
        .bind(ATTEMPTS)
        .bind(KEY_ATTEMPTS)
        .fetch_all(connection)
        .await
}

/// Binds the parameters of [`asked!`].
fn bind_asked<'q>(
    query: sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments>,
    asked: &[&Asked],
) -> std::result::Result<sqlx::query::Query<'q, Postgres, sqlx::postgres::PgArguments>, sqlx::Error> {
    let id = |value: fn(&Asked) -> Option<Uuid>| asked.iter().copied().map(value).collect::<Vec<_>>();
    let time = |value: fn(&Asked) -> Option<Millis>| asked.iter().copied().map(value).collect::<Vec<_>>();
    let text = |value: fn(&Asked) -> Option<&str>| asked.iter().copied().map(value).collect::<Vec<_>>();
    Ok(query
        .bind(text(|one| Some(&one.event)))
        .bind(id(|one| Some(one.scan_id)))
        .bind(time(|one| one.guesses.of_ticket_since))
        .bind(id(|one| one.guesses.key_id))
        .bind(time(|one| one.guesses.of_key_since))
        .bind(time(|one| one.guesses.until))
        .bind(id(|one| one.ticket_id))
        .bind(text(|one| one.seat.as_ref().map(|(seat, _)| seat.as_str())))
        .bind(text(|one| one.seat.as_ref().map(|(_, gate)| gate.as_str())))
        .bind(id(|one| one.vouched_by)))
}

/// Serializes the writes of refused codes per ticket and per key, so that each counts those before it. The key of the
/// environment has no row to lock, so the key's lock is a number. It is always taken after the ticket's.
async fn lock_guesses(connection: &mut PgConnection, scan: &Scan) -> std::result::Result<(), sqlx::Error> {
    let (_, key) = scan.key_id.unwrap_or_default().as_u64_pair();
    sqlx::query(
        "with ticket as materialized (select 1 from tickets where ticket_id = $1 for no key update) \
         select pg_advisory_xact_lock($2) from ticket",
    )
    .bind(scan.ticket_id)
    .bind(key.cast_signed())
    .execute(connection)
    .await
    .map(drop)
}

/// Creates those who do not exist yet among the people of an event or of the installation; returns their number. Inserts
/// in a fixed order: two transactions that waited for each other's usernames would deadlock.
async fn insert_people(
    connection: &mut PgConnection,
    people_of: Option<Uuid>,
    people: &[NewUser],
    issue_id: Uuid,
    now: Millis,
) -> Result<u64> {
    let ids: Vec<Uuid> = people.iter().map(|_| Uuid::now_v7()).collect();
    let usernames: Vec<&str> = people.iter().map(|new| new.username.as_str()).collect();
    let full_names: Vec<Option<&str>> = people.iter().map(|new| new.full_name.as_deref()).collect();
    let emails: Vec<Option<&str>> = people.iter().map(|new| new.email.as_deref()).collect();
    let written = sqlx::query(
        "insert into users (user_id, event_id, username, full_name, email, created_at, issue_id) \
         select user_id, $6, username, full_name, email, $1, $7 \
         from unnest($2::uuid[], $3::text[], $4::text[], $5::text[]) as n (user_id, username, full_name, email) \
         order by lower(username) on conflict do nothing",
    )
    .bind(now)
    .bind(ids)
    .bind(usernames)
    .bind(full_names)
    .bind(emails)
    .bind(people_of)
    .bind(issue_id)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}

/// Returns the tickets whose holder is known with another address than theirs, byte for byte: the index in the slice and both
/// addresses.
async fn find_other_people(
    connection: &mut PgConnection,
    people_of: Option<Uuid>,
    tickets: &[NewTicket],
    issue_id: Uuid,
) -> std::result::Result<Vec<(i64, String, Option<String>)>, sqlx::Error> {
    sqlx::query_as(concat!(
        "select n.place - 1, n.email, u.email from unnest($2::text[], $3::text[]) with ordinality as n (username, email, place) \
         join users u on lower(u.username) = lower(n.username) and coalesce(u.event_id, $5) = coalesce($1, $5) \
         and (u.issue_id = $4 or ",
        issued_user!(),
        ") where n.email is not null and n.email is distinct from u.email order by n.place"
    ))
    .bind(people_of)
    .bind(usernames(tickets))
    .bind(tickets.iter().map(email).collect::<Vec<_>>())
    .bind(issue_id)
    .bind(NOBODY)
    .fetch_all(connection)
    .await
}

/// Writes all these tickets, or none if a seat is taken. Inserts in a fixed order, like [`insert_people`].
async fn insert_tickets(
    connection: &mut PgConnection,
    event_id: Uuid,
    people_of: Option<Uuid>,
    tickets: &[NewTicket],
    issue_id: Uuid,
    now: Millis,
) -> std::result::Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = tickets.iter().map(|ticket| ticket.ticket_id).collect();
    let seeds: Vec<&[u8]> = tickets.iter().map(|ticket| ticket.seed.0.as_slice()).collect();
    let folds: Vec<Folded> = tickets.iter().map(|ticket| Folded::of_new(ticket, people_of.is_some())).collect();
    let full_name = |ticket: &NewTicket| ticket.holder.as_ref().and_then(|holder| holder.full_name.clone());
    sqlx::query(concat!(
        "insert into tickets \
         (ticket_id, event_id, user_id, seat, gate, seed, created_at, changed_at, registered_at, issue_id, holder_name, \
         seat_key, gate_key, reference, category, note, valid_from, valid_until, search) \
         select n.ticket_id, $1, case when n.username is not null then coalesce(u.user_id, $8) end, n.seat, n.gate, \
         n.seed, $2, $2, case when n.username is not null then $2 end, $9, \
         case when n.full_name is distinct from u.full_name then n.full_name end, n.seat_key, n.gate_key, n.reference, n.category, \
         n.note, n.valid_from, n.valid_until, ",
        search_unless_more_is_known!("n.full_name", "n.email", "n.search"),
        " from unnest($3::uuid[], $4::text[], $5::text[], $6::bytea[], $7::text[], $11::text[], $12::text[], \
         $13::text[], $14::text[], $15::text[], $16::text[], $17::text[], $18::text[], $19::bigint[], $20::bigint[]) \
         as n (ticket_id, seat, gate, seed, username, full_name, email, seat_key, gate_key, search, reference, category, \
         note, valid_from, valid_until) \
         left join users u on lower(u.username) = lower(n.username) and coalesce(u.event_id, $8) = coalesce($10, $8) \
         and (u.issue_id = $9 or ",
        issued_user!(),
        ") order by n.seat, n.gate"
    ))
    .bind(event_id)
    .bind(now)
    .bind(ids)
    .bind(seats(tickets))
    .bind(gates(tickets))
    .bind(seeds)
    .bind(usernames(tickets))
    .bind(NOBODY)
    .bind(issue_id)
    .bind(people_of)
    .bind(tickets.iter().map(full_name).collect::<Vec<_>>())
    .bind(tickets.iter().map(email).collect::<Vec<_>>())
    .bind(folds.iter().map(|folded| folded.seat_key.as_str()).collect::<Vec<_>>())
    .bind(folds.iter().map(|folded| folded.gate_key.as_str()).collect::<Vec<_>>())
    .bind(folds.iter().map(|folded| folded.search.as_str()).collect::<Vec<_>>())
    .bind(texts(tickets, |ticket| ticket.reference.as_deref()))
    .bind(texts(tickets, |ticket| ticket.category.as_deref()))
    .bind(texts(tickets, |ticket| ticket.note.as_deref()))
    .bind(tickets.iter().map(|ticket| ticket.valid_from).collect::<Vec<_>>())
    .bind(tickets.iter().map(|ticket| ticket.valid_until).collect::<Vec<_>>())
    .execute(connection)
    .await
    .map(drop)
}

/// Gives tickets new seeds, which invalidates their codes, links and paper.
async fn update_seeds(connection: &mut PgConnection, seeds: &[(Uuid, Seed)], now: Millis) -> Result<()> {
    let (ids, seeds): (Vec<Uuid>, Vec<&[u8]>) = seeds.iter().map(|(id, seed)| (*id, seed.0.as_slice())).unzip();
    sqlx::query(
        "update tickets t set seed = n.seed, seeded_at = $1, last_step = null, printed_at = null, mailed_at = null, \
         mailing_at = null, changed_at = $1, version = version + 1 from unnest($2::uuid[], $3::bytea[]) as n (ticket_id, seed) where t.ticket_id = n.ticket_id",
    )
    .bind(now)
    .bind(ids)
    .bind(seeds)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the indexes in the slice of the tickets whose seat another ticket has already, compared as people read them;
/// with `hidden`, also a ticket that an import is writing.
async fn find_taken(
    connection: &mut PgConnection,
    event_id: Uuid,
    tickets: &[NewTicket],
    hidden: bool,
) -> std::result::Result<Vec<i64>, sqlx::Error> {
    let key = |text: fn(&NewTicket) -> &str| tickets.iter().map(|ticket| fold::place(text(ticket))).collect::<Vec<_>>();
    sqlx::query_scalar(concat!(
        "select distinct n.place - 1 from unnest($2::text[], $3::text[], $4::uuid[]) \
         with ordinality as n (seat_key, gate_key, ticket_id, place) \
         join tickets t on t.event_id = $1 and t.seat_key = n.seat_key and t.gate_key = n.gate_key \
         and t.ticket_id <> n.ticket_id join events e on e.event_id = t.event_id and ($5 or ",
        issued_ticket!(),
        ") order by 1"
    ))
    .bind(event_id)
    .bind(key(|ticket| ticket.seat.as_str()))
    .bind(key(|ticket| ticket.gate.as_str()))
    .bind(tickets.iter().map(|ticket| ticket.ticket_id).collect::<Vec<_>>())
    .bind(hidden)
    .fetch_all(connection)
    .await
}

/// Writes the folded texts by which tickets are found.
async fn write_folds(connection: &mut PgConnection, folds: &[Folded]) -> Result<()> {
    sqlx::query(
        "update tickets t set search = n.search, seat_key = n.seat_key, gate_key = n.gate_key \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[]) as n (ticket_id, search, seat_key, gate_key) \
         where t.ticket_id = n.ticket_id",
    )
    .bind(folds.iter().map(|folded| folded.ticket_id).collect::<Vec<_>>())
    .bind(folds.iter().map(|folded| folded.search.as_str()).collect::<Vec<_>>())
    .bind(folds.iter().map(|folded| folded.seat_key.as_str()).collect::<Vec<_>>())
    .bind(folds.iter().map(|folded| folded.gate_key.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

fn email(ticket: &NewTicket) -> Option<&str> {
    ticket.holder.as_ref()?.email.as_deref()
}

fn usernames(tickets: &[NewTicket]) -> Vec<Option<&str>> {
    tickets.iter().map(|ticket| ticket.holder.as_ref().map(|holder| holder.username.as_str())).collect()
}

fn seats(tickets: &[NewTicket]) -> Vec<&str> {
    tickets.iter().map(|ticket| ticket.seat.as_str()).collect()
}

fn gates(tickets: &[NewTicket]) -> Vec<&str> {
    tickets.iter().map(|ticket| ticket.gate.as_str()).collect()
}

fn texts(tickets: &[NewTicket], text: fn(&NewTicket) -> Option<&str>) -> Vec<Option<&str>> {
    tickets.iter().map(text).collect()
}

/// Returns a parameter for `members!`.
fn json(rows: &impl serde::Serialize) -> std::result::Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// The tables with many rows of an event, tickets first, because they refer to their holders. The service may not delete
/// actions, which are deleted with the event.
const ROWS_OF_AN_EVENT: &[RowsOf] = &[
    rows_of!("event_id", "tickets", "ticket_id"),
    rows_of!("event_id", "scans", "scan_id"),
    rows_of!("event_id", "users", "user_id"),
];

/// Locks an event before its deletion against every writer of its rows, who wait until the end of the transaction. A
/// writer that already has such a row and waits for the event would deadlock with us. So we give up first, before
/// PostgreSQL detects the deadlock (after 1 s) and aborts one of us.
async fn take_event(connection: &mut PgConnection, event_id: Uuid) -> std::result::Result<(), sqlx::Error> {
    sqlx::query("set local lock_timeout = '500ms'").execute(&mut *connection).await?;
    let take = sqlx::query("select 1 from events where event_id = $1 and deleted_at is null for update").bind(event_id);
    take.execute(connection).await.map(drop)
}

/// Returns how many rows to write in the next transaction. Writers only wait for each other on the same row, so nobody
/// waits for a large write.
async fn give_way(rows: usize, _held: Duration) -> usize {
    tokio::task::yield_now().await;
    (rows * 2).min(LARGE_CHUNK)
}

/// Erased rows stay in the files until they are vacuumed, which the server does by itself.
async fn overwrite(_: &PostgresStore) -> Result<()> {
    Ok(())
}

/// Updates the planner's statistics after many tickets or people were written.
async fn analyze(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("select fn_analyze_tickets()").execute(connection).await?;
    Ok(())
}

/// Lets the service see which migrations are applied, for `GET /health?full=1`.
const GRANT_VERSIONS: &str = "do $$ begin \
    if exists (select 1 from pg_roles where rolname = 'ticket_service') then \
    grant select on _sqlx_migrations to ticket_service; end if; end $$";

/// Applies the missing migrations as the owner and grants the service's login its role, all under sqlx's advisory lock,
/// which is per database: PostgreSQL rejects one of two concurrent grants.
pub(super) async fn migrate(
    owner: &PgConnectOptions,
    grant_to: Option<&str>,
    migrations: &[Migration],
) -> Result<Migrated> {
    let mut connection =
        as_owner(owner).await.map_err(|error| Error::DatabaseUnavailable(format!("connecting: {error}")))?;
    connection.lock().await?;
    let migrated = apply_missing(&mut connection, migrations, FILE).await?;
    let granted = grant(&mut connection, grant_to).await;
    granted.map_err(|error| Error::Internal(format!("granting ticket_service: {error}")))?;
    connection.unlock().await?;
    connection.close().await?;
    Ok(migrated)
}

/// Opens a session of the owner. Roles belong to the whole cluster, so a migration has to see what others commit meanwhile.
async fn as_owner(owner: &PgConnectOptions) -> std::result::Result<PgConnection, sqlx::Error> {
    let mut connection = owner.clone().disable_statement_logging().connect().await?;
    connection.execute("set default_transaction_isolation = 'read committed'").await?;
    Ok(connection)
}

/// Folds the texts of all tickets that lack it, some in each transaction.
pub(super) async fn fold_all(owner: &PgConnectOptions) -> Result<()> {
    let mut connection = as_owner(owner).await?;
    loop {
        let mut transaction = connection.begin_with(BEGIN).await?;
        let locked = Instant::now();
        let folded = fold_some(&mut transaction, Uuid::nil(), Uuid::max()).await?;
        transaction.commit().await?;
        if folded == 0 {
            return Ok(connection.close().await?);
        }
        give_way(folded, locked.elapsed()).await;
    }
}

/// Runs all files again, which is harmless.
pub(super) async fn reapply(owner: &PgConnectOptions, grant_to: Option<&str>) -> Result<()> {
    let mut connection = as_owner(owner).await?;
    let mut transaction = connection.begin().await?;
    for (_, sql) in of(MIGRATIONS, FILE) {
        sqlx::raw_sql(sql).execute(&mut *transaction).await?;
    }
    grant(&mut transaction, grant_to).await?;
    transaction.commit().await?;
    connection.close().await?;
    Ok(())
}

async fn grant(connection: &mut PgConnection, login: Option<&str>) -> std::result::Result<(), sqlx::Error> {
    sqlx::raw_sql(GRANT_VERSIONS).execute(&mut *connection).await?;
    let Some(login) = login else { return Ok(()) };
    // An owner who may not grant the role need not do so if the login already has it.
    let member: bool = sqlx::query_scalar("select pg_has_role($1, 'ticket_service', 'member')")
        .bind(login)
        .fetch_one(&mut *connection)
        .await?;
    if !member {
        // Roles belong to the whole cluster: a migration of another database may grant the same role at this moment.
        let grant = format!(
            "do $grant$ begin grant ticket_service to \"{}\"; exception when unique_violation then null; end $grant$",
            login.replace('"', "\"\"")
        );
        sqlx::raw_sql(AssertSqlSafe(grant)).execute(connection).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lent_session_has_the_settings_of_an_own_one() {
        for (name, value) in SESSION_SETTINGS {
            let lent = match name {
                "default_transaction_isolation" => format!("begin isolation level {value}"),
                _ => format!("set local {name} = {value}"),
            };
            assert!(BEGIN_LENT.split("; ").any(|statement| statement == lent), "{lent}");
        }
    }
}
