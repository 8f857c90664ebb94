//! `serve`: the service itself.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

use uuid::Uuid;

use crate::app::App;
use crate::auth::NewSecret;
use crate::config::{SHORTEST_SECRET, Settings, refuse};
use crate::model::Millis;
use crate::store::make_directory_of;
use crate::{backup, logs, serve};

pub fn run() -> anyhow::Result<()> {
    let mut settings = Settings::from_env()?;
    logs::start(&settings);
    if settings.organizer_key.is_none()
        && let Some(file) = settings.organizer_key_file()
    {
        let key =
            organizer_key(&file).map_err(|error| refuse("ORGANIZER_KEY", format!("{}: {error}", file.display())))?;
        // Not a line of the log, which may go elsewhere or be filtered: this is for the person who starts the service.
        eprintln!("The organizer's key is in {}", file.display());
        settings.organizer_key = Some(key);
    }
    if settings.is_distrusted() {
        tracing::warn!(
            public_url = settings.public_url,
            "browsers keep cameras and offline pages from plain http: set PUBLIC_URL to an https address"
        );
    }
    let app = Arc::new(App::new(settings, Box::new(Millis::now)));
    super::block_on(async {
        if std::env::var_os("AWS_LAMBDA_RUNTIME_API").is_some_and(|address| !address.is_empty()) {
            serve::lambda(app).await
        } else {
            if let Some(directory) = app.settings.daily_backups().map(Path::to_owned) {
                tokio::spawn(backup::daily::run(Arc::clone(&app), directory));
            }
            serve::http(app).await
        }
    })
}

/// The key in a file, which is made when it is not there.
fn organizer_key(file: &Path) -> anyhow::Result<String> {
    if !file.try_exists()? {
        make_organizer_key(file)?;
    }
    let key = fs::read_to_string(file)?.trim().to_owned();
    let fits = key.len() >= SHORTEST_SECRET && key.bytes().all(|byte| byte.is_ascii_graphic());
    anyhow::ensure!(fits, "must hold at least {SHORTEST_SECRET} visible ASCII characters and no space");
    Ok(key)
}

/// Writes the whole file under another name and links it into place: of two processes that start at once one makes the
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
