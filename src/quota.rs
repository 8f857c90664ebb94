//! Quotas for scarce resources of the process: no key and no event can use all of one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::auth::Caller;
use crate::error::Error;
use crate::limits::Share;

/// A resource with limits.
pub struct Quota {
    share: Share,
    held: Mutex<HashMap<Holder, usize>>,
    /// Notified when some of it is released.
    freed: Notify,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Holder {
    All,
    /// The event to which a key is bound. Keys without an event are counted together.
    Event(Option<Uuid>),
    Key(Option<Uuid>),
}

/// The amount that one request holds, released on drop.
pub struct Held {
    quota: Arc<Quota>,
    holders: [Holder; 3],
    amount: usize,
}

impl Quota {
    pub fn new(share: Share) -> Arc<Self> {
        Arc::new(Self { share, held: Mutex::default(), freed: Notify::new() })
    }

    /// Starts a holding with amount 0.
    pub fn open(self: &Arc<Self>, caller: &Caller) -> Held {
        self.open_for(caller, caller.event_id)
    }

    /// Like [`Quota::open`], but counted for this event regardless of the event to which the key is bound.
    pub fn open_for(self: &Arc<Self>, caller: &Caller, event_id: Option<Uuid>) -> Held {
        let holders = [Holder::All, Holder::Event(event_id), Holder::Key(caller.key_id)];
        Held { quota: Arc::clone(self), holders, amount: 0 }
    }

    /// Takes one permit, and waits for it at most `patience`.
    pub async fn turn(self: &Arc<Self>, caller: &Caller, patience: Duration) -> Result<Held, Error> {
        let deadline = Instant::now() + patience;
        loop {
            // Registered before the attempt, so that no release after it is missed.
            let freed = self.freed.notified();
            let refused = match self.open(caller).with(1) {
                Ok(held) => return Ok(held),
                Err(error) => error,
            };
            timeout_at(deadline, freed).await.map_err(|_| refused)?;
        }
    }

    fn most(&self, holder: Holder) -> usize {
        match holder {
            Holder::All => self.share.of_all,
            Holder::Event(_) => self.share.of_one_event,
            Holder::Key(_) => self.share.of_one_key,
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Holder, usize>> {
        // A panic cannot leave the map half-written.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Takes more and returns itself, or fails.
    pub fn with(mut self, more: usize) -> Result<Self, Error> {
        self.take(more)?;
        Ok(self)
    }

    /// Takes more, or takes nothing and returns which limit is reached.
    pub fn take(&mut self, more: usize) -> Result<(), Error> {
        let mut held = self.quota.lock();
        let is_full = |holder: &&Holder| held.get(holder).unwrap_or(&0) + more > self.quota.most(**holder);
        match self.holders.iter().find(is_full) {
            Some(Holder::All) => return Err(Error::Busy("all keys together have as much in flight as they may")),
            Some(Holder::Event(_)) => {
                return Err(Error::Busy("the keys of this event have as much in flight as they may"));
            }
            Some(Holder::Key(_)) => return Err(Error::Busy("this key has as much in flight as it may")),
            None => self.holders.iter().for_each(|holder| *held.entry(*holder).or_default() += more),
        }
        self.amount += more;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.amount == 0 {
            return;
        }
        let mut held = self.quota.lock();
        for holder in &self.holders {
            if let Some(amount) = held.get_mut(holder) {
                *amount -= self.amount;
            }
        }
        held.retain(|_, amount| *amount > 0);
        drop(held);
        self.quota.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share { of_all: 10, of_one_event: 6, of_one_key: 4 };

    fn key(event: u128, key: u128) -> Caller {
        Caller { key_id: Some(Uuid::from_u128(key)), event_id: Some(Uuid::from_u128(event)), ..Caller::ENVIRONMENT }
    }

    /// Takes an amount for a key, or returns why it may not.
    fn take(quota: &Arc<Quota>, caller: &Caller, amount: usize) -> Result<Held, String> {
        let mut held = quota.open(caller);
        held.take(amount).map_err(|error| error.cause().unwrap_or_default().to_owned())?;
        Ok(held)
    }

    #[test]
    fn a_key_takes_its_share_and_leaves_the_rest_to_others() {
        let quota = Quota::new(SHARE);
        let whole = take(&quota, &key(1, 1), 4);
        assert!(whole.is_ok());
        assert!(take(&quota, &key(1, 1), 1).is_err_and(|why| why.contains("this key")));
        assert!(take(&quota, &key(1, 2), 2).is_ok());
        drop(whole);
        assert!(take(&quota, &key(1, 1), 4).is_ok());
    }

    #[test]
    fn the_keys_of_an_event_take_its_share_and_leave_the_rest_to_others() {
        let quota = Quota::new(SHARE);
        let _taken = [take(&quota, &key(1, 1), 4), take(&quota, &key(1, 2), 2)];
        assert!(take(&quota, &key(1, 3), 1).is_err_and(|why| why.contains("this event")));
        let _other = take(&quota, &key(2, 4), 4).unwrap();
        assert!(take(&quota, &key(3, 5), 1).is_err_and(|why| why.contains("all keys")));
    }

    #[tokio::test]
    async fn who_waits_has_its_turn_when_one_is_given_back_and_is_told_when_none_is() {
        let quota = Quota::new(Share { of_all: 2, of_one_event: 1, of_one_key: 1 });
        let wait = |event, seconds| {
            let quota = Arc::clone(&quota);
            async move { quota.turn(&key(event, event), Duration::from_secs(seconds)).await }
        };
        let first = wait(1, 0).await.unwrap();
        assert!(wait(1, 0).await.is_err_and(|error| error.cause().is_some_and(|why| why.contains("this event"))));
        assert!(wait(2, 0).await.is_ok(), "another event does not wait");
        let (second, ()) = tokio::join!(wait(1, 60), async { drop(first) });
        assert!(second.is_ok());
    }

    #[test]
    fn what_is_refused_takes_nothing_and_nothing_is_kept_of_who_left() {
        let quota = Quota::new(SHARE);
        let mut held = quota.open(&key(1, 1));
        assert!(held.take(3).is_ok() && held.take(2).is_err() && held.take(1).is_ok());
        assert_eq!(quota.lock()[&Holder::All], 4);
        drop(held);
        assert!(quota.lock().is_empty());
    }
}
