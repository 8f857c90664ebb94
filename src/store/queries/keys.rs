//! Keys: creating, finding, revoking, and enrolling devices.

use async_trait::async_trait;
use uuid::Uuid;

use super::actions::record;
use super::events::find_event;
use super::{BEGIN, Backend, Connection, Db, kept_secrets};
use crate::error::Error;
use crate::limits::{CLOCKS_APART, ENROLMENT, HEARD_NOTED, OFFLINE_WINDOW};
use crate::model::{Action, Event, Key, Millis};
use crate::store::{Act, Author, FoundKey, Guarded, Keys, ListedKey, Result};

macro_rules! key_columns {
    () => {
        "k.key_id, k.name, k.role, k.event_id, e.slug as event, k.gate, k.offline, k.created_at, k.created_by, \
         k.expires_at, k.revoked_at, k.taken_at"
    };
}

/// A statement that selects keys.
macro_rules! select_keys {
    ($rest:literal) => {
        concat!("select ", key_columns!(), " from keys k left join events e on e.event_id = k.event_id ", $rest)
    };
}

/// The key `$1`, if it is neither revoked nor expired at `$2`.
macro_rules! where_good {
    () => {
        "where key_id = $1 and revoked_at is null and (expires_at is null or expires_at > $2)"
    };
}

#[async_trait]
impl Keys for Backend {
    async fn find_key(&self, secret_hash: &[u8]) -> Result<FoundKey> {
        let mut lease = self.reader().await?;
        let found: std::result::Result<Option<FoundKey>, _> = sqlx::query_as(concat!(
            "select ",
            key_columns!(),
            ", ",
            link_salt!(),
            ", (select f.ended_at from former_secrets f where f.secret_hash = $1) as replaced_at \
             from keys k left join events e on e.event_id = k.event_id \
             where k.key_id = coalesce((select c.key_id from keys c where c.secret_hash = $1), \
             (select f.key_id from former_secrets f where f.secret_hash = $1))"
        ))
        .bind(secret_hash)
        .fetch_optional(lease.connection())
        .await;
        let outcome = match found {
            Ok(Some(found)) => Ok(found),
            // Read through the same connection, since it is this database that does not know the secret.
            Ok(None) => match kept_secrets(lease.connection()).await {
                Ok(kept) => Err(Error::Unauthenticated(kept.database())),
                Err(error) => Err(error),
            },
            Err(error) => Err(error.into()),
        };
        lease.settle(outcome).await
    }

    async fn list_secrets(&self, key_id: Uuid) -> Result<Vec<Vec<u8>>> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_scalar(
            "select secret_hash from keys where key_id = $1 \
             union all select secret_hash from former_secrets where key_id = $1",
        )
        .bind(key_id)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn insert_key(&self, key: &Key, secret_hash: &[u8], author: Author) -> Result<()> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            record(connection, author, &Act::new(Action::KeyMade, key.event_id).subject(key.key_id)).await?;
            refuse_revoked(connection, author).await?;
            sqlx::query(
                "insert into keys \
                 (key_id, name, role, event_id, gate, offline, secret_hash, created_at, expires_at, created_by) \
                 values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
            )
            .bind(key.key_id)
            .bind(&key.name)
            .bind(key.role)
            .bind(key.event_id)
            .bind(key.gate.as_deref())
            .bind(key.offline)
            .bind(secret_hash)
            .bind(key.created_at)
            .bind(key.expires_at)
            .bind(key.created_by)
            .execute(&mut *connection)
            .await?;
            Ok(())
        }
        .await;
        lease.settle(outcome).await
    }

    async fn list_keys(&self, event_id: Option<Uuid>, after: Option<Uuid>, limit: i64) -> Result<Vec<ListedKey>> {
        let mut lease = self.long_reader().await?;
        // Grouped once for all keys, because no index leads from a key to its scans. The range of events uses their
        // index, for one event as well as all.
        let (first_event, last_event) = event_id.map_or((Uuid::nil(), Uuid::max()), |event_id| (event_id, event_id));
        let outcome = sqlx::query_as(concat!(
            "select ",
            key_columns!(),
            ", n.newest_scan_at, k.unsent, \
             case when n.newest_scan_at < k.heard_at then k.heard_at else coalesce(n.newest_scan_at, k.heard_at) end as heard_at, \
             case when k.offline and k.manifest_at is not null then k.heard_at end as manifest_at, \
             (select max(f.ended_at) from former_secrets f where f.key_id = k.key_id) as replaced_at \
             from keys k left join events e on e.event_id = k.event_id \
             left join (select s.key_id, max(s.received_at) as newest_scan_at from scans s \
             where s.event_id between $4 and $5 and ",
            kept_scan!(),
            " group by s.key_id) n on n.key_id = k.key_id \
             where ($1 is null or k.event_id = $1) and k.key_id > $2 order by k.key_id limit $3"
        ))
        .bind(event_id)
        .bind(after.unwrap_or_default())
        .bind(limit)
        .bind(first_event)
        .bind(last_event)
        .fetch_all(lease.connection())
        .await;
        lease.settle(outcome.map_err(Error::from)).await
    }

    async fn get_key(&self, key_id: Uuid) -> Result<Option<Guarded<Key>>> {
        let mut lease = self.reader().await?;
        let outcome: std::result::Result<Option<Key>, _> =
            sqlx::query_as(select_keys!("where k.key_id = $1")).bind(key_id).fetch_optional(lease.connection()).await;
        let key = lease.settle(outcome.map_err(Error::from)).await?;
        Ok(key.map(|key| Guarded::new(key.event_id, key)))
    }

    async fn find_enrolment(
        &self,
        key_id: Uuid,
        enrol_hash: &[u8],
        now: Millis,
    ) -> Result<Option<(Key, Option<Event>)>> {
        let mut lease = self.reader().await?;
        let outcome = async {
            let key: Option<Key> = sqlx::query_as(select_keys!(
                "where k.key_id = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > $2) \
                 and k.enrol_hash = $3 and k.enrol_expires_at > $2 and k.enrol_expires_at <= $4"
            ))
            .bind(key_id)
            .bind(now)
            .bind(enrol_hash)
            .bind(now + ENROLMENT + CLOCKS_APART)
            .fetch_optional(lease.connection())
            .await?;
            let Some(key) = key else { return Ok(None) };
            let event = match &key.event {
                Some(slug) => find_event(lease.connection(), slug).await?,
                None => None,
            };
            Ok(Some((key, event)))
        }
        .await;
        lease.settle(outcome).await
    }

    async fn revoke_key(&self, key_id: Uuid, author: Author) -> Result<Vec<Uuid>> {
        let mut lease = self.writer().await?.begin(BEGIN).await?;
        let outcome = async {
            let connection = lease.connection();
            let mut revoked = Vec::new();
            // Repeated until there are none left: a key whose creation was in progress becomes visible once we hold its
            // creator's row.
            loop {
                let more = revoke_descent(connection, key_id, author).await?;
                if more.is_empty() {
                    return Ok(revoked);
                }
                revoked.extend(more);
            }
        }
        .await;
        lease.settle(outcome).await
    }

    async fn offer_enrolment(
        &self,
        key_id: Uuid,
        enrol_hash: &[u8],
        expires_at: Millis,
        author: Author,
    ) -> Result<bool> {
        let update = sqlx::query(concat!("update keys set enrol_hash = $3, enrol_expires_at = $4 ", where_good!()));
        let update = update.bind(key_id).bind(author.now).bind(enrol_hash).bind(expires_at);
        change_key(self, key_id, [update], author, Action::KeyOffered).await
    }

    async fn enrol_key(&self, key_id: Uuid, enrol_hash: &[u8], secret_hash: &[u8], now: Millis) -> Result<bool> {
        // A device without a manifest has decided nothing offline. The second of two enrolments finds the secret stored
        // by the first.
        let keep = sqlx::query(concat!(
            "insert into former_secrets (secret_hash, key_id, ended_at) select secret_hash, key_id, $2 from keys ",
            where_good!(),
            " and enrol_hash = $3 and enrol_expires_at > $2 and enrol_expires_at <= $4 \
             and manifest_at is not null on conflict do nothing"
        ))
        .bind(key_id)
        .bind(now)
        .bind(enrol_hash)
        .bind(now + ENROLMENT + CLOCKS_APART);
        // Compare-and-set: the second of two enrolments waits for the row, and then finds no token in it.
        let update = sqlx::query(concat!(
            "update keys set secret_hash = $4, enrol_hash = null, enrol_expires_at = null, heard_at = null, unsent = null ",
            where_good!(),
            " and enrol_hash = $3 and enrol_expires_at > $2 and enrol_expires_at <= $5"
        ))
        .bind(key_id)
        .bind(now)
        .bind(enrol_hash)
        .bind(secret_hash)
        .bind(now + ENROLMENT + CLOCKS_APART);
        change_key(self, key_id, [keep, update], Author { key_id: Some(key_id), now }, Action::KeyEnrolled).await
    }

    async fn note_made_before(&self, key_id: Uuid, now: Millis) -> Result<()> {
        let mut lease = self.writer().await?;
        let outcome = sqlx::query("update keys set created_at = $3 where key_id = $1 and created_at > $2")
            .bind(key_id)
            .bind(now)
            .bind(now - OFFLINE_WINDOW)
            .execute(lease.connection())
            .await;
        lease.settle(outcome.map(drop).map_err(Error::from)).await
    }

    async fn note_heard(&self, key_id: Uuid, unsent: Option<i64>, now: Millis) -> Result<()> {
        let mut lease = self.reader().await?;
        let outcome = sqlx::query_scalar("select heard_at from keys where key_id = $1")
            .bind(key_id)
            .fetch_optional(lease.connection())
            .await;
        let heard: Option<Option<Millis>> = lease.settle(outcome.map_err(Error::from)).await?;
        // Also notes it if the clock was ahead at the last time.
        if heard.flatten().is_some_and(|heard| now - HEARD_NOTED < heard && heard <= now) {
            return Ok(());
        }
        let mut lease = self.writer().await?;
        let outcome = sqlx::query("update keys set heard_at = $2, unsent = $3 where key_id = $1")
            .bind(key_id)
            .bind(now)
            .bind(unsent)
            .execute(lease.connection())
            .await;
        lease.settle(outcome.map(drop).map_err(Error::from)).await
    }

    async fn take_scans(&self, key_id: Uuid, author: Author) -> Result<()> {
        // Later than the revocation, even if the clock was ahead then. After it, no other device can have got this key.
        let update = sqlx::query(
            "update keys set taken_at = case when revoked_at > $2 then revoked_at else $2 end where key_id = $1",
        )
        .bind(key_id)
        .bind(author.now);
        let is_there = change_key(self, key_id, [update], author, Action::ScansTaken).await?;
        if is_there { Ok(()) } else { Err(Error::KeyNotFound) }
    }
}

type Update<'q> = sqlx::query::Query<'q, Db, <Db as sqlx::Database>::Arguments>;

/// Locks the author's key for the rest of the transaction, if it is still valid: a process may trust a key for a while after
/// another process revoked it, and keys created meanwhile would outlive it.
async fn refuse_revoked(connection: &mut Connection, author: Author) -> Result<()> {
    let Some(key_id) = author.key_id else { return Ok(()) };
    let update = sqlx::query(concat!("update keys set created_by = created_by ", where_good!()));
    let taken = update.bind(key_id).bind(author.now).execute(connection).await?;
    if taken.rows_affected() == 0 { Err(Error::Unauthenticated(None)) } else { Ok(()) }
}

/// Revokes a key, the keys that it created, and so on, except those already revoked, and withdraws their enrolment tokens.
async fn revoke_descent(connection: &mut Connection, key_id: Uuid, author: Author) -> Result<Vec<Uuid>> {
    let revoked: Vec<(Uuid, Option<Uuid>)> = sqlx::query_as(
        "with recursive descent (key_id) as (select key_id from keys where key_id = $1 \
         union select k.key_id from keys k join descent d on k.created_by = d.key_id) \
         update keys set revoked_at = $2 where revoked_at is null and key_id in (select key_id from descent) \
         returning key_id, event_id",
    )
    .bind(key_id)
    .bind(author.now)
    .fetch_all(&mut *connection)
    .await?;
    for &(revoked_id, event_id) in &revoked {
        sqlx::query(
            "update keys set enrol_hash = null, enrol_expires_at = null where enrol_expires_at > $2 and key_id in \
             (select a.subject_id from actions a where a.key_id = $1 and a.action = $3 and a.at > $4)",
        )
        .bind(revoked_id)
        .bind(author.now)
        .bind(Action::KeyOffered)
        .bind(author.now - ENROLMENT)
        .execute(&mut *connection)
        .await?;
        record(connection, author, &Act::new(Action::KeyRevoked, event_id).subject(revoked_id)).await?;
    }
    Ok(revoked.into_iter().map(|(revoked_id, _)| revoked_id).collect())
}

/// Changes a key, and records the action if the last of the statements changed a row. Returns whether it did.
async fn change_key<const N: usize>(
    backend: &Backend,
    key_id: Uuid,
    updates: [Update<'_>; N],
    author: Author,
    action: Action,
) -> Result<bool> {
    let mut lease = backend.writer().await?.begin(BEGIN).await?;
    let outcome = async {
        let connection = lease.connection();
        if author.key_id != Some(key_id) {
            refuse_revoked(connection, author).await?;
        }
        let mut changed = false;
        for update in updates {
            changed = update.execute(&mut *connection).await?.rows_affected() > 0;
        }
        if changed {
            let event_id: Option<Uuid> = sqlx::query_scalar("select event_id from keys where key_id = $1")
                .bind(key_id)
                .fetch_one(&mut *connection)
                .await?;
            record(connection, author, &Act::new(action, event_id).subject(key_id)).await?;
        }
        Ok(changed)
    }
    .await;
    lease.settle(outcome).await
}
