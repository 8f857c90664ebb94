//! The commands, one per file. A command reads the settings, creates the [`App`] and calls the same functions as the endpoints,
//! as [`Caller::ENVIRONMENT`](crate::auth::Caller::ENVIRONMENT): access to the database needs no key.

/// Prints a line to standard output. Unlike `println!`, it does not panic when nobody reads the output or the disk is full.
/// A reader that has enough, such as `head`, ends the command without an error (`exit_code`).
macro_rules! say {
    ($($words:tt)*) => {
        $crate::commands::write_line(&mut std::io::stdout(), format_args!($($words)*))?
    };
}

/// Prints a line to standard error, and ignores failures.
macro_rules! note {
    ($($words:tt)*) => {
        $crate::commands::write_line(&mut std::io::stderr(), format_args!($($words)*)).unwrap_or_default()
    };
}

pub mod backup;
pub mod change_secret;
pub mod check;
pub mod code;
pub mod demo;
pub mod export;
pub mod forget;
pub mod healthcheck;
pub mod import;
pub mod keys;
pub mod mail;
pub mod migrate;
pub mod query;
pub mod restore;
pub mod serve;
pub mod smoke;

use std::fmt;
use std::fs::DirBuilder;
use std::io::{ErrorKind, IsTerminal as _, Write};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context as _;
use indicatif::{ProgressBar, ProgressStyle};
use uuid::Uuid;

use crate::app::App;
use crate::auth::Caller;
use crate::config::{SETTINGS, SettingError, Settings};
use crate::model::{Event, Millis};

/// Writes a line in one call and flushes it.
pub(crate) fn write_line(output: &mut impl Write, words: fmt::Arguments<'_>) -> std::io::Result<()> {
    output.write_all(format!("{words}\n").as_bytes())?;
    output.flush()
}

/// Prints an error to standard error and returns the exit code: 2 for a setting or an argument that cannot be used,
/// otherwise 1.
pub fn exit_code(outcome: anyhow::Result<()>) -> ExitCode {
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The reader of our output, such as `head`, has enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) => {
            ExitCode::SUCCESS
        }
        Err(error) => {
            note!("error: {error:#}");
            if error.is::<SettingError>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Returns the help on all settings, with meaning and default, in columns.
pub fn settings_help() -> String {
    const MEANING: usize = 24;
    const WIDTH: usize = 80;
    let mut lines = vec!["Settings, from the environment:".to_owned()];
    for setting in SETTINGS {
        let mut line = format!("  {:1$} ", setting.variable, MEANING - 3);
        let default = format!("[default: {}]", setting.default);
        let default = Some(default.as_str()).filter(|_| !setting.default.is_empty());
        for word in setting.meaning.split(' ').chain(default) {
            if line.len() + word.len() > WIDTH {
                lines.push(std::mem::replace(&mut line, " ".repeat(MEANING)));
            }
            line.push_str(word);
            line.push(' ');
        }
        lines.push(line);
    }
    lines.iter().map(|line| line.trim_end()).collect::<Vec<_>>().join("\n")
}

/// Runs work on the process's only runtime.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(work);
    // A service that must stop does not wait until a backup is compressed. The next run removes what is left.
    runtime.shutdown_background();
    outcome
}

/// Creates the service with the settings of the environment.
fn app() -> anyhow::Result<Arc<App>> {
    Ok(app_of(Settings::from_env()?))
}

fn app_of(settings: Settings) -> Arc<App> {
    Arc::new(App::new(settings, Box::new(Millis::now)))
}

/// Like [`app`], for a command that needs an existing database. Without a file, SQLite would create an empty one, on which the
/// command would succeed.
fn app_on_what_is_there() -> anyhow::Result<Arc<App>> {
    let settings = Settings::from_env()?;
    if let Some(file) = settings.sqlite_file() {
        let place = std::path::absolute(file)?;
        if let Err(error) = std::fs::metadata(&place) {
            anyhow::bail!(
                "there is no database at {} ({error}); run this where the service runs, or name its file in DATABASE_URL, such \
                 as sqlite:/srv/tickets/data/tickets.db. `import` creates a new one, as does the first request to `serve`",
                place.display()
            );
        }
    }
    Ok(app_of(settings))
}

/// A private temporary directory, removed with its contents when this is dropped.
struct Directory(PathBuf);

impl Directory {
    fn make(purpose: &str) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("register-ticket-api-{purpose}-{}", Uuid::new_v4()));
        DirBuilder::new().mode(0o700).create(&path).with_context(|| path.display().to_string())?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            note!("cannot remove {}: {error}", self.0.display());
        }
    }
}

/// Total lines of progress if standard error is not a terminal.
const LINES: usize = 4;

/// Progress on standard error: a bar on a terminal, otherwise a few lines.
struct Progress {
    tickets: usize,
    told: AtomicUsize,
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(tickets: usize) -> Self {
        let style = ProgressStyle::with_template("{wide_bar} {human_pos} of {human_len} tickets, {eta} left");
        let bar = std::io::stderr().is_terminal().then(|| {
            ProgressBar::new(tickets as u64).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { tickets, told: AtomicUsize::new(0), bar }
    }

    fn show(&self, done: usize) {
        match &self.bar {
            Some(bar) => bar.set_position(done as u64),
            None => {
                let quarter = done * LINES / self.tickets.max(1);
                if self.told.fetch_max(quarter, Ordering::Relaxed) < quarter {
                    note!("{done} of {} tickets", self.tickets);
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

async fn find_event(app: &App, slug: &str) -> anyhow::Result<Event> {
    Ok(Caller::ENVIRONMENT.open_event(app.in_time(app.store().find_event(slug)).await?)?)
}
