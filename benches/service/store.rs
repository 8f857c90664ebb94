//! The databases under measurement.

use std::path::Path;

use crate::postgres::Database;
use crate::process::{Server, directory};

/// The release binary.
pub const SERVICE: &str = env!("CARGO_BIN_EXE_register-ticket-api");

/// A new database of either kind.
pub struct Store {
    pub kind: &'static str,
    url: String,
    /// `None` for SQLite.
    pub postgres: Option<Database>,
}

impl Store {
    pub fn postgres(name: &str) -> Self {
        let database = Database::create(name);
        Self { kind: "PostgreSQL", url: database.url(), postgres: Some(database) }
    }

    pub fn sqlite(name: &str) -> Self {
        let url = format!("sqlite:{}/{name}.db", directory().display());
        Self { kind: "SQLite", url, postgres: None }
    }

    /// Creates one of each.
    pub fn both(name: &str) -> [Self; 2] {
        [Self::postgres(name), Self::sqlite(name)]
    }

    /// The value for `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn serve(&self, pool_max: usize) -> Server {
        serve(&self.url, pool_max)
    }

    /// Starts a server with a minute for each answer.
    pub fn serve_patiently(&self) -> Server {
        let time = ("DB_TIMEOUT_MS", "60000".to_owned());
        Server::start(Path::new(SERVICE), &[("DATABASE_URL", self.url.clone()), time])
    }

    /// Starts a server that trusts no local proxy, so that this machine's addresses count as strangers'.
    pub fn serve_strangers(&self) -> Server {
        let nobody = ("TRUSTED_PROXIES", "192.0.2.1".to_owned());
        Server::start(Path::new(SERVICE), &[("DATABASE_URL", self.url.clone()), nobody])
    }

    /// Does what autovacuum would do later, perhaps during a measurement. Not for `scans`, which is still empty: a plan
    /// made for an empty table would stay in use while it fills.
    pub fn settle(&self) {
        if let Some(database) = &self.postgres {
            database.psql("vacuum analyze events, users, tickets, keys");
        }
    }
}

pub fn serve(url: &str, pool_max: usize) -> Server {
    Server::start(Path::new(SERVICE), &[("DATABASE_URL", url.to_owned()), ("DB_POOL_MAX", pool_max.to_string())])
}
