//! Backups of PostgreSQL: its own programs dump and load, and a dump is kept only after a throwaway database was restored
//! from it. The dump format has no checksum, so the dump is compressed here: gzip's checksum detects later changes.
//! Passwords reach the programs through the environment, which other users of the machine cannot read.

use std::collections::HashSet;
use std::io::{self, BufRead, BufReader, ErrorKind, PipeReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context as _;
use percent_encoding::percent_decode_str;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};
use tokio::process::Command;
use uuid::Uuid;

use super::archive::{self, Folder};
use super::revived::{
    FORMER, KEEP_KEY, KEEP_MANIFEST, KEEP_SECRET, KEYS, MANIFESTS, State, TICKETS, USERS, keep_ended, state_of,
};
use super::{CONTENTS, Contents, FORGET_IMPORTS, check_schema, said, unblocked, unless_stopped};
use crate::config::{Database, for_a_url};
use crate::model::Millis;
use crate::store::{self, postgres_schema};

/// Gates may have lists that are newer than the restored database, so it begins a new history of changes, numbered by the
/// transactions of this server.
const BEGIN_HISTORY: &str = "\
    update settings set value = decode(left(replace(gen_random_uuid()::text, '-', ''), 8), 'hex') where name = 'history'; \
    update tickets set change = null; update actions set change = null where change is not null";

const HAS_FORMER: &str = "select to_regclass('former_secrets') is not null";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Dumps a consistent state of a database that others may be writing to, and keeps the dump once a database on the
/// scratch server was restored from it.
pub async fn back_up(
    owner: &PgConnectOptions,
    scratch: &PgConnectOptions,
    folder: &Folder,
    taken_at: Millis,
) -> anyhow::Result<(PathBuf, Contents)> {
    let dump = folder.unfinished()?;
    let mut program = program("pg_dump", owner);
    program.args(["--format=custom", "--compress=0", "--lock-wait-timeout=10s"]);
    program.args(["--no-owner", "--no-privileges", "--no-comments"]);
    succeed(program.arg("--file").arg(&dump.0)).await?;
    let compressed = folder.unfinished()?;
    let (from, to) = (dump.0.clone(), compressed.0.clone());
    unblocked(move || archive::compress(&from, &to, None)).await.context("compressing the dump")?;
    drop(dump);
    check(&compressed.0).await.context("the dump")?;
    let restored = in_scratch(scratch, async |scratch| {
        load(&compressed.0, &scratch).await?;
        inspect(&scratch).await
    });
    let contents = restored.await.context("restoring the dump into a throwaway database")?;
    Ok((folder.keep(compressed, taken_at, archive::POSTGRES)?, contents))
}

/// Restores a backup into a database without data, migrates the schema to this release and grants the service its privileges.
pub async fn restore(file: &Path, database: &Database) -> anyhow::Result<Contents> {
    let Database::Postgres { owner, .. } = database else { unreachable!("the caller looked") };
    check(file).await.with_context(|| file.display().to_string())?;
    make_room(owner).await?;
    load(file, owner).await.with_context(|| file.display().to_string())?;
    let contents = inspect(owner).await?;
    let contents = if contents.is_of_a_history() { begin_anew(owner).await? } else { contents };
    store::migrate(database).await?;
    store::reapply(database).await.context("granting the service its privileges")?;
    // The migrations add what an older backup lacks.
    let mut served = Contents { schema_version: contents.schema_version, ..inspect(owner).await? };
    served.link_salt = served.link_salt.filter(|_| contents.link_salt.is_some());
    anyhow::ensure!(served == contents, "the database differs from the backup");
    Ok(contents)
}

/// Checks a backup to its end, without a server: it must be intact, and of a known schema.
async fn check(file: &Path) -> anyhow::Result<()> {
    let file = file.to_owned();
    let check = move || {
        // Detects a file that was altered after compression, before PostgreSQL's programs read it.
        io::copy(&mut archive::reader(&file)?, &mut io::sink())?;
        let mut program = std::process::Command::new("pg_restore");
        let program = program.arg("--file=-").stdin(dump(&file)?).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = program.spawn().map_err(|error| missing("pg_restore", error))?;
        let script = child.stdout.take().context("pg_restore has no output")?;
        let schema_version = schema_of(BufReader::new(script));
        let ended = child.wait_with_output()?;
        anyhow::ensure!(ended.status.success(), "{}", words(&ended.stderr));
        check_schema(schema_version?, postgres_schema())
    };
    unblocked(check).await
}

/// Opens a dump as the input of a program, which reads as much as it needs, and reports itself if that is missing.
fn dump(file: &Path) -> io::Result<PipeReader> {
    let mut dump = archive::reader(file)?;
    let (output, mut input) = io::pipe()?;
    // The thread ends with the program at the latest.
    std::thread::spawn(move || io::copy(&mut dump, &mut input));
    Ok(output)
}

/// Finds the newest migration in an SQL script of `pg_dump`, and the line that ends every complete script.
fn schema_of(mut script: impl BufRead) -> anyhow::Result<Option<i64>> {
    let (mut newest, mut among_migrations, mut complete) = (None, false, false);
    let mut line = Vec::new();
    while script.read_until(b'\n', &mut line)? > 0 {
        if among_migrations {
            let version = line.split(|byte| *byte == b'\t').next().and_then(|version| str::from_utf8(version).ok());
            newest = newest.max(version.and_then(|version| version.parse().ok()));
            among_migrations = !line.starts_with(b"\\.");
        } else {
            among_migrations = line.starts_with(b"COPY public._sqlx_migrations (version,");
            complete |= line.starts_with(b"-- PostgreSQL database dump complete");
        }
        line.clear();
    }
    anyhow::ensure!(complete, "is truncated, or not a script of pg_dump");
    Ok(newest)
}

/// Rejects a database with data of ours; drops tables of ours without data, such as `migrate` creates.
async fn make_room(owner: &PgConnectOptions) -> anyhow::Result<()> {
    const TABLES: [&str; 9] =
        ["scans", "former_secrets", "keys", "tickets", "users", "actions", "events", "settings", "_sqlx_migrations"];
    let mut connection = connect(owner).await?;
    let mut transaction = connection.begin().await?;
    for table in TABLES {
        let exists: bool = sqlx::query_scalar("select to_regclass('public.' || $1) is not null")
            .bind(table)
            .fetch_one(&mut *transaction)
            .await?;
        if !exists {
            continue;
        }
        // The lock is held until the table is dropped, so nobody can fill it after this check.
        let lock = format!("lock table public.{table} in access exclusive mode");
        sqlx::raw_sql(AssertSqlSafe(lock)).execute(&mut *transaction).await?;
        let rows = match table {
            "_sqlx_migrations" => continue,
            "events" => "select exists (select from public.events where slug <> 'default')".to_owned(),
            "settings" => {
                "select exists (select from public.settings where name not in ('link_salt', 'history'))".to_owned()
            }
            _ => format!("select exists (select from public.{table})"),
        };
        let holds: bool = sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut *transaction).await?;
        let database = owner.get_database().unwrap_or(owner.get_username());
        anyhow::ensure!(!holds, "the database {database} already has rows in {table}; restore into an empty one");
    }
    let tables = TABLES.map(|table| format!("public.{table}")).join(", ");
    let routines = "sp_register_ticket_to_user, fn_mark_ticket_as_used, fn_analyze_tickets, fn_forget_search, \
                    fn_number_change";
    let drop = format!("drop table if exists {tables}; drop routine if exists {routines}");
    sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *transaction).await?;
    transaction.commit().await?;
    Ok(connection.close().await?)
}

/// Restores the tables of a backup into a database that lacks them. Only the schema `public`: managed servers add schemas
/// and extensions of their own to each database, which other servers do not have.
async fn load(file: &Path, into: &PgConnectOptions) -> anyhow::Result<()> {
    let database = into.get_database().unwrap_or(into.get_username());
    let mut program = program("pg_restore", into);
    program.args(["--schema=public", "--no-owner", "--no-privileges", "--no-comments", "--single-transaction"]);
    succeed(program.args(["--exit-on-error", "--dbname", database]).stdin(dump(file)?)).await
}

/// Returns the contents of a database.
async fn inspect(options: &PgConnectOptions) -> anyhow::Result<Contents> {
    let mut connection = connect(options).await?;
    let contents: Contents = sqlx::query_as(CONTENTS)
        .fetch_one(&mut connection)
        .await
        .map_err(said)
        .context("is not a database of this service")?;
    contents.check_schema(postgres_schema())?;
    connection.close().await?;
    Ok(contents)
}

/// Deletes the hidden rows of imports, begins a new history, and returns the remaining contents.
async fn begin_anew(options: &PgConnectOptions) -> anyhow::Result<Contents> {
    let mut connection = connect(options).await?;
    let mut transaction = connection.begin().await.map_err(said)?;
    for statements in [FORGET_IMPORTS, BEGIN_HISTORY] {
        sqlx::raw_sql(statements).execute(&mut *transaction).await.map_err(said)?;
    }
    transaction.commit().await.map_err(said)?;
    connection.close().await?;
    inspect(options).await
}

/// Reads the state that a restore can bring back.
pub async fn read_state(options: &PgConnectOptions) -> anyhow::Result<State> {
    let mut connection = connect(options).await?;
    let state = state_of!(&mut connection, HAS_FORMER);
    connection.close().await?;
    Ok(state)
}

/// Stores the keys that another database has and this restored one lacks, as revoked.
pub async fn keep_ended(options: &PgConnectOptions, before: &State, now: Millis) -> anyhow::Result<HashSet<Uuid>> {
    let mut connection = connect(options).await?;
    let mut transaction = connection.begin().await.map_err(said)?;
    let kept = keep_ended!(&mut *transaction, before, now, HAS_FORMER);
    transaction.commit().await.map_err(said)?;
    connection.close().await?;
    Ok(kept)
}

/// Runs `work` in a new database, which is dropped whatever the outcome, also on a stop signal.
pub async fn in_scratch<T>(
    server: &PgConnectOptions,
    work: impl AsyncFnOnce(PgConnectOptions) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let name = format!("register_ticket_api_scratch_{}", Uuid::new_v4().simple());
    execute(server, format!("create database {name} template template0"))
        .await
        .context("creating a throwaway database; --scratch-url names another server or login")?;
    let outcome = unless_stopped(work(server.clone().database(&name))).await;
    let dropped = execute(server, format!("drop database {name} with (force)")).await;
    match dropped.with_context(|| format!("the throwaway database {name} was not dropped")) {
        Ok(()) => outcome,
        Err(remains) => match outcome {
            Ok(_) => Err(remains),
            Err(error) => Err(error.context(format!("{remains:#}"))),
        },
    }
}

async fn execute(server: &PgConnectOptions, statement: String) -> anyhow::Result<()> {
    let mut connection = connect(server).await?;
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await.map_err(said)?;
    Ok(connection.close().await?)
}

async fn connect(options: &PgConnectOptions) -> anyhow::Result<PgConnection> {
    let options = options.clone().disable_statement_logging();
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, options.connect()).await;
    connected.context("PostgreSQL does not answer")?.map_err(said).context("connecting to PostgreSQL")
}

/// Prepares one of PostgreSQL's programs, with its server in the environment.
fn program(name: &str, options: &PgConnectOptions) -> Command {
    let mut program = Command::new(name);
    let url = for_a_url(options).to_url_lossy();
    let host = options.get_socket().map_or_else(|| options.get_host().into(), |socket| socket.clone().into_os_string());
    program.env("PGHOST", host).env("PGPORT", options.get_port().to_string()).env("PGUSER", options.get_username());
    program.env("PGDATABASE", options.get_database().unwrap_or(options.get_username()));
    program.env("PGCONNECT_TIMEOUT", CONNECT_TIMEOUT.as_secs().to_string());
    if let Some(password) = url.password() {
        program.env("PGPASSWORD", percent_decode_str(password).decode_utf8_lossy().as_ref());
    }
    for (parameter, value) in url.query_pairs() {
        let variable = match &*parameter {
            "sslmode" => "PGSSLMODE",
            "sslrootcert" => "PGSSLROOTCERT",
            "sslcert" => "PGSSLCERT",
            "sslkey" => "PGSSLKEY",
            _ => continue,
        };
        // sqlx marks a file in this way, as opposed to the certificate itself.
        program.env(variable, value.strip_prefix("file: ").unwrap_or(&value));
    }
    // libpq trusts no authority by default, sqlx Mozilla's list: the system's list comes close. libpq 16 and newer support it.
    if matches!(options.get_ssl_mode(), PgSslMode::VerifyFull)
        && !url.query_pairs().any(|(name, _)| name == "sslrootcert")
    {
        program.env("PGSSLROOTCERT", "system");
    }
    program.arg("--no-password").stdin(Stdio::null()).kill_on_drop(true);
    program
}

/// Runs a program, and returns its error output as an error if it fails.
async fn succeed(program: &mut Command) -> anyhow::Result<()> {
    let name = program.as_std().get_program().to_string_lossy().into_owned();
    let ended = program.output().await.map_err(|error| missing(&name, error))?;
    anyhow::ensure!(ended.status.success(), "{}", words(&ended.stderr));
    Ok(())
}

fn missing(program: &str, error: io::Error) -> anyhow::Error {
    let advice = "; install PostgreSQL's client programs, of the server's version or newer";
    let advice = if error.kind() == ErrorKind::NotFound { advice } else { "" };
    anyhow::anyhow!("{program}: {error}{advice}")
}

/// Joins a program's error output into one line.
fn words(errors: &[u8]) -> String {
    String::from_utf8_lossy(errors).split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCRIPT: &str = "\
--
-- PostgreSQL database dump
--
COPY public._sqlx_migrations (version, description, installed_on) FROM stdin;
1\tcreate tables\t2026-05-01
3\tgrant ticket_service\t2026-05-01
2\tcreate ticket stored procedures\t2026-05-01
\\.

COPY public.users (user_id, username) FROM stdin;
9\tana
\\.
--
-- PostgreSQL database dump complete
--
";

    #[test]
    fn a_script_tells_its_newest_migration() {
        assert_eq!(schema_of(SCRIPT.as_bytes()).unwrap(), Some(3));
        let without = SCRIPT.replace("_sqlx_migrations", "others");
        assert_eq!(schema_of(without.as_bytes()).unwrap(), None);
    }

    #[test]
    fn postgresqls_programs_are_told_of_any_host() {
        let options = PgConnectOptions::new_without_pgpass().host("::1").username("ana").password("c@d");
        let program = program("pg_dump", &options);
        let told = |name: &str| program.as_std().get_envs().find(|(known, _)| *known == name)?.1?.to_str();
        assert_eq!([told("PGHOST"), told("PGUSER"), told("PGPASSWORD")], [Some("::1"), Some("ana"), Some("c@d")]);
    }

    #[test]
    fn a_script_that_breaks_off_is_refused_wherever_it_does() {
        let end = SCRIPT.find("-- PostgreSQL database dump complete").unwrap();
        for length in 0..end {
            schema_of(&SCRIPT.as_bytes()[..length]).unwrap_err();
        }
    }
}
