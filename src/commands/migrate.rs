//! `migrate`: the schema, as its owner.

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
            "The schema has version {version}, which is of a later release. This release, {}, works with it and changes nothing.",
            env!("CARGO_PKG_VERSION")
        );
    } else if applied.is_empty() {
        say!("The schema is this release's already; nothing to do.");
    } else {
        say!("The schema is this release's now.");
    }
    if let Database::Postgres { grant_to: Some(login), .. } = &database {
        say!("{login} may use it: it is a member of ticket_service.");
    }
    Ok(())
}
