//! SQLite, embedded: one file; in each process one writer and a pool of readers; any number of processes. Macros and
//! functions without a comment are described in `postgres.rs`.

macro_rules! key_or_environment {
    ($key:literal) => {
        concat!("coalesce(", $key, ", x'00')")
    };
}

/// Empty, like the other locks: a write transaction locks the whole database.
macro_rules! key_share {
    () => {
        ""
    };
}

/// The number of the first change that a statement does not see yet, given the numbers of two changes.
macro_rules! next_change {
    ($one:expr, $other:expr) => {
        concat!("max(", $one, ", ", $other, ") + 1")
    };
}

macro_rules! lock_tickets {
    () => {
        ""
    };
}

macro_rules! lock_users {
    () => {
        ""
    };
}

macro_rules! members {
    ($parameter:literal) => {
        concat!("(select m.value, m.key as place from json_each(", $parameter, ") as m) as n")
    };
}

macro_rules! among {
    ($value:literal, $of_member:expr, $parameter:literal) => {
        concat!($value, " in (select ", $of_member, " from json_each(", $parameter, ") as m)")
    };
}

macro_rules! id_in {
    ($text:literal) => {
        concat!("unhex(", $text, ")")
    };
}

macro_rules! number_in {
    ($text:literal) => {
        concat!(
            "case when ",
            $text,
            " not glob '*[^0-9]*' and length(",
            $text,
            ") between 1 and 15 then cast(",
            $text,
            " as integer) end"
        )
    };
}

/// Materialized, because each access to a column would parse the JSON again.
macro_rules! asked {
    () => {
        "n as materialized (select m.key as place, m.value ->> 0 as event, unhex(m.value ->> 1) as scan_id, \
         m.value ->> 2 as of_ticket_since, unhex(m.value ->> 3) as key_id, m.value ->> 4 as of_key_since, \
         m.value ->> 5 as until, unhex(m.value ->> 6) as ticket_id, m.value ->> 7 as seat, m.value ->> 8 as gate, \
         unhex(m.value ->> 9) as vouched_by from json_each($1) as m)"
    };
}

macro_rules! admitted {
    () => {
        "n as materialized (select unhex(m.value ->> 0) as scan_id, unhex(m.value ->> 1) as event_id, \
         unhex(m.value ->> 2) as ticket_id, unhex(m.value ->> 3) as presented, m.value ->> 4 as at_gate, \
         m.value ->> 5 as direction, m.value ->> 6 as offline_result, m.value ->> 7 as manual, m.value ->> 8 as note, \
         unhex(m.value ->> 9) as vouched_by, m.value ->> 10 as scanned_at, m.value ->> 11 as received_at, \
         m.value ->> 12 as decided_at, unhex(m.value ->> 13) as key_id, m.value ->> 14 as version, m.value ->> 15 as step, \
         m.value ->> 16 as inside, m.value ->> 17 as of_ticket_since, m.value ->> 18 as of_key_since, \
         m.value ->> 19 as until from json_each($1) as m)"
    };
}

#[macro_use]
#[path = "queries/mod.rs"]
mod queries;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use data_encoding::HEXLOWER;
use serde_json::json;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, Sqlite, SqliteConnection};
use tokio::sync::OnceCell;
use uuid::Uuid;

use self::queries::admissions::{Admitted, Asked, Locked, Scanning, bind_scan};
use self::queries::issues::{CHUNK, RowsOf};
use self::queries::search::{Folded, fold_some};
use super::migrations::{FileOf, MIGRATIONS, Migrated, Migration, apply_missing, newest};
use super::pool::{Lease, Pool, Session};
use super::{Guesses, Health, IS_EMPTY, Mark, NOBODY, NewTicket, NewUser, PROBE, Result, is_written};
use crate::admission::ATTEMPTS;
use crate::error::Error;
use crate::fold;
use crate::limits::KEY_ATTEMPTS;
use crate::model::{Millis, Scan, ScanResult, Seed, Status};

type Db = Sqlite;
type Backend = SqliteStore;

/// Takes the write lock at once. A deferred `begin` takes it at the first write, and by then earlier reads may be outdated.
const BEGIN: &str = "begin immediate";
/// A transaction that waits for a writer of another process gives up after the busy timeout.
const BEGIN_BRIEF: &str = BEGIN;
/// The function that returns the position of a text in another: 0 if it does not occur.
const FIND: &str = "instr";
/// Lets one transaction at a time create tickets of an event: `begin immediate` has locked everything already.
const LOCK_EVENT: &str = "select 1 from events where event_id = $1 and deleted_at is null";
const LOCK_TICKET: &str = "select 1 from tickets where ticket_id = $1";
const LOCK_USER: &str = "select 1 from users where lower(username) = lower($1) and event_id is not distinct from $2";

/// The number of rows that SQLite's thread may read ahead: a page of an export, so that the two threads need not wake
/// each other every 50 rows.
const ROW_BUFFER: usize = crate::list::PAGE as usize;

const FILE: FileOf = |migration| migration.sqlite;

/// Returns the version of the schema: the number of its newest migration.
pub(crate) fn schema() -> i64 {
    newest(FILE).0
}

pub struct SqliteStore {
    path: PathBuf,
    readers: Pool<Sqlite>,
    writer: Pool<Sqlite>,
    scanning: Scanning,
    /// The device and inode of the file that was opened first, once its schema is up to date.
    opened: OnceCell<(u64, u64)>,
}

impl SqliteStore {
    pub fn new(path: PathBuf, pool_max: usize, timeout: Duration) -> Self {
        // A writer waits for that of another process, but less long than the request may take.
        let options = options(&path).busy_timeout(timeout * 4 / 5);
        let pool = |most| Pool::new(options.clone(), Session::Own, most, timeout);
        let (readers, writer) = (pool(pool_max), pool(1));
        Self { path, scanning: Scanning::new(&readers, &writer), readers, writer, opened: OnceCell::new() }
    }

    /// Migrates the schema, once. It reads first, which needs no lock, so that a process can begin to read while another
    /// one writes.
    async fn open(&self) -> Result<()> {
        let look = async || {
            let mut lease = self.readers.lease().await?;
            let outcome = look(lease.connection()).await;
            lease.settle(outcome).await
        };
        let open = async || {
            if !look().await.is_ok_and(|health| health.migrated) {
                migrate(&self.path, MIGRATIONS).await?;
            }
            self.file_there()
        };
        let opened = self.opened.get_or_try_init(open).await?;
        if self.file_there().is_ok_and(|there| there == *opened) {
            return Ok(());
        }
        // Writes would be lost, or go to a file that nobody finds, and other connections would read a different file.
        Err(Error::DatabaseUnavailable(format!(
            "{} is not the file that was opened: it was moved, deleted or replaced; put it back, or stop the service, \
             move the files that end in -wal and -shm to the old file, and start it again",
            self.path.display()
        )))
    }

    /// Returns which file is at the path now, without opening it: closing it again would release SQLite's locks on it.
    fn file_there(&self) -> Result<(u64, u64)> {
        let file = std::fs::metadata(&self.path);
        let file = file.map_err(|error| Error::DatabaseUnavailable(format!("{}: {error}", self.path.display())))?;
        Ok((file.dev(), file.ino()))
    }

    async fn scanning(&self) -> Result<&Scanning> {
        self.open().await?;
        Ok(&self.scanning)
    }

    async fn reader(&self) -> Result<Lease<Db>> {
        self.open().await?;
        self.readers.lease().await
    }

    async fn long_reader(&self) -> Result<Lease<Db>> {
        self.open().await?;
        self.readers.lease_long().await
    }

    async fn counting_reader(&self) -> Result<Lease<Db>> {
        self.open().await?;
        self.readers.lease_counting().await
    }

    async fn writer(&self) -> Result<Lease<Db>> {
        self.open().await?;
        self.writer.lease().await
    }
}

/// WAL lets readers go on during a write; `synchronous=FULL` preserves every acknowledged admission through a power failure.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Erased data is overwritten, so that it cannot be found in the file.
        .pragma("secure_delete", "on")
        .row_buffer_size(ROW_BUFFER)
        .disable_statement_logging()
}

/// SQLite's primary result codes that are transient, or pass with room on the disk: busy, locked, read-only, I/O error,
/// full, cannot open. The low byte of an extended code is its primary code.
pub(super) fn is_passing(code: &str) -> bool {
    code.len() < 5 && code.parse::<u32>().is_ok_and(|code| [5, 6, 8, 10, 13, 14].contains(&(code & 0xff)))
}

async fn health(connection: &mut SqliteConnection) -> Result<Health> {
    let patience: i64 = sqlx::query_scalar("pragma busy_timeout").fetch_one(&mut *connection).await?;
    connection.execute("pragma busy_timeout = 0").await?;
    let probe = connection.execute(PROBE).await;
    connection.execute(AssertSqlSafe(format!("pragma busy_timeout = {patience}"))).await?;
    let writable = match probe {
        // The database accepts writes if another connection is writing now.
        Err(error) if is_busy(&error) => true,
        probe => is_written(probe),
    };
    let file: String = sqlx::query_scalar("select file from pragma_database_list where name = 'main'")
        .fetch_one(&mut *connection)
        .await?;
    let has_room = find_room(Path::new(&file));
    if let Err(error) = &has_room {
        tracing::warn!(%error, "full health check: the database's disk is full");
    }
    Ok(Health { writable: writable && has_room.is_ok(), ..look(connection).await? })
}

/// Checks that a file's disk has room for some dozens of scans. Writing a row would not tell: SQLite writes to its log,
/// whose space is already allocated.
fn find_room(file: &Path) -> std::io::Result<()> {
    let probe = file.with_file_name(format!(".probe-{}", Uuid::new_v4()));
    let written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe);
    let written = written.and_then(|mut probe| probe.write_all(&[0; 256 * 1024]));
    std::fs::remove_file(&probe).and(written)
}

async fn look(connection: &mut SqliteConnection) -> Result<Health> {
    let now =
        sqlx::query_scalar("select cast(unixepoch('subsec') * 1000 as integer)").fetch_one(&mut *connection).await?;
    let (schema, migrations) = newest(FILE);
    let applied: i64 = sqlx::query_scalar("select count(*) from _sqlx_migrations where success and version <= $1")
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?;
    let migrated = applied == migrations;
    let empty = migrated && sqlx::query_scalar(IS_EMPTY).fetch_one(connection).await?;
    Ok(Health { migrated, now, durable: true, writable: true, empty })
}

/// Does what `sp_register_ticket_to_user` does on PostgreSQL, inside the caller's transaction.
async fn register(connection: &mut SqliteConnection, ticket_id: Uuid, user_id: Uuid, now: Millis) -> Result<()> {
    let (holder, status): (Option<Uuid>, Status) =
        sqlx::query_as("select user_id, status from tickets where ticket_id = $1")
            .bind(ticket_id)
            .fetch_one(&mut *connection)
            .await?;
    if holder.is_some() {
        return Err(Error::TicketAlreadyRegistered);
    }
    if status != Status::Valid {
        return Err(Error::TicketRevoked);
    }
    sqlx::query(
        "update tickets set user_id = $2, registered_at = $3, changed_at = $3, version = version + 1 \
         where ticket_id = $1",
    )
    .bind(ticket_id)
    .bind(user_id)
    .bind(now)
    .execute(connection)
    .await?;
    Ok(())
}

/// The mark, equivalent to `fn_mark_ticket_as_used` on PostgreSQL, and the scan, which is written only if the ticket was
/// marked. Four statements in one message to SQLite's thread: each message costs two thread switches, here while the file
/// is locked.
const MARK_AND_INSERT_SCAN: &str = concat!(
    "begin immediate; ",
    "update tickets set status = 'used', inside = $29, ",
    "last_step = max(coalesce(last_step, $28), coalesce($28, last_step)), used_at = coalesce(used_at, $17), ",
    "changed_at = $16, version = version + 1 ",
    "where ticket_id = $3 and version = $27 and status <> 'revoked' and ",
    few_refusals!(),
    "; ",
    insert_scan!(""),
    " where changes() = 1 returning 1; ",
    "commit"
);

/// Marks a ticket and writes its scan. Returns the number of scans written.
async fn record_accepted(
    connection: &mut SqliteConnection,
    scan: &Scan,
    mark: &Mark,
    guesses: &Guesses,
    _: Locked,
) -> std::result::Result<u64, sqlx::Error> {
    let written = bind_scan(sqlx::query(MARK_AND_INSERT_SCAN), scan, Some(mark.version + 1), guesses)
        .bind(mark.version)
        .bind(mark.step)
        .bind(mark.inside)
        .fetch_all(&mut *connection)
        .await;
    Ok(or_rollback(connection, written).await?.len() as u64)
}

/// Rolls back if a statement of the transaction failed. If that was `begin`, there is nothing to roll back, and the error
/// is ignored.
async fn or_rollback<T>(
    connection: &mut SqliteConnection,
    written: std::result::Result<T, sqlx::Error>,
) -> std::result::Result<T, sqlx::Error> {
    if written.is_err() {
        connection.execute("rollback").await.ok();
    }
    written
}

/// Writes the scans of tickets that are unchanged since they were read, and then their marks. A ticket at this version
/// has no earlier scan with the next version, so one found with it is ours.
const INSERT_SCANS_AND_MARK: &str = concat!(
    "begin immediate; with ",
    admitted!(),
    " ",
    insert_admitted!("e.forgotten_at"),
    " from n cross join events e cross join tickets t where e.event_id = n.event_id and e.deleted_at is null \
     and t.ticket_id = n.ticket_id and t.version = n.version and t.status <> 'revoked' and ",
    few_refusals_of_admitted!("$2", "$3"),
    " returning scan_id; with ",
    admitted!(),
    " update tickets set status = 'used', inside = n.inside, \
     last_step = max(coalesce(last_step, n.step), coalesce(n.step, last_step)), used_at = coalesce(used_at, n.decided_at), \
     changed_at = n.received_at, version = tickets.version + 1 \
     from n where tickets.ticket_id = n.ticket_id and tickets.version = n.version \
     and exists (select 1 from scans s where s.scan_id = n.scan_id and s.ticket_id = n.ticket_id \
     and s.ticket_version = n.version + 1); commit"
);

/// Returns the ids of the scans written. No ticket and no id may occur twice.
async fn record_many(
    connection: &mut SqliteConnection,
    admitted: &[Admitted],
) -> std::result::Result<Vec<Uuid>, sqlx::Error> {
    let rows: Vec<_> = admitted
        .iter()
        .map(|Admitted { scan, mark, guesses }| {
            json!([
                id(Some(scan.scan_id)),
                id(Some(scan.event_id)),
                id(scan.ticket_id),
                id(scan.presented),
                scan.at_gate,
                scan.direction.as_str(),
                scan.offline_result.map(ScanResult::as_str),
                scan.manual,
                scan.note,
                id(scan.vouched_by),
                scan.scanned_at.0,
                scan.received_at.0,
                scan.decided_at.0,
                id(scan.key_id),
                mark.version,
                mark.step,
                mark.inside,
                time(guesses.of_ticket_since),
                time(guesses.of_key_since),
                time(guesses.until),
            ])
        })
        .collect();
    let written = sqlx::query_scalar(INSERT_SCANS_AND_MARK)
        .bind(json(&rows)?)
        .bind(ATTEMPTS)
        .bind(KEY_ATTEMPTS)
        .fetch_all(&mut *connection)
        .await;
    or_rollback(connection, written).await
}

/// Binds the parameters of [`asked!`].
fn bind_asked<'q>(
    query: sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>,
    asked: &[&Asked],
) -> std::result::Result<sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>, sqlx::Error> {
    let rows: Vec<_> = asked
        .iter()
        .map(|one| {
            let (seat, gate) = one.seat.as_ref().map(|(seat, gate)| (seat, gate)).unzip();
            json!([
                one.event,
                id(Some(one.scan_id)),
                time(one.guesses.of_ticket_since),
                id(one.guesses.key_id),
                time(one.guesses.of_key_since),
                time(one.guesses.until),
                id(one.ticket_id),
                seat,
                gate,
                id(one.vouched_by),
            ])
        })
        .collect();
    Ok(query.bind(json(&rows)?))
}

/// `begin immediate` has locked everything already.
async fn lock_guesses(_: &mut SqliteConnection, _: &Scan) -> std::result::Result<(), sqlx::Error> {
    Ok(())
}

async fn insert_people(
    connection: &mut SqliteConnection,
    people_of: Option<Uuid>,
    people: &[NewUser],
    issue_id: Uuid,
    now: Millis,
) -> Result<u64> {
    let rows: Vec<_> =
        people.iter().map(|new| (hex(Uuid::now_v7().as_bytes()), &new.username, &new.full_name, &new.email)).collect();
    let written = sqlx::query(
        "insert into users (user_id, event_id, username, full_name, email, created_at, issue_id) \
         select unhex(value ->> 0), $3, value ->> 1, value ->> 2, value ->> 3, $1, $4 from json_each($2) \
         where true on conflict do nothing",
    )
    .bind(now)
    .bind(json(&rows)?)
    .bind(people_of)
    .bind(issue_id)
    .execute(connection)
    .await?;
    Ok(written.rows_affected())
}

async fn find_other_people(
    connection: &mut SqliteConnection,
    people_of: Option<Uuid>,
    tickets: &[NewTicket],
    issue_id: Uuid,
) -> std::result::Result<Vec<(i64, String, Option<String>)>, sqlx::Error> {
    let holder =
        |ticket: &NewTicket| ticket.holder.as_ref().map(|holder| (holder.username.clone(), holder.email.clone()));
    let rows: Vec<_> = tickets.iter().map(holder).collect();
    sqlx::query_as(concat!(
        "select n.key, n.value ->> 1, u.email from json_each($2) as n join users u on lower(u.username) = lower(n.value ->> 0) \
         and u.event_id is not distinct from $1 and (u.issue_id = $3 or ",
        issued_user!(),
        ") where n.value ->> 1 is not null and n.value ->> 1 is distinct from u.email order by n.key"
    ))
    .bind(people_of)
    .bind(json(&rows)?)
    .bind(issue_id)
    .fetch_all(connection)
    .await
}

/// Writes all these tickets, or none if a seat is taken. One JSON parameter carries them all: with a statement for each,
/// a large import would switch to SQLite's thread and back 100,000 times.
async fn insert_tickets(
    connection: &mut SqliteConnection,
    event_id: Uuid,
    people_of: Option<Uuid>,
    tickets: &[NewTicket],
    issue_id: Uuid,
    now: Millis,
) -> std::result::Result<(), sqlx::Error> {
    let rows: Vec<_> = tickets
        .iter()
        .map(|ticket| {
            let new = ticket.holder.as_ref();
            let (username, name) = (new.map(|new| &new.username), new.map(|new| &new.full_name));
            let (id, seed, email) = (hex(ticket.ticket_id.as_bytes()), hex(&ticket.seed.0), new.map(|new| &new.email));
            let Folded { search, seat_key, gate_key, .. } = Folded::of_new(ticket, people_of.is_some());
            // A flat array: SQLite takes several times as long to read a path into a nested value.
            let NewTicket { seat, gate, reference, category, note, .. } = ticket;
            let [from, until] = [ticket.valid_from, ticket.valid_until].map(time);
            (
                id, seat, gate, seed, username, name, email, seat_key, gate_key, search, reference, category, note,
                from, until,
            )
        })
        .collect();
    sqlx::query(concat!(
        "insert into tickets \
         (ticket_id, event_id, user_id, seat, gate, seed, created_at, changed_at, registered_at, issue_id, holder_name, \
         seat_key, gate_key, reference, category, note, valid_from, valid_until, search) \
         select unhex(n.value ->> 0), $1, case when n.value ->> 4 is not null then coalesce(u.user_id, $4) end, \
         n.value ->> 1, n.value ->> 2, unhex(n.value ->> 3), $2, $2, case when n.value ->> 4 is not null then $2 end, $5, \
         case when n.value ->> 5 is distinct from u.full_name then n.value ->> 5 end, \
         n.value ->> 7, n.value ->> 8, n.value ->> 10, n.value ->> 11, n.value ->> 12, n.value ->> 13, \
         n.value ->> 14, ",
        search_unless_more_is_known!("n.value ->> 5", "n.value ->> 6", "n.value ->> 9"),
        " from json_each($3) as n left join users u on lower(u.username) = lower(n.value ->> 4) \
         and u.event_id is not distinct from $6 and (u.issue_id = $5 or ",
        issued_user!(),
        ")"
    ))
    .bind(event_id)
    .bind(now)
    .bind(json(&rows)?)
    .bind(NOBODY)
    .bind(issue_id)
    .bind(people_of)
    .execute(connection)
    .await
    .map(drop)
}

async fn update_seeds(connection: &mut SqliteConnection, seeds: &[(Uuid, Seed)], now: Millis) -> Result<()> {
    let rows: Vec<_> = seeds.iter().map(|(id, seed)| (hex(id.as_bytes()), hex(&seed.0))).collect();
    sqlx::query(
        "update tickets set seed = unhex(n.value ->> 1), seeded_at = $1, last_step = null, printed_at = null, mailed_at = null, \
         mailing_at = null, changed_at = $1, version = version + 1 from json_each($2) as n where ticket_id = unhex(n.value ->> 0)",
    )
    .bind(now)
    .bind(json(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

async fn find_taken(
    connection: &mut SqliteConnection,
    event_id: Uuid,
    tickets: &[NewTicket],
    hidden: bool,
) -> std::result::Result<Vec<i64>, sqlx::Error> {
    let row =
        |ticket: &NewTicket| (fold::place(&ticket.seat), fold::place(&ticket.gate), hex(ticket.ticket_id.as_bytes()));
    let rows: Vec<_> = tickets.iter().map(row).collect();
    // `cross` fixes the join order. Otherwise SQLite would read all tickets of the event for each import.
    sqlx::query_scalar(concat!(
        "select distinct n.key from json_each($2) as n cross join tickets t on t.event_id = $1 \
         and t.seat_key = n.value ->> 0 and t.gate_key = n.value ->> 1 and t.ticket_id <> unhex(n.value ->> 2) \
         cross join events e on e.event_id = t.event_id and ($3 or ",
        issued_ticket!(),
        ") order by n.key"
    ))
    .bind(event_id)
    .bind(json(&rows)?)
    .bind(hidden)
    .fetch_all(connection)
    .await
}

async fn write_folds(connection: &mut SqliteConnection, folds: &[Folded]) -> Result<()> {
    let row = |folded: &Folded| {
        let Folded { ticket_id, search, seat_key, gate_key } = folded;
        (hex(ticket_id.as_bytes()), search.clone(), seat_key.clone(), gate_key.clone())
    };
    let rows: Vec<_> = folds.iter().map(row).collect();
    sqlx::query(
        "update tickets set search = n.value ->> 1, seat_key = n.value ->> 2, gate_key = n.value ->> 3 \
         from json_each($1) as n where ticket_id = unhex(n.value ->> 0)",
    )
    .bind(json(&rows)?)
    .execute(connection)
    .await?;
    Ok(())
}

/// The tables with many rows of an event, tickets first, because they refer to their holders.
const ROWS_OF_AN_EVENT: &[RowsOf] = &[
    rows_of!("event_id", "tickets", "ticket_id"),
    rows_of!("event_id", "scans", "scan_id"),
    rows_of!("event_id", "users", "user_id"),
    rows_of!("event_id", "actions", "action_id"),
];

/// `begin immediate` has locked everything already.
async fn take_event(_: &mut SqliteConnection, _: Uuid) -> std::result::Result<(), sqlx::Error> {
    Ok(())
}

/// The target for how long a transaction of an import blocks other writers.
const HELD: Duration = Duration::from_millis(40);

/// Sleeps as long as the last transaction blocked other writers, since SQLite has one writer at a time: a process that
/// waits is not notified when the file is free, but polls. Returns how many rows to write in the next transaction, after
/// `rows` were written in the time `held`.
async fn give_way(rows: usize, held: Duration) -> usize {
    tokio::time::sleep(held).await;
    if held > HELD { (rows / 2).max(CHUNK / 8) } else { (rows * 2).min(CHUNK) }
}

/// Rewrites the whole file and empties its log. While somebody is reading, this is left to the next call. `secure_delete`
/// overwrites deleted rows, but not the copies that SQLite leaves in gaps of a page when it moves rows.
async fn overwrite(backend: &SqliteStore) -> Result<()> {
    let mut lease = backend.writer().await?;
    let connection = lease.connection();
    let outcome = async {
        connection.execute("vacuum").await?;
        connection.execute("pragma wal_checkpoint(truncate)").await
    };
    let outcome = outcome.await;
    lease.settle(outcome.map_err(Error::from)).await.map(drop)
}

/// SQLite picks the right indexes without statistics.
async fn analyze(_: &mut SqliteConnection) -> Result<()> {
    Ok(())
}

/// An id, and a time, as statements read them from JSON.
fn id(id: Option<Uuid>) -> Option<String> {
    id.map(|id| hex(id.as_bytes()))
}

fn time(time: Option<Millis>) -> Option<i64> {
    time.map(|time| time.0)
}

fn hex(bytes: &[u8]) -> String {
    HEXLOWER.encode(bytes)
}

fn json(rows: &impl serde::Serialize) -> std::result::Result<String, sqlx::Error> {
    serde_json::to_string(rows).map_err(|error| sqlx::Error::Encode(error.into()))
}

/// Creates the directory of a file if it is missing, accessible to this user only: the database contains the seeds of codes.
pub(crate) fn make_directory_of(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(directory) if directory != Path::new("") => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
        }
        _ => Ok(()),
    }
}

/// Returns the write-ahead log of a missing file. SQLite would delete that log, and data that only it has, when it opens
/// a new file. Checks the log first: a new database's file exists before its log.
pub(crate) fn log_without_file(file: &Path) -> Option<PathBuf> {
    Some(beside(file, "-wal")).filter(|log| log.exists() && !file.exists())
}

/// Returns the path of a file that SQLite keeps beside the database: its log, `-wal`, the log's index, `-shm`, or a `-journal`.
pub(crate) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Creates the file if it is missing, accessible to this user only; SQLite gives the files beside it the same
/// permissions. An existing file is not opened: closing it would release all locks of this process on it (POSIX),
/// SQLite's included, and the next program that opens the database would delete the write-ahead log from under it.
fn make_file(path: &Path) -> std::io::Result<()> {
    make_directory_of(path)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Creates the file and its directory if they are missing, and applies the missing migrations in one `begin immediate`
/// transaction, so that a second process waits and then finds everything done.
pub(super) async fn migrate(path: &Path, migrations: &[Migration]) -> Result<Migrated> {
    let unusable = |error: String| Error::DatabaseUnavailable(format!("{}: {error}", path.display()));
    if let Some(log) = log_without_file(path) {
        return Err(unusable(format!(
            "is missing, but its write-ahead log {} exists and is a part of it; restore the file",
            log.display()
        )));
    }
    make_file(path).map_err(|error| unusable(error.to_string()))?;
    // SQLite changes a constraint by replacing the table. With foreign keys on, dropping the old table would delete all
    // rows that refer to it; within a transaction they can no longer be switched off.
    let options = options(path).foreign_keys(false);
    let mut connection = connect(&options).await.map_err(|error| unusable(error.to_string()))?;
    let mut transaction = connection.begin_with(BEGIN).await?;
    if is_foreign(&mut transaction).await? {
        return Err(unusable("is a database of another program".to_owned()));
    }
    let migrated = apply_missing(&mut *transaction, migrations, FILE).await?;
    if !migrated.applied.is_empty() {
        refuse_orphans(&mut transaction).await?;
    }
    transaction.commit().await?;
    connection.close().await?;
    Ok(migrated)
}

/// Whether there are tables, and none of them is ours.
async fn is_foreign(connection: &mut SqliteConnection) -> Result<bool> {
    let foreign =
        "select count(*) > 0 and total(name = '_sqlx_migrations') = 0 from sqlite_schema where type = 'table'";
    Ok(sqlx::query_scalar(foreign).fetch_one(connection).await?)
}

/// Folds the texts of all tickets that lack it, some in each transaction.
pub(super) async fn fold_all(path: &Path) -> Result<()> {
    let mut connection = connect(&options(path)).await?;
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

/// Whether another connection has locked the file: SQLite's primary result code 5.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|refusal| refusal.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// How long to retry while another process creates the same file.
const MADE: Duration = Duration::from_secs(5);

/// Opens a file that may be new. If two connections switch it to WAL at once, SQLite tells one of them that it is busy,
/// without the wait that it has for locks.
async fn connect(options: &SqliteConnectOptions) -> std::result::Result<SqliteConnection, sqlx::Error> {
    let started = Instant::now();
    loop {
        match options.connect().await {
            Err(error) if is_busy(&error) && started.elapsed() < MADE => {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            outcome => return outcome,
        }
    }
}

/// Rejects a migration after which rows refer to missing rows.
async fn refuse_orphans(connection: &mut SqliteConnection) -> Result<()> {
    let orphans: Option<(i64, String, String)> = sqlx::query_as(
        "select count(*), \"table\", parent from pragma_foreign_key_check group by \"table\", parent limit 1",
    )
    .fetch_optional(connection)
    .await?;
    match orphans {
        None => Ok(()),
        Some((rows, table, parent)) => Err(Error::Internal(format!(
            "migration: nothing was changed, because {rows} rows of {table} would refer to {parent} that do not exist"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use sqlx::Row as _;

    use super::queries::search::FIND_UNFOLDED;
    use super::queries::tickets::list_statement;
    use super::*;
    use crate::store::TicketFilter;

    /// Returns SQLite's query plan for a statement.
    async fn plan(statement: &str) -> Vec<String> {
        let path = std::env::temp_dir().join(format!("plan-{}.db", Uuid::new_v4()));
        migrate(&path, MIGRATIONS).await.unwrap();
        let mut connection = options(&path).connect().await.unwrap();
        let explain = format!("explain query plan {statement}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(explain)).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        std::fs::remove_file(&path).unwrap();
        rows.iter().map(|row| row.get("detail")).collect()
    }

    #[tokio::test]
    async fn what_is_not_folded_yet_is_looked_for_among_what_is_not() {
        let plan = plan(FIND_UNFOLDED).await;
        assert!(plan.len() == 1 && plan[0].contains("tickets_unfolded_idx"), "{plan:#?}");
    }

    #[tokio::test]
    async fn a_search_reads_one_event_and_the_index_alone() {
        let gate = || Some("North".to_owned());
        for (filter, words) in [
            (TicketFilter::default(), 0),
            (TicketFilter { search: gate(), ..TicketFilter::default() }, 3),
            (TicketFilter { search: gate(), without_addresses: true, ..TicketFilter::default() }, 1),
            (TicketFilter { gate: gate(), ..TicketFilter::default() }, 0),
            (TicketFilter { gate: gate(), search: gate(), ..TicketFilter::default() }, 2),
        ] {
            let plan = plan(&list_statement(&filter, words)).await;
            let reads: Vec<_> = plan.iter().filter(|step| step.contains("tickets_event_id_idx")).collect();
            assert!(
                reads.len() == 1 && reads[0].contains("COVERING INDEX") && reads[0].contains("event_id"),
                "{plan:#?}"
            );
            // Only the tickets found are scanned and sorted; no table is read from end to end.
            assert!(
                !plan.iter().any(|step| step.starts_with("SCAN") && !step.contains("found") && step != "SCAN f"),
                "{plan:#?}"
            );
        }
    }

    #[tokio::test]
    async fn a_file_that_may_only_be_read_takes_no_write_and_one_that_is_written_does() {
        let path = std::env::temp_dir().join(format!("health-{}.db", Uuid::new_v4()));
        migrate(&path, MIGRATIONS).await.unwrap();
        let mut writer = options(&path).connect().await.unwrap();
        let mut connection = options(&path).busy_timeout(Duration::from_secs(7)).connect().await.unwrap();
        writer.execute("begin immediate").await.unwrap();
        assert!(health(&mut connection).await.is_ok_and(|health| health.migrated && health.writable));
        let patience: i64 = sqlx::query_scalar("pragma busy_timeout").fetch_one(&mut connection).await.unwrap();
        assert_eq!(patience, 7_000);
        writer.execute("rollback").await.unwrap();
        connection.execute("begin immediate; rollback").await.expect("nothing is left begun");
        // Opened as SQLite opens a file that this process may not write.
        let mut reader = options(&path).read_only(true).connect().await.unwrap();
        assert!(look(&mut reader).await.is_ok_and(|health| health.migrated));
        assert!(health(&mut reader).await.is_ok_and(|health| health.migrated && !health.writable));
        for connection in [writer, connection, reader] {
            connection.close().await.unwrap();
        }
        std::fs::remove_file(&path).unwrap();
    }

    #[tokio::test]
    async fn a_list_by_status_reads_the_tickets_of_one_event() {
        let plan =
            plan(&list_statement(&TicketFilter { status: Some(Status::Used), ..TicketFilter::default() }, 0)).await;
        assert!(plan.iter().any(|step| step.contains("SEARCH t USING INDEX tickets_event_id_idx (")), "{plan:#?}");
    }
}
