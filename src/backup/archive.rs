//! Backup files: their names, how a file appears in its directory complete or not at all, and which are retained.

use std::collections::BTreeSet;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use flate2::read::{GzDecoder, MultiGzDecoder};
use flate2::{Compression, GzBuilder};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use uuid::Uuid;

use crate::model::Millis;
use crate::store::beside;

/// The suffixes of backups of SQLite and PostgreSQL. The first is the one we write; the others are recognised too.
pub const SQLITE: &[&str] = &[".db.gz"];
pub const POSTGRES: &[&str] = &[".dump.gz", ".dump"];

const NAME: &str = "tickets-%Y%m%d-%H%M%SZ";
/// The prefix of files that are still being written.
const UNFINISHED: &str = ".unfinished-tickets-";

/// One backup per hour is kept for this many hours before the newest.
const HOURS: u64 = 24;
const DAYS: usize = 7;
const WEEKS: usize = 4;

/// A directory that only this process writes backups into, until this is dropped.
pub struct Folder {
    path: PathBuf,
    /// Open and locked. The kernel releases the lock when the process ends, in whatever way.
    lock: File,
}

impl Folder {
    /// Opens a directory, creating it for this user only if it is missing, and removes leftovers of a killed run. `None`
    /// if another process has locked it.
    pub fn open(path: &Path) -> anyhow::Result<Option<Self>> {
        Self::open_directory(path).with_context(|| path.display().to_string())
    }

    fn open_directory(path: &Path) -> anyhow::Result<Option<Self>> {
        let path = if path == Path::new("") { Path::new(".") } else { path };
        DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let lock = File::open(path)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error.into()),
        }
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(Some(Self { path: path.to_owned(), lock }))
    }

    /// Creates a new, empty file that only this user can read.
    pub fn unfinished(&self) -> anyhow::Result<Unfinished> {
        let path = self.path.join(format!("{UNFINISHED}{}", Uuid::new_v4().simple()));
        create(&path).with_context(|| path.display().to_string())?;
        Ok(Unfinished(path))
    }

    /// Gives a file its final name. The file is synced to disk before it is renamed, and the directory after.
    pub fn keep(&self, unfinished: Unfinished, taken_at: Millis, endings: &[&str]) -> anyhow::Result<PathBuf> {
        let path = self.path.join(name(taken_at, endings[0]));
        let kept =
            sync(&unfinished.0).and_then(|()| fs::rename(&unfinished.0, &path)).and_then(|()| self.lock.sync_all());
        kept.with_context(|| path.display().to_string())?;
        Ok(path)
    }

    /// Gives a file a name that must not exist yet.
    pub fn keep_as(&self, unfinished: &Unfinished, path: &Path) -> anyhow::Result<()> {
        let kept =
            sync(&unfinished.0).and_then(|()| fs::hard_link(&unfinished.0, path)).and_then(|()| self.lock.sync_all());
        kept.with_context(|| path.display().to_string())
    }

    /// Removes the backups of one kind that are past their retention. One dated later than the newest is left alone: a
    /// clock was wrong, and it is unknown which.
    pub fn prune(&self, newest: Millis, endings: &[&str]) -> anyhow::Result<()> {
        let mut backups = list(&self.path, endings)?;
        backups.retain(|(taken_at, _)| *taken_at <= newest);
        let times: Vec<Millis> = backups.iter().map(|(taken_at, _)| *taken_at).collect();
        let kept = kept(&times);
        let mut newer = None;
        for (taken_at, path) in backups {
            let holds = Holding::of(&path);
            let is_better = newest - Duration::from_hours(24 * DAYS as u64) < taken_at
                && holds.zip(newer).is_some_and(|(holds, newer): (Holding, Holding)| newer.is_far_below(holds));
            if kept.contains(&taken_at.0) || is_better {
                newer = holds.or(newer);
            } else {
                fs::remove_file(&path).with_context(|| path.display().to_string())?;
            }
        }
        Ok(())
    }

    /// Returns the newest backup of one kind up to a time, if its contents are known.
    pub fn newest(&self, endings: &[&str], now: Millis) -> anyhow::Result<Option<(PathBuf, Holding)>> {
        let newest = newest(&self.path, endings, now)?;
        Ok(newest.and_then(|(_, path)| Holding::of(&path).map(|holds| (path, holds))))
    }
}

/// The number of rows in a backup, stored in the comment of its gzip header (RFC 1952, section 2.3.1.1), so that it can
/// be read without unpacking. Dumps of PostgreSQL have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    pub tickets: i64,
    pub scans: i64,
}

impl Holding {
    /// `None` where the file does not say.
    fn of(path: &Path) -> Option<Self> {
        let file = GzDecoder::new(BufReader::new(File::open(path).ok()?));
        let comment = std::str::from_utf8(file.header()?.comment()?).ok()?;
        let (tickets, scans) = comment.strip_prefix("tickets ")?.split_once(" scans ")?;
        Some(Self { tickets: tickets.parse().ok()?, scans: scans.parse().ok()? })
    }

    fn comment(self) -> String {
        format!("tickets {} scans {}", self.tickets, self.scans)
    }

    /// Whether it holds so much less than another that data was lost or deleted in between.
    pub fn is_far_below(self, other: Self) -> bool {
        2 * self.tickets < other.tickets || 2 * self.scans < other.scans
    }
}

/// A file that is removed when dropped, unless it was renamed.
pub struct Unfinished(pub PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // If it was renamed, there is nothing to remove; if the removal fails, the next run repeats it. A failed copy
        // also leaves its journal.
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(beside(&self.0, "-journal"));
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn sync(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).open(path)?.sync_all()
}

/// Returns SQLite's newest backup that contains tickets, whatever the clock says now.
pub fn newest_with_tickets(directory: &Path) -> anyhow::Result<Option<PathBuf>> {
    let mut backups = list(directory, SQLITE)?.into_iter().map(|(_, path)| path);
    Ok(backups.find(|path| Holding::of(path).is_some_and(|holds| holds.tickets > 0)))
}

/// Returns the newest backup of one kind up to a time.
pub fn newest(directory: &Path, endings: &[&str], now: Millis) -> anyhow::Result<Option<(Millis, PathBuf)>> {
    Ok(list(directory, endings)?.into_iter().find(|(taken_at, _)| *taken_at <= now))
}

/// Lists the backups of one kind, newest first. Without the directory, there are none.
fn list(directory: &Path, endings: &[&str]) -> anyhow::Result<Vec<(Millis, PathBuf)>> {
    let mut backups = Vec::new();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(backups),
        entries => entries.with_context(|| directory.display().to_string())?,
    };
    for entry in entries {
        let entry = entry?;
        let taken_at = entry.file_name().to_str().and_then(|name| taken_at(name, endings));
        backups.extend(taken_at.map(|taken_at| (taken_at, entry.path())));
    }
    backups.sort();
    backups.reverse();
    Ok(backups)
}

fn civil(time: Millis) -> DateTime {
    Timestamp::from_millisecond(time.0).unwrap_or_default().to_zoned(TimeZone::UTC).datetime()
}

fn name(taken_at: Millis, ending: &str) -> String {
    format!("{}{ending}", civil(taken_at).strftime(NAME))
}

/// Parses the time, to the second, from a name that has exactly our format.
fn taken_at(file_name: &str, endings: &[&str]) -> Option<Millis> {
    let (stem, ending) = endings.iter().find_map(|ending| Some((file_name.strip_suffix(ending)?, ending)))?;
    let time = DateTime::strptime(NAME, stem).ok()?;
    let time = Millis(time.to_zoned(TimeZone::UTC).ok()?.timestamp().as_millisecond());
    (name(time, ending) == file_name).then_some(time)
}

/// Returns which of these backups, newest first, to keep: the newest of each of the last hours, the newest of each of the
/// last days with a backup, and the newest of each older week.
fn kept(times: &[Millis]) -> BTreeSet<i64> {
    let mut kept = BTreeSet::new();
    let (mut days, mut weeks) = (BTreeSet::new(), 0);
    let (mut weeks_seen, mut hours) = (BTreeSet::new(), BTreeSet::new());
    for time in times {
        let newest_of_hour = times[0] - Duration::from_hours(HOURS) < *time && hours.insert(time.0 / Millis::HOUR);
        let day = civil(*time).date();
        let newest_of_week = weeks_seen.insert(monday(day));
        let newest_of_day = days.len() < DAYS && days.insert(day);
        let weekly = !newest_of_day && newest_of_week && weeks < WEEKS;
        weeks += usize::from(weekly);
        if newest_of_hour || newest_of_day || weekly {
            kept.insert(time.0);
        }
    }
    kept
}

/// Returns the first day of a date's week.
fn monday(day: Date) -> Date {
    day.saturating_sub(i32::from(day.weekday().to_monday_zero_offset()).days())
}

/// Compresses a file into another, and reads that back: a copy counts only if it can be read.
pub fn compress(from: &Path, to: &Path, holds: Option<Holding>) -> anyhow::Result<()> {
    let written = OpenOptions::new().write(true).truncate(true).open(to)?;
    let header = holds.map_or_else(GzBuilder::new, |holds| GzBuilder::new().comment(holds.comment()));
    let mut encoder = header.write(written, Compression::default());
    let length = io::copy(&mut File::open(from)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    let read = io::copy(&mut reader(to)?, &mut io::sink())?;
    anyhow::ensure!(read == length, "only {} of {length} bytes can be read back", read);
    Ok(())
}

/// Decompresses a file into another.
pub fn decompress(from: &Path, to: &Path) -> anyhow::Result<()> {
    let mut written = OpenOptions::new().write(true).truncate(true).open(to)?;
    // Either file may have caused an error; one of a truncated or altered archive says so itself.
    io::copy(&mut reader(from)?, &mut written)?;
    Ok(written.sync_all()?)
}

/// Whether a file is a gzip (RFC 1952), by its content.
pub fn is_compressed(path: &Path) -> io::Result<bool> {
    let mut start = Vec::new();
    File::open(path)?.take(2).read_to_end(&mut start)?;
    Ok(start == [0x1f, 0x8b])
}

/// Reads a file, decompressing it if it is a gzip; then the read fails, at the end at the latest, if the file is
/// truncated or was altered.
pub fn reader(path: &Path) -> io::Result<Box<dyn Read + Send>> {
    let file = BufReader::new(File::open(path)?);
    Ok(if is_compressed(path)? { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BACKUP_DAYS;

    fn at(text: &str) -> Millis {
        Millis::parse(text).unwrap()
    }

    #[test]
    fn a_name_tells_the_second_and_only_such_names_are_ours() {
        let time = at("2026-05-01T18:00:09Z");
        assert_eq!(name(time + Duration::from_millis(999), SQLITE[0]), "tickets-20260501-180009Z.db.gz");
        assert_eq!(taken_at("tickets-20260501-180009Z.db.gz", SQLITE), Some(time));
        for dump in ["tickets-20260501-180009Z.dump.gz", "tickets-20260501-180009Z.dump"] {
            assert_eq!(taken_at(dump, POSTGRES), Some(time));
        }
        for other in [
            "tickets-20260501-180009Z.dump.gz",
            "tickets-20260501-180009Z.db",
            "tickets-20260501-1800Z.db.gz",
            "tickets-2026051-180009Z.db.gz",
            "tickets-20260532-180009Z.db.gz",
            "tickets-20260501-180009Z (1).db.gz",
            "before-the-gala-20260501-180009Z.db.gz",
            ".unfinished-tickets-20260501-180009Z.db.gz",
        ] {
            assert_eq!(taken_at(other, SQLITE), None, "{other}");
        }
    }

    /// Returns which of backups at these times are kept.
    fn kept_of(times: &mut [Millis]) -> Vec<String> {
        times.sort();
        times.reverse();
        let kept = kept(times);
        times.iter().filter(|time| kept.contains(&time.0)).map(|time| time.to_string()[..16].to_owned()).collect()
    }

    #[test]
    fn seven_days_and_four_weeks_are_kept() {
        // 2026-05-01 is a Friday.
        let friday = at("2026-05-01T04:00:00Z");
        let mut daily: Vec<Millis> = (0..100).map(|days| Millis(friday.0 - days * Millis::DAY)).collect();
        let days = ["05-01", "04-30", "04-29", "04-28", "04-27", "04-26", "04-25"];
        let sundays = ["04-19", "04-12", "04-05", "03-29"];
        let expected: Vec<String> = days.iter().chain(&sundays).map(|day| format!("2026-{day}T04:00")).collect();
        assert_eq!(kept_of(&mut daily), expected);
    }

    #[test]
    fn no_backup_gets_older_than_people_are_told() {
        let start = at("2026-01-01T04:00:00Z");
        let oldest = (100..130).map(|today| {
            let times: Vec<Millis> = (0..=today).rev().map(|day| Millis(start.0 + day * Millis::DAY)).collect();
            kept(&times).first().map(|oldest| (times[0].0 - oldest) / Millis::DAY)
        });
        // It is some hours older until the next one is taken.
        assert_eq!(oldest.max(), Some(Some(BACKUP_DAYS as i64 - 1)));
    }

    #[test]
    fn pruning_every_day_keeps_the_same_as_pruning_once() {
        let start = at("2026-01-01T04:00:00Z");
        let mut pruned: Vec<Millis> = Vec::new();
        for day in 0..100 {
            pruned.push(Millis(start.0 + day * Millis::DAY));
            pruned.sort();
            pruned.reverse();
            let kept = kept(&pruned);
            pruned.retain(|time| kept.contains(&time.0));
        }
        let mut all: Vec<Millis> = (0..100).map(|day| Millis(start.0 + day * Millis::DAY)).collect();
        assert_eq!(kept_of(&mut pruned), kept_of(&mut all));
        assert_eq!(pruned.len(), DAYS + WEEKS);
    }

    /// Other systems have no file that is always full.
    #[cfg(target_os = "linux")]
    #[test]
    fn a_disk_that_is_full_is_told() {
        let error = compress(Path::new(file!()), Path::new("/dev/full"), None).unwrap_err();
        assert_eq!(error.to_string(), "No space left on device (os error 28)");
    }

    #[test]
    fn of_one_day_the_newest_is_kept_and_days_without_a_backup_do_not_count() {
        let times = ["2026-05-03T04:00:00Z", "2026-05-01T18:00:00Z", "2026-05-01T04:00:00Z", "2026-03-01T04:00:00Z"];
        let kept = ["2026-05-03T04:00", "2026-05-01T18:00", "2026-03-01T04:00"];
        assert_eq!(kept_of(&mut times.map(at)), kept);
    }

    #[test]
    fn of_each_of_the_last_24_hours_the_newest_is_kept() {
        let newest = at("2026-05-01T20:30:00Z");
        let mut minutes: Vec<Millis> =
            (0..30 * 60).map(|minutes| Millis(newest.0 - minutes * Millis::MINUTE)).collect();
        let mut expected = vec!["2026-05-01T20:30".to_owned()];
        expected.extend((0..20).rev().map(|hour| format!("2026-05-01T{hour:02}:59")));
        expected.extend((20..24).rev().map(|hour| format!("2026-04-30T{hour:02}:59")));
        assert_eq!(kept_of(&mut minutes), expected);
    }

    #[test]
    fn a_backup_that_holds_far_more_than_the_next_stays_for_a_week() {
        let place = std::env::temp_dir().join(format!("archive-{}", Uuid::new_v4()));
        let folder = Folder::open(&place).unwrap().unwrap();
        let start = at("2026-05-01T20:00:00Z");
        let take = |minute: u64, tickets, scans| {
            let file = folder.unfinished().unwrap();
            compress(Path::new(file!()), &file.0, Some(Holding { tickets, scans })).unwrap();
            let taken_at = start + Duration::from_secs(60 * minute);
            let path = folder.keep(file, taken_at, SQLITE).unwrap();
            folder.prune(taken_at, SQLITE).unwrap();
            path
        };
        let kept = || list(&place, SQLITE).unwrap().into_iter().map(|(_, path)| path).collect::<Vec<_>>();

        take(0, 1_200, 300);
        let full = take(1, 1_200, 310);
        // The event was deleted.
        take(2, 3, 0);
        let emptied = take(3, 3, 0);
        assert_eq!(kept(), [emptied, full.clone()]);
        let day = 24 * 60;
        take(6 * day, 3, 0);
        assert!(kept().contains(&full));
        take(8 * day, 3, 0);
        assert!(!kept().contains(&full));
        fs::remove_dir_all(place).unwrap();
    }
}
