//! Every setting once: its variable, its default, its meaning.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use sqlx::postgres::PgConnectOptions;

/// A line of the table that `--help` and the README show.
pub struct Setting {
    pub variable: &'static str,
    pub default: &'static str,
    pub meaning: &'static str,
}

const fn setting(variable: &'static str, default: &'static str, meaning: &'static str) -> Setting {
    Setting { variable, default, meaning }
}

/// Every variable that the service reads.
pub const SETTINGS: &[Setting] = &[
    setting("PORT", "8080", "the port to listen on"),
    setting("HOST", "0.0.0.0", "the address to listen on"),
    setting("DATABASE_URL", "sqlite:data/tickets.db", "a postgres:// or sqlite: URL; goes before DB_HOST"),
    setting("DB_HOST", "", "PostgreSQL's host, or the directory of its unix socket"),
    setting("DB_PORT", "5432", "PostgreSQL's port"),
    setting("DB_USER", "postgres", "the role the service runs as; it needs no DDL"),
    setting("DB_PASSWORD", "", "its password"),
    setting("DB_NAME", "postgres", "the database"),
    setting("DB_MIGRATE_USER", "DB_USER", "the owner of the schema, for `migrate`"),
    setting("DB_MIGRATE_PASSWORD", "DB_PASSWORD", "the owner's password"),
    setting("DB_POOL_MAX", "5", "connections to the database at most"),
    setting("PUBLIC_URL", "http://localhost:PORT", "where people reach the service, for the links of tickets"),
    setting("ORGANIZER_KEY", "on SQLite data/organizer.key", "the first key, at least 32 characters"),
    setting("TICKET_SECRET", "", "at least 32 characters; without it a stolen database alone makes codes"),
    setting("GOOGLE_CLOUD_PROJECT", "", "completes the trace in log lines on Google Cloud"),
    setting("LOG_FORMAT", "json on Cloud Run, else text", "json or text"),
    setting("RUST_LOG", "info", "which log lines to print, such as `debug` or `warn,sqlx=debug`"),
];

/// A setting that cannot be used. One line, which names the variable and never shows a secret.
#[derive(Debug, PartialEq, Eq)]
pub struct SettingError(String);

impl std::fmt::Display for SettingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingError {}

pub(crate) fn refuse(variable: &str, why: impl std::fmt::Display) -> SettingError {
    SettingError(format!("{variable}: {why}"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Json,
    Text,
}

/// Where the data is.
#[derive(Clone, Debug)]
pub enum Database {
    Postgres {
        service: Box<PgConnectOptions>,
        /// The same database as its owner, for `migrate`.
        owner: Box<PgConnectOptions>,
        /// The login that `migrate` makes a member of `ticket_service`, when it is not the owner's own.
        grant_to: Option<String>,
    },
    Sqlite(PathBuf),
}

/// What the service is told from outside.
#[derive(Clone)]
pub struct Settings {
    pub host: std::net::IpAddr,
    pub port: u16,
    pub database: Database,
    pub pool_max: usize,
    /// Without a slash at its end.
    pub public_url: String,
    pub organizer_key: Option<String>,
    pub ticket_secret: Option<String>,
    pub google_cloud_project: Option<String>,
    pub log_format: LogFormat,
    pub log_filter: String,
}

/// The shortest `ORGANIZER_KEY` and `TICKET_SECRET`, in characters.
pub const SHORTEST_SECRET: usize = 32;

impl Settings {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, SettingError> {
        let unreadable =
            |setting: &&Setting| std::env::var_os(setting.variable).is_some_and(|value| value.to_str().is_none());
        match SETTINGS.iter().find(unreadable) {
            Some(setting) => Err(refuse(setting.variable, "is not UTF-8")),
            None => Self::read(|variable| std::env::var(variable).ok()),
        }
    }

    /// Reads the settings from anywhere. An empty variable counts as one that is not set.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let read = |name: &str| variable(name).filter(|value| !value.is_empty());
        let on_cloud_run = read("K_SERVICE").is_some();
        let vanishing_disk =
            if on_cloud_run { Some("on Cloud Run") } else { read("AWS_LAMBDA_RUNTIME_API").map(|_| "on AWS Lambda") };
        let port = parsed(&read, "PORT", 8080)?;
        Ok(Self {
            host: parsed(&read, "HOST", std::net::Ipv4Addr::UNSPECIFIED.into())?,
            port,
            database: database(&read, vanishing_disk)?,
            pool_max: parsed(&read, "DB_POOL_MAX", std::num::NonZeroUsize::MIN.saturating_add(4))?.get(),
            public_url: public_url(&read, port)?,
            organizer_key: secret(&read, "ORGANIZER_KEY")?,
            ticket_secret: secret(&read, "TICKET_SECRET")?,
            google_cloud_project: read("GOOGLE_CLOUD_PROJECT"),
            log_format: match read("LOG_FORMAT").as_deref() {
                Some("json") => LogFormat::Json,
                Some("text") => LogFormat::Text,
                Some(_) => return Err(refuse("LOG_FORMAT", "must be json or text")),
                None if on_cloud_run => LogFormat::Json,
                None => LogFormat::Text,
            },
            log_filter: log_filter(&read)?,
        })
    }

    /// The file that holds the organizer's key when the environment names none: beside the SQLite file.
    pub fn organizer_key_file(&self) -> Option<PathBuf> {
        match &self.database {
            Database::Sqlite(path) => Some(path.with_file_name("organizer.key")),
            Database::Postgres { .. } => None,
        }
    }
}

fn parsed<T>(read: &impl Fn(&str) -> Option<String>, variable: &str, default: T) -> Result<T, SettingError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    match read(variable) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|error| refuse(variable, format!("`{value}`: {error}"))),
    }
}

fn secret(read: &impl Fn(&str) -> Option<String>, variable: &str) -> Result<Option<String>, SettingError> {
    match read(variable) {
        Some(value) if value.chars().count() < SHORTEST_SECRET => {
            Err(refuse(variable, format!("must have at least {SHORTEST_SECRET} characters")))
        }
        value => Ok(value),
    }
}

fn log_filter(read: &impl Fn(&str) -> Option<String>) -> Result<String, SettingError> {
    let filter = read("RUST_LOG").unwrap_or_else(|| "info".into());
    tracing_subscriber::filter::Targets::from_str(&filter).map_err(|error| refuse("RUST_LOG", error))?;
    Ok(filter)
}

fn public_url(read: &impl Fn(&str) -> Option<String>, port: u16) -> Result<String, SettingError> {
    let Some(url) = read("PUBLIC_URL") else {
        return Ok(format!("http://localhost:{port}"));
    };
    let valid = url.parse::<http::Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none()
    });
    if !valid {
        return Err(refuse("PUBLIC_URL", "must be an http:// or https:// address"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn database(read: &impl Fn(&str) -> Option<String>, vanishing_disk: Option<&str>) -> Result<Database, SettingError> {
    if let Some(url) = read("DATABASE_URL") {
        if let Some(path) = url.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() || path.contains(['?', '#']) || path == ":memory:" {
                return Err(refuse("DATABASE_URL", "must name a file, such as sqlite:data/tickets.db"));
            }
            return Ok(Database::Sqlite(PathBuf::from(path)));
        }
        if url.starts_with("postgres://") || url.starts_with("postgresql://") {
            // The URL holds a password, so the parser's own words about it are not shown.
            let options = url.parse().map_err(|_| refuse("DATABASE_URL", "is not a valid postgres:// URL"))?;
            return Ok(postgres(read, options));
        }
        return Err(refuse("DATABASE_URL", "must begin with postgres:// or sqlite:"));
    }
    if let Some(host) = read("DB_HOST") {
        let options = PgConnectOptions::new_without_pgpass()
            .port(parsed(read, "DB_PORT", 5432)?)
            .username(&read("DB_USER").unwrap_or_else(|| "postgres".into()))
            .database(&read("DB_NAME").unwrap_or_else(|| "postgres".into()));
        let options = match read("DB_PASSWORD") {
            Some(password) => options.password(&password),
            None => options,
        };
        let options = if Path::new(&host).is_absolute() { options.socket(host) } else { options.host(&host) };
        return Ok(postgres(read, options));
    }
    if let Some(place) = vanishing_disk {
        return Err(refuse(
            "DATABASE_URL",
            format!("or DB_HOST must be set {place}, where a SQLite file would vanish with the instance"),
        ));
    }
    Ok(Database::Sqlite(PathBuf::from("data/tickets.db")))
}

fn postgres(read: &impl Fn(&str) -> Option<String>, service: PgConnectOptions) -> Database {
    let mut owner = service.clone();
    let mut grant_to = None;
    if let Some(user) = read("DB_MIGRATE_USER").filter(|user| user != service.get_username()) {
        grant_to = Some(service.get_username().to_owned());
        owner = owner.username(&user);
    }
    if let Some(password) = read("DB_MIGRATE_PASSWORD") {
        owner = owner.password(&password);
    }
    Database::Postgres { service: Box::new(service), owner: Box::new(owner), grant_to }
}
