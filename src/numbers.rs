//! The numbers of events, counted once for all who ask at the same time, and of a large event not again for some time.
//!
//! To count a million tickets keeps a connection and a processor busy for a second, and each board asks every few seconds. So
//! what was counted of so many rows is told until it is ten times as old as counting took: all boards of an event together
//! have a tenth of one connection, and the numbers say of when they are. Of a smaller event they are never older than the
//! question.
//!
//! Whoever asks counts: nothing runs that nobody waits for, and what one process counted says nothing to another.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Mutex as Turn;
use uuid::Uuid;

use crate::error::Error;
use crate::limits::{NUMBERS_KEPT, NUMBERS_KEPT_TIMES};
use crate::model::Millis;
use crate::store::Stats;

/// What was counted.
pub struct Counted {
    pub stats: Stats,
    /// Nothing that was done before is missing.
    pub as_of: Millis,
    /// When counting began, by a clock that nobody sets.
    began: Instant,
    /// How old it may get.
    kept: Duration,
}

impl Counted {
    fn is_older_than(&self, age: Duration, now: Millis) -> bool {
        // A clock that was set back tells no age.
        !(self.as_of..self.as_of + age).contains(&now)
    }
}

/// The newest numbers of one event.
#[derive(Default)]
struct Event {
    /// Whoever has it counts.
    turn: Turn<()>,
    newest: Mutex<Option<Arc<Counted>>>,
}

impl Event {
    fn newest(&self) -> Option<Arc<Counted>> {
        lock(&self.newest).clone()
    }

    /// What may be told to somebody who asked at a moment.
    fn good_for(&self, asked: Instant, now: Millis) -> Option<Arc<Counted>> {
        self.newest().filter(|counted| asked <= counted.began || !counted.is_older_than(counted.kept, now))
    }
}

/// The numbers of all events.
pub struct Numbers {
    /// How many rows make an event large.
    large: i64,
    events: Mutex<HashMap<Uuid, Arc<Event>>>,
}

impl Numbers {
    pub fn new(large: i64) -> Self {
        Self { large, events: Mutex::default() }
    }

    /// The numbers of an event for who asks `now`: what was counted already, where it is good enough, or what `count` counts.
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
            // Somebody counts, and those who have something to go by need not wait for it.
            Err(_) => match event.newest().filter(|counted| !counted.is_older_than(2 * counted.kept, now)) {
                Some(counted) => return Ok(counted),
                None => event.turn.lock().await,
            },
        };
        // It may have been counted while we waited.
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
        // Of those that nobody asks for only the large ones have something to keep.
        events.retain(|_, event| {
            Arc::strong_count(event) > 1 || event.newest().is_some_and(|counted| !counted.kept.is_zero())
        });
        Arc::clone(events.entry(event_id).or_default())
    }
}

/// For how long it is told what it took so long to count.
fn kept(is_large: bool, took: Duration) -> Duration {
    if is_large { NUMBERS_KEPT.max(took * NUMBERS_KEPT_TIMES) } else { Duration::ZERO }
}

/// A panic cannot leave what these locks hold half-written.
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
    /// Long after what was counted may be told again, however slow the machine is that counted it.
    const LATER: i64 = 3_600_000;

    /// An event of ten rows, which is counted when it may be.
    struct Hall {
        numbers: Numbers,
        may_count: Semaphore,
        counted: AtomicUsize,
    }

    impl Hall {
        fn new(large: i64) -> Self {
            Self { numbers: Numbers::new(large), may_count: Semaphore::new(0), counted: AtomicUsize::new(0) }
        }

        /// How often it was counted when what is told was counted.
        async fn ask(&self, now: i64) -> Result<i64, Error> {
            let count = async {
                let may = self.may_count.acquire().await.map_err(|_| Error::NotFound)?;
                may.forget();
                let undone = self.counted.fetch_add(1, Ordering::SeqCst) as i64 + 1;
                Ok(Stats { undone, rows: 10, ..Stats::new(Vec::new(), &[], Vec::new()) })
            };
            self.numbers.of(EVENT, Millis(now), count).await.map(|counted| counted.stats.undone)
        }

        /// What is told at once.
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
            assert!(other.now_or_never().is_none(), "what was being counted may lack what was done since");
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
        // A slow machine may have taken longer than to be kept for a second.
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
        assert_eq!(hall.told(0), Some(1), "what failed took nothing away");
    }

    #[tokio::test]
    async fn nothing_is_kept_of_events_that_are_small_or_that_nobody_asks_for() {
        let hall = Hall::new(11);
        hall.ask_and_count(0).await;
        hall.numbers.event(Uuid::max());
        assert_eq!(lock(&hall.numbers.events).len(), 1);
    }
}
