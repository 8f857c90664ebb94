//! `restore`: a backup into an empty place.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::app::App;
use crate::backup;
use crate::config::{Database, Settings};
use crate::model::Millis;

#[derive(Args)]
pub struct Arguments {
    /// A backup: .db.gz of SQLite, .dump.gz or .dump of PostgreSQL
    file: PathBuf,
    /// Restore into this file, or this postgres:// URL as the owner [default: the database of the settings]
    #[arg(long, value_name = "DATABASE")]
    to: Option<String>,
}

pub fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut settings = Settings::from_env()?;
    if let Some(to) = arguments.to {
        settings.database = database(&to)?;
    }
    let app = Arc::new(App::new(settings, Box::new(Millis::now)));
    let contents = super::block_on(backup::restore(&app, &arguments.file))?;
    println!("Restored {} into {}:", arguments.file.display(), app.settings.database);
    println!("{}", contents.describe(&app));
    Ok(())
}

/// A database that is named without the settings' logins, which may be of another server.
fn database(to: &str) -> anyhow::Result<Database> {
    let url = if to.contains("://") || to.starts_with("sqlite:") { to.to_owned() } else { format!("sqlite:{to}") };
    Ok(Settings::read(|variable| (variable == "DATABASE_URL").then(|| url.clone()))?.database)
}
