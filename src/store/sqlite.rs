//! SQLite, embedded: one file, one writer and a pool of readers in each process, any number of processes.

/// A key's id, or what stands for the key of the environment, which has none: what the index of refused codes holds.
macro_rules! key_or_environment {
    ($key:literal) => {
        concat!("coalesce(", $key, ", x'00')")
    };
}

/// Keeps a row that was selected until the end of the transaction. SQLite's transaction has everything.
macro_rules! key_share {
    () => {
        ""
    };
}

/// The number of the first change that is missing in what a statement reads, which has two numbers of changes itself.
macro_rules! next_change {
    ($one:expr, $other:expr) => {
        concat!("max(", $one, ", ", $other, ") + 1")
    };
}

/// Keeps the tickets `t` that were selected until the end of the transaction.
macro_rules! lock_tickets {
    () => {
        ""
    };
}

/// Keeps the people `u` that were selected until the end of the transaction.
macro_rules! lock_users {
    () => {
        ""
    };
}

/// The members of a JSON array that is a parameter: `n.value` with the `n.place` of each, counted from 0.
macro_rules! members {
    ($parameter:literal) => {
        concat!("(select m.value, m.key as place from json_each(", $parameter, ") as m) as n")
    };
}

/// Whether a value is among what is made of the members `m.value` of a JSON array that is a parameter.
macro_rules! among {
    ($value:literal, $of_member:expr, $parameter:literal) => {
        concat!($value, " in (select ", $of_member, " from json_each(", $parameter, ") as m)")
    };
}

/// An id that stands in JSON, as [`members!`] has it.
macro_rules! id_in {
    ($text:literal) => {
        concat!("unhex(", $text, ")")
    };
}

/// The number that a text is, which has no sign and at most nine digits; else null.
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

/// What is read for decisions, as [`bind_asked`] gives it: `n`, in which `place` counts from 0. Made once: each look at a column would read
/// the JSON again.
macro_rules! asked {
    () => {
        "n as materialized (select m.key as place, m.value ->> 0 as event, unhex(m.value ->> 1) as scan_id, \
         m.value ->> 2 as of_ticket_since, unhex(m.value ->> 3) as key_id, m.value ->> 4 as of_key_since, \
         m.value ->> 5 as until, unhex(m.value ->> 6) as ticket_id, m.value ->> 7 as seat, m.value ->> 8 as gate, \
         unhex(m.value ->> 9) as vouched_by from json_each($1) as m)"
    };
}

/// Admissions that are to be written, as [`record_many`] gives them.
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

/// Takes the write lock at once. A deferred `begin` takes it at the first write, and by then what was read may be old.
const BEGIN: &str = "begin immediate";
/// Who waits for another process's writer gives up after the busy timeout.
const BEGIN_BRIEF: &str = BEGIN;
/// `begin immediate` has locked everything already.
/// The function that says where in a text another one is: 0 when it is not.
const FIND: &str = "instr";
/// Lets one transaction at a time make tickets of an event; scans go on.
const LOCK_EVENT: &str = "select 1 from events where event_id = $1 and deleted_at is null";
const LOCK_TICKET: &str = "select 1 from tickets where ticket_id = $1";
const LOCK_USER: &str = "select 1 from users where lower(username) = lower($1) and event_id is not distinct from $2";

/// Rows that SQLite's thread may be ahead of ours: a page of an export, so that the two need not wake each other for
/// every 50.
const ROW_BUFFER: usize = crate::list::PAGE as usize;

const FILE: FileOf = |migration| migration.sqlite;

/// The version of the schema: the number of its newest migration.
pub(crate) fn schema() -> i64 {
    newest(FILE).0
}

pub struct SqliteStore {
    path: PathBuf,
    readers: Pool<Sqlite>,
    writer: Pool<Sqlite>,
    scanning: Scanning,
    /// The file that was opened first, by its device and number there, once its schema is up to date.
    opened: OnceCell<(u64, u64)>,
}

impl SqliteStore {
    pub fn new(path: PathBuf, pool_max: usize, timeout: Duration) -> Self {
        // A writer waits for another process's writer, but less than the request can.
        let options = options(&path).busy_timeout(timeout * 4 / 5);
        let pool = |most| Pool::new(options.clone(), Session::Own(|_| Box::pin(async { Ok(()) })), most, timeout);
        let (readers, writer) = (pool(pool_max), pool(1));
        Self { path, scanning: Scanning::new(&readers, &writer), readers, writer, opened: OnceCell::new() }
    }

    /// Brings the schema up to date, once. Looks first, which needs no lock, so that a process can begin to read while
    /// another one writes.
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
        // What were written now would be lost, or stand in a file that nobody looks for, and other connections would read
        // another one.
        Err(Error::DatabaseUnavailable(format!(
            "{} is not the file that was opened: it was moved, deleted or replaced; put it back, or restart the service",
            self.path.display()
        )))
    }

    /// Which file is at the path now. Only asked: to open it here and close it again would end SQLite's locks on it.
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

    /// For what may read as much as an event has, one at a time. Scans always find a connection beside it.
    async fn long_reader(&self) -> Result<Lease<Db>> {
        self.open().await?;
        self.readers.lease_long().await
    }

    /// For what counts all that an event has.
    async fn counting_reader(&self) -> Result<Lease<Db>> {
        self.open().await?;
        self.readers.lease_counting().await
    }

    async fn writer(&self) -> Result<Lease<Db>> {
        self.open().await?;
        self.writer.lease().await
    }
}

/// WAL lets readers go on while one writes; `synchronous=FULL` keeps every acknowledged admission through a power cut.
fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // What is erased is overwritten, so that nobody finds it in the file.
        .pragma("secure_delete", "on")
        .row_buffer_size(ROW_BUFFER)
        .disable_statement_logging()
}

/// SQLite's primary result codes that pass by themselves, or with room on the disk: busy, locked, read-only, I/O error,
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
        // Whoever is writing now shows that one can.
        Err(error) if is_busy(&error) => true,
        probe => is_written(probe),
    };
    let file: String = sqlx::query_scalar("select file from pragma_database_list where name = 'main'")
        .fetch_one(&mut *connection)
        .await?;
    let has_room = find_room(Path::new(&file));
    if let Err(error) = &has_room {
        tracing::warn!(%error, "full health check: the disk of the database has no room");
    }
    Ok(Health { writable: writable && has_room.is_ok(), ..look(connection).await? })
}

/// Room for some dozens of scans, on the disk of a file. What SQLite writes first has its place there already.
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

/// What `sp_register_ticket_to_user` does on PostgreSQL, inside the caller's transaction.
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

/// The mark, which does what `fn_mark_ticket_as_used` does on PostgreSQL, and the scan, which is written only when the
/// ticket was marked. Four statements in one message to SQLite's thread: each message costs two changes of thread, here
/// while the file is locked.
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

/// Returns how many scans were written.
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

/// Ends the transaction in which a statement has failed. That may have been `begin` itself, and then there is nothing to take back.
async fn or_rollback<T>(
    connection: &mut SqliteConnection,
    written: std::result::Result<T, sqlx::Error>,
) -> std::result::Result<T, sqlx::Error> {
    if written.is_err() {
        connection.execute("rollback").await.ok();
    }
    written
}

/// Many scans of tickets that are still what was read, and then their marks: a ticket at this version has no scan yet that made the
/// next one, so the one that is there then is ours.
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

/// Returns the ids of the scans that were written. A ticket may be among them once, and an id too.
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

/// Gives a statement what [`asked!`] has.
fn bind_asked<'q>(
    query: sqlx::query::Query<'q, Sqlite, sqlx::sqlite::SqliteArguments>,
    asked: &[Asked],
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

/// Creates those who do not exist yet among the people of an event or of the installation; returns how many.
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

/// The places in the slice of those tickets whose holder is known with another address than they come with, written
/// differently at least, and both addresses.
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

/// Writes tickets, all of them or, when a seat is taken, none. One JSON parameter carries them all: a statement for each
/// would cross to SQLite's thread and back 100,000 times in a large import.
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
            // Not one in another: SQLite reads a path into a value several times as long.
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

/// Gives tickets new seeds: their codes, links and paper are worth nothing any more.
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

/// The places in the slice of those tickets whose seat at their gate has another ticket already, as people read it; those
/// of the `hidden`, which an import is writing, too.
async fn find_taken(
    connection: &mut SqliteConnection,
    event_id: Uuid,
    tickets: &[NewTicket],
    hidden: bool,
) -> std::result::Result<Vec<i64>, sqlx::Error> {
    let row =
        |ticket: &NewTicket| (fold::place(&ticket.seat), fold::place(&ticket.gate), hex(ticket.ticket_id.as_bytes()));
    let rows: Vec<_> = tickets.iter().map(row).collect();
    // `cross`: in this order. SQLite would read all tickets of the event for each import.
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

/// Writes by what tickets are found.
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

/// What an event has much of, the tickets first: they name their holders.
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

/// How long others wait for a transaction of an import, where the machine and the disk let it.
const HELD: Duration = Duration::from_millis(40);

/// One writes at a time, so whoever writes much lets others write for as long as it kept them waiting. Another process
/// is not told when its turn comes: it looks now and then whether the file is free. Returns how many rows to write next
/// by one transaction, after some were written in the time `held`.
async fn give_way(rows: usize, held: Duration) -> usize {
    tokio::time::sleep(held).await;
    if held > HELD { (rows / 2).max(CHUNK / 8) } else { (rows * 2).min(CHUNK) }
}

/// Writes the whole file anew, and leaves nothing in its log, unless somebody is reading: then the next who forgets does. What is
/// deleted is overwritten where it is (`secure_delete`), but not what SQLite left in the gaps of a page when it moved rows.
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

/// SQLite takes the right indexes without statistics.
async fn analyze(_: &mut SqliteConnection) -> Result<()> {
    Ok(())
}

/// An id and a time as a statement reads them in JSON.
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

/// Makes the directory of a file where it is missing, for this user alone: what will be in it makes codes.
pub(crate) fn make_directory_of(file: &Path) -> std::io::Result<()> {
    match file.parent() {
        Some(directory) if directory != Path::new("") => {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
        }
        _ => Ok(()),
    }
}

/// The write-ahead log of a file that is not there. SQLite would delete it with the first look into a new file, and what is in it
/// alone. The log is looked for first: of a new database the file is there before it.
pub(crate) fn log_without_file(file: &Path) -> Option<PathBuf> {
    Some(beside(file, "-wal")).filter(|log| log.exists() && !file.exists())
}

/// What SQLite keeps beside a file: its log, `-wal`, the log's index, `-shm`, or a `-journal`.
pub(crate) fn beside(file: &Path, ending: &str) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(ending);
    path.into()
}

/// Makes the file where it is missing, for this user alone; SQLite gives the files beside it the same rights. One that is there
/// is not opened: whoever closes a file gives up all locks that the process has on it (POSIX), those of SQLite too, and the next
/// other program that looks into the database would delete the write-ahead log from under it.
fn make_file(path: &Path) -> std::io::Result<()> {
    make_directory_of(path)?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
        made => made.map(drop),
    }
}

/// Makes the file and its directory where they are missing, and applies what is missing of the schema in one
/// `begin immediate` transaction, so that a second process waits and then finds everything done.
pub(super) async fn migrate(path: &Path, migrations: &[Migration]) -> Result<Migrated> {
    let unusable = |error: String| Error::DatabaseUnavailable(format!("{}: {error}", path.display()));
    if let Some(log) = log_without_file(path) {
        return Err(unusable(format!(
            "is not there, and {} is, which is a part of it; bring the file back",
            log.display()
        )));
    }
    make_file(path).map_err(|error| unusable(error.to_string()))?;
    // SQLite changes a constraint by a new table in the old one's place. With foreign keys on, dropping the old one would
    // delete whatever refers to it; within a transaction they can no longer be switched off.
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

/// Folds the texts of all tickets of which they are not folded yet, some by one transaction.
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

/// Whether another one is at work on the file: SQLite's primary result code 5.
fn is_busy(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|refusal| refusal.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

/// How long two may be at making the same file.
const MADE: Duration = Duration::from_secs(5);

/// Opens a file that may be new. Of two who give it its write-ahead log at once SQLite tells one that it is busy, without
/// the wait that it has for locks.
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

/// Looks for rows that refer to rows which are not there.
async fn refuse_orphans(connection: &mut SqliteConnection) -> Result<()> {
    let orphans: Option<(i64, String, String)> = sqlx::query_as(
        "select count(*), \"table\", parent from pragma_foreign_key_check group by \"table\", parent limit 1",
    )
    .fetch_optional(connection)
    .await?;
    match orphans {
        None => Ok(()),
        Some((rows, table, parent)) => Err(Error::Internal(format!(
            "migration: nothing was changed, because {rows} rows of {table} would refer to {parent} that are not there"
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

    /// How SQLite reads what a statement asks for.
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
            // Nothing is read from one end to the other but the tickets that were found, and nothing sorted but those.
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
        // As SQLite opens a file that this process may not write.
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
