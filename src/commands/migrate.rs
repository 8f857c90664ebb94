//! `migrate`: applies migrations, as the owner of the schema.

use crate::config::{Database, Settings};
use crate::store::{self, Migrated};

pub fn run() -> anyhow::Result<()> {
    let database = Settings::from_env()?.database;
    let Migrated { applied, later } = super::block_on(async { Ok(store::migrate(&database).await?) })?;
    for name in &applied {
        say!("applied: {name}");
    }
    if let Some(version) = later {
        say!(
            "The schema has version {version}, from a later release. Release {} works with it.",
            env!("CARGO_PKG_VERSION")
        );
    } else if applied.is_empty() {
        say!("The schema is up to date; nothing to do.");
    } else {
        say!("The schema is now up to date.");
    }
    if let Database::Postgres { grant_to: Some(login), .. } = &database {
        say!("{login} may use it, as a member of ticket_service.");
    }
    Ok(())
}
