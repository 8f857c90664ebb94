//! The statistics of events: counted once for concurrent requests, and cached if the event is large.
//!
//! Counting a million tickets keeps a connection and a processor busy for a second, and each board asks every few seconds. The
//! statistics of a large event are therefore cached for ten times as long as counting took: all boards of an event together
//! use a tenth of one connection, and the statistics state their time. Those of a smaller event are never older than the
//! request.
//!
//! A request counts: nothing runs in the background, and processes do not share their statistics.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use crate::error::Error;
use crate::limits::{NUMBERS_KEPT, NUMBERS_KEPT_TIMES};
use crate::model::Millis;
use crate::store::Stats;

/// Statistics and their time.
pub struct Counted {
    pub stats: Stats,
    /// The time before which nothing is missing.
    pub as_of: Millis,
    /// When counting began, by a monotonic clock.
    began: Instant,
    /// How long it may be used.
    kept: Duration,
}

impl Counted {
    fn is_older_than(&self, age: Duration, now: Millis) -> bool {
        // After the clock was set back, the age is unknown.
        !(self.as_of..self.as_of + age).contains(&now)
    }
}

/// The newest statistics of one event.
#[derive(Default)]
struct Event {
    /// Held while counting.
    turn: Turn<()>,
    newest: Mutex<Option<Arc<Counted>>>,
}

impl Event {
    fn newest(&self) -> Option<Arc<Counted>> {
        lock(&self.newest).clone()
    }

    /// Returns the newest statistics if they suffice for a request made at `asked`.
    fn good_for(&self, asked: Instant, now: Millis) -> Option<Arc<Counted>> {
        self.newest().filter(|counted| asked <= counted.began || !counted.is_older_than(counted.kept, now))
    }
}

/// The statistics of all events.
pub struct Numbers {
    /// The number of rows from which an event is large.
    large: i64,
    events: Mutex<HashMap<Uuid, Arc<Event>>>,
}

impl Numbers {
    pub fn new(large: i64) -> Self {
        Self { large, events: Mutex::default() }
    }

    /// Returns the statistics of an event for a request at `now`: cached ones if they are new enough, otherwise the result of
    /// `count`.
    pub async fn of(
        &self,
        event_id: Uuid,
        now: Millis,
        count: impl Future<Output = Result<Stats, Error>>,
    ) -> Result<Arc<Counted>, Error> {
        let asked = Instant::now();
        let event = self.event(event_id);
        if let Some(counted) = event.good_for(asked, now) {
            return Ok(counted);
        }
        let _turn = match event.turn.try_lock() {
            Ok(turn) => turn,
            // Another request is counting. Slightly outdated statistics are better than waiting for it.
            Err(_) => match event.newest().filter(|counted| !counted.is_older_than(2 * counted.kept, now)) {
                Some(counted) => return Ok(counted),
                None => event.turn.lock().await,
            },
        };
        // Another request may have counted while this one waited.
        if let Some(counted) = event.good_for(asked, now) {
            return Ok(counted);
        }
        let began = Instant::now();
        let stats = count.await?;
        let kept = kept(stats.rows >= self.large, began.elapsed());
        let counted = Arc::new(Counted { stats, as_of: now, began, kept });
        *lock(&event.newest) = Some(Arc::clone(&counted));
        Ok(counted)
    }

    fn event(&self, event_id: Uuid) -> Arc<Event> {
        let mut events = lock(&self.events);
        // Without requests, only large events have something to cache.
        events.retain(|_, event| {
            Arc::strong_count(event) > 1 || event.newest().is_some_and(|counted| !counted.kept.is_zero())
        });
        Arc::clone(events.entry(event_id).or_default())
    }
}

/// Returns how long to cache statistics that took this long to count.
fn kept(is_large: bool, took: Duration) -> Duration {
    if is_large { NUMBERS_KEPT.max(took * NUMBERS_KEPT_TIMES) } else { Duration::ZERO }
}

/// Locks a mutex despite a panic, which cannot leave the values half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    const EVENT: Uuid = Uuid::nil();
    /// Long after any cached statistics have expired, even on a slow machine.
    const LATER: i64 = 3_600_000;

    /// An event with ten rows. Each count waits for a permit.
    struct Hall {
        numbers: Numbers,
        may_count: Semaphore,
        counted: AtomicUsize,
    }

    impl Hall {
        fn new(large: i64) -> Self {
            Self { numbers: Numbers::new(large), may_count: Semaphore::new(0), counted: AtomicUsize::new(0) }
        }

        /// Returns the ordinal number of the count that produced the returned statistics.
        async fn ask(&self, now: i64) -> Result<i64, Error> {
            let count = async {
                let may = self.may_count.acquire().await.map_err(|_| Error::NotFound)?;
                may.forget();
                let undone = self.counted.fetch_add(1, Ordering::SeqCst) as i64 + 1;
                Ok(Stats { undone, rows: 10, ..Stats::new(Vec::new(), &[], Vec::new()) })
            };
            self.numbers.of(EVENT, Millis(now), count).await.map(|counted| counted.stats.undone)
        }

        /// Returns the result if it is available immediately.
        fn told(&self, now: i64) -> Option<i64> {
            self.ask(now).now_or_never().map(Result::unwrap)
        }

        async fn ask_and_count(&self, now: i64) -> i64 {
            self.may_count.add_permits(1);
            self.ask(now).await.unwrap()
        }
    }

    #[tokio::test]
    async fn those_who_ask_while_somebody_counts_are_told_what_is_counted_next_once_for_all() {
        let hall = Hall::new(11);
        let mut first = Box::pin(hall.ask(0));
        assert!((&mut first).now_or_never().is_none());
        let mut others: Vec<_> = (0..3).map(|_| Box::pin(hall.ask(0))).collect();
        for other in &mut others {
            assert!(other.now_or_never().is_none(), "the running count may lack recent changes");
        }
        hall.may_count.add_permits(2);
        assert_eq!(first.await.unwrap(), 1);
        assert_eq!(futures_util::future::try_join_all(others).await.unwrap(), [2, 2, 2]);
    }

    #[tokio::test]
    async fn the_numbers_of_a_small_event_are_never_older_than_the_question() {
        let hall = Hall::new(11);
        assert_eq!((hall.ask_and_count(0).await, hall.ask_and_count(0).await), (1, 2));
    }

    #[tokio::test]
    async fn the_numbers_of_a_large_event_are_told_again_for_a_second_at_least() {
        let hall = Hall::new(10);
        assert_eq!(hall.ask_and_count(0).await, 1);
        assert_eq!(hall.told(999), Some(1));
        assert_eq!(hall.ask_and_count(LATER).await, 2);
    }

    #[test]
    fn what_took_longer_to_count_is_told_again_for_ten_times_as_long() {
        let kept = |took: u64| kept(true, Duration::from_millis(took)).as_millis();
        assert_eq!([0, 100, 101, 1_500].map(kept), [1_000, 1_000, 1_010, 15_000]);
    }

    #[tokio::test]
    async fn while_a_large_event_is_counted_again_the_others_are_told_what_there_is_unless_it_is_too_old() {
        let hall = Hall::new(10);
        hall.ask_and_count(0).await;
        // On a slow machine, counting may have taken so long that the result is cached for more than a second.
        let kept = hall.numbers.event(EVENT).newest().unwrap().kept.as_millis() as i64;
        let mut counting = Box::pin(hall.ask(kept));
        assert!((&mut counting).now_or_never().is_none());
        assert_eq!(hall.told(2 * kept - 1), Some(1));
        let mut waiting = Box::pin(hall.ask(2 * kept));
        assert!((&mut waiting).now_or_never().is_none());
        hall.may_count.add_permits(2);
        assert_eq!(counting.await.unwrap(), 2);
        assert!(waiting.await.unwrap() >= 2);
    }

    #[tokio::test]
    async fn where_counting_is_given_up_or_fails_the_next_counts() {
        let hall = Hall::new(10);
        let mut first = Box::pin(hall.ask(0));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(hall.ask(0));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        hall.may_count.add_permits(1);
        assert_eq!(second.await.unwrap(), 1);
        hall.may_count.close();
        assert!(hall.ask(LATER).await.is_err());
        assert_eq!(hall.told(0), Some(1), "a failure removes nothing");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_events_that_are_small_or_that_nobody_asks_for() {
        let hall = Hall::new(11);
        hall.ask_and_count(0).await;
        hall.numbers.event(Uuid::max());
        assert_eq!(lock(&hall.numbers.events).len(), 1);
    }
}
