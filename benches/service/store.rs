//! The databases that the service is measured with.

use std::path::Path;

use crate::postgres::Database;
use crate::process::{Server, directory};

/// The release binary.
pub const SERVICE: &str = env!("CARGO_BIN_EXE_register-ticket-api");

/// A fresh database of either kind.
pub struct Store {
    pub kind: &'static str,
    url: String,
    /// None is SQLite.
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

    /// One of each.
    pub fn both(name: &str) -> [Self; 2] {
        [Self::postgres(name), Self::sqlite(name)]
    }

    /// For `DATABASE_URL`.
    pub fn url(&self) -> &str {
        &self.url
    }

    pub fn serve(&self, pool_max: usize) -> Server {
        serve(&self.url, pool_max)
    }

    /// With as much time for an answer as it takes.
    pub fn serve_patiently(&self) -> Server {
        let time = ("DB_TIMEOUT_MS", "60000".to_owned());
        Server::start(Path::new(SERVICE), &[("DATABASE_URL", self.url.clone()), time])
    }

    /// Where even this machine's own addresses are those of strangers, and not of a proxy.
    pub fn serve_strangers(&self) -> Server {
        let nobody = ("TRUSTED_PROXIES", "192.0.2.1".to_owned());
        Server::start(Path::new(SERVICE), &[("DATABASE_URL", self.url.clone()), nobody])
    }

    /// What autovacuum would do some time later, perhaps in the middle of a measurement. Not for scans, of which there
    /// are none yet: a plan for an empty table would stay in use while it fills.
    pub fn settle(&self) {
        if let Some(database) = &self.postgres {
            database.psql("vacuum analyze events, users, tickets, keys");
        }
    }
}

pub fn serve(url: &str, pool_max: usize) -> Server {
    Server::start(Path::new(SERVICE), &[("DATABASE_URL", url.to_owned()), ("DB_POOL_MAX", pool_max.to_string())])
}
