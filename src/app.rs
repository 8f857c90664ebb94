//! The state that all requests share: settings, database, keys, secret, metrics.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::auth::KeyRing;
use crate::config::Settings;
use crate::error::Error;
use crate::limits::{
    BODIES_IN_FLIGHT, ClientLimits, FILES_IN_FLIGHT, IMPORTS_AT_WORK, LARGE_AT_WORK, LARGE_EVENT, LISTS_IN_FLIGHT,
    MAILS_AT_WORK,
};
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::numbers::Numbers;
use crate::quota::Quota;
use crate::store::{self, KeptSecrets, Store};
use crate::totp::{LinkSecret, TicketSecret, secret_mark};

/// The source of the time, which tests replace.
pub type Clock = Box<dyn Fn() -> Millis + Send + Sync>;

/// The service: everything that a request needs.
pub struct App {
    pub settings: Settings,
    /// Available only through [`App::claimed_secret`] and [`App::checked_secret`].
    secret: Arc<TicketSecret>,
    /// The same with the database's salt for links, once that has been read.
    links: OnceCell<Arc<LinkSecret>>,
    pub keys: KeyRing,
    pub metrics: Metrics,
    pub health: HealthCheck,
    pub backups: BackupFailures,
    pub started: Instant,
    store: OnceCell<Box<dyn Store>>,
    pub clients: ClientLimits,
    pub numbers: Numbers,
    pub(crate) bodies: Arc<Quota>,
    pub(crate) files: Arc<Quota>,
    pub(crate) lists: Arc<Quota>,
    pub(crate) imports: Arc<Quota>,
    pub(crate) readings: Arc<Quota>,
    pub(crate) works: Arc<Quota>,
    pub(crate) mails: Arc<Quota>,
    clock: Clock,
}

/// The result of the full check.
#[derive(Clone, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct FullHealth {
    /// `ok` when every check is `ok`, else `failed`.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub status: &'static str,
    /// The service's version.
    pub version: &'static str,
    /// The commit from which it was built. Null if the build did not state it.
    pub revision: Option<String>,
    /// Whether the database answers.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub database: &'static str,
    /// Whether the database has the schema that this version needs. `unchecked`, here and in the next four fields: the
    /// database does not answer. `writable` and `secret` are also `unchecked` if the schema is not the one needed.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed", "unchecked"])))]
    pub migrations: &'static str,
    /// Whether the clocks of the service and of the database agree.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed", "unchecked"])))]
    pub clock: &'static str,
    /// Whether acknowledged writes survive a power failure of the database's machine. They do not if PostgreSQL runs with
    /// `fsync` or `full_page_writes` off, or a pooler keeps the service from turning `synchronous_commit` on.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed", "unchecked"])))]
    pub durability: &'static str,
    /// Whether the database accepts writes. It does not if its disk is full or it is read-only.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed", "unchecked"])))]
    pub writable: &'static str,
    /// Whether `TICKET_SECRET` is the one with which the database's tickets were made. Nobody is admitted with another one.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed", "unchecked"])))]
    pub secret: &'static str,
    /// Recognises `TICKET_SECRET` together with the database: `backup verify` prints the same for a backup of this database that
    /// works with this secret. Null before the first ticket is registered, and if it was not checked.
    pub secret_mark: Option<String>,
    /// Whether the backups of `serve` are up to date. `failed` if the last one failed or could not be sent, if the newest
    /// is older than 25 hours, or if the database is empty although a backup contains tickets. Null if `serve`
    /// takes none.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed", null])))]
    pub backups: Option<&'static str>,
}

/// Whether the newest regular backup could not be taken, and whether the newest could not be sent.
#[derive(Default)]
pub struct BackupFailures {
    pub taking: AtomicBool,
    pub sending: AtomicBool,
    /// Since when `BACKUP_COMMAND` has been running.
    pub sending_since: std::sync::Mutex<Option<Instant>>,
}

/// The newest full check. The lock lets one check at a time reach the database, while the others wait for its result.
#[derive(Default)]
pub struct HealthCheck(pub Mutex<Option<(Instant, FullHealth)>>);

impl App {
    /// Creates the service without touching network or disk.
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let now = clock();
        Self {
            secret: Arc::new(TicketSecret::new(settings.ticket_secret.clone())),
            keys: KeyRing::new(settings.organizer_key.as_deref()),
            metrics: Metrics::new(now, &settings),
            health: HealthCheck::default(),
            backups: BackupFailures::default(),
            started: Instant::now(),
            links: OnceCell::new(),
            store: OnceCell::new(),
            clients: ClientLimits::USUAL,
            numbers: Numbers::new(LARGE_EVENT),
            bodies: Quota::new(BODIES_IN_FLIGHT),
            files: Quota::new(FILES_IN_FLIGHT),
            lists: Quota::new(LISTS_IN_FLIGHT),
            imports: Quota::new(IMPORTS_AT_WORK),
            readings: Quota::new(LARGE_AT_WORK),
            works: Quota::new(LARGE_AT_WORK),
            mails: Quota::new(MAILS_AT_WORK),
            clock,
            settings,
        }
    }

    /// Returns the database. The first call creates the pool; the first query opens a connection.
    pub fn store(&self) -> &dyn Store {
        &**self.store.get_or_init(|| store::open(&self.settings))
    }

    /// Runs database work with the deadline `DB_TIMEOUT_MS`.
    pub async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(self.settings.db_timeout, work).await
    }

    pub fn now(&self) -> Millis {
        (self.clock)()
    }

    /// Returns the secret that makes the keys of codes, after checking that this database's tickets were made with it. The
    /// first call on a new database claims it for this secret.
    pub async fn claimed_secret(&self) -> Result<&Arc<TicketSecret>, Error> {
        self.checked_secret(self.kept_secrets().await?.secret_fingerprint.as_deref())
    }

    /// Like [`App::claimed_secret`], with the secret that makes the links of ticket pages.
    pub async fn claimed_links(&self) -> Result<&Arc<LinkSecret>, Error> {
        self.checked_links(&self.kept_secrets().await?)
    }

    /// Reads the fingerprint and the salt, each time anew: `change-secret` may change `TICKET_SECRET` while we run.
    async fn kept_secrets(&self) -> Result<KeptSecrets, Error> {
        let kept = self.store().kept_secrets().await?;
        match kept.secret_fingerprint {
            Some(_) => Ok(kept),
            None => self.store().claim_secret(self.secret.fingerprint()).await,
        }
    }

    /// Like [`App::claimed_links`], for a caller that has already read the database's fingerprint and salt. Claims nothing.
    pub fn checked_links(&self, kept: &KeptSecrets) -> Result<&Arc<LinkSecret>, Error> {
        let secret = self.checked_secret(kept.secret_fingerprint.as_deref())?;
        let salt = kept.link_salt.as_deref().and_then(|salt| salt.try_into().ok());
        let salt = salt.ok_or_else(|| Error::Internal("the setting link_salt is not 32 bytes".into()))?;
        Ok(self.links.get_or_init(|| Arc::new(LinkSecret::new(Arc::clone(secret), salt))))
    }

    /// Like [`App::claimed_secret`], for a caller that has already read the database's fingerprint of `TICKET_SECRET`. Claims
    /// nothing: while there is no fingerprint, no ticket has a holder.
    pub fn checked_secret(&self, kept: Option<&[u8]>) -> Result<&Arc<TicketSecret>, Error> {
        match kept {
            Some(kept) if kept != self.secret.fingerprint() => Err(Error::TicketSecretMismatch),
            _ => Ok(&self.secret),
        }
    }

    /// Returns the [mark](secret_mark) of our `TICKET_SECRET` in this database; `None` while the database has no fingerprint.
    pub fn secret_mark(&self, kept: &KeptSecrets) -> Option<String> {
        let (_, salt) = kept.secret_fingerprint.as_ref().zip(kept.link_salt.as_ref())?;
        Some(secret_mark(self.secret.fingerprint(), salt))
    }
}

/// Runs work with a deadline. Work that misses it is dropped, and with it the connection that it was using.
pub async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(deadline, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(Error::DatabaseUnavailable(format!("no answer within {} ms", deadline.as_micros().div_ceil(1_000))))
        }
    }
}
