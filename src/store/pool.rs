//! A lazy pool of sqlx connections, managed by `deadpool`. sqlx's own pool sends a ping after each use from a background
//! task: one more round trip for every call, and work after the response, when Cloud Run freezes the process.

use std::io::ErrorKind;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use deadpool::managed::{self, Metrics, Object, RecycleError, RecycleResult};
use sqlx::{ConnectOptions, Connection, Database, Executor};
use tokio::sync::OwnedMutexGuard;

use crate::error::Error;

/// How long a connection may be idle and still be trusted without a ping.
const TRUSTED_REST: Duration = Duration::from_secs(1);
/// The longest pause between two long reads. Several pages of a list would add up to this much.
const PAUSE: Duration = Duration::from_millis(50);

type OptionsOf<Db> = <<Db as Database>::Connection as Connection>::Options;

/// The lifetime of the database session behind a connection.
#[derive(Clone, Copy)]
pub enum Session {
    /// As long as the connection lives.
    Own,
    /// For one transaction, as a pooler lends it. So each call is a transaction, which this statement begins.
    Lent(&'static str),
}

pub struct Connector<Db: Database> {
    options: OptionsOf<Db>,
    session: Session,
    /// The timeout for connecting, shorter than that of a request. When the database is back, calls that still wait for a
    /// reply to their first packets give up their connections within this time.
    connect_timeout: Duration,
    /// How long an idle connection may take to answer a ping before it is replaced.
    ping_timeout: Duration,
    /// When a connection was last found dead. Those that were idle then most likely died with it; a ping to each of them
    /// in turn would take longer than the timeout of a request.
    found_dead: Mutex<Option<Instant>>,
}

impl<Db: Database> managed::Manager for Connector<Db> {
    type Type = Db::Connection;
    type Error = sqlx::Error;

    async fn create(&self) -> Result<Db::Connection, sqlx::Error> {
        match tokio::time::timeout(self.connect_timeout, self.options.connect()).await {
            Ok(connected) => connected,
            Err(_) => Err(sqlx::Error::Io(ErrorKind::TimedOut.into())),
        }
    }

    async fn recycle(&self, connection: &mut Db::Connection, metrics: &Metrics) -> RecycleResult<sqlx::Error> {
        let last_used = metrics.recycled.unwrap_or(metrics.created);
        let found_dead = || self.found_dead.lock().unwrap_or_else(PoisonError::into_inner);
        if found_dead().is_some_and(|found| last_used < found) {
            return Err(RecycleError::message("another connection was found dead"));
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
    /// The turns of long reads.
    long: Turns,
    /// The turns of counts, which may take ten seconds: no page of an export waits that long. The two together must leave
    /// a connection to other calls, so in a pool of two or fewer they are the same.
    counting: Turns,
    /// The number of calls that have got a connection.
    calls: Arc<AtomicUsize>,
}

/// Admits one read at a time, and holds the time at which the next may begin. If other calls came during a read, the next
/// one waits for as long as it took, at most [`PAUSE`]: so pages of an export, one after the other, leave at least half
/// of a processor to scans.
type Turns = Arc<tokio::sync::Mutex<Instant>>;

fn new_turns() -> Turns {
    Arc::new(tokio::sync::Mutex::new(Instant::now()))
}

/// One of the turns. It ends when dropped.
struct Turn {
    next_begins: OwnedMutexGuard<Instant>,
    calls: Arc<AtomicUsize>,
    /// The value of `calls` if no other call comes during this one.
    calls_after: usize,
    began: Instant,
}

impl Turn {
    /// Waits for a turn for one call. `calls` counts all calls of the pool.
    async fn at(turns: &Turns, calls: &Arc<AtomicUsize>) -> Self {
        let next_begins = Arc::clone(turns).lock_owned().await;
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
    /// Creates a pool without opening a connection: each is opened when it is first needed. `timeout` is that of a request.
    pub fn new(options: OptionsOf<Db>, session: Session, most: usize, timeout: Duration) -> Self {
        let (connect_timeout, ping_timeout) = (timeout * 3 / 5, timeout / 5);
        let connector = Connector { options, session, connect_timeout, ping_timeout, found_dead: Mutex::default() };
        let connections = managed::Pool::builder(connector)
            .max_size(most)
            // LIFO keeps few connections warm and lets the others idle.
            .queue_mode(managed::QueueMode::Lifo)
            .build()
            .expect("a pool without timeouts needs no runtime, and nothing else can be missing");
        let long = new_turns();
        let counting = if most > 2 { new_turns() } else { Arc::clone(&long) };
        Self { connections, long, counting, calls: Arc::default() }
    }

    /// Leases a connection for a read of up to a whole event, one at a time: more would take connections and processors
    /// from scans.
    pub async fn lease_long(&self) -> Result<Lease<Db>, Error> {
        self.lease_at(&self.long).await
    }

    /// Leases a connection for a count over a whole event.
    pub async fn lease_counting(&self) -> Result<Lease<Db>, Error> {
        self.lease_at(&self.counting).await
    }

    async fn lease_at(&self, turns: &Turns) -> Result<Lease<Db>, Error> {
        let turn = Turn::at(turns, &self.calls).await;
        let mut lease = self.lease().await?;
        lease.turn = Some(turn);
        Ok(lease)
    }

    pub async fn lease(&self) -> Result<Lease<Db>, Error> {
        let lease = match self.connections.get().await {
            Ok(connection) => Lease { connection: Some(connection), in_transaction: false, turn: None },
            Err(managed::PoolError::Backend(error)) => return Err(cannot_connect(&error)),
            Err(error) => return Err(Error::DatabaseUnavailable(error.to_string())),
        };
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.connections.manager().session {
            Session::Own => Ok(lease),
            Session::Lent(begin) => lease.begin(begin).await,
        }
    }
}

fn cannot_connect(error: &sqlx::Error) -> Error {
    // PgBouncer accepts few of the settings with which a session begins.
    let refused = error.as_database_error().is_some_and(|error| error.code().as_deref() == Some("08P01"));
    let advice = if refused { "; behind a pooler, set DB_POOL_MODE=transaction" } else { "" };
    Error::DatabaseUnavailable(format!("connecting: {error}{advice}"))
}

/// A connection for one call. Only [`Lease::settle`] returns it to the pool. If the call is dropped at its deadline, or
/// fails in a way that leaves the connection in doubt, the connection is closed with the lease and never used again.
pub struct Lease<Db: Database> {
    connection: Option<Object<Connector<Db>>>,
    in_transaction: bool,
    /// The turn of a long read. Dropped after the connection, so that the next read gets that one.
    turn: Option<Turn>,
}

impl<Db: Database> Lease<Db>
where
    for<'c> &'c mut Db::Connection: Executor<'c, Database = Db>,
{
    pub fn connection(&mut self) -> &mut Db::Connection {
        self.connection.as_mut().expect("a lease holds its connection until it is settled")
    }

    /// Begins a transaction, which lasts until the call is settled. If the call is a transaction already, only the part
    /// of the statement after `begin` is executed.
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

    /// Ends the call with its outcome: commits the transaction, or rolls it back if the call was refused. sqlx's own
    /// `Transaction` would send the rollback only with the next statement, and hold its locks until then.
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

    /// Returns how long the next read has to wait after one of this length, during which this many other calls came.
    async fn pause_after(read: Duration, others: usize) -> Duration {
        let (turns, calls) = (new_turns(), Arc::default());
        let mut turn = Turn::at(&turns, &calls).await;
        turn.began = Instant::now().checked_sub(read).unwrap();
        calls.fetch_add(1 + others, Ordering::Relaxed);
        let ends = Instant::now();
        drop(turn);
        turns.lock().await.saturating_duration_since(ends)
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
