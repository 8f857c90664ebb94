//! The backups that a service on SQLite takes by itself: one a day, and one a minute while people are scanned.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant, UNIX_EPOCH};

use tokio::task::JoinHandle;

use super::archive::{self, Folder};
use crate::app::{App, BackupFailures};
use crate::model::Millis;
use crate::store::beside;

/// The delay before the first check, so that it does not slow down the first requests.
const FIRST_LOOK: Duration = Duration::from_secs(1);
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The longest delay until the next try if the directory is in use or a backup failed.
const TRY_AGAIN: Duration = Duration::from_secs(10 * 60);
/// The maximum age of the newest backup: later changes are lost with the machine.
const DAY: Duration = Duration::from_hours(24);
/// The maximum age once somebody was scanned. With the interval of checks and the duration of a backup, it amounts to a minute.
const NEARLY_A_MINUTE: Duration = Duration::from_secs(45);
/// The pause after a backup, as a multiple of its duration: a large database must not be copied all the time.
const REST: u32 = 20;

/// The maximum age of the newest backup for the full health check, once the service has run for a while: a day, and an hour to
/// take it.
const STALE: Duration = Duration::from_hours(25);
const RUNNING: Duration = Duration::from_secs(10 * 60);
/// How long `BACKUP_COMMAND` may run before the full health check reports it.
const LATE: Duration = Duration::from_secs(5 * 60);

/// Fails if the backups in a directory are not reliable, for the full health check. Before the first backup nothing is wrong.
/// `is_empty`: the database has never been used.
pub fn check(app: &App, directory: &Path, is_empty: bool) -> anyhow::Result<()> {
    let BackupFailures { taking, sending, sending_since } = &app.backups;
    anyhow::ensure!(!taking.load(Ordering::Relaxed), "the last backup failed");
    anyhow::ensure!(!sending.load(Ordering::Relaxed), "BACKUP_COMMAND failed for the last backup");
    let since = *sending_since.lock().unwrap_or_else(PoisonError::into_inner);
    let is_late = since.is_some_and(|since| since.elapsed() > LATE);
    anyhow::ensure!(!is_late, "BACKUP_COMMAND has been running for more than five minutes");
    if is_empty && let Some(full) = archive::newest_with_tickets(directory)? {
        anyhow::bail!("the database is empty, but {} contains tickets: see `restore`", full.display());
    }
    let Some((taken_at, file)) = archive::newest(directory, archive::SQLITE, app.now())? else { return Ok(()) };
    anyhow::ensure!(archive::is_compressed(&file)?, "the newest backup, {}, cannot be read", file.display());
    let is_stale = app.started.elapsed() > RUNNING && is_older(Some(taken_at), STALE, app.now());
    anyhow::ensure!(!is_stale, "the newest backup, {}, is more than 25 hours old", file.display());
    Ok(())
}

/// The service, and the state of its backups.
struct Regular {
    app: Arc<App>,
    directory: PathBuf,
    /// The number of scans this process had decided when the newest backup began. `None` if scans of an earlier process
    /// may be missing in it.
    kept_scans: Option<u64>,
    /// The newest backup until its sending begins, and when to send it.
    unsent: Option<(PathBuf, Instant)>,
    /// Returns the backup if it could not be sent.
    sending: Option<JoinHandle<Option<PathBuf>>>,
}

/// Takes a backup whenever the newest is too old, for as long as the service runs. The age is that of the file, so a
/// restart neither skips a backup nor takes an extra one. `is_behind` is the result of [`is_behind`] before the first
/// request.
pub async fn run(app: Arc<App>, directory: PathBuf, is_behind: bool) {
    let kept_scans = Some(0).filter(|_| !is_behind);
    let mut regular = Regular { app, directory, kept_scans, unsent: None, sending: None };
    let mut rest = FIRST_LOOK;
    let mut failures = Failures::default();
    loop {
        tokio::time::sleep(rest).await;
        rest = LOOK_AGAIN;
        if failures.permit(regular.has_new_scans()) {
            let begun = Instant::now();
            match regular.look().await {
                Ok(Some(next)) => {
                    (rest, failures) = (next, Failures::default());
                    regular.app.backups.taking.store(false, Ordering::Relaxed);
                }
                Ok(None) => {
                    tracing::warn!("another process uses BACKUP_DIR; trying again later");
                    failures.add(begun.elapsed());
                }
                Err(error) => {
                    tracing::error!(error = format!("{error:#}"), "backup failed");
                    failures.add(begun.elapsed());
                    regular.app.backups.taking.store(true, Ordering::Relaxed);
                }
            }
        }
        regular.send().await;
    }
}

/// The tries that failed since the last one that did not.
#[derive(Default)]
struct Failures {
    count: u32,
    /// When the last one ended, and how long it took.
    last: Option<(Instant, Duration)>,
}

impl Failures {
    fn add(&mut self, took: Duration) {
        (self.count, self.last) = (self.count + 1, Some((Instant::now(), took)));
    }

    /// Whether the next try is due. Asked anew at each look, because people may be scanned meanwhile.
    fn permit(&self, has_new_scans: bool) -> bool {
        self.last.is_none_or(|(ended, took)| ended.elapsed() >= rest_after_failure(has_new_scans, took, self.count))
    }
}

/// Whether an earlier process may have decided scans that are in no backup.
pub fn is_behind(app: &App, directory: &Path) -> bool {
    let Ok(Some((newest, _))) = archive::newest(directory, archive::SQLITE, app.now()) else { return false };
    let newest = UNIX_EPOCH + Duration::from_millis(u64::try_from(newest.0).unwrap_or_default());
    let written = |ending: &str| std::fs::metadata(beside(app.settings.sqlite_file()?, ending)).ok()?.modified().ok();
    written("").max(written("-wal")).is_some_and(|written| written > newest)
}

impl Regular {
    /// Takes a backup if one is due, and returns the delay until the next check. `None`: another process uses the directory.
    async fn look(&mut self) -> anyhow::Result<Option<Duration>> {
        // Before the first request there may be no database.
        if !self.is_due()? || !self.app.settings.sqlite_file().is_some_and(Path::exists) {
            return Ok(Some(LOOK_AGAIN));
        }
        let Some(folder) = Folder::open(&self.directory)? else { return Ok(None) };
        // Another process that serves the same file may have taken one since the check.
        if !self.is_due()? {
            return Ok(Some(LOOK_AGAIN));
        }
        // Fails if the file is not the one that the service uses: a connection of its own to another file would apply the log
        // that lies beside it, which belongs to the file of before, and delete it.
        self.app.in_time(self.app.store().kept_secrets()).await?;
        let scans = self.app.metrics.decided_scans();
        let backup = super::take_into(&self.app, &folder, None).await?;
        self.kept_scans = Some(scans);
        if self.is_sending() {
            tracing::warn!("BACKUP_COMMAND is still sending the previous backup; it gets the newest one when it ends");
        }
        if let Err(error) = &backup.pruned {
            tracing::error!(error = format!("{error:#}"), "the backup is stored, but old ones cannot be removed");
        }
        self.unsent = Some((backup.path, Instant::now()));
        self.newest()?;
        Ok(Some(LOOK_AGAIN.max(backup.elapsed * REST)))
    }

    fn is_sending(&self) -> bool {
        self.sending.as_ref().is_some_and(|sending| !sending.is_finished())
    }

    /// Sends the newest backup once the previous one is sent, and again if that fails. Backups do not wait for this.
    async fn send(&mut self) {
        if self.is_sending() {
            return;
        }
        if let Some(sending) = self.sending.take()
            && let Ok(Some(failed)) = sending.await
        {
            self.unsent.get_or_insert((failed, Instant::now() + TRY_AGAIN));
        }
        let Some((backup, _)) = self.unsent.take_if(|(_, when)| *when <= Instant::now()) else { return };
        let app = Arc::clone(&self.app);
        self.sending = Some(tokio::spawn(async move {
            let since = |when| *app.backups.sending_since.lock().unwrap_or_else(PoisonError::into_inner) = when;
            since(Some(Instant::now()));
            // A backup taken by hand may have replaced it, and was sent then.
            let sent = if backup.exists() { super::send(&app, &backup).await } else { Ok(()) };
            since(None);
            app.backups.sending.store(sent.is_err(), Ordering::Relaxed);
            let error = sent.err()?;
            tracing::error!(error = format!("{error:#}"), "the backup is stored, but not sent; trying again later");
            Some(backup)
        }));
    }

    /// Whether scans may be missing in the newest backup.
    fn has_new_scans(&self) -> bool {
        self.kept_scans != Some(self.app.metrics.decided_scans())
    }

    fn is_due(&self) -> anyhow::Result<bool> {
        let oldest = if self.has_new_scans() { NEARLY_A_MINUTE } else { DAY };
        Ok(is_older(self.newest()?, oldest, self.app.now()))
    }

    /// Returns when the newest backup was taken, and updates the metrics.
    fn newest(&self) -> anyhow::Result<Option<Millis>> {
        let newest = archive::newest(&self.directory, archive::SQLITE, self.app.now())?.map(|(taken_at, _)| taken_at);
        self.app.metrics.set_backup(newest);
        Ok(newest)
    }
}

/// Returns the delay after as many failed tries, of which the last took this long. If scans are in no backup, it is nearly a
/// minute after a short try, and twice as long after each further one: each may fill the disk for a moment.
fn rest_after_failure(has_new_scans: bool, took: Duration, failures: u32) -> Duration {
    let doubled = NEARLY_A_MINUTE * 2_u32.pow(failures.clamp(1, 5) - 1);
    if has_new_scans { (took * REST).max(doubled).min(TRY_AGAIN) } else { TRY_AGAIN }
}

/// Whether there is no backup, or the newest is at least this old.
fn is_older(newest: Option<Millis>, age: Duration, now: Millis) -> bool {
    newest.is_none_or(|newest| newest + age <= now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scans_that_begin_after_a_failure_bring_the_next_try_forward() {
        let ended = Instant::now().checked_sub(Duration::from_mins(2)).unwrap();
        let failures = Failures { count: 1, last: Some((ended, Duration::ZERO)) };
        assert!(!failures.permit(false));
        assert!(failures.permit(true));
    }

    #[test]
    fn a_failed_backup_is_tried_again_within_a_minute_if_scans_are_in_none_else_after_ten() {
        let quick = Duration::from_millis(300);
        assert!(rest_after_failure(true, quick, 1) + quick < Duration::from_mins(1));
        assert_eq!(rest_after_failure(false, quick, 1), Duration::from_mins(10));
        // Each try may fill the disk for a moment.
        assert_eq!(rest_after_failure(true, quick, 2), rest_after_failure(true, quick, 1) * 2);
        assert_eq!(rest_after_failure(true, quick, 99), Duration::from_mins(10));
        // What takes long must not load the service all the time.
        assert_eq!(rest_after_failure(true, Duration::from_secs(10), 1), Duration::from_secs(200));
        assert_eq!(rest_after_failure(true, Duration::from_mins(5), 1), Duration::from_mins(10));
    }

    #[test]
    fn a_backup_is_due_a_day_after_the_newest_and_nearly_a_minute_once_somebody_was_scanned() {
        let now = Millis(1_777_658_400_000);
        for age in [DAY, NEARLY_A_MINUTE] {
            assert!(is_older(None, age, now));
            assert!(is_older(Some(now - age), age, now));
            assert!(is_older(Some(now - age * 7), age, now));
            assert!(!is_older(Some(now - age / 2), age, now));
        }
    }
}
