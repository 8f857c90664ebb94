//! The state that every request needs: settings, database, keys, secret, metrics.

use std::sync::Arc;
use std::time::{Duration, Instant};

use once_cell::sync::OnceCell;
use serde::Serialize;
use tokio::sync::Mutex;

use crate::auth::KeyRing;
use crate::backup::regular::Trouble;
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
use crate::totp::{LinkSecret, TicketSecret};

/// Where the time comes from; tests set their own.
pub type Clock = Box<dyn Fn() -> Millis + Send + Sync>;

/// The service: everything a request needs.
pub struct App {
    pub settings: Settings,
    /// Only [`App::claimed_secret`] and [`App::checked_secret`] give it out.
    secret: Arc<TicketSecret>,
    /// The same with what the database adds for links, once that was read.
    links: OnceCell<Arc<LinkSecret>>,
    pub keys: KeyRing,
    pub metrics: Metrics,
    pub health: HealthCheck,
    pub backups: Trouble,
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
    /// The commit that it was built from. Null where whoever built it did not say.
    pub revision: Option<String>,
    /// Whether the database answers.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub database: &'static str,
    /// Whether the database has the schema that this version needs.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub migrations: &'static str,
    /// Whether the clocks of the service and of the database agree.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub clock: &'static str,
    /// Whether the database keeps what it acknowledged when its machine loses power: not so where PostgreSQL runs with `fsync`
    /// or `full_page_writes` off.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub durability: &'static str,
    /// Whether the database takes a write: not so where its disk is full, or it may only be read.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub writable: &'static str,
    /// Whether `TICKET_SECRET` is the one that the database's tickets were made with. Nobody is admitted with another one.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed"])))]
    pub secret: &'static str,
    /// Whether `serve` takes its backups: not so where the last one failed or was not sent, where the newest is older than 25 hours, and
    /// where the database is empty while the newest backup is not. Null where `serve` takes none.
    #[cfg_attr(test, schemars(extend("enum" = ["ok", "failed", null])))]
    pub backups: Option<&'static str>,
}

/// The newest full check. The lock lets one check at a time reach the database; the others wait for its result.
#[derive(Default)]
pub struct HealthCheck(pub Mutex<Option<(Instant, FullHealth)>>);

impl App {
    /// Makes the service. Touches neither network nor disk.
    pub fn new(settings: Settings, clock: Clock) -> Self {
        let now = clock();
        Self {
            secret: Arc::new(TicketSecret::new(settings.ticket_secret.clone())),
            keys: KeyRing::new(settings.organizer_key.as_deref()),
            metrics: Metrics::new(now, &settings),
            health: HealthCheck::default(),
            backups: Trouble::default(),
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

    /// The database. The first call makes the pool, the first request that needs it opens a connection.
    pub fn store(&self) -> &dyn Store {
        &**self.store.get_or_init(|| store::open(&self.settings))
    }

    /// Gives the database `DB_TIMEOUT_MS` to answer.
    pub async fn in_time<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        within(self.settings.db_timeout, work).await
    }

    pub fn now(&self) -> Millis {
        (self.clock)()
    }

    /// The way to the keys of codes, once it is sure that this database's tickets were made with our `TICKET_SECRET`; the
    /// first to ask decides.
    pub async fn claimed_secret(&self) -> Result<&Arc<TicketSecret>, Error> {
        self.checked_secret(self.kept_secrets().await?.secret_fingerprint.as_deref())
    }

    /// The way to the links of ticket pages, and to the keys of codes.
    pub async fn claimed_links(&self) -> Result<&Arc<LinkSecret>, Error> {
        self.checked_links(&self.kept_secrets().await?)
    }

    /// Asked each time: `change-secret` may have given the database another `TICKET_SECRET` while we run.
    async fn kept_secrets(&self) -> Result<KeptSecrets, Error> {
        let kept = self.store().kept_secrets().await?;
        match kept.secret_fingerprint {
            Some(_) => Ok(kept),
            None => self.store().claim_secret(self.secret.fingerprint()).await,
        }
    }

    /// The same for whoever has read already what the database keeps.
    pub fn checked_links(&self, kept: &KeptSecrets) -> Result<&Arc<LinkSecret>, Error> {
        let secret = self.checked_secret(kept.secret_fingerprint.as_deref())?;
        let salt = kept.link_salt.as_deref().and_then(|salt| salt.try_into().ok());
        let salt = salt.ok_or_else(|| Error::Internal("the setting link_salt is not 32 bytes".into()))?;
        Ok(self.links.get_or_init(|| Arc::new(LinkSecret::new(Arc::clone(secret), salt))))
    }

    /// The same for whoever has read already what the database keeps of its `TICKET_SECRET`. Claims nothing: where it
    /// keeps nothing, no ticket has a holder yet.
    pub fn checked_secret(&self, kept: Option<&[u8]>) -> Result<&Arc<TicketSecret>, Error> {
        match kept {
            Some(kept) if kept != self.secret.fingerprint() => Err(Error::TicketSecretMismatch),
            _ => Ok(&self.secret),
        }
    }
}

/// Gives work a deadline. What misses it is dropped, and with it the connection it was using.
pub async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(deadline, work).await {
        Ok(outcome) => outcome,
        Err(_) => {
            Err(Error::DatabaseUnavailable(format!("no answer within {} ms", deadline.as_micros().div_ceil(1_000))))
        }
    }
}
