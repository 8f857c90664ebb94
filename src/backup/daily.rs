//! The backup that a service on SQLite takes by itself every day.

use std::path::PathBuf;
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
async fn look(app: &App, directory: &PathBuf) -> anyhow::Result<Duration> {
    let newest = || anyhow::Ok(archive::newest(directory, archive::SQLITE, app.now())?.map(|(taken_at, _)| taken_at));
    let known = newest()?;
    app.metrics.set_backup(known);
    let rest = until_due(known, app.now());
    // Before the first request there is no database yet.
    if !rest.is_zero() || !app.settings.sqlite_file().is_some_and(|file| file.exists()) {
        return Ok(if rest.is_zero() { LOOK_AGAIN } else { rest });
    }
    // Another process, which serves the same file, may be about it, or have done it since.
    let Some(folder) = Folder::open(directory)? else { return Ok(LOOK_AGAIN) };
    let rest = until_due(newest()?, app.now());
    if !rest.is_zero() {
        return Ok(rest);
    }
    let backup = super::take_into(app, &folder, None).await?;
    drop(folder);
    app.metrics.set_backup(newest()?);
    if let Err(error) = backup.follow_up(app).await {
        tracing::error!(error = format!("{error:#}"), "the backup is there, but");
    }
    Ok(until_due(newest()?, app.now()))
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
        assert_eq!(until_due(Some(now.plus(-Millis::DAY)), now), Duration::ZERO);
        assert_eq!(until_due(Some(now.plus(-7 * Millis::DAY)), now), Duration::ZERO);
        assert_eq!(until_due(Some(now.plus(-Millis::HOUR)), now), Duration::from_secs(23 * 60 * 60));
    }
}
