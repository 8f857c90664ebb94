//! A lazy pool of sqlx connections, held by `deadpool` and not by sqlx's own pool, which sends a ping after each use
//! from a task of its own: one more round trip for every call, and work after the response, which Cloud Run freezes.

use std::io::ErrorKind;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, Object, RecycleError, RecycleResult};
use futures_util::future::BoxFuture;
use sqlx::{ConnectOptions, Connection, Database, Executor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// A connection that rested no longer than this is taken to be alive, without asking it.
const TRUSTED_REST: Duration = Duration::from_secs(1);

type OptionsOf<Db> = <<Db as Database>::Connection as Connection>::Options;

/// What is done with each new connection before it is used.
type Greeting<Db> = for<'c> fn(&'c mut <Db as Database>::Connection) -> BoxFuture<'c, Result<(), sqlx::Error>>;

/// For how long a connection leads to the same session of the database.
pub enum Session<Db: Database> {
    /// As long as it lives: so it is greeted once.
    Own(Greeting<Db>),
    /// For one transaction, as a pooler lends it: so each call is one, which this statement begins.
    Lent(&'static str),
}

impl<Db: Database> Clone for Session<Db> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<Db: Database> Copy for Session<Db> {}

pub struct Connector<Db: Database> {
    options: OptionsOf<Db>,
    session: Session<Db>,
    /// How long connecting may take. Less than a request has: when the database is back, those who still wait for an
    /// answer to their first packets give their places in the pool to others within this time.
    connect_timeout: Duration,
    /// How long a connection that rested has to answer before it is replaced.
    ping_timeout: Duration,
    /// When a connection was found dead. Those that rested then died with it, most likely; asking each of them in turn
    /// would take longer than a request has.
    found_dead: Mutex<Option<Instant>>,
}

impl<Db: Database> managed::Manager for Connector<Db> {
    type Type = Db::Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Db::Connection, sqlx::Error> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            if let Session::Own(greeting) = self.session {
                greeting(&mut connection).await?;
            }
            Ok(connection)
        };
        match tokio::time::timeout(self.connect_timeout, connect).await {
            Ok(connected) => connected,
            Err(_) => Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
        }
    }

    async fn recycle(&self, connection: &mut Db::Connection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        let last_used = metrics.recycled.unwrap_or(metrics.created);
        let found_dead = || self.found_dead.lock().unwrap_or_else(PoisonError::into_inner);
        if found_dead().is_some_and(|found| last_used < found) {
            return Err(RecycleError::message("another one was dead"));
        }
        if last_used.elapsed() <= TRUSTED_REST {
            return Ok(());
        }
        match tokio::time::timeout(self.ping_timeout, connection.ping()).await {
            Ok(Ok(())) => Ok(()),
            _ => {
                *found_dead() = Some(Instant::now());
                Err(RecycleError::message("no answer to a ping"))
            }
        }
    }
}

pub struct Pool<Db: Database> {
    connections: managed::Pool<Connector<Db>>,
    /// The place of whoever reads much,
    long: Arc<Semaphore>,
    /// and of whoever counts, which may take ten seconds, and no page of an export waits so long. Both together leave a connection
    /// to others, so where there are only two of them it is one place.
    counting: Arc<Semaphore>,
}

impl<Db: Database> Clone for Pool<Db> {
    fn clone(&self) -> Self {
        let Self { connections, long, counting } = self;
        Self { connections: connections.clone(), long: Arc::clone(long), counting: Arc::clone(counting) }
    }
}

impl<Db: Database> Pool<Db>
where
    for<'c> &'c mut Db::Connection: Executor<'c, Database = Db>,
{
    /// Opens nothing: connections are made when they are asked for.
    /// `timeout` is what a request has.
    pub fn new(options: OptionsOf<Db>, session: Session<Db>, most: usize, timeout: Duration) -> Self {
        let (connect_timeout, ping_timeout) = (timeout * 3 / 5, timeout / 5);
        let connector = Connector { options, session, connect_timeout, ping_timeout, found_dead: Mutex::default() };
        let connections = managed::Pool::builder(connector)
            .max_size(most)
            // The connection used last goes first: few stay warm, the others rest.
            .queue_mode(managed::QueueMode::Lifo)
            .build()
            .expect("a pool without timeouts needs no runtime, and nothing else can be missing");
        let long = Arc::new(Semaphore::new(1));
        let counting = if most > 2 { Arc::new(Semaphore::new(1)) } else { Arc::clone(&long) };
        Self { connections, long, counting }
    }

    /// For what may read as much as an event has: one at a time. More would take connections and processors from scans.
    pub async fn lease_long(&self) -> Result<Lease<Db>, Error> {
        self.lease_at(&self.long).await
    }

    /// For what counts all that an event has.
    pub async fn lease_counting(&self) -> Result<Lease<Db>, Error> {
        self.lease_at(&self.counting).await
    }

    async fn lease_at(&self, place: &Arc<Semaphore>) -> Result<Lease<Db>, Error> {
        let place = Arc::clone(place).acquire_owned().await;
        let place = place.map_err(|error| Error::Internal(error.to_string()))?;
        let mut lease = self.lease().await?;
        lease.place = Some(place);
        Ok(lease)
    }

    pub async fn lease(&self) -> Result<Lease<Db>, Error> {
        let lease = match self.connections.get().await {
            Ok(connection) => Lease { connection: Some(connection), in_transaction: false, place: None },
            Err(managed::PoolError::Backend(error)) => {
                return Err(Error::DatabaseUnavailable(format!("connecting: {error}")));
            }
            Err(error) => return Err(Error::DatabaseUnavailable(error.to_string())),
        };
        match self.connections.manager().session {
            Session::Own(_) => Ok(lease),
            Session::Lent(begin) => lease.begin(begin).await,
        }
    }
}

/// A connection for one call. Only [`Lease::settle`] gives it back: when the call is dropped at its deadline, or fails
/// in a way that leaves the connection in doubt, it is closed with the lease and never used again.
pub struct Lease<Db: Database> {
    connection: Option<Object<Connector<Db>>>,
    in_transaction: bool,
    /// Its place among the long reads, if it is one, which the next gets with the connection.
    place: Option<OwnedSemaphorePermit>,
}

impl<Db: Database> Lease<Db>
where
    for<'c> &'c mut Db::Connection: Executor<'c, Database = Db>,
{
    pub fn connection(&mut self) -> &mut Db::Connection {
        self.connection.as_mut().expect("a lease holds its connection until it is settled")
    }

    /// Begins a transaction, which lasts until the call is settled. Where the call is one already, only what follows `begin` in
    /// the statement is yet to be done.
    pub async fn begin(mut self, statement: &'static str) -> Result<Self, Error> {
        let statement = match self.in_transaction {
            true => statement.trim_start_matches("begin").trim_start_matches(';'),
            false => statement,
        };
        if !statement.is_empty() {
            self.connection().execute(statement).await?;
        }
        self.in_transaction = true;
        Ok(self)
    }

    /// Ends the call with its outcome: a transaction is committed, or taken back when the call was refused. sqlx's own
    /// `Transaction` would send the rollback with the next statement only, and keep its locks until then.
    pub async fn settle<T>(mut self, outcome: Result<T, Error>) -> Result<T, Error> {
        if matches!(&outcome, Err(Error::DatabaseUnavailable(_) | Error::Internal(_))) {
            return outcome;
        }
        if self.in_transaction {
            let end = if outcome.is_ok() { "commit" } else { "rollback" };
            self.connection().execute(end).await?;
        }
        drop(self.connection.take());
        outcome
    }
}

impl<Db: Database> Drop for Lease<Db> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}
