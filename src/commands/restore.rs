//! `restore`: restores a backup into an empty database.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;

use crate::backup;
use crate::config::{Database, PoolMode, Settings};

#[derive(Args)]
pub struct Arguments {
    /// A backup: .db.gz of SQLite, .dump.gz or .dump of PostgreSQL
    file: PathBuf,
    /// Restore into this file, or into this postgres:// URL as the owner [default: the configured database]
    #[arg(long, value_name = "DATABASE")]
    to: Option<String>,
    /// The database that the restored one replaces, to list what is valid again that no longer was, and to keep its keys as
    /// revoked ones: a file, a postgres:// URL, or the name of a database on the same server
    #[arg(long, value_name = "DATABASE")]
    before: Option<String>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut settings = Settings::from_env()?;
    if let Some(to) = arguments.to {
        settings.database = database(&to)?;
    }
    let before = arguments.before.map(|before| before_of(&before, &settings.database)).transpose()?;
    let app = super::app_of(settings);
    super::block_on(async {
        // Read before the restore, so that nothing is restored if this fails.
        let before = match before {
            Some(before) => Some(backup::read_state(&before).await.context("--before")?),
            None => None,
        };
        let contents = backup::restore(&app, &arguments.file).await?;
        say!("Restored {} into {}:", arguments.file.display(), app.settings.database);
        say!("{}", contents.describe(&app));
        let (database, but) = (&app.settings.database, "it is restored, but");
        let restored = backup::read_state(database).await.context(but)?;
        let before = match before {
            Some(before) => Some(backup::keep_ended(database, before, app.now()).await.context(but)?),
            None => None,
        };
        say!("{}", restored.describe(before.as_ref(), app.now()));
        Ok(())
    })
}

/// Returns the database that the restored one replaces. A name alone is a database on the same server with the same login.
fn before_of(before: &str, restored: &Database) -> anyhow::Result<Database> {
    match restored {
        Database::Postgres { owner, .. } if !before.contains(':') => {
            let named = Box::new((**owner).clone().database(before));
            Ok(Database::Postgres {
                service: named.clone(),
                owner: named,
                pool_mode: PoolMode::Session,
                grant_to: None,
            })
        }
        _ => database(before),
    }
}

/// Parses a database without using the logins of the settings, which may belong to another server.
fn database(to: &str) -> anyhow::Result<Database> {
    let url = if to.contains("://") || to.starts_with("sqlite:") { to.to_owned() } else { format!("sqlite:{to}") };
    Ok(Settings::read(|variable| (variable == "DATABASE_URL").then(|| url.clone()))?.database)
}
