//! The backup that a service on SQLite takes by itself every day.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::archive::{self, Folder};
use crate::app::App;
use crate::model::Millis;

/// The first requests go first.
const FIRST_LOOK: Duration = Duration::from_secs(1);
/// How long until the next look at most: after a failure, or when a clock was set or a machine slept.
const LOOK_AGAIN: Duration = Duration::from_secs(10 * 60);

/// Takes a backup whenever the newest is a day old, for as long as the service runs. The age is that of the file, so a
/// restart neither skips a backup nor takes another one.
pub async fn run(app: Arc<App>, directory: PathBuf) {
    let mut rest = FIRST_LOOK;
    loop {
        tokio::time::sleep(rest).await;
        rest = match look(&app, &directory).await {
            Ok(rest) => rest.min(LOOK_AGAIN),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "backup failed");
                LOOK_AGAIN
            }
        };
    }
}

/// Returns how long until the next backup is due.
async fn look(app: &App, directory: &Path) -> anyhow::Result<Duration> {
    let until_due = || {
        let newest = archive::newest(directory, archive::SQLITE, app.now())?.map(|(taken_at, _)| taken_at);
        app.metrics.set_backup(newest);
        anyhow::Ok(until_due(newest, app.now()))
    };
    let rest = until_due()?;
    if !rest.is_zero() {
        return Ok(rest);
    }
    // Before the first request there is no database yet.
    if !app.settings.sqlite_file().is_some_and(Path::exists) {
        return Ok(LOOK_AGAIN);
    }
    let Some(folder) = Folder::open(directory)? else { return Ok(LOOK_AGAIN) };
    // Another process, which serves the same file, may have been here since we looked.
    let rest = until_due()?;
    if !rest.is_zero() {
        return Ok(rest);
    }
    let backup = super::take_into(app, &folder, None).await?;
    drop(folder);
    let rest = until_due()?;
    if let Err(error) = backup.follow_up(app).await {
        tracing::error!(error = format!("{error:#}"), "the backup is kept, but");
    }
    Ok(rest)
}

fn until_due(newest: Option<Millis>, now: Millis) -> Duration {
    let due = newest.map_or(now.0, |newest| newest.0 + Millis::DAY);
    Duration::from_millis(u64::try_from(due - now.0).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backup_is_due_a_day_after_the_newest() {
        let now = Millis(1_777_658_400_000);
        assert_eq!(until_due(None, now), Duration::ZERO);
        assert_eq!(until_due(Some(now - Duration::from_hours(24)), now), Duration::ZERO);
        assert_eq!(until_due(Some(now - Duration::from_hours(7 * 24)), now), Duration::ZERO);
        assert_eq!(until_due(Some(now - Duration::from_hours(1)), now), Duration::from_secs(23 * 60 * 60));
    }
}
