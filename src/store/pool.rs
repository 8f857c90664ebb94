//! A lazy pool of sqlx connections, held by `deadpool` and not by sqlx's own pool, which sends a ping after each use
//! from a task of its own: one more round trip for every call, and work after the response, which Cloud Run freezes.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, Object, RecycleError, RecycleResult};
use futures_util::future::BoxFuture;
use sqlx::{ConnectOptions, Connection, Database, Executor};
use tokio::sync::OwnedMutexGuard;

use crate::error::Error;

/// A connection that rested no longer than this is taken to be alive, without asking it.
const TRUSTED_REST: Duration = Duration::from_secs(1);
/// How long a long read waits at most after the one before it: several pages of a list would take that long together.
const PAUSE: Duration = Duration::from_millis(50);

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
    long: Place,
    /// and of whoever counts, which may take ten seconds, and no page of an export waits so long. Both together leave a connection
    /// to others, so where there are only two of them it is one place.
    counting: Place,
    /// How many calls have got a connection.
    calls: Arc<AtomicUsize>,
}

/// Where one reads at a time, and then pauses for as long as it read if others came meanwhile: so scans have at least half of a
/// processor, which the pages of an export would take one after the other. It holds when the next one may begin.
type Place = Arc<tokio::sync::Mutex<Instant>>;

fn new_place() -> Place {
    Arc::new(tokio::sync::Mutex::new(Instant::now()))
}

/// A turn at a place, which ends when it is dropped.
struct Turn {
    next_begins: OwnedMutexGuard<Instant>,
    calls: Arc<AtomicUsize>,
    /// How many calls there are if this one stays alone.
    calls_after: usize,
    began: Instant,
}

impl Turn {
    /// Waits for a turn, to be used by one call. `calls` counts all of them.
    async fn at(place: &Place, calls: &Arc<AtomicUsize>) -> Self {
        let next_begins = Arc::clone(place).lock_owned().await;
        tokio::time::sleep_until((*next_begins).into()).await;
        let calls_after = calls.load(Ordering::Relaxed) + 1;
        Self { next_begins, calls: Arc::clone(calls), calls_after, began: Instant::now() }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.calls.load(Ordering::Relaxed) > self.calls_after {
            *self.next_begins = Instant::now() + self.began.elapsed().min(PAUSE);
        }
    }
}

impl<Db: Database> Clone for Pool<Db> {
    fn clone(&self) -> Self {
        let Self { connections, long, counting, calls } = self;
        let [long, counting] = [long, counting].map(Arc::clone);
        Self { connections: connections.clone(), long, counting, calls: Arc::clone(calls) }
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
        let long = new_place();
        let counting = if most > 2 { new_place() } else { Arc::clone(&long) };
        Self { connections, long, counting, calls: Arc::default() }
    }

    /// For what may read as much as an event has: one at a time. More would take connections and processors from scans.
    pub async fn lease_long(&self) -> Result<Lease<Db>, Error> {
        self.lease_at(&self.long).await
    }

    /// For what counts all that an event has.
    pub async fn lease_counting(&self) -> Result<Lease<Db>, Error> {
        self.lease_at(&self.counting).await
    }

    async fn lease_at(&self, place: &Place) -> Result<Lease<Db>, Error> {
        let turn = Turn::at(place, &self.calls).await;
        let mut lease = self.lease().await?;
        lease.turn = Some(turn);
        Ok(lease)
    }

    pub async fn lease(&self) -> Result<Lease<Db>, Error> {
        let lease = match self.connections.get().await {
            Ok(connection) => Lease { connection: Some(connection), in_transaction: false, turn: None },
            Err(managed::PoolError::Backend(error)) => {
                return Err(Error::DatabaseUnavailable(format!("connecting: {error}")));
            }
            Err(error) => return Err(Error::DatabaseUnavailable(error.to_string())),
        };
        self.calls.fetch_add(1, Ordering::Relaxed);
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
    /// Its turn, if it is a long read. Dropped after the connection, which the next one gets.
    turn: Option<Turn>,
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

#[cfg(test)]
mod tests {
    use super::*;

    /// How long the next one pauses, after a read of this length and so many other calls.
    async fn pause_after(read: Duration, others: usize) -> Duration {
        let (place, calls) = (new_place(), Arc::default());
        let mut turn = Turn::at(&place, &calls).await;
        turn.began = Instant::now().checked_sub(read).unwrap();
        calls.fetch_add(1 + others, Ordering::Relaxed);
        let ends = Instant::now();
        drop(turn);
        place.lock().await.saturating_duration_since(ends)
    }

    #[tokio::test]
    async fn who_reads_much_pauses_as_long_as_it_read_where_others_came_meanwhile() {
        let read = Duration::from_millis(7);
        assert!(pause_after(read, 1).await >= read);
        assert_eq!(pause_after(read, 0).await, Duration::ZERO);
        let long = pause_after(Duration::from_secs(3), 1).await;
        assert!(long >= PAUSE && long < Duration::from_secs(1), "{long:?}");
    }
}
