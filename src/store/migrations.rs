//! The schema, as a list of migrations: applied by `migrate`, checked in backups, and tested one by one.
//! `docs/development.md` says how to add one.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migrate, MigrateError, MigrationType, Migrator};

use crate::error::Error;

/// One change of the schema. A released migration never changes, not by a byte: databases store its checksum.
#[derive(Clone, Copy)]
pub struct Migration {
    /// The number that a database stores and the file's name begins with. Greater than all before it.
    pub number: i64,
    /// The rest of the file's name, with spaces.
    pub name: &'static str,
    /// `None` if this database needs no change.
    pub postgres: Option<&'static str>,
    pub sqlite: Option<&'static str>,
}

/// All migrations, in the order of application.
pub const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "create tables",
        postgres: Some(include_str!("../../sql/postgres/01_create_tables.sql")),
        sqlite: Some(include_str!("../../sql/sqlite/01_create_tables.sql")),
    },
    Migration {
        number: 2,
        name: "create ticket stored procedures",
        postgres: Some(include_str!("../../sql/postgres/02_create_ticket_stored_procedures.sql")),
        sqlite: None,
    },
    Migration {
        number: 3,
        name: "grant ticket_service",
        postgres: Some(include_str!("../../sql/postgres/03_grant_ticket_service.sql")),
        sqlite: None,
    },
    Migration {
        number: 4,
        name: "scope people and keep actions",
        postgres: Some(include_str!("../../sql/postgres/04_scope_people_and_keep_actions.sql")),
        sqlite: Some(include_str!("../../sql/sqlite/04_scope_people_and_keep_actions.sql")),
    },
    Migration {
        number: 5,
        name: "tell more of tickets",
        postgres: Some(include_str!("../../sql/postgres/05_tell_more_of_tickets.sql")),
        sqlite: Some(include_str!("../../sql/sqlite/05_tell_more_of_tickets.sql")),
    },
];

/// Selects one of a migration's files: `|migration| migration.sqlite`.
pub(super) type FileOf = fn(&Migration) -> Option<&'static str>;

/// Returns the migrations with a file for a database.
pub(super) fn of(migrations: &[Migration], file: FileOf) -> impl Iterator<Item = (&Migration, &'static str)> {
    migrations.iter().filter_map(move |migration| Some((migration, file(migration)?)))
}

/// Returns the version of a database's schema, which is the number of its newest migration, and the number of migrations.
pub(super) fn newest(file: FileOf) -> (i64, i64) {
    of(MIGRATIONS, file).fold((0, 0), |(_, count), (migration, _)| (migration.number, count + 1))
}

/// The table where sqlx stores the applied migrations.
const TABLE: &str = "_sqlx_migrations";

/// The result of a migration.
#[derive(Debug, Default)]
pub struct Migrated {
    /// The names of the migrations applied, in order.
    pub applied: Vec<&'static str>,
    /// The version of the schema if it is from a later release.
    pub later: Option<i64>,
}

/// Applies the missing migrations in order. The caller holds a lock, so that it applied all of these itself.
pub(super) async fn apply_missing<C: Migrate>(
    connection: &mut C,
    migrations: &[Migration],
    file: FileOf,
) -> Result<Migrated, MigrateError> {
    let known = of(migrations, file).map(|(Migration { number, name, .. }, sql)| {
        sqlx::migrate::Migration::new(*number, (*name).into(), MigrationType::Simple, sql.into_sql_str(), false)
    });
    let mut migrator = Migrator::with_migrations(known.collect());
    // A later release may have migrated further: its schema works with this code.
    migrator.set_ignore_missing(true);
    connection.ensure_migrations_table(TABLE).await?;
    let before = connection.list_applied_migrations(TABLE).await?;
    migrator.run_direct(None, connection, false).await?;
    let missing =
        of(migrations, file).filter(|(migration, _)| before.iter().all(|applied| applied.version != migration.number));
    let applied = missing.map(|(migration, _)| migration.name).collect();
    let newest = before.iter().map(|applied| applied.version).max();
    let later = newest.filter(|newest| of(MIGRATIONS, file).all(|(known, _)| known.number < *newest));
    Ok(Migrated { applied, later })
}

impl From<MigrateError> for Error {
    fn from(error: MigrateError) -> Self {
        Self::Internal(format!("migration: {error}"))
    }
}
