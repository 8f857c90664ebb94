//! `serve`: runs the service.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use uuid::Uuid;

use crate::app::App;
use crate::auth::NewSecret;
use crate::backup::archive;
use crate::config::{Mail, SHORTEST_SECRET, Settings, refuse};
use crate::model::Millis;
use crate::store::{self, Migrated, log_without_file, make_directory_of};
use crate::{backup, forgetting, logs, serve};

pub fn run() -> anyhow::Result<()> {
    let settings = Settings::from_env()?;
    logs::start(&settings);
    super::block_on(async {
        if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some_and(|address| !address.is_empty()) {
            let app = app(settings)?;
            warn_of_no_secret(&app);
            return serve::lambda(app).await;
        }
        let stopped = serve::stopped()?;
        // Listen first, so that nothing is created if the port is in use.
        let listener = serve::listener(&settings)?;
        let app = app(settings)?;
        // On other platforms the process only runs during requests.
        if app.settings.is_resident {
            let is_behind =
                app.settings.regular_backups().is_some_and(|directory| backup::regular::is_behind(&app, directory));
            tokio::spawn(begin_later(Arc::clone(&app), is_behind));
        } else {
            warn_of_no_secret(&app);
        }
        serve::http_until(app, listener, stopped).await
    })
}

/// Creates the service with the organizer's key, and warns about settings with which it works but not well.
fn app(mut settings: Settings) -> anyhow::Result<Arc<App>> {
    if settings.organizer_key.is_none()
        && let Some(file) = settings.organizer_key_file()
    {
        settings.organizer_key = Some(organizer_key(&file)?);
        // Not in the log, which may go elsewhere or be filtered: this is for the person who starts the service.
        note!("The organizer's key is in {}", file.display());
    }
    if settings.is_distrusted() {
        tracing::warn!(
            public_url = settings.public_url,
            "browsers allow neither cameras nor offline pages over plain http: set PUBLIC_URL to an https address"
        );
    }
    if settings.backup_command.is_some() && settings.regular_backups().is_none() {
        tracing::warn!("BACKUP_COMMAND has no effect: `serve` takes backups only on SQLite, with BACKUP_DIR");
    }
    if let Some(file) = settings.sqlite_file().filter(|file| !file.exists()) {
        warn_of_no_database(file, settings.backup_dir.as_deref());
    }
    if let Some(sslmode) = settings.database.weak_sslmode() {
        tracing::warn!(
            sslmode,
            "others on the network may read the traffic with the database, or impersonate it: set DB_SSLMODE, or sslmode in \
             DATABASE_URL, to verify-full"
        );
    }
    if settings.mail.as_ref().is_some_and(Mail::is_open) {
        tracing::warn!(
            "others on the network may read the tickets in mails: remove tls=none from SMTP_URL to encrypt them"
        );
    }
    Ok(super::app_of(settings))
}

/// How long the first request has the machine to itself.
const FIRST: Duration = Duration::from_millis(250);

/// Starts the background tasks after leaving the first request the machine to itself.
async fn begin_later(app: Arc<App>, is_behind: bool) {
    tokio::time::sleep(FIRST).await;
    begin(app, is_behind);
}

// Not inlined into its caller, which would then touch 40 kB of stack at the start.
#[inline(never)]
fn begin(app: Arc<App>, is_behind: bool) {
    if let Some(directory) = app.settings.regular_backups().map(Path::to_owned) {
        tokio::spawn(backup::regular::run(Arc::clone(&app), directory, is_behind));
    }
    tokio::spawn(forgetting::run(Arc::clone(&app)));
    tokio::spawn(look_at_database(app));
}

/// Checks the database after the start, which does not wait for it. Migrates a file of an earlier release, so that its tickets
/// are found by seats as people type them.
async fn look_at_database(app: Arc<App>) {
    match app.settings.sqlite_file() {
        // The first request will create the database. It has no secret yet, and is not created for this check.
        Some(file) if !file.exists() => warn_of_no_secret(&app),
        Some(_) => {
            check_secret(&app).await;
            match store::migrate(&app.settings.database).await {
                Ok(Migrated { later: Some(schema), .. }) => tracing::warn!(
                    schema,
                    "a later release has used the database: start that release again, unless it was rolled back on purpose"
                ),
                Ok(Migrated { applied, .. }) => {
                    tracing::debug!(changes = applied.len(), "the database has the schema of this release");
                }
                Err(error) => tracing::error!(%error, "cannot migrate the database to this release"),
            }
        }
        None => check_secret(&app).await,
    }
}

/// Logs that the database file is missing: as an error if its log or backups show that there was one.
fn warn_of_no_database(file: &Path, backups: Option<&Path>) {
    let newest = |directory| archive::newest(directory, archive::SQLITE, Millis::now());
    if let Some(log) = log_without_file(file) {
        tracing::error!(
            log = %log.display(),
            "the database file is missing, but its write-ahead log, which is part of it, is there: bring the file back"
        );
    } else if let Some((_, backup)) = backups.and_then(|directory| newest(directory).ok().flatten()) {
        tracing::error!(
            file = %file.display(),
            backup = %backup.display(),
            "there is no database, but there are backups of one: stop the service and bring the file back, or restore the \
             newest backup with `register-ticket-api restore`. The first request creates a new, empty database"
        );
    } else {
        tracing::warn!(
            file = %file.display(),
            "there is no database: the first request creates a new one, without tickets or keys. If there was one before, \
             stop the service: the path is wrong, or the volume is missing"
        );
    }
}

fn warn_of_no_secret(app: &App) {
    if app.settings.ticket_secret.is_none() {
        tracing::warn!(
            "TICKET_SECRET is not set: anyone with a copy of the database, such as a backup, can generate codes. Set one, \
             `openssl rand -hex 32`, before the first ticket is registered, or later with `register-ticket-api change-secret`"
        );
    }
}

/// Reports a wrong `TICKET_SECRET` at the start, if the database answers then, rather than at the door.
async fn check_secret(app: &App) {
    if let Ok(kept) = app.in_time(app.store().kept_secrets()).await
        && let Err(error) = app.checked_secret(kept.secret_fingerprint.as_deref())
    {
        tracing::error!(
            error.code = error.code(),
            "TICKET_SECRET is not the one with which the tickets of this database were made: nobody will be admitted. Set \
             the right one, or change it for all tickets with `register-ticket-api change-secret`"
        );
    } else {
        warn_of_no_secret(app);
    }
}

/// Reads the key from a file, which is created if it does not exist.
fn organizer_key(file: &Path) -> anyhow::Result<String> {
    let place = std::path::absolute(file)?;
    let place = place.display();
    if !file.try_exists().unwrap_or(false) {
        make_organizer_key(file).with_context(|| {
            format!(
                "{place} cannot be written, nor could the database beside it: run this in a writable directory, or name one \
                 in DATABASE_URL, such as sqlite:/srv/tickets/data/tickets.db"
            )
        })?;
    }
    let key = fs::read_to_string(file).with_context(|| format!("{place} cannot be read"))?.trim().to_owned();
    let fits = key.len() >= SHORTEST_SECRET && key.bytes().all(|byte| byte.is_ascii_graphic());
    let why = format!("{place} must hold at least {SHORTEST_SECRET} visible ASCII characters and no space");
    if fits { Ok(key) } else { Err(refuse("ORGANIZER_KEY", why).into()) }
}

/// Writes the whole file under another name and then links it to its own: of two processes that start at once, one creates the
/// file and both read it.
fn make_organizer_key(file: &Path) -> anyhow::Result<()> {
    make_directory_of(file)?;
    let key = NewSecret::random()?.text;
    let unfinished = file.with_extension(format!("key.{}", Uuid::new_v4()));
    let mut written = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&unfinished)?;
    let linked = writeln!(written, "{key}").and_then(|()| written.sync_all()).and_then(|()| {
        match fs::hard_link(&unfinished, file) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    });
    fs::remove_file(&unfinished)?;
    Ok(linked?)
}
