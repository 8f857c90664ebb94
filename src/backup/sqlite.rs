//! Backups of SQLite: copying a database that is in use, and inspecting one that is not.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use uuid::Uuid;

use super::archive::{self, Folder};
use super::revived::{
    FORMER, KEEP_KEY, KEEP_MANIFEST, KEEP_SECRET, KEYS, MANIFESTS, State, TICKETS, USERS, keep_ended, state_of,
};
use super::{CONTENTS, Contents, FORGET_IMPORTS, at_work, said, unblocked};
use crate::model::Millis;
use crate::store::{beside, sqlite_schema};

/// Gates may have lists that are newer than the restored database, so it begins a new history of changes.
const BEGIN_HISTORY: &str = "update settings set value = randomblob(4) where name = 'history'";

const HAS_FORMER: &str = "select exists (select 1 from sqlite_schema where name = 'former_secrets')";

/// How long the copy waits until it can begin to read; readers and writers go on while it reads.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// Copies a consistent state of a database that others may be writing to, and compresses the copy after checking that it
/// is intact.
pub async fn back_up(database: &Path, folder: &Folder, taken_at: Millis) -> anyhow::Result<(PathBuf, Contents)> {
    let copy = folder.unfinished()?;
    // SQLite's error does not say which file is missing.
    fs::metadata(database).with_context(|| database.display().to_string())?;
    copy_into(database, &copy.0)
        .await
        .with_context(|| format!("copying {} to {}", database.display(), copy.0.display()))?;
    let contents = inspect(&copy.0).await.context("the copy")?;
    let compressed = folder.unfinished()?;
    let (from, to) = (copy.0.clone(), compressed.0.clone());
    let holds = Some(contents.holding());
    unblocked(move || archive::compress(&from, &to, holds)).await.context("compressing the copy")?;
    Ok((folder.keep(compressed, taken_at, archive::SQLITE)?, contents))
}

async fn copy_into(database: &Path, copy: &Path) -> anyhow::Result<()> {
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(BUSY_TIMEOUT).disable_statement_logging();
    let mut connection = options.connect().await.map_err(said)?;
    let name = copy.to_str().context("the directory's name is not UTF-8")?;
    sqlx::query("vacuum into $1").bind(name).execute(&mut connection).await.map_err(said)?;
    connection.close().await?;
    let copy = fs::OpenOptions::new().write(true).open(copy)?;
    unblocked(move || Ok(copy.sync_all()?)).await
}

/// Checks that a file nobody writes to is an intact database of ours, and returns its contents. Changes nothing.
async fn inspect(file: &Path) -> anyhow::Result<Contents> {
    let options =
        SqliteConnectOptions::new().filename(file).read_only(true).immutable(true).disable_statement_logging();
    let mut connection = options.connect().await.map_err(said)?;
    let flaw: String =
        sqlx::query_scalar("pragma integrity_check(1)").fetch_one(&mut connection).await.map_err(said)?;
    anyhow::ensure!(flaw == "ok", "is damaged: {flaw}");
    let orphans: i64 = sqlx::query_scalar("select count(*) from pragma_foreign_key_check")
        .fetch_one(&mut connection)
        .await
        .map_err(said)?;
    anyhow::ensure!(orphans == 0, "is damaged: {orphans} rows refer to rows that do not exist");
    let contents: Contents = sqlx::query_as(CONTENTS)
        .fetch_one(&mut connection)
        .await
        .map_err(said)
        .context("is not a database of this service")?;
    contents.check_schema(sqlite_schema())?;
    connection.close().await?;
    Ok(contents)
}

/// Reads the state that a restore can bring back. Includes the write-ahead log beside the file, and migrates nothing.
pub async fn read_state(file: &Path) -> anyhow::Result<State> {
    let options = SqliteConnectOptions::new().filename(file).read_only(true).disable_statement_logging();
    let mut connection = options.connect().await.map_err(said)?;
    let state = state_of!(&mut connection, HAS_FORMER);
    connection.close().await?;
    Ok(state)
}

/// Stores the keys that another database has and this restored one lacks, as revoked.
pub async fn keep_ended(file: &Path, before: &State, now: Millis) -> anyhow::Result<HashSet<Uuid>> {
    let options = SqliteConnectOptions::new().filename(file).disable_statement_logging();
    let mut connection = options.connect().await.map_err(said)?;
    let mut transaction = connection.begin().await.map_err(said)?;
    let kept = keep_ended!(&mut *transaction, before, now, HAS_FORMER);
    transaction.commit().await.map_err(said)?;
    connection.close().await?;
    Ok(kept)
}

/// Restores a backup to a path where no database exists.
pub async fn restore(backup: &Path, target: &Path) -> anyhow::Result<Contents> {
    refuse_existing(target)?;
    let directory = target.parent().unwrap_or(Path::new(""));
    let folder = Folder::open(directory)?.ok_or_else(|| at_work(directory))?;
    let restored = folder.unfinished()?;
    let (from, to) = (backup.to_owned(), restored.0.clone());
    let unpacked = unblocked(move || archive::decompress(&from, &to)).await;
    unpacked.with_context(|| format!("unpacking {} for {}", backup.display(), target.display()))?;
    let contents = inspect(&restored.0).await.with_context(|| backup.display().to_string())?;
    let contents = if contents.is_of_a_history() { begin_anew(&restored.0).await? } else { contents };
    refuse_existing(target)?;
    folder.keep_as(&restored, target)?;
    drop(restored);
    let placed = inspect(target).await.with_context(|| target.display().to_string())?;
    anyhow::ensure!(placed == contents, "{}: differs from the backup", target.display());
    Ok(contents)
}

/// Deletes the hidden rows of imports, begins a new history, and returns the remaining contents.
async fn begin_anew(file: &Path) -> anyhow::Result<Contents> {
    let options = SqliteConnectOptions::new().filename(file).disable_statement_logging();
    let mut connection = options.connect().await.map_err(said)?;
    let mut transaction = connection.begin().await.map_err(said)?;
    for statements in [FORGET_IMPORTS, BEGIN_HISTORY] {
        sqlx::raw_sql(statements).execute(&mut *transaction).await.map_err(said)?;
    }
    transaction.commit().await.map_err(said)?;
    connection.close().await?;
    inspect(file).await
}

/// A leftover write-ahead log or journal would be taken for a part of the restored database.
fn refuse_existing(target: &Path) -> anyhow::Result<()> {
    for ending in ["", "-wal", "-shm", "-journal"] {
        let path = beside(target, ending);
        // A dangling symbolic link counts as existing, too.
        anyhow::ensure!(
            fs::symlink_metadata(&path).is_err(),
            "{} exists; stop the service and move the old database away, with its -wal and -shm files, then name it with --before",
            path.display()
        );
    }
    Ok(())
}
