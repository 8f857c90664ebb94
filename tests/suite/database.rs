//! A separate database for each test, and access to its rows.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use register_ticket_api::config::{Database, Settings};
use register_ticket_api::store;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, SqliteConnection};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use uuid::Uuid;

use crate::process::PATIENCE;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sqlite,
    Postgres,
}

/// What makes a change to a row fail.
pub enum Obstacle {
    /// The row is skipped, as if another change had come first.
    Skips,
    /// The statement fails with this message.
    Fails(&'static str),
}

/// A new, migrated database, deleted on drop. Before that it is checked as `register-ticket-api check` does: whatever
/// the test did, no invariant may be broken.
pub struct TestDatabase {
    pub kind: Kind,
    place: Place,
    broken: AtomicBool,
    /// Opened on first use: until then there is no SQLite file.
    rows: OnceCell<Mutex<Rows>>,
}

enum Place {
    Directory(PathBuf),
    Cluster { cluster: Cluster, name: String },
}

impl TestDatabase {
    pub async fn create(kind: Kind) -> Self {
        Self::create_empty(kind).await.migrated().await
    }

    /// Creates it on a server that `scripts/postgres` started in this directory.
    pub async fn create_on(server: &Path) -> Self {
        Self::of(Place::create(Cluster::of_directory(server)).await).migrated().await
    }

    async fn migrated(self) -> Self {
        store::migrate(&self.database()).await.expect("a new database can be migrated");
        self
    }

    /// Creates a database without our tables.
    pub async fn create_empty(kind: Kind) -> Self {
        Self::of(match kind {
            Kind::Sqlite => {
                let directory = std::env::temp_dir().join(new_name());
                std::fs::create_dir(&directory).expect("a temporary directory can be created");
                Place::Directory(directory)
            }
            Kind::Postgres => Place::create(Cluster::from_env()).await,
        })
    }

    fn of(place: Place) -> Self {
        let kind = if matches!(place, Place::Directory(_)) { Kind::Sqlite } else { Kind::Postgres };
        Self { kind, place, broken: AtomicBool::new(false), rows: OnceCell::new() }
    }

    /// Marks the database as broken by the test itself, so that it is not checked at the end.
    pub fn is_broken_on_purpose(&self) {
        self.broken.store(true, Ordering::SeqCst);
    }

    /// The URL with the owner's login.
    pub fn owner_url(&self) -> String {
        self.place.owner_url()
    }

    /// `DATABASE_URL` for the service: on PostgreSQL with the service's login, which is not the owner's.
    pub fn url(&self) -> String {
        self.place.url()
    }

    /// The environment that a process needs to serve or migrate this database.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.place.environment()
    }

    /// The service's own form of this setting.
    pub fn database(&self) -> Database {
        self.place.settings().database
    }

    async fn rows(&self) -> MutexGuard<'_, Rows> {
        let open = async || Mutex::new(Rows::open(&self.owner_url()).await);
        self.rows.get_or_init(open).await.lock().await
    }

    /// Returns the number that a query selects.
    pub async fn count(&self, sql: &str) -> i64 {
        self.rows().await.count(sql).await
    }

    /// Returns the text that a query selects, for queries that differ between the two databases.
    pub async fn text(&self, sqlite: &str, postgres: &str) -> String {
        let query = if self.kind == Kind::Sqlite { sqlite } else { postgres };
        self.rows().await.texts(query).await.remove(0)
    }

    /// Returns all rows of all tables as text, so that equal texts mean that nothing changed. Each line is a table's
    /// name or a row in JSON, the same on both databases.
    pub async fn snapshot(&self) -> String {
        self.rows().await.snapshot().await
    }

    /// Returns the whole content, including what a snapshot leaves out.
    pub async fn everything(&self) -> String {
        self.rows().await.contents("''", "''").await
    }

    /// The bytes of the database's files, if it has its own.
    pub fn bytes(&self) -> Vec<u8> {
        let Place::Directory(directory) = &self.place else { return Vec::new() };
        let files = std::fs::read_dir(directory).expect("the directory is there");
        files.flat_map(|file| std::fs::read(file.expect("a file").path()).expect("a file can be read")).collect()
    }

    /// Makes a change, such as `insert on scans`, fail until `clear` is called.
    pub async fn obstruct(&self, change: &str, obstacle: Obstacle) {
        let create = match self.kind {
            Kind::Sqlite => {
                let raise = match obstacle {
                    Obstacle::Skips => "raise(ignore)".to_owned(),
                    Obstacle::Fails(cause) => format!("raise(abort, '{cause}')"),
                };
                format!("create trigger obstacle before {change} begin select {raise}; end")
            }
            Kind::Postgres => {
                let raise = match obstacle {
                    Obstacle::Skips => "return null".to_owned(),
                    Obstacle::Fails(cause) => format!("raise '{cause}'"),
                };
                format!(
                    "create function obstacle() returns trigger language plpgsql as $$ begin {raise}; end $$; \
                     create trigger obstacle before {change} for each row execute function obstacle()"
                )
            }
        };
        self.execute(&create).await.expect("nothing is obstructed yet");
    }

    /// Removes the obstacle.
    pub async fn clear(&self) {
        let drop = match self.kind {
            Kind::Sqlite => "drop trigger obstacle",
            Kind::Postgres => "drop function obstacle cascade",
        };
        self.execute(drop).await.expect("something is obstructed");
    }

    /// Runs statements as the owner. Only for tests of the SQL files themselves.
    pub async fn execute(&self, sql: &str) -> Result<(), sqlx::Error> {
        self.rows().await.execute(sql).await
    }
}

fn new_name() -> String {
    format!("test_{}", Uuid::new_v4().simple())
}

impl Place {
    async fn create(cluster: Cluster) -> Self {
        let name = new_name();
        cluster.execute(&format!("create database {name}")).await;
        Self::Cluster { cluster, name }
    }

    fn url(&self) -> String {
        match self {
            Self::Directory(directory) => format!("sqlite:{}", directory.join("tickets.db").display()),
            Self::Cluster { cluster, name } => {
                cluster.url_at(cluster.pooler.as_ref().unwrap_or(&cluster.address), &cluster.service, name)
            }
        }
    }

    fn owner_url(&self) -> String {
        match self {
            Self::Directory(_) => self.url(),
            Self::Cluster { cluster, name } => cluster.url(&cluster.owner, name),
        }
    }

    fn environment(&self) -> Vec<(String, String)> {
        // A machine that pauses for a while must not fail a test's query.
        let patience = PATIENCE.as_millis().to_string();
        let mut variables = vec![("DATABASE_URL".to_owned(), self.url()), ("DB_TIMEOUT_MS".to_owned(), patience)];
        if let Self::Cluster { cluster, .. } = self {
            variables.push(("DB_MIGRATE_USER".to_owned(), cluster.owner.name.clone()));
            variables.push(("DB_MIGRATE_PASSWORD".to_owned(), cluster.owner.password.clone()));
            if cluster.pooler.is_some() {
                let (host, port) = cluster.address.split_once(':').expect("the address has a port");
                variables.push(("DB_POOL_MODE".to_owned(), "transaction".to_owned()));
                variables.push(("DB_MIGRATE_HOST".to_owned(), host.to_owned()));
                variables.push(("DB_MIGRATE_PORT".to_owned(), port.to_owned()));
            }
        }
        variables
    }

    fn settings(&self) -> Settings {
        let variables = self.environment();
        let read = |name: &str| variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        Settings::read(read).expect("the test's own settings are valid")
    }

    /// The broken invariants, if any.
    async fn breaches(&self) -> Vec<String> {
        if let Self::Directory(directory) = self
            && !directory.join("tickets.db").exists()
        {
            return Vec::new();
        }
        let store = store::open(&self.settings());
        if !store.health().await.is_ok_and(|health| health.migrated) {
            return Vec::new();
        }
        let checked = store.check().await.expect("what is migrated can be checked");
        checked.iter().filter_map(store::Checked::breach).collect()
    }

    async fn remove(&self) {
        match self {
            Self::Directory(directory) => drop(std::fs::remove_dir_all(directory)),
            Self::Cluster { cluster, name } => cluster.execute(&format!("drop database {name} with (force)")).await,
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let is_looked_at = !self.broken.load(Ordering::SeqCst) && !std::thread::panicking();
        let end = async {
            let breaches = if is_looked_at { self.place.breaches().await } else { Vec::new() };
            self.place.remove().await;
            breaches
        };
        // A separate runtime, because `drop` cannot block on the test's.
        let breaches = std::thread::scope(|scope| {
            let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
            scope
                .spawn(move || runtime().expect("a runtime needs nothing that the test's had not").block_on(end))
                .join()
        });
        if !std::thread::panicking() {
            let breaches = breaches.expect("the database can be looked at and removed");
            assert!(breaches.is_empty(), "the test has left:\n{}", breaches.join("\n"));
        }
    }
}

/// The PostgreSQL that `scripts/postgres` started, and its two logins.
struct Cluster {
    /// Host and port.
    address: String,
    /// The same for a pooler in front of it that lends sessions per transaction, if the suite runs behind one.
    pooler: Option<String>,
    owner: Login,
    service: Login,
}

struct Login {
    name: String,
    password: String,
}

impl Cluster {
    fn from_env() -> Self {
        let cluster = Self::of_variables(|name| {
            std::env::var(name).unwrap_or_else(|_| {
                panic!("{name} is not set: run ./scripts/test, or first eval \"$(scripts/postgres start DIRECTORY)\"")
            })
        });
        Self { pooler: std::env::var("TEST_POOLER").ok(), ..cluster }
    }

    fn of_directory(directory: &Path) -> Self {
        let file = std::fs::read_to_string(directory.join("env")).expect("scripts/postgres has started it");
        Self::of_variables(|name| {
            let value =
                file.lines().find_map(|line| line.strip_prefix("export ")?.strip_prefix(name)?.strip_prefix('='));
            value.expect("scripts/postgres says it").to_owned()
        })
    }

    fn of_variables(variable: impl Fn(&str) -> String) -> Self {
        let url = variable("TEST_DATABASE_URL");
        let parts = url.strip_prefix("postgres://").and_then(|rest| rest.split_once('@')).and_then(|(login, rest)| {
            let (name, password) = login.split_once(':')?;
            let owner = Login { name: name.to_owned(), password: password.to_owned() };
            Some((owner, rest.split_once('/')?.0.to_owned()))
        });
        let (owner, address) =
            parts.expect("TEST_DATABASE_URL has the form postgres://owner:password@host:port/database");
        let service = Login { name: variable("TEST_SERVICE_USER"), password: variable("TEST_SERVICE_PASSWORD") };
        Self { address, pooler: None, owner, service }
    }

    fn url(&self, login: &Login, database: &str) -> String {
        self.url_at(&self.address, login, database)
    }

    fn url_at(&self, address: &str, login: &Login, database: &str) -> String {
        format!("postgres://{}:{}@{address}/{database}", login.name, login.password)
    }

    /// Runs a statement on the cluster itself.
    async fn execute(&self, sql: &str) {
        let mut cluster = Rows::open(&self.url(&self.owner, "postgres")).await;
        cluster.execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

/// The test's own connection to a database of either kind.
pub enum Rows {
    Sqlite(SqliteConnection),
    Postgres(PgConnection),
}

impl Rows {
    pub async fn open(url: &str) -> Self {
        if url.starts_with("sqlite:") {
            let url = format!("{url}?mode=rwc");
            Self::Sqlite(SqliteConnection::connect(&url).await.expect("the SQLite file opens"))
        } else {
            Self::Postgres(PgConnection::connect(url).await.expect("PostgreSQL takes a connection"))
        }
    }

    /// Returns the first column of a query's result, which must be text.
    pub async fn texts(&mut self, sql: &str) -> Vec<String> {
        let query = AssertSqlSafe(sql.to_owned());
        match self {
            Self::Sqlite(connection) => sqlx::query_scalar(query).fetch_all(connection).await,
            Self::Postgres(connection) => sqlx::query_scalar(query).fetch_all(connection).await,
        }
        .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub async fn count(&mut self, sql: &str) -> i64 {
        let answer = self.texts(&format!("select cast(({sql}) as text)")).await;
        answer[0].parse().unwrap_or_else(|_| panic!("{sql}: {answer:?} is not a number"))
    }

    pub async fn snapshot(&mut self) -> String {
        // Everything except sqlx's own table, the settings (which `TICKET_SECRET` is in use), the numbers of changes,
        // which depend on the server, and the search words, which the first search derives from the rest.
        self.contents("'_sqlx_migrations', 'settings'", "'change', 'search'").await
    }

    /// Returns all rows as text, without these tables and these columns.
    async fn contents(&mut self, tables: &str, columns: &str) -> String {
        let tables = match self {
            Self::Sqlite(_) => {
                format!("select name from sqlite_master where type = 'table' and name not in ({tables}) order by name")
            }
            Self::Postgres(_) => format!(
                "select tablename::text from pg_tables where schemaname = 'public' and tablename not in ({tables}) \
                 order by tablename"
            ),
        };
        let mut snapshot = String::new();
        for table in self.texts(&tables).await {
            let query = match self {
                Self::Postgres(_) => {
                    format!("select (to_jsonb(t) - array[{columns}])::text from {table} t order by 1")
                }
                Self::Sqlite(_) => {
                    let all = format!(
                        "select name || ' ' || lower(type) from pragma_table_info('{table}') where name not in ({columns})"
                    );
                    let members: Vec<String> = self.texts(&all).await.iter().map(|column| member(column)).collect();
                    format!("select json_object({}) from {table} order by 1", members.join(", "))
                }
            };
            snapshot.push_str(&format!("{table}\n{}\n", self.texts(&query).await.join("\n")));
        }
        snapshot
    }

    pub async fn execute(&mut self, sql: &str) -> Result<(), sqlx::Error> {
        let query = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(connection) => query.execute(connection).await.map(drop),
            Self::Postgres(connection) => query.execute(connection).await.map(drop),
        }
    }
}

/// A SQLite column (given with its type) as the field of an object, in the form in which PostgreSQL writes it.
fn member(column: &str) -> String {
    let (name, declared) = column.split_once(' ').expect("a column has a name and a type");
    let part = |from, length| format!("substr(hex({name}), {from}, {length})");
    let uuid = [part(1, 8), part(9, 4), part(13, 4), part(17, 4), part(21, 12)].join(" || '-' || ");
    let value = match declared {
        "boolean" => format!("json(case when {name} then 'true' else 'false' end)"),
        "blob" => format!(
            "lower(case when length({name}) = 16 then {uuid} when length({name}) >= 0 then '\\x' || hex({name}) end)"
        ),
        _ => name.to_owned(),
    };
    format!("'{name}', {value}")
}
