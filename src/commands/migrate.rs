//! `migrate`: the schema, as its owner.

use crate::config::{Database, Settings};
use crate::store;

pub fn run() -> anyhow::Result<()> {
    let database = Settings::from_env()?.database;
    let applied = super::block_on(async { Ok(store::migrate(&database).await?) })?;
    for name in &applied {
        say!("applied: {name}");
    }
    if applied.is_empty() {
        say!("The schema is this release's already; nothing to do.");
    } else {
        say!("The schema is this release's now.");
    }
    if let Database::Postgres { grant_to: Some(login), .. } = &database {
        say!("{login} may use it: it is a member of ticket_service.");
    }
    Ok(())
}
