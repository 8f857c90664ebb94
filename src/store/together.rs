//! Questions that arrive while the database works on others of their kind go to it together.
//!
//! Whoever asks first goes at once and alone: nothing waits for company. What arrives meanwhile waits until it is back, and goes with
//! everything that waits by then. All who are in a batch drive it, so that it goes on when some of them give up, and ends
//! with the last of them: nothing runs that nobody waits for.

use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::{Semaphore, oneshot};

/// How many questions go together at most.
const MOST: usize = 64;
/// How long a batch keeps its place: a connection that hangs keeps nobody waiting who is not in it.
const SLOW: Duration = Duration::from_millis(100);

type Batch = Shared<BoxFuture<'static, ()>>;

/// One who waits: what is asked, where the answer is put, and how to say which batch brings it.
struct Waiting<Q, A> {
    question: Q,
    answer: oneshot::Sender<A>,
    batch: oneshot::Sender<Batch>,
}

/// Answers many questions at once: one answer for each, in their order, or nothing for one that has to be asked alone.
type Work<Q, A> = Box<dyn Fn(Vec<Q>) -> BoxFuture<'static, Vec<Option<A>>> + Send + Sync>;

pub struct Together<Q, A> {
    waiting: Mutex<Vec<Waiting<Q, A>>>,
    /// The place of the batch that is under way.
    place: Arc<Semaphore>,
    /// Whether two questions may not be in one batch.
    apart: fn(&Q, &Q) -> bool,
    work: Work<Q, A>,
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    pub fn new(apart: fn(&Q, &Q) -> bool, work: Work<Q, A>) -> Self {
        Self { waiting: Mutex::default(), place: Arc::new(Semaphore::new(1)), apart, work }
    }

    /// The answer, or nothing where the question has to be asked alone.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (answer, mut answered) = oneshot::channel();
        let (batch, mut taken_along) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { question, answer, batch });
        let batch = loop {
            tokio::select! {
                biased;
                batch = &mut taken_along => break batch.ok()?,
                place = Arc::clone(&self.place).acquire_owned() => self.depart(place.ok()?),
            }
        };
        batch.await;
        answered.try_recv().ok()
    }

    /// Makes a batch of those who wait, and tells each of them.
    fn depart(&self, place: tokio::sync::OwnedSemaphorePermit) {
        let batch = self.board();
        if batch.is_empty() {
            return;
        }
        let (mut questions, mut answers, mut passengers) = (Vec::new(), Vec::new(), Vec::new());
        for Waiting { question, answer, batch } in batch {
            questions.push(question);
            answers.push(answer);
            passengers.push(batch);
        }
        let mut work = (self.work)(questions);
        let work = async move {
            let in_time = tokio::time::timeout(SLOW, &mut work).await;
            drop(place);
            let all = match in_time {
                Ok(all) => all,
                Err(_) => work.await,
            };
            for (answer, to) in all.into_iter().zip(answers) {
                // Whoever gave up is not there any more, and whoever gets nothing asks alone.
                let _ = answer.map(|answer| to.send(answer));
            }
        };
        let batch = work.boxed().shared();
        for passenger in passengers {
            passenger.send(batch.clone()).ok();
        }
    }

    /// Takes those who go together, in the order in which they came.
    fn board(&self) -> Vec<Waiting<Q, A>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut left): (Vec<Waiting<Q, A>>, _) = (Vec::new(), Vec::new());
        for one in mem::take(&mut *waiting) {
            if one.batch.is_closed() {
                continue;
            }
            let fits = batch.len() < MOST && !batch.iter().any(|other| (self.apart)(&other.question, &one.question));
            if fits { batch.push(one) } else { left.push(one) }
        }
        *waiting = left;
        batch
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;
    use tokio::sync::mpsc;
    use tokio::task::yield_now;

    use super::*;

    /// Numbers that go together: each batch is told of, and is answered with its numbers when it may go on.
    struct Numbers {
        together: Arc<Together<u32, u32>>,
        batches: mpsc::UnboundedReceiver<Vec<u32>>,
        go_on: Arc<Semaphore>,
    }

    impl Numbers {
        fn new(apart: fn(&u32, &u32) -> bool) -> Self {
            let (told, batches) = mpsc::unbounded_channel();
            let go_on = Arc::new(Semaphore::new(0));
            let may = Arc::clone(&go_on);
            let work = move |numbers: Vec<u32>| {
                told.send(numbers.clone()).unwrap();
                let may = Arc::clone(&may);
                let answers = numbers.into_iter().map(|number| (number != 13).then_some(number)).collect();
                async move {
                    may.acquire().await.unwrap().forget();
                    answers
                }
                .boxed()
            };
            Self { together: Arc::new(Together::new(apart, Box::new(work))), batches, go_on }
        }

        fn ask(&self, number: u32) -> tokio::task::JoinHandle<Option<u32>> {
            let together = Arc::clone(&self.together);
            tokio::spawn(async move { together.ask(number).await })
        }

        /// Asks, and waits until it waits.
        async fn queue(&self, number: u32) -> tokio::task::JoinHandle<Option<u32>> {
            let asked = self.ask(number);
            while !self.together.waiting.lock().unwrap().iter().any(|waiting| waiting.question == number) {
                yield_now().await;
            }
            asked
        }

        async fn next(&mut self) -> Vec<u32> {
            tokio::time::timeout(Duration::from_secs(10), self.batches.recv()).await.unwrap().unwrap()
        }
    }

    const NONE_APART: fn(&u32, &u32) -> bool = |_, _| false;

    #[tokio::test]
    async fn one_goes_at_once_and_those_who_come_meanwhile_go_together() {
        let mut numbers = Numbers::new(NONE_APART);
        let mut asked = vec![numbers.ask(1)];
        assert_eq!(numbers.next().await, [1]);
        for number in 2..=5 {
            asked.push(numbers.queue(number).await);
        }
        numbers.go_on.add_permits(2);
        assert_eq!(numbers.next().await, [2, 3, 4, 5]);
        let answers: Vec<_> = join_all(asked).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(answers, [1, 2, 3, 4, 5].map(Some));
    }

    #[tokio::test]
    async fn whoever_gives_up_takes_nothing_from_the_rest() {
        let mut numbers = Numbers::new(NONE_APART);
        let first = numbers.ask(1);
        assert_eq!(numbers.next().await, [1]);
        let mut asked = Vec::new();
        for number in 2..=5 {
            asked.push(numbers.queue(number).await);
        }
        asked[1].abort();
        numbers.go_on.add_permits(1);
        assert_eq!(first.await.unwrap(), Some(1));
        let batch = numbers.next().await;
        // Whoever drives the batch now, and one of those who are driven.
        asked[0].abort();
        asked[3].abort();
        while !(asked[0].is_finished() && asked[3].is_finished()) {
            yield_now().await;
        }
        numbers.go_on.add_permits(1);
        assert_eq!(asked.remove(2).await.unwrap(), Some(4), "{batch:?}");
    }

    #[tokio::test]
    async fn a_batch_ends_with_the_last_who_waits_for_it() {
        let mut numbers = Numbers::new(NONE_APART);
        let first = numbers.ask(1);
        assert_eq!(numbers.next().await, [1]);
        first.abort();
        let second = numbers.ask(2);
        assert_eq!(numbers.next().await, [2], "its place is free, though nothing let it go on");
        numbers.go_on.add_permits(1);
        assert_eq!(second.await.unwrap(), Some(2));
    }

    #[tokio::test]
    async fn a_batch_that_hangs_keeps_only_its_own_waiting() {
        let mut numbers = Numbers::new(NONE_APART);
        let hanging = numbers.ask(1);
        assert_eq!(numbers.next().await, [1]);
        let second = numbers.ask(2);
        assert_eq!(numbers.next().await, [2]);
        assert!(!hanging.is_finished());
        numbers.go_on.add_permits(2);
        assert_eq!((hanging.await.unwrap(), second.await.unwrap()), (Some(1), Some(2)));
    }

    #[tokio::test]
    async fn those_who_must_be_apart_go_one_after_the_other_in_their_order() {
        let mut numbers = Numbers::new(|one, other| one % 10 == other % 10);
        let mut asked = vec![numbers.ask(1)];
        assert_eq!(numbers.next().await, [1]);
        for number in [12, 22, 15, 32] {
            asked.push(numbers.queue(number).await);
        }
        numbers.go_on.add_permits(4);
        assert_eq!(numbers.next().await, [12, 15]);
        assert_eq!(numbers.next().await, [22]);
        assert_eq!(numbers.next().await, [32]);
        for one in asked {
            assert!(one.await.unwrap().is_some());
        }
    }

    #[tokio::test]
    async fn what_a_batch_does_not_answer_has_to_be_asked_alone() {
        let mut numbers = Numbers::new(NONE_APART);
        let asked = numbers.ask(13);
        assert_eq!(numbers.next().await, [13]);
        numbers.go_on.add_permits(1);
        assert_eq!(asked.await.unwrap(), None);
    }

    #[tokio::test]
    async fn no_batch_is_larger_than_the_most() {
        let mut numbers = Numbers::new(NONE_APART);
        let mut asked = vec![numbers.ask(1_000)];
        numbers.next().await;
        for number in 0..=MOST as u32 {
            asked.push(numbers.queue(number).await);
        }
        numbers.go_on.add_permits(3);
        assert_eq!(numbers.next().await.len(), MOST);
        assert_eq!(numbers.next().await, [MOST as u32]);
        join_all(asked).await;
    }
}
