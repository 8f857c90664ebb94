//! All settings: variables, defaults and meanings.

use std::borrow::Cow;
use std::ffi::OsString;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use data_encoding::BASE64;
use http::{HeaderMap, Uri};
use lettre::message::Mailbox;
use percent_encoding::percent_decode_str;
use ring::signature::RsaKeyPair;
use serde::Deserialize;
use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};

/// A row of the table in `--help` and the README.
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
    setting("PORT", "8080", "port to listen on"),
    setting("HOST", "::", "address to listen on; `::` means all, including IPv4"),
    setting("DATABASE_URL", "sqlite:data/tickets.db", "postgres:// or sqlite: URL; takes precedence over DB_HOST"),
    setting("DB_HOST", "", "host of PostgreSQL, or the directory of its Unix socket"),
    setting("DB_PORT", "5432", "PostgreSQL's port"),
    setting("DB_USER", "postgres", "role that the service connects as; needs no DDL privileges"),
    setting("DB_PASSWORD", "", "its password"),
    setting("DB_NAME", "postgres", "the database"),
    setting(
        "DB_SSLMODE",
        "verify-full over a network, else disable",
        "TLS mode of connections to PostgreSQL; sslmode in DATABASE_URL takes precedence",
    ),
    setting(
        "DB_SSLROOTCERT",
        "",
        "file of certificate authorities to trust for PostgreSQL, in addition to Mozilla's list",
    ),
    setting("DB_MIGRATE_USER", "DB_USER", "owner of the schema, for `migrate`"),
    setting("DB_MIGRATE_PASSWORD", "DB_PASSWORD", "the owner's password"),
    setting(
        "DB_MIGRATE_HOST",
        "DB_HOST",
        "direct host of the database, for `migrate`, `backup` and `restore`, if DB_HOST is a pooler",
    ),
    setting("DB_MIGRATE_PORT", "5432", "port of DB_MIGRATE_HOST"),
    setting("DB_POOL_MODE", "session", "`transaction` behind PgBouncer or a similar pooler; requires DB_MIGRATE_HOST"),
    setting("DB_POOL_MAX", "5", "maximum number of connections to the database"),
    setting(
        "DB_TIMEOUT_MS",
        "2500",
        "time limit for the database work of a request, in milliseconds; after it the request gets a 503",
    ),
    setting("PUBLIC_URL", "http://localhost:PORT", "address at which people reach the service, for ticket links"),
    setting(
        "ORGANIZER_KEY",
        "on SQLite data/organizer.key",
        "first key, with the role organizer; at least 32 characters",
    ),
    setting("TICKET_SECRET", "", "at least 32 characters; without it, a stolen database is enough to make codes"),
    setting(
        "TRUSTED_PROXIES",
        "127.0.0.0/8,::1, and on Cloud Run its front end",
        "addresses and networks of proxies, which may open any number of connections and tell who sent a request",
    ),
    setting(
        "BACKUP_DIR",
        "",
        "directory for backups; on SQLite, `serve` then takes one every day, and every minute while people are scanned",
    ),
    setting(
        "BACKUP_COMMAND",
        "",
        "program and first arguments to send a backup elsewhere; the path of the backup is appended",
    ),
    setting("SMTP_URL", "", "mail server, such as smtps://user:password@smtp.example.org; without it, no mail is sent"),
    setting("MAIL_FROM", "", "sender of the mails, such as Tickets <tickets@example.org>"),
    setting("GOOGLE_WALLET_ISSUER_ID", "", "issuer ID for Google Wallet passes; without it, there are none"),
    setting("GOOGLE_WALLET_KEY", "", "key of the issuer's service account: the JSON or a path to it"),
    setting("GOOGLE_CLOUD_PROJECT", "", "completes the trace in log lines on Google Cloud"),
    setting("LOG_FORMAT", "json on Cloud Run, else text", "json or text"),
    setting("REVISION", "", "commit that the program was built from, for /health; set in the image"),
    setting("RUST_LOG", "info", "log filter, such as `debug` or `warn,sqlx=debug`"),
];

/// An error in a setting: one line, which names the variable and never shows a secret.
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

/// The connection to PostgreSQL: direct, or through a pooler.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// Direct, or through what passes on the settings with which a session begins.
    Session,
    /// Through a pooler, such as PgBouncer, that may give each transaction any session, so that no session state outlives a
    /// transaction.
    Transaction,
}

/// The location of the data. Without `Debug`, which would show passwords.
#[derive(Clone)]
pub enum Database {
    Postgres {
        service: Box<PgConnectOptions>,
        /// The same database as its owner, for `migrate`.
        owner: Box<PgConnectOptions>,
        /// For how long a connection of the service leads to the same session.
        pool_mode: PoolMode,
        /// The login that `migrate` makes a member of `ticket_service`, if it differs from the owner's.
        grant_to: Option<String>,
    },
    Sqlite(PathBuf),
}

/// Names the database, without a password.
impl std::fmt::Display for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "{}", path.display()),
            Self::Postgres { owner, .. } => {
                write!(f, "{} on {}", owner.get_database().unwrap_or(owner.get_username()), owner.get_host())
            }
        }
    }
}

impl Database {
    /// Returns the sslmode of a connection over a network on which others could listen, or impersonate the database.
    pub fn weak_sslmode(&self) -> Option<String> {
        let Self::Postgres { service, .. } = self else { return None };
        let is_weak = !stays_here(service) && !matches!(service.get_ssl_mode(), PgSslMode::VerifyFull);
        let url = is_weak.then(|| for_a_url(service).to_url_lossy())?;
        url.query_pairs().find(|(name, _)| name == "sslmode").map(|(_, mode)| mode.into_owned())
    }
}

/// The mail server, and the sender of mails. Without `Debug`, which would show the password.
#[derive(Clone)]
pub struct Mail {
    pub host: String,
    pub port: u16,
    pub encryption: Encryption,
    /// User and password.
    pub login: Option<(String, String)>,
    /// A file of certificate authorities to trust for the server, besides Mozilla's list.
    pub root_cert: Option<PathBuf>,
    pub from: Mailbox,
}

/// The issuer of Google Wallet passes. Without `Debug`, which would show the key.
pub struct Issuer {
    pub id: String,
    /// The address of the service account, which signs for the issuer.
    pub email: String,
    pub key: RsaKeyPair,
}

/// The fields needed from the JSON of a service account's key.
#[derive(Deserialize)]
struct Account {
    client_email: String,
    /// PKCS #8, in PEM.
    private_key: String,
}

/// The protection of the connection to the mail server. Nothing is sent over a weaker one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// TLS from the first byte.
    Tls,
    /// TLS by STARTTLS, before anything else is sent.
    StartTls,
    None,
}

impl Mail {
    /// Whether others on the network could read who gets which ticket.
    pub fn is_open(&self) -> bool {
        self.encryption == Encryption::None && !is_this_machine(&self.host)
    }
}

/// The service's settings.
#[derive(Clone)]
pub struct Settings {
    pub host: IpAddr,
    pub port: u16,
    pub database: Database,
    pub pool_max: usize,
    /// The time limit for all calls to the database of one request.
    pub db_timeout: Duration,
    /// Without a trailing slash.
    pub public_url: String,
    pub organizer_key: Option<String>,
    pub ticket_secret: Option<String>,
    pub trusted_proxies: Proxies,
    pub backup_dir: Option<PathBuf>,
    pub backup_command: Option<String>,
    pub mail: Option<Mail>,
    /// The issuer of Google Wallet passes.
    pub wallet: Option<Arc<Issuer>>,
    /// Whether the process runs between requests, and its disk outlives it. Neither is so on Cloud Run and AWS Lambda.
    pub is_resident: bool,
    pub google_cloud_project: Option<String>,
    /// The commit that the program was built from, if the build set it.
    pub revision: Option<String>,
    pub log_format: LogFormat,
    pub log_filter: String,
}

/// The proxies, which forward requests and are trusted to name the sender.
#[derive(Clone)]
pub struct Proxies {
    networks: Vec<Network>,
    /// Whether only proxies can connect, as on Cloud Run, where Google's front end does, from arbitrary addresses.
    only_proxies: bool,
}

/// All addresses with a common prefix of `bits` bits. IPv4 addresses are mapped to IPv6, `::ffff:0:0/96`.
#[derive(Clone, Copy)]
struct Network {
    first: u128,
    bits: u32,
}

fn bits_of(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

impl Network {
    fn contains(self, address: IpAddr) -> bool {
        (self.first ^ bits_of(address)).leading_zeros() >= self.bits
    }
}

impl FromStr for Network {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (address, length) = text.split_once('/').map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address.parse().map_err(drop)?;
        let (before, most) = if address.is_ipv4() { (96, 32) } else { (0, 128) };
        let length = length.map_or(Ok(most), str::parse).map_err(drop)?;
        let network = Self { first: bits_of(address), bits: before + length };
        // Bits after the prefix are a mistake.
        let is_first = network.first.checked_shl(network.bits).unwrap_or_default() == 0;
        if length <= most && is_first { Ok(network) } else { Err(()) }
    }
}

impl Proxies {
    /// Whether a connection from this address is a proxy's.
    pub fn connects_from(&self, address: IpAddr) -> bool {
        self.only_proxies || self.is_trusted(address)
    }

    fn is_trusted(&self, address: IpAddr) -> bool {
        self.networks.iter().any(|network| network.contains(address))
    }

    /// Returns the sender of a request that came from `peer`: the nearest address that is not a proxy's, according to
    /// trusted proxies.
    pub fn sender(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let (mut sender, mut is_proxy) = (peer, self.connects_from(peer));
        for hop in hops(headers).into_iter().rev() {
            match hop {
                Some(hop) if is_proxy => (sender, is_proxy) = (hop, self.is_trusted(hop)),
                _ => break,
            }
        }
        sender.to_canonical()
    }
}

/// Returns the addresses in a request's `X-Forwarded-For` or, without it, `Forwarded` (RFC 7239), the nearest last. Never
/// both: a proxy that sets one of them passes on what its client wrote into the other.
fn hops(headers: &HeaderMap) -> Vec<Option<IpAddr>> {
    let values = |name| headers.get_all(name).into_iter().map(|value| value.to_str().unwrap_or_default());
    if headers.contains_key("x-forwarded-for") {
        return values("x-forwarded-for").flat_map(|list| list.split(',')).map(hop).collect();
    }
    let told = |element: &str| {
        let pairs = element.split(';').filter_map(|pair| pair.trim().split_once('='));
        pairs.filter(|(name, _)| name.eq_ignore_ascii_case("for")).find_map(|(_, node)| hop(node.trim_matches('"')))
    };
    values("forwarded").flat_map(|list| list.split(',')).map(told).collect()
}

/// Parses an address, with or without a port.
fn hop(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = || text.trim_start_matches('[').trim_end_matches(']').parse().ok();
    text.parse::<SocketAddr>().map(|address| address.ip()).ok().or_else(bare)
}

fn networks(list: &str) -> Result<Vec<Network>, SettingError> {
    let network = |text: &str| {
        let why = format!("`{}` is neither an address nor a network such as 10.0.0.0/8", text.escape_debug());
        text.trim().parse().map_err(|()| refuse("TRUSTED_PROXIES", why))
    };
    list.split(',').map(network).collect()
}

/// The minimum length of `ORGANIZER_KEY` and `TICKET_SECRET`, in characters.
pub const SHORTEST_SECRET: usize = 32;

impl Settings {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, SettingError> {
        Self::read_os(|variable| std::env::var_os(variable))
    }

    /// A value that is not UTF-8 must not count as unset: without `TICKET_SECRET`, tickets are less safe.
    fn read_os(variable: impl Fn(&str) -> Option<OsString>) -> Result<Self, SettingError> {
        let broken = |setting: &&Setting| variable(setting.variable).is_some_and(|value| value.to_str().is_none());
        match SETTINGS.iter().find(broken) {
            Some(setting) => Err(refuse(setting.variable, "is not UTF-8")),
            None => Self::read(|name| variable(name)?.into_string().ok()),
        }
    }

    /// Reads the settings from any source. An empty variable counts as unset.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, SettingError> {
        let read = |name: &str| variable(name).filter(|value| !value.is_empty());
        let on_cloud_run = read("K_SERVICE").is_some();
        let vanishing_disk =
            if on_cloud_run { Some("on Cloud Run") } else { read("AWS_LAMBDA_RUNTIME_API").map(|_| "on AWS Lambda") };
        let port = parsed(&read, "PORT", 8080)?;
        Ok(Self {
            host: parsed(&read, "HOST", Ipv6Addr::UNSPECIFIED.into())?,
            port,
            database: database(&read, vanishing_disk)?,
            // The pool reserves memory for all connections at once, so the maximum is bounded.
            pool_max: parsed(&read, "DB_POOL_MAX", NonZeroU16::MIN.saturating_add(4))?.get().into(),
            db_timeout: db_timeout(&read)?,
            public_url: public_url(&read, port)?,
            organizer_key: organizer_key(&read)?,
            ticket_secret: secret(&read, "TICKET_SECRET")?,
            trusted_proxies: Proxies {
                networks: networks(read("TRUSTED_PROXIES").as_deref().unwrap_or("127.0.0.0/8,::1"))?,
                only_proxies: on_cloud_run,
            },
            backup_dir: read("BACKUP_DIR").map(PathBuf::from),
            backup_command: read("BACKUP_COMMAND").filter(|command| !command.trim().is_empty()),
            mail: mail(&read)?,
            wallet: wallet(&read)?,
            is_resident: vanishing_disk.is_none(),
            google_cloud_project: read("GOOGLE_CLOUD_PROJECT"),
            revision: read("REVISION"),
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

    pub fn sqlite_file(&self) -> Option<&Path> {
        match &self.database {
            Database::Sqlite(path) => Some(path),
            Database::Postgres { .. } => None,
        }
    }

    /// Returns the file with the organizer's key, used if the environment has none: beside the SQLite file.
    pub fn organizer_key_file(&self) -> Option<PathBuf> {
        self.sqlite_file().map(|path| path.with_file_name("organizer.key"))
    }

    /// Returns where `serve` takes a backup every day, if it does.
    pub fn regular_backups(&self) -> Option<&Path> {
        self.backup_dir.as_deref().filter(|_| self.is_resident && self.sqlite_file().is_some())
    }

    /// Whether people reach the service by HTTPS. Called for every response.
    pub fn is_https(&self) -> bool {
        self.public_url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
    }

    /// Whether browsers would deny the service the camera and offline pages: over plain HTTP, they trust only the machine
    /// that they run on.
    pub fn is_distrusted(&self) -> bool {
        let uri = self.public_url.parse::<Uri>().unwrap_or_default();
        !self.is_https() && !is_this_machine(uri.host().unwrap_or_default())
    }
}

/// Whether a host is this machine, judged by its name or address alone.
fn is_this_machine(host: &str) -> bool {
    let host = host.trim_matches(['[', ']']);
    host.parse::<IpAddr>().map_or_else(
        |_| host.eq_ignore_ascii_case("localhost") || host.ends_with(".localhost"),
        |address| address.is_loopback(),
    )
}

fn parsed<T>(read: &impl Fn(&str) -> Option<String>, variable: &str, default: T) -> Result<T, SettingError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    match read(variable) {
        None => Ok(default),
        Some(value) => value.parse().map_err(|error| refuse(variable, format!("`{}`: {error}", value.escape_debug()))),
    }
}

/// The maximum of `DB_TIMEOUT_MS`: enough for any machine, and more than most clients wait.
const LONGEST_DB_TIMEOUT: u16 = 60_000;

fn db_timeout(read: &impl Fn(&str) -> Option<String>) -> Result<Duration, SettingError> {
    match parsed(read, "DB_TIMEOUT_MS", 2_500)? {
        milliseconds @ 100..=LONGEST_DB_TIMEOUT => Ok(Duration::from_millis(milliseconds.into())),
        _ => Err(refuse("DB_TIMEOUT_MS", format!("must be between 100 and {LONGEST_DB_TIMEOUT}"))),
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

/// Rejects a key that no header can carry: it would admit nobody. Often it ends with the line break of its file.
fn organizer_key(read: &impl Fn(&str) -> Option<String>) -> Result<Option<String>, SettingError> {
    match secret(read, "ORGANIZER_KEY")? {
        Some(key) if !key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Err(refuse("ORGANIZER_KEY", "must have only visible ASCII characters, no space and no line break"))
        }
        key => Ok(key),
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
    // Paths are appended to it, the pages' own paths begin at the root, and everybody sees it.
    let valid = url.parse::<Uri>().is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some()
            && uri.path() == "/"
            && !url.contains(['?', '#', '@'])
    });
    if !valid {
        return Err(refuse(
            "PUBLIC_URL",
            "must be an http:// or https:// address without user, path, query and fragment",
        ));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

fn mail(read: &impl Fn(&str) -> Option<String>) -> Result<Option<Mail>, SettingError> {
    let (url, from) = match (read("SMTP_URL"), read("MAIL_FROM")) {
        (None, None) => return Ok(None),
        (Some(url), Some(from)) => (url, from),
        (Some(_), None) => return Err(refuse("MAIL_FROM", "must be set if SMTP_URL is")),
        (None, Some(_)) => return Err(refuse("SMTP_URL", "must be set if MAIL_FROM is")),
    };
    // The errors do not show the values, which contain a password or somebody's address.
    let from =
        from.parse().map_err(|_| refuse("MAIL_FROM", "must be an address such as `Tickets <tickets@example.org>`"))?;
    let url = url.parse::<Uri>().ok().filter(|uri| matches!(uri.path(), "" | "/"));
    mail_server(url, from).ok_or_else(|| {
        let form = "must be smtps:// or smtp:// with host and port, such as smtps://user:password@smtp.example.org:465; after \
                    a `?`, it may have tls=required or tls=none (smtp:// only) and sslrootcert= with a readable file";
        refuse("SMTP_URL", form)
    }).map(Some)
}

fn wallet(read: &impl Fn(&str) -> Option<String>) -> Result<Option<Arc<Issuer>>, SettingError> {
    let (issuer_id, key) = match (read("GOOGLE_WALLET_ISSUER_ID"), read("GOOGLE_WALLET_KEY")) {
        (None, None) => return Ok(None),
        (Some(issuer_id), Some(key)) => (issuer_id, key),
        (Some(_), None) => return Err(refuse("GOOGLE_WALLET_KEY", "must be set if GOOGLE_WALLET_ISSUER_ID is")),
        (None, Some(_)) => return Err(refuse("GOOGLE_WALLET_ISSUER_ID", "must be set if GOOGLE_WALLET_KEY is")),
    };
    if issuer_id.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Err(refuse("GOOGLE_WALLET_ISSUER_ID", "must be the number of an issuer"));
    }
    let form = "must be the JSON of a service account's key, with `client_email` and `private_key`, or a file with it";
    issuer(issuer_id, &key).map(|issuer| Some(Arc::new(issuer))).ok_or_else(|| refuse("GOOGLE_WALLET_KEY", form))
}

/// Parses the JSON of a service account's key, or of the file with it.
fn issuer(id: String, key: &str) -> Option<Issuer> {
    let file = (!key.trim_start().starts_with('{')).then(|| std::fs::read_to_string(key));
    let json = file.transpose().ok()?;
    let account: Account = serde_json::from_str(json.as_deref().unwrap_or(key)).ok()?;
    let base64: String = account.private_key.lines().filter(|line| !line.starts_with("-----")).map(str::trim).collect();
    let key = RsaKeyPair::from_pkcs8(&BASE64.decode(base64.as_bytes()).ok()?).ok()?;
    Some(Issuer { id, email: account.client_email, key })
}

/// Parses the URL of a mail server. Over a network, the connection is encrypted unless the URL says otherwise.
fn mail_server(url: Option<Uri>, from: Mailbox) -> Option<Mail> {
    let url = url?;
    let host = url.host().filter(|host| !host.is_empty())?;
    let implicit = match url.scheme_str()? {
        "smtps" => true,
        "smtp" => false,
        _ => return None,
    };
    let decoded = |text: &str| percent_decode_str(text).decode_utf8().ok().map(Cow::into_owned);
    let authority = url.authority()?.as_str();
    let (login, rest) = authority.rsplit_once('@').map_or((None, authority), |(login, rest)| (Some(login), rest));
    let login = match login.map(|login| login.split_once(':')) {
        Some(login) => login.and_then(|(user, password)| Some((decoded(user)?, decoded(password)?))).map(Some)?,
        None => None,
    };
    let port = match rest.strip_prefix(host)? {
        "" if implicit => 465,
        "" => 587,
        port => port.strip_prefix(':')?.parse().ok()?,
    };
    let host = host.trim_matches(['[', ']']).to_owned();
    let mut encryption = match implicit {
        true => Encryption::Tls,
        false if is_this_machine(&host) => Encryption::None,
        false => Encryption::StartTls,
    };
    let mut root_cert = None;
    let query: Vec<(String, String)> = serde_urlencoded::from_str(url.query().unwrap_or_default()).ok()?;
    for (name, value) in query {
        match (name.as_str(), value.as_str()) {
            ("tls", "required") if !implicit => encryption = Encryption::StartTls,
            ("tls", "none") if !implicit => encryption = Encryption::None,
            ("sslrootcert", file) if Path::new(file).is_file() => root_cert = Some(PathBuf::from(file)),
            _ => return None,
        }
    }
    Some(Mail { host, port, encryption, login, root_cert, from })
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
        if is_postgres(&url) {
            let tls = tls(read)?;
            let options =
                postgres_server(&url, &tls).ok_or_else(|| refuse("DATABASE_URL", "is not a valid postgres:// URL"))?;
            return postgres(read, options, &tls, query_of(&url));
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
        let options = at_host(options, &host);
        let tls = tls(read)?;
        return postgres(read, tls.protect(options, ""), &tls, "");
    }
    if let Some(platform) = vanishing_disk {
        return Err(refuse(
            "DATABASE_URL",
            format!("or DB_HOST must be set {platform}, where a SQLite file would vanish with the instance"),
        ));
    }
    Ok(Database::Sqlite(PathBuf::from("data/tickets.db")))
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// Parses a postgres:// URL. There is no error text, because the parser's could show the password.
pub fn postgres_server(url: &str, unless_told: &Tls) -> Option<PgConnectOptions> {
    let options = url.parse().ok().filter(|_| is_postgres(url))?;
    Some(unless_told.protect(options, query_of(url)))
}

fn query_of(url: &str) -> &str {
    let before_fragment = url.split_once('#').map_or(url, |(before, _)| before);
    before_fragment.split_once('?').map_or("", |(_, query)| query)
}

/// Replaces user and host, so that the connection's other options can be written as a URL: sqlx would panic for a host
/// that a URL cannot hold, such as `::1` in `DB_HOST`.
pub fn for_a_url(options: &PgConnectOptions) -> PgConnectOptions {
    options.clone().username("user").host("host")
}

/// Sets a host, or the directory of a socket.
fn at_host(options: PgConnectOptions, host: &str) -> PgConnectOptions {
    if Path::new(host).is_absolute() { options.socket(host) } else { options.host(host) }
}

/// The TLS settings for PostgreSQL.
#[derive(Default)]
pub struct Tls {
    mode: Option<PgSslMode>,
    root_cert: Option<String>,
}

fn tls(read: &impl Fn(&str) -> Option<String>) -> Result<Tls, SettingError> {
    let mode = read("DB_SSLMODE").map(|mode| mode.parse::<PgSslMode>()).transpose();
    let mode =
        mode.map_err(|_| refuse("DB_SSLMODE", "must be disable, allow, prefer, require, verify-ca or verify-full"))?;
    let root_cert = read("DB_SSLROOTCERT");
    match &root_cert {
        Some(file) if !Path::new(file).is_file() => Err(refuse("DB_SSLROOTCERT", "must be a file that can be read")),
        _ => Ok(Tls { mode, root_cert }),
    }
}

impl Tls {
    /// Requires a verified server over a network, unless the URL or the setting says otherwise.
    fn protect(&self, options: PgConnectOptions, query: &str) -> PgConnectOptions {
        let query: Vec<(String, String)> = serde_urlencoded::from_str(query).unwrap_or_default();
        let says = |names: &[&str]| query.iter().any(|(name, _)| names.contains(&name.as_str()));
        let options = match &self.root_cert {
            Some(file) if !says(&["sslrootcert", "ssl-root-cert", "ssl-ca"]) => options.ssl_root_cert(file),
            _ => options,
        };
        match self.mode {
            // As in libpq: PostgreSQL has no TLS on a socket.
            _ if is_socket(&options) => options.ssl_mode(PgSslMode::Disable),
            _ if says(&["sslmode", "ssl-mode"]) => options,
            Some(mode) => options.ssl_mode(mode),
            // Nobody can listen there, and TLS would cost each new connection a round trip and perhaps a handshake.
            None if stays_here(&options) => match options.get_ssl_mode() {
                PgSslMode::Prefer => options.ssl_mode(PgSslMode::Disable),
                _ => options, // What libpq's PGSSLMODE asks for.
            },
            None => options.ssl_mode(PgSslMode::VerifyFull),
        }
    }
}

fn is_socket(options: &PgConnectOptions) -> bool {
    options.get_socket().is_some() || options.get_host().starts_with('/')
}

/// Whether the connection to PostgreSQL stays on this machine.
fn stays_here(options: &PgConnectOptions) -> bool {
    is_socket(options) || is_this_machine(options.get_host())
}

fn postgres(
    read: &impl Fn(&str) -> Option<String>,
    service: PgConnectOptions,
    tls: &Tls,
    query: &str,
) -> Result<Database, SettingError> {
    let mut owner = service.clone();
    let mut grant_to = None;
    if let Some(user) = read("DB_MIGRATE_USER").filter(|user| user != service.get_username()) {
        grant_to = Some(service.get_username().to_owned());
        owner = owner.username(&user);
    }
    if let Some(password) = read("DB_MIGRATE_PASSWORD") {
        owner = owner.password(&password);
    }
    let (direct, port) = (read("DB_MIGRATE_HOST"), parsed(read, "DB_MIGRATE_PORT", 5432)?);
    if let Some(host) = &direct {
        owner = tls.protect(at_host(owner.port(port), host), query);
    }
    let pool_mode = match read("DB_POOL_MODE").as_deref() {
        None | Some("session") => PoolMode::Session,
        Some("transaction") if direct.is_none() => {
            let why = "transaction needs DB_MIGRATE_HOST, the database itself: \
                       migrate, backup and restore need a session";
            return Err(refuse("DB_POOL_MODE", why));
        }
        Some("transaction") => PoolMode::Transaction,
        Some(_) => return Err(refuse("DB_POOL_MODE", "must be session or transaction")),
    };
    Ok(Database::Postgres { service: Box::new(service), owner: Box::new(owner), pool_mode, grant_to })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::os::unix::ffi::OsStringExt as _;

    use sqlx::ConnectOptions as _;

    use super::*;

    /// The minimum length of a secret.
    const SECRET: &str = "a-secret-that-is-only-in-a-test.";

    fn read(variables: &[(&str, &str)]) -> Result<Settings, SettingError> {
        Settings::read(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
    }

    fn refusal(variables: &[(&str, &str)]) -> String {
        read(variables).err().unwrap_or_else(|| panic!("accepted: {variables:?}")).to_string()
    }

    fn sqlite_path(variables: &[(&str, &str)]) -> PathBuf {
        match read(variables).unwrap().database {
            Database::Sqlite(path) => path,
            Database::Postgres { .. } => panic!("{variables:?} is not SQLite"),
        }
    }

    struct Postgres {
        service: PgConnectOptions,
        owner: PgConnectOptions,
        pool_mode: PoolMode,
        grant_to: Option<String>,
    }

    fn postgres(variables: &[(&str, &str)]) -> Postgres {
        match read(variables).unwrap().database {
            Database::Postgres { service, owner, pool_mode, grant_to } => {
                Postgres { service: *service, owner: *owner, pool_mode, grant_to }
            }
            Database::Sqlite(path) => panic!("{variables:?} is {path:?}"),
        }
    }

    fn password(options: &PgConnectOptions) -> Option<String> {
        options.to_url_lossy().password().map(ToOwned::to_owned)
    }

    #[test]
    fn every_setting_has_a_default() {
        let settings = read(&[]).unwrap();
        assert_eq!(settings.host.to_string(), "::");
        assert_eq!(settings.port, 8080);
        assert_eq!(sqlite_path(&[]), Path::new("data/tickets.db"));
        assert_eq!(settings.organizer_key_file().unwrap(), Path::new("data/organizer.key"));
        assert_eq!(settings.pool_max, 5);
        assert_eq!(settings.db_timeout, Duration::from_millis(2_500));
        assert_eq!(settings.public_url, "http://localhost:8080");
        assert_eq!(settings.organizer_key, None);
        assert_eq!(settings.ticket_secret, None);
        assert_eq!(settings.regular_backups(), None);
        assert_eq!(settings.backup_command, None);
        assert_eq!(settings.google_cloud_project, None);
        assert_eq!(settings.log_format, LogFormat::Text);
        assert_eq!(settings.log_filter, "info");
    }

    #[test]
    fn behind_a_pooler_the_owner_goes_to_the_database_itself() {
        let pooled = [("DATABASE_URL", "postgres://tickets@localhost:6432/tickets"), ("DB_POOL_MODE", "transaction")];
        let no_way = "DB_POOL_MODE: transaction needs DB_MIGRATE_HOST, the database itself: ";
        assert!(refusal(&pooled).starts_with(no_way));
        let direct = [pooled[0], pooled[1], ("DB_MIGRATE_HOST", "db.example.org"), ("DB_MIGRATE_PORT", "5433")];
        let Postgres { service, owner, pool_mode, .. } = postgres(&direct);
        assert_eq!((pool_mode, service.get_host(), service.get_port()), (PoolMode::Transaction, "localhost", 6432));
        assert_eq!((owner.get_host(), owner.get_port()), ("db.example.org", 5433));
        // TLS settings for this machine would not protect that connection.
        assert!(matches!(owner.get_ssl_mode(), PgSslMode::VerifyFull));
        assert_eq!(postgres(&pooled[..1]).pool_mode, PoolMode::Session);
        assert_eq!(
            refusal(&[pooled[0], ("DB_POOL_MODE", "statement")]),
            "DB_POOL_MODE: must be session or transaction"
        );
    }

    #[test]
    fn every_setting_is_read() {
        let settings = read(&[
            ("HOST", "::1"),
            ("PORT", "9000"),
            ("DATABASE_URL", "sqlite:box/office.db"),
            ("DB_POOL_MAX", "32"),
            ("DB_TIMEOUT_MS", "10000"),
            ("PUBLIC_URL", "https://tickets.example.org/"),
            ("ORGANIZER_KEY", SECRET),
            ("TICKET_SECRET", SECRET),
            ("BACKUP_DIR", "backups"),
            ("BACKUP_COMMAND", "send --to elsewhere"),
            ("GOOGLE_CLOUD_PROJECT", "a-project"),
            ("LOG_FORMAT", "json"),
            ("RUST_LOG", "warn,sqlx=debug"),
        ])
        .unwrap();
        assert_eq!(settings.host.to_string(), "::1");
        assert_eq!(settings.port, 9000);
        assert_eq!(settings.organizer_key_file().unwrap(), Path::new("box/organizer.key"));
        assert_eq!(settings.pool_max, 32);
        assert_eq!(settings.db_timeout, Duration::from_secs(10));
        assert_eq!(settings.public_url, "https://tickets.example.org");
        assert_eq!(settings.organizer_key.as_deref(), Some(SECRET));
        assert_eq!(settings.ticket_secret.as_deref(), Some(SECRET));
        assert_eq!(settings.regular_backups().unwrap(), Path::new("backups"));
        assert_eq!(settings.backup_command.as_deref(), Some("send --to elsewhere"));
        assert_eq!(settings.google_cloud_project.as_deref(), Some("a-project"));
        assert_eq!(settings.log_format, LogFormat::Json);
        assert_eq!(settings.log_filter, "warn,sqlx=debug");
    }

    #[test]
    fn proxies_are_addresses_and_networks_and_on_cloud_run_whoever_connects() {
        let connects = |variables: &[(&str, &str)], address: &str| {
            read(variables).unwrap().trusted_proxies.connects_from(address.parse().unwrap())
        };
        let trusted = |list: &str, address: &str| connects(&[("TRUSTED_PROXIES", list)], address);
        for (list, inside, outside) in [
            ("", "127.0.0.1", "128.0.0.1"),
            ("", "::1", "::2"),
            ("", "::ffff:127.9.9.9", "10.0.0.1"),
            ("192.0.2.1", "192.0.2.1", "127.0.0.1"),
            ("10.0.0.0/8,172.16.0.0/12", "172.31.255.255", "172.32.0.0"),
            ("2001:db8::/32 , fd00::/8", "fd12::1", "2001:db9::1"),
            ("::ffff:192.0.2.0/120", "192.0.2.200", "192.0.3.1"),
        ] {
            assert!(trusted(list, inside) && !trusted(list, outside), "{list}");
        }
        assert!(trusted("0.0.0.0/0", "203.0.113.9") && trusted("::/0", "2001:db8::1"));
        let cloud_run = [("K_SERVICE", "tickets"), ("DB_HOST", "db.example.org")];
        assert!(connects(&cloud_run, "169.254.1.1") && connects(&cloud_run, "203.0.113.9"));
        // The address that the front end saw is trusted, not the one that its client wrote.
        let sender = |variables: &[(&str, &str)], list: &'static str| {
            let headers = HeaderMap::from_iter([(
                http::HeaderName::from_static("x-forwarded-for"),
                http::HeaderValue::from_static(list),
            )]);
            let peer = "169.254.1.1".parse().unwrap();
            read(variables).unwrap().trusted_proxies.sender(peer, &headers).to_string()
        };
        assert_eq!(sender(&cloud_run, "1.1.1.1, 203.0.113.9"), "203.0.113.9");
        let balanced = [&cloud_run[..], &[("TRUSTED_PROXIES", "192.0.2.1")]].concat();
        assert_eq!(sender(&balanced, "1.1.1.1, 203.0.113.9, 192.0.2.1"), "203.0.113.9");
    }

    #[test]
    fn only_a_resident_service_on_sqlite_backs_up_by_itself() {
        let sqlite = [("BACKUP_DIR", "backups"), ("DATABASE_URL", "sqlite:tickets.db")];
        assert!(read(&sqlite).unwrap().regular_backups().is_some());
        for elsewhere in [
            ("DATABASE_URL", "postgres://localhost/tickets"),
            ("K_SERVICE", "tickets"),
            ("AWS_LAMBDA_RUNTIME_API", "localhost"),
        ] {
            let settings = read(&[&[elsewhere], &sqlite[..]].concat()).unwrap();
            assert_eq!(settings.regular_backups(), None, "{elsewhere:?}");
        }
    }

    #[test]
    fn an_empty_variable_is_not_set() {
        for setting in SETTINGS {
            read(&[(setting.variable, "")]).unwrap();
        }
        assert_eq!(read(&[("PORT", "")]).unwrap().port, 8080);
    }

    #[test]
    fn browsers_trust_https_and_their_own_machine() {
        let settings = |url| read(&[("PUBLIC_URL", url)]).unwrap();
        for url in ["https://tickets.example.org", "HTTPS://tickets.example.org:8443"] {
            assert!(settings(url).is_https(), "{url}");
            assert!(!settings(url).is_distrusted(), "{url}");
        }
        let own_machine =
            ["http://localhost:8080", "http://tickets.localhost", "http://127.0.0.1:8080", "http://[::1]:8080"];
        for url in own_machine {
            assert!(!settings(url).is_https(), "{url}");
            assert!(!settings(url).is_distrusted(), "{url}");
        }
        for url in ["http://tickets.example.org", "http://192.168.1.10:8080", "http://localhost.example.org"] {
            assert!(!settings(url).is_https(), "{url}");
            assert!(settings(url).is_distrusted(), "{url}");
        }
    }

    #[test]
    fn the_public_url_follows_the_port() {
        assert_eq!(read(&[("PORT", "9000")]).unwrap().public_url, "http://localhost:9000");
    }

    #[test]
    fn what_does_not_parse_is_refused_in_one_line_that_names_the_variable() {
        for (variable, values) in [
            ("PORT", &["web", "65536", "-1", "80\n90"][..]),
            ("HOST", &["localhost", "1.2.3"]),
            ("DB_POOL_MAX", &["0", "many", "65536", "18446744073709551615"]),
            ("DB_TIMEOUT_MS", &["0", "99", "60001", "2.5", "3s"]),
            (
                "PUBLIC_URL",
                &[
                    "example.org",
                    "ftp://example.org",
                    "https://",
                    "https://a.org/b",
                    "https://a.org/?b",
                    "https://a.org/#b",
                    "https://b@a.org",
                ],
            ),
            ("LOG_FORMAT", &["JSON", "xml"]),
            ("RUST_LOG", &["sqlx=loud"]),
            (
                "TRUSTED_PROXIES",
                &["localhost", "10.0.0.0/33", "10.0.0.1/8", "::1/129", "10.0.0.0/", "10.0.0.0/-1", "127.0.0.1,", "all"],
            ),
            (
                "DATABASE_URL",
                &[
                    "tickets.db",
                    "mysql://localhost/tickets",
                    "sqlite:",
                    "sqlite://",
                    "sqlite::memory:",
                    "sqlite://:memory:",
                    "sqlite:tickets.db?mode=ro",
                    "postgres://service@host:port/tickets",
                ],
            ),
            ("ORGANIZER_KEY", &["short"]),
            ("TICKET_SECRET", &["short"]),
        ] {
            for value in values {
                let line = refusal(&[(variable, value)]);
                assert!(line.starts_with(&format!("{variable}: ")), "{value:?}: {line}");
                assert_eq!(line.lines().count(), 1, "{value:?}: {line}");
            }
        }
        let line = refusal(&[("DB_HOST", "db.example.org"), ("DB_PORT", "postgres")]);
        assert_eq!(line, "DB_PORT: `postgres`: invalid digit found in string");
        let line = refusal(&[("DB_HOST", "db.example.org"), ("DB_SSLMODE", "on")]);
        assert_eq!(line, "DB_SSLMODE: must be disable, allow, prefer, require, verify-ca or verify-full");
        let line = refusal(&[("DB_HOST", "db.example.org"), ("DB_SSLROOTCERT", "nowhere.pem")]);
        assert_eq!(line, "DB_SSLROOTCERT: must be a file that can be read");
    }

    const FROM: (&str, &str) = ("MAIL_FROM", "Tickets <tickets@example.org>");

    #[test]
    fn what_is_no_issuer_of_passes_is_refused() {
        let issuer = ("GOOGLE_WALLET_ISSUER_ID", "3388000000022123456");
        let no_key =
            r#"{"client_email":"a@example.org","private_key":"-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END"}"#;
        for key in ["nowhere.json", "Cargo.toml", "{", "{}", no_key] {
            let line = refusal(&[issuer, ("GOOGLE_WALLET_KEY", key)]);
            assert!(line.starts_with("GOOGLE_WALLET_KEY: must be the JSON"), "{line}");
            assert!(!line.contains("c2VjcmV0") && line.lines().count() == 1, "{line}");
        }
        let alone = [&[issuer][..], &[("GOOGLE_WALLET_KEY", "{}")]].map(refusal);
        assert!(
            alone[0].starts_with("GOOGLE_WALLET_KEY: ") && alone[1].starts_with("GOOGLE_WALLET_ISSUER_ID: "),
            "{alone:?}"
        );
        let line = refusal(&[("GOOGLE_WALLET_ISSUER_ID", "an issuer"), ("GOOGLE_WALLET_KEY", "{}")]);
        assert_eq!(line, "GOOGLE_WALLET_ISSUER_ID: must be the number of an issuer");
        assert!(read(&[]).unwrap().wallet.is_none());
    }

    #[test]
    fn a_mail_server_is_named_by_a_url() {
        use Encryption::{None as Open, StartTls, Tls};
        for (url, host, port, encryption) in [
            ("smtps://mail.example.org", "mail.example.org", 465, Tls),
            ("smtps://mail.example.org:2465/", "mail.example.org", 2465, Tls),
            ("smtp://mail.example.org", "mail.example.org", 587, StartTls),
            ("smtp://mail.example.org:25?tls=required", "mail.example.org", 25, StartTls),
            ("smtp://mail.example.org?tls=none", "mail.example.org", 587, Open),
            ("smtp://localhost:25", "localhost", 25, Open),
            ("smtp://[::1]:25?tls=required", "::1", 25, StartTls),
        ] {
            let mail = read(&[("SMTP_URL", url), FROM]).unwrap().mail.unwrap();
            assert_eq!((mail.host.as_str(), mail.port, mail.encryption), (host, port, encryption), "{url}");
            assert_eq!((mail.login.clone(), mail.from.email.to_string()), (None, "tickets@example.org".to_owned()));
            assert_eq!(mail.is_open(), url.ends_with("tls=none"), "{url}");
        }
        let mail = |url| read(&[("SMTP_URL", url), FROM]).unwrap().mail.unwrap();
        let login = mail("smtps://tickets%40example.org:p%40ss:w%2Ford@mail.example.org").login;
        assert_eq!(login, Some(("tickets@example.org".to_owned(), "p@ss:w/ord".to_owned())));
        let own = mail("smtps://mail.example.org?sslrootcert=Cargo.toml").root_cert;
        assert_eq!(own.as_deref(), Some(Path::new("Cargo.toml")));
        assert!(read(&[]).unwrap().mail.is_none());
    }

    #[test]
    fn what_is_no_mail_server_is_refused() {
        for url in [
            "mail.example.org",
            "https://mail.example.org",
            "smtps://",
            "smtps://user@mail.example.org",
            "smtps://user:%ff@mail.example.org",
            "smtps://mail.example.org/inbox",
            "smtps://mail.example.org:70000",
            "smtps://mail.example.org?tls=none",
            "smtp://mail.example.org?tls=maybe",
            "smtp://mail.example.org?sslrootcert=nowhere.pem",
            "smtp://mail.example.org?timeout=5",
        ] {
            let line = refusal(&[("SMTP_URL", url), FROM]);
            assert!(line.starts_with("SMTP_URL: must be smtps://"), "{url}: {line}");
        }
        for from in ["tickets", "Tickets", "a@b, c@d", "tickets@example.org\r\nBcc: x@example.org"] {
            let line = refusal(&[("SMTP_URL", "smtps://mail.example.org"), ("MAIL_FROM", from)]);
            assert_eq!(line, "MAIL_FROM: must be an address such as `Tickets <tickets@example.org>`", "{from:?}");
        }
        assert_eq!(refusal(&[FROM]), "SMTP_URL: must be set if MAIL_FROM is");
        let alone = refusal(&[("SMTP_URL", "smtps://mail.example.org")]);
        assert_eq!(alone, "MAIL_FROM: must be set if SMTP_URL is");
    }

    #[test]
    fn no_refusal_shows_a_secret() {
        for variables in [
            [("ORGANIZER_KEY", "hunter2"), ("PORT", "8080")],
            [("ORGANIZER_KEY", "hunter2 and more of it, with spaces."), ("PORT", "8080")],
            [("TICKET_SECRET", "hunter2"), ("PORT", "8080")],
            [("DATABASE_URL", "postgres://service:hunter2@host:port/tickets"), ("PORT", "8080")],
            [("DATABASE_URL", "postgres:/service:hunter2@host"), ("PORT", "8080")],
            [("DATABASE_URL", "postgres://service:hunter2@host/tickets?sslmode=loud"), ("PORT", "8080")],
            [("DATABASE_URL", "hunter2"), ("PORT", "8080")],
            [("DATABASE_URL", "sqlite:tickets.db?key=hunter2"), ("PORT", "8080")],
            [("PUBLIC_URL", "https://organizer:hunter2@example.org"), ("PORT", "8080")],
            [("DB_PASSWORD", "hunter2"), ("PORT", "web")],
            [("DB_MIGRATE_PASSWORD", "hunter2"), ("PORT", "web")],
            [("SMTP_URL", "smtps://user:hunter2@mail.example.org"), ("PORT", "8080")],
            [("SMTP_URL", "smtps://user:hunter2@mail.example.org:port"), FROM],
            [("SMTP_URL", "smtps://user:hunter2@"), FROM],
        ] {
            let line = refusal(&variables);
            assert!(!line.contains("hunter2"), "{line}");
        }
    }

    #[test]
    fn secrets_have_at_least_32_characters() {
        assert_eq!(SECRET.len(), 32);
        for variable in ["ORGANIZER_KEY", "TICKET_SECRET"] {
            read(&[(variable, SECRET)]).unwrap();
            let line = refusal(&[(variable, &SECRET[1..])]);
            assert_eq!(line, format!("{variable}: must have at least 32 characters"));
        }
        // Characters, not bytes.
        assert!(read(&[("TICKET_SECRET", &"ñ".repeat(31))]).is_err());
        assert!(read(&[("TICKET_SECRET", &"ñ".repeat(32))]).is_ok());
    }

    #[test]
    fn an_organizer_key_that_no_header_can_carry_is_refused() {
        for unsendable in ["\n", " ", "ñ", "\u{7f}"] {
            let line = refusal(&[("ORGANIZER_KEY", &format!("{SECRET}{unsendable}"))]);
            assert!(line.starts_with("ORGANIZER_KEY: must have only visible ASCII characters"), "{line}");
        }
    }

    #[test]
    fn what_is_not_utf8_is_refused() {
        for setting in SETTINGS {
            let broken = |name: &str| (name == setting.variable).then(|| OsString::from_vec(vec![b'a', 0xff]));
            let refused = Settings::read_os(broken).err().unwrap().to_string();
            assert_eq!(refused, format!("{}: is not UTF-8", setting.variable));
        }
        assert!(Settings::read_os(|_| None).is_ok());
    }

    #[test]
    fn sqlite_is_named_by_a_url() {
        for (url, path) in [
            ("sqlite:data/tickets.db", "data/tickets.db"),
            ("sqlite://data/tickets.db", "data/tickets.db"),
            ("sqlite:///var/lib/tickets.db", "/var/lib/tickets.db"),
            ("sqlite:/var/lib/tickets.db", "/var/lib/tickets.db"),
        ] {
            assert_eq!(sqlite_path(&[("DATABASE_URL", url)]), Path::new(path), "{url}");
        }
    }

    #[test]
    fn postgres_is_named_by_a_url() {
        for scheme in ["postgres", "postgresql"] {
            let url = format!("{scheme}://service:p%40ss@db.example.org:6543/tickets");
            // A URL takes precedence over DB_HOST.
            let database = postgres(&[("DATABASE_URL", &url), ("DB_HOST", "elsewhere"), ("DB_PORT", "nonsense")]);
            assert_eq!(database.service.get_host(), "db.example.org");
            assert_eq!(database.service.get_port(), 6543);
            assert_eq!(database.service.get_username(), "service");
            assert_eq!(password(&database.service).unwrap(), "p%40ss");
            assert_eq!(database.service.get_database(), Some("tickets"));
            assert_eq!(read(&[("DATABASE_URL", &url)]).unwrap().organizer_key_file(), None);
        }
    }

    #[test]
    fn postgres_is_named_by_its_host() {
        let database = postgres(&[
            ("DB_HOST", "db.example.org"),
            ("DB_PORT", "6543"),
            ("DB_USER", "service"),
            ("DB_PASSWORD", "service-password"),
            ("DB_NAME", "tickets"),
        ]);
        assert_eq!(database.service.get_host(), "db.example.org");
        assert_eq!(database.service.get_socket(), None);
        assert_eq!(database.service.get_port(), 6543);
        assert_eq!(database.service.get_username(), "service");
        assert_eq!(password(&database.service).unwrap(), "service%2Dpassword");
        assert_eq!(database.service.get_database(), Some("tickets"));

        let database = postgres(&[("DB_HOST", "db.example.org")]);
        assert_eq!(database.service.get_port(), 5432);
        assert_eq!(database.service.get_username(), "postgres");
        assert_eq!(database.service.get_database(), Some("postgres"));
    }

    #[test]
    fn postgres_is_named_by_the_directory_of_its_socket() {
        let database = postgres(&[("DB_HOST", "/cloudsql/project:region:instance")]);
        assert_eq!(database.service.get_socket().unwrap(), Path::new("/cloudsql/project:region:instance"));
    }

    #[test]
    fn over_a_network_only_the_server_that_is_meant_is_trusted() {
        let mode = |variables: &[(&str, &str)]| {
            let Postgres { service, owner, .. } = postgres(variables);
            assert_eq!(format!("{:?}", service.get_ssl_mode()), format!("{:?}", owner.get_ssl_mode()));
            format!("{:?}", service.get_ssl_mode())
        };
        for host in
            ["db.example.org", "10.0.0.5", "db", "localhost.example.org", "2001:db8::1", "127.0.0.1.example.org"]
        {
            assert_eq!(mode(&[("DB_HOST", host)]), "VerifyFull", "{host}");
        }
        for host in ["localhost", "127.0.0.1", "::1"] {
            assert_eq!(mode(&[("DB_HOST", host)]), "Disable", "{host}");
        }
        for (url, expected) in [
            ("postgres://a@db.example.org/tickets", "VerifyFull"),
            ("postgres://a@db.example.org/tickets?sslrootcert=ours.pem", "VerifyFull"),
            ("postgres://a@localhost/tickets?host=db.example.org", "VerifyFull"),
            ("postgres://a@localhost/tickets?hostaddr=10.0.0.5", "VerifyFull"),
            ("postgres://a@db.example.org/tickets#?sslmode=disable", "VerifyFull"),
            ("postgres://a@localhost/tickets", "Disable"),
            ("postgres://a@[::1]/tickets", "Disable"),
            // An explicit mode is used.
            ("postgres://a@db.example.org/tickets?sslmode=disable", "Disable"),
            ("postgres://a@db.example.org/tickets?ssl-mode=require", "Require"),
            ("postgres://a@localhost/tickets?sslmode=prefer", "Prefer"),
            ("postgres://a@localhost/tickets?sslmode=verify-full", "VerifyFull"),
            // PostgreSQL has no TLS on a socket.
            ("postgres:///tickets?host=/run/postgresql", "Disable"),
        ] {
            assert_eq!(mode(&[("DATABASE_URL", url)]), expected, "{url}");
        }
        // The setting applies to both ways of naming a server; a mode in the URL takes precedence.
        for (variables, expected) in [
            (&[("DB_HOST", "db"), ("DB_SSLMODE", "disable")][..], "Disable"),
            (&[("DB_HOST", "localhost"), ("DB_SSLMODE", "verify-full")], "VerifyFull"),
            (&[("DB_HOST", "/cloudsql/p:r:i"), ("DB_SSLMODE", "verify-full")], "Disable"),
            (&[("DATABASE_URL", "postgres://a@db/tickets"), ("DB_SSLMODE", "verify-ca")], "VerifyCa"),
            (&[("DATABASE_URL", "postgres://a@db/tickets?sslmode=require"), ("DB_SSLMODE", "disable")], "Require"),
        ] {
            assert_eq!(mode(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn authorities_of_ones_own_are_named_by_the_setting_or_the_url() {
        let named = |url: &str| {
            let database = postgres(&[("DATABASE_URL", url), ("DB_SSLROOTCERT", "Cargo.toml")]);
            let url = database.service.to_url_lossy();
            url.query_pairs().find(|(name, _)| name == "sslrootcert").map(|(_, file)| file.into_owned())
        };
        assert!(named("postgres://a@db/tickets").is_some_and(|file| file.contains("Cargo.toml")));
        let own = named("postgres://a@db/tickets?sslrootcert=ours.pem");
        assert!(own.is_some_and(|file| file.contains("ours.pem")));
    }

    #[test]
    fn a_weak_way_over_a_network_is_known() {
        let weak = |url: &str| read(&[("DATABASE_URL", url)]).unwrap().database.weak_sslmode();
        for mode in ["disable", "allow", "prefer", "require", "verify-ca"] {
            assert_eq!(weak(&format!("postgres://a@db/tickets?sslmode={mode}")).as_deref(), Some(mode));
            assert_eq!(weak(&format!("postgres://a@localhost/tickets?sslmode={mode}")), None, "{mode}");
        }
        for url in ["postgres://a@db/tickets", "postgres:///tickets?host=/run/postgresql", "sqlite:tickets.db"] {
            assert_eq!(weak(url), None, "{url}");
        }
    }

    #[test]
    fn a_weak_way_is_known_whatever_the_host_is_called() {
        for host in ["2001:db8::1", "db.example.org ", "a b", "[", "@"] {
            let weak = [("DB_HOST", host), ("DB_SSLMODE", "require")];
            assert_eq!(read(&weak).unwrap().database.weak_sslmode().as_deref(), Some("require"), "{host}");
        }
    }

    #[test]
    fn the_owner_of_the_schema_migrates() {
        let service = [("DB_HOST", "db.example.org"), ("DB_USER", "service"), ("DB_PASSWORD", "one")];

        let same = postgres(&service);
        assert_eq!(same.owner.get_username(), "service");
        assert_eq!(password(&same.owner).unwrap(), "one");
        assert_eq!(same.grant_to, None);

        let owner = [("DB_MIGRATE_USER", "owner"), ("DB_MIGRATE_PASSWORD", "two")];
        let apart = postgres(&[&service[..], &owner].concat());
        assert_eq!(apart.service.get_username(), "service");
        assert_eq!(password(&apart.service).unwrap(), "one");
        assert_eq!(apart.owner.get_username(), "owner");
        assert_eq!(password(&apart.owner).unwrap(), "two");
        assert_eq!(apart.grant_to.as_deref(), Some("service"));

        // The service's own login, named as the owner, needs no grant.
        let named = postgres(&[&service[..], &[("DB_MIGRATE_USER", "service")]].concat());
        assert_eq!(named.grant_to, None);

        let by_url =
            postgres(&[&[("DATABASE_URL", "postgres://service:one@db.example.org/tickets")], &owner[..]].concat());
        assert_eq!(by_url.owner.get_username(), "owner");
        assert_eq!(by_url.owner.get_database(), Some("tickets"));
        assert_eq!(by_url.grant_to.as_deref(), Some("service"));
    }

    #[test]
    fn where_the_disk_vanishes_a_database_must_be_named() {
        for (platform, name) in [("K_SERVICE", "Cloud Run"), ("AWS_LAMBDA_RUNTIME_API", "AWS Lambda")] {
            let line = refusal(&[(platform, "tickets")]);
            assert!(line.starts_with("DATABASE_URL: or DB_HOST must be set") && line.contains(name), "{line}");
            read(&[(platform, "tickets"), ("DB_HOST", "db.example.org")]).unwrap();
            // A named file may be on a volume that persists.
            read(&[(platform, "tickets"), ("DATABASE_URL", "sqlite:/mnt/tickets.db")]).unwrap();
        }
    }

    #[test]
    fn cloud_run_gets_json_unless_told_otherwise() {
        let cloud_run = [("K_SERVICE", "tickets"), ("DB_HOST", "db.example.org")];
        assert_eq!(read(&cloud_run).unwrap().log_format, LogFormat::Json);
        let told = [&cloud_run[..], &[("LOG_FORMAT", "text")]].concat();
        assert_eq!(read(&told).unwrap().log_format, LogFormat::Text);
    }

    #[test]
    fn settings_lists_every_variable_that_is_read() {
        let asked = RefCell::new(BTreeSet::new());
        for host in [None, Some("db.example.org")] {
            let variable = |name: &str| {
                asked.borrow_mut().insert(name.to_owned());
                host.filter(|_| name == "DB_HOST").map(ToOwned::to_owned)
            };
            Settings::read(variable).unwrap();
        }
        let listed = SETTINGS.iter().map(|setting| setting.variable);
        let of_the_platform = ["K_SERVICE", "AWS_LAMBDA_RUNTIME_API"];
        assert_eq!(asked.into_inner(), listed.chain(of_the_platform).map(ToOwned::to_owned).collect());
    }
}
