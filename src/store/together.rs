//! Batches the questions that arrive while the database works on others of the same kind.
//!
//! A question is asked at once if no batch is under way, and alone unless others arrive at the same moment after a batch
//! of several: no timer waits for a batch to fill. Questions that arrive meanwhile form one batch once it is answered.
//! Every caller in a batch polls the batch's future: it goes on when some callers give up, and is dropped when the last
//! one does, so no work runs that nobody waits for.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, Either, Shared};
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::time::Instant;

/// The maximum number of questions in a batch.
const MOST: usize = 64;
/// How long a batch holds the permit. A connection that hangs delays only the callers in its own batch.
const SLOW: Duration = Duration::from_millis(100);

/// The only caller of a batch has it to itself: when it ends, a shared future wakes also the task that polls it, and tokio
/// then another thread to run that task.
type Batch = Either<BoxFuture<'static, ()>, Shared<BoxFuture<'static, ()>>>;

/// A waiting caller: its question, where to send the answer, and where to send the batch that brings it.
struct Waiting<Q, A> {
    question: Q,
    answer: oneshot::Sender<A>,
    batch: oneshot::Sender<Batch>,
}

/// Answers a batch: one answer for each question, in their order, or `None` for a question that has to be asked alone.
type Work<Q, A> = Box<dyn Fn(Vec<Q>) -> BoxFuture<'static, Vec<Option<A>>> + Send + Sync>;

pub struct Together<Q, A> {
    waiting: Mutex<Vec<Waiting<Q, A>>>,
    /// Held by the batch under way.
    permit: Arc<Semaphore>,
    /// Notified when a question waits for the batch under way.
    delayed: Arc<Notify>,
    /// Whether the last batch had several questions. Its callers ask their next ones at the same time, so the first of
    /// them lets the others run up to here, or it would go alone, and they would wait for it.
    crowded: AtomicBool,
    /// Whether two questions must not share a batch.
    apart: fn(&Q, &Q) -> bool,
    work: Work<Q, A>,
}

impl<Q: Send + 'static, A: Send + 'static> Together<Q, A> {
    pub fn new(apart: fn(&Q, &Q) -> bool, work: Work<Q, A>) -> Self {
        Self {
            waiting: Mutex::default(),
            permit: Arc::new(Semaphore::new(1)),
            delayed: Arc::default(),
            crowded: AtomicBool::new(false),
            apart,
            work,
        }
    }

    /// Returns the answer, or `None` if the question has to be asked alone.
    pub async fn ask(&self, question: Q) -> Option<A> {
        let (answer, mut answered) = oneshot::channel();
        let (batch, mut batched) = oneshot::channel();
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).push(Waiting { question, answer, batch });
        if self.crowded.load(Ordering::Relaxed) {
            tokio::task::yield_now().await;
        }
        match Arc::clone(&self.permit).try_acquire_owned() {
            // Before anyone waits for `batched`: its sender would wake this task, and tokio another thread to run it.
            Ok(permit) => self.start_batch(permit),
            Err(_) => self.delayed.notify_one(),
        }
        let batch = loop {
            tokio::select! {
                biased;
                batch = &mut batched => break batch.ok()?,
                permit = Arc::clone(&self.permit).acquire_owned() => self.start_batch(permit.ok()?),
            }
        };
        batch.await;
        answered.try_recv().ok()
    }

    /// Starts a batch of the waiting questions, and hands it to each of their callers.
    fn start_batch(&self, permit: tokio::sync::OwnedSemaphorePermit) {
        let batch = self.take_batch();
        if batch.is_empty() {
            return;
        }
        self.crowded.store(batch.len() > 1, Ordering::Relaxed);
        let (mut questions, mut answers, mut callers) = (Vec::new(), Vec::new(), Vec::new());
        for Waiting { question, answer, batch } in batch {
            questions.push(question);
            answers.push(answer);
            callers.push(batch);
        }
        let mut work = (self.work)(questions);
        let delayed = Arc::clone(&self.delayed);
        let work = async move {
            let slow = async {
                let started = Instant::now();
                // A timer wakes another thread, so nobody starts one for a question that delays no other.
                if answers.len() == 1 {
                    delayed.notified().await;
                }
                tokio::time::sleep_until(started + SLOW).await;
            };
            let in_time = tokio::select! {
                biased;
                all = &mut work => Some(all),
                () = slow => None,
            };
            drop(permit);
            let all = match in_time {
                Some(all) => all,
                None => work.await,
            };
            for (answer, to) in all.into_iter().zip(answers) {
                // The send fails if the caller gave up. A caller without an answer asks alone.
                let _ = answer.map(|answer| to.send(answer));
            }
        };
        let work = work.boxed();
        match <[_; 1]>::try_from(callers) {
            Ok([caller]) => {
                caller.send(Either::Left(work)).ok();
            }
            Err(callers) => {
                let shared = work.shared();
                for caller in callers {
                    caller.send(Either::Right(shared.clone())).ok();
                }
            }
        }
    }

    /// Takes the questions of the next batch from the queue, in the order of their arrival.
    fn take_batch(&self) -> Vec<Waiting<Q, A>> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut batch, mut left): (Vec<Waiting<Q, A>>, _) = (Vec::new(), Vec::new());
        for one in mem::take(&mut *waiting) {
            if one.batch.is_closed() {
                continue;
            }
            let fits = batch.len() < MOST && !batch.iter().any(|other| (self.apart)(&other.question, &one.question));
            if fits { batch.push(one) } else { left.push(one) }
        }
        if !left.is_empty() {
            self.delayed.notify_one();
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

    /// Numbers asked in batches. Each batch is reported in `batches`, and is answered with its numbers once `go_on` permits it.
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

        /// Asks, and returns once the question is in the queue.
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
    async fn after_a_batch_those_who_ask_at_the_same_time_go_together() {
        let mut numbers = Numbers::new(NONE_APART);
        let mut asked = vec![numbers.ask(1)];
        assert_eq!(numbers.next().await, [1]);
        asked.extend([numbers.queue(2).await, numbers.queue(3).await]);
        numbers.go_on.add_permits(2);
        assert_eq!(numbers.next().await, [2, 3]);
        join_all(asked).await;
        let asked = [4, 5, 6].map(|number| numbers.ask(number));
        numbers.go_on.add_permits(1);
        assert_eq!(numbers.next().await, [4, 5, 6]);
        join_all(asked).await;
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
        // The caller that drives the batch now, and one that does not.
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
        assert_eq!(numbers.next().await, [2], "the permit is free, though the first batch never went on");
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
    async fn a_batch_that_hangs_does_not_keep_those_who_must_be_apart_from_it() {
        let mut numbers = Numbers::new(|one, other| one % 10 == other % 10);
        let first = numbers.ask(1);
        assert_eq!(numbers.next().await, [1]);
        let mut asked = Vec::new();
        for number in [12, 22, 32] {
            asked.push(numbers.queue(number).await);
        }
        numbers.go_on.add_permits(1);
        assert_eq!(first.await.unwrap(), Some(1));
        for number in [12, 22, 32] {
            assert_eq!(numbers.next().await, [number]);
        }
        numbers.go_on.add_permits(3);
        join_all(asked).await;
    }

    #[tokio::test]
    async fn a_question_that_delays_nobody_starts_no_timer() {
        let mut numbers = Numbers::new(NONE_APART);
        let hanging = numbers.ask(1);
        assert_eq!(numbers.next().await, [1]);
        let released = tokio::time::timeout(SLOW * 2, numbers.together.permit.acquire()).await;
        assert!(released.is_err(), "it keeps the permit as long as nobody asks");
        numbers.go_on.add_permits(1);
        assert_eq!(hanging.await.unwrap(), Some(1));
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
