//! Backups of the database: taken while the service runs, restored into an empty database, and rehearsed.
//!
//! A file gets the name of a backup only after its content has been read back and found complete. SQLite's copy is checked
//! before it is compressed and read afterwards; PostgreSQL's dump is compressed and restored into a throwaway database.

pub mod archive;
mod postgres;
pub mod regular;
pub mod revived;
mod sqlite;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sqlx::postgres::PgConnectOptions;
use tokio::signal::unix::{SignalKind, signal};

use crate::app::App;
use crate::config::Database;
use crate::model::Millis;
use crate::totp::secret_mark;
use archive::{Folder, Holding};
use revived::{Before, State};

/// How long `BACKUP_COMMAND` may take.
const COMMAND_DEADLINE: Duration = Duration::from_secs(60 * 60);

/// The contents of a database, as counts that a person can compare.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Contents {
    /// The newest applied migration.
    schema_version: Option<i64>,
    events: i64,
    users: i64,
    keys: i64,
    pub tickets: i64,
    pub scans: i64,
    newest_scan: Option<Millis>,
    secret_fingerprint: Option<Vec<u8>>,
    link_salt: Option<Vec<u8>>,
}

/// Reads all of our tables, so that it fails if one is missing.
const CONTENTS: &str = "select (select max(version) from _sqlx_migrations where success) as schema_version, \
    (select count(*) from events) as events, (select count(*) from users) as users, \
    (select count(*) from keys) as keys, (select count(*) from tickets) as tickets, \
    (select count(*) from scans) as scans, (select max(received_at) from scans) as newest_scan, \
    (select value from settings where name = 'ticket_secret') as secret_fingerprint, \
    (select value from settings where name = 'link_salt') as link_salt";

/// The first schema version in which imports are written in hidden batches and changes are numbered.
const HAS_HISTORY: i64 = 4;

/// Deletes the rows of an import that was running when the backup was taken, because it does not continue after a restore.
const FORGET_IMPORTS: &str = "\
    delete from tickets where issue_id in (select issuing from events where issuing is not null); \
    delete from users where issue_id in (select issuing from events where issuing is not null); \
    update events set issuing = null, issuing_since = null where issuing is not null";

/// Flattens a database error to its message, which sqlx would repeat in a chain of causes.
fn said(error: sqlx::Error) -> anyhow::Error {
    anyhow::anyhow!("{error}")
}

impl Contents {
    const fn holding(&self) -> Holding {
        Holding { tickets: self.tickets, scans: self.scans }
    }

    fn is_of_a_history(&self) -> bool {
        self.schema_version >= Some(HAS_HISTORY)
    }

    fn check_schema(&self, known: i64) -> anyhow::Result<()> {
        check_schema(self.schema_version, known)
    }

    /// Returns whether a database with these contents works with our `TICKET_SECRET`.
    pub fn secret_fit(&self, app: &App) -> SecretFit {
        match &self.secret_fingerprint {
            None => SecretFit::Unused,
            Some(_) if app.checked_secret(self.secret_fingerprint.as_deref()).is_ok() => SecretFit::Fits,
            Some(_) if app.settings.ticket_secret.is_none() => SecretFit::NotSet,
            Some(_) => SecretFit::Differs,
        }
    }

    /// Returns what `/health?full=1` shows for this database with its right `TICKET_SECRET`, without needing that.
    fn secret_mark(&self) -> Option<String> {
        Some(secret_mark(self.secret_fingerprint.as_ref()?, self.link_salt.as_ref()?))
    }

    /// Describes the contents, one fact per line.
    pub fn describe(&self, app: &App) -> String {
        let newest_scan = self.newest_scan.map_or_else(|| "none".to_owned(), |time| time.to_string());
        let facts = [
            ("schema version", self.schema_version.unwrap_or_default().to_string()),
            ("events", self.events.to_string()),
            ("users", self.users.to_string()),
            ("keys", self.keys.to_string()),
            ("tickets", self.tickets.to_string()),
            ("scans", self.scans.to_string()),
            ("newest scan", newest_scan),
            ("TICKET_SECRET", self.secret_fit(app).as_str().to_owned()),
            ("secret mark", self.secret_mark().unwrap_or_else(|| "none".to_owned())),
        ];
        facts.map(|(name, value)| format!("{name:16}{value}")).join("\n")
    }
}

/// Rejects schemas of later releases. This release could not restore them, so it does not back them up either.
fn check_schema(found: Option<i64>, known: i64) -> anyhow::Result<()> {
    let found = found.context("has no schema version: run `register-ticket-api migrate` on the database once")?;
    anyhow::ensure!(
        found <= known,
        "has schema version {found}, which is from a later release; this one supports at most {known}"
    );
    Ok(())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFit {
    /// No ticket has been registered yet.
    Unused,
    Fits,
    NotSet,
    Differs,
}

impl SecretFit {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Unused => "not in use yet",
            Self::Fits => "fits",
            Self::NotSet => "cannot be verified: it is not set here, and these tickets were made with one",
            Self::Differs => "does not fit: these tickets were made with another one, or without one",
        }
    }
}

/// A completed backup.
pub struct Backup {
    pub path: PathBuf,
    pub bytes: u64,
    pub elapsed: Duration,
    pub contents: Contents,
    /// The previous backup, if it holds far more.
    pub before: Option<(PathBuf, Holding)>,
    pruned: anyhow::Result<()>,
}

fn at_work(directory: &Path) -> anyhow::Error {
    anyhow::anyhow!("{}: another backup or restore is running there", directory.display())
}

/// Backs up the database to a directory.
pub async fn take(app: &App, directory: &Path, scratch: Option<&PgConnectOptions>) -> anyhow::Result<Backup> {
    let folder = Folder::open(directory)?.ok_or_else(|| at_work(directory))?;
    take_into(app, &folder, scratch).await
}

async fn take_into(app: &App, folder: &Folder, scratch: Option<&PgConnectOptions>) -> anyhow::Result<Backup> {
    let (started, now) = (Instant::now(), app.now());
    let ending = match &app.settings.database {
        Database::Sqlite(_) => archive::SQLITE,
        Database::Postgres { .. } => archive::POSTGRES,
    };
    let before = folder.newest(ending, now)?;
    let (path, contents) = match &app.settings.database {
        Database::Sqlite(database) => sqlite::back_up(database, folder, now).await?,
        Database::Postgres { owner, .. } => postgres::back_up(owner, scratch.unwrap_or(owner), folder, now).await?,
    };
    let before = before.filter(|(_, holds)| contents.holding().is_far_below(*holds));
    let elapsed = started.elapsed();
    // Old backups are deleted only after the new one exists. One without tickets, as of a wrong path, replaces none.
    let pruned = if contents.tickets == 0 { Ok(()) } else { folder.prune(now, ending) };
    let backup = Backup { bytes: path.metadata()?.len(), elapsed, path, contents, before, pruned };
    tracing::info!(
        file = %backup.path.display(),
        bytes = backup.bytes,
        ms = backup.elapsed.as_secs_f64() * 1_000.0,
        tickets = backup.contents.tickets,
        scans = backup.contents.scans,
        "backup taken"
    );
    if let Some(warning) = backup.warning() {
        tracing::warn!("{warning}");
    }
    Ok(backup)
}

impl Backup {
    /// Returns a warning that should be looked into before the previous backup is deleted.
    pub fn warning(&self) -> Option<String> {
        let (path, holds) = self.before.as_ref()?;
        let (Holding { tickets, scans }, now) = (*holds, self.contents.holding());
        Some(format!(
            "this backup holds {} tickets and {} scans, but the previous one {tickets} and {scans}: was something deleted? \
             The previous one is kept for a week: {}",
            now.tickets,
            now.scans,
            path.display()
        ))
    }

    /// Runs `BACKUP_COMMAND`, then reports a failure of either the removal of old backups or the command.
    pub async fn follow_up(self, app: &App) -> anyhow::Result<()> {
        let sent = send(app, &self.path).await;
        self.pruned.context("cannot remove old backups")?;
        sent
    }
}

/// Runs `BACKUP_COMMAND` with the path of a backup as its last argument. The backup stays even if the command fails.
async fn send(app: &App, backup: &Path) -> anyhow::Result<()> {
    let Some(command) = &app.settings.backup_command else { return Ok(()) };
    let mut words = command.split_whitespace();
    let program = words.next().unwrap_or_default();
    let mut child = tokio::process::Command::new(program)
        .args(words)
        .arg(backup)
        .stdin(Stdio::null())
        // Standard output is reserved for our own lines.
        .stdout(std::io::stderr())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("BACKUP_COMMAND: {program}"))?;
    let status = tokio::time::timeout(COMMAND_DEADLINE, child.wait()).await;
    let status = status.context("BACKUP_COMMAND: did not finish within an hour")??;
    anyhow::ensure!(status.success(), "BACKUP_COMMAND: {status}");
    app.metrics.set_backup_sent(app.now());
    Ok(())
}

/// Runs work that needs a clean-up. A stop signal ends it with an error instead of ending the process.
pub async fn unless_stopped<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        outcome = work => outcome,
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped")),
        _ = interrupt.recv() => Err(anyhow::anyhow!("stopped")),
    }
}

/// Runs file operations on a thread for blocking work.
async fn unblocked<T: Send + 'static>(work: impl FnOnce() -> anyhow::Result<T> + Send + 'static) -> anyhow::Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// The format of a backup file, detected from its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// A compressed SQLite database.
    Sqlite,
    /// The output of `pg_dump --format=custom`, with or without gzip around it.
    Postgres,
}

pub fn format_of(file: &Path) -> anyhow::Result<Format> {
    read_format(file).with_context(|| file.display().to_string())
}

fn read_format(file: &Path) -> anyhow::Result<Format> {
    let mut start = Vec::new();
    archive::reader(file)?.take(15).read_to_end(&mut start)?;
    match &*start {
        [b'P', b'G', b'D', b'M', b'P', ..] => Ok(Format::Postgres),
        // An uncompressed database may lack the content of its write-ahead log.
        b"SQLite format 3" if archive::is_compressed(file)? => Ok(Format::Sqlite),
        _ => anyhow::bail!("is neither a compressed SQLite database nor a PostgreSQL dump"),
    }
}

/// Restores a backup into the configured database, which must be empty.
pub async fn restore(app: &App, file: &Path) -> anyhow::Result<Contents> {
    match (format_of(file)?, &app.settings.database) {
        (Format::Sqlite, Database::Sqlite(target)) => sqlite::restore(file, target).await,
        (Format::Postgres, Database::Postgres { .. }) => postgres::restore(file, &app.settings.database).await,
        (Format::Sqlite, Database::Postgres { .. }) => {
            anyhow::bail!("{} is a backup of SQLite, and the database is PostgreSQL", file.display())
        }
        (Format::Postgres, Database::Sqlite(_)) => {
            anyhow::bail!("{} is a backup of PostgreSQL, and the database is SQLite", file.display())
        }
    }
}

/// Reads the parts of a database that a restored backup may make valid again.
pub async fn read_state(database: &Database) -> anyhow::Result<State> {
    match database {
        Database::Sqlite(file) => sqlite::read_state(file).await.with_context(|| file.display().to_string()),
        Database::Postgres { owner, .. } => postgres::read_state(owner).await,
    }
}

/// Copies keys of the previous database that the restored one lacks, as revoked keys, so that the unsent scans of their devices
/// can still be accepted.
pub async fn keep_ended(database: &Database, before: State, now: Millis) -> anyhow::Result<Before> {
    let kept = match database {
        Database::Sqlite(file) => sqlite::keep_ended(file, &before, now).await?,
        Database::Postgres { owner, .. } => postgres::keep_ended(owner, &before, now).await?,
    };
    Ok(Before { state: before, kept })
}

pub use postgres::in_scratch;
